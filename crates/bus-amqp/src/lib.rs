//! RabbitMQ as a bus.
//!
//! Each log is a stream queue; an append is one message, so that it is there whole or not at all.
//! Ephemeral topics are an exchange. What lies on the server is written in `spec/bus-amqp.md`.
//!
//! ```no_run
//! use sealcast_bus::{Bus, BusUrl, Place, ServerOptions, Topic};
//! use sealcast_bus_amqp::AmqpBus;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let url = BusUrl::parse("amqp://broker.example/plant-7")?;
//! if let Place::Amqp(address) = url.place() {
//!     let bus = AmqpBus::open(address, &ServerOptions::default()).await?;
//!     bus.append(&Topic::new("a/log")?, vec![b"one".to_vec()]).await?;
//! }
//! # Ok(())
//! # }
//! ```

mod arrive;
mod chain;
mod check;
mod connect;
mod fault;
mod feed;
mod known;
mod listen;
mod log;
mod message;
mod name;
mod scan;
mod server;
mod tail;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use sealcast_bus::{
    Bus, BusError, BusFuture, BusReport, BusSetup, Item, Limits, Listener, Offset, ServerAddress,
    ServerOptions, Tail, Topic, Turn,
};

use listen::AmqpListener;
use log::Logs;
use server::Server;
use tail::AmqpTail;

/// The most bytes of one payload, and of one append.
const PAYLOAD_MAX: usize = 32 << 20;

/// A bus on a RabbitMQ server, or on a cluster of them.
///
/// Whatever the server cannot do at this moment is tried again for half a minute; then the call
/// fails, and a later one may succeed. Connections are made anew as often as they break. Cloning is
/// cheap and gives another handle of the same connections.
///
/// An append is as durable as the server makes it before it confirms: it survives the end of the
/// server, but on a single one not a loss of power.
#[derive(Clone)]
pub struct AmqpBus {
    logs: Arc<Logs>,
}

impl AmqpBus {
    /// Connects to the first server that answers. The exchange is created when there is none, and
    /// queues when they are needed; what is there is left as it is.
    ///
    /// Must be called, and the bus used, on a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`BusError::Unreachable`] when no server answers, or the one that does does not take the
    /// credentials or knows no such virtual host.
    pub async fn open(address: &ServerAddress, options: &ServerOptions) -> Result<Self, BusError> {
        let server = Server::open(address, options).await?;
        let logs = Arc::new(Logs::new(server));
        Ok(Self { logs })
    }

    /// Says what the servers offer as a bus, and what they lack; makes nothing.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub async fn check(
        address: &ServerAddress,
        options: &ServerOptions,
    ) -> Result<BusReport, BusError> {
        check::check(address, options).await
    }

    /// Makes the exchange where there is none, and leaves one that is there as it is. Queues are
    /// created when they are needed.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub async fn setup(
        address: &ServerAddress,
        options: &ServerOptions,
    ) -> Result<BusSetup, BusError> {
        check::setup(address, options).await
    }

    /// Appends in a task of its own: whoever stops waiting does not stop it halfway.
    async fn put(
        &self,
        topic: Topic,
        at: Option<Offset>,
        payloads: Vec<Vec<u8>>,
    ) -> Result<Option<Offset>, BusError> {
        let logs = Arc::clone(&self.logs);
        let appending = tokio::spawn(async move { logs.append(&topic, at, payloads).await });
        appending
            .await
            .map_err(|error| BusError::Backend(Box::new(error)))?
    }
}

impl fmt::Debug for AmqpBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AmqpBus")
            .field(&self.logs.server.place())
            .finish()
    }
}

impl Bus for AmqpBus {
    fn limits(&self) -> Limits {
        Limits::new(PAYLOAD_MAX, PAYLOAD_MAX)
    }

    fn append(&self, topic: &Topic, payloads: Vec<Vec<u8>>) -> BusFuture<'_, Offset> {
        let topic = topic.clone();
        Box::pin(async move {
            self.limits().check(&payloads)?;
            if payloads.is_empty() {
                return self.logs.end(&topic).await;
            }
            let first = self.put(topic, None, payloads).await?;
            Ok(first.unwrap_or_default())
        })
    }

    fn append_at(&self, topic: &Topic, end: Offset, payloads: Vec<Vec<u8>>) -> BusFuture<'_, bool> {
        let topic = topic.clone();
        Box::pin(async move {
            self.limits().check(&payloads)?;
            if payloads.is_empty() {
                return Ok(self.logs.end(&topic).await? == end);
            }
            let first = self.put(topic, Some(end), payloads).await?;
            Ok(first.is_some())
        })
    }

    fn append_in_turn(
        &self,
        topic: &Topic,
        payloads: Vec<Bytes>,
        mut turn: Turn,
    ) -> BusFuture<'_, ()> {
        let (logs, topic) = (Arc::clone(&self.logs), topic.clone());
        Box::pin(async move {
            self.limits().check(&payloads)?;
            if payloads.is_empty() {
                turn.come().await?;
                turn.stored();
                return Ok(());
            }
            let appending =
                tokio::spawn(async move { logs.append_in_turn(&topic, payloads, turn).await });
            appending
                .await
                .map_err(|error| BusError::Backend(Box::new(error)))?
        })
    }

    fn read(&self, topic: &Topic, from: Offset, bytes_max: usize) -> BusFuture<'_, Vec<Item>> {
        let topic = topic.clone();
        Box::pin(async move { self.logs.read(&topic, from, bytes_max).await })
    }

    fn end(&self, topic: &Topic) -> BusFuture<'_, Offset> {
        let topic = topic.clone();
        Box::pin(async move { self.logs.end(&topic).await })
    }

    fn tail(&self, topics: Vec<(Topic, Offset)>) -> Box<dyn Tail> {
        Box::new(AmqpTail::new(&self.logs.server, topics))
    }

    fn trim(&self, topic: &Topic, before: Offset) -> BusFuture<'_, ()> {
        let (logs, topic) = (Arc::clone(&self.logs), topic.clone());
        Box::pin(async move {
            let trimming = tokio::spawn(async move { logs.trim(&topic, before).await });
            trimming
                .await
                .map_err(|error| BusError::Backend(Box::new(error)))?
        })
    }

    fn send(&self, topic: &Topic, payload: Vec<u8>) -> BusFuture<'_, ()> {
        let topic = topic.clone();
        Box::pin(async move {
            Limits::check_sent(&payload)?;
            let server = &self.logs.server;
            let sent = server.send(&topic, &payload).await;
            sent.map_err(|fault| server.fault(fault))
        })
    }

    fn listen(&self, topics: Vec<Topic>) -> BusFuture<'_, Box<dyn Listener>> {
        let server = Arc::clone(&self.logs.server);
        Box::pin(async move {
            let started = AmqpListener::start(Arc::clone(&server), topics).await;
            let listener = started.map_err(|fault| server.fault(fault))?;
            Ok(Box::new(listener) as Box<dyn Listener>)
        })
    }
}

//! NATS JetStream as a bus.
//!
//! One JetStream stream holds all logs of a bus, a subject for each; an append is one message, so
//! that it is there whole or not at all. Ephemeral topics are core NATS. What lies on the server is
//! written in `spec/bus-nats.md`.
//!
//! ```no_run
//! use sealcast_bus::{Bus, BusUrl, Place, ServerOptions, Topic};
//! use sealcast_bus_nats::NatsBus;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let url = BusUrl::parse("nats://broker.example/plant-7")?;
//! if let Place::Nats(address) = url.place() {
//!     let bus = NatsBus::open(address, &ServerOptions::default()).await?;
//!     bus.append(&Topic::new("a/log")?, vec![b"one".to_vec()]).await?;
//! }
//! # Ok(())
//! # }
//! ```

mod check;
mod connect;
mod ears;
mod fault;
mod listen;
mod log;
mod message;
mod server;
mod subject;
mod tail;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use sealcast_bus::{
    Bus, BusError, BusFuture, BusReport, BusSetup, Item, Limits, Listener, Offset, ServerAddress,
    ServerOptions, Tail, Topic, Turn,
};

use listen::NatsListener;
use log::Logs;
use tail::NatsTail;

/// The most bytes of one payload, and of one append.
const PAYLOAD_MAX: usize = 32 << 20;

/// A bus on a NATS server with JetStream, or on a cluster of them.
///
/// Whatever the server cannot do at this moment is tried again for half a minute; then the call
/// fails, and a later one may succeed. The connection is made anew as often as it breaks. Cloning is
/// cheap and gives another handle of the same connection.
///
/// An append is as durable as the server makes it before it answers: with `sync_interval: always` in
/// its configuration it is on the disk, with three replicas on the disks or in the memory of two
/// servers.
#[derive(Clone)]
pub struct NatsBus {
    logs: Arc<Logs>,
}

impl NatsBus {
    /// Connects to the first server that answers. The stream is created when there is none; one that
    /// is there is left as it is.
    ///
    /// Must be called, and the bus used, on a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`BusError::Unreachable`] when no server answers, or the one that does has no JetStream, does
    /// not take the credentials, or has a stream of that name that is not a bus.
    pub async fn open(address: &ServerAddress, options: &ServerOptions) -> Result<Self, BusError> {
        let server = connect::open(address, options).await?;
        let logs = Arc::new(Logs::new(server));
        Ok(Self { logs })
    }

    /// Says what a server offers as a bus; makes nothing.
    ///
    /// # Errors
    ///
    /// [`BusError::Unreachable`] when no server answers, or the one that does does not take the
    /// credentials.
    pub async fn check(
        address: &ServerAddress,
        options: &ServerOptions,
    ) -> Result<BusReport, BusError> {
        check::check(address, options).await
    }

    /// Makes the stream if there is none, and leaves one that is there as it is. Where nobody says on how many
    /// servers it is to be, it is on three of a cluster, or on one where there are fewer.
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
}

impl fmt::Debug for NatsBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NatsBus")
            .field(&self.logs.server.place())
            .finish()
    }
}

impl Bus for NatsBus {
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
            let first = self.logs.append(&topic, None, &payloads).await?;
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
            let first = self.logs.append(&topic, Some(end), &payloads).await?;
            Ok(first.is_some())
        })
    }

    fn append_in_turn(
        &self,
        topic: &Topic,
        payloads: Vec<Bytes>,
        mut turn: Turn,
    ) -> BusFuture<'_, ()> {
        let topic = topic.clone();
        Box::pin(async move {
            self.limits().check(&payloads)?;
            if payloads.is_empty() {
                turn.come().await?;
                turn.stored();
                return Ok(());
            }
            self.logs.append_in_turn(&topic, &payloads, turn).await
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
        Box::new(NatsTail::new(Arc::clone(&self.logs), topics))
    }

    fn trim(&self, topic: &Topic, before: Offset) -> BusFuture<'_, ()> {
        let topic = topic.clone();
        Box::pin(async move { self.logs.trim(&topic, before).await })
    }

    fn send(&self, topic: &Topic, payload: Vec<u8>) -> BusFuture<'_, ()> {
        let subject = self.logs.server.subjects.now(topic);
        Box::pin(async move {
            Limits::check_sent(&payload)?;
            let server = &self.logs.server;
            let sent = server.send(subject, payload.into()).await;
            sent.map_err(|fault| server.fault(fault))
        })
    }

    fn listen(&self, topics: Vec<Topic>) -> BusFuture<'_, Box<dyn Listener>> {
        let server = Arc::clone(&self.logs.server);
        Box::pin(async move {
            let listener = NatsListener::start(server, topics).await?;
            Ok(Box::new(listener) as Box<dyn Listener>)
        })
    }
}

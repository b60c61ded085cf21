//! PostgreSQL as a bus.
//!
//! A schema of its own holds all logs of a bus; an append is one statement, so that it is there whole
//! or not at all. Whoever follows a log or listens to an ephemeral topic is told by `NOTIFY`. What lies
//! in the database is written in `spec/bus-postgres.md`.
//!
//! ```no_run
//! use sealcast_bus::{Bus, BusUrl, Place, ServerOptions, Topic};
//! use sealcast_bus_postgres::PostgresBus;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let url = BusUrl::parse("postgres://db.example/fleet/plant")?;
//! if let Place::Postgres(address) = url.place() {
//!     let bus = PostgresBus::open(address, &ServerOptions::default()).await?;
//!     bus.append(&Topic::new("a/log")?, vec![b"one".to_vec()]).await?;
//! }
//! # Ok(())
//! # }
//! ```

mod check;
mod desks;
mod ears;
mod fault;
mod hidden;
mod in_turn;
mod listen;
mod log;
mod notice;
mod pooler;
mod schema;
mod send;
mod session;
mod settings;
mod sql;
mod tail;
mod tls;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use sealcast_bus::{
    Attempts, Bus, BusError, BusFuture, BusReport, BusSetup, Item, Limits, Listener, Offset,
    ServerAddress, ServerOptions, Tail, Topic, Turn,
};

use desks::{ANSWER_TIMEOUT, Desks, in_time};
use ears::Ears;
use fault::Fault;
use listen::PostgresListener;
use log::{Append, Ends, Read, Trim};
use send::Send;
use session::{Line, Session};
use settings::Settings;
use tail::PostgresTail;

/// The most bytes of one payload, and of one append.
const PAYLOAD_MAX: usize = 32 << 20;

/// A bus in a schema of a PostgreSQL database.
///
/// Whatever the server cannot do at this moment is tried again for half a minute; then the call
/// fails, and a later one may succeed. Connections, five at most, are made as they are needed and made
/// anew as often as they break. Cloning is cheap and gives another handle of the same connections.
///
/// An append is on the server's disk when it is acknowledged, unless the server itself was told not to
/// write there (`fsync = off`).
#[derive(Clone)]
pub struct PostgresBus {
    shared: Arc<Shared>,
}

/// What a handle has, with its tails and listeners.
#[derive(Debug)]
struct Shared {
    desks: Desks,
    ears: Ears,
}

impl PostgresBus {
    /// Connects to the first server that answers and takes what is written. The schema is created when
    /// there is none; one that is there is left as it is.
    ///
    /// Must be called, and the bus used, on a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`BusError::Unreachable`] when no server answers, or the one that does has no such database, does
    /// not take the credentials, does not let the user create the schema, or has one of that name that
    /// is not a bus; [`BusError::TooNew`] when a newer version made it.
    pub async fn open(address: &ServerAddress, options: &ServerOptions) -> Result<Self, BusError> {
        let opened = Self::open_settings(address, options).await;
        opened.map_err(|fault| fault.at(&address.to_string()))
    }

    /// Says what a database offers as a bus; makes nothing.
    ///
    /// # Errors
    ///
    /// [`BusError::Unreachable`] when no server answers, or the one that does does not take the
    /// credentials or has no such database; [`BusError::TooNew`] when a newer version made the bus.
    pub async fn check(
        address: &ServerAddress,
        options: &ServerOptions,
    ) -> Result<BusReport, BusError> {
        check::check(address, options).await
    }

    /// Makes the schema if there is none, and leaves one that is there as it is.
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

    async fn open_settings(
        address: &ServerAddress,
        options: &ServerOptions,
    ) -> Result<Self, Fault> {
        let settings = Arc::new(Settings::new(address, options)?);
        let mut attempts = Attempts::new();
        let session = loop {
            match open_session(&settings).await {
                Err(fault) if fault.is_starting() => attempts.after(fault).await?,
                opened => break opened?,
            }
        };
        let shared = Shared {
            desks: Desks::new(Arc::clone(&settings), session)?,
            ears: Ears::new(settings),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    async fn append_to(
        &self,
        topic: &Topic,
        at: Option<Offset>,
        payloads: &[Vec<u8>],
    ) -> Result<Option<Offset>, BusError> {
        self.limits().check(payloads)?;
        if payloads.is_empty() {
            let end = self.end_of(topic).await?;
            return Ok(at.is_none_or(|at| at == end).then_some(end));
        }
        let payloads: Vec<&[u8]> = payloads.iter().map(AsRef::as_ref).collect();
        let append = Append {
            topic,
            at,
            payloads: &payloads,
            behind: None,
            channel: self.shared.desks.settings.schema(),
        };
        self.shared.desks.call(&append).await
    }

    async fn end_of(&self, topic: &Topic) -> Result<Offset, BusError> {
        let topics = std::slice::from_ref(topic);
        let ends = self.shared.desks.call(&Ends { topics }).await?;
        let end = ends.into_iter().next().map(|(_, end)| end).transpose();
        let end = end.map_err(|fault| fault.at(self.shared.desks.place()))?;
        Ok(end.unwrap_or_default())
    }
}

async fn open_session(settings: &Settings) -> Result<Session, Fault> {
    let line = Line::open(settings, |_| ()).await?;
    let schema = schema::find_or_create(&line.client, settings.schema());
    in_time(ANSWER_TIMEOUT, schema).await?;
    Session::over(line, settings.schema()).await
}

impl fmt::Debug for PostgresBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PostgresBus")
            .field(&self.shared.desks.place())
            .finish()
    }
}

impl Bus for PostgresBus {
    fn limits(&self) -> Limits {
        Limits::new(PAYLOAD_MAX, PAYLOAD_MAX)
    }

    fn append(&self, topic: &Topic, payloads: Vec<Vec<u8>>) -> BusFuture<'_, Offset> {
        let topic = topic.clone();
        Box::pin(async move {
            let first = self.append_to(&topic, None, &payloads).await?;
            Ok(first.unwrap_or_default())
        })
    }

    fn append_at(&self, topic: &Topic, end: Offset, payloads: Vec<Vec<u8>>) -> BusFuture<'_, bool> {
        let topic = topic.clone();
        Box::pin(async move {
            let first = self.append_to(&topic, Some(end), &payloads).await?;
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
            let desks = &self.shared.desks;
            desks.append_in_turn(&topic, &payloads, turn).await
        })
    }

    fn read(&self, topic: &Topic, from: Offset, bytes_max: usize) -> BusFuture<'_, Vec<Item>> {
        let topic = topic.clone();
        Box::pin(async move {
            let read = Read {
                topic: &topic,
                from,
                bytes_max,
            };
            self.shared.desks.call(&read).await
        })
    }

    fn end(&self, topic: &Topic) -> BusFuture<'_, Offset> {
        let topic = topic.clone();
        Box::pin(async move { self.end_of(&topic).await })
    }

    fn tail(&self, topics: Vec<(Topic, Offset)>) -> Box<dyn Tail> {
        Box::new(PostgresTail::new(Arc::clone(&self.shared), topics))
    }

    fn trim(&self, topic: &Topic, before: Offset) -> BusFuture<'_, ()> {
        let topic = topic.clone();
        Box::pin(async move {
            let trim = Trim {
                topic: &topic,
                before,
            };
            self.shared.desks.call(&trim).await
        })
    }

    fn send(&self, topic: &Topic, payload: Vec<u8>) -> BusFuture<'_, ()> {
        let topic = topic.clone();
        Box::pin(async move {
            Limits::check_sent(&payload)?;
            let send = Send {
                topic: &topic,
                payload: &payload,
                channel: self.shared.desks.settings.schema(),
            };
            self.shared.desks.call(&send).await
        })
    }

    fn listen(&self, topics: Vec<Topic>) -> BusFuture<'_, Box<dyn Listener>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let listener = PostgresListener::start(shared, topics).await?;
            Ok(Box::new(listener) as Box<dyn Listener>)
        })
    }
}

//! An MQTT broker as a bus.
//!
//! A broker stores no logs and gives no order that is the same for all. So each home keeps a
//! *mirror*, in which it puts what comes, in the order in which it comes; it reads there, and its
//! offsets are its own. Entries of logs are retained, each as a message of its own; the data of
//! streams is not, so that who was not there lacks it. What travels is written in
//! `spec/bus-mqtt.md`.
//!
//! ```no_run
//! use sealcast_bus::{Bus, BusUrl, ServerOptions, Topic};
//! use sealcast_bus_mqtt::MqttBus;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let url = BusUrl::parse("mqtt://broker.example/plant-7")?;
//! if let Some(address) = url.server() {
//!     let bus = MqttBus::open(address, &ServerOptions::default(), "home/mirror").await?;
//!     bus.append(&Topic::new("a/log")?, vec![b"one".to_vec()]).await?;
//! }
//! # Ok(())
//! # }
//! ```

mod append;
mod check;
mod dial;
mod fault;
mod feed;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
mod home;
mod line;
mod link;
mod message;
mod own;
mod packet;
mod past;
mod prompt;
mod put_back;
mod sending;
mod tail;
mod users;

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use sealcast_bus::{
    Bus, BusError, BusFuture, BusReport, BusSetup, Item, Limits, Listener, Offset, ServerAddress,
    ServerOptions, Tail, Topic, Turn,
};
use tokio::task::JoinHandle;

use dial::Dial;
use home::Home;
use line::{Line, MqttListener};
use message::{Names, is_control, scope};
use tail::MqttTail;

/// The most bytes of one payload, and of one append.
const PAYLOAD_MAX: usize = 17 << 20;

/// A bus on an MQTT broker, as one home sees it.
///
/// What the broker cannot take at this moment is tried again for half a minute; then the call fails,
/// and a later one may succeed. The connection is made anew as often as it breaks. Cloning is cheap
/// and gives another handle of the same connection.
///
/// An append that returned is in the mirror, on the disk, and acknowledged by the broker, which may
/// lose it all the same. Offsets, `append_at` and `trim` are those of the mirror: another home sees
/// the same items in an order of its own.
#[derive(Clone)]
pub struct MqttBus {
    inner: Arc<Inner>,
}

struct Inner {
    home: Arc<Home>,
    line: Arc<Line>,
    feeding: JoinHandle<()>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.feeding.abort();
    }
}

impl MqttBus {
    /// Connects to the broker, with the mirror in `folder`, which the processes of one home share and
    /// which is made where it is missing.
    ///
    /// Must be called, and the bus used, on a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`BusError::Unreachable`] when the broker does not answer, does not let us in, or lacks what a
    /// bus needs, and what [`FileBus::open`](sealcast_bus::FileBus::open) says of the folder.
    pub async fn open(
        address: &ServerAddress,
        options: &ServerOptions,
        folder: impl AsRef<Path>,
    ) -> Result<Self, BusError> {
        let place = address.to_string();
        let dial = Dial::new(address, options).map_err(|fault| fault.at(&place))?;
        let home = Arc::new(Home::open(folder.as_ref()).await?);
        let names = Names::new(address.name(), &home.name);
        let names = names.with_users(address.users_topics().cloned());
        let line = Line::open(dial.clone(), names, place.clone()).await;
        let line = Arc::new(line.map_err(|fault| fault.at(&place))?);
        let feeding = feed::attend(
            Arc::clone(&home),
            Arc::clone(&line),
            dial,
            options.serves_history,
        );
        let feeding = tokio::spawn(async move { match feeding.await {} });
        let inner = Arc::new(Inner {
            home,
            line,
            feeding,
        });
        Ok(Self { inner })
    }

    /// Says what the broker offers as a bus, and what it lacks; makes nothing.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open) where the broker cannot be reached or does not let us in.
    pub async fn check(
        address: &ServerAddress,
        options: &ServerOptions,
    ) -> Result<BusReport, BusError> {
        check::check(address, options).await
    }

    /// Looks at the broker, on which nothing has to be made.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check), and [`BusError::Unreachable`] where the broker lacks what a bus needs.
    pub async fn setup(
        address: &ServerAddress,
        options: &ServerOptions,
    ) -> Result<BusSetup, BusError> {
        check::setup(address, options).await
    }

    /// Sees to it that a topic is in the mirror, from now on.
    async fn follow(&self, topic: &Topic) -> Result<(), BusError> {
        let scopes = BTreeSet::from([scope(topic)]);
        let Inner { home, line, .. } = &*self.inner;
        home.follow(&scopes, line.place()).await
    }

    async fn read_on(
        &self,
        topic: &Topic,
        from: Offset,
        bytes_max: usize,
    ) -> Result<Vec<Item>, BusError> {
        self.follow(topic).await?;
        let mirror = self.inner.home.mirror.bus();
        let items = mirror.read(topic, from, bytes_max).await?;
        if !items.is_empty() {
            return Ok(items);
        }
        // Only who has all that was there may say that nothing follows.
        if is_control(topic) {
            self.inner.line.fence(true).await?;
            return mirror.read(topic, from, bytes_max).await;
        }
        let mut tail = mirror.tail(Vec::from([(topic.clone(), from)]));
        tokio::select! {
            fenced = self.inner.line.fence(false) => fenced?,
            // What the broker has kept may take long to come, and is read meanwhile.
            came = tail.next() => drop(came?),
        }
        mirror.read(topic, from, bytes_max).await
    }
}

impl fmt::Debug for MqttBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MqttBus")
            .field(&self.inner.line.place())
            .finish()
    }
}

impl Bus for MqttBus {
    fn limits(&self) -> Limits {
        Limits::new(PAYLOAD_MAX, PAYLOAD_MAX)
    }

    fn append(&self, topic: &Topic, payloads: Vec<Vec<u8>>) -> BusFuture<'_, Offset> {
        let topic = topic.clone();
        Box::pin(async move {
            self.limits().check(&payloads)?;
            if payloads.is_empty() {
                return self.end(&topic).await;
            }
            self.follow(&topic).await?;
            let Inner { home, line, .. } = &*self.inner;
            let payloads = payloads.into_iter().map(Bytes::from).collect();
            append::append(home, line, topic, payloads, None).await
        })
    }

    fn append_in_turn(&self, topic: &Topic, payloads: Vec<Bytes>, turn: Turn) -> BusFuture<'_, ()> {
        let topic = topic.clone();
        Box::pin(async move {
            self.limits().check(&payloads)?;
            if payloads.is_empty() {
                return turn.take(async { Ok(()) }).await;
            }
            self.follow(&topic).await?;
            let Inner { home, line, .. } = &*self.inner;
            let appended = append::append(home, line, topic, payloads, Some(turn)).await;
            appended.map(drop)
        })
    }

    fn append_at(&self, topic: &Topic, end: Offset, payloads: Vec<Vec<u8>>) -> BusFuture<'_, bool> {
        let topic = topic.clone();
        Box::pin(async move {
            self.limits().check(&payloads)?;
            let is_there = self.end(&topic).await? == end;
            if is_there && !payloads.is_empty() {
                self.append(&topic, payloads).await?;
            }
            Ok(is_there)
        })
    }

    fn read(&self, topic: &Topic, from: Offset, bytes_max: usize) -> BusFuture<'_, Vec<Item>> {
        let topic = topic.clone();
        Box::pin(async move { self.read_on(&topic, from, bytes_max).await })
    }

    fn end(&self, topic: &Topic) -> BusFuture<'_, Offset> {
        let topic = topic.clone();
        Box::pin(async move {
            self.follow(&topic).await?;
            self.inner.line.fence(is_control(&topic)).await?;
            self.inner.home.mirror.bus().end(&topic).await
        })
    }

    fn tail(&self, topics: Vec<(Topic, Offset)>) -> Box<dyn Tail> {
        let Inner { home, line, .. } = &*self.inner;
        Box::new(MqttTail::new(Arc::clone(home), line.place(), topics))
    }

    fn trim(&self, topic: &Topic, before: Offset) -> BusFuture<'_, ()> {
        let topic = topic.clone();
        Box::pin(async move {
            let Inner { home, line, .. } = &*self.inner;
            append::trim(home, line, topic, before).await
        })
    }

    fn send(&self, topic: &Topic, payload: Vec<u8>) -> BusFuture<'_, ()> {
        let topic = topic.clone();
        Box::pin(async move {
            Limits::check_sent(&payload)?;
            self.inner.line.send(&topic, &payload).await
        })
    }

    fn listen(&self, topics: Vec<Topic>) -> BusFuture<'_, Box<dyn Listener>> {
        let line = Arc::clone(&self.inner.line);
        Box::pin(async move {
            let listener = MqttListener::start(line, topics).await?;
            Ok(Box::new(listener) as Box<dyn Listener>)
        })
    }
}

//! Two people and a stream on a bus, which is a `file:` one by itself, in a folder that is removed at the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sealcast::{
    Bound, BusUrl, Clock, GrantOptions, Granted, Ground, Home, InitOptions, Passphrase, Position,
    Published, Roles, Stream, StreamOptions,
};
use sealcast_bus::{Bus, BusFuture, Item, Limits, Listener, Offset, Tail, Topic};
use tempfile::TempDir;

use crate::clock::process_cpu;

/// A record of 100 bytes, each another one.
pub(crate) fn record(number: u64) -> [u8; 100] {
    let mut record = [42; 100];
    record[..8].copy_from_slice(&number.to_le_bytes());
    record
}

/// Alice publishes, Bob has joined and reads what she grants.
pub(crate) struct Stage {
    pub(crate) folder: TempDir,
    pub(crate) alice: Stream,
    pub(crate) bob: Stream,
    bob_home: Home,
    bus_reads: Arc<AtomicU64>,
}

/// Counts what is read from a bus.
#[derive(Debug)]
struct Counted {
    inner: Arc<dyn Bus>,
    reads: Arc<AtomicU64>,
}

impl Bus for Counted {
    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    fn append(&self, topic: &Topic, payloads: Vec<Vec<u8>>) -> BusFuture<'_, Offset> {
        self.inner.append(topic, payloads)
    }

    fn read(&self, topic: &Topic, from: Offset, bytes_max: usize) -> BusFuture<'_, Vec<Item>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.inner.read(topic, from, bytes_max)
    }

    fn end(&self, topic: &Topic) -> BusFuture<'_, Offset> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.inner.end(topic)
    }

    fn tail(&self, topics: Vec<(Topic, Offset)>) -> Box<dyn Tail> {
        self.inner.tail(topics)
    }

    fn trim(&self, topic: &Topic, before: Offset) -> BusFuture<'_, ()> {
        self.inner.trim(topic, before)
    }

    fn send(&self, topic: &Topic, payload: Vec<u8>) -> BusFuture<'_, ()> {
        self.inner.send(topic, payload)
    }

    fn listen(&self, topics: Vec<Topic>) -> BusFuture<'_, Box<dyn Listener>> {
        self.inner.listen(topics)
    }
}

impl Stage {
    pub(crate) async fn set() -> anyhow::Result<Self> {
        Self::set_by(Clock::system(), None).await
    }

    /// On another bus than one in the folder, where one is given.
    pub(crate) async fn set_by(clock: Clock, bus: Option<BusUrl>) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let bus = match bus {
            Some(bus) => bus,
            None => BusUrl::file(&folder.path().join("bus"))?,
        };
        let options = || InitOptions {
            name: None,
            bus: Some(bus.clone()),
            passphrase: Passphrase::None,
        };
        let bus_reads = Arc::new(AtomicU64::new(0));
        let ground = || {
            let reads = bus_reads.clone();
            Ground {
                bus: Arc::new(move |inner| {
                    let reads = reads.clone();
                    Arc::new(Counted { inner, reads })
                }),
                clock: clock.clone(),
                ..Ground::default()
            }
        };
        let home = async |name: &str| {
            let path = folder.path().join(name);
            Home::init(&path, options()).await?;
            Home::danger_open_on(&path, None, ground()).await
        };
        let (alice, bob_home) = (home("alice").await?, home("bob").await?);
        let name = "kitchen".parse()?;
        let alice = alice.create_stream(&name, StreamOptions::default()).await?;
        let bob = bob_home.join(alice.ticket(), None).await?;
        Ok(Self {
            folder,
            alice,
            bob,
            bob_home,
            bus_reads,
        })
    }

    /// How often both have read from the bus, or asked for the end of a topic.
    pub(crate) fn bus_reads(&self) -> u64 {
        self.bus_reads.load(Ordering::Relaxed)
    }

    /// Publishes records of 100 bytes in frames.
    pub(crate) async fn publish(&self, count: u64) -> anyhow::Result<Published> {
        let mut publisher = self.alice.publisher().await?;
        for number in 0..count {
            publisher.send(&record(number)).await?;
        }
        Ok(publisher.finish().await?)
    }

    pub(crate) async fn grant(&self, from: Bound, until: Position) -> anyhow::Result<Granted> {
        let options = GrantOptions {
            user: self.bob_home.user(),
            roles: Roles::READER,
            from,
            until: Bound::At(until),
            reshare: false,
        };
        Ok(self.alice.grant(options).await?)
    }
}

/// What something took: CPU time of all threads, and time on the wall.
#[derive(Clone, Copy)]
pub(crate) struct Spent {
    pub(crate) cpu: Duration,
    pub(crate) wall: Duration,
}

/// Starts to measure; the call that it returns ends it.
pub(crate) fn stopwatch() -> impl FnOnce() -> Spent {
    let (cpu, wall) = (process_cpu(), std::time::Instant::now());
    move || Spent {
        cpu: process_cpu() - cpu,
        wall: wall.elapsed(),
    }
}

//! A bus that shows altered bytes to a home that comes afresh: the engine's tests alter every byte,
//! these some of every object, on the way through bus, store and library.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use sealcast::{Alarm, Ground, Home, Reason, Roles, State, Ticket};
use sealcast_bus::{Bus, BusFuture, Item, Limits, Listener, Offset, Tail, Topic};

use crate::rig::*;

/// A bus that shows one item as something else.
struct Altered {
    inner: Arc<dyn Bus>,
    topic: String,
    at: Offset,
    shown: Vec<u8>,
}

impl fmt::Debug for Altered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Altered")
    }
}

impl Bus for Altered {
    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    fn append(&self, topic: &Topic, payloads: Vec<Vec<u8>>) -> BusFuture<'_, Offset> {
        self.inner.append(topic, payloads)
    }

    fn read(&self, topic: &Topic, from: Offset, bytes_max: usize) -> BusFuture<'_, Vec<Item>> {
        let is_altered = topic.as_ref() == self.topic;
        let items = self.inner.read(topic, from, bytes_max);
        Box::pin(async move {
            let mut items = items.await?;
            let altered = items
                .iter_mut()
                .filter(|of| is_altered && of.offset == self.at);
            altered.for_each(|of| of.payload.clone_from(&self.shown));
            Ok(items)
        })
    }

    fn end(&self, topic: &Topic) -> BusFuture<'_, Offset> {
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

/// What a home that comes afresh is told.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    lines: Vec<String>,
    reasons: Vec<(State, Option<Reason>)>,
    alarms: Vec<Alarm>,
}

impl Told {
    fn opened(&self) -> BTreeMap<&str, usize> {
        let mut opened = BTreeMap::new();
        for (line, (state, _)) in self.lines.iter().zip(&self.reasons) {
            if *state == State::Opened {
                *opened.entry(&line[..]).or_default() += 1;
            }
        }
        opened
    }
}

/// A stream with a small history, and a reader's home that has not joined it.
struct History {
    rig: Rig,
    ticket: Ticket,
    bus: BTreeMap<String, Vec<Vec<u8>>>,
}

impl History {
    async fn new() -> Self {
        let rig = Rig::small();
        let (alice, pam, rob) = (
            rig.home("alice").await,
            rig.home("pam").await,
            rig.home("rob").await,
        );
        let (bob, ray) = (rig.home("bob").await, rig.home("ray").await);
        let stream = kitchen(&alice).await;
        say(&stream, "alice 1").await;
        copy_folder(&rig.path("bob"), &rig.path("fresh"));
        let (pams, robs) = (join(&pam, &stream).await, join(&rob, &stream).await);
        drop((join(&bob, &stream).await, join(&ray, &stream).await));
        for publisher in [pam.user(), rob.user()] {
            let grant = from_now(publisher, Roles::PUBLISHER);
            stream.grant(grant).await.unwrap();
        }
        // Not the whole of time, so that covers are given and no roots.
        let cut = stream.rotate().await.unwrap();
        let most = between(sealcast::Position(1), cut.after(1 << 40));
        for reader in [bob.user(), ray.user()] {
            stream.grant(to(reader, Roles::READER, most)).await.unwrap();
        }
        say(&pams, "pam 1").await;
        say(&robs, "rob 1").await;
        let mut frames = pams.publisher().await.unwrap();
        frames.send(b"framed 1").await.unwrap();
        frames.send(b"framed 2").await.unwrap();
        frames.finish().await.unwrap();
        stream.revoke_user(rob.user()).await.unwrap();
        stream.revoke_user(ray.user()).await.unwrap();
        stream.rotate().await.unwrap();
        say(&stream, "alice 2").await;
        let mut older = stream.backfill().await.unwrap();
        older
            .send(sealcast::Position(5_000), b"older")
            .await
            .unwrap();
        older.finish().await.unwrap();
        stream.rekey().await.unwrap();
        say(&stream, "alice 3").await;
        say(&pams, "pam 2").await;
        pams.sync().await.unwrap();
        let ticket = stream.ticket().clone();
        let mut bus = BTreeMap::new();
        for topic in topics(&rig.path("bus")) {
            let items = rig.items(&topic).await;
            bus.insert(topic, items);
        }
        Self { rig, ticket, bus }
    }

    /// Reads everything in a copy of the fresh home, where one item is shown as something else.
    async fn read(&self, topic: &str, at: usize, shown: &[u8]) -> Told {
        let path = self.rig.path("reading");
        let _was_there = std::fs::remove_dir_all(&path).is_ok();
        copy_folder(&self.rig.path("fresh"), &path);
        let (topic, at, shown) = (topic.to_owned(), Offset(at as u64), shown.to_vec());
        let ground = Ground {
            bus: Arc::new(move |inner| {
                let (topic, shown) = (topic.clone(), shown.clone());
                Arc::new(Altered {
                    inner,
                    topic,
                    at,
                    shown,
                })
            }),
            ..Ground::default()
        };
        let home = Home::danger_open_on(&path, None, ground).await.unwrap();
        let stream = home.join(&self.ticket, None).await.unwrap();
        let deliveries = deliveries(&stream).await;
        Told {
            lines: deliveries.iter().map(line).collect(),
            reasons: deliveries.iter().map(|of| (of.state, of.reason)).collect(),
            alarms: stream.alarms(),
        }
    }
}

/// Every topic of a file bus.
fn topics(bus: &Path) -> Vec<String> {
    let database = rusqlite::Connection::open(bus.join("bus.db")).unwrap();
    let mut names = database
        .prepare("SELECT name FROM topic ORDER BY id")
        .unwrap();
    let names = names.query_map([], |row| row.get(0)).unwrap();
    names.map(Result::unwrap).collect()
}

/// `spec/reading.md`, section "Judging an envelope": where a byte lies, and what its change is told as.
const FIELDS: [(usize, Reason); 7] = [
    (0, Reason::Malformed),
    (3, Reason::BadSignature),
    (9, Reason::BadSignature),
    (20, Reason::Malformed),
    (30, Reason::UnknownSender),
    (60, Reason::BadSignature),
    (99, Reason::BadSignature),
];

#[tokio::test]
async fn a_message_that_a_bus_shows_altered_is_refused_and_the_others_open() {
    let history = History::new().await;
    let data = history.bus.keys().find(|of| of.ends_with("/data")).unwrap();
    let items = &history.bus[data];
    let reference = history.read("none", 0, b"").await;
    assert_eq!(reference.opened().len(), 9, "{reference:?}");
    assert!(reference.alarms.is_empty());
    for (at, item) in items.iter().enumerate() {
        for (i, (byte, reason)) in FIELDS.iter().enumerate() {
            if (at + i) % 2 != 0 {
                continue;
            }
            let mut altered = item.clone();
            altered[*byte] ^= 0x80;
            let told = history.read(data, at, &altered).await;
            let refused = (State::Rejected, Some(*reason));
            let count = told.reasons.iter().filter(|of| **of == refused).count();
            assert_eq!(count, 1, "item {at}, byte {byte}: {told:?}");
            let lost = reference.opened().len() - told.opened().len();
            assert!((1..=2).contains(&lost), "item {at}, byte {byte}: {told:?}");
            let known = reference.opened();
            assert!(told.opened().iter().all(|(of, n)| known.get(of) >= Some(n)));
            let others = [State::Opened, State::Gap, State::Rejected];
            assert!(told.reasons.iter().all(|(of, _)| others.contains(of)));
        }
    }
}

/// Without what is told of somebody who writes to a topic and is none of its own.
fn but_forged(mut told: Told) -> Told {
    told.alarms.retain(|of| !matches!(of, Alarm::Forged(_)));
    told
}

#[tokio::test]
async fn a_control_object_that_a_bus_shows_altered_is_as_if_it_were_not_there() {
    let history = History::new().await;
    let reference = history.read("none", 0, b"").await;
    let mut cases = 0;
    let control = history
        .bus
        .iter()
        .filter(|(topic, _)| !topic.ends_with("/data"));
    for (topic, items) in control {
        for (at, item) in items.iter().enumerate() {
            let without = but_forged(history.read(topic, at, b"").await);
            for byte in [cases * 7 % item.len(), item.len() - 1] {
                let mut altered = item.clone();
                altered[byte] ^= 0x01;
                let told = but_forged(history.read(topic, at, &altered).await);
                assert_eq!(told, without, "{topic} {at}, byte {byte}");
                cases += 1;
            }
            let known = reference.opened();
            assert!(
                without
                    .opened()
                    .iter()
                    .all(|(of, n)| known.get(of) >= Some(n))
            );
        }
    }
    assert!(cases > 40, "{cases}");
}

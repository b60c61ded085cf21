//! Promise 6: a home that dies at any step goes on at the next start.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sealcast::{Error, Ground, Home, State};
use sealcast_bus::{Bus, BusFuture, Item, Limits, Offset, Tail, Topic};
use sealcast_store::{Key, Space, Store, StoreError, Txn, Value};

use crate::rig::*;

/// Counts what is asked of bus and store; from some step on, nothing is done any more.
#[derive(Clone)]
struct Life {
    steps: Arc<AtomicUsize>,
    last: usize,
    /// Whether the last append is done, and only its answer is missing.
    does_last: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Alive,
    Dying,
    Dead,
}

impl Life {
    fn new(last: usize, does_last: bool) -> Self {
        let steps = Arc::default();
        Self {
            steps,
            last,
            does_last,
        }
    }

    fn step(&self) -> Step {
        match self.steps.fetch_add(1, Ordering::SeqCst) {
            at if at < self.last => Step::Alive,
            at if at == self.last => Step::Dying,
            _ => Step::Dead,
        }
    }

    fn is_alive(&self) -> bool {
        self.step() == Step::Alive
    }

    fn ground(&self) -> Ground {
        let (of_bus, of_store) = (self.clone(), self.clone());
        Ground {
            bus: Arc::new(move |inner| {
                let life = of_bus.clone();
                Arc::new(Mortal { inner, life })
            }),
            store: Arc::new(move |inner| {
                let life = of_store.clone();
                Arc::new(Mortal { inner, life })
            }),
            ..Ground::default()
        }
    }
}

struct Mortal<T: ?Sized> {
    inner: Arc<T>,
    life: Life,
}

impl<T: ?Sized> fmt::Debug for Mortal<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mortal")
    }
}

impl Bus for Mortal<dyn Bus> {
    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    fn append(&self, topic: &Topic, payloads: Vec<Vec<u8>>) -> BusFuture<'_, Offset> {
        let topic = topic.clone();
        Box::pin(async move {
            let step = self.life.step();
            if step == Step::Alive || (step == Step::Dying && self.life.does_last) {
                let at = self.inner.append(&topic, payloads).await?;
                if step == Step::Alive {
                    return Ok(at);
                }
            }
            Err(unreachable())
        })
    }

    fn read(&self, topic: &Topic, from: Offset, bytes_max: usize) -> BusFuture<'_, Vec<Item>> {
        match self.life.is_alive() {
            true => self.inner.read(topic, from, bytes_max),
            false => Box::pin(async { Err(unreachable()) }),
        }
    }

    fn end(&self, topic: &Topic) -> BusFuture<'_, Offset> {
        match self.life.is_alive() {
            true => self.inner.end(topic),
            false => Box::pin(async { Err(unreachable()) }),
        }
    }

    fn tail(&self, topics: Vec<(Topic, Offset)>) -> Box<dyn Tail> {
        self.inner.tail(topics)
    }
}

impl Store for Mortal<dyn Store> {
    fn get(&self, key: &Key) -> Result<Option<Value>, StoreError> {
        match self.life.is_alive() {
            true => self.inner.get(key),
            false => Err(StoreError::Aborted),
        }
    }

    fn scan(&self, space: Space, prefix: &[u8]) -> Result<Vec<(Key, Value)>, StoreError> {
        match self.life.is_alive() {
            true => self.inner.scan(space, prefix),
            false => Err(StoreError::Aborted),
        }
    }

    fn transact(
        &self,
        step: &mut dyn FnMut(&mut dyn Txn) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        match self.life.is_alive() {
            true => self.inner.transact(step),
            false => Err(StoreError::Aborted),
        }
    }

    fn version(&self) -> Result<u64, StoreError> {
        self.inner.version()
    }
}

/// What alice does until she dies. Returns what was acknowledged.
async fn live(rig: &Rig, life: &Life, bob: &Home) -> (Vec<String>, Option<Error>) {
    let mut said = Vec::new();
    let end = act(rig, life, bob, &mut said).await.err();
    (said, end)
}

async fn act(rig: &Rig, life: &Life, bob: &Home, said: &mut Vec<String>) -> Result<(), Error> {
    let path = rig.path("alice");
    let alice = Home::danger_open_on(&path, None, life.ground()).await?;
    let stream = alice.stream(&name("kitchen")).await?;
    for text in ["one", "two"] {
        stream.publish(text.as_bytes()).await?;
        said.push(text.into());
    }
    stream.grant(all_to(bob.user())).await?;
    stream.rekey().await?;
    stream.publish(b"three").await?;
    said.push("three".into());
    let mut publisher = stream.publisher().await?;
    publisher.send(b"four").await?;
    publisher.finish().await?;
    said.push("four".into());
    stream.rotate().await?;
    stream.publish(b"five").await?;
    said.push("five".into());
    Ok(())
}

async fn dies_at(last: usize, does_last: bool) -> usize {
    let rig = Rig::new();
    let (alice, bob) = (rig.home("alice").await, rig.home("bob").await);
    let stream = kitchen(&alice).await;
    let joined = join(&bob, &stream).await;
    drop((stream, alice));
    let life = Life::new(last, does_last);
    let (said, end) = live(&rig, &life, &bob).await;
    let steps = life.steps.load(Ordering::SeqCst);

    let stream = rig
        .again("alice")
        .await
        .stream(&name("kitchen"))
        .await
        .unwrap();
    if stream.who().await.unwrap().len() < 2 {
        stream.grant(all_to(bob.user())).await.unwrap();
    }
    say(&stream, "after").await;
    stream.sync().await.unwrap();
    assert!(stream.alarms().is_empty(), "{last}");
    for reader in [&stream, &joined] {
        let all = deliveries(reader).await;
        let opened: Vec<_> = all
            .iter()
            .filter(|of| of.state == State::Opened)
            .map(line)
            .collect();
        let told: Vec<_> = all
            .iter()
            .filter(|of| of.state != State::Opened)
            .map(line)
            .collect();
        let missing: Vec<_> = said.iter().filter(|of| !opened.contains(of)).collect();
        assert!(
            missing.is_empty(),
            "{last}: {missing:?} of {opened:?}, {end:?}"
        );
        assert_eq!(opened.last().unwrap(), "after");
        assert_eq!(
            opened.iter().collect::<BTreeSet<_>>().len(),
            opened.len(),
            "{last}"
        );
        // One envelope at most was sealed and did not leave.
        assert!(told.len() <= usize::from(end.is_some()), "{last}: {told:?}");
        assert!(
            told.iter().all(|of| of.starts_with("Gap")),
            "{last}: {told:?}"
        );
    }
    let headers = rig.headers(&stream).await;
    let keys: BTreeSet<_> = headers.iter().map(|of| (of.instance, of.seq)).collect();
    assert_eq!(keys.len(), headers.len(), "{last}");
    assert!(headers.is_sorted_by_key(|of| of.position), "{last}");
    match end {
        Some(_) => steps,
        None => 0,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_that_dies_at_any_step_loses_nothing_and_repeats_nothing() {
    let mut last = 0;
    while dies_at(last, last % 2 == 0).await > 0 {
        last += 1;
    }
    assert!(last > 50, "{last}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_whose_append_is_done_but_not_answered_goes_on() {
    let mut last = 0;
    while dies_at(last, last % 2 == 1).await > 0 {
        last += 1;
    }
    assert!(last > 50, "{last}");
}

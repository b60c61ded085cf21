//! Promise 6: a home that dies or fails at any step goes on, at the next start or at once.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use sealcast::{Error, Ground, Home, Interval, Roles, State, Stream};
use sealcast_bus::{Bus, BusFuture, Item, Limits, Listener, Offset, Tail, Topic};
use sealcast_crash::Sent;
use sealcast_protocol::StreamTopics;
use sealcast_store::{Key, Space, Store, StoreError, Txn, Value};

use crate::rig::*;

mod carrying;

/// Counts what is asked of bus and store; one step fails, and what follows it, too, or goes on.
#[derive(Clone)]
struct Life {
    steps: Arc<AtomicUsize>,
    last: usize,
    /// Whether the append that fails is done, and only its answer is missing.
    does_last: bool,
    goes_on: bool,
    /// What was handed to the bus, whether or not it took it.
    sent: Arc<Mutex<Sent>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Alive,
    Dying,
    Dead,
}

impl Life {
    fn step(&self) -> Step {
        match self.steps.fetch_add(1, Ordering::SeqCst) {
            at if at < self.last => Step::Alive,
            at if at == self.last => Step::Dying,
            _ if self.goes_on => Step::Alive,
            _ => Step::Dead,
        }
    }

    /// What failed is passed over where life goes on.
    fn outlive<T>(&self, result: Result<T, Error>) -> Result<Option<T>, Error> {
        match result {
            Ok(done) => Ok(Some(done)),
            Err(_) if self.goes_on => Ok(None),
            Err(error) => Err(error),
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
        if topic.as_ref().ends_with("/data") {
            let mut sent = self.life.sent.lock().unwrap();
            sent.extend(topic.as_ref(), &payloads);
        }
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

    fn trim(&self, topic: &Topic, before: Offset) -> BusFuture<'_, ()> {
        match self.life.is_alive() {
            true => self.inner.trim(topic, before),
            false => Box::pin(async { Err(unreachable()) }),
        }
    }

    fn send(&self, topic: &Topic, payload: Vec<u8>) -> BusFuture<'_, ()> {
        match self.life.is_alive() {
            true => self.inner.send(topic, payload),
            false => Box::pin(async { Err(unreachable()) }),
        }
    }

    fn listen(&self, topics: Vec<Topic>) -> BusFuture<'_, Box<dyn Listener>> {
        match self.life.is_alive() {
            true => self.inner.listen(topics),
            false => Box::pin(async { Err(unreachable()) }),
        }
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
    let stream = loop {
        let opened = async {
            let alice = Home::danger_open_on(&path, None, life.ground()).await?;
            alice.stream(&name("kitchen")).await
        };
        if let Some(stream) = life.outlive(opened.await)? {
            break stream;
        }
    };
    let mut say = async |text: &str| {
        let done = life.outlive(stream.publish(text.as_bytes()).await)?;
        let is_done = done.is_some();
        said.extend(done.map(|_| text.to_owned()));
        Ok::<_, Error>(is_done)
    };
    say("one").await?;
    say("two").await?;
    life.outlive(stream.grant(all_to(bob.user())).await)?;
    life.outlive(stream.rekey().await)?;
    say("three").await?;
    let framed = async {
        let mut publisher = stream.publisher().await?;
        publisher.send(b"four").await?;
        publisher.finish().await
    };
    let framed = life.outlive(framed.await)?;
    life.outlive(stream.rotate().await)?;
    if !say("five").await? {
        // What a failing bus did not take leaves with the next.
        say("six").await?;
    }
    said.extend(framed.map(|_| "four".to_owned()));
    Ok(())
}

/// Over all that lies on the bus, and all that was handed to it in vain.
async fn uses_no_key_twice(rig: &Rig, stream: &Stream, life: &Life) {
    let data = rig.data(stream).await;
    let reused = {
        let mut sent = life.sent.lock().unwrap();
        sent.extend(&StreamTopics(stream.id()).data(), &data);
        sent.reused().to_vec()
    };
    assert!(reused.is_empty(), "{}: {reused:?}", life.last);
    let headers = rig.headers(stream).await;
    let numbers: BTreeSet<_> = headers.iter().map(|of| (of.instance, of.seq)).collect();
    let different: BTreeSet<_> = data.into_iter().collect();
    assert_eq!(numbers.len(), different.len(), "{}", life.last);
    assert!(headers.is_sorted_by_key(|of| of.position), "{}", life.last);
}

/// Returns whether the step was reached.
async fn fails_at(last: usize, does_last: bool, goes_on: bool) -> bool {
    let rig = Rig::small();
    let [alice, bob] = rig.homes(["alice", "bob"]).await;
    let stream = kitchen(&alice).await;
    let joined = join(&bob, &stream).await;
    drop((stream, alice));
    let life = Life {
        steps: Arc::default(),
        last,
        does_last,
        goes_on,
        sent: Arc::default(),
    };
    let (said, end) = live(&rig, &life, &bob).await;
    let is_reached = life.steps.load(Ordering::SeqCst) > last;

    let stream = open(&rig.again("alice").await).await;
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
        // One envelope at most was sealed and did not leave, or left twice where life went on.
        let may_be_told = match goes_on {
            true => "Replay",
            false => "Gap",
        };
        assert!(told.len() <= usize::from(is_reached), "{last}: {told:?}");
        let is_expected = |of: &String| of.starts_with(may_be_told) && (does_last || !goes_on);
        assert!(told.iter().all(is_expected), "{last}: {told:?}");
    }
    uses_no_key_twice(&rig, &stream, &life).await;
    is_reached
}

async fn at_every_step(goes_on: bool, does_even: bool) {
    let mut last = 0;
    while fails_at(last, (last % 2 == 0) == does_even, goes_on).await {
        last += 1;
    }
    assert!(last > 50, "{last}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_that_dies_at_any_step_loses_nothing_and_repeats_nothing() {
    at_every_step(false, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_that_dies_at_any_other_step_does_neither() {
    at_every_step(false, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_or_store_that_fails_once_at_any_step_costs_nothing() {
    at_every_step(true, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_does_one_that_fails_at_any_other_step() {
    at_every_step(true, false).await;
}

/// What a process drew and did not announce before it died must not keep others from the keys of
/// what came after.
#[tokio::test]
async fn a_session_that_was_drawn_and_not_announced_holds_up_no_keys() {
    let rig = Rig::new();
    let [alice, bob] = rig.homes(["alice", "bob"]).await;
    let stream = kitchen(&alice).await;
    let joined = join(&bob, &stream).await;
    drop((stream, alice));
    let dies = Meddler::ground(|ask, topic| match (ask, topic.ends_with("/keys")) {
        (Ask::Append, true) => Manner::Fail,
        _ => Manner::Honest,
    });
    let alice = rig.on("alice", dies).await;
    let stream = open(&alice).await;
    assert!(stream.publish(b"never").await.is_err());
    drop((stream, alice));

    let stream = open(&rig.again("alice").await).await;
    stream.rekey().await.unwrap();
    say(&stream, "after").await;
    stream.grant(all_to(bob.user())).await.unwrap();
    assert_eq!(history(&joined).await, ["after"]);
}

/// Promise 6: a bus that takes a session's record and does not keep it gets no message under it.
#[tokio::test]
async fn nothing_is_sealed_with_a_session_whose_record_the_bus_does_not_show() {
    let rig = Rig::small();
    let alice = rig.home("alice").await;
    let stream = kitchen(&alice).await;
    drop((stream, alice));
    let loses = Meddler::ground(|ask, topic| match (ask, topic.ends_with("/keys")) {
        (Ask::Append, true) => Manner::Lose,
        _ => Manner::Honest,
    });
    let alice = rig.on("alice", loses).await;
    for _ in 0..2 {
        let stream = open(&alice).await;
        let refused = stream.publish(b"never").await;
        assert!(matches!(refused, Err(Error::RolledBack(_))), "{refused:?}");
        assert_eq!(rig.data(&stream).await.len(), 0);
    }
    let stream = open(&rig.again("alice").await).await;
    say(&stream, "one").await;
    assert_eq!(history(&stream).await, ["one"]);
}

/// A session that could not be announced, an entry that could not be sent and keys that could not be
/// handed out wait until the bus takes them.
#[tokio::test]
async fn what_a_bus_does_not_take_keeps_nobody_from_reading() {
    let rig = Rig::small();
    let [alice, bob, carol] = rig.homes(["alice", "bob", "carol"]).await;
    let stream = kitchen(&alice).await;
    let bobs = join(&bob, &stream).await;
    say(&stream, "one").await;
    let both = Roles::READER.with(Roles::PUBLISHER);
    let publisher = to(bob.user(), both, Interval::ALL);
    stream.grant(publisher).await.unwrap();
    stream.grant(all_to(carol.user())).await.unwrap();
    let carols = join(&carol, &stream).await;
    drop((stream, alice));
    let full = || {
        Meddler::ground(|ask, _| match ask {
            Ask::Append => Manner::Fail,
            Ask::Read | Ask::End => Manner::Honest,
        })
    };
    let stream = open(&rig.on("alice", full()).await).await;
    assert_eq!(history(&stream).await, ["one"], "it owes carol keys");
    assert!(stream.rekey().await.is_err());
    assert!(stream.set_rekey_every(1_000_000).await.is_err());
    drop(stream);

    let stream = open(&rig.on("alice", full()).await).await;
    assert_eq!(history(&stream).await, ["one"]);
    let mut live = stream.subscribe(None).await.unwrap();
    say(&bobs, "two").await;
    assert_eq!(next(&mut live, 1).await, ["two"]);
    drop((live, stream));
    assert_eq!(history(&carols).await, ["Sealed(KeyNotHere)", "two"]);

    let stream = rig.again("alice").await.stream(&name("kitchen")).await;
    say(&stream.unwrap(), "three").await;
    assert_eq!(history(&carols).await, ["one", "two", "three"]);
}

/// A bus of last night, in which a home that dies at some step puts back what it knows. Returns
/// whether the step was reached.
async fn mends_after_death_at(rig: &Rig, last: usize, does_last: bool) -> bool {
    for (copy, place) in [
        ("bus copy", "bus"),
        ("alice copy", "alice"),
        ("carol copy", "carol"),
    ] {
        std::fs::remove_dir_all(rig.path(place)).unwrap();
        copy_folder(&rig.path(copy), &rig.path(place));
    }
    let life = Life {
        steps: Arc::default(),
        last,
        does_last,
        goes_on: false,
        sent: Arc::default(),
    };
    // Opening the home and its stream, and a message that did not leave.
    if let Ok(alice) = Home::danger_open_on(&rig.path("alice"), None, life.ground()).await
        && let Ok(stream) = alice.stream(&name("kitchen")).await
    {
        let _is_out = stream.sync().await.is_ok() && stream.publish(b"between").await.is_ok();
    }
    let alice = rig.again("alice").await;
    let stream = open(&alice).await;
    say(&stream, "after").await;
    let chain = StreamTopics(stream.id()).access(&alice.device());
    let shown: BTreeSet<_> = rig.items(&chain).await.into_iter().collect();
    assert_eq!(shown.len(), 2, "{last}: the first entry and the grant");
    let carol = rig.again("carol").await;
    let lines = history(&carol.stream(&name("kitchen")).await.unwrap()).await;
    let of = |wanted: &str| lines.iter().filter(|line| *line == wanted).count();
    assert_eq!((of("kept"), of("after")), (1, 1), "{last}: {lines:?}");
    let known = ["kept", "between", "after"];
    let is_known = |line: &String| known.contains(&&line[..]) || line.starts_with("Gap");
    assert!(lines.iter().all(is_known), "{last}: {lines:?}");
    life.steps.load(Ordering::SeqCst) > last
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_that_dies_while_it_puts_back_what_a_bus_lost_ends_it_the_next_time() {
    let rig = Rig::small();
    let [alice, carol] = rig.homes(["alice", "carol"]).await;
    let stream = kitchen(&alice).await;
    say(&stream, "kept").await;
    copy_folder(&rig.path("bus"), &rig.path("bus copy"));
    drop(join(&carol, &stream).await);
    stream.grant(all_to(carol.user())).await.unwrap();
    say(&stream, "lost").await;
    drop((stream, alice, carol));
    for of in ["alice", "carol"] {
        copy_folder(&rig.path(of), &rig.path(&format!("{of} copy")));
    }
    let mut last = 0;
    while mends_after_death_at(&rig, last, last % 2 == 0).await {
        last += 1;
    }
    assert!(last > 20, "{last}");
}

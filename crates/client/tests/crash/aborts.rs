//! A real process that ends itself before or after each thing that it does to store or bus.
//!
//! The process is this test program again, told by the environment what to do.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use sealcast::{Error, Ground};
use sealcast_bus::{Bus, BusError, BusFuture, Item, Limits, Listener, Offset, Tail, Topic};
use sealcast_crash::Sent;
use sealcast_store::{Key, Space, Store, StoreError, Txn, Value};

use crate::play::{play, telling};
use crate::scene::{Scene, runtime};

const ORDERS: &str = "SEALCAST_TEST_ORDERS";
/// The table of roots.
const ROOTS: u8 = sealcast_engine::Space::Root as u8;

/// How a process is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Build {
    Sound,
    /// Its bus says that an append is done and does it with the next one.
    AcksEarly,
    /// Its store and its bus forget the keys of sessions, and say nothing.
    LosesKeys,
}

/// Where a process ends itself: before or after so many changes of store and bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct End {
    change: usize,
    is_after: bool,
}

type Append = (Topic, Vec<Vec<u8>>);

#[derive(Clone)]
struct Doom {
    changes: Arc<AtomicUsize>,
    end: End,
    build: Build,
    late: Arc<Mutex<Vec<Append>>>,
}

struct Doomed<T: ?Sized> {
    inner: Arc<T>,
    doom: Doom,
}

impl Doom {
    /// Counts a change that is about to be made; says whether the process ends after it.
    fn begin(&self) -> bool {
        let is_last = self.changes.fetch_add(1, Ordering::SeqCst) == self.end.change;
        if is_last && !self.end.is_after {
            std::process::abort();
        }
        is_last
    }

    fn ground(&self) -> Ground {
        let (of_bus, of_store) = (self.clone(), self.clone());
        Ground {
            bus: Arc::new(move |inner| {
                let doom = of_bus.clone();
                Arc::new(Doomed { inner, doom })
            }),
            store: Arc::new(move |inner| {
                let doom = of_store.clone();
                Arc::new(Doomed { inner, doom })
            }),
            ..Ground::default()
        }
    }
}

impl<T: ?Sized> fmt::Debug for Doomed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Doomed")
    }
}

impl Doomed<dyn Bus> {
    async fn append_as_built(
        &self,
        topic: &Topic,
        payloads: Vec<Vec<u8>>,
    ) -> Result<Offset, BusError> {
        match self.doom.build {
            Build::LosesKeys if topic.as_ref().ends_with("/keys") => self.inner.end(topic).await,
            Build::Sound | Build::LosesKeys => self.inner.append(topic, payloads).await,
            Build::AcksEarly if topic.as_ref().ends_with("/data") => {
                let late = std::mem::take(&mut *self.doom.late.lock().unwrap());
                for (topic, payloads) in late {
                    self.inner.append(&topic, payloads).await?;
                }
                let mut late = self.doom.late.lock().unwrap();
                late.push((topic.clone(), payloads));
                Ok(Offset(0))
            }
            Build::AcksEarly => self.inner.append(topic, payloads).await,
        }
    }
}

impl Bus for Doomed<dyn Bus> {
    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    fn append(&self, topic: &Topic, payloads: Vec<Vec<u8>>) -> BusFuture<'_, Offset> {
        let topic = topic.clone();
        Box::pin(async move {
            let is_last = self.doom.begin();
            let at = self.append_as_built(&topic, payloads).await;
            if is_last {
                std::process::abort();
            }
            at
        })
    }

    fn read(&self, topic: &Topic, from: Offset, bytes_max: usize) -> BusFuture<'_, Vec<Item>> {
        self.inner.read(topic, from, bytes_max)
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

impl Store for Doomed<dyn Store> {
    fn get(&self, key: &Key) -> Result<Option<Value>, StoreError> {
        self.inner.get(key)
    }

    fn scan(&self, space: Space, prefix: &[u8]) -> Result<Vec<(Key, Value)>, StoreError> {
        self.inner.scan(space, prefix)
    }

    fn transact(
        &self,
        step: &mut dyn FnMut(&mut dyn Txn) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let is_last = self.doom.begin();
        let forgets = self.doom.build == Build::LosesKeys;
        let done = self.inner.transact(&mut |txn| match forgets {
            true => step(&mut Forgetful(txn)),
            false => step(txn),
        });
        if is_last {
            std::process::abort();
        }
        done
    }

    fn version(&self) -> Result<u64, StoreError> {
        self.inner.version()
    }
}

/// A transaction that forgets roots.
struct Forgetful<'a>(&'a mut dyn Txn);

impl Txn for Forgetful<'_> {
    fn get(&self, key: &Key) -> Result<Option<Value>, StoreError> {
        self.0.get(key)
    }

    fn scan(&self, space: Space, prefix: &[u8]) -> Result<Vec<(Key, Value)>, StoreError> {
        self.0.scan(space, prefix)
    }

    fn put(&mut self, key: &Key, value: &[u8]) -> Result<(), StoreError> {
        match key.space == Space(ROOTS) {
            true => Ok(()),
            false => self.0.put(key, value),
        }
    }

    fn delete(&mut self, key: &Key) -> Result<(), StoreError> {
        self.0.delete(key)
    }
}

impl Build {
    fn name(self) -> &'static str {
        match self {
            Self::Sound => "sound",
            Self::AcksEarly => "acks early",
            Self::LosesKeys => "loses keys",
        }
    }

    fn of_name(name: &str) -> Self {
        let all = [Self::Sound, Self::AcksEarly, Self::LosesKeys];
        all.into_iter().find(|of| of.name() == name).unwrap()
    }
}

/// What a started process does; as an ordinary test it does nothing.
#[test]
fn role_of_a_started_process() {
    let Ok(orders) = std::env::var(ORDERS) else {
        return;
    };
    let mut orders = orders.split('\n');
    let mut next = || orders.next().unwrap();
    let (live, left, topic) = (
        PathBuf::from(next()),
        PathBuf::from(next()),
        next().to_owned(),
    );
    let others = (next().parse().unwrap(), next().parse().unwrap());
    let end = End {
        change: next().parse().unwrap(),
        is_after: next() == "after",
    };
    let doom = Doom {
        changes: Arc::default(),
        end,
        build: Build::of_name(next()),
        late: Arc::default(),
    };
    let ground = telling(doom.ground(), move |of, payloads| {
        for payload in payloads.iter().filter(|_| of == topic) {
            let hex: String = payload.iter().map(|byte| format!("{byte:02x}")).collect();
            write_line(&left, &hex);
        }
    });
    runtime().block_on(async {
        let mut acks = |ack: String| say(&ack);
        let mut fails = |error: Error| Err(error);
        let home = live.join("alice");
        play(&home, ground, others, &mut acks, &mut fails)
            .await
            .map(drop)
            .unwrap();
    });
    say("end");
}

/// Straight to the system: what a process of the test keeps in a buffer dies with it.
fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(format!("ack: {line}\n").as_bytes())
        .unwrap();
    stdout.flush().unwrap();
}

fn write_line(path: &Path, line: &str) {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}

fn bytes(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks(2);
    let text = pairs.map(|pair| std::str::from_utf8(pair).unwrap());
    text.map(|pair| u8::from_str_radix(pair, 16).unwrap())
        .collect()
}

/// Runs a process until its end. Returns whether it came to the end of the play, and what is wrong
/// then.
fn run(scene: &Scene, end: End, build: Build) -> (bool, Result<(), String>) {
    scene.begin_again();
    let left = scene.beside("left");
    fs::write(&left, "").unwrap();
    let orders = [
        scene.live().display().to_string(),
        left.display().to_string(),
        scene.topic.clone(),
        scene.bob.to_string(),
        scene.carol.to_string(),
        end.change.to_string(),
        if end.is_after { "after" } else { "before" }.to_owned(),
        build.name().to_owned(),
    ];
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "aborts::role_of_a_started_process",
            "--nocapture",
        ])
        .env(ORDERS, orders.join("\n"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = said
        .lines()
        .filter_map(|line| Some(line.split_once("ack: ")?.1.to_owned()));
    let acks: Vec<String> = said.collect();
    let is_whole = output.status.success();
    assert_eq!(
        is_whole,
        acks.last().is_some_and(|ack| ack == "end"),
        "{output:?}"
    );
    let mut sent = Sent::default();
    for line in fs::read_to_string(&left).unwrap().lines() {
        sent.add(&scene.topic, &bytes(line));
    }
    (is_whole, scene.fault(&acks, &mut sent, false))
}

#[test]
fn a_process_that_ends_at_any_step_loses_nothing_and_repeats_nothing() {
    let scene = Scene::new();
    for change in 0.. {
        let run_to = |is_after| run(&scene, End { change, is_after }, Build::Sound);
        let (before, held_before) = run_to(false);
        let (after, held_after) = run_to(true);
        assert_eq!(held_before, Ok(()), "before {change}");
        assert_eq!(held_after, Ok(()), "after {change}");
        if before || after {
            assert!(change > 30, "{change}");
            break;
        }
    }
}

/// The first fault that is found in a process that ends itself somewhere.
fn first_fault(build: Build) -> String {
    let scene = Scene::new();
    let ends = (0..).map(|change| End {
        change,
        is_after: true,
    });
    for end in ends {
        let (came_to_the_end, held) = run(&scene, end, build);
        if let Err(fault) = held {
            return fault;
        }
        assert!(!came_to_the_end, "nothing was found out");
    }
    String::new()
}

/// The test of the test.
#[test]
fn an_acknowledgement_before_the_append_is_done_is_found_out() {
    let fault = first_fault(Build::AcksEarly);
    assert!(fault.contains("a record is missing"), "{fault}");
}

/// The test of the test.
#[test]
fn a_lost_key_is_found_out() {
    let fault = first_fault(Build::LosesKeys);
    let says = ["a session has no record", "Sealed", "is missing"];
    assert!(says.iter().any(|says| fault.contains(says)), "{fault}");
}

//! The conformance suite catches buses that break the contract, each in the case meant for it.
#![cfg(test)]
#![cfg(feature = "conformance")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use sealcast_bus::{
    Bus, BusError, BusFuture, FileBus, Item, Limits, Listener, Offset, Tail, Topic, Turn,
    conformance,
};
use tempfile::TempDir;

#[test]
fn each_broken_bus_is_caught_by_the_case_meant_for_it() {
    for (fault, case) in [
        (Fault::UnknownTopicFails, "unknown topic"),
        (Fault::Reversed, "order and offsets"),
        (Fault::NothingIsSomething, "append of nothing"),
        (Fault::EmptyIsLost, "any bytes"),
        (Fault::LimitTooLow, "payload limit"),
        (Fault::BatchLimitTooLow, "batch limit"),
        (Fault::OneByOne, "all or nothing"),
        (Fault::IgnoresCase, "topics apart"),
        (Fault::ReadsTooMuch, "read bounds"),
        (Fault::EndIsIgnored, "append at the end"),
        (Fault::NeverStored, "appends in turn"),
        (Fault::Overtakes, "appends in turn"),
        (Fault::IgnoresFailures, "behind one that fails"),
        (Fault::DropsThoseAhead, "behind one that fails"),
        (Fault::LosesOneOfTwo, "writers in turn"),
        (Fault::DoublesAmidTurns, "append amid turns"),
        (Fault::TailRepeats, "tail before append"),
        (Fault::TailLosesWhenCancelled, "tail cancelled"),
        (Fault::FailsOnce, "thousand topics"),
        (Fault::TrimsNothing, "trim"),
        (Fault::TrimsTooMuch, "trim"),
        (Fault::TrimStopsAtTheEnd, "trim of all"),
        (Fault::TrimsPrefixes, "trims apart"),
        (Fault::SendsTwice, "heard"),
        (Fault::KeepsHistory, "without history"),
        (Fault::SendsToLogs, "kinds apart"),
        (Fault::HearsBelow, "listening to several topics"),
        (Fault::ReversesMany, "order of senders"),
        (Fault::ForgetsTheLate, "late listener"),
        (Fault::ListenerLosesWhenCancelled, "listener cancelled"),
        (Fault::SendsAnything, "sent limit"),
    ] {
        let message = panic_of(fault);
        let named = format!("case `{case}`");
        assert!(message.contains(&named), "{fault:?} gave: {message}");
        // What fails is told at once, and nothing is waited for that cannot come.
        let is_told = !message.contains("nothing more comes") && !message.contains("hung");
        assert!(is_told, "{fault:?} gave: {message}");
    }
}

#[test]
fn what_is_lost_amid_faults_is_noticed() {
    let says = panic_in(async || {
        let folder = scratch_folder();
        let bus = Arc::new(Broken::open(&folder, Fault::LosesWhenDisturbed).await);
        let other = FileBus::open(folder.path()).await.unwrap();
        let broken = Arc::clone(&bus);
        let disturb = async |_, _: &conformance::Writing<'_>| {
            broken.is_disturbed.store(true, SeqCst);
        };
        conformance::in_turn_amid_faults(bus, &other, 2, disturb).await;
    });
    assert!(says.starts_with("in turn: "), "{says}");
}

/// Smaller than those of the bus below, so that the cases at the limits are fast.
const PAYLOAD_MAX: usize = 100_000;
const BATCH_MAX: usize = 250_000;

fn panic_of(fault: Fault) -> String {
    panic_in(async move || {
        conformance::run(
            async || scratch_folder(),
            async |folder| Broken::open(folder, fault).await,
        )
        .await;
    })
}

/// What something panics with, on a runtime of its own.
fn panic_in(running: impl AsyncFnOnce() + Send + 'static) -> String {
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        runtime.unwrap().block_on(running());
    };
    let panic = thread::spawn(run).join().expect_err("was not caught");
    *panic.downcast::<String>().unwrap()
}

/// In memory where there is such a place: what is tested here is not the disk.
fn scratch_folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    UnknownTopicFails,
    Reversed,
    NothingIsSomething,
    EmptyIsLost,
    LimitTooLow,
    BatchLimitTooLow,
    OneByOne,
    IgnoresCase,
    ReadsTooMuch,
    EndIsIgnored,
    NeverStored,
    Overtakes,
    IgnoresFailures,
    DropsThoseAhead,
    LosesOneOfTwo,
    DoublesAmidTurns,
    LosesWhenDisturbed,
    TailRepeats,
    TailLosesWhenCancelled,
    FailsOnce,
    TrimsNothing,
    TrimsTooMuch,
    TrimStopsAtTheEnd,
    TrimsPrefixes,
    SendsTwice,
    KeepsHistory,
    SendsToLogs,
    HearsBelow,
    ReversesMany,
    ForgetsTheLate,
    ListenerLosesWhenCancelled,
    SendsAnything,
}

fn busy() -> BusError {
    BusError::Busy {
        place: "nowhere".into(),
    }
}

#[derive(Debug)]
struct Broken {
    bus: FileBus,
    fault: Fault,
    /// Appends in turn that are under way.
    in_turn: AtomicUsize,
    /// Appends in turn that were too large.
    refused: AtomicUsize,
    is_disturbed: AtomicBool,
}

impl Broken {
    async fn open(folder: &TempDir, fault: Fault) -> Self {
        Self {
            bus: FileBus::open(folder.path()).await.unwrap(),
            fault,
            in_turn: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            is_disturbed: AtomicBool::new(false),
        }
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    fn topic(&self, topic: &Topic) -> Topic {
        if self.is(Fault::IgnoresCase) {
            return Topic::new(&topic.as_ref().to_lowercase()).unwrap();
        }
        topic.clone()
    }
}

impl Bus for Broken {
    fn limits(&self) -> Limits {
        let payload_max = PAYLOAD_MAX - usize::from(self.is(Fault::LimitTooLow));
        let batch_max = BATCH_MAX - usize::from(self.is(Fault::BatchLimitTooLow));
        Limits::new(payload_max, batch_max)
    }

    fn append(&self, topic: &Topic, mut payloads: Vec<Vec<u8>>) -> BusFuture<'_, Offset> {
        let topic = self.topic(topic);
        if self.is(Fault::Reversed) {
            payloads.reverse();
        }
        if self.is(Fault::EmptyIsLost) {
            payloads.retain(|payload| !payload.is_empty());
        }
        if self.is(Fault::NothingIsSomething) && payloads.is_empty() {
            payloads.push(vec![]);
        }
        Box::pin(async move {
            if self.is(Fault::FailsOnce) && topic.as_ref() == "many/500" {
                return Err(busy());
            }
            if self.is(Fault::DoublesAmidTurns) && self.in_turn.load(SeqCst) > 0 {
                self.bus.append(&topic, payloads.clone()).await?;
            }
            let limits = Limits::new(PAYLOAD_MAX, BATCH_MAX);
            if !self.is(Fault::OneByOne) {
                limits.check(&payloads)?;
                return self.bus.append(&topic, payloads).await;
            }
            let first = self.bus.end(&topic).await?;
            for payload in payloads.chunks(1) {
                limits.check(payload)?;
                self.bus.append(&topic, payload.to_vec()).await?;
            }
            Ok(first)
        })
    }

    fn append_at(&self, topic: &Topic, end: Offset, payloads: Vec<Vec<u8>>) -> BusFuture<'_, bool> {
        let topic = self.topic(topic);
        Box::pin(async move {
            let is_ignored = self.is(Fault::EndIsIgnored);
            let end = if is_ignored {
                self.end(&topic).await?
            } else {
                end
            };
            self.limits().check(&payloads)?;
            self.bus.append_at(&topic, end, payloads).await
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
            if self.is(Fault::DropsThoseAhead) {
                if let Err(error) = self.limits().check(&payloads) {
                    self.refused.fetch_add(1, SeqCst);
                    return Err(error);
                }
                let refused = self.refused.load(SeqCst);
                turn.pass();
                tokio::time::sleep(MOMENT).await;
                turn.come().await?;
                if self.refused.load(SeqCst) != refused {
                    turn.stored();
                    return Ok(());
                }
            } else if self.is(Fault::Overtakes) {
                turn.pass();
                if payloads.len() == 1 {
                    tokio::time::sleep(MOMENT).await;
                }
            } else {
                let come = turn.come().await;
                if !self.is(Fault::IgnoresFailures) {
                    come?;
                }
            }
            let is_lost =
                self.is(Fault::LosesWhenDisturbed) && self.is_disturbed.swap(false, SeqCst);
            if is_lost || (self.is(Fault::LosesOneOfTwo) && self.in_turn.load(SeqCst) > 0) {
                turn.stored();
                return Ok(());
            }
            let payloads: Vec<Vec<u8>> = payloads.into_iter().map(Vec::from).collect();
            // Those of others come between, for a moment.
            self.in_turn.fetch_add(1, SeqCst);
            match self.is(Fault::DoublesAmidTurns) {
                // Long enough for some to come for sure.
                true => tokio::time::sleep(MOMENT).await,
                false => tokio::task::yield_now().await,
            }
            let appended = match self.is(Fault::DoublesAmidTurns) {
                // Not as one of those that are doubled.
                true => match self.limits().check(&payloads) {
                    Ok(()) => self.bus.append(&topic, payloads).await,
                    Err(error) => Err(error),
                },
                false => self.append(&topic, payloads).await,
            };
            self.in_turn.fetch_sub(1, SeqCst);
            appended?;
            if !self.is(Fault::NeverStored) {
                turn.stored();
            }
            Ok(())
        })
    }

    fn read(&self, topic: &Topic, from: Offset, bytes_max: usize) -> BusFuture<'_, Vec<Item>> {
        let bytes_max = bytes_max.saturating_add(self.is(Fault::ReadsTooMuch).into());
        self.bus.read(&self.topic(topic), from, bytes_max)
    }

    fn end(&self, topic: &Topic) -> BusFuture<'_, Offset> {
        let topic = self.topic(topic);
        Box::pin(async move {
            let end = self.bus.end(&topic).await?;
            if self.is(Fault::UnknownTopicFails) && end == Offset(0) {
                return Err(busy());
            }
            Ok(end)
        })
    }

    fn tail(&self, topics: Vec<(Topic, Offset)>) -> Box<dyn Tail> {
        Box::new(BrokenTail {
            tail: self.bus.tail(topics),
            fault: self.fault,
            again: None,
        })
    }

    fn trim(&self, topic: &Topic, before: Offset) -> BusFuture<'_, ()> {
        let topic = self.topic(topic);
        Box::pin(async move {
            if self.is(Fault::TrimsPrefixes) {
                self.bus.trim(&below(&topic), before).await?;
            }
            let is_beyond = before > self.bus.end(&topic).await?;
            if self.is(Fault::TrimsNothing) || (self.is(Fault::TrimStopsAtTheEnd) && is_beyond) {
                return Ok(());
            }
            let more = u64::from(self.is(Fault::TrimsTooMuch));
            self.bus.trim(&topic, Offset(before.0 + more)).await
        })
    }

    fn send(&self, topic: &Topic, mut payload: Vec<u8>) -> BusFuture<'_, ()> {
        let topic = topic.clone();
        Box::pin(async move {
            if self.is(Fault::SendsTwice) {
                self.bus.send(&topic, payload.clone()).await?;
            }
            if self.is(Fault::SendsToLogs) {
                self.bus.append(&topic, vec![payload.clone()]).await?;
            }
            if self.is(Fault::KeepsHistory) {
                let kept = vec![payload.clone()];
                self.bus.append(&history(), kept).await?;
            }
            if self.is(Fault::SendsAnything) {
                payload.truncate(Limits::SENT_MAX);
            }
            self.bus.send(&topic, payload).await
        })
    }

    fn listen(&self, mut topics: Vec<Topic>) -> BusFuture<'_, Box<dyn Listener>> {
        Box::pin(async move {
            let ahead = match topics.first() {
                Some(topic) if self.is(Fault::KeepsHistory) => {
                    let kept = self.bus.read(&history(), Offset(0), usize::MAX).await?;
                    let heard = |item: Item| (topic.clone(), item.payload);
                    kept.into_iter().map(heard).collect()
                }
                _ => VecDeque::new(),
            };
            if self.is(Fault::HearsBelow) {
                topics.extend(topics.clone().iter().map(below));
            }
            let listener = BrokenListener {
                listener: self.bus.listen(topics).await?,
                fault: self.fault,
                ahead,
            };
            Ok(Box::new(listener) as Box<dyn Listener>)
        })
    }
}

fn below(topic: &Topic) -> Topic {
    Topic::new(&format!("{topic}/b")).unwrap()
}

fn history() -> Topic {
    Topic::new("history").unwrap()
}

#[derive(Debug)]
struct BrokenTail {
    tail: Box<dyn Tail>,
    fault: Fault,
    again: Option<(Topic, Vec<Item>)>,
}

impl Tail for BrokenTail {
    fn next(&mut self) -> BusFuture<'_, (Topic, Vec<Item>)> {
        Box::pin(async move {
            if let Some(batch) = self.again.take() {
                return Ok(batch);
            }
            let batch = self.tail.next().await?;
            if self.fault == Fault::TailRepeats {
                self.again = Some(batch.clone());
            }
            if self.fault == Fault::TailLosesWhenCancelled {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Ok(batch)
        })
    }
}

#[derive(Debug)]
struct BrokenListener {
    listener: Box<dyn Listener>,
    fault: Fault,
    ahead: VecDeque<(Topic, Vec<u8>)>,
}

impl Listener for BrokenListener {
    fn next(&mut self) -> BusFuture<'_, (Topic, Vec<u8>)> {
        Box::pin(async move {
            if let Some(heard) = self.ahead.pop_front() {
                return Ok(heard);
            }
            let heard = self.listener.next().await?;
            if self.fault == Fault::ReversesMany || self.fault == Fault::ForgetsTheLate {
                return self.take_all(heard).await;
            }
            if self.fault == Fault::ListenerLosesWhenCancelled {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Ok(heard)
        })
    }
}

impl BrokenListener {
    /// Takes in all that is there, and returns the first of what it makes of it.
    async fn take_all(&mut self, first: (Topic, Vec<u8>)) -> Result<(Topic, Vec<u8>), BusError> {
        let mut all = vec![first];
        while let Ok(heard) = tokio::time::timeout(MOMENT, self.listener.next()).await {
            all.push(heard?);
        }
        if self.fault == Fault::ForgetsTheLate {
            all.drain(..all.len().saturating_sub(200));
        } else if all.len() > 100 {
            all.reverse();
        }
        self.ahead = all.into();
        Ok(self.ahead.pop_front().unwrap())
    }
}

const MOMENT: Duration = Duration::from_millis(5);

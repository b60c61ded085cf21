//! Appends that set out while those before them are under way.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{
    Failure, NEXT_TIMEOUT, Outcome, Rig, ensure, in_time, joined, read_all, same, same_payloads,
    take, topic,
};
use crate::{Bus, BusError, Offset, Tail, Topic, Turns};

/// Appends that set out before it is looked at what became of the first.
const AT_ONCE: usize = 4;
const MOMENT: Duration = Duration::from_millis(100);
const LOOK: Duration = Duration::from_millis(5);
/// Appends between two faults, and on which topic they are: that of messages, as publishers make them.
const APPENDS: u64 = 12;
const AMID_FAULTS: &str = "s/1f/data";

/// Payloads that tell their writer, append and number, a few of them large.
fn payloads(writer: u64, append: u64) -> Vec<Vec<u8>> {
    let large = if append % 3 == 1 { 45_000 } else { 0 };
    let of = |number| {
        let mut payload = format!("{writer} {append} {number} ").into_bytes();
        payload.resize(payload.len() + large, b'.');
        payload
    };
    (0..1 + append % 5).map(of).collect()
}

fn in_turn(payloads: &[Vec<u8>]) -> Vec<Bytes> {
    let payloads = payloads.iter().cloned();
    payloads.map(Bytes::from).collect()
}

/// Has appends set out one after the other, and waits for all.
async fn write(bus: Arc<dyn Bus>, topic: Topic, writer: u64, appends: u64) -> Outcome {
    let (done, _) = watch::channel(0);
    write_and_tell(bus, topic, writer, appends, done).await
}

/// The same, and says how many are done.
async fn write_and_tell(
    bus: Arc<dyn Bus>,
    topic: Topic,
    writer: u64,
    appends: u64,
    done: watch::Sender<u64>,
) -> Outcome {
    let (mut turns, mut under_way) = (Turns::default(), JoinSet::new());
    for append in 0..appends {
        if under_way.len() >= AT_ONCE {
            under_way
                .join_next()
                .await
                .transpose()
                .map_err(gone)?
                .transpose()?;
        }
        let turn = turns.next().await;
        let (bus, topic, done) = (Arc::clone(&bus), topic.clone(), done.clone());
        let payloads = in_turn(&payloads(writer, append));
        under_way.spawn(async move {
            bus.append_in_turn(&topic, payloads, turn).await?;
            done.send_modify(|done| *done += 1);
            Ok(())
        });
    }
    joined(&mut under_way, Ok).await
}

/// Appends in turn that are made while something happens to the way to the bus, or to its server.
#[derive(Debug)]
pub struct Writing<'a> {
    /// How whoever is not in trouble sees the bus.
    other: &'a dyn Bus,
    topic: Topic,
    done: watch::Receiver<u64>,
}

impl Writing<'_> {
    /// Returns when the bus has something of which the writer does not know that it is there. Where no answer comes to
    /// the writer, that stays so.
    ///
    /// # Panics
    ///
    /// When that does not come.
    pub async fn is_ahead(&self) {
        let ahead = async {
            loop {
                let known = written(0, *self.done.borrow()).len() as u64;
                if self
                    .other
                    .end(&self.topic)
                    .await
                    .is_ok_and(|of| of.0 > known)
                {
                    return;
                }
                sleep(LOOK).await;
            }
        };
        let has_come = timeout(NEXT_TIMEOUT, ahead).await.is_ok();
        assert!(has_come, "the bus gets nothing more");
    }
}

/// Appends in turn over `bus` and follows there, while `disturb` is called with the number of each round, and looks through
/// `other` whether all is there, in order and once, and has come so to who follows.
///
/// # Panics
///
/// When it is not, or an append fails.
pub async fn in_turn_amid_faults(
    bus: Arc<dyn Bus>,
    other: &dyn Bus,
    rounds: usize,
    disturb: impl AsyncFn(usize, &Writing<'_>),
) {
    let checked = async {
        let topic = topic(AMID_FAULTS)?;
        let expected = written(0, appends_amid(rounds));
        let mut following = JoinSet::new();
        let tail = bus.tail(vec![(topic.clone(), Offset(0))]);
        following.spawn(follow(tail, expected.len()));
        write_amid_faults(bus, other, &topic, rounds, disturb).await?;
        let found = read_all(other, &topic, 0).await?;
        same_payloads("in turn", &found, &expected)?;
        joined(&mut following, |found| {
            same_payloads("to who follows", &found, &expected)
        })
        .await
    };
    assert_held(checked.await);
}

/// Appends in turn as [`in_turn_amid_faults`] does, to a topic, and leaves it to the caller to look for what was appended,
/// which this returns.
///
/// # Panics
///
/// When an append fails.
pub async fn appended_amid_faults(
    bus: Arc<dyn Bus>,
    other: &dyn Bus,
    topic: &Topic,
    rounds: usize,
    disturb: impl AsyncFn(usize, &Writing<'_>),
) -> Vec<Vec<u8>> {
    assert_held(write_amid_faults(bus, other, topic, rounds, disturb).await);
    written(0, appends_amid(rounds))
}

fn assert_held(outcome: Outcome) {
    let failure = outcome.err().map(|failure| failure.0);
    assert!(failure.is_none(), "{}", failure.unwrap_or_default());
}

/// How many appends there are with so many faults.
fn appends_amid(rounds: usize) -> u64 {
    (rounds as u64 + 1) * APPENDS
}

async fn write_amid_faults(
    bus: Arc<dyn Bus>,
    other: &dyn Bus,
    topic: &Topic,
    rounds: usize,
    disturb: impl AsyncFn(usize, &Writing<'_>),
) -> Outcome {
    let (done, is_done) = watch::channel(0);
    let mut writing = Writing {
        other,
        topic: topic.clone(),
        done: is_done,
    };
    // There is a bus that has for whoever looks what came since.
    other.end(topic).await?;
    let mut writers = JoinSet::new();
    let appends = appends_amid(rounds);
    writers.spawn(write_and_tell(bus, topic.clone(), 0, appends, done));
    for round in 0..rounds {
        let until = (round as u64 + 1) * APPENDS;
        // Where the writer ends early it says why below.
        let is_there = writing.done.wait_for(|done| *done >= until).await.is_ok();
        if !is_there {
            break;
        }
        disturb(round, &writing).await;
    }
    joined(&mut writers, Ok).await
}

/// What comes of a topic, as far as `count`. An error loses nothing: the next call goes on.
async fn follow(mut tail: Box<dyn Tail>, count: usize) -> Outcome<Vec<Vec<u8>>> {
    let (mut payloads, mut next) = (Vec::new(), Offset(0));
    while payloads.len() < count {
        let coming = async {
            loop {
                match tail.next().await {
                    Ok(came) => return Ok(came),
                    Err(_) => sleep(LOOK).await,
                }
            }
        };
        let (_, items) = in_time(coming, || format!("{next}")).await?;
        next = take(next, items, &mut payloads)?;
    }
    Ok(payloads)
}

fn gone(error: tokio::task::JoinError) -> Failure {
    Failure(error.to_string())
}

fn written(writer: u64, appends: u64) -> Vec<Vec<u8>> {
    let appends = (0..appends).map(|append| payloads(writer, append));
    appends.flatten().collect()
}

pub(super) async fn in_order(rig: &Rig) -> Outcome {
    const APPENDS: u64 = 40;
    let topic = topic("a")?;
    write(Arc::clone(&rig.bus), topic.clone(), 0, APPENDS).await?;
    let expected = written(0, APPENDS);
    for bus in [&rig.other, &rig.bus] {
        let found = read_all(&**bus, &topic, 0).await?;
        same_payloads("payloads", &found, &expected)?;
    }
    // Nothing is not waited for by what is behind it.
    let mut turns = Turns::default();
    let turn = turns.next().await;
    rig.bus.append_in_turn(&topic, vec![], turn).await?;
    let turn = turns.next().await;
    let last = in_turn(&payloads(1, 0));
    rig.bus.append_in_turn(&topic, last, turn).await?;
    let end = Offset(expected.len() as u64 + 1);
    same("end", &rig.other.end(&topic).await?, &end)
}

/// All that set out behind an append that fails are not added, whatever their size, and all that are under way ahead of it
/// are.
pub(super) async fn behind_one_that_fails(rig: &Rig) -> Outcome {
    let topic = topic("a")?;
    write(Arc::clone(&rig.bus), topic.clone(), 0, 3).await?;
    fail_between(rig, &topic, (1, 0), MOMENT).await?;
    let mut expected = written(0, 3);
    let found = read_all(&*rig.other, &topic, 0).await?;
    same_payloads("after what failed", &found, &expected)?;
    // At once, so that those ahead are not there yet.
    fail_between(rig, &topic, (2, AT_ONCE as u64), Duration::ZERO).await?;
    expected.extend(written(2, AT_ONCE as u64));
    let found = read_all(&*rig.other, &topic, 0).await?;
    same_payloads("ahead of what failed", &found, &expected)?;
    write(Arc::clone(&rig.bus), topic.clone(), 3, 3).await?;
    expected.extend(written(3, 3));
    let found = read_all(&*rig.other, &topic, 0).await?;
    same_payloads("after new turns", &found, &expected)
}

/// Has so many appends of a writer set out, and a moment later one that fails, with others behind it already.
async fn fail_between(
    rig: &Rig,
    topic: &Topic,
    (writer, appends): (u64, u64),
    moment: Duration,
) -> Outcome {
    let (mut turns, mut ahead) = (Turns::default(), JoinSet::new());
    for append in 0..appends {
        let turn = turns.next().await;
        let (bus, to) = (Arc::clone(&rig.bus), topic.clone());
        let payloads = in_turn(&payloads(writer, append));
        ahead.spawn(async move { Ok(bus.append_in_turn(&to, payloads, turn).await?) });
    }
    let failing = turns.next().await;
    failing.pass();
    let (bus, to) = (Arc::clone(&rig.bus), topic.clone());
    let behind = tokio::spawn(async move {
        let mut behind = JoinSet::new();
        for append in [0, 1, 4] {
            let turn = turns.next().await;
            let (bus, to) = (Arc::clone(&bus), to.clone());
            let payloads = in_turn(&payloads(9, append));
            behind.spawn(async move { bus.append_in_turn(&to, payloads, turn).await });
        }
        behind.join_all().await
    });
    // Whatever a bus does before it is known is done by then, mostly.
    sleep(moment).await;
    let too_much = vec![Bytes::from(vec![0; rig.bus.limits().payload_max + 1_000])];
    let refused = rig.bus.append_in_turn(topic, too_much, failing).await;
    ensure(matches!(refused, Err(BusError::TooLarge { .. })), || {
        format!("expected TooLarge, found {refused:?}")
    })?;
    joined(&mut ahead, Ok).await?;
    for done in behind.await.map_err(gone)? {
        ensure(matches!(done, Err(BusError::OutOfTurn)), || {
            format!("expected OutOfTurn, found {done:?}")
        })?;
    }
    Ok(())
}

/// The appends of each are in their order, whole, and there once.
pub(super) async fn several_writers(rig: &Rig) -> Outcome {
    const WRITERS: u64 = 4;
    const APPENDS: u64 = 15;
    let topic = topic("a")?;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let bus = if writer % 2 == 0 {
            &rig.bus
        } else {
            &rig.other
        };
        writers.spawn(write(Arc::clone(bus), topic.clone(), writer, APPENDS));
    }
    joined(&mut writers, Ok).await?;
    let found = read_all(&*rig.bus, &topic, 0).await?;
    for writer in 0..WRITERS {
        let of_writer = format!("{writer} ").into_bytes();
        let own = found.iter().filter(|of| of.starts_with(&of_writer));
        let own: Vec<Vec<u8>> = own.cloned().collect();
        same_payloads("of one writer", &own, &written(writer, APPENDS))?;
    }
    let all = written(0, APPENDS).len() * WRITERS as usize;
    same("items", &found.len(), &all)
}

/// Whoever appends otherwise does not wait for turns, and nothing is lost or there twice for it.
pub(super) async fn amid_others(rig: &Rig) -> Outcome {
    const APPENDS: u64 = 12;
    let topic = topic("a")?;
    let mut writing = JoinSet::new();
    writing.spawn(write(Arc::clone(&rig.bus), topic.clone(), 0, APPENDS));
    for number in 0..APPENDS {
        let bus = if number % 2 == 0 {
            &rig.bus
        } else {
            &rig.other
        };
        let between = format!("between {number}").into_bytes();
        bus.append(&topic, vec![between.clone(); 2]).await?;
    }
    joined(&mut writing, Ok).await?;
    let found = read_all(&*rig.other, &topic, 0).await?;
    let (between, own): (Vec<_>, Vec<_>) = found
        .into_iter()
        .partition(|payload| payload.starts_with(b"between"));
    same_payloads("in turn", &own, &written(0, APPENDS))?;
    let pairs = (0..APPENDS).flat_map(|number| vec![format!("between {number}").into_bytes(); 2]);
    same_payloads("between", &between, &pairs.collect::<Vec<_>>())
}

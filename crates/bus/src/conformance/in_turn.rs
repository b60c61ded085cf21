//! Appends that set out while those before them are under way.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{Failure, Outcome, Rig, ensure, joined, read_all, same, same_payloads, topic};
use crate::{Bus, BusError, Offset, Topic, Turns};

/// Appends that set out before it is looked at what became of the first.
const AT_ONCE: usize = 4;
const MOMENT: Duration = Duration::from_millis(100);

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
            done.send_modify(|done| *done += 1);
        }
        let turn = turns.next().await;
        let (bus, topic) = (Arc::clone(&bus), topic.clone());
        let payloads = in_turn(&payloads(writer, append));
        under_way.spawn(async move { Ok(bus.append_in_turn(&topic, payloads, turn).await?) });
    }
    joined(&mut under_way, Ok).await
}

/// Appends in turn over `bus` while `disturb` is called again and again, and looks through `other` whether all is there, in
/// order and once.
///
/// # Panics
///
/// When it is not, or an append fails.
pub async fn in_turn_amid_faults(
    bus: Arc<dyn Bus>,
    other: &dyn Bus,
    rounds: u64,
    disturb: impl AsyncFn(),
) {
    const APPENDS: u64 = 12;
    let checked = async {
        let topic = topic("in/turn")?;
        let (done, mut is_done) = watch::channel(0);
        let mut writing = JoinSet::new();
        let appends = (rounds + 1) * APPENDS;
        writing.spawn(write_and_tell(bus, topic.clone(), 0, appends, done));
        for round in 1..=rounds {
            // Where the writer ends early it says why below.
            let _is_there = is_done
                .wait_for(|done| *done >= round * APPENDS)
                .await
                .is_ok();
            disturb().await;
        }
        joined(&mut writing, Ok).await?;
        same_payloads(
            "in turn",
            &read_all(other, &topic, 0).await?,
            &written(0, appends),
        )
    };
    let outcome: Outcome = checked.await;
    let failure = outcome.err().map(|failure| failure.0);
    assert!(failure.is_none(), "{}", failure.unwrap_or_default());
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

/// All that set out behind an append that fails are not added, whatever their size.
pub(super) async fn behind_one_that_fails(rig: &Rig) -> Outcome {
    let topic = topic("a")?;
    write(Arc::clone(&rig.bus), topic.clone(), 0, 3).await?;
    let before = written(0, 3);
    let mut turns = Turns::default();
    let first = turns.next().await;
    first.pass();
    let (bus, to) = (Arc::clone(&rig.bus), topic.clone());
    let behind = tokio::spawn(async move {
        let mut behind = JoinSet::new();
        for append in [0, 1, 4] {
            let turn = turns.next().await;
            let (bus, to) = (Arc::clone(&bus), to.clone());
            let payloads = in_turn(&payloads(1, append));
            behind.spawn(async move { bus.append_in_turn(&to, payloads, turn).await });
        }
        behind.join_all().await
    });
    // Whatever a bus does before it is known is done by then, mostly.
    sleep(MOMENT).await;
    let too_much = vec![Bytes::from(vec![0; rig.bus.limits().payload_max + 1_000])];
    let refused = rig.bus.append_in_turn(&topic, too_much, first).await;
    ensure(matches!(refused, Err(BusError::TooLarge { .. })), || {
        format!("expected TooLarge, found {refused:?}")
    })?;
    for done in behind.await.map_err(gone)? {
        ensure(matches!(done, Err(BusError::OutOfTurn)), || {
            format!("expected OutOfTurn, found {done:?}")
        })?;
    }
    let found = read_all(&*rig.other, &topic, 0).await?;
    same_payloads("after what failed", &found, &before)?;
    write(Arc::clone(&rig.bus), topic.clone(), 2, 3).await?;
    let expected = [before, written(2, 3)].concat();
    let found = read_all(&*rig.other, &topic, 0).await?;
    same_payloads("after new turns", &found, &expected)
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

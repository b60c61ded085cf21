//! Power cuts at any moment of a play, and disks that fail at any call of it.

use std::sync::{Arc, Mutex};

use sealcast::{BusError, Error, Ground, StoreError};
use sealcast_crash::{Chance, Fault, Lasting, Loss, Recording, Sent, Watch};

use crate::play::{CLEAR, play, telling};
use crate::scene::{Scene, runtime};

/// Lets every call fail in turn, and not only some of them.
const WHOLE: &str = "SEALCAST_CRASH_WHOLE";
/// Moments that are looked at where not all are.
const MOMENTS: usize = 120;
/// Calls that fail otherwise, of each kind.
const CALLS: u64 = 40;

type Left = Vec<(String, Vec<u8>)>;

/// A play on a disk that is watched, and what was handed to the bus, to which marks in the recording
/// point.
fn recorded(scene: &Scene, prepare: impl FnOnce(&Watch)) -> (Recording, Left) {
    let watch = Arc::new(Watch::begin(&scene.live()).unwrap());
    prepare(&watch);
    let left: Arc<Mutex<Left>> = Arc::default();
    let (noting, marking) = (left.clone(), watch.clone());
    let data = scene.topic.clone();
    let ground = telling(Ground::default(), move |topic, payloads| {
        let mut left = noting.lock().unwrap();
        for payload in payloads.iter().filter(|_| topic == data) {
            marking.mark(format!("left {}", left.len()));
            left.push((topic.to_owned(), payload.clone()));
        }
    });
    let home = scene.live().join("alice");
    let marking = watch.clone();
    let mut acks = move |ack: String| marking.mark(ack);
    let mut fails = |error: Error| Err(error);
    runtime().block_on(async {
        play(&home, ground, scene.others(), &mut acks, &mut fails)
            .await
            .map(drop)
            .unwrap();
    });
    let left = left.lock().unwrap().clone();
    (watch.recording(), left)
}

/// What is wrong when the disk is as an image has it.
fn fault_at(
    scene: &Scene,
    (recording, left): &(Recording, Left),
    end: usize,
) -> Result<(), String> {
    let mut sent = Sent::default();
    let mut acks = Vec::new();
    for mark in recording.marks(end) {
        match mark.strip_prefix("left ") {
            Some(number) => {
                let (topic, envelope) = &left[number.parse::<usize>().unwrap()];
                sent.add(topic, envelope);
            }
            None => acks.push(mark.to_owned()),
        }
    }
    scene.fault(&acks, &mut sent, false)
}

fn holds_at_every_moment(seed: u64, loss: impl FnMut(&mut Chance) -> Loss) {
    let scene = Scene::new();
    let played = recorded(&scene, |_| ());
    let looked_at = played.0.look_at_crashes(MOMENTS, seed, loss, |end, image| {
        image.restore(&scene.live()).unwrap();
        fault_at(&scene, &played, end)
    });
    assert!(looked_at.unwrap_or_else(|fault| panic!("{fault}")) > MOMENTS / 2);
}

#[test]
fn a_process_that_dies_at_any_write_loses_nothing_and_repeats_nothing() {
    holds_at_every_moment(1, |_| Loss::Nothing);
}

#[test]
fn a_power_cut_that_takes_all_that_was_not_synced_does_neither() {
    holds_at_every_moment(2, |_| Loss::Unsynced);
}

#[test]
fn nor_does_one_that_takes_any_part_of_it() {
    holds_at_every_moment(3, |chance| Loss::Some(chance.draw()));
}

/// The test of the test: on a disk that does not sync, everything is acknowledged too early.
#[test]
fn what_is_acknowledged_before_it_is_durable_is_found_out() {
    let scene = Scene::new();
    let played = recorded(&scene, Watch::danger_lie_about_syncs);
    let end = played.0.len();
    played
        .0
        .image(end, Loss::Unsynced)
        .restore(&scene.live())
        .unwrap();
    let fault = fault_at(&scene, &played, end).unwrap_err();
    assert!(
        fault.contains("missing") || fault.contains("lost"),
        "{fault}"
    );
}

fn is_told_well(error: &Error, fault: Fault) -> bool {
    match (error, fault) {
        (
            Error::Store(StoreError::Full { .. }) | Error::Bus(BusError::Full { .. }),
            Fault::Full,
        )
        | (
            Error::Store(StoreError::Backend { .. }) | Error::Bus(BusError::Unreachable { .. }),
            Fault::Broken,
        ) => true,
        // Whoever publishes frames is told why at the end of it.
        _ => matches!(error, Error::PublisherEnded),
    }
}

/// Plays on a disk that fails at one call. Returns whether that call came.
fn fails_at(scene: &Scene, after: u64, fault: Fault, lasting: Lasting) -> bool {
    let case = format!("{after}: {fault:?} {lasting:?}");
    scene.begin_again();
    let watch = Watch::begin(&scene.live()).unwrap();
    watch.fail(after, fault, lasting);
    let sent: Arc<Mutex<Sent>> = Arc::default();
    let (noting, data) = (sent.clone(), scene.topic.clone());
    let ground = telling(Ground::default(), move |topic, payloads| {
        if topic == data {
            noting.lock().unwrap().extend(topic, payloads);
        }
    });
    let (mut acks, mut errors) = (Vec::new(), 0);
    let has_failed = runtime().block_on(async {
        let mut on_error = |error: Error| {
            assert!(is_told_well(&error, fault), "{case}: {error:?}");
            errors += 1;
            // A home that does not open is tried until the disk is whole again.
            if errors > 20 {
                watch.mend();
            }
            Ok(())
        };
        let home = scene.live().join("alice");
        let mut note = |ack| acks.push(ack);
        let stream = play(&home, ground, scene.others(), &mut note, &mut on_error).await;
        let has_failed = watch.mend();
        let late = stream
            .unwrap()
            .publish(format!("{CLEAR} late").as_bytes())
            .await;
        late.unwrap_or_else(|error| panic!("{case}: it does not go on: {error:?}"));
        acks.push("record late".to_owned());
        has_failed || errors > 20
    });
    drop(watch);
    let held = scene.fault(&acks, &mut sent.lock().unwrap(), true);
    assert_eq!(held, Ok(()), "{case}");
    has_failed
}

fn costs_nothing_that_was_acknowledged(fault: Fault, seed: u64) {
    let scene = Scene::new();
    let is_whole = std::env::var_os(WHOLE).is_some();
    let mut chance = Chance::new(seed);
    for lasting in [Lasting::Once, Lasting::On] {
        // Far behind every call: how many there are is found out by halving.
        let (mut met, mut behind) = (0, 1_024);
        while met + 1 < behind {
            let middle = (met + behind) / 2;
            match fails_at(&scene, middle, fault, lasting) {
                true => met = middle,
                false => behind = middle,
            }
        }
        assert!(behind > 30, "{behind}");
        for after in 0..behind {
            if is_whole || chance.hits(CALLS, behind) {
                fails_at(&scene, after, fault, lasting);
            }
        }
    }
}

#[test]
fn a_full_disk_is_told_at_any_write_and_costs_nothing_that_was_acknowledged() {
    costs_nothing_that_was_acknowledged(Fault::Full, 1);
}

#[test]
fn so_is_a_broken_one_at_any_write_or_sync() {
    costs_nothing_that_was_acknowledged(Fault::Broken, 2);
}

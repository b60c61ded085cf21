//! Faults planted in the driver: a gate that does not find them proves nothing.
#![cfg(test)]

use sealcast_sim::{Plan, Plant, Violation, run};

/// Seeds in which a planted fault must show.
const SEEDS: u64 = 300;

/// Finds a seed in which a fault shows as what it is, before it shows as anything else that it
/// causes.
fn is_caught(plant: Plant, is_it: impl Fn(&Violation) -> bool) {
    let plan = |seed| match Plan::new(seed) {
        calm if calm.faults == 0 => calm,
        rough => Plan {
            faults: 60,
            ..rough
        },
    };
    let violation = |seed| run(&plan(seed), Some(plant)).violation;
    let found = (0..SEEDS).filter_map(violation).find(is_it);
    assert!(found.is_some(), "{plant:?} stays hidden in {SEEDS} seeds");
}

#[test]
fn a_cover_that_reaches_one_position_too_far_is_found() {
    is_caught(Plant::WideCover, |of| {
        matches!(of, Violation::OpenedWithoutRight { .. })
    });
}

/// Looking back at the bus mends most of it, and is told.
#[test]
fn a_lane_that_a_crash_loses_is_found() {
    is_caught(Plant::LoseLane, |of| {
        matches!(
            of,
            Violation::PositionWentBack { .. } | Violation::FalseAlarm { .. }
        )
    });
}

#[test]
fn an_envelope_that_leaves_before_its_record_is_found() {
    is_caught(Plant::EnvelopeFirst, |of| {
        matches!(of, Violation::EnvelopeBeforeRecord { .. })
    });
}

#[test]
fn keys_that_are_kept_after_the_place_behind_them_are_missed() {
    is_caught(Plant::PlaceBeforeKeys, |of| {
        matches!(
            of,
            Violation::StaysSealed { .. } | Violation::LogsDiffer(..)
        )
    });
}

#[test]
fn keys_that_are_not_handed_out_are_missed() {
    is_caught(Plant::NoHandout, |of| {
        matches!(of, Violation::StaysSealed { .. })
    });
}

/// Fault 20: what live reading delivered before a restart would come again.
#[test]
fn live_reading_that_forgets_where_it_stood_is_found() {
    is_caught(Plant::ForgetTracks, |of| {
        matches!(of, Violation::OpenedTwice { .. })
    });
}

#[test]
fn requests_that_nobody_answers_are_missed() {
    is_caught(Plant::NoAnswer, |of| {
        matches!(of, Violation::StaysSealed { .. })
    });
}

#[test]
fn a_receipt_for_keys_that_a_crash_would_lose_is_found() {
    is_caught(Plant::ReceiptFirst, |of| {
        matches!(of, Violation::ReceiptTooSoon { .. })
    });
}

/// Fault 17: what cannot be opened yet must not be passed over either.
#[test]
fn what_waits_for_keys_and_is_lost_in_a_crash_is_missed() {
    is_caught(Plant::LoseParked, |of| {
        matches!(of, Violation::ParkedLost { .. })
    });
}

#[test]
fn what_had_waited_and_is_delivered_again_and_again_is_found() {
    is_caught(Plant::DeliverAgain, |of| {
        matches!(
            of,
            Violation::ParkedLost { .. } | Violation::OpenedTwice { .. }
        )
    });
}

/// Readers take it for a fork, and so do not open what must open.
#[test]
fn a_run_that_begins_with_the_numbers_of_another_is_found() {
    is_caught(Plant::RepeatRun, |of| {
        matches!(
            of,
            Violation::KeyUsedTwice(_) | Violation::StaysSealed { .. }
        )
    });
}

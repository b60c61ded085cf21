//! Appends that are larger than a message, and logs that are looked at again and again.

use std::time::Duration;

use sealcast_bus::{Bus, Offset};
use sealcast_bus_amqp::AmqpBus;

use crate::rig::{open, read_all, shared, topic, within};

const ROUNDS: u8 = 12;

/// One of two that append at the same time: three parts, and an item that fits into a message.
fn payloads(writer: u8, round: u8) -> Vec<Vec<u8>> {
    let item = |times: usize| [writer, round].repeat(times);
    vec![item(150 << 10), item(1)]
}

async fn append(bus: &AmqpBus, writer: u8, round: u8) -> Offset {
    let appending = bus.append(&topic("a"), payloads(writer, round));
    within("an append", appending).await.unwrap()
}

/// No writer reads what it wrote, and each learns where its append came to lie nevertheless.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_appends_that_meet_are_where_their_writers_were_told() {
    let server = shared();
    let (one, other) = (open(&server, "large").await, open(&server, "large").await);
    let mut told = Vec::new();
    for round in 0..ROUNDS {
        let (first, second) = tokio::join!(append(&one, 1, round), append(&other, 2, round));
        told.extend([(first, payloads(1, round)), (second, payloads(2, round))]);
    }
    told.sort_by_key(|(first, _)| *first);
    let expected: Vec<Vec<u8>> = told.iter().flat_map(|(_, items)| items.clone()).collect();
    let fresh = open(&server, "large").await;
    let log = topic("a");
    for bus in [&fresh, &one] {
        let there = within("the log", read_all(bus, &log)).await;
        assert!(there == expected, "{} items", there.len());
    }
    let firsts: Vec<u64> = told.iter().map(|(first, _)| first.0).collect();
    assert!(
        firsts
            .iter()
            .copied()
            .eq((0..).step_by(2).take(firsts.len())),
        "{firsts:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_may_be_asked_for_its_end_as_often_as_one_likes() {
    let server = shared();
    let (bus, other) = (open(&server, "asked").await, open(&server, "asked").await);
    let log = topic("a");
    for number in 0..40 {
        let end = within("the end", bus.end(&log)).await.unwrap();
        assert_eq!(end, Offset(number / 4));
        if number % 4 == 3 {
            other.append(&log, vec![vec![7; 10]]).await.unwrap();
        }
    }
}

/// A read that goes on where the last one ended does not go by what it saw then, but for a moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_trim_between_two_reads_is_gone() {
    let server = shared();
    let (bus, other) = (
        open(&server, "between").await,
        open(&server, "between").await,
    );
    let log = topic("a");
    for round in 0..4 {
        other.append(&log, payloads(1, round)).await.unwrap();
    }
    let items = bus.read(&log, Offset(0), 1).await.unwrap();
    assert_eq!(items.len(), 1);
    other.trim(&log, Offset(5)).await.unwrap();
    // Longer than a reader goes by what it was told before.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let items = bus.read(&log, Offset(1), 1).await.unwrap();
    assert_eq!(items[0].offset, Offset(5));
}

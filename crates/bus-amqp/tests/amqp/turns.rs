//! Appends that are sent ahead of the answer to the one before them, amid what others put there.

use std::sync::Arc;

use bytes::Bytes;
use sealcast_bus::{Bus, BusError, Offset, Topic, Turns};
use sealcast_bus_amqp::AmqpBus;
use tokio::task::JoinHandle;

use crate::forged::id_of;
use crate::rig::{open, read_all, shared, topic, within};
use crate::strangers::Stranger;

/// Two items, of which one does not fit into a message.
fn payloads(number: u8) -> Vec<Vec<u8>> {
    vec![vec![number; 300 << 10], vec![number]]
}

/// Has appends set out one after the other; returns once the last has.
async fn set_out(
    bus: &AmqpBus,
    log: &Topic,
    numbers: impl IntoIterator<Item = u8>,
) -> Vec<JoinHandle<Result<(), BusError>>> {
    let (mut turns, mut under_way) = (Turns::default(), Vec::new());
    for number in numbers {
        let turn = within("a turn", turns.next()).await;
        let (bus, log) = (bus.clone(), log.clone());
        let payloads = payloads(number).into_iter().map(Bytes::from).collect();
        under_way.push(tokio::spawn(async move {
            bus.append_in_turn(&log, payloads, turn).await
        }));
    }
    under_way
}

async fn outcomes(under_way: Vec<JoinHandle<Result<(), BusError>>>) -> Vec<Result<(), BusError>> {
    let mut outcomes = Vec::new();
    for append in under_way {
        outcomes.push(within("an append", append).await.unwrap());
    }
    outcomes
}

/// The appends with parts that lie in a queue.
async fn appends(stranger: &Stranger, queue: &str) -> Vec<Vec<u8>> {
    let all = stranger.all(queue).await.into_iter();
    let is_append = |bytes: &Vec<u8>| bytes.starts_with(b"SCA\x01\x02");
    all.map(|(_, bytes)| bytes).filter(is_append).collect()
}

/// As many items come between as those have that are lost: offsets alone do not tell who is behind whom.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_ahead_is_not_there_without_its_own_predecessor() {
    let server = shared();
    let (bus, other) = (
        open(&server, "crowded").await,
        open(&server, "crowded").await,
    );
    let (log, stranger) = (topic("a"), Stranger::at(&server).await);
    let mut expected = Vec::new();
    for round in 0..3 {
        // From here on the writer does not look at what others write.
        for outcome in outcomes(set_out(&bus, &log, [round]).await).await {
            outcome.unwrap();
        }
        other.append(&log, payloads(50 + round)).await.unwrap();
        let before = appends(&stranger, "crowded.log.a").await.len();
        let numbers = [100 + round, 150 + round, 200 + round];
        for outcome in outcomes(set_out(&bus, &log, numbers).await).await {
            outcome.unwrap();
        }
        expected.extend([round, 50 + round].into_iter().chain(numbers));
        let tried = appends(&stranger, "crowded.log.a").await.len() - before;
        match round {
            // One at least was sent ahead, and made again as all were.
            0 => assert!(tried > 4, "{tried}"),
            // Whoever was crowded out sends nothing ahead for a while.
            1 => assert!(tried <= 4, "{tried}"),
            _ => {}
        }
        let expected: Vec<Vec<u8>> = expected.iter().flat_map(|of| payloads(*of)).collect();
        for reader in [&open(&server, "crowded").await, &bus] {
            let found = within("the log", read_all(reader, &log)).await;
            assert!(found == expected, "round {round}: {}", found.len());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_ahead_fails_with_what_it_was_sent_behind() {
    let server = shared();
    let (bus, log) = (open(&server, "failed").await, topic("a"));
    let stranger = Stranger::at(&server).await;
    for outcome in outcomes(set_out(&bus, &log, [0]).await).await {
        outcome.unwrap();
    }
    // A later program comes first, and nobody knows what it wrote, nor what became of what was sent then.
    let (at, mut later) = stranger.last_append("failed.log.a").await;
    let id = id_of(&later);
    later[3] = 2;
    later[5..13].copy_from_slice(&at.to_be_bytes());
    later[13..29].copy_from_slice(&id);
    later[29..37].copy_from_slice(&2_u64.to_be_bytes());
    stranger.put("failed.log.a", &later).await;
    let outcomes = outcomes(set_out(&bus, &log, [1, 2, 3]).await).await;
    assert!(
        matches!(outcomes[0], Err(BusError::Unreachable { .. })),
        "{outcomes:?}"
    );
    let is_told = |of: &Result<(), BusError>| matches!(of, Err(BusError::OutOfTurn));
    assert!(outcomes[1..].iter().all(is_told), "{outcomes:?}");
    // All were sent, and belong nowhere.
    assert_eq!(appends(&stranger, "failed.log.a").await.len(), 4);
    let items = bus.read(&log, Offset(0), 1).await;
    assert!(matches!(items, Err(BusError::TooNew { .. })), "{items:?}");
}

/// Who follows, and who begins at the end, sees what was sent ahead as anything else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_log_of_what_was_sent_ahead_is_found_from_anywhere() {
    const COUNT: u8 = 50;
    let server = shared();
    let (bus, log) = (Arc::new(open(&server, "rows").await), topic("a"));
    let mut tail = bus.tail(vec![(log.clone(), Offset(0))]);
    for outcome in outcomes(set_out(&bus, &log, 0..COUNT).await).await {
        outcome.unwrap();
    }
    let end = Offset(2 * u64::from(COUNT));
    for number in [0, 1, 24, 48, 49] {
        let fresh = open(&server, "rows").await;
        let from = Offset(2 * u64::from(number));
        let items = fresh.read(&log, from, 1).await.unwrap();
        assert_eq!(items[0].offset, from);
        assert!(items[0].payload == payloads(number)[0], "{number}");
        assert_eq!(fresh.end(&log).await.unwrap(), end);
    }
    let mut next = Offset(0);
    while next < end {
        let (_, items) = within("the next items", tail.next()).await.unwrap();
        for item in items {
            assert_eq!(item.offset, next);
            next = Offset(next.0 + 1);
        }
    }
    let appended = bus.append(&log, payloads(COUNT)).await.unwrap();
    assert_eq!(appended, end);
}

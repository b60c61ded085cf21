//! What somebody who knows the format puts into queues, to make readers stumble.

use sealcast_bus::{Bus, BusError, Item, Offset, Topic};

use crate::rig::{open, read_all, shared, topic};
use crate::strangers::{Stranger, item};

const IN_PARTS: u8 = 2;
const PART: u8 = 3;
const ID: [u8; 16] = [9; 16];
/// Where in an append its id is, and behind the name of the topic that of its parts.
const ID_AT: usize = 49;
const PARTS_ID_AT: usize = 67;

/// The id of an append.
pub(crate) fn id_of(message: &[u8]) -> [u8; 16] {
    message[ID_AT..][..16].try_into().unwrap()
}

/// An append in parts, behind the message at `prev`.
struct Forged {
    prev: u64,
    behind: [u8; 16],
    first: u64,
    count: u32,
    parts_id: [u8; 16],
    since: u64,
    parts: u32,
}

impl Forged {
    fn encode(&self, topic: &Topic) -> Vec<u8> {
        let name: &str = topic.as_ref();
        [
            &b"SCA\x01"[..],
            &[IN_PARTS],
            &self.prev.to_be_bytes(),
            &self.behind,
            &self.first.to_be_bytes(),
            &self.count.to_be_bytes(),
            &[0; 8],
            &ID,
            &u16::try_from(name.len()).unwrap().to_be_bytes(),
            name.as_bytes(),
            &self.parts_id,
            &self.since.to_be_bytes(),
            &self.parts.to_be_bytes(),
        ]
        .concat()
    }
}

fn part(number: u32, bytes: &[u8]) -> Vec<u8> {
    [&b"SCA\x01"[..], &[PART], &ID, &number.to_be_bytes(), bytes].concat()
}

fn is_item(items: &[Item], number: u64) -> bool {
    matches!(items, [only] if only.offset == Offset(number) && only.payload == item(number))
}

/// What is before damage is given first, and damage of one topic does not keep others from theirs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_loses_nothing_to_damage() {
    let server = shared();
    let bus = open(&server, "forged").await;
    let (log, other) = (topic("a"), topic("b"));
    let stranger = Stranger::at(&server).await;
    bus.append(&log, vec![item(0)]).await.unwrap();
    let (prev, last) = stranger.last_append("forged.log.a").await;
    let forged = Forged {
        prev,
        behind: id_of(&last),
        first: 1,
        count: 5,
        parts_id: ID,
        since: prev,
        parts: 1,
    };
    stranger.put("forged.log.a", &part(0, b"x")).await;
    stranger.put("forged.log.a", &forged.encode(&log)).await;
    let fresh = open(&server, "forged").await;
    let mut tail = fresh.tail(vec![(log.clone(), Offset(0)), (other.clone(), Offset(0))]);
    let (of, items) = tail.next().await.unwrap();
    assert!(of == log && is_item(&items, 0), "{of} {items:?}");
    for number in 0..3 {
        bus.append(&other, vec![item(number)]).await.unwrap();
        // It may take some calls until the item is here.
        let (of, items) = loop {
            match tail.next().await {
                Ok(came) => break came,
                Err(BusError::Damaged { .. }) => {}
                Err(error) => panic!("{error:?}"),
            }
        };
        assert!(of == other && is_item(&items, number), "{of} {items:?}");
    }
    let error = tail.next().await.unwrap_err();
    assert!(matches!(error, BusError::Damaged { .. }), "{error:?}");
}

/// Parts that cannot be where they are said to be are not waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_that_lie_ahead_are_damage() {
    let server = shared();
    let bus = open(&server, "ahead").await;
    let log = topic("a");
    let stranger = Stranger::at(&server).await;
    bus.append(&log, vec![item(0)]).await.unwrap();
    for (since, parts, first) in [(1 << 62, 1, 1), (0, 1_025, 3)] {
        let (prev, last) = stranger.last_append("ahead.log.a").await;
        let forged = Forged {
            prev,
            behind: id_of(&last),
            first,
            count: 1,
            parts_id: ID,
            since,
            parts,
        };
        stranger.put("ahead.log.a", &forged.encode(&log)).await;
        let read = bus.read(&log, Offset(first), 1 << 20).await;
        assert!(matches!(read, Err(BusError::Damaged { .. })), "{read:?}");
        let appended = bus.append(&log, vec![item(first + 1)]).await.unwrap();
        assert_eq!(appended, Offset(first + 1));
        let items = bus.read(&log, appended, 1 << 20).await.unwrap();
        assert!(is_item(&items, first + 1), "{items:?}");
    }
}

/// A message that names the parts of another has them in its own log alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_was_seen_is_not_enough() {
    let server = shared();
    let bus = open(&server, "ids").await;
    let (log, other) = (topic("a"), topic("b"));
    let stranger = Stranger::at(&server).await;
    bus.append(&other, vec![item(0)]).await.unwrap();
    let payloads = vec![vec![1; 3 << 20], vec![2; 3 << 20]];
    bus.append(&log, payloads.clone()).await.unwrap();
    let (_, message) = stranger.last_append("ids.log.a").await;
    // Large ones are kept while they are read in pieces.
    let first = open(&server, "ids").await;
    let items = first.read(&log, Offset(0), 1).await.unwrap();
    assert_eq!(items.len(), 1);
    let (prev, last) = stranger.last_append("ids.log.b").await;
    let parts_id = PARTS_ID_AT + "a".len();
    let forged = Forged {
        prev,
        behind: id_of(&last),
        first: 1,
        count: 2,
        parts_id: message[parts_id..][..16].try_into().unwrap(),
        since: prev,
        parts: 3,
    };
    stranger.put("ids.log.b", &forged.encode(&other)).await;
    let read = first.read(&other, Offset(1), 1).await;
    assert!(matches!(read, Err(BusError::Damaged { .. })), "{read:?}");
    assert_eq!(read_all(&first, &log).await, payloads);
}

/// Whoever comes anew does not take the word of a message that nothing bears out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_false_end_is_not_believed() {
    let server = shared();
    let bus = open(&server, "split").await;
    let log = topic("a");
    let stranger = Stranger::at(&server).await;
    // So many that nobody begins at the beginning.
    for number in 0..150 {
        bus.append(&log, vec![item(number)]).await.unwrap();
    }
    let (last, bytes) = stranger.last_append("split.log.a").await;
    for (prev, end) in [(u64::MAX, 150), (last, 151), (0, 152)] {
        let forged = Forged {
            prev,
            behind: id_of(&bytes),
            first: 1_000_000,
            count: 0,
            parts_id: ID,
            since: 0,
            parts: 0,
        };
        stranger.put("split.log.a", &forged.encode(&log)).await;
        let fresh = open(&server, "split").await;
        let appended = fresh.append(&log, vec![item(end)]).await.unwrap();
        assert_eq!(appended, Offset(end));
        let items = bus.read(&log, Offset(end), 1 << 20).await.unwrap();
        assert!(is_item(&items, end), "{items:?}");
        assert_eq!(bus.end(&log).await.unwrap(), Offset(end + 1));
    }
}

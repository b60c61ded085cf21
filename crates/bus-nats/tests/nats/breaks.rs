//! What a NATS bus does when its server, or the way to it, breaks.

use std::sync::Arc;
use std::time::Duration;

use sealcast_brokers::nats::Server;
use sealcast_brokers::{Proxy, Trouble};
use sealcast_bus::conformance::{Writing, in_turn_amid_faults};
use sealcast_bus::{Bus, BusError, Item, Offset, ServerOptions, Tail, Topic};
use sealcast_bus_nats::NatsBus;
use tokio::sync::Mutex;
use tokio::time::sleep;

use crate::rig::{address, open, within};

fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

fn payload(number: u64) -> Vec<u8> {
    // Every seventh does not fit in one message.
    let padding = if number % 7 == 6 { 1 << 20 } else { 100 };
    let mut payload = format!("{number} ").into_bytes();
    payload.resize(padding, b'.');
    payload
}

async fn read_all(bus: &dyn Bus, topic: &Topic) -> Vec<Vec<u8>> {
    let (mut payloads, mut next) = (Vec::new(), Offset(0));
    loop {
        let items = bus.read(topic, next, 1 << 20).await.unwrap();
        let Some(last) = items.last() else {
            return payloads;
        };
        next = Offset(last.offset.0 + 1);
        payloads.extend(items.into_iter().map(|item| item.payload));
    }
}

fn numbers(payloads: &[Vec<u8>]) -> Vec<String> {
    let number = |payload: &Vec<u8>| {
        let text = String::from_utf8_lossy(payload).into_owned();
        text.split(' ').next().unwrap_or_default().to_owned()
    };
    payloads.iter().map(number).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_again_and_again_loses_and_doubles_nothing() {
    const ITEMS: u64 = 60;
    let mut server = Server::start();
    let (writer, follower) = (open(&server, "x").await, open(&server, "x").await);
    let log = topic("a/log");
    let mut tail = follower.tail(vec![(log.clone(), Offset(0))]);
    let following = tokio::spawn(async move {
        let mut seen = Vec::new();
        while (seen.len() as u64) < ITEMS {
            // An error loses nothing: the next call goes on.
            let Ok((_, items)) = tail.next().await else {
                continue;
            };
            for item in items {
                assert_eq!(item.offset, Offset(seen.len() as u64));
                seen.push(item.payload);
            }
        }
        seen
    });
    let (appended, mut count) = tokio::sync::watch::channel(0);
    let to = log.clone();
    let writing = tokio::spawn(async move {
        for number in 0..ITEMS {
            let first = writer.append(&to, vec![payload(number)]).await.unwrap();
            assert_eq!(first, Offset(number));
            appended.send_replace(number);
        }
        writer
    });
    for round in 1..=4 {
        let counted = count.wait_for(|count| *count >= round * 12);
        within("twelve items more", counted).await.unwrap();
        // Not at a moment between two appends.
        sleep(Duration::from_millis(round * 3)).await;
        server.kill();
        server.restart();
    }
    let writer = within("the end of the writer", writing).await.unwrap();
    let followed = within("all items", following).await.unwrap();
    let expected: Vec<Vec<u8>> = (0..ITEMS).map(payload).collect();
    assert_eq!(numbers(&read_all(&writer, &log).await), numbers(&expected));
    assert_eq!(numbers(&followed), numbers(&expected));
}

/// A handle behind a proxy, and one that sees the server as it is.
struct Pair {
    server: Server,
    proxy: Proxy,
    behind: NatsBus,
    direct: NatsBus,
}

impl Pair {
    async fn start() -> Self {
        let server = Server::start();
        let proxy = Proxy::before(server.port()).await;
        let url = format!("nats://127.0.0.1:{}/x", proxy.port());
        let options = ServerOptions::default();
        Self {
            behind: NatsBus::open(&address(&url), &options).await.unwrap(),
            direct: open(&server, "x").await,
            proxy,
            server,
        }
    }

    /// Has the server store an append whose answer does not arrive, and then does something else to
    /// the topic before the connection is made anew.
    async fn unanswered(
        &self,
        log: &Topic,
        meanwhile: impl AsyncFnOnce(&NatsBus),
    ) -> Result<Offset, BusError> {
        // It knows how the topic ends, so that the append is all that it asks for.
        let end = self.behind.end(log).await.unwrap();
        self.proxy.mute();
        let bus = self.behind.clone();
        let to = log.clone();
        let appending = tokio::spawn(async move { bus.append(&to, vec![b"once".to_vec()]).await });
        let stored = async {
            while self.direct.end(log).await.unwrap() == end {
                sleep(Duration::from_millis(5)).await;
            }
        };
        within("the append on the server", stored).await;
        meanwhile(&self.direct).await;
        self.proxy.renew().await;
        within("the answer", appending).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_whose_answer_is_lost_is_found_and_not_made_again() {
    let pair = Pair::start().await;
    let log = topic("a");
    pair.behind
        .append(&log, vec![b"zero".to_vec()])
        .await
        .unwrap();
    for round in 0..3 {
        let first = pair.unanswered(&log, async |_| {}).await.unwrap();
        assert_eq!(first, Offset(1 + round));
    }
    let expected = ["zero", "once", "once", "once"].map(|text| text.as_bytes().to_vec());
    assert_eq!(read_all(&pair.direct, &log).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_whose_answer_is_lost_is_found_behind_others() {
    let pair = Pair::start().await;
    let log = topic("a");
    let others = async |bus: &NatsBus| {
        bus.append(&log, vec![b"other".to_vec(); 2]).await.unwrap();
    };
    assert_eq!(pair.unanswered(&log, others).await.unwrap(), Offset(0));
    let expected = ["once", "other", "other"].map(|text| text.as_bytes().to_vec());
    assert_eq!(read_all(&pair.direct, &log).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_that_was_trimmed_before_it_was_answered_is_said_to_be_open() {
    let pair = Pair::start().await;
    let log = topic("a");
    let trim = async |bus: &NatsBus| bus.trim(&log, Offset(u64::MAX)).await.unwrap();
    let error = pair.unanswered(&log, trim).await.unwrap_err();
    assert!(matches!(error, BusError::Backend(_)), "{error:?}");
    assert_eq!(pair.direct.end(&log).await.unwrap(), Offset(1));
    // The handle knows where it stands.
    let first = pair
        .behind
        .append(&log, vec![b"next".to_vec()])
        .await
        .unwrap();
    assert_eq!(first, Offset(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_goes_on_without_a_gap_over_connections_that_break() {
    let pair = Pair::start().await;
    let log = topic("a");
    let mut tail = pair.behind.tail(vec![(log.clone(), Offset(0))]);
    let mut next = 0;
    for round in 0..4 {
        pair.direct.append(&log, vec![payload(0); 3]).await.unwrap();
        // What is told now is not heard.
        pair.proxy.mute();
        pair.direct.append(&log, vec![payload(1); 3]).await.unwrap();
        pair.proxy.renew().await;
        while next < (round + 1) * 6 {
            // An error loses nothing: the next call goes on.
            let Ok((_, items)) = within("the next items", tail.next()).await else {
                continue;
            };
            for item in items {
                assert_eq!(item.offset, Offset(next));
                next += 1;
            }
        }
    }
}

/// Calls as whoever waits for something else, too: never for long.
async fn next_by_and_by(tail: &mut dyn Tail) -> Vec<Item> {
    let calling = async {
        loop {
            let next = tokio::time::timeout(Duration::from_millis(200), tail.next());
            if let Ok(Ok((_, items))) = next.await {
                return items;
            }
        }
    };
    within("the next items, by and by", calling).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_that_is_asked_for_moments_brings_what_comes_slowly() {
    let pair = Pair::start().await;
    let log = topic("a");
    for number in 0..2 {
        pair.direct
            .append(&log, vec![vec![number; 200_000]])
            .await
            .unwrap();
    }
    let mut tail = pair.behind.tail(vec![(log.clone(), Offset(1))]);
    // An item takes more than a second, which is far more than a call waits and far less than an answer
    // may take.
    pair.proxy.slow(20_000, Duration::from_millis(80));
    let items = next_by_and_by(&mut *tail).await;
    assert_eq!((items.len(), items[0].offset), (1, Offset(1)));
    // And the next one comes behind a silence.
    pair.proxy.mute();
    pair.direct.append(&log, vec![payload(2)]).await.unwrap();
    let next = tokio::time::timeout(Duration::from_millis(200), tail.next());
    assert!(!matches!(next.await, Ok(Ok(_))), "nothing comes through");
    pair.proxy.open();
    let items = next_by_and_by(&mut *tail).await;
    assert_eq!((items.len(), items[0].offset), (1, Offset(2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_there_is_named() {
    let mut server = Server::start();
    server.kill();
    let opened = NatsBus::open(&address(&server.url("x")), &ServerOptions::default()).await;
    let error = opened.unwrap_err();
    let BusError::Unreachable { place, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(*place, server.url("x"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_in_turn_are_there_in_order_and_once_over_connections_that_break() {
    let pair = Pair::start().await;
    let bus = Arc::new(pair.behind.clone());
    let trouble = async |round: usize, writing: &Writing<'_>| {
        let trouble = Trouble::ALL[round];
        pair.proxy.suffer(trouble, writing.is_ahead()).await;
    };
    in_turn_amid_faults(bus, &pair.direct, Trouble::ALL.len(), trouble).await;
}

/// Whenever it is killed it has appends that it has not said anything of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_in_turn_are_there_in_order_and_once_after_a_server_was_killed() {
    let Pair {
        server,
        proxy,
        behind,
        direct,
    } = Pair::start().await;
    let server = Mutex::new(server);
    let kill = async |_, writing: &Writing<'_>| {
        proxy.mute();
        writing.is_ahead().await;
        let mut server = server.lock().await;
        server.kill();
        proxy.renew().await;
        server.restart();
    };
    in_turn_amid_faults(Arc::new(behind), &direct, 3, kill).await;
}

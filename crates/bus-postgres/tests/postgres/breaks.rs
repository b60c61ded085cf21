//! What a PostgreSQL bus does when its server, or the way to it, breaks.

use std::sync::Arc;
use std::time::Duration;

use sealcast_brokers::Proxy;
use sealcast_brokers::postgres::Server;
use sealcast_bus::{Bus, BusError, Item, Offset, ServerOptions, Tail, Topic};
use sealcast_bus_postgres::PostgresBus;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::rig::{QUICK, address, open, shared, topic, within};

pub(crate) async fn read_all(bus: &dyn Bus, topic: &Topic) -> Vec<String> {
    let (mut payloads, mut next) = (Vec::new(), Offset(0));
    loop {
        let items = bus.read(topic, next, 1 << 20).await.unwrap();
        let Some(last) = items.last() else {
            return payloads;
        };
        next = Offset(last.offset.0 + 1);
        let texts = items.into_iter();
        payloads.extend(texts.map(|item| String::from_utf8(item.payload).unwrap()));
    }
}

/// Follows a topic until it has so many items.
pub(crate) async fn follow(bus: PostgresBus, topic: Topic, count: u64) -> Vec<String> {
    let mut tail = bus.tail(vec![(topic, Offset(0))]);
    let mut seen = Vec::new();
    while (seen.len() as u64) < count {
        // An error loses nothing: the next call goes on.
        let Ok((_, items)) = tail.next().await else {
            continue;
        };
        for item in items {
            assert_eq!(item.offset, Offset(seen.len() as u64));
            seen.push(String::from_utf8(item.payload).unwrap());
        }
    }
    seen
}

/// Appends one item after another, which say whose they are and where they went before.
pub(crate) async fn append(
    bus: PostgresBus,
    topic: Topic,
    writer: u64,
    count: u64,
) -> Vec<(u64, String)> {
    let mut acknowledged = Vec::new();
    for number in 0..count {
        let payload = format!("{writer} {number}");
        let first = bus.append(&topic, vec![payload.clone().into()]);
        acknowledged.push((first.await.unwrap().0, payload));
        // Rather often than fast: the server is to be hit while something is under way.
        sleep(Duration::from_millis(2)).await;
    }
    acknowledged
}

/// Waits until all writers have ended; what they were told of their items, in the order of these.
pub(crate) async fn all_of(writers: Vec<JoinHandle<Vec<(u64, String)>>>) -> Vec<(u64, String)> {
    let mut acknowledged = Vec::new();
    for writer in writers {
        let written = within("the end of a writer", writer).await.unwrap();
        assert!(written.is_sorted_by_key(|(offset, _)| *offset));
        acknowledged.extend(written);
    }
    acknowledged.sort();
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_again_and_again_loses_and_doubles_nothing() {
    const WRITERS: u64 = 4;
    const EACH: u64 = 60;
    let mut server = Server::start_with(QUICK);
    let log = topic("a/log");
    let following = tokio::spawn(follow(
        open(&server, "x").await,
        log.clone(),
        WRITERS * EACH,
    ));
    let shared = open(&server, "x").await;
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        // Two of them write over the same handle.
        let bus = match writer {
            0 | 1 => shared.clone(),
            _ => open(&server, "x").await,
        };
        writers.push(tokio::spawn(append(bus, log.clone(), writer, EACH)));
    }
    for round in 1..=4 {
        let wanted = Offset(round * WRITERS * EACH / 5);
        let written = async {
            while shared.end(&log).await.unwrap() < wanted {
                sleep(Duration::from_millis(1)).await;
            }
        };
        within("a fifth of the items more", written).await;
        match round {
            3 => server.stop(),
            _ => server.kill(),
        }
        server.restart();
    }
    let acknowledged = all_of(writers).await;
    let expected: Vec<String> = acknowledged.iter().map(|(_, text)| text.clone()).collect();
    let offsets = acknowledged.iter().map(|(offset, _)| *offset);
    assert!(offsets.eq(0..WRITERS * EACH));
    assert_eq!(read_all(&shared, &log).await, expected);
    let followed = within("all items, to who follows", following).await;
    assert_eq!(followed.unwrap(), expected);
}

/// A handle behind a proxy, and one that sees the server as it is.
struct Pair {
    server: Arc<Server>,
    proxy: Proxy,
    behind: PostgresBus,
    direct: PostgresBus,
}

impl Pair {
    async fn start(name: &str) -> Self {
        Self::on(shared(), name).await
    }

    async fn on(server: Arc<Server>, name: &str) -> Self {
        let proxy = Proxy::before(server.port()).await;
        let url = format!("postgres://127.0.0.1:{}/postgres/{name}", proxy.port());
        let options = ServerOptions::default();
        Self {
            behind: PostgresBus::open(&address(&url), &options).await.unwrap(),
            direct: open(&server, name).await,
            proxy,
            server,
        }
    }

    /// Has the server store an append whose answer does not arrive.
    async fn unanswered(&self, log: &Topic, at: Option<Offset>) -> Appending {
        let end = self.direct.end(log).await.unwrap();
        // One connection is there, and nothing need be asked before.
        self.behind.end(log).await.unwrap();
        self.proxy.mute();
        let (bus, to) = (self.behind.clone(), log.clone());
        let appending = tokio::spawn(async move {
            let payloads = vec![b"once".to_vec()];
            match at {
                Some(at) => bus.append_at(&to, at, payloads).await.map(Sent::At),
                None => bus.append(&to, payloads).await.map(Sent::From),
            }
        });
        let stored = async {
            while self.direct.end(log).await.unwrap() == end {
                sleep(Duration::from_millis(5)).await;
            }
        };
        within("the append on the server", stored).await;
        appending
    }
}

type Appending = JoinHandle<Result<Sent, BusError>>;

#[derive(Debug, PartialEq, Eq)]
enum Sent {
    From(Offset),
    At(bool),
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_whose_answer_is_lost_is_found_and_not_made_again() {
    let pair = Pair::start("lost").await;
    let log = topic("a");
    pair.behind
        .append(&log, vec![b"zero".to_vec()])
        .await
        .unwrap();
    for round in 0..3 {
        let appending = pair.unanswered(&log, None).await;
        pair.proxy.renew().await;
        assert_eq!(
            appending.await.unwrap().unwrap(),
            Sent::From(Offset(1 + round))
        );
    }
    // Where the end is compared, it is not taken for another's.
    let appending = pair.unanswered(&log, Some(Offset(4))).await;
    pair.proxy.renew().await;
    assert_eq!(appending.await.unwrap().unwrap(), Sent::At(true));
    let expected = ["zero", "once", "once", "once", "once"];
    assert_eq!(read_all(&pair.direct, &log).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_whose_answer_is_lost_is_found_behind_others_and_trimmed() {
    let pair = Pair::start("behind").await;
    let log = topic("a");
    for at in [None, Some(Offset(3))] {
        let appending = pair.unanswered(&log, at).await;
        pair.direct
            .append(&log, vec![b"other".to_vec(); 2])
            .await
            .unwrap();
        pair.direct.trim(&log, Offset(u64::MAX)).await.unwrap();
        pair.proxy.renew().await;
        let expected = at.map_or(Sent::From(Offset(0)), |_| Sent::At(true));
        assert_eq!(appending.await.unwrap().unwrap(), expected);
    }
    assert_eq!(pair.direct.end(&log).await.unwrap(), Offset(6));
}

/// What refuses it the second time says nothing of the first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_whose_answer_is_lost_is_not_said_to_have_done_nothing() {
    let pair = Pair::start("unsure").await;
    let log = topic("a");
    for (end, code) in (1..).zip(["53100", "42703", "57014"]) {
        let appending = pair.unanswered(&log, None).await;
        pair.server.sql(&format!(
            "CREATE OR REPLACE FUNCTION unsure.no() RETURNS trigger LANGUAGE plpgsql AS
                'BEGIN RAISE EXCEPTION SQLSTATE ''{code}''; END';
             CREATE TRIGGER no BEFORE INSERT ON unsure.topics
                FOR EACH ROW EXECUTE FUNCTION unsure.no()"
        ));
        pair.proxy.renew().await;
        let error = appending.await.unwrap().unwrap_err();
        assert!(matches!(error, BusError::Unreachable { .. }), "{error:?}");
        pair.server.sql("DROP TRIGGER no ON unsure.topics");
        assert_eq!(pair.direct.end(&log).await.unwrap(), Offset(end));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_that_is_made_after_all_is_not_made_twice() {
    let pair = Pair::on(Arc::new(Server::start_with(QUICK)), "x").await;
    let log = topic("a");
    pair.direct
        .append(&log, vec![b"zero".to_vec()])
        .await
        .unwrap();
    pair.behind.end(&log).await.unwrap();
    // Somebody holds the topic, so that the append waits in the server while its connection is lost
    // and it is made again.
    let held = pair.server.hold("BEGIN; SELECT FROM x.topics FOR UPDATE");
    let (bus, to) = (pair.behind.clone(), log.clone());
    let appending = tokio::spawn(async move { bus.append(&to, vec![b"once".to_vec()]).await });
    let waits_besides = async |other: &str| loop {
        let waiting = format!(
            "SELECT min(pid) FROM pg_locks WHERE NOT granted AND pid <> {other} HAVING min(pid) > 0"
        );
        let waiting = pair.server.sql(&waiting).trim().to_owned();
        match waiting.is_empty() {
            true => sleep(Duration::from_millis(10)).await,
            false => return waiting,
        }
    };
    let first = within("who waits", waits_besides("0")).await;
    pair.proxy.renew().await;
    within("another who waits", waits_besides(&first)).await;
    drop(held);
    let appended = within("the answer", appending).await;
    assert_eq!(appended.unwrap().unwrap(), Offset(1));
    // The other attempt is over, too.
    let busy =
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%INSERT%' AND state = 'active'";
    let over = async {
        while pair.server.sql(busy).trim() != "1" {
            sleep(Duration::from_millis(10)).await;
        }
    };
    within("the end of the other attempt", over).await;
    assert_eq!(read_all(&pair.direct, &log).await, ["zero", "once"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_and_a_listener_go_on_over_connections_that_break() {
    let pair = Pair::start("going_on").await;
    let (log, ask) = (topic("a"), topic("ask"));
    let mut tail = pair.behind.tail(vec![(log.clone(), Offset(0))]);
    let mut listener = pair.behind.listen(vec![ask.clone()]).await.unwrap();
    let mut next = 0;
    for round in 0..4 {
        pair.direct
            .append(&log, vec![b"told".to_vec(); 3])
            .await
            .unwrap();
        // What is told now is not heard.
        pair.proxy.mute();
        pair.direct
            .append(&log, vec![b"untold".to_vec(); 3])
            .await
            .unwrap();
        match round % 2 {
            0 => pair.proxy.renew().await,
            // Nobody comes through for a moment.
            _ => {
                pair.proxy.cut();
                sleep(Duration::from_millis(200)).await;
                pair.proxy.open();
            }
        }
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
        let says = round.to_string().into_bytes();
        let is_heard = async {
            loop {
                pair.direct.send(&ask, says.clone()).await.unwrap();
                let heard = tokio::time::timeout(Duration::from_millis(50), listener.next());
                if let Ok(heard) = heard.await
                    && heard.unwrap().1 == says
                {
                    return;
                }
            }
        };
        within("what is sent, to who listens", is_heard).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_way_changes_nothing_but_the_time() {
    let pair = Pair::start("slow").await;
    let (log, ask) = (topic("a"), topic("ask"));
    pair.proxy.slow(2_000, Duration::from_millis(2));
    let mut listener = pair.behind.listen(vec![ask.clone()]).await.unwrap();
    let mut tail = pair.behind.tail(vec![(log.clone(), Offset(0))]);
    for number in 0..5_u8 {
        let payload = vec![number; 40_000];
        pair.behind
            .append(&log, vec![payload.clone()])
            .await
            .unwrap();
        pair.direct.send(&ask, payload.clone()).await.unwrap();
        assert_eq!(listener.next().await.unwrap().1, payload);
        let (_, items) = tail.next().await.unwrap();
        assert_eq!((items.len(), &items[0].payload), (1, &payload));
    }
}

/// Takes about as long as an answer is waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_on_which_nothing_comes_is_given_up() {
    let pair = Pair::on(Arc::new(Server::start_with(QUICK)), "x").await;
    let log = topic("a");
    let appending = pair.unanswered(&log, None).await;
    let of_behind = "SELECT count(*) FROM pg_stat_activity
        WHERE application_name = 'sealcast' AND query LIKE '%grown%'";
    assert_eq!(pair.server.sql(of_behind).trim(), "1");
    let given_up = async {
        while pair.server.sql(of_behind).trim() != "0" {
            sleep(Duration::from_millis(100)).await;
        }
    };
    within("the connection to be given up", given_up).await;
    pair.proxy.open();
    let appended = within("the answer", appending).await;
    assert_eq!(appended.unwrap().unwrap(), Sent::From(Offset(0)));
    assert_eq!(read_all(&pair.direct, &log).await, ["once"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_there_is_named_and_used_again_when_it_is() {
    let mut server = Server::start_with(QUICK);
    let (bus, log) = (open(&server, "x").await, topic("a"));
    server.stop();
    let is_named = |error: BusError| {
        let BusError::Unreachable { place, .. } = &error else {
            panic!("{error:?}");
        };
        assert_eq!(*place, server.url("x"));
    };
    let address = address(&server.url("x"));
    let opened = PostgresBus::open(&address, &ServerOptions::default()).await;
    is_named(opened.unwrap_err());
    is_named(bus.append(&log, vec![b"lost".to_vec()]).await.unwrap_err());
    server.restart();
    let first = bus.append(&log, vec![b"one".to_vec()]).await.unwrap();
    assert_eq!(first, Offset(0));
}

/// Calls as whoever waits for something else, too: never for long.
async fn next_by_and_by(tail: &mut dyn Tail) -> Vec<Item> {
    let calling = async {
        loop {
            let next = tokio::time::timeout(Duration::from_secs(1), tail.next());
            if let Ok(Ok((_, items))) = next.await {
                return items;
            }
        }
    };
    within("the next items, by and by", calling).await
}

/// Takes about as long as an answer is waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_that_is_asked_for_moments_leaves_a_connection_on_which_nothing_comes() {
    let pair = Pair::start("moments").await;
    let log = topic("a");
    pair.direct
        .append(&log, vec![b"one".to_vec()])
        .await
        .unwrap();
    pair.behind.end(&log).await.unwrap();
    pair.proxy.hush();
    let mut tail = pair.behind.tail(vec![(log, Offset(0))]);
    assert_eq!(next_by_and_by(&mut *tail).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_that_is_asked_for_moments_brings_what_comes_slowly() {
    let pair = Pair::start("slowly").await;
    let log = topic("a");
    for number in 0..2 {
        pair.direct
            .append(&log, vec![vec![number; 600_000]])
            .await
            .unwrap();
    }
    let mut tail = pair.behind.tail(vec![(log, Offset(1))]);
    // An item takes three seconds.
    pair.proxy.slow(20_000, Duration::from_millis(100));
    let items = next_by_and_by(&mut *tail).await;
    assert_eq!((items.len(), items[0].offset), (1, Offset(1)));
}

/// Takes about as long as an answer is waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_given_up_leave_a_connection_on_which_nothing_comes() {
    let pair = Pair::start("given_up").await;
    let log = topic("a");
    pair.behind.end(&log).await.unwrap();
    pair.proxy.hush();
    let asking = async {
        loop {
            let end = tokio::time::timeout(Duration::from_secs(1), pair.behind.end(&log));
            if end.await.is_ok() {
                return;
            }
        }
    };
    within("an answer, to who asks again and again", asking).await;
}

/// Takes about as long as an answer is waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_begins_though_nothing_comes_on_another_connection() {
    let pair = Pair::start("begins").await;
    let ask = topic("ask");
    pair.behind.end(&ask).await.unwrap();
    pair.proxy.hush();
    let mut listener = pair.behind.listen(vec![ask.clone()]).await.unwrap();
    pair.direct.send(&ask, b"heard".to_vec()).await.unwrap();
    let heard = within("what is sent", listener.next()).await;
    assert_eq!(heard.unwrap().1, b"heard");
}

/// Takes about as long as an answer is waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_says_nothing_does_not_keep_from_the_next() {
    let server = shared();
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::before(server.port()).await;
    let url = format!(
        "postgres://127.0.0.1:{},127.0.0.1:{}/postgres/silent",
        silent.local_addr().unwrap().port(),
        proxy.port()
    );
    let options = ServerOptions::default();
    let bus = PostgresBus::open(&address(&url), &options).await.unwrap();
    proxy.renew().await;
    let first = bus.append(&topic("a"), vec![b"one".to_vec()]).await;
    assert_eq!(first.unwrap(), Offset(0));
}

/// What was found again is not acknowledged before the standby that the server waits for has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_that_is_found_again_waits_for_a_standby() {
    let server = Server::start_with(QUICK);
    let (bus, log) = (open(&server, "x").await, topic("a"));
    server.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    server.sql("SELECT pg_reload_conf()");
    let waiting = async |appending: &JoinHandle<_>, other: &str| {
        while !appending.is_finished() {
            let waiting = format!(
                "SELECT pid FROM pg_stat_activity
                    WHERE wait_event = 'SyncRep' AND pid <> {other} LIMIT 1"
            );
            let waiting = server.sql(&waiting).trim().to_owned();
            if !waiting.is_empty() {
                return Some(waiting);
            }
            sleep(Duration::from_millis(10)).await;
        }
        None
    };
    // The server takes over a moment later what it was told to wait for.
    let mut first = 0;
    let (appending, mut last) = loop {
        let (bus, to) = (bus.clone(), log.clone());
        let appending = tokio::spawn(async move { bus.append(&to, vec![b"once".to_vec()]).await });
        let waits = waiting(&appending, "0");
        if let Some(last) = within("who waits for a standby", waits).await {
            break (appending, last);
        }
        first += 1;
    };
    // Who is told to wait no longer says so, and answers as if it had come to its end.
    for ends in [
        "pg_cancel_backend",
        "pg_terminate_backend",
        "pg_cancel_backend",
    ] {
        server.sql(&format!("SELECT {ends}({last})"));
        let waits = within("who waits again", waiting(&appending, &last)).await;
        last = waits.expect("it waits, and is not acknowledged");
    }
    server.sql("ALTER SYSTEM RESET synchronous_standby_names");
    server.sql("SELECT pg_reload_conf()");
    let appended = within("the answer", appending).await.unwrap();
    assert_eq!(appended.unwrap(), Offset(first));
}

//! What a bus on RabbitMQ does when its server, or the way to it, breaks.

use std::sync::Arc;
use std::time::Duration;

use sealcast_brokers::rabbitmq::Server;
use sealcast_brokers::{Proxy, Trouble};
use sealcast_bus::conformance::{Writing, in_turn_amid_faults};
use sealcast_bus::{Bus, BusError, Offset, ServerOptions, Tail, Topic};
use sealcast_bus_amqp::AmqpBus;
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use crate::rig::{address, open, read_all, shared, topic, within};

fn payload(number: u64) -> Vec<u8> {
    // Every seventh does not fit in one message.
    let padding = if number % 7 == 6 { 300 << 10 } else { 100 };
    let mut payload = format!("{number} ").into_bytes();
    payload.resize(padding, b'.');
    payload
}

fn numbers(payloads: &[Vec<u8>]) -> Vec<String> {
    let number = |payload: &Vec<u8>| {
        let text = String::from_utf8_lossy(payload).into_owned();
        text.split(' ').next().unwrap_or_default().to_owned()
    };
    payloads.iter().map(number).collect()
}

/// Follows a topic until `count` items came, each once and in order.
async fn follow(mut tail: Box<dyn Tail>, count: u64) -> Vec<Vec<u8>> {
    let mut seen = Vec::new();
    while (seen.len() as u64) < count {
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
}

/// Appends an item at its place, if need be more often than a handle tries by itself.
async fn append(bus: &AmqpBus, log: &Topic, number: u64) {
    let mut is_first = true;
    loop {
        let appended = bus.append_at(log, Offset(number), vec![payload(number)]);
        match appended.await {
            Ok(true) => return,
            // An earlier attempt, of which nothing was known.
            Ok(false) if !is_first => return,
            Err(BusError::Unreachable { .. }) => is_first = false,
            other => panic!("{other:?}"),
        }
    }
}

/// Two writers of one log, and one of another, while the server is killed and stopped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_amid_appends_loses_and_doubles_nothing() {
    const ITEMS: u64 = 60;
    const BATCHES: usize = 30;
    let mut server = Server::start();
    let (own, shared_log) = (topic("a/log"), topic("both"));
    let (writer, follower) = (open(&server, "x").await, open(&server, "x").await);
    let following = tokio::spawn(follow(follower.tail(vec![(own.clone(), Offset(0))]), ITEMS));
    let (appended, mut count) = tokio::sync::watch::channel(0);
    let (bus, to) = (writer.clone(), own.clone());
    let writing = tokio::spawn(async move {
        for number in 0..ITEMS {
            append(&bus, &to, number).await;
            appended.send_replace(number);
        }
    });
    let crowd = [writer.clone(), follower].map(|bus| {
        let to = shared_log.clone();
        tokio::spawn(async move {
            let mut offsets = Vec::new();
            while offsets.len() < BATCHES {
                let number = offsets.len() as u64;
                // One that is not answered may be there or not, but not twice.
                if let Ok(first) = bus.append(&to, vec![payload(number), payload(0)]).await {
                    offsets.push(first.0);
                }
            }
            offsets
        })
    });
    for round in 1..=3 {
        let reached = count.wait_for(|count| *count >= round * 15);
        within("a quarter of the appends", reached).await.unwrap();
        // Not at a moment between two appends.
        sleep(Duration::from_millis(round * 3)).await;
        match round {
            // What it knows of streams is on its disk only some moments after the first was made.
            1 => server.stop(),
            _ => server.kill(),
        }
        server.restart();
    }
    within("the writer", writing).await.unwrap();
    let expected: Vec<Vec<u8>> = (0..ITEMS).map(payload).collect();
    assert_eq!(numbers(&read_all(&writer, &own).await), numbers(&expected));
    let followed = within("the follower", following).await.unwrap();
    assert_eq!(numbers(&followed), numbers(&expected));
    let mut placed = Vec::new();
    for writer in crowd {
        placed.extend((0..).zip(within("the crowd", writer).await.unwrap()));
    }
    let found = read_all(&writer, &shared_log).await;
    let mut places = Vec::new();
    for (number, first) in placed {
        assert_eq!(found[first as usize], payload(number));
        assert_eq!(found[first as usize + 1], payload(0));
        places.push(first);
    }
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len(), 2 * BATCHES);
}

/// Whoever follows a log while another creates it misses nothing, and neither does who listens beside
/// that: a server ends connections that use what it is about to create.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_may_be_followed_while_it_is_created() {
    const LOGS: u64 = 40;
    const ITEMS: u64 = 20;
    let server = shared();
    let (near, far) = (open(&server, "young").await, open(&server, "young").await);
    let ask = topic("ask");
    let mut listener = near.listen(vec![ask.clone()]).await.unwrap();
    for round in 0..LOGS {
        let log = topic(&format!("log/{round}"));
        let following = async {
            let items = follow(near.tail(vec![(log.clone(), Offset(0))]), ITEMS);
            within("the follower", items).await
        };
        let writing = async {
            for number in 0..ITEMS {
                far.append(&log, vec![text(number)]).await.unwrap();
                far.send(&ask, text(number)).await.unwrap();
            }
        };
        let (items, ()) = tokio::join!(following, writing);
        let expected: Vec<Vec<u8>> = (0..ITEMS).map(text).collect();
        assert_eq!(items, expected);
        for number in 0..ITEMS {
            let heard = within("what was sent", listener.next()).await;
            assert_eq!(heard.unwrap().1, text(number));
        }
    }
}

fn text(number: u64) -> Vec<u8> {
    number.to_string().into_bytes()
}

/// A handle behind a proxy, and one that sees the server as it is.
struct Pair {
    proxy: Proxy,
    behind: AmqpBus,
    direct: AmqpBus,
}

impl Pair {
    async fn start(server: &Server, prefix: &str) -> Self {
        let proxy = Proxy::before(server.port()).await;
        let url = format!("amqp://127.0.0.1:{}/{prefix}", proxy.port());
        let options = ServerOptions::default();
        Self {
            behind: AmqpBus::open(&address(&url), &options).await.unwrap(),
            direct: open(server, prefix).await,
            proxy,
        }
    }

    /// Has the server store an append whose answer does not arrive, and then does something else to
    /// the topic before the connection is made anew.
    async fn unanswered(&self, log: &Topic, meanwhile: impl AsyncFnOnce(&AmqpBus)) -> Offset {
        // It knows how the topic ends, and is connected, so that the append is all that it asks for.
        let first = self.behind.append(log, vec![b"before".to_vec()]).await;
        let end = first.unwrap().0 + 1;
        self.proxy.mute();
        let bus = self.behind.clone();
        let to = log.clone();
        let appending = tokio::spawn(async move { bus.append(&to, vec![b"once".to_vec()]).await });
        within("the append to be stored", async {
            while self.direct.end(log).await.unwrap() == Offset(end) {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        meanwhile(&self.direct).await;
        self.proxy.renew().await;
        within("the answer", appending).await.unwrap().unwrap()
    }
}

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_whose_answer_is_lost_is_found_and_not_made_again() {
    let server = shared();
    let pair = Pair::start(&server, "unanswered").await;
    let log = topic("a");
    for round in 0..2 {
        let first = pair.unanswered(&log, async |_| {}).await;
        assert_eq!(first, Offset(1 + 2 * round));
    }
    let expected = texts(&["before", "once", "before", "once"]);
    assert_eq!(read_all(&pair.direct, &log).await, expected);

    let log = topic("b");
    let others = async |bus: &AmqpBus| {
        bus.append(&log, texts(&["other", "other"])).await.unwrap();
    };
    assert_eq!(pair.unanswered(&log, others).await, Offset(1));
    let expected = texts(&["before", "once", "other", "other"]);
    assert_eq!(read_all(&pair.direct, &log).await, expected);

    let log = topic("c");
    let trim = async |bus: &AmqpBus| bus.trim(&log, Offset(u64::MAX)).await.unwrap();
    assert_eq!(pair.unanswered(&log, trim).await, Offset(1));
    assert_eq!(pair.direct.end(&log).await.unwrap(), Offset(2));
    assert_eq!(read_all(&pair.direct, &log).await, texts(&[]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_goes_on_without_a_gap_over_connections_that_break() {
    let server = shared();
    let pair = Pair::start(&server, "tail").await;
    let (log, ask) = (topic("a"), topic("ask"));
    let mut tail = pair.behind.tail(vec![(log.clone(), Offset(0))]);
    let mut listener = pair.behind.listen(vec![ask.clone()]).await.unwrap();
    let mut next = 0;
    for round in 0..3 {
        pair.direct.append(&log, vec![payload(0); 3]).await.unwrap();
        match round {
            // What is delivered now does not arrive.
            0 | 1 => pair.proxy.mute(),
            _ => pair.proxy.cut(),
        }
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
    // Who listens is heard of again by and by.
    let (heard, mut is_heard) = tokio::sync::watch::channel(false);
    let listening = tokio::spawn(async move {
        assert_eq!(listener.next().await.unwrap().1, b"again");
        heard.send_replace(true);
    });
    within("the listener", async {
        while !*is_heard.borrow_and_update() && !listening.is_finished() {
            pair.direct.send(&ask, b"again".to_vec()).await.unwrap();
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    listening.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_way_is_only_slow() {
    let server = shared();
    let pair = Pair::start(&server, "slow").await;
    let log = topic("a");
    let tail = pair.behind.tail(vec![(log.clone(), Offset(0))]);
    let following = tokio::spawn(follow(tail, 12));
    pair.proxy.slow(4_000, Duration::from_millis(2));
    for number in 0..12 {
        append(&pair.behind, &log, number).await;
    }
    let expected: Vec<Vec<u8>> = (0..12).map(payload).collect();
    assert_eq!(within("the follower", following).await.unwrap(), expected);
}

/// A large item comes however little patience whoever follows has with each call.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_that_is_asked_again_and_again_comes_on() {
    let server = shared();
    let pair = Pair::start(&server, "impatient").await;
    let log = topic("a");
    let large = vec![1; 6 << 20];
    pair.direct.append(&log, vec![large.clone()]).await.unwrap();
    let mut tail = pair.behind.tail(vec![(log, Offset(0))]);
    pair.proxy.slow(8_000, Duration::from_millis(2));
    let came = within("the large item", async {
        loop {
            if let Ok(came) = timeout(Duration::from_millis(300), tail.next()).await {
                return came;
            }
        }
    });
    let (_, items) = came.await.unwrap();
    assert!(items.len() == 1 && items[0].payload == large);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_there_is_named() {
    let url = format!("amqp://127.0.0.1:{}/x", sealcast_brokers::free_port());
    let opened = AmqpBus::open(&address(&url), &ServerOptions::default()).await;
    let error = opened.unwrap_err();
    let BusError::Unreachable { place, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(*place, url);
}

/// A server without memory stops listening to who publishes, and stores what it was sent once it has
/// memory again. Who reads is answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_memory_is_full_and_can_be_read() {
    let server = Server::start();
    let bus = open(&server, "x").await;
    let (log, fresh) = (topic("a"), topic("fresh"));
    bus.append(&log, texts(&["before"])).await.unwrap();
    server.control(&["set_vm_memory_high_watermark", "absolute", "10MB"]);
    let append = |to: &Topic, text| {
        let (bus, to, payloads) = (bus.clone(), to.clone(), texts(&[text]));
        tokio::spawn(async move { bus.append(&to, payloads).await })
    };
    // One was sent; of the other, only what makes its log.
    let appending = [append(&log, "late"), append(&fresh, "never")];
    assert_eq!(read_all(&bus, &log).await, texts(&["before"]));
    assert_eq!(bus.end(&topic("b")).await.unwrap(), Offset(0));
    let [late, never] = appending;
    let error = late.await.unwrap().unwrap_err();
    assert!(matches!(error, BusError::Unreachable { .. }), "{error:?}");
    let error = never.await.unwrap().unwrap_err();
    assert!(matches!(error, BusError::Full { .. }), "{error:?}");
    // It is known by now that nothing would be taken.
    let error = bus.append(&log, texts(&["never"])).await.unwrap_err();
    assert!(matches!(error, BusError::Full { .. }), "{error:?}");
    server.control(&["set_vm_memory_high_watermark", "0.9"]);
    within("what was sent to be stored", async {
        while bus.end(&log).await.unwrap() == Offset(1) {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    bus.append(&log, texts(&["after"])).await.unwrap();
    let expected = texts(&["before", "late", "after"]);
    assert_eq!(read_all(&bus, &log).await, expected);
    assert_eq!(bus.end(&fresh).await.unwrap(), Offset(0));
}

/// Each on a connection of its own, and none knows anything of the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_many_append_who_begin_a_log_at_once_is_all_there() {
    const WRITERS: u64 = 6;
    const ROUNDS: u64 = 8;
    let server = shared();
    for round in 0..ROUNDS {
        let log = topic(&format!("begun/{round}"));
        let mut writers = Vec::new();
        for number in 0..WRITERS {
            let bus = open(&server, "begun").await;
            let log = log.clone();
            writers.push(tokio::spawn(async move {
                let at = bus.append(&log, vec![payload(number)]).await.unwrap();
                (at.0, number)
            }));
        }
        let mut places = Vec::new();
        for writer in writers {
            places.push(writer.await.unwrap());
        }
        places.sort_unstable();
        let reader = open(&server, "begun").await;
        let found = numbers(&read_all(&reader, &log).await);
        let expected: Vec<String> = places.iter().map(|of| of.1.to_string()).collect();
        assert_eq!(found, expected, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_in_turn_are_there_in_order_and_once_over_connections_that_break() {
    let server = shared();
    let pair = Pair::start(&server, "turns").await;
    let bus = Arc::new(pair.behind.clone());
    let trouble = async |round: usize, writing: &Writing<'_>| {
        let trouble = Trouble::ALL[round];
        pair.proxy.suffer(trouble, writing.is_ahead()).await;
    };
    in_turn_amid_faults(bus, &pair.direct, Trouble::ALL.len(), trouble).await;
}

/// Whenever it ends it has appends that it has not said anything of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_in_turn_are_there_in_order_and_once_after_a_server_was_killed() {
    let server = Server::start();
    let Pair {
        proxy,
        behind,
        direct,
    } = Pair::start(&server, "x").await;
    let server = Mutex::new(server);
    let end = async |round, writing: &Writing<'_>| {
        proxy.mute();
        writing.is_ahead().await;
        let mut server = server.lock().await;
        match round {
            // What it knows of streams is on its disk only some moments after the first was made.
            0 => server.stop(),
            _ => server.kill(),
        }
        // Whoever connects while it starts is answered as soon as it is there.
        proxy.renew().await;
        server.restart();
    };
    in_turn_amid_faults(Arc::new(behind), &direct, 3, end).await;
}

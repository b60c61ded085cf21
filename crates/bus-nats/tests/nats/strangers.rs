//! What others put where a NATS bus is, and how it tells them apart.

use std::time::Duration;

use async_nats::{Client, Subscriber, jetstream};
use futures_util::StreamExt as _;
use sealcast_brokers::nats::Server;
use sealcast_bus::{Bus, BusError, Offset, ServerOptions, Topic, Turns};
use sealcast_bus_nats::NatsBus;
use tokio::time::timeout;

use crate::rig::{address, open};

/// How long to wait for what must come, however busy the machine is.
const LONG: Duration = Duration::from_secs(60);

fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

fn item(number: u64) -> Vec<u8> {
    format!("item {number}").into_bytes()
}

/// Somebody else's client of the same server.
async fn stranger(server: &Server) -> jetstream::Context {
    let url = format!("127.0.0.1:{}", server.port());
    jetstream::new(async_nats::connect(url).await.unwrap())
}

/// A subscription that the server has taken: a message behind it has come round.
async fn subscribed(client: &Client, subject: &'static str) -> Subscriber {
    let told = client.subscribe(subject).await.unwrap();
    let mark = client.new_inbox();
    let mut round = client.subscribe(mark.clone()).await.unwrap();
    client.publish(mark, "".into()).await.unwrap();
    timeout(LONG, round.next()).await.expect("the mark");
    told
}

async fn publish(context: &jetstream::Context, subject: &str, payload: Vec<u8>) {
    let ack = context
        .publish(subject.to_owned(), payload.into())
        .await
        .unwrap();
    ack.await.unwrap();
}

/// Reads one item after another, and all at once.
async fn assert_items(bus: &NatsBus, topic: &Topic, count: u64) {
    for number in 0..count {
        let items = bus.read(topic, Offset(number), 1).await.unwrap();
        let [first] = &items[..] else {
            panic!("{items:?}")
        };
        assert_eq!(
            (first.offset, &first.payload),
            (Offset(number), &item(number))
        );
    }
    let mut next = 0;
    while next < count {
        let items = bus.read(topic, Offset(next), 1 << 20).await.unwrap();
        for found in items {
            assert_eq!((found.offset, found.payload), (Offset(next), item(next)));
            next += 1;
        }
    }
    assert_eq!(bus.end(topic).await.unwrap(), Offset(count));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_belong_on_a_subject_is_passed_over() {
    let server = Server::start();
    let bus = open(&server, "x").await;
    let (log, subject) = (topic("a/b"), "x.log.a.b");
    let stranger = stranger(&server).await;
    let stream = stranger.get_stream("x").await.unwrap();
    let mut count = 0;
    for round in 0..6_u64 {
        let garbage = match round {
            0 => b"hello, is anybody there? a line that is longer than a header".to_vec(),
            1 => Vec::new(),
            2 => vec![0; 900_000],
            3 => [&b"SCN\x01\x00"[..], &[0xff; 16], &[0; 28]].concat(),
            // What the bus wrote first, and last, once more.
            4 => stream
                .get_first_raw_message_by_subject(subject, 2)
                .await
                .unwrap()
                .payload
                .to_vec(),
            _ => stream
                .get_last_raw_message_by_subject(subject)
                .await
                .unwrap()
                .payload
                .to_vec(),
        };
        publish(&stranger, subject, garbage.clone()).await;
        assert_items(&bus, &log, count).await;
        for _ in 0..3 {
            let first = bus.append(&log, vec![item(count)]).await.unwrap();
            assert_eq!(first, Offset(count));
            count += 1;
        }
        publish(&stranger, subject, garbage).await;
        // One that remembers nothing.
        assert_items(&open(&server, "x").await, &log, count).await;
        assert_items(&bus, &log, count).await;
    }
    bus.trim(&log, Offset(count - 1)).await.unwrap();
    let left = open(&server, "x")
        .await
        .read(&log, Offset(0), 1 << 20)
        .await
        .unwrap();
    assert_eq!(
        left.iter().map(|item| item.offset.0).collect::<Vec<_>>(),
        [count - 1]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hints_and_ephemeral_garbage_break_nothing() {
    let server = Server::start();
    let bus = open(&server, "x").await;
    let (log, ask) = (topic("a"), topic("ask"));
    let mut tail = bus.tail(vec![(log.clone(), Offset(0))]);
    let mut listener = bus.listen(vec![ask.clone()]).await.unwrap();
    let client = stranger(&server).await.client();
    for garbage in [vec![], vec![1], vec![0xff; 8], vec![7; 200_000]] {
        for subject in ["x.new.a", "x.now.ask"] {
            client
                .publish(subject, garbage.clone().into())
                .await
                .unwrap();
        }
    }
    client.flush().await.unwrap();
    bus.append(&log, vec![item(0)]).await.unwrap();
    assert_eq!(tail.next().await.unwrap().1[0].payload, item(0));
    for heard in [vec![], vec![1], vec![0xff; 8]] {
        assert_eq!(listener.next().await.unwrap(), (ask.clone(), heard));
    }
    bus.send(&ask, item(1)).await.unwrap();
    assert_eq!(listener.next().await.unwrap(), (ask, item(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn items_that_somebody_removed_are_damage_and_those_behind_are_read() {
    let server = Server::start();
    let bus = open(&server, "x").await;
    let log = topic("a");
    for number in 0..9 {
        bus.append(&log, vec![item(number)]).await.unwrap();
    }
    let stream = stranger(&server).await.get_stream("x").await.unwrap();
    stream.delete_message(4).await.unwrap();
    for bus in [open(&server, "x").await, bus] {
        let before = bus.read(&log, Offset(0), 1 << 20).await.unwrap();
        assert_eq!(before.last().unwrap().offset, Offset(2));
        let gone = bus.read(&log, Offset(3), 1 << 20).await;
        assert!(matches!(gone, Err(BusError::Damaged { .. })), "{gone:?}");
        let behind = bus.read(&log, Offset(4), 1 << 20).await.unwrap();
        assert_eq!(behind.len(), 5);
        assert_eq!(bus.end(&log).await.unwrap(), Offset(9));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_not_a_bus_is_refused_and_left_alone() {
    let server = Server::start();
    let stranger = stranger(&server).await;
    let config = jetstream::stream::Config {
        name: "x".into(),
        subjects: vec!["orders.>".into()],
        ..Default::default()
    };
    stranger.create_stream(config).await.unwrap();
    let opened = NatsBus::open(&address(&server.url("x")), &ServerOptions::default()).await;
    let error = opened.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("not that of a bus"), "{cause}");
    let stream = stranger.get_stream("x").await.unwrap();
    assert_eq!(stream.cached_info().config.subjects, ["orders.>"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_later_format_is_said_to_be_too_new() {
    let server = Server::start();
    let bus = open(&server, "x").await;
    publish(
        &stranger(&server).await,
        "x.log.a",
        b"SCN\x02 and so on".to_vec(),
    )
    .await;
    let error = bus.append(&topic("a"), vec![item(0)]).await.unwrap_err();
    let is_told = matches!(
        error,
        BusError::TooNew {
            found: 2,
            known: 1,
            ..
        }
    );
    assert!(is_told, "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trim_frees_the_room_of_large_appends_too() {
    let server = Server::start();
    let bus = open(&server, "x").await;
    let (inbox, other) = (topic("d/1/inbox"), topic("d/2/inbox"));
    let large = vec![vec![7; 3 << 20], vec![8; 10]];
    for log in [&inbox, &other] {
        bus.append(log, large.clone()).await.unwrap();
        bus.append(log, vec![item(0)]).await.unwrap();
    }
    let stranger = stranger(&server).await;
    let stored = async || {
        let stream = stranger.get_stream("x").await.unwrap();
        stream.cached_info().state.messages
    };
    let all = stored().await;
    // The first item is gone, but its message has another.
    bus.trim(&inbox, Offset(1)).await.unwrap();
    assert_eq!(
        bus.read(&inbox, Offset(0), 1).await.unwrap()[0].offset,
        Offset(1)
    );
    assert_eq!(stored().await, all + 1);
    bus.trim(&inbox, Offset(2)).await.unwrap();
    // One message of each log is left, with the two trims, and the parts of the other.
    assert!(stored().await <= all / 2 + 3);
    bus.trim(&inbox, Offset(3)).await.unwrap();
    assert_eq!(stored().await, all / 2 + 1);
    let found = bus.read(&other, Offset(0), usize::MAX).await.unwrap();
    assert_eq!(found[0].payload, large[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_append_that_comes_too_late_leaves_nothing() {
    let server = Server::start();
    let (first, second) = (open(&server, "x").await, open(&server, "x").await);
    let data = topic("s/1/data");
    let large = vec![vec![7; 3 << 20]];
    // The second knows how the topic ends, and is mistaken from then on.
    second.append(&data, vec![item(0)]).await.unwrap();
    first.append(&data, vec![item(1)]).await.unwrap();
    let stranger = stranger(&server).await;
    let stored = async || {
        let stream = stranger.get_stream("x").await.unwrap();
        stream.cached_info().state.messages
    };
    let all = stored().await;
    let append = second.append_at(&data, Offset(1), large.clone());
    assert!(!append.await.unwrap());
    assert_eq!(stored().await, all);
    assert!(second.append_at(&data, Offset(2), large).await.unwrap());
    assert!(stored().await > all + 1);
}

/// A message of a log as the bus writes it, with parts that lie wherever its writer says.
fn with_parts(prev: u64, first: u64, parts: &[u64]) -> Vec<u8> {
    let mut bytes = b"SCN\x01\x01".to_vec();
    bytes.extend(prev.to_be_bytes());
    bytes.extend(first.to_be_bytes());
    bytes.extend(1_u32.to_be_bytes());
    bytes.extend([0; 8 + 16]);
    bytes.extend(parts.iter().flat_map(|part| part.to_be_bytes()));
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trim_removes_nothing_of_other_topics_whatever_a_message_names_as_its_parts() {
    let server = Server::start();
    let bus = open(&server, "x").await;
    let (inbox, other) = (topic("d/1/inbox"), topic("s/1f/access/1"));
    bus.append(&other, vec![item(0)]).await.unwrap();
    bus.append(&other, vec![vec![7; 300 << 10]]).await.unwrap();
    bus.append(&inbox, vec![item(0)]).await.unwrap();
    let stranger = stranger(&server).await;
    let stream = stranger.get_stream("x").await.unwrap();
    let last = stream.cached_info().state.last_sequence;
    let forged = with_parts(last, 1, &(1..=last).collect::<Vec<_>>());
    publish(&stranger, "x.log.d.1.inbox", forged).await;
    bus.append(&inbox, vec![item(2)]).await.unwrap();
    bus.trim(&inbox, Offset(2)).await.unwrap();
    let left = bus.read(&inbox, Offset(0), 1 << 20).await.unwrap();
    assert_eq!((left.len(), &left[0].payload), (1, &item(2)));
    let bus = open(&server, "x").await;
    let first = bus.read(&other, Offset(0), 1).await.unwrap();
    assert_eq!(first[0].payload, item(0));
    let second = bus.read(&other, Offset(1), 1).await.unwrap();
    assert_eq!(second[0].payload, [7; 300 << 10]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_that_a_message_names_elsewhere_or_again_and_again_stall_nobody() {
    let server = Server::start();
    let bus = open(&server, "x").await;
    let (log, elsewhere) = (topic("a"), topic("b"));
    bus.append(&elsewhere, vec![item(0)]).await.unwrap();
    // Enough of them for what comes to come by itself.
    for number in 0..6 {
        bus.append(&log, vec![item(number)]).await.unwrap();
    }
    let stranger = stranger(&server).await;
    let mut last = {
        let stream = stranger.get_stream("x").await.unwrap();
        stream.cached_info().state.last_sequence
    };
    let mut published = async |subject: &str, payload: Vec<u8>| {
        publish(&stranger, subject, payload).await;
        last += 1;
        last
    };
    let lengths = published("x.part.a", vec![0; 4]).await;
    let mut again = vec![lengths];
    again.extend([published("x.part.a", vec![]).await; 1_000]);
    let prev = published("x.log.a", with_parts(lengths - 1, 6, &again)).await;
    published("x.log.a", with_parts(prev, 7, &[1; 1_000])).await;
    bus.append(&log, vec![item(8)]).await.unwrap();
    for bus in [open(&server, "x").await, bus] {
        let mut next = 0;
        let mut told = Vec::new();
        while next < 9 {
            let read = bus.read(&log, Offset(next), 1 << 20);
            match timeout(LONG, read).await.expect("an answer") {
                Ok(items) => {
                    told.extend(items.iter().map(|item| item.offset.0));
                    next = items.last().unwrap().offset.0 + 1;
                }
                Err(error) => {
                    assert!(matches!(error, BusError::Damaged { .. }), "{error:?}");
                    next += 1;
                }
            }
        }
        assert_eq!(told, [0, 1, 2, 3, 4, 5, 6, 8]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_at_the_end_of_a_log_does_not_have_all_of_it_read_again() {
    let server = Server::start();
    let bus = open(&server, "x").await;
    let log = topic("a");
    for number in 0..20 {
        bus.append(&log, vec![item(number)]).await.unwrap();
    }
    let stranger = stranger(&server).await;
    publish(&stranger, "x.log.a", b"garbage".to_vec()).await;
    assert_eq!(bus.end(&log).await.unwrap(), Offset(20));
    let client = stranger.client();
    let mut asked = subscribed(&client, "$JS.API.>").await;
    let mut next_asked = async || {
        let message = timeout(LONG, asked.next()).await.expect("a message");
        message.expect("a subscription").subject.to_string()
    };
    for _ in 0..3 {
        assert_eq!(bus.end(&log).await.unwrap(), Offset(20));
    }
    // Each asks for the last message, and no more. The server may show that here later than it answers.
    for _ in 0..3 {
        assert_ne!(next_asked().await, "$JS.API.mark");
    }
    client.publish("$JS.API.mark", "".into()).await.unwrap();
    assert_eq!(next_asked().await, "$JS.API.mark");
}

/// A command ends as soon as its append is acknowledged; whoever follows hears of it at once all the
/// same, and not only when it next looks.
#[test]
fn a_writer_that_ends_at_once_has_told_of_what_it_wrote() {
    const WRITERS: u64 = 30;
    let server = Server::start();
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    let listening = runtime();
    let mut told = listening.block_on(async {
        let client = async_nats::connect(format!("127.0.0.1:{}", server.port()));
        subscribed(&client.await.unwrap(), "x.new.a").await
    });
    for number in 0..WRITERS {
        let writing = runtime();
        writing.block_on(async {
            let bus = open(&server, "x").await;
            bus.append(&topic("a"), vec![item(number)]).await.unwrap();
        });
        writing.shutdown_background();
    }
    for number in 0..WRITERS {
        let next = async { timeout(LONG, told.next()).await };
        let message = listening.block_on(next).expect("it is told").unwrap();
        assert_eq!(*message.payload, (number + 1).to_be_bytes());
    }
}

/// Parts of an append that is not to be made would stay for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_append_behind_one_that_failed_leaves_nothing() {
    let server = Server::start();
    let (bus, data) = (open(&server, "x").await, topic("s/1/data"));
    bus.append(&data, vec![item(0)]).await.unwrap();
    let stranger = stranger(&server).await;
    let mut turns = Turns::default();
    let first = turns.next().await;
    first.pass();
    let turn = turns.next().await;
    drop(first);
    let large = vec![vec![7; 3 << 20].into()];
    let error = bus.append_in_turn(&data, large, turn).await.unwrap_err();
    assert!(matches!(error, BusError::OutOfTurn), "{error:?}");
    // What was sent nevertheless is there before this.
    bus.append(&data, vec![item(1)]).await.unwrap();
    let stream = stranger.get_stream("x").await.unwrap();
    assert_eq!(stream.cached_info().state.messages, 2);
}

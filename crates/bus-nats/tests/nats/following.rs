//! What comes by itself to whoever follows.

use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use sealcast_brokers::nats::Server;
use sealcast_bus::{Bus as _, Offset, Tail, Topic};
use sealcast_bus_nats::NatsBus;
use tokio::time::{sleep, timeout};

use crate::rig::open;

/// For what must come.
const PATIENCE: Duration = Duration::from_secs(120);

/// The payloads of an append, large or small, that nobody takes for another's.
fn payloads(number: u8) -> Vec<Vec<u8>> {
    // Most do not fit in one message.
    let size = if number % 4 == 3 { 100 } else { 500 << 10 };
    (0..3).map(|at| vec![number * 3 + at; size]).collect()
}

/// Takes what a tail has up to an offset, and checks it.
async fn follow(tail: &mut dyn Tail, next: &mut u64, end: u64) {
    while *next < end {
        let came = timeout(PATIENCE, tail.next()).await;
        let (_, items) = came.expect("what was appended comes").unwrap();
        for item in items {
            assert_eq!(item.offset, Offset(*next));
            let number = u8::try_from(*next / 3).unwrap();
            let wanted = &payloads(number)[(*next % 3) as usize];
            assert!(item.payload == *wanted, "another item at {next}");
            *next += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_appends_come_whole_and_in_order_one_by_one_and_many_at_once() {
    let server = Server::start();
    let (writer, reader) = (open(&server, "bus").await, open(&server, "bus").await);
    let topic = Topic::new("a").unwrap();
    let mut tail = reader.tail(vec![(topic.clone(), Offset(0))]);
    let mut next = 0;
    for number in 0..8 {
        writer.append(&topic, payloads(number)).await.unwrap();
        follow(&mut *tail, &mut next, u64::from(number + 1) * 3).await;
    }
    for number in 8..16 {
        writer.append(&topic, payloads(number)).await.unwrap();
    }
    follow(&mut *tail, &mut next, 16 * 3).await;
    // What lies behind a small one, and is asked for alone, is found, too.
    let last = reader.read(&topic, Offset(next - 1), 1).await.unwrap();
    assert_eq!(last[0].offset, Offset(next - 1));
}

/// Whoever goes on may get what had come; soon it is gone for him, too, and at once for all others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_trim_meanwhile_is_soon_not_read_though_it_has_come() {
    let server = Server::start();
    let bus = || open(&server, "bus");
    let (writer, reader, jumper) = (bus().await, bus().await, bus().await);
    let topic = Topic::new("a").unwrap();
    for number in 0..24 {
        writer.append(&topic, payloads(number)).await.unwrap();
    }
    let first = async |bus: &NatsBus, from| {
        let items = bus.read(&topic, Offset(from), 1).await.unwrap();
        items[0].offset.0
    };
    for next in 0..14 {
        assert_eq!(first(&reader, next).await, next);
        assert_eq!(first(&jumper, next).await, next);
    }
    writer.trim(&topic, Offset(68)).await.unwrap();
    for (bus, from) in [(&writer, 14), (&jumper, 2), (&bus().await, 14)] {
        assert_eq!(first(bus, from).await, 68);
    }
    let mut next = 14;
    while first(&reader, next).await == next {
        next += 1;
        assert!(next < 68, "it is not gone");
        sleep(Duration::from_millis(50)).await;
    }
}

/// An answer comes behind all that is on its way, so that whoever asked after each append would wait for most of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_come_along_does_not_ask_how_the_topic_ends_after_each_append() {
    let server = Server::start();
    let (writer, reader) = (open(&server, "bus").await, open(&server, "bus").await);
    let watching = async_nats::connect(format!("127.0.0.1:{}", server.port()));
    let watching = watching.await.unwrap();
    let topic = Topic::new("a").unwrap();
    let mut tail = reader.tail(vec![(topic.clone(), Offset(0))]);
    let mut next = 0;
    let mut asked = watching
        .subscribe("$JS.API.STREAM.MSG.GET.>")
        .await
        .unwrap();
    let mut first = 0;
    for number in 0..32 {
        if number == 16 {
            watching.flush().await.unwrap();
            first = std::iter::from_fn(|| asked.next().now_or_never()).count();
        }
        writer.append(&topic, payloads(number)).await.unwrap();
        follow(&mut *tail, &mut next, u64::from(number + 1) * 3).await;
    }
    watching.flush().await.unwrap();
    let then = std::iter::from_fn(|| asked.next().now_or_never()).count();
    // Now and then it is told of an append before that comes.
    assert!(
        first > 0 && then < 16,
        "it asked {first} times, then {then}"
    );
}

//! What others put where a bus on RabbitMQ is, and how it tells them apart.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer};
use sealcast_brokers::rabbitmq::Server;
use sealcast_bus::{Bus, BusError, Offset, Topic};
use sealcast_bus_amqp::AmqpBus;

use crate::rig::{open, read_all, shared, topic};

pub(crate) fn item(number: u64) -> Vec<u8> {
    format!("item {number}").into_bytes()
}

/// Somebody else's client of the same server.
pub(crate) struct Stranger {
    _connection: Connection,
    channel: Channel,
}

impl Stranger {
    pub(crate) async fn at(server: &Server) -> Self {
        let url = format!("amqp://guest:guest@127.0.0.1:{}/%2f", server.port());
        let connection = Connection::connect(&url, ConnectionProperties::default());
        let connection = connection.await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let confirm = channel.confirm_select(ConfirmSelectOptions::default());
        confirm.await.unwrap();
        let qos = channel.basic_qos(100, BasicQosOptions::default());
        qos.await.unwrap();
        Self {
            _connection: connection,
            channel,
        }
    }

    async fn publish(&self, exchange: &str, key: &str, payload: &[u8], headers: FieldTable) {
        let properties = BasicProperties::default().with_headers(headers);
        let options = BasicPublishOptions::default();
        let (exchange, key) = (exchange.into(), key.into());
        let published = self
            .channel
            .basic_publish(exchange, key, options, payload, properties);
        published.await.unwrap().await.unwrap();
    }

    pub(crate) async fn put(&self, queue: &str, payload: &[u8]) {
        self.publish("", queue, payload, FieldTable::default())
            .await;
    }

    async fn consume(&self, queue: &str) -> Consumer {
        let mut arguments = FieldTable::default();
        arguments.insert(
            "x-stream-offset".into(),
            AMQPValue::LongString("first".into()),
        );
        let options = BasicConsumeOptions::default();
        let consuming = self
            .channel
            .basic_consume(queue.into(), "".into(), options, arguments);
        consuming.await.unwrap()
    }

    /// The first messages of a queue.
    pub(crate) async fn take(&self, queue: &str, count: usize) -> Vec<Vec<u8>> {
        let mut consumer = self.consume(queue).await;
        let mut taken = Vec::new();
        while taken.len() < count {
            let delivery = consumer.next().await.unwrap().unwrap();
            delivery.ack(BasicAckOptions::default()).await.unwrap();
            taken.push(delivery.data);
        }
        taken
    }

    /// All messages of a queue, and where they are.
    pub(crate) async fn all(&self, queue: &str) -> Vec<(u64, Vec<u8>)> {
        // What is put last says where the end is.
        static MARKS: AtomicU64 = AtomicU64::new(0);
        let mark = format!("mark {}", MARKS.fetch_add(1, Ordering::Relaxed));
        self.put(queue, mark.as_bytes()).await;
        let mut consumer = self.consume(queue).await;
        let mut all = Vec::new();
        loop {
            let delivery = consumer.next().await.unwrap().unwrap();
            delivery.ack(BasicAckOptions::default()).await.unwrap();
            if delivery.data == mark.as_bytes() {
                return all;
            }
            let headers = delivery.properties.headers().as_ref().unwrap();
            let Some(AMQPValue::LongLongInt(at)) = headers.inner().get("x-stream-offset") else {
                panic!("{headers:?}")
            };
            all.push((u64::try_from(*at).unwrap(), delivery.data));
        }
    }

    /// The last append of a queue, and where it is.
    pub(crate) async fn last_append(&self, queue: &str) -> (u64, Vec<u8>) {
        let is_append = |(_, bytes): &(u64, Vec<u8>)| {
            bytes.starts_with(b"SCA\x01\x01") || bytes.starts_with(b"SCA\x01\x02")
        };
        let all = self.all(queue).await;
        all.into_iter().rfind(is_append).unwrap()
    }
}

/// Headers of many kinds, among them the one that the server sets itself.
fn headers() -> FieldTable {
    let mut nested = BTreeMap::new();
    nested.insert("deep".into(), AMQPValue::Timestamp(7));
    let mut headers = FieldTable::default();
    for (name, value) in [
        ("x-stream-offset", AMQPValue::LongLongInt(0)),
        ("t", AMQPValue::Boolean(true)),
        ("d", AMQPValue::Double(0.5)),
        ("v", AMQPValue::Void),
        ("F", AMQPValue::FieldTable(nested.into())),
        (
            "A",
            AMQPValue::FieldArray(vec![AMQPValue::LongInt(-1)].into()),
        ),
        ("x", AMQPValue::ByteArray(vec![0, 0xff].into())),
    ] {
        headers.insert(name.into(), value);
    }
    headers
}

/// Reads one item after another, and all at once.
async fn assert_items(bus: &AmqpBus, topic: &Topic, count: u64) {
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
    let expected: Vec<_> = (0..count).map(item).collect();
    assert_eq!(read_all(bus, topic).await, expected);
    assert_eq!(bus.end(topic).await.unwrap(), Offset(count));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_belong_in_a_queue_is_passed_over() {
    let server = shared();
    let bus = open(&server, "strange").await;
    let (log, other) = (topic("a/b"), topic("other"));
    let (queue, elsewhere) = ("strange.log.a/b", "strange.log.other");
    let stranger = Stranger::at(&server).await;
    let mut tail = bus.tail(vec![(log.clone(), Offset(0))]);
    bus.append(&other, vec![item(7)]).await.unwrap();
    let mut count = 0;
    for round in 0..6_u64 {
        let garbage = match round {
            0 => vec![b"hello, is anybody there? a line that is longer than a header".to_vec()],
            1 => vec![
                Vec::new(),
                b"SCA\x01\x01".to_vec(),
                b"SCA\x01\x07 ?".to_vec(),
            ],
            2 => vec![vec![0; 9 << 20]],
            3 => vec![[&b"SCA\x01\x01"[..], &[0xff; 40], &[0; 40]].concat()],
            // What the bus wrote, once more, from the end to the beginning.
            4 => stranger.take(queue, 12).await.into_iter().rev().collect(),
            // What it wrote elsewhere.
            _ => stranger.take(elsewhere, 2).await,
        };
        for garbage in &garbage {
            stranger.publish("", queue, garbage, headers()).await;
        }
        assert_items(&bus, &log, count).await;
        for _ in 0..3 {
            let first = bus.append(&log, vec![item(count)]).await.unwrap();
            assert_eq!(first, Offset(count));
            count += 1;
        }
        for garbage in &garbage {
            stranger.publish("", queue, garbage, headers()).await;
        }
        // One that remembers nothing.
        assert_items(&open(&server, "strange").await, &log, count).await;
        assert_items(&bus, &log, count).await;
    }
    let mut followed = 0;
    while followed < count {
        for found in tail.next().await.unwrap().1 {
            assert_eq!(found.payload, item(followed));
            followed += 1;
        }
    }
    bus.trim(&log, Offset(count - 1)).await.unwrap();
    let fresh = open(&server, "strange").await;
    assert_eq!(read_all(&fresh, &log).await, [item(count - 1)]);
}

/// A log that is long is not read from its beginning, whatever lies at its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_log_is_found_among_garbage() {
    const COUNT: u64 = 300;
    let server = shared();
    let bus = open(&server, "long").await;
    let log = topic("a");
    let stranger = Stranger::at(&server).await;
    for number in 0..COUNT {
        bus.append(&log, vec![item(number)]).await.unwrap();
        if number % 50 == 49 {
            for _ in 0..30 {
                stranger.put("long.log.a", b"rubbish").await;
            }
        }
    }
    for message in stranger.take("long.log.a", 40).await {
        stranger.put("long.log.a", &message).await;
    }
    for number in [0, 1, 149, 150, 298, 299] {
        let fresh = open(&server, "long").await;
        let items = fresh.read(&log, Offset(number), 1).await.unwrap();
        assert_eq!(
            (items[0].offset, &items[0].payload),
            (Offset(number), &item(number))
        );
        let mut tail = fresh.tail(vec![(log.clone(), Offset(number))]);
        let (_, items) = tail.next().await.unwrap();
        assert_eq!(
            (items[0].offset, &items[0].payload),
            (Offset(number), &item(number))
        );
        assert_eq!(fresh.end(&log).await.unwrap(), Offset(COUNT));
    }
    let fresh = open(&server, "long").await;
    let first = fresh.append(&log, vec![item(COUNT)]).await.unwrap();
    assert_eq!(first, Offset(COUNT));
    assert_eq!(read_all(&bus, &log).await.len() as u64, COUNT + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ephemeral_garbage_breaks_nothing() {
    let server = shared();
    let bus = open(&server, "ears").await;
    let ask = topic("ask");
    let mut listener = bus.listen(vec![ask.clone()]).await.unwrap();
    let stranger = Stranger::at(&server).await;
    for garbage in [
        vec![],
        vec![1],
        b"SCA\x01\x04".to_vec(),
        b"SCA\x01\x04\x00\x03asking too much".to_vec(),
        b"SCA\x01\x04\x00\x05other".to_vec(),
        b"SCA\x01\x04\x00\x02\xff\xff".to_vec(),
        [&b"SCA\x01\x04\x00\x03ask"[..], &[0; 1 << 20]].concat(),
    ] {
        stranger
            .publish("ears.now", "ask", &garbage, headers())
            .await;
    }
    bus.send(&ask, item(1)).await.unwrap();
    let heard = [
        listener.next().await.unwrap(),
        listener.next().await.unwrap(),
    ];
    // Whoever may publish there may send.
    let sent = [b"ing too much".to_vec(), item(1)];
    assert_eq!(heard, sent.map(|payload| (ask.clone(), payload)));
}

/// A large append whose parts are not what they were is damage, and what lies behind it is read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_as_it_was_written_is_damage() {
    let server = shared();
    let bus = open(&server, "damage").await;
    let log = topic("a");
    bus.append(&log, vec![item(0)]).await.unwrap();
    bus.append(&log, vec![vec![7; 200 << 10]]).await.unwrap();
    bus.append(&log, vec![item(2)]).await.unwrap();
    // The same queue again, but for a part.
    let stranger = Stranger::at(&server).await;
    let all = stranger.take("damage.log.a", 6).await;
    let mut arguments = FieldTable::default();
    arguments.insert(
        "x-queue-type".into(),
        AMQPValue::LongString("stream".into()),
    );
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let declared = stranger
        .channel
        .queue_declare("damaged.log.a".into(), options, arguments);
    declared.await.unwrap();
    for (index, message) in all.iter().enumerate() {
        let message = if index == 2 { &all[0] } else { message };
        stranger.put("damaged.log.a", message).await;
    }
    let bus = open(&server, "damaged").await;
    let before = bus.read(&log, Offset(0), 1 << 20).await.unwrap();
    assert_eq!(before.len(), 1);
    let gone = bus.read(&log, Offset(1), 1 << 20).await;
    assert!(matches!(gone, Err(BusError::Damaged { .. })), "{gone:?}");
    let behind = bus.read(&log, Offset(2), 1 << 20).await.unwrap();
    assert_eq!(behind[0].payload, item(2));
    assert_eq!(bus.end(&log).await.unwrap(), Offset(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_later_format_and_foreign_queues_are_refused() {
    let server = shared();
    let bus = open(&server, "later").await;
    let (log, foreign) = (topic("a"), topic("foreign"));
    bus.append(&log, vec![item(0)]).await.unwrap();
    let stranger = Stranger::at(&server).await;
    // What is not where it would belong is in nobody's way.
    let (at, mut later) = stranger.last_append("later.log.a").await;
    later[3] = 2;
    for passed_over in [&b"SCA\x02 and so on"[..], &later] {
        stranger.put("later.log.a", passed_over).await;
    }
    let fresh = open(&server, "later").await;
    assert_eq!(fresh.end(&log).await.unwrap(), Offset(1));
    let id: [u8; 16] = later[49..65].try_into().unwrap();
    later[5..13].copy_from_slice(&at.to_be_bytes());
    later[13..29].copy_from_slice(&id);
    later[29..37].copy_from_slice(&1_u64.to_be_bytes());
    stranger.put("later.log.a", &later).await;
    let fresh = open(&server, "later").await;
    let error = fresh.append(&log, vec![item(1)]).await.unwrap_err();
    let is_told = matches!(
        error,
        BusError::TooNew {
            found: 2,
            known: 1,
            ..
        }
    );
    assert!(is_told, "{error:?}");

    // A queue that is no stream is left as it is.
    let declared = stranger.channel.queue_declare(
        "later.log.foreign".into(),
        QueueDeclareOptions::default(),
        FieldTable::default(),
    );
    declared.await.unwrap();
    stranger.put("later.log.foreign", b"theirs").await;
    let error = bus.append(&foreign, vec![item(0)]).await.unwrap_err();
    assert!(
        matches!(error, BusError::Unreachable { .. } | BusError::Backend(_)),
        "{error:?}"
    );
    let deleted = stranger
        .channel
        .queue_delete("later.log.foreign".into(), QueueDeleteOptions::default());
    assert_eq!(deleted.await.unwrap(), 1);
    // Whoever deletes a log has deleted it.
    let deleted = stranger
        .channel
        .queue_delete("later.log.a".into(), QueueDeleteOptions::default());
    deleted.await.unwrap();
    assert_eq!(
        open(&server, "later").await.end(&log).await.unwrap(),
        Offset(0)
    );
}

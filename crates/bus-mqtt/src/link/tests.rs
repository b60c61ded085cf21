//! What a client does with a broker that is slow to take what it is sent, or that sends much.

use std::future::Future;

use sealcast_bus::{BusUrl, ServerOptions};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use super::*;
use crate::packet::{Version, put_publish, split_head};

/// How long something may take before it counts as hung.
const HUNG_AFTER: Duration = Duration::from_secs(120);

async fn in_time<T>(what: &str, waiting: impl Future<Output = T>) -> T {
    let waited = timeout(HUNG_AFTER, waiting).await;
    waited.unwrap_or_else(|_| panic!("waited for {what}"))
}

/// Where a broker is to be, and how it is called there.
async fn listening() -> (TcpListener, Dial) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = BusUrl::parse(&format!("mqtt://127.0.0.1:{port}/x")).unwrap();
    let dial = Dial::new(url.server().unwrap(), &ServerOptions::default()).unwrap();
    (listener, dial)
}

fn client() -> Client {
    Client {
        id: "sc".into(),
        kept_for: 60,
    }
}

/// A broker that lets a client in and does nothing else by itself.
struct Broker {
    stream: TcpStream,
    bytes: BytesMut,
}

impl Broker {
    /// One with a client whose session lasts, and what happens to that.
    async fn with_client() -> (Self, Link, mpsc::UnboundedReceiver<Event>) {
        let (listener, dial) = listening().await;
        let (events_tx, events) = mpsc::unbounded_channel();
        let opening = Link::open(dial, client(), move |event| drop(events_tx.send(event)));
        let both = async { tokio::join!(Self::let_in(&listener), opening) };
        let (broker, link) = in_time("a connection", both).await;
        (broker, link.unwrap(), events)
    }

    async fn let_in(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().await.unwrap();
        let bytes = BytesMut::new();
        let mut broker = Self { stream, bytes };
        broker.packet().await;
        broker.say(b"\x20\x03\x00\x00\x00").await;
        broker
    }

    async fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    async fn send(&mut self, id: u16, publish: &Publish) {
        let mut bytes = BytesMut::new();
        put_publish(Version::Five, (id, false), publish, &mut bytes);
        self.say(&bytes).await;
    }

    /// The kind and the content of what the client sends next.
    async fn packet(&mut self) -> (u8, Bytes) {
        loop {
            if let Some((first, head, length)) = split_head(&self.bytes).unwrap()
                && self.bytes.len() >= head + length
            {
                self.bytes.advance(head);
                return (first >> 4, self.bytes.split_to(length).freeze());
            }
            let count = self.stream.read_buf(&mut self.bytes).await.unwrap();
            assert!(count > 0, "the client is there");
        }
    }

    /// The content of the next packet of a kind.
    async fn next_of(&mut self, kind: u8) -> Bytes {
        loop {
            let (found, content) = in_time("a packet", self.packet()).await;
            if found == kind {
                return content;
            }
        }
    }
}

fn publish(bytes: usize) -> Publish {
    Publish {
        topic: "x/log/a".into(),
        payload: vec![7; bytes].into(),
        is_retained: false,
    }
}

async fn message(events: &mut mpsc::UnboundedReceiver<Event>) -> (Receipt, Held) {
    loop {
        let event = in_time("a message", events.recv()).await.unwrap();
        if let Event::Message { receipt, held, .. } = event {
            return (receipt, held);
        }
    }
}

#[tokio::test]
async fn what_came_is_acknowledged_while_nothing_more_may_set_out() {
    const PUBLISH: u8 = 3;
    const PUBLISH_DONE: u8 = 4;
    let (mut broker, link, mut events) = Broker::with_client().await;
    let mut flying = Vec::new();
    for _ in 0..FLIGHT_MAX {
        flying.push(link.set_out(publish(1)).await.unwrap());
        broker.next_of(PUBLISH).await;
    }
    // The next one has to wait.
    flying.push(link.set_out(publish(1)).await.unwrap());
    broker.send(7, &publish(1)).await;
    let (receipt, _) = message(&mut events).await;
    link.acknowledge(receipt);
    assert_eq!(broker.next_of(PUBLISH_DONE).await[..2], [0, 7]);
}

#[tokio::test]
async fn no_more_is_read_than_there_is_room_for() {
    const BYTES: usize = 512 << 10;
    const COUNT: usize = 120;
    let (mut broker, _link, mut events) = Broker::with_client().await;
    let sending = tokio::spawn(async move {
        for id in 1..=COUNT {
            broker
                .send(u16::try_from(id).unwrap(), &publish(BYTES))
                .await;
        }
        broker
    });
    let fit = IN_BYTES_MAX / (BYTES + MESSAGE_COST + 7);
    let mut held = Vec::new();
    while held.len() < fit {
        held.push(message(&mut events).await);
    }
    // What would be read too much might still be on its way.
    sleep(Duration::from_millis(300)).await;
    assert!(events.try_recv().is_err(), "more than there is room for");
    drop(held);
    for _ in fit..COUNT {
        message(&mut events).await;
    }
    in_time("the rest", sending).await.unwrap();
}

#[tokio::test]
async fn nothing_is_subscribed_to_for_who_waits_no_more() {
    const SUBSCRIBE: u8 = 8;
    let (listener, dial) = listening().await;
    let link = Link::begin(dial, client(), |_| ());
    for number in 0..3 {
        let filters = [Filter::from(format!("early/{number}"))];
        let waited = timeout(Duration::from_millis(10), link.subscribe(&filters)).await;
        assert!(waited.is_err(), "nobody lets it in");
    }
    let mut broker = in_time("a connection", Broker::let_in(&listener)).await;
    let filters = [Filter::from("late".to_owned())];
    let subscribing = link.subscribe(&filters);
    let asked = async {
        let asked = broker.next_of(SUBSCRIBE).await;
        asked.windows(4).any(|bytes| bytes == b"late")
    };
    tokio::select! {
        _ = subscribing => panic!("nobody answers"),
        is_late = asked => assert!(is_late, "it subscribes to what nobody waits for"),
    }
}

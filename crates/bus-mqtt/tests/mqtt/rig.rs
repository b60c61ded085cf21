//! Handles of buses on brokers of tests.

use std::path::Path;
use std::time::Duration;

use sealcast_brokers::mosquitto::Server;
use sealcast_bus::{Bus, BusUrl, FileBus, Listener, Offset, ServerAddress, ServerOptions, Topic};
use sealcast_bus_mqtt::MqttBus;
use tempfile::TempDir;
use tokio::time::timeout;

/// A home with a handle of its bus.
pub(crate) struct Home {
    pub(crate) folder: TempDir,
    pub(crate) bus: MqttBus,
}

impl Home {
    pub(crate) async fn on(server: &Server, name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bus = open(server, name, folder.path()).await;
        Self { folder, bus }
    }
}

/// Opens a bus for a home that hands out what has passed.
pub(crate) async fn open_archive(server: &Server, name: &str, folder: &Path) -> MqttBus {
    let mut options = ServerOptions::default();
    options.serves_history = true;
    let address = address(&server.url(name));
    MqttBus::open(&address, &options, folder).await.unwrap()
}

pub(crate) async fn open(server: &Server, name: &str, folder: &Path) -> MqttBus {
    open_at(&server.url(name), folder).await
}

pub(crate) async fn open_at(url: &str, folder: &Path) -> MqttBus {
    MqttBus::open(&address(url), &ServerOptions::default(), folder)
        .await
        .unwrap()
}

pub(crate) fn address(url: &str) -> ServerAddress {
    BusUrl::parse(url).unwrap().server().unwrap().clone()
}

pub(crate) fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

pub(crate) async fn put(bus: &dyn Bus, topic: &Topic, text: impl ToString) -> Offset {
    let payload = text.to_string().into_bytes();
    bus.append(topic, vec![payload]).await.unwrap()
}

/// All that a home has of a topic, in its order.
pub(crate) async fn all(bus: &dyn Bus, topic: &Topic) -> Vec<String> {
    let (mut texts, mut next) = (Vec::new(), Offset(0));
    loop {
        let items = bus.read(topic, next, 1 << 20).await.unwrap();
        let Some(last) = items.last() else {
            return texts;
        };
        next = Offset(last.offset.0 + 1);
        let text = |payload: Vec<u8>| String::from_utf8_lossy(&payload).into_owned();
        texts.extend(items.into_iter().map(|item| text(item.payload)));
    }
}

/// How long something may take before it counts as hung.
pub(crate) const HUNG_AFTER: Duration = Duration::from_secs(180);

/// Waits until a home has so many items of a topic, and returns them.
pub(crate) async fn wait_for(bus: &dyn Bus, topic: &Topic, count: usize) -> Vec<String> {
    let waited = timeout(HUNG_AFTER, follow(bus, topic, count)).await;
    waited.expect("it does not hang")
}

async fn follow(bus: &dyn Bus, topic: &Topic, count: usize) -> Vec<String> {
    let mut tail = bus.tail(vec![(topic.clone(), Offset(0))]);
    let mut texts = Vec::new();
    while texts.len() < count {
        // An error loses nothing: the next call goes on.
        let Ok((_, items)) = tail.next().await else {
            continue;
        };
        for item in items {
            assert_eq!(item.offset, Offset(texts.len() as u64));
            texts.push(String::from_utf8_lossy(&item.payload).into_owned());
        }
    }
    texts
}

/// Where a home sees a topic end, however long its mirror takes to have all of it.
pub(crate) async fn end_surely(bus: &dyn Bus, topic: &Topic) -> Offset {
    let asking = async {
        loop {
            if let Ok(end) = bus.end(topic).await {
                return end;
            }
        }
    };
    let asked = timeout(HUNG_AFTER, asking).await;
    asked.expect("a home comes to have all")
}

/// Waits until a home has dealt with what its broker had lost when it came, which it notes from an offset on.
pub(crate) async fn wait_until_marked(folder: &Path, from: Offset) {
    let own = FileBus::open(folder.join("own")).await.unwrap();
    let mut tail = own.tail(vec![(topic("mark"), from)]);
    let marked = timeout(HUNG_AFTER, tail.next()).await;
    marked.expect("a home leaves a mark").unwrap();
}

/// What a listener hears next.
pub(crate) async fn hear(listener: &mut dyn Listener) -> String {
    let heard = timeout(HUNG_AFTER, listener.next()).await;
    let (_, payload) = heard.expect("it hears something").unwrap();
    String::from_utf8_lossy(&payload).into_owned()
}

pub(crate) fn sorted(mut texts: Vec<String>) -> Vec<String> {
    texts.sort();
    texts
}

/// `A 000`, `A 001`, …
pub(crate) fn numbered(name: &str, count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("{name} {number:03}"))
        .collect()
}

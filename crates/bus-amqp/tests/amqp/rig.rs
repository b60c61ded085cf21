//! A server for all tests that leave it as it is, each with a prefix of its own.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use sealcast_brokers::rabbitmq::Server;
use sealcast_bus::Bus;
use sealcast_bus::{BusUrl, Offset, ServerAddress, ServerOptions, Topic};
use sealcast_bus_amqp::AmqpBus;
use tokio::time::timeout;

/// How long something may take that must come, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(180);

static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());

/// The server of all who do not stop it; it ends with the last of them.
pub(crate) fn shared() -> Arc<Server> {
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(server) = shared.upgrade() {
        return server;
    }
    let server = Arc::new(Server::start());
    *shared = Arc::downgrade(&server);
    server
}

pub(crate) fn address(url: &str) -> ServerAddress {
    BusUrl::parse(url).unwrap().server().unwrap().clone()
}

pub(crate) async fn open(server: &Server, prefix: &str) -> AmqpBus {
    let address = address(&server.url(prefix));
    AmqpBus::open(&address, &ServerOptions::default())
        .await
        .unwrap()
}

pub(crate) fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

/// Everything that a log holds.
pub(crate) async fn read_all(bus: &dyn Bus, topic: &Topic) -> Vec<Vec<u8>> {
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

/// Waits for what must come.
pub(crate) async fn within<T>(what: &str, coming: impl Future<Output = T>) -> T {
    let Ok(came) = timeout(PATIENCE, coming).await else {
        panic!("waited for {what}");
    };
    came
}

//! Buses on a server that a test started.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use sealcast_brokers::postgres::Server;
use sealcast_bus::{BusUrl, ServerAddress, ServerOptions, Topic};
use sealcast_bus_postgres::PostgresBus;
use tokio::time::timeout;

/// Of a server whose disk nobody will take away.
pub(crate) const QUICK: &str = "fsync = off";

/// The server of all tests that need none of their own: each has a schema of its own there. It ends
/// when nobody needs it any more.
pub(crate) fn shared() -> Arc<Server> {
    static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let server = Arc::new(Server::start_with(QUICK));
        *shared = Arc::downgrade(&server);
        server
    })
}

pub(crate) fn address(url: &str) -> ServerAddress {
    BusUrl::parse(url).unwrap().server().unwrap().clone()
}

pub(crate) async fn open(server: &Server, name: &str) -> PostgresBus {
    let address = address(&server.url(name));
    PostgresBus::open(&address, &ServerOptions::default())
        .await
        .unwrap()
}

pub(crate) fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

/// How long to wait for what must come, however busy the machine is.
const WITHIN: Duration = Duration::from_secs(180);

/// Waits for something, and not for ever.
pub(crate) async fn within<T>(what: &str, awaited: impl Future<Output = T>) -> T {
    let came = timeout(WITHIN, awaited).await;
    came.unwrap_or_else(|_| panic!("it never comes: {what}"))
}

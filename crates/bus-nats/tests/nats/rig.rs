//! Handles of buses on servers of tests.

use std::time::Duration;

use sealcast_brokers::nats::Server;
use sealcast_bus::{BusUrl, ServerAddress, ServerOptions};
use sealcast_bus_nats::NatsBus;
use tokio::time::timeout;

/// How long to wait for what must come, however busy the machine is.
const WITHIN: Duration = Duration::from_secs(180);

/// Waits for something, and not for ever.
pub(crate) async fn within<T>(what: &str, awaited: impl Future<Output = T>) -> T {
    let came = timeout(WITHIN, awaited).await;
    came.unwrap_or_else(|_| panic!("it never comes: {what}"))
}

pub(crate) async fn open(server: &Server, name: &str) -> NatsBus {
    let address = address(&server.url(name));
    NatsBus::open(&address, &ServerOptions::default())
        .await
        .unwrap()
}

pub(crate) fn address(url: &str) -> ServerAddress {
    BusUrl::parse(url).unwrap().server().unwrap().clone()
}

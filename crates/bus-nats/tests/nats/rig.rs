//! Handles of buses on servers of tests.

use sealcast_brokers::nats::Server;
use sealcast_bus::{BusUrl, ServerAddress, ServerOptions};
use sealcast_bus_nats::NatsBus;

pub(crate) async fn open(server: &Server, name: &str) -> NatsBus {
    let address = address(&server.url(name));
    NatsBus::open(&address, &ServerOptions::default())
        .await
        .unwrap()
}

pub(crate) fn address(url: &str) -> ServerAddress {
    BusUrl::parse(url).unwrap().server().unwrap().clone()
}

//! Appends that set out before the ones ahead are answered, while the server or the way to it breaks.

use std::sync::Arc;

use sealcast_brokers::postgres::Server;
use sealcast_brokers::{Proxy, Trouble};
use sealcast_bus::ServerOptions;
use sealcast_bus::conformance::{Writing, in_turn_amid_faults};
use sealcast_bus_postgres::PostgresBus;
use tokio::sync::Mutex;

use crate::rig::{QUICK, address, open, shared};

/// A handle of a bus behind a proxy.
async fn behind(server: &Server, name: &str) -> (Proxy, Arc<PostgresBus>) {
    let proxy = Proxy::before(server.port()).await;
    let url = format!("postgres://127.0.0.1:{}/postgres/{name}", proxy.port());
    let opened = PostgresBus::open(&address(&url), &ServerOptions::default()).await;
    (proxy, Arc::new(opened.unwrap()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_in_turn_are_there_in_order_and_once_over_connections_that_break() {
    let server = shared();
    let (proxy, bus) = behind(&server, "turns").await;
    let other = open(&server, "turns").await;
    let trouble = async |round: usize, writing: &Writing<'_>| {
        let trouble = Trouble::ALL[round];
        proxy.suffer(trouble, writing.is_ahead()).await;
    };
    in_turn_amid_faults(bus, &other, Trouble::ALL.len(), trouble).await;
}

/// Whenever it is killed it has appends that it has not said anything of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_in_turn_are_there_in_order_and_once_after_a_server_was_killed() {
    let server = Server::start_with(QUICK);
    let (proxy, bus) = behind(&server, "x").await;
    let other = open(&server, "x").await;
    let server = Mutex::new(server);
    let kill = async |_, writing: &Writing<'_>| {
        proxy.mute();
        writing.is_ahead().await;
        let mut server = server.lock().await;
        server.kill();
        proxy.renew().await;
        server.restart();
    };
    in_turn_amid_faults(bus, &other, 3, kill).await;
}

//! An MQTT bus keeps the contract of every bus, among the handles of one home.

use std::sync::atomic::{AtomicU32, Ordering};

use sealcast_brokers::mosquitto::Server;
use sealcast_bus::conformance;

use crate::rig::open;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_bus_conforms() {
    let server = Server::start();
    let count = AtomicU32::new(0);
    conformance::run(
        async || {
            let name = format!("case-{}", count.fetch_add(1, Ordering::Relaxed));
            (name, tempfile::tempdir().unwrap())
        },
        async |(name, folder)| open(&server, name, folder.path()).await,
    )
    .await;
}

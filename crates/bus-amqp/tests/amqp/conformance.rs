//! A bus on RabbitMQ keeps the contract of every bus.

use std::sync::atomic::{AtomicU32, Ordering};

use sealcast_bus::conformance;

use crate::rig::{open, shared};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn amqp_bus_conforms() {
    let server = shared();
    let count = AtomicU32::new(0);
    conformance::run(
        async || format!("case-{}", count.fetch_add(1, Ordering::Relaxed)),
        async |prefix| open(&server, prefix).await,
    )
    .await;
}

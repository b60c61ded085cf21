//! The file bus keeps the contract of every bus.
#![cfg(test)]
#![cfg(feature = "conformance")]

use sealcast_bus::{FileBus, conformance};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_bus_conforms() {
    conformance::run(
        async || tempfile::tempdir().unwrap(),
        async |folder| FileBus::open(folder.path()).await.unwrap(),
    )
    .await;
}

//! The memory store keeps the contract.
#![cfg(feature = "conformance")]

use sealcast_store::{MemoryStore, conformance};

#[test]
fn the_memory_store_conforms() {
    conformance::run(MemoryStore::default);
}

#[test]
fn two_handles_of_a_memory_store_conform() {
    conformance::run_shared(|| {
        let store = MemoryStore::default();
        (store.clone(), store)
    });
}

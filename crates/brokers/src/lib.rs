//! Real servers for tests and benchmarks: each on a free port of this machine, with data of its own,
//! and ended with the value that stands for it, or with the process. And a bad way to a server, to be put before it.
//!
//! A server that is not installed is a panic that says what to install. All that is here panics where
//! it cannot do what it is told: it is for tests.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that lacks its server fails loudly"
)]

mod process;
mod proxy;
mod tap;

pub mod mosquitto;
pub mod nats;
#[cfg(unix)]
pub mod pgbouncer;
#[cfg(unix)]
pub mod postgres;
pub mod rabbitmq;

pub use process::{Process, free_port};
pub use proxy::{Proxy, Trouble};
pub use tap::Tap;

/// A Python with the clients of brokers that `vectors/requirements.txt` names, made by `cargo xtask tools`.
pub const PYTHON: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../target/python/bin/python"
);

/// Where the clients of brokers are that `crates/brokers/package.json` names, installed by `cargo xtask tools`, for Node.js.
pub const NODE_MODULES: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../target/node/node_modules"
);

//! The long-running client: `sealcast agent`.
//!
//! An [`Agent`] serves one home until it is told to stop. It opens every stream of the home, those
//! that are joined meanwhile included, takes keys in, hands out what others are owed, copies
//! ciphertext to an archive where told to, and answers on a Unix socket in the home, through which
//! the command line sees the same as the agent does ([`AgentClient`]). On loopback it says how it is
//! (`/healthz`) and what it counts (`/metrics`).
//!
//! Nothing here holds a key: the library below does. What is logged are ids and counts.

mod api;
mod archive;
mod attend;
mod backoff;
mod client;
mod config;
mod decisions;
mod host;
mod hub;
mod line;
mod listen;
mod lock;
mod metrics;
mod questions;
mod reference;
mod requests;
mod run;
mod server;
mod subscribers;

pub use api::{
    API, ArchiveStatus, BusStatus, Contact, Fault, HomeInfo, Standing, Status, StreamStatus,
};
pub use client::{AgentClient, ClientError, Messages};
pub use config::{AgentConfig, Config, DecisionPolicy, FILE_NAME, LogFormat, LogLevel};
pub use line::{
    BusState, DeliveryLine, LineError, StreamLine, base64_of, parked_code, reason_code, rfc3339,
    state_code,
};
pub use requests::{Approved, PendingRequest, Requests, Wanted};
pub use run::{Agent, StartError};
pub use server::ServerError;

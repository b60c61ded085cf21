//! Version 1 of every format. `lib.rs` re-exports it as the latest.

pub(crate) mod asking;
pub(crate) mod audit;
pub(crate) mod batch;
pub(crate) mod bundle;
pub(crate) mod deal;
pub(crate) mod device;
pub(crate) mod device_list;
pub(crate) mod envelope;
pub(crate) mod export;
pub(crate) mod fallback;
pub(crate) mod frame;
pub(crate) mod header;
pub(crate) mod item;
pub(crate) mod log_approvals;
pub(crate) mod log_clock;
pub(crate) mod log_entry;
pub(crate) mod log_graph;
pub(crate) mod log_key_nodes;
pub(crate) mod log_rules;
pub(crate) mod log_state;
pub(crate) mod node_request;
pub(crate) mod pairing;
pub(crate) mod session;
pub(crate) mod ticket;

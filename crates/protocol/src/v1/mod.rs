//! Version 1 of every format. `lib.rs` re-exports it as the latest.

pub(crate) mod bundle;
pub(crate) mod device;
pub(crate) mod device_list;
pub(crate) mod envelope;
pub(crate) mod frame;
mod log_entry;
mod log_state;
pub(crate) mod session;
pub(crate) mod ticket;

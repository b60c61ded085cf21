//! Version 1 of every format. `lib.rs` re-exports it as the latest.

mod bundle;
mod device;
mod envelope;
mod frame;
mod log_entry;
mod log_state;
mod session;
mod ticket;

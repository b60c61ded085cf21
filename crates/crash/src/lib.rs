//! For tests alone: crashes, failing disks, and what must hold after them.
//!
//! - [`Watch`] stands between SQLite and the files below a folder. It records what is written, synced
//!   and removed, and lets any call fail.
//! - A [`Recording`] makes an [`Image`] of what a disk may hold after a crash at any moment of it.
//! - [`Sent`] says whether one message key sealed two plaintexts.
//! - [`Chance`] repeats a run by its seed.
//!
//! Nothing below needs to know of it: once a watch was begun, every connection that the process opens
//! goes through this crate to SQLite's own file system.

#![cfg(unix)]

mod chance;
mod record;
mod sent;
mod vfs;
mod watch;

pub use chance::Chance;
pub use record::{Image, Loss, Recording};
pub use sent::Sent;
pub use watch::{Fault, Lasting, Watch};

//! For tests alone: crashes, failing disks, and what must hold after them.
//!
//! - [`Sent`] says whether one message key sealed two plaintexts.
//! - [`Chance`] repeats a run by its seed.

mod chance;
mod sent;

pub use chance::Chance;
pub use sent::Sent;

//! What travels: formats, their verification, and the access log.
//!
//! Every control object is deterministic CBOR inside a signed wrapper (`spec/encoding.md`); an
//! envelope is a fixed header and bytes (`spec/envelope.md`). Bytes become trusted in steps, each
//! consuming the one before:
//!
//! ```text
//! &[u8] ── decode ──► Unverified<T> ── verify(key) ──► Verified<T>
//! ```
#![no_std]
extern crate alloc;

mod encoding;
mod ids;
mod signed;
mod v1;

pub use encoding::{DecodeError, decode, encode};
pub use ids::{DeviceId, EnvelopeHash, InstanceId, LogHash, SessionId, StreamId, UserId};
pub use ids::{IdError, Interval, Position, StreamTopics};
pub use signed::{Signable, Unverified, Verified, VerifyError, sign};

//! Key nodes, `spec/key-nodes.md`: servers of which enough together release the keys of segments.
//!
//! ```text
//!   Combiner                                       Releaser, on each node
//!     │ request ──► d/<node>/inbox ───────────────►  │ signature, freshness, replay
//!     │                                              │ ReadLog ⇄ LogRead
//!     │                                              │ address, log, right, condition, rate
//!     │                                              │ Keep(audit entry)
//!     │ answer, refusal ◄── d/<device>/inbox ◄───────│ Release, Refuse
//!     │   enough of them: Take
//! ```
//!
//! Both machines are driven as those of [`asking`](crate::Asker): hand in what happened, drain
//! `poll_output`, come back with `Tick` when `next_timeout` says so. They hold neither clock nor
//! randomness nor signing keys.

mod combiner;
mod flight;
mod judge;
mod memory;
mod node;
mod plan;
mod waiting;

pub use combiner::{
    Combiner, CombinerEvent, CombinerInput, CombinerLimits, CombinerOutput, Unreleased,
};
pub use node::{Releaser, ReleaserInput, ReleaserLimits, ReleaserOutput, answer_request};

/// How far another clock may be off, in milliseconds: two minutes.
const SKEW_MS: u64 = 120_000;

//! Key nodes: n servers, of which k together open a segment of a key tree (`spec/key-nodes.md`).
//!
//! A [`LaneSecret`] is dealt to the nodes as [`NodeShare`]s, each checked against the public
//! [`Dealing`]. A node answers for segments; a [`Quorum`] checks the answers, names who lies, and
//! opens with k of them what [`SegmentKey::seal`] sealed.

mod deal;
mod group;
mod proof;
mod quorum;
mod segment;
mod share;

pub use deal::{
    DealError, Dealing, DealingError, LaneSecret, NODES_MAX, NodeIndex, PepperCommitment,
};
pub use quorum::{AnswerError, Opened, Quorum, TooFewAnswers};
pub use segment::{SEALED_SEGMENT_LEN, SEGMENT_HEIGHTS, SegmentKey, SegmentLabel, segments};
pub use share::{NodeShare, ShareError, answer_len};

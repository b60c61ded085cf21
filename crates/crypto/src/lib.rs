//! Keys of a stream: digests, signatures, the key tree, sealing of messages, wrapping of keys and
//! sealing of what the store keeps. Bytes in, bytes out: no formats, no policy, no I/O.
//!
//! A session has one random [`SessionRoot`]. A [`Cover`] is the right to read an interval of its
//! positions, a [`Walker`] derives the [`Leaf`] of one position from it, and a [`MessageKey`] is
//! derived from a leaf and all that is known about the message:
//!
//! ```
//! use sealcast_crypto::{Cover, MessageContext, MessageKey, SessionRoot, Walker};
//!
//! let root = SessionRoot::init_with(|bytes| bytes.fill(7)); // drawn at random in earnest
//! let context = MessageContext { stream: &[1; 32], topic: b"", header: &[2; 72] };
//!
//! let mut publisher = Walker::new(Cover::whole(&root));
//! let leaf = publisher.leaf(1_000).ok_or("outside")?;
//! let sealed = MessageKey::derive(&leaf, &context).seal(&context, b"21.5 C".to_vec());
//!
//! let mut reader = Walker::new(Cover::from_root(&root, 900, 1_100));
//! assert!(reader.leaf(1_100).is_none());
//! let leaf = reader.leaf(1_000).ok_or("outside")?;
//! assert_eq!(MessageKey::derive(&leaf, &context).open(&context, &sealed)?, b"21.5 C");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Randomness comes from the caller. Secrets are wiped when dropped, print only their name, and
//! are copied by `duplicate` and read by `expose` alone. What is computed is specified in
//! `spec/primitives.md`, `spec/key-tree.md` and
//! `spec/key-nodes.md`.
#![no_std]
extern crate alloc;

mod backend;
mod cover;
mod digest;
mod message;
mod nodes;
mod pairing;
mod points;
mod secret;
mod sign;
mod stack;
mod store;
mod tree;
mod verifier;
mod walker;
mod wrap;

#[cfg(test)]
mod seeded;

pub use cover::{Cover, CoverError};
pub use digest::{Digest, bulk_digest, delimited, digest};
pub use message::{COMMITMENT_LEN, HEADER_LEN, MessageContext, MessageKey, OpenError, TAG_LEN};
pub use nodes::{
    AnswerError, DealError, Dealing, DealingError, LaneSecret, NODES_MAX, NodeIndex, NodeShare,
    Opened, PepperCommitment, Quorum, SEALED_SEGMENT_LEN, SEGMENT_HEIGHTS, SegmentKey,
    SegmentLabel, ShareError, TooFewAnswers, answer_len, segments,
};
pub use pairing::PairingKey;
pub use secret::{SecretBytes, wipe};
pub use sign::{KeyError, Signature, SignatureError, SigningKey, VerifyingKey};
pub use stack::leaving_no_trace;
pub use store::StoreKey;
pub use tree::{COVER_NODES_MAX, NodeId, NodeKey, POSITION_BITS, POSITION_END, SessionRoot, cover};
pub use verifier::Verifier;
pub use walker::{Leaf, Walker};
pub use wrap::{
    UnwrapError, UnwrapKey, WRAP_KEY_LEN, WRAP_OVERHEAD, WrapError, WrapKey, WrapKeyError,
};

//! Requests to key nodes, their answers and refusals, `spec/key-nodes.md`.

use alloc::vec::Vec;
use core::fmt;

use minicbor::{CborLen, Decode, Encode};
use rand_core::CryptoRng;
use sealcast_crypto::{
    NodeIndex, NodeShare, SecretBytes, SegmentLabel, UnwrapKey, WRAP_KEY_LEN, WRAP_OVERHEAD,
    WrapError, WrapKey, WrapKeyError, answer_len, delimited,
};

use crate::encoding::{DecodeError, encode};
use crate::ids::{DealId, DeviceId, LogHash, Position, RequestId, SessionId, StreamId, UserId};
use crate::signed::{Signable, Verified};
use crate::v1::asking::{REQUEST_LIFETIME_MS_MAX, check_version, in_range};
use crate::v1::deal::Segment;
use crate::v1::device::wrap_key_hash;
use crate::v1::device_list::ListPin;
use crate::v1::log_key_nodes::KeyNode;
use crate::v1::session::heads_in_range;

/// Most segments of one request.
pub const SEGMENTS_MAX: usize = 128;

const WRAP_LABEL: &str = "sealcast.v1 key node answer wrap";

/// Asks key nodes for segments, signed by the device that they are for.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct NodeRequest {
    /// Format version, 1.
    #[n(0)]
    pub version: u8,
    /// The stream.
    #[n(1)]
    pub stream: StreamId,
    /// Who asks.
    #[n(2)]
    pub user: UserId,
    /// The device that asks, whose key signs.
    #[n(3)]
    pub device: DeviceId,
    /// The newest entry of its user's device list that the device knows.
    #[n(4)]
    pub list: ListPin,
    /// Drawn at random; not zero.
    #[n(5)]
    pub request: RequestId,
    /// X-Wing key that serves this request alone; 1,216 bytes.
    #[n(6)]
    #[cbor(with = "minicbor::bytes")]
    pub key: Vec<u8>,
    /// The deal whose shares are to answer.
    #[n(7)]
    pub deal: DealId,
    /// The nodes that are asked, by their index in the deal, strictly ascending. No other may answer.
    #[n(8)]
    #[cbor(with = "minicbor::bytes")]
    pub nodes: Vec<u8>,
    /// The lane.
    #[n(9)]
    pub lane: UserId,
    /// The session.
    #[n(10)]
    pub session: SessionId,
    /// The segments, strictly ascending.
    #[n(11)]
    pub segments: Vec<Segment>,
    /// The newest access-log entries that the device had seen, strictly ascending.
    #[n(12)]
    pub heads: Vec<LogHash>,
    /// The device's clock.
    #[n(13)]
    pub time: Position,
    /// When the device stops waiting, by its own clock.
    #[n(14)]
    pub expires: Position,
}

impl NodeRequest {
    /// The key to wrap answers to.
    ///
    /// # Errors
    ///
    /// Fails when it is no valid wrapping key; nothing can be answered then.
    pub fn wrap_key(&self) -> Result<WrapKey, WrapKeyError> {
        WrapKey::from_bytes(&self.key)
    }

    /// Whether a node of the deal is asked.
    pub fn asks(&self, node: NodeIndex) -> bool {
        self.nodes.binary_search(&node.get()).is_ok()
    }

    /// What is asked for, as a share answers it; every segment of a decoded request is one.
    pub fn labels(&self) -> Vec<SegmentLabel> {
        let label = |of: &Segment| of.label(&self.stream, &self.lane, &self.session);
        self.segments.iter().filter_map(label).collect()
    }
}

impl fmt::Debug for NodeRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeRequest")
            .field("stream", &self.stream)
            .field("device", &self.device)
            .field("request", &self.request)
            .field("nodes", &self.nodes)
            .field("segments", &self.segments)
            .finish_non_exhaustive()
    }
}

impl Signable for NodeRequest {
    const LABEL: &'static str = "sealcast.v1 key node request";
    const LEN_MAX: usize = 40 * 1024;

    fn check(&self) -> Result<(), DecodeError> {
        check_version(self.version)?;
        let lives = self.time < self.expires
            && self.expires < Position::END
            && self.expires.0 - self.time.0 <= REQUEST_LIFETIME_MS_MAX;
        let nodes = !self.nodes.is_empty()
            && self.nodes.is_sorted_by(|a, b| a < b)
            && self
                .nodes
                .iter()
                .all(|node| NodeIndex::new(*node).is_some());
        let segments = (1..=SEGMENTS_MAX).contains(&self.segments.len())
            && self.segments.is_sorted_by(|a, b| a < b)
            && self.labels().len() == self.segments.len();
        in_range(
            lives
                && nodes
                && segments
                && self.request != RequestId::NONE
                && self.key.len() == WRAP_KEY_LEN
                && heads_in_range(&self.heads),
        )
    }
}

/// Which request a node speaks of, and which node it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct NodeReplyTo {
    /// The stream.
    #[n(0)]
    pub stream: StreamId,
    /// The device that asked.
    #[n(1)]
    pub asker: DeviceId,
    /// Its request.
    #[n(2)]
    pub request: RequestId,
    /// What the asker signed: the digest of the whole request.
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub asked: [u8; 32],
    /// The deal.
    #[n(4)]
    pub deal: DealId,
    /// Which of its nodes speaks.
    #[n(5)]
    pub index: u8,
    /// Whose key signs.
    #[n(6)]
    pub node: KeyNode,
}

impl NodeReplyTo {
    /// A reply of a node to a request.
    pub fn new(asked: &Verified<NodeRequest>, index: NodeIndex, node: KeyNode) -> Self {
        let body = asked.body();
        Self {
            stream: body.stream,
            asker: body.device,
            request: body.request,
            asked: *asked.digest().as_bytes(),
            deal: body.deal,
            index: index.get(),
            node,
        }
    }

    /// Whether it is a reply to this very request, by a node that it asks.
    pub fn answers(&self, asked: &Verified<NodeRequest>) -> bool {
        let index = NodeIndex::new(self.index).filter(|index| asked.body().asks(*index));
        index.is_some_and(|index| *self == Self::new(asked, index, self.node))
    }

    fn check(&self) -> Result<(), DecodeError> {
        in_range(NodeIndex::new(self.index).is_some() && self.request != RequestId::NONE)
    }
}

/// What a node answers, sealed to the key of the request.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct NodeAnswer {
    /// Format version, 1.
    #[n(0)]
    pub version: u8,
    /// Who answers what.
    #[n(1)]
    pub to: NodeReplyTo,
    /// Elements, peppers and proof, wrapped.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub wrapped: Vec<u8>,
}

impl NodeAnswer {
    /// Answers a request with a share, sealed to the key of the request. Whether it may be answered
    /// must have been decided.
    ///
    /// # Errors
    ///
    /// Fails when the request's key is none.
    pub fn seal(
        rng: &mut (impl CryptoRng + ?Sized),
        asked: &Verified<NodeRequest>,
        share: &NodeShare,
        node: KeyNode,
    ) -> Result<Self, SealAnswerError> {
        let key = asked.body().wrap_key()?;
        let to = NodeReplyTo::new(asked, share.index(), node);
        let answer = share.answer(rng, &asked.body().labels());
        let wrapped = key.wrap(rng, &info(&to, &key), answer.expose())?;
        Ok(Self {
            version: 1,
            to,
            wrapped,
        })
    }

    /// Opens the answer to a request.
    ///
    /// # Errors
    ///
    /// Fails when it answers another request, or was not sealed for its key.
    pub fn open(
        &self,
        asked: &Verified<NodeRequest>,
        key: &UnwrapKey,
    ) -> Result<SecretBytes, OpenAnswerError> {
        let len = answer_len(asked.body().segments.len()) + WRAP_OVERHEAD;
        if !self.to.answers(asked) || self.wrapped.len() != len {
            return Err(OpenAnswerError::OtherRequest);
        }
        let answer = key.unwrap(&info(&self.to, &key.wrap_key()), &self.wrapped);
        answer.map_err(|_| OpenAnswerError::NotAuthentic)
    }
}

/// All that an answer is bound to.
fn info(to: &NodeReplyTo, key: &WrapKey) -> Vec<u8> {
    delimited(WRAP_LABEL, &[&encode(to), &wrap_key_hash(key)])
}

impl fmt::Debug for NodeAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NodeAnswer").field(&self.to).finish()
    }
}

impl Signable for NodeAnswer {
    const LABEL: &'static str = "sealcast.v1 key node answer";
    const LEN_MAX: usize = 10 * 1024;

    fn check(&self) -> Result<(), DecodeError> {
        check_version(self.version)?;
        self.to.check()?;
        let mut lengths = (1..=SEGMENTS_MAX).map(|count| answer_len(count) + WRAP_OVERHEAD);
        in_range(lengths.any(|len| self.wrapped.len() == len))
    }
}

/// Why a request was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealAnswerError {
    /// The one-use key of the request is none.
    #[error("the key of the request is none")]
    Key(#[from] WrapKeyError),
    /// The answer cannot be wrapped, which no valid key causes.
    #[error("the answer cannot be wrapped")]
    Wrap(#[from] WrapError),
}

/// Why an answer does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenAnswerError {
    /// It answers another request, or one that its node was not asked in.
    #[error("the answer is for another request")]
    OtherRequest,
    /// It was altered, or sealed for another key or context.
    #[error("the answer was not sealed for this key in this context")]
    NotAuthentic,
}

/// Says that a node releases nothing, and why.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct NodeRefusal {
    /// Format version, 1.
    #[n(0)]
    pub version: u8,
    /// Who refuses what.
    #[n(1)]
    pub to: NodeReplyTo,
    /// Why.
    #[n(2)]
    pub reason: NodeRefusalReason,
    /// After how many milliseconds it may be worth to ask again; 0 where time alone changes nothing.
    #[n(3)]
    pub wait_ms: u32,
}

/// Why a node releases nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, CborLen)]
#[cbor(index_only)]
pub enum NodeRefusalReason {
    /// The access log does not entitle the device to all of each segment.
    #[n(0)]
    NotEntitled,
    /// The node has no share of this deal, or is none of the stream's key nodes any more.
    #[n(1)]
    UnknownDeal,
    /// The stream's condition does not hold.
    #[n(2)]
    Condition,
    /// The user has asked for more than the node gives in this time.
    #[n(3)]
    Throttled,
    /// The node cannot read the access log as far as the request names it.
    #[n(4)]
    LogBehind,
    /// The stream's condition can end, and a segment has not ended by the node's clock.
    #[n(5)]
    NotEnded,
}

impl NodeRefusalReason {
    /// Its stable name, for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotEntitled => "not-entitled",
            Self::UnknownDeal => "unknown-deal",
            Self::Condition => "condition",
            Self::Throttled => "throttled",
            Self::LogBehind => "log-behind",
            Self::NotEnded => "not-ended",
        }
    }
}

impl Signable for NodeRefusal {
    const LABEL: &'static str = "sealcast.v1 key node refusal";
    const LEN_MAX: usize = 512;

    fn check(&self) -> Result<(), DecodeError> {
        check_version(self.version)?;
        self.to.check()
    }
}

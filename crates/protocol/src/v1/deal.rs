//! Deals of lane secrets to key nodes, and the segment records that they open,
//! `spec/key-nodes.md`. What nodes are asked and answer is in [`node_request`](super::node_request).

use alloc::vec::Vec;
use core::fmt;

use minicbor::{CborLen, Decode, Encode};
use rand_core::CryptoRng;
use sealcast_crypto::{
    DealError, Dealing, DealingError, LaneSecret, NODES_MAX, NodeId, NodeIndex, NodeKey, NodeShare,
    PepperCommitment, SEALED_SEGMENT_LEN, SegmentLabel, ShareError, UnwrapKey, WRAP_OVERHEAD,
    WrapError, WrapKey, delimited,
};

use crate::encoding::{DecodeError, encode};
use crate::ids::{DeviceId, Interval, LogHash, Position, SessionId, StreamId, UserId};
use crate::signed::Signable;
use crate::v1::asking::{check_version, in_range};
use crate::v1::device::wrap_key_hash;
use crate::v1::log_key_nodes::{KeyNode, KeyNodes};

/// Most records of one object.
pub const SEGMENT_RECORDS_MAX: usize = 1024;

const ELEMENT_LEN: usize = 32;
const SHARE_LEN: usize = 64;
const SHARE_LABEL: &str = "sealcast.v1 key node share";

/// Deals a lane secret to the key nodes that the access log names, signed by the device that drew it.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct Deal {
    /// Format version, 1.
    #[n(0)]
    pub version: u8,
    /// Whose records it opens.
    #[n(1)]
    pub dealer: Dealer,
    /// The access-log entry that names the nodes.
    #[n(2)]
    pub set: LogHash,
    /// As many elements as nodes are needed.
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub commitments: Vec<u8>,
    /// Fits the pepper alone.
    #[n(4)]
    #[cbor(with = "minicbor::bytes")]
    pub pepper: [u8; 32],
    /// The shares, in the order of the nodes: that of node 1 first.
    #[n(5)]
    pub shares: Vec<ShareWrap>,
}

/// A device that draws lane secrets and seals segment records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct Dealer {
    /// The stream.
    #[n(0)]
    pub stream: StreamId,
    /// The lane, which is the device's user.
    #[n(1)]
    pub lane: UserId,
    /// The device, whose key signs.
    #[n(2)]
    pub device: DeviceId,
}

/// A share, wrapped for one node.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct ShareWrap {
    /// The node.
    #[n(0)]
    pub node: KeyNode,
    /// Wrapped to the long-lived key of the node's card; empty where the dealer knew of no live one.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub wrapped: Vec<u8>,
}

impl fmt::Debug for ShareWrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ShareWrap({:?})", self.node)
    }
}

impl fmt::Debug for Deal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deal")
            .field("dealer", &self.dealer)
            .field("set", &self.set)
            .field("shares", &self.shares)
            .finish_non_exhaustive()
    }
}

impl Deal {
    /// Deals a secret to the nodes that an entry names. `keys` are those of their cards, in the order
    /// of the nodes; a node without one gets no share.
    ///
    /// # Errors
    ///
    /// Fails when there are no nodes, or other keys than nodes, or fewer than are needed, or the randomness is
    /// none.
    pub fn seal(
        rng: &mut (impl CryptoRng + ?Sized),
        dealer: Dealer,
        (set, named): (LogHash, &KeyNodes),
        secret: &LaneSecret,
        keys: &[Option<WrapKey>],
    ) -> Result<Self, SealDealError> {
        let count = u8::try_from(named.nodes.len()).map_err(|_| SealDealError::Keys)?;
        let is_enough = keys.iter().flatten().count() >= usize::from(named.threshold);
        if !named.is_in_range() || keys.len() != named.nodes.len() || !is_enough {
            return Err(SealDealError::Keys);
        }
        let (dealing, shares) = secret.deal(rng, named.threshold, count)?;
        let mut deal = Self {
            version: 1,
            dealer,
            set,
            commitments: dealing.commitments().concat(),
            pepper: dealing.pepper().0,
            shares: Vec::with_capacity(keys.len()),
        };
        for ((node, share), key) in named.nodes.iter().zip(&shares).zip(keys) {
            let wrapped = match key {
                Some(key) => {
                    let info = deal.share_info(share.index(), node, key);
                    key.wrap(rng, &info, share.expose())?
                }
                None => Vec::new(),
            };
            let node = *node;
            deal.shares.push(ShareWrap { node, wrapped });
        }
        Ok(deal)
    }

    /// Whether it deals to exactly the nodes that an entry names, and as many are needed as that
    /// says: whoever deals must not lower what the stream asks for.
    pub fn is_for(&self, set: &LogHash, named: &KeyNodes) -> bool {
        let nodes = self.shares.iter().map(|share| &share.node);
        let needed = self.commitments.len() / ELEMENT_LEN;
        self.set == *set && usize::from(named.threshold) == needed && nodes.eq(&named.nodes)
    }

    /// The nodes that were given a share, in their order.
    pub fn holders(&self) -> impl Iterator<Item = KeyNode> + '_ {
        let given = self.shares.iter().filter(|share| !share.wrapped.is_empty());
        given.map(|share| share.node)
    }

    /// What answers are checked by.
    ///
    /// # Errors
    ///
    /// Fails when a commitment is no element, which no decoded deal has.
    pub fn dealing(&self) -> Result<Dealing, DealingError> {
        let (commitments, _) = self.commitments.as_chunks();
        Dealing::from_commitments(commitments, PepperCommitment(self.pepper))
    }

    /// Which of the nodes a device is.
    pub fn index_of(&self, node: &KeyNode) -> Option<NodeIndex> {
        let at = self.shares.iter().position(|share| share.node == *node)?;
        NodeIndex::new(u8::try_from(at + 1).ok()?)
    }

    /// Takes out the share of a node, and checks it against the commitments.
    ///
    /// # Errors
    ///
    /// Fails when there is none for the node, it was wrapped for another key or context, or the
    /// dealer lies.
    pub fn unwrap_share(
        &self,
        node: &KeyNode,
        key: &UnwrapKey,
    ) -> Result<NodeShare, UnwrapShareError> {
        let index = self.index_of(node).ok_or(UnwrapShareError::NoShare)?;
        let wrap = self.shares.iter().find(|share| share.node == *node);
        let wrap = wrap.filter(|share| !share.wrapped.is_empty());
        let wrap = wrap.ok_or(UnwrapShareError::NoShare)?;
        let info = self.share_info(index, node, &key.wrap_key());
        let secret = key.unwrap(&info, &wrap.wrapped);
        let secret = secret.map_err(|_| UnwrapShareError::NotAuthentic)?;
        let bytes = secret.expose().try_into();
        let bytes: &[u8; SHARE_LEN] = bytes.map_err(|_| UnwrapShareError::NotAuthentic)?;
        let share = NodeShare::from_bytes(index, bytes)?;
        let dealing = self.dealing().map_err(|_| ShareError::OtherDealing)?;
        share.check(&dealing)?;
        Ok(share)
    }

    /// All that a share is bound to.
    fn share_info(&self, index: NodeIndex, node: &KeyNode, to: &WrapKey) -> Vec<u8> {
        let of = [
            encode(&self.dealer),
            encode(&self.set),
            self.commitments.clone(),
            self.pepper.to_vec(),
            encode(&index.get()),
            encode(node),
            wrap_key_hash(to).to_vec(),
        ];
        let parts = of.each_ref().map(Vec::as_slice);
        delimited(SHARE_LABEL, &parts)
    }
}

impl Signable for Deal {
    const LABEL: &'static str = "sealcast.v1 key node deal";
    const LEN_MAX: usize = 48 * 1024;

    fn check(&self) -> Result<(), DecodeError> {
        check_version(self.version)?;
        let (commitments, rest) = self.commitments.as_chunks::<ELEMENT_LEN>();
        let shares = &self.shares;
        let wrapped = |share: &ShareWrap| {
            let len = share.wrapped.len();
            len == 0 || len == SHARE_LEN + WRAP_OVERHEAD
        };
        in_range(
            rest.is_empty()
                && commitments.len() <= self.holders().count()
                && shares.len() <= usize::from(NODES_MAX)
                && shares.is_sorted_by(|a, b| a.node.user < b.node.user)
                && shares.iter().all(wrapped)
                && self.dealing().is_ok(),
        )
    }
}

/// Why a secret was not dealt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealDealError {
    /// There must be a place for a key for each node, and as many keys as nodes are needed.
    #[error("there are other keys than nodes, or fewer than are needed")]
    Keys,
    /// The secret cannot be dealt so.
    #[error("the secret was not dealt")]
    Deal(#[from] DealError),
    /// A share cannot be wrapped, which no valid key causes.
    #[error("a share cannot be wrapped")]
    Wrap(#[from] WrapError),
}

/// Why a deal did not give a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnwrapShareError {
    /// The deal is not to this node, or its dealer knew of no live card of it.
    #[error("the deal has no share for this node")]
    NoShare,
    /// The share was wrapped for another key or context, or altered.
    #[error("the share was not wrapped for this key in this context")]
    NotAuthentic,
    /// The dealer lies.
    #[error("the share does not fit the deal")]
    False(#[from] ShareError),
}

/// The keys of segments, each sealed so that key nodes open it. Signed by the device that dealt.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct SegmentRecords {
    /// Format version, 1.
    #[n(0)]
    pub version: u8,
    /// Who dealt.
    #[n(1)]
    pub dealer: Dealer,
    /// The session.
    #[n(2)]
    pub session: SessionId,
    /// The first commitment of the deals whose nodes open the records: it names the lane secret.
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub secret: [u8; 32],
    /// The records, strictly ascending.
    #[n(4)]
    pub records: Vec<SegmentRecord>,
}

/// The key of one segment, sealed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct SegmentRecord {
    /// Which segment.
    #[n(0)]
    pub segment: Segment,
    /// Commitment, ciphertext, tag.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub sealed: [u8; SEALED_SEGMENT_LEN],
}

/// A node of a session's key tree that may be a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct Segment {
    /// Steps from the root.
    #[n(0)]
    pub depth: u8,
    /// Place among the nodes of this depth.
    #[n(1)]
    pub index: u64,
}

impl From<NodeId> for Segment {
    fn from(node: NodeId) -> Self {
        let NodeId { depth, index } = node;
        Self { depth, index }
    }
}

impl Segment {
    /// The positions that it spans.
    pub fn interval(self) -> Interval {
        let node = self.node();
        Interval {
            from: Position(node.from()),
            until: Position(node.until()),
        }
    }

    /// The node of the tree.
    pub fn node(self) -> NodeId {
        let Self { depth, index } = self;
        NodeId { depth, index }
    }

    /// What it is called in a session of a lane; nothing where it is no segment.
    pub fn label(
        self,
        stream: &StreamId,
        lane: &UserId,
        session: &SessionId,
    ) -> Option<SegmentLabel> {
        SegmentLabel::new(&stream.0, &lane.0, &session.0, self.node())
    }
}

impl fmt::Debug for SegmentRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SegmentRecord").field(&self.segment).finish()
    }
}

impl fmt::Debug for SegmentRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentRecords")
            .field("dealer", &self.dealer)
            .field("session", &self.session)
            .field("records", &self.records)
            .finish_non_exhaustive()
    }
}

impl SegmentRecords {
    /// Seals the keys of segments. There are none where a node is no segment.
    pub fn seal(
        dealer: Dealer,
        session: SessionId,
        secret: &LaneSecret,
        keys: &[(NodeId, &NodeKey)],
    ) -> Option<Self> {
        let seal = |(node, key): &(NodeId, &NodeKey)| {
            let segment = Segment::from(*node);
            let label = segment.label(&dealer.stream, &dealer.lane, &session)?;
            let sealed = secret.segment_key(&label).seal(key);
            Some(SegmentRecord { segment, sealed })
        };
        let mut records: Vec<SegmentRecord> = keys.iter().map(seal).collect::<Option<_>>()?;
        records.sort_unstable();
        Some(Self {
            version: 1,
            dealer,
            session,
            secret: secret.public(),
            records,
        })
    }

    /// What a key node is asked for a record.
    pub fn label(&self, record: &SegmentRecord) -> Option<SegmentLabel> {
        let Dealer { stream, lane, .. } = &self.dealer;
        record.segment.label(stream, lane, &self.session)
    }
}

impl Signable for SegmentRecords {
    const LABEL: &'static str = "sealcast.v1 segment records";
    const LEN_MAX: usize = 96 * 1024;

    fn check(&self) -> Result<(), DecodeError> {
        check_version(self.version)?;
        let secret = Dealing::from_commitments(&[self.secret], PepperCommitment([0; 32]));
        in_range(
            (1..=SEGMENT_RECORDS_MAX).contains(&self.records.len())
                && self.records.is_sorted_by(|a, b| a.segment < b.segment)
                && self.records.iter().all(|of| self.label(of).is_some())
                && secret.is_ok(),
        )
    }
}

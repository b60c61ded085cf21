//! What a key node keeps of what it released and refused, `spec/key-nodes.md`, section "Audit".

use alloc::vec::Vec;

use minicbor::{CborLen, Decode, Encode};
use sealcast_crypto::{VerifyingKey, digest};

use crate::encoding::{DecodeError, encode};
use crate::ids::{DealId, DeviceId, LogHash, Position, RequestId, SessionId, StreamId, UserId};
use crate::signed::{Signable, Unverified, Verified, VerifyError};
use crate::v1::asking::{check_version, in_range};
use crate::v1::deal::Segment;
use crate::v1::log_key_nodes::KeyNode;
use crate::v1::node_request::{NodeRefusalReason, NodeRequest, SEGMENTS_MAX};

const LOG_LABEL: &str = "sealcast.v1 key node audit log";

/// One thing that a key node did in a stream, signed by it. Each names the one before.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct AuditEntry {
    /// Format version, 1.
    #[n(0)]
    pub version: u8,
    /// The stream.
    #[n(1)]
    pub stream: StreamId,
    /// Whose key signs.
    #[n(2)]
    pub node: KeyNode,
    /// Place in the chain, from 0.
    #[n(3)]
    pub seq: u64,
    /// The digest of the entry before; zero at the start of the chain.
    #[n(4)]
    #[cbor(with = "minicbor::bytes")]
    pub prev: [u8; 32],
    /// The node's clock.
    #[n(5)]
    pub time: Position,
    /// What it did.
    #[n(6)]
    pub event: AuditEvent,
}

/// What a key node did.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
pub enum AuditEvent {
    /// It began to run.
    #[n(0)]
    Began,
    /// It released all that was asked for.
    #[n(1)]
    Released(#[n(0)] AuditedRequest),
    /// It released nothing.
    #[n(2)]
    Refused(#[n(0)] AuditedRequest, #[n(1)] NodeRefusalReason),
}

/// What a key node was asked for, by whom, and what it knew when it decided.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct AuditedRequest {
    /// Who asked.
    #[n(0)]
    pub user: UserId,
    /// The device that asked.
    #[n(1)]
    pub device: DeviceId,
    /// Its request.
    #[n(2)]
    pub request: RequestId,
    /// What the asker signed: the digest of the whole request.
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub asked: [u8; 32],
    /// When the request expires.
    #[n(4)]
    pub expires: Position,
    /// The deal.
    #[n(5)]
    pub deal: DealId,
    /// The lane.
    #[n(6)]
    pub lane: UserId,
    /// The session.
    #[n(7)]
    pub session: SessionId,
    /// The segments, strictly ascending.
    #[n(8)]
    pub segments: Vec<Segment>,
    /// The digest of the newest access-log entries that the node knew.
    #[n(9)]
    #[cbor(with = "minicbor::bytes")]
    pub log: [u8; 32],
}

impl AuditedRequest {
    /// What is kept of a request that is decided on by these newest entries of the access log.
    pub fn new(asked: &Verified<NodeRequest>, heads: &[LogHash]) -> Self {
        let body = asked.body();
        let heads: Vec<&[u8]> = heads.iter().map(|head| &head.0[..]).collect();
        Self {
            user: body.user,
            device: body.device,
            request: body.request,
            asked: *asked.digest().as_bytes(),
            expires: body.expires,
            deal: body.deal,
            lane: body.lane,
            session: body.session,
            segments: body.segments.clone(),
            log: *digest(LOG_LABEL, &heads).as_bytes(),
        }
    }

    fn check(&self, stream: &StreamId) -> bool {
        let is_one = |of: &Segment| of.label(stream, &self.lane, &self.session).is_some();
        (1..=SEGMENTS_MAX).contains(&self.segments.len())
            && self.segments.is_sorted_by(|a, b| a < b)
            && self.segments.iter().all(is_one)
            && self.request != RequestId::NONE
            && self.expires < Position::END
    }
}

impl AuditEvent {
    /// The request that it is about.
    pub fn request(&self) -> Option<&AuditedRequest> {
        match self {
            Self::Began => None,
            Self::Released(asked) | Self::Refused(asked, _) => Some(asked),
        }
    }
}

impl AuditEntry {
    /// The digest that is signed, and that the next entry names.
    pub fn hash(&self) -> [u8; 32] {
        *digest(Self::LABEL, &[&encode(self)]).as_bytes()
    }
}

impl Signable for AuditEntry {
    const LABEL: &'static str = "sealcast.v1 key node audit entry";
    const LEN_MAX: usize = 4 * 1024;

    fn check(&self) -> Result<(), DecodeError> {
        check_version(self.version)?;
        let asked = self.event.request();
        in_range(
            (self.seq == 0) == (self.prev == NO_ENTRY)
                && self.time < Position::END
                && asked.is_none_or(|asked| asked.check(&self.stream)),
        )
    }
}

const NO_ENTRY: [u8; 32] = [0; 32];

/// The end of a node's chain of audit entries: what the next one has to name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditChain {
    stream: StreamId,
    node: KeyNode,
    seq: u64,
    prev: [u8; 32],
}

impl AuditChain {
    /// A chain without an entry.
    pub fn new(stream: StreamId, node: KeyNode) -> Self {
        Self {
            stream,
            node,
            seq: 0,
            prev: NO_ENTRY,
        }
    }

    /// How many entries it has.
    pub fn len(&self) -> u64 {
        self.seq
    }

    /// Whether it has no entry.
    pub fn is_empty(&self) -> bool {
        self.seq == 0
    }

    /// The digest of its last entry; zero where there is none.
    pub fn head(&self) -> &[u8; 32] {
        &self.prev
    }

    /// Draws up the next entry, and goes on behind it.
    pub fn append(&mut self, time: Position, event: AuditEvent) -> AuditEntry {
        let entry = AuditEntry {
            version: 1,
            stream: self.stream,
            node: self.node,
            seq: self.seq,
            prev: self.prev,
            time,
            event,
        };
        self.follow(&entry);
        entry
    }

    /// Goes on behind an entry that was kept.
    ///
    /// # Errors
    ///
    /// Fails when it is no entry of this node, or does not follow the one before.
    pub fn take(
        &mut self,
        bytes: &[u8],
        key: &VerifyingKey,
    ) -> Result<Verified<AuditEntry>, AuditFault> {
        let entry = Unverified::<AuditEntry>::decode(bytes)?.verify(key)?;
        let body = entry.body();
        if (body.stream, body.node) != (self.stream, self.node) {
            return Err(AuditFault::Foreign);
        }
        if (body.seq, body.prev) != (self.seq, self.prev) {
            return Err(AuditFault::Broken { seq: self.seq });
        }
        self.follow(body);
        Ok(entry)
    }

    fn follow(&mut self, entry: &AuditEntry) {
        self.seq = entry.seq.saturating_add(1);
        self.prev = entry.hash();
    }
}

/// Why an entry does not belong behind the others of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuditFault {
    /// It is none that a node would write.
    #[error("an audit entry is none")]
    Decode(#[from] DecodeError),
    /// The node did not sign it.
    #[error("an audit entry was not signed by the node")]
    NotSigned(#[from] VerifyError),
    /// It is of another stream or another node.
    #[error("an audit entry is of another stream or node")]
    Foreign,
    /// An entry was taken out, put in or exchanged.
    #[error("audit entry {seq} does not follow the one before")]
    Broken {
        /// Where.
        seq: u64,
    },
}

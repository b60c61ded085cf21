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
    /// It refused so many requests that have no entry of their own, since it last told.
    #[n(3)]
    TurnedAway(#[n(0)] u64),
    /// Whoever runs it said that its clock is right, though it is behind earlier entries.
    #[n(4)]
    ClockSet,
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
            Self::Began | Self::TurnedAway(_) | Self::ClockSet => None,
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
                && self.event != AuditEvent::TurnedAway(0)
                && asked.is_none_or(|asked| asked.check(&self.stream)),
        )
    }
}

const NO_ENTRY: [u8; 32] = [0; 32];

/// Where a chain of audit entries ends: what the next one has to name. A node keeps it beside them, so
/// that it need not read them from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditEnd {
    /// How many entries there are.
    pub len: u64,
    /// The digest of the last one; zero where there is none.
    pub head: [u8; 32],
    /// The newest time of an entry on a request, since the clock was last said to be right. That the node
    /// began to run says nothing of its clock; an asker who agrees about the time within minutes does.
    pub newest: Position,
}

impl AuditEnd {
    /// That of a chain without an entry.
    pub const START: Self = Self {
        len: 0,
        head: NO_ENTRY,
        newest: Position::START,
    };

    /// That behind one more entry; nothing where it does not follow.
    pub fn behind(&self, entry: &AuditEntry) -> Option<Self> {
        let newest = match entry.event {
            AuditEvent::Began | AuditEvent::TurnedAway(_) => self.newest,
            AuditEvent::Released(..) | AuditEvent::Refused(..) => self.newest.max(entry.time),
            AuditEvent::ClockSet => entry.time,
        };
        ((entry.seq, entry.prev) == (self.len, self.head)).then(|| Self {
            len: self.len.saturating_add(1),
            head: entry.hash(),
            newest,
        })
    }

    /// The form in which a store keeps it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (len, newest) = (self.len.to_be_bytes(), self.newest.0.to_be_bytes());
        [&len[..], &self.head, &newest].concat()
    }

    /// Reads what [`to_bytes`](Self::to_bytes) made.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (len, rest) = bytes.split_first_chunk()?;
        let (head, newest) = rest.split_first_chunk()?;
        Some(Self {
            len: u64::from_be_bytes(*len),
            head: *head,
            newest: Position(u64::from_be_bytes(newest.try_into().ok()?)),
        })
    }
}

/// A node's chain of audit entries, as far as it was gone along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditChain {
    stream: StreamId,
    node: KeyNode,
    end: AuditEnd,
}

impl AuditChain {
    /// A chain without an entry.
    pub fn new(stream: StreamId, node: KeyNode) -> Self {
        Self {
            stream,
            node,
            end: AuditEnd::START,
        }
    }

    /// Goes to where an entry begins that was kept, to check it and what follows. What lies before is not
    /// looked at.
    ///
    /// # Errors
    ///
    /// Fails when it is no entry of this node.
    pub fn before(self, bytes: &[u8], key: &VerifyingKey) -> Result<Self, AuditFault> {
        let entry = self.verified(bytes, key)?;
        let end = AuditEnd {
            len: entry.body().seq,
            head: entry.body().prev,
            ..AuditEnd::START
        };
        Ok(Self { end, ..self })
    }

    /// Takes over what was kept of its end, now that it was gone along to there.
    ///
    /// # Errors
    ///
    /// Fails when it ends elsewhere.
    pub fn ends(self, kept: AuditEnd) -> Result<Self, AuditFault> {
        let seq = self.len().min(kept.len);
        match (self.len(), self.head()) == (kept.len, &kept.head) {
            true => Ok(Self { end: kept, ..self }),
            false => Err(AuditFault::Broken { seq }),
        }
    }

    /// Where it ends.
    pub fn end(&self) -> &AuditEnd {
        &self.end
    }

    /// How many entries it has.
    pub fn len(&self) -> u64 {
        self.end.len
    }

    /// Whether it has no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The digest of its last entry; zero where there is none.
    pub fn head(&self) -> &[u8; 32] {
        &self.end.head
    }

    /// Draws up the next entry, and goes on behind it.
    pub fn append(&mut self, time: Position, event: AuditEvent) -> AuditEntry {
        let entry = AuditEntry {
            version: 1,
            stream: self.stream,
            node: self.node,
            seq: self.end.len,
            prev: self.end.head,
            time,
            event,
        };
        self.end = self.end.behind(&entry).unwrap_or(self.end);
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
        let entry = self.verified(bytes, key)?;
        let seq = self.end.len;
        self.end = self
            .end
            .behind(entry.body())
            .ok_or(AuditFault::Broken { seq })?;
        Ok(entry)
    }

    fn verified(
        &self,
        bytes: &[u8],
        key: &VerifyingKey,
    ) -> Result<Verified<AuditEntry>, AuditFault> {
        let entry = Unverified::<AuditEntry>::decode(bytes)?.verify(key)?;
        let is_own = (entry.body().stream, entry.body().node) == (self.stream, self.node);
        is_own.then_some(entry).ok_or(AuditFault::Foreign)
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

//! One envelope that waits, and how a store keeps it.

use alloc::vec::Vec;

use minicbor::{CborLen, Decode, Encode};
use sealcast_protocol::{DeviceId, EnvelopeHash, Header, Position, UserId};

use crate::read::{Event, Refusal};
use crate::view::StreamView;

/// What an envelope counts besides its bytes: what a store and an index take for it.
pub(super) const COUNTS_BESIDES: u64 = 4096;
const STORED_LEN_MAX: usize = 512;

/// Whether an envelope that did not open at once waits for its key, or waited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Parked {
    /// Neither.
    #[default]
    No,
    /// It waits, and is told again when it opens.
    Waits,
    /// It waited; this is what became of it.
    Waited,
    /// It does not wait, or no longer, for want of room.
    NoRoom,
    /// It waited as long as it may, and does so no more.
    TooOld,
    /// It waited, and another subscription of this home was handed it, or gave it up.
    Elsewhere,
}

/// An envelope that its sender signed and that may open later.
#[derive(Clone, PartialEq, Eq)]
pub struct Unopened {
    /// What it says of itself.
    pub header: Header,
    /// Who sealed it.
    pub user: UserId,
    /// Its hash in its stream.
    pub hash: EnvelopeHash,
    /// What it waits for.
    pub cause: Cause,
    /// Who gave the covers that did not open it.
    pub givers: Vec<(UserId, DeviceId)>,
    /// The envelope.
    pub bytes: Vec<u8>,
}

impl Unopened {
    /// What is told of it.
    pub(crate) fn event(&mut self, parked: Parked) -> Event {
        let givers = core::mem::take(&mut self.givers);
        self.cause.event(self.header, self.user, givers, parked)
    }
}

/// What an envelope waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Cause {
    /// A grant, and its key.
    Grant = 0,
    /// The key of a grant.
    Key = 1,
    /// A key that fits: those that are here do not.
    OtherKey = 2,
    /// The record of its session.
    Session = 3,
    /// A log entry by which its sender may publish.
    Right = 4,
}

impl Cause {
    const ALL: [Self; 5] = [
        Self::Grant,
        Self::Key,
        Self::OtherKey,
        Self::Session,
        Self::Right,
    ];

    fn event(
        self,
        header: Header,
        user: UserId,
        givers: Vec<(UserId, DeviceId)>,
        parked: Parked,
    ) -> Event {
        let refusal = match self {
            Self::Grant | Self::Key => {
                return Event::Sealed {
                    header,
                    user,
                    is_granted: self == Self::Key,
                    parked,
                };
            }
            Self::OtherKey => Refusal::NotAuthentic,
            Self::Session => Refusal::UnknownSession,
            Self::Right => Refusal::NotEntitled,
        };
        Event::Rejected {
            header: Some(header),
            user: Some(user),
            refusal,
            givers,
            parked,
        }
    }
}

/// How a store tells whether somebody changed what waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) next: u64,
    pub(super) edits: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) of: Stored,
    pub(super) header: Header,
    pub(super) cause: Cause,
    /// Whether it was told here that it waits.
    pub(super) is_told: bool,
    /// Whether it is being opened and handed out here.
    pub(super) is_taken: bool,
    /// Whether a key that reaches it was tried here and did not open it.
    pub(super) has_failed: bool,
}

/// How a store keeps what an envelope needs to be found.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub(super) struct Stored {
    #[n(0)]
    pub(super) arrived: Position,
    #[n(1)]
    pub(super) user: UserId,
    #[n(2)]
    pub(super) hash: EnvelopeHash,
    #[n(3)]
    pub(super) len: u32,
    #[n(4)]
    pub(super) cause: u8,
    #[n(5)]
    #[cbor(with = "minicbor::bytes")]
    pub(super) header: [u8; 72],
}

impl Stored {
    pub(super) fn counts(&self) -> u64 {
        u64::from(self.len) + COUNTS_BESIDES
    }
}

impl Entry {
    pub(super) fn new(now: Position, of: &Unopened) -> Option<Self> {
        let stored = Stored {
            arrived: now,
            user: of.user,
            hash: of.hash,
            len: u32::try_from(of.bytes.len()).ok()?,
            cause: of.cause as u8,
            header: of.header.encode(),
        };
        Some(Self {
            of: stored,
            header: of.header,
            cause: of.cause,
            is_told: true,
            is_taken: false,
            has_failed: false,
        })
    }

    pub(super) fn read(value: &[u8]) -> Option<Self> {
        let of: Stored = sealcast_protocol::decode(value, STORED_LEN_MAX).ok()?;
        let header = Header::decode(&of.header).ok()?;
        let cause = Cause::ALL.into_iter().find(|one| *one as u8 == of.cause)?;
        Some(Self {
            of,
            header,
            cause,
            is_told: false,
            is_taken: false,
            has_failed: false,
        })
    }

    pub(super) fn event(&self, parked: Parked) -> Event {
        self.cause
            .event(self.header, self.of.user, Vec::new(), parked)
    }

    pub(super) fn may_open(&self, view: &StreamView) -> bool {
        let of = &self.header;
        view.record(&of.session, &of.device).is_some() && view.has_key(&of.session, of.position)
    }
}

impl Stamp {
    pub(super) fn of(bytes: Option<&[u8]>) -> Self {
        let read = |bytes: &[u8]| {
            let (next, edits) = bytes.split_first_chunk()?;
            Some(Self {
                next: u64::from_be_bytes(*next),
                edits: u64::from_be_bytes(edits.try_into().ok()?),
            })
        };
        bytes.and_then(read).unwrap_or_default()
    }

    pub(super) fn to_bytes(self) -> Vec<u8> {
        [self.next.to_be_bytes(), self.edits.to_be_bytes()].concat()
    }
}

impl core::fmt::Debug for Unopened {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Unopened")
            .field("header", &self.header)
            .field("user", &self.user)
            .field("cause", &self.cause)
            .finish_non_exhaustive()
    }
}

//! Entries of the access log, `spec/access-log.md`.

use alloc::vec::Vec;

use minicbor::{CborLen, Decode, Encode};

use crate::encoding::DecodeError;
use crate::ids::{DeviceId, EnvelopeHash, Interval, LogHash, Position, StreamId, UserId};
use crate::signed::Signable;
use crate::v1::device::CardRevocation;
use crate::v1::log_approvals::Approval;
use crate::v1::log_key_nodes::KeyNodes;

/// Most heads, targets or tips that one entry may list.
pub const LIST_MAX: usize = 1024;

/// One entry of one device's chain.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct LogEntry {
    /// Format version, 1.
    #[n(0)]
    pub version: u8,
    /// The stream; all zero in the first entry of a stream, which gives the stream its id.
    #[n(1)]
    pub stream: StreamId,
    /// User of the author.
    #[n(2)]
    pub user: UserId,
    /// Device of the author, whose key signs.
    #[n(3)]
    pub device: DeviceId,
    /// Place in the author's chain, from 0.
    #[n(4)]
    pub seq: u32,
    /// The author's entry before; zero at the start of its chain.
    #[n(5)]
    pub prev: LogHash,
    /// The newest entries of other chains that the author had seen, ascending.
    #[n(6)]
    pub heads: Vec<LogHash>,
    /// The author's clock; it decides no question of authority.
    #[n(7)]
    pub time: Position,
    /// What the entry says.
    #[n(8)]
    pub body: LogBody,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
pub enum LogBody {
    /// Starts the stream.
    #[n(0)]
    Genesis(#[n(0)] Genesis),
    /// Gives a user a role over an interval.
    #[n(1)]
    Grant(#[n(0)] Grant),
    /// Takes grants, users or devices out.
    #[n(2)]
    Revoke(#[n(0)] Revoke),
    /// Changes what may change.
    #[n(3)]
    Settings(#[n(0)] Settings),
    /// Says which key nodes the stream has.
    #[n(4)]
    KeyNodes(#[n(0)] KeyNodes),
    /// Ends the stream: nothing more is sealed.
    #[n(5)]
    Close,
    /// Says that key nodes may release to somebody.
    #[n(6)]
    Approve(#[n(0)] Approval),
}

impl LogBody {
    /// The key nodes that it names, if it is about them.
    pub fn key_nodes(&self) -> Option<&KeyNodes> {
        match self {
            Self::KeyNodes(nodes) => Some(nodes),
            Self::Genesis(_)
            | Self::Grant(_)
            | Self::Revoke(_)
            | Self::Settings(_)
            | Self::Close
            | Self::Approve(_) => None,
        }
    }
}

/// The fixed properties of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct Genesis {
    /// Makes two streams of one owner differ.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub nonce: [u8; 16],
    /// Who owns the stream; also the author.
    #[n(1)]
    pub owner: UserId,
    /// Whose sessions a lane is made of.
    #[n(2)]
    pub lane_mode: LaneMode,
    /// When keys are handed out.
    #[n(3)]
    pub sharing: Sharing,
    /// Whether the roots lie open, for anyone to read.
    #[n(4)]
    pub public: bool,
}

/// Whose sessions a lane is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(index_only)]
pub enum LaneMode {
    /// Each publishing user has a lane of its own.
    #[n(0)]
    Own,
}

/// When keys are handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(index_only)]
pub enum Sharing {
    /// At each grant and each new session.
    #[n(0)]
    Active,
    /// When a reader asks.
    #[n(1)]
    OnRequest,
    /// Never over the bus; keys travel as files.
    #[n(2)]
    Manual,
}

/// A set of roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, CborLen)]
#[cbor(transparent)]
pub struct Roles(#[n(0)] pub u8);

impl Roles {
    /// No role.
    pub const NONE: Self = Self(0);
    /// Reads what the interval covers.
    pub const READER: Self = Self(1);
    /// Seals messages in a lane of its own.
    pub const PUBLISHER: Self = Self(2);
    /// Grants, revokes, holds every root, publishes and reads.
    pub const ADMIN: Self = Self(4);

    /// Whether all of `other` is in this set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn is_valid(self) -> bool {
        self.0 != 0 && self.0 & !7 == 0
    }
}

/// Gives a user a role over an interval. The grant's id is the hash of its entry.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct Grant {
    /// Who receives.
    #[n(0)]
    pub user: UserId,
    /// Which devices of the user, ascending; none listed means all.
    #[n(1)]
    pub devices: Vec<DeviceId>,
    /// What the user may do.
    #[n(2)]
    pub roles: Roles,
    /// Which lanes may be read, ascending; none listed means all.
    #[n(3)]
    pub lanes: Vec<UserId>,
    /// From when until when, by the publisher's positions.
    #[n(4)]
    pub interval: Interval,
    /// Whether the user may hand its covers on to others whom the log entitles.
    #[n(5)]
    pub reshare: bool,
}

/// Takes something out, and says how far its publishers had come.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct Revoke {
    /// What is taken out.
    #[n(0)]
    pub targets: Targets,
    /// For each device that can no longer publish: every accepted branch tip, ascending by device.
    #[n(1)]
    pub last: Vec<DeviceTips>,
}

/// What a [`Revoke`] takes out.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
pub enum Targets {
    /// Single grants, ascending.
    #[n(0)]
    Grants(#[n(0)] Vec<LogHash>),
    /// Every grant of these users, ascending.
    #[n(1)]
    Users(#[n(0)] Vec<UserId>),
    /// These devices, ascending.
    #[n(2)]
    Devices(#[n(0)] Vec<DeviceTarget>),
}

/// A device that is taken out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct DeviceTarget {
    /// Whose device.
    #[n(0)]
    pub user: UserId,
    /// Which one.
    #[n(1)]
    pub device: DeviceId,
    /// The user's own root-signed revocation of the device's card, as it travels. It may be empty
    /// where an owner or admin takes out the device of a plain publisher or reader; only with it
    /// does the device stay out whatever is granted later.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub proof: Vec<u8>,
}

impl DeviceTarget {
    /// Whether the carried proof is the root's own word that this device is out.
    pub fn is_proven(&self) -> bool {
        let proof = CardRevocation::from_proof(&self.user, &self.proof);
        proof.is_ok_and(|out| out.device == self.device)
    }
}

/// How far the accepted envelopes of a device had come.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct DeviceTips {
    /// Which device.
    #[n(0)]
    pub device: DeviceId,
    /// Its accepted envelopes that no other accepted envelope follows, ascending.
    #[n(1)]
    pub tips: Vec<EnvelopeHash>,
}

/// What may change in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct Settings {
    /// Longest life of a session in milliseconds; 0 means no limit.
    #[n(0)]
    pub rekey_every_ms: u64,
}

impl Signable for LogEntry {
    const LABEL: &'static str = "sealcast.v1 access log entry";
    const LEN_MAX: usize = 256 * 1024;

    fn check(&self) -> Result<(), DecodeError> {
        if self.version != 1 {
            return Err(DecodeError::UnknownVersion {
                found: self.version,
            });
        }
        let is_genesis = matches!(self.body, LogBody::Genesis(_));
        let starts = self.seq == 0 && self.prev == NO_ENTRY;
        let follows = self.seq > 0 && self.prev != NO_ENTRY;
        let place = match is_genesis {
            true => starts && self.stream == NO_STREAM && self.heads.is_empty(),
            false => self.stream != NO_STREAM && (follows || (starts && !self.heads.is_empty())),
        };
        let listed = ascending(&self.heads) && !self.heads.contains(&self.prev);
        if place && listed && self.time < Position::END && body_in_range(self) {
            Ok(())
        } else {
            Err(DecodeError::OutOfRange)
        }
    }
}

/// Stands where no entry went before.
pub(super) const NO_ENTRY: LogHash = LogHash([0; 32]);
/// Stands in the entry that gives a stream its id.
pub(super) const NO_STREAM: StreamId = StreamId([0; 32]);

fn body_in_range(entry: &LogEntry) -> bool {
    match &entry.body {
        LogBody::Genesis(genesis) => genesis.owner == entry.user,
        LogBody::Grant(grant) => {
            grant.roles.is_valid()
                && grant.interval.is_valid()
                && ascending(&grant.devices)
                && ascending(&grant.lanes)
        }
        LogBody::Revoke(revoke) => {
            let targets = match &revoke.targets {
                Targets::Grants(grants) => !grants.is_empty() && ascending(grants),
                Targets::Users(users) => !users.is_empty() && ascending(users),
                Targets::Devices(devices) => !devices.is_empty() && ascending(devices),
            };
            targets
                && revoke.last.len() <= LIST_MAX
                && revoke.last.windows(2).all(|w| w[0].device < w[1].device)
                && revoke.last.iter().all(|of| ascending(&of.tips))
        }
        LogBody::KeyNodes(nodes) => nodes.is_in_range(),
        LogBody::Approve(approval) => approval.is_in_range(&entry.user),
        LogBody::Settings(_) | LogBody::Close => true,
    }
}

fn ascending<T: Ord>(list: &[T]) -> bool {
    list.len() <= LIST_MAX && list.windows(2).all(|w| w[0] < w[1])
}

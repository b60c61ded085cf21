//! Names of things: newtypes over bytes, positions and intervals.

use alloc::format;
use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use bech32::{Bech32m, Hrp};
use minicbor::{CborLen, Decode, Encode};
use sealcast_crypto::{Digest, POSITION_END};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, CborLen)]
        #[cbor(transparent)]
        pub struct $name(#[n(0)] #[cbor(with = "minicbor::bytes")] pub [u8; $len]);

        impl $name {
            /// Its bytes.
            pub fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }
    };
}

macro_rules! hex_id {
    ($name:ident, $len:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                from_hex(text).map(Self)
            }
        }
    };
}

id!(
    /// A person or service. The id is the user's root Ed25519 key, so nobody can be handed a false
    /// key for it; written `sc1…` (bech32m).
    UserId, 32
);
id!(
    /// One client instance of a user: the first 16 bytes of a hash of user and signing key.
    DeviceId, 16
);
id!(
    /// A stream: the hash of its first access-log entry.
    StreamId, 32
);
id!(
    /// A session of a lane: the first 16 bytes of a hash of stream, lane and root commitment.
    SessionId, 16
);
id!(
    /// One run of a publishing process, drawn at random at its start.
    InstanceId, 8
);
id!(
    /// The first 16 bytes of an envelope's hash; zero where there is none.
    EnvelopeHash, 16
);
id!(
    /// The hash of an access-log entry; also names the grant that the entry gives.
    LogHash, 32
);
id!(
    /// A request for keys, drawn at random by the device that asks; zero where there is none.
    RequestId, 16
);

id!(
    /// A deal to key nodes: the digest that its signature is over.
    DealId, 32
);

hex_id!(DealId, 32);
hex_id!(DeviceId, 16);
hex_id!(StreamId, 32);
hex_id!(SessionId, 16);
hex_id!(InstanceId, 8);
hex_id!(EnvelopeHash, 16);
hex_id!(LogHash, 32);
hex_id!(RequestId, 16);

impl From<Digest> for DealId {
    fn from(digest: Digest) -> Self {
        Self(*digest.as_bytes())
    }
}

impl From<Digest> for LogHash {
    fn from(digest: Digest) -> Self {
        Self(*digest.as_bytes())
    }
}

impl EnvelopeHash {
    /// Stands where no envelope went before.
    pub const NONE: Self = Self([0; 16]);
}

impl RequestId {
    /// Stands where nothing was asked.
    pub const NONE: Self = Self([0; 16]);
}

const USER_HRP: Hrp = Hrp::parse_unchecked("sc");

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match bech32::encode::<Bech32m>(USER_HRP, &self.0) {
            Ok(text) => f.write_str(&text),
            Err(_) => Err(fmt::Error),
        }
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserId({self})")
    }
}

impl FromStr for UserId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let checked = bech32::primitives::decode::CheckedHrpstring::new::<Bech32m>(text)
            .map_err(|_| IdError::Malformed)?;
        if checked.hrp() != USER_HRP {
            return Err(IdError::Malformed);
        }
        let mut bytes = [0; 32];
        let mut data = checked.byte_iter();
        if data.len() != bytes.len() {
            return Err(IdError::Malformed);
        }
        bytes.fill_with(|| data.next().unwrap_or_default());
        // 52 letters hold four bits more than an id has; they must be zero, so that an id has one
        // spelling.
        let id = Self(bytes);
        match alloc::string::ToString::to_string(&id).eq_ignore_ascii_case(text) {
            true => Ok(id),
            false => Err(IdError::Malformed),
        }
    }
}

fn from_hex<const N: usize>(text: &str) -> Result<[u8; N], IdError> {
    if text.len() != 2 * N || !text.bytes().all(|c| c.is_ascii_hexdigit()) {
        return Err(IdError::Malformed);
    }
    let mut bytes = [0; N];
    for (i, byte) in bytes.iter_mut().enumerate() {
        let pair = text.get(2 * i..2 * i + 2).ok_or(IdError::Malformed)?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| IdError::Malformed)?;
    }
    Ok(bytes)
}

/// Why text is not an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// Wrong length, letters or checksum; probably a slip while copying.
    #[error("not a valid id")]
    Malformed,
}

/// Where in a session's key tree a message is sealed: Unix time in milliseconds, 48 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, CborLen)]
#[cbor(transparent)]
pub struct Position(#[n(0)] pub u64);

impl Position {
    /// The first position.
    pub const START: Self = Self(0);
    /// One past the last position; as the end of an interval it means "no end".
    pub const END: Self = Self(POSITION_END);

    /// The position `ms` milliseconds later, at most [`Position::END`].
    pub fn after(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms).min(POSITION_END))
    }
}

/// The positions from `from` up to, not including, `until`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct Interval {
    /// First position inside.
    #[n(0)]
    pub from: Position,
    /// First position behind; [`Position::END`] for no end.
    #[n(1)]
    pub until: Position,
}

impl Interval {
    /// Every position.
    pub const ALL: Self = Self {
        from: Position::START,
        until: Position::END,
    };

    /// Whether no position is inside.
    pub fn is_empty(&self) -> bool {
        self.from >= self.until
    }

    /// Whether `position` is inside.
    pub fn contains(&self, position: Position) -> bool {
        self.from <= position && position < self.until
    }

    /// Whether all of `other` is inside; an empty interval is inside of any.
    pub fn covers(&self, other: &Self) -> bool {
        other.is_empty() || (self.from <= other.from && other.until <= self.until)
    }

    /// What both have in common; `None` when nothing.
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        let both = Self {
            from: self.from.max(other.from),
            until: self.until.min(other.until),
        };
        (!both.is_empty()).then_some(both)
    }

    /// Whether the ends are in the tree and in order.
    pub fn is_valid(&self) -> bool {
        !self.is_empty() && self.until <= Position::END
    }
}

/// The bus topics of one stream, `spec/bus.md`.
#[derive(Clone, Copy, Debug)]
pub struct StreamTopics(pub StreamId);

impl StreamTopics {
    /// Where one device writes its chain of access-log entries.
    pub fn access(&self, device: &DeviceId) -> String {
        format!("s/{}/access/{device}", self.0)
    }

    /// Where session records and bundles lie.
    pub fn keys(&self) -> String {
        format!("s/{}/keys", self.0)
    }

    /// Where envelopes lie.
    pub fn data(&self) -> String {
        format!("s/{}/data", self.0)
    }

    /// Where keys are asked for. Ephemeral, unlike the others.
    pub fn ask(&self) -> String {
        format!("s/{}/ask", self.0)
    }
}

impl UserId {
    /// The bus topic of the user's device list.
    pub fn devices_topic(&self) -> String {
        format!("u/{self}/devices")
    }
}

impl DeviceId {
    /// The bus topic of what is meant for the device alone; it trims what it has taken.
    pub fn inbox_topic(&self) -> String {
        format!("d/{self}/inbox")
    }

    /// The bus topic of the device's fallback keys.
    pub fn fallback_topic(&self) -> String {
        format!("d/{self}/fallback")
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn a_user_id_reads_back_and_a_changed_letter_does_not() {
        let id = UserId([9; 32]);
        let text = id.to_string();
        assert!(text.starts_with("sc1"), "{text}");
        assert_eq!(text.parse(), Ok(id));
        let changed = text.replacen('q', "p", 1).replacen("sc1p", "sc1q", 1);
        assert_ne!(changed, text);
        assert_eq!(changed.parse::<UserId>(), Err(IdError::Malformed));
    }

    #[test]
    fn a_user_id_has_one_spelling() {
        use alloc::vec::Vec;
        use bech32::Fe32;
        use bech32::primitives::iter::{ByteIterExt, Fe32IterExt};

        let mut letters: Vec<Fe32> = [9; 32].into_iter().bytes_to_fes().collect();
        let spell = |letters: &[Fe32]| -> String {
            let letters = letters.iter().copied();
            letters
                .with_checksum::<Bech32m>(&USER_HRP)
                .chars()
                .collect()
        };
        assert_eq!(spell(&letters).parse(), Ok(UserId([9; 32])));
        let last = letters.pop().unwrap();
        letters.push(Fe32::try_from(last.to_u8() ^ 1).unwrap());
        assert_eq!(spell(&letters).parse::<UserId>(), Err(IdError::Malformed));
    }

    #[test]
    fn a_hex_id_reads_back_and_a_short_one_does_not() {
        let id = DeviceId([0xab; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("abab".parse::<DeviceId>(), Err(IdError::Malformed));
        assert_eq!("é".repeat(16).parse::<DeviceId>(), Err(IdError::Malformed));
    }

    #[test]
    fn each_topic_has_the_name_that_the_specification_gives_it() {
        let (stream, device) = (StreamId([0x5a; 32]), DeviceId([0xab; 16]));
        let (of, hex, peer) = (StreamTopics(stream), "5a".repeat(32), "ab".repeat(16));
        assert_eq!(of.access(&device), format!("s/{hex}/access/{peer}"));
        assert_eq!(of.keys(), format!("s/{hex}/keys"));
        assert_eq!(of.data(), format!("s/{hex}/data"));
        assert_eq!(of.ask(), format!("s/{hex}/ask"));
        assert_eq!(device.inbox_topic(), format!("d/{peer}/inbox"));
        let user = UserId([9; 32]);
        assert_eq!(user.devices_topic(), format!("u/{user}/devices"));
    }

    #[test]
    fn intervals_are_half_open() {
        let day = Interval {
            from: Position(10),
            until: Position(20),
        };
        assert!(day.contains(Position(10)) && !day.contains(Position(20)));
        let next = Interval {
            from: Position(20),
            until: Position(30),
        };
        assert_eq!(day.intersect(&next), None);
    }
}

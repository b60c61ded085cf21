//! What a file of keys or a backup says, inside the encryption of the file, `spec/export.md`.

use alloc::vec::Vec;

use minicbor::{CborLen, Decode, Decoder, Encode};
use sealcast_crypto::{Cover, SecretBytes, SessionRoot, cover as cover_nodes};

use crate::encoding::{DecodeError, encode};
use crate::ids::{DeviceId, Interval, Position, SessionId, StreamId, UserId};
use crate::v1::ticket::Name;

/// Most bytes of exported keys.
pub const EXPORT_KEYS_LEN_MAX: usize = 64 << 20;
/// Most bytes of a home's backup.
pub const EXPORT_HOME_LEN_MAX: usize = 1 << 30;
/// Most sessions in one export.
pub const EXPORT_SESSIONS_MAX: usize = 65_536;
/// Most covers of one session in an export.
pub const EXPORT_COVERS_MAX: usize = 4096;

const VERSION: u8 = 1;
const KEY_LEN: usize = 32;

/// What a file holds once it is decrypted.
#[derive(Debug, Encode, Decode, CborLen)]
pub enum Export {
    /// Keys of one stream.
    #[n(0)]
    Keys(#[n(0)] KeyExport),
    /// All that a home keeps.
    #[n(1)]
    Home(#[n(0)] HomeExport),
}

/// Keys of sessions of one stream, for whoever is handed the file.
#[derive(Debug, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct KeyExport {
    /// The stream.
    #[n(0)]
    pub stream: StreamId,
    /// Who owns it.
    #[n(1)]
    pub owner: UserId,
    /// What whoever made the file calls it.
    #[n(2)]
    pub name: Name,
    /// The sessions, strictly ascending by session and device.
    #[n(3)]
    pub sessions: Vec<ExportedSession>,
}

/// One session, and what of it is handed over.
#[derive(Debug, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct ExportedSession {
    /// The session.
    #[n(0)]
    pub session: SessionId,
    /// The device that seals with it.
    #[n(1)]
    pub device: DeviceId,
    /// The user whose lane it is of.
    #[n(2)]
    pub lane: UserId,
    /// Of the session's root.
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub commitment: [u8; 32],
    /// The covers, ascending by interval; several of one interval are candidates.
    #[n(4)]
    pub covers: Vec<ExportedCover>,
}

/// The right to read an interval of a session.
#[derive(Debug, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct ExportedCover {
    /// The positions that it opens.
    #[n(0)]
    pub interval: Interval,
    /// The keys of the nodes that span them, 32 bytes each; of all positions, the root.
    #[n(1)]
    #[cbor(with = "secret")]
    pub keys: SecretBytes,
}

/// The records of a home's store.
#[derive(Debug, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct HomeExport {
    /// When they were read.
    #[n(0)]
    pub time: Position,
    /// All of them, strictly ascending by space and id.
    #[n(1)]
    pub records: Vec<ExportedRecord>,
}

/// One record of a home's store.
#[derive(Debug, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct ExportedRecord {
    /// Its space.
    #[n(0)]
    pub space: u8,
    /// Its id.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub id: Vec<u8>,
    /// What it says.
    #[n(2)]
    #[cbor(with = "secret")]
    pub value: SecretBytes,
}

/// A key that an exported session comes to.
#[derive(Debug)]
pub enum ExportedKey {
    /// The root, which has the session's commitment.
    Root(SessionRoot),
    /// A cover; whether it is the session's shows when it opens a message.
    Cover(Cover),
}

/// The root in the file is not that of its session: whoever made the file is false.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the root is not that of session {session}")]
pub struct WrongRoot {
    /// The session.
    pub session: SessionId,
}

#[derive(Encode, Decode, CborLen)]
#[cbor(array)]
struct Wire<T> {
    #[n(0)]
    version: u8,
    #[n(1)]
    content: T,
}

impl Export {
    /// The bytes that are encrypted.
    ///
    /// # Errors
    ///
    /// Fails when there is more in it than one file may hold.
    pub fn encode(&self) -> Result<SecretBytes, DecodeError> {
        let wire = Wire {
            version: VERSION,
            content: self,
        };
        let (len, len_max) = (minicbor::len(&wire), self.len_max());
        if len > len_max {
            return Err(DecodeError::TooLong { len, len_max });
        }
        self.check()?;
        Ok(SecretBytes::from(encode(&wire)))
    }

    /// Reads what was decrypted, by the rule of every other object; what it makes on the way is
    /// wiped.
    ///
    /// # Errors
    ///
    /// Fails when the bytes are of a newer version, are no export, or say what none may say.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        check_len(bytes, EXPORT_HOME_LEN_MAX)?;
        let mut decoder = Decoder::new(bytes);
        let version = decoder.array().and_then(|_| decoder.u8());
        if let Ok(found) = version
            && found != VERSION
        {
            return Err(DecodeError::UnknownVersion { found });
        }
        let wire: Wire<Self> = minicbor::decode(bytes).map_err(|_| DecodeError::Malformed)?;
        let again = SecretBytes::from(encode(&wire));
        if again.expose() != bytes {
            return Err(DecodeError::NotCanonical);
        }
        check_len(bytes, wire.content.len_max())?;
        wire.content.check()?;
        Ok(wire.content)
    }

    fn len_max(&self) -> usize {
        match self {
            Self::Keys(_) => EXPORT_KEYS_LEN_MAX,
            Self::Home(_) => EXPORT_HOME_LEN_MAX,
        }
    }

    fn check(&self) -> Result<(), DecodeError> {
        let is_good = match self {
            Self::Keys(keys) => keys.is_good(),
            Self::Home(home) => home.is_good(),
        };
        match is_good {
            true => Ok(()),
            false => Err(DecodeError::OutOfRange),
        }
    }
}

fn check_len(bytes: &[u8], len_max: usize) -> Result<(), DecodeError> {
    let len = bytes.len();
    match len > len_max {
        true => Err(DecodeError::TooLong { len, len_max }),
        false => Ok(()),
    }
}

impl KeyExport {
    fn is_good(&self) -> bool {
        let place = |of: &ExportedSession| (of.session, of.device);
        (1..=EXPORT_SESSIONS_MAX).contains(&self.sessions.len())
            && self.sessions.is_sorted_by(|a, b| place(a) < place(b))
            && self.sessions.iter().all(|of| of.is_good(&self.stream))
    }
}

impl ExportedSession {
    fn is_good(&self, stream: &StreamId) -> bool {
        self.session == SessionId::derive(stream, &self.lane, &self.commitment)
            && (1..=EXPORT_COVERS_MAX).contains(&self.covers.len())
            && self.covers.is_sorted_by_key(|of| of.interval)
            && self.covers.iter().all(ExportedCover::is_good)
    }

    /// The keys that the covers hold.
    ///
    /// # Errors
    ///
    /// Fails when a root does not have the commitment.
    pub fn keys(&self) -> Result<Vec<ExportedKey>, WrongRoot> {
        let wrong = WrongRoot {
            session: self.session,
        };
        let key = |of: &ExportedCover| {
            let (keys, Interval { from, until }) = (of.keys.expose(), of.interval);
            if of.interval == Interval::ALL {
                let bytes: &[u8; KEY_LEN] = keys.try_into().map_err(|_| wrong)?;
                let root = SessionRoot::init_with(|root| root.copy_from_slice(bytes));
                return match root.commitment() == self.commitment {
                    true => Ok(ExportedKey::Root(root)),
                    false => Err(wrong),
                };
            }
            let cover = Cover::from_key_bytes(from.0, until.0, keys);
            cover.map(ExportedKey::Cover).map_err(|_| wrong)
        };
        self.covers.iter().map(key).collect()
    }
}

impl ExportedCover {
    /// A cover as it is handed over.
    pub fn new(cover: &Cover) -> Self {
        Self {
            interval: Interval {
                from: Position(cover.from()),
                until: Position(cover.until()),
            },
            keys: cover.key_bytes(),
        }
    }

    fn is_good(&self) -> bool {
        let Interval { from, until } = self.interval;
        self.interval.is_valid() && self.keys.len() == cover_nodes(from.0, until.0).len() * KEY_LEN
    }
}

impl HomeExport {
    fn is_good(&self) -> bool {
        let mut pairs = self.records.iter().zip(self.records.iter().skip(1));
        pairs.all(|(a, b)| (a.space, &a.id) < (b.space, &b.id))
    }
}

/// Secret bytes are copied once, into room of their own.
mod secret {
    use minicbor::decode::Error as DecodeError;
    use minicbor::encode::{Error as EncodeError, Write};
    use minicbor::{CborLen, Decoder, Encoder};
    use sealcast_crypto::SecretBytes;

    pub(super) fn encode<C, W: Write>(
        value: &SecretBytes,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        e.bytes(value.expose())?.ok()
    }

    pub(super) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<SecretBytes, DecodeError> {
        let bytes = d.bytes()?;
        let mut value = SecretBytes::with_capacity(bytes.len());
        value.extend_from_slice(bytes);
        Ok(value)
    }

    pub(super) fn cbor_len<C>(value: &SecretBytes, ctx: &mut C) -> usize {
        let len = value.len();
        len + (len as u64).cbor_len(ctx)
    }
}

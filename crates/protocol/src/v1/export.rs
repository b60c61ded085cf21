//! What a file of keys or a backup says, inside the encryption of the file, `spec/export.md`.

use alloc::vec::Vec;

use minicbor::{CborLen, Decode, Decoder, Encode};
use sealcast_crypto::{Cover, SecretBytes, SessionRoot, cover as cover_nodes};

use crate::encoding::{DecodeError, encode, is_encoding_of};
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
/// Most covers of all sessions in an export. Whoever imports them has them at hand with every command.
pub const EXPORT_COVERS_ALL_MAX: usize = 131_072;
/// Most records in one backup.
pub const EXPORT_RECORDS_MAX: usize = 4 << 20;

const VERSION: u8 = 1;
/// What stands for [`Export::Keys`].
const KEYS: u8 = 0;
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
    #[cbor(decode_with = "list::<_, _, EXPORT_SESSIONS_MAX>")]
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
    #[cbor(decode_with = "list::<_, _, EXPORT_COVERS_MAX>")]
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
    #[cbor(decode_with = "list::<_, _, EXPORT_RECORDS_MAX>")]
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
        // Lists take several times the room of their bytes, so they are bounded before they are read.
        let kind = decoder.array().and_then(|_| decoder.u8());
        if kind.is_ok_and(|kind| kind == KEYS) {
            check_len(bytes, EXPORT_KEYS_LEN_MAX)?;
        }
        let wire = minicbor::decode(bytes);
        let wire: Wire<Self> = wire.map_err(|error| match error.is_custom() {
            true => DecodeError::OutOfRange,
            false => DecodeError::Malformed,
        })?;
        if !is_encoding_of(bytes, &wire) {
            return Err(DecodeError::NotCanonical);
        }
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
        let covers = self.sessions.iter().map(|of| of.covers.len());
        (1..=EXPORT_SESSIONS_MAX).contains(&self.sessions.len())
            && covers.sum::<usize>() <= EXPORT_COVERS_ALL_MAX
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
        self.records.len() <= EXPORT_RECORDS_MAX
            && pairs.all(|(a, b)| (a.space, &a.id) < (b.space, &b.id))
    }
}

/// A list has more items than any may.
#[derive(Debug, thiserror::Error)]
#[error("too many items")]
struct TooMany;

/// Refuses a list that is too long before it takes room.
fn list<'b, C, T: Decode<'b, C>, const MAX: usize>(
    d: &mut Decoder<'b>,
    ctx: &mut C,
) -> Result<Vec<T>, minicbor::decode::Error> {
    let fits = |len: u64| usize::try_from(len).is_ok_and(|len| len <= MAX);
    let stated = d.probe().array()?;
    if !stated.is_none_or(fits) {
        return Err(minicbor::decode::Error::custom(TooMany));
    }
    let mut list = Vec::new();
    for item in d.array_iter_with(ctx)? {
        if list.len() == MAX {
            return Err(minicbor::decode::Error::custom(TooMany));
        }
        list.push(item?);
    }
    Ok(list)
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

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn refusal(bytes: &[u8]) -> DecodeError {
        Export::decode(bytes).unwrap_err()
    }

    /// What a list takes in memory is several times its bytes.
    #[test]
    fn a_list_that_is_too_long_is_refused_before_its_items_are_read() {
        let array = |len: usize| {
            let len = u32::try_from(len).unwrap().to_be_bytes();
            [&[0x9a], &len[..]].concat()
        };
        let bytes = |of: u8| [&[0x58, 32][..], &[of; 32]].concat();
        let keys = [
            &[0x82, 1, 0x82, 0, 0x81, 0x84][..],
            &bytes(1),
            &bytes(2),
            b"\x61k",
        ]
        .concat();
        let session = [&[0x50; 17][..], &[0x50; 17], &bytes(3), &bytes(4)].concat();
        let covers = [&keys[..], &[0x81, 0x85], &session].concat();
        let home = vec![0x82, 1, 0x82, 1, 0x81, 0x82, 0];
        for (before, most) in [
            (keys, EXPORT_SESSIONS_MAX),
            (covers, EXPORT_COVERS_MAX),
            (home, EXPORT_RECORDS_MAX),
        ] {
            let cut = refusal(&[&before[..], &array(most)].concat());
            assert_eq!(cut, DecodeError::Malformed, "{most}");
            let long = refusal(&[&before[..], &array(most + 1)].concat());
            assert_eq!(long, DecodeError::OutOfRange, "{most}");
        }
        let mut endless = vec![0x82, 1, 0x82, 1, 0x81, 0x82, 0, 0x9f];
        endless.extend([0x83, 0, 0x40, 0x40].repeat(EXPORT_RECORDS_MAX + 1));
        assert_eq!(refusal(&endless), DecodeError::OutOfRange);
    }

    /// Each is at hand with every command of whoever imported them.
    #[test]
    fn all_sessions_together_have_a_bound_of_covers() {
        let (stream, lane) = (StreamId([1; 32]), UserId([2; 32]));
        let session = |number: usize| {
            let commitment = *sealcast_crypto::digest("test", &[&number.to_be_bytes()]).as_bytes();
            let cover = |at: usize| ExportedCover {
                interval: Interval {
                    from: Position(at as u64),
                    until: Position(at as u64 + 1),
                },
                keys: SecretBytes::from(vec![0; KEY_LEN]),
            };
            ExportedSession {
                session: SessionId::derive(&stream, &lane, &commitment),
                device: DeviceId([0; 16]),
                lane,
                commitment,
                covers: (0..EXPORT_COVERS_MAX).map(cover).collect(),
            }
        };
        let most = EXPORT_COVERS_ALL_MAX / EXPORT_COVERS_MAX;
        for (count, is_good) in [(most, true), (most + 1, false)] {
            let mut sessions: Vec<_> = (0..count).map(session).collect();
            sessions.sort_by_key(|of| of.session);
            let export = KeyExport {
                stream,
                owner: lane,
                name: "boiler".parse().unwrap(),
                sessions,
            };
            assert_eq!(export.is_good(), is_good, "{count}");
        }
    }

    #[test]
    fn keys_have_fewer_bytes_than_a_home_whatever_follows() {
        for (kind, is_long) in [(0, true), (1, false)] {
            let mut bytes = vec![0; EXPORT_KEYS_LEN_MAX + 1];
            bytes[..6].copy_from_slice(&[0x82, 1, 0x82, kind, 0x81, 0x84]);
            let refused = refusal(&bytes);
            let too_long = matches!(refused, DecodeError::TooLong { .. });
            assert_eq!(too_long, is_long, "{refused}");
        }
    }
}

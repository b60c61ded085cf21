//! What an envelope says about itself in clear, `spec/envelope.md`, section "Layout".

use sealcast_crypto::HEADER_LEN;

use crate::encoding::DecodeError;
use crate::ids::{DeviceId, EnvelopeHash, InstanceId, Position, SessionId};

const VERSION: u8 = 1;

/// How an envelope is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Suite {
    /// `sealcast.tree.v1`: keys from the key tree, AES-256-GCM-SIV, Ed25519.
    TreeV1,
}

impl Suite {
    fn byte(self) -> u8 {
        match self {
            Self::TreeV1 => 1,
        }
    }

    fn from_byte(found: u8) -> Result<Self, DecodeError> {
        match found {
            1 => Ok(Self::TreeV1),
            _ => Err(DecodeError::UnknownSuite { found }),
        }
    }
}

/// What kind of envelope it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags {
    /// The plaintext is a frame of several records.
    pub frame: bool,
    /// The envelope belongs to a backfill session.
    pub backfill: bool,
    /// The signature is one for several envelopes.
    pub batch: bool,
}

impl Flags {
    const FRAME: u8 = 1;
    const BACKFILL: u8 = 2;
    const BATCH: u8 = 4;

    fn byte(self) -> u8 {
        (u8::from(self.frame) * Self::FRAME)
            | (u8::from(self.backfill) * Self::BACKFILL)
            | (u8::from(self.batch) * Self::BATCH)
    }

    fn from_byte(found: u8) -> Result<Self, DecodeError> {
        if found & !(Self::FRAME | Self::BACKFILL | Self::BATCH) != 0 {
            return Err(DecodeError::UnknownFlags { found });
        }
        Ok(Self {
            frame: found & Self::FRAME != 0,
            backfill: found & Self::BACKFILL != 0,
            batch: found & Self::BATCH != 0,
        })
    }
}

/// What an envelope says about itself in clear. All of it is signed, and bound into the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// How the envelope is sealed.
    pub suite: Suite,
    /// What kind of envelope it is.
    pub flags: Flags,
    /// What the plaintext is, as far as the publisher wants everyone to know; 0 says nothing.
    pub content: u8,
    /// The session whose keys seal it.
    pub session: SessionId,
    /// Where in the session's key tree it is sealed.
    pub position: Position,
    /// The device that sealed and signed it.
    pub device: DeviceId,
    /// The run of the publishing process.
    pub instance: InstanceId,
    /// Counts the envelopes of the instance on this stream, from 0.
    pub seq: u32,
    /// The envelope before this one on this stream, whatever its topic; [`EnvelopeHash::NONE`] for
    /// none.
    pub prev: EnvelopeHash,
}

impl Header {
    /// The 72 bytes that travel.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let mut at = 0;
        let mut put = |field: &[u8]| {
            bytes[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        };
        put(&[VERSION, self.suite.byte(), self.flags.byte(), self.content]);
        put(&self.session.0);
        put(&self.position.0.to_be_bytes());
        put(&self.device.0);
        put(&self.instance.0);
        put(&self.seq.to_be_bytes());
        put(&self.prev.0);
        assert!(at == HEADER_LEN, "the fields fill the header");
        bytes
    }

    /// Reads the 72 bytes that travel.
    ///
    /// # Errors
    ///
    /// Fails when version, suite or flags are not known, or the position is outside the key tree.
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, DecodeError> {
        let mut rest = bytes.as_slice();
        let [version, suite, flags, content] = take(&mut rest)?;
        if version != VERSION {
            return Err(DecodeError::UnknownVersion { found: version });
        }
        let header = Self {
            suite: Suite::from_byte(suite)?,
            flags: Flags::from_byte(flags)?,
            content,
            session: SessionId(take(&mut rest)?),
            position: Position(u64::from_be_bytes(take(&mut rest)?)),
            device: DeviceId(take(&mut rest)?),
            instance: InstanceId(take(&mut rest)?),
            seq: u32::from_be_bytes(take(&mut rest)?),
            prev: EnvelopeHash(take(&mut rest)?),
        };
        match header.position < Position::END {
            true => Ok(header),
            false => Err(DecodeError::OutOfRange),
        }
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], DecodeError> {
    let (field, behind) = rest
        .split_first_chunk::<N>()
        .ok_or(DecodeError::Malformed)?;
    *rest = behind;
    Ok(*field)
}

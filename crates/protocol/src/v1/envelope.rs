//! Sealed messages on the bus, `spec/envelope.md`.
//!
//! ```text
//! &[u8] ── parse ──► EnvelopeView ── bind(stream, topic) ──► BoundEnvelope
//!                              ── verify(key) ──► VerifiedEnvelope ── open(leaf) ──► plaintext
//! ```
//!
//! Parsing borrows, and the ciphertext is hashed once, when the stream and topic it came from are
//! bound to it.

use alloc::vec::Vec;
use core::fmt;

use sealcast_crypto::{
    COMMITMENT_LEN, Digest, HEADER_LEN, Leaf, MessageContext, MessageKey, OpenError, SecretBytes,
    Signature, SigningKey, TAG_LEN, Verifier, VerifyingKey, bulk_digest, digest,
};

use crate::encoding::DecodeError;
use crate::ids::{DeviceId, EnvelopeHash, InstanceId, Position, SessionId, StreamId};
use crate::signed::VerifyError;
use crate::v1::frame::Frame;

/// Bytes that an envelope adds to its plaintext: header, commitment, tag and signature.
pub const ENVELOPE_OVERHEAD: usize = HEADER_LEN + COMMITMENT_LEN + TAG_LEN + SIGNATURE_LEN;
/// Longest plaintext of an envelope, in bytes: 16 MiB, and room for a frame's own fields.
pub const PAYLOAD_MAX: usize = (16 << 20) + (64 << 10);

const SIGNATURE_LEN: usize = 64;
const VERSION: u8 = 1;
const SIGN_LABEL: &str = "sealcast.v1 envelope";
const CIPHERTEXT_LABEL: &str = "sealcast.v1 envelope ciphertext";
const HASH_LABEL: &str = "sealcast.v1 envelope hash";

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
}

impl Flags {
    const FRAME: u8 = 1;
    const BACKFILL: u8 = 2;

    fn byte(self) -> u8 {
        (u8::from(self.frame) * Self::FRAME) | (u8::from(self.backfill) * Self::BACKFILL)
    }

    fn from_byte(found: u8) -> Result<Self, DecodeError> {
        if found & !(Self::FRAME | Self::BACKFILL) != 0 {
            return Err(DecodeError::UnknownFlags { found });
        }
        Ok(Self {
            frame: found & Self::FRAME != 0,
            backfill: found & Self::BACKFILL != 0,
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

/// An envelope whose shape is right, and of which nothing may be believed yet.
#[derive(Clone, Copy)]
pub struct EnvelopeView<'a> {
    header: Header,
    header_bytes: &'a [u8; HEADER_LEN],
    commitment: &'a [u8; COMMITMENT_LEN],
    ciphertext: &'a [u8],
    signature: &'a [u8; SIGNATURE_LEN],
}

impl<'a> EnvelopeView<'a> {
    /// Takes the bytes of an envelope apart, without copying them.
    ///
    /// # Errors
    ///
    /// Fails when they are too few or too many, or the header is none that can be opened here.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let len_max = ENVELOPE_OVERHEAD + PAYLOAD_MAX;
        if bytes.len() > len_max {
            return Err(DecodeError::TooLong {
                len: bytes.len(),
                len_max,
            });
        }
        let parts = |bytes: &'a [u8]| {
            let (header_bytes, rest) = bytes.split_first_chunk()?;
            let (commitment, rest) = rest.split_first_chunk()?;
            let (ciphertext, signature) = rest.split_last_chunk()?;
            (ciphertext.len() >= TAG_LEN).then_some((
                header_bytes,
                commitment,
                ciphertext,
                signature,
            ))
        };
        let (header_bytes, commitment, ciphertext, signature) =
            parts(bytes).ok_or(DecodeError::Malformed)?;
        Ok(Self {
            header: Header::decode(header_bytes)?,
            header_bytes,
            commitment,
            ciphertext,
            signature,
        })
    }

    /// What the envelope says about itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The header as it travels.
    pub fn header_bytes(&self) -> &'a [u8; HEADER_LEN] {
        self.header_bytes
    }

    /// Tells the right message key from others.
    pub fn commitment(&self) -> &'a [u8; COMMITMENT_LEN] {
        self.commitment
    }

    /// The ciphertext, its tag at the end.
    pub fn ciphertext(&self) -> &'a [u8] {
        self.ciphertext
    }

    /// The signature.
    pub fn signature(&self) -> Signature {
        Signature::from_bytes(*self.signature)
    }

    /// Binds the envelope to the stream and topic it came from; hashes all of it.
    ///
    /// `topic` is the one that its item names, and empty if it names none.
    pub fn bind(self, stream: &'a StreamId, topic: &'a [u8]) -> BoundEnvelope<'a> {
        let context = MessageContext {
            stream: &stream.0,
            topic,
            header: self.header_bytes,
        };
        let digest = signed_digest(&context, self.commitment, self.ciphertext);
        BoundEnvelope {
            hash: envelope_hash(&digest, &self.signature()),
            view: self,
            context,
            digest,
        }
    }

    /// Checks the signature: [`bind`](Self::bind) and [`BoundEnvelope::verify`] in one step.
    ///
    /// # Errors
    ///
    /// Fails when `key` did not sign exactly this envelope for this stream and topic.
    pub fn verify(
        &self,
        stream: &'a StreamId,
        topic: &'a [u8],
        key: &VerifyingKey,
    ) -> Result<VerifiedEnvelope<'a>, VerifyError> {
        self.bind(stream, topic).verify(key)
    }

    /// What the next envelope's `prev` says. Costs a pass over the ciphertext; [`bind`](Self::bind)
    /// where the signature is checked too.
    pub fn hash(&self, stream: &StreamId, topic: &[u8]) -> EnvelopeHash {
        self.bind(stream, topic).hash
    }
}

impl fmt::Debug for EnvelopeView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EnvelopeView").field(&self.header).finish()
    }
}

/// An envelope with the stream and topic it came from; its signature is not checked yet.
#[derive(Clone, Copy, Debug)]
pub struct BoundEnvelope<'a> {
    view: EnvelopeView<'a>,
    context: MessageContext<'a>,
    digest: Digest,
    hash: EnvelopeHash,
}

impl<'a> BoundEnvelope<'a> {
    /// What the envelope says about itself.
    pub fn header(&self) -> &Header {
        &self.view.header
    }

    /// What the next envelope's `prev` says; not to be believed before the signature holds.
    pub fn hash(&self) -> EnvelopeHash {
        self.hash
    }

    /// Checks the signature, without another pass over the ciphertext.
    ///
    /// # Errors
    ///
    /// Fails when `key` did not sign exactly this envelope for this stream and topic.
    pub fn verify(self, key: &VerifyingKey) -> Result<VerifiedEnvelope<'a>, VerifyError> {
        key.verify(&self.digest, &self.view.signature())
            .map_err(|_| VerifyError::BadSignature)?;
        Ok(VerifiedEnvelope(self))
    }

    /// As [`verify`](Self::verify), faster where few keys sign much.
    ///
    /// # Errors
    ///
    /// As [`verify`](Self::verify).
    pub fn verify_by(
        self,
        verifier: &mut Verifier,
        key: &VerifyingKey,
    ) -> Result<VerifiedEnvelope<'a>, VerifyError> {
        verifier
            .verify(key, &self.digest, &self.view.signature())
            .map_err(|_| VerifyError::BadSignature)?;
        Ok(VerifiedEnvelope(self))
    }
}

/// An envelope whose signature holds. Whether its sender may publish, and whether it came before,
/// is for the reader to say.
#[derive(Clone, Copy, Debug)]
pub struct VerifiedEnvelope<'a>(BoundEnvelope<'a>);

impl<'a> VerifiedEnvelope<'a> {
    /// What the envelope says about itself.
    pub fn header(&self) -> &Header {
        self.0.header()
    }

    /// The parts of the envelope.
    pub fn view(&self) -> &EnvelopeView<'a> {
        &self.0.view
    }

    /// What the next envelope's `prev` says.
    pub fn hash(&self) -> EnvelopeHash {
        self.0.hash
    }

    /// Opens the envelope with the leaf of its position. Whether the key or the ciphertext was
    /// wrong is not told.
    ///
    /// # Errors
    ///
    /// Fails when the envelope was not sealed under this leaf for this stream, topic and header.
    pub fn open(&self, leaf: &Leaf<'_>) -> Result<SecretBytes, OpenError> {
        let BoundEnvelope { view, context, .. } = &self.0;
        let key = MessageKey::derive(leaf, context);
        if !key.commitment_matches(view.commitment) {
            return Err(OpenError::NotAuthentic);
        }
        key.open(context, view.ciphertext).map(SecretBytes::from)
    }
}

/// A sealed envelope, ready to leave.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedEnvelope {
    /// The bytes that travel.
    pub bytes: Vec<u8>,
    /// What the next envelope's `prev` says.
    pub hash: EnvelopeHash,
}

impl fmt::Debug for SealedEnvelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "SealedEnvelope({}, {} bytes)",
            self.hash,
            self.bytes.len()
        )
    }
}

/// Seals and signs a message. The plaintext is copied once, into the buffer that travels, and
/// encrypted there.
///
/// `leaf` must be the leaf of the header's position in the header's session.
///
/// # Errors
///
/// Fails when the plaintext is longer than [`PAYLOAD_MAX`] or the position is outside the key tree.
pub fn seal(
    leaf: &Leaf<'_>,
    signing: &SigningKey,
    stream: &StreamId,
    topic: &[u8],
    header: &Header,
    plaintext: &[u8],
) -> Result<SealedEnvelope, SealError> {
    let write = |buffer: &mut Vec<u8>| buffer.extend_from_slice(plaintext);
    seal_written(
        leaf,
        signing,
        (stream, topic),
        header,
        plaintext.len(),
        write,
    )
}

/// Seals and signs a frame, as [`seal`] does its [`plaintext`](Frame::plaintext). The header says
/// that it is one, whatever its flag was.
///
/// # Errors
///
/// As [`seal`], and when there is no record in it.
pub fn seal_frame(
    leaf: &Leaf<'_>,
    signing: &SigningKey,
    stream: &StreamId,
    topic: &[u8],
    header: &Header,
    frame: &Frame,
) -> Result<SealedEnvelope, SealError> {
    if frame.is_empty() {
        return Err(SealError::EmptyFrame);
    }
    let mut header = *header;
    header.flags.frame = true;
    let len = frame.plaintext_len(header.position);
    let write = |buffer: &mut Vec<u8>| frame.write(header.position, buffer);
    seal_written(leaf, signing, (stream, topic), &header, len, write)
}

/// Seals the `len` bytes that `write` appends.
fn seal_written(
    leaf: &Leaf<'_>,
    signing: &SigningKey,
    (stream, topic): (&StreamId, &[u8]),
    header: &Header,
    len: usize,
    write: impl FnOnce(&mut Vec<u8>),
) -> Result<SealedEnvelope, SealError> {
    if len > PAYLOAD_MAX {
        return Err(SealError::TooLong { len });
    }
    if header.position >= Position::END {
        return Err(SealError::OutOfRange);
    }
    let header_bytes = header.encode();
    let context = MessageContext {
        stream: &stream.0,
        topic,
        header: &header_bytes,
    };
    let key = MessageKey::derive(leaf, &context);
    let commitment = key.commitment();
    let mut bytes = Vec::with_capacity(ENVELOPE_OVERHEAD + len);
    bytes.extend_from_slice(&header_bytes);
    bytes.extend_from_slice(&commitment);
    write(&mut bytes);
    key.seal_in_place(&context, &mut bytes, HEADER_LEN + COMMITMENT_LEN);
    let ciphertext = bytes.get(HEADER_LEN + COMMITMENT_LEN..).unwrap_or_default();
    let digest = signed_digest(&context, &commitment, ciphertext);
    let signature = signing.sign(&digest);
    bytes.extend_from_slice(signature.as_bytes());
    Ok(SealedEnvelope {
        bytes,
        hash: envelope_hash(&digest, &signature),
    })
}

fn signed_digest(
    context: &MessageContext<'_>,
    commitment: &[u8; COMMITMENT_LEN],
    ciphertext: &[u8],
) -> Digest {
    let (stream, topic, header) = (context.stream, context.topic, context.header);
    let content = bulk_digest(CIPHERTEXT_LABEL, ciphertext);
    let parts: [&[u8]; 5] = [stream, topic, header, commitment, content.as_bytes()];
    digest(SIGN_LABEL, &parts)
}

fn envelope_hash(signed: &Digest, signature: &Signature) -> EnvelopeHash {
    let whole = digest(HASH_LABEL, &[signed.as_bytes(), signature.as_bytes()]);
    EnvelopeHash(first_half(&whole))
}

/// What short ids keep of a hash.
pub(super) fn first_half(digest: &Digest) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&digest.as_bytes()[..16]);
    half
}

/// Why a message was not sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The plaintext is longer than an envelope may carry: publish it in parts.
    #[error("{len} bytes are more than the {PAYLOAD_MAX} that one message may have")]
    TooLong {
        /// Bytes of the plaintext.
        len: usize,
    },
    /// The position does not fit into 48 bits.
    #[error("the position is outside the key tree")]
    OutOfRange,
    /// There is no record in the frame.
    #[error("a frame has at least one record")]
    EmptyFrame,
}

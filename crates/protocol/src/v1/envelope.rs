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
use crate::ids::{EnvelopeHash, Position, StreamId};
use crate::signed::VerifyError;
use crate::v1::batch::{BATCH_MAX, BATCH_OVERHEAD_MAX, Proof, Tree};
use crate::v1::frame::Frame;
use crate::v1::header::{Flags, Header};

/// Bytes that an envelope adds to its plaintext: header, commitment, tag and signature. One that is
/// signed with others has up to [`BATCH_OVERHEAD_MAX`] more.
pub const ENVELOPE_OVERHEAD: usize = HEADER_LEN + COMMITMENT_LEN + TAG_LEN + SIGNATURE_LEN;
/// Longest plaintext of an envelope, in bytes: 16 MiB, and room for a frame's own fields.
pub const PAYLOAD_MAX: usize = (16 << 20) + (64 << 10);

const SIGNATURE_LEN: usize = 64;
const SIGN_LABEL: &str = "sealcast.v1 envelope digest";
const CIPHERTEXT_LABEL: &str = "sealcast.v1 envelope ciphertext";

/// An envelope whose shape is right, and of which nothing may be believed yet.
#[derive(Clone, Copy)]
pub struct EnvelopeView<'a> {
    header: Header,
    header_bytes: &'a [u8; HEADER_LEN],
    commitment: &'a [u8; COMMITMENT_LEN],
    ciphertext: &'a [u8],
    /// What of its batch stands between ciphertext and signature.
    proof: Option<Proof<'a>>,
    signature: &'a [u8; SIGNATURE_LEN],
}

impl<'a> EnvelopeView<'a> {
    /// Takes the bytes of an envelope apart, without copying them.
    ///
    /// # Errors
    ///
    /// Fails when they are too few or too many, or the header is none that can be opened here.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        if bytes.len() < ENVELOPE_OVERHEAD {
            return Err(DecodeError::Malformed);
        }
        let parts = || {
            let (header, rest) = bytes.split_first_chunk()?;
            let (commitment, rest) = rest.split_first_chunk()?;
            let (rest, signature) = rest.split_last_chunk()?;
            Some((header, commitment, rest, signature))
        };
        let (header_bytes, commitment, rest, signature) = parts().ok_or(DecodeError::Malformed)?;
        let header = Header::decode(header_bytes)?;
        let (ciphertext, proof) = match header.flags.batch {
            true => {
                let (ciphertext, proof) = Proof::split(rest).ok_or(DecodeError::Malformed)?;
                (ciphertext, Some(proof))
            }
            false => (rest, None),
        };
        match ciphertext.len().checked_sub(TAG_LEN) {
            None => return Err(DecodeError::Malformed),
            Some(0..=PAYLOAD_MAX) => {}
            Some(len) => {
                return Err(DecodeError::TooLong {
                    len,
                    len_max: PAYLOAD_MAX,
                });
            }
        }
        Ok(Self {
            header,
            header_bytes,
            commitment,
            ciphertext,
            proof,
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

    /// Where it is in its batch, as it travels; empty where it was signed by itself.
    pub fn proof(&self) -> &'a [u8] {
        self.proof.map_or(&[], |proof| proof.bytes())
    }

    /// The signature: of the envelope alone, or of its batch.
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
        let digest = own_digest(&context, self.commitment, self.ciphertext);
        BoundEnvelope {
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
        self.bind(stream, topic).hash()
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
}

impl<'a> BoundEnvelope<'a> {
    /// What the envelope says about itself.
    pub fn header(&self) -> &Header {
        &self.view.header
    }

    /// What the next envelope's `prev` says; not to be believed before the signature holds.
    pub fn hash(&self) -> EnvelopeHash {
        envelope_hash(&self.digest)
    }

    /// Checks the signature, without another pass over the ciphertext.
    ///
    /// # Errors
    ///
    /// Fails when `key` did not sign exactly this envelope for this stream and topic.
    pub fn verify(self, key: &VerifyingKey) -> Result<VerifiedEnvelope<'a>, VerifyError> {
        let signed = self
            .view
            .proof
            .map_or(self.digest, |of| of.root(&self.digest));
        key.verify(&signed, &self.view.signature())
            .map_err(|_| VerifyError::BadSignature)?;
        Ok(VerifiedEnvelope(self))
    }

    /// As [`verify`](Self::verify), faster where few keys sign much, and for the second and later
    /// envelopes of a batch.
    ///
    /// # Errors
    ///
    /// As [`verify`](Self::verify).
    pub fn verify_by(
        self,
        verifier: &mut Verifier,
        key: &VerifyingKey,
    ) -> Result<VerifiedEnvelope<'a>, VerifyError> {
        let signature = self.view.signature();
        match self.view.proof {
            Some(proof) => verifier.verify_again(key, &proof.root(&self.digest), &signature),
            None => verifier.verify(key, &self.digest, &signature),
        }
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
        self.0.hash()
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

/// An envelope that is sealed and not signed yet.
pub struct Unsigned {
    bytes: Vec<u8>,
    digest: Digest,
    flags: Flags,
}

impl Unsigned {
    /// What the next envelope's `prev` says.
    pub fn hash(&self) -> EnvelopeHash {
        envelope_hash(&self.digest)
    }

    /// Signs it by itself; as a batch of one where its header says that it is of a batch.
    pub fn sign(self, signing: &SigningKey) -> SealedEnvelope {
        if self.flags.batch {
            let tree = Tree::of([self.digest].into_iter());
            let signature = signing.sign(tree.root());
            return self.finish(Some((&tree, 0)), &signature);
        }
        let signature = signing.sign(&self.digest);
        self.finish(None, &signature)
    }

    fn finish(mut self, of: Option<(&Tree, usize)>, signature: &Signature) -> SealedEnvelope {
        let hash = self.hash();
        if let Some((tree, place)) = of {
            tree.write_proof(place, &mut self.bytes);
        }
        self.bytes.extend_from_slice(signature.as_bytes());
        SealedEnvelope {
            bytes: self.bytes,
            hash,
        }
    }
}

impl fmt::Debug for Unsigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unsigned({}, {} bytes)", self.hash(), self.bytes.len())
    }
}

/// Signs several envelopes at once; each of them is checked without the others.
///
/// # Errors
///
/// Fails when there are more than [`BATCH_MAX`], or when the header of one does not say that it is of
/// a batch.
pub fn sign_batch(
    signing: &SigningKey,
    batch: Vec<Unsigned>,
) -> Result<Vec<SealedEnvelope>, SealError> {
    let is_batch = batch.iter().all(|of| of.flags.batch) && batch.len() <= BATCH_MAX;
    if !is_batch {
        return Err(SealError::NoBatch);
    }
    let tree = Tree::of(batch.iter().map(|of| of.digest));
    let signature = signing.sign(tree.root());
    let places = batch.into_iter().enumerate();
    let signed = places.map(|(place, of)| of.finish(Some((&tree, place)), &signature));
    Ok(signed.collect())
}

/// What goes into one envelope.
#[derive(Clone, Copy)]
pub enum Draft<'a> {
    /// One record, made at the position where it is sealed.
    Single(&'a [u8]),
    /// Several records, each with a time of its own. The header says then that it is a frame, whatever
    /// its flag was.
    Frame(&'a Frame),
}

impl Draft<'_> {
    /// How long its plaintext is where it is sealed at `position`.
    pub fn plaintext_len(&self, position: Position) -> usize {
        match self {
            Self::Single(payload) => payload.len(),
            Self::Frame(frame) => frame.plaintext_len(position),
        }
    }
}

impl fmt::Debug for Draft<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Single(payload) => write!(f, "Single({} bytes)", payload.len()),
            Self::Frame(frame) => frame.fmt(f),
        }
    }
}

/// Seals and signs a message, as [`seal_unsigned`] and [`Unsigned::sign`] do.
///
/// # Errors
///
/// As [`seal_unsigned`].
pub fn seal(
    leaf: &Leaf<'_>,
    signing: &SigningKey,
    stream: &StreamId,
    topic: &[u8],
    header: &Header,
    plaintext: &[u8],
) -> Result<SealedEnvelope, SealError> {
    let sealed = seal_unsigned(leaf, stream, topic, header, Draft::Single(plaintext))?;
    Ok(sealed.sign(signing))
}

/// Seals a message. The plaintext is copied once, into the buffer that travels, and encrypted there.
///
/// `leaf` must be the leaf of the header's position in the header's session.
///
/// # Errors
///
/// Fails when the plaintext is longer than [`PAYLOAD_MAX`], the position is outside the key tree, or
/// there is no record in a frame.
pub fn seal_unsigned(
    leaf: &Leaf<'_>,
    stream: &StreamId,
    topic: &[u8],
    header: &Header,
    draft: Draft<'_>,
) -> Result<Unsigned, SealError> {
    let mut header = *header;
    if let Draft::Frame(frame) = draft {
        if frame.is_empty() {
            return Err(SealError::EmptyFrame);
        }
        header.flags.frame = true;
    }
    let len = draft.plaintext_len(header.position);
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
    let of_batch = usize::from(header.flags.batch) * BATCH_OVERHEAD_MAX;
    let mut bytes = Vec::with_capacity(ENVELOPE_OVERHEAD + of_batch + len);
    bytes.extend_from_slice(&header_bytes);
    bytes.extend_from_slice(&commitment);
    match draft {
        Draft::Single(payload) => bytes.extend_from_slice(payload),
        Draft::Frame(frame) => frame.write(header.position, &mut bytes),
    }
    key.seal_in_place(&context, &mut bytes, HEADER_LEN + COMMITMENT_LEN);
    let ciphertext = bytes.get(HEADER_LEN + COMMITMENT_LEN..).unwrap_or_default();
    Ok(Unsigned {
        digest: own_digest(&context, &commitment, ciphertext),
        bytes,
        flags: header.flags,
    })
}

/// What is signed of an envelope, by itself or with those of others.
fn own_digest(
    context: &MessageContext<'_>,
    commitment: &[u8; COMMITMENT_LEN],
    ciphertext: &[u8],
) -> Digest {
    let (stream, topic, header) = (context.stream, context.topic, context.header);
    let content = bulk_digest(CIPHERTEXT_LABEL, ciphertext);
    let parts: [&[u8]; 5] = [stream, topic, header, commitment, content.as_bytes()];
    digest(SIGN_LABEL, &parts)
}

fn envelope_hash(own: &Digest) -> EnvelopeHash {
    EnvelopeHash(first_half(own))
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
    /// Too many envelopes for one signature, or one whose header does not say that it is of a batch.
    #[error("a batch has at most {BATCH_MAX} envelopes, and all of them say that they are of one")]
    NoBatch,
}

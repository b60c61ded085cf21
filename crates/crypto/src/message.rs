//! Keys of single messages, and sealing with them (`spec/key-tree.md`, sections "Message keys" and
//! "Sealing").

use alloc::vec::Vec;

use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use crate::backend;
use crate::digest::{absorb, delimited};
use crate::secret::{SecretArray, redacted_debug, wipe};
use crate::walker::Leaf;

/// Bytes of a commitment to a message key.
pub const COMMITMENT_LEN: usize = 24;

/// Bytes that sealing adds.
pub const TAG_LEN: usize = 16;

/// Bytes of an envelope's header without the commitment.
pub const HEADER_LEN: usize = 72;

/// `spec/key-tree.md`, section "Message keys".
const KEY_LABEL: &str = "sealcast.v1 message key";

/// `spec/key-tree.md`, section "Sealing".
const SEAL_LABEL: &str = "sealcast.v1 message";

/// The key seals one message only, so one nonce serves.
const NONCE: [u8; 12] = [0; 12];

/// What a message is bound to besides its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageContext<'a> {
    /// Id of the stream.
    pub stream: &'a [u8; 32],
    /// Topic below the stream; empty when there is none.
    pub topic: &'a [u8],
    /// Header of the envelope, without the commitment.
    pub header: &'a [u8; HEADER_LEN],
}

impl<'a> MessageContext<'a> {
    fn parts(&self) -> [&'a [u8]; 3] {
        [self.stream, self.topic, self.header]
    }
}

/// Reads one message.
///
/// ```
/// # use sealcast_crypto::{Cover, MessageContext, MessageKey, SessionRoot, Walker};
/// # let root = SessionRoot::init_with(|bytes| bytes.fill(7));
/// # let mut walker = Walker::new(Cover::whole(&root));
/// # let context = MessageContext { stream: &[1; 32], topic: b"", header: &[2; 72] };
/// let key = MessageKey::derive(&walker.leaf(5).ok_or("outside")?, &context);
/// let shown = key.commitment();
/// # Ok::<(), &str>(())
/// ```
///
/// ```compile_fail,E0599
/// # use sealcast_crypto::{Cover, MessageContext, MessageKey, SessionRoot, Walker};
/// # let root = SessionRoot::init_with(|bytes| bytes.fill(7));
/// # let mut walker = Walker::new(Cover::whole(&root));
/// # let context = MessageContext { stream: &[1; 32], topic: b"", header: &[2; 72] };
/// let key = MessageKey::derive(&walker.leaf(5).ok_or("outside")?, &context);
/// let copy = key.clone();
/// # Ok::<(), &str>(())
/// ```
pub struct MessageKey {
    key: SecretArray<32>,
    /// Stands in the envelope, so it need not be wiped.
    commitment: [u8; COMMITMENT_LEN],
}

impl MessageKey {
    /// Derives the key of the message with this context at the leaf's position.
    pub fn derive(leaf: &Leaf<'_>, context: &MessageContext<'_>) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(leaf.expose());
        absorb(&mut hasher, KEY_LABEL, &context.parts());
        let mut reader = hasher.finalize_xof();
        let key = SecretArray::init_with(|bytes| reader.fill(bytes));
        let mut commitment = [0; COMMITMENT_LEN];
        reader.fill(&mut commitment);
        reader.zeroize();
        hasher.zeroize();
        Self { key, commitment }
    }

    /// What an envelope shows of its key: it fits this key alone and opens nothing.
    pub fn commitment(&self) -> [u8; COMMITMENT_LEN] {
        self.commitment
    }

    /// Compares with an envelope's commitment, in constant time.
    pub fn commitment_matches(&self, commitment: &[u8; COMMITMENT_LEN]) -> bool {
        self.commitment.ct_eq(commitment).into()
    }

    /// Seals a message, giving ciphertext and tag. The buffer grows by [`TAG_LEN`], without being
    /// moved when there is room.
    ///
    /// # Panics
    ///
    /// Panics when the message is longer than 64 GiB.
    pub fn seal(&self, context: &MessageContext<'_>, mut plaintext: Vec<u8>) -> Vec<u8> {
        self.seal_in_place(context, &mut plaintext, 0);
        plaintext
    }

    /// Seals `buffer[from..]` where it lies and appends the tag.
    ///
    /// # Panics
    ///
    /// Panics when `from` lies behind the buffer's end, or the message is longer than 64 GiB.
    pub fn seal_in_place(&self, context: &MessageContext<'_>, buffer: &mut Vec<u8>, from: usize) {
        assert!(from <= buffer.len(), "a message begins inside its buffer");
        let aad = delimited(SEAL_LABEL, &context.parts());
        let tag = backend::seal_in_place(self.key.expose(), NONCE, &aad, &mut buffer[from..]);
        buffer.extend_from_slice(&tag);
    }

    /// Opens ciphertext and tag.
    ///
    /// # Errors
    ///
    /// Fails when they were not sealed with this key in this context.
    pub fn open(&self, context: &MessageContext<'_>, sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        let mut buffer = sealed.to_vec();
        self.open_in_place(context, &mut buffer)?;
        Ok(buffer)
    }

    /// Opens ciphertext and tag where they lie and leaves the plaintext in the buffer.
    ///
    /// # Errors
    ///
    /// Fails when they were not sealed with this key in this context; the buffer is empty then.
    pub fn open_in_place(
        &self,
        context: &MessageContext<'_>,
        buffer: &mut Vec<u8>,
    ) -> Result<(), OpenError> {
        let opened = self
            .open_within(context, buffer)
            .map(|plaintext| plaintext.len());
        buffer.truncate(opened.unwrap_or(0));
        opened.map(|_| ())
    }

    /// Opens ciphertext and tag inside a larger buffer and shows where the plaintext lies.
    ///
    /// # Errors
    ///
    /// Fails when they were not sealed with this key in this context; the bytes are wiped then.
    pub fn open_within<'a>(
        &self,
        context: &MessageContext<'_>,
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], OpenError> {
        let aad = delimited(SEAL_LABEL, &context.parts());
        let (text, tag) = sealed
            .split_last_chunk_mut::<TAG_LEN>()
            .ok_or(OpenError::NotAuthentic)?;
        if !backend::open_in_place(self.key.expose(), NONCE, &aad, text, tag) {
            wipe(text);
            return Err(OpenError::NotAuthentic);
        }
        Ok(text)
    }
}

redacted_debug!(MessageKey);

/// Opening fails one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The bytes were altered, or sealed with another key or in another context.
    #[error("not authentic")]
    NotAuthentic,
}

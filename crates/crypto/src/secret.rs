//! How secrets are held.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use rand_core::CryptoRng;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A secret of fixed length. It is boxed so that moves copy a pointer and leave no bytes behind.
#[derive(ZeroizeOnDrop)]
pub(crate) struct SecretArray<const N: usize>(Box<[u8; N]>);

impl<const N: usize> SecretArray<N> {
    /// Makes a secret in place, so that its bytes never lie anywhere else.
    pub(crate) fn init_with(fill: impl FnOnce(&mut [u8; N])) -> Self {
        let mut secret = Self(Box::new([0; N]));
        fill(&mut secret.0);
        secret
    }

    pub(crate) fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        Self::init_with(|bytes| rng.fill_bytes(bytes))
    }

    pub(crate) fn duplicate(&self) -> Self {
        Self::init_with(|bytes| bytes.copy_from_slice(&*self.0))
    }

    pub(crate) fn expose(&self) -> &[u8; N] {
        &self.0
    }
}

/// Builds only while a type from elsewhere wipes itself, which hangs on features of its crate.
pub(crate) const fn assert_wiped<T: ZeroizeOnDrop>() {}

/// Prints the name of a type that holds a secret, and nothing else.
macro_rules! redacted_debug {
    ($($name:ident)+) => {$(
        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    )+};
}
pub(crate) use redacted_debug;

/// Secret bytes of any length: unwrapped keys, opened store values.
///
/// They never move to a larger buffer, which would leave a copy behind: room is taken once.
///
/// ```
/// let bytes = sealcast_crypto::SecretBytes::from(vec![7; 32]);
/// let shown = bytes.expose();
/// ```
///
/// ```compile_fail,E0599
/// let bytes = sealcast_crypto::SecretBytes::from(vec![7; 32]);
/// let copy = bytes.clone();
/// ```
pub struct SecretBytes(Vec<u8>);

impl SecretBytes {
    /// Takes room for `capacity` bytes, the most that it will ever hold.
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    /// Appends bytes.
    ///
    /// # Panics
    ///
    /// Panics when the bytes do not fit into the capacity.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        assert!(
            bytes.len() <= self.0.capacity() - self.0.len(),
            "secret bytes fit into the room that was taken for them"
        );
        self.0.extend_from_slice(bytes);
    }

    /// Makes a second copy, for a holder that must outlive this one.
    pub fn duplicate(&self) -> Self {
        let mut copy = Self::with_capacity(self.0.len());
        copy.extend_from_slice(&self.0);
        copy
    }

    /// Shows the bytes.
    #[inline]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Hands the bytes over to a holder who wipes them, or need not.
    pub fn into_vec(mut self) -> Vec<u8> {
        core::mem::take(&mut self.0)
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Vec<u8>> for SecretBytes {
    #[inline]
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

/// Wipes all the room that was taken, whatever of it is in use.
impl Drop for SecretBytes {
    #[inline]
    fn drop(&mut self) {
        // A vector wipes what it holds byte by byte, and its spare room at one go.
        self.0.clear();
        self.0.zeroize();
    }
}

impl ZeroizeOnDrop for SecretBytes {}

redacted_debug!(SecretBytes);

/// Wipes bytes at one go: what a failed decryption left, or the used part of a larger room.
pub fn wipe(bytes: &mut [u8]) {
    bytes.zeroize();
}

impl<const N: usize> fmt::Debug for SecretArray<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretArray(..)")
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use alloc::vec;
    use std::format;

    use super::*;

    #[test]
    fn debug_shows_no_secret_bytes() {
        assert_eq!(
            format!("{:?}", SecretBytes::from(vec![7; 4])),
            "SecretBytes(..)"
        );
        let array = SecretArray::<4>::init_with(|bytes| bytes.fill(7));
        assert_eq!(format!("{array:?}"), "SecretArray(..)");
    }

    #[test]
    fn a_duplicate_holds_the_same_bytes() {
        assert_eq!(SecretBytes::from(vec![7; 4]).duplicate().expose(), &[7; 4]);
    }

    #[test]
    fn secret_bytes_stay_where_they_are_up_to_their_capacity() {
        let mut bytes = SecretBytes::with_capacity(64);
        bytes.extend_from_slice(&[1; 32]);
        let place = bytes.expose().as_ptr();
        bytes.extend_from_slice(&[2; 32]);
        assert_eq!(bytes.expose().as_ptr(), place);
        assert_eq!(bytes.len(), 64);
    }

    #[test]
    #[should_panic(expected = "fit into the room")]
    fn secret_bytes_refuse_to_regrow() {
        let mut bytes = SecretBytes::with_capacity(4);
        let room = bytes.0.capacity();
        bytes.extend_from_slice(&vec![1; room + 1]);
    }
}

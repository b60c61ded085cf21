//! Every hash that is signed or that names something (`spec/primitives.md`, section "Digests").

use alloc::vec::Vec;
use core::fmt;

/// A BLAKE3 hash of delimited parts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({})", Hex(&self.0))
    }
}

/// Hashes a label and parts; no two different lists of parts are hashed as the same bytes.
///
/// Use one label for one meaning, starting with `"sealcast.v1 "`.
pub fn digest(label: &str, parts: &[&[u8]]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    absorb(&mut hasher, label, parts);
    Digest(*hasher.finalize().as_bytes())
}

/// Hashes bytes that may be many by themselves; the result is a part of a [`digest`].
///
/// Nothing stands in front of the bytes, so that BLAKE3 takes them in whole chunks, many at once.
/// The label is kept apart from them by BLAKE3 itself, in its mode for deriving keys.
pub fn bulk_digest(label: &str, bytes: &[u8]) -> Digest {
    Digest(blake3::derive_key(label, bytes))
}

/// The very bytes that [`digest`] hashes: for the `info` of a wrap and other contexts that are
/// bound whole.
pub fn delimited(label: &str, parts: &[&[u8]]) -> Vec<u8> {
    let lengths = 8 + 8 * parts.len();
    let bytes: usize = parts.iter().map(|part| part.len()).sum();
    let mut joined = Vec::with_capacity(lengths + label.len() + bytes);
    for part in core::iter::once(&label.as_bytes()).chain(parts) {
        joined.extend_from_slice(&(part.len() as u64).to_le_bytes());
        joined.extend_from_slice(part);
    }
    joined
}

/// Feeds what [`delimited`] joins to a hasher, without joining it.
pub(crate) fn absorb(hasher: &mut blake3::Hasher, label: &str, parts: &[&[u8]]) {
    for part in core::iter::once(&label.as_bytes()).chain(parts) {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
}

/// Shows bytes in lower-case hexadecimal.
pub(crate) struct Hex<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::{format, string::ToString};

    use super::*;

    const LABEL: &str = "sealcast.v1 test";

    #[test]
    fn a_digest_is_blake3_of_the_delimited_parts() {
        let joined = b"\x10\0\0\0\0\0\0\0sealcast.v1 test\x02\0\0\0\0\0\0\0ab\0\0\0\0\0\0\0\0";
        assert_eq!(delimited(LABEL, &[b"ab", b""]), joined);
        assert_eq!(
            digest(LABEL, &[b"ab", b""]).as_bytes(),
            blake3::hash(joined).as_bytes()
        );
        assert_eq!(
            Hex(digest(LABEL, &[b"ab", b""]).as_bytes()).to_string(),
            "bdadab1e631bd212d3e25739ab3b464b7215c8f98ae3851654454655e83cd71f"
        );
    }

    /// fault 5
    #[test]
    fn moving_a_byte_over_a_border_changes_the_digest() {
        let split = digest(LABEL, &[b"ab", b"c"]);
        assert_ne!(split, digest(LABEL, &[b"a", b"bc"]));
        assert_ne!(split, digest(LABEL, &[b"abc"]));
        assert_ne!(split, digest(LABEL, &[b"ab", b"c", b""]));
        assert_ne!(split, digest("sealcast.v1 testa", &[b"b", b"c"]));
    }

    /// fault 5
    #[test]
    fn a_bulk_digest_is_under_its_label_and_no_digest_of_anything_else() {
        let bulk = bulk_digest(LABEL, b"ab");
        assert_eq!(
            Hex(bulk.as_bytes()).to_string(),
            "607f040b08549b15fc070824029ac0b6ea709e5c0c19bf6da77985d7b18d64c1"
        );
        assert_ne!(bulk, bulk_digest("sealcast.v1 testa", b"b"));
        assert_ne!(bulk, digest(LABEL, &[b"ab"]));
        let joined = [LABEL.as_bytes(), b"ab"].concat();
        assert_ne!(bulk.as_bytes(), blake3::hash(&joined).as_bytes());
    }

    #[test]
    fn debug_shows_the_digest_in_hexadecimal() {
        let shown = format!("{:?}", Digest([0xab; 32]));
        assert_eq!(shown, format!("Digest({})", "ab".repeat(32)));
    }
}

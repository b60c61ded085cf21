//! The one encoding rule, `spec/encoding.md`: deterministic CBOR, arrays only, every length bounded.

use alloc::vec::Vec;

use minicbor::encode::Write;
use minicbor::{CborLen, Decode, Encode};

/// Encodes a value; the buffer is allocated once, at its final size.
///
/// ```
/// assert_eq!(sealcast_protocol::encode(&7_u64), [7]);
/// ```
pub fn encode<T: Encode<()> + CborLen<()>>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(minicbor::len(value));
    let done = minicbor::encode(value, &mut bytes);
    assert!(done.is_ok(), "what travels always encodes into memory");
    bytes
}

/// Decodes bytes that must be the one encoding of their value.
///
/// # Errors
///
/// Fails when the bytes are more than `len_max`, are not the expected shape, have something behind
/// them, or are not what [`encode`] makes of the same value.
pub fn decode<T>(bytes: &[u8], len_max: usize) -> Result<T, DecodeError>
where
    T: for<'b> Decode<'b, ()> + Encode<()> + CborLen<()>,
{
    if bytes.len() > len_max {
        return Err(DecodeError::TooLong {
            len: bytes.len(),
            len_max,
        });
    }
    let value: T = minicbor::decode(bytes).map_err(|_| DecodeError::Malformed)?;
    match is_encoding_of(bytes, &value) {
        true => Ok(value),
        false => Err(DecodeError::NotCanonical),
    }
}

/// Whether bytes are what [`encode`] makes of a value.
pub(crate) fn is_encoding_of<T: Encode<()>>(bytes: &[u8], value: &T) -> bool {
    let mut rest = Expected(bytes);
    minicbor::encode(value, &mut rest).is_ok() && rest.0.is_empty()
}

/// Compares what is written with what is expected. A copy of it could be one of keys.
struct Expected<'a>(&'a [u8]);

impl Write for Expected<'_> {
    type Error = ();

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), ()> {
        self.0 = self.0.strip_prefix(bytes).ok_or(())?;
        Ok(())
    }
}

/// Why bytes were not taken for an object. Nothing of them was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// More bytes than this kind of object may have.
    #[error("{len} bytes are more than the {len_max} allowed here")]
    TooLong {
        /// Bytes that came.
        len: usize,
        /// Bytes that are allowed.
        len_max: usize,
    },
    /// The bytes do not have the shape of the object.
    #[error("malformed bytes")]
    Malformed,
    /// The bytes have the right shape, but are not the one encoding of their value.
    #[error("bytes are not in canonical form")]
    NotCanonical,
    /// The object was made by a newer version of the format.
    #[error("format version {found} is newer than this program knows")]
    UnknownVersion {
        /// Version that the bytes name.
        found: u8,
    },
    /// The envelope was sealed with a suite that this program cannot open.
    #[error("suite {found} is not known")]
    UnknownSuite {
        /// Suite that the bytes name.
        found: u8,
    },
    /// The envelope's header sets flags without a meaning.
    #[error("flags {found:#04x} are not known")]
    UnknownFlags {
        /// Flags that the bytes name.
        found: u8,
    },
    /// A field is outside the range that its page of `spec/` allows.
    #[error("a field is out of range")]
    OutOfRange,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_form_of_the_same_number_is_refused() {
        assert_eq!(decode::<u64>(&[7], 9), Ok(7));
        assert_eq!(decode::<u64>(&[0x18, 7], 9), Err(DecodeError::NotCanonical));
    }

    #[test]
    fn bytes_behind_the_value_are_refused() {
        assert_eq!(decode::<u64>(&[7, 0], 9), Err(DecodeError::NotCanonical));
    }

    #[test]
    fn too_many_bytes_are_refused_unread() {
        let error = DecodeError::TooLong { len: 2, len_max: 1 };
        assert_eq!(decode::<u64>(&[0x18, 24], 1), Err(error));
    }
}

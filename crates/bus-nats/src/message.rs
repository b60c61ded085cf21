//! What one append looks like on the server: spec/bus-nats.md, section 3.

use bytes::Bytes;
use sealcast_bus::{Offset, Packed};

/// What every message begins with, whatever its version.
const MAGIC: [u8; 3] = *b"SCN";
/// The version that this program writes.
pub(crate) const VERSION: u8 = 1;
const INLINE: u8 = 0;
const IN_PARTS: u8 = 1;
/// Bytes before the body.
pub(crate) const HEADER_BYTES: usize = 49;
const PART_BYTES: usize = 8;
/// The most parts that a message names.
pub(crate) const PARTS_MAX: usize = 2_048;

/// Names one append, so that its writer knows it again.
pub(crate) type AppendId = [u8; 16];

/// What a message says before its payloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The sequence number of the message before it on the subject; 0 for none.
    pub(crate) prev: u64,
    /// The offset of the first of its items.
    pub(crate) first: u64,
    /// How many items it has.
    pub(crate) count: u32,
    /// The first offset of the topic that is not trimmed.
    pub(crate) left: u64,
    pub(crate) id: AppendId,
}

impl Header {
    /// The offset behind its items, which ends the topic while no message follows.
    pub(crate) fn end(&self) -> u64 {
        self.first.saturating_add(u64::from(self.count))
    }

    /// Its payloads, each where it lies.
    pub(crate) fn packed(&self, parts: Vec<Bytes>) -> Option<Packed> {
        Packed::of_parts(Offset(self.first), self.count, parts)
    }
}

/// Where the payloads of a message are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// In the message itself, packed.
    Inline(Bytes),
    /// In messages of their own, at these sequence numbers, packed and then cut.
    InParts(Vec<u64>),
}

/// A message of a log's subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) header: Header,
    pub(crate) body: Body,
}

/// Why the bytes of a message cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Odd {
    /// Written by a later version of this program.
    TooNew(u8),
    /// Not a message of a bus.
    Garbled,
}

impl Message {
    /// Whether it holds its payloads itself.
    pub(crate) fn is_inline(&self) -> bool {
        matches!(self.body, Body::Inline(_))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let (kind, len) = match &self.body {
            Body::Inline(packed) => (INLINE, packed.len()),
            Body::InParts(parts) => (IN_PARTS, parts.len() * PART_BYTES),
        };
        let header = &self.header;
        let mut bytes = Vec::with_capacity(HEADER_BYTES + len);
        bytes.extend(MAGIC);
        bytes.extend([VERSION, kind]);
        bytes.extend(header.prev.to_be_bytes());
        bytes.extend(header.first.to_be_bytes());
        bytes.extend(header.count.to_be_bytes());
        bytes.extend(header.left.to_be_bytes());
        bytes.extend(header.id);
        match &self.body {
            Body::Inline(packed) => bytes.extend_from_slice(packed),
            Body::InParts(parts) => bytes.extend(parts.iter().flat_map(|part| part.to_be_bytes())),
        }
        bytes
    }

    pub(crate) fn decode(bytes: &Bytes) -> Result<Self, Odd> {
        let mut rest = &bytes[..];
        let (magic, [version, kind]) = (*take(&mut rest)?, *take(&mut rest)?);
        match (magic, version) {
            (MAGIC, VERSION) => {}
            (MAGIC, later) if later > VERSION => return Err(Odd::TooNew(later)),
            _ => return Err(Odd::Garbled),
        }
        let header = Header {
            prev: u64::from_be_bytes(*take(&mut rest)?),
            first: u64::from_be_bytes(*take(&mut rest)?),
            count: u32::from_be_bytes(*take(&mut rest)?),
            left: u64::from_be_bytes(*take(&mut rest)?),
            id: *take(&mut rest)?,
        };
        let in_range = header.first.checked_add(u64::from(header.count));
        if in_range.is_none_or(|end| header.left > end) {
            return Err(Odd::Garbled);
        }
        let body = match kind {
            INLINE => {
                let packed = bytes.slice_ref(rest);
                header.packed(vec![packed.clone()]).ok_or(Odd::Garbled)?;
                Body::Inline(packed)
            }
            IN_PARTS => {
                let (parts, []) = rest.as_chunks::<PART_BYTES>() else {
                    return Err(Odd::Garbled);
                };
                if parts.len() > PARTS_MAX {
                    return Err(Odd::Garbled);
                }
                Body::InParts(parts.iter().map(|part| u64::from_be_bytes(*part)).collect())
            }
            _ => return Err(Odd::Garbled),
        };
        Ok(Self { header, body })
    }
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Result<&'a [u8; N], Odd> {
    let (taken, behind) = rest.split_first_chunk().ok_or(Odd::Garbled)?;
    *rest = behind;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(count: u32) -> Header {
        Header {
            prev: 7,
            first: 5,
            count,
            left: 2,
            id: [0xab; 16],
        }
    }

    fn inline(payloads: &[Vec<u8>]) -> Message {
        Message {
            header: header(u32::try_from(payloads.len()).unwrap()),
            body: Body::Inline(Packed::pack(payloads).unwrap().into()),
        }
    }

    fn in_parts(parts: &[u64]) -> Message {
        Message {
            header: header(2),
            body: Body::InParts(parts.to_vec()),
        }
    }

    fn decode(bytes: &[u8]) -> Result<Message, Odd> {
        Message::decode(&Bytes::copy_from_slice(bytes))
    }

    /// Bytes in hexadecimal digits, with spaces for the eye.
    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        let pairs = digits.chunks(2).map(|pair| str::from_utf8(pair).unwrap());
        pairs
            .map(|pair| u8::from_str_radix(pair, 16).unwrap())
            .collect()
    }

    /// The worked examples of spec/bus-nats.md.
    #[test]
    fn messages_are_written_and_read_as_the_spec_says() {
        let fields = "0000000000000007 0000000000000005 00000002 0000000000000002 \
                      abababababababababababababababab";
        let payloads = [b"a".to_vec(), b"bc".to_vec()];
        let here = format!("53434e 01 00 {fields} 00000001 00000002 61 6263");
        let parts = format!("53434e 01 01 {fields} 0000000000000003 0000000000000004");
        for (message, written) in [(inline(&payloads), here), (in_parts(&[3, 4]), parts)] {
            assert_eq!(message.encode(), bytes(&written));
            assert_eq!(decode(&message.encode()), Ok(message));
        }
    }

    #[test]
    fn whatever_is_cut_short_or_too_long_is_no_message() {
        let whole = inline(&[b"one".to_vec(), vec![], b"three".to_vec()]).encode();
        for length in 0..whole.len() {
            assert_eq!(
                decode(&whole[..length]),
                Err(Odd::Garbled),
                "{length} bytes"
            );
        }
        let mut longer = whole;
        longer.push(0);
        assert_eq!(decode(&longer), Err(Odd::Garbled));
        let mut odd_parts = in_parts(&[3]).encode();
        odd_parts.push(0);
        assert_eq!(decode(&odd_parts), Err(Odd::Garbled));
        let most: Vec<u64> = (1..=2_048).collect();
        assert!(decode(&in_parts(&most).encode()).is_ok());
        let more = [&most[..], &[1]].concat();
        assert_eq!(decode(&in_parts(&more).encode()), Err(Odd::Garbled));
    }

    #[test]
    fn a_later_version_is_told_from_garbage() {
        let mut message = inline(&[]).encode();
        message[3] = 2;
        assert_eq!(decode(&message), Err(Odd::TooNew(2)));
        message[3] = 0;
        assert_eq!(decode(&message), Err(Odd::Garbled));
        assert_eq!(decode(&[b'h'; 100]), Err(Odd::Garbled));
    }

    #[test]
    fn offsets_that_no_topic_can_have_are_garbage() {
        let with = |first, left| {
            let mut message = inline(&[b"a".to_vec()]);
            (message.header.first, message.header.left) = (first, left);
            decode(&message.encode()).map(|message| message.header.end())
        };
        assert_eq!(with(5, 6), Ok(6));
        assert_eq!(with(5, 7), Err(Odd::Garbled));
        assert_eq!(with(u64::MAX - 1, 0), Ok(u64::MAX));
        assert_eq!(with(u64::MAX, 0), Err(Odd::Garbled));
    }

    #[test]
    fn a_table_of_lengths_beyond_all_memory_is_garbage() {
        let mut message = inline(&[vec![1; 8]]);
        message.header.count = u32::MAX;
        assert_eq!(decode(&message.encode()), Err(Odd::Garbled));
        let mut lengths = inline(&[vec![1; 8]]).encode();
        lengths[HEADER_BYTES..HEADER_BYTES + 4].copy_from_slice(&[0xff; 4]);
        assert_eq!(decode(&lengths), Err(Odd::Garbled));
    }
}

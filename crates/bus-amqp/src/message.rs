//! What one append looks like on the server: spec/bus-amqp.md, section 3.

use bytes::Bytes;
use sealcast_bus::{Offset, Packed, Topic};

/// What every message begins with, whatever its version.
const MAGIC: [u8; 3] = *b"SCA";
/// The version that this program writes.
pub(crate) const VERSION: u8 = 1;
const OPENING: u8 = 0;
const INLINE: u8 = 1;
const IN_PARTS: u8 = 2;
const PART: u8 = 3;
const SENT: u8 = 4;
/// Stands for no message before this one.
const NONE: u64 = u64::MAX;
/// Bytes before what is in a part, and before that of anything else, at most.
const PART_HEAD_BYTES: usize = 25;
pub(crate) const HEAD_BYTES_MAX: usize = 1 << 10;

/// What names no message.
const NOBODY: AppendId = [0; 16];

/// Names one append, so that its writer knows it again, and so does what is behind it. Nobody else can know it before the
/// message lies there.
pub(crate) type AppendId = [u8; 16];
/// Names the parts of one append.
pub(crate) type PartsId = [u8; 16];

/// What a message says before its payloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Where in the queue a message before it is that belongs to the topic: the last that was known when this was written.
    pub(crate) prev: Option<u64>,
    /// The message right before it that belongs to the topic, or is to.
    pub(crate) behind: Option<AppendId>,
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

    /// Whether it may belong before a message that says so.
    pub(crate) fn may_be_before(&self, later: &Self) -> bool {
        match later.behind == Some(self.id) {
            true => self.end() == later.first,
            false => self.end() <= later.first,
        }
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
    /// In messages of their own before it, at `since` or behind that, packed and then cut.
    InParts { id: PartsId, since: u64, count: u32 },
}

impl Body {
    /// Bytes of payloads in the message itself.
    fn len(&self) -> usize {
        match self {
            Self::Inline(packed) => packed.len(),
            Self::InParts { .. } => 0,
        }
    }
}

/// An append, or a trim, of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) header: Header,
    pub(crate) body: Body,
}

/// A piece of packed payloads that are too many for one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) id: PartsId,
    pub(crate) number: u32,
    pub(crate) bytes: Bytes,
}

/// What may lie in the queue of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// Says nothing: a queue that has it is not empty.
    Opening,
    Message(Message),
    Part(Part),
}

/// Why bytes cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Odd {
    /// Written by a later version of this program, which leaves these fields where they are.
    TooNew { version: u8, header: Header },
    /// Nothing that a bus writes there, or of another topic.
    Garbled,
}

impl Record {
    pub(crate) fn encode(&self, topic: &Topic) -> Vec<u8> {
        let content = match self {
            Self::Message(Message { body, .. }) => body.len(),
            Self::Opening | Self::Part(_) => 0,
        };
        let mut bytes = Vec::with_capacity(HEAD_BYTES_MAX + content);
        bytes.extend(MAGIC);
        match self {
            Self::Opening => bytes.extend([VERSION, OPENING]),
            Self::Part(part) => {
                put_part_head(&mut bytes, part.id, part.number);
                bytes.extend(&part.bytes);
            }
            Self::Message(Message { header, body }) => {
                let kind = match body {
                    Body::Inline(_) => INLINE,
                    Body::InParts { .. } => IN_PARTS,
                };
                bytes.extend([VERSION, kind]);
                bytes.extend(header.prev.unwrap_or(NONE).to_be_bytes());
                bytes.extend(header.behind.unwrap_or(NOBODY));
                bytes.extend(header.first.to_be_bytes());
                bytes.extend(header.count.to_be_bytes());
                bytes.extend(header.left.to_be_bytes());
                bytes.extend(header.id);
                put_topic(&mut bytes, topic);
                match body {
                    Body::Inline(packed) => bytes.extend(packed),
                    Body::InParts { id, since, count } => {
                        bytes.extend(id);
                        bytes.extend(since.to_be_bytes());
                        bytes.extend(count.to_be_bytes());
                    }
                }
            }
        }
        bytes
    }

    /// Reads what lies in the queue of a topic.
    pub(crate) fn decode(bytes: &Bytes, topic: &Topic) -> Result<Self, Odd> {
        let (version, kind, mut rest) = open(bytes)?;
        if version > VERSION {
            let header = Header::decode(&mut rest, topic)?;
            return Err(Odd::TooNew { version, header });
        }
        Ok(match kind {
            OPENING if rest.is_empty() => Self::Opening,
            PART => {
                let (id, number) = (*take(&mut rest)?, take(&mut rest)?);
                Self::Part(Part {
                    id,
                    number: u32::from_be_bytes(*number),
                    bytes: bytes.slice_ref(rest),
                })
            }
            INLINE | IN_PARTS => Self::Message(Message::decode(kind, bytes, rest, topic)?),
            _ => return Err(Odd::Garbled),
        })
    }
}

impl Header {
    /// Reads what a message begins with, and the name of the topic.
    fn decode(rest: &mut &[u8], topic: &Topic) -> Result<Self, Odd> {
        let prev = u64::from_be_bytes(*take(rest)?);
        let behind = *take(rest)?;
        let header = Self {
            prev: (prev != NONE).then_some(prev),
            behind: (behind != NOBODY).then_some(behind),
            first: u64::from_be_bytes(*take(rest)?),
            count: u32::from_be_bytes(*take(rest)?),
            left: u64::from_be_bytes(*take(rest)?),
            id: *take(rest)?,
        };
        let in_range = header.first.checked_add(u64::from(header.count));
        if in_range.is_none_or(|end| header.left > end) || take_topic(rest)? != topic.as_ref() {
            return Err(Odd::Garbled);
        }
        Ok(header)
    }
}

impl Message {
    fn decode(kind: u8, bytes: &Bytes, mut rest: &[u8], topic: &Topic) -> Result<Self, Odd> {
        let header = Header::decode(&mut rest, topic)?;
        let body = if kind == INLINE {
            let packed = bytes.slice_ref(rest);
            header.packed(vec![packed.clone()]).ok_or(Odd::Garbled)?;
            Body::Inline(packed)
        } else {
            let id = *take(&mut rest)?;
            let since = u64::from_be_bytes(*take(&mut rest)?);
            let count = u32::from_be_bytes(*take(&mut rest)?);
            if !rest.is_empty() {
                return Err(Odd::Garbled);
            }
            Body::InParts { id, since, count }
        };
        Ok(Self { header, body })
    }
}

/// What is sent on an ephemeral topic.
pub(crate) fn encode_sent(topic: &Topic, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::from(MAGIC);
    bytes.extend([VERSION, SENT]);
    put_topic(&mut bytes, topic);
    bytes.extend(payload);
    bytes
}

/// The topic that something was sent on, and the payload.
pub(crate) fn decode_sent(bytes: &[u8]) -> Result<(&str, &[u8]), Odd> {
    let (version, kind, mut rest) = open(bytes)?;
    if version > VERSION || kind != SENT {
        return Err(Odd::Garbled);
    }
    let topic = take_topic(&mut rest)?;
    Ok((topic, rest))
}

/// The version, if it is this one or a later one, and the kind of a message.
fn open(bytes: &[u8]) -> Result<(u8, u8, &[u8]), Odd> {
    let mut rest = bytes;
    let (magic, [version, kind]) = (*take(&mut rest)?, *take(&mut rest)?);
    match magic == MAGIC && version >= VERSION {
        true => Ok((version, kind, rest)),
        false => Err(Odd::Garbled),
    }
}

/// Writes what a part begins with, behind the magic.
fn put_part_head(bytes: &mut Vec<u8>, id: PartsId, number: u32) {
    bytes.extend([VERSION, PART]);
    bytes.extend(id);
    bytes.extend(number.to_be_bytes());
}

fn put_topic(bytes: &mut Vec<u8>, topic: &Topic) {
    let name: &str = topic.as_ref();
    // A topic has 512 bytes at most.
    bytes.extend(u16::try_from(name.len()).unwrap_or(u16::MAX).to_be_bytes());
    bytes.extend(name.as_bytes());
}

fn take_topic<'a>(rest: &mut &'a [u8]) -> Result<&'a str, Odd> {
    let length = u16::from_be_bytes(*take(rest)?);
    let (name, behind) = rest.split_at_checked(length.into()).ok_or(Odd::Garbled)?;
    *rest = behind;
    str::from_utf8(name).map_err(|_| Odd::Garbled)
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Result<&'a [u8; N], Odd> {
    let (taken, behind) = rest.split_first_chunk().ok_or(Odd::Garbled)?;
    *rest = behind;
    Ok(taken)
}

/// The parts of an append as they are published: its packed payloads, cut after each `bytes_max` bytes.
/// `None` when a payload is longer than any may be.
pub(crate) fn pack_in_parts(
    id: PartsId,
    payloads: &[impl AsRef<[u8]>],
    bytes_max: usize,
) -> Option<Vec<Bytes>> {
    Packed::pack_in_parts(payloads, bytes_max, |number| {
        let mut head = Vec::with_capacity(PART_HEAD_BYTES + bytes_max);
        head.extend(MAGIC);
        put_part_head(&mut head, id, number);
        head
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic() -> Topic {
        Topic::new("a/b").unwrap()
    }

    fn header(count: u32) -> Header {
        Header {
            prev: Some(7),
            behind: Some([0xcd; 16]),
            first: 5,
            count,
            left: 2,
            id: [0xab; 16],
        }
    }

    fn message(header: Header, body: Body) -> Record {
        Record::Message(Message { header, body })
    }

    fn inline(payloads: &[Vec<u8>]) -> Record {
        let count = u32::try_from(payloads.len()).unwrap();
        message(
            header(count),
            Body::Inline(Packed::pack(payloads).unwrap().into()),
        )
    }

    fn decode(bytes: &[u8]) -> Result<Record, Odd> {
        Record::decode(&Bytes::copy_from_slice(bytes), &topic())
    }

    /// Bytes in hexadecimal digits, with spaces for the eye.
    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        let pairs = digits.chunks(2).map(|pair| str::from_utf8(pair).unwrap());
        pairs
            .map(|pair| u8::from_str_radix(pair, 16).unwrap())
            .collect()
    }

    /// The worked examples of spec/bus-amqp.md.
    #[test]
    fn messages_are_written_and_read_as_the_spec_says() {
        let fields = "0000000000000007 cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd 0000000000000005 00000002 0000000000000002 \
                      abababababababababababababababab 0003 612f62";
        let payloads = [b"a".to_vec(), b"bc".to_vec()];
        let here = format!("534341 01 01 {fields} 00000001 00000002 61 6263");
        let ef = "efefefefefefefefefefefefefefefef";
        let apart = format!("534341 01 02 {fields} {ef} 0000000000000008 00000002");
        let part = Record::Part(Part {
            id: [0xef; 16],
            number: 1,
            bytes: Bytes::from_static(b"c"),
        });
        let in_parts = Body::InParts {
            id: [0xef; 16],
            since: 8,
            count: 2,
        };
        for (record, written) in [
            (Record::Opening, "534341 01 00".to_owned()),
            (inline(&payloads), here),
            (message(header(2), in_parts), apart),
            (part, format!("534341 01 03 {ef} 00000001 63")),
        ] {
            assert_eq!(record.encode(&topic()), bytes(&written));
            assert_eq!(decode(&bytes(&written)), Ok(record));
        }
        let sent = bytes("534341 01 04 0003 612f62 6869");
        assert_eq!(encode_sent(&topic(), b"hi"), sent);
        assert_eq!(decode_sent(&sent), Ok(("a/b", &b"hi"[..])));
    }

    #[test]
    fn parts_together_are_the_packed_payloads() {
        let payloads: Vec<Vec<u8>> = (0..9).map(|len| vec![len; len.into()]).collect();
        let packed = Packed::pack(&payloads).unwrap();
        for bytes_max in 1..=packed.len() + 1 {
            let parts = pack_in_parts([3; 16], &payloads, bytes_max).unwrap();
            assert_eq!(parts.len(), packed.len().div_ceil(bytes_max));
            let content = |(number, part): (u32, Bytes)| match Record::decode(&part, &topic()) {
                Ok(Record::Part(part)) if part.number == number => part.bytes,
                other => panic!("{other:?}"),
            };
            let pieces: Vec<Bytes> = (0..).zip(parts).map(content).collect();
            assert!(pieces.iter().all(|piece| piece.len() <= bytes_max));
            assert_eq!(pieces.concat(), packed);
        }
    }

    #[test]
    fn whatever_is_cut_short_too_long_or_of_another_topic_is_nothing() {
        let payloads = [b"one".to_vec(), vec![], b"three".to_vec()];
        let in_parts = Body::InParts {
            id: [3; 16],
            since: 0,
            count: 1,
        };
        for record in [inline(&payloads), message(header(1), in_parts)] {
            let mut whole = record.encode(&topic());
            for length in 0..whole.len() {
                assert_eq!(decode(&whole[..length]), Err(Odd::Garbled), "{length}");
            }
            let other = Topic::new("a/c").unwrap();
            let elsewhere = Record::decode(&whole.clone().into(), &other);
            assert_eq!(elsewhere, Err(Odd::Garbled));
            whole.push(0);
            assert_eq!(decode(&whole), Err(Odd::Garbled));
        }
        for odd in [
            &b"SCA\x01\x00 "[..],
            b"SCA\x01\x03 ",
            b"SCA\x01\x04",
            b"SCN\x01\x00",
        ] {
            assert_eq!(decode(odd), Err(Odd::Garbled));
        }
        for odd in [
            &b"SCA\x01\x00"[..],
            b"SCA\x01\x04\x00\x05a/b",
            b"SCA\x01\x04\x00\x01\xff",
        ] {
            assert_eq!(decode_sent(odd), Err(Odd::Garbled));
        }
    }

    #[test]
    fn a_later_version_is_told_from_garbage() {
        let mut message = inline(&[]).encode(&topic());
        message[3] = 2;
        message[4] = 0xff;
        let (version, header) = (2, header(0));
        assert_eq!(decode(&message), Err(Odd::TooNew { version, header }));
        // One that names no topic is not in the way.
        assert_eq!(decode(&message[..message.len() - 1]), Err(Odd::Garbled));
        message[3] = 0;
        assert_eq!(decode(&message), Err(Odd::Garbled));
    }

    #[test]
    fn offsets_and_lengths_that_no_topic_can_have_are_garbage() {
        let with = |first, left, count| {
            let header = Header {
                first,
                left,
                count,
                ..header(1)
            };
            let body = Body::Inline(Packed::pack(&[b"a".to_vec()]).unwrap().into());
            decode(&message(header, body).encode(&topic())).map(|_| ())
        };
        assert_eq!(with(5, 6, 1), Ok(()));
        assert_eq!(with(u64::MAX - 1, 0, 1), Ok(()));
        for (first, left, count) in [(5, 7, 1), (u64::MAX, 0, 1), (5, 2, u32::MAX), (5, 2, 0)] {
            assert_eq!(with(first, left, count), Err(Odd::Garbled));
        }
        let mut lengths = inline(&[vec![1; 8]]).encode(&topic());
        let table = lengths.len() - 12;
        lengths[table..table + 4].copy_from_slice(&[0xff; 4]);
        assert_eq!(decode(&lengths), Err(Odd::Garbled));
    }
}

//! A message opens with its own key in its own context, and fails one way in every other.
#![cfg(test)]

use sealcast_crypto::{Cover, MessageContext, MessageKey, OpenError, SessionRoot, TAG_LEN, Walker};

const STREAM: [u8; 32] = [1; 32];
const HEADER: [u8; 72] = [2; 72];
const CONTEXT: MessageContext<'_> = MessageContext {
    stream: &STREAM,
    topic: b"boiler/3",
    header: &HEADER,
};

#[test]
fn a_message_opens_again_with_its_length_and_a_tag() {
    for length in [0, 1, 15, 16, 17, 1_000, 65_536] {
        let plaintext = vec![9; length];
        let sealed = key(5).seal(&CONTEXT, plaintext.clone());
        assert_eq!(sealed.len(), length + TAG_LEN);
        assert_eq!(key(5).open(&CONTEXT, &sealed).unwrap(), plaintext);
    }
}

/// fault 6
#[test]
fn a_wrong_key_opens_nothing() {
    let sealed = key(5).seal(&CONTEXT, b"21.5 C".to_vec());
    assert_eq!(key(6).open(&CONTEXT, &sealed), Err(OpenError::NotAuthentic));
}

/// fault 6
#[test]
fn every_flipped_bit_is_noticed() {
    let sealed = key(5).seal(&CONTEXT, b"21.5 C".to_vec());
    for bit in 0..sealed.len() * 8 {
        let mut altered = sealed.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(
            key(5).open(&CONTEXT, &altered),
            Err(OpenError::NotAuthentic)
        );
    }
}

#[test]
fn what_is_cut_or_grown_opens_nothing() {
    let mut sealed = key(5).seal(&CONTEXT, b"21.5 C".to_vec());
    for length in 0..sealed.len() {
        let cut = &sealed[..length];
        assert_eq!(key(5).open(&CONTEXT, cut), Err(OpenError::NotAuthentic));
    }
    sealed.push(0);
    assert_eq!(key(5).open(&CONTEXT, &sealed), Err(OpenError::NotAuthentic));
}

/// fault 4
#[test]
fn every_bit_of_stream_topic_and_header_is_bound_by_the_key_and_by_the_cipher() {
    let sealed = key(5).seal(&CONTEXT, b"21.5 C".to_vec());
    for other in altered_contexts() {
        let other = other.borrow();
        assert_ne!(key_in(5, &other).commitment(), key(5).commitment());
        let opened = key_in(5, &other).open(&other, &sealed);
        assert_eq!(opened, Err(OpenError::NotAuthentic), "key bound");
        let opened = key(5).open(&other, &sealed);
        assert_eq!(opened, Err(OpenError::NotAuthentic), "cipher bound");
    }
}

/// fault 5
#[test]
fn a_byte_moved_from_one_field_to_the_next_makes_another_message() {
    let mut header = HEADER;
    header[0] = b'3';
    let one = MessageContext {
        topic: b"boiler/3",
        ..CONTEXT
    };
    let other = MessageContext {
        topic: b"boiler/",
        header: &header,
        ..CONTEXT
    };
    assert_ne!(key_in(5, &one).commitment(), key_in(5, &other).commitment());
    let sealed = key(5).seal(&one, b"21.5 C".to_vec());
    assert_eq!(key(5).open(&other, &sealed), Err(OpenError::NotAuthentic));
}

#[test]
fn messages_in_place_are_what_messages_in_buffers_are() {
    let sealed = key(5).seal(&CONTEXT, b"21.5 C".to_vec());
    let mut buffer = b"head21.5 C".to_vec();
    key(5).seal_in_place(&CONTEXT, &mut buffer, 4);
    assert_eq!(buffer, [b"head", &sealed[..]].concat());
    let opened = key(5).open_within(&CONTEXT, &mut buffer[4..]).unwrap();
    assert_eq!(opened, b"21.5 C");
    let mut buffer = sealed;
    key(5).open_in_place(&CONTEXT, &mut buffer).unwrap();
    assert_eq!(buffer, b"21.5 C");
}

#[test]
fn a_large_message_is_sealed_and_opened_without_being_moved() {
    let mut buffer = Vec::with_capacity(65_536 + TAG_LEN);
    buffer.resize(65_536, 9);
    let place = buffer.as_ptr();
    key(5).seal_in_place(&CONTEXT, &mut buffer, 0);
    assert_eq!(buffer.as_ptr(), place);
    key(5).open_in_place(&CONTEXT, &mut buffer).unwrap();
    assert_eq!(buffer.as_ptr(), place);
}

#[test]
fn a_failed_opening_leaves_no_plaintext_behind() {
    let mut buffer = key(5).seal(&CONTEXT, vec![9; 100]);
    buffer[50] ^= 1;
    assert!(key(5).open_within(&CONTEXT, &mut buffer).is_err());
    assert_eq!(buffer[..100], [0; 100]);
    let mut buffer = key(5).seal(&CONTEXT, vec![9; 100]);
    buffer[50] ^= 1;
    assert!(key(5).open_in_place(&CONTEXT, &mut buffer).is_err());
    assert!(buffer.is_empty());
}

#[test]
fn a_commitment_fits_its_own_key_only() {
    assert!(key(5).commitment_matches(&key(5).commitment()));
    for bit in 0..24 * 8 {
        let mut other = key(5).commitment();
        other[bit / 8] ^= 1 << (bit % 8);
        assert!(!key(5).commitment_matches(&other));
    }
}

/// The message at position 1,700,000,000,000 below a root of 32 times 7, written down once and
/// derived here with BLAKE3 alone.
#[test]
fn messages_keep_their_bytes() {
    let at = 1_700_000_000_000_u64;
    let mut node = [7; 32];
    for level in (0..48).rev() {
        let mut both = [0; 64];
        let mut hasher = blake3::Hasher::new_keyed(&node);
        hasher.update(b"sealcast.v1 tree children");
        hasher.finalize_xof().fill(&mut both);
        let (left, right) = both.split_at(32);
        let taken = if at >> level & 1 == 0 { left } else { right };
        node.copy_from_slice(taken);
    }
    let mut input = b"\x17\0\0\0\0\0\0\0sealcast.v1 message key\x20\0\0\0\0\0\0\0".to_vec();
    input.extend(STREAM);
    input.extend(b"\x08\0\0\0\0\0\0\0boiler/3\x48\0\0\0\0\0\0\0");
    input.extend(HEADER);
    let mut expected = [0; 56];
    let mut hasher = blake3::Hasher::new_keyed(&node);
    hasher.update(&input).finalize_xof().fill(&mut expected);
    assert_eq!(
        hex(&expected[..32]),
        "dc4026e7013add9564a36eed91c0315faee606204c83024b8acc7f7e3311f48f"
    );
    assert_eq!(
        hex(&expected[32..]),
        "b49aa739517d79ddff0542ad41fb03d6e5236238922e8b9e"
    );
    assert_eq!(key(at).commitment(), expected[32..]);
    let sealed = key(at).seal(&CONTEXT, b"21.5 C".to_vec());
    assert_eq!(hex(&sealed), "15c261d8448da857b1c65cd0bb475f1d7c56d76ed6b4");
}

#[test]
fn debug_shows_no_key_bytes() {
    assert_eq!(format!("{:?}", key(5)), "MessageKey(..)");
}

struct Altered {
    stream: [u8; 32],
    topic: Vec<u8>,
    header: [u8; 72],
}

impl Altered {
    fn borrow(&self) -> MessageContext<'_> {
        MessageContext {
            stream: &self.stream,
            topic: &self.topic,
            header: &self.header,
        }
    }
}

/// The context with each single bit flipped, and with topics cut and grown.
fn altered_contexts() -> impl Iterator<Item = Altered> {
    let same = || Altered {
        stream: STREAM,
        topic: CONTEXT.topic.to_vec(),
        header: HEADER,
    };
    let stream = (0..32 * 8).map(move |bit| {
        let mut other = same();
        other.stream[bit / 8] ^= 1 << (bit % 8);
        other
    });
    let topic = (0..CONTEXT.topic.len() * 8).map(move |bit| {
        let mut other = same();
        other.topic[bit / 8] ^= 1 << (bit % 8);
        other
    });
    let header = (0..72 * 8).map(move |bit| {
        let mut other = same();
        other.header[bit / 8] ^= 1 << (bit % 8);
        other
    });
    let lengths = [&b""[..], b"boiler/", b"boiler/3/", b"boiler/3\0"].map(|topic| Altered {
        topic: topic.to_vec(),
        ..same()
    });
    stream.chain(topic).chain(header).chain(lengths)
}

fn key(position: u64) -> MessageKey {
    key_in(position, &CONTEXT)
}

fn key_in(position: u64, context: &MessageContext<'_>) -> MessageKey {
    let root = SessionRoot::init_with(|bytes| bytes.fill(7));
    let mut walker = Walker::new(Cover::whole(&root));
    MessageKey::derive(&walker.leaf(position).unwrap(), context)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

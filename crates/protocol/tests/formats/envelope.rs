use proptest::prelude::*;
use sealcast_crypto::{
    Cover, Digest, OpenError, SessionRoot, SigningKey, Walker, bulk_digest, digest,
};
use sealcast_protocol::{
    BATCH_MAX, DecodeError, DeviceId, Draft, ENVELOPE_OVERHEAD, EnvelopeHash, EnvelopeView, Flags,
    Header, InstanceId, PAYLOAD_MAX, Position, SealError, SealedEnvelope, SessionId, StreamId,
    Suite, Unsigned, VerifyError, seal, seal_unsigned, sign_batch,
};

use crate::support::{NOW, STREAM, flips};

const TOPIC: &[u8] = b"boiler/temp";

#[test]
fn a_sealed_message_opens_and_costs_176_bytes() {
    let sealed = sealed(&header(), b"21.5");
    assert_eq!(sealed.bytes.len(), 4 + ENVELOPE_OVERHEAD);
    assert_eq!(ENVELOPE_OVERHEAD, 176);
    assert_eq!(
        opened(&sealed.bytes, &STREAM, TOPIC),
        Ok(Ok(b"21.5".to_vec()))
    );
}

#[test]
fn the_hash_is_the_same_when_sealed_before_and_after_verification() {
    let sealed = sealed(&header(), b"21.5");
    let view = EnvelopeView::parse(&sealed.bytes).unwrap();
    let verified = view
        .verify(&STREAM, TOPIC, &signing().verifying_key())
        .unwrap();
    assert_eq!(view.hash(&STREAM, TOPIC), sealed.hash);
    assert_eq!(view.bind(&STREAM, TOPIC).hash(), sealed.hash);
    assert_eq!(verified.hash(), sealed.hash);
    assert_ne!(view.hash(&STREAM, b"other"), sealed.hash);
    for (at, is_same) in [(99, false), (115, false), (116, true), (179, true)] {
        let mut other = sealed.bytes.clone();
        other[at] ^= 1;
        let other = EnvelopeView::parse(&other).unwrap();
        assert_eq!(other.hash(&STREAM, TOPIC) == sealed.hash, is_same, "{at}");
    }
}

#[test]
fn envelopes_of_a_batch_verify_each_by_itself_and_cost_130_bytes_more_with_sixteen() {
    let headers = (0..16).map(|seq| Header { seq, ..of_batch() });
    let unsigned = headers.clone().map(|header| unsigned(&header, b"21.5"));
    let hashes: Vec<_> = unsigned.clone().map(|of| of.hash()).collect();
    let sealed = sign_batch(&signing(), unsigned.collect()).unwrap();
    for (sealed, hash) in sealed.iter().zip(hashes) {
        assert_eq!(sealed.hash, hash);
        assert_eq!(sealed.bytes.len(), 4 + ENVELOPE_OVERHEAD + 130);
        let opened = opened(&sealed.bytes, &STREAM, TOPIC);
        assert_eq!(opened, Ok(Ok(b"21.5".to_vec())));
    }
}

#[test]
fn what_does_not_say_that_it_is_of_a_batch_is_not_signed_as_one() {
    let alone = vec![unsigned(&of_batch(), b""), unsigned(&header(), b"")];
    let refused = sign_batch(&signing(), alone).unwrap_err();
    assert_eq!(refused, SealError::NoBatch);
    let many = (0..=BATCH_MAX).map(|_| unsigned(&of_batch(), b""));
    let refused = sign_batch(&signing(), many.collect()).unwrap_err();
    assert_eq!(refused, SealError::NoBatch);
    let one = unsigned(&of_batch(), b"21.5").sign(&signing());
    assert_eq!(one.bytes.len(), 4 + ENVELOPE_OVERHEAD + 34);
    assert_eq!(opened(&one.bytes, &STREAM, TOPIC), Ok(Ok(b"21.5".to_vec())));
}

/// fault 4, fault 6
#[test]
fn an_envelope_of_a_batch_with_any_byte_changed_neither_parses_nor_verifies() {
    let batch = vec![
        unsigned(&of_batch(), b"21.5"),
        unsigned(&of_batch(), b"21.6"),
    ];
    let sealed = sign_batch(&signing(), batch).unwrap();
    for flipped in flips(&sealed[1].bytes) {
        let opened = opened(&flipped, &STREAM, TOPIC);
        assert!(
            matches!(
                opened,
                Err(Fault::Decode(_) | Fault::Verify(VerifyError::BadSignature))
            ),
            "{opened:?}"
        );
    }
}

/// fault 4, fault 6
#[test]
fn an_envelope_with_any_byte_changed_neither_parses_nor_verifies() {
    let sealed = sealed(&header(), b"21.5");
    for flipped in flips(&sealed.bytes) {
        let opened = opened(&flipped, &STREAM, TOPIC);
        assert!(
            matches!(
                opened,
                Err(Fault::Decode(_) | Fault::Verify(VerifyError::BadSignature))
            ),
            "{opened:?}"
        );
    }
}

/// fault 4: with the signature made anew by the publisher, the key still depends on every field.
#[test]
fn a_header_changed_and_signed_again_does_not_open() {
    let original = sealed(&header(), b"21.5");
    let changes: [fn(&mut Header); 9] = [
        |h| h.flags.frame = true,
        |h| h.flags.backfill = true,
        |h| h.content = 9,
        |h| h.session.0[0] ^= 1,
        |h| h.position.0 += 1,
        |h| h.device.0[0] ^= 1,
        |h| h.instance.0[0] ^= 1,
        |h| h.seq += 1,
        |h| h.prev.0[0] ^= 1,
    ];
    for change in changes {
        let mut header = header();
        change(&mut header);
        let mut bytes = original.bytes.clone();
        bytes[..72].copy_from_slice(&header.encode());
        sign_again(&mut bytes, &STREAM, TOPIC);
        assert_eq!(
            opened(&bytes, &STREAM, TOPIC),
            Ok(Err(OpenError::NotAuthentic))
        );
    }
}

/// fault 6
#[test]
fn a_ciphertext_or_commitment_changed_and_signed_again_does_not_open() {
    let original = sealed(&header(), b"21.5");
    for at in 72..original.bytes.len() - 64 {
        let mut bytes = original.bytes.clone();
        bytes[at] ^= 0x10;
        sign_again(&mut bytes, &STREAM, TOPIC);
        assert_eq!(
            opened(&bytes, &STREAM, TOPIC),
            Ok(Err(OpenError::NotAuthentic))
        );
    }
}

/// fault 6
#[test]
fn another_leaf_opens_nothing() {
    let sealed = sealed(&header(), b"21.5");
    let view = EnvelopeView::parse(&sealed.bytes).unwrap();
    let verified = view
        .verify(&STREAM, TOPIC, &signing().verifying_key())
        .unwrap();
    let mut walker = walker();
    let other = walker.leaf(NOW.0 + 1).unwrap();
    assert_eq!(
        verified.open(&other).map(|_| ()),
        Err(OpenError::NotAuthentic)
    );
}

/// fault 5
#[test]
fn a_byte_moved_over_a_border_between_fields_does_not_verify() {
    let bytes = sealed(&header(), b"21.5").bytes;
    let refused = |stream: &StreamId, topic: &[u8]| {
        let fault = opened(&bytes, stream, topic).map(|_| ());
        assert_eq!(fault, Err(Fault::Verify(VerifyError::BadSignature)));
    };
    refused(&STREAM, b"boiler/tem");
    refused(&STREAM, b"boiler/temp\x01");
    refused(&STREAM, b"");
    let mut shifted = [0x51; 32];
    shifted[31] = TOPIC[0];
    refused(&StreamId(shifted), &TOPIC[1..]);
    let mut longer = vec![STREAM.0[31]];
    longer.extend_from_slice(TOPIC);
    refused(&STREAM, &longer);
}

/// fault 5: the bytes that are hashed show their lengths, so the topic's last byte is not the
/// header's first.
#[test]
fn the_signed_digest_is_of_delimited_parts() {
    let bytes = sealed(&header(), b"21.5").bytes;
    let (signed, signature) = bytes.split_last_chunk::<64>().unwrap();
    let digest = signed_digest(signed, &STREAM, TOPIC);
    let signature = sealcast_crypto::Signature::from_bytes(*signature);
    assert_eq!(
        signing().verifying_key().verify(&digest, &signature),
        Ok(())
    );
}

#[test]
fn an_envelope_of_another_stream_or_topic_with_a_key_of_its_own_does_not_open() {
    let sealed = sealed(&header(), b"21.5");
    let mut bytes = sealed.bytes;
    sign_again(&mut bytes, &StreamId([7; 32]), TOPIC);
    let opened_there = opened(&bytes, &StreamId([7; 32]), TOPIC);
    assert_eq!(opened_there, Ok(Err(OpenError::NotAuthentic)));
    sign_again(&mut bytes, &STREAM, b"other");
    assert_eq!(
        opened(&bytes, &STREAM, b"other"),
        Ok(Err(OpenError::NotAuthentic))
    );
}

#[test]
fn unknown_version_suite_and_flags_are_refused_each_by_name() {
    let good = sealed(&header(), b"").bytes;
    let refusal = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        EnvelopeView::parse(&bytes).map(|_| ()).unwrap_err()
    };
    assert_eq!(refusal(0, 2), DecodeError::UnknownVersion { found: 2 });
    assert_eq!(refusal(0, 0), DecodeError::UnknownVersion { found: 0 });
    assert_eq!(refusal(1, 2), DecodeError::UnknownSuite { found: 2 });
    assert_eq!(refusal(2, 8), DecodeError::UnknownFlags { found: 8 });
    assert_eq!(refusal(2, 4), DecodeError::Malformed);
    assert_eq!(refusal(20, 1), DecodeError::OutOfRange);
}

#[test]
fn lengths_are_bounded_on_both_sides() {
    let good = sealed(&header(), b"").bytes;
    assert_eq!(good.len(), 176);
    let short = EnvelopeView::parse(&good[..175]).map(|_| ());
    assert_eq!(short, Err(DecodeError::Malformed));
    assert_eq!(
        EnvelopeView::parse(b"").map(|_| ()),
        Err(DecodeError::Malformed)
    );

    let mut long = vec![0; PAYLOAD_MAX + ENVELOPE_OVERHEAD + 1];
    long[..2].fill(1);
    let refused = EnvelopeView::parse(&long).map(|_| ());
    assert!(
        matches!(refused, Err(DecodeError::TooLong { .. })),
        "{refused:?}"
    );
    let mut walker = walker();
    let leaf = walker.leaf(NOW.0).unwrap();
    let refused = seal(
        &leaf,
        &signing(),
        &STREAM,
        TOPIC,
        &header(),
        &long[..=PAYLOAD_MAX],
    );
    assert_eq!(
        refused,
        Err(SealError::TooLong {
            len: PAYLOAD_MAX + 1
        })
    );
}

#[test]
fn a_message_of_sixteen_mebibytes_is_sealed_in_one_buffer() {
    let payload = vec![7; 16 << 20];
    let sealed = sealed(&header(), &payload);
    assert_eq!(sealed.bytes.len(), sealed.bytes.capacity());
    assert_eq!(opened(&sealed.bytes, &STREAM, TOPIC), Ok(Ok(payload)));
}

/// fault 18
#[test]
fn debug_shows_no_content() {
    let sealed = sealed(&header(), b"21.5");
    assert_eq!(
        format!("{sealed:?}"),
        format!("SealedEnvelope({}, 180 bytes)", sealed.hash)
    );
}

proptest! {
    #[test]
    fn a_header_reads_back(header in any_header()) {
        prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
    }

    #[test]
    fn header_bytes_that_decode_are_what_encode_makes(mut bytes in prop::array::uniform32(0_u8..).prop_flat_map(|half| {
        (Just(half), prop::collection::vec(0_u8.., 40))
    }).prop_map(|(half, rest)| {
        let mut bytes = [0; 72];
        bytes[..32].copy_from_slice(&half);
        bytes[32..].copy_from_slice(&rest);
        bytes
    }), plausible in any::<bool>()) {
        if plausible {
            bytes[..2].fill(1);
            bytes[2] &= 7;
            bytes[20..22].fill(0);
        }
        match Header::decode(&bytes) {
            Ok(header) => prop_assert_eq!(header.encode(), bytes),
            Err(_) => prop_assert!(!plausible),
        }
    }

    #[test]
    fn any_bytes_are_parsed_without_a_panic(bytes in prop::collection::vec(0_u8.., 0..400)) {
        let _ = EnvelopeView::parse(&bytes);
    }

    #[test]
    fn any_message_opens_as_it_was(
        header in any_header(),
        payload in prop::collection::vec(0_u8.., 0..200),
        topic in prop::collection::vec(0_u8.., 0..20),
    ) {
        let mut walker = walker();
        let leaf = walker.leaf(header.position.0).unwrap();
        let sealed = seal(&leaf, &signing(), &STREAM, &topic, &header, &payload).unwrap();
        prop_assert_eq!(opened(&sealed.bytes, &STREAM, &topic), Ok(Ok(payload)));
    }
}

fn any_header() -> impl Strategy<Value = Header> {
    let ids = (
        prop::array::uniform16(0_u8..),
        prop::array::uniform16(0_u8..),
        prop::array::uniform8(0_u8..),
        prop::array::uniform16(0_u8..),
    );
    let rest = (
        prop::array::uniform3(any::<bool>()),
        any::<u8>(),
        any::<u32>(),
        0..Position::END.0,
    );
    (ids, rest).prop_map(
        |((session, device, instance, prev), (flags, content, seq, position))| Header {
            suite: Suite::TreeV1,
            flags: Flags {
                frame: flags[0],
                backfill: flags[1],
                batch: flags[2],
            },
            content,
            session: SessionId(session),
            position: Position(position),
            device: DeviceId(device),
            instance: InstanceId(instance),
            seq,
            prev: EnvelopeHash(prev),
        },
    )
}

#[derive(Debug, PartialEq)]
enum Fault {
    Decode(DecodeError),
    Verify(VerifyError),
}

type Opened = Result<Result<Vec<u8>, OpenError>, Fault>;

fn opened(bytes: &[u8], stream: &StreamId, topic: &[u8]) -> Opened {
    let view = EnvelopeView::parse(bytes).map_err(Fault::Decode)?;
    let verified = view
        .verify(stream, topic, &signing().verifying_key())
        .map_err(Fault::Verify)?;
    let mut walker = walker();
    let leaf = walker.leaf(verified.header().position.0).unwrap();
    Ok(verified.open(&leaf).map(|text| text.expose().to_vec()))
}

fn sealed(header: &Header, payload: &[u8]) -> SealedEnvelope {
    let mut walker = walker();
    let leaf = walker.leaf(header.position.0).unwrap();
    seal(&leaf, &signing(), &STREAM, TOPIC, header, payload).unwrap()
}

fn of_batch() -> Header {
    let mut header = header();
    header.flags.batch = true;
    header
}

fn unsigned(header: &Header, payload: &[u8]) -> Unsigned {
    let mut walker = walker();
    let leaf = walker.leaf(header.position.0).unwrap();
    seal_unsigned(&leaf, &STREAM, TOPIC, header, Draft::Single(payload)).unwrap()
}

fn sign_again(bytes: &mut [u8], stream: &StreamId, topic: &[u8]) {
    let (signed, signature) = bytes.split_last_chunk_mut::<64>().unwrap();
    *signature = *signing()
        .sign(&signed_digest(signed, stream, topic))
        .as_bytes();
}

/// What is signed, put together from the spec's page.
fn signed_digest(signed: &[u8], stream: &StreamId, topic: &[u8]) -> Digest {
    let content = bulk_digest("sealcast.v1 envelope ciphertext", &signed[96..]);
    let parts: [&[u8]; 5] = [
        &stream.0,
        topic,
        &signed[..72],
        &signed[72..96],
        content.as_bytes(),
    ];
    digest("sealcast.v1 envelope digest", &parts)
}

fn header() -> Header {
    Header {
        suite: Suite::TreeV1,
        flags: Flags::default(),
        content: 0,
        session: SessionId([3; 16]),
        position: NOW,
        device: DeviceId([4; 16]),
        instance: InstanceId([5; 8]),
        seq: 6,
        prev: EnvelopeHash::NONE,
    }
}

fn signing() -> SigningKey {
    SigningKey::from_seed(&[9; 32])
}

fn walker() -> Walker {
    Walker::new(Cover::whole(&SessionRoot::init_with(|bytes| bytes.fill(8))))
}

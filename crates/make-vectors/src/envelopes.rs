//! Envelopes and frames (`spec/envelope.md`).

use anyhow::Context as _;
use sealcast_crypto::{Cover, Digest, SigningKey, Walker, bulk_digest, digest};
use sealcast_protocol::{
    Draft as Content, EnvelopeHash, FRAME_RECORDS_MAX, Flags, Frame, Header, InstanceId, Position,
    SessionId, Suite, seal, seal_unsigned, sign_batch,
};

use super::case::Case;
use super::cast::{NOW, STREAM, anna, ben, session_root};

const TOPIC: &[u8] = b"temp";
const ROOT: u8 = 8;

pub(super) fn cases() -> anyhow::Result<Vec<Case>> {
    Ok([
        good()?,
        altered()?,
        resigned()?,
        elsewhere()?,
        batches()?,
        batch_faults()?,
        frames(),
        frame_faults(),
    ]
    .concat())
}

/// An envelope that is about to be sealed.
struct Draft {
    header: Header,
    topic: &'static [u8],
    plaintext: Vec<u8>,
}

impl Draft {
    /// One record, in the topic.
    fn single() -> Self {
        let header = Header {
            suite: Suite::TreeV1,
            flags: Flags::default(),
            content: 0,
            session: SessionId([3; 16]),
            position: NOW,
            device: anna().device.id,
            instance: InstanceId([5; 8]),
            seq: 6,
            prev: EnvelopeHash([7; 16]),
        };
        Self {
            header,
            topic: TOPIC,
            plaintext: b"21.5 C".to_vec(),
        }
    }

    fn seal(&self) -> anyhow::Result<Vec<u8>> {
        self.seal_under(ROOT, &anna().device.signing)
    }

    fn seal_under(&self, root: u8, key: &SigningKey) -> anyhow::Result<Vec<u8>> {
        let mut walker = Walker::new(Cover::whole(&session_root(root)));
        let leaf = walker.leaf(self.header.position.0).context("a position")?;
        Ok(seal(
            &leaf,
            key,
            &STREAM,
            self.topic,
            &self.header,
            &self.plaintext,
        )?
        .bytes)
    }
}

/// What a reader has: the stream and topic, the sender's key, and the root.
fn given(name: &str, about: &str, topic: &[u8], envelope: &[u8]) -> Case {
    with_root(given_without_keys(name, about, topic, envelope))
}

fn given_without_keys(name: &str, about: &str, topic: &[u8], envelope: &[u8]) -> Case {
    Case::new("envelope", name, about)
        .hex("stream", STREAM.0)
        .hex("topic", topic)
        .hex(
            "public-key",
            anna().device.signing.verifying_key().as_bytes(),
        )
        .hex("envelope", envelope)
}

fn with_root(case: Case) -> Case {
    case.hex("root", session_root(ROOT).expose())
}

/// How the good draft becomes another good one.
type Change = (&'static str, &'static str, fn(&mut Draft));

fn good() -> anyhow::Result<Vec<Case>> {
    #[rustfmt::skip]
    let changes: [Change; 9] = [
        ("single", "one record", |_| {}),
        ("empty", "an empty plaintext", |draft| draft.plaintext.clear()),
        ("without-topic", "no topic below the stream", |draft| draft.topic = b""),
        ("first", "nothing before it", |draft| {
            draft.header.seq = 0;
            draft.header.prev = EnvelopeHash::NONE;
        }),
        ("content-hint", "a content hint that nobody knows", |draft| draft.header.content = 255),
        ("backfill", "of a backfill session", |draft| draft.header.flags.backfill = true),
        ("frame", "two records, one before the position", |draft| {
            draft.header.flags.frame = true;
            draft.plaintext = frame(NOW, &[(NOW.0 - 3, b"21.5"), (NOW.0, b"21.6")]);
        }),
        ("frame-of-a-backfill", "both flags", |draft| {
            draft.header.flags = Flags { frame: true, backfill: true, batch: false };
            draft.plaintext = frame(NOW, &[(NOW.0 + 5, b"")]);
        }),
        ("highest-numbers", "the last position and the last seq", |draft| {
            draft.header.position = Position(Position::END.0 - 1);
            draft.header.seq = u32::MAX;
        }),
    ];
    let mut cases = Vec::new();
    for (name, about, change) in changes {
        let mut draft = Draft::single();
        change(&mut draft);
        let case = given(name, about, draft.topic, &draft.seal()?);
        cases.push(opened(case, &draft)?);
    }
    let cover = Cover::from_root(&session_root(ROOT), NOW.0, NOW.0 + 1);
    let draft = Draft::single();
    let case = given_without_keys("with-a-cover", "under one leaf", TOPIC, &draft.seal()?)
        .with("from", cover.from())
        .with("until", cover.until())
        .hex("keys", cover.key_bytes().expose());
    cases.push(opened(case, &draft)?);
    Ok(cases)
}

/// As [`computed`]; `signing-seed` lets an implementation seal it too.
fn opened(case: Case, draft: &Draft) -> anyhow::Result<Case> {
    let case = case.hex("signing-seed", anna().device.signing.expose_seed());
    Ok(computed(case, draft, &draft.seal()?))
}

/// Adds what comes out of a good envelope.
fn computed(case: Case, draft: &Draft, envelope: &[u8]) -> Case {
    let (header, hash) = (draft.header, hash(envelope, draft.topic));
    case.ok()
        .with(
            "flags",
            u8::from(header.flags.frame)
                | u8::from(header.flags.backfill) << 1
                | u8::from(header.flags.batch) << 2,
        )
        .with("content", header.content)
        .with("session", header.session)
        .with("position", header.position.0)
        .with("device", header.device)
        .with("instance", header.instance)
        .with("seq", header.seq)
        .with("prev", header.prev)
        .hex("hash", hash)
        .hex("plaintext", &draft.plaintext)
}

/// The digest of an envelope, put together here once more.
fn own_digest(envelope: &[u8], topic: &[u8]) -> Digest {
    let (header, rest) = envelope.split_at(72);
    let (commitment, rest) = rest.split_at(24);
    let ciphertext = &rest[..rest.len() - 64 - proof_len(envelope)];
    let content = bulk_digest("sealcast.v1 envelope ciphertext", ciphertext);
    let parts: [&[u8]; 5] = [&STREAM.0, topic, header, commitment, content.as_bytes()];
    digest("sealcast.v1 envelope digest", &parts)
}

fn hash(envelope: &[u8], topic: &[u8]) -> [u8; 16] {
    let own = own_digest(envelope, topic);
    let (halves, _) = own.as_bytes().as_chunks();
    halves[0]
}

/// One byte altered after signing, and envelopes cut short.
fn altered() -> anyhow::Result<Vec<Case>> {
    let good = Draft::single().seal()?;
    let end = good.len();
    #[rustfmt::skip]
    let rows = [
        ("version-0", "version 0", 0, 0, "unknown version"),
        ("version-2", "version 2", 0, 2, "unknown version"),
        ("suite-0", "suite 0", 1, 0, "unknown suite"),
        ("suite-2", "the suite that is reserved", 1, 2, "unknown suite"),
        ("flag-8", "a flag without a meaning", 2, 8, "unknown flags"),
        ("flag-128", "another one", 2, 0x80, "unknown flags"),
        ("position-too-high", "position 2^48 and more", 21, 1, "out of range"),
        ("altered-frame-flag", "the flag of a frame is set", 2, 1, "signature"),
        ("altered-backfill-flag", "the flag of a backfill is set", 2, 2, "signature"),
        ("altered-batch-flag", "the flag of a batch is set, and no proof is there", 2, 4, "malformed"),
        ("altered-content-hint", "the content hint differs", 3, 1, "signature"),
        ("altered-session", "the session id differs", 19, 2, "signature"),
        ("altered-position", "the position differs by a millisecond", 27, good[27] ^ 1, "signature"),
        ("altered-device", "the device id differs", 28, good[28] ^ 1, "signature"),
        ("altered-instance", "the instance differs", 44, 4, "signature"),
        ("altered-seq", "the seq differs", 55, 7, "signature"),
        ("altered-prev", "the hash of the envelope before differs", 71, 6, "signature"),
        ("altered-commitment", "the commitment differs", 72, good[72] ^ 1, "signature"),
        ("altered-ciphertext", "the ciphertext differs", 96, good[96] ^ 1, "signature"),
        ("altered-tag", "the tag differs", end - 65, good[end - 65] ^ 1, "signature"),
        ("altered-r", "R of the signature differs", end - 64, good[end - 64] ^ 1, "signature"),
        ("altered-s", "S of the signature differs", end - 32, good[end - 32] ^ 1, "signature"),
    ];
    let altered = rows.into_iter().map(|(name, about, at, to, failure)| {
        let mut envelope = good.clone();
        envelope[at] = to;
        given(name, about, TOPIC, &envelope).fails(failure)
    });
    let header_only = &good[..72];
    #[rustfmt::skip]
    let cut = [
        ("nothing", "no bytes", Vec::new(), "malformed"),
        ("header-alone", "72 bytes", header_only.to_vec(), "malformed"),
        ("too-short", "175 bytes", good[..175].to_vec(), "malformed"),
        ("cut", "the last byte is missing", good[..end - 1].to_vec(), "signature"),
        ("byte-behind", "a byte stands behind", [&*good, &[0]].concat(), "signature"),
    ];
    let cut = cut.map(|(name, about, envelope, failure)| {
        given(name, about, TOPIC, &envelope).fails(failure)
    });
    Ok(altered.chain(cut).collect())
}

/// One byte altered and signed again by the sender: only commitment and tag can tell.
fn resigned() -> anyhow::Result<Vec<Case>> {
    let good = Draft::single().seal()?;
    let end = good.len();
    #[rustfmt::skip]
    let rows = [
        ("resigned-frame-flag", "the flag of a frame is set", 2),
        ("resigned-content-hint", "the content hint differs", 3),
        ("resigned-session", "the session id differs", 4),
        ("resigned-position", "the position differs by a millisecond", 27),
        ("resigned-device", "the device id differs", 43),
        ("resigned-instance", "the instance differs", 51),
        ("resigned-seq", "the seq differs", 55),
        ("resigned-prev", "the hash of the envelope before differs", 56),
        ("resigned-commitment", "the first byte of the commitment differs", 72),
        ("resigned-commitment-end", "the last byte of the commitment differs", 95),
        ("resigned-ciphertext", "the ciphertext differs", 96),
        ("resigned-tag", "the tag differs", end - 65),
    ];
    let cases = rows.map(|(name, about, at)| {
        let mut envelope = good.clone();
        envelope[at] ^= 1;
        let signature = anna().device.signing.sign(&own_digest(&envelope, TOPIC));
        envelope.truncate(end - 64);
        envelope.extend_from_slice(signature.as_bytes());
        let about = format!("{about}; the sender has signed it again");
        given(name, &about, TOPIC, &envelope).fails("not authentic")
    });
    Ok(cases.to_vec())
}

/// A good envelope in the wrong place, or read with the wrong keys.
fn elsewhere() -> anyhow::Result<Vec<Case>> {
    let draft = Draft::single();
    let good = draft.seal()?;
    let root = session_root(ROOT);
    let other_stream = Case::new("envelope", "another-stream", "read in another stream")
        .hex("stream", [0x52; 32])
        .hex("topic", TOPIC)
        .hex(
            "public-key",
            anna().device.signing.verifying_key().as_bytes(),
        )
        .hex("envelope", &good);
    let stranger = draft.seal_under(ROOT, &ben().device.signing)?;
    let other_root = draft.seal_under(9, &anna().device.signing)?;
    let outside = |name, about, from, until| -> anyhow::Result<Case> {
        let cover = Cover::from_root(&root, from, until);
        Ok(given_without_keys(name, about, TOPIC, &good)
            .with("from", from)
            .with("until", until)
            .hex("keys", cover.key_bytes().expose())
            .fails("no key"))
    };
    Ok(vec![
        with_root(other_stream).fails("signature"),
        given("another-topic", "read in another topic", b"temq", &good).fails("signature"),
        given("without-its-topic", "read without a topic", b"", &good).fails("signature"),
        given("topic-with-more", "read in a topic below", b"temp/1", &good).fails("signature"),
        given(
            "another-sender",
            "signed by another device",
            TOPIC,
            &stranger,
        )
        .fails("signature"),
        given(
            "another-root",
            "sealed under another root",
            TOPIC,
            &other_root,
        )
        .fails("not authentic"),
        outside(
            "cover-ends-before",
            "the cover ends at the position",
            NOW.0 - 1_000,
            NOW.0,
        )?,
        outside(
            "cover-begins-behind",
            "the cover begins behind it",
            NOW.0 + 1,
            Position::END.0,
        )?,
    ])
}

/// How long the proof of an envelope is.
fn proof_len(envelope: &[u8]) -> usize {
    match envelope[2] & 4 {
        0 => 0,
        _ => 2 + 32 * usize::from(envelope[envelope.len() - 65]),
    }
}

/// A good batch, its first envelope like any other draft.
fn batch(count: u32) -> anyhow::Result<Vec<(Draft, Vec<u8>)>> {
    batch_with(count, Flags::default())
}

fn batch_with(count: u32, flags: Flags) -> anyhow::Result<Vec<(Draft, Vec<u8>)>> {
    let mut walker = Walker::new(Cover::whole(&session_root(ROOT)));
    let (mut drafts, mut unsigned) = (Vec::new(), Vec::new());
    let mut draft = Draft::single();
    draft.header.flags = Flags {
        batch: true,
        ..flags
    };
    for number in 0..count {
        draft.plaintext = format!("21.{number} C").into_bytes();
        if flags.frame {
            draft.plaintext = frame(NOW, &[(NOW.0 - 3, &draft.plaintext)]);
        }
        let leaf = walker.leaf(draft.header.position.0).context("a position")?;
        let content = Content::Single(&draft.plaintext);
        let sealed = seal_unsigned(&leaf, &STREAM, TOPIC, &draft.header, content)?;
        let next = Header {
            seq: draft.header.seq + 1,
            prev: sealed.hash(),
            ..draft.header
        };
        unsigned.push(sealed);
        let header = std::mem::replace(&mut draft.header, next);
        drafts.push(Draft {
            header,
            topic: TOPIC,
            plaintext: std::mem::take(&mut draft.plaintext),
        });
    }
    let signed = sign_batch(&anna().device.signing, unsigned)?;
    let bytes = signed.into_iter().map(|of| of.bytes);
    Ok(drafts.into_iter().zip(bytes).collect())
}

fn batches() -> anyhow::Result<Vec<Case>> {
    #[rustfmt::skip]
    let rows = [
        ("batch-of-one", "signed as a batch, with nothing beside it", 1, 0),
        ("batch-first-of-two", "the left one of two", 2, 0),
        ("batch-last-of-two", "the right one of two", 2, 1),
        ("batch-last-of-three", "beside a leaf that is not there", 3, 2),
        ("batch-sixth-of-eleven", "four levels, of which two are on the right", 11, 5),
        ("batch-first-of-256", "as deep as it may be", 256, 0),
        ("batch-last-of-256", "the last place that there may be", 256, 255),
    ];
    let cases = rows.into_iter().map(|(name, about, count, at)| {
        let (draft, envelope) = batch(count)?.swap_remove(at);
        let case = given(name, about, TOPIC, &envelope);
        Ok(computed(case, &draft, &envelope))
    });
    #[rustfmt::skip]
    let with_flags = [
        ("batch-of-frames", "a frame among others", true, false),
        ("batch-of-a-backfill", "of a backfill session", false, true),
        ("batch-with-all-flags", "frames of a backfill session", true, true),
    ];
    let with_flags = with_flags
        .into_iter()
        .map(|(name, about, frame, backfill)| {
            let flags = Flags {
                frame,
                backfill,
                batch: true,
            };
            let (draft, envelope) = batch_with(3, flags)?.swap_remove(1);
            let case = given(name, about, TOPIC, &envelope);
            Ok(computed(case, &draft, &envelope))
        });
    cases.chain(with_flags).collect()
}

/// What may be wrong with the proof of the third of five: places and depths that there are not, other
/// ways up, and signatures of something else.
fn batch_faults() -> anyhow::Result<Vec<Case>> {
    let five = batch(5)?;
    let (good, other) = (&five[2].1, &five[3].1);
    let end = good.len();
    let (place, depth, path) = (end - 66, end - 65, end - 66 - 3 * 32);
    let set = |at: usize, to: u8| {
        let mut envelope = good.clone();
        envelope[at] = to;
        envelope
    };
    let lone = |signed: &Digest| {
        let signature = anna().device.signing.sign(signed);
        [&good[..end - 64], signature.as_bytes()].concat()
    };
    let mut with_others_path = good.clone();
    with_others_path[path..place].copy_from_slice(&other[path..place]);
    let short = [&good[..96 + 15], &good[path..]].concat();
    let cut = [
        &good[..path],
        &good[path + 32..place],
        &[2, 2],
        &good[end - 64..],
    ]
    .concat();
    // Each of these is signed as it would have to be, so that nothing but the bound refuses it.
    let own = own_digest(good, TOPIC);
    let of_none = [&good[..path], &[0, 0], &lone(&own)[end - 64..]].concat();
    let root = (0..9).fold(own, |node, _| {
        digest("sealcast.v1 envelope pair", &[node.as_bytes(), &[7; 32]])
    });
    let of_nine = [
        &good[..path],
        &[7; 9 * 32],
        &[0, 9],
        &lone(&root)[end - 64..],
    ]
    .concat();
    let without_flag = set(2, 0);
    #[rustfmt::skip]
    let rows = [
        ("batch-depth-0", "a tree of a leaf alone", of_none, "malformed"),
        ("batch-depth-9", "one level too many", of_nine, "malformed"),
        ("batch-place-outside", "the eleventh of eight leaves, whose lowest bits are those of the third", set(place, 10), "malformed"),
        ("batch-proof-cut", "more levels than there is room for", set(depth, 8), "malformed"),
        ("batch-no-room-for-the-tag", "the proof begins in the tag", short, "malformed"),
        ("batch-other-place", "the place of its neighbour", set(place, 3), "signature"),
        ("batch-path-altered", "a node beside its way differs", set(path + 40, good[path + 40] ^ 1), "signature"),
        ("batch-path-of-another", "the way of its neighbour", with_others_path, "signature"),
        ("batch-level-missing", "a level is missing", cut, "signature"),
        ("batch-signed-alone", "the signature is over its own digest", lone(&own_digest(good, TOPIC)), "signature"),
        ("batch-flag-cleared", "the flag is cleared, and the proof is there", without_flag, "signature"),
        ("batch-signed-by-another-batch", "the signature of another batch", [&good[..end - 64], &batch(4)?[2].1[end - 64 - 32..]].concat(), "signature"),
    ];
    let cases = rows.map(|(name, about, envelope, failure)| {
        given(name, about, TOPIC, &envelope).fails(failure)
    });
    Ok(cases.to_vec())
}

/// The plaintext of a frame that is sealed at `position`.
fn frame(position: Position, records: Made<'_>) -> Vec<u8> {
    let mut frame = Frame::with_capacity(1 << 10);
    let fits = records
        .iter()
        .all(|(time, payload)| frame.push(Position(*time), payload).is_ok());
    assert!(fits, "the records of a case fit into its frame");
    frame.plaintext(position).expose().to_vec()
}

/// Records, as time and payload.
type Made<'a> = &'a [(u64, &'a [u8])];

fn frames() -> Vec<Case> {
    let last = Position::END.0 - 1;
    let long = [0x61; 300];
    let many = [(NOW.0 - 1, &b"21.5"[..]); 200];
    #[rustfmt::skip]
    let rows: [(_, _, _, Made<'_>); 9] = [
        ("one-record", "made at the position", NOW.0, &[(NOW.0, b"21.5")]),
        ("example", "the example of the page", NOW.0, &[(NOW.0 - 3, b"21.5"), (NOW.0, b"21.6"), (NOW.0, b"21.7")]),
        ("empty-record", "a payload of no bytes", NOW.0, &[(NOW.0, b"")]),
        ("long-record", "a length of two bytes", NOW.0, &[(NOW.0, &long)]),
        ("long-run", "a count of two bytes", NOW.0, &many),
        ("no-run-of-two", "each record is a run", NOW.0, &[(NOW.0 - 2, b"a"), (NOW.0 - 1, b"b"), (NOW.0, b"c")]),
        ("time-again", "a time comes again, in a run of its own", NOW.0, &[(NOW.0, b"a"), (NOW.0 - 1, b"b"), (NOW.0, b"c")]),
        ("any-order", "records need not be in order", NOW.0, &[(NOW.0 + 64, b"a"), (NOW.0 - 64, b"b")]),
        ("farthest", "from the last position to the first", last, &[(0, b"a"), (last, b"b")]),
    ];
    rows.map(|(name, about, position, records)| {
        Case::new("frame", name, about)
            .with("position", position)
            .hex("plaintext", frame(Position(position), records))
            .ok()
            .each(records, |case, (time, payload)| {
                case.with("record", format!("{time} {}", super::case::hex(payload)))
            })
    })
    .to_vec()
}

fn frame_faults() -> Vec<Case> {
    let (shape, range) = ("malformed", "out of range");
    let empty = vec![0; FRAME_RECORDS_MAX];
    let too_many = [b"\x00\xff\xff\x03", &*empty, b"\x01\x01\x00"].concat();
    #[rustfmt::skip]
    let rows: [(_, _, _, &[u8], _); 23] = [
        ("no-bytes", "not even a run", NOW.0, b"", shape),
        ("run-of-none", "a count of 0", NOW.0, b"\x00\x00", range),
        ("second-run-of-none", "a count of 0 behind a good run", NOW.0, b"\x00\x01\x01a\x01\x00", range),
        ("65536-records", "a count above the highest", NOW.0, b"\x00\x80\x80\x04", range),
        ("65536-records-in-two-runs", "one more than there may be", NOW.0, &too_many, range),
        ("count-missing", "a run without a count", NOW.0, b"\x00", shape),
        ("count-cut", "the count's second byte is missing", NOW.0, b"\x00\x82", shape),
        ("count-not-minimal", "1 in two bytes", NOW.0, b"\x00\x81\x00\x01a", shape),
        ("time-not-minimal", "0 in two bytes", NOW.0, b"\x80\x00\x01\x01a", shape),
        ("length-not-minimal", "1 in two bytes", NOW.0, b"\x00\x01\x81\x00a", shape),
        ("length-not-minimal-by-two", "1 in three bytes", NOW.0, b"\x00\x01\x81\x80\x00a", shape),
        ("number-of-65-bits", "a time of 2^64", NOW.0, b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02\x01\x01a", shape),
        ("number-of-11-bytes", "a time that does not end", NOW.0, b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01\x01\x01a", shape),
        ("runs-of-one-time", "two runs where one would do", NOW.0, b"\x00\x01\x01a\x00\x01\x01b", shape),
        ("byte-behind", "a byte stands behind the last record", NOW.0, b"\x00\x01\x01a\x01", shape),
        ("record-missing", "two are announced, one follows", NOW.0, b"\x00\x02\x01a", shape),
        ("length-missing", "a record without a length", NOW.0, b"\x00\x01", shape),
        ("payload-cut", "two bytes are announced, one follows", NOW.0, b"\x00\x01\x02a", shape),
        ("payload-endless", "2^63 bytes are announced", NOW.0, b"\x00\x01\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01a", shape),
        ("time-before-all", "a millisecond before position 0", 0, b"\x01\x01\x01a", range),
        ("time-behind-all", "a millisecond behind the last position", Position::END.0 - 1, b"\x02\x01\x01a", range),
        ("time-farther", "2^63 milliseconds before the position", NOW.0, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x01\x01a", range),
        ("second-run-out-of-time", "a fault in the second run refuses the first too", 0, b"\x00\x01\x01a\x01\x01\x01b", range),
    ];
    rows.map(|(name, about, position, plaintext, failure)| {
        Case::new("frame", name, about)
            .with("position", position)
            .hex("plaintext", plaintext)
            .fails(failure)
    })
    .to_vec()
}

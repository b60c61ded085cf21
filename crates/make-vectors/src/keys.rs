//! Digests, the key tree, covers, messages and wrapping (`spec/primitives.md`, `spec/key-tree.md`).

use anyhow::Context as _;
use sealcast_crypto::{
    Cover, MessageContext, MessageKey, NodeId, POSITION_END, UnwrapKey, Walker, bulk_digest,
    delimited, digest,
};

use super::case::Case;
use super::cast::{Given, session_root};

const ROOT: u8 = 7;
/// A time in the year 2023.
const THEN: u64 = 1_700_000_000_000;

pub(super) fn cases() -> anyhow::Result<Vec<Case>> {
    Ok([
        digests(),
        bulk_digests(),
        nodes(),
        covers(),
        cover_faults(),
        narrowed()?,
        messages()?,
        wraps()?,
    ]
    .concat())
}

fn digests() -> Vec<Case> {
    let label = "sealcast.v1 test";
    let long = [0x61; 300];
    #[rustfmt::skip]
    let rows: [(_, _, _, &[&[u8]]); 8] = [
        ("two-parts", "the example of the page", label, &[b"ab", b""]),
        ("no-part", "a label alone", label, &[]),
        ("an-empty-part", "an empty part is not the same as none", label, &[b""]),
        ("a-part-moved", "a byte moved over the border of two parts", label, &[b"a", b"b"]),
        ("a-part-joined", "both parts joined", label, &[b"ab"]),
        ("a-part-split", "an empty part between", label, &[b"a", b"", b"b"]),
        ("a-byte-in-the-label", "the label ends in the part's byte", "sealcast.v1 testa", &[b"b"]),
        ("a-long-part", "a length of two bytes, the lower one first", label, &[&long]),
    ];
    rows.map(|(name, about, label, parts)| {
        Case::new("digest", name, about)
            .with("label", label)
            .each(parts, Case::part)
            .ok()
            .hex("delimited", delimited(label, parts))
            .hex("digest", digest(label, parts).as_bytes())
    })
    .to_vec()
}

fn bulk_digests() -> Vec<Case> {
    let label = "sealcast.v1 test";
    let many: Vec<u8> = (0..251).cycle().take(2_500).collect();
    let (chunk, more) = (&many[..1_024], &many[..1_025]);
    #[rustfmt::skip]
    let rows: [(_, _, _, &[u8]); 6] = [
        ("two-bytes", "the example of the page", label, b"ab"),
        ("no-bytes", "a label alone", label, b""),
        ("a-byte-in-the-label", "the label ends in the first byte", "sealcast.v1 testa", b"b"),
        ("a-chunk", "1,024 bytes", label, chunk),
        ("a-chunk-and-a-byte", "1,025 bytes", label, more),
        ("many-bytes", "2,500 bytes", label, &many),
    ];
    rows.map(|(name, about, label, bytes)| {
        Case::new("bulk-digest", name, about)
            .with("label", label)
            .hex("bytes", bytes)
            .ok()
            .hex("digest", bulk_digest(label, bytes).as_bytes())
    })
    .to_vec()
}

impl Case {
    /// One part of what is hashed.
    pub(super) fn part(self, part: &&[u8]) -> Self {
        self.hex("part", part)
    }
}

fn nodes() -> Vec<Case> {
    let root = session_root(ROOT);
    let whole = Cover::whole(&root);
    let commitment = Case::new(
        "tree",
        "commitment",
        "what a session record shows of a root",
    )
    .hex("root", root.expose())
    .ok()
    .hex("commitment", root.commitment());
    #[rustfmt::skip]
    let rows = [
        ("root", "the root is the key of the topmost node", 0, 0),
        ("left-child", "the first 32 bytes", 1, 0),
        ("right-child", "the last 32 bytes", 1, 1),
        ("third-grandchild", "right, then left", 2, 2),
        ("half-way", "24 steps down", 24, THEN >> 24),
        ("leaf-first", "position 0", 48, 0),
        ("leaf-last", "position 2^48 - 1", 48, POSITION_END - 1),
        ("leaf-of-2023", "position 1,700,000,000,000", 48, THEN),
        ("leaf-next", "the position behind", 48, THEN + 1),
    ];
    let keys = rows.into_iter().filter_map(|(name, about, depth, index)| {
        let key = whole.node_key(NodeId { depth, index })?;
        let case = Case::new("tree", name, about)
            .hex("root", root.expose())
            .with("depth", depth)
            .with("index", index);
        Some(case.ok().hex("key", key.expose()))
    });
    std::iter::once(commitment).chain(keys).collect()
}

fn covers() -> Vec<Case> {
    let root = session_root(ROOT);
    let (minute, day) = (THEN - THEN % 60_000, 86_400_000);
    #[rustfmt::skip]
    let rows = [
        ("whole", "all positions: the root itself", 0, POSITION_END),
        ("first-position", "one leaf", 0, 1),
        ("one-position", "one leaf", THEN, THEN + 1),
        ("last-position", "one leaf, at the end", POSITION_END - 1, POSITION_END),
        ("two-siblings", "their parent", THEN, THEN + 2),
        ("two-cousins", "two leaves without a parent in common", THEN + 1, THEN + 3),
        ("three-positions", "the example of the page", THEN, THEN + 3),
        ("end-of-time", "the other example of the page", POSITION_END - 3, POSITION_END),
        ("left-half", "one node", 0, POSITION_END / 2),
        ("all-but-the-first", "one node of each depth from 1", 1, POSITION_END),
        ("all-but-the-last", "one node of each depth from 1", 0, POSITION_END - 1),
        ("worst-case", "94 nodes, as many as there can be", 1, POSITION_END - 1),
        ("from-then-on", "no end", THEN, POSITION_END),
        ("a-day", "24 hours", THEN, THEN + day),
        ("a-day-of-minutes", "24 hours from a round minute", minute, minute + day),
        ("a-year", "365 days", THEN, THEN + 365 * day),
    ];
    rows.map(|(name, about, from, until)| {
        let cover = Cover::from_root(&root, from, until);
        Case::new("cover", name, about)
            .hex("root", root.expose())
            .with("from", from)
            .with("until", until)
            .ok()
            .each(cover.nodes(), |case, node| {
                case.with("node", format!("{} {}", node.depth, node.index))
            })
            .hex("keys", cover.key_bytes().expose())
    })
    .to_vec()
}

fn cover_faults() -> Vec<Case> {
    let two = Cover::from_root(&session_root(ROOT), THEN, THEN + 3).key_bytes();
    let two = two.expose();
    let (empty, length) = ("empty interval", "key length");
    #[rustfmt::skip]
    let rows = [
        ("no-position", "the interval ends where it begins", THEN, THEN, Vec::new(), empty),
        ("backwards", "the interval ends before it begins", THEN + 3, THEN, two.to_vec(), empty),
        ("a-key-too-few", "one key for two nodes", THEN, THEN + 3, two[..32].to_vec(), length),
        ("a-key-too-many", "three keys for two nodes", THEN, THEN + 3, [two, &two[..32]].concat(), length),
        ("half-a-key", "one and a half keys for two nodes", THEN, THEN + 3, two[..48].to_vec(), length),
        ("no-keys", "no keys for two nodes", THEN, THEN + 3, Vec::new(), length),
    ];
    rows.map(|(name, about, from, until, keys, failure)| {
        Case::new("cover", name, about)
            .with("from", from)
            .with("until", until)
            .hex("keys", keys)
            .fails(failure)
    })
    .to_vec()
}

/// Smaller intervals out of larger ones.
fn narrowed() -> anyhow::Result<Vec<Case>> {
    let held = Cover::from_root(&session_root(ROOT), THEN, THEN + 1_000);
    let given = |name, about, from, until| {
        Case::new("cover", name, about)
            .with("from", held.from())
            .with("until", held.until())
            .hex("keys", held.key_bytes().expose())
            .with("narrow-from", from)
            .with("narrow-until", until)
    };
    #[rustfmt::skip]
    let good = [
        ("narrow-to-itself", "the same interval", THEN, THEN + 1_000),
        ("narrow-inside", "an interval inside", THEN + 7, THEN + 999),
        ("narrow-to-the-last", "the last position", THEN + 999, THEN + 1_000),
    ];
    let outside = [
        ("narrow-before", "one position before", THEN - 1, THEN + 10),
        (
            "narrow-behind",
            "one position behind",
            THEN + 10,
            THEN + 1_001,
        ),
        (
            "narrow-elsewhere",
            "nothing in common",
            THEN + 5_000,
            THEN + 5_001,
        ),
    ];
    let mut cases = Vec::new();
    for (name, about, from, until) in good {
        let cover = held.narrow(from, until).context("inside")?;
        let keys = cover.key_bytes();
        cases.push(
            given(name, about, from, until)
                .ok()
                .hex("narrow-keys", keys.expose()),
        );
    }
    cases.extend(
        outside.map(|(name, about, from, until)| given(name, about, from, until).fails("outside")),
    );
    Ok(cases)
}

/// What a message is sealed with and bound to.
#[derive(Clone)]
struct Message {
    root: u8,
    position: u64,
    stream: [u8; 32],
    topic: Vec<u8>,
    header: [u8; 72],
}

impl Message {
    fn example() -> Self {
        Self {
            root: ROOT,
            position: THEN,
            stream: [1; 32],
            topic: b"boiler/3".into(),
            header: [2; 72],
        }
    }

    fn seal(&self, plaintext: &[u8]) -> anyhow::Result<([u8; 24], Vec<u8>)> {
        let mut walker = Walker::new(Cover::whole(&session_root(self.root)));
        let leaf = walker.leaf(self.position).context("a position")?;
        let (stream, topic, header) = (&self.stream, &*self.topic, &self.header);
        let context = MessageContext {
            stream,
            topic,
            header,
        };
        let key = MessageKey::derive(&leaf, &context);
        Ok((key.commitment(), key.seal(&context, plaintext.to_vec())))
    }

    fn given(&self, name: &str, about: &str) -> Case {
        Case::new("message", name, about)
            .hex("root", session_root(self.root).expose())
            .with("position", self.position)
            .hex("stream", self.stream)
            .hex("topic", &self.topic)
            .hex("header", self.header)
    }
}

/// A name, what is special, and how a good message becomes it.
type Change = (&'static str, &'static str, fn(&mut Message));

fn messages() -> anyhow::Result<Vec<Case>> {
    #[rustfmt::skip]
    let good: [Change; 4] = [
        ("seal", "the example of the page", |_| {}),
        ("seal-without-topic", "no topic below the stream", |m| m.topic.clear()),
        ("seal-at-zero", "the first position", |m| m.position = 0),
        ("seal-at-the-end", "the last position", |m| m.position = POSITION_END - 1),
    ];
    #[rustfmt::skip]
    let elsewhere: [Change; 6] = [
        ("open-under-another-root", "another session's root", |m| m.root = 8),
        ("open-at-the-next-position", "one millisecond later", |m| m.position += 1),
        ("open-in-another-stream", "one byte of the stream differs", |m| m.stream[31] = 2),
        ("open-in-another-topic", "the topic is shorter", |m| m.topic.truncate(7)),
        ("open-without-its-topic", "no topic", |m| m.topic.clear()),
        ("open-with-another-header", "one byte of the header differs", |m| m.header[71] = 3),
    ];
    let mut cases = Vec::new();
    for (name, about, change) in good {
        let mut message = Message::example();
        change(&mut message);
        let (commitment, sealed) = message.seal(b"21.5 C")?;
        let case = message.given(name, about).hex("plaintext", b"21.5 C").ok();
        cases.push(case.hex("commitment", commitment).hex("sealed", sealed));
    }
    let (commitment, empty) = Message::example().seal(b"")?;
    let case = Message::example()
        .given("seal-nothing", "an empty plaintext")
        .hex("plaintext", b"");
    cases.push(
        case.ok()
            .hex("commitment", commitment)
            .hex("sealed", &empty),
    );

    let (_, sealed) = Message::example().seal(b"21.5 C")?;
    for (name, about, change) in elsewhere {
        let mut message = Message::example();
        change(&mut message);
        cases.push(
            message
                .given(name, about)
                .hex("sealed", &sealed)
                .fails("not authentic"),
        );
    }
    let (mut text, mut tag) = (sealed.clone(), sealed.clone());
    (text[0], tag[21]) = (text[0] ^ 1, tag[21] ^ 0x80);
    #[rustfmt::skip]
    let altered = [
        ("open-altered-ciphertext", "the first bit of the ciphertext is flipped", text),
        ("open-altered-tag", "the last bit of the tag is flipped", tag),
        ("open-cut", "the last byte is missing", sealed[..21].to_vec()),
        ("open-less-than-a-tag", "15 bytes", sealed[..15].to_vec()),
    ];
    for (name, about, sealed) in altered {
        let case = Message::example().given(name, about).hex("sealed", sealed);
        cases.push(case.fails("not authentic"));
    }
    Ok(cases)
}

/// What is drawn for one encapsulation, as X-Wing's derandomised encapsulation takes it.
const ENCAPSULATION_SEED: [u8; 64] = [0x77; 64];

fn wraps() -> anyhow::Result<Vec<Case>> {
    let key = UnwrapKey::from_seed(&[0x33; 32]);
    let info = delimited("sealcast.v1 test", &[b"for whom"]);
    let wrapped = key
        .wrap_key()
        .wrap(&mut Given(&ENCAPSULATION_SEED), &info, &[0x42; 32])?;
    let good = Case::new(
        "wrap",
        "good",
        "32 bytes wrapped; X-Wing draws the seed given here",
    )
    .hex("unwrap-seed", key.expose_seed())
    .hex("info", &info)
    .hex("encapsulation-seed", ENCAPSULATION_SEED)
    .hex("plaintext", [0x42; 32])
    .ok()
    .hex("wrap-key", key.wrap_key().as_bytes())
    .hex("wrapped", &wrapped);
    let changed = |at: usize, to: &[u8]| {
        let mut changed = wrapped.clone();
        changed[at..at + to.len()].copy_from_slice(to);
        changed
    };
    let other_info = delimited("sealcast.v1 test", &[b"for whom else"]);
    let (own, other) = (*key.expose_seed(), [0x34; 32]);
    let prime = super::points::at_prime(0);
    let one = super::points::number(1);
    #[rustfmt::skip]
    let rows = [
        ("another-info", "the context differs", own, &other_info, wrapped.clone()),
        ("another-key", "another device's key", other, &info, wrapped.clone()),
        ("altered-encapsulation", "a byte of the ML-KEM ciphertext differs", own, &info, changed(0, &[wrapped[0] ^ 1])),
        ("altered-ciphertext", "a byte of the ciphertext differs", own, &info, changed(1_120, &[wrapped[1_120] ^ 1])),
        ("altered-tag", "a byte of the tag differs", own, &info, changed(1_167, &[wrapped[1_167] ^ 1])),
        ("encapsulation-of-small-order", "the X25519 half of the encapsulation is 1", own, &info, changed(1_088, &one)),
        ("encapsulation-not-canonical", "the X25519 half of the encapsulation is the prime", own, &info, changed(1_088, &prime)),
        ("encapsulation-with-the-high-bit", "the X25519 half of the encapsulation has its highest bit set", own, &info, changed(1_119, &[wrapped[1_119] | 0x80])),
        ("too-short", "1,135 bytes", own, &info, wrapped[..1_135].to_vec()),
    ];
    let refused = rows.map(|(name, about, seed, info, wrapped)| {
        Case::new("wrap", name, about)
            .hex("unwrap-seed", seed)
            .hex("info", info)
            .hex("wrapped", wrapped)
            .fails("not authentic")
    });
    Ok(std::iter::once(good).chain(refused).collect())
}

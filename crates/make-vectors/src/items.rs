//! Items of a data log (`spec/envelope.md`).

use super::case::Case;

pub(super) fn cases() -> Vec<Case> {
    [good(), faults()].concat()
}

/// A topic, and what stands behind it.
fn with(topic: impl AsRef<[u8]>, behind: &[u8]) -> Vec<u8> {
    let topic = topic.as_ref();
    let len = u16::try_from(topic.len()).unwrap_or_default();
    [&[0x80][..], &len.to_be_bytes(), topic, behind].concat()
}

fn good() -> Vec<Case> {
    let longest = "x".repeat(1024);
    #[rustfmt::skip]
    let rows: [(_, _, _, &str, &[u8]); 6] = [
        ("without-topic", "an envelope by itself", vec![1, 1], "", &[1, 1]),
        ("with-topic", "the example of the page", with("plant/7", &[1]), "plant/7", &[1]),
        ("empty-level", "a topic may begin and end with a slash", with("/a//", &[1]), "/a//", &[1]),
        ("not-ascii", "a topic in UTF-8", with("\u{fc}", &[1]), "\u{fc}", &[1]),
        ("longest", "1,024 bytes", with(&longest, &[1]), &longest, &[1]),
        ("nothing-behind", "what follows is not looked at", with("a", b""), "a", b""),
    ];
    rows.map(|(name, about, item, topic, envelope)| {
        Case::new("item", name, about)
            .hex("item", item)
            .ok()
            .hex("topic", topic)
            .hex("envelope", envelope)
    })
    .to_vec()
}

fn faults() -> Vec<Case> {
    let too_long = "x".repeat(1025);
    #[rustfmt::skip]
    let rows = [
        ("byte-alone", "no length", vec![0x80]),
        ("length-cut", "half a length", vec![0x80, 0]),
        ("empty-topic", "an empty topic is not written", with("", &[1])),
        ("topic-cut", "two bytes are announced, one follows", vec![0x80, 0, 2, b'a']),
        ("too-long", "1,025 bytes", with(&too_long, &[1])),
        ("one-level", "a wildcard for a level", with("a/+", &[1])),
        ("all-levels", "a wildcard for all levels", with("a/#", &[1])),
        ("line-end", "a control character", with("a\n", &[1])),
        ("zero", "U+0000", with("a\0", &[1])),
        ("next-line", "U+0085", with("\u{85}", &[1])),
        ("not-utf-8", "no text", with(b"\xc3\x28", &[1])),
    ];
    rows.map(|(name, about, item)| {
        let case = Case::new("item", name, about).hex("item", item);
        case.fails("malformed")
    })
    .to_vec()
}

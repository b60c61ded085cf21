//! Messages that were altered, cut short, or are another stream's.

use std::collections::BTreeSet;
use std::ops::Range;

use sealcast_engine::Refusal;
use sealcast_protocol::{CARD_LIFETIME_MS, EnvelopeView, Interval, Position};

use super::history::*;
use crate::rig::{NOON, OWNER, header};

/// What is told of an envelope in which a byte of a field was altered.
#[derive(Clone, Copy, Debug)]
enum Told {
    Always(Refusal),
    /// Malformed where a bit without a meaning is set.
    ByFlags,
    /// Malformed beyond the tree; not entitled where the log or the card ends before it.
    ByPosition,
}

/// `spec/envelope.md`, section "Layout", and `spec/reading.md`, section "Judging an envelope": the
/// field, where it lies, and the first check that its change fails.
const FIELDS: [(&str, Range<usize>, Told); 11] = [
    ("version", 0..1, Told::Always(Refusal::Malformed)),
    ("suite", 1..2, Told::Always(Refusal::Malformed)),
    ("flags", 2..3, Told::ByFlags),
    ("content hint", 3..4, Told::Always(Refusal::BadSignature)),
    ("session", 4..20, Told::Always(Refusal::BadSignature)),
    ("position", 20..28, Told::ByPosition),
    ("device", 28..44, Told::Always(Refusal::UnknownSender)),
    ("instance, seq", 44..56, Told::Always(Refusal::BadSignature)),
    ("prev", 56..72, Told::Always(Refusal::BadSignature)),
    ("commitment", 72..96, Told::Always(Refusal::BadSignature)),
    (
        "ciphertext, tag, proof, signature",
        96..usize::MAX,
        Told::Always(Refusal::BadSignature),
    ),
];

fn told(altered: &[u8], at: usize, term: Interval) -> (&'static str, Refusal) {
    let is_of_batch = altered[2] & 0b100 != 0;
    match altered.len() - at {
        // Of two.
        66 if is_of_batch && altered[at] > 1 => return ("place", Refusal::Malformed),
        65 if is_of_batch => return ("depth", Refusal::Malformed),
        _ => {}
    }
    let field = FIELDS.iter().find(|(_, range, _)| range.contains(&at));
    let (name, _, told) = field.unwrap();
    let refusal = match told {
        Told::Always(refusal) => *refusal,
        Told::ByFlags if altered[2] & !0b111 != 0 => Refusal::Malformed,
        Told::ByFlags => Refusal::BadSignature,
        Told::ByPosition => {
            let position = Position(u64::from_be_bytes(*altered[20..].first_chunk().unwrap()));
            let is_backfill = altered[2] & 0b10 != 0;
            let is_expired = !is_backfill && position.0 >= NOON.0 + CARD_LIFETIME_MS;
            match () {
                () if position >= Position::END => Refusal::Malformed,
                () if is_expired || !term.contains(position) => Refusal::NotEntitled,
                () => Refusal::BadSignature,
            }
        }
    };
    (name, refusal)
}

/// Faults 4 and 6: every byte of every envelope counts.
#[test]
fn every_byte_of_every_envelope_that_is_altered_is_told_for_what_it_is() {
    let history = History::new();
    let (intact, data) = (history.bus(), history.data());
    let reference = history.read(&intact);
    let (view, alarms) = history.view(&intact);
    let mut seen = BTreeSet::new();
    for item in 0..history.texts.len() {
        let original = &intact[&data][item];
        // Of the last one of a device nothing names what it was.
        let device = header(original).device;
        let is_followed = intact[&data][item + 1..]
            .iter()
            .any(|later| header(later).device == device);
        for at in 0..original.len() {
            let pattern = PATTERNS[(at + item) % 3];
            let mut bus = Bus::from([(data.clone(), intact[&data].clone())]);
            bus.get_mut(&data).unwrap()[item][at] ^= pattern;
            let altered = &bus[&data][item];
            let (field, refusal) = told(altered, at, history.term(original));
            let what = format!(
                "{}, byte {at} ({field}) ^ {pattern:#x}",
                history.texts[item]
            );
            let found = history.read_with(&view, alarms.clone(), &bus);
            assert_eq!(
                found.of_items[item],
                format!("rejected: {refusal:?}\n"),
                "{what}"
            );
            let is_named = at >= original.len() - 64;
            history.check_others_named(&reference, &found, item, is_named, &what);
            let gaps = usize::from(is_followed);
            assert_eq!(found.gaps(), reference.gaps() + gaps, "{what}");
            seen.insert((field, format!("{refusal:?}")));
        }
    }
    assert_eq!(
        seen.len(),
        FIELDS.len() + 5,
        "each row, and each way: {seen:?}"
    );
}

#[test]
fn an_envelope_that_was_cut_short_or_grew_is_refused_and_the_rest_opens() {
    let history = History::new();
    let (intact, data) = (history.bus(), history.data());
    let reference = history.read(&intact);
    let (view, alarms) = history.view(&intact);
    for item in [0, 3, 4, 6, 10] {
        for form in cut(&intact[&data][item]) {
            let what = format!("{}: {} bytes", history.texts[item], form.len());
            let is_of_batch = intact[&data][item][2] & 0b100 != 0;
            let is_odd = is_of_batch && EnvelopeView::parse(&form).is_err();
            let refusal = match form.len() < 176 || is_odd {
                true => Refusal::Malformed,
                false => Refusal::BadSignature,
            };
            let found = history.with(&data, item, [form]);
            let found = history.read_with(&view, alarms.clone(), &found);
            assert_eq!(
                found.of_items[item],
                format!("rejected: {refusal:?}\n"),
                "{what}"
            );
            history.check_others(&reference, &found, item, &what);
        }
    }
}

/// Fault 4: the stream is signed, though it is not sent.
#[test]
fn an_envelope_of_another_stream_of_the_same_publisher_is_refused() {
    let history = History::new();
    let (mut bus, data) = (history.bus(), history.data());
    let reference = history.read(&bus);
    let header = header(&bus[&data][0]);
    let owner = &history.world.peers[OWNER];
    let root = owner.view.root(&header.session).unwrap();
    let mut walker = sealcast_crypto::Walker::new(sealcast_crypto::Cover::whole(root));
    let leaf = walker.leaf(header.position.0).unwrap();
    let other = sealcast_protocol::StreamId([7; 32]);
    let signing = owner.identity.signing();
    let moved = sealcast_protocol::seal(&leaf, signing, &other, b"", &header, b"\"moved\"");
    bus.get_mut(&data).unwrap().push(moved.unwrap().bytes);
    let mut found = history.read(&bus);
    assert_eq!(found.of_items.pop().unwrap(), "rejected: BadSignature\n");
    assert_eq!(found, reference);
}

//! Envelopes that share a signature.

use sealcast_engine::{Mode, Reader};
use sealcast_protocol::{DataTopic, Draft, EnvelopeView, Frame, Interval};

use crate::rig::{OWNER, World, header};

const HISTORY: Mode = Mode::History(Interval::ALL);

/// A world in which somebody has published before, and a batch of texts of two letters or more.
fn batch(seed: u64, topic: Option<&DataTopic>, texts: &[String]) -> (World, Vec<Vec<u8>>) {
    let mut world = World::new(seed);
    world.publish(OWNER, "before").unwrap();
    let of = &mut world.peers[OWNER];
    let drafts: Vec<_> = texts
        .iter()
        .map(|of| Draft::Single(of.as_bytes()))
        .collect();
    let sealed = of
        .publisher
        .seal_on(topic, world.now, &mut of.lane, &of.view, &drafts);
    let sealed = sealed.unwrap();
    of.publisher.advance(&sealed);
    let items = sealed.envelopes.into_iter().map(|of| of.bytes).collect();
    (world, items)
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|of| format!("number {of}")).collect()
}

fn told(world: &World, reader: &mut Reader, items: &[Vec<u8>]) -> String {
    world.feed(OWNER, reader, items)
}

/// What is sealed at once shares signatures, sixteen at a time; what is left over alone has its own.
#[test]
fn a_batch_opens_in_its_order_and_its_envelopes_say_that_they_are_of_one() {
    for count in [1, 2, 3, 15, 16, 17, 18, 40] {
        let (world, items) = batch(90, None, &numbers(count));
        let expected: String = numbers(count).iter().map(|of| format!("{of}\n")).collect();
        let told = told(&world, &mut Reader::new(Mode::Live), &items);
        assert_eq!(told, expected, "{count}");
        let signatures = items.iter().map(|of| EnvelopeView::parse(of).unwrap());
        let mut signatures: Vec<_> = signatures.map(|of| *of.signature().as_bytes()).collect();
        signatures.dedup();
        assert_eq!(signatures.len(), count.div_ceil(16));
        let is_alone = |at: usize| count % 16 == 1 && at == count - 1;
        for (at, item) in items.iter().enumerate() {
            assert_eq!(header(item).flags.batch, !is_alone(at), "{at} of {count}");
        }
    }
}

/// What is long has the same length whatever is sealed beside it.
#[test]
fn what_is_long_is_signed_by_itself_and_parts_those_around_it() {
    let long = |letter: &str| letter.repeat(80 << 10);
    let texts = [
        "a".into(),
        long("b"),
        "c".into(),
        "d".into(),
        long("e") + "e",
        "f".into(),
    ];
    let (_, items) = batch(96, None, &texts);
    let batches: Vec<_> = items.iter().map(|of| header(of).flags.batch).collect();
    assert_eq!(batches, [true, true, true, true, false, false]);
    assert_eq!(items[4].len(), (80 << 10) + 1 + 176);
}

/// A record of a frame of 64 costs at most four bytes, whatever is sealed beside it.
#[test]
fn a_frame_of_few_records_is_signed_by_itself() {
    let mut world = World::new(97);
    world.publish(OWNER, "before").unwrap();
    let frames = [64, 127, 128, 64, 128, 128].map(|count| {
        let mut frame = Frame::with_capacity(64 << 10);
        for _ in 0..count {
            frame.push(world.now, &[7; 99]).unwrap();
        }
        frame
    });
    let of = &mut world.peers[OWNER];
    let drafts = frames.each_ref().map(Draft::Frame);
    let sealed = of
        .publisher
        .seal(world.now, &mut of.lane, &of.view, &drafts);
    let items: Vec<_> = sealed.unwrap().envelopes;
    let batches: Vec<_> = items
        .iter()
        .map(|of| header(&of.bytes).flags.batch)
        .collect();
    assert_eq!(batches, [false, false, false, false, true, true]);
    for (item, frame) in items.iter().zip(&frames) {
        let added = item.bytes.len() - 99 * frame.len();
        assert!(added <= 4 * frame.len(), "{added} for {}", frame.len());
    }
}

#[test]
fn each_envelope_of_a_batch_opens_without_the_others() {
    let (world, items) = batch(91, None, &numbers(11));
    for (at, item) in items.iter().enumerate() {
        let told = world.feed(OWNER, &mut Reader::new(Mode::Live), [item]);
        assert_eq!(told, format!("number {at}\n"));
    }
    let odd = items.iter().skip(1).step_by(2);
    let told = world.feed(OWNER, &mut Reader::new(HISTORY), odd);
    assert!(
        told.contains("number 9\n") && told.contains("gap of 1\n"),
        "{told}"
    );
}

/// Faults 4 and 6, for the reader that has just seen the batch's signature hold, too.
#[test]
fn every_byte_of_an_envelope_of_a_batch_counts_and_the_others_open() {
    let (world, items) = batch(92, None, &numbers(5));
    for at in 0..items[3].len() {
        let mut altered = items.clone();
        altered[3][at] ^= 0x40;
        let told = told(&world, &mut Reader::new(Mode::Live), &altered);
        let lines: Vec<_> = told.lines().collect();
        assert_eq!(lines[..3], ["number 0", "number 1", "number 2"]);
        assert!(lines[3].starts_with("rejected: "), "byte {at}: {told}");
        assert_eq!(lines.last(), Some(&"number 4"), "byte {at}");
        assert!(!told.contains("number 3"));
    }
}

/// Where what would share the third signature does not fit, nothing of the first two leaves or counts.
#[test]
fn a_batch_whose_later_part_fails_leaves_no_trace() {
    let (mut world, mut items) = batch(95, None, &numbers(3));
    let of = &mut world.peers[OWNER];
    let lane = of.lane;
    let long = vec![0; sealcast_protocol::PAYLOAD_MAX + 1];
    let mut drafts = vec![Draft::Single(b"never leaves"); 40];
    drafts[35] = Draft::Single(&long);
    let failed = of
        .publisher
        .seal(world.now, &mut of.lane, &of.view, &drafts);
    assert_eq!(failed.unwrap_err(), sealcast_engine::NotSealed::OutOfRange);
    assert_eq!(of.lane, lane);
    items.extend(world.sealed(OWNER, &["after"]));
    assert_eq!(header(&items[3]).seq, header(&items[2]).seq + 1);
    let told = told(&world, &mut Reader::new(Mode::Live), &items);
    assert_eq!(told, "number 0\nnumber 1\nnumber 2\nafter\n");
}

/// The proof of one is none for another, and nothing of a batch is moved to another topic.
#[test]
fn an_envelope_with_another_proof_or_on_another_topic_is_refused() {
    let topic: DataTopic = "plant/7".parse().unwrap();
    let other: DataTopic = "plant/8".parse().unwrap();
    let (world, items) = batch(93, Some(&topic), &numbers(4));
    assert_eq!(
        told(&world, &mut Reader::new(Mode::Live), &items)
            .lines()
            .count(),
        4
    );
    let envelopes: Vec<_> = items.iter().map(|of| &of[topic.overhead()..]).collect();
    let moved = vec![
        items[0].clone(),
        other.item(envelopes[1]),
        envelopes[2].to_vec(),
    ];
    let refused = "number 0\nrejected: BadSignature\nrejected: BadSignature\n";
    assert_eq!(told(&world, &mut Reader::new(Mode::Live), &moved), refused);
    let [a, b] = [envelopes[0], envelopes[1]];
    let proof = a.len() - 64 - EnvelopeView::parse(a).unwrap().proof().len();
    let swapped = [&a[..proof], &b[proof..]].concat();
    let swapped = vec![items[1].clone(), topic.item(&swapped)];
    let refused = "number 1\nrejected: BadSignature\n";
    assert_eq!(
        told(&world, &mut Reader::new(Mode::Live), &swapped),
        refused
    );
}

/// A publisher that signs an envelope again, in a batch of one, has sealed nothing new.
#[test]
fn one_envelope_under_two_signatures_is_one_envelope() {
    let (world, items) = batch(94, None, &numbers(2));
    let first = &items[0];
    let view = EnvelopeView::parse(first).unwrap();
    let (own, beside) = (own_digest(&world, &view), [9; 32]);
    let root = sealcast_crypto::digest("sealcast.v1 envelope pair", &[own.as_bytes(), &beside]);
    let signature = world.peers[OWNER].identity.signing().sign(&root);
    let until = first.len() - 64 - view.proof().len();
    let again = [&first[..until], &beside, &[0, 1], signature.as_bytes()].concat();
    let told = told(
        &world,
        &mut Reader::new(Mode::Live),
        &[first.clone(), again],
    );
    assert_eq!(told, "number 0\nReplay\n");
}

/// `spec/envelope.md`, section "What is bound".
fn own_digest(world: &World, view: &EnvelopeView<'_>) -> sealcast_crypto::Digest {
    let label = "sealcast.v1 envelope ciphertext";
    let content = sealcast_crypto::bulk_digest(label, view.ciphertext());
    let parts: [&[u8]; 5] = [
        &world.stream.0,
        b"",
        view.header_bytes(),
        view.commitment(),
        content.as_bytes(),
    ];
    sealcast_crypto::digest("sealcast.v1 envelope digest", &parts)
}

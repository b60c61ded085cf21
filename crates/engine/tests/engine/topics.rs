//! Topics below a stream: bound into each envelope, and no part of the order.

use sealcast_engine::{Event, Mode, Reader};
use sealcast_protocol::{DataItem, DataTopic, Draft, Interval};

use crate::rig::{OWNER, World};

const HISTORY: Mode = Mode::History(Interval::ALL);

fn topic(text: &str) -> DataTopic {
    text.parse().unwrap()
}

/// Seals a text for a topic below the stream, of which somebody has published before.
fn sealed_on(world: &mut World, on: &str, text: &str) -> Vec<u8> {
    let of = &mut world.peers[OWNER];
    let drafts = [Draft::Single(text.as_bytes())];
    let sealed = of
        .publisher
        .seal_on(Some(&topic(on)), world.now, &mut of.lane, &of.view, &drafts);
    let sealed = sealed.unwrap();
    of.publisher.advance(&sealed);
    sealed.envelopes[0].bytes.clone()
}

/// fault 4
#[test]
fn an_envelope_opens_on_its_own_topic_and_on_no_other() {
    let mut world = World::new(70);
    let first = world.sealed(OWNER, &["a"]).remove(0);
    let item = sealed_on(&mut world, "plant/7/t", "b");
    let (_, envelope) = DataItem::split(&item).unwrap();
    let told = world.feed(OWNER, &mut Reader::new(HISTORY), [&first, &item]);
    assert_eq!(told, "a\nb\n");
    for moved in [
        topic("plant/8/t").item(envelope),
        topic("plant/7").item(envelope),
        envelope.to_vec(),
        topic("plant/7/t").item(&first),
    ] {
        let told = world.feed(OWNER, &mut Reader::new(HISTORY), [&moved]);
        assert_eq!(told, "rejected: BadSignature\n");
    }
    let cut = &item[..6].to_vec();
    let told = world.feed(OWNER, &mut Reader::new(HISTORY), [cut]);
    assert_eq!(told, "rejected: Malformed\n");
}

#[test]
fn the_order_goes_on_from_one_topic_to_another() {
    let mut world = World::new(71);
    let first = world.sealed(OWNER, &["a"]).remove(0);
    let items = [
        first,
        sealed_on(&mut world, "plant/7/t", "b"),
        sealed_on(&mut world, "plant/8/t", "c"),
        world.sealed(OWNER, &["d"]).remove(0),
    ];
    let told = world.feed(OWNER, &mut Reader::new(HISTORY), &items);
    assert_eq!(told, "a\nb\nc\nd\n");
    // What is withheld on one topic is missed on the next.
    let order = [&items[0], &items[2], &items[3]];
    let told = world.feed(OWNER, &mut Reader::new(HISTORY), order);
    assert_eq!(told, "a\ngap of 1\nc\nd\n");
}

#[test]
fn what_is_opened_says_on_which_topic_it_came() {
    let mut world = World::new(72);
    let first = world.sealed(OWNER, &["a"]).remove(0);
    let items = [first, sealed_on(&mut world, "plant/7/t", "b")];
    let mut reader = Reader::new(HISTORY);
    for item in &items {
        reader.handle(&world.peers[OWNER].view, item);
    }
    let mut topics = Vec::new();
    while let Some(event) = reader.poll_event() {
        if let Event::Opened { topic, .. } = event {
            topics.push(topic);
        }
    }
    assert_eq!(topics, [None, Some(topic("plant/7/t"))]);
}

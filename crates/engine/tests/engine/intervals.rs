//! Who opens what: exactly what was granted.

use std::collections::BTreeSet;

use sealcast_crypto::SecretBytes;
use sealcast_engine::{Mode, Reader, SharedWith, Space};
use sealcast_protocol::{Interval, Position, Roles, SessionId, StreamTopics, Targets};

use crate::rig::{NOON, OWNER, World, between, lines, since, texts};

#[test]
fn a_grant_long_after_opens_exactly_its_interval() {
    let mut world = World::new(1);
    let reader = world.user();
    for hour in 0..6 {
        world.publish(OWNER, &format!("hour {hour}")).unwrap();
        world.tick(3_600_000);
    }
    let interval = between(NOON.after(3_600_000), NOON.after(3 * 3_600_000));
    world.grant(OWNER, reader, Roles::READER, interval).unwrap();
    let transcript = "sealed\nhour 1\nhour 2\nsealed\nsealed\nsealed\n";
    assert_eq!(world.transcript(reader), transcript);
}

#[test]
fn intervals_are_exact_to_the_millisecond() {
    let mut world = World::new(2);
    let reader = world.user();
    for at in 0..20 {
        world.publish(OWNER, &at.to_string()).unwrap();
        world.tick(1);
    }
    let interval = between(NOON.after(7), NOON.after(13));
    world.grant(OWNER, reader, Roles::READER, interval).unwrap();
    assert_eq!(world.opened(reader), ["7", "8", "9", "10", "11", "12"]);
}

/// Random grants to two readers, over several sessions and publishers; then the readers pool every
/// key that they hold.
#[test]
fn readers_open_their_grants_and_together_the_union_of_them() {
    for seed in 0..12 {
        let mut world = World::new(seed);
        let readers = [world.user(), world.user()];
        let publisher = world.user();
        world
            .grant(OWNER, publisher, Roles::PUBLISHER, Interval::ALL)
            .unwrap();
        let mut granted = [Vec::new(), Vec::new()];
        let mut sealed = Vec::new();
        for step in 0..60 {
            let sealing = *world.rng.pick(&[OWNER, publisher]);
            match world.rng.below(8) {
                0 if granted[0].len() + granted[1].len() < 9 => {
                    let one = world.rng.below(2) as usize;
                    let from = NOON.after(world.rng.below(400));
                    let interval = between(from, from.after(1 + world.rng.below(150)));
                    world
                        .grant(OWNER, readers[one], Roles::READER, interval)
                        .unwrap();
                    granted[one].push(interval);
                }
                1 => {
                    world.sync(sealing);
                    world.rekey(sealing);
                }
                _ => {
                    let text = format!("{seed}.{step}");
                    let header = world.publish(sealing, &text).unwrap();
                    sealed.push((header.position, text));
                }
            }
            let ms = world.rng.below(12);
            world.tick(ms);
        }
        world.share(OWNER, SharedWith::Everyone);
        let expected = |granted: &[Interval]| -> BTreeSet<String> {
            let inside = |at: &Position| granted.iter().any(|of| of.contains(*at));
            let inside = sealed.iter().filter(|(at, _)| inside(at));
            inside.map(|(_, text)| text.clone()).collect()
        };
        for (reader, granted) in readers.iter().zip(&granted) {
            let opened: BTreeSet<_> = world.opened(*reader).into_iter().collect();
            assert_eq!(opened, expected(granted), "seed {seed}, reader {reader}");
        }
        let pooled = opened_together(&mut world, readers);
        assert_eq!(pooled, expected(&granted.concat()), "seed {seed}, pooled");
    }
}

fn opened_together(world: &mut World, [one, other]: [usize; 2]) -> BTreeSet<String> {
    let theirs = world.peers[other].store.clone();
    let view = &mut world.peers[one].view;
    for ((space, id), value) in theirs {
        let value = SecretBytes::from(value);
        let session = id
            .get(32..48)
            .map(|id| SessionId(*id.first_chunk().unwrap()));
        match (space, session) {
            (Space::Cover, Some(session)) => view.restore_cover(session, &value),
            (Space::Root, Some(session)) => view.restore_root(session, &value),
            _ => (),
        }
    }
    world.opened(one).into_iter().collect()
}

#[test]
fn after_a_revocation_nothing_sealed_later_opens_and_the_past_stays() {
    let mut world = World::new(3);
    let reader = world.user();
    world
        .grant(OWNER, reader, Roles::READER, Interval::ALL)
        .unwrap();
    world.publish(OWNER, "before").unwrap();
    world.sync(reader);
    world.revoke_user(OWNER, reader).unwrap();
    world
        .publish(OWNER, "after, in the same millisecond")
        .unwrap();
    world.tick(1_000);
    world.publish(OWNER, "after").unwrap();
    world.share(OWNER, SharedWith::Everyone);
    assert_eq!(world.transcript(reader), "before\nsealed\nsealed\n");
}

#[test]
fn the_same_position_is_another_key_after_a_revocation() {
    let mut world = World::new(4);
    let reader = world.user();
    world
        .grant(OWNER, reader, Roles::READER, Interval::ALL)
        .unwrap();
    let before = world.publish(OWNER, "before").unwrap();
    world.revoke_user(OWNER, reader).unwrap();
    let after = world.publish(OWNER, "after").unwrap();
    assert_eq!(before.position, after.position);
    assert_ne!(before.session, after.session);
}

#[test]
fn an_expiry_costs_nothing_and_ends_reading() {
    let mut world = World::new(5);
    let reader = world.user();
    let interval = between(NOON, NOON.after(10));
    world.grant(OWNER, reader, Roles::READER, interval).unwrap();
    let first = world.publish(OWNER, "9").unwrap();
    let items = world.keys().len();
    world.tick(10);
    let second = world.publish(OWNER, "10").unwrap();
    assert_eq!(first.session, second.session);
    assert_eq!(world.keys().len(), items);
    assert_eq!(world.transcript(reader), "9\nsealed\n");
}

/// A cut ends one interval and begins another without a key being sent to whoever goes on.
#[test]
fn a_rotation_leaves_ended_readers_behind_and_sends_nothing() {
    let mut world = World::new(6);
    let (stays, ends) = (world.user(), world.user());
    world
        .grant(OWNER, stays, Roles::READER, since(NOON))
        .unwrap();
    world.publish(OWNER, "both").unwrap();
    let cut = world.cut(OWNER);
    world
        .grant(OWNER, ends, Roles::READER, between(NOON, cut))
        .unwrap();
    let items = world.keys().len();
    world.publish(OWNER, "one").unwrap();
    world.share(OWNER, SharedWith::Everyone);
    assert_eq!(world.keys().len(), items);
    assert_eq!(world.transcript(ends), "both\nsealed\n");
    assert_eq!(world.transcript(stays), "both\none\n");
}

#[test]
fn from_now_on_never_opens_the_past_even_across_a_new_session() {
    let mut world = World::new(7);
    let (reader, late) = (world.user(), world.user());
    world.publish(OWNER, "past").unwrap();
    let cut = world.cut(OWNER);
    world
        .grant(OWNER, reader, Roles::READER, since(cut))
        .unwrap();
    world
        .publish(OWNER, "in the millisecond of the cut")
        .unwrap();
    world.rekey(OWNER);
    world.publish(OWNER, "in a new session").unwrap();
    let cut = world.cut(OWNER);
    world.grant(OWNER, late, Roles::READER, since(cut)).unwrap();
    world.publish(OWNER, "last").unwrap();
    world.share(OWNER, SharedWith::Everyone);
    let transcript = "sealed\nin the millisecond of the cut\nin a new session\nlast\n";
    assert_eq!(world.transcript(reader), transcript);
    assert_eq!(world.transcript(late), "sealed\nsealed\nsealed\nlast\n");
}

/// fault 21
#[test]
fn a_clock_set_back_does_not_let_an_ended_reader_in() {
    let mut world = World::new(8);
    let reader = world.user();
    let end = NOON.after(60_000);
    world
        .grant(OWNER, reader, Roles::READER, between(NOON, end))
        .unwrap();
    world.publish(OWNER, "inside").unwrap();
    world.tick(61_000);
    world.publish(OWNER, "behind").unwrap();
    world.now = NOON.after(30_000);
    world.publish(OWNER, "clock set back").unwrap();
    world.rekey(OWNER);
    world.publish(OWNER, "clock set back, new session").unwrap();
    world.share(OWNER, SharedWith::Everyone);
    assert_eq!(world.transcript(reader), "inside\nsealed\nsealed\nsealed\n");
}

/// fault 21: nor does an entry that an admin wrote later than this clock shows.
#[test]
fn nobody_seals_below_the_newest_entry_of_the_owner() {
    let mut world = World::new(9);
    let (publisher, reader) = (world.user(), world.user());
    world
        .grant(OWNER, publisher, Roles::PUBLISHER, Interval::ALL)
        .unwrap();
    world
        .grant(
            OWNER,
            reader,
            Roles::READER,
            between(NOON, NOON.after(5_000)),
        )
        .unwrap();
    world.tick(6_000);
    let other = world.user();
    world
        .grant(OWNER, other, Roles::READER, Interval::ALL)
        .unwrap();
    world.now = NOON.after(1_000);
    let header = world.publish(publisher, "slow clock").unwrap();
    assert_eq!(header.position, NOON.after(6_000));
    world.share(OWNER, SharedWith::Everyone);
    assert_eq!(world.transcript(reader), "sealed\n");
}

/// Opening does not make a reader hold more and more.
#[test]
fn a_reader_holds_each_cover_once() {
    let mut world = World::new(19);
    let reader = world.user();
    world
        .grant(OWNER, reader, Roles::READER, since(NOON))
        .unwrap();
    let items = world.sealed(OWNER, &["a", "b", "c"]);
    world.sync(reader);
    let mut live = Reader::new(Mode::Live);
    assert_eq!(world.feed(reader, &mut live, &items), "a\nb\nc\n");
    assert_eq!(format!("{live:?}").matches("Walker(..)").count(), 1);
}

/// A session's last message may lie where the next one starts.
#[test]
fn both_sessions_of_one_millisecond_are_granted() {
    let mut world = World::new(18);
    let reader = world.user();
    world.publish(OWNER, "earlier").unwrap();
    world.tick(5);
    world.publish(OWNER, "last of the first").unwrap();
    world.rekey(OWNER);
    world.publish(OWNER, "first of the second").unwrap();
    world
        .grant(OWNER, reader, Roles::READER, since(NOON.after(5)))
        .unwrap();
    assert_eq!(
        world.opened(reader),
        ["last of the first", "first of the second"]
    );
}

/// The publisher is gone; any keyholder's device gives the past.
#[test]
fn a_late_grant_needs_no_publisher() {
    let mut world = World::new(10);
    let (publisher, admin, one, other) = (world.user(), world.user(), world.user(), world.user());
    world
        .grant(OWNER, publisher, Roles::PUBLISHER, Interval::ALL)
        .unwrap();
    world.publish(publisher, "first").unwrap();
    world.rekey(publisher);
    world.tick(1_000);
    world.publish(publisher, "second").unwrap();
    let past = between(Position(5_000), Position(9_000));
    world.backfill(
        publisher,
        past,
        &[(5_000, "old"), (5_000, "as old"), (7_000, "older data")],
    );
    world.publish(OWNER, "another lane").unwrap();
    world
        .grant(OWNER, admin, Roles::ADMIN, Interval::ALL)
        .unwrap();
    world.revoke_user(OWNER, publisher).unwrap();
    world
        .grant(OWNER, one, Roles::READER, Interval::ALL)
        .unwrap();
    world.tick(1_000);
    world
        .grant(
            admin,
            other,
            Roles::READER,
            between(Position(5_001), NOON.after(1_000)),
        )
        .unwrap();
    let all = "first\nsecond\nold\nas old\nolder data\nanother lane\n";
    assert_eq!(world.transcript(one), all);
    let some = "first\nsealed\nsealed\nsealed\nolder data\nsealed\n";
    assert_eq!(world.transcript(other), some);
}

#[test]
fn a_grant_is_as_large_for_one_message_as_for_many() {
    let mut sizes = BTreeSet::new();
    for messages in [1, 300] {
        let mut world = World::new(11);
        let reader = world.user();
        for at in 0..messages {
            world.publish(OWNER, &at.to_string()).unwrap();
        }
        let interval = between(NOON, NOON.after(86_400_000));
        world
            .write_grant(OWNER, reader, Roles::READER, interval)
            .unwrap();
        sizes.insert(world.share(OWNER, SharedWith::Everyone));
        assert_eq!(world.opened(reader).len(), messages);
    }
    assert_eq!(sizes.len(), 1);
}

/// fault 16: nothing that was received is ever dropped for what comes later.
#[test]
fn every_session_stays_openable() {
    let mut world = World::new(12);
    let reader = world.user();
    world
        .grant(OWNER, reader, Roles::READER, since(NOON))
        .unwrap();
    let count = 1_100;
    for at in 0..count {
        world.sync(OWNER);
        world.rekey(OWNER);
        world.publish(OWNER, &at.to_string()).unwrap();
        world.tick(1);
    }
    let expected: Vec<_> = (0..count).map(|at| at.to_string()).collect();
    assert!(world.opened(reader) == expected);
    world.restart(reader);
    assert!(world.opened(reader) == expected);
}

/// fault 16: covers of one session do not push out one another either. Two of one bundle are two
/// records in the store.
#[test]
fn what_was_received_is_there_after_a_restart() {
    let mut world = World::new(13);
    let reader = world.user();
    let (all, granted) = (0..120, (1..120).step_by(3));
    for at in all {
        world.publish(OWNER, &at.to_string()).unwrap();
        world.tick(1);
    }
    for from in granted.clone() {
        let interval = between(NOON.after(from), NOON.after(from + 2));
        world
            .write_grant(OWNER, reader, Roles::READER, interval)
            .unwrap();
    }
    world.share(OWNER, SharedWith::Everyone);
    let expected: Vec<_> = granted
        .flat_map(|from| [from, from + 1].map(|at| at.to_string()))
        .collect();
    assert_eq!(world.opened(reader), expected);
    world.restart(reader);
    let keys = StreamTopics(world.stream).keys();
    world
        .bus
        .get_mut(&keys)
        .unwrap()
        .iter_mut()
        .for_each(Vec::clear);
    assert_eq!(world.opened(reader), expected);
}

#[test]
fn lanes_are_granted_one_by_one() {
    let mut world = World::new(14);
    let (publisher, reader) = (world.user(), world.user());
    world
        .grant(OWNER, publisher, Roles::PUBLISHER, Interval::ALL)
        .unwrap();
    world.publish(OWNER, "owner's").unwrap();
    world.publish(publisher, "publisher's").unwrap();
    let grant = sealcast_protocol::Grant {
        user: world.id(reader),
        devices: vec![],
        roles: Roles::READER,
        lanes: vec![world.id(publisher)],
        interval: Interval::ALL,
        reshare: false,
    };
    world
        .write(publisher, sealcast_protocol::LogBody::Grant(grant))
        .unwrap();
    world.share(publisher, SharedWith::Everyone);
    world.share(OWNER, SharedWith::Everyone);
    assert_eq!(world.transcript(reader), "sealed\npublisher's\n");
    world.revoke_user(publisher, reader).unwrap();
    world.publish(publisher, "later").unwrap();
    world.share(OWNER, SharedWith::Everyone);
    assert_eq!(world.transcript(reader), "sealed\npublisher's\nsealed\n");
}

#[test]
fn history_reads_an_interval_and_passes_the_rest_by_in_silence() {
    let mut world = World::new(15);
    for at in 0..9 {
        world.publish(OWNER, &at.to_string()).unwrap();
        world.tick(1);
    }
    world.sync(OWNER);
    let events = world.events(OWNER, between(NOON.after(3), NOON.after(6)));
    assert_eq!(lines(events), "3\n4\n5\n");
}

#[test]
fn keys_that_come_late_open_what_could_not_be_opened_before() {
    let mut world = World::new(16);
    let reader = world.user();
    world.publish(OWNER, "one").unwrap();
    world
        .write_grant(OWNER, reader, Roles::READER, Interval::ALL)
        .unwrap();
    assert_eq!(world.transcript(reader), "sealed, key not here\n");
    let item = world.data()[0].clone();
    let mut live = Reader::new(Mode::Live);
    live.handle(&world.peers[reader].view, &item);
    world.share(OWNER, SharedWith::Everyone);
    world.publish(OWNER, "two").unwrap();
    world.sync(reader);
    let item = world.data()[1].clone();
    live.handle(&world.peers[reader].view, &item);
    let events = std::iter::from_fn(|| live.poll_event()).collect();
    assert_eq!(texts(events), ["two"]);
    assert_eq!(world.opened(reader), ["one", "two"]);
}

#[test]
fn one_grant_of_several_can_be_taken_back() {
    let mut world = World::new(17);
    let reader = world.user();
    let noon = between(NOON, NOON.after(10));
    world.grant(OWNER, reader, Roles::READER, noon).unwrap();
    let rest = world
        .grant(OWNER, reader, Roles::READER, since(NOON.after(10)))
        .unwrap();
    world.publish(OWNER, "noon").unwrap();
    world.revoke(OWNER, Targets::Grants(vec![rest])).unwrap();
    world.publish(OWNER, "still noon").unwrap();
    world.tick(10);
    world.publish(OWNER, "afternoon").unwrap();
    world.share(OWNER, SharedWith::Everyone);
    assert_eq!(world.transcript(reader), "noon\nstill noon\nsealed\n");
}

//! What waits for keys: who gets in, what opens when, and which keys are missing.

use sealcast_engine::{Missing, Mode, Reader, SharedWith};
use sealcast_protocol::{DeviceId, Interval, Position, Roles, SessionKind};

use crate::rig::{NOON, OWNER, World, between, header, since};

mod lot;
mod room;

use lot::{Lot, let_in, numbered, opened_late, sealed, with_waiting};

/// Fault 9: a thousand messages wait for one key together.
#[test]
fn a_thousand_messages_under_one_missing_key_want_one_interval_and_open_together_in_order() {
    let mut world = World::new(700);
    let reader = world.user();
    let texts = numbered(1000);
    let mut items = sealed(&mut world, OWNER, &texts[..500]);
    world.tick(3_600_000);
    items.extend(sealed(&mut world, OWNER, &texts[500..]));
    world
        .write_grant(OWNER, reader, Roles::READER, Interval::ALL)
        .unwrap();
    world.sync(reader);
    let mut lot = Lot::new(&world, reader);
    let told = lot.read(&world, &items);
    assert_eq!(told, "sealed, key not here Waits\n".repeat(1000));
    assert_eq!(lot.release(&world), "");
    let at = header(&items[0]);
    let missing = Missing {
        lane: world.id(OWNER),
        session: at.session,
        interval: between(at.position, header(&items[999]).position.after(1)),
        is_granted: true,
        is_announced: true,
    };
    assert_eq!(lot.missing(&world), [missing]);
    world.share(OWNER, SharedWith::Everyone);
    world.sync(reader);
    assert_eq!(lot.release(&world), opened_late(&texts));
    assert_eq!((lot.count(), lot.missing(&world)), (0, vec![]));
    assert_eq!(lot.release(&world), "");
}

#[test]
fn what_waits_in_many_sessions_wants_one_interval_of_each() {
    let mut world = World::new(701);
    let reader = world.user();
    let (mut items, mut sessions) = (Vec::new(), Vec::new());
    world.sync(OWNER);
    for _ in 0..20 {
        world.rekey(OWNER);
        items.extend(sealed(&mut world, OWNER, &numbered(50)));
        sessions.push(header(items.last().unwrap()).session);
        world.tick(1);
    }
    world.sync(reader);
    let mut lot = Lot::new(&world, reader);
    lot.read(&world, &items);
    let missing = lot.missing(&world);
    let mut of: Vec<_> = missing.iter().map(|of| of.session).collect();
    of.sort_unstable();
    sessions.sort_unstable();
    assert_eq!(of, sessions);
    assert!(missing.iter().all(|of| !of.is_granted && of.is_announced));
}

#[test]
fn what_is_granted_and_what_is_not_are_missing_apart() {
    let mut world = World::new(702);
    let reader = world.user();
    let mut items = sealed(&mut world, OWNER, &numbered(2));
    world.tick(10);
    let from = world.now;
    items.extend(sealed(&mut world, OWNER, &numbered(2)));
    world
        .write_grant(OWNER, reader, Roles::READER, since(from))
        .unwrap();
    world.sync(reader);
    let mut lot = Lot::new(&world, reader);
    lot.read(&world, &items);
    let missing = lot.missing(&world);
    let granted: Vec<_> = missing
        .iter()
        .map(|of| (of.is_granted, of.interval))
        .collect();
    let span = |at: Position| between(at, at.after(1));
    assert_eq!(granted, [(false, span(NOON)), (true, span(from))]);
    // The key of what is granted opens that, and nothing holds it back.
    world.share(OWNER, SharedWith::Everyone);
    world.sync(reader);
    assert_eq!(lot.release(&world), "m0 Waited\nm1 Waited\n");
    assert_eq!(lot.count(), 2);
}

/// Fault 17: what one publisher's key is missing for holds back nobody, not even that publisher.
#[test]
fn what_waits_holds_back_no_other_publisher_and_no_other_session() {
    let mut world = World::new(703);
    let (friend, reader) = (world.user(), world.user());
    world
        .grant(OWNER, friend, Roles::PUBLISHER, Interval::ALL)
        .unwrap();
    let mut items = world.sealed(OWNER, &["sealed"]);
    world.tick(5);
    world
        .grant(OWNER, reader, Roles::READER, since(world.now))
        .unwrap();
    items.extend(world.sealed(friend, &["friend"]));
    items.extend(world.sealed(OWNER, &["same session"]));
    world.rekey(OWNER);
    items.extend(world.sealed(OWNER, &["next session"]));
    world.share(OWNER, SharedWith::Everyone);
    world.sync(reader);
    let mut lot = Lot::new(&world, reader);
    let told = lot.read(&world, &items);
    assert_eq!(told, "sealed Waits\nfriend\nsame session\nnext session\n");
}

#[test]
fn what_waits_is_there_after_a_restart_and_is_handed_out_once() {
    let mut world = World::new(704);
    let reader = world.user();
    let texts = numbered(5);
    let items = sealed(&mut world, OWNER, &texts);
    world.sync(reader);
    let mut lot = Lot::new(&world, reader);
    lot.read(&world, &items);
    let mut later = lot.again(&world);
    assert!(later.parking.wants_look());
    assert_eq!(later.release(&world), "");
    let_in(&mut world, reader);
    assert_eq!(later.release(&world), opened_late(&texts));
    assert_eq!(later.again(&world).count(), 0);
}

#[test]
fn forged_messages_and_those_of_strangers_take_no_room() {
    let mut world = World::new(711);
    let (reader, stranger) = (world.user(), world.user());
    let item = world.sealed(OWNER, &["true"]).remove(0);
    world.sync(reader);
    let mut forged = Vec::new();
    // Flipped in session, position, sender, signature; and one of a device that nobody named.
    for at in [10, 26, 30, item.len() - 1] {
        let mut bent = item.clone();
        bent[at] ^= 1;
        forged.push(bent);
    }
    forged.push(resealed(&world, stranger, &item, |_| ()));
    let mut lot = Lot::new(&world, reader);
    let told = lot.read(&world, &forged);
    assert!(
        told.lines().all(|line| line.starts_with("rejected")),
        "{told}"
    );
    assert!(!told.contains("Waits"), "{told}");
    assert_eq!(lot.count(), 0);
}

/// An envelope with another header and the same content, signed anew by some device.
fn resealed(
    world: &World,
    peer: usize,
    item: &[u8],
    change: impl FnOnce(&mut sealcast_protocol::Header),
) -> Vec<u8> {
    let mut header = header(item);
    header.device = world.device(peer);
    change(&mut header);
    let root = world.peers[OWNER].view.root(&header.session);
    let root = root.map(|root| root.duplicate());
    let root = root.unwrap_or_else(|| {
        sealcast_crypto::SessionRoot::init_with(|root| root.copy_from_slice(&[7; 32]))
    });
    let mut walker = sealcast_crypto::Walker::new(sealcast_crypto::Cover::whole(&root));
    let leaf = walker.leaf(header.position.0).unwrap();
    let signing = world.peers[peer].identity.signing();
    sealcast_protocol::seal(&leaf, signing, &world.stream, b"", &header, b"again")
        .unwrap()
        .bytes
}

/// The record of a session may come after its messages: they are there meanwhile, and no gap.
#[test]
fn messages_of_a_session_whose_record_is_late_wait_for_it_and_are_no_gap() {
    let mut world = World::new(712);
    let reader = world.user();
    world
        .grant(OWNER, reader, Roles::READER, Interval::ALL)
        .unwrap();
    let mut items = world.sealed(OWNER, &["a"]);
    world.sync(reader);
    world.rekey(OWNER);
    items.extend(world.sealed(OWNER, &["b", "c"]));
    let mut lot = Lot::new(&world, reader);
    let waits = "rejected: UnknownSession Waits\n".repeat(2);
    assert_eq!(lot.read(&world, &items), format!("a\n{waits}"));
    assert_eq!(lot.read(&world, &items[1..2]), "Replay\n");
    let missing = lot.missing(&world);
    assert_eq!((missing.len(), missing[0].is_announced), (1, false));
    world.sync(reader);
    let next = world.sealed(OWNER, &["d"]);
    world.sync(reader);
    assert_eq!(lot.release(&world), "b Waited\nc Waited\n");
    assert_eq!(lot.read(&world, &next), "d\n");
}

/// The same after a restart, when the run that they are of is not live any more.
#[test]
fn an_old_message_of_a_late_session_is_no_replay_after_a_restart() {
    let mut world = World::new(713);
    let reader = world.user();
    let_in(&mut world, reader);
    let early = world.sealed(OWNER, &["early"]);
    let mut lot = Lot::new(&world, reader);
    lot.reader.raise_floor(world.now.after(3_600_000));
    assert_eq!(lot.read(&world, &early), "rejected: UnknownSession Waits\n");
    let mut later = lot.again(&world);
    world.tick(7_200_000);
    later.reader.raise_floor(world.now);
    world.sync(reader);
    assert_eq!(later.release(&world), "early Waited\n");
}

#[test]
fn a_session_that_is_late_and_does_not_allow_the_message_rejects_it_then() {
    let mut world = World::new(714);
    let reader = world.user();
    let_in(&mut world, reader);
    let item = world.sealed(OWNER, &["live"]).remove(0);
    let odd = resealed(&world, OWNER, &item, |header| header.flags.backfill = true);
    let mut lot = Lot::new(&world, reader);
    assert_eq!(lot.read(&world, &[odd]), "rejected: UnknownSession Waits\n");
    world.sync(reader);
    assert_eq!(lot.release(&world), "rejected: WrongSession Waited\n");
    assert_eq!(lot.count(), 0);
}

/// The log may say later that a publisher was entitled; whoever never was one gets no room.
#[test]
fn what_a_publisher_seals_beyond_its_grant_waits_for_the_log_and_a_readers_does_not() {
    let mut world = World::new(715);
    let (publisher, reader) = (world.user(), world.user());
    let end = NOON.after(10);
    world
        .grant(OWNER, publisher, Roles::PUBLISHER, between(NOON, end))
        .unwrap();
    world
        .grant(OWNER, reader, Roles::READER, Interval::ALL)
        .unwrap();
    let mut items = world.sealed(publisher, &["within"]);
    world.share(publisher, SharedWith::Everyone);
    world.sync(reader);
    world.tick(20);
    world
        .grant(OWNER, publisher, Roles::PUBLISHER, since(end))
        .unwrap();
    items.extend(world.sealed(publisher, &["beyond"]));
    items.push(resealed(&world, reader, &items[1], |_| ()));
    let mut forged = items[1].clone();
    forged[100] ^= 1;
    items.push(forged);
    let mut lot = Lot::new(&world, reader);
    let told = lot.read(&world, &items);
    let refused = "rejected: NotEntitled\n";
    assert_eq!(
        told,
        format!("within\nrejected: NotEntitled Waits\n{refused}{refused}")
    );
    world.share(publisher, SharedWith::Everyone);
    world.sync(reader);
    assert_eq!(lot.release(&world), "beyond Waited\n");
}

/// What was let in is judged once more when its key has come: its sender may be out by then.
#[test]
fn what_waits_from_a_publisher_who_was_removed_is_rejected_when_its_key_comes() {
    let mut world = World::new(716);
    let (publisher, reader) = (world.user(), world.user());
    world
        .grant(OWNER, publisher, Roles::PUBLISHER, Interval::ALL)
        .unwrap();
    let items = world.sealed(publisher, &["before", "after"]);
    world.sync(reader);
    let mut lot = Lot::new(&world, reader);
    lot.read(&world, &items);
    // The owner has seen the first one only.
    world.data().push(items[0].clone());
    world.revoke_user(OWNER, publisher).unwrap();
    world
        .grant(OWNER, reader, Roles::READER, Interval::ALL)
        .unwrap();
    world.share(OWNER, SharedWith::Everyone);
    world.sync(reader);
    lot.reader.allow(world.allowed(reader));
    let told = "before Waited\nrejected: AfterRevocation Waited\n";
    assert_eq!(lot.release(&world), told);
    assert_eq!(lot.count(), 0);
}

/// A false key does not take a message away from the true one.
#[test]
fn what_a_false_cover_does_not_open_waits_for_one_that_does() {
    let mut world = World::new(717);
    let (liar, reader) = (world.user(), world.user());
    world
        .grant(OWNER, liar, Roles::ADMIN, Interval::ALL)
        .unwrap();
    let items = world.sealed(OWNER, &["true"]);
    world
        .write_grant(OWNER, reader, Roles::READER, since(NOON))
        .unwrap();
    let session = header(&items[0]).session;
    let lie = crate::handouts::false_cover(&mut world, liar, reader, session, since(NOON));
    world.put_key_item(&lie);
    world.sync(reader);
    let mut lot = Lot::new(&world, reader);
    let told = lot.read(&world, &items);
    assert_eq!(told, "rejected: NotAuthentic Waits\n");
    assert_eq!(lot.missing(&world).len(), 1);
    assert_eq!((lot.release(&world), lot.count()), (String::new(), 1));
    world.restart(OWNER);
    world.revoke_user(OWNER, liar).unwrap();
    world.share(OWNER, SharedWith::Everyone);
    world.sync(reader);
    assert_eq!(lot.release(&world), "bad cover\ntrue Waited\n");
}

/// What the history shows of what waits is told once: it does not come late as well.
#[test]
fn what_waits_and_opens_in_history_waits_no_more() {
    let mut world = World::new(718);
    let reader = world.user();
    let items = sealed(&mut world, OWNER, &numbered(3));
    world.sync(reader);
    let mut lot = Lot::new(&world, reader);
    lot.read(&world, &items);
    let_in(&mut world, reader);
    let mut later = lot.again(&world);
    later.reader = Reader::new(Mode::History(Interval::ALL));
    later.reader.park(later.parking.numbers().clone());
    assert_eq!(later.read(&world, &items[..2]), "m0\nm1\n");
    let done = later.reader.take_events().take_done();
    later.parking.hand_out(done);
    later.parking.record_handed_out();
    later.keep();
    assert_eq!(later.release(&world), "m2 Waited\n");
}

#[test]
fn older_data_that_waits_opens_too() {
    let mut world = World::new(719);
    let reader = world.user();
    let past = between(Position(5), Position(50));
    world.backfill(OWNER, past, &[(10, "old"), (20, "older no more")]);
    let items = world.data().clone();
    world.sync(reader);
    let mut lot = Lot::new(&world, reader);
    assert_eq!(lot.read(&world, &items), "sealed Waits\n".repeat(2));
    world.grant(OWNER, reader, Roles::READER, past).unwrap();
    world.sync(reader);
    assert_eq!(lot.release(&world), "old Waited\nolder no more Waited\n");
}

#[test]
fn what_comes_from_a_device_with_something_due_is_known_to_be_later() {
    let (mut world, reader, mut lot) = with_waiting(720, 3);
    let device = world.device(OWNER);
    assert!(!lot.parking.is_due(&device));
    let_in(&mut world, reader);
    lot.parking.look(&world.peers[reader].view);
    assert!(lot.parking.is_due(&device) && !lot.parking.is_due(&DeviceId([9; 16])));
    assert_eq!(lot.parking.take_due(2, 1 << 20), [0, 1]);
    assert!(lot.parking.is_due(&device));
    assert_eq!(lot.parking.take_due(2, 1 << 20), [2]);
    assert!(!lot.parking.is_due(&device) && !lot.parking.has_due());
    lot.parking.take_back(&[2]);
    assert_eq!(lot.parking.take_due(9, 0), [2]);
}

/// Nothing that waits makes a session live or past: only the record does.
#[test]
fn a_backfill_session_whose_record_is_late_opens_too() {
    let mut world = World::new(722);
    let reader = world.user();
    let past = between(Position(5), Position(50));
    world.grant(OWNER, reader, Roles::READER, past).unwrap();
    world.publish(OWNER, "live").unwrap();
    world.sync(reader);
    let new = world.draw(OWNER, NOON, SessionKind::Backfill { interval: past });
    let records = [(Position(10), b"old".to_vec())];
    let of = &mut world.peers[OWNER];
    let mut run = sealcast_engine::Publisher::new(world.stream, &of.identity, &mut world.rng);
    let sealed = run
        .seal_past(&mut of.lane, &of.view, new.session, &records)
        .unwrap();
    let items: Vec<_> = sealed.envelopes.into_iter().map(|of| of.bytes).collect();
    let mut lot = Lot::new(&world, reader);
    lot.reader.raise_floor(world.now);
    assert_eq!(lot.read(&world, &items), "rejected: UnknownSession Waits\n");
    world.put_key_item(new.record.wire());
    world.share(OWNER, SharedWith::Everyone);
    world.sync(reader);
    assert_eq!(lot.release(&world), "old Waited\n");
}

/// A false key that comes for what waits already is no reason to ask nobody any more.
#[test]
fn what_waited_and_a_false_cover_did_not_open_is_missing_still() {
    let mut world = World::new(718);
    let (liar, reader) = (world.user(), world.user());
    world
        .grant(OWNER, liar, Roles::ADMIN, Interval::ALL)
        .unwrap();
    let items = world.sealed(OWNER, &["true"]);
    world
        .write_grant(OWNER, reader, Roles::READER, since(NOON))
        .unwrap();
    world.sync(reader);
    let mut lot = Lot::new(&world, reader);
    assert_eq!(lot.read(&world, &items), "sealed, key not here Waits\n");
    let missing = lot.missing(&world);
    assert_eq!(missing.len(), 1);
    let session = header(&items[0]).session;
    let lie = crate::handouts::false_cover(&mut world, liar, reader, session, since(NOON));
    world.put_key_item(&lie);
    world.sync(reader);
    let mut later = lot.again(&world);
    for lot in [&mut lot, &mut later] {
        assert_eq!((lot.release(&world), lot.count()), (String::new(), 1));
        assert!(lot.parking.wants_look(), "nobody says that it is missing");
        lot.release(&world);
        assert_eq!(lot.missing(&world), missing);
        assert!(!lot.parking.wants_look());
    }
    // What is learned besides keys does not have it opened again and again.
    world
        .grant(OWNER, liar, Roles::READER, Interval::ALL)
        .unwrap();
    world.sync(reader);
    lot.parking.look(&world.peers[reader].view);
    assert!(!lot.parking.has_due());
    world.restart(OWNER);
    world.revoke_user(OWNER, liar).unwrap();
    world.share(OWNER, SharedWith::Everyone);
    world.sync(reader);
    assert_eq!(lot.release(&world), "bad cover\ntrue Waited\n");
}

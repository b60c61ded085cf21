//! Who gets room and who makes it, and how the index keeps in step with a store.

use sealcast_engine::{Parked, ParkingLimits, SharedWith, Space};
use sealcast_protocol::{Interval, Roles};

use super::lot::{Lot, let_in, numbered, opened_late, sealed, told_lines, with_waiting};
use crate::rig::{NOON, OWNER, World};

/// Somebody else on the same store took what this one said waits: it says so.
#[test]
fn what_another_run_handed_out_is_told_and_not_lost_in_silence() {
    let mut world = World::new(705);
    let reader = world.user();
    let items = sealed(&mut world, OWNER, &numbered(2));
    world.sync(reader);
    let mut first = Lot::new(&world, reader);
    first.read(&world, &items);
    let mut second = first.again(&world);
    let_in(&mut world, reader);
    second.release(&world);
    first.store = second.store.clone();
    let stamp = first.store.get(&(Space::Parked, first.parking.stamp_id()));
    assert!(!first.parking.is_current(stamp.map(Vec::as_slice)));
    first.restore();
    let told = told_lines(first.parking.take_told());
    assert_eq!(told, "sealed Elsewhere\nsealed Elsewhere\n");
    assert_eq!(first.release(&world), "");
}

/// What a failed transaction would have changed is not changed.
#[test]
fn a_transaction_that_failed_leaves_nothing_behind() {
    let mut world = World::new(706);
    let reader = world.user();
    let items = sealed(&mut world, OWNER, &numbered(3));
    world.sync(reader);
    let mut lot = Lot::new(&world, reader);
    lot.read(&world, &items[..1]);
    let view = &world.peers[reader].view;
    lot.reader.handle(view, &items[1]);
    let of = lot.reader.unopened().next().unwrap();
    assert_eq!(lot.parking.admit(world.now, of), Parked::Waits);
    assert_eq!(lot.parking.take_changes().len(), 3);
    let mut other = lot.again(&world);
    lot.parking.abandon();
    // Somebody else changes as much, so that the stamp is what it would have been.
    other.reader.handle(&world.peers[reader].view, &items[2]);
    other.read(&world, &[]);
    lot.store = other.store;
    let stamp = lot.store.get(&(Space::Parked, lot.parking.stamp_id()));
    assert!(!lot.parking.is_current(stamp.map(Vec::as_slice)));
    lot.restore();
    assert_eq!(lot.count(), 2);
    assert!(lot.parking.take_told().is_empty());
    // The envelope is with the reader still, and is admitted again.
    assert_eq!(lot.read(&world, &[]), "sealed Waits\n");
    assert_eq!(lot.count(), 3);
}

/// What was handed out is not handed out again where the record of it failed.
#[test]
fn what_was_handed_out_is_not_due_again_when_the_index_is_read_anew() {
    let (mut world, reader, mut lot) = with_waiting(707, 2);
    let_in(&mut world, reader);
    lot.parking.look(&world.peers[reader].view);
    let numbers = lot.parking.take_due(9, 1 << 20);
    lot.parking.hand_out(numbers);
    lot.parking.record_handed_out();
    drop(lot.parking.take_changes());
    lot.parking.abandon();
    lot.restore();
    assert_eq!((lot.release(&world), lot.count()), (String::new(), 2));
    lot.parking.record_handed_out();
    lot.keep();
    assert_eq!(lot.count(), 0);
}

fn limits(messages: u64, of_publisher: u64) -> ParkingLimits {
    // One of these messages, and what each counts besides.
    let one = 4096 + 178;
    ParkingLimits {
        bytes_max: messages * one,
        publisher_bytes_max: of_publisher * one,
        ..ParkingLimits::default()
    }
}

#[test]
fn a_publisher_whose_room_is_full_is_told_so_and_what_waits_goes_on_waiting() {
    let mut world = World::new(708);
    let reader = world.user();
    let items = sealed(&mut world, OWNER, &numbered(5));
    world.sync(reader);
    let mut lot = Lot::with(&world, reader, limits(100, 3));
    let told = lot.read(&world, &items);
    let kept = "sealed Waits\n".repeat(3);
    assert_eq!(told, format!("{kept}sealed NoRoom\nsealed NoRoom\n"));
    let_in(&mut world, reader);
    assert_eq!(lot.release(&world), opened_late(&numbered(3)));
}

/// Whoever fills all the room with its own makes room for the others, and for nobody else.
#[test]
fn no_publisher_pushes_out_another() {
    let mut world = World::new(709);
    let (flooder, quiet, reader) = (world.user(), world.user(), world.user());
    for publisher in [flooder, quiet] {
        world
            .grant(OWNER, publisher, Roles::PUBLISHER, Interval::ALL)
            .unwrap();
    }
    let flood = sealed(&mut world, flooder, &numbered(9));
    let few = sealed(&mut world, quiet, &numbered(4));
    world.sync(reader);
    let mut lot = Lot::with(&world, reader, limits(6, 6));
    let full = format!(
        "{}{}",
        "sealed Waits\n".repeat(6),
        "sealed NoRoom\n".repeat(3)
    );
    assert_eq!(lot.read(&world, &flood), full);
    // The flooder's newest go, until both have as much.
    let told = lot.read(&world, &few);
    let shared = "sealed Waits\n".repeat(3) + "sealed NoRoom\n";
    assert_eq!(told, format!("{shared}{}", "sealed NoRoom\n".repeat(3)));
    assert_eq!(lot.read(&world, &flood[8..]), "Replay\n");
    let more = sealed(&mut world, flooder, &numbered(5));
    world.sync(reader);
    assert_eq!(lot.read(&world, &more), "sealed NoRoom\n".repeat(5));
    assert_eq!(lot.count(), 6);
    world
        .grant(OWNER, reader, Roles::READER, Interval::ALL)
        .unwrap();
    for publisher in [flooder, quiet] {
        world.share(publisher, SharedWith::Everyone);
    }
    world.sync(reader);
    let late = opened_late(&numbered(3));
    assert_eq!(lot.release(&world), format!("{late}{late}"));
}

#[test]
fn what_waited_as_long_as_it_may_is_given_up_and_told() {
    let mut world = World::new(710);
    let reader = world.user();
    let mut items = sealed(&mut world, OWNER, &numbered(2));
    world.sync(reader);
    let mut lot = Lot::new(&world, reader);
    lot.read(&world, &items);
    world.tick(ParkingLimits::default().age_ms_max);
    items.extend(sealed(&mut world, OWNER, &numbered(1)));
    world.sync(reader);
    lot.read(&world, &items[2..]);
    assert!(!lot.parking.has_old(world.now));
    world.tick(1);
    assert!(lot.parking.has_old(world.now));
    lot.parking.expire(world.now);
    lot.keep();
    let told = told_lines(lot.parking.take_told());
    assert_eq!(told, "sealed TooOld\nsealed TooOld\n");
    assert_eq!(lot.count(), 1);
    // A clock that was set back makes nothing older.
    assert!(!lot.parking.has_old(NOON));
}

/// An index of another version, or what is none, is passed over.
#[test]
fn rows_that_are_none_are_passed_over() {
    let (world, _, mut lot) = with_waiting(721, 1);
    let id = |number: u64| [&world.stream.0[..], &number.to_be_bytes()].concat();
    for (number, value) in [(7, &b""[..]), (8, b"\x80"), (9, &[0xff; 600])] {
        lot.store
            .insert((Space::Parked, id(number)), value.to_vec());
    }
    lot.restore();
    assert_eq!(lot.parking.used().0, 1);
}

#[test]
fn what_a_wrong_clock_let_wait_keeps_nothing_else_from_getting_old() {
    let (mut world, _, mut lot) = with_waiting(722, 0);
    let right = world.now;
    world.tick(200 * 24 * 3_600_000);
    let ahead = sealed(&mut world, OWNER, &["ahead".to_owned()]);
    lot.read(&world, &ahead);
    let behind = sealed(&mut world, OWNER, &["behind".to_owned()]);
    world.now = right;
    lot.read(&world, &behind);
    assert_eq!(lot.count(), 2);
    world.tick(ParkingLimits::default().age_ms_max + 1);
    assert!(lot.parking.has_old(world.now));
    lot.parking.expire(world.now);
    lot.keep();
    let told = told_lines(lot.parking.take_told());
    assert_eq!(told, "rejected: UnknownSession TooOld\n");
    assert_eq!(lot.count(), 1);
}

//! Nobody who may little closes a lane to those who may read it, and what takes from somebody is not passed over for that.

use sealcast_engine::{CombinerInput, SharedWith, plan_handouts};
use sealcast_protocol::{
    CardRevocation, Condition, Demand, Interval, ListBody, LogHash, Position, Roles, SessionId,
    Sharing, Targets, sign,
};

use super::rig::{Asking, Net};
use crate::rig::{OWNER, World, since};

const DAY: u64 = 86_400_000;

fn session(world: &World) -> SessionId {
    world.peers[OWNER].lane.session
}

/// Takes a card back, so that what its device wrote now is held back by whoever begins to read.
fn take_card_of(world: &mut World, peer: usize) {
    let _proof = world.out(peer);
}

fn restart_all(net: &mut Net, reader: usize) {
    for at in 0..net.nodes.len() {
        net.restart(at);
    }
    net.world.restart(reader);
}

/// A user takes a device out, and then the card of the one that it said so with.
fn takes_out_two(world: &mut World, user: usize) {
    let (lost, said_so) = (world.device_of(user), world.device_of(user));
    let out = world.out(lost);
    world.revoke(said_so, Targets::Devices(vec![out])).unwrap();
    world.sync(OWNER);
    world.publish(OWNER, "two").unwrap();
    take_card_of(world, said_so);
}

#[test]
fn who_takes_out_devices_of_its_own_closes_no_lane() {
    let mut net = Net::new(2, 3);
    let (many, reader) = (net.reader_of_all(), net.reader_of_all());
    net.publish(&["one"]);
    let first = session(&net.world);
    takes_out_two(&mut net.world, many);
    assert_ne!(session(&net.world), first);
    restart_all(&mut net, reader);
    net.unlock(reader);
    assert_eq!(net.world.opened(reader), ["one", "two"]);
}

#[test]
fn nor_to_who_is_given_keys_by_others() {
    let mut world = World::new(71);
    let most = since(Position(1));
    let many = world.user();
    world.grant(OWNER, many, Roles::READER, most).unwrap();
    world.publish(OWNER, "one").unwrap();
    let first = session(&world);
    takes_out_two(&mut world, many);
    assert_ne!(session(&world), first);
    world.sync(OWNER);
    world.restart(OWNER);
    let reader = world.user();
    world.grant(OWNER, reader, Roles::READER, most).unwrap();
    assert_eq!(world.opened(reader), ["one", "two"]);
}

/// The word of an admin counts for what was begun for it, whatever becomes of the card of its device.
#[test]
fn what_takes_from_others_is_waited_for() {
    let mut net = Net::new(2, 3);
    let reader = net.reader_of_all();
    let admin = net.world.user();
    net.world.tick(1);
    let all = Interval::ALL;
    net.world
        .write_grant(OWNER, admin, Roles::ADMIN, all)
        .unwrap();
    let phone = net.world.device_of(admin);
    net.publish(&["one"]);
    net.unlock(reader);
    net.world.revoke_user(phone, reader).unwrap();
    net.world.publish(OWNER, "two").unwrap();
    take_card_of(&mut net.world, phone);
    restart_all(&mut net, reader);
    let told = net.unlock(reader);
    assert!(told.contains("refuses: LogBehind"), "{told}");
    assert_eq!(net.world.opened(reader), ["one"]);
}

/// Has a device say of each session that it drew it, in knowledge of what is not there.
fn copy_records(world: &mut World, thief: usize) {
    world.sync(thief);
    let of = &world.peers[thief];
    let copies = of.view.records().map(|record| {
        let mut copy = record.clone();
        (copy.device, copy.heads) = (of.identity.device(), vec![LogHash([9; 32])]);
        sign(of.identity.signing(), copy).unwrap().wire().to_vec()
    });
    for copy in copies.collect::<Vec<_>>() {
        world.put_key_item(&copy);
    }
}

#[test]
fn who_copies_the_records_of_sessions_closes_none() {
    let mut net = Net::new(2, 3);
    net.publish(&["one"]);
    let reader = net.reader_of_all();
    let thief = net.world.device_of(OWNER);
    copy_records(&mut net.world, thief);
    let out = net.world.out(thief);
    net.world
        .revoke(OWNER, Targets::Devices(vec![out]))
        .unwrap();
    net.unlock(reader);
    assert_eq!(net.world.opened(reader), ["one"]);
    net.world.sync(OWNER);
    let with = SharedWith::User(net.world.id(reader));
    let knows = |world: &World| {
        let view = &world.peers[OWNER].view;
        assert_eq!(view.records().count(), 2);
        plan_handouts(view, world.now, with).len()
    };
    // Streams like this one share nothing unasked, but with the devices of keyholders.
    assert_eq!(knows(&net.world), 0);
    let tablet = net.world.device_of(OWNER);
    net.world.sync(OWNER);
    assert_eq!(knows(&net.world), 1);
    net.world.share(OWNER, with);
    assert_eq!(net.world.opened(tablet), ["one"]);
}

/// Nodes may have given its devices what is yet to be published, and the log says nothing of it.
#[test]
fn a_session_ends_when_a_card_is_revoked_whose_device_may_have_asked() {
    let mut net = Net::new(2, 3);
    let reader = net.reader_of_all();
    let (lost, later) = (net.world.device_of(reader), net.world.device_of(reader));
    net.publish(&["one"]);
    let first = session(&net.world);
    net.world.tick(DAY);
    take_card_of(&mut net.world, lost);
    net.publish(&["two"]);
    let second = session(&net.world);
    assert_ne!(second, first);
    // Nobody has a publisher begin one after the other by a time that is yet to come.
    let out = CardRevocation {
        device: net.world.device(later),
        time: net.world.now.after(DAY),
    };
    net.world.list(reader, ListBody::Revoke(out));
    net.publish(&["three", "four"]);
    assert_eq!(session(&net.world), second);
    net.world.tick(DAY);
    net.publish(&["five"]);
    let third = session(&net.world);
    assert_ne!(third, second);
    net.publish(&["six"]);
    assert_eq!(session(&net.world), third);
}

#[test]
fn where_there_are_no_nodes_it_goes_on() {
    let mut world = World::with(72, Sharing::Manual, false);
    let reader = world.user();
    let most = since(Position(1));
    world
        .write_grant(OWNER, reader, Roles::READER, most)
        .unwrap();
    let lost = world.device_of(reader);
    world.publish(OWNER, "one").unwrap();
    let first = session(&world);
    world.tick(DAY);
    take_card_of(&mut world, lost);
    world.publish(OWNER, "two").unwrap();
    assert_eq!(session(&world), first);
}

/// A publisher can seal for as far ahead as it likes.
#[test]
fn what_lies_far_ahead_pushes_out_nothing_that_is_near() {
    let mut net = Net::new(2, 3);
    let end = net.world.now.after(100 * 365 * DAY);
    net.name(2, Condition(vec![vec![Demand::Before(end)]]));
    let reader = net.reader_of_all();
    net.publish(&["one"]);
    let session = session(&net.world);
    let mut asking = Asking::new(&mut net, reader);
    let near = asking.combiner.next_timeout();
    assert!(near.is_some());
    let (lane, now) = (net.world.id(OWNER), net.world.now);
    let mut miss = |at: Position| {
        let view = &net.world.peers[reader].view;
        let interval = Interval {
            from: at,
            until: at.after(1),
        };
        let missing = CombinerInput::Missing {
            lane,
            session,
            interval,
        };
        asking.combiner.handle(now, view, missing);
    };
    for day in 1..=20_000 {
        miss(now.after(day * DAY));
    }
    let next = now.after(2 << 16);
    miss(next);
    asking.drain(&mut net);
    let ended = Position(next.0.next_multiple_of(1 << 16));
    assert!(
        asking
            .told
            .contains(&format!("awaited {}", ended.0 + 5_000))
    );
}

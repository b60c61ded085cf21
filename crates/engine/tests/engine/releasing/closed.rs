//! Nobody who may little closes a lane to those who may read it, and what takes from somebody is not passed over for that.

use sealcast_engine::{CombinerInput, SharedWith, plan_handouts};
use sealcast_protocol::{
    CardRevocation, Condition, Demand, DeviceTarget, Grant, Interval, ListBody, ListEntry, LogBody,
    LogEntry, LogHash, Position, Revoke, Roles, SessionId, Sharing, StreamTopics, Targets, sign,
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

/// Has a device begin to write with what it may not say.
fn say(world: &mut World, peer: usize, body: LogBody) {
    world.sync(peer);
    let of = &world.peers[peer];
    let entry = LogEntry {
        version: 1,
        stream: world.stream,
        user: of.identity.user(),
        device: of.identity.device(),
        seq: 0,
        prev: LogHash([0; 32]),
        heads: of.view.log().heads(&LogHash([0; 32])),
        time: world.now,
        body,
    };
    let entry = sign(of.identity.signing(), entry).unwrap();
    let chain = StreamTopics(world.stream).access(&of.identity.device());
    world.put(&chain, entry.wire());
}

/// A user takes a device out, and then the card of the one that it said so with, behind something that it may not say.
fn takes_out_two(world: &mut World, user: usize) {
    let (lost, said_so) = (world.device_of(user), world.device_of(user));
    let out = world.out(lost);
    say(world, said_so, LogBody::Close);
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

/// A removal that rests on one that is held back voids what a thief grants: who lacks it releases nothing for it.
#[test]
fn a_removal_by_who_may_grant_is_waited_for() {
    let mut net = Net::new(2, 3);
    let (publisher, accomplice) = (net.world.user(), net.world.user());
    for (user, roles) in [(publisher, Roles::PUBLISHER), (accomplice, Roles::READER)] {
        net.world.tick(1);
        let interval = match user == accomplice {
            true => Interval {
                from: Position::START,
                until: Position(1),
            },
            false => Interval::ALL,
        };
        net.world.write_grant(OWNER, user, roles, interval).unwrap();
    }
    let thief = net.world.device_of(publisher);
    net.world.publish(publisher, "one").unwrap();
    net.world.tick(1);
    // What the thief grants is kept from everybody for now.
    let chain = StreamTopics(net.world.stream).access(&net.world.device(thief));
    let grant = Grant {
        user: net.world.id(accomplice),
        devices: Vec::new(),
        roles: Roles::READER,
        lanes: vec![net.world.id(publisher)],
        interval: Interval::ALL,
        reshare: false,
    };
    net.world.write(thief, LogBody::Grant(grant)).unwrap();
    let granted = net.world.bus.get_mut(&chain).unwrap().pop().unwrap();
    net.world.tick(1);
    let (lost, said_so) = (
        net.world.device_of(accomplice),
        net.world.device_of(accomplice),
    );
    let out = net.world.out(lost);
    net.world
        .revoke(said_so, Targets::Devices(vec![out]))
        .unwrap();
    let out = net.world.out(thief);
    net.world
        .revoke(publisher, Targets::Devices(vec![out]))
        .unwrap();
    net.world.publish(publisher, "two").unwrap();
    take_card_of(&mut net.world, said_so);
    net.world.put(&chain, &granted);
    restart_all(&mut net, accomplice);
    let told = net.unlock(accomplice);
    assert!(told.contains("refuses: LogBehind"), "{told}");
    assert!(!net.world.opened(accomplice).contains(&"two".to_owned()));
}

/// By the proof in what is held back, though the list that says so too is hidden.
#[test]
fn what_was_taken_out_so_is_given_nothing() {
    let mut net = Net::new(2, 3);
    let many = net.reader_of_all();
    net.publish(&["one"]);
    let (lost, said_so) = (net.world.device_of(many), net.world.device_of(many));
    // What its user signs reaches nobody but in the entry, and its list goes on without.
    let list = net.world.id(many).devices_topic();
    let (lists, shown) = (net.world.lists.clone(), net.world.bus[&list].clone());
    let out = net.world.out(lost);
    net.world.lists = lists;
    net.world.bus.insert(list, shown);
    net.world
        .revoke(said_so, Targets::Devices(vec![out]))
        .unwrap();
    net.world.publish(OWNER, "two").unwrap();
    take_card_of(&mut net.world, said_so);
    restart_all(&mut net, lost);
    let told = net.unlock(lost);
    assert!(told.contains("refuses: NotEntitled"), "{told}");
    assert!(net.world.opened(lost).is_empty());
}

/// A user can sign that any device is out, whosever it is.
#[test]
fn who_takes_out_what_is_anothers_keeps_nobody_from_sealing() {
    let mut net = Net::new(2, 3);
    let many = net.reader_of_all();
    let said_so = net.world.device_of(many);
    net.publish(&["one"]);
    let first = session(&net.world);
    let (user, device) = (net.world.id(many), net.world.device(OWNER));
    let revocation = ListEntry {
        version: 1,
        user,
        seq: 9,
        prev: LogHash([9; 32]),
        time: net.world.now,
        body: ListBody::Revoke(CardRevocation {
            device,
            time: net.world.now,
        }),
    };
    let root = net.world.peers[many].identity.root().unwrap();
    let proof = sign(root, revocation).unwrap().wire().to_vec();
    let target = DeviceTarget {
        user,
        device,
        proof,
    };
    assert!(target.is_proven());
    let revoke = LogBody::Revoke(Revoke {
        targets: Targets::Devices(vec![target]),
        last: Vec::new(),
    });
    take_card_of(&mut net.world, said_so);
    say(&mut net.world, said_so, revoke);
    net.world.tick(1);
    net.publish(&["two", "three"]);
    // The card of the one that said so may have been one to ask with.
    let second = session(&net.world);
    assert_ne!(second, first);
    net.publish(&["four"]);
    assert_eq!(session(&net.world), second);
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
    let lost = net.world.device_of(reader);
    let later = [net.world.device_of(reader), net.world.device_of(reader)];
    net.publish(&["one"]);
    let first = session(&net.world);
    net.world.tick(DAY);
    take_card_of(&mut net.world, lost);
    net.publish(&["two"]);
    assert_ne!(session(&net.world), first);
    // Whatever its time, a card is revoked from when that is read, and once.
    let day = DAY;
    for (at, device) in later.into_iter().enumerate() {
        let time = match at {
            0 => net.world.now.after(day),
            _ => Position(net.world.now.0 - 3 * day),
        };
        let device = net.world.device(device);
        let out = ListBody::Revoke(CardRevocation { device, time });
        let before = session(&net.world);
        net.world.list(reader, out);
        net.publish(&["three"]);
        let since = session(&net.world);
        assert_ne!(since, before);
        // Nor has each run begin another.
        net.world.restart(OWNER);
        net.publish(&["four"]);
        net.world.tick(day / 2);
        net.publish(&["five"]);
        assert_eq!(session(&net.world), since);
    }
}

/// Where a grant is over nodes gave nothing of what is to come.
#[test]
fn who_may_read_no_more_ends_no_session() {
    let mut net = Net::new(2, 3);
    net.world.tick(1);
    let until = net.world.now.after(DAY);
    let from = Position::START;
    let reader = net.reader(Interval { from, until });
    let lost = net.world.device_of(reader);
    net.world.tick(2 * DAY);
    net.publish(&["one"]);
    let first = session(&net.world);
    take_card_of(&mut net.world, lost);
    net.publish(&["two"]);
    assert_eq!(session(&net.world), first);
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

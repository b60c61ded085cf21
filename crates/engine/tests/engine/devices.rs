//! Devices of users: new, renewed, revoked, lost.

use sealcast_engine::{
    Alarm, AuthorError, Mode, NotSealed, Reader, SharedWith, author, plan_handouts,
};
use sealcast_protocol::{
    Card, CardRevocation, Grant, Interval, ListBody, LogBody, LogEntry, LogHash, Roles, Settings,
    StreamTopics, Targets, sign,
};

use crate::handouts::false_cover;
use crate::rig::{NOON, OWNER, World, between, since};

#[test]
fn a_new_device_of_the_owner_holds_all_that_was_sealed() {
    let mut world = World::new(50);
    world.publish(OWNER, "old").unwrap();
    let phone = world.device_of(OWNER);
    world.share(OWNER, SharedWith::Everyone);
    assert_eq!(world.opened(phone), ["old"]);
    world.publish(phone, "from the phone").unwrap();
    assert_eq!(world.opened(OWNER), ["old", "from the phone"]);
}

/// fault 12: a new device of a user gets what the user was granted, not what somebody asks for.
#[test]
fn a_new_device_of_a_reader_gets_what_the_reader_was_granted() {
    let mut world = World::new(51);
    let reader = world.user();
    for at in 0..4 {
        world.publish(OWNER, &at.to_string()).unwrap();
        world.tick(10);
    }
    let interval = between(NOON.after(10), NOON.after(30));
    world.grant(OWNER, reader, Roles::READER, interval).unwrap();
    let phone = world.device_of(reader);
    let stranger = world.user();
    world.share(OWNER, SharedWith::Everyone);
    assert_eq!(world.opened(phone), ["1", "2"]);
    assert_eq!(world.opened(stranger), [""; 0]);
}

/// A bundle that the bus lost is made again, and its device may have read it all the same.
#[test]
fn what_was_given_and_lost_is_given_again_and_still_counts_as_given() {
    let mut world = World::new(53);
    let reader = world.user();
    let phone = world.device_of(reader);
    world
        .grant(OWNER, reader, Roles::READER, Interval::ALL)
        .unwrap();
    let before = world.publish(OWNER, "one").unwrap();
    let handouts = |world: &World| {
        let view = &world.peers[OWNER].view;
        plan_handouts(view, world.now, SharedWith::Everyone).len()
    };
    assert_eq!(handouts(&world), 0);
    let users = world.peers[OWNER].view.forget_given();
    assert_eq!(users.into_iter().collect::<Vec<_>>(), [world.id(reader)]);
    assert_eq!(handouts(&world), 2);
    world.out(phone);
    world.sync(OWNER);
    assert_eq!(handouts(&world), 1);
    let after = world.publish(OWNER, "two").unwrap();
    assert_ne!(before.session, after.session);
    assert_eq!(world.opened(phone), ["one"]);
}

#[test]
fn revoked_and_expired_devices_are_given_nothing() {
    let mut world = World::new(52);
    let reader = world.user();
    let phone = world.device_of(reader);
    world.publish(OWNER, "one").unwrap();
    world.out(phone);
    world
        .grant(OWNER, reader, Roles::READER, Interval::ALL)
        .unwrap();
    assert_eq!(world.opened(reader), ["one"]);
    assert_eq!(world.opened(phone), [""; 0]);
    let late = world.user();
    world.tick(sealcast_protocol::CARD_LIFETIME_MS);
    let me = world.peers[OWNER].identity.card(world.now);
    world.list(OWNER, me);
    world
        .grant(OWNER, late, Roles::READER, Interval::ALL)
        .unwrap();
    assert_eq!(world.opened(late), [""; 0]);
    let renewed = world.peers[late].identity.card(world.now);
    world.list(late, renewed);
    world.share(OWNER, SharedWith::Everyone);
    assert_eq!(world.opened(late), ["one"]);
}

/// Who sees a card revoked does not wait for the access log.
#[test]
fn publishers_start_a_session_when_a_device_that_holds_theirs_is_revoked() {
    let mut world = World::new(53);
    let reader = world.user();
    let phone = world.device_of(reader);
    world
        .grant(OWNER, reader, Roles::READER, Interval::ALL)
        .unwrap();
    world.publish(OWNER, "both").unwrap();
    world.sync(phone);
    world.out(phone);
    world.publish(OWNER, "one").unwrap();
    world.publish(OWNER, "one more").unwrap();
    let sessions: Vec<_> = world
        .data()
        .iter()
        .map(|of| crate::rig::header(of).session)
        .collect();
    assert!(sessions[0] != sessions[1] && sessions[1] == sessions[2]);
    assert_eq!(world.opened(reader), ["both", "one", "one more"]);
    assert_eq!(
        world.transcript(phone),
        "both\nsealed, key not here\nsealed, key not here\n"
    );
}

/// A keyholder that has not heard of it gives the revoked device keys of the new session, too.
#[test]
fn a_session_that_reaches_a_revoked_device_is_left_behind() {
    let mut world = World::new(86);
    let (admin, reader) = (world.user(), world.user());
    world
        .grant(OWNER, admin, Roles::ADMIN, Interval::ALL)
        .unwrap();
    world
        .grant(OWNER, reader, Roles::READER, Interval::ALL)
        .unwrap();
    world.out(reader);
    let first = world.publish(OWNER, "a").unwrap().session;
    assert_eq!(world.publish(OWNER, "b").unwrap().session, first);
    let given = false_cover(&mut world, admin, reader, first, since(NOON));
    world.put_key_item(&given);
    assert_ne!(world.publish(OWNER, "c").unwrap().session, first);
}

#[test]
fn entries_and_envelopes_of_a_device_with_a_revoked_card_are_held_back() {
    let mut world = World::new(54);
    let (reader, friend) = (world.user(), world.user());
    let phone = world.device_of(OWNER);
    world.publish(phone, "before").unwrap();
    world
        .grant(phone, reader, Roles::READER, Interval::ALL)
        .unwrap();
    world.tick(1_000);
    // The thief has not seen, or does not mind, that the card is revoked.
    let stolen = world.seal(phone, "stolen").unwrap();
    let (view, identity) = (&world.peers[phone].view, &world.peers[phone].identity);
    let body = LogBody::Grant(Grant {
        user: world.id(friend),
        devices: vec![],
        roles: Roles::ADMIN,
        lanes: vec![],
        interval: Interval::ALL,
        reshare: false,
    });
    let entry = author(view, identity, world.now, body).unwrap();
    let target = world.out(phone);
    let chain = StreamTopics(world.stream).access(&world.device(phone));
    world.put(&chain, entry.wire());
    world.data().push(stolen.envelopes[0].bytes.clone());
    world.publish(OWNER, "from the laptop").unwrap();
    let told = "before\nrejected: AfterRevocation\nfrom the laptop\n";
    assert_eq!(world.transcript(reader), told);
    let roles = |world: &World, by: usize| {
        let state = world.peers[by].view.state();
        state.roles(&world.id(friend), &world.device(friend))
    };
    assert_eq!(roles(&world, reader), Roles::NONE);
    world.revoke(OWNER, Targets::Devices(vec![target])).unwrap();
    assert_eq!(world.transcript(reader), told);
    assert_eq!(roles(&world, reader), Roles::NONE);
    world.restart(reader);
    assert_eq!(world.transcript(reader), told);
    assert_eq!(
        world.seal(phone, "later").unwrap_err(),
        NotSealed::NotEntitled
    );
    let newcomer = world.user();
    world
        .grant(OWNER, newcomer, Roles::READER, Interval::ALL)
        .unwrap();
    assert_eq!(world.transcript(newcomer), told);
}

/// Nor does an accomplice who names the thief's entry bring it in; an admin's word does, who had not
/// heard of the revocation.
#[test]
fn an_entry_that_is_held_back_comes_in_by_an_admins_word_only() {
    for order in [[0, 1], [1, 0]] {
        let in_time = accomplices(order);
        assert_eq!(
            in_time,
            [(false, false), (order[0] == 0, true)],
            "{order:?}"
        );
    }
}

/// The thief writes two entries, of which the second is named: first by an accomplice, then by an
/// admin. They come in some order, the later one at the end. Returns for each whether the entries
/// are in, before and after that.
fn accomplices(order: [usize; 2]) -> [(bool, bool); 2] {
    let mut world = World::new(85);
    let (accomplice, admin, friend) = (world.user(), world.user(), world.user());
    let phone = world.device_of(OWNER);
    world
        .grant(OWNER, accomplice, Roles::PUBLISHER, Interval::ALL)
        .unwrap();
    world
        .grant(OWNER, admin, Roles::ADMIN, Interval::ALL)
        .unwrap();
    world.sync(phone);
    world.out(phone);
    world.tick(1);
    let grant = |user| {
        LogBody::Grant(Grant {
            user,
            devices: vec![],
            roles: Roles::READER,
            lanes: vec![],
            interval: Interval::ALL,
            reshare: false,
        })
    };
    let mut thief = Vec::new();
    let mut seat = (0, LogHash([0; 32]));
    for _ in 0..2 {
        let identity = &world.peers[phone].identity;
        let log = world.peers[phone].view.log();
        let body = grant(world.id(friend));
        let entry = entry(&world, phone, seat, log.heads(&seat.1), body);
        let entry = sign(identity.signing(), entry).unwrap();
        seat = (seat.0 + 1, LogHash::from(entry.digest()));
        thief.push((seat.1, entry.wire().to_vec()));
    }
    let chain = StreamTopics(world.stream).access(&world.device(phone));
    let late = match order[0] {
        0 => None,
        _ => Some(thief[0].1.clone()),
    };
    let early = thief.iter().filter(|(_, wire)| Some(wire) != late.as_ref());
    let early: Vec<_> = early.map(|(_, wire)| wire.clone()).collect();
    early.iter().for_each(|wire| world.put(&chain, wire));
    let mut told = [(false, false); 2];
    for (by, told) in [accomplice, admin].into_iter().zip(&mut told) {
        world.sync(by);
        let mut heads = world.peers[by].view.log().heads(&LogHash([0; 32]));
        heads.push(thief[1].0);
        heads.sort_unstable();
        let lane = vec![world.id(by)];
        let mut body = grant(world.id(friend));
        if let LogBody::Grant(grant) = &mut body {
            grant.lanes = lane;
        }
        let entry = entry(&world, by, (0, LogHash([0; 32])), heads, body);
        let entry = sign(world.peers[by].identity.signing(), entry).unwrap();
        let own = StreamTopics(world.stream).access(&world.device(by));
        world.put(&own, entry.wire());
        world.sync(OWNER);
        let log = world.peers[OWNER].view.log();
        told.0 = thief.iter().any(|(hash, _)| log.contains(hash));
        if let Some(late) = late.as_ref().filter(|_| by == admin) {
            world.put(&chain, late);
            world.sync(OWNER);
        }
        let log = world.peers[OWNER].view.log();
        told.1 = thief.iter().any(|(hash, _)| log.contains(hash));
        assert_eq!(told.1, thief.iter().all(|(hash, _)| log.contains(hash)));
    }
    told
}

#[test]
fn an_expired_publisher_is_not_accepted_beyond_its_card() {
    let mut world = World::new(55);
    let publisher = world.user();
    world
        .grant(OWNER, publisher, Roles::PUBLISHER, Interval::ALL)
        .unwrap();
    world.publish(publisher, "in time").unwrap();
    world.tick(sealcast_protocol::CARD_LIFETIME_MS);
    assert_eq!(
        world.seal(publisher, "late").unwrap_err(),
        NotSealed::NotEntitled
    );
    let renewed = world.peers[publisher].identity.card(world.now);
    world.list(publisher, renewed);
    world.publish(publisher, "renewed").unwrap();
    assert_eq!(world.opened(OWNER), ["in time", "renewed"]);
    let late = crate::rig::header(&world.data()[1]).position;
    assert_eq!(late, NOON.after(sealcast_protocol::CARD_LIFETIME_MS));
}

/// A reader who has not seen the renewed card does not accept what is sealed beyond the old one.
#[test]
fn a_card_that_is_shown_no_longer_bounds_what_its_device_seals() {
    let mut world = World::new(84);
    let publisher = world.user();
    world
        .grant(OWNER, publisher, Roles::PUBLISHER, Interval::ALL)
        .unwrap();
    world.publish(publisher, "in time").unwrap();
    world.sync(OWNER);
    world.tick(sealcast_protocol::CARD_LIFETIME_MS);
    let renewed = world.peers[publisher].identity.card(world.now);
    world.list(publisher, renewed);
    let item = world.sealed(publisher, &["late"]);
    let mut reader = Reader::new(Mode::History(Interval::ALL));
    let told = world.feed(OWNER, &mut reader, &item);
    assert_eq!(told, "rejected: NotEntitled\n");
    world.sync(OWNER);
    assert_eq!(world.feed(OWNER, &mut reader, &item), "gap of 1\nlate\n");
}

/// What was given to a key that a device has no longer was not given to it.
#[test]
fn a_device_with_a_new_wrapping_key_is_given_everything_again() {
    let mut world = World::new(56);
    let (reader, admin) = (world.user(), world.user());
    world
        .grant(OWNER, admin, Roles::ADMIN, Interval::ALL)
        .unwrap();
    world.publish(OWNER, "one").unwrap();
    world
        .grant(OWNER, reader, Roles::READER, since(NOON))
        .unwrap();
    world.sync(OWNER);
    let due = |world: &World| {
        let plan = plan_handouts(&world.peers[OWNER].view, world.now, SharedWith::Everyone);
        plan.into_iter().map(|of| of.user).collect::<Vec<_>>()
    };
    assert_eq!(due(&world), []);
    world.tick(1_000);
    let same = world.peers[reader].identity.card(world.now);
    world.list(reader, same);
    world.sync(OWNER);
    assert_eq!(due(&world), []);
    for peer in [reader, admin] {
        let card = other_wrapping_key(&mut world, peer);
        world.list(peer, card);
    }
    world.sync(OWNER);
    let mut expected = vec![world.id(reader), world.id(admin)];
    expected.sort_unstable();
    assert_eq!(due(&world), expected);
    world.restart(OWNER);
    assert_eq!(due(&world), expected);
    world.share(OWNER, SharedWith::Everyone);
    assert_eq!(due(&world), []);
}

fn other_wrapping_key(world: &mut World, peer: usize) -> ListBody {
    let ListBody::Card(card) = world.peers[peer].identity.card(world.now) else {
        panic!("a card");
    };
    let identity = &world.peers[peer].identity;
    let key = sealcast_crypto::UnwrapKey::generate(&mut world.rng).wrap_key();
    let (user, signing) = (identity.user(), identity.signing());
    ListBody::Card(Card::new(&user, signing, &key, card.expires).into())
}

/// The owner has no grant that a revocation could change; a device of the owner's is taken out all
/// the same.
#[test]
fn a_lost_device_of_the_owner_is_taken_out_once() {
    let mut world = World::new(66);
    let phone = world.device_of(OWNER);
    world.publish(phone, "before").unwrap();
    world.tick(1);
    let target = world.out(phone);
    let targets = Targets::Devices(vec![target]);
    world.revoke(OWNER, targets.clone()).unwrap();
    assert_eq!(world.revoke(OWNER, targets), Err(AuthorError::NotAllowed));
    assert_eq!(world.opened(OWNER), ["before"]);
}

#[test]
fn a_forked_device_list_is_told() {
    let mut world = World::new(82);
    world.sync(OWNER);
    let mut twin = sealcast_protocol::CardList::new(world.id(OWNER));
    let later = world.peers[OWNER].identity.card(world.now.after(1));
    let root = world.peers[OWNER].identity.root().unwrap();
    let entry = twin.append(root, world.now, later).unwrap();
    let topic = world.id(OWNER).devices_topic();
    world.put(&topic, entry.wire());
    world.sync(OWNER);
    let alarm = Alarm::ListForked(world.id(OWNER));
    assert_eq!(world.peers[OWNER].alarms, [alarm]);
}

#[test]
fn a_card_revocation_ends_sealing_at_once() {
    let mut world = World::new(83);
    let phone = world.device_of(OWNER);
    world.publish(phone, "a").unwrap();
    let revocation = CardRevocation {
        device: world.device(phone),
        time: world.now,
    };
    world.list(phone, ListBody::Revoke(revocation));
    assert_eq!(world.seal(phone, "b").unwrap_err(), NotSealed::NotEntitled);
    let body = LogBody::Settings(Settings { rekey_every_ms: 5 });
    assert_eq!(world.write(phone, body), Err(AuthorError::NotAllowed));
}

fn entry(
    world: &World,
    by: usize,
    (seq, prev): (u32, LogHash),
    heads: Vec<LogHash>,
    body: LogBody,
) -> LogEntry {
    LogEntry {
        version: 1,
        stream: world.stream,
        user: world.id(by),
        device: world.device(by),
        seq,
        prev,
        heads,
        time: world.now,
        body,
    }
}

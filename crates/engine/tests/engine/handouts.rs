//! Keys on their way: who gives, who is believed, and what waits.

use sealcast_engine::{
    Alarm, Event, Refusal, SharedWith, Space, StreamView, plan_handouts, wrap_handout,
};
use sealcast_protocol::{Interval, LogHash, Roles, SessionKind, Sharing, StreamTopics, sign};

use crate::rig::{NOON, OWNER, World, since};

/// What an admin gave who is one no longer is believed by nobody, and is given again.
#[test]
fn what_a_removed_admin_gave_is_given_again() {
    let mut world = World::new(57);
    let (admin, reader) = (world.user(), world.user());
    world
        .grant(OWNER, admin, Roles::ADMIN, Interval::ALL)
        .unwrap();
    world.publish(OWNER, "one").unwrap();
    world
        .grant(admin, reader, Roles::READER, since(NOON))
        .unwrap();
    let items = world.keys().len();
    world.share(OWNER, SharedWith::Everyone);
    assert_eq!(world.keys().len(), items);
    world.revoke_user(OWNER, admin).unwrap();
    world.share(OWNER, SharedWith::Everyone);
    assert_eq!(world.keys().len(), items + 1);
    assert_eq!(world.opened(reader), ["one"]);
    assert!(!world.peers[reader].view.has_waiting());
}

/// fault 17: a bundle is opened as far as its sessions are known. What the bus spoilt or withholds
/// keeps nothing else from being read.
#[test]
fn a_session_without_a_record_keeps_no_other_of_its_bundle_from_opening() {
    let mut world = World::new(62);
    let reader = world.user();
    world.publish(OWNER, "one").unwrap();
    let record = world.keys().len() - 1;
    world.tick(1_000);
    world.rekey(OWNER);
    world.publish(OWNER, "two").unwrap();
    let items = world.keys().len();
    world
        .grant(OWNER, reader, Roles::READER, Interval::ALL)
        .unwrap();
    assert_eq!(world.keys().len() - items, 1, "one bundle");
    let record = world.spoil_key_item(record);
    assert_eq!(world.opened(reader), ["two"]);
    assert!(world.peers[reader].view.has_waiting());
    world.restart(reader);
    assert_eq!(world.opened(reader), ["two"]);
    // Its place in the topic was not recorded while the bundle waited.
    world.peers[reader].cursors.clear();
    world.put_key_item(&record);
    assert_eq!(world.opened(reader), ["one", "two"]);
    assert!(!world.peers[reader].view.has_waiting());
}

#[test]
fn sharing_modes_say_who_is_served_unasked() {
    for (sharing, everyone, granted) in [
        (Sharing::Active, 1, 0),
        (Sharing::OnRequest, 0, 1),
        (Sharing::Manual, 0, 0),
    ] {
        let mut world = World::with(58, sharing, false);
        let (reader, admin) = (world.user(), world.user());
        world.publish(OWNER, "one").unwrap();
        world
            .write_grant(OWNER, reader, Roles::READER, Interval::ALL)
            .unwrap();
        let items = world.keys().len();
        world.share(OWNER, SharedWith::Everyone);
        assert_eq!(world.keys().len() - items, everyone, "{sharing:?}");
        world.share(OWNER, SharedWith::User(world.id(reader)));
        assert_eq!(
            world.keys().len() - items,
            everyone + granted,
            "{sharing:?}"
        );
        world
            .grant(OWNER, admin, Roles::ADMIN, Interval::ALL)
            .unwrap();
        assert_eq!(world.opened(admin), ["one"], "{sharing:?}");
    }
}

/// faults 1 and 2: a session's id opens nothing; the log decides on lane and interval.
#[test]
fn a_handout_beyond_the_log_is_not_wrapped() {
    let mut world = World::new(60);
    let (publisher, reader) = (world.user(), world.user());
    world
        .grant(OWNER, publisher, Roles::PUBLISHER, Interval::ALL)
        .unwrap();
    world.publish(publisher, "publisher's").unwrap();
    world.publish(OWNER, "old session").unwrap();
    world.tick(1_000);
    world.sync(OWNER);
    world.rekey(OWNER);
    world.publish(OWNER, "new session").unwrap();
    let from = world.cut(OWNER);
    world
        .write_grant(OWNER, reader, Roles::READER, since(from))
        .unwrap();
    let plan = plan_handouts(&world.peers[OWNER].view, world.now, SharedWith::Everyone);
    let [mine] = plan
        .iter()
        .filter(|of| of.lane == world.id(OWNER))
        .collect::<Vec<_>>()[..]
    else {
        panic!("one handout of the owner's lane: {plan:?}");
    };
    assert_eq!(mine.covers.len(), 1, "the old session is over");
    let sessions: Vec<_> = world
        .data()
        .iter()
        .map(|of| crate::rig::header(of).session)
        .collect();
    let wrap = |world: &mut World, change: &dyn Fn(&mut sealcast_engine::Handout)| {
        let mut handout = mine.clone();
        change(&mut handout);
        let (of, rng) = (&world.peers[OWNER], &mut world.rng);
        wrap_handout(&of.view, &of.identity, rng, &handout)
            .unwrap()
            .is_some()
    };
    assert!(wrap(&mut world, &|_| ()));
    assert!(!wrap(&mut world, &|of| of.covers[0].interval.from = NOON));
    assert!(!wrap(&mut world, &|of| of.covers[0].session = sessions[0]));
    let (stranger, device) = (world.id(publisher), world.device(publisher));
    assert!(!wrap(&mut world, &|of| (of.user, of.device) = (stranger, device)));
    let other = World::new(61);
    let (of, rng) = (&other.peers[OWNER], &mut world.rng);
    let elsewhere = wrap_handout(&of.view, &of.identity, rng, mine).unwrap();
    assert!(elsewhere.is_none());
}

#[test]
fn nobody_but_keyholders_hands_out_keys() {
    let mut world = World::new(62);
    let (publisher, reader, other) = (world.user(), world.user(), world.user());
    world
        .grant(OWNER, publisher, Roles::PUBLISHER, Interval::ALL)
        .unwrap();
    world
        .grant(OWNER, reader, Roles::READER, Interval::ALL)
        .unwrap();
    world.publish(OWNER, "one").unwrap();
    world.publish(publisher, "two").unwrap();
    world
        .write_grant(OWNER, other, Roles::READER, Interval::ALL)
        .unwrap();
    assert_eq!(world.opened(reader), ["one", "two"]);
    world.share(reader, SharedWith::Everyone);
    assert_eq!(world.opened(other), [""; 0]);
    world.share(publisher, SharedWith::Everyone);
    assert_eq!(world.opened(other), ["two"]);
}

/// fault 13: devices of somebody else, however many, push nobody's out, and items signed by nobody
/// do not push out what a publisher announces.
#[test]
fn garbage_on_the_keys_topic_does_not_push_out_what_is_honest() {
    let mut world = World::new(72);
    let (publisher, reader) = (world.user(), world.user());
    world
        .grant(OWNER, reader, Roles::READER, Interval::ALL)
        .unwrap();
    let before = world.keys().len();
    world
        .grant(OWNER, publisher, Roles::PUBLISHER, Interval::ALL)
        .unwrap();
    world.publish(publisher, "one").unwrap();
    // The same record, a thousand times in the name of strangers, with unknown log entries, and
    // read before the log shows the publisher.
    let honest: Vec<_> = world.keys()[before..].to_vec();
    let owner = world.id(OWNER);
    let mut view = StreamView::new(world.stream, owner, &world.peers[reader].identity);
    for item in &honest {
        view.handle(&sealcast_engine::ControlTopic::Keys, item);
    }
    for at in 0..1_500_u32 {
        let garbage = garbage(&mut world, at);
        view.handle(&sealcast_engine::ControlTopic::Keys, &garbage);
    }
    assert!(view.has_waiting());
    for user in [OWNER, publisher, reader] {
        let user = world.id(user);
        let topic = sealcast_engine::ControlTopic::Devices(user);
        for item in &world.bus[&user.devices_topic()] {
            view.handle(&topic, item);
        }
    }
    let (user, device) = (world.id(OWNER), world.device(OWNER));
    let topic = sealcast_engine::ControlTopic::Access(user, device);
    for item in &world.bus[&StreamTopics(world.stream).access(&device)] {
        view.handle(&topic, item);
    }
    view.settle();
    let session = crate::rig::header(&world.data()[0]).session;
    assert!(view.record(&session, &world.device(publisher)).is_some());
}

fn garbage(world: &mut World, at: u32) -> Vec<u8> {
    let identity = &world.peers[OWNER].identity;
    let mut lane = world.id(OWNER);
    lane.0[..4].copy_from_slice(&at.to_be_bytes());
    let commitment = [1; 32];
    let record = sealcast_protocol::SessionRecord {
        version: 1,
        stream: world.stream,
        lane,
        device: identity.device(),
        session: sealcast_protocol::SessionId::derive(&world.stream, &lane, &commitment),
        commitment,
        start: NOON,
        kind: SessionKind::Live,
        heads: (0..100).map(|at| LogHash([at; 32])).collect(),
        open_root: vec![],
        wraps: vec![],
    };
    sign(identity.signing(), record).unwrap().wire().to_vec()
}

/// An item by an author whom nobody names, who claims to know no more than is known here, is not
/// kept waiting.
#[test]
fn strangers_items_do_not_wait() {
    let mut world = World::new(73);
    let reader = world.user();
    world
        .grant(OWNER, reader, Roles::READER, Interval::ALL)
        .unwrap();
    let stranger = world.user();
    world.sync(stranger);
    let of = &world.peers[stranger];
    let new = of
        .publisher
        .start_session(&mut world.rng, NOON, NOON, SessionKind::Live, &of.view);
    world.put_key_item(new.unwrap().record.wire());
    world.put_key_item(b"garbage");
    world.sync(reader);
    assert!(!world.peers[reader].view.has_waiting());
    assert_eq!(world.peers[reader].view.records().count(), 0);
}

/// What a stranger claims to know does not keep the place in the topic from being recorded, and
/// what was passed over is read again when its device comes into a list.
#[test]
fn strangers_do_not_hold_the_place_in_the_keys_topic() {
    let mut world = World::new(94);
    let (reader, publisher) = (world.user(), world.user());
    world
        .grant(OWNER, reader, Roles::READER, Interval::ALL)
        .unwrap();
    let junk = garbage(&mut world, 7);
    world.put_key_item(&junk);
    world.sync(reader);
    assert!(!world.peers[reader].view.has_waiting());
    let now = world.now;
    assert!(!world.peers[reader].view.needs_reread(now));
    let before = world.bus.clone();
    world
        .grant(OWNER, publisher, Roles::PUBLISHER, Interval::ALL)
        .unwrap();
    world.publish(publisher, "one").unwrap();
    // Keys come first, behind so much garbage that they find no room to wait; then the rest.
    let after = std::mem::replace(&mut world.bus, before);
    for at in 0..1_500_u32 {
        let garbage = garbage(&mut world, at);
        world.put_key_item(&garbage);
    }
    let keys = StreamTopics(world.stream).keys();
    let new: Vec<_> = after[&keys][world.keys().len() - 1_500..].to_vec();
    new.iter().for_each(|item| world.put_key_item(item));
    world.sync(reader);
    let shown = world.bus[&keys].clone();
    world.bus = after;
    world.bus.insert(keys, shown);
    assert_eq!(world.opened(reader), ["one"]);
    // Another run does not know what the one before passed over.
    let late = world.user();
    world.restart(reader);
    world
        .grant(OWNER, late, Roles::PUBLISHER, Interval::ALL)
        .unwrap();
    let topics = [world.id(late).devices_topic()];
    let access = StreamTopics(world.stream).access(&world.device(OWNER));
    let (owner, late) = (world.id(OWNER), world.id(late));
    let chain = sealcast_engine::ControlTopic::Access(owner, world.device(OWNER));
    let view = &mut world.peers[reader].view;
    for item in &world.bus[&access] {
        view.handle(&chain, item);
    }
    for item in &world.bus[&topics[0]] {
        view.handle(&sealcast_engine::ControlTopic::Devices(late), item);
    }
    view.settle();
    assert!(view.needs_reread(NOON));
    assert!(!view.needs_reread(NOON));
}

/// A bundle whose record is late is not taken for read when it was tried too often.
#[test]
fn what_was_tried_too_often_is_to_be_read_again() {
    let mut world = World::new(95);
    let reader = world.user();
    world
        .grant(OWNER, reader, Roles::READER, since(NOON))
        .unwrap();
    world.sync(reader);
    let before = world.keys().len();
    world.publish(OWNER, "one").unwrap();
    let topic = StreamTopics(world.stream).keys();
    let late = world.bus.get_mut(&topic).unwrap().remove(before);
    world.sync(reader);
    assert!(world.peers[reader].view.has_waiting());
    for _ in 0..70 {
        world.tick(1);
        world.rekey(OWNER);
        world.sync(reader);
    }
    assert!(world.peers[reader].view.has_waiting());
    world.put_key_item(&late);
    world.restart(reader);
    let items = world.keys().to_vec();
    let view = &mut world.peers[reader].view;
    for item in &items {
        view.handle(&sealcast_engine::ControlTopic::Keys, item);
    }
    view.settle();
    assert!(!view.has_waiting());
    assert_eq!(world.opened(reader), ["one"]);
}

/// Who may publish no longer makes nobody hand out keys of sessions that no right stands behind;
/// what was announced by right is handed out on.
#[test]
fn sessions_that_a_revoked_publisher_invents_are_not_handed_out() {
    let mut world = World::new(96);
    let (publisher, reader) = (world.user(), world.user());
    world
        .grant(OWNER, publisher, Roles::PUBLISHER, Interval::ALL)
        .unwrap();
    world.publish(publisher, "one").unwrap();
    world.revoke_user(OWNER, publisher).unwrap();
    world
        .write_grant(OWNER, reader, Roles::READER, Interval::ALL)
        .unwrap();
    let honest = plan_handouts(
        &world.peers[OWNER].view,
        world.now,
        SharedWith::User(world.id(reader)),
    );
    assert_eq!(honest.iter().map(|of| of.covers.len()).sum::<usize>(), 1);
    let root = sealcast_crypto::SessionRoot::init_with(|root| root.copy_from_slice(&[7; 32]));
    let (lane, commitment) = (world.id(publisher), root.commitment());
    let record = sealcast_protocol::SessionRecord {
        version: 1,
        stream: world.stream,
        lane,
        device: world.device(publisher),
        session: sealcast_protocol::SessionId::derive(&world.stream, &lane, &commitment),
        commitment,
        start: NOON,
        kind: SessionKind::Live,
        heads: vec![],
        open_root: vec![],
        wraps: vec![],
    };
    let (session, device) = (record.session, record.device);
    let junk = sign(world.peers[publisher].identity.signing(), record).unwrap();
    world.put_key_item(junk.wire());
    world.sync(OWNER);
    let bytes = sealcast_crypto::SecretBytes::from(root.expose().to_vec());
    let view = &mut world.peers[OWNER].view;
    view.restore_root(session, &bytes);
    assert!(view.record(&session, &device).is_some());
    let reader = SharedWith::User(world.peers[reader].identity.user());
    assert_eq!(
        plan_handouts(&world.peers[OWNER].view, world.now, reader),
        honest
    );
}

/// A reader's own session is no lane: nobody hands out its keys.
#[test]
fn sessions_of_those_who_may_not_publish_are_not_taken() {
    let mut world = World::new(74);
    let (reader, other) = (world.user(), world.user());
    world
        .grant(OWNER, reader, Roles::READER, Interval::ALL)
        .unwrap();
    world
        .grant(OWNER, other, Roles::READER, Interval::ALL)
        .unwrap();
    world.sync(reader);
    let of = &world.peers[reader];
    let new = of
        .publisher
        .start_session(&mut world.rng, NOON, NOON, SessionKind::Live, &of.view);
    world.put_key_item(new.unwrap().record.wire());
    let items = world.keys().len();
    world.share(OWNER, SharedWith::Everyone);
    assert_eq!(world.keys().len(), items);
    assert_eq!(world.peers[OWNER].view.records().count(), 0);
}

/// False keys from a keyholder: named when another's open the message, and both named when nothing
/// does.
#[test]
fn a_false_cover_is_found_out_and_its_giver_named() {
    let mut world = World::new(77);
    let (liar, reader) = (world.user(), world.user());
    world
        .grant(OWNER, liar, Roles::ADMIN, Interval::ALL)
        .unwrap();
    world.publish(OWNER, "a").unwrap();
    world
        .write_grant(OWNER, reader, Roles::READER, since(NOON))
        .unwrap();
    let session = crate::rig::header(&world.data()[0]).session;
    let false_bundle = false_cover(&mut world, liar, reader, session, since(NOON));
    world.put_key_item(&false_bundle);
    let events = world.events(reader, Interval::ALL);
    let liars = vec![(world.id(liar), world.device(liar))];
    let [
        Event::Rejected {
            refusal: Refusal::NotAuthentic,
            user,
            givers,
            ..
        },
    ] = &events[..]
    else {
        panic!("{events:?}");
    };
    assert_eq!((user, givers), (&Some(world.id(OWNER)), &liars));
    world.restart(OWNER);
    // The owner believes what the admin seems to have given, so it is taken out first.
    world.revoke_user(OWNER, liar).unwrap();
    world.share(OWNER, SharedWith::Everyone);
    world.publish(OWNER, "b").unwrap();
    assert_eq!(world.transcript(reader), "bad cover\na\nb\n");
    assert_eq!(world.peers[reader].alarms, []);
}

/// A publisher whose messages do not open makes nobody lose the keys of those that do.
#[test]
fn a_message_that_nothing_opens_costs_no_cover() {
    let mut world = World::new(83);
    let reader = world.user();
    let header = world.publish(OWNER, "a").unwrap();
    world
        .grant(OWNER, reader, Roles::READER, since(NOON))
        .unwrap();
    let root = sealcast_crypto::SessionRoot::init_with(|bytes| bytes.fill(9));
    let mut walker = sealcast_crypto::Walker::new(sealcast_crypto::Cover::whole(&root));
    let leaf = walker.leaf(header.position.0).unwrap();
    let after = sealcast_protocol::Header { seq: 1, ..header };
    let signing = world.peers[OWNER].identity.signing();
    let odd = sealcast_protocol::seal(&leaf, signing, &world.stream, b"", &after, b"odd").unwrap();
    world.data().insert(0, odd.bytes);
    let events = world.events(reader, Interval::ALL);
    assert_eq!(crate::rig::refusals(&events), [Refusal::NotAuthentic]);
    assert_eq!(crate::rig::texts(events), ["a"]);
}

pub(crate) fn false_cover(
    world: &mut World,
    giver: usize,
    to: usize,
    session: sealcast_protocol::SessionId,
    interval: Interval,
) -> Vec<u8> {
    let root = sealcast_crypto::SessionRoot::init_with(|bytes| bytes.fill(9));
    let cover = sealcast_crypto::Cover::from_root(&root, interval.from.0, interval.until.0);
    world.sync(giver);
    let (of, from) = (&world.peers[giver], &world.peers[to].identity);
    let key = from.unwrap_key().wrap_key();
    let context = sealcast_protocol::BundleContext {
        stream: world.stream,
        lane: world.id(OWNER),
        giver_user: world.id(giver),
        giver_device: world.device(giver),
        user: world.id(to),
        device: world.device(to),
        key: sealcast_protocol::KeyUse::LongLived,
        wrap_key_hash: sealcast_protocol::wrap_key_hash(&key),
        heads: of.view.log().heads(&LogHash([0; 32])),
        request: [0; 16],
        covers: vec![sealcast_protocol::CoverSpec { session, interval }],
    };
    let bundle = sealcast_protocol::seal_bundle(&mut world.rng, context, &[&cover], &key);
    let bundle = sign(world.peers[giver].identity.signing(), bundle.unwrap()).unwrap();
    bundle.wire().to_vec()
}

/// A publisher gives keys of its own lane only.
#[test]
fn a_publisher_is_not_believed_about_another_lane() {
    let mut world = World::new(79);
    let (publisher, reader) = (world.user(), world.user());
    world
        .grant(OWNER, publisher, Roles::PUBLISHER, Interval::ALL)
        .unwrap();
    world.publish(OWNER, "a").unwrap();
    world
        .write_grant(OWNER, reader, Roles::READER, since(NOON))
        .unwrap();
    let session = crate::rig::header(&world.data()[0]).session;
    let bundle = false_cover(&mut world, publisher, reader, session, since(NOON));
    world.put_key_item(&bundle);
    world.share(OWNER, SharedWith::Everyone);
    assert_eq!(world.transcript(reader), "a\n");
}

#[test]
fn the_same_bundle_again_changes_nothing() {
    let mut world = World::new(80);
    let reader = world.user();
    world.publish(OWNER, "a").unwrap();
    world
        .grant(OWNER, reader, Roles::READER, since(NOON))
        .unwrap();
    world.sync(reader);
    let store = world.peers[reader].store.clone();
    let copies = world.keys().to_vec();
    copies.iter().for_each(|item| world.put_key_item(item));
    // Another bundle with the same cover, from another giver.
    let admin = world.user();
    world
        .grant(OWNER, admin, Roles::ADMIN, Interval::ALL)
        .unwrap();
    world.restart(reader);
    world.sync(reader);
    let covers = |store: &std::collections::BTreeMap<(Space, Vec<u8>), Vec<u8>>| {
        store
            .keys()
            .filter(|(space, _)| *space == Space::Cover)
            .count()
    };
    assert_eq!(covers(&world.peers[reader].store), covers(&store));
    assert_eq!(world.opened(reader), ["a"]);
}

#[test]
fn a_false_root_is_refused_at_once() {
    let mut world = World::new(78);
    let (liar, reader) = (world.user(), world.user());
    world
        .grant(OWNER, liar, Roles::ADMIN, Interval::ALL)
        .unwrap();
    world.publish(OWNER, "a").unwrap();
    world
        .write_grant(OWNER, reader, Roles::READER, Interval::ALL)
        .unwrap();
    let session = crate::rig::header(&world.data()[0]).session;
    let false_bundle = false_cover(&mut world, liar, reader, session, Interval::ALL);
    world.put_key_item(&false_bundle);
    assert_eq!(world.transcript(reader), "sealed, key not here\n");
    let alarm = Alarm::BadKeys(world.id(liar), world.device(liar));
    assert_eq!(world.peers[reader].alarms, [alarm]);
}

#[test]
fn anyone_reads_a_public_stream_and_nobody_is_given_keys() {
    let mut world = World::with(59, Sharing::Active, true);
    let (reader, publisher) = (world.user(), world.user());
    world
        .grant(OWNER, publisher, Roles::PUBLISHER, Interval::ALL)
        .unwrap();
    world.publish(OWNER, "to all").unwrap();
    world.publish(publisher, "to all, too").unwrap();
    assert_eq!(world.opened(reader), ["to all", "to all, too"]);
    world
        .write_grant(OWNER, reader, Roles::READER, Interval::ALL)
        .unwrap();
    let items = world.keys().len();
    world.share(OWNER, SharedWith::Everyone);
    assert_eq!(world.keys().len(), items);
}

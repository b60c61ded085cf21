//! Rights: what may be written, sealed and delivered.

use sealcast_engine::{Alarm, AuthorError, Mode, NotSealed, Reader, Refusal, author};
use sealcast_protocol::{
    Condition, Draft, Interval, KeyNode, KeyNodes, LogBody, LogEntry, LogHash, Position, Revoke,
    Roles, SessionKind, Settings, StreamTopics, Targets, sign,
};

use crate::rig::{NOON, OWNER, World, between, refusals, since};

#[test]
fn what_a_revoked_publisher_sealed_before_stays_and_what_comes_later_is_refused() {
    let mut world = World::new(63);
    let publisher = world.user();
    world
        .grant(OWNER, publisher, Roles::PUBLISHER, Interval::ALL)
        .unwrap();
    world.publish(publisher, "before").unwrap();
    world.new_run(publisher);
    world.publish(publisher, "also before").unwrap();
    let late = world.seal(publisher, "sealed before, sent after").unwrap();
    world.revoke_user(OWNER, publisher).unwrap();
    world.data().push(late.envelopes[0].bytes.clone());
    let told = "before\nalso before\nrejected: AfterRevocation\n";
    assert_eq!(world.transcript(OWNER), told);
    assert_eq!(
        world.seal(publisher, "later").unwrap_err(),
        NotSealed::NotEntitled
    );
    world
        .grant(OWNER, publisher, Roles::PUBLISHER, Interval::ALL)
        .unwrap();
    world.publish(publisher, "granted anew").unwrap();
    assert_eq!(
        world.transcript(OWNER),
        format!("{told}gap of 1\ngranted anew\n")
    );
}

/// What was refused when its publisher was revoked stays out when the publisher, granted anew, goes
/// on from there and is revoked again.
#[test]
fn what_came_too_late_for_one_removal_stays_out_after_the_next() {
    let mut world = World::new(90);
    let publisher = world.user();
    let grant = |world: &mut World| {
        let to = (publisher, Roles::PUBLISHER);
        world.grant(OWNER, to.0, to.1, Interval::ALL).unwrap();
    };
    grant(&mut world);
    world.publish(publisher, "before").unwrap();
    let late = world.seal(publisher, "late").unwrap();
    world.revoke_user(OWNER, publisher).unwrap();
    world.data().push(late.envelopes[0].bytes.clone());
    grant(&mut world);
    let anew = world.publish(publisher, "granted anew").unwrap();
    let late = late.envelopes[0].hash;
    assert_eq!(anew.prev, late);
    let told = "before\nrejected: AfterRevocation\ngap of 1\ngranted anew\n";
    assert_eq!(world.transcript(OWNER), told);
    world.revoke_user(OWNER, publisher).unwrap();
    assert_eq!(world.transcript(OWNER), told);
}

/// What a publisher went on to seal by a right that one removal left counts up to the next removal.
#[test]
fn what_was_sealed_by_a_right_that_a_removal_left_counts_after_the_next() {
    let mut world = World::new(91);
    let publisher = world.user();
    let roles = Roles::PUBLISHER;
    let first = world.grant(OWNER, publisher, roles, Interval::ALL).unwrap();
    world.grant(OWNER, publisher, roles, since(NOON)).unwrap();
    world.publish(publisher, "one").unwrap();
    world.revoke(OWNER, Targets::Grants(vec![first])).unwrap();
    world.publish(publisher, "two").unwrap();
    world.publish(publisher, "three").unwrap();
    world.revoke_user(OWNER, publisher).unwrap();
    assert_eq!(world.opened(OWNER), ["one", "two", "three"]);
}

/// An accomplice who names a revoked device's late envelope does not let it in.
#[test]
fn a_tip_of_one_device_lets_in_nothing_of_another() {
    let mut world = World::new(92);
    let (publisher, accomplice) = (world.user(), world.user());
    for peer in [publisher, accomplice] {
        world
            .grant(OWNER, peer, Roles::PUBLISHER, Interval::ALL)
            .unwrap();
    }
    world.publish(publisher, "before").unwrap();
    let late = world.seal(publisher, "late").unwrap();
    world.revoke_user(OWNER, publisher).unwrap();
    world.data().push(late.envelopes[0].bytes.clone());
    let own = world.publish(accomplice, "own").unwrap();
    let header = sealcast_protocol::Header {
        prev: late.envelopes[0].hash,
        seq: own.seq + 1,
        ..own
    };
    let of = &world.peers[accomplice];
    let root = of.view.root(&header.session).unwrap();
    let mut walker = sealcast_crypto::Walker::new(sealcast_crypto::Cover::whole(root));
    let leaf = walker.leaf(header.position.0).unwrap();
    let signing = of.identity.signing();
    let helping = sealcast_protocol::seal(&leaf, signing, &world.stream, b"", &header, b"helping");
    world.data().push(helping.unwrap().bytes);
    world.revoke_user(OWNER, accomplice).unwrap();
    assert_eq!(world.opened(OWNER), ["before", "own", "helping"]);
}

/// Old envelopes that someone puts on the bus again must not make a revocation too long to write.
#[test]
fn replays_do_not_become_tips() {
    let mut world = World::new(64);
    let publisher = world.user();
    world
        .grant(OWNER, publisher, Roles::PUBLISHER, Interval::ALL)
        .unwrap();
    for at in 0..20 {
        world.publish(publisher, &at.to_string()).unwrap();
    }
    let copies = world.data().clone();
    world
        .data()
        .extend(copies.iter().chain(&copies).cloned().collect::<Vec<_>>());
    world.revoke_user(OWNER, publisher).unwrap();
    let entry = world.peers[OWNER]
        .view
        .log()
        .entries()
        .last()
        .unwrap()
        .body()
        .clone();
    let LogBody::Revoke(Revoke { last, .. }) = entry.body else {
        panic!("a revocation");
    };
    assert_eq!(last.iter().map(|of| of.tips.len()).sum::<usize>(), 1);
    assert_eq!(world.opened(OWNER).len(), 20);
}

#[test]
fn an_entry_that_would_not_count_is_not_written() {
    let mut world = World::new(65);
    let (admin, reader) = (world.user(), world.user());
    world
        .grant(OWNER, admin, Roles::ADMIN, Interval::ALL)
        .unwrap();
    world
        .grant(OWNER, reader, Roles::READER, Interval::ALL)
        .unwrap();
    let settings = LogBody::Settings(Settings { rekey_every_ms: 0 });
    let not_allowed = Err(AuthorError::NotAllowed);
    for (by, body) in [
        (reader, settings.clone()),
        (reader, LogBody::Close),
        (reader, revoke_users(&world, &[reader])),
        (admin, revoke_users(&world, &[admin])),
        (admin, revoke_users(&world, &[OWNER])),
        (OWNER, revoke_users(&world, &[OWNER])),
    ] {
        assert_eq!(world.write(by, body.clone()), not_allowed, "{by} {body:?}");
    }
    world.write(admin, settings).unwrap();
    world.revoke_user(admin, reader).unwrap();
    assert_eq!(world.revoke_user(admin, reader), not_allowed);
    world.write(admin, LogBody::Close).unwrap();
    assert_eq!(world.write(admin, LogBody::Close), not_allowed);
    assert_eq!(world.seal(OWNER, "late").unwrap_err(), NotSealed::Closed);
}

fn revoke_users(world: &World, users: &[usize]) -> LogBody {
    let users = users.iter().map(|of| world.id(*of)).collect();
    LogBody::Revoke(Revoke {
        targets: Targets::Users(users),
        last: vec![],
    })
}

#[test]
fn key_nodes_are_named_by_owner_and_admins_and_ended_again() {
    let mut world = World::new(69);
    let (publisher, node) = (world.user(), world.user());
    world
        .grant(OWNER, publisher, Roles::PUBLISHER, Interval::ALL)
        .unwrap();
    let named = |of: &[KeyNode]| {
        LogBody::KeyNodes(KeyNodes {
            threshold: of.len() as u8,
            nodes: of.to_vec(),
            condition: Condition::default(),
            generation: 0,
        })
    };
    let one = [KeyNode {
        user: world.id(node),
        device: world.device(node),
    }];
    let refused = world.write(publisher, named(&one));
    assert_eq!(refused, Err(AuthorError::NotAllowed));
    let in_force = |world: &World| {
        let state = world.peers[OWNER].view.state();
        state.key_nodes().map(|(_, named)| named.nodes.clone())
    };
    world.write(OWNER, named(&one)).unwrap();
    world.sync(OWNER);
    assert_eq!(in_force(&world), Some(one.to_vec()));
    world.write(OWNER, named(&[])).unwrap();
    world.sync(OWNER);
    assert_eq!(in_force(&world), None);
}

#[test]
fn a_session_ends_with_its_age() {
    let mut world = World::new(67);
    let settings = Settings {
        rekey_every_ms: 1_000,
    };
    world.write(OWNER, LogBody::Settings(settings)).unwrap();
    let first = world.publish(OWNER, "a").unwrap();
    world.tick(999);
    let second = world.publish(OWNER, "b").unwrap();
    world.tick(1);
    let third = world.publish(OWNER, "c").unwrap();
    assert_eq!(first.session, second.session);
    assert_ne!(second.session, third.session);
}

#[test]
fn nothing_is_sealed_before_its_session_is_announced() {
    let mut world = World::new(68);
    world.sync(OWNER);
    let new = world.draw(OWNER, NOON, SessionKind::Live);
    world.peers[OWNER].lane.session = new.session;
    let lane = world.peers[OWNER].lane;
    let error = world.seal(OWNER, "a").unwrap_err();
    assert_eq!(error, NotSealed::NotAnnounced(new.session));
    assert_eq!(world.peers[OWNER].lane, lane);
}

#[test]
fn a_batch_that_fails_changes_neither_lane_nor_publisher() {
    let mut world = World::new(69);
    let first = world.sealed(OWNER, &["a"]);
    let of = &mut world.peers[OWNER];
    let lane = of.lane;
    let long = vec![0; sealcast_protocol::PAYLOAD_MAX + 1];
    let drafts = [Draft::Single(b"b"), Draft::Single(&long)];
    let later = world.now.after(5);
    let failed = of.publisher.seal(later, &mut of.lane, &of.view, &drafts);
    assert_eq!(failed.unwrap_err(), NotSealed::OutOfRange);
    let empty = sealcast_protocol::Frame::with_capacity(64);
    let failed = of
        .publisher
        .seal(later, &mut of.lane, &of.view, &[Draft::Frame(&empty)]);
    assert_eq!(failed.unwrap_err(), NotSealed::OutOfRange);
    assert_eq!(of.lane, lane);
    let next = world.sealed(OWNER, &["c"]);
    let history = Mode::History(Interval::ALL);
    let told = world.feed(OWNER, &mut Reader::new(history), first.iter().chain(&next));
    assert_eq!(told, "a\nc\n");
}

#[test]
fn older_data_is_sealed_in_its_interval_and_in_order_only() {
    let mut world = World::new(70);
    world.publish(OWNER, "live").unwrap();
    let kind = SessionKind::Backfill {
        interval: between(Position(10), Position(20)),
    };
    let new = world.draw(OWNER, NOON, kind);
    let of = &mut world.peers[OWNER];
    let live = of.lane.session;
    let mark = of.lane.mark;
    for (session, times) in [
        (new.session, &[9][..]),
        (new.session, &[20]),
        (new.session, &[12, 11]),
        (live, &[12]),
    ] {
        let records: Vec<_> = times.iter().map(|at| (Position(*at), vec![])).collect();
        let failed = of
            .publisher
            .seal_past(&mut of.lane, &of.view, session, &records);
        assert_eq!(failed.unwrap_err(), NotSealed::OutOfRange, "{times:?}");
    }
    let records = [(Position(11), vec![]), (Position(11), vec![])];
    let sealed = of
        .publisher
        .seal_past(&mut of.lane, &of.view, new.session, &records);
    assert_eq!(sealed.unwrap().position, Position(11));
    assert_eq!(of.lane.mark, mark);
}

/// A bus that hides an admin's entry stops sealing: the entry may be a removal.
#[test]
fn a_hidden_entry_of_an_admin_stops_sealing_and_one_of_others_does_not() {
    let mut world = World::new(71);
    let (admin, publisher, reader) = (world.user(), world.user(), world.user());
    for (user, roles) in [
        (admin, Roles::ADMIN),
        (publisher, Roles::PUBLISHER),
        (reader, Roles::READER),
    ] {
        world.grant(OWNER, user, roles, Interval::ALL).unwrap();
    }
    world.publish(publisher, "a").unwrap();
    let hidden = LogHash([7; 32]);
    for (by, outcome) in [(reader, Ok(())), (admin, Err(NotSealed::LogIncomplete(1)))] {
        world.sync(by);
        let identity = &world.peers[by].identity;
        let mut heads = world.peers[by].view.log().heads(&LogHash([0; 32]));
        heads.push(hidden);
        heads.sort_unstable();
        let entry = LogEntry {
            version: 1,
            stream: world.stream,
            user: identity.user(),
            device: identity.device(),
            seq: 0,
            prev: LogHash([0; 32]),
            heads,
            time: world.now,
            body: LogBody::Close,
        };
        let entry = sign(identity.signing(), entry).unwrap();
        let chain = StreamTopics(world.stream).access(&identity.device());
        world.put(&chain, entry.wire());
        assert_eq!(world.seal(publisher, "b").map(|_| ()), outcome, "{by}");
    }
    // An admin that is one no longer cannot stop anybody.
    world.revoke_user(OWNER, admin).unwrap();
    world.publish(publisher, "c").unwrap();
}

/// A device whose card is revoked stops nobody, though its user rules on.
#[test]
fn a_hidden_entry_of_a_lost_device_does_not_stop_sealing() {
    let mut world = World::new(93);
    let phone = world.device_of(OWNER);
    world.publish(OWNER, "a").unwrap();
    world.sync(phone);
    let mut heads = world.peers[phone].view.log().heads(&LogHash([0; 32]));
    heads.push(LogHash([7; 32]));
    heads.sort_unstable();
    let identity = &world.peers[phone].identity;
    let entry = LogEntry {
        version: 1,
        stream: world.stream,
        user: identity.user(),
        device: identity.device(),
        seq: 0,
        prev: LogHash([0; 32]),
        heads,
        time: world.now,
        body: LogBody::Close,
    };
    let entry = sign(identity.signing(), entry).unwrap();
    let chain = StreamTopics(world.stream).access(&identity.device());
    world.put(&chain, entry.wire());
    let stopped = world.seal(OWNER, "b").map(|_| ());
    assert_eq!(stopped, Err(NotSealed::LogIncomplete(1)));
    world.tick(1);
    world.out(phone);
    world.publish(OWNER, "b").unwrap();
}

#[test]
fn an_envelope_is_refused_for_what_is_wrong_with_it() {
    let mut world = World::new(75);
    let (reader, stranger) = (world.user(), world.user());
    world
        .grant(OWNER, reader, Roles::READER, Interval::ALL)
        .unwrap();
    let phone = world.device_of(OWNER);
    world.publish(OWNER, "a").unwrap();
    let honest = world.data()[0].clone();
    let cases: [(&str, Refusal); 3] = [
        ("a stranger's device", Refusal::UnknownSender),
        ("a reader's device", Refusal::NotEntitled),
        ("another device of the owner", Refusal::BadSignature),
    ];
    for ((what, refusal), device) in cases.into_iter().zip([stranger, reader, phone]) {
        let mut item = honest.clone();
        item[28..44].copy_from_slice(world.device(device).as_bytes());
        *world.data() = vec![item];
        let events = world.events(reader, Interval::ALL);
        assert_eq!(refusals(&events), [refusal], "{what}");
    }
    *world.data() = vec![honest];
    assert_eq!(world.opened(reader), ["a"]);
}

/// Only the device that announced a session seals with it, only live messages go into a live one,
/// and nothing lies before its start.
#[test]
fn a_session_is_used_as_its_record_says() {
    let mut world = World::new(76);
    let phone = world.device_of(OWNER);
    world.publish(OWNER, "a").unwrap();
    world.sync(phone);
    let live = crate::rig::header(&world.data()[0]).session;
    let kind = SessionKind::Backfill {
        interval: between(Position(10), NOON.after(9)),
    };
    let past = world.draw(OWNER, NOON, kind);
    world.put_key_item(past.record.wire());
    let past = past.session;
    let flags = |backfill| sealcast_protocol::Flags {
        backfill,
        ..sealcast_protocol::Flags::default()
    };
    for (by, session, flags, position, told) in [
        (OWNER, live, flags(false), NOON, "forged\n"),
        (OWNER, live, flags(true), NOON, "rejected: WrongSession\n"),
        (
            OWNER,
            live,
            flags(false),
            Position(NOON.0 - 1),
            "rejected: WrongSession\n",
        ),
        (OWNER, past, flags(true), NOON, "forged\n"),
        (OWNER, past, flags(false), NOON, "rejected: WrongSession\n"),
        (
            OWNER,
            past,
            flags(true),
            NOON.after(9),
            "rejected: WrongSession\n",
        ),
        (
            phone,
            live,
            flags(false),
            NOON,
            "rejected: UnknownSession\n",
        ),
    ] {
        let header = sealcast_protocol::Header {
            flags,
            session,
            position,
            device: world.device(by),
            ..crate::rig::header(&world.data()[0])
        };
        let of = &world.peers[by];
        let root = world.peers[OWNER].view.root(&session).unwrap();
        let mut walker = sealcast_crypto::Walker::new(sealcast_crypto::Cover::whole(root));
        let leaf = walker.leaf(position.0).unwrap();
        let signing = of.identity.signing();
        let forged =
            sealcast_protocol::seal(&leaf, signing, &world.stream, b"", &header, b"forged");
        let item = forged.unwrap().bytes;
        world.sync(phone);
        let mut reader = Reader::new(Mode::History(Interval::ALL));
        assert_eq!(world.feed(phone, &mut reader, [&item]), told, "{header:?}");
    }
}

#[test]
fn a_fork_in_the_log_is_told_once() {
    let mut world = World::new(81);
    let (admin, reader) = (world.user(), world.user());
    world
        .grant(OWNER, admin, Roles::ADMIN, Interval::ALL)
        .unwrap();
    world
        .grant(OWNER, reader, Roles::READER, Interval::ALL)
        .unwrap();
    world.sync(admin);
    let of = &world.peers[admin];
    let chain = StreamTopics(world.stream).access(&world.device(admin));
    let twins: Vec<_> = [1, 2]
        .map(|rekey_every_ms| {
            let body = LogBody::Settings(Settings { rekey_every_ms });
            let entry = author(&of.view, &of.identity, world.now, body).unwrap();
            entry.wire().to_vec()
        })
        .into();
    twins.iter().for_each(|twin| world.put(&chain, twin));
    world.sync(reader);
    world
        .grant(OWNER, reader, Roles::READER, since(NOON))
        .unwrap();
    world.sync(reader);
    let alarm = Alarm::LogForked(world.id(admin), world.device(admin));
    assert_eq!(world.peers[reader].alarms, [alarm]);
}

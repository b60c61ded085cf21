//! Rights, devices and who is believed.

use sealcast_engine::{
    Alarm, AuthorError, Draft, Event, Mode, NotSealed, Reader, Refusal, SharedWith, Space,
    StreamView, author, plan_handouts, wrap_handout,
};
use sealcast_protocol::{
    Card, CardRevocation, Grant, Interval, ListBody, LogBody, LogEntry, LogHash, Position, Revoke,
    Roles, SessionKind, Settings, Sharing, StreamTopics, Targets, sign,
};

use crate::rig::{NOON, OWNER, World, between, refusals, since};

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
        let chain = StreamTopics(world.stream).access(&identity.device());
        world.put(&chain, entry.wire());
        thief.push(LogHash::from(entry.digest()));
    }
    for (by, is_in) in [(accomplice, false), (admin, true)] {
        world.sync(by);
        let mut heads = world.peers[by].view.log().heads(&LogHash([0; 32]));
        heads.push(thief[1]);
        heads.sort_unstable();
        let lane = vec![world.id(by)];
        let mut body = grant(world.id(friend));
        if let LogBody::Grant(grant) = &mut body {
            grant.lanes = lane;
        }
        let entry = entry(&world, by, (0, LogHash([0; 32])), heads, body);
        let entry = sign(world.peers[by].identity.signing(), entry).unwrap();
        let chain = StreamTopics(world.stream).access(&world.device(by));
        world.put(&chain, entry.wire());
        world.sync(OWNER);
        let log = world.peers[OWNER].view.log();
        assert_eq!(thief.iter().all(|hash| log.contains(hash)), is_in);
        assert_eq!(thief.iter().any(|hash| log.contains(hash)), is_in);
    }
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
    ListBody::Card(Card::new(&user, signing, &key, card.fallback, card.expires).into())
}

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
    for at in 0..6_000_u32 {
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
        heads: vec![LogHash([9; 32])],
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
        frame: false,
        backfill,
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

fn false_cover(
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

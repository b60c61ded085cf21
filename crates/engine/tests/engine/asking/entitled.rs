//! Nobody is given more than the log says, whatever is asked, and nobody gives more than it may.

use sealcast_engine::{AskerInput, End};
use sealcast_protocol::{Grant, Interval, LogBody, RefusalReason, Roles, Want};

use crate::asking::rig::Net;
use crate::rig::{NOON, OWNER, World, between, since};

/// fault 1: a session of another stream, or of another lane, is none of this one.
#[test]
fn a_session_is_given_in_its_own_stream_and_lane_only() {
    let mut other = World::new(20);
    other.publish(OWNER, "elsewhere").unwrap();
    let elsewhere = crate::rig::header(&other.data()[0]).session;

    let mut net = Net::new(21);
    let (publisher, reader) = (net.user(), net.user());
    net.grant(publisher, Roles::PUBLISHER, Interval::ALL, false);
    net.world.publish(OWNER, "owner's").unwrap();
    net.world.publish(publisher, "publisher's").unwrap();
    let sessions = net.sessions();
    let grant = Grant {
        user: net.world.id(reader),
        devices: Vec::new(),
        roles: Roles::READER,
        lanes: vec![net.world.id(publisher)],
        interval: Interval::ALL,
        reshare: false,
    };
    net.world.write(OWNER, LogBody::Grant(grant)).unwrap();
    net.learn();
    net.answers(OWNER);
    for want in [
        net.want(OWNER, elsewhere, Interval::ALL),
        net.want(publisher, elsewhere, Interval::ALL),
        net.want(publisher, sessions[0], Interval::ALL),
        net.want(OWNER, sessions[0], Interval::ALL),
        net.want(OWNER, sessions[1], Interval::ALL),
        net.want(OWNER, Want::EVERY_SESSION, Interval::ALL),
    ] {
        net.ask(reader, AskerInput::Want(want));
        net.run(3_000);
    }
    assert_eq!((net.sent.solicitations, net.sent.bundles), (6, 0));
    let own = net.want(publisher, sessions[1], Interval::ALL);
    net.ask(reader, AskerInput::Want(own));
    net.run(3_000);
    assert_eq!(net.given_covers(), [(OWNER, sessions[1], Interval::ALL)]);
}

/// fault 1: what was asked in another stream's name is not answered here.
#[test]
fn a_request_of_another_stream_is_passed_over() {
    let mut net = Net::new(22);
    let reader = net.reader(Interval::ALL);
    net.answers(OWNER);
    net.world.publish(OWNER, "one").unwrap();
    net.learn();
    let session = net.sessions()[0];
    let want = net.want(OWNER, session, Interval::ALL);
    let mut asked = net.solicitation(reader, vec![want]);
    asked.stream.0[0] ^= 1;
    net.put_solicitation(reader, asked.clone());
    net.run(5_000);
    assert_eq!((net.sent.claims, net.sent.bundles), (0, 0));
    asked.stream.0[0] ^= 1;
    net.put_solicitation(reader, asked);
    net.run(5_000);
    assert_eq!((net.sent.claims, net.sent.bundles), (1, 1));
}

/// fault 2
#[test]
fn a_newcomer_who_names_an_older_session_gets_nothing_of_it() {
    let mut net = Net::new(23);
    net.answers(OWNER);
    net.world.publish(OWNER, "before").unwrap();
    net.world.tick(60_000);
    net.world.sync(OWNER);
    net.world.rekey(OWNER);
    let from = net.world.cut(OWNER);
    let reader = net.reader(since(from));
    net.world.tick(1_000);
    net.world.publish(OWNER, "after").unwrap();
    net.learn();
    let sessions = net.sessions();
    let everything = |net: &Net, session| net.want(OWNER, session, Interval::ALL);
    for session in [sessions[0], sessions[1], Want::EVERY_SESSION] {
        let want = everything(&net, session);
        net.ask(reader, AskerInput::Want(want));
        net.run(35_000);
    }
    let given: Vec<_> = net.given_covers();
    assert!(!given.is_empty());
    for (_, session, interval) in given {
        assert_eq!((session, interval), (sessions[1], since(from)));
    }
    assert_eq!(
        net.ends(reader)[0],
        End::Refused(RefusalReason::NotEntitled)
    );
    net.read(reader);
    assert_eq!(net.opened(reader), ["after"]);
}

#[test]
fn what_is_given_is_what_is_asked_for_and_granted_both() {
    let mut net = Net::new(24);
    let reader = net.reader(between(NOON.after(1_000), NOON.after(9_000)));
    net.answers(OWNER);
    net.world.publish(OWNER, "one").unwrap();
    net.learn();
    let session = net.sessions()[0];
    for (from, until) in [(0, 5_000), (2_000, 3_000), (8_000, 20_000), (9_000, 20_000)] {
        let interval = between(NOON.after(from), NOON.after(until));
        let want = net.want(OWNER, session, interval);
        net.ask(reader, AskerInput::Want(want));
        net.run(3_000);
    }
    let given: Vec<_> = net.given_covers().iter().map(|of| of.2).collect();
    let part = |from, until| between(NOON.after(from), NOON.after(until));
    assert_eq!(
        given[..3],
        [part(1_000, 5_000), part(2_000, 3_000), part(8_000, 9_000)]
    );
}

/// fault 12: a device is given what its user's grants say of it, once its card is in the user's list.
#[test]
fn a_new_device_is_no_reason_to_hand_over_everything() {
    let mut net = Net::new(25);
    net.answers(OWNER);
    net.world.publish(OWNER, "before").unwrap();
    net.world.tick(60_000);
    let from = net.world.cut(OWNER);
    let reader = net.reader(since(from));
    net.world.publish(OWNER, "after").unwrap();
    let new = net.device_of(reader);
    net.learn();
    net.read(new);
    net.run(3_000);
    assert_eq!(net.opened(new), ["after"]);
    assert_eq!(net.given_covers().len(), 1);
    assert_eq!(net.given_covers()[0].2, since(from));

    // A grant to some devices is none to the others.
    let picky = net.user();
    let grant = Grant {
        user: net.world.id(picky),
        devices: vec![net.world.device(picky)],
        roles: Roles::READER,
        lanes: Vec::new(),
        interval: Interval::ALL,
        reshare: false,
    };
    net.world.write(OWNER, LogBody::Grant(grant)).unwrap();
    let second = net.device_of(picky);
    net.learn();
    let session = net.sessions()[0];
    let want = net.want(OWNER, session, Interval::ALL);
    net.ask(second, AskerInput::Want(want));
    net.run(3_000);
    assert_eq!(net.ends(second), [End::Refused(RefusalReason::NotEntitled)]);
    assert_eq!(net.given_covers().len(), 1);
}

#[test]
fn a_device_whose_card_is_revoked_or_expired_is_given_nothing() {
    let mut net = Net::new(26);
    let (revoked, expired) = (net.reader(Interval::ALL), net.reader(Interval::ALL));
    net.answers(OWNER);
    net.world.publish(OWNER, "one").unwrap();
    net.learn();
    let want = net.want(OWNER, net.session(), Interval::ALL);
    let _ = net.world.out(revoked);
    net.world.sync(OWNER);
    let asked = net.solicitation(revoked, vec![want]);
    net.put_solicitation(revoked, asked);
    net.run(3_000);
    assert_eq!(net.sent.claims, 0);
    net.world.tick(sealcast_protocol::CARD_LIFETIME_MS - 10_000);
    let asked = net.solicitation(expired, vec![want]);
    net.put_solicitation(expired, asked);
    net.run(3_000);
    assert_eq!(net.sent.claims, 1);
    net.world.tick(10_000);
    let mut asked = net.solicitation(expired, vec![want]);
    asked.request.0[0] = 2;
    net.put_solicitation(expired, asked);
    net.run(3_000);
    assert_eq!(net.sent.claims, 1);
}

/// The device list that a request names is read first: a device is not served by an older one.
#[test]
fn whoever_knows_less_of_the_askers_list_reads_on_first() {
    let mut net = Net::new(27);
    let reader = net.reader(Interval::ALL);
    net.answers(OWNER);
    net.world.publish(OWNER, "one").unwrap();
    net.learn();
    let want = net.want(OWNER, net.session(), Interval::ALL);
    // Its second device is revoked, and its first one says so; the owner has not read that.
    let second = net.device_of(reader);
    net.world.sync(reader);
    net.world.sync(OWNER);
    let asked_by_second = net.solicitation(reader, vec![want]);
    let _ = net.world.out(second);
    net.world.sync(reader);
    let mut asked = net.solicitation(reader, vec![want]);
    asked.request.0[0] = 3;
    assert_ne!(asked.list, asked_by_second.list);
    net.put_solicitation(reader, asked);
    net.run(3_000);
    assert_eq!(net.sent.claims, 1);
    let view = &net.world.peers[OWNER].view;
    let list = view.list(&net.world.id(reader)).unwrap();
    assert!(
        list.device(&net.world.device(second))
            .unwrap()
            .revoked
            .is_some()
    );
    // A list that forks from the one that is known is not read at all.
    let mut forked = asked_by_second;
    forked.list.half[0] ^= 1;
    net.put_solicitation(reader, forked);
    net.run(3_000);
    assert_eq!(net.sent.claims, 1);
}

/// The publisher is gone for good.
#[test]
fn a_co_reader_hands_on_what_it_holds_and_never_more() {
    let mut net = Net::new(28);
    let hour = 3_600_000;
    let at = |of: u64| NOON.after(of * hour);
    let resharer = net.resharer(between(at(1), at(3)));
    for text in ["0", "1", "2", "3"] {
        net.world.publish(OWNER, text).unwrap();
        net.world.tick(hour);
    }
    net.answers(OWNER);
    net.read(resharer);
    net.run(3_000);
    assert_eq!(net.opened(resharer), ["1", "2"]);

    net.nodes[OWNER].is_up = false;
    net.answers(resharer);
    let late = net.reader(between(at(2), at(9)));
    let all = net.reader(Interval::ALL);
    let before = net.given.len();
    for reader in [late, all] {
        net.read(reader);
        net.run(10_000);
    }
    assert_eq!(net.opened(late), ["2"]);
    assert_eq!(net.opened(all), ["1", "2"]);
    let given: Vec<_> = net.given_covers()[before..]
        .iter()
        .map(|of| (of.0, of.2))
        .collect();
    assert_eq!(
        given,
        [
            (resharer, between(at(2), at(3))),
            (resharer, between(at(1), at(3)))
        ]
    );
}

/// What a co-reader may read and not hand on stays with it.
#[test]
fn a_co_reader_hands_on_only_what_it_was_let_to() {
    let mut net = Net::new(33);
    let hour = 3_600_000;
    let at = |of: u64| NOON.after(of * hour);
    let resharer = net.resharer(between(at(1), at(3)));
    net.grant(resharer, Roles::READER, between(at(2), at(9)), false);
    for text in ["0", "1", "2", "3"] {
        net.world.publish(OWNER, text).unwrap();
        net.world.tick(hour);
    }
    net.answers(OWNER);
    net.learn();
    net.read(resharer);
    net.run(3_000);
    assert_eq!(net.opened(resharer), ["1", "2", "3"]);
    net.nodes[OWNER].is_up = false;
    net.answers(resharer);
    let reader = net.reader(Interval::ALL);
    let before = net.given.len();
    net.read(reader);
    net.run(10_000);
    assert_eq!(net.opened(reader), ["1", "2"]);
    let given: Vec<_> = net.given_covers()[before..].iter().map(|of| of.2).collect();
    assert_eq!(given, [between(at(1), at(3))]);
}

#[test]
fn a_reader_who_may_not_reshare_answers_nobody_but_its_own_users_devices() {
    let mut net = Net::new(29);
    let (holder, other) = (net.reader(since(NOON)), net.reader(since(NOON)));
    net.answers(OWNER);
    net.world.publish(OWNER, "one").unwrap();
    net.read(holder);
    net.run(3_000);
    assert_eq!(net.opened(holder), ["one"]);
    net.nodes[OWNER].is_up = false;
    net.answers(holder);
    let own = net.device_of(holder);
    net.learn();
    net.read(other);
    net.read(own);
    net.run(10_000);
    assert_eq!(net.opened(other), [""; 0]);
    assert_eq!(net.opened(own), ["one"]);
    assert_eq!(net.given_covers()[1..].len(), 1);
}

/// What was granted to a co-reader and taken back is not handed on.
#[test]
fn a_revoked_co_reader_is_neither_asked_nor_believed() {
    let mut net = Net::new(30);
    let resharer = net.resharer(since(NOON));
    net.answers(OWNER);
    net.world.publish(OWNER, "one").unwrap();
    net.read(resharer);
    net.run(3_000);
    net.nodes[OWNER].is_up = false;
    net.answers(resharer);
    let reader = net.reader(since(NOON));
    net.world.revoke_user(OWNER, resharer).unwrap();
    // It has not read the log on, and answers; the reader has.
    net.world.sync(reader);
    net.read(reader);
    net.run(10_000);
    assert_eq!(net.given_covers()[1..].len(), 1);
    assert_eq!(net.opened(reader), [""; 0]);
    net.learn();
    net.run(120_000);
    assert_eq!(net.given_covers()[1..].len(), 1);
}

#[test]
fn nobody_is_refused_who_knows_of_a_grant_that_is_not_known_here() {
    let mut net = Net::new(31);
    let reader = net.user();
    net.answers(OWNER);
    let admin = net.admin();
    net.world.publish(OWNER, "one").unwrap();
    net.learn();
    net.nodes[OWNER].is_up = false;
    let grant = Grant {
        user: net.world.id(reader),
        devices: Vec::new(),
        roles: Roles::READER,
        lanes: Vec::new(),
        interval: Interval::ALL,
        reshare: false,
    };
    net.world.write(OWNER, LogBody::Grant(grant)).unwrap();
    net.world.sync(reader);
    net.read(reader);
    net.run(3_000);
    assert_eq!((net.sent.refusals, net.sent.bundles), (0, 0));
    assert_eq!(net.nodes[admin].responder.unchecked_requests(), 1);
    net.learn();
    net.run(3_000);
    assert_eq!(net.opened(reader), ["one"]);
    assert_eq!(net.sent.refusals, 0);
}

/// The same of one whom the log names here, for something else.
#[test]
fn nobody_is_refused_or_put_off_with_less_whose_newer_grant_is_not_known_here() {
    let hour = NOON.after(3_600_000);
    for known in [between(sealcast_protocol::Position(0), NOON), since(hour)] {
        let mut net = Net::new(34);
        let reader = net.reader(known);
        let admin = net.admin();
        net.world.publish(OWNER, "one").unwrap();
        net.learn();
        let grant = Grant {
            user: net.world.id(reader),
            devices: Vec::new(),
            roles: Roles::READER,
            lanes: Vec::new(),
            interval: Interval::ALL,
            reshare: false,
        };
        net.world.write(OWNER, LogBody::Grant(grant)).unwrap();
        net.world.sync(reader);
        net.read(reader);
        net.run(4_000);
        assert_eq!(net.nodes[admin].responder.open_requests(), 1);
        assert_eq!(net.nodes[admin].questions, []);
        net.learn();
        net.run(1_000);
        assert_eq!(net.opened(reader), ["one"]);
        assert_eq!((net.sent.refusals, net.sent.bundles), (0, 1));
    }
}

#[test]
fn in_manual_and_public_streams_nobody_asks_and_nobody_answers() {
    for public in [true, false] {
        let world = World::with(32, sealcast_protocol::Sharing::Manual, public);
        let mut net = Net::of(world);
        let reader = net.reader(Interval::ALL);
        net.answers(OWNER);
        net.world.publish(OWNER, "one").unwrap();
        net.learn();
        net.read(reader);
        net.run(5_000);
        assert_eq!(net.sent.solicitations, 0);
        let want = net.want(OWNER, net.session(), Interval::ALL);
        let asked = net.solicitation(reader, vec![want]);
        net.put_solicitation(reader, asked);
        net.run(5_000);
        assert_eq!((net.sent.claims, net.sent.bundles), (0, 0));
    }
}

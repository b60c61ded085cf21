//! Faults of `spec/faults.md` that no other file tells a story about.

use sealcast_engine::{Mode, NotSealed, Publisher, Reader, SharedWith, StreamView};
use sealcast_protocol::{Draft, Interval, Roles, SessionKind};

use crate::rig::{NOON, OWNER, World, since};

/// fault 6
#[test]
fn a_flipped_bit_anywhere_opens_nothing() {
    let mut world = World::new(100);
    let item = world.sealed(OWNER, &["a message"]).remove(0);
    for at in 0..item.len() {
        let mut flipped = item.clone();
        flipped[at] ^= 1 << (at % 8);
        let mut reader = Reader::new(Mode::History(Interval::ALL));
        let told = world.feed(OWNER, &mut reader, [&flipped]);
        assert!(told.starts_with("rejected"), "byte {at}: {told}");
    }
}

/// fault 7
#[test]
fn plaintext_and_garbage_on_the_data_topic_are_rejected_and_told() {
    let mut world = World::new(101);
    world.publish(OWNER, "a").unwrap();
    for garbage in [
        &b""[..],
        b"21.5 C",
        b"{\"temperature\": 21.5}",
        &[0; 176],
        &[1; 5_000],
    ] {
        world.data().push(garbage.to_vec());
    }
    world.publish(OWNER, "b").unwrap();
    let told = format!("a\n{}b\n", "rejected: Malformed\n".repeat(5));
    assert_eq!(world.transcript(OWNER), told);
}

/// fault 7: a sealed frame whose content is no frame.
#[test]
fn an_envelope_that_says_frame_and_holds_none_is_rejected() {
    let mut world = World::new(102);
    let item = world.sealed(OWNER, &["no frame"]).remove(0);
    let mut header = crate::rig::header(&item);
    header.flags.frame = true;
    let root = world.peers[OWNER].view.root(&header.session).unwrap();
    let mut walker = sealcast_crypto::Walker::new(sealcast_crypto::Cover::whole(root));
    let leaf = walker.leaf(header.position.0).unwrap();
    let signing = world.peers[OWNER].identity.signing();
    let stream = &world.stream;
    let sealed = sealcast_protocol::seal(&leaf, signing, stream, b"", &header, b"\xff\xff\xff");
    let mut reader = Reader::new(Mode::History(Interval::ALL));
    let told = world.feed(OWNER, &mut reader, [&sealed.unwrap().bytes]);
    assert_eq!(told, "rejected: Malformed\n");
}

/// fault 11: a keyholder knows the roots of others, and still never seals with one.
#[test]
fn nothing_that_was_received_becomes_a_session_to_seal_with() {
    let mut world = World::new(103);
    let phone = world.device_of(OWNER);
    let (admin, publisher) = (world.user(), world.user());
    world
        .grant(OWNER, admin, Roles::ADMIN, Interval::ALL)
        .unwrap();
    world
        .grant(OWNER, publisher, Roles::PUBLISHER, Interval::ALL)
        .unwrap();
    world.publish(publisher, "a").unwrap();
    world.publish(phone, "b").unwrap();
    for (at, victim) in [(0, OWNER), (0, admin), (1, OWNER), (1, admin)] {
        world.sync(victim);
        let received = crate::rig::header(&world.data()[at]).session;
        let of = &mut world.peers[victim];
        assert!(of.view.root(&received).is_some());
        let mut lane = of.lane;
        (lane.session, lane.is_announced) = (received, true);
        let mut run = Publisher::new(world.stream, &of.identity, &mut world.rng);
        let failed = run.seal(NOON, &mut lane, &of.view, &[Draft::Single(b"c")]);
        assert_eq!(failed.unwrap_err(), NotSealed::UnknownSession(received));
        let failed = run.seal_past(&mut lane, &of.view, received, &[(NOON, vec![])]);
        assert_eq!(failed.unwrap_err(), NotSealed::UnknownSession(received));
    }
}

/// fault 11: nor does a session that this device drew for something else, or left behind.
#[test]
fn live_messages_are_sealed_with_the_newest_live_session_only() {
    let mut world = World::new(104);
    let first = world.publish(OWNER, "a").unwrap().session;
    let interval = Interval::ALL;
    let past = world.draw(OWNER, NOON, SessionKind::Backfill { interval });
    world.tick(10);
    world.rekey(OWNER);
    let newest = world.publish(OWNER, "b").unwrap().session;
    for stale in [first, past.session] {
        let of = &mut world.peers[OWNER];
        let mut lane = of.lane;
        lane.session = stale;
        let failed = of
            .publisher
            .seal(world.now, &mut lane, &of.view, &[Draft::Single(b"c")]);
        assert_eq!(failed.unwrap_err(), NotSealed::NeedsSession);
    }
    assert_eq!(world.publish(OWNER, "c").unwrap().session, newest);
}

/// A root is the one that its session is named after, whoever hands it in.
#[test]
fn a_root_under_another_sessions_name_is_not_sealed_under() {
    let mut world = World::new(105);
    let other = world.user();
    world
        .grant(OWNER, other, Roles::PUBLISHER, Interval::ALL)
        .unwrap();
    world.sync(other);
    world.sync(OWNER);
    let theirs = world.draw(other, NOON, SessionKind::Live);
    // The same session, announced by somebody else's device as its own.
    let mut body = theirs.record.body().clone();
    body.device = world.device(OWNER);
    let forged = sealcast_protocol::sign(world.peers[other].identity.signing(), body).unwrap();
    world.put_key_item(forged.wire());
    world.sync(OWNER);
    let view = &world.peers[OWNER].view;
    assert!(view.record(&theirs.session, &world.device(OWNER)).is_none());
    assert!(view.root(&theirs.session).is_none());
}

/// fault 17
#[test]
fn what_cannot_be_opened_does_not_hold_back_the_next() {
    let mut world = World::new(106);
    let reader = world.user();
    world.publish(OWNER, "before").unwrap();
    let mut altered = world.sealed(OWNER, &["altered"]);
    let byte = altered[0].len() - 70;
    altered[0][byte] ^= 1;
    let cut = world.cut(OWNER);
    world
        .grant(OWNER, reader, Roles::READER, since(cut))
        .unwrap();
    world.data().extend(altered);
    world.data().push(b"garbage".to_vec());
    world.publish(OWNER, "after").unwrap();
    let told = "sealed\nrejected: BadSignature\nrejected: Malformed\ngap of 1\nafter\n";
    assert_eq!(world.transcript(reader), told);
}

/// fault 18
#[test]
fn debug_prints_no_secret() {
    let mut world = World::new(107);
    let reader = world.user();
    world
        .grant(OWNER, reader, Roles::READER, since(NOON))
        .unwrap();
    world.publish(OWNER, "secret payload").unwrap();
    let item = world.data()[0].clone();
    let new = world.draw(OWNER, NOON, SessionKind::Live);
    let mut shown = format!("{new:?}");
    let mut secrets = vec![new.root.expose().to_vec(), b"secret payload".to_vec()];
    for peer in [OWNER, reader] {
        world.sync(peer);
        let of = &world.peers[peer];
        let identity = &of.identity;
        secrets.push(identity.signing().expose_seed().to_vec());
        secrets.push(identity.unwrap_key().expose_seed().to_vec());
        secrets.extend(identity.root().map(|root| root.expose_seed().to_vec()));
        let kept = of.store.iter().filter(|((space, _), _)| {
            matches!(
                space,
                sealcast_engine::Space::Root | sealcast_engine::Space::Cover
            )
        });
        let keys = |value: &Vec<u8>| {
            value[value.len() % 32..]
                .chunks(32)
                .map(<[u8]>::to_vec)
                .collect::<Vec<_>>()
        };
        secrets.extend(kept.flat_map(|(_, value)| keys(value).split_off(value.len() / 64)));
        let mut live = Reader::new(Mode::Live);
        live.handle(&of.view, &item);
        let (view, publisher, lane) = (&of.view, &of.publisher, &of.lane);
        shown += &format!("{identity:?}{view:?}{publisher:?}{live:?}{lane:?}");
        while let Some(event) = live.poll_event() {
            shown += &format!("{event:?}");
        }
        let drafts = [Draft::Single(b"secret payload")];
        shown += &format!(
            "{:?}",
            Draft::Frame(&sealcast_protocol::Frame::with_capacity(9))
        );
        shown += &format!("{drafts:?}");
        let mut lane = *lane;
        let (stream, rng) = (world.stream, &mut world.rng);
        let mut run = Publisher::new(stream, identity, rng);
        shown += &format!("{:?}", run.seal(NOON, &mut lane, view, &drafts));
        let mut fresh = StreamView::new(stream, world.peers[OWNER].identity.user(), identity);
        for item in world.bus.get(&identity.user().devices_topic()).unwrap() {
            fresh.handle(
                &sealcast_engine::ControlTopic::Devices(identity.user()),
                item,
            );
        }
        while let Some(output) = fresh.poll_output() {
            shown += &format!("{output:?}");
        }
    }
    assert!(shown.contains("SessionRoot(..)") && shown.contains("Cover(..)"));
    for secret in &secrets {
        for window in secret.windows(8) {
            let list = format!("{window:?}");
            let hex: String = window.iter().map(|byte| format!("{byte:02x}")).collect();
            let list = list.trim_matches(['[', ']']);
            assert!(!shown.contains(list) && !shown.contains(&hex), "{shown}");
        }
    }
}

/// fault 23 where it touches keys: what an admin granted who did not know of its removal is nothing,
/// whatever time it names.
#[test]
fn a_removed_admins_backdated_grant_gets_no_keys() {
    let mut world = World::new(108);
    let (admin, friend) = (world.user(), world.user());
    world
        .grant(OWNER, admin, Roles::ADMIN, Interval::ALL)
        .unwrap();
    world.publish(OWNER, "a").unwrap();
    world.sync(admin);
    let before = world.now;
    world.tick(60_000);
    world.revoke_user(OWNER, admin).unwrap();
    let of = &world.peers[admin];
    let body = sealcast_protocol::LogBody::Grant(sealcast_protocol::Grant {
        user: world.id(friend),
        devices: vec![],
        roles: Roles::READER,
        lanes: vec![],
        interval: Interval::ALL,
        reshare: false,
    });
    let entry = sealcast_engine::author(&of.view, &of.identity, before, body).unwrap();
    let chain = sealcast_protocol::StreamTopics(world.stream).access(&world.device(admin));
    world.put(&chain, entry.wire());
    world.publish(OWNER, "b").unwrap();
    world.share(OWNER, SharedWith::Everyone);
    assert_eq!(world.opened(friend), [""; 0]);
}

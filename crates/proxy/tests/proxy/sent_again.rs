//! A message of QoS 2 that a client sends again is the same for its broker.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use sealcast_brokers::mosquitto::Server;
use sealcast_proxy::Exception::Refused;

use crate::parking::Stage;
use crate::rig::{BOTH, Peer, RULES, Rig, Version, connect, packet, publish, welcome};
use crate::toy::{Toy, Trouble, payload};

const AGAIN: u8 = 8;

fn stage(version: Version) -> Stage {
    let sealed = Some(AtomicU64::default());
    Stage::over(
        (version, ""),
        Arc::new(Toy {
            sealed,
            ..Toy::default()
        }),
    )
}

fn message(version: Version, first: u8, id: u16, text: &str) -> Vec<u8> {
    publish(version, first, "gateway/7", id, &[], text.as_bytes())
}

/// What the broker gets where it is `text`, without whether it comes again.
fn gets(server: &mut Peer, text: &str) -> Vec<u8> {
    let mut packet = server.packet();
    packet[0] &= !AGAIN;
    let shows = |from| {
        payload("boiler", "gateway/7", &packet[from..]).is_some_and(|of| of == text.as_bytes())
    };
    assert!((0..packet.len()).any(shows), "{packet:x?}");
    packet
}

#[test]
fn what_is_sent_again_is_the_same_until_its_client_releases_it() {
    for version in BOTH {
        let mut stage = stage(version);
        let (mut client, mut server) = stage.joins(false, &[]);
        client.send(&message(version, 4, 7, "one"));
        client.send(&message(version, 2, 8, "other"));
        let (one, other) = (gets(&mut server, "one"), gets(&mut server, "other"));
        for is_killed in [false, true] {
            drop((client, server));
            if is_killed {
                stage.begins_again();
            }
            (client, server) = stage.joins(true, &[]);
            client.send(&message(version, 4 | AGAIN, 7, "one"));
            client.send(&message(version, 2 | AGAIN, 8, "other"));
            assert_eq!(gets(&mut server, "one"), one);
            // Of QoS 1 nothing is kept where a killed proxy finds it.
            assert_eq!(gets(&mut server, "other") == other, !is_killed);
        }
        assert_eq!(stage.toy.kept.len(), 1);
        client.send(&packet(0x62, &[0, 7]));
        assert_eq!(server.packet(), packet(0x62, &[0, 7]));
        assert_eq!(stage.toy.kept.len(), 0);
        client.send(&message(version, 4 | AGAIN, 7, "one"));
        assert_ne!(gets(&mut server, "one"), one);
    }
}

/// Whoever says that it is the client is not, until the broker says so.
#[test]
fn a_stranger_changes_nothing_of_what_is_on_its_way() {
    for version in BOTH {
        let stage = stage(version);
        let (mut client, mut server) = stage.joins(false, &[]);
        client.send(&message(version, 4, 7, "one"));
        let one = gets(&mut server, "one");
        drop((client, server));
        let replaces = message(version, 4, 7, "two");
        let releases = packet(0x62, &[0, 7]);
        let takes_room = message(version, 4, 8, "more");
        for said in [replaces, releases, takes_room] {
            let mut stranger = stage.rig.dial();
            let mut all = connect(version, "desk", &[0x11, 0, 0, 0, 60], None);
            all[9] &= !2;
            all.extend(said);
            stranger.send(&all);
            let mut server = stage.broker.accept();
            server.packet();
            // It has said that already.
            let answered = packet(0xc0, &[]);
            stranger.send(&answered);
            let mut refused = welcome(version, &[]);
            refused[3] = if version == Version::Five { 0x86 } else { 4 };
            server.send(&refused);
            assert_eq!(stranger.packet(), refused);
            // What it said was dealt with.
            while server.packet() != answered {}
        }
        assert_eq!(stage.toy.kept.len(), 1);
        let (mut client, mut server) = stage.joins(true, &[]);
        client.send(&message(version, 4 | AGAIN, 7, "one"));
        assert_eq!(gets(&mut server, "one"), one);
    }
}

/// A broker may have another say who it is before it lets it in, and whoever thinks better of it may leave.
#[test]
fn what_leads_to_being_let_in_does_not_wait_for_it() {
    let version = Version::Five;
    for said in [packet(0xf0, &[0x18, 0]), packet(0xe0, &[])] {
        let stage = stage(version);
        let mut client = stage.rig.dial();
        client.send(&connect(version, "desk", &[0x11, 0, 0, 0, 60], None));
        let mut server = stage.broker.accept();
        server.packet();
        client.send(&said);
        assert_eq!(server.packet(), said);
    }
}

/// The broker ends the handshake of what it refuses, and there is nothing to release then.
#[test]
fn what_the_broker_refused_is_not_sent_again_for_another_message() {
    let version = Version::Five;
    let stage = stage(version);
    let (mut client, mut server) = stage.joins(false, &[]);
    client.send(&message(version, 4, 7, "one"));
    let one = gets(&mut server, "one");
    let accepted = packet(0x50, &[0, 7, 0x10]);
    let refused = packet(0x50, &[0, 7, 0x97]);
    for (answer, is_kept) in [(accepted, true), (refused, false)] {
        server.send(&answer);
        assert_eq!(client.packet(), answer);
        client.send(&packet(0xc0, &[]));
        assert_eq!(server.packet(), packet(0xc0, &[]));
        assert_eq!(stage.toy.kept.len(), usize::from(is_kept));
    }
    client.send(&message(version, 4 | AGAIN, 7, "one"));
    assert_ne!(gets(&mut server, "one"), one);
}

/// Else it would go out for a third with that number.
#[test]
fn an_envelope_is_gone_when_its_number_is_that_of_something_in_clear() {
    for version in BOTH {
        for topic in ["clear/1", "office/1"] {
            let stage = stage(version);
            let (mut client, mut server) = stage.joins(false, &[]);
            client.send(&message(version, 4, 7, "one"));
            gets(&mut server, "one");
            client.send(&publish(version, 4, topic, 7, &[], b"two"));
            client.send(&packet(0xc0, &[]));
            while server.packet() != packet(0xc0, &[]) {}
            assert_eq!(stage.toy.kept.len(), 0, "{topic}");
        }
    }
}

#[test]
fn an_envelope_is_gone_when_its_number_is_released_though_no_rule_seals_any_more() {
    let stage = stage(Version::Five);
    let (mut client, mut server) = stage.joins(false, &[]);
    client.send(&message(Version::Five, 4, 7, "one"));
    gets(&mut server, "one");
    drop((client, server));
    let passes = "[[rule]]\ntopics = \"#\"\ndo = \"pass\"\n";
    assert_eq!(stage.rig.reload(passes, ""), Ok(vec![]));
    let (mut client, mut server) = stage.joins(true, &[]);
    client.send(&packet(0x62, &[0, 7]));
    assert_eq!(server.packet(), packet(0x62, &[0, 7]));
    assert_eq!(stage.toy.kept.len(), 0);
}

#[test]
fn what_is_another_message_is_sealed_anew() {
    let version = Version::Five;
    let stage = stage(version);
    let (mut client, mut server) = stage.joins(false, &[]);
    client.send(&message(version, 4, 7, "one"));
    gets(&mut server, "one");
    drop((client, server));
    let (mut client, mut server) = stage.joins(true, &[]);
    // It is as long, and does not say that it comes again.
    client.send(&message(version, 4, 7, "two"));
    let two = gets(&mut server, "two");
    client.send(&message(version, 4 | AGAIN, 7, "three"));
    gets(&mut server, "three");
    client.send(&message(version, 4, 7, "two"));
    assert_ne!(gets(&mut server, "two"), two);
    drop((client, server));
    // The broker knows nothing of the session any more.
    let (mut client, mut server) = stage.joins(false, &[]);
    client.send(&message(version, 4 | AGAIN, 7, "six"));
    gets(&mut server, "six");
    assert_eq!(stage.toy.kept.len(), 1);
}

#[test]
fn a_session_that_ends_with_its_connection_keeps_nothing() {
    for version in BOTH {
        let stage = stage(version);
        let (mut client, mut server) = stage.rig.join(&stage.broker, version);
        client.send(&message(version, 4, 7, "one"));
        gets(&mut server, "one");
        assert_eq!(stage.toy.kept.len(), 0);
    }
}

#[test]
fn nothing_leaves_that_would_not_be_the_same_if_it_came_again() {
    let version = Version::Five;
    let stage = stage(version);
    let (mut client, mut server) = stage.joins(false, &[]);
    client.send(&message(version, 4, 7, "one"));
    gets(&mut server, "one");
    stage.toy.kept.gets(Trouble::FailsOnce);
    client.send(&message(version, 4, 8, "two"));
    server.closed();
    assert_eq!(client.packet(), packet(0xe0, &[0x89]));
    assert_eq!(stage.rig.count(Refused, "toy.failed"), 1);
}

#[test]
fn what_is_on_its_way_to_the_broker_does_not_wait_and_goes_when_it_is_too_old() {
    let mut stage = stage(Version::Five);
    let (mut client, mut server) = stage.joins(false, &[]);
    client.send(&message(Version::Five, 4, 7, "one"));
    gets(&mut server, "one");
    drop((client, server));
    stage.begins_again();
    // Somebody comes, and it is looked at what is there.
    let (client, server) = stage.joins(false, &[]);
    drop((client, server));
    assert_eq!(stage.toy.kept.len(), 1);
    stage.toy.kept.ages(8);
    stage.begins_again();
    let (_client, _server) = stage.joins(false, &[]);
    assert_eq!(stage.toy.kept.len(), 0);
}

/// Mosquitto compares what has the same number, and has no answer for another message while it has as many as it takes.
#[test]
fn a_broker_that_compares_what_comes_again_answers_all_of_it() {
    const WINDOW: u16 = 8;
    let server = Server::start_with("allow_anonymous true\nmax_inflight_messages 10");
    let sealed = Some(AtomicU64::default());
    let toy = Arc::new(Toy {
        sealed,
        ..Toy::default()
    });
    let upstream = format!("mqtt://127.0.0.1:{}", server.port());
    for is_again in [false, true] {
        // Another proxy, as after one was killed.
        let rig = Rig::over(RULES, "", &upstream, Arc::clone(&toy));
        let mut client = rig.dial();
        let mut hello = connect(Version::Three, "gateway", &[], None);
        hello[9] &= !2;
        client.send(&hello);
        assert_eq!(client.packet(), packet(0x20, &[u8::from(is_again), 0]));
        let first = if is_again { 4 | AGAIN } else { 4 };
        for id in 1..=WINDOW {
            client.send(&message(Version::Three, first, id, "reading"));
        }
        for id in 1..=WINDOW {
            assert_eq!(client.packet(), packet(0x50, &id.to_be_bytes()));
        }
    }
}

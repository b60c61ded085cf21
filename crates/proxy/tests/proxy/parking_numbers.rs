//! What waited arrives once, whatever connection ends when, and holds nobody up by its number.

use std::sync::atomic::Ordering;

use sealcast_proxy::Exception::Dropped;

use crate::parking::{Stage, acknowledges, is_acknowledged};
use crate::rig::{BOTH, Peer, Version, packet, publish};

const TOP: u16 = u16::MAX;
const PINGRESP: [u8; 2] = [0xd0, 0];

fn clear(version: Version, first: u8, id: u16) -> Vec<u8> {
    publish(version, first, "clear/1", id, &[], b"clear")
}

/// A message of QoS 2 that waited, on its way with the highest number.
fn on_its_way(stage: &Stage, with: &[u8]) -> (Peer, Peer) {
    let (mut client, mut server) = stage.joins(false, with);
    server.send(&stage.lacks_key(4, 9, "one"));
    is_acknowledged(&mut server, 2, 9);
    stage.toy.gets_key("other");
    assert_eq!(client.packet(), stage.message(4, TOP, b"one"));
    (client, server)
}

/// A client that takes one message at a time, and a broker that has something for it, as after each time away.
#[test]
fn what_was_on_its_way_does_not_wait_behind_what_waits_for_it() {
    let stage = Stage::new(Version::Five);
    let one_at_a_time = [0x21, 0, 1];
    drop(on_its_way(&stage, &one_at_a_time));
    let (mut client, mut server) = stage.comes_back(&one_at_a_time);
    server.send(&clear(Version::Five, 2, 7));
    assert_eq!(client.packet(), stage.message(4 | 8, TOP, b"one"));
    acknowledges(&mut client, 2, TOP);
    assert_eq!(client.packet(), clear(Version::Five, 2, 7));
    client.send(&packet(0x40, &[0, 7]));
    assert_eq!(server.packet(), packet(0x40, &[0, 7]));
    server.send(&PINGRESP);
    stage.is_empty_in_the_end();
}

/// Nor does it get more at a time than it says now.
#[test]
fn a_client_that_takes_less_than_before_gets_what_was_on_its_way_one_by_one() {
    let stage = Stage::new(Version::Five);
    let (mut client, mut server) = stage.joins(false, &[0x21, 0, 4]);
    for (id, text) in [(9, "one"), (10, "two")] {
        server.send(&stage.lacks_key(4, id, text));
        is_acknowledged(&mut server, 2, id as u8);
    }
    stage.toy.gets_key("other");
    assert_eq!(client.packet(), stage.message(4, TOP, b"one"));
    assert_eq!(client.packet(), stage.message(4, TOP - 1, b"two"));
    drop((client, server));
    let (mut client, mut server) = stage.comes_back(&[0x21, 0, 1]);
    server.send(&[clear(Version::Five, 2, 7), PINGRESP.to_vec()].concat());
    assert_eq!(client.packet(), stage.message(4 | 8, TOP, b"one"));
    // What comes without a number needs no room.
    client.send(&packet(0xc0, &[]));
    assert_eq!(server.packet(), packet(0xc0, &[]));
    acknowledges(&mut client, 2, TOP);
    let next = [
        stage.message(4 | 8, TOP - 1, b"two"),
        clear(Version::Five, 2, 7),
    ];
    let came = client.packet();
    assert!(next.contains(&came), "{came:?}");
    if came == next[1] {
        client.send(&packet(0x40, &[0, 7]));
        assert_eq!(client.packet(), next[0]);
        acknowledges(&mut client, 2, TOP - 1);
    } else {
        acknowledges(&mut client, 2, TOP - 1);
        assert_eq!(client.packet(), next[1]);
    }
    stage.is_empty_in_the_end();
}

#[test]
fn a_broker_that_comes_to_a_number_that_is_on_its_way_waits_for_it() {
    for version in BOTH {
        let stage = Stage::new(version);
        drop(on_its_way(&stage, &[]));
        let (mut client, mut server) = stage.comes_back(&[]);
        server.send(&[clear(version, 2, TOP), PINGRESP.to_vec()].concat());
        assert_eq!(client.packet(), stage.message(4 | 8, TOP, b"one"));
        acknowledges(&mut client, 2, TOP);
        assert_eq!(client.packet(), clear(version, 2, TOP));
        client.send(&packet(0x40, &[0xff, 0xff]));
        assert_eq!(server.packet(), packet(0x40, &[0xff, 0xff]));
    }
}

#[test]
fn what_was_on_its_way_is_sent_again_once_it_can_be() {
    for version in BOTH {
        let stage = Stage::new(version);
        drop(on_its_way(&stage, &[]));
        stage.toy.goes_away(true);
        let (mut client, mut server) = stage.comes_back(&[]);
        server.send(&PINGRESP);
        server.send(&clear(version, 0, 0));
        assert_eq!(client.packet(), clear(version, 0, 0));
        stage.toy.goes_away(false);
        assert_eq!(client.packet(), stage.message(4 | 8, TOP, b"one"));
        acknowledges(&mut client, 2, TOP);
        stage.is_empty_in_the_end();
    }
}

/// A broker comes to it after some 65,000 messages.
#[test]
fn a_number_whose_message_cannot_be_sent_again_yet_holds_nobody_up() {
    for version in BOTH {
        for qos in [1, 2] {
            let stage = Stage::new(version);
            drop(on_its_way(&stage, &[]));
            stage.toy.goes_away(true);
            let (mut client, mut server) = stage.comes_back(&[]);
            let behind = clear(version, 0, 0);
            let two = stage.has_key(qos << 1, TOP, "two");
            server.send(&[&PINGRESP[..], &two, &behind].concat());
            assert_eq!(client.packet(), behind);
            let [high, low] = TOP.to_be_bytes();
            let kind = if qos == 1 { 0x40 } else { 0x50 };
            assert_eq!(server.packet(), packet(kind, &[high, low]));
            stage.toy.goes_away(false);
            assert_eq!(client.packet(), stage.message(4 | 8, TOP, b"one"));
            assert_eq!(client.packet(), stage.message(qos << 1, TOP - 1, b"two"));
            acknowledges(&mut client, 2, TOP);
            acknowledges(&mut client, qos, TOP - 1);
            if qos == 2 {
                server.send(&packet(0x62, &[high, low]));
                assert_eq!(server.packet(), packet(0x70, &[high, low]));
            }
            stage.is_empty_in_the_end();
        }
    }
}

/// Its number would mean another message to the proxy than to the client.
#[test]
fn what_a_client_may_have_is_not_thrown_away_for_its_age() {
    for days in [8, 12] {
        for version in BOTH {
            let mut stage = Stage::new(version);
            drop(on_its_way(&stage, &[]));
            stage.toy.kept.ages(days);
            stage.begins_again();
            let (mut client, mut server) = stage.comes_back(&[]);
            assert_eq!(client.packet(), stage.message(4 | 8, TOP, b"one"));
            server.send(&PINGRESP);
            acknowledges(&mut client, 2, TOP);
            stage.is_empty_in_the_end();
        }
    }
}

#[test]
fn what_a_client_may_have_and_cannot_get_again_is_brought_to_its_end() {
    for version in BOTH {
        let mut stage = Stage::new(version);
        drop(on_its_way(&stage, &[]));
        stage.begins_again();
        stage.toy.kept.2.loses.store(true, Ordering::Relaxed);
        let (mut client, mut server) = stage.comes_back(&[]);
        server.send(&PINGRESP);
        let release = packet(0x62, &TOP.to_be_bytes());
        assert_eq!(client.packet(), release);
        assert_eq!(stage.rig.count(Dropped, "proxy.park-lost"), 1);
        client.send(&packet(0x70, &TOP.to_be_bytes()));
        stage.is_empty_in_the_end();
    }
}

#[test]
fn the_end_of_what_was_acknowledged_before_a_kill_is_not_for_the_client() {
    for version in BOTH {
        let mut stage = Stage::new(version);
        let (client, mut server) = stage.joins(false, &[]);
        server.send(&stage.lacks_key(4, 9, "one"));
        assert_eq!(server.packet(), packet(0x50, &[0, 9]));
        drop((client, server));
        stage.begins_again();
        let (mut client, mut server) = stage.comes_back(&[]);
        server.send(&packet(0x62, &[0, 9]));
        assert_eq!(server.packet(), packet(0x70, &[0, 9]));
        server.send(&[PINGRESP.to_vec(), clear(version, 0, 0)].concat());
        assert_eq!(client.packet(), clear(version, 0, 0));
        stage.toy.gets_key("other");
        assert_eq!(client.packet(), stage.message(4, TOP, b"one"));
        acknowledges(&mut client, 2, TOP);
        stage.is_empty_in_the_end();
    }
}

//! What waits is safe with the store, which may fail, and with one connection at a time.

use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::{Duration, Instant};

use sealcast_proxy::Exception::{Dropped, Parked};

use crate::parking::{Stage, acknowledges, is_acknowledged};
use crate::rig::{BOTH, Version, WITHIN, connect, packet, publish, welcome};

const TOP: u16 = u16::MAX;
const PINGRESP: [u8; 2] = [0xd0, 0];

#[test]
fn nothing_leaves_for_which_something_has_to_be_durable_that_is_not() {
    for version in BOTH {
        for qos in [0, 2] {
            let stage = Stage::new(version);
            let (mut client, mut server) = stage.joins(false, &[]);
            server.send(&stage.lacks_key(qos << 1, 9, "one"));
            if qos == 2 {
                is_acknowledged(&mut server, 2, 9);
            }
            stage.rig.counts_in_the_end(Parked, "toy.not-opened", 1);
            // The removal of the broker's number is durable by now.
            let clear = publish(version, 0, "clear/1", 0, &[], b"clear");
            server.send(&clear);
            assert_eq!(client.packet(), clear);
            stage.toy.kept.gets(crate::toy::Trouble::FailsOnce);
            stage.toy.gets_key("other");
            client.closed();
            let (mut client, mut server) = stage.comes_back(&[]);
            server.send(&PINGRESP);
            let id = if qos == 2 { TOP } else { 0 };
            assert_eq!(client.packet(), stage.message(qos << 1, id, b"one"));
            if qos == 2 {
                acknowledges(&mut client, 2, TOP);
            }
            stage.is_empty_in_the_end();
        }
    }
}

#[test]
fn what_is_not_durable_is_not_acknowledged() {
    for version in BOTH {
        for qos in [1, 2] {
            let stage = Stage::new(version);
            let (mut client, mut server) = stage.joins(false, &[]);
            stage.toy.kept.gets(crate::toy::Trouble::FailsOnce);
            server.send(&stage.lacks_key(qos << 1, 9, "one"));
            server.is_over();
            client.is_cut_off();
            let (mut client, mut server) = stage.joins(true, &[]);
            server.send(&stage.lacks_key(qos << 1 | 8, 9, "one"));
            is_acknowledged(&mut server, qos, 9);
            stage.toy.gets_key("other");
            assert_eq!(client.packet(), stage.message(qos << 1, TOP, b"one"));
            acknowledges(&mut client, qos, TOP);
            stage.is_empty_in_the_end();
        }
    }
}

#[test]
fn what_is_lost_where_it_was_kept_is_told_and_keeps_nobody_out() {
    for version in BOTH {
        let stage = Stage::new(version);
        let (client, mut server) = stage.joins(false, &[]);
        server.send(&stage.lacks_key(2, 9, "one"));
        is_acknowledged(&mut server, 1, 9);
        drop((client, server));
        stage.toy.kept.2.loses.store(true, Ordering::Relaxed);
        let (_client, mut server) = stage.comes_back(&[]);
        server.send(&PINGRESP);
        stage.is_empty_in_the_end();
        assert_eq!(stage.rig.count(Dropped, "proxy.park-lost"), 1);
    }
}

#[test]
fn what_waits_for_a_session_that_is_over_is_thrown_away_though_nobody_comes_for_it() {
    for version in BOTH {
        let mut stage = Stage::new(version);
        // One of MQTT 5 lasts for a minute, and others for ever.
        let (client, mut server) = stage.joins(false, &[]);
        server.send(&stage.lacks_key(2, 9, "one"));
        is_acknowledged(&mut server, 1, 9);
        drop((client, server));
        if version == Version::Five {
            in_the_end(|| stage.toy.kept.is_left());
        }
        stage.begins_again();
        stage.rig.join_as(&stage.broker, version, "another");
        assert_eq!(stage.toy.kept.len(), 1);
        stage.toy.kept.ages(1);
        stage.begins_again();
        stage.rig.join_as(&stage.broker, version, "another");
        let is_over = version == Version::Five;
        assert_eq!(stage.toy.kept.is_empty(), is_over);
        let dropped = stage.rig.count(Dropped, "proxy.session-over");
        assert_eq!(dropped, u64::from(is_over));
    }
}

#[test]
fn a_client_that_ends_its_session_as_it_leaves_has_nothing_waiting() {
    let stage = Stage::new(Version::Five);
    let (mut client, mut server) = stage.joins(false, &[]);
    server.send(&stage.lacks_key(2, 9, "one"));
    is_acknowledged(&mut server, 1, 9);
    client.send(&packet(0xe0, &[0, 5, 0x11, 0, 0, 0, 0]));
    server.packet();
    drop((client, server));
    in_the_end(|| stage.toy.kept.is_empty());
}

/// For how long a session outlives its connection is for the broker to say.
#[test]
fn a_client_whose_broker_keeps_no_session_has_nothing_waiting() {
    for (said, is_kept) in [(0, false), (9, true)] {
        let stage = Stage::new(Version::Five);
        let mut client = stage.rig.dial();
        let mut hello = connect(Version::Five, "desk", &[0x11, 0, 0, 0, 60], None);
        hello[9] &= !2;
        client.send(&hello);
        let mut server = stage.broker.accept();
        server.packet();
        server.send(&welcome(Version::Five, &[0x11, 0, 0, 0, said]));
        client.packet();
        server.send(&stage.lacks_key(2, 9, "one"));
        is_acknowledged(&mut server, 1, 9);
        drop((client, server));
        in_the_end(|| stage.toy.kept.is_left() || stage.toy.kept.is_empty());
        assert_eq!(stage.toy.kept.len(), usize::from(is_kept));
    }
}

fn in_the_end(is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < WITHIN, "it never is so");
        sleep(Duration::from_millis(1));
    }
}

/// Of whom it was is not known, and nobody else goes without.
#[test]
fn a_damaged_label_is_counted_and_the_others_are_delivered() {
    for version in BOTH {
        let mut stage = Stage::new(version);
        let (client, mut server) = stage.joins(false, &[]);
        server.send(&stage.lacks_key(2, 9, "one"));
        is_acknowledged(&mut server, 1, 9);
        drop((client, server));
        stage.begins_again();
        stage.toy.kept.2.damaged.store(2, Ordering::Relaxed);
        stage.toy.gets_key("other");
        let (mut client, mut server) = stage.comes_back(&[]);
        server.send(&PINGRESP);
        assert_eq!(client.packet(), stage.message(2, TOP, b"one"));
        acknowledges(&mut client, 1, TOP);
        stage.is_empty_in_the_end();
        assert_eq!(stage.rig.count(Dropped, "proxy.park-lost"), 2);
    }
}

#[test]
fn a_broker_that_refuses_a_client_has_no_messages_for_it() {
    for version in BOTH {
        let stage = Stage::new(version);
        let mut client = stage.rig.dial();
        client.send(&connect(version, "desk", &[], None));
        let mut server = stage.broker.accept();
        server.packet();
        let mut refused = welcome(version, &[]);
        refused[3] = 5;
        server.send(&[refused.clone(), stage.lacks_key(2, 9, "one")].concat());
        assert_eq!(client.packet(), refused);
        client.closed();
        assert_eq!(stage.toy.kept.len(), 0);
    }
}

//! Packets that are there at the same time are dealt with at once, and as if one after another.

use std::sync::atomic::Ordering::Relaxed;

use sealcast_proxy::Exception::{Parked, Refused};

use crate::rig::{BOTH, Broker, Peer, RULES, Rig, Version, packet, publish, welcome};
use crate::toy::envelope;

/// Sends all that there is before any of it can be read: one write.
fn at_once(peer: &mut Peer, packets: &[Vec<u8>]) {
    peer.send(&packets.concat());
}

#[test]
fn what_comes_at_once_goes_on_in_its_order() {
    for version in BOTH {
        let (rig, mut client, mut server) = Rig::joined(version);
        let topics = ["plant/1", "clear/1", "gateway/1", "plant/2", "clear/2"];
        let sent = |id: u16| (topics[usize::from(id) % 5], format!("message {id}"));
        let burst: Vec<_> = (1..=400)
            .map(|id| publish(version, 2, sent(id).0, id, &[], sent(id).1.as_bytes()))
            .collect();
        at_once(&mut client, &burst);
        for id in 1..=400 {
            let (topic, text) = sent(id);
            let payload = match topic.starts_with("clear") {
                true => text.into_bytes(),
                false => envelope("boiler", topic, text.as_bytes()),
            };
            assert_eq!(
                server.packet(),
                publish(version, 2, topic, id, &[], &payload)
            );
        }
        assert_eq!((rig.counts.sealed(), rig.counts.passed()), (240, 160));
    }
}

#[test]
fn what_the_broker_sends_at_once_is_opened_at_once_and_delivered_in_its_order() {
    for version in BOTH {
        let (rig, mut client, mut server) = Rig::joined(version);
        let topics = ["plant/1", "late/1", "plant/2", "shown/3", "plant/3"];
        let sent = |id: u16| (topics[usize::from(id) % 5], format!("message {id}"));
        let of = |id: u16, payload: &[u8]| publish(version, 2, sent(id).0, id, &[], payload);
        let burst = (1..=400).map(|id| match id % 50 {
            7 => publish(version, 2, "clear/1", id, &[], b"in clear"),
            _ => of(id, &envelope("boiler", sent(id).0, sent(id).1.as_bytes())),
        });
        at_once(&mut server, &burst.collect::<Vec<_>>());
        for id in 1..=400 {
            let expected = match id % 50 {
                7 => publish(version, 2, "clear/1", id, &[], b"in clear"),
                _ => of(id, sent(id).1.as_bytes()),
            };
            assert_eq!(client.packet(), expected);
        }
        assert_eq!((rig.counts.opened(), rig.counts.passed()), (392, 8));
        let goes = rig.toy.at_once.lock().unwrap().clone();
        assert_eq!(goes.iter().sum::<usize>(), 392);
        assert!(goes.len() < 100, "opened one by one: {goes:?}");
    }
}

/// Each is judged as if it came by itself: what comes twice, lacks a key, is none or is of another stream.
#[test]
fn of_what_the_broker_sends_at_once_each_has_its_own_fate() {
    for version in BOTH {
        let (rig, mut client, mut server) = Rig::joined(version);
        rig.toy.remembers.store(true, Relaxed);
        let of = |topic: &str, id, payload: &[u8]| publish(version, 2, topic, id, &[], payload);
        let good = |topic: &str, id, text: &[u8]| of(topic, id, &envelope("boiler", topic, text));
        let lacks_key = envelope("other", "late/1", b"later");
        let burst = [
            good("late/1", 1, b"one"),
            good("late/1", 2, b"one"),
            of("late/1", 3, b"in clear"),
            of("late/1", 4, &lacks_key),
            of("late/1", 5, &lacks_key),
            good("plant/1", 6, b"two"),
            of("office/1", 7, b"no rule"),
            good("late/1", 8, b"three"),
        ];
        at_once(&mut server, &burst);
        for (topic, id, text) in [
            ("late/1", 1, &b"one"[..]),
            ("plant/1", 6, b"two"),
            ("late/1", 8, b"three"),
        ] {
            assert_eq!(client.packet(), of(topic, id, text));
        }
        for id in [2, 3, 4, 5, 7] {
            assert_eq!(server.packet(), packet(0x40, &[0, id]));
        }
        assert_eq!(rig.count(Parked, "toy.not-opened"), 1, "it waits once");
        rig.toy.gets_key("other");
        assert_eq!(client.packet(), of("late/1", u16::MAX, b"later"));
    }
}

/// One that cannot be sealed takes no other with it.
#[test]
fn of_what_comes_at_once_one_is_refused_and_the_others_go_on() {
    for version in BOTH {
        let (rig, mut client, mut server) = Rig::joined(version);
        rig.toy.fails_with(b"bad", "message.too-large", true);
        let of = |id, text: &[u8]| publish(version, 2, "plant/7", id, &[], text);
        let burst = [of(1, b"one"), of(2, b"bad"), of(3, b"three")];
        at_once(&mut client, &burst);
        for (id, text) in [(1, &b"one"[..]), (3, b"three")] {
            let sealed = envelope("boiler", "plant/7", text);
            assert_eq!(server.packet(), of(id, &sealed));
        }
        let answer: &[u8] = if version == Version::Five {
            &[0, 2, 0x87]
        } else {
            &[0, 2]
        };
        assert_eq!(client.packet(), packet(0x40, answer));
        assert_eq!(rig.count(Refused, "message.too-large"), 1);
    }
}

/// What comes before something malformed was said by a client that was well.
#[test]
fn what_came_before_something_malformed_goes_on() {
    for version in BOTH {
        let (_rig, mut client, mut server) = Rig::joined(version);
        let first = publish(version, 2, "clear/1", 1, &[], b"first");
        at_once(&mut client, &[first.clone(), packet(0x90, &[0, 1, 0])]);
        assert_eq!(server.packet(), first);
        server.closed();
    }
}

/// Fault 19: under a number that the broker takes for another topic, a message would be on that.
#[test]
fn a_number_stands_for_the_topic_that_was_said_last_before_each_message() {
    let version = Version::Five;
    let (rig, mut client, mut server) = Rig::joined(version);
    rig.toy.fails_with(b"bad", "message.too-large", true);
    let alias = &[0x23, 0, 1];
    let of = |topic: &str, text: &[u8]| publish(version, 0, topic, 0, alias, text);
    let burst = [
        of("plant/1", b"one"),
        of("", b"two"),
        of("plant/2", b"bad"),
        of("", b"three"),
        of("clear/1", b"four"),
        of("", b"five"),
    ];
    at_once(&mut client, &burst);
    let sealed = |topic: &str, text: &[u8]| envelope("boiler", topic, text);
    for expected in [
        of("plant/1", &sealed("plant/1", b"one")),
        of("", &sealed("plant/1", b"two")),
        of("plant/2", &sealed("plant/2", b"three")),
        of("clear/1", b"four"),
        of("", b"five"),
    ] {
        assert_eq!(server.packet(), expected);
    }
}

/// A client may send more before it knows whether it is let in, and is answered then.
#[test]
fn a_client_hears_first_whether_it_is_let_in() {
    let broker = Broker::new();
    let rig = Rig::new(RULES, broker.port());
    for version in BOTH {
        for is_let_in in [true, false] {
            let mut client = rig.dial();
            let refused = publish(version, 2, "office/1", 9, &[], b"in clear");
            let ping = packet(0xc0, &[]);
            let connect = crate::rig::connect(version, "client", &[], None);
            at_once(&mut client, &[connect, refused, ping.clone()]);
            let mut server = broker.accept();
            server.packet();
            assert_eq!(server.packet(), ping, "it was refused before");
            let answer: &[u8] = if version == Version::Five {
                &[0, 9, 0x87]
            } else {
                &[0, 9]
            };
            if is_let_in {
                server.send(&welcome(version, &[]));
                assert_eq!(client.packet(), welcome_of(version));
                assert_eq!(client.packet(), packet(0x40, answer));
                continue;
            }
            // What no client may say, before the broker has answered.
            client.send(&packet(0x90, &[0, 1, 0]));
            let turned_away: &[u8] = if version == Version::Five {
                &[0, 0x81, 0]
            } else {
                &[0, 3]
            };
            assert_eq!(client.packet(), packet(0x20, turned_away));
            client.closed();
        }
    }
}

/// As it is told: with the most bytes of a packet.
fn welcome_of(version: Version) -> Vec<u8> {
    let packet_max: u32 = (1 << 20) + (64 << 10) - 512;
    let with = [&[0x27][..], &packet_max.to_be_bytes()].concat();
    match version {
        Version::Three => welcome(version, &[]),
        Version::Five => welcome(version, &with),
    }
}

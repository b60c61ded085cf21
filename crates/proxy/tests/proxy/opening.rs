//! What the broker delivers is opened, where it can be.

use std::sync::atomic::Ordering::Relaxed;

use sealcast_proxy::Exception::{Dropped, Forwarded};

use crate::rig::{BOTH, Broker, RULES, Rig, Version, connect, field, packet, publish, welcome};
use crate::toy::{NEXT, envelope};

/// What is no envelope of the stream is plaintext, or as good as that: fault 7.
#[test]
fn what_cannot_be_opened_is_dropped_or_forwarded_as_the_rule_says() {
    for version in BOTH {
        let (rig, mut client, mut server) = Rig::joined(version);
        // Plaintext; what was sealed for another topic; what was sealed for another stream.
        for payload in [
            b"61.4 C".to_vec(),
            envelope("boiler", "plant/8", b"61.4 C"),
            envelope("other", "plant/7", b"61.4 C"),
        ] {
            server.send(&publish(version, 2, "plant/7", 9, &[], &payload));
            assert_eq!(server.packet(), packet(0x40, &[0, 9]), "it is acknowledged");
            server.send(&publish(version, 4, "plant/7", 9, &[], &payload));
            assert_eq!(server.packet(), packet(0x50, &[0, 9]));
            server.send(&packet(0x62, &[0, 9]));
            assert_eq!(server.packet(), packet(0x70, &[0, 9]));
        }
        // Forwarded is what lacks a key, and no plaintext.
        for payload in [b"61.4 C".to_vec(), envelope("boiler", "shown/8", b"61.4 C")] {
            server.send(&publish(version, 3, "shown/7", 9, &[], &payload));
            assert_eq!(server.packet(), packet(0x40, &[0, 9]));
        }
        let sealed = envelope("other", "shown/7", b"61.4 C");
        let forwarded = publish(version, 3, "shown/7", 9, &[], &sealed);
        server.send(&forwarded);
        assert_eq!(client.packet(), forwarded, "nothing came before");
        assert_eq!(rig.count(Dropped, "toy.not-opened"), 8);
        assert_eq!(rig.count(Forwarded, "toy.not-opened"), 1);
    }
}

/// What cannot be looked at now is not acknowledged: the broker sends it again.
#[test]
fn what_cannot_be_opened_now_is_not_acknowledged_and_other_topics_go_on() {
    for version in BOTH {
        let broker = Broker::new();
        let rig = Rig::new(RULES, broker.port());
        let (mut client, mut server) = rig.join(&broker, version);
        let sealed = envelope("boiler", "shown/7", b"61.4 C");
        rig.toy.goes_away(true);
        server.send(&publish(version, 0, "shown/7", 0, &[], &sealed));
        server.send(&publish(version, 2, "shown/7", 9, &[], &sealed));
        let other = publish(version, 2, "clear/7", 10, &[], b"other");
        server.send(&other);
        assert_eq!(client.packet(), other, "nothing came before");
        assert_eq!(rig.count(Dropped, "toy.not-opened"), 2);
        rig.toy.goes_away(false);
        server.closed();
        client.closed();
        let (mut client, mut server) = rig.join(&broker, version);
        server.send(&publish(version, 0x0a, "shown/7", 9, &[], &sealed));
        let opened = publish(version, 0x0a, "shown/7", 9, &[], b"61.4 C");
        assert_eq!(client.packet(), opened);
    }
}

/// Many records multiply what stands around them.
#[test]
fn records_that_would_take_many_times_the_room_of_a_packet_are_dropped() {
    let version = Version::Five;
    let broker = Broker::new();
    let upstream = format!("mqtt://127.0.0.1:{}", broker.port());
    let rig = Rig::with(RULES, "packet_max = \"128 KiB\"", &upstream);
    let (mut client, mut server) = rig.join(&broker, version);
    let property = [&[0x26, 0, 1, b'k', 0, 100][..], &[b'v'; 100]].concat();
    let with = |records: usize| {
        let records = vec![NEXT; records - 1];
        let sealed = envelope("boiler", "plant/7", &records);
        publish(version, 2, "plant/7", 9, &property, &sealed)
    };
    server.send(&with(6_000));
    assert_eq!(server.packet(), packet(0x40, &[0, 9]));
    assert_eq!(rig.count(Dropped, "proxy.too-large"), 1);
    server.send(&with(3_000));
    for _ in 0..2_999 {
        assert_eq!(
            client.packet(),
            publish(version, 0, "plant/7", 0, &property, b"")
        );
    }
    assert_eq!(
        client.packet(),
        publish(version, 2, "plant/7", 9, &property, b"")
    );
}

/// Fault 19: a client that is sent to another server would say there in clear what it has to say.
#[test]
fn no_broker_sends_a_client_of_the_proxy_elsewhere() {
    let version = Version::Five;
    let broker = Broker::new();
    let rig = Rig::new(RULES, broker.port());
    let elsewhere = b"\x07\x1c\x00\x04evil";
    for reason in [0x9c, 0x9d] {
        let mut client = rig.dial();
        client.send(&connect(version, "client", &[], None));
        let mut server = broker.accept();
        server.packet();
        server.send(&packet(0x20, &[&[0, reason][..], elsewhere].concat()));
        assert_eq!(client.packet(), packet(0x20, &[0, 0x88, 0]));
        let (mut client, mut server) = rig.join(&broker, version);
        server.send(&packet(0xe0, &[&[reason][..], elsewhere].concat()));
        assert_eq!(client.packet(), packet(0xe0, &[0x8b]));
    }
}

#[test]
fn an_envelope_of_several_records_becomes_as_many_messages_acknowledged_by_the_last() {
    for version in BOTH {
        let (rig, mut client, mut server) = Rig::joined(version);
        let records = [b"one", &[NEXT][..], b"two", &[NEXT], b"three"].concat();
        let sealed = envelope("boiler", "plant/7", &records);
        server.send(&publish(
            version,
            0x0b,
            "plant/7",
            9,
            &[3, 0, 1, b't'],
            &sealed,
        ));
        let with: &[u8] = &[3, 0, 1, b't'];
        assert_eq!(
            client.packet(),
            publish(version, 1, "plant/7", 0, with, b"one")
        );
        assert_eq!(
            client.packet(),
            publish(version, 1, "plant/7", 0, with, b"two")
        );
        assert_eq!(
            client.packet(),
            publish(version, 0x0b, "plant/7", 9, with, b"three")
        );
        assert_eq!(rig.counts.opened(), 1);
    }
}

#[test]
fn a_topic_alias_is_known_in_each_direction_also_where_the_message_that_said_it_was_held_back() {
    let version = Version::Five;
    let alias = |number: u8| [0x23, 0, number];
    let (rig, mut client, mut server) = Rig::joined(version);
    let sealed = |text: &[u8]| envelope("boiler", "plant/7", text);
    client.send(&publish(version, 0, "plant/7", 0, &alias(1), b"one"));
    assert_eq!(
        server.packet(),
        publish(version, 0, "plant/7", 0, &alias(1), &sealed(b"one"))
    );
    client.send(&publish(version, 0, "", 0, &alias(1), b"two"));
    assert_eq!(
        server.packet(),
        publish(version, 0, "", 0, &alias(1), &sealed(b"two"))
    );
    // No rule names it, by its name or by its number.
    client.send(&publish(version, 2, "office/1", 9, &alias(2), b"in clear"));
    client.send(&publish(version, 2, "", 10, &alias(2), b"in clear"));
    for id in [9, 10] {
        assert_eq!(client.packet(), packet(0x40, &[0, id, 0x87]));
    }
    // The broker is told when one goes on, and once.
    rig.toy.fails("bus.failed", false);
    client.send(&publish(version, 0, "plant/7", 0, &alias(3), b"lost"));
    client.send(&packet(0xc0, &[]));
    assert_eq!(server.packet(), packet(0xc0, &[]));
    *rig.toy.fault.lock().unwrap() = None;
    for topic in ["plant/7", ""] {
        client.send(&publish(version, 0, "", 0, &alias(3), b"three"));
        let three = publish(version, 0, topic, 0, &alias(3), &sealed(b"three"));
        assert_eq!(server.packet(), three);
    }
    // The other way.
    server.send(&publish(version, 0, "clear/1", 0, &alias(3), b"x"));
    assert_eq!(
        client.packet(),
        publish(version, 0, "clear/1", 0, &alias(3), b"x")
    );
    server.send(&publish(
        version,
        0,
        "plant/7",
        0,
        &alias(3),
        b"no envelope",
    ));
    for topic in ["plant/7", ""] {
        server.send(&publish(version, 0, "", 0, &alias(3), &sealed(b"four")));
        assert_eq!(
            client.packet(),
            publish(version, 0, topic, 0, &alias(3), b"four")
        );
    }
    // One that stands for nothing.
    client.send(&publish(version, 0, "", 0, &alias(7), b"x"));
    assert_eq!(client.packet(), packet(0xe0, &[0x82]));
    client.closed();
}

#[test]
fn what_is_too_large_for_the_client_is_not_delivered() {
    let version = Version::Five;
    let broker = Broker::new();
    let rig = Rig::new(RULES, broker.port());
    let mut client = rig.dial();
    client.send(&connect(version, "client", &[0x27, 0, 0, 1, 0], None));
    let mut server = broker.accept();
    server.packet();
    server.send(&welcome(version, &[]));
    client.packet();
    // Opened it fits; in clear it does not.
    let fits = vec![7; 256 - 20];
    server.send(&publish(
        version,
        0,
        "plant/7",
        0,
        &[],
        &envelope("boiler", "plant/7", &fits),
    ));
    assert_eq!(
        client.packet(),
        publish(version, 0, "plant/7", 0, &[], &fits)
    );
    server.send(&publish(version, 2, "clear/7", 9, &[], &[7; 256]));
    assert_eq!(server.packet(), packet(0x40, &[0, 9]));
    let too_large = envelope("boiler", "plant/7", &[7; 256]);
    server.send(&publish(version, 2, "plant/7", 10, &[], &too_large));
    assert_eq!(server.packet(), packet(0x40, &[0, 10]));
    assert_eq!(rig.count(Dropped, "proxy.too-large"), 2);
}

#[test]
fn topic_aliases_take_no_more_than_a_packet() {
    let version = Version::Five;
    let broker = Broker::new();
    let upstream = format!("mqtt://127.0.0.1:{}", broker.port());
    let rig = Rig::with(RULES, "packet_max = \"128 KiB\"", &upstream);
    let (mut client, mut server) = rig.join(&broker, version);
    let topic = |letter: &str| format!("clear/{}", letter.repeat(60_000));
    // One that is replaced takes no room.
    for letter in ["a", "b", "c"] {
        let message = publish(version, 0, &topic(letter), 0, &[0x23, 0, 1], b"x");
        client.send(&message);
        assert_eq!(server.packet(), message);
    }
    let second = publish(version, 0, &topic("d"), 0, &[0x23, 0, 2], b"x");
    client.send(&second);
    assert_eq!(server.packet(), second);
    client.send(&publish(version, 0, &topic("e"), 0, &[0x23, 0, 3], b"x"));
    assert_eq!(client.packet(), packet(0xe0, &[0x97]), "quota exceeded");
    client.closed();
}

/// As brokers may that send a message for each of a client's subscriptions.
#[test]
fn a_message_comes_as_often_as_there_are_subscriptions_for_it_and_no_more() {
    for version in BOTH {
        let (rig, mut client, mut server) = Rig::joined(version);
        rig.toy.remembers.store(true, Relaxed);
        let mut asks = vec![0, 1];
        asks.extend((version == Version::Five).then_some(0));
        for filter in ["plant/#", "plant/+"] {
            asks.extend([&field(filter.as_bytes())[..], &[1]].concat());
        }
        client.send(&packet(0x82, &asks));
        assert_eq!(server.packet(), packet(0x82, &asks));
        let sealed = envelope("boiler", "plant/7", b"61.4 C");
        let of = |id, payload: &[u8]| publish(version, 2, "plant/7", id, &[], payload);
        server.send(&[of(8, &sealed), of(9, &sealed), of(10, &sealed)].concat());
        assert_eq!(client.packet(), of(8, b"61.4 C"));
        assert_eq!(client.packet(), of(9, b"61.4 C"));
        assert_eq!(
            server.packet(),
            packet(0x40, &[0, 10]),
            "the third is a replay"
        );
        // It matches one of them alone.
        let sealed = envelope("boiler", "plant/7/8", b"61.9 C");
        let of = |id, payload: &[u8]| publish(version, 2, "plant/7/8", id, &[], payload);
        server.send(&[of(11, &sealed), of(12, &sealed)].concat());
        assert_eq!(client.packet(), of(11, b"61.9 C"));
        assert_eq!(server.packet(), packet(0x40, &[0, 12]));
    }
}

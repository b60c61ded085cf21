//! A will is a message that its client leaves at the broker when it connects.

use sealcast_proxy::Exception::Refused;

use crate::rig::{BOTH, Broker, RULES, Rig, Version, connect, packet};
use crate::toy::envelope;

#[test]
fn a_will_is_sealed_at_each_connect_and_keeps_the_rest() {
    let broker = Broker::new();
    let rig = Rig::new(RULES, broker.port());
    let own: &[u8] = &[0x27, 0, 0x11, 0, 0];
    for version in BOTH {
        for flags in [0, 0x08, 0x30] {
            // It said that it is text, with a delay.
            let with: &[u8] = &[0x18, 0, 0, 0, 1, 1, 1];
            let will = (flags, with, "plant/7/will", &b"went away"[..]);
            let mut client = rig.dial();
            client.send(&connect(version, "client", &[], Some(will)));
            let mut server = broker.accept();
            let sealed = envelope("boiler", "plant/7/will", b"went away");
            let will = (flags, &with[..5], "plant/7/will", &sealed[..]);
            assert_eq!(server.packet(), connect(version, "client", own, Some(will)));
        }
        for (topic, payload) in [("clear/1", &b"went away"[..]), ("plant/7", b"")] {
            let will = (0x28, &[1, 1][..], topic, payload);
            let mut client = rig.dial();
            client.send(&connect(version, "client", &[], Some(will)));
            let mut server = broker.accept();
            assert_eq!(server.packet(), connect(version, "client", own, Some(will)));
        }
    }
    assert_eq!(rig.counts.sealed(), 6);
}

#[test]
fn each_property_of_a_will_is_kept_but_what_is_said_of_its_format() {
    let broker = Broker::new();
    let rig = Rig::new(RULES, broker.port());
    let own: &[u8] = &[0x27, 0, 0x11, 0, 0];
    let properties: [&[u8]; 6] = [
        &[0x18, 0, 0, 0, 30],
        &[2, 0, 0, 14, 16],
        &[3, 0, 1, b't'],
        &[8, 0, 1, b'a'],
        &[9, 0, 2, 0, 0xff],
        &[0x26, 0, 1, b'z', 0, 1, b'1'],
    ];
    let all = properties.concat();
    let sealed = envelope("boiler", "plant/7/will", b"went away");
    for kept in properties.into_iter().chain([&all[..]]) {
        let said = [kept, &[1, 1]].concat();
        let mut client = rig.dial();
        let will = (0x28, &said[..], "plant/7/will", &b"went away"[..]);
        client.send(&connect(Version::Five, "client", &[], Some(will)));
        let will = (0x28, kept, "plant/7/will", &sealed[..]);
        let heard = connect(Version::Five, "client", own, Some(will));
        assert_eq!(broker.accept().packet(), heard);
    }
}

#[test]
fn fault_19_a_client_whose_will_cannot_be_sealed_is_not_let_in() {
    let broker = Broker::new();
    let rig = Rig::new(RULES, broker.port());
    let turned_away = |version, topic: &str, payload: &[u8], three: u8, five: u8| {
        let mut client = rig.dial();
        client.send(&connect(
            version,
            "client",
            &[],
            Some((0, &[], topic, payload)),
        ));
        let answer = match version {
            Version::Three => packet(0x20, &[0, three]),
            Version::Five => packet(0x20, &[0, five, 0]),
        };
        assert_eq!(client.packet(), answer, "{topic}");
        client.closed();
    };
    for version in BOTH {
        for topic in ["office/1", "shown/1"] {
            turned_away(version, topic, b"in clear", 5, 0x87);
        }
        turned_away(version, "plant/7", &[7; 65_400], 5, 0x87);
        rig.toy.fails("access.not-allowed", true);
        turned_away(version, "plant/7", b"in clear", 5, 0x87);
        rig.toy.fails("bus.failed", false);
        turned_away(version, "plant/7", b"in clear", 3, 0x88);
        *rig.toy.fault.lock().unwrap() = None;
    }
    for (code, count) in [
        ("proxy.no-rule", 2),
        ("proxy.open-only", 2),
        ("proxy.too-large", 2),
        ("access.not-allowed", 2),
        ("bus.failed", 2),
    ] {
        assert_eq!(rig.count(Refused, code), count, "{code}");
    }
    // Nobody was connected to the broker for any of them.
    let mut client = rig.dial();
    client.send(&connect(Version::Three, "the first", &[], None));
    assert_eq!(
        broker.accept().packet(),
        connect(Version::Three, "the first", &[], None)
    );
}

//! What no rule names, or cannot be sealed, does not reach the broker in any form: fault 19.

use sealcast_proxy::Exception::{Dropped, Refused};

use crate::rig::{BOTH, Broker, Peer, RULES, Rig, Version, packet, publish};
use crate::toy::envelope;

/// The acknowledgement of a message that was refused, for its QoS.
fn refusal(version: Version, qos: u8, id: u8, reason: u8) -> Vec<u8> {
    let first = if qos == 1 { 0x40 } else { 0x50 };
    match version {
        Version::Three => packet(first, &[0, id]),
        Version::Five => packet(first, &[0, id, reason]),
    }
}

/// What has come by the time something comes that is known to.
fn nothing_before(server: &mut Peer, client: &mut Peer) {
    let ping = packet(0xc0, &[]);
    client.send(&ping);
    assert_eq!(server.packet(), ping, "nothing went before");
}

#[test]
fn what_no_rule_names_is_refused_at_every_qos() {
    for version in BOTH {
        let (rig, mut client, mut server) = Rig::joined(version);
        for topic in ["office/1", "plants/7", "cleared/1", "$SYS/x"] {
            client.send(&publish(version, 0, topic, 0, &[], b"in clear"));
            for qos in [1, 2] {
                client.send(&publish(version, qos << 1, topic, 9, &[], b"in clear"));
                assert_eq!(client.packet(), refusal(version, qos, 9, 0x87));
            }
            if version == Version::Three {
                // It was told that all is well, and goes on so.
                client.send(&packet(0x62, &[0, 9]));
                assert_eq!(client.packet(), packet(0x70, &[0, 9]));
            }
        }
        nothing_before(&mut server, &mut client);
        assert_eq!(rig.count(Refused, "proxy.no-rule"), 12);
        assert_eq!(rig.counts.passed() + rig.counts.sealed(), 0);
    }
}

#[test]
fn a_topic_that_is_only_opened_takes_nothing_from_clients() {
    for version in BOTH {
        let (rig, mut client, mut server) = Rig::joined(version);
        for (first, payload) in [(2, &b"in clear"[..]), (3, b"")] {
            client.send(&publish(version, first, "shown/1", 9, &[], payload));
            assert_eq!(client.packet(), refusal(version, 1, 9, 0x87));
        }
        nothing_before(&mut server, &mut client);
        assert_eq!(rig.count(Refused, "proxy.open-only"), 2);
    }
}

#[test]
fn fault_19_what_will_never_be_sealed_is_refused_and_the_next_message_is_served() {
    for version in BOTH {
        let (rig, mut client, mut server) = Rig::joined(version);
        rig.toy.fails("access.not-allowed", true);
        client.send(&publish(version, 0, "plant/7", 0, &[], b"in clear"));
        for qos in [1, 2] {
            client.send(&publish(version, qos << 1, "plant/7", 9, &[], b"in clear"));
            assert_eq!(client.packet(), refusal(version, qos, 9, 0x87));
        }
        nothing_before(&mut server, &mut client);
        assert_eq!(rig.count(Refused, "access.not-allowed"), 3);
        *rig.toy.fault.lock().unwrap() = None;
        client.send(&publish(version, 4, "plant/7", 9, &[], b"sealed"));
        let sealed = envelope("boiler", "plant/7", b"sealed");
        assert_eq!(
            server.packet(),
            publish(version, 4, "plant/7", 9, &[], &sealed)
        );
        // The handshake is the broker's, though the relay finished one with that number before.
        for (theirs, ours) in [(0x50, 0x62), (0x70, 0xc0)] {
            server.send(&packet(theirs, &[0, 9]));
            assert_eq!(client.packet(), packet(theirs, &[0, 9]));
            let ours = packet(ours, if ours == 0xc0 { &[] } else { &[0, 9] });
            client.send(&ours);
            assert_eq!(server.packet(), ours);
        }
    }
}

/// The client has the message still, and sends it again over its next connection.
#[test]
fn fault_19_what_cannot_be_sealed_now_is_not_acknowledged_and_other_topics_go_on() {
    for version in BOTH {
        for qos in [1, 2] {
            let broker = Broker::new();
            let rig = Rig::new(RULES, broker.port());
            let (mut client, mut server) = rig.join(&broker, version);
            rig.toy.fails_with(b"first", "bus.failed", false);
            client.send(&publish(version, 0, "plant/7", 0, &[], b"first"));
            nothing_before(&mut server, &mut client);
            client.send(&publish(version, qos << 1, "plant/7", 9, &[], b"first"));
            rig.counts_in_the_end(Refused, "bus.failed", 2);
            // Another of the stream could be sealed, and would overtake it.
            client.send(&publish(version, qos << 1, "gateway/7", 10, &[], b"second"));
            let other = publish(version, qos << 1, "clear/7", 11, &[], b"other");
            client.send(&other);
            assert_eq!(server.packet(), other, "nothing went before");
            assert_eq!(rig.count(Refused, "proxy.withheld"), 1);
            // Once it can be sealed, the client is told to send it again.
            *rig.toy.fault.lock().unwrap() = None;
            if version == Version::Five {
                assert_eq!(client.packet(), packet(0xe0, &[0x89]), "busy");
            }
            client.closed();
            server.closed();
            let (mut client, mut server) = rig.join(&broker, version);
            let first = qos << 1 | 8;
            client.send(&publish(version, first, "plant/7", 9, &[], b"first"));
            let sealed = envelope("boiler", "plant/7", b"first");
            let sealed = publish(version, first, "plant/7", 9, &[], &sealed);
            assert_eq!(server.packet(), sealed);
        }
    }
}

#[test]
fn a_topic_that_no_envelope_can_have_is_refused() {
    let topic = format!("plant/{}", "x".repeat(1024));
    for version in BOTH {
        let (rig, mut client, mut server) = Rig::joined(version);
        client.send(&publish(version, 2, &topic, 9, &[], b"in clear"));
        assert_eq!(client.packet(), refusal(version, 1, 9, 0x87));
        client.send(&publish(version, 2, "plant/\u{7}", 9, &[], b"in clear"));
        assert_eq!(client.packet(), refusal(version, 1, 9, 0x87));
        nothing_before(&mut server, &mut client);
        assert_eq!(rig.count(Refused, "proxy.topic"), 2);
    }
}

#[test]
fn what_no_rule_names_is_not_delivered_and_its_broker_is_not_kept_waiting() {
    for version in BOTH {
        let (rig, mut client, mut server) = Rig::joined(version);
        server.send(&publish(version, 0, "office/1", 0, &[], b"whatever"));
        server.send(&publish(version, 2, "office/1", 9, &[], b"whatever"));
        assert_eq!(server.packet(), packet(0x40, &[0, 9]));
        server.send(&publish(version, 4, "office/1", 10, &[], b"whatever"));
        assert_eq!(server.packet(), packet(0x50, &[0, 10]));
        // Another handshake of the same kind is the client's.
        server.send(&packet(0x62, &[0, 11]));
        server.send(&packet(0x62, &[0, 10]));
        assert_eq!(server.packet(), packet(0x70, &[0, 10]));
        assert_eq!(client.packet(), packet(0x62, &[0, 11]));
        // Once is enough.
        server.send(&packet(0x62, &[0, 10]));
        assert_eq!(client.packet(), packet(0x62, &[0, 10]));
        assert_eq!(rig.count(Dropped, "proxy.no-rule"), 3);
    }
}

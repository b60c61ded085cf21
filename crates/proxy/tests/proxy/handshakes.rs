//! Acknowledgements stay between a client and its broker, whatever is held back between them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use sealcast_proxy::Exception::Dropped;

use crate::rig::{BOTH, Broker, RULES, Rig, connect, packet, publish, welcome};
use crate::toy::envelope;

/// A broker of MQTT 3.1.1 may do that.
#[test]
fn what_a_broker_sends_again_for_want_of_an_acknowledgement_is_delivered_again() {
    for version in BOTH {
        for qos in [1, 2] {
            let broker = Broker::new();
            let rig = Rig::new(RULES, broker.port());
            rig.toy.remembers.store(true, Ordering::Relaxed);
            let (mut client, mut server) = rig.join(&broker, version);
            let sealed = |text: &[u8]| envelope("boiler", "plant/7", text);
            let first = qos << 1;
            let of =
                |first, id, payload: &[u8]| publish(version, first, "plant/7", id, &[], payload);
            server.send(&of(first, 9, &sealed(b"61.4 C")));
            assert_eq!(client.packet(), of(first, 9, b"61.4 C"));
            for _ in 0..2 {
                server.send(&of(first | 8, 9, &sealed(b"61.4 C")));
                assert_eq!(client.packet(), of(first | 8, 9, b"61.4 C"));
            }
            // One that came over another number, or that was acknowledged, is a replay.
            server.send(&of(2 | 8, 10, &sealed(b"61.4 C")));
            assert_eq!(server.packet(), packet(0x40, &[0, 10]));
            let ends = if qos == 1 { 0x40 } else { 0x70 };
            client.send(&packet(ends, &[0, 9]));
            assert_eq!(server.packet(), packet(ends, &[0, 9]));
            server.send(&of(2 | 8, 9, &sealed(b"61.4 C")));
            assert_eq!(server.packet(), packet(0x40, &[0, 9]));
            assert_eq!(rig.count(Dropped, "toy.not-opened"), 2);
        }
    }
}

/// Else the receiver would take the next message with that number for the same.
#[test]
fn a_message_that_comes_again_and_is_held_back_gives_its_number_back_to_the_receiver() {
    for version in BOTH {
        let (_rig, mut client, mut server) = Rig::joined(version);
        client.send(&publish(version, 4 | 8, "office/1", 9, &[], b"in clear"));
        assert_eq!(
            client.packet(),
            packet(0x50, &[0, 9]),
            "as if all were well"
        );
        client.send(&packet(0x62, &[0, 9]));
        assert_eq!(server.packet(), packet(0x62, &[0, 9]));
        server.send(&publish(version, 4 | 8, "office/1", 9, &[], b"whatever"));
        assert_eq!(server.packet(), packet(0x50, &[0, 9]));
        server.send(&packet(0x62, &[0, 9]));
        assert_eq!(client.packet(), packet(0x62, &[0, 9]));
        // One that was held back here is known to nobody else.
        server.send(&publish(version, 4, "office/1", 10, &[], b"whatever"));
        server.send(&publish(version, 4 | 8, "office/1", 10, &[], b"whatever"));
        server.send(&packet(0x62, &[0, 10]));
        for _ in 0..2 {
            assert_eq!(server.packet(), packet(0x50, &[0, 10]));
        }
        assert_eq!(server.packet(), packet(0x70, &[0, 10]));
    }
}

/// It counts on its messages to say that it is there.
#[test]
fn to_its_broker_a_client_all_of_whose_messages_are_refused_is_there() {
    let broker = Broker::new();
    let rig = Rig::new(RULES, broker.port());
    for version in BOTH {
        let mut client = rig.dial();
        let mut connect = connect(version, "client", &[], None);
        // Within two seconds it has to be heard of.
        connect[11] = 2;
        client.send(&connect);
        let mut server = broker.accept();
        server.packet();
        server.send(&welcome(version, &[]));
        client.packet();
        let is_heard = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // No longer than whoever listens waits.
                for _ in (0..2_000).take_while(|_| !is_heard.load(Ordering::Relaxed)) {
                    client.send(&publish(version, 0, "office/1", 0, &[], b"in clear"));
                    sleep(Duration::from_millis(50));
                }
            });
            let heard = server.packet();
            is_heard.store(true, Ordering::Relaxed);
            assert_eq!(heard, packet(0xc0, &[]));
        });
        // It may have asked more than once.
        let message = publish(version, 0, "clear/1", 0, &[], b"x");
        client.send(&message);
        server.send(&packet(0xd0, &[]));
        while server.packet() != message {
            server.send(&packet(0xd0, &[]));
        }
        // The answers were for whoever asked.
        client.send(&packet(0xc0, &[]));
        assert_eq!(server.packet(), packet(0xc0, &[]));
        server.send(&message);
        server.send(&packet(0xd0, &[]));
        assert_eq!(client.packet(), message);
        assert_eq!(client.packet(), packet(0xd0, &[]));
    }
}

//! What need not be touched goes on byte for byte, in both directions.

use crate::rig::{BOTH, Broker, RULES, Rig, Version, connect, field, packet, publish, welcome};
use crate::toy::envelope;

/// The property of an announced most bytes of a packet.
fn packet_max(bytes: u32) -> Vec<u8> {
    [&[0x27], &bytes.to_be_bytes()[..]].concat()
}

#[test]
fn handshakes_and_all_that_is_no_message_pass_as_they_are() {
    for version in BOTH {
        let (_rig, mut client, mut server) = Rig::joined(version);
        // A subscription identifier, and a user property.
        let with: &[u8] = &[9, 0x0b, 0x05, 0x26, 0, 1, b'a', 0, 1, b'b'];
        let (with, none): (&[u8], &[u8]) = match version {
            Version::Three => (&[], &[]),
            Version::Five => (with, &[0]),
        };
        let subscribe = [&[0, 7], with, &field(b"$share/g/plant/+/t"), &[2]].concat();
        let unsubscribe = [&[0, 8], none, &field(b"a")].concat();
        for ours in [
            packet(0x82, &subscribe),
            packet(0x40, &[0, 9]),
            packet(0x50, &[0, 9]),
            packet(0x62, &[0, 9]),
            packet(0x70, &[0, 9]),
            packet(0xa2, &unsubscribe),
            packet(0xc0, &[]),
        ] {
            client.send(&ours);
            assert_eq!(server.packet(), ours);
        }
        for theirs in [
            packet(0x90, &[0, 7, 2]),
            packet(0x40, &[0, 9]),
            packet(0x50, &[0, 9]),
            packet(0x62, &[0, 9]),
            packet(0x70, &[0, 9]),
            packet(0xb0, &[0, 8]),
            packet(0xd0, &[]),
        ] {
            server.send(&theirs);
            assert_eq!(client.packet(), theirs);
        }
        client.send(&packet(0xe0, &[]));
        client.finish();
        assert_eq!(server.packet(), packet(0xe0, &[]));
        server.closed();
    }
}

#[test]
fn what_only_mqtt_5_has_passes_there() {
    let (_rig, mut client, mut server) = Rig::joined(Version::Five);
    let auth = packet(0xf0, &[0x18, 4, 0x15, 0, 1, b'x']);
    for of in [
        auth.clone(),
        packet(0x40, &[0, 9, 0x10, 0]),
        packet(0xe0, &[4, 5, 0x11, 0, 0, 0, 9]),
    ] {
        client.send(&of);
        assert_eq!(server.packet(), of);
    }
    let goodbye = packet(0xe0, &[0x8b, 0]);
    for of in [auth, goodbye] {
        server.send(&of);
        assert_eq!(client.packet(), of);
    }
}

#[test]
fn messages_that_rules_pass_go_on_as_they_are() {
    for version in BOTH {
        let (rig, mut client, mut server) = Rig::joined(version);
        // Content type, correlation data and user properties; in this order, twice the same.
        let with: &[u8] = &[
            0x26, 0, 1, b'z', 0, 1, b'1', 9, 0, 2, 7, 7, 0x26, 0, 1, b'z', 0, 1, b'1', 3, 0, 1,
            b't', 1, 1,
        ];
        for first in [0, 1, 2, 4, 0x0b, 0x0d] {
            let message = publish(version, first, "clear/1", 77, with, b"in clear");
            client.send(&message);
            assert_eq!(server.packet(), message);
            server.send(&message);
            assert_eq!(client.packet(), message);
        }
        // What is only sealed here comes back as it is.
        let message = publish(version, 2, "gateway/1", 5, with, b"whatever");
        server.send(&message);
        assert_eq!(client.packet(), message);
        assert_eq!(rig.counts.passed(), 13);
    }
}

#[test]
fn a_sealed_message_keeps_its_flags_number_and_properties() {
    for version in BOTH {
        let (rig, mut client, mut server) = Rig::joined(version);
        let before: &[u8] = &[0x26, 0, 1, b'z', 0, 1, b'1', 2, 0, 0, 0, 9];
        // It said that it is text.
        let with = [before, &[1, 1], before].concat();
        let without = [before, before].concat();
        for first in [0, 1, 2, 4, 0x0b, 0x0d] {
            client.send(&publish(version, first, "plant/7", 77, &with, b"61.4 C"));
            let sealed = envelope("boiler", "plant/7", b"61.4 C");
            assert_eq!(
                server.packet(),
                publish(version, first, "plant/7", 77, &without, &sealed)
            );
            server.send(&publish(version, first, "plant/7", 77, &with, &sealed));
            assert_eq!(
                client.packet(),
                publish(version, first, "plant/7", 77, &with, b"61.4 C")
            );
        }
        assert_eq!((rig.counts.sealed(), rig.counts.opened()), (6, 6));
    }
}

/// All that a publisher can say of a message, and what a broker adds for who receives it.
#[test]
fn each_property_of_a_message_is_kept_but_what_is_said_of_its_format() {
    let format: &[u8] = &[1, 1];
    let publishers: [&[u8]; 6] = [
        &[2, 0, 0, 14, 16],
        &[3, 0, 1, b't'],
        &[8, 0, 6, b'p', b'l', b'a', b'n', b't', b'/'],
        &[9, 0, 2, 0, 0xff],
        &[0x26, 0, 1, b'z', 0, 1, b'1'],
        &[0x26, 0, 1, b'z', 0, 0],
    ];
    let subscription: &[u8] = &[0x0b, 0x80, 0x02];
    let (_rig, mut client, mut server) = Rig::joined(Version::Five);
    let sealed = envelope("boiler", "plant/7", b"61.4 C");
    let message = |with: &[u8], bytes: &[u8]| publish(Version::Five, 2, "plant/7", 7, with, bytes);
    let all = publishers.concat();
    for with in publishers.into_iter().chain([&all[..]]) {
        client.send(&message(&[format, with].concat(), b"61.4 C"));
        assert_eq!(server.packet(), message(with, &sealed));
        for theirs in [with, &[with, subscription].concat()] {
            server.send(&message(theirs, &sealed));
            assert_eq!(client.packet(), message(theirs, b"61.4 C"));
        }
    }
}

#[test]
fn an_empty_retained_message_clears_in_clear_and_another_empty_one_is_sealed() {
    for version in BOTH {
        let (_rig, mut client, mut server) = Rig::joined(version);
        for first in [1, 3] {
            let clears = publish(version, first, "plant/7", 4, &[], b"");
            client.send(&clears);
            assert_eq!(server.packet(), clears);
            // Who is subscribed is told without the flag.
            let told = publish(version, first & 6, "plant/7", 4, &[], b"");
            server.send(&told);
            assert_eq!(client.packet(), told);
        }
        client.send(&publish(version, 2, "plant/7", 4, &[], b""));
        let sealed = envelope("boiler", "plant/7", b"");
        assert_eq!(
            server.packet(),
            publish(version, 2, "plant/7", 4, &[], &sealed)
        );
    }
}

#[test]
fn connect_and_its_answer_say_what_the_proxy_takes_and_else_what_they_said() {
    let broker = Broker::new();
    let rig = Rig::new(RULES, broker.port());
    let own = (1 << 20) + (64 << 10);
    for (says, heard) in [(None, own), (Some(4096), 4096 + 512), (Some(1 << 24), own)] {
        let says = says.map(packet_max).unwrap_or_default();
        // With what else a client may say there.
        let with = [&[0x11, 0, 0, 0, 9], &says[..], &[0x21, 0, 5, 0x22, 0, 9]].concat();
        let without: &[u8] = &[0x11, 0, 0, 0, 9, 0x21, 0, 5, 0x22, 0, 9];
        let mut client = rig.dial();
        client.send(&connect(Version::Five, "client", &with, None));
        let mut server = broker.accept();
        let with = [without, &packet_max(heard)].concat();
        assert_eq!(
            server.packet(),
            connect(Version::Five, "client", &with, None)
        );
    }
    for (says, heard) in [(None, own - 512), (Some(2048), 2048 - 512)] {
        let mut client = rig.dial();
        client.send(&connect(Version::Five, "client", &[], None));
        let mut server = broker.accept();
        server.packet();
        let says = says.map(packet_max).unwrap_or_default();
        server.send(&welcome(
            Version::Five,
            &[&[0x13, 0, 7], &says[..]].concat(),
        ));
        let heard = [&[0x13, 0, 7], &packet_max(heard)[..]].concat();
        assert_eq!(client.packet(), welcome(Version::Five, &heard));
    }
    let mut client = rig.dial();
    let connect = connect(Version::Three, "client", &[], None);
    client.send(&connect);
    let mut server = broker.accept();
    assert_eq!(server.packet(), connect);
    server.send(&welcome(Version::Three, &[]));
    assert_eq!(client.packet(), welcome(Version::Three, &[]));
}

/// Where a proxy takes whatever MQTT has, only what was said is less by what sealing adds.
#[test]
fn a_proxy_without_a_limit_of_its_own_says_none() {
    let broker = Broker::new();
    let upstream = format!("mqtt://127.0.0.1:{}", broker.port());
    let pass = "[[rule]]\ntopics = \"#\"\ndo = \"pass\"\n";
    for (rules, grows) in [(pass, 0), (RULES, 512)] {
        let rig = Rig::with(rules, "packet_max = \"256 MiB\"", &upstream);
        for says in [None, Some(2048)] {
            // There may be something behind it.
            let with = |heard: Option<u32>, is_last: bool| {
                let heard = heard.map(packet_max).unwrap_or_default();
                let other = [0x21, 0, 5];
                if is_last {
                    [&other, &heard[..]].concat()
                } else {
                    [&heard[..], &other].concat()
                }
            };
            let is_last = says.is_some() && grows > 0;
            let mut client = rig.dial();
            client.send(&connect(Version::Five, "client", &with(says, false), None));
            let mut server = broker.accept();
            let heard = with(says.map(|of| of + grows), is_last);
            assert_eq!(
                server.packet(),
                connect(Version::Five, "client", &heard, None)
            );
            server.send(&welcome(Version::Five, &with(says, false)));
            let heard = with(says.map(|of| of - grows), is_last);
            assert_eq!(client.packet(), welcome(Version::Five, &heard));
        }
    }
}

/// Where nothing is opened a broker is told what the client says, and knows what it sends.
#[test]
fn what_a_client_takes_is_held_against_what_comes_only_where_its_broker_was_told_of_more() {
    let broker = Broker::new();
    let pass = "[[rule]]\ntopics = \"#\"\ndo = \"pass\"\n";
    for (rules, is_passed) in [(pass, true), (RULES, false)] {
        let upstream = format!("mqtt://127.0.0.1:{}", broker.port());
        let rig = Rig::with(rules, "packet_max = \"256 MiB\"", &upstream);
        let join = || {
            let mut client = rig.dial();
            client.send(&connect(Version::Five, "client", &packet_max(64), None));
            let mut server = broker.accept();
            server.packet();
            (client, server)
        };
        let (mut client, mut server) = join();
        server.send(&welcome(Version::Five, &[]));
        client.packet();
        let large = publish(Version::Five, 2, "clear/1", 7, &[], &[b'x'; 64]);
        let small = publish(Version::Five, 2, "clear/1", 8, &[], b"small");
        server.send(&[&large[..], &small].concat());
        if is_passed {
            assert_eq!(client.packet(), large);
        }
        assert_eq!(client.packet(), small);
        let (mut client, mut server) = join();
        let name = field(&[b'n'; 64]);
        let large = welcome(Version::Five, &[&[0x12], &name[..]].concat());
        server.send(&large);
        match is_passed {
            true => assert_eq!(client.packet(), large),
            false => client.closed(),
        }
    }
}

#[test]
fn a_broker_that_lets_nobody_in_says_so_itself() {
    let broker = Broker::new();
    let rig = Rig::new(RULES, broker.port());
    for (version, says) in [
        (Version::Three, packet(0x20, &[0, 5])),
        (Version::Five, packet(0x20, &[0, 0x87, 4, 0x1f, 0, 1, b'n'])),
        // It knows nothing of MQTT 5.
        (Version::Five, packet(0x20, &[0, 1])),
    ] {
        let mut client = rig.dial();
        client.send(&connect(version, "client", &[], None));
        let mut server = broker.accept();
        server.packet();
        server.send(&says);
        drop(server);
        assert_eq!(client.packet(), says);
        client.closed();
    }
}

#[test]
fn what_a_broker_has_for_itself_passes_where_a_rule_says_so_by_name() {
    for version in BOTH {
        for (filter, passes) in [("$SYS/#", true), ("#", false)] {
            let broker = Broker::new();
            let rule = format!("[[rule]]\ntopics = \"{filter}\"\ndo = \"pass\"\n");
            let rig = Rig::new(&rule, broker.port());
            let (mut client, mut server) = rig.join(&broker, version);
            let load = publish(version, 2, "$SYS/broker/load", 9, &[], b"0.7");
            server.send(&load);
            match passes {
                true => assert_eq!(client.packet(), load),
                false => assert_eq!(server.packet(), packet(0x40, &[0, 9])),
            }
        }
    }
}

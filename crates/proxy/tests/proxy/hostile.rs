//! Clients and brokers that speak no MQTT, too much of it, or none: the connection ends, and others do not notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use sealcast_brokers::free_port;
use sealcast_proxy::Exception::Dropped;

use crate::rig::{
    BOTH, Broker, Peer, RULES, Rig, Version, WITHIN, connect, field, packet, publish, welcome,
};
use crate::toy::envelope;

/// A client that is served all the time.
struct Witness(Peer, Peer, u8);

impl Witness {
    fn new(rig: &Rig, broker: &Broker) -> Self {
        let (client, server) = rig.join_as(broker, Version::Five, "witness");
        Self(client, server, 0)
    }

    fn is_served(&mut self) {
        self.2 += 1;
        let message = publish(Version::Five, 0, "clear/1", 0, &[], &[self.2]);
        self.0.send(&message);
        assert_eq!(self.1.packet(), message);
        self.1.send(&message);
        assert_eq!(self.0.packet(), message);
    }
}

#[test]
fn who_does_not_begin_with_connect_is_not_let_in() {
    let broker = Broker::new();
    let rig = Rig::new(RULES, broker.port());
    let mut witness = Witness::new(&rig, &broker);
    let right = connect(Version::Five, "client", &[], None);
    let mut flags = right.clone();
    flags[0] |= 1;
    let mut reserved = right.clone();
    reserved[9] |= 1;
    let mut cut = right.clone();
    cut.truncate(right.len() - 3);
    cut[1] -= 3;
    let will = |flags| {
        connect(
            Version::Five,
            "client",
            &[],
            Some((flags, &[], "clear/1", b"x")),
        )
    };
    for bytes in [
        packet(0xc0, &[]),
        publish(Version::Five, 0, "clear/1", 0, &[], b"x"),
        b"GET / HTTP/1.1\r\nHost: broker.example\r\nUser-Agent: a browser, of any kind\r\n\r\n"
            .to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        vec![0x10, 0xff, 0xff, 0xff, 0xff, 0x01],
        packet(0x10, &field(b"MQTT")),
        packet(0x10, &[field(b"AMQP"), vec![4, 2, 0, 0, 0, 0]].concat()),
        flags,
        reserved,
        cut,
        will(0x18),
        connect(Version::Five, "client", &[0x7f], None),
        connect(
            Version::Five,
            "client",
            &[0x27, 0, 0, 1, 0, 0x27, 0, 0, 1, 0],
            None,
        ),
        // Its most bytes would be none.
        connect(Version::Five, "client", &[0x27, 0, 0, 0, 0], None),
    ] {
        let mut client = rig.dial();
        client.try_send(&bytes);
        client.closed();
        witness.is_served();
    }
    for level in [3, 6, 0x84] {
        let mut body = field(b"MQTT");
        body.extend([level, 2, 0, 0, 0, 0]);
        let mut client = rig.dial();
        client.send(&packet(0x10, &body));
        assert_eq!(client.packet(), packet(0x20, &[0, 1]), "another version");
        client.closed();
    }
}

#[test]
fn a_client_that_sends_what_no_client_may_is_told_why_and_disconnected() {
    let broker = Broker::new();
    let rig = Rig::new(RULES, broker.port());
    let mut witness = Witness::new(&rig, &broker);
    for version in BOTH {
        let p =
            |first, topic: &str, id, with: &[u8]| publish(version, first, topic, id, with, b"x");
        let mut cases = vec![
            (connect(version, "client", &[], None), 0x82),
            (packet(0x20, &[0, 0]), 0x81),
            (packet(0x90, &[0, 1, 0]), 0x81),
            (packet(0xd0, &[]), 0x81),
            (packet(0x00, &[]), 0x81),
            (packet(0x60, &[0, 1]), 0x81),
            (packet(0x80, &[0, 1]), 0x81),
            (packet(0xc1, &[]), 0x81),
            (vec![0x30, 0xff, 0xff, 0xff, 0xff, 0x01], 0x81),
            (p(6, "clear/1", 1, &[]), 0x81),
            (p(2, "clear/1", 0, &[]), 0x81),
            (p(0, "", 0, &[]), 0x81),
            (p(0, "clear/#", 0, &[]), 0x81),
            (p(0, "clear/+/x", 0, &[]), 0x81),
            (p(0, "clear/\0", 0, &[]), 0x81),
            (packet(0x30, &[0, 9, b'x']), 0x81),
            (packet(0x30, &[0, 2, 0xff, 0xfe, 0]), 0x81),
            // More than is taken: of a message and of anything else.
            (vec![0x30, 0xff, 0xff, 0xff, 0x7f], 0x95),
            (vec![0x82, 0xff, 0xff, 0xff, 0x7f], 0x95),
        ];
        match version {
            Version::Three => cases.push((packet(0xf0, &[]), 0x81)),
            Version::Five => cases.extend([
                (p(0, "clear/1", 0, &[0x23, 0, 0]), 0x81),
                (p(0, "clear/1", 0, &[0x23, 0, 1, 0x23, 0, 1]), 0x81),
                (p(0, "clear/1", 0, &[0x11, 0, 0, 0, 0]), 0x81),
                (p(0, "clear/1", 0, &[0x26, 0]), 0x81),
                (packet(0x30, &[0, 1, b'x', 9]), 0x81),
            ]),
        }
        for (bytes, reason) in cases {
            let (mut client, mut server) = rig.join(&broker, version);
            client.send(&bytes);
            if bytes.ends_with(&[0x7f]) && bytes[0] == 0x30 {
                // The start of it has to be there, with its number.
                client.try_send(&vec![0; 70_000]);
            }
            if version == Version::Five {
                assert_eq!(client.packet(), packet(0xe0, &[reason]), "{bytes:x?}");
            }
            client.closed();
            server.closed();
            witness.is_served();
        }
    }
}

#[test]
fn a_broker_that_sends_what_no_broker_may_is_left() {
    let broker = Broker::new();
    let rig = Rig::new(RULES, broker.port());
    let mut witness = Witness::new(&rig, &broker);
    for version in BOTH {
        for bytes in [
            packet(0xc0, &[]),
            welcome(version, &[]),
            packet(0x82, &[0, 1]),
            publish(version, 0, "", 0, &[], b"x"),
            vec![0x30, 0xff, 0xff, 0xff, 0xff, 0x01],
        ] {
            let (mut client, mut server) = rig.join(&broker, version);
            server.send(&bytes);
            client.closed();
            server.closed();
            witness.is_served();
        }
        // Something before it has let the client in.
        let mut client = rig.dial();
        client.send(&connect(version, "client", &[], None));
        let mut server = broker.accept();
        server.packet();
        server.send(&publish(version, 0, "clear/1", 0, &[], b"x"));
        client.closed();
    }
}

#[test]
fn a_message_of_a_broker_that_is_too_large_is_thrown_away_and_acknowledged() {
    let broker = Broker::new();
    let upstream = format!("mqtt://127.0.0.1:{}", broker.port());
    let rig = Rig::with(RULES, "packet_max = \"128 KiB\"", &upstream);
    for version in BOTH {
        let (mut client, mut server) = rig.join(&broker, version);
        let large = vec![7; 300 << 10];
        let small = publish(version, 0, "clear/1", 0, &[], b"small");
        for (qos, ack) in [(0, None), (1, Some(0x40)), (2, Some(0x50))] {
            server.send(&publish(version, qos << 1, "clear/1", 9, &[], &large));
            if let Some(ack) = ack {
                assert_eq!(server.packet(), packet(ack, &[0, 9]));
            }
            server.send(&small);
            assert_eq!(client.packet(), small, "what follows is delivered");
        }
        server.send(&packet(0x62, &[0, 9]));
        assert_eq!(server.packet(), packet(0x70, &[0, 9]));
    }
    assert_eq!(rig.count(Dropped, "proxy.too-large"), 6);
}

#[test]
fn who_is_slow_to_say_who_it_is_is_disconnected() {
    let broker = Broker::new();
    let upstream = format!("mqtt://127.0.0.1:{}", broker.port());
    let rig = Rig::with(
        RULES,
        "connect_timeout = \"200ms\"\nconnections_max = 3",
        &upstream,
    );
    let right = connect(Version::Five, "client", &[], None);
    for begun in [&[][..], &right[..1], &right[..right.len() - 1]] {
        let mut client = rig.dial();
        client.send(begun);
        client.closed();
    }
}

#[test]
fn more_clients_than_there_may_be_are_turned_away_until_one_goes() {
    let broker = Broker::new();
    let upstream = format!("mqtt://127.0.0.1:{}", broker.port());
    let rig = Rig::with(RULES, "connections_max = 2", &upstream);
    let (first, first_server) = rig.join(&broker, Version::Five);
    let _second = rig.join_as(&broker, Version::Three, "second");
    for _ in 0..3 {
        let mut client = rig.dial();
        client.try_send(&connect(Version::Five, "one too many", &[], None));
        client.closed();
    }
    drop((first, first_server));
    // Its place is free as soon as the proxy has noticed. Who is served is answered.
    let mut other_version = field(b"MQTT");
    other_version.extend([3, 2, 0, 0, 0, 0]);
    let answered = (0..6_000).any(|_| {
        let mut client = rig.dial();
        client.try_send(&packet(0x10, &other_version));
        let is_answered = client.next().is_some();
        if !is_answered {
            sleep(Duration::from_millis(10));
        }
        is_answered
    });
    assert!(answered, "there is a place again");
}

/// They come faster than the proxy loses patience with them.
#[test]
fn a_flood_from_one_address_leaves_places_for_others_and_those_who_are_there_alone() {
    let broker = Broker::new();
    let upstream = format!("mqtt://127.0.0.1:{}", broker.port());
    let more = "connections_max = 20\naddress_connections_max = 10";
    let rig = Rig::with(RULES, more, &upstream);
    let mut witness = Witness::new(&rig, &broker);
    // The witness and nine of them find a place, and hold it.
    let mut flood: Vec<_> = (0..100).map(|_| rig.dial()).collect();
    for client in flood.iter_mut().skip(9) {
        client.is_cut_off();
    }
    witness.is_served();
    let mut other = rig.dial_from([127, 0, 0, 2]);
    other.send(&connect(Version::Five, "other", &[], None));
    broker.accept().packet();
    witness.is_served();
}

#[test]
fn a_broker_that_does_not_say_whether_a_client_is_let_in_is_left_and_the_client_told() {
    let broker = Broker::new();
    let upstream = format!("mqtt://127.0.0.1:{}", broker.port());
    let rig = Rig::with(RULES, "connect_timeout = \"2s\"", &upstream);
    for (version, answer) in [
        (Version::Three, packet(0x20, &[0, 3])),
        (Version::Five, packet(0x20, &[0, 0x88, 0])),
    ] {
        let mut client = rig.dial();
        client.send(&connect(version, "client", &[], None));
        let mut server = broker.accept();
        server.packet();
        assert_eq!(client.packet(), answer);
        client.closed();
        server.closed();
    }
}

#[test]
fn nobody_is_served_when_the_broker_is_away() {
    let rig = Rig::new(RULES, free_port());
    for (version, answer) in [
        (Version::Three, packet(0x20, &[0, 3])),
        (Version::Five, packet(0x20, &[0, 0x88, 0])),
    ] {
        let mut client = rig.dial();
        client.send(&connect(version, "client", &[], None));
        assert_eq!(client.packet(), answer);
        client.closed();
    }
}

#[test]
fn a_client_that_is_gone_without_a_word_is_gone_for_its_broker() {
    for version in BOTH {
        let (_rig, client, mut server) = Rig::joined(version);
        drop(client);
        // Not a word of the proxy's: the broker publishes its will.
        server.closed();
        let (_rig, mut client, server) = Rig::joined(version);
        drop(server);
        client.closed();
    }
}

#[test]
fn a_proxy_that_is_told_to_end_says_so() {
    for version in BOTH {
        let (mut rig, mut client, mut server) = Rig::joined(version);
        let mut late = rig.dial();
        rig.stop();
        if version == Version::Five {
            assert_eq!(client.packet(), packet(0xe0, &[0x8b]));
        }
        client.closed();
        server.closed();
        late.closed();
        rig.ended();
    }
}

/// It has said by when it is to be heard of, or its broker has.
/// Else its broker may hear of the new connection before it has read what came over the former, and never read that.
#[test]
fn what_a_client_said_before_it_left_arrives_before_it_comes_again() {
    for version in BOTH {
        let (rig, broker) = {
            let broker = Broker::new();
            (Rig::new(RULES, broker.port()), broker)
        };
        let (mut client, mut server) = rig.join(&broker, version);
        let last = publish(version, 0, "clear/1", 0, &[], b"last words");
        client.send(&last);
        drop(client);
        let mut client = rig.dial();
        client.send(&connect(version, "client", &[], None));
        assert_eq!(server.packet(), last);
        server.closed();
        broker.accepts_nobody();
        drop(server);
        let mut server = broker.accept();
        server.packet();
        server.send(&welcome(version, &[]));
        client.packet();
    }
}

#[test]
fn a_client_that_is_silent_for_too_long_is_disconnected() {
    let broker = Broker::new();
    let rig = Rig::new(RULES, broker.port());
    let mut client = rig.dial();
    client.send(&connect(Version::Five, "client", &[], None));
    let mut server = broker.accept();
    server.packet();
    server.send(&welcome(Version::Five, &[0x13, 0, 1]));
    client.packet();
    assert_eq!(client.packet(), packet(0xe0, &[0x8d]), "keep alive timeout");
    client.closed();
    server.closed();
}

/// What the system waits for on the connection from one port of this machine to another: `02` is to look whether the other
/// end is there.
#[cfg(target_os = "linux")]
fn timer((from, to): (u16, u16)) -> Option<String> {
    let all = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let [from, to] = [from, to].map(|port| format!(":{port:04X}"));
    let mut lines = all
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line = lines.find(|of| of[1].ends_with(&from) && of[2].ends_with(&to))?;
    line[5].split(':').next().map(str::to_owned)
}

/// One that has lost its network, and need not be heard of by any time, would take its place for ever.
#[cfg(target_os = "linux")]
#[test]
fn the_system_looks_whether_who_says_nothing_is_there() {
    let broker = Broker::new();
    let rig = Rig::new(RULES, broker.port());
    let (client, server) = rig.join(&broker, Version::Five);
    for peer in [&client, &server] {
        let begun = Instant::now();
        // Before, what was said last is to be acknowledged.
        while timer(peer.ports()).as_deref() != Some("02") {
            assert!(begun.elapsed() < WITHIN, "{:?}", timer(peer.ports()));
            sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn a_client_that_reads_slowly_holds_up_its_broker_and_nobody_else() {
    const MESSAGES: usize = 1_000;
    let broker = Broker::new();
    let rig = Rig::new(RULES, broker.port());
    let mut witness = Witness::new(&rig, &broker);
    let (mut client, mut server) = rig.join(&broker, Version::Three);
    let message = |number: usize| {
        let payload = [&number.to_be_bytes()[..], &[7; 64 << 10]].concat();
        publish(Version::Three, 0, "clear/1", 0, &[], &payload)
    };
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let sends = std::thread::spawn(move || {
        for number in 0..MESSAGES {
            server.send(&message(number));
            counted.fetch_add(1, Ordering::Relaxed);
        }
        server
    });
    // Nobody reads, so at some point nothing more is taken.
    let mut before = usize::MAX;
    while sent.load(Ordering::Relaxed) != before {
        before = sent.load(Ordering::Relaxed);
        sleep(Duration::from_millis(500));
    }
    assert!(before < MESSAGES / 2, "{before} were taken");
    witness.is_served();
    for number in 0..MESSAGES {
        assert!(
            client.packet() == message(number),
            "message {number} is the next"
        );
    }
    drop(sends.join().unwrap());
    client.closed();
}

/// The same the other way round.
#[test]
fn a_broker_that_reads_slowly_holds_up_its_client_and_nobody_else() {
    const MESSAGES: usize = 1_000;
    let broker = Broker::new();
    let rig = Rig::new(RULES, broker.port());
    let mut witness = Witness::new(&rig, &broker);
    let (mut client, mut server) = rig.join(&broker, Version::Three);
    let message = |number: usize| {
        let payload = [&number.to_be_bytes()[..], &[7; 64 << 10]].concat();
        (
            payload.clone(),
            publish(Version::Three, 0, "gateway/1", 0, &[], &payload),
        )
    };
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let sends = std::thread::spawn(move || {
        for number in 0..MESSAGES {
            client.send(&message(number).1);
            counted.fetch_add(1, Ordering::Relaxed);
        }
        client
    });
    let mut before = usize::MAX;
    while sent.load(Ordering::Relaxed) != before {
        before = sent.load(Ordering::Relaxed);
        sleep(Duration::from_millis(500));
    }
    assert!(before < MESSAGES / 2, "{before} were taken");
    witness.is_served();
    for number in 0..MESSAGES {
        let sealed = envelope("boiler", "gateway/1", &message(number).0);
        let expected = publish(Version::Three, 0, "gateway/1", 0, &[], &sealed);
        assert!(server.packet() == expected, "message {number} is the next");
    }
    drop(sends.join().unwrap());
    server.closed();
}

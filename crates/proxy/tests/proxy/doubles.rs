//! Of QoS 1 little is doubled where a connection ends, and nothing that was not acknowledged is taken for a double.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sealcast_proxy::Exception::{Dropped, Refused};

use crate::clients::{dial, own, secured, tls};
use crate::parking::{Stage, is_acknowledged};
use crate::rig::{
    BOTH, Broker, Peer, RULES, Rig, Version, connect, field, packet, publish, welcome,
};
use crate::tls::fixture;
use crate::toy::{Toy, envelope, payload};

const AGAIN: u8 = 8;
const RETAINED: u8 = 1;

/// Seals so that no two messages become the same.
fn sealing(version: Version) -> Stage {
    let sealed = Some(AtomicU64::default());
    let toy = Toy {
        sealed,
        ..Toy::default()
    };
    Stage::over((version, ""), Arc::new(toy))
}

fn message(version: Version, first: u8, id: u16, text: &str) -> Vec<u8> {
    publish(version, first, "gateway/7", id, &[], text.as_bytes())
}

/// The envelope that the broker gets of a text.
fn gets(server: &mut Peer, text: &str) -> Vec<u8> {
    let packet = server.packet();
    let mut ends = (0..packet.len()).map(|from| &packet[from..]);
    let of_it = |of: &&[u8]| {
        payload("boiler", "gateway/7", of).is_some_and(|opened| opened == text.as_bytes())
    };
    ends.find(of_it).expect("it is that").to_vec()
}

#[test]
fn what_is_sent_again_is_the_same_envelope_until_its_broker_has_acknowledged_it() {
    for version in BOTH {
        let stage = sealing(version);
        let (mut client, mut server) = stage.joins(false, &[]);
        client.send(&message(version, 2, 7, "one"));
        client.send(&message(version, 2, 8, "two"));
        let (one, two) = (gets(&mut server, "one"), gets(&mut server, "two"));
        for _ in 0..2 {
            drop((client, server));
            (client, server) = stage.joins(true, &[]);
            client.send(&message(version, 2 | AGAIN, 7, "one"));
            client.send(&message(version, 2 | AGAIN, 8, "two"));
            assert_eq!(gets(&mut server, "one"), one);
            assert_eq!(gets(&mut server, "two"), two);
        }
        let acknowledged = packet(0x40, &[0, 7]);
        server.send(&acknowledged);
        assert_eq!(client.packet(), acknowledged);
        // From now on the number may be another message's.
        client.send(&message(version, 2 | AGAIN, 7, "one"));
        assert_ne!(gets(&mut server, "one"), one);
        client.send(&message(version, 2 | AGAIN, 8, "two"));
        assert_eq!(gets(&mut server, "two"), two);
    }
}

/// It would be lost.
#[test]
fn what_is_another_message_is_never_taken_for_one_that_comes_again() {
    for version in BOTH {
        let stage = sealing(version);
        let (mut client, mut server) = stage.joins(false, &[]);
        client.send(&message(version, 2, 7, "one"));
        let one = gets(&mut server, "one");
        // With the same number and topic, by a client that does not know any more what it said.
        client.send(&message(version, 2 | AGAIN, 7, "other"));
        gets(&mut server, "other");
        client.send(&message(version, 2 | AGAIN, 7, "one"));
        let mut last = gets(&mut server, "one");
        assert_ne!(last, one);
        // It is meant twice.
        client.send(&message(version, 2, 7, "one"));
        let third = gets(&mut server, "one");
        assert_ne!(third, std::mem::replace(&mut last, third.clone()));
        // What takes its number and is not sealed.
        client.send(&publish(version, 2, "clear/1", 7, &[], b"one"));
        server.packet();
        client.send(&message(version, 2 | AGAIN, 7, "one"));
        let fourth = gets(&mut server, "one");
        assert_ne!(fourth, last);
        client.send(&message(version, 2 | AGAIN, 7, "one"));
        assert_eq!(gets(&mut server, "one"), fourth, "it is remembered");
        // The broker knows nothing of the session any more.
        drop((client, server));
        let (mut client, mut server) = stage.joins(false, &[]);
        client.send(&message(version, 2 | AGAIN, 7, "one"));
        assert_ne!(gets(&mut server, "one"), fourth);
    }
}

/// Whoever has the client's name, and a broker that does not acknowledge, could see by the envelope whether it is right.
#[test]
fn a_guess_that_is_wrong_is_the_last() {
    for version in BOTH {
        let stage = sealing(version);
        let (mut client, mut server) = stage.joins(false, &[]);
        let mut sealed = Vec::new();
        for (id, text) in [(7, "one"), (8, "two")] {
            client.send(&message(version, 2, id, text));
            sealed.push(gets(&mut server, text));
        }
        drop((client, server));
        let (mut stranger, mut server) = stage.joins(true, &[]);
        stranger.send(&message(version, 2 | AGAIN, 7, "six"));
        gets(&mut server, "six");
        for (before, (id, text)) in sealed.iter().zip([(7, "one"), (8, "two")]) {
            stranger.send(&message(version, 2 | AGAIN, id, text));
            assert_ne!(gets(&mut server, text), *before);
        }
        // Nor of what comes later is anything said.
        let comes_again = |(mut client, mut server): (Peer, Peer)| {
            client.send(&message(version, 2, 9, "new"));
            let new = gets(&mut server, "new");
            client.send(&message(version, 2 | AGAIN, 9, "new"));
            gets(&mut server, "new") == new
        };
        drop((stranger, server));
        assert!(!comes_again(stage.joins(true, &[])));
        assert!(comes_again(stage.joins(false, &[])));
    }
}

#[test]
fn what_is_sent_again_from_another_address_is_sealed_anew() {
    for version in BOTH {
        let stage = sealing(version);
        let (mut client, mut server) = stage.joins(false, &[]);
        client.send(&message(version, 2, 7, "one"));
        let one = gets(&mut server, "one");
        drop((client, server));
        let elsewhere = stage.rig.dial_from([127, 0, 0, 2]);
        let (mut stranger, mut server) = stage.joins_by(elsewhere, true, &[]);
        stranger.send(&message(version, 2 | AGAIN, 7, "one"));
        assert_ne!(gets(&mut server, "one"), one);
        drop((stranger, server));
        // Nothing is left of it for who comes back.
        let (mut client, mut server) = stage.joins(true, &[]);
        client.send(&message(version, 2 | AGAIN, 7, "one"));
        assert_ne!(gets(&mut server, "one"), one);
    }
}

#[test]
fn with_a_certificate_it_does_not_matter_from_which_address() {
    let version = Version::Five;
    let more = format!("client_ca = \"{}\"", own("clients-ca.pem"));
    let broker = Broker::new();
    let upstream = format!("mqtt://127.0.0.1:{}", broker.port());
    let toy = Arc::new(Toy {
        sealed: Some(AtomicU64::default()),
        ..Toy::default()
    });
    let rules = format!("{}{RULES}", secured("mqtts", &more));
    let rig = Rig::over(&rules, "", &upstream, Arc::clone(&toy));
    let stage = Stage {
        broker,
        toy,
        rig,
        version,
    };
    let files = (own("client.pem"), own("client.key"));
    let sensor = tls(&fixture("ca.pem"), Some((&files.0, &files.1)));
    let by_certificate = || Peer::new(dial(stage.rig.ports[1], &sensor));
    let (mut client, mut server) = stage.joins_by(by_certificate(), false, &[]);
    client.send(&message(version, 2, 7, "one"));
    let one = gets(&mut server, "one");
    drop((client, server));
    let (mut client, mut server) = stage.joins_by(by_certificate(), true, &[]);
    client.send(&message(version, 2 | AGAIN, 7, "one"));
    assert_eq!(gets(&mut server, "one"), one);
    drop((client, server));
    // Its address is not enough.
    let (mut stranger, mut server) = stage.joins(true, &[]);
    stranger.send(&message(version, 2 | AGAIN, 7, "one"));
    assert_ne!(gets(&mut server, "one"), one);
}

/// Else who had it would not take it for what is retained now.
#[test]
fn what_is_retained_is_sealed_anew_when_it_is_sent_again() {
    for version in BOTH {
        let stage = sealing(version);
        let (mut client, mut server) = stage.joins(false, &[]);
        client.send(&message(version, 2 | RETAINED, 7, "one"));
        let one = gets(&mut server, "one");
        client.send(&message(version, 2 | AGAIN, 7, "one"));
        let plain = gets(&mut server, "one");
        assert_ne!(plain, one);
        client.send(&message(version, 2 | AGAIN | RETAINED, 7, "one"));
        assert_ne!(gets(&mut server, "one"), plain);
    }
}

/// It may be sent again with that number, and is not what had it before.
#[test]
fn what_is_held_back_for_now_takes_its_number() {
    for version in BOTH {
        for first in [2, 4] {
            let stage = sealing(version);
            let (mut client, mut server) = stage.joins(false, &[]);
            client.send(&message(version, first, 7, "one"));
            let one = gets(&mut server, "one");
            stage.rig.toy.fails_with(b"no", "bus.failed", false);
            client.send(&message(version, 2, 8, "no"));
            stage.rig.counts_in_the_end(Refused, "bus.failed", 1);
            // Nothing more of the stream goes on.
            client.send(&message(version, first, 7, "two"));
            stage.rig.counts_in_the_end(Refused, "proxy.withheld", 1);
            drop((client, server));
            *stage.rig.toy.fault.lock().unwrap() = None;
            let (mut client, mut server) = stage.joins(true, &[]);
            client.send(&message(version, first | AGAIN, 7, "one"));
            assert_ne!(gets(&mut server, "one"), one);
        }
    }
}

/// Client and user are what anybody may say.
#[test]
fn who_was_not_let_in_changes_nothing_of_what_is_on_its_way() {
    for version in BOTH {
        let stage = sealing(version);
        let (mut client, mut server) = stage.joins(false, &[]);
        client.send(&message(version, 2, 7, "one"));
        let one = gets(&mut server, "one");
        drop((client, server));
        let mut stranger = stage.rig.dial();
        let mut all = connect(version, "desk", &[0x11, 0, 0, 0, 60], None);
        all[9] &= !2;
        all.extend(message(version, 2, 7, "two"));
        stranger.send(&all);
        let mut server = stage.broker.accept();
        server.packet();
        let mut refused = welcome(version, &[]);
        refused[3] = if version == Version::Five { 0x86 } else { 4 };
        server.send(&refused);
        assert_eq!(stranger.packet(), refused);
        gets(&mut server, "two");
        drop((stranger, server));
        let (mut client, mut server) = stage.joins(true, &[]);
        client.send(&message(version, 2 | AGAIN, 7, "one"));
        assert_eq!(gets(&mut server, "one"), one);
    }
}

/// The broker is gone before it hears what the client says to its messages.
fn loses(mut client: Peer, server: Peer, says: &[Vec<u8>]) {
    drop(server);
    client.closed();
    for said in says {
        client.send(said);
    }
}

/// The next that the client gets is a message that comes after all that was sent to it.
fn gets_nothing_more(stage: &Stage, client: &mut Peer, server: &mut Peer) {
    server.send(&stage.has_key(0, 0, "last"));
    assert_eq!(client.packet(), stage.message(0, 0, b"last"));
}

#[test]
fn what_a_client_has_acknowledged_is_not_delivered_again() {
    for version in BOTH {
        let stage = Stage::new(version);
        let (mut client, mut server) = stage.joins(false, &[]);
        for (id, text) in [(7, "one"), (8, "two"), (9, "three")] {
            server.send(&stage.has_key(2, id, text));
            assert_eq!(client.packet(), stage.message(2, id, text.as_bytes()));
        }
        let (one, two) = (packet(0x40, &[0, 7]), packet(0x40, &[0, 8]));
        client.send(&one);
        assert_eq!(server.packet(), one);
        loses(client, server, &[two]);
        for again in [AGAIN, 0] {
            let (mut client, mut server) = stage.joins(true, &[]);
            // What the broker has heard of comes as well, since its publisher may have sent it again: then as a new one.
            let ids = if again == AGAIN { [8, 7] } else { [3, 4] };
            for (id, text) in ids.into_iter().zip(["two", "one"]) {
                server.send(&stage.has_key(2 | again, id, text));
                is_acknowledged(&mut server, 1, id as u8);
            }
            server.send(&stage.has_key(2 | AGAIN, 9, "three"));
            assert_eq!(client.packet(), stage.message(2 | AGAIN, 9, b"three"));
            gets_nothing_more(&stage, &mut client, &mut server);
        }
        assert_eq!(stage.rig.count(Dropped, "proxy.had"), 4);
    }
}

/// What has another envelope, is retained, or is for another session was not acknowledged, whatever is in it.
#[test]
fn what_was_not_acknowledged_is_delivered() {
    for version in BOTH {
        let stage = Stage::new(version);
        let (mut client, mut server) = stage.joins(false, &[]);
        server.send(&stage.has_key(2, 7, "one"));
        client.packet();
        loses(client, server, &[packet(0x40, &[0, 7])]);
        let (mut client, mut server) = stage.joins(true, &[]);
        let mut twin = envelope("boiler", "late/7", b"one");
        *twin.last_chunk_mut().unwrap() = 7_u64.to_be_bytes();
        server.send(&stage.message(2, 7, &twin));
        assert_eq!(client.packet(), stage.message(2, 7, b"one"));
        server.send(&stage.has_key(2 | RETAINED, 8, "one"));
        assert_eq!(client.packet(), stage.message(2 | RETAINED, 8, b"one"));
        let (mut other, mut others) = stage.rig.join_as(&stage.broker, version, "other");
        others.send(&stage.has_key(2, 7, "one"));
        assert_eq!(other.packet(), stage.message(2, 7, b"one"));
        drop((client, server));
        // The broker has a new session.
        let (mut client, mut server) = stage.joins(false, &[]);
        server.send(&stage.has_key(2, 7, "one"));
        assert_eq!(client.packet(), stage.message(2, 7, b"one"));
    }
}

#[test]
fn what_a_client_refused_or_has_not_released_comes_again() {
    let version = Version::Five;
    let stage = Stage::new(version);
    let (mut client, mut server) = stage.joins(false, &[]);
    server.send(&stage.has_key(2, 7, "one"));
    server.send(&stage.has_key(4, 8, "two"));
    server.send(&stage.has_key(4, 9, "three"));
    (0..3).for_each(|_| drop(client.packet()));
    let [received, released] = [0x50, 0x62].map(|kind| packet(kind, &[0, 9]));
    client.send(&received);
    assert_eq!(server.packet(), received);
    server.send(&released);
    assert_eq!(client.packet(), released);
    let says = [
        packet(0x40, &[0, 7, 0x97]),
        packet(0x50, &[0, 8]),
        packet(0x70, &[0, 9]),
    ];
    loses(client, server, &says);
    let (mut client, mut server) = stage.joins(true, &[]);
    server.send(&stage.has_key(2 | AGAIN, 7, "one"));
    assert_eq!(client.packet(), stage.message(2 | AGAIN, 7, b"one"));
    // A client may hand it on when the number is released.
    server.send(&stage.has_key(4, 3, "two"));
    assert_eq!(client.packet(), stage.message(4, 3, b"two"));
    // That was handed on.
    server.send(&stage.has_key(4, 5, "three"));
    is_acknowledged(&mut server, 2, 5);
    gets_nothing_more(&stage, &mut client, &mut server);
}

/// A broker may send one for each subscription, and has not heard of this one.
#[test]
fn what_comes_again_with_another_number_is_delivered() {
    for version in BOTH {
        for qos in [2, 4] {
            let stage = Stage::new(version);
            let (mut client, mut server) = stage.joins(false, &[]);
            server.send(&stage.has_key(qos, 7, "one"));
            assert_eq!(client.packet(), stage.message(qos, 7, b"one"));
            // The other is on its way.
            let acknowledged = packet(if qos == 2 { 0x40 } else { 0x70 }, &[0, 7]);
            loses(client, server, &[acknowledged]);
            let (mut client, mut server) = stage.joins(true, &[]);
            server.send(&stage.has_key(qos | AGAIN, 8, "one"));
            assert_eq!(client.packet(), stage.message(qos | AGAIN, 8, b"one"));
            server.send(&stage.has_key(2 | AGAIN, 7, "one"));
            is_acknowledged(&mut server, 1, 7);
            gets_nothing_more(&stage, &mut client, &mut server);
        }
    }
}

#[test]
fn a_message_comes_for_each_subscription_though_the_first_was_acknowledged() {
    for version in BOTH {
        let stage = Stage::new(version);
        let (mut client, mut server) = stage.joins(false, &[]);
        let mut body = vec![0, 1];
        body.extend((version == Version::Five).then_some(0));
        for filter in [&b"late/#"[..], b"late/7"] {
            body.extend(field(filter));
            body.push(1);
        }
        client.send(&packet(0x82, &body));
        server.packet();
        for id in [7, 8] {
            server.send(&stage.has_key(2, id, "one"));
            assert_eq!(client.packet(), stage.message(2, id, b"one"));
            let acknowledged = packet(0x40, &[0, id as u8]);
            client.send(&acknowledged);
            assert_eq!(server.packet(), acknowledged);
        }
        server.send(&stage.has_key(2, 9, "one"));
        is_acknowledged(&mut server, 1, 9);
        gets_nothing_more(&stage, &mut client, &mut server);
    }
}

/// Others stand in clear then.
#[test]
fn what_was_sealed_of_other_fields_does_not_go_out_again() {
    let rules = |field: &str| {
        format!(
            "[[rule]]\ntopics = \"gateway/#\"\nstream = \"boiler\"\ndo = \"seal\"\nfields = [\"{field}\"]\n"
        )
    };
    let shows =
        |packet: &[u8], text: &str| packet.windows(text.len()).any(|of| of == text.as_bytes());
    let text = r#"{"one": 1111, "two": 2222}"#;
    for qos in [2, 4] {
        let stage = sealing(Version::Five);
        assert_eq!(stage.rig.reload(&rules("/one"), ""), Ok(vec![]));
        let (mut client, mut server) = stage.joins(false, &[]);
        client.send(&message(Version::Five, qos, 7, text));
        let first = server.packet();
        assert!(shows(&first, "2222") && !shows(&first, "1111"));
        drop((client, server));
        assert_eq!(stage.rig.reload(&rules("/two"), ""), Ok(vec![]));
        let (mut client, mut server) = stage.joins(true, &[]);
        client.send(&message(Version::Five, qos | AGAIN, 7, text));
        let again = server.packet();
        assert!(shows(&again, "1111") && !shows(&again, "2222"));
    }
}

/// Nobody who reads the one that has the name now opens it.
#[test]
fn what_was_sealed_for_another_stream_of_that_name_does_not_go_out_again() {
    for (version, qos) in BOTH.into_iter().flat_map(|of| [(of, 2), (of, 4)]) {
        let stage = sealing(version);
        let (mut client, mut server) = stage.joins(false, &[]);
        client.send(&message(version, qos, 7, "one"));
        let one = gets(&mut server, "one");
        for (others, is_same) in [(0, true), (1, false)] {
            drop((client, server));
            stage.rig.toy.generation.store(others, Ordering::Relaxed);
            (client, server) = stage.joins(true, &[]);
            client.send(&message(version, qos | AGAIN, 7, "one"));
            assert_eq!(
                gets(&mut server, "one") == one,
                is_same,
                "{version:?} {qos}"
            );
        }
    }
}

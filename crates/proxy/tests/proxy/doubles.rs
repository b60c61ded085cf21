//! Of QoS 1 little is doubled where a connection ends, and nothing that was not acknowledged is taken for a double.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use sealcast_proxy::Exception::Dropped;

use crate::parking::{Stage, is_acknowledged};
use crate::rig::{BOTH, Peer, Version, connect, field, packet, publish, welcome};
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
        // As long, with the same number and topic, by a client that does not know any more what it said.
        client.send(&message(version, 2 | AGAIN, 7, "two"));
        gets(&mut server, "two");
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
        assert_ne!(gets(&mut server, "one"), last);
        // The broker knows nothing of the session any more.
        client.send(&message(version, 2, 9, "nine"));
        let nine = gets(&mut server, "nine");
        drop((client, server));
        let (mut client, mut server) = stage.joins(false, &[]);
        client.send(&message(version, 2 | AGAIN, 9, "nine"));
        assert_ne!(gets(&mut server, "nine"), nine);
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
            // With other numbers, as mosquitto does after it was restarted; what the broker has heard of comes again as
            // well, since its publisher may have sent it again.
            for (id, text) in [(3, "two"), (4, "one")] {
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

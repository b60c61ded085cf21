//! What waits is delivered in its order, and what came before is not.

use std::sync::atomic::Ordering;

use sealcast_proxy::Exception::Dropped;

use crate::parking::{Stage, acknowledges, is_acknowledged};
use crate::rig::{BOTH, RULES, packet, publish};

const TOP: u16 = u16::MAX;
const PINGRESP: [u8; 2] = [0xd0, 0];

#[test]
fn what_opens_does_not_overtake_what_opens_by_the_key_that_just_came() {
    for version in BOTH {
        let stage = Stage::new(version);
        let (mut client, mut server) = stage.joins(false, &[]);
        *stage.toy.brings.lock().unwrap() = Some("other");
        let sent = [
            stage.lacks_key(0, 0, "one"),
            stage.lacks_key(0, 0, "two"),
            stage.has_key(0, 0, "three"),
            stage.has_key(0, 0, "four"),
        ];
        server.send(&sent.concat());
        for text in ["one", "two", "three", "four"] {
            let came = client.packet();
            let expected = stage.message(0, 0, text.as_bytes());
            assert_eq!(came, expected, "{text}");
        }
        stage.is_empty_in_the_end();
    }
}

#[test]
fn what_came_before_does_not_wait_behind_others() {
    for version in BOTH {
        let stage = Stage::new(version);
        stage.toy.remembers.store(true, Ordering::Relaxed);
        let (client, mut server) = stage.joins(false, &[]);
        server.send(&stage.lacks_key(2, 9, "one"));
        is_acknowledged(&mut server, 1, 9);
        drop((client, server));
        let (mut client, mut server) = stage.comes_back(&[]);
        for (id, old) in [
            (10, stage.has_key(2, 10, "old two")),
            (11, stage.lacks_key(2, 11, "old three")),
        ] {
            server.send(&old);
            is_acknowledged(&mut server, 1, id);
        }
        assert_eq!(stage.rig.count(Dropped, "toy.not-opened"), 2);
        server.send(&PINGRESP);
        stage.toy.gets_key("other");
        assert_eq!(client.packet(), stage.message(2, TOP, b"one"));
        acknowledges(&mut client, 1, TOP);
        stage.is_empty_in_the_end();
    }
}

#[test]
fn what_could_not_be_looked_at_is_no_news_if_it_is_old() {
    for version in BOTH {
        let stage = Stage::new(version);
        stage.toy.remembers.store(true, Ordering::Relaxed);
        stage.toy.goes_away(true);
        let (mut client, mut server) = stage.joins(false, &[]);
        server.send(&stage.has_key(2, 9, "old one"));
        is_acknowledged(&mut server, 1, 9);
        server.send(&stage.has_key(2, 10, "two"));
        is_acknowledged(&mut server, 1, 10);
        stage.toy.goes_away(false);
        assert_eq!(client.packet(), stage.message(2, TOP, b"two"));
        acknowledges(&mut client, 1, TOP);
        stage.is_empty_in_the_end();
        assert_eq!(stage.rig.count(Dropped, "toy.not-opened"), 1);
    }
}

/// The same envelope, whatever stands around it.
#[test]
fn with_fields_a_message_waits_once_however_often_it_comes() {
    let fields = format!(
        "{}\n[[rule]]\ntopics = \"json/#\"\nstream = \"boiler\"\nfields = [\"/temp\"]\ndo = \"both\"\n",
        RULES
    );
    for version in BOTH {
        let stage = Stage::new(version);
        assert_eq!(stage.rig.reload(&fields, ""), Ok(vec![]));
        let (_client, mut server) = stage.joins(false, &[]);
        let sealed = crate::toy::envelope("other", "json/1", b"{\"/temp\":21}");
        let sealed = base64(&sealed);
        for id in 1..=3_u16 {
            let json = format!("{{\"id\":{id},\"temp\":\"{sealed}\"}}");
            server.send(&publish(version, 2, "json/1", id, &[], json.as_bytes()));
            is_acknowledged(&mut server, 1, id as u8);
        }
        assert_eq!(stage.toy.kept.len(), 1);
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// The client may have it already, so that it keeps its number.
#[test]
fn what_comes_again_does_not_overtake_what_waits() {
    for version in BOTH {
        let stage = Stage::new(version);
        let (client, mut server) = stage.joins(false, &[]);
        stage.toy.goes_away(true);
        for (id, text) in [(9, "one"), (10, "two")] {
            server.send(&stage.has_key(4, id, text));
            is_acknowledged(&mut server, 2, id as u8);
        }
        drop((client, server));
        let (mut client, mut server) = stage.comes_back(&[]);
        stage.toy.goes_away(false);
        server.send(&stage.has_key(4 | 8, 11, "three"));
        server.send(&stage.has_key(4, 12, "four"));
        is_acknowledged(&mut server, 2, 12);
        server.send(&PINGRESP);
        for (first, id, text) in [
            (4, TOP, "one"),
            (4, TOP - 1, "two"),
            (4 | 8, 11, "three"),
            (4, TOP - 2, "four"),
        ] {
            assert_eq!(client.packet(), stage.message(first, id, text.as_bytes()));
        }
        for id in [TOP, TOP - 1, TOP - 2] {
            acknowledges(&mut client, 2, id);
        }
        client.send(&packet(0x50, &[0, 11]));
        assert_eq!(server.packet(), packet(0x50, &[0, 11]));
        stage.is_empty_in_the_end();
    }
}

#[test]
fn what_finds_no_room_before_the_broker_has_answered_keeps_its_place() {
    for version in BOTH {
        let stage = Stage::with(version, "park_messages_max = 4");
        let (client, mut server) = stage.joins(false, &[]);
        for (id, text) in [(9, "one"), (10, "two")] {
            server.send(&stage.lacks_key(2, id, text));
            is_acknowledged(&mut server, 1, id as u8);
        }
        drop((client, server));
        let (mut client, mut server) = stage.comes_back(&[]);
        stage.toy.gets_key("other");
        server.send(&stage.has_key(2, 11, "three"));
        server.send(&PINGRESP);
        for (id, text) in [(TOP, "one"), (TOP - 1, "two"), (11, "three")] {
            assert_eq!(client.packet(), stage.message(2, id, text.as_bytes()));
        }
        for id in [TOP, TOP - 1] {
            acknowledges(&mut client, 1, id);
        }
        client.send(&packet(0x40, &[0, 11]));
        assert_eq!(server.packet(), packet(0x40, &[0, 11]));
        assert_eq!(stage.rig.count(Dropped, "proxy.park-full"), 0);
        stage.is_empty_in_the_end();
    }
}

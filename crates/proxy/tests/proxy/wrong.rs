//! What waits arrives once and in order also where something goes wrong at the wrong time.

use std::sync::atomic::Ordering::Relaxed;

use sealcast_proxy::Exception::{Dropped, Parked};

use crate::parking::{Stage, acknowledges, is_acknowledged};
use crate::rig::{BOTH, Peer, RULES, Version, connect, packet, publish, welcome};
use crate::toy::{Trouble, envelope};

const PING: [u8; 2] = [0xc0, 0];
const PONG: [u8; 2] = [0xd0, 0];

impl Stage {
    /// Sent by somebody whose key is here.
    fn opens(&self, first: u8, id: u16, text: &str) -> Vec<u8> {
        let sealed = envelope("boiler", "late/7", text.as_bytes());
        self.message(first, id, &sealed)
    }

    /// A client that comes again and of whose messages something waits, with what is said of it.
    fn comes_again(&self, with: &[u8]) -> (Peer, Peer) {
        let (client, mut server) = self.joins(true, with);
        assert_eq!(server.packet(), PING);
        (client, server)
    }

    /// A message of QoS 2 was sent with a number of the proxy's, and the connection ended before it was acknowledged.
    fn with_one_sent(version: Version) -> Self {
        let stage = Self::new(version);
        let (mut client, mut server) = stage.joins(false, &[]);
        server.send(&stage.lacks_key(4, 9, "one"));
        is_acknowledged(&mut server, 2, 9);
        stage.toy.gets_key("other");
        assert_eq!(client.packet(), stage.message(4, u16::MAX, b"one"));
        drop((client, server));
        stage
    }
}

/// The client may have it, and knows it by the broker's number.
#[test]
fn what_went_on_and_was_not_acknowledged_comes_again_with_its_number_and_not_twice() {
    for version in BOTH {
        let stage = Stage::new(version);
        let (mut client, mut server) = stage.joins(false, &[]);
        server.send(&stage.lacks_key(2, 8, "waits"));
        is_acknowledged(&mut server, 1, 8);
        server.send(&stage.opens(4, 9, "one"));
        assert_eq!(client.packet(), stage.message(4, 9, b"one"));
        drop((client, server));
        let (mut client, mut server) = stage.comes_again(&[]);
        server.send(&stage.opens(4 | 8, 9, "one"));
        server.send(&PONG);
        assert_eq!(client.packet(), stage.message(4 | 8, 9, b"one"));
        stage.toy.gets_key("other");
        assert_eq!(client.packet(), stage.message(2, u16::MAX, b"waits"));
        client.send(&packet(0x50, &[0, 9]));
        assert_eq!(server.packet(), packet(0x50, &[0, 9]));
        drop((client, server));
        // It cannot be looked at: it stays with the broker.
        stage.toy.goes_away(true);
        let (mut client, mut server) = stage.comes_again(&[]);
        server.send(&stage.opens(4 | 8, 10, "two"));
        server.send(&PONG);
        let clear = publish(version, 0, "clear/1", 0, &[], b"clear");
        server.send(&clear);
        assert_eq!(client.packet(), clear);
        stage.rig.counts_in_the_end(Dropped, "toy.not-opened", 1);
        assert_eq!(stage.toy.kept.len(), 1, "nothing new waits");
        stage.toy.goes_away(false);
        server.closed();
    }
}

/// What comes before the broker's answer waits for a number that is given back only when something was sent.
#[test]
fn what_has_to_wait_before_the_broker_has_answered_does_not_wait_for_ever() {
    for version in BOTH {
        let stage = Stage::with_one_sent(version);
        // It takes one at a time.
        let (mut client, mut server) = stage.comes_again(&[0x21, 0, 1]);
        let taken = publish(version, 2, "clear/1", u16::MAX, &[], b"has that number");
        let other = publish(version, 2, "clear/1", 7, &[], b"has not");
        server.send(&[&taken[..], &other, &PONG].concat());
        assert_eq!(client.packet(), stage.message(4 | 8, u16::MAX, b"one"));
        acknowledges(&mut client, 2, u16::MAX);
        for (message, id) in [(taken, u16::MAX), (other, 7)] {
            assert_eq!(client.packet(), message);
            client.send(&packet(0x40, &id.to_be_bytes()));
        }
        stage.is_empty_in_the_end();
    }
}

#[test]
fn what_was_on_its_way_and_cannot_be_looked_at_is_sent_when_it_can() {
    for version in BOTH {
        let stage = Stage::with_one_sent(version);
        stage.toy.goes_away(true);
        let (mut client, mut server) = stage.comes_again(&[]);
        server.send(&PONG);
        let clear = publish(version, 0, "clear/1", 0, &[], b"clear");
        server.send(&clear);
        assert_eq!(client.packet(), clear, "nothing came before");
        stage.toy.goes_away(false);
        assert_eq!(client.packet(), stage.message(4 | 8, u16::MAX, b"one"));
        acknowledges(&mut client, 2, u16::MAX);
        stage.is_empty_in_the_end();
    }
}

/// Else the client takes the next message with its number for it, and drops that.
#[test]
fn what_was_sent_and_cannot_be_again_gives_its_number_back() {
    for version in BOTH {
        let stage = Stage::with_one_sent(version);
        let gone = RULES.replace("late/#", "gone/#");
        assert_eq!(stage.rig.reload(&gone, ""), Ok(vec![]));
        let (mut client, mut server) = stage.comes_again(&[]);
        server.send(&PONG);
        assert_eq!(client.packet(), packet(0x62, &[0xff, 0xff]));
        assert_eq!(stage.rig.count(Dropped, "proxy.no-rule"), 1);
        drop((client, server));
        // The client has not heard it.
        let (mut client, mut server) = stage.comes_again(&[]);
        server.send(&PONG);
        assert_eq!(client.packet(), packet(0x62, &[0xff, 0xff]));
        client.send(&packet(0x70, &[0xff, 0xff]));
        stage.is_empty_in_the_end();
    }
}

#[test]
fn what_is_not_durable_is_not_sent() {
    for version in BOTH {
        let stage = Stage::new(version);
        let (mut client, mut server) = stage.joins(false, &[]);
        server.send(&stage.lacks_key(4, 9, "one"));
        is_acknowledged(&mut server, 2, 9);
        stage.toy.kept.gets(Trouble::FailsOnce);
        stage.toy.gets_key("other");
        client.closed();
        let (mut client, mut server) = stage.comes_again(&[]);
        server.send(&PONG);
        // For the first time.
        assert_eq!(client.packet(), stage.message(4, u16::MAX, b"one"));
        acknowledges(&mut client, 2, u16::MAX);
        stage.is_empty_in_the_end();
    }
}

#[test]
fn where_what_waits_is_damaged_clients_are_served_and_nothing_is_lost() {
    for version in BOTH {
        let stage = Stage::new(version);
        stage.toy.kept.gets(Trouble::Damaged);
        let (mut client, mut server) = stage.joins(true, &[]);
        server.send(&stage.lacks_key(2, 9, "one"));
        server.send(&stage.opens(2, 10, "two"));
        assert_eq!(client.packet(), stage.message(2, 10, b"two"));
        client.send(&packet(0x40, &[0, 10]));
        assert_eq!(
            server.packet(),
            packet(0x40, &[0, 10]),
            "9 is not acknowledged"
        );
        stage.toy.kept.gets(Trouble::None);
        // It may open now: the broker is to send it again.
        stage.toy.gets_key("other");
        server.closed();
    }
}

/// It was not judged when it came: the bus was away.
#[test]
fn what_waited_unjudged_is_opened_as_what_comes_anew_and_once() {
    for version in BOTH {
        let stage = Stage::new(version);
        stage.toy.remembers.store(true, Relaxed);
        let (mut client, mut server) = stage.joins(false, &[]);
        server.send(&stage.opens(2, 9, "one"));
        assert_eq!(client.packet(), stage.message(2, 9, b"one"));
        client.send(&packet(0x40, &[0, 9]));
        is_acknowledged(&mut server, 1, 9);
        stage.toy.goes_away(true);
        for (id, text) in [(10, "one"), (11, "two")] {
            server.send(&stage.opens(2, id, text));
            is_acknowledged(&mut server, 1, id as u8);
        }
        stage.toy.goes_away(false);
        assert_eq!(
            client.packet(),
            stage.message(2, u16::MAX, b"two"),
            "a replay came before"
        );
        acknowledges(&mut client, 1, u16::MAX);
        stage.is_empty_in_the_end();
        server.send(&stage.opens(2, 12, "two"));
        server.send(&stage.opens(2, 13, "three"));
        assert_eq!(
            client.packet(),
            stage.message(2, 13, b"three"),
            "it came late"
        );
    }
}

/// The message that brings the key, or comes with it, does not overtake those that waited for it.
#[test]
fn what_waits_goes_before_what_brings_its_key() {
    for version in BOTH {
        let stage = Stage::new(version);
        let (mut client, mut server) = stage.joins(false, &[]);
        *stage.toy.brings.lock().unwrap() = Some("other");
        let burst = [
            stage.lacks_key(2, 9, "one"),
            stage.lacks_key(2, 10, "two"),
            stage.opens(2, 11, "three"),
            stage.opens(2, 12, "four"),
        ];
        server.send(&burst.concat());
        for id in 9..=12 {
            is_acknowledged(&mut server, 1, id);
        }
        for (at, text) in ["one", "two", "three", "four"].into_iter().enumerate() {
            let id = u16::MAX - at as u16;
            assert_eq!(client.packet(), stage.message(2, id, text.as_bytes()));
            acknowledges(&mut client, 1, id);
        }
        stage.is_empty_in_the_end();
    }
}

#[test]
fn what_opens_and_finds_no_room_behind_others_waits_with_the_broker() {
    let stage = Stage::with(Version::Five, "park_messages_max = 4");
    // One of the proxy's at a time.
    let (mut client, mut server) = stage.joins(false, &[0x21, 0, 2]);
    for (id, text) in [(9, "one"), (10, "two")] {
        server.send(&stage.lacks_key(2, id, text));
        is_acknowledged(&mut server, 1, id as u8);
    }
    stage.toy.gets_key("other");
    assert_eq!(client.packet(), stage.message(2, u16::MAX, b"one"));
    let more: Vec<_> = (11..=14)
        .map(|id| stage.opens(0, id, &format!("message {id}")))
        .collect();
    server.send(&more.concat());
    acknowledges(&mut client, 1, u16::MAX);
    assert_eq!(client.packet(), stage.message(2, u16::MAX - 1, b"two"));
    acknowledges(&mut client, 1, u16::MAX - 1);
    for id in 11..=14 {
        let text = format!("message {id}");
        assert_eq!(client.packet(), stage.message(0, 0, text.as_bytes()));
    }
    assert_eq!(stage.rig.count(Dropped, "proxy.park-full"), 0);
    stage.is_empty_in_the_end();
}

/// Before the broker has said what it sends again there is no room to be had, and of QoS 0 the broker has nothing more.
#[test]
fn what_needs_no_acknowledgement_is_not_lost_for_want_of_room() {
    for version in BOTH {
        let stage = Stage::with(version, "park_messages_max = 4");
        let (client, mut server) = stage.joins(false, &[]);
        for (id, text) in [(9, "one"), (10, "two")] {
            server.send(&stage.lacks_key(2, id, text));
            is_acknowledged(&mut server, 1, id as u8);
        }
        drop((client, server));
        stage.toy.gets_key("other");
        let (mut client, mut server) = stage.comes_again(&[]);
        server.send(&stage.opens(0, 0, "three"));
        assert_eq!(client.packet(), stage.message(0, 0, b"three"));
        server.send(&PONG);
        for (at, text) in ["one", "two"].into_iter().enumerate() {
            let id = u16::MAX - at as u16;
            assert_eq!(client.packet(), stage.message(2, id, text.as_bytes()));
            acknowledges(&mut client, 1, id);
        }
        stage.is_empty_in_the_end();
        assert_eq!(stage.rig.count(Dropped, "proxy.park-full"), 0);
    }
}

#[test]
fn what_cannot_be_looked_at_and_finds_no_room_stays_with_the_broker() {
    for version in BOTH {
        let stage = Stage::with(version, "park_messages_max = 4");
        let (_client, mut server) = stage.joins(false, &[]);
        stage.toy.goes_away(true);
        // Of what may be anybody's, one client may have a quarter.
        server.send(&stage.opens(2, 9, "one"));
        is_acknowledged(&mut server, 1, 9);
        server.send(&stage.opens(2, 10, "two"));
        stage.rig.counts_in_the_end(Dropped, "toy.not-opened", 1);
        assert_eq!(stage.rig.count(Parked, "toy.not-opened"), 1);
        stage.toy.goes_away(false);
        server.closed();
    }
}

/// Also where the former connection does not notice that it is dead.
#[test]
fn a_client_that_comes_again_has_the_former_connection_leave() {
    for version in BOTH {
        let stage = Stage::new(version);
        let (mut former, mut its) = stage.joins(false, &[]);
        its.send(&stage.lacks_key(2, 9, "one"));
        is_acknowledged(&mut its, 1, 9);
        let (mut client, mut server) = stage.comes_again(&[]);
        former.is_cut_off();
        its.closed();
        server.send(&PONG);
        stage.toy.gets_key("other");
        assert_eq!(client.packet(), stage.message(2, u16::MAX, b"one"));
        acknowledges(&mut client, 1, u16::MAX);
        stage.is_empty_in_the_end();
    }
}

/// The client knows nothing of that number.
#[test]
fn what_was_held_back_is_ended_with_its_broker_over_another_connection() {
    for version in BOTH {
        let mut stage = Stage::new(version);
        let (client, mut server) = stage.joins(false, &[]);
        server.send(&stage.lacks_key(4, 9, "one"));
        assert_eq!(server.packet(), packet(0x50, &[0, 9]));
        drop((client, server));
        stage.begins_again();
        let (mut client, mut server) = stage.comes_again(&[]);
        server.send(&packet(0x62, &[0, 9]));
        assert_eq!(server.packet(), packet(0x70, &[0, 9]));
        server.send(&PONG);
        stage.toy.gets_key("other");
        assert_eq!(client.packet(), stage.message(4, u16::MAX, b"one"));
    }
}

#[test]
fn no_more_is_sent_again_than_the_client_takes_now() {
    let stage = Stage::new(Version::Five);
    let (mut client, mut server) = stage.joins(false, &[]);
    for (id, text) in [(9, "one"), (10, "two")] {
        server.send(&stage.lacks_key(4, id, text));
        is_acknowledged(&mut server, 2, id as u8);
    }
    stage.toy.gets_key("other");
    let sent = |first, at: u16, text: &[u8]| stage.message(first, u16::MAX - at, text);
    assert_eq!(client.packet(), sent(4, 0, b"one"));
    assert_eq!(client.packet(), sent(4, 1, b"two"));
    drop((client, server));
    let (mut client, mut server) = stage.comes_again(&[0x21, 0, 1]);
    server.send(&PONG);
    assert_eq!(client.packet(), sent(4 | 8, 0, b"one"));
    // Nothing comes before that is acknowledged.
    client.send(&PING);
    assert_eq!(server.packet(), PING);
    server.send(&PONG);
    assert_eq!(client.packet(), PONG);
    acknowledges(&mut client, 2, u16::MAX);
    assert_eq!(client.packet(), sent(4 | 8, 1, b"two"));
    acknowledges(&mut client, 2, u16::MAX - 1);
    stage.is_empty_in_the_end();
}

/// By a slip in the config file, say.
#[test]
fn what_does_not_open_by_other_rules_waits_for_those_by_which_it_does() {
    for version in BOTH {
        let stage = Stage::new(version);
        let (mut client, mut server) = stage.joins(false, &[]);
        server.send(&stage.lacks_key(2, 9, "one"));
        is_acknowledged(&mut server, 1, 9);
        let late = "topics = \"late/#\"\n";
        let with_fields = RULES.replace(late, &format!("{late}fields = [\"/temp\"]\n"));
        assert_ne!(with_fields, RULES);
        assert_eq!(stage.rig.reload(&with_fields, ""), Ok(vec![]));
        stage.toy.gets_key("other");
        drop((client, server));
        // By then it was looked at by those.
        let (other, mut its) = stage.comes_again(&[]);
        its.send(&PONG);
        its.send(&stage.opens(2, 10, "by the wrong rules"));
        stage.rig.counts_in_the_end(Dropped, "json.malformed", 1);
        drop((other, its));
        assert_eq!(stage.toy.kept.len(), 1);
        assert_eq!(stage.rig.reload(RULES, ""), Ok(vec![]));
        (client, server) = stage.comes_again(&[]);
        server.send(&PONG);
        assert_eq!(client.packet(), stage.message(2, u16::MAX, b"one"));
    }
}

#[test]
fn a_broker_that_sends_messages_to_a_client_it_does_not_let_in_is_left() {
    for version in BOTH {
        let stage = Stage::new(version);
        let mut client = stage.rig.dial();
        client.send(&connect(version, "client", &[], None));
        let mut server = stage.broker.accept();
        server.packet();
        let mut refused = welcome(version, &[]);
        refused[3] = 5;
        server.send(&refused);
        assert_eq!(client.packet(), refused);
        server.send(&stage.lacks_key(2, 9, "one"));
        server.closed();
        client.closed();
        assert_eq!(stage.toy.kept.len(), 0);
    }
}

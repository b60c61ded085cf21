//! What lacks a key waits for it, and nobody waits for that.

use std::sync::Arc;

use sealcast_proxy::Exception::{Dropped, Parked};

use crate::rig::{BOTH, Broker, Peer, RULES, Rig, Version, connect, packet, publish, welcome};
use crate::toy::{Toy, envelope};

/// A broker that is played, and proxies before it that keep in one place.
pub(crate) struct Stage {
    pub(crate) broker: Broker,
    pub(crate) toy: Arc<Toy>,
    pub(crate) rig: Rig,
    pub(crate) version: Version,
}

impl Stage {
    pub(crate) fn new(version: Version) -> Self {
        Self::with(version, "")
    }

    pub(crate) fn with(version: Version, more: &str) -> Self {
        Self::over((version, more), Arc::default())
    }

    /// The same over what seals and opens, and keeps.
    pub(crate) fn over((version, more): (Version, &str), toy: Arc<Toy>) -> Self {
        let broker = Broker::new();
        let upstream = format!("mqtt://127.0.0.1:{}", broker.port());
        let rig = Rig::over(RULES, more, &upstream, Arc::clone(&toy));
        Self {
            broker,
            toy,
            rig,
            version,
        }
    }

    /// Another proxy, as after one was killed.
    pub(crate) fn begins_again(&mut self) {
        let upstream = format!("mqtt://127.0.0.1:{}", self.broker.port());
        self.rig = Rig::over(RULES, "", &upstream, Arc::clone(&self.toy));
    }

    /// A client whose session outlives its connection, and goes on if the broker says so.
    pub(crate) fn joins(&self, goes_on: bool, with: &[u8]) -> (Peer, Peer) {
        self.joins_by(self.rig.dial(), goes_on, with)
    }

    /// The same over some connection.
    pub(crate) fn joins_by(&self, mut client: Peer, goes_on: bool, with: &[u8]) -> (Peer, Peer) {
        let with = [&[0x11, 0, 0, 0, 60], with].concat();
        let mut hello = connect(self.version, "desk", &with, None);
        // Its session is not to begin anew.
        hello[9] &= !2;
        client.send(&hello);
        let mut server = self.broker.accept();
        server.packet();
        let mut answer = welcome(self.version, &[]);
        answer[2] = u8::from(goes_on);
        server.send(&answer);
        client.packet();
        (client, server)
    }

    pub(crate) fn message(&self, first: u8, id: u16, payload: &[u8]) -> Vec<u8> {
        publish(self.version, first, "late/7", id, &[], payload)
    }

    /// The next of its connections, as [`joins`](Self::joins) but for the broker's answer to whether all has come.
    pub(crate) fn comes_back(&self, with: &[u8]) -> (Peer, Peer) {
        let (client, mut server) = self.joins(true, with);
        assert_eq!(server.packet(), packet(0xc0, &[]), "has all come?");
        (client, server)
    }

    /// Sent by somebody whose key is here.
    pub(crate) fn has_key(&self, first: u8, id: u16, text: &str) -> Vec<u8> {
        let sealed = envelope("boiler", "late/7", text.as_bytes());
        self.message(first, id, &sealed)
    }

    /// Sent by somebody whose key is missing.
    pub(crate) fn lacks_key(&self, first: u8, id: u16, text: &str) -> Vec<u8> {
        let sealed = envelope("other", "late/7", text.as_bytes());
        self.message(first, id, &sealed)
    }
}

/// Acknowledges a message of the proxy's own to its end.
pub(crate) fn acknowledges(client: &mut Peer, qos: u8, id: u16) {
    let [high, low] = id.to_be_bytes();
    if qos == 1 {
        client.send(&packet(0x40, &[high, low]));
        return;
    }
    client.send(&packet(0x50, &[high, low]));
    assert_eq!(client.packet(), packet(0x62, &[high, low]));
    client.send(&packet(0x70, &[high, low]));
}

/// The broker asks for its own message to be acknowledged to the end.
pub(crate) fn is_acknowledged(server: &mut Peer, qos: u8, id: u8) {
    let kind = if qos == 1 { 0x40 } else { 0x50 };
    assert_eq!(server.packet(), packet(kind, &[0, id]));
    if qos == 2 {
        server.send(&packet(0x62, &[0, id]));
        assert_eq!(server.packet(), packet(0x70, &[0, id]));
    }
}

#[test]
fn fault_17_what_lacks_a_key_is_delivered_in_order_when_it_comes_and_holds_nothing_up() {
    for version in BOTH {
        for qos in [0, 1, 2] {
            let stage = Stage::new(version);
            let (mut client, mut server) = stage.joins(false, &[]);
            let first = qos << 1;
            for (id, text) in [(9, "one"), (10, "two"), (11, "three")] {
                server.send(&stage.lacks_key(first, id, text));
                if qos > 0 {
                    is_acknowledged(&mut server, qos, id as u8);
                }
            }
            // What can be opened goes on.
            let other = envelope("boiler", "late/7", b"other");
            server.send(&stage.message(0, 0, &other));
            assert_eq!(client.packet(), stage.message(0, 0, b"other"));
            assert_eq!(stage.rig.count(Parked, "toy.not-opened"), 3);
            assert_eq!(stage.toy.kept.len(), 3);
            for secret in ["one", "two", "three"] {
                assert!(!stage.toy.kept.shows(secret.as_bytes()), "{secret}");
            }
            stage.toy.gets_key("other");
            let mut came = Vec::new();
            for (index, text) in ["one", "two", "three"].into_iter().enumerate() {
                // From the top, where brokers do not begin.
                let id = u16::MAX - index as u16;
                assert_eq!(client.packet(), stage.message(first, id, text.as_bytes()));
                came.push(id);
            }
            for id in came.into_iter().filter(|_| qos > 0) {
                acknowledges(&mut client, qos, id);
            }
            // None of that was for the broker, and nothing is left.
            client.send(&packet(0xc0, &[]));
            assert_eq!(server.packet(), packet(0xc0, &[]));
            stage.is_empty_in_the_end();
        }
    }
}

impl Stage {
    pub(crate) fn is_empty_in_the_end(&self) {
        let begun = std::time::Instant::now();
        while !self.toy.kept.is_empty() {
            assert!(begun.elapsed().as_secs() < 60, "something is left");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}

#[test]
fn what_waits_is_delivered_after_its_client_was_away_and_its_proxy_killed() {
    for version in BOTH {
        let mut stage = Stage::new(version);
        let (client, mut server) = stage.joins(false, &[]);
        server.send(&stage.lacks_key(2, 9, "one"));
        is_acknowledged(&mut server, 1, 9);
        drop((client, server));
        stage.begins_again();
        stage.toy.gets_key("other");
        let (mut client, mut server) = stage.joins(true, &[]);
        assert_eq!(
            server.packet(),
            packet(0xc0, &[]),
            "has all come that comes again?"
        );
        // What came meanwhile goes behind it.
        let two = envelope("boiler", "late/7", b"two");
        server.send(&stage.message(2, 9, &two));
        assert_eq!(server.packet(), packet(0x40, &[0, 9]));
        server.send(&packet(0xd0, &[]));
        for (id, text) in [(u16::MAX, &b"one"[..]), (u16::MAX - 1, b"two")] {
            assert_eq!(client.packet(), stage.message(2, id, text));
            acknowledges(&mut client, 1, id);
        }
        stage.is_empty_in_the_end();
        // Once: nothing comes before what is sent now.
        let three = envelope("boiler", "late/7", b"three");
        server.send(&stage.message(0, 0, &three));
        assert_eq!(client.packet(), stage.message(0, 0, b"three"));
    }
}

#[test]
fn what_waits_is_forgotten_with_its_session() {
    for version in BOTH {
        let mut stage = Stage::new(version);
        let (client, mut server) = stage.joins(false, &[]);
        server.send(&stage.lacks_key(2, 9, "one"));
        is_acknowledged(&mut server, 1, 9);
        drop((client, server));
        stage.begins_again();
        assert_eq!(stage.toy.kept.len(), 1);
        let (mut client, mut server) = stage.joins(false, &[]);
        stage.is_empty_in_the_end();
        stage.toy.gets_key("other");
        let two = envelope("boiler", "late/7", b"two");
        server.send(&stage.message(0, 0, &two));
        assert_eq!(client.packet(), stage.message(0, 0, b"two"));
        // One that begins anew each time has none to go on with.
        let mut brief = stage.rig.dial();
        brief.send(&connect(version, "brief", &[], None));
        let mut its = stage.broker.accept();
        its.packet();
        its.send(&welcome(version, &[]));
        brief.packet();
        let sealed = envelope("third", "late/7", b"three");
        its.send(&stage.message(2, 9, &sealed));
        // The toy takes it for a stranger's: nothing waits.
        assert_eq!(its.packet(), packet(0x40, &[0, 9]));
        drop((brief, its));
        stage.is_empty_in_the_end();
    }
}

/// Exactly once, whatever connection ends when.
#[test]
fn a_message_of_qos_2_keeps_its_number_over_connections_until_it_is_acknowledged() {
    for version in BOTH {
        let mut stage = Stage::new(version);
        let (client, mut server) = stage.joins(false, &[]);
        server.send(&stage.lacks_key(4, 9, "one"));
        assert_eq!(server.packet(), packet(0x50, &[0, 9]));
        drop((client, server));
        // The broker has not heard that it arrived, and sends it again.
        let (client, mut server) = stage.joins(true, &[]);
        assert_eq!(server.packet(), packet(0xc0, &[]));
        server.send(&stage.lacks_key(4 | 8, 9, "one"));
        is_acknowledged(&mut server, 2, 9);
        assert_eq!(stage.toy.kept.len(), 1);
        // It has not answered, so nothing is sent over this connection, which the proxy may take to be there still.
        drop((client, server));
        stage.toy.gets_key("other");
        let again = |stage: &Stage| {
            let (client, mut server) = stage.joins(true, &[]);
            assert_eq!(server.packet(), packet(0xc0, &[]));
            server.send(&packet(0xd0, &[]));
            (client, server)
        };
        let (mut client, server) = again(&stage);
        assert_eq!(client.packet(), stage.message(4, u16::MAX, b"one"));
        drop((client, server));
        stage.begins_again();
        let (mut client, server) = again(&stage);
        assert_eq!(client.packet(), stage.message(4 | 8, u16::MAX, b"one"));
        client.send(&packet(0x50, &[0xff, 0xff]));
        assert_eq!(client.packet(), packet(0x62, &[0xff, 0xff]));
        drop((client, server));
        stage.begins_again();
        let (mut client, _server) = again(&stage);
        assert_eq!(
            client.packet(),
            packet(0x62, &[0xff, 0xff]),
            "and no message"
        );
        client.send(&packet(0x70, &[0xff, 0xff]));
        stage.is_empty_in_the_end();
    }
}

/// The number is a message's alone, and the client takes no more messages than it said.
#[test]
fn a_message_of_the_broker_waits_while_its_number_is_taken_or_the_client_full() {
    let stage = Stage::new(Version::Five);
    // It takes two at a time, of which one may be the proxy's.
    let (mut client, mut server) = stage.joins(false, &[0x21, 0, 2]);
    for (id, text) in [(9, "one"), (10, "two")] {
        server.send(&stage.lacks_key(2, id, text));
        is_acknowledged(&mut server, 1, id as u8);
    }
    stage.toy.gets_key("other");
    assert_eq!(client.packet(), stage.message(2, u16::MAX, b"one"));
    let clear = |id: u16| publish(Version::Five, 2, "clear/1", id, &[], b"x");
    server.send(&[clear(u16::MAX), clear(7)].concat());
    // Nothing more before that is acknowledged; then the next that waited, or the broker's.
    acknowledges(&mut client, 1, u16::MAX);
    let mut came = vec![client.packet()];
    loop {
        let last = came.last().unwrap().clone();
        let at = 4 + usize::from(last[3]);
        client.send(&packet(0x40, &last[at..at + 2]));
        if came.len() == 3 {
            break;
        }
        came.push(client.packet());
    }
    let is_two = |of: &Vec<u8>| of.ends_with(b"two");
    assert_eq!(came.iter().filter(|of| is_two(of)).count(), 1);
    came.retain(|of| !is_two(of));
    assert_eq!(came, [clear(u16::MAX), clear(7)]);
    for id in [u16::MAX, 7] {
        assert_eq!(server.packet(), packet(0x40, &id.to_be_bytes()));
    }
}

#[test]
fn no_more_waits_than_there_is_room_for() {
    for version in BOTH {
        let stage = Stage::with(version, "park_messages_max = 4");
        let (_client, mut server) = stage.joins(false, &[]);
        // One client has half of it.
        for id in 1..=3 {
            server.send(&stage.lacks_key(2, id, &format!("message {id}")));
            is_acknowledged(&mut server, 1, id as u8);
        }
        assert_eq!(stage.rig.count(Parked, "toy.not-opened"), 2);
        assert_eq!(stage.rig.count(Dropped, "proxy.park-full"), 1);
        assert_eq!(stage.toy.kept.len(), 2);
    }
}

/// By then it is worth nothing, or less.
#[test]
fn what_waits_says_for_how_long_it_is_worth_something() {
    let stage = Stage::new(Version::Five);
    let (mut client, mut server) = stage.joins(false, &[]);
    let sealed = envelope("other", "late/7", b"one");
    let of =
        |payload: &[u8], id, with: &[u8]| publish(Version::Five, 2, "late/7", id, with, payload);
    // An hour, under a number that stands for the topic.
    let with: &[u8] = &[0x23, 0, 1, 2, 0, 0, 14, 16, 3, 0, 1, b't'];
    server.send(&of(&sealed, 9, with));
    is_acknowledged(&mut server, 1, 9);
    let other = envelope("other", "late/7", b"two");
    server.send(&of(&other, 10, &[2, 0, 0, 0, 0]));
    is_acknowledged(&mut server, 1, 10);
    stage.toy.gets_key("other");
    let came = client.packet();
    // Topic, number and content type are there, and no number for the topic.
    let expected = of(b"one", u16::MAX, &[3, 0, 1, b't', 2, 0, 0, 14, 16]);
    assert_eq!(came.len(), expected.len());
    let left = came.len() - 3 - 4;
    assert_eq!(came[..left], expected[..left]);
    let seconds = u32::from_be_bytes(came[left..left + 4].try_into().unwrap());
    assert!((3_000..=3_600).contains(&seconds), "{seconds}");
    acknowledges(&mut client, 1, u16::MAX);
    stage.is_empty_in_the_end();
    assert_eq!(stage.rig.count(Dropped, "proxy.expired"), 1);
}

/// Rules by which nothing waits.
fn dropping() -> String {
    let topics = "topics = \"late/#\"\n";
    RULES.replace(topics, &format!("{topics}undecryptable = \"drop\"\n"))
}

#[test]
fn what_waits_is_there_for_clients_that_came_while_no_rule_had_anything_wait() {
    for version in BOTH {
        let mut stage = Stage::new(version);
        let (client, mut server) = stage.joins(false, &[]);
        server.send(&stage.lacks_key(2, 9, "one"));
        is_acknowledged(&mut server, 1, 9);
        drop((client, server));
        stage.begins_again();
        assert_eq!(stage.rig.reload(&dropping(), ""), Ok(vec![]));
        let (mut client, mut server) = stage.joins(true, &[]);
        assert_eq!(server.packet(), packet(0xc0, &[]));
        assert_eq!(stage.rig.reload(RULES, ""), Ok(vec![]));
        server.send(&stage.lacks_key(2, 9, "two"));
        is_acknowledged(&mut server, 1, 9);
        assert_eq!(stage.toy.kept.len(), 2);
        stage.toy.gets_key("other");
        server.send(&packet(0xd0, &[]));
        for (id, text) in [(u16::MAX, &b"one"[..]), (u16::MAX - 1, b"two")] {
            assert_eq!(client.packet(), stage.message(2, id, text));
            acknowledges(&mut client, 1, id);
        }
        stage.is_empty_in_the_end();
    }
}

#[test]
fn what_waits_is_delivered_once_by_rules_by_which_nothing_waits() {
    for version in BOTH {
        let mut stage = Stage::new(version);
        let (client, mut server) = stage.joins(false, &[]);
        server.send(&stage.lacks_key(4, 9, "one"));
        assert_eq!(server.packet(), packet(0x50, &[0, 9]));
        // The proxy before has nothing to do with what comes now.
        drop(client);
        server.closed();
        stage.begins_again();
        stage.toy.gets_key("other");
        assert_eq!(stage.rig.reload(&dropping(), ""), Ok(vec![]));
        let (mut client, mut server) = stage.joins(true, &[]);
        assert_eq!(server.packet(), packet(0xc0, &[]));
        server.send(&stage.lacks_key(4 | 8, 9, "one"));
        is_acknowledged(&mut server, 2, 9);
        server.send(&packet(0xd0, &[]));
        assert_eq!(client.packet(), stage.message(4, u16::MAX, b"one"));
        acknowledges(&mut client, 2, u16::MAX);
        stage.is_empty_in_the_end();
    }
}

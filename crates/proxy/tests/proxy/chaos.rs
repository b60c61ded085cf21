//! Clients and brokers that say anything: packets of all kinds with bytes changed, in any order. Nothing panics, and others do not
//! notice.

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::rig::{BOTH, Broker, Peer, RULES, Rig, Version, connect, packet, publish, welcome};
use crate::toy::envelope;

const CONVERSATIONS: u64 = 200;
const PACKETS: u64 = 24;

/// Numbers that are the same each time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 += 1;
        let number = BuildHasherDefault::<DefaultHasher>::default().hash_one(self.0);
        usize::try_from(number % end as u64).unwrap()
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// A packet, changed or as it is.
    fn spoil(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut bytes = packet.to_vec();
        for _ in 0..*self.of(&[0, 0, 0, 1, 2]) {
            let at = self.below(bytes.len().max(1));
            match self.below(4) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, self.below(256) as u8),
                2 if at < bytes.len() => drop(bytes.remove(at)),
                _ if at < bytes.len() => bytes[at] = self.below(256) as u8,
                _ => {}
            }
        }
        bytes
    }
}

/// What either side may say, some of it what the other alone may.
fn words(version: Version) -> Vec<Vec<u8>> {
    let mut words = vec![
        connect(version, "any", &[], None),
        welcome(version, &[]),
        packet(0x82, b"\0\x01\0\x05late/\x01"),
        packet(0x90, &[0, 1, 0]),
        packet(0xa2, b"\0\x02\0\x05late/"),
        packet(0xc0, &[]),
        packet(0xd0, &[]),
        packet(0xe0, &[]),
        packet(0xf0, &[0x18, 0]),
    ];
    for kind in [0x40, 0x50, 0x62, 0x70] {
        for id in [1, 2, 0xff] {
            words.push(packet(kind, &[0, id]));
            words.push(packet(kind, &[0xff, id]));
            words.push(packet(kind, &[0, id, 0x97]));
        }
    }
    for topic in ["plant/7", "late/7", "clear/7", "gateway/7", "shown/7", ""] {
        for stream in ["boiler", "other"] {
            let sealed = envelope(stream, topic, b"one");
            let alias: &[u8] = &[0x23, 0, 1];
            for first in [0, 2, 3, 4, 10, 12] {
                words.push(publish(version, first, topic, 1, &[], b"one"));
                words.push(publish(version, first, topic, 2, alias, &sealed));
            }
        }
    }
    words
}

/// A client and its broker that say some of it.
fn converse(rig: &Rig, broker: &Broker, version: Version, chance: &mut Chance) {
    let words = words(version);
    let mut client = rig.dial();
    let mut hello = connect(version, "any", &[0x11, 0, 0, 0, 60], None);
    // It takes up its session, or begins anew.
    if chance.below(2) == 0 {
        hello[9] &= !2;
    }
    let said = chance.spoil(&hello);
    client.try_send(&said);
    if said != hello {
        // Whatever it lacks does not come.
        client.finish();
    }
    let Some(mut server) = broker.try_accept(&mut client) else {
        return;
    };
    let mut answer = welcome(version, &[]);
    answer[2] = chance.below(2) as u8;
    server.try_send(&chance.spoil(&answer));
    for _ in 0..PACKETS {
        let said = chance.of(&words).clone();
        let said = chance.spoil(&said);
        let speaker: &mut Peer = if chance.below(2) == 0 {
            &mut client
        } else {
            &mut server
        };
        speaker.try_send(&said);
    }
}

#[test]
fn whatever_clients_and_brokers_say_nothing_panics_and_others_are_served() {
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        // Not those of tests that fail beside this one.
        let is_ours = std::thread::current()
            .name()
            .is_some_and(|of| of.starts_with("tokio"));
        PANICS.fetch_add(usize::from(is_ours), Ordering::SeqCst);
        before(info);
    }));
    for version in BOTH {
        let broker = Broker::new();
        let rig = Rig::new(RULES, broker.port());
        let (mut client, mut server) = rig.join_as(&broker, version, "witness");
        for seed in 0..CONVERSATIONS {
            converse(&rig, &broker, version, &mut Chance(seed << 32));
            let message = publish(version, 2, "clear/1", 7, &[], b"witness");
            client.send(&message);
            assert_eq!(server.packet(), message, "seed {seed}");
            server.send(&message);
            assert_eq!(client.packet(), message, "seed {seed}");
        }
        assert_eq!(PANICS.load(Ordering::SeqCst), 0);
    }
}

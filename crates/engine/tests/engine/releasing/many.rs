//! Many sessions, and records that are false.

use sealcast_protocol::{Position, Segment, SegmentRecords, Unverified, sign};

use super::rig::{Asking, Net};
use crate::rig::{NOON, OWNER, between};

/// The smallest segment.
const MINUTE: u64 = 1 << 16;

impl Net {
    /// Has the owner lie in its records of some segments.
    fn spoil(&mut self, is_false: impl Fn(&Segment) -> bool) {
        for at in 0..self.world.keys().len() {
            let item = self.world.keys()[at].clone();
            let Ok(records) = Unverified::<SegmentRecords>::decode(&item) else {
                continue;
            };
            let mut body = records.claims().clone();
            for record in &mut body.records {
                if is_false(&record.segment) {
                    record.sealed[40] ^= 1;
                }
            }
            self.world.spoil_key_item(at);
            let identity = &self.world.peers[OWNER].identity;
            let wire = sign(identity.signing(), body).unwrap().wire().to_vec();
            self.world.put_key_item(&wire);
        }
    }
}

#[test]
fn a_reader_of_hundreds_of_sessions_asks_for_all_of_them() {
    let mut net = Net::new(2, 3);
    for number in 0..150 {
        net.world.rekey(OWNER);
        net.world.publish(OWNER, &number.to_string()).unwrap();
        net.world.tick(1_000);
    }
    let reader = net.reader_of_all();
    let told = net.unlock(reader);
    assert!(!told.contains("left"), "{told}");
    assert_eq!(net.world.opened(reader).len(), 150);
}

/// No request is made that a node would pass over, so nobody is asked twice.
#[test]
fn a_reader_of_many_sessions_asks_no_more_than_nodes_take() {
    let mut net = Net::new(1, 1);
    for _ in 0..200 {
        net.world.rekey(OWNER);
        net.world.publish(OWNER, "x").unwrap();
    }
    let reader = net.reader_of_all();
    let mut asking = Asking::new(&mut net, reader);
    while asking.combiner.open_requests() > 0 {
        asking.step(&mut net);
    }
    assert_eq!(asking.told.matches("asked 1 nodes").count(), 200);
    assert_eq!((asking.done, asking.left), (200, 0));
    assert_eq!(net.world.opened(reader).len(), 200);
}

/// Whichever it is, so that once the others are those who are asked first.
#[test]
fn a_false_record_costs_itself_alone_also_while_a_node_is_silent() {
    for silent in 0..3 {
        let mut net = Net::new(2, 3);
        let from = Position(NOON.0.next_multiple_of(4 * MINUTE));
        net.world.now = from;
        for text in ["one", "two", "three"] {
            net.world.publish(OWNER, text).unwrap();
            net.world.tick(MINUTE);
        }
        let first = from.0 >> 16;
        net.spoil(|of| of.depth == 32 && of.index == first);
        let reader = net.reader(between(from, from.after(3 * MINUTE)));
        net.nodes[silent].is_up = false;
        let mut asking = Asking::new(&mut net, reader);
        while asking.combiner.open_requests() > 0 {
            asking.step(&mut net);
        }
        assert_eq!(net.world.opened(reader), ["two", "three"]);
        assert!(asking.told.contains("left to others"), "{}", asking.told);
        assert_eq!((asking.done, asking.left), (2, 1));
    }
}

#[test]
fn in_place_of_a_false_record_those_of_smaller_segments_are_asked_for() {
    let mut net = Net::new(2, 3);
    net.publish(&["one", "two"]);
    net.spoil(|of| of.depth < 30);
    let reader = net.reader_of_all();
    for silent in [false, true] {
        let phone = net.world.device_of(reader);
        net.nodes[1].is_up = !silent;
        net.unlock(phone);
        assert_eq!(net.world.opened(phone), ["one", "two"]);
    }
}

/// Whoever publishes records without end has nobody ask for all of them.
#[test]
fn of_records_without_end_those_are_asked_for_that_are_nearest() {
    let mut net = Net::new(1, 1);
    net.publish(&["one"]);
    net.flood(OWNER, 20);
    let reader = net.reader_of_all();
    let mut asking = Asking::new(&mut net, reader);
    asking.step(&mut net);
    let asked: Vec<_> = asking.sent.iter().map(|of| of.body()).collect();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].segments.len(), 128);
    let mut segments = asked[0].segments.iter();
    assert!(segments.any(|of| of.interval().contains(NOON)));
    assert_eq!(net.world.opened(reader), ["one"]);
}

#[test]
fn who_is_asked_last_of_many_has_as_long_as_the_first() {
    for up in 0..9 {
        let mut net = Net::new(1, 9);
        net.publish(&["one"]);
        let reader = net.reader_of_all();
        for (at, node) in net.nodes.iter_mut().enumerate() {
            node.is_up = at == up;
        }
        net.unlock(reader);
        assert_eq!(net.world.opened(reader), ["one"]);
    }
}

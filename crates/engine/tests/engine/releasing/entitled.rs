//! Who is given what.

use sealcast_engine::{CombinerInput, ReleaserLimits};
use sealcast_protocol::{Interval, NodeRefusalReason, Position, Roles, Segment};

use super::rig::{Asking, Net};
use crate::rig::{NOON, OWNER, between};

/// The smallest segment.
const MINUTE: u64 = 1 << 16;

#[test]
fn a_segment_that_ends_after_the_grant_is_refused_and_those_inside_are_given() {
    let mut net = Net::new(2, 3);
    let from = Position(NOON.0.next_multiple_of(4 * MINUTE));
    net.world.now = from;
    for text in ["one", "two", "three", "four", "five"] {
        net.world.publish(OWNER, text).unwrap();
        net.world.tick(MINUTE);
    }
    // Two whole minutes of the four that are a larger segment, and a half.
    let until = from.after(2 * MINUTE + MINUTE / 2);
    let reader = net.reader(between(from, until));
    let told = net.unlock(reader);
    assert!(told.contains("asked 2 nodes for 2 segments"), "{told}");
    assert_eq!(net.world.opened(reader), ["one", "two"]);

    // The larger one is refused by each, whoever asks for it.
    let mut asking = Asking::new(&mut net, reader);
    asking.sent.clear();
    let others = net.reader_of_all();
    let mut wide = Asking::new(&mut net, others);
    wide.step(&mut net);
    let wide = wide.sent[0].clone();
    let stolen = net.resigned(reader, &wide, |of| {
        let view = &net.world.peers[reader].view;
        (of.user, of.device) = view.me();
        of.list = view.list(&of.user).unwrap().pin().unwrap();
        of.request.0[0] ^= 1;
        of.nodes = vec![1, 2, 3];
    });
    for at in 0..3 {
        net.put_in_inbox(net.nodes[at].peer, stolen.wire());
    }
    net.inbox(reader);
    net.run_nodes();
    for at in 0..3 {
        let last = format!("{:?}", net.nodes[at].audit.last().unwrap().event);
        assert!(last.ends_with("NotEntitled)"), "{last}");
    }
    assert_eq!(net.inbox(reader).len(), 3);
}

#[test]
fn what_lies_after_an_expiry_is_refused_and_what_lies_before_is_given() {
    let mut net = Net::new(2, 3);
    net.world.now = Position(NOON.0.next_multiple_of(MINUTE));
    let until = net.world.now.after(2 * MINUTE);
    let reader = net.reader(between(Position::START, until));
    for text in ["one", "two"] {
        net.world.publish(OWNER, text).unwrap();
        net.world.tick(MINUTE + 1);
    }
    net.world.publish(OWNER, "too late").unwrap();
    net.world.tick(30 * 86_400_000);
    net.unlock(reader);
    assert_eq!(net.world.opened(reader), ["one", "two"]);
}

/// It signs for itself what no honest program asks for.
#[test]
fn what_a_device_forges_a_request_for_past_its_expiry_is_refused_by_each_node() {
    let mut net = Net::new(2, 3);
    let from = Position(NOON.0.next_multiple_of(4 * MINUTE));
    net.world.now = from;
    let reader = net.reader(between(Position::START, from.after(2 * MINUTE)));
    for text in ["one", "two", "too late", "much too late"] {
        net.world.publish(OWNER, text).unwrap();
        net.world.tick(MINUTE);
    }
    net.world.tick(30 * 86_400_000);
    let other = net.reader_of_all();
    let caught = Asking::new(&mut net, other).sent[0].clone();
    net.run_nodes();

    let of = |height: u8, later: u64| Segment {
        depth: 48 - height,
        index: (from.0 >> height) + later,
    };
    let beyond = [
        // From the very expiry on, and later.
        vec![of(16, 2)],
        vec![of(16, 3)],
        // With one that it may read, and around its end.
        vec![of(16, 1), of(16, 2)],
        vec![of(18, 0)],
        vec![of(32, 0)],
    ];
    for segments in beyond {
        let forged = net.forge(reader, &caught, |of| of.segments = segments);
        forged.assert_refused(&net, NodeRefusalReason::NotEntitled);
    }
    // What lies before is given by each, to the last of it.
    let inside = vec![of(16, 0), of(16, 1)];
    let honest = net.forge(reader, &caught, |of| of.segments = inside);
    assert_eq!(honest.answers().len(), 3);
    assert_eq!(honest.opened(&net), 2);
}

#[test]
fn who_was_revoked_is_refused_by_each_node_and_keeps_what_was_given() {
    let mut net = Net::new(2, 3);
    net.publish(&["one"]);
    let reader = net.reader_of_all();
    let mut asking = Asking::new(&mut net, reader);
    asking.step(&mut net);
    assert_eq!(net.world.opened(reader), ["one"]);
    net.world.revoke_user(OWNER, reader).unwrap();
    net.publish(&["two"]);

    // It asks by what it knew, for all that there is.
    let asked = asking.sent[0].clone();
    let again = net.resigned(reader, &asked, |of| {
        of.request.0[0] ^= 1;
        of.nodes = vec![1, 2, 3];
        of.time = net.world.now;
        of.expires = net.world.now.after(30_000);
    });
    for at in 0..3 {
        net.put_in_inbox(net.nodes[at].peer, again.wire());
    }
    net.run_nodes();
    for at in 0..3 {
        let last = format!("{:?}", net.nodes[at].audit.last().unwrap().event);
        assert!(last.ends_with("NotEntitled)"), "{last}");
    }
    assert_eq!(net.world.opened(reader), ["one"]);
}

#[test]
fn who_was_never_granted_anything_hears_nothing() {
    let mut net = Net::new(2, 3);
    net.publish(&["one"]);
    let (reader, stranger) = (net.reader_of_all(), net.world.user());
    let mut asking = Asking::new(&mut net, reader);
    asking.step(&mut net);
    net.world.sync(stranger);
    let asked = net.resigned(stranger, &asking.sent[0].clone(), |of| {
        let view = &net.world.peers[stranger].view;
        (of.user, of.device) = view.me();
        of.list = view.list(&of.user).unwrap().pin().unwrap();
        of.nodes = vec![1, 2, 3];
    });
    for at in 0..3 {
        net.put_in_inbox(net.nodes[at].peer, asked.wire());
    }
    net.inbox(stranger);
    let before: Vec<_> = (0..3).map(|at| net.nodes[at].audit.len()).collect();
    net.run_nodes();
    assert_eq!(net.inbox(stranger).len(), 0);
    let after: Vec<_> = (0..3).map(|at| net.nodes[at].audit.len()).collect();
    assert_eq!(after, before);
}

/// The log names them for something else, so that they are heard: a key node, and who may publish in another lane.
#[test]
fn who_is_named_and_was_never_granted_to_read_is_refused_by_each_node_whatever_it_forges() {
    let mut net = Net::new(2, 3);
    net.publish(&["one"]);
    let reader = net.reader_of_all();
    let caught = Asking::new(&mut net, reader).sent[0].clone();
    net.run_nodes();
    let (publisher, stranger) = (net.world.user(), net.world.user());
    net.world
        .write_grant(OWNER, publisher, Roles::PUBLISHER, Interval::ALL)
        .unwrap();
    for named in [net.nodes[0].peer, publisher] {
        let forged = net.forge(named, &caught, |_| ());
        forged.assert_refused(&net, NodeRefusalReason::NotEntitled);
        let old = net.forge(named, &caught, |of| of.heads.clear());
        old.assert_refused(&net, NodeRefusalReason::NotEntitled);
    }
    // Whom it names for nothing hears nothing, and nothing is kept of it.
    let kept: Vec<_> = net.nodes.iter().map(|node| node.audit.len()).collect();
    let unheard = net.forge(stranger, &caught, |_| ());
    assert!(unheard.items.is_empty());
    let after = net.nodes.iter().map(|node| node.audit.len());
    assert!(after.eq(kept));
    // The same is given by each to whom it is granted.
    let granted = net.forge(reader, &caught, |_| ());
    assert_eq!(granted.answers().len(), 3);
    assert_eq!(granted.opened(&net), caught.body().segments.len());
}

/// A deal of one lane says nothing of what may be read in another.
#[test]
fn a_deal_of_another_lane_does_not_help() {
    let mut net = Net::new(2, 3);
    net.publish(&["of the owner"]);
    let mallory = net.world.user();
    net.world
        .write_grant(OWNER, mallory, Roles::PUBLISHER, Interval::ALL)
        .unwrap();
    net.world.publish(mallory, "of Mallory").unwrap();
    let mut asking = Asking::new(&mut net, mallory);
    // Nothing of the owner's lane is Mallory's to read, so nothing is asked for.
    assert_eq!(asking.told, "left to others\n");
    let reader = net.reader_of_all();
    let mut honest = Asking::new(&mut net, reader);
    honest.step(&mut net);
    let of_owner = honest
        .sent
        .iter()
        .find(|of| of.body().lane == net.world.id(OWNER));
    let asked = of_owner.unwrap().clone();
    let own = net.world.id(mallory);
    let forged = net.resigned(mallory, &asked, |of| {
        let view = &net.world.peers[mallory].view;
        (of.user, of.device) = view.me();
        of.list = view.list(&of.user).unwrap().pin().unwrap();
        // Its own lane, in which it may read all, with the deal of the other.
        of.lane = own;
        of.nodes = vec![1, 2, 3];
    });
    for at in 0..3 {
        net.put_in_inbox(net.nodes[at].peer, forged.wire());
    }
    net.run_nodes();
    for at in 0..3 {
        let last = format!("{:?}", net.nodes[at].audit.last().unwrap().event);
        assert!(last.ends_with("NotEntitled)"), "{last}");
    }
    net.world.tick(1);
    let view = &net.world.peers[mallory].view;
    asking
        .combiner
        .handle(net.world.now, view, CombinerInput::Tick);
}

#[test]
fn who_asks_for_too_much_is_told_to_wait() {
    let mut net = Net::new(1, 1);
    net.limits = ReleaserLimits {
        segments_at_once: 1,
        segments_per_second: 1,
        ..ReleaserLimits::default()
    };
    net.publish(&["one"]);
    let reader = net.reader_of_all();
    let mut asking = Asking::new(&mut net, reader);
    asking.step(&mut net);
    let asked = asking.sent[0].clone();
    let again = net.resigned(reader, &asked, |of| of.request.0[0] ^= 1);
    net.put_in_inbox(net.nodes[0].peer, again.wire());
    net.run_nodes();
    let last = format!("{:?}", net.nodes[0].audit.last().unwrap().event);
    assert!(last.ends_with("Throttled)"), "{last}");
    net.world.tick(1_000);
    let later = net.resigned(reader, &asked, |of| of.request.0[0] ^= 2);
    net.put_in_inbox(net.nodes[0].peer, later.wire());
    net.run_nodes();
    let last = format!("{:?}", net.nodes[0].audit.last().unwrap().event);
    assert!(last.starts_with("Released"), "{last}");
}

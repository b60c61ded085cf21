//! How long and how often key nodes are asked, as configured.

use sealcast_engine::CombinerLimits;
use sealcast_protocol::Position;

use super::rig::{Asking, Net};
use crate::rig::OWNER;

/// Requests so far, and how long after a time they were made.
fn asked_after(asking: &Asking, begun: Position) -> Vec<u64> {
    let times = asking.sent.iter().map(|of| of.body().time);
    times.map(|time| time.0 - begun.0).collect()
}

#[test]
fn other_nodes_are_asked_and_given_up_when_it_was_configured() {
    for (node_timeout_ms, key_request_timeout_ms) in [(1_000, 7_000), (4_000, 9_000)] {
        let mut net = Net::new(1, 2);
        net.publish(&["one"]);
        let reader = net.reader_of_all();
        for node in &mut net.nodes {
            node.is_up = false;
        }
        let limits = CombinerLimits {
            node_timeout_ms,
            key_request_timeout_ms,
            ..CombinerLimits::default()
        };
        let begun = net.world.now;
        let mut asking = Asking::with(limits, &mut net, reader);
        while asking.left == 0 {
            asking.step(&mut net);
        }
        assert_eq!(asked_after(&asking, begun), [0, node_timeout_ms]);
        let lives = asking.sent.iter().map(|of| of.body());
        let mut lives = lives.map(|body| body.expires.0 - body.time.0);
        assert!(lives.all(|lives| lives == key_request_timeout_ms));
        // The second has as long as the first.
        let given_up = net.world.now.0 - begun.0;
        assert_eq!(given_up, node_timeout_ms + key_request_timeout_ms);
    }
}

/// Nodes take so many at once, and four a second of one device; fewer where that was configured.
#[test]
fn nodes_are_asked_no_more_often_than_configured() {
    for (max_key_requests_per_second, every_ms) in [(1, 1_000), (2, 500), (20, 250)] {
        let mut net = Net::new(1, 1);
        for _ in 0..72 {
            net.world.rekey(OWNER);
            net.world.publish(OWNER, "x").unwrap();
        }
        let reader = net.reader_of_all();
        let limits = CombinerLimits {
            max_key_requests_per_second,
            flights_max: 72,
            ..CombinerLimits::default()
        };
        let begun = net.world.now;
        let mut asking = Asking::with(limits, &mut net, reader);
        while asking.combiner.open_requests() > 0 {
            asking.step(&mut net);
        }
        let times = asked_after(&asking, begun);
        let later: Vec<_> = (1..=8).map(|number| number * every_ms).collect();
        assert_eq!(times[..64], [0; 64]);
        assert_eq!(times[64..], later);
    }
}

//! Key nodes, and publishers who seal for them, killed at any moment.

use std::slice;
use std::thread;
use std::time::{Duration, Instant};

use super::asked::{ask_again, inbox, said, said_times};
use super::{Running, reader, stream_with_nodes};
use crate::rig::{Person, Rig};

/// How often one is killed.
const KILLS: u32 = 24;

/// Kills a process after a part of the time that it takes, or a little more than all of it.
fn kill_at(running: Running, takes: Duration, nth: u32) {
    thread::sleep(takes * nth * 5 / (4 * KILLS));
    drop(running);
}

/// What is sealed in a session of which there are no records opens by asking alone, for ever.
#[test]
fn nothing_lies_on_the_bus_that_key_nodes_do_not_open_wherever_its_publisher_was_killed() {
    let rig = Rig::small();
    let (owner, ticket, nodes) = stream_with_nodes(&rig, "1", 1);
    let bob = reader(&rig, &owner, &ticket, "bob", "+400d");
    let publish = ["pub", "plant", "-m", "one"];
    let begun = Instant::now();
    owner.done(&publish);
    let takes = begun.elapsed();
    for nth in 0..KILLS {
        owner.done(&["rekey", "plant"]);
        kill_at(Running(owner.start(&publish)), takes, nth);
    }
    owner.done(&publish);
    let published = rig.count(&bob.data_topic());
    // One was killed before it did anything.
    assert!((2..i64::from(KILLS) + 2).contains(&published));
    let _running = Running::start(&nodes[0]);
    let read = bob.done(&["read", "plant"]);
    assert_eq!(read.lines().count() as i64, published);
}

/// Nobody is told anything that is not in the audit.
#[test]
fn a_node_wrote_down_all_that_it_said_wherever_it_was_killed() {
    let rig = Rig::small();
    let (owner, ticket, nodes) = stream_with_nodes(&rig, "1", 1);
    owner.done(&["pub", "plant", "-m", "one"]);
    let bob = reader(&rig, &owner, &ticket, "bob", "+400d");
    let node = &nodes[0];
    let begun = Instant::now();
    drop(Running::start(node));
    let starts = begun.elapsed();
    let running = Running::start(node);
    bob.done(&["read", "plant"]);
    drop(running);
    let caught = rig.last(&inbox(node));
    let replies = |of: &Person| rig.count(&inbox(of));
    let (mut between, mut asked) = (0, said(node, &bob).len());
    for nth in 0..KILLS {
        let before = (said(node, &bob).len(), replies(&bob));
        let running = Running(node.start(&["keynode", "run"]));
        for _ in 0..2 {
            ask_again(&rig, &bob, &caught, slice::from_ref(node));
            asked += 1;
        }
        kill_at(running, starts * 2, nth);
        let written = said(node, &bob).len();
        // What waited to be said is gone with who was to say it.
        let (more, said) = (written - before.0, replies(&bob) - before.1);
        assert!(said <= more as i64, "{said} of {more}");
        between += usize::from(written < asked);
    }
    assert!(between > 0);
    // Whoever asked is answered in the end.
    let _running = Running::start(node);
    assert!(said_times(node, &bob, asked).len() >= asked);
    assert_eq!(bob.done(&["read", "plant"]), "one");
}

//! What an agent counts of keys that its home lacked.

use super::{LINE_WITHIN, Running, reader, stream_sharing, stream_with_nodes};
use crate::agent::{Serving, get, lines_of, looked_for};
use crate::rig::{Person, Rig};

/// What one metric says, of those that a label tells apart.
fn counted(metrics: &str, name: &str, label: &str) -> String {
    let mut lines = metrics.lines();
    let line = lines.find(|of| of.starts_with(name) && of.contains(label));
    let line = line.unwrap_or_else(|| panic!("{name}: {metrics}"));
    line.rsplit_once(' ').unwrap().1.to_owned()
}

fn metrics(of: &Person) -> String {
    get(of.home(), "/metrics").1
}

/// Follows a stream through the agent until it printed what was published.
fn follow(reader: &Person) -> Running {
    let mut follows = Running(reader.start(&["sub", "plant", "--from", "start"]));
    let printed = lines_of(follows.0.stdout.take().unwrap());
    while printed.recv_timeout(LINE_WITHIN).unwrap().trim() != "one" {}
    follows
}

#[test]
fn an_agent_counts_what_key_nodes_gave_it() {
    let rig = Rig::small();
    let (owner, ticket, nodes) = stream_with_nodes(&rig, "1", 1);
    owner.done(&["pub", "plant", "-m", "one"]);
    let bob = reader(&rig, &owner, &ticket, "bob", "+400d");
    let node = Running::start(&nodes[0]);
    let serving = Serving::of_stream(&bob, &[]);
    let follows = follow(&bob);
    let metrics = metrics(&bob);
    let counted = |name: &str, label: &str| counted(&metrics, name, label);
    assert_eq!(counted("sealcast_keys_asked_for_total", "key-nodes"), "1");
    assert_eq!(counted("sealcast_keys_segments_total", ""), "1");
    assert_eq!(counted("sealcast_keys_asked_for_total", "others"), "0");
    assert_eq!(counted("sealcast_keys_not_given_total", "throttled"), "0");
    assert_eq!(counted("sealcast_keys_given_total", ""), "0");
    drop(follows);
    serving.stop();
    drop(node);
}

#[test]
fn and_what_others_gave_it_where_key_nodes_gave_nothing() {
    let rig = Rig::small();
    let (owner, ticket, nodes) = stream_sharing(&rig, "on-request", "1", 1);
    owner.done(&["stream", "condition", "plant", "--after", "+400d"]);
    // What is published behind a grant is not handed out with it.
    let bob = reader(&rig, &owner, &ticket, "bob", "+400d");
    owner.done(&["pub", "plant", "-m", "one"]);
    let node = Running::start(&nodes[0]);
    let mut answers = Serving::of_stream(&owner, &[]);
    // The owner has two streams.
    answers.wait_for("stream attended to");
    let serving = Serving::of_stream(&bob, &[]);
    let follows = follow(&bob);
    // It is counted when it is known that it opened something.
    let is_given = |of: &String| counted(of, "sealcast_keys_given_total", "") != "0";
    let metrics = looked_for(|| metrics(&bob), is_given);
    let counted = |name: &str, label: &str| counted(&metrics, name, label);
    assert_eq!(counted("sealcast_keys_given_total", ""), "1");
    assert_ne!(counted("sealcast_keys_asked_for_total", "others"), "0");
    assert_eq!(counted("sealcast_keys_asked_for_total", "key-nodes"), "1");
    assert_eq!(counted("sealcast_keys_segments_total", ""), "0");
    assert_eq!(counted("sealcast_keys_not_given_total", "condition"), "1");
    assert_eq!(counted("sealcast_keys_not_given_total", "too-few"), "1");
    drop(follows);
    serving.stop();
    answers.stop();
    drop(node);
}

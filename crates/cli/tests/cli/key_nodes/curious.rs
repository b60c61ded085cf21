//! Whoever runs a key node, and what lies in its home.

use sealcast_liar::{Space, kept};
use sealcast_traces::{Needles, search_files};

use super::asked::{all_answer, ask_again, caught, said_times};
use super::{Running, reader, stream_with_nodes};
use crate::rig::{Person, Rig};

const TEXT: &str = "the boiler is at 61.4 degrees";

/// What somebody's store holds of one kind, as its program reads it.
fn held(of: &Person, space: Space) -> Vec<Vec<u8>> {
    let all = kept(of.home()).unwrap().into_iter();
    let held = all.filter(|(at, value)| *at == space as u8 && !value.is_empty());
    held.map(|(_, value)| value).collect()
}

/// What none may find who runs a node: the text, the key of the session that it is sealed in, and the secret of the lane
/// that two of them have between them.
fn secrets_of(owner: &Person) -> Needles {
    let mut needles = Needles::new();
    needles.add("text", TEXT.as_bytes());
    for root in held(owner, Space::Root) {
        needles.add("session", &root);
    }
    // A byte string of 64 bytes: the scalar, and the pepper, of which each node has a copy.
    let lane = held(owner, Space::LaneSecret).remove(0);
    let at = lane.windows(2).position(|of| of == [0x58, 0x40]).unwrap() + 2;
    needles.add("lane", &lane[at..at + 32]);
    needles
}

/// The names of those that somebody's store holds, as its program reads it.
fn found(needles: &Needles, of: &Person) -> Vec<String> {
    let all = kept(of.home()).unwrap();
    let found = all
        .iter()
        .flat_map(|(_, value)| needles.search("store", value));
    let mut names: Vec<_> = found.map(|of| of.name).collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn who_runs_a_node_reads_nothing_is_given_nothing_and_finds_neither_text_nor_keys_in_its_home() {
    let rig = Rig::small();
    let (owner, ticket, nodes) = stream_with_nodes(&rig, "2", 3);
    owner.done(&["pub", "plant", "-m", TEXT]);
    let bob = reader(&rig, &owner, &ticket, "bob", "+400d");
    let running: Vec<_> = nodes.iter().map(Running::start).collect();
    let read = bob.done(&["read", "plant"]);
    assert_eq!(read, TEXT);
    let caught = caught(&rig, &bob, &nodes);
    all_answer(&bob);
    let (curious, others) = nodes.split_first().unwrap();
    let ran = curious.run(&["read", "plant"]);
    assert_eq!((ran.code, ran.stdout.as_slice()), (3, &b""[..]));
    let why = "1 message sealed: no grant of yours covers the time";
    assert!(ran.stderr.contains(why), "{}", ran.stderr);
    ask_again(&rig, curious, &caught, others);
    for other in others {
        assert_eq!(said_times(other, curious, 1), ["not-entitled"]);
    }
    drop(running);

    let needles = secrets_of(&owner);
    // The search finds what is there.
    assert_eq!(found(&needles, &owner), ["lane", "session"]);
    assert!(!needles.search("read", read.as_bytes()).is_empty());
    assert!(!held(&bob, Space::Cover).is_empty());
    for node in &nodes {
        let found = found(&needles, node);
        assert!(found.is_empty(), "{found:?}");
        let traces = search_files(&needles, node.home()).unwrap();
        assert!(traces.is_empty(), "{traces:?}");
        for keys in [Space::Root, Space::Cover, Space::LaneSecret] {
            assert!(held(node, keys).is_empty(), "{keys:?}");
        }
        assert!(!held(node, Space::Deal).is_empty());
    }
}

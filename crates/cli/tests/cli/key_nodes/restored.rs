//! A key node whose store was put back to an older state.

use std::slice;

use super::asked::{ask_again, inbox, said, said_times};
use super::{Running, reader, stream_with_nodes};
use crate::devices;
use crate::rig::{Person, Rig};

#[test]
fn a_node_that_was_put_back_to_an_older_state_decides_by_the_log_of_today() {
    let rig = Rig::small();
    let (owner, ticket, nodes) = stream_with_nodes(&rig, "1", 2);
    owner.done(&["pub", "plant", "-m", "one"]);
    let eve = reader(&rig, &owner, &ticket, "eve", "+400d");
    let node = &nodes[0];
    drop(Running::start(node));
    copy(node, "old");
    let running = Running::start(node);
    assert_eq!(eve.done(&["read", "plant"]), "one");
    let caught = rig.last(&inbox(node));
    assert_eq!(said(node, &eve), ["released"]);
    drop(running);
    owner.done(&["revoke", "plant", &eve.id()]);
    let bob = reader(&rig, &owner, &ticket, "bob", "+400d");

    put_back(&rig, node, "old");
    let running = Running::start(node);
    // It has forgotten whom it released what, and finds the old request once more.
    assert_eq!(said_times(node, &eve, 1), ["not-entitled"]);
    let tablet = devices::add(&rig, &eve, "tablet");
    for device in [&eve, &tablet] {
        ask_again(&rig, device, &caught, slice::from_ref(node));
    }
    assert_eq!(said_times(node, &eve, 3), ["not-entitled"; 3]);
    assert_eq!(tablet.run(&["read", "plant"]).code, 3);
    assert_eq!(bob.done(&["read", "plant"]), "one");
    assert_eq!(said(node, &bob), ["released"]);
    drop(running);

    // Nor does it release when it was replaced meanwhile.
    copy(node, "named");
    let set = ["stream", "keynodes", "set", "plant", "--threshold", "1"];
    owner.done(&[&set[..], &[&nodes[1].id()]].concat());
    put_back(&rig, node, "named");
    let kim = reader(&rig, &owner, &ticket, "kim", "+400d");
    let _running = Running::start(node);
    ask_again(&rig, &kim, &caught, slice::from_ref(node));
    assert_eq!(said_times(node, &kim, 1), ["unknown-deal"]);
    assert_eq!(kim.run(&["read", "plant"]).code, 3);
}

fn copy(node: &Person, to: &str) {
    let to = node.home().with_file_name(to);
    std::fs::create_dir(&to).unwrap();
    for file in std::fs::read_dir(node.home()).unwrap() {
        let file = file.unwrap();
        if file.file_type().unwrap().is_file() {
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
}

fn put_back(rig: &Rig, node: &Person, from: &str) {
    std::fs::remove_dir_all(node.home()).unwrap();
    std::fs::rename(rig.path().join(from), node.home()).unwrap();
}

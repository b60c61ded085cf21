//! A key node whose store was put back to an older state.

use super::{Running, reader, stream_with_nodes};
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
    drop(running);
    owner.done(&["revoke", "plant", &eve.id()]);
    let bob = reader(&rig, &owner, &ticket, "bob", "+400d");

    std::fs::remove_dir_all(node.home()).unwrap();
    std::fs::rename(rig.path().join("old"), node.home()).unwrap();
    let running = Running::start(node);
    let tablet = crate::devices::add(&rig, &eve, "tablet");
    assert_eq!(tablet.run(&["read", "plant"]).code, 3);
    assert_eq!(bob.done(&["read", "plant"]), "one");
    drop(running);

    // Nor does it release when it was replaced meanwhile.
    copy(node, "named");
    let ids = [nodes[1].id()];
    owner.done(&[
        "stream",
        "keynodes",
        "set",
        "plant",
        "--threshold",
        "1",
        &ids[0],
    ]);
    std::fs::remove_dir_all(node.home()).unwrap();
    std::fs::rename(rig.path().join("named"), node.home()).unwrap();
    let kim = reader(&rig, &owner, &ticket, "kim", "+400d");
    let _running = Running::start(node);
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

//! What a key node shows of itself, and how its home is made.

use serde_json::{Value, json};

use super::{Running, joined, reader, stream_with_nodes};
use crate::rig::{Person, Rig};

/// The one line of `keynode status`, without the stream's id.
fn shown(node: &Person) -> Value {
    let (code, mut lines) = node.json(&["keynode", "status"]);
    assert_eq!((code, lines.len()), (0, 1), "{lines:?}");
    let mut line = lines.remove(0);
    line.as_object_mut().unwrap().remove("stream").unwrap();
    line
}

/// What it shows of a node that holds so many shares, and with so many entries in its audit.
fn standing(is_named: bool, shares: u64, entries: u64, released: u64, refused: Value) -> Value {
    json!({
        "name": "plant",
        "named": is_named,
        "shares": shares,
        "audit_entries": entries,
        "released": released,
        "refused": refused,
        "turned_away": 0,
        "bus_shows_all": true,
    })
}

/// The cells of the one row that people see.
fn row(node: &Person) -> Vec<String> {
    let table = node.done(&["keynode", "status"]);
    let [head, row] = table.lines().collect::<Vec<_>>()[..] else {
        panic!("{table}");
    };
    let head: Vec<_> = head.split_whitespace().collect();
    assert_eq!(
        head.join(" "),
        "STREAM KEY NODE SHARES AUDIT RELEASED REFUSED BUS"
    );
    let cells = row.split("  ").map(str::trim).filter(|of| !of.is_empty());
    cells.map(str::to_owned).collect()
}

#[test]
fn a_node_shows_whether_it_is_named_what_it_holds_and_what_came_of_it_while_it_runs() {
    let rig = Rig::small();
    let (owner, ticket, nodes) = stream_with_nodes(&rig, "1", 1);
    let node = joined(&rig, "node9", &ticket);
    assert_eq!(shown(&node), standing(false, 0, 0, 0, json!({})));
    assert_eq!(
        row(&node),
        ["plant", "no", "0", "0 entries", "0", "none", "whole"]
    );
    let replace = ["stream", "keynodes", "replace", "plant"];
    owner.done(&[&replace[..], &[&nodes[0].id(), &node.id()]].concat());
    // Nobody has published, and so dealt, anything.
    assert_eq!(shown(&node), standing(true, 0, 0, 0, json!({})));
    owner.done(&["pub", "plant", "-m", "one"]);
    assert_eq!(shown(&node), standing(true, 1, 0, 0, json!({})));

    let _running = Running::start(&node);
    let bob = reader(&rig, &owner, &ticket, "bob", "+400d");
    assert_eq!(bob.done(&["read", "plant"]), "one");
    assert_eq!(shown(&node), standing(true, 1, 2, 1, json!({})));
    owner.done(&["stream", "condition", "plant", "--after", "+400d"]);
    let kim = reader(&rig, &owner, &ticket, "kim", "+400d");
    assert_eq!(kim.run(&["read", "plant"]).code, 3);
    let refused = json!({ "condition": 1 });
    assert_eq!(shown(&node), standing(true, 1, 3, 1, refused));
    let refused = "1 the condition does not hold";
    assert_eq!(
        row(&node),
        ["plant", "yes", "1", "3 entries", "1", refused, "whole"]
    );
    // Who was replaced is no node any more.
    assert_eq!(shown(&nodes[0]), standing(false, 0, 0, 0, json!({})));
}

#[test]
fn the_home_of_a_node_may_have_a_passphrase_which_it_finds_in_a_file() {
    let rig = Rig::small();
    let (owner, ticket, _) = stream_with_nodes(&rig, "1", 1);
    let file = rig.file("secret", b"correct horse\n");
    let wrong = rig.file("wrong", b"correct house\n");
    let bare = rig.stranger("node9");
    let init = ["keynode", "init", "--bus", rig.bus_url()];
    let neither = bare.refused(2, &init);
    assert!(neither.contains("--passphrase-file F"), "{neither}");
    let by_file = [&init[..], &["--passphrase-file", &file]].concat();
    bare.refused(2, &[&by_file[..], &["--no-passphrase"]].concat());
    let id = bare.done(&by_file);
    let node = rig.stranger("node9").with_passphrase_file(&file);
    assert_eq!(node.id(), id);
    node.done(&["join", &ticket]);
    let set = [
        "stream",
        "keynodes",
        "set",
        "plant",
        "--threshold",
        "1",
        &id,
    ];
    owner.done(&set);
    owner.done(&["pub", "plant", "-m", "one"]);

    let run = ["keynode", "run"];
    let without = bare.refused(2, &run);
    assert!(
        without.contains("this home needs its passphrase"),
        "{without}"
    );
    bare.with_passphrase_file(&wrong).refused(6, &run);
    let bob = reader(&rig, &owner, &ticket, "bob", "+400d");
    let _running = Running::start(&node);
    assert_eq!(bob.done(&["read", "plant"]), "one");
}

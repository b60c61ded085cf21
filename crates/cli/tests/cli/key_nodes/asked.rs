//! What key nodes are asked, also by who would not ask by itself, and what they write down of it.

use crate::agent::looked_for;
use crate::rig::{Person, Rig};

/// Where requests to a device lie, and what it is answered.
pub(super) fn inbox(of: &Person) -> String {
    let (_, lines) = of.json(&["device", "list"]);
    format!("d/{}/inbox", lines[0]["device"].as_str().unwrap())
}

/// What a node said to a user, each time, by its audit: that it released, or why it did not.
pub(super) fn said(node: &Person, asker: &Person) -> Vec<String> {
    let (code, lines) = node.json(&["keynode", "audit", "plant"]);
    assert_eq!(code, 0, "{lines:?}");
    let id = asker.id();
    let of_asker = lines.iter().filter(|of| of["user"] == id.as_str());
    let said = of_asker.map(|of| of["reason"].as_str().unwrap_or("released").to_owned());
    said.collect()
}

/// The same, once it has said something so often.
pub(super) fn said_times(node: &Person, asker: &Person, times: usize) -> Vec<String> {
    looked_for(|| said(node, asker), |said| said.len() >= times)
}

/// Each node answers somebody, and so has looked at all that came before.
pub(super) fn all_answer(asker: &Person) {
    let status = asker.json(&["stream", "keynodes", "status", "plant"]).1;
    let mut nodes = status[0]["nodes"].as_array().unwrap().iter();
    assert!(nodes.all(|of| of["answers"] == "yes"), "{status:?}");
}

/// What a reader asked, whom some node released something to and nobody has asked anything since.
pub(super) fn caught(rig: &Rig, reader: &Person, nodes: &[Person]) -> Vec<u8> {
    let mut nodes = nodes.iter();
    let asked = nodes.find(|node| said(node, reader) == ["released"]);
    rig.last(&inbox(asked.unwrap()))
}

/// Has somebody ask nodes what another asked, signed by his own device, whatever he may read.
pub(super) fn ask_again(rig: &Rig, asker: &Person, caught: &[u8], nodes: &[Person]) {
    let list = rig.items(&format!("u/{}/devices", asker.id()), 0);
    let asks = sealcast_liar::ask_again(asker.home(), &list, caught).unwrap();
    for node in nodes {
        rig.append(&inbox(node), &asks);
    }
}

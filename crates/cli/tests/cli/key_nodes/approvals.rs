//! Key nodes that release to those of whom some people approve.

use super::{Running, reader, stream_with_nodes};
use crate::rig::{Person, Rig};

#[test]
fn nodes_release_to_those_of_whom_enough_people_approve() {
    let rig = Rig::small();
    let (owner, ticket, nodes) = stream_with_nodes(&rig, "2", 3);
    owner.done(&["pub", "plant", "-m", "one"]);
    let [ann, ben] = ["ann", "ben"].map(|name| {
        let person = rig.person(name);
        person.done(&["join", &ticket]);
        person
    });
    let some = format!("2 of {} {} {}", owner.id(), ann.id(), ben.id());
    let condition = ["stream", "condition", "plant", "--approved-by", &some];
    let says = owner.run(&condition).stderr;
    assert!(says.contains("to those of whom 2 of"), "{says}");
    assert!(says.contains("and nothing otherwise"), "{says}");
    let _running: Vec<_> = nodes.iter().map(Running::start).collect();
    let bob = reader(&rig, &owner, &ticket, "bob", "+400d");
    let approve = |by: &Person, of: &Person| by.done(&["stream", "approve", "plant", &of.id()]);
    let is_kept_out = |reader: &Person| {
        let ran = reader.run(&["read", "plant"]);
        assert_eq!(ran.code, 3);
        let why = "refused: the condition does not hold";
        assert!(ran.stderr.contains(why), "{}", ran.stderr);
    };
    is_kept_out(&bob);
    approve(&ann, &bob);
    is_kept_out(&bob);
    approve(&ben, &bob);
    assert_eq!(bob.done(&["read", "plant"]), "one");

    // Nobody is asked whom the condition does not name, nor about himself.
    let refused = ["stream", "approve", "plant"];
    let asks = bob.refused(2, &[&refused[..], &[&ann.id()]].concat());
    assert!(asks.contains("does not ask for your approval"), "{asks}");
    ann.refused(2, &[&refused[..], &[&ann.id()]].concat());

    // What is taken back, has ended or was said before a removal is not counted.
    let kim = reader(&rig, &owner, &ticket, "kim", "+400d");
    approve(&ann, &kim);
    approve(&ben, &kim);
    ben.done(&["stream", "approve", "plant", &kim.id(), "--withdraw"]);
    is_kept_out(&kim);
    let until = ["stream", "approve", "plant", &kim.id(), "--until", "-1m"];
    ben.done(&until);
    is_kept_out(&kim);
    approve(&ben, &kim);
    owner.done(&["revoke", "plant", &kim.id()]);
    let all = ["--from", "start", "--until", "+400d"];
    owner.done(&[&["grant", "plant", &kim.id()][..], &all].concat());
    is_kept_out(&kim);
    approve(&ann, &kim);
    approve(&ben, &kim);
    assert_eq!(kim.done(&["read", "plant"]), "one");

    // Nor what is said by who was revoked, though no grant is, until a condition names it anew.
    let lou = reader(&rig, &owner, &ticket, "lou", "+400d");
    approve(&ben, &lou);
    let revoked = owner.run(&["revoke", "plant", &ann.id()]);
    let says = "Revoked: approvals.";
    assert!(revoked.stderr.contains(says), "{}", revoked.stderr);
    ann.refused(4, &["stream", "approve", "plant", &lou.id()]);
    is_kept_out(&lou);
    owner.done(&condition);
    is_kept_out(&lou);
    approve(&ann, &lou);
    assert_eq!(lou.done(&["read", "plant"]), "one");
}

#[test]
fn approvals_that_cannot_be_are_refused() {
    let rig = Rig::small();
    let (owner, _, nodes) = stream_with_nodes(&rig, "1", 1);
    let id = nodes[0].id();
    for some in ["2 of ID", "0 of ID", "ID", "1 of"] {
        let some = some.replace("ID", &id);
        let condition = ["stream", "condition", "plant", "--approved-by", &some];
        owner.refused(2, &condition);
        let span = format!("after -1d and approved by {some}");
        owner.refused(2, &["stream", "condition", "plant", "--when", &span]);
    }
}

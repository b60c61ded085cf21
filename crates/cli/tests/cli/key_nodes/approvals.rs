//! Key nodes that release to those of whom some people approve.

use super::{Running, publish_earlier, reader, stream_with_nodes};
use crate::devices;
use crate::rig::{Person, Rig};

#[test]
fn nodes_release_to_those_of_whom_enough_people_approve() {
    let rig = Rig::small();
    let (owner, ticket, nodes) = stream_with_nodes(&rig, "2", 3);
    publish_earlier(&owner, "one");
    let [ann, ben] = ["ann", "ben"].map(|name| {
        let person = rig.person(name);
        person.done(&["join", &ticket]);
        person
    });
    let some = format!("2 of {} {} {}", owner.id(), ann.id(), ben.id());
    let condition = ["stream", "condition", "plant", "--approved-by", &some];
    let says = owner.run(&condition).stderr;
    assert!(
        says.contains("to readers who are approved by 2 of"),
        "{says}"
    );
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
    shows_who_waits(&owner, [&ann, &ben, &bob]);
    approve(&ben, &bob);
    assert_eq!(bob.done(&["read", "plant"]), "one");
    shows_that_nobody_waits(&ben, &bob);

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

/// To who is asked, and to who is not.
fn shows_that_nobody_waits(ben: &Person, bob: &Person) {
    assert_eq!(ben.json(&["stream", "approve", "plant"]).1.len(), 0);
    let nobody = ben.run(&["stream", "approve", "plant"]).stderr;
    assert!(
        nobody.contains("Nobody waits for your approval."),
        "{nobody}"
    );
    let not_asked = bob.run(&["stream", "approve", "plant"]).stderr;
    assert!(
        not_asked.contains("Key nodes do not ask for your approval."),
        "{not_asked}"
    );
}

/// Of three, of whom two are needed and the first approved of the last.
fn shows_who_waits(owner: &Person, [ann, ben, bob]: [&Person; 3]) {
    let others = [owner.id(), ben.id()];
    let is_of = |of: &serde_json::Value| {
        let mut of: Vec<_> = of.as_array().unwrap().iter().collect();
        of.sort_by_key(|of| of.to_string());
        let mut others = others.clone().map(serde_json::Value::from);
        others.sort_by_key(ToString::to_string);
        of == others.iter().collect::<Vec<_>>()
    };
    let is_missing = |reader: &serde_json::Value| {
        let missing = &reader["missing"][0][0];
        assert_eq!(reader["user"], bob.id());
        assert_eq!(reader["approved"][0]["by"], ann.id());
        assert_eq!(reader["releases"], false);
        assert!(
            missing["approvals"] == 1 && is_of(&missing["of"]),
            "{reader}"
        );
    };
    let (_, shown) = owner.json(&["stream", "condition", "plant"]);
    is_missing(&shown[0]["readers"][0]);
    let text = owner.done(&["stream", "condition", "plant"]);
    assert!(text.contains("READER") && text.contains("1 of "), "{text}");
    let (_, waiting) = ben.json(&["stream", "approve", "plant"]);
    is_missing(&waiting[0]);
    assert_eq!(ann.json(&["stream", "approve", "plant"]).1.len(), 0);
    // The reader is told whom to ask, and what they run.
    let told = bob.run(&["read", "plant"]).stderr;
    let command = format!("`sealcast stream approve STREAM {}`", bob.id());
    assert!(
        told.contains("You wait for: 1 of ") && told.contains(&command),
        "{told}"
    );
}

#[test]
fn who_loses_a_grant_or_is_not_asked_meanwhile_needs_approval_anew() {
    let rig = Rig::small();
    let (owner, ticket, nodes) = stream_with_nodes(&rig, "1", 1);
    publish_earlier(&owner, "one");
    let ann = rig.person("ann");
    ann.done(&["join", &ticket]);
    let of_ann = format!("1 of {}", ann.id());
    let ask = ["stream", "condition", "plant", "--approved-by", &of_ann];
    owner.done(&ask);
    let bob = reader(&rig, &owner, &ticket, "bob", "+400d");
    let approve = ["stream", "approve", "plant", &bob.id()];
    let missing = || {
        let (_, shown) = owner.json(&["stream", "condition", "plant"]);
        shown[0]["readers"][0]["releases"] == false
    };
    ann.done(&approve);
    assert!(!missing());
    let (_, who) = owner.json(&["who", "plant"]);
    let grant = who.iter().find(|of| of["user"] == bob.id()).unwrap();
    owner.done(&["revoke", "plant", grant["grant"].as_str().unwrap()]);
    let again = [
        "grant",
        "plant",
        &bob.id(),
        "--from",
        "start",
        "--until",
        "+400d",
    ];
    owner.done(&again);
    assert!(missing());
    ann.done(&approve);
    assert!(!missing());
    // A condition without her, and one with her again.
    owner.done(&["stream", "condition", "plant", "--none"]);
    ann.refused(2, &approve);
    ann.done(&[&approve[..], &["--withdraw"]].concat());
    owner.done(&ask);
    assert!(missing());
    let _running = Running::start(&nodes[0]);
    assert_eq!(bob.run(&["read", "plant"]).code, 3);
    ann.done(&approve);
    assert_eq!(bob.done(&["read", "plant"]), "one");
}

/// Whoever approves and has no grant revokes devices of its own as all others do.
#[test]
fn what_a_device_approved_is_void_once_its_user_revoked_it() {
    let rig = Rig::small();
    let (owner, ticket, _) = stream_with_nodes(&rig, "1", 1);
    let ann = rig.person("ann");
    ann.done(&["join", &ticket]);
    let of_ann = format!("1 of {}", ann.id());
    owner.done(&["stream", "condition", "plant", "--approved-by", &of_ann]);
    let bob = reader(&rig, &owner, &ticket, "bob", "+400d");
    let laptop = devices::add(&rig, &ann, "laptop");
    let approve = ["stream", "approve", "plant", &bob.id()];
    let releases = || {
        let (_, shown) = owner.json(&["stream", "condition", "plant"]);
        shown[0]["readers"][0]["releases"] == true
    };
    laptop.done(&approve);
    assert!(releases());
    let revoked = ann.run(&["device", "revoke", "laptop"]);
    assert_eq!(revoked.code, 0, "{}", revoked.stderr);
    assert!(
        !revoked.stderr.contains("not allowed"),
        "{}",
        revoked.stderr
    );
    assert!(!releases());
    laptop.refused(4, &approve);
    ann.done(&approve);
    assert!(releases());
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

/// In one entry, so that they never release without it.
#[test]
fn nodes_are_named_together_with_what_they_ask_for() {
    let rig = Rig::small();
    let (owner, _, nodes) = stream_with_nodes(&rig, "1", 1);
    let (id, of_ada) = (nodes[0].id(), format!("1 of {}", owner.id()));
    let set = ["stream", "keynodes", "set", "plant", "--threshold"];
    let asks = ["1", &id, "--approved-by", &of_ada];
    let said = owner.run(&[&set[..], &asks].concat());
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stderr.contains("It can end"), "{}", said.stderr);
    let shown = owner.done(&["stream", "condition", "plant"]);
    assert!(shown.contains("approved by "), "{shown}");
    owner.refused(2, &[&set[..], &["0", "--after", "+1d"]].concat());
}

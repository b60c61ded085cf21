//! Conditions of several demands: how they are said in plain words, and that they hold.

use super::{Running, publish_earlier, reader, stream_with_nodes};
use crate::rig::{Person, Rig};

const LONG_AGO: &str = "2020-01-01T00:00:00.000Z";

/// Somebody whom the owner knows by name.
fn contact(rig: &Rig, owner: &Person, ticket: &str, name: &str) -> Person {
    let person = rig.person(name);
    person.done(&["join", ticket]);
    owner.done(&["contact", "add", name, &person.id()]);
    person
}

/// Has somebody set a condition, and insists on what is said of it, in one of some ways.
fn sets(owner: &Person, args: &[&str], says: &[String]) {
    let ran = owner.run(args);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let is_said = |of: &String| {
        let line = format!("From now on {of}, and nothing otherwise.");
        ran.stderr.lines().any(|said| said == line)
    };
    assert!(says.iter().any(is_said), "{}", ran.stderr);
    // All of these can, or have.
    let ends = ["It can end, so", "is over, so key nodes release nothing"];
    let said = ends.map(|of| ran.stderr.contains(of));
    let is_over = args.contains(&"--before") && args.contains(&"2020-01-01");
    assert_eq!(said, [!is_over, is_over], "{}", ran.stderr);
}

fn condition(owner: &Person, args: &[&str], says: &str) {
    let set = [&["stream", "condition", "plant"][..], args].concat();
    sets(owner, &set, &[format!("key nodes release {says}")]);
}

fn is_refused_and_waits_for(reader: &Person, what: &str) {
    let ran = reader.run(&["read", "plant"]);
    assert_eq!((ran.code, ran.stdout.as_slice()), (3, &b""[..]));
    for says in [
        "refused: the condition does not hold.",
        &format!("You wait for: {what}"),
    ] {
        assert!(ran.stderr.contains(says), "{says}: {}", ran.stderr);
    }
}

fn approves(by: &Person, of: &Person) {
    by.done(&["stream", "approve", "plant", &of.id()]);
}

#[test]
fn with_a_time_and_approvals_or_another_time_who_is_approved_reads_once_the_time_has_come() {
    let rig = Rig::small();
    let (owner, ticket, nodes) = stream_with_nodes(&rig, "1", 1);
    publish_earlier(&owner, "one");
    let [_ann, ben] = ["ann", "ben"].map(|name| contact(&rig, &owner, &ticket, name));
    let node = nodes[0].id();
    let set = ["stream", "keynodes", "set", "plant", "--threshold", "1"];
    let spans = [
        "--when",
        "before 2020-02-01",
        "--when",
        "after 2020-01-01 and approved by 1 of ann ben",
    ];
    // People come in the order of their ids.
    let says = ["ann, ben", "ben, ann"].map(|of| {
        format!(
            "key nodes release from {LONG_AGO} on to readers who are approved by 1 of {of}, or until \
             2020-02-01T00:00:00.000Z"
        )
    });
    sets(&owner, &[&set[..], &[&node], &spans].concat(), &says);
    let _running = Running::start(&nodes[0]);
    let bob = reader(&rig, &owner, &ticket, "bob", "+400d");
    let kim = reader(&rig, &owner, &ticket, "kim", "+400d");
    is_refused_and_waits_for(&bob, "1 of ");
    approves(&ben, &bob);
    assert_eq!(bob.done(&["read", "plant"]), "one");
    is_refused_and_waits_for(&kim, "1 of ");

    // Where one thing or the other is enough, nobody has to approve of her.
    let spans = [
        "--when",
        "approved by 1 of ann",
        "--when",
        "after 2020-01-01",
    ];
    let says = format!("from {LONG_AGO} on, or to readers who are approved by ann");
    condition(&owner, &spans, &says);
    assert_eq!(kim.done(&["read", "plant"]), "one");
}

#[test]
fn who_is_approved_waits_for_a_time_that_is_asked_for_as_well_and_nobody_reads_after_its_end() {
    let rig = Rig::small();
    let (owner, ticket, nodes) = stream_with_nodes(&rig, "1", 1);
    publish_earlier(&owner, "one");
    let ann = contact(&rig, &owner, &ticket, "ann");
    let _running = Running::start(&nodes[0]);
    let bob = reader(&rig, &owner, &ticket, "bob", "+400d");
    let later = "2999-01-01T00:00:00.000Z";
    let both = ["--after", "2999-01-01", "--approved-by", "1 of ann"];
    let says = format!("from {later} on to readers who are approved by ann");
    condition(&owner, &both, &says);
    approves(&ann, &bob);
    is_refused_and_waits_for(&bob, later);

    let before = ["--before", "2020-01-01"];
    condition(&owner, &before, &format!("until {LONG_AGO}"));
    is_refused_and_waits_for(&bob, "its time is over.");
    // And the same before it has ended.
    condition(
        &owner,
        &["--before", "2999-01-01"],
        &format!("until {later}"),
    );
    assert_eq!(bob.done(&["read", "plant"]), "one");
}

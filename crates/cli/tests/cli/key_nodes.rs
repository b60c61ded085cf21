//! Key nodes, with publisher, owner and all other readers offline.

mod approvals;
mod asked;
mod captured;
mod conditions;
mod curious;
mod killed;
mod liar;
mod metrics;
mod refused;
mod restored;
mod status;
mod year;

use std::process::Child;
use std::sync::mpsc;
use std::time::Duration;

use rusqlite::Connection;
use serde_json::json;

use crate::agent::lines_of;
use crate::rig::{Person, Ran, Rig};

const LINE_WITHIN: Duration = Duration::from_secs(60);

/// A key node that runs.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// Starts a node, and waits until it releases for a stream.
    fn start(node: &Person) -> Self {
        let mut child = node.start(&["keynode", "run"]);
        let log: mpsc::Receiver<String> = lines_of(child.stderr.take().unwrap());
        let running = Self(child);
        let mut logged = String::new();
        while !logged.contains("Releasing for") {
            let line = log.recv_timeout(LINE_WITHIN);
            logged.push_str(&line.unwrap_or_else(|_| panic!("not started: {logged}")));
        }
        running
    }
}

/// The home of a key node that has joined a stream, and is not named yet.
fn joined(rig: &Rig, name: &str, ticket: &str) -> Person {
    let node = rig.stranger(name);
    node.done(&["keynode", "init", "--bus", rig.bus_url(), "--no-passphrase"]);
    node.done(&["join", ticket]);
    node
}

/// So many key nodes of a stream, of which some are needed, and its owner.
fn stream_with_nodes(rig: &Rig, threshold: &str, count: usize) -> (Person, String, Vec<Person>) {
    // No keyholder hands out anything.
    stream_sharing(rig, "manual", threshold, count)
}

/// The same, where keyholders share keys in some way.
fn stream_sharing(
    rig: &Rig,
    sharing: &str,
    threshold: &str,
    count: usize,
) -> (Person, String, Vec<Person>) {
    let (owner, _) = rig.owner("ada", "boiler");
    let ticket = owner.done(&["stream", "create", "plant", "--share", sharing]);
    let nodes = (0..count).map(|number| joined(rig, &format!("node{number}"), &ticket));
    let nodes: Vec<_> = nodes.collect();
    let ids: Vec<_> = nodes.iter().map(Person::id).collect();
    let mut set = vec![
        "stream",
        "keynodes",
        "set",
        "plant",
        "--threshold",
        threshold,
    ];
    set.extend(ids.iter().map(String::as_str));
    owner.done(&set);
    (owner, ticket, nodes)
}

fn reader(rig: &Rig, owner: &Person, ticket: &str, name: &str, until: &str) -> Person {
    let reader = rig.person(name);
    reader.done(&["join", ticket]);
    owner.done(&[
        "grant",
        "plant",
        &reader.id(),
        "--from",
        "start",
        "--until",
        until,
    ]);
    reader
}

/// Publishes something that was made an hour ago: where their condition can end, key nodes release what has ended.
fn publish_earlier(publisher: &Person, text: &str) {
    let earlier = std::time::SystemTime::now() - Duration::from_secs(3_600);
    let since = earlier.duration_since(std::time::UNIX_EPOCH).unwrap();
    let seconds = i64::try_from(since.as_secs()).unwrap();
    let line = format!("{}\t{text}\n", year::rfc3339(seconds));
    publisher.done_with(&["pub", "plant", "-l", "--backfill"], line.as_bytes());
}

#[test]
fn a_reader_opens_history_with_two_of_three_nodes_and_nobody_else() {
    opens_with_some_of(2, 3);
}

#[test]
fn and_with_three_of_five() {
    opens_with_some_of(3, 5);
}

fn opens_with_some_of(threshold: usize, count: usize) {
    let rig = Rig::small();
    let (owner, ticket, nodes) = stream_with_nodes(&rig, &threshold.to_string(), count);
    owner.done(&["pub", "plant", "-m", "one"]);
    owner.done(&["pub", "plant", "-m", "two"]);
    let bob = reader(&rig, &owner, &ticket, "bob", "+400d");
    let mut running: Vec<_> = nodes
        .iter()
        .take(threshold - 1)
        .map(Running::start)
        .collect();
    says_that_too_few_released(&bob.run(&["read", "plant"]), threshold, count);
    running.push(Running::start(&nodes[threshold]));
    assert_eq!(bob.done(&["read", "plant"]), "one\ntwo");
    drop(running);
    // What was released stays.
    assert_eq!(bob.done(&["read", "plant"]), "one\ntwo");
    let audit = nodes[0].done(&["keynode", "audit", "plant"]);
    assert!(audit.contains("released: 1 segment"), "{audit}");
}

/// To who reads two messages with one node less than are needed, and all others down.
fn says_that_too_few_released(read: &Ran, threshold: usize, count: usize) {
    assert_eq!((read.code, read.stdout.as_slice()), (3, &b""[..]));
    let released = threshold - 1;
    let too_few = format!("Of the {threshold} key nodes that are needed {released} released.");
    for says in [
        "2 messages sealed: you have a grant, but no keyholder has sent the keys yet",
        "ask for them: `sealcast request plant`",
        &too_few,
    ] {
        assert!(read.stderr.contains(says), "{says}: {}", read.stderr);
    }
    let is_silent = |line: &&str| line.ends_with(" did not answer.");
    let silent = read.stderr.lines().filter(is_silent).count();
    assert_eq!(silent, count - released, "{}", read.stderr);
    for never in ["refused", "something false"] {
        assert!(!read.stderr.contains(never), "{}", read.stderr);
    }
}

#[test]
fn nodes_are_shown_replaced_and_bound_to_a_condition() {
    let rig = Rig::small();
    let (owner, ticket, mut nodes) = stream_with_nodes(&rig, "2", 3);
    owner.done(&["pub", "plant", "-m", "one"]);
    let status = owner.json(&["stream", "keynodes", "status", "plant"]).1;
    let answers = |of: &serde_json::Value| {
        let nodes = of["nodes"].as_array().unwrap().iter();
        let mut said: Vec<_> = nodes
            .map(|of| of["answers"].as_str().unwrap().to_owned())
            .collect();
        said.sort();
        said
    };
    assert_eq!(answers(&status[0]), ["no"; 3]);
    let running: Vec<_> = nodes.iter().map(Running::start).collect();
    let status = owner.json(&["stream", "keynodes", "status", "plant"]).1;
    assert_eq!(answers(&status[0]), ["yes"; 3]);
    drop(running);
    assert!(status[0].get("records").is_none());
    let with_records = ["stream", "keynodes", "status", "plant", "--records"];
    let records = owner.json(&with_records).1[0]["records"].take();
    assert_eq!(
        (&records[0]["sessions"], &records[0]["covered"]),
        (&json!(1), &json!(1))
    );
    assert!(records[0]["from"].as_str() < records[0]["until"].as_str());
    let says = format!(
        ": {} records, of 1 of 1 sessions, from ",
        records[0]["records"]
    );
    let shown = owner.done(&with_records);
    assert!(shown.contains(&says), "{says}: {shown}");

    // One goes for good, another comes.
    let new = joined(&rig, "node9", &ticket);
    owner.done(&[
        "stream",
        "keynodes",
        "replace",
        "plant",
        &nodes[0].id(),
        &new.id(),
    ]);
    nodes[0] = new;
    let bob = reader(&rig, &owner, &ticket, "bob", "+400d");
    let running: Vec<_> = nodes.iter().take(2).map(Running::start).collect();
    assert_eq!(bob.done(&["read", "plant"]), "one");
    drop(running);

    let says = owner.run(&["stream", "condition", "plant", "--after", "+30d"]);
    let says = says.stderr;
    assert!(says.contains("key nodes release from 2"), "{says}");
    let kim = reader(&rig, &owner, &ticket, "kim", "+400d");
    let _running: Vec<_> = nodes.iter().map(Running::start).collect();
    let ran = kim.run(&["read", "plant"]);
    assert_eq!(ran.code, 3);
    let refused = "refused: the condition does not hold";
    assert_eq!(ran.stderr.matches(refused).count(), 3, "{}", ran.stderr);
    let too_few = "Of the 2 key nodes that are needed 0 released.";
    assert!(ran.stderr.contains(too_few), "{}", ran.stderr);
    // Who names nodes anew does not lift it.
    let ids = nodes.iter().take(2).map(Person::id).collect::<Vec<_>>();
    let set = ["stream", "keynodes", "set", "plant", "--threshold", "2"];
    let ids = ids.iter().map(String::as_str);
    owner.done(&set.into_iter().chain(ids).collect::<Vec<_>>());
    assert_eq!(kim.run(&["read", "plant"]).code, 3);
    let shown = owner.done(&["stream", "condition", "plant"]);
    assert!(
        shown.contains("release from 2") && shown.contains("WAITS FOR"),
        "{shown}"
    );
    owner.done(&["stream", "condition", "plant", "--none"]);
    assert_eq!(kim.done(&["read", "plant"]), "one");
}

#[test]
fn a_node_whose_audit_lost_an_entry_or_its_end_or_where_it_began_releases_nothing() {
    let rig = Rig::small();
    let (owner, _, nodes) = stream_with_nodes(&rig, "1", 3);
    owner.done(&["pub", "plant", "-m", "one"]);
    // An entry, where the entries end, and the latter with all entries but the last.
    let last = "space = 27 OR (space = 24 AND id < (SELECT max(id) FROM records WHERE space = 24))";
    for (node, lost) in nodes.iter().zip(["space = 24", "space = 27", last]) {
        drop(Running::start(node));
        let says = node.run(&["keynode", "audit", "plant"]).stderr;
        assert!(says.contains("The audit holds: 1 entry"), "{says}");
        if lost == last {
            drop(Running::start(node));
        }
        let store = Connection::open(node.home().join("store.db")).unwrap();
        let gone = store.execute(&format!("DELETE FROM records WHERE {lost}"), []);
        assert_eq!(gone.unwrap(), if lost == last { 2 } else { 1 });
        drop(store);
        node.refused(6, &["keynode", "audit", "plant"]);
        node.refused(6, &["keynode", "run"]);
    }
}

#[test]
fn a_threshold_that_cannot_be_and_a_node_that_has_not_joined_are_refused() {
    let rig = Rig::small();
    let (owner, _, nodes) = stream_with_nodes(&rig, "1", 1);
    let set = |threshold: &str, node: &str| {
        let args = [
            "stream",
            "keynodes",
            "set",
            "plant",
            "--threshold",
            threshold,
            node,
        ];
        owner.refused(2, &args)
    };
    for threshold in ["0", "2"] {
        assert!(set(threshold, &nodes[0].id()).contains("threshold"));
    }
    let elsewhere = rig.person("elsewhere");
    assert!(set("1", &elsewhere.id()).contains("must join the stream first"));
}

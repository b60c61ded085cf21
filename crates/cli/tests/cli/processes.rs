//! Several processes of one home at once, following, and being asked to end.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Child;
use std::thread;

use crate::kinds::on_every_bus;
use crate::rig::{Ran, Rig};

on_every_bus![
    two_publishers_of_one_home_lose_and_corrupt_nothing,
    messages_published_one_by_one_by_many_processes_all_arrive,
    one_process_follows_what_another_of_the_same_home_publishes,
    a_grant_reaches_one_who_follows_already,
    what_waits_is_printed_by_a_later_sub_once_it_is_granted,
    a_line_of_json_says_what_waits_and_what_waited,
];

fn two_publishers_of_one_home_lose_and_corrupt_nothing(rig: &Rig) {
    let (kim, _) = rig.owner("kim", "s");
    let feed = |mut child: Child, name: &'static str| {
        thread::spawn(move || {
            let mut stdin = child.stdin.take().unwrap();
            for n in 0..2_000 {
                writeln!(stdin, "{name} {n}").unwrap();
            }
            drop(stdin);
            let ran = Ran::of(child.wait_with_output().unwrap());
            ran.expect(0, &["pub", "s", "-l"]);
        })
    };
    let one = feed(kim.start(&["pub", "s", "-l"]), "one");
    let two = feed(kim.start(&["pub", "s", "-l"]), "two");
    one.join().unwrap();
    two.join().unwrap();
    let mut read: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for text in kim.opened(&["read", "s"]) {
        let (name, number) = text.split_once(' ').unwrap();
        read.entry(name.to_owned())
            .or_default()
            .push(number.parse().unwrap());
    }
    let all: Vec<u32> = (0..2_000).collect();
    assert_eq!(read.get("one"), Some(&all));
    assert_eq!(read.get("two"), Some(&all));
    for state in ["gap", "fork", "replay", "rejected", "sealed"] {
        assert_eq!(kim.count(state, &["read", "s"]), 0, "{state}");
    }
    kim.done(&["doctor"]);
}

fn messages_published_one_by_one_by_many_processes_all_arrive(rig: &Rig) {
    let (kim, _) = rig.owner("kim", "s");
    let children: Vec<Child> = (0..6)
        .map(|n| kim.start(&["pub", "s", "-m", &format!("m{n}")]))
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let mut texts = kim.opened(&["read", "s"]);
    texts.sort();
    assert_eq!(texts, ["m0", "m1", "m2", "m3", "m4", "m5"]);
    assert_eq!(kim.count("fork", &["read", "s"]), 0);
}

fn one_process_follows_what_another_of_the_same_home_publishes(rig: &Rig) {
    let (kim, _) = rig.owner("kim", "s");
    kim.done(&["pub", "s", "-m", "before"]);
    let mut sub = kim.start(&["sub", "s", "--from", "start", "--count", "3"]);
    let mut lines = BufReader::new(sub.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "before");
    let mut publisher = kim.start(&["pub", "s", "-l"]);
    let mut stdin = publisher.stdin.take().unwrap();
    stdin.write_all(b"first\n").unwrap();
    // A line reaches the follower while the publisher goes on.
    assert_eq!(lines.next().unwrap().unwrap(), "first");
    stdin.write_all(b"second\n").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "second");
    drop(stdin);
    assert!(publisher.wait().unwrap().success());
    assert_eq!(sub.wait().unwrap().code(), Some(0));
}

#[test]
fn following_ends_after_a_while_and_tells_what_stayed_sealed() {
    let rig = Rig::new();
    let (alice, ticket) = rig.owner("alice", "s");
    alice.done(&["pub", "s", "-m", "x"]);
    alice.done(&["sub", "s", "--for", "0s"]);
    let bob = rig.person("bob");
    bob.done(&["join", &ticket]);
    let said = bob.refused(3, &["sub", "s", "--from", "start", "--count", "1"]);
    assert!(said.contains("1 message sealed"), "{said}");
}

fn a_grant_reaches_one_who_follows_already(rig: &Rig) {
    let (alice, ticket) = rig.owner("alice", "s");
    let bob = rig.person("bob");
    bob.done(&["join", &ticket]);
    alice.done(&["pub", "s", "-m", "sealed for now"]);
    let mut sub = bob.start(&["sub", "s", "--from", "start", "--json", "--count", "2"]);
    let mut lines = BufReader::new(sub.stdout.take().unwrap()).lines();
    assert!(
        lines
            .next()
            .unwrap()
            .unwrap()
            .contains(r#""state":"sealed""#)
    );
    alice.done(&["grant", "s", &bob.id()]);
    alice.done(&["pub", "s", "-m", "opened at once"]);
    let second = lines.next().unwrap().unwrap();
    assert!(second.contains("opened at once"), "{second}");
    assert_eq!(sub.wait().unwrap().code(), Some(3));
}

/// What waits is told to the person, survives the program, and is printed when its key has come.
fn what_waits_is_printed_by_a_later_sub_once_it_is_granted(rig: &Rig) {
    let (alice, ticket) = rig.owner("alice", "s");
    let bob = rig.person("bob");
    bob.done(&["join", &ticket]);
    for text in ["one", "two", "three"] {
        alice.done(&["pub", "s", "-m", text]);
    }
    let said = bob.refused(3, &["sub", "s", "--from", "start", "--count", "3"]);
    assert!(said.contains("1 message waits for its key"), "{said}");
    assert!(
        said.contains("3 messages sealed: no grant of yours"),
        "{said}"
    );
    assert!(
        said.contains("3 messages wait here: `sealcast sub s` prints them"),
        "{said}"
    );
    let doctor = bob.done(&["doctor"]);
    assert!(
        doctor.contains("stream `s`: 3 messages wait for their keys"),
        "{doctor}"
    );
    assert_eq!(bob.problems(), [""; 0]);

    alice.done(&["grant", "s", &bob.id(), "--from", "start"]);
    let args = ["sub", "s", "--count", "3"];
    let ran = bob.run(&args);
    assert_eq!(ran.expect(0, &args), "one\ntwo\nthree");
    assert!(
        ran.stderr.contains("3 messages wait for their keys"),
        "{}",
        ran.stderr
    );
    let doctor = bob.done(&["doctor"]);
    assert!(!doctor.contains("wait for"), "{doctor}");
    assert_eq!(bob.done(&["sub", "s", "--for", "0s"]), "");
}

fn a_line_of_json_says_what_waits_and_what_waited(rig: &Rig) {
    let (alice, ticket) = rig.owner("alice", "s");
    let bob = rig.person("bob");
    bob.done(&["join", &ticket]);
    alice.done(&["pub", "s", "-m", "text"]);
    let mut sub = bob.start(&["sub", "s", "--from", "start", "--json", "--count", "2"]);
    let mut lines = BufReader::new(sub.stdout.take().unwrap()).lines();
    let mut next =
        || -> serde_json::Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    let waits = next();
    assert_eq!(
        (&waits["state"], &waits["parked"]),
        (&"sealed".into(), &"waits".into())
    );
    alice.done(&["grant", "s", &bob.id(), "--from", "start"]);
    let opened = next();
    assert_eq!(
        (&opened["text"], &opened["parked"]),
        (&"text".into(), &"waited".into())
    );
    assert_eq!(opened["seq"], waits["seq"]);
    // Nothing stayed sealed.
    assert_eq!(sub.wait().unwrap().code(), Some(0));
}

#[cfg(unix)]
#[test]
fn asked_to_end_a_follower_and_a_publisher_end_well() {
    for signal in ["INT", "TERM"] {
        let rig = Rig::new();
        let (kim, _) = rig.owner("kim", "s");
        let mut sub = kim.start(&["sub", "s", "--from", "start"]);
        let mut publisher = kim.start(&["pub", "s", "-l"]);
        let mut stdin = publisher.stdin.take().unwrap();
        stdin.write_all(b"taken\n").unwrap();
        let mut lines = BufReader::new(sub.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "taken");
        for child in [&mut publisher, &mut sub] {
            let kill = format!("kill -{signal} {}", child.id());
            let killed = std::process::Command::new("sh")
                .args(["-c", &kill])
                .status()
                .unwrap();
            assert!(killed.success());
            assert_eq!(child.wait().unwrap().code(), Some(0), "{signal}");
        }
        assert_eq!(kim.done(&["read", "s"]), "taken");
    }
}

//! Folders that were copied: a home used twice, a home or a bus put back, a bus that is damaged.

use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use crate::kinds::on_every_bus;
use crate::rig::{Person, Rig};

/// For what must come.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a program prints, line by line.
fn lines(of: impl Read + Send + 'static) -> Receiver<String> {
    let (to, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(of).lines().map_while(Result::ok) {
            let _is_read = to.send(line).is_ok();
        }
    });
    lines
}

on_every_bus![a_home_that_was_put_back_goes_on_and_says_so];

pub(crate) fn copy(from: &Path, to: &Path) {
    let _was_there = std::fs::remove_dir_all(to).is_ok();
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), &to).unwrap()),
        }
    }
}

fn publish(of: &Person, text: &str) -> String {
    let ran = of.run_with(&["pub", "boiler"], text.as_bytes());
    ran.expect(0, &["pub", text]);
    ran.stderr
}

/// Alice owns a stream that bob reads.
fn alice_and_bob(rig: &Rig) -> (Person, Person) {
    let (alice, ticket) = rig.owner("alice", "boiler");
    let bob = rig.person("bob");
    bob.done(&["join", &ticket]);
    alice.done(&["grant", "boiler", &bob.id(), "--from", "start"]);
    (alice, bob)
}

/// On a broker that keeps no history the copy cannot know what the original published meanwhile.
#[test]
fn a_home_that_was_copied_and_is_used_twice_is_told_and_loses_nothing() {
    let rig = Rig::new();
    let (alice, bob) = alice_and_bob(&rig);
    let clone = rig.stranger("clone");
    publish(&alice, "one");
    copy(alice.home(), clone.home());
    publish(&alice, "two");
    let told = publish(&clone, "three");
    assert!(told.contains("alarm: this home is older"), "{told}");
    assert!(
        told.contains("hint: use one copy of this home only"),
        "{told}"
    );
    alice.done(&["rekey", "boiler"]);
    clone.done(&["grant", "boiler", &bob.id(), "--from", "start"]);
    let told = publish(&alice, "four");
    assert!(told.contains("alarm: this home is older"), "{told}");
    let read = ["read", "boiler"];
    assert_eq!(bob.opened(&read), ["one", "two", "three", "four"]);
    assert!(bob.count("branch", &read) > 0);
    assert_eq!(bob.count("fork", &read), 0);
}

fn a_home_that_was_put_back_goes_on_and_says_so(rig: &Rig) {
    let (alice, bob) = alice_and_bob(rig);
    let backup = rig.path().join("backup");
    publish(&alice, "one");
    copy(alice.home(), &backup);
    publish(&alice, "two");
    alice.done(&["rekey", "boiler"]);
    publish(&alice, "three");
    copy(&backup, alice.home());
    let (code, lines) = alice.json(&["doctor"]);
    let is_told = |line: &serde_json::Value| {
        line["problem"] == true
            && line["text"]
                .as_str()
                .unwrap()
                .contains("this home is older")
    };
    assert!(code == 0 && lines.iter().any(is_told), "{lines:?}");
    publish(&alice, "four");
    let read = ["read", "boiler"];
    assert_eq!(bob.opened(&read), ["one", "two", "three", "four"]);
    assert_eq!(bob.count("branch", &read), 1);
}

#[test]
fn a_bus_of_last_night_is_put_in_order_by_the_next_commands() {
    let rig = Rig::new();
    let (alice, bob) = alice_and_bob(&rig);
    let (bus, backup) = (rig.path().join("bus"), rig.path().join("backup"));
    publish(&alice, "kept");
    assert_eq!(bob.opened(&["read", "boiler"]), ["kept"]);
    copy(&bus, &backup);
    let carol = rig.person("carol");
    carol.done(&["join", &alice.done(&["ticket", "boiler"])]);
    alice.done(&["grant", "boiler", &carol.id(), "--from", "start"]);
    publish(&alice, "lost");
    copy(&backup, &bus);

    let told = publish(&alice, "after");
    assert!(told.contains("alarm: the bus has lost"), "{told}");
    for reader in [&bob, &carol, &alice] {
        let read = ["read", "boiler"];
        assert_eq!(reader.opened(&read), ["kept", "after"]);
        assert_eq!(reader.count("gap", &read), 1);
    }
    let (_, who) = alice.json(&["who", "boiler"]);
    assert_eq!(who.len(), 3);
    assert!(!publish(&alice, "in order").contains("alarm"));
}

/// Nobody learns of it when the program ends, in a month.
#[test]
fn who_follows_is_told_at_once_what_a_bus_has_lost() {
    let rig = Rig::new();
    let (alice, ticket) = rig.owner("alice", "s");
    let bob = rig.person("bob");
    bob.done(&["join", &ticket]);
    alice.done(&["grant", "s", &bob.id(), "--from", "start"]);
    alice.done(&["pub", "s", "-m", "one"]);
    let mut sub = bob.start(&["sub", "s", "--from", "start"]);
    let (printed, said) = (
        lines(sub.stdout.take().unwrap()),
        lines(sub.stderr.take().unwrap()),
    );
    assert_eq!(printed.recv_timeout(PATIENCE).expect("a line comes"), "one");
    rig.drop_last(&alice.topic("keys"));
    rig.drop_last(&alice.topic("keys"));
    alice.done(&["pub", "s", "-m", "two"]);
    assert_eq!(printed.recv_timeout(PATIENCE).expect("a line comes"), "two");
    loop {
        let line = said.recv_timeout(PATIENCE).expect("an alarm is told");
        if line.starts_with("alarm: the bus has lost") {
            break;
        }
    }
    sub.kill().unwrap();
    sub.wait().unwrap();
}

#[test]
fn what_a_damaged_bus_still_shows_is_printed_and_the_damage_told() {
    let rig = Rig::new();
    let (alice, bob) = alice_and_bob(&rig);
    let lines: Vec<_> = (0..40).map(|i| format!("message {i}")).collect();
    for line in &lines {
        publish(&alice, line);
    }
    assert_eq!(bob.opened(&["read", "boiler"]), lines);
    let file = rig.path().join("bus/bus.db");
    {
        let database = rusqlite::Connection::open(&file).unwrap();
        let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
        database.query_row(sql, [], |_| Ok(())).unwrap();
    }
    let whole = std::fs::read(&file).unwrap();
    let mut partly = 0;
    for page in (1..whole.len() / 4096).rev().take(8) {
        let mut broken = whole.clone();
        broken[page * 4096..][..4096].fill(0);
        for left in ["bus.db-wal", "bus.db-shm"] {
            let _was_there = std::fs::remove_file(rig.path().join("bus").join(left)).is_ok();
        }
        std::fs::write(&file, broken).unwrap();
        let ran = bob.run(&["read", "boiler"]);
        let printed = String::from_utf8(ran.stdout).unwrap();
        let printed: Vec<_> = printed.lines().collect();
        assert!(printed.iter().all(|line| lines.iter().any(|of| of == line)));
        match printed.len() == lines.len() {
            true => assert_eq!(ran.code, 0, "{}", ran.stderr),
            false => {
                assert_eq!(ran.code, 5, "{}", ran.stderr);
                let hint = "hint: put a backup of the bus in its place";
                assert!(ran.stderr.contains(hint), "{}", ran.stderr);
                partly += usize::from(!printed.is_empty());
            }
        }
    }
    assert!(partly > 1, "{partly}");
}

//! Homes in files: backed up, restored, gone on with.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;

use crate::rig::{KEY, OTHER_KEY, Person, Rig};

fn backup(person: &Person, file: &str) {
    person.done(&["backup", file, "--recipient", KEY.0, "--overwrite"]);
}

/// The home of a backup, made anew.
fn restored(rig: &Rig, file: &str, name: &str) -> Person {
    let key = rig.file("backup.key", KEY.1.as_bytes());
    let person = rig.stranger(name);
    person.done(&["restore", file, "--identity", &key, "--no-passphrase"]);
    person
}

fn joined(rig: &Rig, owner: &Person, name: &str) -> Person {
    let person = rig.person(name);
    person.done(&["join", &owner.done(&["ticket", "s"])]);
    person
}

#[test]
fn an_older_backup_opens_all_and_goes_on() {
    let rig = Rig::new();
    let (alice, _) = rig.owner("alice", "s");
    let (bob, carol, dave) = (
        joined(&rig, &alice, "bob"),
        joined(&rig, &alice, "carol"),
        joined(&rig, &alice, "dave"),
    );
    alice.done(&["contact", "add", "bob", &bob.id()]);
    alice.done(&["pub", "s", "-m", "one"]);
    alice.done(&["grant", "s", "bob", "--from", "start"]);
    backup(&alice, "alice.age");

    alice.done(&["pub", "s", "-m", "two"]);
    alice.done(&["rekey", "s"]);
    alice.done(&["pub", "s", "-m", "three"]);
    alice.done(&["grant", "s", &carol.id(), "--from", "start"]);
    fs::remove_dir_all(alice.home()).unwrap();

    let again = restored(&rig, "alice.age", "again");
    let said = again.run(&["read", "s"]).stderr;
    assert!(said.contains("it was restored from a copy"), "{said}");
    assert_eq!(again.opened(&["read", "s"]), ["one", "two", "three"]);
    again.done(&["pub", "s", "-m", "four"]);
    again.done(&["grant", "s", &dave.id(), "--from", "start"]);
    let four = ["one", "two", "three", "four"];
    for reader in [&bob, &carol, &dave, &again] {
        assert_eq!(reader.opened(&["read", "s"]), four);
    }
    again.done(&["revoke", "s", "bob"]);
    again.done(&["pub", "s", "-m", "five"]);
    assert_eq!(bob.opened(&["read", "s"]), four);
    assert_eq!(carol.opened(&["read", "s"]).last().unwrap(), "five");
    // Its entries follow those that were written after the backup.
    let problems = again.problems();
    assert!(
        problems.iter().all(|text| text.contains("backup")),
        "{problems:?}"
    );
    assert_never_twice(&rig, &again);
}

/// No envelope has the key of another: session, position, device, instance and number together.
fn assert_never_twice(rig: &Rig, person: &Person) {
    let envelopes = person.envelopes(rig);
    let place = |of: &serde_json::Value| {
        ["session", "position", "device", "instance", "seq"].map(|key| of[key].to_string())
    };
    let places: BTreeSet<_> = envelopes.iter().map(place).collect();
    assert_eq!(places.len(), envelopes.len());
    let runs: BTreeSet<_> = envelopes
        .iter()
        .map(|of| of["instance"].to_string())
        .collect();
    assert_eq!(
        runs.len(),
        envelopes.len(),
        "each command is a run of its own"
    );
}

#[test]
fn a_restored_home_beside_the_living_one_repeats_nothing_and_all_opens() {
    let rig = Rig::new();
    let (alice, _) = rig.owner("alice", "s");
    let bob = joined(&rig, &alice, "bob");
    alice.done(&["grant", "s", &bob.id(), "--from", "start"]);
    alice.done(&["pub", "s", "-m", "0"]);
    backup(&alice, "alice.age");
    alice.done(&["pub", "s", "-m", "1"]);
    let again = restored(&rig, "alice.age", "again");
    let mut texts = vec!["0".to_owned(), "1".to_owned()];
    let mut drawn = [BTreeSet::new(), BTreeSet::new()];
    for round in 2..6 {
        let (at, person) = match round % 2 {
            0 => (0, &again),
            _ => (1, &alice),
        };
        let text = round.to_string();
        person.done(&["pub", "s", "-m", &text]);
        texts.push(text);
        let last = alice.envelopes(&rig).pop().unwrap();
        drawn[at].insert(last["session"].to_string());
    }
    assert!(
        drawn[0].is_disjoint(&drawn[1]),
        "no session is sealed with by both"
    );
    assert_never_twice(&rig, &alice);
    for reader in [&alice, &again, &bob] {
        assert_eq!(reader.opened(&["read", "s"]), texts);
    }
    assert!(
        bob.count("branch", &["read", "s"]) > 0,
        "two copies are told"
    );
    // Entries are written in turn: each reads the other's first.
    alice.done(&["contact", "add", "bob", &bob.id()]);
    again.done(&["revoke", "s", &bob.id()]);
    alice.done(&["grant", "s", "bob", "--from", "start"]);
    let problems = [alice.problems(), again.problems()].concat();
    let is_told =
        |text: &String| text.contains("backup") || text.contains("a copy of it is in use");
    assert!(problems.iter().all(is_told), "{problems:?}");
}

/// As the top of a disk of its own, or a folder that somebody else made, may be.
#[cfg(unix)]
#[test]
fn a_home_is_restored_into_a_folder_that_is_there_and_may_be_a_link() {
    let rig = Rig::new();
    let (alice, _) = rig.owner("alice", "s");
    alice.done(&["pub", "s", "-m", "one"]);
    backup(&alice, "alice.age");
    let again = rig.stranger("again");
    let disk = rig.path().join("disk");
    fs::create_dir(&disk).unwrap();
    fs::write(disk.join("other"), "kept").unwrap();
    std::os::unix::fs::symlink(&disk, again.home()).unwrap();
    let again = restored(&rig, "alice.age", "again");
    assert_eq!(again.opened(&["read", "s"]), ["one"]);
    let names = fs::read_dir(&disk).unwrap();
    let names = names.map(|of| of.unwrap().file_name().into_string().unwrap());
    let names: BTreeSet<_> = names.collect();
    let left = ["other", "store.db", "store.key"].map(String::from);
    assert_eq!(names, BTreeSet::from(left));
}

/// Nobody thinks of a passphrase for a home that cannot be made.
#[test]
fn the_file_is_opened_before_a_passphrase_for_the_new_home_is_asked_for() {
    let rig = Rig::new();
    let (alice, _) = rig.owner("alice", "s");
    backup(&alice, "alice.age");
    let again = rig.stranger("again");
    for (key, code, says) in [
        (OTHER_KEY.1, 6, "none of these age keys"),
        (KEY.1, 2, "no terminal to ask for a passphrase"),
    ] {
        let key = rig.file("backup.key", key.as_bytes());
        let run = again.run(&["restore", "alice.age", "--identity", &key]);
        assert_eq!(run.code, code, "{}", run.stderr);
        assert!(run.stderr.contains(says), "{}", run.stderr);
        assert!(!again.home().exists());
    }
}

#[test]
fn a_bus_put_back_with_the_home_is_noticed_and_keys_are_given_again() {
    let rig = Rig::new();
    let (alice, _) = rig.owner("alice", "s");
    let bob = joined(&rig, &alice, "bob");
    alice.done(&["pub", "s", "-m", "x"]);
    alice.done(&["grant", "s", &bob.id(), "--from", "start"]);
    backup(&alice, "alice.age");
    rig.drop_last(&alice.topic("keys"));
    assert_eq!(bob.count("sealed", &["read", "s"]), 1, "his keys are gone");
    let ran = restored(&rig, "alice.age", "again").run(&["who", "s"]);
    assert!(ran.stderr.contains("the bus has lost"), "{}", ran.stderr);
    assert_eq!(bob.opened(&["read", "s"]), ["x"]);
}

#[test]
fn what_was_followed_live_before_is_followed_again() {
    let rig = Rig::new();
    let (alice, _) = rig.owner("alice", "s");
    let bob = joined(&rig, &alice, "bob");
    alice.done(&["grant", "s", &bob.id()]);
    let follow = ["sub", "s", "--from", "start", "--count", "1"];
    alice.done(&["pub", "s", "-m", "x"]);
    assert_eq!(bob.done(&follow), "x");
    backup(&bob, "bob.age");
    let again = restored(&rig, "bob.age", "again");
    assert_eq!(again.done(&follow), "x");
    assert_eq!(again.opened(&["read", "s"]), ["x"]);
    assert_eq!(again.count("replay", &["read", "s"]), 0);
}

#[test]
fn a_backup_is_opened_by_its_passphrase_and_the_new_home_by_its_own() {
    let rig = Rig::new();
    let (kim, _) = rig.owner("kim", "s");
    let [file, home] = ["of-file", "of-home"].map(|name| rig.file(name, name.as_bytes()));
    kim.done(&["backup", "kim.age", "--file-passphrase", &file]);
    let new = rig.stranger("new");
    let restore = ["restore", "kim.age", "--passphrase-file", &home];
    let said = new.refused(2, &restore);
    assert!(said.contains("--file-passphrase"), "{said}");
    let wrong = [&restore[..], &["--file-passphrase", &home]].concat();
    assert!(new.refused(6, &wrong).contains("wrong passphrase"));
    assert!(!new.home().exists(), "nothing is left of a try");
    new.done(&[&restore[..], &["--file-passphrase", &file]].concat());
    new.refused(6, &["id", "--passphrase-file", &file]);
    assert_eq!(new.done(&["id", "--passphrase-file", &home]), kim.id());
    // Where the home is to have none, there is one passphrase that can be meant.
    let bare = rig.stranger("bare");
    bare.done(&[
        "restore",
        "kim.age",
        "--no-passphrase",
        "--passphrase-file",
        &file,
    ]);
    assert_eq!(bare.done(&["id"]), kim.id());
}

#[test]
fn a_home_that_is_there_stays_and_a_folder_with_other_things_is_used() {
    let rig = Rig::new();
    let (kim, _) = rig.owner("kim", "s");
    backup(&kim, "kim.age");
    let lee = rig.person("lee");
    let id = lee.id();
    let key = rig.file("key", KEY.1.as_bytes());
    lee.refused(
        2,
        &["restore", "kim.age", "--identity", &key, "--no-passphrase"],
    );
    assert_eq!(lee.id(), id);
    fs::create_dir_all(rig.path().join("used/bus")).unwrap();
    let used = restored(&rig, "kim.age", "used");
    assert_eq!(used.id(), kim.id());
    assert!(rig.path().join("used/bus").is_dir());
    let deep = restored(&rig, "kim.age", "deep/er");
    assert_eq!(deep.id(), kim.id());
    rig.file("file", b"");
    let none = rig.stranger("file");
    none.refused(
        6,
        &["restore", "kim.age", "--identity", &key, "--no-passphrase"],
    );
    let left = fs::read_dir(rig.path()).unwrap();
    let mut left = left.map(|of| of.unwrap().file_name().into_string().unwrap());
    assert!(left.all(|name| !name.contains(".restore-")));
}

/// `--overwrite` is for yesterday's backup.
#[test]
fn a_store_its_key_and_a_bus_are_not_replaced_by_a_file() {
    let rig = Rig::new();
    let (kim, _) = rig.owner("kim", "s");
    kim.done(&["pub", "s", "-m", "x"]);
    for place in ["kim/store.db", "kim/store.key", "bus/bus.db"] {
        let replaces = ["--recipient", KEY.0, "--overwrite"];
        let backup = [&["backup", place][..], &replaces].concat();
        let export = [&["keys", "export", "s", "-o", place][..], &replaces].concat();
        for args in [backup, export] {
            let said = kim.refused(2, &args);
            assert!(said.contains("is not replaced"), "{said}");
        }
    }
    assert_eq!(kim.opened(&["read", "s"]), ["x"]);
}

#[test]
fn a_folder_with_half_a_home_is_left_alone_and_a_way_out_is_named() {
    let rig = Rig::new();
    let (kim, _) = rig.owner("kim", "s");
    backup(&kim, "kim.age");
    let key = rig.file("key", KEY.1.as_bytes());
    let half = rig.stranger("half");
    fs::create_dir(half.home()).unwrap();
    fs::copy(kim.home().join("store.key"), half.home().join("store.key")).unwrap();
    let restore = ["restore", "kim.age", "--identity", &key, "--no-passphrase"];
    for args in [&restore[..], &["init", "--no-passphrase"]] {
        let said = half.refused(6, args);
        assert!(said.contains("take `store.key`"), "{said}");
    }
    fs::remove_file(half.home().join("store.key")).unwrap();
    half.done(&restore);
}

#[test]
fn a_backup_cut_off_or_altered_makes_no_home() {
    let rig = Rig::new();
    let (kim, _) = rig.owner("kim", "s");
    backup(&kim, "kim.age");
    let good = fs::read(rig.path().join("kim.age")).unwrap();
    let key = rig.file("key", KEY.1.as_bytes());
    let other = rig.file("other", OTHER_KEY.1.as_bytes());
    let new = rig.stranger("new");
    new.refused(
        6,
        &[
            "restore",
            "kim.age",
            "--identity",
            &other,
            "--no-passphrase",
        ],
    );
    let restore = ["restore", "bad.age", "--identity", &key, "--no-passphrase"];
    for at in [100, 220, good.len() / 2, good.len() - 1] {
        rig.file("bad.age", &good[..at]);
        new.refused(6, &restore);
        let mut altered = good.clone();
        altered[at] ^= 0x10;
        rig.file("bad.age", &altered);
        new.refused(6, &restore);
        assert!(!new.home().exists());
    }
}

#[test]
fn a_backup_made_while_another_command_publishes_is_whole() {
    let rig = Rig::new();
    let (kim, _) = rig.owner("kim", "s");
    let mut child = kim.start(&["pub", "s", "-l"]);
    let mut stdin = child.stdin.take().unwrap();
    for file in ["1.age", "2.age", "3.age"] {
        writeln!(stdin, "{file}").unwrap();
        backup(&kim, file);
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
    for file in ["1.age", "3.age"] {
        let again = restored(&rig, file, &format!("home-{file}"));
        assert_eq!(again.opened(&["read", "s"]), ["1.age", "2.age", "3.age"]);
        again.done(&["pub", "s", "-m", "x", "--quiet"]);
        rig.drop_last(&kim.data_topic());
    }
}

#[test]
fn who_owns_a_stream_alone_is_told_to_back_up_until_it_is_done() {
    let rig = Rig::new();
    let kim = rig.person("kim");
    assert_eq!(kim.problems().len(), 0, "nothing is at stake yet");
    let said = kim.run(&["stream", "create", "s"]).stderr;
    assert!(said.contains("sealcast backup"), "{said}");
    assert_eq!(kim.problems().len(), 1);
    backup(&kim, "kim.age");
    assert_eq!(kim.problems().len(), 0);
    kim.done(&["pub", "s", "-m", "x"]);
    let problems = kim.problems();
    assert!(
        problems[0].contains("newer than its backup"),
        "{problems:?}"
    );
    // A backup that was not written does not count.
    kim.refused(2, &["backup", "kim.age", "--recipient", KEY.0]);
    assert_eq!(kim.problems().len(), 1);
    backup(&kim, "kim.age");
    assert_eq!(kim.problems().len(), 0);
    assert_eq!(restored(&rig, "kim.age", "again").problems().len(), 0);
    kim.done(&["rekey", "s"]);
    assert_eq!(kim.problems().len(), 1);
    // Another keyholder is as good as a backup.
    let lee = joined(&rig, &kim, "lee");
    assert_eq!(lee.problems().len(), 0);
    kim.done(&["grant", "s", &lee.id(), "--role", "admin"]);
    assert_eq!(kim.problems().len(), 0);
    let said = rig.stranger("new").run(&["init", "--no-passphrase"]).stderr;
    assert!(said.contains("sealcast backup"), "{said}");
}

//! Homes: made, opened, refused, damaged.

use std::fs;

use crate::rig::{KEY, Rig};

#[test]
fn init_tells_user_device_and_bus() {
    let rig = Rig::new();
    let kim = rig.stranger("kim");
    let (code, lines) = kim.json(&["init", "--no-passphrase"]);
    assert_eq!(code, 0);
    let made = lines[0].as_object().unwrap();
    assert_eq!(made.keys().collect::<Vec<_>>(), ["bus", "device", "user"]);
    assert!(made["user"].as_str().unwrap().starts_with("sc1"));
    assert_eq!(made["device"].as_str().unwrap().len(), 32);
    let bus = format!("file://{}", kim.home().join("bus").display());
    assert_eq!(made["bus"], bus.as_str());
    assert_eq!(kim.id(), made["user"].as_str().unwrap());
}

#[test]
fn a_relative_bus_is_a_folder_below_the_working_folder_and_is_made() {
    let rig = Rig::new();
    let kim = rig.person("kim");
    kim.done(&["stream", "create", "s", "--bus", "file:deep/er/bus"]);
    kim.done(&["pub", "s", "-m", "x"]);
    assert!(rig.path().join("deep/er/bus").is_dir());
}

#[test]
fn init_without_a_terminal_a_file_or_the_flag_is_a_usage_error_with_a_hint() {
    let rig = Rig::new();
    let kim = rig.stranger("kim");
    let said = kim.refused(2, &["init"]);
    assert!(
        said.contains("hint:") && said.contains("--no-passphrase"),
        "{said}"
    );
    assert!(!kim.home().join("store.db").exists());
}

#[test]
fn a_home_is_not_made_twice() {
    let rig = Rig::new();
    let kim = rig.person("kim");
    let id = kim.id();
    kim.refused(2, &["init", "--no-passphrase"]);
    assert_eq!(kim.id(), id);
}

#[test]
fn a_missing_home_is_missing() {
    let rig = Rig::new();
    let kim = rig.stranger("kim");
    assert!(kim.refused(7, &["id"]).contains("sealcast init"));
}

#[test]
fn a_passphrase_opens_its_home_and_another_does_not() {
    let rig = Rig::new();
    let kim = rig.stranger("kim");
    let right = rig.file("right", b"correct horse\n");
    let same = rig.file("same", b"correct horse");
    let wrong = rig.file("wrong", b"correct house\n");
    kim.done(&["init", "--passphrase-file", &right]);
    kim.done(&["id", "--passphrase-file", &same]);
    let said = kim.refused(6, &["id", "--passphrase-file", &wrong]);
    assert!(said.contains("wrong passphrase"), "{said}");
    kim.refused(2, &["id"]);
    kim.refused(7, &["id", "--passphrase-file", "no-such-file"]);
    kim.refused(2, &["init", "--no-passphrase", "--passphrase-file", &right]);
    let mut through_environment = kim.command(&["id"]);
    through_environment.env("SEALCAST_PASSPHRASE_FILE", &right);
    assert!(through_environment.status().unwrap().success());
}

#[cfg(unix)]
#[test]
fn the_key_of_a_home_without_a_passphrase_is_for_its_user_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let rig = Rig::new();
    let kim = rig.person("kim");
    let mut modes = Vec::new();
    for entry in fs::read_dir(kim.home()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        modes.push((entry.file_name().into_string().unwrap(), mode));
    }
    let key = modes.iter().find(|(name, _)| name == "store.key");
    assert_eq!(key.map(|(_, mode)| *mode), Some(0o600), "{modes:?}");
}

#[test]
fn a_damaged_store_is_told_and_nothing_is_read_from_it() {
    let rig = Rig::new();
    let (kim, _) = rig.owner("kim", "s");
    kim.done(&["pub", "s", "-m", "before"]);
    let store = kim.home().join("store.db");
    let size = fs::metadata(&store).unwrap().len();
    assert!(size > 0);
    for other in ["store.db-wal", "store.db-shm"] {
        let _ = fs::remove_file(kim.home().join(other));
    }
    fs::write(&store, vec![0xa5; usize::try_from(size).unwrap()]).unwrap();
    for args in [&["id"][..], &["pub", "s", "-m", "after"], &["read", "s"]] {
        let said = kim.refused(6, args);
        assert!(said.starts_with("error: "), "{said}");
    }
}

#[test]
fn a_damaged_store_key_is_told() {
    let rig = Rig::new();
    let kim = rig.person("kim");
    fs::write(kim.home().join("store.key"), b"not a key").unwrap();
    kim.refused(6, &["id"]);
}

#[test]
fn a_folder_that_cannot_be_written_is_told() {
    let rig = Rig::new();
    // A file where a folder is needed: not even root can write below it.
    rig.file("in-the-way", b"");
    let kim = rig.stranger("in-the-way/home");
    let said = kim.refused(6, &["init", "--no-passphrase"]);
    assert!(said.contains("in-the-way"), "{said}");

    let dana = rig.person("dana");
    let said = dana.refused(
        5,
        &["stream", "create", "s", "--bus", "file:in-the-way/bus"],
    );
    assert!(said.contains("in-the-way"), "{said}");
    assert_eq!(
        dana.done(&["stream", "list"]),
        "",
        "nothing half-made stays"
    );
}

#[test]
fn errors_are_one_object_with_json() {
    let rig = Rig::new();
    let kim = rig.person("kim");
    for (args, code, name) in [
        (&["read", "nowhere"][..], 7, "stream.unknown"),
        (&["join", "sealcast1:xx"], 2, "usage"),
        (&["read", "nowhere", "--from", "later"], 2, "usage"),
    ] {
        let ran = kim.run(&[args, &["--json"]].concat());
        assert_eq!(ran.code, code, "{args:?}");
        assert!(ran.stdout.is_empty(), "{args:?}");
        let line: serde_json::Value = serde_json::from_str(&ran.stderr).unwrap();
        let keys: Vec<_> = line.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["code", "hint", "message"], "{args:?}");
        assert_eq!(line["code"], name, "{args:?}");
    }
}

#[test]
fn contacts_have_names_and_fingerprints() {
    let rig = Rig::new();
    let (alice, bob) = (rig.person("alice"), rig.person("bob"));
    alice.done(&["contact", "add", "bob", &bob.id()]);
    bob.done(&["contact", "add", "alice", &alice.id()]);
    assert_eq!(
        alice.done(&["contact", "list"]),
        format!("bob  {}", bob.id())
    );
    let (_, seen) = alice.json(&["contact", "verify", "bob"]);
    let (_, seen_by_bob) = bob.json(&["contact", "verify", "alice"]);
    assert_eq!(seen[0]["yours"], seen_by_bob[0]["theirs"]);
    assert_eq!(seen[0]["theirs"], seen_by_bob[0]["yours"]);
    assert_ne!(seen[0]["yours"], seen[0]["theirs"]);
    let shown = alice.done(&["contact", "verify", "bob"]);
    assert!(
        shown.contains(seen[0]["yours"].as_str().unwrap()),
        "{shown}"
    );
    assert!(
        shown.contains(seen[0]["theirs"].as_str().unwrap()),
        "{shown}"
    );
    alice.refused(7, &["contact", "verify", "nobody"]);
    alice.refused(2, &["contact", "add", "eve", "sc1nonsense"]);
}

#[test]
fn doctor_looks_and_ends_well() {
    let rig = Rig::new();
    let (kim, _) = rig.owner("kim", "s");
    kim.done(&["doctor"]);
    kim.done(&["backup", "kim.age", "--recipient", KEY.0]);
    let (code, lines) = kim.json(&["doctor"]);
    assert_eq!(code, 0);
    assert!(
        lines.iter().all(|line| line["problem"] == false),
        "{lines:?}"
    );
}

#[test]
fn quiet_leaves_data_and_errors_only() {
    let rig = Rig::new();
    let (kim, _) = rig.owner("kim", "s");
    let ran = kim.run(&["pub", "s", "-m", "x", "--quiet"]);
    assert_eq!((ran.stderr.as_str(), ran.stdout.len()), ("", 0));
    let ran = kim.run(&["read", "s", "--quiet"]);
    assert_eq!(
        (ran.stderr.as_str(), ran.stdout.as_slice()),
        ("", &b"x\n"[..])
    );
    assert!(!kim.refused(7, &["read", "nowhere", "-q"]).is_empty());
}

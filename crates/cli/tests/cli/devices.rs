//! Several devices of one user, as commands.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Child;
use std::thread;
use std::time::Duration;

use sealcast_crash::Chance;

use crate::kinds::on_every_bus;
use crate::rig::{Person, Ran, Rig};

on_every_bus![a_device_is_added_reads_the_history_and_opens_nothing_once_it_is_revoked];

/// A folder where a device begins to wait, and the code that it shows.
fn begin(rig: &Rig, name: &str, args: &[&str]) -> (Person, String) {
    let phone = rig.stranger(name);
    let fixed = ["device", "join", "--no-passphrase", "--wait", "0s"];
    let ran = phone.run(&[&fixed[..], args].concat());
    assert_eq!(ran.code, 7, "{}", ran.stderr);
    assert!(ran.stderr.contains("no device has added this one yet"));
    let code = String::from_utf8(ran.stdout).unwrap().trim().to_owned();
    assert_eq!(code.split('-').map(str::len).collect::<Vec<_>>(), [4; 7]);
    (phone, code)
}

/// Starts what waits to be added.
fn wait(phone: &Person) -> (Child, String) {
    let mut child = phone.start(&["device", "join"]);
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut code = String::new();
    stdout.read_line(&mut code).unwrap();
    child.stdout = Some(stdout.into_inner());
    (child, code.trim().to_owned())
}

fn added(child: Child) -> String {
    let ran = Ran::of(child.wait_with_output().unwrap());
    ran.expect(0, &["device", "join"])
}

/// Adds a device that is there as long as it takes.
pub(crate) fn add(rig: &Rig, owner: &Person, name: &str) -> Person {
    let (phone, code) = begin(rig, name, &["--bus", rig.bus_url()]);
    let (child, shown) = wait(&phone);
    assert_eq!(shown, code);
    // Not as an argument, where others could see it.
    let said = owner.done_with(&["device", "add", "--name", name, "--yes"], code.as_bytes());
    assert!(!said.contains(&code), "{said}");
    assert_eq!(added(child), owner.id());
    phone
}

fn a_device_is_added_reads_the_history_and_opens_nothing_once_it_is_revoked(rig: &Rig) {
    let (alice, _) = rig.owner("alice", "boiler");
    alice.done(&["pub", "boiler", "-m", "one"]);
    let phone = add(rig, &alice, "phone");
    assert_eq!(phone.opened(&["read", "boiler"]), ["one"]);
    phone.done(&["pub", "boiler", "-m", "two"]);
    assert_eq!(alice.opened(&["read", "boiler"]), ["one", "two"]);
    assert_eq!(phone.done(&["device", "join"]), alice.id());

    let (_, lines) = alice.json(&["device", "list"]);
    let states: Vec<_> = lines.iter().map(|of| (&of["name"], &of["this"])).collect();
    assert_eq!(
        states,
        [
            (&serde_json::Value::Null, &true.into()),
            (&"phone".into(), &false.into())
        ]
    );
    assert!(
        lines
            .iter()
            .all(|of| of["state"] == "live" && of["used"].is_string())
    );

    alice.done(&["device", "revoke", "phone"]);
    alice.done(&["device", "revoke", "phone"]);
    alice.done(&["pub", "boiler", "-m", "three"]);
    assert_eq!(phone.opened(&["read", "boiler"]), ["one", "two"]);
    assert_eq!(alice.opened(&["read", "boiler"]), ["one", "two", "three"]);
    let (_, lines) = alice.json(&["device", "list"]);
    assert_eq!((&lines[1]["state"], lines.len()), (&"revoked".into(), 2));
    phone.refused(4, &["pub", "boiler", "-m", "stolen"]);
    assert!(
        phone
            .problems()
            .iter()
            .any(|of| of.contains("this device was revoked"))
    );
    assert!(
        alice
            .problems()
            .iter()
            .all(|of| of.contains("in this home alone"))
    );
}

/// Both commands in turn, on a folder that is carried from one to the other.
#[test]
fn devices_that_are_never_there_together_meet_in_a_folder_on_a_stick() {
    let rig = Rig::new();
    let (alice, _) = rig.owner("alice", "boiler");
    alice.done(&["pub", "boiler", "-m", "one"]);
    let stick = ["--bus", "file:stick"];
    let (phone, code) = begin(&rig, "phone", &stick);
    let add = [
        &["device", "add", &code, "--yes", "--wait", "0s"][..],
        &stick,
    ]
    .concat();
    let said = alice.refused(7, &add);
    assert!(said.contains("the new device did not answer"), "{said}");
    assert_eq!(phone.run(&["device", "join", "--wait", "0s"]).code, 7);
    alice.done(&add);
    phone.done(&["device", "join", "--wait", "0s"]);
    assert_eq!(phone.opened(&["read", "boiler"]), ["one"]);

    // With the user's id, one way there and one back are enough.
    let id = alice.id();
    let (tablet, code) = begin(&rig, "tablet", &[&stick[..], &[&id]].concat());
    let add = [
        &["device", "add", &code, "--yes", "--wait", "0s"][..],
        &stick,
    ]
    .concat();
    alice.done(&add);
    tablet.done(&["device", "join", "--wait", "0s"]);
    assert_eq!(tablet.opened(&["read", "boiler"]), ["one"]);
}

#[test]
fn a_code_may_be_typed_carelessly_but_not_wrong() {
    let rig = Rig::new();
    let alice = rig.person("alice");
    let (_, code) = begin(&rig, "phone", &["--bus", "file:bus", &alice.id()]);
    let mut wrong = code.clone();
    let last = wrong.pop().unwrap();
    wrong.push(if last == '2' { '3' } else { '2' });
    let said = alice.refused(2, &["device", "add", &wrong, "--yes"]);
    assert!(said.contains("mistyped"), "{said}");
    let said = alice.refused(2, &["device", "add", &code[..30], "--yes"]);
    assert!(said.contains("28 letters"), "{said}");
    let said = alice.refused(2, &["device", "add", &code]);
    assert!(said.contains("no terminal to ask on"), "{said}");
    let careless = code.to_lowercase().replace('-', " ").replace('0', "o");
    let words: Vec<_> = careless.split(' ').collect();
    alice.done(&[&["device", "add", "--yes"][..], &words].concat());
}

#[test]
fn what_cannot_be_added_is_told_apart() {
    let rig = Rig::new();
    let alice = rig.person("alice");
    let (_, code) = begin(&rig, "phone", &["--bus", "file:bus"]);
    let other = ["--bus", "file:elsewhere", "--wait", "0s", "--yes"];
    let said = alice.refused(7, &[&["device", "add", &code][..], &other].concat());
    assert!(
        said.contains("no new device shows this code here"),
        "{said}"
    );
    let phone = rig.stranger("phone");
    let said = phone.refused(2, &["read", "boiler"]);
    assert!(said.contains("waits to be added"), "{said}");
    assert!(
        said.contains("hint: go on with `sealcast device join`"),
        "{said}"
    );
    alice.refused(
        2,
        &["device", "join", "--bus", "file:bus", "--no-passphrase"],
    );
    let tablet = rig.stranger("tablet");
    let said = tablet.refused(2, &["device", "join", "--no-passphrase"]);
    assert!(said.contains("no bus is named"), "{said}");
    let said = alice.refused(7, &["device", "revoke", "tablet"]);
    assert!(said.contains("no such device: tablet"), "{said}");
}

#[test]
fn a_device_that_waits_may_have_a_passphrase() {
    let rig = Rig::new();
    let alice = rig.person("alice");
    let file = rig.file("secret", b"correct horse");
    let phone = rig.stranger("phone").with_passphrase_file(&file);
    let id = alice.id();
    let join = ["device", "join", &id, "--bus", "file:bus", "--wait", "0s"];
    let ran = phone.run(&join);
    let code = String::from_utf8(ran.stdout).unwrap();
    let again = rig.stranger("phone").refused(2, &["device", "join"]);
    assert!(again.contains("this home needs its passphrase"), "{again}");
    alice.done(&["device", "add", code.trim(), "--yes"]);
    assert_eq!(phone.done(&["device", "join"]), id);
}

/// Where a stream's bus is away, the rest is done, and the same command does it later.
#[test]
fn a_stream_that_cannot_be_reached_is_told_and_done_later() {
    let rig = Rig::new();
    let (alice, _) = rig.owner("alice", "boiler");
    alice.done(&["stream", "create", "attic", "--bus", "file:other"]);
    alice.done(&["pub", "attic", "-m", "one"]);
    let phone = add(&rig, &alice, "phone");
    assert_eq!(phone.opened(&["read", "attic"]), ["one"]);
    let (there, away) = (rig.path().join("other"), rig.path().join("away"));
    std::fs::rename(&there, &away).unwrap();
    let ran = alice.run(&["device", "revoke", "phone"]);
    assert_eq!(ran.code, 5, "{}", ran.stderr);
    assert!(ran.stderr.contains("stream `attic`"), "{}", ran.stderr);
    std::fs::rename(&away, &there).unwrap();
    let told = "it does not know yet that a device is revoked";
    assert!(alice.problems().iter().any(|of| of.contains(told)));
    alice.done(&["device", "revoke", "phone"]);
    assert!(!alice.problems().iter().any(|of| of.contains(told)));
    alice.done(&["pub", "attic", "-m", "two"]);
    assert_eq!(phone.opened(&["read", "attic"]), ["one"]);
}

const KILLS: u64 = 12;

/// Kills a command after some time that it may have needed. What it said is thrown away.
fn kill_after(person: &Person, args: &[&str], delay: Duration) {
    let mut child = person.start(args);
    thread::sleep(delay);
    child.kill().unwrap();
    child.wait().unwrap();
    let mut said = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert!(!said.contains("internal"), "{args:?}: {said}");
}

/// Both sides are killed again and again; then they are run to their ends.
#[test]
fn killed_commands_that_add_and_revoke_are_finished_by_the_same_commands() {
    let rig = Rig::small();
    let (alice, _) = rig.owner("alice", "boiler");
    alice.done(&["pub", "boiler", "-m", "one"]);
    let mut chance = Chance::new(7);
    let mut soon = || Duration::from_millis(chance.below(60));
    let (phone, code) = begin(&rig, "phone", &["--bus", "file:bus"]);
    let add = [
        "device", "add", &code, "--name", "phone", "--yes", "--wait", "0s",
    ];
    for _ in 0..KILLS {
        kill_after(&phone, &["device", "join"], soon());
        kill_after(&alice, &add, soon());
    }
    let child = phone.start(&["device", "join"]);
    alice.done(&["device", "add", &code, "--name", "phone", "--yes"]);
    assert!(added(child).ends_with(&alice.id()));
    assert_eq!(alice.json(&["device", "list"]).1.len(), 2);
    assert_eq!(phone.opened(&["read", "boiler"]), ["one"]);
    for _ in 0..KILLS {
        kill_after(&alice, &["device", "revoke", "phone"], soon());
    }
    alice.done(&["device", "revoke", "phone"]);
    alice.done(&["pub", "boiler", "-m", "two"]);
    assert_eq!(alice.opened(&["read", "boiler"]), ["one", "two"]);
    assert_eq!(phone.opened(&["read", "boiler"]), ["one"]);
    let (_, lines) = alice.json(&["device", "list"]);
    assert_eq!((lines.len(), &lines[1]["state"]), (2, &"revoked".into()));
    assert!(
        alice
            .problems()
            .iter()
            .all(|of| of.contains("in this home alone"))
    );
}

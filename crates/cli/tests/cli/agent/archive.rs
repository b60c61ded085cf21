//! The archive.

use super::*;
use crate::kinds::on_every_bus;
use crate::rig::Rig;

on_every_bus![an_archive_is_a_bus_from_which_a_late_reader_reads_when_the_bus_is_gone];

fn an_archive_is_a_bus_from_which_a_late_reader_reads_when_the_bus_is_gone(rig: &Rig) {
    let (alice, _) = rig.owner("alice", "s");
    let bob = rig.person("bob");
    alice.done(&["pub", "s", "-m", "one"]);
    std::fs::create_dir(rig.path().join("archive")).unwrap();
    let archive = ["--archive", "file:archive"];
    let has = |count: u64| move |of: &Value| of["streams"][0]["archive"]["items"] == count;
    // Its first entry, her card, the session's record and the message.
    let serving = Serving::of_stream(&alice, &archive);
    until(&alice, has(4));
    serving.kill();
    bob.done(&["join", &alice.done(&["ticket", "s"])]);
    alice.done(&["grant", "s", &bob.id(), "--from", "start"]);
    alice.done(&["pub", "s", "-m", "two"]);
    // What came meanwhile: the grant, his card, his keys and a message; nothing twice.
    let serving = Serving::of_stream(&alice, &archive);
    until(&alice, has(4));
    alice.done(&["pub", "s", "-m", "three"]);
    until(&alice, has(5));
    let metrics = get(alice.home(), "/metrics").1;
    assert!(
        metrics.contains("sealcast_archive_up{stream=\"1\""),
        "{metrics}"
    );
    serving.stop();
    let ticket = alice.done(&["ticket", "s", "--bus", "file:archive"]);
    rig.take_bus_away();
    bob.done(&["join", &ticket]);
    assert_eq!(bob.done(&["read", "s"]), "one\ntwo\nthree");
    assert_eq!(bob.count("gap", &["read", "s"]), 0);
    assert_eq!(bob.problems(), [""; 0]);
}

#[test]
fn an_archive_that_cannot_be_is_told_and_nothing_else_suffers() {
    let rig = Rig::small();
    let (kim, _) = rig.owner("kim", "s");
    for (url, code) in [
        ("file:bus", "archive.is-bus"),
        ("file:missing", "bus.failed"),
    ] {
        let mut serving = Serving::start(&kim, &["--archive", url]);
        serving.wait_for(&format!(
            "stream cannot be archived stream=1 code=\"{code}\""
        ));
        let status = until(&kim, |of| of["streams"][0]["standing"] == "attended");
        assert_eq!(status["streams"][0]["archive"]["fault"]["code"], code);
        let (code, body) = get(kim.home(), "/healthz");
        assert!(
            code == 503 && body.contains("archive of stream 1"),
            "{code} {body}"
        );
        serving.stop();
    }
    assert!(!rig.path().join("missing").exists());
    let said = kim.refused(2, &["agent", "--archive", "srv/archive"]);
    assert!(said.contains("file:"), "{said}");
}

#[test]
fn an_agent_follows_its_home_to_another_bus() {
    let rig = Rig::small();
    let (kim, _) = rig.owner("kim", "s");
    let mut serving = Serving::of_stream(&kim, &[]);
    kim.done(&["bus", "setup", "file:to"]);
    kim.done(&["bus", "copy", "file:bus", "file:to", "--switch"]);
    std::fs::remove_dir_all(rig.path().join("bus")).unwrap();
    serving.wait_for("stream attended to");
    until(&kim, |of| of["streams"][0]["standing"] == "attended");
    serving.stop();
}

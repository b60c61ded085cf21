//! What an agent logs, counts and answers has nothing secret in it, and what it logs for everyday
//! use names nobody.

use std::io::{Read as _, Write as _};

use super::*;
use crate::memory::{needles_of, secret};
use crate::rig::{Ran, Rig};

/// Fault 18, in the agent.
#[test]
fn logs_metrics_and_answers_hold_no_secret() {
    let rig = Rig::new();
    let (passphrase, payload, sealed) = (secret(), secret(), secret());
    let file = rig.file("passphrase", passphrase.as_bytes());
    let kim = rig.stranger("kim").with_passphrase_file(&file);
    kim.done(&["init", "--bus", "file:bus"]);
    kim.done(&["stream", "create", "s"]);
    let lee = rig.person("lee");
    std::fs::create_dir(rig.path().join("archive")).unwrap();
    let text =
        "[agent]\nlisten = \"127.0.0.1:0\"\nlog = \"trace\"\narchive = \"file:../archive\"\n";
    std::fs::write(kim.home().join("config.toml"), text).unwrap();
    let mut serving = Serving::of_stream(&kim, &[]);
    let sub = kim.start(&["sub", "s", "--count", "2"]);
    until_followed_by(&kim, 1);
    kim.done(&["grant", "s", &lee.id()]);
    kim.done_with(&["pub", "s"], payload.as_bytes());
    lee.done(&["join", &kim.done(&["ticket", "s"])]);
    serving.wait_for("keys handed out");
    kim.done(&["rekey", "s"]);
    kim.done_with(&["pub", "s"], sealed.as_bytes());
    let followed = Ran::of(sub.wait_with_output().unwrap());
    until(&kim, |of| {
        of["streams"][0]["archive"]["items"].as_u64() > Some(8)
    });
    let mut said = String::new();
    for path in [
        "/status",
        "/home",
        "/metrics",
        "/healthz",
        "/openapi.json",
        "/no/such",
        "/streams/x/messages",
    ] {
        said.push_str(&get(kim.home(), path).1);
        said.push_str(&get_loopback(&address(&kim), path).1);
    }
    said.push_str(&serving.stop());
    assert!(said.contains(" DEBUG "), "{said}");
    // So that the search would find them.
    let needles = needles_of(&[&payload, &sealed]);
    assert!(
        !needles
            .search("what was followed", &followed.stdout)
            .is_empty()
    );
    let needles = needles_of(&[&passphrase, &payload, &sealed]);
    let found = needles.search("what was said", said.as_bytes());
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn everyday_logs_and_what_every_user_of_the_machine_sees_name_nobody() {
    let rig = Rig::small();
    let (kim, _) = rig.owner("kim", "boiler-room");
    kim.done(&["contact", "add", "lee-the-plumber", &rig.person("lee").id()]);
    std::fs::create_dir(rig.path().join("archive")).unwrap();
    let mut serving = Serving::of_stream(&kim, &["--archive", "file:archive"]);
    let loopback = address(&kim);
    kim.done(&["pub", "boiler-room", "-m", "hot"]);
    until(&kim, |of| of["streams"][0]["archive"]["items"] == 4);
    let seen = |path: &str| get_loopback(&loopback, path).1;
    let mut said = seen("/metrics") + &seen("/healthz");
    std::fs::rename(rig.path().join("bus"), rig.path().join("away")).unwrap();
    serving.wait_for("stream cannot be attended to");
    said += &(seen("/metrics") + &seen("/healthz") + &seen("/status") + &seen("/home"));
    said += &serving.stop();
    let (folder, id) = (rig.path().to_str().unwrap(), kim.id());
    for name in ["boiler-room", "lee", "hot", folder, &id, "file:"] {
        assert!(!said.contains(name), "{name}: {said}");
    }
    // They are where they belong: in what is for this user alone.
    let status = serving_status(&rig, &kim);
    assert!(
        status.contains("boiler-room") && status.contains(&id),
        "{status}"
    );
}

/// A page whose maker has its name lead to this machine is told nothing by a browser that opens it.
#[test]
fn pages_that_come_by_a_name_are_told_nothing() {
    let rig = Rig::small();
    let (kim, _) = rig.owner("kim", "s");
    let serving = Serving::of_stream(&kim, &[]);
    let loopback = address(&kim);
    for (host, is_answered) in [
        (loopback.as_str(), true),
        ("localhost", true),
        ("rebound.example", false),
        ("rebound.example:9464", false),
    ] {
        let mut stream = TcpStream::connect(&loopback).unwrap();
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(
            answer.contains("sealcast_agent_info"),
            is_answered,
            "{answer}"
        );
        assert_eq!(answer.contains("api.host"), !is_answered, "{answer}");
    }
    serving.stop();
}

/// The status of an agent that is started for it.
fn serving_status(rig: &Rig, person: &Person) -> String {
    std::fs::rename(rig.path().join("away"), rig.path().join("bus")).unwrap();
    let serving = Serving::of_stream(person, &[]);
    let status = get(person.home(), "/status").1;
    serving.stop();
    status
}

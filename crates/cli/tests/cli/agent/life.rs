//! Starting and ending, and what happens to the streams in between.

use super::*;
use crate::kinds::on_every_bus;
use crate::rig::Rig;

on_every_bus![whoever_joins_after_being_granted_gets_the_keys_from_the_agent_alone];

#[test]
fn an_agent_says_how_it_is_until_it_is_told_to_end() {
    let rig = Rig::small();
    let (kim, _) = rig.owner("kim", "s");
    let said = kim.refused(7, &["agent", "status"]);
    assert!(said.contains("no agent runs"), "{said}");
    let serving = Serving::of_stream(&kim, &[]);
    let status = status(&kim);
    assert_eq!(status["process"], serving.child.id());
    assert_eq!(status["user"], kim.id());
    assert_eq!(status["problems"], Value::Array(vec![]));
    assert_eq!(status["streams"][0]["name"], "s");
    assert_eq!(status["streams"][0]["standing"], "attended");
    let page = kim.done(&["agent", "status"]);
    assert!(
        page.contains("health    ok") && page.contains("s, attended to"),
        "{page}"
    );
    assert!(kim.done(&["doctor"]).contains("an agent runs: process"));
    assert_eq!(
        get_loopback(&address(&kim), "/healthz"),
        (200, "ok\n".to_owned())
    );
    let log = serving.stop();
    assert!(log.contains("agent stopped"), "{log}");
    assert!(!kim.home().join("agent.sock").exists());
    kim.refused(7, &["agent", "status"]);
    assert!(kim.done(&["doctor"]).contains("no agent runs"));
}

#[test]
fn a_killed_agent_leaves_nothing_that_the_next_would_mind() {
    let rig = Rig::small();
    let (kim, _) = rig.owner("kim", "s");
    Serving::of_stream(&kim, &[]).kill();
    assert!(kim.home().join("agent.sock").exists());
    kim.refused(7, &["agent", "status"]);
    let serving = Serving::of_stream(&kim, &[]);
    assert_eq!(status(&kim)["process"], serving.child.id());
    serving.stop();
}

#[test]
fn a_second_agent_says_which_one_serves_the_home() {
    let rig = Rig::small();
    let (kim, _) = rig.owner("kim", "s");
    let serving = Serving::of_stream(&kim, &[]);
    let said = kim.refused(2, &["agent"]);
    let process = format!(
        "an agent serves this home already: process {}",
        serving.child.id()
    );
    assert!(said.contains(&process), "{said}");
    assert_eq!(status(&kim)["process"], serving.child.id());
    // Another home has its own.
    Serving::start(&rig.person("lee"), &[]).stop();
    serving.stop();
}

#[test]
fn a_port_that_is_taken_is_named() {
    let rig = Rig::small();
    let (kim, lee) = (rig.person("kim"), rig.person("lee"));
    let serving = Serving::start(&kim, &[]);
    let config = format!("[agent]\nlisten = \"{}\"\n", address(&kim));
    let config = rig.file("taken.toml", config.as_bytes());
    let said = lee.refused(2, &["agent", "--config", &config]);
    assert!(
        said.contains(&address(&kim)) && said.contains("hint:"),
        "{said}"
    );
    serving.stop();
}

#[test]
fn what_cannot_be_asked_is_refused_in_one_form() {
    let rig = Rig::small();
    let (kim, _) = rig.owner("kim", "s");
    let serving = Serving::of_stream(&kim, &[]);
    for (path, status, code) in [
        ("/no/such", 404, "api.unknown"),
        ("/streams/x/messages", 404, "stream.unknown"),
        ("/streams/%ff/messages", 400, "api.request"),
        ("/streams/s/messages?from=-1", 400, "api.request"),
        ("/streams/s/messages?form=1", 400, "api.request"),
    ] {
        let (found, body) = get(kim.home(), path);
        let fault: Value = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{body}"));
        assert_eq!((found, &fault["code"]), (status, &code.into()), "{path}");
    }
    serving.stop();
}

/// Another user of the machine must not keep an agent from its work.
#[test]
fn a_port_that_nobody_chose_may_be_taken() {
    let rig = Rig::small();
    let (kim, _) = rig.owner("kim", "s");
    // Where this fails, another has it.
    let _taken = std::net::TcpListener::bind("127.0.0.1:9464");
    std::fs::write(kim.home().join("config.toml"), "[agent]\n").unwrap();
    let serving = Serving::of_stream(&kim, &[]);
    assert_eq!(status(&kim)["streams"][0]["standing"], "attended");
    serving.stop();
}

#[test]
fn a_bus_that_goes_away_is_told_and_taken_up_again_when_it_is_back() {
    let rig = Rig::small();
    let (kim, _) = rig.owner("kim", "s");
    let mut serving = Serving::of_stream(&kim, &[]);
    let loopback = address(&kim);
    let (bus, away) = (rig.path().join("bus"), rig.path().join("away"));
    std::fs::rename(&bus, &away).unwrap();
    serving.wait_for("stream cannot be attended to");
    let status = status(&kim);
    assert_eq!(status["streams"][0]["standing"], "failing");
    assert_eq!(status["buses"][0]["fault"]["code"], "bus.failed");
    assert_eq!(kim.problems()[0], "stream `s`: the bus failed");
    let (code, body) = get_loopback(&loopback, "/healthz");
    assert_eq!((code, body.as_str()), (503, "stream 1: bus.failed\n"));
    let metrics = get_loopback(&loopback, "/metrics").1;
    assert!(metrics.contains("sealcast_agent_healthy 0"), "{metrics}");
    // Another folder in its place, as one is that was put back from a copy; whole, as the agent looks for it meanwhile.
    let back = rig.path().join("back");
    crate::copies::copy(&away, &back);
    std::fs::rename(&back, &bus).unwrap();
    serving.wait_for("stream attended to");
    assert_eq!(get_loopback(&loopback, "/healthz").0, 200);
    kim.done(&["pub", "s", "-m", "still here"]);
    serving.stop();
    assert_eq!(kim.done(&["read", "s"]), "still here");
}

fn whoever_joins_after_being_granted_gets_the_keys_from_the_agent_alone(rig: &Rig) {
    let (alice, ticket) = rig.owner("alice", "s");
    let bob = rig.person("bob");
    alice.done(&["pub", "s", "-m", "for bob"]);
    // He has no card on the bus yet, so that nothing can be sealed for him.
    alice.done(&["grant", "s", &bob.id(), "--from", "start"]);
    let mut serving = Serving::of_stream(&alice, &[]);
    bob.done(&["join", &ticket]);
    serving.wait_for("keys handed out");
    assert_eq!(bob.done(&["read", "s"]), "for bob");
    let status = status(&alice);
    assert_eq!(status["streams"][0]["bundles"], 1, "{status}");
    serving.stop();
}

#[test]
fn a_stream_that_is_made_or_joined_meanwhile_is_attended_to() {
    let rig = Rig::small();
    let (alice, ticket) = rig.owner("alice", "s");
    let bob = rig.person("bob");
    let mut serving = Serving::start(&bob, &[]);
    bob.done(&["join", &ticket]);
    serving.wait_for("stream attended to stream=1");
    bob.done(&["stream", "create", "own"]);
    serving.wait_for("stream attended to stream=2");
    let status = status(&bob);
    let names = [&status["streams"][0]["name"], &status["streams"][1]["name"]];
    assert_eq!(names, ["own", "s"]);
    alice.done(&["doctor"]);
    serving.stop();
}

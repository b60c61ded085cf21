//! Following a stream through the agent.

use std::io::{BufRead as _, Write as _};
use std::os::unix::net::UnixListener;

use super::*;
use crate::kinds::on_every_bus;
use crate::rig::{Ran, Rig};

on_every_bus![
    several_follow_live_and_one_who_does_not_read_holds_up_nobody,
    what_waits_for_its_key_comes_through_the_agent_when_the_key_has_come,
];

#[test]
fn following_reads_the_same_with_an_agent_as_without() {
    let rig = Rig::small();
    let (alice, ticket) = rig.owner("alice", "s");
    let bob = rig.person("bob");
    bob.done(&["join", &ticket]);
    alice.done(&["pub", "s", "-m", "text"]);
    let binary = rig.file("binary", b"\xff\x00\n");
    alice.done(&["pub", "s", "-f", &binary]);
    alice.done(&["grant", "s", &bob.id(), "--from", "start", "--until", "now"]);
    alice.done(&["pub", "s", "-m", "sealed"]);
    rig.append(&alice.data_topic(), b"plaintext");
    for args in [
        &["sub", "s", "--from", "start", "--count", "4"][..],
        &["sub", "s", "--from", "start", "--count", "4", "--json"],
    ] {
        // Both find the same to be waiting for its key.
        bob.run(args);
        let alone = bob.run(args);
        let serving = Serving::of_stream(&bob, &[]);
        let through = bob.run(args);
        let deliveries = status(&bob)["streams"][0]["deliveries"].as_u64().unwrap();
        serving.stop();
        assert!(deliveries >= 4, "{deliveries}");
        assert_eq!((alone.code, through.code), (3, 3), "{}", through.stderr);
        assert_eq!(alone.stdout, through.stdout);
        assert_eq!(alone.stderr, through.stderr);
        assert!(alone.stdout.starts_with(b"text") || args.contains(&"--json"));
    }
}

#[test]
fn who_follows_goes_on_behind_what_a_damaged_bus_cannot_show_and_ends_with_the_damage() {
    let rig = Rig::small();
    let (kim, _) = rig.owner("kim", "s");
    for text in ["one", "two", "three", "four"] {
        kim.done(&["pub", "s", "-m", text]);
    }
    rig.make_hole(&kim.data_topic(), 1);
    let args = ["sub", "s", "--from", "start", "--count", "3"];
    let read = kim.run(&["read", "s"]);
    let alone = kim.run(&args);
    let serving = Serving::of_stream(&kim, &[]);
    let through = kim.run(&args);
    serving.stop();
    for ran in [read, alone, through] {
        assert_eq!(ran.code, 5, "{}", ran.stderr);
        assert_eq!(ran.stdout, b"one\nthree\nfour\n", "{}", ran.stderr);
        for says in ["bus is damaged", "hint: put a backup of the bus"] {
            assert!(ran.stderr.contains(says), "{says}: {}", ran.stderr);
        }
    }
}

fn several_follow_live_and_one_who_does_not_read_holds_up_nobody(rig: &Rig) {
    let (kim, _) = rig.owner("kim", "s");
    let serving = Serving::of_stream(&kim, &[]);
    // It takes nothing: its pipe is full after a while.
    let mut idle = kim.start(&["sub", "s", "--from", "start"]);
    let mut subs = [kim.start(&["sub", "s"]), kim.start(&["sub", "s"])];
    until_followed_by(&kim, 3);
    let lines: Vec<String> = (0..400)
        .map(|n| format!("{n} {}", "x".repeat(2_000)))
        .collect();
    kim.done_with(&["pub", "s", "-l"], lines.join("\n").as_bytes());
    for sub in &mut subs {
        let read = BufReader::new(sub.stdout.take().unwrap()).lines().take(400);
        assert_eq!(read.map(Result::unwrap).collect::<Vec<_>>(), lines);
    }
    idle.kill().unwrap();
    idle.wait().unwrap();
    until_followed_by(&kim, 2);
    serving.stop();
    for sub in subs {
        let ran = Ran::of(sub.wait_with_output().unwrap());
        assert_eq!(ran.code, 5, "{}", ran.stderr);
        assert!(
            ran.stderr.contains("the agent was told to stop"),
            "{}",
            ran.stderr
        );
    }
}

fn what_waits_for_its_key_comes_through_the_agent_when_the_key_has_come(rig: &Rig) {
    let (alice, ticket) = rig.owner("alice", "s");
    let bob = rig.person("bob");
    bob.done(&["join", &ticket]);
    let serving = Serving::of_stream(&bob, &[]);
    let mut sub = bob.start(&["sub", "s", "--json", "--count", "2"]);
    until_followed_by(&bob, 1);
    alice.done(&["pub", "s", "-m", "early"]);
    let mut lines = BufReader::new(sub.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(next()["parked"], "waits");
    alice.done(&["grant", "s", &bob.id(), "--from", "start"]);
    let opened = next();
    assert_eq!(
        (&opened["text"], &opened["parked"]),
        (&"early".into(), &"waited".into())
    );
    // Nothing stayed sealed in the end.
    assert_eq!(sub.wait().unwrap().code(), Some(0));
    until_followed_by(&bob, 0);
    serving.stop();
    assert!(
        !bob.run(&["sub", "s", "--for", "0s"])
            .stderr
            .contains("wait")
    );
}

/// Follows bob's stream as far as the first message that had waited, says of so many that it is done
/// with them, and goes away.
fn take(bob: &Person, confirmed: usize, count: usize) -> Vec<String> {
    let mut stream = UnixStream::connect(bob.home().join("agent.sock")).unwrap();
    let request = "POST /streams/s/messages HTTP/1.0\r\ncontent-length: 1000\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let mut texts = Vec::new();
    for line in lines
        .map(Result::unwrap)
        .filter(|line| line.contains("waited"))
    {
        let line: Value = serde_json::from_str(&line).unwrap();
        texts.push(line["text"].as_str().unwrap().to_owned());
        if texts.len() <= confirmed {
            stream.write_all(b"\n").unwrap();
        }
        if texts.len() == count {
            break;
        }
    }
    texts
}

#[test]
fn a_message_that_waited_comes_again_until_a_subscriber_is_done_with_it() {
    let rig = Rig::small();
    let (alice, ticket) = rig.owner("alice", "s");
    let bob = rig.person("bob");
    bob.done(&["join", &ticket]);
    for text in ["one", "two", "three"] {
        alice.done(&["pub", "s", "-m", text]);
    }
    // All three wait.
    bob.run(&["sub", "s", "--from", "start", "--count", "3"]);
    alice.done(&["grant", "s", &bob.id(), "--from", "start"]);
    let serving = Serving::of_stream(&bob, &[]);
    assert_eq!(take(&bob, 0, 1), ["one"]);
    until_followed_by(&bob, 0);
    assert_eq!(take(&bob, 1, 2), ["one", "two"]);
    until_followed_by(&bob, 0);
    assert_eq!(bob.done(&["sub", "s", "--count", "3"]), "one\ntwo\nthree");
    assert!(!bob.done(&["doctor"]).contains("wait"));
    serving.stop();
}

#[test]
fn a_follower_whose_agent_ends_before_it_follows_does_so_by_itself() {
    let rig = Rig::small();
    let (kim, _) = rig.owner("kim", "s");
    kim.done(&["pub", "s", "-m", "hello"]);
    let listener = UnixListener::bind(kim.home().join("agent.sock")).unwrap();
    let home = format!(
        r#"{{"api":1,"version":"","user":"{}","device":"","contacts":[]}}"#,
        kim.id()
    );
    let ends = thread::spawn(move || {
        let (mut asked, ()) = (listener.accept().unwrap().0, drop(listener));
        let request = BufReader::new(asked.try_clone().unwrap()).lines();
        request.map(Result::unwrap).find(String::is_empty).unwrap();
        let answer = format!("HTTP/1.0 200 OK\r\n\r\n{home}");
        asked.write_all(answer.as_bytes()).unwrap();
    });
    let follow = ["sub", "s", "--from", "start", "--count", "1"];
    assert_eq!(kim.done(&follow), "hello");
    ends.join().unwrap();
}

#[test]
fn a_follower_of_a_killed_agent_is_told() {
    let rig = Rig::small();
    let (kim, _) = rig.owner("kim", "s");
    let serving = Serving::of_stream(&kim, &[]);
    let sub = kim.start(&["sub", "s", "--json"]);
    until_followed_by(&kim, 1);
    serving.kill();
    let ran = Ran::of(sub.wait_with_output().unwrap());
    assert_eq!(ran.code, 5);
    assert!(
        ran.stderr.contains(r#"{"code":"agent.failed""#),
        "{}",
        ran.stderr
    );
    // Without it the command does its work by itself.
    kim.done(&["sub", "s", "--for", "0s"]);
}

#[test]
fn following_through_the_agent_needs_no_passphrase() {
    let rig = Rig::small();
    let file = rig.file("passphrase", b"correct horse\n");
    let kim = rig.stranger("kim").with_passphrase_file(&file);
    kim.done(&["init", "--bus", "file:bus"]);
    kim.done(&["stream", "create", "s"]);
    kim.done(&["pub", "s", "-m", "hello"]);
    let serving = Serving::of_stream(&kim, &[]);
    let follow = ["sub", "s", "--from", "start", "--count", "1"];
    let without = rig.stranger("kim");
    assert_eq!(without.done(&follow), "hello");
    without.refused(2, &["read", "s"]);
    serving.stop();
    without.refused(2, &follow);
}

#[test]
fn what_cannot_be_followed_is_refused_as_without_an_agent() {
    let rig = Rig::small();
    let (kim, _) = rig.owner("kim", "s");
    let serving = Serving::of_stream(&kim, &[]);
    let said = kim.refused(7, &["sub", "no such", "--json"]);
    assert!(said.contains(r#""code":"stream.unknown""#), "{said}");
    std::fs::rename(rig.path().join("bus"), rig.path().join("away")).unwrap();
    until(&kim, |of| of["streams"][0]["standing"] == "failing");
    let said = kim.refused(5, &["sub", "s", "--json"]);
    assert!(said.contains(r#""code":"bus.failed""#), "{said}");
    serving.stop();
}

/// Through the agent and without one.
#[test]
fn a_follower_hears_when_the_bus_is_away_and_goes_on_when_it_is_back() {
    let rig = Rig::small();
    let (kim, _) = rig.owner("kim", "s");
    kim.done(&["pub", "s", "-m", "one"]);
    let (bus, away) = (rig.path().join("bus"), rig.path().join("away"));
    for (with_agent, next) in [(true, "two"), (false, "three")] {
        let serving = with_agent.then(|| Serving::of_stream(&kim, &[]));
        let mut sub = kim.start(&["sub", "s", "--from", "start", "--json"]);
        let said = lines_of(sub.stderr.take().unwrap());
        let heard = |code: &str| {
            let line = said.recv_timeout(LINE_WITHIN).unwrap();
            assert!(line.contains(code), "{line}");
        };
        let mut lines = BufReader::new(sub.stdout.take().unwrap()).lines();
        assert!(lines.next().unwrap().unwrap().contains("one"));
        std::fs::rename(&bus, &away).unwrap();
        heard("bus.away");
        std::fs::rename(&away, &bus).unwrap();
        heard("bus.back");
        kim.done(&["pub", "s", "-m", next]);
        assert!(lines.any(|line| line.unwrap().contains(next)));
        sub.kill().unwrap();
        sub.wait().unwrap();
        drop(serving);
    }
}

#[test]
fn a_follower_ends_where_another_bus_is_in_the_place_of_its_own() {
    let rig = Rig::small();
    let (kim, _) = rig.owner("kim", "s");
    kim.done(&["pub", "s", "-m", "one"]);
    let mut sub = kim.start(&["sub", "s", "--from", "start"]);
    let mut lines = BufReader::new(sub.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "one");
    std::fs::rename(rig.path().join("bus"), rig.path().join("away")).unwrap();
    kim.done(&["bus", "setup", "file:bus"]);
    let ran = Ran::of(sub.wait_with_output().unwrap());
    assert_eq!(ran.code, 5, "{}", ran.stderr);
    assert!(ran.stderr.contains("cannot be reached"), "{}", ran.stderr);
}

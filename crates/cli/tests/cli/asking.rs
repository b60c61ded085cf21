//! Asking for keys: one process asks, another answers.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Child;
use std::time::Duration;

use crate::kinds::on_every_bus;
use crate::rig::{Person, Rig};

on_every_bus![
    a_request_opens_by_what_another_process_answers,
    a_publisher_of_lines_answers_while_it_runs,
    a_follower_asks_by_itself_and_prints_messages_as_they_open,
];

#[cfg(target_os = "linux")]
on_every_bus![an_agent_answers_and_a_program_may_decide_beyond_the_log];

/// An owner whose stream gives keys on request, and a reader with a grant and no key.
fn late_reader(rig: &Rig) -> (Person, Person) {
    let alice = rig.person("alice");
    let create = ["stream", "create", "s", "--share", "on-request"];
    let ticket = alice.done(&create);
    rig.have_kept(&ticket);
    let bob = rig.person("bob");
    bob.done(&["join", &ticket]);
    alice.done(&["grant", "s", &bob.id(), "--from", "start"]);
    alice.done(&["pub", "s", "-m", "one"]);
    assert_eq!(bob.count("sealed", &["read", "s"]), 1);
    (alice, bob)
}

/// A `sub` that answers already: it has printed what was published for it.
fn answering(person: &Person) -> Child {
    let mut sub = person.start(&["sub", "s", "--from", "start"]);
    let mut lines = BufReader::new(sub.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "one");
    sub
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

const LONG: &str = "10m";

fn a_request_opens_by_what_another_process_answers(rig: &Rig) {
    let (alice, bob) = late_reader(rig);
    let sub = answering(&alice);
    let args = ["request", "s", "--wait", LONG];
    assert_eq!(bob.done(&args), "opened");
    assert_eq!(bob.done(&["read", "s"]), "one");
    end(sub);
    // Nothing is missing, and nobody is there.
    let (code, lines) = bob.json(&args);
    assert_eq!(
        (code, &lines[0]["end"], &lines[0]["missing"]),
        (0, &"opened".into(), &0.into())
    );
}

fn a_publisher_of_lines_answers_while_it_runs(rig: &Rig) {
    let (alice, bob) = late_reader(rig);
    let mut publisher = alice.start(&["pub", "s", "-l", "--acks"]);
    let mut stdin = publisher.stdin.take().unwrap();
    stdin.write_all(b"two\n").unwrap();
    let mut acks = BufReader::new(publisher.stdout.take().unwrap()).lines();
    assert_eq!(acks.next().unwrap().unwrap(), "1");
    assert_eq!(bob.done(&["request", "s", "--wait", LONG]), "opened");
    assert_eq!(bob.done(&["read", "s"]), "one\ntwo");
    drop(stdin);
    assert!(publisher.wait().unwrap().success());
}

fn a_follower_asks_by_itself_and_prints_messages_as_they_open(rig: &Rig) {
    let (alice, bob) = late_reader(rig);
    let answers = answering(&alice);
    let mut sub = bob.start(&["sub", "s", "--from", "start", "--json", "--count", "3"]);
    let mut lines = BufReader::new(sub.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert!(next().contains(r#""state":"sealed""#));
    assert!(next().contains(r#""text":"one""#));
    alice.done(&["pub", "s", "-m", "two"]);
    assert!(next().contains(r#""text":"two""#));
    assert_eq!(sub.wait().unwrap().code(), Some(0));
    end(answers);
}

#[test]
fn exit_codes_tell_how_a_request_ended() {
    let rig = Rig::small();
    let (alice, bob) = late_reader(&rig);
    let (code, lines) = bob.json(&["request", "s", "--wait", "1s"]);
    assert_eq!((code, &lines[0]["end"]), (3, &"timed-out".into()));
    let ran = bob.run(&["request", "s", "--wait", "0s"]);
    assert_eq!(ran.expect(3, &[]), "timed-out");
    assert!(ran.stderr.contains("sealcast sub STREAM"), "{}", ran.stderr);
    bob.refused(2, &["request", "s", "--from", "now", "--until", "-1h"]);
    bob.refused(7, &["request", "other"]);

    // Named by the log, and entitled to nothing that there is.
    let carol = rig.person("carol");
    carol.done(&["join", &alice.done(&["ticket", "s"])]);
    alice.done(&["grant", "s", &carol.id(), "--from", "+1d"]);
    let sub = answering(&alice);
    let (code, lines) = carol.json(&["request", "s", "--wait", LONG]);
    assert_eq!((code, &lines[0]["end"]), (4, &"refused".into()));
    assert_eq!(lines[0]["reason"], "not-entitled");
    end(sub);
}

/// fault 10
#[test]
fn another_process_answers_when_one_is_killed_between_its_claim_and_its_answer() {
    let rig = Rig::small();
    let (alice, bob) = late_reader(&rig);
    let carol = rig.person("carol");
    carol.done(&["join", &alice.done(&["ticket", "s"])]);
    alice.done(&["grant", "s", &carol.id(), "--from", "start", "--reshare"]);
    let (victim, heir) = (answering(&alice), answering(&carol));
    let (_, id) = bob.json(&["id"]);
    // No answer gets through as long as this is there.
    let inbox = format!("d/{}/inbox", id[0]["device"].as_str().unwrap());
    rig.refuse(&inbox);
    let mut asks = bob.start(&["request", "s", "--wait", LONG]);
    // What was asked, and that the publisher, whose turn comes first, is about to answer.
    while rig.sent() < 2 {
        assert!(asks.try_wait().unwrap().is_none(), "nobody is about to");
        std::thread::sleep(Duration::from_millis(5));
    }
    end(victim);
    rig.refuse_nothing();
    let asked = asks.wait_with_output().unwrap();
    assert_eq!(asked.status.code(), Some(0));
    assert_eq!(String::from_utf8(asked.stdout).unwrap(), "opened\n");
    assert_eq!(bob.done(&["read", "s"]), "one");
    end(heir);
}

#[cfg(target_os = "linux")]
fn an_agent_answers_and_a_program_may_decide_beyond_the_log(rig: &Rig) {
    let (alice, bob) = late_reader(rig);
    let config = b"[agent]\nlisten = \"off\"\n[decisions]\npolicy = \"exec\"\nexec = [\"/bin/echo\", \"yes\"]\n";
    let config = rig.file("exec.toml", config);
    let mut serving = crate::agent::Serving::start(&alice, &["--config", &config]);
    serving.wait_for("stream attended to");
    assert_eq!(bob.done(&["request", "s", "--wait", LONG]), "opened");
    // The log does not name her.
    let carol = rig.person("carol");
    carol.done(&["join", &alice.done(&["ticket", "s"])]);
    assert_eq!(carol.done(&["request", "s", "--wait", LONG]), "opened");
    assert_eq!(carol.done(&["read", "s"]), "one");
    serving.stop();
}

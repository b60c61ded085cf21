//! Who asks without a grant: a person decides, or a server.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use super::*;
use crate::kinds::on_every_bus;
use crate::rig::Rig;

on_every_bus![a_request_waits_for_a_person_whose_yes_is_a_grant];

const LONG: &str = "10m";

/// An owner whose agent answers by a policy, and somebody whom the log does not name.
fn stranger(rig: &Rig, decisions: &str) -> (Person, Person, Serving) {
    let (alice, ticket) = rig.owner("alice", "s");
    alice.done(&["pub", "s", "-m", "one"]);
    let bob = rig.person("bob");
    bob.done(&["join", &ticket]);
    let serving = serve_by(rig, &alice, decisions);
    (alice, bob, serving)
}

fn serve_by(rig: &Rig, person: &Person, decisions: &str) -> Serving {
    let text = format!("[agent]\nlisten = \"off\"\n[decisions]\n{decisions}\n");
    let config = rig.file("decisions.toml", text.as_bytes());
    Serving::of_stream(person, &["--config", &config])
}

/// Asks for what waits until so much does.
fn waiting(person: &Person, count: usize) -> Vec<Value> {
    let list = || {
        let (code, lines) = person.json(&["requests", "list"]);
        assert_eq!(code, 0);
        lines
    };
    looked_for(list, |lines| lines.len() == count)
}

/// Asks until somebody says no, in turn for longer: who waits for a decision waits to the end.
fn refused_sooner_or_later(person: &Person) -> (i32, Vec<Value>) {
    for wait in ["2s", "8s", "30s", "2m"] {
        let (code, lines) = person.json(&["request", "s", "--wait", wait]);
        if lines[0]["end"] != "timed-out" {
            return (code, lines);
        }
    }
    panic!("nobody says anything");
}

fn id(of: &Value) -> String {
    of["id"].as_str().unwrap().to_owned()
}

fn a_request_waits_for_a_person_whose_yes_is_a_grant(rig: &Rig) {
    let (alice, bob, serving) = stranger(rig, "policy = \"ask\"");
    alice.done(&["contact", "add", "bob", &bob.id()]);
    assert!(
        alice
            .run(&["requests", "list"])
            .stderr
            .contains("No request waits.")
    );
    let asks = bob.start(&["request", "s", "--wait", LONG]);
    let [request] = &waiting(&alice, 1)[..] else {
        panic!("one waits");
    };
    for (key, value) in [
        ("stream", "s"),
        ("name", "bob"),
        ("standing", "stranger"),
        ("user", &bob.id()),
    ] {
        assert_eq!(request[key], value, "{request}");
    }
    let want = &request["wants"][0];
    assert_eq!(want["publishers"][0], alice.id());
    assert_eq!(
        (&want["from"], &want["until"]),
        (&"1970-01-01T00:00:00.000Z".into(), &Value::Null)
    );
    let id = id(request);
    let shown = alice.done(&["requests", "list"]);
    assert!(shown.lines().nth(1).unwrap().starts_with(&id), "{shown}");
    assert!(
        alice
            .done(&["agent", "status"])
            .contains("for a decision: 1 request")
    );

    let (code, approved) = alice.json(&["requests", "approve", &id]);
    assert_eq!((code, &approved[0]["grants"]), (0, &1.into()));
    let asked = asks.wait_with_output().unwrap();
    assert_eq!(
        (asked.status.code(), &asked.stdout[..]),
        (Some(0), &b"opened\n"[..])
    );
    assert_eq!(bob.done(&["read", "s"]), "one");
    assert_eq!(waiting(&alice, 0), [Value::Null; 0]);
    let said = alice.refused(7, &["requests", "approve", &id]);
    assert!(said.contains("no such request waits"), "{said}");
    let metrics = get(alice.home(), "/metrics").1;
    for line in [
        "sealcast_requests_pending 0",
        "answer=\"pending-approval\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    let grants = metrics
        .lines()
        .find(|of| of.starts_with("sealcast_decision_grants_total{"));
    assert!(grants.unwrap().ends_with(" 1"), "{metrics}");
    serving.stop();
}

#[test]
fn a_request_that_is_denied_waits_no_more() {
    let rig = Rig::small();
    let (alice, bob, serving) = stranger(&rig, "policy = \"ask\"");
    let (code, lines) = refused_sooner_or_later(&bob);
    assert_eq!((code, &lines[0]["reason"]), (4, &"pending-approval".into()));
    let id = id(&waiting(&alice, 1)[0]);
    let (code, denied) = alice.json(&["requests", "deny", &id]);
    assert_eq!((code, &denied[0]["user"]), (0, &bob.id().into()));
    assert_eq!(waiting(&alice, 0), [Value::Null; 0]);
    alice.refused(7, &["requests", "deny", &id]);
    assert!(!alice.done(&["who", "s"]).contains("reader"));
    // Nothing of it is in the home.
    serving.stop();
    let serving = serve_by(&rig, &alice, "policy = \"ask\"");
    assert_eq!(waiting(&alice, 0), [Value::Null; 0]);
    serving.stop();
}

#[test]
fn a_yes_of_one_who_may_not_grant_any_more_is_refused_and_the_request_goes_on_waiting() {
    let rig = Rig::small();
    let (alice, ticket) = rig.owner("alice", "s");
    let (bob, carol) = (rig.person("bob"), rig.person("carol"));
    for of in [&bob, &carol] {
        of.done(&["join", &ticket]);
    }
    alice.done(&["grant", "s", &carol.id(), "--role", "admin"]);
    alice.done(&["pub", "s", "-m", "one"]);
    let serving = serve_by(&rig, &carol, "policy = \"ask\"");
    let mut asks = bob.start(&["request", "s", "--wait", LONG]);
    let id = id(&waiting(&carol, 1)[0]);
    asks.kill().unwrap();
    asks.wait().unwrap();
    alice.done(&["revoke", "s", &carol.id()]);
    let said = carol.refused(4, &["requests", "approve", &id]);
    assert!(said.contains("sealcast who"), "{said}");
    assert_eq!(self::id(&waiting(&carol, 1)[0]), id);
    serving.stop();
}

#[test]
fn an_agent_that_asks_nobody_says_so() {
    let rig = Rig::small();
    let (alice, bob, serving) = stranger(&rig, "policy = \"log\"");
    bob.json(&["request", "s", "--wait", "1s"]);
    let ran = alice.run(&["requests", "list"]);
    assert_eq!(ran.expect(0, &[]), "");
    assert!(ran.stderr.contains("policy = \"log\""), "{}", ran.stderr);
    serving.stop();
}

/// A server that says this to every question; what it is asked.
fn decider(answer: &'static str) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/decide", listener.local_addr().unwrap());
    let (sender, asked) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut text, mut some) = (Vec::new(), [0; 4096]);
            // The question is one line of JSON, and the end of the request.
            while !text.ends_with(b"]}\n") {
                let read = stream.read(&mut some).unwrap();
                assert!(read > 0, "the question ends");
                text.extend_from_slice(&some[..read]);
            }
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
                answer.len()
            );
            stream.write_all((head + answer).as_bytes()).unwrap();
            // The test may be over.
            drop(sender.send(String::from_utf8(text).unwrap()));
        }
    });
    (url, asked)
}

#[test]
fn a_server_decides_beyond_the_log() {
    for (answer, code, end) in [
        (r#"{"decision":"yes"}"#, 0, "opened"),
        (r#"{"decision":"later"}"#, 4, "refused"),
    ] {
        let rig = Rig::small();
        let (url, asked) = decider(answer);
        let decisions = format!("policy = \"url\"\nurl = \"{url}\"");
        let (_alice, bob, serving) = stranger(&rig, &decisions);
        let (ended, lines) = match code {
            0 => bob.json(&["request", "s", "--wait", LONG]),
            _ => refused_sooner_or_later(&bob),
        };
        assert_eq!((ended, &lines[0]["end"]), (code, &end.into()));
        let question = asked.recv().unwrap();
        assert!(
            question.starts_with("POST /decide HTTP/1.1\r\n"),
            "{question}"
        );
        let body = question.split("\r\n\r\n").nth(1).unwrap();
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["user"], bob.id());
        assert_eq!(body["wants"][0]["refused"], "not-entitled");
        serving.stop();
    }
}

#[test]
fn an_agent_does_not_begin_that_could_not_know_its_server() {
    let rig = Rig::small();
    let kim = rig.person("kim");
    let text =
        b"[decisions]\npolicy = \"url\"\nurl = \"https://localhost/\"\nurl_ca = \"missing.pem\"\n";
    let config = rig.file("tls.toml", text);
    let said = kim.refused(2, &["agent", "--config", &config]);
    assert!(
        said.contains("missing.pem") && said.contains("url_ca"),
        "{said}"
    );
}

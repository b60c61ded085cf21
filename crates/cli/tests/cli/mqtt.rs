//! The program on MQTT: what a broker lost that nobody has, and what clients of its users do.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sealcast_brokers::mosquitto::Server;
use serde_json::Value;

use crate::agent::Serving;
use crate::rig::{Person, Rig};

/// How long is looked for what must come, however busy the machine is.
const WITHIN: Duration = Duration::from_secs(180);

/// Somebody with a home on a bus.
fn someone(rig: &Rig, name: &str, url: &str) -> Person {
    let person = rig.stranger(name);
    person.done(&["init", "--name", name, "--bus", url, "--no-passphrase"]);
    person
}

/// What a reading tells: of each line its state, and its text or reason.
fn told(person: &Person) -> Vec<String> {
    let (_, lines) = person.json(&["read", "s"]);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let line = |line: &Value| {
        let rest = text(&line["text"]).or(text(&line["reason"]));
        format!(
            "{} {}",
            line["state"].as_str().unwrap(),
            rest.unwrap_or_default()
        )
    };
    lines.iter().map(line).collect()
}

#[test]
fn what_a_killed_broker_lost_is_told_as_a_gap_until_who_has_it_is_there() {
    let (rig, mut server) = (Rig::small(), Server::start());
    let [alice, bob] = ["alice", "bob"].map(|name| someone(&rig, name, &server.url("plant")));
    let ticket = alice.done(&["stream", "create", "s"]);
    bob.done(&["join", &ticket]);
    alice.done(&["grant", "s", &bob.id(), "--from", "start"]);
    alice.done(&["pub", "s", "-m", "one"]);
    assert_eq!(told(&bob), ["opened one"]);
    server.save();
    // The broker acknowledges these, for a reader who is away, and loses them.
    for text in ["two", "three"] {
        alice.done(&["pub", "s", "-m", text]);
    }
    server.kill();
    server.restart();
    assert_eq!(told(&bob), ["opened one"], "nobody can know of more");
    // All that her home has of the bus is not here for now.
    let (mirrors, aside) = (alice.home().join("mirrors"), rig.path().join("aside"));
    fs::rename(&mirrors, &aside).unwrap();
    alice.done(&["pub", "s", "-m", "four"]);
    assert_eq!(told(&bob), ["opened one", "opened four", "gap missing"]);
    let (_, lines) = bob.json(&["read", "s"]);
    assert_eq!(lines[2]["publisher"], alice.id().as_str());
    for whose in ["device", "time"] {
        assert_eq!(
            lines[2][whose], lines[1][whose],
            "what is missing is before it"
        );
    }
    let said = bob.run(&["read", "s"]).stderr;
    assert!(
        said.contains("gap: from ") && said.contains("are missing before"),
        "{said}"
    );
    // She has it again, and it is sent again.
    fs::remove_dir_all(&mirrors).unwrap();
    fs::rename(&aside, &mirrors).unwrap();
    let alices = Serving::start(&alice, &[]);
    let expected = ["opened four", "opened one", "opened three", "opened two"];
    let start = Instant::now();
    loop {
        let mut all = told(&bob);
        all.sort();
        if all == expected {
            break;
        }
        let is_late = start.elapsed() > WITHIN;
        assert!(!is_late, "what was lost does not come: {all:?}");
    }
    alices.stop();
}

/// A client that knows nothing of sealcast, and gets each message of some topics once.
struct Watcher(u16);

impl Watcher {
    fn start(server: &Server) -> Self {
        let watcher = Self(server.port());
        watcher.run(&["-E"]);
        watcher
    }

    /// The next one.
    fn next(&self) -> Vec<u8> {
        self.run(&["-C", "1", "-N", "-W", "180"])
    }

    fn run(&self, more: &[&str]) -> Vec<u8> {
        let mut command = Command::new("mosquitto_sub");
        command.args(["-h", "127.0.0.1", "-p", &self.0.to_string()]);
        command.args(["-c", "-i", "watcher", "-q", "1", "-t", "plant/#"]);
        let done = command.args(more).stdin(Stdio::null()).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        done.stdout
    }
}

/// Connects, leaves a will, and is gone without a word.
fn leave_will(server: &Server, topic: &str, payload: &[u8]) {
    let field = |bytes: &[u8]| {
        let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
        [&length, bytes].concat()
    };
    // MQTT 3.1.1; a will with QoS 1, and no session to keep.
    let head = [&field(b"MQTT")[..], &[4, 0b0000_1110], &[0, 60]].concat();
    let body = [
        head,
        field(b"device"),
        field(topic.as_bytes()),
        field(payload),
    ]
    .concat();
    let length = u16::try_from(body.len()).unwrap();
    assert!((128..16_384).contains(&length), "two bytes say it");
    let length = [(length % 128) as u8 | 128, (length / 128) as u8];
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    stream
        .write_all(&[&[0x10], &length[..], &body].concat())
        .unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [0x20, 2, 0, 0], "it is let in");
}

/// Its payload is an envelope that was sealed when its client connected.
#[test]
fn a_will_opens_for_whoever_could_read_when_it_was_sealed() {
    let (rig, server) = (Rig::small(), Server::start());
    let alice = someone(&rig, "alice", &server.url("sealed?topics=plant/#"));
    // With a stream of their own, their device lists are there.
    let [bob, carol] = ["bob", "carol"].map(|name| {
        let person = someone(&rig, name, &server.url("sealed"));
        person.done(&["stream", "create", "own"]);
        person
    });
    let ticket = alice.done(&["stream", "create", "s"]);
    alice.done(&["grant", "s", &bob.id(), "--from", "start"]);
    let watcher = Watcher::start(&server);
    alice.done(&["pub", "s", "-t", "plant/7/will", "-m", "went away"]);
    let will = watcher.next();
    alice.done(&["grant", "s", &carol.id(), "--from", "now"]);
    // They come later, and nobody hands out what was.
    for person in [&bob, &carol] {
        person.done(&["join", &ticket]);
        assert_eq!(told(person), [""; 0]);
    }
    for _ in 0..2 {
        leave_will(&server, "plant/7/will", &will);
        assert_eq!(watcher.next(), will);
        // The second time it is the same message.
        assert_eq!(told(&bob), ["opened went away"]);
        assert_eq!(told(&carol), ["sealed not-granted"]);
    }
    // It is of that topic.
    leave_will(&server, "plant/8/will", &will);
    assert_eq!(watcher.next(), will);
    assert_eq!(told(&bob), ["opened went away", "rejected bad-signature"]);
}

//! Clients of another make on the servers of buses: what they see there, and what becomes of what they do.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, sleep};
use std::time::Duration;

use serde_json::Value;

use crate::kinds::{Kind, MOSQUITTO, NATS, POSTGRES, RABBITMQ};
use crate::rig::Rig;

/// What nobody may learn who has no grant: a message, the name of a stream, and that of somebody.
const SECRETS: [&str; 3] = ["furnace at 871 degrees", "s3cret-ward", "alice"];

/// How long to wait for what must come, however busy the machine is.
const WITHIN: Duration = Duration::from_secs(180);
/// Between two looks for it.
const LOOK: Duration = Duration::from_millis(20);

/// What lies on a server, and where.
type Seen = Vec<(String, Vec<u8>)>;

/// Who knows the server, and how others lay out their messages there.
trait Stranger {
    /// Everything that the server holds of the bus, and where.
    fn all(&self) -> Seen;

    /// Publishes garbage, what is too large, what was there before, and that in another order: as messages,
    /// and as items of every topic.
    fn attack(&self);
}

#[test]
fn nats_py_learns_nothing_and_breaks_nothing() {
    let rig = Rig::on(Kind::Nats);
    let args = vec![NATS.port().to_string(), prefix(&rig)];
    learns_nothing_and_breaks_nothing(&rig, &Python("with_nats.py", args));
}

#[test]
fn pika_learns_nothing_and_breaks_nothing() {
    let rig = Rig::on(Kind::Amqp);
    learns_nothing_and_breaks_nothing(&rig, &Pika(prefix(&rig)));
}

#[test]
fn psql_learns_nothing_and_breaks_nothing() {
    let rig = Rig::on(Kind::Postgres);
    learns_nothing_and_breaks_nothing(&rig, &Psql(prefix(&rig)));
}

/// There it needs somebody who keeps what was published.
#[cfg(target_os = "linux")]
#[test]
fn mosquittos_own_clients_learn_nothing_and_break_nothing() {
    let rig = Rig::on(Kind::Mqtt);
    let stranger = Mosquitto::below(prefix(&rig));
    learns_nothing_and_breaks_nothing(&rig, &stranger);
}

fn learns_nothing_and_breaks_nothing(rig: &Rig, stranger: &dyn Stranger) {
    let stream = SECRETS[1];
    let (alice, ticket) = rig.owner("alice", stream);
    let [bob, carol] = ["bob", "carol"].map(|name| rig.person(name));
    bob.done(&["join", &ticket]);
    alice.done(&["grant", stream, &bob.id(), "--from", "start"]);
    // Who answers whoever asks hears all that is sent meanwhile.
    let asked = alice.done(&["stream", "create", "t", "--share", "on-request"]);
    rig.have_kept(&asked);
    alice.done(&["pub", "t", "-m", SECRETS[0]]);
    let answering = Told::by(alice.start(&["sub", "t", "--from", "start", "--json"]));
    assert_eq!(answering.next()["state"], "opened");
    let told = Told::by(bob.start(&["sub", stream, "--from", "start", "--json"]));
    let (mut states, mut expected) = (BTreeSet::new(), Vec::new());
    for round in 0..2 {
        expected.push(format!("{} {round}", SECRETS[0]));
        alice.done(&["pub", stream, "-m", &expected[round]]);
        loop {
            let line = told.next();
            states.insert(line["state"].as_str().unwrap().to_owned());
            if line["state"] == "opened" {
                assert_eq!(line["text"], expected[round].as_str());
                break;
            }
        }
        stranger.attack();
    }
    drop(told);
    let is_told = |state: &&str| states.contains(*state);
    assert!(["rejected", "replay"].iter().all(is_told), "{states:?}");
    // Whoever comes later reads the same, by keys that are given later.
    carol.done(&["join", &ticket]);
    alice.done(&["grant", stream, &carol.id(), "--from", "start"]);
    for person in [bob, carol] {
        assert_eq!(person.opened(&["read", stream]), expected);
        for state in ["rejected", "replay"] {
            assert!(person.count(state, &["read", stream]) > 0, "{state}");
        }
    }
    let dan = rig.person("dan");
    dan.done(&["join", &asked]);
    alice.done(&["grant", "t", &dan.id(), "--from", "start"]);
    dan.done(&["request", "t", "--wait", "3m"]);
    assert_eq!(dan.opened(&["read", "t"]), [SECRETS[0]]);
    drop(answering);
    let all = stranger.all();
    assert!(all.len() > 20, "{}", all.len());
    for (place, bytes) in all {
        for secret in SECRETS {
            let has = |text: &[u8]| text.windows(secret.len()).any(|of| of == secret.as_bytes());
            assert!(!has(&bytes) && !place.contains(secret), "{secret}: {place}");
        }
    }
}

/// How all topics of the rig's bus begin.
fn prefix(rig: &Rig) -> String {
    rig.bus_url().rsplit('/').next().unwrap().to_owned()
}

/// What a program tells, a line of JSON each; it ends with this.
struct Told {
    lines: Receiver<Value>,
    program: Child,
}

impl Told {
    fn by(mut program: Child) -> Self {
        let stdout = program.stdout.take().unwrap();
        let (sender, lines) = channel();
        thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            let mut lines = lines.map(|line| serde_json::from_str(&line).unwrap());
            // Nobody may want them any more.
            lines.all(|line| sender.send(line).is_ok())
        });
        Self { lines, program }
    }

    fn next(&self) -> Value {
        let next = self.lines.recv_timeout(WITHIN);
        next.expect("the message is never told")
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let _is_ended = self.program.kill().is_ok() && self.program.wait().is_ok();
    }
}

/// What a program prints that ends well.
fn printed(command: &mut Command) -> String {
    let done = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{command:?}: {said}");
    String::from_utf8(done.stdout).unwrap()
}

/// Lines that name a place and have what lies there in hexadecimal digits.
fn placed(text: &str) -> Seen {
    let lines = text.lines().map(|line| line.split_once(' ').unwrap());
    lines.map(|(of, hex)| (of.to_owned(), unhex(hex))).collect()
}

fn unhex(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks(2);
    let pairs = pairs.map(|pair| std::str::from_utf8(pair).unwrap());
    let bytes = pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap());
    bytes.collect()
}

/// A script with a library from PyPI, and what it is told of the server and the bus.
struct Python(&'static str, Vec<String>);

impl Python {
    fn run(&self, what: &str) -> String {
        let python = sealcast_brokers::PYTHON;
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let script = folder.join("tests/cli/foreign").join(self.0);
        printed(Command::new(python).arg(script).arg(what).args(&self.1))
    }
}

impl Stranger for Python {
    fn all(&self) -> Seen {
        placed(&self.run("look"))
    }

    fn attack(&self) {
        self.run("attack");
    }
}

/// pika, which is told which queues there are by those who look after the server.
struct Pika(String);

impl Pika {
    fn python(&self) -> Python {
        let queues = RABBITMQ.control(&["list_queues", "-q", "name"]);
        let logs = format!("{}.log.", self.0);
        let queues = queues.lines().filter(|queue| queue.starts_with(&logs));
        let to = [RABBITMQ.port().to_string(), self.0.clone()];
        let args = to.into_iter().chain(queues.map(str::to_owned));
        Python("with_pika.py", args.collect())
    }
}

impl Stranger for Pika {
    fn all(&self) -> Seen {
        self.python().all()
    }

    fn attack(&self) {
        self.python().attack();
    }
}

/// Who may write to the schema.
struct Psql(String);

impl Stranger for Psql {
    fn all(&self) -> Seen {
        let schema = &self.0;
        placed(&POSTGRES.sql(&format!(
            "SELECT name || ' ' || encode(payload, 'hex') FROM {schema}.items JOIN {schema}.topics ON id = topic
             UNION ALL SELECT 'sent ' || encode(payload, 'hex') FROM {schema}.sent
             UNION ALL SELECT 'writers ' || encode(id, 'hex') FROM {schema}.writers"
        )))
    }

    fn attack(&self) {
        let schema = &self.0;
        POSTGRES.sql(&format!(
            "WITH fresh AS (
                SELECT id, ends, of.payload,
                    row_number() OVER (PARTITION BY id ORDER BY of.turn) - 1 AS number
                FROM {schema}.topics, LATERAL (
                    (SELECT payload, -at AS turn FROM {schema}.items WHERE topic = id
                        ORDER BY at DESC LIMIT 8)
                    UNION ALL VALUES ('garbage'::bytea, 1), ('', 2),
                        (decode(repeat('53', 300000), 'hex'), 3)) AS of
             ), put AS (
                INSERT INTO {schema}.items SELECT id, ends + number, payload FROM fresh
             )
             UPDATE {schema}.topics AS of
                SET ends = ends + (SELECT count(*) FROM fresh WHERE fresh.id = of.id);
             INSERT INTO {schema}.sent (payload) VALUES ('garbage'), (decode(repeat('ff', 900000), 'hex'));
             INSERT INTO {schema}.items SELECT id, -1, 'of nobody' FROM {schema}.topics
                ON CONFLICT DO NOTHING;
             SELECT pg_notify('{schema}', said || ' ' || replace(name, '/data', '/ask') || rest)
                FROM {schema}.topics, (VALUES ('grown', ' 99999'), ('grown', ''), ('sent', ' !!'),
                    ('sent', ' aGVsbG8/'), ('stored', ' 1'), ('mark', ''), ('hello?', '')) AS of (said, rest)"
        ));
    }
}

/// `mosquitto_sub`, which is there from the beginning, and `mosquitto_pub`.
struct Mosquitto {
    prefix: String,
    seen: Arc<Mutex<Seen>>,
    sub: Child,
    count: AtomicU64,
}

impl Mosquitto {
    fn below(prefix: String) -> Self {
        let mut sub = Command::new("mosquitto_sub");
        sub.args(["-h", "127.0.0.1", "-p", &MOSQUITTO.port().to_string()]);
        sub.args(["-q", "1", "-F", "%t %x", "-t", &format!("{prefix}/#")]);
        let mut sub = sub.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(sub.stdout.take().unwrap()).lines();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let taking = Arc::clone(&seen);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                taking.lock().unwrap().extend(placed(&line));
            }
        });
        let stranger = Self {
            prefix,
            seen,
            sub,
            count: AtomicU64::new(0),
        };
        let place = format!("{}/here", stranger.prefix);
        for _ in 0..WITHIN.as_millis() / LOOK.as_millis() {
            stranger.publish(&place, b"here", false);
            sleep(LOOK);
            if !stranger.all().is_empty() {
                return stranger;
            }
        }
        panic!("it never hears itself");
    }

    fn publish(&self, place: &str, bytes: &[u8], is_retained: bool) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let mut publish = Command::new("mosquitto_pub");
        publish.args(["-h", "127.0.0.1", "-p", &MOSQUITTO.port().to_string()]);
        publish
            .args(["-q", "1", "-t", place, "-f"])
            .arg(file.path());
        publish.args(is_retained.then_some("-r"));
        printed(&mut publish);
    }

    /// A name that no message had.
    fn fresh(&self, log: &str) -> String {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        format!("{log}/@00000000000000aa.{number:x}")
    }
}

impl Stranger for Mosquitto {
    fn all(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }

    fn attack(&self) {
        let all = self.all();
        let logs: BTreeSet<&str> = all
            .iter()
            .filter_map(|(place, _)| Some(place.split_once("/@")?.0))
            .collect();
        for log in logs {
            let is_retained = !log.contains("/data");
            let there = all.iter().filter(|(place, _)| {
                let name = place.strip_prefix(log).unwrap_or_default();
                name.starts_with("/@")
            });
            for (place, bytes) in there.rev().take(4) {
                self.publish(&self.fresh(log), bytes, is_retained);
                self.publish(place, bytes, is_retained);
            }
            for item in [&b"garbage"[..], b"", &[b'S'; 300_000]] {
                let length = u32::try_from(item.len()).unwrap().to_be_bytes();
                let append = [&b"SCM\x01\0\0\0\0\0\0\0\0"[..], &length, item].concat();
                self.publish(&self.fresh(log), &append, is_retained);
            }
            let ephemeral = log.replace("/log/", "/now/").replace("/data", "/ask");
            for garbage in [&b"hello?"[..], &[0xff; 900_000]] {
                for place in [&self.fresh(log), log, &ephemeral] {
                    self.publish(place, garbage, false);
                }
            }
        }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _is_ended = self.sub.kill().is_ok() && self.sub.wait().is_ok();
    }
}

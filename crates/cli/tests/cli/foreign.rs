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

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use memchr::memmem;
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

/// How many items of garbage, and of those that were there before. They are told as these states.
type Put = [usize; 2];
const STATES: [&str; 2] = ["rejected", "replay"];
/// Every kind of log that there is, as part of its place.
const LOGS: [&str; 5] = ["/data", "/access/", "/keys", "/devices", "/inbox"];

/// Who knows the server, and how others lay out their messages there.
trait Stranger {
    /// Everything that the server holds of the bus, and where.
    fn all(&self) -> Seen;

    /// Publishes garbage, what is too large, what was there before, and that in another order: as messages,
    /// and as items of every topic.
    ///
    /// Says how many items are behind the last one of the log `data` now that are garbage, and that were there
    /// before; nothing where some may come twice under one name, or not at all.
    fn attack(&self, data: &str) -> Option<Put>;

    /// Makes garbage the first items of a log that nobody has written to.
    fn sow(&self, topic: &str);
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
    let (bob, data) = (rig.person("bob"), alice.data_topic());
    bob.done(&["join", &ticket]);
    alice.done(&["grant", stream, &bob.id(), "--from", "start"]);
    // Who answers whoever asks hears all that is sent meanwhile.
    let asked = alice.done(&["stream", "create", "t", "--share", "on-request"]);
    rig.have_kept(&asked);
    alice.done(&["pub", "t", "-m", SECRETS[0]]);
    let answering = Told::by(alice.start(&["sub", "t", "--from", "start", "--json"]));
    assert_eq!(answering.next()["state"], "opened");
    let told = Told::by(bob.start(&["sub", stream, "--from", "start", "--json"]));
    let (mut states, mut expected, mut put) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..2 {
        expected.push(format!("{} {round}", SECRETS[0]));
        alice.done(&["pub", stream, "-m", &expected[round]]);
        loop {
            let line = told.next();
            states.push(line["state"].as_str().unwrap().to_owned());
            if line["state"] == "opened" {
                assert_eq!(line["text"], expected[round].as_str());
                break;
            }
        }
        put.push(stranger.attack(&data));
    }
    drop(told);
    // The second attack came behind the last message.
    let count = |state: &str| states.iter().filter(|of| *of == state).count();
    are_told(STATES.map(count), put[0]);
    let all = put[0].zip(put[1]);
    let all = all.map(|(first, second)| [first[0] + second[0], first[1] + second[1]]);
    // Whoever has a home only now reads the same, by keys that are given later.
    let [carol, dan] = ["carol", "dan"].map(|name| rig.person(name));
    let joining = ["join", &ticket];
    let joined = carol.run(&joining);
    joined.expect(0, &joining);
    are_forged(&joined.stderr);
    alice.done(&["grant", stream, &carol.id(), "--from", "start"]);
    for person in [bob, carol] {
        assert_eq!(person.opened(&["read", stream]), expected);
        are_told(
            STATES.map(|state| person.count(state, &["read", stream])),
            all,
        );
    }
    let (_, id) = dan.json(&["id"]);
    let device = id[0]["device"].as_str().unwrap();
    stranger.sow(&format!("d/{device}/inbox"));
    let mut seen = stranger.all();
    dan.done(&["join", &asked]);
    alice.done(&["grant", "t", &dan.id(), "--from", "start"]);
    dan.done(&["request", "t", "--wait", "3m"]);
    assert_eq!(dan.opened(&["read", "t"]), [SECRETS[0]]);
    drop(answering);
    seen.extend(stranger.all());
    assert!(seen.len() > 20, "{}", seen.len());
    for log in LOGS {
        let mut there = seen
            .iter()
            .filter(|of| of.0.replace('.', "/").contains(log));
        assert!(there.any(|of| has(&of.1, b"garbage")), "{log}");
    }
    hold_no_secret(&seen);
}

/// Checks that garbage in each log of a stream but that of messages was told.
fn are_forged(said: &str) {
    for log in [
        "the device list of ",
        "the access log of ",
        "among the session records and keys ",
    ] {
        let is_told = said
            .lines()
            .any(|line| line.starts_with("alarm: ") && line.contains(log));
        assert!(is_told, "{log}: {said}");
    }
}

/// Checks that all that was put there was told; where it was not counted, that some was.
fn are_told(told: [usize; 2], put: Option<Put>) {
    match put {
        Some(put) => assert_eq!(told, put),
        None => assert!(told.iter().all(|count| *count > 0), "{told:?}"),
    }
}

fn hold_no_secret(seen: &[(String, Vec<u8>)]) {
    // Much of it is the same garbage.
    let bytes: BTreeSet<&[u8]> = seen.iter().map(|(_, bytes)| &bytes[..]).collect();
    for secret in SECRETS {
        let place = seen.iter().find(|(place, _)| place.contains(secret));
        assert!(place.is_none(), "{secret}: {place:?}");
        for form in forms_of(secret) {
            let is_there = bytes.iter().any(|bytes| has(bytes, form.as_bytes()));
            assert!(!is_there, "{secret} as {form}");
        }
    }
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    memmem::find(bytes, part).is_some()
}

/// A text as it is, in hexadecimal digits, and in base64 wherever it begins in what is encoded.
fn forms_of(text: &str) -> Vec<String> {
    let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![text.to_owned(), hex.to_uppercase(), hex];
    for before in 0..3 {
        let all = [&[0; 3][..before], text.as_bytes()].concat();
        // A digit has six bits; those that it shares with what is around the text are left out.
        let digits = (before * 8).div_ceil(6)..all.len() * 8 / 6;
        for encoded in [STANDARD.encode(&all), URL_SAFE.encode(&all)] {
            forms.push(encoded[digits.clone()].to_owned());
        }
    }
    forms
}

#[test]
fn a_secret_is_found_in_every_form() {
    let forms = forms_of("alice");
    let texts = ["616c696365", "616C696365", "it's alice"];
    let encoded = ["alice was here", "my alice", "it's alice!", "a alice"];
    let encoded = encoded.map(|text| STANDARD.encode(text));
    for text in texts.into_iter().chain(encoded.iter().map(String::as_str)) {
        let is_there = forms.iter().any(|of| text.contains(of.as_str()));
        assert!(is_there, "{text}: {forms:?}");
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
    let lines = lines.map(|(of, digits)| (of.to_owned(), hex::decode(digits).unwrap()));
    lines.collect()
}

/// What was put into a log, as two numbers.
fn put(text: &str) -> Put {
    let numbers = text
        .split_whitespace()
        .map(|number| number.parse().unwrap());
    numbers.collect::<Vec<_>>().try_into().unwrap()
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

    fn attack(&self, data: &str) -> Option<Put> {
        let printed = self.run("attack");
        let place = |line: &&str| {
            let place = line.split(' ').next().unwrap();
            place.replace('.', "/").ends_with(data)
        };
        let line = printed.lines().find(place).unwrap();
        Some(put(line.split_once(' ').unwrap().1))
    }

    fn sow(&self, topic: &str) {
        let args = [&self.1[..], &[topic.to_owned()]].concat();
        Self(self.0, args).run("sow");
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

    fn attack(&self, data: &str) -> Option<Put> {
        self.python().attack(data)
    }

    fn sow(&self, topic: &str) {
        let queue = format!("{}.log.{topic}", self.0);
        let args = vec![RABBITMQ.port().to_string(), self.0.clone(), queue];
        Python("with_pika.py", args).run("sow");
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

    fn attack(&self, data: &str) -> Option<Put> {
        let schema = &self.0;
        // What is put behind the last item below: the last items once more, and garbage.
        let counted = POSTGRES.sql(&format!(
            "SELECT count(*) FILTER (WHERE is_garbage) + 3, count(*) FILTER (WHERE NOT is_garbage)
                FROM (SELECT payload IN ('garbage'::bytea, '', 'of nobody',
                        decode(repeat('53', 300000), 'hex')) AS is_garbage
                    FROM {schema}.items JOIN {schema}.topics ON id = topic
                    WHERE name = '{data}' ORDER BY at DESC LIMIT 8) AS last"
        ));
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
             INSERT INTO {schema}.sent (payload) VALUES ('garbage'), (decode(repeat('ff', 200000), 'hex'));
             INSERT INTO {schema}.items SELECT id, -1, 'of nobody' FROM {schema}.topics
                ON CONFLICT DO NOTHING;
             SELECT pg_notify('{schema}', said || ' ' || replace(name, '/data', '/ask') || rest)
                FROM {schema}.topics, (VALUES ('grown', ' 99999'), ('grown', ''), ('sent', ' !!'),
                    ('sent', ' aGVsbG8/'), ('stored', ' 1'), ('mark', ''), ('hello?', '')) AS of (said, rest)"
        ));
        Some(put(&counted.replace('|', " ")))
    }

    fn sow(&self, topic: &str) {
        let schema = &self.0;
        POSTGRES.sql(&format!(
            "INSERT INTO {schema}.topics (name, trimmed, ends) VALUES ('{topic}', 0, 3);
             INSERT INTO {schema}.items SELECT id, number, of.payload
                FROM {schema}.topics, (VALUES (0, 'garbage'::bytea), (1, ''),
                    (2, decode(repeat('53', 300000), 'hex'))) AS of (number, payload)
                WHERE name = '{topic}'"
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
        stranger.hear_itself();
        stranger
    }

    /// Says something until it hears it. It has heard then what came before.
    fn hear_itself(&self) {
        let place = format!("{}/here", self.prefix);
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let said = (place, number.to_be_bytes().to_vec());
        for _ in 0..WITHIN.as_millis() / LOOK.as_millis() {
            self.publish(&said.0, &said.1, false);
            sleep(LOOK);
            if self.seen.lock().unwrap().contains(&said) {
                return;
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

    fn append_garbage(&self, log: &str, is_retained: bool) {
        for item in [&b"garbage"[..], b"", &[b'S'; 300_000]] {
            let length = u32::try_from(item.len()).unwrap().to_be_bytes();
            let append = [&b"SCM\x01\0\0\0\0\0\0\0\0"[..], &length, item].concat();
            self.publish(&self.fresh(log), &append, is_retained);
        }
    }

    /// A name that no message had.
    fn fresh(&self, log: &str) -> String {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        format!("{log}/@00000000000000aa.{number:x}")
    }
}

impl Stranger for Mosquitto {
    fn all(&self) -> Seen {
        self.hear_itself();
        self.seen.lock().unwrap().clone()
    }

    fn attack(&self, _data: &str) -> Option<Put> {
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
            self.append_garbage(log, is_retained);
            let ephemeral = log.replace("/log/", "/now/").replace("/data", "/ask");
            for garbage in [&b"hello?"[..], &[0xff; 200_000]] {
                for place in [&self.fresh(log), log, &ephemeral] {
                    self.publish(place, garbage, false);
                }
            }
        }
        None
    }

    fn sow(&self, topic: &str) {
        self.append_garbage(&format!("{}/log/{topic}", self.prefix), true);
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _is_ended = self.sub.kill().is_ok() && self.sub.wait().is_ok();
    }
}

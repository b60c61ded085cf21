//! Servers that end while people publish and follow, and one that loses what it acknowledged.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::iter;
use std::process::{Child, ChildStdin, ChildStdout};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use sealcast_brokers::{mosquitto, nats, postgres, rabbitmq};

use crate::rig::{Person, Ran, Rig};

/// Lines that are written at once, and how many may wait to be acknowledged.
const BURST: u64 = 10;
const AHEAD_MAX: u64 = 200;
/// Lines of each publisher that are acknowledged before the server ends, and after it is back.
const MORE: u64 = 200;
/// Between two looks, and how many there are until what must come counts as not coming.
const LOOK: Duration = Duration::from_millis(2);
const LOOKS: u32 = 150_000;
/// How long somebody rests whose program gave up.
const GIVEN_UP: Duration = Duration::from_millis(500);
/// How long is waited for a line that must come, however busy the machine is.
const WITHIN: Duration = Duration::from_secs(300);

/// How a server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Killed,
    Stopped,
}

enum Server {
    Amqp(rabbitmq::Server),
    Mqtt(mosquitto::Server),
    Postgres(postgres::Server),
}

impl Server {
    fn url(&self) -> String {
        match self {
            Self::Amqp(server) => server.url("x"),
            Self::Mqtt(server) => server.url("x"),
            Self::Postgres(server) => server.url("x"),
        }
    }

    /// Whether who comes late finds what was there before.
    fn keeps_past(&self) -> bool {
        match self {
            Self::Amqp(_) | Self::Postgres(_) => true,
            Self::Mqtt(_) => false,
        }
    }

    fn end(&mut self, end: End) {
        match (self, end) {
            (Self::Amqp(server), End::Killed) => server.kill(),
            (Self::Amqp(server), End::Stopped) => server.stop(),
            (Self::Mqtt(server), End::Killed) => server.kill(),
            (Self::Mqtt(server), End::Stopped) => server.stop(),
            (Self::Postgres(server), End::Killed) => server.kill(),
            (Self::Postgres(server), End::Stopped) => server.stop(),
        }
    }

    /// On the same port and data.
    fn restart(&mut self) {
        match self {
            Self::Amqp(server) => server.restart(),
            Self::Mqtt(server) => server.restart(),
            Self::Postgres(server) => server.restart(),
        }
    }
}

/// Alice owns the stream `s`, Pat publishes there, too, and Bob and Carol may read it from its start.
struct Cast {
    _rig: Rig,
    alice: Person,
    pat: Person,
    bob: Person,
    carol: Person,
}

impl Cast {
    fn on(url: &str) -> Self {
        let rig = Rig::small();
        let [alice, pat, bob, carol] = ["alice", "pat", "bob", "carol"].map(|name| {
            let person = rig.stranger(name);
            person.done(&["init", "--name", name, "--bus", url, "--no-passphrase"]);
            person
        });
        let ticket = alice.done(&["stream", "create", "s"]);
        for person in [&pat, &bob, &carol] {
            person.done(&["join", &ticket]);
        }
        alice.done(&["grant", "s", &pat.id(), "--role", "publisher"]);
        for reader in [&bob, &carol] {
            alice.done(&["grant", "s", &reader.id(), "--from", "start"]);
        }
        Self {
            _rig: rig,
            alice,
            pat,
            bob,
            carol,
        }
    }
}

/// What one program was given, and what it acknowledged.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    written: u64,
    stored: u64,
}

type Parts = Mutex<Vec<Part>>;

/// Somebody who publishes numbered lines, by one program after another where one gives up.
struct Feeding {
    name: &'static str,
    parts: Arc<Parts>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Feeding {
    fn start(name: &'static str, person: &Person) -> Self {
        let (parts, is_over) = (Arc::<Parts>::default(), Arc::<AtomicBool>::default());
        let (person, of, ends) = (person.clone(), Arc::clone(&parts), Arc::clone(&is_over));
        let thread = thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                publish(&person, name, &of, &ends);
            }
        });
        Self {
            name,
            parts,
            is_over,
            thread: Some(thread),
        }
    }

    fn stored(&self) -> u64 {
        let parts = self.parts.lock().unwrap();
        parts.iter().map(|part| part.stored).sum()
    }

    /// Waits until so many more lines are acknowledged.
    fn wait_for(&self, more: u64) {
        let enough = self.stored() + more;
        let mut looks = 0..LOOKS;
        while self.stored() < enough {
            let has_failed = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            assert!(!has_failed, "{} does not publish any more", self.name);
            assert!(looks.next().is_some(), "{} stores nothing", self.name);
            thread::sleep(LOOK);
        }
    }

    /// Has it end; what each of its programs did.
    fn end(mut self) -> Vec<Part> {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        self.parts.lock().unwrap().clone()
    }
}

impl Drop for Feeding {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// Runs one program until it is to end, or gives up because its server is away for too long.
fn publish(person: &Person, name: &str, parts: &Parts, is_over: &AtomicBool) {
    let index = {
        let mut parts = parts.lock().unwrap();
        parts.push(Part::default());
        parts.len() - 1
    };
    let args = ["pub", "s", "-l", "--acks", "--quiet"];
    let mut child = person.start(&args);
    let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    thread::scope(|scope| {
        let hearing = scope.spawn(|| hear(stdout, parts, index));
        let goes_on = || !is_over.load(Ordering::Relaxed) && !hearing.is_finished();
        feed(stdin, &format!("{name} {index}"), parts, index, goes_on);
    });
    let ran = Ran::of(child.wait_with_output().unwrap());
    let part = parts.lock().unwrap()[index];
    match ran.code {
        0 => assert_eq!(part.stored, part.written, "{name}: it ended well"),
        code => assert_eq!(code, 5, "{name}: {}", ran.stderr),
    }
    if ran.code == 5 {
        thread::sleep(GIVEN_UP);
    }
}

/// Takes in what is acknowledged, which only grows.
fn hear(stdout: ChildStdout, parts: &Parts, index: usize) {
    for ack in BufReader::new(stdout).lines() {
        let stored: u64 = ack.unwrap().parse().unwrap();
        let mut parts = parts.lock().unwrap();
        let part = &mut parts[index];
        assert!((part.stored..=part.written).contains(&stored), "{part:?}");
        part.stored = stored;
    }
}

/// Keeps lines on their way as long as it is to go on.
fn feed(mut stdin: ChildStdin, tag: &str, parts: &Parts, index: usize, goes_on: impl Fn() -> bool) {
    let mut written = 0;
    while goes_on() {
        let stored = parts.lock().unwrap()[index].stored;
        if written - stored >= AHEAD_MAX {
            thread::sleep(LOOK);
            continue;
        }
        let until = written + BURST;
        let lines = (written..until).map(|number| format!("{tag} {number}\n"));
        let lines: String = lines.collect();
        // Some may be taken of what is not taken whole.
        parts.lock().unwrap()[index].written = until;
        if stdin.write_all(lines.as_bytes()).is_err() {
            return;
        }
        written = until;
    }
}

/// Lines as somebody who follows prints them.
struct Followed {
    child: Child,
    from: Receiver<String>,
    lines: Vec<String>,
}

impl Followed {
    fn by(person: &Person) -> Self {
        Self::of(person, &[])
    }

    fn of(person: &Person, more: &[&str]) -> Self {
        let mut child = person.start(&[&["sub", "s", "--from", "start"], more].concat());
        let stdout = child.stdout.take().unwrap();
        let (sender, from) = channel();
        thread::spawn(move || {
            let lines = BufReader::new(stdout).lines();
            // Nobody may want them any more.
            lines
                .map_while(Result::ok)
                .all(|line| sender.send(line).is_ok())
        });
        Self {
            child,
            from,
            lines: Vec::new(),
        }
    }

    /// Takes lines until all of these have come.
    fn until(&mut self, wanted: &[&str]) {
        let mut wanted: BTreeSet<&str> = wanted.iter().copied().collect();
        while !wanted.is_empty() {
            let line = self.from.recv_timeout(WITHIN);
            let line = line.unwrap_or_else(|_| panic!("{wanted:?} does not come"));
            wanted.remove(line.as_str());
            self.lines.push(line);
        }
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        // It may have ended.
        let _is_killed = self.child.kill().is_ok() && self.child.wait().is_ok();
    }
}

/// The lines of a publisher, without its name.
fn of<'a>(name: &str, lines: &'a [String]) -> Vec<&'a str> {
    let own = |line: &'a String| line.strip_prefix(name)?.strip_prefix(' ');
    lines.iter().filter_map(own).collect()
}

/// Of each program the first lines, each once and in order, and none missing that was acknowledged.
fn check(name: &str, parts: &[Part], lines: &[String]) {
    let mut lines = of(name, lines).into_iter().peekable();
    assert_eq!(lines.next(), Some("begins"), "{name}");
    for (index, part) in parts.iter().enumerate() {
        let mut count: u64 = 0;
        while lines
            .next_if_eq(&format!("{index} {count}").as_str())
            .is_some()
        {
            count += 1;
        }
        let is_whole = (part.stored..=part.written).contains(&count);
        let next = lines.peek();
        assert!(is_whole, "{name}, {index}: {count} of {part:?}, {next:?}");
    }
    assert_eq!(lines.next(), Some("ends"), "{name}");
    assert_eq!(lines.next(), None, "{name}");
}

impl Cast {
    /// Who publish, by name.
    fn publishers(&self) -> [(&'static str, &Person); 2] {
        [("alice", &self.alice), ("pat", &self.pat)]
    }

    fn say(&self, word: &str) {
        for (name, person) in self.publishers() {
            person.done(&["pub", "s", "-m", &format!("{name} {word}")]);
        }
    }

    /// Two publish and Bob follows while a server ends in one way after the other, and is started again. What each
    /// was given, and what he saw.
    fn publish_amid(&self, server: &mut Server, ends: &[End]) -> ([Vec<Part>; 2], Vec<String>) {
        let mut followed = Followed::by(&self.bob);
        // With these he has the keys.
        self.say("begins");
        followed.until(&["alice begins", "pat begins"]);
        let publishers = self.publishers();
        let feedings = publishers.map(|(name, person)| Feeding::start(name, person));
        let wait = |feedings: &[Feeding]| feedings.iter().for_each(|of| of.wait_for(MORE));
        for end in ends {
            wait(&feedings);
            server.end(*end);
            server.restart();
        }
        wait(&feedings);
        let parts = feedings.map(Feeding::end);
        self.say("ends");
        followed.until(&["alice ends", "pat ends"]);
        (parts, std::mem::take(&mut followed.lines))
    }
}

fn nothing_acknowledged_is_lost_or_doubled(mut server: Server, ends: &[End]) {
    let cast = Cast::on(&server.url());
    let (parts, followed) = cast.publish_amid(&mut server, ends);
    let publishers = cast.publishers();
    for ((name, _), parts) in publishers.iter().zip(&parts) {
        check(name, parts, &followed);
    }
    if !server.keeps_past() {
        return;
    }
    let (code, lines) = cast.carol.json(&["read", "s"]);
    assert_eq!(code, 0);
    let texts = texts_of(&lines);
    for (name, _) in publishers {
        assert_eq!(of(name, &texts), of(name, &followed));
    }
    // One who gave up may have left something on its way twice.
    if parts.iter().all(|parts| parts.len() == 1) {
        let other = lines.iter().find(|line| line["state"] != "opened");
        assert_eq!(other, None);
    }
}

/// What opened, of what a program told as JSON.
fn texts_of(lines: &[serde_json::Value]) -> Vec<String> {
    let text = |line: &serde_json::Value| line["text"].as_str().map(str::to_owned);
    lines.iter().filter_map(text).collect()
}

/// First it is stopped: spec/bus-amqp.md, section 10, says what a kill soon after the first stream may do.
#[test]
fn rabbitmq_that_is_killed_while_people_publish_loses_and_doubles_nothing() {
    let server = Server::Amqp(rabbitmq::Server::start());
    nothing_acknowledged_is_lost_or_doubled(server, &[End::Stopped, End::Killed]);
}

#[test]
fn postgres_that_is_killed_while_people_publish_loses_and_doubles_nothing() {
    let server = Server::Postgres(postgres::Server::start());
    nothing_acknowledged_is_lost_or_doubled(server, &[End::Killed, End::Killed]);
}

#[test]
fn postgres_that_is_stopped_while_people_publish_loses_and_doubles_nothing() {
    let server = Server::Postgres(postgres::Server::start());
    nothing_acknowledged_is_lost_or_doubled(server, &[End::Stopped, End::Stopped]);
}

/// It keeps what it has in a file, which it writes when it is asked to end.
#[test]
fn mosquitto_that_is_stopped_while_people_publish_loses_and_doubles_nothing() {
    let server = Server::Mqtt(mosquitto::Server::start());
    nothing_acknowledged_is_lost_or_doubled(server, &[End::Stopped, End::Stopped]);
}

/// Of what it loses who wrote it sends the newest again, in whatever order, and the rest is told.
#[test]
fn mosquitto_that_is_killed_while_people_publish_doubles_nothing_and_what_it_loses_is_told() {
    let mut server = Server::Mqtt(mosquitto::Server::start());
    let cast = Cast::on(&server.url());
    let (parts, _) = cast.publish_amid(&mut server, &[End::Killed, End::Killed]);
    let (_, lines) = cast.bob.json(&["read", "s"]);
    let texts = texts_of(&lines);
    for ((name, person), parts) in cast.publishers().into_iter().zip(parts) {
        let opened = of(name, &texts);
        let there: BTreeSet<&str> = opened.iter().copied().collect();
        assert_eq!(there.len(), opened.len(), "{name}: something came twice");
        let stored = parts.iter().enumerate().flat_map(|(index, part)| {
            (0..part.stored).map(move |number| format!("{index} {number}"))
        });
        let lost = stored.filter(|of| !there.contains(of.as_str())).count();
        let is_gap = |line: &&serde_json::Value| {
            line["state"] == "gap" && line["publisher"] == person.id().as_str()
        };
        let gaps = lines.iter().filter(is_gap).count();
        assert!(
            lost == 0 || gaps > 0,
            "{name}: {lost} are lost, and nobody says so"
        );
    }
}

/// A broker may drop what is too much for who is away, as mosquitto does by itself beyond a thousand.
#[test]
fn what_mosquitto_drops_for_who_is_away_is_told_as_a_gap() {
    const SENT: u64 = 100;
    const QUIET: Duration = Duration::from_secs(2);
    const AFTER_MAX: u64 = 60;
    let server = mosquitto::Server::start_with("allow_anonymous true\nmax_queued_messages 30");
    let cast = Cast::on(&server.url("x"));
    let mut followed = Followed::by(&cast.bob);
    cast.alice.done(&["pub", "s", "-m", "begins"]);
    followed.until(&["begins"]);
    drop(followed);
    let mut publisher = cast.alice.start(&["pub", "s", "-l", "--acks", "--quiet"]);
    let mut stdin = publisher.stdin.take().unwrap();
    let mut acks = BufReader::new(publisher.stdout.take().unwrap()).lines();
    for number in 1..=SENT {
        stdin.write_all(format!("{number}\n").as_bytes()).unwrap();
        // Each is an envelope of its own.
        assert_eq!(acks.next().unwrap().unwrap(), number.to_string());
    }
    drop(stdin);
    assert!(publisher.wait().unwrap().success());
    let sub = Followed::of(&cast.bob, &["--json"]);
    let (mut opened, mut gaps, mut after) = (Vec::new(), 0, 0..AFTER_MAX);
    // What is missing may come yet, so that it is told a moment later.
    while gaps == 0
        || !opened
            .last()
            .is_some_and(|of: &String| of.starts_with("after"))
    {
        let Ok(line) = sub.from.recv_timeout(QUIET) else {
            // While there is no room for it yet, this is dropped as well.
            let number = after.next().expect("nothing comes that is published after");
            let text = format!("after {number}");
            cast.alice.done(&["pub", "s", "-m", &text]);
            continue;
        };
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        match line["state"].as_str() {
            Some("gap") => gaps += 1,
            _ => opened.push(line["text"].as_str().unwrap().to_owned()),
        }
    }
    let last = opened.pop().unwrap();
    assert!(last.starts_with("after "), "{last}");
    let came = opened.len() as u64;
    let first = (1..came).map(|number| number.to_string());
    let expected: Vec<_> = iter::once("begins".to_owned()).chain(first).collect();
    assert_eq!(opened, expected);
    assert!(gaps == 1 && came <= SENT, "{gaps}, {came}");
}

/// Alice publishes, the server loses some of it, and she publishes more.
fn what_is_lost_is_told_as_a_gap(cast: &Cast, left: &str, lose: impl FnOnce(&str)) {
    for text in ["one", "lost"] {
        cast.alice.done(&["pub", "s", "-m", text]);
    }
    lose(&cast.alice.data_topic());
    cast.alice.done(&["pub", "s", "-m", "three"]);
    let ran = cast.bob.run(&["read", "s"]);
    assert_eq!(ran.expect(0, &["read"]), left, "{}", ran.stderr);
    assert!(ran.stderr.contains("gap: from "), "{}", ran.stderr);
    for reader in [&cast.alice, &cast.bob, &cast.carol] {
        let (_, lines) = reader.json(&["read", "s"]);
        let gaps = lines.iter().filter(|line| line["state"] == "gap");
        let gaps: Vec<_> = gaps.collect();
        assert_eq!(gaps.len(), 1, "{lines:?}");
        assert_eq!(gaps[0]["reason"], "missing");
        assert_eq!(gaps[0]["publisher"], cast.alice.id().as_str());
    }
}

/// As one does that was put back to where it stood before.
#[test]
fn what_postgres_acknowledged_and_lost_is_told_as_a_gap() {
    let server = postgres::Server::start_with("fsync = off");
    what_is_lost_is_told_as_a_gap(&Cast::on(&server.url("x")), "one\nthree", |topic| {
        let lost = server.sql(&format!(
            "WITH log AS (
                UPDATE x.topics SET ends = ends - 1 WHERE name = '{topic}' RETURNING id, ends
             )
             DELETE FROM x.items USING log
                WHERE items.topic = log.id AND items.at = log.ends RETURNING 'lost'"
        ));
        assert_eq!(lost.trim(), "lost");
    });
}

/// Somebody deleted the queue, of which nothing is left.
#[test]
fn what_rabbitmq_acknowledged_and_lost_is_told_as_a_gap() {
    let server = rabbitmq::Server::start();
    what_is_lost_is_told_as_a_gap(&Cast::on(&server.url("x")), "three", |topic| {
        server.control(&["delete_queue", "-q", &format!("x.log.{topic}")]);
    });
}

#[test]
fn what_nats_acknowledged_and_lost_is_told_as_a_gap() {
    // Debian's finds no last message on a subject any more whose last one was deleted.
    let server = nats::Server::start_newer();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    what_is_lost_is_told_as_a_gap(&Cast::on(&server.url("x")), "one\nthree", |topic| {
        let subject = format!("x.log.{}", topic.replace('/', "."));
        runtime.block_on(async {
            let url = format!("127.0.0.1:{}", server.port());
            let client = async_nats::connect(url).await.unwrap();
            let stream = async_nats::jetstream::new(client).get_stream("x").await;
            let stream = stream.unwrap();
            let last = stream.get_last_raw_message_by_subject(&subject).await;
            let is_lost = stream.delete_message(last.unwrap().sequence).await;
            assert!(is_lost.unwrap());
        });
    });
}

/// Somebody deleted a row, which the server itself does not notice.
#[test]
fn what_postgres_lost_from_among_others_is_told_as_damage_and_the_rest_is_read() {
    let server = postgres::Server::start_with("fsync = off");
    let cast = Cast::on(&server.url("x"));
    for text in ["one", "lost", "three"] {
        cast.alice.done(&["pub", "s", "-m", text]);
    }
    let lost = server.sql(&format!(
        "DELETE FROM x.items USING x.topics
            WHERE items.topic = topics.id AND topics.name = '{}' AND items.at = topics.ends - 2
            RETURNING 'lost'",
        cast.alice.data_topic()
    ));
    assert_eq!(lost.trim(), "lost");
    for command in [
        &["read", "s"][..],
        &["sub", "s", "--from", "start", "--count", "2"],
    ] {
        let ran = cast.bob.run(command);
        assert_eq!(ran.expect(5, command), "one\nthree");
        let says = ran.stderr.contains("bus is damaged");
        assert!(says, "{command:?}: {}", ran.stderr);
    }
}

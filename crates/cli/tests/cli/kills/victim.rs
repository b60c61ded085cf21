//! A command that is killed, and what it acknowledged until then.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdin, ChildStdout};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use sealcast_crash::Chance;
use serde_json::Value;

use crate::rig::Person;

/// Lines that are handed over at once, at most.
const BURST_MAX: u64 = 30;

/// What is run and killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Publish,
    Grant,
    Rekey,
}

/// What a killed command said that it had done.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) kind: Kind,
    /// What its records begin with.
    pub(crate) tag: String,
    /// Lines that were handed to it.
    pub(crate) written: u64,
    /// Lines that it said are stored.
    pub(crate) stored: u64,
    /// The grant that it named.
    pub(crate) grant: Option<String>,
    /// Whether it had ended by itself, and well.
    pub(crate) is_done: bool,
    /// How long it ran.
    pub(crate) ran: Duration,
    /// What it complained of.
    pub(crate) said: String,
}

/// Starts a command and kills it after a while; the claim comes when it is dead.
pub(crate) fn start(
    person: &Person,
    kind: Kind,
    tag: String,
    delay: Duration,
    chance: Chance,
) -> JoinHandle<Claim> {
    let args: &[&str] = match kind {
        Kind::Publish => &["pub", "s", "-l", "--acks", "--quiet"],
        Kind::Grant => &["grant", "s", "carol", "--from", "start", "--json"],
        Kind::Rekey => &["rekey", "s", "--json"],
    };
    let started = Instant::now();
    let mut child = person.start(args);
    thread::spawn(move || {
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let of = tag.clone();
        let talk = thread::spawn(move || match kind {
            Kind::Publish => feed(&of, stdin, stdout, chance),
            Kind::Grant | Kind::Rekey => listen(stdout),
        });
        thread::sleep(delay.saturating_sub(started.elapsed()));
        let is_done = kill(&mut child);
        let ran = started.elapsed();
        let (written, stored, grant) = talk.join().unwrap();
        let mut said = String::new();
        let mut stderr = child.stderr.take().unwrap();
        stderr.read_to_string(&mut said).unwrap();
        Claim {
            kind,
            tag,
            written,
            stored,
            grant,
            is_done,
            ran,
            said,
        }
    })
}

/// Whether it had ended well before.
fn kill(child: &mut Child) -> bool {
    child.kill().unwrap();
    child.wait().unwrap().success()
}

/// Hands lines over in bursts, each when the one before is stored. What was said before the end
/// counts, also when it is heard after it.
fn feed(
    tag: &str,
    mut stdin: ChildStdin,
    stdout: ChildStdout,
    mut chance: Chance,
) -> (u64, u64, Option<String>) {
    let mut acks = BufReader::new(stdout).lines();
    let (mut written, mut stored) = (0, 0);
    loop {
        let until = written + 1 + chance.below(BURST_MAX);
        let burst: String = (written..until).map(|n| format!("{tag} {n}\n")).collect();
        if stdin.write_all(burst.as_bytes()).is_ok() {
            written = until;
        } else {
            // Some of it may have been taken.
            written = until;
            stored = acks
                .last()
                .map_or(stored, |last| last.unwrap().parse().unwrap());
            return (written, stored, None);
        }
        while stored < written {
            match acks.next() {
                Some(ack) => stored = ack.unwrap().parse().unwrap(),
                None => return (written, stored, None),
            }
        }
    }
}

/// A line that came whole was meant.
fn listen(mut stdout: ChildStdout) -> (u64, u64, Option<String>) {
    let mut text = String::new();
    stdout.read_to_string(&mut text).unwrap();
    let line = text.strip_suffix('\n').map(serde_json::from_str::<Value>);
    let grant = line.and_then(|line| line.unwrap()["grant"].as_str().map(str::to_owned));
    (0, 0, grant)
}

//! Many messages through the real program and a real server: whether all arrive, once and in order,
//! and whether memory stays flat.

mod chain;

use std::fs;
use std::io::{BufRead, BufReader, BufWriter, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use sealcast_brokers::nats::Server;

use crate::clock;
use crate::report::{self, Page};
use crate::scene::Scene;
use chain::{Chain, LINE};

/// The argument that asks for it; how many messages follows.
pub(crate) const FLOOD: &str = "flood";

const RESULTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/FLOOD.md");
/// From so many messages on the figures are kept.
const KEPT_FROM: u64 = 1_000_000;
/// More than that from a tenth of the messages to the last one is not flat.
const GROWTH_MAX_MIB: f64 = 16.0;
const MEMORY_MAX_MIB: f64 = 96.0;

/// A process, and what it had of memory at a tenth of the messages and at the end.
struct Watched {
    child: Child,
    memory: [f64; 2],
}

impl Watched {
    fn start(mut command: Command, input: Stdio, output: Stdio) -> anyhow::Result<Self> {
        let child = command.stdin(input).stdout(output).spawn()?;
        Ok(Self {
            child,
            memory: [0.0; 2],
        })
    }

    fn look(&mut self, at: usize) -> anyhow::Result<()> {
        let status = PathBuf::from(format!("/proc/{}/status", self.child.id()));
        self.memory[at] = clock::memory_of(&status, "VmRSS")?;
        Ok(())
    }

    fn end(mut self, what: &str) -> anyhow::Result<[f64; 2]> {
        ensure!(self.child.wait()?.success(), "{what} failed");
        let [tenth, end] = self.memory;
        ensure!(
            end <= MEMORY_MAX_MIB && end - tenth <= GROWTH_MAX_MIB,
            "{what} grew from {tenth:.0} MiB to {end:.0} MiB"
        );
        Ok(self.memory)
    }
}

/// What came of it.
struct Flood {
    messages: u64,
    publish: [f64; 2],
    follow: [f64; 2],
    read: [f64; 2],
    through: Duration,
    reading: Duration,
}

/// Sends messages through, checks them, and says what it took.
pub(crate) fn run(messages: u64) -> anyhow::Result<String> {
    let server = Server::start();
    let is_glance = messages < KEPT_FROM;
    let scene = Scene::set(Some(&server.url("flood")), 0, LINE, is_glance)?;
    let begun = Instant::now();
    let [publish, follow] = follow(&scene, messages)?;
    let through = begun.elapsed();
    let begun = Instant::now();
    let read = read(&scene, messages)?;
    let flood = Flood {
        messages,
        publish,
        follow,
        read,
        through,
        reading: begun.elapsed(),
    };
    let text = flood.page();
    if messages >= KEPT_FROM {
        fs::write(RESULTS, &text)?;
    }
    Ok(text)
}

/// One publishes and another follows; the publisher ends when everything has arrived.
fn follow(scene: &Scene, messages: u64) -> anyhow::Result<[[f64; 2]; 2]> {
    let sub = scene.command("bob", &["sub", "kitchen", "--from", "start"]);
    let mut follower = Watched::start(sub, Stdio::null(), Stdio::piped())?;
    let publish = scene.command("alice", &["pub", "kitchen", "-l"]);
    let mut publisher = Watched::start(publish, Stdio::piped(), Stdio::null())?;
    let stdin = publisher.child.stdin.take().context("a pipe")?;
    let feeding = thread::spawn(move || feed(stdin, messages));
    let stdout = follower.child.stdout.take().context("a pipe")?;
    check(BufReader::new(stdout), messages, |at| {
        publisher.look(at)?;
        follower.look(at)
    })?;
    let fed = feeding
        .join()
        .map_err(|_| anyhow::anyhow!("feeding failed"))?;
    drop(fed?);
    let published = publisher.end("the publisher")?;
    kill_process(Pid::from_child(&follower.child), Signal::TERM)?;
    Ok([published, follower.end("the follower")?])
}

/// Reads all of it once more, from the bus.
fn read(scene: &Scene, messages: u64) -> anyhow::Result<[f64; 2]> {
    let command = scene.command("bob", &["read", "kitchen"]);
    let mut reader = Watched::start(command, Stdio::null(), Stdio::piped())?;
    let stdout = BufReader::new(reader.child.stdout.take().context("a pipe")?);
    check(stdout, messages, |at| reader.look(at))?;
    reader.end("the reader")
}

/// Writes the lines; the pipe stays open until what is returned is dropped.
fn feed(stdin: ChildStdin, messages: u64) -> anyhow::Result<BufWriter<ChildStdin>> {
    let mut lines = BufWriter::with_capacity(64 << 10, stdin);
    let mut chain = Chain::new();
    while chain.count() < messages {
        writeln!(lines, "{}", chain.next())?;
    }
    writeln!(lines, "{}", Chain::end())?;
    lines.flush()?;
    Ok(lines)
}

/// Checks every line, and that the one that ends them is next: a second last one would come before that.
/// `look` is called at a tenth of them, and just before the last.
fn check(
    mut lines: impl BufRead,
    messages: u64,
    mut look: impl FnMut(usize) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut chain = Chain::new();
    let mut line = Vec::new();
    while take(&mut lines, &mut line)? {
        if chain.count() == messages && line == Chain::end().as_bytes() {
            return Ok(());
        }
        ensure!(
            chain.count() < messages,
            "a line came behind the last one: {}",
            String::from_utf8_lossy(&line)
        );
        chain.check(&line)?;
        if chain.count() == messages / 10 {
            look(0)?;
        }
        // A reader ends with the last line, and with it what is known of its memory; a pipe holds more than a thousand.
        if chain.count() == messages - messages / 20 {
            look(1)?;
        }
    }
    bail!("the end never came, and {} lines did", chain.count())
}

/// Takes the next line, without its newline, if there is one.
fn take(lines: &mut impl BufRead, line: &mut Vec<u8>) -> anyhow::Result<bool> {
    line.clear();
    let is_there = lines.read_until(b'\n', line)? > 0;
    if line.ends_with(b"\n") {
        line.pop();
    }
    Ok(is_there)
}

impl Flood {
    fn page(&self) -> String {
        let mut page = Page::default();
        page.title("Many messages through NATS");
        let command = format!(
            "cargo run --release -p sealcast-bench -- {FLOOD} {}",
            self.messages
        );
        report::provenance(&mut page, &command);
        page.head(&["", "MiB at a tenth", "MiB at the end"]);
        for (what, memory) in [
            ("`pub -l`", self.publish),
            ("`sub`", self.follow),
            ("`read`", self.read),
        ] {
            let [tenth, end] = memory.map(|mib| format!("{mib:.1}"));
            page.row(&[&what, &tenth, &end]);
        }
        page.paragraph(&format!(
            "{} messages of {LINE} bytes, each with its number and a sum over all numbers before it, \
             went in by `sealcast pub -l` and came out of `sealcast sub` in another process and home, \
             in {:.0} s; afterwards `sealcast read` read them again, in {:.0} s. A checker that knows \
             only how the lines are made saw each of them once and in order, and then one more that \
             ends them, with nothing between. Memory is what is resident, at a tenth of the messages \
             and at the last twentieth; the command fails where it grows by more than \
             {GROWTH_MAX_MIB:.0} MiB or to more than {MEMORY_MAX_MIB:.0} MiB.",
            self.messages,
            self.through.as_secs_f64(),
            self.reading.as_secs_f64(),
        ));
        page.text().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the checker says to these lines of three, behind all of which their end is.
    fn judged(order: &[usize]) -> anyhow::Result<()> {
        let mut chain = Chain::new();
        let lines = [chain.next(), chain.next(), chain.next()];
        let lines = order.iter().map(|at| format!("{}\n", lines[*at]));
        let text = format!("{}{}\n", lines.collect::<String>(), Chain::end());
        check(text.as_bytes(), 3, |_| Ok(()))
    }

    #[test]
    fn a_line_that_comes_behind_the_last_one_is_noticed() {
        assert!(judged(&[0, 1, 2]).is_ok());
        for order in [&[0, 1, 2, 2][..], &[0, 1, 2, 0], &[0, 1], &[0, 1, 2, 1, 2]] {
            assert!(judged(order).is_err(), "{order:?}");
        }
    }

    #[test]
    fn lines_without_an_end_are_not_all_of_them() {
        let mut chain = Chain::new();
        let text = format!("{}\n{}\n", chain.next(), chain.next());
        assert!(check(text.as_bytes(), 2, |_| Ok(())).is_err());
    }
}

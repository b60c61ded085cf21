use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel, sync_channel};
use std::thread;
use std::time::Duration;

use sealcast_brokers::nats::Cluster;

use super::Cast;

/// Lines that are written at once, and how long to rest between them.
const BURST: u64 = 20;
const REST: Duration = Duration::from_millis(10);

/// How long to wait for what must come, however busy the machine is.
const WITHIN: Duration = Duration::from_secs(180);

/// What a publisher writes that has this letter.
fn line(who: char, number: u64) -> String {
    format!("{who}{number:.<1000}")
}

/// A program that ends with this, at the latest.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _is_killed = self.0.kill().is_ok() && self.0.wait().is_ok();
    }
}

impl Running {
    /// Waits until it has ended well.
    fn end(mut self) {
        let looks = WITHIN.as_millis() / REST.as_millis();
        let mut ended = (0..looks).filter_map(|_| {
            thread::sleep(REST);
            self.0.try_wait().unwrap()
        });
        let status = ended.next().expect("it does not end");
        let mut said = String::new();
        let stderr = self.0.stderr.take().unwrap();
        for line in BufReader::new(stderr).lines() {
            said += &line.unwrap();
        }
        assert!(status.success(), "{said}");
    }
}

/// Somebody who publishes numbered lines.
struct Feeding {
    ends: Arc<AtomicBool>,
    count: Receiver<u64>,
    publisher: Running,
}

impl Feeding {
    fn start(who: char, mut publisher: Child) -> Self {
        let stdin = publisher.stdin.take().unwrap();
        let ends = Arc::new(AtomicBool::new(false));
        let (sender, count) = channel();
        let is_over = Arc::clone(&ends);
        thread::spawn(move || sender.send(feed(who, stdin, &is_over)));
        Self {
            ends,
            count,
            publisher: Running(publisher),
        }
    }

    /// Has it end; how many lines there were.
    fn end(self) -> u64 {
        self.ends.store(true, Ordering::Relaxed);
        let count = self.count.recv_timeout(WITHIN);
        let count = count.expect("the publisher takes no lines");
        self.publisher.end();
        count
    }
}

/// Writes numbered lines until it is told to end; how many there were.
fn feed(who: char, mut stdin: ChildStdin, ends: &AtomicBool) -> u64 {
    let mut number = 0;
    while !ends.load(Ordering::Relaxed) {
        for _ in 0..BURST {
            if writeln!(stdin, "{}", line(who, number)).is_err() {
                // Why nobody takes it any more is told in the end.
                return number;
            }
            number += 1;
        }
        thread::sleep(REST);
    }
    number
}

/// Lines as a program prints them: each is the next one of its publisher.
struct Lines {
    from: Receiver<String>,
    /// How many of each.
    seen: BTreeMap<char, u64>,
    reader: Running,
}

impl Lines {
    fn of(mut reader: Child) -> Self {
        let stdout = reader.stdout.take().unwrap();
        // None is read before it is wanted, so that the program is held up.
        let (sender, from) = sync_channel(0);
        thread::spawn(move || {
            let lines = BufReader::new(stdout).lines();
            // Nobody may want them any more.
            lines
                .map_while(Result::ok)
                .all(|line| sender.send(line).is_ok())
        });
        Self {
            from,
            seen: BTreeMap::new(),
            reader: Running(reader),
        }
    }

    fn take(&mut self, count: u64) {
        for _ in 0..count {
            let text = self.from.recv_timeout(WITHIN);
            let text = text.unwrap_or_else(|_| panic!("no line behind {:?}", self.seen));
            let who = text.chars().next().unwrap();
            let seen = self.seen.entry(who).or_default();
            assert_eq!(text, line(who, *seen));
            *seen += 1;
        }
    }

    /// Takes what is left of so many of each.
    fn take_rest(&mut self, of: &BTreeMap<char, u64>) {
        let all: u64 = of.values().sum();
        self.take(all - self.seen.values().sum::<u64>());
        assert_eq!(self.seen, *of);
    }
}

/// Ends the server that leads the bus's stream, and says which it was.
fn kill_leader(runtime: &tokio::runtime::Runtime, cluster: &mut Cluster) -> usize {
    let leader = runtime.block_on(cluster.leader("x"));
    cluster.servers()[leader].kill();
    leader
}

#[test]
fn a_cluster_of_which_servers_end_loses_and_doubles_nothing() {
    const MORE: u64 = 500;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut cluster = Cluster::start();
    runtime.block_on(cluster.make_stream("x"));
    let Cast {
        rig: _rig,
        alice,
        bob,
    } = Cast::on(&cluster.url("x"));
    alice.done(&["grant", "s", &bob.id(), "--role", "publisher"]);
    let mut followed = Lines::of(bob.start(&["sub", "s", "--from", "start"]));
    let publishers = [('a', &alice), ('b', &bob)];
    let feeding =
        publishers.map(|(who, of)| (who, Feeding::start(who, of.start(&["pub", "s", "-l"]))));
    followed.take(MORE);
    let leader = kill_leader(&runtime, &mut cluster);
    // The other two go on alone.
    followed.take(4 * MORE);
    cluster.servers()[leader].restart();
    for index in 0..3 {
        followed.take(MORE);
        cluster.servers()[index].stop();
        cluster.servers()[index].restart();
    }
    followed.take(MORE);
    let written = BTreeMap::from(feeding.map(|(who, feeding)| (who, feeding.end())));
    followed.take_rest(&written);
    drop(followed);

    // And again while somebody reads, who is held up by how slowly it is taken from him.
    let mut lines = Lines::of(bob.start(&["read", "s"]));
    lines.take(1);
    kill_leader(&runtime, &mut cluster);
    lines.take_rest(&written);
    lines.reader.end();
}

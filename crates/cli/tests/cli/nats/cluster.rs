use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{ChildStdin, ChildStdout};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use sealcast_brokers::nats::Cluster;

use super::Cast;

/// Lines that are written at once, and how long to rest between them.
const BURST: u64 = 20;
const REST: Duration = Duration::from_millis(10);

fn line(number: u64) -> String {
    format!("{number:.<1000}")
}

/// Writes numbered lines until it is told to end; how many there were.
fn feed(mut stdin: ChildStdin, ends: &AtomicBool) -> u64 {
    let mut number = 0;
    while !ends.load(Ordering::Relaxed) {
        for _ in 0..BURST {
            if writeln!(stdin, "{}", line(number)).is_err() {
                // Why nobody takes it any more is told in the end.
                return number;
            }
            number += 1;
        }
        thread::sleep(REST);
    }
    number
}

/// Has the feeding end with this, so that a failure does not wait for it.
struct Feeding<'a>(&'a AtomicBool);

impl Drop for Feeding<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Lines as they come out: each is the next one.
struct Lines {
    from: BufReader<ChildStdout>,
    seen: u64,
}

impl Lines {
    fn of(from: Option<ChildStdout>) -> Self {
        Self {
            from: BufReader::new(from.unwrap()),
            seen: 0,
        }
    }

    fn take(&mut self, count: u64) {
        for _ in 0..count {
            let mut text = String::new();
            self.from.read_line(&mut text).unwrap();
            assert_eq!(text.trim_end(), line(self.seen));
            self.seen += 1;
        }
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
    let mut sub = bob.start(&["sub", "s", "--from", "start"]);
    let mut followed = Lines::of(sub.stdout.take());
    let mut publisher = alice.start(&["pub", "s", "-l"]);
    let stdin = publisher.stdin.take().unwrap();
    let ends = AtomicBool::new(false);
    let written = thread::scope(|scope| {
        let feeding = Feeding(&ends);
        let fed = scope.spawn(|| feed(stdin, &ends));
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
        drop(feeding);
        fed.join().unwrap()
    });
    let published = publisher.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&published.stderr);
    assert!(published.status.success(), "{said}");
    followed.take(written - followed.seen);
    sub.kill().unwrap();
    sub.wait().unwrap();

    // And again while somebody reads, who is held up by how slowly it is taken from him.
    let mut read = bob.start(&["read", "s"]);
    let mut lines = Lines::of(read.stdout.take());
    lines.take(1);
    kill_leader(&runtime, &mut cluster);
    lines.take(written - 1);
    assert!(read.wait().unwrap().success());
}

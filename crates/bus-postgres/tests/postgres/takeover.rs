//! Two servers, one of which takes over from the other, that waited for it.

use std::process::Command;
use std::time::Duration;

use sealcast_brokers::postgres::Server;
use sealcast_bus::{Aspect, Bus as _, Offset, ServerAddress, ServerOptions};
use sealcast_bus_postgres::PostgresBus;
use tokio::time::sleep;

use crate::breaks::{all_of, append, follow, read_all};
use crate::rig::{QUICK, address, topic, within};

struct Pair {
    primary: Server,
    standby: Server,
}

impl Pair {
    async fn start() -> Self {
        let mut primary = Server::start_with(QUICK);
        let standby = Server::standby_of(&primary);
        primary.sql("ALTER SYSTEM SET synchronous_standby_names = '*'");
        // Told to read its configuration, it waits for standbys a moment later than it says so.
        primary.stop();
        primary.restart();
        let pair = Self { primary, standby };
        let follows = async {
            while pair.of_sender("sync_state") != "sync" {
                sleep(Duration::from_millis(10)).await;
            }
        };
        within("a standby that is waited for", follows).await;
        pair
    }

    /// The one that cannot be written to comes first.
    fn address(&self) -> ServerAddress {
        let servers = [&self.standby, &self.primary].map(|of| format!("127.0.0.1:{}", of.port()));
        address(&format!("postgres://{}/postgres/x", servers.join(",")))
    }

    /// What the primary says of the process that sends to the standby.
    fn of_sender(&self, what: &str) -> String {
        let of = format!("SELECT {what} FROM pg_stat_replication");
        self.primary.sql(&of).trim().to_owned()
    }

    /// Waits until somebody waits for the standby, and says who.
    async fn who_waits(&self, asking: &str) -> String {
        let of = format!(
            "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE '%{asking}%'"
        );
        let waits = async {
            loop {
                let pid = self.primary.sql(&of).trim().to_owned();
                if !pid.is_empty() {
                    return pid;
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        within("who waits for a standby", waits).await
    }

    fn fail_over(&mut self) {
        self.primary.kill();
        self.standby.sql("SELECT pg_promote()");
    }
}

fn signal(signal: &str, pid: &str) {
    let sent = Command::new("kill").args([signal, pid]).status();
    assert!(sent.expect("kill").success(), "{signal} {pid}");
}

/// The process of a server of which all others are children.
fn postmaster(server: &Server) -> String {
    let says = std::fs::read_to_string(server.folder().join("postmaster.pid"));
    let says = says.expect("a server that runs");
    says.lines().next().expect("its process").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_takes_over_has_what_was_acknowledged() {
    const WRITERS: u64 = 3;
    const EACH: u64 = 40;
    let mut pair = Pair::start().await;
    let (address, options) = (pair.address(), ServerOptions::default());
    let log = topic("a/log");
    let bus = PostgresBus::open(&address, &options).await.unwrap();
    let report = PostgresBus::check(&address, &options).await.unwrap();
    let cluster = report.stated(Aspect::Cluster).unwrap();
    assert!(cluster.contains("waits for `*`"), "{cluster}");
    let following = tokio::spawn(follow(bus.clone(), log.clone(), WRITERS * EACH));
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let bus = PostgresBus::open(&address, &options).await.unwrap();
        writers.push(tokio::spawn(append(bus, log.clone(), writer, EACH)));
    }
    let third = async {
        while bus.end(&log).await.unwrap() < Offset(WRITERS * EACH / 3) {
            sleep(Duration::from_millis(1)).await;
        }
    };
    within("a third of the items", third).await;
    pair.fail_over();
    let acknowledged = all_of(writers).await;
    let offsets = acknowledged.iter().map(|(offset, _)| *offset);
    assert!(offsets.eq(0..WRITERS * EACH), "{acknowledged:?}");
    let expected: Vec<String> = acknowledged.into_iter().map(|(_, text)| text).collect();
    let read = read_all(&bus, &log).await;
    assert_eq!(read, expected, "what is read");
    let followed = within("all items, to who follows", following).await;
    assert_eq!(followed.unwrap(), expected, "what was followed");
}

/// Whoever goes on from there would pass over what the standby has in its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_standby_has_is_not_read() {
    let mut pair = Pair::start().await;
    let (address, options) = (pair.address(), ServerOptions::default());
    let open = async || PostgresBus::open(&address, &options).await.unwrap();
    let (log, bus) = (topic("a/log"), open().await);
    bus.append(&log, vec![b"one".to_vec()]).await.unwrap();
    let sender = pair.of_sender("pid");
    signal("-STOP", &sender);
    // Its program ends, and the server is told to wait no longer.
    let (gone, to) = (open().await, log.clone());
    let appending = tokio::spawn(async move { gone.append(&to, vec![b"lost".to_vec()]).await });
    let waiting = pair.who_waits("INSERT").await;
    appending.abort();
    pair.primary
        .sql(&format!("SELECT pg_cancel_backend({waiting})"));
    let mut tail = bus.tail(vec![(log.clone(), Offset(0))]);
    let following = tokio::spawn(async move {
        let mut seen = Vec::new();
        while seen.len() < 3 {
            let Ok((_, items)) = tail.next().await else {
                continue;
            };
            let texts = items.into_iter();
            seen.extend(texts.map(|item| String::from_utf8(item.payload).unwrap()));
        }
        seen
    });
    let waiting = pair.who_waits("emit_message").await;
    // Nor is it when it is told so of this.
    pair.primary
        .sql(&format!("SELECT pg_cancel_backend({waiting})"));
    pair.who_waits("emit_message").await;
    assert_eq!(pair.primary.sql("SELECT count(*) FROM x.items").trim(), "2");
    // What it was to send goes with it, and no process of it is left that stands still.
    signal("-STOP", &postmaster(&pair.primary));
    signal("-KILL", &sender);
    pair.fail_over();
    for text in ["two", "three"] {
        bus.append(&log, vec![text.into()]).await.unwrap();
    }
    let followed = within("all items, to who follows", following).await;
    assert_eq!(followed.unwrap(), ["one", "two", "three"]);
    assert_eq!(read_all(&bus, &log).await, ["one", "two", "three"]);
}

/// While no standby answers, one connection waits, and not one more for each attempt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_waits_for_a_standby_and_keeps_no_connections() {
    let pair = Pair::start().await;
    let (address, options) = (pair.address(), ServerOptions::default());
    let bus = PostgresBus::open(&address, &options).await.unwrap();
    let log = topic("a/log");
    bus.append(&log, vec![b"one".to_vec()]).await.unwrap();
    let sender = pair.of_sender("pid");
    signal("-STOP", &sender);
    let reading = tokio::spawn(async move { read_all(&bus, &log).await });
    let first = pair.who_waits("emit_message").await;
    let another = async {
        loop {
            let waits = pair.who_waits("emit_message").await;
            if waits != first {
                return waits;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    // There is but one of them, or these were two lines.
    let second = within("another attempt", another).await;
    assert!(second.parse::<u32>().is_ok(), "{second}");
    signal("-CONT", &sender);
    let read = within("what is read", reading).await;
    assert_eq!(read.unwrap(), ["one"]);
}

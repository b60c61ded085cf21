//! Several processes of one home, and the one that feeds the mirror dies.
//!
//! The other processes are this test program again, told by the environment what to do.

use std::env;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use sealcast_brokers::mosquitto::Server;
use sealcast_bus::Bus as _;

use crate::rig::{Home, all, numbered, open, open_at, put, sorted, topic, wait_for};

const URL: &str = "MQTT_TEST_URL";
const FOLDER: &str = "MQTT_TEST_FOLDER";

/// A process that does something until it is killed.
struct Other(Child);

impl Other {
    /// Returns when it has begun.
    fn start(does: &str, url: &str, folder: &Path) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args([&format!("processes::{does}"), "--exact", "--nocapture"])
            .env(URL, url)
            .env(FOLDER, folder)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("begins")));
        // What it says later has to go somewhere.
        std::thread::spawn(move || lines.count());
        Self(child)
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// What the other processes do; nothing where nobody told them.
#[tokio::test]
async fn follow() {
    let Some(folder) = env::var_os(FOLDER).map(PathBuf::from) else {
        return;
    };
    let bus = open_at(&env::var(URL).unwrap(), &folder).await;
    bus.end(&topic("s/1f/data")).await.unwrap();
    writeln!(std::io::stdout(), "begins").unwrap();
    std::future::pending().await
}

#[tokio::test]
async fn publish() {
    let Some(folder) = env::var_os(FOLDER).map(PathBuf::from) else {
        return;
    };
    let bus = open_at(&env::var(URL).unwrap(), &folder).await;
    let data = topic("s/1f/data");
    let begun = std::process::id();
    for number in 0.. {
        let payloads =
            (0..8).map(|of| format!("{begun} {number:05} {of} {:9000}", "").into_bytes());
        bus.append(&data, payloads.collect()).await.unwrap();
        if number == 3 {
            writeln!(std::io::stdout(), "begins").unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_feeds_the_mirror_when_the_one_that_did_is_killed() {
    let server = Server::start();
    let url = server.url("x");
    let (reader, writer) = (Home::on(&server, "x").await, Home::on(&server, "x").await);
    let data = topic("s/1f/data");
    reader.bus.end(&data).await.unwrap();
    // From now on it is another process that feeds.
    let Home { folder, bus } = reader;
    drop(bus);
    let mut expected = Vec::new();
    for round in 0..3 {
        let feeding = Other::start("follow", &url, folder.path());
        let bus = open(&server, "x", folder.path()).await;
        for text in numbered(&format!("{round}"), 10) {
            put(&writer.bus, &data, &text).await;
            expected.push(text);
        }
        assert_eq!(all(&bus, &data).await, expected);
        drop(feeding);
        for text in numbered(&format!("{round}, killed"), 10) {
            put(&writer.bus, &data, &text).await;
            expected.push(text);
        }
        assert_eq!(all(&bus, &data).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_has_all_that_others_have_of_what_a_process_of_it_published_that_was_killed() {
    let server = Server::start();
    let url = server.url("x");
    let (reader, writer) = (Home::on(&server, "x").await, Home::on(&server, "x").await);
    let data = topic("s/1f/data");
    reader.bus.end(&data).await.unwrap();
    let Home { folder, bus } = writer;
    drop(bus);
    for _ in 0..12 {
        drop(Other::start("publish", &url, folder.path()));
        let bus = open(&server, "x", folder.path()).await;
        bus.end(&data).await.unwrap();
        let own = sorted(all(&bus, &data).await);
        // What it noted and the broker had not taken is put back.
        let others = sorted(wait_for(&reader.bus, &data, own.len()).await);
        assert!(own == others, "{} and {} items", own.len(), others.len());
    }
}

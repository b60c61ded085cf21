//! Several processes use one file bus at once, and some of them die.
//!
//! The other processes are this test program again, told by the environment what to do.
#![cfg(test)]
#![cfg(unix)]

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sealcast_bus::{Bus, BusError, FileBus, Limits, Offset, Topic};

const ROLE: &str = "BUS_TEST_ROLE";
const FOLDER: &str = "BUS_TEST_FOLDER";

const WRITERS: usize = 4;
const BATCHES: usize = 25;
const BATCH: usize = 4;
const TOTAL: usize = WRITERS * BATCHES * BATCH;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_append_and_tail_at_once_all_see_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("made/by/whoever/is/first");
    let tails: Vec<Started> = (0..2).map(|_| start("tail", &place)).collect();
    let writers = (0..WRITERS).map(|number| start(&format!("append {number}"), &place));
    let writers: Vec<Started> = writers.collect();
    let bus = FileBus::open(&place).await.unwrap();
    let own = tokio::spawn({
        let bus = bus.clone();
        async move { follow(&bus).await }
    });
    for process in writers {
        process.said();
    }
    let own = own.await.unwrap();
    for process in tails {
        let mut seen = process.said();
        seen.retain(|line| line.starts_with("item "));
        assert_eq!(seen, own, "a tail saw something else");
    }
    assert_whole_batches_in_order(&own);
    assert_eq!(bus.end(&topic()).await.unwrap(), Offset(TOTAL as u64));
}

/// Batches lie whole, and those of one writer in its order.
fn assert_whole_batches_in_order(items: &[String]) {
    let mut batches: BTreeMap<&str, usize> = BTreeMap::new();
    for batch in items.chunks(BATCH) {
        let writer = batch[0].split(' ').nth(1).unwrap();
        let number = batches.entry(writer).or_default();
        let expected: Vec<String> = (0..BATCH)
            .map(|index| format!("item {writer} {number} {index}"))
            .collect();
        assert_eq!(batch, expected);
        *number += 1;
    }
    assert_eq!(
        batches.into_values().collect::<Vec<_>>(),
        [BATCHES; WRITERS]
    );
}

#[tokio::test]
async fn a_killed_appender_leaves_whole_batches_and_all_that_it_was_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let mut confirmed = 0;
    for round in 0..12 {
        let mut started = start("append until killed", folder.path());
        let lines = started.lines();
        let mut ends = lines.filter_map(|line| line.strip_prefix("end ")?.parse().ok());
        for end in ends.by_ref().take(1 + round % 4) {
            confirmed = end;
        }
        // Somewhere in the batch that it is now writing.
        std::thread::sleep(Duration::from_micros(700 * round as u64));
        drop(started);

        let bus = FileBus::open(folder.path()).await.unwrap();
        let end = bus.end(&topic()).await.unwrap();
        assert!(
            end.0 >= confirmed,
            "{end} items left, {confirmed} were confirmed"
        );
        assert_eq!(end.0 % KILLED_BATCH as u64, 0, "a batch is cut");
        let items = bus.read(&topic(), Offset(end.0 - KILLED_BATCH as u64), usize::MAX);
        let payloads: Vec<_> = items
            .await
            .unwrap()
            .into_iter()
            .map(|item| item.payload)
            .collect();
        assert_eq!(payloads, killed_batch(), "the last batch");
    }
}

const KILLED_BATCH: usize = 30;

fn killed_batch() -> Vec<Vec<u8>> {
    (0..KILLED_BATCH as u8)
        .map(|index| vec![index; 20_000])
        .collect()
}

#[tokio::test]
async fn who_may_only_read_can_read_and_tail_and_is_told_so_on_append() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("bus");
    let bus = FileBus::open(&place).await.unwrap();
    bus.append(&topic(), vec![b"before".to_vec()])
        .await
        .unwrap();
    for path in [folder.path(), &place] {
        fs::set_permissions(path, Permissions::from_mode(0o555)).unwrap();
    }
    for file in fs::read_dir(&place).unwrap() {
        fs::set_permissions(file.unwrap().path(), Permissions::from_mode(0o444)).unwrap();
    }
    start_as_nobody("read only", &place).said();
    drop(bus);
    start_as_nobody("read only", &place).said();
    for path in [folder.path(), &place] {
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
}

/// Fault 14: however much is sent, by however many, the bus does not grow with it.
#[tokio::test]
async fn processes_that_send_at_once_are_all_heard_and_the_bus_does_not_grow_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let mut listeners: Vec<Started> = (0..2).map(|_| start("listen", folder.path())).collect();
    let mut heard: Vec<_> = listeners.iter_mut().map(Started::lines).collect();
    for lines in &mut heard {
        assert!(lines.any(|line| line == "listening"));
    }
    send_from_several(folder.path(), SENT);
    for lines in heard {
        let mut of_sender: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for line in lines.filter(|line| line.starts_with("sent ")) {
            let (sender, number) = line.rsplit_once(' ').unwrap();
            let numbers = of_sender.entry(sender.to_owned()).or_default();
            numbers.push(number.parse().unwrap());
        }
        let in_order = (0..SENT).collect::<Vec<_>>();
        let expected = vec![in_order; WRITERS];
        assert_eq!(of_sender.into_values().collect::<Vec<_>>(), expected);
    }
    send_from_several(folder.path(), 500);
    let database = rusqlite::Connection::open(folder.path().join("bus.db")).unwrap();
    let count = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
    let left = database.query_row("SELECT count(*) FROM sent", [], count);
    assert_eq!(left, Ok(1_024));
}

/// What each sends; a listener that is late may not miss any of them.
const SENT: usize = Limits::SENT_WAITING_MIN / WRITERS;

fn send_from_several(folder: &Path, count: usize) {
    let senders = (0..WRITERS).map(|sender| start(&format!("send {count} {sender}"), folder));
    for sender in senders.collect::<Vec<_>>() {
        sender.said();
    }
}

/// What a started process does; as an ordinary test it does nothing.
#[tokio::test]
async fn role_of_a_started_process() {
    let Ok(role) = env::var(ROLE) else { return };
    let folder = env::var_os(FOLDER).unwrap();
    let bus = FileBus::open(folder).await.unwrap();
    match role.as_str() {
        "tail" => {
            for item in follow(&bus).await {
                say(&item);
            }
        }
        "append until killed" => loop {
            let first = bus.append(&topic(), killed_batch()).await.unwrap();
            say(&format!("end {}", first.0 + KILLED_BATCH as u64));
        },
        "read only" => read_only(&bus).await,
        "listen" => listen(&bus).await,
        _ if role.starts_with("send") => send(&bus, &role).await,
        _ => append_batches(&bus, role.strip_prefix("append ").unwrap()).await,
    }
}

async fn append_batches(bus: &FileBus, writer: &str) {
    for number in 0..BATCHES {
        let payloads = (0..BATCH).map(|index| format!("item {writer} {number} {index}"));
        let payloads = payloads.map(String::into_bytes).collect();
        bus.append(&topic(), payloads).await.unwrap();
    }
}

async fn send(bus: &FileBus, role: &str) {
    let (count, sender) = role[5..].split_once(' ').unwrap();
    for number in 0..count.parse().unwrap() {
        let payload = format!("sent {sender} {number}").into_bytes();
        bus.send(&topic(), payload).await.unwrap();
    }
}

async fn listen(bus: &FileBus) {
    let mut listener = bus.listen(vec![topic()]).await.unwrap();
    say("listening");
    for _ in 0..SENT * WRITERS {
        let next = tokio::time::timeout(Duration::from_secs(60), listener.next()).await;
        let payload = next.expect("the listener hangs").unwrap().1;
        say(&String::from_utf8(payload).unwrap());
    }
}

async fn read_only(bus: &FileBus) {
    let mut listener = bus.listen(vec![topic()]).await.unwrap();
    let silent = tokio::time::timeout(Duration::from_millis(1), listener.next()).await;
    assert!(silent.is_err(), "heard {silent:?}");
    for error in [
        bus.send(&topic(), vec![1]).await.unwrap_err(),
        bus.trim(&topic(), Offset(1)).await.unwrap_err(),
    ] {
        assert!(matches!(error, BusError::Unreachable { .. }), "{error:?}");
    }
    let error = bus
        .append(&topic(), vec![b"mine".to_vec()])
        .await
        .unwrap_err();
    assert!(matches!(error, BusError::Unreachable { .. }), "{error:?}");
    let items = bus.read(&topic(), Offset(0), usize::MAX).await.unwrap();
    assert_eq!(items[0].payload, b"before");
    let mut tail = bus.tail(vec![(topic(), Offset(0))]);
    assert_eq!(tail.next().await.unwrap().1, items);
}

/// Follows the topic until all that the writers append has come.
async fn follow(bus: &FileBus) -> Vec<String> {
    let mut seen = Vec::new();
    let mut tail = bus.tail(vec![(topic(), Offset(0))]);
    while seen.len() < TOTAL {
        let batch = tokio::time::timeout(Duration::from_secs(60), tail.next()).await;
        for item in batch.expect("the tail hangs").unwrap().1 {
            assert_eq!(item.offset.0, seen.len() as u64);
            seen.push(String::from_utf8(item.payload).unwrap());
        }
    }
    seen
}

fn say(line: &str) {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{line}").unwrap();
    stdout.flush().unwrap();
}

/// A process that ends with the test, however that ends.
struct Started(Child);

impl Started {
    /// The lines that its role says, as it says them.
    fn lines(&mut self) -> impl Iterator<Item = String> + use<> {
        let stdout = self.0.stdout.take().unwrap();
        BufReader::new(stdout).lines().map(Result::unwrap)
    }

    /// Waits until it ended well; returns the lines that its role said.
    fn said(mut self) -> Vec<String> {
        let lines = self.lines().collect();
        assert!(self.0.wait().unwrap().success(), "it failed: {lines:?}");
        lines
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn start(role: &str, folder: &Path) -> Started {
    let program = env::current_exe().unwrap();
    Started(command(&program, role, folder).spawn().unwrap())
}

/// As a user without rights, where the test has rights that ignore permissions.
fn start_as_nobody(role: &str, folder: &Path) -> Started {
    if fs::metadata("/proc/self").is_ok_and(|process| process.uid() != 0) {
        return start(role, folder);
    }
    // Copied to where everybody may run it; by another process, since a process that this one starts
    // meanwhile would hold a file that is being written, and nobody could run it.
    let program = folder.parent().unwrap().join("program");
    let mut copy = Command::new("cp");
    copy.arg(env::current_exe().unwrap()).arg(&program);
    assert!(program.exists() || copy.status().unwrap().success());
    fs::set_permissions(&program, Permissions::from_mode(0o555)).unwrap();
    let mut command = command(&program, role, folder);
    command.uid(65_534).gid(65_534).current_dir("/");
    Started(command.spawn().unwrap())
}

fn command(program: &Path, role: &str, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .args(["--exact", "role_of_a_started_process"])
        .env(ROLE, role)
        .env(FOLDER, folder)
        .stdout(Stdio::piped());
    command
}

fn topic() -> Topic {
    Topic::new("s/1f00/data").unwrap()
}

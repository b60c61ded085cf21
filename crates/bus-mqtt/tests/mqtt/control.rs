//! What waits for a home at the broker is much data, and who may read it is known all the same before all of that has come.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use sealcast_brokers::Proxy;
use sealcast_brokers::mosquitto::Server;
use sealcast_bus::{Bus, FileBus, Mirror, Offset, Topic};
use tokio::time::{sleep, timeout};

use crate::rig::{
    HUNG_AFTER, Home, all, end_surely, numbered, open, open_archive, open_at, put, topic, wait_for,
    wait_until_marked,
};

/// How many messages of data wait, and the bytes of each.
const COUNT: usize = 400;
const BYTES: usize = 64 << 10;

/// What is in a mirror by now.
async fn mirrored(folder: &Path, topic: &Topic) -> Offset {
    let mirror = Mirror::open(folder.join("logs")).await.unwrap();
    mirror.bus().end(topic).await.unwrap()
}

/// Has the broker forget one of the sessions of a home that is away.
async fn forget_session(server: &Server, folder: &Path, suffix: &str) {
    let own = FileBus::open(folder.join("own")).await.unwrap();
    let name = all(&own, &topic("home")).await.remove(0);
    let port = server.port().to_string();
    let client = format!("sc{name}{suffix}");
    let begun = Command::new("mosquitto_sub")
        .args([
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-i",
            &client,
            "-t",
            "none",
            "-E",
        ])
        .status();
    assert!(begun.unwrap().success());
}

/// What waits for a home that is away: data, and behind it who may read.
async fn keep_waiting(writer: &Home, data: &Topic, logs: &[Topic]) {
    for number in 0..COUNT / 8 {
        let payloads = (0..8).map(|of| vec![(number + of) as u8; BYTES]);
        writer.bus.append(data, payloads.collect()).await.unwrap();
    }
    for log in logs {
        put(&writer.bus, log, "meanwhile").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_end_and_data_is_read_while_what_waited_is_on_its_way() {
    let server = Server::start();
    let proxy = Proxy::before(server.port()).await;
    let (reader, writer) = (Home::on(&server, "x").await, Home::on(&server, "x").await);
    let data = topic("s/1f/data");
    let logs = ["s/1f/keys", "s/1f/access/7", "u/2e/devices"].map(topic);
    reader.bus.end(&data).await.unwrap();
    for log in &logs {
        put(&writer.bus, log, "before").await;
        assert_eq!(all(&reader.bus, log).await, ["before"]);
    }
    let Home { folder, bus } = reader;
    drop(bus);
    keep_waiting(&writer, &data, &logs).await;
    // Of somebody whom the home has not heard of yet.
    let new = topic("u/3d/devices");
    put(&writer.bus, &new, "new").await;
    proxy.slow(BYTES, Duration::from_millis(50));
    let bus = open_at(
        &format!("mqtt://127.0.0.1:{}/x", proxy.port()),
        folder.path(),
    )
    .await;
    for log in &logs {
        assert_eq!(all(&bus, log).await, ["before", "meanwhile"]);
    }
    assert_eq!(all(&bus, &new).await, ["new"]);
    let mut at = Offset(0);
    for _ in 0..3 {
        let items = bus.read(&data, at, 1).await.unwrap();
        assert_eq!(items[0].offset, at);
        at = mirrored(folder.path(), &data).await;
    }
    let all_of_it = Offset(COUNT as u64);
    assert!(at < all_of_it, "{at:?} are in the mirror");
    proxy.open();
    assert_eq!(end_surely(&bus, &data).await, all_of_it);
    for log in &logs {
        assert_eq!(bus.end(log).await.unwrap(), Offset(2));
    }
    assert_eq!(bus.read(&data, all_of_it, 1).await.unwrap(), []);
}

/// As a home is that was made by a program that knew no such session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_with_one_session_has_all_that_waited_there_once() {
    let server = Server::start();
    let (reader, writer) = (Home::on(&server, "x").await, Home::on(&server, "x").await);
    let logs = [
        topic("s/1f/data"),
        topic("s/1f/keys"),
        topic("u/2e/devices"),
    ];
    for log in &logs {
        reader.bus.end(log).await.unwrap();
    }
    let Home { folder, bus } = reader;
    drop(bus);
    forget_session(&server, folder.path(), "l").await;
    let texts = numbered("text", 40);
    for text in &texts {
        for log in &logs {
            put(&writer.bus, log, text).await;
        }
    }
    let large = vec![b'x'; (1 << 20) + 5];
    writer.bus.append(&logs[1], vec![large]).await.unwrap();
    for _ in 0..2 {
        let bus = open(&server, "x", folder.path()).await;
        assert_eq!(bus.end(&logs[1]).await.unwrap(), Offset(41));
        for log in &logs {
            assert_eq!(all(&bus, log).await[..40], texts);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_lost_the_session_of_data_alone_asks_others() {
    let server = Server::start();
    let (data, keys) = (topic("s/1f/data"), topic("s/1f/keys"));
    let folder = tempfile::tempdir().unwrap();
    let archive = open_archive(&server, "x", folder.path()).await;
    archive.end(&data).await.unwrap();
    let (writer, away) = (Home::on(&server, "x").await, Home::on(&server, "x").await);
    put(&writer.bus, &data, "before").await;
    wait_for(&away.bus, &data, 1).await;
    wait_until_marked(away.folder.path(), Offset(0)).await;
    let Home { folder, bus } = away;
    drop(bus);
    forget_session(&server, folder.path(), "").await;
    put(&writer.bus, &data, "after").await;
    put(&writer.bus, &keys, "after").await;
    wait_for(&archive, &data, 2).await;
    drop(writer);
    let away = open(&server, "x", folder.path()).await;
    assert_eq!(all(&away, &keys).await, ["after"]);
    assert_eq!(wait_for(&away, &data, 2).await, ["before", "after"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_lacks_a_log_says_nothing_of_its_end() {
    let mut server = Server::start();
    let (reader, writer) = (Home::on(&server, "x").await, Home::on(&server, "x").await);
    let (one, two) = (topic("s/1f/keys"), topic("s/2f/keys"));
    reader.bus.end(&one).await.unwrap();
    server.save();
    reader.bus.end(&two).await.unwrap();
    let Home { folder, bus } = reader;
    drop(bus);
    // The broker does not know any more that the home follows the other.
    server.kill();
    server.restart();
    put(&writer.bus, &two, "new").await;
    let bus = open(&server, "x", folder.path()).await;
    assert_eq!(bus.end(&two).await.unwrap(), Offset(1));
}

/// What a home has of data when it is told how a control log ends, all of it having waited, once something was
/// done to the home.
async fn data_at_end(doing: impl AsyncFnOnce(&Server, &Path)) -> Offset {
    let server = Server::start();
    let proxy = Proxy::before(server.port()).await;
    let (reader, writer) = (Home::on(&server, "x").await, Home::on(&server, "x").await);
    let (data, keys) = (topic("s/1f/data"), topic("s/1f/keys"));
    reader.bus.end(&data).await.unwrap();
    wait_until_level(reader.folder.path()).await;
    let Home { folder, bus } = reader;
    drop(bus);
    doing(&server, folder.path()).await;
    keep_waiting(&writer, &data, std::slice::from_ref(&keys)).await;
    proxy.slow(BYTES * 4, Duration::from_millis(50));
    let url = format!("mqtt://127.0.0.1:{}/x", proxy.port());
    let bus = open_at(&url, folder.path()).await;
    assert_eq!(end_surely(&bus, &keys).await, Offset(1));
    mirrored(folder.path(), &data).await
}

/// Waits until the mirror of a home has all that came over its session of control logs.
async fn wait_until_level(folder: &Path) {
    let own = FileBus::open(folder.join("own")).await.unwrap();
    let mut tail = own.tail(vec![(topic("level"), Offset(0))]);
    let leveling = async { while tail.next().await.unwrap().1.last().unwrap().payload != b"L" {} };
    let leveled = timeout(HUNG_AFTER, leveling).await;
    leveled.expect("it comes to have all");
}

/// A broker may hand out what it has retained behind the question.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_new_ends_no_log_before_the_other_has_it() {
    let all_of_it = Offset(COUNT as u64);
    let nothing = async |_: &Server, _: &Path| ();
    assert!(data_at_end(nothing).await < all_of_it);
    let forgotten =
        async |server: &Server, folder: &Path| forget_session(server, folder, "l").await;
    assert_eq!(data_at_end(forgotten).await, all_of_it);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_process_acknowledged_and_had_not_in_the_mirror_is_waited_for() {
    let ended_before = async |_: &Server, folder: &Path| {
        let own = FileBus::open(folder.join("own")).await.unwrap();
        put(&own, &topic("level"), "").await;
    };
    assert_eq!(data_at_end(ended_before).await, Offset(COUNT as u64));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_notes_that_it_acknowledges_what_is_not_in_the_mirror() {
    let server = Server::start();
    let proxy = Proxy::before(server.port()).await;
    let (reader, writer) = (Home::on(&server, "x").await, Home::on(&server, "x").await);
    let keys = topic("s/1f/keys");
    assert_eq!(reader.bus.end(&keys).await.unwrap(), Offset(0));
    wait_until_level(reader.folder.path()).await;
    let Home { folder, bus } = reader;
    drop(bus);
    put(&writer.bus, &keys, "meanwhile").await;
    // It comes before it is known whether there is more.
    proxy.slow(BYTES, Duration::from_millis(50));
    let url = format!("mqtt://127.0.0.1:{}/x", proxy.port());
    let bus = open_at(&url, folder.path()).await;
    assert_eq!(end_surely(&bus, &keys).await, Offset(1));
    let own = FileBus::open(folder.path().join("own")).await.unwrap();
    let mut tail = own.tail(vec![(topic("level"), Offset(2))]);
    let noted = timeout(HUNG_AFTER, tail.next()).await;
    let (_, items) = noted.expect("it notes that, and that it has all").unwrap();
    assert_eq!(
        (items[0].offset, &items[0].payload[..]),
        (Offset(2), &b"L"[..])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_retained_of_a_scope_does_not_come_again_with_each_other_one() {
    let server = Server::start_with("allow_anonymous true\nlog_type all");
    let (reader, writer) = (Home::on(&server, "x").await, Home::on(&server, "x").await);
    let logs: Vec<_> = (1..9).map(|of| topic(&format!("s/{of}f/keys"))).collect();
    for log in &logs {
        put(&writer.bus, log, "before").await;
    }
    let own = FileBus::open(reader.folder.path().join("own")).await;
    let name = all(&own.unwrap(), &topic("home")).await.remove(0);
    let brought = |log: &Topic| {
        let said = std::fs::read_to_string(server.folder().join("log")).unwrap();
        let (to, on) = (format!("PUBLISH to sc{name}l "), format!("'x/log/{log}/"));
        let is_of = |line: &&str| line.contains(&to) && line.contains(&on);
        said.lines().filter(is_of).count()
    };
    for log in &logs {
        assert_eq!(all(&reader.bus, log).await, ["before"]);
        let bringing = async {
            while brought(log) == 0 {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(HUNG_AFTER, bringing).await.expect("it comes");
    }
    let again = brought(&logs[0]);
    // One may be new while it is not known yet whether all of another has come.
    assert!(again < logs.len() / 2, "it came {again} times");
}

//! Messages on topics that the broker's users have for them, which other clients see as they are.

use std::process::{Command, Stdio};

use sealcast_brokers::mosquitto::Server;
use sealcast_bus::{Bus, Offset, ServerOptions, Topic, TopicItem};
use sealcast_bus_mqtt::MqttBus;
use tempfile::TempDir;
use tokio::time::timeout;

use crate::rig::{HUNG_AFTER, address, open_at, sorted, topic, wait_for};

fn url(server: &Server) -> String {
    server.url("x?topics=plant/#&retain=plant/+/state")
}

fn item(topic: &str, text: &str) -> Vec<u8> {
    let payload = text.as_bytes();
    TopicItem { topic, payload }.encode().unwrap()
}

async fn home(server: &Server) -> (TempDir, MqttBus) {
    let folder = tempfile::tempdir().unwrap();
    let bus = open_at(&url(server), folder.path()).await;
    (folder, bus)
}

async fn put(bus: &dyn Bus, data: &Topic, on: &str, text: &str) {
    bus.append(data, vec![item(on, text)]).await.unwrap();
}

/// All that a home has of a topic, each with the topic of the users.
async fn all(bus: &dyn Bus, data: &Topic) -> Vec<String> {
    let (mut shown, mut next) = (Vec::new(), Offset(0));
    loop {
        let items = bus.read(data, next, 1 << 20).await.unwrap();
        let Some(last) = items.last() else {
            return shown;
        };
        next = Offset(last.offset.0 + 1);
        shown.extend(
            items
                .iter()
                .map(|item| match TopicItem::parse(&item.payload) {
                    Some(TopicItem { topic, payload }) => {
                        format!("{topic} {}", String::from_utf8_lossy(payload))
                    }
                    None => String::from_utf8_lossy(&item.payload).into_owned(),
                }),
        );
    }
}

/// A client that knows nothing of buses; what it prints.
fn client(program: &str, server: &Server, words: &[&str]) -> Vec<String> {
    let port = server.port().to_string();
    let mut command = Command::new(program);
    command.args(["-h", "127.0.0.1", "-p", &port]).args(words);
    command.stderr(Stdio::inherit());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{program} {words:?}: {output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(str::to_owned).collect()
}

/// Subscribes, so that the broker keeps what comes from now on.
fn begin_to_watch(server: &Server) {
    let words = ["-c", "-i", "watcher", "-q", "1", "-E", "-t", "plant/#"];
    client("mosquitto_sub", server, &words);
}

/// What has come since, which are so many messages.
fn watched(server: &Server, count: usize) -> Vec<String> {
    let count = count.to_string();
    let words = ["-c", "-i", "watcher", "-q", "1", "-t", "plant/#"];
    let more = ["-C", &count, "-W", "120", "-F", "%t %p"];
    client("mosquitto_sub", server, &[&words[..], &more].concat())
}

fn publish(server: &Server, words: &[&str]) {
    client("mosquitto_pub", server, words);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_travel_on_the_users_topics_and_come_to_every_home_once() {
    let server = Server::start();
    let data = topic("s/1f/data");
    let ((_one, writer), (_two, reader)) = (home(&server).await, home(&server).await);
    reader.end(&data).await.unwrap();
    begin_to_watch(&server);
    let payloads = vec![
        item("plant/7/t", "one"),
        item("plant/7/t", "two"),
        b"without a topic".to_vec(),
        item("elsewhere", "below the prefix"),
        item("plant/7/state", "on"),
    ];
    assert_eq!(writer.append(&data, payloads).await.unwrap(), Offset(0));
    let seen = watched(&server, 3);
    assert_eq!(seen, ["plant/7/t one", "plant/7/t two", "plant/7/state on"]);
    wait_for(&reader, &data, 5).await;
    let expected = [
        "elsewhere below the prefix",
        "plant/7/state on",
        "plant/7/t one",
        "plant/7/t two",
        "without a topic",
    ];
    for bus in [&writer, &reader] {
        assert_eq!(bus.end(&data).await.unwrap(), Offset(5));
        assert_eq!(sorted(all(bus, &data).await), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_publish_there_comes_with_any_qos_and_nothing_else_does() {
    let server = Server::start();
    let data = topic("s/1f/data");
    let (_folder, reader) = home(&server).await;
    reader.end(&data).await.unwrap();
    for qos in ["0", "1", "2"] {
        publish(&server, &["-q", qos, "-t", "plant/8/t", "-m", qos]);
    }
    publish(
        &server,
        &[
            "-q",
            "0",
            "-t",
            "x/log/s/1f/data/@0000000000000001.1",
            "-m",
            "x",
        ],
    );
    publish(&server, &["-q", "1", "-t", "other/8", "-m", "x"]);
    publish(&server, &["-q", "1", "-r", "-n", "-t", "plant/8/state"]);
    // The same again is the same message.
    publish(&server, &["-q", "1", "-t", "plant/8/t", "-m", "1"]);
    publish(&server, &["-q", "1", "-t", "plant", "-m", "last"]);
    wait_for(&reader, &data, 4).await;
    let found = sorted(all(&reader, &data).await);
    assert_eq!(
        found,
        ["plant last", "plant/8/t 0", "plant/8/t 1", "plant/8/t 2"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_home_has_what_is_retained_at_once_and_the_rest_from_an_archive() {
    let server = Server::start();
    let data = topic("s/1f/data");
    let (archived, archive) = home(&server).await;
    archive.end(&data).await.unwrap();
    let (folder, writer) = home(&server).await;
    for number in 0..5 {
        put(&writer, &data, "plant/7/t", &number.to_string()).await;
        put(&writer, &data, "plant/7/state", &number.to_string()).await;
    }
    assert_eq!(archive.end(&data).await.unwrap(), Offset(10));
    drop((writer, folder, archive));
    let words = ["-t", "plant/#", "-C", "1", "-W", "120", "-F", "%r %t %p"];
    assert_eq!(
        client("mosquitto_sub", &server, &words),
        ["1 plant/7/state 4"]
    );
    let (_late, late) = home(&server).await;
    assert_eq!(all(&late, &data).await, ["plant/7/state 4"]);
    let mut options = ServerOptions::default();
    options.serves_history = true;
    let at = address(&url(&server));
    let archive = MqttBus::open(&at, &options, archived.path());
    let _archive = archive.await.unwrap();
    // It has to have the questions before anybody asks.
    let asking = async {
        loop {
            let (folder, late) = home(&server).await;
            if late.end(&data).await.unwrap() > Offset(1) {
                return (folder, late);
            }
        }
    };
    let (_folder, late) = timeout(HUNG_AFTER, asking).await.expect("it does not hang");
    // An archive that is late with its first answer is not waited for, and comes all the same.
    wait_for(&late, &data, 10).await;
    let found = sorted(all(&late, &data).await);
    let of = |topic: &'static str| (0..5).map(move |number| format!("{topic} {number}"));
    let expected: Vec<_> = of("plant/7/state").chain(of("plant/7/t")).collect();
    assert_eq!(found, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_broker_lost_comes_again_and_not_on_the_users_topics() {
    let mut server = Server::start();
    let data = topic("s/1f/data");
    let ((_one, writer), (_two, reader)) = (home(&server).await, home(&server).await);
    reader.end(&data).await.unwrap();
    begin_to_watch(&server);
    server.save();
    for round in ["a", "b", "c"] {
        for number in 0..4 {
            put(&writer, &data, "plant/7/t", &format!("{round}{number}")).await;
        }
        server.kill();
        server.restart();
    }
    wait_for(&reader, &data, 12).await;
    assert_eq!(reader.end(&data).await.unwrap(), Offset(12));
    let numbers = |round| (0..4).map(move |number| format!("plant/7/t {round}{number}"));
    let expected: Vec<_> = ["a", "b", "c"].into_iter().flat_map(numbers).collect();
    assert_eq!(sorted(all(&reader, &data).await), expected);
    // The broker of the watcher has lost all of it, and nobody publishes it a second time.
    put(&writer, &data, "plant/7/t", "last").await;
    assert_eq!(watched(&server, 1), ["plant/7/t last"]);
}

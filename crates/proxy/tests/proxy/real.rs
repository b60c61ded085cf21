//! Clients that know nothing of sealcast, through two proxies and one broker.

use std::io::{BufRead as _, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use sealcast_brokers::Tap;
use sealcast_brokers::mosquitto::Server;
use sealcast_traces::Needles;

use crate::rig::{RULES, Rig};
use crate::toy::payload;

/// How long a client waits for what must come, in seconds.
const WITHIN: &str = "120";
/// After how many it is ended whatever it does.
const PATIENCE: &str = "180";
/// The versions, as the clients call them.
const VERSIONS: [&str; 2] = ["311", "5"];

/// A broker, of which all is recorded that comes to it, and two proxies before it.
struct Stage {
    server: Server,
    tap: Tap,
    gateway: Rig,
    desk: Rig,
}

impl Stage {
    fn new() -> Self {
        let server = Server::start();
        let (tap, port) = Tap::before(server.port());
        Self {
            gateway: Rig::new(RULES, port),
            desk: Rig::new(RULES, port),
            tap,
            server,
        }
    }

    /// Publishes through the first proxy.
    fn publishes(&self, version: &str, more: &[&str]) {
        let done = client("mosquitto_pub", self.gateway.port, version, more)
            .output()
            .unwrap();
        assert!(done.status.success(), "{more:?}: {done:?}");
    }

    /// Asks the second proxy for what comes on a filter from now on.
    fn subscribes(&self, version: &str, qos: &str, filter: &str) {
        let asked = self
            .subscriber(self.desk.port, version, qos, filter)
            .arg("-E")
            .output()
            .unwrap();
        assert!(asked.status.success(), "{asked:?}");
    }

    /// What has come since, as lines: topic, QoS, whether it is retained, and payload.
    fn receives(&self, version: &str, qos: &str, filter: &str, count: &str) -> String {
        let mut subscriber = self.subscriber(self.desk.port, version, qos, filter);
        text(
            &subscriber
                .args(["-C", count, "-W", WITHIN])
                .output()
                .unwrap(),
        )
    }

    fn subscriber(&self, port: u16, version: &str, qos: &str, filter: &str) -> Command {
        let name = format!("desk-{version}-{qos}");
        let mut command = client("mosquitto_sub", port, version, &["-c", "-i", &name]);
        command.args(["-q", qos, "-t", filter, "-F", "%t %q %r %p"]);
        if version == "5" {
            command.args(["-x", "600"]);
        }
        command
    }

    /// What the broker itself has for whoever asks it directly for one retained message.
    fn retained(&self, topic: &str) -> Vec<u8> {
        let asks = ["-t", topic, "-C", "1", "-N", "-W", WITHIN];
        let done = client("mosquitto_sub", self.server.port(), "311", &asks)
            .output()
            .unwrap();
        assert!(done.status.success(), "{done:?}");
        done.stdout
    }

    /// Whether any of these was seen on the way to the broker.
    fn shows(&self, secrets: &[String]) -> usize {
        let mut needles = Needles::new();
        for secret in secrets {
            needles.add(secret, secret.as_bytes());
        }
        needles.search("upstream", &self.tap.recorded()).len()
    }
}

/// A client; whatever it waits for, it does not for ever.
fn client(program: &str, port: u16, version: &str, more: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", PATIENCE, program]);
    says(&mut command, port, version, more);
    command
}

fn says(command: &mut Command, port: u16, version: &str, more: &[&str]) {
    let version = format!("mqttv{version}");
    command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-V", &version]);
    command.args(more).stdin(Stdio::null());
}

fn text(done: &Output) -> String {
    assert!(done.status.success(), "{done:?}");
    String::from_utf8(done.stdout.clone()).unwrap()
}

#[test]
fn what_is_published_through_one_proxy_is_received_through_the_other_and_hidden_from_the_broker() {
    let stage = Stage::new();
    let mut secrets = Vec::new();
    for version in VERSIONS {
        for qos in ["1", "2"] {
            stage.subscribes(version, qos, "plant/+/t");
            let mut expected = String::new();
            for number in 1..=3 {
                let secret = format!("{number} temperature of {version} at {qos}");
                let topic = format!("plant/{number}/t");
                stage.publishes(version, &["-q", qos, "-t", &topic, "-m", &secret]);
                expected += &format!("{topic} {qos} 0 {secret}\n");
                secrets.push(secret);
            }
            let received = stage.receives(version, qos, "plant/+/t", "3");
            assert_eq!(received, expected);
        }
    }
    assert_eq!(stage.gateway.counts.sealed(), 12);
    assert_eq!(stage.desk.counts.opened(), 12);
    assert_eq!(stage.shows(&secrets), 0);
    // What a rule passes is found by the same search.
    stage.publishes(
        "5",
        &["-q", "1", "-t", "clear/1", "-m", "nothing to hide here"],
    );
    assert_eq!(stage.shows(&["nothing to hide here".to_owned()]), 1);
}

#[test]
fn what_is_retained_is_sealed_opened_for_who_comes_later_and_cleared() {
    let stage = Stage::new();
    for version in VERSIONS {
        let secret = format!("the state of version {version}");
        stage.publishes(
            version,
            &["-r", "-q", "1", "-t", "plant/7/state", "-m", &secret],
        );
        let kept = stage.retained("plant/7/state");
        let opened = payload("boiler", "plant/7/state", &kept).unwrap();
        assert_eq!(opened, secret.as_bytes());
        for reader in VERSIONS {
            let asks = ["-t", "plant/#", "-C", "1", "-W", WITHIN, "-F", "%t %r %p"];
            let told = client("mosquitto_sub", stage.desk.port, reader, &asks)
                .output()
                .unwrap();
            assert_eq!(text(&told), format!("plant/7/state 1 {secret}\n"));
        }
        stage.publishes(version, &["-r", "-q", "1", "-n", "-t", "plant/7/state"]);
        stage.publishes(
            version,
            &["-r", "-q", "1", "-t", "plant/8/state", "-m", &secret],
        );
        let asks = ["-t", "plant/#", "-C", "1", "-W", WITHIN, "-F", "%t"];
        let told = client("mosquitto_sub", stage.desk.port, version, &asks)
            .output()
            .unwrap();
        assert_eq!(text(&told), "plant/8/state\n", "the other is gone");
        stage.publishes(version, &["-r", "-q", "1", "-n", "-t", "plant/8/state"]);
        assert_eq!(stage.shows(&[secret]), 0);
    }
}

#[test]
fn a_will_arrives_when_its_client_is_killed() {
    let stage = Stage::new();
    // By this a client is known to be there.
    stage.publishes("5", &["-r", "-q", "1", "-t", "clear/ready", "-m", "ready"]);
    for version in VERSIONS {
        stage.subscribes(version, "1", "plant/+/will");
        let will = format!("the will of version {version}");
        let more = [
            "-t",
            "clear/ready",
            "--will-topic",
            "plant/7/will",
            "--will-qos",
            "1",
            "--will-payload",
            &will,
        ];
        // Not by way of another program, which would be killed in its place.
        let mut device = Command::new("mosquitto_sub");
        says(&mut device, stage.gateway.port, version, &more);
        device.args(["-W", PATIENCE]);
        let mut device = device.stdout(Stdio::piped()).spawn().unwrap();
        lines(&mut device);
        device.kill().unwrap();
        device.wait().unwrap();
        let told = stage.receives(version, "1", "plant/+/will", "1");
        assert_eq!(told, format!("plant/7/will 1 0 {will}\n"));
        assert_eq!(stage.shows(&[will]), 0);
    }
}

/// What a client that is there prints, line by line. That it is there is known by the first.
fn lines(client: &mut Child) -> Lines<BufReader<ChildStdout>> {
    let stdout = client.stdout.take().unwrap();
    let mut lines = BufReader::new(stdout).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    lines
}

#[test]
fn what_nobody_acknowledges_is_sealed_and_opened_too() {
    let stage = Stage::new();
    stage.publishes("5", &["-r", "-q", "1", "-t", "clear/ready", "-m", "ready"]);
    for version in VERSIONS {
        let more = [
            "-t",
            "plant/#",
            "-t",
            "clear/ready",
            "-C",
            "2",
            "-W",
            WITHIN,
        ];
        let mut desk = client("mosquitto_sub", stage.desk.port, version, &more);
        let mut desk = desk.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = lines(&mut desk);
        let secret = format!("a pressure of {version}");
        let publishes = ["-q", "0", "-t", "plant/7/p", "-m", &secret];
        stage.publishes(version, &publishes);
        assert_eq!(lines.next().unwrap().unwrap(), secret);
        assert!(desk.wait().unwrap().success());
        assert_eq!(stage.shows(&[secret]), 0);
    }
}

#[test]
fn what_no_rule_names_is_refused_as_a_broker_refuses() {
    let stage = Stage::new();
    let secret = "in nobody's clear".to_owned();
    for qos in ["1", "2"] {
        let more = ["-q", qos, "-t", "office/1", "-m", &secret];
        let five = client("mosquitto_pub", stage.gateway.port, "5", &more)
            .output()
            .unwrap();
        let says = String::from_utf8_lossy(&five.stderr).into_owned();
        assert!(says.contains("Not authorized"), "{five:?}");
        // It cannot be told.
        stage.publishes("311", &more);
    }
    assert_eq!(stage.shows(&[secret]), 0);
}

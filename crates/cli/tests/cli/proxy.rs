//! MQTT clients that know nothing of sealcast, before the program's own proxies and a real broker.

use std::process::{Command, Output, Stdio};

use sealcast_brokers::mosquitto::Server;
use serde_json::Value;

use crate::agent::Serving;
use crate::rig::{Person, Rig};

/// How long a client waits for what must come, in seconds.
const WITHIN: &str = "120";
/// After how many it is ended whatever it does.
const PATIENCE: &str = "180";
/// The versions of MQTT, as the clients call them.
const VERSIONS: [&str; 2] = ["311", "5"];

/// A client of some version, on some port.
fn client(program: &str, port: u16, version: &str, more: &[&str]) -> Output {
    // Whatever it waits for, it does not for ever.
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", PATIENCE, program]);
    let version = format!("mqttv{version}");
    command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-V", &version]);
    command.args(more).stdin(Stdio::null()).output().unwrap()
}

fn publishes(port: u16, version: &str, topic: &str, text: &str) {
    let more = ["-r", "-q", "1", "-t", topic, "-m", text];
    let done = client("mosquitto_pub", port, version, &more);
    assert!(done.status.success(), "{done:?}");
}

/// The first message that is there for a filter, with its topic.
fn receives(port: u16, version: &str, filter: &str) -> Vec<u8> {
    let more = ["-t", filter, "-C", "1", "-W", WITHIN, "-v", "-N"];
    let done = client("mosquitto_sub", port, version, &more);
    assert!(done.status.success(), "{done:?}");
    done.stdout
}

/// Somebody with a home on the broker.
fn someone(rig: &Rig, name: &str, server: &Server) -> Person {
    let url = server.url("sealed?topics=plant/#&retain=plant/#");
    let person = rig.stranger(name);
    person.done(&["init", "--name", name, "--bus", &url, "--no-passphrase"]);
    person
}

/// A proxy of somebody's, with one rule for what is of the plant.
fn proxy(rig: &Rig, person: &Person, name: &str, rule: &str, server: &Server) -> (Serving, u16) {
    let upstream = server.port();
    let config = format!(
        "listen = \"127.0.0.1:0\"\nupstream = \"mqtt://127.0.0.1:{upstream}\"\n\n\
         [[rule]]\ntopics = \"plant/#\"\nstream = \"s\"\n{rule}\n"
    );
    Serving::proxy(person, &rig.file(name, config.as_bytes()))
}

/// Neither proxy nor program knows which of them sealed it.
#[test]
fn clients_and_the_program_read_one_another_and_the_broker_neither() {
    let (rig, server) = (Rig::small(), Server::start());
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| someone(&rig, name, &server));
    let ticket = alice.done(&["stream", "create", "s"]);
    for person in [&bob, &carol] {
        person.done(&["join", &ticket]);
    }
    alice.done(&["grant", "s", &bob.id(), "--from", "start"]);
    let (gateway, sensors) = proxy(&rig, &alice, "gateway.toml", "do = \"seal\"", &server);
    let (desk, desks) = proxy(&rig, &bob, "desk.toml", "do = \"open\"", &server);
    for version in VERSIONS {
        let topic = format!("plant/{version}/t");
        publishes(sensors, version, &topic, "61.4 C");
        let shown = receives(server.port(), version, &topic);
        assert!(!shown.windows(6).any(|of| of == b"61.4 C"), "{shown:x?}");
        assert_eq!(
            receives(desks, version, &topic),
            format!("{topic} 61.4 C").into_bytes()
        );
        // What the gateway's own home seals.
        let topic = format!("plant/{version}/p");
        alice.done(&["pub", "s", "-t", &topic, "-m", "1013 hPa"]);
        assert_eq!(
            receives(desks, version, &topic),
            format!("{topic} 1013 hPa").into_bytes()
        );
    }
    let told = bob.done(&["read", "s", "--json"]);
    for version in VERSIONS {
        let line =
            format!("\"topic\":\"plant/{version}/t\",\"state\":\"opened\",\"text\":\"61.4 C\"");
        assert_eq!(told.matches(&line).count(), 1, "{told}");
    }
    // Somebody with rights at the broker has an envelope appear on another topic.
    let envelope = receives(server.port(), "5", "plant/5/t");
    let envelope = envelope.strip_prefix(b"plant/5/t ").unwrap();
    let moved = rig.file("moved", envelope);
    let done = client(
        "mosquitto_pub",
        server.port(),
        "5",
        &["-r", "-q", "1", "-t", "plant/0/t", "-f", &moved],
    );
    assert!(done.status.success(), "{done:?}");
    let waits = [
        "-t",
        "plant/0/t",
        "-t",
        "plant/5/p",
        "-C",
        "1",
        "-W",
        WITHIN,
        "-v",
    ];
    let shown = client("mosquitto_sub", desks, "5", &waits).stdout;
    assert_eq!(String::from_utf8(shown).unwrap(), "plant/5/p 1013 hPa\n");
    let logged = desk.stop();
    assert!(
        logged.contains("reason=\"bad-signature\" count=1"),
        "{logged}"
    );
    let logged = gateway.stop();
    assert!(logged.contains("sealed=2 opened=0 passed=0"), "{logged}");
    for secret in ["61.4", "1013", "plant/"] {
        assert!(!logged.contains(secret), "{logged}");
    }
}

#[test]
fn fault_19_who_may_not_publish_or_read_does_not_through_a_proxy() {
    let (rig, server) = (Rig::small(), Server::start());
    let [alice, bob] = ["alice", "bob"].map(|name| someone(&rig, name, &server));
    let ticket = alice.done(&["stream", "create", "s"]);
    bob.done(&["join", &ticket]);
    alice.done(&["pub", "s", "-t", "plant/7/t", "-m", "61.4 C"]);
    let rule = "do = \"both\"\nundecryptable = \"forward\"";
    let (desk, port) = proxy(&rig, &bob, "desk.toml", rule, &server);
    let more = [
        "-r",
        "-q",
        "1",
        "-t",
        "plant/8/t",
        "-m",
        "in nobody's clear",
    ];
    let done = client("mosquitto_pub", port, "5", &more);
    let says = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(says.contains("Not authorized"), "{done:?}");
    publishes(port, "311", "plant/8/t", "in nobody's clear");
    // He gets the envelope, as anybody does.
    assert_eq!(
        receives(port, "5", "plant/+/t"),
        receives(server.port(), "5", "plant/7/t")
    );
    let logged = desk.stop();
    assert!(
        logged.contains("exception=Refused reason=\"access.not-allowed\" count=2"),
        "{logged}"
    );
    assert!(
        logged.contains("exception=Forwarded reason=\"not-granted\" count=1"),
        "{logged}"
    );
}

#[test]
fn of_json_the_values_that_a_rule_names_are_sealed_and_opened_and_no_others() {
    let (rig, server) = (Rig::small(), Server::start());
    let [alice, bob] = ["alice", "bob"].map(|name| someone(&rig, name, &server));
    let ticket = alice.done(&["stream", "create", "s"]);
    bob.done(&["join", &ticket]);
    alice.done(&["grant", "s", &bob.id(), "--from", "start"]);
    let rules = |does: &str| {
        format!(
            "do = \"{does}\"\n\n[[rule]]\ntopics = \"json/#\"\nstream = \"s\"\n\
             fields = [\"/temp\", \"$.place.room\"]\ndo = \"{does}\""
        )
    };
    let (gateway, sensors) = proxy(&rig, &alice, "gateway.toml", &rules("seal"), &server);
    let (_desk, desks) = proxy(&rig, &bob, "desk.toml", &rules("open"), &server);
    for version in VERSIONS {
        let topic = format!("json/{version}");
        let text = r#"{"id": 7, "temp": 61.40, "place": {"room": "cellar"}}"#;
        publishes(sensors, version, &topic, text);
        let shown = String::from_utf8(receives(server.port(), version, &topic)).unwrap();
        let (before, behind) = (
            format!("{topic} {{\"id\": 7, \"temp\": \""),
            "\", \"place\": {\"room\": null}}",
        );
        assert!(
            shown.starts_with(&before) && shown.ends_with(behind),
            "{shown}"
        );
        assert!(
            !shown.contains("61.4") && !shown.contains("cellar"),
            "{shown}"
        );
        let received = String::from_utf8(receives(desks, version, &topic)).unwrap();
        assert_eq!(received, format!("{topic} {text}"));
    }
    let refused = ["-q", "1", "-t", "json/1", "-m", "61.40 C"];
    let done = client("mosquitto_pub", sensors, "5", &refused);
    assert!(
        String::from_utf8_lossy(&done.stderr).contains("Not authorized"),
        "{done:?}"
    );
    let logged = gateway.stop();
    assert!(
        logged.contains("reason=\"json.malformed\" count=1"),
        "{logged}"
    );
}

#[test]
fn a_proxy_reads_its_config_file_again_when_it_is_told_to() {
    let (rig, server) = (Rig::small(), Server::start());
    let alice = someone(&rig, "alice", &server);
    alice.done(&["stream", "create", "s"]);
    let passes = "do = \"seal\"\n\n[[rule]]\ntopics = \"open/#\"\ndo = \"pass\"";
    let (mut gateway, port) = proxy(&rig, &alice, "gateway.toml", passes, &server);
    publishes(port, "5", "open/1", "in clear");
    let config = |name, rules: &str| {
        let upstream = server.port();
        let head = "listen = \"127.0.0.1:0\"\nupstream = \"mqtt://127.0.0.1:";
        rig.file(name, format!("{head}{upstream}\"\n{rules}").as_bytes());
    };
    config(
        "gateway.toml",
        "[[rule]]\ntopics = \"open/#\"\ndo = \"park\"\n",
    );
    gateway.signal("HUP");
    gateway.wait_for("all is as it was");
    assert!(gateway.logged.contains("line=5"), "{}", gateway.logged);
    publishes(port, "5", "open/1", "in clear still");
    config(
        "gateway.toml",
        "log = \"warn\"\n[[rule]]\ntopics = \"open/#\"\nstream = \"s\"\ndo = \"seal\"\n",
    );
    gateway.signal("HUP");
    gateway.wait_for("config file read again");
    assert!(
        gateway.logged.contains("option=\"log\""),
        "{}",
        gateway.logged
    );
    publishes(port, "5", "open/1", "sealed");
    let shown = receives(server.port(), "5", "open/1");
    assert!(!shown.windows(6).any(|of| of == b"sealed"), "{shown:x?}");
    let logged = gateway.stop();
    assert!(logged.contains("sealed=1 opened=0 passed=2"), "{logged}");
}

#[test]
fn what_a_proxy_logs_may_be_json_and_has_reasons_in_it_and_no_topics() {
    let (rig, server) = (Rig::small(), Server::start());
    let alice = someone(&rig, "alice", &server);
    alice.done(&["stream", "create", "s"]);
    let config = format!(
        "listen = \"127.0.0.1:0\"\nupstream = \"mqtt://127.0.0.1:{}\"\nlog_format = \"json\"\n\n\
         [[rule]]\ntopics = \"plant/#\"\nstream = \"s\"\ndo = \"seal\"\n",
        server.port()
    );
    let config = rig.file("gateway.toml", config.as_bytes());
    let (mut gateway, port) = Serving::proxy(&alice, &config);
    publishes(port, "311", "office/7", "61.4 C");
    gateway.wait_for("proxy.no-rule");
    let logged = gateway.stop();
    let lines = logged.lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(
            line["timestamp"].is_string() && line["level"].is_string(),
            "{line}"
        );
        line
    });
    let is_counted = |line: &Value| {
        line["exception"] == "Refused" && line["reason"] == "proxy.no-rule" && line["count"] == 1
    };
    assert!(lines.collect::<Vec<_>>().iter().any(is_counted), "{logged}");
    for secret in ["61.4", "office"] {
        assert!(!logged.contains(secret), "{logged}");
    }
}

/// It waits in the proxy, and is ciphertext there, whoever is connected, away or killed meanwhile.
#[test]
fn fault_17_what_lacks_a_key_arrives_when_its_reader_is_let_in() {
    let (rig, server) = (Rig::small(), Server::start());
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| someone(&rig, name, &server));
    let ticket = alice.done(&["stream", "create", "s"]);
    for person in [&bob, &carol] {
        person.done(&["join", &ticket]);
    }
    let (_gateway, sensors) = proxy(&rig, &alice, "gateway.toml", "do = \"seal\"", &server);
    let subscriber = |port: u16, more: &[&str]| {
        // Not by way of another program, which would be killed in its place.
        let mut command = Command::new("mosquitto_sub");
        command.args(["-h", "127.0.0.1", "-p", &port.to_string()]);
        command.args(["-t", "plant/+/t", "-v", "-W", WITHIN]);
        command
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command
    };
    // Connected all the time.
    for topic in ["plant/1/t", "plant/2/t"] {
        publishes(sensors, "5", topic, "61.4 C");
    }
    let (mut desk, port) = proxy(&rig, &carol, "carol.toml", "do = \"open\"", &server);
    let waits = ["-q", "1", "-C", "2"];
    let waiting = subscriber(port, &waits).spawn().unwrap();
    desk.wait_for("exception=Parked");
    alice.done(&["grant", "s", &carol.id(), "--from", "start"]);
    let told = String::from_utf8(waiting.wait_with_output().unwrap().stdout).unwrap();
    let mut lines: Vec<_> = told.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["plant/1/t 61.4 C", "plant/2/t 61.4 C"]);
    // Away, and the proxy is killed.
    let (mut desk, port) = proxy(&rig, &bob, "bob.toml", "do = \"open\"", &server);
    let session = ["-c", "-i", "desk", "-q", "2", "-R"];
    let asked = subscriber(port, &session).arg("-E").status().unwrap();
    assert!(asked.success());
    for qos in ["1", "2"] {
        for number in 1..=3 {
            let text = format!("{number} at {qos}");
            let more = ["-q", qos, "-t", "plant/7/t", "-m", &text];
            let done = client("mosquitto_pub", sensors, "311", &more);
            assert!(done.status.success(), "{done:?}");
        }
    }
    let mut away = subscriber(port, &session).spawn().unwrap();
    desk.wait_for("exception=Parked");
    away.kill().unwrap();
    away.wait().unwrap();
    desk.kill();
    alice.done(&["grant", "s", &bob.id(), "--from", "start"]);
    let (_desk, port) = proxy(&rig, &bob, "bob.toml", "do = \"open\"", &server);
    let more = [&session[..], &["-C", "6"]].concat();
    let told = subscriber(port, &more).output().unwrap();
    let expected = ["1", "2"].map(|qos| {
        let line = |number| format!("plant/7/t {number} at {qos}\n");
        (1..=3).map(line).collect::<String>()
    });
    assert_eq!(String::from_utf8(told.stdout).unwrap(), expected.concat());
}

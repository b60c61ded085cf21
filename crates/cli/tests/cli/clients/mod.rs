//! Clients that know nothing of sealcast, of several makes, through two proxies and one broker.

mod features;
mod player;

use std::process::{Command, Stdio};
use std::thread;

use features::{FEATURES, SECRET, Seen, Trial};
use player::{Make, Program, Version};
use sealcast_brokers::mosquitto::Server;
use sealcast_brokers::{Tap, free_port};
use sealcast_traces::Needles;

use crate::agent::Serving;
use crate::rig::{Person, Rig};

/// Whoever is tried, in the order of the table.
const MAKES: [Make; 10] = [
    Make {
        name: "mosquitto 3.1.1",
        version: Version::Three,
        program: Program::Mosquitto,
    },
    Make {
        name: "mosquitto 5",
        version: Version::Five,
        program: Program::Mosquitto,
    },
    Make {
        name: "Paho 3.1.1",
        version: Version::Three,
        program: Program::Paho,
    },
    Make {
        name: "Paho 5",
        version: Version::Five,
        program: Program::Paho,
    },
    Make {
        name: "MQTT.js 3.1.1",
        version: Version::Three,
        program: Program::MqttJs,
    },
    Make {
        name: "MQTT.js 5",
        version: Version::Five,
        program: Program::MqttJs,
    },
    Make {
        name: "MQTT.js 3.1.1, WebSocket",
        version: Version::Three,
        program: Program::MqttJsOnWebSocket,
    },
    Make {
        name: "MQTT.js 5, WebSocket",
        version: Version::Five,
        program: Program::MqttJsOnWebSocket,
    },
    Make {
        name: "Node-RED 3.1.1",
        version: Version::Three,
        program: Program::NodeRed,
    },
    Make {
        name: "Node-RED 5",
        version: Version::Five,
        program: Program::NodeRed,
    },
];

/// A broker, of which all is recorded that comes to it and from it, and two proxies before it, each of somebody's own.
struct Stage {
    // Ended before the homes are removed.
    gateway: Front,
    desk: Front,
    tap: Tap,
    _server: Server,
    _rig: Rig,
}

/// A proxy, and where clients connect to it, over TCP and over WebSocket.
struct Front {
    serving: Serving,
    tcp: u16,
    web: u16,
}

impl Front {
    fn port(&self, program: Program) -> u16 {
        match program {
            Program::MqttJsOnWebSocket => self.web,
            Program::Mosquitto | Program::Paho | Program::MqttJs | Program::NodeRed => self.tcp,
        }
    }
}

impl Stage {
    fn new() -> Self {
        let (rig, server) = (Rig::small(), Server::start());
        let (tap, upstream) = Tap::before(server.port());
        let [alice, bob] = people(&rig);
        let proxy = |person: &Person, name: &str| {
            let [tcp, web] = [free_port(), free_port()];
            let config = format!(
                "listen = \"127.0.0.1:{tcp}\"\nupstream = \"mqtt://127.0.0.1:{upstream}\"\n\n\
                 [[listener]]\nlisten = \"ws://127.0.0.1:{web}\"\n\n\
                 [[rule]]\ntopics = \"plant/#\"\nstream = \"s\"\ndo = \"both\"\n\n\
                 [[rule]]\ntopics = \"clear/#\"\ndo = \"pass\"\n"
            );
            let (serving, _) = Serving::proxy(person, &rig.file(name, config.as_bytes()));
            Front { serving, tcp, web }
        };
        Self {
            gateway: proxy(&alice, "gateway.toml"),
            desk: proxy(&bob, "desk.toml"),
            tap,
            _server: server,
            _rig: rig,
        }
    }
}

/// How often a text was seen on the way to a broker or from it.
fn seen(tap: &Tap, text: &str) -> usize {
    let mut needles = Needles::new();
    needles.add(text, text.as_bytes());
    needles.search("upstream", &tap.recorded()).len()
}

/// The owner of a stream, and somebody who may publish and read everything there.
fn people(rig: &Rig) -> [Person; 2] {
    let (alice, ticket) = rig.owner("alice", "s");
    let bob = rig.person("bob");
    bob.done(&["join", &ticket]);
    let roles = ["--role", "reader,publisher", "--from", "start"];
    alice.done(&[&["grant", "s", &bob.id()], &roles[..]].concat());
    [alice, bob]
}

/// What one make of client can do, on both sides of two proxies.
fn tried(make: Make, gateway: u16, desk: u16) -> Vec<Seen> {
    let mut trial = Trial::new(make, gateway, desk);
    let trials = FEATURES.iter().map(|(_, feature)| feature(&mut trial));
    trials.collect()
}

/// As Markdown has it.
fn table(columns: &[Vec<Seen>]) -> String {
    let row = |cells: Vec<&str>| format!("| {} |\n", cells.join(" | "));
    let names = MAKES.iter().map(|make| make.name);
    let mut table = row([""].into_iter().chain(names).collect());
    table += &format!("|{}\n", "---|".repeat(MAKES.len() + 1));
    for (index, (feature, _)) in FEATURES.iter().enumerate() {
        let cells = columns.iter().map(|column| match column[index] {
            Seen::Works => "yes",
            Seen::Lacking => "–",
        });
        table += &row([*feature].into_iter().chain(cells).collect());
    }
    table
}

#[test]
fn each_feature_works_with_each_client_as_the_reference_says_and_no_message_is_seen_upstream() {
    let page = include_str!("../../../../../docs/reference/mqtt-clients.md");
    let stage = Stage::new();
    let columns: Vec<_> = thread::scope(|scope| {
        let trials = MAKES.map(|make| {
            let fronts = [&stage.gateway, &stage.desk];
            let [gateway, desk] = fronts.map(|front| front.port(make.program));
            scope.spawn(move || tried(make, gateway, desk))
        });
        trials.map(|trial| trial.join().unwrap()).into()
    });
    let table = table(&columns);
    assert!(page.contains(&table), "the page does not have:\n{table}");
    assert_eq!(seen(&stage.tap, SECRET), 0);
    // What a rule passes is found by the same search.
    let passed = "nothing to hide in this";
    let done = Command::new("mosquitto_pub")
        .args([
            "-p",
            &stage.gateway.tcp.to_string(),
            "-q",
            "1",
            "-t",
            "clear/1",
            "-m",
            passed,
        ])
        .stdin(Stdio::null())
        .status();
    assert!(done.unwrap().success());
    assert_eq!(seen(&stage.tap, passed), 1);
    for front in [stage.gateway, stage.desk] {
        let logged = front.serving.stop();
        assert!(!logged.contains("exception="), "{logged}");
    }
}

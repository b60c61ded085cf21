//! A client of another make, told what to do line by line.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

/// How long an answer is waited for: longer than what it answers is.
const WITHIN: Duration = Duration::from_secs(300);

/// A library, and what it is asked to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Make {
    /// What it is called where features are listed.
    pub(crate) name: &'static str,
    pub(crate) version: Version,
    pub(crate) program: Program,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Three,
    Five,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    Mosquitto,
    Paho,
    MqttJs,
    MqttJsOnWebSocket,
    NodeRed,
}

/// A script that holds connections of a library, each by a name, `who`. It is given an object a line and answers with one:
///
/// - `connect` with `port`, `id`, `clean`, and maybe `expiry`, `will`, `receive_maximum`, `holds` (with Paho
///   alone: nothing is acknowledged until `release`): `present`, whether there was a session.
/// - `subscribe` with `filter`, `qos`, maybe `no_local`: `granted`.
/// - `publish` with `topic`, `payload`, `qos`, maybe `retain`, `properties`, and `times`, with `mosquitto_pub` alone: `reason`.
/// - `receive` with `count`: `messages`, as soon as so many are there.
/// - `release`; `leave`, by saying so; `vanish`, without.
///
/// Or with `lacks`, where there is no such thing in that library, or with `error`.
pub(crate) struct Player {
    make: Make,
    child: Child,
    orders: ChildStdin,
    answers: Receiver<String>,
    /// Where it may keep things of its own.
    _folder: TempDir,
}

impl Player {
    pub(crate) fn start(make: Make) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut child = command(make)
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{make:?} cannot be started: {error}"));
        let (orders, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, answers) = channel();
        thread::spawn(move || {
            let mut lines = BufReader::new(output).lines().map_while(Result::ok);
            // Nobody may want them any more.
            lines.all(|line| sender.send(line).is_ok())
        });
        Self {
            make,
            child,
            orders,
            answers,
            _folder: folder,
        }
    }

    /// Has it do something, and panics where it cannot. `None` where there is no such thing in it.
    pub(crate) fn act(&mut self, what: &str, who: &str, more: &Value) -> Option<Value> {
        let mut order = json!({"do": what, "who": who});
        let into = order.as_object_mut().unwrap();
        into.extend(more.as_object().unwrap().clone());
        writeln!(self.orders, "{order}").unwrap();
        let answer = self.answers.recv_timeout(WITHIN);
        let name = self.make.name;
        let answer = answer.unwrap_or_else(|_| panic!("{name} does not answer: {what} {who}"));
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert!(answer["error"].is_null(), "{name}, {who}: {answer}");
        answer["lacks"].is_null().then_some(answer)
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _is_killed = self.child.kill().is_ok() && self.child.wait().is_ok();
    }
}

fn command(make: Make) -> Command {
    let version = match make.version {
        Version::Three => "3",
        Version::Five => "5",
    };
    let script = |name: &str| {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        folder.join("tests/cli/clients").join(name)
    };
    let mut command = match make.program {
        Program::Mosquitto | Program::Paho => Command::new(sealcast_brokers::PYTHON),
        Program::MqttJs | Program::MqttJsOnWebSocket | Program::NodeRed => Command::new("node"),
    };
    command.env("NODE_PATH", sealcast_brokers::NODE_MODULES);
    match make.program {
        Program::Mosquitto => command.arg(script("with_mosquitto.py")).arg(version),
        Program::Paho => command.arg(script("with_paho.py")).arg(version),
        Program::MqttJs | Program::MqttJsOnWebSocket => {
            let is_tcp = make.program == Program::MqttJs;
            let scheme = if is_tcp { "mqtt" } else { "ws" };
            command
                .arg(script("with_mqttjs.js"))
                .args([version, scheme])
        }
        Program::NodeRed => command.arg(script("with_nodered.js")).arg(version),
    };
    command
}

//! `sealcast agent`: a process that serves a home while others use it.

mod archive;
mod config;
mod follow;
mod life;
mod requests;
mod secrets;

use std::io::{BufRead as _, BufReader, Read};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::rig::Person;

/// How long is looked for what must come, however busy the machine is, and how often.
const WITHIN: Duration = Duration::from_secs(180);
const LOOK: Duration = Duration::from_millis(10);

/// How long to wait for a line of the log that must come, however busy the machine is.
const LINE_WITHIN: Duration = Duration::from_secs(120);

/// A running agent or proxy, with what it logged so far.
pub(crate) struct Serving {
    pub(crate) child: Child,
    log: Receiver<String>,
    pub(crate) logged: String,
}

impl Serving {
    /// Starts the agent of a home, on a port that is free, and waits until it answers.
    pub(crate) fn start(person: &Person, args: &[&str]) -> Self {
        let config = person.home().join("config.toml");
        if !config.exists() {
            std::fs::write(config, "[agent]\nlisten = \"127.0.0.1:0\"\n").unwrap();
        }
        Self::spawn(person, &[&["agent"], args].concat(), "agent started")
    }

    /// Starts an MQTT proxy with a config file, on a port that is free; the port.
    pub(crate) fn proxy(person: &Person, config: &str) -> (Self, u16) {
        let serving = Self::spawn(person, &["proxy", "mqtt", config], "proxy started");
        // In text and in JSON alike.
        let port = serving.logged.split("port").nth(1).unwrap();
        let port = port.trim_start_matches(|of: char| !of.is_ascii_digit());
        let port = port.split(|of: char| !of.is_ascii_digit()).next().unwrap();
        let port = port.parse().unwrap();
        (serving, port)
    }

    fn spawn(person: &Person, args: &[&str], started: &str) -> Self {
        let mut child = person.start(args);
        let log = lines_of(child.stderr.take().unwrap());
        let mut serving = Self {
            child,
            log,
            logged: String::new(),
        };
        serving.wait_for(started);
        serving
    }

    /// Starts it and waits until it attends to its first stream.
    pub(crate) fn of_stream(person: &Person, args: &[&str]) -> Self {
        let mut serving = Self::start(person, args);
        serving.wait_for("stream attended to");
        serving
    }

    /// Reads on in the log until a line has a text in it.
    pub(crate) fn wait_for(&mut self, text: &str) {
        loop {
            let line = self.log.recv_timeout(LINE_WITHIN);
            let line = line.unwrap_or_else(|_| panic!("no {text}: {}", self.logged));
            self.logged.push_str(&line);
            if line.contains(text) {
                return;
            }
        }
    }

    /// Tells it to end; it must end well. All that it logged.
    pub(crate) fn stop(mut self) -> String {
        self.signal("TERM");
        self.logged.extend(self.log.iter());
        assert_eq!(
            self.child.wait().unwrap().code(),
            Some(0),
            "{}",
            self.logged
        );
        std::mem::take(&mut self.logged)
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(mut self) {
        self.signal("KILL");
        self.child.wait().unwrap();
    }

    pub(crate) fn signal(&self, signal: &str) {
        let kill = format!("kill -{signal} {}", self.child.id());
        let killed = Command::new("sh").args(["-c", &kill]).status().unwrap();
        assert!(killed.success());
    }
}

/// Reads lines as they come, so that whoever waits for one need not wait for ever.
pub(crate) fn lines_of(log: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        let mut log = BufReader::new(log);
        let mut line = String::new();
        while log.read_line(&mut line).unwrap() > 0 {
            // Nobody may want them any more.
            drop(sender.send(std::mem::take(&mut line)));
        }
    });
    lines
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It may have ended.
        let _is_killed = self.child.kill().is_ok() && self.child.wait().is_ok();
    }
}

/// What the agent of a home answers on its socket: the status and the body.
pub(crate) fn get(home: &Path, path: &str) -> (u16, String) {
    ask(UnixStream::connect(home.join("agent.sock")).unwrap(), path)
}

/// What it answers on loopback.
pub(crate) fn get_loopback(address: &str, path: &str) -> (u16, String) {
    ask(TcpStream::connect(address).unwrap(), path)
}

fn ask(mut stream: impl Read + std::io::Write, path: &str) -> (u16, String) {
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

pub(crate) fn status(person: &Person) -> Value {
    let (code, lines) = person.json(&["agent", "status"]);
    assert_eq!(code, 0, "{lines:?}");
    lines[0].clone()
}

/// Where the agent answers on loopback.
pub(crate) fn address(person: &Person) -> String {
    status(person)["listen"].as_str().unwrap().to_owned()
}

/// Asks for the status until it is as it must become.
pub(crate) fn until(person: &Person, is_so: impl Fn(&Value) -> bool) -> Value {
    let ask = || serde_json::from_str(&get(person.home(), "/status").1).unwrap();
    looked_for(ask, is_so)
}

/// What a look shows, once it is as it must become.
pub(crate) fn looked_for<T: std::fmt::Debug>(
    look: impl Fn() -> T,
    is_so: impl Fn(&T) -> bool,
) -> T {
    let start = Instant::now();
    loop {
        let shown = look();
        if is_so(&shown) {
            return shown;
        }
        assert!(start.elapsed() < WITHIN, "it never is so: {shown:?}");
        thread::sleep(LOOK);
    }
}

/// Waits until so many follow the first stream through the agent.
pub(crate) fn until_followed_by(person: &Person, count: u64) {
    until(person, |of| of["streams"][0]["subscribers"] == count);
}

//! Mosquitto, an MQTT broker.

use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::{Process, free_port};

/// A broker that keeps what it has in a file, which ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    folder: TempDir,
    port: u16,
    process: Option<Process>,
}

impl Server {
    /// Starts one that lets everybody in.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub fn start() -> Self {
        Self::start_with("allow_anonymous true")
    }

    /// Starts one with more in its configuration, which says who is let in, and goes before what is said here.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub fn start_with(config: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let port = free_port();
        let text = format!(
            "user root\nlistener {port} 127.0.0.1\npersistence true\npersistence_location {}/\n\
             max_queued_messages 0\nmax_inflight_messages 0\n{config}\n",
            folder.path().display()
        );
        std::fs::write(folder.path().join("server.conf"), text).expect("a file");
        let mut server = Self {
            folder,
            port,
            process: None,
        };
        server.restart();
        server
    }

    /// Ends it at once, with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }

    /// Asks it to end, and waits until it has.
    #[cfg(unix)]
    pub fn stop(&mut self) {
        if let Some(process) = self.process.take() {
            process.stop();
        }
    }

    /// Has it write down what it has, and waits until it has done so.
    ///
    /// # Panics
    ///
    /// When it does not.
    #[cfg(unix)]
    pub fn save(&mut self) {
        let file = self.folder.path().join("mosquitto.db");
        let written = || std::fs::metadata(&file).and_then(|of| of.modified()).ok();
        let before = written();
        if let Some(process) = &mut self.process {
            process.signal(rustix::process::Signal::USR1);
            process.wait_until(|| (written() != before).then_some(()));
        }
    }

    /// Starts it again, on the same port and data.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub fn restart(&mut self) {
        let mut command = Command::new("mosquitto");
        command
            .arg("-c")
            .arg(self.folder.path().join("server.conf"));
        let log = self.folder.path().join("log");
        let mut process = Process::start(command, "mosquitto", &log);
        process.wait_until(|| TcpStream::connect(("127.0.0.1", self.port)).ok());
        self.process = Some(process);
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Everything that it keeps.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The URL of a bus on it.
    pub fn url(&self, name: &str) -> String {
        format!("mqtt://127.0.0.1:{}/{name}", self.port)
    }
}

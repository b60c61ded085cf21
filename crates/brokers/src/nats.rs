//! NATS with JetStream.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::Process;

/// A server with JetStream, which ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    program: PathBuf,
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
        Self::start_with("")
    }

    /// Starts one with more in its configuration.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub fn start_with(config: &str) -> Self {
        Self::start_program(Path::new("nats-server"), config)
    }

    /// Starts one of another version.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub fn start_program(program: &Path, config: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = folder.path().join("data");
        let config = format!("jetstream {{ store_dir: {store:?} }}\n{config}\n");
        std::fs::write(folder.path().join("server.conf"), config).expect("a file");
        let mut server = Self {
            program: program.to_owned(),
            folder,
            port: 0,
            process: None,
        };
        server.run("-1");
        server
    }

    fn run(&mut self, port: &str) {
        let ports = tempfile::tempdir().expect("a folder");
        let mut command = Command::new(&self.program);
        command.args(["-a", "127.0.0.1", "-p", port, "--ports_file_dir"]);
        command
            .arg(ports.path())
            .arg("-c")
            .arg(self.folder.path().join("server.conf"));
        let log = self.folder.path().join("log");
        let mut process = Process::start(command, "nats-server", &log);
        // It writes a file when it is ready.
        self.port = process.wait_until(|| port_below(ports.path()));
        self.process = Some(process);
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

    /// Starts it again, on the same port and data.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub fn restart(&mut self) {
        self.run(&self.port.to_string());
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
        format!("nats://127.0.0.1:{}/{name}", self.port)
    }
}

fn port_below(folder: &Path) -> Option<u16> {
    let files = std::fs::read_dir(folder).ok()?;
    let texts = files.filter_map(|file| std::fs::read_to_string(file.ok()?.path()).ok());
    texts.filter_map(|text| port_in(&text)).next()
}

/// The port of the first `nats://HOST:PORT` or `tls://HOST:PORT` in a text that is whole.
fn port_in(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once("://127.0.0.1:")?;
    rest.split_once('"')?.0.parse().ok()
}

//! A NATS server for tests: on a free port, with data of its own.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use sealcast_bus::{BusUrl, NatsAddress, Place};
use sealcast_bus_nats::{NatsBus, NatsOptions};
use tempfile::TempDir;

const PROGRAM: &str = "nats-server";

/// A server with JetStream, which ends when this is dropped.
pub(crate) struct Server {
    folder: TempDir,
    port: u16,
    process: Option<Child>,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// Starts one with more in its configuration.
    pub(crate) fn start_with(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("data");
        let config = format!("jetstream {{ store_dir: {store:?} }}\n{config}\n");
        std::fs::write(folder.path().join("server.conf"), config).unwrap();
        let mut server = Self {
            folder,
            port: 0,
            process: None,
        };
        server.run("-1");
        server
    }

    fn run(&mut self, port: &str) {
        let ports = tempfile::tempdir().unwrap();
        let mut command = Command::new(PROGRAM);
        command.args(["-a", "127.0.0.1", "-p", port, "--ports_file_dir"]);
        command
            .arg(ports.path())
            .arg("-c")
            .arg(self.folder.path().join("server.conf"));
        let log = std::fs::File::create(self.folder.path().join("log")).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let process = command.spawn().unwrap_or_else(|error| {
            panic!("these tests need `{PROGRAM}`, Debian's package of that name: {error}")
        });
        self.process = Some(process);
        self.port = self.wait_for_port(ports.path());
    }

    /// The server writes a file when it is ready.
    fn wait_for_port(&mut self, folder: &Path) -> u16 {
        for _ in 0..6_000 {
            let files = std::fs::read_dir(folder).unwrap();
            let texts = files.filter_map(|file| std::fs::read_to_string(file.unwrap().path()).ok());
            let port = texts.filter_map(|text| port_in(&text)).next();
            if let Some(port) = port {
                return port;
            }
            let ended = self.process.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "{PROGRAM} ended: {}", self.log());
            sleep(Duration::from_millis(10));
        }
        panic!("{PROGRAM} does not become ready: {}", self.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// Ends it at once, with SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Starts it again, on the same port and data.
    pub(crate) fn restart(&mut self) {
        self.run(&self.port.to_string());
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self, prefix: &str) -> String {
        format!("nats://127.0.0.1:{}/{prefix}", self.port)
    }

    pub(crate) fn address(&self, prefix: &str) -> NatsAddress {
        address(&self.url(prefix))
    }

    pub(crate) async fn open(&self, prefix: &str) -> NatsBus {
        NatsBus::open(&self.address(prefix), &NatsOptions::default())
            .await
            .unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn address(url: &str) -> NatsAddress {
    match BusUrl::parse(url).unwrap().place() {
        Place::Nats(address) => address.clone(),
        Place::File(path) => panic!("not of NATS: {}", path.display()),
    }
}

/// The port of the first `nats://HOST:PORT` or `tls://HOST:PORT` in a text that is whole.
fn port_in(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once("://127.0.0.1:")?;
    rest.split_once('"')?.0.parse().ok()
}

//! RabbitMQ.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::{Process, free_port};

const PROGRAM: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
const CONTROL: &str = "/usr/lib/rabbitmq/bin/rabbitmqctl";
const PACKAGE: &str = "rabbitmq-server";

/// A server, which ends when this is dropped. It lets `guest` in, with the password `guest`.
#[derive(Debug)]
pub struct Server {
    folder: TempDir,
    port: u16,
    /// Where the nodes of a cluster would speak to each other.
    distribution_port: u16,
    process: Option<Process>,
    /// Knows which node is where: each server has one of its own, which ends after it.
    names: Names,
}

#[derive(Debug)]
struct Names {
    port: u16,
    _process: Process,
}

/// Puts what its programs know each other by where they look for it. They would make it themselves, and
/// fail where one finds it while another has not yet shut it off from others.
#[cfg(unix)]
fn put_cookie(home: &Path) {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;

    let mut options = std::fs::OpenOptions::new();
    let opened = options
        .write(true)
        .create_new(true)
        .mode(0o400)
        .open(home.join(".erlang.cookie"));
    // Each folder has a name of its own.
    let name = home.file_name().unwrap_or_default();
    let written = opened.and_then(|mut file| file.write_all(name.as_encoded_bytes()));
    written.expect("a file");
}

impl Server {
    /// Starts one.
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
        let folder = tempfile::tempdir().expect("a folder");
        let port = free_port();
        let config = format!("listeners.tcp.1 = 127.0.0.1:{port}\nlog.console = false\n{config}\n");
        std::fs::write(folder.path().join("rabbitmq.conf"), config).expect("a file");
        std::fs::write(folder.path().join("plugins"), "[].\n").expect("a file");
        #[cfg(unix)]
        put_cookie(folder.path());
        let mut server = Self {
            names: Names::start(folder.path()),
            folder,
            port,
            distribution_port: free_port(),
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

    /// Starts it again, on the same port and data.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub fn restart(&mut self) {
        let folder = self.folder.path();
        let mut command = Command::new(PROGRAM);
        // Otherwise a shell stands before it, which would be killed in its place.
        command.env("RABBITMQ_ALLOW_INPUT", "1");
        let only_here = "-noinput -kernel inet_dist_use_interface {127,0,0,1}";
        command.env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", only_here);
        command
            .env("HOME", folder)
            .env("RABBITMQ_NODENAME", self.node())
            .env("ERL_CRASH_DUMP", folder.join("crash"))
            .env("RABBITMQ_DIST_PORT", self.distribution_port.to_string())
            .env("RABBITMQ_CONFIG_FILE", folder.join("rabbitmq.conf"))
            .env("RABBITMQ_MNESIA_BASE", self.data())
            .env("RABBITMQ_LOG_BASE", folder.join("log"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("plugins"))
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("ERL_EPMD_PORT", self.names.port.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1");
        let printed = folder.join("printed");
        let mut process = Process::start(command, PACKAGE, &printed);
        process.wait_until(|| {
            let printed = std::fs::read_to_string(&printed).ok()?;
            printed.contains("completed with").then_some(())
        });
        self.process = Some(process);
    }

    /// Has it do what `rabbitmqctl` does with these arguments, and says what that prints.
    ///
    /// # Panics
    ///
    /// When it does not.
    pub fn control(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(CONTROL);
        command
            .args(arguments)
            .env("HOME", self.folder.path())
            .env("RABBITMQ_NODENAME", self.node())
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("ERL_CRASH_DUMP", self.folder.path().join("crash"))
            .env("ERL_EPMD_PORT", self.names.port.to_string());
        let done = command.output().expect("Debian's package rabbitmq-server");
        assert!(done.status.success(), "{done:?}");
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    fn node(&self) -> String {
        format!("bus{}@localhost", self.port)
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The id of its process.
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Everything that it keeps, and its logs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The URL of a bus on it.
    pub fn url(&self, name: &str) -> String {
        format!("amqp://127.0.0.1:{}/{name}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Names {
    fn start(folder: &Path) -> Self {
        let port = free_port();
        let mut command = Command::new("epmd");
        command.args(["-address", "127.0.0.1", "-port", &port.to_string()]);
        let mut process = Process::start(command, "erlang-base", &folder.join("names"));
        process.wait_until(|| TcpStream::connect(("127.0.0.1", port)).ok());
        Self {
            port,
            _process: process,
        }
    }
}

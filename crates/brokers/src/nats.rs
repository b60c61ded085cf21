//! NATS with JetStream.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::stream::PeerInfo;
use tempfile::TempDir;

use crate::{Process, free_port};

/// Where `cargo xtask tools` puts a newer server than Debian has.
const NEWER: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../target/nats-server/bin/nats-server"
);
/// How often to ask servers that are not ready.
const LOOK: Duration = Duration::from_millis(50);
/// Servers of a cluster.
const SIZE: usize = 3;
/// Within which a cluster is ready, unless something is wrong.
const PATIENCE: Duration = Duration::from_secs(120);

/// A server with JetStream, which ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    program: PathBuf,
    folder: TempDir,
    port: u16,
    process: Option<Process>,
}

/// Where the newer version lies.
fn newer() -> &'static Path {
    let program = Path::new(NEWER);
    assert!(
        program.is_file(),
        "this needs a newer nats-server: `cargo xtask tools` installs it"
    );
    program
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
        Self::start_storing(program, "", config)
    }

    /// Starts one of the newer version.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub fn start_newer() -> Self {
        Self::start_storing(newer(), "", "")
    }

    /// Starts one of the newer version, with more in its configuration, which acknowledges what is on
    /// the disk.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub fn start_syncing(config: &str) -> Self {
        Self::start_storing(newer(), "sync_interval: always", config)
    }

    fn start_storing(program: &Path, storing: &str, config: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = folder.path().join("data");
        let config = format!("jetstream {{ store_dir: {store:?}\n{storing} }}\n{config}\n");
        std::fs::write(folder.path().join("server.conf"), config).expect("a file");
        let mut server = Self {
            program: program.to_owned(),
            folder,
            port: free_port(),
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
        let ready = tempfile::tempdir().expect("a folder");
        let mut command = Command::new(&self.program);
        command.args(["-a", "127.0.0.1", "-p", &self.port.to_string()]);
        command.arg("--ports_file_dir").arg(ready.path());
        command
            .arg("-c")
            .arg(self.folder.path().join("server.conf"));
        let log = self.folder.path().join("log");
        let mut process = Process::start(command, "nats-server", &log);
        // It writes a file when it is ready.
        let is_ready = || std::fs::read_dir(ready.path()).ok()?.next().map(drop);
        process.wait_until(is_ready);
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
        format!("nats://127.0.0.1:{}/{name}", self.port)
    }
}

/// Three servers that stand in for each other, of the newer version, which store what they acknowledge on
/// the disk first.
#[derive(Debug)]
pub struct Cluster {
    servers: Vec<Server>,
}

impl Cluster {
    /// Starts them; they find each other a moment later.
    ///
    /// # Panics
    ///
    /// When they do not start.
    pub fn start() -> Self {
        let ports = [(); SIZE].map(|()| free_port());
        let routes = ports.map(|port| format!("nats://127.0.0.1:{port}"));
        let routes = routes.join(", ");
        let servers = ports.iter().enumerate().map(|(index, port)| {
            let name = format!("server_name: n{index}");
            let listens = format!("name: test, listen: \"127.0.0.1:{port}\"");
            let config = format!("{name}\ncluster {{ {listens}, routes: [{routes}] }}");
            Server::start_syncing(&config)
        });
        Self {
            servers: servers.collect(),
        }
    }

    /// The servers, in the order of their names.
    pub fn servers(&mut self) -> &mut [Server] {
        &mut self.servers
    }

    /// The URL of a bus on all of them.
    pub fn url(&self, name: &str) -> String {
        let servers = self.servers.iter();
        let servers = servers.map(|of| format!("127.0.0.1:{}", of.port()));
        let servers: Vec<_> = servers.collect();
        format!("nats://{}/{name}", servers.join(","))
    }

    /// Makes the stream of a bus, on all of them, once they have found each other; returns when each has it.
    ///
    /// # Panics
    ///
    /// When they do not.
    pub async fn make_stream(&self, name: &str) {
        let [first, ..] = &self.servers[..] else {
            return;
        };
        let stored = |kind: &str| format!("{name}.{kind}.>");
        let config = jetstream::stream::Config {
            name: name.to_owned(),
            subjects: vec![stored("log"), stored("part")],
            num_replicas: SIZE,
            discard: jetstream::stream::DiscardPolicy::New,
            ..Default::default()
        };
        let make = async || {
            let client = async_nats::connect(format!("127.0.0.1:{}", first.port)).await;
            let context = jetstream::new(client.ok()?);
            context.create_stream(config.clone()).await.ok().map(drop)
        };
        found(make, "the servers do not find each other").await;
        let is_everywhere = async || first.has_everywhere(name).await.then_some(());
        found(
            is_everywhere,
            "the stream does not come to be on all servers",
        )
        .await;
    }

    /// Which of them leads a stream; asked until one does.
    ///
    /// # Panics
    ///
    /// When none comes to.
    pub async fn leader(&self, stream: &str) -> usize {
        let ask = async || {
            for server in &self.servers {
                let leader = server.says_who_leads(stream).await;
                if let Some(leader) = leader.filter(|index| *index < SIZE) {
                    return Some(leader);
                }
            }
            None
        };
        found(ask, "no server leads").await
    }
}

/// What a look finds that is repeated until it finds something.
async fn found<T>(look: impl AsyncFn() -> Option<T>, otherwise: &str) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking)
        .await
        .expect(otherwise)
}

impl Server {
    /// Whether a stream has a leader, and all others are as far as that.
    async fn has_everywhere(&self, stream: &str) -> bool {
        let asking = async {
            let url = format!("127.0.0.1:{}", self.port);
            let context = jetstream::new(async_nats::connect(url).await.ok()?);
            let stream = context.get_stream(stream).await.ok()?;
            stream.cached_info().cluster.clone()
        };
        let is_there = |of: &PeerInfo| of.current && !of.offline;
        asking.await.is_some_and(|of| {
            of.leader.is_some() && of.replicas.len() + 1 == SIZE && of.replicas.iter().all(is_there)
        })
    }

    async fn says_who_leads(&self, stream: &str) -> Option<usize> {
        let url = format!("127.0.0.1:{}", self.port);
        let context = jetstream::new(async_nats::connect(url).await.ok()?);
        let stream = context.get_stream(stream).await.ok()?;
        let leader = stream.cached_info().cluster.as_ref()?.leader.clone()?;
        leader.strip_prefix('n')?.parse().ok()
    }
}

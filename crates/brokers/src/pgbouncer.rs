//! PgBouncer, which stands before PostgreSQL and shares its sessions among clients.

use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use tempfile::TempDir;

use crate::postgres::{self, Server};
use crate::{Process, free_port};

/// One that lets everybody in, and ends when this is dropped.
#[derive(Debug)]
pub struct Pooler {
    port: u16,
    _process: Process,
    _folder: TempDir,
}

impl Pooler {
    /// Starts one before a server, with more lines in its configuration.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub fn before(server: &Server, config: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (port, server) = (free_port(), server.port());
        let user = postgres::user();
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={server} user={user}\n[pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = any\n{config}\n"
        );
        let path = folder.path().join("pgbouncer.ini");
        std::fs::write(&path, text).expect("a file");
        postgres::own(folder.path());
        postgres::own(&path);
        let mut command = Command::new("pgbouncer");
        command.arg(&path);
        if let Some((user, group)) = postgres::owner() {
            command.uid(user).gid(group);
        }
        let log = folder.path().join("log");
        let mut process = Process::start(command, "pgbouncer", &log);
        process.wait_until(|| TcpStream::connect(("127.0.0.1", port)).ok());
        Self {
            port,
            _process: process,
            _folder: folder,
        }
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of a bus behind it.
    pub fn url(&self, name: &str) -> String {
        format!("postgres://127.0.0.1:{}/postgres/{name}", self.port)
    }
}

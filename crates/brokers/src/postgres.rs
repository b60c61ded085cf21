//! PostgreSQL.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Signal, getuid};
use tempfile::TempDir;

use crate::{Process, free_port};

const PACKAGE: &str = "postgresql";
/// Where Debian keeps the programs of each version.
const PROGRAMS: &str = "/usr/lib/postgresql";
/// Who the server runs as, which refuses to run as root.
const USER: &str = "postgres";
/// Between two looks whether the children of a server have ended, and how many there are.
const LOOK: Duration = Duration::from_millis(5);
const LOOKS: u32 = 24_000;

/// A server with the database `postgres`, which ends when this is dropped. Unless it is configured
/// otherwise it lets everybody in, and this user may do everything.
#[derive(Debug)]
pub struct Server {
    folder: TempDir,
    port: u16,
    process: Option<Process>,
}

impl Server {
    /// Starts one that writes to the disk before it answers, as it does by itself.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// Starts one with more lines in its configuration.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub fn start_with(config: &str) -> Self {
        let mut server = Self::in_folder();
        let mut initdb = server.command("initdb");
        initdb.args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C"]);
        initdb.args(["--username", &user(), "-D"]);
        let done = initdb.arg(server.folder()).output().expect("initdb");
        assert!(done.status.success(), "initdb: {done:?}");
        let always = "listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\n";
        server.write("postgresql.conf", &format!("{always}{config}\n"));
        server.port = free_port();
        server.run();
        server
    }

    /// Starts one that follows another, and can be read.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub fn standby_of(primary: &Self) -> Self {
        let mut server = Self::in_folder();
        let mut backup = server.command("pg_basebackup");
        backup.args(["-h", "127.0.0.1", "-p", &primary.port.to_string()]);
        backup.args(["-U", &user(), "--write-recovery-conf"]);
        backup.args(["--checkpoint=fast", "--no-sync", "-D"]);
        let done = backup.arg(server.folder()).output().expect("pg_basebackup");
        assert!(done.status.success(), "pg_basebackup: {done:?}");
        server.port = free_port();
        server.run();
        server
    }

    fn in_folder() -> Self {
        let server = Self {
            folder: tempfile::tempdir().expect("a folder"),
            port: 0,
            process: None,
        };
        own(server.folder.path());
        server
    }

    /// Puts a file where the configuration can name it, for the server alone.
    ///
    /// # Panics
    ///
    /// When it cannot be written.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.folder().join(name);
        fs::write(&path, text).expect("a file of the server");
        let secret = fs::Permissions::from_mode(0o600);
        fs::set_permissions(&path, secret).expect("a file of the server");
        own(&path);
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(path_of(program));
        command.current_dir(self.folder.path()).env("LC_ALL", "C");
        if let Some((user, group)) = owner() {
            command.uid(user).gid(group);
        }
        command
    }

    fn run(&mut self) {
        let mut server = self.command("postgres");
        server.arg("-D").arg(self.folder());
        server.args(["-p", &self.port.to_string()]);
        let log = self.folder.path().join("log");
        let mut process = Process::start(server, PACKAGE, &log);
        let (pid, says) = (
            process.id().to_string(),
            self.folder().join("postmaster.pid"),
        );
        // The file begins with its id, and ends with how it stands.
        process.wait_until(|| {
            let text = fs::read_to_string(&says).ok()?;
            let mut lines = text.lines().map(str::trim);
            (lines.next() == Some(&pid) && lines.next_back() == Some("ready")).then_some(())
        });
        self.process = Some(process);
    }

    /// Ends it at once, with SIGKILL. Its children, one a connection, then end by themselves.
    ///
    /// # Panics
    ///
    /// When they do not.
    pub fn kill(&mut self) {
        let Some(mut process) = self.process.take() else {
            return;
        };
        let pid = process.id();
        // While it stands still it has no more of them.
        process.signal(Signal::STOP);
        process.wait_until(|| (state_of(pid)? == 'T').then_some(()));
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        process.kill();
        let children = children.unwrap_or_default();
        let is_there = |child: &&str| {
            let state = child.parse().ok().and_then(state_of);
            state.is_some_and(|state| state != 'Z')
        };
        for _ in 0..LOOKS {
            if !children.split_whitespace().any(|child| is_there(&child)) {
                return;
            }
            sleep(LOOK);
        }
        panic!("children of a killed server live on: {children}");
    }

    /// Asks it to end, which it does in good order, and waits until it has.
    pub fn stop(&mut self) {
        if let Some(process) = self.process.take() {
            process.stop_with(Signal::INT);
        }
    }

    /// Starts it again, on the same port and data.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub fn restart(&mut self) {
        self.run();
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Everything that it keeps.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The URL of a bus on it.
    pub fn url(&self, name: &str) -> String {
        format!("postgres://127.0.0.1:{}/postgres/{name}", self.port)
    }

    /// What `psql` prints when it is given a script, a row a line.
    ///
    /// # Panics
    ///
    /// When the script fails.
    pub fn sql(&self, script: &str) -> String {
        let done = self.psql().args(["-c", script]).output().expect("psql");
        let err = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{script}: {err}");
        String::from_utf8_lossy(&done.stdout).into_owned()
    }
}

/// A session that does nothing more, and ends when this is dropped.
#[derive(Debug)]
pub struct Held {
    /// It ends where its input does.
    _input: ChildStdin,
    psql: Child,
}

impl Server {
    /// Runs a script in a session that goes on afterwards, with what it has locked.
    ///
    /// # Panics
    ///
    /// When the script fails.
    pub fn hold(&self, script: &str) -> Held {
        let mut psql = self.psql();
        psql.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut psql = psql.spawn().expect("psql");
        let mut input = psql.stdin.take().expect("its input");
        writeln!(input, "{script};\n\\echo done").expect("its input");
        let output = psql.stdout.take().expect("its output");
        let mut lines = BufReader::new(output).lines().map_while(Result::ok);
        assert!(lines.any(|line| line == "done"), "{script}");
        Held {
            _input: input,
            psql,
        }
    }

    fn psql(&self) -> Command {
        let mut psql = Command::new(path_of("psql"));
        psql.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]);
        psql.args(["-d", "postgres", "-XAtq", "-v", "ON_ERROR_STOP=1"]);
        psql
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _is_killed = self.psql.kill().is_ok();
        let _is_gone = self.psql.wait().is_ok();
    }
}

impl Drop for Server {
    /// One that is killed leaves something behind in the memory of the system.
    fn drop(&mut self) {
        if let Some(process) = self.process.take()
            && !std::thread::panicking()
        {
            process.stop_with(Signal::QUIT);
        }
    }
}

/// What a process does, as a letter: `T` where it stands still, `Z` where it has ended and nobody has asked how.
fn state_of(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind its name, which may have anything in it.
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// Who we are, and who may do everything.
pub(crate) fn user() -> String {
    said("id", &["-un"])
}

/// The user and the group that programs of PostgreSQL run as, where they are not ours.
pub(crate) fn owner() -> Option<(u32, u32)> {
    let is_root = getuid().is_root();
    is_root.then(|| (number(&["-u", USER]), number(&["-g", USER])))
}

/// Gives them a file or folder.
pub(crate) fn own(path: &Path) {
    if let Some((user, group)) = owner() {
        chown(path, Some(user), Some(group)).expect("a file of the server");
    }
}

/// Where a program of the newest version is, or else just its name.
fn path_of(program: &str) -> PathBuf {
    let versions = fs::read_dir(PROGRAMS).into_iter().flatten();
    let versions = versions.filter_map(|version| Some(version.ok()?.path()));
    let paths = versions.map(|version| version.join("bin").join(program));
    let newest = paths.filter(|path| path.exists()).max();
    newest.unwrap_or_else(|| program.into())
}

fn number(about: &[&str]) -> u32 {
    let said = said("id", about);
    said.parse()
        .unwrap_or_else(|_| panic!("this needs the user of Debian's package {PACKAGE}: {USER}"))
}

fn said(program: &str, args: &[&str]) -> String {
    let done = Command::new(program).args(args).output();
    let done = done.expect("a program of the system");
    String::from_utf8_lossy(&done.stdout).trim().to_owned()
}

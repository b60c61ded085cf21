use std::hash::{BuildHasher as _, RandomState};
use std::net::{TcpListener, UdpSocket};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread::sleep;
use std::time::Duration;

/// Between two looks whether something has happened.
const LOOK: Duration = Duration::from_millis(10);
/// Looks until something counts as not happening.
const LOOKS: u32 = 12_000;

/// Waits until this process has ended, however it did; then it ends another one, and removes its folder.
const GUARD: &str = "read -r _; kill -9 \"$1\"; [ -z \"$2\" ] || rm -rf \"$2\"";
/// How the names of folders begin that are to be removed.
const TEMPORARY: &str = ".tmp";

/// A program that runs until this is dropped, or until this process ends: what is static is never
/// dropped, and neither is anything of a test that was killed.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    guard: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program, of Debian's package `package`, with what it prints in the file `log`, in the
    /// temporary folder with all that it has.
    ///
    /// # Panics
    ///
    /// When it is not there.
    pub fn start(mut command: Command, package: &str, log: &Path) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let output = std::fs::File::create(log).unwrap_or_else(|error| {
            panic!("cannot write {}: {error}", log.display());
        });
        let twin = output.try_clone().unwrap_or_else(|error| {
            panic!("cannot write {}: {error}", log.display());
        });
        command.stdin(Stdio::null()).stdout(twin).stderr(output);
        let child = command.spawn().unwrap_or_else(|error| {
            panic!("this needs `{name}`, of Debian's package {package}: {error}")
        });
        Self {
            name,
            guard: guard(&child, log.parent()),
            child,
            log: log.to_owned(),
        }
    }

    /// Its id in the system.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    ///
    /// # Panics
    ///
    /// When that cannot be done.
    #[cfg(unix)]
    pub fn signal(&self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, signal).unwrap_or_else(|error| {
            panic!("{} cannot be told anything: {error}", self.name);
        });
    }

    /// Waits until a look finds something.
    ///
    /// # Panics
    ///
    /// When the program ends, or nothing is found for two minutes: with what it printed.
    pub fn wait_until<T>(&mut self, mut look: impl FnMut() -> Option<T>) -> T {
        for _ in 0..LOOKS {
            if let Some(found) = look() {
                return found;
            }
            let ended = self.child.try_wait();
            assert!(
                matches!(ended, Ok(None)),
                "{} ended: {}",
                self.name,
                self.printed()
            );
            sleep(LOOK);
        }
        panic!("{} does not become ready: {}", self.name, self.printed());
    }

    /// Ends it at once, with SIGKILL.
    pub fn kill(mut self) {
        self.end();
    }

    /// Asks it to end, with SIGTERM, and waits until it has.
    ///
    /// # Panics
    ///
    /// When it does not end in two minutes.
    #[cfg(unix)]
    pub fn stop(self) {
        self.stop_with(rustix::process::Signal::TERM);
    }

    /// Asks it to end by a signal, and waits until it has.
    ///
    /// # Panics
    ///
    /// When it does not end in two minutes.
    #[cfg(unix)]
    pub fn stop_with(mut self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_child(&self.child);
        let is_asked = rustix::process::kill_process(id, signal).is_ok();
        for _ in 0..LOOKS {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            sleep(LOOK);
        }
        panic!(
            "{} does not end (asked: {is_asked}): {}",
            self.name,
            self.printed()
        );
    }

    fn printed(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn end(&mut self) {
        // First the guard: once the child is gone, its id may be somebody else's.
        for child in [&mut self.guard, &mut self.child] {
            let _is_killed = child.kill().is_ok();
            let _is_gone = child.wait().is_ok();
        }
    }
}

/// Its standard input is a pipe, which nobody writes to and the system closes.
fn guard(child: &Child, folder: Option<&Path>) -> Child {
    let name = folder.and_then(|folder| folder.file_name()?.to_str());
    let is_temporary = name.is_some_and(|name| name.starts_with(TEMPORARY));
    let folder = folder.filter(|_| is_temporary).unwrap_or(Path::new(""));
    let mut command = Command::new("sh");
    command.args(["-c", GUARD, "guard"]);
    command.arg(child.id().to_string()).arg(folder);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.spawn().expect("a shell")
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// Ports that the system gives to nobody by itself. From the others it takes those of outgoing connections: while
/// a server is restarted one of these could take its port, or a client that tries to reach it reach itself.
const PORTS: Range<u16> = 10_000..30_000;

/// A port of this machine that is free, and that no other call gets as long as this process lives, in
/// whichever process: its number stays taken for datagrams, which no server here uses.
///
/// # Panics
///
/// When there is none.
pub fn free_port() -> u16 {
    static TAKEN: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());
    let [low, high, ..] = RandomState::new().hash_one(()).to_ne_bytes();
    let begin = usize::from(u16::from_ne_bytes([low, high])) % PORTS.len();
    for port in PORTS.cycle().skip(begin).take(PORTS.len()) {
        let Ok(mark) = UdpSocket::bind(("127.0.0.1", port)) else {
            continue;
        };
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            TAKEN.lock().expect("no panic before").push(mark);
            return port;
        }
    }
    panic!("no port of {PORTS:?} is free");
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_port_is_given_twice() {
        let ports: HashSet<u16> = (0..100).map(|_| free_port()).collect();
        assert_eq!(ports.len(), 100);
        assert!(ports.iter().all(|port| PORTS.contains(port)));
    }
}

//! A test that goes on in a process of its own, and the talk with it.
//!
//! Secrets go in through a pipe that is read without a buffer. What comes out are lines that begin
//! with `@`; all else that is printed is kept and searched.

use std::env;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::{self, JoinHandle};

use sealcast::SecretBytes;
use sealcast_traces::{Needles, Stopped, Trace};

const FOLDER: &str = "SEALCAST_TEST_MEMORY";

/// Draws a secret.
pub(crate) fn draw<const N: usize>() -> [u8; N] {
    let mut secret = [0; N];
    getrandom::fill(&mut secret).unwrap();
    secret
}

/// The parent's side.
pub(crate) struct Watched {
    child: Child,
    talk: BufReader<ChildStdout>,
    printed: Vec<u8>,
    complaints: JoinHandle<Vec<u8>>,
}

impl Watched {
    /// Runs the test of this name in a child.
    pub(crate) fn start(test: &str, folder: &Path) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args([test, "--exact", "--nocapture"])
            .env(FOLDER, folder)
            .env("RUST_LOG", "trace")
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let talk = BufReader::new(child.stdout.take().unwrap());
        let mut stderr = child.stderr.take().unwrap();
        let complaints = thread::spawn(move || {
            let mut bytes = Vec::new();
            stderr.read_to_end(&mut bytes).unwrap();
            bytes
        });
        Self {
            child,
            talk,
            printed: Vec::new(),
            complaints,
        }
    }

    /// Hands in a secret.
    pub(crate) fn give(&mut self, secret: &[u8]) {
        let length = u32::try_from(secret.len()).unwrap();
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin
            .write_all(&[&length.to_le_bytes(), secret].concat())
            .unwrap();
    }

    /// Waits for the child's next word.
    pub(crate) fn hear(&mut self) -> String {
        loop {
            let mut line = Vec::new();
            if self.talk.read_until(b'\n', &mut line).unwrap() == 0 {
                let printed = String::from_utf8_lossy(&self.printed).into_owned();
                let said = std::mem::replace(&mut self.complaints, thread::spawn(Vec::new));
                let said = said.join().unwrap();
                panic!("it ended: {printed} {}", String::from_utf8_lossy(&said));
            }
            // libtest may leave its own line open.
            let from = line.iter().position(|byte| *byte == b'@');
            if let Some(from) = from {
                return String::from_utf8(line[from + 1..].trim_ascii_end().to_vec()).unwrap();
            }
            self.printed.extend(line);
        }
    }

    /// Stops the child and searches its memory.
    pub(crate) fn search(&self, needles: &Needles) -> Vec<Trace> {
        Stopped::new(&self.child).unwrap().search(needles).unwrap()
    }

    /// Lets the child go on.
    pub(crate) fn go_on(&mut self) {
        self.give(&[]);
    }

    /// Waits for its end, which must be a good one. Returns all that it printed.
    pub(crate) fn end(mut self) -> Vec<u8> {
        drop(self.child.stdin.take());
        self.talk.read_to_end(&mut self.printed).unwrap();
        let complaints = self.complaints.join().unwrap();
        let text = String::from_utf8_lossy(&complaints);
        assert!(self.child.wait().unwrap().success(), "{text}");
        [self.printed, complaints].concat()
    }
}

/// The child's side.
pub(crate) struct Inside {
    input: File,
    pub(crate) folder: PathBuf,
}

impl Inside {
    /// `None` in the parent.
    pub(crate) fn new() -> Option<Self> {
        let folder = Self::folder()?;
        log::set_logger(&Collected).unwrap();
        log::set_max_level(log::LevelFilter::Trace);
        let input = io::stdin().as_fd().try_clone_to_owned().unwrap();
        Some(Self {
            input: File::from(input),
            folder,
        })
    }

    /// The folder that parent and child share; `None` in the parent.
    pub(crate) fn folder() -> Option<PathBuf> {
        env::var_os(FOLDER).map(PathBuf::from)
    }

    /// Takes a secret.
    pub(crate) fn take(&mut self) -> SecretBytes {
        let mut length = [0; 4];
        self.input.read_exact(&mut length).unwrap();
        let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
        self.input.read_exact(&mut bytes).unwrap();
        SecretBytes::from(bytes)
    }

    /// Says a word.
    pub(crate) fn say(&self, word: &str) {
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "@{word}").unwrap();
        stdout.flush().unwrap();
    }

    /// Prints a line on the standard error output.
    pub(crate) fn complain(&self, line: &str) {
        writeln!(io::stderr(), "{line}").unwrap();
    }

    /// Stands still until the parent has looked.
    pub(crate) fn show(&mut self, word: &str) {
        self.say(word);
        assert!(self.take().is_empty());
    }
}

/// Tells a secret by what is left of it, for an assertion to show.
pub(crate) fn names(traces: &[Trace]) -> Vec<&str> {
    let mut names: Vec<_> = traces.iter().map(|of| of.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Prints all that any library logs, at every level, to be searched.
struct Collected;

impl log::Log for Collected {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        writeln!(io::stdout(), "{} {}", record.level(), record.args()).unwrap();
    }

    fn flush(&self) {}
}

/// Insists that nothing was found.
pub(crate) fn assert_none(place: &str, traces: &[Trace]) {
    let lines: Vec<_> = traces.iter().map(|of| format!("{of:?}")).collect();
    assert!(traces.is_empty(), "{place}:\n{}", lines.join("\n"));
}

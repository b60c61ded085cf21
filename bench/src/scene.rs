//! Homes, a bus and lines for the real program, and what its processes take.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tempfile::TempDir;

use crate::clock;

/// How often a child's memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// What a child took.
pub(crate) struct Took {
    pub(crate) cpu: Duration,
    pub(crate) wall: Duration,
    /// Resident at most, in MiB.
    pub(crate) memory: f64,
    pub(crate) stdout: u64,
}

/// Homes, a bus and the lines, in a folder that is removed at the end.
pub(crate) struct Scene {
    folder: TempDir,
    sealcast: PathBuf,
}

impl Scene {
    /// Alice owns a stream that Bob may read, on a `file:` bus where no other is given; both homes have
    /// a passphrase. The lines are of `len` bytes, their newlines left out.
    pub(crate) fn set(
        bus: Option<&str>,
        lines: u64,
        len: usize,
        is_glance: bool,
    ) -> anyhow::Result<Self> {
        let scene = Self {
            folder: tempfile::tempdir()?,
            sealcast: sealcast(is_glance)?,
        };
        fs::write(scene.path("passphrase"), "correct horse battery staple\n")?;
        let mut text = BufWriter::new(File::create(scene.path("lines"))?);
        for number in 0..lines {
            writeln!(text, "{number:0len$}")?;
        }
        text.flush()?;
        let file = format!("file:{}", scene.path("bus").display());
        let bus = bus.unwrap_or(&file);
        for name in ["alice", "bob"] {
            scene.run(name, &["init", "--name", name, "--bus", bus])?;
        }
        let ticket = scene.run("alice", &["stream", "create", "kitchen"])?;
        let bob = scene.run("bob", &["id"])?;
        scene.run("bob", &["join", ticket.trim()])?;
        let user = bob.split_whitespace().find(|word| word.starts_with("sc1"));
        let user = user.context("`id` prints no user id")?;
        scene.run("alice", &["grant", "kitchen", user, "--from", "start"])?;
        Ok(scene)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn command(&self, home: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.sealcast);
        command
            .arg("--home")
            .arg(self.path(home))
            .arg("--passphrase-file")
            .arg(self.path("passphrase"))
            .args(arguments);
        command
    }

    fn run(&self, home: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.command(home, arguments).output()?;
        anyhow::ensure!(
            output.status.success(),
            "sealcast {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Publishes the lines.
    pub(crate) fn publish(&self) -> anyhow::Result<Took> {
        watch(
            self.command("alice", &["pub", "kitchen", "-l"]),
            self.lines()?,
        )
    }

    /// Reads all that was published.
    pub(crate) fn read(&self) -> anyhow::Result<Took> {
        watch(self.command("bob", &["read", "kitchen"]), Stdio::null())
    }

    /// The lines, to be published.
    pub(crate) fn lines(&self) -> anyhow::Result<Stdio> {
        Ok(File::open(self.path("lines"))?.into())
    }
}

/// The program beside this one, built as this one was. For a glance, the one that is there will do:
/// building it alone, with other features than the whole workspace, takes minutes.
fn sealcast(is_glance: bool) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().context("a program lies in a folder")?;
    let program = folder.join("sealcast");
    if is_glance && program.exists() {
        return Ok(program);
    }
    let mut build = Command::new("cargo");
    build.args(["build", "--quiet", "-p", "sealcast-cli"]);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    anyhow::ensure!(build.status()?.success(), "building `sealcast` failed");
    Ok(program)
}

/// Runs a child to its end; what it prints is counted and dropped.
pub(crate) fn watch(mut command: Command, input: Stdio) -> anyhow::Result<Took> {
    let (before, begun) = (clock::children_cpu()?, Instant::now());
    let mut child = command
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let status_file = PathBuf::from(format!("/proc/{}/status", child.id()));
    let mut stdout = child.stdout.take().context("a pipe was asked for")?;
    let counting = std::thread::spawn(move || io::copy(&mut stdout, &mut io::sink()));
    let mut memory: f64 = 0.0;
    while child.try_wait()?.is_none() {
        memory = memory.max(clock::memory_of(&status_file, "VmHWM").unwrap_or(0.0));
        std::thread::sleep(LOOK_EVERY);
    }
    let wall = begun.elapsed();
    let stdout = counting
        .join()
        .map_err(|_| anyhow::anyhow!("counting failed"))??;
    let output = child.wait_with_output()?;
    anyhow::ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(Took {
        cpu: clock::children_cpu()? - before,
        wall,
        memory,
        stdout,
    })
}

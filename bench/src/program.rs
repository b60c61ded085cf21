//! A million lines through the real program, beside the same bus and frames without sealing.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use sealcast::{Home, SecretBytes};
use sealcast_bus::{Bus as _, FileBus, Offset, Topic};
use sealcast_protocol::{Frame, Position, Records};
use tempfile::TempDir;

use crate::clock;
use crate::contest::{Outcome, Spread};
use crate::floors::Floors;
use crate::report::Page;
use crate::scale::Scale;

/// The arguments that make this program a publisher and a reader without sealing.
pub(crate) const CLEAR_PUBLISH: &str = "clear-publish";
pub(crate) const CLEAR_READ: &str = "clear-read";

/// As the client has them.
const FRAME_BYTES: usize = (64 << 10) + 512;
const BATCH_BYTES: usize = 2 << 20;
const READ_BYTES: usize = 1 << 20;
/// Bytes of a line, its newline left out.
const LINE: usize = 100;
/// How often a child's memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(2);
const MEMORY_MAX_MIB: f64 = 64.0;
/// More than that for ten times the lines is not flat.
const GROWTH_MAX_MIB: f64 = 12.0;

/// What a child took.
struct Took {
    cpu: Duration,
    wall: Duration,
    /// Resident at most, in MiB.
    memory: f64,
    stdout: u64,
}

/// Homes, a bus and the lines, in a folder that is removed at the end.
struct Scene {
    folder: TempDir,
    sealcast: PathBuf,
}

impl Scene {
    /// Alice owns a stream that Bob may read; both homes have a passphrase.
    fn set(lines: u64, scale: Scale) -> anyhow::Result<Self> {
        let scene = Self {
            folder: tempfile::tempdir()?,
            sealcast: sealcast(scale.is_glance)?,
        };
        fs::write(scene.path("passphrase"), "correct horse battery staple\n")?;
        let mut text = BufWriter::new(File::create(scene.path("lines"))?);
        for number in 0..lines {
            writeln!(text, "{number:0LINE$}")?;
        }
        text.flush()?;
        let bus = format!("file:{}", scene.path("bus").display());
        for name in ["alice", "bob"] {
            scene.run(name, &["init", "--name", name, "--bus", &bus])?;
        }
        let ticket = scene.run("alice", &["stream", "create", "kitchen"])?;
        let bob = scene.run("bob", &["id"])?;
        scene.run("bob", &["join", ticket.trim()])?;
        let user = bob.split_whitespace().find(|word| word.starts_with("sc1"));
        let user = user.context("`id` prints no user id")?;
        scene.run("alice", &["grant", "kitchen", user, "--from", "start"])?;
        Ok(scene)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, home: &str, arguments: &[&str]) -> Command {
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

    fn publish(&self) -> anyhow::Result<Took> {
        let lines = File::open(self.path("lines"))?;
        watch(
            self.command("alice", &["pub", "kitchen", "-l"]),
            lines.into(),
        )
    }

    fn read(&self) -> anyhow::Result<Took> {
        watch(self.command("bob", &["read", "kitchen"]), Stdio::null())
    }

    fn clear(&self, what: &str, home: &str, input: Stdio) -> anyhow::Result<Took> {
        let mut command = Command::new(std::env::current_exe()?);
        let paths = [home, "passphrase", "clear"].map(|name| self.path(name));
        command.arg(what).args(paths);
        watch(command, input)
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
fn watch(mut command: Command, input: Stdio) -> anyhow::Result<Took> {
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

/// One job in each round.
#[derive(Default)]
struct Job {
    cpu: Vec<f64>,
    wall: Vec<f64>,
    memory: f64,
}

impl Job {
    fn note(&mut self, took: &Took) {
        self.cpu.push(took.cpu.as_secs_f64());
        self.wall.push(took.wall.as_secs_f64());
        self.memory = self.memory.max(took.memory);
    }

    fn row(&self, page: &mut Page, name: &str, baseline: &Self) {
        page.row(&[
            &name,
            &Spread::of(self.cpu.clone()),
            &ratio(&baseline.cpu, &self.cpu),
            &Spread::of(self.wall.clone()),
            &ratio(&baseline.wall, &self.wall),
            &format_args!("{:.0}", self.memory),
        ]);
    }
}

/// How many times the baseline's rate, round by round.
fn ratio(baseline: &[f64], own: &[f64]) -> Spread {
    let outcome = |seconds: &[f64]| Outcome {
        nanos: seconds.to_vec(),
        ..Outcome::of("")
    };
    outcome(own).against(&outcome(baseline))
}

pub(crate) fn measure(page: &mut Page, floors: &mut Floors, scale: Scale) -> anyhow::Result<()> {
    let [mut publish, mut clear, mut read, mut scan] = std::array::from_fn(|_| Job::default());
    for _ in 0..scale.long_rounds {
        let scene = Scene::set(scale.lines, scale)?;
        let bytes = scale.lines * (LINE as u64 + 1);
        publish.note(&scene.publish()?);
        let lines = File::open(scene.path("lines"))?;
        clear.note(&scene.clear(CLEAR_PUBLISH, "alice", lines.into())?);
        for (job, took) in [
            (&mut read, scene.read()?),
            (&mut scan, scene.clear(CLEAR_READ, "bob", Stdio::null())?),
        ] {
            anyhow::ensure!(took.stdout == bytes, "{} bytes were read", took.stdout);
            job.note(&took);
        }
    }
    let few = Scene::set(scale.lines / 10, scale)?;
    let (few_published, few_read) = (few.publish()?.memory, few.read()?.memory);

    page.heading(&format!(
        "The program: {} lines of {LINE} bytes on `file:`",
        scale.lines
    ));
    page.head(&[
        "all lines",
        "CPU s",
        "times the rate by CPU",
        "s on the wall",
        "times the rate on the wall",
        "resident MiB at most",
    ]);
    clear.row(page, "the same frames in clear, append", &clear);
    publish.row(page, "`sealcast pub -l`", &clear);
    scan.row(page, "the same frames in clear, read", &scan);
    read.row(page, "`sealcast read`", &scan);
    page.paragraph(&format!(
        "The baseline opens the same home, and then is a loop that reads the lines from standard input, \
         fills the same frames and appends as many of them at once to the same kind of bus, or one \
         that reads, splits and prints them. It has no stream, no queue and no second thread. The \
         homes have a passphrase, so that Argon2id with its 19 MiB is part of all that is measured; \
         Bob reads with a cover. With a tenth of the lines the program takes {few_published:.0} MiB to \
         publish and {few_read:.0} MiB to read.",
    ));
    promise(
        floors,
        "`pub -l` of a million lines",
        &clear,
        &publish,
        few_published,
    );
    promise(floors, "`read` of a million lines", &scan, &read, few_read);
    Ok(())
}

/// `few` is what a tenth of the lines took of memory.
fn promise(floors: &mut Floors, what: &str, clear: &Job, sealed: &Job, few: f64) {
    let by_cpu = ratio(&clear.cpu, &sealed.cpu).median;
    let on_the_wall = ratio(&clear.wall, &sealed.wall).median;
    floors.at_least(&format!("{what}, rate beside clear, by CPU"), 0.5, by_cpu);
    floors.at_least(&format!("{what}, on the wall"), 0.5, on_the_wall);
    floors.at_most(
        &format!("{what}, resident MiB"),
        MEMORY_MAX_MIB,
        sealed.memory,
    );
    floors.at_most(
        &format!("{what}, MiB more than for a tenth"),
        GROWTH_MAX_MIB,
        sealed.memory - few,
    );
}

/// Opens a home, as both do that seal and that do not, and the bus.
async fn open([home, passphrase, bus]: [&Path; 3]) -> anyhow::Result<(Home, FileBus)> {
    let text = fs::read_to_string(passphrase)?;
    let passphrase = SecretBytes::from(text.trim_end().as_bytes().to_vec());
    Ok((
        Home::open(home, Some(&passphrase)).await?,
        FileBus::open(bus).await?,
    ))
}

/// Publishes the lines of standard input in clear.
pub(crate) async fn clear_publish(paths: [&Path; 3]) -> anyhow::Result<()> {
    let (_home, bus) = open(paths).await?;
    let topic = Topic::new("clear")?;
    let mut stdin = BufReader::with_capacity(64 << 10, io::stdin().lock());
    let (mut frame, mut batch) = (Frame::with_capacity(FRAME_BYTES), Vec::new());
    let mut line = Vec::new();
    loop {
        line.clear();
        if stdin.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        if frame.push(now()?, line).is_err() {
            batch.push(frame.plaintext(now()?).into_vec());
            frame = Frame::with_capacity(FRAME_BYTES);
            frame.push(now()?, line)?;
            if batch.len() * FRAME_BYTES >= BATCH_BYTES {
                bus.append(&topic, std::mem::take(&mut batch)).await?;
            }
        }
    }
    if !frame.is_empty() {
        batch.push(frame.plaintext(now()?).into_vec());
    }
    bus.append(&topic, batch).await?;
    Ok(())
}

fn now() -> anyhow::Result<Position> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Ok(Position(u64::try_from(since.as_millis())?))
}

/// Prints the lines that were published in clear. A frame's times are relative to its position,
/// which nobody kept: any serves.
pub(crate) async fn clear_read(paths: [&Path; 3]) -> anyhow::Result<()> {
    let (_home, bus) = open(paths).await?;
    let topic = Topic::new("clear")?;
    let (mut from, position) = (Offset(0), now()?);
    let mut out = BufWriter::with_capacity(64 << 10, io::stdout());
    loop {
        let items = bus.read(&topic, from, READ_BYTES).await?;
        let Some(last) = items.last() else { break };
        from = Offset(last.offset.0 + 1);
        for item in &items {
            for record in Records::decode(&item.payload, position, true)? {
                out.write_all(record.payload)?;
                out.write_all(b"\n")?;
            }
        }
    }
    Ok(out.flush()?)
}

//! A million lines through the real program, beside the same bus and frames without sealing.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use sealcast::{Home, SecretBytes};
use sealcast_bus::{Bus as _, FileBus, Offset, Topic};

use crate::clear::{Framing, Printing};
use crate::contest::{Outcome, Spread};
use crate::floors::Floors;
use crate::report::Page;
use crate::scale::Scale;
use crate::scene::{Scene, Took, watch};

/// The arguments that make this program a publisher and a reader without sealing.
pub(crate) const CLEAR_PUBLISH: &str = "clear-publish";
pub(crate) const CLEAR_READ: &str = "clear-read";

/// As the client has them.
const READ_BYTES: usize = 1 << 20;
/// Bytes of a line, its newline left out.
const LINE: usize = 100;
const MEMORY_MAX_MIB: f64 = 64.0;
/// More than that for ten times the lines is not flat.
const GROWTH_MAX_MIB: f64 = 12.0;

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
pub(crate) fn ratio(baseline: &[f64], own: &[f64]) -> Spread {
    let outcome = |seconds: &[f64]| Outcome {
        nanos: seconds.to_vec(),
        ..Outcome::of("")
    };
    outcome(own).against(&outcome(baseline))
}

/// Runs this program as one that does not seal.
fn in_clear(scene: &Scene, what: &str, home: &str, input: Stdio) -> anyhow::Result<Took> {
    let mut command = Command::new(std::env::current_exe()?);
    let paths = [home, "passphrase", "clear"].map(|name| scene.path(name));
    command.arg(what).args(paths);
    watch(command, input)
}

pub(crate) fn measure(page: &mut Page, floors: &mut Floors, scale: Scale) -> anyhow::Result<()> {
    let [mut publish, mut clear, mut read, mut scan] = std::array::from_fn(|_| Job::default());
    for _ in 0..scale.long_rounds {
        let scene = Scene::set(None, scale.lines, LINE, scale.is_glance)?;
        let bytes = scale.lines * (LINE as u64 + 1);
        publish.note(&scene.publish()?);
        clear.note(&in_clear(&scene, CLEAR_PUBLISH, "alice", scene.lines()?)?);
        for (job, took) in [
            (&mut read, scene.read()?),
            (
                &mut scan,
                in_clear(&scene, CLEAR_READ, "bob", Stdio::null())?,
            ),
        ] {
            anyhow::ensure!(took.stdout == bytes, "{} bytes were read", took.stdout);
            job.note(&took);
        }
    }
    let few = Scene::set(None, scale.lines / 10, LINE, scale.is_glance)?;
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
    Ok((
        open_home(home, passphrase).await?,
        FileBus::open(bus).await?,
    ))
}

pub(crate) async fn open_home(home: &Path, passphrase: &Path) -> anyhow::Result<Home> {
    let text = fs::read_to_string(passphrase)?;
    let passphrase = SecretBytes::from(text.trim_end().as_bytes().to_vec());
    Ok(Home::open(home, Some(&passphrase)).await?)
}

/// Publishes the lines of standard input in clear.
pub(crate) async fn clear_publish(paths: [&Path; 3]) -> anyhow::Result<()> {
    let (_home, bus) = open(paths).await?;
    let topic = Topic::new("clear")?;
    let mut lines = Framing::of_stdin();
    while let Some(batch) = lines.next()? {
        bus.append(&topic, batch).await?;
    }
    Ok(())
}

/// Prints the lines that were published in clear.
pub(crate) async fn clear_read(paths: [&Path; 3]) -> anyhow::Result<()> {
    let (_home, bus) = open(paths).await?;
    let topic = Topic::new("clear")?;
    let (mut from, mut out) = (Offset(0), Printing::new()?);
    loop {
        let items = bus.read(&topic, from, READ_BYTES).await?;
        let Some(last) = items.last() else { break };
        from = Offset(last.offset.0 + 1);
        for item in &items {
            out.print(&item.payload)?;
        }
    }
    out.finish()
}

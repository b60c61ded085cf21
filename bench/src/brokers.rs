//! The real program on real servers, beside a client of each that seals nothing.

mod nats;

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use sealcast_brokers::nats::Server as NatsServer;

use crate::clear::{Framing, Printing};
use crate::contest::Spread;
use crate::floors::Floors;
use crate::program::ratio;
use crate::report::Page;
use crate::scale::Scale;
use crate::scene::{Scene, Took, watch};

/// The arguments that make this program a client that seals nothing.
pub(crate) const CLIENT: &str = "clear-client";

/// Bytes of a line, its newline left out.
const LINE: usize = 256;
/// Frames of a client that are on their way at once, about.
const WAITING_MAX: usize = 64;
/// How long a follower has to begin.
const SETTLE: Duration = Duration::from_secs(1);
/// Of the rate of the client alone.
const RATE_MIN: f64 = 0.85;

/// A kind of server.
#[derive(Clone, Copy)]
enum Broker {
    Nats,
    /// One that acknowledges what is on the disk.
    NatsSyncing,
}

const BROKERS: [Broker; 2] = [Broker::Nats, Broker::NatsSyncing];

impl Broker {
    fn name(self) -> &'static str {
        match self {
            Self::Nats => "NATS",
            Self::NatsSyncing => "NATS that syncs always",
        }
    }

    /// The word that stands for it on a command line.
    fn word(self) -> &'static str {
        match self {
            Self::Nats => "nats",
            Self::NatsSyncing => "nats-syncing",
        }
    }
}

/// A server that runs, for one round.
enum Running {
    Nats(NatsServer),
}

impl Running {
    fn start(broker: Broker) -> Self {
        match broker {
            Broker::Nats => Self::Nats(NatsServer::start()),
            Broker::NatsSyncing => Self::Nats(NatsServer::start_syncing("")),
        }
    }

    fn bus(&self) -> String {
        match self {
            Self::Nats(server) => server.url("bench"),
        }
    }

    /// What its own client calls it.
    fn url(&self) -> String {
        match self {
            Self::Nats(server) => format!("nats://127.0.0.1:{}", server.port()),
        }
    }
}

/// How something is published and read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// By a client that puts each frame in a message of its own.
    Frames,
    /// By one that puts as many in a message as the server takes.
    Packed,
    Sealed,
}

const WAYS: [Way; 3] = [Way::Frames, Way::Packed, Way::Sealed];

impl Way {
    fn client(self) -> &'static str {
        match self {
            Self::Packed => "packed",
            Self::Frames | Self::Sealed => "frames",
        }
    }
}

/// Publishing, reading and following; seconds on the wall and of CPU in each round.
#[derive(Default)]
struct Job {
    wall: Vec<f64>,
    cpu: Vec<f64>,
    memory: f64,
}

impl Job {
    fn note(&mut self, took: &Took) {
        self.wall.push(took.wall.as_secs_f64());
        self.cpu.push(took.cpu.as_secs_f64());
        self.memory = self.memory.max(took.memory);
    }

    fn row(&self, page: &mut Page, name: &str, baseline: &Self, megabytes: f64) {
        let rate = self.wall.iter().map(|seconds| megabytes / seconds);
        page.row(&[
            &name,
            &Spread::of(self.wall.clone()),
            &Spread::of(rate.collect()),
            &ratio(&baseline.wall, &self.wall),
            &Spread::of(self.cpu.clone()),
            &format_args!("{:.0}", self.memory),
        ]);
    }
}

/// What is measured on one server.
#[derive(Default)]
struct Jobs {
    publish: [Job; WAYS.len()],
    read: [Job; WAYS.len()],
    follow: [Job; WAYS.len()],
}

pub(crate) fn measure(page: &mut Page, floors: &mut Floors, scale: Scale) -> anyhow::Result<()> {
    for broker in BROKERS {
        let mut jobs = Jobs::default();
        for number in 0..scale.long_rounds {
            round(broker, scale, number, &mut jobs)?;
        }
        tell(page, floors, broker, lines(scale), &jobs);
    }
    Ok(())
}

fn lines(scale: Scale) -> u64 {
    scale.lines / 2
}

/// All do everything, each with a server of its own; another one is first in every round.
fn round(broker: Broker, scale: Scale, number: usize, jobs: &mut Jobs) -> anyhow::Result<()> {
    let lines = lines(scale);
    for turn in 0..WAYS.len() {
        let turn = (turn + number) % WAYS.len();
        let way = WAYS[turn];
        let server = Running::start(broker);
        let scene = Scene::set(Some(&server.bus()), lines, LINE, scale.is_glance)?;
        let contestant = Contestant {
            broker,
            server,
            scene,
            lines,
            way,
        };
        jobs.publish[turn].note(&contestant.publish()?);
        jobs.read[turn].note(&contestant.read()?);
        let server = Running::start(broker);
        let scene = Scene::set(Some(&server.bus()), lines, LINE, scale.is_glance)?;
        let contestant = Contestant {
            server,
            scene,
            ..contestant
        };
        jobs.follow[turn].note(&contestant.follow()?);
    }
    Ok(())
}

/// One way of publishing and reading on a server of its own.
struct Contestant {
    broker: Broker,
    server: Running,
    scene: Scene,
    lines: u64,
    way: Way,
}

impl Contestant {
    fn publish(&self) -> anyhow::Result<Took> {
        watch(self.publishing(), self.scene.lines()?)
    }

    fn read(&self) -> anyhow::Result<Took> {
        let reading = match self.way {
            Way::Sealed => self.scene.command("bob", &["read", "kitchen"]),
            Way::Frames | Way::Packed => self.client("read"),
        };
        self.all(watch(reading, Stdio::null())?)
    }

    /// Publishes while another process follows: from the first line on its way in to the last one
    /// out.
    fn follow(&self) -> anyhow::Result<Took> {
        let following = match self.way {
            Way::Sealed => {
                let count = self.lines.to_string();
                let arguments = ["sub", "kitchen", "--from", "start", "--count", &count];
                self.scene.command("bob", &arguments)
            }
            Way::Frames | Way::Packed => self.client("read"),
        };
        let following = thread::spawn(move || watch(following, Stdio::null()));
        thread::sleep(SETTLE);
        let begun = Instant::now();
        self.publish()?;
        let followed = following.join();
        let mut took = followed.map_err(|_| anyhow::anyhow!("following failed"))??;
        took.wall = begun.elapsed();
        self.all(took)
    }

    fn all(&self, took: Took) -> anyhow::Result<Took> {
        let expected = self.lines * (LINE as u64 + 1);
        ensure!(took.stdout == expected, "{} bytes came", took.stdout);
        Ok(took)
    }

    fn publishing(&self) -> Command {
        match self.way {
            Way::Sealed => self.scene.command("alice", &["pub", "kitchen", "-l"]),
            Way::Frames | Way::Packed => self.client("publish"),
        }
    }

    /// This program as a client that seals nothing. It opens a home, too, as everybody does.
    fn client(&self, what: &str) -> Command {
        let home = if what == "publish" { "alice" } else { "bob" };
        let mut command = Command::new(std::env::current_exe().unwrap_or_default());
        command.args([CLIENT, what, self.broker.word(), &self.server.url()]);
        command.args([self.way.client(), &self.lines.to_string()]);
        command.args([home, "passphrase"].map(|name| self.scene.path(name)));
        command
    }
}

fn tell(page: &mut Page, floors: &mut Floors, broker: Broker, lines: u64, jobs: &Jobs) {
    let name = broker.name();
    page.heading(&format!(
        "The program on {name}: {lines} lines of {LINE} bytes"
    ));
    page.head(&[
        "all lines",
        "s on the wall",
        "MB a second",
        "times the rate",
        "CPU s",
        "resident MiB at most",
    ]);
    let megabytes = lines as f64 * LINE as f64 / 1e6;
    for (what, does, jobs) in [
        ("`pub -l`", "publishes", &jobs.publish),
        ("`read`", "reads", &jobs.read),
        ("`pub -l` and `sub` at once", "does both", &jobs.follow),
    ] {
        let [frames, packed, sealed] = jobs;
        let client = |how: &str| format!("a client {does} in clear, {how}");
        frames.row(page, &client("a frame a message"), frames, megabytes);
        packed.row(page, &client("frames packed"), frames, megabytes);
        sealed.row(page, what, frames, megabytes);
        let measured = ratio(&frames.wall, &sealed.wall).median;
        floors.at_least(
            &format!("{what} on {name}, rate beside clear"),
            RATE_MIN,
            measured,
        );
    }
    page.paragraph(&format!(
        "The client in clear is the library that the project of {name} offers, with the same frames of \
         64 KiB, each in a message, or as many in one as the server takes; up to {WAITING_MAX} are on \
         their way, and each message is acknowledged as those of sealcast are. What is promised is \
         promised beside the first. The client opens the same home, reads the same lines and \
         prints them. All share this machine's cores with the server, which starts afresh for each. \
         CPU and memory are those of the client, and of the follower where there are two."
    ));
}

/// Does what the arguments say, and seals nothing: what, where, how many lines, and a home to be
/// opened.
pub(crate) async fn client(arguments: &[String]) -> anyhow::Result<()> {
    let [what, broker, url, how, lines, home, passphrase] = arguments else {
        bail!("seven words are needed");
    };
    let is_packed = how == Way::Packed.client();
    crate::program::open_home(home.as_ref(), passphrase.as_ref()).await?;
    let is_it = |of: &Broker| of.word() == broker.as_str();
    let broker = BROKERS.into_iter().find(is_it).context("no such broker")?;
    match (broker, what.as_str()) {
        (Broker::Nats | Broker::NatsSyncing, "publish") => {
            let mut publisher = nats::Publisher::open(url, is_packed).await?;
            let mut lines = Framing::of_stdin();
            while let Some(batch) = lines.next()? {
                publisher.send(&batch).await?;
            }
            publisher.finish().await
        }
        (Broker::Nats | Broker::NatsSyncing, _) => {
            let mut reader = nats::Reader::open(url).await?;
            let (mut left, mut out) = (lines.parse::<u64>()?, Printing::new()?);
            while left > 0 {
                for frame in reader.next().await?.frames() {
                    left = left.saturating_sub(out.print(frame)?);
                }
            }
            out.finish()
        }
    }
}

/// Frames in messages of at most so many bytes, each behind its length.
fn packed(batch: &[Vec<u8>], message_max: usize) -> Vec<Vec<u8>> {
    let mut messages: Vec<Vec<u8>> = Vec::new();
    for frame in batch {
        let needed = frame.len() + 4;
        let message = match messages.last_mut() {
            Some(last) if last.len() + needed <= message_max => last,
            _ => {
                messages.push(Vec::with_capacity(message_max));
                match messages.last_mut() {
                    Some(last) => last,
                    None => continue,
                }
            }
        };
        message.extend((frame.len() as u32).to_be_bytes());
        message.extend(frame);
    }
    messages
}

/// A message that came.
struct Taking(Vec<u8>);

impl Taking {
    fn frames(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.0.as_slice();
        std::iter::from_fn(move || {
            let (length, behind) = rest.split_first_chunk()?;
            let (frame, behind) = behind.split_at_checked(u32::from_be_bytes(*length) as usize)?;
            rest = behind;
            Some(frame)
        })
    }
}

//! The real program on real servers, beside a client of each that seals nothing.

mod amqp;
mod clear;
mod delay;
mod library;
mod link;
pub(crate) mod mqtt;
mod nats;
mod postgres;
mod round;

use anyhow::Context as _;
use sealcast_brokers::mosquitto::Server as MosquittoServer;
use sealcast_brokers::nats::Server as NatsServer;
use sealcast_brokers::postgres::Server as PostgresServer;
use sealcast_brokers::rabbitmq::Server as RabbitmqServer;

pub(crate) use clear::{CLIENT, EACH, client, publish_each};
pub(crate) use delay::measure as measure_delay;

use crate::contest::Spread;
use crate::floors::Floors;
use crate::program::ratio;
use crate::report::Page;
use crate::scale::Scale;
use crate::scene::{Scene, Took};
use link::Link;
use round::Contestant;

/// Bytes of a line, its newline left out.
const LINE: usize = 256;
/// Messages of a client that are on their way at once, about.
const WAITING_MAX: usize = 64;
/// Messages on their way at once where each line travels by itself.
const EACH_WAITING_MAX: usize = 1_000;
/// Of the rate of the client alone, over a link.
const RATE_MIN: f64 = 0.85;
/// The same where each line travels by itself.
const EACH_RATE_MIN: f64 = 0.7;

/// A kind of server.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Broker {
    Nats,
    /// One that acknowledges what is on the disk.
    NatsSyncing,
    Postgres,
    Rabbitmq,
    Mosquitto,
}

const BROKERS: [Broker; 5] = [
    Broker::Nats,
    Broker::NatsSyncing,
    Broker::Postgres,
    Broker::Rabbitmq,
    Broker::Mosquitto,
];

/// Those that are compared over a link.
const LINKED: [Broker; 4] = [
    Broker::Nats,
    Broker::Postgres,
    Broker::Rabbitmq,
    Broker::Mosquitto,
];

impl Broker {
    fn name(self) -> &'static str {
        match self {
            Self::Nats => "NATS",
            Self::NatsSyncing => "NATS that syncs always",
            Self::Postgres => "PostgreSQL",
            Self::Rabbitmq => "RabbitMQ",
            Self::Mosquitto => "mosquitto",
        }
    }

    /// The word that stands for it on a command line.
    fn word(self) -> &'static str {
        match self {
            Self::Nats => "nats",
            Self::NatsSyncing => "nats-syncing",
            Self::Postgres => "postgres",
            Self::Rabbitmq => "rabbitmq",
            Self::Mosquitto => "mosquitto",
        }
    }

    fn of(word: &str) -> anyhow::Result<Self> {
        let broker = BROKERS.into_iter().find(|of| of.word() == word);
        broker.with_context(|| format!("no server `{word}`"))
    }

    /// What is compared on it; the first is the baseline.
    fn ways(self) -> &'static [Way] {
        match self {
            Self::Nats | Self::NatsSyncing => &[Way::Frames, Way::Packed, Way::Sealed],
            Self::Postgres | Self::Rabbitmq | Self::Mosquitto => &[Way::Frames, Way::Sealed],
        }
    }

    /// Whether it has what passed before anybody followed. One that has not keeps it for sessions that have begun.
    fn has_past(self) -> bool {
        self != Self::Mosquitto
    }

    /// How the client in clear does it.
    fn says(self) -> &'static str {
        match self {
            Self::Nats | Self::NatsSyncing => {
                "The server is of version 2.15; Debian's 2.9 takes longer over a large append. The client in \
                 clear is the library that the project of NATS offers: each frame of 64 KiB in a message, \
                 or as many in one as the server takes, with up to 64 frames on their way."
            }
            Self::Postgres => {
                "The client in clear is the driver alone: the frames of 1 MiB are the rows of one \
                 statement, three statements are on their way at once, and rows are read as they come \
                 of one query."
            }
            Self::Rabbitmq => {
                "The client in clear is the client of AMQP alone, on a stream queue: each frame of 64 \
                 KiB in a persistent message with a confirm, with up to 64 on their way."
            }
            Self::Mosquitto => {
                "The client in clear is a socket and no more: each frame of 64 KiB in a message of QoS \
                 1, with up to 64 on their way. It keeps nothing, while a home keeps what it publishes \
                 and what comes in its mirror, on the disk."
            }
        }
    }
}

/// A server that runs.
enum Running {
    Nats(NatsServer),
    Postgres(PostgresServer),
    Rabbitmq(RabbitmqServer),
    Mosquitto(MosquittoServer),
}

impl Running {
    fn start(broker: Broker) -> Self {
        match broker {
            Broker::Nats => Self::Nats(NatsServer::start_newer()),
            Broker::NatsSyncing => Self::Nats(NatsServer::start_syncing("")),
            Broker::Postgres => Self::Postgres(PostgresServer::start()),
            Broker::Rabbitmq => Self::Rabbitmq(RabbitmqServer::start()),
            Broker::Mosquitto => Self::Mosquitto(MosquittoServer::start()),
        }
    }

    fn bus(&self, name: &str) -> String {
        match self {
            Self::Nats(server) => server.url(name),
            Self::Postgres(server) => server.url(name),
            Self::Rabbitmq(server) => server.url(name),
            Self::Mosquitto(server) => server.url(name),
        }
    }

    /// Where a client in clear finds it, and under which name it keeps its messages.
    fn place(&self, name: &str) -> Place {
        let url = match self {
            Self::Nats(server) => format!("nats://127.0.0.1:{}", server.port()),
            Self::Postgres(server) => {
                format!("postgres://127.0.0.1:{}/postgres", server.port())
            }
            Self::Rabbitmq(server) => format!("amqp://guest:guest@127.0.0.1:{}/%2f", server.port()),
            Self::Mosquitto(server) => format!("127.0.0.1:{}", server.port()),
        };
        let name = format!("clear_{name}");
        Place { url, name }
    }
}

/// Where a client in clear has its messages.
struct Place {
    url: String,
    name: String,
}

/// How something is published and read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// By a client that puts each frame in a message of its own.
    Frames,
    /// By one that puts as many in a message as the server takes.
    Packed,
    Sealed,
    /// By one that puts each line in a message of its own.
    Each,
    /// The same by a library, as it comes.
    EachByLibrary,
    SealedEach,
}

impl Way {
    const ALL: [Self; 6] = [
        Self::Frames,
        Self::Packed,
        Self::Sealed,
        Self::Each,
        Self::EachByLibrary,
        Self::SealedEach,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::Frames => "frames",
            Self::Packed => "packed",
            Self::Sealed => "sealed",
            Self::Each => "each",
            Self::EachByLibrary => "each-by-library",
            Self::SealedEach => "sealed-each",
        }
    }

    /// Messages on their way at once, about.
    fn waiting_max(self) -> usize {
        match self {
            Self::Each | Self::EachByLibrary | Self::SealedEach => EACH_WAITING_MAX,
            Self::Frames | Self::Packed | Self::Sealed => WAITING_MAX,
        }
    }

    /// What the URL of the bus says besides.
    fn query(self) -> &'static str {
        match self {
            Self::SealedEach => "?topics=plant/#",
            Self::Frames | Self::Packed | Self::Sealed | Self::Each | Self::EachByLibrary => "",
        }
    }

    fn is_sealed(self) -> bool {
        matches!(self, Self::Sealed | Self::SealedEach)
    }
}

/// Publishing, reading or following; seconds on the wall and of CPU in each round.
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

    fn row(&self, page: &mut Page, name: &str, baseline: &Self, lines: u64) {
        let megabytes = lines as f64 * LINE as f64 / 1e6;
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

/// What one way took.
#[derive(Default)]
struct Jobs {
    publish: Job,
    read: Job,
    follow: Job,
}

impl Jobs {
    /// Says what the last round took.
    fn tell(&self, what: &str) {
        let last = |of: &Job| {
            of.wall
                .last()
                .map_or_else(|| "-".to_owned(), |s| format!("{s:.2} s"))
        };
        let [publish, read, follow] = [&self.publish, &self.read, &self.follow].map(last);
        crate::tell(&format!(
            "{what}: publishing {publish}, reading {read}, both {follow}"
        ));
    }
}

/// Whole frames on the server with this word.
pub(crate) fn measure(word: &str, page: &mut Page, scale: Scale) -> anyhow::Result<()> {
    let broker = Broker::of(word)?;
    let lines = scale.lines / 2;
    let jobs = contest(broker, broker.ways(), lines, scale)?;
    page.heading(&format!(
        "The program on {}: {lines} lines of {LINE} bytes",
        broker.name()
    ));
    page.head(&COLUMNS);
    compare(page, "", broker.ways(), lines, &jobs);
    page.paragraph(&format!(
        "{} Each message is acknowledged as those of sealcast are. The client opens the same home, reads \
         the same lines and prints them. All share this machine's cores with the server, which starts \
         afresh in each round. CPU and memory are those of the client, and of the follower where there \
         are two.",
        broker.says()
    ));
    Ok(())
}

/// Whole frames on all servers, or on the one with a word, over a link as there is between machines.
pub(crate) fn measure_linked(
    page: &mut Page,
    floors: &mut Floors,
    scale: Scale,
    word: Option<&str>,
) -> anyhow::Result<()> {
    let lines = scale.lines;
    let link = (!scale.is_glance).then(Link::lay).transpose()?;
    page.heading(&format!(
        "Over a link of {}: {lines} lines of {LINE} bytes",
        link::SAYS
    ));
    page.head(&COLUMNS);
    let ways = [Way::Frames, Way::Sealed];
    for broker in LINKED
        .into_iter()
        .filter(|of| word.is_none_or(|word| word == of.word()))
    {
        let contest = || contest(broker, &ways, lines, scale);
        let jobs = link
            .as_ref()
            .map_or_else(contest, |link| link.on(contest))?;
        let name = broker.name();
        for (what, rate) in compare(page, &format!("{name}: "), &ways, lines, &jobs) {
            if what != AT_ONCE {
                let promise = format!("{what} on {name} over a link, rate beside clear");
                floors.at_least(&promise, RATE_MIN, rate);
            }
        }
    }
    page.paragraph(
        "The clients of the sections above and the same servers, with the link between them, which \
         carries so much in each direction at once. They still share this machine's cores, but neither \
         can hand the other 500 MB a second, as between two processes of one machine. Where both are at once, \
         three processes and the server share two cores, and with RabbitMQ and mosquitto these are busy: that is \
         shown and not promised. mosquitto stores nothing: what is read by itself there is what it has kept for the \
         session of the home, or of the client, that was not connected meanwhile.",
    );
    Ok(())
}

/// Each message by itself, where it costs most.
pub(crate) fn measure_each(
    page: &mut Page,
    floors: &mut Floors,
    scale: Scale,
) -> anyhow::Result<()> {
    let (broker, lines) = (Broker::Mosquitto, scale.lines / 5);
    let ways = [Way::EachByLibrary, Way::Each, Way::SealedEach];
    let jobs = contest(broker, &ways, lines, scale)?;
    tell_each(page, floors, broker, lines, &jobs);
    Ok(())
}

/// All ways do everything in every round, on a server that starts afresh for it; another one is first
/// each time.
fn contest(broker: Broker, ways: &[Way], lines: u64, scale: Scale) -> anyhow::Result<Vec<Jobs>> {
    let mut jobs: Vec<_> = ways.iter().map(|_| Jobs::default()).collect();
    for number in 0..scale.long_rounds {
        let server = Running::start(broker);
        for turn in 0..ways.len() {
            let turn = (turn + number) % ways.len();
            let (way, jobs) = (ways[turn], &mut jobs[turn]);
            let contestant = |name: &str| {
                let name = format!("{name}{turn}");
                let bus = server.bus(&name) + way.query();
                let scene = Scene::set(Some(&bus), lines, LINE, scale.is_glance)?;
                Ok::<_, anyhow::Error>(Contestant {
                    broker,
                    place: server.place(&name),
                    scene,
                    lines,
                    way,
                })
            };
            {
                let contestant = contestant("past")?;
                contestant.subscribe()?;
                jobs.publish.note(&contestant.publish()?);
                jobs.read.note(&contestant.read()?);
            }
            jobs.follow.note(&contestant("live")?.follow()?);
            jobs.tell(&format!(
                "{}, round {number}, {}",
                broker.name(),
                way.word()
            ));
        }
    }
    Ok(jobs)
}

/// What is measured last of all.
const AT_ONCE: &str = "`pub -l` and `sub` at once";

const COLUMNS: [&str; 6] = [
    "all lines",
    "s on the wall",
    "MB a second",
    "times the rate",
    "CPU s",
    "resident MiB at most",
];

/// Writes what all took down, and returns what sealing did at which part of the rate of the first.
fn compare(
    page: &mut Page,
    before: &str,
    ways: &[Way],
    lines: u64,
    jobs: &[Jobs],
) -> Vec<(&'static str, f64)> {
    type Pick = fn(&Jobs) -> &Job;
    let kinds: [(&str, &str, Pick); 3] = [
        ("`pub -l`", "publishes", |of| &of.publish),
        ("`sub` of what is stored", "reads", |of| &of.read),
        (AT_ONCE, "does both", |of| &of.follow),
    ];
    let mut rates = Vec::new();
    for (what, does, pick) in kinds {
        let Some(baseline) = jobs.first().map(pick).filter(|of| !of.wall.is_empty()) else {
            continue;
        };
        for (way, of) in ways.iter().zip(jobs) {
            let name = match way {
                Way::Packed => format!("a client {does} in clear, frames packed"),
                Way::Sealed => what.to_owned(),
                Way::Frames | Way::Each | Way::EachByLibrary | Way::SealedEach => {
                    format!("a client {does} in clear, a frame a message")
                }
            };
            pick(of).row(page, &format!("{before}{name}"), baseline, lines);
        }
        if let Some(sealed) = jobs.last() {
            rates.push((what, ratio(&baseline.wall, &pick(sealed).wall).median));
        }
    }
    rates
}

fn tell_each(page: &mut Page, floors: &mut Floors, broker: Broker, lines: u64, jobs: &[Jobs]) {
    let name = broker.name();
    page.heading(&format!(
        "Each by itself on {name}: {lines} messages of {LINE} bytes"
    ));
    page.head(&COLUMNS);
    let [library, socket, sealed] = jobs else {
        return;
    };
    type Pick = fn(&Jobs) -> &Job;
    let kinds: [(&str, Pick); 3] = [
        ("publishing", |of| &of.publish),
        ("reading what was kept", |of| &of.read),
        ("publishing and following at once", |of| &of.follow),
    ];
    for (what, pick) in kinds {
        let by = [("a library", library), ("a socket", socket)];
        for (by, clear) in by {
            pick(clear).row(
                page,
                &format!("{what} in clear by {by}"),
                pick(library),
                lines,
            );
        }
        pick(sealed).row(page, &format!("{what}, sealed"), pick(library), lines);
    }
    let measured = ratio(&library.publish.wall, &sealed.publish.wall).median;
    let promise = format!("publishing each by itself on {name}, rate beside a library in clear");
    floors.at_least(&promise, EACH_RATE_MIN, measured);
    page.paragraph(&format!(
        "Each message is in a PUBLISH of its own, with up to {EACH_WAITING_MAX} on their way. The library is \
         rumqttc as it comes, which writes a message when it is handed one; the socket is the client of the \
         section above, which knows nothing but this job and writes all that it has at once: as fast as this \
         server can be fed. Sealed, a message is an envelope that the library's `publish_on` seals, on a topic of \
         the users' own; those that are sealed at the same time share a signature, and all are kept on the \
         disk until the server has them, and in the mirror."
    ));
}

/// Frames in messages of at most so many bytes, each behind its length.
fn packed(batch: &[Vec<u8>], message_max: usize) -> Vec<Vec<u8>> {
    let mut messages: Vec<Vec<u8>> = Vec::new();
    for frame in batch {
        let needed = frame.len() + 4;
        let message = match messages.last_mut() {
            Some(last) if last.len() + needed <= message_max => last,
            _ => {
                messages.push(Vec::with_capacity(message_max.max(needed)));
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

//! Measures what sealing, granting and carrying cost, beside baselines of the same run, writes
//! `RESULTS.md` and `results.svg`, and fails when something is slower or larger than promised. Each
//! section is shown as soon as it is measured; how far the longer ones are is told on standard error.
//!
//! `flood N` sends so many messages through NATS instead, checks that all arrive, and writes `FLOOD.md`. `crowd SECONDS` has a thousand MQTT
//! clients publish through one proxy, and writes `CROWD.md`.
//! `--help` says how it is called. With names of sections as arguments it measures and prints these alone, and writes nothing. With
//! `--glance` it does next to nothing of everything: figures mean nothing then, and none can fail.

mod brokers;
mod clear;
mod clock;
mod contest;
mod crowd;
mod flood;
mod floors;
mod grants;
mod keynodes;
mod lane;
mod latency;
mod megolm;
mod messages;
mod pipeline;
mod plot;
mod program;
mod report;
mod scale;
mod scene;
mod stage;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use floors::Floors;
use latency::Tail;
use report::Page;
use scale::Scale;
use tokio::runtime::Runtime;

const COMMAND: &str = "cargo run --release -p sealcast-bench";
const RESULTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/RESULTS.md");
const PICTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/results.svg");
/// The argument for next to nothing.
pub(crate) const GLANCE: &str = "--glance";
/// And before how many rounds there are to be of what takes seconds.
const ROUNDS: &str = "--rounds";

const HELP: &str = "--help";

/// Each section by the name that picks it.
const SECTIONS: &[&str] = &[
    "singles",
    "frames",
    "large",
    "sizes",
    "bundles",
    "grants",
    "keynodes",
    "program",
    "nats",
    "nats-syncing",
    "postgres",
    "rabbitmq",
    "mosquitto",
    "linked",
    "each",
    "delay",
    "pipeline",
    "latency",
    "memory",
];
/// Parts of the section `linked`, which has them all.
const LINKED: &[&str] = &[
    "linked-nats",
    "linked-postgres",
    "linked-rabbitmq",
    "linked-mosquitto",
];

fn main() -> anyhow::Result<ExitCode> {
    let mut picked: Vec<String> = std::env::args().skip(1).collect();
    let is_glance = picked.iter().any(|name| name == GLANCE);
    picked.retain(|name| name != GLANCE);
    let mut scale = match is_glance {
        true => Scale::GLANCE,
        false => Scale::WHOLE,
    };
    if let Some(at) = picked.iter().position(|name| name == ROUNDS) {
        let rounds: Vec<String> = picked.drain(at..picked.len().min(at + 2)).collect();
        let count = rounds.get(1).map_or("", String::as_str);
        scale.long_rounds = count.parse().context("how many rounds?")?;
    }
    let runtime = Runtime::new()?;
    match picked.as_slice() {
        [name] if name == pipeline::CHILD => {
            show(&runtime.block_on(pipeline::measure_memory(scale))?);
            Ok(ExitCode::SUCCESS)
        }
        [name, home, passphrase, bus] if name == program::CLEAR_PUBLISH => {
            let paths = [home, passphrase, bus].map(Path::new);
            runtime.block_on(program::clear_publish(paths))?;
            Ok(ExitCode::SUCCESS)
        }
        [name, home, passphrase, bus] if name == program::CLEAR_READ => {
            let paths = [home, passphrase, bus].map(Path::new);
            runtime.block_on(program::clear_read(paths))?;
            Ok(ExitCode::SUCCESS)
        }
        [name, messages] if name == flood::FLOOD => {
            show(&flood::run(messages.parse()?)?);
            Ok(ExitCode::SUCCESS)
        }
        [name, seconds] if name == crowd::CROWD => {
            show(&crowd::run(&runtime, seconds.parse()?)?);
            Ok(ExitCode::SUCCESS)
        }
        [name, arguments @ ..] if name == brokers::CLIENT => {
            runtime.block_on(brokers::client(arguments))?;
            Ok(ExitCode::SUCCESS)
        }
        [name, home, passphrase] if name == brokers::EACH => {
            let paths = [home, passphrase].map(Path::new);
            runtime.block_on(brokers::publish_each(paths[0], paths[1]))?;
            Ok(ExitCode::SUCCESS)
        }
        [name] if name == HELP => {
            show(&help());
            Ok(ExitCode::SUCCESS)
        }
        _ => measure(&runtime, &picked, scale),
    }
}

fn measure(runtime: &Runtime, picked: &[String], scale: Scale) -> anyhow::Result<ExitCode> {
    let is_known = |name: &&String| {
        let name = name.as_str();
        SECTIONS.contains(&name) || LINKED.contains(&name)
    };
    if let Some(other) = picked.iter().find(|name| !is_known(name)) {
        let sections = [SECTIONS, LINKED].concat().join(" ");
        anyhow::bail!("no section `{other}`; there are: {sections}");
    }
    let all = match picked.is_empty() {
        true => SECTIONS.to_vec(),
        false => [SECTIONS, LINKED].concat(),
    };
    let mut head = Page::default();
    introduce(&mut head);
    show(head.text());
    let (mut body, mut floors, mut tails) = (String::new(), Floors::default(), Vec::new());
    for name in all
        .into_iter()
        .filter(|name| picked.is_empty() || picked.iter().any(|of| of == name))
    {
        let mut page = Page::default();
        tails.extend(section(runtime, name, &mut page, &mut floors, scale)?);
        show(page.text());
        body.push_str(page.text());
    }
    show(&floors.table());
    let is_whole = picked.is_empty() && scale.long_rounds == Scale::WHOLE.long_rounds;
    if is_whole && !scale.is_glance {
        head.paragraph("![What is promised and what was measured](results.svg)");
        fs::write(RESULTS, [head.text(), &floors.table(), &body].concat())?;
        fs::write(PICTURE, plot::svg(&floors, &tails))?;
    }
    Ok(match scale.is_glance || floors.all_hold() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn section(
    runtime: &Runtime,
    name: &str,
    page: &mut Page,
    floors: &mut Floors,
    scale: Scale,
) -> anyhow::Result<Vec<Tail>> {
    match name {
        "singles" => messages::singles(page, floors, scale)?,
        "frames" => messages::frames(page, floors, scale)?,
        "large" => messages::large_frames(page, floors, scale)?,
        "sizes" => messages::sizes(page, floors)?,
        "bundles" => grants::bundles(page, scale)?,
        "grants" => runtime.block_on(grants::through_client(page, floors, scale))?,
        "keynodes" => keynodes::measure(page, floors, scale)?,
        "program" => program::measure(page, floors, scale)?,
        "linked" => brokers::measure_linked(page, floors, scale, None)?,
        of if LINKED.contains(&of) => {
            let broker = of.strip_prefix("linked-");
            brokers::measure_linked(page, floors, scale, broker)?;
        }
        "each" => brokers::measure_each(page, floors, scale)?,
        "delay" => runtime.block_on(brokers::measure_delay(page, scale))?,
        "pipeline" => runtime.block_on(pipeline::measure(page, scale))?,
        "latency" => return runtime.block_on(latency::measure(page, scale)),
        "memory" => pipeline::memory(page, scale)?,
        broker => brokers::measure(broker, page, scale)?,
    }
    Ok(Vec::new())
}

#[expect(
    clippy::print_stdout,
    reason = "a program for the terminal shows what it found"
)]
fn show(text: &str) {
    println!("{text}");
}

/// Says how far a section is that takes long.
#[expect(
    clippy::print_stderr,
    reason = "a program for the terminal says how far it is"
)]
pub(crate) fn tell(progress: &str) {
    eprintln!("{progress}");
}

fn help() -> String {
    format!(
        "{COMMAND}\n    measures everything, and writes `RESULTS.md` and `results.svg`\n\
         {COMMAND} -- SECTION...\n    measures these and prints them: {}\n    those named after a \
         server, `linked`, `each` and `delay` start NATS, PostgreSQL, RabbitMQ and mosquitto, which \
         `cargo xtask tools` installs; `linked` takes root and iproute2, and {} \
         are parts of it\n\
         {COMMAND} -- {GLANCE} [SECTION...]\n    does next to nothing of it; no figure means anything\n\
         {COMMAND} -- {ROUNDS} N [SECTION...]\n    has so many rounds of what takes seconds\n\
         {COMMAND} -- {} N\n    sends N messages through NATS and checks that all arrive\n\
         {COMMAND} -- {} SECONDS\n    has a thousand MQTT clients publish through one proxy, and without it",
        SECTIONS.join(" "),
        LINKED.join(" "),
        flood::FLOOD,
        crowd::CROWD
    )
}

fn introduce(page: &mut Page) {
    page.title("What it costs");
    report::provenance(page, COMMAND);
    page.paragraph(
        "Medians of CPU time, with the first and the last tenth of all rounds in brackets. Ratios \
         compare two contestants round by round; above 1 is faster than the baseline, unless a \
         column says otherwise. Times differ between machines and days, so quote ratios. Megolm and \
         Olm are those of vodozemac 0.11, from and to the bytes that travel.",
    );
}

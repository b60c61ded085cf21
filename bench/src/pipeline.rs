//! The whole way: records into a publisher, over the bus, out of a reader.

use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use sealcast::{Bound, Interval, Position, State};
use sealcast_bus::{Bus, FileBus, Offset, Topic};
use sealcast_protocol::StreamTopics;

use crate::GLANCE;
use crate::clock::{memory_mib, process_cpu};
use crate::contest::{Outcome, Spread};
use crate::report::Page;
use crate::scale::Scale;
use crate::stage::{Spent, Stage, stopwatch};

/// Frames in one append, and bytes in one read, as the client has them.
const APPEND_FRAMES: usize = 32;
const READ_BYTES: usize = 1 << 20;
/// How many seconds an idle subscription is watched.
const IDLE: f64 = 5.0;
/// The argument that makes this program measure its own memory.
pub(crate) const CHILD: &str = "measure-memory";

/// The same job in each round, by CPU time and on the wall.
struct Job {
    records: u64,
    cpu: Outcome,
    wall: Vec<f64>,
}

impl Job {
    fn new(name: &str, records: u64) -> Self {
        Self {
            records,
            cpu: Outcome::of(name),
            wall: Vec::new(),
        }
    }

    fn note(&mut self, spent: Spent) {
        self.cpu
            .nanos
            .push(spent.cpu.as_nanos() as f64 / self.records as f64);
        self.wall
            .push(self.records as f64 / spent.wall.as_secs_f64() / 1_000.0);
    }

    fn row(&self, page: &mut Page, baseline: &Self) {
        let rate = self.cpu.nanos.iter().map(|nanos| 1e6 / nanos);
        page.row(&[
            &self.cpu.name,
            &self.cpu.spread().over(1_000.0),
            &Spread::of(rate.collect()),
            &baseline.cpu.against(&self.cpu),
            &Spread::of(self.wall.clone()),
        ]);
    }
}

/// Publishing and reading, beside the same bytes on the bus without sealing.
pub(crate) async fn measure(page: &mut Page, scale: Scale) -> anyhow::Result<()> {
    page.heading(&format!(
        "The library's whole pipeline, {} records of 100 bytes",
        scale.records
    ));
    let mut jobs = [
        "bus alone, append",
        "publish",
        "bus alone, read",
        "read with a cover",
    ]
    .map(|name| Job::new(name, scale.records));
    for _ in 0..scale.long_rounds {
        round(&mut jobs, scale.records).await?;
    }
    let [append, publish, scan, read] = &jobs;
    page.head(&[
        "one record",
        "CPU µs",
        "thousands a second of CPU",
        "times the CPU of the bus alone",
        "thousands a second on the wall",
    ]);
    append.row(page, append);
    publish.row(page, append);
    scan.row(page, scan);
    read.row(page, scan);
    page.paragraph(
        "The bus alone carries the very same envelopes in the same batches. Publishing adds the \
         queue that records wait in, with its wake-ups, the store's transaction around every batch, \
         and filling and sealing frames; reading adds opening the frames and a delivery for each \
         record. Time on the wall depends on the disk, which every append waits for.",
    );
    Ok(())
}

async fn round(jobs: &mut [Job; 4], records: u64) -> anyhow::Result<()> {
    let [append, publish, scan, read] = jobs;
    let stage = Stage::set().await?;
    stage.grant(Bound::Now, Position::END).await?;
    stage.bob.sync().await?;
    let stop = stopwatch();
    let published = stage.publish(records).await?;
    publish.note(stop());
    anyhow::ensure!(published.records == records, "not all was published");

    let stop = stopwatch();
    let opened = read_all(&stage).await?;
    read.note(stop());
    anyhow::ensure!(opened == records, "{opened} records were opened");

    let bus = FileBus::open(stage.folder.path().join("bus")).await?;
    let sealed = read_bus(&bus, &StreamTopics(stage.alice.id()).data()).await?;
    let bare = FileBus::open(stage.folder.path().join("bare")).await?;
    let topic = Topic::new("bare")?;
    let stop = stopwatch();
    let mut envelopes = sealed.into_iter().peekable();
    while envelopes.peek().is_some() {
        let some = envelopes.by_ref().take(APPEND_FRAMES).collect();
        bare.append(&topic, some).await?;
    }
    append.note(stop());

    let stop = stopwatch();
    let there = read_bus(&bare, topic.as_ref()).await?;
    scan.note(stop());
    anyhow::ensure!(
        there.len() as u64 == published.envelopes,
        "envelopes are missing"
    );
    Ok(())
}

async fn read_all(stage: &Stage) -> anyhow::Result<u64> {
    let mut reader = stage.bob.read(Interval::ALL).await?;
    let mut opened = 0;
    while let Some(delivery) = reader.next().await? {
        opened += u64::from(delivery.state == State::Opened);
    }
    Ok(opened)
}

async fn read_bus(bus: &FileBus, topic: &str) -> anyhow::Result<Vec<Vec<u8>>> {
    let topic = Topic::new(topic)?;
    let (mut from, mut payloads) = (Offset(0), Vec::new());
    loop {
        let items = bus.read(&topic, from, READ_BYTES).await?;
        let Some(last) = items.last() else {
            return Ok(payloads);
        };
        from = Offset(last.offset.0 + 1);
        payloads.extend(items.into_iter().map(|item| item.payload));
    }
}

/// Memory and idling, of a process that does nothing else.
pub(crate) fn memory(page: &mut Page, scale: Scale) -> anyhow::Result<()> {
    let program = std::env::current_exe()?;
    let output = Command::new(program)
        .arg(CHILD)
        .args(scale.is_glance.then_some(GLANCE))
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let figures: Vec<&str> = text.split_whitespace().collect();
    let [before, publishing, reading, idle] = figures[..] else {
        anyhow::bail!(
            "measuring memory failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    page.heading("Memory, and an idle subscription");
    page.head(&["", "resident MiB at most"]);
    page.row(&[&"with two homes and the stream open", &before]);
    page.row(&[
        &format_args!("while publishing {} records", scale.records),
        &publishing,
    ]);
    page.row(&[&"while reading them", &reading]);
    page.paragraph(&format!(
        "A process of its own: Alice, Bob and the bus in one. What waits between record and bus, and \
         between bus and delivery, is bounded. A subscription on which nothing happens takes {idle} % \
         of one core.",
    ));
    Ok(())
}

/// What [`memory`] starts: prints its figures, separated by spaces.
pub(crate) async fn measure_memory(scale: Scale) -> anyhow::Result<String> {
    let stage = Stage::set().await?;
    stage.grant(Bound::Now, Position::END).await?;
    stage.bob.sync().await?;
    let before = memory_mib("VmRSS")?;
    stage.publish(scale.records).await?;
    let publishing = memory_mib("VmHWM")?;
    // The kernel forgets the peak, so that the next phase has one of its own.
    std::fs::write("/proc/self/clear_refs", "5")?;
    let opened = read_all(&stage).await?;
    anyhow::ensure!(opened == scale.records, "{opened} records were opened");
    let reading = memory_mib("VmHWM")?;
    let idle = idle_share(&stage, scale.seconds(IDLE)).await?;
    Ok(format!(
        "{before:.0} {publishing:.0} {reading:.0} {idle:.2}"
    ))
}

/// CPU time of a subscription that waits, in per cent of one core.
async fn idle_share(stage: &Stage, lasting: Duration) -> anyhow::Result<f64> {
    let mut subscription = stage.bob.subscribe(None).await?;
    let settle = tokio::time::timeout(Duration::from_millis(500), subscription.next()).await;
    anyhow::ensure!(settle.is_err(), "an idle stream brought something");
    let before = process_cpu();
    let waited = tokio::time::timeout(lasting, subscription.next()).await;
    let spent = process_cpu()
        .checked_sub(before)
        .context("the clock went back")?;
    anyhow::ensure!(waited.is_err(), "an idle stream brought something");
    Ok(spent.as_secs_f64() / lasting.as_secs_f64() * 100.0)
}

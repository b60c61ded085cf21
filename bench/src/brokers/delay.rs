//! How much later a message comes for being sealed.

use std::time::Duration;

use anyhow::Context as _;
use sealcast::{BusUrl, Clock};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::clear::{Publisher, Reader};
use super::{BROKERS, Broker, Place, Running, Way};
use crate::latency::{self, PATIENCE, Tail, record};
use crate::report::Page;
use crate::scale::Scale;
use crate::stage::Stage;

/// Messages a second, and for how many seconds.
const RATE: u32 = 1_000;
const SECONDS: f64 = 10.0;
/// How long a follower has to begin.
const SETTLE: Duration = Duration::from_millis(200);

pub(crate) async fn measure(page: &mut Page, scale: Scale) -> anyhow::Result<()> {
    page.heading("What sealing adds to the way of a message");
    page.head(&[
        "1,000 a second",
        "median ms",
        "99 of 100 ms",
        "added to the median",
        "added to the 99th",
    ]);
    let lasting = scale.seconds(SECONDS);
    // What is different about the others is in a glance at the sections above.
    let count = if scale.is_glance { 1 } else { BROKERS.len() };
    for broker in BROKERS.into_iter().take(count) {
        let server = tokio::task::spawn_blocking(move || Running::start(broker)).await?;
        let clear = in_clear(broker, &server.place("delay"), lasting).await?;
        row(page, broker, "in clear, each at once", &clear, None);
        for (way, name) in [
            (latency::Way::Single, "single"),
            (latency::Way::Framed, "framed"),
        ] {
            let bus = BusUrl::parse(&server.bus(name))?;
            let stage = Stage::set_by(Clock::system(), Some(bus)).await?;
            let sealed = latency::run(&stage, way, RATE, lasting).await?;
            let how = format!("sealed, {}", way.says());
            row(page, broker, &how, &sealed, Some(&clear));
        }
    }
    page.paragraph(
        "Wall time in one process, from the moment at which a message of 100 bytes was due, whether its \
         publisher was late or not, to its delivery. In clear it is the client of the section above. \
         Sealed, a message that leaves at once waits until its home's store is on the disk, and one \
         in a frame for up to 20 ms more.",
    );
    Ok(())
}

fn row(page: &mut Page, broker: Broker, how: &str, tail: &Tail, clear: Option<&Tail>) {
    let ms = |value: f64| format!("{value:.1}");
    let (name, median) = (broker.name(), ms(tail.median));
    crate::tell(&format!("{name}, {how}: median {median} ms"));
    let added = |own: f64, of: fn(&Tail) -> f64| {
        clear.map_or_else(String::new, |clear| ms(own - of(clear)))
    };
    page.row(&[
        &format_args!("{}, {how}", broker.name()),
        &ms(tail.median),
        &ms(tail.p99),
        &added(tail.median, |of| of.median),
        &added(tail.p99, |of| of.p99),
    ]);
}

/// The same without sealing.
async fn in_clear(broker: Broker, place: &Place, lasting: Duration) -> anyhow::Result<Tail> {
    let count = (lasting.as_secs_f64() * f64::from(RATE)).ceil().max(2.0) as u32;
    let mut publisher = Publisher::open(broker, place, Way::Each).await?;
    let mut reader = Reader::open(broker, place, Way::Each).await?;
    sleep(SETTLE).await;
    let begun = Instant::now();
    let due = move |number: u32| begun + Duration::from_secs(1) * number / RATE;
    let sending = tokio::spawn(async move {
        for number in 0..count {
            sleep_until(due(number)).await;
            publisher.send(vec![record(number).to_vec()]).await?;
        }
        publisher.finish().await
    });
    let mut latencies = Vec::new();
    while latencies.len() < count as usize {
        let message = timeout(PATIENCE, reader.next()).await??;
        for record in message.frames() {
            let number = record.first_chunk().context("a strange message came")?;
            let late = due(u32::from_le_bytes(*number)).elapsed();
            latencies.push(late.as_secs_f64() * 1_000.0);
        }
    }
    sending.await??;
    Ok(Tail::of(String::new(), latencies))
}

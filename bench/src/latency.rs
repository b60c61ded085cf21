//! How long a record takes from publishing to delivery, at arrival rates that do not wait for it.

use std::time::Duration;

use anyhow::Context as _;
use sealcast::{Bound, Position, State, Stream};
use tokio::time::{Instant, sleep_until, timeout};

use crate::report::Page;
use crate::scale::Scale;
use crate::stage::Stage;

/// Records a second, and for how many seconds.
const RATES: [(u32, f64); 3] = [(1, 30.0), (100, 12.0), (10_000, 6.0)];
/// What does not come within this is lost.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How records leave.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Each at once, in an envelope of its own.
    Single,
    /// In frames, as `pub -l` sends them.
    Framed,
}

impl Way {
    pub(crate) fn says(self) -> &'static str {
        match self {
            Self::Single => "each at once",
            Self::Framed => "in frames",
        }
    }
}

/// Latencies of one way at one rate, in milliseconds, ascending.
pub(crate) struct Tail {
    pub(crate) name: String,
    pub(crate) median: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
    count: usize,
}

impl Tail {
    pub(crate) fn of(name: String, mut latencies: Vec<f64>) -> Self {
        latencies.sort_unstable_by(f64::total_cmp);
        let count = latencies.len();
        let at = |percent: usize| {
            let index = (count * percent).div_ceil(100).saturating_sub(1);
            latencies.get(index).copied().unwrap_or(f64::NAN)
        };
        Self {
            name,
            median: at(50),
            p99: at(99),
            max: at(100),
            count,
        }
    }
}

pub(crate) async fn measure(page: &mut Page, scale: Scale) -> anyhow::Result<Vec<Tail>> {
    let mut tails = Vec::new();
    // At one a second nobody is in anybody's way.
    let (rate, seconds) = RATES[0];
    let (single, framed) = tokio::join!(
        run_on_file(Way::Single, rate, scale.seconds(seconds)),
        run_on_file(Way::Framed, rate, scale.seconds(seconds)),
    );
    tails.extend([single?, framed?]);
    for (rate, seconds) in RATES.into_iter().skip(1) {
        for way in [Way::Single, Way::Framed] {
            if way == Way::Framed || rate <= 100 {
                tails.push(run_on_file(way, rate, scale.seconds(seconds)).await?);
            }
        }
    }
    page.heading("From publishing to delivery on `file:`");
    page.head(&["", "records", "median ms", "99 of 100 ms", "longest ms"]);
    for tail in &tails {
        let ms = |value: f64| format!("{value:.1}");
        page.row(&[
            &tail.name,
            &tail.count,
            &ms(tail.median),
            &ms(tail.p99),
            &ms(tail.max),
        ]);
    }
    page.paragraph(
        "Wall time in one process, from the moment at which a record was due, whether its publisher \
         was late or not, to its delivery at another home's subscription. A single message waits for \
         two syncs of the disk, the store's and the bus's; one in a frame for up to 20 ms more. A \
         disk that others use too shows here.",
    );
    Ok(tails)
}

async fn run_on_file(way: Way, rate: u32, lasting: Duration) -> anyhow::Result<Tail> {
    run(&Stage::set().await?, way, rate, lasting).await
}

/// Publishes and follows on a stage where nothing was published.
pub(crate) async fn run(
    stage: &Stage,
    way: Way,
    rate: u32,
    lasting: Duration,
) -> anyhow::Result<Tail> {
    stage.grant(Bound::Now, Position::END).await?;
    stage.bob.sync().await?;
    let count = (lasting.as_secs_f64() * f64::from(rate)).ceil().max(2.0) as u32;
    let mut subscription = stage.bob.subscribe(None).await?;
    // The first message starts a session and shows that the subscription listens.
    stage.alice.publish(&[0; 8]).await?;
    timeout(PATIENCE, subscription.next()).await??;
    let begun = Instant::now();
    let due = move |number: u32| begun + Duration::from_secs(1) * number / rate;
    let sending = tokio::spawn(send(stage.alice.clone(), way, count, due));
    let mut latencies = Vec::new();
    while latencies.len() < count as usize {
        let delivery = timeout(PATIENCE, subscription.next()).await??;
        anyhow::ensure!(delivery.state == State::Opened, "{delivery:?}");
        let payload = delivery.payload.unwrap_or_default();
        let number = payload.first_chunk().context("a strange record came")?;
        let late = due(u32::from_le_bytes(*number)).elapsed();
        latencies.push(late.as_secs_f64() * 1_000.0);
    }
    sending.await??;
    let name = format!("{rate} a second, {}", way.says());
    Ok(Tail::of(name, latencies))
}

/// A record that says its number.
pub(crate) fn record(number: u32) -> [u8; 100] {
    let mut record = [42; 100];
    record[..4].copy_from_slice(&number.to_le_bytes());
    record
}

async fn send(
    stream: Stream,
    way: Way,
    count: u32,
    due: impl Fn(u32) -> Instant,
) -> anyhow::Result<()> {
    if way == Way::Framed {
        let mut publisher = stream.publisher().await?;
        for number in 0..count {
            sleep_until(due(number)).await;
            publisher.send(&record(number)).await?;
        }
        publisher.finish().await?;
        return Ok(());
    }
    // Each on a task of its own, so that a slow one does not hold up when the next one is sent.
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..count {
        sleep_until(due(number)).await;
        let stream = stream.clone();
        tasks.spawn(async move { stream.publish(&record(number)).await });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_hundred_latencies_the_99th_is_the_tail() {
        let tail = Tail::of(String::new(), (1..=100).rev().map(f64::from).collect());
        assert_eq!((tail.median, tail.p99, tail.max), (50.0, 99.0, 100.0));
        let one = Tail::of(String::new(), vec![7.0]);
        assert_eq!((one.median, one.p99, one.max), (7.0, 7.0, 7.0));
    }
}

//! The tests that every [`Bus`] runs against itself.
//!
//! ```no_run
//! # #[tokio::main]
//! # async fn main() {
//! use sealcast_bus::{FileBus, conformance};
//!
//! conformance::run(
//!     async || tempfile::tempdir().unwrap(),
//!     async |folder| FileBus::open(folder.path()).await.unwrap(),
//! )
//! .await;
//! # }
//! ```

mod appends;
mod in_turn;
mod listeners;
mod tails;
mod trims;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::{Bus, BusError, Item, Offset, Topic};

pub use in_turn::{Writing, appended_amid_faults, in_turn_amid_faults};

/// How long one case may take before it counts as hung.
const CASE_TIMEOUT: Duration = Duration::from_secs(300);
/// How long it waits for the next thing that is to come.
const NEXT_TIMEOUT: Duration = Duration::from_secs(120);

/// Runs every case, each on an empty bus of its own.
///
/// `fresh` makes a place for an empty bus, and `open` gives a handle of the bus at a place; it is
/// called several times for one place. Must run on a tokio runtime with time.
///
/// # Panics
///
/// Panics, naming the case, when the bus breaks the contract.
pub async fn run<P, B: Bus + 'static>(fresh: impl AsyncFn() -> P, open: impl AsyncFn(&P) -> B) {
    let suite = Suite { fresh, open };
    suite.case("unknown topic", appends::unknown_topic).await;
    suite
        .case("order and offsets", appends::order_and_offsets)
        .await;
    suite
        .case("append of nothing", appends::append_of_nothing)
        .await;
    suite.case("any bytes", appends::any_bytes).await;
    suite.case("all or nothing", appends::all_or_nothing).await;
    suite.case("topics apart", appends::topics_apart).await;
    suite.case("read bounds", appends::read_bounds).await;
    suite.case("two handles", appends::two_handles).await;
    suite
        .case("concurrent appends", appends::concurrent_appends)
        .await;
    suite.case("append at the end", appends::at_the_end).await;
    suite.in_turn().await;
    suite.case("tail before append", tails::before_append).await;
    suite.case("tail after append", tails::after_append).await;
    suite
        .case("tail of several topics", tails::several_topics)
        .await;
    suite.case("tail named twice", tails::named_twice).await;
    suite.case("tail in turns", tails::in_turns).await;
    suite.case("tail cancelled", tails::cancelled).await;
    suite.case("thousand topics", tails::thousand_topics).await;
    suite.case("payload limit", appends::payload_limit).await;
    suite.case("batch limit", appends::batch_limit).await;
    suite.trims().await;
    suite.ephemeral_topics().await;
}

struct Suite<F, O> {
    fresh: F,
    open: O,
}

impl<P, B: Bus + 'static, F: AsyncFn() -> P, O: AsyncFn(&P) -> B> Suite<F, O> {
    async fn in_turn(&self) {
        self.case("appends in turn", in_turn::in_order).await;
        self.case("behind one that fails", in_turn::behind_one_that_fails)
            .await;
        self.case("writers in turn", in_turn::several_writers).await;
        self.case("append amid turns", in_turn::amid_others).await;
    }

    async fn trims(&self) {
        self.case("trim", trims::trimmed).await;
        self.case("trim of all", trims::trimmed_whole).await;
        self.case("trims apart", trims::trims_apart).await;
        self.case("trim under a tail", trims::under_a_tail).await;
    }

    async fn ephemeral_topics(&self) {
        self.case("heard", listeners::heard).await;
        self.case("without history", listeners::without_history)
            .await;
        self.case("kinds apart", listeners::kinds_apart).await;
        self.case("listening to several topics", listeners::several_topics)
            .await;
        self.case("order of senders", listeners::order_of_senders)
            .await;
        self.case("late listener", listeners::late).await;
        self.case("listener cancelled", listeners::cancelled).await;
        self.case("listener beside a tail", listeners::beside_a_tail)
            .await;
        self.case("nobody listens", listeners::nobody).await;
        self.case("sent limit", listeners::sent_limit).await;
    }

    async fn case(&self, name: &str, case: impl AsyncFn(&Rig) -> Outcome) {
        let place = (self.fresh)().await;
        let rig = Rig {
            bus: Arc::new((self.open)(&place).await),
            other: Arc::new((self.open)(&place).await),
        };
        let failure = match timeout(CASE_TIMEOUT, case(&rig)).await {
            Ok(outcome) => outcome.err().map(|failure| failure.0),
            Err(_) => Some("hung".into()),
        };
        assert!(
            failure.is_none(),
            "bus conformance, case `{name}`: {}",
            failure.unwrap_or_default()
        );
    }
}

/// Two handles of one bus, empty at the start of a case.
struct Rig {
    bus: Arc<dyn Bus>,
    other: Arc<dyn Bus>,
}

type Outcome<T = ()> = Result<T, Failure>;

/// What the bus did wrong.
struct Failure(String);

impl From<BusError> for Failure {
    fn from(error: BusError) -> Self {
        Self(format!("unexpected error: {error:?}"))
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, expected: &T) -> Outcome {
    ensure(found == expected, || {
        format!("{what}: found {found:?}, expected {expected:?}")
    })
}

fn same_payloads(what: &str, found: &[Vec<u8>], expected: &[Vec<u8>]) -> Outcome {
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        ensure(found == expected, || {
            let (found, expected) = (shown(found), shown(expected));
            format!("{what}: at {index} found {found}, expected {expected}")
        })?;
    }
    same(what, &found.len(), &expected.len())
}

fn shown(payload: &[u8]) -> String {
    let start = payload.get(..40).unwrap_or(payload);
    format!("{} bytes `{}`", payload.len(), start.escape_ascii())
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Outcome {
    if holds {
        Ok(())
    } else {
        Err(Failure(otherwise()))
    }
}

/// Waits for what is to come next; says what has come where that does not.
async fn in_time<T>(
    coming: impl Future<Output = Result<T, BusError>>,
    has_come: impl FnOnce() -> String,
) -> Outcome<T> {
    match timeout(NEXT_TIMEOUT, coming).await {
        Ok(came) => Ok(came?),
        Err(_) => Err(Failure(format!("nothing more comes after {}", has_come()))),
    }
}

/// Takes what comes of tasks that write; the first that fails is the failure.
async fn joined<T: 'static>(
    writers: &mut JoinSet<Outcome<T>>,
    mut take: impl FnMut(T) -> Outcome,
) -> Outcome {
    while let Some(done) = writers.join_next().await {
        take(done.map_err(|error| Failure(error.to_string()))??)?;
    }
    Ok(())
}

/// Follows what is written meanwhile. Where writing fails, nothing is waited for any more.
async fn followed(
    writing: impl Future<Output = Outcome> + Send + 'static,
    following: impl Future<Output = Outcome>,
) -> Outcome {
    let mut writers = JoinSet::new();
    writers.spawn(writing);
    tokio::try_join!(joined(&mut writers, Ok), following).map(drop)
}

fn topic(name: &str) -> Outcome<Topic> {
    Topic::new(name).map_err(|error| Failure(error.to_string()))
}

/// Payloads `name 0`, `name 1`, …
fn numbered(name: &str, numbers: std::ops::Range<u64>) -> Vec<Vec<u8>> {
    numbers
        .map(|number| format!("{name} {number}").into_bytes())
        .collect()
}

/// Everything from `from` on; checks that offsets are dense.
async fn read_all(bus: &dyn Bus, topic: &Topic, from: u64) -> Outcome<Vec<Vec<u8>>> {
    let mut payloads = Vec::new();
    let mut next = Offset(from);
    loop {
        let items = bus.read(topic, next, 64 << 10).await?;
        if items.is_empty() {
            return Ok(payloads);
        }
        next = take(next, items, &mut payloads)?;
    }
}

/// Moves the payloads of items that must begin at `next`; returns what follows them.
fn take(mut next: Offset, items: Vec<Item>, payloads: &mut Vec<Vec<u8>>) -> Outcome<Offset> {
    for item in items {
        same("offset", &item.offset, &next)?;
        next.0 += 1;
        payloads.push(item.payload);
    }
    Ok(next)
}

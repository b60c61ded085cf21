use std::collections::BTreeMap;
use std::future;
use std::sync::Arc;
use std::time::Duration;

use sealcast_bus::{BusError, BusFuture, Item, Offset, Tail, Topic};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::ears::Ears;
use crate::log::Logs;
use crate::server::jittered;

/// Payload bytes of one batch, unless one item alone is larger.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// How often to look whether anything was stored that nobody told of.
const LOOK: Duration = Duration::from_secs(10);

/// By index of the topic, the furthest end that was told of.
type Hints = BTreeMap<usize, u64>;

/// Follows topics of a NATS bus.
#[derive(Debug)]
pub(crate) struct NatsTail {
    logs: Arc<Logs>,
    topics: Vec<Topic>,
    /// What each topic goes on with.
    positions: Vec<Offset>,
    /// Topics that may have items, and the end that they have at least.
    ready: BTreeMap<usize, u64>,
    /// The topic that is looked at first, so that each gets its turn.
    turn: usize,
    ears: Option<Ears<Hints>>,
    misses: watch::Receiver<u64>,
    look_at: Instant,
    /// The stream's last message at the last look.
    looked: Option<u64>,
}

impl NatsTail {
    pub(crate) fn new(logs: Arc<Logs>, topics: Vec<(Topic, Offset)>) -> Self {
        let mut positions = BTreeMap::new();
        for (topic, from) in topics {
            let position = positions.entry(topic).or_insert(from);
            *position = from.min(*position);
        }
        let (topics, positions): (Vec<_>, Vec<_>) = positions.into_iter().unzip();
        Self {
            misses: logs.server.misses(),
            ready: all(topics.len()),
            logs,
            topics,
            positions,
            turn: 0,
            ears: None,
            look_at: Instant::now() + jittered(LOOK),
            looked: None,
        }
    }

    async fn next_batch(&mut self) -> Result<(Topic, Vec<Item>), BusError> {
        if self.topics.is_empty() {
            return future::pending().await;
        }
        loop {
            self.listen().await?;
            self.take_hints();
            while let Some(index) = self.next_ready() {
                let (topic, from) = (&self.topics[index], self.positions[index]);
                let items = self.logs.read(topic, from, BATCH_BYTES_MAX).await?;
                if let Some(last) = items.last() {
                    let position = last.offset.0.saturating_add(1);
                    self.positions[index] = Offset(position);
                    self.turn = index + 1;
                    // Whoever adds more tells it.
                    self.ready.retain(|of, end| *of != index || *end > position);
                    return Ok((topic.clone(), items));
                }
                self.ready.remove(&index);
            }
            self.wait().await;
        }
    }

    /// Begins to listen, once. What is stored from now on is told.
    async fn listen(&mut self) -> Result<(), BusError> {
        if self.ears.is_some() {
            return Ok(());
        }
        let server = &self.logs.server;
        let subject = |topic: &Topic| server.subjects.new_end(topic);
        let ears = Ears::open(
            server,
            &self.topics,
            subject,
            |hints: &mut Hints, index, message| {
                let end = message
                    .payload
                    .first_chunk()
                    .map(|end| u64::from_be_bytes(*end));
                // Whoever tells nothing readable tells that there is something.
                let told = hints.entry(index).or_default();
                *told = end.unwrap_or(u64::MAX).max(*told);
            },
        );
        self.ears = Some(ears.await.map_err(|fault| server.fault(fault))?);
        Ok(())
    }

    fn take_hints(&mut self) {
        let Some(ears) = &self.ears else { return };
        let hints = std::mem::take(&mut *ears.kept());
        let news = hints.into_iter().filter(|(index, end)| {
            let position = self.positions.get(*index);
            position.is_some_and(|position| position.0 < *end)
        });
        for (index, end) in news {
            let known = self.ready.entry(index).or_insert(end);
            *known = end.max(*known);
        }
    }

    fn next_ready(&self) -> Option<usize> {
        let from_turn = self.ready.range(self.turn..).next();
        let (index, _) = from_turn.or(self.ready.first_key_value())?;
        Some(*index)
    }

    /// Returns when something was told, or may have been missed.
    async fn wait(&mut self) {
        let Some(ears) = &self.ears else { return };
        tokio::select! {
            () = ears.more() => return,
            missed = self.misses.changed() => {
                if missed.is_err() {
                    return future::pending().await;
                }
            }
            () = sleep_until(self.look_at) => {
                let last = self.logs.server.last_sequence().await;
                self.look_at = Instant::now() + jittered(LOOK);
                if last.is_some() && last == self.looked {
                    return;
                }
                self.looked = last;
            }
        }
        self.ready = all(self.topics.len());
    }
}

/// Topics of which nobody knows where they end.
fn all(count: usize) -> BTreeMap<usize, u64> {
    (0..count).map(|index| (index, u64::MAX)).collect()
}

impl Tail for NatsTail {
    fn next(&mut self) -> BusFuture<'_, (Topic, Vec<Item>)> {
        Box::pin(self.next_batch())
    }
}

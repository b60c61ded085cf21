use std::collections::{BTreeMap, BTreeSet};
use std::future;
use std::sync::Arc;
use std::time::Duration;

use sealcast_bus::{BusError, BusFuture, Item, Offset, Tail, Topic};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::Shared;
use crate::desks::jittered;
use crate::ears::Following;
use crate::log::{Ends, Read};

/// Payload bytes of one batch, unless one item alone is larger.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// How often to look whether anything was stored that nobody told of.
const LOOK: Duration = Duration::from_secs(10);

/// Follows topics of a PostgreSQL bus.
#[derive(Debug)]
pub(crate) struct PostgresTail {
    shared: Arc<Shared>,
    /// Sorted, each once.
    topics: Vec<Topic>,
    /// What each topic goes on with.
    positions: Vec<Offset>,
    /// Topics that may have items.
    ready: BTreeSet<usize>,
    /// The topic that is looked at first, so that each gets its turn.
    turn: usize,
    following: Option<Arc<Following>>,
    misses: watch::Receiver<u64>,
    /// Whether anything may have been stored that nobody told of.
    is_stale: bool,
    look_at: Instant,
}

impl PostgresTail {
    pub(crate) fn new(shared: Arc<Shared>, topics: Vec<(Topic, Offset)>) -> Self {
        let mut positions = BTreeMap::new();
        for (topic, from) in topics {
            let position = positions.entry(topic).or_insert(from);
            *position = from.min(*position);
        }
        let (topics, positions): (Vec<_>, Vec<_>) = positions.into_iter().unzip();
        Self {
            misses: shared.ears.misses(),
            shared,
            topics,
            positions,
            ready: BTreeSet::new(),
            turn: 0,
            following: None,
            is_stale: true,
            look_at: Instant::now() + jittered(LOOK),
        }
    }

    async fn next_batch(&mut self) -> Result<(Topic, Vec<Item>), BusError> {
        if self.topics.is_empty() {
            return future::pending().await;
        }
        loop {
            self.take_hints();
            self.look().await?;
            while let Some(index) = self.next_ready() {
                let read = Read {
                    topic: &self.topics[index],
                    from: self.positions[index],
                    bytes_max: BATCH_BYTES_MAX,
                };
                let items = self.shared.desks.call(&read).await?;
                if let Some(last) = items.last() {
                    self.positions[index] = Offset(last.offset.0.saturating_add(1));
                    self.turn = index + 1;
                    return Ok((self.topics[index].clone(), items));
                }
                self.ready.remove(&index);
            }
            self.wait().await;
        }
    }

    fn following(&mut self) -> &Arc<Following> {
        let (ears, topics) = (&self.shared.ears, &self.topics);
        self.following.get_or_insert_with(|| ears.follow(topics))
    }

    fn take_hints(&mut self) {
        let told = self.following().take_hints();
        self.take_ends(
            told.into_iter()
                .map(|(topic, end)| (topic, Offset(end)))
                .collect(),
        );
    }

    fn take_ends(&mut self, ends: Vec<(Topic, Offset)>) {
        for (topic, end) in ends {
            if let Ok(index) = self.topics.binary_search(&topic)
                && self.positions[index] < end
            {
                self.ready.insert(index);
            }
        }
    }

    /// Asks how all topics end, where that is not known.
    async fn look(&mut self) -> Result<(), BusError> {
        if !self.is_stale {
            return Ok(());
        }
        let ends = Ends {
            topics: &self.topics,
        };
        let ends = self.shared.desks.call(&ends).await?;
        self.is_stale = false;
        self.take_ends(ends);
        Ok(())
    }

    fn next_ready(&self) -> Option<usize> {
        let from_turn = self.ready.range(self.turn..).next();
        from_turn.or(self.ready.first()).copied()
    }

    /// Returns when something was told, or may have been missed.
    async fn wait(&mut self) {
        let following = Arc::clone(self.following());
        tokio::select! {
            () = following.more() => return,
            missed = self.misses.changed() => {
                if missed.is_err() {
                    return future::pending().await;
                }
            }
            () = sleep_until(self.look_at) => {}
        }
        self.look_at = Instant::now() + jittered(LOOK);
        self.is_stale = true;
    }
}

impl Tail for PostgresTail {
    fn next(&mut self) -> BusFuture<'_, (Topic, Vec<Item>)> {
        Box::pin(self.next_batch())
    }
}

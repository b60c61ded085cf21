use std::collections::BTreeSet;
use std::future;
use std::sync::Arc;
use std::time::Duration;

use sealcast_bus::{BusError, BusFuture, Item, Offset, Tail, Topic, each_once, jittered};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::Shared;
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
    /// The one thing that is asked at a time. It goes on when a call is given up, so that calls which are
    /// given up early come to its answer, too.
    asking: JoinSet<Answer>,
}

/// What comes of asking.
#[derive(Debug)]
enum Answer {
    Ends(Result<Vec<(Topic, Offset)>, BusError>),
    /// Of the topic with this index.
    Items(usize, Result<Vec<Item>, BusError>),
}

impl PostgresTail {
    pub(crate) fn new(shared: Arc<Shared>, topics: Vec<(Topic, Offset)>) -> Self {
        let (topics, positions): (Vec<_>, Vec<_>) = each_once(topics).into_iter().unzip();
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
            asking: JoinSet::new(),
        }
    }

    async fn next_batch(&mut self) -> Result<(Topic, Vec<Item>), BusError> {
        if self.topics.is_empty() {
            return future::pending().await;
        }
        loop {
            self.take_hints();
            if self.asking.is_empty() {
                self.ask();
            }
            let Some(answer) = self.asking.join_next().await else {
                self.wait().await;
                continue;
            };
            // It is not given up, and does not panic, as long as this is here.
            let answer = answer.map_err(|error| BusError::Backend(Box::new(error)))?;
            match answer {
                Answer::Ends(Ok(ends)) => self.take_ends(ends),
                Answer::Ends(Err(error)) => {
                    self.is_stale = true;
                    return Err(error);
                }
                Answer::Items(index, Ok(items)) => {
                    if let Some(last) = items.last() {
                        self.positions[index] = Offset(last.offset.0.saturating_add(1));
                        // There may be more.
                        self.ready.insert(index);
                        return Ok((self.topics[index].clone(), items));
                    }
                }
                Answer::Items(index, Err(error)) => {
                    self.ready.insert(index);
                    return Err(error);
                }
            }
        }
    }

    /// Asks how all topics end, where that is not known, or for the items of the next one that may have
    /// any. What is told from now on is newer than the answer.
    fn ask(&mut self) {
        let shared = Arc::clone(&self.shared);
        if std::mem::take(&mut self.is_stale) {
            let topics = self.topics.clone();
            self.asking.spawn(async move {
                let ends = shared.desks.call(&Ends { topics: &topics }).await;
                // One whose end cannot be is read, which says what is wrong.
                let known =
                    |(topic, end): (Topic, Result<_, _>)| (topic, end.unwrap_or(Offset(u64::MAX)));
                Answer::Ends(ends.map(|ends| ends.into_iter().map(known).collect()))
            });
        } else if let Some(index) = self.next_ready() {
            let (topic, from) = (self.topics[index].clone(), self.positions[index]);
            self.ready.remove(&index);
            // Whatever becomes of it, the others come first then.
            self.turn = index + 1;
            self.asking.spawn(async move {
                let read = Read {
                    topic: &topic,
                    from,
                    bytes_max: BATCH_BYTES_MAX,
                };
                Answer::Items(index, shared.desks.call(&read).await)
            });
        }
    }

    fn following(&mut self) -> &Arc<Following> {
        let (ears, topics) = (&self.shared.ears, &self.topics);
        self.following.get_or_insert_with(|| ears.follow(topics))
    }

    /// Takes what was told, and notices what may not have been, though there may be no time to wait for it.
    fn take_hints(&mut self) {
        let has_missed = self.misses.has_changed().unwrap_or_default();
        if has_missed || self.look_at <= Instant::now() {
            self.misses.mark_unchanged();
            self.look_soon();
        }
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
        self.look_soon();
    }

    fn look_soon(&mut self) {
        self.look_at = Instant::now() + jittered(LOOK);
        self.is_stale = true;
    }
}

impl Tail for PostgresTail {
    fn next(&mut self) -> BusFuture<'_, (Topic, Vec<Item>)> {
        Box::pin(self.next_batch())
    }
}

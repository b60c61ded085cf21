use std::collections::BTreeMap;
use std::future;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Message;
use sealcast_bus::{BusError, BusFuture, Item, Offset, Tail, Topic, each_once, jittered};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::ears::Ears;
use crate::log::Logs;
use crate::server::Server;

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
    /// The one thing that is asked at a time. It goes on when a call is given up, so that calls which are
    /// given up early come to its answer, too.
    asking: JoinSet<Answer>,
}

/// What comes of asking.
#[derive(Debug)]
enum Answer {
    Ears(Result<Ears<Hints>, BusError>),
    /// Of the topic with this index, which was to end there at least.
    Items(usize, u64, Result<Vec<Item>, BusError>),
    /// The stream's last message.
    Last(Option<u64>),
}

impl NatsTail {
    pub(crate) fn new(logs: Arc<Logs>, topics: Vec<(Topic, Offset)>) -> Self {
        let (topics, positions): (Vec<_>, Vec<_>) = each_once(topics).into_iter().unzip();
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
                Answer::Ears(ears) => self.ears = Some(ears?),
                Answer::Last(last) => self.compare(last),
                Answer::Items(index, end, Ok(items)) => {
                    if let Some(last) = items.last() {
                        let position = last.offset.0.saturating_add(1);
                        self.positions[index] = Offset(position);
                        // Whoever adds more tells it.
                        if end > position {
                            self.expect(index, end);
                        }
                        return Ok((self.topics[index].clone(), items));
                    }
                }
                Answer::Items(index, end, Err(error)) => {
                    self.expect(index, end);
                    return Err(error);
                }
            }
        }
    }

    /// Asks for the items of the next topic that may have any, or looks whether there is anything new, where it is
    /// time to. Before all else it begins to listen, once: what is stored from then on is told.
    fn ask(&mut self) {
        let logs = Arc::clone(&self.logs);
        if self.ears.is_none() {
            let topics = self.topics.clone();
            self.asking
                .spawn(async move { Answer::Ears(listen(&logs.server, &topics).await) });
        } else if let Some((index, end)) = self.take_ready() {
            let (topic, from) = (self.topics[index].clone(), self.positions[index]);
            // Whatever becomes of it, the others come first then.
            self.turn = index + 1;
            self.asking.spawn(async move {
                Answer::Items(index, end, logs.read(&topic, from, BATCH_BYTES_MAX).await)
            });
        } else if self.look_at <= Instant::now() {
            self.look_at = Instant::now() + jittered(LOOK);
            self.asking
                .spawn(async move { Answer::Last(logs.server.last_sequence().await) });
        }
    }

    fn take_hints(&mut self) {
        let Some(ears) = &self.ears else { return };
        let hints = std::mem::take(&mut *ears.kept());
        let news = hints.into_iter().filter(|(index, end)| {
            let position = self.positions.get(*index);
            position.is_some_and(|position| position.0 < *end)
        });
        for (index, end) in news.collect::<Hints>() {
            self.expect(index, end);
        }
    }

    /// Has a topic looked at, which ends there at least.
    fn expect(&mut self, index: usize, end: u64) {
        let known = self.ready.entry(index).or_insert(end);
        *known = end.max(*known);
    }

    fn take_ready(&mut self) -> Option<(usize, u64)> {
        let from_turn = self.ready.range(self.turn..).next();
        let (index, _) = from_turn.or(self.ready.first_key_value())?;
        let index = *index;
        self.ready.remove_entry(&index)
    }

    /// Has all topics looked at, where anything was stored since the last look.
    fn compare(&mut self, last: Option<u64>) {
        if last.is_none() || last != self.looked {
            self.ready = all(self.topics.len());
        }
        self.looked = last;
    }

    /// Returns when something was told, or may have been missed, or it is time to look.
    async fn wait(&mut self) {
        let Some(ears) = &self.ears else { return };
        tokio::select! {
            () = ears.more() => {}
            missed = self.misses.changed() => {
                if missed.is_err() {
                    return future::pending().await;
                }
                self.ready = all(self.topics.len());
            }
            () = sleep_until(self.look_at) => {}
        }
    }
}

/// Keeps the ends that are told of.
async fn listen(server: &Server, topics: &[Topic]) -> Result<Ears<Hints>, BusError> {
    let subject = |topic: &Topic| server.subjects.new_end(topic);
    let keep = |hints: &mut Hints, index, message: Message| {
        let end = message.payload.first_chunk();
        let end = end.map(|end| u64::from_be_bytes(*end));
        // Whoever tells nothing readable tells that there is something.
        let told = hints.entry(index).or_default();
        *told = end.unwrap_or(u64::MAX).max(*told);
    };
    let ears = Ears::open(server, topics, subject, keep).await;
    ears.map_err(|fault| server.fault(fault))
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

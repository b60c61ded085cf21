use std::collections::{BTreeSet, VecDeque};
use std::future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sealcast_bus::{Attempts, BusError, BusFuture, Limits, Listener, Topic};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::Shared;
use crate::fault::Fault;
use crate::send::Mark;

/// Payloads that wait for a listener that is late; of more, the oldest are dropped.
const WAITING_MAX: usize = 4 * Limits::SENT_WAITING_MIN;
/// How long a mark is waited for before another is written.
const MARK_TIMEOUT: Duration = Duration::from_secs(5);

/// Listens to ephemeral topics.
#[derive(Debug)]
pub(crate) struct PostgresListener {
    hearing: Arc<Hearing>,
    /// What it is told by lives as long as this.
    _shared: Arc<Shared>,
}

/// What one listener hears.
#[derive(Debug)]
pub(crate) struct Hearing {
    topics: BTreeSet<Topic>,
    /// When this was heard, everything that was sent before is past.
    mark: String,
    waiting: Mutex<Waiting>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    has_begun: bool,
    payloads: VecDeque<(Topic, Vec<u8>)>,
}

impl Hearing {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn begin(&self, mark: &str) {
        if self.mark == mark {
            self.lock().has_begun = true;
            self.more.notify_one();
        }
    }

    pub(crate) fn wants(&self, topic: &Topic) -> bool {
        self.topics.contains(topic) && self.lock().has_begun
    }

    pub(crate) fn tell(&self, topic: &Topic, payload: &[u8]) {
        if !self.wants(topic) {
            return;
        }
        let mut waiting = self.lock();
        if waiting.payloads.len() >= WAITING_MAX {
            waiting.payloads.pop_front();
        }
        waiting
            .payloads
            .push_back((topic.clone(), payload.to_owned()));
        self.more.notify_one();
    }

    async fn begun(&self) {
        while !self.lock().has_begun {
            self.more.notified().await;
        }
    }
}

impl PostgresListener {
    pub(crate) async fn start(shared: Arc<Shared>, topics: Vec<Topic>) -> Result<Self, BusError> {
        let mut id = [0; 16];
        let drawn = getrandom::fill(&mut id).map_err(|_| Fault::Odd("no randomness"));
        drawn.map_err(|fault| fault.at(shared.desks.place()))?;
        let hearing = Arc::new(Hearing {
            topics: topics.into_iter().collect(),
            mark: format!("{:032x}", u128::from_be_bytes(id)),
            waiting: Mutex::default(),
            more: Notify::new(),
        });
        if !hearing.topics.is_empty() {
            shared.ears.hear(&hearing);
            begin(&shared, &hearing).await?;
        }
        Ok(Self {
            hearing,
            _shared: shared,
        })
    }

    async fn hear(&mut self) -> Result<(Topic, Vec<u8>), BusError> {
        if self.hearing.topics.is_empty() {
            return future::pending().await;
        }
        loop {
            let heard = self.hearing.lock().payloads.pop_front();
            if let Some(heard) = heard {
                return Ok(heard);
            }
            self.hearing.more.notified().await;
        }
    }
}

/// Writes a mark until it is heard: then whatever is sent from now on is heard, too.
async fn begin(shared: &Shared, hearing: &Hearing) -> Result<(), BusError> {
    let mut attempts = Attempts::new();
    loop {
        let mark = Mark {
            id: &hearing.mark,
            channel: shared.desks.settings.schema(),
        };
        let mut heard = timeout(MARK_TIMEOUT, shared.ears.opened()).await;
        if heard.is_ok() {
            shared.desks.call(&mark).await?;
            heard = timeout(MARK_TIMEOUT, hearing.begun()).await;
        }
        let Err(late) = heard else { return Ok(()) };
        let after = attempts.after(Fault::NoAnswer(Box::new(late))).await;
        after.map_err(|fault| fault.at(shared.desks.place()))?;
    }
}

impl Listener for PostgresListener {
    fn next(&mut self) -> BusFuture<'_, (Topic, Vec<u8>)> {
        Box::pin(self.hear())
    }
}

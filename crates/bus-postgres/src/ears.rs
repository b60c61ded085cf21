//! One connection a handle, on which the server tells what happens on the bus.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use sealcast_bus::{Limits, Topic, jittered};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_postgres::Statement;

use crate::desks::{ANSWER_TIMEOUT, in_time};
use crate::fault::Fault;
use crate::listen::Hearing;
use crate::notice::Notice;
use crate::session::Line;
use crate::settings::{Settings, quoted};
use crate::sql;

/// Between two attempts to connect anew, at first and at last.
const RECONNECT: Duration = Duration::from_millis(100);
const RECONNECT_MAX: Duration = Duration::from_secs(8);
/// How often the connection is tried: what is said on a dead one is not missed otherwise.
const PING: Duration = Duration::from_secs(15);
/// What was told and not yet handed on; of more, the oldest is dropped.
const QUEUE_MAX: usize = 4_096;

/// By topic, the end that was told of last.
type Hints = BTreeMap<Topic, u64>;

/// Connects when somebody wants to hear something, and then for as long as it lives.
#[derive(Debug)]
pub(crate) struct Ears {
    heard: Arc<Heard>,
    settings: Arc<Settings>,
    task: OnceLock<JoinHandle<()>>,
}

/// Who wants to hear something, and whether they do.
#[derive(Debug)]
struct Heard {
    tails: Mutex<Vec<Weak<Following>>>,
    listeners: Mutex<Vec<Weak<Hearing>>>,
    /// Whether everything that is told is heard at this moment.
    is_open: watch::Sender<bool>,
    /// Counts how often something may have been missed.
    misses: watch::Sender<u64>,
}

/// What one tail hears.
#[derive(Debug)]
pub(crate) struct Following {
    /// Where it follows; each has an end of 0 in there, and that of what it was told.
    topics: Mutex<Hints>,
    more: Notify,
}

impl Ears {
    pub(crate) fn new(settings: Arc<Settings>) -> Self {
        let heard = Heard {
            tails: Mutex::default(),
            listeners: Mutex::default(),
            is_open: watch::Sender::new(false),
            misses: watch::Sender::new(0),
        };
        Self {
            heard: Arc::new(heard),
            settings,
            task: OnceLock::new(),
        }
    }

    /// Tells from now on, as far as the connection is there, where these topics grow.
    pub(crate) fn follow(&self, topics: &[Topic]) -> Arc<Following> {
        let topics = topics.iter().map(|topic| (topic.clone(), 0)).collect();
        let following = Arc::new(Following {
            topics: Mutex::new(topics),
            more: Notify::new(),
        });
        add(&self.heard.tails, &following);
        self.start();
        following
    }

    /// Hands on what a listener wants to hear, once its mark was heard.
    pub(crate) fn hear(&self, hearing: &Arc<Hearing>) {
        add(&self.heard.listeners, hearing);
        self.start();
    }

    /// Returns when everything that is told is heard.
    pub(crate) async fn opened(&self) {
        let mut is_open = self.heard.is_open.subscribe();
        // The sender is here, so that it does not go away.
        let _is_there = is_open.wait_for(|is_open| *is_open).await.is_ok();
    }

    /// Tells when something may have been missed.
    pub(crate) fn misses(&self) -> watch::Receiver<u64> {
        self.heard.misses.subscribe()
    }

    fn start(&self) {
        self.task.get_or_init(|| {
            let (settings, heard) = (Arc::clone(&self.settings), Arc::clone(&self.heard));
            tokio::spawn(async move { keep_open(&settings, &heard).await })
        });
    }
}

impl Drop for Ears {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

impl Following {
    /// What was told since this was last asked.
    pub(crate) fn take_hints(&self) -> Vec<(Topic, u64)> {
        let mut topics = locked(&self.topics);
        let told = topics.iter_mut().filter(|(_, end)| **end > 0);
        told.map(|(topic, end)| (topic.clone(), std::mem::take(end)))
            .collect()
    }

    /// Returns when more was told since it last returned.
    pub(crate) async fn more(&self) {
        self.more.notified().await;
    }

    fn tell(&self, topic: &Topic, end: u64) {
        if let Some(known) = locked(&self.topics).get_mut(topic) {
            *known = end.max(*known);
            self.more.notify_one();
        }
    }
}

impl Heard {
    fn tell(&self, notice: Notice) {
        match notice {
            Notice::Grown { topic, end } => each(&self.tails, |tail| tail.tell(&topic, end)),
            Notice::Mark(id) => each(&self.listeners, |listener| listener.begin(&id)),
            Notice::Sent { topic, payload } => {
                each(&self.listeners, |listener| listener.tell(&topic, &payload));
            }
            // Its payload was not found.
            Notice::Stored { .. } => {}
        }
    }

    /// Whether somebody wants to hear what is sent on a topic.
    fn is_wanted(&self, topic: &Topic) -> bool {
        let mut is_wanted = false;
        each(&self.listeners, |listener| {
            is_wanted |= listener.wants(topic);
        });
        is_wanted
    }

    fn miss(&self) {
        self.misses.send_modify(|count| *count += 1);
    }
}

/// Adds one more, and forgets those that are no longer there.
fn add<T>(all: &Mutex<Vec<Weak<T>>>, one: &Arc<T>) {
    let mut all = locked(all);
    all.retain(|other| other.strong_count() > 0);
    all.push(Arc::downgrade(one));
}

/// Goes through those that are still there, and forgets the others.
fn each<T>(all: &Mutex<Vec<Weak<T>>>, mut act: impl FnMut(&T)) {
    locked(all).retain(|one| {
        let one = one.upgrade();
        if let Some(one) = &one {
            act(one);
        }
        one.is_some()
    });
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Connects as often as the connection breaks: later and later, and never at the moment at which all
/// the others come back.
async fn keep_open(settings: &Settings, heard: &Heard) {
    let mut pause = RECONNECT;
    loop {
        if let Ok(mut ear) = Ear::open(settings).await {
            heard.is_open.send_replace(true);
            heard.miss();
            pause = RECONNECT;
            ear.hand_on(heard).await;
            heard.is_open.send_replace(false);
        }
        sleep(jittered(pause)).await;
        pause = RECONNECT_MAX.min(pause * 2);
    }
}

/// One connection that listens.
struct Ear {
    line: Line,
    stored: Statement,
    queue: Arc<Queue>,
}

/// What the connection brought, until it is handed on.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    more: Notify,
}

#[derive(Default)]
struct Waiting {
    notices: VecDeque<Notice>,
    has_lost: bool,
    is_over: bool,
}

/// Tells that the connection is over.
struct Filler(Arc<Queue>);

impl Filler {
    fn put(&self, text: &str) {
        let Some(notice) = Notice::parse(text) else {
            return;
        };
        let mut waiting = locked(&self.0.waiting);
        if waiting.notices.len() >= QUEUE_MAX {
            waiting.notices.pop_front();
            waiting.has_lost = true;
        }
        waiting.notices.push_back(notice);
        self.0.more.notify_one();
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        locked(&self.0.waiting).is_over = true;
        self.0.more.notify_one();
    }
}

impl Queue {
    /// The next notice, and whether others before it were lost; nothing when the connection is over.
    async fn next(&self) -> Option<(Notice, bool)> {
        loop {
            {
                let mut waiting = locked(&self.waiting);
                if let Some(notice) = waiting.notices.pop_front() {
                    return Some((notice, std::mem::take(&mut waiting.has_lost)));
                }
                if waiting.is_over {
                    return None;
                }
            }
            self.more.notified().await;
        }
    }
}

impl Ear {
    async fn open(settings: &Settings) -> Result<Self, Fault> {
        let queue = Arc::new(Queue::default());
        let filler = Filler(Arc::clone(&queue));
        let line = Line::open(settings, move |said| filler.put(said.payload())).await?;
        let stored = in_time(ANSWER_TIMEOUT, async {
            let schema = settings.schema();
            let stored = line.client.prepare(&sql::of(schema, sql::STORED)).await?;
            let listen = format!("LISTEN {}", quoted(schema));
            line.client.batch_execute(&listen).await?;
            Ok(stored)
        })
        .await?;
        Ok(Self {
            line,
            stored,
            queue,
        })
    }

    /// Hands on what is told, in order, until the connection breaks.
    async fn hand_on(&mut self, heard: &Heard) {
        let mut ping_at = Instant::now() + jittered(PING);
        loop {
            tokio::select! {
                next = self.queue.next() => {
                    let Some((notice, has_lost)) = next else { return };
                    if has_lost {
                        heard.miss();
                    }
                    let Ok(notice) = self.whole(notice, heard).await else {
                        return;
                    };
                    heard.tell(notice);
                }
                () = sleep_until(ping_at) => {
                    let ping = async { Ok(self.line.client.batch_execute("").await?) };
                    if in_time(ANSWER_TIMEOUT, ping).await.is_err() {
                        return;
                    }
                    ping_at = Instant::now() + jittered(PING);
                }
            }
        }
    }

    /// Finds the payload of what was stored, if somebody wants it.
    async fn whole(&self, notice: Notice, heard: &Heard) -> Result<Notice, Fault> {
        let Notice::Stored { topic, id } = notice else {
            return Ok(notice);
        };
        if !heard.is_wanted(&topic) {
            return Ok(Notice::Stored { topic, id });
        }
        let found = async { Ok(self.line.client.query_opt(&self.stored, &[&id]).await?) };
        let found = in_time(ANSWER_TIMEOUT, found).await?;
        let payload = found.and_then(|row| row.try_get::<_, Vec<u8>>(0).ok());
        Ok(match payload {
            Some(payload) if payload.len() <= Limits::SENT_MAX => Notice::Sent { topic, payload },
            _ => Notice::Stored { topic, id },
        })
    }
}

#[cfg(test)]
mod tests {
    use sealcast_bus::{BusUrl, ServerOptions};

    use super::*;

    #[tokio::test]
    async fn tails_that_are_over_are_forgotten_though_nothing_is_told() {
        let url = BusUrl::parse("postgres://127.0.0.1:1/d/s").unwrap();
        let settings = Settings::new(url.server().unwrap(), &ServerOptions::default());
        let ears = Ears::new(Arc::new(settings.unwrap()));
        let stays = ears.follow(&[Topic::new("a").unwrap()]);
        for _ in 0..100 {
            drop(ears.follow(&[Topic::new("b").unwrap()]));
        }
        assert_eq!(locked(&ears.heard.tails).len(), 2);
        drop(stays);
    }
}

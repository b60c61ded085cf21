//! How one handle talks to the broker: it publishes, asks how far the mirror is, and listens.

use std::collections::{BTreeMap, VecDeque};
use std::future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use sealcast_bus::{BusError, BusFuture, Limits, Listener, Topic};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

use crate::dial::Dial;
use crate::fault::Fault;
use crate::link::{Client, Event, Link, PATIENCE};
use crate::message::{MessageId, Names, put_sent, take_sent};
use crate::packet::Publish;

/// Payloads that wait for a listener that is late; of more, the oldest are dropped.
const WAITING_MAX: usize = 4 * Limits::SENT_WAITING_MIN;
/// Senders of which a listener knows what it heard of them.
const SENDERS_MAX: usize = 4_096;
/// How long an answer is waited for before the question is put again.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// A handle's own connection, whose session begins and ends with it.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) link: Link,
    pub(crate) names: Names,
    /// What tells what this handle writes from what all others do.
    pub(crate) writer: u64,
    numbers: AtomicU64,
    heard: Arc<Heard>,
    place: String,
}

/// What came over the connection.
#[derive(Debug)]
struct Heard {
    fenced: watch::Sender<u64>,
    echoed: watch::Sender<u64>,
    ears: Mutex<Ears>,
}

/// By the broker's topic, who listens there.
type Ears = BTreeMap<String, Vec<Weak<Ear>>>;

/// One listener.
#[derive(Debug)]
struct Ear {
    /// It hears what comes behind this echo.
    since: u64,
    kept: Mutex<Kept>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Kept {
    waiting: VecDeque<(String, Vec<u8>)>,
    /// By sender and topic, the last of its numbers that was heard.
    last: BTreeMap<(u64, String), u64>,
}

impl Line {
    pub(crate) async fn open(dial: Dial, names: Names, place: String) -> Result<Self, Fault> {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).map_err(Fault::no_answer)?;
        let writer = u64::from_be_bytes(bytes);
        let heard = Arc::new(Heard {
            fenced: watch::Sender::new(0),
            echoed: watch::Sender::new(0),
            ears: Mutex::default(),
        });
        let client = Client {
            id: format!("sc{writer:016x}"),
            kept_for: 0,
        };
        let (hears, fenced, echo) = (Arc::clone(&heard), names.fenced(writer), names.echo(writer));
        let mine = vec![fenced.clone(), echo.clone()];
        let on_event = move |event| match event {
            Event::Up { .. } => {}
            Event::Message { publish, .. } => {
                let Some((id, payload)) = take_sent(&publish.payload) else {
                    return;
                };
                if publish.topic == fenced {
                    hears
                        .fenced
                        .send_modify(|last| *last = id.number.max(*last));
                } else if publish.topic == echo {
                    hears
                        .echoed
                        .send_modify(|last| *last = id.number.max(*last));
                } else {
                    hears.tell(&publish.topic, id, payload);
                }
            }
        };
        let link = Link::open(dial, client, on_event).await?;
        link.subscribe(mine).await?;
        Ok(Self {
            link,
            names,
            writer,
            numbers: AtomicU64::new(0),
            heard,
            place,
        })
    }

    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    pub(crate) fn fault(&self, fault: Fault) -> BusError {
        fault.at(&self.place)
    }

    /// A name for the next message of this handle.
    pub(crate) fn next_id(&self) -> MessageId {
        MessageId {
            writer: self.writer,
            number: self.numbers.fetch_add(1, Ordering::Relaxed) + 1,
        }
    }

    /// Returns when the mirror has all that the broker had taken when this was called.
    pub(crate) async fn fence(&self) -> Result<(), BusError> {
        let fenced = self.heard.fenced.subscribe();
        let fence = self.ask(self.names.fence(), self.next_id(), fenced);
        fence.await.map_err(|fault| self.fault(fault))
    }

    /// Publishes a question until its number, or a later one, has come back.
    async fn ask(
        &self,
        topic: String,
        id: MessageId,
        mut answers: watch::Receiver<u64>,
    ) -> Result<(), Fault> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            self.link
                .publish(Publish {
                    topic: topic.clone(),
                    payload: put_sent(id, b""),
                    is_retained: false,
                })
                .await?;
            let answered = answers.wait_for(|last| *last >= id.number);
            if timeout(ASK_AGAIN, answered).await.is_ok() {
                return Ok(());
            }
        }
        Err(Fault::Late)
    }

    pub(crate) async fn send(&self, topic: &Topic, payload: &[u8]) -> Result<(), BusError> {
        let publish = Publish {
            topic: self.names.now(topic),
            payload: put_sent(self.next_id(), payload),
            is_retained: false,
        };
        let sent = self.link.publish(publish).await;
        sent.map(drop).map_err(|fault| self.fault(fault))
    }
}

impl Heard {
    fn ears(&self) -> MutexGuard<'_, Ears> {
        self.ears.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, topic: &str, id: MessageId, payload: &[u8]) {
        let echoed = *self.echoed.borrow();
        let ears = self.ears();
        let listening = ears.get(topic).into_iter().flatten();
        for ear in listening.filter_map(Weak::upgrade) {
            if ear.since <= echoed && payload.len() <= Limits::SENT_MAX {
                ear.hear(topic, id, payload);
            }
        }
    }
}

impl Ear {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, topic: &str, id: MessageId, payload: &[u8]) {
        let mut kept = self.kept();
        if kept.last.len() >= SENDERS_MAX {
            kept.last.pop_first();
        }
        let last = kept.last.entry((id.writer, topic.to_owned())).or_default();
        // It was sent again over another connection.
        if id.number <= *last {
            return;
        }
        *last = id.number;
        if kept.waiting.len() >= WAITING_MAX {
            kept.waiting.pop_front();
        }
        kept.waiting.push_back((topic.to_owned(), payload.to_vec()));
        drop(kept);
        self.more.notify_one();
    }
}

/// Listens to ephemeral topics.
#[derive(Debug)]
pub(crate) struct MqttListener {
    line: Arc<Line>,
    /// By the broker's name.
    topics: BTreeMap<String, Topic>,
    ear: Arc<Ear>,
}

impl MqttListener {
    pub(crate) async fn start(line: Arc<Line>, topics: Vec<Topic>) -> Result<Self, BusError> {
        let named = topics
            .into_iter()
            .map(|topic| (line.names.now(&topic), topic));
        let topics: BTreeMap<_, _> = named.collect();
        let id = line.next_id();
        let listener = Self {
            ear: Arc::new(Ear {
                since: id.number,
                kept: Mutex::default(),
                more: Notify::new(),
            }),
            topics,
            line,
        };
        let filters: Vec<String> = listener.topics.keys().cloned().collect();
        if filters.is_empty() {
            return Ok(listener);
        }
        let line = &listener.line;
        for filter in &filters {
            let mut ears = line.heard.ears();
            let ear = Arc::downgrade(&listener.ear);
            ears.entry(filter.clone()).or_default().push(ear);
        }
        // What was on its way before is behind us when a message to ourselves has come back.
        let begun = async {
            line.link.subscribe(filters).await?;
            let echoed = line.heard.echoed.subscribe();
            line.ask(line.names.echo(line.writer), id, echoed).await
        };
        begun.await.map_err(|fault| line.fault(fault))?;
        Ok(listener)
    }

    async fn hear(&mut self) -> Result<(Topic, Vec<u8>), BusError> {
        loop {
            let heard = self.ear.kept().waiting.pop_front();
            if let Some((name, payload)) = heard
                && let Some(topic) = self.topics.get(&name)
            {
                return Ok((topic.clone(), payload));
            }
            if self.topics.is_empty() {
                return future::pending().await;
            }
            self.ear.more.notified().await;
        }
    }
}

impl Listener for MqttListener {
    fn next(&mut self) -> BusFuture<'_, (Topic, Vec<u8>)> {
        Box::pin(self.hear())
    }
}

impl Drop for MqttListener {
    fn drop(&mut self) {
        let mut ears = self.line.heard.ears();
        let mut left = Vec::new();
        for name in self.topics.keys() {
            if let Some(listening) = ears.get_mut(name) {
                listening.retain(|ear| !std::ptr::eq(ear.as_ptr(), Arc::as_ptr(&self.ear)));
                if listening.is_empty() {
                    ears.remove(name);
                    left.push(name.clone());
                }
            }
        }
        // While nobody else can begin to listen there.
        if !left.is_empty() {
            self.line.link.unsubscribe(left);
        }
    }
}

//! How one handle talks to the broker: it publishes, asks how far the mirror is, and listens.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::future;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use sealcast_bus::{BusError, BusFuture, Limits, Listener, Topic};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout};

use crate::dial::Dial;
use crate::fault::Fault;
use crate::link::{Client, Event, Link, PATIENCE, draw};
use crate::message::{CONTROL, MessageId, Names, put_sent, take_sent};
use crate::packet::Publish;

/// Payloads that wait for a listener that is late; of more, the oldest are dropped.
const WAITING_MAX: usize = 4 * Limits::SENT_WAITING_MIN;
/// Payloads of which a listener knows that it heard them.
const HEARD_MAX: usize = 16_384;
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
#[derive(Debug, Default)]
struct Heard {
    /// By the number of a question, who waits until it comes back.
    asked: Mutex<BTreeMap<u64, oneshot::Sender<()>>>,
    ears: Mutex<Ears>,
}

/// By the broker's topic, who listens there.
type Ears = BTreeMap<String, Vec<Weak<Ear>>>;

/// One listener.
#[derive(Debug)]
struct Ear {
    /// It hears what comes behind the echo of this number.
    since: u64,
    has_begun: AtomicBool,
    kept: Mutex<Kept>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Kept {
    waiting: VecDeque<(String, Vec<u8>)>,
    /// Digests of what was heard last, the oldest first.
    heard: VecDeque<u64>,
    known: HashSet<u64>,
    /// Drawn anew for each, so that nobody finds what has the digest of something else.
    state: RandomState,
}

impl Line {
    pub(crate) async fn open(dial: Dial, names: Names, place: String) -> Result<Self, Fault> {
        let writer = draw()?;
        let heard = Arc::new(Heard::default());
        let client = Client {
            id: format!("sc{writer:016x}"),
            kept_for: 0,
        };
        let (hears, fenced, echo) = (Arc::clone(&heard), names.fenced(writer), names.echo(writer));
        let mine = vec![fenced.clone(), echo.clone()];
        let on_event = move |event| match event {
            Event::Up { .. } => {}
            // It was not published by a bus.
            Event::Message { receipt, .. } if receipt.is_none() => {}
            Event::Message { publish, .. } => {
                let Some((id, payload)) = take_sent(&publish.payload) else {
                    return;
                };
                if publish.topic == fenced {
                    hears.answer(id.number);
                } else if publish.topic == echo {
                    hears.begin(id.number);
                    hears.answer(id.number);
                } else {
                    hears.tell(&publish.topic, id, payload);
                }
            }
        };
        let link = Link::open(dial, client, on_event).await?;
        link.subscribe_to_all(mine).await?;
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
        self.numbered(self.numbers.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn numbered(&self, number: u64) -> MessageId {
        let writer = self.writer;
        MessageId { writer, number }
    }

    /// Returns when the mirror has all that the broker had taken when this was called; all of control logs, where it is
    /// about these.
    pub(crate) async fn fence(&self, is_control: bool) -> Result<(), BusError> {
        let says = match is_control {
            true => CONTROL,
            false => &[],
        };
        let fencing = async { self.ask(self.names.fence(), draw()?, says).await };
        fencing.await.map_err(|fault| self.fault(fault))
    }

    /// Publishes a question until its number, which nobody guesses, has come back.
    async fn ask(&self, topic: String, number: u64, says: &[u8]) -> Result<(), Fault> {
        let mut asked = self.heard.ask(number);
        let question = Publish {
            topic,
            payload: put_sent(self.numbered(number), says),
            is_retained: false,
        };
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            self.link.publish(question.clone()).await?;
            if timeout(ASK_AGAIN, &mut asked.answer).await.is_ok() {
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

/// Somebody who waits for an answer, until this is dropped.
struct Asked<'a> {
    heard: &'a Heard,
    number: u64,
    answer: oneshot::Receiver<()>,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.heard.asked().remove(&self.number);
    }
}

impl Heard {
    fn ears(&self) -> MutexGuard<'_, Ears> {
        self.ears.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn asked(&self) -> MutexGuard<'_, BTreeMap<u64, oneshot::Sender<()>>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, number: u64) -> Asked<'_> {
        let (answered, answer) = oneshot::channel();
        self.asked().insert(number, answered);
        Asked {
            heard: self,
            number,
            answer,
        }
    }

    fn answer(&self, number: u64) {
        if let Some(asked) = self.asked().remove(&number) {
            // Whoever asked may have left.
            let _is_told = asked.send(()).is_ok();
        }
    }

    /// What comes from now on is heard by who listens since then.
    fn begin(&self, number: u64) {
        let ears = self.ears();
        let all = ears.values().flatten().filter_map(Weak::upgrade);
        for ear in all.filter(|ear| ear.since == number) {
            ear.has_begun.store(true, Ordering::Relaxed);
        }
    }

    fn tell(&self, topic: &str, id: MessageId, payload: &[u8]) {
        let ears = self.ears();
        let listening = ears.get(topic).into_iter().flatten();
        for ear in listening.filter_map(Weak::upgrade) {
            if ear.has_begun.load(Ordering::Relaxed) && payload.len() <= Limits::SENT_MAX {
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
        // By its bytes, too: whoever guesses a number keeps nobody from being heard.
        let whole = (topic, id.writer, id.number, payload);
        let digest = kept.state.hash_one(whole);
        // It was sent again over another connection.
        if !kept.known.insert(digest) {
            return;
        }
        kept.heard.push_back(digest);
        if kept.heard.len() > HEARD_MAX
            && let Some(oldest) = kept.heard.pop_front()
        {
            kept.known.remove(&oldest);
        }
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
        let since = draw().map_err(|fault| line.fault(fault))?;
        let listener = Self {
            ear: Arc::new(Ear {
                since,
                has_begun: AtomicBool::new(false),
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
            line.link.subscribe_to_all(filters).await?;
            line.ask(line.names.echo(line.writer), since, b"").await
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

//! Sealing for tests: what it makes hides nothing from anybody who knows how, but shows no eight bytes of what was in it.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use sealcast::{
    Arrival, DataTopic, Name, ShelfChange, ShelfLabel, ShelfLabels, ShelfOwner, StreamId,
};
use sealcast_proxy::{
    Envelope, Keeping, NotKept, NotOpened, NotSealed, OpenFuture, Opened, Opening, SealFuture,
    Sealing, Unopened, Waiting,
};
use tokio::sync::watch;

const MAGIC: &[u8] = b"toy envelope";
/// Between the records of one envelope.
pub(crate) const NEXT: u8 = 0x1e;

/// Seals and opens; or says why it does not.
#[derive(Debug, Default)]
pub(crate) struct Toy {
    /// Of messages that begin with something.
    pub(crate) fault: Mutex<Option<(&'static [u8], NotSealed)>>,
    /// Whether nothing can be looked at now.
    pub(crate) is_away: Arc<Mutex<bool>>,
    /// Whether it tells what comes again from what is new.
    pub(crate) remembers: AtomicBool,
    /// How many messages were sealed, where no two become the same.
    pub(crate) sealed: Option<AtomicU64>,
    /// What waits for clients.
    pub(crate) kept: Arc<Cupboard>,
    /// Streams whose key is here by now, besides the one that each envelope should be of.
    pub(crate) keys: Arc<Mutex<Vec<&'static str>>>,
    /// Tells openings that something has changed.
    pub(crate) news: watch::Sender<u64>,
    /// How many envelopes were opened at once, each time.
    pub(crate) at_once: Arc<Mutex<Vec<usize>>>,
    /// How often another stream took the name of the one that had it.
    pub(crate) generation: AtomicU64,
    /// The stream whose key comes with the next envelope that opens.
    pub(crate) brings: Arc<Mutex<Option<&'static str>>>,
}

/// The envelope of a payload, bound to a stream and a topic.
pub(crate) fn envelope(stream: &str, topic: &str, payload: &[u8]) -> Vec<u8> {
    let bound = format!("{stream}\n{topic}\n");
    let hidden = payload.iter().map(|byte| byte ^ 0xa5);
    let mut all = [MAGIC, bound.as_bytes()].concat();
    all.extend(hidden);
    // As long as one is at least.
    all.extend([0xee; 176]);
    all
}

/// What is in one, where it is of that stream and topic.
pub(crate) fn payload(stream: &str, topic: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    let bound = format!("{stream}\n{topic}\n");
    let rest = bytes.strip_prefix(MAGIC)?.strip_prefix(bound.as_bytes())?;
    let (rest, _number) = rest.split_last_chunk::<8>()?;
    let hidden = rest.strip_suffix(&[0xee; 176 - 8])?;
    Some(hidden.iter().map(|byte| byte ^ 0xa5).collect())
}

impl Toy {
    pub(crate) fn fails(&self, code: &'static str, is_lasting: bool) {
        self.fails_with(b"", code, is_lasting);
    }

    /// For messages that begin with something.
    pub(crate) fn fails_with(&self, of: &'static [u8], code: &'static str, is_lasting: bool) {
        *self.fault.lock().unwrap() = Some((of, NotSealed { code, is_lasting }));
    }

    fn numbered(&self, mut envelope: Vec<u8>) -> Vec<u8> {
        let number = self
            .sealed
            .as_ref()
            .map(|of| of.fetch_add(1, Ordering::Relaxed));
        if let (Some(number), Some(end)) = (number, envelope.last_chunk_mut()) {
            *end = number.to_be_bytes();
        }
        envelope
    }

    /// The key of a stream comes.
    pub(crate) fn gets_key(&self, stream: &'static str) {
        self.keys.lock().unwrap().push(stream);
        self.news.send_modify(|count| *count += 1);
    }

    /// Nothing that could not be looked at can be, or all can again.
    pub(crate) fn goes_away(&self, is_away: bool) {
        *self.is_away.lock().unwrap() = is_away;
        self.news.send_modify(|count| *count += 1);
    }
}

impl Sealing for Toy {
    fn seal<'a>(
        &'a self,
        stream: &'a Name,
        messages: &'a [(&'a DataTopic, &'a [u8])],
    ) -> SealFuture<'a> {
        Box::pin(async move {
            let fault = *self.fault.lock().unwrap();
            let sealed = messages.iter().map(|(topic, payload)| match fault {
                Some((only, fault)) if payload.starts_with(only) => Err(fault),
                _ => Ok(self.numbered(envelope(stream.as_str(), topic.as_str(), payload))),
            });
            sealed.collect()
        })
    }

    fn id(&self, stream: &Name) -> Option<StreamId> {
        let generation = self.generation.load(Ordering::Relaxed);
        let id = ShelfOwner::of(&[stream.as_str().as_bytes(), &generation.to_be_bytes()]).0;
        Some(StreamId([id, id].concat().try_into().unwrap()))
    }

    fn can_seal<'a>(&'a self, _: &'a Name) -> Waiting<'a, bool> {
        let is_well = self.fault.lock().unwrap().is_none();
        Box::pin(async move { is_well })
    }

    fn keeping(&self) -> Arc<dyn Keeping> {
        self.kept.clone()
    }

    fn opening(&self, stream: &Name) -> Box<dyn Opening> {
        Box::new(ToyOpening {
            stream: stream.clone(),
            is_away: Arc::clone(&self.is_away),
            keys: Arc::clone(&self.keys),
            news: self.news.subscribe(),
            at_once: Arc::clone(&self.at_once),
            brings: Arc::clone(&self.brings),
            tells: self.news.clone(),
            opened: self.remembers.load(Ordering::Relaxed).then(HashSet::new),
        })
    }
}

/// Keeps what waits for as long as somebody holds it.
#[derive(Debug, Default)]
pub(crate) struct Cupboard(Mutex<Shelves>, Mutex<Trouble>, pub(crate) Ways);

/// How else it behaves.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    /// Whether contents are lost.
    pub(crate) loses: AtomicBool,
    /// How many labels are damaged.
    pub(crate) damaged: AtomicU64,
}

/// What is wrong with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Trouble {
    #[default]
    None,
    /// The next change fails.
    FailsOnce,
    /// Nothing in it can be read.
    Damaged,
}

/// Under this number lies what is known of a client's session.
const SESSION: u64 = 0;

type Shelves = BTreeMap<(ShelfOwner, u64), (Vec<u8>, Vec<u8>)>;

impl Cupboard {
    pub(crate) fn gets(&self, trouble: Trouble) {
        *self.1.lock().unwrap() = trouble;
    }

    /// Makes all that is in it so many days older.
    pub(crate) fn ages(&self, days: u64) {
        for ((_, number), (label, _)) in self.0.lock().unwrap().iter_mut() {
            let time = match (*number, label[0]) {
                (SESSION, _) => 5..13,
                // What is on its way to the broker.
                (_, 3) => 2..10,
                _ => 8..16,
            };
            let then = u64::from_be_bytes(label[time.clone()].try_into().unwrap());
            let then = then.saturating_sub(days * 86_400_000);
            label[time].copy_from_slice(&then.to_be_bytes());
        }
    }

    /// How many messages are in it.
    pub(crate) fn len(&self) -> usize {
        let all = self.0.lock().unwrap();
        all.keys().filter(|(_, number)| *number != SESSION).count()
    }

    /// Whether a session is kept, and its connection has ended.
    pub(crate) fn is_left(&self) -> bool {
        let all = self.0.lock().unwrap();
        let mut sessions = all.iter().filter(|((_, number), _)| *number == SESSION);
        sessions.any(|(_, (label, _))| label[5..] != [0; 8])
    }

    /// Whether nothing at all is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().unwrap().is_empty()
    }

    /// Whether any of them shows something.
    pub(crate) fn shows(&self, secret: &[u8]) -> bool {
        let all = self.0.lock().unwrap();
        let mut contents = all.values().map(|(_, content)| content);
        contents.any(|of| of.windows(secret.len()).any(|part| part == secret))
    }
}

impl Keeping for Cupboard {
    fn labels(&self, owner: Option<ShelfOwner>) -> Waiting<'_, Result<ShelfLabels, NotKept>> {
        if *self.1.lock().unwrap() == Trouble::Damaged {
            return Box::pin(async { Err(NotKept::DAMAGED) });
        }
        let all = self.0.lock().unwrap();
        let own = all
            .iter()
            .filter(|((of, _), _)| owner.is_none_or(|owner| owner == *of));
        let labels = own.map(|((owner, number), (label, _))| ShelfLabel {
            owner: *owner,
            number: *number,
            label: label.clone(),
        });
        let labels = ShelfLabels {
            readable: labels.collect(),
            damaged: self.2.damaged.load(Ordering::Relaxed),
        };
        Box::pin(async move { Ok(labels) })
    }

    fn contents(
        &self,
        owner: ShelfOwner,
        numbers: Vec<u64>,
    ) -> Waiting<'_, Result<Vec<Option<Vec<u8>>>, NotKept>> {
        let all = self.0.lock().unwrap();
        let contents = numbers.iter().map(|number| all.get(&(owner, *number)));
        let contents = contents
            .map(|of| of.filter(|_| !self.2.loses.load(Ordering::Relaxed)))
            .map(|of| of.map(|(_, content)| content.clone()))
            .collect();
        Box::pin(async move { Ok(contents) })
    }

    fn change(
        &self,
        owner: ShelfOwner,
        changes: Vec<ShelfChange>,
    ) -> Waiting<'_, Result<(), NotKept>> {
        let mut trouble = self.1.lock().unwrap();
        if *trouble == Trouble::FailsOnce {
            *trouble = Trouble::None;
            return Box::pin(async { Err(NotKept("toy.failed")) });
        }
        let mut all = self.0.lock().unwrap();
        for change in changes {
            match change {
                ShelfChange::Put {
                    number,
                    label,
                    content,
                } => {
                    all.insert((owner, number), (label, content));
                }
                ShelfChange::Relabel { number, label } => {
                    if let Some(of) = all.get_mut(&(owner, number)) {
                        of.0 = label;
                    }
                }
                ShelfChange::Remove { number } => {
                    all.remove(&(owner, number));
                }
            }
        }
        Box::pin(async { Ok(()) })
    }
}

struct ToyOpening {
    stream: Name,
    is_away: Arc<Mutex<bool>>,
    keys: Arc<Mutex<Vec<&'static str>>>,
    news: watch::Receiver<u64>,
    at_once: Arc<Mutex<Vec<usize>>>,
    brings: Arc<Mutex<Option<&'static str>>>,
    tells: watch::Sender<u64>,
    /// What it opened, which is a replay if it comes again.
    opened: Option<HashSet<Vec<u8>>>,
}

impl Opening for ToyOpening {
    fn open<'a>(&'a mut self, envelopes: &'a [Envelope<'a>]) -> OpenFuture<'a> {
        self.at_once.lock().unwrap().push(envelopes.len());
        let opened = envelopes.iter().map(|of| self.open_one(of)).collect();
        Box::pin(async move { opened })
    }

    fn changed(&mut self) -> Waiting<'_, ()> {
        Box::pin(async move { self.news.changed().await.unwrap() })
    }
}

impl ToyOpening {
    fn open_one(&mut self, of: &Envelope<'_>) -> Opened {
        let (topic, envelope) = (of.topic.as_str(), of.bytes);
        let keys = self.keys.lock().unwrap().clone();
        let mut streams = std::iter::once(self.stream.as_str()).chain(keys);
        let opened = streams.find_map(|stream| payload(stream, topic, envelope));
        let records = opened.map(|all| {
            all.split(|byte| *byte == NEXT)
                .map(<[u8]>::to_vec)
                .collect()
        });
        // Another stream's lacks a key.
        let other = format!("\n{topic}\n");
        let is_sealed = envelope
            .strip_prefix(MAGIC)
            .and_then(|rest| rest.strip_prefix(b"other"))
            .is_some_and(|rest| rest.starts_with(other.as_bytes()));
        let is_away = *self.is_away.lock().unwrap();
        let fault = NotOpened {
            code: "toy.not-opened",
            why: match (is_away, is_sealed) {
                (true, _) => Unopened::NotNow,
                (false, true) => Unopened::Sealed,
                (false, false) => Unopened::Foreign,
            },
        };
        let records = records.filter(|_| !is_away);
        if records.is_some()
            && let Some(stream) = self.brings.lock().unwrap().take()
        {
            self.keys.lock().unwrap().push(stream);
            self.tells.send_modify(|count| *count += 1);
        }
        let is_of_old = ["boiler", "other"]
            .iter()
            .filter_map(|of| payload(of, topic, envelope));
        let is_of_old = { is_of_old }.any(|of| of.starts_with(b"old ")) && !is_away;
        if self.opened.is_some() && is_of_old && of.arrival == Arrival::Live {
            let why = Unopened::Foreign;
            return Err(NotOpened { why, ..fault });
        }
        let is_opened = records.is_some() && of.arrival != Arrival::Kept;
        let seen = self.opened.as_mut().filter(|_| is_opened);
        let is_new = seen.is_none_or(|seen| seen.insert(envelope.to_vec()));
        records.filter(|_| is_new).ok_or(fault)
    }
}

//! What the handles of one home share: its mirror, and what of the bus it follows.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sealcast_bus::{Arrival, Bus as _, BusError, FileBus, Item, Mirror, Offset, Tail, Topic};
use tokio::time::{sleep, timeout};

use crate::fault::Fault;
use crate::link::PATIENCE;
use crate::message::{MessageId, put_sent, take_sent};
use crate::own::Own;
use crate::sending::Sending;

/// What a home says of the session of control logs once the mirror has all that it brought.
const LEVEL: &[u8] = b"L";
/// Bytes that are read of what the home keeps of itself at once.
const READ_BYTES: usize = 1 << 20;

/// The folder of a mirror.
#[derive(Debug)]
pub(crate) struct Home {
    /// The logs.
    pub(crate) mirror: Mirror,
    /// What is said among the processes of the home; see `spec/bus-mqtt.md`, section 8.
    own: FileBus,
    /// By which name the broker knows it.
    pub(crate) name: String,
    folder: PathBuf,
    known: Mutex<Known>,
    pub(crate) own_back: Own,
    pub(crate) sending: Sending,
}

/// Which scopes are in the mirror, as far as this handle has read of it.
#[derive(Debug, Default)]
struct Known {
    ready: BTreeSet<String>,
    next: Offset,
}

/// What a home leaves at the broker when it has dealt with all that the broker had lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) id: MessageId,
    /// What this home had written by then the broker has taken before it; in milliseconds since the Unix
    /// epoch.
    pub(crate) time_ms: u64,
}

impl Mark {
    fn encode(self) -> Vec<u8> {
        put_sent(self.id, &self.time_ms.to_be_bytes()).into()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (id, time) = take_sent(bytes)?;
        let time_ms = u64::from_be_bytes(time.try_into().ok()?);
        Some(Self { id, time_ms })
    }
}

/// Kept by the one process that feeds the mirror.
#[derive(Debug)]
pub(crate) struct FeedLock(#[expect(dead_code, reason = "the lock ends with the file")] File);

impl Home {
    pub(crate) async fn open(folder: &Path) -> Result<Self, BusError> {
        let mirror = Mirror::open(folder.join("logs")).await?;
        let own = FileBus::open(folder.join("own")).await?;
        let name = name_of(&own).await?;
        Ok(Self {
            mirror,
            own,
            name,
            folder: folder.to_owned(),
            known: Mutex::default(),
            own_back: Own::default(),
            sending: Sending::new(folder.join("sending")),
        })
    }

    /// Takes the lock of who feeds the mirror, unless another has it.
    pub(crate) fn lock_feed(&self) -> Option<FeedLock> {
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.folder.join("feeding"))
            .ok()?;
        match file.try_lock() {
            Ok(()) => Some(FeedLock(file)),
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => None,
        }
    }

    /// The scopes that are followed, and where the next is written.
    pub(crate) async fn followed(&self) -> Result<(BTreeSet<String>, Offset), BusError> {
        let (items, end) = self.read_own("follow", Offset(0)).await?;
        Ok((items.into_iter().filter_map(text).collect(), end))
    }

    /// Waits for scopes that come to be followed.
    pub(crate) fn tail_followed(&self, from: Offset) -> Result<Box<dyn Tail>, BusError> {
        Ok(self.own.tail(vec![(own_topic("follow")?, from)]))
    }

    /// Notes that scopes are in the mirror.
    pub(crate) async fn set_ready(&self, scopes: &BTreeSet<String>) -> Result<(), BusError> {
        let payloads = scopes.iter().map(|scope| scope.clone().into_bytes());
        let ready = own_topic("ready")?;
        self.own.append(&ready, payloads.collect()).await?;
        Ok(())
    }

    /// The scopes that are in the mirror.
    pub(crate) async fn ready(&self) -> Result<BTreeSet<String>, BusError> {
        let (items, _) = self.read_own("ready", Offset(0)).await?;
        Ok(items.into_iter().filter_map(text).collect())
    }

    /// Tells whoever waits for scopes to which of them the broker lets this home not subscribe.
    pub(crate) async fn set_refused(&self, scopes: &BTreeSet<String>) -> Result<(), BusError> {
        let lines: String = scopes.iter().map(|of| format!("{of}\n")).collect();
        self.replace_own("refused", lines.into_bytes()).await
    }

    /// The scopes of which others are asked for what had passed, and since when, in milliseconds since
    /// the Unix epoch; until that was answered.
    pub(crate) async fn asked(&self) -> Result<BTreeMap<String, u64>, BusError> {
        let said = self.last_own("asked").await?.and_then(text);
        let lines = said.iter().flat_map(|said| said.lines());
        let fields = lines.filter_map(|line| line.split_once(' '));
        let asked = fields.filter_map(|(since, of)| Some((of.to_owned(), since.parse().ok()?)));
        Ok(asked.collect())
    }

    pub(crate) async fn set_asked(&self, asked: &BTreeMap<String, u64>) -> Result<(), BusError> {
        let lines = asked.iter().map(|(of, since)| format!("{since} {of}\n"));
        let said: String = lines.collect();
        self.replace_own("asked", said.into_bytes()).await
    }

    /// What it last left at the broker to tell by whether the broker went back.
    pub(crate) async fn mark(&self) -> Result<Option<Mark>, BusError> {
        let said = self.last_own("mark").await?;
        Ok(said.and_then(|item| Mark::decode(&item.payload)))
    }

    pub(crate) async fn set_mark(&self, mark: Mark) -> Result<(), BusError> {
        self.replace_own("mark", mark.encode()).await
    }

    /// Whether the mirror has all that the session of control logs has acknowledged, but what is retained.
    pub(crate) async fn is_control_level(&self) -> Result<bool, BusError> {
        let said = self.last_own("level").await?;
        Ok(said.is_some_and(|item| item.payload == LEVEL))
    }

    pub(crate) async fn set_control_level(&self, is_level: bool) -> Result<(), BusError> {
        let said = if is_level { LEVEL } else { b"" };
        self.replace_own("level", said.to_vec()).await
    }

    async fn last_own(&self, name: &str) -> Result<Option<Item>, BusError> {
        let topic = own_topic(name)?;
        let Some(last) = self.own.end(&topic).await?.0.checked_sub(1) else {
            return Ok(None);
        };
        let items = self.own.read(&topic, Offset(last), 1).await?;
        Ok(items.into_iter().next())
    }

    async fn replace_own(&self, name: &str, payload: Vec<u8>) -> Result<(), BusError> {
        let topic = own_topic(name)?;
        let at = self.own.append(&topic, vec![payload]).await?;
        self.own.trim(&topic, at).await
    }

    /// Sees to it that scopes are followed, and waits until they are in the mirror, or the broker is found
    /// to refuse one of them.
    pub(crate) async fn follow(
        &self,
        scopes: &BTreeSet<String>,
        place: &str,
    ) -> Result<(), BusError> {
        if self.lacking(scopes).is_empty() {
            return Ok(());
        }
        self.read_ready().await?;
        let lacking = self.lacking(scopes);
        if lacking.is_empty() {
            return Ok(());
        }
        let refused = own_topic("refused")?;
        let told = self.own.end(&refused).await?;
        let (followed, _) = self.followed().await?;
        let new = lacking.difference(&followed);
        let new: Vec<_> = new.map(|scope| scope.clone().into_bytes()).collect();
        self.own.append(&own_topic("follow")?, new).await?;
        let from = self.lock().next;
        let ready = (own_topic("ready")?, from);
        let mut tail = self.own.tail(vec![ready, (refused.clone(), told)]);
        let waiting = async {
            while !self.lacking(scopes).is_empty() {
                let (topic, items) = tail.next().await?;
                if topic != refused {
                    self.note_ready(items);
                    continue;
                }
                let said = items.into_iter().next_back().and_then(text);
                let said = said.unwrap_or_default();
                let lacking = self.lacking(scopes);
                if said.lines().any(|scope| lacking.contains(scope)) {
                    return Err(Fault::MAY_NOT.at(place));
                }
            }
            Ok(())
        };
        match timeout(PATIENCE, waiting).await {
            Ok(followed) => followed,
            Err(_) => Err(Fault::Late.at(place)),
        }
    }

    /// Takes in what arrived, and returns where it lies. While the mirror is full or busy, it waits.
    pub(crate) async fn take_in(
        &self,
        arrivals: impl Into<Arc<[Arrival]>>,
        pause: Duration,
    ) -> Result<Vec<Offset>, BusError> {
        let arrivals = arrivals.into();
        loop {
            match self.mirror.take_in(Arc::clone(&arrivals)).await {
                Err(BusError::Full { .. } | BusError::Busy { .. }) => sleep(pause).await,
                taken_in => return taken_in,
            }
        }
    }

    /// Whether the mirror takes what arrived, however much room it has.
    pub(crate) fn admits(&self, arrival: &Arrival) -> bool {
        let limits = self.mirror.bus().limits();
        limits.check(&arrival.payloads).is_ok()
    }

    /// The offset behind all that was trimmed of a topic.
    pub(crate) async fn first_of(&self, topic: &Topic) -> Result<Offset, BusError> {
        let mirror = self.mirror.bus();
        match mirror.read(topic, Offset(0), 0).await?.first() {
            Some(item) => Ok(item.offset),
            None => mirror.end(topic).await,
        }
    }

    fn lacking(&self, scopes: &BTreeSet<String>) -> BTreeSet<String> {
        scopes.difference(&self.lock().ready).cloned().collect()
    }

    async fn read_ready(&self) -> Result<(), BusError> {
        let from = self.lock().next;
        let ready = own_topic("ready")?;
        let mut next = from;
        loop {
            let items = self.own.read(&ready, next, READ_BYTES).await?;
            let Some(last) = items.last() else {
                return Ok(());
            };
            next = Offset(last.offset.0.saturating_add(1));
            self.note_ready(items);
        }
    }

    fn note_ready(&self, items: Vec<Item>) {
        let mut known = self.lock();
        if let Some(last) = items.last() {
            known.next = known.next.max(Offset(last.offset.0.saturating_add(1)));
        }
        known.ready.extend(items.into_iter().filter_map(text));
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read_own(&self, name: &str, from: Offset) -> Result<(Vec<Item>, Offset), BusError> {
        let topic = own_topic(name)?;
        let (mut all, mut next) = (Vec::new(), from);
        loop {
            let items = self.own.read(&topic, next, READ_BYTES).await?;
            let Some(last) = items.last() else {
                return Ok((all, next));
            };
            next = Offset(last.offset.0.saturating_add(1));
            all.extend(items);
        }
    }
}

/// The name of a scope.
pub(crate) fn text(item: Item) -> Option<String> {
    String::from_utf8(item.payload).ok()
}

fn own_topic(name: &str) -> Result<Topic, BusError> {
    Topic::new(name).map_err(|error| BusError::Backend(Box::new(error)))
}

/// The name of the home, which is drawn once.
async fn name_of(own: &FileBus) -> Result<String, BusError> {
    let topic = own_topic("home")?;
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| BusError::Backend(Box::new(error)))?;
    let drawn = format!("{:016x}", u64::from_be_bytes(bytes));
    // Another process may be the first.
    own.append_at(&topic, Offset(0), vec![drawn.clone().into_bytes()])
        .await?;
    let first = own.read(&topic, Offset(0), 1).await?.into_iter().next();
    Ok(first.and_then(text).unwrap_or(drawn))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_process_of_a_home_feeds_and_all_have_one_name() {
        let folder = tempfile::tempdir().unwrap();
        let one = Home::open(folder.path()).await.unwrap();
        let two = Home::open(folder.path()).await.unwrap();
        assert_eq!(one.name, two.name);
        let lock = one.lock_feed().unwrap();
        assert!(two.lock_feed().is_none());
        drop(lock);
        assert!(two.lock_feed().is_some());
    }

    #[tokio::test]
    async fn what_is_followed_is_waited_for_until_somebody_has_it_ready() {
        let folder = tempfile::tempdir().unwrap();
        let one = Home::open(folder.path()).await.unwrap();
        let two = Home::open(folder.path()).await.unwrap();
        let scopes = BTreeSet::from(["a/+".to_owned(), "s/1f/#".to_owned()]);
        let feeding = async {
            let mut tail = two.tail_followed(Offset(0)).unwrap();
            let mut wanted = BTreeSet::new();
            while wanted.len() < 2 {
                wanted.extend(tail.next().await.unwrap().1.into_iter().filter_map(text));
            }
            assert_eq!(wanted, scopes);
            two.set_ready(&wanted).await.unwrap();
        };
        let (followed, ()) = tokio::join!(one.follow(&scopes, "x"), feeding);
        followed.unwrap();
        two.follow(&scopes, "x").await.unwrap();
        assert_eq!(two.followed().await.unwrap(), (scopes, Offset(2)));
    }

    #[tokio::test]
    async fn who_waits_for_what_the_broker_refuses_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path()).await.unwrap();
        let of = |name: &str| BTreeSet::from([name.to_owned()]);
        // What was refused earlier may not be any more.
        home.set_refused(&of("s/1f/#")).await.unwrap();
        let feeding = async {
            let mut tail = home.tail_followed(Offset(0)).unwrap();
            tail.next().await.unwrap();
            home.set_refused(&of("s/2f/#")).await.unwrap();
            home.set_ready(&of("s/1f/#")).await.unwrap();
        };
        let one = of("s/1f/#");
        let (followed, ()) = tokio::join!(home.follow(&one, "x"), feeding);
        followed.unwrap();
        let feeding = async {
            let mut tail = home.tail_followed(Offset(1)).unwrap();
            tail.next().await.unwrap();
            home.set_refused(&of("s/2f/#")).await.unwrap();
        };
        let two = of("s/2f/#");
        let (followed, ()) = tokio::join!(home.follow(&two, "x"), feeding);
        let BusError::Unreachable { cause, .. } = followed.unwrap_err() else {
            panic!("it is unreachable");
        };
        assert_eq!(cause.to_string(), "the broker refused: this user may not");
    }

    #[tokio::test]
    async fn a_home_knows_the_last_mark_that_it_left() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path()).await.unwrap();
        assert_eq!(home.mark().await.unwrap(), None);
        for number in 1..3 {
            let id = MessageId { writer: 7, number };
            let mark = Mark { id, time_ms: 99 };
            home.set_mark(mark).await.unwrap();
            assert_eq!(home.mark().await.unwrap(), Some(mark));
        }
    }

    #[tokio::test]
    async fn what_is_asked_for_is_known_until_it_was_answered() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path()).await.unwrap();
        let both = BTreeMap::from([("s/1f/#".to_owned(), 0), ("s/2e/#".to_owned(), 17)]);
        for asked in [both, BTreeMap::new()] {
            home.set_asked(&asked).await.unwrap();
            assert_eq!(home.asked().await.unwrap(), asked);
        }
    }
}

//! What waits for one client until it can be opened: `spec/proxy.md`.
//!
//! It is durable before its broker hears that it arrived, and thrown away when the client has it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sealcast::{Name, Shelf, ShelfChange, ShelfLabel, ShelfOwner};

use crate::packet::Version;
use crate::sealing::Waiting;

/// The version of a label.
const LABEL: u8 = 1;
const LABEL_LEN: usize = 36;
/// More is not kept in one piece.
const CONTENT_MAX: usize = 16 << 20;

/// Where what waits is kept.
pub trait Keeping: fmt::Debug + Send + Sync {
    /// The labels of what is kept for somebody, or for anybody, ascending.
    fn labels(&self, owner: Option<ShelfOwner>) -> Waiting<'_, Result<Vec<ShelfLabel>, NotKept>>;

    /// Some of what is kept, by number; `None` for what is lost.
    fn contents(
        &self,
        owner: ShelfOwner,
        numbers: Vec<u64>,
    ) -> Waiting<'_, Result<Vec<Option<Vec<u8>>>, NotKept>>;

    /// Makes all of some changes durable, or none.
    fn change(
        &self,
        owner: ShelfOwner,
        changes: Vec<ShelfChange>,
    ) -> Waiting<'_, Result<(), NotKept>>;
}

/// Why something was not kept, or not found: a stable name for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotKept(pub &'static str);

impl Keeping for Shelf {
    fn labels(&self, owner: Option<ShelfOwner>) -> Waiting<'_, Result<Vec<ShelfLabel>, NotKept>> {
        Box::pin(async move { self.labels(owner).await.map_err(|of| NotKept(of.code())) })
    }

    fn contents(
        &self,
        owner: ShelfOwner,
        numbers: Vec<u64>,
    ) -> Waiting<'_, Result<Vec<Option<Vec<u8>>>, NotKept>> {
        let contents = self.contents(owner, numbers);
        Box::pin(async move { contents.await.map_err(|of| NotKept(of.code())) })
    }

    fn change(
        &self,
        owner: ShelfOwner,
        changes: Vec<ShelfChange>,
    ) -> Waiting<'_, Result<(), NotKept>> {
        let change = self.change(owner, changes);
        Box::pin(async move { change.await.map_err(|of| NotKept(of.code())) })
    }
}

/// How much may wait, for all clients together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParkLimits {
    /// Messages.
    pub messages_max: u64,
    /// Bytes of them.
    pub bytes_max: u64,
    /// How long one may.
    pub age_max: Duration,
}

impl Default for ParkLimits {
    fn default() -> Self {
        Self {
            messages_max: 10_000,
            bytes_max: 64 << 20,
            age_max: Duration::from_secs(7 * 86_400),
        }
    }
}

/// Who has how much waiting.
#[derive(Debug)]
pub(crate) struct Room {
    limits: ParkLimits,
    used: Mutex<Option<BTreeMap<ShelfOwner, Used>>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Used {
    messages: u64,
    bytes: u64,
}

impl Room {
    pub(crate) fn new(limits: ParkLimits) -> Self {
        Self {
            limits,
            used: Mutex::default(),
        }
    }

    /// Finds out what waits since before, and throws away what has for too long.
    async fn look(&self, keeping: &dyn Keeping) -> Result<(), NotKept> {
        if self.used().is_some() {
            return Ok(());
        }
        let (mut used, now) = (BTreeMap::<_, Used>::new(), now());
        let mut old = BTreeMap::<_, Vec<_>>::new();
        for label in keeping.labels(None).await? {
            let number = label.number;
            let of = used.entry(label.owner).or_default();
            match Entry::read(&label.label) {
                Some(entry) if !entry.is_old(now, self.limits.age_max) => {
                    of.messages += 1;
                    of.bytes += entry.bytes;
                }
                _ => old
                    .entry(label.owner)
                    .or_default()
                    .push(ShelfChange::Remove { number }),
            }
        }
        for (owner, changes) in old {
            keeping.change(owner, changes).await?;
        }
        self.used().get_or_insert(used);
        Ok(())
    }

    /// Takes room for something, if there is. One client may have half of it.
    fn take(&self, owner: ShelfOwner, bytes: u64) -> bool {
        let mut used = self.used();
        let used = used.get_or_insert_default();
        let all = used.values().fold(Used::default(), |sum, of| Used {
            messages: sum.messages + of.messages,
            bytes: sum.bytes + of.bytes,
        });
        let own = used.entry(owner).or_default();
        let fits = |of: &Used, part: u64| {
            of.messages < self.limits.messages_max.div_ceil(part)
                && of.bytes + bytes <= self.limits.bytes_max.div_ceil(part)
        };
        let is_room = fits(&all, 1) && fits(own, 2);
        if is_room {
            own.messages += 1;
            own.bytes += bytes;
        }
        is_room
    }

    fn give_back(&self, owner: ShelfOwner, bytes: u64) {
        if let Some(own) = self.used().as_mut().and_then(|used| used.get_mut(&owner)) {
            own.messages = own.messages.saturating_sub(1);
            own.bytes = own.bytes.saturating_sub(bytes);
        }
    }

    fn used(&self) -> MutexGuard<'_, Option<BTreeMap<ShelfOwner, Used>>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far something is on its way to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Waits,
    /// Sent with a number, and not acknowledged.
    Sent(u16),
    /// The client has it, and is told to give the number back.
    Released(u16),
    /// The client has it; the broker may send it again.
    Done,
}

/// Something that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) version: Version,
    pub(crate) progress: Progress,
    pub(crate) qos: u8,
    /// The number that the broker gave it, until it takes that back.
    pub(crate) broker: Option<u16>,
    /// When it came, in milliseconds of Unix time.
    pub(crate) arrived: u64,
    pub(crate) bytes: u64,
    pub(crate) mark: [u8; 16],
    /// Not known of what waits since another connection, before it was looked at.
    pub(crate) stream: Option<Name>,
}

impl Entry {
    fn is_old(&self, now: u64, age_max: Duration) -> bool {
        u128::from(now.saturating_sub(self.arrived)) > age_max.as_millis()
    }

    fn label(&self) -> Vec<u8> {
        let version = match self.version {
            Version::Three => 4,
            Version::Five => 5,
        };
        let (progress, number) = match self.progress {
            Progress::Waits => (0, 0),
            Progress::Sent(number) => (1, number),
            Progress::Released(number) => (2, number),
            Progress::Done => (3, 0),
        };
        let bytes = u32::try_from(self.bytes).unwrap_or(u32::MAX);
        let mut label = vec![LABEL, version, progress, self.qos];
        label.extend_from_slice(&number.to_be_bytes());
        label.extend_from_slice(&self.broker.unwrap_or_default().to_be_bytes());
        label.extend_from_slice(&self.arrived.to_be_bytes());
        label.extend_from_slice(&bytes.to_be_bytes());
        label.extend_from_slice(&self.mark);
        label
    }

    fn read(label: &[u8]) -> Option<Self> {
        let label: &[u8; LABEL_LEN] = label.try_into().ok()?;
        let (head, rest) = label.split_first_chunk::<4>()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (broker, rest) = rest.split_first_chunk()?;
        let (arrived, rest) = rest.split_first_chunk()?;
        let (bytes, mark) = rest.split_first_chunk()?;
        let [LABEL, version, progress, qos @ 0..=2] = *head else {
            return None;
        };
        let number = u16::from_be_bytes(*number);
        Some(Self {
            version: match version {
                4 => Version::Three,
                5 => Version::Five,
                _ => return None,
            },
            progress: match progress {
                0 => Progress::Waits,
                1 if number > 0 => Progress::Sent(number),
                2 if number > 0 => Progress::Released(number),
                3 => Progress::Done,
                _ => return None,
            },
            qos,
            broker: Some(u16::from_be_bytes(*broker)).filter(|of| *of > 0),
            arrived: u64::from_be_bytes(*arrived),
            bytes: u32::from_be_bytes(*bytes).into(),
            mark: mark.try_into().ok()?,
            stream: None,
        })
    }
}

/// A client, as far as that is to say for whom something waits.
#[derive(Clone, Debug)]
pub(crate) struct Who {
    pub(crate) client: Vec<u8>,
    pub(crate) user: Vec<u8>,
    /// Its connection.
    pub(crate) number: u64,
}

impl Who {
    /// Whoever has another user's name is somebody else.
    fn owner(&self) -> ShelfOwner {
        // One without a name has no session that another connection could take up.
        let number = match self.client.is_empty() {
            true => [self.number.to_be_bytes(), now().to_be_bytes()].concat(),
            false => Vec::new(),
        };
        ShelfOwner::of(&[&self.client, &self.user, &number])
    }
}

/// What waits for one client.
#[derive(Debug)]
pub(crate) struct Lot {
    who: Who,
    keeping: Arc<dyn Keeping>,
    room: Arc<Room>,
    owner: ShelfOwner,
    pub(crate) entries: BTreeMap<u64, Entry>,
    next: u64,
    /// What is not durable yet, and by which entries it is known.
    changes: Vec<ShelfChange>,
}

impl Lot {
    pub(crate) fn new(keeping: Arc<dyn Keeping>, room: Arc<Room>, who: Who) -> Self {
        Self {
            owner: who.owner(),
            who,
            keeping,
            room,
            entries: BTreeMap::new(),
            next: 0,
            changes: Vec::new(),
        }
    }

    /// What waits since before, where the client's session goes on; else it is forgotten. The broker may have given the
    /// client its name.
    pub(crate) async fn open(
        &mut self,
        client: Option<&[u8]>,
        goes_on: bool,
    ) -> Result<(), NotKept> {
        if let Some(client) = client {
            self.who.client = client.to_vec();
            self.owner = self.who.owner();
        }
        self.room.look(&*self.keeping).await?;
        let labels = self.keeping.labels(Some(self.owner)).await?;
        // What another connection of the client's may write yet has lower numbers.
        let last = labels.last().map_or(0, |of| of.number + 1);
        self.next = last.max(now() << 16);
        for label in labels {
            match Entry::read(&label.label) {
                Some(entry) => {
                    self.entries.insert(label.number, entry);
                }
                None => self.changes.push(ShelfChange::Remove {
                    number: label.number,
                }),
            }
        }
        if !goes_on {
            self.forget();
        }
        self.keep().await
    }

    /// Throws all away.
    pub(crate) fn forget(&mut self) {
        let numbers: Vec<_> = self.entries.keys().copied().collect();
        numbers.into_iter().for_each(|number| self.remove(number));
    }

    /// Whether something that came is there already.
    pub(crate) fn holds(&self, mark: &[u8; 16]) -> bool {
        self.entries.values().any(|of| of.mark == *mark)
    }

    /// Whether anything of a stream waits, or may be of it.
    pub(crate) fn has(&self, stream: &Name) -> bool {
        let of_it = |entry: &Entry| {
            entry.progress != Progress::Done && entry.stream.as_ref().is_none_or(|of| of == stream)
        };
        self.entries.values().any(of_it)
    }

    /// Lets something wait, where there is room. It does once it is [kept](Self::keep).
    pub(crate) fn put(&mut self, mut entry: Entry, content: Vec<u8>) -> bool {
        entry.bytes = content.len() as u64;
        if content.len() > CONTENT_MAX || !self.room.take(self.owner, entry.bytes) {
            return false;
        }
        let (number, label) = (self.next, entry.label());
        self.next += 1;
        self.entries.insert(number, entry);
        self.changes.push(ShelfChange::Put {
            number,
            label,
            content,
        });
        true
    }

    pub(crate) fn progress(&mut self, number: u64, progress: Progress) {
        if let Some(entry) = self.entries.get_mut(&number) {
            entry.progress = progress;
            let label = entry.label();
            self.changes.push(ShelfChange::Relabel { number, label });
        }
    }

    /// It is on its way. Of QoS 2 the number has to be the same if it is sent again.
    pub(crate) fn sent(&mut self, number: u64, id: u16) {
        match self.entries.get_mut(&number) {
            Some(entry) if entry.qos == 1 => entry.progress = Progress::Sent(id),
            Some(entry) if entry.progress != Progress::Sent(id) => {
                self.progress(number, Progress::Sent(id));
            }
            _ => {}
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The client has it. It is remembered for as long as its broker may send it again.
    pub(crate) fn done(&mut self, number: u64) {
        let entry = self.entries.get(&number);
        match entry.is_some_and(|of| of.qos == 2 && of.broker.is_some()) {
            true => self.progress(number, Progress::Done),
            false => self.remove(number),
        }
    }

    pub(crate) fn remove(&mut self, number: u64) {
        if let Some(entry) = self.entries.remove(&number) {
            self.room.give_back(self.owner, entry.bytes);
            self.changes.push(ShelfChange::Remove { number });
        }
    }

    /// The broker takes a number back, and does not send again what had it.
    pub(crate) fn taken_back(&mut self, id: u16) {
        let of_it = |(number, entry): (&u64, &mut Entry)| {
            let is_it = entry.broker == Some(id);
            entry.broker = entry.broker.filter(|_| !is_it);
            is_it.then_some((*number, entry.progress))
        };
        let of_it: Vec<_> = self.entries.iter_mut().filter_map(of_it).collect();
        for (number, progress) in of_it {
            match progress {
                Progress::Done => self.remove(number),
                Progress::Waits | Progress::Sent(_) | Progress::Released(_) => {
                    self.progress(number, progress);
                }
            }
        }
    }

    /// Makes durable what was changed; where that fails, what was let wait does not.
    pub(crate) async fn keep(&mut self) -> Result<(), NotKept> {
        if self.changes.is_empty() {
            return Ok(());
        }
        let changes = std::mem::take(&mut self.changes);
        let new = changes.iter().filter_map(|change| match change {
            ShelfChange::Put { number, .. } => Some(*number),
            ShelfChange::Relabel { .. } | ShelfChange::Remove { .. } => None,
        });
        let new: Vec<_> = new.collect();
        let kept = self.keeping.change(self.owner, changes).await;
        if kept.is_err() {
            for number in new {
                if let Some(entry) = self.entries.remove(&number) {
                    self.room.give_back(self.owner, entry.bytes);
                }
            }
        }
        kept
    }

    /// What waits under some numbers.
    pub(crate) async fn contents(
        &self,
        numbers: Vec<u64>,
    ) -> Result<Vec<Option<Vec<u8>>>, NotKept> {
        self.keeping.contents(self.owner, numbers).await
    }

    /// Whether something has waited as long as it may.
    pub(crate) fn is_old(&self, entry: &Entry) -> bool {
        entry.is_old(now(), self.room.limits.age_max)
    }
}

/// In milliseconds of Unix time.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_what_it_was() {
        for progress in [
            Progress::Waits,
            Progress::Sent(7),
            Progress::Released(65_535),
            Progress::Done,
        ] {
            let entry = Entry {
                version: Version::Five,
                progress,
                qos: 2,
                broker: Some(9),
                arrived: 1_700_000_000_000,
                bytes: 300,
                mark: [0xab; 16],
                stream: None,
            };
            let label = entry.label();
            assert_eq!(label.len(), LABEL_LEN);
            assert_eq!(Entry::read(&label), Some(entry));
            for cut in 0..LABEL_LEN {
                assert_eq!(Entry::read(&label[..cut]), None);
            }
            for (at, value) in [(0, 2), (1, 3), (2, 4), (3, 3)] {
                let mut odd = label.clone();
                odd[at] = value;
                assert_eq!(Entry::read(&odd), None, "{at}");
            }
        }
    }

    #[test]
    fn one_client_takes_no_more_than_half_of_the_room() {
        let room = Room::new(ParkLimits {
            messages_max: 4,
            bytes_max: 100,
            ..ParkLimits::default()
        });
        let [one, other, third] = [1, 2, 3].map(|of| ShelfOwner([of; 16]));
        assert!(room.take(one, 10) && room.take(one, 10) && !room.take(one, 10));
        assert!(!room.take(other, 51) && room.take(other, 50));
        assert!(room.take(third, 30) && !room.take(third, 0), "it is full");
        room.give_back(one, 10);
        assert!(room.take(third, 0));
    }
}

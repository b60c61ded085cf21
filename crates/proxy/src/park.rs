//! What waits for one client until it can be opened: `spec/proxy.md`.
//!
//! It is durable before its broker hears that it arrived, and thrown away when the client has it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sealcast::{Name, Shelf, ShelfChange, ShelfLabels, ShelfOwner};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::counts::{Counts, because};
use crate::lasting::{Lasts, NUMBER, Session};
use crate::packet::Version;
use crate::recall::Origin;
use crate::room::Room;
use crate::sealing::Waiting;
use crate::seats::Seated;

/// The version of a label.
const LABEL: u8 = 1;
const LABEL_LEN: usize = 36;
/// What is said with the QoS of what nobody has judged.
const UNJUDGED: u8 = 0x80;
/// More is not kept in one piece.
pub(crate) const CONTENT_MAX: usize = 16 << 20;
/// How long a connection waits for another of the same client's to leave.
const SEAT_WITHIN: Duration = Duration::from_secs(10);

/// Where what waits is kept.
pub trait Keeping: fmt::Debug + Send + Sync {
    /// The labels of what is kept for somebody, or for anybody.
    fn labels(&self, owner: Option<ShelfOwner>) -> Waiting<'_, Result<ShelfLabels, NotKept>>;

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

impl NotKept {
    /// What is kept is damaged, so that trying again does not help.
    pub const DAMAGED: Self = Self("store.damaged");
}

fn not_kept(error: sealcast::Error) -> NotKept {
    match error.is_store_damaged() {
        true => NotKept::DAMAGED,
        false => NotKept(error.code()),
    }
}

impl Keeping for Shelf {
    fn labels(&self, owner: Option<ShelfOwner>) -> Waiting<'_, Result<ShelfLabels, NotKept>> {
        Box::pin(async move { self.labels(owner).await.map_err(not_kept) })
    }

    fn contents(
        &self,
        owner: ShelfOwner,
        numbers: Vec<u64>,
    ) -> Waiting<'_, Result<Vec<Option<Vec<u8>>>, NotKept>> {
        let contents = self.contents(owner, numbers);
        Box::pin(async move { contents.await.map_err(not_kept) })
    }

    fn change(
        &self,
        owner: ShelfOwner,
        changes: Vec<ShelfChange>,
    ) -> Waiting<'_, Result<(), NotKept>> {
        let change = self.change(owner, changes);
        Box::pin(async move { change.await.map_err(not_kept) })
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
    /// Whether it is its publisher's own, and had not come before; else it may be anybody's.
    pub(crate) is_judged: bool,
    /// Whether it opened over this connection already.
    pub(crate) is_noted: bool,
    /// When it came, in milliseconds of Unix time.
    pub(crate) arrived: u64,
    pub(crate) bytes: u64,
    pub(crate) mark: [u8; 16],
    /// Not known of what waits since another connection, before it was looked at.
    pub(crate) stream: Option<Name>,
}

impl Entry {
    pub(crate) fn is_old(&self, now: u64, age_max: Duration) -> bool {
        u128::from(now.saturating_sub(self.arrived)) > age_max.as_millis()
    }

    /// One of 300 bytes.
    #[cfg(test)]
    pub(crate) fn of_test(progress: Progress, arrived: u64) -> Self {
        Self {
            version: Version::Five,
            progress,
            qos: 2,
            is_judged: false,
            is_noted: false,
            broker: Some(9),
            arrived,
            bytes: 300,
            mark: [0xab; 16],
            stream: None,
        }
    }

    pub(crate) fn label(&self) -> Vec<u8> {
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
        let judged = if self.is_judged { 0 } else { UNJUDGED };
        let mut label = vec![LABEL, version, progress, self.qos | judged];
        label.extend_from_slice(&number.to_be_bytes());
        label.extend_from_slice(&self.broker.unwrap_or_default().to_be_bytes());
        label.extend_from_slice(&self.arrived.to_be_bytes());
        label.extend_from_slice(&bytes.to_be_bytes());
        label.extend_from_slice(&self.mark);
        label
    }

    pub(crate) fn read(label: &[u8]) -> Option<Self> {
        let label: &[u8; LABEL_LEN] = label.try_into().ok()?;
        let (head, rest) = label.split_first_chunk::<4>()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (broker, rest) = rest.split_first_chunk()?;
        let (arrived, rest) = rest.split_first_chunk()?;
        let (bytes, mark) = rest.split_first_chunk()?;
        let [LABEL, version, progress, said] = *head else {
            return None;
        };
        let qos = said & !UNJUDGED;
        if qos > 2 {
            return None;
        }
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
            is_judged: said & UNJUDGED == 0,
            is_noted: false,
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
    pub(crate) origin: Origin,
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

    /// By what it is known when it comes again.
    pub(crate) fn named(&self) -> Option<ShelfOwner> {
        (!self.client.is_empty()).then(|| self.owner())
    }

    /// For whom is kept what it sent.
    pub(crate) fn sender(&self) -> ShelfOwner {
        ShelfOwner::of(&[&self.client, &self.user, &[], b"sent"])
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
    /// What is not durable yet.
    changes: Vec<ShelfChange>,
    /// How many messages that takes away, and bytes of them.
    freed: (u64, u64),
    /// Tells the connection that another has come in its place.
    leave: Arc<Notify>,
    /// There is none where nothing can wait.
    seat: Option<Seated>,
    /// For how long the session outlives the connection.
    pub(crate) lasts: Lasts,
    /// When the connection ended; 0 while it is there.
    left: u64,
    /// What is kept of that.
    session: Option<Session>,
}

/// What came of letting something wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// It does once it is [kept](Lot::keep).
    Waits,
    NoRoom,
    /// Nothing does now.
    NotNow,
    /// Nothing that large does.
    TooLarge,
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
            freed: (0, 0),
            leave: Arc::default(),
            seat: None,
            lasts: Lasts::Ever,
            left: 0,
            session: None,
        }
    }

    /// By what the client's session is known, if by anything. The broker may have given the client its name.
    pub(crate) fn session_of(&self, client: Option<&[u8]>) -> Option<ShelfOwner> {
        let mut who = self.who.clone();
        who.client = client.map_or(who.client, <[u8]>::to_vec);
        who.named()
    }

    /// Where the client comes from.
    pub(crate) fn origin(&self) -> Origin {
        self.who.origin
    }

    /// Tells when another connection has come in this one's place.
    pub(crate) fn leave(&self) -> Arc<Notify> {
        Arc::clone(&self.leave)
    }

    /// What waits since before, where the client's session goes on; else it is forgotten. The broker may have given the
    /// client its name.
    pub(crate) async fn open(
        &mut self,
        client: Option<&[u8]>,
        goes_on: bool,
        counts: &Counts,
    ) -> Result<(), NotKept> {
        if let Some(client) = client {
            self.who.client = client.to_vec();
            self.owner = self.who.owner();
        }
        let seat = self.room.seats.take(self.owner, &self.leave);
        let seat = timeout(SEAT_WITHIN, seat).await;
        let seat = seat.map_err(|_| NotKept(because::LATE))?;
        self.room.look(&*self.keeping, counts).await?;
        let labels = self.keeping.labels(Some(self.owner)).await?.readable;
        self.seat = Some(seat);
        // What another connection of the client's may write yet has lower numbers.
        let last = labels.last().map_or(0, |of| of.number + 1);
        self.next = last.max(now() << 16);
        for label in labels {
            if label.number == NUMBER {
                // One that is odd is replaced or removed.
                let odd = Session {
                    seconds: 0,
                    left: 0,
                };
                self.session = Session::read(&label.label).or(Some(odd));
                continue;
            }
            match Entry::read(&label.label) {
                Some(entry) => {
                    self.entries.insert(label.number, entry);
                }
                None => {
                    self.freed.0 += 1;
                    let number = label.number;
                    self.changes.push(ShelfChange::Remove { number });
                }
            }
        }
        if !goes_on {
            self.forget();
        }
        self.keep().await
    }

    /// Nothing more is changed over this connection, and another may go on.
    pub(crate) fn shut(&mut self) {
        self.seat = None;
    }

    /// The connection is at its end, and what waits is kept for as long as the session goes on.
    pub(crate) fn leave_for(&mut self, lasts: Lasts) {
        (self.lasts, self.left) = (lasts, now());
        if lasts.is_brief() {
            self.forget();
        }
    }

    /// What is to be kept of the session, if that is not what is.
    fn note_session(&mut self) {
        let session = match self.lasts {
            Lasts::Seconds(seconds) if !self.entries.is_empty() => Some(Session {
                seconds,
                left: self.left,
            }),
            Lasts::Seconds(_) | Lasts::Ever => None,
        };
        if session == self.session {
            return;
        }
        let number = NUMBER;
        self.changes.push(match session {
            None => ShelfChange::Remove { number },
            Some(session) => ShelfChange::Put {
                number,
                label: session.encode(),
                content: Vec::new(),
            },
        });
        self.session = session;
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

    /// Whether a number of the broker's is that of something that waits.
    pub(crate) fn has_number(&self, id: u16) -> bool {
        self.entries.values().any(|of| of.broker == Some(id))
    }

    /// Lets something wait, where there is room.
    pub(crate) fn put(&mut self, mut entry: Entry, content: Vec<u8>) -> Put {
        entry.bytes = content.len() as u64;
        if content.len() > CONTENT_MAX {
            return Put::TooLarge;
        }
        if self.seat.is_none() {
            return Put::NotNow;
        }
        if !self.room.take(self.owner, entry.bytes, entry.is_judged) {
            return Put::NoRoom;
        }
        let (number, label) = (self.next, entry.label());
        self.next += 1;
        self.entries.insert(number, entry);
        self.changes.push(ShelfChange::Put {
            number,
            label,
            content,
        });
        Put::Waits
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

    /// The number that will be given to what waits next.
    pub(crate) fn next(&self) -> u64 {
        self.next
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
            self.freed.0 += 1;
            self.freed.1 += entry.bytes;
            self.changes.push(ShelfChange::Remove { number });
        }
    }

    /// The broker takes a number back, and does not send again what had it. Tells whether anything here had.
    pub(crate) fn taken_back(&mut self, id: u16) -> bool {
        let of_it = |(number, entry): (&u64, &mut Entry)| {
            let is_it = entry.broker == Some(id);
            entry.broker = entry.broker.filter(|_| !is_it);
            is_it.then_some((*number, entry.progress))
        };
        let of_it: Vec<_> = self.entries.iter_mut().filter_map(of_it).collect();
        let is_any = !of_it.is_empty();
        for (number, progress) in of_it {
            match progress {
                Progress::Done => self.remove(number),
                Progress::Waits | Progress::Sent(_) | Progress::Released(_) => {
                    self.progress(number, progress);
                }
            }
        }
        is_any
    }

    /// Makes durable what was changed; where that fails, what was let wait does not.
    pub(crate) async fn keep(&mut self) -> Result<(), NotKept> {
        self.note_session();
        if self.changes.is_empty() {
            return Ok(());
        }
        let changes = std::mem::take(&mut self.changes);
        let new = changes.iter().filter_map(|change| match change {
            ShelfChange::Put { number, .. } => Some(*number),
            ShelfChange::Relabel { .. } | ShelfChange::Remove { .. } => None,
        });
        let new: Vec<_> = new.collect();
        let (messages, bytes) = std::mem::take(&mut self.freed);
        let kept = self.keeping.change(self.owner, changes).await;
        match kept {
            // What is not gone takes room still.
            Ok(()) => self.room.give_back(self.owner, messages, bytes),
            Err(_) => {
                self.session = None;
                for number in new {
                    if let Some(entry) = self.entries.remove(&number) {
                        self.room.give_back(self.owner, 1, entry.bytes);
                    }
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
            let entry = Entry::of_test(progress, 1_700_000_000_000);
            let label = entry.label();
            assert_eq!(label.len(), LABEL_LEN);
            assert_eq!(Entry::read(&label), Some(entry));
            for cut in 0..LABEL_LEN {
                assert_eq!(Entry::read(&label[..cut]), None);
            }
            for (at, value) in [(0, 2), (1, 3), (2, 4), (3, 0x83)] {
                let mut odd = label.clone();
                odd[at] = value;
                assert_eq!(Entry::read(&odd), None, "{at}");
            }
        }
    }
}

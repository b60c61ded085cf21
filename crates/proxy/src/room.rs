//! Room for what waits: how much there is, who has how much of it, and for how long.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sealcast::{ShelfChange, ShelfLabel, ShelfLabels, ShelfOwner};
use tokio::time::{Instant, sleep};

use crate::counts::{Counts, Exception, because};
use crate::lasting::{NUMBER, Session};
use crate::park::{Entry, Keeping, NotKept, Progress, now};
use crate::ruling::Ruling;
use crate::seats::Seats;
use crate::sent;

/// How often it is looked what is too old, and how often where there is no room.
const LOOK_EVERY: Duration = Duration::from_secs(3_600);
const LOOK_EVERY_MIN: Duration = Duration::from_secs(60);

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
    pub(crate) limits: ParkLimits,
    used: Mutex<Option<BTreeMap<ShelfOwner, Used>>>,
    pub(crate) seats: Arc<Seats>,
    looks: tokio::sync::Mutex<()>,
    /// Whether somebody found none since it was looked what is too old.
    is_short: AtomicBool,
    /// When the proxy began, in milliseconds of Unix time.
    began: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Used {
    messages: u64,
    bytes: u64,
    /// Whether they are on their way to the broker, and do not wait.
    is_sent: bool,
}

impl Room {
    pub(crate) fn new(limits: ParkLimits) -> Self {
        Self {
            limits,
            used: Mutex::default(),
            seats: Arc::default(),
            looks: tokio::sync::Mutex::default(),
            is_short: AtomicBool::new(false),
            began: now(),
        }
    }

    /// Finds out what waits since before, and throws away what has for too long.
    pub(crate) async fn look(&self, keeping: &dyn Keeping, counts: &Counts) -> Result<(), NotKept> {
        let _alone = self.looks.lock().await;
        if self.used().is_some() {
            return Ok(());
        }
        let ShelfLabels {
            readable: labels,
            damaged,
        } = keeping.labels(None).await?;
        if damaged > 0 {
            let reason = because::PARK_LOST;
            counts.count(Exception::Dropped, reason, damaged);
            tracing::error!(
                damaged,
                reason,
                "some of what waits cannot be read, and is lost"
            );
        }
        let mut used = BTreeMap::<_, Used>::new();
        for label in labels.iter().filter(|of| of.number != NUMBER) {
            let of = used.entry(label.owner).or_default();
            of.messages += 1;
            of.bytes += bytes_of(label);
            of.is_sent = sent::Label::read(&label.label).is_some();
        }
        self.used().get_or_insert(used);
        self.throw_away(keeping, counts, labels).await;
        Ok(())
    }

    /// Throws away what has waited for too long for those who are not here, what is odd, and all of those whose session is
    /// over. Of those who are here, each connection does.
    async fn throw_away(&self, keeping: &dyn Keeping, counts: &Counts, labels: Vec<ShelfLabel>) {
        let mut all = BTreeMap::<_, Vec<_>>::new();
        for label in labels {
            all.entry(label.owner).or_default().push(label);
        }
        for (owner, labels) in all {
            if self.seats.is_taken(owner) {
                continue;
            }
            let (removed, why) = self.too_much(&labels);
            let (messages, bytes) = sum(&removed);
            let remove = |of: &&ShelfLabel| ShelfChange::Remove { number: of.number };
            let changes: Vec<_> = removed.iter().map(remove).collect();
            // One whose record is damaged keeps nobody else's.
            if !changes.is_empty() && keeping.change(owner, changes).await.is_ok() {
                self.give_back(owner, messages, bytes);
                if messages > 0 {
                    counts.count(Exception::Dropped, why, messages);
                }
            }
        }
    }

    /// What is not to wait any more of what waits for somebody who is not here, and why.
    fn too_much<'a>(&self, labels: &'a [ShelfLabel]) -> (Vec<&'a ShelfLabel>, &'static str) {
        let session = labels.iter().find(|of| of.number == NUMBER);
        let session = session.and_then(|of| Session::read(&of.label));
        if session.is_some_and(|of| of.is_over(now(), self.began)) {
            return (labels.iter().collect(), because::SESSION_OVER);
        }
        // What is on its way has a number that the client may know.
        let is_old =
            |of: &Entry| of.progress == Progress::Waits && of.is_old(now(), self.limits.age_max);
        let is_sent_of_old = |of: sent::Label| of.is_old(now(), self.limits.age_max);
        let is_too_much = |label: &&ShelfLabel| match Entry::read(&label.label) {
            _ if label.number == NUMBER => false,
            Some(entry) => is_old(&entry),
            None => sent::Label::read(&label.label).is_none_or(is_sent_of_old),
        };
        let removed: Vec<_> = labels.iter().filter(is_too_much).collect();
        let kept = labels.len() - removed.len();
        match session.is_some() && kept == 1 {
            // Nothing is left of what waited.
            true => (labels.iter().collect(), because::PARK_OLD),
            false => (removed, because::PARK_OLD),
        }
    }

    /// Throws away what is too old, now and then, and sooner where there is no room. Never ends.
    pub(crate) async fn age(&self, ruling: &Ruling, counts: &Counts) {
        let mut looked = Instant::now();
        loop {
            sleep(LOOK_EVERY_MIN).await;
            let is_short = self.is_short.swap(false, Ordering::Relaxed);
            if !is_short && looked.elapsed() < LOOK_EVERY {
                continue;
            }
            looked = Instant::now();
            let keeping = ruling.now().sealing.keeping();
            if self.used().is_some()
                && let Ok(labels) = keeping.labels(None).await
            {
                self.throw_away(&*keeping, counts, labels.readable).await;
            }
        }
    }

    /// Takes room for something, if there is. A client may have as much as it leaves free, so that whoever comes finds
    /// some: half where it is alone. What may be anybody's finds half the room.
    pub(crate) fn take(&self, owner: ShelfOwner, bytes: u64, is_judged: bool) -> bool {
        let mut used = self.used();
        let Some(used) = used.as_mut() else {
            return false;
        };
        let all = Used::of_all(used);
        let own = used.get(&owner).copied().unwrap_or_default();
        let part = if is_judged { 1 } else { 2 };
        let fits = |own: u64, all: u64, new: u64, max: u64| {
            let free = max.div_ceil(part).checked_sub(all.saturating_add(new));
            free.is_some_and(|free| own.saturating_add(new) <= free)
        };
        let limits = &self.limits;
        let is_room = fits(own.messages, all.messages, 1, limits.messages_max)
            && fits(own.bytes, all.bytes, bytes, limits.bytes_max);
        if is_room {
            let own = used.entry(owner).or_default();
            own.messages += 1;
            own.bytes += bytes;
        }
        self.is_short.fetch_or(!is_room, Ordering::Relaxed);
        is_room
    }

    /// The same for something that is on its way to the broker. It does without room, and what waits is lost: so it
    /// finds half of the room.
    pub(crate) fn take_sent(&self, owner: ShelfOwner, bytes: u64) -> bool {
        let is_room = self.take(owner, bytes, false);
        let mut used = self.used();
        if let Some(of) = used.as_mut().and_then(|of| of.get_mut(&owner)) {
            of.is_sent = true;
        }
        is_room
    }

    pub(crate) fn give_back(&self, owner: ShelfOwner, messages: u64, bytes: u64) {
        let mut used = self.used();
        let Some(used) = used.as_mut() else {
            return;
        };
        if let Some(own) = used.get_mut(&owner) {
            own.messages = own.messages.saturating_sub(messages);
            own.bytes = own.bytes.saturating_sub(bytes);
            if own.messages == 0 {
                used.remove(&owner);
            }
        }
    }

    /// How many messages wait, and how many bytes of them.
    pub(crate) fn taken(&self) -> (u64, u64) {
        let used = self.used();
        let waiting = used.iter().flat_map(BTreeMap::values);
        let waiting = waiting.filter(|of| !of.is_sent);
        waiting.fold((0, 0), |(messages, bytes), of| {
            (messages + of.messages, bytes + of.bytes)
        })
    }

    fn used(&self) -> MutexGuard<'_, Option<BTreeMap<ShelfOwner, Used>>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many messages some labels stand for, and how many bytes.
fn sum(labels: &[&ShelfLabel]) -> (u64, u64) {
    let messages = labels.iter().filter(|of| of.number != NUMBER);
    let bytes = messages.clone().map(|of| bytes_of(of));
    (messages.count() as u64, bytes.sum())
}

/// How many bytes are kept under a label.
fn bytes_of(label: &ShelfLabel) -> u64 {
    let waits = Entry::read(&label.label).map(|of| of.bytes);
    let sent = || sent::Label::read(&label.label).map(|of| of.bytes);
    waits.or_else(sent).unwrap_or_default()
}

impl Used {
    fn of_all(used: &BTreeMap<ShelfOwner, Self>) -> Self {
        used.values().fold(Self::default(), |sum, of| Self {
            messages: sum.messages + of.messages,
            bytes: sum.bytes + of.bytes,
            is_sent: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sealing::Waiting;

    /// Whoever comes after others that take all they can finds room still.
    #[test]
    fn a_client_takes_no_more_than_it_leaves_free() {
        let room = Room::new(ParkLimits {
            messages_max: 64,
            bytes_max: 640,
            ..ParkLimits::default()
        });
        *room.used() = Some(BTreeMap::new());
        let owners = [1, 2, 3, 4, 5].map(|of| ShelfOwner([of; 16]));
        let taken = owners.map(|owner| (0..64).filter(|_| room.take(owner, 1, true)).count());
        assert_eq!(taken, [32, 16, 8, 4, 2]);
        room.give_back(owners[0], 32, 32);
        let again = (0..64).filter(|_| room.take(owners[4], 1, true)).count();
        assert_eq!(again, 16, "what is given back is for all");
        let room = Room::new(room.limits);
        *room.used() = Some(BTreeMap::new());
        let take = |of: usize, bytes| room.take(owners[of], bytes, true);
        assert!(!take(0, 321) && take(0, 320) && !take(0, 1));
        assert!(!take(1, 161) && take(1, 160) && take(2, 80));
    }

    #[test]
    fn what_may_be_anybodys_leaves_room_for_what_is_not() {
        let room = Room::new(ParkLimits {
            messages_max: 8,
            ..ParkLimits::default()
        });
        *room.used() = Some(BTreeMap::new());
        let owners = [1, 2, 3].map(|of| ShelfOwner([of; 16]));
        let taken = owners.map(|owner| (0..9).filter(|_| room.take(owner, 1, false)).count());
        assert_eq!(taken, [2, 1, 0]);
        let taken = owners.map(|owner| (0..9).filter(|_| room.take(owner, 1, true)).count());
        assert_eq!(taken, [1, 1, 1]);
        assert_eq!(room.taken(), (6, 6));
    }

    #[test]
    fn what_is_on_its_way_leaves_room_for_what_waits() {
        let room = Room::new(ParkLimits {
            messages_max: 8,
            ..ParkLimits::default()
        });
        *room.used() = Some(BTreeMap::new());
        let owners = [1, 2, 3, 4].map(|of| ShelfOwner([of; 16]));
        let take = |owner| (0..9).filter(|_| room.take_sent(owner, 1)).count();
        assert_eq!(owners.map(take).iter().sum::<usize>(), 3);
        assert!(room.take(ShelfOwner([9; 16]), 1, true));
        assert_eq!(room.taken(), (1, 1));
    }

    #[test]
    fn the_record_of_a_session_goes_with_the_last_that_waited_for_it() {
        let room = Room::new(ParkLimits::default());
        let label = |number, label| ShelfLabel {
            owner: ShelfOwner([1; 16]),
            number,
            label,
        };
        let session = Session {
            seconds: u32::MAX - 1,
            left: now(),
        };
        let record = label(NUMBER, session.encode());
        let waits = |number, arrived| {
            let entry = Entry::of_test(Progress::Waits, arrived);
            label(number, entry.label())
        };
        let all = [record.clone(), waits(1, 0)];
        assert_eq!(
            room.too_much(&all),
            (all.iter().collect(), because::PARK_OLD)
        );
        let some = [record, waits(1, 0), waits(2, now())];
        assert_eq!(room.too_much(&some).0, [&some[1]]);
    }

    /// Notes of whom something was thrown away, and how much; of one that fails.
    #[derive(Debug, Default)]
    struct Notes(Mutex<Vec<(ShelfOwner, usize)>>);

    const DAMAGED: ShelfOwner = ShelfOwner([0; 16]);

    impl Keeping for Notes {
        fn labels(&self, _: Option<ShelfOwner>) -> Waiting<'_, Result<ShelfLabels, NotKept>> {
            let of = |owner, number, progress, arrived| {
                let entry = Entry::of_test(progress, arrived);
                let label = entry.label();
                ShelfLabel {
                    owner: ShelfOwner([owner; 16]),
                    number,
                    label,
                }
            };
            let labels = vec![
                of(1, 1, Progress::Waits, 0),
                of(1, 2, Progress::Waits, now()),
                of(1, 3, Progress::Sent(65_535), 0),
                of(2, 1, Progress::Waits, 0),
                of(0, 1, Progress::Waits, 0),
            ];
            let labels = ShelfLabels {
                readable: labels,
                damaged: 0,
            };
            Box::pin(async move { Ok(labels) })
        }

        fn contents(
            &self,
            _: ShelfOwner,
            _: Vec<u64>,
        ) -> Waiting<'_, Result<Vec<Option<Vec<u8>>>, NotKept>> {
            Box::pin(async { Ok(Vec::new()) })
        }

        fn change(
            &self,
            owner: ShelfOwner,
            changes: Vec<ShelfChange>,
        ) -> Waiting<'_, Result<(), NotKept>> {
            self.0.lock().unwrap().push((owner, changes.len()));
            let fails = owner == DAMAGED;
            Box::pin(async move { if fails { Err(NotKept::DAMAGED) } else { Ok(()) } })
        }
    }

    /// Of those who do not come back; what is on its way to somebody has a number.
    #[tokio::test]
    async fn what_waits_for_too_long_is_thrown_away_though_nobody_comes_for_it() {
        let (room, notes) = (Room::new(ParkLimits::default()), Notes::default());
        let [one, other] = [1, 2].map(|of| ShelfOwner([of; 16]));
        let seated = room.seats.take(other, &Arc::default()).await;
        room.look(&notes, &Counts::default()).await.unwrap();
        assert_eq!(*notes.0.lock().unwrap(), [(DAMAGED, 1), (one, 1)]);
        assert_eq!(room.taken().0, 4);
        drop(seated);
        notes.0.lock().unwrap().clear();
        let labels = notes.labels(None).await.unwrap().readable;
        room.throw_away(&notes, &Counts::default(), labels).await;
        assert!(notes.0.lock().unwrap().contains(&(other, 1)));
    }
}

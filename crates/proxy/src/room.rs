//! Room for what waits: how much there is, who has how much of it, and for how long.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sealcast::{ShelfChange, ShelfLabel, ShelfOwner};
use tokio::time::{Instant, sleep};

use crate::park::{Entry, Keeping, NotKept, Progress, now};
use crate::ruling::Ruling;
use crate::seats::Seats;

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
            seats: Arc::default(),
            looks: tokio::sync::Mutex::default(),
            is_short: AtomicBool::new(false),
        }
    }

    /// Finds out what waits since before, and throws away what has for too long.
    pub(crate) async fn look(&self, keeping: &dyn Keeping) -> Result<(), NotKept> {
        let _alone = self.looks.lock().await;
        if self.used().is_some() {
            return Ok(());
        }
        let labels = keeping.labels(None).await?;
        let mut used = BTreeMap::<_, Used>::new();
        for label in &labels {
            let of = used.entry(label.owner).or_default();
            of.messages += 1;
            of.bytes += Entry::read(&label.label).map_or(0, |entry| entry.bytes);
        }
        self.used().get_or_insert(used);
        self.throw_away(keeping, labels).await;
        Ok(())
    }

    /// Throws away what has waited for too long for those who are not here, and what is odd. Of those who are, each
    /// connection does.
    async fn throw_away(&self, keeping: &dyn Keeping, labels: Vec<ShelfLabel>) {
        let mut old = BTreeMap::<_, Vec<_>>::new();
        for label in labels {
            let entry = Entry::read(&label.label);
            // What is on its way has a number that the client may know.
            let is_old = |of: &Entry| {
                of.progress == Progress::Waits && of.is_old(now(), self.limits.age_max)
            };
            if entry.as_ref().is_none_or(is_old) {
                let bytes = entry.map_or(0, |of| of.bytes);
                let of_owner = old.entry(label.owner).or_default();
                of_owner.push((label.number, bytes));
            }
        }
        for (owner, some) in old {
            if self.seats.is_taken(owner) {
                continue;
            }
            let remove = |(number, _): &(u64, u64)| ShelfChange::Remove { number: *number };
            let changes = some.iter().map(remove).collect();
            // One whose record is damaged keeps nobody else's.
            if keeping.change(owner, changes).await.is_ok() {
                let bytes = some.iter().map(|(_, bytes)| bytes).sum();
                self.give_back(owner, some.len() as u64, bytes);
            }
        }
    }

    /// Throws away what is too old, now and then, and sooner where there is no room. Never ends.
    pub(crate) async fn age(&self, ruling: &Ruling) {
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
                self.throw_away(&*keeping, labels).await;
            }
        }
    }

    /// Takes room for something, if there is. One client may have half of it; and half of that what may be anybody's.
    pub(crate) fn take(&self, owner: ShelfOwner, bytes: u64, is_judged: bool) -> bool {
        let mut used = self.used();
        let Some(used) = used.as_mut() else {
            return false;
        };
        let all = Used::of_all(used);
        let own = used.get(&owner).copied().unwrap_or_default();
        let fits = |of: Used, part: u64| {
            of.messages < self.limits.messages_max.div_ceil(part)
                && of.bytes + bytes <= self.limits.bytes_max.div_ceil(part)
        };
        let whole = if is_judged { 1 } else { 2 };
        let is_room = fits(all, whole) && fits(own, 2 * whole);
        if is_room {
            let own = used.entry(owner).or_default();
            own.messages += 1;
            own.bytes += bytes;
        }
        self.is_short.fetch_or(!is_room, Ordering::Relaxed);
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
        let all = self.used().as_ref().map(Used::of_all).unwrap_or_default();
        (all.messages, all.bytes)
    }

    fn used(&self) -> MutexGuard<'_, Option<BTreeMap<ShelfOwner, Used>>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Used {
    fn of_all(used: &BTreeMap<ShelfOwner, Self>) -> Self {
        used.values().fold(Self::default(), |sum, of| Self {
            messages: sum.messages + of.messages,
            bytes: sum.bytes + of.bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sealing::Waiting;

    #[test]
    fn one_client_takes_no_more_than_half_of_the_room() {
        let room = Room::new(ParkLimits {
            messages_max: 4,
            bytes_max: 100,
            ..ParkLimits::default()
        });
        *room.used() = Some(BTreeMap::new());
        let [one, other, third] = [1, 2, 3].map(|of| ShelfOwner([of; 16]));
        let take = |owner, bytes| room.take(owner, bytes, true);
        assert!(take(one, 10) && take(one, 10) && !take(one, 10));
        assert!(!take(other, 51) && take(other, 50));
        assert!(take(third, 30) && !take(third, 0), "it is full");
        room.give_back(one, 1, 10);
        assert!(take(third, 0));
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
        assert_eq!(taken, [2, 2, 0]);
        let taken = owners.map(|owner| (0..9).filter(|_| room.take(owner, 1, true)).count());
        assert_eq!(taken, [2, 2, 0]);
        assert_eq!(room.taken(), (8, 8));
    }

    /// Notes of whom something was thrown away, and how much; of one that fails.
    #[derive(Debug, Default)]
    struct Notes(Mutex<Vec<(ShelfOwner, usize)>>);

    const DAMAGED: ShelfOwner = ShelfOwner([0; 16]);

    impl Keeping for Notes {
        fn labels(&self, _: Option<ShelfOwner>) -> Waiting<'_, Result<Vec<ShelfLabel>, NotKept>> {
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
        room.look(&notes).await.unwrap();
        assert_eq!(*notes.0.lock().unwrap(), [(DAMAGED, 1), (one, 1)]);
        assert_eq!(room.taken().0, 4);
        drop(seated);
        notes.0.lock().unwrap().clear();
        let labels = notes.labels(None).await.unwrap();
        room.throw_away(&notes, labels).await;
        assert!(notes.0.lock().unwrap().contains(&(other, 1)));
    }
}

//! Requests that wait for device lists.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};

use sealcast_crypto::Digest;
use sealcast_protocol::{DeviceId, NodeRequest, Position, UserId, Verified};

use super::SKEW_MS;
use crate::asking::intake::Incoming;
use crate::view::StreamView;

/// Requests that wait, at most, of each kind; and in one user's name.
const WAITING_MAX: usize = 64;
const OF_ONE_MAX: usize = 8;
/// Time between two readings of one device list.
const LIST_PAUSE_MS: u64 = 10_000;
/// Time between two readings of the access log for users whom it does not name.
const LOG_PAUSE_MS: u64 = 1_000;
/// Devices of one user of which it is remembered that they named a newer list than the bus shows, at most. A
/// user can push out its own.
const PINS_OF_ONE_MAX: usize = 64;

/// Requests that wait for device lists, and whose lists are read.
#[derive(Debug, Default)]
pub(super) struct WaitingRoom {
    /// In the name of users whom the access log names, and of others, who may be named by what has not come
    /// yet. Whether their devices signed them nobody knows.
    named: Queue<Incoming<NodeRequest>>,
    others: Queue<Incoming<NodeRequest>>,
    /// Signed by a device that is in a list, of which more is to come.
    signed: Queue<Verified<NodeRequest>>,
    lists_read: BTreeMap<UserId, Position>,
    /// When the log was last read for others.
    log_read: Option<Position>,
    /// How many entries a user's list has at least, by the words of its devices.
    pins: BTreeMap<UserId, BTreeMap<DeviceId, u32>>,
}

/// The oldest first.
#[derive(Debug)]
struct Queue<T>(VecDeque<(Position, T)>);

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

/// A request, whether or not its signature was checked.
trait Asked {
    fn user(&self) -> UserId;
    fn digest(&self) -> Digest;
}

impl Asked for Incoming<NodeRequest> {
    fn user(&self) -> UserId {
        self.item.claims().user
    }

    fn digest(&self) -> Digest {
        self.item.digest()
    }
}

impl Asked for Verified<NodeRequest> {
    fn user(&self) -> UserId {
        self.body().user
    }

    fn digest(&self) -> Digest {
        self.digest()
    }
}

impl<T: Asked> Queue<T> {
    /// Whoever sends many pushes out its own.
    fn push(&mut self, since: Position, asked: T) {
        if self.0.iter().any(|(_, of)| of.digest() == asked.digest()) {
            return;
        }
        let user = asked.user();
        let mut of_user = self.0.iter().filter(|(_, of)| of.user() == user);
        let out = match of_user.nth(OF_ONE_MAX - 1) {
            Some(_) => self.0.iter().position(|(_, of)| of.user() == user),
            None => (self.0.len() >= WAITING_MAX).then_some(0),
        };
        if let Some(out) = out {
            self.0.remove(out);
        }
        self.0.push_back((since, asked));
    }

    /// Takes out what has not waited too long.
    fn take(&mut self, now: Position) -> impl Iterator<Item = (Position, T)> + use<T> {
        let all = core::mem::take(&mut self.0).into_iter();
        all.filter(move |(since, _)| now < since.after(SKEW_MS))
    }
}

impl WaitingRoom {
    /// Lets a request wait whose device is in no list that is known.
    pub(super) fn push(
        &mut self,
        view: &StreamView,
        since: Position,
        incoming: Incoming<NodeRequest>,
    ) {
        match view.names(&incoming.user()) {
            true => self.named.push(since, incoming),
            false => self.others.push(since, incoming),
        }
    }

    /// Lets a request wait that a device in a list signed, and that names a newer list.
    pub(super) fn push_signed(&mut self, since: Position, asked: Verified<NodeRequest>) {
        let body = asked.body();
        let pins = self.pins.entry(body.user).or_default();
        let pin = pins.entry(body.device).or_default();
        *pin = body.list.seq.max(*pin);
        if pins.len() > PINS_OF_ONE_MAX {
            let least = pins.iter().min_by_key(|(_, seq)| **seq);
            let least = least.map(|(device, _)| *device);
            least.map(|device| pins.remove(&device));
        }
        self.signed.push(since, asked);
    }

    /// Takes out what nobody checked.
    pub(super) fn take(
        &mut self,
        now: Position,
    ) -> impl Iterator<Item = (Position, Incoming<NodeRequest>)> + use<> {
        self.named.take(now).chain(self.others.take(now))
    }

    /// Takes out what is signed.
    pub(super) fn take_signed(
        &mut self,
        now: Position,
    ) -> impl Iterator<Item = (Position, Verified<NodeRequest>)> + use<> {
        self.signed.take(now)
    }

    /// Whether the list of a user is to be read now.
    pub(super) fn is_to_read(&mut self, now: Position, user: UserId) -> bool {
        self.lists_read
            .retain(|_, at| now < at.after(LIST_PAUSE_MS));
        let is_due = !self.lists_read.contains_key(&user) && self.lists_read.len() < WAITING_MAX;
        if is_due {
            self.lists_read.insert(user, now);
        }
        is_due
    }

    /// From when on the log may be read again for those whom it does not name.
    pub(super) fn log_due_at(&self) -> Position {
        let after = |at: Position| at.after(LOG_PAUSE_MS);
        self.log_read.map_or(Position::START, after)
    }

    /// Whether the log may be read for them now; then it is.
    pub(super) fn take_log_turn(&mut self, now: Position) -> bool {
        let is_due = self.log_due_at() <= now;
        if is_due {
            self.log_read = Some(now);
        }
        is_due
    }

    /// Users of whose lists one of their devices knows more than the bus shows. What a revoked one says
    /// is nothing.
    pub(super) fn withheld(&self, view: &StreamView) -> BTreeSet<UserId> {
        let is_withheld = |user: &UserId, pins: &BTreeMap<DeviceId, u32>| {
            let next = view.list(user).map_or(0, |list| list.next_seq());
            let mut ahead = pins.iter().filter(|(_, seq)| next <= **seq);
            ahead.any(|(device, _)| !view.is_card_revoked(user, device))
        };
        let pins = self.pins.iter();
        let withheld = pins.filter(|(user, pins)| is_withheld(user, pins));
        withheld.map(|(user, _)| *user).collect()
    }
}

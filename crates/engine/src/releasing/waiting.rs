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
/// How long a user whom the access log does not name has a place.
const STRANGER_MS: u64 = 3_600_000;
/// Devices of which it is remembered that they named a newer list than the bus shows, at most.
const PINS_MAX: usize = 4_096;

/// Requests that wait for device lists, and whose lists are read.
#[derive(Debug, Default)]
pub(super) struct WaitingRoom {
    /// In the name of users whom the access log names, and of others. Whether their devices signed them
    /// nobody knows.
    named: Queue<Incoming<NodeRequest>>,
    others: Queue<Incoming<NodeRequest>>,
    /// Signed by a device that is in a list, of which more is to come.
    signed: Queue<Verified<NodeRequest>>,
    lists_read: BTreeMap<UserId, Position>,
    /// Users whom the log does not name and whose lists were read, and when they last were.
    strangers: BTreeMap<UserId, Position>,
    /// How many entries a user's list has at least, by the word of one of its devices.
    pins: BTreeMap<DeviceId, (UserId, u32)>,
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
        let device = body.device;
        if self.pins.len() < PINS_MAX || self.pins.contains_key(&device) {
            let pin = self.pins.entry(device).or_insert((body.user, 0));
            pin.1 = pin.1.max(body.list.seq);
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

    /// Whether a user whom the log does not name has a place among so many, or can have one. Those make
    /// room who turn out to have no list, and all of them after a while.
    pub(super) fn has_place(
        &mut self,
        now: Position,
        view: &StreamView,
        user: &UserId,
        places: usize,
    ) -> bool {
        let has_list = |user: &UserId| {
            let mut devices = view.list(user).into_iter().flat_map(|of| of.devices());
            devices.next().is_some()
        };
        self.strangers.retain(|user, since| {
            let until = if has_list(user) {
                STRANGER_MS
            } else {
                LIST_PAUSE_MS
            };
            now < since.after(until)
        });
        self.strangers.contains_key(user) || self.strangers.len() < places
    }

    /// Gives a user a place.
    pub(super) fn give_place(&mut self, now: Position, user: UserId) {
        self.strangers.entry(user).or_insert(now);
    }

    /// Users of whose lists one of their devices knows more than the bus shows. What a revoked one says
    /// is nothing.
    pub(super) fn withheld(&self, view: &StreamView) -> BTreeSet<UserId> {
        let pins = self.pins.iter().filter(|(device, (user, seq))| {
            let next = view.list(user).map_or(0, |list| list.next_seq());
            next <= *seq && !view.is_card_revoked(user, device)
        });
        pins.map(|(_, (user, _))| *user).collect()
    }
}

//! One open request of this device.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use sealcast_crypto::UnwrapKey;
use sealcast_protocol::{
    CoverSpec, DeviceId, Interval, Position, RefusalReason, SessionId, Solicitation, UserId, Want,
    wrap_key_hash,
};

/// Covers of one session that are taken of one giver, at most.
const COVERS_MAX: usize = 8;
/// Users who are no keyholders and whose answers to one request are taken, at most; devices of each
/// of them, and sessions of each device.
const OTHER_USERS_MAX: usize = 8;
const OTHER_DEVICES_MAX: usize = 8;
const OTHER_SESSIONS_MAX: usize = 1_024;

/// What was asked for, with the key that opens the answers.
#[derive(Debug)]
pub(super) struct Request {
    /// Wiped with the request.
    pub(super) key: UnwrapKey,
    pub(super) key_hash: [u8; 32],
    pub(super) expires: Position,
    pub(super) places: Vec<Place>,
    pub(super) receipt_at: Option<Position>,
    /// What was sent, and when it is sent once more, as long as nobody has answered.
    pub(super) unanswered: Option<(Position, Box<Solicitation>)>,
    taken: BTreeMap<DeviceId, BTreeMap<SessionId, BTreeSet<Interval>>>,
    /// Who answered and is no keyholder.
    others: BTreeMap<UserId, BTreeSet<DeviceId>>,
}

/// A want at its place in a request.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) want: Want,
    pub(super) state: PlaceState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PlaceState {
    /// Nothing has worked; what a keyholder said that has no last word here.
    Open(Option<RefusalReason>),
    /// It works, and no receipt has said so.
    Met,
    /// It works, and a receipt has said so.
    Acknowledged,
    /// It was refused by someone who has the last word.
    Refused(RefusalReason),
}

impl Place {
    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, PlaceState::Open(_))
    }

    pub(super) fn is_met(&self) -> bool {
        matches!(self.state, PlaceState::Met | PlaceState::Acknowledged)
    }

    pub(super) fn refusal(&self) -> Option<RefusalReason> {
        match self.state {
            PlaceState::Open(said) => said,
            PlaceState::Refused(reason) => Some(reason),
            PlaceState::Met | PlaceState::Acknowledged => None,
        }
    }
}

impl Request {
    pub(super) fn new(
        key: UnwrapKey,
        sent: Box<Solicitation>,
        repeat_at: Position,
        expires: Position,
    ) -> Self {
        let place = |want: &Want| Place {
            want: *want,
            state: PlaceState::Open(None),
        };
        Self {
            key_hash: wrap_key_hash(&key.wrap_key()),
            key,
            expires,
            places: sent.wants.iter().map(place).collect(),
            receipt_at: None,
            unanswered: (repeat_at < expires).then_some((repeat_at, sent)),
            taken: BTreeMap::new(),
            others: BTreeMap::new(),
        }
    }

    /// When it is sent once more, unless somebody answers.
    pub(super) fn repeat_at(&self) -> Option<Position> {
        self.unanswered.as_ref().map(|(at, _)| *at)
    }

    /// Whether nothing is left to wait for.
    pub(super) fn is_settled(&self) -> bool {
        !self.places.iter().any(Place::is_open)
    }

    /// Whether it is to end: at its time, or when all is settled. Keys of every session of a lane may
    /// come in several answers, and it waits for them.
    pub(super) fn is_over(&self, now: Position) -> bool {
        let is_wide = |of: &Place| of.is_met() && of.want.session == Want::EVERY_SESSION;
        self.expires <= now || (self.is_settled() && !self.places.iter().any(is_wide))
    }

    /// Whether a cover of a lane lies in what was asked for.
    pub(super) fn asks_for(&self, lane: &UserId, cover: &CoverSpec) -> bool {
        self.places.iter().any(|place| {
            place.want.lane == *lane
                && place.want.names(&cover.session)
                && place.want.interval.covers(&cover.interval)
        })
    }

    /// Whether a giver is let in, and gives something that it has not given before.
    pub(super) fn has_room(
        &self,
        (user, device): (UserId, DeviceId),
        is_keyholder: bool,
        of: &[CoverSpec],
    ) -> bool {
        let sessions = self.taken.get(&device);
        let taken = |cover: &CoverSpec| sessions.and_then(|of| of.get(&cover.session));
        let is_known =
            |cover: &CoverSpec| taken(cover).is_some_and(|of| of.contains(&cover.interval));
        let is_too_much = |cover: &CoverSpec| taken(cover).is_some_and(|of| of.len() >= COVERS_MAX);
        let is_heard = match self.others.get(&user) {
            Some(devices) => devices.contains(&device) || devices.len() < OTHER_DEVICES_MAX,
            None => self.others.len() < OTHER_USERS_MAX,
        };
        let has_few = sessions.is_none_or(|of| of.len() < OTHER_SESSIONS_MAX);
        !of.iter().all(is_known)
            && !of.iter().any(is_too_much)
            && (is_keyholder || (is_heard && has_few))
    }

    /// Notes what a giver gave.
    pub(super) fn note(
        &mut self,
        (user, device): (UserId, DeviceId),
        is_keyholder: bool,
        of: &[CoverSpec],
    ) {
        self.unanswered = None;
        let sessions = self.taken.entry(device).or_default();
        for cover in of {
            let taken = sessions.entry(cover.session).or_default();
            taken.insert(cover.interval);
        }
        if !is_keyholder {
            self.others.entry(user).or_default().insert(device);
        }
    }

    /// The places that have been met since the last receipt; this one names them.
    pub(super) fn acknowledge(&mut self) -> Vec<u8> {
        self.receipt_at = None;
        let mut named = Vec::new();
        for (place, at) in self.places.iter_mut().zip(0..) {
            if place.state == PlaceState::Met {
                place.state = PlaceState::Acknowledged;
                named.push(at);
            }
        }
        named
    }
}

//! What a key node remembers of requests, each of it for a time.

use alloc::collections::{BTreeMap, BTreeSet};

use sealcast_protocol::{DeviceId, Position, RequestId, UserId};

use super::node::ReleaserLimits;
use crate::asking::pace::Pace;

/// A request, by who asked.
pub(super) type Key = (DeviceId, RequestId);

/// Requests that are remembered, at most. More are not taken until some are forgotten.
const SEEN_MAX: usize = 262_144;
/// Users who asked lately, at most.
const USERS_MAX: usize = 65_536;
/// Refusals of one user's requests that are told and kept at once, at most, and one more a minute.
const REFUSALS_AT_ONCE: u32 = 64;
const REFUSAL_EVERY_MS: u64 = 60_000;
/// How often it is kept how many were turned away.
const TELL_EVERY_MS: u64 = 3_600_000;

/// Requests that were refused and have no audit entry of their own.
#[derive(Debug, Default)]
pub(super) struct TurnedAway {
    count: u64,
    told_at: Option<Position>,
}

impl TurnedAway {
    pub(super) fn note(&mut self) {
        self.count = self.count.saturating_add(1);
    }

    /// From when on there is something to keep.
    pub(super) fn due_at(&self) -> Option<Position> {
        let after = |at: Position| at.after(TELL_EVERY_MS);
        (self.count > 0).then(|| self.told_at.map_or(Position::START, after))
    }

    /// How many there were since this last told, where it is time to keep it.
    pub(super) fn due(&mut self, now: Position) -> Option<u64> {
        let is_due = self.due_at().is_some_and(|at| at <= now);
        is_due.then(|| {
            self.told_at = Some(now);
            core::mem::take(&mut self.count)
        })
    }
}

#[derive(Debug)]
pub(super) struct Memory {
    limits: ReleaserLimits,
    users: BTreeMap<UserId, Load>,
    /// Until nobody could take a replay for a new request.
    seen: BTreeSet<Key>,
    seen_until: BTreeSet<(Position, Key)>,
}

/// What one user may have.
#[derive(Debug)]
struct Load {
    requests: Pace,
    segments: Pace,
    refusals: Pace,
}

impl Memory {
    pub(super) fn new(limits: ReleaserLimits) -> Self {
        Self {
            limits,
            users: BTreeMap::new(),
            seen: BTreeSet::new(),
            seen_until: BTreeSet::new(),
        }
    }

    /// Forgets what is over.
    pub(super) fn forget(&mut self, now: Position) {
        while let Some((at, key)) = self.seen_until.first().copied()
            && at <= now
        {
            self.seen_until.remove(&(at, key));
            self.seen.remove(&key);
        }
        if self.users.len() >= USERS_MAX {
            self.users.retain(|_, load| {
                let minutes = Position(now.0 / (REFUSAL_EVERY_MS / 1_000));
                !(load.requests.is_full(now)
                    && load.segments.is_full(now)
                    && load.refusals.is_full(minutes))
            });
        }
    }

    pub(super) fn has_seen(&self, key: &Key) -> bool {
        self.seen.contains(key)
    }

    /// Remembers a request until a time.
    pub(super) fn see(&mut self, key: Key, until: Position) {
        self.seen.insert(key);
        self.seen_until.insert((until, key));
    }

    /// Lets a request in once, as often as its user may ask.
    pub(super) fn admit(
        &mut self,
        now: Position,
        user: UserId,
        (key, until): (Key, Position),
    ) -> bool {
        let has_room = self.seen.len() < SEEN_MAX && !self.seen.contains(&key);
        let admitted = has_room && self.load(user).is_some_and(|load| load.requests.take(now));
        if admitted {
            self.see(key, until);
        }
        admitted
    }

    /// Takes so many segments, or none; then when there will be as many, in milliseconds.
    pub(super) fn take_segments(
        &mut self,
        now: Position,
        user: UserId,
        count: usize,
    ) -> Result<(), u64> {
        let per_second = self.limits.segments_per_second;
        let Some(load) = self.load(user) else {
            return Err(1_000);
        };
        let mut then = load.segments;
        if then.take_some(now, count) < count {
            return Err((count as u64 * 1_000).div_ceil(u64::from(per_second.max(1))));
        }
        load.segments = then;
        Ok(())
    }

    /// Whether another refusal is told to this user.
    pub(super) fn may_refuse(&mut self, now: Position, user: UserId) -> bool {
        let minutes = Position(now.0 / (REFUSAL_EVERY_MS / 1_000));
        self.load(user)
            .is_some_and(|load| load.refusals.take(minutes))
    }

    fn load(&mut self, user: UserId) -> Option<&mut Load> {
        if self.users.len() >= USERS_MAX && !self.users.contains_key(&user) {
            return None;
        }
        let ReleaserLimits {
            requests_per_second,
            requests_at_once,
            segments_per_second,
            segments_at_once,
            ..
        } = self.limits;
        Some(self.users.entry(user).or_insert_with(|| Load {
            requests: Pace::new(requests_per_second, requests_at_once),
            segments: Pace::new(segments_per_second, segments_at_once),
            refusals: Pace::new(1, REFUSALS_AT_ONCE),
        }))
    }
}

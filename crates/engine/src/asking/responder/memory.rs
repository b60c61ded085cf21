//! What is remembered of requests that are done with, each of it for a time.

use alloc::collections::{BTreeMap, BTreeSet};

use sealcast_protocol::{DeviceId, Position, RefusalReason, UserId, Want};

use super::Key;
use crate::asking::pace::Pace;

/// How far another clock may be off, in milliseconds: two minutes.
pub(super) const SKEW_MS: u64 = 120_000;
/// Requests of one user that are remembered, at most. More are not taken until some are forgotten.
const SEEN_OF_USER_MAX: u32 = 1_024;
/// Covers that one user is given at once, at most, and how many more a second.
const COVERS_AT_ONCE: u32 = 4_096;
const COVERS_PER_SECOND: u32 = 8;
/// Users who asked lately, at most.
const USERS_MAX: usize = 65_536;
/// Refusals that are remembered, at most.
const REFUSED_MAX: usize = 16_384;
/// How long a refusal is remembered, in milliseconds; and one because somebody was asked to decide,
/// who may have done so when the asker comes again.
const REFUSED_MS: u64 = 600_000;
const PENDING_MS: u64 = 20_000;

#[derive(Debug)]
pub(super) struct Memory {
    per_second: u32,
    users: BTreeMap<UserId, Load>,
    /// Until nobody could take a replay for a new request.
    seen: BTreeMap<Key, UserId>,
    seen_until: BTreeSet<(Position, Key)>,
    refused: BTreeMap<(DeviceId, Want), Position>,
    refused_until: BTreeSet<(Position, DeviceId, Want)>,
}

/// What one user's requests take up.
#[derive(Debug)]
struct Load {
    pace: Pace,
    covers: Pace,
    seen: u32,
    open: usize,
}

impl Memory {
    pub(super) fn new(per_second: u32) -> Self {
        Self {
            per_second,
            users: BTreeMap::new(),
            seen: BTreeMap::new(),
            seen_until: BTreeSet::new(),
            refused: BTreeMap::new(),
            refused_until: BTreeSet::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.users.len() + self.seen.len() + self.refused.len()
    }

    /// Forgets what is over.
    pub(super) fn forget(&mut self, now: Position) {
        while let Some((at, key)) = self.seen_until.first().copied()
            && at <= now
        {
            self.seen_until.remove(&(at, key));
            let user = self.seen.remove(&key);
            if let Some(load) = user.and_then(|user| self.users.get_mut(&user)) {
                load.seen = load.seen.saturating_sub(1);
            }
        }
        while let Some((at, device, want)) = self.refused_until.first().copied()
            && at <= now
        {
            self.refused_until.remove(&(at, device, want));
            self.refused.remove(&(device, want));
        }
    }

    pub(super) fn has_seen(&self, key: &Key) -> bool {
        self.seen.contains_key(key)
    }

    /// Counts a request of a user. False where the user asks too much.
    pub(super) fn admit(
        &mut self,
        now: Position,
        user: UserId,
        open_max: usize,
        (key, until): (Key, Position),
    ) -> bool {
        if !self.users.contains_key(&user) && self.users.len() >= USERS_MAX {
            let is_idle = |of: &Load| {
                of.seen == 0 && of.open == 0 && of.pace.is_full(now) && of.covers.is_full(now)
            };
            self.users.retain(|_, load| !is_idle(load));
            if self.users.len() >= USERS_MAX {
                return false;
            }
        }
        let per_second = self.per_second;
        let load = self.users.entry(user).or_insert_with(|| Load {
            pace: Pace::new(per_second, per_second),
            covers: Pace::new(COVERS_PER_SECOND, COVERS_AT_ONCE),
            seen: 0,
            open: 0,
        });
        if load.open >= open_max || load.seen >= SEEN_OF_USER_MAX || !load.pace.take(now) {
            return false;
        }
        load.open += 1;
        load.seen += 1;
        self.seen.insert(key, user);
        self.seen_until.insert((until, key));
        true
    }

    /// Whether a user may be given anything now.
    pub(super) fn may_give(&self, now: Position, user: &UserId) -> bool {
        let load = self.users.get(user);
        load.is_some_and(|load| load.covers.is_ready(now))
    }

    /// How many of some covers a user may be given now; they count as given.
    pub(super) fn take_covers(&mut self, now: Position, user: &UserId, wanted: usize) -> usize {
        let load = self.users.get_mut(user);
        load.map_or(0, |load| load.covers.take_some(now, wanted))
    }

    /// A request of a user is not open any more.
    pub(super) fn close(&mut self, user: &UserId) {
        if let Some(load) = self.users.get_mut(user) {
            load.open = load.open.saturating_sub(1);
        }
    }

    pub(super) fn was_refused(&self, asker: DeviceId, want: &Want) -> bool {
        self.refused.contains_key(&(asker, *want))
    }

    pub(super) fn note_refused(
        &mut self,
        now: Position,
        asker: DeviceId,
        want: Want,
        reason: RefusalReason,
    ) {
        let until = now.after(match reason {
            RefusalReason::NotEntitled | RefusalReason::UnknownSession => REFUSED_MS,
            RefusalReason::PendingApproval => PENDING_MS,
        });
        if let Some(at) = self.refused.insert((asker, want), until) {
            self.refused_until.remove(&(at, asker, want));
        }
        self.refused_until.insert((until, asker, want));
        if self.refused.len() > REFUSED_MAX
            && let Some((_, asker, want)) = self.refused_until.pop_first()
        {
            self.refused.remove(&(asker, want));
        }
    }
}

//! When the keys are read again since the log gives this device other parts of lanes than it did.

use alloc::collections::{BTreeMap, BTreeSet};

use sealcast_protocol::{Position, UserId};

use crate::asking::pace::Pace;
use crate::asking::steady::Steady;

/// How often they are for what changes in one lane, at once, and one time more a minute. A publisher may
/// write as many grants of its own lane as it likes.
const AT_ONCE: u32 = 64;
const EVERY_MS: u64 = 60_000;

#[derive(Debug)]
pub(super) struct Regrants {
    steady: Steady,
    /// Lanes of which they were not read again yet.
    owed: BTreeSet<UserId>,
    paces: BTreeMap<UserId, Pace>,
}

impl Default for Regrants {
    fn default() -> Self {
        Self {
            steady: Steady::new(),
            owed: BTreeSet::new(),
            paces: BTreeMap::new(),
        }
    }
}

impl Regrants {
    /// Notes that the log gives other parts of a lane.
    pub(super) fn owe(&mut self, lane: UserId) {
        self.owed.insert(lane);
    }

    pub(super) fn is_owed(&self) -> bool {
        !self.owed.is_empty()
    }

    /// Whether they are read again now, for all lanes at once. One lane's turn that has come is enough.
    pub(super) fn take(&mut self, now: Position, is_read_anyway: bool) -> bool {
        let minutes = Position(self.steady.read(now).0 / (EVERY_MS / 1_000));
        let mut is_due = is_read_anyway;
        for lane in &self.owed {
            let pace = self.paces.entry(*lane);
            let pace = pace.or_insert_with(|| Pace::new(1, AT_ONCE));
            is_due |= pace.take(minutes);
        }
        if is_due {
            self.owed.clear();
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_that_changes_without_end_does_not_hold_up_another() {
        let (one, two) = (UserId([1; 32]), UserId([2; 32]));
        let mut regrants = Regrants::default();
        let mut now = Position(1 << 40);
        for _ in 0..AT_ONCE {
            regrants.owe(one);
            assert!(regrants.take(now, false));
        }
        regrants.owe(one);
        assert!(!regrants.take(now, false) && regrants.is_owed());
        regrants.owe(two);
        assert!(regrants.take(now, false) && !regrants.is_owed());
        regrants.owe(one);
        // A clock that is set back holds up nothing.
        now = Position(1 << 39);
        assert!(!regrants.take(now, false));
        assert!(regrants.take(now.after(EVERY_MS), false));
        assert!(!regrants.take(now.after(EVERY_MS), false));
    }
}

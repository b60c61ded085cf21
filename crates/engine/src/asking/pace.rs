//! How often something may be done: a bucket that fills with time.

use sealcast_protocol::Position;

/// Allows so many a second, and as many at once as have gathered.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    per_second: u64,
    /// Thousandths of a token; below zero are those that were taken before they were there.
    level: i64,
    capacity: i64,
    at: Position,
}

impl Pace {
    /// Starts full, with room for `at_once`.
    pub fn new(per_second: u32, at_once: u32) -> Self {
        let capacity = i64::from(at_once.max(1)) * 1_000;
        Self {
            per_second: u64::from(per_second.max(1)),
            level: capacity,
            capacity,
            at: Position::START,
        }
    }

    /// Takes one, if there is one.
    pub fn take(&mut self, now: Position) -> bool {
        self.fill(now);
        let is_ready = self.level >= 1_000;
        if is_ready {
            self.level -= 1_000;
        }
        is_ready
    }

    /// Takes as many as there are, and no more than are wanted.
    pub(crate) fn take_some(&mut self, now: Position, wanted: usize) -> usize {
        self.fill(now);
        let there = usize::try_from(self.level / 1_000).unwrap_or(0);
        let taken = wanted.min(there);
        self.level = self.level.saturating_sub_unsigned(taken as u64 * 1_000);
        taken
    }

    /// Takes one that need not be there yet, and says from when on it is. Whoever comes next waits
    /// longer.
    pub fn reserve(&mut self, now: Position) -> Position {
        self.fill(now);
        let ready_at = self.ready_at().max(now);
        self.level = self.level.saturating_sub(1_000);
        ready_at
    }

    /// Whether there is one.
    pub(crate) fn is_ready(&self, now: Position) -> bool {
        now >= self.ready_at()
    }

    /// Since when there is one, or from when on there will be.
    pub(crate) fn ready_at(&self) -> Position {
        let lacking = 1_000_i64.saturating_sub(self.level).max(0);
        self.at
            .after(lacking.unsigned_abs().div_ceil(self.per_second))
    }

    /// Whether nothing has been taken lately, so that there is nothing to remember.
    pub(crate) fn is_full(&self, now: Position) -> bool {
        let mut then = *self;
        then.fill(now);
        then.level == then.capacity
    }

    fn fill(&mut self, now: Position) {
        let ms = now.0.saturating_sub(self.at.0);
        let filled = ms.saturating_mul(self.per_second);
        let level = self.level.saturating_add_unsigned(filled);
        self.level = level.min(self.capacity);
        self.at = self.at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn as_many_as_gathered_pass_at_once_and_then_one_at_a_time() {
        let mut pace = Pace::new(20, 3);
        let taken = |pace: &mut Pace, at| (0..10).filter(|_| pace.take(Position(at))).count();
        assert_eq!(taken(&mut pace, 1_000), 3);
        assert_eq!(pace.ready_at(), Position(1_050));
        assert_eq!(taken(&mut pace, 1_049), 0);
        assert_eq!(taken(&mut pace, 1_050), 1);
        assert!(!pace.is_full(Position(1_100)));
        assert!(pace.is_full(Position(1_200)));
        assert_eq!(taken(&mut pace, 9_000), 3);
        assert_eq!(pace.take_some(Position(9_100), 5), 2);
        assert_eq!(pace.take_some(Position(19_100), 1), 1);
        assert_eq!(pace.take_some(Position(19_100), 5), 2);
    }

    #[test]
    fn what_is_reserved_is_there_later_for_each_that_comes() {
        let mut pace = Pace::new(4, 2);
        let reserved: Vec<_> = (0..4).map(|_| pace.reserve(Position(1_000)).0).collect();
        assert_eq!(reserved, [1_000, 1_000, 1_250, 1_500]);
        assert!(!pace.take(Position(1_749)) && pace.take(Position(1_750)));
        assert_eq!(pace.take_some(Position(1_750), 9), 0);
        assert_eq!(pace.reserve(Position(9_000)), Position(9_000));
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing_away() {
        let mut pace = Pace::new(1, 1);
        assert!(pace.take(Position(10_000)));
        assert!(!pace.take(Position(5_000)));
        assert!(!pace.take(Position(10_500)));
        assert!(pace.take(Position(11_000)));
    }
}

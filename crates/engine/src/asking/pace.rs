//! How often something may be done: a bucket that fills with time.

use sealcast_protocol::Position;

/// Allows so many a second, and as many at once as have gathered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    per_second: u64,
    /// Thousandths of a token.
    level: u64,
    capacity: u64,
    at: Position,
}

impl Pace {
    /// Starts full, with room for `at_once`.
    pub(super) fn new(per_second: u32, at_once: u32) -> Self {
        let capacity = u64::from(at_once.max(1)) * 1_000;
        Self {
            per_second: u64::from(per_second.max(1)),
            level: capacity,
            capacity,
            at: Position::START,
        }
    }

    /// Takes one, if there is one.
    pub(super) fn take(&mut self, now: Position) -> bool {
        self.fill(now);
        let is_ready = self.level >= 1_000;
        if is_ready {
            self.level -= 1_000;
        }
        is_ready
    }

    /// Takes as many as there are, and no more than are wanted.
    pub(super) fn take_some(&mut self, now: Position, wanted: usize) -> usize {
        self.fill(now);
        let taken = (wanted as u64).min(self.level / 1_000);
        self.level -= taken * 1_000;
        taken as usize
    }

    /// Whether there is one.
    pub(super) fn is_ready(&self, now: Position) -> bool {
        now >= self.ready_at()
    }

    /// Since when there is one, or from when on there will be.
    pub(super) fn ready_at(&self) -> Position {
        let lacking = 1_000_u64.saturating_sub(self.level);
        self.at.after(lacking.div_ceil(self.per_second))
    }

    /// Whether nothing has been taken lately, so that there is nothing to remember.
    pub(super) fn is_full(&self, now: Position) -> bool {
        let mut then = *self;
        then.fill(now);
        then.level == then.capacity
    }

    fn fill(&mut self, now: Position) {
        let ms = now.0.saturating_sub(self.at.0);
        let filled = ms.saturating_mul(self.per_second);
        self.level = self.level.saturating_add(filled).min(self.capacity);
        self.at = self.at.max(now);
    }
}

#[cfg(test)]
mod tests {
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
    fn a_clock_that_goes_back_gives_nothing_away() {
        let mut pace = Pace::new(1, 1);
        assert!(pace.take(Position(10_000)));
        assert!(!pace.take(Position(5_000)));
        assert!(!pace.take(Position(10_500)));
        assert!(pace.take(Position(11_000)));
    }
}

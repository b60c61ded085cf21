//! Time that goes on where the clock is set back.

use sealcast_protocol::Position;

/// The clock as it was read last, and how much it was set back since the start, all in all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Steady {
    clock: Position,
    back_ms: u64,
}

impl Steady {
    pub(crate) fn new() -> Self {
        Self {
            clock: Position::START,
            back_ms: 0,
        }
    }

    /// Takes in what the clock says. Returns the time by which to wait, which never goes back.
    pub(crate) fn read(&mut self, clock: Position) -> Position {
        let back = self.clock.0.saturating_sub(clock.0);
        self.back_ms = self.back_ms.saturating_add(back);
        self.clock = clock;
        self.time_at(clock)
    }

    /// What the clock said last.
    pub(crate) fn clock(&self) -> Position {
        self.clock
    }

    /// The time by which to wait when the clock says this, unless it is set back before.
    pub(crate) fn time_at(&self, clock: Position) -> Position {
        clock.after(self.back_ms)
    }

    /// What the clock says at such a time, unless it is set back before.
    pub(crate) fn clock_at(&self, time: Position) -> Position {
        Position(time.0.saturating_sub(self.back_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_back_stops_nothing() {
        let mut steady = Steady::new();
        assert_eq!(steady.read(Position(5_000)), Position(5_000));
        assert_eq!(steady.read(Position(1_000)), Position(5_000));
        assert_eq!(steady.read(Position(1_250)), Position(5_250));
        assert_eq!(steady.read(Position(1_000)), Position(5_250));
        assert_eq!(steady.clock_at(Position(5_500)), Position(1_250));
        assert_eq!(steady.time_at(Position(1_250)), Position(5_500));
        assert_eq!(steady.clock(), Position(1_000));
    }
}

//! How much of everything is done.

use std::time::Duration;

/// The whole measurement, or a glance that shows that it still runs.
#[derive(Clone, Copy)]
pub(crate) struct Scale {
    /// Whether figures mean nothing.
    pub(crate) is_glance: bool,
    /// Rounds of a contest, and CPU time of one contestant in one round, at least.
    pub(crate) rounds: usize,
    pub(crate) round_time: Duration,
    /// Rounds of what takes seconds.
    pub(crate) long_rounds: usize,
    /// Records that go through the library, and lines that go through the program.
    pub(crate) records: u64,
    pub(crate) lines: u64,
    /// How much longer than a second latencies are watched, and an idle subscription.
    pub(crate) watch: f64,
}

impl Scale {
    pub(crate) const WHOLE: Self = Self {
        is_glance: false,
        rounds: 31,
        round_time: Duration::from_millis(8),
        long_rounds: 5,
        records: 200_000,
        lines: 1_000_000,
        watch: 1.0,
    };

    pub(crate) const GLANCE: Self = Self {
        is_glance: true,
        rounds: 1,
        round_time: Duration::from_micros(1),
        long_rounds: 1,
        records: 2_000,
        lines: 3_000,
        watch: 0.02,
    };

    /// So many seconds, or a glance.
    pub(crate) fn seconds(&self, seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds * self.watch)
    }
}

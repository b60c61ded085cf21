//! What a key node came to so far.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use sealcast_protocol::NodeRefusalReason;

/// What a [`Releasing`](super::Releasing) came to so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReleaseCounts {
    /// Requests that were answered, and the answer is on the bus.
    pub released: u64,
    /// Segments of them.
    pub segments: u64,
    /// Requests that were refused, by the reason, whether or not it was told.
    pub refused: RefusalCounts,
    /// Answers and refusals that the bus did not take while somebody waited for them.
    pub dropped: u64,
    /// How often store or bus failed.
    pub faults: u64,
}

/// How many requests were refused, by the reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RefusalCounts {
    /// The access log does not give what was asked for.
    pub not_entitled: u64,
    /// There is no share of the deal here.
    pub unknown_deal: u64,
    /// The condition did not hold.
    pub condition: u64,
    /// Too much was asked for.
    pub throttled: u64,
    /// Not all of the access log and the device lists is shown here.
    pub log_behind: u64,
    /// The condition can end, and what was asked for has not ended.
    pub not_ended: u64,
}

impl RefusalCounts {
    /// Counts one more.
    pub fn note(&mut self, reason: NodeRefusalReason) {
        *self.of_mut(reason) += 1;
    }

    /// All of them together.
    pub fn sum(&self) -> u64 {
        self.by_reason().iter().map(|(_, count)| count).sum()
    }

    /// Each reason with its count.
    pub fn by_reason(&self) -> [(NodeRefusalReason, u64); REASONS.len()] {
        REASONS.map(|reason| {
            let mut all = *self;
            (reason, *all.of_mut(reason))
        })
    }

    fn of_mut(&mut self, reason: NodeRefusalReason) -> &mut u64 {
        match reason {
            NodeRefusalReason::NotEntitled => &mut self.not_entitled,
            NodeRefusalReason::UnknownDeal => &mut self.unknown_deal,
            NodeRefusalReason::Condition => &mut self.condition,
            NodeRefusalReason::Throttled => &mut self.throttled,
            NodeRefusalReason::LogBehind => &mut self.log_behind,
            NodeRefusalReason::NotEnded => &mut self.not_ended,
        }
    }
}

impl std::ops::Add for RefusalCounts {
    type Output = Self;

    fn add(mut self, mut other: Self) -> Self {
        for reason in REASONS {
            *self.of_mut(reason) += *other.of_mut(reason);
        }
        self
    }
}

const REASONS: [NodeRefusalReason; 6] = [
    NodeRefusalReason::NotEntitled,
    NodeRefusalReason::UnknownDeal,
    NodeRefusalReason::Condition,
    NodeRefusalReason::Throttled,
    NodeRefusalReason::LogBehind,
    NodeRefusalReason::NotEnded,
];

#[derive(Debug, Default)]
pub(super) struct Counts {
    released: AtomicU64,
    segments: AtomicU64,
    refused: [AtomicU64; REASONS.len()],
    dropped: AtomicU64,
    faults: AtomicU64,
    /// Not counted: how far the clock is behind, in milliseconds, where nothing is released for it.
    clock_behind_ms: AtomicU64,
    is_bus_short: AtomicBool,
}

fn add(of: &AtomicU64, count: u64) {
    of.fetch_add(count, Ordering::Relaxed);
}

impl Counts {
    /// Notes that something is on the bus that releases so many segments, or refuses.
    pub(super) fn sent(&self, released: Option<u64>) {
        if let Some(segments) = released {
            add(&self.released, 1);
            add(&self.segments, segments);
        }
    }

    pub(super) fn refuse(&self, reason: NodeRefusalReason, count: u64) {
        if let Some(of) = self.refused.get(reason as usize) {
            add(of, count);
        }
    }

    pub(super) fn drop_reply(&self) {
        add(&self.dropped, 1);
    }

    pub(super) fn fault(&self) {
        add(&self.faults, 1);
    }

    pub(super) fn set_clock(&self, behind_ms: Option<u64>) {
        let behind_ms = behind_ms.unwrap_or_default();
        self.clock_behind_ms.store(behind_ms, Ordering::Relaxed);
    }

    pub(super) fn clock_behind_ms(&self) -> Option<u64> {
        let behind_ms = self.clock_behind_ms.load(Ordering::Relaxed);
        (behind_ms > 0).then_some(behind_ms)
    }

    pub(super) fn set_shown(&self, is_whole: bool) {
        self.is_bus_short.store(!is_whole, Ordering::Relaxed);
    }

    pub(super) fn is_bus_short(&self) -> bool {
        self.is_bus_short.load(Ordering::Relaxed)
    }

    pub(super) fn read(&self) -> ReleaseCounts {
        let read = |of: &AtomicU64| of.load(Ordering::Relaxed);
        let mut refused = RefusalCounts::default();
        for (of, reason) in self.refused.iter().zip(REASONS) {
            *refused.of_mut(reason) = read(of);
        }
        ReleaseCounts {
            released: read(&self.released),
            segments: read(&self.segments),
            refused,
            dropped: read(&self.dropped),
            faults: read(&self.faults),
        }
    }
}

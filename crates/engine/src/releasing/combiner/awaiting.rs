//! What is released once it has ended.

use sealcast_protocol::{Interval, Position, Want};

use super::super::SKEW_MS;
use super::super::flight::Flight;
use super::super::plan::awaited;
use super::{Combiner, CombinerEvent, CombinerOutput, QUEUE_MAX};
use crate::view::{CLOCKS_MS, StreamView};

impl Combiner {
    /// Leaves to others what key nodes do not give now, and notes when they will.
    pub(super) fn leave_all(&mut self, view: &StreamView) {
        let clock = self.clock_of_nodes();
        for missing in core::mem::take(&mut self.left) {
            for segment in awaited(view, clock, &missing) {
                let interval = segment.interval();
                let at = interval.until.after(CLOCKS_MS + self.lag_ms);
                self.await_until(
                    self.steady.time_at(at),
                    Want {
                        interval,
                        ..missing
                    },
                );
            }
            let Want {
                lane,
                session,
                interval,
            } = missing;
            self.outputs.push_back(CombinerOutput::Leave {
                lane,
                session,
                interval,
            });
        }
    }

    /// What the clocks of key nodes say, as far as they told.
    pub(super) fn clock_of_nodes(&self) -> Position {
        let clock = self.steady.clock();
        Position(clock.0.saturating_sub(self.lag_ms))
    }

    /// Notes what is to be asked for later. Of too much that what comes last is left out: a publisher can seal for far ahead.
    fn await_until(&mut self, at: Position, missing: Want) {
        let is_new = self.awaited.insert((at, missing));
        if self.awaited.len() > QUEUE_MAX && self.awaited.pop_last() == Some((at, missing)) {
            return;
        }
        if is_new {
            self.tell(CombinerEvent::Awaited(self.steady.clock_at(at)));
        }
    }

    /// Asks for what has ended by now, unless others gave it.
    pub(super) fn take_awaited(&mut self, now: Position, view: &StreamView) {
        while let Some((at, missing)) = self.awaited.first().copied()
            && at <= now
        {
            self.awaited.remove(&(at, missing));
            let Interval { from, until } = missing.interval;
            let mut ends = [from, Position(until.0 - 1)].into_iter();
            if !ends.all(|of| view.has_key(&missing.session, of)) {
                self.miss(now, view, missing);
            }
        }
    }

    /// Leaves a session alone for a while, and asks again then where nodes may have changed their minds: what is
    /// published later lies elsewhere, so that nobody else would. Where they said that something has not ended, that is no
    /// longer than clocks are apart, as long as it does not happen again.
    pub(super) fn note_too_few(&mut self, now: Position, flight: &Flight) {
        let session = flight.session;
        let wait = u64::from(flight.wait_ms);
        let until = match flight.is_unended() {
            false => self.note_failed(now, session, self.limits.key_request_timeout_ms, wait),
            true => {
                // Those whose clocks are further behind answer nobody.
                self.lag_ms = self.lag_ms.max(flight.lag_ms.min(SKEW_MS));
                self.note_failed(now, session, CLOCKS_MS, wait.min(SKEW_MS) + CLOCKS_MS)
            }
        };
        if flight.is_unended() || (flight.can_end && flight.may_pass()) {
            for missing in &flight.missing {
                self.await_until(until, *missing);
            }
        }
    }
}

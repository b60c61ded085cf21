//! Where this home stands in its own lane of a stream, `spec/sessions.md`, section "Positions".

use minicbor::{CborLen, Decode, Encode};
use sealcast_protocol::{EnvelopeHash, Position, SessionId};

/// How far the clock may be behind the mark before sealing is refused, in milliseconds.
pub const CLOCK_BEHIND_MS_MAX: u64 = 10 * 60 * 1000;

/// Shared by all processes of a home; read and written inside one store transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct Lane {
    /// The highest of every position sealed and every cut made.
    #[n(0)]
    pub mark: Position,
    /// Whether the mark is a cut, so that nothing more is sealed at it.
    #[n(1)]
    pub is_cut: bool,
    /// The session that this device drew and seals with; all zero when the next message must start
    /// one.
    #[n(2)]
    pub session: SessionId,
    /// Whether the session's record is on the bus.
    #[n(3)]
    pub is_announced: bool,
    /// The last envelope that this home recorded.
    #[n(4)]
    pub last: EnvelopeHash,
}

/// Stands where there is no session.
const NO_SESSION: SessionId = SessionId([0; 16]);

impl Default for Lane {
    fn default() -> Self {
        Self {
            mark: Position::START,
            is_cut: false,
            session: NO_SESSION,
            is_announced: false,
            last: EnvelopeHash::NONE,
        }
    }
}

impl Lane {
    /// Where the next message is sealed: never below a position sealed, a cut, or the log's mark.
    ///
    /// # Errors
    ///
    /// Fails when the clock is so far behind that it must be wrong.
    pub fn next_position(
        &self,
        now: Position,
        log_mark: Position,
    ) -> Result<Position, ClockBehind> {
        let own = match self.is_cut {
            true => self.mark.after(1),
            false => self.mark,
        };
        let floor = own.max(log_mark);
        let behind_ms = floor.0.saturating_sub(now.0);
        match behind_ms > CLOCK_BEHIND_MS_MAX {
            true => Err(ClockBehind { behind_ms }),
            false => Ok(now.max(floor)),
        }
    }

    /// Notes that a message is sealed at `position`.
    pub fn seal_at(&mut self, position: Position) {
        if position > self.mark {
            self.mark = position;
            self.is_cut = false;
        }
    }

    /// Steps past every position sealed so far. Returns the first one that stays free.
    ///
    /// # Errors
    ///
    /// Fails when the clock is so far behind that it must be wrong.
    pub fn cut(&mut self, now: Position, log_mark: Position) -> Result<Position, ClockBehind> {
        let position = self.next_position(now, log_mark)?;
        self.mark = position;
        self.is_cut = true;
        Ok(position.after(1))
    }

    /// The session to seal with, if there is one.
    pub fn session(&self) -> Option<SessionId> {
        (self.session != NO_SESSION).then_some(self.session)
    }

    /// Makes the next message start a session.
    pub fn end_session(&mut self) {
        self.session = NO_SESSION;
        self.is_announced = false;
    }
}

/// The clock is behind the newest position of the lane; set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the clock is {behind_ms} ms behind the newest position of this lane")]
pub struct ClockBehind {
    /// How far.
    pub behind_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Position = Position(1_000_000_000);

    #[test]
    fn positions_never_go_back_when_the_clock_does() {
        let mut lane = Lane::default();
        lane.seal_at(NOW);
        let earlier = Position(NOW.0 - 5_000);
        assert_eq!(lane.next_position(earlier, Position::START), Ok(NOW));
    }

    #[test]
    fn nothing_is_sealed_at_or_below_a_cut() {
        let mut lane = Lane::default();
        lane.seal_at(NOW);
        let free = lane.cut(NOW, Position::START);
        assert_eq!(free, Ok(NOW.after(1)));
        assert_eq!(lane.next_position(NOW, Position::START), Ok(NOW.after(1)));
        lane.seal_at(NOW.after(1));
        assert_eq!(lane.next_position(NOW, Position::START), Ok(NOW.after(1)));
    }

    #[test]
    fn an_entry_of_an_admin_lifts_the_next_position() {
        let lane = Lane::default();
        assert_eq!(lane.next_position(NOW, NOW.after(7)), Ok(NOW.after(7)));
    }

    /// Fault 21: a clock set back far is refused, not followed.
    #[test]
    fn a_clock_far_behind_is_refused() {
        let mut lane = Lane::default();
        lane.seal_at(NOW);
        let earlier = Position(NOW.0 - CLOCK_BEHIND_MS_MAX - 1);
        let behind_ms = CLOCK_BEHIND_MS_MAX + 1;
        assert_eq!(
            lane.next_position(earlier, Position::START),
            Err(ClockBehind { behind_ms })
        );
    }
}

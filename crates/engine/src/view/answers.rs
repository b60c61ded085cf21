//! Keys that this device asked for.

use alloc::vec::Vec;

use sealcast_crypto::Cover;
use sealcast_protocol::{DeviceId, Interval, Position, SessionId, UserId};

use super::StreamView;
use crate::share::may_give;

/// Reads what an open request of this device asked for and somebody gave. Only an
/// [`Asker`](crate::Asker) makes one, so that nothing else is ever taken for an answer.
#[derive(Debug)]
pub struct Answer {
    pub(crate) giver: (UserId, DeviceId),
    pub(crate) lane: UserId,
    pub(crate) covers: Vec<(SessionId, Cover)>,
}

impl Answer {
    /// Who gave it.
    pub fn giver(&self) -> (UserId, DeviceId) {
        self.giver
    }

    /// The sessions that it has keys of.
    pub fn sessions(&self) -> impl Iterator<Item = SessionId> + '_ {
        self.covers.iter().map(|(session, _)| *session)
    }
}

impl StreamView {
    /// Takes in what was asked for. What its giver may not give (any more) is left out; the rest is
    /// for opening, and a candidate until a message opens under it.
    pub fn take_answer(&mut self, answer: Answer) {
        let Answer {
            giver,
            lane,
            covers,
        } = answer;
        let limits = may_give(self, giver, &lane, &self.me().0);
        let is_given = |cover: &Cover| {
            let interval = Interval {
                from: Position(cover.from()),
                until: Position(cover.until()),
            };
            limits.iter().any(|of| of.covers(&interval))
        };
        let covers = covers.into_iter().filter(|(_, cover)| is_given(cover));
        self.keep_covers(giver, &lane, covers);
    }
}

//! Ephemeral topics: what is sent flies to those who listen, and nobody keeps it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use sealcast_crash::Chance;

/// Items that somebody who listens could have written down, at most.
const HEARD_MAX: usize = 64;
/// Longest way where nothing goes wrong, in milliseconds.
const WAY_MS: u64 = 30;

/// What is on its way.
#[derive(Debug, Default)]
pub(crate) struct Air {
    ears: BTreeSet<usize>,
    /// By when it arrives, and in which order of those that arrive at once.
    flights: BTreeMap<(u64, u64), Flight>,
    count: u64,
    heard: VecDeque<Arc<[u8]>>,
    /// Of a hundred items, so many do not reach one listener.
    pub(crate) lossy: u64,
    /// Of a hundred items, so many reach one listener twice.
    pub(crate) twice: u64,
    /// The most that one may be late.
    pub(crate) late_ms: u64,
}

/// An item on its way to one listener.
#[derive(Clone, Debug)]
pub(crate) struct Flight {
    pub(crate) to: usize,
    pub(crate) bytes: Arc<[u8]>,
}

impl Air {
    /// A device listens from now on.
    pub(crate) fn listen(&mut self, who: usize) {
        self.ears.insert(who);
    }

    /// A device does not listen any more; what flies to it is lost.
    pub(crate) fn deafen(&mut self, who: usize) {
        if self.ears.remove(&who) {
            self.flights.retain(|_, of| of.to != who);
        }
    }

    /// Sends an item to all who listen and are not cut off. Each may get it late, twice or never, and
    /// behind what was sent after it.
    pub(crate) fn send(
        &mut self,
        now: u64,
        chance: &mut Chance,
        bytes: &[u8],
        is_cut_off: impl Fn(usize) -> bool,
    ) {
        let bytes: Arc<[u8]> = bytes.into();
        if self.heard.len() >= HEARD_MAX {
            self.heard.pop_front();
        }
        self.heard.push_back(bytes.clone());
        for to in self.ears.clone() {
            let times = match chance.below(100) {
                at if at < self.lossy => 0,
                at if at >= 100 - self.twice => 2,
                _ => 1,
            };
            for _ in 0..times {
                let way = match chance.hits(1, 4) {
                    true => chance.below(self.late_ms.max(WAY_MS)),
                    false => chance.below(WAY_MS),
                };
                if !is_cut_off(to) {
                    self.count += 1;
                    let bytes = bytes.clone();
                    let flight = Flight { to, bytes };
                    self.flights.insert((now + 1 + way, self.count), flight);
                }
            }
        }
    }

    /// When the next item arrives.
    pub(crate) fn next_at(&self) -> Option<u64> {
        self.flights.first_key_value().map(|((at, _), _)| *at)
    }

    /// The next item that arrives.
    pub(crate) fn land(&mut self) -> Option<Flight> {
        self.flights.pop_first().map(|(_, flight)| flight)
    }

    /// What was sent lately, whoever did.
    pub(crate) fn heard(&self) -> &VecDeque<Arc<[u8]>> {
        &self.heard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_listens_hears_what_is_sent_and_nobody_else_does() {
        let (mut air, mut chance) = (Air::default(), Chance::new(1));
        air.send(0, &mut chance, b"to nobody", |_| false);
        air.listen(1);
        air.listen(2);
        air.listen(3);
        air.send(10, &mut chance, b"to two", |who| who == 3);
        assert!(air.next_at().is_some_and(|at| at > 10));
        let landed: BTreeSet<_> = (0..2).filter_map(|_| air.land()).map(|of| of.to).collect();
        assert_eq!(landed, BTreeSet::from([1, 2]));
        air.send(20, &mut chance, b"to one", |_| false);
        air.deafen(2);
        air.deafen(3);
        assert_eq!(air.land().map(|of| of.to), Some(1));
        assert!(air.land().is_none());
        assert_eq!(air.heard().len(), 3);
    }
}

//! Sealed node keys that a device holds, in room that lanes share.

use alloc::collections::BTreeMap;

use sealcast_crypto::{POSITION_BITS, SEALED_SEGMENT_LEN, SEGMENT_HEIGHTS};
use sealcast_protocol::{Segment, SessionId, UserId};

/// Records that are held, at most. Of those that lie in each other the largest is that this device may
/// read, so that a year of a publisher comes to a few dozen; of sessions whose root is here there are none.
const RECORDS_MAX: usize = 1 << 18;
/// Lane secrets whose records of one session are held, at most.
const SECRETS_MAX: usize = 4;

/// Depth of the leaves.
const LEAF_DEPTH: u8 = POSITION_BITS as u8;

pub(crate) type Sealed = [u8; SEALED_SEGMENT_LEN];
/// Records that one secret seals.
pub(crate) type OfSecret = BTreeMap<Segment, Sealed>;
/// Records of one session, by the lane secret that they are sealed with.
type OfSession = BTreeMap<[u8; 32], OfSecret>;

/// What came of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is held.
    Held,
    /// It is held, in the place of one of a lane that has more of them.
    Displaced,
    /// It lies in one that is held, or is of one secret too many.
    Needless,
    /// There is no room, and no lane has more of them.
    NoRoom,
}

/// Which session, of whose lane, and by which secret.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whose {
    pub(super) lane: UserId,
    pub(super) session: SessionId,
    pub(super) secret: [u8; 32],
}

#[derive(Debug)]
pub(super) struct HeldRecords {
    lanes: BTreeMap<UserId, OfLane>,
    count: usize,
    room: usize,
}

#[derive(Debug, Default)]
struct OfLane {
    sessions: BTreeMap<SessionId, OfSession>,
    count: usize,
}

impl Default for HeldRecords {
    fn default() -> Self {
        Self::with_room(RECORDS_MAX)
    }
}

impl HeldRecords {
    fn with_room(room: usize) -> Self {
        Self {
            lanes: BTreeMap::new(),
            count: 0,
            room,
        }
    }

    /// Holds a record in place of those that lie in it, unless it lies in one that is held. Where there is no
    /// room, the lane that has most of them gives some up for one that has less.
    pub(super) fn take(&mut self, whose: &Whose, segment: Segment, sealed: Sealed) -> Taken {
        let held = self.of_secret_mut(whose);
        if held.is_some_and(|held| around(&segment).any(|of| held.contains_key(&of))) {
            return Taken::Needless;
        }
        let lane = self.lanes.entry(whose.lane).or_default();
        let held = lane.sessions.entry(whose.session).or_default();
        if held.len() >= SECRETS_MAX && !held.contains_key(&whose.secret) {
            return Taken::Needless;
        }
        let gone = held
            .get_mut(&whose.secret)
            .map_or(0, |held| remove_within(held, &segment));
        lane.count -= gone;
        self.count -= gone;
        let is_full = self.count >= self.room;
        if is_full && !self.give_up_for(&whose.lane) {
            self.forget_if_empty(whose);
            return Taken::NoRoom;
        }
        let lane = self.lanes.entry(whose.lane).or_default();
        let held = lane.sessions.entry(whose.session).or_default();
        let held = held.entry(whose.secret).or_default();
        held.insert(segment, sealed);
        lane.count += 1;
        self.count += 1;
        match is_full {
            true => Taken::Displaced,
            false => Taken::Held,
        }
    }

    /// Has the lane that has most records give up one, if it has more than another will have then. So no
    /// lane within its share gives up anything for one that is beyond its own.
    fn give_up_for(&mut self, lane: &UserId) -> bool {
        let has = self.lanes.get(lane).map_or(0, |of| of.count);
        let most = self.lanes.iter_mut().max_by_key(|(_, of)| of.count);
        let Some((_, most)) = most.filter(|(_, of)| of.count > has + 1) else {
            return false;
        };
        let Some(mut session) = most.sessions.last_entry() else {
            return false;
        };
        if let Some(mut of_secret) = session.get_mut().last_entry() {
            of_secret.get_mut().pop_last();
            if of_secret.get().is_empty() {
                of_secret.remove();
            }
        }
        if session.get().is_empty() {
            session.remove();
        }
        most.count -= 1;
        self.count -= 1;
        true
    }

    /// Forgets the records of a lane but for those that are to stay, and says whether there were any.
    pub(super) fn retain(
        &mut self,
        lane: &UserId,
        mut stays: impl FnMut(&Segment) -> bool,
    ) -> bool {
        let Some(of_lane) = self.lanes.get_mut(lane) else {
            return false;
        };
        let before = of_lane.count;
        of_lane.count = 0;
        for session in of_lane.sessions.values_mut() {
            for held in session.values_mut() {
                held.retain(|segment, _| stays(segment));
                of_lane.count += held.len();
            }
            session.retain(|_, held| !held.is_empty());
        }
        of_lane.sessions.retain(|_, session| !session.is_empty());
        let gone = before - of_lane.count;
        self.count -= gone;
        if of_lane.count == 0 {
            self.lanes.remove(lane);
        }
        gone > 0
    }

    /// Takes out one record.
    pub(super) fn remove(&mut self, whose: &Whose, segment: &Segment) -> Option<Sealed> {
        let sealed = self.of_secret_mut(whose)?.remove(segment)?;
        if let Some(lane) = self.lanes.get_mut(&whose.lane) {
            lane.count -= 1;
        }
        self.count -= 1;
        self.forget_if_empty(whose);
        Some(sealed)
    }

    /// The records of a session.
    pub(super) fn of_session(
        &self,
        lane: &UserId,
        session: &SessionId,
    ) -> impl Iterator<Item = (&[u8; 32], &OfSecret)> + use<'_> {
        let of_lane = self.lanes.get(lane);
        let of_session = of_lane.and_then(|of| of.sessions.get(session));
        of_session.into_iter().flatten()
    }

    fn of_secret_mut(&mut self, whose: &Whose) -> Option<&mut OfSecret> {
        let lane = self.lanes.get_mut(&whose.lane)?;
        lane.sessions
            .get_mut(&whose.session)?
            .get_mut(&whose.secret)
    }

    /// What holds nothing takes no room.
    fn forget_if_empty(&mut self, whose: &Whose) {
        let Some(lane) = self.lanes.get_mut(&whose.lane) else {
            return;
        };
        if let Some(session) = lane.sessions.get_mut(&whose.session) {
            session.retain(|_, held| !held.is_empty());
            if session.is_empty() {
                lane.sessions.remove(&whose.session);
            }
        }
        if lane.sessions.is_empty() {
            self.lanes.remove(&whose.lane);
        }
    }
}

/// A segment, and those that it lies in.
fn around(segment: &Segment) -> impl Iterator<Item = Segment> + use<> {
    let Segment { depth, index } = *segment;
    let heights = SEGMENT_HEIGHTS.iter().map(|height| LEAF_DEPTH - height);
    heights
        .filter(move |of| *of <= depth)
        .map(move |of| Segment {
            depth: of,
            index: index >> (depth - of),
        })
}

/// Removes the segments that lie in one, and says how many they were.
fn remove_within<T>(records: &mut BTreeMap<Segment, T>, segment: &Segment) -> usize {
    let before = records.len();
    let heights = SEGMENT_HEIGHTS.iter().map(|height| LEAF_DEPTH - height);
    for depth in heights.filter(|of| *of > segment.depth) {
        let shift = depth - segment.depth;
        let first = Segment {
            depth,
            index: segment.index << shift,
        };
        let last = Segment {
            depth,
            index: first.index | ((1 << shift) - 1),
        };
        let within: alloc::vec::Vec<_> = records.range(first..=last).map(|(of, _)| *of).collect();
        for of in within {
            records.remove(&of);
        }
    }
    before - records.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whose(lane: u8, session: u8) -> Whose {
        Whose {
            lane: UserId([lane; 32]),
            session: SessionId([session; 16]),
            secret: [lane; 32],
        }
    }

    /// Takes in so many records of the smallest segments, and says how many were refused.
    fn fill(held: &mut HeldRecords, lane: u8, count: u64) -> usize {
        let taken = (0..count).map(|index| {
            let segment = Segment { depth: 32, index };
            held.take(&whose(lane, (index % 3) as u8), segment, [0; _])
        });
        taken.filter(|of| *of == Taken::NoRoom).count()
    }

    fn count(held: &HeldRecords, lane: u8) -> usize {
        let sessions = (0..3).map(|session| SessionId([session; 16]));
        let of_lane = UserId([lane; 32]);
        let counted = held.lanes.get(&of_lane).map_or(0, |of| of.count);
        let all = sessions.map(|session| {
            let records = held.of_session(&of_lane, &session);
            records.map(|(_, of)| of.len()).sum::<usize>()
        });
        assert_eq!(all.sum::<usize>(), counted);
        counted
    }

    #[test]
    fn a_lane_uses_what_is_left_over_and_no_more_than_its_share_once_others_come() {
        let mut held = HeldRecords::with_room(90);
        assert_eq!(fill(&mut held, 1, 1_000), 910);
        assert_eq!(count(&held, 1), 90);
        assert_eq!(fill(&mut held, 2, 10), 0);
        assert_eq!((count(&held, 1), count(&held, 2)), (80, 10));
        // One within its share gives nothing up, whatever the others bring.
        assert_eq!(fill(&mut held, 1, 1_000), 920);
        assert!(fill(&mut held, 3, 1_000) > 0);
        assert_eq!([1, 2, 3].map(|lane| count(&held, lane)), [40, 10, 40]);
        assert!(fill(&mut held, 2, 1_000) > 0);
        assert_eq!([1, 2, 3].map(|lane| count(&held, lane)), [30, 30, 30]);
        assert_eq!(held.count, 90);
    }

    #[test]
    fn what_holds_nothing_any_more_takes_no_room() {
        let mut held = HeldRecords::with_room(2);
        let segment = Segment {
            depth: 32,
            index: 7,
        };
        assert_eq!(held.take(&whose(1, 1), segment, [1; _]), Taken::Held);
        assert_eq!(held.take(&whose(1, 1), segment, [1; _]), Taken::Needless);
        assert_eq!(held.remove(&whose(1, 1), &segment), Some([1; _]));
        assert_eq!(held.take(&whose(2, 1), segment, [1; _]), Taken::Held);
        assert!(!held.retain(&UserId([2; 32]), |_| true));
        assert!(held.retain(&UserId([2; 32]), |_| false));
        assert!(held.lanes.is_empty() && held.count == 0);
    }
}

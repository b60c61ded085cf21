//! Sealed node keys that a device holds, in room that lanes share.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use sealcast_crypto::{POSITION_BITS, SEALED_SEGMENT_LEN, SEGMENT_HEIGHTS};
use sealcast_protocol::{Position, Segment, SessionId, UserId};

/// Records that are held, at most. Of those that lie in each other the largest is that this device may
/// read and that has ended, so that a year of a publisher comes to a few dozen; of sessions whose root is here there are
/// none.
const RECORDS_MAX: usize = 1 << 18;
/// Lane secrets whose records of one session are held, at most.
const SECRETS_MAX: usize = 4;

/// Levels of the smallest segments above the leaves: whatever ends, ends at a multiple of their length.
const SMALLEST: u32 = 16;
/// Depth of the leaves.
const LEAF_DEPTH: u8 = POSITION_BITS as u8;

pub(crate) type Sealed = [u8; SEALED_SEGMENT_LEN];
/// Names the object that records came in.
pub(super) type Source = [u8; 32];
/// Records that one secret seals.
pub(crate) type OfSecret = BTreeMap<Segment, Record>;
/// Records of one session, by the lane secret that they are sealed with.
type OfSession = BTreeMap<[u8; 32], OfSecret>;

/// One sealed node key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    pub(crate) sealed: Sealed,
    pub(super) source: Source,
}

/// What came of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is held.
    Held,
    /// It is held, in the place of one of a lane that has more of them.
    Displaced,
    /// It lies in one that is held and has ended, or is of one secret too many.
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
    /// Up to where a segment must reach to have ended. Whatever that is, where nobody asks.
    over: Position,
    /// How many records are held of each object that some are held of.
    sources: BTreeMap<(SessionId, Source), usize>,
    /// Objects of which none is held any more.
    gone: BTreeSet<(SessionId, Source)>,
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
            over: Position::END,
            sources: BTreeMap::new(),
            gone: BTreeSet::new(),
        }
    }

    /// Holds a record, unless it lies in one that is held and has ended; if it has ended itself, in place of those
    /// that lie in it. Where there is no room, the lane that has most of them gives some up for one that has less.
    pub(super) fn take(&mut self, whose: &Whose, segment: Segment, record: Record) -> Taken {
        let over = self.over;
        let held = self.of_secret_mut(whose);
        let has_ended = |of: &Segment| of.interval().until <= over;
        let stands_for = |of: &Segment| *of == segment || has_ended(of);
        let mut around = around(&segment).filter(stands_for);
        if held.is_some_and(|held| around.any(|of| held.contains_key(&of))) {
            return Taken::Needless;
        }
        let lane = self.lanes.entry(whose.lane).or_default();
        let held = lane.sessions.entry(whose.session).or_default();
        if held.len() >= SECRETS_MAX && !held.contains_key(&whose.secret) {
            return Taken::Needless;
        }
        let of_secret = held.get_mut(&whose.secret);
        let gone = of_secret.filter(|_| has_ended(&segment));
        let gone = gone.map_or(Vec::new(), |held| remove_within(held, &segment));
        lane.count -= gone.len();
        self.let_go(whose.session, &gone);
        let is_full = self.count >= self.room;
        if is_full && !self.give_up_for(&whose.lane) {
            self.forget_if_empty(whose);
            return Taken::NoRoom;
        }
        let lane = self.lanes.entry(whose.lane).or_default();
        let held = lane.sessions.entry(whose.session).or_default();
        let held = held.entry(whose.secret).or_default();
        held.insert(segment, record);
        lane.count += 1;
        self.count += 1;
        let source = (whose.session, record.source);
        *self.sources.entry(source).or_default() += 1;
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
        let (id, mut gone) = (*session.key(), Vec::new());
        if let Some(mut of_secret) = session.get_mut().last_entry() {
            gone.extend(of_secret.get_mut().pop_last().map(|(_, of)| of.source));
            if of_secret.get().is_empty() {
                of_secret.remove();
            }
        }
        if session.get().is_empty() {
            session.remove();
        }
        most.count -= gone.len();
        self.let_go(id, &gone);
        true
    }

    /// Notes that records of a session are held no more, by the objects that they came in.
    fn let_go(&mut self, session: SessionId, records: &[Source]) {
        self.count -= records.len();
        for source in records {
            let of = (session, *source);
            if let Some(count) = self.sources.get_mut(&of) {
                *count -= 1;
                if *count == 0 {
                    self.sources.remove(&of);
                    self.gone.insert(of);
                }
            }
        }
    }

    /// Objects of which nothing is held any more, since this was last called.
    pub(super) fn take_gone(&mut self) -> impl Iterator<Item = (SessionId, Source)> + use<'_> {
        let gone = core::mem::take(&mut self.gone).into_iter();
        gone.filter(|of| !self.sources.contains_key(of))
    }

    /// Says up to where a segment must reach to have ended. What lies in such as have is held no more. Returns the
    /// lanes of which smaller ones may be lacking, since it is less than it was.
    pub(super) fn set_over(&mut self, over: Position) -> Vec<UserId> {
        let before = core::mem::replace(&mut self.over, over);
        if over < before {
            let is_open = |of: &Segment| (over.0 + 1..=before.0).contains(&of.interval().until.0);
            let lanes = self.lanes.iter();
            let lacks = lanes.filter(|(_, of)| of.segments().any(is_open));
            return lacks.map(|(lane, _)| *lane).collect();
        }
        if before.0 >> SMALLEST < over.0 >> SMALLEST {
            self.thin_out(before);
        }
        Vec::new()
    }

    /// Holds no more what lies in segments that have ended since.
    fn thin_out(&mut self, before: Position) {
        let over = self.over;
        let mut gone = Vec::new();
        for lane in self.lanes.values_mut() {
            for (session, of_session) in &mut lane.sessions {
                for held in of_session.values_mut() {
                    let ended = held.keys().filter(|of| {
                        let until = of.interval().until;
                        before < until && until <= over
                    });
                    for of in ended.copied().collect::<Vec<_>>() {
                        let within = remove_within(held, &of);
                        lane.count -= within.len();
                        gone.push((*session, within));
                    }
                }
            }
        }
        for (session, records) in gone {
            self.let_go(session, &records);
        }
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
        let mut gone = Vec::new();
        for (id, session) in &mut of_lane.sessions {
            for held in session.values_mut() {
                let left: Vec<_> = held.keys().filter(|of| !stays(of)).copied().collect();
                let left = left.iter().filter_map(|of| held.remove(of));
                let left: Vec<_> = left.map(|of| of.source).collect();
                of_lane.count -= left.len();
                gone.push((*id, left));
            }
            session.retain(|_, held| !held.is_empty());
        }
        of_lane.sessions.retain(|_, session| !session.is_empty());
        if of_lane.count == 0 {
            self.lanes.remove(lane);
        }
        let is_any = gone.iter().any(|(_, left)| !left.is_empty());
        for (session, left) in gone {
            self.let_go(session, &left);
        }
        is_any
    }

    /// Takes out one record.
    pub(super) fn remove(&mut self, whose: &Whose, segment: &Segment) -> Option<Sealed> {
        let record = self.of_secret_mut(whose)?.remove(segment)?;
        if let Some(lane) = self.lanes.get_mut(&whose.lane) {
            lane.count -= 1;
        }
        self.let_go(whose.session, &[record.source]);
        self.forget_if_empty(whose);
        Some(record.sealed)
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

impl OfLane {
    fn segments(&self) -> impl Iterator<Item = &Segment> {
        let held = self.sessions.values().flat_map(BTreeMap::values);
        held.flat_map(BTreeMap::keys)
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

/// Removes the segments that lie in one, and says what their records came in.
fn remove_within(records: &mut OfSecret, segment: &Segment) -> Vec<Source> {
    let mut gone = Vec::new();
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
        let within: Vec<_> = records.range(first..=last).map(|(of, _)| *of).collect();
        let within = within.iter().filter_map(|of| records.remove(of));
        gone.extend(within.map(|of| of.source));
    }
    gone
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

    fn record(source: u8) -> Record {
        Record {
            sealed: [source; _],
            source: [source; 32],
        }
    }

    /// Takes in so many records of the smallest segments, and says how many were refused.
    fn fill(held: &mut HeldRecords, lane: u8, count: u64) -> usize {
        let taken = (0..count).map(|index| {
            let segment = Segment { depth: 32, index };
            held.take(
                &whose(lane, (index % 3) as u8),
                segment,
                record(index as u8),
            )
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
        assert_eq!(held.take(&whose(1, 1), segment, record(1)), Taken::Held);
        assert_eq!(held.take(&whose(1, 1), segment, record(1)), Taken::Needless);
        assert_eq!(held.remove(&whose(1, 1), &segment), Some([1; _]));
        assert_eq!(held.take(&whose(2, 1), segment, record(2)), Taken::Held);
        let gone: Vec<_> = held.take_gone().collect();
        assert_eq!(gone, [(SessionId([1; 16]), [1; 32])]);
        assert!(!held.retain(&UserId([2; 32]), |_| true));
        assert!(held.retain(&UserId([2; 32]), |_| false));
        assert!(held.lanes.is_empty() && held.count == 0);
    }
    /// The smallest segment has a depth of 32, and four of them lie in each of depth 30.
    #[test]
    fn of_those_that_have_not_ended_each_is_held_and_of_others_the_largest() {
        let mut held = HeldRecords::with_room(1_000);
        let whose = whose(1, 1);
        let at = |minutes: u64| Position(minutes << 16);
        let segments = |held: &HeldRecords| {
            let of_session = held.of_session(&whose.lane, &whose.session);
            let of = of_session.flat_map(|(_, of)| of.keys());
            of.map(|of| (of.depth, of.index)).collect::<Vec<_>>()
        };
        assert_eq!(held.set_over(at(6)), []);
        let all = [(28, 0), (30, 0), (30, 1), (30, 2)].into_iter();
        let all: Vec<_> = all.chain((0..12).map(|index| (32, index))).collect();
        for (depth, index) in &all {
            let (depth, index) = (*depth, *index);
            held.take(&whose, Segment { depth, index }, record(depth));
        }
        let chain = [(28, 0), (30, 0), (30, 1), (30, 2)].into_iter();
        let open: Vec<_> = chain.chain((4..12).map(|index| (32, index))).collect();
        assert_eq!(segments(&held), open);
        // One more ends, and with it what lies in it.
        assert_eq!(held.set_over(at(8)), []);
        let left = open
            .iter()
            .filter(|(depth, index)| *depth < 32 || *index > 7);
        let left: Vec<_> = left.copied().collect();
        assert_eq!(segments(&held), left);
        // Its smaller ones lack where it has not ended any more.
        assert_eq!(held.set_over(at(7)), [whose.lane]);
        assert_eq!(held.set_over(at(6)), []);
        assert_eq!(held.set_over(Position::END), []);
        assert_eq!(segments(&held), [(28, 0)]);
        let gone: Vec<_> = held.take_gone().map(|(_, source)| source[0]).collect();
        assert_eq!(gone, [30, 32]);
        assert_eq!(held.count, 1);
    }
}

//! Which segments to ask for.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use sealcast_crypto::{POSITION_BITS, SEALED_SEGMENT_LEN, SEGMENT_HEIGHTS};
use sealcast_protocol::{DealId, Interval, KeyNodes, Position, SEGMENTS_MAX, Segment, Want};

use crate::view::{KnownDeal, OfSecret, StreamView};

/// Depth of the leaves.
const LEAF_DEPTH: u8 = POSITION_BITS as u8;
/// Records of one size that are looked at on either side of what is missing, at most. Of an honest publisher
/// this device has three of a size but the largest for each interval that it may read.
const LOOKED_AT_MAX: usize = 128;

/// A deal, the nodes that are in force, and records that open by it.
pub(super) type Planned = (
    (DealId, KnownDeal),
    KeyNodes,
    Vec<(Segment, [u8; SEALED_SEGMENT_LEN])>,
);

/// Records of a session that open by one secret, and what of them there is to ask for.
struct Source<'a> {
    deal: (DealId, &'a KnownDeal),
    set: &'a KeyNodes,
    secret: &'a [u8; 32],
    records: &'a OfSecret,
    /// What was given in the name of who sealed them.
    held: BTreeSet<(u64, u64)>,
    readable: Vec<Interval>,
}

impl Source<'_> {
    /// Whether the log gives this device all of a segment, and nobody gave it yet.
    fn lacks(&self, segment: &Segment) -> bool {
        let interval = segment.interval();
        !self.held.contains(&(interval.from.0, interval.until.0))
            && self.readable.iter().any(|of| of.covers(&interval))
    }
}

fn sources<'a>(view: &'a StreamView, missing: &Want) -> Vec<Source<'a>> {
    let (user, device) = view.me();
    let Some((_, set)) = view.state().key_nodes() else {
        return Vec::new();
    };
    let session = &missing.session;
    let sources = view
        .records_by_secret(session)
        .filter_map(|(secret, records)| {
            let deal = view.deal_for(session, secret, set)?;
            let giver = (deal.1.dealer.lane, deal.1.dealer.device);
            let given = view.covers(session).iter();
            let given = given.filter(|of| of.giver == giver);
            let held = given.map(|of| (of.cover.from(), of.cover.until()));
            Some(Source {
                deal,
                set,
                secret,
                records,
                held: held.collect(),
                readable: view.state().readable(&user, &device, &missing.lane),
            })
        });
    sources.collect()
}

/// The segments to ask for, as many as a request has room for: the largest that there are records of, that lie in
/// what the log gives this device and that are released by now, but those that it has been given, and those whose
/// records are passed over. None where what is missing is not among them.
pub(super) fn plan(
    view: &StreamView,
    clock: Position,
    missing: &Want,
    is_passed_over: impl Fn(&[u8; 32], &Segment) -> bool,
) -> Option<Planned> {
    let over = view.released_until(clock);
    let missing_in = &missing.interval;
    sources(view, missing).into_iter().find_map(|of| {
        let is_open = |segment: &Segment| {
            of.lacks(segment)
                && segment.interval().until <= over
                && !is_passed_over(of.secret, segment)
        };
        let is_one = missing_in.until.0 - missing_in.from.0 <= 1;
        let mut around = around(missing_in.from);
        if is_one && !around.any(|at| of.records.contains_key(&at) && is_open(&at)) {
            return None;
        }
        let near = near(of.records, missing_in).filter(|(at, _)| is_open(at));
        let chosen = choose(near.collect::<BTreeMap<_, _>>().into_iter());
        let chosen = nearest(chosen, missing_in);
        let mut reach = chosen.iter().map(|(at, _)| at.interval());
        let is_reached = reach.any(|at| at.intersect(missing_in).is_some());
        let (id, deal) = of.deal;
        is_reached.then(|| ((id, deal.clone()), of.set.clone(), chosen))
    })
}

/// Segments that what is missing reaches and that are released once they have ended: around each place of it that is
/// not the smallest, while that has not, and then the smallest of which there is a record.
pub(super) fn awaited(view: &StreamView, clock: Position, missing: &Want) -> Vec<Segment> {
    let over = view.released_until(clock);
    if over == Position::END {
        return Vec::new();
    }
    let Interval { from, until } = missing.interval;
    let last = Position(until.0.saturating_sub(1));
    let places = [from.max(over), last.min(clock).max(from)];
    let places = places
        .into_iter()
        .filter(|at| missing.interval.contains(*at));
    let mut awaited = BTreeSet::new();
    for of in sources(view, missing) {
        for at in places.clone() {
            let open = around(at).filter(|of| of.interval().until > over);
            let mut open = open.filter(|segment| of.lacks(segment));
            awaited.extend(
                open.find(|segment| is_smallest(segment) || of.records.contains_key(segment)),
            );
        }
    }
    awaited.into_iter().collect()
}

fn is_smallest(segment: &Segment) -> bool {
    segment.depth == LEAF_DEPTH - SEGMENT_HEIGHTS[0]
}

/// The segments around a position, the smallest first.
fn around(at: Position) -> impl Iterator<Item = Segment> {
    SEGMENT_HEIGHTS.iter().map(move |height| Segment {
        depth: LEAF_DEPTH - height,
        index: at.0 >> height,
    })
}

/// The records around the start of what is missing, of each size some on either side, whatever there is of them.
fn near<'a>(
    records: &'a OfSecret,
    missing: &Interval,
) -> impl Iterator<Item = (&'a Segment, &'a [u8; SEALED_SEGMENT_LEN])> {
    let from = missing.from.0;
    let near = SEGMENT_HEIGHTS.iter().flat_map(move |height| {
        let depth = LEAF_DEPTH - height;
        let of = |index| Segment { depth, index };
        let at = of(from >> height);
        let ahead = records.range(at..=of(u64::MAX)).take(LOOKED_AT_MAX);
        let behind = records.range(of(0)..at).rev().take(LOOKED_AT_MAX);
        ahead.chain(behind)
    });
    near.map(|(segment, record)| (segment, &record.sealed))
}
/// As many as a request has room for: those first that what is missing lies in, and those next to it;
/// ascending.
fn nearest(
    mut chosen: Vec<(Segment, [u8; SEALED_SEGMENT_LEN])>,
    missing: &Interval,
) -> Vec<(Segment, [u8; SEALED_SEGMENT_LEN])> {
    if chosen.len() > SEGMENTS_MAX {
        chosen.sort_by_key(|(of, _)| {
            let interval = of.interval();
            let is_apart = interval.intersect(missing).is_none();
            (is_apart, interval.from.0.abs_diff(missing.from.0))
        });
        chosen.truncate(SEGMENTS_MAX);
        chosen.sort_unstable_by_key(|(of, _)| *of);
    }
    chosen
}

/// Of segments, the larger ones first, those that lie in no other; ascending.
fn choose<'a>(
    records: impl Iterator<Item = (&'a Segment, &'a [u8; SEALED_SEGMENT_LEN])>,
) -> Vec<(Segment, [u8; SEALED_SEGMENT_LEN])> {
    let mut ends = BTreeMap::new();
    let mut chosen = Vec::new();
    for (segment, sealed) in records {
        let interval = segment.interval();
        let before = ends.range(..=interval.from).next_back();
        if before.is_none_or(|(_, until)| *until <= interval.from) {
            ends.insert(interval.from, interval.until);
            chosen.push((*segment, *sealed));
        }
    }
    chosen
}

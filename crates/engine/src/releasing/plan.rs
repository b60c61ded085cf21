//! Which segments to ask for.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use sealcast_crypto::{POSITION_BITS, SEALED_SEGMENT_LEN, SEGMENT_HEIGHTS};
use sealcast_protocol::{DealId, Interval, KeyNodes, SEGMENTS_MAX, Segment, Want};

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

/// The segments to ask for, as many as a request has room for: the largest that there are records of and
/// that lie in what the log gives this device, but those that it has been given, and those whose records are
/// passed over. None where what is missing is not among them.
pub(super) fn plan(
    view: &StreamView,
    missing: &Want,
    is_passed_over: impl Fn(&[u8; 32], &Segment) -> bool,
) -> Option<Planned> {
    let Want {
        lane,
        session,
        interval: missing,
    } = missing;
    let (_, set) = view.state().key_nodes()?;
    let (user, device) = view.me();
    let readable = view.state().readable(&user, &device, lane);
    for (secret, records) in view.records_by_secret(session) {
        let Some((id, deal)) = view.deal_for(session, secret, set) else {
            continue;
        };
        let giver = (deal.dealer.lane, deal.dealer.device);
        let held: BTreeSet<_> = view
            .covers(session)
            .iter()
            .filter(|of| of.giver == giver)
            .map(|of| (of.cover.from(), of.cover.until()))
            .collect();
        let is_open = |segment: &Segment| {
            let interval = segment.interval();
            !held.contains(&(interval.from.0, interval.until.0))
                && !is_passed_over(secret, segment)
                && readable.iter().any(|of| of.covers(&interval))
        };
        let is_one = missing.until.0 - missing.from.0 <= 1;
        let mut around = SEGMENT_HEIGHTS.iter().map(|height| Segment {
            depth: LEAF_DEPTH - height,
            index: missing.from.0 >> height,
        });
        if is_one && !around.any(|of| records.contains_key(&of) && is_open(&of)) {
            continue;
        }
        let near = near(records, missing).filter(|(of, _)| is_open(of));
        let chosen = choose(near.collect::<BTreeMap<_, _>>().into_iter());
        let chosen = nearest(chosen, missing);
        let mut reach = chosen.iter().map(|(of, _)| of.interval());
        if reach.any(|of| of.intersect(missing).is_some()) {
            return Some(((id, deal.clone()), set.clone(), chosen));
        }
    }
    None
}

/// The records around the start of what is missing, of each size some on either side, whatever there is of them.
fn near<'a>(
    records: &'a OfSecret,
    missing: &Interval,
) -> impl Iterator<Item = (&'a Segment, &'a [u8; SEALED_SEGMENT_LEN])> {
    let from = missing.from.0;
    SEGMENT_HEIGHTS.iter().flat_map(move |height| {
        let depth = LEAF_DEPTH - height;
        let of = |index| Segment { depth, index };
        let at = of(from >> height);
        let ahead = records.range(at..=of(u64::MAX)).take(LOOKED_AT_MAX);
        let behind = records.range(of(0)..at).rev().take(LOOKED_AT_MAX);
        ahead.chain(behind)
    })
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

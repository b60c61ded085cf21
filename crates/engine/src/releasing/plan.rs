//! Which segments to ask for.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use sealcast_crypto::{POSITION_BITS, SEALED_SEGMENT_LEN, SEGMENT_HEIGHTS};
use sealcast_protocol::{DealId, Interval, KeyNodes, Segment, SessionId, UserId};

use crate::view::{KnownDeal, StreamView};

/// Depth of the leaves.
const LEAF_DEPTH: u8 = POSITION_BITS as u8;

/// A deal, the nodes that are in force, and records that open by it.
pub(super) type Planned = (
    (DealId, KnownDeal),
    KeyNodes,
    Vec<(Segment, [u8; SEALED_SEGMENT_LEN])>,
);

/// The segments to ask for: the largest that there are records of and that lie in what the log gives
/// this device, but those that it has been given, and those whose records are spoiled. None where what is
/// missing is not among them.
pub(super) fn plan(
    view: &StreamView,
    lane: UserId,
    session: SessionId,
    missing: &Interval,
    is_spoiled: impl Fn(&[u8; 32], &Segment) -> bool,
) -> Option<Planned> {
    let (_, set) = view.state().key_nodes()?;
    let (user, device) = view.me();
    let readable = view.state().readable(&user, &device, &lane);
    for (secret, records) in view.records_by_secret(&session) {
        let Some(deal) = view.deals_for(&session, secret, set).into_iter().next() else {
            continue;
        };
        let giver = (deal.1.dealer.lane, deal.1.dealer.device);
        let held: BTreeSet<_> = view
            .covers(&session)
            .iter()
            .filter(|of| of.giver == giver)
            .map(|of| (of.cover.from(), of.cover.until()))
            .collect();
        let is_open = |segment: &Segment| {
            let interval = segment.interval();
            !held.contains(&(interval.from.0, interval.until.0))
                && !is_spoiled(secret, segment)
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
        let chosen = choose(records.iter().filter(|(of, _)| is_open(of)));
        let mut reach = chosen.iter().map(|(of, _)| of.interval());
        if reach.any(|of| of.intersect(missing).is_some()) {
            return Some((deal, set.clone(), chosen));
        }
    }
    None
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

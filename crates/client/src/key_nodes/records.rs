//! Which segment records a stream has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sealcast_bus::{Item, Offset};
use sealcast_crypto::SEGMENT_HEIGHTS;
use sealcast_protocol::{
    DeviceId, Interval, Position, SegmentRecords, SessionId, StreamTopics, Unverified, UserId,
};

use super::naming::LEAF_DEPTH;
use crate::blocking::off_thread;
use crate::core::{Core, READ_BYTES};
use crate::error::Error;
use crate::home::topic;
use crate::stream::Stream;

/// Depth of the smallest segments.
const SMALLEST_DEPTH: u8 = LEAF_DEPTH - SEGMENT_HEIGHTS[0];

/// Segment records of one lane, as [`Stream::segment_records`] finds them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaneRecords {
    /// Sessions of the lane that are known here.
    pub sessions: usize,
    /// Those of them that there are records of. What was sealed in the others opens by asking alone.
    pub covered: usize,
    /// How many records there are.
    pub records: u64,
    /// From the first of the smallest segments that there are records of to the last, which publishers write up to a
    /// quarter of an hour ahead; gaps are not told. None where there are no records.
    pub span: Option<Interval>,
}

#[derive(Default)]
struct Found {
    sessions: BTreeMap<(UserId, SessionId, DeviceId), bool>,
    seen: BTreeSet<[u8; 32]>,
    lanes: BTreeMap<UserId, LaneRecords>,
}

impl Stream {
    /// Reads all segment records that publishers put on the bus, and tells what there is of each lane. Of a year that
    /// one publisher seals all the time these are some hundred thousand objects.
    ///
    /// # Errors
    ///
    /// Fails when the bus cannot be reached.
    pub async fn segment_records(&self) -> Result<BTreeMap<UserId, LaneRecords>, Error> {
        let core = &self.core;
        core.sync().await?;
        let mut found = core.sessions_known();
        let keys = topic(&StreamTopics(core.id()).keys())?;
        let (mut at, end) = (Offset(0), core.bus.end(&keys).await?);
        while at < end {
            let items = core.bus.read(&keys, at, READ_BYTES).await?;
            let Some(last) = items.last() else {
                break;
            };
            at = Offset(last.offset.0.saturating_add(1));
            let of = Arc::clone(core);
            found = off_thread(move || of.count_records(found, &items)).await?;
        }
        for ((lane, ..), is_covered) in &found.sessions {
            let of_lane = found.lanes.entry(*lane).or_default();
            of_lane.sessions += 1;
            of_lane.covered += usize::from(*is_covered);
        }
        Ok(found.lanes)
    }
}

impl Core {
    fn sessions_known(&self) -> Found {
        let view = self.view();
        let of = view.records();
        let of = of.map(|of| ((of.lane, of.session, of.device), false));
        Found {
            sessions: of.collect(),
            ..Found::default()
        }
    }

    fn count_records(&self, mut found: Found, items: &[Item]) -> Found {
        for item in items {
            let Ok(records) = Unverified::<SegmentRecords>::decode(&item.payload) else {
                continue;
            };
            let dealer = records.claims().dealer;
            let key = {
                let view = self.view();
                let is_its = dealer.stream == view.stream();
                let key = view.sign_key(&dealer.lane, &dealer.device);
                key.filter(|_| is_its)
            };
            if let Some(Ok(records)) = key.map(|key| records.verify(&key))
                && found.seen.insert(*records.digest().as_bytes())
            {
                found.add(records.body());
            }
        }
        found
    }
}

impl Found {
    fn add(&mut self, body: &SegmentRecords) {
        let (lane, device) = (body.dealer.lane, body.dealer.device);
        let Some(is_covered) = self.sessions.get_mut(&(lane, body.session, device)) else {
            return;
        };
        *is_covered |= !body.records.is_empty();
        let of_lane = self.lanes.entry(lane).or_default();
        of_lane.records += body.records.len() as u64;
        let segments = body.records.iter().map(|of| of.segment);
        for segment in segments.filter(|of| of.depth == SMALLEST_DEPTH) {
            let Interval { from, until } = segment.interval();
            let span = of_lane.span.get_or_insert(Interval { from, until });
            *span = Interval {
                from: Position(span.from.0.min(from.0)),
                until: Position(span.until.0.max(until.0)),
            };
        }
    }
}

//! The keys that are missing for what waits.

use super::{BTreeMap, Cause, Interval, Parking, Position, SessionId, StreamView, UserId, Vec};

/// Keys that are missing, of one session. However many messages wait for them, they are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The lane.
    pub lane: UserId,
    /// The session.
    pub session: SessionId,
    /// From the first position that waits to behind the last.
    pub interval: Interval,
    /// Whether one grant to this device reaches all of the interval. What is not granted is not
    /// given.
    pub is_granted: bool,
    /// Whether the session's record is here.
    pub is_announced: bool,
}

/// A session, and which interval that the log opens.
type Which = (UserId, SessionId, Option<Interval>);

impl Parking {
    /// The keys that are missing: for each session one interval within each that this device is
    /// entitled to, and one for all that it is not.
    pub fn missing(&self, view: &StreamView) -> Vec<Missing> {
        let (me, own_device) = view.me();
        let mut spans = BTreeMap::<Which, (Interval, bool)>::new();
        for ((device, session), group) in &self.sessions {
            let record = view.record(session, device);
            let is_announced = record.is_some();
            let Some(lane) = record.map(|of| of.lane).or_else(|| view.user_of(device)) else {
                continue;
            };
            let readable = view.state().readable(&me, &own_device, &lane);
            let entries = group.numbers.iter().filter_map(|of| self.entries.get(of));
            for entry in entries.filter(|of| !of.is_taken && of.cause != Cause::Right) {
                let at = entry.header.position;
                let fits = entry.cause != Cause::OtherKey && !entry.has_failed;
                if is_announced && fits && view.has_key(session, at) {
                    continue;
                }
                let within = readable.iter().find(|of| of.contains(at)).copied();
                let one = Interval {
                    from: at,
                    until: Position(at.0.saturating_add(1)),
                };
                let span = spans.entry((lane, *session, within));
                let (span, _) = span.or_insert((one, is_announced));
                span.from = span.from.min(one.from);
                span.until = span.until.max(one.until);
            }
        }
        let missing = spans.into_iter();
        let missing = missing.map(
            |((lane, session, within), (interval, is_announced))| Missing {
                lane,
                session,
                interval,
                is_granted: within.is_some(),
                is_announced,
            },
        );
        missing.collect()
    }
}

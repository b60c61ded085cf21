//! What a home can hand over in a file, `spec/export.md`.

use alloc::vec::Vec;

use sealcast_crypto::Cover;
use sealcast_protocol::{
    ExportedCover, ExportedSession, Interval, Position, SessionRecord, UserId,
};

use crate::share::spans;
use crate::view::StreamView;

/// What this device holds of an interval: of each session that can have a message in it, the keys of
/// the interval and nothing else. The keys of all positions are the session's root.
pub fn exported(view: &StreamView, interval: Interval) -> Vec<ExportedSession> {
    let spans = spans(view);
    let touches = |of: &SessionRecord| {
        let span = spans.get(&(of.session, of.device));
        span.is_none_or(|span| span.intersect(&interval).is_some())
    };
    let records = view.records().filter(|of| touches(of));
    let held = records.map(|of| ExportedSession {
        session: of.session,
        device: of.device,
        lane: of.lane,
        commitment: of.commitment,
        covers: covers(view, of, interval),
    });
    held.filter(|of| !of.covers.is_empty()).collect()
}

fn covers(view: &StreamView, of: &SessionRecord, interval: Interval) -> Vec<ExportedCover> {
    let (from, until) = (interval.from.0, interval.until.0);
    if let Some(root) = view.root(&of.session) {
        let cover = Cover::from_root(root, from, until);
        return Vec::from([ExportedCover::new(&cover)]);
    }
    let held = view.covers(&of.session).iter();
    let inside = held.filter_map(|held| {
        let (from, until) = (from.max(held.cover.from()), until.min(held.cover.until()));
        held.cover.narrow(from, until)
    });
    let mut covers: Vec<_> = inside.map(|cover| ExportedCover::new(&cover)).collect();
    covers.sort_by_key(|of| of.interval);
    covers
}

/// Whether somebody else holds all keys of the stream, so that losing this device loses none.
pub fn has_other_keyholder(view: &StreamView, now: Position) -> bool {
    let (me, device) = view.me();
    let state = view.state();
    let others = |user: &UserId| {
        let mut live = view.live_devices(user, now);
        live.any(|(of, _)| {
            let is_me = (*user, *of) == (me, device);
            !is_me && state.is_keyholder(user, of, &state.owner())
        })
    };
    state.keyholders(&state.owner()).iter().any(others)
}

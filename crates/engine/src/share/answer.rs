//! What a device may give in answer to a request, and what it holds of it.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use sealcast_crypto::Cover;
use sealcast_protocol::{
    COVERS_MAX, CoverSpec, DeviceId, Interval, Position, RefusalReason, SessionId, SessionRecord,
    Sharing, Solicitation, UserId, Want,
};

use super::{Handout, HandoutKey, Rights, SharedWith};
use crate::view::StreamView;

/// Records that are looked at for one request, at most.
const RECORDS_MAX: usize = 16_384;

/// The sessions of a stream, as they are looked up for requests.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    /// Where messages of each can lie.
    spans: BTreeMap<(SessionId, DeviceId), Interval>,
    of_lane: BTreeMap<UserId, BTreeSet<SessionId>>,
}

impl Sessions {
    pub(crate) fn of(view: &StreamView) -> Self {
        let mut of_lane = BTreeMap::<UserId, BTreeSet<SessionId>>::new();
        for record in view.records() {
            let sessions = of_lane.entry(record.lane).or_default();
            sessions.insert(record.session);
        }
        Self {
            spans: super::spans(view),
            of_lane,
        }
    }
}

/// What this device says to one want.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It can give these covers.
    Give(Vec<CoverSpec>),
    /// It holds the lane's keys, and there is nothing to give.
    Refuse(RefusalReason),
}

/// The intervals of a lane of which a device may hand covers on to a user's devices that ask: all
/// where it is a keyholder; otherwise what it may read itself, if it is the user's own device or the
/// log lets it reshare.
pub(crate) fn may_give(
    view: &StreamView,
    (giver, device): (UserId, DeviceId),
    lane: &UserId,
    to: &UserId,
) -> Vec<Interval> {
    let state = view.state();
    if view.is_card_revoked(&giver, &device) {
        Vec::new()
    } else if state.is_keyholder(&giver, &device, lane) {
        Vec::from([Interval::ALL])
    } else if giver == *to {
        state.readable(&giver, &device, lane)
    } else {
        state.resharable(&giver, &device, lane)
    }
}

/// What this device says to each of some wants; nothing where others may know better.
pub(crate) fn verdicts(
    view: &StreamView,
    sessions: &Sessions,
    now: Position,
    asked: &Solicitation,
    places: impl IntoIterator<Item = u8>,
) -> BTreeMap<u8, Verdict> {
    let (me, my_device) = view.me();
    let asker = (&asked.user, &asked.device);
    let is_live = |user: &UserId, device: &DeviceId| {
        let mut live = view.live_devices(user, now);
        live.any(|(of, _)| of == device)
    };
    if view.state().is_public() || !is_live(&me, &my_device) || !is_live(asker.0, asker.1) {
        return BTreeMap::new();
    }
    let mut judge = Judge {
        view,
        sessions,
        records_left: RECORDS_MAX,
        rights: Rights::new(view, SharedWith::User(asked.user)),
        limits: BTreeMap::new(),
        asker,
    };
    let judged = places.into_iter().filter_map(|at| {
        let want = asked.wants.get(usize::from(at))?;
        Some((at, judge.judge(want)?))
    });
    judged.collect()
}

struct Judge<'a> {
    view: &'a StreamView,
    sessions: &'a Sessions,
    records_left: usize,
    rights: Rights<'a>,
    limits: BTreeMap<UserId, Vec<Interval>>,
    asker: (&'a UserId, &'a DeviceId),
}

impl<'a> Judge<'a> {
    fn judge(&mut self, want: &Want) -> Option<Verdict> {
        let (view, lane) = (self.view, want.lane);
        let me = view.me();
        let is_keyholder = self.rights.is_keyholder(&me.0, &me.1, &lane);
        let serves_keyholders_only = view.state().sharing() == Sharing::Manual;
        if serves_keyholders_only && !self.rights.is_keyholder(self.asker.0, self.asker.1, &lane) {
            return None;
        }
        let records = self.records(want)?;
        let records = records.into_iter();
        let records: Vec<_> = records
            .filter(|of| view.knows_past_of(&of.session) && self.rights.is_of_publisher(of))
            .collect();
        if records.is_empty() {
            return is_keyholder.then_some(Verdict::Refuse(RefusalReason::UnknownSession));
        }
        let (mut given, mut is_entitled) = (BTreeSet::new(), false);
        for record in records {
            let due = self.due(record, want);
            is_entitled |= !due.is_empty();
            given.extend(self.held_of(record, &due));
        }
        match (given.is_empty(), is_keyholder && !is_entitled) {
            (false, _) => Some(Verdict::Give(given.into_iter().collect())),
            (true, true) => Some(Verdict::Refuse(RefusalReason::NotEntitled)),
            (true, false) => None,
        }
    }

    /// The records of what a want names; nothing where a request names too much.
    fn records(&mut self, want: &Want) -> Option<Vec<&'a SessionRecord>> {
        let view = self.view;
        let of = |session: SessionId| {
            let records = view.records_of(session);
            records.filter(|of| of.lane == want.lane)
        };
        let records: Vec<_> = match want.session {
            Want::EVERY_SESSION => {
                let sessions = self.sessions.of_lane.get(&want.lane).into_iter().flatten();
                let records = sessions.copied().flat_map(of);
                records.take(self.records_left + 1).collect()
            }
            session => of(session).collect(),
        };
        self.records_left = self.records_left.checked_sub(records.len())?;
        Some(records)
    }

    /// What the log entitles the asker to, of what it asks of one session.
    fn due(&mut self, record: &SessionRecord, want: &Want) -> Vec<Interval> {
        let span = self.sessions.spans.get(&(record.session, record.device));
        let span = span.copied().unwrap_or(Interval::ALL);
        let (entitled, _) = self.rights.entitled(self.asker, &record.lane);
        let asked = entitled
            .iter()
            .filter_map(|of| of.intersect(&want.interval));
        asked.filter(|of| of.intersect(&span).is_some()).collect()
    }

    /// What of it this device holds and may give.
    fn held_of(&mut self, record: &SessionRecord, due: &[Interval]) -> Vec<CoverSpec> {
        let (view, lane, session) = (self.view, record.lane, record.session);
        let asker = *self.asker.0;
        let limits = self.limits.entry(lane);
        let limits = limits.or_insert_with(|| may_give(view, view.me(), &lane, &asker));
        let mut pieces: Vec<Interval> = Vec::new();
        for held in held(view, &session, &lane) {
            for due in due {
                let allowed = limits.iter().filter_map(|of| of.intersect(due));
                let some: Vec<_> = allowed.filter_map(|of| of.intersect(&held)).collect();
                let new = some
                    .into_iter()
                    .filter(|of| !pieces.iter().any(|piece| piece.covers(of)));
                let new: Vec<_> = new.collect();
                pieces.extend(new);
            }
        }
        let pieces = pieces.into_iter();
        pieces
            .map(|interval| CoverSpec { session, interval })
            .collect()
    }
}

/// The intervals that this device holds of a session; what keyholders gave comes first, and what
/// proved false is left out.
pub(super) fn held(view: &StreamView, session: &SessionId, lane: &UserId) -> Vec<Interval> {
    if view.root(session).is_some() {
        return Vec::from([Interval::ALL]);
    }
    by_trust(view, session, lane)
        .map(|cover| Interval {
            from: Position(cover.from()),
            until: Position(cover.until()),
        })
        .collect()
}

fn by_trust<'a>(
    view: &'a StreamView,
    session: &SessionId,
    lane: &'a UserId,
) -> impl Iterator<Item = &'a Cover> {
    let of = |wanted: bool| {
        let held = view.covers(session).iter();
        held.filter(move |held| {
            let (user, device) = &held.giver;
            !held.is_doubted && view.state().is_keyholder(user, device, lane) == wanted
        })
    };
    of(true).chain(of(false)).map(|held| &held.cover)
}

/// The keys of a cover, from what this device holds; `None` where it does not hold them.
pub(super) fn cover_of(view: &StreamView, lane: &UserId, spec: &CoverSpec) -> Option<Cover> {
    let (from, until) = (spec.interval.from.0, spec.interval.until.0);
    match view.root(&spec.session) {
        Some(root) => Some(Cover::from_root(root, from, until)),
        None => by_trust(view, &spec.session, lane).find_map(|held| held.narrow(from, until)),
    }
}

/// What fulfils a request with these covers: a handout for each lane, and more where they do not fit
/// into one bundle.
pub(crate) fn handouts(
    asked: &Solicitation,
    to: &HandoutKey,
    given: impl IntoIterator<Item = (UserId, Vec<CoverSpec>)>,
) -> Vec<Handout> {
    let mut lanes: BTreeMap<UserId, BTreeSet<CoverSpec>> = BTreeMap::new();
    for (lane, covers) in given {
        lanes.entry(lane).or_default().extend(covers);
    }
    let mut handouts = Vec::new();
    for (lane, covers) in lanes {
        let covers: Vec<_> = covers.into_iter().collect();
        handouts.extend(covers.chunks(COVERS_MAX).map(|covers| Handout {
            lane,
            user: asked.user,
            device: asked.device,
            covers: covers.to_vec(),
            to: to.clone(),
        }));
    }
    handouts
}

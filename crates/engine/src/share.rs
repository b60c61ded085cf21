//! Who should be given which keys, and the bundles that give them.
//!
//! A keyholder gives what the log entitles others to. Any device gives the other devices of its own
//! user what it holds itself: they are entitled to the same.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use rand_core::CryptoRng;
use sealcast_crypto::WrapKey;
use sealcast_protocol::{
    Bundle, BundleContext, CoverSpec, DecodeError, DeviceId, GrantState, Interval, KeyUse, LogHash,
    Position, RequestId, SessionId, SessionKind, SessionRecord, Sharing, UserId, Verified,
    seal_bundle, sign, wrap_key_hash,
};

use crate::identity::Identity;
use crate::view::StreamView;

mod answer;

pub(crate) use answer::{Sessions, Verdict, handouts, may_give, verdicts};

use answer::cover_of;

/// Covers that go into one bundle, at most.
const COVERS_A_BUNDLE: usize = 16;

/// Covers of one lane that one device should be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handout {
    /// The lane.
    pub lane: UserId,
    /// Who receives.
    pub user: UserId,
    /// The receiving device.
    pub device: DeviceId,
    /// Which covers, ascending.
    pub covers: Vec<CoverSpec>,
    /// What they are wrapped to.
    pub to: HandoutKey,
}

/// Which key of the receiving device a handout is wrapped to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandoutKey {
    /// The key of its card: what is given unasked must outlive the device's absence.
    LongLived,
    /// The key of the request that is answered.
    OneUse {
        /// The request.
        request: RequestId,
        /// Its key.
        key: WrapKey,
    },
}

/// Who is to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedWith {
    /// Everyone whom the stream's sharing mode serves unasked.
    Everyone,
    /// One user who was just granted something; and keyholders, whom every mode serves.
    User(UserId),
}

/// What this device should hand out: what the log entitles others to, what this device holds as a
/// keyholder, and what the bus does not show as delivered.
pub fn plan_handouts(view: &StreamView, now: Position, with: SharedWith) -> Vec<Handout> {
    let (me, my_device) = view.me();
    if view.is_card_revoked(&me, &my_device) {
        return Vec::new();
    }
    let spans = spans(view);
    let mut rights = Rights::new(view, with);
    let users = view.log().named_users();
    let devices = users.iter().flat_map(|user| {
        let live = view.live_devices(user, now);
        live.map(|(device, _)| (*user, *device))
    });
    let receivers: Vec<_> = devices.filter(|of| *of != (me, my_device)).collect();
    let mut plan: BTreeMap<(UserId, UserId, DeviceId), Vec<CoverSpec>> = BTreeMap::new();
    for record in view.records() {
        let lane = record.lane;
        if view.root(&record.session).is_none()
            || !view.knows_past_of(&record.session)
            || !rights.is_keyholder(&me, &my_device, &lane)
            || !rights.is_of_publisher(record)
        {
            continue;
        }
        let span = spans.get(&(record.session, record.device));
        let span = span.copied().unwrap_or(Interval::ALL);
        for (user, device) in &receivers {
            let due = rights.due(record, span, user, device);
            if !due.is_empty() {
                plan.entry((lane, *user, *device)).or_default().extend(due);
            }
        }
    }
    if is_served(view, with, &me) {
        plan_for_own(&mut rights, &spans, now, &mut plan);
    }
    let split = plan
        .into_iter()
        .flat_map(|((lane, user, device), mut covers)| {
            covers.sort_unstable();
            covers.dedup();
            let parts: Vec<_> = covers.chunks(COVERS_A_BUNDLE).map(<[_]>::to_vec).collect();
            parts.into_iter().map(move |covers| Handout {
                lane,
                user,
                device,
                covers,
                to: HandoutKey::LongLived,
            })
        });
    split.collect()
}

/// Whether a device is a keyholder of a lane, as far as it was found out.
type Keyholders = BTreeMap<(UserId, DeviceId, UserId), bool>;

/// Adds what this device holds, and the other devices of its user were given by nobody.
fn plan_for_own(
    rights: &mut Rights<'_>,
    spans: &BTreeMap<(SessionId, DeviceId), Interval>,
    now: Position,
    plan: &mut BTreeMap<(UserId, UserId, DeviceId), Vec<CoverSpec>>,
) {
    let view = rights.view;
    let (me, my_device) = view.me();
    if view.state().is_out(&me, &my_device) || view.state().is_public() {
        return;
    }
    let devices = view.live_devices(&me, now).map(|(device, _)| *device);
    let others: Vec<_> = devices.filter(|device| *device != my_device).collect();
    if others.is_empty() {
        return;
    }
    for record in view.records() {
        let (session, lane) = (record.session, record.lane);
        if rights.is_keyholder(&me, &my_device, &lane) && view.root(&session).is_some() {
            continue;
        }
        let span = spans.get(&(session, record.device));
        let span = span.copied().unwrap_or(Interval::ALL);
        let held = answer::held(view, &session, &lane);
        for device in &others {
            let readable = rights.entitled((&me, device), &lane).0.to_vec();
            let given = view.delivered_by(&session, device, |giver, by| {
                *giver == me || rights.is_keyholder(giver, by, &lane)
            });
            let due = readable.iter().filter(|of| of.intersect(&span).is_some());
            let parts = due.flat_map(|of| held.iter().filter_map(|held| held.intersect(of)));
            let missing = parts.filter(|part| !given.iter().any(|given| given.covers(part)));
            let specs = missing.map(|interval| CoverSpec { session, interval });
            plan.entry((lane, me, *device)).or_default().extend(specs);
        }
    }
    plan.retain(|_, covers| !covers.is_empty());
}

/// Who is entitled to what and who is a keyholder, each found out once.
struct Rights<'a> {
    view: &'a StreamView,
    with: SharedWith,
    readable: BTreeMap<(UserId, DeviceId, UserId), Vec<Interval>>,
    keyholders: Keyholders,
    /// The publishing grants of each device; none for one that may publish now.
    publishers: BTreeMap<(UserId, DeviceId), Option<Vec<LogHash>>>,
}

impl<'a> Rights<'a> {
    fn new(view: &'a StreamView, with: SharedWith) -> Self {
        Self {
            view,
            with,
            readable: BTreeMap::new(),
            keyholders: BTreeMap::new(),
            publishers: BTreeMap::new(),
        }
    }

    /// Whether a session's device may publish now, or drew it in knowledge of a grant to publish.
    fn is_of_publisher(&mut self, record: &SessionRecord) -> bool {
        let (view, device) = (self.view, record.device);
        let grants = self.publishers.entry((record.lane, device));
        let grants = grants.or_insert_with(|| view.lost_publishing(&record.lane, &device));
        grants.as_ref().is_none_or(|grants| {
            let mut grants = grants.iter();
            grants.any(|grant| view.log().reaches(&record.heads, grant))
        })
    }

    fn is_keyholder(&mut self, user: &UserId, device: &DeviceId, lane: &UserId) -> bool {
        is_keyholder(&mut self.keyholders, self.view, (user, device), lane)
    }

    /// The intervals of a lane that the log entitles a device to, where its user is served at all.
    fn entitled(
        &mut self,
        (user, device): (&UserId, &DeviceId),
        lane: &UserId,
    ) -> (&[Interval], &mut Keyholders) {
        let (view, with) = (self.view, self.with);
        let keyholders = &mut self.keyholders;
        let readable = self.readable.entry((*user, *device, *lane));
        let readable = readable.or_insert_with(|| {
            let is_keyholder = is_keyholder(keyholders, view, (user, device), lane);
            match is_keyholder || is_served(view, with, user) {
                true => view.state().readable(user, device, lane),
                false => Vec::new(),
            }
        });
        (readable, keyholders)
    }

    /// The covers of one session that a device should have and was not given.
    fn due(
        &mut self,
        record: &SessionRecord,
        span: Interval,
        user: &UserId,
        device: &DeviceId,
    ) -> Vec<CoverSpec> {
        let (view, lane) = (self.view, record.lane);
        let (readable, keyholders) = self.entitled((user, device), &lane);
        let touching = readable.iter().filter(|of| of.intersect(&span).is_some());
        let mut touching = touching.peekable();
        if touching.peek().is_none() {
            return Vec::new();
        }
        let given = view.delivered_by(&record.session, device, |giver, by| {
            is_keyholder(keyholders, view, (giver, by), &lane)
        });
        let missing = touching.filter(|of| !given.iter().any(|given| given.covers(of)));
        let session = record.session;
        missing
            .map(|interval| CoverSpec {
                session,
                interval: *interval,
            })
            .collect()
    }
}

fn is_keyholder(
    known: &mut Keyholders,
    view: &StreamView,
    (user, device): (&UserId, &DeviceId),
    lane: &UserId,
) -> bool {
    let known = known.entry((*user, *device, *lane));
    *known.or_insert_with(|| view.state().is_keyholder(user, device, lane))
}

/// Whether a reader is given keys in this mode; keyholders are in every mode.
fn is_served(view: &StreamView, with: SharedWith, user: &UserId) -> bool {
    let state = view.state();
    match (state.sharing(), with) {
        _ if state.is_public() => false,
        (Sharing::Active, SharedWith::Everyone) => true,
        (Sharing::Active | Sharing::OnRequest, SharedWith::User(to)) => to == *user,
        (Sharing::OnRequest, SharedWith::Everyone) | (Sharing::Manual, _) => false,
    }
}

/// Whether every device of a grant's user has what the grant opens, as far as the bus shows.
pub fn is_delivered(view: &StreamView, of: &GrantState, now: Position) -> bool {
    let user = of.grant.user;
    let state = view.state();
    let spans = spans(view);
    let mut rights = Rights::new(view, SharedWith::Everyone);
    let records = view.records();
    let records: Vec<_> = records.filter(|of| rights.is_of_publisher(of)).collect();
    let has_all = |device: &DeviceId| {
        let mut others = records.iter().filter(|record| record.device != *device);
        others.all(|record| {
            let span = spans.get(&(record.session, record.device));
            let span = span.and_then(|span| span.intersect(&of.grant.interval));
            let Some(span) = span else {
                return true;
            };
            let entitled = state.readable(&user, device, &record.lane);
            let given = view.delivered(&record.session, device);
            let mut due = entitled.iter().filter(|of| of.intersect(&span).is_some());
            due.all(|due| given.iter().any(|given| given.covers(due)))
        })
    };
    let mut devices = view.live_devices(&user, now).peekable();
    devices.peek().is_some() && (state.is_public() || devices.all(|(device, _)| has_all(device)))
}

/// Where messages of each session can lie: from its start to the start of the next one that its
/// device drew, or the range of a backfill.
pub(crate) fn spans(view: &StreamView) -> BTreeMap<(SessionId, DeviceId), Interval> {
    let mut starts = BTreeMap::<DeviceId, BTreeSet<Position>>::new();
    for record in view.records() {
        if record.kind == SessionKind::Live {
            starts
                .entry(record.device)
                .or_default()
                .insert(record.start);
        }
    }
    let span = |record: &SessionRecord| match record.kind {
        SessionKind::Backfill { interval } => interval,
        SessionKind::Live => {
            let starts = starts.get(&record.device);
            let mut later = starts
                .into_iter()
                .flat_map(|starts| starts.range(record.start.after(1)..));
            Interval {
                from: record.start,
                until: later.next().map_or(Position::END, |next| next.after(1)),
            }
        }
    };
    let records = view.records();
    let spans = records.map(|record| ((record.session, record.device), span(record)));
    spans.collect()
}

/// Whether a handout gives no more than the log says, and nothing of another lane: what a session's
/// id alone would open is not enough. A session that was drawn in knowledge of an entry that is not
/// here, which may be a removal, waits for it.
fn is_allowed(view: &StreamView, handout: &Handout) -> bool {
    let me = view.me();
    let state = view.state();
    let (user, device, lane) = (&handout.user, &handout.device, &handout.lane);
    let readable = state.readable(user, device, lane);
    let mine = match handout.to {
        HandoutKey::OneUse { .. } => may_give(view, me, lane, user),
        HandoutKey::LongLived if state.is_keyholder(&me.0, &me.1, lane) || *user == me.0 => {
            Vec::from([Interval::ALL])
        }
        HandoutKey::LongLived => Vec::new(),
    };
    !view.is_card_revoked(user, device)
        && handout.covers.iter().all(|spec| {
            view.lane_of(&spec.session) == Some(*lane)
                && view.knows_past_of(&spec.session)
                && !spec.interval.is_empty()
                && readable.iter().any(|of| of.covers(&spec.interval))
                && mine.iter().any(|of| of.covers(&spec.interval))
        })
}

/// Seals and signs the bundle of a handout; `None` when a key or card that it needs is not here, or
/// the log does not allow it (any more).
///
/// # Errors
///
/// Fails when the bundle would not be one that others take.
pub fn wrap_handout(
    view: &StreamView,
    identity: &Identity,
    rng: &mut (impl CryptoRng + ?Sized),
    handout: &Handout,
) -> Result<Option<Verified<Bundle>>, DecodeError> {
    if !is_allowed(view, handout) {
        return Ok(None);
    }
    let list = view.list(&handout.user);
    let of = list.and_then(|list| list.device(&handout.device));
    let Some(wrap_key) = of.and_then(|of| of.wrap_key.as_ref()) else {
        return Ok(None);
    };
    let (key, use_of_key, request) = match &handout.to {
        HandoutKey::LongLived => (wrap_key, KeyUse::LongLived, RequestId::NONE),
        HandoutKey::OneUse { request, key } => (key, KeyUse::OneUse, *request),
    };
    let cut = |spec: &CoverSpec| cover_of(view, &handout.lane, spec);
    let Some(covers) = handout.covers.iter().map(cut).collect::<Option<Vec<_>>>() else {
        return Ok(None);
    };
    let context = BundleContext {
        stream: view.stream(),
        lane: handout.lane,
        giver_user: identity.user(),
        giver_device: identity.device(),
        user: handout.user,
        device: handout.device,
        key: use_of_key,
        wrap_key_hash: wrap_key_hash(key),
        heads: view.log().heads(&LogHash([0; 32])),
        request: request.0,
        covers: handout.covers.clone(),
    };
    let covers: Vec<_> = covers.iter().collect();
    let bundle = seal_bundle(rng, context, &covers, key).map_err(|_| DecodeError::OutOfRange)?;
    sign(identity.signing(), bundle).map(Some)
}

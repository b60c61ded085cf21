//! Who should be given which keys, and the bundles that give them.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use rand_core::CryptoRng;
use sealcast_crypto::Cover;
use sealcast_protocol::{
    Bundle, BundleContext, CoverSpec, DecodeError, DeviceId, GrantState, Interval, KeyUse, LogHash, Position,
    SessionKind, SessionRecord, Sharing, UserId, Verified, seal_bundle, sign, wrap_key_hash,
};

use crate::identity::Identity;
use crate::view::StreamView;

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
    let mut plan: BTreeMap<(UserId, UserId, DeviceId), Vec<CoverSpec>> = BTreeMap::new();
    for record in view.records() {
        let lane = record.lane;
        let holds = view.root(&record.session).is_some();
        if !holds || !view.state().is_keyholder(&me, &my_device, &lane) {
            continue;
        }
        for user in view.log().named_users() {
            for (device, _) in view.live_devices(&user, now) {
                if (user, *device) == (me, my_device) {
                    continue;
                }
                let due = due(view, record, &user, device, with);
                if !due.is_empty() {
                    plan.entry((lane, user, *device)).or_default().extend(due);
                }
            }
        }
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
            })
        });
    split.collect()
}

/// The covers of one session that a device should have and was not given.
fn due(
    view: &StreamView,
    record: &SessionRecord,
    user: &UserId,
    device: &DeviceId,
    with: SharedWith,
) -> Vec<CoverSpec> {
    let state = view.state();
    let is_keyholder = state.is_keyholder(user, device, &record.lane);
    let is_served = match (state.sharing(), with) {
        _ if is_keyholder => true,
        _ if state.is_public() => false,
        (Sharing::Active, SharedWith::Everyone) => true,
        (Sharing::Active | Sharing::OnRequest, SharedWith::User(to)) => to == *user,
        (Sharing::OnRequest, SharedWith::Everyone) | (Sharing::Manual, _) => false,
    };
    if !is_served {
        return Vec::new();
    }
    let span = span(view, record);
    let given = view.delivered(&record.session, device);
    let entitled = state.readable(user, device, &record.lane);
    let open = entitled
        .iter()
        .filter(|interval| interval.intersect(&span).is_some());
    let missing = open.filter(|interval| !given.iter().any(|given| given.covers(interval)));
    let session = record.session;
    missing
        .map(|interval| CoverSpec {
            session,
            interval: *interval,
        })
        .collect()
}

/// Whether every device of a grant's user has what the grant opens, as far as the bus shows.
pub fn is_delivered(view: &StreamView, of: &GrantState, now: Position) -> bool {
    let user = of.grant.user;
    let mut devices = view.live_devices(&user, now).peekable();
    devices.peek().is_some()
        && devices.all(|(device, _)| {
            view.records().filter(|record| record.device != *device).all(|record| {
                let state = view.state();
                let entitled = state.readable(&user, device, &record.lane);
                let span = span(view, record);
                let given = view.delivered(&record.session, device);
                let due = entitled.iter().filter(|interval| interval.intersect(&span).is_some());
                let mut due = due.filter(|interval| interval.intersect(&of.grant.interval).is_some());
                state.is_public() || due.all(|due| given.iter().any(|given| given.covers(due)))
            })
        })
}

/// Where messages of a session can lie: from its start to the start of the next one that its device
/// drew, or the range of a backfill.
fn span(view: &StreamView, record: &SessionRecord) -> Interval {
    let next = || {
        let later = view.records().filter(|of| {
            of.device == record.device && of.kind == SessionKind::Live && of.start > record.start
        });
        later.map(|of| of.start).min()
    };
    match record.kind {
        SessionKind::Backfill { interval } => interval,
        SessionKind::Live => Interval {
            from: record.start,
            until: next().map_or(Position::END, |start| start.after(1)),
        },
    }
}

/// Seals and signs the bundle of a handout; `None` when a key or card it needs is not here.
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
    let list = view.list(&handout.user);
    let Some(of) = list.and_then(|list| list.device(&handout.device)) else {
        return Ok(None);
    };
    let cut = |spec: &CoverSpec| {
        let root = view.root(&spec.session)?;
        Some(Cover::from_root(
            root,
            spec.interval.from.0,
            spec.interval.until.0,
        ))
    };
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
        key: KeyUse::LongLived,
        wrap_key_hash: wrap_key_hash(&of.keys.wrap_key),
        heads: view.log().heads(&LogHash([0; 32])),
        request: [0; 16],
        covers: handout.covers.clone(),
    };
    let covers: Vec<_> = covers.iter().collect();
    let bundle = seal_bundle(rng, context, &covers, &of.keys.wrap_key)
        .map_err(|_| DecodeError::OutOfRange)?;
    sign(identity.signing(), bundle).map(Some)
}

//! The keys topic: session records and bundles, `spec/reading.md`, section "Control objects".

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use sealcast_crypto::{Cover, Digest, SecretBytes, SessionRoot, digest};
use sealcast_protocol::{
    Bundle, BundleContext, Dealer, DeviceId, ExportedKey, Interval, KeyExport, KeyUse, LogHash,
    OpenBundleError, Position, Roles, SessionId, SessionRecord, Standing, StreamId, UserId,
    Verified, WrongRoot, open_bundle,
};

use super::waiting::KeyItem;
use super::{Alarm, ControlTopic, Output, StreamView};
use crate::fallback::Fallbacks;
use crate::persist::{Put, Space, persisted};

/// A cover that was received, and from whom.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) giver: (UserId, DeviceId),
    pub(crate) cover: Cover,
    /// Whether something that its giver gave of the session has failed where another cover opened.
    pub(crate) is_doubted: bool,
    name: Digest,
}

/// Covers of one session that were received.
#[derive(Debug, Default)]
pub(crate) struct Covers {
    pub(crate) held: Vec<Held>,
    /// How many came.
    pub(crate) came: usize,
    /// How many went, since others hold what they held.
    pub(crate) gone: usize,
}

impl Held {
    fn new(giver: (UserId, DeviceId), cover: Cover) -> Self {
        let (from, until) = (cover.from().to_be_bytes(), cover.until().to_be_bytes());
        let name = digest(HELD_LABEL, &[&from, &until, cover.key_bytes().expose()]);
        Self {
            giver,
            cover,
            is_doubted: false,
            name,
        }
    }
}

const HELD_LABEL: &str = "sealcast.v1 held cover";

/// Taking in.
impl StreamView {
    /// Others count what such users gave before as given, so it must not stay passed over.
    pub(super) fn note_regained(&mut self, is_first: bool) {
        let (mut lost, mut has) = (BTreeSet::new(), BTreeSet::new());
        for of in self.state.grants() {
            let (user, roles) = (of.grant.user, of.grant.roles);
            if roles.contains(Roles::PUBLISHER) || roles.contains(Roles::ADMIN) {
                let counts = of.standing == Standing::Counts;
                has.extend(counts.then_some(user));
                lost.extend((!counts || !of.devices_lost.is_empty()).then_some(user));
            }
        }
        let regained: BTreeSet<_> = lost.intersection(&has).copied().collect();
        // What earlier runs had read is noted with how far they did.
        self.needs_reread |= !is_first && !regained.is_subset(&self.regained);
        self.regained = regained;
    }

    pub(super) fn take_key_bytes(&mut self, bytes: &[u8]) {
        match KeyItem::decode(bytes) {
            Some(item) => {
                if let Some(item) = self.take_key_item(item) {
                    self.waiting.push(item, bytes.len());
                }
            }
            None => self.tell_unreadable(ControlTopic::Keys, bytes),
        }
    }

    /// Gives the item back where it may become believable once more is known.
    pub(super) fn take_key_item(&mut self, item: KeyItem) -> Option<KeyItem> {
        if *item.stream() != self.stream {
            self.tell_forged(ControlTopic::Keys);
            return None;
        }
        match item {
            KeyItem::Record(record) => {
                let claims = record.claims();
                let id = (claims.session, claims.device);
                if self.records.contains_key(&id) {
                    return None;
                }
                match self.sign_key(&claims.lane, &claims.device) {
                    Some(key) => {
                        let record = self.signed(ControlTopic::Keys, record.verify(&key))?;
                        self.take_record(record)
                    }
                    None if self.is_hopeless(&claims.lane, &claims.heads) => None,
                    None => Some(KeyItem::Record(record)),
                }
            }
            KeyItem::Bundle(bundle) => {
                let context = &bundle.claims().context;
                match self.sign_key(&context.giver_user, &context.giver_device) {
                    Some(key) => {
                        let bundle = self.signed(ControlTopic::Keys, bundle.verify(&key))?;
                        self.take_bundle(bundle)
                    }
                    None if self.is_hopeless(&context.giver_user, &context.heads) => None,
                    None => Some(KeyItem::Bundle(bundle)),
                }
            }
            KeyItem::Deal(deal) => {
                let Dealer { lane, device, .. } = deal.claims().dealer;
                match self.sign_key(&lane, &device) {
                    Some(key) => {
                        let deal = self.signed(ControlTopic::Keys, deal.verify(&key))?;
                        self.take_deal(deal)
                    }
                    None => Some(KeyItem::Deal(deal)),
                }
            }
            KeyItem::Segments(records) => {
                let Dealer { lane, device, .. } = records.claims().dealer;
                match self.sign_key(&lane, &device) {
                    Some(key) => {
                        let records = self.signed(ControlTopic::Keys, records.verify(&key))?;
                        self.take_segments(records)
                    }
                    None => Some(KeyItem::Segments(records)),
                }
            }
            KeyItem::SignedDeal(deal) => self.take_deal(deal),
            KeyItem::SignedSegments(records) => self.take_segments(records),
            KeyItem::SignedRecord(record) => self.take_record(record),
            KeyItem::SignedBundle(bundle) => self.take_bundle(bundle),
        }
    }

    /// Whether an author claims to know no more than is known here, where nobody names it.
    fn is_hopeless(&self, author: &UserId, heads: &[LogHash]) -> bool {
        !self.named.contains(author) && self.knows_all(heads)
    }

    fn knows_all(&self, heads: &[LogHash]) -> bool {
        self.state.has_begun() && heads.iter().all(|head| self.log.contains(head))
    }

    fn take_record(&mut self, record: Verified<SessionRecord>) -> Option<KeyItem> {
        let body = record.body();
        let id = (body.session, body.device);
        if self.records.contains_key(&id) {
            return None;
        }
        if !self.state.has_begun() || !self.announcers.contains(&body.lane) {
            let is_final = self.knows_all(&body.heads);
            return (!is_final).then_some(KeyItem::SignedRecord(record));
        }
        let key = persisted(&[&self.stream.0, &id.0.0, &id.1.0]);
        let wire = SecretBytes::from(record.wire().to_vec());
        self.persist(Space::Record, key, wire);
        self.learn_record(record.body());
        self.revision += 1;
        None
    }

    fn learn_record(&mut self, body: &SessionRecord) {
        for wrap in &body.wraps {
            self.deliveries
                .note_wrap(body.session, wrap.device, body.start);
        }
        let root = match self.state.is_public() {
            true => body.public_root(),
            false => None,
        };
        if let Some(root) = root {
            self.roots.entry(body.session).or_insert(root);
        } else if !self.roots.contains_key(&body.session)
            && body.wrap_for(&self.user, &self.device).is_some()
        {
            match body.unwrap_root(&self.user, &self.device, &self.unwrap) {
                Ok(root) => self.keep_root(body.session, root),
                Err(_) if self.key_since(&self.device) > body.start => (),
                Err(_) => self.tell_bad_keys((body.lane, body.device)),
            }
        }
        if body.device == self.device {
            self.own_mark = self.own_mark.max(body.start);
        }
        let mut kept = body.clone();
        kept.wraps = Vec::new();
        self.records.insert((body.session, body.device), kept);
    }

    fn keep_root(&mut self, session: SessionId, root: SessionRoot) {
        let id = persisted(&[&self.stream.0, &session.0]);
        self.persist(Space::Root, id, SecretBytes::from(root.expose().to_vec()));
        self.roots.insert(session, root);
    }

    fn tell_bad_keys(&mut self, (user, device): (UserId, DeviceId)) {
        self.outputs
            .push_back(Output::Tell(Alarm::BadKeys(user, device)));
    }

    fn take_bundle(&mut self, bundle: Verified<Bundle>) -> Option<KeyItem> {
        let context = &bundle.body().context;
        let lanes = context.covers.iter().map(|of| self.lane_of(&of.session));
        let lanes: Vec<_> = lanes.collect();
        if lanes.iter().flatten().any(|lane| *lane != context.lane) {
            return None;
        }
        let (user, device) = (&context.giver_user, &context.giver_device);
        if !self.may_give(user, device, context) {
            let is_final = self.knows_all(&context.heads);
            return (!is_final).then_some(KeyItem::SignedBundle(bundle));
        }
        let known = lanes.iter().flatten().count();
        // What others hand to their own devices is theirs to know: it must not move this one.
        let is_noted =
            context.user == self.user || self.state.is_keyholder(user, device, &context.lane);
        if context.key == KeyUse::LongLived && known > 0 && is_noted {
            self.note_delivered(context);
        }
        if known > 0
            && (context.user, context.device) == (self.user, self.device)
            && self.opened.get(&bundle.digest()) != Some(&known)
        {
            self.opened.insert(bundle.digest(), known);
            self.open_own(&bundle);
        }
        // What has a record does not wait for what has none.
        (known < lanes.len()).then_some(KeyItem::SignedBundle(bundle))
    }

    /// Whether this device believes a giver: a keyholder, or another device of its receiver's own
    /// user, which is entitled to the same.
    fn may_give(&self, user: &UserId, device: &DeviceId, context: &BundleContext) -> bool {
        let is_of_receiver = *user == context.user
            && *device != context.device
            && !self.is_card_revoked(user, device)
            && !self.state.is_out(user, device);
        is_of_receiver || self.state.is_keyholder(user, device, &context.lane)
    }

    fn note_delivered(&mut self, context: &BundleContext) {
        let giver = (context.giver_user, context.giver_device);
        for spec in &context.covers {
            let (session, device) = (spec.session, context.device);
            if self.lane_of(&session).is_none() {
                continue;
            }
            let key = context.wrap_key_hash;
            let news = self
                .deliveries
                .note(session, device, giver, key, spec.interval);
            if let Some(bytes) = news {
                let id = persisted(&[&self.stream.0, &session.0, &device.0]);
                self.persist(Space::Delivered, id, SecretBytes::from(bytes));
                let is_revoked = self.is_card_revoked(&context.user, &device);
                self.revision += u64::from(is_revoked);
            }
        }
    }

    fn open_own(&mut self, bundle: &Verified<Bundle>) {
        let context = &bundle.body().context;
        let giver = (context.giver_user, context.giver_device);
        let key = match context.key {
            KeyUse::LongLived => Some(&self.unwrap),
            KeyUse::Fallback { period } => self.fallbacks.key(period),
            KeyUse::OneUse => None,
        };
        let Some(key) = key else {
            return;
        };
        let covers = match open_bundle(bundle.body(), key) {
            Ok(covers) => covers,
            Err(OpenBundleError::OtherKey) => return,
            Err(_) => return self.tell_bad_keys(giver),
        };
        let lane = context.lane;
        self.keep_covers(giver, &lane, covers);
    }

    /// Keeps covers of sessions of a lane, each unless it is known or false on its face.
    pub(super) fn keep_covers(
        &mut self,
        giver: (UserId, DeviceId),
        lane: &UserId,
        covers: impl IntoIterator<Item = (SessionId, Cover)>,
    ) {
        for (session, cover) in covers {
            if self.roots.contains_key(&session) || self.lane_of(&session) != Some(*lane) {
                continue;
            }
            if (cover.from(), cover.until()) == (Position::START.0, Position::END.0) {
                match root_of(&self.stream, &session, lane, &cover) {
                    Some(root) => self.keep_root(session, root),
                    None => self.tell_bad_keys(giver),
                }
                continue;
            }
            let held = Held::new(giver, cover);
            let id = persisted(&[&self.stream.0, &session.0, held.name.as_bytes()]);
            let stored = encode_held(&held);
            if self.hold(session, held) {
                self.persist(Space::Cover, id, stored);
            }
        }
    }

    /// Hands on no more what somebody gave of a session, after
    /// [`Event::BadCover`](crate::Event::BadCover). It is for opening still.
    pub fn doubt(&mut self, session: &SessionId, giver: &(UserId, DeviceId)) {
        let held = self.covers.get_mut(session);
        let held = held.into_iter().flat_map(|of| &mut of.held);
        for held in held.filter(|held| held.giver == *giver) {
            held.is_doubted = true;
        }
    }

    /// Holds a cover; false where the same was held already.
    fn hold(&mut self, session: SessionId, held: Held) -> bool {
        let is_new = self.held_names.insert((session, held.name));
        if is_new {
            let of = self.covers.entry(session).or_default();
            of.held.push(held);
            of.came += 1;
        }
        is_new
    }

    /// Holds no more what somebody gave of a session that follows from another cover that the same gave: whoever is given
    /// small segments for as long as it follows would hold more and more of them.
    pub(super) fn drop_within(
        &mut self,
        giver: (UserId, DeviceId),
        session: &SessionId,
        of: &Cover,
    ) {
        let whole = Held::new(giver, of.duplicate());
        let Some(covers) = self.covers.get_mut(session) else {
            return;
        };
        if !covers.held.iter().any(|held| held.name == whole.name) {
            return;
        }
        let mut gone = Vec::new();
        covers.held.retain(|held| {
            let (from, until) = (held.cover.from(), held.cover.until());
            let is_same = held.giver == giver && held.name != whole.name && !held.is_doubted;
            let follows = is_same
                && of
                    .narrow(from, until)
                    .is_some_and(|of| Held::new(giver, of).name == held.name);
            gone.extend(follows.then_some(held.name));
            !follows
        });
        covers.gone += gone.len();
        for name in gone {
            self.held_names.remove(&(*session, name));
            let id = persisted(&[&self.stream.0, &session.0, name.as_bytes()]);
            self.persist(Space::Cover, id, SecretBytes::from(Vec::new()));
        }
    }
}

/// A cover of everything is the root; that it is the right one shows at once.
pub(crate) fn root_of(
    stream: &StreamId,
    session: &SessionId,
    lane: &UserId,
    cover: &Cover,
) -> Option<SessionRoot> {
    let keys = cover.key_bytes();
    let bytes: &[u8; 32] = keys.expose().try_into().ok()?;
    let root = SessionRoot::init_with(|root| root.copy_from_slice(bytes));
    let named = SessionId::derive(stream, lane, &root.commitment());
    (named == *session).then_some(root)
}

/// What imported keys come to in the store, `spec/export.md`, section "Import": for opening, and
/// nothing that this device seals with. `by` is this user and device, whose act it is.
///
/// # Errors
///
/// Fails when a root is not its session's; nothing is to be kept then.
pub fn imported(keys: &KeyExport, by: (UserId, DeviceId)) -> Result<Vec<Put>, WrongRoot> {
    let mut puts = Vec::new();
    for of in &keys.sessions {
        let (stream, session) = (&keys.stream.0, &of.session.0);
        for key in of.keys()? {
            puts.push(match key {
                ExportedKey::Root(root) => Put {
                    space: Space::Root,
                    id: persisted(&[stream, session]),
                    value: SecretBytes::from(root.expose().to_vec()),
                },
                ExportedKey::Cover(cover) => {
                    let held = Held::new(by, cover);
                    Put {
                        space: Space::Cover,
                        id: persisted(&[stream, session, held.name.as_bytes()]),
                        value: encode_held(&held),
                    }
                }
            });
        }
    }
    Ok(puts)
}

/// What was kept comes back: feed it before anything of the bus, after device lists and log.
impl StreamView {
    /// Takes back a root.
    pub fn restore_root(&mut self, session: SessionId, value: &SecretBytes) {
        if let Ok(bytes) = value.expose().try_into() {
            let bytes: &[u8; 32] = bytes;
            let root = SessionRoot::init_with(|root| root.copy_from_slice(bytes));
            self.roots.insert(session, root);
        }
    }

    /// Takes back a cover.
    pub fn restore_cover(&mut self, session: SessionId, value: &SecretBytes) {
        if let Some(held) = decode_held(value.expose()) {
            self.hold(session, held);
        }
    }

    /// Takes back what another device was given.
    pub fn restore_delivered(&mut self, session: SessionId, device: DeviceId, value: &[u8]) {
        self.deliveries.restore(session, device, value);
    }
}

const HELD_HEAD: usize = 32 + 16 + 8 + 8;

fn encode_held(held: &Held) -> SecretBytes {
    let (giver, cover) = (&held.giver, &held.cover);
    let keys = cover.key_bytes();
    let mut bytes = SecretBytes::with_capacity(HELD_HEAD + keys.len());
    bytes.extend_from_slice(&giver.0.0);
    bytes.extend_from_slice(&giver.1.0);
    bytes.extend_from_slice(&cover.from().to_be_bytes());
    bytes.extend_from_slice(&cover.until().to_be_bytes());
    bytes.extend_from_slice(keys.expose());
    bytes
}

fn decode_held(bytes: &[u8]) -> Option<Held> {
    let (user, rest) = bytes.split_first_chunk::<32>()?;
    let (device, rest) = rest.split_first_chunk::<16>()?;
    let (from, rest) = rest.split_first_chunk::<8>()?;
    let (until, keys) = rest.split_first_chunk::<8>()?;
    let (from, until) = (u64::from_be_bytes(*from), u64::from_be_bytes(*until));
    let cover = Cover::from_key_bytes(from, until, keys).ok()?;
    Some(Held::new((UserId(*user), DeviceId(*device)), cover))
}

/// The bus went back to an older state.
impl StreamView {
    /// Takes every bundle that the bus showed for lost, before the keys topic is read again from its
    /// start. Returns the users whom they were for. Records are not lost with it: what signed them
    /// puts them back.
    pub fn forget_given(&mut self) -> BTreeSet<UserId> {
        let devices = self.deliveries.forget();
        self.revision += 1;
        devices.iter().filter_map(|of| self.user_of(of)).collect()
    }
}

/// The keys to open with.
impl StreamView {
    /// Opens what is wrapped to these fallback keys, too, from now on.
    pub fn set_fallbacks(&mut self, fallbacks: Fallbacks) {
        self.fallbacks = fallbacks;
    }
}

/// What is known.
impl StreamView {
    /// The record of a session, signed by a device, without its wraps.
    pub fn record(&self, session: &SessionId, device: &DeviceId) -> Option<&SessionRecord> {
        self.records.get(&(*session, *device))
    }

    /// Every session record, without its wraps.
    pub fn records(&self) -> impl Iterator<Item = &SessionRecord> {
        self.records.values()
    }

    /// The records of one session; of two devices, where one copied the other's id.
    pub(crate) fn records_of(&self, session: SessionId) -> impl Iterator<Item = &SessionRecord> {
        let first = (session, DeviceId([0; 16]));
        let last = (session, DeviceId([0xff; 16]));
        self.records.range(first..=last).map(|(_, record)| record)
    }

    /// The root of a session, where this device holds it.
    pub fn root(&self, session: &SessionId) -> Option<&SessionRoot> {
        self.roots.get(session)
    }

    pub(crate) fn covers(&self, session: &SessionId) -> &[Held] {
        self.covers.get(session).map_or(&[], |of| &of.held)
    }

    /// How many covers of a session came, and how many of them went.
    pub(crate) fn covers_moved(&self, session: &SessionId) -> (usize, usize) {
        let of = self.covers.get(session);
        of.map_or((0, 0), |of| (of.came, of.gone))
    }

    /// The intervals of a session that a device was given, by those whom it believes, to the key
    /// that it has now.
    pub fn delivered(&self, session: &SessionId, device: &DeviceId) -> Vec<Interval> {
        let Some(lane) = self.lane_of(session) else {
            return Vec::new();
        };
        let believed = |user: &UserId, by: &DeviceId| self.state.is_keyholder(user, by, &lane);
        self.delivered_by(session, device, believed)
    }

    /// As [`delivered`](Self::delivered), for a caller that knows whom to believe.
    pub(crate) fn delivered_by(
        &self,
        session: &SessionId,
        device: &DeviceId,
        is_believed: impl FnMut(&UserId, &DeviceId) -> bool,
    ) -> Vec<Interval> {
        let key = self.keys_now.get(device).copied();
        self.deliveries.given(*session, *device, key, is_believed)
    }

    /// The lane of a session.
    pub(crate) fn lane_of(&self, session: &SessionId) -> Option<UserId> {
        self.records_of(*session).next().map(|record| record.lane)
    }

    /// Whether all that was known of the log when a session was drawn is known here. Of two devices that say so of one session
    /// the one copied its id: those that are out are heard where none is left that is not, for they name what they like.
    pub(crate) fn knows_past_of(&self, session: &SessionId) -> bool {
        let mut records: Vec<_> = self.records_of(*session).collect();
        if records.len() > 1 {
            let is_used = |of: &&SessionRecord| !self.is_gone(&of.lane, &of.device);
            if records.iter().any(is_used) {
                records.retain(is_used);
            }
        }
        records.iter().all(|record| self.knows(&record.heads))
    }

    /// Whether a device draws no sessions of its user's any more.
    fn is_gone(&self, user: &UserId, device: &DeviceId) -> bool {
        self.state.is_out(user, device)
            || self.is_card_revoked(user, device)
            || self.lost_publishing(user, device).is_some()
    }

    fn key_since(&self, device: &DeviceId) -> Position {
        let now = self.keys_now.get(device);
        now.map_or(Position::START, |now| now.since)
    }
}

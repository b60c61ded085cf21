//! What one device knows of one stream: device lists, access log, session records and keys.
//!
//! The driver reads the [`wanted`](StreamView::wanted) topics, feeds every item, and repeats until
//! no topic is new and all are read to their end. `Keys` comes last: whom to believe there follows
//! from the rest.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use sealcast_crypto::{Cover, SecretBytes, SessionRoot, UnwrapKey, VerifyingKey};
use sealcast_protocol::{
    AccessLog, Applied, Bundle, BundleContext, CardList, DeviceId, DeviceState, Inserted, Interval,
    ListFault, LogEntry, LogState, Position, SessionId, SessionRecord, StreamId, StreamTopics,
    Unverified, UserId, Verified, merged, open_bundle,
};

use crate::identity::Identity;
use crate::persist::{Put, Space, persisted};

/// Items of the keys topic that wait for what they rest on, at most.
const HELD_MAX: usize = 1024;

/// What one device knows of one stream.
#[derive(Debug)]
pub struct StreamView {
    stream: StreamId,
    user: UserId,
    device: DeviceId,
    unwrap: UnwrapKey,
    log: AccessLog,
    state: LogState,
    is_stale: bool,
    lists: BTreeMap<UserId, CardList>,
    users: BTreeMap<DeviceId, UserId>,
    records: BTreeMap<(SessionId, DeviceId), Verified<SessionRecord>>,
    roots: BTreeMap<SessionId, SessionRoot>,
    covers: BTreeMap<SessionId, Vec<Held>>,
    delivered: BTreeMap<(SessionId, DeviceId), Vec<Interval>>,
    waiting: Vec<Vec<u8>>,
    outputs: VecDeque<Output>,
}

/// A cover that was received, and from whom.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) giver: (UserId, DeviceId),
    pub(crate) cover: Cover,
}

/// A topic that carries control objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ControlTopic {
    /// The device list of a user.
    Devices(UserId),
    /// The access-log chain of a device.
    Access(UserId, DeviceId),
    /// Session records and bundles.
    Keys,
}

impl ControlTopic {
    /// Its name on the bus.
    pub fn name(&self, stream: StreamId) -> String {
        match self {
            Self::Devices(user) => user.devices_topic(),
            Self::Access(_, device) => StreamTopics(stream).access(device),
            Self::Keys => StreamTopics(stream).keys(),
        }
    }
}

/// What a [`StreamView`] wants done. Exhaustive: a driver that skips one is wrong.
#[derive(Debug)]
#[must_use]
pub enum Output {
    /// Keep a record, before anything that comes out later is acted on.
    Persist(Put),
    /// Tell the application.
    Tell(Alarm),
}

/// Something on the bus that an honest bus and honest devices do not put there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Alarm {
    /// Two entries of a user's device list have one place.
    ListForked(UserId),
    /// A device wrote two access-log entries with one number. Its grants do not count any more.
    LogForked(UserId, DeviceId),
    /// A keyholder's bundle or root does not open for this device, or is not the session's.
    BadKeys(UserId, DeviceId),
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ListForked(user) => write!(f, "two device lists are shown for {user}"),
            Self::LogForked(user, device) => {
                write!(f, "device {device} of {user} wrote two entries in one place")
            }
            Self::BadKeys(user, device) => {
                write!(f, "keys from device {device} of {user} do not open")
            }
        }
    }
}

impl StreamView {
    /// Knows nothing yet but the stream and its owner, from a ticket.
    pub fn new(stream: StreamId, owner: UserId, identity: &Identity) -> Self {
        let log = AccessLog::new(stream, owner);
        Self {
            stream,
            user: identity.user(),
            device: identity.device(),
            unwrap: identity.unwrap_key().duplicate(),
            state: log.state(),
            log,
            is_stale: false,
            lists: BTreeMap::new(),
            users: BTreeMap::new(),
            records: BTreeMap::new(),
            roots: BTreeMap::new(),
            covers: BTreeMap::new(),
            delivered: BTreeMap::new(),
            waiting: Vec::new(),
            outputs: VecDeque::new(),
        }
    }

    /// The topics to follow by what is known so far, in the order in which to read them.
    pub fn wanted(&self) -> Vec<ControlTopic> {
        let users = self.log.named_users();
        let lists = users.iter().copied().map(ControlTopic::Devices);
        let chains = users.iter().flat_map(|user| {
            let devices = self.lists.get(user).into_iter().flat_map(CardList::devices);
            devices.map(|(device, _)| ControlTopic::Access(*user, *device))
        });
        lists.chain(chains).chain([ControlTopic::Keys]).collect()
    }

    /// Takes in one item of a topic. Anybody may write there: what does not fit changes nothing.
    pub fn handle(&mut self, topic: &ControlTopic, bytes: &[u8]) {
        match topic {
            ControlTopic::Devices(user) => self.take_list_entry(user, bytes),
            ControlTopic::Access(user, device) => self.take_log_entry(user, device, bytes),
            ControlTopic::Keys => {
                self.refresh();
                if !self.take_key_item(bytes) && self.waiting.len() < HELD_MAX {
                    self.waiting.push(bytes.to_vec());
                }
            }
        }
    }

    /// Draws the conclusions of what was taken in; call it after each batch.
    pub fn settle(&mut self) {
        self.refresh();
        let waiting = core::mem::take(&mut self.waiting);
        for bytes in waiting {
            if !self.take_key_item(&bytes) {
                self.waiting.push(bytes);
            }
        }
    }

    /// Hands out the next thing the driver must do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Whether items of the keys topic wait for what they rest on, so that the place in that topic
    /// must not be recorded as read.
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn refresh(&mut self) {
        if !self.is_stale {
            return;
        }
        self.is_stale = false;
        self.state = self.log.state();
    }

    fn persist(&mut self, space: Space, id: Vec<u8>, value: SecretBytes) {
        self.outputs
            .push_back(Output::Persist(Put { space, id, value }));
    }

    fn take_list_entry(&mut self, user: &UserId, bytes: &[u8]) {
        let list = self
            .lists
            .entry(*user)
            .or_insert_with(|| CardList::new(*user));
        let seq = list.next_seq();
        match list.apply(bytes) {
            Ok(Applied::Added(_) | Applied::Renewed(_) | Applied::Revoked(_)) => {
                let devices: Vec<_> = list.devices().map(|(device, _)| *device).collect();
                self.users
                    .extend(devices.into_iter().map(|device| (device, *user)));
                let id = persisted(&[&user.0, &seq.to_be_bytes()]);
                self.persist(Space::ListEntry, id, SecretBytes::from(bytes.to_vec()));
            }
            Err(ListFault::Forked { .. }) => {
                self.outputs
                    .push_back(Output::Tell(Alarm::ListForked(*user)));
            }
            Ok(Applied::Known) | Err(_) => (),
        }
    }

    fn take_log_entry(&mut self, user: &UserId, device: &DeviceId, bytes: &[u8]) {
        let Some(key) = self.sign_key(user, device) else {
            return;
        };
        let Ok(entry) = Unverified::<LogEntry>::decode(bytes) else {
            return;
        };
        if (entry.claims().user, entry.claims().device) != (*user, *device) {
            return;
        }
        let Ok(entry) = entry.verify(&key) else {
            return;
        };
        let id = persisted(&[&self.stream.0, entry.digest().as_bytes()]);
        let forks = self.log.forked_devices().len();
        match self.log.insert(entry) {
            Inserted::Linked | Inserted::Waiting => {
                self.is_stale = true;
                self.persist(Space::LogEntry, id, SecretBytes::from(bytes.to_vec()));
            }
            Inserted::Known | Inserted::Foreign => return,
        }
        if self.log.forked_devices().len() > forks {
            self.outputs
                .push_back(Output::Tell(Alarm::LogForked(*user, *device)));
        }
    }

    /// Returns false when the item may become believable once more is known.
    fn take_key_item(&mut self, bytes: &[u8]) -> bool {
        if let Ok(record) = Unverified::<SessionRecord>::decode(bytes) {
            return self.take_record(record);
        }
        match Unverified::<Bundle>::decode(bytes) {
            Ok(bundle) => self.take_bundle(bundle),
            Err(_) => true,
        }
    }

    fn take_record(&mut self, record: Unverified<SessionRecord>) -> bool {
        let claims = record.claims();
        let id = (claims.session, claims.device);
        if claims.stream != self.stream || self.records.contains_key(&id) {
            return true;
        }
        let Some(key) = self.sign_key(&claims.lane, &claims.device) else {
            return false;
        };
        let Ok(record) = record.verify(&key) else {
            return true;
        };
        let key = persisted(&[&self.stream.0, &id.0.0, &id.1.0]);
        self.persist(
            Space::Record,
            key,
            SecretBytes::from(record.wire().to_vec()),
        );
        self.learn_record(record);
        true
    }

    fn learn_record(&mut self, record: Verified<SessionRecord>) {
        let body = record.body();
        let giver = (body.lane, body.device);
        for wrap in &body.wraps {
            self.delivered
                .insert((body.session, wrap.device), Vec::from([Interval::ALL]));
        }
        if let Some(root) = body.public_root() {
            self.roots.entry(body.session).or_insert(root);
        } else if !self.roots.contains_key(&body.session)
            && body.wrap_for(&self.user, &self.device).is_some()
        {
            match body.unwrap_root(&self.user, &self.device, &self.unwrap) {
                Ok(root) => self.keep_root(body.session, root),
                Err(_) => self
                    .outputs
                    .push_back(Output::Tell(Alarm::BadKeys(giver.0, giver.1))),
            }
        }
        self.records
            .insert((record.body().session, giver.1), record);
    }

    fn keep_root(&mut self, session: SessionId, root: SessionRoot) {
        let id = persisted(&[&self.stream.0, &session.0]);
        self.persist(Space::Root, id, SecretBytes::from(root.expose().to_vec()));
        self.roots.insert(session, root);
    }

    fn take_bundle(&mut self, bundle: Unverified<Bundle>) -> bool {
        let context = &bundle.claims().context;
        if context.stream != self.stream {
            return true;
        }
        let giver = (context.giver_user, context.giver_device);
        let Some(key) = self.sign_key(&giver.0, &giver.1) else {
            return false;
        };
        let mut lanes = context
            .covers
            .iter()
            .map(|spec| self.lane_of(&spec.session));
        if !lanes.all(|lane| lane == Some(context.lane)) {
            return false;
        }
        if !self.state.is_keyholder(&giver.0, &giver.1, &context.lane) {
            return true;
        }
        let Ok(bundle) = bundle.verify(&key) else {
            return true;
        };
        self.note_delivered(&bundle.body().context);
        let context = &bundle.body().context;
        if (context.user, context.device) == (self.user, self.device) {
            self.open_own(&bundle);
        }
        true
    }

    fn note_delivered(&mut self, context: &BundleContext) {
        for spec in &context.covers {
            let known = self
                .delivered
                .entry((spec.session, context.device))
                .or_default();
            let mut intervals = core::mem::take(known);
            intervals.push(spec.interval);
            *known = merged(intervals);
        }
        let sessions: BTreeSet<_> = context.covers.iter().map(|spec| spec.session).collect();
        for session in sessions {
            let id = persisted(&[&self.stream.0, &session.0, &context.device.0]);
            let intervals = self.delivered.get(&(session, context.device));
            let bytes = sealcast_protocol::encode(&intervals.cloned().unwrap_or_default());
            self.persist(Space::Delivered, id, SecretBytes::from(bytes));
        }
    }

    fn open_own(&mut self, bundle: &Verified<Bundle>) {
        let context = &bundle.body().context;
        let giver = (context.giver_user, context.giver_device);
        let Ok(covers) = open_bundle(bundle.body(), &self.unwrap) else {
            self.outputs
                .push_back(Output::Tell(Alarm::BadKeys(giver.0, giver.1)));
            return;
        };
        for (session, cover) in covers {
            if cover.from() == 0 && cover.until() == Position::END.0 {
                match self.root_of(&session, &context.lane, &cover) {
                    Some(root) => self.keep_root(session, root),
                    None => self
                        .outputs
                        .push_back(Output::Tell(Alarm::BadKeys(giver.0, giver.1))),
                }
                continue;
            }
            let stored = encode_held(giver, &cover);
            let name = bundle.digest();
            let id = persisted(&[&self.stream.0, &session.0, name.as_bytes()]);
            self.persist(Space::Cover, id, stored);
            self.covers
                .entry(session)
                .or_default()
                .push(Held { giver, cover });
        }
    }

    /// A cover of everything is the root; that it is the right one shows at once.
    fn root_of(&self, session: &SessionId, lane: &UserId, cover: &Cover) -> Option<SessionRoot> {
        let keys = cover.key_bytes();
        let bytes: &[u8; 32] = keys.expose().try_into().ok()?;
        let root = SessionRoot::init_with(|root| root.copy_from_slice(bytes));
        let named = SessionId::derive(&self.stream, lane, &root.commitment());
        (named == *session).then_some(root)
    }
}

/// What was kept comes back: feed it before anything of the bus.
impl StreamView {
    /// Takes back an access-log entry; feed the device lists first.
    pub fn restore_log_entry(&mut self, bytes: &[u8]) {
        if let Ok(entry) = Unverified::<LogEntry>::decode(bytes) {
            let (user, device) = (entry.claims().user, entry.claims().device);
            self.take_log_entry(&user, &device, bytes);
        }
    }

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
            self.covers.entry(session).or_default().push(held);
        }
    }

    /// Takes back what another device was given.
    pub fn restore_delivered(&mut self, session: SessionId, device: DeviceId, value: &[u8]) {
        if let Ok(intervals) = sealcast_protocol::decode(value, 1 << 20) {
            self.delivered.insert((session, device), intervals);
        }
    }
}

const HELD_HEAD: usize = 32 + 16 + 8 + 8;

fn encode_held(giver: (UserId, DeviceId), cover: &Cover) -> SecretBytes {
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
    Some(Held {
        giver: (UserId(*user), DeviceId(*device)),
        cover: Cover::from_key_bytes(from, until, keys).ok()?,
    })
}

/// What is known.
impl StreamView {
    /// The stream.
    pub fn stream(&self) -> StreamId {
        self.stream
    }

    /// This user and device.
    pub fn me(&self) -> (UserId, DeviceId) {
        (self.user, self.device)
    }

    /// The access log.
    pub fn log(&self) -> &AccessLog {
        &self.log
    }

    /// Who may do what.
    pub fn state(&self) -> &LogState {
        &self.state
    }

    /// Entries that owner or admins rest on and that the bus does not show.
    pub fn missing_entries(&self) -> usize {
        let rules = |user: &UserId| {
            *user == self.state.owner()
                || self.state.grants().iter().any(|of| {
                    of.grant.user == *user
                        && of.grant.roles.contains(sealcast_protocol::Roles::ADMIN)
                })
        };
        match self.log.waiting_authors().iter().any(rules) {
            true => self.log.missing().len(),
            false => 0,
        }
    }

    /// A user's device list, as far as it is known.
    pub fn list(&self, user: &UserId) -> Option<&CardList> {
        self.lists.get(user)
    }

    /// The devices of a user that may be given keys.
    pub fn live_devices(
        &self,
        user: &UserId,
        now: Position,
    ) -> impl Iterator<Item = (&DeviceId, &DeviceState)> {
        self.lists
            .get(user)
            .into_iter()
            .flat_map(move |list| list.live(now))
    }

    /// Whose device it is.
    pub fn user_of(&self, device: &DeviceId) -> Option<UserId> {
        self.users.get(device).copied()
    }

    /// The key that a device signs with.
    pub fn sign_key(&self, user: &UserId, device: &DeviceId) -> Option<VerifyingKey> {
        self.lists.get(user)?.sign_key(device)
    }

    /// The record of a session, signed by a device.
    pub fn record(&self, session: &SessionId, device: &DeviceId) -> Option<&SessionRecord> {
        self.records.get(&(*session, *device)).map(Verified::body)
    }

    /// Every session record.
    pub fn records(&self) -> impl Iterator<Item = &SessionRecord> {
        self.records.values().map(Verified::body)
    }

    /// The root of a session, where this device holds it.
    pub fn root(&self, session: &SessionId) -> Option<&SessionRoot> {
        self.roots.get(session)
    }

    pub(crate) fn covers(&self, session: &SessionId) -> &[Held] {
        self.covers.get(session).map_or(&[], Vec::as_slice)
    }

    /// The intervals of a session that a device was given.
    pub fn delivered(&self, session: &SessionId, device: &DeviceId) -> &[Interval] {
        self.delivered
            .get(&(*session, *device))
            .map_or(&[], Vec::as_slice)
    }

    fn lane_of(&self, session: &SessionId) -> Option<UserId> {
        let first = (*session, DeviceId([0; 16]));
        let last = (*session, DeviceId([0xff; 16]));
        self.records
            .range(first..=last)
            .next()
            .map(|(_, record)| record.body().lane)
    }
}

//! What one device knows of one stream: device lists, access log, session records and keys.
//!
//! The driver reads the [`wanted`](StreamView::wanted) topics except `Keys`, feeds every item,
//! settles, and repeats until no topic is new and all are read to their end. Then it reads `Keys`:
//! whom to believe there follows from the rest, `spec/reading.md`, section "Control objects".

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use sealcast_crypto::{Digest, SecretBytes, SessionRoot, UnwrapKey, VerifyingKey};
use sealcast_protocol::{
    AccessLog, CardList, DeviceId, DeviceState, GrantState, Inserted, KeyNode, LogEntry, LogHash,
    LogState, Position, Roles, SessionId, SessionRecord, Standing, StreamId, StreamTopics,
    Unverified, UserId, Verified,
};

use crate::fallback::Fallbacks;
use crate::identity::Identity;
use crate::persist::{Put, Space, persisted};

mod alarm;
mod answers;
mod cuts;
mod delivered;
mod forged;
mod held_back;
mod keys;
mod lists;
mod read_by;
mod segments;
mod waiting;

pub use alarm::Alarm;
pub use answers::Answer;
pub use keys::imported;
pub(crate) use keys::root_of;
pub use read_by::{KnownUser, ReadBy};
pub(crate) use segments::{CLOCKS_MS, OfSecret};
pub use segments::{FalseRecords, KnownDeal, Released};

use cuts::Cut;
use delivered::{Deliveries, KeyNow};
use held_back::{Outside, Pending};
use keys::Covers;
use lists::Ahead;
use segments::Segments;
use waiting::WaitingRoom;

/// What one device knows of one stream.
#[derive(Debug)]
pub struct StreamView {
    stream: StreamId,
    user: UserId,
    device: DeviceId,
    unwrap: UnwrapKey,
    fallbacks: Fallbacks,
    lists: BTreeMap<UserId, CardList>,
    /// Entries of device lists that came before others that they follow.
    ahead: Ahead,
    users: BTreeMap<DeviceId, UserId>,
    keys_now: BTreeMap<DeviceId, KeyNow>,
    log: AccessLog,
    held_back: BTreeMap<LogHash, (Verified<LogEntry>, Pending)>,
    /// Entries that wait inside the log for those that they name.
    pending: BTreeMap<LogHash, Pending>,
    outside: Outside,
    state: LogState,
    is_stale: bool,
    named: BTreeSet<UserId>,
    /// Users who may have sealed something at some time.
    announcers: BTreeSet<UserId>,
    forked: BTreeSet<(UserId, DeviceId)>,
    /// Entries about key nodes that stand side by side and were told of, and those that are void.
    beside: Vec<LogHash>,
    void: Vec<LogHash>,
    missing: usize,
    /// Topics of which it was told that others wrote there.
    forged: BTreeSet<ControlTopic>,
    /// The newest time at which this device started a session or wrote an entry, as the bus shows.
    own_mark: Position,
    /// What removals of publishers say of each device.
    cuts: BTreeMap<DeviceId, Vec<Cut>>,
    are_cuts_stale: bool,
    /// Without their wraps, which are many and needed once.
    records: BTreeMap<(SessionId, DeviceId), SessionRecord>,
    roots: BTreeMap<SessionId, SessionRoot>,
    covers: BTreeMap<SessionId, Covers>,
    held_names: BTreeSet<(SessionId, Digest)>,
    opened: BTreeMap<Digest, usize>,
    deliveries: Deliveries,
    segments: Segments,
    waiting: WaitingRoom,
    /// Whether an earlier run read topics, and what it met there is not known.
    is_restored: bool,
    /// Devices that came into a list since then.
    added: BTreeSet<DeviceId>,
    /// Users who could hand out keys, lost that, and can again.
    regained: BTreeSet<UserId>,
    needs_reread: bool,
    revision: u64,
    judged_at: u64,
    settled_at: u64,
    outputs: VecDeque<Output>,
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

impl StreamView {
    /// Knows nothing yet but the stream and its owner, from a ticket.
    pub fn new(stream: StreamId, owner: UserId, identity: &Identity) -> Self {
        let log = AccessLog::new(stream, owner);
        Self {
            stream,
            user: identity.user(),
            device: identity.device(),
            unwrap: identity.unwrap_key().duplicate(),
            fallbacks: Fallbacks::default(),
            lists: BTreeMap::new(),
            ahead: Ahead::default(),
            users: BTreeMap::new(),
            keys_now: BTreeMap::new(),
            state: log.state(),
            log,
            held_back: BTreeMap::new(),
            outside: Outside::default(),
            pending: BTreeMap::new(),
            is_stale: true,
            named: BTreeSet::new(),
            announcers: BTreeSet::new(),
            forked: BTreeSet::new(),
            beside: Vec::new(),
            void: Vec::new(),
            missing: 0,
            forged: BTreeSet::new(),
            own_mark: Position::START,
            cuts: BTreeMap::new(),
            are_cuts_stale: true,
            records: BTreeMap::new(),
            roots: BTreeMap::new(),
            covers: BTreeMap::new(),
            held_names: BTreeSet::new(),
            opened: BTreeMap::new(),
            deliveries: Deliveries::default(),
            segments: Segments::default(),
            waiting: WaitingRoom::default(),
            is_restored: false,
            added: BTreeSet::new(),
            regained: BTreeSet::new(),
            needs_reread: false,
            revision: 0,
            judged_at: 0,
            settled_at: 0,
            outputs: VecDeque::new(),
        }
    }

    /// The topics to follow by what is known so far, in the order in which to read them. This user's
    /// own list is among them before the log names it, so that it is noticed when the bus loses it.
    pub fn wanted(&self) -> Vec<ControlTopic> {
        let users = self.log.named_users();
        // Its own too, for whoever is asked by a user that the log does not name.
        let own = (!users.contains(&self.user)).then_some(self.user);
        let lists = users.iter().copied().chain(own).map(ControlTopic::Devices);
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
                self.take_key_bytes(bytes);
            }
        }
    }

    /// Draws the conclusions of what was taken in; call it after each batch.
    pub fn settle(&mut self) {
        self.tell_hidden();
        self.refresh();
        while self.settled_at != self.revision {
            self.settled_at = self.revision;
            for (item, len, tries) in self.waiting.take() {
                if let Some(item) = self.take_key_item(item) {
                    self.waiting.put_back(item, len, tries);
                }
            }
        }
    }

    /// Hands out the next thing the driver must do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Whether items of the keys topic wait for what they rest on, or found no room to wait, so that
    /// the place in that topic must not be recorded as read. Items of devices in no list do not
    /// count once the log has begun: see [`needs_reread`](Self::needs_reread).
    pub fn has_waiting(&self) -> bool {
        self.waiting.is_used() || !(self.state.has_begun() || self.waiting.is_empty())
    }

    /// Whether the keys topic must be read again from its start, told once: a device came into a
    /// list that may have signed what was passed over before, someone whose keys were not
    /// believed may hand them out again, or the log gives this device other parts of a lane or has key nodes release on
    /// other conditions, and that did not happen too often; see [`owes_reread`](Self::owes_reread).
    pub fn needs_reread(&mut self, now: Position) -> bool {
        let is_needed = core::mem::take(&mut self.needs_reread);
        self.takes_regrants(now, is_needed) || is_needed
    }

    fn note_added(&mut self) {
        if self.added.is_empty() {
            return;
        }
        let added = core::mem::take(&mut self.added);
        let is_missed = |device: DeviceId| {
            let user = self.user_of(&device);
            let gives = user.is_some_and(|of| of == self.user || self.announcers.contains(&of));
            self.waiting.has_missed(&device) || (self.is_restored && gives)
        };
        let is_missed = added.into_iter().any(is_missed);
        self.needs_reread |= is_missed;
    }

    /// Computes anew what follows from the log.
    fn refresh(&mut self) {
        loop {
            while self.is_stale {
                self.revision += 1;
                self.state = self.log.state();
                self.are_cuts_stale = true;
                // Not before the state is there: what panics above leaves it to be computed anew.
                self.is_stale = false;
                self.release();
            }
            if self.judged_at == self.revision {
                return;
            }
            self.release();
            self.note_outside();
            if !self.is_stale {
                break;
            }
        }
        let is_first = self.is_restored && self.judged_at == 0;
        self.judged_at = self.revision;
        if self.are_cuts_stale {
            self.note_state(is_first);
        }
        self.missing = self.count_missing();
        if core::mem::take(&mut self.are_cuts_stale) || !self.added.is_empty() {
            self.cuts = self.find_cuts();
        }
        self.note_added();
        for (user, device) in self.log.forked_devices() {
            if self.forked.insert((user, device)) {
                self.outputs
                    .push_back(Output::Tell(Alarm::LogForked(user, device)));
            }
        }
        self.tell_beside();
    }

    /// Draws the conclusions of another state of the log.
    fn note_state(&mut self, is_first: bool) {
        self.named = self.log.named_users();
        let publishing = self.state.grants().iter().filter(|of| {
            let roles = of.grant.roles;
            roles.contains(Roles::PUBLISHER) || roles.contains(Roles::ADMIN)
        });
        let publishing = publishing.map(|of| of.grant.user);
        let announcers = publishing.chain([self.state.owner()]).collect();
        let before = core::mem::replace(&mut self.announcers, announcers);
        self.note_regained(is_first);
        self.note_condition();
        self.note_readable(is_first);
        // By what earlier runs read is noted with how far they did.
        if !is_first {
            self.note_announcers(&before);
        }
    }

    /// Only a device that may rule can hide a removal behind an entry that does not come.
    fn count_missing(&self) -> usize {
        let mut waiting = self
            .pending
            .iter()
            .filter(|(hash, _)| !self.log.contains(hash));
        match waiting.any(|(_, of)| self.may_rule(&of.user, &of.device)) {
            true => self.log.missing().len(),
            false => 0,
        }
    }

    fn may_rule(&self, user: &UserId, device: &DeviceId) -> bool {
        let is_owner = *user == self.state.owner() && !self.state.is_out(user, device);
        (is_owner || self.state.roles(user, device).contains(Roles::ADMIN))
            && !self.is_card_revoked(user, device)
    }

    fn persist(&mut self, space: Space, id: Vec<u8>, value: SecretBytes) {
        self.outputs
            .push_back(Output::Persist(Put { space, id, value }));
    }

    fn take_log_entry(&mut self, user: &UserId, device: &DeviceId, bytes: &[u8]) {
        let Some(key) = self.sign_key(user, device) else {
            return;
        };
        let topic = ControlTopic::Access(*user, *device);
        let Ok(entry) = Unverified::<LogEntry>::decode(bytes) else {
            return self.tell_unreadable(topic, bytes);
        };
        if (entry.claims().user, entry.claims().device) != (*user, *device) {
            return self.tell_forged(topic);
        }
        let Some(entry) = self.signed(topic, entry.verify(&key)) else {
            return;
        };
        let id = persisted(&[&self.stream.0, entry.digest().as_bytes()]);
        let is_new = match self.is_after_card(entry.body()) {
            true => self.hold_back(entry),
            false => self.insert_entry(entry),
        };
        if is_new {
            self.persist(Space::LogEntry, id, SecretBytes::from(bytes.to_vec()));
        }
    }

    fn insert_entry(&mut self, entry: Verified<LogEntry>) -> bool {
        let (hash, body) = (LogHash::from(entry.digest()), entry.body());
        if (body.user, body.device) == (self.user, self.device) {
            self.own_mark = self.own_mark.max(body.time);
        }
        let topic = ControlTopic::Access(body.user, body.device);
        let pending = Pending::of(body);
        match self.log.insert(entry) {
            Inserted::Linked => (),
            Inserted::Waiting => {
                self.pending.insert(hash, pending);
            }
            Inserted::Known => return false,
            Inserted::Foreign => {
                self.tell_forged(topic);
                return false;
            }
        }
        self.is_stale = true;
        true
    }
}

/// What was kept comes back: feed it before anything of the bus.
impl StreamView {
    /// Takes back an access-log entry; feed the device lists first.
    pub fn restore_log_entry(&mut self, bytes: &[u8]) {
        self.is_restored = true;
        self.are_cuts_stale = true;
        self.added.clear();
        if let Ok(entry) = Unverified::<LogEntry>::decode(bytes) {
            let (user, device) = (entry.claims().user, entry.claims().device);
            self.take_log_entry(&user, &device, bytes);
        }
    }
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
        self.missing
    }

    /// The position below which this device seals nothing more, whatever its clock says: the log's
    /// mark, and the newest time at which the device itself started a session or wrote an entry. A
    /// home that was put back to an older state learns from it what it had done.
    pub fn mark(&self) -> Position {
        self.state.mark().max(self.own_mark)
    }

    /// Whether this device wrote two access-log entries in one place, so that its grants do not
    /// count any more.
    pub fn is_forked(&self) -> bool {
        self.forked.contains(&(self.user, self.device))
    }

    /// Whether this device is the owner's or an admin's.
    pub fn rules(&self) -> bool {
        self.may_rule(&self.user, &self.device)
    }

    /// Whether it takes something of approvals when this device removes a user.
    pub fn may_take_approvals(&self, user: &UserId) -> bool {
        let may_take = self.user == self.state.owner() || !self.is_ruler(user);
        self.rules() && may_take && self.state.has_approvals(user)
    }

    /// Whether a user is the owner, or has a grant to administer that counts.
    pub(crate) fn is_ruler(&self, user: &UserId) -> bool {
        let mut grants = self.state.grants().iter();
        let rules = |of: &GrantState| {
            of.grant.user == *user
                && of.standing == Standing::Counts
                && of.grant.roles.contains(Roles::ADMIN)
        };
        *user == self.state.owner() || grants.any(rules)
    }

    /// Whether the access log names this device as a key node.
    pub fn is_key_node(&self) -> bool {
        let me = KeyNode {
            user: self.user,
            device: self.device,
        };
        let set = self.state.key_nodes();
        set.is_some_and(|(_, set)| set.nodes.contains(&me))
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
        let (user, list) = (*user, self.lists.get(user));
        let live = list.into_iter().flat_map(move |list| list.live(now));
        live.filter(move |(device, _)| !self.outside.takes_out(&user, device))
    }

    /// Whose device it is.
    pub fn user_of(&self, device: &DeviceId) -> Option<UserId> {
        self.users.get(device).copied()
    }

    /// Whether the access log names a user.
    pub(crate) fn names(&self, user: &UserId) -> bool {
        self.named.contains(user)
    }

    /// Whether the log lets this device open an envelope that claims to be here, while no key for
    /// it is: the key may have come meanwhile.
    pub fn lacks_key(&self, session: &SessionId, device: &DeviceId, position: Position) -> bool {
        let Some(record) = self.record(session, device) else {
            return false;
        };
        let readable = self.state.readable(&self.user, &self.device, &record.lane);
        !self.has_key(session, position)
            && readable.iter().any(|interval| interval.contains(position))
    }

    /// Whether a key is here that reaches a position of a session, whether or not it fits.
    pub(crate) fn has_key(&self, session: &SessionId, position: Position) -> bool {
        let mut covers = self.covers(session).iter();
        self.roots.contains_key(session) || covers.any(|of| of.cover.contains(position.0))
    }

    /// Whether a user may have sealed something at some time.
    pub(crate) fn is_announcer(&self, user: &UserId) -> bool {
        self.announcers.contains(user)
    }

    /// The key that a device signs with.
    pub fn sign_key(&self, user: &UserId, device: &DeviceId) -> Option<VerifyingKey> {
        self.lists.get(user)?.sign_key(device)
    }

    /// Whether a device's card is revoked, by its user's list or with proof by an entry that is not linked.
    pub(crate) fn is_card_revoked(&self, user: &UserId, device: &DeviceId) -> bool {
        let of = self.lists.get(user).and_then(|list| list.device(device));
        of.is_some_and(|of| of.revoked.is_some()) || self.outside.takes_out(user, device)
    }

    /// Whether the newest card of a device that is known here is valid no more.
    pub(crate) fn is_card_expired(&self, user: &UserId, device: &DeviceId, at: Position) -> bool {
        let of = self.lists.get(user).and_then(|list| list.device(device));
        of.is_some_and(|of| of.expires <= at)
    }

    /// Changes whenever something is learned that rights or sessions depend on.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }
}

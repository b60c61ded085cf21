//! What waits for keys, `spec/reading.md`, section "Parking".
//!
//! ```text
//!            admit                 look, take_due               remove
//!   (told) ─────────► waits ───────────────────────► taken ───────────────► (delivered)
//!                       │ ▲                            │
//!                       │ └──────── put_back ──────────┘
//!                       └─ expire, no room ─► (told)
//! ```

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use sealcast_crypto::SecretBytes;
use sealcast_protocol::{DeviceId, EnvelopeHash, Interval, Position, SessionId, StreamId, UserId};

use crate::persist::{Put, Space, persisted};
use crate::read::Event;
use crate::view::StreamView;

mod due;
mod entry;
mod missing;

pub use entry::{Cause, Parked, Unopened};
pub use missing::Missing;

use due::Group;
use entry::{COUNTS_BESIDES, Entry, Stamp};

/// How much may wait, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParkingLimits {
    /// Bytes in one stream. Each envelope counts 4,096 more than it has.
    pub bytes_max: u64,
    /// Bytes of one publisher, counted so.
    pub publisher_bytes_max: u64,
    /// How long an envelope waits, in milliseconds.
    pub age_ms_max: u64,
}

/// 256 MiB in a stream, 64 MiB of one publisher, 30 days.
impl Default for ParkingLimits {
    fn default() -> Self {
        Self {
            bytes_max: 256 << 20,
            publisher_bytes_max: 64 << 20,
            age_ms_max: 30 * 24 * 3600 * 1000,
        }
    }
}

/// What a driver must do to the store, in the transaction in which the [`Parking`] was asked.
#[derive(Debug)]
#[must_use]
pub enum Change {
    /// Keep a record.
    Put(Put),
    /// Remove the record of a space with an id.
    Remove(Space, Vec<u8>),
}

/// The index of what waits in one stream. The envelopes themselves are in the store.
///
/// Ask it inside a store transaction, after it was told the [`stamp`](Self::is_current) that is
/// there, and carry out its [`changes`](Self::take_changes) in that transaction: then all processes
/// of a home keep one order and one bound.
#[derive(Debug)]
pub struct Parking {
    stream: StreamId,
    limits: ParkingLimits,
    stamp: Stamp,
    /// The first number that no kept envelope has.
    kept_next: u64,
    is_stale: bool,
    /// By number, in the order in which they came.
    entries: BTreeMap<u64, Entry>,
    numbers: BTreeMap<EnvelopeHash, u64>,
    publishers: BTreeMap<UserId, Share>,
    bytes: u64,
    sessions: BTreeMap<(DeviceId, SessionId), Group>,
    /// What may open by what was known at the last look.
    due: BTreeSet<u64>,
    due_devices: BTreeMap<DeviceId, usize>,
    /// What was handed out, and of which the store does not know it yet.
    handed_out: BTreeSet<u64>,
    /// Whether what waits was read anew since the last look, or keys failed on it.
    is_new: bool,
    changes: Vec<Change>,
    /// What to tell when the changes are kept.
    to_tell: Vec<Event>,
    told: Vec<Event>,
}

#[derive(Debug, Default)]
struct Share {
    numbers: BTreeSet<u64>,
    bytes: u64,
}

impl Parking {
    /// Knows of nothing that waits.
    pub fn new(stream: StreamId, limits: ParkingLimits) -> Self {
        Self {
            stream,
            limits,
            stamp: Stamp::default(),
            kept_next: 0,
            is_stale: false,
            entries: BTreeMap::new(),
            numbers: BTreeMap::new(),
            publishers: BTreeMap::new(),
            bytes: 0,
            sessions: BTreeMap::new(),
            due: BTreeSet::new(),
            due_devices: BTreeMap::new(),
            handed_out: BTreeSet::new(),
            is_new: false,
            changes: Vec::new(),
            to_tell: Vec::new(),
            told: Vec::new(),
        }
    }

    /// The id of the stamp in the space [`Space::Parked`].
    pub fn stamp_id(&self) -> Vec<u8> {
        persisted(&[&self.stream.0])
    }

    /// The id of an envelope in the space [`Space::ParkedEnvelope`].
    pub fn envelope_id(&self, number: u64) -> Vec<u8> {
        persisted(&[&self.stream.0, &number.to_be_bytes()])
    }

    /// Whether this index is that of a store with such a stamp.
    pub fn is_current(&self, stamp: Option<&[u8]>) -> bool {
        !self.is_stale && Stamp::of(stamp) == self.stamp
    }

    /// Reads the index anew: the stamp, and every record of [`Space::Parked`] with what follows the
    /// stream in its id. What was being handed out here and is still there goes on.
    pub fn restore<'a>(
        &mut self,
        stamp: Option<&[u8]>,
        rows: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    ) {
        let mut before = Self::new(self.stream, self.limits);
        core::mem::swap(self, &mut before);
        self.stamp = Stamp::of(stamp);
        self.kept_next = self.stamp.next;
        self.told = before.told;
        self.handed_out = before.handed_out;
        self.is_new = true;
        for (id, value) in rows {
            let number = id.try_into().map(u64::from_be_bytes);
            if let Some((number, entry)) = number.ok().zip(Entry::read(value)) {
                let known = before.entries.remove(&number);
                let is_taken = known.as_ref().is_some_and(|of| of.is_taken);
                let has_failed = known.as_ref().is_some_and(|of| of.has_failed);
                let entry = Entry {
                    is_told: known.is_some_and(|of| of.is_told),
                    is_taken: is_taken || self.handed_out.contains(&number),
                    has_failed,
                    ..entry
                };
                self.insert(number, entry);
            }
        }
        let gone = before.entries.into_values();
        let gone = gone.filter(|of| of.is_told && !of.is_taken);
        self.told.extend(gone.map(|of| of.event(Parked::Elsewhere)));
    }

    /// Lets an envelope wait, which came at `now`, or says that there is no room. Whoever uses the
    /// most makes room for those who use less, its newest first.
    pub fn admit(&mut self, now: Position, of: &Unopened) -> Parked {
        if let Some(number) = self.numbers.get(&of.hash) {
            if let Some(entry) = self.entries.get_mut(number) {
                entry.is_told = true;
            }
            return Parked::Waits;
        }
        let Some(entry) = Entry::new(now, of) else {
            return Parked::NoRoom;
        };
        if !self.make_room(&of.user, entry.of.counts()) {
            return Parked::NoRoom;
        }
        let number = self.stamp.next;
        self.stamp.next = number.saturating_add(1);
        let id = self.envelope_id(number);
        let value = SecretBytes::from(sealcast_protocol::encode(&entry.of));
        self.put(Space::Parked, id.clone(), value);
        let envelope = SecretBytes::from(of.bytes.clone());
        self.put(Space::ParkedEnvelope, id, envelope);
        self.insert(number, entry);
        Parked::Waits
    }

    /// Notes that envelopes were handed out, to be [recorded](Self::record_handed_out).
    pub fn hand_out(&mut self, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            self.handed_out.insert(number);
            let entry = self.entries.get_mut(&number);
            let device = entry.map(|entry| {
                entry.is_taken = true;
                entry.header.device
            });
            device.into_iter().for_each(|of| self.not_due(number, &of));
        }
    }

    /// Whether envelopes were handed out and not recorded yet.
    pub fn has_handed_out(&self) -> bool {
        !self.handed_out.is_empty()
    }

    /// Lets what was handed out wait no more.
    pub fn record_handed_out(&mut self) {
        for number in self.handed_out.clone() {
            self.remove(number);
        }
    }

    fn remove(&mut self, number: u64) {
        if self.take_out(number).is_some() {
            let id = self.envelope_id(number);
            self.changes.push(Change::Remove(Space::Parked, id.clone()));
            self.changes.push(Change::Remove(Space::ParkedEnvelope, id));
        }
    }

    /// Whether anything has waited as long as it may.
    pub fn has_old(&self, now: Position) -> bool {
        let first = self.entries.values().find(|of| has_age(of, now));
        first.is_some_and(|of| self.is_old(of, now))
    }

    /// Gives up what has waited as long as it may.
    pub fn expire(&mut self, now: Position) {
        let waiting = self.entries.iter().filter(|(_, of)| has_age(of, now));
        let old = waiting.take_while(|(_, of)| self.is_old(of, now));
        let old: Vec<_> = old.map(|(number, _)| *number).collect();
        for number in old {
            self.drop_waiting(number, Parked::TooOld);
        }
    }

    fn is_old(&self, of: &Entry, now: Position) -> bool {
        now.0.saturating_sub(of.of.arrived.0) > self.limits.age_ms_max
    }

    /// What the driver must do to the store before anything that came out is acted on.
    pub fn take_changes(&mut self) -> Vec<Change> {
        let mut changes = core::mem::take(&mut self.changes);
        if !changes.is_empty() {
            self.stamp.edits = self.stamp.edits.wrapping_add(1);
            changes.push(Change::Put(Put {
                space: Space::Parked,
                id: self.stamp_id(),
                value: SecretBytes::from(self.stamp.to_bytes()),
            }));
        }
        changes
    }

    /// Notes that the transaction was kept.
    pub fn kept(&mut self) {
        self.kept_next = self.stamp.next;
        self.told.append(&mut self.to_tell);
        let entries = &self.entries;
        self.handed_out
            .retain(|number| entries.contains_key(number));
    }

    /// Notes that the transaction failed: what came of it is forgotten, and the index is to be read
    /// anew.
    pub fn abandon(&mut self) {
        let new: Vec<_> = self
            .entries
            .range(self.kept_next..)
            .map(|of| *of.0)
            .collect();
        for number in new {
            self.take_out(number);
        }
        self.changes.clear();
        self.to_tell.clear();
        self.is_stale = true;
    }

    /// What to tell, and what is durable.
    pub fn take_told(&mut self) -> Vec<Event> {
        core::mem::take(&mut self.told)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many envelopes wait, and how many bytes they have.
    pub fn used(&self) -> (u64, u64) {
        let count = self.entries.len() as u64;
        (count, self.bytes - count * COUNTS_BESIDES)
    }

    /// How many envelopes of those that were told here to wait still do, and for what.
    pub fn waiting(&self) -> BTreeMap<Cause, u64> {
        let mut waiting = BTreeMap::new();
        let told = self.entries.values().filter(|of| of.is_told);
        for entry in told.filter(|of| !of.is_taken) {
            *waiting.entry(entry.cause).or_default() += 1;
        }
        waiting
    }

    /// The numbers of what waits, by hash.
    pub fn numbers(&self) -> &BTreeMap<EnvelopeHash, u64> {
        &self.numbers
    }

    /// Whether an envelope of a session already waits.
    pub fn has(&self, session: &SessionId, device: &DeviceId) -> bool {
        self.sessions.contains_key(&(*device, *session))
    }

    fn put(&mut self, space: Space, id: Vec<u8>, value: SecretBytes) {
        self.changes.push(Change::Put(Put { space, id, value }));
    }

    fn make_room(&mut self, user: &UserId, counts: u64) -> bool {
        let used = |of: Option<&Share>| of.map_or(0, |of| of.bytes);
        let own = used(self.publishers.get(user)) + counts;
        if own > self.limits.publisher_bytes_max || counts > self.limits.bytes_max {
            return false;
        }
        while self.bytes + counts > self.limits.bytes_max {
            let most = self.publishers.values().max_by_key(|of| of.bytes);
            let Some(most) = most.filter(|most| most.bytes > own) else {
                return false;
            };
            let is_free = |number: &&u64| !self.entries.get(number).is_some_and(|of| of.is_taken);
            let Some(newest) = most.numbers.iter().rev().find(is_free).copied() else {
                return false;
            };
            self.drop_waiting(newest, Parked::NoRoom);
        }
        true
    }

    fn drop_waiting(&mut self, number: u64, parked: Parked) {
        if let Some(entry) = self.entries.get(&number) {
            self.to_tell.push(entry.event(parked));
            self.remove(number);
        }
    }

    fn insert(&mut self, number: u64, entry: Entry) {
        let header = &entry.header;
        let share = self.publishers.entry(entry.of.user).or_default();
        share.numbers.insert(number);
        share.bytes += entry.of.counts();
        self.bytes += entry.of.counts();
        let group = self.sessions.entry((header.device, header.session));
        group.or_default().numbers.insert(number);
        self.numbers.insert(entry.of.hash, number);
        self.entries.insert(number, entry);
    }

    fn take_out(&mut self, number: u64) -> Option<Entry> {
        let entry = self.entries.remove(&number)?;
        self.numbers.remove(&entry.of.hash);
        self.bytes -= entry.of.counts();
        if let Some(share) = self.publishers.get_mut(&entry.of.user) {
            share.numbers.remove(&number);
            share.bytes -= entry.of.counts();
            if share.numbers.is_empty() {
                self.publishers.remove(&entry.of.user);
            }
        }
        let group = (entry.header.device, entry.header.session);
        if let Some(of) = self.sessions.get_mut(&group) {
            of.numbers.remove(&number);
            if of.numbers.is_empty() {
                self.sessions.remove(&group);
            }
        }
        self.not_due(number, &entry.header.device);
        Some(entry)
    }

    fn not_due(&mut self, number: u64, device: &DeviceId) {
        if self.due.remove(&number)
            && let Some(count) = self.due_devices.get_mut(device)
        {
            *count -= 1;
            if *count == 0 {
                self.due_devices.remove(device);
            }
        }
    }
}

/// Whether an envelope waits, and for how long is known: what a clock that was set back since says
/// came later holds up nothing that came behind it.
fn has_age(of: &Entry, now: Position) -> bool {
    !of.is_taken && of.of.arrived <= now
}

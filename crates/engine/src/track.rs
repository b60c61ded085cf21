//! Order within one device's envelopes: gaps, replays, branches and forks, `spec/envelope.md`.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use minicbor::{CborLen, Decode, Encode};
use sealcast_protocol::{EnvelopeHash, Header, InstanceId, Position};

/// Runs of one device that are remembered. When there are more, the oldest are forgotten and
/// nothing at or below their positions is live any more.
const INSTANCES_MAX: usize = 16_384;
/// Runs that are kept in a store.
const STORED_MAX: usize = 512;
/// Envelopes of one device whose hashes are remembered.
const RECENT_MAX: usize = 4096;
/// Envelopes that may come before one that was announced by a later one's `prev`.
const PATIENCE: u32 = 64;
/// Missing numbers of one run that are remembered, so that they may still come.
const HOLES_MAX: usize = 1024;

/// Follows one device's envelopes.
#[derive(Clone, Debug)]
pub struct Tracker {
    floor: Position,
    instances: BTreeMap<InstanceId, Place>,
    recent: BTreeMap<EnvelopeHash, bool>,
    order: VecDeque<EnvelopeHash>,
    numbers: BTreeMap<(InstanceId, u32), EnvelopeHash>,
    numbered: VecDeque<(InstanceId, u32)>,
    awaited: Vec<Awaited>,
    is_new: bool,
}

#[derive(Clone, Debug)]
struct Place {
    next: u32,
    last: EnvelopeHash,
    position: Position,
    holes: BTreeSet<u32>,
}

#[derive(Clone, Debug)]
struct Awaited {
    prev: EnvelopeHash,
    left: u32,
    header: Header,
}

/// Something to tell about an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// It is new and in place: open it.
    Fresh,
    /// It came before.
    Replay,
    /// Another envelope has its number. It is not opened.
    Fork,
    /// Another envelope follows the same one. It is opened.
    Branch,
    /// So many envelopes before it are missing; 0 where the number cannot be known.
    Gap {
        /// How many.
        missing: u32,
    },
}

impl Default for Tracker {
    fn default() -> Self {
        Self {
            floor: Position::START,
            instances: BTreeMap::new(),
            recent: BTreeMap::new(),
            order: VecDeque::new(),
            numbers: BTreeMap::new(),
            numbered: VecDeque::new(),
            awaited: Vec::new(),
            is_new: true,
        }
    }
}

impl Tracker {
    /// A tracker for a device whose earlier envelopes are on the bus but were not looked at, so
    /// that its first one may name any predecessor.
    pub fn midway() -> Self {
        Self::default()
    }

    /// A tracker that will see a device's envelopes from the first one.
    pub fn from_start() -> Self {
        Self {
            is_new: false,
            ..Self::default()
        }
    }

    /// Notes an envelope that is not being read, so that others may follow it.
    pub fn pass_by(&mut self, hash: EnvelopeHash) {
        self.remember(hash);
    }

    /// Judges an envelope whose signature holds.
    pub fn observe(&mut self, header: &Header, hash: EnvelopeHash) -> Vec<Notice> {
        let number = (header.instance, header.seq);
        match self.numbers.get(&number) {
            Some(known) if *known == hash => return Vec::from([Notice::Replay]),
            Some(_) => return Vec::from([Notice::Fork]),
            None => (),
        }
        let place = self.instances.get(&header.instance);
        let mut notices = match place {
            Some(place) if header.seq < place.next && !place.holes.contains(&header.seq) => {
                return Vec::from([Notice::Replay]);
            }
            Some(place) => continued(place, header),
            None if header.position < self.floor => return Vec::from([Notice::Replay]),
            None => self.begun(header),
        };
        if self.branches(header) {
            notices.push(Notice::Branch);
        }
        self.advance(header, hash);
        notices.push(Notice::Fresh);
        notices
    }

    /// Gives up on predecessors that did not come. Returns the envelopes that named them.
    pub fn give_up(&mut self, at_once: bool) -> Vec<Header> {
        let awaited = core::mem::take(&mut self.awaited);
        let (kept, gone): (Vec<_>, Vec<_>) =
            awaited.into_iter().partition(|of| of.left > 0 && !at_once);
        self.awaited = kept;
        gone.into_iter().map(|of| of.header).collect()
    }

    /// The first envelope of a run: its `prev` names the last one that the home recorded.
    fn begun(&mut self, header: &Header) -> Vec<Notice> {
        let knows_prev = header.prev == EnvelopeHash::NONE
            || self.recent.contains_key(&header.prev)
            || self
                .instances
                .values()
                .any(|place| place.last == header.prev);
        if self.is_new || knows_prev {
            return Vec::new();
        }
        if header.seq > 0 {
            return Vec::from([Notice::Gap {
                missing: header.seq,
            }]);
        }
        self.awaited.push(Awaited {
            prev: header.prev,
            left: PATIENCE,
            header: *header,
        });
        Vec::new()
    }

    fn branches(&self, header: &Header) -> bool {
        match header.prev {
            EnvelopeHash::NONE => header.seq == 0 && !self.instances.is_empty(),
            prev => self.recent.get(&prev).copied().unwrap_or(false),
        }
    }

    fn advance(&mut self, header: &Header, hash: EnvelopeHash) {
        self.is_new = false;
        let is_followed = self.awaited.iter().any(|of| of.prev == hash);
        self.awaited.retain(|of| of.prev != hash);
        for of in &mut self.awaited {
            of.left = of.left.saturating_sub(1);
        }
        if let Some(has_successor) = self.recent.get_mut(&header.prev) {
            *has_successor = true;
        }
        self.remember(hash);
        if is_followed && let Some(has_successor) = self.recent.get_mut(&hash) {
            *has_successor = true;
        }
        self.number((header.instance, header.seq), hash);
        let place = self.instances.entry(header.instance).or_insert(Place {
            next: header.seq,
            last: hash,
            position: header.position,
            holes: BTreeSet::new(),
        });
        if header.seq < place.next {
            place.holes.remove(&header.seq);
            return;
        }
        let room = HOLES_MAX.saturating_sub(place.holes.len());
        place
            .holes
            .extend((place.next..header.seq).rev().take(room));
        place.next = header.seq.saturating_add(1);
        place.last = hash;
        place.position = place.position.max(header.position);
        self.forget_instances();
    }

    fn remember(&mut self, hash: EnvelopeHash) {
        if self.recent.insert(hash, false).is_none() {
            self.order.push_back(hash);
        }
        if self.order.len() > RECENT_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.recent.remove(&oldest);
        }
    }

    fn number(&mut self, number: (InstanceId, u32), hash: EnvelopeHash) {
        self.numbers.insert(number, hash);
        self.numbered.push_back(number);
        if self.numbered.len() > RECENT_MAX
            && let Some(oldest) = self.numbered.pop_front()
        {
            self.numbers.remove(&oldest);
        }
    }

    fn forget_instances(&mut self) {
        if self.instances.len() <= INSTANCES_MAX {
            return;
        }
        let oldest = self
            .instances
            .iter()
            .min_by_key(|(_, place)| place.position);
        if let Some((instance, position)) = oldest.map(|(id, place)| (*id, place.position)) {
            self.instances.remove(&instance);
            self.floor = self.floor.max(position.after(1));
        }
    }
}

fn continued(place: &Place, header: &Header) -> Vec<Notice> {
    match header.seq.checked_sub(place.next) {
        Some(0) if header.prev != place.last => Vec::from([Notice::Fork]),
        Some(0) | None => Vec::new(),
        Some(missing) => Vec::from([Notice::Gap { missing }]),
    }
}

/// How a store keeps a tracker: floor and runs.
#[derive(Encode, Decode, CborLen)]
#[cbor(array)]
struct Stored {
    #[n(0)]
    floor: Position,
    #[n(1)]
    runs: Vec<StoredRun>,
}

#[derive(Encode, Decode, CborLen)]
#[cbor(array)]
struct StoredRun {
    #[n(0)]
    instance: InstanceId,
    #[n(1)]
    next: u32,
    #[n(2)]
    last: EnvelopeHash,
    #[n(3)]
    position: Position,
    #[n(4)]
    holes: Vec<u32>,
}

impl Tracker {
    /// The form in which a store keeps it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut places: Vec<_> = self.instances.iter().collect();
        places.sort_unstable_by_key(|(_, place)| core::cmp::Reverse(place.position));
        let dropped = places
            .get(STORED_MAX)
            .map(|(_, place)| place.position.after(1));
        let floor = dropped.unwrap_or(Position::START).max(self.floor);
        places.truncate(STORED_MAX);
        let runs = places.into_iter().map(|(instance, place)| StoredRun {
            instance: *instance,
            next: place.next,
            last: place.last,
            position: place.position,
            holes: place.holes.iter().copied().collect(),
        });
        sealcast_protocol::encode(&Stored {
            floor,
            runs: runs.collect(),
        })
    }

    /// Reads what [`to_bytes`](Self::to_bytes) made; `None` when it is not that.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let stored: Stored = sealcast_protocol::decode(bytes, 1 << 24).ok()?;
        let mut tracker = Self {
            floor: stored.floor,
            is_new: stored.runs.is_empty(),
            ..Self::default()
        };
        for run in stored.runs {
            tracker.remember(run.last);
            tracker.instances.insert(
                run.instance,
                Place {
                    next: run.next,
                    last: run.last,
                    position: run.position,
                    holes: run.holes.into_iter().collect(),
                },
            );
        }
        Some(tracker)
    }
}

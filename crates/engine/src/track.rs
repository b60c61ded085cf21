//! Order within one device's envelopes: gaps, replays, branches and forks, `spec/reading.md`,
//! section "Order".

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::cmp::Reverse;

use minicbor::{CborLen, Decode, Encode};
use sealcast_protocol::{EnvelopeHash, Header, InstanceId, Position};

use crate::lane::CLOCK_BEHIND_MS_MAX;
use crate::newest::Newest;

/// Runs of one device that are remembered. When there are more, a quarter of them is forgotten, and
/// nothing that began below them is live any more.
const INSTANCES_MAX: usize = 16_384;
/// Runs that are kept in a store.
const STORED_MAX: usize = 512;
/// Envelopes of one device that are remembered.
const RECENT_MAX: usize = 4096;
/// Envelopes of one device that are remembered in a store.
const STORED_RECENT_MAX: usize = 256;
/// Envelopes of one device that were passed by and are remembered.
const PASSED_MAX: usize = 65_536;
/// Missing numbers of one device that are remembered, so that they may still come.
const HOLES_MAX: usize = 4096;
/// Envelopes that may come before one that a later one names as its `prev`.
const PATIENCE: u32 = 64;

/// Follows one device's envelopes.
#[derive(Clone, Debug)]
pub struct Tracker {
    floor: Position,
    instances: BTreeMap<InstanceId, Place>,
    /// Envelopes, and whether another follows them.
    recent: Newest<EnvelopeHash, bool>,
    numbers: Newest<Number, Link>,
    holes: Newest<Number, ()>,
    /// Envelopes that nobody verified: believed only through the hash that a verified one names.
    passed: Newest<EnvelopeHash, Passed>,
    awaited: Vec<Awaited>,
    is_new: bool,
    /// Envelopes for which a run may still turn out to have begun before this tracker did.
    settling: u32,
    ticks: u64,
}

type Number = (InstanceId, u32);

#[derive(Clone, Debug)]
struct Place {
    next: u32,
    last: EnvelopeHash,
    at: Position,
    used: u64,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    hash: EnvelopeHash,
    prev: EnvelopeHash,
}

#[derive(Clone, Copy, Debug)]
struct Passed {
    number: Number,
    prev: EnvelopeHash,
}

#[derive(Clone, Copy, Debug)]
struct Awaited {
    prev: EnvelopeHash,
    left: u32,
    header: Header,
}

/// What an envelope must follow: itself, or the first of the envelopes passed by just before it.
#[derive(Clone, Copy, Debug)]
struct Start {
    seq: u32,
    prev: EnvelopeHash,
}

/// Something to tell about an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// It is new: open it.
    Fresh,
    /// It came before.
    Replay,
    /// Two envelopes have one number. One that has the number of an envelope that was seen is not
    /// opened; one that follows a twin that was not seen is.
    Fork,
    /// Another envelope follows the same one. It is opened.
    Branch,
    /// So many envelopes before it are missing; 0 where the number cannot be known.
    Gap {
        /// How many.
        missing: u32,
    },
}

impl Tracker {
    /// A tracker for a device whose earlier envelopes are on the bus but were not looked at, so
    /// that its first one may name any predecessor.
    pub fn midway() -> Self {
        Self {
            is_new: true,
            settling: PATIENCE,
            ..Self::from_start()
        }
    }

    /// A tracker that will see a device's envelopes from the first one.
    pub fn from_start() -> Self {
        Self {
            floor: Position::START,
            instances: BTreeMap::new(),
            recent: Newest::new(RECENT_MAX),
            numbers: Newest::new(RECENT_MAX),
            holes: Newest::new(HOLES_MAX),
            passed: Newest::new(PASSED_MAX),
            awaited: Vec::new(),
            is_new: false,
            settling: 0,
            ticks: 0,
        }
    }

    /// Makes nothing live that began below a position.
    pub fn raise_floor(&mut self, floor: Position) {
        self.floor = self.floor.max(floor);
    }

    /// Below it nothing that is not known is live.
    pub(crate) fn floor(&self) -> Position {
        self.floor
    }

    /// Notes an envelope that is not being read, so that others may follow it. Its signature need
    /// not hold.
    pub fn pass_by(&mut self, header: &Header, hash: EnvelopeHash) {
        let passed = Passed {
            number: (header.instance, header.seq),
            prev: header.prev,
        };
        self.passed.insert(hash, passed);
    }

    /// Judges an envelope whose signature holds. `at` is when it was sealed by its publisher's
    /// clock: its position, or the start of its session where that is a backfill.
    pub fn observe(&mut self, header: &Header, hash: EnvelopeHash, at: Position) -> Vec<Notice> {
        let number = (header.instance, header.seq);
        match self.numbers.get(&number) {
            Some(known) if known.hash == hash => return Vec::from([Notice::Replay]),
            Some(_) => return Vec::from([Notice::Fork]),
            None if self.passed.contains(&hash) => return Vec::from([Notice::Replay]),
            None => (),
        }
        let start = self.walk_back(header);
        let gap = match self.instances.get(&header.instance) {
            Some(place) if header.seq < place.next && !self.holes.contains(&number) => {
                return Vec::from([Notice::Replay]);
            }
            Some(place) => start.seq.checked_sub(place.next).filter(|&gap| gap > 0),
            None if at < self.floor => return Vec::from([Notice::Replay]),
            None => self.begun(header, start),
        };
        let told = [
            gap.map(|missing| Notice::Gap { missing }),
            self.departs(header, hash, start).then_some(Notice::Fork),
            self.branches(header, hash, start).then_some(Notice::Branch),
            Some(Notice::Fresh),
        ];
        self.advance(header, hash, at, start);
        told.into_iter().flatten().collect()
    }

    /// Gives up on predecessors that did not come in a while, or on all. Returns the envelopes that
    /// named them.
    pub fn give_up(&mut self, at_once: bool) -> Vec<Header> {
        let awaited = core::mem::take(&mut self.awaited);
        let (kept, gone): (Vec<_>, Vec<_>) =
            awaited.into_iter().partition(|of| of.left > 0 && !at_once);
        self.awaited = kept;
        gone.into_iter().map(|of| of.header).collect()
    }

    /// Goes back over the envelopes of the run that were passed by. Each is named by the hash in
    /// the next, so that none of them can be false.
    fn walk_back(&self, header: &Header) -> Start {
        let mut start = Start {
            seq: header.seq,
            prev: header.prev,
        };
        while let Some(passed) = self.passed.get(&start.prev)
            && start.seq.checked_sub(1).map(|seq| (header.instance, seq)) == Some(passed.number)
        {
            start = Start {
                seq: passed.number.1,
                prev: passed.prev,
            };
        }
        start
    }

    /// Judges the first envelope of a run: its `prev` names the last one that the home recorded.
    fn begun(&mut self, header: &Header, start: Start) -> Option<u32> {
        if start.seq > 0 {
            return (self.settling == 0).then_some(start.seq);
        }
        let is_here = start.prev == EnvelopeHash::NONE
            || self.recent.contains(&start.prev)
            || self.passed.contains(&start.prev)
            || self.instances.values().any(|of| of.last == start.prev);
        if !self.is_new && !is_here {
            self.awaited.push(Awaited {
                prev: start.prev,
                left: PATIENCE,
                header: *header,
            });
        }
        None
    }

    /// Whether the envelope, or one that is here, follows a twin of one that is here.
    fn departs(&self, header: &Header, hash: EnvelopeHash, start: Start) -> bool {
        let of = |seq: Option<u32>| self.numbers.get(&(header.instance, seq?));
        let before = of(header.seq.checked_sub(1));
        let after = of(header.seq.checked_add(1));
        let last = self.instances.get(&header.instance);
        before.is_some_and(|before| before.hash != header.prev)
            || after.is_some_and(|after| after.prev != hash)
            || last.is_some_and(|last| last.next == start.seq && last.last != start.prev)
    }

    fn branches(&self, header: &Header, hash: EnvelopeHash, start: Start) -> bool {
        if start.prev != EnvelopeHash::NONE {
            return self.recent.get(&start.prev).copied().unwrap_or(false);
        }
        let is_first = self.awaited.iter().any(|of| of.prev == hash);
        let has_others = self.instances.keys().any(|id| *id != header.instance);
        start.seq == 0 && !is_first && has_others
    }

    fn advance(&mut self, header: &Header, hash: EnvelopeHash, at: Position, start: Start) {
        if self.is_new {
            let slack = at.0.saturating_sub(CLOCK_BEHIND_MS_MAX);
            self.raise_floor(Position(slack));
        }
        self.is_new = false;
        for prev in [header.prev, start.prev] {
            if let Some(is_followed) = self.recent.get_mut(&prev) {
                *is_followed = true;
            }
        }
        let number = (header.instance, header.seq);
        let after = self
            .numbers
            .get(&(header.instance, header.seq.saturating_add(1)));
        let is_awaited = self.awaited.iter().any(|of| of.prev == hash);
        let is_followed = is_awaited || after.is_some_and(|after| after.prev == hash);
        self.recent.insert(hash, is_followed);
        self.awaited.retain(|of| of.prev != hash);
        for of in &mut self.awaited {
            of.left = of.left.saturating_sub(1);
        }
        let prev = header.prev;
        self.numbers.insert(number, Link { hash, prev });
        self.step(header, hash, at, start);
        self.settling = self.settling.saturating_sub(1);
        self.forget_instances();
    }

    fn step(&mut self, header: &Header, hash: EnvelopeHash, at: Position, start: Start) {
        self.ticks += 1;
        let begins_at = match self.settling {
            0 => 0,
            _ => start.seq,
        };
        let place = self.instances.entry(header.instance).or_insert(Place {
            next: begins_at,
            last: hash,
            at,
            used: 0,
        });
        place.used = self.ticks;
        place.at = place.at.max(at);
        if header.seq < place.next {
            self.holes.remove(&(header.instance, header.seq));
            return;
        }
        let missing = place.next..start.seq;
        place.next = header.seq.saturating_add(1);
        place.last = hash;
        let first = missing.end.saturating_sub(HOLES_MAX as u32);
        for seq in missing.start.max(first)..missing.end {
            self.holes.insert((header.instance, seq), ());
        }
    }

    fn forget_instances(&mut self) {
        if self.instances.len() <= INSTANCES_MAX {
            return;
        }
        let mut by_use: Vec<_> = self
            .instances
            .iter()
            .map(|(id, of)| (of.used, *id))
            .collect();
        by_use.sort_unstable();
        for (_, id) in by_use.into_iter().take(INSTANCES_MAX / 4) {
            if let Some(place) = self.instances.remove(&id) {
                self.raise_floor(place.at.after(1));
            }
        }
    }
}

/// How a store keeps a tracker.
#[derive(Encode, Decode, CborLen)]
#[cbor(array)]
struct Stored {
    #[n(0)]
    floor: Position,
    /// The one used last comes first.
    #[n(1)]
    runs: Vec<StoredRun>,
    /// The newest comes last.
    #[n(2)]
    recent: Vec<StoredHash>,
    #[n(3)]
    awaited: Vec<StoredHeader>,
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
    at: Position,
    #[n(4)]
    holes: Vec<u32>,
}

#[derive(Encode, Decode, CborLen)]
#[cbor(array)]
struct StoredHash {
    #[n(0)]
    hash: EnvelopeHash,
    #[n(1)]
    is_followed: bool,
}

/// The first envelope of a run; the run before it has not come yet.
#[derive(Encode, Decode, CborLen)]
#[cbor(array)]
struct StoredHeader {
    #[n(0)]
    prev: EnvelopeHash,
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    header: [u8; 72],
}

const STORED_LEN_MAX: usize = 1 << 20;

impl Tracker {
    /// The form in which a store keeps it. What is left out is made up for by the floor.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut places: Vec<_> = self.instances.iter().collect();
        places.sort_unstable_by_key(|(_, place)| Reverse(place.used));
        let left_out = places.get(STORED_MAX..).unwrap_or_default();
        let floor = left_out.iter().map(|(_, place)| place.at.after(1));
        let floor = floor.fold(self.floor, Position::max);
        places.truncate(STORED_MAX);
        let mut holes = BTreeMap::<InstanceId, Vec<u32>>::new();
        for (instance, seq) in self.holes.keys() {
            holes.entry(*instance).or_default().push(*seq);
        }
        let runs = places.into_iter().map(|(instance, place)| StoredRun {
            instance: *instance,
            next: place.next,
            last: place.last,
            at: place.at,
            holes: holes.remove(instance).unwrap_or_default(),
        });
        let recent = self.recent.newest_first().take(STORED_RECENT_MAX);
        let mut recent: Vec<_> = recent
            .map(|(hash, is_followed)| StoredHash {
                hash: *hash,
                is_followed: *is_followed,
            })
            .collect();
        recent.reverse();
        let awaited = self.awaited.iter().map(|of| StoredHeader {
            prev: of.prev,
            header: of.header.encode(),
        });
        sealcast_protocol::encode(&Stored {
            floor,
            runs: runs.collect(),
            recent,
            awaited: awaited.collect(),
        })
    }

    /// Reads what [`to_bytes`](Self::to_bytes) made; `None` when it is not that.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let stored: Stored = sealcast_protocol::decode(bytes, STORED_LEN_MAX).ok()?;
        let mut tracker = match stored.runs.is_empty() {
            true => Self::midway(),
            false => Self::from_start(),
        };
        tracker.raise_floor(stored.floor);
        for run in stored.runs.into_iter().rev() {
            tracker.ticks += 1;
            for seq in run.holes.into_iter().collect::<BTreeSet<_>>() {
                tracker.holes.insert((run.instance, seq), ());
            }
            let place = Place {
                next: run.next,
                last: run.last,
                at: run.at,
                used: tracker.ticks,
            };
            tracker.instances.insert(run.instance, place);
        }
        for of in stored.recent {
            tracker.recent.insert(of.hash, of.is_followed);
        }
        for of in stored.awaited {
            let header = Header::decode(&of.header).ok()?;
            tracker.awaited.push(Awaited {
                prev: of.prev,
                left: PATIENCE,
                header,
            });
        }
        Some(tracker)
    }
}

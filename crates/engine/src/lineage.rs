//! Which envelopes of a device lie at or before given ones.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use sealcast_crypto::Verifier;
use sealcast_protocol::{DataItem, DeviceId, EnvelopeHash, LIST_MAX, SessionId, StreamId};

use crate::read::accept;
use crate::view::StreamView;

/// Tips that one entry of the access log has room for, with all else that it may hold.
const TIPS_MAX: usize = 8192;

/// Finds the envelopes at or before the tips that a revocation names.
///
/// Feed it the data topic from its start. It keeps some 70 bytes an envelope of the devices in
/// question.
#[derive(Debug)]
pub struct Lineage {
    devices: BTreeMap<DeviceId, Branches>,
}

/// The tips of one device, and what came before each of its envelopes.
#[derive(Debug)]
struct Branches {
    /// Each with its session, once it was seen.
    tips: BTreeMap<EnvelopeHash, Option<SessionId>>,
    before: BTreeMap<EnvelopeHash, EnvelopeHash>,
}

impl Lineage {
    /// For devices and the tips of their accepted branches.
    pub fn new(devices: BTreeMap<DeviceId, Vec<EnvelopeHash>>) -> Self {
        let branches = |tips: Vec<_>| Branches {
            tips: tips.into_iter().map(|tip| (tip, None)).collect(),
            before: BTreeMap::new(),
        };
        let devices = devices.into_iter();
        Self {
            devices: devices.map(|(of, tips)| (of, branches(tips))).collect(),
        }
    }

    /// Takes in one item of the data topic. A `prev` is believed through the hash that names it.
    pub fn observe(&mut self, stream: &StreamId, bytes: &[u8]) {
        if let Ok(envelope) = DataItem::parse(bytes)
            && let Some(of) = self.devices.get_mut(&envelope.header().device)
        {
            let hash = envelope.hash(stream);
            of.before.insert(hash, envelope.header().prev);
            if let Some(session) = of.tips.get_mut(&hash) {
                *session = Some(envelope.header().session);
            }
        }
    }

    /// Which envelopes lie at or before which tips. Nothing leads from one device to another.
    pub fn resolve(&self) -> Allowed {
        let mut allowed = Allowed::default();
        for of in self.devices.values() {
            allowed.add(of);
        }
        allowed
    }
}

/// Envelopes of revoked devices, each with the tips that it lies at or before, from a [`Lineage`].
///
/// It keeps some 60 bytes an envelope, however many the tips are.
#[derive(Debug, Default)]
pub struct Allowed {
    /// Each envelope's number, and one above the highest number of those that follow it. Whatever
    /// follows an envelope has its number in that range.
    ranges: BTreeMap<EnvelopeHash, (u64, u64)>,
    /// The sessions of the tips.
    sessions: BTreeMap<EnvelopeHash, SessionId>,
    next: u64,
}

impl Allowed {
    fn add(&mut self, of: &Branches) {
        let mut after = BTreeMap::<EnvelopeHash, Vec<EnvelopeHash>>::new();
        let (mut seen, mut first) = (BTreeSet::new(), Vec::new());
        let mut open: Vec<_> = of.tips.keys().copied().collect();
        let sessions = of.tips.iter();
        self.sessions
            .extend(sessions.filter_map(|(tip, session)| Some((*tip, (*session)?))));
        while let Some(hash) = open.pop() {
            if let Some(prev) = of.before.get(&hash)
                && seen.insert(hash)
            {
                match of.before.contains_key(prev) {
                    true => after.entry(*prev).or_default().push(hash),
                    false => first.push(hash),
                }
                open.push(*prev);
            }
        }
        let mut path = Vec::new();
        for hash in first {
            self.enter(hash, &mut path);
            while let Some(last) = path.last().copied() {
                match after.get_mut(&last).and_then(Vec::pop) {
                    Some(next) => self.enter(next, &mut path),
                    None => self.leave(&mut path),
                }
            }
        }
    }

    fn enter(&mut self, hash: EnvelopeHash, path: &mut Vec<EnvelopeHash>) {
        self.ranges.insert(hash, (self.next, self.next));
        self.next += 1;
        path.push(hash);
    }

    fn leave(&mut self, path: &mut Vec<EnvelopeHash>) {
        if let Some(hash) = path.pop()
            && let Some(range) = self.ranges.get_mut(&hash)
        {
            range.1 = self.next;
        }
    }

    /// Those of some tips that an envelope is, or that its device sealed later, with their sessions.
    pub(crate) fn after<'a>(
        &'a self,
        hash: &EnvelopeHash,
        tips: &'a [EnvelopeHash],
    ) -> impl Iterator<Item = &'a SessionId> {
        let (from, until) = self.ranges.get(hash).copied().unwrap_or_default();
        let is_after = move |tip: &&EnvelopeHash| {
            let number = self.ranges.get(*tip).map(|(number, _)| number);
            number.is_some_and(|number| (from..until).contains(number))
        };
        let tips = tips.iter().filter(is_after);
        tips.filter_map(|tip| self.sessions.get(tip))
    }
}

/// Finds every accepted branch tip of some devices, for a revocation to name.
///
/// It keeps some 100 bytes an accepted envelope of these devices.
#[derive(Debug)]
pub struct Tips {
    devices: BTreeSet<DeviceId>,
    /// Whose they are, and in which order they came.
    accepted: BTreeMap<EnvelopeHash, (DeviceId, u64)>,
    followed: BTreeSet<EnvelopeHash>,
    allowed: Allowed,
    verifier: Verifier,
}

impl Tips {
    /// Looks for the tips of these devices. `allowed` is as in
    /// [`Reader::allow`](crate::Reader::allow).
    pub fn new(devices: impl IntoIterator<Item = DeviceId>, allowed: Allowed) -> Self {
        Self {
            devices: devices.into_iter().collect(),
            accepted: BTreeMap::new(),
            followed: BTreeSet::new(),
            allowed,
            verifier: Verifier::default(),
        }
    }

    /// Takes in one item of the data topic. One that came before changes nothing.
    pub fn observe(&mut self, view: &StreamView, bytes: &[u8]) {
        let Ok(envelope) = DataItem::parse(bytes) else {
            return;
        };
        let header = *envelope.header();
        if !self.devices.contains(&header.device) {
            return;
        }
        let stream = view.stream();
        let Ok(accepted) = accept(view, &stream, envelope, &self.allowed, &mut self.verifier)
        else {
            return;
        };
        let place = (header.device, self.accepted.len() as u64);
        self.accepted
            .entry(accepted.envelope.hash())
            .or_insert(place);
        self.followed.insert(header.prev);
    }

    /// The tips found, ascending by device. Where there are more devices, or more tips of one, than
    /// an entry can list, those that came last.
    pub fn found(self) -> Vec<(DeviceId, Vec<EnvelopeHash>)> {
        let mut tips = BTreeMap::<DeviceId, Vec<(u64, EnvelopeHash)>>::new();
        for (hash, (device, order)) in self.accepted {
            if !self.followed.contains(&hash) {
                tips.entry(device).or_default().push((order, hash));
            }
        }
        let tips = heard_last(tips);
        let each_max = LIST_MAX.min(TIPS_MAX / tips.len().max(1));
        let newest = |mut tips: Vec<(u64, EnvelopeHash)>| {
            tips.sort_unstable();
            let left_out = tips.len().saturating_sub(each_max);
            let mut tips: Vec<_> = tips
                .into_iter()
                .skip(left_out)
                .map(|(_, tip)| tip)
                .collect();
            tips.sort_unstable();
            tips
        };
        let tips = tips
            .into_iter()
            .map(|(device, tips)| (device, newest(tips)));
        tips.filter(|(_, tips)| !tips.is_empty()).collect()
    }
}

/// At most so many devices as an entry can list.
fn heard_last(
    tips: BTreeMap<DeviceId, Vec<(u64, EnvelopeHash)>>,
) -> BTreeMap<DeviceId, Vec<(u64, EnvelopeHash)>> {
    let last = |of: &[(u64, EnvelopeHash)]| of.iter().map(|(order, _)| *order).max();
    let mut all: Vec<_> = tips.into_iter().collect();
    all.sort_unstable_by_key(|(_, of)| core::cmp::Reverse(last(of)));
    all.truncate(LIST_MAX);
    all.into_iter().collect()
}

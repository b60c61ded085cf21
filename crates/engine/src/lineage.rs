//! Which envelopes of a device lie at or before given ones.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use sealcast_protocol::{DeviceId, EnvelopeHash, EnvelopeView, LIST_MAX, StreamId};

use crate::read::accept;
use crate::view::StreamView;

/// Tips that one entry of the access log has room for, with all else that it may hold.
const TIPS_MAX: usize = 8192;

/// Finds the envelopes at or before the tips that a revocation names.
///
/// Feed it the data topic from its start. It keeps some 50 bytes an envelope of the devices in
/// question.
#[derive(Debug)]
pub struct Lineage {
    devices: BTreeMap<DeviceId, Vec<EnvelopeHash>>,
    before: BTreeMap<EnvelopeHash, EnvelopeHash>,
}

impl Lineage {
    /// For devices and the tips of their accepted branches.
    pub fn new(devices: BTreeMap<DeviceId, Vec<EnvelopeHash>>) -> Self {
        Self {
            devices,
            before: BTreeMap::new(),
        }
    }

    /// Takes in one item of the data topic. A `prev` is believed through the hash that names it.
    pub fn observe(&mut self, stream: &StreamId, bytes: &[u8]) {
        if let Ok(envelope) = EnvelopeView::parse(bytes)
            && self.devices.contains_key(&envelope.header().device)
        {
            self.before
                .insert(envelope.hash(stream, b""), envelope.header().prev);
        }
    }

    /// The envelopes at or before the tips.
    pub fn resolve(&self) -> BTreeSet<EnvelopeHash> {
        let mut allowed = BTreeSet::new();
        let mut open: Vec<_> = self.devices.values().flatten().copied().collect();
        while let Some(hash) = open.pop() {
            if let Some(prev) = self.before.get(&hash)
                && allowed.insert(hash)
            {
                open.push(*prev);
            }
        }
        allowed
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
    allowed: BTreeSet<EnvelopeHash>,
}

impl Tips {
    /// Looks for the tips of these devices. `allowed` is as in
    /// [`Reader::allow`](crate::Reader::allow).
    pub fn new(
        devices: impl IntoIterator<Item = DeviceId>,
        allowed: BTreeSet<EnvelopeHash>,
    ) -> Self {
        Self {
            devices: devices.into_iter().collect(),
            accepted: BTreeMap::new(),
            followed: BTreeSet::new(),
            allowed,
        }
    }

    /// Takes in one item of the data topic. One that came before changes nothing.
    pub fn observe(&mut self, view: &StreamView, bytes: &[u8]) {
        let Ok(envelope) = EnvelopeView::parse(bytes) else {
            return;
        };
        let header = *envelope.header();
        if !self.devices.contains(&header.device) {
            return;
        }
        let stream = view.stream();
        let Ok(accepted) = accept(view, &stream, envelope, &self.allowed) else {
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

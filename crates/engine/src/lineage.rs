//! Which envelopes of a device lie at or before given ones.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use sealcast_protocol::{DeviceId, EnvelopeHash, EnvelopeView, StreamId};

use crate::read::accept;
use crate::view::StreamView;

/// Finds the envelopes at or before the tips that a revocation names.
///
/// Feed it the data topic from its start. It keeps 32 bytes an envelope of the devices in question.
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
#[derive(Debug)]
pub struct Tips {
    devices: BTreeMap<DeviceId, BTreeSet<EnvelopeHash>>,
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
            devices: devices
                .into_iter()
                .map(|device| (device, BTreeSet::new()))
                .collect(),
            followed: BTreeSet::new(),
            allowed,
        }
    }

    /// Takes in one item of the data topic.
    pub fn observe(&mut self, view: &StreamView, bytes: &[u8]) {
        let Ok(envelope) = EnvelopeView::parse(bytes) else {
            return;
        };
        let header = *envelope.header();
        let stream = view.stream();
        let Some(tips) = self.devices.get_mut(&header.device) else {
            return;
        };
        let Ok((_, envelope)) = accept(view, &stream, envelope, &self.allowed) else {
            return;
        };
        let hash = envelope.hash();
        if !tips.remove(&header.prev) && header.prev != EnvelopeHash::NONE {
            self.followed.insert(header.prev);
        }
        if !self.followed.remove(&hash) {
            tips.insert(hash);
        }
    }

    /// The tips found, ascending by device.
    pub fn found(self) -> Vec<(DeviceId, Vec<EnvelopeHash>)> {
        let found = self
            .devices
            .into_iter()
            .filter(|(_, tips)| !tips.is_empty());
        found
            .map(|(device, tips)| (device, tips.into_iter().collect()))
            .collect()
    }
}

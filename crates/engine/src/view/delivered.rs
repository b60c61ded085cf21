//! What the bus shows that devices were given.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use minicbor::{CborLen, Decode, Encode};
use sealcast_protocol::{
    DeviceId, Interval, Position, SessionId, SessionKind, SessionRecord, UserId, merged,
};

use super::StreamView;

/// Longest stored form of what one device was given of one session.
const STORED_LEN_MAX: usize = 1 << 20;

/// What was given of each session to each device.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    by_bundles: BTreeMap<(SessionId, DeviceId), Vec<Delivery>>,
    /// The newest record that wraps the root for the device, by its start.
    by_records: BTreeMap<(SessionId, DeviceId), Position>,
    /// By bundles that the bus lost. They were there, and may have been read.
    lost: BTreeSet<(SessionId, DeviceId)>,
}

/// What one giver wrapped to one key.
#[derive(Debug, Encode, Decode, CborLen)]
#[cbor(array)]
struct Delivery {
    #[n(0)]
    giver_user: UserId,
    #[n(1)]
    giver_device: DeviceId,
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    key: [u8; 32],
    #[n(3)]
    intervals: Vec<Interval>,
}

/// The key that a device has now.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyNow {
    pub(super) hash: [u8; 32],
    /// When a card named it first; the start of time for a device's first key.
    pub(super) since: Position,
}

impl Deliveries {
    /// Notes what a bundle gives. Returns what to keep, where that is new.
    pub(super) fn note(
        &mut self,
        session: SessionId,
        device: DeviceId,
        giver: (UserId, DeviceId),
        key: [u8; 32],
        interval: Interval,
    ) -> Option<Vec<u8>> {
        let all = self.by_bundles.entry((session, device)).or_default();
        let of_giver =
            |of: &&mut Delivery| (of.giver_user, of.giver_device) == giver && of.key == key;
        match all.iter_mut().find(of_giver) {
            Some(known) if known.intervals.iter().any(|of| of.covers(&interval)) => return None,
            Some(known) => {
                known.intervals.push(interval);
                known.intervals = merged(core::mem::take(&mut known.intervals));
            }
            None => all.push(Delivery {
                giver_user: giver.0,
                giver_device: giver.1,
                key,
                intervals: Vec::from([interval]),
            }),
        }
        Some(sealcast_protocol::encode(all))
    }

    /// Notes that a record wraps the root for a device.
    pub(super) fn note_wrap(&mut self, session: SessionId, device: DeviceId, start: Position) {
        let newest = self.by_records.entry((session, device)).or_insert(start);
        *newest = start.max(*newest);
    }

    pub(super) fn restore(&mut self, session: SessionId, device: DeviceId, value: &[u8]) {
        if let Ok(deliveries) = sealcast_protocol::decode(value, STORED_LEN_MAX) {
            self.by_bundles.insert((session, device), deliveries);
        }
    }

    /// Takes every bundle for lost. Returns the devices that they were for.
    pub(super) fn forget(&mut self) -> BTreeSet<DeviceId> {
        let lost: BTreeSet<_> = core::mem::take(&mut self.by_bundles).into_keys().collect();
        let devices = lost.iter().map(|(_, device)| *device).collect();
        self.lost.extend(lost);
        devices
    }

    /// Whether a device was given anything, by whomever and to whichever key.
    pub(super) fn has_any(&self, session: SessionId, device: DeviceId) -> bool {
        self.lost.contains(&(session, device))
            || self.by_bundles.contains_key(&(session, device))
            || self.by_records.contains_key(&(session, device))
    }

    /// What a device was given to its key, by givers whom it believes.
    pub(super) fn given(
        &self,
        session: SessionId,
        device: DeviceId,
        key: Option<KeyNow>,
        mut is_believed: impl FnMut(&UserId, &DeviceId) -> bool,
    ) -> Vec<Interval> {
        let wrapped = self.by_records.get(&(session, device));
        if wrapped.is_some_and(|start| key.is_none_or(|key| key.since <= *start)) {
            return Vec::from([Interval::ALL]);
        }
        let all = self.by_bundles.get(&(session, device));
        let all = all.map_or(&[][..], Vec::as_slice).iter();
        let to_key = all.filter(|of| key.is_none_or(|key| key.hash == of.key));
        let believed = to_key.filter(|of| is_believed(&of.giver_user, &of.giver_device));
        merged(
            believed
                .flat_map(|of| of.intervals.iter().copied())
                .collect(),
        )
    }
}

impl StreamView {
    /// Whether a device whose card is revoked was given anything of a session.
    pub(crate) fn is_with_revoked(&self, session: &SessionId) -> bool {
        let mut revoked = self.revoked();
        revoked.any(|(_, device, _)| self.deliveries.has_any(*session, *device))
    }

    /// Devices whose cards are revoked, and from when on, that may have asked key nodes for what is yet to be published in a
    /// live session.
    pub(crate) fn revoked_askers(&self, record: &SessionRecord) -> BTreeMap<DeviceId, Position> {
        if record.kind != SessionKind::Live || self.state.key_nodes().is_none() {
            return BTreeMap::new();
        }
        let askers = self.revoked().filter(|(user, device, _)| {
            let readable = self.state.readable(user, device, &record.lane);
            readable.iter().any(|of| of.until > record.start)
        });
        askers.map(|(_, device, out)| (*device, out)).collect()
    }

    /// By their users' lists alone: an entry that is not linked may name a device that is somebody else's.
    fn revoked(&self) -> impl Iterator<Item = (&UserId, &DeviceId, Position)> {
        let lists = self.lists.iter();
        let devices = lists.flat_map(|(user, list)| {
            let devices = list.devices();
            devices.map(move |(device, of)| (user, device, of.revoked))
        });
        devices.filter_map(|(user, device, out)| Some((user, device, out?)))
    }
}

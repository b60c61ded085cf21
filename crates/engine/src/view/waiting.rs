//! Items of the keys topic that cannot be judged yet.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use sealcast_crypto::Digest;
use sealcast_protocol::{
    Bundle, Deal, DeviceId, SegmentRecords, SessionRecord, StreamId, Unverified, UserId, Verified,
};

/// Bytes that wait in the name of one user, at most, and as many for all that nobody signed whom
/// the log names.
const BYTES_MAX: usize = 4 << 20;
/// How often an item is tried again when something new was learned.
const TRIES_MAX: u32 = 64;
/// Devices in no list whose items are remembered to have been here, at most.
const STRANGERS_MAX: usize = 4096;

/// What the keys topic carries, as far as it was judged.
#[derive(Debug)]
pub(super) enum KeyItem {
    /// Says that it is a record.
    Record(Unverified<SessionRecord>),
    /// Says that it is a bundle.
    Bundle(Unverified<Bundle>),
    /// Says that it is a deal.
    Deal(Unverified<Deal>),
    /// Says that it is segment records.
    Segments(Unverified<SegmentRecords>),
    /// The device that it names signed it.
    SignedRecord(Verified<SessionRecord>),
    /// The device that it names signed it.
    SignedBundle(Verified<Bundle>),
    /// The device that it names signed it.
    SignedDeal(Verified<Deal>),
    /// The device that it names signed it.
    SignedSegments(Verified<SegmentRecords>),
}

impl KeyItem {
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let record = || Unverified::decode(bytes).ok().map(Self::Record);
        let bundle = || Unverified::decode(bytes).ok().map(Self::Bundle);
        let segments = || Unverified::decode(bytes).ok().map(Self::Segments);
        let deal = || Unverified::decode(bytes).ok().map(Self::Deal);
        record().or_else(bundle).or_else(segments).or_else(deal)
    }

    /// The stream that it says it is of.
    pub(super) fn stream(&self) -> &StreamId {
        match self {
            Self::Record(item) => &item.claims().stream,
            Self::Bundle(item) => &item.claims().context.stream,
            Self::Deal(item) => &item.claims().dealer.stream,
            Self::Segments(item) => &item.claims().dealer.stream,
            Self::SignedRecord(item) => &item.body().stream,
            Self::SignedBundle(item) => &item.body().context.stream,
            Self::SignedDeal(item) => &item.body().dealer.stream,
            Self::SignedSegments(item) => &item.body().dealer.stream,
        }
    }

    fn digest(&self) -> Digest {
        match self {
            Self::Record(item) => item.digest(),
            Self::Bundle(item) => item.digest(),
            Self::Deal(item) => item.digest(),
            Self::Segments(item) => item.digest(),
            Self::SignedRecord(item) => item.digest(),
            Self::SignedBundle(item) => item.digest(),
            Self::SignedDeal(item) => item.digest(),
            Self::SignedSegments(item) => item.digest(),
        }
    }

    /// Whose device signed it, where that is certain.
    fn signer(&self) -> Option<UserId> {
        match self {
            Self::Record(_) | Self::Bundle(_) | Self::Deal(_) | Self::Segments(_) => None,
            Self::SignedRecord(item) => Some(item.body().lane),
            Self::SignedBundle(item) => Some(item.body().context.giver_user),
            Self::SignedDeal(item) => Some(item.body().dealer.lane),
            Self::SignedSegments(item) => Some(item.body().dealer.lane),
        }
    }

    /// The device that it says signed it, where that is not certain.
    fn stranger(&self) -> Option<DeviceId> {
        match self {
            Self::Record(item) => Some(item.claims().device),
            Self::Bundle(item) => Some(item.claims().context.giver_device),
            Self::Deal(item) => Some(item.claims().dealer.device),
            Self::Segments(item) => Some(item.claims().dealer.device),
            Self::SignedRecord(_)
            | Self::SignedBundle(_)
            | Self::SignedDeal(_)
            | Self::SignedSegments(_) => None,
        }
    }
}

/// Holds items, each signer's apart from the others', so that nobody's push out anybody else's.
#[derive(Debug, Default)]
pub(super) struct WaitingRoom {
    items: Vec<Waiting>,
    digests: BTreeSet<Digest>,
    bytes: BTreeMap<Option<UserId>, usize>,
    has_turned_away: bool,
    strangers: Strangers,
}

/// Devices in no list of which something was turned away.
#[derive(Debug, Default)]
struct Strangers {
    devices: BTreeSet<DeviceId>,
    are_too_many: bool,
}

#[derive(Debug)]
struct Waiting {
    item: KeyItem,
    len: usize,
    tries: u32,
}

impl WaitingRoom {
    /// Lets an item of so many bytes wait. Where its signer's room is used up, those go that waited
    /// in vain before; if there are none, it is turned away.
    pub(super) fn push(&mut self, item: KeyItem, len: usize) {
        self.admit(Waiting {
            item,
            len,
            tries: 0,
        });
    }

    /// Lets an item wait again that still cannot be judged.
    pub(super) fn put_back(&mut self, item: KeyItem, len: usize, tries: u32) {
        let tries = tries.saturating_add(1);
        match tries <= TRIES_MAX {
            true => self.admit(Waiting { item, len, tries }),
            false => self.turn_away(&item),
        }
    }

    fn turn_away(&mut self, item: &KeyItem) {
        match item.stranger() {
            None => self.has_turned_away = true,
            Some(_) if self.strangers.devices.len() >= STRANGERS_MAX => {
                self.strangers.are_too_many = true;
            }
            Some(device) => {
                self.strangers.devices.insert(device);
            }
        }
    }

    /// Whether something may have been turned away that this device, in no list then, signed.
    pub(super) fn has_missed(&self, device: &DeviceId) -> bool {
        self.strangers.are_too_many || self.strangers.devices.contains(device)
    }

    fn admit(&mut self, waiting: Waiting) {
        let digest = waiting.item.digest();
        if self.digests.contains(&digest) {
            return;
        }
        let signer = waiting.item.signer();
        while self.used(signer) + waiting.len > BYTES_MAX {
            let in_vain = |of: &Waiting| of.tries > waiting.tries && of.item.signer() == signer;
            let Some(at) = self.items.iter().position(in_vain) else {
                self.turn_away(&waiting.item);
                return;
            };
            let out = self.items.swap_remove(at);
            self.turn_away(&out.item);
            self.digests.remove(&out.item.digest());
            *self.bytes.entry(signer).or_default() -= out.len;
        }
        *self.bytes.entry(signer).or_default() += waiting.len;
        self.digests.insert(digest);
        self.items.push(waiting);
    }

    fn used(&self, signer: Option<UserId>) -> usize {
        self.bytes.get(&signer).copied().unwrap_or_default()
    }

    /// Hands out everything, with its length and how often it was tried.
    pub(super) fn take(&mut self) -> impl Iterator<Item = (KeyItem, usize, u32)> + use<> {
        self.digests.clear();
        self.bytes.clear();
        let items = core::mem::take(&mut self.items);
        items.into_iter().map(|of| (of.item, of.len, of.tries))
    }

    /// Whether anything waits that a device in a list signed, or such was turned away.
    pub(super) fn is_used(&self) -> bool {
        self.has_turned_away || self.items.iter().any(|of| of.item.stranger().is_none())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

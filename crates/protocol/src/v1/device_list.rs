//! The state that a user's device list adds up to, `spec/devices.md`.
//!
//! A pure function of the entries: no clock, no I/O.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use minicbor::{CborLen, Decode, Encode};
use sealcast_crypto::{SigningKey, VerifyingKey};

use crate::ids::{DeviceId, LogHash, Position, UserId};
use crate::signed::{Unverified, Verified, sign};
use crate::v1::device::{
    Card, CardRevocation, DeviceKeys, ListBody, ListEntry, ListFault, NO_ENTRY,
};

/// Most devices that are in a list and not revoked. Further cards are refused; a card in the list
/// is never pushed out.
pub const DEVICES_MAX: usize = 1024;
/// Most entries of one list.
pub const LIST_ENTRIES_MAX: usize = 16_384;

/// Which devices a user has, and had.
#[derive(Clone, Debug)]
pub struct CardList {
    user: UserId,
    /// The hash of each entry, by its place.
    hashes: Vec<LogHash>,
    devices: BTreeMap<DeviceId, DeviceState>,
}

/// A device that the list names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceState {
    /// Its newest card.
    pub card: Card,
    /// The keys of that card, checked.
    pub keys: DeviceKeys,
    /// When its first card was written.
    pub added: Position,
    /// Since when it is revoked; `None` while it is not.
    pub revoked: Option<Position>,
}

impl DeviceState {
    /// Whether the device is neither revoked nor expired.
    pub fn is_live(&self, now: Position) -> bool {
        self.revoked.is_none() && now < self.card.expires
    }
}

/// What an entry did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The entry was in the list already.
    Known,
    /// The device was added.
    Added(DeviceId),
    /// The device's card was replaced by a newer one.
    Renewed(DeviceId),
    /// The device was revoked.
    Revoked(DeviceId),
}

/// The newest entry that was seen of a list: what a reader keeps between runs, so that a shorter
/// or forked list is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct ListPin {
    /// Place of the entry.
    #[n(0)]
    pub seq: u32,
    /// Its hash.
    #[n(1)]
    pub hash: LogHash,
}

impl CardList {
    /// An empty list.
    pub fn new(user: UserId) -> Self {
        Self {
            user,
            hashes: Vec::new(),
            devices: BTreeMap::new(),
        }
    }

    /// Takes the next entry as it travels. An entry that was taken before changes nothing.
    ///
    /// # Errors
    ///
    /// Fails when the entry is not the root key's next word; the list is as it was then.
    pub fn apply(&mut self, bytes: &[u8]) -> Result<Applied, ListFault> {
        let entry = Unverified::<ListEntry>::decode(bytes)?;
        if entry.claims().user != self.user {
            return Err(ListFault::OtherUser);
        }
        let root = VerifyingKey::from_bytes(self.user.0).map_err(|_| ListFault::BadSignature)?;
        let entry = entry.verify(&root).map_err(|_| ListFault::BadSignature)?;
        self.apply_verified(&entry)
    }

    /// Writes the next entry and takes it into this list.
    ///
    /// # Errors
    ///
    /// Fails when `root` is not the user's key or a reader would refuse the entry; the list is as
    /// it was then.
    pub fn append(
        &mut self,
        root: &SigningKey,
        time: Position,
        body: ListBody,
    ) -> Result<Verified<ListEntry>, ListFault> {
        if *root.verifying_key().as_bytes() != self.user.0 {
            return Err(ListFault::BadSignature);
        }
        let entry = ListEntry {
            version: 1,
            user: self.user,
            seq: self.next_seq(),
            prev: self.head(),
            time,
            body,
        };
        let entry = sign(root, entry)?;
        self.apply_verified(&entry)?;
        Ok(entry)
    }

    fn apply_verified(&mut self, entry: &Verified<ListEntry>) -> Result<Applied, ListFault> {
        let body = entry.body();
        let hash = LogHash::from(entry.digest());
        if let Some(known) = self.hash_at(body.seq) {
            return match *known == hash {
                true => Ok(Applied::Known),
                false => Err(ListFault::Forked { seq: body.seq }),
            };
        }
        if body.seq != self.next_seq() {
            return Err(ListFault::Gap {
                expected: self.next_seq(),
            });
        }
        if body.prev != self.head() {
            return Err(ListFault::Forked {
                seq: body.seq.saturating_sub(1),
            });
        }
        if self.hashes.len() >= LIST_ENTRIES_MAX {
            return Err(ListFault::Full);
        }
        let applied = match &body.body {
            ListBody::Card(card) => self.apply_card(card, body.time)?,
            ListBody::Revoke(revocation) => self.apply_revocation(revocation)?,
        };
        self.hashes.push(hash);
        Ok(applied)
    }

    fn apply_card(&mut self, card: &Card, time: Position) -> Result<Applied, ListFault> {
        let keys = card.verify(&self.user)?;
        if let Some(state) = self.devices.get_mut(&card.device) {
            if state.revoked.is_some() {
                return Err(ListFault::NoSuchDevice);
            }
            state.card = card.clone();
            state.keys = keys;
            return Ok(Applied::Renewed(card.device));
        }
        let standing = self.devices.values().filter(|d| d.revoked.is_none());
        if standing.count() >= DEVICES_MAX {
            return Err(ListFault::Full);
        }
        let state = DeviceState {
            card: card.clone(),
            keys,
            added: time,
            revoked: None,
        };
        self.devices.insert(card.device, state);
        Ok(Applied::Added(card.device))
    }

    fn apply_revocation(&mut self, revocation: &CardRevocation) -> Result<Applied, ListFault> {
        match self.devices.get_mut(&revocation.device) {
            Some(state) if state.revoked.is_none() => {
                state.revoked = Some(revocation.time);
                Ok(Applied::Revoked(revocation.device))
            }
            Some(_) | None => Err(ListFault::NoSuchDevice),
        }
    }

    /// Whose list it is.
    pub fn user(&self) -> UserId {
        self.user
    }

    /// Place of the entry that must come next; also the number of entries.
    pub fn next_seq(&self) -> u32 {
        u32::try_from(self.hashes.len()).unwrap_or(u32::MAX)
    }

    /// What to keep of this list; `None` while it is empty.
    pub fn pin(&self) -> Option<ListPin> {
        let hash = *self.hashes.last()?;
        Some(ListPin {
            seq: self.next_seq().saturating_sub(1),
            hash,
        })
    }

    /// Compares the list with what was kept of it earlier.
    ///
    /// # Errors
    ///
    /// Fails when the list does not reach the pinned entry, or has another in its place.
    pub fn check_pin(&self, pin: &ListPin) -> Result<(), ListFault> {
        match self.hash_at(pin.seq) {
            None => Err(ListFault::Shortened { seq: pin.seq }),
            Some(hash) if *hash != pin.hash => Err(ListFault::Forked { seq: pin.seq }),
            Some(_) => Ok(()),
        }
    }

    /// A device that the list names, revoked and expired ones too.
    pub fn device(&self, device: &DeviceId) -> Option<&DeviceState> {
        self.devices.get(device)
    }

    /// Every device that the list names, by id.
    pub fn devices(&self) -> impl Iterator<Item = (&DeviceId, &DeviceState)> {
        self.devices.iter()
    }

    /// The devices that are neither revoked nor expired, by id.
    pub fn live(&self, now: Position) -> impl Iterator<Item = (&DeviceId, &DeviceState)> {
        self.devices().filter(move |(_, state)| state.is_live(now))
    }

    /// The key that a device signs with, even when it is revoked or expired by now: what it signed
    /// before stays readable.
    pub fn sign_key(&self, device: &DeviceId) -> Option<VerifyingKey> {
        self.devices.get(device).map(|state| state.keys.sign_key)
    }

    fn head(&self) -> LogHash {
        self.hashes.last().copied().unwrap_or(NO_ENTRY)
    }

    fn hash_at(&self, seq: u32) -> Option<&LogHash> {
        self.hashes.get(usize::try_from(seq).ok()?)
    }
}

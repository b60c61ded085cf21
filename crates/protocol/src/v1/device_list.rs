//! The state that a user's device list adds up to, `spec/devices.md`.
//!
//! A pure function of the entries: no clock, no I/O.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use minicbor::{CborLen, Decode, Encode};
use sealcast_crypto::{SigningKey, VerifyingKey, WrapKey};

use crate::ids::{DeviceId, LogHash, Position, UserId};
use crate::signed::{Unverified, Verified, sign};
use crate::v1::device::{
    Card, CardError, CardRevocation, Checkpoint, CheckpointDevice, CheckpointStanding, HALF_LEN,
    ListBody, ListEntry, ListFault, NO_ENTRY, RevokedDevice,
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
    /// Half the hash of each entry, by its place.
    halves: Vec<[u8; HALF_LEN]>,
    /// The hash of the newest entry.
    head: LogHash,
    /// Entries up to the newest checkpoint, that one included.
    checkpointed: u32,
    devices: BTreeMap<DeviceId, DeviceState>,
}

/// A device that the list names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceState {
    /// Verifies what the device signs, or signed before it was revoked or expired.
    pub sign_key: VerifyingKey,
    /// First position at which its newest card is no longer valid.
    pub expires: Position,
    /// When its first card was written.
    pub added: Position,
    /// Since when it is revoked; `None` while it is not.
    pub revoked: Option<Position>,
    /// Its newest card; nothing once it is revoked.
    pub card: Option<Box<Card>>,
    /// Wraps what must outlive the device's absence; nothing once it is revoked.
    pub wrap_key: Option<WrapKey>,
}

impl DeviceState {
    /// Whether the device is neither revoked nor expired.
    pub fn is_live(&self, now: Position) -> bool {
        self.revoked.is_none() && now < self.expires
    }

    fn standing(user: &UserId, card: &Card, added: Position) -> Result<Self, CardError> {
        let keys = card.verify(user)?;
        Ok(Self {
            sign_key: keys.sign_key,
            expires: card.expires,
            added,
            revoked: None,
            card: Some(Box::new(card.clone())),
            wrap_key: Some(keys.wrap_key),
        })
    }

    fn of_checkpoint(user: &UserId, of: &CheckpointDevice) -> Result<Self, CardError> {
        let out = match &of.standing {
            CheckpointStanding::Stands(card) => return Self::standing(user, card, of.added),
            CheckpointStanding::Revoked(out) => out,
        };
        if of.device != DeviceId::derive(user, &out.sign_key) {
            return Err(CardError::DeviceId);
        }
        let sign_key = VerifyingKey::from_bytes(out.sign_key).map_err(|_| CardError::InvalidKey)?;
        Ok(Self {
            sign_key,
            expires: out.expires,
            added: of.added,
            revoked: Some(out.revoked),
            card: None,
            wrap_key: None,
        })
    }

    fn in_checkpoint(&self, device: DeviceId) -> CheckpointDevice {
        let standing = match (&self.card, self.revoked) {
            (Some(card), _) => CheckpointStanding::Stands(card.clone()),
            (None, revoked) => CheckpointStanding::Revoked(RevokedDevice {
                sign_key: *self.sign_key.as_bytes(),
                expires: self.expires,
                revoked: revoked.unwrap_or(Position::START),
            }),
        };
        CheckpointDevice {
            device,
            added: self.added,
            standing,
        }
    }

    /// Whether a checkpoint may have made this of what was known before: it takes nothing back.
    fn may_follow(&self, before: &Self) -> bool {
        let is_out = before.revoked.is_none() || before.revoked == self.revoked;
        self.sign_key == before.sign_key && self.added == before.added && is_out
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
    /// What the entries before came to was said once more, or, where some of them were not known,
    /// for the first time.
    Checkpoint,
}

/// The newest entry that was seen of a list: what a reader keeps between runs, so that a shorter
/// or forked list is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct ListPin {
    /// Place of the entry.
    #[n(0)]
    pub seq: u32,
    /// Half its hash.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub half: [u8; HALF_LEN],
}

impl CardList {
    /// An empty list.
    pub fn new(user: UserId) -> Self {
        Self {
            user,
            halves: Vec::new(),
            head: NO_ENTRY,
            checkpointed: 0,
            devices: BTreeMap::new(),
        }
    }

    /// Takes the next entry as it travels, or a later checkpoint. An entry that was taken before
    /// changes nothing.
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
            prev: self.head,
            time,
            body,
        };
        let entry = sign(root, entry)?;
        self.apply_verified(&entry)?;
        Ok(entry)
    }

    /// What the list comes to, to be appended; readers then need nothing that lies before it.
    pub fn checkpoint(&self) -> ListBody {
        let devices = self.devices.iter();
        ListBody::Checkpoint(Checkpoint {
            entries: self.halves.as_flattened().to_vec(),
            devices: devices.map(|(id, of)| of.in_checkpoint(*id)).collect(),
        })
    }

    fn apply_verified(&mut self, entry: &Verified<ListEntry>) -> Result<Applied, ListFault> {
        let body = entry.body();
        let (seq, hash) = (body.seq, LogHash::from(entry.digest()));
        if let Some(known) = self.half_at(seq) {
            return match *known == half(&hash) {
                true => Ok(Applied::Known),
                false => Err(ListFault::Forked { seq }),
            };
        }
        if usize::try_from(seq).is_ok_and(|seq| seq >= LIST_ENTRIES_MAX) {
            return Err(ListFault::Full);
        }
        if !matches!(body.body, ListBody::Checkpoint(_)) {
            self.check_next(body)?;
        }
        let applied = match &body.body {
            ListBody::Card(card) => self.apply_card(card, body.time)?,
            ListBody::Revoke(revocation) => self.apply_revocation(revocation)?,
            ListBody::Checkpoint(checkpoint) => self.apply_checkpoint(checkpoint, body)?,
        };
        self.halves.push(half(&hash));
        self.head = hash;
        Ok(applied)
    }

    fn check_next(&self, entry: &ListEntry) -> Result<(), ListFault> {
        let expected = self.next_seq();
        match entry.seq == expected {
            true => self.check_prev(entry),
            false => Err(ListFault::Gap { expected }),
        }
    }

    fn check_prev(&self, entry: &ListEntry) -> Result<(), ListFault> {
        match entry.prev == self.head {
            true => Ok(()),
            false => Err(ListFault::Forked {
                seq: entry.seq.saturating_sub(1),
            }),
        }
    }

    /// Takes what a checkpoint says for what is known, which it must not contradict.
    fn apply_checkpoint(
        &mut self,
        checkpoint: &Checkpoint,
        entry: &ListEntry,
    ) -> Result<Applied, ListFault> {
        let (halves, _) = checkpoint.entries.as_chunks::<HALF_LEN>();
        let twin = self.halves.iter().zip(halves).position(|(a, b)| a != b);
        if let Some(seq) = twin.and_then(|at| u32::try_from(at).ok()) {
            return Err(ListFault::Forked { seq });
        }
        if halves.last() != Some(&half(&entry.prev)) {
            return Err(ListFault::Contradicted { seq: entry.seq });
        }
        let devices = checkpoint.devices.iter();
        let devices = devices.map(|of| {
            let state = DeviceState::of_checkpoint(&self.user, of)?;
            Ok::<_, ListFault>((of.device, state))
        });
        let devices = devices.collect::<Result<BTreeMap<_, _>, _>>()?;
        let is_true = match entry.seq == self.next_seq() {
            true => self.check_prev(entry).map(|()| devices == self.devices)?,
            false => {
                let mut known = self.devices.iter();
                known.all(|(id, of)| devices.get(id).is_some_and(|new| new.may_follow(of)))
            }
        };
        if !is_true {
            return Err(ListFault::Contradicted { seq: entry.seq });
        }
        if devices.values().filter(|of| of.revoked.is_none()).count() > DEVICES_MAX {
            return Err(ListFault::Full);
        }
        self.halves = halves.to_vec();
        self.devices = devices;
        self.checkpointed = entry.seq.saturating_add(1);
        Ok(Applied::Checkpoint)
    }

    fn apply_card(&mut self, card: &Card, time: Position) -> Result<Applied, ListFault> {
        let state = DeviceState::standing(&self.user, card, time)?;
        if let Some(known) = self.devices.get_mut(&card.device) {
            if known.revoked.is_some() {
                return Err(ListFault::NoSuchDevice);
            }
            let added = known.added;
            *known = DeviceState { added, ..state };
            return Ok(Applied::Renewed(card.device));
        }
        let standing = self.devices.values().filter(|d| d.revoked.is_none());
        if standing.count() >= DEVICES_MAX {
            return Err(ListFault::Full);
        }
        self.devices.insert(card.device, state);
        Ok(Applied::Added(card.device))
    }

    fn apply_revocation(&mut self, revocation: &CardRevocation) -> Result<Applied, ListFault> {
        match self.devices.get_mut(&revocation.device) {
            Some(state) if state.revoked.is_none() => {
                state.revoked = Some(revocation.time);
                state.card = None;
                state.wrap_key = None;
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
        u32::try_from(self.halves.len()).unwrap_or(u32::MAX)
    }

    /// Place of the newest checkpoint: nothing before it is needed.
    pub fn newest_checkpoint(&self) -> Option<u32> {
        self.checkpointed.checked_sub(1)
    }

    /// Entries since the newest checkpoint.
    pub fn since_checkpoint(&self) -> u32 {
        self.next_seq().saturating_sub(self.checkpointed)
    }

    /// What to keep of this list; `None` while it is empty.
    pub fn pin(&self) -> Option<ListPin> {
        let half = *self.halves.last()?;
        let seq = self.next_seq().checked_sub(1)?;
        Some(ListPin { seq, half })
    }

    /// The hash of the newest entry, which the next one names; zero while there is none.
    pub fn head(&self) -> LogHash {
        self.head
    }

    /// Compares the list with what was kept of it earlier.
    ///
    /// # Errors
    ///
    /// Fails when the list does not reach the pinned entry, or has another in its place.
    pub fn check_pin(&self, pin: &ListPin) -> Result<(), ListFault> {
        match self.half_at(pin.seq) {
            None => Err(ListFault::Shortened { seq: pin.seq }),
            Some(known) if *known != pin.half => Err(ListFault::Forked { seq: pin.seq }),
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
        self.devices.get(device).map(|state| state.sign_key)
    }

    fn half_at(&self, seq: u32) -> Option<&[u8; HALF_LEN]> {
        self.halves.get(usize::try_from(seq).ok()?)
    }
}

fn half(hash: &LogHash) -> [u8; HALF_LEN] {
    hash.0.first_chunk().copied().unwrap_or_default()
}

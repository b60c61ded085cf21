//! Device lists, `spec/devices.md`.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use sealcast_crypto::SecretBytes;
use sealcast_protocol::{
    Applied, CardList, DeviceId, ListEntry, ListFault, Position, Unverified, UserId, wrap_key_hash,
};

use super::delivered::KeyNow;
use super::{Alarm, ControlTopic, Output, StreamView};
use crate::persist::{Space, persisted};

/// Entries of one list that wait for others, at most. The root key signed them.
const AHEAD_MAX: usize = 64;

/// Entries of device lists that came before others that they follow.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    entries: BTreeMap<(UserId, u32), Vec<u8>>,
    /// The last places of entries that found no room to wait.
    turned_away: BTreeMap<UserId, u32>,
    /// Users of whom it was told.
    told: BTreeSet<UserId>,
}

impl StreamView {
    pub(super) fn take_list_entry(&mut self, user: &UserId, bytes: &[u8]) {
        let Ok(entry) = Unverified::<ListEntry>::decode(bytes) else {
            return self.tell_unreadable(ControlTopic::Devices(*user), bytes);
        };
        let (seq, time) = (entry.claims().seq, entry.claims().time);
        if !self.apply_list_entry(user, seq, time, bytes) {
            return;
        }
        while let Some(next) = self.lists.get(user).map(CardList::next_seq)
            && let Some(bytes) = self.ahead.entries.remove(&(*user, next))
        {
            let Ok(entry) = Unverified::<ListEntry>::decode(&bytes) else {
                return;
            };
            let time = entry.claims().time;
            if !self.apply_list_entry(user, next, time, &bytes) {
                return;
            }
        }
    }

    /// Returns whether the list has grown.
    fn apply_list_entry(&mut self, user: &UserId, seq: u32, time: Position, bytes: &[u8]) -> bool {
        let list = self.lists.entry(*user);
        let list = list.or_insert_with(|| CardList::new(*user));
        match list.apply(bytes) {
            Ok(Applied::Known) | Err(ListFault::Malformed(_)) => return false,
            Ok(Applied::Added(device)) => self.add_device(user, device),
            Ok(Applied::Renewed(device)) => self.note_key(user, device, time),
            Ok(Applied::Revoked(_)) => (),
            Ok(Applied::Checkpoint) => self.take_checkpoint(user, seq, time),
            Err(ListFault::Gap { .. }) => {
                self.wait_for_list(user, seq, bytes);
                return false;
            }
            Err(fault) => {
                if matches!(fault, ListFault::OtherUser | ListFault::BadSignature) {
                    self.tell_forged(ControlTopic::Devices(*user));
                    return false;
                }
                let is_forked = matches!(
                    fault,
                    ListFault::Forked { .. } | ListFault::Contradicted { .. }
                );
                let alarm = match is_forked {
                    true => Alarm::ListForked(*user),
                    false => Alarm::ListUnsound(*user),
                };
                self.outputs.push_back(Output::Tell(alarm));
                return false;
            }
        }
        self.revision += 1;
        let id = persisted(&[&user.0, &seq.to_be_bytes()]);
        self.persist(Space::ListEntry, id, SecretBytes::from(bytes.to_vec()));
        true
    }

    fn add_device(&mut self, user: &UserId, device: DeviceId) {
        self.users.insert(device, *user);
        self.added.insert(device);
        self.note_key(user, device, Position::START);
    }

    /// A checkpoint may name devices whose own entries were never seen.
    fn take_checkpoint(&mut self, user: &UserId, seq: u32, time: Position) {
        let is_behind = |of: &(UserId, u32)| of.0 == *user && of.1 <= seq;
        self.ahead.entries.retain(|of, _| !is_behind(of));
        let list = self.lists.get(user).into_iter();
        let devices: Vec<_> = list
            .flat_map(|of| of.devices().map(|(id, _)| *id))
            .collect();
        for device in devices {
            match self.users.contains_key(&device) {
                true => self.note_key(user, device, time),
                false => self.add_device(user, device),
            }
        }
    }

    fn wait_for_list(&mut self, user: &UserId, seq: u32, bytes: &[u8]) {
        let entries = &mut self.ahead.entries;
        if entries.range((*user, 0)..=(*user, u32::MAX)).count() < AHEAD_MAX {
            entries.insert((*user, seq), bytes.to_vec());
        } else {
            let last = self.ahead.turned_away.entry(*user).or_insert(seq);
            *last = seq.max(*last);
        }
    }

    /// Users of whose device lists the bus hides entries. How far their topics were read must not
    /// be recorded.
    pub fn hidden_lists(&self) -> BTreeSet<UserId> {
        let waiting = self.ahead.entries.keys().map(|(user, _)| *user);
        let turned_away = self.ahead.turned_away.iter().filter(|(user, last)| {
            let next = self.lists.get(user).map_or(0, CardList::next_seq);
            next <= **last
        });
        waiting.chain(turned_away.map(|(user, _)| *user)).collect()
    }

    /// Whether a user wrote entries that follow what the bus does not show.
    pub(crate) fn has_hidden_entries(&self, user: &UserId) -> bool {
        let waiting = self.pending.iter();
        let mut waiting = waiting.filter(|(hash, of)| of.user == *user && !self.log.contains(hash));
        waiting.any(|(_, of)| !self.is_card_revoked(&of.user, &of.device))
    }

    /// The topics were read to their ends: what still waits follows what the bus does not show.
    pub(super) fn tell_hidden(&mut self) {
        for user in self.hidden_lists() {
            if self.ahead.told.insert(user) {
                let alarm = Alarm::ListHidden(user);
                self.outputs.push_back(Output::Tell(alarm));
            }
        }
    }

    /// Notes the wrapping key of a device, and since when it has that one.
    fn note_key(&mut self, user: &UserId, device: DeviceId, since: Position) {
        let of = self.lists.get(user).and_then(|list| list.device(&device));
        if let Some(hash) = of.and_then(|of| of.wrap_key.as_ref()).map(wrap_key_hash)
            && self
                .keys_now
                .get(&device)
                .is_none_or(|now| now.hash != hash)
        {
            self.keys_now.insert(device, KeyNow { hash, since });
        }
    }
}

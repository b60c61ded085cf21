//! By what the keys topic was read, `spec/home.md`, section "How far a topic was read".

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use sealcast_crypto::digest;
use sealcast_protocol::{CardList, Interval, Position, UserId};

use super::StreamView;

const LABEL: &str = "sealcast.v1 keys read by";
const DIGEST_LEN: usize = 32;
/// Segments of fewer milliseconds may count as not ended in another run: they end soon.
const COARSE_MS: u64 = 1 << 22;

/// What believing and holding items of the keys topic rests on. A store keeps it with how far that topic was read, for a
/// run that begins with other knowledge than the reading had: another one of the home may have gained that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadBy {
    digest: [u8; DIGEST_LEN],
    over: Position,
}

impl ReadBy {
    /// Bytes of its form in a store.
    pub const LEN: usize = DIGEST_LEN + 8;

    /// The form in which a store keeps it.
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let (digest, over) = bytes.split_at_mut(DIGEST_LEN);
        digest.copy_from_slice(&self.digest);
        over.copy_from_slice(&self.over.0.to_be_bytes());
        bytes
    }

    /// Reads what [`to_bytes`](Self::to_bytes) made.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LEN] = bytes.try_into().ok()?;
        let (digest, over) = bytes.split_first_chunk()?;
        Some(Self {
            digest: *digest,
            over: Position(u64::from_be_bytes(over.try_into().ok()?)),
        })
    }
}

impl StreamView {
    /// By what the keys topic counts as read, where nothing is [owed](Self::owes_reread).
    pub fn read_by(&self) -> ReadBy {
        let mut bytes = Vec::new();
        let in_force = self.state.key_nodes().map(|(entry, _)| entry.0);
        bytes.extend(in_force.unwrap_or_default());
        let were_named = !self.state.newest_key_nodes().is_empty();
        let own = (!self.announcers.contains(&self.user)).then_some(&self.user);
        for user in self.announcers.iter().chain(own) {
            bytes.extend(user.0);
            bytes.push(u8::from(self.announcers.contains(user)));
            bytes.push(u8::from(self.regained.contains(user)));
            let devices = self.lists.get(user).into_iter();
            let devices: Vec<_> = devices.flat_map(CardList::devices).collect();
            bytes.extend((devices.len() as u64).to_be_bytes());
            devices.iter().for_each(|(id, _)| bytes.extend(id.0));
            let readable = match were_named {
                true => self.segments.readable(user),
                false => &[],
            };
            bytes.extend((readable.len() as u64).to_be_bytes());
            for Interval { from, until } in readable {
                bytes.extend(from.0.to_be_bytes());
                bytes.extend(until.0.to_be_bytes());
            }
        }
        ReadBy {
            digest: *digest(LABEL, &[&bytes]).as_bytes(),
            over: Position(self.segments.over().0 & !(COARSE_MS - 1)),
        }
    }

    /// Tells a view that took back all that was kept by what the keys topic was read: it is read again where that was
    /// something else.
    pub fn restore_read_by(&mut self, by: Option<&ReadBy>) {
        let digest = self.read_by().digest;
        self.needs_reread |= by.is_none_or(|by| by.digest != digest);
        if let Some(by) = by {
            self.segments.restore_over(by.over);
        }
    }

    /// Has the keys read again where somebody may publish now of whom they may have been passed over.
    pub(super) fn note_announcers(&mut self, before: &BTreeSet<UserId>) {
        for user in self.announcers.difference(before) {
            self.segments.owe_if_missed(*user, self.is_restored);
        }
    }
}

//! By what the keys topic was read, `spec/home.md`, section "How far a topic was read".

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use sealcast_crypto::digest;
use sealcast_protocol::{CardList, DeviceId, Interval, LogHash, Position, UserId};

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

    /// By what a reading goes for which these users count, in any order, while these key nodes are in force.
    pub fn of(key_nodes: Option<LogHash>, mut users: Vec<KnownUser<'_>>, over: Position) -> Self {
        let mut bytes = Vec::new();
        bytes.extend(key_nodes.map(|entry| entry.0).unwrap_or_default());
        users.sort_unstable_by_key(|known| (!known.gives, known.user));
        for known in &mut users {
            known.devices.sort_unstable();
            known.write(&mut bytes);
        }
        Self {
            digest: *digest(LABEL, &[&bytes]).as_bytes(),
            over: Position(over.0 & !(COARSE_MS - 1)),
        }
    }

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

/// One of those by whom the keys topic is read: the owner, each who has or had a grant to publish or administer, and
/// this device's user.
#[derive(Clone, Debug)]
pub struct KnownUser<'a> {
    /// Its id.
    pub user: UserId,
    /// Whether its keys may count; not of one who only reads.
    pub gives: bool,
    /// Whether it lost such a grant, or a device, and may give again.
    pub regained: bool,
    /// All in its list, revoked and expired ones too.
    pub devices: Vec<DeviceId>,
    /// What the log lets this device read of its lane, ascending; nothing where key nodes were never named, or where it
    /// gives nothing.
    pub readable: &'a [Interval],
}

impl KnownUser<'_> {
    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend(self.user.0);
        bytes.push(u8::from(self.gives));
        bytes.push(u8::from(self.regained));
        bytes.extend((self.devices.len() as u64).to_be_bytes());
        self.devices.iter().for_each(|id| bytes.extend(id.0));
        bytes.extend((self.readable.len() as u64).to_be_bytes());
        for Interval { from, until } in self.readable {
            bytes.extend(from.0.to_be_bytes());
            bytes.extend(until.0.to_be_bytes());
        }
    }
}

impl StreamView {
    /// By what the keys topic counts as read, where nothing is [owed](Self::owes_reread).
    pub fn read_by(&self) -> ReadBy {
        let were_named = !self.state.newest_key_nodes().is_empty();
        let own = (!self.announcers.contains(&self.user)).then_some(&self.user);
        let users = self.announcers.iter().chain(own).map(|user| {
            let devices = self.lists.get(user).into_iter();
            let devices = devices.flat_map(CardList::devices);
            KnownUser {
                user: *user,
                gives: self.announcers.contains(user),
                regained: self.regained.contains(user),
                devices: devices.map(|(id, _)| *id).collect(),
                readable: match were_named {
                    true => self.segments.readable(user),
                    false => &[],
                },
            }
        });
        let in_force = self.state.key_nodes().map(|(entry, _)| entry);
        ReadBy::of(in_force, users.collect(), self.segments.over())
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

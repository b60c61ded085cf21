//! Entries that are held back: those that say that they were written when their author's card was revoked,
//! `spec/reading.md`, section "Control objects".

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use sealcast_protocol::{
    DeviceId, GrantState, LogBody, LogEntry, LogHash, Standing, Targets, UserId, Verified,
};

use super::StreamView;

/// Entries of devices with revoked cards that are held back, at most.
const HELD_BACK_MAX: usize = 4096;

/// Who wrote an entry that waits, and what it names.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) user: UserId,
    pub(super) device: DeviceId,
    named: Vec<LogHash>,
    frees_nobody: bool,
}

impl Pending {
    pub(super) fn of(entry: &LogEntry) -> Self {
        Self {
            user: entry.user,
            device: entry.device,
            named: named(entry).collect(),
            frees_nobody: frees_nobody(entry),
        }
    }
}

impl StreamView {
    /// Whether an entry says that it was written when its author's card was revoked.
    pub(super) fn is_after_card(&self, entry: &LogEntry) -> bool {
        let list = self.lists.get(&entry.user);
        let of = list.and_then(|list| list.device(&entry.device));
        of.and_then(|of| of.revoked)
            .is_some_and(|out| out <= entry.time)
    }

    /// Holds an entry back until the log itself judges its author's device.
    pub(super) fn hold_back(&mut self, entry: Verified<LogEntry>) -> bool {
        let hash = LogHash::from(entry.digest());
        let is_known = self.log.contains(&hash) || self.held_back.contains_key(&hash);
        if is_known || self.held_back.len() >= HELD_BACK_MAX {
            return false;
        }
        self.held_back.insert(hash, entry);
        self.is_stale = true;
        true
    }

    /// Lets entries in whose author's device the log has judged, or that rulers rest on.
    pub(super) fn release(&mut self) {
        self.pending.retain(|hash, _| !self.log.contains(hash));
        let pending = self.pending.values();
        let rested_on = pending.filter(|of| self.may_rule(&of.user, &of.device));
        let mut wanted: Vec<_> = rested_on.flat_map(|of| &of.named).copied().collect();
        let is_judged = |entry: &Verified<LogEntry>| {
            self.is_out_by_log(&entry.body().user, &entry.body().device)
        };
        let judged = self.held_back.iter().filter(|(_, of)| is_judged(of));
        let judged: Vec<_> = judged.map(|(hash, _)| *hash).collect();
        let mut seen = BTreeSet::new();
        while let Some(hash) = wanted.pop() {
            if !seen.insert(hash) {
                continue;
            }
            match (self.held_back.get(&hash), self.pending.get(&hash)) {
                (Some(entry), _) => wanted.extend(named(entry.body())),
                (None, Some(of)) => wanted.extend(&of.named),
                (None, None) => (),
            }
        }
        for hash in judged.into_iter().chain(seen) {
            if let Some(entry) = self.held_back.remove(&hash) {
                self.insert_entry(entry);
            }
        }
    }

    fn is_out_by_log(&self, user: &UserId, device: &DeviceId) -> bool {
        let of_user = self
            .state
            .grants()
            .iter()
            .filter(|of| of.grant.user == *user);
        let mut counted = of_user
            .filter(|of| of.standing != Standing::Void)
            .peekable();
        let is_taken =
            |of: &GrantState| of.standing != Standing::Counts || of.devices_lost.contains(device);
        self.state.is_out(user, device) || (counted.peek().is_some() && counted.all(is_taken))
    }

    /// Whether entries are known here with their whole past, so that judging as they were judged elsewhere takes no more
    /// from anybody. One that is held back counts as known where nobody else may read more without it: or else whoever may
    /// write such a one has everybody wait for what is never linked here, by revoking its own card.
    pub(crate) fn knows(&self, entries: &[LogHash]) -> bool {
        let (mut wanted, mut seen) = (entries.to_vec(), BTreeSet::new());
        while let Some(hash) = wanted.pop() {
            if self.log.contains(&hash) || !seen.insert(hash) {
                continue;
            }
            match (self.held_back.get(&hash), self.pending.get(&hash)) {
                (Some(entry), _) if frees_nobody(entry.body()) => {
                    wanted.extend(named(entry.body()));
                }
                (None, Some(of)) if of.frees_nobody => wanted.extend(&of.named),
                (Some(_), _) | (None, Some(_) | None) => return false,
            }
        }
        true
    }
}

/// Whether nobody may read more where an entry is void, but who wrote it.
fn frees_nobody(entry: &LogEntry) -> bool {
    match &entry.body {
        LogBody::Grant(_) | LogBody::Approve(_) => true,
        LogBody::Revoke(revoke) => match &revoke.targets {
            Targets::Devices(devices) => devices.iter().all(|of| of.user == entry.user),
            Targets::Grants(_) | Targets::Users(_) => false,
        },
        LogBody::Genesis(_) | LogBody::Settings(_) | LogBody::KeyNodes(_) | LogBody::Close => false,
    }
}

fn named(entry: &LogEntry) -> impl Iterator<Item = LogHash> {
    let prev = (entry.seq > 0).then_some(entry.prev);
    prev.into_iter().chain(entry.heads.iter().copied())
}

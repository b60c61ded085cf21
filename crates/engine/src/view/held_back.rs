//! Entries that are held back: those that say that they were written when their author's card was revoked,
//! `spec/reading.md`, section "Control objects".

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use sealcast_protocol::{
    DeviceId, DeviceTarget, GrantState, LogBody, LogEntry, LogHash, Standing, Targets, UserId,
    Verified,
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
    /// The author's own devices that it takes out, with proofs, if it does nothing else.
    takes_out: Vec<DeviceId>,
}

/// What is known of entries that are not linked.
#[derive(Debug, Default)]
pub(super) struct Outside {
    /// Those that change nothing for anybody but the devices that they take out.
    known: BTreeSet<LogHash>,
    /// These devices.
    taken_out: BTreeSet<(UserId, DeviceId)>,
}

impl Outside {
    pub(super) fn takes_out(&self, user: &UserId, device: &DeviceId) -> bool {
        self.taken_out.contains(&(*user, *device))
    }
}

impl Pending {
    pub(super) fn of(entry: &LogEntry) -> Self {
        Self {
            user: entry.user,
            device: entry.device,
            named: named(entry).collect(),
            takes_out: own_targets(entry),
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
        let pending = Pending::of(entry.body());
        self.held_back.insert(hash, (entry, pending));
        self.is_stale = true;
        true
    }

    /// Lets entries in whose author's device the log has judged, or that rulers rest on.
    pub(super) fn release(&mut self) {
        self.pending.retain(|hash, _| !self.log.contains(hash));
        let pending = self.pending.values();
        let rested_on = pending.filter(|of| self.may_rule(&of.user, &of.device));
        let mut wanted: Vec<_> = rested_on.flat_map(|of| &of.named).copied().collect();
        let is_judged = |of: &Pending| self.is_out_by_log(&of.user, &of.device);
        let judged = self.held_back.iter().filter(|(_, (_, of))| is_judged(of));
        let judged: Vec<_> = judged.map(|(hash, _)| *hash).collect();
        let mut seen = BTreeSet::new();
        while let Some(hash) = wanted.pop() {
            if !seen.insert(hash) {
                continue;
            }
            match (self.held_back.get(&hash), self.pending.get(&hash)) {
                (Some((_, of)), _) | (None, Some(of)) => wanted.extend(&of.named),
                (None, None) => (),
            }
        }
        for hash in judged.into_iter().chain(seen) {
            if let Some((entry, _)) = self.held_back.remove(&hash) {
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

    /// Finds out which entries that are not linked change nothing for anybody but devices that they take out, and these
    /// are out: who may read and no more takes out devices of its own, and writes nothing else that counts.
    pub(super) fn note_outside(&mut self) {
        let held_back = self.held_back.iter().map(|(hash, (_, of))| (hash, of));
        let outside = held_back.chain(&self.pending);
        let outside = outside
            .filter(|(hash, of)| self.log.is_reader_alone(&of.user) && !self.log.contains(hash));
        let outside: BTreeMap<_, _> = outside.collect();
        let (mut lacking, mut followers) = (BTreeMap::new(), BTreeMap::<_, Vec<_>>::new());
        let mut ready = Vec::new();
        for (hash, of) in &outside {
            let lacks = of.named.iter().filter(|named| !self.log.contains(named));
            let lacks = lacks.map(|named| followers.entry(*named).or_default().push(**hash));
            match lacks.count() {
                0 => ready.push(**hash),
                count => drop(lacking.insert(**hash, count)),
            }
        }
        let mut found = Outside::default();
        while let Some(hash) = ready.pop() {
            if let Some(of) = outside.get(&hash) {
                let out = of.takes_out.iter().map(|device| (of.user, *device));
                found.taken_out.extend(out);
            }
            found.known.insert(hash);
            for follower in followers.remove(&hash).unwrap_or_default() {
                if let Some(count) = lacking.get_mut(&follower) {
                    *count -= 1;
                    if *count == 0 {
                        ready.push(follower);
                    }
                }
            }
        }
        self.outside = found;
    }

    /// Whether entries are known here with their whole past, so that judging as they were judged elsewhere takes no more
    /// from anybody. If those that change nothing for others were waited for, whoever may read could have everybody wait
    /// for what is never linked here, by revoking the card that it wrote one with.
    pub(crate) fn knows(&self, entries: &[LogHash]) -> bool {
        let mut entries = entries.iter();
        entries.all(|entry| self.log.contains(entry) || self.outside.known.contains(entry))
    }
}

/// The devices of its author that an entry takes out, where it does nothing else and shows that they are out.
fn own_targets(entry: &LogEntry) -> Vec<DeviceId> {
    let LogBody::Revoke(revoke) = &entry.body else {
        return Vec::new();
    };
    let Targets::Devices(targets) = &revoke.targets else {
        return Vec::new();
    };
    let is_own = |of: &DeviceTarget| of.user == entry.user && of.is_proven();
    match targets.iter().all(is_own) {
        true => targets.iter().map(|of| of.device).collect(),
        false => Vec::new(),
    }
}

fn named(entry: &LogEntry) -> impl Iterator<Item = LogHash> {
    let prev = (entry.seq > 0).then_some(entry.prev);
    prev.into_iter().chain(entry.heads.iter().copied())
}

//! What opens by now, of what waits.

use alloc::vec::Vec;

use super::Parking;
use super::{BTreeSet, DeviceId, Position, SessionId, StreamView};
use crate::read::Reopened;

#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) numbers: BTreeSet<u64>,
    /// What was known when it was looked at.
    seen: Option<Seen>,
}

/// What opening an envelope of a session depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    is_announced: bool,
    has_root: bool,
    covers: usize,
    rights: u64,
}

impl Parking {
    /// Finds what may open by what a view knows now. Where nothing was learned since the last look,
    /// it costs a glance at each session, however much waits in it.
    pub fn look(&mut self, view: &StreamView) {
        self.is_new = false;
        for ((device, session), group) in &mut self.sessions {
            let now = Seen::of(view, session, device);
            let before = group.seen.replace(now);
            if before == Some(now) {
                continue;
            }
            let has_new_keys = before.is_none_or(|of| of.has_other_keys_than(&now));
            for number in &group.numbers {
                let Some(entry) = self.entries.get(number).filter(|of| !of.is_taken) else {
                    continue;
                };
                let is_due = (has_new_keys || !entry.has_failed) && entry.may_open(view);
                if is_due && self.due.insert(*number) {
                    *self.due_devices.entry(*device).or_default() += 1;
                }
            }
        }
    }

    /// Whether to [`look`](Self::look), because what waits was read anew, or keys failed on it.
    pub fn wants_look(&self) -> bool {
        self.is_new && !self.is_empty()
    }

    /// Leaves what was sealed before a position where it is, though it may open.
    pub fn leave_before(&mut self, from: Position) {
        let due = self.due.iter();
        let is_before = |number: &&u64| {
            let entry = self.entries.get(number);
            entry.is_some_and(|of| of.header.position < from)
        };
        let before: Vec<_> = due.filter(is_before).copied().collect();
        for number in before {
            let device = self.entries.get(&number).map(|of| of.header.device);
            if let Some(device) = device {
                self.not_due(number, &device);
            }
        }
    }

    /// Whether anything may open.
    pub fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Whether anything of a device may open that was not taken yet. What came from it since comes
    /// behind that.
    pub fn is_due(&self, device: &DeviceId) -> bool {
        self.due_devices.contains_key(device)
    }

    /// Takes some of what may open, in the order in which it came: at least one envelope, and no
    /// more bytes than these otherwise.
    pub fn take_due(&mut self, count_max: usize, bytes_max: u64) -> Vec<u64> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while let Some(number) = self.due.first().copied() {
            let Some(entry) = self.entries.get_mut(&number) else {
                self.due.remove(&number);
                continue;
            };
            bytes += u64::from(entry.of.len);
            if !taken.is_empty() && (taken.len() >= count_max || bytes > bytes_max) {
                break;
            }
            entry.is_taken = true;
            let device = entry.header.device;
            self.not_due(number, &device);
            taken.push(number);
        }
        taken
    }

    /// Notes what became of an envelope that was taken, where it waits on. Where no key opens it,
    /// its key is missing still, and it is not due again before others have come.
    pub fn put_back(&mut self, number: u64, reopened: Reopened) {
        if reopened == Reopened::Done {
            return;
        }
        if let Some(entry) = self.entries.get_mut(&number) {
            entry.is_taken = false;
            entry.has_failed = reopened == Reopened::NoKey;
            self.is_new |= entry.has_failed;
        }
    }

    /// Notes that envelopes that were taken could not be looked at: they are due again.
    pub fn take_back(&mut self, numbers: &[u64]) {
        for number in numbers {
            if let Some(entry) = self.entries.get_mut(number) {
                entry.is_taken = false;
                let device = entry.header.device;
                if self.due.insert(*number) {
                    *self.due_devices.entry(device).or_default() += 1;
                }
            }
        }
    }
}

impl Seen {
    fn of(view: &StreamView, session: &SessionId, device: &DeviceId) -> Self {
        Self {
            is_announced: view.record(session, device).is_some(),
            has_root: view.root(session).is_some(),
            covers: view.covers_moved(session).0,
            rights: view.revision(),
        }
    }

    fn has_other_keys_than(&self, other: &Self) -> bool {
        (self.has_root, self.covers) != (other.has_root, other.covers)
    }
}

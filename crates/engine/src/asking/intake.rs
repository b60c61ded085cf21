//! Requests whose signatures nobody has checked, each claimed device's apart from the others'.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};

use sealcast_protocol::{DeviceId, RequestId, Solicitation, Unverified};

/// Requests of one claimed device that wait, at most.
const OF_ONE_MAX: usize = 8;
/// Bytes of all that wait, at most.
const BYTES_MAX: usize = 16 << 20;

/// A request as it came, and how long it is.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) item: Box<Unverified<Solicitation>>,
    pub(super) len: usize,
}

/// Takes turns among the devices that requests say they are from, so that whoever sends many waits
/// for itself alone.
#[derive(Debug, Default)]
pub(super) struct Intake {
    queues: BTreeMap<DeviceId, VecDeque<Incoming>>,
    /// Those with something in their queue, in the order of their turns.
    turns: VecDeque<DeviceId>,
    /// How many wait under each id.
    ids: BTreeMap<(DeviceId, RequestId), usize>,
    bytes: usize,
}

impl Incoming {
    /// Under which id it says that it is known.
    pub(super) fn id(&self) -> (DeviceId, RequestId) {
        (self.item.claims().device, self.item.claims().request)
    }
}

impl Intake {
    /// Lets a request wait. It is dropped where there is no room, or the same one waits.
    pub(super) fn push(&mut self, of: DeviceId, incoming: Incoming) {
        let queue = self.queues.get(&of);
        let is_full = queue.is_some_and(|queue| queue.len() >= OF_ONE_MAX);
        let is_known = queue.is_some_and(|queue| {
            let digest = incoming.item.digest();
            queue.iter().any(|of| of.item.digest() == digest)
        });
        if is_full || is_known || self.bytes + incoming.len > BYTES_MAX {
            return;
        }
        if queue.is_none() {
            self.turns.push_back(of);
        }
        self.bytes += incoming.len;
        *self.ids.entry(incoming.id()).or_default() += 1;
        self.queues.entry(of).or_default().push_back(incoming);
    }

    /// Takes the next one out.
    pub(super) fn pop(&mut self) -> Option<Incoming> {
        let of = self.turns.pop_front()?;
        let queue = self.queues.get_mut(&of)?;
        let next = queue.pop_front();
        match queue.is_empty() {
            true => {
                self.queues.remove(&of);
            }
            false => self.turns.push_back(of),
        }
        let next = next?;
        self.bytes -= next.len;
        let id = next.id();
        if let Some(count) = self.ids.get_mut(&id) {
            *count -= 1;
            if *count == 0 {
                self.ids.remove(&id);
            }
        }
        Some(next)
    }

    /// Whether a request waits under an id.
    pub(super) fn has(&self, id: &(DeviceId, RequestId)) -> bool {
        self.ids.contains_key(id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.queues.values().map(VecDeque::len).sum()
    }
}

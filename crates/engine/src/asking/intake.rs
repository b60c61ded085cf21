//! Requests whose signatures nobody has checked, each claimed device's apart from the others'.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};

use sealcast_protocol::{DeviceId, NodeRequest, RequestId, Signable, Solicitation, Unverified};

/// Requests of one claimed device that wait, at most.
const OF_ONE_MAX: usize = 8;
/// Bytes of all that wait, at most.
const BYTES_MAX: usize = 16 << 20;

/// What a device asks for, and is answered.
pub(crate) trait Asks: Signable {
    /// Under which id it says that it is known.
    fn id(&self) -> (DeviceId, RequestId);
}

impl Asks for Solicitation {
    fn id(&self) -> (DeviceId, RequestId) {
        (self.device, self.request)
    }
}

impl Asks for NodeRequest {
    fn id(&self) -> (DeviceId, RequestId) {
        (self.device, self.request)
    }
}

/// A request as it came, and how long it is.
#[derive(Debug)]
pub(crate) struct Incoming<T> {
    pub(crate) item: Box<Unverified<T>>,
    pub(crate) len: usize,
}

/// Takes turns among the devices that requests say they are from, so that whoever sends many waits
/// for itself alone.
#[derive(Debug)]
pub(crate) struct Intake<T> {
    queues: BTreeMap<DeviceId, VecDeque<Incoming<T>>>,
    /// Those with something in their queue, in the order of their turns.
    turns: VecDeque<DeviceId>,
    /// How many wait under each id.
    ids: BTreeMap<(DeviceId, RequestId), usize>,
    bytes: usize,
}

impl<T: Asks> Incoming<T> {
    /// Under which id it says that it is known.
    pub(crate) fn id(&self) -> (DeviceId, RequestId) {
        self.item.claims().id()
    }
}

impl<T> Default for Intake<T> {
    fn default() -> Self {
        Self {
            queues: BTreeMap::new(),
            turns: VecDeque::new(),
            ids: BTreeMap::new(),
            bytes: 0,
        }
    }
}

impl<T: Asks> Intake<T> {
    /// Lets a request wait. It is dropped where there is no room, or the same one waits.
    pub(crate) fn push(&mut self, of: DeviceId, incoming: Incoming<T>) {
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
    pub(crate) fn pop(&mut self) -> Option<Incoming<T>> {
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
    pub(crate) fn has(&self, id: &(DeviceId, RequestId)) -> bool {
        self.ids.contains_key(id)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.queues.values().map(VecDeque::len).sum()
    }
}

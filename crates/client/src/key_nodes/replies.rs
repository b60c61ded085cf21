//! What a key node has to say, on its way to each who asked by itself.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sealcast_protocol::{DeviceId, Position};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::counts::Counts;
use crate::asking::PAUSE;
use crate::core::{Core, lock};
use crate::error::Error;
use crate::home::topic;

/// Replies that wait for one device, and for all, at most.
const OF_ONE_MAX: usize = 16;
const ALL_MAX: usize = 4_096;
/// How long a bus has to take a reply, before it is tried again.
const TAKEN_WITHIN: Duration = Duration::from_secs(10);

/// Replies on their way. An inbox that takes nothing holds up what is for it alone, until it is of no use
/// any more.
#[derive(Debug)]
pub(super) struct Replies {
    core: Arc<Core>,
    counts: Arc<Counts>,
    queues: Arc<Mutex<Queues>>,
    tasks: JoinSet<()>,
}

/// By whom they are for. There is a task for each that is here.
#[derive(Debug, Default)]
struct Queues {
    all: BTreeMap<DeviceId, VecDeque<Reply>>,
    count: usize,
}

/// Something that is to be said.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) wire: Vec<u8>,
    /// When nobody waits for it any more.
    pub(super) expires: Position,
    /// How many segments it releases, where it refuses nothing.
    pub(super) released: Option<u64>,
}

impl Queues {
    /// The next for a device. Where there is none its task ends.
    fn next(&mut self, to: &DeviceId) -> Option<Reply> {
        let next = self.all.get_mut(to).and_then(VecDeque::pop_front);
        match next {
            Some(_) => self.count -= 1,
            None => drop(self.all.remove(to)),
        }
        next
    }
}

/// Who sends what is for one device.
struct Desk {
    queues: Arc<Mutex<Queues>>,
    to: DeviceId,
    is_closed: bool,
}

impl Desk {
    fn next(&mut self) -> Option<Reply> {
        let next = lock(&self.queues).next(&self.to);
        self.is_closed = next.is_none();
        next
    }
}

/// Where it panicked, what waits is gone, and the next reply has another.
impl Drop for Desk {
    fn drop(&mut self) {
        if self.is_closed {
            return;
        }
        let mut queues = lock(&self.queues);
        let left = queues.all.remove(&self.to);
        queues.count -= left.map_or(0, |left| left.len());
    }
}

impl Replies {
    pub(super) fn new(core: Arc<Core>, counts: Arc<Counts>) -> Self {
        Self {
            core,
            counts,
            queues: Arc::default(),
            tasks: JoinSet::new(),
        }
    }

    /// Has a reply sent. It is dropped where too many wait.
    pub(super) fn push(&mut self, to: DeviceId, reply: Reply) {
        while self.tasks.try_join_next().is_some() {}
        let mut queues = lock(&self.queues);
        if queues.count >= ALL_MAX {
            return self.counts.drop_reply();
        }
        match queues.all.entry(to) {
            Entry::Occupied(queue) if queue.get().len() >= OF_ONE_MAX => {
                return self.counts.drop_reply();
            }
            Entry::Occupied(mut queue) => queue.get_mut().push_back(reply),
            Entry::Vacant(place) => {
                place.insert(VecDeque::from([reply]));
                let (core, counts) = (self.core.clone(), self.counts.clone());
                let mut desk = Desk {
                    queues: self.queues.clone(),
                    to,
                    is_closed: false,
                };
                self.tasks.spawn(async move {
                    while let Some(reply) = desk.next() {
                        send(&core, &counts, to, reply).await;
                    }
                });
            }
        }
        queues.count += 1;
    }
}

/// Sends a reply, as often as it takes while somebody waits for it.
async fn send(core: &Core, counts: &Counts, to: DeviceId, reply: Reply) {
    while core.now() < reply.expires {
        match timeout(TAKEN_WITHIN, append(core, to, &reply.wire)).await {
            Ok(Ok(())) => return counts.sent(reply.released),
            Ok(Err(_)) => {
                counts.fault();
                sleep(PAUSE).await;
            }
            Err(_) => counts.fault(),
        }
    }
    counts.drop_reply();
}

async fn append(core: &Core, to: DeviceId, wire: &[u8]) -> Result<(), Error> {
    let inbox = topic(&to.inbox_topic())?;
    core.bus.append(&inbox, Vec::from([wire.to_vec()])).await?;
    Ok(())
}

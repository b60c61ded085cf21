//! What a handle has open of logs, so that it need not begin anew with each call.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};

use sealcast_bus::Topic;
use tokio::sync::Mutex;

use crate::scan::{Found, Log, Scan};
use crate::server::Server;

/// Logs that are open at once; of more, those that were not used for longest are closed.
const LOGS_MAX: usize = 64;
/// Bytes of messages at the end of a log that are kept.
const RECENT_BYTES_MAX: usize = 256 << 10;
const RECENT_MAX: usize = 256;

/// What is open of all logs.
#[derive(Debug)]
pub(crate) struct Known {
    server: Arc<Server>,
    logs: SyncMutex<Logs>,
}

#[derive(Debug, Default)]
struct Logs {
    open: BTreeMap<Topic, (u64, Arc<Open>)>,
    uses: u64,
}

/// What is open of one log.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) log: Log,
    /// Its end, as it was last seen. Held by the append that is under way.
    pub(crate) head: Mutex<Option<Head>>,
    /// Where it was last read.
    pub(crate) reading: Mutex<Option<Reading>>,
}

/// The end of a log.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) scan: Scan,
    /// The last messages that belong.
    recent: VecDeque<Found>,
    bytes: usize,
}

/// A place in a log at which somebody reads.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) scan: Scan,
    /// Those that came, and were not read to their end.
    pub(crate) waiting: Option<Found>,
    /// The offset of the next item.
    pub(crate) next: u64,
}

impl Known {
    pub(crate) fn new(server: &Arc<Server>) -> Self {
        Self {
            server: Arc::clone(server),
            logs: SyncMutex::default(),
        }
    }

    pub(crate) fn open(&self, topic: &Topic) -> Arc<Open> {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        logs.uses += 1;
        let now = logs.uses;
        if let Some((used, open)) = logs.open.get_mut(topic) {
            *used = now;
            return Arc::clone(open);
        }
        if logs.open.len() >= LOGS_MAX {
            let idle = logs.open.iter();
            let idle = idle.filter(|(_, (_, open))| Arc::strong_count(open) == 1);
            let oldest = idle.min_by_key(|(_, (used, _))| *used);
            if let Some(topic) = oldest.map(|(topic, _)| topic.clone()) {
                logs.open.remove(&topic);
            }
        }
        let open = Arc::new(Open {
            log: Log::new(&self.server, topic),
            head: Mutex::new(None),
            reading: Mutex::new(None),
        });
        logs.open.insert(topic.clone(), (now, Arc::clone(&open)));
        open
    }
}

impl Head {
    pub(crate) fn new(scan: Scan, found: Vec<Found>) -> Self {
        let mut head = Self {
            scan,
            recent: VecDeque::new(),
            bytes: 0,
        };
        head.add(found);
        head
    }

    pub(crate) fn add(&mut self, found: impl IntoIterator<Item = Found>) {
        for found in found {
            self.bytes += found.len();
            self.recent.push_back(found);
            while self.bytes > RECENT_BYTES_MAX || self.recent.len() > RECENT_MAX {
                let Some(gone) = self.recent.pop_front() else {
                    break;
                };
                self.bytes -= gone.len();
            }
        }
    }

    /// The messages from the one with an item on, if they are all kept.
    pub(crate) fn recent_from(&self, offset: u64) -> Option<Vec<Found>> {
        let oldest = self.recent.front()?;
        if oldest.header.first > offset {
            return None;
        }
        let from = self
            .recent
            .iter()
            .skip_while(|of| of.header.end() <= offset);
        Some(from.cloned().collect())
    }
}

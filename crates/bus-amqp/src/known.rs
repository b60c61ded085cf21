//! What a handle has open of logs, so that it need not begin anew with each call.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};

use sealcast_bus::Topic;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::arrive::Arrival;
use crate::chain::Place;
use crate::log::InTurn;
use crate::message::Header;
use crate::scan::{Found, Log, Payloads, Scan};
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
    /// What is appended in turn.
    pub(crate) in_turn: SyncMutex<InTurn>,
}

/// The end of a log.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) scan: Scan,
    pub(crate) recent: Recent,
}

/// The last messages that belong, of those that were seen.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    /// The first that was seen, and where, which may not be kept any more.
    first: Option<(u64, Header)>,
    kept: VecDeque<Found>,
    bytes: usize,
    /// Whether it is that of a head, which keeps no parts: whoever wants a large append finds it in the
    /// queue, and so what came before it.
    is_of_end: bool,
}

/// A place in a log at which somebody reads.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) scan: Scan,
    /// Those that came, and were not read to their end.
    pub(crate) waiting: Option<Found>,
    /// The offset of the next item.
    pub(crate) next: u64,
    /// Where the log ended, and when it was asked for that.
    pub(crate) end: Place,
    pub(crate) since: Instant,
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
            in_turn: SyncMutex::default(),
        });
        logs.open.insert(topic.clone(), (now, Arc::clone(&open)));
        open
    }
}

impl From<Arrival> for Head {
    fn from(arrival: Arrival) -> Self {
        let Arrival {
            mut scan,
            mut recent,
        } = arrival;
        scan.keep_few_parts(RECENT_BYTES_MAX);
        let is_apart = |found: &Found| matches!(found.payloads, Payloads::Apart { .. });
        recent.is_of_end = true;
        if recent.kept.iter().any(is_apart) {
            recent.clear();
        }
        Self { scan, recent }
    }
}

impl From<Scan> for Head {
    fn from(scan: Scan) -> Self {
        let recent = Recent::default();
        Self::from(Arrival { scan, recent })
    }
}

impl Extend<Found> for Recent {
    fn extend<T: IntoIterator<Item = Found>>(&mut self, found: T) {
        for found in found {
            self.first.get_or_insert((found.at, found.header));
            if self.is_of_end && matches!(found.payloads, Payloads::Apart { .. }) {
                self.clear();
                continue;
            }
            self.bytes += found.len();
            self.kept.push_back(found);
            while self.bytes > RECENT_BYTES_MAX || self.kept.len() > RECENT_MAX {
                let Some(gone) = self.kept.pop_front() else {
                    break;
                };
                self.bytes -= gone.len();
            }
        }
    }
}

impl Recent {
    fn clear(&mut self) {
        self.kept.clear();
        self.bytes = 0;
    }

    pub(crate) fn first(&self) -> Option<(u64, Header)> {
        self.first
    }

    /// The messages from the one with an item on, if they are all kept.
    pub(crate) fn from(&self, offset: u64) -> Option<Vec<Found>> {
        let oldest = self.kept.front()?;
        if oldest.header.first > offset {
            return None;
        }
        let from = self.kept.iter().skip_while(|of| of.header.end() <= offset);
        Some(from.cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use sealcast_bus::Packed;

    fn found(first: u64, size: usize) -> Found {
        let header = Header {
            prev: first.checked_sub(1),
            behind: None,
            first,
            count: 1,
            left: 0,
            id: [7; 16],
        };
        let packed = Bytes::from(Packed::pack(&[vec![0; size]]).unwrap());
        Found {
            at: first,
            header,
            payloads: Payloads::Here(header.packed(vec![packed]).unwrap()),
        }
    }

    #[test]
    fn only_the_last_messages_are_kept_and_the_first_is_known() {
        for (size, kept) in [(0, RECENT_MAX), (100 << 10, 2)] {
            let mut recent = Recent::default();
            recent.extend((0..1_000).map(|first| found(first, size)));
            assert_eq!(
                recent.first().map(|(at, header)| (at, header.first)),
                Some((0, 0))
            );
            assert_eq!(recent.kept.len(), kept);
            assert!(recent.from(0).is_none());
            let last: Vec<u64> = recent.from(998).unwrap().iter().map(|of| of.at).collect();
            assert_eq!(last, [998, 999]);
        }
    }
}

//! Sealed envelopes on their way to the bus, in the order in which they were sealed.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sealcast_bus::{Bus, BusError, Topic};

/// Bytes that may be on their way while more is sealed.
const AHEAD_BYTES_MAX: usize = 4 << 20;
/// Bytes of one append, unless one envelope alone has more.
const APPEND_BYTES_MAX: usize = 4 << 20;

/// What was sealed and is not known to be on the bus. What the bus did not take leaves before anything
/// later does.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    /// Held by whoever sends.
    sending: tokio::sync::Mutex<()>,
}

/// How many envelopes were put in up to one that is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

#[derive(Debug, Default)]
struct Waiting {
    envelopes: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Envelopes that the bus has taken.
    taken: u64,
}

impl Outbox {
    /// Puts envelopes behind all that wait.
    pub(crate) fn put(&self, envelopes: impl Iterator<Item = Vec<u8>>) -> Ticket {
        let mut waiting = self.waiting();
        for envelope in envelopes {
            waiting.bytes += envelope.len();
            waiting.envelopes.push_back(envelope);
        }
        waiting.last()
    }

    /// Returns when more may be sealed. What waits is sent first where nobody sends it, because the
    /// bus did not take it, and where it is a lot.
    pub(crate) async fn make_room(&self, bus: &dyn Bus, data: &Topic) -> Result<(), BusError> {
        let (bytes, last) = {
            let waiting = self.waiting();
            (waiting.bytes, waiting.last())
        };
        let is_being_sent = self.sending.try_lock().is_err();
        match bytes == 0 || (is_being_sent && bytes < AHEAD_BYTES_MAX) {
            true => Ok(()),
            false => self.send(bus, data, last).await,
        }
    }

    /// Returns when the bus has all up to a ticket, with as much at once as it takes.
    pub(crate) async fn send(
        &self,
        bus: &dyn Bus,
        data: &Topic,
        until: Ticket,
    ) -> Result<(), BusError> {
        let _turn = self.sending.lock().await;
        let limit = bus.limits().batch_max.min(APPEND_BYTES_MAX);
        while let Some(append) = self.next_append(limit, until) {
            let count = append.len();
            bus.append(data, append).await?;
            self.waiting().take(count);
        }
        Ok(())
    }

    /// What is to be sent next; `None` where the bus has all up to a ticket.
    fn next_append(&self, limit: usize, until: Ticket) -> Option<Vec<Vec<u8>>> {
        let waiting = self.waiting();
        if waiting.taken >= until.0 {
            return None;
        }
        let mut size = 0;
        let fits = waiting.envelopes.iter().take_while(|envelope| {
            size += envelope.len();
            size <= limit
        });
        let count = fits.count().max(1);
        Some(waiting.envelopes.iter().take(count).cloned().collect())
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn last(&self) -> Ticket {
        Ticket(self.taken + self.envelopes.len() as u64)
    }

    fn take(&mut self, count: usize) {
        for envelope in self.envelopes.drain(..count.min(self.envelopes.len())) {
            self.bytes -= envelope.len();
            self.taken += 1;
        }
    }
}

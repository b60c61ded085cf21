//! The logs of a bus: how they are read, appended to and trimmed.

mod append;
mod in_turn;
mod read;

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sealcast_bus::{Attempts, BusError, Offset, Packed, Topic};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::chain::Place;
use crate::fault::Fault;
use crate::known::{Head, Known, Open};
use crate::scan::{Found, Scan};
use crate::server::{Desk, Hearing, Server};

pub(crate) use in_turn::InTurn;

/// Logs whose ends are looked for at once: a server that is asked for more answers none in time.
const BEGINNING_MAX: usize = 16;
/// How often a log is asked for more before it is quicker to begin at its end anew.
const ASKS_MAX: usize = 64;

/// Logs on one server.
#[derive(Debug)]
pub(crate) struct Logs {
    pub(crate) server: Arc<Server>,
    known: Known,
    beginning: Semaphore,
    /// Ends that were found, so that who waits for a turn knows that the server answers.
    begun: AtomicU64,
    /// Large payloads that were read last and not to their end: the next read goes on in them.
    halfway: Mutex<Option<Halfway>>,
}

#[derive(Debug)]
struct Halfway {
    topic: Topic,
    at: u64,
    packed: Packed,
}

impl Logs {
    pub(crate) fn new(server: Arc<Server>) -> Self {
        Self {
            known: Known::new(&server),
            server,
            beginning: Semaphore::new(BEGINNING_MAX),
            begun: AtomicU64::new(0),
            halfway: Mutex::new(None),
        }
    }

    pub(crate) async fn end(&self, topic: &Topic) -> Result<Offset, BusError> {
        let open = self.known.open(topic);
        let mut attempts = Attempts::new();
        loop {
            let fault = match self.place(&open).await {
                Ok(place) => return Ok(Offset(place.end)),
                Err(fault) => fault,
            };
            let waited = attempts.after(fault).await;
            waited.map_err(|fault| self.server.fault(fault))?;
        }
    }

    /// Where a log ends at this moment.
    async fn place(&self, open: &Open) -> Result<Place, Fault> {
        let mut slot = open.head.lock().await;
        let head = self.come_to_end(open, &mut slot).await?;
        Ok(head.map_or_else(Place::default, |head| head.scan.place()))
    }

    /// Comes to the end of a log as it is at this moment, if there is one.
    async fn come_to_end<'a>(
        &self,
        open: &Open,
        slot: &'a mut Option<Head>,
    ) -> Result<Option<&'a mut Head>, Fault> {
        // Only what comes to its end is put back: whoever stops waiting halfway leaves nothing.
        if let Some(mut head) = slot.take().filter(|of| of.scan.is_up())
            && head.scan.catch_up(&mut head.recent, ASKS_MAX).await?
        {
            return Ok(Some(slot.insert(head)));
        }
        *slot = self.begin(open, false).await?;
        Ok(slot.as_mut())
    }

    /// Looks for the end of a log, which may be created if it is not there.
    async fn begin(&self, open: &Open, may_create: bool) -> Result<Option<Head>, Fault> {
        let _turn = self.turn().await?;
        let hearing = self.server.hearing().await?;
        if let Some(head) = self.begin_where_it_was_left(open, &hearing).await {
            self.begun.fetch_add(1, Ordering::Relaxed);
            return Ok(Some(head));
        }
        let arriving = open.log.arrive(&hearing, &hearing.desk, may_create);
        let arrival = arriving.await?;
        self.begun.fetch_add(1, Ordering::Relaxed);
        Ok(arrival.map(Head::from))
    }

    /// Goes on from where the last append in turn was put, if that was a moment ago. Where the queue is another by now, it is
    /// not to be found there.
    async fn begin_where_it_was_left(&self, open: &Open, hearing: &Hearing) -> Option<Head> {
        let place = open.in_turn().left().filter(|of| of.last.is_some())?;
        let arrived = async {
            let scan = Scan::behind(&open.log, &hearing.desk, place).await?;
            open.log.go_to_end(scan).await
        };
        match arrived.await {
            Ok(arrival) => Some(arrival.into()),
            Err(_) => {
                open.in_turn().forget_left();
                None
            }
        }
    }

    /// Waits for a turn, for as long as others have theirs.
    async fn turn(&self) -> Result<SemaphorePermit<'_>, Fault> {
        let mut turn = pin!(self.beginning.acquire());
        loop {
            let begun = self.begun.load(Ordering::Relaxed);
            match timeout(Attempts::PATIENCE, &mut turn).await {
                Ok(turn) => return turn.map_err(|error| Fault::NoAnswer(Box::new(error))),
                Err(late) if self.begun.load(Ordering::Relaxed) == begun => {
                    return Err(Fault::late(late));
                }
                Err(_) => {}
            }
        }
    }

    /// The payloads of a message, wherever they are.
    async fn payloads(&self, open: &Open, desk: &Desk, found: &Found) -> Result<Packed, Fault> {
        if let Some(halfway) = &*self.halfway()
            && halfway.is_of(&open.log.topic, found.at)
        {
            return Ok(halfway.packed.clone());
        }
        open.log.payloads(desk, found).await
    }

    fn halfway(&self) -> std::sync::MutexGuard<'_, Option<Halfway>> {
        self.halfway.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Halfway {
    /// Whether it is the message that lies there. An id may be there twice, if somebody wants it so.
    fn is_of(&self, topic: &Topic, at: u64) -> bool {
        self.topic == *topic && self.at == at
    }
}

//! Reading: from what is kept of the end of a log, or from the place where it was last read.

use std::time::Duration;

use sealcast_bus::{Attempts, BusError, Item, Offset, Packed, Topic};
use tokio::time::Instant;

use super::{Halfway, Logs};
use crate::chain::Place;
use crate::fault::Fault;
use crate::known::{Open, Reading};
use crate::scan::{Found, Payloads};
use crate::server::Desk;

/// How long a reader that goes on needs not ask how a log ends.
const LOOK: Duration = Duration::from_secs(1);

/// What a read is to return.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    from: u64,
    bytes_max: usize,
    /// How the log ended, and when.
    end: Place,
    since: Instant,
    /// Where in the queue the last message is that it may be in.
    last: u64,
}

/// Items on their way to whoever reads.
struct Collected {
    items: Vec<Item>,
    /// The next offset.
    next: u64,
    /// Bytes that there is room for.
    room: usize,
}

impl Logs {
    pub(crate) async fn read(
        &self,
        topic: &Topic,
        from: Offset,
        bytes_max: usize,
    ) -> Result<Vec<Item>, BusError> {
        let open = self.known.open(topic);
        let mut attempts = Attempts::new();
        loop {
            let fault = match self.try_read(&open, from.0, bytes_max).await {
                Ok(items) => return Ok(items),
                Err(fault) => fault,
            };
            let waited = attempts.after(fault).await;
            waited.map_err(|fault| self.server.fault(fault))?;
        }
    }

    async fn try_read(&self, open: &Open, from: u64, bytes_max: usize) -> Result<Vec<Item>, Fault> {
        if let Some(wanted) = self.wanted_next(open, from, bytes_max).await {
            let hearing = self.server.hearing().await?;
            return self.read_along(open, &hearing.desk, wanted).await;
        }
        let since = Instant::now();
        let mut slot = open.head.lock().await;
        let Some(head) = self.come_to_end(open, &mut slot).await? else {
            return Ok(Vec::new());
        };
        let place = head.scan.place();
        let from = from.max(place.left);
        let Some(last) = place.last.filter(|_| from < place.end) else {
            return Ok(Vec::new());
        };
        let recent = head.recent.from(from);
        drop(slot);
        let wanted = Wanted {
            from,
            bytes_max,
            end: place,
            since,
            last,
        };
        let hearing = self.server.hearing().await?;
        match recent {
            Some(recent) => self.collect(open, &hearing.desk, recent, wanted).await,
            None => self.read_along(open, &hearing.desk, wanted).await,
        }
    }

    /// What a read is to return that goes on where the last one ended. How the log ends is not asked for each time: the
    /// answer comes behind all that is on its way.
    async fn wanted_next(&self, open: &Open, from: u64, bytes_max: usize) -> Option<Wanted> {
        let slot = open.reading.lock().await;
        let reading = slot.as_ref()?;
        let (end, since) = (reading.end, reading.since);
        let goes_on = reading.next == from && from < end.end && since.elapsed() < LOOK;
        let last = end.last.filter(|_| goes_on && reading.scan.is_up())?;
        Some(Wanted {
            from,
            bytes_max,
            end,
            since,
            last,
        })
    }

    async fn collect(
        &self,
        open: &Open,
        desk: &Desk,
        recent: Vec<Found>,
        wanted: Wanted,
    ) -> Result<Vec<Item>, Fault> {
        let mut collected = Collected::new(wanted);
        for found in recent {
            match self.add(open, desk, &mut collected, &found).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(fault) if collected.items.is_empty() => return Err(fault),
                Err(_) => break,
            }
        }
        Ok(collected.items)
    }

    /// Goes along the queue, from where the last read ended if that is the place.
    async fn read_along(
        &self,
        open: &Open,
        desk: &Desk,
        wanted: Wanted,
    ) -> Result<Vec<Item>, Fault> {
        let mut slot = open.reading.lock().await;
        let mut reading = slot.take();
        // What is remembered may be wrong, and what looked like a message none.
        for is_searched in [true, false] {
            let reading_on = reading.take().filter(|of| of.next == wanted.from);
            let mut reading = match reading_on.filter(|of| of.scan.is_up()) {
                Some(reading) => reading,
                None => Reading {
                    scan: match is_searched {
                        true => open.log.search(desk, wanted.from, wanted.last).await?,
                        false => open.log.at_the_beginning(desk).await?,
                    },
                    waiting: None,
                    next: wanted.from,
                    end: wanted.end,
                    since: wanted.since,
                },
            };
            let mut collected = Collected::new(wanted);
            let gone = self.go_on(open, desk, &mut reading, &mut collected, wanted);
            match gone.await {
                Ok(()) | Err(Fault::Missing { .. }) if collected.items.is_empty() => continue,
                Err(fault) if collected.items.is_empty() => return Err(fault),
                Err(_) => {}
                Ok(()) => {
                    reading.next = collected.next;
                    (reading.end, reading.since) = (wanted.end, wanted.since);
                    *slot = Some(reading);
                }
            }
            return Ok(collected.items);
        }
        Err(Fault::Missing {
            expected: wanted.from,
        })
    }

    async fn go_on(
        &self,
        open: &Open,
        desk: &Desk,
        reading: &mut Reading,
        collected: &mut Collected,
        wanted: Wanted,
    ) -> Result<(), Fault> {
        loop {
            let found = match reading.waiting.take() {
                Some(found) => found,
                None => match reading.scan.found_until(wanted.last).await? {
                    Some(found) => found,
                    None => return Ok(()),
                },
            };
            let is_whole = self.add(open, desk, collected, &found).await?;
            if !is_whole {
                reading.waiting = Some(found);
            }
            if !is_whole || collected.room == 0 {
                return Ok(());
            }
        }
    }

    /// Adds what is wanted of a message; says whether all of it found room.
    async fn add(
        &self,
        open: &Open,
        desk: &Desk,
        collected: &mut Collected,
        found: &Found,
    ) -> Result<bool, Fault> {
        let header = &found.header;
        if header.end() <= collected.next {
            return Ok(true);
        }
        if header.first > collected.next {
            return Err(Fault::Missing {
                expected: collected.next,
            });
        }
        let packed = self.payloads(open, desk, found).await?;
        let Collected { items, next, room } = collected;
        let is_whole = packed.add_to(items, *next, room);
        *next = items
            .last()
            .map_or(*next, |last| last.offset.0.saturating_add(1));
        if matches!(found.payloads, Payloads::Apart { .. }) {
            self.keep_halfway(&open.log.topic, found.at, (!is_whole).then_some(packed));
        }
        Ok(is_whole)
    }

    fn keep_halfway(&self, topic: &Topic, at: u64, packed: Option<Packed>) {
        let mut halfway = self.halfway();
        match packed {
            Some(packed) => {
                let topic = topic.clone();
                *halfway = Some(Halfway { topic, at, packed });
            }
            None => {
                halfway.take_if(|of| of.is_of(topic, at));
            }
        }
    }
}

impl Collected {
    fn new(wanted: Wanted) -> Self {
        Self {
            items: Vec::new(),
            next: wanted.from,
            room: wanted.bytes_max,
        }
    }
}

//! Bringing in older data, each record sealed at its own past time.

use std::sync::Mutex;

use sealcast_protocol::{Position, SessionId};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::publisher::Published;
use crate::seal::{Batch, Past, Sealer};

/// Records that are sealed in one store transaction, at most.
const BATCH_RECORDS: usize = 2048;
/// Bytes of records in one batch, at most.
const BATCH_BYTES: usize = 2 << 20;

/// Brings in older data. Every record is an envelope of its own, so that an interval granted later
/// covers exactly the records whose times lie in it.
#[derive(Debug)]
pub struct Backfill {
    sealer: Sealer,
    session: Option<SessionId>,
    last: Position,
    until: Position,
    waiting: Vec<(Position, Zeroizing<Vec<u8>>)>,
    bytes: usize,
    done: Published,
    has_failed: bool,
}

impl Backfill {
    pub(crate) fn new(sealer: Sealer) -> Self {
        let until = sealer.core.now();
        Self {
            sealer,
            session: None,
            last: Position::START,
            until,
            waiting: Vec::new(),
            bytes: 0,
            done: Published {
                position: Position::START,
                records: 0,
                envelopes: 0,
            },
            has_failed: false,
        }
    }

    /// Takes one record that was made at `time`.
    ///
    /// # Errors
    ///
    /// Fails when the times do not ascend or do not lie before the backfill's start, or a record is
    /// too large; the record was not taken then, and others may follow. Fails when store or bus
    /// fail; records may be missing then from the last that [`stored`](Self::stored) counts, and
    /// nothing more is taken.
    pub async fn send(&mut self, time: Position, payload: &[u8]) -> Result<(), Error> {
        if self.has_failed {
            return Err(Error::PublisherEnded);
        }
        self.sealer.check_size(payload.len())?;
        if time < self.last || time >= self.until {
            return Err(Error::BackfillTime);
        }
        self.last = time;
        self.bytes += payload.len();
        self.waiting.push((time, Zeroizing::new(payload.to_vec())));
        match self.waiting.len() >= BATCH_RECORDS || self.bytes >= BATCH_BYTES {
            true => self.leave().await,
            false => Ok(()),
        }
    }

    /// How many records are stored on the bus.
    pub fn stored(&self) -> u64 {
        self.done.records
    }

    /// Publishes what is left, and ends.
    ///
    /// # Errors
    ///
    /// Fails when store or bus fail, or failed before.
    pub async fn finish(mut self) -> Result<Published, Error> {
        if self.has_failed {
            return Err(Error::PublisherEnded);
        }
        self.leave().await?;
        self.sealer.core.share_owed().await?;
        Ok(self.done)
    }

    async fn leave(&mut self) -> Result<(), Error> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let records = std::mem::take(&mut self.waiting);
        self.bytes = 0;
        let count = records.len() as u64;
        let past = Past {
            session: Mutex::new(self.session),
            until: self.until,
            records,
        };
        // Until the batch is known to be stored: the caller may stop waiting, too.
        self.has_failed = true;
        let left = self.sealer.publish(Batch::Past(past)).await?;
        self.has_failed = false;
        self.session = left.session;
        self.done.position = left.position;
        self.done.records += count;
        self.done.envelopes += left.envelopes;
        Ok(())
    }
}

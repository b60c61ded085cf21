//! Publishing many records: frames fill up to 64 KiB or 20 ms, and leave in batches.

use std::sync::Arc;

use sealcast_bus::Bus;
use sealcast_protocol::{ENVELOPE_OVERHEAD, PAYLOAD_MAX, Position};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::core::Core;
use crate::error::Error;
use crate::queue::{Dead, Queue, Sealing, Sending};
use crate::seal::{Batch, Sealer};

/// What was sealed and stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Where the last envelope was sealed; the start of time when there was none.
    pub position: Position,
    /// Records published.
    pub records: u64,
    /// Envelopes that carried them.
    pub envelopes: u64,
}

/// Publishes many records, sealed in frames. What it was given is published also when it is dropped
/// without [`finish`](Self::finish), as long as the runtime lives, but nobody learns how that went.
///
/// ```no_run
/// # async fn doc(stream: sealcast::Stream) -> Result<(), sealcast::Error> {
/// let mut publisher = stream.publisher().await?;
/// for reading in ["21.5 C", "21.6 C"] {
///     publisher.send(reading.as_bytes()).await?;
/// }
/// let done = publisher.finish().await?;
/// assert_eq!(done.records, 2);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Publisher {
    core: Arc<Core>,
    sending: Sending,
    worker: JoinHandle<Result<Published, Error>>,
    stored: watch::Receiver<u64>,
    limit: usize,
}

impl Publisher {
    pub(crate) fn start(sealer: Sealer) -> Self {
        let (sending, sealing) = Queue::ends();
        let (tell_stored, stored) = watch::channel(0);
        let core = sealer.core.clone();
        let limit = payload_max(&*core.bus);
        let worker = tokio::spawn(seal_all(sealer, sealing, tell_stored));
        Self {
            core,
            sending,
            worker,
            stored,
            limit,
        }
    }

    /// Takes one record; waits while 4 MiB wait to be sealed. A future that is dropped before it is
    /// done has not taken the record.
    ///
    /// # Errors
    ///
    /// Fails when the record is too large, or when an earlier one could not be published; then
    /// [`finish`](Self::finish) says why.
    pub async fn send(&mut self, payload: &[u8]) -> Result<(), Error> {
        if payload.len() > self.limit {
            return Err(Error::TooLarge {
                size: payload.len(),
                limit: self.limit,
            });
        }
        let sent = self.sending.send(self.core.now(), payload).await;
        sent.map_err(|Dead| Error::PublisherEnded)
    }

    /// Waits until everything sent so far is stored on the bus.
    ///
    /// # Errors
    ///
    /// Fails when something could not be published; then [`finish`](Self::finish) says why.
    pub async fn flush(&mut self) -> Result<(), Error> {
        let is_done = self.sending.flush().map_err(|Dead| Error::PublisherEnded)?;
        is_done.await.map_err(|_| Error::PublisherEnded)
    }

    /// How many records are stored on the bus.
    pub fn stored(&self) -> u64 {
        *self.stored.borrow()
    }

    /// Tells how many records are stored on the bus, each time there are more.
    pub fn acks(&self) -> Acks {
        Acks(self.stored.clone())
    }

    /// Publishes what is left, and ends.
    ///
    /// # Errors
    ///
    /// Fails with the reason why something could not be published.
    pub async fn finish(self) -> Result<Published, Error> {
        drop(self.sending);
        self.worker
            .await
            .map_err(|_| Error::Internal("the publisher's worker ended early"))?
    }
}

/// Tells how many records of a [`Publisher`] are stored on the bus, also while it finishes.
#[derive(Debug)]
pub struct Acks(watch::Receiver<u64>);

impl Acks {
    /// Waits until more records are stored than were told before, and tells how many; `None` once the
    /// publisher has ended. A caller may stop waiting and come back.
    pub async fn next(&mut self) -> Option<u64> {
        self.0.changed().await.ok()?;
        Some(*self.0.borrow_and_update())
    }
}

/// Seals batch after batch, until no more comes or one could not be published.
async fn seal_all(
    sealer: Sealer,
    sealing: Sealing,
    stored: watch::Sender<u64>,
) -> Result<Published, Error> {
    let mut done = Published {
        position: Position::START,
        records: 0,
        envelopes: 0,
    };
    while let Some(taken) = sealing.next().await {
        if !taken.parts.is_empty() {
            let batch = Arc::new(Batch::Parts(taken.parts));
            let left = sealer.publish_shared(batch.clone()).await?;
            if let Some(Batch::Parts(parts)) = Arc::into_inner(batch) {
                sealing.give_back(parts);
            }
            done.position = left.position;
            done.records += taken.records;
            done.envelopes += left.envelopes;
            stored.send_replace(done.records);
        }
        for flush in taken.flushes {
            let _is_awaited = flush.send(()).is_ok();
        }
    }
    Ok(done)
}

/// The longest record that a bus takes in one envelope.
fn payload_max(bus: &dyn Bus) -> usize {
    bus.limits()
        .payload_max
        .saturating_sub(ENVELOPE_OVERHEAD)
        .min(PAYLOAD_MAX)
}

pub(crate) fn check_size(bus: &dyn Bus, size: usize) -> Result<(), Error> {
    let limit = payload_max(bus);
    match size > limit {
        true => Err(Error::TooLarge { size, limit }),
        false => Ok(()),
    }
}

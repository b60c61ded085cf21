//! Publishing many records: frames fill up to 64 KiB or 20 ms, and leave in batches.

use std::collections::VecDeque;
use std::sync::Arc;

use sealcast_protocol::Position;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::core::Core;
use crate::error::Error;
use crate::queue::{Dead, Queue, Sealing, Sending, Taken};
use crate::seal::{Batch, Leaving, Left, Sealer};

/// Batches that are on their way to the bus while the next is sealed, at most.
const ON_THEIR_WAY_MAX: usize = 4;

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
        let limit = sealer.payload_max();
        let worker = tokio::spawn(seal_all(sealer, sealing, tell_stored));
        Self {
            core,
            sending,
            worker,
            stored,
            limit,
        }
    }

    /// Takes one record; waits while 6 MiB wait to be sealed. A future that is dropped before it is
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

    /// Returns once no more is published, since something could not be: [`finish`](Self::finish) says why. For
    /// whoever waits for more to publish, and would not learn of it before. Dropping the future loses nothing.
    pub async fn ended(&self) {
        let mut stored = self.stored.clone();
        while stored.changed().await.is_ok() {}
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

/// What was taken out of the queue, and is on its way to the bus.
struct Sent {
    /// Nothing, where somebody only waits for what was sent before.
    leaving: Option<Leaving>,
    records: u64,
    flushes: Vec<oneshot::Sender<()>>,
}

/// Seals batch after batch, until no more comes or one could not be published. While some are on
/// their way, the next is sealed.
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
    let mut on_their_way = VecDeque::new();
    // No more comes, or why no more is sealed.
    let mut end = None;
    loop {
        let has_room = end.is_none() && on_their_way.len() < ON_THEIR_WAY_MAX;
        tokio::select! {
            biased;
            left = first_stored(&mut on_their_way), if !on_their_way.is_empty() => {
                let left = left?;
                let Some(sent) = on_their_way.pop_front() else { continue };
                if let Some(left) = left {
                    done.position = left.position;
                    done.records += sent.records;
                    done.envelopes += left.envelopes;
                    stored.send_replace(done.records);
                }
                for flush in sent.flushes {
                    let _is_awaited = flush.send(()).is_ok();
                }
            }
            taken = sealing.next(), if has_room => match taken {
                Some(taken) => match seal(&sealer, &sealing, taken).await {
                    Ok(sent) => on_their_way.push_back(sent),
                    Err(fault) => end = Some(Err(fault)),
                },
                None => end = Some(Ok(())),
            },
            else => return end.unwrap_or(Ok(())).map(|()| done),
        }
    }
}

/// Waits until the first of those on their way is stored. Drop this and come back at will.
async fn first_stored(on_their_way: &mut VecDeque<Sent>) -> Result<Option<Left>, Error> {
    match on_their_way
        .front_mut()
        .and_then(|first| first.leaving.as_mut())
    {
        Some(leaving) => leaving.stored().await.map(Some),
        None => Ok(None),
    }
}

/// Seals what was taken out of the queue.
async fn seal(sealer: &Sealer, sealing: &Sealing, taken: Taken) -> Result<Sent, Error> {
    let mut leaving = None;
    if !taken.parts.is_empty() {
        let batch = Arc::new(Batch::Parts(taken.parts));
        leaving = Some(sealer.seal(batch.clone()).await?);
        if let Some(Batch::Parts(parts)) = Arc::into_inner(batch) {
            sealing.give_back(parts);
        }
    }
    Ok(Sent {
        leaving,
        records: taken.records,
        flushes: taken.flushes,
    })
}

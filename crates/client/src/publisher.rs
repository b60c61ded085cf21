//! Publishing many records: frames fill up to 64 KiB or 20 ms, and leave in batches.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sealcast_bus::Bus;
use sealcast_protocol::{ENVELOPE_OVERHEAD, Frame, PAYLOAD_MAX, Position};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use crate::clock;
use crate::error::Error;
use crate::seal::{Batch, Part, Sealer};

/// Longest plaintext of a frame, in bytes.
const FRAME_BYTES: usize = 64 << 10;
/// How long a record waits for others.
const FRAME_DELAY: Duration = Duration::from_millis(20);
/// Frames that are sealed in one store transaction, at most.
const FRAMES_A_BATCH: usize = 16;
/// Bytes of long records in one batch, at most.
const BATCH_BYTES: usize = 2 << 20;
/// Records that wait for the worker, at most.
const QUEUE: usize = 4096;

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

/// Publishes many records, sealed in frames.
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
    jobs: mpsc::Sender<Job>,
    worker: JoinHandle<Result<Published, Error>>,
    stored: Arc<AtomicU64>,
    limit: usize,
}

enum Job {
    Record(Position, Zeroizing<Vec<u8>>),
    Flush(oneshot::Sender<()>),
}

impl Publisher {
    pub(crate) fn start(sealer: Sealer) -> Self {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let stored = Arc::new(AtomicU64::new(0));
        let limit = payload_max(&*sealer.core.bus);
        let worker = Worker {
            sealer,
            queue,
            stored: stored.clone(),
            done: Published {
                position: Position::START,
                records: 0,
                envelopes: 0,
            },
        };
        Self {
            jobs,
            worker: tokio::spawn(worker.run()),
            stored,
            limit,
        }
    }

    /// Takes one record; waits while the queue is full.
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
        let record = Job::Record(clock::now(), Zeroizing::new(payload.to_vec()));
        self.jobs
            .send(record)
            .await
            .map_err(|_| Error::PublisherEnded)
    }

    /// Waits until everything sent so far is stored on the bus.
    ///
    /// # Errors
    ///
    /// Fails when something could not be published; then [`finish`](Self::finish) says why.
    pub async fn flush(&mut self) -> Result<(), Error> {
        let (done, is_done) = oneshot::channel();
        self.jobs
            .send(Job::Flush(done))
            .await
            .map_err(|_| Error::PublisherEnded)?;
        is_done.await.map_err(|_| Error::PublisherEnded)
    }

    /// How many records are stored on the bus.
    pub fn stored(&self) -> u64 {
        self.stored.load(Ordering::Relaxed)
    }

    /// Publishes what is left, and ends.
    ///
    /// # Errors
    ///
    /// Fails with the reason why something could not be published.
    pub async fn finish(self) -> Result<Published, Error> {
        drop(self.jobs);
        self.worker
            .await
            .map_err(|_| Error::Internal("the publisher's worker ended early"))?
    }
}

struct Worker {
    sealer: Sealer,
    queue: mpsc::Receiver<Job>,
    stored: Arc<AtomicU64>,
    done: Published,
}

/// Records on their way into a batch.
#[derive(Default)]
struct Open {
    parts: Vec<Part>,
    frame: Option<Frame>,
    records: u64,
    long_bytes: usize,
    flushes: Vec<oneshot::Sender<()>>,
}

impl Worker {
    async fn run(mut self) -> Result<Published, Error> {
        let mut open = Open::default();
        while let Some(job) = self.queue.recv().await {
            open.take(job);
            let deadline = Instant::now() + FRAME_DELAY;
            while open.has_room() {
                match timeout_at(deadline, self.queue.recv()).await {
                    Ok(Some(job)) => open.take(job),
                    Ok(None) | Err(_) => break,
                }
            }
            self.leave(std::mem::take(&mut open)).await?;
        }
        Ok(self.done)
    }

    async fn leave(&mut self, mut open: Open) -> Result<(), Error> {
        open.close_frame();
        if !open.parts.is_empty() {
            let left = self.sealer.publish(Batch::Parts(open.parts)).await?;
            self.done.position = left.position;
            self.done.records += open.records;
            self.done.envelopes += left.envelopes;
            self.stored.store(self.done.records, Ordering::Relaxed);
        }
        for flush in open.flushes {
            let _is_awaited = flush.send(()).is_ok();
        }
        Ok(())
    }
}

impl Open {
    fn has_room(&self) -> bool {
        self.flushes.is_empty()
            && self.parts.len() < FRAMES_A_BATCH
            && self.long_bytes < BATCH_BYTES
    }

    fn take(&mut self, job: Job) {
        match job {
            Job::Flush(done) => self.flushes.push(done),
            Job::Record(time, payload) => {
                self.records += 1;
                self.take_record(time, payload);
            }
        }
    }

    fn take_record(&mut self, time: Position, payload: Zeroizing<Vec<u8>>) {
        if let Some(frame) = &mut self.frame
            && frame.push(time, &payload).is_ok()
        {
            return;
        }
        self.close_frame();
        let mut frame = Frame::with_capacity(FRAME_BYTES);
        match frame.push(time, &payload) {
            Ok(()) => self.frame = Some(frame),
            Err(_) => {
                self.long_bytes += payload.len();
                self.parts.push(Part::Long(payload));
            }
        }
    }

    fn close_frame(&mut self) {
        self.parts.extend(self.frame.take().map(Part::Frame));
    }
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

//! Publishing many records: frames fill up to 64 KiB or 20 ms, and leave in batches.

use std::sync::Arc;
use std::time::Duration;

use sealcast_bus::Bus;
use sealcast_protocol::{ENVELOPE_OVERHEAD, Frame, PAYLOAD_MAX, Position};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use crate::core::Core;
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
/// Bytes of records that are on their way, at most, unless one record alone has more.
const BYTES_ON_THE_WAY: u32 = 8 << 20;

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
    jobs: mpsc::Sender<Job>,
    room: Arc<Semaphore>,
    worker: JoinHandle<Result<Published, Error>>,
    stored: watch::Receiver<u64>,
    limit: usize,
}

enum Job {
    Record(Record),
    Flush(oneshot::Sender<()>),
}

struct Record {
    time: Position,
    payload: Zeroizing<Vec<u8>>,
    /// Permits that it takes of the room for records on their way.
    permits: u32,
}

impl Publisher {
    pub(crate) fn start(sealer: Sealer) -> Self {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let (tell_stored, stored) = watch::channel(0);
        let room = Arc::new(Semaphore::new(BYTES_ON_THE_WAY as usize));
        let core = sealer.core.clone();
        let limit = payload_max(&*core.bus);
        let worker = Worker {
            sealer,
            queue,
            room: room.clone(),
            stored: tell_stored,
            done: Published {
                position: Position::START,
                records: 0,
                envelopes: 0,
            },
        };
        Self {
            core,
            jobs,
            room,
            worker: tokio::spawn(worker.run()),
            stored,
            limit,
        }
    }

    /// Takes one record; waits while 4,096 records or 8 MiB are on their way. A future that is dropped
    /// before it is done has not taken the record.
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
        let size = u32::try_from(payload.len()).unwrap_or(BYTES_ON_THE_WAY);
        let permits = size.min(BYTES_ON_THE_WAY);
        let ended = || Error::PublisherEnded;
        let room = self.room.acquire_many(permits).await;
        let room = room.map_err(|_| ended())?;
        let job = self.jobs.reserve().await.map_err(|_| ended())?;
        room.forget();
        job.send(Job::Record(Record {
            time: self.core.now(),
            payload: Zeroizing::new(payload.to_vec()),
            permits,
        }));
        Ok(())
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
        drop(self.jobs);
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

struct Worker {
    sealer: Sealer,
    queue: mpsc::Receiver<Job>,
    room: Arc<Semaphore>,
    stored: watch::Sender<u64>,
    done: Published,
}

/// Whoever waits for room learns that nobody makes any.
impl Drop for Worker {
    fn drop(&mut self) {
        self.room.close();
    }
}

/// Records on their way into a batch.
#[derive(Default)]
struct Open {
    parts: Vec<Part>,
    frame: Option<Frame>,
    records: u64,
    permits: usize,
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
            self.room.add_permits(open.permits);
            self.done.position = left.position;
            self.done.records += open.records;
            self.done.envelopes += left.envelopes;
            self.stored.send_replace(self.done.records);
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
            Job::Record(record) => {
                self.records += 1;
                self.permits += record.permits as usize;
                self.take_record(record);
            }
        }
    }

    fn take_record(&mut self, record: Record) {
        let Record { time, payload, .. } = record;
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

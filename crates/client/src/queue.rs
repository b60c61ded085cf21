//! Records that wait to be sealed: written into frames at once, taken out in batches.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sealcast_crypto::SecretBytes;
use sealcast_protocol::{Frame, Position};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::seal::Part;

/// Longest plaintext of a frame. A frame of short records ends above 64 KiB and not below, so that
/// its ciphertext is whole chunks of BLAKE3, which are hashed side by side.
const FRAME_BYTES: usize = (64 << 10) + 512;
/// How long a record waits for others.
const FRAME_DELAY: Duration = Duration::from_millis(20);
/// Bytes of frames and long records that are sealed in one store transaction, about.
const BATCH_BYTES: usize = 2 << 20;
/// Bytes that wait, at most, unless one record alone has more.
const BYTES_WAITING_MAX: usize = 4 << 20;

/// Frames that are kept for others to come, at most; as many as a batch has.
const SPARE_MAX: usize = BATCH_BYTES / FRAME_BYTES + 1;

/// One end for who sends, one for who seals.
#[derive(Debug)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    /// Something came that the sealing end may want to look at.
    news: Notify,
    /// Something was taken out.
    room: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    parts: VecDeque<Counted>,
    frame: Option<Frame>,
    /// Of closed parts and of the open frame.
    closed_bytes: usize,
    open_bytes: usize,
    /// Empty ones that were used before: fresh memory takes as long as filling it.
    spare: Vec<Frame>,
    /// Since when something waits.
    since: Option<Instant>,
    flushes: Vec<oneshot::Sender<()>>,
    /// The sending end is gone.
    is_whole: bool,
    /// The sealing end is gone.
    is_dead: bool,
}

/// A part, and the room that it takes.
#[derive(Debug)]
struct Counted {
    part: Part,
    bytes: usize,
}

/// Parts that leave together, and who waits for them.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) parts: Vec<Part>,
    pub(crate) records: u64,
    pub(crate) flushes: Vec<oneshot::Sender<()>>,
}

/// The sealing end ended before the sending end did.
#[derive(Debug)]
pub(crate) struct Dead;

impl Queue {
    /// A queue's two ends.
    pub(crate) fn ends() -> (Sending, Sealing) {
        let queue = Arc::new(Self {
            waiting: Mutex::default(),
            news: Notify::new(),
            room: Notify::new(),
        });
        (Sending(queue.clone()), Sealing(queue))
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where records come in; when it is dropped, no more come.
#[derive(Debug)]
pub(crate) struct Sending(Arc<Queue>);

impl Sending {
    /// Takes one record in when there is room.
    pub(crate) async fn send(&self, time: Position, payload: &[u8]) -> Result<(), Dead> {
        loop {
            if self.take_in(time, payload)? {
                return Ok(());
            }
            self.0.room.notified().await;
        }
    }

    fn take_in(&self, time: Position, payload: &[u8]) -> Result<bool, Dead> {
        let mut waiting = self.0.waiting();
        if waiting.is_dead {
            return Err(Dead);
        }
        let bytes = waiting.bytes();
        if bytes > 0 && bytes + payload.len() > BYTES_WAITING_MAX {
            return Ok(false);
        }
        let was_full = waiting.is_full();
        waiting.push(time, payload);
        let is_first = waiting.since.is_none();
        if is_first {
            waiting.since = Some(Instant::now());
        }
        if is_first || waiting.is_full() != was_full {
            self.0.news.notify_one();
        }
        Ok(true)
    }

    /// Says when all that was sent so far is stored.
    pub(crate) fn flush(&self) -> Result<oneshot::Receiver<()>, Dead> {
        let (done, is_done) = oneshot::channel();
        let mut waiting = self.0.waiting();
        if waiting.is_dead {
            return Err(Dead);
        }
        waiting.flushes.push(done);
        self.0.news.notify_one();
        Ok(is_done)
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.waiting().is_whole = true;
        self.0.news.notify_one();
    }
}

/// Where batches come out; when it is dropped, nothing more is taken in.
#[derive(Debug)]
pub(crate) struct Sealing(Arc<Queue>);

impl Sealing {
    /// The next batch: when there is enough for one, or something has waited for long enough.
    /// `None` when no more comes.
    pub(crate) async fn next(&self) -> Option<Taken> {
        loop {
            let look_again = {
                let mut waiting = self.0.waiting();
                let deadline = waiting.since.map(|since| since + FRAME_DELAY);
                let is_due = deadline.is_some_and(|at| at <= Instant::now());
                if waiting.is_full() || is_due || waiting.is_whole || !waiting.flushes.is_empty() {
                    if waiting.is_whole && waiting.bytes() == 0 && waiting.flushes.is_empty() {
                        return None;
                    }
                    let taken = waiting.take();
                    self.0.room.notify_one();
                    return Some(taken);
                }
                deadline
            };
            match look_again {
                // Whether time or news ended the waiting shows in the queue.
                Some(at) => drop(timeout_at(at, self.0.news.notified()).await),
                None => self.0.news.notified().await,
            }
        }
    }
}

impl Sealing {
    /// Keeps the room of frames that were sealed.
    pub(crate) fn give_back(&self, parts: Vec<Part>) {
        let frames = parts.into_iter().filter_map(|part| match part {
            Part::Frame(mut frame) => {
                frame.clear();
                Some(frame)
            }
            Part::Long(_) => None,
        });
        let frames: Vec<_> = frames.collect();
        let mut waiting = self.0.waiting();
        let room = SPARE_MAX.saturating_sub(waiting.spare.len());
        waiting.spare.extend(frames.into_iter().take(room));
    }
}

impl Drop for Sealing {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting();
        *waiting = Waiting {
            is_dead: true,
            ..Waiting::default()
        };
        self.0.room.notify_one();
    }
}

impl Waiting {
    fn bytes(&self) -> usize {
        self.closed_bytes + self.open_bytes
    }

    /// Whether closed parts make a batch.
    fn is_full(&self) -> bool {
        self.closed_bytes >= BATCH_BYTES
    }

    fn push(&mut self, time: Position, payload: &[u8]) {
        // A record of no bytes takes room, too.
        let bytes = payload.len() + 1;
        if let Some(frame) = &mut self.frame
            && frame.push(time, payload).is_ok()
        {
            self.open_bytes += bytes;
            return;
        }
        self.close_frame();
        let spare = self.spare.pop();
        let mut frame = spare.unwrap_or_else(|| Frame::with_capacity(FRAME_BYTES));
        match frame.push(time, payload) {
            Ok(()) => {
                self.frame = Some(frame);
                self.open_bytes = bytes;
            }
            Err(_) => {
                self.spare.push(frame);
                let part = Part::Long(SecretBytes::from(payload.to_vec()));
                self.parts.push_back(Counted { part, bytes });
                self.closed_bytes += bytes;
            }
        }
    }

    fn close_frame(&mut self) {
        if let Some(frame) = self.frame.take() {
            let bytes = std::mem::take(&mut self.open_bytes);
            let part = Part::Frame(frame);
            self.parts.push_back(Counted { part, bytes });
            self.closed_bytes += bytes;
        }
    }

    /// Takes out a batch: closed parts, and the open frame where it is not more than that.
    fn take(&mut self) -> Taken {
        if !self.is_full() {
            self.close_frame();
        }
        let (mut parts, mut records, mut bytes) = (Vec::new(), 0, 0);
        while bytes < BATCH_BYTES
            && let Some(next) = self.parts.pop_front()
        {
            bytes += next.bytes;
            records += next.part.records();
            parts.push(next.part);
        }
        self.closed_bytes -= bytes;
        // What is left has waited long enough already.
        let is_empty = self.parts.is_empty() && self.frame.is_none();
        if is_empty {
            self.since = None;
        }
        let flushes = match is_empty {
            true => std::mem::take(&mut self.flushes),
            false => Vec::new(),
        };
        Taken {
            parts,
            records,
            flushes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Position = Position(1_790_000_000_000);

    fn lens(taken: &Taken) -> Vec<u64> {
        taken.parts.iter().map(Part::records).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_waits_for_others_no_longer_than_it_must() {
        let (sending, sealing) = Queue::ends();
        let begun = Instant::now();
        sending.send(NOW, b"one").await.unwrap();
        tokio::time::advance(FRAME_DELAY / 2).await;
        sending.send(NOW, b"two").await.unwrap();
        let taken = sealing.next().await.unwrap();
        assert_eq!(lens(&taken), [2]);
        // The clock of the runtime stands still but for its timers.
        assert!((FRAME_DELAY..FRAME_DELAY + Duration::from_millis(2)).contains(&begun.elapsed()));
        drop(sending);
        assert!(sealing.next().await.is_none());
    }

    #[tokio::test]
    async fn what_makes_a_batch_leaves_at_once_and_what_is_left_comes_next() {
        let (sending, sealing) = Queue::ends();
        let quarter = vec![7; BATCH_BYTES / 4];
        for _ in 0..5 {
            sending.send(NOW, &quarter).await.unwrap();
        }
        sending.send(NOW, b"short").await.unwrap();
        assert_eq!(lens(&sealing.next().await.unwrap()), [1; 4]);
        let flushed = sending.flush().unwrap();
        let rest = sealing.next().await.unwrap();
        assert_eq!(lens(&rest), [1; 2]);
        assert_eq!(rest.flushes.len(), 1);
        drop((rest, flushed));
    }

    #[tokio::test]
    async fn a_sender_waits_while_too_much_waits_and_goes_on_when_some_was_taken() {
        let (sending, sealing) = Queue::ends();
        let large = vec![7; BYTES_WAITING_MAX - 1];
        sending.send(NOW, &large).await.unwrap();
        assert!(!sending.take_in(NOW, b"more").unwrap());
        let taken = sealing.next().await.unwrap();
        assert_eq!(lens(&taken), [1]);
        sending.send(NOW, b"more").await.unwrap();
        // One that is larger than all the room comes in alone.
        drop(sending);
        assert_eq!(lens(&sealing.next().await.unwrap()), [1]);
        assert!(sealing.next().await.is_none());
    }

    #[tokio::test]
    async fn nothing_is_taken_in_that_nobody_would_seal() {
        let (sending, sealing) = Queue::ends();
        sending.send(NOW, b"one").await.unwrap();
        let flushed = sending.flush().unwrap();
        drop(sealing);
        assert!(flushed.await.is_err());
        assert!(sending.send(NOW, b"two").await.is_err());
        assert!(sending.flush().is_err());
    }
}

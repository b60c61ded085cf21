//! What handles of this process have published on data topics, so that it is known when it comes back.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher as _, RandomState};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::Notify;

use crate::packet::Publish;

/// Bytes of messages that are in the mirror and may come back yet; of more, the oldest are forgotten, and
/// known again only by what the mirror has.
const KNOWN_BYTES_MAX: usize = 4 << 20;

/// What the handles of one home in one process have published, and the broker has not brought back.
#[derive(Debug, Default)]
pub(crate) struct Own {
    known: Mutex<Known>,
    /// Whether what comes back comes to this process.
    is_awaited: AtomicBool,
    /// The fate of an append was decided.
    settled: Notify,
}

#[derive(Debug, Default)]
struct Known {
    /// By their number, the oldest first.
    messages: BTreeMap<u64, (Publish, Fate)>,
    /// The numbers of those with a digest, whose key nobody else knows.
    by_digest: HashMap<u64, Vec<u64>>,
    state: RandomState,
    next: u64,
    /// Of those that are in the mirror.
    settled_bytes: usize,
}

/// Whether an append is in the mirror, on the disk, or its writer does not put it there any more.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fate(Arc<OnceLock<bool>>);

impl Fate {
    /// Nothing, while its writer is about to put it there.
    pub(crate) fn is_in_mirror(&self) -> Option<bool> {
        self.0.get().copied()
    }
}

/// Has an append known for as long as it is made. Whoever drops it before it is in the mirror leaves that
/// to what comes back.
#[derive(Debug)]
pub(crate) struct Writing<'a> {
    own: &'a Own,
    numbers: Range<u64>,
    fate: Fate,
}

impl Known {
    fn digest(&self, of: &Publish) -> u64 {
        self.state.hash_one((&of.topic, &of.payload))
    }

    fn insert(&mut self, message: Publish, fate: Fate) {
        let digest = self.digest(&message);
        self.by_digest.entry(digest).or_default().push(self.next);
        self.messages.insert(self.next, (message, fate));
        self.next += 1;
    }

    fn find(&self, came: &Publish) -> Option<u64> {
        let is_it = |number: &&u64| {
            let known = self.messages.get(number);
            known.is_some_and(|(of, _)| of.topic == came.topic && of.payload == came.payload)
        };
        let alike = self.by_digest.get(&self.digest(came))?;
        alike.iter().find(is_it).copied()
    }

    fn remove(&mut self, number: u64) -> Option<(Publish, Fate)> {
        let (message, fate) = self.messages.remove(&number)?;
        let digest = self.digest(&message);
        if let Some(alike) = self.by_digest.get_mut(&digest) {
            alike.retain(|of| *of != number);
            if alike.is_empty() {
                self.by_digest.remove(&digest);
            }
        }
        if fate.is_in_mirror() == Some(true) {
            self.settled_bytes -= message.payload.len();
        }
        Some((message, fate))
    }

    fn forget_oldest(&mut self) {
        let is_settled = |(_, fate): &(Publish, Fate)| fate.is_in_mirror().is_some();
        while self.settled_bytes > KNOWN_BYTES_MAX
            && let Some((oldest, _)) = self.messages.iter().find(|(_, of)| is_settled(of))
        {
            self.remove(*oldest);
        }
    }
}

impl Own {
    /// Says whether what the broker brings comes to this process.
    pub(crate) fn await_back(&self, is_awaited: bool) {
        self.is_awaited.store(is_awaited, Ordering::Relaxed);
        if !is_awaited {
            *self.known() = Known::default();
        }
    }

    /// Notes what is about to be published.
    pub(crate) fn begin(&self, messages: &[Publish]) -> Writing<'_> {
        let fate = Fate::default();
        let mut known = self.known();
        let first = known.next;
        if self.is_awaited.load(Ordering::Relaxed) {
            for message in messages {
                known.insert(message.clone(), fate.clone());
            }
        }
        Writing {
            own: self,
            numbers: first..known.next,
            fate,
        }
    }

    /// Whether a message that came is one of these, byte for byte; if so, what becomes of it. Each is known
    /// once.
    pub(crate) fn take_back(&self, came: &Publish) -> Option<(Publish, Fate)> {
        let mut known = self.known();
        let number = known.find(came)?;
        known.remove(number)
    }

    /// Returns when the fate of an append was decided since the last time.
    pub(crate) async fn settled(&self) {
        self.settled.notified().await;
    }

    fn settle(&self, writing: &Writing<'_>, is_in_mirror: bool) {
        let mut known = self.known();
        let left = known.messages.range(writing.numbers.clone());
        // Those of another time have other fates.
        let left = left.filter(|(_, (_, fate))| Arc::ptr_eq(&fate.0, &writing.fate.0));
        let left: Vec<_> = left
            .map(|(of, (message, _))| (*of, message.payload.len()))
            .collect();
        // The first word counts.
        if writing.fate.0.set(is_in_mirror).is_err() {
            return;
        }
        for (number, bytes) in left {
            match is_in_mirror {
                true => known.settled_bytes += bytes,
                false => drop(known.remove(number)),
            }
        }
        known.forget_oldest();
        drop(known);
        self.settled.notify_one();
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writing<'_> {
    /// It is in the mirror, on the disk.
    pub(crate) fn taken_in(self) {
        self.own.settle(&self, true);
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        // After `taken_in` it changes nothing.
        self.own.settle(self, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(part: usize, payload: &[u8]) -> Publish {
        Publish {
            topic: format!("p/log/s/1f/data/@7.1.{part}.2"),
            payload: payload.to_vec().into(),
            is_retained: false,
        }
    }

    fn awaited() -> Own {
        let own = Own::default();
        own.await_back(true);
        own
    }

    #[test]
    fn what_comes_back_is_known_once_and_waits_for_the_mirror() {
        let own = awaited();
        let both = [message(0, b"a"), message(1, b"b")];
        let writing = own.begin(&both);
        let (back, fate) = own.take_back(&both[0]).unwrap();
        assert_eq!((back, fate.is_in_mirror()), (both[0].clone(), None));
        assert!(own.take_back(&both[0]).is_none());
        writing.taken_in();
        assert_eq!(fate.is_in_mirror(), Some(true));
        let (_, fate) = own.take_back(&both[1]).unwrap();
        assert_eq!(fate.is_in_mirror(), Some(true));
        assert!(own.known().messages.is_empty() && own.known().by_digest.is_empty());
    }

    #[test]
    fn who_knows_the_name_of_a_message_does_not_pass_another_off_as_it() {
        let own = awaited();
        let writing = own.begin(&[message(0, b"a"), message(1, b"b")]);
        assert!(own.take_back(&message(0, b"x")).is_none());
        assert!(own.take_back(&message(1, b"a")).is_none());
        let of_another = Publish {
            topic: "p/log/s/1f/data/@7.2.0.2".into(),
            ..message(0, b"a")
        };
        assert!(own.take_back(&of_another).is_none());
        writing.taken_in();
    }

    #[test]
    fn the_same_message_twice_comes_back_twice() {
        let own = awaited();
        let message = message(0, b"a");
        own.begin(&[message.clone(), message.clone()]).taken_in();
        assert!(own.take_back(&message).is_some() && own.take_back(&message).is_some());
        assert!(own.take_back(&message).is_none());
    }

    #[test]
    fn an_append_that_is_given_up_is_left_to_what_comes_back() {
        let own = awaited();
        let both = [message(0, b"a"), message(1, b"b")];
        let writing = own.begin(&both);
        let (_, fate) = own.take_back(&both[0]).unwrap();
        drop(writing);
        assert_eq!(fate.is_in_mirror(), Some(false));
        assert!(own.take_back(&both[1]).is_none());
    }

    #[test]
    fn what_does_not_come_back_is_forgotten_and_where_nothing_comes_nothing_is_noted() {
        let own = awaited();
        let large = vec![0; KNOWN_BYTES_MAX / 2 + 1];
        for part in 1..4 {
            own.begin(&[message(part, &large)]).taken_in();
        }
        assert!(own.take_back(&message(1, &large)).is_none());
        assert!(own.take_back(&message(2, &large)).is_none());
        assert!(own.take_back(&message(3, &large)).is_some());
        assert_eq!(own.known().settled_bytes, 0);
        own.await_back(false);
        own.begin(&[message(0, b"a")]).taken_in();
        assert!(own.known().messages.is_empty());
    }
}

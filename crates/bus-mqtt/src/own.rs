//! What handles of this process have published on data topics, so that it is known when it comes back.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::Notify;

use crate::message::MessageId;
use crate::packet::Publish;

/// Bytes of messages that are in the mirror and may come back yet; of more, the oldest are forgotten, and
/// known again only by what the mirror has.
const KNOWN_BYTES_MAX: usize = 4 << 20;

/// The appends of the handles of one home in one process that the broker has not all brought back.
#[derive(Debug, Default)]
pub(crate) struct Own {
    appends: Mutex<VecDeque<Written>>,
    /// Whether what comes back comes to this process.
    is_awaited: AtomicBool,
    /// The fate of an append was decided.
    settled: Notify,
}

#[derive(Debug)]
struct Written {
    id: MessageId,
    /// Those that did not come back.
    messages: Vec<Publish>,
    fate: Fate,
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
    id: MessageId,
}

impl Own {
    /// Says whether what the broker brings comes to this process.
    pub(crate) fn await_back(&self, is_awaited: bool) {
        self.is_awaited.store(is_awaited, Ordering::Relaxed);
        if !is_awaited {
            self.appends().clear();
        }
    }

    /// Notes what is about to be published.
    pub(crate) fn begin(&self, id: MessageId, messages: &[Publish]) -> Writing<'_> {
        if self.is_awaited.load(Ordering::Relaxed) {
            self.appends().push_back(Written {
                id,
                messages: messages.to_vec(),
                fate: Fate::default(),
            });
        }
        Writing { own: self, id }
    }

    /// Whether a message that came is one of these, byte for byte; if so, what becomes of it. Each is known
    /// once.
    pub(crate) fn take_back(&self, id: MessageId, came: &Publish) -> Option<(Publish, Fate)> {
        let mut appends = self.appends();
        let index = appends.iter().position(|of| of.id == id)?;
        let written = appends.get_mut(index)?;
        let is_it = |of: &Publish| of.topic == came.topic && of.payload == came.payload;
        let at = written.messages.iter().position(is_it)?;
        let message = written.messages.swap_remove(at);
        let fate = written.fate.clone();
        if written.messages.is_empty() && fate.is_in_mirror().is_some() {
            appends.remove(index);
        }
        Some((message, fate))
    }

    /// Returns when the fate of an append was decided since the last time.
    pub(crate) async fn settled(&self) {
        self.settled.notified().await;
    }

    fn settle(&self, id: MessageId, is_in_mirror: bool) {
        let mut appends = self.appends();
        let Some(index) = appends.iter().position(|of| of.id == id) else {
            return;
        };
        if let Some(written) = appends.get(index) {
            // The first word counts.
            if written.fate.0.set(is_in_mirror).is_err() {
                return;
            }
            if !is_in_mirror || written.messages.is_empty() {
                appends.remove(index);
            }
        }
        let is_settled = |of: &Written| of.fate.is_in_mirror().is_some();
        let len = |of: &Written| of.messages.iter().map(|of| of.payload.len()).sum::<usize>();
        let mut bytes: usize = appends.iter().filter(|of| is_settled(of)).map(len).sum();
        while bytes > KNOWN_BYTES_MAX
            && let Some(oldest) = appends.iter().position(is_settled)
            && let Some(forgotten) = appends.remove(oldest)
        {
            bytes -= len(&forgotten);
        }
        drop(appends);
        self.settled.notify_one();
    }

    fn appends(&self) -> MutexGuard<'_, VecDeque<Written>> {
        self.appends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writing<'_> {
    /// It is in the mirror, on the disk.
    pub(crate) fn taken_in(self) {
        self.own.settle(self.id, true);
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        // After `taken_in` it changes nothing.
        self.own.settle(self.id, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: MessageId = MessageId {
        writer: 7,
        number: 1,
    };

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
        let writing = own.begin(ID, &both);
        let (back, fate) = own.take_back(ID, &both[0]).unwrap();
        assert_eq!((back, fate.is_in_mirror()), (both[0].clone(), None));
        assert!(own.take_back(ID, &both[0]).is_none());
        writing.taken_in();
        assert_eq!(fate.is_in_mirror(), Some(true));
        let (_, fate) = own.take_back(ID, &both[1]).unwrap();
        assert_eq!(fate.is_in_mirror(), Some(true));
        assert!(own.appends().is_empty());
    }

    #[test]
    fn who_knows_the_name_of_a_message_does_not_pass_another_off_as_it() {
        let own = awaited();
        let writing = own.begin(ID, &[message(0, b"a"), message(1, b"b")]);
        assert!(own.take_back(ID, &message(0, b"x")).is_none());
        assert!(own.take_back(ID, &message(1, b"a")).is_none());
        let other = MessageId { number: 2, ..ID };
        assert!(own.take_back(other, &message(0, b"a")).is_none());
        writing.taken_in();
    }

    #[test]
    fn an_append_that_is_given_up_is_left_to_what_comes_back() {
        let own = awaited();
        let both = [message(0, b"a"), message(1, b"b")];
        let writing = own.begin(ID, &both);
        let (_, fate) = own.take_back(ID, &both[0]).unwrap();
        drop(writing);
        assert_eq!(fate.is_in_mirror(), Some(false));
        assert!(own.take_back(ID, &both[1]).is_none());
    }

    #[test]
    fn what_does_not_come_back_is_forgotten_and_where_nothing_comes_nothing_is_noted() {
        let own = awaited();
        let large = vec![0; KNOWN_BYTES_MAX / 2 + 1];
        for number in 1..4 {
            let id = MessageId { number, ..ID };
            own.begin(id, &[message(0, &large)]).taken_in();
        }
        assert_eq!(own.appends().len(), 1);
        own.await_back(false);
        own.begin(ID, &[message(0, b"a")]).taken_in();
        assert!(own.appends().is_empty());
    }
}

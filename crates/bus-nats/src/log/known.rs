//! What a handle remembers of topics, so that it need not ask again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sealcast_bus::Topic;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Head;

/// Topics of which something is remembered.
const TOPICS_MAX: usize = 4_096;
/// Places that are remembered of one topic.
const PLACES_MAX: usize = 16;

/// What is remembered of all topics. Nothing of it is relied upon: it is compared with what the
/// server says.
#[derive(Debug)]
pub(super) struct Known {
    topics: Mutex<BTreeMap<Topic, Arc<TopicState>>>,
    misses: watch::Receiver<u64>,
}

/// What is remembered of one topic.
#[derive(Debug)]
pub(super) struct TopicState {
    /// Held by the append that is under way.
    pub(super) appending: tokio::sync::Mutex<()>,
    /// Appends in turn that are under way.
    in_turn: AtomicUsize,
    misses: watch::Receiver<u64>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    head: Option<(u64, Head, Instant)>,
    /// By offset.
    places: BTreeMap<u64, Place>,
}

/// Where a read ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The message before the one that comes next.
    pub(super) seq: u64,
    /// Messages that were asked for one by one on the way there.
    pub(super) asked: usize,
}

/// One of the appends in turn that are under way.
pub(super) struct InTurn<'a>(&'a AtomicUsize);

impl InTurn<'_> {
    /// Whether no other is under way.
    pub(super) fn is_last(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 1
    }
}

impl Drop for InTurn<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Known {
    pub(super) fn new(misses: watch::Receiver<u64>) -> Self {
        Self {
            topics: Mutex::default(),
            misses,
        }
    }

    pub(super) fn topic(&self, topic: &Topic) -> Arc<TopicState> {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = topics.get(topic) {
            return Arc::clone(state);
        }
        if topics.len() >= TOPICS_MAX {
            topics.retain(|_, state| Arc::strong_count(state) > 1);
        }
        let state = Arc::new(TopicState {
            appending: tokio::sync::Mutex::default(),
            in_turn: AtomicUsize::new(0),
            misses: self.misses.clone(),
            seen: Mutex::default(),
        });
        topics.insert(topic.clone(), Arc::clone(&state));
        state
    }
}

impl TopicState {
    /// How the topic ended when that was last seen, over the connection that there is now.
    pub(super) fn head(&self) -> Option<Head> {
        Some(self.seen_head()?.0)
    }

    /// The same, and when it was seen.
    pub(super) fn seen_head(&self) -> Option<(Head, Instant)> {
        let now = *self.misses.borrow();
        let (at, head, since) = self.seen().head?;
        (at == now).then_some((head, since))
    }

    pub(super) fn put_head(&self, head: Head) {
        let now = *self.misses.borrow();
        self.seen().head = Some((now, head, Instant::now()));
    }

    /// Remembers a head that is further on than the one that is remembered, if any is.
    pub(super) fn see_head(&self, head: Head) {
        if self.head().is_some_and(|known| known.last < head.last) {
            self.put_head(head);
        }
    }

    pub(super) fn forget_head(&self) {
        self.seen().head = None;
    }

    /// Where the message with an offset comes next, or another before it.
    pub(super) fn place(&self, offset: u64) -> Option<Place> {
        let seen = self.seen();
        let (_, place) = seen.places.range(..=offset).next_back()?;
        Some(*place)
    }

    /// Remembers that the item at an offset comes next in a place.
    pub(super) fn put_place(&self, offset: u64, place: Place) {
        let mut seen = self.seen();
        seen.places.insert(offset, place);
        if seen.places.len() > PLACES_MAX {
            seen.places.pop_first();
        }
    }

    /// The connection that there is now, counted.
    pub(super) fn misses(&self) -> u64 {
        *self.misses.borrow()
    }

    /// Counts an append in turn for as long as it is under way.
    pub(super) fn in_turn(&self) -> InTurn<'_> {
        self.in_turn.fetch_add(1, Ordering::Relaxed);
        InTurn(&self.in_turn)
    }

    pub(super) fn forget_places(&self) {
        self.seen().places.clear();
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Messages that come by themselves, ahead of whoever reads a topic in order.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use sealcast_bus::Topic;
use tokio::time::{Instant, sleep};

use crate::server::{Coming, Server, Stored};

/// Feeds that wait for their readers to come back, at most.
const FEEDS_MAX: usize = 4;
/// How long a feed waits for its reader.
const IDLE: Duration = Duration::from_secs(10);

/// The messages of one topic from one on, and the parts that they name.
#[derive(Debug)]
pub(super) struct Feed {
    messages: Coming,
    /// One that was taken too early.
    given_back: Option<Stored>,
    parts: Option<Coming>,
    later_part: Option<Stored>,
    /// The part that came last.
    part_at: u64,
    /// The message behind which the next one is.
    at: u64,
    /// Over which connection it comes.
    misses: u64,
}

impl Feed {
    /// Has the messages of a subject behind one come. Nothing, where the server does not do that.
    pub(super) async fn open(server: &Server, subject: &str, at: u64) -> Option<Self> {
        let misses = *server.misses().borrow();
        Some(Self {
            messages: server.coming(subject, at + 1).await?,
            given_back: None,
            parts: None,
            later_part: None,
            part_at: 0,
            at,
            misses,
        })
    }

    /// The next message. Nothing, where none comes in time: that is not an end.
    pub(super) async fn next(&mut self) -> Option<Stored> {
        let next = match self.given_back.take() {
            Some(stored) => stored,
            None => self.messages.next().await?,
        };
        self.at = next.seq;
        Some(next)
    }

    /// The next message, if it is here.
    pub(super) fn come(&mut self) -> Option<Stored> {
        self.next().now_or_never()?
    }

    /// Takes a message back that comes behind the one at `at`.
    pub(super) fn give_back(&mut self, stored: Stored, at: u64) {
        self.given_back = Some(stored);
        self.at = at;
    }

    fn goes_on(&self, at: u64, misses: u64) -> bool {
        self.at == at && self.misses == misses
    }

    /// The part at a sequence number. Nothing, where it does not come in time or by this way.
    pub(super) async fn part(&mut self, server: &Server, subject: &str, seq: u64) -> Option<Bytes> {
        if self.parts.is_none() {
            self.parts = server.coming(subject, seq).await;
        }
        // One that has passed does not come again.
        if seq <= self.part_at {
            return None;
        }
        let parts = self.parts.as_mut()?;
        loop {
            let part = match self.later_part.take() {
                Some(part) => part,
                None => parts.next().await?,
            };
            if part.seq > seq {
                self.later_part = Some(part);
                return None;
            }
            self.part_at = part.seq;
            if part.seq == seq {
                return Some(part.bytes);
            }
        }
    }
}

/// Feeds between two reads.
#[derive(Debug, Default)]
pub(super) struct Feeds(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    feeds: Vec<(Topic, Feed, Instant)>,
    is_watched: bool,
}

impl Feeds {
    /// The feed of a topic that goes on behind a message.
    pub(super) fn take(&self, topic: &Topic, at: u64, misses: u64) -> Option<Feed> {
        let mut waiting = self.waiting();
        let is_it =
            |(of, feed, _): &(Topic, Feed, Instant)| of == topic && feed.goes_on(at, misses);
        let index = waiting.feeds.iter().position(is_it)?;
        Some(waiting.feeds.swap_remove(index).1)
    }

    /// Whether there is one that goes on there.
    pub(super) fn has(&self, topic: &Topic, at: u64, misses: u64) -> bool {
        let waiting = self.waiting();
        let is_it =
            |(of, feed, _): &(Topic, Feed, Instant)| of == topic && feed.goes_on(at, misses);
        waiting.feeds.iter().any(is_it)
    }

    /// Keeps a feed for the next read, for a while, and no other of its topic.
    pub(super) fn put(self: &Arc<Self>, topic: &Topic, feed: Feed) {
        let mut waiting = self.waiting();
        waiting.feeds.retain(|(of, _, _)| of != topic);
        waiting.feeds.push((topic.clone(), feed, Instant::now()));
        if waiting.feeds.len() > FEEDS_MAX {
            let oldest = waiting.feeds.iter().enumerate();
            if let Some((index, _)) = oldest.min_by_key(|(_, (_, _, since))| *since) {
                waiting.feeds.swap_remove(index);
            }
        }
        if !std::mem::replace(&mut waiting.is_watched, true) {
            tokio::spawn(end_idle(Arc::downgrade(self)));
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends feeds that nobody comes back to.
async fn end_idle(of: Weak<Feeds>) {
    loop {
        sleep(IDLE).await;
        let Some(feeds) = of.upgrade() else { return };
        let mut waiting = feeds.waiting();
        waiting.feeds.retain(|(_, _, since)| since.elapsed() < IDLE);
        if waiting.feeds.is_empty() {
            waiting.is_watched = false;
            return;
        }
    }
}

use std::collections::VecDeque;
use std::future;
use std::sync::Arc;

use super::scan::Readers;
use super::sent::{self, Heard};
use super::watch::Watch;
use crate::{BusError, BusFuture, Listener, Topic};

/// Payload bytes that are read ahead, exceeded by one payload at most.
const AHEAD_BYTES_MAX: usize = 1 << 20;

/// Listens to ephemeral topics of a file bus.
#[derive(Debug)]
pub(super) struct FileListener {
    readers: Arc<Readers>,
    watch: Arc<Watch>,
    /// Sorted.
    topics: Arc<[Topic]>,
    /// The id of the last row that was looked at.
    seen: i64,
    ahead: VecDeque<Heard>,
}

impl FileListener {
    pub(super) async fn start(
        readers: Arc<Readers>,
        watch: Arc<Watch>,
        mut topics: Vec<Topic>,
    ) -> Result<Self, BusError> {
        topics.sort();
        let seen = readers.run(|connection| sent::newest(connection)).await?;
        Ok(Self {
            readers,
            watch,
            topics: topics.into(),
            seen,
            ahead: VecDeque::new(),
        })
    }

    async fn hear(&mut self) -> Result<Heard, BusError> {
        if self.topics.is_empty() {
            return future::pending().await;
        }
        if let Some(heard) = self.ahead.pop_front() {
            return Ok(heard);
        }
        let mut waiting = self.watch.wait()?;
        loop {
            // Forgotten before the read: what changes during it is told again.
            waiting.forget();
            let (seen, topics) = (self.seen, Arc::clone(&self.topics));
            let (seen, found) = self
                .readers
                .run(move |connection| sent::after(connection, seen, &topics, AHEAD_BYTES_MAX))
                .await?;
            self.seen = seen;
            self.ahead.extend(found);
            match self.ahead.pop_front() {
                Some(heard) => return Ok(heard),
                None => waiting.changed().await,
            }
        }
    }
}

impl Listener for FileListener {
    fn next(&mut self) -> BusFuture<'_, Heard> {
        Box::pin(self.hear())
    }
}

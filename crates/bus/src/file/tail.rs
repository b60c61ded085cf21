use std::future;
use std::sync::Arc;

use rusqlite::Connection;

use super::far::Far;
use super::fault::Fault;
use super::scan::{self, Readers};
use super::watch::Watch;
use crate::{BusError, BusFuture, Item, Offset, Tail, Topic, each_once};

/// Payload bytes of one batch, unless one item alone is larger.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// Follows topics of a file bus.
#[derive(Debug)]
pub(super) struct FileTail {
    readers: Arc<Readers>,
    watch: Arc<Watch>,
    /// What each topic goes on with.
    positions: Arc<Vec<(Topic, Offset)>>,
    /// The topic that is looked at first, so that each gets its turn.
    turn: usize,
}

impl FileTail {
    pub(super) fn new(
        readers: Arc<Readers>,
        watch: Arc<Watch>,
        topics: Vec<(Topic, Offset)>,
    ) -> Self {
        Self {
            readers,
            watch,
            positions: Arc::new(each_once(topics).into_iter().collect()),
            turn: 0,
        }
    }

    async fn next_batch(&mut self) -> Result<(Topic, Vec<Item>), BusError> {
        if self.positions.is_empty() {
            return future::pending().await;
        }
        let mut waiting = self.watch.wait()?;
        loop {
            // Forgotten before the read: what changes during it is told again.
            waiting.forget();
            let positions = Arc::clone(&self.positions);
            let turn = self.turn;
            let readers = Arc::clone(&self.readers);
            let ready = self
                .readers
                .run(move |connection| first_ready(connection, readers.far(), &positions, turn))
                .await?;
            let Some((index, items)) = ready else {
                waiting.changed().await;
                continue;
            };
            // Whatever comes of it, the others come first then.
            self.turn = index + 1;
            let items = items.map_err(|fault| self.readers.tell(fault))?;
            return Ok(self.advance(index, items));
        }
    }

    fn advance(&mut self, index: usize, items: Vec<Item>) -> (Topic, Vec<Item>) {
        let (topic, position) = &mut Arc::make_mut(&mut self.positions)[index];
        if let Some(last) = items.last() {
            *position = Offset(last.offset.0 + 1);
        }
        (topic.clone(), items)
    }
}

impl Tail for FileTail {
    fn next(&mut self) -> BusFuture<'_, (Topic, Vec<Item>)> {
        Box::pin(self.next_batch())
    }
}

/// The index of a topic, and what comes of reading it.
type Looked = (usize, Result<Vec<Item>, Fault>);

/// The first topic with items, or what keeps it from being read, beginning at `turn`.
fn first_ready(
    connection: &mut Connection,
    far: Option<&Far>,
    positions: &[(Topic, Offset)],
    turn: usize,
) -> Result<Option<Looked>, Fault> {
    let snapshot = connection.transaction()?;
    let order = (0..positions.len()).cycle().skip(turn);
    for index in order.take(positions.len()) {
        let (topic, from) = &positions[index];
        match scan::items(&snapshot, far, topic, *from, BATCH_BYTES_MAX) {
            Ok(items) if items.is_empty() => {}
            found => return Ok(Some((index, found))),
        }
    }
    Ok(None)
}

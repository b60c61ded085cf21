//! Device lists and chains of the access log of which the bus shows less than is known here, until it
//! shows all of it again.

use std::collections::BTreeSet;

use sealcast_engine::ControlTopic;

use super::Acting;
use crate::around::Stop;
use crate::place::topic_id;

/// By the digests of their names.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    topics: BTreeSet<[u8; 32]>,
    /// What is in the store.
    kept: BTreeSet<[u8; 32]>,
}

impl Lost {
    pub(super) fn new(kept: BTreeSet<[u8; 32]>) -> Self {
        Self {
            topics: kept.clone(),
            kept,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// What the store has to be told: which there are now, and which no more.
    pub(super) fn due(&self) -> Vec<([u8; 32], bool)> {
        let new = self.topics.difference(&self.kept).map(|of| (*of, true));
        let over = self.kept.difference(&self.topics).map(|of| (*of, false));
        new.chain(over).collect()
    }

    pub(super) fn keep(&mut self) {
        self.kept.clone_from(&self.topics);
    }
}

impl Acting<'_> {
    /// Notes that the bus does not show what it showed of a topic.
    pub(super) fn note_lost(&mut self, of: &ControlTopic, id: [u8; 32]) {
        if *of != ControlTopic::Keys {
            self.run.lost.topics.insert(id);
        }
    }

    /// Looks what the bus shows by now of what it had lost, before anything is put back.
    pub(super) fn compare_lost(&mut self) -> Result<(), Stop> {
        if self.run.lost.is_empty() {
            return Ok(());
        }
        for of in self.run.view.wanted() {
            let id = topic_id(&of.name(self.around.stream));
            if self.run.lost.topics.contains(&id) && self.lost_of(&of)?.is_empty() {
                self.run.lost.topics.remove(&id);
            }
        }
        Ok(())
    }
}

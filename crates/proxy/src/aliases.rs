//! The numbers that stand for topics in one direction of a connection of MQTT 5.

use std::collections::HashMap;
use std::sync::Arc;

use crate::fields::Malformed;
use crate::packet::Publish;

/// What one of them takes besides its topic.
const ENTRY_BYTES: usize = 64;

/// What each number stands for, as its sender said. Whoever is behind the relay may not know: a message that said so
/// may not have gone on.
#[derive(Debug)]
pub(crate) struct Aliases {
    topics: HashMap<u16, Entry>,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Entry {
    topic: Arc<str>,
    /// Whether it went on.
    is_told: bool,
}

/// There are more of them than there is room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoTopic {
    /// The number stands for nothing.
    Malformed,
    /// There is no room for more topics.
    Full,
}

impl From<Malformed> for NoTopic {
    fn from(Malformed: Malformed) -> Self {
        Self::Malformed
    }
}

impl Aliases {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            topics: HashMap::new(),
            bytes: 0,
            bytes_max,
        }
    }

    /// The topic of a message, and whether the message has to say it anew where it goes on.
    pub(crate) fn topic(&mut self, publish: &Publish<'_>) -> Result<(Arc<str>, bool), NoTopic> {
        let Some(alias) = publish.alias else {
            return Ok((publish.topic.into(), false));
        };
        if publish.topic.is_empty() {
            let known = self.topics.get(&alias).ok_or(NoTopic::Malformed)?;
            return Ok((Arc::clone(&known.topic), !known.is_told));
        }
        let topic: Arc<str> = publish.topic.into();
        let entry = Entry {
            topic: Arc::clone(&topic),
            is_told: false,
        };
        self.bytes += ENTRY_BYTES + topic.len();
        if let Some(before) = self.topics.insert(alias, entry) {
            self.bytes -= ENTRY_BYTES + before.topic.len();
        }
        match self.bytes > self.bytes_max {
            true => Err(NoTopic::Full),
            false => Ok((topic, false)),
        }
    }

    /// A message went on, with its topic where that had to be said.
    pub(crate) fn went_on(&mut self, publish: &Publish<'_>) {
        let entry = publish.alias.and_then(|alias| self.topics.get_mut(&alias));
        if let Some(entry) = entry {
            entry.is_told = true;
        }
    }
}

//! The numbers that stand for topics in one direction of a connection of MQTT 5.

use std::collections::HashMap;
use std::sync::Arc;

use crate::fields::Malformed;
use crate::packet::Publish;

/// What one of them takes besides its topic.
const ENTRY_BYTES: usize = 64;

/// What each number stands for, as its sender said, and as whoever is behind the relay was told: a message that said so
/// may not have gone on.
#[derive(Debug)]
pub(crate) struct Aliases {
    said: HashMap<u16, Arc<str>>,
    told: HashMap<u16, Arc<str>>,
    /// Of what was said.
    bytes: usize,
    bytes_max: usize,
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
            said: HashMap::new(),
            told: HashMap::new(),
            bytes: 0,
            bytes_max,
        }
    }

    /// The topic of a message; each is asked for once, in the order in which they came.
    pub(crate) fn topic(&mut self, publish: &Publish<'_>) -> Result<Arc<str>, NoTopic> {
        let Some(alias) = publish.alias else {
            return Ok(publish.topic.into());
        };
        if publish.topic.is_empty() {
            let known = self.said.get(&alias).ok_or(NoTopic::Malformed)?;
            return Ok(Arc::clone(known));
        }
        let topic: Arc<str> = publish.topic.into();
        self.bytes += ENTRY_BYTES + topic.len();
        if let Some(before) = self.said.insert(alias, Arc::clone(&topic)) {
            self.bytes -= ENTRY_BYTES + before.len();
        }
        match self.bytes > self.bytes_max {
            true => Err(NoTopic::Full),
            false => Ok(topic),
        }
    }

    /// Whether a message has to say its topic anew where it goes on now.
    pub(crate) fn is_new(&self, publish: &Publish<'_>, topic: &str) -> bool {
        let told = publish.alias.and_then(|alias| self.told.get(&alias));
        publish.topic.is_empty() && told.is_none_or(|told| **told != *topic)
    }

    /// A message went on, with its topic where that had to be said.
    pub(crate) fn went_on(&mut self, publish: &Publish<'_>, topic: &Arc<str>) {
        if let Some(alias) = publish.alias {
            self.told.insert(alias, Arc::clone(topic));
        }
    }
}

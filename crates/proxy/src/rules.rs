//! What is done with a message, by its topic.

use sealcast::Name;

use crate::json::Field;
use crate::topics::Topics;

/// What is done with the messages on some topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The topics.
    pub topics: Topics,
    /// Which values of messages that are JSON are sealed or opened; where none is named, messages as they are.
    pub fields: Vec<Field>,
    /// What is done.
    pub act: Act,
}

/// What is done with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// What clients publish is sealed; what they receive stays as it is.
    Seal {
        /// For which stream.
        stream: Name,
    },
    /// What clients receive is opened; they may not publish.
    Open {
        /// Of which stream.
        stream: Name,
        /// What is done with what cannot be opened.
        undecryptable: Undecryptable,
    },
    /// What clients publish is sealed, and what they receive is opened.
    Both {
        /// Of which stream.
        stream: Name,
        /// What is done with what cannot be opened.
        undecryptable: Undecryptable,
    },
    /// All is passed on in clear.
    Pass,
}

/// What is done with a message that cannot be opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Undecryptable {
    /// It is kept, and delivered when its key has come.
    #[default]
    Park,
    /// It is not delivered.
    Drop,
    /// It is delivered as it is, as ciphertext, where its publisher sealed it and only the key is missing. What
    /// else does not open is not delivered.
    Forward,
}

/// Rules, of which the first that names a topic decides. What none names is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules(Vec<Rule>);

/// What is done with what a client publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Up<'a> {
    Seal(&'a Name, &'a [Field]),
    Pass,
    /// No rule says what to do.
    NoRule,
    /// The topic is of a stream that is only opened here.
    OpenOnly,
}

/// What is done with what a client receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Down<'a> {
    Open(&'a Name, &'a [Field], Undecryptable),
    Pass,
    NoRule,
}

impl Rules {
    /// Rules in their order; or the index of one that never decides, and of the one before it that always does.
    ///
    /// # Errors
    ///
    /// Fails when there is such a rule: it would not do what it says.
    pub fn new(rules: Vec<Rule>) -> Result<Self, (usize, usize)> {
        for (index, rule) in rules.iter().enumerate() {
            let earlier = &rules[..index];
            if let Some(hides) = earlier.iter().position(|of| of.topics.covers(&rule.topics)) {
                return Err((index, hides));
            }
        }
        Ok(Self(rules))
    }

    /// All of them, in their order.
    pub fn all(&self) -> &[Rule] {
        &self.0
    }

    /// The rule that decides on a topic, with its index.
    pub fn of(&self, topic: &str) -> Option<(usize, &Rule)> {
        let mut rules = self.0.iter().enumerate();
        rules.find(|(_, rule)| rule.topics.matches(topic))
    }

    /// The streams that they name, each once.
    pub fn streams(&self) -> Vec<&Name> {
        let mut streams: Vec<_> = self.0.iter().filter_map(|rule| rule.act.stream()).collect();
        streams.sort();
        streams.dedup();
        streams
    }

    /// Whether any of them seals.
    pub(crate) fn seal(&self) -> bool {
        self.0.iter().any(|rule| rule.act.seals())
    }

    /// Whether any of them opens.
    pub(crate) fn open(&self) -> bool {
        self.0.iter().any(|rule| rule.act.opens())
    }

    pub(crate) fn up(&self, topic: &str) -> Up<'_> {
        let Some((_, rule)) = self.of(topic) else {
            return Up::NoRule;
        };
        match &rule.act {
            Act::Seal { stream } | Act::Both { stream, .. } => Up::Seal(stream, &rule.fields),
            Act::Pass => Up::Pass,
            Act::Open { .. } => Up::OpenOnly,
        }
    }

    pub(crate) fn down(&self, topic: &str) -> Down<'_> {
        let Some((_, rule)) = self.of(topic) else {
            return Down::NoRule;
        };
        match &rule.act {
            Act::Open {
                stream,
                undecryptable,
            }
            | Act::Both {
                stream,
                undecryptable,
            } => Down::Open(stream, &rule.fields, *undecryptable),
            Act::Pass | Act::Seal { .. } => Down::Pass,
        }
    }
}

impl Act {
    /// Whether what clients publish is sealed.
    pub fn seals(&self) -> bool {
        matches!(self, Self::Seal { .. } | Self::Both { .. })
    }

    /// Whether what clients receive is opened.
    pub fn opens(&self) -> bool {
        matches!(self, Self::Open { .. } | Self::Both { .. })
    }

    /// The stream that is sealed for or opened.
    pub fn stream(&self) -> Option<&Name> {
        match self {
            Self::Seal { stream } | Self::Open { stream, .. } | Self::Both { stream, .. } => {
                Some(stream)
            }
            Self::Pass => None,
        }
    }
}

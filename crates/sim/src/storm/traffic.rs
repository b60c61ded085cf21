//! What is counted of a storm.

use std::collections::BTreeMap;

use sealcast_engine::AskBody;

/// What an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Asks for keys.
    Request,
    /// Says that somebody is about to answer.
    Claim,
    /// Says that nothing is given.
    Refusal,
    /// Says that the keys work.
    Receipt,
    /// Gives keys.
    Bundle,
}

impl Kind {
    pub(super) fn of(body: &AskBody) -> Self {
        match body {
            AskBody::Solicitation(_) => Self::Request,
            AskBody::Claim(_) => Self::Claim,
            AskBody::Refusal(_) => Self::Refusal,
            AskBody::Receipt(_) => Self::Receipt,
        }
    }
}

/// Items, and how long they are all together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// How many.
    pub items: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Amount {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.items += 1;
        self.bytes += bytes.len() as u64;
    }
}

/// What some devices sent and heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    sent: BTreeMap<Kind, Amount>,
    /// What the bus delivered to them.
    pub heard: Amount,
}

impl Traffic {
    pub(super) fn note_sent(&mut self, kind: Kind, bytes: &[u8]) {
        self.sent.entry(kind).or_default().add(bytes);
    }

    /// What they sent of one kind. A receipt and a refusal go to two topics, and count twice.
    pub fn sent(&self, kind: Kind) -> Amount {
        self.sent.get(&kind).copied().unwrap_or_default()
    }

    /// What they sent in all.
    pub fn sent_in_all(&self) -> Amount {
        let mut all = Amount::default();
        for of in self.sent.values() {
            all.items += of.items;
            all.bytes += of.bytes;
        }
        all
    }
}

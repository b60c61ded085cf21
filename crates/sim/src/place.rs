use std::collections::BTreeMap;

use sealcast_crypto::digest;

use crate::bus::Item;

const LABEL: &str = "sealcast.v1 read item";
const LEN: usize = 8 + 32;
/// How long a look at what the bus shows is good for, where a topic's end has not moved.
const LOOK_AGAIN_MS: u64 = 60_000;

/// How far a topic was read: where to go on, and the digest of the item before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) at: u64,
    before: [u8; 32],
}

impl Place {
    pub(crate) fn behind(item: &Item) -> Self {
        Self {
            at: item.offset + 1,
            before: *digest(LABEL, &[&item.bytes]).as_bytes(),
        }
    }

    pub(crate) fn last(&self) -> Option<u64> {
        self.at.checked_sub(1)
    }

    /// Whether the bus still shows the item that this place is behind.
    pub(crate) fn is_shown(&self, first: Option<&Item>) -> bool {
        self.last().is_none() || first.is_some_and(|first| Self::behind(first) == *self)
    }

    pub(crate) fn to_bytes(self) -> Vec<u8> {
        [&self.at.to_be_bytes()[..], &self.before].concat()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; LEN] = bytes.try_into().ok()?;
        let (at, before) = bytes.split_first_chunk()?;
        Some(Self {
            at: u64::from_be_bytes(*at),
            before: before.try_into().ok()?,
        })
    }
}

/// The places of the control topics, by the digests of their names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    all: BTreeMap<[u8; 32], Place>,
    /// When this run last saw that the bus shows what it showed.
    checked: BTreeMap<[u8; 32], u64>,
}

impl Places {
    pub(crate) fn new(all: BTreeMap<[u8; 32], Place>) -> Self {
        Self {
            all,
            checked: BTreeMap::new(),
        }
    }

    pub(crate) fn of(&self, topic: &[u8; 32]) -> Place {
        self.all.get(topic).copied().unwrap_or_default()
    }

    pub(crate) fn set(&mut self, topic: [u8; 32], place: Place, now: u64) {
        self.all.insert(topic, place);
        self.checked.insert(topic, now);
    }

    pub(crate) fn is_checked(&self, topic: &[u8; 32], now: u64) -> bool {
        let at = self.checked.get(topic);
        at.is_some_and(|at| now.abs_diff(*at) < LOOK_AGAIN_MS)
    }
}

/// The name of a topic in the store.
pub(crate) fn topic_id(topic: &str) -> [u8; 32] {
    *digest("sealcast.v1 cursor", &[topic.as_bytes()]).as_bytes()
}

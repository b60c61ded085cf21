use std::collections::BTreeMap;

use sealcast_crypto::digest;
use sealcast_engine::ReadBy;

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

/// How far a home got in a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reached {
    /// Where to read on.
    pub(crate) place: Place,
    /// How far the bus showed it, where that is further: what lies between is read again, and must
    /// still be there.
    pub(crate) shown: Option<Place>,
    /// By what it was read, where that matters.
    pub(crate) by: Option<ReadBy>,
}

impl Reached {
    /// The form in which a store keeps it.
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let shown = match self.by {
            Some(_) => Some(self.shown.unwrap_or_default()),
            None => self.shown,
        };
        let shown = shown.map(Place::to_bytes).unwrap_or_default();
        let by = self.by.iter().flat_map(ReadBy::to_bytes);
        [self.place.to_bytes(), shown, by.collect()].concat()
    }

    /// Reads what [`to_bytes`](Self::to_bytes) made.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (place, rest) = bytes.split_at_checked(LEN)?;
        let (shown, by) = rest.split_at(LEN.min(rest.len()));
        let shown = match shown.is_empty() {
            true => None,
            false => Some(Place::from_bytes(shown)?),
        };
        let by = match by.is_empty() {
            true => None,
            false => Some(ReadBy::from_bytes(by)?),
        };
        Some(Self {
            place: Place::from_bytes(place)?,
            shown: shown.filter(|shown| by.is_none() || *shown != Place::default()),
            by,
        })
    }
}

/// What is kept of how far a topic was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeping {
    /// That it was.
    Read,
    /// The place that is there: what came since is read again.
    AsItWas,
    /// That it is to be read again from its start.
    Start,
    /// The same, while the bus shows less than it did: that is noticed again.
    StartAsShown,
}

/// The places of the control topics, by the digests of their names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    all: BTreeMap<[u8; 32], Place>,
    /// What is in the store.
    kept: BTreeMap<[u8; 32], Reached>,
    /// How far a topic was shown beyond that, and was not looked at since.
    shown: BTreeMap<[u8; 32], Place>,
    /// When this run last saw that the bus shows what it showed.
    checked: BTreeMap<[u8; 32], u64>,
}

impl Places {
    pub(crate) fn new(kept: BTreeMap<[u8; 32], Reached>) -> Self {
        let shown = kept.iter().filter_map(|(of, at)| Some((*of, at.shown?)));
        Self {
            all: kept.iter().map(|(of, at)| (*of, at.place)).collect(),
            shown: shown.collect(),
            kept,
            checked: BTreeMap::new(),
        }
    }

    pub(crate) fn shown(&self, topic: &[u8; 32]) -> Option<Place> {
        self.shown.get(topic).copied()
    }

    pub(crate) fn read_again(&mut self, topic: [u8; 32]) {
        let place = self.all.remove(&topic).filter(|of| of.last().is_some());
        let shown = place.filter(|_| !self.shown.contains_key(&topic));
        self.shown.extend(shown.map(|place| (topic, place)));
    }

    pub(crate) fn forget_shown(&mut self, topic: &[u8; 32]) {
        self.shown.remove(topic);
    }

    pub(crate) fn due(
        &self,
        topic: [u8; 32],
        read: Place,
        by: Option<ReadBy>,
        keeping: Keeping,
    ) -> Option<Reached> {
        let kept = self.kept.get(&topic).copied().unwrap_or_default();
        let place = match keeping {
            Keeping::Read => read,
            Keeping::AsItWas => kept.place,
            Keeping::Start | Keeping::StartAsShown => Place::default(),
        };
        let shown = match keeping {
            Keeping::StartAsShown => kept.shown.unwrap_or(kept.place),
            Keeping::Read | Keeping::AsItWas | Keeping::Start => self.shown(&topic).unwrap_or(read),
        };
        let shown = Some(shown).filter(|shown| *shown != place);
        let reached = Reached { place, shown, by };
        // What is here may not be what another process has kept since.
        let is_to_be_read = matches!(keeping, Keeping::Start | Keeping::StartAsShown);
        (is_to_be_read || reached != kept).then_some(reached)
    }

    pub(crate) fn keep(&mut self, topic: [u8; 32], reached: Reached) {
        self.kept.insert(topic, reached);
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

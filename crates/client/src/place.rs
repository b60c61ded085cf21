//! How far topics were read, and how to notice that a bus shows another past than it did.

use std::collections::BTreeMap;

use sealcast_bus::{Item, Offset};
use sealcast_crypto::digest;
use sealcast_protocol::Position;

const ITEM_LABEL: &str = "sealcast.v1 read item";
const LEN: usize = 8 + 32;
/// How long a look at what the bus shows is good for, where a topic's end has not moved.
const LOOK_AGAIN_MS: u64 = 60_000;

/// How far a topic was read: where to go on, and the digest of the item just before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) at: Offset,
    before: [u8; 32],
}

impl Place {
    /// Behind an item.
    pub(crate) fn behind(item: &Item) -> Self {
        Self {
            at: Offset(item.offset.0.saturating_add(1)),
            before: *digest(ITEM_LABEL, &[&item.payload]).as_bytes(),
        }
    }

    /// At an item of which nobody knows what comes before it.
    pub(crate) fn unknown(at: Offset) -> Self {
        Self {
            at,
            before: [0; 32],
        }
    }

    /// Where the item lies that this place is behind; `None` at the start.
    pub(crate) fn last(&self) -> Option<Offset> {
        self.at.0.checked_sub(1).map(Offset)
    }

    /// Whether the bus still shows the item that this place is behind. `first` is what it shows
    /// from that item on. An item that was trimmed proves nothing.
    pub(crate) fn is_shown(&self, first: Option<&Item>) -> bool {
        let Some(last) = self.last() else {
            return true;
        };
        first.is_some_and(|first| first.offset > last || Self::behind(first) == *self)
    }

    /// The form in which a store keeps it.
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        [&self.at.0.to_be_bytes()[..], &self.before].concat()
    }

    /// Reads what [`to_bytes`](Self::to_bytes) made.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; LEN] = bytes.try_into().ok()?;
        let (at, before) = bytes.split_first_chunk()?;
        Some(Self {
            at: Offset(u64::from_be_bytes(*at)),
            before: before.try_into().ok()?,
        })
    }
}

/// The places in the control topics of a stream, by the digests of the topics' names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    all: BTreeMap<[u8; 32], Place>,
    /// When this run last saw that the bus shows what it showed of a topic.
    checked: BTreeMap<[u8; 32], Position>,
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

    /// Notes a place that was just read up to, so that it need not be checked for a while.
    pub(crate) fn set(&mut self, topic: [u8; 32], place: Place, now: Position) {
        self.all.insert(topic, place);
        self.checked.insert(topic, now);
    }

    /// Whether a topic was looked at not long ago. A bus that went back may since have grown to
    /// where it was, and then its end says nothing.
    pub(crate) fn is_checked(&self, topic: &[u8; 32], now: Position) -> bool {
        let at = self.checked.get(topic);
        at.is_some_and(|at| now.0.abs_diff(at.0) < LOOK_AGAIN_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(at: u64, payload: &[u8]) -> Item {
        Item {
            offset: Offset(at),
            payload: payload.to_vec(),
        }
    }

    #[test]
    fn a_place_is_shown_by_the_item_before_it_and_by_no_other() {
        let place = Place::behind(&item(6, b"six"));
        assert!(place.is_shown(Some(&item(6, b"six"))));
        assert!(!place.is_shown(Some(&item(6, b"other"))));
        assert!(!place.is_shown(None));
        assert!(place.is_shown(Some(&item(9, b"after a trim"))));
        assert!(Place::default().is_shown(None));
    }

    #[test]
    fn a_place_comes_back_from_its_bytes_and_from_no_others() {
        let place = Place::behind(&item(u64::MAX - 1, b"x"));
        let bytes = place.to_bytes();
        assert_eq!(Place::from_bytes(&bytes), Some(place));
        assert_eq!(Place::from_bytes(&bytes[..8]), None);
    }

    #[test]
    fn a_look_is_good_for_a_minute_by_whatever_way_the_clock_goes() {
        let (topic, now) = ([1; 32], Position(1_000_000));
        let mut places = Places::default();
        assert!(!places.is_checked(&topic, now));
        places.set(topic, Place::default(), now);
        assert!(places.is_checked(&topic, now.after(LOOK_AGAIN_MS - 1)));
        assert!(!places.is_checked(&topic, now.after(LOOK_AGAIN_MS)));
        assert!(!places.is_checked(&topic, Position(now.0 - LOOK_AGAIN_MS)));
    }
}

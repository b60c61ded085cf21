//! How far topics were read, and how to notice that a bus shows another past than it did.

use std::collections::BTreeMap;

use sealcast_bus::{Item, Offset};
use sealcast_crypto::digest;
use sealcast_engine::ReadBy;
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

    /// Behind the same item, wherever another bus has it; `None` where that is not known.
    pub(crate) fn anywhere(self) -> Option<Self> {
        (self.before != [0; 32]).then_some(Self {
            at: Offset(0),
            before: self.before,
        })
    }

    /// Whether it is known behind which item this is, and not where that lies.
    pub(crate) fn is_anywhere(&self) -> bool {
        self.anywhere() == Some(*self)
    }

    /// Whether the place is behind this item, which may lie elsewhere.
    pub(crate) fn is_behind(&self, item: &Item) -> bool {
        Self::behind(item).before == self.before
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

/// How far a home got in a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reached {
    /// Where to read on.
    pub(crate) place: Place,
    /// How far the bus showed it, where that is further: what lies between is read again, and must
    /// still be there. Of a topic that was read on another bus it says what must be there, and not where.
    pub(crate) shown: Option<Place>,
    /// By what it was read, where that matters.
    pub(crate) by: Option<ReadBy>,
}

impl Reached {
    /// What holds of it on another bus, where it is read from the start.
    pub(crate) fn elsewhere(self) -> Self {
        Self {
            place: Place::default(),
            shown: self.shown.unwrap_or(self.place).anywhere(),
            by: None,
        }
    }

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

/// The places in the control topics of a stream, by the digests of the topics' names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    all: BTreeMap<[u8; 32], Place>,
    /// What is in the store.
    kept: BTreeMap<[u8; 32], Reached>,
    /// How far a topic was shown beyond that, and was not looked at since.
    shown: BTreeMap<[u8; 32], Place>,
    /// When this run last saw that the bus shows what it showed of a topic.
    checked: BTreeMap<[u8; 32], Position>,
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

    pub(crate) fn of(&self, topic: &[u8; 32]) -> Place {
        self.all.get(topic).copied().unwrap_or_default()
    }

    /// By what a topic was read, as the store has it.
    pub(crate) fn by(&self, topic: &[u8; 32]) -> Option<&ReadBy> {
        self.kept.get(topic).and_then(|of| of.by.as_ref())
    }

    /// How far a topic was shown beyond the place, until it is read that far again.
    pub(crate) fn shown(&self, topic: &[u8; 32]) -> Option<Place> {
        self.shown.get(topic).copied()
    }

    /// Goes back to the start of a topic, which must show all the same what it showed.
    pub(crate) fn read_again(&mut self, topic: [u8; 32]) {
        let place = self.all.remove(&topic).filter(|of| of.last().is_some());
        let shown = place.filter(|_| !self.shown.contains_key(&topic));
        self.shown.extend(shown.map(|place| (topic, place)));
    }

    /// Notes that a topic was read at least as far as it was ever shown.
    pub(crate) fn forget_shown(&mut self, topic: &[u8; 32]) {
        self.shown.remove(topic);
    }

    /// What to keep of how far a topic was read, and by what; nothing where the store has it. What is not kept as
    /// read is kept as shown, behind where it is to be read from.
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

    /// Notes what the store has of a place.
    pub(crate) fn keep(&mut self, topic: [u8; 32], reached: Reached) {
        self.kept.insert(topic, reached);
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
    fn by_what_a_topic_was_read_goes_with_its_place() {
        let (six, nine) = (item(6, b"six"), item(9, b"nine"));
        let by = ReadBy::from_bytes(&[7; ReadBy::LEN]);
        for shown in [None, Some(Place::behind(&nine))] {
            let reached = Reached {
                place: Place::behind(&six),
                shown,
                by,
            };
            let bytes = reached.to_bytes();
            assert_eq!(bytes.len(), 3 * LEN);
            assert_eq!(Reached::from_bytes(&bytes), Some(reached));
            assert_eq!(Reached::from_bytes(&bytes[..100]), None);
            assert_eq!(reached.elsewhere().by, None);
        }
    }

    #[test]
    fn on_another_bus_what_was_shown_is_known_and_where_it_lies_is_not() {
        let (six, nine) = (Place::behind(&item(6, b"six")), item(9, b"nine"));
        let shown = Some(Place::behind(&nine));
        for (place, shown) in [(Place::behind(&nine), None), (six, shown)] {
            let moved = Reached {
                place,
                shown,
                by: None,
            }
            .elsewhere();
            assert_eq!(moved.place, Place::default());
            let shown = moved.shown.unwrap();
            assert!(shown.is_anywhere() && shown.is_behind(&item(2, b"nine")));
            assert!(!shown.is_behind(&item(9, b"six")));
            assert_eq!(Reached::from_bytes(&moved.to_bytes()), Some(moved));
            assert_eq!(moved.elsewhere(), moved);
        }
        let nothing = Reached::default();
        assert_eq!(nothing.elsewhere(), nothing);
        assert!(!six.is_anywhere() && !Place::default().is_anywhere());
    }

    #[test]
    fn what_is_held_back_is_kept_as_shown_behind_the_place_that_is_kept() {
        let (topic, six, nine) = ([1; 32], item(6, b"six"), item(9, b"nine"));
        let (six, nine) = (Place::behind(&six), Place::behind(&nine));
        let read = Reached {
            place: six,
            shown: None,
            by: None,
        };
        let shown = Reached {
            place: six,
            shown: Some(nine),
            by: None,
        };
        let mut places = Places::default();
        assert_eq!(places.due(topic, six, None, Keeping::Read), Some(read));
        places.keep(topic, read);
        assert_eq!(places.due(topic, nine, None, Keeping::AsItWas), Some(shown));
        places.keep(topic, shown);
        assert_eq!(places.due(topic, nine, None, Keeping::AsItWas), None);
        let all = Reached {
            place: Place::default(),
            shown: Some(nine),
            by: None,
        };
        assert_eq!(places.due(topic, nine, None, Keeping::Start), Some(all));
        // What the bus shows no more must be there all the same.
        assert_eq!(
            places.due(topic, six, None, Keeping::StartAsShown),
            Some(all)
        );
        for reached in [read, shown] {
            assert_eq!(Reached::from_bytes(&reached.to_bytes()), Some(reached));
            assert_eq!(Reached::from_bytes(&reached.to_bytes()[1..]), None);
        }

        let mut places = Places::new(BTreeMap::from([(topic, shown)]));
        assert_eq!((places.of(&topic), places.shown(&topic)), (six, Some(nine)));
        places.forget_shown(&topic);
        assert_eq!(places.shown(&topic), None);
        let read = Reached {
            place: nine,
            shown: None,
            by: None,
        };
        assert_eq!(places.due(topic, nine, None, Keeping::Read), Some(read));
        places.keep(topic, read);
        places.set(topic, nine, Position(1));
        places.read_again(topic);
        let from_start = Reached {
            place: Place::default(),
            shown: Some(nine),
            by: None,
        };
        assert_eq!(
            (places.of(&topic), places.shown(&topic)),
            (Place::default(), Some(nine))
        );
        assert_eq!(
            places.due(topic, Place::default(), None, Keeping::Read),
            Some(from_start)
        );
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

//! Which messages of a queue belong to a topic: spec/bus-amqp.md, section 4.
//!
//! A queue gives its messages one order, the same for everybody, and takes whatever comes. A message
//! belongs if it names the last one that belongs before it. So of two writers who meant to be next,
//! one was, and everybody sees which.

use crate::message::Header;

/// Where a topic stands behind one of its messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// Where in the queue that message is; nothing before the first.
    pub(crate) last: Option<u64>,
    /// The offset of the next item.
    pub(crate) end: u64,
    /// The first offset that is not trimmed.
    pub(crate) left: u64,
}

impl Place {
    /// Before a message that belongs, or that meant to.
    pub(crate) fn before(header: &Header) -> Self {
        Self {
            last: header.prev,
            end: header.first,
            // Told by the message itself.
            left: 0,
        }
    }
}

/// Goes along a queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain {
    /// Unknown where the queue does not begin with its first message any more.
    place: Option<Place>,
    /// Where the queue begins then, until one message follows another.
    begins: Option<u64>,
    /// What the message names that is believed until then.
    named: Option<u64>,
}

impl Chain {
    /// Goes along from a place on.
    pub(crate) fn from(place: Place) -> Self {
        Self {
            place: Some(place),
            begins: None,
            named: None,
        }
    }

    /// Goes along a queue that has lost its beginning: what lies first, at `begins` or behind it, is believed.
    pub(crate) fn without_beginning(begins: u64) -> Self {
        Self {
            place: None,
            begins: Some(begins),
            named: None,
        }
    }

    /// Where in the queue it goes on, if that is known: with the last message that belongs, or with the
    /// very first.
    pub(crate) fn start(&self) -> Option<u64> {
        self.place.map(|place| place.last.unwrap_or(0))
    }

    pub(crate) fn place(&self) -> Place {
        self.place.unwrap_or_default()
    }

    /// Says whether the next message of the queue, at `at`, belongs.
    pub(crate) fn fits(&self, at: u64, header: &Header) -> bool {
        match self.place {
            None => header.prev.is_none_or(|prev| prev < at),
            Some(place) => {
                let follows = header.prev == place.last && header.first == place.end;
                (follows && header.left >= place.left) || self.is_better(header)
            }
        }
    }

    /// Whether a message is to be believed in the place of the one that was. What it names is gone, as is
    /// what that one named; but it lies behind, so that the other had lost its race.
    fn is_better(&self, header: &Header) -> bool {
        let (Some(begins), Some(prev)) = (self.begins, header.prev) else {
            return false;
        };
        prev < begins && self.named.is_none_or(|named| named < prev)
    }

    /// Says the same, and goes on behind the message if it does.
    pub(crate) fn takes(&mut self, at: u64, header: &Header) -> bool {
        let belongs = self.fits(at, header);
        if belongs {
            match self.place {
                Some(place) if header.prev == place.last => self.begins = None,
                Some(_) | None => self.named = header.prev,
            }
            self.place = Some(Place {
                last: Some(at),
                end: header.end(),
                left: header.left,
            });
        }
        belongs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(prev: impl Into<Option<u64>>, first: u64, count: u32) -> Header {
        Header {
            prev: prev.into(),
            first,
            count,
            left: 0,
            id: [7; 16],
        }
    }

    #[test]
    fn of_two_that_meant_to_be_next_the_first_is() {
        let mut chain = Chain::from(Place::default());
        let queue = [
            (3, header(None, 0, 2), true),
            (4, header(None, 0, 1), false),
            (5, header(3, 2, 1), true),
            // Too late, and again.
            (6, header(3, 2, 5), false),
            (7, header(None, 0, 2), false),
            (9, header(5, 3, 1), true),
            // One without items, and again.
            (10, header(9, 4, 0), true),
            (11, header(9, 4, 0), false),
        ];
        for (at, header, belongs) in queue {
            assert_eq!(chain.takes(at, &header), belongs, "{at}");
        }
        let place = Place {
            last: Some(10),
            end: 4,
            left: 0,
        };
        assert_eq!(chain.place(), place);
    }

    #[test]
    fn one_with_other_offsets_does_not_belong() {
        let place = Place {
            last: Some(3),
            end: 10,
            left: 4,
        };
        for (first, left) in [(9, 4), (11, 4), (10, 3)] {
            let header = Header {
                left,
                ..header(3, first, 1)
            };
            assert!(!Chain::from(place).takes(5, &header));
        }
    }

    #[test]
    fn where_the_beginning_is_gone_the_first_is_believed() {
        let mut chain = Chain::without_beginning(4);
        assert!(!chain.takes(5, &header(5, 9, 1)));
        assert!(chain.takes(6, &header(2, 9, 1)));
        assert!(!chain.takes(7, &header(2, 9, 1)));
        assert!(chain.takes(8, &header(6, 10, 1)));
    }

    #[test]
    fn where_the_beginning_is_gone_one_that_had_lost_its_race_is_believed_no_longer_than_that_shows()
     {
        // Of those that named 97, the one at 98 was first, and 99 followed it. All of them are gone.
        let mut chain = Chain::without_beginning(100);
        let queue = [
            (100, header(97, 40, 5), true),
            // Another that had lost, and what became of the log.
            (101, header(98, 43, 1), true),
            (102, header(98, 43, 1), false),
            (103, header(99, 44, 2), true),
            (104, header(97, 40, 5), false),
            (105, header(100, 45, 1), false),
            (106, header(103, 46, 1), true),
            // From here on nothing is believed that does not follow.
            (107, header(99, 44, 2), false),
            (108, header(None, 0, 1), false),
            (109, header(106, 47, 1), true),
        ];
        for (at, header, belongs) in queue {
            assert_eq!(chain.takes(at, &header), belongs, "{at}");
        }
        assert_eq!(chain.place().end, 48);
    }
}

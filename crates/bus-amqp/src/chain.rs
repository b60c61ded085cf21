//! Which messages of a queue belong to a topic: spec/bus-amqp.md, section 4.
//!
//! A queue gives its messages one order, the same for everybody, and takes whatever comes. A message
//! belongs if it names the last one that belongs before it. So of two writers who meant to be next,
//! one was, and everybody sees which. What is sent ahead names one that nobody has seen yet, and belongs behind that or not at
//! all.

use crate::message::{AppendId, Header};

/// How many messages are kept of a queue without its beginning, to be told which of them belong.
const UNSURE_MAX: usize = 128;

/// Where a topic stands behind one of its messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// Where in the queue that message is, if it was seen.
    pub(crate) last: Option<u64>,
    /// Which it is; nobody before the first.
    pub(crate) id: Option<AppendId>,
    /// The offset of the next item.
    pub(crate) end: u64,
    /// The first offset that is not trimmed.
    pub(crate) left: u64,
}

impl Place {
    /// Before a message that belongs, or that meant to.
    fn before(header: &Header) -> Self {
        Self {
            last: None,
            id: header.behind,
            end: header.first,
            // Told by the message itself.
            left: 0,
        }
    }

    /// Behind a message that belongs.
    pub(crate) fn behind(at: u64, header: &Header) -> Self {
        Self {
            last: Some(at),
            id: Some(header.id),
            end: header.end(),
            left: header.left,
        }
    }

    /// Whether a message is right behind it, if no other is.
    pub(crate) fn fits(&self, header: &Header) -> bool {
        header.behind == self.id && header.first == self.end && header.left >= self.left
    }
}

/// What a message that comes is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    Belongs,
    DoesNot,
    /// Nothing, and those that were taken for what is left of the topic are not: begin anew.
    Refutes,
}

/// Goes along a queue.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    place: Place,
    /// Where in the queue it goes on: with the last message that belongs, or with the very first.
    start: u64,
    /// For as long as it is not known that those it has taken belong.
    unsure: Option<Remains>,
}

impl Chain {
    /// Goes along from a place on.
    pub(crate) fn from(place: Place) -> Self {
        Self {
            place,
            start: place.last.unwrap_or(0),
            unsure: None,
        }
    }

    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    pub(crate) fn place(&self) -> Place {
        self.place
    }

    /// Says whether the next message of the queue belongs.
    pub(crate) fn fits(&self, header: &Header) -> bool {
        self.place.fits(header)
    }

    /// Says the same of the one at `at`, and goes on behind it if it does.
    pub(crate) fn takes(&mut self, at: u64, header: &Header) -> Fit {
        let belongs = self.fits(header);
        if let Some(remains) = &mut self.unsure {
            match remains.told_by(header) {
                Some((_, told)) if told.belongs => self.unsure = None,
                Some(_) => return Fit::Refutes,
                None if !belongs && remains.is_later(header) => return Fit::Refutes,
                None if remains.seen.len() >= UNSURE_MAX => self.unsure = None,
                None => remains.add(at, header, belongs),
            }
        }
        if !belongs {
            return Fit::DoesNot;
        }
        self.place = Place::behind(at, header);
        Fit::Belongs
    }
}

/// The messages of a queue that has lost its beginning, as they come.
#[derive(Clone, Debug)]
pub(crate) struct Remains {
    /// Where it begins.
    begins: u64,
    /// The latest of what they name and is gone.
    named: Option<u64>,
    seen: Vec<Seen>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    at: u64,
    header: Header,
    belongs: bool,
}

impl Remains {
    pub(crate) fn new(begins: u64) -> Self {
        Self {
            begins,
            named: None,
            seen: Vec::new(),
        }
    }

    /// Takes the next message; says whether it is told by now which of them belong.
    pub(crate) fn takes(&mut self, at: u64, header: &Header) -> bool {
        self.add(at, header, false);
        self.told_by(header).is_some() || self.seen.len() >= UNSURE_MAX
    }

    /// Goes along the queue from its beginning on. One belongs that a later one knew to, and those that it is behind. Where
    /// none is, those are believed of which the latest says that it knew most.
    pub(crate) fn chain(self) -> Chain {
        let told = self.seen.iter().find_map(|of| self.told_by(&of.header));
        let is_sure = told.is_some() || self.seen.len() >= UNSURE_MAX;
        let believed = told.map(|(index, _)| index).or_else(|| {
            let indices = 0..self.seen.len();
            // The last of those that are greatest.
            indices
                .rev()
                .max_by_key(|index| self.gone(&self.seen[*index].header))
        });
        let first = believed.map(|index| self.first_before(index));
        Chain {
            place: first.map_or_else(Place::default, |of| Place::before(&of.header)),
            start: self.begins,
            unsure: (!is_sure).then(|| Self {
                named: believed.and_then(|index| self.gone(&self.seen[index].header)),
                begins: self.begins,
                seen: Vec::new(),
            }),
        }
    }

    fn add(&mut self, at: u64, header: &Header, belongs: bool) {
        let header = *header;
        self.named = self.named.max(self.gone(&header));
        self.seen.push(Seen {
            at,
            header,
            belongs,
        });
    }

    /// The message of which another says that it belongs.
    fn told_by(&self, header: &Header) -> Option<(usize, Seen)> {
        let prev = header.prev?;
        let index = self.seen.iter().position(|of| of.at == prev)?;
        let of = self.seen[index];
        of.header.may_be_before(header).then_some((index, of))
    }

    /// Whether a message names a later one of those that are gone than any that was believed.
    fn is_later(&self, header: &Header) -> bool {
        self.gone(header) > self.named
    }

    /// What a message names, if that is gone.
    fn gone(&self, header: &Header) -> Option<u64> {
        header.prev.filter(|prev| *prev < self.begins)
    }

    /// The first of those that one is behind.
    fn first_before(&self, index: usize) -> Seen {
        let mut first = self.seen[index];
        for of in self.seen[..index].iter().rev() {
            let is_ahead = Some(of.header.id) == first.header.behind;
            if is_ahead && of.header.end() == first.header.first {
                first = *of;
            }
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The message `id`, written when the one at `prev` was known, behind the one `behind`.
    fn header(
        id: u8,
        prev: impl Into<Option<u64>>,
        behind: impl Into<Option<u8>>,
        first: u64,
        count: u32,
    ) -> Header {
        Header {
            prev: prev.into(),
            behind: behind.into().map(|of| [of; 16]),
            first,
            count,
            left: 0,
            id: [id; 16],
        }
    }

    fn assert_belong(mut chain: Chain, queue: &[(u64, Header, Fit)]) -> Place {
        for (at, header, fit) in queue {
            assert_eq!(chain.takes(*at, header), *fit, "{at}");
        }
        chain.place()
    }

    use Fit::{Belongs, DoesNot};

    #[test]
    fn of_two_that_meant_to_be_next_the_first_is() {
        let queue = [
            (3, header(1, None, None, 0, 2), Belongs),
            (4, header(2, None, None, 0, 2), DoesNot),
            (5, header(3, 3, 1, 2, 1), Belongs),
            // Too late, and again.
            (6, header(4, 3, 1, 2, 5), DoesNot),
            (7, header(1, None, None, 0, 2), DoesNot),
            (9, header(5, 5, 3, 3, 1), Belongs),
            // One without items, and again.
            (10, header(6, 9, 5, 4, 0), Belongs),
            (11, header(6, 9, 5, 4, 0), DoesNot),
        ];
        let place = Place {
            last: Some(10),
            id: Some([6; 16]),
            end: 4,
            left: 0,
        };
        assert_eq!(assert_belong(Chain::from(Place::default()), &queue), place);
    }

    #[test]
    fn what_was_sent_ahead_belongs_behind_its_own_predecessor_alone() {
        let queue = [
            (3, header(1, None, None, 0, 2), Belongs),
            // A stranger has as many items as the one that was to come first.
            (4, header(9, 3, 1, 2, 2), Belongs),
            (5, header(2, 3, 1, 2, 2), DoesNot),
            (6, header(3, 3, 2, 4, 1), DoesNot),
            // Made again, and stored twice.
            (7, header(4, 4, 9, 4, 2), Belongs),
            (8, header(5, 4, 4, 6, 1), Belongs),
            (9, header(5, 4, 4, 6, 1), DoesNot),
            // Of the same name, and behind what was lost.
            (10, header(3, 3, 2, 7, 1), DoesNot),
        ];
        assert_belong(Chain::from(Place::default()), &queue);
    }

    #[test]
    fn one_with_other_offsets_does_not_belong() {
        let place = Place {
            last: Some(3),
            id: Some([1; 16]),
            end: 10,
            left: 4,
        };
        for (first, left) in [(9, 4), (11, 4), (10, 3)] {
            let header = Header {
                left,
                ..header(2, 3, 1, first, 1)
            };
            assert_eq!(Chain::from(place).takes(5, &header), DoesNot);
        }
    }

    /// What is believed of a queue that begins at 100 when so much of it was seen, and what comes.
    fn believed(seen: usize, queue: &[(u64, Header, Fit)]) -> Place {
        let mut remains = Remains::new(100);
        for (at, header, _) in &queue[..seen] {
            remains.takes(*at, header);
        }
        assert_belong(remains.chain(), queue)
    }

    #[test]
    fn where_the_beginning_is_gone_it_is_believed_whoever_knew_most() {
        // 1 lies at 97 and is gone; 2 and what was sent ahead behind it had lost to it.
        let queue = [
            (100, header(2, 96, 40, 40, 5), DoesNot),
            (101, header(3, 96, 2, 45, 1), DoesNot),
            (102, header(4, 97, 1, 43, 1), Belongs),
            (103, header(2, 96, 40, 40, 5), DoesNot),
            (104, header(5, 97, 1, 43, 1), DoesNot),
            (105, header(6, 102, 4, 44, 2), Belongs),
            // From here on nothing is believed that does not follow.
            (106, header(7, 99, 1, 43, 2), DoesNot),
            (107, header(8, None, None, 0, 1), DoesNot),
            (108, header(9, 105, 6, 46, 1), Belongs),
        ];
        for seen in 3..queue.len() {
            assert_eq!(believed(seen, &queue).end, 47, "{seen}");
        }
    }

    #[test]
    fn where_the_beginning_is_gone_one_belongs_of_which_a_later_one_says_it() {
        let queue = [
            (100, header(2, 90, 1, 40, 5), Belongs),
            // Had lost to one that was sent ahead, though it knew more than that one.
            (101, header(3, 97, 9, 42, 1), DoesNot),
            (103, header(4, 90, 2, 45, 1), Belongs),
            (104, header(5, 100, 4, 46, 1), Belongs),
        ];
        assert_eq!(believed(4, &queue).end, 47);
        // Before that one came, the other was believed.
        let mut remains = Remains::new(100);
        for (at, header, _) in &queue[..3] {
            assert!(!remains.takes(*at, header));
        }
        let mut chain = remains.chain();
        let fits = queue.map(|(at, header, _)| chain.takes(at, &header));
        assert_eq!(fits, [DoesNot, Belongs, DoesNot, Fit::Refutes]);
    }

    #[test]
    fn nothing_that_a_message_names_is_believed_unless_it_bears_that_out() {
        let mut remains = Remains::new(100);
        for (at, header) in [
            (100, header(2, 90, 1, 40, 5)),
            (102, header(4, 100, 2, 44, 1)),
            (103, header(5, 100, 7, 44, 1)),
        ] {
            assert!(!remains.takes(at, &header), "{at}");
        }
        assert!(remains.takes(104, &header(6, 100, 2, 45, 1)));
        assert_eq!(
            remains.chain().takes(100, &header(2, 90, 1, 40, 5)),
            Belongs
        );
    }
}

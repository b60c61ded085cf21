//! Messages of data topics that come in parts, or that this process has published itself: neither is
//! written to the mirror more than once.

use std::time::Duration;

use bytes::BytesMut;
use sealcast_bus::{Arrival, Topic};
use tokio::time::Instant;

use super::{FeedFault, Feeder};
use crate::link::{MESSAGE_COST, Receipt};
use crate::message::{Append, MessageId, PartOf, WHOLE_MAX, uncut};
use crate::own::Fate;
use crate::packet::Publish;

/// Parts that wait in memory for the others of their message, unacknowledged; of more, all go to the
/// mirror. A broker has some 20 messages on their way, and then waits.
pub(super) const HELD_MAX: usize = 16;
/// How long they wait for another. None comes where the broker waits for acknowledgements.
const HELD_FOR: Duration = Duration::from_millis(100);

/// What came and is not acknowledged, since nothing of it is in the mirror.
#[derive(Debug, Default)]
pub(super) struct Unwhole {
    parts: Vec<Piece>,
    /// How much memory they take.
    cost: usize,
    /// When the last of them came.
    since: Option<Instant>,
    /// Messages of this process, which puts them in the mirror itself.
    own: Vec<(Publish, Fate, Receipt)>,
}

/// A part.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) topic: Topic,
    pub(super) id: MessageId,
    pub(super) part: PartOf,
    pub(super) publish: Publish,
    /// As often as it came.
    pub(super) receipts: Vec<Receipt>,
    pub(super) is_past: bool,
}

/// What becomes of a part.
#[derive(Debug)]
pub(super) enum Put {
    Waits,
    /// It was the last one; all of them, in order.
    Whole(Vec<Piece>),
    /// It waits in the place of another, which nobody needs.
    Instead(Vec<Receipt>),
}

impl Piece {
    /// How much memory it takes, about.
    fn cost(&self) -> usize {
        self.publish.payload.len() + self.publish.topic.len() + MESSAGE_COST
    }

    fn is_of(&self, other: &Self) -> bool {
        (self.id, self.part.count, &self.topic) == (other.id, other.part.count, &other.topic)
    }
}

impl Unwhole {
    /// When parts have waited for long enough.
    pub(super) fn until(&self) -> Option<Instant> {
        self.since.map(|since| since + HELD_FOR)
    }

    /// Whether parts wait that the writer of a message has published on the topic before it. Those that they
    /// wait for may be in the mirror.
    pub(super) fn has_before(&self, topic: &Topic, id: MessageId) -> bool {
        let is_before = |of: &Piece| of.id.writer == id.writer && of.id != id && of.topic == *topic;
        self.parts.iter().any(is_before)
    }

    /// How many parts wait, and how much memory they take.
    pub(super) fn held(&self) -> (usize, usize) {
        (self.parts.len(), self.cost)
    }

    /// Whether one waits that the broker may not hand out again.
    pub(super) fn has_unretained(&self) -> bool {
        self.parts.iter().any(|of| !of.publish.is_retained)
    }

    pub(super) fn put(&mut self, piece: Piece, now: Instant) -> Put {
        let number = piece.part.number;
        let mut others = self.parts.iter_mut().filter(|of| of.is_of(&piece));
        if let Some(known) = others.find(|of| of.part.number == number) {
            if known.publish.payload == piece.publish.payload {
                known.receipts.extend(piece.receipts);
                return Put::Waits;
            }
            self.cost += piece.cost();
            self.cost -= known.cost();
            // Whoever guesses the name of a part does not keep it out.
            return Put::Instead(std::mem::replace(known, piece).receipts);
        }
        self.since = Some(now);
        let there = self.parts.iter().filter(|of| of.is_of(&piece)).count();
        if u32::try_from(there + 1) != Ok(piece.part.count) {
            self.cost += piece.cost();
            self.parts.push(piece);
            return Put::Waits;
        }
        let mut whole: Vec<_> = self.parts.extract_if(.., |of| of.is_of(&piece)).collect();
        self.cost -= whole.iter().map(Piece::cost).sum::<usize>();
        whole.push(piece);
        whole.sort_by_key(|of| of.part.number);
        if self.parts.is_empty() {
            self.since = None;
        }
        Put::Whole(whole)
    }
}

/// What all parts of a message hold, and how many bytes they have; nothing where that is no append, or too large.
pub(super) fn joined(pieces: Vec<Piece>) -> Option<(Arrival, usize)> {
    let bytes = pieces.iter().map(|of| of.publish.payload.len()).sum();
    let contents = pieces.iter().map(|of| uncut(&of.publish.payload));
    let contents: Vec<_> = contents.map(Result::unwrap_or_default).collect();
    let len = contents.iter().map(|of| of.len()).sum();
    if len > WHOLE_MAX {
        return None;
    }
    let mut whole = BytesMut::with_capacity(len);
    for content in contents {
        whole.extend_from_slice(content);
    }
    let Piece {
        topic, id, part, ..
    } = pieces.into_iter().next_back()?;
    let append = Append::decode(&whole.freeze()).ok()?;
    Some((append.arrival(topic, id, part.count), bytes))
}

impl Feeder {
    /// Takes a part of a message of no more than [`HELD_MAX`].
    pub(super) async fn piece(&mut self, piece: Piece) -> Result<(), FeedFault> {
        match self.unwhole.put(piece, Instant::now()) {
            Put::Waits if self.unwhole.parts.len() <= HELD_MAX => Ok(()),
            Put::Waits => self.wait_no_longer().await,
            Put::Instead(receipts) => {
                self.acknowledge(receipts);
                Ok(())
            }
            Put::Whole(pieces) => self.whole(pieces).await,
        }
    }

    async fn whole(&mut self, pieces: Vec<Piece>) -> Result<(), FeedFault> {
        let is_past = pieces.iter().any(|of| of.is_past);
        let receipts = pieces.iter().flat_map(|of| of.receipts.iter().copied());
        let receipts = receipts.collect();
        match joined(pieces) {
            Some((arrival, bytes)) => self.arrive(arrival, (bytes, is_past), receipts).await,
            None => {
                self.acknowledge(receipts);
                Ok(())
            }
        }
    }

    /// Puts all parts in the mirror that wait for others.
    pub(super) async fn wait_no_longer(&mut self) -> Result<(), FeedFault> {
        self.unwhole.since = None;
        self.unwhole.cost = 0;
        for piece in std::mem::take(&mut self.unwhole.parts) {
            let Piece {
                topic, id, part, ..
            } = piece;
            let bytes = piece.publish.payload.len();
            match self.part(&topic, (id, part), &piece.publish).await? {
                Some(append) => {
                    let arrival = append.arrival(topic, id, part.count);
                    let of = (bytes, piece.is_past);
                    self.arrive(arrival, of, piece.receipts).await?;
                }
                None => self.acknowledge(piece.receipts),
            }
        }
        Ok(())
    }

    /// Whether this process has published a message, which is in the mirror or about to be.
    pub(super) fn is_back(&mut self, came: &Publish, receipt: Receipt) -> bool {
        let Some((message, fate)) = self.home.own_back.take_back(came) else {
            return false;
        };
        match fate.is_in_mirror() {
            Some(true) => self.link.acknowledge(receipt),
            Some(false) | None => self.unwhole.own.push((message, fate, receipt)),
        }
        true
    }

    /// Acknowledges what this process has put in the mirror, and takes what it has not for a message like
    /// all others; so also, with `is_all`, what it is about to put there.
    pub(super) async fn settle_own(&mut self, is_all: bool) -> Result<(), FeedFault> {
        for (message, fate, receipt) in std::mem::take(&mut self.unwhole.own) {
            match fate.is_in_mirror() {
                Some(true) => self.link.acknowledge(receipt),
                None if !is_all => self.unwhole.own.push((message, fate, receipt)),
                Some(false) | None => match self.names.users_item(&message) {
                    Some(item) => self.users_item(item, receipt).await?,
                    None => self.log(message, receipt, false).await?,
                },
            }
        }
        Ok(())
    }

    pub(super) fn acknowledge(&self, receipts: Vec<Receipt>) {
        for receipt in receipts {
            self.link.acknowledge(receipt);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::message::PART_MAX;

    fn piece(id: u64, (number, count): (u32, u32), payload: &'static [u8]) -> Piece {
        Piece {
            topic: Topic::new("s/1f/data").unwrap(),
            id: MessageId {
                writer: 7,
                number: id,
            },
            part: PartOf { number, count },
            publish: Publish {
                topic: "x".into(),
                payload: Bytes::from_static(payload),
                is_retained: false,
            },
            receipts: vec![Receipt::NONE],
            is_past: false,
        }
    }

    #[test]
    fn parts_of_one_message_are_put_together_in_whatever_order_they_come() {
        let (mut unwhole, now) = (Unwhole::default(), Instant::now());
        let waits = |put: Put| assert!(matches!(put, Put::Waits), "{put:?}");
        waits(unwhole.put(piece(1, (2, 3), b"c"), now));
        // Another message, and another cut.
        waits(unwhole.put(piece(2, (0, 3), b"x"), now));
        waits(unwhole.put(piece(1, (0, 2), b"x"), now));
        waits(unwhole.put(piece(1, (0, 3), b"x"), now));
        // Another in its place, and that again.
        let put = unwhole.put(piece(1, (0, 3), b"a"), now);
        assert!(matches!(put, Put::Instead(_)), "{put:?}");
        waits(unwhole.put(piece(1, (0, 3), b"a"), now));
        let Put::Whole(whole) = unwhole.put(piece(1, (1, 3), b"b"), now) else {
            panic!("it is whole");
        };
        let told = |of: &Piece| (of.publish.payload[0], of.receipts.len());
        let told: Vec<_> = whole.iter().map(told).collect();
        assert_eq!(told, [(b'a', 2), (b'b', 1), (b'c', 1)]);
        assert_eq!(unwhole.parts.len(), 2);
        let topic = Topic::new("s/1f/data").unwrap();
        let of = |writer, number| MessageId { writer, number };
        assert!(unwhole.has_before(&topic, of(7, 3)));
        assert!(!unwhole.has_before(&topic, of(8, 3)));
        assert!(!unwhole.has_before(&Topic::new("s/2f/data").unwrap(), of(7, 3)));
        assert_eq!(unwhole.until(), Some(now + HELD_FOR));
    }

    #[test]
    fn what_is_too_large_for_a_mirror_is_not_joined() {
        let piece = |(number, count), content: &Bytes| {
            let mut piece = piece(1, (number, count), b"");
            piece.publish.payload = content.clone();
            piece
        };
        let of = |count: u32| {
            let len = (count - 1) * u32::try_from(PART_MAX - 4).unwrap();
            let head = b"SCM\x01SCM\x01\0\0\0\0\0\0\0\0";
            let first = Bytes::from([&head[..], &len.to_be_bytes()].concat());
            let mut part = BytesMut::from(&b"SCM\x01"[..]);
            part.resize(PART_MAX, 0);
            let part = part.freeze();
            let pieces = (0..count).map(|number| match number {
                0 => piece((0, count), &first),
                _ => piece((number, count), &part),
            });
            joined(pieces.collect())
        };
        assert!(of(60).is_some());
        // Each part alone is one that a broker hands out.
        assert!(of(80).is_none());
    }

    #[test]
    fn what_waits_is_counted_with_what_it_takes_besides_its_bytes() {
        let (mut unwhole, now) = (Unwhole::default(), Instant::now());
        unwhole.put(piece(1, (0, 3), b"a"), now);
        unwhole.put(piece(2, (0, 3), b"x"), now);
        unwhole.put(piece(1, (1, 3), b"b"), now);
        assert_eq!(unwhole.held(), (3, 3 * (MESSAGE_COST + 2)));
        unwhole.put(piece(1, (1, 3), b"longer"), now);
        assert_eq!(unwhole.held(), (3, 3 * (MESSAGE_COST + 2) + 5));
        unwhole.put(piece(1, (2, 3), b"c"), now);
        assert_eq!(unwhole.held(), (1, MESSAGE_COST + 2));
    }

    #[test]
    fn nothing_is_waited_for_when_all_is_whole() {
        let (mut unwhole, now) = (Unwhole::default(), Instant::now());
        assert_eq!(unwhole.until(), None);
        let put = unwhole.put(piece(1, (0, 1), b"a"), now);
        assert!(matches!(put, Put::Whole(_)), "{put:?}");
        assert_eq!(unwhole.until(), None);
    }
}

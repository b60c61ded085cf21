//! What came on control logs and is not in the mirror yet: spec/bus-mqtt.md, section 5.

use sealcast_bus::{Arrival, Topic};
use tokio::time::Instant;

use super::HELD_BYTES_MAX;
use super::unwhole::{Piece, Put, Unwhole, joined};
use crate::link::MESSAGE_COST;
use crate::message::{Append, MessageId, PartOf, uncut};
use crate::packet::Publish;

/// Parts that wait for others: no fewer than those of one message.
const PARTS_WAITING_MAX: usize = 4_096;

/// What is whole, and the parts of what is not.
#[derive(Debug, Default)]
pub(super) struct Holding {
    whole: Vec<Arrival>,
    /// Whether some of it did not come as what the broker has retained.
    has_unretained: bool,
    /// How much memory that takes, about.
    cost: usize,
    parts: Unwhole,
    /// Whether parts were dropped, so that this lacks what the broker has brought.
    pub(super) is_lacking: bool,
}

impl Holding {
    /// Holds what a message of a log has, where that is whole.
    pub(super) fn hold(
        &mut self,
        publish: Publish,
        (topic, id, part): (Topic, MessageId, Option<PartOf>),
    ) {
        let (bytes, is_retained) = (publish.payload.len(), publish.is_retained);
        let whole = match part {
            None => Append::decode(&publish.payload)
                .ok()
                .map(|append| (append.arrival(topic, id, 0), bytes)),
            Some(part) => self.joined(Piece {
                topic,
                id,
                part,
                publish,
                receipts: Vec::new(),
                is_past: false,
            }),
        };
        if let Some((arrival, bytes)) = whole {
            self.whole.push(arrival);
            self.cost += bytes + MESSAGE_COST;
            // Those of its parts that came before may not have been retained.
            self.has_unretained |= !is_retained || part.is_some();
        }
    }

    fn joined(&mut self, piece: Piece) -> Option<(Arrival, usize)> {
        // It would take the place of a good one.
        if uncut(&piece.publish.payload).is_err() {
            return None;
        }
        match self.parts.put(piece, Instant::now()) {
            Put::Whole(pieces) => {
                let whole = joined(pieces);
                // One of them was not its writer's, who may publish that one again, and not the others.
                self.is_lacking |= whole.is_none();
                return whole;
            }
            Put::Waits | Put::Instead(_) => {}
        }
        let (count, cost) = self.parts.held();
        if count > PARTS_WAITING_MAX || cost >= HELD_BYTES_MAX {
            self.parts = Unwhole::default();
            self.is_lacking = true;
        }
        None
    }

    /// Whether it has what came over a session that will not bring it again.
    pub(super) fn has_unretained(&self) -> bool {
        self.has_unretained || self.parts.has_unretained()
    }

    /// Whether it takes no more.
    pub(super) fn is_full(&self) -> bool {
        self.cost >= HELD_BYTES_MAX
    }

    /// Puts what is whole in the order in which its writers placed it.
    pub(super) fn sort(&mut self) {
        let of = |arrival: &Arrival| (arrival.topic.clone(), arrival.stamp, arrival.id);
        self.whole.sort_by_cached_key(of);
    }

    /// All that is whole, which it holds no more.
    pub(super) fn take(&mut self) -> Vec<Arrival> {
        self.cost = 0;
        self.has_unretained = false;
        std::mem::take(&mut self.whole)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn put(holding: &mut Holding, number: u64, part: Option<(u32, u32)>, payload: &[u8]) {
        let publish = Publish {
            topic: "x".into(),
            payload: Bytes::copy_from_slice(payload),
            is_retained: true,
        };
        let part = part.map(|(number, count)| PartOf { number, count });
        let id = MessageId { writer: 7, number };
        holding.hold(publish, (Topic::new("s/1f/keys").unwrap(), id, part));
    }

    /// An append in two parts.
    fn parts(payload: &'static [u8]) -> Vec<Bytes> {
        let append = Append {
            stamp: 5,
            payloads: vec![Bytes::from_static(payload)],
        };
        let parts = append.encode(20);
        assert_eq!(parts.len(), 2);
        parts
    }

    fn texts(holding: &mut Holding) -> Vec<Bytes> {
        let payloads = |of: Arrival| of.payloads;
        holding.take().into_iter().flat_map(payloads).collect()
    }

    #[test]
    fn what_is_no_part_takes_the_place_of_none() {
        let mut holding = Holding::default();
        let all = parts(b"who may read");
        put(&mut holding, 1, Some((0, 2)), &all[0]);
        for odd in [&b"hello"[..], b"SCM\x02 of a later version"] {
            put(&mut holding, 1, Some((0, 2)), odd);
        }
        put(&mut holding, 1, Some((1, 2)), &all[1]);
        assert_eq!(texts(&mut holding), [&b"who may read"[..]]);
        assert!(!holding.is_lacking);
    }

    #[test]
    fn what_does_not_come_whole_is_said_to_be_lacking() {
        let mut holding = Holding::default();
        let all = parts(b"who may read");
        put(&mut holding, 1, Some((0, 2)), b"SCM\x01 of somebody else");
        put(&mut holding, 1, Some((1, 2)), &all[1]);
        assert!(holding.is_lacking && texts(&mut holding).is_empty());
    }

    #[test]
    fn what_a_session_brings_once_is_known_until_it_is_taken() {
        let mut holding = Holding::default();
        let all = parts(b"who may read");
        let put_live = |holding: &mut Holding, number: u32| {
            let publish = Publish {
                topic: "x".into(),
                payload: all[number as usize].clone(),
                is_retained: false,
            };
            let id = MessageId {
                writer: 7,
                number: 9,
            };
            let part = Some(PartOf { number, count: 2 });
            holding.hold(publish, (Topic::new("s/1f/keys").unwrap(), id, part));
        };
        put(&mut holding, 1, Some((0, 2)), &all[0]);
        assert!(!holding.has_unretained());
        put_live(&mut holding, 0);
        assert!(holding.has_unretained());
        put_live(&mut holding, 1);
        assert!(holding.has_unretained());
        assert_eq!(holding.take().len(), 1);
        assert!(!holding.has_unretained());
    }

    #[test]
    fn a_flood_of_parts_is_not_held() {
        let mut holding = Holding::default();
        let many = PARTS_WAITING_MAX as u64;
        for number in 0..many {
            put(&mut holding, number, Some((0, 2)), b"SCM\x01");
        }
        assert!(!holding.is_lacking);
        put(&mut holding, many, Some((0, 2)), b"SCM\x01");
        assert!(holding.is_lacking);
        assert_eq!(holding.parts.held(), (0, 0));
    }

    #[test]
    fn small_appends_fill_it_as_large_ones_do() {
        let mut holding = Holding::default();
        let append = Append {
            stamp: 5,
            payloads: vec![Bytes::new()],
        };
        let append = append.encode(20).remove(0);
        let mut count = 0;
        while !holding.is_full() {
            put(&mut holding, count, None, &append);
            count += 1;
        }
        assert!(count as usize <= HELD_BYTES_MAX / MESSAGE_COST);
        assert_eq!(holding.take().len(), count as usize);
        assert!(!holding.is_full());
    }
}

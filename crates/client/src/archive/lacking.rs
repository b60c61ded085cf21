//! What a bus that went back shows and an archive lacks.

use std::collections::HashSet;

use sealcast_bus::{Bus, BusFuture, Item, Offset, Topic};
use sealcast_crypto::digest;

use super::{Cursor, behind};
use crate::core::READ_BYTES;
use crate::error::Error;

/// Names the items that are looked for.
const ITEM_LABEL: &str = "sealcast.v1 archived item";
/// Items that are looked for in one pass over the archive, at most.
const SOUGHT_MAX: usize = 1 << 19;

type ItemId = [u8; 32];

/// All that is asked of either side.
pub(super) trait Reads: Sync {
    /// As [`Bus::read`].
    fn read(&self, topic: &Topic, from: Offset, bytes_max: usize) -> BusFuture<'_, Vec<Item>>;
}

impl Reads for dyn Bus {
    fn read(&self, topic: &Topic, from: Offset, bytes_max: usize) -> BusFuture<'_, Vec<Item>> {
        Bus::read(self, topic, from, bytes_max)
    }
}

/// Finds the items of a topic that an archive did not have in the beginning, in their order.
///
/// As long as both have the same items at the same places nothing is kept. From where they differ
/// on, the archive is gone through once for every [`SOUGHT_MAX`] items of the bus.
pub(super) struct Lacking<'a, B: ?Sized> {
    from: &'a B,
    to: &'a B,
    topic: &'a Topic,
    /// How the archive ended in the beginning.
    end: Offset,
    /// How far before its place on the bus an item may lie in the archive: not at all, or as the last
    /// note has it. The one that was right last comes first.
    shifts: [u64; 2],
    /// All items of the bus before are decided.
    next: Offset,
    found: Found,
    sought_max: usize,
}

/// What became of the items up to an offset.
struct Found {
    until: Offset,
    lacking: HashSet<ItemId>,
}

impl<'a, B: Reads + ?Sized> Lacking<'a, B> {
    pub(super) fn of(from: &'a B, (to, archive): (&'a B, Cursor), topic: &'a Topic) -> Self {
        Self {
            from,
            to,
            topic,
            end: archive.end,
            shifts: [archive.next.0.wrapping_sub(archive.end.0), 0],
            next: Offset(0),
            found: Found {
                until: Offset(0),
                lacking: HashSet::new(),
            },
            sought_max: SOUGHT_MAX,
        }
    }

    /// How far the bus was read.
    pub(super) fn reached(&self) -> Offset {
        self.next
    }

    /// The next items that are lacking; `None` at the end of the bus.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Vec<u8>>>, Error> {
        loop {
            let items = self.from.read(self.topic, self.next, READ_BYTES).await?;
            let Some(last) = items.last() else {
                return Ok(None);
            };
            if self.next < self.found.until {
                let last = behind(last).min(self.found.until);
                let decided = items.into_iter().filter(|item| item.offset < last);
                let lacking = decided.filter(|item| self.found.lacking.contains(&id(item)));
                let lacking: Vec<_> = lacking.map(|item| item.payload).collect();
                self.next = last;
                if !lacking.is_empty() {
                    return Ok(Some(lacking));
                }
                continue;
            }
            match self.same_as(&items).await? {
                0 => self.found = self.look_for_next().await?,
                same => self.next = items.get(same - 1).map_or(self.next, behind),
            }
        }
    }

    /// How many of these items are where the archive has them if it is in step.
    async fn same_as(&mut self, items: &[Item]) -> Result<usize, Error> {
        for shift in self.shifts {
            let place = |item: &Item| Offset(item.offset.0.wrapping_sub(shift));
            let at = items.first().map(place).filter(|at| *at < self.end);
            let there = match at {
                Some(at) => self.to.read(self.topic, at, READ_BYTES).await?,
                None => Vec::new(),
            };
            let pairs = items.iter().zip(&there);
            let same = pairs.take_while(|(item, other)| {
                other.offset == place(item)
                    && other.offset < self.end
                    && other.payload == item.payload
            });
            let same = same.count();
            if same > 0 {
                self.shifts.sort_by_key(|of| *of != shift);
                return Ok(same);
            }
        }
        Ok(0)
    }

    /// Goes through the archive for the next items of the bus.
    async fn look_for_next(&self) -> Result<Found, Error> {
        let mut found = Found {
            until: self.next,
            lacking: HashSet::new(),
        };
        while found.lacking.len() < self.sought_max {
            let items = self.from.read(self.topic, found.until, READ_BYTES).await?;
            let Some(last) = items.last() else { break };
            found.until = behind(last);
            found.lacking.extend(items.iter().map(id));
        }
        let mut at = Offset(0);
        while !found.lacking.is_empty() && at < self.end {
            let items = self.to.read(self.topic, at, READ_BYTES).await?;
            let Some(last) = items.last() else { break };
            at = behind(last);
            let had = items.iter().filter(|item| item.offset < self.end);
            for item in had {
                found.lacking.remove(&id(item));
            }
        }
        Ok(found)
    }
}

fn id(item: &Item) -> ItemId {
    *digest(ITEM_LABEL, &[&item.payload]).as_bytes()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Mutex;

    use super::*;

    /// A bus of one topic whose items, a byte each, begin at an offset. It hands out few at once.
    #[derive(Debug, Default)]
    struct Shelf {
        first: u64,
        items: Vec<u8>,
        was_read: Mutex<Vec<u64>>,
    }

    impl Shelf {
        fn new(first: u64, items: impl Into<Vec<u8>>) -> Self {
            Self {
                first,
                items: items.into(),
                was_read: Mutex::default(),
            }
        }
    }

    impl Reads for Shelf {
        fn read(&self, _: &Topic, from: Offset, _: usize) -> BusFuture<'_, Vec<Item>> {
            let skipped = from.0.saturating_sub(self.first);
            let offsets = (from.0.max(self.first)..).zip(self.items.iter().skip(skipped as usize));
            let items = offsets.take(3).map(|(offset, byte)| Item {
                offset: Offset(offset),
                payload: vec![*byte],
            });
            let items: Vec<_> = items.collect();
            let mut was_read = self.was_read.lock().unwrap();
            was_read.extend(items.iter().map(|item| item.offset.0));
            Box::pin(async { Ok(items) })
        }
    }

    /// What is lacking, where the archive goes on with the item at `next` of the bus.
    async fn lacking(from: &Shelf, to: &Shelf, next: u64, sought_max: usize) -> Vec<u8> {
        let topic = Topic::new("data").unwrap();
        let archive = Cursor {
            end: Offset(to.first + to.items.len() as u64),
            next: Offset(next),
            is_in_step: true,
        };
        let mut all = Vec::new();
        let mut lacking = Lacking::of(from, (to, archive), &topic);
        lacking.sought_max = sought_max;
        while let Some(payloads) = lacking.next().await.unwrap() {
            all.extend(payloads.concat());
        }
        let end = from.first + from.items.len() as u64;
        assert!(from.items.is_empty() || lacking.reached() == Offset(end));
        all
    }

    #[tokio::test]
    async fn nothing_is_read_of_an_archive_behind_the_end_of_a_bus_that_went_back() {
        let (from, to) = (
            Shelf::new(0, *b"abcdef"),
            Shelf::new(0, *b"abcdefghijklmnop"),
        );
        assert_eq!(lacking(&from, &to, 16, 1).await, b"");
        let was_read = to.was_read.into_inner().unwrap();
        assert_eq!(was_read, (0..6).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn what_came_instead_is_found_wherever_the_archive_has_some_of_it() {
        let from = Shelf::new(0, *b"abcXbYYZa");
        let to = Shelf::new(0, *b"abcdefgZ");
        for sought_max in [1, 2, 4, 100] {
            assert_eq!(lacking(&from, &to, 8, sought_max).await, b"XYY");
        }
        // In step again behind a stretch that differs, or as a note has it.
        let from = Shelf::new(2, *b"cdXefgh");
        for (next, to) in [(10, "abcdeefgh"), (8, "cdeefgh"), (7, "fghcde")] {
            let to = Shelf::new(0, to);
            assert_eq!(lacking(&from, &to, next, 1).await, b"X");
        }
    }

    #[tokio::test]
    async fn what_is_found_is_what_the_archive_does_not_have() {
        let mut state: u64 = 1;
        let mut draw = |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % below
        };
        for _ in 0..3_000 {
            let kinds = 2 + draw(30);
            let [from, to] = [draw(20), draw(20)].map(|len| {
                let items: Vec<u8> = (0..len).map(|_| draw(kinds) as u8).collect();
                Shelf::new(draw(3), items)
            });
            let had: BTreeSet<_> = to.items.iter().collect();
            let wanted = from.items.iter().filter(|of| !had.contains(of));
            let wanted: Vec<u8> = wanted.copied().collect();
            let (next, sought_max) = (draw(30), 1 + draw(12) as usize);
            assert_eq!(lacking(&from, &to, next, sought_max).await, wanted);
        }
    }
}

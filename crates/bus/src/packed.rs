use bytes::Bytes;

use crate::{Item, Offset};

/// Bytes of one entry of the table of lengths.
const LENGTH_BYTES: usize = 4;
/// Items that are taken at once, whatever their size.
const ITEMS_MAX: usize = 16_384;

/// The payloads of one append as adapters put them into a message, each where it lies: behind a table of
/// their lengths, four bytes each, big-endian.
#[derive(Clone, Debug)]
pub struct Packed {
    first: u64,
    bytes: Bytes,
    /// Behind the table: where the first payload begins.
    start: usize,
    /// Where each payload ends.
    ends: Vec<u32>,
}

impl Packed {
    /// Puts payloads behind the table of their lengths; nothing where one is longer than any may be.
    pub fn pack(payloads: &[Vec<u8>]) -> Option<Vec<u8>> {
        let bytes = payloads.iter().map(Vec::len).sum::<usize>();
        let mut packed = Vec::with_capacity(payloads.len() * LENGTH_BYTES + bytes);
        for payload in payloads {
            packed.extend(u32::try_from(payload.len()).ok()?.to_be_bytes());
        }
        for payload in payloads {
            packed.extend(payload);
        }
        Some(packed)
    }

    /// Finds each of `count` payloads, the first of which is the item at `first`. Nothing, where they and
    /// their table do not take up all of `bytes`.
    pub fn new(first: Offset, count: u32, bytes: Bytes) -> Option<Self> {
        let count = usize::try_from(count).ok()?;
        let table = count.checked_mul(LENGTH_BYTES)?;
        let lengths = bytes.get(..table)?;
        let mut ends = Vec::with_capacity(count);
        let mut end = u32::try_from(table).ok()?;
        for length in lengths.as_chunks::<LENGTH_BYTES>().0 {
            end = end.checked_add(u32::from_be_bytes(*length))?;
            ends.push(end);
        }
        (usize::try_from(end).ok()? == bytes.len()).then_some(Self {
            first: first.0,
            bytes,
            start: table,
            ends,
        })
    }

    /// Bytes of the payloads and their table.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Adds the items from `from` on to `items` while there is room for them, or none is there yet;
    /// says whether all found room. However small they are, there is room for so many.
    pub fn add_to(&self, items: &mut Vec<Item>, from: u64, room: &mut usize) -> bool {
        let mut start = self.start;
        // In this order, for there may be no offset behind the last one.
        for (end, offset) in self.ends.iter().zip(self.first..) {
            let end = usize::try_from(*end).unwrap_or(usize::MAX);
            let payload = self.bytes.get(start..end).unwrap_or_default();
            start = end;
            if offset < from {
                continue;
            }
            let has_room = payload.len() <= *room && items.len() < ITEMS_MAX;
            if !has_room && !items.is_empty() {
                return false;
            }
            *room = room.saturating_sub(payload.len());
            items.push(Item {
                offset: Offset(offset),
                payload: payload.to_vec(),
            });
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(first: u64, payloads: &[&str]) -> Packed {
        let payloads: Vec<_> = payloads.iter().map(|of| of.as_bytes().to_vec()).collect();
        let count = u32::try_from(payloads.len()).unwrap();
        let bytes = Packed::pack(&payloads).unwrap();
        Packed::new(Offset(first), count, bytes.into()).unwrap()
    }

    fn taken(packed: &Packed, from: u64, mut room: usize) -> (Vec<(u64, Vec<u8>)>, bool) {
        let mut items = Vec::new();
        let is_whole = packed.add_to(&mut items, from, &mut room);
        let shown = items.into_iter().map(|item| (item.offset.0, item.payload));
        (shown.collect(), is_whole)
    }

    #[test]
    fn items_are_taken_from_one_on_while_there_is_room() {
        let packed = packed(5, &["one", "", "three"]);
        let all = [
            (5, b"one".to_vec()),
            (6, Vec::new()),
            (7, b"three".to_vec()),
        ];
        assert_eq!(taken(&packed, 0, 8), (all.to_vec(), true));
        assert_eq!(taken(&packed, 6, 5), (all[1..].to_vec(), true));
        assert_eq!(taken(&packed, 5, 7), (all[..2].to_vec(), false));
        // However large it is, one comes.
        assert_eq!(taken(&packed, 7, 0), (all[2..].to_vec(), true));
        assert_eq!(taken(&packed, 8, 8), (Vec::new(), true));
    }

    #[test]
    fn however_small_items_are_so_many_come_at_once() {
        let packed = packed(0, &["", ""].repeat(ITEMS_MAX));
        let (taken, is_whole) = taken(&packed, 1, 1);
        assert_eq!((taken.len(), is_whole), (ITEMS_MAX, false));
        assert_eq!(taken[0].0, 1);
    }

    #[test]
    fn the_last_offset_of_all_may_be_taken() {
        let packed = packed(u64::MAX - 1, &["a"]);
        assert_eq!(taken(&packed, u64::MAX - 1, 1).0.len(), 1);
    }

    #[test]
    fn tables_that_do_not_fit_are_refused() {
        let find = |count, bytes: &'static [u8]| Packed::new(Offset(0), count, bytes.into());
        assert!(find(0, b"").is_some());
        assert!(find(1, b"\0\0\0\x01a").is_some());
        for (count, bytes) in [
            (0, &b"a"[..]),
            (1, b"\0\0\0"),
            (1, b"\0\0\0\x01"),
            (1, b"\0\0\0\x01ab"),
            (2, b"\0\0\0\x01a"),
            (1, b"\xff\xff\xff\xffa"),
            (u32::MAX, b"\0\0\0\x01a"),
        ] {
            assert!(find(count, bytes).is_none(), "{count} in {bytes:?}");
        }
    }
}

use std::iter;

use bytes::Bytes;

use crate::{Item, Offset};

/// Bytes of one entry of the table of lengths.
const LENGTH_BYTES: usize = 4;
/// Items that are taken at once, whatever their size.
const ITEMS_MAX: usize = 16_384;

/// The payloads of one append as adapters put them into messages, each where it lies: behind a table of
/// their lengths, four bytes each, big-endian.
#[derive(Clone, Debug)]
pub struct Packed {
    first: u64,
    pieces: Pieces,
    /// Behind the table: where the first payload begins.
    start: usize,
    /// Where each payload ends.
    ends: Vec<u32>,
}

impl Packed {
    /// Puts payloads behind the table of their lengths; nothing where one is longer than any may be.
    pub fn pack(payloads: &[impl AsRef<[u8]>]) -> Option<Vec<u8>> {
        let bytes: usize = payloads.iter().map(|of| of.as_ref().len()).sum();
        let mut packed = Vec::with_capacity(payloads.len() * LENGTH_BYTES + bytes);
        packed.extend(table(payloads)?);
        for payload in payloads {
            packed.extend_from_slice(payload.as_ref());
        }
        Some(packed)
    }

    /// Packs payloads, cut after each `bytes_max` bytes; what `begin` says of a part, by its number, lies
    /// before it.
    pub fn pack_in_parts(
        payloads: &[impl AsRef<[u8]>],
        bytes_max: usize,
        begin: impl Fn(u32) -> Vec<u8>,
    ) -> Option<Vec<Bytes>> {
        let table = table(payloads)?;
        let payloads = payloads.iter().map(AsRef::as_ref);
        let (mut parts, mut part, mut room) = (Vec::new(), Vec::new(), 0);
        for mut rest in iter::once(&table[..]).chain(payloads) {
            while !rest.is_empty() {
                if room == 0 {
                    parts.extend(Some(part).filter(|part| !part.is_empty()).map(Bytes::from));
                    part = begin(u32::try_from(parts.len()).ok()?);
                    room = bytes_max.max(1);
                    part.reserve_exact(room);
                }
                let (now, later) = rest.split_at(room.min(rest.len()));
                part.extend_from_slice(now);
                room -= now.len();
                rest = later;
            }
        }
        parts.extend(Some(part).filter(|part| !part.is_empty()).map(Bytes::from));
        Some(parts)
    }

    /// Finds each of `count` payloads, the first of which is the item at `first`. Nothing, where they and
    /// their table do not take up all of `bytes`.
    pub fn new(first: Offset, count: u32, bytes: Bytes) -> Option<Self> {
        Self::of_parts(first, count, vec![bytes])
    }

    /// Finds payloads that were cut into parts, as [`new`](Self::new) does.
    pub fn of_parts(first: Offset, count: u32, parts: Vec<Bytes>) -> Option<Self> {
        let pieces = Pieces::new(parts);
        let count = usize::try_from(count).ok()?;
        let table = count.checked_mul(LENGTH_BYTES)?;
        if table > pieces.len() {
            return None;
        }
        let lengths = pieces.copy(0, table);
        let mut ends = Vec::with_capacity(count);
        let mut end = u32::try_from(table).ok()?;
        for length in lengths.as_chunks::<LENGTH_BYTES>().0 {
            end = end.checked_add(u32::from_be_bytes(*length))?;
            ends.push(end);
        }
        (usize::try_from(end).ok()? == pieces.len()).then_some(Self {
            first: first.0,
            pieces,
            start: table,
            ends,
        })
    }

    /// Bytes of the payloads and their table.
    pub fn size(&self) -> usize {
        self.pieces.len()
    }

    /// Adds the items from `from` on to `items` while there is room for them, or none is there yet;
    /// says whether all found room. However small they are, there is room for so many.
    pub fn add_to(&self, items: &mut Vec<Item>, from: u64, room: &mut usize) -> bool {
        let mut start = self.start;
        // In this order, for there may be no offset behind the last one.
        for (end, offset) in self.ends.iter().zip(self.first..) {
            let end = usize::try_from(*end).unwrap_or(usize::MAX);
            let (begin, length) = (start, end - start);
            start = end;
            if offset < from {
                continue;
            }
            let has_room = length <= *room && items.len() < ITEMS_MAX;
            if !has_room && !items.is_empty() {
                return false;
            }
            *room = room.saturating_sub(length);
            items.push(Item {
                offset: Offset(offset),
                payload: self.pieces.copy(begin, end),
            });
        }
        true
    }
}

/// The lengths of payloads; nothing where one is longer than any may be.
fn table(payloads: &[impl AsRef<[u8]>]) -> Option<Vec<u8>> {
    let lengths = payloads.iter().map(|of| u32::try_from(of.as_ref().len()));
    let lengths: Option<Vec<_>> = lengths.map(|of| Some(of.ok()?.to_be_bytes())).collect();
    Some(lengths?.into_flattened())
}

/// Bytes that lie in several pieces.
#[derive(Clone, Debug)]
struct Pieces {
    pieces: Vec<Bytes>,
    /// Where each piece ends.
    ends: Vec<usize>,
}

impl Pieces {
    fn new(pieces: Vec<Bytes>) -> Self {
        let ends = pieces.iter().scan(0, |end, piece| {
            *end += piece.len();
            Some(*end)
        });
        Self {
            ends: ends.collect(),
            pieces,
        }
    }

    fn len(&self) -> usize {
        self.ends.last().copied().unwrap_or_default()
    }

    fn copy(&self, start: usize, end: usize) -> Vec<u8> {
        let mut copy = Vec::with_capacity(end - start);
        let begin = self.ends.partition_point(|end| *end <= start);
        for (piece, piece_end) in self.pieces.iter().zip(&self.ends).skip(begin) {
            let piece_start = piece_end - piece.len();
            let from = start.max(piece_start) - piece_start;
            let until = end.min(*piece_end).saturating_sub(piece_start);
            match piece.get(from..until) {
                Some(taken) => copy.extend_from_slice(taken),
                None => break,
            }
        }
        copy
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
    fn items_are_the_same_however_they_are_cut() {
        let payloads: Vec<Vec<u8>> = (0..9).map(|len| vec![len; len.into()]).collect();
        let whole = Packed::pack(&payloads).unwrap();
        for bytes_max in 1..=whole.len() + 1 {
            let parts = Packed::pack_in_parts(&payloads, bytes_max, |_| Vec::new()).unwrap();
            assert_eq!(parts.len(), whole.len().div_ceil(bytes_max));
            assert!(parts.iter().all(|part| part.len() <= bytes_max));
            assert_eq!(parts.concat(), whole);
            let packed = Packed::of_parts(Offset(0), 9, parts).unwrap();
            let items = taken(&packed, 0, usize::MAX).0;
            assert_eq!(items.len(), 9);
            assert!(
                items
                    .iter()
                    .all(|(at, item)| *item == payloads[*at as usize])
            );
        }
        let head = |number: u32| number.to_be_bytes().to_vec();
        let parts = Packed::pack_in_parts(&[vec![7; 3]], 4, head).unwrap();
        assert_eq!(
            parts.concat(),
            [0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1, 7, 7, 7]
        );
        let nothing: [Vec<u8>; 0] = [];
        assert_eq!(Packed::pack_in_parts(&nothing, 4, head), Some(Vec::new()));
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

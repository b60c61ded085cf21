//! Which envelopes came before, of those that a carrier brings: `spec/reading.md`, section "Carried".
//!
//! Whoever carries envelopes shows one reader a part of a stream, in any order. So what is missing is
//! no gap here, and nothing is too late for having been overtaken, as long as it can be told from what
//! came before.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use sealcast_protocol::{DeviceId, EnvelopeHash, Header, InstanceId, Position};

use crate::newest::Newest;

/// Pieces of 64 numbers that are remembered of one device.
const PIECES_MAX: usize = 4096;
const PIECE_BITS: u32 = 64;
/// Runs of one device that are remembered.
const RUNS_MAX: usize = 1024;
/// Envelopes of one device whose hashes are remembered, so that two with one number are told apart.
const LINKS_MAX: usize = 256;

/// The envelopes that one reader was brought and opened.
///
/// Each is remembered by its number. Where a device has more than can be, the lowest numbers of the run
/// that has the most are forgotten, and nothing of that run that is below them is new any more.
#[derive(Clone, Debug)]
pub struct Sightings {
    floor: Position,
    devices: BTreeMap<DeviceId, Seen>,
}

/// An envelope that was opened, to be [noted](Sightings::note) once it was handed out.
#[derive(Clone, Copy, Debug)]
pub struct Sighting {
    header: Header,
    hash: EnvelopeHash,
    at: Position,
}

/// What there is to say of an envelope by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sighted {
    /// It was not seen.
    New,
    /// It was not seen, and it follows, or is followed by, a twin of one that was.
    Apart,
    /// It was seen, or is older than what is remembered.
    Again,
    /// Another with its number was seen.
    Twin,
}

#[derive(Clone, Debug)]
struct Seen {
    floor: Position,
    runs: BTreeMap<InstanceId, Run>,
    pieces: usize,
    links: Newest<(InstanceId, u32), Link>,
    ticks: u64,
}

#[derive(Clone, Debug)]
struct Run {
    /// Below it, every number counts as seen.
    low: u64,
    pieces: BTreeMap<u32, u64>,
    /// The newest time.
    at: Position,
    used: u64,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    hash: EnvelopeHash,
    prev: EnvelopeHash,
}

impl Sightings {
    /// Takes nothing as new that was sealed before a time.
    pub fn since(floor: Position) -> Self {
        Self {
            floor,
            devices: BTreeMap::new(),
        }
    }

    /// Whether an envelope that was judged before others were noted would be judged as new, and as nothing else, after
    /// them.
    pub fn is_new(&self, of: &Sighting) -> bool {
        self.judge(of) == Sighted::New
    }

    pub(crate) fn judge(&self, of: &Sighting) -> Sighted {
        match self.devices.get(&of.header.device) {
            None if of.at < self.floor => Sighted::Again,
            None => Sighted::New,
            Some(seen) => {
                let floor = self.floor.max(seen.floor);
                seen.judge(of, of.at < floor || seen.has(of))
            }
        }
    }

    /// As [`judge`](Self::judge), of one that was judged when it came: only what is known of it counts.
    pub(crate) fn judge_waited(&self, of: &Sighting) -> Sighted {
        let seen = self.devices.get(&of.header.device);
        seen.map_or(Sighted::New, |seen| seen.judge(of, seen.remembers(of)))
    }

    /// Remembers an envelope.
    pub fn note(&mut self, of: &Sighting) {
        let seen = self
            .devices
            .entry(of.header.device)
            .or_insert_with(|| Seen {
                floor: Position::START,
                runs: BTreeMap::new(),
                pieces: 0,
                links: Newest::new(LINKS_MAX),
                ticks: 0,
            });
        seen.note(of);
        seen.forget_numbers();
        seen.forget_runs();
    }
}

impl Sighting {
    pub(crate) fn new(header: &Header, hash: EnvelopeHash, at: Position) -> Self {
        Self {
            header: *header,
            hash,
            at,
        }
    }

    fn number(&self) -> (InstanceId, u32) {
        (self.header.instance, self.header.seq)
    }

    /// The piece that its number is in, and its bit there.
    fn place(&self) -> (u32, u64) {
        let seq = self.header.seq;
        (seq / PIECE_BITS, 1 << (seq % PIECE_BITS))
    }
}

impl Seen {
    fn judge(&self, of: &Sighting, has_come: bool) -> Sighted {
        match self.links.get(&of.number()) {
            Some(known) if known.hash == of.hash => Sighted::Again,
            Some(_) => Sighted::Twin,
            None if has_come => Sighted::Again,
            None if self.departs(of) => Sighted::Apart,
            None => Sighted::New,
        }
    }

    fn has(&self, of: &Sighting) -> bool {
        let run = self.runs.get(&of.header.instance);
        let is_forgotten = run.is_some_and(|run| u64::from(of.header.seq) < run.low);
        is_forgotten || self.remembers(of)
    }

    fn remembers(&self, of: &Sighting) -> bool {
        let (piece, bit) = of.place();
        let run = self.runs.get(&of.header.instance);
        let bits = run.and_then(|run| run.pieces.get(&piece));
        bits.is_some_and(|bits| bits & bit != 0)
    }

    fn departs(&self, of: &Sighting) -> bool {
        let (instance, seq) = of.number();
        let link = |seq: Option<u32>| self.links.get(&(instance, seq?));
        let before = link(seq.checked_sub(1));
        let after = link(seq.checked_add(1));
        before.is_some_and(|before| before.hash != of.header.prev)
            || after.is_some_and(|after| after.prev != of.hash)
    }

    fn note(&mut self, of: &Sighting) {
        let (piece, bit) = of.place();
        self.ticks += 1;
        let run = self.runs.entry(of.header.instance).or_insert_with(|| Run {
            low: 0,
            pieces: BTreeMap::new(),
            at: of.at,
            used: 0,
        });
        run.used = self.ticks;
        run.at = run.at.max(of.at);
        let known = run.pieces.len();
        *run.pieces.entry(piece).or_default() |= bit;
        self.pieces += run.pieces.len() - known;
        let link = Link {
            hash: of.hash,
            prev: of.header.prev,
        };
        self.links.insert(of.number(), link);
    }

    /// Forgets the lowest quarter of the run that has the most.
    fn forget_numbers(&mut self) {
        if self.pieces <= PIECES_MAX {
            return;
        }
        let Some(run) = self.runs.values_mut().max_by_key(|run| run.pieces.len()) else {
            return;
        };
        for _ in 0..run.pieces.len().div_ceil(4) {
            if let Some((piece, _)) = run.pieces.pop_first() {
                run.low = (u64::from(piece) + 1) * u64::from(PIECE_BITS);
                self.pieces -= 1;
            }
        }
    }

    /// Forgets the quarter that was used least recently; nothing that is as old as they are is new any
    /// more.
    fn forget_runs(&mut self) {
        if self.runs.len() <= RUNS_MAX {
            return;
        }
        let runs = self.runs.iter();
        let mut by_use: Vec<_> = runs.map(|(id, run)| (run.used, *id)).collect();
        by_use.sort_unstable();
        for (_, id) in by_use.into_iter().take(RUNS_MAX / 4) {
            if let Some(run) = self.runs.remove(&id) {
                self.pieces -= run.pieces.len();
                self.floor = self.floor.max(run.at.after(1));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use sealcast_protocol::{Flags, SessionId, Suite};

    use super::*;

    fn numbered(instance: u64, seq: u32) -> Sighting {
        let mut hash = [0; 16];
        hash[..8].copy_from_slice(&instance.to_be_bytes());
        hash[8..12].copy_from_slice(&seq.to_be_bytes());
        let header = Header {
            suite: Suite::TreeV1,
            flags: Flags::default(),
            content: 0,
            session: SessionId([1; 16]),
            position: Position(1_000 + u64::from(seq)),
            device: DeviceId([2; 16]),
            instance: InstanceId(instance.to_be_bytes()),
            seq,
            prev: EnvelopeHash([9; 16]),
        };
        Sighting::new(&header, EnvelopeHash(hash), header.position)
    }

    fn pieces(of: &Sightings) -> usize {
        let seen = of.devices.values().next().unwrap();
        let pieces = seen.runs.values().map(|run| run.pieces.len()).sum();
        assert_eq!(seen.pieces, pieces);
        assert!(seen.runs.len() <= RUNS_MAX);
        pieces
    }

    #[test]
    fn what_was_overtaken_by_thousands_is_new_and_once_only() {
        let mut seen = Sightings::since(Position::START);
        let late = numbered(1, 7);
        let others = (0..100_000).filter(|seq| *seq != 7);
        others.for_each(|seq| seen.note(&numbered(1, seq)));
        assert_eq!(seen.judge(&late), Sighted::New);
        seen.note(&late);
        for seq in [0, 7, 63, 64, 99_999] {
            assert_eq!(seen.judge(&numbered(1, seq)), Sighted::Again);
        }
    }

    #[test]
    fn what_is_forgotten_is_not_new_and_what_another_run_has_is_remembered() {
        let mut seen = Sightings::since(Position::START);
        seen.note(&numbered(2, 5));
        let far_apart = |i: u32| numbered(1, i * PIECE_BITS);
        for i in 0..3 * PIECES_MAX as u32 {
            seen.note(&far_apart(i));
            assert!(pieces(&seen) <= PIECES_MAX);
        }
        for i in 0..3 * PIECES_MAX as u32 {
            assert_eq!(seen.judge(&far_apart(i)), Sighted::Again);
        }
        assert_eq!(seen.judge(&numbered(1, 1)), Sighted::Again);
        assert_eq!(seen.judge(&numbered(2, 5)), Sighted::Again);
        assert_eq!(seen.judge(&numbered(2, 4)), Sighted::New);
    }

    #[test]
    fn many_runs_are_forgotten_and_nothing_as_old_is_new() {
        let mut seen = Sightings::since(Position::START);
        for instance in 0..2 * RUNS_MAX as u64 {
            seen.note(&numbered(instance, 3));
            assert!(pieces(&seen) <= RUNS_MAX);
        }
        for instance in 0..2 * RUNS_MAX as u64 {
            assert_eq!(seen.judge(&numbered(instance, 3)), Sighted::Again);
        }
        assert_eq!(seen.judge(&numbered(9_999_999, 4)), Sighted::New);
    }
}

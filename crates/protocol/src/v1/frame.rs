//! Several records in one envelope, `spec/envelope.md`.
//!
//! ```text
//! frame  = count, count × record
//! record = time - position (zigzag), length, bytes
//! ```
//!
//! Numbers are variable-length, seven bits a byte, the lowest first, in their shortest form.

use alloc::vec::Vec;
use core::fmt;

use zeroize::{Zeroize, Zeroizing};

use crate::encoding::DecodeError;
use crate::ids::Position;

/// Most records in one frame.
pub const FRAME_RECORDS_MAX: usize = 65_535;

/// Bytes of a number, at most; enough for 64 bits.
const VARINT_MAX: usize = 10;
/// Bytes of the record count, at most.
const COUNT_MAX: usize = 3;
/// Bytes of the distance between two positions, at most: 48 bits and a sign.
const DELTA_MAX: usize = 7;

/// Collects records that leave in one envelope.
///
/// ```
/// use sealcast_protocol::{Frame, Position, Records};
///
/// let mut frame = Frame::with_capacity(64 * 1024);
/// frame.push(Position(999), b"21.5")?;
/// frame.push(Position(1_000), b"21.6")?;
/// let plaintext = frame.finish(Position(1_000));
/// let times: Vec<_> = Records::decode(&plaintext, Position(1_000), true)?
///     .map(|record| record.time)
///     .collect();
/// assert_eq!(times, [Position(999), Position(1_000)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Frame {
    times: Vec<(Position, usize)>,
    payloads: Vec<u8>,
    /// Bytes of the finished plaintext, at most.
    len_max: usize,
    capacity: usize,
}

impl Frame {
    /// An empty frame whose plaintext will have at most `capacity` bytes. Room for it is taken at
    /// once, so that no copy of a payload is left behind by growing.
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            times: Vec::new(),
            payloads: Vec::with_capacity(capacity),
            len_max: COUNT_MAX,
            capacity,
        }
    }

    /// Adds a record that was made at `time`.
    ///
    /// # Errors
    ///
    /// Fails when the record does not fit any more, or its time is not a position. The frame is
    /// as it was then.
    pub fn push(&mut self, time: Position, payload: &[u8]) -> Result<(), PushError> {
        if time >= Position::END {
            return Err(PushError::TimeOutOfRange);
        }
        let added = DELTA_MAX + varint_len(payload.len() as u64) + payload.len();
        let len_max = self.len_max.saturating_add(added);
        if len_max > self.capacity || self.times.len() == FRAME_RECORDS_MAX {
            return Err(PushError::Full);
        }
        self.len_max = len_max;
        self.times.push((time, payload.len()));
        self.payloads.extend_from_slice(payload);
        Ok(())
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Whether there is no record yet.
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// Writes the plaintext of the envelope that is sealed at `position`. Wiped when dropped.
    ///
    /// # Panics
    ///
    /// Panics when the frame is empty.
    pub fn finish(&self, position: Position) -> Zeroizing<Vec<u8>> {
        assert!(!self.is_empty(), "a frame has at least one record");
        let mut plaintext = Zeroizing::new(Vec::with_capacity(self.len_max));
        put_varint(&mut plaintext, self.times.len() as u64);
        let mut rest = self.payloads.as_slice();
        for &(time, len) in &self.times {
            put_varint(&mut plaintext, zigzag(time, position));
            put_varint(&mut plaintext, len as u64);
            let (payload, behind) = rest.split_at(len);
            plaintext.extend_from_slice(payload);
            rest = behind;
        }
        plaintext
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        self.payloads.zeroize();
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({} records)", self.len())
    }
}

/// Why a record was not added to a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// The frame has no room for the record: seal it, and put the record into the next one, or
    /// seal a record that is too long for any frame alone.
    #[error("the frame is full")]
    Full,
    /// The time does not fit into 48 bits.
    #[error("the record's time is out of range")]
    TimeOutOfRange,
}

/// One record of an opened envelope.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// When the record was made, by its publisher. The right to read it depends on the envelope's
    /// position, not on this.
    pub time: Position,
    /// What was published.
    pub payload: &'a [u8],
}

impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Record({}, {} bytes)", self.time.0, self.payload.len())
    }
}

/// The records of an opened envelope, in order; checked whole before the first is given out.
#[derive(Clone)]
pub struct Records<'a> {
    kind: Kind<'a>,
    position: Position,
    left: usize,
}

#[derive(Clone, Copy)]
enum Kind<'a> {
    Single(&'a [u8]),
    Frame(&'a [u8]),
}

impl<'a> Records<'a> {
    /// Reads the plaintext of an envelope sealed at `position`; `is_frame` is the header's flag.
    /// Without it the plaintext is one record, made at the position.
    ///
    /// # Errors
    ///
    /// Fails when the plaintext of a frame is not the one encoding of at least one record.
    pub fn decode(
        plaintext: &'a [u8],
        position: Position,
        is_frame: bool,
    ) -> Result<Self, DecodeError> {
        if !is_frame {
            return Ok(Self {
                kind: Kind::Single(plaintext),
                position,
                left: 1,
            });
        }
        let mut rest = plaintext;
        let count = take_varint(&mut rest)?;
        let left = usize::try_from(count).map_err(|_| DecodeError::OutOfRange)?;
        if left == 0 || left > FRAME_RECORDS_MAX {
            return Err(DecodeError::OutOfRange);
        }
        let records = Self {
            kind: Kind::Frame(rest),
            position,
            left,
        };
        for _ in 0..left {
            take_record(&mut rest, position)?;
        }
        match rest.is_empty() {
            true => Ok(records),
            false => Err(DecodeError::Malformed),
        }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        self.left = self.left.checked_sub(1)?;
        match &mut self.kind {
            Kind::Single(payload) => Some(Record {
                time: self.position,
                payload,
            }),
            Kind::Frame(rest) => take_record(rest, self.position).ok(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Records<'_> {}

impl fmt::Debug for Records<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Records({} left)", self.left)
    }
}

fn take_record<'a>(rest: &mut &'a [u8], position: Position) -> Result<Record<'a>, DecodeError> {
    let time = unzigzag(take_varint(rest)?, position)?;
    let len = usize::try_from(take_varint(rest)?).map_err(|_| DecodeError::Malformed)?;
    let (payload, behind) = rest.split_at_checked(len).ok_or(DecodeError::Malformed)?;
    *rest = behind;
    Ok(Record { time, payload })
}

/// The signed distance from `position` to `time`, small numbers for small distances either way.
fn zigzag(time: Position, position: Position) -> u64 {
    match time.0.checked_sub(position.0) {
        Some(ahead) => ahead << 1,
        None => ((position.0 - time.0) << 1) - 1,
    }
}

fn unzigzag(number: u64, position: Position) -> Result<Position, DecodeError> {
    let time = match number & 1 {
        0 => position.0.checked_add(number >> 1),
        _ => position.0.checked_sub((number >> 1) + 1),
    };
    time.map(Position)
        .filter(|&time| time < Position::END)
        .ok_or(DecodeError::OutOfRange)
}

fn varint_len(mut number: u64) -> usize {
    let mut len = 1;
    while number >= 0x80 {
        number >>= 7;
        len += 1;
    }
    len
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_varint(rest: &mut &[u8]) -> Result<u64, DecodeError> {
    let mut number = 0_u64;
    for i in 0..VARINT_MAX {
        let (&byte, behind) = rest.split_first().ok_or(DecodeError::Malformed)?;
        *rest = behind;
        let bits = u64::from(byte & 0x7f);
        if bits.leading_zeros() < 7 * i as u32 {
            return Err(DecodeError::Malformed);
        }
        number |= bits << (7 * i);
        if byte & 0x80 == 0 {
            return match byte == 0 && i > 0 {
                true => Err(DecodeError::NotCanonical),
                false => Ok(number),
            };
        }
    }
    Err(DecodeError::Malformed)
}

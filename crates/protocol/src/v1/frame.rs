//! Several records in one envelope, `spec/envelope.md`.
//!
//! ```text
//! frame  = 1 or more × run
//! run    = time - position (zigzag), count, count × record
//! record = length, bytes
//! ```
//!
//! Records of one time that follow each other are a run. Numbers are variable-length, seven bits a
//! byte, the lowest first, in their shortest form.

use alloc::vec::Vec;
use core::fmt;

use sealcast_crypto::{SecretBytes, wipe};

use crate::encoding::DecodeError;
use crate::ids::Position;

/// Most records in one frame.
pub const FRAME_RECORDS_MAX: usize = 65_535;

/// Bytes of a number, at most; enough for 64 bits.
const VARINT_MAX: usize = 10;
/// Bytes of a run's own fields, at most: 48 bits and a sign, and the count.
const RUN_MAX: usize = 7 + 3;

/// Collects records that leave in one envelope.
///
/// ```
/// use sealcast_protocol::{Frame, Position, Records};
///
/// let mut frame = Frame::with_capacity(64 * 1024);
/// frame.push(Position(999), b"21.5")?;
/// frame.push(Position(1_000), b"21.6")?;
/// let plaintext = frame.plaintext(Position(1_000));
/// let times: Vec<_> = Records::decode(plaintext.expose(), Position(1_000), true)?
///     .map(|record| record.time)
///     .collect();
/// assert_eq!(times, [Position(999), Position(1_000)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Frame {
    runs: Vec<Run>,
    /// All records as they travel, run after run.
    records: Vec<u8>,
    count: usize,
    capacity: usize,
}

/// Records of one time, and where they end.
struct Run {
    time: Position,
    count: usize,
    end: usize,
}

impl Frame {
    /// An empty frame whose plaintext will have at most `capacity` bytes. Room for it is taken at
    /// once, so that no copy of a payload is left behind by growing.
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            runs: Vec::new(),
            records: Vec::with_capacity(capacity),
            count: 0,
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
        let continues = self.runs.last().is_some_and(|run| run.time == time);
        let runs = self.runs.len() + usize::from(!continues);
        let added = varint_len(payload.len() as u64).saturating_add(payload.len());
        let len_max = (runs * RUN_MAX + self.records.len()).saturating_add(added);
        if len_max > self.capacity || self.count == FRAME_RECORDS_MAX {
            return Err(PushError::Full);
        }
        match u8::try_from(payload.len()) {
            Ok(len @ ..0x80) => self.records.push(len),
            _ => put_varint(&mut self.records, payload.len() as u64),
        }
        self.records.extend_from_slice(payload);
        self.count += 1;
        let end = self.records.len();
        match self.runs.last_mut().filter(|_| continues) {
            Some(run) => (run.count, run.end) = (run.count + 1, end),
            None => self.runs.push(Run {
                time,
                count: 1,
                end,
            }),
        }
        Ok(())
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no record yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Wipes the records and leaves the room for others.
    pub fn clear(&mut self) {
        wipe(&mut self.records);
        self.records.clear();
        self.runs.clear();
        self.count = 0;
    }

    /// The plaintext of the envelope that is sealed at `position`; there is none of an empty frame.
    pub fn plaintext(&self, position: Position) -> SecretBytes {
        let mut plaintext = Vec::with_capacity(self.plaintext_len(position));
        self.write(position, &mut plaintext);
        SecretBytes::from(plaintext)
    }

    /// How many bytes [`write`](Self::write) appends.
    pub(super) fn plaintext_len(&self, position: Position) -> usize {
        let fields =
            |run: &Run| varint_len(zigzag(run.time, position)) + varint_len(run.count as u64);
        self.runs.iter().map(fields).sum::<usize>() + self.records.len()
    }

    /// Appends the plaintext of the envelope that is sealed at `position`.
    pub(super) fn write(&self, position: Position, out: &mut Vec<u8>) {
        let mut from = 0;
        for run in &self.runs {
            put_varint(out, zigzag(run.time, position));
            put_varint(out, run.count as u64);
            out.extend_from_slice(self.records.get(from..run.end).unwrap_or_default());
            from = run.end;
        }
    }
}

/// Room that was never used has nothing to wipe.
impl Drop for Frame {
    fn drop(&mut self) {
        wipe(&mut self.records);
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
    Frame {
        rest: &'a [u8],
        /// Of the run that is being read, and how many records it has left.
        time: Position,
        in_run: usize,
    },
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
        let kind = Kind::Frame {
            rest: plaintext,
            time: position,
            in_run: 0,
        };
        let left = count_records(plaintext, position)?;
        Ok(Self {
            kind,
            position,
            left,
        })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        self.left = self.left.checked_sub(1)?;
        let (rest, time, in_run) = match &mut self.kind {
            Kind::Single(payload) => {
                return Some(Record {
                    time: self.position,
                    payload,
                });
            }
            Kind::Frame { rest, time, in_run } => (rest, time, in_run),
        };
        if *in_run == 0 {
            (*time, *in_run) = take_run(rest, self.position).ok()?;
        }
        *in_run -= 1;
        Some(Record {
            time: *time,
            payload: take_payload(rest).ok()?,
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Records<'_> {}

/// The records of an opened frame, together with the plaintext that they lie in.
pub struct OpenFrame {
    plaintext: SecretBytes,
    position: Position,
    /// Where the rest begins, of which run, and how much there is of it.
    at: usize,
    time: Position,
    in_run: usize,
    left: usize,
}

impl OpenFrame {
    /// Reads the plaintext of a frame that was sealed at `position`.
    ///
    /// # Errors
    ///
    /// As [`Records::decode`].
    pub fn decode(plaintext: SecretBytes, position: Position) -> Result<Self, DecodeError> {
        let left = count_records(plaintext.expose(), position)?;
        Ok(Self {
            plaintext,
            position,
            at: 0,
            time: position,
            in_run: 0,
            left,
        })
    }

    /// Whether all records were handed out.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// The next record.
    #[inline]
    pub fn next_record(&mut self) -> Option<Record<'_>> {
        self.left = self.left.checked_sub(1)?;
        let whole = self.plaintext.expose();
        let mut rest = whole.get(self.at..)?;
        if self.in_run == 0 {
            (self.time, self.in_run) = take_run(&mut rest, self.position).ok()?;
        }
        self.in_run -= 1;
        let payload = take_payload(&mut rest).ok()?;
        self.at = whole.len() - rest.len();
        let time = self.time;
        Some(Record { time, payload })
    }
}

impl fmt::Debug for OpenFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenFrame({} left)", self.left)
    }
}

impl fmt::Debug for Records<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Records({} left)", self.left)
    }
}

/// Checks a whole frame, and says how many records it has.
fn count_records(mut rest: &[u8], position: Position) -> Result<usize, DecodeError> {
    let mut count = 0;
    let mut before = None;
    loop {
        let (time, in_run) = take_run(&mut rest, position)?;
        if before.replace(time) == Some(time) {
            return Err(DecodeError::NotCanonical);
        }
        count += in_run;
        if count > FRAME_RECORDS_MAX {
            return Err(DecodeError::OutOfRange);
        }
        for _ in 0..in_run {
            take_payload(&mut rest)?;
        }
        if rest.is_empty() {
            return Ok(count);
        }
    }
}

/// The time of a run, and how many records it has.
fn take_run(rest: &mut &[u8], position: Position) -> Result<(Position, usize), DecodeError> {
    let time = unzigzag(take_varint(rest)?, position)?;
    let count = usize::try_from(take_varint(rest)?).unwrap_or(usize::MAX);
    match (1..=FRAME_RECORDS_MAX).contains(&count) {
        true => Ok((time, count)),
        false => Err(DecodeError::OutOfRange),
    }
}

#[inline]
fn take_payload<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], DecodeError> {
    let len = usize::try_from(take_varint(rest)?).map_err(|_| DecodeError::Malformed)?;
    let (payload, behind) = rest.split_at_checked(len).ok_or(DecodeError::Malformed)?;
    *rest = behind;
    Ok(payload)
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

/// Nearly all numbers are short.
#[inline]
fn take_varint(rest: &mut &[u8]) -> Result<u64, DecodeError> {
    match rest.split_first() {
        Some((&byte @ ..0x80, behind)) => {
            *rest = behind;
            Ok(u64::from(byte))
        }
        _ => take_long_varint(rest),
    }
}

fn take_long_varint(rest: &mut &[u8]) -> Result<u64, DecodeError> {
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

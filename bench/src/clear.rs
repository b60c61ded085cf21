//! What a program does that does not seal: lines into frames, as the client fills them, and back.

use std::io::{self, BufRead as _, BufReader, BufWriter, StdinLock, Stdout, Write as _};

use sealcast_protocol::{Frame, Position, Records};

/// As the client has them.
pub(crate) const FRAME_BYTES: usize = (64 << 10) + 512;
const BATCH_BYTES: usize = 1 << 20;
/// Room for a line that travels by itself, and how many of them are handed over at once.
const SINGLE_BYTES: usize = 1 << 10;
const SINGLES: usize = 64;

/// The lines of standard input in frames, as many at once as the client has in a batch.
pub(crate) struct Framing {
    stdin: BufReader<StdinLock<'static>>,
    frame: Frame,
    line: Vec<u8>,
    /// Whether each line is a frame.
    is_single: bool,
}

impl Framing {
    pub(crate) fn of_stdin() -> Self {
        Self {
            stdin: BufReader::with_capacity(64 << 10, io::stdin().lock()),
            frame: Frame::with_capacity(FRAME_BYTES),
            line: Vec::new(),
            is_single: false,
        }
    }

    /// Each line in a frame of its own.
    pub(crate) fn of_single_lines() -> Self {
        Self {
            frame: Frame::with_capacity(SINGLE_BYTES),
            is_single: true,
            ..Self::of_stdin()
        }
    }

    /// The next batch; `None` at the end.
    pub(crate) fn next(&mut self) -> anyhow::Result<Option<Vec<Vec<u8>>>> {
        let mut batch = Vec::new();
        let whole = match self.is_single {
            true => SINGLES,
            false => BATCH_BYTES.div_ceil(FRAME_BYTES),
        };
        while batch.len() < whole {
            self.line.clear();
            if self.stdin.read_until(b'\n', &mut self.line)? == 0 {
                if !self.frame.is_empty() {
                    batch.push(self.close()?);
                }
                break;
            }
            let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
            if self.frame.push(now()?, line).is_err() {
                let line = line.to_vec();
                batch.push(self.close()?);
                self.frame.push(now()?, &line)?;
            }
            if self.is_single {
                batch.push(self.close()?);
            }
        }
        Ok(Some(batch).filter(|batch| !batch.is_empty()))
    }

    fn close(&mut self) -> anyhow::Result<Vec<u8>> {
        let plaintext = self.frame.plaintext(now()?).into_vec();
        let room = if self.is_single {
            SINGLE_BYTES
        } else {
            FRAME_BYTES
        };
        self.frame = Frame::with_capacity(room);
        Ok(plaintext)
    }
}

/// The lines of standard input, one by one.
pub(crate) fn lines_of_stdin() -> impl Iterator<Item = io::Result<String>> {
    BufReader::with_capacity(64 << 10, io::stdin()).lines()
}

fn now() -> anyhow::Result<Position> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Ok(Position(u64::try_from(since.as_millis())?))
}

/// Prints the lines of frames.
pub(crate) struct Printing {
    out: BufWriter<Stdout>,
    position: Position,
}

impl Printing {
    /// A frame's times are relative to its position, which nobody kept: any serves.
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            out: BufWriter::with_capacity(64 << 10, io::stdout()),
            position: now()?,
        })
    }

    /// Prints the lines of a frame, and says how many there were.
    pub(crate) fn print(&mut self, frame: &[u8]) -> anyhow::Result<u64> {
        let mut lines = 0;
        for record in Records::decode(frame, self.position, true)? {
            self.out.write_all(record.payload)?;
            self.out.write_all(b"\n")?;
            lines += 1;
        }
        Ok(lines)
    }

    pub(crate) fn finish(mut self) -> anyhow::Result<()> {
        Ok(self.out.flush()?)
    }
}

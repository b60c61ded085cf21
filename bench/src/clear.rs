//! What a program does that does not seal: lines into frames, as the client fills them, and back.

use std::io::{self, BufRead as _, BufReader, BufWriter, StdinLock, Stdout, Write as _};

use sealcast_protocol::{Frame, Position, Records};

/// As the client has them.
pub(crate) const FRAME_BYTES: usize = (64 << 10) + 512;
const BATCH_BYTES: usize = 2 << 20;

/// The lines of standard input in frames, as many at once as the client has in a batch.
pub(crate) struct Framing {
    stdin: BufReader<StdinLock<'static>>,
    frame: Frame,
    line: Vec<u8>,
}

impl Framing {
    pub(crate) fn of_stdin() -> Self {
        Self {
            stdin: BufReader::with_capacity(64 << 10, io::stdin().lock()),
            frame: Frame::with_capacity(FRAME_BYTES),
            line: Vec::new(),
        }
    }

    /// The next batch; `None` at the end.
    pub(crate) fn next(&mut self) -> anyhow::Result<Option<Vec<Vec<u8>>>> {
        let mut batch = Vec::new();
        while batch.len() * FRAME_BYTES < BATCH_BYTES {
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
        }
        Ok(Some(batch).filter(|batch| !batch.is_empty()))
    }

    fn close(&mut self) -> anyhow::Result<Vec<u8>> {
        let plaintext = self.frame.plaintext(now()?).into_vec();
        self.frame = Frame::with_capacity(FRAME_BYTES);
        Ok(plaintext)
    }
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

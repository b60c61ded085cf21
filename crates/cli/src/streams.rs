//! Standard input and output through buffers that are wiped as they are used.
//!
//! Those of the standard library keep what went through them last for as long as the program runs.

use std::fmt;
use std::io::{self, BufRead, Read, Write};

use zeroize::Zeroizing;

/// Bytes that are read or written at once.
const BUFFER_LEN: usize = 64 << 10;

/// Standard input.
pub(crate) struct Source<R> {
    from: R,
    buffer: Zeroizing<Vec<u8>>,
    /// What was read and not taken yet.
    waiting: std::ops::Range<usize>,
}

/// Standard output; what is written waits for [`flush`](Write::flush).
pub(crate) struct Sink {
    to: Box<dyn Write>,
    buffer: Zeroizing<Vec<u8>>,
}

/// Standard input without any buffer.
pub(crate) fn input() -> Box<dyn Read + Send> {
    #[cfg(unix)]
    if let Ok(file) = std::os::fd::AsFd::as_fd(&io::stdin()).try_clone_to_owned() {
        return Box::new(std::fs::File::from(file));
    }
    Box::new(io::stdin())
}

fn output() -> Box<dyn Write> {
    #[cfg(unix)]
    if let Ok(file) = std::os::fd::AsFd::as_fd(&io::stdout()).try_clone_to_owned() {
        return Box::new(std::fs::File::from(file));
    }
    Box::new(io::stdout())
}

impl<R: Read> Source<R> {
    pub(crate) fn new(from: R) -> Self {
        Self {
            from,
            buffer: Zeroizing::new(vec![0; BUFFER_LEN]),
            waiting: 0..0,
        }
    }
}

impl<R> Source<R> {
    /// What was read and not taken yet.
    pub(crate) fn waiting(&self) -> &[u8] {
        self.buffer.get(self.waiting.clone()).unwrap_or_default()
    }
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(into)?;
        self.consume(count);
        Ok(count)
    }
}

impl<R: Read> BufRead for Source<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.waiting.is_empty() {
            let count = self.from.read(&mut self.buffer)?;
            self.waiting = 0..count;
        }
        Ok(self.waiting())
    }

    fn consume(&mut self, count: usize) {
        let until = (self.waiting.start + count).min(self.waiting.end);
        if let Some(taken) = self.buffer.get_mut(self.waiting.start..until) {
            taken.fill(0);
        }
        self.waiting.start = until;
    }
}

impl Sink {
    pub(crate) fn stdout() -> Self {
        Self::new(output())
    }

    fn new(to: Box<dyn Write>) -> Self {
        Self {
            to,
            buffer: Zeroizing::new(Vec::with_capacity(BUFFER_LEN)),
        }
    }

    fn hand_on(&mut self) -> io::Result<()> {
        let written = self.to.write_all(&self.buffer);
        self.buffer.fill(0);
        self.buffer.clear();
        written
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + bytes.len() > BUFFER_LEN {
            self.hand_on()?;
        }
        match bytes.len() < BUFFER_LEN {
            true => self.buffer.write(bytes),
            false => self.to.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hand_on()?;
        self.to.flush()
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sink(..)")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    #[test]
    fn what_was_taken_is_wiped_and_what_waits_is_not() {
        let mut source = Source::new(&b"secret line\nnext"[..]);
        let mut line = Vec::new();
        source.read_until(b'\n', &mut line).unwrap();
        assert_eq!(line, b"secret line\n");
        assert_eq!(source.buffer[..16], *b"\0\0\0\0\0\0\0\0\0\0\0\0next");
        source.read_to_end(&mut line).unwrap();
        assert_eq!(line, b"secret line\nnext");
        assert!(source.buffer.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn what_is_written_comes_out_whole_and_in_order() {
        let (sender, written) = channel();
        let mut sink = Sink::new(Box::new(Out(sender)));
        let long = vec![b'x'; BUFFER_LEN];
        for part in [&b"secret"[..], &long, b"", b"more"] {
            sink.write_all(part).unwrap();
        }
        assert_eq!(sink.buffer.as_slice(), b"more");
        sink.flush().unwrap();
        assert!(sink.buffer.is_empty());
        let all: Vec<u8> = written.try_iter().flatten().collect();
        assert_eq!(all, [b"secret", &long[..], b"more"].concat());
    }

    struct Out(Sender<Vec<u8>>);

    impl Write for Out {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}

//! What is to be published: whole, or line by line.

use std::fs::File;
use std::io::{self, BufRead as _, ErrorKind, Read};
use std::path::Path;
use std::thread;

use sealcast::SecretBytes;
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use crate::error::{CommandError, Kind};
use crate::streams::{self, Source};
use crate::ui;

/// More bytes than any bus takes as one message; nothing longer is even read.
pub(crate) const MESSAGE_LEN_MAX: u64 = 64 << 20;

/// Batches of lines that wait between the reading thread and publishing.
const BATCHES_WAITING_MAX: usize = 4;

/// Bytes that are made room for where nobody knows how many will come.
const ROOM: usize = 64 << 10;

/// Reads a file as one message.
pub(crate) fn whole_file(path: &Path) -> Result<SecretBytes, CommandError> {
    let fault = |error: io::Error| CommandError::file(path, &error);
    let file = File::open(path).map_err(fault)?;
    let metadata = file.metadata().map_err(fault)?;
    if metadata.is_dir() {
        return Err(fault(ErrorKind::IsADirectory.into()));
    }
    if metadata.len() > MESSAGE_LEN_MAX {
        return Err(too_large());
    }
    let len = usize::try_from(metadata.len()).unwrap_or_default();
    bounded(file, ROOM.max(len + 1))?.map_err(fault)
}

/// Reads standard input to its end as one message.
pub(crate) fn whole_stdin() -> Result<SecretBytes, CommandError> {
    bounded(streams::input(), ROOM)?.map_err(|error| CommandError::input(&error))
}

fn bounded(mut from: impl Read, room: usize) -> Result<io::Result<SecretBytes>, CommandError> {
    let mut bytes = Zeroizing::new(vec![0; room]);
    let mut len = 0;
    loop {
        if len as u64 > MESSAGE_LEN_MAX {
            return Err(too_large());
        }
        if len == bytes.len() {
            bytes = moved(&bytes, 2 * len);
            bytes.resize(2 * len, 0);
        }
        match from.read(bytes.get_mut(len..).unwrap_or_default()) {
            Ok(0) => break,
            Ok(count) => len += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => (),
            Err(error) => return Ok(Err(error)),
        }
    }
    bytes.truncate(len);
    Ok(Ok(SecretBytes::from(std::mem::take(&mut *bytes))))
}

/// A copy with more room. The old one is wiped when it is dropped.
fn moved(bytes: &[u8], room: usize) -> Zeroizing<Vec<u8>> {
    let mut larger = Zeroizing::new(Vec::with_capacity(room));
    larger.extend_from_slice(bytes);
    larger
}

fn too_large() -> CommandError {
    let most = ui::bytes(MESSAGE_LEN_MAX);
    CommandError::new(
        Kind::Usage,
        "message.too-large",
        format!("the message is longer than any bus takes: {most}"),
    )
    .with_hint("split it; the lines of a text can go as records: `sealcast pub -l`")
}

/// Lines that came in together, each without its newline.
#[derive(Debug)]
pub(crate) struct Batch {
    bytes: SecretBytes,
    /// Where each line ends, its newline left out.
    ends: Vec<usize>,
}

impl Batch {
    /// Every byte of a line but its newline is the line's own, `\r` included.
    pub(crate) fn lines(&self) -> impl Iterator<Item = &[u8]> {
        let mut from = 0;
        self.ends.iter().map(move |end| {
            let line = self.bytes.expose().get(from..*end).unwrap_or_default();
            from = end + 1;
            line
        })
    }
}

/// The lines of standard input, read by a thread that a waiting terminal does not hold up.
#[derive(Debug)]
pub(crate) struct Lines(mpsc::Receiver<Result<Batch, CommandError>>);

impl Lines {
    /// Starts to read.
    pub(crate) fn of_stdin() -> Self {
        let (batches, receiver) = mpsc::channel(BATCHES_WAITING_MAX);
        thread::spawn(move || {
            let mut stdin = Source::new(streams::input());
            let mut draft = Zeroizing::new(Vec::with_capacity(ROOM));
            while let Some(batch) = next_batch(&mut stdin, &mut draft).transpose() {
                let is_last = batch.is_err();
                if batches.blocking_send(batch).is_err() || is_last {
                    return;
                }
            }
        });
        Self(receiver)
    }

    /// The next lines, as many as came in together; `None` at the end. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Option<Batch>, CommandError> {
        self.0.recv().await.transpose()
    }
}

/// Reads one line, and all others that are there already.
///
/// A line that came in pieces is put together in `draft`, which is empty before and after, and never
/// grows by itself.
fn next_batch(
    from: &mut Source<impl Read>,
    draft: &mut Zeroizing<Vec<u8>>,
) -> Result<Option<Batch>, CommandError> {
    loop {
        let room = draft.capacity() - draft.len();
        let read = from.take(room as u64).read_until(b'\n', draft);
        let count = read.map_err(|error| CommandError::input(&error))?;
        if count < room || draft.ends_with(b"\n") {
            break;
        }
        if draft.len() as u64 > MESSAGE_LEN_MAX {
            return Err(too_large());
        }
        *draft = moved(draft, 2 * draft.capacity());
    }
    if draft.is_empty() {
        return Ok(None);
    }
    let first = draft.strip_suffix(b"\n").unwrap_or(draft).len();
    if first as u64 > MESSAGE_LEN_MAX {
        return Err(too_large());
    }
    let whole = from.waiting().iter().rposition(|byte| *byte == b'\n');
    let whole = whole.filter(|_| first < draft.len()).map_or(0, |at| at + 1);
    let more = from.waiting().get(..whole).unwrap_or_default();
    let newlines = more.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    let mut batch = Batch {
        bytes: SecretBytes::with_capacity(draft.len() + whole),
        ends: vec![first],
    };
    batch.ends.extend(newlines.map(|(at, _)| draft.len() + at));
    batch.bytes.extend_from_slice(draft);
    batch.bytes.extend_from_slice(more);
    from.consume(whole);
    draft.fill(0);
    draft.clear();
    Ok(Some(batch))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hands out a text in pieces of so many bytes.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(into.len());
            self.0.read(&mut into[..count])
        }
    }

    fn batches(text: &[u8], piece: usize, room: usize) -> Vec<Vec<Vec<u8>>> {
        let mut source = Source::new(Pieces(text, piece));
        let mut draft = Zeroizing::new(Vec::with_capacity(room));
        let next = || next_batch(&mut source, &mut draft).unwrap();
        let batches = std::iter::from_fn(next);
        let batches = batches.map(|batch| batch.lines().map(<[u8]>::to_vec).collect());
        batches.collect()
    }

    fn lines(text: &[u8]) -> Vec<Vec<u8>> {
        batches(text, ROOM, ROOM).concat()
    }

    fn refuses(text: impl Read) -> bool {
        let mut draft = Zeroizing::new(Vec::with_capacity(ROOM));
        next_batch(&mut Source::new(text), &mut draft).is_err()
    }

    #[test]
    fn lines_that_are_there_come_together_whatever_the_pieces() {
        let text = b"one\ntwo\n\nthree";
        assert_eq!(
            batches(text, ROOM, ROOM),
            [
                vec![b"one".to_vec(), b"two".to_vec(), vec![]],
                vec![b"three".to_vec()]
            ]
        );
        for (piece, room) in (1..20).flat_map(|piece| (1..8).map(move |room| (piece, room))) {
            let all = batches(text, piece, room).concat();
            assert_eq!(all, [&b"one"[..], b"two", b"", b"three"], "{piece} {room}");
        }
    }

    #[test]
    fn every_byte_of_a_line_but_its_newline_is_kept() {
        assert_eq!(
            lines(b"a\r\n\n\xff\x00b\nlast"),
            [&b"a\r"[..], b"", b"\xff\x00b", b"last"]
        );
        assert_eq!(lines(b""), Vec::<Vec<u8>>::new());
        assert_eq!(lines(b"\n"), [b""]);
    }

    #[test]
    fn endless_input_is_refused_before_it_fills_the_memory() {
        assert!(bounded(io::repeat(b'x'), ROOM).is_err());
        assert!(refuses(io::repeat(b'x')));
    }

    #[test]
    fn a_line_of_the_most_bytes_is_taken() {
        let most = usize::try_from(MESSAGE_LEN_MAX).unwrap();
        let mut text = vec![b'x'; most];
        text.push(b'\n');
        assert_eq!(lines(&text).len(), 1);
        text.insert(0, b'x');
        assert!(refuses(&text[..]));
    }

    #[test]
    fn a_folder_or_missing_file_is_no_message() {
        let folder = whole_file(&std::env::temp_dir()).unwrap_err();
        assert_eq!(folder.kind(), Kind::Usage);
        let missing = whole_file(Path::new("/no/such/file")).unwrap_err();
        assert_eq!(missing.kind(), Kind::Missing);
    }
}

//! What is to be published: whole, or line by line.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::Path;
use std::thread;

use tokio::sync::mpsc;

use crate::error::{CommandError, Kind};
use crate::ui;

/// More bytes than any bus takes as one message; nothing longer is even read.
pub(crate) const MESSAGE_LEN_MAX: u64 = 64 << 20;

/// Bytes that are read at once.
const READ_BYTES: usize = 64 << 10;

/// Batches of lines that wait between the reading thread and publishing.
const BATCHES_WAITING_MAX: usize = 4;

/// Reads a file as one message.
pub(crate) fn whole_file(path: &Path) -> Result<Vec<u8>, CommandError> {
    let fault = |error: io::Error| CommandError::file(path, &error);
    let file = File::open(path).map_err(fault)?;
    let metadata = file.metadata().map_err(fault)?;
    if metadata.is_dir() {
        return Err(fault(io::ErrorKind::IsADirectory.into()));
    }
    if metadata.len() > MESSAGE_LEN_MAX {
        return Err(too_large());
    }
    bounded(file)?.map_err(fault)
}

/// Reads standard input to its end as one message.
pub(crate) fn whole_stdin() -> Result<Vec<u8>, CommandError> {
    bounded(io::stdin().lock())?.map_err(|error| CommandError::input(&error))
}

fn bounded(from: impl Read) -> Result<io::Result<Vec<u8>>, CommandError> {
    let mut bytes = Vec::new();
    let read = from.take(MESSAGE_LEN_MAX + 1).read_to_end(&mut bytes);
    match bytes.len() as u64 > MESSAGE_LEN_MAX {
        true => Err(too_large()),
        false => Ok(read.map(|_| bytes)),
    }
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
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    /// Where each line ends, its newline left out.
    ends: Vec<usize>,
}

impl Batch {
    /// Every byte of a line but its newline is the line's own, `\r` included.
    pub(crate) fn lines(&self) -> impl Iterator<Item = &[u8]> {
        let mut from = 0;
        self.ends.iter().map(move |end| {
            let line = self.bytes.get(from..*end).unwrap_or_default();
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
            let mut stdin = BufReader::with_capacity(READ_BYTES, io::stdin().lock());
            while let Some(batch) = next_batch(&mut stdin).transpose() {
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
fn next_batch(from: &mut BufReader<impl Read>) -> Result<Option<Batch>, CommandError> {
    let mut batch = Batch::default();
    let fault = |error: io::Error| CommandError::input(&error);
    let bytes = &mut batch.bytes;
    let first = from.take(MESSAGE_LEN_MAX + 2).read_until(b'\n', bytes);
    if first.map_err(fault)? == 0 {
        return Ok(None);
    }
    let is_ended = bytes.last() == Some(&b'\n');
    let end = bytes.len() - usize::from(is_ended);
    if end as u64 > MESSAGE_LEN_MAX {
        return Err(too_large());
    }
    batch.ends.push(end);
    let there = from.buffer();
    let whole = there.iter().rposition(|byte| *byte == b'\n');
    let whole = whole.filter(|_| is_ended).map_or(0, |at| at + 1);
    let more = there.get(..whole).unwrap_or_default();
    let ends = more.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    let base = batch.bytes.len();
    batch.ends.extend(ends.map(|(at, _)| base + at));
    batch.bytes.extend_from_slice(more);
    from.consume(whole);
    Ok(Some(batch))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(room: usize, text: impl Read) -> BufReader<impl Read> {
        BufReader::with_capacity(room, text)
    }

    fn batches(room: usize, text: &[u8]) -> Vec<Vec<Vec<u8>>> {
        let mut reader = reader(room, text);
        let batches = std::iter::from_fn(|| next_batch(&mut reader).unwrap());
        let batches = batches.map(|batch| batch.lines().map(<[u8]>::to_vec).collect());
        batches.collect()
    }

    fn lines(text: &[u8]) -> Vec<Vec<u8>> {
        batches(64, text).concat()
    }

    #[test]
    fn lines_that_are_there_come_together_whatever_the_room() {
        let text = b"one\ntwo\n\nthree";
        assert_eq!(
            batches(64, text),
            [
                vec![b"one".to_vec(), b"two".to_vec(), vec![]],
                vec![b"three".to_vec()]
            ]
        );
        for room in 1..20 {
            let all = batches(room, text).concat();
            assert_eq!(all, [&b"one"[..], b"two", b"", b"three"], "{room}");
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
        assert!(bounded(io::repeat(b'x')).is_err());
        assert!(next_batch(&mut reader(64, io::repeat(b'x'))).is_err());
    }

    #[test]
    fn a_line_of_the_most_bytes_is_taken() {
        let most = usize::try_from(MESSAGE_LEN_MAX).unwrap();
        let mut text = vec![b'x'; most];
        text.push(b'\n');
        assert_eq!(lines(&text).len(), 1);
        text.insert(0, b'x');
        assert!(next_batch(&mut reader(64, &text[..])).is_err());
    }

    #[test]
    fn a_folder_or_missing_file_is_no_message() {
        let folder = whole_file(&std::env::temp_dir()).unwrap_err();
        assert_eq!(folder.kind(), Kind::Usage);
        let missing = whole_file(Path::new("/no/such/file")).unwrap_err();
        assert_eq!(missing.kind(), Kind::Missing);
    }
}

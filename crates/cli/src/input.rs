//! What is to be published: whole, or line by line.

use std::fs::File;
use std::io::{self, BufRead, ErrorKind, Read};
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

/// Lines that wait between the reading thread and publishing.
const LINES_WAITING_MAX: usize = 256;

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

/// The lines of standard input, read by a thread that a waiting terminal does not hold up.
#[derive(Debug)]
pub(crate) struct Lines(mpsc::Receiver<Result<SecretBytes, CommandError>>);

impl Lines {
    /// Starts to read.
    pub(crate) fn of_stdin() -> Self {
        let (lines, receiver) = mpsc::channel(LINES_WAITING_MAX);
        thread::spawn(move || {
            let mut stdin = Source::new(streams::input());
            let mut draft = Zeroizing::new(Vec::with_capacity(ROOM));
            while let Some(line) = next_line(&mut stdin, &mut draft).transpose() {
                let is_last = line.is_err();
                if lines.blocking_send(line).is_err() || is_last {
                    return;
                }
            }
        });
        Self(receiver)
    }

    /// The next line without its newline; `None` at the end. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Option<SecretBytes>, CommandError> {
        self.0.recv().await.transpose()
    }
}

/// Reads up to a newline or the end. Every other byte is the line's own, `\r` included.
///
/// The line is put together in `draft`, which is empty before and after, and never grows by itself.
fn next_line(
    from: &mut impl BufRead,
    draft: &mut Zeroizing<Vec<u8>>,
) -> Result<Option<SecretBytes>, CommandError> {
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
    let line = draft.strip_suffix(b"\n").unwrap_or(draft);
    if line.len() as u64 > MESSAGE_LEN_MAX {
        return Err(too_large());
    }
    let mut taken = SecretBytes::with_capacity(line.len());
    taken.extend_from_slice(line);
    draft.fill(0);
    draft.clear();
    Ok(Some(taken))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[u8]) -> Vec<Vec<u8>> {
        lines_by(text, ROOM)
    }

    fn lines_by(mut text: &[u8], room: usize) -> Vec<Vec<u8>> {
        let mut draft = Zeroizing::new(Vec::with_capacity(room));
        let next = || next_line(&mut text, &mut draft).unwrap();
        let lines = std::iter::from_fn(next).map(SecretBytes::into_vec);
        lines.collect()
    }

    #[test]
    fn every_byte_of_a_line_but_its_newline_is_kept() {
        assert_eq!(
            lines(b"a\r\n\n\xff\x00b\nlast"),
            [&b"a\r"[..], b"", b"\xff\x00b", b"last"]
        );
        for room in 1..8 {
            let text = b"a\r\n\n\xff\x00b\nlast";
            assert_eq!(lines_by(text, room), lines(text), "{room}");
        }
        assert_eq!(lines(b""), Vec::<Vec<u8>>::new());
        assert_eq!(lines(b"\n"), [b""]);
    }

    #[test]
    fn endless_input_is_refused_before_it_fills_the_memory() {
        assert!(bounded(io::repeat(b'x'), ROOM).is_err());
        let mut endless = Source::new(io::repeat(b'x'));
        let mut draft = Zeroizing::new(Vec::with_capacity(ROOM));
        assert!(next_line(&mut endless, &mut draft).is_err());
    }

    #[test]
    fn a_line_of_the_most_bytes_is_taken() {
        let most = usize::try_from(MESSAGE_LEN_MAX).unwrap();
        let mut text = vec![b'x'; most];
        text.push(b'\n');
        assert_eq!(lines(&text).len(), 1);
        text.insert(0, b'x');
        let mut draft = Zeroizing::new(Vec::with_capacity(ROOM));
        assert!(next_line(&mut &text[..], &mut draft).is_err());
    }

    #[test]
    fn a_folder_or_missing_file_is_no_message() {
        let folder = whole_file(&std::env::temp_dir()).unwrap_err();
        assert_eq!(folder.kind(), Kind::Usage);
        let missing = whole_file(Path::new("/no/such/file")).unwrap_err();
        assert_eq!(missing.kind(), Kind::Missing);
    }
}

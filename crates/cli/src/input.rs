//! What is to be published: whole, or line by line.

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::path::Path;
use std::thread;

use tokio::sync::mpsc;

use crate::error::{CommandError, Kind};
use crate::ui;

/// More bytes than any bus takes as one message; nothing longer is even read.
pub(crate) const MESSAGE_LEN_MAX: u64 = 64 << 20;

/// Lines that wait between the reading thread and publishing.
const LINES_WAITING_MAX: usize = 256;

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

/// The lines of standard input, read by a thread that a waiting terminal does not hold up.
#[derive(Debug)]
pub(crate) struct Lines(mpsc::Receiver<Result<Vec<u8>, CommandError>>);

impl Lines {
    /// Starts to read.
    pub(crate) fn of_stdin() -> Self {
        let (lines, receiver) = mpsc::channel(LINES_WAITING_MAX);
        thread::spawn(move || {
            let mut stdin = io::stdin().lock();
            while let Some(line) = next_line(&mut stdin).transpose() {
                let is_last = line.is_err();
                if lines.blocking_send(line).is_err() || is_last {
                    return;
                }
            }
        });
        Self(receiver)
    }

    /// The next line without its newline; `None` at the end. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, CommandError> {
        self.0.recv().await.transpose()
    }
}

/// Reads up to a newline or the end. Every other byte is the line's own, `\r` included.
fn next_line(from: &mut impl BufRead) -> Result<Option<Vec<u8>>, CommandError> {
    let mut line = Vec::new();
    let length = from
        .take(MESSAGE_LEN_MAX + 2)
        .read_until(b'\n', &mut line)
        .map_err(|error| CommandError::input(&error))?;
    if length == 0 {
        return Ok(None);
    }
    if line.ends_with(b"\n") {
        line.pop();
    }
    match line.len() as u64 > MESSAGE_LEN_MAX {
        true => Err(too_large()),
        false => Ok(Some(line)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(mut text: &[u8]) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| next_line(&mut text).unwrap()).collect()
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
        let mut endless = io::BufReader::new(io::repeat(b'x'));
        assert!(next_line(&mut endless).is_err());
    }

    #[test]
    fn a_line_of_the_most_bytes_is_taken() {
        let most = usize::try_from(MESSAGE_LEN_MAX).unwrap();
        let mut text = vec![b'x'; most];
        text.push(b'\n');
        assert_eq!(lines(&text).len(), 1);
        text.insert(0, b'x');
        assert!(next_line(&mut &text[..]).is_err());
    }

    #[test]
    fn a_folder_or_missing_file_is_no_message() {
        let folder = whole_file(&std::env::temp_dir()).unwrap_err();
        assert_eq!(folder.kind(), Kind::Usage);
        let missing = whole_file(Path::new("/no/such/file")).unwrap_err();
        assert_eq!(missing.kind(), Kind::Missing);
    }
}

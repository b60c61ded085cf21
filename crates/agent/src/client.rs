//! Asking the agent of a home, over its socket.
//!
//! HTTP/1.0: a request, the answer, and the end of the connection is the end of the answer. What
//! was published passes through buffers that are wiped.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
#[cfg(unix)]
use tokio::net::UnixStream;
use zeroize::{Zeroize as _, Zeroizing};

use crate::api::Fault;
use crate::line::StreamLine;

/// The socket's name in a home.
pub(crate) const SOCKET: &str = "agent.sock";
/// How long an answer may take that does not go on and on: longer than the agent waits for its bus.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// Longest head of an answer, and longest whole answer.
const HEAD_MAX: usize = 16 << 10;
const ANSWER_MAX: usize = 16 << 20;
/// Longest line: a payload of 32 MiB, each byte of it written as six letters.
const LINE_MAX: usize = 200 << 20;
/// Bytes that are read at once.
const READ_LEN: usize = 64 << 10;

/// Asks the agent of a home.
#[derive(Clone, Debug)]
pub struct AgentClient {
    socket: PathBuf,
}

/// Why the agent did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No agent serves this home. Start one, or do without.
    #[error("no agent runs for this home")]
    NotRunning,
    /// The agent says why not.
    #[error("{}", .0.message)]
    Refused(Fault),
    /// The connection failed, or the agent takes too long; see whether it still runs.
    #[error("the agent does not answer")]
    Io(#[source] io::Error),
    /// The agent answers what this version does not understand; restart it.
    #[error("the agent answers what this version does not understand")]
    Unintelligible,
}

impl AgentClient {
    /// The agent of a home, whether one runs or not.
    pub fn of(home: &Path) -> Self {
        Self {
            socket: home.join(SOCKET),
        }
    }

    /// Asks for an answer of JSON.
    ///
    /// # Errors
    ///
    /// Fails when no agent runs, or it does not give such an answer.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.answer("GET", path).await
    }

    /// Has something done, and asks for an answer of JSON.
    ///
    /// # Errors
    ///
    /// Fails when no agent runs, or it does not do it. When the connection fails it may have been
    /// done.
    pub async fn post<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.answer("POST", path).await
    }

    async fn answer<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
    ) -> Result<T, ClientError> {
        let answer = async {
            let mut connection = self.ask(method, path).await?;
            connection.rest().await
        };
        let late = |_| ClientError::Io(io::ErrorKind::TimedOut.into());
        let body = tokio::time::timeout(ANSWER_WITHIN, answer)
            .await
            .map_err(late)??;
        serde_json::from_slice(&body).map_err(|_| ClientError::Unintelligible)
    }

    /// Follows a stream: from now on, or from a position on; for so many messages, or without end.
    /// Say of each message that had waited when you are [done](Messages::confirm) with it.
    ///
    /// # Errors
    ///
    /// Fails when no agent runs, or it does not know the stream or cannot use its bus.
    pub async fn messages(
        &self,
        stream: &str,
        from: Option<u64>,
        count: Option<u64>,
    ) -> Result<Messages, ClientError> {
        let from = from.map_or(String::new(), |from| format!("from={from}&"));
        let count = count.map_or(String::new(), |count| format!("count={count}"));
        let path = format!("/streams/{}/messages?{from}{count}", escaped(stream));
        // The body ends with the connection, whatever its length was said to be.
        let request = format!(
            "POST {path} HTTP/1.0\r\ncontent-length: {}\r\n\r\n",
            u32::MAX
        );
        Ok(Messages(self.send(&request).await?))
    }

    async fn ask(&self, method: &str, path: &str) -> Result<Connection, ClientError> {
        let request = format!("{method} {path} HTTP/1.0\r\ncontent-length: 0\r\n\r\n");
        self.send(&request).await
    }

    async fn send(&self, request: &str) -> Result<Connection, ClientError> {
        let mut connection = Connection::open(&self.socket).await?;
        let sent = connection.stream.write_all(request.as_bytes()).await;
        sent.map_err(ClientError::Io)?;
        let status = connection.head().await?;
        if status == 200 {
            return Ok(connection);
        }
        let body = connection.rest().await?;
        let fault = serde_json::from_slice(&body).map_err(|_| ClientError::Unintelligible)?;
        Err(ClientError::Refused(fault))
    }
}

/// What comes on a stream.
#[derive(Debug)]
pub struct Messages(Connection);

impl Messages {
    /// The next line. A caller may stop waiting and come back: nothing is lost.
    ///
    /// # Errors
    ///
    /// Fails when the connection does, or what comes is no line.
    pub async fn next(&mut self) -> Result<StreamLine, ClientError> {
        let line = self.0.line(LINE_MAX).await?;
        StreamLine::read(&line).map_err(|_| ClientError::Unintelligible)
    }

    /// Says that this is done with a message that had waited, so that it is not delivered again. The
    /// next line comes then.
    ///
    /// # Errors
    ///
    /// Fails when the connection does.
    pub async fn confirm(&mut self) -> Result<(), ClientError> {
        let sent = self.0.stream.write_all(b"\n").await;
        sent.map_err(ClientError::Io)
    }

    /// Waits for the end, which comes after as many messages as were asked for. What was confirmed is
    /// recorded then.
    pub async fn end(&mut self) {
        while self.next().await.is_ok() {}
    }
}

struct Connection {
    #[cfg(unix)]
    stream: UnixStream,
    #[cfg(not(unix))]
    stream: tokio::io::Empty,
    /// What was read and not taken yet, and room behind it.
    buffer: Zeroizing<Vec<u8>>,
    /// How much of the buffer that is.
    waiting: usize,
    /// How much of that is known to hold no end of a line.
    searched: usize,
}

impl Connection {
    #[cfg(unix)]
    async fn open(socket: &Path) -> Result<Self, ClientError> {
        use io::ErrorKind::{ConnectionRefused, InvalidInput, NotFound};
        let stream = UnixStream::connect(socket).await.map_err(|error| {
            // A path that is too long for a socket is one that no agent listens at.
            match matches!(error.kind(), NotFound | ConnectionRefused | InvalidInput) {
                true => ClientError::NotRunning,
                false => ClientError::Io(error),
            }
        })?;
        Ok(Self::on(stream))
    }

    #[cfg(unix)]
    fn on(stream: UnixStream) -> Self {
        Self {
            stream,
            buffer: Zeroizing::default(),
            waiting: 0,
            searched: 0,
        }
    }

    #[cfg(not(unix))]
    async fn open(_socket: &Path) -> Result<Self, ClientError> {
        Err(ClientError::NotRunning)
    }

    /// What was read and not taken yet.
    fn waiting(&self) -> &[u8] {
        self.buffer.get(..self.waiting).unwrap_or_default()
    }

    /// Reads more; false at the end.
    async fn more(&mut self) -> Result<bool, ClientError> {
        if self.buffer.len() - self.waiting < READ_LEN {
            let mut grown = Zeroizing::new(vec![0; self.buffer.len() * 2 + READ_LEN]);
            for (into, from) in grown.iter_mut().zip(self.waiting()) {
                *into = *from;
            }
            self.buffer = grown;
        }
        let room = self.buffer.get_mut(self.waiting..).unwrap_or_default();
        let read = self.stream.read(room).await.map_err(ClientError::Io)?;
        self.waiting += read;
        Ok(read > 0)
    }

    /// Takes a line, without its end.
    async fn line(&mut self, max: usize) -> Result<Zeroizing<Vec<u8>>, ClientError> {
        loop {
            let unsearched = self.waiting().get(self.searched..).unwrap_or_default();
            if let Some(at) = unsearched.iter().position(|byte| *byte == b'\n') {
                let end = self.searched + at;
                let line = self.waiting().get(..end).unwrap_or_default().to_vec();
                self.drop_first(end + 1);
                return Ok(Zeroizing::new(line));
            }
            self.searched = self.waiting;
            if self.searched > max {
                return Err(ClientError::Unintelligible);
            }
            if !self.more().await? {
                return Err(ClientError::Io(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    fn drop_first(&mut self, count: usize) {
        let left = self.waiting.saturating_sub(count);
        self.buffer.copy_within(count..self.waiting, 0);
        if let Some(behind) = self.buffer.get_mut(left..self.waiting) {
            behind.zeroize();
        }
        self.waiting = left;
        self.searched = 0;
    }

    /// Reads the head of the answer; its status.
    async fn head(&mut self) -> Result<u16, ClientError> {
        let first = self.line(HEAD_MAX).await?;
        let status = std::str::from_utf8(&first).ok().and_then(|line| {
            let mut words = line.split(' ');
            let version = words.next()?;
            let status = words.next()?.trim().parse().ok()?;
            version.starts_with("HTTP/1.").then_some(status)
        });
        let mut left = HEAD_MAX;
        loop {
            let line = self.line(HEAD_MAX).await?;
            left = left
                .checked_sub(line.len())
                .ok_or(ClientError::Unintelligible)?;
            if line.is_empty() || *line == b"\r" {
                return status.ok_or(ClientError::Unintelligible);
            }
        }
    }

    /// Reads the answer to its end.
    async fn rest(&mut self) -> Result<Zeroizing<Vec<u8>>, ClientError> {
        while self.more().await? {
            if self.waiting > ANSWER_MAX {
                return Err(ClientError::Unintelligible);
            }
        }
        Ok(Zeroizing::new(self.waiting().to_vec()))
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("waiting", &self.waiting)
            .finish_non_exhaustive()
    }
}

/// A name as a part of a path.
fn escaped(name: &str) -> String {
    let mut path = String::new();
    for byte in name.bytes() {
        match byte.is_ascii_alphanumeric() || b"-_~".contains(&byte) {
            true => path.push(char::from(byte)),
            false => path.push_str(&format!("%{byte:02X}")),
        }
    }
    path
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    /// A connection on which all of this comes, however it is cut, and then the end.
    fn connection(bytes: &'static [u8], cut: usize) -> Connection {
        let (stream, mut peer) = UnixStream::pair().unwrap();
        tokio::spawn(async move {
            for piece in bytes.chunks(cut) {
                peer.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        Connection::on(stream)
    }

    #[tokio::test]
    async fn an_answer_is_read_however_it_is_cut() {
        for cut in [1, 7, 1000] {
            let answer = b"HTTP/1.0 200 OK\r\ncontent-type: x\r\n\r\none\ntwo\n";
            let mut of = connection(answer, cut);
            assert_eq!(of.head().await.unwrap(), 200);
            assert_eq!(*of.line(100).await.unwrap(), b"one");
            assert_eq!(*of.line(100).await.unwrap(), b"two");
            assert!(matches!(of.line(100).await, Err(ClientError::Io(_))));
        }
    }

    #[tokio::test]
    async fn what_was_taken_is_wiped() {
        let mut of = connection(b"secret line\nnext", 100);
        of.line(100).await.unwrap();
        assert_eq!(of.buffer[..16], *b"next\0\0\0\0\0\0\0\0\0\0\0\0");
    }

    #[tokio::test]
    async fn what_is_no_answer_is_refused() {
        for answer in [
            &b"SSH-2.0-x\r\n\r\n"[..],
            b"HTTP/1.0 ok\r\n\r\n",
            b"HTTP/2 200\r\n\r\n",
        ] {
            let mut of = connection(answer, 100);
            assert!(matches!(of.head().await, Err(ClientError::Unintelligible)));
        }
        let mut endless = connection(&[b'x'; 100_000], 10_000);
        assert!(matches!(
            endless.head().await,
            Err(ClientError::Unintelligible)
        ));
        let mut endless = connection(b"HTTP/1.0 200\r\n", 100);
        assert!(matches!(endless.head().await, Err(ClientError::Io(_))));
    }

    #[test]
    fn a_name_is_escaped_in_a_path() {
        assert_eq!(escaped("kim's room"), "kim%27s%20room");
        assert_eq!(escaped("../é"), "%2E%2E%2F%C3%A9");
    }
}

//! Bytes that come over a connection, as packets.

use std::fmt;
use std::io;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};

use crate::fields::Malformed;
use crate::flow::HeldBack;
use crate::packet::{Head, PUBLISH, START_MAX, id_at_start};

/// Room for what is read at once, and for the first of it: most connections are silent, and most packets short.
const READ_BYTES: usize = 16 << 10;
const FIRST_BYTES: usize = 1 << 10;

/// The most that is read of what comes while what came before is dealt with.
const AHEAD_BYTES: usize = 64 << 10;

/// Whatever a connection runs over.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// A packet as it came.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) head: Head,
    pub(crate) bytes: Bytes,
}

/// Shows its kind and how long it is.
impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Packet({}, {} bytes)",
            self.head.kind(),
            self.bytes.len()
        )
    }
}

impl Packet {
    pub(crate) fn body(&self) -> &[u8] {
        self.bytes.get(self.head.len..).unwrap_or_default()
    }
}

/// What comes over a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    Packet(Packet),
    /// A message in a packet with more bytes than are taken, which are thrown away as they come: how it wants to be
    /// acknowledged.
    Oversized(HeldBack),
}

impl Incoming {
    /// How many bytes of it are there.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Packet(packet) => packet.bytes.len(),
            Self::Oversized(..) => 0,
        }
    }
}

/// Why nothing more is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadFault {
    Malformed,
    /// A packet that is no message has more bytes than are taken.
    TooLarge,
    /// The other side has closed the connection, or it broke.
    Closed,
}

impl From<Malformed> for ReadFault {
    fn from(Malformed: Malformed) -> Self {
        Self::Malformed
    }
}

/// Reads one packet after the other. It holds no more than one of them, and what came with it.
pub(crate) struct PacketReader<R> {
    wire: R,
    bytes: BytesMut,
    /// The most bytes of a packet.
    packet_max: usize,
    /// Bytes of one that was too large, which are still to come.
    left: usize,
    /// The last time as much came as there was room for.
    was_full: bool,
}

impl<R: AsyncRead + Unpin> PacketReader<R> {
    pub(crate) fn new(wire: R, packet_max: usize) -> Self {
        Self {
            wire,
            bytes: BytesMut::new(),
            packet_max,
            left: 0,
            was_full: false,
        }
    }

    /// Waits until the other side has closed, as far as that can be seen: so much is read of what comes before, and no
    /// more. It may be given up.
    pub(crate) async fn closed(&mut self) {
        while self.bytes.len() < AHEAD_BYTES {
            if self.fill().await.is_err() {
                return;
            }
        }
        std::future::pending().await
    }

    /// What it reads from.
    pub(crate) fn wire(&mut self) -> &mut R {
        &mut self.wire
    }

    /// The next packet, if all of it is there.
    pub(crate) fn ready(&mut self) -> Result<Option<Incoming>, ReadFault> {
        let skipped = self.left.min(self.bytes.len());
        self.bytes.advance(skipped);
        self.left -= skipped;
        let Some(head) = Head::read(&self.bytes)? else {
            return Ok(None);
        };
        let whole = head.len + head.body;
        if whole > self.packet_max {
            return self.oversized(head, whole);
        }
        if self.bytes.len() < whole {
            return Ok(None);
        }
        let bytes = self.bytes.split_to(whole).freeze();
        Ok(Some(Incoming::Packet(Packet { head, bytes })))
    }

    fn oversized(&mut self, head: Head, whole: usize) -> Result<Option<Incoming>, ReadFault> {
        if head.kind() != PUBLISH {
            return Err(ReadFault::TooLarge);
        }
        let start = head.len + head.body.min(START_MAX);
        if self.bytes.len() < start {
            return Ok(None);
        }
        let id = id_at_start(head.first, self.bytes.get(head.len..).unwrap_or_default())?;
        self.left = whole;
        Ok(Some(Incoming::Oversized(HeldBack {
            qos: head.first >> 1 & 3,
            id,
            comes_again: head.first & 8 == 8,
        })))
    }

    /// Waits until more bytes are there. Nothing is lost where it is given up.
    pub(crate) async fn fill(&mut self) -> Result<(), ReadFault> {
        if self.bytes.is_empty() {
            // What it held may be large, and somebody's message.
            self.bytes = BytesMut::new();
        }
        self.bytes.reserve(match self.was_full {
            true => READ_BYTES,
            false => FIRST_BYTES,
        });
        match self.wire.read_buf(&mut self.bytes).await {
            Ok(0) => Err(ReadFault::Closed),
            Ok(_) => {
                self.was_full = self.bytes.len() == self.bytes.capacity();
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(_) => Err(ReadFault::Closed),
        }
    }

    /// The next packet, once all of it is there.
    pub(crate) async fn next(&mut self) -> Result<Incoming, ReadFault> {
        loop {
            if let Some(incoming) = self.ready()? {
                return Ok(incoming);
            }
            self.fill().await?;
        }
    }
}

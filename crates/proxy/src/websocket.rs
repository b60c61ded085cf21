//! Bytes over a WebSocket (RFC 6455), as MQTT has them travel: the payloads of binary frames, one after the other. Where a
//! frame or a message ends says nothing, so none is ever put together, and of a client that begins a large one nothing
//! is held but what was read at once.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::wire::Wire;

/// Room for what is read at once.
const READ_BYTES: usize = 16 << 10;
/// The most bytes of a frame that is sent.
const FRAME_MAX: usize = 64 << 10;
/// The most bytes of what a control frame has in it.
const CONTROL_MAX: usize = 125;
/// Answers to pings wait in no more bytes than these: of several the last is enough, and who takes none gets none.
const PONGS_MAX: usize = 4 << 10;

const CONTINUED: u8 = 0;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
/// Why a connection is closed, as WebSocket has it.
const NORMAL: u16 = 1000;
const PROTOCOL_ERROR: u16 = 1002;
const NOT_BINARY: u16 = 1003;

/// A connection to a client that was upgraded.
pub(crate) struct WebSocket {
    wire: Box<dyn Wire>,
    /// What was read, of which the frames are still to be taken apart.
    raw: BytesMut,
    /// Bytes of the data frame that are still to come, and how they are masked.
    left: u64,
    mask: Mask,
    /// Whether a message was begun that goes on in the next frame.
    is_begun: bool,
    /// What is to be sent, as frames.
    out: BytesMut,
    /// Whether the last frame was put there.
    is_closing: bool,
    /// Whether nothing more comes.
    is_closed: bool,
}

/// Four bytes with which a client makes others of what it sends, and which of them is the next.
#[derive(Clone, Copy, Default)]
struct Mask([u8; 4], usize);

impl Mask {
    fn take_off(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte ^= self.0[self.1];
            self.1 = (self.1 + 1) % 4;
        }
    }
}

/// The start of a frame.
struct Head {
    is_last: bool,
    kind: u8,
    payload: u64,
    mask: [u8; 4],
    /// Its own length.
    len: usize,
}

impl Head {
    /// Reads one of a client, if all of it is there; else says why the connection is to be closed.
    fn read(bytes: &[u8]) -> Result<Option<Self>, u16> {
        let &[first, second, ref rest @ ..] = bytes else {
            return Ok(None);
        };
        // No extension was agreed upon, and what a client sends is masked.
        if first & 0x70 != 0 || second & 0x80 == 0 {
            return Err(PROTOCOL_ERROR);
        }
        let (extended, least) = match second & 0x7f {
            126 => (2, 126),
            127 => (8, 1 << 16),
            _ => (0, 0),
        };
        let (Some(length), Some(mask)) = (rest.get(..extended), rest.get(extended..extended + 4))
        else {
            return Ok(None);
        };
        let length = length
            .iter()
            .fold(0, |all, byte| all << 8 | u64::from(*byte));
        let payload = if extended == 0 {
            u64::from(second & 0x7f)
        } else {
            length
        };
        if payload < least || payload >> 63 != 0 {
            return Err(PROTOCOL_ERROR);
        }
        let mut own = [0; 4];
        own.copy_from_slice(mask);
        Ok(Some(Self {
            is_last: first & 0x80 != 0,
            kind: first & 0xf,
            payload,
            mask: own,
            len: 2 + extended + 4,
        }))
    }
}

impl WebSocket {
    /// Begins with what came after the client's request.
    pub(crate) fn new(wire: Box<dyn Wire>, raw: BytesMut) -> Self {
        Self {
            wire,
            raw,
            left: 0,
            mask: Mask::default(),
            is_begun: false,
            out: BytesMut::new(),
            is_closing: false,
            is_closed: false,
        }
    }

    /// Takes frames apart as far as they are there, up to the payload of one that has any. `false` where more has to be
    /// read for that.
    fn next_payload(&mut self) -> Result<bool, u16> {
        while self.left == 0 && !self.is_closed {
            let Some(head) = Head::read(&self.raw)? else {
                return Ok(false);
            };
            match (head.kind, self.is_begun) {
                (CONTINUED, true) | (BINARY, false) => {
                    self.raw.advance(head.len);
                    self.is_begun = !head.is_last;
                    (self.left, self.mask) = (head.payload, Mask(head.mask, 0));
                }
                (CLOSE | PING | PONG, _) => {
                    if !self.control(&head)? {
                        return Ok(false);
                    }
                }
                (1, false) => return Err(NOT_BINARY),
                _ => return Err(PROTOCOL_ERROR),
            }
        }
        Ok(self.is_closed || !self.raw.is_empty())
    }

    /// Deals with a control frame, if all of it is there.
    fn control(&mut self, head: &Head) -> Result<bool, u16> {
        let payload = usize::try_from(head.payload).unwrap_or(usize::MAX);
        if payload > CONTROL_MAX || !head.is_last {
            return Err(PROTOCOL_ERROR);
        }
        if self.raw.len() < head.len + payload {
            return Ok(false);
        }
        self.raw.advance(head.len);
        let mut payload = self.raw.split_to(payload);
        Mask(head.mask, 0).take_off(&mut payload);
        match head.kind {
            PING if self.out.len() < PONGS_MAX && !self.is_closing => self.put(PONG, &payload),
            CLOSE => {
                self.is_closed = true;
                self.close(match *payload {
                    [] => NORMAL,
                    [high, low, ..] => u16::from_be_bytes([high, low]),
                    [_] => return Err(PROTOCOL_ERROR),
                });
            }
            _ => {}
        }
        Ok(true)
    }

    /// Puts a frame behind what is to be sent.
    fn put(&mut self, kind: u8, payload: &[u8]) {
        let len = payload.len();
        self.out.extend_from_slice(&[0x80 | kind]);
        match (u8::try_from(len), u16::try_from(len)) {
            (Ok(short @ ..126), _) => self.out.extend_from_slice(&[short]),
            (_, Ok(long)) => {
                self.out.extend_from_slice(&[126]);
                self.out.extend_from_slice(&long.to_be_bytes());
            }
            _ => {
                self.out.extend_from_slice(&[127]);
                self.out.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        self.out.extend_from_slice(payload);
    }

    /// Puts the last frame there.
    fn close(&mut self, code: u16) {
        if !self.is_closing {
            self.put(CLOSE, &code.to_be_bytes());
            self.is_closing = true;
        }
    }

    /// Sends what waits. Both directions are one task, so it does not matter which of them is woken.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let sent = ready!(Pin::new(&mut self.wire).poll_write(context, &self.out))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(sent);
        }
        // It may have held somebody's message.
        self.out = BytesMut::new();
        Poll::Ready(Ok(()))
    }

    /// Reads on, and tells whether anything came.
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut bytes = [0; READ_BYTES];
        let mut into = ReadBuf::new(&mut bytes);
        ready!(Pin::new(&mut self.wire).poll_read(context, &mut into))?;
        self.raw.extend_from_slice(into.filled());
        Poll::Ready(Ok(!into.filled().is_empty()))
    }
}

impl AsyncRead for WebSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            let has_payload = this.next_payload();
            if let Err(code) = has_payload {
                this.is_closed = true;
                this.close(code);
            }
            if !this.out.is_empty() {
                // Who takes nothing is told later, or never.
                let _is_sent = this.poll_send(context)?.is_ready();
            }
            match has_payload {
                Err(_) => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
                Ok(_) if this.is_closed => return Poll::Ready(Ok(())),
                Ok(false) => {
                    if !ready!(this.poll_fill(context))? {
                        this.is_closed = true;
                    }
                }
                Ok(true) => {
                    let left = usize::try_from(this.left).unwrap_or(usize::MAX);
                    let count = left.min(this.raw.len()).min(into.remaining());
                    let mut payload = this.raw.split_to(count);
                    this.mask.take_off(&mut payload);
                    into.put_slice(&payload);
                    this.left -= count as u64;
                    if this.raw.is_empty() {
                        this.raw = BytesMut::new();
                    }
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl AsyncWrite for WebSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_send(context))?;
        if self.is_closing {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let taken = bytes.get(..FRAME_MAX).unwrap_or(bytes);
        self.put(BINARY, taken);
        match self.poll_send(context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            // What is left waits for the next call.
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(taken.len())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(context))?;
        Pin::new(&mut self.wire).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.close(NORMAL);
        ready!(self.poll_send(context))?;
        Pin::new(&mut self.wire).poll_shutdown(context)
    }
}

//! What must hold of any bytes that come from a client or a broker, for the fuzz targets of packets and of frames.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::packet::{
    CONNACK, CONNECT, Connect, Head, PUBLISH, Publish, Side, Version, Welcome, id_at_start, id_of,
};
use crate::websocket::WebSocket;

/// What stands for an envelope.
const SEALED: &[u8] = &[0xee; 176];
/// The most bytes of a packet that are told.
const PACKET_MAX: u32 = 9;

/// Reads bytes as packets of both versions and sides, one after the other.
///
/// # Panics
///
/// Panics where something that was taken apart is not put together to what it was, or to what was to be changed.
pub fn packets(bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok(Some(head)) = Head::read(rest) {
        assert!((2..=5).contains(&head.len) && head.body < 1 << 28);
        let Some(body) = rest.get(head.len..head.len + head.body) else {
            break;
        };
        for version in [Version::Three, Version::Five] {
            packet(version, head, body);
        }
        rest = &rest[head.len + head.body..];
    }
}

fn packet(version: Version, head: Head, body: &[u8]) {
    let sides = [Side::Client, Side::Broker];
    let may = sides.map(|side| head.check(version, side).is_ok());
    let _any = id_of(body);
    match head.kind() {
        CONNECT if may[0] => connect(body),
        CONNACK if may[1] => welcome(version, body),
        PUBLISH if may[0] => publish(version, head.first, body),
        _ => {}
    }
}

#[expect(clippy::expect_used, reason = "what was put together here is a packet")]
fn again(bytes: &[u8]) -> (Head, &[u8]) {
    let head = Head::read(bytes).ok().flatten().expect("a head");
    assert_eq!(bytes.len(), head.len + head.body, "nothing follows");
    (head, &bytes[head.len..])
}

#[expect(clippy::expect_used, reason = "what was put together here is a packet")]
fn publish(version: Version, first: u8, body: &[u8]) {
    let Ok(publish) = Publish::parse(version, first, body) else {
        return;
    };
    assert_eq!(
        id_at_start(first, body),
        Ok(publish.id),
        "the start tells the number"
    );
    for (payload, is_sealed) in [(publish.payload, false), (SEALED, true)] {
        let mut out = Vec::new();
        publish.put(version, publish.topic, (payload, is_sealed), &mut out);
        let (head, body) = again(&out);
        assert_eq!(head.first, first);
        let made = Publish::parse(version, first, body).expect("a message");
        let of = |one: &Publish<'_>| (one.topic.to_owned(), one.alias, one.id);
        assert_eq!(of(&made), of(&publish));
        assert_eq!(made.payload, payload);
    }
}

#[expect(clippy::expect_used, reason = "what was put together here is a packet")]
fn connect(body: &[u8]) {
    let Ok(connect) = Connect::parse(body) else {
        return;
    };
    for sealed in [None, Some(SEALED)] {
        let out = connect.encode(sealed.map(|of| (of, true)), Some(PACKET_MAX));
        let made = Connect::parse(again(&out).1).expect("a client");
        assert_eq!(
            (made.version, made.keep_alive),
            (connect.version, connect.keep_alive)
        );
        let told = (made.version == Version::Five).then_some(PACKET_MAX);
        assert_eq!(made.packet_max, told);
        let of = |of: &Connect<'_>| of.will.map(|will| will.topic.to_owned());
        assert_eq!(of(&made), of(&connect));
        let left = connect.will.map(|will| sealed.unwrap_or(will.payload));
        assert_eq!(made.will.map(|will| will.payload), left);
    }
}

#[expect(clippy::expect_used, reason = "what was put together here is a packet")]
fn welcome(version: Version, body: &[u8]) {
    let Ok(welcome) = Welcome::parse(version, body) else {
        return;
    };
    if let Some(out) = welcome.encode(version, Some(PACKET_MAX)) {
        let made = Welcome::parse(version, again(&out).1).expect("an answer");
        assert_eq!(made.packet_max, Some(PACKET_MAX));
        assert_eq!(made.keep_alive, welcome.keep_alive);
    }
}

/// A client that has said all that it says, of which so many bytes come at a time.
struct Said {
    rest: Vec<u8>,
    step: usize,
}

impl AsyncRead for Said {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = self.step.min(self.rest.len()).min(into.remaining());
        into.put_slice(&self.rest[..count]);
        self.rest.drain(..count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Said {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Reads bytes as the frames of a client.
///
/// # Panics
///
/// Panics where they say more than there is, or another thing where they come in pieces.
pub fn frames(bytes: &[u8]) {
    let whole = in_frames(bytes, usize::MAX);
    assert!(whole.0.len() <= bytes.len());
    for step in [1, 7] {
        assert!(
            in_frames(bytes, step) == whole,
            "pieces of {step} say another thing"
        );
    }
}

/// What was in frames, and whether they were any.
fn in_frames(bytes: &[u8], step: usize) -> (Vec<u8>, bool) {
    let rest = bytes.to_vec();
    let mut socket = WebSocket::new(Box::new(Said { rest, step }), BytesMut::new());
    let (mut said, mut room) = (Vec::new(), [0; 1024]);
    loop {
        let mut into = ReadBuf::new(&mut room);
        let mut context = Context::from_waker(Waker::noop());
        match Pin::new(&mut socket).poll_read(&mut context, &mut into) {
            Poll::Ready(Ok(())) if into.filled().is_empty() => return (said, true),
            Poll::Ready(Ok(())) => said.extend_from_slice(into.filled()),
            Poll::Ready(Err(_)) => return (said, false),
            Poll::Pending => unreachable!("all has been said"),
        }
    }
}

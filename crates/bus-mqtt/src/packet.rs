//! The packets of MQTT 5 and 3.1.1 that a bus needs, as bytes and back.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// Which MQTT is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// 3.1.1.
    Three,
    /// 5.
    Five,
}

/// What a client says first.
#[derive(Clone)]
pub(crate) struct Connect {
    pub(crate) client: String,
    /// How long the server keeps the session without a connection, in seconds; 0 for a session that
    /// begins and ends with the connection.
    pub(crate) kept_for: u32,
    pub(crate) keep_alive: u16,
    /// Messages that may be on their way to the client unacknowledged.
    pub(crate) receive_max: u16,
    pub(crate) packet_max: u32,
    pub(crate) login: Option<(String, String)>,
}

/// What a server says of itself when it lets a client in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Welcome {
    /// Whether it has kept the session.
    pub(crate) has_session: bool,
    /// Messages that may be on their way to it unacknowledged.
    pub(crate) receive_max: u16,
    /// The most bytes of a packet that it takes.
    pub(crate) packet_max: u32,
    pub(crate) takes_acknowledged: bool,
    pub(crate) takes_retained: bool,
    /// Whether it takes filters with wildcards.
    pub(crate) takes_wildcards: bool,
    pub(crate) keep_alive: Option<u16>,
}

/// A message, on its way to the server or from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Publish {
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) is_retained: bool,
}

/// What is subscribed to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Filter {
    pub(crate) name: String,
    /// Whether what the same client publishes is to come, too; with MQTT 3.1.1 it does in any case.
    pub(crate) has_own: bool,
}

impl Filter {
    /// One that brings all but what the same client publishes, where the version has that.
    pub(crate) fn of_others(name: String) -> Self {
        let has_own = false;
        Self { name, has_own }
    }
}

impl From<String> for Filter {
    fn from(name: String) -> Self {
        let has_own = true;
        Self { name, has_own }
    }
}

/// What a server sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Packet {
    Welcome(Welcome),
    /// It does not let the client in, for a reason that it gives as a number.
    Turned(u8),
    /// A message; where it wants it acknowledged, by which number.
    Publish(Publish, Option<u16>),
    PublishDone {
        id: u16,
        code: u8,
    },
    /// A code for each filter.
    SubscribeDone {
        id: u16,
        codes: Bytes,
    },
    UnsubscribeDone,
    Pong,
    /// It is about to close the connection.
    Goodbye(u8),
}

/// Not a packet that a server may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server does not speak MQTT")]
pub(crate) struct Garbled;

/// From this code on, the server has not done what it was asked.
pub(crate) const REFUSED: u8 = 0x80;
/// It has done so, and knows of nobody who is subscribed.
pub(crate) const NO_SUBSCRIBERS: u8 = 0x10;
/// The code with which a server of MQTT 5 turns away who speaks a version that it does not.
pub(crate) const OTHER_VERSION: u8 = 0x84;
/// The same of a server of MQTT 3.1.1.
pub(crate) const OTHER_VERSION_THREE: u8 = 0x01;

/// Of a subscription: without what the same client publishes.
const NO_LOCAL: u8 = 0x04;
const SESSION_EXPIRY: u8 = 0x11;
const RECEIVE_MAX: u8 = 0x21;
const PACKET_MAX: u8 = 0x27;

/// The first bytes of a packet, if they are all there: its kind and flags, how many they are, and how
/// many bytes follow.
pub(crate) fn split_head(bytes: &[u8]) -> Result<Option<(u8, usize, usize)>, Garbled> {
    let Some((first, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    let mut length = 0;
    for index in 0..4 {
        let Some(byte) = rest.get(index) else {
            return Ok(None);
        };
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((*first, index + 2, length)));
        }
    }
    Err(Garbled)
}

/// Where a message wants an acknowledgement, the number for it, given the first bytes of its packet.
pub(crate) fn id_of_publish(first: u8, start: &[u8]) -> Option<u16> {
    let mut rest = start;
    let is_publish = first >> 4 == 3 && (first >> 1) & 3 == 1;
    let _topic = text(&mut rest).ok().filter(|_| is_publish)?;
    rest.try_get_u16().ok()
}

pub(crate) fn decode(version: Version, first: u8, body: Bytes) -> Result<Packet, Garbled> {
    let mut rest = &body[..];
    match first >> 4 {
        2 => welcome(version, rest),
        3 => publish(version, first, &body),
        4 => {
            let id = number(&mut rest)?;
            let code = rest.first().copied().unwrap_or_default();
            Ok(Packet::PublishDone { id, code })
        }
        9 => {
            let id = number(&mut rest)?;
            skip_properties(version, &mut rest)?;
            let codes = Bytes::copy_from_slice(rest);
            Ok(Packet::SubscribeDone { id, codes })
        }
        11 => Ok(Packet::UnsubscribeDone),
        13 => Ok(Packet::Pong),
        14 => Ok(Packet::Goodbye(rest.first().copied().unwrap_or_default())),
        _ => Err(Garbled),
    }
}

fn welcome(version: Version, mut rest: &[u8]) -> Result<Packet, Garbled> {
    let (flags, code) = (byte(&mut rest)?, byte(&mut rest)?);
    if code != 0 {
        return Ok(Packet::Turned(code));
    }
    let mut welcome = Welcome {
        has_session: flags & 1 == 1,
        receive_max: u16::MAX,
        packet_max: u32::MAX,
        takes_acknowledged: true,
        takes_retained: true,
        takes_wildcards: true,
        keep_alive: None,
    };
    if version == Version::Five {
        let length = variable(&mut rest)?;
        let mut properties = rest.get(..length).ok_or(Garbled)?;
        while let Ok(key) = byte(&mut properties) {
            match key {
                RECEIVE_MAX => welcome.receive_max = number(&mut properties)?.max(1),
                PACKET_MAX => {
                    welcome.packet_max = properties.try_get_u32().map_err(|_| Garbled)?;
                }
                0x13 => welcome.keep_alive = Some(number(&mut properties)?),
                0x24 => welcome.takes_acknowledged = byte(&mut properties)? > 0,
                0x25 => welcome.takes_retained = byte(&mut properties)? > 0,
                0x28 => welcome.takes_wildcards = byte(&mut properties)? > 0,
                other => skip_property(other, &mut properties)?,
            }
        }
    }
    Ok(Packet::Welcome(welcome))
}

fn publish(version: Version, first: u8, body: &Bytes) -> Result<Packet, Garbled> {
    let mut rest = &body[..];
    let topic = text(&mut rest)?;
    let id = match (first >> 1) & 3 {
        0 => None,
        1 => Some(number(&mut rest)?),
        _ => return Err(Garbled),
    };
    skip_properties(version, &mut rest)?;
    let message = Publish {
        topic,
        payload: body.slice_ref(rest),
        is_retained: first & 1 == 1,
    };
    Ok(Packet::Publish(message, id))
}

fn byte(rest: &mut &[u8]) -> Result<u8, Garbled> {
    rest.try_get_u8().map_err(|_| Garbled)
}

fn number(rest: &mut &[u8]) -> Result<u16, Garbled> {
    rest.try_get_u16().map_err(|_| Garbled)
}

fn variable(rest: &mut &[u8]) -> Result<usize, Garbled> {
    let mut length = 0;
    for index in 0..4 {
        let byte = byte(rest)?;
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(length);
        }
    }
    Err(Garbled)
}

fn skip(rest: &mut &[u8], count: usize) -> Result<(), Garbled> {
    *rest = rest.get(count..).ok_or(Garbled)?;
    Ok(())
}

fn text(rest: &mut &[u8]) -> Result<String, Garbled> {
    let length = usize::from(number(rest)?);
    let bytes = rest.get(..length).ok_or(Garbled)?;
    let text = std::str::from_utf8(bytes).map_err(|_| Garbled)?.to_owned();
    skip(rest, length)?;
    Ok(text)
}

fn skip_properties(version: Version, rest: &mut &[u8]) -> Result<(), Garbled> {
    if version == Version::Three {
        return Ok(());
    }
    let length = variable(rest)?;
    skip(rest, length)
}

fn skip_property(key: u8, rest: &mut &[u8]) -> Result<(), Garbled> {
    match key {
        0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28..=0x2a => skip(rest, 1),
        0x13 | 0x21..=0x23 => skip(rest, 2),
        0x02 | 0x11 | 0x18 | 0x27 => skip(rest, 4),
        0x0b => variable(rest).map(drop),
        0x03 | 0x08 | 0x09 | 0x12 | 0x15 | 0x16 | 0x1a | 0x1c | 0x1f => {
            let length = usize::from(number(rest)?);
            skip(rest, length)
        }
        0x26 => {
            for _ in 0..2 {
                let length = usize::from(number(rest)?);
                skip(rest, length)?;
            }
            Ok(())
        }
        _ => Err(Garbled),
    }
}

/// Puts a packet together: its head, when it is known how long it is.
fn put(bytes: &mut BytesMut, first: u8, body: impl FnOnce(&mut BytesMut)) {
    let mut whole = BytesMut::new();
    body(&mut whole);
    bytes.put_u8(first);
    put_variable(bytes, whole.len());
    bytes.extend_from_slice(&whole);
}

fn put_variable(bytes: &mut BytesMut, mut length: usize) {
    loop {
        let low = u8::try_from(length & 0x7f).unwrap_or_default();
        length >>= 7;
        bytes.put_u8(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            return;
        }
    }
}

fn put_text(bytes: &mut BytesMut, text: &str) {
    // Nothing here is that long; what were would be cut, not garbled.
    let length = text.len().min(usize::from(u16::MAX));
    bytes.put_u16(u16::try_from(length).unwrap_or(u16::MAX));
    bytes.extend_from_slice(&text.as_bytes()[..length]);
}

pub(crate) fn put_connect(version: Version, connect: &Connect, bytes: &mut BytesMut) {
    put(bytes, 0x10, |body| {
        put_text(body, "MQTT");
        body.put_u8(match version {
            Version::Three => 4,
            Version::Five => 5,
        });
        // In version 5 a session goes on unless it is said to be clean; in 3.1.1 being clean also says
        // that it ends with the connection.
        let mut flags = if connect.kept_for == 0 { 0x02 } else { 0 };
        if connect.login.is_some() {
            flags |= 0xc0;
        }
        body.put_u8(flags);
        body.put_u16(connect.keep_alive);
        if version == Version::Five {
            put_variable(body, 5 + 3 + 5);
            body.put_u8(SESSION_EXPIRY);
            body.put_u32(connect.kept_for);
            body.put_u8(RECEIVE_MAX);
            body.put_u16(connect.receive_max);
            body.put_u8(PACKET_MAX);
            body.put_u32(connect.packet_max);
        }
        put_text(body, &connect.client);
        if let Some((user, password)) = &connect.login {
            put_text(body, user);
            put_text(body, password);
        }
    });
}

/// A message that the server is to acknowledge; `is_again` where it was sent before.
pub(crate) fn put_publish(
    version: Version,
    (id, is_again): (u16, bool),
    publish: &Publish,
    bytes: &mut BytesMut,
) {
    let first = 0x32 | u8::from(is_again) << 3 | u8::from(publish.is_retained);
    let properties = usize::from(version == Version::Five);
    bytes.put_u8(first);
    put_variable(
        bytes,
        2 + publish.topic.len() + 2 + properties + publish.payload.len(),
    );
    put_text(bytes, &publish.topic);
    bytes.put_u16(id);
    if version == Version::Five {
        bytes.put_u8(0);
    }
    bytes.extend_from_slice(&publish.payload);
}

/// The bytes of a packet that are not its payload, at most.
pub(crate) fn overhead(topic: &str) -> usize {
    5 + 2 + topic.len() + 2 + 1
}

pub(crate) fn put_publish_done(id: u16, bytes: &mut BytesMut) {
    put(bytes, 0x40, |body| body.put_u16(id));
}

/// Subscribes with QoS 1. What is retained is sent, also where the subscription is not new.
pub(crate) fn put_subscribe(version: Version, id: u16, filters: &[Filter], bytes: &mut BytesMut) {
    put(bytes, 0x82, |body| {
        body.put_u16(id);
        if version == Version::Five {
            body.put_u8(0);
        }
        for filter in filters {
            put_text(body, &filter.name);
            body.put_u8(match version {
                Version::Five if !filter.has_own => 0x01 | NO_LOCAL,
                Version::Five | Version::Three => 0x01,
            });
        }
    });
}

pub(crate) fn put_unsubscribe(version: Version, id: u16, filters: &[String], bytes: &mut BytesMut) {
    put(bytes, 0xa2, |body| {
        body.put_u16(id);
        if version == Version::Five {
            body.put_u8(0);
        }
        for filter in filters {
            put_text(body, filter);
        }
    });
}

pub(crate) fn put_ping(bytes: &mut BytesMut) {
    bytes.extend_from_slice(&[0xc0, 0]);
}

pub(crate) fn put_goodbye(bytes: &mut BytesMut) {
    bytes.extend_from_slice(&[0xe0, 0]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(version: Version, bytes: &[u8]) -> Result<Packet, Garbled> {
        let (first, head, length) = split_head(bytes)?.unwrap();
        assert_eq!(bytes.len(), head + length);
        decode(version, first, Bytes::copy_from_slice(&bytes[head..]))
    }

    fn connect(kept_for: u32) -> Connect {
        Connect {
            client: "c".into(),
            kept_for,
            keep_alive: 30,
            receive_max: 256,
            packet_max: 1 << 20,
            login: None,
        }
    }

    #[test]
    fn a_client_introduces_itself_as_the_two_versions_have_it() {
        let mut bytes = BytesMut::new();
        put_connect(Version::Three, &connect(0), &mut bytes);
        assert_eq!(&bytes[..], b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x1e\x00\x01c");
        bytes.clear();
        let login = Some(("u".into(), "p".into()));
        let lasting = Connect {
            login,
            ..connect(7)
        };
        put_connect(Version::Five, &lasting, &mut bytes);
        let properties = b"\x0d\x11\x00\x00\x00\x07\x21\x01\x00\x27\x00\x10\x00\x00";
        let expected = [
            &b"\x10\x21\x00\x04MQTT\x05\xc0\x00\x1e"[..],
            properties,
            b"\x00\x01c\x00\x01u\x00\x01p",
        ];
        assert_eq!(&bytes[..], expected.concat());
    }

    #[test]
    fn a_server_says_what_it_takes() {
        let all = Welcome {
            has_session: true,
            receive_max: u16::MAX,
            packet_max: u32::MAX,
            takes_acknowledged: true,
            takes_retained: true,
            takes_wildcards: true,
            keep_alive: None,
        };
        let found = read(Version::Three, b"\x20\x02\x01\x00");
        assert_eq!(found, Ok(Packet::Welcome(all)));
        // With a reason in words, a property of a user and an assigned name between.
        let found = read(
            Version::Five,
            b"\x20\x1e\x00\x00\x1b\x21\x00\x14\x1f\x00\x01w\x27\x00\x00\x10\x00\x26\x00\x01a\x00\x00\x12\x00\x00\x24\x01\x25\x00\x28\x00",
        );
        let some = Welcome {
            has_session: false,
            receive_max: 20,
            packet_max: 4096,
            takes_retained: false,
            takes_wildcards: false,
            ..all
        };
        assert_eq!(found, Ok(Packet::Welcome(some)));
        let found = read(Version::Five, b"\x20\x03\x00\x84\x00");
        assert_eq!(found, Ok(Packet::Turned(OTHER_VERSION)));
    }

    #[test]
    fn a_message_comes_back_from_its_bytes() {
        for version in [Version::Three, Version::Five] {
            for length in [0, 1, 200, 70_000] {
                let message = Publish {
                    topic: "a/b".into(),
                    payload: vec![7; length].into(),
                    is_retained: length % 2 == 0,
                };
                let mut bytes = BytesMut::new();
                put_publish(version, (513, length == 1), &message, &mut bytes);
                assert!(bytes.len() <= length + overhead("a/b"));
                let (first, head, _) = split_head(&bytes).unwrap().unwrap();
                assert_eq!(id_of_publish(first, &bytes[head..]), Some(513));
                let found = read(version, &bytes);
                assert_eq!(found, Ok(Packet::Publish(message, Some(513))));
            }
        }
    }

    #[test]
    fn what_is_retained_is_asked_for_with_each_subscription_and_what_is_ones_own_may_be_left_out() {
        let filter = || "a/+".to_owned();
        for (filter, options) in [(filter().into(), 0x01), (Filter::of_others(filter()), 0x05)] {
            let filters = [filter];
            let mut bytes = BytesMut::new();
            put_subscribe(Version::Five, 7, &filters, &mut bytes);
            let five = [&b"\x82\x09\x00\x07\x00\x00\x03a/+"[..], &[options]].concat();
            assert_eq!(&bytes[..], five);
            bytes.clear();
            put_subscribe(Version::Three, 7, &filters, &mut bytes);
            assert_eq!(&bytes[..], b"\x82\x08\x00\x07\x00\x03a/+\x01");
        }
    }

    #[test]
    fn answers_are_understood() {
        let five = |bytes: &[u8]| read(Version::Five, bytes);
        let done = |id, code| Ok(Packet::PublishDone { id, code });
        assert_eq!(five(b"\x40\x02\x01\x02"), done(258, 0));
        assert_eq!(five(b"\x40\x04\x00\x03\x10\x00"), done(3, 0x10));
        let subscribed = |codes| {
            let codes = Bytes::from_static(codes);
            Ok(Packet::SubscribeDone { id: 9, codes })
        };
        let done = five(b"\x90\x05\x00\x09\x00\x01\x87");
        assert_eq!(done, subscribed(b"\x01\x87"));
        let three = read(Version::Three, b"\x90\x03\x00\x09\x80");
        assert_eq!(three, subscribed(b"\x80"));
        assert_eq!(five(b"\xe0\x02\x8e\x00"), Ok(Packet::Goodbye(0x8e)));
        assert_eq!(five(b"\xd0\x00"), Ok(Packet::Pong));
    }

    #[test]
    fn no_bytes_of_a_server_break_anything() {
        let mut seed: u64 = 7;
        let mut next = || {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as u8
        };
        for _ in 0..200_000 {
            let bytes: Vec<u8> = (0..next() % 24).map(|_| next()).collect();
            let Ok(Some((first, head, _))) = split_head(&bytes) else {
                continue;
            };
            let body = Bytes::copy_from_slice(&bytes[head..]);
            id_of_publish(first, &body);
            for version in [Version::Three, Version::Five] {
                let _any = decode(version, first, body.clone());
            }
        }
        assert_eq!(split_head(b"\x30\xff\xff\xff\xff\x01"), Err(Garbled));
        assert_eq!(split_head(b"\x30\xff\xff"), Ok(None));
    }
}

//! What must hold of any bytes that come from a client or a broker, for the fuzz target of packets.

use crate::packet::{
    CONNACK, CONNECT, Connect, Head, PUBLISH, Publish, Side, Version, Welcome, id_at_start, id_of,
};

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
        let out = connect.encode(sealed.map(|of| (of, true)), PACKET_MAX);
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
    if let Some(out) = welcome.encode(version, PACKET_MAX) {
        let made = Welcome::parse(version, again(&out).1).expect("an answer");
        assert_eq!(made.packet_max, Some(PACKET_MAX));
        assert_eq!(made.keep_alive, welcome.keep_alive);
    }
}

//! What must hold of any bytes that come from a broker, for the fuzz target of packets.

use bytes::{Bytes, BytesMut};

use crate::packet::{
    Packet, Version, decode, id_of_publish, overhead, put_publish, put_publish_done, split_head,
};

/// Reads bytes as packets of both versions: the body of one, and what begins with a head of its own.
///
/// # Panics
///
/// Panics where something that was decoded does not encode to what decodes to the same.
pub fn packet(bytes: &[u8]) {
    for version in [Version::Three, Version::Five] {
        if let Some((first, body)) = bytes.split_first() {
            whole(version, *first, body);
        }
        if let Ok(Some((first, head, length))) = split_head(bytes) {
            assert!((2..=5).contains(&head) && length < 1 << 28);
            if let Some(body) = bytes.get(head..head + length) {
                whole(version, first, body);
            }
        }
    }
}

fn whole(version: Version, first: u8, body: &[u8]) {
    let id_at_start = id_of_publish(first, body);
    let mut out = BytesMut::new();
    match decode(version, first, Bytes::copy_from_slice(body)) {
        Ok(Packet::Publish(publish, id)) => {
            assert_eq!(id, id_at_start, "the start tells the number");
            let sent = (id.unwrap_or(1), first & 8 > 0);
            put_publish(version, sent, &publish, &mut out);
            assert!(out.len() <= overhead(&publish.topic) + publish.payload.len());
            assert_eq!(again(version, &out), Packet::Publish(publish, Some(sent.0)));
        }
        Ok(Packet::PublishDone { id, .. }) => {
            put_publish_done(id, &mut out);
            let done = Packet::PublishDone { id, code: 0 };
            assert_eq!(again(version, &out), done);
        }
        Ok(_) | Err(_) => {}
    }
}

/// Decodes what was encoded here, all of it.
#[expect(clippy::expect_used, reason = "what was encoded here decodes")]
fn again(version: Version, bytes: &BytesMut) -> Packet {
    let head = split_head(bytes).ok().flatten();
    let (first, head, length) = head.expect("a head");
    assert_eq!(bytes.len(), head + length, "nothing follows");
    let body = Bytes::copy_from_slice(&bytes[head..]);
    decode(version, first, body).expect("a packet")
}

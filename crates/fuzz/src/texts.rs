//! What people type or paste.

use std::fmt::Display;
use std::path::Path;
use std::str::FromStr;

use sealcast_bus::{BusUrl, Place, Topic};
use sealcast_crypto::digest;
use sealcast_protocol::{
    DeviceId, InstanceId, Name, PairingCode, StreamId, Ticket, TicketError, UserId,
};

/// A ticket as it is pasted; or, behind a zero byte, its body, under the checksum that it has.
pub(crate) fn ticket(bytes: &[u8]) {
    let text = match bytes.split_first() {
        Some((0, body)) => with_checksum(body),
        Some(_) | None => match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => return,
        },
    };
    match Ticket::parse(&text) {
        Ok(ticket) => {
            assert_eq!(
                ticket.to_string(),
                text.trim(),
                "a ticket is spelt in one way"
            );
            assert_eq!(ticket.to_string().parse(), Ok(ticket.clone()));
            let (bus, name) = (ticket.bus(), ticket.name().clone());
            let again = Ticket::new(bus, ticket.stream(), ticket.owner(), name);
            assert_eq!(again, Ok(ticket));
        }
        Err(TicketError::NewerVersion) => assert!(!is_version_1(bytes), "it is version 1"),
        Err(_) => (),
    }
}

/// Whether the body says that it is of the version that is known.
fn is_version_1(bytes: &[u8]) -> bool {
    matches!(bytes, [0, 0x85, 1, ..])
}

fn with_checksum(body: &[u8]) -> String {
    let sum = digest("sealcast.v1 ticket checksum", &[body]);
    let sum = sum.as_bytes().iter().take(4).copied();
    let bytes: Vec<u8> = body.iter().copied().chain(sum).collect();
    format!("sealcast1:{}", base64url(&bytes))
}

/// RFC 4648, section 5, without padding.
fn base64url(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let at = |i: usize| u32::from(group.get(i).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        let letters = [18, 12, 6, 0].map(|shift| LETTERS[(bits >> shift & 63) as usize]);
        let letters = letters.iter().take(group.len() + 1);
        text.extend(letters.map(|letter| char::from(*letter)));
    }
    text
}

/// An id of some kind, a name, a code.
pub(crate) fn ids(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Some(id) = read::<UserId>(text) {
        assert!(id.to_string().eq_ignore_ascii_case(text));
    }
    if let Some(id) = read::<StreamId>(text) {
        assert!(id.to_string().eq_ignore_ascii_case(text));
    }
    if let Some(id) = read::<DeviceId>(text) {
        assert!(id.to_string().eq_ignore_ascii_case(text));
    }
    if let Some(id) = read::<InstanceId>(text) {
        assert!(id.to_string().eq_ignore_ascii_case(text));
    }
    if let Some(name) = read::<Name>(text) {
        assert_eq!(name.as_str(), text);
    }
    if let Some(code) = read::<PairingCode>(text) {
        assert!(Topic::new(&code.topic()).is_ok());
    }
}

/// What is read prints as text that reads back as the same.
fn read<T: FromStr + Display + PartialEq>(text: &str) -> Option<T> {
    let value: T = text.parse().ok()?;
    let back = value.to_string().parse();
    assert!(back.is_ok_and(|back: T| back == value), "{value}");
    Some(value)
}

/// The address of a bus, and the name of a topic.
pub(crate) fn bus_url(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Some(url) = read::<BusUrl>(text) {
        let absolute = url.absolute(Path::new("/var/lib"));
        let is_kept = absolute.is_ok_and(|of| match of.place() {
            Place::File(path) => path.is_absolute(),
            Place::Nats(_) | Place::Mqtt(_) | Place::Amqp(_) | Place::Postgres(_) => of == url,
        });
        assert!(is_kept, "{url}");
        if let Place::File(path) = url.place() {
            assert_eq!(BusUrl::file(path), Ok(url.clone()));
        }
    }
    if let Some(topic) = read::<Topic>(text) {
        assert_eq!(topic.as_ref(), text);
    }
}

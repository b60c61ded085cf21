//! Packets of MQTT 5 and 3.1.1, as far as a relay takes them apart. What it leaves alone stays as it came, byte
//! for byte.

mod opening;

use crate::fields::{
    EXPIRY, Fields, Malformed, PAYLOAD_FORMAT, Properties, SESSION_EXPIRY, TOPIC_ALIAS, put_bytes,
    put_variable,
};
use crate::lasting::Lasts;
pub(crate) use opening::{Connect, NoConnect, Welcome, Will};

/// Which MQTT a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// 3.1.1.
    Three,
    /// 5.
    Five,
}

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Broker,
}

/// The kinds of packets, by the numbers that the standard gives them.
pub(crate) const CONNECT: u8 = 1;
pub(crate) const CONNACK: u8 = 2;
pub(crate) const PUBLISH: u8 = 3;
pub(crate) const PUBACK: u8 = 4;
pub(crate) const PUBREC: u8 = 5;
pub(crate) const PUBREL: u8 = 6;
pub(crate) const PUBCOMP: u8 = 7;
pub(crate) const AUTH: u8 = 15;
pub(crate) const SUBSCRIBE: u8 = 8;
const SUBACK: u8 = 9;
pub(crate) const UNSUBSCRIBE: u8 = 10;
const UNSUBACK: u8 = 11;
pub(crate) const PINGREQ: u8 = 12;
pub(crate) const PINGRESP: u8 = 13;
pub(crate) const DISCONNECT: u8 = 14;

/// Why something is refused, or a connection closed, as MQTT 5 has it.
pub(crate) mod reason {
    pub(crate) const MALFORMED: u8 = 0x81;
    pub(crate) const PROTOCOL_ERROR: u8 = 0x82;
    pub(crate) const NOT_AUTHORIZED: u8 = 0x87;
    pub(crate) const UNAVAILABLE: u8 = 0x88;
    pub(crate) const BUSY: u8 = 0x89;
    pub(crate) const SHUTTING_DOWN: u8 = 0x8b;
    pub(crate) const KEEP_ALIVE: u8 = 0x8d;
    pub(crate) const PACKET_TOO_LARGE: u8 = 0x95;
    pub(crate) const QUOTA: u8 = 0x97;
}

/// The same of CONNACK in MQTT 3.1.1.
const OTHER_VERSION_THREE: u8 = 1;
const UNAVAILABLE_THREE: u8 = 3;
const NOT_AUTHORIZED_THREE: u8 = 5;

/// The bytes at the start of a PUBLISH in which the number for its acknowledgement is found.
pub(crate) const START_MAX: usize = 2 + u16::MAX as usize + 2;

/// How a packet begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// Its kind, and flags.
    pub(crate) first: u8,
    /// How many bytes its beginning has.
    pub(crate) len: usize,
    /// How many follow.
    pub(crate) body: usize,
}

impl Head {
    /// Reads it; `None` where more bytes have to come.
    pub(crate) fn read(bytes: &[u8]) -> Result<Option<Self>, Malformed> {
        let Some((first, rest)) = bytes.split_first() else {
            return Ok(None);
        };
        let mut fields = Fields::new(rest);
        let is_ended = rest.iter().take(4).any(|byte| byte & 0x80 == 0);
        if !is_ended && rest.len() < 4 {
            return Ok(None);
        }
        let body = fields.variable()?;
        let len = 1 + rest.len() - fields.rest().len();
        let first = *first;
        Ok(Some(Self { first, len, body }))
    }

    pub(crate) fn kind(&self) -> u8 {
        self.first >> 4
    }

    /// Whether one of that side may send such a packet.
    pub(crate) fn check(&self, version: Version, from: Side) -> Result<(), Malformed> {
        let (client, flags) = (from == Side::Client, self.first & 0x0f);
        let is_right = match self.kind() {
            CONNECT | PINGREQ => client && flags == 0,
            SUBSCRIBE | UNSUBSCRIBE => client && flags == 2,
            CONNACK | SUBACK | UNSUBACK | PINGRESP => !client && flags == 0,
            PUBLISH => flags & 6 != 6,
            PUBREL => flags == 2,
            PUBACK | PUBREC | PUBCOMP => flags == 0,
            DISCONNECT => flags == 0 && (client || version == Version::Five),
            AUTH => flags == 0 && version == Version::Five,
            _ => false,
        };
        match is_right {
            true => Ok(()),
            false => Err(Malformed),
        }
    }
}

/// Where a PUBLISH wants an acknowledgement, the number for it, given the first bytes of its body.
pub(crate) fn id_at_start(first: u8, start: &[u8]) -> Result<Option<u16>, Malformed> {
    let mut fields = Fields::new(start);
    fields.bytes()?;
    match first >> 1 & 3 {
        0 => Ok(None),
        _ => id(&mut fields).map(Some),
    }
}

/// The most bytes of any packet.
pub(crate) const LARGEST: u32 = 268_435_460;

/// The number that an acknowledgement is for, given its body.
pub(crate) fn id_of(body: &[u8]) -> Result<u16, Malformed> {
    id(&mut Fields::new(body))
}

fn id(fields: &mut Fields<'_>) -> Result<u16, Malformed> {
    match fields.number()? {
        0 => Err(Malformed),
        id => Ok(id),
    }
}

/// A message.
#[derive(Clone, Copy)]
pub(crate) struct Publish<'a> {
    first: u8,
    /// Empty where an alias stands for it.
    pub(crate) topic: &'a str,
    pub(crate) alias: Option<u16>,
    pub(crate) id: Option<u16>,
    properties: Properties<'a>,
    pub(crate) payload: &'a [u8],
}

impl<'a> Publish<'a> {
    pub(crate) fn parse(version: Version, first: u8, body: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new(body);
        let topic = fields.text()?;
        let id = match first >> 1 & 3 {
            0 => None,
            _ => Some(id(&mut fields)?),
        };
        let mut properties = Properties::default();
        let mut alias = None;
        if version == Version::Five {
            properties = fields.properties()?;
            properties.each(|of| match of.key {
                0x01 | 0x02 | 0x03 | 0x08 | 0x09 | 0x0b | TOPIC_ALIAS | 0x26 => Ok(()),
                _ => Err(Malformed),
            })?;
            alias = properties.find(TOPIC_ALIAS)?.and_then(|of| of.number());
        }
        let is_named = !topic.is_empty() || alias.is_some();
        if !is_named || alias == Some(0) || topic.contains(['+', '#']) {
            return Err(Malformed);
        }
        Ok(Self {
            first,
            topic,
            alias,
            id,
            properties,
            payload: fields.rest(),
        })
    }

    pub(crate) fn qos(&self) -> u8 {
        self.first >> 1 & 3
    }

    pub(crate) fn is_retained(&self) -> bool {
        self.first & 1 == 1
    }

    /// Whether its sender says that it was sent before.
    pub(crate) fn comes_again(&self) -> bool {
        self.first & 8 == 8
    }

    /// Whether it is what makes a broker forget the message that it retained.
    pub(crate) fn clears(&self) -> bool {
        self.is_retained() && self.payload.is_empty()
    }

    /// The same message without acknowledgement.
    pub(crate) fn unacknowledged(self) -> Self {
        Self {
            first: self.first & 0xf1,
            id: None,
            ..self
        }
    }

    /// The same message, to be kept: with its topic said, and no number for that.
    pub(crate) fn to_keep(self, version: Version, topic: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let kept = Self {
            first: self.first & !8,
            ..self
        };
        kept.put_changed(
            version,
            topic,
            self.payload,
            (&[TOPIC_ALIAS], &[]),
            &mut out,
        );
        out
    }

    /// The same message with another number, and whether it was sent before.
    pub(crate) fn late(self, id: Option<u16>, comes_again: bool) -> Self {
        let flag = if comes_again { 8 } else { 0 };
        Self {
            first: self.first & !8 | flag,
            id,
            ..self
        }
    }

    /// For how many seconds it is still worth something after so many, if its publisher has said so.
    pub(crate) fn expiry_after(&self, waited: u64) -> Option<u32> {
        let expiry = self.properties.find(EXPIRY).ok()??.long()?;
        let left = u64::from(expiry).saturating_sub(waited);
        u32::try_from(left).ok()
    }

    /// As [`put`](Self::put), with what is left of its time.
    pub(crate) fn put_late(
        &self,
        version: Version,
        topic: &str,
        payload: &[u8],
        waited: u64,
        out: &mut Vec<u8>,
    ) {
        match self.expiry_after(waited) {
            None => self.put(version, topic, (payload, false), out),
            Some(left) => {
                let [one, two, three, four] = left.to_be_bytes();
                let left = [EXPIRY, one, two, three, four];
                self.put_changed(version, topic, payload, (&[EXPIRY], &left), out);
            }
        }
    }

    /// Puts it with another topic and payload. One that is sealed is no text any more, which its sender may
    /// have said of it.
    pub(crate) fn put(
        &self,
        version: Version,
        topic: &str,
        (payload, is_sealed): (&[u8], bool),
        out: &mut Vec<u8>,
    ) {
        let without: &[u8] = if is_sealed { &[PAYLOAD_FORMAT] } else { &[] };
        self.put_changed(version, topic, payload, (without, &[]), out);
    }

    /// Puts it without some properties, and with more of them.
    fn put_changed(
        &self,
        version: Version,
        topic: &str,
        payload: &[u8],
        (without, more): (&[u8], &[u8]),
        out: &mut Vec<u8>,
    ) {
        let mut start = Vec::with_capacity(topic.len() + 16);
        put_bytes(topic.as_bytes(), &mut start);
        if let Some(id) = self.id {
            start.extend_from_slice(&id.to_be_bytes());
        }
        if version == Version::Five {
            self.properties.put_without(without, more, &mut start);
        }
        out.push(self.first);
        put_variable(start.len() + payload.len(), out);
        out.extend_from_slice(&start);
        out.extend_from_slice(payload);
    }
}

/// An acknowledgement of some kind. A reason is for those who speak MQTT 5.
pub(crate) fn put_ack(version: Version, kind: u8, id: u16, reason: u8, out: &mut Vec<u8>) {
    let flags = if kind == PUBREL { 2 } else { 0 };
    let [high, low] = id.to_be_bytes();
    match (version, reason) {
        (Version::Three, _) | (Version::Five, 0) => {
            out.extend_from_slice(&[kind << 4 | flags, 2, high, low]);
        }
        (Version::Five, _) => out.extend_from_slice(&[kind << 4 | flags, 3, high, low, reason]),
    }
}

/// Asks a broker whether it is there, which tells it that the client is.
pub(crate) const PING: [u8; 2] = [PINGREQ << 4, 0];

/// Whether a broker of MQTT 5 sends its client to another one, past whoever stands between them.
pub(crate) fn leads_elsewhere(reason: u8) -> bool {
    matches!(reason, 0x9c | 0x9d)
}

/// For how long a client that leaves has its session outlive the connection, where it says so.
pub(crate) fn lasts_after(body: &[u8]) -> Option<Lasts> {
    let mut fields = Fields::new(body);
    fields.byte().ok()?;
    let expiry = fields.properties().ok()?.find(SESSION_EXPIRY).ok()??.long();
    expiry.map(Lasts::from)
}

/// Tells a client of MQTT 5 why the connection is about to be closed.
pub(crate) fn disconnect(reason: u8) -> [u8; 3] {
    [DISCONNECT << 4, 1, reason]
}

/// Turns a client away that has connected, in the words of its version.
pub(crate) fn turned_away(version: Version, why: u8) -> Vec<u8> {
    match version {
        Version::Five => vec![CONNACK << 4, 3, 0, why, 0],
        Version::Three => {
            let code = match why {
                reason::NOT_AUTHORIZED => NOT_AUTHORIZED_THREE,
                _ => UNAVAILABLE_THREE,
            };
            vec![CONNACK << 4, 2, 0, code]
        }
    }
}

/// Turns a client away whose version is spoken by nobody here, as MQTT 3.1.1 has it.
pub(crate) const OTHER_VERSION: [u8; 4] = [CONNACK << 4, 2, 0, OTHER_VERSION_THREE];

fn properties<'a>(version: Version, fields: &mut Fields<'a>) -> Result<Properties<'a>, Malformed> {
    match version {
        Version::Three => Ok(Properties::default()),
        Version::Five => fields.properties(),
    }
}

fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::with_capacity(body.len() + 5);
    whole.push(kind << 4);
    put_variable(body.len(), &mut whole);
    whole.extend_from_slice(body);
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_when_all_of_it_is_there() {
        let head = |first, len, body| Ok(Some(Head { first, len, body }));
        for (bytes, read) in [
            (&b""[..], Ok(None)),
            (b"\x30", Ok(None)),
            (b"\x30\xff\xff\xff", Ok(None)),
            (b"\xc0\x00", head(0xc0, 2, 0)),
            (b"\x30\x7f", head(0x30, 2, 127)),
            (b"\x30\x80\x01", head(0x30, 3, 128)),
            (b"\x30\xff\xff\xff\x7f", head(0x30, 5, 268_435_455)),
            (b"\x30\xff\xff\xff\xff", Err(Malformed)),
        ] {
            assert_eq!(Head::read(bytes), read, "{bytes:x?}");
        }
    }

    #[test]
    fn what_was_taken_apart_is_put_together_as_it_was() {
        let body = b"\x00\x01t\x00\x07\x05\x01\x01\x23\x00\x09payload";
        let publish = Publish::parse(Version::Five, 0x3b, body).unwrap();
        assert_eq!((publish.qos(), publish.is_retained()), (1, true));
        assert_eq!((publish.id, publish.alias), (Some(7), Some(9)));
        let mut out = Vec::new();
        publish.put(Version::Five, "t", (b"payload", false), &mut out);
        assert_eq!(out, packet_of(0x3b, body));
        // Without what is said of the payload, and with another.
        let mut out = Vec::new();
        publish.put(Version::Five, "t", (b"sealed", true), &mut out);
        assert_eq!(
            out,
            packet_of(0x3b, b"\x00\x01t\x00\x07\x03\x23\x00\x09sealed")
        );
        let mut out = Vec::new();
        let plain = publish.unacknowledged();
        plain.put(Version::Five, "t", (b"payload", false), &mut out);
        assert_eq!(
            out,
            packet_of(0x31, b"\x00\x01t\x05\x01\x01\x23\x00\x09payload")
        );
    }

    #[test]
    fn what_is_cut_short_or_changed_is_no_panic() {
        let connect = b"\x00\x04MQTT\x05\xce\x00\x3c\x05\x27\x00\x00\x01\x00\x00\x01c\x00\x00\x01w\
            \x00\x02go\x00\x01u\x00\x01p";
        assert!(Connect::parse(connect).is_ok());
        let publish = b"\x00\x01t\x00\x07\x05\x01\x01\x23\x00\x09payload";
        let welcome = b"\x00\x00\x08\x27\x00\x00\x01\x00\x13\x00\x07";
        for whole in [&connect[..], publish, welcome] {
            for cut in 0..whole.len() {
                for change in 0..=u8::MAX {
                    let mut bytes = whole.to_vec();
                    bytes[cut] = change;
                    for bytes in [&bytes[..], &bytes[..cut]] {
                        let _any = Connect::parse(bytes).map(|of| of.encode(None, Some(9)));
                        let _any = id_at_start(0x32, bytes);
                        for version in [Version::Three, Version::Five] {
                            let _any = Publish::parse(version, 0x32, bytes).is_ok();
                            let _any = Welcome::parse(version, bytes)
                                .map(|of| of.encode(version, Some(9)));
                        }
                    }
                }
            }
        }
    }

    fn packet_of(first: u8, body: &[u8]) -> Vec<u8> {
        [&[first, u8::try_from(body.len()).unwrap()], body].concat()
    }
}

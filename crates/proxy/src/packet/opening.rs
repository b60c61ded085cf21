//! How a connection begins: what a client says first, and what a broker answers.

use super::{CONNACK, CONNECT, Version, packet, properties};
use crate::fields::{
    ASSIGNED_CLIENT, Fields, Malformed, PACKET_MAX, PAYLOAD_FORMAT, Properties, RECEIVE_MAX,
    SERVER_KEEP_ALIVE, SESSION_EXPIRY, put_bytes,
};
use crate::lasting::Lasts;

/// What a client says first.
#[derive(Clone, Copy)]
pub(crate) struct Connect<'a> {
    pub(crate) version: Version,
    pub(crate) keep_alive: u16,
    /// The most bytes of a packet that the client takes, if it says so.
    pub(crate) packet_max: Option<u32>,
    pub(crate) will: Option<Will<'a>>,
    /// Up to the properties, or to the name of the client.
    start: &'a [u8],
    properties: Properties<'a>,
    pub(crate) client: &'a [u8],
    pub(crate) user: &'a [u8],
    /// For how long its session outlives the connection.
    pub(crate) lasts: Lasts,
    /// The most messages that it takes at a time, if it says so.
    pub(crate) receive_max: Option<u16>,
    /// User and password, with their lengths.
    login: &'a [u8],
}

/// What the broker is to publish when the client is gone.
#[derive(Clone, Copy)]
pub(crate) struct Will<'a> {
    properties: Properties<'a>,
    pub(crate) topic: &'a str,
    pub(crate) payload: &'a [u8],
    is_retained: bool,
}

impl Will<'_> {
    /// Whether it is what makes a broker forget the message that it retained.
    pub(crate) fn clears(&self) -> bool {
        self.is_retained && self.payload.is_empty()
    }
}

/// Why a CONNECT is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoConnect {
    Malformed,
    /// It is of a version that is not known here.
    OtherVersion,
}

impl From<Malformed> for NoConnect {
    fn from(Malformed: Malformed) -> Self {
        Self::Malformed
    }
}

impl<'a> Connect<'a> {
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, NoConnect> {
        let mut fields = Fields::new(body);
        let name = fields.text()?;
        let version = match (name, fields.byte()?) {
            ("MQTT", 4) => Version::Three,
            ("MQTT", 5) => Version::Five,
            ("MQTT" | "MQIsdp", _) => return Err(NoConnect::OtherVersion),
            _ => return Err(NoConnect::Malformed),
        };
        let flags = fields.byte()?;
        let keep_alive = fields.number()?;
        let start = &body[..body.len() - fields.rest().len()];
        let properties = properties(version, &mut fields)?;
        let packet_max = properties.find(PACKET_MAX)?.and_then(|of| of.long());
        let client = fields.text()?.as_bytes();
        let will = will(version, flags, &mut fields)?;
        let login = fields.rest();
        let mut user: &[u8] = &[];
        for flag in [0x80, 0x40] {
            if flags & flag != 0 {
                let said = fields.bytes()?;
                user = if flag == 0x80 { said } else { user };
            }
        }
        let receive_max = properties.find(RECEIVE_MAX)?.and_then(|of| of.number());
        let expiry = properties.find(SESSION_EXPIRY)?.and_then(|of| of.long());
        let lasts = match version {
            Version::Three if flags & 2 == 0 => Lasts::Ever,
            Version::Three => Lasts::Seconds(0),
            Version::Five => expiry.unwrap_or_default().into(),
        };
        let is_none = packet_max == Some(0) || receive_max == Some(0);
        match flags & 1 == 0 && !is_none && fields.rest().is_empty() {
            true => Ok(Self {
                version,
                keep_alive,
                packet_max,
                will,
                start,
                properties,
                client,
                user,
                lasts,
                receive_max,
                login,
            }),
            false => Err(NoConnect::Malformed),
        }
    }

    /// The same with the payload of its will sealed, if it is, and whether that is an envelope alone; and with the most
    /// bytes of a packet that are taken, where there are any, which only MQTT 5 can say.
    pub(crate) fn encode(&self, sealed: Option<(&[u8], bool)>, packet_max: Option<u32>) -> Vec<u8> {
        let mut body = self.start.to_vec();
        if self.version == Version::Five {
            match packet_max.filter(|_| packet_max != self.packet_max) {
                Some(packet_max) => put_packet_max(&self.properties, packet_max, &mut body),
                None => self.properties.put(&mut body),
            }
        }
        put_bytes(self.client, &mut body);
        if let Some(will) = &self.will {
            match (self.version, sealed) {
                (Version::Three, _) => {}
                (Version::Five, Some((_, true))) => {
                    will.properties
                        .put_without(&[PAYLOAD_FORMAT], &[], &mut body);
                }
                (Version::Five, Some((_, false)) | None) => will.properties.put(&mut body),
            }
            put_bytes(will.topic.as_bytes(), &mut body);
            let payload = sealed.map_or(will.payload, |(payload, _)| payload);
            put_bytes(payload, &mut body);
        }
        body.extend_from_slice(self.login);
        packet(CONNECT, &body)
    }
}

/// What a broker says when a client connects.
#[derive(Clone, Copy)]
pub(crate) struct Welcome<'a> {
    is_in: bool,
    start: &'a [u8],
    properties: Properties<'a>,
    /// The most bytes of a packet that the broker takes, if it says so.
    pub(crate) packet_max: Option<u32>,
    /// By when it has to hear of the client, where that is not what the client said.
    pub(crate) keep_alive: Option<u16>,
}

impl<'a> Welcome<'a> {
    pub(crate) fn parse(version: Version, body: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new(body);
        let start = fields.take(2)?;
        // A broker that knows nothing of MQTT 5 says so in the words of 3.1.1.
        let properties = match fields.rest().is_empty() {
            true => Properties::default(),
            false => properties(version, &mut fields)?,
        };
        match fields.rest().is_empty() {
            true => Ok(Self {
                is_in: start[1] == 0,
                start,
                properties,
                packet_max: properties.find(PACKET_MAX)?.and_then(|of| of.long()),
                keep_alive: properties
                    .find(SERVER_KEEP_ALIVE)?
                    .and_then(|of| of.number()),
            }),
            false => Err(Malformed),
        }
    }

    /// Whether the broker has a session of the client's that goes on.
    pub(crate) fn has_session(&self) -> bool {
        self.start.first().is_some_and(|flags| flags & 1 == 1)
    }

    /// The name that the broker gave the client.
    pub(crate) fn client(&self) -> Option<&'a [u8]> {
        let assigned = self.properties.find(ASSIGNED_CLIENT).ok()??;
        assigned.bytes()
    }

    /// For how long the broker keeps the session, where that is not what the client said.
    pub(crate) fn lasts(&self) -> Option<Lasts> {
        let expiry = self.properties.find(SESSION_EXPIRY).ok()??.long();
        expiry.map(Lasts::from)
    }

    /// Why the client is not let in, as its version has it; 0 where it is.
    pub(crate) fn code(&self) -> u8 {
        self.start.get(1).copied().unwrap_or_default()
    }

    /// The same with the most bytes of a packet that the client may send, which MQTT 5 alone can say; `None`
    /// where there is nothing to change.
    pub(crate) fn encode(&self, version: Version, packet_max: Option<u32>) -> Option<Vec<u8>> {
        if version == Version::Three || !self.is_in || packet_max == self.packet_max {
            return None;
        }
        let packet_max = packet_max?;
        let mut body = self.start.to_vec();
        put_packet_max(&self.properties, packet_max, &mut body);
        Some(packet(CONNACK, &body))
    }
}

fn will<'a>(
    version: Version,
    flags: u8,
    fields: &mut Fields<'a>,
) -> Result<Option<Will<'a>>, Malformed> {
    let (is_there, rest) = (flags & 4 != 0, flags & 0x38);
    if !is_there || rest & 0x18 == 0x18 {
        return match is_there || rest != 0 {
            true => Err(Malformed),
            false => Ok(None),
        };
    }
    let properties = properties(version, fields)?;
    let topic = fields.text()?;
    let payload = fields.bytes()?;
    match topic.is_empty() || topic.contains(['+', '#']) {
        true => Err(Malformed),
        false => Ok(Some(Will {
            properties,
            topic,
            payload,
            is_retained: flags & 0x20 != 0,
        })),
    }
}

fn put_packet_max(properties: &Properties<'_>, packet_max: u32, out: &mut Vec<u8>) {
    let [one, two, three, four] = packet_max.to_be_bytes();
    let more = [PACKET_MAX, one, two, three, four];
    properties.put_without(&[PACKET_MAX], &more, out);
}

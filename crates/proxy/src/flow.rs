//! What is kept of one direction of a connection, so that messages can be held back in it: topics that have numbers, and
//! handshakes that the relay finishes itself.
//!
//! Where all goes on, handshakes are between the client and its broker, and nothing of them is kept.

use std::collections::HashSet;
use std::sync::Arc;

use crate::aliases::{Aliases, NoTopic};
use crate::fields::Malformed;
use crate::packet::{PUBACK, PUBCOMP, PUBREC, PUBREL, Publish, Version, id_of, put_ack};

/// From this code on, a PUBREC ends its handshake.
const REFUSED: u8 = 0x80;

/// How a message that goes no further wants to be acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeldBack {
    pub(crate) qos: u8,
    pub(crate) id: Option<u16>,
    /// Whether its sender says that it was sent before.
    pub(crate) comes_again: bool,
}

impl From<&Publish<'_>> for HeldBack {
    fn from(publish: &Publish<'_>) -> Self {
        Self {
            qos: publish.qos(),
            id: publish.id,
            comes_again: publish.comes_again(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) version: Version,
    aliases: Aliases,
    /// Numbers of messages with QoS 2 that were held back, until their sender releases them.
    held_back: HashSet<u16>,
}

impl Flow {
    pub(crate) fn new(version: Version, alias_bytes_max: usize) -> Self {
        Self {
            version,
            aliases: Aliases::new(alias_bytes_max),
            held_back: HashSet::new(),
        }
    }

    /// The topic of a message; each is asked for once, in the order in which they came.
    pub(crate) fn topic(&mut self, publish: &Publish<'_>) -> Result<Arc<str>, NoTopic> {
        self.aliases.topic(publish)
    }

    /// What a message that goes on now says of its topic, which may be nothing.
    pub(crate) fn said<'a>(&self, publish: &Publish<'a>, topic: &'a str) -> &'a str {
        match self.aliases.is_new(publish, topic) {
            true => topic,
            false => publish.topic,
        }
    }

    /// A message goes on.
    pub(crate) fn goes_on(&mut self, publish: &Publish<'_>, topic: &Arc<str>) {
        self.aliases.went_on(publish, topic);
        if let Some(id) = publish.id {
            self.held_back.remove(&id);
        }
    }

    /// A message goes no further: its sender is told so as far as its version lets that be said, and else that it
    /// arrived.
    ///
    /// Of QoS 2 the receiver may have the number of one that comes again: then the sender goes on, and its release is
    /// passed on.
    pub(crate) fn hold_back(&mut self, of: HeldBack, reason: u8, back: &mut Vec<u8>) {
        let Some(id) = of.id else {
            return;
        };
        if of.qos == 2 && of.comes_again && !self.held_back.contains(&id) {
            put_ack(self.version, PUBREC, id, 0, back);
            return;
        }
        let kind = if of.qos == 1 { PUBACK } else { PUBREC };
        put_ack(self.version, kind, id, reason, back);
        let is_ended = self.version == Version::Five && reason >= REFUSED;
        if of.qos == 2 && !is_ended {
            self.held_back.insert(id);
        }
    }

    /// Whether a message of that number was held back, and is not released yet.
    pub(crate) fn holds(&self, id: u16) -> bool {
        self.held_back.contains(&id)
    }

    /// The number of a message of QoS 2 whose receiver takes none of it, which ends its handshake.
    pub(crate) fn refused(&self, kind: u8, body: &[u8]) -> Result<Option<u16>, Malformed> {
        let is_end = body.get(2).is_some_and(|code| *code >= REFUSED);
        let is_refused = kind == PUBREC && self.version == Version::Five && is_end;
        is_refused.then(|| id_of(body)).transpose()
    }

    /// Whether a packet belongs to the handshake of a message that was held back; it is answered then.
    pub(crate) fn answers(
        &mut self,
        kind: u8,
        body: &[u8],
        back: &mut Vec<u8>,
    ) -> Result<bool, Malformed> {
        if kind != PUBREL || self.held_back.is_empty() {
            return Ok(false);
        }
        let id = id_of(body)?;
        let is_ours = self.held_back.remove(&id);
        if is_ours {
            put_ack(self.version, PUBCOMP, id, 0, back);
        }
        Ok(is_ours)
    }
}

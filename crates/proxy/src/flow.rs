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

    /// The topic of a message, and whether it has to be said anew.
    pub(crate) fn topic(&mut self, publish: &Publish<'_>) -> Result<(Arc<str>, bool), NoTopic> {
        self.aliases.topic(publish)
    }

    /// A message goes on.
    pub(crate) fn goes_on(&mut self, publish: &Publish<'_>) {
        self.aliases.went_on(publish);
        if let Some(id) = publish.id {
            self.held_back.remove(&id);
        }
    }

    /// A message goes no further: its sender is told so as far as its version lets that be said, and else that it
    /// arrived.
    pub(crate) fn hold_back(
        &mut self,
        (qos, id): (u8, Option<u16>),
        reason: u8,
        back: &mut Vec<u8>,
    ) {
        let Some(id) = id else {
            return;
        };
        let kind = if qos == 1 { PUBACK } else { PUBREC };
        put_ack(self.version, kind, id, reason, back);
        let is_ended = self.version == Version::Five && reason >= REFUSED;
        if qos == 2 && !is_ended {
            self.held_back.insert(id);
        }
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

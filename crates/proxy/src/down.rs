//! From the broker to a client.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sealcast::{DataTopic, Name};

use crate::counts::{Exception, Ledger, because};
use crate::flow::Flow;
use crate::lane::{End, Take};
use crate::packet::{
    AUTH, CONNACK, DISCONNECT, PUBLISH, Publish, Side, Version, Welcome, disconnect,
    leads_elsewhere, reason, turned_away,
};
use crate::rules::{Down as Act, Rules, Undecryptable};
use crate::sealing::{NotOpened, Opening, Sealing, Unopened, open};
use crate::up::{GROWTH_MAX, Told};
use crate::wire::{Incoming, Packet};

/// Each record of an envelope is a message with the topic and properties of all: together they have no more bytes than
/// so many of the largest packets.
const RECORDS_PACKETS: usize = 4;

/// What is done with what a broker sends to a client.
pub(crate) struct Down {
    rules: Arc<Rules>,
    sealing: Arc<dyn Sealing>,
    flow: Flow,
    told: Arc<Told>,
    ledger: Ledger,
    /// The most bytes of a packet that the client takes.
    client_packet_max: usize,
    /// The most bytes of a packet that are taken of the client.
    packet_max: u32,
    is_welcome: bool,
    opening: HashMap<Name, Box<dyn Opening>>,
}

/// What becomes of a message.
enum Fate {
    /// It goes on as it is, as a rule says.
    AsItIs,
    /// It goes on as it is, as it could not be opened.
    Unopened(&'static str),
    /// What was in it goes on.
    Opened(Vec<Vec<u8>>),
    /// It does not go on.
    Dropped(&'static str),
    /// It may go on if it comes again.
    NotNow(&'static str),
}

impl Down {
    pub(crate) fn new(
        (rules, sealing): (Arc<Rules>, Arc<dyn Sealing>),
        flow: Flow,
        told: Arc<Told>,
        ledger: Ledger,
        (client_packet_max, packet_max): (usize, u32),
    ) -> Self {
        Self {
            rules,
            sealing,
            flow,
            told,
            ledger,
            client_packet_max,
            packet_max,
            is_welcome: false,
            opening: HashMap::new(),
        }
    }
}

impl Take for Down {
    async fn take(
        &mut self,
        incoming: Incoming,
        out: &mut Vec<u8>,
        back: &mut Vec<u8>,
    ) -> Result<(), End> {
        let packet = match incoming {
            Incoming::Packet(packet) => packet,
            Incoming::Oversized(qos, id) => {
                self.ledger.note(Exception::Dropped, "", because::TOO_LARGE);
                self.flow.hold_back((qos, id), 0, back);
                return Ok(());
            }
        };
        packet.head.check(self.flow.version, Side::Broker)?;
        match packet.head.kind() {
            CONNACK if !self.is_welcome => self.welcome(&packet, out)?,
            CONNACK => return Err(End::Refused(reason::PROTOCOL_ERROR)),
            kind if kind != AUTH && !self.is_welcome => {
                return Err(End::Refused(reason::PROTOCOL_ERROR));
            }
            PUBLISH => return self.publish(&packet, out, back).await,
            DISCONNECT if packet.body().first().copied().is_some_and(leads_elsewhere) => {
                out.extend_from_slice(&disconnect(reason::SHUTTING_DOWN));
            }
            kind if self.flow.answers(kind, packet.body(), back)? => {}
            _ => out.extend_from_slice(&packet.bytes),
        }
        Ok(())
    }

    fn patience(&self) -> Option<Duration> {
        None
    }
}

impl Down {
    fn welcome(&mut self, packet: &Packet, out: &mut Vec<u8>) -> Result<(), End> {
        let version = self.flow.version;
        let welcome = Welcome::parse(version, packet.body())?;
        self.is_welcome = true;
        if version == Version::Five && leads_elsewhere(welcome.code()) {
            out.extend_from_slice(&turned_away(version, reason::UNAVAILABLE));
            return Ok(());
        }
        self.told.tell(welcome.packet_max, welcome.keep_alive);
        let packet_max = welcome.packet_max.unwrap_or(u32::MAX).min(self.packet_max);
        let growth = if self.rules.seal() { GROWTH_MAX } else { 0 };
        let growth = u32::try_from(growth).unwrap_or(u32::MAX);
        match welcome.encode(version, packet_max.saturating_sub(growth).max(1)) {
            Some(encoded) => out.extend_from_slice(&encoded),
            None => out.extend_from_slice(&packet.bytes),
        }
        Ok(())
    }

    async fn publish(
        &mut self,
        packet: &Packet,
        out: &mut Vec<u8>,
        back: &mut Vec<u8>,
    ) -> Result<(), End> {
        let publish = Publish::parse(self.flow.version, packet.head.first, packet.body())?;
        let (topic, is_new) = self.flow.topic(&publish)?;
        let said = if is_new { &topic } else { publish.topic };
        let mut fate = self.fate(&publish, &topic).await;
        let before = out.len();
        if !self.put(&fate, packet, &publish, said, out) {
            out.truncate(before);
            fate = Fate::Dropped(because::TOO_LARGE);
        }
        match fate {
            Fate::AsItIs => self.ledger.counts.count_passed(),
            Fate::Opened(_) => self.ledger.counts.count_opened(),
            Fate::Unopened(code) => self.ledger.note(Exception::Forwarded, &topic, code),
            Fate::Dropped(code) => self.ledger.note(Exception::Dropped, &topic, code),
            Fate::NotNow(code) => {
                self.ledger.note(Exception::Dropped, &topic, code);
                // The broker has it still, and sends it again over the client's next connection.
                if publish.id.is_some() {
                    return Err(End::Refused(reason::BUSY));
                }
            }
        }
        match out.len() > before {
            true => self.flow.goes_on(&publish),
            false => self.flow.hold_back((publish.qos(), publish.id), 0, back),
        }
        Ok(())
    }

    async fn fate(&mut self, publish: &Publish<'_>, topic: &str) -> Fate {
        let (stream, fields, undecryptable) = match self.rules.down(topic) {
            Act::Pass => return Fate::AsItIs,
            Act::NoRule => return Fate::Dropped(because::NO_RULE),
            // It says that what was retained is gone, and nothing else.
            Act::Open(..) if publish.payload.is_empty() => return Fate::AsItIs,
            Act::Open(stream, fields, undecryptable) => (stream, fields, undecryptable),
        };
        let opened = match topic.parse::<DataTopic>() {
            Err(_) => Err(NotOpened {
                code: because::TOPIC,
                why: Unopened::Foreign,
            }),
            Ok(topic) => {
                let opening = self.opening.entry(stream.clone());
                let opening = opening.or_insert_with(|| self.sealing.opening(stream));
                let message = (publish.payload, publish.is_retained());
                let opened = open(&mut **opening, fields, &topic, message);
                opened.await
            }
        };
        match (opened, undecryptable) {
            (Ok(records), _) => Fate::Opened(records),
            (Err(fault), _) if fault.why == Unopened::NotNow => Fate::NotNow(fault.code),
            // Its receiver could not tell plaintext of a stranger from what was opened.
            (Err(fault), Undecryptable::Forward) if fault.why == Unopened::Sealed => {
                Fate::Unopened(fault.code)
            }
            (Err(fault), Undecryptable::Drop | Undecryptable::Forward) => Fate::Dropped(fault.code),
        }
    }

    /// Puts what the client is to have; `false` where it does not take packets that large.
    fn put(
        &self,
        fate: &Fate,
        packet: &Packet,
        publish: &Publish<'_>,
        said: &str,
        out: &mut Vec<u8>,
    ) -> bool {
        let (version, mut from) = (self.flow.version, out.len());
        let all_max = out.len() + RECORDS_PACKETS * self.packet_max as usize;
        match fate {
            Fate::Dropped(_) | Fate::NotNow(_) => {}
            Fate::AsItIs | Fate::Unopened(_) if said == publish.topic => {
                out.extend_from_slice(&packet.bytes);
            }
            Fate::AsItIs | Fate::Unopened(_) => {
                publish.put(version, said, (publish.payload, false), out);
            }
            Fate::Opened(records) => {
                for (index, record) in records.iter().enumerate() {
                    if out.len() - from > self.client_packet_max || out.len() > all_max {
                        return false;
                    }
                    from = out.len();
                    // They have one number: the last is acknowledged for all.
                    let is_last = index + 1 == records.len();
                    let one = if is_last {
                        *publish
                    } else {
                        publish.unacknowledged()
                    };
                    one.put(version, said, (record, false), out);
                }
            }
        }
        out.len() - from <= self.client_packet_max
    }
}

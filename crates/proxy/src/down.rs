//! From the broker to a client.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use sealcast::{Arrival, DataTopic, Name};

use crate::counts::{Exception, Ledger, because};
use crate::flow::Flow;
use crate::lane::{End, Take};
use crate::numbers::Numbers;
use crate::packet::{
    AUTH, CONNACK, DISCONNECT, PINGRESP, PUBLISH, Publish, Side, Version, Welcome, disconnect,
    leads_elsewhere, reason, turned_away,
};
use crate::rules::{Down as Act, Undecryptable};
use crate::ruling::Ruling;
use crate::sealing::{NotOpened, Opening, Unopened, open};
use crate::told::{Asker, Told};
use crate::up::GROWTH_MAX;
use crate::wire::{Incoming, Packet};

/// Each record of an envelope is a message with the topic and properties of all: together they have no more bytes than
/// so many of the largest packets.
const RECORDS_PACKETS: usize = 4;

/// What is done with what a broker sends to a client.
pub(crate) struct Down {
    ruling: Arc<Ruling>,
    flow: Flow,
    told: Arc<Told>,
    numbers: Arc<Numbers>,
    ledger: Ledger,
    /// The most bytes of a packet that the client takes.
    client_packet_max: usize,
    /// The most bytes of a packet that are taken of the client.
    packet_max: u32,
    is_welcome: bool,
    opening: BTreeMap<Name, Box<dyn Opening>>,
    /// Streams of which something could not be looked at that the broker has still.
    withheld: BTreeSet<Name>,
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

impl Take for Down {
    async fn take(
        &mut self,
        burst: Vec<Incoming>,
        out: &mut Vec<u8>,
        back: &mut Vec<u8>,
    ) -> Result<(), End> {
        for incoming in burst {
            self.take_one(incoming, out, back).await?;
        }
        Ok(())
    }

    fn patience(&self) -> Option<Duration> {
        None
    }

    /// What a client hears first is whether it is let in.
    fn may_answer(&self) -> bool {
        self.is_welcome
    }

    async fn due(&mut self) {
        let withheld = &self.withheld;
        let opening = self.opening.iter_mut();
        let opening = opening.filter(|(stream, _)| withheld.contains(*stream));
        let mut news: Vec<_> = opening.map(|(_, of)| of.changed()).collect();
        poll_fn(|context| {
            let is_any = news
                .iter_mut()
                .any(|of| of.as_mut().poll(context).is_ready());
            if is_any {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// What could not be looked at may be now: the broker is to send it again.
    async fn act(&mut self, _out: &mut Vec<u8>, _back: &mut Vec<u8>) -> Result<(), End> {
        Err(End::Refused(reason::BUSY))
    }
}

impl Down {
    pub(crate) fn new(
        ruling: Arc<Ruling>,
        flow: Flow,
        (told, numbers): (Arc<Told>, Arc<Numbers>),
        ledger: Ledger,
        (client_packet_max, packet_max): (usize, u32),
    ) -> Self {
        Self {
            ruling,
            flow,
            told,
            numbers,
            ledger,
            client_packet_max,
            packet_max,
            is_welcome: false,
            opening: BTreeMap::new(),
            withheld: BTreeSet::new(),
        }
    }

    /// Whether the client was let in.
    pub(crate) fn is_welcome(&self) -> bool {
        self.is_welcome
    }

    async fn take_one(
        &mut self,
        incoming: Incoming,
        out: &mut Vec<u8>,
        back: &mut Vec<u8>,
    ) -> Result<(), End> {
        let packet = match incoming {
            Incoming::Packet(packet) => packet,
            Incoming::Oversized(of) => {
                self.ledger.note(Exception::Dropped, "", because::TOO_LARGE);
                self.flow.hold_back(of, 0, back);
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
            PINGRESP if self.told.answered() == Asker::Proxy => {}
            kind if self.flow.answers(kind, packet.body(), back)? => {}
            _ => out.extend_from_slice(&packet.bytes),
        }
        Ok(())
    }

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
        let growth = if self.ruling.now().rules.seal() {
            GROWTH_MAX
        } else {
            0
        };
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
        let topic = self.flow.topic(&publish)?;
        let said = self.flow.said(&publish, &topic);
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
                // The broker has it still, and sends it again over the client's next connection. Who does not wait for
                // an answer has lost it.
                if publish.id.is_some() {
                    self.withhold(&topic);
                    return Ok(());
                }
            }
        }
        match out.len() > before {
            true => {
                self.flow.goes_on(&publish, &topic);
                self.numbers.goes_on(&publish, &topic);
            }
            false => self.flow.hold_back((&publish).into(), 0, back),
        }
        Ok(())
    }

    fn withhold(&mut self, topic: &str) {
        if let Act::Open(stream, ..) = self.ruling.now().rules.down(topic) {
            self.withheld.insert(stream.clone());
        }
    }

    async fn fate(&mut self, publish: &Publish<'_>, topic: &str) -> Fate {
        let now = self.ruling.now();
        let (stream, fields, undecryptable) = match now.rules.down(topic) {
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
                let opening = opening.or_insert_with(|| now.sealing.opening(stream));
                let is_known =
                    publish.is_retained() || self.numbers.comes_again(publish, topic.as_str());
                let arrival = if is_known {
                    Arrival::Kept
                } else {
                    Arrival::Live
                };
                let message = (publish.payload, arrival);
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

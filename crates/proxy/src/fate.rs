//! What becomes of a message that a broker sends, and what of it goes to the client.

use std::sync::Arc;

use sealcast::{DataTopic, Name};

use crate::ahead::Ahead;
use crate::counts::because;
use crate::down::Down;
use crate::late::{Scan, Waits};
use crate::packet::Publish;
use crate::rules::{Down as Act, Undecryptable};
use crate::ruling::InForce;
use crate::sealing::{Closed, NotOpened, Opened, Unopened, open_all};
use crate::wire::Packet;

/// Each record of an envelope is a message with the topic and properties of all: together they have no more bytes than
/// so many of the largest packets.
const RECORDS_PACKETS: usize = 4;

/// What becomes of a message.
pub(crate) enum Fate {
    /// It goes on as it is, as a rule says.
    AsItIs,
    /// It goes on as it is, as it could not be opened.
    Unopened(&'static str),
    /// What was in it goes on.
    Opened(Vec<Vec<u8>>),
    /// It waits already.
    IsThere,
    /// It waits until it can be opened. Else than where it was judged it may be anybody's.
    Waits(&'static str, bool),
    /// What was in it waits behind others that go first.
    Behind(Ahead),
    /// It keeps its place behind what is looked at, and stays with the broker until then; with what it was opened to, if it was.
    Aside(Option<Ahead>),
    /// It does not go on.
    Dropped(&'static str),
    /// It may go on if it comes again.
    NotNow(&'static str),
}

impl Down {
    /// Lets a message wait that is to; where that cannot be, what becomes of it instead.
    pub(crate) fn let_wait(
        &mut self,
        publish: &Publish<'_>,
        topic: &str,
        fate: Fate,
    ) -> Option<Fate> {
        let (code, is_judged, is_noted) = match &fate {
            Fate::IsThere => (because::PARK_ORDER, false, false),
            Fate::Waits(code, is_judged) => (*code, *is_judged, false),
            Fate::Behind(_) => (because::PARK_ORDER, true, true),
            Fate::AsItIs
            | Fate::Unopened(_)
            | Fate::Opened(_)
            | Fate::Aside(_)
            | Fate::Dropped(_)
            | Fate::NotNow(_) => return Some(fate),
        };
        let waits = self.wait(publish, topic, (code, is_judged, is_noted));
        match (waits, fate) {
            (Waits::Yes, _) => None,
            // Room comes as what goes first is delivered, but not before the broker has answered, which comes behind.
            (Waits::Full, fate @ Fate::Behind(_)) if self.looks.scan != Scan::Later => Some(fate),
            // It would be lost; in MQTT what has another QoS may be overtaken.
            (Waits::Full, Fate::Behind(Ahead { opened, .. })) if publish.qos() == 0 => {
                opened.ok().map(Fate::Opened)
            }
            (Waits::Full, Fate::Behind(ahead)) if self.may_put_aside(publish) => {
                Some(Fate::Aside(Some(ahead)))
            }
            (Waits::Full, Fate::Behind(_)) => {
                self.is_back_then = true;
                Some(Fate::NotNow(because::PARK_FULL))
            }
            (Waits::Full, Fate::Waits(_, true)) => Some(Fate::Dropped(because::PARK_FULL)),
            (Waits::Full | Waits::NotNow, _) => Some(Fate::NotNow(code)),
        }
    }

    pub(crate) async fn fate(&mut self, publish: &Publish<'_>, topic: &str) -> Fate {
        let (now, opened) = match self.ahead.pop_front().flatten() {
            Some(Ahead { by, opened }) => (by, Some(opened)),
            None => (self.ruling.now(), None),
        };
        let (stream, fields, undecryptable) = match now.rules.down(topic) {
            Act::Pass => return Fate::AsItIs,
            Act::NoRule => return Fate::Dropped(because::NO_RULE),
            // It says that what was retained is gone, and nothing else.
            Act::Open(..) if publish.payload.is_empty() => return Fate::AsItIs,
            Act::Open(stream, fields, undecryptable) => (stream, fields, undecryptable),
        };
        if self.is_there(publish, topic) {
            return Fate::IsThere;
        }
        if self.was_had(publish, topic) {
            return Fate::Dropped(because::HAD);
        }
        let parks = undecryptable == Undecryptable::Park;
        if parks && self.keeps_its_place(publish, stream) {
            return Fate::Aside(None);
        }
        let opened = match topic.parse::<DataTopic>() {
            Err(_) => Err(NotOpened {
                code: because::TOPIC,
                why: Unopened::Foreign,
            }),
            Ok(topic) => match opened {
                Some(opened) => opened,
                None => self.open_now(&now, (stream, fields), publish, topic).await,
            },
        };
        if parks
            && opened.is_ok()
            && (self.finds_stuck(publish.id) || self.goes_behind(stream, publish).await)
        {
            let by = Arc::clone(&now);
            return Fate::Behind(Ahead { by, opened });
        }
        match (opened, undecryptable) {
            (Ok(records), _) => Fate::Opened(records),
            (Err(fault), Undecryptable::Park) if fault.why == Unopened::Sealed => {
                Fate::Waits(fault.code, true)
            }
            (Err(fault), _) if fault.why == Unopened::NotNow => {
                match parks && !self.is_clients(publish) {
                    true => Fate::Waits(fault.code, false),
                    false => Fate::NotNow(fault.code),
                }
            }
            // Its receiver could not tell plaintext of a stranger from what was opened.
            (Err(fault), Undecryptable::Forward) if fault.why == Unopened::Sealed => {
                Fate::Unopened(fault.code)
            }
            (Err(fault), Undecryptable::Park | Undecryptable::Drop | Undecryptable::Forward) => {
                Fate::Dropped(fault.code)
            }
        }
    }

    /// Whether a message waits already, or was delivered late and comes again.
    pub(crate) fn is_there(&self, publish: &Publish<'_>, topic: &str) -> bool {
        !self.lot.is_empty() && self.lot.holds(&self.mark(publish, topic))
    }

    pub(crate) async fn open(
        &mut self,
        now: &InForce,
        stream: &Name,
        message: Closed<'_>,
    ) -> Opened {
        let opening = self.opening.entry(stream.clone());
        let opening = opening.or_insert_with(|| now.sealing.opening(stream));
        let opened = open_all(&mut **opening, &[message]).await;
        opened
            .into_iter()
            .next()
            .unwrap_or(Err(NotOpened::INTERNAL))
    }

    /// Puts what the client is to have; `false` where it does not take packets that large.
    pub(crate) fn put(
        &self,
        fate: &Fate,
        packet: &Packet,
        publish: &Publish<'_>,
        said: &str,
        out: &mut Vec<u8>,
    ) -> bool {
        let (version, from) = (self.flow.version, out.len());
        match fate {
            Fate::IsThere | Fate::Waits(..) | Fate::Behind(_) | Fate::Aside(_) => {}
            Fate::Dropped(_) | Fate::NotNow(_) => {}
            Fate::AsItIs | Fate::Unopened(_) if said == publish.topic => {
                out.extend_from_slice(&packet.bytes);
            }
            Fate::AsItIs | Fate::Unopened(_) => {
                publish.put(version, said, (publish.payload, false), out);
            }
            Fate::Opened(records) => {
                return self.put_records(publish, said, records, None, out);
            }
        }
        out.len() - from <= self.client_packet_max
    }

    /// Puts what was in an envelope, and has waited for so many seconds if it has; `false` where the client does not
    /// take that much.
    pub(crate) fn put_records(
        &self,
        publish: &Publish<'_>,
        said: &str,
        records: &[Vec<u8>],
        waited: Option<u64>,
        out: &mut Vec<u8>,
    ) -> bool {
        let (version, mut from) = (self.flow.version, out.len());
        let all_max = out.len() + RECORDS_PACKETS * self.packet_max as usize;
        for (index, record) in records.iter().enumerate() {
            if out.len() - from > self.client_packet_max || out.len() > all_max {
                return false;
            }
            from = out.len();
            // They have one number: the last is acknowledged for all.
            let is_last = index + 1 == records.len();
            let one = match is_last {
                true => *publish,
                false => publish.unacknowledged(),
            };
            match waited {
                None => one.put(version, said, (record, false), out),
                Some(waited) => one.put_late(version, said, record, waited, out),
            }
        }
        out.len() - from <= self.client_packet_max
    }
}

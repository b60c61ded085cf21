//! From the broker to a client.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use sealcast::{Arrival, DataTopic, Name, Shelf};
use tokio::time::{Instant, sleep_until};

use crate::counts::{Exception, Ledger, because};
use crate::flow::{Flow, HeldBack};
use crate::json::Field;
use crate::lane::{End, Take};
use crate::late::Scan;
use crate::numbers::Numbers;
use crate::packet::{
    AUTH, CONNACK, DISCONNECT, PINGRESP, PUBLISH, PUBREL, Publish, Side, Version, Welcome,
    disconnect, id_at_start, id_of, leads_elsewhere, reason, turned_away,
};
use crate::park::Lot;
use crate::rules::{Down as Act, Undecryptable};
use crate::ruling::{InForce, Ruling};
use crate::sealing::{NotOpened, Opening, Unopened, Waiting, open};
use crate::told::{Asker, Told};
use crate::up::GROWTH_MAX;
use crate::wire::{Incoming, Packet};

/// Each record of an envelope is a message with the topic and properties of all: together they have no more bytes than
/// so many of the largest packets.
const RECORDS_PACKETS: usize = 4;

/// How often what waits is looked at though nothing is known to have changed: so keys are asked for again.
const LOOK: Duration = Duration::from_secs(30);

/// What is done with what a broker sends to a client.
pub(crate) struct Down {
    pub(crate) ruling: Arc<Ruling>,
    pub(crate) flow: Flow,
    pub(crate) told: Arc<Told>,
    pub(crate) numbers: Arc<Numbers>,
    pub(crate) ledger: Ledger,
    /// The most bytes of a packet that the client takes.
    client_packet_max: usize,
    /// The most bytes of a packet that are taken of the client.
    packet_max: u32,
    is_welcome: bool,
    opening: BTreeMap<Name, Box<dyn Opening>>,
    /// Streams of which something could not be looked at that the broker has still.
    withheld: BTreeSet<Name>,
    /// Whether the client's session ends with the connection.
    pub(crate) is_brief: bool,
    /// What waits.
    pub(crate) lot: Lot,
    pub(crate) scan: Scan,
    /// What was on its way to the client over another connection.
    pub(crate) unfinished: Vec<u64>,
    /// What waits as soon as it is durable, to be acknowledged then.
    pub(crate) unkept: Vec<HeldBack>,
    /// What came and has to wait until the client has acknowledged something.
    stalled: VecDeque<Incoming>,
    /// When what waits is looked at though nothing is known to have changed.
    look_at: Instant,
    /// Whether something has changed, or may have.
    fresh: bool,
    /// Whether what is withheld may come again.
    is_back: bool,
}

/// What becomes of a message.
enum Fate {
    /// It goes on as it is, as a rule says.
    AsItIs,
    /// It goes on as it is, as it could not be opened.
    Unopened(&'static str),
    /// What was in it goes on.
    Opened(Vec<Vec<u8>>),
    /// It waits until it can be opened.
    Waits(&'static str),
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
        self.stalled.extend(burst);
        self.take_stalled(out, back).await
    }

    fn patience(&self) -> Option<Duration> {
        None
    }

    /// What a client hears first is whether it is let in.
    fn may_answer(&self) -> bool {
        self.is_welcome
    }

    fn is_stalled(&self) -> bool {
        !self.stalled.is_empty()
    }

    async fn due(&mut self) {
        let may_go_on = self.stalled.front().is_some_and(|of| !self.has_to_wait(of));
        if may_go_on || self.may_deliver() || self.numbers.has_acks() {
            return;
        }
        let (withheld, lot, numbers) = (&self.withheld, &self.lot, &self.numbers);
        let opening = self.opening.iter_mut();
        let opening = opening.filter(|(stream, _)| withheld.contains(*stream) || lot.has(stream));
        let (streams, mut news): (Vec<_>, Vec<_>) = opening
            .map(|(stream, of)| (stream.clone(), of.changed()))
            .unzip();
        let changed = poll_fn(|context| {
            let is_ready = |of: &mut Waiting<'_, ()>| of.as_mut().poll(context).is_ready();
            match news.iter_mut().position(is_ready) {
                Some(index) => Poll::Ready(streams.get(index).cloned()),
                None => Poll::Pending,
            }
        });
        let look_again = async {
            match lot.is_empty() {
                true => std::future::pending().await,
                false => sleep_until(self.look_at).await,
            }
        };
        let heard = tokio::select! {
            stream = changed => stream,
            () = numbers.news() => return,
            () = look_again => None,
        };
        self.fresh = true;
        self.is_back |= heard.is_some_and(|stream| self.withheld.contains(&stream));
    }

    async fn act(&mut self, out: &mut Vec<u8>, back: &mut Vec<u8>) -> Result<(), End> {
        if self.is_back {
            // What could not be looked at may be now: the broker is to send it again.
            return Err(End::Refused(reason::BUSY));
        }
        self.hear(out);
        if std::mem::take(&mut self.fresh) {
            self.look_at = Instant::now() + LOOK;
            if self.scan != Scan::Later {
                self.scan = Scan::From(0);
            }
        }
        self.deliver(out).await?;
        self.keep(back).await?;
        self.take_stalled(out, back).await
    }
}

impl Down {
    pub(crate) fn new(
        ruling: Arc<Ruling>,
        flow: Flow,
        (told, numbers): (Arc<Told>, Arc<Numbers>),
        ledger: Ledger,
        (client_packet_max, packet_max): (usize, u32),
        is_brief: bool,
        lot: Lot,
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
            is_brief,
            lot,
            scan: Scan::Idle,
            unfinished: Vec::new(),
            unkept: Vec::new(),
            stalled: VecDeque::new(),
            look_at: Instant::now() + LOOK,
            fresh: false,
            is_back: false,
        }
    }

    /// Whether the client was let in.
    pub(crate) fn is_welcome(&self) -> bool {
        self.is_welcome
    }

    /// Whether something has to wait until the client has acknowledged something.
    fn has_to_wait(&self, incoming: &Incoming) -> bool {
        let Incoming::Packet(packet) = incoming else {
            return false;
        };
        let id = match packet.head.kind() {
            PUBLISH => id_at_start(packet.head.first, packet.body()),
            _ => Ok(None),
        };
        // What is odd is found to be when it is its turn.
        id.is_ok_and(|id| self.numbers.has_to_wait(id))
    }

    /// Deals with what has come, as far as the client takes it.
    async fn take_stalled(&mut self, out: &mut Vec<u8>, back: &mut Vec<u8>) -> Result<(), End> {
        while let Some(incoming) = self.stalled.pop_front() {
            if self.has_to_wait(&incoming) {
                self.stalled.push_front(incoming);
                break;
            }
            self.take_one(incoming, out, back).await?;
        }
        self.keep(back).await
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
            CONNACK if !self.is_welcome => self.welcome(&packet, out, back).await?,
            CONNACK => return Err(End::Refused(reason::PROTOCOL_ERROR)),
            kind if kind != AUTH && !self.is_welcome => {
                return Err(End::Refused(reason::PROTOCOL_ERROR));
            }
            PUBLISH => return self.publish(&packet, out, back).await,
            DISCONNECT if packet.body().first().copied().is_some_and(leads_elsewhere) => {
                out.extend_from_slice(&disconnect(reason::SHUTTING_DOWN));
            }
            PINGRESP => match self.told.answered() {
                Asker::Client => out.extend_from_slice(&packet.bytes),
                Asker::Proxy => {}
                Asker::Look => self.scan = Scan::From(0),
            },
            PUBREL => {
                let id = id_of(packet.body())?;
                self.lot.taken_back(id);
                if !self.flow.answers(PUBREL, packet.body(), back)? {
                    self.numbers.releases(id);
                    out.extend_from_slice(&packet.bytes);
                }
            }
            _ => out.extend_from_slice(&packet.bytes),
        }
        Ok(())
    }

    async fn welcome(
        &mut self,
        packet: &Packet,
        out: &mut Vec<u8>,
        back: &mut Vec<u8>,
    ) -> Result<(), End> {
        let version = self.flow.version;
        let welcome = Welcome::parse(version, packet.body())?;
        if welcome.code() == 0 {
            self.take_up(&welcome, back).await?;
        }
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
            Fate::Waits(code) => {
                self.wait(&publish, &topic, code);
                return Ok(());
            }
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
        let parks = undecryptable == Undecryptable::Park;
        let opened = match topic.parse::<DataTopic>() {
            Err(_) => Err(NotOpened {
                code: because::TOPIC,
                why: Unopened::Foreign,
            }),
            // What waits and may open goes first.
            Ok(_) if parks && self.scan != Scan::Idle && self.lot.has(stream) => {
                return Fate::Waits(because::PARK_ORDER);
            }
            Ok(_) if self.is_there(publish, topic) => {
                return Fate::Waits(because::PARK_ORDER);
            }
            Ok(topic) => {
                let is_known =
                    publish.is_retained() || self.numbers.comes_again(publish, topic.as_str());
                let arrival = match is_known {
                    true => Arrival::Kept,
                    false => Arrival::Live,
                };
                let message = (publish.payload, arrival);
                self.open(&now, (stream, fields), &topic, message).await
            }
        };
        match (opened, undecryptable) {
            (Ok(records), _) => Fate::Opened(records),
            (Err(fault), Undecryptable::Park) if fault.why != Unopened::Foreign => {
                Fate::Waits(fault.code)
            }
            (Err(fault), _) if fault.why == Unopened::NotNow => Fate::NotNow(fault.code),
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
    fn is_there(&self, publish: &Publish<'_>, topic: &str) -> bool {
        let mark = || Shelf::mark(&[topic.as_bytes(), publish.payload]);
        !self.lot.is_empty() && self.lot.holds(&mark())
    }

    pub(crate) async fn open(
        &mut self,
        now: &InForce,
        (stream, fields): (&Name, &[Field]),
        topic: &DataTopic,
        message: (&[u8], Arrival),
    ) -> Result<Vec<Vec<u8>>, NotOpened> {
        let opening = self.opening.entry(stream.clone());
        let opening = opening.or_insert_with(|| now.sealing.opening(stream));
        open(&mut **opening, fields, topic, message).await
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
        let (version, from) = (self.flow.version, out.len());
        match fate {
            Fate::Waits(_) | Fate::Dropped(_) | Fate::NotNow(_) => {}
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

//! From the broker to a client.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use sealcast::{DataTopic, Name};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::ahead::Ahead;
use crate::aside::Aside;
use crate::config::Limits;
use crate::counts::{Exception, Ledger, because};
use crate::flow::{Flow, HeldBack};
use crate::lane::{End, Take};
use crate::late::{Looks, Scan, Waits};
use crate::numbers::Numbers;
use crate::packet::{
    AUTH, CONNACK, DISCONNECT, PINGRESP, PUBCOMP, PUBLISH, PUBREL, Publish, Side, Version, Welcome,
    disconnect, id_at_start, id_of, leads_elsewhere, put_ack, reason, turned_away,
};
use crate::park::Lot;
use crate::rules::{Down as Act, Undecryptable};
use crate::ruling::{InForce, Ruling};
use crate::sealing::{Closed, NotOpened, Opened, Opening, Unopened, Waiting, open_all};
use crate::subscriptions::Copies;
use crate::told::{Asker, Told};
use crate::up::GROWTH_MAX;
use crate::wire::{Incoming, Packet};

/// Each record of an envelope is a message with the topic and properties of all: together they have no more bytes than
/// so many of the largest packets.
const RECORDS_PACKETS: usize = 4;

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
    /// The same, where that is less than MQTT has.
    packet_limit: Option<u32>,
    /// How long the broker has to let the client in.
    answer_within: Duration,
    pub(crate) is_welcome: bool,
    /// Whether the broker did not let it in.
    is_refused: bool,
    pub(crate) copies: Copies,
    /// When the connection began.
    pub(crate) began: Instant,
    pub(crate) opening: BTreeMap<Name, Box<dyn Opening>>,
    /// Streams of which something could not be looked at that the broker has still.
    withheld: BTreeSet<Name>,
    /// What waits.
    pub(crate) lot: Lot,
    pub(crate) looks: Looks,
    /// What waits as soon as it is durable, to be acknowledged then.
    pub(crate) unkept: Vec<HeldBack>,
    /// What came and has to wait until the client has acknowledged something.
    pub(crate) stalled: VecDeque<Incoming>,
    /// What the first messages of that were opened to.
    pub(crate) ahead: VecDeque<Option<Ahead>>,
    pub(crate) aside: Aside,
    /// Whether the first of that has to wait until there is room for it behind others.
    pub(crate) is_held: bool,
    /// Whether what is withheld may come again, at once or when what waits was looked through.
    is_back: bool,
    is_back_then: bool,
}

/// Whether a packet was dealt with.
enum Taken {
    Yes,
    /// It has to wait for room, with what it was opened to.
    Held,
}

/// What becomes of a message.
enum Fate {
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

    fn sender_gone(&self) -> watch::Sender<bool> {
        self.told.broker_gone()
    }

    /// A broker has to say whether the client is let in, and then nothing.
    fn patience(&self) -> Option<Duration> {
        (!self.is_welcome).then_some(self.answer_within)
    }

    /// What a client hears first is whether it is let in.
    fn may_answer(&self) -> bool {
        self.is_welcome
    }

    fn is_stalled(&self) -> bool {
        !self.stalled.is_empty()
    }

    async fn due(&mut self) {
        let front = self.stalled.front().filter(|_| !self.is_held);
        let may_go_on = front.is_some_and(|of| !self.has_to_wait(of));
        if may_go_on || self.may_deliver() || self.numbers.has_acks() {
            return;
        }
        let (withheld, lot, numbers) = (&self.withheld, &self.lot, &self.numbers);
        let opening = self.opening.iter_mut();
        // What is learned while it is known that something was, is known.
        let is_fresh = self.looks.is_fresh;
        let opening = opening
            .filter(|(stream, _)| withheld.contains(*stream) || (!is_fresh && lot.has(stream)));
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
        let look_at = self.looks.next(self.began);
        let may_look = self.looks.scan == Scan::Idle && !lot.is_empty();
        let look_again = async {
            match may_look {
                true => sleep_until(look_at).await,
                false => std::future::pending().await,
            }
        };
        let heard = tokio::select! {
            stream = changed => stream,
            () = numbers.news() => return,
            () = look_again => return,
        };
        self.looks.is_fresh = true;
        self.is_back |= heard.is_some_and(|stream| self.withheld.contains(&stream));
    }

    async fn act(&mut self, out: &mut Vec<u8>, back: &mut Vec<u8>) -> Result<(), End> {
        if self.is_back {
            // What could not be looked at may be now: the broker is to send it again.
            return Err(End::Refused(reason::BUSY));
        }
        self.go_on(out, back).await?;
        if self.is_back_then && self.looks.scan == Scan::Idle {
            return Err(End::Refused(reason::BUSY));
        }
        self.is_held = false;
        self.take_stalled(out, back).await
    }
}

impl Down {
    pub(crate) fn new(
        ruling: Arc<Ruling>,
        flow: Flow,
        (told, numbers): (Arc<Told>, Arc<Numbers>),
        ledger: Ledger,
        (client_packet_max, limits): (usize, &Limits),
        lot: Lot,
    ) -> Self {
        Self {
            ruling,
            flow,
            told,
            numbers,
            ledger,
            client_packet_max,
            packet_max: limits.packet_max,
            packet_limit: limits.packet_limit(),
            answer_within: limits.connect_timeout,
            is_welcome: false,
            is_refused: false,
            copies: Copies::default(),
            began: Instant::now(),
            opening: BTreeMap::new(),
            withheld: BTreeSet::new(),
            lot,
            looks: Looks::new(),
            unkept: Vec::new(),
            stalled: VecDeque::new(),
            ahead: VecDeque::new(),
            aside: Aside::default(),
            is_held: false,
            is_back: false,
            is_back_then: false,
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
        // What is odd is found to be when it is its turn.
        match packet.head.kind() {
            PUBLISH => id_at_start(packet.head.first, packet.body()).is_ok_and(|id| {
                self.numbers.has_to_wait(id) && !(self.is_stuck(id) && self.may_park(packet))
            }),
            PUBREL => id_of(packet.body()).is_ok_and(|id| {
                self.numbers.is_own(id) && !self.lot.has_number(id) && !self.flow.holds(id)
            }),
            _ => false,
        }
    }

    /// Deals with what has come, as far as the client takes it.
    async fn take_stalled(&mut self, out: &mut Vec<u8>, back: &mut Vec<u8>) -> Result<(), End> {
        loop {
            self.open_ahead().await;
            let Some(incoming) = self.stalled.pop_front() else {
                break;
            };
            if self.has_to_wait(&incoming) {
                self.stalled.push_front(incoming);
                break;
            }
            if let Taken::Held = self.take_one(&incoming, out, back).await? {
                self.stalled.push_front(incoming);
                self.is_held = true;
                break;
            }
        }
        self.keep(back).await
    }

    async fn take_one(
        &mut self,
        incoming: &Incoming,
        out: &mut Vec<u8>,
        back: &mut Vec<u8>,
    ) -> Result<Taken, End> {
        let packet = match incoming {
            Incoming::Packet(packet) => packet,
            Incoming::Oversized(of) => {
                self.ledger.note(Exception::Dropped, "", because::TOO_LARGE);
                self.flow.hold_back(*of, 0, back);
                return Ok(Taken::Yes);
            }
        };
        packet.head.check(self.flow.version, Side::Broker)?;
        if packet.head.kind() != PUBLISH && packet.bytes.len() > self.client_packet_max {
            // The broker was told of more than the client takes, for messages that shrink.
            return Err(End::Refused(reason::PACKET_TOO_LARGE));
        }
        match packet.head.kind() {
            CONNACK if !self.is_welcome => self.welcome(packet, out, back).await?,
            CONNACK => return Err(End::Refused(reason::PROTOCOL_ERROR)),
            kind if kind != AUTH && !self.is_welcome => {
                return Err(End::Refused(reason::PROTOCOL_ERROR));
            }
            PUBLISH if self.is_refused => return Err(End::Refused(reason::PROTOCOL_ERROR)),
            PUBLISH => {
                let taken = self.publish(packet, out, back).await?;
                if let (Taken::Yes, Ok(Some(id))) =
                    (&taken, id_at_start(packet.head.first, packet.body()))
                {
                    self.aside.went(id);
                }
                return Ok(taken);
            }
            DISCONNECT if packet.body().first().copied().is_some_and(leads_elsewhere) => {
                out.extend_from_slice(&disconnect(reason::SHUTTING_DOWN));
            }
            PINGRESP => match self.told.answered() {
                Asker::Client => out.extend_from_slice(&packet.bytes),
                Asker::Proxy => {}
                Asker::Look => self.looks.begin(),
            },
            PUBREL => {
                let id = id_of(packet.body())?;
                let is_ours = self.lot.taken_back(id);
                let is_answered = self.flow.answers(PUBREL, packet.body(), back)?;
                match is_ours {
                    _ if is_answered => {}
                    // Over another connection it was held back.
                    true => put_ack(self.flow.version, PUBCOMP, id, 0, back),
                    false => {
                        self.numbers.releases(id);
                        out.extend_from_slice(&packet.bytes);
                    }
                }
            }
            kind => {
                self.told
                    .tell_refused(self.flow.refused(kind, packet.body())?);
                out.extend_from_slice(&packet.bytes);
            }
        }
        Ok(Taken::Yes)
    }

    async fn welcome(
        &mut self,
        packet: &Packet,
        out: &mut Vec<u8>,
        back: &mut Vec<u8>,
    ) -> Result<(), End> {
        let version = self.flow.version;
        let welcome = Welcome::parse(version, packet.body())?;
        self.is_refused = welcome.code() != 0;
        self.told.tell_answer((&welcome).into());
        if !self.is_refused {
            self.take_up(&welcome, back).await?;
        }
        self.is_welcome = true;
        if version == Version::Five && leads_elsewhere(welcome.code()) {
            out.extend_from_slice(&turned_away(version, reason::UNAVAILABLE));
            return Ok(());
        }
        self.told.tell(welcome.packet_max, welcome.keep_alive);
        let limits = welcome.packet_max.into_iter().chain(self.packet_limit);
        let growth = match self.ruling.now().rules.seal() {
            true => GROWTH_MAX,
            false => 0,
        };
        let growth = u32::try_from(growth).unwrap_or(u32::MAX);
        let told = limits.min().map(|of| of.saturating_sub(growth).max(1));
        match welcome.encode(version, told) {
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
    ) -> Result<Taken, End> {
        let publish = Publish::parse(self.flow.version, packet.head.first, packet.body())?;
        let topic = self.flow.topic(&publish)?;
        let said = self.flow.said(&publish, &topic);
        let fate = self.fate(&publish, &topic).await;
        if publish.id.is_some() && !self.told.lasts().is_brief() && self.told.is_broker_gone() {
            // It sends that again over another connection, and nobody could tell it any more that it arrived.
            return Ok(Taken::Yes);
        }
        let Some(mut fate) = self.let_wait(&publish, &topic, fate) else {
            return Ok(Taken::Yes);
        };
        if let Fate::Aside(opened) = fate {
            self.put_aside(packet, &publish, opened);
            return Ok(Taken::Yes);
        }
        let before = out.len();
        if !self.put(&fate, packet, &publish, said, out) {
            out.truncate(before);
            fate = Fate::Dropped(because::TOO_LARGE);
        }
        match fate {
            Fate::AsItIs => self.ledger.counts.count_passed(),
            Fate::Opened(_) => {
                self.ledger.counts.count_opened();
                self.note_copy(&publish, &topic);
            }
            Fate::Unopened(code) => self.ledger.note(Exception::Forwarded, &topic, code),
            Fate::Dropped(code) => self.ledger.note(Exception::Dropped, &topic, code),
            Fate::NotNow(code) => {
                self.ledger.note(Exception::Dropped, &topic, code);
                // The broker has it still, and sends it again over the client's next connection. Who does not wait for
                // an answer has lost it.
                if publish.id.is_some() {
                    self.withhold(&topic);
                    return Ok(Taken::Yes);
                }
            }
            Fate::Behind(ahead) => {
                self.ahead.push_front(Some(ahead));
                return Ok(Taken::Held);
            }
            Fate::IsThere | Fate::Waits(..) | Fate::Aside(_) => {}
        }
        match out.len() > before {
            true => {
                self.flow.goes_on(&publish, &topic);
                self.numbers.goes_on(&publish, &topic);
            }
            false => self.flow.hold_back((&publish).into(), 0, back),
        }
        Ok(Taken::Yes)
    }

    /// Lets a message wait that is to; where that cannot be, what becomes of it instead.
    fn let_wait(&mut self, publish: &Publish<'_>, topic: &str, fate: Fate) -> Option<Fate> {
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

    fn withhold(&mut self, topic: &str) {
        if let Act::Open(stream, ..) = self.ruling.now().rules.down(topic) {
            self.withheld.insert(stream.clone());
        }
    }

    async fn fate(&mut self, publish: &Publish<'_>, topic: &str) -> Fate {
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

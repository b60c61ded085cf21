//! From the broker to a client.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use sealcast::Name;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::ahead::Ahead;
use crate::aside::Aside;
use crate::config::Limits;
use crate::counts::{Exception, Ledger, because};
use crate::fate::Fate;
use crate::flow::{Flow, HeldBack};
use crate::lane::{End, Take};
use crate::late::{Looks, Scan};
use crate::numbers::Numbers;
use crate::packet::{
    AUTH, CONNACK, DISCONNECT, PINGRESP, PUBACK, PUBCOMP, PUBLISH, PUBREL, Publish, Side, Version,
    Welcome, disconnect, id_at_start, id_of, leads_elsewhere, put_ack, reason, turned_away,
};
use crate::park::Lot;
use crate::recall::Recall;
use crate::rules::Down as Act;
use crate::ruling::Ruling;
use crate::sealing::{Opening, Waiting};
use crate::subscriptions::Copies;
use crate::told::{Asker, Told};
use crate::up::GROWTH_MAX;
use crate::wire::{Incoming, Packet};

/// What is done with what a broker sends to a client.
pub(crate) struct Down {
    pub(crate) ruling: Arc<Ruling>,
    pub(crate) flow: Flow,
    pub(crate) told: Arc<Told>,
    pub(crate) numbers: Arc<Numbers>,
    pub(crate) recall: Arc<Recall>,
    pub(crate) ledger: Ledger,
    /// The most bytes of a packet that the client takes.
    pub(crate) client_packet_max: usize,
    /// The most bytes of a packet that are taken of the client.
    pub(crate) packet_max: u32,
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
    pub(crate) is_back_then: bool,
}

/// Whether a packet was dealt with.
enum Taken {
    Yes,
    /// It has to wait for room, with what it was opened to.
    Held,
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
        (told, numbers, recall): (Arc<Told>, Arc<Numbers>, Arc<Recall>),
        ledger: Ledger,
        (client_packet_max, limits): (usize, &Limits),
        lot: Lot,
    ) -> Self {
        Self {
            ruling,
            flow,
            told,
            numbers,
            recall,
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
                if let (PUBACK, Some(session)) = (kind, self.told.session()) {
                    // Once the client knows, it may give the number to another message.
                    session.released(id_of(packet.body())?);
                }
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
        if !self.is_refused {
            self.recall(&welcome);
        }
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
        let is_passed = matches!(fate, Fate::AsItIs);
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
                match is_passed {
                    true => self.numbers.passes(&publish),
                    false => self.numbers.goes_on(&publish, &topic),
                }
            }
            false => self.flow.hold_back((&publish).into(), 0, back),
        }
        Ok(Taken::Yes)
    }

    fn withhold(&mut self, topic: &str) {
        if let Act::Open(stream, ..) = self.ruling.now().rules.down(topic) {
            self.withheld.insert(stream.clone());
        }
    }
}

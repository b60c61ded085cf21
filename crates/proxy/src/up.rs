//! From a client to the broker.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sealcast::{DataTopic, Name};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::aliases::NoTopic;
use crate::counts::{Exception, Ledger, because};
use crate::fields::Malformed;
use crate::flow::Flow;
use crate::json::Field;
use crate::lane::{End, Take};
use crate::numbers::Numbers;
use crate::packet::{
    CONNECT, DISCONNECT, PING, PINGREQ, PUBLISH, PUBREL, Publish, Side, id_of, lasts_after, reason,
};
use crate::park::NotKept;
use crate::rules::{Rules, Up as Act};
use crate::ruling::{InForce, Ruling};
use crate::sealing::{Draft, NotSealed, Sealed, seal_all};
use crate::sent::Sent;
use crate::told::{Asker, Told};
use crate::wire::{Incoming, Packet};

/// The most bytes by which sealing makes a packet longer.
pub(crate) const GROWTH_MAX: usize = 512;
/// What a client is granted beyond the time in which it has to be heard of.
const GRACE: Duration = Duration::from_secs(5);
/// How often is looked whether what could not be sealed can be.
const LOOK: Duration = Duration::from_secs(1);

/// What is done with what a client sends.
#[derive(Debug)]
pub(crate) struct Up {
    ruling: Arc<Ruling>,
    flow: Flow,
    told: Arc<Told>,
    numbers: Arc<Numbers>,
    ledger: Ledger,
    sent_before: Sent,
    /// Where it is told that the client has left.
    has_left: watch::Sender<bool>,
    /// Streams for which something could not be sealed that the client has still.
    withheld: BTreeSet<Name>,
    look_at: Instant,
    /// When the broker was sent something.
    sent: Instant,
}

/// A packet, and what it becomes.
enum Step<'a> {
    Message(&'a Packet, Publish<'a>, Arc<str>, Fate),
    Other(&'a Packet),
}

/// What becomes of a message.
enum Fate {
    /// It goes on in clear, by a rule that says so or because there is nothing in it.
    Clear,
    /// What was sealed of it goes on, not known yet; by what it is known again.
    ToSeal([u8; 16]),
    /// That is new where there is something by which it is known again.
    Sealed(Sealed, Option<[u8; 16]>),
    Kept(Kept),
}

/// Why a message of a client is not passed on.
enum Kept {
    /// It would not be passed on if it came again.
    ForGood(&'static str, u8),
    /// It may be if it comes again.
    ForNow(&'static str),
}

impl From<NotSealed> for Kept {
    fn from(fault: NotSealed) -> Self {
        match fault.is_lasting {
            true => Self::ForGood(fault.code, reason::NOT_AUTHORIZED),
            false => Self::ForNow(fault.code),
        }
    }
}

impl From<Malformed> for End {
    fn from(Malformed: Malformed) -> Self {
        Self::Refused(reason::MALFORMED)
    }
}

impl From<NoTopic> for End {
    fn from(fault: NoTopic) -> Self {
        Self::Refused(match fault {
            NoTopic::Malformed => reason::PROTOCOL_ERROR,
            NoTopic::Full => reason::QUOTA,
        })
    }
}

impl Take for Up {
    async fn take(
        &mut self,
        burst: Vec<Incoming>,
        out: &mut Vec<u8>,
        back: &mut Vec<u8>,
    ) -> Result<(), End> {
        let now = self.ruling.now();
        self.find_again(&burst).await?;
        let (mut steps, mut drafts) = (Vec::with_capacity(burst.len()), Vec::new());
        let mut fault = Ok(());
        for incoming in &burst {
            match self.step(&now, incoming, &mut drafts) {
                Ok(step) => steps.push(step),
                Err(end) => {
                    fault = Err(end);
                    break;
                }
            }
        }
        let before = out.len();
        let mut sealed = seal_all(&*now.sealing, &drafts).await.into_iter();
        for step in steps {
            match step {
                Step::Message(packet, publish, topic, fate) => {
                    let fate = match fate {
                        Fate::ToSeal(mark) => match sealed.next() {
                            Some(Ok(sealed)) => Fate::Sealed(sealed, Some(mark)),
                            Some(Err(fault)) => Fate::Kept(fault.into()),
                            None => Fate::Kept(Kept::ForNow(because::INTERNAL)),
                        },
                        known @ (Fate::Clear | Fate::Sealed(..) | Fate::Kept(_)) => known,
                    };
                    self.finish(packet, &publish, &topic, fate, (out, back));
                }
                Step::Other(packet) => {
                    if let Err(end) = self.other(packet, (out, back)) {
                        fault = Err(end);
                        break;
                    }
                }
            }
        }
        if let Err(end) = self.keep().await {
            // The client has all of that still.
            out.truncate(before);
            return Err(end);
        }
        self.show_life(out);
        fault
    }

    fn patience(&self) -> Option<Duration> {
        Some(self.told.keep_alive()? * 3 / 2 + GRACE)
    }

    /// What a client sent before it left goes on.
    fn sender_gone(&self) -> watch::Sender<bool> {
        self.has_left.clone()
    }

    fn may_answer(&self) -> bool {
        true
    }

    fn is_stalled(&self) -> bool {
        false
    }

    async fn due(&mut self) {
        let look_again = async {
            match self.withheld.is_empty() {
                true => std::future::pending().await,
                false => sleep_until(self.look_at).await,
            }
        };
        tokio::select! {
            () = self.told.refuses() => {}
            () = look_again => {}
        }
    }

    /// Once what could not be sealed can be, the client is to send all of that again, in its order.
    async fn act(&mut self, _out: &mut Vec<u8>, _back: &mut Vec<u8>) -> Result<(), End> {
        self.release_refused();
        self.keep().await?;
        let now = self.ruling.now();
        for stream in &self.withheld {
            // Where no rule seals for it any more, they go by what is said now.
            if !now.rules.streams().contains(&stream) || now.sealing.can_seal(stream).await {
                return Err(End::Refused(reason::BUSY));
            }
        }
        self.look_at = Instant::now() + LOOK;
        Ok(())
    }
}

impl Up {
    pub(crate) fn new(
        ruling: Arc<Ruling>,
        flow: Flow,
        (told, numbers): (Arc<Told>, Arc<Numbers>),
        ledger: Ledger,
        (sent_before, has_left): (Sent, watch::Sender<bool>),
    ) -> Self {
        Self {
            ruling,
            flow,
            told,
            numbers,
            ledger,
            sent_before,
            has_left,
            withheld: BTreeSet::new(),
            look_at: Instant::now(),
            sent: Instant::now(),
        }
    }

    /// Finds what was sealed before of what comes again.
    async fn find_again(&mut self, burst: &[Incoming]) -> Result<(), End> {
        let (told, counts) = (&self.told, &self.ledger.counts);
        let found = self.sent_before.find(burst, told, counts).await;
        found.map_err(|fault| self.not_kept(fault))?;
        self.release_refused();
        Ok(())
    }

    /// What was sealed of a message before, where it is one that comes again.
    fn sent_before(&mut self, publish: &Publish<'_>, mark: &[u8; 16]) -> Option<Sealed> {
        match publish.qos() {
            2 => self.sent_before.again(publish, mark),
            _ => self.told.session()?.again(publish, mark),
        }
    }

    /// A message goes on sealed, and may come again.
    fn note(&mut self, publish: &Publish<'_>, mark: [u8; 16], sealed: Sealed) {
        match publish.qos() {
            2 => self.sent_before.note(publish, mark, sealed),
            _ => {
                if let Some(session) = self.told.session() {
                    session.sent(publish, &mark, sealed);
                }
            }
        }
    }

    /// Another message has the number of what was sealed before.
    fn replaced(&mut self, publish: &Publish<'_>) {
        self.sent_before.replaced(publish);
        if let (Some(session), Some(id)) = (self.told.session(), publish.id) {
            session.released(id);
        }
    }

    /// What the broker refused comes no more, and another message has its number next.
    fn release_refused(&mut self) {
        for id in self.told.refused() {
            self.sent_before.released(id);
        }
    }

    async fn keep(&mut self) -> Result<(), End> {
        let kept = self.sent_before.keep().await;
        kept.map_err(|fault| self.not_kept(fault))
    }

    fn not_kept(&mut self, fault: NotKept) -> End {
        self.ledger.note(Exception::Refused, "", fault.0);
        End::Refused(reason::BUSY)
    }

    /// Finds out what becomes of a packet, but for sealing.
    fn step<'a>(
        &mut self,
        now: &'a InForce,
        incoming: &'a Incoming,
        drafts: &mut Vec<Draft<'a>>,
    ) -> Result<Step<'a>, End> {
        let Incoming::Packet(packet) = incoming else {
            return Err(End::Refused(reason::PACKET_TOO_LARGE));
        };
        packet.head.check(self.flow.version, Side::Client)?;
        match packet.head.kind() {
            CONNECT => Err(End::Refused(reason::PROTOCOL_ERROR)),
            PUBLISH => {
                let publish = Publish::parse(self.flow.version, packet.head.first, packet.body())?;
                let topic = self.flow.topic(&publish)?;
                let fate = match self.judge(&now.rules, packet, &publish, &topic) {
                    Ok(None) => Fate::Clear,
                    Ok(Some(draft)) => {
                        let mark = draft.mark(&*now.sealing);
                        match self.sent_before(&publish, &mark) {
                            Some(sealed) => Fate::Sealed(sealed, None),
                            None => {
                                self.replaced(&publish);
                                drafts.push(draft);
                                Fate::ToSeal(mark)
                            }
                        }
                    }
                    Err(kept) => Fate::Kept(kept),
                };
                Ok(Step::Message(packet, publish, topic, fate))
            }
            _ => Ok(Step::Other(packet)),
        }
    }

    fn other(
        &mut self,
        packet: &Packet,
        (out, back): (&mut Vec<u8>, &mut Vec<u8>),
    ) -> Result<(), End> {
        let kind = packet.head.kind();
        if kind == PINGREQ && !self.told.asks(Asker::Client) {
            return Err(End::Refused(reason::QUOTA));
        }
        if kind == DISCONNECT
            && let Some(lasts) = lasts_after(packet.body())
        {
            self.told.tell_lasts(lasts);
        }
        let subscriptions = &self.told.subscriptions;
        // What is odd about it is for the broker to say.
        let _is_whole = subscriptions.note(self.flow.version, kind, packet.body());
        let session = self.told.session().map(|of| &**of);
        if self.numbers.acknowledged(kind, packet.body(), session)? {
            return Ok(());
        }
        if kind == PUBREL {
            self.sent_before.released(id_of(packet.body())?);
        }
        if !self.flow.answers(kind, packet.body(), back)? {
            out.extend_from_slice(&packet.bytes);
        }
        Ok(())
    }

    /// To its broker a client all of whose messages are kept is to be as alive as it is.
    fn show_life(&mut self, out: &mut Vec<u8>) {
        if out.is_empty() {
            let is_time = |of: Duration| self.sent.elapsed() >= of / 4;
            if !self.told.keep_alive().is_some_and(is_time) || !self.told.asks(Asker::Proxy) {
                return;
            }
            out.extend_from_slice(&PING);
        }
        self.sent = Instant::now();
    }

    fn finish(
        &mut self,
        packet: &Packet,
        publish: &Publish<'_>,
        topic: &Arc<str>,
        fate: Fate,
        (out, back): (&mut Vec<u8>, &mut Vec<u8>),
    ) {
        let version = self.flow.version;
        let said = self.flow.said(publish, topic);
        match fate {
            Fate::Clear => {
                self.replaced(publish);
                match said == publish.topic {
                    true => out.extend_from_slice(&packet.bytes),
                    false => publish.put(version, said, (publish.payload, false), out),
                }
                self.flow.goes_on(publish, topic);
                self.ledger.counts.count_passed();
            }
            Fate::Sealed(sealed, mark) => {
                publish.put(version, said, (&sealed.payload, sealed.is_envelope), out);
                if let Some(mark) = mark {
                    self.note(publish, mark, sealed);
                }
                self.flow.goes_on(publish, topic);
                self.ledger.counts.count_sealed();
            }
            Fate::Kept(Kept::ForGood(code, reason)) => {
                self.replaced(publish);
                self.ledger.note(Exception::Refused, topic, code);
                self.flow.hold_back(publish.into(), reason, back);
            }
            Fate::Kept(Kept::ForNow(code)) => {
                self.ledger.note(Exception::Refused, topic, code);
                if !publish.comes_again() {
                    self.replaced(publish);
                }
                // The client has it still. Who does not wait for an answer has lost it.
                if publish.id.is_some() {
                    self.withhold(topic);
                }
            }
            Fate::ToSeal(_) => {}
        }
    }

    /// Nothing more is sealed for a stream over this connection before what could not be.
    fn withhold(&mut self, topic: &str) {
        if self.withheld.is_empty() {
            self.look_at = Instant::now() + LOOK;
        }
        if let Act::Seal(stream, _) = self.ruling.now().rules.up(topic) {
            self.withheld.insert(stream.clone());
        }
    }

    /// What there is to seal of a message; `None` where it goes on in clear, by a rule that says so or because there
    /// is nothing in it. Here alone it is decided that something does.
    fn judge<'a>(
        &self,
        rules: &'a Rules,
        packet: &Packet,
        publish: &Publish<'a>,
        topic: &str,
    ) -> Result<Option<Draft<'a>>, Kept> {
        match rules.up(topic) {
            Act::Pass => Ok(None),
            Act::Seal(..) if publish.clears() => Ok(None),
            Act::Seal(stream, _) if self.withheld.contains(stream) => {
                Err(Kept::ForNow(because::WITHHELD))
            }
            Act::Seal(stream, fields) => {
                let growth = Field::growth_of(fields, publish.payload.len());
                let topic = self.fits(packet.bytes.len() + growth, topic)?;
                Ok(Some(Draft::new((stream, fields), topic, publish.payload)?))
            }
            Act::NoRule => Err(Kept::ForGood(because::NO_RULE, reason::NOT_AUTHORIZED)),
            Act::OpenOnly => Err(Kept::ForGood(because::OPEN_ONLY, reason::NOT_AUTHORIZED)),
        }
    }

    /// The topic as an envelope binds it, where the message can be sealed and then sent.
    fn fits(&self, len: usize, topic: &str) -> Result<DataTopic, Kept> {
        let is_none = |_| Kept::ForGood(because::TOPIC, reason::NOT_AUTHORIZED);
        let topic: DataTopic = topic.parse().map_err(is_none)?;
        match len + topic.as_str().len() + GROWTH_MAX > self.told.packet_max() {
            true => Err(Kept::ForGood(because::TOO_LARGE, reason::QUOTA)),
            false => Ok(topic),
        }
    }
}

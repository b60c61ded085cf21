//! From a client to the broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sealcast::DataTopic;

use crate::aliases::NoTopic;
use crate::counts::{Exception, Ledger, because};
use crate::fields::Malformed;
use crate::flow::Flow;
use crate::json::Field;
use crate::lane::{End, Take};
use crate::packet::{CONNECT, PUBLISH, Publish, Side, reason};
use crate::rules::{Rules, Up as Act};
use crate::sealing::{NotSealed, Sealing, seal};
use crate::wire::{Incoming, Packet};

/// The most bytes by which sealing makes a packet longer.
pub(crate) const GROWTH_MAX: usize = 512;
/// What a client is granted beyond the time in which it has to be heard of.
const GRACE: Duration = Duration::from_secs(5);

/// What the broker said when the client connected.
#[derive(Debug)]
pub(crate) struct Told {
    /// The most bytes of a packet that it takes.
    packet_max: AtomicU32,
    /// By when it has to hear of the client, in seconds; 0 where it need not.
    keep_alive: AtomicU32,
}

impl Told {
    pub(crate) fn new(keep_alive: u16) -> Self {
        Self {
            packet_max: AtomicU32::new(u32::MAX),
            keep_alive: AtomicU32::new(keep_alive.into()),
        }
    }

    pub(crate) fn tell(&self, packet_max: Option<u32>, keep_alive: Option<u16>) {
        if let Some(packet_max) = packet_max {
            self.packet_max.store(packet_max, Ordering::Relaxed);
        }
        if let Some(keep_alive) = keep_alive {
            self.keep_alive.store(keep_alive.into(), Ordering::Relaxed);
        }
    }

    fn packet_max(&self) -> usize {
        usize::try_from(self.packet_max.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }
}

/// What is done with what a client sends.
#[derive(Debug)]
pub(crate) struct Up {
    pub(crate) rules: Arc<Rules>,
    pub(crate) sealing: Arc<dyn Sealing>,
    pub(crate) flow: Flow,
    pub(crate) told: Arc<Told>,
    pub(crate) ledger: Ledger,
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
        incoming: Incoming,
        out: &mut Vec<u8>,
        back: &mut Vec<u8>,
    ) -> Result<(), End> {
        let Incoming::Packet(packet) = incoming else {
            return Err(End::Refused(reason::PACKET_TOO_LARGE));
        };
        packet.head.check(self.flow.version, Side::Client)?;
        match packet.head.kind() {
            CONNECT => return Err(End::Refused(reason::PROTOCOL_ERROR)),
            PUBLISH => return self.publish(&packet, out, back).await,
            kind if self.flow.answers(kind, packet.body(), back)? => {}
            _ => out.extend_from_slice(&packet.bytes),
        }
        Ok(())
    }

    fn patience(&self) -> Option<Duration> {
        let seconds = self.told.keep_alive.load(Ordering::Relaxed);
        let patience = Duration::from_millis(1_500 * u64::from(seconds));
        (seconds > 0).then_some(patience + GRACE)
    }
}

impl Up {
    async fn publish(
        &mut self,
        packet: &Packet,
        out: &mut Vec<u8>,
        back: &mut Vec<u8>,
    ) -> Result<(), End> {
        let version = self.flow.version;
        let publish = Publish::parse(version, packet.head.first, packet.body())?;
        let (topic, is_new) = self.flow.topic(&publish)?;
        let said = if is_new { &topic } else { publish.topic };
        match self.judge(packet, &publish, &topic).await {
            Ok(None) => {
                match is_new {
                    true => publish.put(version, said, (publish.payload, false), out),
                    false => out.extend_from_slice(&packet.bytes),
                }
                self.flow.goes_on(&publish);
                self.ledger.counts.count_passed();
            }
            Ok(Some((sealed, is_other))) => {
                publish.put(version, said, (&sealed, is_other), out);
                self.flow.goes_on(&publish);
                self.ledger.counts.count_sealed();
            }
            Err(Kept::ForGood(code, reason)) => {
                self.ledger.note(Exception::Refused, &topic, code);
                let wants = (publish.qos(), publish.id);
                self.flow.hold_back(wants, reason, back);
            }
            Err(Kept::ForNow(code)) => {
                self.ledger.note(Exception::Refused, &topic, code);
                // The client has it still, and sends it again over its next connection.
                if publish.id.is_some() {
                    return Err(End::Refused(reason::BUSY));
                }
            }
        }
        Ok(())
    }

    /// What a message becomes, sealed, and whether that is an envelope alone; `None` where it goes on in clear, by
    /// a rule that says so or because there is nothing in it. Here alone it is decided that something does.
    async fn judge(
        &self,
        packet: &Packet,
        publish: &Publish<'_>,
        topic: &str,
    ) -> Result<Option<(Vec<u8>, bool)>, Kept> {
        match self.rules.up(topic) {
            Act::Pass => Ok(None),
            Act::Seal(..) if publish.clears() => Ok(None),
            Act::Seal(stream, fields) => {
                let growth = Field::growth_of(fields, publish.payload.len());
                let topic = self.fits(packet.bytes.len() + growth, topic)?;
                let sealing = (stream, fields);
                let sealed = seal(&*self.sealing, sealing, &topic, publish.payload).await?;
                Ok(Some((sealed, fields.is_empty())))
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

//! What waits for a client, on its way in and out.

use sealcast::{Arrival, DataTopic, Shelf};

use crate::counts::{Exception, because};
use crate::down::Down;
use crate::flow::HeldBack;
use crate::lane::End;
use crate::numbers::Ack;
use crate::packet::{Head, PING, PUBREL, Publish, Welcome, put_ack, reason};
use crate::park::{Entry, Progress, now};
use crate::rules::Down as Act;
use crate::sealing::Unopened;
use crate::told::Asker;

/// Messages that are looked at together, of those that wait.
const AT_ONCE: usize = 32;
/// Bytes that leave together.
const BYTES: usize = 64 << 10;

/// How far what waits was looked through for what opens by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scan {
    /// To its end.
    Idle,
    /// Not before the broker has said what it sends again.
    Later,
    /// From a number on.
    From(u64),
}

/// What becomes of something that waits.
enum Look {
    /// It waits on.
    Waits,
    Goes(Vec<Vec<u8>>),
    Dropped(&'static str),
}

impl Down {
    /// Finds what waits since before, where the broker says that the client's session goes on.
    pub(crate) async fn take_up(
        &mut self,
        welcome: &Welcome<'_>,
        back: &mut Vec<u8>,
    ) -> Result<(), End> {
        if let Some(expiry) = welcome.session_expiry() {
            self.is_brief = expiry == 0;
        }
        let opened = self.lot.open(welcome.client(), welcome.has_session());
        if let Err(fault) = opened.await {
            self.ledger.note(Exception::Dropped, "", fault.0);
            return Err(End::Refused(reason::UNAVAILABLE));
        }
        for (number, entry) in &self.lot.entries {
            if let Progress::Sent(id) | Progress::Released(id) = entry.progress {
                self.numbers.redraw(id, *number);
                self.unfinished.push(*number);
            }
        }
        // What the broker sends again for want of an acknowledgement comes before its answer.
        if !self.lot.entries.is_empty() && self.told.asks(Asker::Look) {
            self.scan = Scan::Later;
            back.extend_from_slice(&PING);
        }
        Ok(())
    }

    /// The connection is at its end, and with it the session of a client that wanted none.
    pub(crate) async fn end(&mut self) {
        if self.is_brief {
            self.lot.forget();
        }
        if let Err(fault) = self.lot.keep().await {
            self.ledger.note(Exception::Dropped, "", fault.0);
        }
    }

    /// Lets a message wait that cannot be opened yet.
    pub(crate) fn wait(&mut self, publish: &Publish<'_>, topic: &str, code: &'static str) {
        let version = self.flow.version;
        let mut held_back = HeldBack::from(publish);
        let mark = Shelf::mark(&[topic.as_bytes(), publish.payload]);
        if self.lot.holds(&mark) {
            // The client has nothing to do with its number.
            held_back.comes_again = false;
        } else {
            let entry = Entry {
                version,
                progress: Progress::Waits,
                qos: publish.qos(),
                broker: publish.id.filter(|_| publish.qos() == 2),
                arrived: now(),
                bytes: 0,
                mark,
                stream: match self.ruling.now().rules.down(topic) {
                    Act::Open(stream, ..) => Some(stream.clone()),
                    Act::Pass | Act::NoRule => None,
                },
            };
            let is_room = self.lot.put(entry, publish.to_keep(version, topic));
            let (exception, code) = match is_room {
                true => (Exception::Parked, code),
                false => (Exception::Dropped, because::PARK_FULL),
            };
            self.ledger.note(exception, topic, code);
        }
        self.unkept.push(held_back);
    }

    /// Acknowledges what waits, now that it is durable.
    pub(crate) async fn keep(&mut self, back: &mut Vec<u8>) -> Result<(), End> {
        let unkept = std::mem::take(&mut self.unkept);
        if let Err(fault) = self.lot.keep().await {
            self.ledger.note(Exception::Dropped, "", fault.0);
            // The broker has them still.
            return Err(End::Refused(reason::BUSY));
        }
        for of in unkept {
            self.flow.hold_back(of, 0, back);
        }
        Ok(())
    }

    /// Whether something may go to the client now.
    pub(crate) fn may_deliver(&self) -> bool {
        let is_unfinished = self.scan != Scan::Later && !self.unfinished.is_empty();
        is_unfinished || (matches!(self.scan, Scan::From(_)) && self.numbers.has_room())
    }

    /// Notes what the client has acknowledged.
    pub(crate) fn hear(&mut self, out: &mut Vec<u8>) {
        for ack in self.numbers.take_acks() {
            match ack {
                Ack::Done(_, number) => self.lot.done(number),
                Ack::Received(id, number) => {
                    self.lot.progress(number, Progress::Released(id));
                    put_ack(self.flow.version, PUBREL, id, 0, out);
                }
            }
        }
    }

    /// Delivers some of what opens by now, in its order; what has to be durable first is to be made so.
    pub(crate) async fn deliver(&mut self, out: &mut Vec<u8>) -> Result<(), End> {
        if self.scan != Scan::Later {
            self.finish(out).await?;
        }
        let Scan::From(from) = self.scan else {
            return Ok(());
        };
        let waiting = self.lot.entries.range(from..);
        let waiting = waiting.filter(|(_, entry)| entry.progress == Progress::Waits);
        let some: Vec<_> = waiting.map(|(number, _)| *number).take(AT_ONCE).collect();
        let Some(last) = some.last().copied() else {
            self.scan = Scan::Idle;
            return Ok(());
        };
        for (number, content) in self.contents(some).await? {
            if !self.numbers.has_room() || out.len() >= BYTES {
                self.scan = Scan::From(number);
                return Ok(());
            }
            self.deliver_one(number, content, None, out).await;
        }
        self.scan = Scan::From(last + 1);
        Ok(())
    }

    /// Goes on with what was on its way when another connection ended.
    async fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), End> {
        let unfinished = std::mem::take(&mut self.unfinished);
        for (number, content) in self.contents(unfinished).await? {
            match self.lot.entries.get(&number).map(|of| of.progress) {
                Some(Progress::Released(id)) => put_ack(self.flow.version, PUBREL, id, 0, out),
                Some(Progress::Sent(id)) => {
                    self.deliver_one(number, content, Some(id), out).await;
                }
                Some(Progress::Waits | Progress::Done) | None => {}
            }
        }
        Ok(())
    }

    async fn contents(&mut self, some: Vec<u64>) -> Result<Vec<(u64, Option<Vec<u8>>)>, End> {
        match self.lot.contents(some.clone()).await {
            Ok(contents) => Ok(some.into_iter().zip(contents).collect()),
            Err(fault) => {
                self.ledger.note(Exception::Dropped, "", fault.0);
                Err(End::Refused(reason::BUSY))
            }
        }
    }

    /// Delivers one if it opens; with a number that it has already, or with a new one.
    async fn deliver_one(
        &mut self,
        number: u64,
        content: Option<Vec<u8>>,
        again: Option<u16>,
        out: &mut Vec<u8>,
    ) {
        let Some(entry) = self.lot.entries.get(&number).cloned() else {
            return;
        };
        let content = content.unwrap_or_default();
        let head = Head::read(&content).ok().flatten();
        let parsed = head.and_then(|head| {
            let body = content.get(head.len..)?;
            Publish::parse(entry.version, head.first, body).ok()
        });
        let Some(publish) = parsed else {
            self.lot.remove(number);
            self.ledger.note(Exception::Dropped, "", because::PARK_LOST);
            return;
        };
        let waited = now().saturating_sub(entry.arrived) / 1_000;
        let look = match publish.expiry_after(waited) {
            Some(0) => Look::Dropped(because::EXPIRED),
            _ if self.lot.is_old(&entry) => Look::Dropped(because::PARK_OLD),
            _ => self.look(number, &publish).await,
        };
        match look {
            Look::Waits => {}
            Look::Dropped(code) => {
                self.lot.remove(number);
                self.ledger.note(Exception::Dropped, publish.topic, code);
            }
            Look::Goes(records) => {
                let before = out.len();
                let id = publish
                    .id
                    .map(|_| again.unwrap_or_else(|| self.numbers.draw(number)));
                let late = publish.late(id, again.is_some());
                if !self.put_records(&late, publish.topic, &records, Some(waited), out) {
                    out.truncate(before);
                    if let Some(id) = id {
                        self.numbers.give_up(id);
                    }
                    self.lot.remove(number);
                    self.ledger
                        .note(Exception::Dropped, publish.topic, because::TOO_LARGE);
                    return;
                }
                self.ledger.counts.count_opened();
                match id {
                    None => self.lot.remove(number),
                    Some(id) => self.lot.sent(number, id),
                }
            }
        }
    }

    async fn look(&mut self, number: u64, publish: &Publish<'_>) -> Look {
        let now = self.ruling.now();
        let Act::Open(stream, fields, _) = now.rules.down(publish.topic) else {
            // The rules are others by now.
            return Look::Dropped(because::NO_RULE);
        };
        if let Some(entry) = self.lot.entries.get_mut(&number) {
            entry.stream = Some(stream.clone());
        }
        let Ok(topic) = publish.topic.parse::<DataTopic>() else {
            return Look::Dropped(because::TOPIC);
        };
        // It came once, and is here since.
        let message = (publish.payload, Arrival::Kept);
        match self.open(&now, (stream, fields), &topic, message).await {
            Ok(records) => Look::Goes(records),
            Err(fault) => match fault.why {
                Unopened::Sealed | Unopened::NotNow => Look::Waits,
                Unopened::Foreign => Look::Dropped(fault.code),
            },
        }
    }
}

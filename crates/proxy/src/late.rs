//! What waits for a client, on its way in and out.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use sealcast::{Arrival, DataTopic, Name, Shelf};
use tokio::time::Instant;

use crate::counts::{Exception, because};
use crate::down::Down;
use crate::flow::HeldBack;
use crate::json::envelope_of;
use crate::lane::End;
use crate::numbers::Ack;
use crate::packet::{Head, PING, PUBREL, Publish, Welcome, put_ack, reason};
use crate::park::{Entry, NotKept, Progress, Put, now};
use crate::rules::{Down as Act, Undecryptable};
use crate::sealing::{Closed, Unopened};
use crate::told::Asker;
use crate::wire::Packet;

/// Messages that are looked at together, of those that wait.
const AT_ONCE: usize = 32;
/// Bytes that leave together.
const BYTES: usize = 64 << 10;

/// How often what waits is looked through, however much is learned.
const RESCAN: Duration = Duration::from_secs(1);
/// How often it is though nothing is known to have changed: so keys are asked for again.
const LOOK: Duration = Duration::from_secs(30);

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

/// What is looked at of what waits, and when.
#[derive(Debug)]
pub(crate) struct Looks {
    pub(crate) scan: Scan,
    /// When it was looked through last.
    last: Option<Instant>,
    /// Whether something was learned since, or may have been.
    pub(crate) is_fresh: bool,
    /// What was on its way to the client over another connection, and is to be sent over this one.
    unfinished: VecDeque<u64>,
    /// The same of which the client has all but the end.
    releases: Vec<u16>,
    /// What of that did not open, and is looked at again when something was learned.
    stuck: Vec<u64>,
    /// Streams that cannot be looked at now.
    away: BTreeSet<Name>,
}

impl Looks {
    pub(crate) fn new() -> Self {
        Self {
            scan: Scan::Idle,
            last: None,
            is_fresh: false,
            unfinished: VecDeque::new(),
            releases: Vec::new(),
            stuck: Vec::new(),
            away: BTreeSet::new(),
        }
    }

    /// Begins at the beginning.
    pub(crate) fn begin(&mut self) {
        self.scan = Scan::From(0);
        self.last = Some(Instant::now());
        self.is_fresh = false;
        self.unfinished.extend(self.stuck.drain(..));
        self.away.clear();
    }

    /// When to look though nothing has happened meanwhile.
    pub(crate) fn next(&self, began: Instant) -> Instant {
        let every = if self.is_fresh { RESCAN } else { LOOK };
        self.last.unwrap_or(began) + every
    }

    /// Begins again, where that is due.
    fn go_on(&mut self, began: Instant) {
        let is_due = match self.last {
            Some(_) => Instant::now() >= self.next(began),
            None => self.is_fresh || began.elapsed() >= LOOK,
        };
        if self.scan == Scan::Idle && is_due {
            self.begin();
        }
    }
}

/// What becomes of something that waits.
enum Look {
    /// It waits on.
    Waits,
    /// So does all of its stream.
    Away,
    Goes(Vec<Vec<u8>>),
    Dropped(&'static str),
}

/// What became of a message that is to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waits {
    Yes,
    /// There is no room for it.
    Full,
    /// It cannot now, and its broker has it still.
    NotNow,
}

impl Down {
    /// Finds what waits since before, where the broker says that the client's session goes on.
    pub(crate) async fn take_up(
        &mut self,
        welcome: &Welcome<'_>,
        back: &mut Vec<u8>,
    ) -> Result<(), End> {
        self.lot.lasts = self.told.lasts();
        if !self.ruling.now().rules.open() {
            return Ok(());
        }
        let counts = &self.ledger.counts;
        let opened = { &mut self.lot }.open(welcome.client(), welcome.has_session(), counts);
        match opened.await {
            Ok(()) => {}
            Err(NotKept::DAMAGED) => {
                let reason = NotKept::DAMAGED.0;
                tracing::error!(reason, "what waits cannot be read, and nothing is let wait");
                return Ok(());
            }
            Err(fault) => {
                self.ledger.note(Exception::Dropped, "", fault.0);
                return Err(End::Refused(reason::UNAVAILABLE));
            }
        }
        for (number, entry) in &self.lot.entries {
            match entry.progress {
                Progress::Sent(id) => {
                    self.numbers.redraw(id, *number);
                    self.looks.unfinished.push_back(*number);
                }
                Progress::Released(id) => {
                    self.numbers.redraw(id, *number);
                    self.looks.releases.push(id);
                }
                Progress::Waits | Progress::Done => {}
            }
        }
        // What the broker sends again for want of an acknowledgement comes before its answer.
        if !self.lot.entries.is_empty() && self.told.asks(Asker::Look) {
            self.looks.scan = Scan::Later;
            back.extend_from_slice(&PING);
        }
        Ok(())
    }

    /// Finds what is remembered of a session that outlives its connection.
    pub(crate) fn recall(&mut self, welcome: &Welcome<'_>) {
        if let Some(lasts) = welcome.lasts() {
            self.told.tell_lasts(lasts);
        }
        let owner = self.lot.session_of(welcome.client());
        if let Some(owner) = owner.filter(|_| !self.told.lasts().is_brief()) {
            let (origin, goes_on) = (self.lot.origin(), welcome.has_session());
            let session = self.recall.session(owner, origin, goes_on);
            self.told.tell_session(session);
        }
    }

    /// The connection is at its end, and with it the session of a client that wanted none.
    pub(crate) async fn end(&mut self) {
        self.lot.leave_for(self.told.lasts());
        if let Err(fault) = self.lot.keep().await {
            self.ledger.note(Exception::Dropped, "", fault.0);
        }
        self.lot.shut();
    }

    /// Lets a message wait that cannot be opened yet, or may not go before others.
    pub(crate) fn wait(
        &mut self,
        publish: &Publish<'_>,
        topic: &str,
        (code, is_judged, is_noted): (&'static str, bool, bool),
    ) -> Waits {
        let version = self.flow.version;
        let mut held_back = HeldBack::from(publish);
        let mark = self.mark(publish, topic);
        if self.lot.holds(&mark) {
            // The client has nothing to do with its number.
            held_back.comes_again = false;
            self.unkept.push(held_back);
            return Waits::Yes;
        }
        let entry = Entry {
            version,
            progress: Progress::Waits,
            qos: publish.qos(),
            is_judged,
            is_noted,
            broker: publish.id.filter(|_| publish.qos() == 2),
            arrived: now(),
            bytes: 0,
            mark,
            stream: match self.ruling.now().rules.down(topic) {
                Act::Open(stream, ..) => Some(stream.clone()),
                Act::Pass | Act::NoRule => None,
            },
        };
        let (exception, code) = match self.lot.put(entry, publish.to_keep(version, topic)) {
            Put::Waits => (Exception::Parked, code),
            Put::NoRoom => return Waits::Full,
            Put::NotNow => return Waits::NotNow,
            Put::TooLarge => (Exception::Dropped, because::TOO_LARGE),
        };
        self.ledger.note(exception, topic, code);
        self.unkept.push(held_back);
        Waits::Yes
    }

    /// By what a message is known again: its envelope, whatever stands around it.
    pub(crate) fn mark(&self, publish: &Publish<'_>, topic: &str) -> [u8; 16] {
        let now = self.ruling.now();
        let envelope = match now.rules.down(topic) {
            Act::Open(_, fields, _) if !fields.is_empty() => {
                envelope_of(publish.payload, fields).ok()
            }
            Act::Open(..) | Act::Pass | Act::NoRule => None,
        };
        let of = envelope.as_deref().unwrap_or(publish.payload);
        Shelf::mark(&[topic.as_bytes(), of])
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

    /// Whether a number is that of something that the client may have, and that cannot be sent again now.
    pub(crate) fn is_stuck(&self, id: Option<u16>) -> bool {
        let of_it = |number| self.lot.entries.get(number).map(|of| of.progress);
        let mut stuck = self.looks.stuck.iter().filter_map(of_it);
        id.is_some_and(|id| stuck.any(|progress| progress == Progress::Sent(id)))
    }

    /// Whether a message would wait if it did not open.
    pub(crate) fn may_park(&self, packet: &Packet) -> bool {
        let publish = Publish::parse(self.flow.version, packet.head.first, packet.body());
        publish.is_ok_and(|of| {
            let now = self.ruling.now();
            let parks = matches!(
                now.rules.down(of.topic),
                Act::Open(_, _, Undecryptable::Park)
            );
            parks && !of.payload.is_empty()
        })
    }

    /// The same of something that opens, and is to be looked at again with what waits.
    pub(crate) fn finds_stuck(&mut self, id: Option<u16>) -> bool {
        let is_stuck = self.is_stuck(id);
        if is_stuck && self.looks.scan == Scan::Idle {
            self.looks.begin();
        }
        is_stuck
    }

    /// Whether something may go to the client now.
    pub(crate) fn may_deliver(&self) -> bool {
        let is_new = matches!(self.looks.scan, Scan::From(_)) && self.numbers.has_number();
        let is_any = !self.looks.unfinished.is_empty() || is_new;
        let may_go = is_any && !self.is_behind_aside() && self.numbers.has_room();
        !self.looks.releases.is_empty() || may_go
    }

    /// Whether what waits has to wait until something that was put aside is gone. That may itself wait for room.
    fn is_behind_aside(&self) -> bool {
        self.aside.is_going_on() && !self.is_held
    }

    /// Notes what the client has acknowledged, and delivers some of what opens by now. Nothing of that leaves where what
    /// has to be durable before is not.
    pub(crate) async fn go_on(&mut self, out: &mut Vec<u8>, back: &mut Vec<u8>) -> Result<(), End> {
        let before = out.len();
        self.hear(out);
        self.looks.go_on(self.began);
        let mut gone_on = self.deliver(out).await;
        if gone_on.is_ok() {
            gone_on = self.keep(back).await;
        }
        if gone_on.is_err() {
            out.truncate(before);
        }
        gone_on
    }

    fn hear(&mut self, out: &mut Vec<u8>) {
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
    async fn deliver(&mut self, out: &mut Vec<u8>) -> Result<(), End> {
        self.finish(out).await?;
        let Scan::From(from) = self.looks.scan else {
            return Ok(());
        };
        if self.is_behind_aside() {
            return Ok(());
        }
        let aside = self.aside.next();
        let end = aside.map_or(u64::MAX, |of| of.max(from));
        let waiting = self.lot.entries.range(from..end);
        let waiting = waiting.filter(|(_, entry)| entry.progress == Progress::Waits);
        let some: Vec<_> = waiting.map(|(number, _)| *number).take(AT_ONCE).collect();
        let Some(last) = some.last().copied() else {
            match aside {
                Some(_) => self.take_aside(),
                None => self.looks.scan = Scan::Idle,
            }
            return Ok(());
        };
        for (number, content) in self.contents(some).await? {
            let is_room = self.numbers.has_room() && self.numbers.has_number();
            if !is_room || out.len() >= BYTES {
                self.looks.scan = Scan::From(number);
                return Ok(());
            }
            self.deliver_one(number, content, None, out).await;
        }
        self.looks.scan = Scan::From(last + 1);
        Ok(())
    }

    /// Goes on with what was on its way when another connection ended, as far as the client takes it. Their numbers are
    /// theirs, whatever the broker sends again.
    async fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), End> {
        for id in std::mem::take(&mut self.looks.releases) {
            put_ack(self.flow.version, PUBREL, id, 0, out);
        }
        while self.numbers.has_room()
            && out.len() < BYTES
            && let Some(number) = self.looks.unfinished.pop_front()
        {
            let progress = self.lot.entries.get(&number).map(|of| of.progress);
            if let Some(Progress::Sent(id)) = progress {
                for (number, content) in self.contents(vec![number]).await? {
                    self.deliver_one(number, content, Some(id), out).await;
                }
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
            self.give_up((number, again), "", because::PARK_LOST, out);
            return;
        };
        let waited = now().saturating_sub(entry.arrived) / 1_000;
        let look = match publish.expiry_after(waited) {
            Some(0) => Look::Dropped(because::EXPIRED),
            _ if again.is_none() && self.lot.is_old(&entry) => Look::Dropped(because::PARK_OLD),
            _ => self.look(number, &entry, &publish).await,
        };
        match look {
            Look::Waits | Look::Away => {
                if again.is_some() {
                    self.looks.stuck.push(number);
                }
                if let (Look::Away, Some(entry)) = (look, self.lot.entries.get(&number)) {
                    self.looks.away.extend(entry.stream.clone());
                }
            }
            Look::Dropped(code) => self.give_up((number, again), publish.topic, code, out),
            Look::Goes(records) => {
                let before = out.len();
                let drawn = || again.or_else(|| self.numbers.draw(number));
                let id = publish.id.and_then(|_| drawn());
                if id.is_none() && publish.id.is_some() {
                    // There was one just now.
                    return;
                }
                let late = publish.late(id, again.is_some());
                if !self.put_records(&late, publish.topic, &records, Some(waited), out) {
                    out.truncate(before);
                    if let (Some(id), None) = (id, again) {
                        self.numbers.give_up(id);
                    }
                    self.give_up((number, again), publish.topic, because::TOO_LARGE, out);
                    return;
                }
                self.ledger.counts.count_opened();
                match id {
                    None => self.lot.remove(number),
                    Some(id) => {
                        self.numbers.sent_again(id);
                        self.lot.sent(number, id);
                    }
                }
            }
        }
    }

    /// Something does not go on. The client may have what was sent before: then it is told to give the number back, which
    /// ends it for both.
    fn give_up(
        &mut self,
        (number, again): (u64, Option<u16>),
        topic: &str,
        code: &'static str,
        out: &mut Vec<u8>,
    ) {
        self.ledger.note(Exception::Dropped, topic, code);
        match again {
            None => self.lot.remove(number),
            Some(id) => {
                self.lot.progress(number, Progress::Released(id));
                put_ack(self.flow.version, PUBREL, id, 0, out);
            }
        }
    }

    async fn look(&mut self, number: u64, entry: &Entry, publish: &Publish<'_>) -> Look {
        let now = self.ruling.now();
        let Act::Open(stream, fields, _) = now.rules.down(publish.topic) else {
            // The rules are others by now.
            return Look::Dropped(because::NO_RULE);
        };
        if let Some(entry) = self.lot.entries.get_mut(&number) {
            entry.stream = Some(stream.clone());
        }
        if self.looks.away.contains(stream) {
            return Look::Waits;
        }
        let Ok(topic) = publish.topic.parse::<DataTopic>() else {
            return Look::Dropped(because::TOPIC);
        };
        let message = Closed {
            fields,
            topic,
            payload: publish.payload,
            arrival: match (entry.is_noted || publish.is_retained(), entry.is_judged) {
                (true, _) => Arrival::Kept,
                (false, true) => Arrival::Waited,
                (false, false) => Arrival::Live,
            },
        };
        match self.open(&now, stream, message).await {
            Ok(records) => Look::Goes(records),
            Err(fault) => match fault.why {
                Unopened::Sealed => Look::Waits,
                Unopened::NotNow => Look::Away,
                // It was its publisher's when it came: other fields, or another stream, may be a slip.
                Unopened::Foreign if entry.is_judged && !fault.is_seen() => Look::Waits,
                Unopened::Foreign => Look::Dropped(fault.code),
            },
        }
    }
}

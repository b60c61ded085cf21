//! What truly happened: who wrote, sealed and drew what, whatever the devices made of it.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use sealcast_crash::Sent;
use sealcast_engine::StreamView;
use sealcast_protocol::{
    DeviceId, EnvelopeHash, Header, LogBody, LogEntry, LogHash, Position, RequestId,
    SealedEnvelope, SessionId, Solicitation, UserId, Verified, Want,
};

use crate::released::Said;
use crate::violation::Violation;

/// A set of entries, by their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entries(Vec<u64>);

impl Entries {
    pub(crate) fn insert(&mut self, at: usize) {
        let word = at / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        if let Some(word) = self.0.get_mut(word) {
            *word |= 1 << (at % 64);
        }
    }

    pub(crate) fn contains(&self, at: usize) -> bool {
        let word = self.0.get(at / 64).copied().unwrap_or_default();
        word >> (at % 64) & 1 == 1
    }

    /// Whether all of them are among others.
    fn are_among(&self, others: &Self) -> bool {
        let words = self.0.iter().enumerate();
        words
            .map(|(at, word)| word & !others.0.get(at).copied().unwrap_or_default())
            .all(|left| left == 0)
    }
}

/// An entry of the access log that a device wrote by the rules.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) hash: LogHash,
    pub(crate) user: UserId,
    pub(crate) device: DeviceId,
    pub(crate) seq: u32,
    /// What its author knew.
    pub(crate) past: Entries,
    pub(crate) body: LogBody,
    pub(crate) wire: Vec<u8>,
}

/// A message that a device sealed.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) number: usize,
    pub(crate) hash: EnvelopeHash,
    pub(crate) bytes: Vec<u8>,
    pub(crate) header: Header,
    pub(crate) user: UserId,
    /// What its publisher knew of the access log.
    pub(crate) known: Rc<Entries>,
    pub(crate) payloads: Vec<Vec<u8>>,
}

/// What truly happened.
#[derive(Debug, Default)]
pub(crate) struct Ground {
    pub(crate) entries: Vec<Written>,
    by_hash: BTreeMap<LogHash, usize>,
    pub(crate) messages: Vec<Message>,
    by_header: BTreeMap<[u8; 72], usize>,
    /// Which device drew a session.
    drawn: BTreeMap<SessionId, DeviceId>,
    /// Records that are on the bus, or were.
    announced: BTreeSet<(SessionId, DeviceId)>,
    /// Devices whose cards were revoked.
    out: BTreeSet<DeviceId>,
    /// Requests for keys that were made.
    asked: BTreeMap<(DeviceId, RequestId), Vec<Want>>,
    /// What key nodes said.
    pub(crate) said: Said,
    sent: Sent,
    marks: BTreeMap<DeviceId, Position>,
    records: usize,
}

impl Ground {
    /// Notes an entry at the moment when its author keeps it.
    pub(crate) fn wrote(&mut self, entry: &Verified<LogEntry>, past: Entries) {
        let (hash, body) = (LogHash::from(entry.digest()), entry.body());
        if self.by_hash.contains_key(&hash) {
            return;
        }
        self.by_hash.insert(hash, self.entries.len());
        self.entries.push(Written {
            hash,
            user: body.user,
            device: body.device,
            seq: body.seq,
            past,
            body: body.body.clone(),
            wire: entry.wire().to_vec(),
        });
    }

    /// The entries that a device knows, with their whole past.
    pub(crate) fn known_to(&self, view: &StreamView) -> Entries {
        let mut known = Entries::default();
        for (at, of) in self.entries.iter().enumerate() {
            if view.log().contains(&of.hash) {
                known.insert(at);
            }
        }
        known
    }

    /// As [`known_to`](Self::known_to), without the entries of devices whose cards were revoked.
    pub(crate) fn known_of_those_in(&self, view: &StreamView) -> Entries {
        let mut known = Entries::default();
        for (at, of) in self.entries.iter().enumerate() {
            if view.log().contains(&of.hash) && !self.out.contains(&of.device) {
                known.insert(at);
            }
        }
        known
    }

    /// All entries that anybody wrote.
    pub(crate) fn all(&self) -> Entries {
        let mut all = Entries::default();
        (0..self.entries.len()).for_each(|number| all.insert(number));
        all
    }

    /// Of some entries, those of which the whole past is among them, too.
    pub(crate) fn linked(&self, some: &Entries) -> Entries {
        let mut linked = Entries::default();
        for (number, entry) in self.entries.iter().enumerate() {
            if some.contains(number) && entry.past.are_among(some) {
                linked.insert(number);
            }
        }
        linked
    }

    pub(crate) fn number_of(&self, hash: &LogHash) -> Option<usize> {
        self.by_hash.get(hash).copied()
    }

    /// Devices that wrote two entries with one number.
    pub(crate) fn forked(&self) -> BTreeSet<DeviceId> {
        let mut places = BTreeMap::new();
        for of in &self.entries {
            *places.entry((of.device, of.seq)).or_insert(0) += 1;
        }
        let twice = places.into_iter().filter(|(_, count)| *count > 1);
        twice.map(|((device, _), _)| device).collect()
    }

    /// Notes that a device's card is revoked.
    pub(crate) fn took_out(&mut self, device: DeviceId) {
        self.out.insert(device);
    }

    /// Whether a device's card was ever revoked.
    pub(crate) fn is_ever_out(&self, device: &DeviceId) -> bool {
        self.out.contains(device)
    }

    /// Notes a request at the moment when it leaves.
    pub(crate) fn asked(&mut self, of: &Solicitation) {
        self.asked.insert((of.device, of.request), of.wants.clone());
    }

    /// What a device asked for in a request, if it made it.
    pub(crate) fn wants(&self, device: DeviceId, request: RequestId) -> Option<&[Want]> {
        self.asked.get(&(device, request)).map(Vec::as_slice)
    }

    pub(crate) fn drew(&mut self, session: SessionId, device: DeviceId) {
        self.drawn.insert(session, device);
    }

    pub(crate) fn announced(&mut self, session: SessionId, device: DeviceId) {
        self.announced.insert((session, device));
    }

    /// How many records were sealed.
    pub(crate) fn records(&self) -> usize {
        self.records
    }

    /// Notes a message at the moment when the lane that it moved is durable.
    ///
    /// Invariants: positions of a device never go back, and it seals with sessions that it drew.
    pub(crate) fn sealed(
        &mut self,
        user: UserId,
        sealed: &SealedEnvelope,
        known: &Rc<Entries>,
        payloads: Vec<Vec<u8>>,
    ) -> Result<usize, Violation> {
        let header = header_of(&sealed.bytes).ok_or(Violation::Odd("an envelope of our own"))?;
        let number = self.messages.len();
        let mark = self.marks.entry(header.device).or_insert(header.position);
        if header.position < *mark {
            return Err(Violation::PositionWentBack {
                device: header.device,
                from: *mark,
                to: header.position,
            });
        }
        *mark = header.position;
        if self.drawn.get(&header.session) != Some(&header.device) {
            return Err(Violation::ForeignSession {
                device: header.device,
                session: header.session,
            });
        }
        self.records += payloads.len();
        self.by_header.insert(header.encode(), number);
        self.messages.push(Message {
            number,
            hash: sealed.hash,
            bytes: sealed.bytes.clone(),
            header,
            user,
            known: known.clone(),
            payloads,
        });
        Ok(number)
    }

    /// Notes an envelope at the moment when it is handed to the bus.
    ///
    /// Invariants: no message key is used twice, and no envelope leaves before its session's record
    /// is on the bus.
    pub(crate) fn left(&mut self, topic: &str, envelope: &[u8]) -> Result<(), Violation> {
        self.sent.add(topic, envelope);
        if let Some(reused) = self.sent.reused().first() {
            return Err(Violation::KeyUsedTwice(reused.clone()));
        }
        let header = header_of(envelope).ok_or(Violation::Odd("an envelope of our own"))?;
        match self.announced.contains(&(header.session, header.device)) {
            true => Ok(()),
            false => Err(Violation::EnvelopeBeforeRecord {
                device: header.device,
                session: header.session,
            }),
        }
    }

    /// The message that a header belongs to.
    pub(crate) fn message(&self, header: &Header) -> Option<&Message> {
        let at = self.by_header.get(&header.encode())?;
        self.messages.get(*at)
    }
}

pub(crate) fn header_of(envelope: &[u8]) -> Option<Header> {
    let view = sealcast_protocol::EnvelopeView::parse(envelope).ok()?;
    Some(*view.header())
}

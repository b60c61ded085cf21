//! What surrounds the devices: bus, clock, randomness, and the record of what truly happened.

use std::collections::BTreeMap;
use std::fmt;

use sealcast_crash::Chance;
use sealcast_protocol::{SessionRecord, StreamId, StreamTopics, Unverified, UserId};
use sealcast_store::StoreError;

use crate::air::Air;
use crate::bus::{Bus, Item, Take, Unreachable};
use crate::ground::Ground;
use crate::plant::Plant;
use crate::seeded::Seeded;
use crate::trace::Trace;
use crate::violation::Violation;

/// Where the clock of every run starts.
pub(crate) const START: u64 = 1_790_000_000_000;

/// Everything but the devices.
#[derive(Debug)]
pub(crate) struct Around {
    pub(crate) bus: Bus,
    pub(crate) air: Air,
    pub(crate) rng: Seeded,
    pub(crate) chance: Chance,
    pub(crate) now: u64,
    pub(crate) stream: StreamId,
    pub(crate) owner: UserId,
    pub(crate) ground: Ground,
    pub(crate) trace: Trace,
    pub(crate) step: usize,
    pub(crate) plant: Option<Plant>,
    /// Effects until the acting device crashes.
    pub(crate) fuse: Option<u64>,
    /// Of a hundred appends, so many are kept twice.
    pub(crate) twice: u64,
    /// Of a hundred appends to the data topic, so many are acknowledged and lost.
    pub(crate) lossy: u64,
    /// Of a hundred failed appends, so many took place all the same.
    pub(crate) unsure: u64,
    pub(crate) faults: BTreeMap<&'static str, u64>,
    pub(crate) violation: Option<Violation>,
    /// Whether anything but crashes goes wrong.
    pub(crate) is_rough: bool,
    /// What became of requests for keys.
    pub(crate) asking: BTreeMap<&'static str, u64>,
}

/// Why a device's step ended before its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The device crashed.
    Crashed,
    /// The bus cannot be reached. Whether the last append took place is not known.
    Unreachable,
    /// It may not do this, or not now.
    Refused(&'static str),
    /// It must never come to this.
    Violated(Violation),
}

impl From<StoreError> for Stop {
    fn from(_: StoreError) -> Self {
        Self::Violated(Violation::Odd("a store in memory that fails"))
    }
}

impl From<Unreachable> for Stop {
    fn from(Unreachable: Unreachable) -> Self {
        Self::Unreachable
    }
}

impl From<Violation> for Stop {
    fn from(violation: Violation) -> Self {
        Self::Violated(violation)
    }
}

impl Around {
    /// Notes what a device did, or what was done to it.
    pub(crate) fn note(&mut self, who: usize, what: fmt::Arguments<'_>) {
        let at = self.now.saturating_sub(START);
        self.trace
            .note(self.step, at, format_args!("d{who} {what}"));
    }

    /// Notes a fault that is injected.
    pub(crate) fn fault(&mut self, kind: &'static str, what: fmt::Arguments<'_>) {
        *self.faults.entry(kind).or_default() += 1;
        let at = self.now.saturating_sub(START);
        self.trace
            .note(self.step, at, format_args!("! {kind}: {what}"));
    }

    /// Stands before every effect that outlives a crash.
    pub(crate) fn effect(&mut self, who: usize, what: &str) -> Result<(), Stop> {
        let Some(left) = &mut self.fuse else {
            return Ok(());
        };
        if *left > 0 {
            *left -= 1;
            return Ok(());
        }
        self.fuse = None;
        self.fault("crash", format_args!("d{who} before it would {what}"));
        Err(Stop::Crashed)
    }

    pub(crate) fn keys(&self) -> String {
        StreamTopics(self.stream).keys()
    }

    pub(crate) fn data(&self) -> String {
        StreamTopics(self.stream).data()
    }

    pub(crate) fn end(&mut self, who: usize, topic: &str) -> Result<u64, Stop> {
        Ok(self.bus.end(who, topic, self.now)?)
    }

    pub(crate) fn read(
        &mut self,
        who: usize,
        topic: &str,
        from: u64,
        max: usize,
    ) -> Result<Vec<Item>, Stop> {
        Ok(self.bus.read(who, topic, self.now, from, max)?)
    }

    /// Counts what became of a request, and what was said to one.
    pub(crate) fn count_asking(&mut self, kind: &'static str) {
        *self.asking.entry(kind).or_default() += 1;
    }

    /// Sends something to all who listen.
    pub(crate) fn send(&mut self, who: usize, bytes: &[u8]) -> Result<(), Stop> {
        self.effect(who, "send to who listens")?;
        if self.bus.is_cut_off(who) {
            return Err(Stop::Unreachable);
        }
        self.fly(bytes);
        Ok(())
    }

    /// As [`send`](Self::send), whoever does.
    pub(crate) fn fly(&mut self, bytes: &[u8]) {
        let (bus, chance) = (&self.bus, &mut self.chance);
        self.air
            .send(self.now, chance, bytes, |who| bus.is_cut_off(who));
    }

    /// Hands payloads to the bus.
    pub(crate) fn append(
        &mut self,
        who: usize,
        topic: &str,
        payloads: &[Vec<u8>],
    ) -> Result<(), Stop> {
        self.effect(who, "append to the bus")?;
        let is_data = topic == self.data();
        if is_data {
            for payload in payloads {
                self.ground.left(topic, payload)?;
            }
        }
        let take = match self.chance.below(100) {
            at if at < self.twice => Take::Twice,
            at if is_data && at >= 100 - self.lossy => Take::Lose,
            _ => Take::Once,
        };
        let result = self.bus.append(who, topic, self.now, payloads, take);
        let took_place = match result {
            Ok(()) => take != Take::Lose,
            Err(Unreachable) => self.takes_place_unseen(topic, payloads),
        };
        match (take, result) {
            (Take::Twice, Ok(())) => self.fault("duplicate", format_args!("{}", short(topic))),
            (Take::Lose, Ok(())) => self.fault("loss", format_args!("{}", short(topic))),
            (Take::Once, _) | (Take::Twice | Take::Lose, Err(Unreachable)) => {}
        }
        if took_place && topic == self.keys() {
            self.note_records(payloads);
        }
        Ok(result?)
    }

    /// An append of which its author learns only that it failed may be kept all the same.
    fn takes_place_unseen(&mut self, topic: &str, payloads: &[Vec<u8>]) -> bool {
        let is_kept = self.chance.hits(self.unsure, 100);
        if is_kept {
            for payload in payloads {
                self.bus.put(topic, self.now, payload);
            }
            self.fault("unsure append", format_args!("{}", short(topic)));
        }
        is_kept
    }

    fn note_records(&mut self, payloads: &[Vec<u8>]) {
        for payload in payloads {
            if let Ok(record) = Unverified::<SessionRecord>::decode(payload) {
                let of = record.claims();
                self.ground.announced(of.session, of.device);
            }
        }
    }

    /// As [`append`](Self::append) where the topic ends at `end`, and only there.
    pub(crate) fn append_at(
        &mut self,
        who: usize,
        topic: &str,
        end: u64,
        payload: &[u8],
    ) -> Result<bool, Stop> {
        self.effect(who, "append to its chain")?;
        let result = self.bus.append_at(who, topic, self.now, end, payload);
        if result == Err(Unreachable) {
            self.takes_place_unseen(topic, &[payload.to_vec()]);
        }
        Ok(result?)
    }
}

/// A topic's name, as short as it stays clear.
pub(crate) fn short(topic: &str) -> String {
    let parts = topic.split('/').map(|part| match part.len() {
        0..=8 => part,
        _ => part.get(..8).unwrap_or(part),
    });
    parts.collect::<Vec<_>>().join("/")
}

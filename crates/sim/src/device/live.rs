//! Reading the data topic: live, and from its start.

use std::collections::{BTreeMap, BTreeSet};

use sealcast_engine::{
    Alarm, CLOCK_BEHIND_MS_MAX, Event, Mode, Notice, Parked, Parking, ParkingLimits, Reader,
    Refusal, Space, Tracker,
};
use sealcast_protocol::{DeviceId, EnvelopeHash, Header, InstanceId, Interval, Position};

use super::Acting;
use crate::around::Stop;
use crate::place::{Place, topic_id};
use crate::plant::Plant;
use crate::violation::Violation;

/// Items before the start of live reading that are noted where no place was kept.
const NOTED: u64 = 1024;

/// A subscription.
#[derive(Debug)]
pub(crate) struct Live {
    pub(super) reader: Reader,
    place: Place,
    revoked: BTreeMap<DeviceId, Vec<EnvelopeHash>>,
    pub(super) order: Order,
    /// What came since its place was kept.
    pub(super) new: BTreeSet<(usize, usize)>,
    pub(super) parking: Parking,
}

impl Live {
    /// Whether a message waits.
    pub(crate) fn waits(&self, hash: &EnvelopeHash) -> bool {
        self.parking.numbers().contains_key(hash)
    }

    /// Whether a message was delivered since the place was kept.
    pub(crate) fn has_delivered(&self, message: usize) -> bool {
        let mut records = self.new.range((message, 0)..(message + 1, 0));
        records.next().is_some()
    }
}

/// What a reader was given, to see that it is in order and nothing twice.
#[derive(Debug, Default)]
pub(crate) struct Order {
    opened: BTreeSet<(usize, usize)>,
    highest: BTreeMap<(DeviceId, InstanceId), u32>,
    gaps: BTreeSet<DeviceId>,
}

impl Order {
    pub(super) fn gaps(&self) -> &BTreeSet<DeviceId> {
        &self.gaps
    }
}

/// What became of a message, of those that a device did not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Opened,
    Sealed { is_granted: bool },
    Rejected(Refusal),
    Fork,
}

impl Acting<'_> {
    /// Reads what came since the last time, live.
    pub(crate) fn follow(&mut self) -> Result<(), Stop> {
        self.sync()?;
        self.share_owed()?;
        let mut live = match self.run.live.take() {
            Some(live) => live,
            None => self.resume()?,
        };
        let result = self.follow_on(&mut live);
        self.run.live = Some(live);
        result?;
        self.go_on_asking()
    }

    /// What waits for keys opens, as far as they have come, without looking for what is new.
    pub(super) fn open_parked(&mut self) -> Result<(), Stop> {
        let Some(mut live) = self.run.live.take() else {
            return Ok(());
        };
        let result = self.release(&mut live);
        self.run.live = Some(live);
        result
    }

    fn follow_on(&mut self, live: &mut Live) -> Result<(), Stop> {
        let revoked = self.run.view.state().revoked_tips();
        if revoked != live.revoked {
            live.reader.allow(self.allowed()?);
            live.revoked = revoked;
        }
        self.release(live)?;
        let data = self.around.data();
        let items = self
            .around
            .read(self.device.at, &data, live.place.at, usize::MAX)?;
        for item in &items {
            live.reader.handle(&self.run.view, &item.bytes);
            live.place = Place::behind(item);
        }
        self.park(live)?;
        live.reader.give_up(&self.run.view, items.is_empty());
        self.deliver(live, &mut BTreeMap::new())?;
        self.release(live)
    }

    /// Goes on where an earlier subscription stood, behind all that is on the bus now.
    fn resume(&mut self) -> Result<Live, Stop> {
        let (data, who) = (self.around.data(), self.device.at);
        let reached = self.device.home.places()?.remove(&topic_id(&data));
        let place = reached.map(|of| of.place);
        let end = self.around.end(who, &data)?;
        let recent = end.saturating_sub(NOTED);
        let mut from = None;
        if let Some(place) = place {
            let last = place.last().filter(|_| place.at <= end);
            let first = match last {
                Some(last) => self.around.read(who, &data, last, 1)?,
                None => Vec::new(),
            };
            from = match place.is_shown(first.first()) {
                true => Some(place.at),
                false => {
                    self.tell(Alarm::LostMessages);
                    Some(0)
                }
            };
        }
        let mut parking = Parking::new(self.around.stream, ParkingLimits::default());
        self.device.home.parked(&mut parking)?;
        let mut reader = Reader::new(Mode::Live);
        reader.park(parking.numbers().clone());
        reader.allow(self.allowed()?);
        let is_forgetful = self.around.plant == Some(Plant::ForgetTracks);
        if from.is_some() && !is_forgetful {
            for (id, bytes) in self.device.home.of_stream(Space::Track)? {
                let device = id.first_chunk().map(|id| DeviceId(*id));
                if let Some((device, tracker)) = device.zip(Tracker::from_bytes(bytes.expose())) {
                    reader.resume(device, tracker);
                }
            }
        }
        let from = from.unwrap_or(recent).min(recent);
        let mut at = Place::default();
        for item in self.around.read(who, &data, from, usize::MAX)? {
            at = Place::behind(&item);
            if !is_forgetful {
                reader.pass(&self.run.view, &item.bytes);
            }
        }
        if is_forgetful {
            at = Place::default();
        }
        let slack = self.now().0.saturating_sub(CLOCK_BEHIND_MS_MAX);
        reader.raise_floor(Position(slack));
        Ok(Live {
            reader,
            place: at,
            revoked: self.run.view.state().revoked_tips(),
            order: Order::default(),
            new: BTreeSet::new(),
            parking,
        })
    }

    /// Keeps where live reading stands. Returns what was delivered up to there.
    pub(crate) fn keep_place(&mut self) -> Result<BTreeSet<(usize, usize)>, Stop> {
        self.effect("keep its place")?;
        let Some(live) = &mut self.run.live else {
            return Ok(BTreeSet::new());
        };
        let trackers = live.reader.trackers();
        let trackers: Vec<_> = trackers
            .map(|(device, tracker)| (*device, tracker.to_bytes()))
            .collect();
        let place = (topic_id(&self.around.data()), live.place);
        self.device.home.track(&trackers, place)?;
        Ok(std::mem::take(&mut live.new))
    }

    /// Reads the whole of history. What became of each message.
    pub(crate) fn history(&mut self) -> Result<BTreeMap<usize, Outcome>, Stop> {
        self.sync()?;
        let mut reader = Reader::new(Mode::History(Interval::ALL));
        reader.allow(self.allowed()?);
        let data = self.around.data();
        let items = self.around.read(self.device.at, &data, 0, usize::MAX)?;
        for item in &items {
            reader.handle(&self.run.view, &item.bytes);
        }
        reader.give_up(&self.run.view, true);
        let (mut order, mut outcomes) = (Order::default(), BTreeMap::new());
        while let Some(event) = reader.poll_event() {
            self.check(&event, &mut order)?;
            if let Some((header, outcome)) = outcome(&event)
                && let Some(message) = self.around.ground.message(&header)
            {
                let known = outcomes.entry(message.number).or_insert(outcome);
                if outcome == Outcome::Opened {
                    *known = outcome;
                }
            }
        }
        let opened = outcomes.values().filter(|of| **of == Outcome::Opened);
        let opened = opened.count();
        self.note(format_args!("opens {opened} of {} items", items.len()));
        Ok(outcomes)
    }

    /// What must hold whenever something is opened: somebody sealed exactly this, something
    /// entitles this device to it, it comes once, and in its publisher's order or with word of a
    /// gap.
    pub(super) fn check(
        &self,
        event: &Event,
        order: &mut Order,
    ) -> Result<Option<(usize, usize)>, Stop> {
        let device = self.device.at;
        if let Event::Noticed { header, notice, .. } = event
            && let Notice::Gap { .. } | Notice::Fork | Notice::Branch = notice
        {
            order.gaps.insert(header.device);
        }
        let Event::Opened {
            header,
            payload,
            parked,
            ..
        } = event
        else {
            return Ok(None);
        };
        let ground = &self.around.ground;
        let Some(message) = ground.message(header) else {
            let what = format!("an envelope of device {}", header.device);
            return Err(Violation::Forged { device, what }.into());
        };
        let mut payloads = message.payloads.iter();
        let Some(record) = payloads.position(|of| of == payload.expose()) else {
            let what = format!("another text of message {}", message.number);
            return Err(Violation::Forged { device, what }.into());
        };
        let message_no = message.number;
        let me = (self.device.user(), self.device.identity.device());
        if !crate::model::may_open(ground, &self.around.owner, me, &message.spot()) {
            return Err(Violation::OpenedWithoutRight {
                device,
                message: message_no,
            }
            .into());
        }
        if !order.opened.insert((message_no, record)) {
            return Err(Violation::OpenedTwice {
                device,
                message: message_no,
            }
            .into());
        }
        if *parked == Parked::Waited {
            // It comes behind what opened at once.
            return Ok(Some((message_no, record)));
        }
        let run = (header.device, header.instance);
        let highest = order.highest.entry(run).or_insert(header.seq);
        if header.seq < *highest && !order.gaps.contains(&header.device) {
            return Err(Violation::OutOfOrder {
                device,
                message: message_no,
            }
            .into());
        }
        *highest = header.seq.max(*highest);
        Ok(Some((message_no, record)))
    }
}

fn outcome(event: &Event) -> Option<(Header, Outcome)> {
    match event {
        Event::Opened { header, .. } => Some((*header, Outcome::Opened)),
        Event::Sealed {
            header, is_granted, ..
        } => {
            let is_granted = *is_granted;
            Some((*header, Outcome::Sealed { is_granted }))
        }
        Event::Rejected {
            header: Some(header),
            refusal,
            ..
        } => Some((*header, Outcome::Rejected(*refusal))),
        Event::Noticed {
            header,
            notice: Notice::Fork,
            ..
        } => Some((*header, Outcome::Fork)),
        Event::Rejected { header: None, .. } | Event::Noticed { .. } | Event::BadCover { .. } => {
            None
        }
    }
}

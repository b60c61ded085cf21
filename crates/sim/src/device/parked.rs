//! What waits for keys: into the store, and out of it.

use std::collections::BTreeMap;

use sealcast_engine::{Event, Parked, Parking};

use super::Acting;
use super::live::Live;
use crate::around::Stop;
use crate::plant::Plant;
use crate::violation::Violation;

/// Envelopes that are opened at once when their keys have come, and their bytes.
const REOPENED_AT_ONCE: usize = 256;
const REOPENED_BYTES: u64 = 1 << 20;

impl Acting<'_> {
    /// Lets wait what could not be opened.
    pub(super) fn park(&mut self, live: &mut Live) -> Result<(), Stop> {
        if !live.reader.has_unopened() {
            return Ok(());
        }
        let now = self.now();
        self.effect("park")?;
        let reader = &live.reader;
        let work = |parking: &mut Parking| {
            let parked = reader.unopened().map(|of| parking.admit(now, of));
            parked.collect::<Vec<_>>()
        };
        let parked = self.device.home.change_parked(&mut live.parking, work)?;
        live.parking.kept();
        for (of, parked) in live.reader.unopened().zip(&parked) {
            let message = self.around.ground.message(&of.header);
            if let Some(message) = message.filter(|_| *parked == Parked::Waits) {
                self.device.parked.borrow_mut().insert(message.number);
            }
        }
        live.reader.settle(parked);
        Ok(())
    }

    /// Finds what opens by now of what waits, and delivers it, before anything that came since.
    pub(super) fn release(&mut self, live: &mut Live) -> Result<(), Stop> {
        let mut highest = BTreeMap::new();
        loop {
            live.parking.look(&self.run.view);
            self.reopen(live, &mut highest)?;
            if !live.parking.wants_look() {
                break;
            }
        }
        let told = live.parking.take_told();
        live.reader.tell(told);
        self.deliver(live, &mut highest)?;
        let missing = live.parking.missing(&self.run.view);
        self.lack(missing);
        Ok(())
    }

    fn reopen(&mut self, live: &mut Live, highest: &mut Highest) -> Result<(), Stop> {
        while live.parking.has_due() {
            let home = &self.device.home;
            let taken = home.take_parked(&mut live.parking, REOPENED_AT_ONCE, REOPENED_BYTES)?;
            for (number, bytes) in taken {
                let reopened = live.reader.reopen(&self.run.view, number, &bytes);
                live.parking.put_back(number, reopened);
            }
            self.deliver(live, highest)?;
        }
        Ok(())
    }

    /// What waited and is refused now waits no more.
    fn note_given_up(&self, event: &Event) {
        let (header, parked) = match event {
            Event::Sealed { header, parked, .. } => (Some(header), parked),
            Event::Rejected { header, parked, .. } => (header.as_ref(), parked),
            Event::Opened { .. } | Event::Noticed { .. } | Event::BadCover { .. } => return,
        };
        let is_over = !matches!(parked, Parked::No | Parked::Waits);
        let message = header.and_then(|header| self.around.ground.message(header));
        if let Some(message) = message.filter(|_| is_over) {
            self.device.parked.borrow_mut().remove(&message.number);
        }
    }

    /// Hands out what was opened, and notes that what had waited is handed out.
    pub(super) fn deliver(&mut self, live: &mut Live, highest: &mut Highest) -> Result<(), Stop> {
        let mut events = live.reader.take_events();
        let (mut count, mut waited) = (0, Vec::new());
        while let Some(event) = events.poll() {
            self.note_event(&event);
            self.note_given_up(&event);
            let Some(record) = self.check(&event, &mut live.order)? else {
                let gaps = live.order.gaps().iter();
                self.device.gaps.borrow_mut().extend(gaps);
                continue;
            };
            count += 1;
            if self.device.has_delivered(&record) {
                let (device, message) = (self.device.at, record.0);
                return Err(Violation::OpenedTwice { device, message }.into());
            }
            if let Event::Opened { header, parked, .. } = &event
                && *parked == Parked::Waited
            {
                let last = highest.entry((header.device, header.instance)).or_insert(0);
                if header.seq < *last && !self.device.gaps.borrow().contains(&header.device) {
                    let (device, message) = (self.device.at, record.0);
                    return Err(Violation::OutOfOrder { device, message }.into());
                }
                *last = header.seq;
                waited.push(record);
            } else {
                live.new.insert(record);
            }
        }
        if count > 0 {
            let from_parked = waited.len();
            self.note(format_args!(
                "opens {count} records live, {from_parked} had waited"
            ));
        }
        let done = events.take_done();
        if done.is_empty() {
            return Ok(());
        }
        self.effect("note what was handed out")?;
        if self.around.plant != Some(Plant::DeliverAgain) {
            live.parking.hand_out(done);
            let home = &self.device.home;
            home.change_parked(&mut live.parking, Parking::record_handed_out)?;
            live.parking.kept();
        }
        for _ in &waited {
            self.around.count_asking("record that had waited");
        }
        self.device.delivered.borrow_mut().extend(waited);
        Ok(())
    }
}

/// The highest number of each run that was delivered of what had waited, at one look.
pub(super) type Highest =
    BTreeMap<(sealcast_protocol::DeviceId, sealcast_protocol::InstanceId), u32>;

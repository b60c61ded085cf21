//! A bus that was put back to an older state, and a home that was.

use std::collections::BTreeSet;
use std::sync::Arc;

use sealcast_engine::{Alarm, ControlTopic, Space};
use sealcast_protocol::{
    CardList, Deal, DeviceId, EnvelopeView, ListEntry, Position, SessionRecord, Unverified,
};

use super::Acting;
use crate::around::Stop;

/// Items at the end of the data topic among which this device's newest envelope is looked for.
const LOOK_BACK: u64 = 64;

impl Acting<'_> {
    /// The bus lost what it showed: the next message starts another session, and what the topic
    /// still shows of keys is noted anew.
    pub(crate) fn roll_back(&mut self, of: &ControlTopic) -> Result<(), Stop> {
        self.tell(Alarm::WentBack(*of));
        if *of != ControlTopic::Keys {
            return Ok(());
        }
        self.effect("end its session")?;
        self.device.home.change_lane(|lane, _| {
            lane.end_session();
            Ok(())
        })?;
        let users = self.run.view.forget_given();
        self.run.lost_keys.extend(users);
        self.drain();
        self.forget_puts(|put| put.space == Space::Delivered);
        Ok(())
    }

    /// Puts back what the bus lost of this device's own objects and, on a device of the owner or an
    /// admin, of everybody's. Returns whether it wrote anything.
    pub(crate) fn put_back(&mut self) -> Result<bool, Stop> {
        let mut has_written = false;
        for of in self.run.gone_back.clone() {
            if self.is_in_charge_of(&of) {
                match self.put_back_topic(&of) {
                    Ok(written) => has_written |= written,
                    Err(Stop::Unreachable) => continue,
                    Err(stop) => return Err(stop),
                }
            }
            self.run.gone_back.remove(&of);
        }
        Ok(has_written)
    }

    fn is_in_charge_of(&self, of: &ControlTopic) -> bool {
        let view = &self.run.view;
        let me = view.me();
        let is_own = match of {
            ControlTopic::Devices(user) => *user == me.0,
            ControlTopic::Access(user, device) => (*user, *device) == me,
            ControlTopic::Keys => true,
        };
        is_own || view.rules()
    }

    /// Appends what is known of a topic and not shown there, in its order.
    pub(crate) fn put_back_topic(&mut self, of: &ControlTopic) -> Result<bool, Stop> {
        let name = of.name(self.around.stream);
        let lacking = self.lost_of(of)?;
        if lacking.is_empty() {
            return Ok(false);
        }
        self.note(format_args!("puts {} items back", lacking.len()));
        self.around.append(self.device.at, &name, &lacking)?;
        Ok(true)
    }

    /// What is known of a topic and not shown there, in its order.
    pub(super) fn lost_of(&mut self, of: &ControlTopic) -> Result<Vec<Vec<u8>>, Stop> {
        let name = of.name(self.around.stream);
        let mut lacking = self.known_of(of)?;
        let shown = self.around.read(self.device.at, &name, 0, usize::MAX)?;
        if let ControlTopic::Devices(user) = of {
            let mut list = CardList::new(*user);
            for item in &shown {
                let _is_next = list.apply(&item.bytes).is_ok();
            }
            let is_behind = |known: &Vec<u8>| {
                let entry = Unverified::<ListEntry>::decode(known);
                entry.is_ok_and(|entry| entry.claims().seq >= list.next_seq())
            };
            lacking.retain(is_behind);
        } else {
            let shown: BTreeSet<Arc<[u8]>> = shown.into_iter().map(|item| item.bytes).collect();
            lacking.retain(|known| !shown.contains(known.as_slice()));
        }
        Ok(lacking)
    }

    fn known_of(&self, of: &ControlTopic) -> Result<Vec<Vec<u8>>, Stop> {
        let (home, view) = (&self.device.home, &self.run.view);
        match of {
            ControlTopic::Devices(user) => {
                let entries = home.list_entries()?.into_iter();
                let of_user = entries.filter(|(of, _)| of == user);
                Ok(of_user.map(|(_, entry)| entry).collect())
            }
            ControlTopic::Access(user, device) => {
                let entries = view.log().entries();
                let of_device =
                    entries.filter(|of| (of.body().user, of.body().device) == (*user, *device));
                let mut known: Vec<_> = of_device.map(|of| of.wire().to_vec()).collect();
                let newest = home.newest_entry()?;
                let newest = newest.filter(|own| (*user, *device) == view.me() && own.is_sent);
                known.extend(newest.map(|own| own.wire));
                known.dedup();
                Ok(known)
            }
            ControlTopic::Keys => {
                let (rules, me) = (view.rules(), view.me().1);
                let mut known = Vec::new();
                for space in [Space::Record, Space::Deal] {
                    let wires = home.of_stream(space)?.into_iter();
                    let wires = wires.map(|(_, wire)| wire.expose().to_vec());
                    known.extend(wires.filter(|wire| rules || author_of(wire) == Some(me)));
                }
                let made = home.of_stream(Space::OwnSegments)?.into_iter();
                known.extend(made.map(|(_, wire)| wire.expose().to_vec()));
                Ok(known)
            }
        }
    }

    /// Looks at the end of the data topic for envelopes of this device at positions that its home
    /// does not know of.
    pub(crate) fn look_back(&mut self) -> Result<(), Stop> {
        if !self.has_lane() {
            return Ok(());
        }
        let mark = self.device.home.lane()?.mark;
        let (data, who) = (self.around.data(), self.device.at);
        let end = self.around.end(who, &data)?;
        let from = end.saturating_sub(LOOK_BACK);
        let mut newest = mark;
        for item in self.around.read(who, &data, from, usize::MAX)? {
            newest = self.sealed_above(newest, &item.bytes).unwrap_or(newest);
        }
        if newest == mark {
            return Ok(());
        }
        self.effect("move its mark")?;
        self.device.home.change_lane(|lane, _| {
            lane.seal_at(newest);
            Ok(())
        })?;
        self.tell(Alarm::HomeWentBack);
        Ok(())
    }

    fn sealed_above(&self, mark: Position, item: &[u8]) -> Option<Position> {
        let envelope = EnvelopeView::parse(item).ok()?;
        let header = *envelope.header();
        let identity = &self.device.identity;
        let is_own = header.device == identity.device();
        if !is_own || header.flags.backfill || header.position <= mark {
            return None;
        }
        let key = identity.signing().verifying_key();
        let stream = self.around.stream;
        let bound = envelope.bind(&stream, b"");
        bound.verify(&key).is_ok().then_some(header.position)
    }
}

/// Who announced a session, or dealt.
fn author_of(wire: &[u8]) -> Option<DeviceId> {
    let record = Unverified::<SessionRecord>::decode(wire);
    let deal = Unverified::<Deal>::decode(wire);
    let author = record.map(|of| of.claims().device).ok();
    author.or_else(|| deal.map(|of| of.claims().dealer.device).ok())
}

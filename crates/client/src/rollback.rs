//! A bus that was put back to an older state, and a home that was.

use std::collections::BTreeSet;

use sealcast_bus::Offset;
use sealcast_engine::{Alarm, ControlTopic, Space};
use sealcast_protocol::{
    CardList, DataItem, Deal, DeviceId, ListEntry, ListFault, Position, SessionRecord, StreamId,
    Unverified,
};

use crate::blocking::off_thread;
use crate::core::{Core, Reading};
use crate::damage::read_past;
use crate::error::Error;
use crate::home::topic;
use crate::vault::Vault;

/// Items at the end of the data topic among which this device's newest envelope is looked for.
const LOOK_BACK: u64 = 64;

impl Core {
    /// The bus lost what it showed. The record of this device's session may be among it, and keys
    /// that others were given: the next message starts another session, and what the topic still
    /// shows of keys is noted anew.
    pub(crate) async fn roll_back(&self, of: &ControlTopic) -> Result<(), Error> {
        self.tell([Alarm::WentBack(*of)]);
        if *of != ControlTopic::Keys {
            return Ok(());
        }
        let (vault, stream) = (self.vault().clone(), self.id());
        off_thread(move || {
            vault.change_lane(&stream, |lane, _| {
                lane.end_session();
                Ok(())
            })
        })
        .await??;
        let users = self.view().forget_given();
        self.lose_keys(users);
        let alarms = self.drain();
        self.tell(alarms);
        let mut unkept = self.unkept();
        unkept.puts.retain(|put| put.space != Space::Delivered);
        unkept.forgets_given = true;
        Ok(())
    }

    /// Puts back on the bus what it lost of this device's own objects and, on a device of the owner
    /// or an admin, of everybody's; a key node puts back access log and device lists, by which it
    /// decides. Returns whether it wrote anything. Where the bus takes nothing,
    /// it is tried again by the next reading.
    pub(crate) async fn put_back(&self, reading: &mut Reading) -> Result<bool, Error> {
        let mut has_written = false;
        for of in reading.gone_back.clone() {
            if self.is_in_charge_of(&of) {
                match self.put_back_topic(&of).await {
                    Ok(written) => has_written |= written,
                    Err(Error::Bus(_)) => continue,
                    Err(error) => return Err(error),
                }
            }
            reading.gone_back.remove(&of);
        }
        Ok(has_written)
    }

    fn is_in_charge_of(&self, of: &ControlTopic) -> bool {
        let view = self.view();
        let (me, my_device) = view.me();
        let is_own = match of {
            ControlTopic::Devices(user) => *user == me || view.is_key_node(),
            ControlTopic::Access(user, device) => {
                (*user, *device) == (me, my_device) || view.is_key_node()
            }
            ControlTopic::Keys => true,
        };
        is_own || view.rules()
    }

    /// What is known of a topic and not shown there, in its order.
    pub(crate) async fn lost_of(&self, of: &ControlTopic) -> Result<Vec<Vec<u8>>, Error> {
        let on_bus = topic(&of.name(self.id()))?;
        let mut lacking = self.known_of(of).await?;
        let mut list = match of {
            ControlTopic::Devices(user) => Some(CardList::new(*user)),
            ControlTopic::Access(..) | ControlTopic::Keys => None,
        };
        let (mut at, end) = (Offset(0), self.bus.end(&on_bus).await?);
        loop {
            let items = read_past(&*self.bus, &on_bus, at, end).await?;
            let Some(last) = items.last() else {
                break;
            };
            at = Offset(last.offset.0.saturating_add(1));
            if let Some(list) = &mut list {
                for item in &items {
                    let _is_next = list.apply(&item.payload).is_ok();
                }
                continue;
            }
            let shown: BTreeSet<_> = items.iter().map(|item| &item.payload).collect();
            lacking.retain(|known| !shown.contains(known));
        }
        // An entry of a list counts behind the one before it; where it lies ahead of that, nobody
        // takes it.
        if let Some(mut list) = list {
            let is_behind = |known: &Vec<u8>| {
                let entry = Unverified::<ListEntry>::decode(known);
                entry.is_ok_and(|entry| entry.claims().seq >= list.next_seq())
            };
            lacking.retain(is_behind);
            // Behind a fork of what is known neither, and that is an alarm of its own.
            let first = lacking.first().map(|known| list.apply(known));
            if let Some(Err(ListFault::Forked { .. } | ListFault::Contradicted { .. })) = first {
                lacking.clear();
            }
        }
        Ok(lacking)
    }

    /// Appends what is known of a topic and not shown there, in its order.
    pub(crate) async fn put_back_topic(&self, of: &ControlTopic) -> Result<bool, Error> {
        let on_bus = topic(&of.name(self.id()))?;
        let mut lacking = self.lost_of(of).await?;
        let has_any = !lacking.is_empty();
        let limit = self.bus.limits().batch_max;
        while !lacking.is_empty() {
            let mut size = 0;
            let fits = lacking.iter().take_while(|item| {
                size += item.len();
                size <= limit
            });
            let count = fits.count().clamp(1, lacking.len());
            let rest = lacking.split_off(count);
            self.bus.append(&on_bus, lacking).await?;
            lacking = rest;
        }
        Ok(has_any)
    }

    /// What this home knows of a topic: all entries of a list or a chain; of the records, those that
    /// this device signed, or all where it rules.
    async fn known_of(&self, of: &ControlTopic) -> Result<Vec<Vec<u8>>, Error> {
        let (vault, stream, of) = (self.vault().clone(), self.id(), *of);
        match of {
            ControlTopic::Devices(user) => {
                let entries = off_thread(move || vault.list_from_checkpoint(user)).await??;
                Ok(entries.into_iter().map(|entry| entry.0).collect())
            }
            ControlTopic::Access(user, device) => {
                let newest = off_thread(move || vault.newest_entry(&stream)).await??;
                let view = self.view();
                let entries = view.log().entries();
                let of_device =
                    entries.filter(|of| (of.body().user, of.body().device) == (user, device));
                let mut known: Vec<_> = of_device.map(|of| of.wire().to_vec()).collect();
                let is_own = (user, device) == view.me();
                known.extend(
                    newest
                        .filter(|own| is_own && own.is_sent)
                        .map(|own| own.wire),
                );
                known.dedup();
                Ok(known)
            }
            ControlTopic::Keys => {
                let (rules, me) = (self.view().rules(), self.identity().device());
                off_thread(move || known_keys(&vault, &stream, |device| rules || device == me))
                    .await?
            }
        }
    }

    /// Looks at the end of the data topic for envelopes of this device at positions that its home
    /// does not know of: the home was put back to an older state, and must not seal below them. One
    /// that was restored from a backup looks through all of the topic once.
    pub(crate) async fn look_back(&self) -> Result<(), Error> {
        if !self.has_lane() {
            return Ok(());
        }
        let (vault, stream) = (self.vault().clone(), self.id());
        let known =
            off_thread(move || Ok::<_, Error>((vault.lane(&stream)?, vault.is_restored(&stream)?)));
        let (lane, is_restored) = known.await??;
        let newest = self.newest_sealed(lane.mark, is_restored).await?;
        if newest == lane.mark && !is_restored {
            return Ok(());
        }
        // Another process of the home may have sealed it since the mark was read.
        let (vault, stream) = (self.vault().clone(), self.id());
        let is_ahead = off_thread(move || {
            let is_ahead = vault.change_lane(&stream, |lane, _| {
                let is_ahead = newest > lane.mark;
                lane.seal_at(newest);
                Ok(is_ahead)
            })?;
            vault.caught_up(&stream)?;
            Ok::<_, Error>(is_ahead)
        });
        self.tell(is_ahead.await??.then_some(Alarm::HomeWentBack));
        Ok(())
    }

    /// The highest position above a mark that this device has sealed at, or the mark.
    async fn newest_sealed(&self, mark: Position, in_all: bool) -> Result<Position, Error> {
        let data = self.data_topic()?;
        let end = self.bus.end(&data).await?;
        let mut at = match in_all {
            true => Offset(0),
            false => Offset(end.0.saturating_sub(LOOK_BACK)),
        };
        let mut newest = mark;
        loop {
            let items = read_past(&*self.bus, &data, at, end).await?;
            let Some(last) = items.last() else {
                return Ok(newest);
            };
            at = Offset(last.offset.0.saturating_add(1));
            for item in &items {
                newest = self.sealed_above(newest, &item.payload).unwrap_or(newest);
            }
        }
    }

    /// Where an item lies, if it is a live envelope above a position that this device signed.
    fn sealed_above(&self, mark: Position, item: &[u8]) -> Option<Position> {
        let envelope = DataItem::parse(item).ok()?;
        let header = *envelope.header();
        let is_own = header.device == self.identity().device();
        if !is_own || header.flags.backfill || header.position <= mark {
            return None;
        }
        let stream = self.id();
        let key = self.identity().signing().verifying_key();
        let bound = envelope.bind(&stream);
        bound.verify(&key).is_ok().then_some(header.position)
    }
}

/// Session records and deals to key nodes of some devices, and the segment records that this one made.
fn known_keys(
    vault: &Vault,
    stream: &StreamId,
    is_put_back: impl Fn(DeviceId) -> bool,
) -> Result<Vec<Vec<u8>>, Error> {
    let record_of = |wire: &[u8]| {
        let record = Unverified::<SessionRecord>::decode(wire).ok()?;
        Some(record.claims().device)
    };
    let deal_of = |wire: &[u8]| {
        let deal = Unverified::<Deal>::decode(wire).ok()?;
        Some(deal.claims().dealer.device)
    };
    let mut known = Vec::new();
    for space in [Space::Record, Space::Deal] {
        for (_, wire) in vault.of_stream(space, stream)? {
            let wire = wire.expose();
            let of = record_of(wire).or_else(|| deal_of(wire));
            if of.is_some_and(&is_put_back) {
                known.push(wire.to_vec());
            }
        }
    }
    for (_, wire) in vault.of_stream(Space::OwnSegments, stream)? {
        known.push(wire.expose().to_vec());
    }
    Ok(known)
}

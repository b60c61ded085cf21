//! Makes durable what was learned of a stream, with how far its topics were read.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use sealcast_crypto::leaving_no_trace;
use sealcast_engine::{Alarm, ControlTopic, Output, Put, Space};
use sealcast_protocol::{DeviceId, LogBody, LogEntry, StreamId, Unverified};

use super::{Core, Reading, lock};
use crate::blocking::off_thread;
use crate::error::Error;
use crate::place::{Keeping, Place};
use crate::vault::{News, Placed, Vault, topic_id};

impl Core {
    pub(super) fn move_to(&self, reading: &mut Reading, topic: [u8; 32], place: Place) {
        let is_owed = reading.places.shown(&topic).is_some();
        if reading.places.of(&topic) != place || is_owed {
            self.unkept().moved.insert(topic, place);
        }
        reading.places.set(topic, place, self.now());
    }

    /// Makes durable what was learned. How far a topic was read is kept with it, or later; how far it
    /// was shown, with it, unless the bus went back since.
    pub(super) async fn keep(&self, reading: &mut Reading) -> Result<(), Error> {
        // What follows from it says how far the topics count as read.
        leaving_no_trace(|| self.view().settle());
        let alarms = self.drain();
        self.tell(alarms);
        // Behind that, so that what has the keys read again is kept without that by nobody.
        let (places, held_back) = self.due(reading);
        let (vault, ticket, unkept) = (
            self.vault().clone(),
            self.ticket.clone(),
            self.unkept.clone(),
        );
        let (stream, me) = (self.id(), self.identity().device());
        let lost = reading.lost.due();
        let kept = off_thread(move || {
            let mut unkept = lock(&unkept);
            let is_clone = has_unknown(&vault, &stream, me, &unkept.puts)?;
            let mut news = News {
                puts: std::mem::take(&mut unkept.puts),
                places,
                forgets_given: unkept.forgets_given,
                lost,
            };
            // Whatever comes of it: what is not kept is learned still, and kept the next time.
            let kept = catch_unwind(AssertUnwindSafe(|| vault.keep(&ticket, &news)));
            if !matches!(kept, Ok(Ok(()))) {
                unkept.puts.append(&mut news.puts);
            }
            kept.unwrap_or_else(|panicked| resume_unwind(panicked))?;
            unkept.forgets_given = false;
            unkept.moved.retain(|topic, _| held_back.contains(topic));
            Ok::<_, Error>((is_clone, news))
        });
        let (is_clone, kept) = kept.await??;
        reading.lost.keep(&kept.lost);
        for (topic, reached) in kept.places {
            reading.places.keep(topic, reached);
        }
        self.tell(is_clone.then_some(Alarm::HomeWentBack));
        Ok(())
    }

    /// What to keep of how far topics were read, and of which not all that was read counts as that.
    fn due(&self, reading: &Reading) -> (Vec<Placed>, BTreeSet<[u8; 32]>) {
        let id = |of: &ControlTopic| topic_id(&of.name(self.id()));
        let keys = id(&ControlTopic::Keys);
        let gone_back: BTreeSet<_> = reading.gone_back.iter().map(id).collect();
        let mut held_back = gone_back.clone();
        let (is_owed, by) = {
            let view = self.view();
            let hidden = view.hidden_lists().into_iter();
            held_back.extend(hidden.map(|user| id(&ControlTopic::Devices(user))));
            held_back.extend(view.has_waiting().then_some(keys));
            let is_owed = reading.rereads_keys || view.owes_reread();
            (is_owed, view.read_by())
        };
        let mut unkept = self.unkept();
        if is_owed {
            held_back.insert(keys);
        }
        // By what they were read may have changed alone.
        let place = reading.places.of(&keys);
        unkept.moved.entry(keys).or_insert(place);
        let due = unkept.moved.iter().filter_map(|(topic, place)| {
            let keeping = match (gone_back.contains(topic), held_back.contains(topic)) {
                (true, _) if is_owed && *topic == keys => Keeping::StartAsShown,
                (true, _) => return None,
                (false, true) if is_owed && *topic == keys => Keeping::Start,
                (false, true) => Keeping::AsItWas,
                (false, false) => Keeping::Read,
            };
            let by = (*topic == keys).then_some(by);
            let reached = reading.places.due(*topic, *place, by, keeping)?;
            Some((*topic, reached))
        });
        let due = due.collect();
        (due, held_back)
    }

    /// Takes out what the view wants kept or told.
    pub(crate) fn drain(&self) -> Vec<Alarm> {
        let mut alarms = Vec::new();
        let (mut view, mut unkept) = (self.view(), lock(&self.unkept));
        while let Some(output) = view.poll_output() {
            match output {
                Output::Persist(put) => unkept.puts.push(put),
                Output::Tell(alarm) => alarms.push(alarm),
            }
        }
        alarms
    }
}

/// Whether the bus showed something of this device that no process of the home wrote: whatever they
/// write is in the store before it is on the bus.
fn has_unknown(
    vault: &Vault,
    stream: &StreamId,
    me: DeviceId,
    puts: &[Put],
) -> Result<bool, Error> {
    let is_own = |put: &&Put| match put.space {
        Space::Record => put.id.ends_with(&me.0),
        Space::LogEntry => Unverified::<LogEntry>::decode(put.value.expose()).is_ok_and(|entry| {
            let is_first = matches!(entry.claims().body, LogBody::Genesis(_));
            entry.claims().device == me && !is_first
        }),
        Space::Home
        | Space::Contact
        | Space::Stream
        | Space::ListEntry
        | Space::Root
        | Space::Cover
        | Space::Delivered
        | Space::Cursor
        | Space::Lane
        | Space::Track
        | Space::OwnEntry
        | Space::Drawn
        | Space::OwnListEntry
        | Space::DeviceName
        | Space::Parked
        | Space::ParkedEnvelope
        | Space::Shelf
        | Space::ShelfContent
        | Space::Deal
        | Space::SegmentRecords
        | Space::LaneSecret
        | Space::OwnSegments
        | Space::Audit
        | Space::AuditEnd
        | Space::Lost => false,
    };
    for put in puts.iter().filter(is_own) {
        let newest = vault.newest_entry(stream)?;
        let is_newest = newest.is_some_and(|own| own.wire == put.value.expose());
        if !is_newest && !vault.holds(put)? {
            return Ok(true);
        }
    }
    Ok(false)
}

//! What a store kept of a stream comes back.

use std::collections::BTreeSet;

use sealcast_engine::{Alarm, ControlTopic, Output, Space, StreamView};
use sealcast_protocol::{DeviceId, SessionId, StreamId, Ticket};

use crate::error::Error;
use crate::home::Inner;
use crate::place::{Place, Places};
use crate::vault::{Vault, topic_id};

pub(super) struct Restored {
    pub(super) view: StreamView,
    pub(super) places: Places,
    /// Topics of which the bus showed less than is known here.
    pub(super) lost: BTreeSet<[u8; 32]>,
    pub(super) alarms: Vec<Alarm>,
}

/// Places are read first: what another process keeps in between is read twice rather than never.
pub(super) fn restored(home: &Inner, ticket: &Ticket) -> Result<Restored, Error> {
    let (vault, stream) = (&home.vault, ticket.stream());
    let places = Places::new(vault.places(ticket)?);
    let lost = vault.lost(&stream)?;
    let mut view = StreamView::new(stream, ticket.owner(), &home.identity);
    for (user, entry) in vault.list_entries()? {
        view.handle(&ControlTopic::Devices(user), entry.expose());
    }
    for (_, entry) in vault.of_stream(Space::LogEntry, &stream)? {
        view.restore_log_entry(entry.expose());
    }
    view.settle();
    restore_keys(&mut view, vault, stream)?;
    let keys = topic_id(&ControlTopic::Keys.name(stream));
    if places.of(&keys) != Place::default() {
        view.restore_read_by(places.by(&keys));
    }
    let outputs = std::iter::from_fn(|| view.poll_output());
    let alarms = outputs.filter_map(|output| match output {
        Output::Tell(alarm) => Some(alarm),
        Output::Persist(_) => None,
    });
    let alarms = alarms.collect();
    Ok(Restored {
        view,
        places,
        lost,
        alarms,
    })
}

fn restore_keys(view: &mut StreamView, vault: &Vault, stream: StreamId) -> Result<(), Error> {
    let session = |id: &[u8]| id.first_chunk().map(|id| SessionId(*id));
    for (id, root) in vault.of_stream(Space::Root, &stream)? {
        if let Some(session) = session(&id) {
            view.restore_root(session, &root);
        }
    }
    for space in [Space::Record, Space::Deal, Space::SegmentRecords] {
        for (_, item) in vault.of_stream(space, &stream)? {
            view.handle(&ControlTopic::Keys, item.expose());
        }
    }
    for (id, cover) in vault.of_stream(Space::Cover, &stream)? {
        if let Some(session) = session(&id) {
            view.restore_cover(session, &cover);
        }
    }
    for (id, given) in vault.of_stream(Space::Delivered, &stream)? {
        let device = id
            .get(16..)
            .and_then(|id| id.first_chunk())
            .map(|id| DeviceId(*id));
        if let (Some(session), Some(device)) = (session(&id), device) {
            view.restore_delivered(session, device, given.expose());
        }
    }
    view.settle();
    Ok(())
}

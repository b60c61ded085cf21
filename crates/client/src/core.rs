//! One opened stream: its view, kept in step with the bus and the store.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sealcast_bus::{Bus, Offset, Topic};
use sealcast_engine::{Alarm, ControlTopic, Identity, Output, Put, Space, StreamView};
use sealcast_protocol::{
    DeviceId, Name, Position, SessionId, StreamId, StreamTopics, Ticket, UserId,
};

use crate::blocking::off_thread;
use crate::clock;
use crate::error::Error;
use crate::home::{Inner, topic};
use crate::vault::{Cursors, Vault, topic_id};

/// Bytes that are read from a topic at once.
pub(crate) const READ_BYTES: usize = 1 << 20;
/// How old the reading of the access log may be when something is sealed. The promise is 5 s.
const FRESH_FOR: Duration = Duration::from_millis(FRESH_MS);
const FRESH_MS: u64 = 3_000;

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) home: Arc<Inner>,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) ticket: Ticket,
    pub(crate) name: Name,
    view: Mutex<StreamView>,
    place: tokio::sync::Mutex<Place>,
    alarms: Mutex<Vec<Alarm>>,
}

/// How far the control topics were read, and when.
#[derive(Debug)]
struct Place {
    cursors: Cursors,
    read_at: Option<(Instant, Position)>,
    /// What the store has not taken yet.
    unkept: Vec<Put>,
    moved: BTreeMap<String, Offset>,
}

impl Core {
    /// Takes back what the store keeps, and reads on from there.
    pub(crate) async fn open(
        home: Arc<Inner>,
        bus: Arc<dyn Bus>,
        ticket: Ticket,
        name: Name,
    ) -> Result<Arc<Self>, Error> {
        let (of, stream) = (home.clone(), ticket.stream());
        let owner = ticket.owner();
        let (view, cursors, alarms) = off_thread(move || restore(&of, stream, owner)).await??;
        let core = Arc::new(Self {
            home,
            bus,
            ticket,
            name,
            view: Mutex::new(view),
            place: tokio::sync::Mutex::new(Place {
                cursors,
                read_at: None,
                unkept: Vec::new(),
                moved: BTreeMap::new(),
            }),
            alarms: Mutex::new(alarms),
        });
        core.sync().await?;
        core.resend_entry().await?;
        Ok(core)
    }

    pub(crate) fn id(&self) -> StreamId {
        self.ticket.stream()
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.home.identity
    }

    pub(crate) fn vault(&self) -> &Vault {
        &self.home.vault
    }

    pub(crate) fn view(&self) -> MutexGuard<'_, StreamView> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn data_topic(&self) -> Result<Topic, Error> {
        topic(&StreamTopics(self.id()).data())
    }

    pub(crate) async fn append(&self, name: &str, payload: Vec<u8>) -> Result<(), Error> {
        self.bus.append(&topic(name)?, vec![payload]).await?;
        Ok(())
    }

    pub(crate) fn take_alarms(&self) -> Vec<Alarm> {
        std::mem::take(&mut *self.alarms.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The control topics and where to read on in each.
    pub(crate) async fn control_places(&self) -> Result<Vec<(Topic, Offset)>, Error> {
        let place = self.place.lock().await;
        let wanted = self.view().wanted();
        let names = wanted.iter().map(|of| of.name(self.id()));
        names
            .map(|name| {
                let at = place
                    .cursors
                    .get(&topic_id(&name))
                    .copied()
                    .unwrap_or(Offset(0));
                Ok((topic(&name)?, at))
            })
            .collect()
    }

    /// Reads the control topics again if the last reading is too old to seal by. Both clocks are
    /// asked: one stands still while the machine sleeps, the other may be set.
    pub(crate) async fn freshen(&self) -> Result<(), Error> {
        let read_at = self.place.lock().await.read_at;
        let is_fresh = read_at.is_some_and(|(at, time)| {
            at.elapsed() < FRESH_FOR && clock::now().0.abs_diff(time.0) < FRESH_MS
        });
        match is_fresh {
            true => Ok(()),
            false => self.sync().await,
        }
    }

    /// Reads every control topic to its end, until none names another, and keeps what it learns.
    /// What the store does not take is offered to it again by the next call.
    pub(crate) async fn sync(&self) -> Result<(), Error> {
        let mut place = self.place.lock().await;
        let started = (Instant::now(), clock::now());
        loop {
            let wanted = self.view().wanted();
            let mut is_news = false;
            for of in wanted.iter().filter(|of| **of != ControlTopic::Keys) {
                is_news |= self.read_on(of, &mut place).await?;
            }
            if !is_news {
                break;
            }
            self.view().settle();
        }
        self.read_on(&ControlTopic::Keys, &mut place).await?;
        self.view().settle();
        self.drain(&mut place.unkept);
        self.keep(&mut place).await?;
        place.read_at = Some(started);
        Ok(())
    }

    async fn keep(&self, place: &mut Place) -> Result<(), Error> {
        let keys = ControlTopic::Keys.name(self.id());
        let has_waiting = self.view().has_waiting();
        let can_move = |name: &String| !(has_waiting && *name == keys);
        let moved: Vec<_> = place
            .moved
            .iter()
            .filter(|(name, _)| can_move(name))
            .collect();
        let moved: Vec<_> = moved
            .into_iter()
            .map(|(name, at)| (name.clone(), *at))
            .collect();
        let (vault, stream) = (self.vault().clone(), self.id());
        let puts = std::mem::take(&mut place.unkept);
        let (kept, puts) = off_thread(move || (vault.keep(&stream, &puts, &moved), puts)).await?;
        match kept {
            Ok(()) => place.moved.clear(),
            Err(_) => place.unkept = puts,
        }
        kept
    }

    /// Reads one topic to its end. A bus that shows less than before is read from its start again.
    async fn read_on(&self, of: &ControlTopic, place: &mut Place) -> Result<bool, Error> {
        let name = of.name(self.id());
        let on_bus = topic(&name)?;
        let mut from = place
            .cursors
            .get(&topic_id(&name))
            .copied()
            .unwrap_or(Offset(0));
        if from > Offset(0) && self.bus.end(&on_bus).await? < from {
            self.tell([Alarm::WentBack(*of)]);
            from = Offset(0);
            place.cursors.insert(topic_id(&name), from);
        }
        let mut is_news = false;
        loop {
            let items = self.bus.read(&on_bus, from, READ_BYTES).await?;
            let Some(last) = items.last() else {
                break;
            };
            from = Offset(last.offset.0 + 1);
            is_news = true;
            let mut view = self.view();
            for item in &items {
                view.handle(of, &item.payload);
            }
        }
        if is_news {
            place.cursors.insert(topic_id(&name), from);
            place.moved.insert(name, from);
        }
        Ok(is_news)
    }

    fn drain(&self, puts: &mut Vec<Put>) {
        let mut view = self.view();
        while let Some(output) = view.poll_output() {
            match output {
                Output::Persist(put) => puts.push(put),
                Output::Tell(alarm) => self.tell([alarm]),
            }
        }
    }

    pub(crate) fn tell(&self, alarms: impl IntoIterator<Item = Alarm>) {
        let mut told = self.alarms.lock().unwrap_or_else(PoisonError::into_inner);
        told.extend(alarms);
    }

    /// Takes a session that another process of this home started from the store.
    pub(crate) fn adopt_session(&self, session: SessionId) -> Result<bool, Error> {
        let device = self.identity().device();
        let Some((record, root)) = self.vault().session(&self.id(), &session, &device)? else {
            return Ok(false);
        };
        let mut view = self.view();
        view.restore_root(session, &root);
        view.handle(&ControlTopic::Keys, record.expose());
        Ok(view.record(&session, &device).is_some())
    }
}

type Restored = (StreamView, Cursors, Vec<Alarm>);

/// Cursors are read first: what another process keeps in between is read twice rather than never.
fn restore(home: &Inner, stream: StreamId, owner: UserId) -> Result<Restored, Error> {
    let vault = &home.vault;
    let cursors = vault.cursors(&stream)?;
    let mut view = StreamView::new(stream, owner, &home.identity);
    for (user, entry) in vault.list_entries()? {
        view.handle(&ControlTopic::Devices(user), entry.expose());
    }
    for (_, entry) in vault.of_stream(Space::LogEntry, &stream)? {
        view.restore_log_entry(entry.expose());
    }
    view.settle();
    restore_keys(&mut view, vault, stream)?;
    let outputs = std::iter::from_fn(|| view.poll_output());
    let alarms = outputs.filter_map(|output| match output {
        Output::Tell(alarm) => Some(alarm),
        Output::Persist(_) => None,
    });
    let alarms = alarms.collect();
    Ok((view, cursors, alarms))
}

fn restore_keys(view: &mut StreamView, vault: &Vault, stream: StreamId) -> Result<(), Error> {
    let session = |id: &[u8]| id.first_chunk().map(|id| SessionId(*id));
    for (id, root) in vault.of_stream(Space::Root, &stream)? {
        if let Some(session) = session(&id) {
            view.restore_root(session, &root);
        }
    }
    for (_, record) in vault.of_stream(Space::Record, &stream)? {
        view.handle(&ControlTopic::Keys, record.expose());
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

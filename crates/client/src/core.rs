//! One opened stream: its view, kept in step with the bus and the store.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sealcast_bus::{Bus, Offset, Topic};
use sealcast_crypto::leaving_no_trace;
use sealcast_engine::{Alarm, ControlTopic, Identity, Output, Put, Space, StreamView};
use sealcast_protocol::{
    DeviceId, Name, Position, SessionId, StreamId, StreamTopics, Ticket, UserId,
};

use crate::blocking::off_thread;
use crate::error::Error;
use crate::home::{Inner, topic};
use crate::vault::{Cursors, Vault, topic_id};

/// Bytes that are read from a topic at once.
pub(crate) const READ_BYTES: usize = 1 << 20;
/// How old the reading of the access log may be when a batch is drawn up.
const FRESH_FOR: Duration = Duration::from_secs(3);
/// How old it may be when the batch is sealed.
const SEAL_WITHIN: Duration = Duration::from_secs(5);
/// Alarms that wait to be taken, at most.
const ALARMS_MAX: usize = 256;

/// Locks are taken in this order: the sealer's publisher, the view, what is unkept, the store. The
/// view is held for one step of the engine at a time, so that waiting for it on a thread of the
/// runtime is short.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) home: Arc<Inner>,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) ticket: Ticket,
    pub(crate) name: Name,
    view: Mutex<StreamView>,
    cursors: tokio::sync::Mutex<Cursors>,
    unkept: Arc<Mutex<Unkept>>,
    read_at: Mutex<Option<ReadAt>>,
    owes_keys: AtomicBool,
    alarms: Mutex<Vec<Alarm>>,
}

/// What was learned from the bus and is not in the store yet. It stays here when the store fails.
#[derive(Debug, Default)]
struct Unkept {
    puts: Vec<Put>,
    moved: BTreeMap<[u8; 32], Offset>,
}

/// When the control topics were read to their end, by two clocks: one stands still while the
/// machine sleeps, the other may be set.
#[derive(Clone, Copy, Debug)]
struct ReadAt {
    instant: Instant,
    position: Position,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
            cursors: tokio::sync::Mutex::new(cursors),
            unkept: Arc::default(),
            read_at: Mutex::new(None),
            owes_keys: AtomicBool::new(true),
            alarms: Mutex::new(alarms),
        });
        core.sync().await?;
        core.resend_entry().await?;
        core.announce_drawn().await?;
        Ok(core)
    }

    pub(crate) fn id(&self) -> StreamId {
        self.ticket.stream()
    }

    pub(crate) fn now(&self) -> Position {
        self.home.now()
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.home.identity
    }

    pub(crate) fn vault(&self) -> &Vault {
        &self.home.vault
    }

    pub(crate) fn view(&self) -> MutexGuard<'_, StreamView> {
        lock(&self.view)
    }

    pub(crate) fn data_topic(&self) -> Result<Topic, Error> {
        topic(&StreamTopics(self.id()).data())
    }

    pub(crate) async fn append(&self, name: &str, payload: Vec<u8>) -> Result<(), Error> {
        self.bus.append(&topic(name)?, vec![payload]).await?;
        Ok(())
    }

    pub(crate) fn take_alarms(&self) -> Vec<Alarm> {
        std::mem::take(&mut *lock(&self.alarms))
    }

    /// Keeps alarms to be taken, each once. Whoever floods the bus gets no more room here.
    pub(crate) fn tell(&self, new: impl IntoIterator<Item = Alarm>) {
        let mut alarms = lock(&self.alarms);
        for alarm in new {
            if alarms.len() < ALARMS_MAX && !alarms.contains(&alarm) {
                alarms.push(alarm);
            }
        }
    }

    /// The control topics and where to read on in each.
    pub(crate) async fn control_places(&self) -> Result<Vec<(Topic, Offset)>, Error> {
        let cursors = self.cursors.lock().await;
        let wanted = self.view().wanted();
        let names = wanted.iter().map(|of| of.name(self.id()));
        names
            .map(|name| Ok((topic(&name)?, place_of(&cursors, &topic_id(&name)))))
            .collect()
    }

    /// Notes that keys may be due to others, as they are at the start and when something new is
    /// learned.
    pub(crate) fn owe_keys(&self) {
        self.owes_keys.store(true, Ordering::Relaxed);
    }

    /// Whether keys may be due to others; the caller hands them out.
    pub(crate) fn takes_debt(&self) -> bool {
        self.owes_keys.swap(false, Ordering::Relaxed)
    }

    fn is_read_within(&self, age: Duration) -> bool {
        let read_at = *lock(&self.read_at);
        read_at.is_some_and(|at| {
            let by_clock = self.now().0.abs_diff(at.position.0);
            at.instant.elapsed() <= age && u128::from(by_clock) <= age.as_millis()
        })
    }

    /// Whether the access log was read to its end recently enough to seal by it.
    pub(crate) fn may_seal(&self) -> bool {
        self.is_read_within(SEAL_WITHIN)
    }

    /// Reads the control topics again if the last reading is too old to seal by.
    pub(crate) async fn freshen(&self) -> Result<(), Error> {
        if self.is_read_within(FRESH_FOR) {
            return Ok(());
        }
        let mut cursors = self.cursors.lock().await;
        match self.is_read_within(FRESH_FOR) {
            true => Ok(()),
            false => self.catch_up(&mut cursors).await,
        }
    }

    /// Reads every control topic to its end, until none names another, and keeps what it learns.
    pub(crate) async fn sync(&self) -> Result<(), Error> {
        let mut cursors = self.cursors.lock().await;
        self.catch_up(&mut cursors).await
    }

    async fn catch_up(&self, cursors: &mut Cursors) -> Result<(), Error> {
        let started = ReadAt {
            instant: Instant::now(),
            position: self.now(),
        };
        loop {
            let wanted = self.view().wanted();
            let mut is_news = false;
            for of in wanted.iter().filter(|of| **of != ControlTopic::Keys) {
                is_news |= self.read_on(of, cursors).await?;
            }
            if !is_news {
                break;
            }
            leaving_no_trace(|| self.view().settle());
        }
        if self.view().needs_reread() {
            let keys = topic_id(&ControlTopic::Keys.name(self.id()));
            self.move_to(cursors, keys, Offset(0));
        }
        self.read_on(&ControlTopic::Keys, cursors).await?;
        leaving_no_trace(|| self.view().settle());
        self.keep().await?;
        *lock(&self.read_at) = Some(started);
        Ok(())
    }

    /// Reads one topic to its end. A bus that shows less than before is read from its start again.
    async fn read_on(&self, of: &ControlTopic, cursors: &mut Cursors) -> Result<bool, Error> {
        let name = of.name(self.id());
        let (on_bus, id) = (topic(&name)?, topic_id(&name));
        let mut from = place_of(cursors, &id);
        let end = self.bus.end(&on_bus).await?;
        if end == from {
            return Ok(false);
        }
        if end < from {
            self.roll_back(of).await?;
            from = Offset(0);
            self.move_to(cursors, id, from);
        }
        let mut is_news = false;
        loop {
            let items = self.bus.read(&on_bus, from, READ_BYTES).await?;
            let Some(last) = items.last() else {
                break;
            };
            from = Offset(last.offset.0 + 1);
            is_news = true;
            for item in &items {
                leaving_no_trace(|| self.view().handle(of, &item.payload));
            }
            self.move_to(cursors, id, from);
        }
        if is_news {
            self.owe_keys();
        }
        Ok(is_news)
    }

    fn move_to(&self, cursors: &mut Cursors, topic: [u8; 32], at: Offset) {
        cursors.insert(topic, at);
        lock(&self.unkept).moved.insert(topic, at);
    }

    /// The bus lost what it showed. The record of this device's session may be among it, and its
    /// keys that others were given; the next message starts another.
    async fn roll_back(&self, of: &ControlTopic) -> Result<(), Error> {
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
        .await?
    }

    /// Makes durable what was learned. How far a topic was read is kept with it, or later.
    async fn keep(&self) -> Result<(), Error> {
        let keys = topic_id(&ControlTopic::Keys.name(self.id()));
        let held_back = self.view().has_waiting().then_some(keys);
        let alarms = self.drain();
        self.tell(alarms);
        let (vault, stream, unkept) = (self.vault().clone(), self.id(), self.unkept.clone());
        off_thread(move || {
            let mut unkept = lock(&unkept);
            let is_due = |topic: &[u8; 32]| Some(*topic) != held_back;
            let moved = unkept.moved.iter().filter(|(topic, _)| is_due(topic));
            let moved: Vec<_> = moved.map(|(topic, at)| (*topic, *at)).collect();
            vault.keep(&stream, &unkept.puts, &moved)?;
            unkept.puts.clear();
            unkept.moved.retain(|topic, _| !is_due(topic));
            Ok(())
        })
        .await?
    }

    fn drain(&self) -> Vec<Alarm> {
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

fn place_of(cursors: &Cursors, topic: &[u8; 32]) -> Offset {
    cursors.get(topic).copied().unwrap_or(Offset(0))
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

//! One opened stream: its view, kept in step with the bus and the store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sealcast_bus::{Bus, BusUrl, FileBus, Offset, ServerAddress, Standing, Topic, UsersTopics};
use sealcast_crypto::leaving_no_trace;
use sealcast_engine::{Alarm, ControlTopic, Identity, Put, StreamView};
use sealcast_protocol::{DataTopic, Name, Position, StreamId, StreamTopics, Ticket, UserId};

use crate::asking::AskingSlot;
use crate::blocking::off_thread;
use crate::error::Error;
use crate::home::{Inner, topic};
use crate::lookout::LookoutSlot;
use crate::place::{Place, Places};
use crate::share::Shared;
use crate::vault::{Vault, topic_id};

mod keep;
mod look;
mod lost;
mod restored;

use look::Look;
use lost::Lost;
use restored::restored;

/// Bytes that are read from a topic at once.
pub(crate) const READ_BYTES: usize = 1 << 20;
/// How old the reading of the access log may be when a batch is drawn up.
const FRESH_FOR: Duration = Duration::from_secs(3);
/// How old it may be when the batch is sealed.
const SEAL_WITHIN: Duration = Duration::from_secs(5);
/// How often topics are read again for what one of them names of another, where none is new.
const PASSES_MAX: usize = 8;
/// Alarms that wait to be taken, at most.
const ALARMS_MAX: usize = 256;
/// Of these, topics that anybody may have written to.
const FORGED_MAX: usize = 16;

/// Locks are taken in this order: the sealer's publisher or what is parked, the view, what is
/// unkept, the store. The
/// view is held for one step of the engine at a time, so that waiting for it on a thread of the
/// runtime is short.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) home: Arc<Inner>,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) ticket: Ticket,
    /// Where messages travel on topics of the broker's users: on which.
    users_topics: Option<UsersTopics>,
    pub(crate) name: Name,
    view: Mutex<StreamView>,
    reading: tokio::sync::Mutex<Reading>,
    unkept: Arc<Mutex<Unkept>>,
    read_at: Mutex<Option<ReadAt>>,
    /// When fallback key and device list were last seen to.
    pub(crate) tended_at: Mutex<Option<Position>>,
    owes_keys: AtomicBool,
    /// Users whose keys the bus lost; they are given them again.
    lost_keys: Mutex<BTreeSet<UserId>>,
    alarms: Mutex<Vec<Alarm>>,
    /// What this run has handed out, whichever part of it did.
    handed_out: Mutex<Shared>,
    pub(crate) asking: AskingSlot,
    pub(crate) lookout: LookoutSlot,
}

/// Where the control topics are being read.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) places: Places,
    /// Whether the keys topic is being read again from its start, and was not read to its end yet.
    rereads_keys: bool,
    /// Topics that went back and that this device has not put in order again.
    pub(crate) gone_back: BTreeSet<ControlTopic>,
    /// Topics of which the bus shows less than is known here, whoever is to put them in order.
    lost: Lost,
}

/// What was learned from the bus and is not in the store yet. It stays here when the store fails.
#[derive(Debug, Default)]
pub(crate) struct Unkept {
    pub(crate) puts: Vec<Put>,
    moved: BTreeMap<[u8; 32], Place>,
    pub(crate) forgets_given: bool,
}

/// When the control topics were read to their end, by two clocks: one stands still while the
/// machine sleeps, the other may be set.
#[derive(Clone, Copy, Debug)]
struct ReadAt {
    instant: Instant,
    position: Position,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a bus does not take now is made up for later, and keeps nobody from reading.
pub(crate) fn put_off(written: Result<(), Error>) -> Result<(), Error> {
    match written {
        Err(Error::Bus(_) | Error::RolledBack(_)) => Ok(()),
        written => written,
    }
}

impl Core {
    /// Takes back what the store keeps, and reads on from there.
    pub(crate) async fn open(
        home: Arc<Inner>,
        bus: Arc<dyn Bus>,
        ticket: Ticket,
        name: Name,
    ) -> Result<Arc<Self>, Error> {
        let of = (home.clone(), ticket.clone());
        let restored = off_thread(move || restored(&of.0, &of.1)).await??;
        let (mut view, places, alarms) = (restored.view, restored.places, restored.alarms);
        view.set_fallbacks(home.fallbacks());
        let url = BusUrl::parse(ticket.bus()).map_err(Error::BusUrl)?;
        let core = Arc::new(Self {
            home,
            bus,
            users_topics: url.server().and_then(ServerAddress::users_topics).cloned(),
            ticket,
            name,
            view: Mutex::new(view),
            reading: tokio::sync::Mutex::new(Reading {
                places,
                rereads_keys: false,
                gone_back: BTreeSet::new(),
                lost: Lost::new(restored.lost),
            }),
            unkept: Arc::default(),
            read_at: Mutex::new(None),
            tended_at: Mutex::new(None),
            owes_keys: AtomicBool::new(true),
            lost_keys: Mutex::default(),
            alarms: Mutex::new(alarms),
            handed_out: Mutex::default(),
            asking: AskingSlot::default(),
            lookout: LookoutSlot::default(),
        });
        core.sync().await?;
        put_off(core.resend_entry().await)?;
        put_off(core.announce_drawn().await)?;
        core.look_back().await?;
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

    /// Whether there is a folder with a bus where the ticket says.
    pub(crate) async fn is_folder_there(&self) -> bool {
        let url = BusUrl::parse(self.ticket.bus()).ok();
        match url.as_ref().map(BusUrl::place) {
            Some(sealcast_bus::Place::File(folder)) => {
                let report = FileBus::check(folder).await;
                report.is_ok_and(|of| of.standing == Standing::Ready)
            }
            _ => false,
        }
    }

    /// Whether a message may be published on a topic below the stream.
    pub(crate) fn check_topic(&self, topic: &DataTopic) -> Result<(), Error> {
        let users = self.users_topics.as_ref();
        match users.filter(|users| !users.has(topic.as_str())) {
            Some(users) => Err(Error::OtherTopic(users.filter().to_string())),
            None => Ok(()),
        }
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

    /// Keeps alarms to be taken, each once. Whoever floods the bus gets no more room here, and leaves some for others.
    pub(crate) fn tell(&self, new: impl IntoIterator<Item = Alarm>) {
        let mut alarms = lock(&self.alarms);
        let is_forged = |alarm: &Alarm| matches!(alarm, Alarm::Forged(_));
        for alarm in new {
            let has_room = match is_forged(&alarm) {
                true => alarms.iter().filter(|of| is_forged(of)).count() < FORGED_MAX,
                false => alarms.len() < ALARMS_MAX,
            };
            if has_room && !alarms.contains(&alarm) {
                alarms.push(alarm);
            }
        }
    }

    /// The control topics and where to read on in each.
    pub(crate) async fn control_places(&self) -> Result<Vec<(Topic, Offset)>, Error> {
        let reading = self.reading.lock().await;
        let wanted = self.view().wanted();
        let names = wanted.iter().map(|of| of.name(self.id()));
        names
            .map(|name| Ok((topic(&name)?, reading.places.of(&topic_id(&name)).at)))
            .collect()
    }

    /// How far a control topic was read.
    pub(crate) async fn place_in(&self, of: &ControlTopic) -> Offset {
        let id = topic_id(&of.name(self.id()));
        self.reading.lock().await.places.of(&id).at
    }

    /// Notes that keys which these users were given are not on the bus any more.
    pub(crate) fn lose_keys(&self, users: impl IntoIterator<Item = UserId>) {
        lock(&self.lost_keys).extend(users);
    }

    pub(crate) fn take_lost_keys(&self) -> BTreeSet<UserId> {
        std::mem::take(&mut *lock(&self.lost_keys))
    }

    /// What this run has handed out.
    pub(crate) fn handed_out(&self) -> MutexGuard<'_, Shared> {
        lock(&self.handed_out)
    }

    /// What is learned and not kept yet.
    pub(crate) fn unkept(&self) -> MutexGuard<'_, Unkept> {
        lock(&self.unkept)
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
        let mut reading = self.reading.lock().await;
        match self.is_read_within(FRESH_FOR) {
            true => Ok(()),
            false => self.catch_up(&mut reading).await,
        }
    }

    /// Reads every control topic to its end, until none names another, and keeps what it learns.
    pub(crate) async fn sync(&self) -> Result<(), Error> {
        let mut reading = self.reading.lock().await;
        self.catch_up(&mut reading).await
    }

    /// Makes durable what was learned without reading on.
    pub(crate) async fn keep_learned(&self) -> Result<(), Error> {
        let mut reading = self.reading.lock().await;
        self.keep(&mut reading).await?;
        self.lookout.note_news();
        self.lookout.tell_news();
        Ok(())
    }

    async fn catch_up(&self, reading: &mut Reading) -> Result<(), Error> {
        let started = ReadAt {
            instant: Instant::now(),
            position: self.now(),
        };
        let is_to_tend = self.is_to_tend();
        if is_to_tend {
            self.tend_fallback().await?;
            self.recall_lists().await?;
        }
        self.read_all(reading).await?;
        self.compare_lost(reading).await?;
        let mut is_behind = self.put_back(reading).await?;
        if is_to_tend {
            is_behind |= self.tend_list().await?;
        }
        if is_behind {
            self.read_all(reading).await?;
        }
        self.keep(reading).await?;
        if is_to_tend {
            self.tended(started.position);
        }
        *lock(&self.read_at) = Some(started);
        Ok(())
    }

    async fn read_all(&self, reading: &mut Reading) -> Result<(), Error> {
        let mut seen = BTreeSet::new();
        let mut again = 0..PASSES_MAX;
        loop {
            let mut wanted = self.view().wanted();
            let known = seen.len();
            seen.extend(wanted.iter().copied());
            // Whoever writes faster than this device reads must not keep it reading for ever.
            if seen.len() == known && again.next().is_none() {
                break;
            }
            let mut is_news = false;
            wanted.retain(|of| *of != ControlTopic::Keys);
            for some in wanted.chunks(look::AT_ONCE) {
                is_news |= self.read_on(some, reading).await?;
            }
            // Also what was taken in before a reading that failed.
            leaving_no_trace(|| self.view().settle());
            if !is_news {
                break;
            }
        }
        if self.view().needs_reread(self.now()) {
            let keys = topic_id(&ControlTopic::Keys.name(self.id()));
            reading.places.read_again(keys);
            reading.rereads_keys = true;
        }
        self.read_on(&[ControlTopic::Keys], reading).await?;
        reading.rereads_keys = false;
        leaving_no_trace(|| self.view().settle());
        self.lookout.tell_news();
        Ok(())
    }

    /// Reads topics to their ends, one after the other.
    async fn read_on(&self, topics: &[ControlTopic], reading: &mut Reading) -> Result<bool, Error> {
        let looks = self.look_at(topics, reading).await?;
        let mut is_news = false;
        for (of, look) in topics.iter().zip(looks) {
            if let Some(look) = look {
                is_news |= self.read_one(of, look, reading).await?;
            }
        }
        Ok(is_news)
    }

    /// Reads one topic to its end. A bus that does not show what it showed before is read from its
    /// start again.
    async fn read_one(
        &self,
        of: &ControlTopic,
        look: Look,
        reading: &mut Reading,
    ) -> Result<bool, Error> {
        let Look {
            on_bus,
            id,
            place,
            end,
            mut items,
        } = look;
        let shown = reading.places.shown(&id);
        let mut next = place;
        if !place.is_shown(items.first()) || !self.still_shows(&on_bus, shown, end).await? {
            self.roll_back(of).await?;
            reading.gone_back.insert(*of);
            if Self::is_kept_whole(of) {
                reading.lost.note(id);
            }
            next = Place::default();
            items = self.bus.read(&on_bus, next.at, READ_BYTES).await?;
        }
        let mut is_news = false;
        while let Some(last) = items.last() {
            let from = Offset(last.offset.0.saturating_add(1));
            let behind = Place::behind(last);
            for item in items.iter().filter(|item| item.offset >= next.at) {
                is_news = true;
                leaving_no_trace(|| self.view().handle(of, &item.payload));
            }
            next = behind;
            self.move_to(reading, id, next);
            if from >= end {
                break;
            }
            items = self.bus.read(&on_bus, from, READ_BYTES).await?;
        }
        self.move_to(reading, id, next);
        reading.places.forget_shown(&id);
        if is_news {
            self.owe_keys();
            self.lookout.note_news();
        }
        Ok(is_news)
    }

    /// Whether a topic still shows what it showed beyond the place from which it is read on, or what
    /// another bus showed of it.
    async fn still_shows(
        &self,
        topic: &Topic,
        shown: Option<Place>,
        end: Offset,
    ) -> Result<bool, Error> {
        let Some(shown) = shown else {
            return Ok(true);
        };
        if shown.is_anywhere() {
            return self.has_before(topic, shown, end).await;
        }
        let items = match shown.last().filter(|_| shown.at <= end) {
            Some(last) => self.bus.read(topic, last, 1).await?,
            None => Vec::new(),
        };
        Ok(shown.is_shown(items.first()))
    }

    /// Whether the item that a place is behind lies anywhere before an offset.
    async fn has_before(&self, topic: &Topic, place: Place, end: Offset) -> Result<bool, Error> {
        let mut at = Offset(0);
        while at < end {
            let items = self.bus.read(topic, at, READ_BYTES).await?;
            let Some(last) = items.last() else { break };
            at = Offset(last.offset.0.saturating_add(1));
            if items.iter().any(|item| place.is_behind(item)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

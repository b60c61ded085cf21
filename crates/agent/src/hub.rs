//! What the parts of a running agent share: the home, its streams, how they stand, what is counted.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use sealcast::{
    Alarm, Answered, Answering, Archived, Attended, BusUrl, Error, Home, Name, Policy, Position,
    State, Stream, StreamId, StreamInfo,
};
use tokio::sync::{Notify, broadcast, watch};

use crate::api::Fault;
use crate::config::Config;
use crate::questions::Questions;

/// Alarms of a stream that are kept to be shown.
const ALARMS_KEPT: usize = 16;
/// Alarms that a slow subscriber is told late.
const ALARMS_WAITING: usize = 64;

/// Shared by everything that runs in an agent.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) home: Home,
    pub(crate) config: Config,
    /// Who decides about requests for keys, and what waits for a person.
    pub(crate) policy: Policy,
    pub(crate) questions: Arc<Questions>,
    pub(crate) started: Position,
    pub(crate) listen: OnceLock<SocketAddr>,
    /// Told when there may be streams that nobody attends to.
    pub(crate) rescan: Notify,
    known: Mutex<BTreeMap<StreamId, Known>>,
    store_fault: Mutex<Option<Fault>>,
    stop: watch::Sender<bool>,
    /// Has a receiver for each piece of work that ends by itself when it is told to.
    work: watch::Sender<()>,
}

/// A stream of the home.
#[derive(Debug)]
pub(crate) struct Known {
    /// Its number in this run, which tells nothing about it.
    pub(crate) number: u32,
    pub(crate) name: Name,
    pub(crate) bus: BusUrl,
    pub(crate) standing: Standing,
    pub(crate) since: Position,
    pub(crate) archive: Option<ArchiveStanding>,
    pub(crate) counts: Counts,
    pub(crate) alarms: VecDeque<Alarm>,
    answering: Option<Answering>,
    stream: Option<Stream>,
    told: broadcast::Sender<Alarm>,
}

/// How it is with a stream.
#[derive(Clone, Debug)]
pub(crate) enum Standing {
    Opening,
    Attended,
    Failing(Fault),
}

/// How it is with the archive of a stream.
#[derive(Clone, Debug)]
pub(crate) enum ArchiveStanding {
    Opening,
    Copying,
    Failing(Fault),
}

/// What happened with a stream since the agent began.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) bundles: u64,
    pub(crate) bundle_bytes: u64,
    pub(crate) faults: u64,
    /// By those who answered and are done.
    answered: Answered,
    /// Grants that a person's yes wrote.
    pub(crate) approved: u64,
    pub(crate) alarms: u64,
    pub(crate) subscribers: u64,
    pub(crate) deliveries: BTreeMap<&'static str, u64>,
    pub(crate) archived: u64,
    pub(crate) archived_bytes: u64,
    pub(crate) archive_faults: u64,
}

impl Hub {
    pub(crate) fn new(
        home: Home,
        config: Config,
        policy: Policy,
        questions: Arc<Questions>,
    ) -> Self {
        Self {
            started: now(),
            home,
            config,
            policy,
            questions,
            listen: OnceLock::new(),
            rescan: Notify::new(),
            known: Mutex::default(),
            store_fault: Mutex::default(),
            stop: watch::Sender::new(false),
            work: watch::Sender::new(()),
        }
    }

    pub(crate) fn known(&self) -> MutexGuard<'_, BTreeMap<StreamId, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells everything that runs to end.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits until everything is to end.
    pub(crate) async fn stopping(&self) {
        // The sender lives as long as `self`.
        let _is_told = self.stop.subscribe().wait_for(|stop| *stop).await.is_ok();
    }

    /// What is kept by a piece of work that ends by itself when it is told to.
    pub(crate) fn at_work(&self) -> watch::Receiver<()> {
        self.work.subscribe()
    }

    /// Waits until all such work has ended.
    pub(crate) async fn idle(&self) {
        self.work.closed().await;
    }

    /// Why the store cannot be read, if it cannot.
    pub(crate) fn store_fault(&self) -> Option<Fault> {
        let fault = self.store_fault.lock();
        fault.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_store_fault(&self, fault: Option<Fault>) {
        let mut kept = (self.store_fault.lock()).unwrap_or_else(PoisonError::into_inner);
        *kept = fault;
    }

    /// Takes note of the streams that the home has. Returns those that are new, or moved to another
    /// bus, and must be attended to from now on.
    pub(crate) fn learn(&self, streams: Vec<StreamInfo>) -> Vec<StreamInfo> {
        let mut known = self.known();
        let mut new = Vec::new();
        for of in streams {
            let next = known.len();
            match known.get_mut(&of.id) {
                Some(old) if old.bus == of.bus => old.name = of.name,
                Some(old) => {
                    old.name = of.name.clone();
                    old.bus = of.bus.clone();
                    old.stream = None;
                    old.standing = Standing::Opening;
                    new.push(of);
                }
                None => {
                    let number = u32::try_from(next + 1).unwrap_or(u32::MAX);
                    let is_archived = self.config.agent.archive.is_some();
                    let stream = Known::new(number, &of, is_archived);
                    known.insert(of.id, stream);
                    new.push(of);
                }
            }
        }
        new
    }

    fn with<T>(&self, id: &StreamId, change: impl FnOnce(&mut Known) -> T) -> Option<T> {
        self.known().get_mut(id).map(change)
    }

    /// The number of a stream, for logs.
    pub(crate) fn number(&self, id: &StreamId) -> u32 {
        self.with(id, |of| of.number).unwrap_or_default()
    }

    pub(crate) fn opened(&self, id: &StreamId, stream: &Stream) {
        self.with(id, |of| of.stream = Some(stream.clone()));
    }

    /// Keeps what answers the requests in a stream, until what is returned is dropped.
    pub(crate) fn answers(self: &Arc<Self>, id: &StreamId, answering: Answering) -> Answers {
        self.with(id, |of| of.answering = Some(answering));
        Answers {
            hub: self.clone(),
            id: *id,
        }
    }

    /// Notes grants that a person's yes wrote.
    pub(crate) fn approved(&self, id: &StreamId, grants: u64) {
        self.with(id, |of| of.counts.approved += grants);
    }

    /// Notes that a stream was attended to. Returns whether it was not before.
    pub(crate) fn attended(&self, id: &StreamId, attended: &Attended) -> bool {
        let noted = self.with(id, |of| {
            of.counts.bundles += attended.bundles;
            of.counts.bundle_bytes += attended.bundle_bytes;
            let is_news = !matches!(of.standing, Standing::Attended);
            if is_news {
                of.standing = Standing::Attended;
                of.since = now();
            }
            is_news
        });
        noted.unwrap_or_default()
    }

    /// Notes that a stream cannot be attended to. Returns whether it could before.
    pub(crate) fn failed(&self, id: &StreamId, fault: Fault) -> bool {
        let noted = self.with(id, |of| {
            of.counts.faults += 1;
            of.stream = None;
            let is_news = !matches!(of.standing, Standing::Failing(_));
            if is_news {
                of.since = now();
            }
            of.standing = Standing::Failing(fault);
            is_news
        });
        noted.unwrap_or_default()
    }

    /// Notes what the bus showed, and tells those who follow the stream.
    pub(crate) fn alarmed(&self, id: &StreamId, alarms: Vec<Alarm>) {
        self.with(id, |of| {
            for alarm in alarms {
                of.counts.alarms += 1;
                of.alarms.push_back(alarm);
                if of.alarms.len() > ALARMS_KEPT {
                    // Anybody can have these told.
                    let is_forged = |of: &Alarm| matches!(of, Alarm::Forged(_));
                    let first = of.alarms.iter().position(is_forged);
                    of.alarms.remove(first.unwrap_or_default());
                }
                // There may be nobody to tell.
                let _is_told = of.told.send(alarm).is_ok();
            }
        });
    }

    /// The alarms of a stream from now on.
    pub(crate) fn alarms_of(&self, id: &StreamId) -> Option<broadcast::Receiver<Alarm>> {
        self.with(id, |of| of.told.subscribe())
    }

    pub(crate) fn archived(&self, id: &StreamId, archived: &Archived) {
        self.with(id, |of| {
            of.counts.archived += archived.items;
            of.counts.archived_bytes += archived.bytes;
        });
    }

    /// Notes how it is with a stream's archive. Returns whether that is news.
    pub(crate) fn set_archive(&self, id: &StreamId, standing: ArchiveStanding) -> bool {
        let noted = self.with(id, |of| {
            let is_failing = matches!(standing, ArchiveStanding::Failing(_));
            of.counts.archive_faults += u64::from(is_failing);
            let kind = of.archive.as_ref().map(std::mem::discriminant);
            let is_news = kind != Some(std::mem::discriminant(&standing));
            of.archive = Some(standing);
            is_news
        });
        noted.unwrap_or_default()
    }

    pub(crate) fn subscribed(&self, id: &StreamId, by: i64) {
        self.with(id, |of| {
            of.counts.subscribers = of.counts.subscribers.saturating_add_signed(by);
        });
    }

    pub(crate) fn delivered(&self, id: &StreamId, state: State) {
        let code = crate::line::state_code(state);
        self.with(id, |of| *of.counts.deliveries.entry(code).or_default() += 1);
    }

    /// The stream of an id, as [`stream`](Self::stream).
    pub(crate) async fn stream_of(&self, id: &StreamId) -> Result<Stream, Error> {
        let name = self.with(id, |of| of.name.to_string());
        let unknown = || Error::NoStream(id.to_string());
        self.stream(&name.ok_or_else(unknown)?).await
    }

    /// The stream of a name: the one that is attended to, or else opened here.
    pub(crate) async fn stream(&self, name: &str) -> Result<Stream, Error> {
        let attended = self.known().values().find_map(|of| {
            let is_it = of.name.as_str() == name && matches!(of.standing, Standing::Attended);
            is_it.then(|| of.stream.clone()).flatten()
        });
        if let Some(stream) = attended {
            return Ok(stream);
        }
        let unknown = |_| Error::NoStream(name.to_owned());
        let stream = self.home.stream(&name.parse().map_err(unknown)?).await?;
        self.rescan.notify_one();
        Ok(stream)
    }
}

/// Requests in a stream are answered for as long as this is there.
#[derive(Debug)]
pub(crate) struct Answers {
    hub: Arc<Hub>,
    id: StreamId,
}

impl Drop for Answers {
    fn drop(&mut self) {
        let done = self.hub.with(&self.id, |of| {
            of.counts.answered = of.answered();
            of.answering.take()
        });
        // Ended with the lock let go of.
        drop(done);
    }
}

impl Known {
    /// What came of requests for keys since the agent began.
    pub(crate) fn answered(&self) -> Answered {
        let now = self.answering.as_ref().map(Answering::answered);
        self.counts.answered + now.unwrap_or_default()
    }

    fn new(number: u32, of: &StreamInfo, is_archived: bool) -> Self {
        Self {
            number,
            name: of.name.clone(),
            bus: of.bus.clone(),
            standing: Standing::Opening,
            since: now(),
            archive: is_archived.then_some(ArchiveStanding::Opening),
            counts: Counts::default(),
            alarms: VecDeque::new(),
            answering: None,
            stream: None,
            told: broadcast::Sender::new(ALARMS_WAITING),
        }
    }
}

/// The time, for people.
pub(crate) fn now() -> Position {
    let ms = jiff::Timestamp::now().as_millisecond();
    Position(u64::try_from(ms).unwrap_or_default())
}

//! The bus in a folder: one SQLite database that several processes use at once.

mod check;
mod far;
mod fault;
mod known;
mod listen;
mod mirror;
mod pack;
mod place;
mod scan;
mod schema;
mod sent;
mod tail;
mod watch;
mod write;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use tokio::sync::{mpsc, oneshot};

use crate::{Bus, BusError, BusFuture, Item, Limits, Listener, Offset, Tail, Topic};
use fault::Fault;
pub use mirror::{Arrival, ArrivalId, ArrivalPart, Mirror, Origin};

use far::{Far, FarWriter};
use known::Known;
use listen::FileListener;
use mirror::Besides;
use place::Place;
use scan::Readers;
use schema::Format;
use tail::FileTail;
use watch::Watch;
use write::{Action, Change, Writer};

const PAYLOAD_MAX: usize = 32 << 20;
const BATCH_MAX: usize = 64 << 20;
/// Callers whose changes wait for the one being written; further ones wait to hand theirs over.
const CHANGES_WAITING_MAX: usize = 256;

/// The bus in a folder of this machine, without a server.
///
/// Any number of processes may append, read and tail at once. An append is on the disk when it
/// returns; appends that are called at the same time share one write. What is sent is kept for a minute
/// or until 1,024 more were sent, whichever comes first, and removed by whoever sends next. Cloning is cheap and gives
/// another handle of the same bus.
///
/// The folder must lie on a file system of this machine: a network file system loses items. Who can
/// read the folder but not write to it can read and tail.
#[derive(Clone)]
pub struct FileBus {
    changes: mpsc::Sender<Vec<Change>>,
    readers: Arc<Readers>,
    watch: Arc<Watch>,
}

impl FileBus {
    /// Opens the bus in `folder`; creates what is missing of the folder and the bus.
    ///
    /// Must be called, and the bus used, on a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`BusError::Unreachable`] when the folder cannot be created or used, [`BusError::Full`] when
    /// there is no room to create it, [`BusError::Damaged`] when what lies there is not a bus,
    /// [`BusError::TooNew`] when a newer version of this program wrote it, [`BusError::Busy`] when
    /// others keep it locked for 10 s.
    pub async fn open(folder: impl AsRef<Path>) -> Result<Self, BusError> {
        let folder = folder.as_ref().to_owned();
        scan::run_blocking(move || Self::open_as(&folder, Format::BUS)).await
    }

    fn open_as(folder: &Path, format: Format) -> Result<Self, BusError> {
        let (place, connection) = Place::open(folder, format)?;
        let is_mirror = format == Format::MIRROR;
        let far = is_mirror.then(|| Far::new(place.folder()));
        let besides = is_mirror.then(|| Besides {
            far: FarWriter::new(place.folder()),
            known: Known::default(),
        });
        let place = Arc::new(place);
        let watch = Arc::new(Watch::new(Arc::clone(&place)));
        let (changes, queue) = mpsc::channel(CHANGES_WAITING_MAX);
        let writer = Writer::new(Arc::clone(&place), connection, besides, Arc::clone(&watch));
        thread::Builder::new()
            .name("bus-write".into())
            .spawn(move || writer.run(queue))
            .map_err(|error| BusError::Backend(Box::new(error)))?;
        Ok(Self {
            changes,
            readers: Arc::new(Readers::new(place, far)),
            watch,
        })
    }

    /// Has the writing thread make a change; returns where an append went.
    async fn hand_over(&self, topic: Topic, action: Action) -> Result<Option<Offset>, BusError> {
        let (done, outcome) = oneshot::channel();
        let change = Change {
            topic,
            action,
            done,
        };
        let stopped = || BusError::Backend(Box::new(Fault::WriterStopped));
        let sent = self.changes.send(vec![change]).await;
        sent.map_err(|_| stopped())?;
        let made = outcome.await.map_err(|_| stopped())??;
        Ok(made.first().copied())
    }
}

impl fmt::Debug for FileBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FileBus")
            .field(&self.readers.path())
            .finish()
    }
}

impl Bus for FileBus {
    fn limits(&self) -> Limits {
        Limits::new(PAYLOAD_MAX, BATCH_MAX)
    }

    fn append(&self, topic: &Topic, payloads: Vec<Vec<u8>>) -> BusFuture<'_, Offset> {
        let topic = topic.clone();
        Box::pin(async move {
            self.limits().check(&payloads)?;
            if payloads.is_empty() {
                return self.end(&topic).await;
            }
            let action = Action::Append { at: None, payloads };
            let first = self.hand_over(topic, action).await?;
            first.ok_or_else(|| BusError::Backend(Box::new(Fault::OutOfRange)))
        })
    }

    fn append_at(&self, topic: &Topic, end: Offset, payloads: Vec<Vec<u8>>) -> BusFuture<'_, bool> {
        let topic = topic.clone();
        Box::pin(async move {
            self.limits().check(&payloads)?;
            if payloads.is_empty() {
                return Ok(self.end(&topic).await? == end);
            }
            let at = Some(end);
            let action = Action::Append { at, payloads };
            let first = self.hand_over(topic, action).await?;
            Ok(first.is_some())
        })
    }

    fn read(&self, topic: &Topic, from: Offset, bytes_max: usize) -> BusFuture<'_, Vec<Item>> {
        let topic = topic.clone();
        Box::pin(async move {
            let readers = Arc::clone(&self.readers);
            self.readers
                .run(move |connection| {
                    scan::items(connection, readers.far(), &topic, from, bytes_max)
                })
                .await
        })
    }

    fn end(&self, topic: &Topic) -> BusFuture<'_, Offset> {
        let topic = topic.clone();
        Box::pin(async move {
            self.readers
                .run(move |connection| scan::end(connection, &topic))
                .await
        })
    }

    fn tail(&self, topics: Vec<(Topic, Offset)>) -> Box<dyn Tail> {
        Box::new(FileTail::new(
            Arc::clone(&self.readers),
            Arc::clone(&self.watch),
            topics,
        ))
    }
    fn trim(&self, topic: &Topic, before: Offset) -> BusFuture<'_, ()> {
        let topic = topic.clone();
        Box::pin(async move {
            self.hand_over(topic, Action::Trim(before)).await?;
            Ok(())
        })
    }

    fn send(&self, topic: &Topic, payload: Vec<u8>) -> BusFuture<'_, ()> {
        let topic = topic.clone();
        Box::pin(async move {
            Limits::check_sent(&payload)?;
            self.hand_over(topic, Action::Send(payload)).await?;
            Ok(())
        })
    }

    fn listen(&self, topics: Vec<Topic>) -> BusFuture<'_, Box<dyn Listener>> {
        let (readers, watch) = (Arc::clone(&self.readers), Arc::clone(&self.watch));
        Box::pin(async move {
            let listener = FileListener::start(readers, watch, topics).await?;
            Ok(Box::new(listener) as Box<dyn Listener>)
        })
    }
}

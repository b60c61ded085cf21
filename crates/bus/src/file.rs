//! The bus in a folder: one SQLite database that several processes use at once.

mod append;
mod fault;
mod place;
mod scan;
mod schema;
mod tail;
mod watch;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use tokio::sync::{mpsc, oneshot};

use crate::{Bus, BusError, BusFuture, Item, Limits, Offset, Tail, Topic};
use append::{Append, Appender};
use fault::Fault;
use place::Place;
use scan::Readers;
use tail::FileTail;
use watch::Watch;

const PAYLOAD_MAX: usize = 32 << 20;
const BATCH_MAX: usize = 64 << 20;
/// Appends that wait for the one being written; further callers wait to hand theirs over.
const APPENDS_WAITING_MAX: usize = 256;

/// The bus in a folder of this machine, without a server.
///
/// Any number of processes may append, read and tail at once. An append is on the disk when it
/// returns; appends that are called at the same time share one write. Cloning is cheap and gives
/// another handle of the same bus.
///
/// The folder must lie on a file system of this machine: a network file system loses items. Who can
/// read the folder but not write to it can read and tail.
#[derive(Clone)]
pub struct FileBus {
    appends: mpsc::Sender<Append>,
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
        scan::run_blocking(move || Self::open_blocking(&folder)).await
    }

    fn open_blocking(folder: &Path) -> Result<Self, BusError> {
        let (place, connection) = Place::open(folder)?;
        let place = Arc::new(place);
        let watch = Arc::new(Watch::new(Arc::clone(&place)));
        let (appends, queue) = mpsc::channel(APPENDS_WAITING_MAX);
        let appender = Appender::new(Arc::clone(&place), connection, Arc::clone(&watch));
        thread::Builder::new()
            .name("bus-append".into())
            .spawn(move || appender.run(queue))
            .map_err(|error| BusError::Backend(Box::new(error)))?;
        Ok(Self {
            appends,
            readers: Arc::new(Readers::new(place)),
            watch,
        })
    }

    /// Has the appending thread write a batch; `None` where the topic did not end at `at`.
    async fn hand_over(
        &self,
        topic: Topic,
        at: Option<Offset>,
        payloads: Vec<Vec<u8>>,
    ) -> Result<Option<Offset>, BusError> {
        let (done, outcome) = oneshot::channel();
        let append = Append {
            topic,
            at,
            payloads,
            done,
        };
        let stopped = || BusError::Backend(Box::new(Fault::AppenderStopped));
        self.appends.send(append).await.map_err(|_| stopped())?;
        outcome.await.map_err(|_| stopped())?
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
            let first = self.hand_over(topic, None, payloads).await?;
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
            let first = self.hand_over(topic, Some(end), payloads).await?;
            Ok(first.is_some())
        })
    }

    fn read(&self, topic: &Topic, from: Offset, bytes_max: usize) -> BusFuture<'_, Vec<Item>> {
        let topic = topic.clone();
        Box::pin(async move {
            self.readers
                .run(move |connection| scan::items(connection, &topic, from, bytes_max))
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
}

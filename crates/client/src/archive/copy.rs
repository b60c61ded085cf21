//! Copying streams from one bus to another, by their tickets.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sealcast_bus::{Bus, BusError, BusUrl};
use sealcast_protocol::Ticket;
use tokio::time::sleep;

use super::guide::{Guide, Survey};
use super::{Archive, Archived, Way, same_bus};
use crate::buses;
use crate::error::Error;

/// How often another who copies the same may come first before a copy gives up, and the pause behind
/// each time.
const OTHERS_FIRST_MAX: u32 = 64;
const PAUSE: Duration = Duration::from_millis(50);

/// Two buses, from one of which streams are copied to the other.
///
/// A ticket is enough: the streams stay sealed, and no home is opened. Whatever an earlier run
/// copied is not copied again, also when it was killed.
///
/// ```no_run
/// # async fn doc(ticket: sealcast::Ticket) -> Result<(), Box<dyn std::error::Error>> {
/// use std::path::Path;
///
/// use sealcast::{BusCopy, BusUrl};
///
/// let from = BusUrl::parse("file:/srv/bus")?;
/// let to = BusUrl::parse("nats://broker.example/plant")?;
/// let mut copy = BusCopy::open(&from, &to, Path::new("home")).await?.stream(&ticket).await?;
/// while copy.look().await? > 0 {
///     while copy.next().await?.is_some() {}
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct BusCopy {
    from: Arc<dyn Bus>,
    to: Arc<dyn Bus>,
    url: BusUrl,
}

impl BusCopy {
    /// Opens both buses, which must be there. What there is to say to their servers stands in the folder
    /// `home`, which need not hold a home.
    ///
    /// # Errors
    ///
    /// Fails when they are one, one of them is not there, or cannot be reached.
    pub async fn open(from: &BusUrl, to: &BusUrl, home: &Path) -> Result<Self, Error> {
        if same_bus(from, to) {
            return Err(Error::OneBus(from.to_string()));
        }
        Ok(Self {
            from: buses::open_there(from, home).await?,
            to: buses::open_there(to, home).await?,
            url: to.clone(),
        })
    }

    /// The second bus, if it has a stream.
    pub(crate) async fn arrived(&self, ticket: &Ticket) -> Result<(&BusUrl, &Arc<dyn Bus>), Error> {
        survey(ticket, self.to.clone()).await?;
        Ok((&self.url, &self.to))
    }

    /// Begins with a stream.
    ///
    /// # Errors
    ///
    /// Fails when the first bus does not have the stream, or cannot be read.
    pub async fn stream(&self, ticket: &Ticket) -> Result<StreamCopy, Error> {
        let guide = Guide::Survey(survey(ticket, self.from.clone()).await?);
        Ok(StreamCopy {
            archive: Archive::along(Way {
                guide,
                from: self.from.clone(),
                to: self.to.clone(),
                place: self.url.to_string(),
            }),
            mended: Archived::default(),
        })
    }
}

/// Finds the topics of a stream, which must be on the bus.
async fn survey(ticket: &Ticket, bus: Arc<dyn Bus>) -> Result<Survey, Error> {
    let survey = Survey::new(ticket.clone(), bus);
    survey.read_on().await?;
    match survey.has_begun() {
        true => Ok(survey),
        false => Err(Error::StreamElsewhere(ticket.name().clone())),
    }
}

impl fmt::Debug for BusCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BusCopy")
            .field("from", &self.from)
            .field("to", &self.to)
            .finish()
    }
}

/// Copies one stream to another bus; made by [`BusCopy::stream`].
#[derive(Debug)]
pub struct StreamCopy {
    archive: Archive,
    /// What the last look had to put right, and was not told yet.
    mended: Archived,
}

impl StreamCopy {
    /// Looks how far the topics of the stream go now, and says how many items are to be copied until
    /// then. Once these are copied, so is all that any of them rests on.
    ///
    /// # Errors
    ///
    /// Fails when one of the two buses cannot be used; it may be called again.
    pub async fn look(&mut self) -> Result<u64, Error> {
        let mut others_first = 0..OTHERS_FIRST_MAX;
        loop {
            match self.look_once().await {
                Err(error) => wait_for_others(error, &mut others_first).await?,
                looked => return looked,
            }
        }
    }

    async fn look_once(&mut self) -> Result<u64, Error> {
        let archive = &mut self.archive;
        archive.begin_anew();
        archive.way.guide.learn().await?;
        // Those that rest on others are looked at first, so that what they rest on lies before the end
        // that is found later.
        let mut ends = BTreeMap::new();
        let topics = archive.way.guide.topics()?;
        for of in topics.into_iter().rev() {
            let end = archive.way.from.end(&of.1).await?;
            ends.insert(of, end);
        }
        let mut count: u64 = 0;
        for (of, end) in ends {
            let (cursor, mended) = archive.cursor(&of.1).await?;
            self.mended.add(mended);
            if cursor.next < end
                && let Some(first) = archive.way.from.read(&of.1, cursor.next, 1).await?.first()
            {
                count = count.saturating_add(end.0.saturating_sub(first.offset.0));
                archive.behind.insert(of, end);
            }
        }
        Ok(count)
    }

    /// Copies the next of the items that there were at the last [`look`](Self::look); `None` when all
    /// are copied. A caller may stop waiting and come back.
    ///
    /// # Errors
    ///
    /// Fails when one of the two buses cannot be used, the second is full or does not give back what
    /// was written to it. It may be called again, after another [`look`](Self::look), and goes on.
    pub async fn next(&mut self) -> Result<Option<Archived>, Error> {
        if self.mended != Archived::default() {
            return Ok(Some(std::mem::take(&mut self.mended)));
        }
        let mut others_first = 0..OTHERS_FIRST_MAX;
        loop {
            let error = match self.archive.copy_behind().await {
                Ok(copied) => return Ok(copied),
                Err(error) => error,
            };
            let behind = std::mem::take(&mut self.archive.behind);
            self.archive.begin_anew();
            self.archive.behind = behind;
            wait_for_others(error, &mut others_first).await?;
        }
    }
}

/// Where another who copies the same came first, waits a moment for what it does.
async fn wait_for_others(error: Error, turns: &mut Range<u32>) -> Result<(), Error> {
    let is_other_first = matches!(error, Error::Bus(BusError::Busy { .. }));
    if !is_other_first || turns.next().is_none() {
        return Err(error);
    }
    sleep(PAUSE).await;
    Ok(())
}

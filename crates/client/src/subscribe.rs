//! Following a stream.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sealcast_bus::{Item, Offset, Tail, Topic};
use sealcast_engine::{Alarm, CLOCK_BEHIND_MS_MAX, Mode, Space, Tracker};
use sealcast_protocol::{DeviceId, EnvelopeHash, EnvelopeView, Interval, Position};
use tokio::time::{Instant, timeout};

use crate::blocking::off_thread;
use crate::core::{Core, put_off};
use crate::delivery::Delivery;
use crate::error::Error;
use crate::place::Place;
use crate::read::Scan;
use crate::vault::topic_id;

/// How long to wait for an envelope that a later one names, and how often the place is kept.
const TICK: Duration = Duration::from_secs(1);
/// How often to look for keys because an envelope seems to lack one.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Items before the start of live reading that are noted where no place was kept.
const NOTED: u64 = 1024;
/// Items that may have come since the place was kept; with more, what was kept is of no use.
const MISSED_MAX: u64 = 65_536;
/// Bytes that are read to note them, at most.
const NOTED_BYTES_MAX: usize = 256 << 20;

/// Follows a stream. Dropping it ends it; [`finish`](Self::finish) also keeps its place.
///
/// ```no_run
/// # async fn doc(stream: sealcast::Stream) -> Result<(), sealcast::Error> {
/// let mut subscription = stream.subscribe(None).await?;
/// loop {
///     let delivery = subscription.next().await?;
///     match &delivery.payload {
///         Some(payload) => println!("{}", String::from_utf8_lossy(payload)),
///         None => println!("{:?} {:?}", delivery.state, delivery.reason),
///     }
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Subscription {
    scan: Scan,
    phase: Phase,
    revoked: BTreeMap<DeviceId, Vec<EnvelopeHash>>,
    /// Items that the bus handed out and that are not being opened yet.
    inbox: Vec<Vec<u8>>,
    has_news: bool,
    /// When keys were last looked for because an envelope lacked one.
    looked_at: Option<Instant>,
    keeps_place: bool,
    kept: BTreeMap<DeviceId, Vec<u8>>,
    kept_at: Instant,
}

enum Phase {
    CatchingUp,
    Live { tail: Box<dyn Tail>, topics: usize },
}

impl std::fmt::Debug for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::CatchingUp => "CatchingUp",
            Self::Live { .. } => "Live",
        })
    }
}

impl Subscription {
    pub(crate) async fn start(core: Arc<Core>, from: Option<Position>) -> Result<Self, Error> {
        let until = Position::END;
        let mode = from.map_or(Mode::Live, |from| Mode::History(Interval { from, until }));
        let scan = Scan::start(core.clone(), mode).await?;
        let revoked = core.view().state().revoked_tips();
        let mut subscription = Self {
            scan,
            phase: Phase::CatchingUp,
            revoked,
            inbox: Vec::new(),
            has_news: false,
            looked_at: None,
            keeps_place: from.is_none(),
            kept: BTreeMap::new(),
            kept_at: Instant::now(),
        };
        if from.is_none() {
            subscription.resume().await?;
            subscription.go_live().await?;
        }
        Ok(subscription)
    }

    /// Goes on where an earlier subscription stood, behind all that is on the bus now.
    async fn resume(&mut self) -> Result<(), Error> {
        let (of, data) = (self.scan.core.clone(), topic_id(self.scan.topic.as_ref()));
        let kept = off_thread(move || {
            let place = of.vault().places(&of.id())?.remove(&data);
            let trackers = of.vault().of_stream(Space::Track, &of.id())?;
            Ok::<_, Error>((place, trackers))
        });
        let (place, trackers) = kept.await??;
        let end = self.scan.end();
        let recent = Offset(end.0.saturating_sub(NOTED));
        let mut from = None;
        if let Some(place) = place {
            let missed = Offset(end.0.saturating_sub(MISSED_MAX));
            match self.scan.shows(&place).await? {
                true => from = Some(place.at).filter(|at| *at >= missed),
                // What came to lie below the place since then was never looked at.
                false => {
                    self.scan.core.tell([Alarm::LostMessages]);
                    from = Some(missed);
                }
            }
        }
        if from.is_some() {
            for (id, bytes) in trackers {
                let device = id.first_chunk().map(|id| DeviceId(*id));
                if let Some((device, tracker)) = device.zip(Tracker::from_bytes(bytes.expose())) {
                    self.scan.machine().await?.resume(device, tracker);
                }
            }
        }
        let from = from.unwrap_or(recent).min(recent);
        if !self.scan.pass(from, NOTED_BYTES_MAX).await? {
            self.scan.begin_anew().await?;
        }
        let slack = self.scan.core.now().0.saturating_sub(CLOCK_BEHIND_MS_MAX);
        self.scan.machine().await?.raise_floor(Position(slack));
        Ok(())
    }

    /// Waits for the next delivery. A caller may stop waiting and come back: nothing is lost.
    ///
    /// # Errors
    ///
    /// Fails when bus or store cannot be read or written; it may be called again, and goes on.
    pub async fn next(&mut self) -> Result<Delivery, Error> {
        loop {
            // Work that is under way, perhaps since an earlier, abandoned call.
            self.scan.machine().await?;
            if let Some(delivery) = self.scan.pop() {
                return Ok(delivery);
            }
            if self.lacks_keys() {
                self.wait_to_look().await;
                self.has_news = true;
            }
            if self.has_news {
                self.learn().await?;
                self.has_news = false;
            }
            if !self.inbox.is_empty() {
                self.scan.take(std::mem::take(&mut self.inbox));
                continue;
            }
            if self.keeps_place && self.kept_at.elapsed() >= TICK {
                self.store_place().await?;
            }
            match &mut self.phase {
                Phase::CatchingUp => {
                    if !self.scan.read_on().await? {
                        self.scan.machine().await?.go_live();
                        self.go_live().await?;
                    }
                }
                Phase::Live { tail, .. } => match timeout(TICK, tail.next()).await {
                    Ok(news) => {
                        let (topic, items) = news?;
                        self.put(&topic, items);
                    }
                    Err(_) => self.scan.give_up().await?,
                },
            }
        }
    }

    /// Keeps its place, so that what comes again is noticed by the next subscription.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be written.
    pub async fn finish(mut self) -> Result<(), Error> {
        if !self.keeps_place {
            return Ok(());
        }
        self.scan.machine().await?;
        self.scan.take(std::mem::take(&mut self.inbox));
        self.store_place().await
    }

    async fn go_live(&mut self) -> Result<(), Error> {
        let mut topics = self.scan.core.control_places().await?;
        let count = topics.len();
        topics.push((self.scan.topic.clone(), self.scan.place.at));
        let tail = self.scan.core.bus.tail(topics);
        self.phase = Phase::Live {
            tail,
            topics: count,
        };
        Ok(())
    }

    /// Puts aside what the bus handed out: it does not come again.
    fn put(&mut self, topic: &Topic, items: Vec<Item>) {
        if *topic != self.scan.topic {
            self.has_news = true;
            return;
        }
        let at = self.scan.place.at;
        if let Some(last) = items.last().filter(|last| last.offset >= at) {
            self.scan.place = Place::behind(last);
        }
        let new = items.into_iter().filter(|item| item.offset >= at);
        self.inbox.extend(new.map(|item| item.payload));
    }

    /// Whether a session's record or key may have come that was not read yet.
    fn lacks_keys(&self) -> bool {
        let view = self.scan.core.view();
        let mut envelopes = self
            .inbox
            .iter()
            .filter_map(|item| EnvelopeView::parse(item).ok());
        envelopes.any(|envelope| {
            let of = envelope.header();
            let is_announced = view.record(&of.session, &of.device).is_some();
            let is_sender_known = view.user_of(&of.device).is_some();
            let lacks_key = view.lacks_key(&of.session, &of.device, of.position);
            (is_sender_known && !is_announced) || lacks_key
        })
    }

    /// Anybody can write envelopes that seem to lack a key, so looking is done now and then only.
    async fn wait_to_look(&mut self) {
        if let Some(last) = self.looked_at {
            tokio::time::sleep_until(last + LOOK_EVERY).await;
        }
        self.looked_at = Some(Instant::now());
    }

    /// Reads the control topics, hands on keys that others wait for, and follows new topics.
    async fn learn(&mut self) -> Result<(), Error> {
        let core = self.scan.core.clone();
        core.sync().await?;
        put_off(core.share_owed().await)?;
        let revoked = core.view().state().revoked_tips();
        if revoked != self.revoked {
            self.scan.allow_revoked().await?;
            self.revoked = revoked;
        }
        let wanted = core.view().wanted().len();
        match self.phase {
            Phase::Live { topics, .. } if topics != wanted => self.go_live().await,
            Phase::Live { .. } | Phase::CatchingUp => Ok(()),
        }
    }

    async fn store_place(&mut self) -> Result<(), Error> {
        self.kept_at = Instant::now();
        let machine = self.scan.machine().await?;
        let trackers = machine
            .trackers()
            .map(|(device, tracker)| (*device, tracker.to_bytes()));
        let trackers: Vec<_> = trackers.collect();
        let is_new = |of: &(DeviceId, Vec<u8>)| self.kept.get(&of.0) != Some(&of.1);
        let new: Vec<_> = trackers.into_iter().filter(is_new).collect();
        if new.is_empty() {
            return Ok(());
        }
        let place = (topic_id(self.scan.topic.as_ref()), self.scan.place);
        let (core, kept) = (self.scan.core.clone(), new.clone());
        off_thread(move || core.vault().track(&core.id(), &new, place)).await??;
        self.kept.extend(kept);
        Ok(())
    }
}

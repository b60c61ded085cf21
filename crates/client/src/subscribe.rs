//! Following a stream.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sealcast_bus::{Item, Offset, Tail, Topic};
use sealcast_engine::{Mode, SharedWith, Space, Tracker};
use sealcast_protocol::{DeviceId, EnvelopeHash, EnvelopeView, Interval, Position};
use tokio::time::{Instant, timeout};

use crate::blocking::off_thread;
use crate::clock;
use crate::core::Core;
use crate::delivery::Delivery;
use crate::error::Error;
use crate::read::Scan;

/// How long to wait for an envelope that a later one names, and how often the place is kept.
const TICK: Duration = Duration::from_secs(1);
/// How often to look for keys because an envelope seems to lack one.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How late an envelope may come to a subscription that starts now, in milliseconds.
const LATE_MS_MAX: u64 = 10 * 60 * 1000;

/// Follows a stream. Dropping it ends it; [`finish`](Self::finish) also keeps its place.
#[derive(Debug)]
pub struct Subscription {
    scan: Scan,
    phase: Phase,
    /// News of the tail that is not taken in yet: a caller may stop waiting at any time.
    news: Option<(Topic, Vec<Item>)>,
    revoked: BTreeMap<DeviceId, Vec<EnvelopeHash>>,
    keeps_place: bool,
    kept_at: Instant,
    /// When keys were last looked for because an envelope lacked one.
    looked_at: Option<Instant>,
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
        let mut scan = Scan::start(core.clone(), mode).await?;
        if from.is_none() {
            scan.skip_to_end();
            let floor = Position(clock::now().0.saturating_sub(LATE_MS_MAX));
            scan.machine().await?.raise_floor(floor);
            let of = core.clone();
            let kept = off_thread(move || of.vault().of_stream(Space::Track, &of.id()));
            for (id, bytes) in kept.await?? {
                let device = id.first_chunk().map(|id| DeviceId(*id));
                if let Some((device, tracker)) = device.zip(Tracker::from_bytes(bytes.expose())) {
                    scan.machine().await?.resume(device, tracker);
                }
            }
        }
        let revoked = core.view().state().revoked_tips();
        let mut subscription = Self {
            scan,
            phase: Phase::CatchingUp,
            news: None,
            revoked,
            keeps_place: from.is_none(),
            kept_at: Instant::now(),
            looked_at: None,
        };
        if from.is_none() {
            subscription.go_live().await?;
        }
        Ok(subscription)
    }

    /// Waits for the next delivery. A caller may stop waiting and come back: nothing is lost.
    ///
    /// # Errors
    ///
    /// Fails when the bus cannot be read.
    pub async fn next(&mut self) -> Result<Delivery, Error> {
        loop {
            if let Some(delivery) = self.scan.pop() {
                return Ok(delivery);
            }
            // Work that an earlier, abandoned call began.
            self.scan.machine().await?;
            if self.news.is_some() {
                self.take_news().await?;
                continue;
            }
            match &mut self.phase {
                Phase::CatchingUp => {
                    if !self.scan.read_on().await? {
                        self.go_live().await?;
                    }
                }
                Phase::Live { tail, .. } => match timeout(TICK, tail.next()).await {
                    Ok(news) => self.news = Some(news?),
                    Err(_) => {
                        self.scan.give_up(true).await?;
                        self.keep_place().await?;
                    }
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
        self.store_place().await
    }

    async fn go_live(&mut self) -> Result<(), Error> {
        let mut topics = self.scan.core.control_places().await?;
        let count = topics.len();
        topics.push((self.scan.topic.clone(), self.scan.at));
        let tail = self.scan.core.bus.tail(topics);
        self.phase = Phase::Live {
            tail,
            topics: count,
        };
        Ok(())
    }

    /// Takes in what the tail brought. Nothing of it is let go of before it is handed on.
    async fn take_news(&mut self) -> Result<(), Error> {
        let Some((topic, items)) = &self.news else {
            return Ok(());
        };
        if *topic != self.scan.topic {
            self.learn().await?;
            self.news = None;
            return Ok(());
        }
        if self.lacks_keys(items) {
            self.look_for_keys().await?;
        }
        let Some((_, items)) = self.news.take() else {
            return Ok(());
        };
        let at = self.scan.at;
        if let Some(last) = items.last() {
            self.scan.at = Offset(last.offset.0 + 1);
        }
        let new = items.into_iter().filter(|item| item.offset >= at);
        self.scan
            .take(new.map(|item| item.payload).collect())
            .await?;
        self.keep_place().await
    }

    /// Whether a session's record or key may have come that was not read yet.
    fn lacks_keys(&self, items: &[Item]) -> bool {
        let view = self.scan.core.view();
        let envelopes = items
            .iter()
            .filter_map(|item| EnvelopeView::parse(&item.payload).ok());
        envelopes.into_iter().any(|envelope| {
            let of = envelope.header();
            let is_announced = view.record(&of.session, &of.device).is_some();
            let is_sender_known = view.user_of(&of.device).is_some();
            let lacks_key = view.lacks_key(&of.session, &of.device, of.position);
            (is_sender_known && !is_announced) || lacks_key
        })
    }

    /// Anybody can write envelopes that seem to lack a key, so this is done now and then only.
    async fn look_for_keys(&mut self) -> Result<(), Error> {
        if let Some(last) = self.looked_at {
            tokio::time::sleep_until(last + LOOK_EVERY).await;
        }
        self.learn().await?;
        self.looked_at = Some(Instant::now());
        Ok(())
    }

    /// Reads the control topics, hands on keys that others wait for, and follows new topics.
    async fn learn(&mut self) -> Result<(), Error> {
        let core = self.scan.core.clone();
        core.sync().await?;
        core.share(SharedWith::Everyone, usize::MAX).await?;
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

    async fn keep_place(&mut self) -> Result<(), Error> {
        if self.kept_at.elapsed() < TICK {
            return Ok(());
        }
        self.store_place().await
    }

    async fn store_place(&mut self) -> Result<(), Error> {
        if !self.keeps_place {
            return Ok(());
        }
        self.kept_at = Instant::now();
        let machine = self.scan.machine().await?;
        let trackers: Vec<_> = machine
            .trackers()
            .map(|(device, tracker)| (*device, tracker.to_bytes()))
            .collect();
        let core = self.scan.core.clone();
        off_thread(move || core.vault().track(&core.id(), &trackers)).await?
    }
}

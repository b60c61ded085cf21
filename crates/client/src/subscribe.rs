//! Following a stream.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use sealcast_bus::{BusError, Item, Offset, Topic};
use sealcast_engine::{Alarm, CLOCK_BEHIND_MS_MAX, Mode, Space, Tracker};
use sealcast_protocol::{DataItem, DeviceId, EnvelopeHash, Interval, Position};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::blocking::off_thread;
use crate::core::{Core, put_off};
use crate::delivery::{Delivery, Reason, State};
use crate::error::Error;
use crate::options::SubscribeOptions;
use crate::parking::Lot;
use crate::place::{Place, Reached};
use crate::read::Scan;
use crate::tailing::Tailing;
use crate::vault::topic_id;

/// How long to wait for an envelope that a later one names, and how often the place is kept.
const TICK: Duration = Duration::from_secs(1);
/// How often to look for keys because an envelope seems to lack one.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often to look whether the bus still shows what it showed. One that was put back to an older
/// state hands out nothing until it has grown to where it was.
const COMPARE_AGAIN: Duration = Duration::from_secs(30);
/// How often to look what is new in the control topics while it catches up, and nothing tells of that.
const LEARN_AGAIN: Duration = Duration::from_secs(5);
/// Items before the start of live reading that are noted where no place was kept.
const NOTED: u64 = 1024;
/// Items that may have come since the place was kept; with more, what was kept is of no use.
const MISSED_MAX: u64 = 65_536;
/// Bytes that are read to note them, at most.
const NOTED_BYTES_MAX: usize = 256 << 20;
/// Items that are taken from the bus while parked ones are opened.
const INBOX_MAX: usize = 8192;

/// Follows a stream. Dropping it ends it; [`finish`](Self::finish) also keeps its place.
///
/// A message that cannot be opened yet is told at once, and waits on disk; [`Delivery::parked`] says
/// so. When its key has come it is delivered again, opened, in the order of its device and before
/// what that device publishes then, by this subscription or by a later one of the home. It is
/// delivered at least once: that it was, is recorded when the caller asks for what comes next, some
/// hundred messages at a time, so that a process that is killed may be handed a few again.
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
    /// What waits for keys.
    lot: Lot,
    /// Whether to look what of it opens.
    is_to_look: bool,
    /// Whether what has waited as long as it may is given up.
    expires: bool,
    /// Whether parked messages are being opened, and whether they are next.
    is_releasing: bool,
    is_turn_of_parked: bool,
    /// Changes when keys that were asked for have come.
    answers: Option<watch::Receiver<u64>>,
    learned_at: Instant,
    compared_at: Instant,
    /// Behind which item the newest that came begin, and whether something is missing before one of them.
    before: Place,
    has_gap: bool,
    /// When keys were last looked for because an envelope lacked one.
    looked_at: Option<Instant>,
    keeps_place: bool,
    kept: BTreeMap<DeviceId, Vec<u8>>,
    kept_at: Instant,
}

/// Whether an envelope seems to lack its key, and whether others wait for one of its session.
enum Lack {
    Nothing,
    Known,
    New,
}

enum Phase {
    CatchingUp,
    Live { tail: Tailing, topics: usize },
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
    pub(crate) async fn start(core: Arc<Core>, options: SubscribeOptions) -> Result<Self, Error> {
        let (from, until) = (options.from, Position::END);
        let mode = from.map_or(Mode::Live, |from| Mode::History(Interval { from, until }));
        let end = match from {
            // It is read as far as there is something. Where it ends a bus may not know before it has all of it.
            Some(_) => Offset(u64::MAX),
            None => core.bus.end(&core.data_topic()?).await?,
        };
        let mut scan = Scan::start(core.clone(), mode, end).await?;
        let since = from.unwrap_or(Position::START);
        let lot = Lot::open(core.clone(), options.parking, since).await?;
        scan.park_in(lot.clone()).await?;
        let asks = core.home.asking().subscriptions_ask;
        scan.asking = asks.then(|| core.asking());
        let answers = scan.asking.as_ref().map(|of| of.answers());
        let revoked = core.view().state().revoked_tips();
        let mut subscription = Self {
            scan,
            phase: Phase::CatchingUp,
            revoked,
            inbox: Vec::new(),
            has_news: false,
            lot,
            is_to_look: false,
            expires: true,
            is_releasing: false,
            is_turn_of_parked: false,
            answers,
            compared_at: Instant::now(),
            learned_at: Instant::now(),
            before: Place::default(),
            has_gap: false,
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
            let reached = of.vault().places(&of.ticket)?.remove(&data);
            let trackers = of.vault().of_stream(Space::Track, &of.id())?;
            Ok::<_, Error>((reached, trackers))
        });
        let (reached, trackers) = kept.await??;
        let end = self.scan.end();
        let recent = Offset(end.0.saturating_sub(NOTED));
        let mut from = None;
        if let Some(Reached { place, shown, .. }) = reached {
            let missed = Offset(end.0.saturating_sub(MISSED_MAX));
            match self.scan.shows(&place).await? {
                // It was on another bus, and lies wherever this one has it.
                true if shown.is_some() => from = Some(missed),
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

    /// The next delivery, where it is at hand. What waited for its key and is handed out is noted as
    /// such by [`next`](Self::next) alone.
    pub fn next_ready(&mut self) -> Option<Delivery> {
        let delivery = self.scan.pop()?;
        self.has_gap |= delivery.state == State::Gap;
        Some(delivery)
    }

    /// Waits for the next delivery. A caller may stop waiting and come back: nothing is lost.
    ///
    /// # Errors
    ///
    /// Fails when bus or store cannot be read or written; it may be called again, and goes on.
    pub async fn next(&mut self) -> Result<Delivery, Error> {
        loop {
            // Work that is under way, perhaps since an earlier, abandoned call.
            self.await_release().await?;
            self.scan.machine().await?;
            if let Some(delivery) = self.next_ready() {
                return Ok(delivery);
            }
            self.scan.record_handed_out().await?;
            if self.scan.tell_parked().await? {
                continue;
            }
            self.look_for_keys().await?;
            if self.begin_next() {
                continue;
            }
            if self.keeps_place && self.kept_at.elapsed() >= TICK {
                self.store_place().await?;
            }
            if self.expires && self.lot.has_old() {
                // A store that does not let go of what is old says so once.
                let expired = self.lot.expire().await;
                self.expires = expired.is_ok();
                expired?;
                continue;
            }
            if self.compares_again().await? {
                continue;
            }
            match &mut self.phase {
                Phase::CatchingUp => {
                    if !self.has_gap {
                        self.before = self.scan.place;
                    }
                    if !self.scan.read_on().await? {
                        let machine = self.scan.machine().await?;
                        machine.read_again(false);
                        machine.go_live();
                        self.go_live().await?;
                    }
                }
                Phase::Live { tail, .. } => tokio::select! {
                    news = timeout(TICK, tail.next()) => match news {
                        Ok(Ok((topic, items))) => self.put(&topic, items),
                        Ok(Err(fault)) => return Err(self.pass_damage(fault).await),
                        Err(_) => self.scan.give_up().await?,
                    },
                    () = answered(&mut self.answers) => self.has_news = true,
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
        self.scan.record_handed_out().await?;
        if !self.keeps_place {
            return Ok(());
        }
        self.scan.machine().await?;
        self.scan.take(std::mem::take(&mut self.inbox));
        self.store_place().await
    }

    /// How often [`next`](Self::next) has failed at messages that a damaged bus cannot show, and goes on
    /// behind them. Where it fails as damaged and there are no more of these, calling it again does not help.
    pub fn damages_passed(&self) -> u64 {
        self.scan.damages_passed
    }

    /// How many messages of those that this subscription said are [parked](Delivery::parked) are so
    /// still, by the reason that was told.
    pub fn waiting(&self) -> Vec<(Reason, u64)> {
        self.lot.waiting()
    }

    async fn go_live(&mut self) -> Result<(), Error> {
        let mut topics = self.scan.core.control_places().await?;
        let count = topics.len();
        topics.push((self.scan.topic.clone(), self.scan.place.at));
        let tail = Tailing::new(self.scan.core.bus.tail(topics));
        self.phase = Phase::Live {
            tail,
            topics: count,
        };
        self.is_to_look = true;
        Ok(())
    }

    /// Goes on behind messages that a damaged bus cannot show, and returns what to tell.
    async fn pass_damage(&mut self, fault: Error) -> Error {
        if !matches!(fault, Error::Bus(BusError::Damaged { .. })) {
            return fault;
        }
        match self.scan.pass_damage().await {
            Ok(true) => self.go_live().await.err().unwrap_or(fault),
            Ok(false) => fault,
            Err(worse) => worse,
        }
    }

    /// Looks now and then, and where something is missing, whether the bus was put back to an older
    /// state, and begins to read again what it shows then. Returns whether it did.
    async fn compares_again(&mut self) -> Result<bool, Error> {
        let is_due = self.has_gap || self.compared_at.elapsed() >= COMPARE_AGAIN;
        if !is_due || !matches!(self.phase, Phase::Live { .. }) {
            return Ok(false);
        }
        let place = match self.has_gap {
            true => self.before,
            false => self.scan.place,
        };
        // Noted before it is done: a caller who gives up early is to come to what follows.
        (self.compared_at, self.has_gap) = (Instant::now(), false);
        let went_back = self.scan.went_back(&place).await;
        // A bus that is away says so to whoever needs it.
        let Ok(Some(end)) = went_back else {
            return Ok(false);
        };
        let from = Offset(end.0.saturating_sub(MISSED_MAX));
        self.scan.read_again(from).await?;
        self.scan.core.tell([Alarm::LostMessages]);
        self.phase = Phase::CatchingUp;
        self.has_news = true;
        Ok(true)
    }

    /// Puts aside what the bus handed out: it does not come again.
    fn put(&mut self, topic: &Topic, items: Vec<Item>) {
        if *topic != self.scan.topic {
            self.has_news = true;
            return;
        }
        let at = self.scan.place.at;
        if self.inbox.is_empty() && !self.has_gap {
            self.before = self.scan.place;
        }
        if let Some(last) = items.last().filter(|last| last.offset >= at) {
            self.scan.place = Place::behind(last);
        }
        let new = items.into_iter().filter(|item| item.offset >= at);
        self.inbox.extend(new.map(|item| item.payload));
    }

    /// Learns what there is to learn, and finds what of the parked opens by it.
    async fn look_for_keys(&mut self) -> Result<(), Error> {
        match self.lacks_keys() {
            Lack::New => {
                self.wait_to_look().await;
                self.has_news = true;
            }
            // Its key is known to be missing, and nothing waits for it here.
            Lack::Known if self.may_look_now() => {
                self.looked_at = Some(Instant::now());
                self.has_news = true;
            }
            Lack::Known | Lack::Nothing => (),
        }
        let is_untold = matches!(self.phase, Phase::CatchingUp);
        self.has_news |= is_untold && self.learned_at.elapsed() >= LEARN_AGAIN;
        if self.has_news {
            self.learn().await?;
            self.learned_at = Instant::now();
            self.is_to_look = true;
            self.has_news = false;
        }
        let is_live = matches!(self.phase, Phase::Live { .. });
        if is_live && (self.is_to_look || self.lot.wants_look()) {
            let missing = self.lot.look().await?;
            if let Some(asking) = &self.scan.asking {
                asking.lack(missing);
            }
            self.is_to_look = false;
        }
        Ok(())
    }

    /// Begins to open what comes next: by turns what was parked and may open, and what came since
    /// from devices of which nothing parked may. False where there is nothing.
    fn begin_next(&mut self) -> bool {
        if !self.lot.has_due() {
            let is_there = !self.inbox.is_empty();
            if is_there {
                self.scan.take(std::mem::take(&mut self.inbox));
            }
            return is_there;
        }
        if !self.is_turn_of_parked {
            let is_later = |item: &Vec<u8>| {
                let envelope = DataItem::parse(item);
                envelope.is_ok_and(|of| self.lot.is_due(&of.header().device))
            };
            let inbox = std::mem::take(&mut self.inbox).into_iter();
            let (later, now) = inbox.partition::<Vec<_>, _>(is_later);
            self.inbox = later;
            if !now.is_empty() {
                self.scan.take(now);
                self.is_turn_of_parked = true;
                return true;
            }
        }
        self.is_turn_of_parked = false;
        self.is_releasing = true;
        self.scan.reopen();
        true
    }

    /// Waits until parked messages are opened, and takes in what comes meanwhile.
    async fn await_release(&mut self) -> Result<(), Error> {
        while self.is_releasing && self.scan.is_busy() && self.inbox.len() < INBOX_MAX {
            let Phase::Live { tail, .. } = &mut self.phase else {
                break;
            };
            tokio::select! {
                biased;
                news = tail.next() => match news {
                    Ok((topic, items)) => self.put(&topic, items),
                    Err(fault) => return Err(self.pass_damage(fault).await),
                },
                opened = self.scan.machine() => drop(opened?),
            }
        }
        self.is_releasing = false;
        Ok(())
    }

    /// Whether a session's record or key may have come that was not read yet.
    fn lacks_keys(&self) -> Lack {
        let mut lacking = BTreeSet::new();
        {
            let view = self.scan.core.view();
            let parsed = self.inbox.iter().map(|item| DataItem::parse(item));
            for envelope in parsed.flatten() {
                let of = envelope.header();
                let is_announced = view.record(&of.session, &of.device).is_some();
                let is_sender_known = view.user_of(&of.device).is_some();
                let lacks_key = view.lacks_key(&of.session, &of.device, of.position);
                if (is_sender_known && !is_announced) || lacks_key {
                    lacking.insert((of.session, of.device));
                }
            }
        }
        let is_known = |(session, device): &(_, _)| self.lot.has(session, device);
        match lacking.iter().all(is_known) {
            _ if lacking.is_empty() => Lack::Nothing,
            true => Lack::Known,
            false => Lack::New,
        }
    }

    /// Anybody can write envelopes that seem to lack a key, so looking is done now and then only.
    async fn wait_to_look(&mut self) {
        if let Some(last) = self.looked_at {
            tokio::time::sleep_until(last + LOOK_EVERY).await;
        }
        self.looked_at = Some(Instant::now());
    }

    fn may_look_now(&self) -> bool {
        let last = self.looked_at;
        last.is_none_or(|last| last.elapsed() >= LOOK_EVERY)
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
        off_thread(move || core.vault().track(&core.ticket, &new, place)).await??;
        self.kept.extend(kept);
        Ok(())
    }
}

/// Waits until keys that were asked for have come.
async fn answered(answers: &mut Option<watch::Receiver<u64>>) {
    if let Some(answers) = answers
        && answers.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

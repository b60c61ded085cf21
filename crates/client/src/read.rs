//! Reading history.

use std::collections::BTreeMap;
use std::sync::Arc;

use sealcast_bus::{BusError, Item, Offset, Topic};
use sealcast_crypto::leaving_no_trace;
use sealcast_engine::{Allowed, Events, Lineage, Mode, Reader as Machine};
use sealcast_protocol::{DeviceId, EnvelopeHash, Interval};
use tokio::task::{JoinError, JoinHandle, spawn_blocking};

use crate::asking::Asking;
use crate::core::{Core, READ_BYTES};
use crate::damage::{behind_damage, read_past};
use crate::delivery::{Delivery, Lent, next_delivery, next_record};
use crate::error::Error;
use crate::gaps::Gaps;
use crate::parking::Lot;
use crate::place::Place;

/// Reads what was published at the positions of an interval, in the order of the bus.
///
/// ```no_run
/// # async fn doc(stream: sealcast::Stream) -> Result<(), sealcast::Error> {
/// use sealcast::Interval;
///
/// let mut reader = stream.read(Interval::ALL).await?;
/// while let Some(delivery) = reader.next().await? {
///     if let Some(payload) = &delivery.payload {
///         println!("{}", String::from_utf8_lossy(payload));
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Reader {
    scan: Scan,
    interval: Interval,
    is_done: bool,
}

/// The data topic on its way through the engine's reader.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) core: Arc<Core>,
    pub(crate) topic: Topic,
    pub(crate) place: Place,
    end: Offset,
    /// How often it went on behind what the bus cannot show.
    pub(crate) damages_passed: u64,
    /// Where what cannot be opened waits, if it does.
    lot: Option<Lot>,
    state: ScanState,
    /// What comes next, on its way.
    ahead: Option<Ahead>,
    ready: Events,
    /// Learns what lacks keys and what opens, where anybody is to be asked.
    pub(crate) asking: Option<Arc<Asking>>,
    /// Gaps that are told at the end, where there is one.
    gaps: Option<Gaps>,
}

/// A batch that is being opened stays with the scan, so that a caller may stop waiting for it.
#[derive(Debug)]
enum ScanState {
    Idle(Box<Machine>),
    Opening(JoinHandle<Result<Opened, JoinError>>),
    Lost,
}

#[derive(Debug)]
struct Opened {
    machine: Box<Machine>,
    /// Where to read on, where something was read for it, and what was in the way.
    place: Option<Place>,
    ahead: Option<Ahead>,
    fault: Option<Error>,
}

/// Items that are being read, so that the bus is busy while others are opened.
#[derive(Debug)]
struct Ahead {
    from: Offset,
    reading: JoinHandle<Result<Vec<Item>, BusError>>,
}

impl Ahead {
    fn begin(core: &Core, topic: &Topic, from: Offset) -> Self {
        let (bus, topic) = (core.bus.clone(), topic.clone());
        let reading = async move { bus.read(&topic, from, READ_BYTES).await };
        Self {
            from,
            reading: tokio::spawn(reading),
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

impl Reader {
    pub(crate) async fn history(core: Arc<Core>, interval: Interval) -> Result<Self, Error> {
        let end = core.bus.end(&core.data_topic()?).await?;
        let mut scan = Scan::start(core, Mode::History(interval), end).await?;
        scan.gaps = Some(Gaps::default());
        Ok(Self {
            scan,
            interval,
            is_done: false,
        })
    }

    /// The next delivery; `None` at the end of what was on the bus when reading began. A caller may
    /// stop waiting and come back: nothing is lost.
    ///
    /// # Errors
    ///
    /// Fails when the bus cannot be read. What cannot be opened is a delivery, not an error. Where the
    /// bus is damaged it fails once for each stretch of items that cannot be read; called again, it
    /// goes on behind it.
    pub async fn next(&mut self) -> Result<Option<Delivery>, Error> {
        loop {
            if let Some(delivery) = self.scan.pop() {
                return Ok(Some(delivery));
            }
            if self.is_done {
                return Ok(None);
            }
            if !self.scan.read_ahead().await? {
                self.scan.give_up().await?;
                self.scan.gaps.iter_mut().for_each(Gaps::tell_all);
                self.is_done = true;
            }
        }
    }

    /// Lends the next delivery if it is a record of a frame that is open already. It is not copied, so this is
    /// faster than [`next`](Self::next), which is to be asked where this has none.
    #[inline]
    pub fn lend(&mut self) -> Option<Lent<'_>> {
        let scan = &mut self.scan;
        let known = (scan.asking.as_deref(), scan.gaps.as_mut());
        next_record(known, &mut scan.ready).map(Lent)
    }

    /// The interval that is read.
    pub fn interval(&self) -> Interval {
        self.interval
    }

    /// Envelopes looked at so far, and how many there were at the start.
    pub fn progress(&self) -> (u64, u64) {
        (self.scan.place.at.0, self.scan.end.0)
    }
}

impl Scan {
    /// Reads up to `end`, or for as long as there is something.
    pub(crate) async fn start(core: Arc<Core>, mode: Mode, end: Offset) -> Result<Self, Error> {
        let topic = core.data_topic()?;
        let mut scan = Self {
            core,
            topic,
            place: Place::default(),
            end,
            damages_passed: 0,
            lot: None,
            state: ScanState::Idle(Box::new(Machine::new(mode))),
            ahead: None,
            ready: Events::default(),
            asking: None,
            gaps: None,
        };
        scan.allow_revoked().await?;
        Ok(scan)
    }

    /// Lets wait from now on what cannot be opened.
    pub(crate) async fn park_in(&mut self, lot: Lot) -> Result<(), Error> {
        lot.prepare(self.machine().await?);
        self.lot = Some(lot);
        Ok(())
    }

    /// What was on the bus at the start, where that was asked for.
    pub(crate) fn end(&self) -> Offset {
        self.end
    }

    /// Lets in what revoked devices had published before.
    pub(crate) async fn allow_revoked(&mut self) -> Result<(), Error> {
        let allowed = allowed_now(&self.core).await?;
        self.machine().await?.allow(allowed);
        Ok(())
    }

    /// Takes the next items of the topic in; false at its end.
    pub(crate) async fn read_on(&mut self) -> Result<bool, Error> {
        self.machine().await?;
        if !self.ready.is_empty() {
            return Ok(true);
        }
        let before = self.place.at;
        self.begin_to_read();
        self.machine().await?;
        Ok(self.place.at > before)
    }

    /// As [`read_on`](Self::read_on) up to what was on the bus at the start; what follows is read
    /// and opened while the caller looks at what came.
    async fn read_ahead(&mut self) -> Result<bool, Error> {
        self.machine().await?;
        if self.ready.is_empty() && (self.place.at >= self.end || !self.read_on().await?) {
            return Ok(false);
        }
        if self.place.at < self.end {
            self.begin_to_read();
        }
        Ok(true)
    }

    /// Begins to read the next items and to open them.
    fn begin_to_read(&mut self) {
        if let ScanState::Idle(machine) = std::mem::replace(&mut self.state, ScanState::Lost) {
            let from = self.place.at;
            let ahead = self.ahead.take().filter(|of| of.from == from);
            let ahead = ahead.unwrap_or_else(|| Ahead::begin(&self.core, &self.topic, from));
            let ground = (self.core.clone(), self.lot.clone());
            let step = read_and_open(ground, self.topic.clone(), ahead, self.end, machine);
            self.state = ScanState::Opening(tokio::spawn(step));
        }
    }

    /// Begins to open some items, off the runtime's threads. Wait for the
    /// [`machine`](Self::machine) before and after.
    pub(crate) fn take(&mut self, items: Vec<Vec<u8>>) {
        let (core, lot) = (self.core.clone(), self.lot.clone());
        self.work(move |machine| open(&core, lot.as_ref(), machine, &items));
    }

    /// Begins to open what waited and may open by now, as [`take`](Self::take) does.
    pub(crate) fn reopen(&mut self) {
        if let Some(lot) = self.lot.clone() {
            self.work(move |machine| lot.reopen(machine).err());
        }
    }

    fn work(&mut self, work: impl FnOnce(&mut Machine) -> Option<Error> + Send + 'static) {
        if let ScanState::Idle(mut machine) = std::mem::replace(&mut self.state, ScanState::Lost) {
            self.state = ScanState::Opening(spawn_blocking(move || {
                let fault = leaving_no_trace(|| work(&mut machine));
                Ok(Opened {
                    machine,
                    place: None,
                    ahead: None,
                    fault,
                })
            }));
        }
    }

    /// Whether something is being opened.
    pub(crate) fn is_busy(&self) -> bool {
        matches!(self.state, ScanState::Opening(_))
    }

    /// Takes in what is to be told of what waits. Returns whether there was anything.
    pub(crate) async fn tell_parked(&mut self) -> Result<bool, Error> {
        let told = self.lot.as_ref().map(Lot::take_told).unwrap_or_default();
        if told.is_empty() {
            return Ok(false);
        }
        let machine = self.machine().await?;
        machine.tell(told);
        let told = machine.take_events();
        self.ready.append(told);
        Ok(true)
    }

    /// Notes what of the parked was handed out, so that it is not handed out again.
    pub(crate) async fn record_handed_out(&mut self) -> Result<(), Error> {
        match &self.lot {
            Some(lot) => lot.forget(self.ready.take_done()).await,
            None => Ok(()),
        }
    }

    /// Notes the items from an offset to the end of the topic, so that they are known when they
    /// come again, and goes on behind them. Returns false where they have more bytes than that.
    pub(crate) async fn pass(&mut self, from: Offset, bytes_max: usize) -> Result<bool, Error> {
        let (mut at, mut bytes) = (from, 0);
        while at < self.end && bytes <= bytes_max {
            let items = read_past(&*self.core.bus, &self.topic, at, self.end).await?;
            let Some(last) = items.last() else {
                break;
            };
            self.place = Place::behind(last);
            at = self.place.at;
            let core = self.core.clone();
            let machine = self.machine().await?;
            for item in &items {
                bytes += item.payload.len();
                machine.pass(&core.view(), &item.payload);
            }
        }
        if let Some(last) = self.end.0.checked_sub(1)
            && self.place.at < self.end
        {
            self.place = match self.core.bus.read(&self.topic, Offset(last), 1).await {
                Err(BusError::Damaged { .. }) => Place::unknown(self.end),
                items => items?.first().map_or(self.place, Place::behind),
            };
        }
        Ok(bytes <= bytes_max)
    }

    /// Goes on behind items that the bus cannot show, where such lie next. Returns whether they do.
    pub(crate) async fn pass_damage(&mut self) -> Result<bool, Error> {
        let (bus, at) = (&*self.core.bus, self.place.at);
        let Err(BusError::Damaged { .. }) = bus.read(&self.topic, at, 1).await else {
            return Ok(false);
        };
        let end = bus.end(&self.topic).await?;
        let behind = behind_damage(bus, &self.topic, at, end).await?;
        self.place = Place::unknown(behind);
        self.damages_passed += 1;
        Ok(true)
    }

    /// Whether the bus still shows the item that a place in the topic is behind. One that is damaged
    /// proves nothing.
    pub(crate) async fn shows(&self, place: &Place) -> Result<bool, Error> {
        let Some(last) = place.last().filter(|_| place.at <= self.end) else {
            return Ok(place.is_shown(None));
        };
        match self.core.bus.read(&self.topic, last, 1).await {
            Err(BusError::Damaged { .. }) => Ok(true),
            items => Ok(place.is_shown(items?.first())),
        }
    }

    /// Whether the bus shows another past than it did before a place; where it ends, if so. What was
    /// trimmed or is damaged proves nothing.
    pub(crate) async fn went_back(&self, place: &Place) -> Result<Option<Offset>, Error> {
        let bus = &self.core.bus;
        let is_known = *place != Place::unknown(place.at);
        let Some(last) = place.last().filter(|_| is_known) else {
            return Ok(None);
        };
        let end = bus.end(&self.topic).await?;
        let is_shown = match bus.read(&self.topic, last, 1).await {
            _ if end < place.at => false,
            Err(BusError::Damaged { .. }) => true,
            items => items?.first().is_none_or(|of| place.is_shown(Some(of))),
        };
        Ok((!is_shown).then_some(end))
    }

    /// Goes back to an earlier place. What is known of what follows is passed over.
    pub(crate) async fn read_again(&mut self, from: Offset) -> Result<(), Error> {
        self.machine().await?.read_again(true);
        self.place = Place::unknown(from);
        Ok(())
    }

    /// Forgets all that was noted and resumed of live reading.
    pub(crate) async fn begin_anew(&mut self) -> Result<(), Error> {
        let mut machine = Box::new(Machine::new(Mode::Live));
        if let Some(lot) = &self.lot {
            lot.prepare(&mut machine);
        }
        self.state = ScanState::Idle(machine);
        self.allow_revoked().await
    }

    /// The machine, when it has opened what it was given.
    pub(crate) async fn machine(&mut self) -> Result<&mut Machine, Error> {
        if let ScanState::Idle(machine) = &self.state
            && machine.has_unopened()
        {
            // What failed to be parked is tried again.
            self.take(Vec::new());
        }
        if let ScanState::Opening(work) = &mut self.state {
            let opened = work.await.and_then(|opened| opened);
            let Ok(mut opened) = opened else {
                self.state = ScanState::Lost;
                return Err(LOST);
            };
            if !opened.machine.has_unopened() {
                self.ready.append(opened.machine.take_events());
            }
            self.state = ScanState::Idle(opened.machine);
            if let Some(Error::Bus(BusError::Damaged { .. })) = opened.fault {
                self.damages_passed += u64::from(opened.place.is_some());
            }
            self.place = opened.place.unwrap_or(self.place);
            self.ahead = opened.ahead.or(self.ahead.take());
            if let Some(fault) = opened.fault {
                return Err(fault);
            }
        }
        match &mut self.state {
            ScanState::Idle(machine) => Ok(machine),
            ScanState::Opening(_) | ScanState::Lost => Err(LOST),
        }
    }

    /// Tells of envelopes that later ones name and that did not come.
    pub(crate) async fn give_up(&mut self) -> Result<(), Error> {
        let core = self.core.clone();
        let machine = self.machine().await?;
        machine.give_up(&core.view(), true);
        let given_up = machine.take_events();
        self.ready.append(given_up);
        Ok(())
    }

    /// The next of what was opened. A giver whose keys do not open is told as an alarm.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Delivery> {
        let known = (self.asking.as_deref(), self.gaps.as_mut());
        next_delivery(&self.core, known, &mut self.ready)
    }
}

const LOST: Error = Error::Internal("a reader's worker ended early");

/// Opens what is read, while the bus is asked for what comes next before an end. What a damaged bus
/// cannot show is passed over, and told.
async fn read_and_open(
    (core, lot): (Arc<Core>, Option<Lot>),
    topic: Topic,
    mut reading: Ahead,
    end: Offset,
    mut machine: Box<Machine>,
) -> Result<Opened, JoinError> {
    let items = match (&mut reading.reading).await? {
        Ok(items) => items,
        Err(fault) => {
            let (place, fault) = pass_damage(&core, &topic, reading.from, fault).await;
            return Ok(Opened {
                machine,
                place,
                ahead: None,
                fault: Some(fault),
            });
        }
    };
    let place = items.last().map(Place::behind);
    let next = place.map(|place| place.at).filter(|at| *at < end);
    let ahead = next.map(|at| Ahead::begin(&core, &topic, at));
    let items: Vec<_> = items.into_iter().map(|item| item.payload).collect();
    let work = move || {
        let fault = leaving_no_trace(|| open(&core, lot.as_ref(), &mut machine, &items));
        Opened {
            machine,
            place,
            ahead,
            fault,
        }
    };
    spawn_blocking(work).await
}

/// Where to read on behind what cannot be read, if anywhere, and what to tell.
async fn pass_damage(
    core: &Core,
    topic: &Topic,
    from: Offset,
    fault: BusError,
) -> (Option<Place>, Error) {
    if !matches!(fault, BusError::Damaged { .. }) {
        return (None, fault.into());
    }
    let behind = async {
        // It may have grown since reading began.
        let end = core.bus.end(topic).await?;
        behind_damage(&*core.bus, topic, from, end).await
    };
    match behind.await {
        Ok(at) => (Some(Place::unknown(at)), fault.into()),
        Err(worse) => (None, worse),
    }
}

/// Opens items, and lets wait what does not open. Returns why it cannot wait.
fn open(core: &Core, lot: Option<&Lot>, machine: &mut Machine, items: &[Vec<u8>]) -> Option<Error> {
    for item in items {
        machine.handle(&core.view(), item);
    }
    lot.and_then(|lot| lot.park(machine).err())
}

/// The envelopes of revoked devices that were accepted when they were revoked.
async fn allowed(
    core: &Core,
    revoked: BTreeMap<DeviceId, Vec<EnvelopeHash>>,
    end: Offset,
) -> Result<Allowed, Error> {
    let (topic, stream) = (core.data_topic()?, core.id());
    let mut lineage = Lineage::new(revoked);
    let mut at = Offset(0);
    loop {
        let items = read_past(&*core.bus, &topic, at, end).await?;
        let Some(last) = items.last() else {
            break;
        };
        at = Offset(last.offset.0 + 1);
        for item in &items {
            lineage.observe(&stream, &item.payload);
        }
    }
    Ok(lineage.resolve())
}

/// As [`allowed`], for the access log as it is known now.
pub(crate) async fn allowed_now(core: &Core) -> Result<Allowed, Error> {
    let revoked = core.view().state().revoked_tips();
    match revoked.is_empty() {
        true => Ok(Allowed::default()),
        false => {
            let end = core.bus.end(&core.data_topic()?).await?;
            allowed(core, revoked, end).await
        }
    }
}

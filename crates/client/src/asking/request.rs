//! Asking for the keys of an interval.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use sealcast_bus::{Item, Offset, Topic};
use sealcast_engine::{AskerEvent, End, Event, Mode, Outcome, Reader as Machine};
use sealcast_protocol::{Header, Interval, Position, RefusalReason, RequestId, UserId, Want};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::asker::{Asking, interval_around, lane_is_asked_for};
use super::{AskingEvent, NodesSaid};
use crate::blocking::off_thread;
use crate::core::{Core, put_off};
use crate::damage::read_past;
use crate::error::Error;
use crate::read::allowed_now;
use crate::stream::Stream;

/// Things that one request asks for, at most, and of one lane: whoever starts session after session
/// takes the room of no other publisher.
const WANTS_MAX: usize = 4_096;
const OF_LANE_MAX: usize = 1_024;
/// How long the receipts may take that say what has opened.
const RECEIPTS_WITHIN: Duration = Duration::from_secs(1);

/// What to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestOptions {
    /// The positions of the messages that are to open.
    pub interval: Interval,
    /// How long to wait for that.
    pub wait: Duration,
}

/// Everything, for half a minute.
impl Default for RequestOptions {
    fn default() -> Self {
        Self {
            interval: Interval::ALL,
            wait: Duration::from_secs(30),
        }
    }
}

/// What a request came to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Requested {
    /// How it ended.
    pub end: End,
    /// What was missing: sessions, each once for every interval that a grant gives of it.
    pub missing: usize,
    /// How much of it opens now.
    pub opened: usize,
    /// What kept key nodes from releasing it, where the stream has them.
    pub nodes: NodesSaid,
}

impl Stream {
    /// Asks for the keys of all that was published in an interval and does not open, and waits until
    /// it does, or a reason is known. What the access log does not entitle this user to is asked for
    /// as well: somebody may decide to grant it.
    ///
    /// Everything opened already is a success, too. Dropping the future ends the request.
    ///
    /// # Errors
    ///
    /// Fails when the bus cannot be reached, and in a stream with manual sharing and without key nodes, in
    /// which only keyholders ask.
    pub async fn request(&self, options: RequestOptions) -> Result<Requested, Error> {
        let deadline = Instant::now().checked_add(options.wait);
        self.core.sync().await?;
        let missing = Missing::find(&self.core, options.interval).await?;
        if missing.wants.is_empty() {
            return Ok(missing.ended());
        }
        let has_nodes = self.core.view().state().key_nodes().is_some();
        let mut lanes = missing.wants.keys().map(|want| want.lane);
        if !has_nodes && !lanes.any(|lane| lane_is_asked_for(&self.core, &lane)) {
            return Err(Error::NotAllowed(
                "the stream shares keys by hand, so that only keyholders ask for them",
            ));
        }
        wait_for(self.core.clone(), missing, deadline).await
    }

    /// Asks the key nodes, where the stream has them, for the keys of all that was published in an interval
    /// and does not open, and waits until they are done, or nothing is heard of it for as long as is to be waited.
    /// Nobody else is asked. Returns what kept them from releasing it.
    ///
    /// # Errors
    ///
    /// Fails when the bus cannot be reached.
    pub async fn unlock(&self, options: RequestOptions) -> Result<NodesSaid, Error> {
        let mut said = NodesSaid::default();
        let deadline = || Instant::now() + options.wait;
        self.core.sync().await?;
        if self.core.view().state().key_nodes().is_none() {
            return Ok(said);
        }
        let missing = Missing::find(&self.core, options.interval).await?;
        let mut wants: BTreeSet<Want> = missing.wants.into_keys().collect();
        let asking = self.core.asking();
        let mut events = asking.events();
        asking.unlock(wants.iter().copied());
        let mut until = deadline();
        while !wants.is_empty() {
            match timeout_at(until, events.recv()).await {
                Ok(Ok(AskingEvent::Left(want))) => {
                    if wants.remove(&want) {
                        until = deadline();
                    }
                }
                Ok(Ok(AskingEvent::Nodes(event))) => {
                    until = deadline();
                    said.note(event);
                }
                Ok(Ok(AskingEvent::Asker(_)) | Err(RecvError::Lagged(_))) => (),
                Ok(Err(RecvError::Closed)) => return Err(ENDED),
                Err(_) => break,
            }
        }
        Ok(said)
    }
}

/// Waits until all is settled that is missing.
async fn wait_for(
    core: Arc<Core>,
    mut missing: Missing,
    deadline: Option<Instant>,
) -> Result<Requested, Error> {
    let asking = core.asking();
    let (mut answers, mut events) = (asking.answers(), asking.events());
    let mut control = core.bus.tail(core.control_places().await?);
    let _wanting = asking.want(missing.wants.keys().copied());
    let over = async {
        match deadline {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    };
    let mut over = std::pin::pin!(over);
    while !missing.is_settled() {
        tokio::select! {
            () = &mut over => break,
            changed = answers.changed() => {
                changed.map_err(|_| ENDED)?;
                missing.try_again(&core, &asking).await?;
            }
            news = control.next() => {
                drop(news?);
                core.sync().await?;
                control = core.bus.tail(core.control_places().await?);
                missing.try_again(&core, &asking).await?;
            }
            event = events.recv() => match event {
                Ok(AskingEvent::Asker(event)) => missing.note(&core, &event),
                Ok(AskingEvent::Nodes(event)) => missing.nodes.note(event),
                Ok(AskingEvent::Left(_)) => (),
                // What was missed is found out when the time is up.
                Err(RecvError::Lagged(_)) => (),
                Err(RecvError::Closed) => return Err(ENDED),
            }
        }
    }
    if missing.wants.values().any(|of| of.state == Standing::Left) {
        // What key nodes gave may have been told behind it.
        missing.try_again(&core, &asking).await?;
    }
    let ended = missing.ended();
    if ended.opened > 0 {
        // It costs the others an answer where the receipt is lost, and this one nothing.
        let told = timeout(RECEIPTS_WITHIN, async {
            while !missing.requests.is_empty()
                && let Ok(event) = events.recv().await
            {
                if let AskingEvent::Asker(event) = event {
                    missing.note(&core, &event);
                }
            }
        });
        let _is_told = told.await;
    }
    put_off(core.trim_inbox().await)?;
    Ok(ended)
}

const ENDED: Error = Error::Internal("asking ended early");

/// What an interval lacks keys of, each with one message that would open.
struct Missing {
    topic: Topic,
    wants: BTreeMap<Want, Lacking>,
    /// Those on their way.
    requests: BTreeSet<RequestId>,
    nodes: NodesSaid,
}

struct Lacking {
    /// Where a message lies.
    at: Offset,
    state: Standing,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Open(Option<RefusalReason>),
    Opened,
    Refused(RefusalReason),
    /// Key nodes did not give it, and nobody else answers this device.
    Left,
}

/// What a message says of itself that did not open.
type Sealed = (UserId, Header, Offset);

impl Missing {
    async fn find(core: &Arc<Core>, interval: Interval) -> Result<Self, Error> {
        let topic = core.data_topic()?;
        let mut machine = Machine::new(Mode::History(interval));
        machine.allow(allowed_now(core).await?);
        let (mut wants, mut at) = (BTreeMap::new(), Offset(0));
        let mut of_lane = BTreeMap::<UserId, usize>::new();
        let end = core.bus.end(&topic).await?;
        loop {
            let items = read_past(&*core.bus, &topic, at, end).await?;
            let Some(last) = items.last() else {
                break;
            };
            at = Offset(last.offset.0.saturating_add(1));
            let of = core.clone();
            let opened = off_thread(move || {
                let sealed = open(&of, &mut machine, &items);
                (machine, sealed.1)
            });
            let (back, sealed) = opened.await?;
            machine = back;
            for (lane, header, at) in sealed {
                let around = asked_around(core, &lane, interval, header.position);
                let want = Want {
                    lane,
                    session: header.session,
                    interval: around,
                };
                let of_lane = of_lane.entry(lane).or_default();
                if wants.len() < WANTS_MAX && *of_lane < OF_LANE_MAX && !wants.contains_key(&want) {
                    let state = Standing::Open(None);
                    wants.insert(want, Lacking { at, state });
                    *of_lane += 1;
                }
            }
        }
        Ok(Self {
            topic,
            wants,
            requests: BTreeSet::new(),
            nodes: NodesSaid::default(),
        })
    }

    fn is_settled(&self) -> bool {
        let mut lacking = self.wants.values();
        lacking.all(|of| !matches!(of.state, Standing::Open(_)))
    }

    /// Tries the message of everything that is missing still.
    async fn try_again(&mut self, core: &Arc<Core>, asking: &Asking) -> Result<(), Error> {
        let mut machine = Machine::new(Mode::History(Interval::ALL));
        machine.allow(allowed_now(core).await?);
        for lacking in self.wants.values_mut() {
            if lacking.state == Standing::Opened {
                continue;
            }
            let items = core.bus.read(&self.topic, lacking.at, 1).await?;
            let of = core.clone();
            let done = off_thread(move || {
                let (opened, _) = open(&of, &mut machine, &items);
                (machine, opened)
            });
            let (back, opened) = done.await?;
            machine = back;
            for header in opened {
                asking.opened(header.session, header.position);
                lacking.state = Standing::Opened;
            }
        }
        Ok(())
    }

    /// Notes what became of a want. Where the log entitles this device, or somebody was asked to
    /// decide, a refusal is not the last word.
    fn note(&mut self, core: &Core, event: &AskerEvent) {
        let (want, outcome) = match event {
            AskerEvent::Settled { want, outcome } => (want, outcome),
            AskerEvent::Asked { request, .. } => {
                self.requests.insert(*request);
                return;
            }
            AskerEvent::Ended { request, .. } => {
                self.requests.remove(request);
                return;
            }
            AskerEvent::BadAnswer { .. } | _ => return,
        };
        let Some(lacking) = self.wants.get_mut(want) else {
            return;
        };
        match (outcome, lacking.state) {
            (Outcome::Refused(reason), Standing::Open(_)) => {
                let is_asked = *reason == RefusalReason::PendingApproval;
                lacking.state = match is_asked || is_entitled(core, want) {
                    true => Standing::Open(Some(*reason)),
                    false => Standing::Refused(*reason),
                };
            }
            (Outcome::Opened, _) => lacking.state = Standing::Opened,
            (Outcome::TimedOut, Standing::Open(_))
                if self.nodes.released_from.is_none() && !lane_is_asked_for(core, &want.lane) =>
            {
                lacking.state = Standing::Left;
            }
            (Outcome::TimedOut | Outcome::Refused(_), _) => (),
        }
    }

    fn ended(&self) -> Requested {
        let opened = |of: &&Lacking| of.state == Standing::Opened;
        let opened = self.wants.values().filter(opened).count();
        let refusal = self.wants.values().find_map(|of| match of.state {
            Standing::Refused(reason) => Some(reason),
            Standing::Open(said) => said,
            Standing::Opened | Standing::Left => None,
        });
        let end = match (opened, refusal) {
            (opened, _) if opened == self.wants.len() => End::Opened,
            (0, Some(reason)) => End::Refused(reason),
            (0, None) => End::TimedOut,
            (_, _) => End::Partly,
        };
        Requested {
            end,
            missing: self.wants.len(),
            opened,
            nodes: self.nodes.clone(),
        }
    }
}

/// What opened of some items, and what lacks a key.
fn open(core: &Core, machine: &mut Machine, items: &[Item]) -> (Vec<Header>, Vec<Sealed>) {
    let (mut opened, mut sealed) = (Vec::new(), Vec::new());
    for item in items {
        machine.handle(&core.view(), &item.payload);
        while let Some(event) = machine.poll_event() {
            match event {
                Event::Opened { header, .. } => opened.push(header),
                Event::Sealed { header, user, .. } => {
                    sealed.push((user, header, item.offset));
                }
                Event::Rejected {
                    header: Some(header),
                    user: Some(user),
                    givers,
                    ..
                } if !givers.is_empty() => {
                    sealed.push((user, header, item.offset));
                }
                Event::BadCover { giver, session } => core.view().doubt(&session, &giver),
                Event::Rejected { .. } | Event::Noticed { .. } => (),
            }
        }
    }
    (opened, sealed)
}

/// What to ask for around a position: what the log gives there, or what of an interval it does not.
fn asked_around(core: &Core, lane: &UserId, asked: Interval, position: Position) -> Interval {
    let view = core.view();
    let (me, device) = view.me();
    let entitled = view.state().readable(&me, &device, lane);
    if let Some(interval) = interval_around(&entitled, position) {
        return interval;
    }
    let before = entitled.iter().map(|of| of.until);
    let after = entitled.iter().map(|of| of.from);
    Interval {
        from: before
            .filter(|at| *at <= position)
            .fold(asked.from, Position::max),
        until: after
            .filter(|at| *at > position)
            .fold(asked.until, Position::min),
    }
}

fn is_entitled(core: &Core, want: &Want) -> bool {
    let view = core.view();
    let (me, device) = view.me();
    let entitled = view.state().readable(&me, &device, &want.lane);
    entitled.iter().any(|of| of.covers(&want.interval))
}

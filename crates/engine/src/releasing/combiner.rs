//! A reader asks key nodes for segments, `spec/key-nodes.md`, section "How an asker goes on".
//!
//! ```text
//!   Missing ──► planned ── Drawn, Signed ──► asked: k nodes ──► Take, once k answers open the records
//!      │                                       │   ▲
//!      │ no record, no deal, not ended,        ▼   │ silence, refusal, lie
//!      │ or it failed lately                 others, until there are none
//!      ▼                                       │
//!    Leave: to be asked of other devices ◄─────┘
//!      └─ once the segment has ended: Missing
//! ```

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use sealcast_crypto::NodeIndex;
use sealcast_protocol::{
    DeviceId, Interval, KeyNode, LogHash, NodeRefusalReason, NodeRequest, Position,
    REQUEST_LIFETIME_MS_MAX, RequestId, Segment, SessionId, UserId, Verified, Want,
};

use super::flight::{Flight, Round, Said};
use super::plan::plan;
use crate::asking::OneUse;
use crate::asking::pace::Pace;
use crate::asking::steady::Steady;
use crate::view::{FalseRecords, Released, StreamView};

mod awaiting;
mod replies;

/// Sessions whose failure is remembered, and nodes and records whose failures are, at most.
const FAILED_MAX: usize = 4_096;
/// What waits until fewer segments are asked for, at most.
const QUEUE_MAX: usize = 16_384;
/// Requests a second, and at once, that no key node passes over.
const NODE_PER_SECOND: u32 = 4;
const NODE_AT_ONCE: u32 = 64;
/// How often all records are read again for such that were false, at once, and one time more a minute.
const REREADS_AT_ONCE: u32 = 64;
const REREAD_EVERY_MS: u64 = 60_000;
/// How much a lie weighs among a node's failures.
const LIE: u32 = 1 << 16;

/// Asks the key nodes of one stream for what this device lacks.
///
/// Feed what a reader missed, and the items of this device's inbox. What key nodes do not give comes out
/// as [`CombinerOutput::Leave`], for an [`Asker`](crate::Asker).
#[derive(Debug)]
pub struct Combiner {
    limits: CombinerLimits,
    steady: Steady,
    flights: BTreeMap<u64, Flight>,
    next: u64,
    /// What is missing and not asked for yet, in order.
    queue: VecDeque<Want>,
    queued: BTreeSet<Want>,
    /// What is missing until records are read again.
    rereading: BTreeSet<Want>,
    rereads: Pace,
    /// What key nodes do not give (now).
    left: Vec<Want>,
    /// Segments that are released once they have ended, and when that is.
    awaited: BTreeSet<(Position, Want)>,
    /// How far the clocks of key nodes are behind, by what they say of segments that have ended by this one.
    lag_ms: u64,
    /// Flights that need another request, in order.
    due: VecDeque<u64>,
    is_drawing: bool,
    /// A request that is being signed.
    signing: Option<(u64, RequestId)>,
    pace: Pace,
    /// Sessions of which nothing came lately, how often, and until when they are left.
    failed: BTreeMap<SessionId, (u32, Position)>,
    /// Records that did not open with enough answers, by the secret that they are said to be made with, and
    /// until when they are left.
    spoiled: BTreeMap<(SessionId, [u8; 32], Segment), Position>,
    /// How often a node failed.
    failures: BTreeMap<KeyNode, u32>,
    outputs: VecDeque<CombinerOutput>,
}

/// How long and how often to ask key nodes.
#[derive(Clone, Copy, Debug)]
pub struct CombinerLimits {
    /// How long to wait until other nodes are asked, in milliseconds.
    pub node_timeout_ms: u64,
    /// How long to wait for enough of them behind each request, in milliseconds; five minutes at most.
    pub key_request_timeout_ms: u64,
    /// Requests a second, as far as nodes take as many.
    pub max_key_requests_per_second: u32,
    /// The longest time for which a session is left of which nothing came; the first is as long as the
    /// time-out, and each is twice the one before.
    pub backoff_ms_max: u64,
    /// Sessions that are asked for at a time, those with many segments more than once. The others wait.
    pub flights_max: usize,
}

impl Default for CombinerLimits {
    fn default() -> Self {
        Self {
            node_timeout_ms: 5_000,
            key_request_timeout_ms: 30_000,
            max_key_requests_per_second: 20,
            backoff_ms_max: 3_600_000,
            flights_max: 64,
        }
    }
}

/// What can happen to a [`Combiner`].
#[derive(Debug)]
pub enum CombinerInput<'a> {
    /// Envelopes whose signatures hold did not open.
    Missing {
        /// Whose lane they lie in.
        lane: UserId,
        /// Their session.
        session: SessionId,
        /// Where they were sealed.
        interval: Interval,
    },
    /// What [`CombinerOutput::Draw`] asked for.
    Drawn(OneUse),
    /// What [`CombinerOutput::Sign`] asked for.
    Signed(Box<Verified<NodeRequest>>),
    /// An item of this device's inbox.
    InboxItem(&'a [u8]),
    /// What [`CombinerOutput::Reread`] asked for is done.
    Reread,
    /// Time has passed.
    Tick,
}

/// What a [`Combiner`] wants done. Exhaustive: a driver that skips one is wrong.
#[derive(Debug)]
#[must_use]
pub enum CombinerOutput {
    /// Draw a request id and a key at random, and hand them in.
    Draw,
    /// Sign it and hand it in; at once.
    Sign(Box<NodeRequest>),
    /// Append a request to the inboxes of these devices.
    Send(Box<Verified<NodeRequest>>, Vec<DeviceId>),
    /// Hand it to [`StreamView::take_released`], make durable what that puts out, and try again what
    /// was missing.
    Take(Released),
    /// Hand it to [`StreamView::forget_false`], read the keys again, which the view asks for then, and say
    /// [`Reread`](CombinerInput::Reread); if it cannot be done, try again, and say nothing.
    Reread(FalseRecords),
    /// Key nodes do not give it (now): ask other devices.
    Leave {
        /// Whose lane.
        lane: UserId,
        /// The session.
        session: SessionId,
        /// What is missing.
        interval: Interval,
    },
    /// What was missing so lies in what key nodes released: it is asked for no more.
    Done(Want),
    /// Tell the application.
    Tell(CombinerEvent),
}

/// What the application learns. More kinds may come; skipping an unknown one is safe.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CombinerEvent {
    /// A request is on its way.
    Asked {
        /// The nodes that are asked.
        nodes: usize,
        /// How many segments they are asked for.
        segments: usize,
    },
    /// A node signed something false.
    Liar(KeyNode),
    /// A node refused.
    Refused(KeyNode, NodeRefusalReason),
    /// A node that was asked said nothing in time.
    Silent(KeyNode),
    /// Key nodes release what was published last from this time on, by this device's clock.
    Awaited(Position),
    /// Enough nodes released.
    Released {
        /// The session.
        session: SessionId,
        /// How many segments.
        segments: usize,
    },
    /// Nothing, or not all, came of asking.
    Failed {
        /// The session.
        session: SessionId,
        /// Why.
        why: Unreleased,
    },
}

/// Why key nodes released less than was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreleased {
    /// Too few of them answered.
    TooFew {
        /// How many did.
        answered: usize,
        /// How many are needed.
        needed: usize,
        /// What others said.
        refused: Vec<NodeRefusalReason>,
    },
    /// Enough answered, and the record did not open: it is false, or all who answered lie.
    FalseRecord,
}

impl Combiner {
    /// Starts with nothing to ask for.
    pub fn new(limits: CombinerLimits) -> Self {
        let per_second = limits.max_key_requests_per_second.min(NODE_PER_SECOND);
        Self {
            limits,
            steady: Steady::new(),
            flights: BTreeMap::new(),
            next: 0,
            queue: VecDeque::new(),
            queued: BTreeSet::new(),
            rereading: BTreeSet::new(),
            rereads: Pace::new(1, REREADS_AT_ONCE),
            left: Vec::new(),
            awaited: BTreeSet::new(),
            lag_ms: 0,
            due: VecDeque::new(),
            is_drawing: false,
            signing: None,
            pace: Pace::new(per_second, NODE_AT_ONCE),
            failed: BTreeMap::new(),
            spoiled: BTreeMap::new(),
            failures: BTreeMap::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Moves the state on by one input. `now` is what the clock says; it may have been set back.
    pub fn handle(&mut self, now: Position, view: &StreamView, input: CombinerInput<'_>) {
        let now = self.steady.read(now);
        match input {
            CombinerInput::Missing {
                lane,
                session,
                interval,
            } => self.miss(
                now,
                view,
                Want {
                    lane,
                    session,
                    interval,
                },
            ),
            CombinerInput::Drawn(drawn) => self.draw_up(now, view, drawn),
            CombinerInput::Signed(asked) => self.send(now, *asked),
            CombinerInput::InboxItem(bytes) => self.take_inbox_item(now, view, bytes),
            CombinerInput::Reread => {
                for missing in core::mem::take(&mut self.rereading) {
                    self.wait(missing);
                }
            }
            CombinerInput::Tick => (),
        }
        self.go_on(now);
        self.take_awaited(now, view);
        self.take_up(now, view);
        self.leave_all(view);
        if !self.is_drawing && !self.due.is_empty() && self.pace.take(now) {
            self.is_drawing = true;
            self.outputs.push_back(CombinerOutput::Draw);
        }
    }

    /// Hands out the next thing the driver must do.
    pub fn poll_output(&mut self) -> Option<CombinerOutput> {
        self.outputs.pop_front()
    }

    /// Says when the driver must come back with [`CombinerInput::Tick`], at the latest.
    pub fn next_timeout(&self) -> Option<Position> {
        let flights = self.flights.values();
        let ends = flights.map(
            |of| match of.rounds.is_empty() || of.next_nodes().is_empty() {
                true => of.until,
                false => of.until.min(of.more_at),
            },
        );
        let draw = (!self.is_drawing && !self.due.is_empty()).then(|| self.pace.ready_at());
        let awaited = self.awaited.first().map(|(at, _)| *at);
        let next = ends.chain(draw).chain(awaited).min();
        next.map(|at| self.steady.clock_at(at))
    }

    /// How many requests wait for answers or are about to be made.
    pub fn open_requests(&self) -> usize {
        self.flights.len()
    }

    fn tell(&mut self, event: CombinerEvent) {
        self.outputs.push_back(CombinerOutput::Tell(event));
    }

    fn leave(&mut self, missing: Want) {
        self.left.push(missing);
    }
}

/// What to ask for.
impl Combiner {
    fn miss(&mut self, now: Position, view: &StreamView, missing: Want) {
        let Want {
            lane,
            session,
            interval,
        } = missing;
        let mut open = self.flights.values_mut();
        let same = open.find(|of| of.session == session && of.reaches(&interval));
        if let Some(flight) = same {
            flight.missing.insert(missing);
            return;
        }
        if self.flights.len() >= self.limits.flights_max {
            return self.wait(missing);
        }
        let is_left = self.failed.get(&session).is_some_and(|(_, at)| now < *at);
        let spoiled = &self.spoiled;
        let is_spoiled = |secret: &[u8; 32], of: &Segment| {
            let until = spoiled.get(&(session, *secret, *of));
            until.is_some_and(|until| now < *until)
        };
        let asked_for = self.flights.values().filter(|of| of.session == session);
        let asked_for: BTreeSet<_> = asked_for.flat_map(|of| &of.segments).copied().collect();
        let is_passed_over =
            |secret: &[u8; 32], of: &Segment| asked_for.contains(of) || is_spoiled(secret, of);
        let plan = match is_left || view.lane_of(&session) != Some(lane) {
            true => None,
            false => plan(view, self.clock_of_nodes(), &missing, is_passed_over),
        };
        let Some((deal, set, records)) = plan else {
            return self.leave(missing);
        };
        let of = (view.stream(), session);
        let until = now.after(REQUEST_LIFETIME_MS_MAX);
        let mut flight = Flight::new(of, deal, &set, records, until);
        flight.missing.insert(missing);
        self.due.push_back(self.next);
        self.flights.insert(self.next, flight);
        self.next += 1;
    }

    /// Has something wait until fewer are asked for.
    fn wait(&mut self, missing: Want) {
        if self.queue.len() >= QUEUE_MAX {
            return self.leave(missing);
        }
        if self.queued.insert(missing) {
            self.queue.push_back(missing);
        }
    }

    /// Asks for what waited, as far as there is room.
    fn take_up(&mut self, now: Position, view: &StreamView) {
        for _ in 0..self.queue.len() {
            if self.flights.len() >= self.limits.flights_max {
                break;
            }
            if let Some(missing) = self.queue.pop_front() {
                self.queued.remove(&missing);
                self.miss(now, view, missing);
            }
        }
    }
}

/// Requests.
impl Combiner {
    /// Draws up the request of the flight that has waited longest.
    fn draw_up(&mut self, now: Position, view: &StreamView, drawn: OneUse) {
        self.is_drawing = false;
        let clock = self.steady.clock();
        let list = view.list(&view.me().0).and_then(|list| list.pin());
        let next =
            core::iter::from_fn(|| self.due.pop_front()).find(|id| self.flights.contains_key(id));
        let Some((id, list)) = next.zip(list) else {
            return;
        };
        let failures = &self.failures;
        let Some(flight) = self.flights.get_mut(&id) else {
            return;
        };
        let rank = |node: &KeyNode| failures.get(node).copied().unwrap_or_default();
        flight.order_by(drawn.request.0[0], rank);
        let mut nodes = flight.next_nodes();
        nodes.sort_unstable();
        if nodes.is_empty() {
            return;
        }
        let (user, device) = view.me();
        // Those who are asked late have as long as the others.
        let lives = self.limits.key_request_timeout_ms;
        let lives = lives.clamp(1, REQUEST_LIFETIME_MS_MAX);
        flight.until = now.after(lives);
        let body = NodeRequest {
            version: 1,
            stream: view.stream(),
            user,
            device,
            list,
            request: drawn.request,
            key: drawn.key.wrap_key().as_bytes().to_vec(),
            deal: flight.deal.0,
            nodes: nodes.iter().map(|(index, _)| index.get()).collect(),
            lane: flight.deal.1.dealer.lane,
            session: flight.session,
            segments: flight.segments.clone(),
            heads: view.log().heads(&LogHash([0; 32])),
            time: clock,
            expires: clock.after(lives),
        };
        flight
            .said
            .extend(nodes.iter().map(|(index, _)| (*index, Said::Nothing)));
        let (key, asked) = (drawn.key, None);
        flight.rounds.insert(drawn.request, Round { key, asked });
        flight.more_at = now.after(self.limits.node_timeout_ms);
        self.signing = Some((id, drawn.request));
        self.outputs.push_back(CombinerOutput::Sign(Box::new(body)));
    }

    fn send(&mut self, now: Position, asked: Verified<NodeRequest>) {
        let Some((id, request)) = self.signing.take() else {
            return;
        };
        let Some(flight) = self.flights.get_mut(&id) else {
            return;
        };
        let body = asked.body();
        let Some(round) = flight.rounds.get_mut(&request) else {
            return;
        };
        if body.request != request {
            return;
        }
        let nodes = flight.deal.1.nodes.iter();
        let indexed = (1..=u8::MAX).zip(nodes);
        let to = indexed.filter(|(index, _)| body.nodes.contains(index));
        let to: Vec<_> = to.map(|(_, node)| node.device).collect();
        let event = CombinerEvent::Asked {
            nodes: to.len(),
            segments: body.segments.len(),
        };
        flight.more_at = now.after(self.limits.node_timeout_ms);
        round.asked = Some(asked.clone());
        self.outputs
            .push_back(CombinerOutput::Send(Box::new(asked), to));
        self.tell(event);
    }
}

/// Going on, and the end.
impl Combiner {
    fn go_on(&mut self, now: Position) {
        let ids: Vec<u64> = self.flights.keys().copied().collect();
        for id in ids {
            let Some(flight) = self.flights.get_mut(&id) else {
                continue;
            };
            let is_begun = !flight.rounds.is_empty();
            if now >= flight.until || (is_begun && flight.is_exhausted()) {
                self.end(now, id);
                continue;
            }
            let is_late = is_begun && now >= flight.more_at && !flight.next_nodes().is_empty();
            let is_signing = self.signing.is_some_and(|(of, _)| of == id);
            let is_due = self.due.contains(&id) || is_signing;
            if is_begun && !is_due && (is_late || flight.needs_more()) {
                flight.more_at = now.after(self.limits.node_timeout_ms);
                self.due.push_back(id);
            }
        }
    }

    /// Is done with what was asked for. Its keys are wiped.
    fn end(&mut self, now: Position, id: u64) {
        let Some(flight) = self.flights.remove(&id) else {
            return;
        };
        self.due.retain(|of| *of != id);
        for (index, node) in (1..=u8::MAX).zip(&flight.deal.1.nodes) {
            let said = NodeIndex::new(index).and_then(|of| flight.said.get(&of));
            if said == Some(&Said::Nothing) {
                self.note_failure(*node, 1);
                self.tell(CombinerEvent::Silent(*node));
            }
        }
        let session = flight.session;
        let why = flight.reason();
        let is_false = why == Unreleased::FalseRecord;
        let mut rereads = false;
        match (flight.is_whole(), is_false) {
            (true, _) => {
                self.failed.remove(&session);
            }
            (false, true) => rereads = self.note_spoiled(now, &flight),
            (false, false) => self.note_too_few(now, &flight),
        }
        if !flight.is_whole() {
            self.tell(CombinerEvent::Failed { session, why });
        }
        let (left, done) = flight.split_missing();
        for missing in done.into_iter().filter(|of| !self.queued.contains(of)) {
            self.outputs.push_back(CombinerOutput::Done(missing));
        }
        for missing in left {
            // In place of a record that is false, those of the smaller segments in it may do.
            match rereads && self.rereading.len() < QUEUE_MAX {
                true => drop(self.rereading.insert(missing)),
                false => self.leave(missing),
            }
        }
    }

    fn note_failure(&mut self, node: KeyNode, weight: u32) {
        if self.failures.len() < FAILED_MAX || self.failures.contains_key(&node) {
            let count = self.failures.entry(node).or_default();
            *count = count.saturating_add(weight);
        }
    }

    /// Notes which records are false, and says whether what lies in them is read again.
    fn note_spoiled(&mut self, now: Position, flight: &Flight) -> bool {
        if self.spoiled.len() >= FAILED_MAX {
            self.spoiled.retain(|_, until| now < *until);
        }
        let (session, secret) = (flight.session, flight.deal.1.secret());
        let until = now.after(REQUEST_LIFETIME_MS_MAX);
        let closed = flight.segments.iter();
        let closed = closed.filter(|of| !flight.opened.contains(*of)).copied();
        let segments: Vec<_> = closed.collect();
        for of in &segments {
            if self.spoiled.len() < FAILED_MAX {
                self.spoiled.insert((session, secret, *of), until);
            } else {
                // Others are asked for all of it rather than nodes for the same again.
                self.note_failed(now, session, self.limits.key_request_timeout_ms, 0);
            }
        }
        let minutes = Position(now.0 / (REREAD_EVERY_MS / 1_000));
        let rereads = self.rereads.take(minutes);
        if rereads {
            let records = FalseRecords {
                session,
                secret,
                segments,
            };
            self.outputs.push_back(CombinerOutput::Reread(records));
        }
        rereads
    }

    fn note_failed(
        &mut self,
        now: Position,
        session: SessionId,
        first_ms: u64,
        wait_ms: u64,
    ) -> Position {
        if self.failed.len() >= FAILED_MAX {
            self.failed.retain(|_, (_, until)| now < *until);
        }
        let times = self.failed.get(&session).map_or(0, |(times, _)| *times);
        let pause = first_ms.saturating_mul(1 << times.min(16)).max(wait_ms);
        let until = now.after(pause.min(self.limits.backoff_ms_max));
        if self.failed.len() < FAILED_MAX {
            self.failed
                .insert(session, (times.saturating_add(1), until));
        }
        until
    }
}

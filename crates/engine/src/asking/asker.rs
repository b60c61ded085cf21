//! A reader asks for what it cannot open, `spec/asking.md`, section "Asking".
//!
//! What is missing is a *want*. Each is asked for by one request at a time:
//!
//! ```text
//!            Missing, Want          Drawn, with up to 127 others
//!   (unknown) ─────────► due ──────────────────────────► asked
//!                         ▲                              │  │ Opened, or a root fits
//!                         │  refused, or timed out:      │  └──────► (unknown), with a receipt
//!                         └──────────────────────────────┘
//!                           due later each time
//! ```

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use sealcast_crypto::UnwrapKey;
use sealcast_protocol::{
    DeviceId, Interval, LogHash, Position, REQUEST_LIFETIME_MS_MAX, RefusalReason, RequestId,
    SessionId, Sharing, Solicitation, UserId, WANTS_MAX, Want,
};

use super::pace::Pace;
use super::steady::Steady;
use super::{AskBody, LEASE_MS, earlier};
use crate::view::{Answer, StreamView};

mod replies;
mod request;

use request::{Place, Request};

/// Wants that were met and are remembered, at most.
const MET_MAX: usize = 4_096;
/// Lanes that find room for what is missing, at least, whatever is missing of others.
const LANES_MIN: usize = 4;
/// How long things that are met are gathered before a receipt says so.
const RECEIPT_DELAY_MS: u64 = 500;

/// Asks for the keys of one stream that this device lacks, until they work or a reason is known.
///
/// Feed [`AskerInput::Missing`] for envelopes that a [`Reader`](crate::Reader) told as sealed, or as
/// not authentic with givers: their signatures hold. Feed the items of this device's inbox. Do what comes out, in its order: what [`AskerOutput::Take`] brings is
/// durable before the receipt that follows it leaves.
#[derive(Debug)]
pub struct Asker {
    limits: AskerLimits,
    steady: Steady,
    wants: BTreeMap<Want, Wanted>,
    /// How many wants there are of each lane.
    of_lane: BTreeMap<UserId, usize>,
    due: BTreeSet<(Position, Want)>,
    /// Requests for what was met lately, and when it was.
    met: BTreeMap<Want, (u32, Position)>,
    open: BTreeMap<RequestId, Request>,
    pace: Pace,
    is_drawing: bool,
    outputs: VecDeque<AskerOutput>,
}

/// How long and how often to ask.
#[derive(Clone, Copy, Debug)]
pub struct AskerLimits {
    /// How long a request waits for keys that work, in milliseconds; five minutes at most.
    pub key_request_timeout_ms: u64,
    /// Requests a second.
    pub max_key_requests_per_second: u32,
    /// When a request is sent once more that nobody has answered: it may have been lost. In
    /// milliseconds.
    pub repeat_after_ms: u64,
    /// How long what is missing is gathered, and may come by itself, before it is asked for.
    pub gather_ms: u64,
    /// The longest wait between two requests for one thing; the first is as long as the time-out,
    /// and each is twice the one before.
    pub backoff_ms_max: u64,
    /// Wants that are remembered, and of one lane a quarter of that; what comes on top is not asked
    /// for until others are met.
    pub wants_max: usize,
    /// Requests that are open at a time.
    pub requests_max: usize,
}

impl Default for AskerLimits {
    fn default() -> Self {
        Self {
            key_request_timeout_ms: 30_000,
            max_key_requests_per_second: 20,
            repeat_after_ms: LEASE_MS,
            gather_ms: 250,
            backoff_ms_max: 3_600_000,
            wants_max: 65_536,
            requests_max: 16,
        }
    }
}

/// What can happen to an [`Asker`].
#[derive(Debug)]
pub enum AskerInput<'a> {
    /// Envelopes whose signatures hold did not open, as [`Parking::missing`](crate::Parking::missing)
    /// says. They are asked for if the access log entitles this device to them.
    Missing {
        /// Whose lane they lie in.
        lane: UserId,
        /// Their session.
        session: SessionId,
        /// Where they were sealed.
        interval: Interval,
    },
    /// The user asks, whether the access log entitles this device or not. It is asked for at once,
    /// however often it was refused; but not in a stream in which nobody answers.
    Want(Want),
    /// The user waits for it no more. It is not asked for again, unless it was told as missing, too.
    Unwant(Want),
    /// What [`AskerOutput::Draw`] asked for.
    Drawn(OneUse),
    /// An item of this device's inbox.
    InboxItem(&'a [u8]),
    /// A message of a session opened, at a position.
    Opened {
        /// The session.
        session: SessionId,
        /// The position.
        position: Position,
    },
    /// Time has passed.
    Tick,
}

/// What an [`Asker`] wants done. Exhaustive: a driver that skips one is wrong.
#[derive(Debug)]
#[must_use]
pub enum AskerOutput {
    /// Draw a request id and a key at random, and hand them in.
    Draw,
    /// Sign it and append it to the stream's `ask` topic, and to the inbox that
    /// [`AskBody::inbox`] names.
    Send(AskBody),
    /// Hand it to [`StreamView::take_answer`], make durable what that puts out, and try again what
    /// was missing. [`AskerInput::Opened`] says when it worked.
    Take(Answer),
    /// Tell the application.
    Tell(AskerEvent),
}

/// What the application learns. More kinds may come; skipping an unknown one is safe.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AskerEvent {
    /// A request is on its way.
    Asked {
        /// The request.
        request: RequestId,
        /// How many wants it has.
        wants: usize,
    },
    /// Somebody who may give signed an answer that does not open, or that is false.
    BadAnswer {
        /// The request.
        request: RequestId,
        /// Who.
        giver: (UserId, DeviceId),
    },
    /// What became of a want.
    Settled {
        /// The want.
        want: Want,
        /// What became of it.
        outcome: Outcome,
    },
    /// A request is over.
    Ended {
        /// The request.
        request: RequestId,
        /// How.
        end: End,
    },
}

/// What became of one want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its keys work.
    Opened,
    /// Nobody gave keys that work. It is asked for again later, if anybody would answer.
    TimedOut,
    /// A keyholder refused; it is asked for again later. Or the log entitles this device to it no
    /// more.
    Refused(RefusalReason),
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All that it asked for works.
    Opened,
    /// Some of it works.
    Partly,
    /// Nobody gave keys that work.
    TimedOut,
    /// A keyholder refused.
    Refused(RefusalReason),
}

/// A request's id and its key, drawn by the driver. The private half is wiped when the request ends.
#[derive(Debug)]
pub struct OneUse {
    /// The id; not zero.
    pub request: RequestId,
    /// Unwraps the answers to this request, and nothing else.
    pub key: UnwrapKey,
}

/// A want that is not met.
#[derive(Debug)]
struct Wanted {
    state: State,
    why: Why,
    /// Requests for it that came to nothing.
    failures: u32,
}

#[derive(Clone, Copy, Debug)]
struct Why {
    /// The user asks, whatever the log says.
    is_explicit: bool,
    /// It was told as missing.
    is_missed: bool,
}

impl Why {
    const MISSED: Self = Self {
        is_explicit: false,
        is_missed: true,
    };
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// To be asked for then.
    Due(Position),
    /// A request for it is open.
    Asked,
}

impl Asker {
    /// Starts with nothing to ask for.
    pub fn new(limits: AskerLimits) -> Self {
        let per_second = limits.max_key_requests_per_second;
        Self {
            limits,
            steady: Steady::new(),
            wants: BTreeMap::new(),
            of_lane: BTreeMap::new(),
            due: BTreeSet::new(),
            met: BTreeMap::new(),
            open: BTreeMap::new(),
            pace: Pace::new(per_second, per_second),
            is_drawing: false,
            outputs: VecDeque::new(),
        }
    }

    /// Moves the state on by one input. `now` is what the clock says; it may have been set back.
    pub fn handle(&mut self, now: Position, view: &StreamView, input: AskerInput<'_>) {
        let now = self.steady.read(now);
        self.acknowledge(now, view);
        match input {
            AskerInput::Missing {
                lane,
                session,
                interval,
            } => self.miss(now, view, lane, session, interval),
            AskerInput::Want(want) => self.want(now, view, want),
            AskerInput::Unwant(want) => self.unwant(&want),
            AskerInput::Drawn(drawn) => self.ask(now, view, drawn),
            AskerInput::InboxItem(bytes) => self.take_inbox_item(now, view, bytes),
            AskerInput::Opened { session, position } => self.opened(now, view, session, position),
            AskerInput::Tick => (),
        }
        self.acknowledge(now, view);
        self.repeat(now);
        self.draw(now);
    }

    /// Hands out the next thing the driver must do.
    pub fn poll_output(&mut self) -> Option<AskerOutput> {
        self.outputs.pop_front()
    }

    /// Says when the driver must come back with [`AskerInput::Tick`], at the latest.
    pub fn next_timeout(&self) -> Option<Position> {
        let open = self.open.values();
        let expiry = open.clone().map(|of| of.expires).min();
        let receipt = open.clone().filter_map(|of| of.receipt_at).min();
        let repeat = open.filter_map(Request::repeat_at).min();
        let can_ask = !self.is_drawing && self.open.len() < self.limits.requests_max;
        let due = self.due.first().filter(|_| can_ask).map(|(at, _)| *at);
        let sends = earlier(due, repeat).map(|at| at.max(self.pace.ready_at()));
        let next = earlier(earlier(expiry, receipt), sends);
        next.map(|at| self.steady.clock_at(at))
    }

    /// How many wants are not met.
    pub fn wants(&self) -> usize {
        self.wants.len()
    }

    /// How many requests are open.
    pub fn open_requests(&self) -> usize {
        self.open.len()
    }

    fn tell(&mut self, event: AskerEvent) {
        self.outputs.push_back(AskerOutput::Tell(event));
    }
}

/// What is wanted, and when.
impl Asker {
    /// Wants all that the log entitles this device to around an interval, of one session.
    fn miss(
        &mut self,
        now: Position,
        view: &StreamView,
        lane: UserId,
        session: SessionId,
        missing: Interval,
    ) {
        let entitled = entitled(view, &lane);
        let Some(interval) = entitled.iter().find(|of| of.covers(&missing)) else {
            return;
        };
        let want = Want {
            lane,
            session,
            interval: *interval,
        };
        if view.lane_of(&session) != Some(lane) || view.root(&session).is_some() {
            return;
        }
        if let Some(wanted) = self.wants.get_mut(&want) {
            wanted.why.is_missed = true;
            return;
        }
        let of_lane = self.of_lane.get(&lane).copied().unwrap_or_default();
        let of_lane_max = self.limits.wants_max / LANES_MIN;
        if self.wants.len() >= self.limits.wants_max || of_lane >= of_lane_max {
            return;
        }
        let at = self.wider_flight(&want).unwrap_or(now);
        let soon = at.after(self.limits.gather_ms);
        match self.met.remove(&want) {
            Some((requests, at)) => {
                let late = at.after(self.backoff_ms(requests));
                self.set_due(want, soon.max(late), Why::MISSED, requests);
            }
            None => self.set_due(want, soon, Why::MISSED, 0),
        }
    }

    /// When the open request ends that asks for a want as one of every session of the lane.
    fn wider_flight(&self, want: &Want) -> Option<Position> {
        let is_wider = |place: &Place| {
            let of = &place.want;
            (of.lane, of.session) == (want.lane, Want::EVERY_SESSION)
                && of.interval.covers(&want.interval)
                && place.is_open()
        };
        let mut open = self.open.values();
        open.find(|of| of.places.iter().any(is_wider))
            .map(|of| of.expires)
    }

    fn want(&mut self, now: Position, view: &StreamView, want: Want) {
        let is_full = self.wants.len() >= self.limits.wants_max.saturating_add(WANTS_MAX);
        if !is_asked_for(view, &want.lane) || !want.interval.is_valid() || is_full {
            let outcome = Outcome::TimedOut;
            return self.tell(AskerEvent::Settled { want, outcome });
        }
        if let Some(wanted) = self.wants.get_mut(&want) {
            wanted.why.is_explicit = true;
            if let State::Asked = wanted.state {
                return;
            }
        }
        let why = self.drop_want(&want).map(|of| of.why);
        let why = why.unwrap_or(Why {
            is_explicit: true,
            is_missed: false,
        });
        self.set_due(want, now, why, 0);
    }

    fn set_due(&mut self, want: Want, at: Position, why: Why, failures: u32) {
        self.due.insert((at, want));
        let wanted = Wanted {
            state: State::Due(at),
            why,
            failures,
        };
        if self.wants.insert(want, wanted).is_none() {
            *self.of_lane.entry(want.lane).or_default() += 1;
        }
    }

    fn unwant(&mut self, want: &Want) {
        if let Some(wanted) = self.wants.get_mut(want) {
            wanted.why.is_explicit = false;
            // What is asked for already is dropped when its request ends.
            if !wanted.why.is_missed && !matches!(wanted.state, State::Asked) {
                self.drop_want(want);
            }
        }
    }

    fn drop_want(&mut self, want: &Want) -> Option<Wanted> {
        let wanted = self.wants.remove(want)?;
        if let Some(count) = self.of_lane.get_mut(&want.lane) {
            *count -= 1;
            if *count == 0 {
                self.of_lane.remove(&want.lane);
            }
        }
        if let State::Due(at) = wanted.state {
            self.due.remove(&(at, *want));
        }
        Some(wanted)
    }

    /// Asks the driver for a key once something is due.
    fn draw(&mut self, now: Position) {
        let is_due = self.due.first().is_some_and(|(at, _)| *at <= now);
        let has_room = self.open.len() < self.limits.requests_max;
        if is_due && has_room && !self.is_drawing && self.pace.take(now) {
            self.is_drawing = true;
            self.outputs.push_back(AskerOutput::Draw);
        }
    }

    /// Asks for what is due, in one request.
    fn ask(&mut self, now: Position, view: &StreamView, drawn: OneUse) {
        let (me, device) = view.me();
        let list = view.list(&me).and_then(sealcast_protocol::CardList::pin);
        let is_fresh = drawn.request != RequestId::NONE && !self.open.contains_key(&drawn.request);
        if !core::mem::take(&mut self.is_drawing) || !is_fresh {
            return;
        }
        let wants = self.take_due(now, view);
        let Some(list) = list.filter(|_| !wants.is_empty()) else {
            // Without a list nobody could answer: later.
            wants
                .into_iter()
                .for_each(|want| self.put_off(now, want, false));
            return;
        };
        let timeout = self.limits.key_request_timeout_ms;
        let lives = timeout.clamp(1, REQUEST_LIFETIME_MS_MAX);
        let time = self.steady.clock();
        let body = Solicitation {
            version: 1,
            stream: view.stream(),
            user: me,
            device,
            list,
            request: drawn.request,
            key: drawn.key.wrap_key().as_bytes().to_vec(),
            wants,
            heads: view.log().heads(&LogHash([0; 32])),
            time,
            expires: time.after(lives),
        };
        for want in &body.wants {
            if let Some(of) = self.wants.get_mut(want) {
                of.state = State::Asked;
            }
        }
        let (request, wants) = (body.request, body.wants.len());
        let body = Box::new(body);
        let repeat_at = now.after(self.limits.repeat_after_ms);
        let open = Request::new(drawn.key, body.clone(), repeat_at, now.after(lives));
        self.open.insert(request, open);
        let body = AskBody::Solicitation(body);
        self.outputs.push_back(AskerOutput::Send(body));
        self.tell(AskerEvent::Asked { request, wants });
    }

    /// Sends what nobody has answered once more, as it was: whoever has it already knows its id.
    fn repeat(&mut self, now: Position) {
        for request in self.open.values_mut() {
            if request.repeat_at().is_none_or(|at| at > now) || !self.pace.is_ready(now) {
                continue;
            }
            let is_wanted = |place: &Place| {
                let why = self.wants.get(&place.want).map(|of| of.why);
                why.is_some_and(|why| why.is_explicit || why.is_missed)
            };
            let is_wanted = request.places.iter().any(is_wanted);
            let body = request.unanswered.take().filter(|_| is_wanted);
            if let Some((_, body)) = body
                && self.pace.take(now)
            {
                let body = AskBody::Solicitation(body);
                self.outputs.push_back(AskerOutput::Send(body));
            }
        }
    }

    /// Takes out what is due, ascending, as much as one request may ask for. What the log entitles
    /// this device to no more is dropped.
    fn take_due(&mut self, now: Position, view: &StreamView) -> Vec<Want> {
        let mut wants = Vec::new();
        while let Some((at, want)) = self.due.first().copied()
            && at <= now
            && wants.len() < WANTS_MAX
        {
            self.due.remove(&(at, want));
            let is_explicit = self.wants.get(&want).is_some_and(|of| of.why.is_explicit);
            let is_held = view.root(&want.session).is_some();
            let mut entitled = entitled(view, &want.lane).into_iter();
            let outcome = match is_explicit || entitled.any(|of| of.covers(&want.interval)) {
                _ if is_held => Outcome::Opened,
                true => {
                    wants.push(want);
                    continue;
                }
                false => Outcome::Refused(RefusalReason::NotEntitled),
            };
            self.drop_want(&want);
            self.tell(AskerEvent::Settled { want, outcome });
        }
        wants.sort_unstable();
        wants
    }

    /// Asks again later, each time after twice as long.
    fn put_off(&mut self, now: Position, want: Want, is_failure: bool) {
        let Some(wanted) = self.wants.get(&want) else {
            return;
        };
        if !wanted.why.is_explicit && !wanted.why.is_missed {
            self.drop_want(&want);
            return;
        }
        let failures = wanted.failures.saturating_add(u32::from(is_failure));
        let at = now.after(self.backoff_ms(failures));
        self.set_due(want, at, wanted.why, failures);
    }

    /// How long to wait after so many requests: twice as long after each.
    fn backoff_ms(&self, requests: u32) -> u64 {
        let times = 1_u64.checked_shl(requests.saturating_sub(1).min(32));
        let wait = self.limits.key_request_timeout_ms;
        let wait = wait.saturating_mul(times.unwrap_or(u64::MAX));
        wait.min(self.limits.backoff_ms_max).max(1)
    }

    /// Forgets a want that is met, but not how often it was asked for.
    fn note_met(&mut self, now: Position, want: &Want) {
        let Some(wanted) = self.drop_want(want) else {
            return;
        };
        if self.met.len() >= MET_MAX {
            self.met.pop_first();
        }
        let requests = wanted.failures.saturating_add(1);
        self.met.insert(*want, (requests, now));
    }
}

/// What the log entitles this device to read of a lane, where keys are asked for at all.
fn entitled(view: &StreamView, lane: &UserId) -> Vec<Interval> {
    let (me, device) = view.me();
    match is_asked_for(view, lane) {
        true => view.state().readable(&me, &device, lane),
        false => Vec::new(),
    }
}

/// Whether anybody would answer this device: not where keys lie open, or never travel.
fn is_asked_for(view: &StreamView, lane: &UserId) -> bool {
    let ((me, device), state) = (view.me(), view.state());
    !state.is_public()
        && (state.sharing() != Sharing::Manual || state.is_keyholder(&me, &device, lane))
}

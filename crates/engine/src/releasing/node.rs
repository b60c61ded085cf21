//! A key node releases keys, `spec/key-nodes.md`, section "How a node decides".
//!
//! ```text
//!    item ──► intake ──► checked ──► read ──► decided
//!               fair by    signature,   the access     address, log, right,
//!               claimed    freshness,   log, to its    condition, rate:
//!               device     replay       end            an audit entry, then the reply
//! ```

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use rand_core::CryptoRng;
use sealcast_protocol::{
    AuditChain, AuditEntry, AuditEvent, AuditedRequest, DeviceId, KeyNode, ListFault, LogHash,
    NodeAnswer, NodeRefusal, NodeRefusalReason, NodeReplyTo, NodeRequest, Position, Unverified,
    UserId, Verified, sign,
};

use super::SKEW_MS;
use super::judge::{Verdict, judge};
use super::memory::{Memory, TurnedAway};
use super::waiting::WaitingRoom;
use crate::asking::earlier;
use crate::asking::intake::{Asks as _, Incoming, Intake};
use crate::asking::pace::Pace;
use crate::asking::steady::Steady;
use crate::identity::Identity;
use crate::lane::CLOCK_BEHIND_MS_MAX;
use crate::view::StreamView;

/// Requests that wait for the access log, at most.
const READY_MAX: usize = 1_024;

/// Releases keys of one stream, as far as its access log says so.
///
/// Feed the items of this device's inbox, and what [`ReleaserOutput::ReadLog`] asks for: nothing is
/// released by a log that was read before the request came. Outputs are done in their order, and an
/// audit entry is durable before what follows it leaves. Where that fails nothing further is done.
#[derive(Debug)]
pub struct Releaser {
    steady: Steady,
    audit: AuditChain,
    intake: Intake<NodeRequest>,
    waiting: WaitingRoom,
    turned_away: TurnedAway,
    checks: Pace,
    memory: Memory,
    /// Checked, and here after the log was last begun to be read.
    ready: Vec<Verified<NodeRequest>>,
    /// Checked, and here before the log is read that is being read.
    reading: Option<Vec<Verified<NodeRequest>>>,
    /// Somebody asks whom the log may name by now, and it was not read since.
    is_log_owed: bool,
    refused: BTreeMap<NodeRefusalReason, u64>,
    outputs: VecDeque<ReleaserOutput>,
}

/// How much a [`Releaser`] does.
#[derive(Clone, Copy, Debug)]
pub struct ReleaserLimits {
    /// Signatures of requests that are checked a second.
    pub checks_per_second: u32,
    /// Requests of one user that are taken a second, and at once.
    pub requests_per_second: u32,
    /// See `requests_per_second`.
    pub requests_at_once: u32,
    /// Segments that one user is given a second, and at once.
    pub segments_per_second: u32,
    /// See `segments_per_second`.
    pub segments_at_once: u32,
}

impl Default for ReleaserLimits {
    fn default() -> Self {
        Self {
            checks_per_second: 1_000,
            requests_per_second: 4,
            requests_at_once: 128,
            segments_per_second: 64,
            segments_at_once: 16_384,
        }
    }
}

/// What can happen to a [`Releaser`].
#[derive(Debug)]
pub enum ReleaserInput<'a> {
    /// An item of this device's inbox; what is no request for this stream is passed over.
    Item(&'a [u8]),
    /// What [`ReleaserOutput::ReadLog`] asked for is done.
    LogRead {
        /// Whether the bus still shows all that it showed before.
        is_whole: bool,
    },
    /// The view has learned something.
    Learned,
    /// Time has passed.
    Tick,
}

/// What a [`Releaser`] wants done. Exhaustive: a driver that skips one is wrong.
#[derive(Debug)]
#[must_use]
pub enum ReleaserOutput {
    /// Read device lists, access log and keys to their end, from now on, hand them to the view, and say
    /// [`LogRead`](ReleaserInput::LogRead); if it cannot be done, try again, and say nothing.
    ReadLog,
    /// Read the device list of a user, hand it to the view, and say [`Learned`](ReleaserInput::Learned).
    ReadList(UserId),
    /// Sign it and make it durable before anything that comes out later is done.
    Keep(AuditEntry),
    /// Answer it with [`answer_request`], and append that to the asking device's inbox.
    Release(Box<Verified<NodeRequest>>),
    /// Sign it and append it to the inbox of the device that asked, unless it is that late by then.
    Refuse(NodeRefusal, Position),
}

impl Releaser {
    /// Begins to run. `audit` is the end of what was kept, and `kept` the entries of which the requests
    /// may still be replayed: all of the last minutes at least.
    pub fn new(
        limits: ReleaserLimits,
        now: Position,
        audit: AuditChain,
        kept: impl IntoIterator<Item = AuditEntry>,
    ) -> Self {
        let mut steady = Steady::new();
        let mut memory = Memory::new(limits);
        let time = steady.read(now);
        for entry in kept {
            if let Some(asked) = entry.event.request() {
                let until = steady.time_at(asked.expires.after(SKEW_MS));
                memory.see((asked.device, asked.request), until);
            }
        }
        memory.forget(time);
        let per_second = limits.checks_per_second;
        let mut machine = Self {
            steady,
            audit,
            intake: Intake::default(),
            waiting: WaitingRoom::default(),
            turned_away: TurnedAway::default(),
            checks: Pace::new(per_second, per_second / 8),
            memory,
            ready: Vec::new(),
            reading: None,
            is_log_owed: false,
            refused: BTreeMap::new(),
            outputs: VecDeque::new(),
        };
        machine.keep(AuditEvent::Began);
        machine
    }

    /// Takes the clock for right though it is behind earlier entries of the audit, by the word of whoever
    /// runs the node.
    pub fn trust_clock(&mut self) {
        if self.clock_behind_ms().is_some() {
            self.keep(AuditEvent::ClockSet);
        }
    }

    /// How far the clock is behind what the audit says of it, where that is so far that nothing is
    /// released: by a clock that was set back, who expired long ago could read.
    pub fn clock_behind_ms(&self) -> Option<u64> {
        let behind = self
            .audit
            .end()
            .newest
            .0
            .saturating_sub(self.steady.clock().0);
        (behind > CLOCK_BEHIND_MS_MAX).then_some(behind)
    }

    /// Moves the state on by one input. `now` is what the clock says; it may have been set back.
    pub fn handle(&mut self, now: Position, view: &StreamView, input: ReleaserInput<'_>) {
        let now = self.steady.read(now);
        self.memory.forget(now);
        match input {
            ReleaserInput::Item(bytes) => self.take_item(now, view, bytes),
            ReleaserInput::LogRead { is_whole } => self.decide_all(now, view, is_whole),
            ReleaserInput::Learned => self.learned(now, view),
            ReleaserInput::Tick => (),
        }
        self.check(now, view);
        if let Some(count) = self.turned_away.due(now) {
            self.keep(AuditEvent::TurnedAway(count));
        }
        let is_idle = self.reading.is_none();
        let is_for_others = is_idle && self.is_log_owed && self.waiting.take_log_turn(now);
        if is_for_others || (is_idle && !self.ready.is_empty()) {
            self.is_log_owed = false;
            self.reading = Some(core::mem::take(&mut self.ready));
            self.outputs.push_back(ReleaserOutput::ReadLog);
        }
    }

    /// Hands out the next thing the driver must do.
    pub fn poll_output(&mut self) -> Option<ReleaserOutput> {
        self.outputs.pop_front()
    }

    /// Says when the driver must come back with [`ReleaserInput::Tick`], at the latest.
    pub fn next_timeout(&self) -> Option<Position> {
        let check = (!self.intake.is_empty()).then(|| self.checks.ready_at());
        let next = earlier(check, self.turned_away.due_at());
        let owed = self.is_log_owed.then(|| self.waiting.log_due_at());
        let next = earlier(next, owed);
        next.map(|at| self.steady.clock_at(at))
    }

    /// How many requests were refused for what since this was last called, whether or not it was told.
    pub fn take_refused(&mut self) -> BTreeMap<NodeRefusalReason, u64> {
        core::mem::take(&mut self.refused)
    }

    /// The end of the audit.
    pub fn audit(&self) -> &AuditChain {
        &self.audit
    }

    fn keep(&mut self, event: AuditEvent) {
        let time = self.steady.clock();
        let entry = self.audit.append(time, event);
        self.outputs.push_back(ReleaserOutput::Keep(entry));
    }
}

/// From an item to a checked request: steps 1 to 3.
impl Releaser {
    fn take_item(&mut self, now: Position, view: &StreamView, bytes: &[u8]) {
        let Ok(item) = Unverified::<NodeRequest>::decode(bytes) else {
            return;
        };
        if item.claims().stream == view.stream() {
            let (item, len) = (Box::new(item), bytes.len());
            self.admit(now, view, now, Incoming { item, len });
        }
    }

    /// Lets a request wait for its check, unless what it says is enough to drop it.
    fn admit(
        &mut self,
        now: Position,
        view: &StreamView,
        since: Position,
        incoming: Incoming<NodeRequest>,
    ) {
        let asked = incoming.item.claims();
        if !self.is_timely(asked) || self.memory.has_seen(&asked.id()) {
            return;
        }
        let user = asked.user;
        if !view.names(&user) {
            // It may be named by what has not come yet. Of anybody else nothing is read, kept or checked.
            if !view.knows(&asked.heads) {
                self.waiting.push(view, since, incoming);
                self.is_log_owed |= since == now;
            }
        } else if view.user_of(&asked.device) == Some(user) {
            self.intake.push(asked.device, incoming);
        } else {
            self.intake.push(newcomers_of(&user), incoming);
        }
    }

    /// Whether a request is neither over nor from a clock that is far off.
    fn is_timely(&self, asked: &NodeRequest) -> bool {
        let clock = self.steady.clock();
        asked.time <= clock.after(SKEW_MS) && clock < asked.expires.after(SKEW_MS)
    }

    /// Checks as many requests as the pace allows, and as there is room for.
    fn check(&mut self, now: Position, view: &StreamView) {
        while self.ready.len() < READY_MAX && !self.intake.is_empty() && self.checks.take(now) {
            if let Some(incoming) = self.intake.pop() {
                self.check_one(now, view, incoming);
            }
        }
    }

    fn check_one(&mut self, now: Position, view: &StreamView, incoming: Incoming<NodeRequest>) {
        let asked = incoming.item.claims();
        let (user, device) = (asked.user, asked.device);
        let pinned = view.list(&user).map(|list| list.check_pin(&asked.list));
        let (Some(pinned), Some(key)) = (pinned, view.sign_key(&user, &device)) else {
            self.read_list(now, user);
            self.waiting.push(view, now, incoming);
            return;
        };
        if matches!(pinned, Ok(()) | Err(ListFault::Shortened { .. }))
            && let Ok(asked) = incoming.item.verify(&key)
        {
            self.take_signed(now, view, now, asked);
        }
    }

    /// Lets a request in that its device signed, or has it wait for the list that it names.
    fn take_signed(
        &mut self,
        now: Position,
        view: &StreamView,
        since: Position,
        asked: Verified<NodeRequest>,
    ) {
        let body = asked.body();
        let user = body.user;
        match view.list(&user).map(|list| list.check_pin(&body.list)) {
            Some(Ok(())) => (),
            Some(Err(ListFault::Shortened { .. })) => {
                self.read_list(now, user);
                self.waiting.push_signed(since, asked);
                return;
            }
            Some(Err(_)) | None => return,
        }
        let until = self.steady.time_at(body.expires.after(SKEW_MS));
        let is_taken = self.is_timely(body) && body.wrap_key().is_ok();
        if is_taken && self.memory.admit(now, user, (body.id(), until)) {
            self.ready.push(asked);
        }
    }

    /// Has the list of a user read, which a request waits for.
    fn read_list(&mut self, now: Position, user: UserId) {
        if self.waiting.is_to_read(now, user) {
            self.outputs.push_back(ReleaserOutput::ReadList(user));
        }
    }

    /// Looks again at what waited for what was learned.
    fn learned(&mut self, now: Position, view: &StreamView) {
        for (since, asked) in self.waiting.take_signed(now) {
            self.take_signed(now, view, since, asked);
        }
        for (since, incoming) in self.waiting.take(now) {
            self.admit(now, view, since, incoming);
        }
    }
}

/// From a checked request to a reply: steps 4 to 8.
impl Releaser {
    fn decide_all(&mut self, now: Position, view: &StreamView, is_whole: bool) {
        for asked in self.reading.take().into_iter().flatten() {
            self.decide(now, view, is_whole, asked);
        }
        self.learned(now, view);
    }

    fn decide(
        &mut self,
        now: Position,
        view: &StreamView,
        is_whole: bool,
        asked: Verified<NodeRequest>,
    ) {
        let (clock, body) = (self.steady.clock(), asked.body());
        if !self.is_timely(body) || self.clock_behind_ms().is_some() {
            return;
        }
        let withheld = self.waiting.withheld(view);
        let verdict = match judge(view, clock, is_whole, &withheld, body) {
            Verdict::Silent => return,
            Verdict::Refuse(reason, wait_ms) => Err((reason, wait_ms)),
            Verdict::Entitled => {
                let count = body.segments.len();
                let taken = self.memory.take_segments(now, body.user, count);
                taken.map_err(|wait_ms| (NodeRefusalReason::Throttled, wait_ms))
            }
        };
        match verdict {
            Ok(()) => {
                self.keep(AuditEvent::Released(audited(view, &asked)));
                let release = ReleaserOutput::Release(Box::new(asked));
                self.outputs.push_back(release);
            }
            Err((reason, wait_ms)) => self.refuse(now, view, &asked, reason, wait_ms),
        }
    }

    /// Refuses, and keeps an entry of it, as long as it is told.
    fn refuse(
        &mut self,
        now: Position,
        view: &StreamView,
        asked: &Verified<NodeRequest>,
        reason: NodeRefusalReason,
        wait_ms: u64,
    ) {
        let (user, expires) = (asked.body().user, asked.body().expires);
        *self.refused.entry(reason).or_default() += 1;
        let is_told = self.memory.may_refuse(now, user);
        match is_told {
            true => self.keep(AuditEvent::Refused(audited(view, asked), reason)),
            false => self.turned_away.note(),
        }
        if let Some(refusal) = refusal(view, asked, reason, wait_ms).filter(|_| is_told) {
            let refuse = ReleaserOutput::Refuse(refusal, expires);
            self.outputs.push_back(refuse);
        }
    }
}

fn audited(view: &StreamView, asked: &Verified<NodeRequest>) -> AuditedRequest {
    AuditedRequest::new(asked, &view.log().heads(&LogHash([0; 32])))
}

/// Where requests wait in the name of a user's devices that are in no list that is known: apart from
/// those of others, and from those that are.
fn newcomers_of(user: &UserId) -> DeviceId {
    let mut id = [0; 16];
    id.iter_mut().zip(user.0).for_each(|(id, of)| *id = of);
    DeviceId(id)
}

fn refusal(
    view: &StreamView,
    asked: &Verified<NodeRequest>,
    reason: NodeRefusalReason,
    wait_ms: u64,
) -> Option<NodeRefusal> {
    let (user, device) = view.me();
    let me = KeyNode { user, device };
    let index = view.deal(&asked.body().deal)?.index_of(&me)?;
    Some(NodeRefusal {
        version: 1,
        to: NodeReplyTo::new(asked, index, me),
        reason,
        wait_ms: u32::try_from(wait_ms).unwrap_or(u32::MAX),
    })
}

/// Answers a request that a [`Releaser`] says is to be answered, as far as this device has a share.
pub fn answer_request(
    view: &StreamView,
    identity: &Identity,
    rng: &mut (impl CryptoRng + ?Sized),
    asked: &Verified<NodeRequest>,
) -> Option<Verified<NodeAnswer>> {
    let share = view.share(&asked.body().deal)?;
    let (user, device) = view.me();
    let answer = NodeAnswer::seal(rng, asked, share, KeyNode { user, device });
    sign(identity.signing(), answer.ok()?).ok()
}

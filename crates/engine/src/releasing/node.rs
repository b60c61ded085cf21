//! A key node releases keys, `spec/key-nodes.md`, section "How a node decides".
//!
//! ```text
//!    item ──► intake ──► checked ──► read ──► decided
//!               fair by    signature,   the access     address, log, right,
//!               claimed    freshness,   log, to its    condition, rate:
//!               device     replay       end            an audit entry, then the reply
//! ```

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use rand_core::CryptoRng;
use sealcast_protocol::{
    AuditChain, AuditEntry, AuditEvent, AuditedRequest, DeviceId, KeyNode, ListFault, LogHash,
    NodeAnswer, NodeRefusal, NodeRefusalReason, NodeReplyTo, NodeRequest, Position, Unverified,
    UserId, Verified, sign,
};

use super::SKEW_MS;
use super::judge::{Verdict, judge};
use super::memory::Memory;
use crate::asking::earlier;
use crate::asking::intake::{Asks as _, Incoming, Intake};
use crate::asking::pace::Pace;
use crate::asking::steady::Steady;
use crate::identity::Identity;
use crate::lane::CLOCK_BEHIND_MS_MAX;
use crate::view::StreamView;

/// Whose requests share one place among the devices: those of whom this device has no card.
const STRANGERS: DeviceId = DeviceId([0; 16]);
/// Requests that wait for a device list, at most, and for the access log.
const WAITING_MAX: usize = 64;
const READY_MAX: usize = 1_024;
/// Time between two readings of one device list.
const LIST_PAUSE_MS: u64 = 10_000;

/// Releases keys of one stream, as far as its access log says so.
///
/// Feed the items of this device's inbox, and what [`ReleaserOutput::ReadLog`] asks for: nothing is
/// released by a log that was read before the request came. Outputs are done in their order, and an
/// audit entry is durable before what follows it leaves. Where that fails nothing further is done.
#[derive(Debug)]
pub struct Releaser {
    limits: ReleaserLimits,
    steady: Steady,
    audit: AuditChain,
    /// The newest time in the audit.
    audited_at: Position,
    intake: Intake<NodeRequest>,
    /// For a device list.
    waiting: VecDeque<(Position, Incoming<NodeRequest>)>,
    lists_read: BTreeMap<UserId, Position>,
    /// Users whom the log does not name and whose lists were read.
    strangers: BTreeSet<UserId>,
    checks: Pace,
    memory: Memory,
    /// Checked, and here after the log was last begun to be read.
    ready: Vec<Verified<NodeRequest>>,
    /// Checked, and here before the log is read that is being read.
    reading: Option<Vec<Verified<NodeRequest>>>,
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
    /// Users that the access log does not name whose device lists are read, so that they are told that
    /// nothing entitles them.
    pub strangers_max: usize,
}

impl Default for ReleaserLimits {
    fn default() -> Self {
        Self {
            checks_per_second: 1_000,
            requests_per_second: 4,
            requests_at_once: 128,
            segments_per_second: 64,
            segments_at_once: 16_384,
            strangers_max: 64,
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
    /// Sign it and append it to the inbox of the device that asked.
    Refuse(NodeRefusal),
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
        let mut audited_at = Position::START;
        let time = steady.read(now);
        for entry in kept {
            audited_at = audited_at.max(entry.time);
            if let Some(asked) = entry.event.request() {
                let until = steady.time_at(asked.expires.after(SKEW_MS));
                memory.see((asked.device, asked.request), until);
            }
        }
        memory.forget(time);
        let per_second = limits.checks_per_second;
        let mut machine = Self {
            limits,
            steady,
            audit,
            audited_at,
            intake: Intake::default(),
            waiting: VecDeque::new(),
            lists_read: BTreeMap::new(),
            strangers: BTreeSet::new(),
            checks: Pace::new(per_second, per_second / 8),
            memory,
            ready: Vec::new(),
            reading: None,
            outputs: VecDeque::new(),
        };
        machine.keep(AuditEvent::Began);
        machine
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
        if self.reading.is_none() && !self.ready.is_empty() {
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
        let next = earlier(check, None);
        next.map(|at| self.steady.clock_at(at))
    }

    /// The end of the audit.
    pub fn audit(&self) -> &AuditChain {
        &self.audit
    }

    fn keep(&mut self, event: AuditEvent) {
        let time = self.steady.clock();
        self.audited_at = self.audited_at.max(time);
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
            self.admit(now, view, Incoming { item, len });
        }
    }

    /// Lets a request wait for its check, unless what it says is enough to drop it.
    fn admit(&mut self, now: Position, view: &StreamView, incoming: Incoming<NodeRequest>) {
        let asked = incoming.item.claims();
        if !self.is_timely(asked) || self.memory.has_seen(&asked.id()) {
            return;
        }
        if view.user_of(&asked.device) == Some(asked.user) {
            self.intake.push(asked.device, incoming);
        } else if view.names(&asked.user) || self.has_room_for(&asked.user) {
            self.intake.push(STRANGERS, incoming);
        } else if !knows_all(view, &asked.heads) {
            // Its user may be named by what has not come yet.
            self.wait(now, incoming);
        }
    }

    /// Whether a request is neither over nor from a clock that is far off.
    fn is_timely(&self, asked: &NodeRequest) -> bool {
        let clock = self.steady.clock();
        asked.time <= clock.after(SKEW_MS) && clock < asked.expires.after(SKEW_MS)
    }

    fn has_room_for(&self, user: &UserId) -> bool {
        self.strangers.contains(user) || self.strangers.len() < self.limits.strangers_max
    }

    fn wait(&mut self, since: Position, incoming: Incoming<NodeRequest>) {
        if self.waiting.len() >= WAITING_MAX {
            self.waiting.pop_front();
        }
        self.waiting.push_back((since, incoming));
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
            return self.wait_for_list(now, view, incoming);
        };
        match pinned {
            Ok(()) => (),
            Err(ListFault::Shortened { .. }) => return self.wait_for_list(now, view, incoming),
            Err(_) => return,
        }
        let Ok(asked) = incoming.item.verify(&key) else {
            return;
        };
        let body = asked.body();
        let until = self.steady.time_at(body.expires.after(SKEW_MS));
        let is_taken = self.is_timely(body) && body.wrap_key().is_ok();
        if is_taken && self.memory.admit(now, user, (body.id(), until)) {
            self.ready.push(asked);
        }
    }

    /// Keeps a request until the device list that it names is known.
    fn wait_for_list(&mut self, now: Position, view: &StreamView, incoming: Incoming<NodeRequest>) {
        let user = incoming.item.claims().user;
        if !view.names(&user) {
            if !self.has_room_for(&user) {
                return;
            }
            self.strangers.insert(user);
        }
        self.lists_read
            .retain(|_, at| now < at.after(LIST_PAUSE_MS));
        if !self.lists_read.contains_key(&user) && self.lists_read.len() < WAITING_MAX {
            self.lists_read.insert(user, now);
            self.outputs.push_back(ReleaserOutput::ReadList(user));
        }
        self.wait(now, incoming);
    }

    /// Looks again at what waited for what was learned.
    fn learned(&mut self, now: Position, view: &StreamView) {
        for (since, incoming) in core::mem::take(&mut self.waiting) {
            if now < since.after(SKEW_MS) {
                self.admit(now, view, incoming);
            }
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
        // A clock that was set back far would let in who expired long ago.
        let is_behind = self.audited_at.0.saturating_sub(clock.0) > CLOCK_BEHIND_MS_MAX;
        if !self.is_timely(body) || is_behind {
            return;
        }
        let verdict = match judge(view, clock, is_whole, body) {
            Verdict::Silent => return,
            Verdict::Refuse(reason, wait_ms) => Err((reason, wait_ms)),
            Verdict::Entitled => {
                let count = body.segments.len();
                let taken = self.memory.take_segments(now, body.user, count);
                taken.map_err(|wait_ms| (NodeRefusalReason::Throttled, wait_ms))
            }
        };
        let kept = AuditedRequest::new(&asked, &view.log().heads(&LogHash([0; 32])));
        match verdict {
            Ok(()) => {
                self.keep(AuditEvent::Released(kept));
                let release = ReleaserOutput::Release(Box::new(asked));
                self.outputs.push_back(release);
            }
            Err((reason, wait_ms)) => {
                let refusal = refusal(view, &asked, reason, wait_ms);
                if let Some(refusal) = refusal.filter(|_| self.memory.may_refuse(now, body.user)) {
                    self.keep(AuditEvent::Refused(kept, reason));
                    self.outputs.push_back(ReleaserOutput::Refuse(refusal));
                }
            }
        }
    }
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

/// Whether all entries that a request names are known here.
fn knows_all(view: &StreamView, heads: &[LogHash]) -> bool {
    heads.iter().all(|head| view.log().contains(head))
}

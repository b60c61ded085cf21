//! A device answers the requests of others, `spec/asking.md`, section "Answering".
//!
//! ```text
//!    item ──► intake ──► checked ──► waiting ◄──────────────────────┐
//!               fair by    signature,   │ its turn has come, and     │ others claimed the rest,
//!               claimed    device list, │ nobody else has claimed    │ and their claims lapse
//!               device     user's rate  ▼                            │
//!                                    deciding ──── Decided ──────────┤
//!                                     (claimed)    bundles, refusals │
//!                                                                    ▼
//!        closed: all is met by a receipt, or answered from here, or given by three users, or late
//! ```

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use sealcast_protocol::{
    AskItem, DeviceId, ListFault, Position, RefusalReason, RequestId, Solicitation, UserId, Want,
};

use super::intake::{Incoming, Intake};
use super::pace::Pace;
use super::steady::Steady;
use super::turn::Ground;
use super::{AskBody, earlier};
use crate::share::Handout;
use crate::view::StreamView;

mod answering;
mod memory;
mod open;
mod replies;

use memory::{Memory, SKEW_MS};
use open::Open;

/// A request, by who asked.
type Key = (DeviceId, RequestId);

/// Whose requests share one place among the devices: those of whom this device has no card.
const STRANGERS: DeviceId = DeviceId([0; 16]);
/// Requests whose replies wait with them, at most, and replies to one of them.
const EARLY_MAX: usize = 1_024;
const EARLY_OF_ONE_MAX: usize = 8;
/// Replies to requests that have not come, at most.
const AHEAD_MAX: usize = 256;
/// Requests that wait for a device list, at most.
const WAITING_MAX: usize = 64;
/// Time between two readings of one device list.
const LIST_PAUSE_MS: u64 = 10_000;

/// Answers the requests for keys of one stream, as far as this device may and can.
///
/// Feed the items of the stream's `ask` topic, and of the inboxes that
/// [`ResponderOutput::Follow`] names. Nothing is remembered over a restart: an answer to a request
/// that is replayed later is wrapped to the key of a request that is over.
#[derive(Debug)]
pub struct Responder {
    limits: ResponderLimits,
    steady: Steady,
    intake: Intake<Solicitation>,
    /// Replies to requests that wait for their check.
    early: BTreeMap<Key, Vec<AskItem>>,
    /// Replies to requests that have not come: the topic may show things in any order.
    ahead: VecDeque<(Key, AskItem)>,
    /// For a device list.
    waiting: VecDeque<(Position, Incoming<Solicitation>)>,
    lists_read: BTreeMap<UserId, Position>,
    /// Users whom the log does not name, and when their lists were first read.
    strangers: BTreeMap<UserId, Position>,
    checks: Pace,
    checked: u64,
    reply_checks: Pace,
    memory: Memory,
    open: BTreeMap<Key, Open>,
    open_bytes: usize,
    wakes: BTreeSet<(Position, Key)>,
    followed: BTreeMap<DeviceId, usize>,
    ground: Ground,
    outputs: VecDeque<ResponderOutput>,
}

/// How much a [`Responder`] does for others.
#[derive(Clone, Copy, Debug)]
pub struct ResponderLimits {
    /// Requests of one user that are taken a second.
    pub max_key_requests_per_second: u32,
    /// Signatures of requests that are checked a second, and four times as many of replies to them.
    pub checks_per_second: u32,
    /// Requests of one user that are open at a time.
    pub open_of_user_max: usize,
    /// Requests that are open at a time.
    pub open_max: usize,
    /// Users that the access log does not name whose device lists are read: all in all, of those that
    /// have one. None, unless somebody is asked to decide on strangers.
    pub strangers_max: usize,
}

impl Default for ResponderLimits {
    fn default() -> Self {
        Self {
            max_key_requests_per_second: 20,
            checks_per_second: 1_000,
            open_of_user_max: 32,
            open_max: 4_096,
            strangers_max: 0,
        }
    }
}

/// What can happen to a [`Responder`].
#[derive(Debug)]
pub enum ResponderInput<'a> {
    /// An item of the stream's `ask` topic.
    Item(&'a [u8]),
    /// An item of the inbox of a device that is followed.
    InboxItem(&'a [u8]),
    /// What the application decided.
    Decided {
        /// Who asked.
        asker: DeviceId,
        /// The request.
        request: RequestId,
        /// The decision.
        decision: Decision,
    },
    /// The view has learned something: entries, device lists, records, keys.
    Learned,
    /// Time has passed.
    Tick,
}

/// What a [`Responder`] wants done. Exhaustive: a driver that skips one is wrong.
#[derive(Debug)]
#[must_use]
pub enum ResponderOutput {
    /// Sign it and append it to the stream's `ask` topic, and to the inbox that
    /// [`AskBody::inbox`] names.
    Send(AskBody),
    /// Ask the application, and hand in what it decides; at once where it cannot, as
    /// [`RefusalReason::PendingApproval`].
    Decide(Question),
    /// Wrap it ([`wrap_handout`](crate::wrap_handout)) and append it to the receiving device's inbox.
    Give(Handout),
    /// Hand in what lies in the inbox of a device, the newest MiB of it, and what comes there, until
    /// told otherwise. Others may have given, and not been heard: this saves giving again what was
    /// given. An inbox that cannot be read costs no more than that.
    Follow(DeviceId),
    /// The inbox of a device is of no interest any more.
    Unfollow(DeviceId),
    /// Read the device list of a user, hand it to the view, and say
    /// [`Learned`](ResponderInput::Learned).
    ReadList(UserId),
}

/// Whether to answer a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The device that asks.
    pub asker: DeviceId,
    /// Its request.
    pub request: RequestId,
    /// Whose device it is.
    pub user: UserId,
    /// What is asked for of what this device has a say in, and what the access log says to it.
    pub wants: Vec<(Want, Decision)>,
}

/// What to do about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Give what the access log allows by now, and refuse the rest for the reasons that it has. A
    /// yes beyond it is a grant, which is written before this is said.
    Give,
    /// Give nothing.
    Refuse(RefusalReason),
}

impl Responder {
    /// Starts with nothing to answer.
    pub fn new(limits: ResponderLimits) -> Self {
        let per_second = limits.checks_per_second;
        let replies = per_second.saturating_mul(4);
        Self {
            limits,
            steady: Steady::new(),
            intake: Intake::default(),
            early: BTreeMap::new(),
            ahead: VecDeque::new(),
            waiting: VecDeque::new(),
            lists_read: BTreeMap::new(),
            strangers: BTreeMap::new(),
            checks: Pace::new(per_second, per_second / 8),
            checked: 0,
            reply_checks: Pace::new(replies, replies),
            memory: Memory::new(limits.max_key_requests_per_second),
            open: BTreeMap::new(),
            open_bytes: 0,
            wakes: BTreeSet::new(),
            followed: BTreeMap::new(),
            ground: Ground::default(),
            outputs: VecDeque::new(),
        }
    }

    /// Moves the state on by one input. `now` is what the clock says; it may have been set back.
    pub fn handle(&mut self, now: Position, view: &StreamView, input: ResponderInput<'_>) {
        let now = self.steady.read(now);
        self.memory.forget(now);
        match input {
            ResponderInput::Item(bytes) => self.take_item(now, view, bytes),
            ResponderInput::InboxItem(bytes) => self.take_inbox_item(now, view, bytes),
            ResponderInput::Decided {
                asker,
                request,
                decision,
            } => self.decided(now, view, (asker, request), decision),
            ResponderInput::Learned => self.learned(now, view),
            ResponderInput::Tick => (),
        }
        self.check(now, view);
        self.advance(now, view);
    }

    /// Hands out the next thing the driver must do.
    pub fn poll_output(&mut self) -> Option<ResponderOutput> {
        self.outputs.pop_front()
    }

    /// Says when the driver must come back with [`ResponderInput::Tick`], at the latest.
    pub fn next_timeout(&self) -> Option<Position> {
        let is_checked = self.intake.is_empty();
        let check = (!is_checked).then(|| self.checks.ready_at());
        let next = earlier(check, self.wakes.first().map(|(at, _)| *at));
        next.map(|at| self.steady.clock_at(at))
    }

    /// How many requests are open: checked, and not done with.
    pub fn open_requests(&self) -> usize {
        self.open.len()
    }

    /// How many requests wait for their signature to be checked.
    pub fn unchecked_requests(&self) -> usize {
        self.intake.len() + self.waiting.len()
    }

    /// How many signatures of requests were checked so far.
    pub fn checked_requests(&self) -> u64 {
        self.checked
    }

    /// How many things are remembered about requests that are done with.
    pub fn remembered(&self) -> usize {
        self.memory.len()
    }

    fn take_item(&mut self, now: Position, view: &StreamView, bytes: &[u8]) {
        let Ok(item) = AskItem::decode(bytes) else {
            return;
        };
        if item.stream() != view.stream() {
            return;
        }
        let key = match item {
            AskItem::Solicitation(item) => {
                let len = bytes.len();
                return self.admit(now, view, Incoming { item, len });
            }
            AskItem::Claim(ref of) => (of.claims().asker, of.claims().request),
            AskItem::Refusal(ref of) => (of.claims().asker, of.claims().request),
            AskItem::Receipt(ref of) => (of.claims().device, of.claims().request),
        };
        match self.open.contains_key(&key) {
            true => self.take_reply(now, view, item),
            false => self.keep_early(key, item),
        }
    }

    fn take_reply(&mut self, now: Position, view: &StreamView, item: AskItem) {
        match item {
            AskItem::Solicitation(_) => (),
            AskItem::Claim(claim) => self.take_claim(now, view, claim),
            AskItem::Refusal(refusal) => self.take_refusal(now, view, refusal),
            AskItem::Receipt(receipt) => self.take_receipt(now, view, receipt),
        }
    }

    /// Keeps a reply whose request waits for its check, as others may be faster, or has not come.
    fn keep_early(&mut self, key: Key, item: AskItem) {
        let has_room = self.early.contains_key(&key) || self.early.len() < EARLY_MAX;
        if !self.intake.has(&key) {
            if !self.memory.has_seen(&key) {
                self.ahead.push_back((key, item));
            }
            if self.ahead.len() > AHEAD_MAX {
                self.ahead.pop_front();
            }
        } else if has_room {
            let early = self.early.entry(key).or_default();
            if early.len() < EARLY_OF_ONE_MAX {
                early.push(item);
            }
        }
    }

    /// Takes out the replies that came before their request was open.
    fn take_early(&mut self, key: &Key) -> Vec<AskItem> {
        let (of, others) = core::mem::take(&mut self.ahead)
            .into_iter()
            .partition::<VecDeque<_>, _>(|(other, _)| other == key);
        self.ahead = others;
        let early = self.early.remove(key).into_iter().flatten();
        of.into_iter().map(|(_, item)| item).chain(early).collect()
    }

    /// Lets a request wait for its check, unless what it says is enough to drop it.
    fn admit(&mut self, now: Position, view: &StreamView, incoming: Incoming<Solicitation>) {
        let asked = incoming.item.claims();
        let key = (asked.device, asked.request);
        if asked.device == view.me().1 || !self.is_timely(asked) || self.is_known(&key) {
            return;
        }
        let may_be_read = view.names(&asked.user) || self.has_room_for(now, view, &asked.user);
        if view.user_of(&asked.device) == Some(asked.user) {
            self.intake.push(asked.device, incoming);
        } else if may_be_read {
            self.intake.push(STRANGERS, incoming);
        } else if !view.knows(&asked.heads) {
            // Its user may be named by what has not come yet.
            self.wait(now, incoming);
        }
    }

    fn wait(&mut self, since: Position, incoming: Incoming<Solicitation>) {
        if self.waiting.len() >= WAITING_MAX {
            self.waiting.pop_front();
        }
        self.waiting.push_back((since, incoming));
    }

    /// Whether a request is neither over nor from a clock that is far off.
    fn is_timely(&self, asked: &Solicitation) -> bool {
        let clock = self.steady.clock();
        asked.time <= clock.after(SKEW_MS) && clock < asked.expires.after(SKEW_MS)
    }

    fn is_known(&self, key: &Key) -> bool {
        self.open.contains_key(key) || self.memory.has_seen(key)
    }

    /// Checks as many requests as the pace allows.
    fn check(&mut self, now: Position, view: &StreamView) {
        while !self.intake.is_empty() && self.checks.take(now) {
            let Some(incoming) = self.intake.pop() else {
                continue;
            };
            let key = incoming.id();
            self.check_one(now, view, incoming);
            if self.intake.has(&key) && !self.open.contains_key(&key) {
                continue;
            }
            for item in self.take_early(&key) {
                self.take_reply(now, view, item);
            }
        }
    }

    fn check_one(&mut self, now: Position, view: &StreamView, incoming: Incoming<Solicitation>) {
        let asked = incoming.item.claims();
        let (user, device) = (asked.user, asked.device);
        if self.is_known(&(device, asked.request)) || !self.is_timely(asked) {
            return;
        }
        let list = view.list(&user);
        let pinned = list.map(|list| list.check_pin(&asked.list));
        let key = view.sign_key(&user, &device);
        let (Some(pinned), Some(key)) = (pinned, key) else {
            return self.wait_for_list(now, view, incoming);
        };
        match pinned {
            Ok(()) => (),
            Err(ListFault::Shortened { .. }) => return self.wait_for_list(now, view, incoming),
            Err(_) => return,
        }
        let Incoming { item, len } = incoming;
        self.checked += 1;
        let Ok(asked) = item.verify(&key) else {
            return;
        };
        self.open(now, view, asked.body().clone(), len);
    }

    /// Keeps a request until the device list that it names is known.
    fn wait_for_list(
        &mut self,
        now: Position,
        view: &StreamView,
        incoming: Incoming<Solicitation>,
    ) {
        let user = incoming.item.claims().user;
        if !view.names(&user) {
            if !self.has_room_for(now, view, &user) {
                return;
            }
            self.strangers.entry(user).or_insert(now);
        }
        self.lists_read
            .retain(|_, at| now < at.after(LIST_PAUSE_MS));
        if !self.lists_read.contains_key(&user) && self.lists_read.len() < WAITING_MAX {
            self.lists_read.insert(user, now);
            self.outputs.push_back(ResponderOutput::ReadList(user));
        }
        self.wait(now, incoming);
    }

    /// Whether a stranger's list may be read. Those make room who turned out to have none.
    fn has_room_for(&mut self, now: Position, view: &StreamView, user: &UserId) -> bool {
        let max = self.limits.strangers_max;
        if max > 0 && self.strangers.len() >= max && !self.strangers.contains_key(user) {
            let has_list = |user: &UserId| {
                let devices = view.list(user).into_iter().flat_map(|of| of.devices());
                devices.count() > 0
            };
            self.strangers
                .retain(|user, since| now < since.after(LIST_PAUSE_MS) || has_list(user));
        }
        self.strangers.contains_key(user) || self.strangers.len() < max
    }

    /// Looks again at what waited for what was learned.
    fn learned(&mut self, now: Position, view: &StreamView) {
        for (since, incoming) in core::mem::take(&mut self.waiting) {
            let is_lost = now >= since.after(SKEW_MS);
            if !is_lost {
                self.admit(now, view, incoming);
            }
        }
        let keys: Vec<_> = self.open.keys().copied().collect();
        for key in keys {
            self.wake_in_turn(key, now);
        }
    }
}

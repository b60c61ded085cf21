//! Answers who asks for keys of one stream.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Add;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sealcast_bus::{Item, Listener, Offset, Tail};
use sealcast_engine::{
    AskBody, ControlTopic, Decision as Said, Handout, Question as Asked, Responder, ResponderInput,
    ResponderLimits, ResponderOutput, wrap_handout,
};
use sealcast_protocol::{DeviceId, RefusalReason, Standing, StreamTopics, UserId, Want};
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::sleep;

use super::policy::{AskedFor, AskerStanding, Decision, Policy, Question};
use super::{PAUSE, until};
use crate::blocking::off_thread;
use crate::clock;
use crate::core::{Core, READ_BYTES, put_off};
use crate::error::Error;
use crate::home::topic;

/// Users that the access log does not name whose device lists are read, where somebody decides.
const STRANGERS_MAX: usize = 64;
/// How long to wait before a yes that could not be written is written.
const RETRY: Duration = Duration::from_secs(5);
/// Items of an inbox that are looked at, at most, before those that come.
const INBOX_ITEMS: u64 = 256;
/// Bytes of a device list that are read at once.
const LIST_BYTES: usize = READ_BYTES;
/// Requests that somebody decides about at a time, at most, and of one user. Who asks more is told to
/// wait.
const DECIDING_MAX: usize = 1_024;
const DECIDING_OF_USER_MAX: usize = 8;

/// How to answer.
#[derive(Clone, Debug)]
pub struct AnswerOptions {
    /// Who decides.
    pub policy: Policy,
    /// Requests of one user that are taken a second.
    pub max_key_requests_per_second: u32,
}

impl Default for AnswerOptions {
    fn default() -> Self {
        let limits = ResponderLimits::default();
        Self {
            policy: Policy::log(),
            max_key_requests_per_second: limits.max_key_requests_per_second,
        }
    }
}

impl AnswerOptions {
    fn limits(&self) -> ResponderLimits {
        let strangers_max = match self.policy.is_log() {
            true => 0,
            false => STRANGERS_MAX,
        };
        ResponderLimits {
            max_key_requests_per_second: self.max_key_requests_per_second,
            strangers_max,
            ..ResponderLimits::default()
        }
    }
}

/// Answers requests for keys until it is dropped; made by
/// [`Stream::answer`](crate::Stream::answer).
#[derive(Debug)]
pub struct Answering {
    counts: Arc<Counts>,
    task: AbortHandle,
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What an [`Answering`] came to so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answered {
    /// Requests that this device had something to say to.
    pub requests: u64,
    /// Bundles of keys that were given.
    pub bundles: u64,
    /// Refusals: the access log does not entitle who asked.
    pub not_entitled: u64,
    /// Refusals: the session is not known here.
    pub unknown_session: u64,
    /// Refusals: somebody was asked who decides later.
    pub pending_approval: u64,
    /// Grants that decisions wrote.
    pub grants: u64,
    /// How often store or bus failed.
    pub faults: u64,
}

/// What two of them came to.
impl Add for Answered {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            bundles: self.bundles + other.bundles,
            not_entitled: self.not_entitled + other.not_entitled,
            unknown_session: self.unknown_session + other.unknown_session,
            pending_approval: self.pending_approval + other.pending_approval,
            grants: self.grants + other.grants,
            faults: self.faults + other.faults,
        }
    }
}

#[derive(Debug, Default)]
struct Counts {
    requests: AtomicU64,
    bundles: AtomicU64,
    not_entitled: AtomicU64,
    unknown_session: AtomicU64,
    pending_approval: AtomicU64,
    grants: AtomicU64,
    faults: AtomicU64,
}

impl Counts {
    fn of(&self, reason: RefusalReason) -> &AtomicU64 {
        match reason {
            RefusalReason::NotEntitled => &self.not_entitled,
            RefusalReason::UnknownSession => &self.unknown_session,
            RefusalReason::PendingApproval => &self.pending_approval,
        }
    }
}

fn count(of: &AtomicU64) {
    of.fetch_add(1, Ordering::Relaxed);
}

impl Answering {
    /// Begins to answer. Whoever asks after this has returned is heard.
    pub(crate) async fn start(core: Arc<Core>, options: AnswerOptions) -> Result<Self, Error> {
        let counts = Arc::<Counts>::default();
        let mut driver = Driver {
            core,
            limits: options.limits(),
            policy: options.policy,
            counts: counts.clone(),
            machine: None,
            todo: VecDeque::new(),
            ears: None,
            followed: BTreeMap::new(),
            inboxes: None,
            deciding: JoinSet::new(),
            deciders: BTreeMap::new(),
        };
        driver.listen().await?;
        let task = tokio::spawn(driver.run()).abort_handle();
        Ok(Self { counts, task })
    }

    /// What it came to so far.
    pub fn answered(&self) -> Answered {
        let read = |of: &AtomicU64| of.load(Ordering::Relaxed);
        Answered {
            requests: read(&self.counts.requests),
            bundles: read(&self.counts.bundles),
            not_entitled: read(&self.counts.not_entitled),
            unknown_session: read(&self.counts.unknown_session),
            pending_approval: read(&self.counts.pending_approval),
            grants: read(&self.counts.grants),
            faults: read(&self.counts.faults),
        }
    }
}

/// What happens to the machine.
enum Input {
    Item(Vec<u8>),
    InboxItems(Vec<Item>),
    Decided(Asked, Said),
    Learned,
    Tick,
}

/// What was decided, and who asked.
type Decided = (Asked, Question, Decision);

/// What is to be done, in order.
enum Todo {
    Do(ResponderOutput),
    /// Bring the view up to date, and say so.
    Learn,
    Decided(Decided),
}

struct Ears {
    ask: Box<dyn Listener>,
    control: Box<dyn Tail>,
    topics: usize,
}

struct Driver {
    core: Arc<Core>,
    limits: ResponderLimits,
    policy: Policy,
    counts: Arc<Counts>,
    machine: Option<Box<Responder>>,
    todo: VecDeque<Todo>,
    ears: Option<Ears>,
    /// Devices whose inboxes are followed, and where to read on in each.
    followed: BTreeMap<DeviceId, Offset>,
    inboxes: Option<Box<dyn Tail>>,
    deciding: JoinSet<Decided>,
    /// About whose requests somebody decides.
    deciders: BTreeMap<Id, UserId>,
}

impl Driver {
    async fn run(mut self) {
        loop {
            if self.go_on().await.is_err() {
                count(&self.counts.faults);
                self.ears = None;
                self.inboxes = None;
                sleep(PAUSE).await;
            }
        }
    }

    async fn go_on(&mut self) -> Result<(), Error> {
        while let Some(todo) = self.todo.pop_front() {
            self.perform(todo).await?;
        }
        self.listen().await?;
        self.follow()?;
        if let Some(input) = self.wait().await? {
            self.step(input).await?;
        }
        Ok(())
    }

    /// Listens to the `ask` topic and follows the control topics.
    async fn listen(&mut self) -> Result<(), Error> {
        if self.ears.is_some() {
            return Ok(());
        }
        let ask = topic(&StreamTopics(self.core.id()).ask())?;
        let ask = self.core.bus.listen(Vec::from([ask])).await?;
        self.core.sync().await?;
        let topics = self.core.control_places().await?;
        self.ears = Some(Ears {
            ask,
            topics: topics.len(),
            control: self.core.bus.tail(topics),
        });
        self.todo.push_back(Todo::Learn);
        Ok(())
    }

    /// Follows the inboxes that the machine wants followed.
    fn follow(&mut self) -> Result<(), Error> {
        if self.inboxes.is_none() && !self.followed.is_empty() {
            let places = self.followed.iter();
            let places = places.map(|(device, at)| Ok((topic(&device.inbox_topic())?, *at)));
            let places = places.collect::<Result<Vec<_>, Error>>()?;
            self.inboxes = Some(self.core.bus.tail(places));
        }
        Ok(())
    }

    /// Waits until something happens; nothing comes of what only is to be done.
    async fn wait(&mut self) -> Result<Option<Input>, Error> {
        if !self.todo.is_empty() {
            return Ok(None);
        }
        let timeout = self.machine.as_ref().and_then(|of| of.next_timeout());
        let Some(ears) = &mut self.ears else {
            return Ok(None);
        };
        let inboxes = async {
            match &mut self.inboxes {
                Some(inboxes) => inboxes.next().await,
                None => std::future::pending().await,
            }
        };
        let decided = async {
            match self.deciding.join_next_with_id().await {
                Some(decided) => decided,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            item = ears.ask.next() => Ok(Some(Input::Item(item?.1))),
            news = ears.control.next() => {
                drop(news?);
                self.todo.push_back(Todo::Learn);
                Ok(None)
            }
            items = inboxes => {
                let (of, items) = items?;
                self.note_read(of.as_ref(), &items);
                Ok(Some(Input::InboxItems(items)))
            }
            decided = decided => {
                let id = decided.as_ref().map_or_else(|failed| failed.id(), |of| of.0);
                self.deciders.remove(&id);
                let decided = decided.into_iter().map(|of| Todo::Decided(of.1));
                self.todo.extend(decided);
                Ok(None)
            }
            () = until(&self.core, timeout) => Ok(Some(Input::Tick)),
        }
    }

    fn note_read(&mut self, topic: &str, items: &[Item]) {
        let Some(last) = items.last() else {
            return;
        };
        for (device, at) in &mut self.followed {
            if device.inbox_topic() == topic {
                *at = Offset(last.offset.0.saturating_add(1));
            }
        }
    }

    /// Hands something in, off the runtime's threads, and notes what is to be done about it.
    async fn step(&mut self, input: Input) -> Result<(), Error> {
        let (core, limits) = (self.core.clone(), self.limits);
        let machine = self.machine.take();
        let done = off_thread(move || {
            let mut machine = machine.unwrap_or_else(|| Box::new(Responder::new(limits)));
            hand_in(&core, &mut machine, input);
            let outputs: Vec<_> = std::iter::from_fn(|| machine.poll_output()).collect();
            (machine, outputs)
        });
        let (machine, outputs) = done.await?;
        self.machine = Some(machine);
        self.todo.extend(outputs.into_iter().map(Todo::Do));
        Ok(())
    }

    async fn perform(&mut self, todo: Todo) -> Result<(), Error> {
        match todo {
            Todo::Learn => {
                let learned = self.learn().await;
                if learned.is_err() {
                    self.todo.push_front(Todo::Learn);
                    return learned;
                }
                self.step(Input::Learned).await
            }
            Todo::Decided(decided) => self.conclude(decided).await,
            Todo::Do(output) => match output {
                ResponderOutput::Send(body) => {
                    if let AskBody::Refusal(refusal) = &body {
                        count(self.counts.of(refusal.reason));
                    }
                    self.core.send_ask(body).await
                }
                ResponderOutput::Decide(asked) => {
                    count(&self.counts.requests);
                    self.decide(asked);
                    Ok(())
                }
                ResponderOutput::Give(handout) => {
                    let fresh = self.core.freshen().await;
                    if fresh.is_err() {
                        let give = ResponderOutput::Give(handout);
                        self.todo.push_front(Todo::Do(give));
                        return fresh;
                    }
                    self.give(handout).await
                }
                ResponderOutput::Follow(device) => self.begin_to_follow(device).await,
                ResponderOutput::Unfollow(device) => {
                    self.followed.remove(&device);
                    self.inboxes = None;
                    Ok(())
                }
                ResponderOutput::ReadList(user) => {
                    self.core.read_list(user).await?;
                    self.step(Input::Learned).await
                }
            },
        }
    }

    /// Brings the view up to date, and hands out what is due without being asked.
    async fn learn(&mut self) -> Result<(), Error> {
        self.core.sync().await?;
        put_off(self.core.share_owed().await)?;
        let wanted = self.core.view().wanted().len();
        if self.ears.as_ref().is_some_and(|of| of.topics != wanted) {
            let topics = self.core.control_places().await?;
            if let Some(ears) = &mut self.ears {
                ears.topics = topics.len();
                ears.control = self.core.bus.tail(topics);
            }
        }
        Ok(())
    }

    fn decide(&mut self, asked: Asked) {
        let want = |(want, said): &(Want, Said)| AskedFor {
            lane: want.lane,
            session: (want.session != Want::EVERY_SESSION).then_some(want.session),
            interval: want.interval,
            refused: match said {
                Said::Give => None,
                Said::Refuse(reason) => Some(*reason),
            },
        };
        let question = Question {
            stream: self.core.id(),
            name: self.core.name.clone(),
            user: asked.user,
            device: asked.asker,
            request: asked.request,
            wants: asked.wants.iter().map(want).collect(),
            standing: self.core.standing(&asked.user),
        };
        let of_user = self.deciders.values().filter(|of| **of == asked.user);
        let is_free = of_user.count() < DECIDING_OF_USER_MAX && self.deciders.len() < DECIDING_MAX;
        if !is_free && !self.policy.is_log() {
            let later = Decision::Refuse(RefusalReason::PendingApproval);
            self.todo.push_back(Todo::Decided((asked, question, later)));
            return;
        }
        let deciding = self.policy.decide(question.clone());
        self.remember(
            question.user,
            async move { (asked, question, deciding.await) },
        );
    }

    fn remember(&mut self, user: UserId, deciding: impl Future<Output = Decided> + Send + 'static) {
        let id = self.deciding.spawn(deciding).id();
        self.deciders.insert(id, user);
    }

    /// Does what was decided, by what the log says now. A yes beyond it is a grant.
    async fn conclude(&mut self, (asked, question, decision): Decided) -> Result<(), Error> {
        let fresh = self.core.freshen().await;
        if fresh.is_err() {
            self.todo
                .push_front(Todo::Decided((asked, question, decision)));
            return fresh;
        }
        let said = match decision {
            Decision::ByLog => Said::Give,
            Decision::Grant => match self.core.grant_asked(&question).await {
                Ok(grants) => {
                    let of = &self.counts.grants;
                    of.fetch_add(grants as u64, Ordering::Relaxed);
                    Said::Give
                }
                // The log says no, and so does this device.
                Err(Error::NotAllowed(_) | Error::Forked) => Said::Give,
                Err(_) => {
                    count(&self.counts.faults);
                    // A yes is not lost: it is written when the bus takes it.
                    self.remember(question.user, async move {
                        sleep(RETRY).await;
                        (asked, question, decision)
                    });
                    return Ok(());
                }
            },
            Decision::Refuse(reason) => Said::Refuse(reason),
        };
        self.step(Input::Learned).await?;
        self.step(Input::Decided(asked, said)).await
    }

    /// Gives keys, if that is allowed at this moment.
    async fn give(&mut self, handout: Handout) -> Result<(), Error> {
        let inbox = topic(&handout.device.inbox_topic())?;
        let core = self.core.clone();
        let wrapped = off_thread(move || {
            let (view, identity) = (core.view(), core.identity());
            let bundle = wrap_handout(&view, identity, &mut clock::rng(), &handout);
            bundle.map(|bundle| bundle.map(|of| of.wire().to_vec()))
        });
        let wrapped = wrapped.await?;
        let wrapped = wrapped.map_err(|_| Error::Internal("a bundle is odd"))?;
        if let Some(wrapped) = wrapped {
            self.core.bus.append(&inbox, Vec::from([wrapped])).await?;
            count(&self.counts.bundles);
        }
        Ok(())
    }

    /// An inbox that cannot be read costs a bundle that was not needed.
    async fn begin_to_follow(&mut self, device: DeviceId) -> Result<(), Error> {
        let end = self.core.bus.end(&topic(&device.inbox_topic())?).await?;
        let from = Offset(end.0.saturating_sub(INBOX_ITEMS));
        self.followed.insert(device, from);
        self.inboxes = None;
        Ok(())
    }
}

fn hand_in(core: &Core, machine: &mut Responder, input: Input) {
    let input = match &input {
        Input::Item(bytes) => ResponderInput::Item(bytes),
        Input::InboxItems(items) => {
            for item in items {
                let item = ResponderInput::InboxItem(&item.payload);
                machine.handle(core.now(), &core.view(), item);
            }
            return;
        }
        Input::Decided(asked, decision) => ResponderInput::Decided {
            asker: asked.asker,
            request: asked.request,
            decision: *decision,
        },
        Input::Learned => ResponderInput::Learned,
        Input::Tick => ResponderInput::Tick,
    };
    machine.handle(core.now(), &core.view(), input);
}

impl Core {
    /// What the access log has of somebody who asks.
    fn standing(&self, user: &UserId) -> AskerStanding {
        let view = self.view();
        let grants = view.state().grants().iter();
        let mut standings = grants.filter(|of| of.grant.user == *user);
        match standings.clone().next() {
            None => AskerStanding::Stranger,
            Some(_) if standings.any(|of| of.standing == Standing::Counts) => {
                AskerStanding::Granted
            }
            Some(_) => AskerStanding::Revoked,
        }
    }

    /// Reads the device list of a user whom the access log does not name.
    pub(crate) async fn read_list(self: &Arc<Self>, user: UserId) -> Result<(), Error> {
        let of = ControlTopic::Devices(user);
        let list = topic(&of.name(self.id()))?;
        let items = self.bus.read(&list, Offset(0), LIST_BYTES).await?;
        let core = self.clone();
        off_thread(move || {
            for item in &items {
                core.view().handle(&of, &item.payload);
            }
            core.view().settle();
        })
        .await
    }
}

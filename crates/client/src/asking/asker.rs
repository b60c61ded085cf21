//! Asks for what is missing in one stream.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use rand_core::Rng as _;
use sealcast_bus::{Item, Offset, Tail};
use sealcast_crypto::UnwrapKey;
use sealcast_engine::{
    Alarm, AskerEvent, AskerOutput, CombinerEvent, Event, Missing, OneUse, Pace,
};
use sealcast_protocol::{
    Header, Interval, NodeRequest, Position, RequestId, SessionId, UserId, Verified, Want,
};
use tokio::sync::{Notify, broadcast, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::machines::{Machines, NodesOutput, Out};
use super::{AskingEvent, PAUSE, until};
use crate::blocking::off_thread;
use crate::clock;
use crate::core::{Core, lock};
use crate::error::Error;
use crate::home::topic;

/// Things that were told and not taken in yet, at most, of each kind. What is lost is told again when
/// it is missed again.
const PENDING_MAX: usize = 16_384;
/// Readings in a second for sessions of which no segment records are known, and at once.
const LOOKS_PER_SECOND: u32 = 1;
const LOOKS_AT_ONCE: u32 = 8;
/// Events that wait for whoever made a request.
const EVENTS_MAX: usize = 4_096;

/// Where the one [`Asking`] of a stream is found, while there is one.
#[derive(Debug, Default)]
pub(crate) struct AskingSlot(Mutex<Weak<Asking>>);

/// Asks for as long as somebody holds it.
#[derive(Debug)]
pub(crate) struct Asking {
    feed: Arc<Feed>,
    task: AbortHandle,
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Between those who lack keys and the task that asks.
#[derive(Debug)]
struct Feed {
    pending: Mutex<Pending>,
    news: Notify,
    has_wants: AtomicBool,
    answers: watch::Sender<u64>,
    events: broadcast::Sender<AskingEvent>,
}

#[derive(Debug, Default)]
struct Pending {
    /// What somebody began to wait for, or waits for no more.
    wants: Vec<(Want, bool)>,
    /// How many wait for each.
    waiting: BTreeMap<Want, usize>,
    /// What key nodes alone are asked for.
    unlocks: Vec<Want>,
    missing: VecDeque<Want>,
    opened: VecDeque<(SessionId, Position)>,
}

impl Core {
    /// What asks in this stream; it begins when it is first needed. Must be called on a runtime.
    pub(crate) fn asking(self: &Arc<Self>) -> Arc<Asking> {
        let mut slot = lock(&self.asking.0);
        if let Some(asking) = slot.upgrade() {
            return asking;
        }
        let feed = Arc::new(Feed {
            pending: Mutex::default(),
            news: Notify::new(),
            has_wants: AtomicBool::new(false),
            answers: watch::Sender::new(0),
            events: broadcast::Sender::new(EVENTS_MAX),
        });
        let driver = Driver {
            core: self.clone(),
            feed: feed.clone(),
            machine: None,
            todo: VecDeque::new(),
            inbox: None,
            inbox_at: None,
            draw_at: None,
            nodes_draw_at: None,
            rereads: false,
            looks: Pace::new(LOOKS_PER_SECOND, LOOKS_AT_ONCE),
            looked_for: BTreeSet::new(),
            began: Instant::now(),
        };
        let task = tokio::spawn(driver.run()).abort_handle();
        let asking = Arc::new(Asking { feed, task });
        *slot = Arc::downgrade(&asking);
        asking
    }
}

impl Asking {
    /// Tells what became of an envelope.
    pub(crate) fn note(&self, event: &Event) {
        match event {
            Event::Opened { header, .. } => self.opened(header.session, header.position),
            Event::Sealed {
                header,
                user,
                is_granted: true,
                ..
            } => self.miss(at(header, user)),
            Event::Rejected {
                header: Some(header),
                user: Some(user),
                givers,
                ..
            } if !givers.is_empty() => self.miss(at(header, user)),
            Event::Sealed { .. }
            | Event::Rejected { .. }
            | Event::Noticed { .. }
            | Event::BadCover { .. } => (),
        }
    }

    /// Tells of what waits for keys that the log gives, as often as somebody looks.
    pub(crate) fn lack(&self, missing: Vec<Missing>) {
        for of in missing.into_iter().filter(|of| of.is_granted) {
            self.miss(Want {
                lane: of.lane,
                session: of.session,
                interval: of.interval,
            });
        }
    }

    /// Tells of envelopes whose signatures hold and that did not open.
    fn miss(&self, missing: Want) {
        let mut pending = lock(&self.feed.pending);
        if pending.missing.len() < PENDING_MAX && pending.missing.back() != Some(&missing) {
            pending.missing.push_back(missing);
            self.feed.has_wants.store(true, Ordering::Relaxed);
            self.feed.news.notify_one();
        }
    }

    /// Tells of an envelope that opened. Costs next to nothing while nothing is wanted.
    pub(crate) fn opened(&self, session: SessionId, position: Position) {
        if !self.feed.has_wants.load(Ordering::Relaxed) {
            return;
        }
        let opened = (session, position);
        let mut pending = lock(&self.feed.pending);
        if pending.opened.len() < PENDING_MAX && pending.opened.back() != Some(&opened) {
            pending.opened.push_back(opened);
            self.feed.news.notify_one();
        }
    }

    /// Asks for something at once, and again until what this returns is dropped.
    pub(super) fn want(self: &Arc<Self>, wants: impl IntoIterator<Item = Want>) -> Wanting {
        let wants: Vec<_> = wants.into_iter().collect();
        let mut pending = lock(&self.feed.pending);
        for want in &wants {
            *pending.waiting.entry(*want).or_default() += 1;
            pending.wants.push((*want, true));
        }
        self.feed.has_wants.store(true, Ordering::Relaxed);
        self.feed.news.notify_one();
        drop(pending);
        Wanting {
            asking: self.clone(),
            wants,
        }
    }

    fn unwant(&self, wants: &[Want]) {
        let mut pending = lock(&self.feed.pending);
        for want in wants {
            let waiting = pending.waiting.get_mut(want);
            let left = waiting.map_or(0, |count| {
                *count -= 1;
                *count
            });
            if left == 0 {
                pending.waiting.remove(want);
                pending.wants.push((*want, false));
            }
        }
        self.feed.news.notify_one();
    }

    /// Asks key nodes for something, once, and nobody else.
    pub(super) fn unlock(&self, wants: impl IntoIterator<Item = Want>) {
        let mut pending = lock(&self.feed.pending);
        pending.unlocks.extend(wants);
        self.feed.has_wants.store(true, Ordering::Relaxed);
        self.feed.news.notify_one();
    }

    /// Changes whenever keys that were asked for have come.
    pub(crate) fn answers(&self) -> watch::Receiver<u64> {
        self.feed.answers.subscribe()
    }

    /// What becomes of what is wanted, from now on.
    pub(super) fn events(&self) -> broadcast::Receiver<AskingEvent> {
        self.feed.events.subscribe()
    }
}

/// Somebody waits for keys that were asked for.
pub(super) struct Wanting {
    asking: Arc<Asking>,
    wants: Vec<Want>,
}

impl Drop for Wanting {
    fn drop(&mut self) {
        self.asking.unwant(&self.wants);
    }
}

impl Feed {
    /// Notes whether anything is wanted, here or where what was told comes to.
    fn note_wants(&self, has_wants: bool) {
        let pending = lock(&self.pending);
        let is_told =
            !pending.wants.is_empty() || !pending.missing.is_empty() || !pending.unlocks.is_empty();
        self.has_wants
            .store(has_wants || is_told, Ordering::Relaxed);
    }

    fn take(&self) -> Vec<Input> {
        let (wants, unlocks, missing, opened) = {
            let mut pending = lock(&self.pending);
            let wants = std::mem::take(&mut pending.wants);
            let unlocks = std::mem::take(&mut pending.unlocks);
            let missing = std::mem::take(&mut pending.missing);
            let opened = std::mem::take(&mut pending.opened);
            (wants, unlocks, missing, opened)
        };
        let unlocks = unlocks.into_iter().map(Input::Unlock);
        let wants = wants.into_iter().map(|(want, is_wanted)| match is_wanted {
            true => Input::Want(want),
            false => Input::Unwant(want),
        });
        let missing = (!missing.is_empty()).then_some(Input::Missing(missing));
        let opened = opened.into_iter().map(|(of, at)| Input::Opened(of, at));
        wants.chain(unlocks).chain(missing).chain(opened).collect()
    }
}

/// What happens to the machines.
pub(super) enum Input {
    Want(Want),
    Unwant(Want),
    Unlock(Want),
    Missing(VecDeque<Want>),
    Opened(SessionId, Position),
    Draw,
    DrawForNodes,
    Signed(Box<Verified<NodeRequest>>),
    InboxItems(Vec<Item>),
    Reread,
    Tick,
}

/// What is to be done, in order.
enum Todo {
    Do(Out),
    /// Make durable what the view has learned.
    Keep,
}

struct Driver {
    core: Arc<Core>,
    feed: Arc<Feed>,
    machine: Option<Box<Machines>>,
    todo: VecDeque<Todo>,
    /// The inbox of this device, while a request is open.
    inbox: Option<Box<dyn Tail>>,
    /// Where to read on in it.
    inbox_at: Option<Offset>,
    /// When the home's turn comes for the request that is to be drawn up.
    draw_at: Option<Instant>,
    nodes_draw_at: Option<Instant>,
    /// Whether records of key nodes are to be read again.
    rereads: bool,
    /// How often the control topics may be read for sessions of which no segment records are known, and those for
    /// which they were.
    looks: Pace,
    looked_for: BTreeSet<SessionId>,
    began: Instant,
}

impl Driver {
    async fn run(mut self) {
        loop {
            if self.go_on().await.is_err() {
                // What follows an inbox and has failed is made anew.
                self.inbox = None;
                sleep(PAUSE).await;
                // Whatever the bus does, a request ends in time, and its key with it.
                let _ended = self.step(Vec::from([Input::Tick])).await;
            }
        }
    }

    async fn go_on(&mut self) -> Result<(), Error> {
        while let Some(todo) = self.todo.pop_front() {
            self.perform(todo).await?;
        }
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= Instant::now());
        if is_due(self.nodes_draw_at) {
            self.prepare_draw().await?;
            self.nodes_draw_at = None;
            return self.step(Vec::from([Input::DrawForNodes])).await;
        }
        if is_due(self.draw_at) {
            self.prepare_draw().await?;
            self.draw_at = None;
            return self.step(Vec::from([Input::Draw])).await;
        }
        if self.rereads {
            self.core.sync().await?;
            self.rereads = false;
            return self.step(Vec::from([Input::Reread])).await;
        }
        self.fit_inbox().await?;
        let inputs = self.wait().await?;
        self.learn_sessions(&inputs).await;
        self.step(inputs).await
    }

    async fn wait(&mut self) -> Result<Vec<Input>, Error> {
        let timeout = self.machine.as_ref().and_then(|of| of.next_timeout());
        let heard = async {
            match &mut self.inbox {
                Some(inbox) => inbox.next().await,
                None => std::future::pending().await,
            }
        };
        let draw_at = self.draw_at.into_iter().chain(self.nodes_draw_at).min();
        let turn = async {
            match draw_at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.feed.news.notified() => Ok(self.feed.take()),
            heard = heard => Ok(Vec::from([Input::InboxItems(heard?.1)])),
            () = until(&self.core, timeout) => Ok(Vec::from([Input::Tick])),
            () = turn => Ok(Vec::new()),
        }
    }

    /// Reads what is new where something is missing of a session of which no segment records are known, once for
    /// each: messages may come before what was published ahead of them. Where that fails, or was done often,
    /// others are asked.
    async fn learn_sessions(&mut self, inputs: &[Input]) {
        let missing = inputs.iter().filter_map(|input| {
            let (Input::Want(want) | Input::Unlock(want)) = input else {
                return None;
            };
            Some(std::slice::from_ref(want))
        });
        let told = inputs.iter().filter_map(|input| {
            let Input::Missing(missing) = input else {
                return None;
            };
            Some(missing.iter())
        });
        let sessions: BTreeSet<_> = missing
            .flatten()
            .chain(told.flatten())
            .map(|want| want.session)
            .filter(|session| *session != Want::EVERY_SESSION && !self.looked_for.contains(session))
            .collect();
        let unknown: Vec<_> = {
            let view = self.core.view();
            let has_nodes = view.state().key_nodes().is_some();
            let unknown = sessions.into_iter();
            unknown
                .filter(|session| has_nodes && view.segment_records(session) == 0)
                .collect()
        };
        let ms = self.began.elapsed().as_millis();
        let now = Position(u64::try_from(ms).unwrap_or(u64::MAX));
        if !unknown.is_empty() && self.looks.take(now) {
            if self.looked_for.len() >= PENDING_MAX {
                self.looked_for.clear();
            }
            self.looked_for.extend(unknown);
            let _is_read = self.core.sync().await.is_ok();
        }
    }

    /// Hands something in, off the runtime's threads, and notes what is to be done about it.
    async fn step(&mut self, inputs: Vec<Input>) -> Result<(), Error> {
        for input in &inputs {
            if let Input::InboxItems(items) = input
                && let Some(last) = items.last()
            {
                self.inbox_at = Some(Offset(last.offset.0.saturating_add(1)));
            }
        }
        let core = self.core.clone();
        let machine = self.machine.take();
        let mut machine = machine.unwrap_or_else(|| Box::new(Machines::new(&core.home.asking())));
        let done = off_thread(move || {
            for input in inputs {
                machine.hand_in(&core, input);
            }
            let outputs: Vec<_> = std::iter::from_fn(|| machine.poll_output(&core)).collect();
            (machine, outputs)
        });
        let (machine, outputs) = done.await?;
        self.feed.note_wants(machine.has_wants());
        self.machine = Some(machine);
        self.todo.extend(outputs.into_iter().map(Todo::Do));
        Ok(())
    }

    async fn perform(&mut self, todo: Todo) -> Result<(), Error> {
        match todo {
            Todo::Keep => {
                let kept = self.core.keep_learned().await;
                if kept.is_err() {
                    self.todo.push_front(Todo::Keep);
                    return kept;
                }
                self.feed.answers.send_modify(|count| *count += 1);
                Ok(())
            }
            Todo::Do(Out::Asker(AskerOutput::Draw)) => {
                self.draw_at = Some(self.core.home.reserve_request());
                Ok(())
            }
            // What the bus does not take is lost, as all may be that is sent there.
            Todo::Do(Out::Asker(AskerOutput::Send(body))) => self.core.send_ask(body).await,
            Todo::Do(Out::Asker(AskerOutput::Take(answer))) => {
                self.todo.push_front(Todo::Keep);
                let core = self.core.clone();
                off_thread(move || core.view().take_answer(answer)).await
            }
            Todo::Do(Out::Asker(AskerOutput::Tell(event))) => {
                if let AskerEvent::BadAnswer { giver, .. } = &event {
                    self.core.tell([Alarm::BadKeys(giver.0, giver.1)]);
                }
                self.tell(AskingEvent::Asker(event));
                Ok(())
            }
            Todo::Do(Out::Nodes(output)) => self.perform_for_nodes(output).await,
            Todo::Do(Out::Left(want)) => {
                self.tell(AskingEvent::Left(want));
                Ok(())
            }
        }
    }

    fn tell(&self, event: AskingEvent) {
        self.core.home.asked.note(self.core.id(), &event);
        // Nobody may be waiting for it.
        let _heard = self.feed.events.send(event);
    }

    /// Does what has to do with key nodes.
    async fn perform_for_nodes(&mut self, output: NodesOutput) -> Result<(), Error> {
        match output {
            NodesOutput::Draw => {
                self.nodes_draw_at = Some(self.core.home.reserve_request());
                Ok(())
            }
            NodesOutput::Sign(body) => {
                let asked = self.core.sign_node_request(*body).await?;
                let signed = Input::Signed(Box::new(asked));
                self.step(Vec::from([signed])).await
            }
            NodesOutput::Send(asked, devices) => {
                for device in devices {
                    // A node that does not hear it is one that is silent.
                    let _sent = self.core.put_into_inbox(device, asked.wire()).await;
                }
                Ok(())
            }
            NodesOutput::Take(released) => {
                self.todo.push_front(Todo::Keep);
                let core = self.core.clone();
                off_thread(move || core.view().take_released(released)).await
            }
            NodesOutput::Reread(records) => {
                self.rereads = true;
                let core = self.core.clone();
                off_thread(move || core.view().forget_false(&records)).await
            }
            NodesOutput::Tell(event) => {
                if let CombinerEvent::Liar(node) = &event {
                    self.core.tell([Alarm::FalseNode(node.user, node.device)]);
                }
                self.tell(AskingEvent::Nodes(event));
                Ok(())
            }
        }
    }

    /// What comes before a request is drawn up. What came by itself meanwhile is not asked for.
    async fn prepare_draw(&mut self) -> Result<(), Error> {
        self.core.sync().await?;
        self.follow_inbox().await
    }

    /// Follows the inbox while a request is open, and tidies up behind the last one.
    async fn fit_inbox(&mut self) -> Result<(), Error> {
        let open = self.machine.as_ref().map_or(0, |of| of.open_requests());
        if open > 0 {
            return self.follow_inbox().await;
        }
        if self.inbox.take().is_some() {
            self.inbox_at = None;
            // What is left there is removed another time.
            let _trimmed = self.core.trim_inbox().await;
        }
        Ok(())
    }

    async fn follow_inbox(&mut self) -> Result<(), Error> {
        if self.inbox.is_some() {
            return Ok(());
        }
        let inbox = topic(&self.core.identity().device().inbox_topic())?;
        let at = match self.inbox_at {
            Some(at) => at,
            // Whatever lies there was given to requests that are over.
            None => self.core.bus.end(&inbox).await?,
        };
        self.inbox_at = Some(at);
        self.inbox = Some(self.core.bus.tail(Vec::from([(inbox, at)])));
        Ok(())
    }
}

/// What an envelope lacks.
fn at(header: &Header, lane: &UserId) -> Want {
    Want {
        lane: *lane,
        session: header.session,
        interval: Interval {
            from: header.position,
            until: header.position.after(1),
        },
    }
}

/// Which of some intervals a position lies in.
pub(super) fn interval_around(of: &[Interval], position: Position) -> Option<Interval> {
    of.iter().find(|of| of.contains(position)).copied()
}

pub(super) fn draw() -> OneUse {
    let mut rng = clock::rng();
    let mut request = [0; 16];
    rng.fill_bytes(&mut request);
    OneUse {
        request: RequestId(request),
        key: UnwrapKey::generate(&mut rng),
    }
}

/// Whether anybody in a stream answers this device at all.
pub(super) fn lane_is_asked_for(core: &Core, lane: &UserId) -> bool {
    let view = core.view();
    let (me, device) = view.me();
    let state = view.state();
    !state.is_public()
        && (state.sharing() != sealcast_protocol::Sharing::Manual
            || state.is_keyholder(&me, &device, lane))
}

//! Being a key node of one stream.

use std::collections::VecDeque;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use sealcast_bus::{Item, Offset, Tail};
use sealcast_engine::{
    Releaser, ReleaserInput, ReleaserLimits, ReleaserOutput, StreamView, answer_request,
};
use sealcast_protocol::{AuditEntry, NodeRefusal, NodeRequest, Position, Verified, sign};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

use super::audit;
use super::counts::{Counts, ReleaseCounts};
use super::replies::{Replies, Reply};
use crate::asking::{PAUSE, until};
use crate::blocking::off_thread;
use crate::clock;
use crate::core::Core;
use crate::error::Error;
use crate::home::topic;
use crate::stream::Stream;

/// Items of the inbox that are looked at, at most, before those that come.
const INBOX_ITEMS: u64 = 4_096;
/// How often the inbox is trimmed, and control topics are looked at without being asked.
const TEND_EVERY: Duration = Duration::from_secs(60);

/// Releases keys as a key node of a stream until it is dropped; made by [`Stream::release`].
#[derive(Debug)]
pub struct Releasing {
    counts: Arc<Counts>,
    task: AbortHandle,
}

impl Drop for Releasing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How a key node begins.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct ReleaseOptions {
    /// The clock is right, says who runs it, though it is behind entries of the audit: it was ahead once.
    pub trusts_clock: bool,
}

impl Releasing {
    /// What it came to so far.
    pub fn counts(&self) -> ReleaseCounts {
        self.counts.read()
    }

    /// How far the clock is behind what the audit says of it, in milliseconds, where that is so far that
    /// nothing is released. Set the clock right; where it is and was ahead before, begin with
    /// [`trusts_clock`](ReleaseOptions::trusts_clock).
    pub fn clock_behind_ms(&self) -> Option<u64> {
        self.counts.clock_behind_ms()
    }

    /// Whether the bus showed less of access log and device lists, when it was last read, than it once
    /// did. Nothing is released while it does.
    pub fn is_bus_short(&self) -> bool {
        self.counts.is_bus_short()
    }

    /// Whether it has ended, which it does where its audit does not hold, and where something panicked while it
    /// changed what is known of the stream: then the stream has to be opened anew.
    pub fn has_ended(&self) -> bool {
        self.task.is_finished()
    }
}

impl Stream {
    /// Releases keys as a key node of the stream, as the access log says, for as long as the result is
    /// held. Whoever asks after this has returned is heard. One process of a home does this.
    ///
    /// # Errors
    ///
    /// Fails when the bus cannot be reached, or when the audit of what was done before does not hold.
    pub async fn release(&self) -> Result<Releasing, Error> {
        self.release_with(ReleaseOptions::default()).await
    }

    /// As [`release`](Self::release), and how to begin.
    ///
    /// # Errors
    ///
    /// As [`release`](Self::release).
    pub async fn release_with(&self, options: ReleaseOptions) -> Result<Releasing, Error> {
        let counts = Arc::<Counts>::default();
        let mut driver = Driver::new(self.core.clone(), counts.clone());
        driver.begin(options.trusts_clock).await?;
        driver.perform_all().await?;
        driver.follow_inbox().await?;
        let task = tokio::spawn(run_on(driver)).abort_handle();
        Ok(Releasing { counts, task })
    }
}

/// Runs a driver, and another from where the audit ends where that panicked: nobody else would.
async fn run_on(mut driver: Driver) {
    loop {
        let (core, counts) = (driver.core.clone(), driver.counts.clone());
        let mut task = JoinSet::new();
        task.spawn(driver.run());
        match task.join_next().await {
            Some(Err(error)) if error.is_panic() && core.is_view_sound() => counts.fault(),
            Some(_) | None => return,
        }
        sleep(PAUSE).await;
        driver = Driver::new(core, counts);
    }
}

enum Input {
    Items(Vec<Item>),
    LogRead(bool),
    Learned,
    Tick,
}

struct Driver {
    core: Arc<Core>,
    counts: Arc<Counts>,
    replies: Replies,
    machine: Option<Box<Releaser>>,
    todo: VecDeque<ReleaserOutput>,
    inbox: Option<Box<dyn Tail>>,
    inbox_at: Option<Offset>,
    tend_at: Instant,
}

impl Driver {
    fn new(core: Arc<Core>, counts: Arc<Counts>) -> Self {
        Self {
            replies: Replies::new(core.clone(), counts.clone()),
            core,
            counts,
            machine: None,
            todo: VecDeque::new(),
            inbox: None,
            inbox_at: None,
            tend_at: Instant::now(),
        }
    }

    async fn run(mut self) {
        loop {
            match self.go_on().await {
                Ok(()) => (),
                // Whoever altered it wants this node to go on. It does not.
                Err(Error::Audit(_)) => return,
                // What is known may be half of what it was to be, and a removal lie in the other half.
                Err(_) if !self.core.is_view_sound() => {
                    self.counts.fault();
                    return;
                }
                Err(_) => {
                    self.counts.fault();
                    self.inbox = None;
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Takes up where the audit ends.
    async fn begin(&mut self, trusts_clock: bool) -> Result<(), Error> {
        self.core.sync().await?;
        self.counts.set_shown(self.core.shows_all().await);
        let core = self.core.clone();
        let machine = off_thread(move || {
            let (chain, kept) = audit::read_end(&core)?;
            let limits = ReleaserLimits::default();
            let mut machine = Box::new(Releaser::new(limits, core.now(), chain, kept));
            if trusts_clock {
                machine.trust_clock();
            }
            let outputs: Vec<_> = std::iter::from_fn(|| machine.poll_output()).collect();
            Ok::<_, Error>((machine, outputs))
        });
        let (machine, outputs) = machine.await??;
        self.counts.set_clock(machine.clock_behind_ms());
        self.machine = Some(machine);
        self.todo = outputs.into();
        Ok(())
    }

    async fn go_on(&mut self) -> Result<(), Error> {
        if self.machine.is_none() {
            self.begin(false).await?;
        }
        self.perform_all().await?;
        if self.tend_at <= Instant::now() {
            self.tend_at = Instant::now() + TEND_EVERY;
            self.core.sync().await?;
            self.core.trim_inbox().await?;
            self.step(Input::Learned).await?;
        }
        self.follow_inbox().await?;
        let input = self.wait().await?;
        self.step(input).await
    }

    async fn follow_inbox(&mut self) -> Result<(), Error> {
        if self.inbox.is_some() {
            return Ok(());
        }
        let inbox = topic(&self.core.identity().device().inbox_topic())?;
        let at = match self.inbox_at {
            Some(at) => at,
            // What lies further back is over, and what was answered is remembered.
            None => Offset(
                self.core
                    .bus
                    .end(&inbox)
                    .await?
                    .0
                    .saturating_sub(INBOX_ITEMS),
            ),
        };
        self.inbox_at = Some(at);
        self.inbox = Some(self.core.bus.tail(Vec::from([(inbox, at)])));
        Ok(())
    }

    async fn wait(&mut self) -> Result<Input, Error> {
        let timeout = self.machine.as_ref().and_then(|of| of.next_timeout());
        let heard = async {
            match &mut self.inbox {
                Some(inbox) => inbox.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            heard = heard => {
                let items = heard?.1;
                if let Some(last) = items.last() {
                    self.inbox_at = Some(Offset(last.offset.0.saturating_add(1)));
                }
                Ok(Input::Items(items))
            }
            () = until(&self.core, timeout) => Ok(Input::Tick),
            () = sleep_until(self.tend_at) => Ok(Input::Tick),
        }
    }

    /// Hands something in, off the runtime's threads, and notes what is to be done about it.
    async fn step(&mut self, input: Input) -> Result<(), Error> {
        let Some(mut machine) = self.machine.take() else {
            return Ok(());
        };
        let core = self.core.clone();
        let done = off_thread(move || {
            hand_in(&core, &mut machine, input)?;
            let outputs: Vec<_> = std::iter::from_fn(|| machine.poll_output()).collect();
            Ok::<_, Error>((machine, outputs))
        });
        let (mut machine, outputs) = done.await??;
        for (reason, count) in machine.take_refused() {
            self.counts.refuse(reason, count);
        }
        self.counts.set_clock(machine.clock_behind_ms());
        self.machine = Some(machine);
        self.todo.extend(outputs);
        Ok(())
    }

    async fn perform_all(&mut self) -> Result<(), Error> {
        while let Some(output) = self.todo.pop_front() {
            self.perform(output).await?;
        }
        Ok(())
    }

    async fn perform(&mut self, output: ReleaserOutput) -> Result<(), Error> {
        let done = match &output {
            ReleaserOutput::ReadLog => self.read_log().await,
            ReleaserOutput::ReadList(user) => {
                // A request can have it read, and nobody else's waits for it. Who asked asks again.
                if self.core.read_list(*user).await.is_err() {
                    self.counts.fault();
                }
                self.step(Input::Learned).await
            }
            ReleaserOutput::Keep(entry) => self.keep(entry.clone()).await,
            ReleaserOutput::Release(asked) => self.release(asked).await,
            ReleaserOutput::Refuse(refusal, expires) => {
                self.refuse(refusal.clone(), *expires).await
            }
        };
        if done.is_err() {
            // In their order: what follows an entry that was not kept does not leave.
            self.todo.push_front(output);
        }
        done
    }

    async fn read_log(&mut self) -> Result<(), Error> {
        self.core.sync().await?;
        let is_whole = self.core.shows_all().await;
        self.counts.set_shown(is_whole);
        self.step(Input::LogRead(is_whole)).await
    }

    /// Keeps an audit entry. Where another process of this home wrote in its place, all that was
    /// decided here is void, and this begins anew behind that.
    async fn keep(&mut self, entry: AuditEntry) -> Result<(), Error> {
        let core = self.core.clone();
        let kept = off_thread(move || {
            let entry = sign(core.identity().signing(), entry);
            let entry = entry.map_err(|_| Error::Internal("an audit entry is odd"))?;
            core.vault().put_audit(entry.body(), entry.wire())
        });
        if !kept.await?? {
            self.machine = None;
            self.todo.clear();
            self.counts.fault();
        }
        Ok(())
    }

    async fn release(&mut self, asked: &Verified<NodeRequest>) -> Result<(), Error> {
        let (core, of) = (self.core.clone(), asked.clone());
        let answer = off_thread(move || {
            let (view, identity) = (sound_view(&core)?, core.identity());
            Ok::<_, Error>(answer_request(&view, identity, &mut clock::rng(), &of))
        });
        let Some(answer) = answer.await?? else {
            return Ok(());
        };
        let reply = Reply {
            wire: answer.wire().to_vec(),
            expires: asked.body().expires,
            released: Some(asked.body().segments.len() as u64),
        };
        self.replies.push(asked.body().device, reply);
        Ok(())
    }

    async fn refuse(&mut self, refusal: NodeRefusal, expires: Position) -> Result<(), Error> {
        let (core, to) = (self.core.clone(), refusal.to.asker);
        let signed = off_thread(move || sign(core.identity().signing(), refusal));
        let signed = signed.await?;
        let signed = signed.map_err(|_| Error::Internal("a refusal is odd"))?;
        let reply = Reply {
            wire: signed.wire().to_vec(),
            expires,
            released: None,
        };
        self.replies.push(to, reply);
        Ok(())
    }
}

/// What is known of the stream, unless something panicked while it changed that.
fn sound_view(core: &Core) -> Result<MutexGuard<'_, StreamView>, Error> {
    let view = core.view();
    match core.is_view_sound() {
        true => Ok(view),
        false => Err(Error::Internal(
            "what is known of a stream was left half changed",
        )),
    }
}

fn hand_in(core: &Core, machine: &mut Releaser, input: Input) -> Result<(), Error> {
    let view = sound_view(core)?;
    match input {
        Input::Items(items) => {
            for item in items {
                let item = ReleaserInput::Item(&item.payload);
                machine.handle(core.now(), &view, item);
            }
        }
        Input::LogRead(is_whole) => {
            machine.handle(core.now(), &view, ReleaserInput::LogRead { is_whole });
        }
        Input::Learned => machine.handle(core.now(), &view, ReleaserInput::Learned),
        Input::Tick => machine.handle(core.now(), &view, ReleaserInput::Tick),
    }
    Ok(())
}

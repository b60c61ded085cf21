//! Being a key node of one stream.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sealcast_bus::{Item, Offset, Tail};
use sealcast_engine::{Releaser, ReleaserInput, ReleaserLimits, ReleaserOutput, answer_request};
use sealcast_protocol::{AuditEntry, DeviceId, NodeRefusal, NodeRequest, Verified, sign};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::audit;
use crate::asking::{PAUSE, until};
use crate::blocking::off_thread;
use crate::clock;
use crate::core::Core;
use crate::error::Error;
use crate::home::topic;
use crate::stream::Stream;

/// Items of the inbox that are looked at, at most, before those that come.
const INBOX_ITEMS: u64 = 4_096;
/// Audit entries of which the requests may still be replayed, more than there can be.
const KEPT: usize = 65_536;
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

/// What a [`Releasing`] came to so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReleaseCounts {
    /// Requests that were answered.
    pub released: u64,
    /// Segments of them.
    pub segments: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// How often store or bus failed.
    pub faults: u64,
}

#[derive(Debug, Default)]
struct Counts {
    released: AtomicU64,
    segments: AtomicU64,
    refused: AtomicU64,
    faults: AtomicU64,
}

fn add(of: &AtomicU64, count: u64) {
    of.fetch_add(count, Ordering::Relaxed);
}

impl Releasing {
    /// What it came to so far.
    pub fn counts(&self) -> ReleaseCounts {
        let read = |of: &AtomicU64| of.load(Ordering::Relaxed);
        ReleaseCounts {
            released: read(&self.counts.released),
            segments: read(&self.counts.segments),
            refused: read(&self.counts.refused),
            faults: read(&self.counts.faults),
        }
    }

    /// Whether it has ended, which it does where its audit does not hold.
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
        let counts = Arc::<Counts>::default();
        let mut driver = Driver {
            core: self.core.clone(),
            counts: counts.clone(),
            machine: None,
            todo: VecDeque::new(),
            inbox: None,
            inbox_at: None,
            tend_at: Instant::now(),
        };
        driver.begin().await?;
        driver.perform_all().await?;
        driver.follow_inbox().await?;
        let task = tokio::spawn(driver.run()).abort_handle();
        Ok(Releasing { counts, task })
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
    machine: Option<Box<Releaser>>,
    todo: VecDeque<ReleaserOutput>,
    inbox: Option<Box<dyn Tail>>,
    inbox_at: Option<Offset>,
    tend_at: Instant,
}

impl Driver {
    async fn run(mut self) {
        loop {
            match self.go_on().await {
                Ok(()) => (),
                // Whoever altered it wants this node to go on. It does not.
                Err(Error::Audit(_)) => return,
                Err(_) => {
                    add(&self.counts.faults, 1);
                    self.inbox = None;
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Takes up where the audit ends.
    async fn begin(&mut self) -> Result<(), Error> {
        self.core.sync().await?;
        let core = self.core.clone();
        let machine = off_thread(move || {
            let (chain, kept) = audit::read(&core, KEPT)?;
            let limits = ReleaserLimits::default();
            let mut machine = Box::new(Releaser::new(limits, core.now(), chain, kept));
            let outputs: Vec<_> = std::iter::from_fn(|| machine.poll_output()).collect();
            Ok::<_, Error>((machine, outputs))
        });
        let (machine, outputs) = machine.await??;
        self.machine = Some(machine);
        self.todo = outputs.into();
        Ok(())
    }

    async fn go_on(&mut self) -> Result<(), Error> {
        if self.machine.is_none() {
            self.begin().await?;
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
            hand_in(&core, &mut machine, input);
            let outputs: Vec<_> = std::iter::from_fn(|| machine.poll_output()).collect();
            (machine, outputs)
        });
        let (machine, outputs) = done.await?;
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
                let read = self.core.read_list(*user).await;
                match read {
                    Ok(()) => self.step(Input::Learned).await,
                    failed => failed,
                }
            }
            ReleaserOutput::Keep(entry) => self.keep(entry.clone()).await,
            ReleaserOutput::Release(asked) => self.release(asked).await,
            ReleaserOutput::Refuse(refusal) => self.refuse(refusal.clone()).await,
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
        self.step(Input::LogRead(is_whole)).await
    }

    /// Keeps an audit entry. Where another process of this home wrote in its place, all that was
    /// decided here is void, and this begins anew behind that.
    async fn keep(&mut self, entry: AuditEntry) -> Result<(), Error> {
        let core = self.core.clone();
        let kept = off_thread(move || {
            let seq = entry.seq;
            let entry = sign(core.identity().signing(), entry);
            let entry = entry.map_err(|_| Error::Internal("an audit entry is odd"))?;
            core.vault().put_audit(&core.id(), seq, entry.wire())
        });
        if !kept.await?? {
            self.machine = None;
            self.todo.clear();
            add(&self.counts.faults, 1);
        }
        Ok(())
    }

    async fn release(&mut self, asked: &Verified<NodeRequest>) -> Result<(), Error> {
        let (core, of) = (self.core.clone(), asked.clone());
        let answer = off_thread(move || {
            let (view, identity) = (core.view(), core.identity());
            answer_request(&view, identity, &mut clock::rng(), &of)
        });
        let Some(answer) = answer.await? else {
            return Ok(());
        };
        let wire = answer.wire().to_vec();
        self.send(asked.body().device, wire).await?;
        add(&self.counts.released, 1);
        add(&self.counts.segments, asked.body().segments.len() as u64);
        Ok(())
    }

    async fn refuse(&mut self, refusal: NodeRefusal) -> Result<(), Error> {
        let (core, to) = (self.core.clone(), refusal.to.asker);
        let wire = off_thread(move || sign(core.identity().signing(), refusal));
        let wire = wire.await?;
        let wire = wire.map_err(|_| Error::Internal("a refusal is odd"))?;
        self.send(to, wire.wire().to_vec()).await?;
        add(&self.counts.refused, 1);
        Ok(())
    }

    async fn send(&mut self, to: DeviceId, wire: Vec<u8>) -> Result<(), Error> {
        let inbox = topic(&to.inbox_topic())?;
        self.core.bus.append(&inbox, Vec::from([wire])).await?;
        Ok(())
    }
}

fn hand_in(core: &Core, machine: &mut Releaser, input: Input) {
    let view = core.view();
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
}

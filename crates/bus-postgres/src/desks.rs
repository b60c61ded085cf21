//! A few connections, which calls take in turn, and how a call is made again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sealcast_bus::{Attempts, BusError};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};

use crate::fault::Fault;
use crate::session::Session;
use crate::settings::Settings;

/// How long one request waits for its answer, and for each MiB that goes with it.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_TIMEOUT_PER_MIB: Duration = Duration::from_secs(1);
/// Connections that calls are made over, at most. A server has a hundred, for everybody.
const DESKS: usize = 4;
/// A connection beyond the first is closed when nobody needed it for so long.
const IDLE: Duration = Duration::from_secs(60);

/// The connections of one handle.
#[derive(Debug)]
pub(crate) struct Desks {
    pub(crate) settings: Arc<Settings>,
    turns: Semaphore,
    /// The one that was used last comes last.
    idle: Mutex<Vec<Desk>>,
}

/// Where one call is made at a time.
#[derive(Debug)]
struct Desk {
    session: Option<Session>,
    /// When an answer that the session owes is late. Whoever asked may have gone away since.
    late_at: Option<Instant>,
    writer: [u8; 16],
    serial: i64,
    used: Instant,
}

/// Gives a desk back when the call is over, or given up.
struct Taken<'a> {
    desks: &'a Desks,
    desk: Option<Desk>,
    _turn: SemaphorePermit<'a>,
}

/// Which call it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    /// No two handles write as one writer.
    pub(crate) writer: [u8; 16],
    /// Grows with each call of a writer, and stays when it is made again.
    pub(crate) serial: i64,
    /// Whether it may have been done already, without an answer.
    pub(crate) is_open: bool,
}

/// What is asked of the server.
pub(crate) trait Ask: Sync {
    type Answer: Send;

    /// Asks once.
    fn ask(
        &self,
        session: &Session,
        turn: Turn,
    ) -> impl Future<Output = Result<Self::Answer, Fault>> + Send;

    /// Whether an error says that nothing was done.
    fn says_what_was_done(&self) -> bool {
        false
    }

    /// Bytes that go there or come back, about.
    fn size(&self) -> usize {
        0
    }
}

/// What comes of asking, unless it takes too long.
pub(crate) async fn in_time<T>(
    limit: Duration,
    asking: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    match timeout(limit, asking).await {
        Ok(answer) => answer,
        Err(late) => Err(Fault::NoAnswer(Box::new(late))),
    }
}

impl Desks {
    /// Begins with a connection that is there.
    pub(crate) fn new(settings: Arc<Settings>, session: Session) -> Result<Self, Fault> {
        let mut desk = Desk::new()?;
        desk.session = Some(session);
        Ok(Self {
            settings,
            turns: Semaphore::new(DESKS),
            idle: Mutex::new(vec![desk]),
        })
    }

    pub(crate) fn place(&self) -> &str {
        self.settings.place()
    }

    /// Asks until there is an answer, for a while.
    pub(crate) async fn call<A: Ask>(&self, ask: &A) -> Result<A::Answer, BusError> {
        let answer = self.call_for(ask).await;
        answer.map_err(|fault| fault.at(self.place()))
    }

    async fn call_for<A: Ask>(&self, ask: &A) -> Result<A::Answer, Fault> {
        let mut taken = self.take().await?;
        let Some(desk) = &mut taken.desk else {
            return Err(Fault::Odd("a desk is missing"));
        };
        desk.serial += 1;
        let mut turn = Turn {
            writer: desk.writer,
            serial: desk.serial,
            is_open: false,
        };
        let mut attempts = Attempts::new();
        loop {
            match desk.attempt(&self.settings, ask, &mut turn).await {
                Ok(answer) => return Ok(answer),
                Err(fault) => {
                    let after = attempts.after(fault).await;
                    let is_unsure = turn.is_open && ask.says_what_was_done();
                    after.map_err(|fault| match is_unsure {
                        // The last attempt knows nothing of those that nobody answered.
                        true => Fault::NoAnswer(Box::new(fault)),
                        false => fault,
                    })?;
                }
            }
        }
    }

    async fn take(&self) -> Result<Taken<'_>, Fault> {
        let turn = self.turns.acquire().await;
        let turn = turn.map_err(|_| Fault::Odd("the bus is closed"))?;
        let idle = self.idle().pop();
        let desk = match idle {
            Some(desk) => desk,
            None => Desk::new()?,
        };
        Ok(Taken {
            desks: self,
            desk: Some(desk),
            _turn: turn,
        })
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Desk>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self, mut desk: Desk) {
        let mut idle = self.idle();
        for other in idle.iter_mut().filter(|other| other.used.elapsed() > IDLE) {
            other.session = None;
        }
        desk.used = Instant::now();
        idle.push(desk);
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if let Some(desk) = self.desk.take() {
            self.desks.give_back(desk);
        }
    }
}

impl Desk {
    fn new() -> Result<Self, Fault> {
        let mut writer = [0; 16];
        getrandom::fill(&mut writer).map_err(|_| Fault::Odd("no randomness"))?;
        Ok(Self {
            session: None,
            late_at: None,
            writer,
            serial: 0,
            used: Instant::now(),
        })
    }

    async fn attempt<A: Ask>(
        &mut self,
        settings: &Settings,
        ask: &A,
        turn: &mut Turn,
    ) -> Result<A::Answer, Fault> {
        let is_late = self
            .late_at
            .is_some_and(|late_at| late_at <= Instant::now());
        self.session
            .take_if(|session| is_late || session.is_closed());
        let session = match self.session.take() {
            Some(session) => session,
            None => {
                self.late_at = None;
                Session::open(settings).await?
            }
        };
        let session = self.session.insert(session);
        let mib = u32::try_from(ask.size() >> 20).unwrap_or(u32::MAX);
        let patience = ANSWER_TIMEOUT + ANSWER_TIMEOUT_PER_MIB.saturating_mul(mib);
        self.late_at.get_or_insert(Instant::now() + patience);
        let warnings = session.line.warnings();
        let mut answer = in_time(patience, ask.ask(session, *turn)).await;
        // What was asked before was answered before.
        self.late_at = None;
        // Whoever has a server stop waiting for its standby gets an answer like any other.
        if ask.says_what_was_done() && answer.is_ok() && session.line.warnings() != warnings {
            answer = Err(Fault::Warned);
        }
        if let Err(fault) = &answer {
            turn.is_open |= fault.leaves_open();
            if !fault.spares_session() {
                self.session = None;
            }
        }
        answer
    }
}

//! A few connections, which calls take in turn, and how a call is made again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sealcast_bus::{Attempts, BusError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use crate::fault::Fault;
use crate::in_turn::InTurn;
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
    pub(crate) in_turn: InTurn,
    turns: Arc<Semaphore>,
    idle: Arc<Idle>,
}

/// Desks that nobody has. The one that was used last comes last.
#[derive(Debug, Default)]
struct Idle(Mutex<Vec<Desk>>);

/// Where one call is made at a time.
#[derive(Debug)]
pub(crate) struct Desk {
    session: Option<Arc<Session>>,
    /// When an answer that the session owes is late. Whoever asked may have gone away since.
    late_at: Option<Instant>,
    pub(crate) writer: [u8; 16],
    pub(crate) serial: i64,
    used: Instant,
}

/// Gives a desk back when the call is over, or given up.
#[derive(Debug)]
pub(crate) struct Taken {
    idle: Arc<Idle>,
    desk: Option<Desk>,
    _turn: OwnedSemaphorePermit,
}

/// Which call it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    /// No two handles write as one writer.
    pub(crate) writer: [u8; 16],
    /// Grows with each call of a writer, and stays when it is made again.
    pub(crate) serial: i64,
    /// The last call of the writer, which may have been made behind this one in turn.
    pub(crate) last: i64,
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
        call: Call,
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
        desk.session = Some(Arc::new(session));
        Ok(Self {
            settings,
            in_turn: InTurn::default(),
            turns: Arc::new(Semaphore::new(DESKS)),
            idle: Arc::new(Idle(Mutex::new(vec![desk]))),
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
        let desk = taken.desk()?;
        let mut call = desk.next_call();
        desk.insist(&self.settings, ask, &mut call).await
    }

    async fn take(&self) -> Result<Taken, Fault> {
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let turn = turn.map_err(|_| Fault::Odd("the bus is closed"))?;
        self.take_with(turn)
    }

    /// Takes a desk for longer, where one is left for others.
    pub(crate) fn take_spare(&self) -> Option<Taken> {
        let two = Arc::clone(&self.turns).try_acquire_many_owned(2).ok();
        let one = two.and_then(|mut two| two.split(1))?;
        self.take_with(one).ok()
    }

    fn take_with(&self, turn: OwnedSemaphorePermit) -> Result<Taken, Fault> {
        let idle = self.idle.lock().pop();
        let desk = match idle {
            Some(desk) => desk,
            None => Desk::new()?,
        };
        Ok(Taken {
            idle: Arc::clone(&self.idle),
            desk: Some(desk),
            _turn: turn,
        })
    }
}

impl Idle {
    fn lock(&self) -> MutexGuard<'_, Vec<Desk>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self, mut desk: Desk) {
        let mut idle = self.lock();
        for other in idle.iter_mut().filter(|other| other.used.elapsed() > IDLE) {
            other.session = None;
        }
        desk.used = Instant::now();
        idle.push(desk);
    }
}

impl Taken {
    pub(crate) fn desk(&mut self) -> Result<&mut Desk, Fault> {
        self.desk.as_mut().ok_or(Fault::Odd("a desk is missing"))
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some(desk) = self.desk.take() {
            self.idle.give_back(desk);
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

    /// The next call of its writer.
    pub(crate) fn next_call(&mut self) -> Call {
        self.serial += 1;
        Call {
            writer: self.writer,
            serial: self.serial,
            last: self.serial,
            is_open: false,
        }
    }

    /// Whether its calls go over a connection, and are answered there.
    pub(crate) fn is_on(&self, session: &Arc<Session>) -> bool {
        let own = self.session.as_ref();
        own.is_some_and(|own| Arc::ptr_eq(own, session) && !own.is_closed())
    }

    /// Its session owes answers, all of which are to be there after so long.
    pub(crate) fn owes(&mut self, patience: Duration) {
        self.late_at = (!patience.is_zero()).then(|| Instant::now() + patience);
    }

    /// Makes a call, and makes it again while nobody answers.
    pub(crate) async fn insist<A: Ask>(
        &mut self,
        settings: &Settings,
        ask: &A,
        call: &mut Call,
    ) -> Result<A::Answer, Fault> {
        let mut attempts = Attempts::new();
        loop {
            match self.attempt(settings, ask, call).await {
                Ok(answer) => return Ok(answer),
                Err(fault) => {
                    let after = attempts.after(fault).await;
                    let is_unsure = call.is_open && ask.says_what_was_done();
                    after.map_err(|fault| match is_unsure {
                        // The last attempt knows nothing of those that nobody answered.
                        true => Fault::NoAnswer(Box::new(fault)),
                        false => fault,
                    })?;
                }
            }
        }
    }

    /// The connection, made anew where it broke.
    pub(crate) async fn session(&mut self, settings: &Settings) -> Result<Arc<Session>, Fault> {
        let is_late = self
            .late_at
            .is_some_and(|late_at| late_at <= Instant::now());
        self.session
            .take_if(|session| is_late || session.is_closed());
        if let Some(session) = &self.session {
            return Ok(Arc::clone(session));
        }
        self.late_at = None;
        let session = Arc::new(Session::open(settings).await?);
        self.session = Some(Arc::clone(&session));
        Ok(session)
    }

    async fn attempt<A: Ask>(
        &mut self,
        settings: &Settings,
        ask: &A,
        call: &mut Call,
    ) -> Result<A::Answer, Fault> {
        let session = self.session(settings).await?;
        let patience = patience(ask);
        self.late_at.get_or_insert(Instant::now() + patience);
        let answer = asked(&session, ask, *call, patience).await;
        // What was asked before was answered before.
        self.late_at = None;
        if let Err(fault) = &answer {
            self.mind(fault, call);
        }
        answer
    }

    /// What a fault means for whatever is asked next.
    pub(crate) fn mind(&mut self, fault: &Fault, call: &mut Call) {
        call.is_open |= fault.leaves_open();
        if !fault.spares_session() {
            self.session = None;
        }
    }
}

/// How long an answer may take.
pub(crate) fn patience<A: Ask>(ask: &A) -> Duration {
    let mib = u32::try_from(ask.size() >> 20).unwrap_or(u32::MAX);
    ANSWER_TIMEOUT + ANSWER_TIMEOUT_PER_MIB.saturating_mul(mib)
}

/// Asks once.
pub(crate) async fn asked<A: Ask>(
    session: &Session,
    ask: &A,
    call: Call,
    patience: Duration,
) -> Result<A::Answer, Fault> {
    let warnings = session.line.warnings();
    let answer = in_time(patience, ask.ask(session, call)).await?;
    // Whoever has a server stop waiting for its standby gets an answer like any other.
    if ask.says_what_was_done() && session.line.warnings() != warnings {
        return Err(Fault::Warned);
    }
    Ok(answer)
}

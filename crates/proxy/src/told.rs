//! What the two directions of a connection tell one another.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::lasting::Lasts;
use crate::packet::{LARGEST, Welcome};
use crate::recall::Recalled;
use crate::subscriptions::Subscriptions;

/// Pings that may be on their way: who sends more than that does not listen.
const PINGS_MAX: usize = 4096;

/// What the broker said when the client connected, and what it was asked since.
#[derive(Debug)]
pub(crate) struct Told {
    /// The most bytes of a packet that it takes.
    packet_max: AtomicU32,
    /// By when it has to hear of the client, in seconds; 0 where it need not.
    keep_alive: AtomicU32,
    /// Who asked whether it is there, in the order of its answers.
    pings: Mutex<VecDeque<Asker>>,
    /// What the client has asked for.
    pub(crate) subscriptions: Subscriptions,
    /// Whether the broker is gone.
    is_broker_gone: watch::Sender<bool>,
    /// For how long the client's session outlives the connection.
    lasts: Mutex<Lasts>,
    /// What the broker said of letting the client in, once it has.
    answer: watch::Sender<Option<Answer>>,
    /// What is remembered of the client's session, where it outlives the connection.
    session: OnceLock<Arc<Recalled>>,
    /// Numbers of messages of the client's that it refused.
    refused: Mutex<BTreeSet<u16>>,
    refuses: Notify,
}

/// What a broker says to who wants to be let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Refused,
    /// The client is let in, and the broker had no session of it.
    NewSession,
    /// It goes on with the one that it had.
    OldSession,
}

/// Who asks a broker whether it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    Client,
    Proxy,
    /// The proxy, which wants to know when all has come that comes again.
    Look,
}

impl From<&Welcome<'_>> for Answer {
    fn from(welcome: &Welcome<'_>) -> Self {
        match (welcome.code(), welcome.has_session()) {
            (0, true) => Self::OldSession,
            (0, false) => Self::NewSession,
            _ => Self::Refused,
        }
    }
}

impl Told {
    pub(crate) fn new(keep_alive: u16, lasts: Lasts) -> Self {
        Self {
            packet_max: AtomicU32::new(LARGEST),
            keep_alive: AtomicU32::new(keep_alive.into()),
            pings: Mutex::default(),
            subscriptions: Subscriptions::default(),
            is_broker_gone: watch::Sender::default(),
            lasts: Mutex::new(lasts),
            answer: watch::Sender::default(),
            session: OnceLock::new(),
            refused: Mutex::default(),
            refuses: Notify::new(),
        }
    }

    pub(crate) fn tell(&self, packet_max: Option<u32>, keep_alive: Option<u16>) {
        if let Some(packet_max) = packet_max {
            self.packet_max
                .store(packet_max.min(LARGEST), Ordering::Relaxed);
        }
        if let Some(keep_alive) = keep_alive {
            self.keep_alive.store(keep_alive.into(), Ordering::Relaxed);
        }
    }

    pub(crate) fn packet_max(&self) -> usize {
        usize::try_from(self.packet_max.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }

    /// By when the broker has to hear of the client, if it has to.
    pub(crate) fn keep_alive(&self) -> Option<Duration> {
        let seconds = self.keep_alive.load(Ordering::Relaxed);
        (seconds > 0).then(|| Duration::from_secs(seconds.into()))
    }

    /// Notes that the broker is asked; `false` where it was too often.
    pub(crate) fn asks(&self, asker: Asker) -> bool {
        let mut pings = self.pings();
        pings.push_back(asker);
        pings.len() <= PINGS_MAX
    }

    /// For whom an answer is.
    pub(crate) fn answered(&self) -> Asker {
        self.pings().pop_front().unwrap_or(Asker::Client)
    }

    /// For how long the client's session outlives the connection, as far as is known by now.
    pub(crate) fn lasts(&self) -> Lasts {
        *self.lasts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Client or broker says so.
    pub(crate) fn tell_lasts(&self, lasts: Lasts) {
        *self.lasts.lock().unwrap_or_else(PoisonError::into_inner) = lasts;
    }

    /// The client is about to be let in, and that is remembered of its session.
    pub(crate) fn tell_session(&self, session: Arc<Recalled>) {
        let _is_first = self.session.set(session).is_ok();
    }

    /// What is remembered of its session, if anything is, once the client was let in.
    pub(crate) fn session(&self) -> Option<&Arc<Recalled>> {
        self.session.get()
    }

    /// The broker lets the client in, or does not.
    pub(crate) fn tell_answer(&self, answer: Answer) {
        self.answer.send_replace(Some(answer));
    }

    /// Waits until it has.
    pub(crate) async fn answer(&self) -> Answer {
        let mut hearing = self.answer.subscribe();
        let heard = hearing.wait_for(Option::is_some).await;
        heard.ok().and_then(|of| *of).unwrap_or(Answer::Refused)
    }

    /// The broker refuses a message of QoS 2, if it does. Its client sends that no more.
    pub(crate) fn tell_refused(&self, id: Option<u16>) {
        if let Some(id) = id {
            self.refused_ids().insert(id);
            self.refuses.notify_one();
        }
    }

    /// Waits until it has.
    pub(crate) async fn refuses(&self) {
        self.refuses.notified().await;
    }

    /// What it has since this was asked last.
    pub(crate) fn refused(&self) -> BTreeSet<u16> {
        std::mem::take(&mut *self.refused_ids())
    }

    fn refused_ids(&self) -> MutexGuard<'_, BTreeSet<u16>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the broker was seen to be gone while something of its was dealt with.
    pub(crate) fn is_broker_gone(&self) -> bool {
        *self.is_broker_gone.borrow()
    }

    /// Where that is told.
    pub(crate) fn broker_gone(&self) -> watch::Sender<bool> {
        self.is_broker_gone.clone()
    }

    fn pings(&self) -> MutexGuard<'_, VecDeque<Asker>> {
        self.pings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

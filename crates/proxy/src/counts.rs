//! What was done with messages, counted, and told where somebody has to know.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What becomes of a message that is neither sealed, opened nor to be passed on in clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exception {
    /// A client published it, and it does not go to the broker.
    Refused,
    /// It is for a client, and is not delivered.
    Dropped,
    /// It is for a client, could not be opened, and is delivered as it is.
    Forwarded,
    /// It is for a client, cannot be opened yet, and is kept for it.
    Parked,
}

/// What was done with messages since the proxy started.
#[derive(Debug, Default)]
pub struct Counts {
    sealed: AtomicU64,
    opened: AtomicU64,
    passed: AtomicU64,
    exceptions: Mutex<BTreeMap<(Exception, &'static str), u64>>,
}

impl Counts {
    /// Messages of clients that went on sealed, wills included.
    pub fn sealed(&self) -> u64 {
        self.sealed.load(Ordering::Relaxed)
    }

    /// Envelopes that were delivered opened.
    pub fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// Messages that went on as they came, as rules say, in either direction.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// All others, by the reason.
    pub fn exceptions(&self) -> Vec<(Exception, &'static str, u64)> {
        let exceptions = self.exceptions.lock();
        let exceptions = exceptions.unwrap_or_else(PoisonError::into_inner);
        let all = exceptions.iter();
        all.map(|((exception, code), count)| (*exception, *code, *count))
            .collect()
    }

    pub(crate) fn count_sealed(&self) {
        self.sealed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_opened(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_passed(&self) {
        self.passed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count(&self, exception: Exception, code: &'static str, times: u64) {
        let exceptions = self.exceptions.lock();
        let mut exceptions = exceptions.unwrap_or_else(PoisonError::into_inner);
        *exceptions.entry((exception, code)).or_default() += times;
    }

    /// Writes them to the log.
    pub(crate) fn tell(&self) {
        let (sealed, opened, passed) = (self.sealed(), self.opened(), self.passed());
        tracing::info!(sealed, opened, passed, "messages since the start");
        for (exception, reason, count) in self.exceptions() {
            tracing::info!(?exception, reason, count, "messages since the start");
        }
    }
}

/// Counts exceptions in one direction of a connection, and tells of each reason once.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) counts: Arc<Counts>,
    connection: u64,
    told: Vec<(Exception, &'static str)>,
}

impl Ledger {
    pub(crate) fn new(counts: Arc<Counts>, connection: u64) -> Self {
        Self {
            counts,
            connection,
            told: Vec::new(),
        }
    }

    pub(crate) fn note(&mut self, exception: Exception, topic: &str, reason: &'static str) {
        self.counts.count(exception, reason, 1);
        let connection = self.connection;
        tracing::debug!(connection, ?exception, reason, topic, "a message");
        if reason != because::HAD && !self.told.contains(&(exception, reason)) {
            self.told.push((exception, reason));
            let says = "first message of this connection for this reason; others are counted";
            tracing::warn!(connection, ?exception, reason, "{says}");
        }
    }
}

/// Reasons of the relay's own.
pub(crate) mod because {
    pub(crate) const NO_RULE: &str = "proxy.no-rule";
    pub(crate) const OPEN_ONLY: &str = "proxy.open-only";
    pub(crate) const TOPIC: &str = "proxy.topic";
    /// One before it could not be sealed, and its client has that still.
    pub(crate) const WITHHELD: &str = "proxy.withheld";
    /// It took too long.
    pub(crate) const LATE: &str = "proxy.late";
    pub(crate) const INTERNAL: &str = "internal";
    /// Others wait that go first.
    pub(crate) const PARK_ORDER: &str = "proxy.order";
    /// There is no room for more that waits.
    pub(crate) const PARK_FULL: &str = "proxy.park-full";
    /// It has waited as long as it may.
    pub(crate) const PARK_OLD: &str = "proxy.park-old";
    /// The session that it waited for is over.
    pub(crate) const SESSION_OVER: &str = "proxy.session-over";
    /// It is damaged where it was kept.
    pub(crate) const PARK_LOST: &str = "proxy.park-lost";
    /// Its publisher said how long it is worth something.
    pub(crate) const EXPIRED: &str = "proxy.expired";
    pub(crate) const TOO_LARGE: &str = "proxy.too-large";
    /// It was opened before.
    pub(crate) const REPLAY: &str = "replay";
    /// Its client has it, and has said so; nothing is wrong with that.
    pub(crate) const HAD: &str = "proxy.had";
    /// Another with its number was.
    pub(crate) const FORK: &str = "fork";
}

//! Tells waiting tails that the database changed, whoever changed it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::watch;

use super::fault::Fault;
use super::place::Place;
use crate::BusError;

/// How often the database is asked for changes by other processes, while a tail waits.
const POLL_EVERY: Duration = Duration::from_millis(15);
/// Polls, about a second, after which the thread ends when nobody waits, and between two looks at
/// whether the database is still where it was.
const POLLS_PER_ROUND: u32 = 64;

/// The changes of one database, as seen from one handle.
#[derive(Debug)]
pub(super) struct Watch {
    place: Arc<Place>,
    /// Counts the changes; what the count is does not matter.
    changes: watch::Sender<u64>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: usize,
    polling: bool,
}

impl Watch {
    pub(super) fn new(place: Arc<Place>) -> Self {
        Self {
            place,
            changes: watch::Sender::new(0),
            state: Mutex::default(),
        }
    }

    /// Tells those who wait that there is, or may be, something new.
    pub(super) fn tell(&self) {
        self.changes
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Changes that happen from now on are told, until what is returned is dropped.
    pub(super) fn wait(self: &Arc<Self>) -> Result<Waiting, BusError> {
        let mut state = self.lock();
        if !state.polling {
            let watch = Arc::clone(self);
            thread::Builder::new()
                .name("bus-watch".into())
                .spawn(move || watch.poll())
                .map_err(|error| BusError::Backend(Box::new(error)))?;
            state.polling = true;
        }
        state.waiting += 1;
        drop(state);
        Ok(Waiting {
            changes: self.changes.subscribe(),
            watch: Arc::clone(self),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Polls until nobody has waited for a round.
    fn poll(self: Arc<Self>) {
        let mut seen = Seen::default();
        let mut idle_polls = 0;
        let mut polls: u32 = 0;
        loop {
            polls = polls.wrapping_add(1);
            let look = polls.is_multiple_of(POLLS_PER_ROUND);
            // A fault is told as well: whoever waits then reads, and meets it.
            if seen.changed(&self.place, look).unwrap_or(true) {
                self.tell();
            }
            let mut state = self.lock();
            idle_polls = if state.waiting == 0 {
                idle_polls + 1
            } else {
                0
            };
            if idle_polls > POLLS_PER_ROUND {
                state.polling = false;
                return;
            }
            drop(state);
            thread::sleep(POLL_EVERY);
        }
    }
}

/// The state of the database at the last poll.
#[derive(Default)]
struct Seen {
    connection: Option<Connection>,
    version: Option<i64>,
}

impl Seen {
    /// Whether the database changed since the last call; the first call says yes.
    fn changed(&mut self, place: &Place, look: bool) -> Result<bool, Fault> {
        if look {
            place.check()?;
        }
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                self.version = None;
                place.connect()?
            }
        };
        let version = connection
            .prepare_cached("PRAGMA data_version")?
            .query_row([], |row| row.get(0))?;
        self.connection = Some(connection);
        Ok(self.version.replace(version) != Some(version))
    }
}

/// One who waits for changes.
#[derive(Debug)]
pub(super) struct Waiting {
    changes: watch::Receiver<u64>,
    watch: Arc<Watch>,
}

impl Waiting {
    /// Forgets the changes so far.
    pub(super) fn forget(&mut self) {
        self.changes.mark_unchanged();
    }

    /// Waits for a change that was not forgotten.
    pub(super) async fn changed(&mut self) {
        // The sender lives as long as `self.watch`.
        self.changes.changed().await.ok();
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.watch.lock().waiting -= 1;
    }
}

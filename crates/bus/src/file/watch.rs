//! Tells waiting tails that the database changed, whoever changed it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::watch;

use super::fault::Fault;
use super::place::Place;
use crate::BusError;

/// How often the database is asked for changes while a tail waits: shortly after a change, and
/// later. Each time costs some 0.1 ms of CPU time on a slow machine, nearly all of it for waking up.
const POLL_BUSY: Duration = Duration::from_millis(10);
const POLL_QUIET: Duration = Duration::from_millis(25);
/// Polls without a change after which it is quiet.
const QUIET_AFTER: u32 = 50;
/// Polls between two looks at whether anybody waits, and the database is where it was.
const LOOK_EVERY: u32 = 40;

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

    /// Polls while anybody waits.
    fn poll(self: Arc<Self>) {
        loop {
            let ended = self
                .place
                .connect()
                .and_then(|connection| self.poll_with(&connection));
            if ended.is_ok() {
                return;
            }
            // Whoever waits then reads, and meets the same fault.
            self.tell();
            if self.leave_if_unused() {
                return;
            }
            thread::sleep(POLL_QUIET);
        }
    }

    fn poll_with(&self, connection: &Connection) -> Result<(), Fault> {
        let mut statement = connection.prepare("PRAGMA data_version")?;
        // The first version counts as a change: what happened before is not known.
        let mut last: Option<i64> = None;
        let mut unchanged: u32 = 0;
        let mut polls: u32 = 0;
        loop {
            let version = statement.query_row([], |row| row.get(0))?;
            if last.replace(version) == Some(version) {
                unchanged = unchanged.saturating_add(1);
            } else {
                unchanged = 0;
                self.tell();
            }
            polls = polls.wrapping_add(1);
            if polls.is_multiple_of(LOOK_EVERY) {
                self.place.check()?;
                if self.leave_if_unused() {
                    return Ok(());
                }
            }
            let quiet = unchanged > QUIET_AFTER;
            thread::sleep(if quiet { POLL_QUIET } else { POLL_BUSY });
        }
    }

    /// Whether nobody waits; the next who does starts a new thread then.
    fn leave_if_unused(&self) -> bool {
        let mut state = self.lock();
        state.polling = state.waiting > 0;
        !state.polling
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

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::sync::{mpsc, oneshot};

    use super::*;
    use crate::Topic;
    use crate::file::schema::Format;
    use crate::file::write::{Action, Change, Writer};

    fn watched(folder: &tempfile::TempDir) -> (Arc<Place>, Connection, Arc<Watch>) {
        let (place, connection) = Place::open(folder.path(), Format::BUS).unwrap();
        let place = Arc::new(place);
        let watch = Arc::new(Watch::new(Arc::clone(&place)));
        (place, connection, watch)
    }

    #[test]
    fn an_append_of_this_handle_is_told_without_a_poll() {
        let folder = tempfile::tempdir().unwrap();
        let (place, connection, watch) = watched(&folder);
        let changes = watch.changes.subscribe();
        let (queue, changes_made) = mpsc::channel(1);
        let (done, _outcome) = oneshot::channel();
        let change = Change {
            topic: Topic::new("t").unwrap(),
            action: Action::Append {
                at: None,
                payloads: vec![vec![1]],
            },
            done,
        };
        queue.try_send(vec![change]).unwrap();
        drop(queue);
        Writer::new(place, connection, None, Arc::clone(&watch)).run(changes_made);
        assert!(changes.has_changed().unwrap());
        assert!(!watch.lock().polling);
    }

    #[test]
    fn the_thread_that_polls_ends_when_nobody_waits() {
        let folder = tempfile::tempdir().unwrap();
        let (_, _connection, watch) = watched(&folder);
        let waiting = [watch.wait().unwrap(), watch.wait().unwrap()];
        assert!(watch.lock().polling);
        drop(waiting);
        let left = Arc::downgrade(&watch);
        drop(watch);
        let start = Instant::now();
        while left.strong_count() > 0 {
            assert!(start.elapsed() < Duration::from_secs(60), "still polling");
            thread::sleep(POLL_BUSY);
        }
    }
}

//! What happens below one folder: recorded, and refused where a test wants it.

use std::collections::BTreeMap;
use std::ffi::c_int;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::ffi::{
    SQLITE_FULL, SQLITE_IOERR_FSYNC, SQLITE_IOERR_SHMSIZE, SQLITE_IOERR_TRUNCATE,
    SQLITE_IOERR_WRITE, SQLITE_OK,
};

use crate::record::{Event, Recording};
use crate::vfs;

/// Watches every database below one folder, from now on, in this process.
///
/// What is there already counts as durable. Files that are not databases are taken as they were at
/// the start; the shared memory of a log is left out, since SQLite makes it anew after a crash.
#[derive(Debug)]
pub struct Watch {
    state: Arc<Mutex<State>>,
}

/// What a failing disk says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// There is no room: writes fail, half done.
    Full,
    /// Writes and syncs fail.
    Broken,
}

/// How long it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasting {
    /// One call fails.
    Once,
    /// All that follow fail, too, until the fault is gone.
    On,
}

#[derive(Debug, Default)]
struct State {
    events: Vec<Event>,
    /// Which file a name means.
    names: BTreeMap<String, usize>,
    files: usize,
    /// Calls since the fault was set that it could have met.
    calls: u64,
    fault: Option<(u64, Fault, Lasting)>,
    has_failed: bool,
    lies_about_syncs: bool,
}

/// A call that changes something.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Effect {
    Cut(i64),
    Sync,
    /// The shared memory needs room on the disk.
    Grow,
}

/// An open file.
#[derive(Debug)]
pub(crate) struct Opened {
    state: Arc<Mutex<State>>,
    file: usize,
}

type Watched = (PathBuf, Arc<Mutex<State>>);

static WATCHES: Mutex<Vec<Watched>> = Mutex::new(Vec::new());

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    /// Begins. `None` where SQLite does not let itself be watched, or the folder cannot be read.
    pub fn begin(folder: &Path) -> Option<Self> {
        let folder = folder.canonicalize().ok()?;
        let mut state = State::default();
        for path in files_below(&folder)? {
            state.find(name_of(&path, &folder)?, fs::read(&path).ok()?);
        }
        if !vfs::install() {
            return None;
        }
        let state = Arc::new(Mutex::new(state));
        locked(&WATCHES).push((folder, state.clone()));
        Some(Self { state })
    }

    /// Writes into the record that something has come to pass.
    pub fn mark(&self, what: impl Into<String>) {
        locked(&self.state).events.push(Event::Mark(what.into()));
    }

    /// Lets the call fail that follows so many others.
    pub fn fail(&self, after: u64, fault: Fault, lasting: Lasting) {
        let mut state = locked(&self.state);
        state.fault = Some((after, fault, lasting));
        state.calls = 0;
        state.has_failed = false;
    }

    /// Makes the disk whole again. Returns whether a call had failed.
    pub fn mend(&self) -> bool {
        let mut state = locked(&self.state);
        state.fault = None;
        state.has_failed
    }

    /// A disk that says that it synced and did not.
    pub fn danger_lie_about_syncs(&self) {
        locked(&self.state).lies_about_syncs = true;
    }

    /// What was recorded so far.
    pub fn recording(&self) -> Recording {
        Recording::new(locked(&self.state).events.clone())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        locked(&WATCHES).retain(|(_, state)| !Arc::ptr_eq(state, &self.state));
    }
}

/// Every file below a folder, but for shared memory.
fn files_below(folder: &Path) -> Option<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).ok()? {
        let path = entry.ok()?.path();
        if path.is_dir() {
            found.extend(files_below(&path)?);
        } else if !path.to_string_lossy().ends_with("-shm") {
            found.push(path);
        }
    }
    Some(found)
}

fn name_of(path: &Path, folder: &Path) -> Option<String> {
    path.strip_prefix(folder).ok()?.to_str().map(str::to_owned)
}

fn watched(path: &Path) -> Option<(String, Arc<Mutex<State>>)> {
    let watches = locked(&WATCHES);
    watches
        .iter()
        .find_map(|(folder, state)| Some((name_of(path, folder)?, state.clone())))
}

/// A file was opened, and made if it was not there.
pub(crate) fn opened(path: &Path, was_there: bool) -> Option<Opened> {
    let (name, state) = watched(path)?;
    let mut changing = locked(&state);
    let file = match changing.names.get(&name) {
        Some(file) if was_there => *file,
        // Put there by other means than SQLite's, and so by means that make it durable.
        None if was_there => changing.find(name, fs::read(path).ok()?),
        Some(_) | None => changing.make(name),
    };
    drop(changing);
    Some(Opened { state, file })
}

/// A file is removed.
pub(crate) fn deleted(path: &Path, is_synced: bool, remove: impl FnOnce() -> c_int) -> c_int {
    let Some((name, state)) = watched(path) else {
        return remove();
    };
    let mut state = locked(&state);
    let code = remove();
    if code == SQLITE_OK && state.names.remove(&name).is_some() {
        state.events.push(Event::Removed { name, is_synced });
    }
    code
}

impl State {
    fn find(&mut self, name: String, bytes: Vec<u8>) -> usize {
        self.events.push(Event::Found {
            name: name.clone(),
            bytes,
        });
        self.number(name)
    }

    fn make(&mut self, name: String) -> usize {
        self.events.push(Event::Made { name: name.clone() });
        self.number(name)
    }

    fn number(&mut self, name: String) -> usize {
        let file = self.files;
        self.files += 1;
        self.names.insert(name, file);
        file
    }

    /// Whether a call that the fault can meet is to fail.
    fn is_struck(&mut self, meets: impl Fn(Fault) -> bool) -> Option<Fault> {
        let (after, fault, lasting) = self.fault.filter(|(_, fault, _)| meets(*fault))?;
        let at = self.calls;
        self.calls += 1;
        let is_struck = match lasting {
            Lasting::Once => at == after,
            Lasting::On => at >= after,
        };
        self.has_failed |= is_struck;
        is_struck.then_some(fault)
    }
}

impl Opened {
    /// Writes bytes, by a function that writes some of them at the same place.
    pub(crate) fn write(&self, at: i64, bytes: &[u8], write: impl Fn(&[u8]) -> c_int) -> c_int {
        let mut state = locked(&self.state);
        let struck = state.is_struck(|_| true);
        let part = match struck {
            Some(_) => bytes.get(..bytes.len() / 2).unwrap_or_default(),
            None => bytes,
        };
        let code = write(part);
        if code == SQLITE_OK {
            state.events.push(Event::Wrote {
                file: self.file,
                at: usize::try_from(at).unwrap_or(0),
                bytes: part.to_vec(),
            });
        }
        match struck {
            Some(Fault::Full) => SQLITE_FULL,
            Some(Fault::Broken) => SQLITE_IOERR_WRITE,
            None => code,
        }
    }

    /// Does something else, by a function that does it.
    pub(crate) fn make(&self, effect: Effect, make: impl FnOnce() -> c_int) -> c_int {
        let mut state = locked(&self.state);
        let struck = state.is_struck(|fault| match effect {
            Effect::Grow => fault == Fault::Full,
            Effect::Sync | Effect::Cut(_) => fault == Fault::Broken,
        });
        if struck.is_some() {
            return match effect {
                Effect::Cut(_) => SQLITE_IOERR_TRUNCATE,
                Effect::Sync => SQLITE_IOERR_FSYNC,
                Effect::Grow => SQLITE_IOERR_SHMSIZE,
            };
        }
        if state.lies_about_syncs && matches!(effect, Effect::Sync) {
            return SQLITE_OK;
        }
        let code = make();
        let file = self.file;
        match effect {
            _ if code != SQLITE_OK => {}
            Effect::Cut(size) => state.events.push(Event::Cut {
                file,
                size: usize::try_from(size).unwrap_or(0),
            }),
            Effect::Sync => {
                state.events.push(Event::Synced { file });
            }
            Effect::Grow => {}
        }
        code
    }
}

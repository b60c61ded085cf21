//! What was written, and what a disk may hold after a crash at any moment of it.
//!
//! A file's name is taken to be durable with the first sync of the file, as it is on the file systems
//! of Linux. SQLite itself syncs the folder of a new log only where the connection that made the log
//! is the first to sync it.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io;
use std::path::Path;

use crate::chance::Chance;

/// Lets every moment be looked at, and not only some of them.
const WHOLE: &str = "SEALCAST_CRASH_WHOLE";
/// Lets other moments and other losses be looked at.
const SEED: &str = "SEALCAST_CRASH_SEED";
/// Bytes that a disk writes whole or not at all.
const SECTOR: usize = 512;

/// One step of the record. A file has the number in which it appeared.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A file is there, whole and durable.
    Found {
        name: String,
        bytes: Vec<u8>,
    },
    /// A file was made; its folder is not synced.
    Made {
        name: String,
    },
    Wrote {
        file: usize,
        at: usize,
        bytes: Vec<u8>,
    },
    Cut {
        file: usize,
        size: usize,
    },
    /// Everything written to the file is durable, and its name.
    Synced {
        file: usize,
    },
    Removed {
        name: String,
        is_synced: bool,
    },
    /// A test's own remark.
    Mark(String),
}

/// What a crash takes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nothing: the process died, the system went on.
    Nothing,
    /// Everything that was not synced.
    Unsynced,
    /// Any part of what was not synced, by this seed: sectors of 512 bytes, names, out of order.
    Some(u64),
}

/// Everything that happened below a watched folder, in order.
#[derive(Clone, Debug)]
pub struct Recording(Vec<Event>);

/// Files by their names, as a crash left them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image(BTreeMap<String, Vec<u8>>);

impl Recording {
    pub(crate) fn new(events: Vec<Event>) -> Self {
        Self(events)
    }

    /// How many steps it has.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing happened.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Looks at what crashes leave, at about `most` moments, and at every one where
    /// `SEALCAST_CRASH_WHOLE` is set. `SEALCAST_CRASH_SEED` is added to the seed. Returns how many
    /// moments they were.
    ///
    /// # Errors
    ///
    /// Returns the first fault that `fault_of` finds, with all that it takes to find it again.
    pub fn look_at_crashes(
        &self,
        most: usize,
        seed: u64,
        mut loss: impl FnMut(&mut Chance) -> Loss,
        mut fault_of: impl FnMut(usize, &Image) -> Result<(), String>,
    ) -> Result<usize, String> {
        let most = env::var_os(WHOLE).map_or(most, |_| usize::MAX);
        let more = env::var(SEED).ok().and_then(|text| text.parse().ok());
        let seed = seed.wrapping_add(more.unwrap_or(0));
        let mut chance = Chance::new(seed);
        let moments = self.moments(most, &mut chance);
        let (mut disk, mut at) = (Disk::default(), 0);
        for end in &moments {
            let steps = self.0.get(at..*end).unwrap_or_default();
            steps.iter().for_each(|event| disk.take(event));
            at = *end;
            let loss = loss(&mut chance);
            let image = disk.clone().left(loss);
            fault_of(*end, &image)
                .map_err(|fault| format!("seed {seed}, {loss:?} at {end}: {fault}"))?;
        }
        Ok(moments.len())
    }

    /// Moments at which a crash leaves something else than at the one before: behind each step that
    /// is no remark, with the remarks that follow it, and at the start. Where there are more than
    /// `most`, some of them by chance; always the last.
    fn moments(&self, most: usize, chance: &mut Chance) -> Vec<usize> {
        let is_mark = |at: &usize| matches!(self.0.get(*at), Some(Event::Mark(_)));
        let is_found = |event: &&Event| matches!(event, Event::Found { .. });
        let start = self.0.iter().take_while(is_found).count();
        let all: Vec<_> = (start..self.0.len()).filter(|end| !is_mark(end)).collect();
        let (most, count) = (most as u64, all.len() as u64);
        let some = all.into_iter().filter(|_| chance.hits(most, count));
        some.chain([self.0.len()]).collect()
    }

    /// The remarks made before a moment.
    pub fn marks(&self, end: usize) -> Vec<&str> {
        let before = self.0.iter().take(end);
        let marks = before.filter_map(|event| match event {
            Event::Mark(mark) => Some(mark.as_str()),
            Event::Found { .. }
            | Event::Made { .. }
            | Event::Wrote { .. }
            | Event::Cut { .. }
            | Event::Synced { .. }
            | Event::Removed { .. } => None,
        });
        marks.collect()
    }

    /// What a crash at a moment leaves.
    pub fn image(&self, end: usize, loss: Loss) -> Image {
        let mut disk = Disk::default();
        self.0.iter().take(end).for_each(|event| disk.take(event));
        disk.left(loss)
    }
}

impl Image {
    /// Whether there is a file of this name.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Puts the files into a folder, and nothing else.
    ///
    /// # Errors
    ///
    /// Fails when the folder cannot be written.
    pub fn restore(&self, folder: &Path) -> io::Result<()> {
        remove_all(folder)?;
        for (name, bytes) in &self.0 {
            let path = folder.join(name);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(&path, bytes)?;
            // A key that others may read is refused.
            #[cfg(unix)]
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        }
        fs::create_dir_all(folder)
    }
}

/// Threads of what was dropped a moment ago may put a file there while the others are removed.
fn remove_all(folder: &Path) -> io::Result<()> {
    while folder.exists() {
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                std::thread::yield_now();
            }
            done => return done,
        }
    }
    Ok(())
}

/// A file: what is durable of it, and what was done since.
#[derive(Clone, Debug, Default)]
struct Content {
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Cut(usize),
}

/// What names which file.
#[derive(Clone, Debug)]
enum Naming {
    Made { name: String, file: usize },
    Removed(String),
}

#[derive(Clone, Debug, Default)]
struct Disk {
    files: Vec<Content>,
    names: BTreeMap<String, usize>,
    pending: Vec<Naming>,
}

fn folder_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

impl Naming {
    fn name(&self) -> &str {
        match self {
            Self::Made { name, .. } | Self::Removed(name) => name,
        }
    }

    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Made { name, file } => names.insert(name.clone(), *file),
            Self::Removed(name) => names.remove(name),
        };
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes } => {
                let end = at + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                if let Some(place) = content.get_mut(*at..end) {
                    place.copy_from_slice(bytes);
                }
            }
            Self::Cut(size) => content.resize(*size, 0),
        }
    }

    /// The parts that a disk writes each for itself.
    fn sectors(&self) -> Vec<Self> {
        let Self::Write { at, bytes } = self else {
            return Vec::from([self.clone()]);
        };
        let mut parts = Vec::new();
        let (mut at, mut rest) = (*at, bytes.as_slice());
        while !rest.is_empty() {
            let room = SECTOR - at % SECTOR;
            let (part, behind) = rest.split_at(room.min(rest.len()));
            parts.push(Self::Write {
                at,
                bytes: part.to_vec(),
            });
            at += part.len();
            rest = behind;
        }
        parts
    }
}

impl Disk {
    fn take(&mut self, event: &Event) {
        match event {
            Event::Found { name, bytes } => {
                self.names.insert(name.clone(), self.files.len());
                self.files.push(Content {
                    durable: bytes.clone(),
                    pending: Vec::new(),
                });
            }
            Event::Made { name } => {
                self.pending.push(Naming::Made {
                    name: name.clone(),
                    file: self.files.len(),
                });
                self.files.push(Content::default());
            }
            Event::Wrote { file, at, bytes } => self.change(*file, || Change::Write {
                at: *at,
                bytes: bytes.clone(),
            }),
            Event::Cut { file, size } => self.change(*file, || Change::Cut(*size)),
            Event::Synced { file } => self.sync(*file),
            Event::Removed { name, is_synced } => {
                self.pending.push(Naming::Removed(name.clone()));
                if *is_synced {
                    self.sync_folder(folder_of(name).to_owned());
                }
            }
            Event::Mark(_) => {}
        }
    }

    fn change(&mut self, file: usize, change: impl FnOnce() -> Change) {
        if let Some(content) = self.files.get_mut(file) {
            content.pending.push(change());
        }
    }

    fn sync(&mut self, file: usize) {
        if let Some(content) = self.files.get_mut(file) {
            for change in content.pending.drain(..) {
                change.apply(&mut content.durable);
            }
        }
        let made = self.pending.iter().find_map(|naming| match naming {
            Naming::Made { name, file: of } if *of == file => Some(folder_of(name).to_owned()),
            Naming::Made { .. } | Naming::Removed(_) => None,
        });
        if let Some(folder) = made {
            self.sync_folder(folder);
        }
    }

    fn sync_folder(&mut self, folder: String) {
        for naming in &self.pending {
            if folder_of(naming.name()) == folder {
                naming.apply(&mut self.names);
            }
        }
        self.pending.retain(|of| folder_of(of.name()) != folder);
    }

    fn left(mut self, loss: Loss) -> Image {
        let mut chance = Chance::new(match loss {
            Loss::Some(seed) => seed,
            Loss::Nothing | Loss::Unsynced => 0,
        });
        // Most of it, some of it or little of it: each finds other faults.
        let kept = [1, 4, 7][usize::try_from(chance.below(3)).unwrap_or(0)];
        let stays = |chance: &mut Chance| match loss {
            Loss::Nothing => true,
            Loss::Unsynced => false,
            Loss::Some(_) => chance.hits(kept, 8),
        };
        for naming in &self.pending {
            if stays(&mut chance) {
                naming.apply(&mut self.names);
            }
        }
        let is_reordered = matches!(loss, Loss::Some(_)) && chance.hits(1, 2);
        for content in &mut self.files {
            let mut changes = std::mem::take(&mut content.pending);
            if is_reordered {
                turn_round_writes(&mut changes);
            }
            for part in changes.iter().flat_map(Change::sectors) {
                if stays(&mut chance) {
                    part.apply(&mut content.durable);
                }
            }
        }
        let files = self.names.into_iter().filter_map(|(name, file)| {
            let content = self.files.get_mut(file)?;
            Some((name, std::mem::take(&mut content.durable)))
        });
        Image(files.collect())
    }
}

/// Of two writes to one place the earlier wins, but none crosses a change of the file's size, which
/// file systems keep in order.
fn turn_round_writes(changes: &mut [Change]) {
    for run in changes.split_mut(|of| matches!(of, Change::Cut(_))) {
        run.reverse();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrote(at: usize, byte: u8, count: usize) -> Event {
        Event::Wrote {
            file: 0,
            at,
            bytes: vec![byte; count],
        }
    }

    fn made() -> Event {
        Event::Made {
            name: "a".to_owned(),
        }
    }

    fn left(events: &[Event], loss: Loss) -> Option<Vec<u8>> {
        let recording = Recording::new(events.to_vec());
        recording.image(events.len(), loss).0.remove("a")
    }

    #[test]
    fn a_power_cut_takes_what_was_not_synced_and_nothing_else() {
        let synced = Event::Synced { file: 0 };
        let events = [made(), wrote(0, 1, 4), synced, wrote(2, 2, 4)];
        assert_eq!(left(&events, Loss::Nothing), Some(vec![1, 1, 2, 2, 2, 2]));
        assert_eq!(left(&events, Loss::Unsynced), Some(vec![1; 4]));
        assert_eq!(left(&events[..2], Loss::Unsynced), None);
    }

    #[test]
    fn a_cut_is_undone_until_it_is_synced() {
        let found = Event::Found {
            name: "a".to_owned(),
            bytes: vec![1; 4],
        };
        let cut = Event::Cut { file: 0, size: 1 };
        assert_eq!(
            left(&[found.clone(), cut.clone()], Loss::Nothing),
            Some(vec![1])
        );
        assert_eq!(left(&[found, cut], Loss::Unsynced), Some(vec![1; 4]));
    }

    #[test]
    fn a_removed_file_comes_back_unless_its_folder_was_synced() {
        let removed = |is_synced| Event::Removed {
            name: "a".to_owned(),
            is_synced,
        };
        let synced = Event::Synced { file: 0 };
        let events = |is_synced| [made(), wrote(0, 1, 1), synced.clone(), removed(is_synced)];
        assert_eq!(left(&events(false), Loss::Unsynced), Some(vec![1]));
        assert_eq!(left(&events(false), Loss::Nothing), None);
        assert_eq!(left(&events(true), Loss::Unsynced), None);
    }

    #[test]
    fn a_torn_write_leaves_whole_sectors_of_it_in_any_order() {
        let found = Event::Found {
            name: "a".to_owned(),
            bytes: vec![0; 4 * SECTOR],
        };
        let events = [found, wrote(0, 1, 3 * SECTOR), wrote(SECTOR, 2, 3 * SECTOR)];
        let mut seen = Vec::new();
        for seed in 0..200 {
            let bytes = left(&events, Loss::Some(seed)).unwrap();
            assert_eq!(left(&events, Loss::Some(seed)), Some(bytes.clone()));
            let sectors: Vec<u8> = bytes.chunks(SECTOR).map(|sector| sector[0]).collect();
            assert!(
                bytes
                    .chunks(SECTOR)
                    .all(|of| of.iter().all(|byte| *byte == of[0]))
            );
            seen.push(sectors);
        }
        // The later write won in one sector and the earlier in another; some sectors stayed.
        for wanted in [[1, 2, 2, 2], [0, 0, 0, 0], [1, 1, 1, 2], [0, 2, 0, 0]] {
            assert!(seen.contains(&wanted.to_vec()), "{wanted:?}");
        }
    }
}

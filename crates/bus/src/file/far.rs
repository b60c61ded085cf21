//! Payloads of a mirror that lie in files beside its database: `spec/bus-mqtt.md`, section 8.

use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rusqlite::Connection;

use super::fault::Fault;
use super::place;

/// The fewest bytes of a payload that lies in a file: what is shorter is cheaper in the database.
pub(super) const FAR_MIN: usize = 16 << 10;
/// Bytes of a file beyond which the next payload goes to another.
const FILE_MAX: u64 = 64 << 20;
/// Files that are kept open for the next reads.
const OPEN_MAX: usize = 8;

/// Where a payload lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FarPlace {
    pub(super) file: i64,
    pub(super) at: u64,
    pub(super) length: u64,
}

/// The files of a mirror, to be read.
#[derive(Debug)]
pub(super) struct Far {
    folder: PathBuf,
    open: Mutex<VecDeque<(i64, Arc<Mutex<File>>)>>,
}

/// One file of a mirror that is written to, by this handle alone.
#[derive(Debug)]
pub(super) struct FarWriter {
    folder: PathBuf,
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    /// Locked as long as it is written to.
    file: File,
    number: i64,
    end: u64,
    is_synced: bool,
}

/// The folder of the files of a mirror.
fn folder_in(mirror: &Path) -> PathBuf {
    mirror.join("far")
}

fn path_of(folder: &Path, number: i64) -> PathBuf {
    folder.join(format!("{number:016x}"))
}

impl Far {
    pub(super) fn new(mirror: &Path) -> Self {
        Self {
            folder: folder_in(mirror),
            open: Mutex::default(),
        }
    }

    pub(super) fn read(&self, place: FarPlace) -> Result<Vec<u8>, Fault> {
        let file = self.file(place.file)?;
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(place.at))?;
        let length = usize::try_from(place.length).map_err(|_| Fault::OutOfRange)?;
        let mut payload = Vec::with_capacity(length);
        let mut rest = io::Read::by_ref(&mut *file).take(place.length);
        rest.read_to_end(&mut payload)?;
        match payload.len() == length {
            true => Ok(payload),
            false => Err(Fault::Short),
        }
    }

    fn file(&self, number: i64) -> Result<Arc<Mutex<File>>, Fault> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, file)) = open.iter().find(|(of, _)| *of == number) {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(Mutex::new(File::open(path_of(&self.folder, number))?));
        if open.len() >= OPEN_MAX {
            open.pop_front();
        }
        open.push_back((number, Arc::clone(&file)));
        Ok(file)
    }
}

impl FarWriter {
    pub(super) fn new(mirror: &Path) -> Self {
        Self {
            folder: folder_in(mirror),
            current: None,
        }
    }

    /// Puts a payload in a file. It is on the disk after the next [`sync`](Self::sync).
    pub(super) fn put(&mut self, payload: &Bytes) -> Result<FarPlace, Fault> {
        self.current.take_if(|current| current.end >= FILE_MAX);
        let mut current = match self.current.take() {
            Some(current) => current,
            None => Current::create(&self.folder)?,
        };
        // After an error it is left where it is: nobody knows where it ends.
        current.file.write_all(payload)?;
        let place = FarPlace {
            file: current.number,
            at: current.end,
            length: payload.len() as u64,
        };
        current.end += place.length;
        current.is_synced = false;
        self.current = Some(current);
        Ok(place)
    }

    /// Returns when all that was put in files is on the disk.
    pub(super) fn sync(&mut self) -> Result<(), Fault> {
        if let Some(current) = &mut self.current
            && !current.is_synced
        {
            current.file.sync_data()?;
            current.is_synced = true;
        }
        Ok(())
    }

    /// Removes those of some files in which nothing lies any more.
    pub(super) fn drop_unused(
        &self,
        connection: &Connection,
        files: BTreeSet<i64>,
    ) -> Result<(), Fault> {
        let mut used = connection.prepare_cached("SELECT 1 FROM far WHERE file = ?1 LIMIT 1")?;
        for number in files {
            if !used.exists([number])? {
                drop_unless_written(&path_of(&self.folder, number));
            }
        }
        Ok(())
    }

    /// Removes files that a process left behind that ended before anything lay there.
    pub(super) fn sweep(&self, connection: &Connection) -> Result<(), Fault> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        let mut files = BTreeSet::new();
        for entry in entries {
            let name = entry?.file_name();
            let name = name.to_str().filter(|name| name.len() == 16);
            files.extend(name.and_then(|name| i64::from_str_radix(name, 16).ok()));
        }
        self.drop_unused(connection, files)
    }
}

impl Current {
    /// Makes a file; under a name that others look at only when it is locked.
    fn create(folder: &Path) -> Result<Self, Fault> {
        place::create_folder(folder)?;
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        let number = i64::from_be_bytes(bytes) & i64::MAX;
        let path = path_of(folder, number);
        let new = path.with_extension("new");
        let file = File::options().write(true).create_new(true).open(&new)?;
        file.try_lock().map_err(io::Error::other)?;
        fs::rename(&new, &path)?;
        // Its name has to last as long as what lies there.
        place::sync_folder(folder)?;
        Ok(Self {
            file,
            number,
            end: 0,
            is_synced: true,
        })
    }
}

fn drop_unless_written(path: &Path) {
    let is_written = File::open(path).map(|file| file.try_lock().is_err());
    if is_written.is_ok_and(|is_written| !is_written) {
        // One that stays is tried again when the mirror is opened.
        let _is_gone = fs::remove_file(path).is_ok();
    }
}

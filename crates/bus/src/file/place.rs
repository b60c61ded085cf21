use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;

use super::fault::Fault;
use super::schema::{self, Format};
use crate::BusError;

/// The database of one bus.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    /// Tells the file that was opened from one that took its place.
    identity: Identity,
    format: Format,
}

impl Place {
    /// Creates what is missing of the folder and the database, and opens it.
    pub(super) fn open(folder: &Path, format: Format) -> Result<(Self, Connection), BusError> {
        // Holds when the program changes its working folder later.
        let absolute = std::path::absolute(folder);
        let folder = absolute.as_deref().unwrap_or(folder);
        let path = folder.join(schema::FILE_NAME);
        let opened = create_folder(folder)
            .map_err(Fault::from)
            .and_then(|()| schema::create(&path, format))
            .and_then(|connection| Ok((connection, Identity::of(&path)?)));
        match opened {
            Ok((connection, identity)) => {
                let place = Self {
                    path,
                    identity,
                    format,
                };
                Ok((place, connection))
            }
            Err(fault) => Err(tell(&path, fault, format)),
        }
    }

    /// Opens one more connection to the same database.
    pub(super) fn connect(&self) -> Result<Connection, Fault> {
        self.check()?;
        schema::connect(&self.path)
    }

    /// Fails when the database is no longer where it was: what is written to it would be lost.
    pub(super) fn check(&self) -> Result<(), Fault> {
        match Identity::of(&self.path) {
            Ok(identity) if identity == self.identity => Ok(()),
            Ok(_) => Err(Fault::Moved),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Fault::Moved),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    pub(super) fn tell(&self, fault: impl Into<Arc<Fault>>) -> BusError {
        tell(&self.path, fault, self.format)
    }
}

pub(super) fn tell(path: &Path, fault: impl Into<Arc<Fault>>, format: Format) -> BusError {
    fault
        .into()
        .tell(path.display().to_string(), format.version())
}

/// Creates the folder so that it outlives a power cut.
pub(super) fn create_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let missing: Vec<&Path> = folder
        .ancestors()
        .take_while(|path| !path.exists())
        .collect();
    fs::create_dir_all(folder)?;
    for parent in missing.iter().filter_map(|path| path.parent()) {
        let parent = if parent.as_os_str().is_empty() {
            Path::new(".")
        } else {
            parent
        };
        sync_folder(parent)?;
    }
    Ok(())
}

#[cfg(unix)]
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder) {
        Ok(folder) => folder.sync_all(),
        // A folder that may be entered but not listed cannot be synced.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(not(unix))]
pub(super) fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity(u64, u64);

impl Identity {
    #[cfg(unix)]
    fn of(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let metadata = fs::metadata(path)?;
        Ok(Self(metadata.dev(), metadata.ino()))
    }

    /// Elsewhere an open file cannot be removed, so being there is enough.
    #[cfg(not(unix))]
    fn of(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|_| Self(0, 0))
    }
}

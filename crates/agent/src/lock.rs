//! One agent a home.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::Path;

/// The file whose lock the agent of a home holds; it has the number of its process in it.
const FILE: &str = "agent.lock";

/// Held for as long as the agent runs; the system lets go of it however that ends.
#[derive(Debug)]
pub(crate) struct HomeLock {
    _file: File,
}

/// Why the home cannot be locked.
#[derive(Debug)]
pub(crate) enum LockError {
    /// Another agent serves it; its process, where that is known.
    Held(Option<u32>),
    /// The file cannot be used.
    Io(io::Error),
}

impl HomeLock {
    pub(crate) fn take(home: &Path) -> Result<Self, LockError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(home.join(FILE)).map_err(LockError::Io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LockError::Held(holder(&mut file))),
            Err(TryLockError::Error(error)) => return Err(LockError::Io(error)),
        }
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        write(&mut file).map_err(LockError::Io)?;
        Ok(Self { _file: file })
    }
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_is_locked_once_and_again_when_let_go() {
        let home = tempfile::tempdir().unwrap();
        let lock = HomeLock::take(home.path()).unwrap();
        match HomeLock::take(home.path()) {
            Err(LockError::Held(Some(process))) => assert_eq!(process, std::process::id()),
            other => panic!("{other:?}"),
        }
        drop(lock);
        HomeLock::take(home.path()).unwrap();
    }
}

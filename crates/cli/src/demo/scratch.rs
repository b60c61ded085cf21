use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{CommandError, Kind};
use crate::time::now;

/// A folder that only this user may look into, gone when it is dropped.
#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
    keep: bool,
}

impl Scratch {
    /// Makes the folder; with `keep` it stays.
    pub(super) fn new(keep: bool) -> Result<Self, CommandError> {
        let name = format!("sealcast-demo-{}-{}", std::process::id(), now().0);
        let path = std::env::temp_dir().join(name);
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        {
            use std::os::unix::fs::DirBuilderExt as _;
            builder.mode(0o700);
        }
        builder.create(&path).map_err(|error| {
            let says = format!(
                "cannot make a temporary folder: {}: {error}",
                path.display()
            );
            CommandError::new(Kind::Internal, "demo.failed", says)
        })?;
        Ok(Self { path, keep })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.keep {
            // What cannot be removed is left to the system, which clears such folders.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_goes_unless_it_is_kept() {
        let scratch = Scratch::new(false).unwrap();
        let path = scratch.path().to_owned();
        fs::write(path.join("file"), "x").unwrap();
        drop(scratch);
        assert!(!path.exists());
    }
}

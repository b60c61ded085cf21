use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

/// Makes the folder that `path` lies in, and those above it, for their owner alone.
fn make_folder_of(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder_of(path))
}

/// Makes a new, empty file for its owner alone.
fn make_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// A file in the making, under a name of its own; removed when dropped.
#[derive(Debug)]
pub(crate) struct Draft(PathBuf);

impl Draft {
    /// Begins a file that will lie at `path`, and makes its folder; `tag` tells apart those that
    /// are made at one time.
    pub(crate) fn begin(path: &Path, tag: u64) -> io::Result<Self> {
        make_folder_of(path)?;
        let draft = Self(beside(path, &format!(".new-{tag:016x}")));
        make_file(&draft.0)?;
        Ok(draft)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Makes the file durable and puts it at `path`, whole or not at all.
    ///
    /// Fails with [`ErrorKind::AlreadyExists`] when there is a file already, which stays as it is.
    pub(crate) fn put_in_place(self, path: &Path) -> io::Result<()> {
        File::open(&self.0)?.sync_all()?;
        // A rename would replace a file that another process put there meanwhile; a link does not.
        fs::hard_link(&self.0, path)?;
        drop(self);
        sync_folder_of(path)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let _: io::Result<()> = fs::remove_file(beside(&self.0, suffix));
        }
    }
}

/// Writes a file for its owner alone, durably, and whole or not at all. The folder must be there;
/// `tag` tells apart those that are written at one time.
///
/// # Errors
///
/// Fails with [`ErrorKind::AlreadyExists`] when there is a file already and it is not to be replaced,
/// with [`ErrorKind::InvalidInput`] when it is a device or the like, which a file never replaces, and
/// when the file cannot be written; what was there stays as it was.
pub fn write_whole(path: &Path, bytes: &[u8], replaces: bool, tag: u64) -> io::Result<()> {
    if let Ok(there) = path.symlink_metadata() {
        let is_file = there.is_file() || there.is_symlink();
        match replaces {
            false => return Err(ErrorKind::AlreadyExists.into()),
            true if there.is_dir() => return Err(ErrorKind::IsADirectory.into()),
            true if !is_file => return Err(ErrorKind::InvalidInput.into()),
            true => {}
        }
    }
    let draft = Draft(beside(path, &format!(".new-{tag:016x}")));
    let mut file = make_file(&draft.0)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    match replaces {
        true => fs::rename(&draft.0, path)?,
        false => put_new(&draft.0, path)?,
    }
    sync_folder_of(path)
}

/// Puts a file where none is. Where the file system knows no links, the name is taken first.
fn put_new(draft: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(draft, path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(error),
        Err(_) => {
            make_file(path)?;
            fs::rename(draft, path).inspect_err(|_| drop(fs::remove_file(path)))
        }
        Ok(()) => Ok(()),
    }
}

/// The path with `suffix` added to its file name.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    }
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        match File::open(folder_of(path))?.sync_all() {
            // Some file systems cannot sync a folder and do not need to.
            Err(error) if error.kind() == ErrorKind::InvalidInput => {}
            synced => return synced,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries
            .map(|of| of.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_whole_file_is_written_beside_none_and_replaces_one_only_when_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write_whole(&path, b"first", false, 1).unwrap();
        let refused = write_whole(&path, b"second", false, 2).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        write_whole(&path, b"third", true, 3).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"third");
        assert_eq!(names(folder.path()), ["file"]);
    }

    /// As `/dev/null` is, where somebody who may replace it wants to see whether all goes well.
    #[cfg(unix)]
    #[test]
    fn what_is_no_file_is_replaced_by_none() {
        use std::os::unix::fs::FileTypeExt as _;
        use std::os::unix::net::UnixListener;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let _socket = UnixListener::bind(&path).unwrap();
        let refused = write_whole(&path, b"file", true, 1).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput);
        assert!(path.metadata().unwrap().file_type().is_socket());
        assert_eq!(names(folder.path()), ["socket"]);
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        write_whole(&link, b"file", true, 2).unwrap();
        assert_eq!(fs::read(&link).unwrap(), b"file");
        assert!(path.metadata().unwrap().file_type().is_socket());
    }

    #[test]
    fn a_file_that_came_meanwhile_stays() {
        let folder = tempfile::tempdir().unwrap();
        let [draft, path] = ["draft", "file"].map(|name| folder.path().join(name));
        fs::write(&draft, b"new").unwrap();
        fs::write(&path, b"other").unwrap();
        let refused = put_new(&draft, &path).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"other");
    }

    /// As where the file system knows no links, and then something else goes wrong.
    #[test]
    fn a_name_that_was_taken_in_vain_is_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let [draft, path] = ["draft", "file"].map(|name| folder.path().join(name));
        put_new(&draft, &path).unwrap_err();
        assert_eq!(names(folder.path()), Vec::<String>::new());
    }
}

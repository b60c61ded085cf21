//! A home in one file, and back, `spec/home.md`, section "Restore".

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand_core::Rng as _;
use sealcast_crypto::SecretBytes;
use sealcast_engine::Space;
use sealcast_protocol::{Export, ExportedRecord, HomeExport, Position};
use sealcast_store::{KeyFile, Protection, SqliteStore};

use crate::blocking::off_thread;
use crate::clock;
use crate::error::Error;
use crate::ground::Ground;
use crate::home::{Home, KEY_FILE, STORE_FILE, absolute, load};
use crate::options::Passphrase;
use crate::sealed_file::{FileKey, FileLock, SealedFile};
use crate::vault::{BackupMark, Vault, ended_lane};

/// A backup that is to be written.
#[derive(Clone, Debug)]
pub struct Backup {
    /// The file.
    pub file: SealedFile,
    mark: BackupMark,
}

/// Whether a home was backed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackupState {
    /// Never.
    Never,
    /// It was then, and has drawn sessions or made streams since.
    Outdated(Position),
    /// It was then, and every stream of the user and every session in it was there.
    Current(Position),
}

impl Home {
    /// Puts all that this home keeps into a file: its identity, keys, contacts and streams, as one
    /// transaction of its store sees them, whatever other processes do. What lies on the bus is not
    /// in it, nor are messages that wait for keys. When the file is where it is to stay, [say so](Self::note_backup).
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be read.
    pub async fn backup(&self, lock: FileLock, is_armored: bool) -> Result<Backup, Error> {
        let inner = self.inner.clone();
        off_thread(move || {
            let time = inner.now();
            let (records, mark) = inner.vault.snapshot(&inner.identity.user(), time)?;
            let export = Export::Home(HomeExport { time, records });
            let file = lock.seal(&export, is_armored)?;
            Ok(Backup { file, mark })
        })
        .await?
    }

    /// Remembers that a backup was written, so that [`backup_state`](Self::backup_state) and
    /// [`doctor`](Self::doctor) know.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be written.
    pub async fn note_backup(&self, backup: &Backup) -> Result<(), Error> {
        let (inner, mark) = (self.inner.clone(), backup.mark);
        off_thread(move || inner.vault.put_backup(&mark)).await?
    }

    /// Whether there is a backup of what is here. Reads the store on the calling thread.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be read.
    pub fn backup_state(&self) -> Result<BackupState, Error> {
        let vault = &self.inner.vault;
        let Some(mark) = vault.backed_up()? else {
            return Ok(BackupState::Never);
        };
        Ok(match vault.key_state(&self.user())? == mark.state {
            true => BackupState::Current(mark.time),
            false => BackupState::Outdated(mark.time),
        })
    }

    /// Makes a home of a backup, in a folder that holds none, with a new store key.
    ///
    /// It is the same device again. It starts sessions of its own, and goes on behind what the
    /// device did after the backup, so that nothing is repeated. The device should not be in use
    /// elsewhere.
    ///
    /// # Errors
    ///
    /// Fails when there is a home already, the key does not open the file, or the folder cannot be
    /// written; no home is there then.
    pub async fn restore(
        path: &Path,
        file: &SealedFile,
        key: FileKey,
        passphrase: Passphrase,
    ) -> Result<Self, Error> {
        Self::restore_asking(path, file, key, || Ok(passphrase)).await
    }

    /// As [`restore`](Self::restore), for a caller that asks for the new home's passphrase: it does so
    /// when the file is open.
    ///
    /// # Errors
    ///
    /// As [`restore`](Self::restore), and when `ask` fails.
    pub async fn restore_asking<E: From<Error>>(
        path: &Path,
        file: &SealedFile,
        key: FileKey,
        ask: impl FnOnce() -> Result<Passphrase, E>,
    ) -> Result<Self, E> {
        Self::check_free_of_homes(path)?;
        let (folder, file) = (absolute(path)?, file.clone());
        let opened = off_thread(move || match file.open(&key)? {
            Export::Home(home) => Ok((fit_to_go_on(home.records)?, home.time)),
            Export::Keys(_) => Err(Error::FileOtherKind("keys, and not a home")),
        });
        let (records, time) = opened.await??;
        let passphrase = ask()?;
        let inner = off_thread(move || {
            let passphrase = match &passphrase {
                Passphrase::None => None,
                Passphrase::Given(passphrase) => Some(passphrase),
            };
            let draft = Draft::of(&folder)?;
            fill(&draft.0, passphrase, &records, time)?;
            draft.put_in_place(&folder)?;
            load(folder, passphrase, Ground::default())
        });
        Ok(Self {
            inner: Arc::new(inner.await??),
        })
    }
}

/// The records that a restored home begins with: no session goes on.
fn fit_to_go_on(mut records: Vec<ExportedRecord>) -> Result<Vec<ExportedRecord>, Error> {
    let lanes = records.iter_mut();
    for of in lanes.filter(|of| of.space == Space::Lane as u8) {
        of.value = ended_lane(&of.value).map_err(|_| Error::FileNotOurs)?;
    }
    Ok(records)
}

fn fill(
    draft: &Path,
    passphrase: Option<&SecretBytes>,
    records: &[ExportedRecord],
    time: Position,
) -> Result<(), Error> {
    let protection = passphrase.map_or(Protection::Plain, Protection::Passphrase);
    let key = KeyFile::generate(draft.join(KEY_FILE), protection, &mut clock::rng())?;
    let store = SqliteStore::open(draft.join(STORE_FILE), key, Box::new(clock::rng()))?;
    let store = Arc::new(store);
    let vault = Vault(store.clone());
    // What is odd about the records is the file's fault.
    let not_ours = |error| match matches!(error, Error::Internal(_)) {
        true => Error::FileNotOurs,
        false => error,
    };
    vault.fill(records, time).map_err(not_ours)?;
    let settings = vault.settings().map_err(not_ours)?;
    settings.ok_or(Error::FileNotOurs)?;
    // What is put in place is the one file, without its log.
    Ok(store.purge()?)
}

/// A home in the making, in a folder of its own; removed when dropped.
pub(crate) struct Draft(pub(crate) PathBuf);

impl Draft {
    /// Beside the folder of the home; within it where that is there, since it may be the top of a disk,
    /// or a link, or lie where this user may make nothing.
    pub(crate) fn of(folder: &Path) -> Result<Self, Error> {
        let name = format!(".restore-{:016x}", clock::rng().next_u64());
        let draft = Self(match folder.is_dir() {
            true => folder.join(name),
            false => {
                // Without the slash at the end that a path may have.
                let mut beside = folder.components().collect::<PathBuf>().into_os_string();
                beside.push(name);
                beside.into()
            }
        });
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&draft.0).map_err(Error::Folder)?;
        Ok(draft)
    }

    /// The whole folder in one step; into one that is there already, the key and then the store.
    pub(crate) fn put_in_place(self, folder: &Path) -> Result<(), Error> {
        let renamed = match self.0.starts_with(folder) {
            true => Err(ErrorKind::AlreadyExists.into()),
            false => fs::rename(&self.0, folder),
        };
        match renamed {
            Ok(()) => {}
            Err(error) if is_in_use(&error) => self.put_into(folder)?,
            Err(error) => return Err(Error::Folder(error)),
        }
        let above = folder.parent().unwrap_or(folder);
        for folder in [folder, above] {
            if cfg!(unix) {
                let synced = fs::File::open(folder).and_then(|folder| folder.sync_all());
                synced.map_err(Error::Folder)?;
            }
        }
        Ok(())
    }

    fn put_into(&self, folder: &Path) -> Result<(), Error> {
        let key = folder.join(KEY_FILE);
        let place = |name: &str| {
            let placed = fs::hard_link(self.0.join(name), folder.join(name));
            placed.map_err(|error| match error.kind() == ErrorKind::AlreadyExists {
                true => Error::HomeExists(folder.into()),
                false => Error::Folder(error),
            })
        };
        place(KEY_FILE)?;
        place(STORE_FILE).inspect_err(|_| drop(fs::remove_file(key)))
    }
}

fn is_in_use(error: &io::Error) -> bool {
    let kind = error.kind();
    kind == ErrorKind::DirectoryNotEmpty || kind == ErrorKind::AlreadyExists
}

impl Drop for Draft {
    fn drop(&mut self) {
        let _: io::Result<()> = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use sealcast_bus::BusUrl;

    use super::*;
    use crate::options::InitOptions;

    /// A backup whose records nobody can use is no backup, and no fault of this program.
    #[tokio::test]
    async fn odd_records_are_the_files_fault_and_leave_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (home, again) = (folder.path().join("home"), folder.path().join("again"));
        let options = InitOptions {
            name: None,
            bus: Some(BusUrl::file(&folder.path().join("bus")).unwrap()),
            passphrase: Passphrase::None,
        };
        let home = Home::init(&home, options).await.unwrap();
        let secret = || SecretBytes::from(b"correct horse".to_vec());
        let lock = FileLock::passphrase(secret()).danger_with_work_factor(1);
        let made = home.backup(lock, false).await.unwrap();
        let lock = FileLock::passphrase(secret()).danger_with_work_factor(1);
        for (space, id) in [(1, &b"settings"[..]), (3, &[7; 32]), (11, &[7; 32])] {
            let mut export = made.file.open(&FileKey::Passphrase(secret())).unwrap();
            if let Export::Home(home) = &mut export {
                home.records
                    .retain(|of| (of.space, &of.id[..]) != (space, id));
                home.records.push(ExportedRecord {
                    space,
                    id: id.to_vec(),
                    value: SecretBytes::from(b"odd".to_vec()),
                });
                home.records
                    .sort_by(|a, b| (a.space, &a.id).cmp(&(b.space, &b.id)));
            }
            let file = lock.seal(&export, false).unwrap();
            let key = FileKey::Passphrase(secret());
            let refused = Home::restore(&again, &file, key, Passphrase::None).await;
            assert_eq!(refused.unwrap_err().code(), "file.not-ours", "{space}");
            assert!(!again.exists());
        }
    }
}

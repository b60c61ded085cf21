//! Keys handed over in files, `spec/export.md`.

use sealcast_engine::{exported, imported};
use sealcast_protocol::{Export, Interval, KeyExport, Name, StreamId, Ticket};

use crate::blocking::off_thread;
use crate::error::Error;
use crate::home::Home;
use crate::options::Bound;
use crate::sealed_file::{FileKey, FileLock, SealedFile};
use crate::stream::Stream;

/// Keys in a file that is to be written.
#[derive(Clone, Debug)]
pub struct ExportedKeys {
    /// The file.
    pub file: SealedFile,
    /// The interval that they open, and nothing else.
    pub interval: Interval,
    /// Sessions in it.
    pub sessions: usize,
}

/// What an import came to.
#[derive(Clone, Debug)]
pub struct ImportedKeys {
    /// The stream, by its name in this home.
    pub name: Name,
    /// Its id.
    pub stream: StreamId,
    /// Sessions in the file.
    pub sessions: usize,
    /// Keys that were not here before.
    pub new_keys: usize,
}

impl Stream {
    /// Puts what this home holds of an interval into a file, for whoever can open it: keys of every
    /// session that there is, also of one that nothing was sealed with yet. Sessions that are drawn
    /// later are not in it. `now` is as in a [grant](Self::grant).
    ///
    /// # Errors
    ///
    /// Fails when no key of the interval is here, or it is empty.
    pub async fn export_keys(
        &self,
        from: Bound,
        until: Bound,
        lock: FileLock,
        is_armored: bool,
    ) -> Result<ExportedKeys, Error> {
        self.sync().await?;
        let (interval, _) = self.core.interval(from, until).await?;
        let core = self.core.clone();
        off_thread(move || {
            let sessions = exported(&core.view(), interval);
            let count = sessions.len();
            if count == 0 {
                return Err(Error::NoKeys);
            }
            let export = Export::Keys(KeyExport {
                stream: core.id(),
                owner: core.ticket.owner(),
                name: core.name.clone(),
                sessions,
            });
            Ok(ExportedKeys {
                file: lock.seal(&export, is_armored)?,
                interval,
                sessions: count,
            })
        })
        .await?
    }
}

impl Home {
    /// Takes in the keys of a file, for opening and never for sealing. A stream that is open
    /// already takes notice when it is opened again. Keys of sessions whose record is not on the
    /// bus yet are kept.
    ///
    /// # Errors
    ///
    /// Fails when the key does not open the file, the file holds something else, or its stream was
    /// not joined; nothing was imported then.
    pub async fn import_keys(
        &self,
        file: &SealedFile,
        key: FileKey,
    ) -> Result<ImportedKeys, Error> {
        let (file, inner) = (file.clone(), self.inner.clone());
        off_thread(move || {
            let Export::Keys(keys) = file.open(&key)? else {
                return Err(Error::FileOtherKind("a home, and not keys"));
            };
            let name = inner.name_of(&keys)?;
            let by = (inner.identity.user(), inner.identity.device());
            let puts = imported(&keys, by).map_err(Error::WrongRoot)?;
            Ok(ImportedKeys {
                name,
                stream: keys.stream,
                sessions: keys.sessions.len(),
                new_keys: inner.vault.import(&puts)?,
            })
        })
        .await?
    }
}

impl crate::home::Inner {
    fn name_of(&self, keys: &KeyExport) -> Result<Name, Error> {
        for known in self.vault.memberships()? {
            let ticket = Ticket::parse(&known.ticket).map_err(Error::Ticket)?;
            if ticket.stream() == keys.stream {
                return match ticket.owner() == keys.owner {
                    true => Ok(known.name),
                    false => Err(Error::FileDamaged("it names another owner of the stream")),
                };
            }
        }
        Err(Error::NotJoined {
            name: keys.name.clone(),
            stream: keys.stream,
        })
    }
}

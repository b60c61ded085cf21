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
    /// Outside of this interval they open nothing.
    pub interval: Interval,
    /// Whether they open all that was asked for of each session. A home that holds less hands over
    /// what it has.
    pub is_whole: bool,
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
            let covers = || sessions.iter().flat_map(|of| &of.covers);
            let from = covers().map(|of| of.interval.from).min();
            let until = covers().map(|of| of.interval.until).max();
            let (from, until) = from.zip(until).ok_or(Error::NoKeys)?;
            let mut each = sessions.iter().map(|of| of.covers.iter());
            let is_whole = each.all(|mut of| of.any(|of| of.interval == interval));
            let export = Export::Keys(KeyExport {
                stream: core.id(),
                owner: core.ticket.owner(),
                name: core.name.clone(),
                sessions,
            });
            Ok(ExportedKeys {
                file: lock.seal(&export, is_armored)?,
                interval: Interval { from, until },
                is_whole,
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

#[cfg(test)]
mod tests {
    use sealcast_crypto::{Cover, SecretBytes, SessionRoot};
    use sealcast_engine::Alarm;
    use sealcast_protocol::{ExportedCover, ExportedSession, Position};

    use super::*;
    use crate::{InitOptions, Passphrase, State, StreamOptions};

    const WORK: u8 = 1;

    fn secret() -> SecretBytes {
        SecretBytes::from(b"correct horse".to_vec())
    }

    fn lock() -> FileLock {
        FileLock::passphrase(secret()).danger_with_work_factor(WORK)
    }

    async fn home(folder: &tempfile::TempDir, name: &str) -> Home {
        let options = InitOptions {
            name: None,
            bus: Some(sealcast_bus::BusUrl::file(&folder.path().join("bus")).unwrap()),
            passphrase: Passphrase::None,
        };
        Home::init(&folder.path().join(name), options)
            .await
            .unwrap()
    }

    /// A stream with one message, and a home that has joined it and holds no key.
    async fn apart(folder: &tempfile::TempDir) -> (Stream, Home, Name) {
        let (alice, bob) = (home(folder, "alice").await, home(folder, "bob").await);
        let name: Name = "lab".parse().unwrap();
        let stream = alice.create_stream(&name, StreamOptions::default());
        let stream = stream.await.unwrap();
        stream.publish(b"sample").await.unwrap();
        bob.join(stream.ticket(), None).await.unwrap();
        (stream, bob, name)
    }

    /// What the stream's own export holds, altered, in a file again.
    async fn altered(stream: &Stream, from: Bound, alter: fn(&mut ExportedSession)) -> SealedFile {
        let until = Bound::At(Position::END);
        let made = stream
            .export_keys(from, until, lock(), false)
            .await
            .unwrap();
        let mut export = made.file.open(&FileKey::Passphrase(secret())).unwrap();
        let Export::Keys(keys) = &mut export else {
            panic!("keys were exported");
        };
        alter(&mut keys.sessions[0]);
        lock().seal(&export, true).unwrap()
    }

    async fn import(home: &Home, file: &SealedFile) -> Result<ImportedKeys, Error> {
        home.import_keys(file, FileKey::Passphrase(secret())).await
    }

    async fn opened(stream: &Stream) -> (Vec<State>, Vec<Alarm>) {
        let mut reader = stream.read(Interval::ALL).await.unwrap();
        let mut states = Vec::new();
        while let Some(delivery) = reader.next().await.unwrap() {
            states.push(delivery.state);
        }
        (states, stream.alarms())
    }

    fn wrong_keys(of: &mut ExportedSession) {
        let root = SessionRoot::init_with(|root| root.fill(1));
        let interval = of.covers[0].interval;
        let cover = Cover::from_root(&root, interval.from.0, interval.until.0);
        of.covers = Vec::from([ExportedCover::new(&cover)]);
    }

    #[tokio::test]
    async fn a_root_that_is_not_its_sessions_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let (stream, bob, name) = apart(&folder).await;
        let file = altered(&stream, Bound::At(Position::START), wrong_keys).await;
        let refused = import(&bob, &file).await.unwrap_err();
        assert_eq!(refused.code(), "keys.wrong-root");
        let session = stream.core.view().records().next().unwrap().session;
        assert!(
            refused.to_string().contains(&session.to_string()),
            "{refused}"
        );
        let (states, _) = opened(&bob.stream(&name).await.unwrap()).await;
        assert_eq!(states, [State::Sealed]);
    }

    #[tokio::test]
    async fn a_false_imported_cover_gives_way_to_a_right_one_and_is_told_as_imported() {
        let folder = tempfile::tempdir().unwrap();
        let (stream, bob, name) = apart(&folder).await;
        let from = Bound::At(Position(1));
        let wrong = altered(&stream, from, wrong_keys).await;
        let right = altered(&stream, from, |_| ()).await;
        let joined = bob.stream(&name).await.unwrap();
        let session = stream.core.view().records().next().unwrap().session;
        // The false one is tried first.
        for file in [&wrong, &right] {
            let Ok(Export::Keys(keys)) = file.open(&FileKey::Passphrase(secret())) else {
                panic!("keys were exported");
            };
            for put in imported(&keys, (bob.user(), bob.device())).unwrap() {
                joined.core.view().restore_cover(session, &put.value);
            }
        }
        let told = (vec![State::Opened], vec![Alarm::BadImport(session)]);
        assert_eq!(opened(&joined).await, told);

        import(&bob, &wrong).await.unwrap();
        let closed = opened(&bob.stream(&name).await.unwrap()).await;
        let told = (vec![State::Rejected], vec![Alarm::MisfitImport(session)]);
        assert_eq!(closed, told);
        assert_eq!(import(&bob, &right).await.unwrap().new_keys, 1);
        let (states, _) = opened(&bob.stream(&name).await.unwrap()).await;
        assert_eq!(states, [State::Opened]);
        // The root decides alone.
        let whole = altered(&stream, Bound::At(Position::START), |_| ()).await;
        import(&bob, &whole).await.unwrap();
        let whole = opened(&bob.stream(&name).await.unwrap()).await;
        assert_eq!(whole, (vec![State::Opened], Vec::new()));
    }

    /// A message that nothing opens has a false sender, or whoever gave the keys is.
    #[tokio::test]
    async fn who_gave_keys_that_do_not_open_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (stream, bob, name) = apart(&folder).await;
        let wrong = altered(&stream, Bound::At(Position(1)), wrong_keys).await;
        let session = stream.core.view().records().next().unwrap().session;
        let Ok(Export::Keys(keys)) = wrong.open(&FileKey::Passphrase(secret())) else {
            panic!("keys were exported");
        };
        let joined = bob.stream(&name).await.unwrap();
        let giver = stream.core.view().me();
        for put in imported(&keys, giver).unwrap() {
            joined.core.view().restore_cover(session, &put.value);
        }
        let told = vec![Alarm::Misfit(session, giver.0, giver.1)];
        assert_eq!(opened(&joined).await, (vec![State::Rejected], told));
    }

    /// Nobody is to believe that a file opens more than it does.
    #[tokio::test]
    async fn an_export_says_what_it_opens_where_the_home_holds_less_than_was_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let (stream, bob, name) = apart(&folder).await;
        let all = (Bound::At(Position::START), Bound::At(Position::END));
        let whole = stream.export_keys(all.0, all.1, lock(), false);
        let whole = whole.await.unwrap();
        assert_eq!((whole.interval, whole.is_whole), (Interval::ALL, true));
        let later = altered(&stream, Bound::At(Position(1)), |_| ()).await;
        import(&bob, &later).await.unwrap();
        let joined = bob.stream(&name).await.unwrap();
        let before_end = Position(Position::END.0 - 1);
        for end in [Position::END, before_end] {
            let part = joined.export_keys(all.0, Bound::At(end), lock(), false);
            let part = part.await.unwrap();
            let held = Interval {
                from: Position(1),
                until: end,
            };
            assert_eq!((part.interval, part.is_whole), (held, false));
        }
    }

    #[tokio::test]
    async fn a_file_that_names_another_owner_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (stream, bob, _) = apart(&folder).await;
        let all = (Bound::At(Position::START), Bound::At(Position::END));
        let made = stream
            .export_keys(all.0, all.1, lock(), false)
            .await
            .unwrap();
        let mut export = made.file.open(&FileKey::Passphrase(secret())).unwrap();
        if let Export::Keys(keys) = &mut export {
            keys.owner = bob.user();
        }
        let file = lock().seal(&export, false).unwrap();
        assert_eq!(
            import(&bob, &file).await.unwrap_err().code(),
            "file.damaged"
        );
    }

    #[test]
    fn what_is_held_for_files_shows_no_secret() {
        let identity =
            b"AGE-SECRET-KEY-1A6QTV4H5XZWFVHTT4X384VFXJT9J7E6PJH2XFW5X6UM3S4NVY2NQ63FPX7";
        let identities = SecretBytes::from(identity.to_vec());
        let identities = crate::Identities::parse(&identities).unwrap();
        let shown = [
            format!("{:?}", FileLock::passphrase(secret())),
            format!("{:?}", FileKey::Passphrase(secret())),
            format!("{:?}", FileKey::Identities(identities)),
        ];
        let expected = [
            "FileLock(passphrase)",
            "FileKey(passphrase)",
            "FileKey(identities)",
        ];
        assert_eq!(shown, expected);
    }
}

//! Adding a device to a user, `spec/pairing.md`: where the two devices meet, and the new one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sealcast_bus::{Bus, BusUrl, Offset, Topic};
use sealcast_crypto::SecretBytes;
use sealcast_engine::Newcomer;
use sealcast_protocol::{PAIRING_ITEMS_MAX, PairingCode, PairingItem, UserId};
use sealcast_store::{KeyFile, Protection, SqliteStore};

use crate::backup::Draft;
use crate::blocking::off_thread;
use crate::buses;
use crate::clock;
use crate::error::Error;
use crate::ground::Ground;
use crate::home::{Home, KEY_FILE, STORE_FILE, absolute, load, topic};
use crate::options::{InitOptions, Passphrase};
use crate::vault::{Settings, Vault};

const READ_BYTES: usize = 1 << 20;

/// Where two devices meet that know one code.
#[derive(Debug)]
pub(crate) struct Meeting {
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) code: PairingCode,
    topic: Topic,
    /// What was said so far, in order.
    pub(crate) items: Vec<PairingItem>,
    /// Items that nobody sealed who knows the code.
    pub(crate) strangers: usize,
    at: Offset,
    /// Whether somebody else spoke while this side did, which nobody has looked at yet.
    has_overheard: bool,
}

impl Meeting {
    pub(crate) fn new(bus: Arc<dyn Bus>, code: PairingCode) -> Result<Self, Error> {
        Ok(Self {
            bus,
            code,
            topic: topic(&code.topic())?,
            items: Vec::new(),
            strangers: 0,
            at: Offset(0),
            has_overheard: false,
        })
    }

    /// Reads on to the end of the topic, unless it is flooded.
    pub(crate) async fn listen(&mut self) -> Result<(), Error> {
        while !self.is_flooded() {
            let items = self.bus.read(&self.topic, self.at, READ_BYTES).await?;
            let Some(last) = items.last() else {
                return Ok(());
            };
            self.at = Offset(last.offset.0.saturating_add(1));
            for item in items {
                match self.code.open(&item.payload) {
                    Ok(item) => self.items.push(item),
                    Err(_) => self.strangers += 1,
                }
            }
        }
        Ok(())
    }

    /// Whether there are more items than anybody needs to look at.
    fn is_flooded(&self) -> bool {
        self.items.len() + self.strangers >= PAIRING_ITEMS_MAX
    }

    /// Says something, unless that was said already.
    pub(crate) async fn say(&mut self, item: PairingItem) -> Result<(), Error> {
        if self.items.contains(&item) {
            return Ok(());
        }
        self.say_again(item).await
    }

    pub(crate) async fn say_again(&mut self, item: PairingItem) -> Result<(), Error> {
        let code = self.code;
        let sealed = off_thread(move || code.seal(&mut clock::rng(), &item)).await?;
        let before = self.items.len();
        self.bus.append(&self.topic, vec![sealed]).await?;
        self.listen().await?;
        self.has_overheard |= self.items.len() > before + 1;
        Ok(())
    }

    /// Waits until somebody says something more, at most so long. Returns whether somebody did.
    pub(crate) async fn wait(&mut self, patience: Duration) -> Result<bool, Error> {
        if std::mem::take(&mut self.has_overheard) {
            return Ok(true);
        }
        if self.is_flooded() {
            tokio::time::sleep(patience).await;
            return Ok(false);
        }
        let mut tail = self.bus.tail(vec![(self.topic.clone(), self.at)]);
        match tokio::time::timeout(patience, tail.next()).await {
            Err(_) => Ok(false),
            Ok(more) => {
                more?;
                self.listen().await?;
                Ok(true)
            }
        }
    }
}

/// A device that waits to be added to a user: a folder that becomes a [`Home`].
///
/// It may be ended at any time, and opened again.
#[derive(Debug)]
pub struct Joining {
    path: PathBuf,
    passphrase: Option<SecretBytes>,
    vault: Vault,
    meeting: Meeting,
    bus: BusUrl,
}

/// What became of a device that waits.
#[derive(Debug)]
pub enum Joined {
    /// It waits still.
    Waiting {
        /// The user to whom it has consented, once it was asked.
        user: Option<UserId>,
    },
    /// It is a device of its user.
    Done(Box<Home>),
}

impl Joining {
    /// Draws the keys of a new device in a folder that holds none. Where the user is named, it becomes
    /// nobody else's; otherwise that of the first who knows its [code](Self::code).
    ///
    /// # Errors
    ///
    /// Fails when there is a home already, or the folder cannot be written; nothing is there then.
    pub async fn begin(
        path: &Path,
        options: InitOptions,
        user: Option<UserId>,
    ) -> Result<Self, Error> {
        Home::check_free_of_homes(path)?;
        let folder = absolute(path)?;
        let settings = options.settings(&folder)?;
        let passphrase = match options.passphrase {
            Passphrase::None => None,
            Passphrase::Given(passphrase) => Some(passphrase),
        };
        let for_making = passphrase.as_ref().map(SecretBytes::duplicate);
        off_thread(move || {
            let draft = Draft::of(&folder)?;
            make(&draft.0, for_making.as_ref(), &settings, user)?;
            draft.put_in_place(&folder)
        })
        .await??;
        Self::open(path, passphrase.as_ref()).await
    }

    /// Opens the folder of a device that waits.
    ///
    /// # Errors
    ///
    /// Fails when it holds none, or one that was added.
    pub async fn open(path: &Path, passphrase: Option<&SecretBytes>) -> Result<Self, Error> {
        if !Home::exists(path) {
            return Err(Error::NoHome(path.into()));
        }
        let folder = absolute(path)?;
        let passphrase = passphrase.map(SecretBytes::duplicate);
        let key = passphrase.as_ref().map(SecretBytes::duplicate);
        let of = folder.clone();
        let (vault, code, settings) = off_thread(move || {
            let key = KeyFile::open(of.join(KEY_FILE), key.as_ref())?;
            let store = SqliteStore::open(of.join(STORE_FILE), key, Box::new(clock::rng()))?;
            let vault = Vault(Arc::new(store));
            if vault.identity()?.is_some() {
                return Err(Error::HomeExists(of));
            }
            let half_made = || Error::HalfMade(of.clone());
            let newcomer = vault.newcomer()?.ok_or_else(half_made)?;
            let settings = vault.settings()?.ok_or_else(half_made)?;
            Ok((vault, newcomer.code(), settings))
        })
        .await??;
        let url = BusUrl::parse(&settings.bus).map_err(Error::BusUrl)?;
        let bus = buses::open(&url, &folder).await?;
        Ok(Self {
            path: folder,
            passphrase,
            vault,
            meeting: Meeting::new(bus, code)?,
            bus: url,
        })
    }

    /// What to type on a device that the user has.
    pub fn code(&self) -> PairingCode {
        self.meeting.code
    }

    /// Where the two devices meet.
    pub fn bus(&self) -> &BusUrl {
        &self.bus
    }

    /// Does what can be done now, and waits at most so long for more. To be called until it is done.
    ///
    /// # Errors
    ///
    /// Fails when the bus cannot be reached or the store cannot be written.
    pub async fn join(&mut self, patience: Duration) -> Result<Joined, Error> {
        self.meeting.listen().await?;
        if let Some(home) = self.step().await? {
            return Ok(Joined::Done(Box::new(home)));
        }
        if self.meeting.wait(patience).await?
            && let Some(home) = self.step().await?
        {
            return Ok(Joined::Done(Box::new(home)));
        }
        let vault = self.vault.clone();
        let newcomer = off_thread(move || vault.newcomer()).await??;
        let user = newcomer.and_then(|of| of.user());
        Ok(Joined::Waiting { user })
    }

    async fn step(&mut self) -> Result<Option<Home>, Error> {
        let (vault, items) = (self.vault.clone(), self.meeting.items.clone());
        // The user is durable before the consent leaves.
        let newcomer = off_thread(move || vault.consider(&items)).await??;
        for item in newcomer.says() {
            self.meeting.say(item).await?;
        }
        let (vault, items) = (self.vault.clone(), self.meeting.items.clone());
        let (path, passphrase) = (
            self.path.clone(),
            self.passphrase.as_ref().map(SecretBytes::duplicate),
        );
        let home = off_thread(move || {
            let Some(welcome) = newcomer.welcome(&items) else {
                return Ok(None);
            };
            let identity = newcomer.into_identity(&welcome);
            vault.become_device(&identity, welcome.body())?;
            let key = passphrase.as_ref();
            load(path, key, Ground::default()).map(Some)
        });
        let home = home.await??;
        Ok(home.map(|inner| Home {
            inner: Arc::new(inner),
        }))
    }
}

/// Writes the key file and a store with the keys of a device that is nobody's yet.
fn make(
    folder: &Path,
    passphrase: Option<&SecretBytes>,
    settings: &Settings,
    user: Option<UserId>,
) -> Result<(), Error> {
    let protection = passphrase.map_or(Protection::Plain, Protection::Passphrase);
    let mut rng = clock::rng();
    let key = KeyFile::generate(folder.join(KEY_FILE), protection, &mut rng)?;
    let store = SqliteStore::open(folder.join(STORE_FILE), key, Box::new(clock::rng()))?;
    let newcomer = Newcomer::generate(&mut rng, user);
    let store = Arc::new(store);
    Vault(store.clone()).begin_newcomer(&newcomer, settings)?;
    // What is put in place is the one file, without its log.
    Ok(store.purge()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever speaks reads on as well: what the other said in between is not waited for again.
    #[tokio::test]
    async fn what_was_said_while_this_side_spoke_is_news() {
        let folder = tempfile::tempdir().unwrap();
        let url = BusUrl::file(folder.path()).unwrap();
        let newcomer = Newcomer::generate(&mut clock::rng(), None);
        let mut sides = Vec::new();
        for _ in 0..2 {
            let bus = buses::open(&url, folder.path()).await.unwrap();
            sides.push(Meeting::new(bus, newcomer.code()).unwrap());
        }
        let [one, other] = sides.as_mut_slice() else {
            unreachable!()
        };
        let offer = |of: u8| PairingItem::Offer(UserId([of; 32]));
        one.say(offer(1)).await.unwrap();
        assert!(!one.wait(Duration::ZERO).await.unwrap());
        other.say(offer(2)).await.unwrap();
        assert!(other.wait(Duration::ZERO).await.unwrap());
        assert!(!other.wait(Duration::ZERO).await.unwrap());
    }
}

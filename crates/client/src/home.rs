//! A home: one device of one user, its store and its streams.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use sealcast_bus::{Bus, BusError, BusUrl, Place, Topic};
use sealcast_crypto::{SecretBytes, leaving_no_trace};
use sealcast_engine::{Fallbacks, Identity, genesis};
use sealcast_protocol::{DeviceId, Name, Position, StreamId, StreamTopics, Ticket, UserId};
use sealcast_store::{KeyFile, KeyFileError, Protection, SqliteStore};
use tokio::time::Instant;

use crate::asking::{AskingCounts, AskingOptions, Counted, HomeAsking};
use crate::blocking::off_thread;
use crate::buses;
use crate::clock;
use crate::core::lock;
use crate::error::Error;
use crate::ground::Ground;
use crate::options::{InitOptions, Passphrase, StreamOptions};
use crate::own_list::first_card;
use crate::stream::Stream;
use crate::vault::{Settings, Vault};

pub(crate) const KEY_FILE: &str = "store.key";
pub(crate) const STORE_FILE: &str = "store.db";
pub(crate) const BUS_FOLDER: &str = "bus";

/// One device of one user, with its keys, contacts and streams.
#[derive(Clone, Debug)]
pub struct Home {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    path: PathBuf,
    pub(crate) identity: Identity,
    pub(crate) vault: Vault,
    pub(crate) fallbacks: Mutex<Fallbacks>,
    /// Whether a key was deleted that the store's log may hold still.
    pub(crate) owes_purge: AtomicBool,
    pub(crate) store: Arc<SqliteStore>,
    pub(crate) name: Option<Name>,
    bus: BusUrl,
    buses: Mutex<BTreeMap<String, Arc<Connection>>>,
    asking: Mutex<HomeAsking>,
    pub(crate) asked: Counted,
    ground: Ground,
}

/// The one handle that a home has of a bus.
#[derive(Debug, Default)]
struct Connection {
    bus: OnceLock<Arc<dyn Bus>>,
    /// Held by whoever opens it.
    opening: tokio::sync::Mutex<()>,
}

impl Inner {
    pub(crate) fn now(&self) -> Position {
        self.ground.clock.now()
    }

    pub(crate) async fn connect(&self, url: &BusUrl) -> Result<Arc<dyn Bus>, Error> {
        let connection = self.buses().entry(url.to_string()).or_default().clone();
        // Whoever comes second waits for the first. Where that one failed, all who waited try it at
        // once, so that none waits for many failures in turn; the first to succeed stays.
        let turn = connection.opening.try_lock();
        if turn.is_err() {
            drop(connection.opening.lock().await);
        }
        if let Some(bus) = connection.bus.get() {
            return Ok(bus.clone());
        }
        let bus = (self.ground.bus)(buses::open(url, &self.path).await?);
        Ok(connection.bus.get_or_init(|| bus).clone())
    }

    /// Has those who need a bus use one that is open.
    pub(crate) fn adopt(&self, url: &BusUrl, bus: Arc<dyn Bus>) {
        let connection = Connection {
            bus: OnceLock::from((self.ground.bus)(bus)),
            opening: tokio::sync::Mutex::default(),
        };
        self.buses().insert(url.to_string(), Arc::new(connection));
    }

    /// Has the next who needs a bus open it anew: another may have taken its place.
    pub(crate) fn disconnect(&self, url: &BusUrl) {
        self.buses().remove(&url.to_string());
    }

    fn buses(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Connection>>> {
        self.buses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn asking(&self) -> AskingOptions {
        lock(&self.asking).options.clone()
    }

    /// When the next request for keys may leave, in whichever stream; it is counted as sent.
    pub(crate) fn reserve_request(&self) -> Instant {
        lock(&self.asking).reserve()
    }
}

/// A stream that a home knows.
#[derive(Clone, Debug)]
pub struct StreamInfo {
    /// Its local name.
    pub name: Name,
    /// Its id.
    pub id: StreamId,
    /// Its owner.
    pub owner: UserId,
    /// Its bus.
    pub bus: BusUrl,
}

impl Home {
    /// Whether a folder holds a home.
    pub fn exists(path: &Path) -> bool {
        path.join(STORE_FILE).exists()
    }

    /// Makes a home with a new user and its first device in a folder, which is made when missing.
    ///
    /// # Errors
    ///
    /// Fails when there is a home already, or the folder cannot be written.
    pub async fn init(path: &Path, options: InitOptions) -> Result<Self, Error> {
        Self::check_free_of_homes(path)?;
        let folder = absolute(path)?;
        let settings = options.settings(&folder)?;
        let inner = off_thread(move || {
            let passphrase = match &options.passphrase {
                Passphrase::None => None,
                Passphrase::Given(passphrase) => Some(passphrase),
            };
            make(&folder, passphrase, &settings)?;
            load(folder, passphrase, Ground::default())
        });
        Ok(Self {
            inner: Arc::new(inner.await??),
        })
    }

    pub(crate) fn check_free_of_homes(path: &Path) -> Result<(), Error> {
        if Self::exists(path) {
            return Err(Error::HomeExists(path.into()));
        }
        match path.join(KEY_FILE).exists() {
            true => Err(Error::HalfMade(path.into())),
            false => Ok(()),
        }
    }

    /// Opens a home.
    ///
    /// # Errors
    ///
    /// Fails when the folder holds none, the passphrase is missing or wrong, or the store is
    /// damaged.
    pub async fn open(path: &Path, passphrase: Option<&SecretBytes>) -> Result<Self, Error> {
        Self::danger_open_on(path, passphrase, Ground::default()).await
    }

    /// Opens a home on another ground than the system's own.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    #[doc(hidden)]
    pub async fn danger_open_on(
        path: &Path,
        passphrase: Option<&SecretBytes>,
        ground: Ground,
    ) -> Result<Self, Error> {
        if !Self::exists(path) {
            return Err(Error::NoHome(path.into()));
        }
        let folder = absolute(path)?;
        let passphrase = passphrase.map(SecretBytes::duplicate);
        let inner = off_thread(move || load(folder, passphrase.as_ref(), ground)).await??;
        Ok(Self {
            inner: Arc::new(inner),
        })
    }
}

/// The user, the device, and the people they know.
impl Home {
    /// The user.
    pub fn user(&self) -> UserId {
        self.inner.identity.user()
    }

    /// The device.
    pub fn device(&self) -> DeviceId {
        self.inner.identity.device()
    }

    /// Whether the device was added to the user by another: it does not hold the root key.
    pub fn is_added(&self) -> bool {
        self.inner.identity.root().is_none()
    }

    /// What the user calls itself.
    pub fn name(&self) -> Option<&Name> {
        self.inner.name.as_ref()
    }

    /// The bus of new streams.
    pub fn bus(&self) -> &BusUrl {
        &self.inner.bus
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Gives a user a name in this home. A name stays with its user; another name for the same user
    /// replaces the first. Writes the store on the calling thread.
    ///
    /// # Errors
    ///
    /// Fails when the name is another user's.
    pub fn add_contact(&self, name: &Name, user: UserId) -> Result<(), Error> {
        let taken = self
            .contacts()?
            .into_iter()
            .any(|(of, other)| of == *name && other != user);
        match taken {
            true => Err(Error::NameTaken(name.to_string())),
            false => self.inner.vault.put_contact(user, name),
        }
    }

    /// Every contact, by name. Reads the store on the calling thread.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be read.
    pub fn contacts(&self) -> Result<Vec<(Name, UserId)>, Error> {
        self.inner.vault.contacts()
    }

    /// Finds the user of a name. Reads the store on the calling thread.
    ///
    /// # Errors
    ///
    /// Fails when there is no such contact.
    pub fn contact(&self, name: &Name) -> Result<UserId, Error> {
        let found = self.contacts()?.into_iter().find(|(of, _)| of == name);
        found
            .map(|(_, user)| user)
            .ok_or_else(|| Error::NoUser(name.to_string()))
    }

    /// The 100-bit fingerprint of a user id: six groups of five digits, to be read aloud.
    pub fn fingerprint(user: &UserId) -> String {
        let hash = sealcast_crypto::digest("sealcast.v1 fingerprint", &[&user.0]);
        let mut value = [0; 16];
        value[3..].copy_from_slice(&hash.as_bytes()[..13]);
        let value = u128::from_be_bytes(value) >> 4;
        let group = |i: u32| value / 100_000_u128.pow(i) % 100_000;
        let groups: Vec<_> = (0..6).rev().map(|i| format!("{:05}", group(i))).collect();
        groups.join(" ")
    }
}

/// Streams.
impl Home {
    /// Says how this home asks others for keys, in streams that do not ask yet.
    pub fn set_asking(&self, options: AskingOptions) {
        *lock(&self.inner.asking) = HomeAsking::new(options);
    }

    /// What asking for keys came to so far in all streams.
    pub fn asked(&self) -> AskingCounts {
        self.inner.asked.all()
    }

    /// What asking for keys came to so far in one stream.
    pub fn asked_in(&self, stream: &StreamId) -> AskingCounts {
        self.inner.asked.of(stream)
    }

    /// Makes a stream that this user owns, and announces it on its bus.
    ///
    /// # Errors
    ///
    /// Fails when the name is taken or the bus cannot be reached.
    pub async fn create_stream(
        &self,
        name: &Name,
        options: StreamOptions,
    ) -> Result<Stream, Error> {
        self.check_free(name, None)?;
        let url = match options.bus {
            Some(url) => url.absolute(&std::env::current_dir().map_err(Error::Folder)?),
            None => Ok(self.inner.bus.clone()),
        };
        let url = url.map_err(Error::BusUrl)?;
        let bus = self.connect(&url).await?;
        self.inner.level_list(&*bus).await?;
        let (identity, now) = (&self.inner.identity, self.inner.now());
        let (sharing, public) = (options.sharing, options.public);
        let entry = leaving_no_trace(|| genesis(identity, &mut clock::rng(), now, sharing, public));
        let (id, entry) = entry.map_err(|_| Error::Internal("the first entry is odd"))?;
        let ticket = Ticket::new(&url.to_string(), id, self.user(), name.clone());
        let ticket = ticket.map_err(Error::Ticket)?;
        let access = topic(&StreamTopics(id).access(&self.device()))?;
        bus.append(&access, vec![entry.wire().to_vec()]).await?;
        self.keep_membership(&ticket, name).await?;
        self.open_stream(ticket, name.clone()).await
    }

    /// Joins the stream of a ticket, and publishes this device's card on its bus so that keys can
    /// be sealed for it.
    ///
    /// # Errors
    ///
    /// Fails when the name is taken by another stream, or the bus cannot be reached.
    pub async fn join(&self, ticket: &Ticket, name: Option<&Name>) -> Result<Stream, Error> {
        let name = name.unwrap_or(ticket.name());
        self.check_free(name, Some(ticket.stream()))?;
        let url = BusUrl::parse(ticket.bus()).map_err(Error::BusUrl)?;
        check_there(&url)?;
        let bus = self.connect(&url).await?;
        self.inner.level_list(&*bus).await?;
        self.keep_membership(ticket, name).await?;
        self.open_stream(ticket.clone(), name.clone()).await
    }

    /// Opens a stream by its local name.
    ///
    /// # Errors
    ///
    /// Fails when this home knows no such stream, or its bus cannot be reached.
    pub async fn stream(&self, name: &Name) -> Result<Stream, Error> {
        let known = self.inner.vault.memberships()?;
        let found = known.into_iter().find(|of| of.name == *name);
        let found = found.ok_or_else(|| Error::NoStream(name.to_string()))?;
        let ticket = Ticket::parse(&found.ticket).map_err(Error::Ticket)?;
        self.open_stream(ticket, found.name).await
    }

    /// Every stream of this home, by name. Reads the store on the calling thread.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be read.
    pub fn streams(&self) -> Result<Vec<StreamInfo>, Error> {
        let mut streams = Vec::new();
        for known in self.inner.vault.memberships()? {
            let ticket = Ticket::parse(&known.ticket).map_err(Error::Ticket)?;
            streams.push(StreamInfo {
                name: known.name,
                id: ticket.stream(),
                owner: ticket.owner(),
                bus: BusUrl::parse(ticket.bus()).map_err(Error::BusUrl)?,
            });
        }
        streams.sort_unstable_by(|a, b| a.name.as_str().cmp(b.name.as_str()));
        Ok(streams)
    }

    async fn keep_membership(&self, ticket: &Ticket, name: &Name) -> Result<(), Error> {
        let (inner, ticket, name) = (self.inner.clone(), ticket.clone(), name.clone());
        off_thread(move || inner.vault.put_membership(&ticket, &name)).await?
    }

    async fn open_stream(&self, ticket: Ticket, name: Name) -> Result<Stream, Error> {
        let url = BusUrl::parse(ticket.bus()).map_err(Error::BusUrl)?;
        check_there(&url)?;
        let bus = self.connect(&url).await?;
        let opened = Stream::open(self.inner.clone(), bus, ticket, name).await;
        if matches!(opened, Err(Error::Bus(_))) {
            self.inner.disconnect(&url);
        }
        opened
    }

    pub(crate) async fn connect(&self, url: &BusUrl) -> Result<Arc<dyn Bus>, Error> {
        self.inner.connect(url).await
    }

    fn check_free(&self, name: &Name, stream: Option<StreamId>) -> Result<(), Error> {
        for known in self.streams()? {
            let is_same = Some(known.id) == stream;
            if known.name == *name && !is_same {
                return Err(Error::NameTaken(name.to_string()));
            }
        }
        Ok(())
    }
}

/// A stream's folder that is gone is not made anew: that would hide what is missing.
pub(crate) fn check_there(url: &BusUrl) -> Result<(), Error> {
    let Place::File(folder) = url.place() else {
        return Ok(());
    };
    let there = std::fs::metadata(folder);
    there.map(|_| ()).map_err(|cause| {
        Error::Bus(BusError::Unreachable {
            place: folder.display().to_string(),
            cause: Box::new(cause),
        })
    })
}

pub(crate) fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(Error::Folder)
}

pub(crate) fn topic(name: &str) -> Result<Topic, Error> {
    Topic::new(name).map_err(|_| Error::Internal("a topic has an odd name"))
}

/// Writes the key file and a store with a new identity and its card.
fn make(folder: &Path, passphrase: Option<&SecretBytes>, settings: &Settings) -> Result<(), Error> {
    let protection = passphrase.map_or(Protection::Plain, Protection::Passphrase);
    let mut rng = clock::rng();
    let key = KeyFile::generate(folder.join(KEY_FILE), protection, &mut rng)?;
    let store = SqliteStore::open(folder.join(STORE_FILE), key, Box::new(clock::rng()))?;
    let vault = Vault(Arc::new(store));
    let now = clock::Clock::system().now();
    let identity = Identity::generate(&mut rng);
    vault.begin(&identity, settings, &first_card(&identity, now)?)
}

pub(crate) fn load(
    path: PathBuf,
    passphrase: Option<&SecretBytes>,
    ground: Ground,
) -> Result<Inner, Error> {
    let key = KeyFile::open(path.join(KEY_FILE), passphrase)?;
    let store = SqliteStore::open(path.join(STORE_FILE), key, Box::new(clock::rng()))?;
    let store = Arc::new(store);
    let vault = Vault((ground.store)(store.clone()));
    let half_made = || Error::HalfMade(path.clone());
    if vault.newcomer()?.is_some() {
        return Err(Error::NotAdded(path));
    }
    let identity = vault.identity()?.ok_or_else(half_made)?;
    let settings = vault.settings()?.ok_or_else(half_made)?;
    Ok(Inner {
        name: settings.name.parse().ok(),
        bus: BusUrl::parse(&settings.bus).map_err(Error::BusUrl)?,
        path,
        identity,
        fallbacks: Mutex::new(vault.fallbacks()?),
        owes_purge: AtomicBool::new(false),
        store,
        vault,
        buses: Mutex::new(BTreeMap::new()),
        asking: Mutex::default(),
        asked: Counted::default(),
        ground,
    })
}

impl From<KeyFileError> for Error {
    fn from(error: KeyFileError) -> Self {
        if matches!(error, KeyFileError::NeedsPassphrase { .. }) {
            Self::NeedsPassphrase
        } else if matches!(error, KeyFileError::WrongPassphrase { .. }) {
            Self::WrongPassphrase
        } else {
            Self::KeyFile(error)
        }
    }
}

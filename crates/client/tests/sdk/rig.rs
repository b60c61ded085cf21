//! Homes on one file bus, a clock that the test sets, and a bus that misbehaves on demand.

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sealcast::{
    Bound, BusUrl, Clock, Delivery, GrantOptions, Ground, Home, InitOptions, Interval, Name,
    Passphrase, Position, Reason, Roles, State, Stream, StreamOptions, Subscription, UserId,
};
use sealcast_bus::{
    Bus, BusError, BusFuture, FileBus, Item, Limits, Listener, Offset, Tail, Topic,
};
use sealcast_protocol::{EnvelopeView, Header, StreamTopics};
use sealcast_store::{Key, Space, Store, StoreError, Txn, Value};

mod folder;

pub(crate) use folder::copy_folder;

/// A folder with homes and a bus.
pub(crate) struct Rig {
    folder: tempfile::TempDir,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// A small one that may lie in memory, where waiting for the disk takes no time.
    pub(crate) fn small() -> Self {
        let memory = Path::new("/dev/shm");
        Self {
            folder: tempfile::tempdir_in(memory).unwrap_or_else(|_| tempfile::tempdir().unwrap()),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn bus_url(&self) -> BusUrl {
        BusUrl::file(&self.path("bus")).unwrap()
    }

    /// The bus as the broker sees it.
    pub(crate) async fn bus(&self) -> FileBus {
        FileBus::open(self.path("bus")).await.unwrap()
    }

    pub(crate) async fn home(&self, name: &str) -> Home {
        let options = InitOptions {
            name: Some(name.parse().unwrap()),
            bus: Some(self.bus_url()),
            passphrase: Passphrase::None,
        };
        Home::init(&self.path(name), options).await.unwrap()
    }

    pub(crate) async fn homes<const N: usize>(&self, names: [&str; N]) -> [Home; N] {
        let mut homes = Vec::new();
        for name in names {
            homes.push(self.home(name).await);
        }
        homes.try_into().unwrap()
    }

    pub(crate) async fn again(&self, name: &str) -> Home {
        Home::open(&self.path(name), None).await.unwrap()
    }

    pub(crate) async fn on(&self, name: &str, ground: Ground) -> Home {
        Home::danger_open_on(&self.path(name), None, ground)
            .await
            .unwrap()
    }

    /// Makes a home and opens it by a clock of the test's.
    pub(crate) async fn home_by(&self, name: &str, time: &Time) -> Home {
        drop(self.home(name).await);
        self.on(name, time.ground()).await
    }

    pub(crate) async fn homes_by<const N: usize>(
        &self,
        names: [&str; N],
        time: &Time,
    ) -> [Home; N] {
        let mut homes = Vec::new();
        for name in names {
            homes.push(self.home_by(name, time).await);
        }
        homes.try_into().unwrap()
    }

    /// Every item of the stream's data topic.
    pub(crate) async fn data(&self, stream: &Stream) -> Vec<Vec<u8>> {
        self.items(&StreamTopics(stream.id()).data()).await
    }

    pub(crate) async fn items(&self, topic: &str) -> Vec<Vec<u8>> {
        let (bus, topic) = (self.bus().await, Topic::new(topic).unwrap());
        let (mut all, mut at) = (Vec::new(), Offset(0));
        loop {
            let items = bus.read(&topic, at, 1 << 20).await.unwrap();
            let Some(last) = items.last() else {
                return all;
            };
            at = Offset(last.offset.0 + 1);
            all.extend(items.into_iter().map(|item| item.payload));
        }
    }

    pub(crate) async fn headers(&self, stream: &Stream) -> Vec<Header> {
        let data = self.data(stream).await;
        data.iter()
            .map(|item| *EnvelopeView::parse(item).unwrap().header())
            .collect()
    }

    /// How many items the keys topic has.
    pub(crate) async fn keys_end(&self, stream: &Stream) -> usize {
        self.items(&StreamTopics(stream.id()).keys()).await.len()
    }

    /// Puts bytes on the data topic, as anybody may.
    pub(crate) async fn inject(&self, stream: &Stream, payload: &[u8]) {
        self.inject_times(1, stream, payload).await;
    }

    pub(crate) async fn inject_times(&self, count: usize, stream: &Stream, payload: &[u8]) {
        let topic = Topic::new(&StreamTopics(stream.id()).data()).unwrap();
        let bus = self.bus().await;
        let payloads = vec![payload.to_vec(); count];
        bus.append(&topic, payloads).await.unwrap();
    }
}

pub(crate) fn name(name: &str) -> Name {
    name.parse().unwrap()
}

pub(crate) async fn kitchen(home: &Home) -> Stream {
    let options = StreamOptions::default();
    home.create_stream(&name("kitchen"), options).await.unwrap()
}

/// Opens it as a new process of the home does.
pub(crate) async fn open(home: &Home) -> Stream {
    home.stream(&name("kitchen")).await.unwrap()
}

/// A kitchen of one, of which another reads all.
pub(crate) async fn kitchen_with(owner: &Home, reader: &Home) -> (Stream, Stream) {
    let stream = kitchen(owner).await;
    let joined = join(reader, &stream).await;
    stream.grant(all_to(reader.user())).await.unwrap();
    (stream, joined)
}

pub(crate) async fn join(home: &Home, stream: &Stream) -> Stream {
    home.join(stream.ticket(), None).await.unwrap()
}

pub(crate) fn to(user: UserId, roles: Roles, interval: Interval) -> GrantOptions {
    GrantOptions {
        user,
        roles,
        from: Bound::At(interval.from),
        until: Bound::At(interval.until),
        reshare: false,
    }
}

pub(crate) fn all_to(user: UserId) -> GrantOptions {
    to(user, Roles::READER, Interval::ALL)
}

pub(crate) fn from_now(user: UserId, roles: Roles) -> GrantOptions {
    GrantOptions {
        from: Bound::Now,
        ..to(user, roles, Interval::ALL)
    }
}

pub(crate) fn between(from: Position, until: Position) -> Interval {
    Interval { from, until }
}

/// A delivery as a line: the text that was opened, or what became of it.
pub(crate) fn line(delivery: &Delivery) -> String {
    match (delivery.state, delivery.reason) {
        (State::Opened, None) => {
            String::from_utf8_lossy(delivery.payload.as_deref().unwrap()).into()
        }
        (state, None) => format!("{state:?}"),
        (_, Some(Reason::Missing(missing))) => format!("Gap({missing})"),
        (state, Some(reason)) => format!("{state:?}({reason:?})"),
    }
}

pub(crate) async fn deliveries(stream: &Stream) -> Vec<Delivery> {
    let mut reader = stream.read(Interval::ALL).await.unwrap();
    let mut all = Vec::new();
    while let Some(delivery) = reader.next().await.unwrap() {
        all.push(delivery);
    }
    all
}

/// The whole history as lines.
pub(crate) async fn history(stream: &Stream) -> Vec<String> {
    deliveries(stream).await.iter().map(line).collect()
}

/// The next lines of a subscription.
pub(crate) async fn next(subscription: &mut Subscription, count: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for _ in 0..count {
        lines.push(line(&subscription.next().await.unwrap()));
    }
    lines
}

pub(crate) async fn say(stream: &Stream, text: &str) -> Position {
    stream.publish(text.as_bytes()).await.unwrap().position
}

pub(crate) fn texts(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|i| format!("{prefix}{i}")).collect()
}

/// A clock that stands still until the test moves it. It starts at the system's time.
#[derive(Clone)]
pub(crate) struct Time(Arc<AtomicU64>);

impl Time {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicU64::new(Clock::system().now().0)))
    }

    pub(crate) fn now(&self) -> Position {
        Position(self.0.load(Ordering::SeqCst))
    }

    pub(crate) fn pass(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }

    pub(crate) fn go_back(&self, ms: u64) {
        self.0.fetch_sub(ms, Ordering::SeqCst);
    }

    pub(crate) fn ground(&self) -> Ground {
        let time = self.clone();
        Ground {
            clock: Clock::new(move || time.now()),
            ..Ground::default()
        }
    }
}

/// What a bus is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Append,
    Read,
    End,
}

/// How it behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Honest,
    /// Does nothing, and says so.
    Fail,
    /// Says that it did what it did not do.
    Lose,
    /// Shows nothing from this offset on.
    Hide(Offset),
    /// Cannot show what lies there.
    Damaged(Offset),
    /// Lets a stranger write something first.
    Flood,
    /// Has no room for now.
    Full,
    /// Answers when it has other manners.
    Mute,
    /// Takes no payload any more that is longer than this.
    Shrunk(usize),
    /// Never says whether it has appended.
    Hang,
}

type Manners = Arc<Mutex<dyn FnMut(Ask, &str) -> Manner + Send>>;

/// A bus that behaves as it is told, by what it is asked and the topic's name.
#[derive(Clone)]
pub(crate) struct Meddler {
    inner: Arc<dyn Bus>,
    manners: Manners,
}

impl Meddler {
    pub(crate) fn ground(manners: impl FnMut(Ask, &str) -> Manner + Send + 'static) -> Ground {
        let manners: Manners = Arc::new(Mutex::new(manners));
        Ground {
            bus: Arc::new(move |inner| {
                let manners = manners.clone();
                Arc::new(Self { inner, manners })
            }),
            ..Ground::default()
        }
    }

    async fn flood(&self, manner: Manner, topic: &Topic) -> Result<(), BusError> {
        if manner == Manner::Flood {
            self.inner.append(topic, vec![b"rubbish".to_vec()]).await?;
        }
        while manner == Manner::Mute && self.manner(Ask::Read, topic) == manner {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        Ok(())
    }

    fn manner(&self, ask: Ask, topic: &Topic) -> Manner {
        // It may have panicked before, as it was told to.
        let manners = self.manners.lock();
        (manners.unwrap_or_else(PoisonError::into_inner))(ask, topic.as_ref())
    }
}

impl fmt::Debug for Meddler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meddler")
    }
}

pub(crate) fn unreachable() -> BusError {
    BusError::Unreachable {
        place: "here".into(),
        cause: "told to".into(),
    }
}

fn full() -> BusError {
    BusError::Full {
        place: "here".into(),
    }
}

fn damaged() -> BusError {
    BusError::Damaged {
        place: "here".into(),
        cause: "told to".into(),
    }
}

impl Bus for Meddler {
    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    fn append(&self, topic: &Topic, payloads: Vec<Vec<u8>>) -> BusFuture<'_, Offset> {
        let (topic, manner) = (topic.clone(), self.manner(Ask::Append, topic));
        Box::pin(async move {
            match manner {
                Manner::Fail => return Err(unreachable()),
                Manner::Lose => return self.inner.end(&topic).await,
                Manner::Full => return Err(full()),
                Manner::Hang => return std::future::pending().await,
                Manner::Shrunk(limit) => Limits::new(limit, usize::MAX).check(&payloads)?,
                Manner::Honest | Manner::Hide(_) | Manner::Damaged(_) => (),
                Manner::Flood | Manner::Mute => (),
            }
            self.inner.append(&topic, payloads).await
        })
    }

    fn append_at(&self, topic: &Topic, end: Offset, payloads: Vec<Vec<u8>>) -> BusFuture<'_, bool> {
        let (topic, manner) = (topic.clone(), self.manner(Ask::Append, topic));
        Box::pin(async move {
            match manner {
                Manner::Fail => return Err(unreachable()),
                Manner::Lose => return Ok(true),
                Manner::Full => return Err(full()),
                Manner::Hang => return std::future::pending().await,
                Manner::Shrunk(limit) => Limits::new(limit, usize::MAX).check(&payloads)?,
                Manner::Honest | Manner::Hide(_) | Manner::Damaged(_) => (),
                Manner::Flood | Manner::Mute => (),
            }
            self.inner.append_at(&topic, end, payloads).await
        })
    }

    fn read(&self, topic: &Topic, from: Offset, bytes_max: usize) -> BusFuture<'_, Vec<Item>> {
        let (topic, manner) = (topic.clone(), self.manner(Ask::Read, topic));
        Box::pin(async move {
            self.flood(manner, &topic).await?;
            let mut items = self.inner.read(&topic, from, bytes_max).await?;
            match manner {
                Manner::Fail => return Err(unreachable()),
                Manner::Hide(end) => items.retain(|item| item.offset < end),
                Manner::Damaged(at) if at == from => return Err(damaged()),
                Manner::Damaged(at) => items.retain(|item| item.offset < at || from > at),
                Manner::Honest | Manner::Lose | Manner::Flood => (),
                Manner::Full | Manner::Mute | Manner::Shrunk(_) | Manner::Hang => (),
            }
            Ok(items)
        })
    }

    fn end(&self, topic: &Topic) -> BusFuture<'_, Offset> {
        let (topic, manner) = (topic.clone(), self.manner(Ask::End, topic));
        Box::pin(async move {
            self.flood(manner, &topic).await?;
            let end = self.inner.end(&topic).await?;
            match manner {
                Manner::Fail => Err(unreachable()),
                Manner::Hide(at) => Ok(end.min(at)),
                Manner::Honest | Manner::Lose | Manner::Damaged(_) | Manner::Flood => Ok(end),
                Manner::Full | Manner::Mute | Manner::Shrunk(_) | Manner::Hang => Ok(end),
            }
        })
    }

    fn tail(&self, topics: Vec<(Topic, Offset)>) -> Box<dyn Tail> {
        self.inner.tail(topics)
    }

    fn trim(&self, topic: &Topic, before: Offset) -> BusFuture<'_, ()> {
        self.inner.trim(topic, before)
    }

    fn send(&self, topic: &Topic, payload: Vec<u8>) -> BusFuture<'_, ()> {
        self.inner.send(topic, payload)
    }

    fn listen(&self, topics: Vec<Topic>) -> BusFuture<'_, Box<dyn Listener>> {
        self.inner.listen(topics)
    }
}

type Deed = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A bus on which something happens right before the first append to a topic that ends so.
pub(crate) fn once_before_append(
    ground: Ground,
    topic: &'static str,
    act: impl Fn() -> Deed + Send + Sync + 'static,
) -> Ground {
    let act: Arc<dyn Fn() -> Deed + Send + Sync> = Arc::new(act);
    Ground {
        bus: Arc::new(move |inner| {
            Arc::new(Racing {
                inner,
                topic,
                is_over: AtomicBool::new(false),
                act: act.clone(),
            })
        }),
        ..ground
    }
}

struct Racing {
    inner: Arc<dyn Bus>,
    topic: &'static str,
    is_over: AtomicBool,
    act: Arc<dyn Fn() -> Deed + Send + Sync>,
}

impl Racing {
    async fn race(&self, topic: &Topic) {
        let is_due = topic.as_ref().ends_with(self.topic);
        if is_due && !self.is_over.swap(true, Ordering::SeqCst) {
            (self.act)().await;
        }
    }
}

impl fmt::Debug for Racing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Racing")
    }
}

impl Bus for Racing {
    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    fn append(&self, topic: &Topic, payloads: Vec<Vec<u8>>) -> BusFuture<'_, Offset> {
        let topic = topic.clone();
        Box::pin(async move {
            self.race(&topic).await;
            self.inner.append(&topic, payloads).await
        })
    }

    fn append_at(&self, topic: &Topic, end: Offset, payloads: Vec<Vec<u8>>) -> BusFuture<'_, bool> {
        let topic = topic.clone();
        Box::pin(async move {
            self.race(&topic).await;
            self.inner.append_at(&topic, end, payloads).await
        })
    }

    fn read(&self, topic: &Topic, from: Offset, bytes_max: usize) -> BusFuture<'_, Vec<Item>> {
        self.inner.read(topic, from, bytes_max)
    }

    fn end(&self, topic: &Topic) -> BusFuture<'_, Offset> {
        self.inner.end(topic)
    }

    fn tail(&self, topics: Vec<(Topic, Offset)>) -> Box<dyn Tail> {
        self.inner.tail(topics)
    }

    fn trim(&self, topic: &Topic, before: Offset) -> BusFuture<'_, ()> {
        self.inner.trim(topic, before)
    }

    fn send(&self, topic: &Topic, payload: Vec<u8>) -> BusFuture<'_, ()> {
        self.inner.send(topic, payload)
    }

    fn listen(&self, topics: Vec<Topic>) -> BusFuture<'_, Box<dyn Listener>> {
        self.inner.listen(topics)
    }
}

type BeforeEach = Arc<dyn Fn() -> bool + Send + Sync>;

/// A store that asks before each transaction whether it may succeed.
pub(crate) struct Gated {
    inner: Arc<dyn Store>,
    may_succeed: BeforeEach,
}

impl Gated {
    pub(crate) fn over(
        ground: Ground,
        may_succeed: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Ground {
        let may_succeed: BeforeEach = Arc::new(may_succeed);
        Ground {
            store: Arc::new(move |inner| {
                let may_succeed = may_succeed.clone();
                Arc::new(Self { inner, may_succeed })
            }),
            ..ground
        }
    }
}

impl fmt::Debug for Gated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gated")
    }
}

impl Store for Gated {
    fn get(&self, key: &Key) -> Result<Option<Value>, StoreError> {
        self.inner.get(key)
    }

    fn scan(&self, space: Space, prefix: &[u8]) -> Result<Vec<(Key, Value)>, StoreError> {
        self.inner.scan(space, prefix)
    }

    fn transact(
        &self,
        step: &mut dyn FnMut(&mut dyn Txn) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        match (self.may_succeed)() {
            true => self.inner.transact(step),
            // It fails at its very end, when everything was written.
            false => self.inner.transact(&mut |txn| {
                step(txn)?;
                Err(StoreError::Aborted)
            }),
        }
    }

    fn version(&self) -> Result<u64, StoreError> {
        self.inner.version()
    }
}

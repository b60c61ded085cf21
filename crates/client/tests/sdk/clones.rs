//! A home that was put back to an older state, and two copies of one home that are used at once.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex};

use sealcast::{
    Alarm, Bound, ControlTopic, Error, FileKey, FileLock, GrantOptions, Ground, Home, Interval,
    Passphrase, Position, Roles, SecretBytes, State, Stream,
};
use sealcast_bus::{Bus, BusFuture, FileBus, Item, Limits, Listener, Offset, Tail, Topic};
use sealcast_crash::Sent;
use sealcast_protocol::StreamTopics;

use crate::rig::*;

fn put_back(rig: &Rig, copy: &str, home: &str) {
    std::fs::remove_dir_all(rig.path(home)).unwrap();
    copy_folder(&rig.path(copy), &rig.path(home));
}

/// No message key was used for two envelopes.
async fn nothing_repeats(rig: &Rig, stream: &Stream) {
    let mut sent = Sent::default();
    sent.extend("data", &rig.data(stream).await);
    assert!(sent.reused().is_empty(), "{:?}", sent.reused());
}

/// What opened, and what else was told.
async fn read(stream: &Stream) -> (BTreeSet<String>, BTreeSet<String>) {
    let all = deliveries(stream).await;
    let (opened, told): (Vec<_>, Vec<_>) = all.iter().partition(|of| of.state == State::Opened);
    let lines = |of: Vec<_>| of.into_iter().map(line).collect();
    (lines(opened), lines(told))
}

fn set(texts: impl IntoIterator<Item = impl Into<String>>) -> BTreeSet<String> {
    texts.into_iter().map(Into::into).collect()
}

/// Faults 20 and 21: whatever the restored home has forgotten, and wherever its clock stands.
#[tokio::test]
async fn a_home_put_back_to_an_older_state_repeats_nothing_and_keeps_its_word() {
    for (back_ms, rekeys) in [(0, true), (300_000, true), (300_000, false), (0, false)] {
        let (rig, time) = (Rig::small(), Time::new());
        let [alice, bob, carol] = rig.homes_by(["alice", "bob", "carol"], &time).await;
        let stream = kitchen(&alice).await;
        let (bobs, carols) = (join(&bob, &stream).await, join(&carol, &stream).await);
        stream.grant(all_to(bob.user())).await.unwrap();
        say(&stream, "one").await;
        drop((stream, alice));
        copy_folder(&rig.path("alice"), &rig.path("copy"));

        let alice = rig.on("alice", time.ground()).await;
        let stream = open(&alice).await;
        time.pass(60_000);
        say(&stream, "two").await;
        if rekeys {
            stream.rekey().await.unwrap();
        }
        let ended = GrantOptions {
            until: Bound::Now,
            ..all_to(carol.user())
        };
        let cut = stream.grant(ended).await.unwrap().interval.until;
        time.pass(60_000);
        let last = say(&stream, "three").await;
        drop((stream, alice));
        put_back(&rig, "copy", "alice");

        time.pass(1_000);
        time.go_back(back_ms);
        let alice = rig.on("alice", time.ground()).await;
        let stream = open(&alice).await;
        assert_eq!(stream.alarms(), [Alarm::HomeWentBack]);
        assert!(last > cut && say(&stream, "four").await >= last);
        stream.rekey().await.unwrap();
        assert!(say(&stream, "five").await >= last);
        let later = stream.grant(from_now(carol.user(), Roles::READER)).await;
        assert!(later.unwrap().interval.from > last);

        let all = ["one", "two", "three", "four", "five"];
        assert_eq!(read(&bobs).await, (set(all), set(["Branch"])));
        let (opened, told) = read(&carols).await;
        assert_eq!(opened, set(["one", "two"]), "{told:?}");
        assert!(told.contains("Sealed(NotGranted)"));
        assert_eq!(stream.who().await.unwrap().len(), 4);
        assert_eq!(bobs.alarms(), []);
        nothing_repeats(&rig, &stream).await;
        let again = open(&rig.on("alice", time.ground()).await).await;
        assert_eq!(again.alarms(), [], "it is told once");
    }
}

/// Fault 21, where nothing on the bus but the messages says how late it was.
#[tokio::test]
async fn an_expired_reader_opens_nothing_that_a_restored_home_seals() {
    let (rig, time) = (Rig::small(), Time::new());
    let [alice, bob] = rig.homes_by(["alice", "bob"], &time).await;
    let stream = kitchen(&alice).await;
    let bobs = join(&bob, &stream).await;
    let until = time.now().after(30_000);
    let ended = to(bob.user(), Roles::READER, between(Position::START, until));
    stream.grant(ended).await.unwrap();
    say(&stream, "one").await;
    drop((stream, alice));
    copy_folder(&rig.path("alice"), &rig.path("copy"));
    let alice = rig.on("alice", time.ground()).await;
    let stream = open(&alice).await;
    time.pass(60_000);
    let last = say(&stream, "two").await;
    drop((stream, alice));
    put_back(&rig, "copy", "alice");

    time.go_back(50_000);
    let stream = open(&rig.on("alice", time.ground()).await).await;
    assert!(say(&stream, "three").await >= last);
    let (opened, _) = read(&bobs).await;
    assert_eq!(opened, set(["one"]));
    assert_eq!(stream.alarms(), [Alarm::HomeWentBack]);
}

/// Fault 21, in a stream where others sealed so much since that what this device sealed lies far back,
/// or strangers wrote it full.
#[tokio::test]
async fn a_home_restored_from_a_backup_finds_what_it_sealed_however_far_back() {
    let (rig, time) = (Rig::small(), Time::new());
    let alice = rig.home_by("alice", &time).await;
    let stream = kitchen(&alice).await;
    say(&stream, "one").await;
    let secret = || SecretBytes::from(b"correct horse".to_vec());
    let lock = FileLock::passphrase(secret()).danger_with_work_factor(1);
    let backup = alice.backup(lock, false).await.unwrap();
    time.pass(60_000);
    let last = say(&stream, "two").await;
    rig.inject_times(200, &stream, b"rubbish").await;
    drop((stream, alice));
    let key = FileKey::Passphrase(secret());
    let again = rig.path("again");
    let restored = Home::restore(&again, &backup.file, key, Passphrase::None).await;
    drop(restored.unwrap());

    time.go_back(50_000);
    for alarms in [vec![Alarm::HomeWentBack], Vec::new()] {
        let stream = open(&rig.on("again", time.ground()).await).await;
        assert_eq!(stream.alarms(), alarms);
        assert!(say(&stream, "three").await >= last);
    }
}

/// Fault 21, where nothing was sealed since and a session or an entry says how late it was.
#[tokio::test]
async fn a_restored_publisher_seals_nothing_below_what_it_started_or_wrote() {
    for grants in [false, true] {
        let (rig, time) = (Rig::small(), Time::new());
        let [alice, bob] = rig.homes_by(["alice", "bob"], &time).await;
        let stream = kitchen(&alice).await;
        let bobs = join(&bob, &stream).await;
        let publisher = to(bob.user(), Roles::PUBLISHER, Interval::ALL);
        stream.grant(publisher).await.unwrap();
        say(&bobs, "one").await;
        drop((bobs, bob));
        copy_folder(&rig.path("bob"), &rig.path("copy"));
        let bob = rig.on("bob", time.ground()).await;
        let bobs = open(&bob).await;
        time.pass(60_000);
        let promised = match grants {
            true => {
                let ended = GrantOptions {
                    until: Bound::Now,
                    ..all_to(rig.home("carol").await.user())
                };
                bobs.grant(ended).await.unwrap().interval.until
            }
            false => {
                bobs.rekey().await.unwrap();
                time.now()
            }
        };
        drop((bobs, bob));
        put_back(&rig, "copy", "bob");
        time.go_back(50_000);
        let bobs = open(&rig.on("bob", time.ground()).await).await;
        assert!(say(&bobs, "two").await >= promised, "{grants}");
        assert_eq!(bobs.alarms(), [Alarm::HomeWentBack]);
        assert_eq!(read(&stream).await.0, set(["one", "two"]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_copies_publish_grant_and_rekey_at_once_and_everything_opens() {
    let rig = Rig::small();
    let [alice, bob] = rig.homes(["alice", "bob"]).await;
    let (stream, bobs) = kitchen_with(&alice, &bob).await;
    say(&stream, "before").await;
    drop((stream, alice));
    copy_folder(&rig.path("alice"), &rig.path("copied"));
    let mut tasks = tokio::task::JoinSet::new();
    for of in ["alice", "copied"] {
        let (stream, bob) = (open(&rig.again(of).await).await, bob.user());
        tasks.spawn(async move {
            for i in 0..8 {
                say(&stream, &format!("{of} {i}")).await;
                // No two are alike: copies that sign the same bytes write one entry.
                let from = Position(i + of.len() as u64);
                let grant = to(bob, Roles::READER, between(from, Position::END));
                match i % 4 {
                    1 => drop(stream.grant(grant).await.unwrap()),
                    3 => stream.rekey().await.unwrap(),
                    _ => (),
                }
            }
            stream
        });
    }
    let mut alarms = Vec::new();
    while let Some(stream) = tasks.join_next().await {
        let stream = stream.unwrap();
        stream.sync().await.unwrap();
        alarms.extend(stream.alarms());
    }
    // Whoever came last has met the other.
    assert!(alarms.contains(&Alarm::HomeWentBack));
    assert!(
        alarms.iter().all(|of| *of == Alarm::HomeWentBack),
        "{alarms:?}"
    );
    let both = texts("alice ", 8).into_iter().chain(texts("copied ", 8));
    let all = set(both.chain(["before".to_owned()]));
    assert_eq!(read(&bobs).await, (all, set(["Branch"])));
    assert_eq!(bobs.who().await.unwrap().len(), 6);
    assert_eq!(bobs.alarms(), []);
    nothing_repeats(&rig, &bobs).await;
}

type Meanwhile = Mutex<Option<Box<dyn FnOnce() -> BusFuture<'static, ()> + Send>>>;

/// A bus on which something else happens right before the first append to a chain.
struct Overtaken {
    inner: Arc<dyn Bus>,
    meanwhile: Arc<Meanwhile>,
    /// Whether it can compare and append in one step.
    is_atomic: bool,
}

impl Overtaken {
    fn ground(meanwhile: Arc<Meanwhile>, is_atomic: bool) -> Ground {
        Ground {
            bus: Arc::new(move |inner| {
                let meanwhile = meanwhile.clone();
                Arc::new(Self {
                    inner,
                    meanwhile,
                    is_atomic,
                })
            }),
            ..Ground::default()
        }
    }

    async fn wait(&self, topic: &Topic) {
        let is_chain = topic.as_ref().contains("/access/");
        let meanwhile = self.meanwhile.lock().unwrap().take_if(|_| is_chain);
        if let Some(meanwhile) = meanwhile {
            meanwhile().await.unwrap();
        }
    }
}

impl fmt::Debug for Overtaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Overtaken")
    }
}

impl Bus for Overtaken {
    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    fn append(&self, topic: &Topic, payloads: Vec<Vec<u8>>) -> BusFuture<'_, Offset> {
        self.inner.append(topic, payloads)
    }

    fn append_at(&self, topic: &Topic, end: Offset, payloads: Vec<Vec<u8>>) -> BusFuture<'_, bool> {
        let topic = topic.clone();
        Box::pin(async move {
            if self.is_atomic {
                self.wait(&topic).await;
                return self.inner.append_at(&topic, end, payloads).await;
            }
            let is_there = self.inner.end(&topic).await? == end;
            self.wait(&topic).await;
            if is_there {
                self.inner.append(&topic, payloads).await?;
            }
            Ok(is_there)
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

/// A stream, and a copy of its owner's home that writes an entry when the home is about to write
/// one: what `meanwhile` makes of it.
async fn raced(rig: &Rig, is_atomic: bool) -> (Stream, Arc<Meanwhile>) {
    let alice = rig.home("alice").await;
    let stream = kitchen(&alice).await;
    stream.set_rekey_every(1_000_000).await.unwrap();
    drop((stream, alice));
    copy_folder(&rig.path("alice"), &rig.path("clone"));
    let meanwhile = Arc::new(Meanwhile::default());
    let ground = Overtaken::ground(meanwhile.clone(), is_atomic);
    let stream = open(&rig.on("alice", ground).await).await;
    (stream, meanwhile)
}

fn set_meanwhile(of: &Meanwhile, work: impl Future<Output = ()> + Send + 'static) {
    let work: BusFuture<'static, ()> = Box::pin(async move {
        work.await;
        Ok(())
    });
    *of.lock().unwrap() = Some(Box::new(move || work));
}

#[tokio::test]
async fn two_copies_that_write_the_log_at_one_moment_do_not_fork_it() {
    let rig = Rig::small();
    let [bob, carol] = rig.homes(["bob", "carol"]).await;
    let (stream, meanwhile) = raced(&rig, true).await;
    let (bobs, carols) = (join(&bob, &stream).await, join(&carol, &stream).await);
    let (copy, carol) = (open(&rig.again("clone").await).await, carol.user());
    let other = copy.clone();
    set_meanwhile(&meanwhile, async move {
        other.grant(all_to(carol)).await.unwrap();
    });
    stream.grant(all_to(bob.user())).await.unwrap();
    assert!(meanwhile.lock().unwrap().is_none(), "the copy came first");
    assert_eq!(stream.alarms(), [Alarm::HomeWentBack]);
    say(&stream, "one").await;
    say(&copy, "two").await;
    for of in [&bobs, &carols] {
        assert_eq!(read(of).await, (set(["one", "two"]), set(["Branch"])));
        assert_eq!(of.alarms(), []);
    }
    let chain = StreamTopics(stream.id()).access(&rig.again("alice").await.device());
    assert_eq!(rig.items(&chain).await.len(), 4);
    // The process that opens next has nothing left to send.
    let again = open(&rig.again("alice").await).await;
    again.revoke_user(carol).await.unwrap();
    assert_eq!(rig.items(&chain).await.len(), 5);
    assert_eq!(again.alarms(), [Alarm::HomeWentBack], "the copy published");
}

/// Rubbish at the end of a chain, which anybody can write, makes nobody give up an entry.
#[tokio::test]
async fn a_stranger_at_the_end_of_a_chain_only_delays_an_entry() {
    let rig = Rig::small();
    let bob = rig.home("bob").await;
    let (stream, meanwhile) = raced(&rig, true).await;
    let chain = StreamTopics(stream.id()).access(&rig.again("alice").await.device());
    let (bus, topic) = (rig.bus().await, Topic::new(&chain).unwrap());
    let entry = rig.items(&chain).await[1].clone();
    set_meanwhile(&meanwhile, async move {
        bus.append(&topic, vec![b"rubbish".to_vec(), entry])
            .await
            .unwrap();
    });
    stream.grant(all_to(bob.user())).await.unwrap();
    assert_eq!(stream.who().await.unwrap().len(), 2);
    assert_eq!(rig.items(&chain).await.len(), 5);
    assert_eq!(stream.alarms(), [rubbish_of(&rig.again("alice").await)]);
}

/// What is told of rubbish on the chain of a home.
fn rubbish_of(home: &Home) -> Alarm {
    Alarm::Forged(ControlTopic::Access(home.user(), home.device()))
}

/// Puts rubbish on a chain before each append to it.
fn flood(meanwhile: Arc<Meanwhile>, bus: Arc<FileBus>, chain: Topic) {
    set_meanwhile(&meanwhile.clone(), async move {
        let rubbish = vec![b"rubbish".to_vec()];
        bus.append(&chain, rubbish).await.unwrap();
        flood(meanwhile, bus, chain);
    });
}

#[tokio::test]
async fn a_stranger_who_writes_all_the_time_keeps_nobody_from_revoking() {
    let rig = Rig::small();
    let bob = rig.home("bob").await;
    let (stream, meanwhile) = raced(&rig, true).await;
    let bobs = join(&bob, &stream).await;
    stream.grant(all_to(bob.user())).await.unwrap();
    let chain = StreamTopics(stream.id()).access(&rig.again("alice").await.device());
    let bus = Arc::new(rig.bus().await);
    flood(meanwhile, bus, Topic::new(&chain).unwrap());
    stream.revoke_user(bob.user()).await.unwrap();
    say(&stream, "one").await;
    assert_eq!(read(&bobs).await.0, set([""; 0]));
    assert_eq!(stream.alarms(), [rubbish_of(&rig.again("alice").await)]);
}

#[tokio::test]
async fn where_a_bus_cannot_compare_a_fork_is_told_by_name() {
    let rig = Rig::small();
    let [bob, carol] = rig.homes(["bob", "carol"]).await;
    let (stream, meanwhile) = raced(&rig, false).await;
    let bobs = join(&bob, &stream).await;
    drop(join(&carol, &stream).await);
    let (copy, carol) = (open(&rig.again("clone").await).await, carol.user());
    let (owner, device) = (
        rig.again("alice").await.user(),
        rig.again("alice").await.device(),
    );
    set_meanwhile(&meanwhile, async move {
        copy.grant(all_to(carol)).await.unwrap();
    });
    let written = stream.grant(all_to(bob.user())).await;
    assert!(matches!(written, Err(Error::Forked)), "{written:?}");
    let forked = Alarm::LogForked(owner, device);
    let alarms = stream.alarms();
    assert!(alarms.contains(&forked) && alarms.contains(&Alarm::HomeWentBack));
    let later = stream.grant(all_to(bob.user())).await;
    assert!(matches!(later, Err(Error::Forked)), "{later:?}");
    bobs.sync().await.unwrap();
    assert_eq!(bobs.alarms(), [forked]);
    let findings = rig.again("alice").await.doctor().await.unwrap();
    let told = findings.iter().find(|of| of.text.contains("in one place"));
    assert!(told.is_some_and(|of| of.is_problem && of.hint.is_some()));
    // The owner may still publish, and what was written before the fork stands.
    say(&stream, "goes on").await;
    assert_eq!(history(&stream).await, ["goes on"]);
    assert_eq!(stream.who().await.unwrap().len(), 3);
}

/// A card is renewed behind what the bus has of the list, whichever copy did it before.
#[tokio::test]
async fn copies_renew_a_card_in_one_list() {
    const TEN_MONTHS_MS: u64 = 310 * 24 * 3600 * 1000;
    let (rig, time) = (Rig::small(), Time::new());
    let [alice, bob] = rig.homes_by(["alice", "bob"], &time).await;
    let stream = kitchen(&alice).await;
    let bobs = join(&bob, &stream).await;
    let list = alice.user().devices_topic();
    drop((stream, alice));
    copy_folder(&rig.path("alice"), &rig.path("clone"));
    for (of, cards) in [("alice", 2), ("clone", 2), ("clone", 3), ("alice", 3)] {
        if rig.items(&list).await.len() < cards {
            time.pass(TEN_MONTHS_MS);
        }
        time.pass(1);
        let home = rig.on(of, time.ground()).await;
        let stream = open(&home).await;
        let is_of_list = |alarm: &Alarm| matches!(alarm, Alarm::ListForked(_));
        assert!(!stream.alarms().iter().any(is_of_list), "{of} {cards}");
        assert_eq!(rig.items(&list).await.len(), cards, "{of}");
        say(&stream, &format!("{of} {cards}")).await;
    }
    // Whoever has the list from the bus alone believes both.
    let all = ["alice 2", "clone 2", "clone 3", "alice 3"];
    let stream = open(&rig.on("alice", time.ground()).await).await;
    assert_eq!(read(&stream).await.0, set(all));
    let (_, told) = read(&bobs).await;
    assert_eq!(told, set(["Branch", "Sealed(NotGranted)"]));
    assert_eq!(bobs.alarms(), []);
}

#[tokio::test]
async fn a_reader_with_two_copies_reads_in_both() {
    let rig = Rig::small();
    let [alice, bob] = rig.homes(["alice", "bob"]).await;
    let (stream, bobs) = kitchen_with(&alice, &bob).await;
    drop((bobs, bob));
    copy_folder(&rig.path("bob"), &rig.path("clone"));
    say(&stream, "one").await;
    for of in ["bob", "clone", "bob"] {
        let bobs = open(&rig.again(of).await).await;
        assert_eq!(history(&bobs).await, ["one"]);
        assert_eq!(bobs.alarms(), []);
        drop(bobs.read(Interval::ALL).await.unwrap());
    }
}

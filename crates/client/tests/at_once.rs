//! Several processes, handles and readers at once: nothing is lost, nothing destroys the log.
#![cfg(test)]

use std::path::Path;
use std::time::Duration;

use sealcast::{
    Bound, BusUrl, GrantOptions, GrantStatus, Home, InitOptions, Interval, Passphrase, Position,
    Roles, State, Stream, StreamOptions, UserId,
};
use tempfile::TempDir;

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_of_one_home_may_write_the_log_at_once() {
    let scene = Scene::new().await;
    let other = Home::open(&scene.path("alice"), None).await.unwrap();
    let other = other.stream(&"kitchen".parse().unwrap()).await.unwrap();
    for _ in 0..4 {
        let (bob, user) = (scene.bob.user(), UserId([7; 32]));
        let here = scene.stream.grant(reader(bob));
        let there = other.grant(reader(user));
        let also_here = scene.stream.grant(reader(user));
        let (a, b, c) = tokio::join!(here, there, also_here);
        assert!(a.is_ok() && b.is_ok() && c.is_ok(), "{a:?} {b:?} {c:?}");
    }
    let who = scene.stream.who().await.unwrap();
    assert_eq!(who.len(), 13);
    let lost = who.iter().filter(|of| of.status == GrantStatus::Revoked);
    assert_eq!(lost.count(), 0, "a grant fell to a fork");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_who_follows_opens_every_message_of_every_new_session() {
    let scene = Scene::new().await;
    scene.stream.grant(reader(scene.bob.user())).await.unwrap();
    let joined = scene.bob.stream(&"kitchen".parse().unwrap()).await.unwrap();
    let mut following = joined.subscribe(None).await.unwrap();
    let publishing = tokio::spawn({
        let stream = scene.stream.clone();
        async move {
            for number in 0..20_u8 {
                stream.rekey().await.unwrap();
                stream.publish(&[number]).await.unwrap();
            }
        }
    });
    for number in 0..20_u8 {
        let delivery = within(following.next()).await.unwrap();
        assert_eq!(
            (delivery.state, delivery.reason),
            (State::Opened, None),
            "{number}"
        );
        assert_eq!(delivery.payload.as_deref(), Some(&[number][..]));
    }
    publishing.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_who_stops_waiting_and_comes_back_misses_nothing() {
    let scene = Scene::new().await;
    let mut following = scene.stream.subscribe(None).await.unwrap();
    let publishing = tokio::spawn({
        let stream = scene.stream.clone();
        async move {
            for number in 0..30_u8 {
                if number % 5 == 0 {
                    stream.rekey().await.unwrap();
                }
                stream.publish(&[number]).await.unwrap();
            }
        }
    });
    let mut heard = Vec::new();
    let end = tokio::time::Instant::now() + HANGS_AFTER;
    while heard.len() < 30 {
        assert!(
            tokio::time::Instant::now() < end,
            "it hangs after {heard:?}"
        );
        let patience = Duration::from_millis(1);
        if let Ok(delivery) = tokio::time::timeout(patience, following.next()).await {
            let delivery = delivery.unwrap();
            assert_eq!(delivery.state, State::Opened, "{delivery:?}");
            heard.extend_from_slice(&delivery.payload.unwrap());
        }
    }
    publishing.await.unwrap();
    assert_eq!(heard, (0..30).collect::<Vec<u8>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_one_handle_stand_in_the_order_of_their_numbers() {
    let scene = Scene::new().await;
    let sends = (0..24_u8).map(|number| {
        let stream = scene.stream.clone();
        tokio::spawn(async move { stream.publish(&[number]).await.map(|_| ()) })
    });
    for send in sends.collect::<Vec<_>>() {
        send.await.unwrap().unwrap();
    }
    let mut reader = scene.stream.read(Interval::ALL).await.unwrap();
    let mut seqs = Vec::new();
    while let Some(delivery) = reader.next().await.unwrap() {
        assert_eq!(delivery.state, State::Opened, "{delivery:?}");
        seqs.extend(delivery.seq);
    }
    assert_eq!(seqs, (0..24).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_amid_a_backfill_starts_another_session_of_older_data() {
    let scene = Scene::new().await;
    scene
        .stream
        .grant(since_the_start(scene.bob.user()))
        .await
        .unwrap();
    let mut backfill = scene.stream.backfill().await.unwrap();
    for number in 0..2_100 {
        backfill.send(Position(number), b"before").await.unwrap();
    }
    assert_eq!(backfill.stored(), 2_048);
    scene.stream.revoke_user(scene.bob.user()).await.unwrap();
    backfill.send(Position(9_000), b"after").await.unwrap();
    assert_eq!(backfill.finish().await.unwrap().records, 2_101);
    let joined = scene.bob.stream(&"kitchen".parse().unwrap()).await.unwrap();
    assert_eq!(opened(&joined).await, 2_048);
    assert_eq!(opened(&scene.stream).await, 2_101);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_another_process_seals_after_a_revocation_opens() {
    let scene = Scene::new().await;
    scene
        .stream
        .grant(since_the_start(scene.bob.user()))
        .await
        .unwrap();
    let other = Home::open(&scene.path("alice"), None).await.unwrap();
    let other = other.stream(&"kitchen".parse().unwrap()).await.unwrap();
    other.publish(b"before").await.unwrap();
    let revoked = scene.stream.revoke_user(scene.bob.user()).await.unwrap();
    let after = other.publish(b"after").await.unwrap();
    assert!(after.position >= revoked.position);
    let joined = scene.bob.stream(&"kitchen".parse().unwrap()).await.unwrap();
    assert_eq!(opened(&joined).await, 1);
}

/// A message that never comes fails the test instead of holding it up for ever.
const HANGS_AFTER: Duration = Duration::from_secs(120);

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANGS_AFTER, work)
        .await
        .expect("it hangs")
}

struct Scene {
    folder: TempDir,
    bob: Home,
    stream: Stream,
}

impl Scene {
    /// Alice owns `kitchen`, and Bob has joined it.
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bus = BusUrl::file(&folder.path().join("bus")).unwrap();
        let alice = make(&folder.path().join("alice"), &bus).await;
        let bob = make(&folder.path().join("bob"), &bus).await;
        let name = "kitchen".parse().unwrap();
        let stream = alice
            .create_stream(&name, StreamOptions::default())
            .await
            .unwrap();
        bob.join(stream.ticket(), None).await.unwrap();
        Self {
            folder,
            bob,
            stream,
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }
}

async fn make(path: &Path, bus: &BusUrl) -> Home {
    let options = InitOptions {
        name: None,
        bus: Some(bus.clone()),
        passphrase: Passphrase::None,
    };
    Home::init(path, options).await.unwrap()
}

async fn opened(stream: &Stream) -> usize {
    let mut reader = stream.read(Interval::ALL).await.unwrap();
    let mut count = 0;
    while let Some(delivery) = reader.next().await.unwrap() {
        count += usize::from(delivery.state == State::Opened);
    }
    count
}

fn reader(user: UserId) -> GrantOptions {
    GrantOptions {
        user,
        roles: Roles::READER,
        from: Bound::Now,
        until: Bound::At(Position::END),
        reshare: false,
    }
}

fn since_the_start(user: UserId) -> GrantOptions {
    GrantOptions {
        from: Bound::At(Position::START),
        ..reader(user)
    }
}

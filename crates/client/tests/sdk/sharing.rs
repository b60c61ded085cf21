//! When keys travel.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sealcast::{Error, Ground, Interval, Roles, Sharing, State, StreamOptions};

use crate::rig::*;

#[tokio::test]
async fn keys_follow_when_a_granted_user_joins_later() {
    for command in ["publish", "publisher", "read", "who", "sync", "live"] {
        let rig = Rig::new();
        let (alice, bob) = (rig.home("alice").await, rig.home("bob").await);
        let stream = kitchen(&alice).await;
        say(&stream, "one").await;
        let mut live = stream.subscribe(None).await.unwrap();
        let mut publisher = stream.publisher().await.unwrap();
        let granted = stream.grant(all_to(bob.user())).await.unwrap();
        assert_eq!((granted.devices, granted.bundles), (0, 0));
        let joined = join(&bob, &stream).await;
        assert_eq!(history(&joined).await, ["Sealed(KeyNotHere)"], "{command}");

        let stream = rig
            .again("alice")
            .await
            .stream(&name("kitchen"))
            .await
            .unwrap();
        match command {
            "publish" => drop(say(&stream, "two").await),
            "publisher" => {
                // A publisher that has run for a while reads the log again when it is old.
                tokio::time::sleep(std::time::Duration::from_millis(3_100)).await;
                publisher.send(b"two").await.unwrap();
                publisher.flush().await.unwrap();
            }
            "read" => drop(stream.read(Interval::ALL).await.unwrap()),
            "who" => drop(stream.who().await.unwrap()),
            "sync" => stream.sync().await.unwrap(),
            _ => {
                let waited = std::time::Duration::from_secs(120);
                let wait = tokio::time::timeout(waited, live.next());
                tokio::select! {
                    _ = wait => {}
                    () = until_opened(&joined) => {}
                }
            }
        }
        assert_eq!(history(&joined).await[0], "one", "{command}");
    }
}

async fn until_opened(stream: &sealcast::Stream) {
    while history(stream).await != ["one"] {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn an_idle_command_of_a_keyholder_writes_nothing() {
    let rig = Rig::new();
    let (alice, bob) = (rig.home("alice").await, rig.home("bob").await);
    let stream = kitchen(&alice).await;
    join(&bob, &stream).await;
    stream.grant(all_to(bob.user())).await.unwrap();
    say(&stream, "one").await;
    let keys = rig.keys_end(&stream).await;
    for _ in 0..3 {
        let stream = rig
            .again("alice")
            .await
            .stream(&name("kitchen"))
            .await
            .unwrap();
        stream.sync().await.unwrap();
        stream.who().await.unwrap();
    }
    assert_eq!(rig.keys_end(&stream).await, keys);
}

#[tokio::test]
async fn anybody_reads_a_public_stream_and_only_publishers_write() {
    let rig = Rig::new();
    let (alice, bob) = (rig.home("alice").await, rig.home("bob").await);
    let options = StreamOptions {
        public: true,
        ..StreamOptions::default()
    };
    let stream = alice.create_stream(&name("news"), options).await.unwrap();
    say(&stream, "one").await;
    let joined = join(&bob, &stream).await;
    assert_eq!(history(&joined).await, ["one"]);
    stream.rekey().await.unwrap();
    say(&stream, "two").await;
    assert_eq!(history(&joined).await, ["one", "two"]);
    assert!(joined.publish(b"three").await.is_err());
}

#[tokio::test]
async fn on_request_serves_at_the_grant_and_manual_serves_nobody() {
    for (sharing, bundles) in [(Sharing::OnRequest, 1), (Sharing::Manual, 0)] {
        let rig = Rig::new();
        let (alice, bob, carol) = (
            rig.home("alice").await,
            rig.home("bob").await,
            rig.home("carol").await,
        );
        let options = StreamOptions {
            sharing,
            ..StreamOptions::default()
        };
        let stream = alice
            .create_stream(&name("kitchen"), options)
            .await
            .unwrap();
        say(&stream, "one").await;
        let (at_bob, at_carol) = (join(&bob, &stream).await, join(&carol, &stream).await);
        let granted = stream.grant(all_to(bob.user())).await.unwrap();
        assert_eq!(granted.bundles, bundles);
        stream.rekey().await.unwrap();
        say(&stream, "two").await;
        stream.sync().await.unwrap();
        let first = match sharing {
            Sharing::Manual => "Sealed(KeyNotHere)",
            Sharing::Active | Sharing::OnRequest => "one",
        };
        assert_eq!(history(&at_bob).await, [first, "Sealed(KeyNotHere)"]);
        // Keyholders are served in every mode.
        let admin = to(carol.user(), Roles::ADMIN, Interval::ALL);
        stream.grant(admin).await.unwrap();
        assert_eq!(history(&at_carol).await, ["one", "two"]);
    }
}

#[tokio::test]
async fn many_sessions_go_to_a_late_reader_in_few_bundles() {
    let rig = Rig::new();
    let (alice, bob) = (rig.home("alice").await, rig.home("bob").await);
    let stream = kitchen(&alice).await;
    let joined = join(&bob, &stream).await;
    for i in 0..20 {
        say(&stream, &i.to_string()).await;
        stream.rekey().await.unwrap();
    }
    let granted = stream.grant(all_to(bob.user())).await.unwrap();
    assert_eq!(granted.bundles, 2);
    let all = deliveries(&joined).await;
    assert!(all.iter().all(|of| of.state == State::Opened));
    let sessions: BTreeSet<_> = rig
        .headers(&stream)
        .await
        .iter()
        .map(|of| of.session)
        .collect();
    assert_eq!((all.len(), sessions.len()), (20, 20));
}

#[tokio::test]
async fn keys_that_a_failing_store_refused_are_kept_later() {
    let rig = Rig::new();
    let (alice, bob) = (rig.home("alice").await, rig.home("bob").await);
    let stream = kitchen(&alice).await;
    drop((join(&bob, &stream).await, say(&stream, "one").await));
    let is_well = Arc::new(AtomicBool::new(true));
    let asked = is_well.clone();
    let ground = Gated::over(Ground::default(), move || asked.load(Ordering::SeqCst));
    let joined = rig
        .on("bob", ground)
        .await
        .stream(&name("kitchen"))
        .await
        .unwrap();
    stream.grant(all_to(bob.user())).await.unwrap();
    is_well.store(false, Ordering::SeqCst);
    assert!(matches!(joined.sync().await, Err(Error::Store(_))));
    is_well.store(true, Ordering::SeqCst);
    stream.rekey().await.unwrap();
    say(&stream, "two").await;
    joined.sync().await.unwrap();
    drop(joined);
    let joined = rig
        .again("bob")
        .await
        .stream(&name("kitchen"))
        .await
        .unwrap();
    assert_eq!(history(&joined).await, ["one", "two"]);
}

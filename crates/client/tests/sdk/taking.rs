//! Taking access away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use sealcast::{Error, Interval, Position, Roles};
use sealcast_bus::Offset;

use crate::rig::*;

#[tokio::test]
async fn what_comes_after_a_revocation_stays_sealed_and_what_was_given_opens() {
    // The clock stands still, so that only cuts move positions on.
    let (rig, time) = (Rig::new(), Time::new());
    let alice = rig.home_by("alice", &time).await;
    let bob = rig.home_by("bob", &time).await;
    let carol = rig.home_by("carol", &time).await;
    let stream = kitchen(&alice).await;
    let (at_bob, at_carol) = (join(&bob, &stream).await, join(&carol, &stream).await);
    stream.grant(all_to(bob.user())).await.unwrap();
    stream.grant(all_to(carol.user())).await.unwrap();
    let before = say(&stream, "before").await;
    assert_eq!(history(&at_bob).await, ["before"]);
    let revoked = stream.revoke_user(bob.user()).await.unwrap();
    assert_eq!(revoked.grants.len(), 1);
    assert!(revoked.position > before);
    assert!(say(&stream, "after").await >= revoked.position);
    assert_eq!(history(&at_bob).await, ["before", "Sealed(NotGranted)"]);
    assert_eq!(history(&at_carol).await, ["before", "after"]);
    assert!(matches!(
        stream.revoke_user(bob.user()).await,
        Err(Error::NoGrant(_))
    ));
}

#[tokio::test]
async fn another_process_of_the_home_seals_nothing_for_the_removed() {
    let rig = Rig::new();
    let (alice, bob) = (rig.home("alice").await, rig.home("bob").await);
    let stream = kitchen(&alice).await;
    let joined = join(&bob, &stream).await;
    stream.grant(all_to(bob.user())).await.unwrap();
    let other = rig
        .again("alice")
        .await
        .stream(&name("kitchen"))
        .await
        .unwrap();
    say(&other, "before").await;
    // The other process read the log a moment ago and does not look again by itself.
    let revoked = stream.revoke_user(bob.user()).await.unwrap();
    assert!(say(&other, "after").await >= revoked.position);
    assert_eq!(history(&joined).await, ["before", "Sealed(NotGranted)"]);
}

/// Catching up may take long, and people are removed meanwhile.
#[tokio::test]
async fn who_catches_up_learns_of_a_revocation_meanwhile() {
    let rig = Rig::new();
    let alice = rig.home("alice").await;
    for name in ["bob", "dave"] {
        drop(rig.home(name).await);
    }
    let stream = kitchen(&alice).await;
    // Dave's bus does not show him what is written there later.
    let dave = Meddler::ground(|_, topic| match topic.contains("/access/") {
        true => Manner::Hide(Offset(3)),
        false => Manner::Honest,
    });
    let dave = rig.on("dave", dave).await;
    let (reads, is_open) = (AtomicUsize::new(0), Arc::new(AtomicBool::new(false)));
    let opened = is_open.clone();
    let bob = rig
        .on(
            "bob",
            Meddler::ground(move |ask, topic| {
                let is_data = ask == Ask::Read && topic.ends_with("/data");
                // The first batch comes at once.
                let is_held = is_data && reads.fetch_add(1, Ordering::SeqCst) > 0;
                match is_held && !opened.load(Ordering::SeqCst) {
                    true => Manner::Mute,
                    false => Manner::Honest,
                }
            }),
        )
        .await;
    let (at_bob, at_dave) = (join(&bob, &stream).await, join(&dave, &stream).await);
    stream.grant(all_to(bob.user())).await.unwrap();
    let publishes = from_now(dave.user(), Roles::PUBLISHER);
    stream.grant(publishes).await.unwrap();
    say(&at_dave, "before").await;
    // Several batches.
    for _ in 0..6 {
        let long = vec![b'x'; 700 << 10];
        stream.publish(&long).await.unwrap();
    }
    let mut following = at_bob.subscribe(Some(Position::START)).await.unwrap();
    assert_eq!(next(&mut following, 1).await, ["before"]);
    stream.revoke_user(dave.user()).await.unwrap();
    say(&at_dave, "after").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    is_open.store(true, Ordering::SeqCst);
    let mut lines = next(&mut following, 7).await;
    lines.retain(|line| line.len() < 700);
    assert_eq!(lines, ["Rejected(AfterRevocation)"]);
}

#[tokio::test]
async fn a_publisher_is_heard_until_it_is_revoked() {
    let rig = Rig::new();
    let (alice, bob) = (rig.home("alice").await, rig.home("bob").await);
    let stream = kitchen(&alice).await;
    drop(join(&bob, &stream).await);
    drop(bob);
    stream
        .grant(from_now(bob_of(&rig).await, Roles::PUBLISHER))
        .await
        .unwrap();

    // Bob's bus stops showing new entries of the log when it is told to.
    let frozen = Arc::new(AtomicBool::new(false));
    let is_frozen = frozen.clone();
    let ground = Meddler::ground(move |_, topic| {
        let hides = is_frozen.load(Ordering::SeqCst);
        match hides && topic.contains("/access/") {
            true => Manner::Hide(Offset(2)),
            false => Manner::Honest,
        }
    });
    let at_bob = rig
        .on("bob", ground)
        .await
        .stream(&name("kitchen"))
        .await
        .unwrap();
    say(&at_bob, "one").await;
    say(&at_bob, "two").await;
    assert_eq!(history(&stream).await, ["one", "two"]);

    frozen.store(true, Ordering::SeqCst);
    stream.revoke_user(bob_of(&rig).await).await.unwrap();
    say(&at_bob, "three").await;
    let told = ["one", "two", "Rejected(AfterRevocation)"];
    assert_eq!(history(&stream).await, told);

    frozen.store(false, Ordering::SeqCst);
    at_bob.sync().await.unwrap();
    assert!(matches!(
        at_bob.publish(b"four").await,
        Err(Error::NotAllowed(_))
    ));
    assert_eq!(history(&stream).await, told);
}

async fn bob_of(rig: &Rig) -> sealcast::UserId {
    rig.again("bob").await.user()
}

#[tokio::test]
async fn a_backfill_goes_on_in_a_new_session_when_someone_is_removed_meanwhile() {
    let rig = Rig::new();
    let (alice, bob, carol) = (
        rig.home("alice").await,
        rig.home("bob").await,
        rig.home("carol").await,
    );
    let stream = kitchen(&alice).await;
    let (at_bob, at_carol) = (join(&bob, &stream).await, join(&carol, &stream).await);
    for user in [bob.user(), carol.user()] {
        stream.grant(all_to(user)).await.unwrap();
    }
    let start = Position(1_600_000_000_000);
    let mut backfill = stream.backfill().await.unwrap();
    for i in 0..2048 {
        backfill.send(start.after(i), b"early").await.unwrap();
    }
    assert_eq!(backfill.stored(), 2048);
    stream.revoke_user(bob.user()).await.unwrap();
    backfill.send(start.after(2048), b"late").await.unwrap();
    assert_eq!(backfill.finish().await.unwrap().records, 2049);
    let count = |lines: &[String], wanted: &str| lines.iter().filter(|of| *of == wanted).count();
    let (of_bob, of_carol) = (history(&at_bob).await, history(&at_carol).await);
    assert_eq!(
        (count(&of_carol, "early"), count(&of_carol, "late")),
        (2048, 1)
    );
    assert_eq!((count(&of_bob, "late"), of_bob.len()), (0, 2049));
    let sessions: std::collections::BTreeSet<_> = rig
        .headers(&stream)
        .await
        .iter()
        .map(|of| of.session)
        .collect();
    assert_eq!(sessions.len(), 2);
}

#[tokio::test]
async fn whoever_is_let_in_again_opens_all_of_it_again() {
    let rig = Rig::new();
    let (alice, bob) = (rig.home("alice").await, rig.home("bob").await);
    let stream = kitchen(&alice).await;
    let joined = join(&bob, &stream).await;
    let reads_and_speaks = Roles::READER.with(Roles::PUBLISHER);
    let both = to(bob.user(), reads_and_speaks, Interval::ALL);
    stream.grant(both.clone()).await.unwrap();
    say(&joined, "one").await;
    stream.revoke_user(bob.user()).await.unwrap();
    say(&stream, "two").await;
    stream.grant(both).await.unwrap();
    joined.sync().await.unwrap();
    say(&joined, "three").await;
    assert_eq!(history(&joined).await, ["one", "two", "three"]);
    assert_eq!(history(&stream).await, ["one", "two", "three"]);
}

#[tokio::test]
async fn a_batch_that_waited_long_for_the_store_is_sealed_by_a_fresh_log() {
    let (rig, time) = (Rig::new(), Time::new());
    let alice = rig.home_by("alice", &time).await;
    let bob = rig.home_by("bob", &time).await;
    let stream = kitchen(&alice).await;
    let waits = Arc::new(AtomicBool::new(false));
    let (passing, asked) = (time.clone(), waits.clone());
    let ground = Gated::over(time.ground(), move || {
        if asked.swap(false, Ordering::SeqCst) {
            passing.pass(5_001);
        }
        true
    });
    drop(join(&bob, &stream).await);
    stream
        .grant(from_now(bob.user(), Roles::PUBLISHER))
        .await
        .unwrap();
    let at_bob = rig
        .on("bob", ground)
        .await
        .stream(&name("kitchen"))
        .await
        .unwrap();
    say(&at_bob, "one").await;
    stream.revoke_user(bob.user()).await.unwrap();
    waits.store(true, Ordering::SeqCst);
    let refused = at_bob.publish(b"two").await;
    assert!(matches!(refused, Err(Error::NotAllowed(_))), "{refused:?}");
    assert_eq!(history(&stream).await, ["one"]);
}

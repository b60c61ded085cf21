//! Following a stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sealcast::{Position, Roles};
use tokio::time::timeout;

use crate::rig::*;

/// Faults 7 and 17: what is no envelope is told and not delivered, and the next one is read.
#[tokio::test]
async fn plaintext_replays_and_damage_are_told_and_the_next_message_opens() {
    let rig = Rig::new();
    let stream = kitchen(&rig.home("alice").await).await;
    let mut live = stream.subscribe(None).await.unwrap();
    say(&stream, "one").await;
    let one = rig.data(&stream).await[0].clone();
    let mut bent = one.clone();
    bent[100] ^= 1;
    for item in [b"21.5 C".to_vec(), Vec::new(), one, bent] {
        rig.inject(&stream, &item).await;
    }
    say(&stream, "two").await;
    let malformed = "Rejected(Malformed)";
    let told = [
        "one",
        malformed,
        malformed,
        "Replay",
        "Rejected(BadSignature)",
        "two",
    ];
    assert_eq!(next(&mut live, 6).await, told);
    assert_eq!(history(&stream).await, told);
}

#[tokio::test]
async fn live_messages_come_in_order_as_they_are_published() {
    let rig = Rig::new();
    let (alice, bob) = (rig.home("alice").await, rig.home("bob").await);
    let stream = kitchen(&alice).await;
    let joined = join(&bob, &stream).await;
    say(&stream, "before").await;
    stream.grant(all_to(bob.user())).await.unwrap();
    let mut live = joined.subscribe(None).await.unwrap();
    let sent = texts("m", 20);
    for text in &sent {
        say(&stream, text).await;
        assert_eq!(next(&mut live, 1).await, [text.as_str()]);
    }
    stream.rekey().await.unwrap();
    say(&stream, "rekeyed").await;
    assert_eq!(next(&mut live, 1).await, ["rekeyed"]);
    let mut whole = joined.subscribe(Some(Position::START)).await.unwrap();
    assert_eq!(next(&mut whole, 1).await, ["before"]);
    assert_eq!(next(&mut whole, 20).await, sent);
    say(&stream, "last").await;
    assert_eq!(next(&mut whole, 2).await, ["rekeyed", "last"]);
    assert_eq!(next(&mut live, 1).await, ["last"]);
}

#[tokio::test]
async fn whoever_is_granted_while_reading_live_opens_what_comes_next() {
    let rig = Rig::new();
    let (alice, bob, carol) = (
        rig.home("alice").await,
        rig.home("bob").await,
        rig.home("carol").await,
    );
    let stream = kitchen(&alice).await;
    let (at_bob, at_carol) = (join(&bob, &stream).await, join(&carol, &stream).await);
    let mut bob_hears = at_bob.subscribe(None).await.unwrap();
    let mut alice_hears = stream.subscribe(None).await.unwrap();
    say(&stream, "one").await;
    assert_eq!(next(&mut bob_hears, 1).await, ["Sealed(NotGranted)"]);
    stream
        .grant(from_now(bob.user(), Roles::READER))
        .await
        .unwrap();
    stream
        .grant(from_now(carol.user(), Roles::PUBLISHER))
        .await
        .unwrap();
    say(&stream, "two").await;
    assert_eq!(next(&mut bob_hears, 1).await, ["two"]);
    at_carol.sync().await.unwrap();
    say(&at_carol, "three").await;
    assert_eq!(next(&mut bob_hears, 1).await, ["three"]);
    assert_eq!(next(&mut alice_hears, 3).await, ["one", "two", "three"]);
}

#[tokio::test]
async fn a_subscription_that_is_asked_in_bits_loses_nothing() {
    let rig = Rig::new();
    let (alice, bob) = (rig.home("alice").await, rig.home("bob").await);
    let stream = kitchen(&alice).await;
    let joined = join(&bob, &stream).await;
    stream.grant(all_to(bob.user())).await.unwrap();
    let mut live = joined.subscribe(None).await.unwrap();
    let sent = texts("m", 120);
    let speaker = tokio::spawn({
        let (stream, sent) = (stream.clone(), sent.clone());
        async move {
            for (i, text) in sent.iter().enumerate() {
                say(&stream, text).await;
                if i % 40 == 20 {
                    stream.rekey().await.unwrap();
                }
            }
        }
    });
    let (mut heard, mut abandoned) = (Vec::new(), 0_u64);
    while heard.len() < sent.len() {
        // Sometimes given up at once, sometimes somewhere in the middle.
        let patience = Duration::from_micros(abandoned * 37 % 3000);
        match timeout(patience, live.next()).await {
            Ok(delivery) => heard.push(line(&delivery.unwrap())),
            Err(_) => abandoned += 1,
        }
        tokio::task::yield_now().await;
    }
    speaker.await.unwrap();
    assert_eq!(heard, sent);
    assert!(abandoned > 0);
}

#[tokio::test]
async fn coming_back_tells_no_gap_and_knows_what_came_before() {
    let rig = Rig::new();
    let (alice, bob) = (rig.home("alice").await, rig.home("bob").await);
    let stream = kitchen(&alice).await;
    let joined = join(&bob, &stream).await;
    stream.grant(all_to(bob.user())).await.unwrap();
    let mut live = joined.subscribe(None).await.unwrap();
    say(&stream, "one").await;
    assert_eq!(next(&mut live, 1).await, ["one"]);
    live.finish().await.unwrap();
    say(&stream, "two").await;
    let other = rig
        .again("alice")
        .await
        .stream(&name("kitchen"))
        .await
        .unwrap();
    say(&other, "three").await;

    let joined = rig
        .again("bob")
        .await
        .stream(&name("kitchen"))
        .await
        .unwrap();
    let mut live = joined.subscribe(None).await.unwrap();
    say(&other, "four").await;
    let data = rig.data(&stream).await;
    for item in &data[..3] {
        rig.inject(&stream, item).await;
    }
    say(&stream, "five").await;
    let told = ["four", "Replay", "Replay", "Replay", "five"];
    let heard = next(&mut live, 5).await;
    let heard: Vec<_> = heard.iter().filter(|of| *of != "Branch").collect();
    assert_eq!(heard, told[..heard.len()]);
}

#[tokio::test]
async fn what_was_published_just_before_is_a_replay_when_it_comes_again() {
    let rig = Rig::new();
    let stream = kitchen(&rig.home("alice").await).await;
    say(&stream, "one").await;
    let one = rig.data(&stream).await[0].clone();
    let mut live = stream.subscribe(None).await.unwrap();
    rig.inject(&stream, &one).await;
    say(&stream, "two").await;
    assert_eq!(next(&mut live, 2).await, ["Replay", "two"]);
    let mut from_now = stream.subscribe(Some(Position::END)).await.unwrap();
    assert!(
        timeout(Duration::from_millis(50), from_now.next())
            .await
            .is_err()
    );
}

#[tokio::test]
async fn what_is_older_than_any_clock_may_be_wrong_is_not_live() {
    let (rig, time) = (Rig::new(), Time::new());
    let stream = kitchen(&rig.home_by("alice", &time).await).await;
    say(&stream, "old").await;
    let old = rig.data(&stream).await[0].clone();
    // More than what a new subscription looks back over.
    rig.inject_times(1_100, &stream, b"noise").await;
    time.pass(10 * 60_000 + 1);
    let mut live = stream.subscribe(None).await.unwrap();
    rig.inject(&stream, &old).await;
    say(&stream, "new").await;
    assert_eq!(next(&mut live, 2).await, ["Replay", "new"]);
}

/// Time passes only where somebody waits for it.
#[tokio::test(start_paused = true)]
async fn what_is_on_the_bus_is_delivered_without_waiting() {
    let rig = Rig::new();
    let stream = kitchen(&rig.home("alice").await).await;
    let mut live = stream.subscribe(None).await.unwrap();
    let start = tokio::time::Instant::now();
    for text in texts("m", 3) {
        say(&stream, &text).await;
        assert_eq!(next(&mut live, 1).await, [text]);
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
}

/// Somebody writes to every topic whenever a device looks at it.
#[tokio::test]
async fn whoever_writes_all_the_time_keeps_nobody_reading_for_ever() {
    let rig = Rig::small();
    let [alice, bob, carol] = rig.homes(["alice", "bob", "carol"]).await;
    let (stream, _) = kitchen_with(&alice, &bob).await;
    say(&stream, "one").await;
    drop((stream, alice, carol));
    let left = Arc::new(AtomicUsize::new(1_000));
    let count = left.clone();
    let flood = Meddler::ground(move |ask, topic| {
        let is_flooded = ask != Ask::Append && !topic.ends_with("/data");
        let is_left = |left: usize| left.checked_sub(1);
        let order = Ordering::SeqCst;
        match is_flooded && count.fetch_update(order, order, is_left).is_ok() {
            true => Manner::Flood,
            false => Manner::Honest,
        }
    });
    let stream = open(&rig.on("alice", flood.clone()).await).await;
    assert_eq!(history(&stream).await, ["one"]);
    drop(join(&rig.on("carol", flood).await, &stream).await);
    stream.revoke_user(bob.user()).await.unwrap();
    say(&stream, "two").await;
    assert!(
        left.load(Ordering::SeqCst) > 0,
        "it waited for the stranger"
    );
}

//! One home used by several processes, or copied.

use std::collections::BTreeSet;

use sealcast::{Roles, State, Stream};
use sealcast_crash::Sent;

use crate::rig::*;

async fn at(rig: &Rig, home: &str) -> Stream {
    rig.again(home)
        .await
        .stream(&name("kitchen"))
        .await
        .unwrap()
}

/// What a reader is told besides what it opens.
async fn noticed(stream: &Stream) -> BTreeSet<String> {
    let all = deliveries(stream).await;
    let noticed = all.iter().filter(|of| of.state != State::Opened);
    noticed.map(line).collect()
}

async fn opened(stream: &Stream) -> Vec<String> {
    let all = deliveries(stream).await;
    all.iter()
        .filter(|of| of.state == State::Opened)
        .map(line)
        .collect()
}

async fn nothing_has_one_key_twice(rig: &Rig, stream: &Stream) {
    let data = rig.data(stream).await;
    let mut sent = Sent::default();
    sent.extend("data", &data);
    assert!(sent.reused().is_empty(), "{:?}", sent.reused());
    assert_eq!(sent.count(), data.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_of_a_home_publish_at_once_and_nothing_is_lost() {
    let rig = Rig::new();
    let stream = kitchen(&rig.home("alice").await).await;
    let (one, two) = (at(&rig, "alice").await, at(&rig, "alice").await);
    let frames = tokio::spawn(async move {
        let mut publisher = one.publisher().await.unwrap();
        for (i, text) in texts("frame", 300).iter().enumerate() {
            publisher.send(text.as_bytes()).await.unwrap();
            if i % 30 == 0 {
                publisher.flush().await.unwrap();
            }
        }
        publisher.finish().await.unwrap();
    });
    let singles = tokio::spawn(async move {
        for (i, text) in texts("single", 40).iter().enumerate() {
            say(&two, text).await;
            if i == 20 {
                two.rekey().await.unwrap();
            }
        }
    });
    frames.await.unwrap();
    singles.await.unwrap();
    let all = opened(&stream).await;
    assert_eq!(all.len(), 340);
    let framed: Vec<_> = all.iter().filter(|of| of.starts_with("frame")).collect();
    assert_eq!(framed, texts("frame", 300).iter().collect::<Vec<_>>());
    let single: Vec<_> = all.iter().filter(|of| of.starts_with("single")).collect();
    assert_eq!(single, texts("single", 40).iter().collect::<Vec<_>>());
    let told = noticed(&stream).await;
    assert!(told.iter().all(|of| of == "Branch"), "{told:?}");
    nothing_has_one_key_twice(&rig, &stream).await;
}

#[tokio::test]
async fn two_streams_in_one_process_are_like_two_processes() {
    let rig = Rig::new();
    let alice = rig.home("alice").await;
    let one = kitchen(&alice).await;
    let two = alice.stream(&name("kitchen")).await.unwrap();
    for i in 0..3 {
        say(&one, &format!("one {i}")).await;
        say(&two, &format!("two {i}")).await;
    }
    assert_eq!(
        opened(&one).await,
        ["one 0", "two 0", "one 1", "two 1", "one 2", "two 2"]
    );
    assert_eq!(noticed(&two).await, BTreeSet::from(["Branch".to_owned()]));
    let sessions: BTreeSet<_> = rig
        .headers(&one)
        .await
        .iter()
        .map(|of| of.session)
        .collect();
    assert_eq!(sessions.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_of_a_home_write_the_access_log_without_a_fork() {
    let rig = Rig::new();
    let bob = rig.home("bob").await.user();
    let stream = kitchen(&rig.home("alice").await).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let stream = at(&rig, "alice").await;
        for _ in 0..3 {
            let stream = stream.clone();
            tasks.spawn(async move { stream.grant(from_now(bob, Roles::READER)).await.map(drop) });
        }
    }
    while let Some(granted) = tasks.join_next().await {
        granted.unwrap().unwrap();
    }
    let fresh = at(&rig, "alice").await;
    assert_eq!(fresh.who().await.unwrap().len(), 10);
    assert!(fresh.alarms().is_empty());
    say(&stream, "goes on").await;
}

#[tokio::test]
async fn a_grant_that_is_given_up_halfway_leaves_no_fork() {
    let rig = Rig::new();
    let bob = rig.home("bob").await.user();
    let stream = kitchen(&rig.home("alice").await).await;
    for micros in [0, 200, 500, 1_000, 2_000, 4_000, 8_000] {
        let patience = std::time::Duration::from_micros(micros);
        let grant = stream.grant(from_now(bob, Roles::READER));
        let _is_given_up = tokio::time::timeout(patience, grant).await.is_err();
    }
    stream.grant(from_now(bob, Roles::READER)).await.unwrap();
    let fresh = at(&rig, "alice").await;
    assert!(fresh.who().await.unwrap().len() >= 2);
    assert!(fresh.alarms().is_empty());
}

#[tokio::test]
async fn a_home_that_was_copied_and_is_used_twice_repeats_no_key_and_is_told() {
    let rig = Rig::new();
    let stream = kitchen(&rig.home("alice").await).await;
    say(&stream, "before").await;
    drop(stream);
    copy_folder(&rig.path("alice"), &rig.path("clone"));
    let (one, two) = (at(&rig, "alice").await, at(&rig, "clone").await);
    for i in 0..3 {
        say(&one, &format!("one {i}")).await;
        say(&two, &format!("two {i}")).await;
    }
    one.rekey().await.unwrap();
    say(&one, "one 3").await;
    say(&two, "two 3").await;
    two.sync().await.unwrap();
    say(&two, "two 4").await;
    nothing_has_one_key_twice(&rig, &one).await;
    let told = noticed(&one).await;
    assert!(told.contains("Branch") || told.contains("Fork"), "{told:?}");
    assert!(
        told.iter().all(|of| of == "Branch" || of == "Fork"),
        "{told:?}"
    );
    assert_eq!(opened(&one).await.len(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_do_not_give_one_name_to_two_streams() {
    let rig = Rig::new();
    let one = rig.home("alice").await;
    let two = rig.again("alice").await;
    let options = sealcast::StreamOptions::default;
    for i in 0..4 {
        let of = name(&format!("stream-{i}"));
        let (a, b) = tokio::join!(
            one.create_stream(&of, options()),
            two.create_stream(&of, options())
        );
        assert_eq!(usize::from(a.is_ok()) + usize::from(b.is_ok()), 1);
    }
    assert_eq!(one.streams().unwrap().len(), 4);
}

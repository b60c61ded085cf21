//! Copying a stream to another bus, still sealed.

use std::time::Duration;

use sealcast::{Archived, BusError, BusUrl, Error, Position};
use sealcast_bus::{Bus, FileBus, Offset, Topic};
use sealcast_protocol::StreamTopics;
use tokio::time::timeout;

use crate::rig::*;

fn archive_url(rig: &Rig) -> BusUrl {
    let folder = rig.path("archive");
    std::fs::create_dir_all(&folder).unwrap();
    BusUrl::file(&folder).unwrap()
}

/// Every item of a topic of the archive.
async fn archived(rig: &Rig, topic: &str) -> Vec<Vec<u8>> {
    let bus = FileBus::open(rig.path("archive")).await.unwrap();
    let topic = Topic::new(topic).unwrap();
    let items = bus.read(&topic, Offset(0), 32 << 20).await.unwrap();
    items.into_iter().map(|item| item.payload).collect()
}

/// One step, which must come to something.
async fn step(archive: &mut sealcast::Archive) -> Result<Archived, Error> {
    let step = timeout(Duration::from_secs(120), archive.next()).await;
    step.expect("there is something to copy")
}

/// Copies until so many items were copied.
async fn copy(archive: &mut sealcast::Archive, count: u64) -> Archived {
    let mut all = Archived::default();
    while all.items < count {
        let some = step(archive).await.unwrap();
        all.items += some.items;
        all.bytes += some.bytes;
        all.differed |= some.differed;
    }
    assert_eq!(all.items, count);
    all
}

#[tokio::test]
async fn an_archive_has_every_topic_item_for_item_and_nothing_twice() {
    let rig = Rig::small();
    let (alice, bob) = (rig.home("alice").await, rig.home("bob").await);
    let stream = kitchen(&alice).await;
    let joined = join(&bob, &stream).await;
    say(&stream, "one").await;
    stream.grant(all_to(bob.user())).await.unwrap();
    let url = archive_url(&rig);
    // Two cards, two entries, a record, a bundle and an envelope.
    let mut archive = joined.archive_to(&url).await.unwrap();
    assert!(!copy(&mut archive, 7).await.differed);
    drop(archive);
    say(&stream, "two").await;
    let mut archive = joined.archive_to(&url).await.unwrap();
    copy(&mut archive, 1).await;
    say(&stream, "three").await;
    copy(&mut archive, 1).await;
    let of = StreamTopics(stream.id());
    for topic in [
        of.data(),
        of.keys(),
        of.access(&alice.device()),
        alice.user().devices_topic(),
        bob.user().devices_topic(),
    ] {
        let there = rig.items(&topic).await;
        assert!(!there.is_empty());
        assert_eq!(archived(&rig, &topic).await, there, "{topic}");
    }
}

#[tokio::test]
async fn an_archive_keeps_what_the_bus_lost_and_takes_in_what_came_instead() {
    let rig = Rig::small();
    let alice = rig.home("alice").await;
    let stream = kitchen(&alice).await;
    say(&stream, "one").await;
    copy_folder(&rig.path("bus"), &rig.path("saved"));
    say(&stream, "lost").await;
    let url = archive_url(&rig);
    let mut archive = stream.archive_to(&url).await.unwrap();
    copy(&mut archive, 5).await;
    let lost = rig.data(&stream).await;
    drop((archive, stream, alice));
    std::fs::remove_dir_all(rig.path("bus")).unwrap();
    copy_folder(&rig.path("saved"), &rig.path("bus"));
    let alice = rig.again("alice").await;
    let stream = alice.stream(&name("kitchen")).await.unwrap();
    say(&stream, "instead").await;
    let now = rig.data(&stream).await;
    let mut archive = stream.archive_to(&url).await.unwrap();
    let data = StreamTopics(stream.id()).data();
    // The envelope, and the record of the session that it is sealed with.
    let mut differed = false;
    while archived(&rig, &data).await.len() < 3 {
        differed |= step(&mut archive).await.unwrap().differed;
    }
    assert!(differed);
    assert_eq!(archived(&rig, &data).await, [&lost[..], &now[1..]].concat());
    // It goes on behind.
    drop(archive);
    say(&stream, "after").await;
    let mut archive = stream.archive_to(&url).await.unwrap();
    while archived(&rig, &data).await.len() < 4 {
        assert!(!step(&mut archive).await.unwrap().differed);
    }
    let all = rig.data(&stream).await;
    assert_eq!(archived(&rig, &data).await, [&lost[..], &all[1..]].concat());
}

#[tokio::test]
async fn an_archive_that_does_not_keep_what_is_written_is_found_out() {
    let rig = Rig::small();
    drop(rig.home("alice").await);
    let url = archive_url(&rig);
    let loses = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let told = loses.clone();
    let ground = Meddler::ground(move |ask, topic| {
        let is_lost = told.load(std::sync::atomic::Ordering::SeqCst)
            && ask == Ask::Append
            && topic.ends_with("/data");
        match is_lost {
            true => Manner::Lose,
            false => Manner::Honest,
        }
    });
    let alice = rig.on("alice", ground).await;
    let stream = kitchen(&alice).await;
    say(&stream, "one").await;
    loses.store(true, std::sync::atomic::Ordering::SeqCst);
    let mut archive = stream.archive_to(&url).await.unwrap();
    let fault = loop {
        if let Err(fault) = step(&mut archive).await {
            break fault;
        }
    };
    assert!(
        matches!(fault, Error::Bus(BusError::Damaged { .. })),
        "{fault:?}"
    );
    loses.store(false, std::sync::atomic::Ordering::SeqCst);
    let data = StreamTopics(stream.id()).data();
    while archived(&rig, &data).await.is_empty() {
        step(&mut archive).await.unwrap();
    }
    assert_eq!(archived(&rig, &data).await, rig.data(&stream).await);
}

#[tokio::test]
async fn the_place_of_an_item_is_noted_where_the_bus_has_not_kept_those_before() {
    let rig = Rig::small();
    let alice = rig.home("alice").await;
    let stream = kitchen(&alice).await;
    for text in ["trimmed", "kept", "newer"] {
        say(&stream, text).await;
    }
    let data = StreamTopics(stream.id()).data();
    let bus = rig.bus().await;
    bus.trim(&Topic::new(&data).unwrap(), Offset(1))
        .await
        .unwrap();
    let url = archive_url(&rig);
    for count in [2, 3] {
        let mut archive = stream.archive_to(&url).await.unwrap();
        while archived(&rig, &data).await.len() < count {
            assert!(!step(&mut archive).await.unwrap().differed);
        }
        let notes = archived(&rig, &format!("archive/{data}")).await;
        assert_eq!(notes.len(), 1);
        assert_eq!(archived(&rig, &data).await, rig.data(&stream).await);
        say(&stream, "newest").await;
    }
}

#[tokio::test]
async fn the_bus_itself_and_a_folder_that_is_not_there_are_no_archive() {
    let rig = Rig::small();
    let alice = rig.home("alice").await;
    let stream = kitchen(&alice).await;
    say(&stream, "one").await;
    std::os::unix::fs::symlink(rig.path("bus"), rig.path("link")).unwrap();
    for same in ["bus", "link"] {
        let url = BusUrl::file(&rig.path(same)).unwrap();
        let refused = stream.archive_to(&url).await.map(|_| ());
        assert!(matches!(refused, Err(Error::ArchiveIsBus)), "{same}");
    }
    let url = BusUrl::file(&rig.path("missing")).unwrap();
    let refused = stream.archive_to(&url).await.map(|_| ());
    assert!(matches!(
        refused,
        Err(Error::Bus(BusError::Unreachable { .. }))
    ));
    assert!(!rig.path("missing").exists());
    assert!(Position::START < say(&stream, "two").await);
}

//! What of a history is told to be missing: what does not come, however late the rest does.

use sealcast::{Interval, Stream};
use sealcast_bus::{Bus as _, Offset, Topic};
use sealcast_protocol::StreamTopics;

use crate::rig::*;

/// Seals something that somebody brings later.
async fn sealed(stream: &Stream, text: &str) -> Vec<u8> {
    let sealed = stream.seal(None, text.as_bytes()).await.unwrap();
    sealed.envelope
}

/// So it is where the newest message is shown first, and an archive brings the older ones.
#[tokio::test]
async fn what_comes_behind_what_follows_it_is_not_missing_from_a_history() {
    let rig = Rig::small();
    let alice = rig.home("alice").await;
    let stream = kitchen(&alice).await;
    let mut brought = Vec::new();
    for text in ["one", "two", "three", "lost", "five", "six"] {
        brought.push(sealed(&stream, text).await);
    }
    let [one, two, three, _, five, six] = &brought[..] else {
        panic!("six were sealed")
    };
    for (envelope, told) in [
        (three, &["three", "Gap(2)"][..]),
        (six, &["three", "six", "Gap(2)", "Gap(2)"]),
        (two, &["three", "six", "two", "Gap(1)", "Gap(2)"]),
        (five, &["three", "six", "two", "five", "Gap(1)", "Gap(1)"]),
        (one, &["three", "six", "two", "five", "one", "Gap(1)"]),
    ] {
        rig.inject(&stream, envelope).await;
        assert_eq!(history(&stream).await, told);
    }
}

/// Though another gap is nearer, or larger.
#[tokio::test]
async fn what_comes_late_fills_the_gap_that_it_lies_in() {
    let rig = Rig::small();
    let alice = rig.home("alice").await;
    let stream = kitchen(&alice).await;
    let mut brought = Vec::new();
    for text in ["old", "trimmed", "first", "lost", "lost too", "last"] {
        brought.push(sealed(&stream, text).await);
    }
    rig.inject(&stream, &brought[1]).await;
    let topic = Topic::new(&StreamTopics(stream.id()).data()).unwrap();
    rig.bus().await.trim(&topic, Offset(1)).await.unwrap();
    for at in [2, 5, 0] {
        rig.inject(&stream, &brought[at]).await;
    }
    let told = history(&stream).await;
    assert_eq!(told, ["first", "last", "old", "Gap(1)", "Gap(2)"]);
    rig.inject(&stream, &brought[4]).await;
    let told = history(&stream).await;
    let expected = ["first", "last", "old", "lost too", "Gap(1)", "Gap(1)"];
    assert_eq!(told, expected);
}

/// Its records are told one by one, and fill one place.
#[tokio::test]
async fn a_frame_that_comes_late_is_one_envelope() {
    let rig = Rig::small();
    let alice = rig.home("alice").await;
    let stream = kitchen(&alice).await;
    let lost = sealed(&stream, "lost").await;
    let mut publisher = stream.publisher().await.unwrap();
    for text in ["a", "b", "c"] {
        publisher.send(text.as_bytes()).await.unwrap();
    }
    publisher.finish().await.unwrap();
    let frames = rig.data(&stream).await;
    assert_eq!(frames.len(), 1);
    let last = sealed(&stream, "last").await;
    // The bus has it behind what follows it.
    let topic = Topic::new(&StreamTopics(stream.id()).data()).unwrap();
    rig.bus().await.trim(&topic, Offset(1)).await.unwrap();
    rig.inject(&stream, &last).await;
    rig.inject(&stream, &frames[0]).await;
    assert_eq!(history(&stream).await, ["last", "a", "b", "c", "Gap(1)"]);
    let mut reader = stream.read(Interval::ALL).await.unwrap();
    assert_eq!(line(&reader.next().await.unwrap().unwrap()), "last");
    assert_eq!(line(&reader.next().await.unwrap().unwrap()), "a");
    while let Some(lent) = reader.lend() {
        assert!([b"b", b"c"].contains(&lent.payload().first_chunk().unwrap()));
    }
    assert_eq!(line(&reader.next().await.unwrap().unwrap()), "Gap(1)");
    rig.inject(&stream, &lost).await;
    assert_eq!(history(&stream).await, ["last", "a", "b", "c", "lost"]);
}

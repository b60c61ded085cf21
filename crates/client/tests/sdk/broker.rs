//! What lies on the broker's disk.

use std::path::Path;

use sealcast::{Interval, Position, Roles};

use crate::rig::*;

const NAMES: [&str; 5] = [
    "alice-of-the-mill",
    "bob-of-the-quay",
    "kitchen-thermometer",
    "robert-contact",
    "cellar-hatch",
];
const TEXTS: [&str; 4] = [
    "the soup is boiling over",
    "the cat is on the roof",
    "older than the hills",
    "a framed record",
];

/// Promise 1: neither content nor names reach the bus.
#[tokio::test]
async fn the_broker_holds_no_content_and_no_names() {
    let rig = Rig::new();
    let (alice, bob) = (rig.home(NAMES[0]).await, rig.home(NAMES[1]).await);
    alice.add_contact(&name(NAMES[3]), bob.user()).unwrap();
    let options = sealcast::StreamOptions::default();
    let stream = alice.create_stream(&name(NAMES[2]), options).await.unwrap();
    let joined = bob
        .join(stream.ticket(), Some(&name(NAMES[4])))
        .await
        .unwrap();
    stream
        .grant(to(
            bob.user(),
            Roles::READER.with(Roles::PUBLISHER),
            Interval::ALL,
        ))
        .await
        .unwrap();
    say(&stream, TEXTS[0]).await;
    joined.sync().await.unwrap();
    say(&joined, TEXTS[1]).await;
    let mut backfill = stream.backfill().await.unwrap();
    backfill
        .send(Position(5), TEXTS[2].as_bytes())
        .await
        .unwrap();
    backfill.finish().await.unwrap();
    let mut publisher = stream.publisher().await.unwrap();
    publisher.send(TEXTS[3].as_bytes()).await.unwrap();
    publisher.finish().await.unwrap();
    stream.rekey().await.unwrap();
    stream.revoke_user(bob.user()).await.unwrap();
    assert_eq!(history(&stream).await, TEXTS);
    drop((stream, joined, alice, bob));

    let (mut bytes, mut files) = (0, 0);
    search(&rig.path("bus"), &mut |path, content| {
        bytes += content.len();
        files += 1;
        for needle in NAMES.iter().chain(&TEXTS) {
            let hit = content
                .windows(needle.len())
                .any(|window| window == needle.as_bytes());
            assert!(!hit, "`{needle}` in {}", path.display());
        }
    });
    assert!(files > 0 && bytes > 4_000);
    // The search finds what is there: the homes' own names stand in their paths alone.
    let mut found = false;
    search(&rig.path("bus"), &mut |_, content| {
        found |= content.windows(7).any(|window| window == b"/access");
    });
    assert!(found);
}

fn search(folder: &Path, look: &mut dyn FnMut(&Path, &[u8])) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => search(&path, look),
            false => look(&path, &std::fs::read(&path).unwrap()),
        }
    }
}

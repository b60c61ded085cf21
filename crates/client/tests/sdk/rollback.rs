//! A bus that goes back on what it showed.

use sealcast::{Alarm, Error};

use crate::rig::*;

fn restore_bus(rig: &Rig) {
    std::fs::remove_dir_all(rig.path("bus")).unwrap();
    copy_folder(&rig.path("bus copy"), &rig.path("bus"));
}

#[tokio::test]
async fn nothing_is_written_after_entries_that_the_bus_lost() {
    let rig = Rig::new();
    let (alice, bob, carol) = (
        rig.home("alice").await,
        rig.home("bob").await,
        rig.home("carol").await,
    );
    let stream = kitchen(&alice).await;
    drop((join(&bob, &stream).await, join(&carol, &stream).await));
    stream.grant(all_to(bob.user())).await.unwrap();
    let (bob_id, carol_id) = (bob.user(), carol.user());
    drop((stream, alice, bob, carol));
    copy_folder(&rig.path("bus"), &rig.path("bus copy"));
    let stream = rig
        .again("alice")
        .await
        .stream(&name("kitchen"))
        .await
        .unwrap();
    stream.grant(all_to(carol_id)).await.unwrap();
    drop(stream);
    restore_bus(&rig);

    let alice = rig.again("alice").await;
    let stream = alice.stream(&name("kitchen")).await.unwrap();
    assert!(matches!(stream.alarms()[..], [Alarm::WentBack(_)]));
    let refused = stream.revoke_user(bob_id).await;
    assert!(matches!(refused, Err(Error::RolledBack(_))), "{refused:?}");
    // Another time, too, and in another process.
    let stream = rig
        .again("alice")
        .await
        .stream(&name("kitchen"))
        .await
        .unwrap();
    let refused = stream.revoke_user(bob_id).await;
    assert!(matches!(refused, Err(Error::RolledBack(_))), "{refused:?}");
    // What was granted stays known here, and publishing goes on.
    assert_eq!(stream.who().await.unwrap().len(), 3);
    say(&stream, "one").await;
    assert_eq!(history(&stream).await, ["one"]);
}

#[tokio::test]
async fn a_session_whose_record_the_bus_lost_is_replaced() {
    let rig = Rig::new();
    let (alice, bob) = (rig.home("alice").await, rig.home("bob").await);
    let stream = kitchen(&alice).await;
    let joined = join(&bob, &stream).await;
    stream.grant(all_to(bob.user())).await.unwrap();
    drop((stream, alice, joined, bob));
    copy_folder(&rig.path("bus"), &rig.path("bus copy"));
    let stream = rig
        .again("alice")
        .await
        .stream(&name("kitchen"))
        .await
        .unwrap();
    say(&stream, "lost").await;
    drop(stream);
    restore_bus(&rig);

    let stream = rig
        .again("alice")
        .await
        .stream(&name("kitchen"))
        .await
        .unwrap();
    say(&stream, "kept").await;
    assert!(matches!(stream.alarms()[..], [Alarm::WentBack(_)]));
    let joined = rig
        .again("bob")
        .await
        .stream(&name("kitchen"))
        .await
        .unwrap();
    let told = history(&joined).await;
    assert_eq!(
        told.iter()
            .filter(|of| !of.starts_with("Gap"))
            .collect::<Vec<_>>(),
        ["kept"]
    );
    assert_eq!(told.len(), 2);
}

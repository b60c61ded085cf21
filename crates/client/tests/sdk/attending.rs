//! Following a stream's access log and keys without its messages.

use sealcast::{Alarm, Attended, Error};

use crate::rig::*;

/// Drives an attendant until it has handed something out.
async fn until_handed_out(attendant: &mut sealcast::Attendant) -> Attended {
    loop {
        let attended = attendant.next().await.unwrap();
        if attended.bundles > 0 {
            return attended;
        }
    }
}

#[tokio::test]
async fn whoever_joins_after_being_granted_gets_the_keys() {
    let rig = Rig::small();
    let (alice, bob) = (rig.home("alice").await, rig.home("bob").await);
    let stream = kitchen(&alice).await;
    say(&stream, "for bob").await;
    stream.grant(all_to(bob.user())).await.unwrap();
    let mut attendant = stream.attend();
    assert_eq!(attendant.next().await.unwrap(), Attended::default());
    let joined = join(&bob, &stream).await;
    assert_eq!(history(&joined).await, ["Sealed(KeyNotHere)"]);
    let attended = until_handed_out(&mut attendant).await;
    assert!(attended.bundles == 1 && attended.bundle_bytes > 1_000);
    assert_eq!(history(&joined).await, ["for bob"]);
}

#[tokio::test]
async fn whoever_is_granted_by_another_keyholder_gets_the_keys_of_this_lane() {
    let rig = Rig::small();
    let (alice, bob) = (rig.home("alice").await, rig.home("bob").await);
    let stream = kitchen(&alice).await;
    say(&stream, "for bob").await;
    // Another process of the home writes the grant and is gone before the newcomer comes.
    let other = rig.again("alice").await;
    let mut attendant = stream.attend();
    attendant.next().await.unwrap();
    let granting = other.stream(&name("kitchen")).await.unwrap();
    granting.grant(all_to(bob.user())).await.unwrap();
    drop((granting, other));
    let joined = join(&bob, &stream).await;
    until_handed_out(&mut attendant).await;
    assert_eq!(history(&joined).await, ["for bob"]);
}

#[tokio::test]
async fn an_attendant_goes_on_when_the_bus_can_be_used_again() {
    let rig = Rig::small();
    let bob = rig.home("bob").await;
    drop(rig.home("alice").await);
    let is_up = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let up = is_up.clone();
    let ground = Meddler::ground(
        move |_, _| match up.load(std::sync::atomic::Ordering::SeqCst) {
            true => Manner::Honest,
            false => Manner::Fail,
        },
    );
    let alice = rig.on("alice", ground).await;
    let stream = kitchen(&alice).await;
    say(&stream, "for bob").await;
    stream.grant(all_to(bob.user())).await.unwrap();
    let mut attendant = stream.attend();
    attendant.next().await.unwrap();
    let joined = join(&bob, &stream).await;
    is_up.store(false, std::sync::atomic::Ordering::SeqCst);
    for _ in 0..2 {
        assert!(matches!(attendant.next().await, Err(Error::Bus(_))));
    }
    is_up.store(true, std::sync::atomic::Ordering::SeqCst);
    until_handed_out(&mut attendant).await;
    assert_eq!(history(&joined).await, ["for bob"]);
    assert_eq!(stream.alarms(), [] as [Alarm; 0]);
}

/// Whichever handle of one run comes first hands the keys out, and the attendant tells of all.
#[tokio::test]
async fn what_a_subscription_of_the_same_run_hands_out_is_told_as_well() {
    let rig = Rig::small();
    let (alice, bob) = (rig.home("alice").await, rig.home("bob").await);
    let stream = kitchen(&alice).await;
    say(&stream, "for bob").await;
    stream.grant(all_to(bob.user())).await.unwrap();
    let mut attendant = stream.attend();
    attendant.next().await.unwrap();
    let joined = join(&bob, &stream).await;
    stream.sync().await.unwrap();
    assert_eq!(history(&joined).await, ["for bob"]);
    assert_eq!(until_handed_out(&mut attendant).await.bundles, 1);
}

//! A device is added or revoked by a process that ends after each of its effects in turn: each write
//! of the store and each append to the bus. The same command, run again, does what is left.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use sealcast::{Error, Ground, Home, InitOptions, Joined, Joining, Passphrase, StreamOutcome};
use sealcast_protocol::{CardList, ListBody, ListEntry, Unverified, UserId};

use crate::rig::{
    Ask, Gated, Manner, Meddler, Rig, all_to, copy_folder, history, join, kitchen, name, say,
};

const AT_ONCE: Duration = Duration::ZERO;
const HOMES: [&str; 4] = ["bus", "alice", "bob", "phone"];

/// Lets so many effects happen, and none after them.
fn ending_after(effects: i64) -> Ground {
    let left = Arc::new(AtomicI64::new(effects));
    let for_bus = left.clone();
    let ground = Meddler::ground(move |ask, _| match ask {
        Ask::Append if for_bus.fetch_sub(1, Ordering::SeqCst) <= 0 => Manner::Fail,
        Ask::Append | Ask::Read | Ask::End => Manner::Honest,
    });
    Gated::over(ground, move || left.fetch_sub(1, Ordering::SeqCst) > 0)
}

fn keep(rig: &Rig) {
    for folder in HOMES.iter().filter(|of| rig.path(of).exists()) {
        copy_folder(&rig.path(folder), &rig.path("kept").join(folder));
    }
}

fn put_back(rig: &Rig) {
    for folder in HOMES {
        let (kept, place) = (rig.path("kept").join(folder), rig.path(folder));
        if Path::exists(&kept) {
            std::fs::remove_dir_all(&place).unwrap();
            copy_folder(&kept, &place);
        }
    }
}

fn is_done(outcomes: &Result<Vec<StreamOutcome>, Error>) -> bool {
    outcomes
        .as_ref()
        .is_ok_and(|all| all.iter().all(|of| of.error.is_none()))
}

/// The list on the bus, in which every entry has its place once.
async fn list_of(rig: &Rig, user: UserId) -> (CardList, usize) {
    let mut list = CardList::new(user);
    let mut revocations = 0;
    for item in rig.items(&user.devices_topic()).await {
        let before = list.next_seq();
        list.apply(&item).unwrap();
        let entry = Unverified::<ListEntry>::decode(&item).unwrap();
        let is_new = list.next_seq() > before;
        let is_revocation = matches!(entry.claims().body, ListBody::Revoke(_));
        revocations += usize::from(is_new && is_revocation);
    }
    (list, revocations)
}

/// Alice owns a stream that bob reads, and a device that shows a code waits.
async fn begun(rig: &Rig) -> Joining {
    let (alice, bob) = (rig.home("alice").await, rig.home("bob").await);
    let stream = kitchen(&alice).await;
    stream.grant(all_to(bob.user())).await.unwrap();
    drop(join(&bob, &stream).await);
    say(&stream, "one").await;
    let options = InitOptions {
        name: None,
        bus: Some(rig.bus_url()),
        passphrase: Passphrase::None,
    };
    let user = Some(alice.user());
    let mut joining = Joining::begin(&rig.path("phone"), options, user)
        .await
        .unwrap();
    let waits = joining.join(AT_ONCE).await.unwrap();
    assert!(matches!(waits, Joined::Waiting { .. }));
    joining
}

async fn add(home: &Home, joining: &Joining) -> Result<Vec<StreamOutcome>, Error> {
    let mut found = home.find_applicant(joining.code(), None, AT_ONCE).await?;
    let called = name("phone");
    home.add_device(&mut found, Some(&called), AT_ONCE).await
}

async fn finish(rig: &Rig) -> Home {
    let mut joining = Joining::open(&rig.path("phone"), None).await.unwrap();
    match joining.join(AT_ONCE).await.unwrap() {
        Joined::Done(home) => *home,
        Joined::Waiting { user } => panic!("it waits still, for {user:?}"),
    }
}

#[tokio::test]
async fn adding_a_device_may_end_after_any_effect_and_is_finished_by_the_next_try() {
    let rig = Rig::small();
    let joining = begun(&rig).await;
    keep(&rig);
    let mut ended = 0;
    for effects in 0..100 {
        put_back(&rig);
        let home = rig.on("alice", ending_after(effects)).await;
        let first = add(&home, &joining).await;
        drop(home);
        let alice = rig.again("alice").await;
        let again = add(&alice, &joining).await;
        assert!(is_done(&again), "after {effects}: {again:?}");
        let phone = finish(&rig).await;
        let (list, _) = list_of(&rig, alice.user()).await;
        assert_eq!(
            (list.next_seq(), list.devices().count()),
            (2, 2),
            "after {effects}"
        );
        let read = phone.stream(&name("kitchen")).await.unwrap();
        assert_eq!(history(&read).await, ["one"], "after {effects}");
        assert_eq!(read.alarms(), []);
        if is_done(&first) {
            break;
        }
        ended += 1;
    }
    assert!((6..100).contains(&ended), "{ended}");
}

/// fault 13
#[tokio::test]
async fn revoking_a_device_may_end_after_any_effect_and_is_finished_by_the_next_try() {
    let rig = Rig::small();
    let joining = begun(&rig).await;
    let alice = rig.again("alice").await;
    assert!(is_done(&add(&alice, &joining).await));
    drop((alice, joining));
    let phone = finish(&rig).await;
    let device = phone.device();
    drop(phone.stream(&name("kitchen")).await.unwrap());
    drop(phone);
    keep(&rig);
    let mut ended = 0;
    for effects in 0..100 {
        put_back(&rig);
        let home = rig.on("alice", ending_after(effects)).await;
        let first = home.revoke_device(device).await;
        drop(home);
        let alice = rig.again("alice").await;
        let again = alice.revoke_device(device).await;
        assert!(is_done(&again), "after {effects}: {again:?}");
        let (list, revocations) = list_of(&rig, alice.user()).await;
        assert_eq!((list.next_seq(), revocations), (3, 1), "after {effects}");
        let findings = alice.doctor().await.unwrap();
        let is_left = findings
            .iter()
            .any(|of| of.text.contains("does not know yet"));
        assert!(!is_left, "after {effects}: {findings:?}");
        let stream = alice.stream(&name("kitchen")).await.unwrap();
        say(&stream, "two").await;
        let opened = async |of: &str| {
            let home = rig.again(of).await;
            let stream = home.stream(&name("kitchen")).await.unwrap();
            let lines = history(&stream).await;
            assert_eq!(stream.alarms(), [], "{of} after {effects}");
            lines
                .into_iter()
                .filter(|of| !of.contains('('))
                .collect::<Vec<_>>()
        };
        assert_eq!(opened("bob").await, ["one", "two"], "after {effects}");
        assert_eq!(opened("phone").await, ["one"], "after {effects}");
        if is_done(&first) {
            break;
        }
        ended += 1;
    }
    assert!((6..100).contains(&ended), "{ended}");
}

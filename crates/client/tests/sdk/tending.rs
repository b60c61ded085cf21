//! What a process does for its devices that runs for weeks, as an agent does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sealcast::{
    BusUrl, FileKey, FileLock, Ground, Home, Passphrase, SecretBytes, Stream, StreamOptions,
};
use sealcast_bus::{Bus as _, FileBus, Item, Offset, Topic};
use sealcast_protocol::{
    CARD_LIFETIME_MS, FALLBACK_PERIOD_MS, FallbackKey, ListBody, ListEntry, LogBody, LogEntry,
    StreamTopics, Unverified,
};

use crate::devices::add;
use crate::rig::{Ask, Manner, Meddler, Rig, Time, all_to, history, join, kitchen, name, say};

const TEN_MONTHS: u64 = 306 * 24 * 3600 * 1000;

/// When each card ends that lies on a bus, in order.
async fn ends(rig: &Rig, home: &Home) -> Vec<u64> {
    let items = rig.items(&home.user().devices_topic()).await;
    let bodies = items.iter().map(|item| {
        let entry = Unverified::<ListEntry>::decode(item).unwrap();
        entry.claims().body.clone()
    });
    let cards = bodies.filter_map(|body| match body {
        ListBody::Card(card) => Some(card.expires.0),
        ListBody::Revoke(_) | ListBody::Checkpoint(_) => None,
    });
    cards.collect()
}

/// The periods of the fallback keys that a bus shows of a device.
async fn periods(bus: &FileBus, home: &Home) -> Vec<u32> {
    let topic = Topic::new(&home.device().fallback_topic()).unwrap();
    let items = bus.read(&topic, Offset(0), 1 << 20).await.unwrap();
    let read = items.iter().filter_map(|item| {
        let key = Unverified::<FallbackKey>::decode(&item.payload).ok()?;
        Some(key.claims().period)
    });
    read.collect()
}

#[tokio::test]
async fn a_process_that_runs_on_renews_the_cards_in_time() {
    let rig = Rig::small();
    let time = Time::new();
    let alice = rig.home_by("alice", &time).await;
    let stream = kitchen(&alice).await;
    let first = ends(&rig, &alice).await;
    assert_eq!(first.len(), 1);
    time.pass(TEN_MONTHS);
    for _ in 0..2 {
        stream.sync().await.unwrap();
        let renewed = time.now().0 + CARD_LIFETIME_MS;
        assert_eq!(ends(&rig, &alice).await, [first[0], renewed]);
    }
    assert_eq!(stream.alarms(), []);
}

async fn attic(home: &Home, rig: &Rig) -> Stream {
    let options = StreamOptions {
        bus: Some(BusUrl::file(&rig.path("other")).unwrap()),
        ..StreamOptions::default()
    };
    home.create_stream(&name("attic"), options).await.unwrap()
}

#[tokio::test]
async fn a_process_that_runs_on_names_its_new_fallback_key_on_each_of_its_buses() {
    let rig = Rig::small();
    let time = Time::new();
    let alice = rig.home_by("alice", &time).await;
    let streams = [kitchen(&alice).await, attic(&alice, &rig).await];
    let other = FileBus::open(rig.path("other")).await.unwrap();
    let first = FallbackKey::period_at(time.now());
    time.pass(FALLBACK_PERIOD_MS);
    for stream in &streams {
        stream.sync().await.unwrap();
    }
    for bus in [&rig.bus().await, &other] {
        assert_eq!(periods(bus, &alice).await, [first, first + 1]);
    }
}

/// A bus that takes nothing in topics that have a text in their names, while it is told so.
fn refusing(time: &Time, text: &'static str, is_full: &Arc<AtomicBool>) -> Ground {
    let full = is_full.clone();
    let ground = Meddler::ground(move |ask, topic| {
        let refuses = full.load(Ordering::SeqCst) && topic.contains(text);
        match refuses && ask == Ask::Append {
            true => Manner::Fail,
            false => Manner::Honest,
        }
    });
    Ground {
        clock: time.ground().clock,
        ..ground
    }
}

#[tokio::test]
async fn a_new_fallback_key_that_a_bus_did_not_take_is_named_later() {
    let rig = Rig::small();
    let time = Time::new();
    drop(rig.home("alice").await);
    let is_full = Arc::new(AtomicBool::new(false));
    let ground = refusing(&time, "/fallback", &is_full);
    let alice = rig.on("alice", ground).await;
    let stream = kitchen(&alice).await;
    let first = FallbackKey::period_at(time.now());
    is_full.store(true, Ordering::SeqCst);
    time.pass(FALLBACK_PERIOD_MS);
    stream.sync().await.unwrap();
    assert_eq!(periods(&rig.bus().await, &alice).await, [first]);
    is_full.store(false, Ordering::SeqCst);
    time.pass(24 * 3600 * 1000);
    stream.sync().await.unwrap();
    assert_eq!(periods(&rig.bus().await, &alice).await, [first, first + 1]);
}

#[tokio::test]
async fn rubbish_among_fallback_keys_does_not_hide_them() {
    let rig = Rig::small();
    let time = Time::new();
    let alice = rig.home_by("alice", &time).await;
    let stream = kitchen(&alice).await;
    let first = FallbackKey::period_at(time.now());
    let bus = rig.bus().await;
    let topic = Topic::new(&alice.device().fallback_topic()).unwrap();
    let named = rig.items(topic.as_ref()).await;
    bus.trim(&topic, Offset(1)).await.unwrap();
    let rubbish = vec![vec![0; 100_000], named[0].clone()];
    bus.append(&topic, rubbish).await.unwrap();
    time.pass(2 * 3600 * 1000);
    stream.sync().await.unwrap();
    assert_eq!(periods(&bus, &alice).await, [first]);
    let devices = alice.devices().await.unwrap();
    assert!(devices[0].used.is_some());
}

/// A file that is kept for years must not keep what is deleted after two weeks.
#[tokio::test]
async fn a_backup_has_no_fallback_keys() {
    let rig = Rig::small();
    let time = Time::new();
    let alice = rig.home_by("alice", &time).await;
    drop(kitchen(&alice).await);
    let secret = || SecretBytes::from(b"a secret".to_vec());
    let lock = FileLock::passphrase(secret()).danger_with_work_factor(1);
    let backup = alice.backup(lock, false).await.unwrap();
    let (key, folder) = (FileKey::Passphrase(secret()), rig.path("again"));
    let restored = Home::restore(&folder, &backup.file, key, Passphrase::None);
    drop(restored.await.unwrap());
    let again = rig.on("again", time.ground()).await;
    drop(again.stream(&name("kitchen")).await.unwrap());
    let named = rig.items(&alice.device().fallback_topic()).await;
    assert_eq!(named.len(), 2);
    assert_ne!(named[0], named[1]);
}

/// Bob's second device is revoked while one of two buses is away, and that one never shows it.
#[tokio::test]
async fn a_revocation_that_one_bus_shows_counts_on_the_others_too() {
    let rig = Rig::small();
    let time = Time::new();
    let [alice, bob] = rig.homes_by(["alice", "bob"], &time).await;
    let streams = [kitchen(&alice).await, attic(&alice, &rig).await];
    for stream in &streams {
        drop(join(&bob, stream).await);
        stream.grant(all_to(bob.user())).await.unwrap();
    }
    drop(add(&rig, &bob, "phone").await);
    for stream in &streams {
        stream.sync().await.unwrap();
        say(stream, "before").await;
    }
    let phone = rig.on("phone", time.ground()).await;
    let (there, away) = (rig.path("other"), rig.path("away"));
    std::fs::rename(&there, &away).unwrap();
    let outcomes = bob.revoke_device(phone.device()).await.unwrap();
    let left = outcomes.iter().filter(|of| of.error.is_some());
    assert_eq!(left.count(), 1, "{outcomes:?}");
    std::fs::rename(&away, &there).unwrap();
    time.pass(3600 * 1000);
    let [kitchen, attic] = streams;
    kitchen.sync().await.unwrap();
    attic.sync().await.unwrap();
    say(&attic, "after").await;
    attic.sync().await.unwrap();
    let read = history(&phone.stream(&name("attic")).await.unwrap()).await;
    assert_eq!(read[0], "before");
    assert!(read[1].starts_with("Sealed"), "{read:?}");
}

/// The removals in the log of a stream, as a bus shows what one device wrote there.
async fn removals(bus: &FileBus, stream: &Stream, home: &Home) -> usize {
    let topic = StreamTopics(stream.id()).access(&home.device());
    let topic = Topic::new(&topic).unwrap();
    let items = bus.read(&topic, Offset(0), 1 << 20).await.unwrap();
    let is_removal = |item: &Item| {
        let entry = Unverified::<LogEntry>::decode(&item.payload).unwrap();
        matches!(entry.claims().body, LogBody::Revoke(_))
    };
    items.into_iter().filter(is_removal).count()
}

/// The command that revokes a device is done once; an agent comes back.
#[tokio::test]
async fn who_attends_to_a_stream_takes_out_devices_that_were_revoked_while_it_was_away() {
    let rig = Rig::small();
    let time = Time::new();
    let alice = rig.home_by("alice", &time).await;
    let attic = attic(&alice, &rig).await;
    let phone = add(&rig, &alice, "phone").await;
    let (there, away) = (rig.path("other"), rig.path("away"));
    std::fs::rename(&there, &away).unwrap();
    let outcomes = alice.revoke_device(phone.device()).await.unwrap();
    assert!(outcomes[0].error.is_some(), "{outcomes:?}");
    std::fs::rename(&away, &there).unwrap();
    let bus = FileBus::open(&there).await.unwrap();
    let mut attendant = attic.attend();
    attendant.next().await.unwrap();
    assert_eq!(removals(&bus, &attic, &alice).await, 0);
    time.pass(3600 * 1000);
    for _ in 0..2 {
        let mut attendant = attic.attend();
        attendant.next().await.unwrap();
        assert_eq!(removals(&bus, &attic, &alice).await, 1);
    }
    assert_eq!(attic.alarms(), []);
}

#[tokio::test]
async fn a_revoked_device_that_cannot_be_taken_out_keeps_nobody_from_being_given_keys() {
    let rig = Rig::small();
    let time = Time::new();
    drop(rig.home("alice").await);
    let bob = rig.home_by("bob", &time).await;
    let is_full = Arc::new(AtomicBool::new(false));
    let alice = rig.on("alice", refusing(&time, "/access/", &is_full)).await;
    let stream = kitchen(&alice).await;
    let phone = add(&rig, &alice, "phone").await;
    say(&stream, "one").await;
    stream.grant(all_to(bob.user())).await.unwrap();
    is_full.store(true, Ordering::SeqCst);
    alice.revoke_device(phone.device()).await.unwrap();
    time.pass(3600 * 1000);
    let joined = join(&bob, &stream).await;
    let mut attendant = stream.attend();
    assert_eq!(attendant.next().await.unwrap().bundles, 1);
    assert_eq!(history(&joined).await, ["one"]);
    is_full.store(false, Ordering::SeqCst);
    time.pass(3600 * 1000);
    let mut attendant = stream.attend();
    attendant.next().await.unwrap();
    assert_eq!(removals(&rig.bus().await, &stream, &alice).await, 1);
}

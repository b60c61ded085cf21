//! Several devices of one user: added, listed, renewed, revoked.

use std::sync::Arc;
use std::time::Duration;

use sealcast::{
    Alarm, ControlTopic, Error, Home, InitOptions, Joined, Joining, Name, Passphrase, Roles,
    StreamOutcome, UserId,
};
use sealcast_bus::{Bus as _, Topic};
use sealcast_protocol::{
    CARD_LIFETIME_MS, CardList, FALLBACK_PERIOD_MS, FallbackKey, ListBody, ListEntry, PairingItem,
    PairingRequest, Unverified,
};
use sealcast_store::{KeyFile, SqliteStore, Store as _};

use crate::rig::{
    Ask, Manner, Meddler, Rig, Time, all_to, copy_folder, from_now, history, join, kitchen, name,
    once_before_append, say,
};

const SOON: Duration = Duration::from_secs(120);
const AT_ONCE: Duration = Duration::ZERO;

async fn begin(rig: &Rig, folder: &str, user: Option<UserId>) -> Joining {
    let options = InitOptions {
        name: None,
        bus: Some(rig.bus_url()),
        passphrase: Passphrase::None,
    };
    Joining::begin(&rig.path(folder), options, user)
        .await
        .unwrap()
}

async fn resume(rig: &Rig, folder: &str) -> Joining {
    Joining::open(&rig.path(folder), None).await.unwrap()
}

async fn finish(joining: &mut Joining) -> Home {
    loop {
        if let Joined::Done(home) = joining.join(SOON).await.unwrap() {
            return *home;
        }
    }
}

fn all_done(outcomes: &[StreamOutcome]) {
    assert!(outcomes.iter().all(|of| of.error.is_none()), "{outcomes:?}");
}

/// Adds a device while both are there.
pub(crate) async fn add(rig: &Rig, home: &Home, folder: &str) -> Home {
    let mut joining = begin(rig, folder, None).await;
    let code = joining.code();
    let adds = async {
        let mut found = home.find_applicant(code, None, SOON).await.unwrap();
        let called: Name = folder.parse().unwrap();
        all_done(
            &home
                .add_device(&mut found, Some(&called), SOON)
                .await
                .unwrap(),
        );
    };
    let (added, ()) = tokio::join!(finish(&mut joining), adds);
    added
}

#[tokio::test]
async fn a_new_device_reads_what_its_user_may_and_publishes_as_its_user() {
    let rig = Rig::small();
    let (alice, bob) = (rig.home("alice").await, rig.home("bob").await);
    let stream = kitchen(&alice).await;
    alice.add_contact(&name("bob"), bob.user()).unwrap();
    stream.grant(all_to(bob.user())).await.unwrap();
    say(&stream, "one").await;
    let phone = add(&rig, &alice, "phone").await;
    assert_eq!((phone.user(), phone.is_added()), (alice.user(), true));
    assert_ne!(phone.device(), alice.device());
    assert_eq!(phone.name(), alice.name());
    assert_eq!(phone.contact(&name("bob")).unwrap(), bob.user());
    let on_phone = phone.stream(&name("kitchen")).await.unwrap();
    assert_eq!(history(&on_phone).await, ["one"]);
    say(&on_phone, "from the phone").await;
    let bobs = join(&bob, &stream).await;
    stream.sync().await.unwrap();
    assert_eq!(history(&stream).await, ["one", "from the phone"]);
    assert_eq!(history(&bobs).await, ["one", "from the phone"]);
    for stream in [&stream, &on_phone, &bobs] {
        assert_eq!(stream.alarms(), []);
    }
}

/// fault 12: a reader's new device gets the reader's interval, from the reader's other device, though
/// no keyholder is there.
#[tokio::test]
async fn a_readers_new_device_is_served_by_the_readers_other_one() {
    let rig = Rig::small();
    let (alice, bob) = (rig.home("alice").await, rig.home("bob").await);
    let stream = kitchen(&alice).await;
    say(&stream, "before").await;
    let bobs = join(&bob, &stream).await;
    stream
        .grant(from_now(bob.user(), Roles::READER))
        .await
        .unwrap();
    say(&stream, "after").await;
    assert_eq!(history(&bobs).await, ["Sealed(NotGranted)", "after"]);
    drop((alice, stream, bobs));
    let phone = add(&rig, &bob, "phone").await;
    let read = phone.stream(&name("kitchen")).await.unwrap();
    assert_eq!(history(&read).await, ["Sealed(NotGranted)", "after"]);
}

/// The root key stays where it was drawn.
#[tokio::test]
async fn an_added_device_adds_and_revokes_nobody() {
    let rig = Rig::small();
    let alice = rig.home("alice").await;
    let phone = add(&rig, &alice, "phone").await;
    let joining = begin(&rig, "tablet", None).await;
    let refused = phone.find_applicant(joining.code(), None, AT_ONCE).await;
    assert!(matches!(refused, Err(Error::NoRoot)), "{refused:?}");
    let refused = phone.revoke_device(alice.device()).await;
    assert!(matches!(refused, Err(Error::NoRoot)), "{refused:?}");
    let refused = alice.revoke_device(alice.device()).await;
    assert!(matches!(refused, Err(Error::OwnDevice)), "{refused:?}");
}

#[tokio::test]
async fn devices_are_listed_by_name_and_found_by_it_or_by_their_id() {
    let rig = Rig::small();
    let alice = rig.home("alice").await;
    let stream = kitchen(&alice).await;
    let phone = add(&rig, &alice, "phone").await;
    drop(phone.stream(stream.name()).await.unwrap());
    for home in [&alice, &phone] {
        let devices = home.devices().await.unwrap();
        let shown: Vec<_> = devices
            .iter()
            .map(|of| (of.device, of.name.clone(), of.is_this, of.revoked.is_some()))
            .collect();
        let is_phone = home.device() == phone.device();
        assert_eq!(
            shown,
            [
                (alice.device(), None, !is_phone, false),
                (phone.device(), Some(name("phone")), is_phone, false),
            ]
        );
        assert!(devices.iter().all(|of| of.used.is_some()), "{devices:?}");
    }
    let id = phone.device().to_string();
    for text in ["phone", &id, &id[..6]] {
        assert_eq!(alice.find_device(text).await.unwrap(), phone.device());
    }
    for text in ["tablet", &id[..5], ""] {
        let found = alice.find_device(text).await;
        assert!(matches!(found, Err(Error::NoDevice(_))), "{found:?}");
    }
}

/// fault 13: a revoked device opens nothing that is sealed after, in no stream of the user, and does
/// not come back.
#[tokio::test]
async fn a_revoked_device_opens_nothing_that_is_sealed_after() {
    let rig = Rig::small();
    let (alice, bob) = (rig.home("alice").await, rig.home("bob").await);
    let kitchen = kitchen(&alice).await;
    let bobs = bob
        .create_stream(&name("attic"), Default::default())
        .await
        .unwrap();
    let attic = join(&alice, &bobs).await;
    bobs.grant(all_to(alice.user())).await.unwrap();
    let mut joining = begin(&rig, "phone", None).await;
    let code = joining.code();
    let mut found = {
        let adds = async {
            let mut found = alice.find_applicant(code, None, SOON).await.unwrap();
            all_done(&alice.add_device(&mut found, None, SOON).await.unwrap());
            found
        };
        tokio::join!(finish(&mut joining), adds)
    };
    let phone = &found.0;
    say(&kitchen, "both").await;
    bobs.sync().await.unwrap();
    say(&bobs, "both").await;
    let on_phone = [
        phone.stream(&name("kitchen")).await.unwrap(),
        phone.stream(&name("attic")).await.unwrap(),
    ];
    for stream in &on_phone {
        assert_eq!(history(stream).await, ["both"]);
    }
    all_done(&alice.revoke_device(phone.device()).await.unwrap());
    all_done(&alice.revoke_device(phone.device()).await.unwrap());
    for stream in [&kitchen, &bobs] {
        stream.sync().await.unwrap();
        say(stream, "one").await;
    }
    for stream in &on_phone {
        let read = history(stream).await;
        assert_eq!(read[0], "both");
        assert!(read[1].starts_with("Sealed"), "{read:?}");
    }
    for stream in [&kitchen, &attic] {
        assert_eq!(history(stream).await, ["both", "one"]);
    }
    let refused = alice.add_device(&mut found.1, None, SOON).await;
    assert!(
        matches!(refused, Err(Error::DeviceRevoked(_))),
        "{refused:?}"
    );
    let refused = on_phone[0].publish(b"stolen").await;
    assert!(refused.is_err());
    let devices = alice.devices().await.unwrap();
    let of_phone = devices.iter().find(|of| !of.is_this).unwrap();
    assert!(of_phone.revoked.is_some());
}

#[tokio::test]
async fn a_name_is_one_devices_until_that_is_revoked() {
    let rig = Rig::small();
    let alice = rig.home("alice").await;
    let phone = add(&rig, &alice, "phone").await;
    let joining = begin(&rig, "other", Some(alice.user())).await;
    let code = joining.code();
    drop(joining);
    let mut joining = resume(&rig, "other").await;
    joining.join(AT_ONCE).await.unwrap();
    let mut found = alice.find_applicant(code, None, AT_ONCE).await.unwrap();
    let called = name("phone");
    let taken = alice.add_device(&mut found, Some(&called), AT_ONCE).await;
    assert!(matches!(taken, Err(Error::NameTaken(_))), "{taken:?}");
    assert_eq!(alice.devices().await.unwrap().len(), 2);
    all_done(&alice.revoke_device(phone.device()).await.unwrap());
    all_done(
        &alice
            .add_device(&mut found, Some(&called), AT_ONCE)
            .await
            .unwrap(),
    );
    assert_eq!(alice.find_device("phone").await.unwrap(), found.device());
}

#[tokio::test]
async fn both_devices_may_be_ended_after_each_step_and_go_on() {
    let rig = Rig::small();
    let alice = rig.home("alice").await;
    let stream = kitchen(&alice).await;
    say(&stream, "one").await;
    let joining = begin(&rig, "phone", None).await;
    let code = joining.code();
    drop(joining);
    let opened = Home::open(&rig.path("phone"), None).await;
    assert!(matches!(opened, Err(Error::NotAdded(_))), "{opened:?}");
    let mut steps = 0;
    let phone = loop {
        steps += 1;
        let mut joining = resume(&rig, "phone").await;
        assert_eq!(joining.code(), code);
        if let Joined::Done(home) = joining.join(AT_ONCE).await.unwrap() {
            break *home;
        }
        drop(joining);
        let again = rig.again("alice").await;
        let mut found = again.find_applicant(code, None, AT_ONCE).await.unwrap();
        match again.add_device(&mut found, None, AT_ONCE).await {
            Ok(outcomes) => all_done(&outcomes),
            Err(Error::NoConsent) => {}
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(steps, 3);
    let devices = alice.devices().await.unwrap();
    assert_eq!(devices.len(), 2);
    let read = phone.stream(stream.name()).await.unwrap();
    assert_eq!(history(&read).await, ["one"]);
}

/// With the user's id the new device consents beforehand, and one answer is enough.
#[tokio::test]
async fn a_device_that_knows_its_user_needs_one_answer_and_takes_nobody_elses() {
    let rig = Rig::small();
    let (alice, mallory) = (rig.home("alice").await, rig.home("mallory").await);
    let mut joining = begin(&rig, "phone", Some(alice.user())).await;
    let code = joining.code();
    let waits = joining.join(AT_ONCE).await.unwrap();
    assert!(matches!(waits, Joined::Waiting { user: Some(_) }));
    let mut found = mallory.find_applicant(code, None, AT_ONCE).await.unwrap();
    let refused = mallory.add_device(&mut found, None, AT_ONCE).await;
    assert!(matches!(refused, Err(Error::OtherConsent)), "{refused:?}");
    let mut found = alice.find_applicant(code, None, AT_ONCE).await.unwrap();
    alice.add_device(&mut found, None, AT_ONCE).await.unwrap();
    let Joined::Done(phone) = joining.join(AT_ONCE).await.unwrap() else {
        panic!("it was added");
    };
    assert_eq!(phone.user(), alice.user());
}

/// A bus that puts other keys in the place of the new device's is found out, and so is whoever knows
/// the code and has no keys to it.
#[tokio::test]
async fn keys_that_are_not_those_of_the_code_are_an_alarm() {
    let rig = Rig::small();
    let alice = rig.home("alice").await;
    let joining = begin(&rig, "phone", None).await;
    let code = joining.code();
    let missing = alice.find_applicant(code, None, AT_ONCE).await;
    assert!(matches!(missing, Err(Error::NoApplicant)), "{missing:?}");
    let topic = Topic::new(&code.topic()).unwrap();
    let bus = rig.bus().await;
    bus.append(&topic, vec![b"other keys".to_vec()])
        .await
        .unwrap();
    let refused = alice.find_applicant(code, None, AT_ONCE).await;
    assert!(matches!(refused, Err(Error::FalseApplicant)), "{refused:?}");
    let other = sealcast_crypto::UnwrapKey::from_seed(&[8; 32]).wrap_key();
    let item = PairingItem::Request(Box::new(PairingRequest {
        sign_key: *sealcast_crypto::SigningKey::from_seed(&[7; 32])
            .verifying_key()
            .as_bytes(),
        wrap_key: other.as_bytes().to_vec(),
        nonce: [9; 16],
    }));
    let mut rng = rand_core::UnwrapErr(getrandom::SysRng);
    let sealed = code.seal(&mut rng, &item);
    bus.append(&topic, vec![sealed]).await.unwrap();
    let refused = alice.find_applicant(code, None, AT_ONCE).await;
    assert!(matches!(refused, Err(Error::FalseApplicant)), "{refused:?}");
    assert_eq!(alice.devices().await.unwrap().len(), 1);
    // The device itself is found among them, and the others are counted.
    drop(joining);
    let mut joining = resume(&rig, "phone").await;
    joining.join(AT_ONCE).await.unwrap();
    let found = alice.find_applicant(code, None, AT_ONCE).await.unwrap();
    assert_eq!(found.strangers(), 1);
}

async fn list_of(rig: &Rig, user: UserId) -> Vec<ListEntry> {
    let items = rig.items(&user.devices_topic()).await;
    let read = items.iter().map(|item| {
        let entry = Unverified::<ListEntry>::decode(item).unwrap();
        entry.claims().clone()
    });
    read.collect()
}

fn cards(list: &[ListEntry]) -> Vec<(u32, u64)> {
    let cards = list.iter().filter_map(|entry| match &entry.body {
        ListBody::Card(card) => Some((entry.seq, card.expires.0)),
        ListBody::Revoke(_) | ListBody::Checkpoint(_) => None,
    });
    cards.collect()
}

const TEN_MONTHS: u64 = 306 * 24 * 3600 * 1000;

#[tokio::test]
async fn who_holds_the_root_key_renews_the_cards_of_all_devices_once() {
    let rig = Rig::small();
    let time = Time::new();
    let alice = rig.home_by("alice", &time).await;
    let stream = kitchen(&alice).await;
    let phone = add(&rig, &alice, "phone").await;
    drop(phone.stream(stream.name()).await.unwrap());
    assert_eq!(cards(&list_of(&rig, alice.user()).await).len(), 2);
    time.pass(TEN_MONTHS);
    // The device without the key renews nothing.
    let phone = rig.on("phone", time.ground()).await;
    drop(phone.stream(stream.name()).await.unwrap());
    assert_eq!(cards(&list_of(&rig, alice.user()).await).len(), 2);
    for _ in 0..2 {
        drop(alice.stream(stream.name()).await.unwrap());
        let list = list_of(&rig, alice.user()).await;
        let until = time.now().0 + CARD_LIFETIME_MS;
        assert_eq!(cards(&list)[2..], [(2, until), (3, until)]);
    }
}

#[tokio::test]
async fn two_copies_of_a_home_that_renew_at_one_instant_write_one_list() {
    let rig = Arc::new(Rig::small());
    let time = Time::new();
    let alice = rig.home_by("alice", &time).await;
    let stream = kitchen(&alice).await;
    let (user, kitchen) = (alice.user(), stream.name().clone());
    drop((alice, stream));
    copy_folder(&rig.path("alice"), &rig.path("copy"));
    time.pass(TEN_MONTHS);
    let (of, by) = (rig.clone(), time.clone());
    let called = kitchen.clone();
    // The copy renews between the other's reading of the list and its append.
    let ground = once_before_append(time.ground(), "/devices", move || {
        let (rig, time, kitchen) = (of.clone(), by.clone(), called.clone());
        Box::pin(async move {
            let copy = rig.on("copy", time.ground()).await;
            drop(copy.stream(&kitchen).await.unwrap());
        })
    });
    let alice = rig.on("alice", ground).await;
    let stream = alice.stream(&kitchen).await.unwrap();
    assert_eq!(stream.alarms(), []);
    let list = list_of(&rig, user).await;
    assert_eq!(cards(&list).len(), 2);
    let mut read = CardList::new(user);
    for item in rig.items(&user.devices_topic()).await {
        read.apply(&item).unwrap();
    }
    assert_eq!(read.next_seq(), 2);
}

/// A process that was killed between keeping an entry and its leaving is followed by one that sends
/// that very entry.
#[tokio::test]
async fn an_entry_that_was_signed_and_did_not_leave_is_sent_by_the_next_command() {
    let rig = Rig::small();
    let time = Time::new();
    let alice = rig.home_by("alice", &time).await;
    let stream = kitchen(&alice).await;
    let (user, kitchen) = (alice.user(), stream.name().clone());
    drop((alice, stream));
    time.pass(TEN_MONTHS);
    let ground = Meddler::ground(|ask, topic| match (ask, topic.ends_with("/devices")) {
        (Ask::Append, true) => Manner::Fail,
        _ => Manner::Honest,
    });
    let failing = sealcast::Ground {
        clock: time.ground().clock,
        ..ground
    };
    let alice = rig.on("alice", failing).await;
    drop(alice.stream(&kitchen).await.unwrap());
    assert_eq!(list_of(&rig, user).await.len(), 1);
    time.pass(1_000);
    let alice = rig.on("alice", time.ground()).await;
    drop(alice.stream(&kitchen).await.unwrap());
    let list = list_of(&rig, user).await;
    let renewed = time.now().0 - 1_000 + CARD_LIFETIME_MS;
    assert_eq!(cards(&list)[1..], [(1, renewed)]);
}

#[tokio::test]
async fn a_device_draws_a_fallback_key_each_week_and_names_it_on_its_buses() {
    let rig = Rig::small();
    let time = Time::new();
    let alice = rig.home_by("alice", &time).await;
    let stream = kitchen(&alice).await;
    let phone = add(&rig, &alice, "phone").await;
    drop(phone.stream(stream.name()).await.unwrap());
    let first = FallbackKey::period_at(time.now());
    let named = async |home: &Home| {
        let items = rig.items(&home.device().fallback_topic()).await;
        let read = items.iter().map(|item| {
            let key = Unverified::<FallbackKey>::decode(item).unwrap();
            key.claims().period - first
        });
        read.collect::<Vec<_>>()
    };
    drop(alice.stream(stream.name()).await.unwrap());
    assert_eq!(
        (named(&alice).await, named(&phone).await),
        (vec![0], vec![0])
    );
    for _ in 0..5 {
        time.pass(FALLBACK_PERIOD_MS);
        // One that runs on, and one without the root key.
        stream.sync().await.unwrap();
        let phone = rig.on("phone", time.ground()).await;
        drop(phone.stream(stream.name()).await.unwrap());
    }
    // Older ones are removed from the bus.
    let weeks = vec![2, 3, 4, 5];
    assert_eq!(
        (named(&alice).await, named(&phone).await),
        (weeks.clone(), weeks)
    );
    assert_eq!(stream.alarms(), []);
}

#[tokio::test]
async fn an_injected_list_entry_is_told_and_changes_nothing() {
    let rig = Rig::small();
    let (alice, mallory) = (rig.home("alice").await, rig.home("mallory").await);
    let stream = kitchen(&alice).await;
    drop(kitchen_of(&mallory).await);
    let theirs = rig.items(&mallory.user().devices_topic()).await;
    let topic = Topic::new(&alice.user().devices_topic()).unwrap();
    rig.bus().await.append(&topic, theirs).await.unwrap();
    stream.sync().await.unwrap();
    let forged = Alarm::Forged(ControlTopic::Devices(alice.user()));
    assert_eq!(stream.alarms(), [forged]);
    assert_eq!(alice.devices().await.unwrap().len(), 1);
    let phone = add(&rig, &alice, "phone").await;
    drop(phone.stream(stream.name()).await.unwrap());
}

async fn kitchen_of(home: &Home) -> sealcast::Stream {
    home.create_stream(&name("theirs"), Default::default())
        .await
        .unwrap()
}

/// A list that was renewed for half a century begins with a checkpoint, in the store too.
#[tokio::test]
async fn a_long_list_is_compacted_and_read_on_from_its_checkpoint() {
    let rig = Rig::small();
    let time = Time::new();
    let alice = rig.home_by("alice", &time).await;
    let stream = kitchen(&alice).await;
    let (user, kitchen) = (alice.user(), stream.name().clone());
    let bob = rig.home_by("bob", &time).await;
    let bobs = join(&bob, &stream).await;
    stream.grant(all_to(bob.user())).await.unwrap();
    drop(stream);
    for _ in 0..63 {
        time.pass(TEN_MONTHS);
        drop(alice.stream(&kitchen).await.unwrap());
    }
    // What it replaces is not on the bus any more.
    let list = list_of(&rig, user).await;
    assert_eq!((list.len(), list[0].seq), (1, 64));
    assert!(matches!(list[0].body, ListBody::Checkpoint(_)));
    drop(alice);
    assert_eq!(kept_entries(&rig, "alice", user), [64]);
    time.pass(TEN_MONTHS);
    let alice = rig.on("alice", time.ground()).await;
    let stream = alice.stream(&kitchen).await.unwrap();
    assert_eq!(list_of(&rig, user).await.len(), 2);
    drop(alice.devices().await.unwrap());
    let phone = add(&rig, &alice, "phone").await;
    assert_eq!(kept_entries(&rig, "phone", user), [64, 65, 66]);
    drop(phone);
    let phone = rig.on("phone", time.ground()).await;
    let on_phone = phone.stream(&kitchen).await.unwrap();
    say(&stream, "one").await;
    assert_eq!(history(&on_phone).await, ["one"]);
    assert_eq!((stream.alarms(), on_phone.alarms()), (vec![], vec![]));
    // Who knew the beginning follows over what is gone. His own card has ended meanwhile.
    bobs.sync().await.unwrap();
    assert_eq!(bobs.alarms(), []);
    assert_eq!(history(&bobs).await, ["Sealed(KeyNotHere)"]);
    drop(bob.stream(&kitchen).await.unwrap());
    stream.sync().await.unwrap();
    assert_eq!(history(&bobs).await, ["one"]);
}

/// The places of the entries of a list that a home keeps.
fn kept_entries(rig: &Rig, home: &str, user: UserId) -> Vec<u32> {
    let folder = rig.path(home);
    let key = KeyFile::open(folder.join("store.key"), None).unwrap();
    let rng = Box::new(rand_core::UnwrapErr(getrandom::SysRng));
    let store = SqliteStore::open(folder.join("store.db"), key, rng).unwrap();
    let rows = store.scan(sealcast_store::Space(4), &user.0).unwrap();
    let seq = |id: &[u8]| u32::from_be_bytes(*id.last_chunk().unwrap());
    rows.iter().map(|(key, _)| seq(&key.id)).collect()
}

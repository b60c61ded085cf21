//! Homes: their making, their protection, and what is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sealcast::{
    BusUrl, Error, Ground, Home, InitOptions, Interval, Passphrase, SecretBytes, State,
    StreamOptions,
};

use crate::rig::*;

fn secret(text: &str) -> SecretBytes {
    SecretBytes::from(text.as_bytes().to_vec())
}

#[tokio::test]
async fn a_home_with_a_passphrase_opens_with_it_and_with_nothing_else() {
    let rig = Rig::new();
    let options = InitOptions {
        name: None,
        bus: Some(rig.bus_url()),
        passphrase: Passphrase::Given(secret("correct horse")),
    };
    let path = rig.path("alice");
    let user = Home::init(&path, options).await.unwrap().user();
    let wrong = Home::open(&path, Some(&secret("battery staple"))).await;
    assert!(matches!(wrong, Err(Error::WrongPassphrase)));
    assert!(matches!(
        Home::open(&path, None).await,
        Err(Error::NeedsPassphrase)
    ));
    let home = Home::open(&path, Some(&secret("correct horse")))
        .await
        .unwrap();
    assert_eq!(home.user(), user);
}

#[tokio::test]
async fn a_home_is_made_once_and_must_be_there() {
    let rig = Rig::new();
    let path = rig.path("alice");
    assert!(matches!(
        Home::open(&path, None).await,
        Err(Error::NoHome(_))
    ));
    drop(rig.home("alice").await);
    let again = InitOptions {
        name: None,
        bus: None,
        passphrase: Passphrase::None,
    };
    assert!(matches!(
        Home::init(&path, again).await,
        Err(Error::HomeExists(_))
    ));

    std::fs::remove_file(path.join("store.db")).unwrap();
    let again = InitOptions {
        name: None,
        bus: None,
        passphrase: Passphrase::None,
    };
    assert!(matches!(
        Home::init(&path, again).await,
        Err(Error::HalfMade(_))
    ));
}

#[tokio::test]
async fn a_damaged_store_is_told_and_not_read() {
    let rig = Rig::new();
    let stream = kitchen(&rig.home("alice").await).await;
    say(&stream, "one").await;
    drop(stream);
    let file = rig.path("alice").join("store.db");
    let mut bytes = std::fs::read(&file).unwrap();
    for wal in ["store.db-wal", "store.db-shm"] {
        let _was_there = std::fs::remove_file(rig.path("alice").join(wal)).is_ok();
    }
    for byte in bytes.iter_mut().skip(4096) {
        *byte ^= 0x55;
    }
    std::fs::write(&file, bytes).unwrap();
    match Home::open(&rig.path("alice"), None).await {
        Err(Error::Store(_)) => (),
        Err(other) => panic!("{other:?}"),
        Ok(home) => {
            let failed = home.stream(&name("kitchen")).await;
            assert!(matches!(failed, Err(Error::Store(_))), "{failed:?}");
        }
    }
}

#[tokio::test]
async fn a_bus_that_is_gone_is_an_error_of_the_bus() {
    let rig = Rig::new();
    let alice = rig.home("alice").await;
    let stream = kitchen(&alice).await;
    let ticket = stream.ticket().clone();
    drop((stream, alice));
    std::fs::remove_dir_all(rig.path("bus")).unwrap();
    let alice = rig.again("alice").await;
    let gone = alice.stream(&name("kitchen")).await;
    assert!(matches!(gone, Err(Error::Bus(_))), "{gone:?}");
    let gone = rig.home("bob").await.join(&ticket, None).await;
    assert!(matches!(gone, Err(Error::Bus(_))), "{gone:?}");
    let findings = alice.doctor().await.unwrap();
    assert!(findings.iter().any(|of| of.is_problem && of.hint.is_some()));
}

/// Each handle is connections of its own to a server.
#[tokio::test]
async fn streams_that_are_opened_at_once_share_one_handle_of_their_bus() {
    let rig = Rig::small();
    let alice = rig.home("alice").await;
    for of in ["a", "b", "c"] {
        let options = StreamOptions::default();
        alice.create_stream(&name(of), options).await.unwrap();
    }
    drop(alice);
    let opened = Arc::new(AtomicUsize::new(0));
    let count = opened.clone();
    let ground = Ground {
        bus: Arc::new(move |bus| {
            count.fetch_add(1, Ordering::SeqCst);
            bus
        }),
        ..Ground::default()
    };
    let alice = rig.on("alice", ground).await;
    let [a, b, c] = ["a", "b", "c"].map(name);
    // Where it cannot be opened, all hear of it, and that is not remembered.
    std::fs::rename(rig.path("bus"), rig.path("away")).unwrap();
    std::fs::write(rig.path("bus"), b"no folder").unwrap();
    let (one, two, three) = tokio::join!(alice.stream(&a), alice.stream(&b), alice.stream(&c));
    for failed in [one, two, three] {
        assert!(matches!(failed, Err(Error::Bus(_))), "{failed:?}");
    }
    std::fs::remove_file(rig.path("bus")).unwrap();
    std::fs::rename(rig.path("away"), rig.path("bus")).unwrap();
    assert_eq!(opened.load(Ordering::SeqCst), 0);
    let (one, two, three) = tokio::join!(alice.stream(&a), alice.stream(&b), alice.stream(&c));
    for stream in [one, two, three] {
        say(&stream.unwrap(), "hello").await;
    }
    assert_eq!(opened.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn names_stay_with_what_they_name() {
    let rig = Rig::new();
    let (alice, bob, carol) = (
        rig.home("alice").await,
        rig.home("bob").await,
        rig.home("carol").await,
    );
    alice.add_contact(&name("bob"), bob.user()).unwrap();
    let taken = alice.add_contact(&name("bob"), carol.user());
    assert!(matches!(taken, Err(Error::NameTaken(_))));
    alice.add_contact(&name("robert"), bob.user()).unwrap();
    assert_eq!(alice.contacts().unwrap(), [(name("robert"), bob.user())]);
    assert_eq!(alice.contact(&name("robert")).unwrap(), bob.user());
    assert!(matches!(alice.contact(&name("bob")), Err(Error::NoUser(_))));

    let stream = kitchen(&alice).await;
    let taken = alice
        .create_stream(&name("kitchen"), StreamOptions::default())
        .await;
    assert!(matches!(taken, Err(Error::NameTaken(_))));
    assert!(matches!(
        alice.stream(&name("cellar")).await,
        Err(Error::NoStream(_))
    ));
    let joined = bob
        .join(stream.ticket(), Some(&name("cooking")))
        .await
        .unwrap();
    assert_eq!(
        (joined.name(), joined.id()),
        (&name("cooking"), stream.id())
    );
    bob.join(stream.ticket(), None).await.unwrap();
    let known: Vec<_> = bob
        .streams()
        .unwrap()
        .into_iter()
        .map(|of| of.name)
        .collect();
    assert_eq!(known, [name("kitchen")]);
}

#[tokio::test]
async fn a_ticket_to_another_bus_leads_to_a_stream_that_has_not_begun() {
    let rig = Rig::new();
    let (alice, bob) = (rig.home("alice").await, rig.home("bob").await);
    let stream = kitchen(&alice).await;
    std::fs::create_dir(rig.path("elsewhere")).unwrap();
    let elsewhere = BusUrl::file(&rig.path("elsewhere")).unwrap().to_string();
    let of = stream.ticket();
    let ticket =
        sealcast::Ticket::new(&elsewhere, of.stream(), of.owner(), name("kitchen")).unwrap();
    let joined = bob.join(&ticket, None).await.unwrap();
    let mut reader = joined.read(Interval::ALL).await.unwrap();
    assert!(reader.next().await.unwrap().is_none());
    assert!(matches!(
        joined.publish(b"x").await,
        Err(Error::LogIncomplete(_))
    ));
    let findings = bob.doctor().await.unwrap();
    assert!(findings.iter().any(|of| of.is_problem));
}

#[test]
fn fingerprints_differ_and_have_thirty_digits() {
    let of = |byte| Home::fingerprint(&sealcast::UserId([byte; 32]));
    assert_ne!(of(1), of(2));
    let groups: Vec<_> = of(1).split(' ').map(str::len).collect::<Vec<_>>();
    assert_eq!(groups, [5; 6]);
}

#[tokio::test]
async fn a_reader_says_how_far_it_came() {
    let rig = Rig::new();
    let stream = kitchen(&rig.home("alice").await).await;
    for text in texts("m", 5) {
        say(&stream, &text).await;
    }
    let mut reader = stream.read(Interval::ALL).await.unwrap();
    assert_eq!(
        (reader.progress(), reader.interval()),
        ((0, 5), Interval::ALL)
    );
    while let Some(delivery) = reader.next().await.unwrap() {
        assert_eq!(delivery.state, State::Opened);
    }
    assert_eq!(reader.progress(), (5, 5));
}

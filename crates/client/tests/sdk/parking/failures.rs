//! Homes that die or whose store fails while messages wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use sealcast::{Delivery, Error, Ground, Home, Stream};

use super::{come_back, count, hear, late, say_all, told, two};
use crate::rig::*;

/// What a subscription was handed until its store failed, and how.
struct Run {
    heard: Vec<Delivery>,
    end: Option<Error>,
}

async fn run(ground: Ground, rig: &Rig, wanted: usize) -> Run {
    let mut heard = Vec::new();
    let end = listen(ground, rig, wanted, &mut heard).await.err();
    Run { heard, end }
}

async fn listen(
    ground: Ground,
    rig: &Rig,
    wanted: usize,
    heard: &mut Vec<Delivery>,
) -> Result<(), Error> {
    let bob = Home::danger_open_on(&rig.path("bob"), None, ground).await?;
    let joined = bob.stream(&name("kitchen")).await?;
    let mut live = joined.subscribe(None).await?;
    while heard.len() < wanted {
        heard.push(live.next().await?);
    }
    live.finish().await
}

/// A store of which every transaction fails from one on.
fn dying(at: usize) -> Ground {
    let done = AtomicUsize::new(0);
    Gated::over(Ground::default(), move || {
        done.fetch_add(1, Ordering::SeqCst) < at
    })
}

fn opened(heard: &[Delivery]) -> Vec<String> {
    let opened = heard.iter().filter(|of| of.payload.is_some());
    opened.map(line).collect()
}

/// Bob's home holds so many parked messages, whose keys are on the bus.
async fn with_parked(rig: &Rig, sent: &[String]) -> Stream {
    let (stream, bob, joined) = two(rig).await;
    let mut live = joined.subscribe(None).await.unwrap();
    say_all(&stream, sent).await;
    hear(&mut live, sent.len()).await;
    live.finish().await.unwrap();
    stream.grant(all_to(bob.user())).await.unwrap();
    stream
}

/// Whoever dies between two transactions is handed again, at the next start, what it was handed
/// and had no time to record; nothing is lost.
#[tokio::test]
async fn a_home_that_dies_while_it_delivers_what_waited_loses_none_of_it() {
    let (mut at, mut repeated) = (0, 0);
    loop {
        let rig = Rig::small();
        let sent = texts("m", 4);
        let _stream = with_parked(&rig, &sent).await;
        let first = run(dying(at), &rig, sent.len()).await;
        let before = opened(&first.heard);
        assert!(sent.starts_with(&before), "dies at {at}: {before:?}");
        let joined = come_back(&rig).await;
        let left = count(&joined).await as usize;
        assert!(left + before.len() >= sent.len(), "dies at {at}: {left}");
        let mut live = joined.subscribe(None).await.unwrap();
        let after = hear(&mut live, left).await;
        assert_eq!(after, late(&sent[sent.len() - left..]), "dies at {at}");
        repeated += left + before.len() - sent.len();
        if first.end.is_none() {
            assert_eq!(left, 0);
            break;
        }
        at += 1;
    }
    assert!(at > 2 && repeated > 0, "{at} {repeated}");
}

/// Whoever dies while messages come has on disk, at the next start, each of which it said that it
/// waits.
#[tokio::test]
async fn what_was_told_to_wait_waits_whenever_the_home_dies() {
    let mut at = 0;
    loop {
        let rig = Rig::small();
        let (stream, bob, joined) = two(&rig).await;
        drop(joined);
        let sent = texts("m", 3);
        let armed = Arc::new(AtomicBool::new(false));
        let ground = {
            let (armed, done) = (armed.clone(), AtomicUsize::new(0));
            Gated::over(Ground::default(), move || {
                !armed.load(Ordering::SeqCst) || done.fetch_add(1, Ordering::SeqCst) < at
            })
        };
        let mortal = rig.on("bob", ground).await;
        let joined = mortal.stream(&name("kitchen")).await.unwrap();
        let mut live = joined.subscribe(None).await.unwrap();
        armed.store(true, Ordering::SeqCst);
        let mut told = 0;
        for text in &sent {
            say(&stream, text).await;
            match live.next().await {
                Ok(_waits) => told += 1,
                Err(_) => break,
            }
        }
        let is_whole = live.finish().await.is_ok();
        stream.grant(all_to(bob.user())).await.unwrap();
        let joined = come_back(&rig).await;
        assert_eq!(count(&joined).await, told as u64, "dies at {at}");
        let mut live = joined.subscribe(None).await.unwrap();
        assert_eq!(hear(&mut live, told).await, late(&sent[..told]));
        if told == sent.len() && is_whole {
            break;
        }
        at += 1;
    }
    assert!(at > 2, "{at}");
}

/// What a store refused once is done when it is asked again: nothing is handed out twice, nothing
/// is said to wait that does not.
#[tokio::test]
async fn a_store_that_fails_once_loses_and_repeats_nothing_that_waits() {
    let mut at = 0;
    loop {
        let rig = Rig::small();
        let (stream, bob, joined) = two(&rig).await;
        let user = bob.user();
        drop((joined, bob));
        let failed = Arc::new(AtomicUsize::new(0));
        let armed = Arc::new(AtomicBool::new(false));
        let ground = {
            let (failed, armed) = (failed.clone(), armed.clone());
            Gated::over(Ground::default(), move || {
                !armed.load(Ordering::SeqCst) || failed.fetch_add(1, Ordering::SeqCst) != at
            })
        };
        let bob = rig.on("bob", ground).await;
        let joined = bob.stream(&name("kitchen")).await.unwrap();
        let mut live = joined.subscribe(None).await.unwrap();
        armed.store(true, Ordering::SeqCst);
        let sent = texts("m", 3);
        say_all(&stream, &sent).await;
        let mut heard = Vec::new();
        while heard.len() < 3 {
            match live.next().await {
                Ok(delivery) => heard.push(told(&delivery)),
                Err(_) => continue,
            }
        }
        assert_eq!(heard, vec!["Sealed(NotGranted) Waits"; 3], "fails at {at}");
        stream.grant(all_to(user)).await.unwrap();
        say(&stream, "next").await;
        let mut heard = Vec::new();
        while heard.last().is_none_or(|last| last != "next") {
            match live.next().await {
                Ok(delivery) => heard.push(told(&delivery)),
                Err(_) => continue,
            }
        }
        let expected = [late(&sent), vec!["next".to_owned()]].concat();
        assert_eq!(heard, expected, "fails at {at}");
        let finished = live.finish().await;
        let is_over = failed.load(Ordering::SeqCst) <= at;
        armed.store(false, Ordering::SeqCst);
        if finished.is_ok() {
            assert_eq!(count(&joined).await, 0, "fails at {at}");
        }
        if is_over {
            break;
        }
        at += 1;
    }
    assert!(at > 3, "{at}");
}

/// Fault 17, at home: one that the disk damaged is told once and holds back no other.
#[tokio::test]
async fn a_damaged_envelope_is_an_error_once_and_the_others_open() {
    let rig = Rig::new();
    let sent = texts("m", 3);
    let stream = with_parked(&rig, &sent).await;
    let store = rusqlite::Connection::open(rig.path("bob").join("store.db")).unwrap();
    let second = [&stream.id().0[..], &1_u64.to_be_bytes()].concat();
    let damage = "UPDATE records SET value = zeroblob(300) WHERE space = 18 AND id = ?1";
    assert_eq!(store.execute(damage, [second]).unwrap(), 1);
    drop(store);
    let joined = come_back(&rig).await;
    let mut live = joined.subscribe(None).await.unwrap();
    let error = live.next().await.unwrap_err();
    assert!(
        matches!(error, Error::Store(sealcast::StoreError::Damaged { .. })),
        "{error:?}"
    );
    assert_eq!(hear(&mut live, 2).await, ["m0 Waited", "m2 Waited"]);
    say(&stream, "next").await;
    assert_eq!(hear(&mut live, 1).await, ["next"]);
}

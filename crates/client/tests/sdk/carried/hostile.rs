//! Carriers, publishers and strangers that do their worst.

use std::time::Instant;

use sealcast::Reason;

use super::*;

/// Envelopes of somebody of whom the stream knows nothing.
async fn strange(rig: &Rig, count: usize) -> Vec<Brought> {
    let mallory = rig.home("mallory").await;
    let (hers, options) = (name("hers"), StreamOptions::default());
    let hers = mallory.create_stream(&hers, options).await.unwrap();
    let all = vec![(None, &b"strange"[..]); count];
    let sealed = hers.seal_all(&all).await.unwrap();
    sealed.into_iter().map(|of| (None, of.envelope)).collect()
}

/// Bob's home on a bus that counts how often it is looked at.
async fn counted(rig: &Rig) -> (Stream, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let ground = Meddler::ground(move |ask, _| {
        count.fetch_add(usize::from(ask == Ask::End), Ordering::SeqCst);
        Manner::Honest
    });
    (crate::rig::open(&rig.on("bob", ground).await).await, asked)
}

#[tokio::test]
async fn a_flood_of_strangers_has_the_bus_looked_at_now_and_then_and_delays_nobody() {
    let rig = Rig::small();
    let (_, stream, bob, joined) = pair(&rig).await;
    drop((bob, joined));
    let flood = strange(&rig, 3_000).await;
    let good = seal(&stream, Some(&plant(7)), "good").await;
    let (joined, asked) = counted(&rig).await;
    let mut opener = joined.opener().await.unwrap();
    assert_eq!(in_the_end(&mut opener, &good).await, ["good"]);
    let before = asked.load(Ordering::SeqCst);
    joined.sync().await.unwrap();
    let a_look = asked.load(Ordering::SeqCst) - before;
    let (before, begun) = (asked.load(Ordering::SeqCst), Instant::now());
    for brought in &flood {
        let told = open(&mut opener, brought, Arrival::Live).await;
        assert_eq!(lines_of(&told), ["Rejected(UnknownSender)"]);
        assert!(!told.may_open_later);
    }
    let looks = (asked.load(Ordering::SeqCst) - before).div_ceil(a_look);
    let seconds = usize::try_from(begun.elapsed().as_secs()).unwrap() + 1;
    // Those of the flood, and what the follower does in the meantime.
    assert!(looks <= 8 + 6 * seconds, "{looks} in {seconds} s");
    let next = seal(&stream, Some(&plant(7)), "next").await;
    assert_eq!(live(&mut opener, &next).await, ["next"]);
}

/// Though the bus has nothing new when it is back.
#[tokio::test]
async fn a_stranger_that_comes_while_the_bus_is_away_is_told_as_one_when_it_is_back() {
    let rig = Rig::small();
    let (_, stream, bob, joined) = pair(&rig).await;
    drop((bob, joined));
    let brought = strange(&rig, 1).await.remove(0);
    let good = seal(&stream, None, "good").await;
    let (is_away, ground) = away();
    let joined = crate::rig::open(&rig.on("bob", ground).await).await;
    let mut opener = joined.opener().await.unwrap();
    assert_eq!(in_the_end(&mut opener, &good).await, ["good"]);
    is_away.store(true, Ordering::SeqCst);
    let told = open(&mut opener, &brought, Arrival::Live).await;
    assert_eq!(lines_of(&told), ["Rejected(UnknownSender)"]);
    assert!(told.may_open_later);
    is_away.store(false, Ordering::SeqCst);
    let told = in_the_end(&mut opener, &brought).await;
    assert_eq!(told, ["Rejected(UnknownSender)"]);
}

/// A bus that does not answer holds up the first that needs it, for a while, and nothing else. Time passes
/// only where somebody waits for it.
#[tokio::test(start_paused = true)]
async fn a_bus_that_does_not_answer_holds_up_one_envelope_and_no_other() {
    let rig = Rig::small();
    let (_, stream, bob, joined) = pair(&rig).await;
    drop((bob, joined));
    let sent = texts("m", 20);
    let all: Vec<_> = sent.iter().map(|of| (None, of.as_bytes())).collect();
    let good = stream.seal_all(&all).await.unwrap();
    let is_mute = Arc::new(AtomicBool::new(false));
    let of = is_mute.clone();
    let ground = Meddler::ground(move |_, _| match of.load(Ordering::SeqCst) {
        true => Manner::Mute,
        false => Manner::Honest,
    });
    let joined = crate::rig::open(&rig.on("bob", ground).await).await;
    let mut opener = joined.opener().await.unwrap();
    let first = (None, good[0].envelope.clone());
    assert_eq!(in_the_end(&mut opener, &first).await, ["m0"]);
    is_mute.store(true, Ordering::SeqCst);
    stream.rekey().await.unwrap();
    let unknown = seal(&stream, Some(&plant(7)), "unknown").await;
    let begun = tokio::time::Instant::now();
    for (text, sealed) in sent.iter().zip(good).skip(1) {
        let told = open(&mut opener, &unknown, Arrival::Live).await;
        assert!(told.may_open_later);
        let told = live(&mut opener, &(None, sealed.envelope)).await;
        assert_eq!(told, [text.as_str()]);
    }
    assert!(begun.elapsed() < Duration::from_secs(6));
    is_mute.store(false, Ordering::SeqCst);
    assert_eq!(in_the_end(&mut opener, &unknown).await, ["unknown"]);
}

/// Nothing is kept of what does not open, so that any of it opens when its key has come.
#[tokio::test]
async fn after_a_flood_of_what_lacks_a_key_the_first_of_it_opens_as_the_last_does() {
    let rig = Rig::small();
    let [alice, bob] = rig.homes(["alice", "bob"]).await;
    let stream = kitchen(&alice).await;
    let joined = join(&bob, &stream).await;
    let mut opener = joined.opener().await.unwrap();
    let sent = texts("m", 3_000);
    let all: Vec<_> = sent.iter().map(|text| (None, text.as_bytes())).collect();
    let sealed = stream.seal_all(&all).await.unwrap();
    let parked: Vec<Brought> = sealed.into_iter().map(|of| (None, of.envelope)).collect();
    for brought in &parked {
        let told = open(&mut opener, brought, Arrival::Live).await;
        assert_eq!(told.deliveries[0].reason, Some(Reason::NotGranted));
        assert!(told.may_open_later);
    }
    stream.grant(all_to(bob.user())).await.unwrap();
    let first = in_the_end(&mut opener, &parked[0]).await;
    assert_eq!(first, ["m0"]);
    for (brought, text) in parked.iter().zip(&sent).skip(1).rev() {
        assert_eq!(live(&mut opener, brought).await, [text.as_str()]);
    }
    for brought in &parked {
        assert_eq!(live(&mut opener, brought).await, ["Replay"]);
    }
}

#[tokio::test]
async fn nobody_follows_a_stream_when_the_last_opener_is_gone() {
    let rig = Rig::small();
    let (_, stream, bob, joined) = pair(&rig).await;
    let carol = rig.home("carol").await;
    drop((bob, joined));
    let brought = seal(&stream, None, "one").await;
    let (joined, asked) = counted(&rig).await;
    let mut opener = joined.opener().await.unwrap();
    let other = joined.opener().await.unwrap();
    // Given up while it opens something, and while it waits.
    tokio::select! {
        biased;
        _ = opener.open(None, &brought.1, Arrival::Live) => {}
        () = std::future::ready(()) => {}
    }
    drop(opener);
    let mut opener = other;
    assert_eq!(live(&mut opener, &brought).await, ["one"]);
    let seen = asked.load(Ordering::SeqCst);
    stream.grant(all_to(carol.user())).await.unwrap();
    let followed = timeout(PATIENCE, opener.changed()).await;
    followed.expect("the other one follows");
    assert!(asked.load(Ordering::SeqCst) > seen);
    drop(opener);
    // What was under way comes to its end.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let seen = asked.load(Ordering::SeqCst);
    stream.revoke_user(carol.user()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(asked.load(Ordering::SeqCst), seen);
    let mut again = joined.opener().await.unwrap();
    assert_eq!(live(&mut again, &brought).await, ["one"]);
}

/// What was sealed before a removal opens for whom was removed; nothing later does.
#[tokio::test]
async fn a_removal_between_sealing_and_carrying_counts_for_what_is_sealed_next() {
    let rig = Rig::small();
    let (_, stream, bob, joined) = pair(&rig).await;
    let carol = rig.home("carol").await;
    let hers = join(&carol, &stream).await;
    stream.grant(all_to(carol.user())).await.unwrap();
    let (mut his, mut her_opener) = (joined.opener().await.unwrap(), hers.opener().await.unwrap());
    let before = seal(&stream, Some(&plant(7)), "before").await;
    stream.revoke_user(bob.user()).await.unwrap();
    let after = seal(&stream, Some(&plant(7)), "after").await;
    for (brought, text) in [(&after, "after"), (&before, "before")] {
        assert_eq!(in_the_end(&mut her_opener, brought).await, [text]);
    }
    assert_eq!(in_the_end(&mut his, &before).await, ["before"]);
    let told = open(&mut his, &after, Arrival::Live).await;
    assert_eq!(told.deliveries[0].state, State::Sealed);
}

#[tokio::test]
async fn a_clock_that_is_far_behind_seals_nothing() {
    let (rig, time) = (Rig::small(), Time::new());
    let [alice] = rig.homes_by(["alice"], &time).await;
    let stream = kitchen(&alice).await;
    let one = seal(&stream, None, "one").await;
    time.go_back(10 * 60_000 + 1);
    let behind = stream.seal(None, b"behind").await;
    assert!(matches!(behind, Err(Error::ClockBehind { behind_ms }) if behind_ms > 600_000));
    time.pass(10 * 60_000 + 1);
    let two = seal(&stream, None, "two").await;
    assert_eq!((number(&one.1), number(&two.1)), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_connections_open_at_once_and_give_up_now_and_then_each_by_its_own_memory() {
    let rig = Rig::small();
    let (_, stream, _, joined) = pair(&rig).await;
    let sent = texts("m", 20);
    let mut all = Vec::new();
    for (i, text) in sent.iter().enumerate() {
        all.push(seal(&stream, Some(&plant(i % 3)), text).await);
        if i % 8 == 7 {
            stream.rekey().await.unwrap();
        }
    }
    let all = Arc::new(all);
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..50 {
        let (joined, all) = (joined.clone(), all.clone());
        tasks.spawn(async move {
            let mut opener = joined.opener().await.unwrap();
            let mut opened = vec![String::new(); all.len()];
            for at in 0..all.len() {
                let at = (at + i) % all.len();
                let (topic, envelope) = &all[at];
                let given_up = opener.open(topic.as_ref(), envelope, Arrival::Live);
                opened[at] = match polled((at + i) % 4, given_up).await {
                    Some(told) if !told.as_ref().unwrap().may_open_later => {
                        lines_of(&told.unwrap()).concat()
                    }
                    Some(_) | None => in_the_end(&mut opener, &all[at]).await.concat(),
                };
            }
            let again = live(&mut opener, &all[i % all.len()]).await;
            assert_eq!(again, ["Replay"]);
            opened
        });
    }
    for opened in tasks.join_all().await {
        assert_eq!(opened, sent);
    }
}

/// They would wait for the same silence one after another.
#[tokio::test]
async fn who_waits_to_seal_while_the_bus_is_silent_hears_of_it_with_the_others() {
    let rig = Rig::small();
    let (alice, stream, _, _joined) = pair(&rig).await;
    drop((alice, stream));
    let time = Time::new();
    // Silent at first, until all are there, and away then.
    let asked = Arc::new(AtomicUsize::new(usize::MAX / 2));
    let counted = asked.clone();
    let meddler = Meddler::ground(move |_, _| match counted.fetch_add(1, Ordering::SeqCst) {
        0..50 => Manner::Mute,
        50..1_000_000 => Manner::Fail,
        _ => Manner::Honest,
    });
    let ground = Ground {
        clock: time.ground().clock,
        ..meddler
    };
    let stream = crate::rig::open(&rig.on("alice", ground).await).await;
    let _first = seal(&stream, None, "first").await;
    time.pass(60_000);
    asked.store(0, Ordering::SeqCst);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..600 {
        let stream = stream.clone();
        tasks.spawn(async move { stream.seal_all(&[(None, b"x"), (None, b"y")]).await });
    }
    while let Some(sealed) = tasks.join_next().await {
        assert!(sealed.unwrap().unwrap_err().is_bus_away());
    }
    let asked = asked.load(Ordering::SeqCst);
    assert!(asked < 100, "the bus was asked {asked} times");
}

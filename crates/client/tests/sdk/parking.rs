//! What cannot be opened waits on disk and is delivered when its key comes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sealcast::{
    Delivery, Home, Parked, ParkingLimits, Position, Reason, Roles, Sharing, Stream, StreamOptions,
    SubscribeOptions, Subscription,
};
use tokio::time::{Instant, sleep, timeout};

use crate::rig::*;

mod failures;

/// A delivery as a line, with whether it waits or waited.
fn told(delivery: &Delivery) -> String {
    match delivery.parked == Parked::No {
        true => line(delivery),
        false => format!("{} {:?}", line(delivery), delivery.parked),
    }
}

async fn hear(subscription: &mut Subscription, count: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for _ in 0..count {
        lines.push(told(&subscription.next().await.unwrap()));
    }
    lines
}

/// Nothing more comes of what is on the bus now.
async fn is_silent(subscription: &mut Subscription) -> bool {
    let patience = Duration::from_millis(300);
    timeout(patience, subscription.next()).await.is_err()
}

fn late(texts: &[String]) -> Vec<String> {
    texts.iter().map(|text| format!("{text} Waited")).collect()
}

async fn count(stream: &Stream) -> u64 {
    stream.parked().await.unwrap().messages
}

async fn say_all(stream: &Stream, texts: &[String]) {
    for text in texts {
        say(stream, text).await;
    }
}

/// Alice's stream, and bob who joined it and holds no grant.
async fn two(rig: &Rig) -> (Stream, Home, Stream) {
    let (alice, bob) = (rig.home("alice").await, rig.home("bob").await);
    let stream = kitchen(&alice).await;
    let joined = join(&bob, &stream).await;
    (stream, bob, joined)
}

/// Carol publishes too, and lets bob read her lane; alice does not let him read hers.
async fn carols(rig: &Rig, stream: &Stream, bob: &Home) -> Stream {
    let carol = rig.home("carol").await;
    let hers = join(&carol, stream).await;
    let publisher = to(carol.user(), Roles::PUBLISHER, sealcast::Interval::ALL);
    stream.grant(publisher).await.unwrap();
    hers.sync().await.unwrap();
    say(&hers, "first").await;
    hers.grant(all_to(bob.user())).await.unwrap();
    hers
}

/// Opens bob's home as a new process does.
async fn come_back(rig: &Rig) -> Stream {
    let bob = rig.again("bob").await;
    bob.stream(&name("kitchen")).await.unwrap()
}

/// Faults 9 and 17: a thousand messages wait for one grant together.
#[tokio::test]
async fn a_thousand_messages_under_one_missing_key_open_together_in_order_when_the_grant_comes() {
    let rig = Rig::small();
    let (stream, bob, joined) = two(&rig).await;
    let mut live = joined.subscribe(None).await.unwrap();
    let sent = texts("m", 1000);
    say_all(&stream, &sent).await;
    let waits = hear(&mut live, 1000).await;
    assert_eq!(waits, vec!["Sealed(NotGranted) Waits"; 1000]);
    assert_eq!(count(&joined).await, 1000);
    assert_eq!(live.waiting(), [(Reason::NotGranted, 1000)]);
    stream.grant(all_to(bob.user())).await.unwrap();
    assert_eq!(hear(&mut live, 1000).await, late(&sent));
    say(&stream, "next").await;
    assert_eq!(hear(&mut live, 1).await, ["next"]);
    live.finish().await.unwrap();
    assert_eq!(count(&joined).await, 0);
}

/// Fault 9: whoever lacks a key that is granted does not wait for it message by message. Time passes
/// only where somebody waits for it.
#[tokio::test(start_paused = true)]
async fn messages_under_a_missing_key_are_told_without_waiting_for_each() {
    let rig = Rig::small();
    let (alice, bob) = (rig.home("alice").await, rig.home("bob").await);
    let options = StreamOptions {
        sharing: Sharing::Manual,
        ..StreamOptions::default()
    };
    let stream = alice
        .create_stream(&name("kitchen"), options)
        .await
        .unwrap();
    let joined = join(&bob, &stream).await;
    stream.grant(all_to(bob.user())).await.unwrap();
    let mut live = joined.subscribe(None).await.unwrap();
    let start = Instant::now();
    for text in texts("m", 50) {
        say(&stream, &text).await;
        assert_eq!(hear(&mut live, 1).await, ["Sealed(KeyNotHere) Waits"]);
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
}

/// Fault 17
#[tokio::test]
async fn what_waits_holds_back_no_other_publisher() {
    let rig = Rig::new();
    let (stream, bob, joined) = two(&rig).await;
    let hers = carols(&rig, &stream, &bob).await;
    let mut live = joined.subscribe(None).await.unwrap();
    for text in ["one", "two"] {
        say(&stream, &format!("alice {text}")).await;
        say(&hers, &format!("carol {text}")).await;
    }
    let waits = "Sealed(NotGranted) Waits";
    let told = hear(&mut live, 4).await;
    assert_eq!(told, [waits, "carol one", waits, "carol two"]);
    stream.grant(all_to(bob.user())).await.unwrap();
    let told = hear(&mut live, 2).await;
    assert_eq!(told, ["alice one Waited", "alice two Waited"]);
}

#[tokio::test]
async fn what_was_parked_is_delivered_by_a_later_subscription_and_only_once() {
    let rig = Rig::new();
    let (stream, bob, joined) = two(&rig).await;
    let mut live = joined.subscribe(None).await.unwrap();
    let sent = texts("m", 3);
    say_all(&stream, &sent).await;
    hear(&mut live, 3).await;
    live.finish().await.unwrap();
    drop((joined, bob));

    // It does not open yet, and stays.
    let joined = come_back(&rig).await;
    let live = joined.subscribe(None).await.unwrap();
    assert_eq!(live.waiting(), []);
    live.finish().await.unwrap();
    let user = rig.again("bob").await.user();
    stream.grant(all_to(user)).await.unwrap();
    say(&stream, "missed").await;
    drop(joined);

    let joined = come_back(&rig).await;
    assert_eq!(count(&joined).await, 3);
    let mut live = joined.subscribe(None).await.unwrap();
    say(&stream, "live").await;
    let expected = [late(&sent), vec!["live".into()]].concat();
    assert_eq!(hear(&mut live, 4).await, expected);
    live.finish().await.unwrap();

    let joined = come_back(&rig).await;
    let mut live = joined.subscribe(None).await.unwrap();
    say(&stream, "again").await;
    assert_eq!(hear(&mut live, 1).await, ["again"]);
}

/// What is live goes on behind what waited, device by device.
#[tokio::test]
async fn what_waited_comes_before_what_its_device_publishes_next() {
    let rig = Rig::small();
    let (stream, bob, joined) = two(&rig).await;
    let mut live = joined.subscribe(None).await.unwrap();
    let sent = texts("m", 600);
    say_all(&stream, &sent).await;
    hear(&mut live, 600).await;
    stream.grant(all_to(bob.user())).await.unwrap();
    // The first of them are delivered; the next message is on the bus before the others are.
    assert_eq!(hear(&mut live, 10).await, late(&sent[..10]));
    say(&stream, "next").await;
    let rest = hear(&mut live, 591).await;
    assert_eq!(rest[..590], late(&sent[10..]));
    assert_eq!(rest[590], "next");
}

/// Fault 17: nor does what opens late hold back what others publish meanwhile.
#[tokio::test]
async fn what_others_publish_is_delivered_amid_what_waited() {
    let rig = Rig::small();
    let (stream, bob, joined) = two(&rig).await;
    let hers = carols(&rig, &stream, &bob).await;
    let mut live = joined.subscribe(None).await.unwrap();
    let sent = texts("m", 1500);
    say_all(&stream, &sent).await;
    hear(&mut live, 1500).await;
    stream.grant(all_to(bob.user())).await.unwrap();
    assert_eq!(hear(&mut live, 1).await, ["m0 Waited"]);
    say(&hers, "amid").await;
    let mut heard = Vec::new();
    for _ in 0..1500 {
        heard.extend(hear(&mut live, 1).await);
        // What looks at the bus has to get its turn on a busy machine.
        if !heard.iter().any(|of| of == "amid") {
            sleep(Duration::from_millis(1)).await;
        }
    }
    let at = heard.iter().position(|of| of == "amid").unwrap();
    assert!(at < 1400, "it came behind {at}");
    let of_alice = heard.iter().filter(|of| *of != "amid");
    assert!(of_alice.eq(&late(&sent[1..])));
}

#[tokio::test]
async fn history_that_waits_opens_while_it_is_followed_and_is_not_told_twice() {
    let rig = Rig::new();
    let (stream, bob, joined) = two(&rig).await;
    let sent = texts("m", 4);
    say_all(&stream, &sent[..2]).await;
    let mut whole = joined.subscribe(Some(Position::START)).await.unwrap();
    let waits = vec!["Sealed(NotGranted) Waits"; 2];
    assert_eq!(hear(&mut whole, 2).await, waits);
    drop(whole);
    // What waits is not parked again.
    let mut whole = joined.subscribe(Some(Position::START)).await.unwrap();
    assert_eq!(hear(&mut whole, 2).await, waits);
    assert_eq!(count(&joined).await, 2);
    assert_eq!(whole.waiting(), [(Reason::NotGranted, 2)]);
    stream.grant(all_to(bob.user())).await.unwrap();
    assert_eq!(hear(&mut whole, 2).await, late(&sent[..2]));
    whole.finish().await.unwrap();
    assert_eq!(count(&joined).await, 0);
}

/// The key may come through another handle of the stream while the history is read.
#[tokio::test]
async fn history_whose_key_came_while_it_was_read_opens_when_it_was_read() {
    let rig = Rig::new();
    let (stream, bob, joined) = two(&rig).await;
    let sent = texts("m", 2);
    say_all(&stream, &sent).await;
    let mut whole = joined.subscribe(Some(Position::START)).await.unwrap();
    let waits = "Sealed(NotGranted) Waits";
    assert_eq!(hear(&mut whole, 1).await, [waits]);
    stream.grant(all_to(bob.user())).await.unwrap();
    joined.sync().await.unwrap();
    assert_eq!(hear(&mut whole, 1).await, [waits]);
    assert_eq!(hear(&mut whole, 2).await, late(&sent));
}

#[tokio::test]
async fn what_waited_and_opens_in_history_is_not_delivered_late_as_well() {
    let rig = Rig::new();
    let (stream, bob, joined) = two(&rig).await;
    let sent = texts("m", 3);
    let mut live = joined.subscribe(None).await.unwrap();
    let mut positions = Vec::new();
    for text in &sent {
        positions.push(say(&stream, text).await);
        stream.rotate().await.unwrap();
    }
    hear(&mut live, 3).await;
    live.finish().await.unwrap();
    stream.grant(all_to(bob.user())).await.unwrap();
    let mut since = joined.subscribe(Some(positions[1])).await.unwrap();
    assert_eq!(hear(&mut since, 2).await, sent[1..]);
    assert!(is_silent(&mut since).await);
    since.finish().await.unwrap();
    // What is older than what was asked for waits for whoever asks for all.
    assert_eq!(count(&joined).await, 1);
    let mut live = joined.subscribe(None).await.unwrap();
    assert_eq!(hear(&mut live, 1).await, ["m0 Waited"]);
    assert!(is_silent(&mut live).await);
}

/// A bus that shows a session's record late, or never.
#[tokio::test]
async fn messages_whose_session_is_late_wait_for_it() {
    let rig = Rig::new();
    let (stream, bob, joined) = two(&rig).await;
    stream.grant(all_to(bob.user())).await.unwrap();
    say(&stream, "known").await;
    drop((joined, bob));
    let hides = Arc::new(AtomicBool::new(false));
    let end = rig.keys_end(&stream).await as u64;
    let ground = {
        let hides = hides.clone();
        Meddler::ground(move |_, topic| {
            match topic.ends_with("/keys") && hides.load(Ordering::SeqCst) {
                true => Manner::Hide(sealcast_bus::Offset(end)),
                false => Manner::Honest,
            }
        })
    };
    let bob = rig.on("bob", ground).await;
    let joined = bob.stream(&name("kitchen")).await.unwrap();
    let mut live = joined.subscribe(None).await.unwrap();
    hides.store(true, Ordering::SeqCst);
    stream.rekey().await.unwrap();
    say_all(&stream, &texts("m", 2)).await;
    let waits = vec!["Rejected(UnknownSession) Waits"; 2];
    assert_eq!(hear(&mut live, 2).await, waits);
    hides.store(false, Ordering::SeqCst);
    say(&stream, "next").await;
    let told = hear(&mut live, 3).await;
    assert_eq!(told, ["m0 Waited", "m1 Waited", "next"]);
}

#[tokio::test]
async fn forged_messages_take_no_room() {
    let rig = Rig::new();
    let (stream, _bob, joined) = two(&rig).await;
    say(&stream, "true").await;
    let item = rig.data(&stream).await[0].clone();
    let mut live = joined.subscribe(None).await.unwrap();
    // A session, a sender and a signature that are none.
    let mut forged = Vec::new();
    for at in [10, 30, item.len() - 1] {
        let mut bent = item.clone();
        bent[at] ^= 1;
        forged.push(bent);
    }
    for item in &forged {
        rig.inject_times(200, &stream, item).await;
    }
    let told: BTreeSet<_> = hear(&mut live, 600).await.into_iter().collect();
    let refused = ["Rejected(BadSignature)", "Rejected(UnknownSender)"];
    assert!(told.iter().eq(&refused), "{told:?}");
    assert_eq!(count(&joined).await, 0);
}

fn small(messages: u64) -> SubscribeOptions {
    let one = 4096 + 178;
    SubscribeOptions {
        parking: ParkingLimits {
            publisher_bytes_max: messages * one,
            ..ParkingLimits::default()
        },
        ..SubscribeOptions::default()
    }
}

#[tokio::test]
async fn what_finds_no_room_is_told_so_and_what_waits_goes_on_waiting() {
    let rig = Rig::new();
    let (stream, bob, joined) = two(&rig).await;
    let mut live = joined.subscribe_with(small(3)).await.unwrap();
    let sent = texts("m", 5);
    say_all(&stream, &sent).await;
    let told = hear(&mut live, 5).await;
    assert_eq!(
        told[2..4],
        ["Sealed(NotGranted) Waits", "Sealed(NotGranted) NoRoom"]
    );
    assert_eq!(count(&joined).await, 3);
    stream.grant(all_to(bob.user())).await.unwrap();
    assert_eq!(hear(&mut live, 3).await, late(&sent[..3]));
    assert!(is_silent(&mut live).await);
    // The bus has it all the same.
    assert_eq!(history(&joined).await, sent);
}

#[tokio::test]
async fn what_waited_as_long_as_it_may_is_told_once_and_gone() {
    let (rig, time) = (Rig::new(), Time::new());
    let alice = rig.home("alice").await;
    let stream = kitchen(&alice).await;
    let bob = rig.home_by("bob", &time).await;
    let joined = join(&bob, &stream).await;
    let mut live = joined.subscribe(None).await.unwrap();
    say(&stream, "old").await;
    hear(&mut live, 1).await;
    time.pass(ParkingLimits::default().age_ms_max + 1);
    say(&stream, "new").await;
    let told = timeout(Duration::from_secs(60), hear(&mut live, 2)).await;
    let told = told.expect("both are told");
    let told: BTreeSet<_> = told.iter().map(String::as_str).collect();
    let expected = ["Sealed(NotGranted) TooOld", "Sealed(NotGranted) Waits"];
    assert!(told.iter().eq(&expected), "{told:?}");
    assert_eq!(count(&joined).await, 1);
}

/// Both are told what waits; each message comes through one of them at least, and the other says
/// that it did.
#[tokio::test]
async fn of_two_subscriptions_of_a_home_none_loses_what_waits_in_silence() {
    let rig = Rig::new();
    let (stream, bob, joined) = two(&rig).await;
    let other = come_back(&rig).await;
    let mut first = joined.subscribe(None).await.unwrap();
    let mut second = other.subscribe(None).await.unwrap();
    let sent = texts("m", 5);
    say_all(&stream, &sent).await;
    for live in [&mut first, &mut second] {
        assert_eq!(hear(live, 5).await, vec!["Sealed(NotGranted) Waits"; 5]);
    }
    assert_eq!(count(&joined).await, 5);
    stream.grant(all_to(bob.user())).await.unwrap();
    assert_eq!(hear(&mut first, 5).await, late(&sent));
    first.finish().await.unwrap();
    let elsewhere = vec!["Sealed(NotGranted) Elsewhere"; 5];
    assert_eq!(hear(&mut second, 5).await, elsewhere);
    assert!(is_silent(&mut second).await);
}

/// A backup does not carry what waits: it is on the bus, and there is much of it.
#[tokio::test]
async fn a_backup_leaves_out_what_waits() {
    let rig = Rig::new();
    let sent = texts("m", 2);
    let (stream, bob, joined) = two(&rig).await;
    let mut live = joined.subscribe(None).await.unwrap();
    let big = "x".repeat(100_000);
    say(&stream, &big).await;
    say_all(&stream, &sent).await;
    hear(&mut live, 3).await;
    live.finish().await.unwrap();
    assert_eq!(count(&joined).await, 3);
    assert!(joined.parked().await.unwrap().bytes > 100_000);
    let key = "age16h4ytxhr67wk50w7e8wxysar8m6rdnw5utgnjwwsh3vrt5ruw57qt08u9v";
    let lock = sealcast::FileLock::recipients(vec![key.parse().unwrap()]);
    let backup = bob.backup(lock, false).await.unwrap();
    assert!(backup.file.as_bytes().len() < 60_000);
}

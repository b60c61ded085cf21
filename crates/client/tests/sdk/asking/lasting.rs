//! Requests and decisions that take long.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// Who asks and asks while nobody has decided takes up no more of whoever decides.
#[tokio::test]
async fn one_user_takes_up_whoever_decides_eight_times_at_once() {
    let rig = Rig::small();
    let [alice, bob] = rig.homes(["alice", "bob"]).await;
    let stream = asked_for(&alice).await;
    let joined = join(&bob, &stream).await;
    let at = say(&stream, "one").await;
    let (policy, mut questions) = undecided();
    let answering = answering_by(&stream, policy).await;
    let until = move |count: u64| RequestOptions {
        interval: between(Position::START, at.after(count)),
        wait: LONG,
    };
    for count in 1..=8 {
        let of = joined.clone();
        let asks = tokio::spawn(async move { of.request(until(count)).await });
        questions.recv().await.unwrap();
        asks.abort();
    }
    let said = joined.request(until(9)).await.unwrap().end;
    let later = RefusalReason::PendingApproval;
    assert_eq!(said, RequestEnd::Refused(later));
    assert!(questions.try_recv().is_err());
    drop(answering);
}

/// A decision by the log is one by the log as it is then, not as it was when somebody asked.
#[tokio::test]
async fn what_was_granted_while_somebody_decides_is_given() {
    let rig = Rig::small();
    let [alice, bob] = rig.homes(["alice", "bob"]).await;
    let stream = asked_for(&alice).await;
    let joined = join(&bob, &stream).await;
    say(&stream, "one").await;
    let (asked, mut questions) = mpsc::unbounded_channel();
    let go = Arc::new(tokio::sync::Notify::new());
    let went = go.clone();
    let policy = Policy::asking(move |question: Question| {
        asked.send(question.exceeds_log()).unwrap();
        let went = went.clone();
        async move {
            went.notified().await;
            Decision::ByLog
        }
    });
    let answering = answering_by(&stream, policy).await;
    let to_bob = all_to(bob.user());
    let asks = tokio::spawn(async move { (request(&joined).await, bob) });
    assert_eq!(questions.recv().await, Some(true));
    let mute = rig.on("alice", mute_keys()).await;
    drop(open(&mute).await.grant(to_bob).await);
    stream.sync().await.unwrap();
    go.notify_one();
    let (requested, _bob) = asks.await.unwrap();
    assert_eq!(requested.end, RequestEnd::Opened);
    assert_eq!(
        (
            answering.answered().bundles,
            answering.answered().not_entitled
        ),
        (1, 0)
    );
}

/// Whoever waits no more for an answer is not asking any more, though somebody else follows.
#[tokio::test]
async fn a_request_that_is_over_is_not_made_again_by_who_follows_the_stream() {
    let rig = Rig::small();
    let [alice, bob] = rig.homes(["alice", "bob"]).await;
    let stream = asked_for(&alice).await;
    let joined = join(&bob, &stream).await;
    say(&stream, "one").await;
    impatient(&bob);
    let mut ear = Ear::of(&rig, &stream).await;
    let following = joined.subscribe(None).await.unwrap();
    let asks = tokio::spawn(async move { request(&joined).await });
    ear.next("asks").await;
    asks.abort();
    assert!(asks.await.is_err());
    let over = Clock::system().now();
    // Another asks as often as it would, four times; one more may have been on its way, and several be heard late.
    let carol = rig.home("carol").await;
    let at_carol = join(&carol, &stream).await;
    impatient(&carol);
    let asks = tokio::spawn(async move { request(&at_carol).await });
    let (mut of_bob, mut of_carol) = (0, 0);
    while of_carol < 4 {
        let AskItem::Solicitation(asked) = ear.next("asks").await else {
            unreachable!("it is one that asks");
        };
        match asked.claims().device == bob.device() {
            true => of_bob += usize::from(asked.claims().time > over),
            false => of_carol += 1,
        }
    }
    assert!(of_bob <= 1, "{of_bob} more");
    asks.abort();
    drop(following);
}

#[tokio::test]
async fn a_yes_that_the_bus_does_not_take_at_once_is_not_lost() {
    let rig = Rig::small();
    let [alice, bob] = rig.homes(["alice", "bob"]).await;
    let stream = asked_for(&alice).await;
    let joined = join(&bob, &stream).await;
    say(&stream, "one").await;
    let fails = Arc::new(AtomicBool::new(true));
    let once = fails.clone();
    let faulty = rig
        .on(
            "alice",
            Meddler::ground(move |ask, topic| {
                let is_entry = ask == Ask::Append && topic.contains("/access/");
                match is_entry && once.swap(false, Ordering::Relaxed) {
                    true => Manner::Fail,
                    false => Manner::Honest,
                }
            }),
        )
        .await;
    let (asked, mut questions) = mpsc::unbounded_channel();
    let policy = Policy::asking(move |question: Question| {
        asked.send(question.user).unwrap();
        async { Decision::Grant }
    });
    let answering = answering_by(&open(&faulty).await, policy).await;
    assert_eq!(request(&joined).await.end, RequestEnd::Opened);
    assert!(!fails.load(Ordering::Relaxed));
    assert_eq!(questions.recv().await, Some(bob.user()));
    assert!(questions.try_recv().is_err(), "somebody is asked twice");
    stream.sync().await.unwrap();
    let who = stream.who().await.unwrap();
    let grants = who.iter().filter(|of| of.user == bob.user());
    assert_eq!(grants.count(), 1);
    drop(answering);
}

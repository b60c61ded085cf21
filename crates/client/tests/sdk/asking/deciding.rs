//! Who decides, and what comes of it.

use super::*;

#[tokio::test]
async fn a_yes_beyond_the_log_is_a_grant_in_it() {
    let rig = Rig::small();
    let [alice, bob] = rig.homes(["alice", "bob"]).await;
    let stream = asked_for(&alice).await;
    let joined = join(&bob, &stream).await;
    say(&stream, "one").await;
    // The log does not name bob at all.
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    let policy = Policy::asking(move |question: Question| {
        seen.lock()
            .unwrap()
            .push((question.user, question.exceeds_log()));
        async { Decision::Grant }
    });
    let answering = answering_by(&stream, policy).await;
    assert_eq!(request(&joined).await.end, RequestEnd::Opened);
    assert_eq!(*asked.lock().unwrap(), [(bob.user(), true)]);
    assert_eq!(history(&joined).await, ["one"]);
    let who = stream.who().await.unwrap();
    let granted = who.iter().find(|of| of.user == bob.user()).unwrap();
    assert_eq!(
        (granted.roles, answering.answered().grants),
        (Roles::READER, 1)
    );
}

#[tokio::test]
async fn a_yes_of_one_who_may_not_grant_changes_nothing() {
    let rig = Rig::small();
    let [alice, bob, carol] = rig.homes(["alice", "bob", "carol"]).await;
    let stream = asked_for(&alice).await;
    let (at_bob, at_carol) = (join(&bob, &stream).await, join(&carol, &stream).await);
    say(&stream, "one").await;
    let reshare = GrantOptions {
        reshare: true,
        ..all_to(carol.user())
    };
    stream.grant(reshare).await.unwrap();
    at_carol.sync().await.unwrap();
    let yes = Policy::asking(|_| async { Decision::Grant });
    let answering = answering_by(&at_carol, yes).await;
    let said = request_within(&at_bob, Duration::from_millis(1_500)).await;
    assert_eq!(said.end, RequestEnd::TimedOut);
    assert_eq!(
        answering.answered().grants + answering.answered().bundles,
        0
    );
    assert_eq!(history(&at_bob).await, ["Sealed(NotGranted)"]);
}

#[tokio::test]
async fn a_request_that_waits_for_approval_says_so_and_the_grant_brings_the_keys() {
    let rig = Rig::small();
    let [alice, bob] = rig.homes(["alice", "bob"]).await;
    let stream = asked_for(&alice).await;
    let joined = join(&bob, &stream).await;
    say(&stream, "one").await;
    let later = RefusalReason::PendingApproval;
    let policy = Policy::asking(move |_| async move { Decision::Refuse(later) });
    let answering = answering_by(&stream, policy).await;
    assert_eq!(refused_sooner_or_later(&joined).await, later);
    stream.grant(all_to(bob.user())).await.unwrap();
    assert_eq!(history(&joined).await, ["one"]);
    drop(answering);
}

/// Asks until somebody says no, in turn for longer: who waits for approval waits to the end.
async fn refused_sooner_or_later(stream: &Stream) -> RefusalReason {
    for seconds in [1, 4, 16, 64] {
        let said = request_within(stream, Duration::from_secs(seconds)).await;
        match said.end {
            RequestEnd::Refused(reason) => return reason,
            RequestEnd::TimedOut => (),
            end @ (RequestEnd::Opened | RequestEnd::Partly) => panic!("{end:?}"),
        }
    }
    panic!("nobody says anything");
}

/// A policy that leaves every question to later, and tells of it.
fn later() -> (Policy, mpsc::UnboundedReceiver<Question>) {
    let (asked, questions) = mpsc::unbounded_channel();
    let policy = Policy::beyond_log(move |question| {
        asked.send(question).unwrap();
        async { Verdict::Later }
    });
    (policy, questions)
}

#[tokio::test]
async fn a_request_that_waits_for_a_decision_opens_when_it_is_a_yes() {
    for sharing in [Sharing::OnRequest, Sharing::Active] {
        let rig = Rig::small();
        let [alice, bob] = rig.homes(["alice", "bob"]).await;
        let stream = shared(&alice, sharing).await;
        let joined = join(&bob, &stream).await;
        say(&stream, "one").await;
        let (policy, mut questions) = later();
        let answering = answering_by(&stream, policy).await;
        let asks = tokio::spawn(async move { (request(&joined).await, joined) });
        let question = questions.recv().await.unwrap();
        assert_eq!(question.standing, AskerStanding::Stranger);
        assert_eq!(stream.approve(&question).await.unwrap(), 1);
        let (requested, joined) = asks.await.unwrap();
        assert_eq!(requested.end, RequestEnd::Opened);
        assert_eq!(history(&joined).await, ["one"]);
        // What the log allows by now is not granted once more.
        assert_eq!(stream.approve(&question).await.unwrap(), 0);
        assert_eq!(answering.answered().pending_approval, 1);
    }
}

#[tokio::test]
async fn a_request_that_waits_for_a_decision_ends_when_it_is_a_no() {
    let rig = Rig::small();
    let [alice, bob] = rig.homes(["alice", "bob"]).await;
    let stream = asked_for(&alice).await;
    let joined = join(&bob, &stream).await;
    say(&stream, "one").await;
    let gone = stream.grant(all_to(bob.user())).await.unwrap();
    stream.revoke_grant(gone.id).await.unwrap();
    say(&stream, "two").await;
    let (policy, mut questions) = later();
    let answers = answering_by(&stream, policy).await;
    waits_for(&bob, Duration::from_secs(4));
    let asks = tokio::spawn(async move { request(&joined).await });
    let question = questions.recv().await.unwrap();
    assert_eq!(question.standing, AskerStanding::Revoked);
    drop(answers);
    let answers = answering(&stream).await;
    let reason = RefusalReason::NotEntitled;
    assert_eq!(asks.await.unwrap().end, RequestEnd::Refused(reason));
    assert_eq!(answers.answered().not_entitled, 1);
}

#[tokio::test]
async fn a_yes_that_is_not_allowed_is_an_error_to_whoever_says_it() {
    let rig = Rig::small();
    let [alice, bob, carol] = rig.homes(["alice", "bob", "carol"]).await;
    let stream = asked_for(&alice).await;
    let (at_bob, at_carol) = (join(&bob, &stream).await, join(&carol, &stream).await);
    say(&stream, "one").await;
    let (policy, mut questions) = later();
    let answering = answering_by(&stream, policy).await;
    let asks = tokio::spawn(async move { request(&at_bob).await });
    let question = questions.recv().await.unwrap();
    let refused = at_carol.approve(&question).await.unwrap_err();
    assert_eq!(refused.code(), "access.not-allowed");
    asks.abort();
    drop(answering);
}

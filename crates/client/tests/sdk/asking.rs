//! Asking for keys: late readers, and whoever answers them.

mod deciding;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sealcast::{
    AnswerOptions, Answering, AskerStanding, AskingOptions, Clock, Decision, DeviceId,
    GrantOptions, Home, Interval, Policy, Position, Question, RefusalReason, RequestEnd,
    RequestOptions, Requested, Roles, Sharing, Stream, StreamOptions, Subscription, Verdict,
};
use sealcast_bus::{Bus as _, FileBus, Listener, Topic};
use sealcast_protocol::{AskItem, StreamTopics};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::rig::*;

mod lasting;

/// Longer than any test takes: whoever waits for this has failed.
const LONG: Duration = Duration::from_secs(60);

/// A stream whose keys are given to those who ask.
async fn asked_for(owner: &Home) -> Stream {
    shared(owner, Sharing::OnRequest).await
}

async fn shared(owner: &Home, sharing: Sharing) -> Stream {
    let options = StreamOptions {
        sharing,
        ..StreamOptions::default()
    };
    owner
        .create_stream(&name("kitchen"), options)
        .await
        .unwrap()
}

async fn answering(stream: &Stream) -> Answering {
    stream.answer(AnswerOptions::default()).await.unwrap()
}

async fn answering_by(stream: &Stream, policy: Policy) -> Answering {
    let options = AnswerOptions {
        policy,
        ..AnswerOptions::default()
    };
    stream.answer(options).await.unwrap()
}

async fn request(stream: &Stream) -> Requested {
    request_within(stream, LONG).await
}

async fn request_within(stream: &Stream, wait: Duration) -> Requested {
    let options = RequestOptions {
        wait,
        ..RequestOptions::default()
    };
    stream.request(options).await.unwrap()
}

/// Ends requests soon that nobody answers. What is answered takes longer on a busy machine.
fn impatient(home: &Home) {
    waits_for(home, Duration::from_millis(300));
}

/// Ends requests after a while, and makes them again.
fn waits_for(home: &Home, key_request_timeout: Duration) {
    home.set_asking(AskingOptions {
        key_request_timeout,
        ..AskingOptions::default()
    });
}

/// What is sent where keys of a stream are asked for.
struct Ear {
    listener: Box<dyn Listener>,
    _bus: FileBus,
}

impl Ear {
    async fn of(rig: &Rig, stream: &Stream) -> Self {
        let bus = rig.bus().await;
        let topic = Topic::new(&StreamTopics(stream.id()).ask()).unwrap();
        Self {
            listener: bus.listen(vec![topic]).await.unwrap(),
            _bus: bus,
        }
    }

    async fn hear(&mut self) -> AskItem {
        let heard = timeout(LONG, self.listener.next()).await;
        let (_, item) = heard.expect("somebody says something").unwrap();
        AskItem::decode(&item).unwrap()
    }

    /// The next of a kind.
    async fn next(&mut self, kind: &str) -> AskItem {
        loop {
            let item = self.hear().await;
            if kind_of(&item) == kind {
                return item;
            }
        }
    }

    /// The kinds of all that was sent up to the first of one kind.
    async fn up_to(&mut self, kind: &str) -> Vec<&'static str> {
        let mut kinds = Vec::new();
        while kinds.last() != Some(&kind) {
            kinds.push(kind_of(&self.hear().await));
        }
        kinds
    }
}

fn kind_of(item: &AskItem) -> &'static str {
    match item {
        AskItem::Solicitation(_) => "asks",
        AskItem::Claim(_) => "claims",
        AskItem::Refusal(_) => "refuses",
        AskItem::Receipt(_) => "receipt",
    }
}

/// As [`next`], but not for ever.
async fn next_of(following: &mut Subscription, count: usize) -> Vec<String> {
    let lines = timeout(LONG, next(following, count)).await;
    lines.expect("so much is delivered")
}

/// A policy that tells of each question and never decides.
fn undecided() -> (Policy, mpsc::UnboundedReceiver<Question>) {
    let (asked, questions) = mpsc::unbounded_channel();
    let policy = Policy::asking(move |question| {
        asked.send(question).unwrap();
        std::future::pending()
    });
    (policy, questions)
}

/// Alice owns a kitchen in which something was said in a session that bob, who may read it, has no
/// keys of.
async fn late_reader(rig: &Rig) -> (Home, Home, Stream, Stream) {
    let [alice, bob] = rig.homes(["alice", "bob"]).await;
    let stream = asked_for(&alice).await;
    let joined = join(&bob, &stream).await;
    stream.grant(all_to(bob.user())).await.unwrap();
    say(&stream, "one").await;
    assert_eq!(history(&joined).await, ["Sealed(KeyNotHere)"]);
    (alice, bob, stream, joined)
}

#[tokio::test]
async fn a_late_reader_asks_a_keyholder_that_is_there_and_everything_opens() {
    let rig = Rig::small();
    let (_alice, _bob, stream, joined) = late_reader(&rig).await;
    let mut ear = Ear::of(&rig, &stream).await;
    let answering = answering(&stream).await;
    let requested = request(&joined).await;
    assert_eq!(requested.end, RequestEnd::Opened);
    assert_eq!((requested.missing, requested.opened), (1, 1));
    assert_eq!(ear.up_to("receipt").await, ["asks", "claims", "receipt"]);
    assert_eq!(history(&joined).await, ["one"]);
    assert_eq!(answering.answered().bundles, 1);
    // Nothing is missing any more, so that nobody is asked.
    drop(answering);
    let again = request(&joined).await;
    assert_eq!((again.end, again.missing), (RequestEnd::Opened, 0));
}

#[tokio::test]
async fn who_asked_says_that_the_keys_work_before_it_goes() {
    let rig = Rig::small();
    let [alice, bob] = rig.homes(["alice", "bob"]).await;
    let stream = asked_for(&alice).await;
    let joined = join(&bob, &stream).await;
    // A right that is no whole session, so that only a message proves the keys.
    let cut = stream.rotate().await.unwrap();
    let from_then = to(bob.user(), Roles::READER, between(cut, Position::END));
    stream.grant(from_then).await.unwrap();
    say(&stream, "one").await;
    let mut ear = Ear::of(&rig, &stream).await;
    let answering = answering(&stream).await;
    assert_eq!(request(&joined).await.end, RequestEnd::Opened);
    drop((joined, bob));
    assert_eq!(ear.up_to("receipt").await, ["asks", "claims", "receipt"]);
    drop(answering);
}

#[tokio::test]
async fn keys_that_were_given_outlive_the_process_that_asked() {
    let rig = Rig::small();
    let (_alice, bob, stream, joined) = late_reader(&rig).await;
    let answering = answering(&stream).await;
    assert_eq!(request(&joined).await.end, RequestEnd::Opened);
    drop((answering, joined, bob));
    assert_eq!(history(&open(&rig.again("bob").await).await).await, ["one"]);
}

#[tokio::test]
async fn a_co_reader_who_may_reshare_answers_when_the_publisher_is_gone() {
    let rig = Rig::small();
    let [alice, bob, carol] = rig.homes(["alice", "bob", "carol"]).await;
    let stream = asked_for(&alice).await;
    say(&stream, "one").await;
    let (at_bob, at_carol) = (join(&bob, &stream).await, join(&carol, &stream).await);
    let reshare = GrantOptions {
        reshare: true,
        ..all_to(carol.user())
    };
    stream.grant(reshare).await.unwrap();
    assert_eq!(history(&at_carol).await, ["one"]);
    stream.rekey().await.unwrap();
    say(&stream, "two").await;
    stream.grant(all_to(bob.user())).await.unwrap();
    stream.rekey().await.unwrap();
    say(&stream, "three").await;
    // Carol asked while alice was there. Alice is gone for good then.
    let while_there = answering(&stream).await;
    assert_eq!(request(&at_carol).await.end, RequestEnd::Opened);
    drop((while_there, stream, alice));
    assert_eq!(history(&at_bob).await[2], "Sealed(KeyNotHere)");
    let answering = answering(&at_carol).await;
    assert_eq!(request(&at_bob).await.end, RequestEnd::Opened);
    assert_eq!(history(&at_bob).await, ["one", "two", "three"]);
    assert_eq!(answering.answered().bundles, 1);
}

/// fault 10
#[tokio::test]
async fn another_takes_over_from_one_that_claims_and_dies() {
    let rig = Rig::small();
    let (alice, bob, stream, joined) = late_reader(&rig).await;
    let carol = rig.home("carol").await;
    let at_carol = join(&carol, &stream).await;
    let reshare = GrantOptions {
        reshare: true,
        ..all_to(carol.user())
    };
    stream.grant(reshare).await.unwrap();
    let heir = answering(&at_carol).await;
    let (policy, mut questions) = undecided();
    let dies = answering_by(&stream, policy).await;
    let mut ear = Ear::of(&rig, &stream).await;
    let asks = tokio::spawn(async move { (request(&joined).await, joined, bob) });
    questions.recv().await.unwrap();
    let claimers = [claimer(&mut ear).await, {
        drop(dies);
        claimer(&mut ear).await
    }];
    assert_eq!(claimers, [alice.device(), carol.device()]);
    let (requested, joined, _bob) = asks.await.unwrap();
    assert_eq!(requested.end, RequestEnd::Opened);
    assert_eq!(history(&joined).await, ["one"]);
    // Neither asked again nor given twice.
    assert_eq!(ear.up_to("receipt").await, ["receipt"]);
    assert_eq!(heir.answered().bundles, 1);
}

async fn claimer(ear: &mut Ear) -> DeviceId {
    let AskItem::Claim(claim) = ear.next("claims").await else {
        unreachable!("it is one that claims");
    };
    claim.claims().device
}

#[tokio::test]
async fn who_is_not_entitled_is_refused_with_the_reason() {
    let rig = Rig::small();
    let [alice, bob] = rig.homes(["alice", "bob"]).await;
    let stream = asked_for(&alice).await;
    let joined = join(&bob, &stream).await;
    let first = say(&stream, "one").await;
    let only_first = between(first, stream.rotate().await.unwrap());
    say(&stream, "two").await;
    stream
        .grant(to(bob.user(), Roles::READER, only_first))
        .await
        .unwrap();
    let answering = answering(&stream).await;
    let requested = request(&joined).await;
    let reason = RefusalReason::NotEntitled;
    assert_eq!(requested.end, RequestEnd::Refused(reason));
    assert_eq!(answering.answered().bundles, 0);
    assert_eq!(history(&joined).await, ["one", "Sealed(NotGranted)"]);
}

#[tokio::test]
async fn what_may_be_read_opens_and_the_rest_is_partly() {
    let rig = Rig::small();
    let [alice, bob] = rig.homes(["alice", "bob"]).await;
    let stream = asked_for(&alice).await;
    let joined = join(&bob, &stream).await;
    let first = say(&stream, "one").await;
    let only_later = between(first.after(1), Position::END);
    stream
        .grant(to(bob.user(), Roles::READER, only_later))
        .await
        .unwrap();
    stream.rekey().await.unwrap();
    say(&stream, "two").await;
    let answering = answering(&stream).await;
    let requested = request(&joined).await;
    assert_eq!(requested.end, RequestEnd::Partly);
    assert_eq!((requested.missing, requested.opened), (2, 1));
    assert_eq!(history(&joined).await, ["Sealed(NotGranted)", "two"]);
    drop(answering);
}

#[tokio::test]
async fn a_request_times_out_when_nobody_is_there_and_opens_when_somebody_comes() {
    let rig = Rig::small();
    let (_alice, _bob, stream, joined) = late_reader(&rig).await;
    let alone = request_within(&joined, Duration::from_millis(500)).await;
    assert_eq!(alone.end, RequestEnd::TimedOut);
    assert_eq!(history(&joined).await, ["Sealed(KeyNotHere)"]);
    let mut ear = Ear::of(&rig, &stream).await;
    let asks = tokio::spawn(async move { (request(&joined).await, joined) });
    // The first request of this one is lost as well, and sent once more.
    ear.next("asks").await;
    let answering = answering(&stream).await;
    let (requested, joined) = asks.await.unwrap();
    assert_eq!(requested.end, RequestEnd::Opened);
    assert_eq!(history(&joined).await, ["one"]);
    drop(answering);
}

#[tokio::test]
async fn one_that_asked_and_was_started_anew_asks_anew() {
    let rig = Rig::small();
    let (_alice, bob, stream, joined) = late_reader(&rig).await;
    let (policy, mut questions) = undecided();
    let slow = answering_by(&stream, policy).await;
    let asks = tokio::spawn(async move { (request(&joined).await, bob) });
    let first = questions.recv().await.unwrap();
    asks.abort();
    drop(slow);
    let mut ear = Ear::of(&rig, &stream).await;
    let answering = answering(&stream).await;
    let joined = open(&rig.again("bob").await).await;
    assert_eq!(request(&joined).await.end, RequestEnd::Opened);
    let AskItem::Solicitation(second) = ear.next("asks").await else {
        unreachable!("it is one that asks");
    };
    assert_ne!(second.claims().request, first.request);
    assert_eq!(history(&joined).await, ["one"]);
    drop(answering);
}

#[tokio::test]
async fn a_follower_that_was_started_anew_asks_for_what_waits_since_before() {
    let rig = Rig::small();
    let [alice, bob] = rig.homes(["alice", "bob"]).await;
    let stream = asked_for(&alice).await;
    let joined = join(&bob, &stream).await;
    // A right that is no whole session, so that only a message proves the keys.
    let cut = stream.rotate().await.unwrap();
    let from_then = to(bob.user(), Roles::READER, between(cut, Position::END));
    stream.grant(from_then).await.unwrap();
    for text in ["one", "two"] {
        say(&stream, text).await;
    }
    let mut following = joined.subscribe(Some(Position::START)).await.unwrap();
    let sealed = "Sealed(KeyNotHere)";
    assert_eq!(next_of(&mut following, 2).await, [sealed, sealed]);
    following.finish().await.unwrap();
    drop((joined, bob));
    let mut ear = Ear::of(&rig, &stream).await;
    let answering = answering(&stream).await;
    let joined = open(&rig.again("bob").await).await;
    let mut following = joined.subscribe(None).await.unwrap();
    assert_eq!(next_of(&mut following, 2).await, ["one", "two"]);
    let live = tokio::spawn(async move { following.next().await.map(|_| ()) });
    assert_eq!(ear.up_to("receipt").await, ["asks", "claims", "receipt"]);
    assert_eq!(answering.answered().bundles, 1);
    live.abort();
}

/// fault 9
#[tokio::test]
async fn a_thousand_sealed_messages_cost_one_request() {
    let rig = Rig::small();
    let (_alice, bob, stream, joined) = late_reader(&rig).await;
    let mut publisher = stream.publisher().await.unwrap();
    for text in texts("t", 999) {
        publisher.send(text.as_bytes()).await.unwrap();
        publisher.flush().await.unwrap();
    }
    publisher.finish().await.unwrap();
    assert_eq!(rig.data(&stream).await.len(), 1_000);
    let mut ear = Ear::of(&rig, &stream).await;
    let answering = answering(&stream).await;
    let mut following = joined.subscribe(Some(Position::START)).await.unwrap();
    let told = next_of(&mut following, 1_000).await;
    assert!(told.iter().all(|line| line == "Sealed(KeyNotHere)"));
    let opened = next_of(&mut following, 1_000).await;
    assert_eq!((&*opened[0], &*opened[999]), ("one", "t998"));
    assert_eq!(ear.up_to("receipt").await, ["asks", "claims", "receipt"]);
    assert_eq!(answering.answered().requests, 1);
    assert_eq!(answering.answered().bundles, 1);
    drop((following, bob));
}

#[tokio::test]
async fn a_subscription_asks_by_itself_and_delivers_what_opens() {
    let rig = Rig::small();
    let (_alice, _bob, stream, joined) = late_reader(&rig).await;
    let mut ear = Ear::of(&rig, &stream).await;
    let answering = answering(&stream).await;
    let mut following = joined.subscribe(Some(Position::START)).await.unwrap();
    let first = next_of(&mut following, 2).await;
    assert_eq!(first, ["Sealed(KeyNotHere)", "one"]);
    assert_eq!(ear.up_to("receipt").await, ["asks", "claims", "receipt"]);
    say(&stream, "two").await;
    assert_eq!(next_of(&mut following, 1).await, ["two"]);
    drop(answering);
}

#[tokio::test]
async fn a_subscription_that_is_told_not_to_asks_nobody() {
    let rig = Rig::small();
    let (_alice, bob, stream, joined) = late_reader(&rig).await;
    let carol = rig.home("carol").await;
    let at_carol = join(&carol, &stream).await;
    bob.set_asking(AskingOptions {
        subscriptions_ask: false,
        ..AskingOptions::default()
    });
    impatient(&carol);
    let mut ear = Ear::of(&rig, &stream).await;
    let mut following = joined.subscribe(Some(Position::START)).await.unwrap();
    let sealed = next_of(&mut following, 1).await;
    assert_eq!(sealed, ["Sealed(KeyNotHere)"]);
    // Bob would ask before carol does so twice.
    let asks = tokio::spawn(async move { request(&at_carol).await });
    for _ in 0..2 {
        let AskItem::Solicitation(asked) = ear.next("asks").await else {
            unreachable!("it is one that asks");
        };
        assert_eq!(asked.claims().device, carol.device());
    }
    asks.abort();
}

#[tokio::test]
async fn with_manual_sharing_only_keyholders_ask() {
    let rig = Rig::small();
    let [alice, bob, carol] = rig.homes(["alice", "bob", "carol"]).await;
    let stream = shared(&alice, Sharing::Manual).await;
    let (at_bob, at_carol) = (join(&bob, &stream).await, join(&carol, &stream).await);
    stream.grant(all_to(bob.user())).await.unwrap();
    say(&stream, "one").await;
    let mut ear = Ear::of(&rig, &stream).await;
    let refused = at_bob.request(RequestOptions::default()).await;
    assert_eq!(refused.unwrap_err().code(), "access.not-allowed");
    let mut following = at_bob.subscribe(Some(Position::START)).await.unwrap();
    assert_eq!(next_of(&mut following, 1).await, ["Sealed(KeyNotHere)"]);
    // An admin whose keys the bus never had.
    let admin = to(carol.user(), Roles::ADMIN, Interval::ALL);
    let mute = rig.on("alice", mute_keys()).await;
    drop(open(&mute).await.grant(admin).await);
    let asks = tokio::spawn(async move { request(&at_carol).await.end });
    let AskItem::Solicitation(asked) = ear.next("asks").await else {
        unreachable!("it is one that asks");
    };
    assert_eq!(asked.claims().device, carol.device());
    asks.abort();
    drop(following);
}

/// A bus that takes no keys.
fn mute_keys() -> sealcast::Ground {
    Meddler::ground(
        |ask, topic| match ask == Ask::Append && topic.ends_with("/keys") {
            true => Manner::Fail,
            false => Manner::Honest,
        },
    )
}

#[tokio::test]
async fn an_inbox_is_trimmed_behind_what_can_be_waited_for() {
    let rig = Rig::small();
    let time = Time::new();
    let [alice, bob] = rig.homes_by(["alice", "bob"], &time).await;
    let stream = asked_for(&alice).await;
    let joined = join(&bob, &stream).await;
    stream.grant(all_to(bob.user())).await.unwrap();
    let answering = answering(&stream).await;
    let inbox = bob.device().inbox_topic();
    let mut left = Vec::new();
    for round in 0..3 {
        stream.rekey().await.unwrap();
        say(&stream, "more").await;
        assert_eq!(request(&joined).await.end, RequestEnd::Opened, "{round}");
        left.push(rig.items(&inbox).await.len());
        time.pass(7 * 60 * 1_000);
    }
    assert_eq!(left, [2, 2, 2], "an answer and its receipt");
    drop(answering);
}

#[tokio::test]
async fn a_home_asks_no_more_often_in_many_streams_than_in_one() {
    let rig = Rig::small();
    let [alice, bob] = rig.homes(["alice", "bob"]).await;
    let per_second = 4;
    bob.set_asking(AskingOptions {
        max_key_requests_per_second: per_second,
        ..AskingOptions::default()
    });
    let (mut ears, mut rooms) = (Vec::new(), Vec::new());
    for number in 0..8 {
        let (of, options) = (name(&format!("room {number}")), StreamOptions::default());
        let stream = alice.create_stream(&of, options).await.unwrap();
        say(&stream, "one").await;
        ears.push(Ear::of(&rig, &stream).await);
        rooms.push(join(&bob, &stream).await);
    }
    let begun = Clock::system().now();
    let ask = |room: Stream| tokio::spawn(async move { request(&room).await });
    let asks: Vec<_> = rooms.into_iter().map(ask).collect();
    let mut times = Vec::new();
    for ear in &mut ears {
        let AskItem::Solicitation(asked) = ear.next("asks").await else {
            unreachable!("it is one that asks");
        };
        times.push(asked.claims().time);
    }
    times.sort_unstable();
    // As many at once as leave in a second, and a quarter of a second for each that comes then. Each is dated when it
    // leaves, or later.
    for (at, time) in (0..).zip(&times).skip(per_second as usize) {
        let at: u64 = at - u64::from(per_second) + 1;
        // The pace has another clock.
        let slack = 20;
        assert!(
            time.after(slack) >= begun.after(at * 1_000 / 4),
            "{begun:?} {times:?}"
        );
    }
    asks.iter().for_each(tokio::task::JoinHandle::abort);
}

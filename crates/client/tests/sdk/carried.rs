//! Envelopes that the caller carries: sealed and opened here, brought over a connection of its own.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use sealcast::{
    AnswerOptions, Arrival, Carried, DataTopic, Error, Ground, Home, Opener, OpenerOptions,
    Position, Roles, Sharing, State, Stream, StreamOptions,
};
use tokio::time::timeout;

use crate::rig::*;

mod at_once;
mod hostile;

/// For what must come.
const PATIENCE: Duration = Duration::from_secs(120);

fn plant(number: usize) -> DataTopic {
    format!("plant/{number}/t").parse().unwrap()
}

/// What travels on the caller's connection.
pub(crate) type Brought = (Option<DataTopic>, Vec<u8>);

async fn seal(stream: &Stream, topic: Option<&DataTopic>, text: &str) -> Brought {
    let sealed = stream.seal(topic, text.as_bytes()).await.unwrap();
    (topic.cloned(), sealed.envelope)
}

async fn open(opener: &mut Opener, (topic, envelope): &Brought, arrival: Arrival) -> Carried {
    let told = opener.open(topic.as_ref(), envelope, arrival).await;
    told.unwrap()
}

fn lines_of(told: &Carried) -> Vec<String> {
    told.deliveries.iter().map(line).collect()
}

async fn live(opener: &mut Opener, brought: &Brought) -> Vec<String> {
    lines_of(&open(opener, brought, Arrival::Live).await)
}

async fn kept(opener: &mut Opener, brought: &Brought) -> Vec<String> {
    lines_of(&open(opener, brought, Arrival::Kept).await)
}

/// What is told in the end of something that may open later.
pub(crate) async fn in_the_end(opener: &mut Opener, brought: &Brought) -> Vec<String> {
    let told = async {
        loop {
            let told = open(opener, brought, Arrival::Live).await;
            if !told.may_open_later {
                return lines_of(&told);
            }
            opener.changed().await;
        }
    };
    let told = timeout(PATIENCE, told).await;
    told.expect("what lacks a key is told again when it has come")
}

async fn pair(rig: &Rig) -> (Home, Stream, Home, Stream) {
    let [alice, bob] = rig.homes(["alice", "bob"]).await;
    let (stream, joined) = kitchen_with(&alice, &bob).await;
    (alice, stream, bob, joined)
}

#[tokio::test]
async fn what_one_home_seals_another_opens_and_nothing_of_it_is_on_the_bus() {
    let rig = Rig::small();
    let (_, stream, _, joined) = pair(&rig).await;
    let (wire, mut come) = tokio::sync::mpsc::channel(1);
    let sent = texts("m", 20);
    let carrier = tokio::spawn({
        let sent = sent.clone();
        async move {
            for (i, text) in sent.iter().enumerate() {
                let topic = (i % 3 != 0).then(|| plant(i % 3));
                let sealed = seal(&stream, topic.as_ref(), text).await;
                wire.send(sealed).await.unwrap();
                if i % 7 == 6 {
                    // The next one may be here before the record of its session.
                    stream.rekey().await.unwrap();
                }
            }
            stream
        }
    });
    let mut opener = joined.opener().await.unwrap();
    let mut opened = Vec::new();
    while let Some(brought) = come.recv().await {
        let told = open(&mut opener, &brought, Arrival::Live).await;
        assert_eq!(told.deliveries.len(), 1);
        assert_eq!(told.deliveries[0].topic, brought.0);
        assert!(!told.may_open_later);
        opened.extend(lines_of(&told));
    }
    assert_eq!(opened, sent);
    let stream = carrier.await.unwrap();
    assert!(rig.data(&stream).await.is_empty());
}

#[tokio::test]
async fn what_lacks_a_grant_opens_when_it_has_come_each_once() {
    let rig = Rig::small();
    let [alice, bob] = rig.homes(["alice", "bob"]).await;
    let stream = kitchen(&alice).await;
    let joined = join(&bob, &stream).await;
    let mut opener = joined.opener().await.unwrap();
    let sent = texts("m", 5);
    let mut parked = Vec::new();
    for text in &sent {
        let brought = seal(&stream, Some(&plant(7)), text).await;
        let told = open(&mut opener, &brought, Arrival::Live).await;
        assert_eq!(lines_of(&told), ["Sealed(NotGranted)"]);
        assert!(told.may_open_later);
        parked.push(brought);
    }
    stream.grant(all_to(bob.user())).await.unwrap();
    for (brought, text) in parked.iter().zip(&sent) {
        assert_eq!(in_the_end(&mut opener, brought).await, [text.as_str()]);
    }
    for brought in &parked {
        assert_eq!(live(&mut opener, brought).await, ["Replay"]);
    }
}

#[tokio::test]
async fn keys_that_the_log_gives_are_asked_for() {
    let rig = Rig::small();
    let [alice, bob] = rig.homes(["alice", "bob"]).await;
    let options = StreamOptions {
        sharing: Sharing::OnRequest,
        ..StreamOptions::default()
    };
    let stream = alice.create_stream(&name("kitchen"), options).await;
    let stream = stream.unwrap();
    stream.grant(all_to(bob.user())).await.unwrap();
    let joined = join(&bob, &stream).await;
    let _answering = stream.answer(AnswerOptions::default()).await.unwrap();
    let mut opener = joined.opener().await.unwrap();
    let brought = seal(&stream, Some(&plant(7)), "asked for").await;
    assert_eq!(in_the_end(&mut opener, &brought).await, ["asked for"]);
}

/// fault 20
#[tokio::test]
async fn a_replay_is_told_and_what_is_kept_is_none() {
    let rig = Rig::small();
    let (_, stream, _, joined) = pair(&rig).await;
    let mut opener = joined.opener().await.unwrap();
    let one = seal(&stream, Some(&plant(7)), "one").await;
    assert_eq!(kept(&mut opener, &one).await, ["one"]);
    assert_eq!(live(&mut opener, &one).await, ["one"]);
    assert_eq!(live(&mut opener, &one).await, ["Replay"]);
    for _ in 0..2 {
        assert_eq!(kept(&mut opener, &one).await, ["one"]);
    }
    assert_eq!(live(&mut opener, &one).await, ["Replay"]);
    // Another connection has another memory.
    let mut other = joined.opener().await.unwrap();
    assert_eq!(live(&mut other, &one).await, ["one"]);
}

#[tokio::test]
async fn what_is_older_than_an_opener_takes_is_a_replay_unless_it_is_kept() {
    let (rig, time) = (Rig::small(), Time::new());
    let [alice, bob] = rig.homes_by(["alice", "bob"], &time).await;
    let (stream, joined) = kitchen_with(&alice, &bob).await;
    let old = seal(&stream, None, "old").await;
    time.pass(10 * 60_000 + 1);
    let new = seal(&stream, None, "new").await;
    let mut opener = joined.opener().await.unwrap();
    assert_eq!(live(&mut opener, &new).await, ["new"]);
    assert_eq!(live(&mut opener, &old).await, ["Replay"]);
    assert_eq!(kept(&mut opener, &old).await, ["old"]);
    let from = Some(Position::START);
    let options = OpenerOptions { from };
    let mut opener = joined.opener_with(options).await.unwrap();
    assert_eq!(live(&mut opener, &new).await, ["new"]);
    assert_eq!(live(&mut opener, &old).await, ["old"]);
}

/// fault 4
#[tokio::test]
async fn an_envelope_on_another_topic_or_of_another_stream_is_rejected() {
    let rig = Rig::small();
    let (alice, stream, _, joined) = pair(&rig).await;
    let mut opener = joined.opener().await.unwrap();
    let (_, envelope) = seal(&stream, Some(&plant(7)), "seven").await;
    let (_, bare) = seal(&stream, None, "bare").await;
    let (cellar, options) = (name("cellar"), StreamOptions::default());
    let cellar = alice.create_stream(&cellar, options).await.unwrap();
    let (_, other) = seal(&cellar, None, "other").await;
    for moved in [
        (Some(plant(8)), envelope.clone()),
        (None, envelope.clone()),
        (Some(plant(7)), bare),
        (None, other),
    ] {
        let told = open(&mut opener, &moved, Arrival::Live).await;
        assert_eq!(lines_of(&told), ["Rejected(BadSignature)"]);
        assert!(!told.may_open_later);
    }
    let item = plant(7).item(&envelope);
    for topic in [None, Some(plant(7))] {
        let told = live(&mut opener, &(topic, item.clone())).await;
        assert_eq!(told, ["Rejected(Malformed)"]);
    }
    let told = live(&mut opener, &(Some(plant(7)), envelope)).await;
    assert_eq!(told, ["seven"]);
}

/// Faults 7 and 17: whatever comes is told, is not opened, and keeps nothing else from opening.
#[tokio::test]
async fn garbage_is_told_and_what_comes_next_opens() {
    let rig = Rig::small();
    let (_, stream, _, joined) = pair(&rig).await;
    let mut opener = joined.opener().await.unwrap();
    let (topic, envelope) = seal(&stream, Some(&plant(7)), "whole").await;
    let cut = (0..envelope.len()).map(|len| envelope[..len].to_vec());
    let bent = (0..envelope.len()).map(|at| {
        let mut bent = envelope.clone();
        bent[at] ^= 1;
        bent
    });
    let longer = [envelope.clone(), vec![0]].concat();
    let plain = [b"21.5 C".to_vec(), Vec::new(), vec![0xff; 4096], longer];
    for garbage in cut.chain(bent).chain(plain) {
        let told = live(&mut opener, &(topic.clone(), garbage)).await;
        assert_eq!(told.len(), 1);
        assert!(told[0].starts_with("Rejected("), "{told:?}");
    }
    assert_eq!(live(&mut opener, &(topic, envelope)).await, ["whole"]);
}

/// Of what a revoked publisher sealed, that opens which was accepted before.
#[tokio::test]
async fn what_a_revoked_publisher_sealed_opens_up_to_what_was_accepted_from_it() {
    let rig = Rig::small();
    let [alice, bob, carol] = rig.homes(["alice", "bob", "carol"]).await;
    let (stream, joined) = kitchen_with(&alice, &bob).await;
    let hers = join(&carol, &stream).await;
    let publisher = to(carol.user(), Roles::PUBLISHER, sealcast::Interval::ALL);
    stream.grant(publisher).await.unwrap();
    hers.sync().await.unwrap();
    hers.publish_on(&plant(7), b"on the bus").await.unwrap();
    let item = rig.data(&stream).await.remove(0);
    let on_bus = item[plant(7).overhead()..].to_vec();
    let on_bus = (Some(plant(7)), on_bus);
    let later = seal(&hers, Some(&plant(7)), "later").await;
    let mut opener = joined.opener().await.unwrap();
    assert_eq!(in_the_end(&mut opener, &on_bus).await, ["on the bus"]);

    stream.revoke_user(carol.user()).await.unwrap();
    let told = async {
        loop {
            let told = open(&mut opener, &later, Arrival::Kept).await;
            if lines_of(&told) != ["later"] {
                return told;
            }
            opener.changed().await;
        }
    };
    let told = timeout(PATIENCE, told).await;
    let told = told.expect("the revocation is noticed");
    assert_eq!(lines_of(&told), ["Rejected(AfterRevocation)"]);
    assert!(!told.may_open_later);
    assert_eq!(kept(&mut opener, &on_bus).await, ["on the bus"]);
    let mut another = joined.opener().await.unwrap();
    assert_eq!(live(&mut another, &on_bus).await, ["on the bus"]);
    hers.sync().await.unwrap();
    let refused = hers.seal(Some(&plant(7)), b"no more").await;
    assert!(matches!(refused, Err(Error::NotAllowed(_))));
}

#[tokio::test]
async fn a_sealed_message_that_nobody_carries_is_a_gap() {
    let rig = Rig::small();
    let (_, stream, _, joined) = pair(&rig).await;
    say(&stream, "one").await;
    drop(stream.seal(None, b"lost").await.unwrap());
    say(&stream, "two").await;
    assert_eq!(history(&joined).await, ["one", "two", "Gap(1)"]);
    // Nor does anybody carry what was given up.
    tokio::select! {
        biased;
        _ = stream.seal(None, b"given up") => panic!("it was sealed without waiting"),
        () = std::future::ready(()) => {}
    }
    say(&stream, "three").await;
    let told = ["one", "two", "three", "Gap(1)", "Gap(1)"];
    assert_eq!(history(&joined).await, told);
}

#[tokio::test]
async fn what_is_carried_to_the_data_topic_is_followed_as_if_published() {
    let rig = Rig::small();
    let (_, stream, _, joined) = pair(&rig).await;
    let mut live = joined.subscribe(None).await.unwrap();
    say(&stream, "published").await;
    let sealed = seal(&stream, Some(&plant(7)), "carried").await.1;
    rig.inject(&stream, &plant(7).item(&sealed)).await;
    let sealed = seal(&stream, None, "bare").await.1;
    rig.inject(&stream, &sealed).await;
    say(&stream, "published again").await;
    let told = ["published", "carried", "bare", "published again"];
    assert_eq!(next(&mut live, 4).await, told);
    let all = deliveries(&joined).await;
    assert_eq!(all[1].topic, Some(plant(7)));
}

#[tokio::test]
async fn a_frame_that_is_carried_opens_to_all_its_records() {
    let rig = Rig::small();
    let (_, stream, _, joined) = pair(&rig).await;
    let mut publisher = stream.publisher_on(&plant(7)).await.unwrap();
    let sent = texts("record ", 100);
    for text in &sent {
        publisher.send(text.as_bytes()).await.unwrap();
    }
    publisher.finish().await.unwrap();
    let mut opener = joined.opener().await.unwrap();
    let mut opened = Vec::new();
    for item in rig.data(&stream).await {
        let envelope = item[plant(7).overhead()..].to_vec();
        opened.extend(live(&mut opener, &(Some(plant(7)), envelope)).await);
    }
    assert_eq!(opened, sent);
}

#[tokio::test]
async fn many_seal_at_once_on_many_topics_in_one_order_and_in_few_transactions() {
    let rig = Rig::small();
    let (alice, stream, _, joined) = pair(&rig).await;
    say(&stream, "first").await;
    drop((alice, stream));
    let transactions = Arc::new(AtomicUsize::new(0));
    let count = transactions.clone();
    let ground = Gated::over(Ground::default(), move || {
        count.fetch_add(1, Ordering::SeqCst);
        true
    });
    let stream = crate::rig::open(&rig.on("alice", ground).await).await;
    drop(stream.seal(None, b"second").await.unwrap());
    let before = transactions.load(Ordering::SeqCst);
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..100 {
        let stream = stream.clone();
        tasks.spawn(async move {
            let topic = (i % 5 > 0).then(|| plant(i));
            seal(&stream, topic.as_ref(), &i.to_string()).await
        });
    }
    let all = tasks.join_all().await;
    assert!(transactions.load(Ordering::SeqCst) - before < 20);
    let mut numbers: Vec<_> = all.iter().map(|of| number(&of.1)).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=100).collect::<Vec<_>>());
    let mut opener = joined.opener().await.unwrap();
    for brought in &all {
        let told = open(&mut opener, brought, Arrival::Live).await;
        assert_eq!(told.deliveries[0].state, State::Opened, "{told:?}");
    }
}

fn number(envelope: &[u8]) -> u32 {
    let envelope = sealcast_protocol::EnvelopeView::parse(envelope);
    envelope.unwrap().header().seq
}

#[tokio::test]
async fn several_are_sealed_in_their_order_or_none() {
    let rig = Rig::small();
    let (_, stream, _, joined) = pair(&rig).await;
    let topics = [plant(1), plant(2)];
    let of = |i: usize| topics.get(i % 3);
    let sent = texts("m", 12);
    let all = sent.iter().enumerate();
    let all: Vec<_> = all.map(|(i, text)| (of(i), text.as_bytes())).collect();
    let sealed = stream.seal_all(&all).await.unwrap();
    let mut opener = joined.opener().await.unwrap();
    for (i, (sealed, text)) in sealed.into_iter().zip(&sent).enumerate() {
        assert_eq!(number(&sealed.envelope), i as u32);
        let brought = (of(i).cloned(), sealed.envelope);
        assert_eq!(live(&mut opener, &brought).await, [text.as_str()]);
    }
    let long = vec![7; (16 << 20) + (64 << 10) + 1];
    let refused = stream.seal_all(&[(None, b"short"), (None, &long)]).await;
    assert!(matches!(refused, Err(Error::TooLarge { .. })));
    let refused = stream.seal(None, &long).await;
    assert!(matches!(refused, Err(Error::TooLarge { .. })));
    assert_eq!(stream.seal_all(&[]).await.unwrap(), []);
    assert_eq!(number(&seal(&stream, None, "next").await.1), 12);
    let longest = stream.seal(None, &long[1..]).await.unwrap();
    let told = live(&mut opener, &(None, longest.envelope)).await;
    assert_eq!(told[0].len(), long.len() - 1);
}

/// A transaction that fails seals nothing, and what is sealed next has numbers of its own.
#[tokio::test]
async fn where_the_store_fails_nothing_is_sealed_and_no_number_is_used_twice() {
    let rig = Rig::small();
    let (alice, stream, _, joined) = pair(&rig).await;
    drop((alice, stream));
    let may_succeed = Arc::new(AtomicBool::new(true));
    let gate = may_succeed.clone();
    let ground = Gated::over(Ground::default(), move || gate.load(Ordering::SeqCst));
    let stream = crate::rig::open(&rig.on("alice", ground).await).await;
    let before = seal(&stream, Some(&plant(1)), "before").await;
    may_succeed.store(false, Ordering::SeqCst);
    let (one, two) = (plant(1), plant(2));
    let all = [(Some(&one), &b"a"[..]), (Some(&two), b"b"), (None, b"c")];
    for _ in 0..2 {
        let failed = stream.seal_all(&all).await;
        assert!(matches!(failed, Err(Error::Store(_))));
        let failed = stream.seal(Some(&one), b"d").await;
        assert!(matches!(failed, Err(Error::Store(_))));
    }
    may_succeed.store(true, Ordering::SeqCst);
    let after = seal(&stream, Some(&plant(1)), "after").await;
    let mut opener = joined.opener().await.unwrap();
    assert_eq!(live(&mut opener, &after).await, ["after"]);
    assert_eq!(live(&mut opener, &before).await, ["before"]);
    // Nothing was sealed in between.
    for brought in [&before, &after] {
        rig.inject(&stream, &plant(1).item(&brought.1)).await;
    }
    assert_eq!(history(&joined).await, ["before", "after"]);
}

#[tokio::test]
async fn two_handles_seal_at_once_and_what_they_sealed_opens() {
    let rig = Rig::small();
    let (_, stream, _, joined) = pair(&rig).await;
    let other = crate::rig::open(&rig.again("alice").await).await;
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..60 {
        let stream = [&stream, &other][i % 2].clone();
        tasks.spawn(async move { seal(&stream, Some(&plant(i)), &i.to_string()).await });
    }
    let mut openers = [
        joined.opener().await.unwrap(),
        crate::rig::open(&rig.again("bob").await)
            .await
            .opener()
            .await
            .unwrap(),
    ];
    for brought in tasks.join_all().await {
        for opener in &mut openers {
            let told = in_the_end(opener, &brought).await;
            assert_eq!(
                plant(told[0].parse().unwrap()),
                *brought.0.as_ref().unwrap()
            );
        }
    }
}

/// A bus that can be taken away.
fn away() -> (Arc<AtomicBool>, Ground) {
    let is_away = Arc::new(AtomicBool::new(false));
    let of = is_away.clone();
    let ground = Meddler::ground(move |_, _| match of.load(Ordering::SeqCst) {
        true => Manner::Fail,
        false => Manner::Honest,
    });
    (is_away, ground)
}

#[tokio::test]
async fn while_the_bus_is_away_what_is_known_opens_and_the_rest_when_it_is_back() {
    let rig = Rig::small();
    let (_, stream, bob, joined) = pair(&rig).await;
    let carol = rig.home("carol").await;
    drop((bob, joined));
    let known = seal(&stream, Some(&plant(7)), "known").await;
    let (is_away, ground) = away();
    let joined = crate::rig::open(&rig.on("bob", ground).await).await;
    let mut opener = joined.opener().await.unwrap();
    is_away.store(true, Ordering::SeqCst);
    stream.rekey().await.unwrap();
    let unknown = seal(&stream, Some(&plant(7)), "unknown").await;
    let hers = join(&carol, &stream).await;
    let publisher = to(carol.user(), Roles::PUBLISHER, sealcast::Interval::ALL);
    stream.grant(publisher).await.unwrap();
    let strange = seal(&hers, Some(&plant(7)), "strange").await;
    let garbage = (Some(plant(7)), b"21.5 C".to_vec());
    for _ in 0..20 {
        let told = open(&mut opener, &unknown, Arrival::Live).await;
        assert_eq!(lines_of(&told), ["Rejected(UnknownSession)"]);
        assert!(told.may_open_later && told.is_signed);
        let told = open(&mut opener, &strange, Arrival::Live).await;
        assert_eq!(lines_of(&told), ["Rejected(UnknownSender)"]);
        assert!(told.may_open_later && !told.is_signed);
        let told = open(&mut opener, &garbage, Arrival::Live).await;
        assert!(!told.may_open_later);
    }
    assert_eq!(live(&mut opener, &known).await, ["known"]);
    is_away.store(false, Ordering::SeqCst);
    assert_eq!(in_the_end(&mut opener, &unknown).await, ["unknown"]);
    assert_eq!(in_the_end(&mut opener, &strange).await, ["strange"]);
}

#[tokio::test]
async fn nothing_is_sealed_while_the_log_cannot_be_read() {
    let (rig, time) = (Rig::small(), Time::new());
    drop(rig.home("alice").await);
    let (is_away, ground) = away();
    let ground = Ground {
        clock: time.ground().clock,
        ..ground
    };
    let stream = kitchen(&rig.on("alice", ground).await).await;
    seal(&stream, None, "one").await;
    is_away.store(true, Ordering::SeqCst);
    time.pass(6_000);
    let failed = stream.seal(None, b"two").await;
    assert!(matches!(failed, Err(Error::Bus(_))));
    is_away.store(false, Ordering::SeqCst);
    assert_eq!(number(&seal(&stream, None, "three").await.1), 1);
}

/// What the bus did not take of what was published does not keep others from carrying theirs.
#[tokio::test]
async fn what_waits_for_the_bus_holds_up_nothing_that_is_carried() {
    let rig = Rig::small();
    let (alice, stream, _, joined) = pair(&rig).await;
    say(&stream, "first").await;
    drop((alice, stream));
    let is_full = Arc::new(AtomicBool::new(false));
    let of = is_full.clone();
    let ground = Meddler::ground(move |ask, topic| {
        let is_data = ask == Ask::Append && topic.ends_with("/data");
        match is_data && of.load(Ordering::SeqCst) {
            true => Manner::Full,
            false => Manner::Honest,
        }
    });
    let stream = crate::rig::open(&rig.on("alice", ground).await).await;
    is_full.store(true, Ordering::SeqCst);
    assert!(stream.publish(b"waits").await.is_err());
    let brought = seal(&stream, None, "carried").await;
    let mut opener = joined.opener().await.unwrap();
    assert_eq!(live(&mut opener, &brought).await, ["carried"]);
    is_full.store(false, Ordering::SeqCst);
    say(&stream, "last").await;
    assert_eq!(history(&joined).await, ["first", "waits", "last", "Gap(1)"]);
}

/// Looks at something so often again, at most, and gives it up then.
async fn polled<T>(times: usize, work: impl Future<Output = T>) -> Option<T> {
    let (mut work, mut left) = (pin!(work), times);
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending if left == 0 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_opener_that_is_given_up_midway_loses_nothing() {
    let rig = Rig::small();
    let (_, stream, _, joined) = pair(&rig).await;
    let mut opener = joined.opener().await.unwrap();
    let mut given_up = 0;
    for (i, text) in texts("m", 40).iter().enumerate() {
        let brought = seal(&stream, Some(&plant(i)), text).await;
        let told = loop {
            let opening = opener.open(brought.0.as_ref(), &brought.1, Arrival::Live);
            match polled(given_up % 4, opening).await {
                Some(told) => break told.unwrap(),
                None => given_up += 1,
            }
        };
        let told = match told.may_open_later {
            true => in_the_end(&mut opener, &brought).await,
            false => lines_of(&told),
        };
        assert_eq!(told, [text.as_str()]);
        if i % 10 == 5 {
            stream.rekey().await.unwrap();
        }
    }
    assert!(given_up > 0);
}

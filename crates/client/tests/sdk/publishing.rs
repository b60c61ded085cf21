//! Publishing: limits, order, abandoned calls, failing buses, sessions.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sealcast::{DataTopic, Error, Interval, Position, Roles, State, Stream};
use sealcast_bus::BusError;
use tokio::time::timeout;

use crate::rig::*;

#[tokio::test]
async fn payloads_from_nothing_to_16_mib_arrive_and_longer_ones_are_refused_unsent() {
    let rig = Rig::new();
    let stream = kitchen(&rig.home("alice").await).await;
    let long = vec![7; 16 << 20];
    stream.publish(b"").await.unwrap();
    stream.publish(&long).await.unwrap();
    let mut publisher = stream.publisher().await.unwrap();
    for payload in [&b""[..], b"short", &long, b"last"] {
        publisher.send(payload).await.unwrap();
    }
    let too_long = vec![7; (16 << 20) + (64 << 10) + 1];
    let refused = publisher.send(&too_long).await;
    assert!(matches!(refused, Err(Error::TooLarge { limit, .. }) if limit == too_long.len() - 1));
    assert_eq!(publisher.finish().await.unwrap().records, 4);

    let envelopes = rig.data(&stream).await.len();
    assert!(matches!(
        stream.publish(&too_long).await,
        Err(Error::TooLarge { .. })
    ));
    let mut backfill = stream.backfill().await.unwrap();
    let refused = backfill.send(Position(5), &too_long).await;
    assert!(matches!(refused, Err(Error::TooLarge { .. })));
    assert_eq!(rig.data(&stream).await.len(), envelopes);
    let lengths: Vec<_> = deliveries(&stream).await;
    let lengths: Vec<_> = lengths
        .iter()
        .map(|of| of.payload.as_ref().unwrap().len())
        .collect();
    assert_eq!(lengths, [0, 16 << 20, 0, 5, 16 << 20, 4]);
}

#[tokio::test]
async fn twenty_thousand_records_arrive_in_order_with_times_of_their_own() {
    let rig = Rig::new();
    let stream = kitchen(&rig.home("alice").await).await;
    let mut publisher = stream.publisher().await.unwrap();
    let sent = texts("record ", 20_000);
    for text in &sent {
        publisher.send(text.as_bytes()).await.unwrap();
    }
    publisher.flush().await.unwrap();
    assert_eq!(publisher.stored(), 20_000);
    let done = publisher.finish().await.unwrap();
    assert_eq!(done.records, 20_000);
    assert!(done.envelopes < 2_000);
    let all = deliveries(&stream).await;
    assert_eq!(all.iter().map(line).collect::<Vec<_>>(), sent);
    assert!(all.is_sorted_by_key(|of| of.time));
}

/// What is lent is what would have been delivered next, and nothing else is lent.
#[tokio::test]
async fn records_are_lent_in_their_place_between_those_that_are_delivered() {
    let rig = Rig::new();
    let stream = kitchen(&rig.home("alice").await).await;
    for frame in 0..3 {
        let mut publisher = stream.publisher().await.unwrap();
        for text in texts(&format!("{frame}/"), 100) {
            publisher.send(text.as_bytes()).await.unwrap();
        }
        publisher.finish().await.unwrap();
    }
    let first = rig.data(&stream).await[0].clone();
    rig.inject(&stream, b"no envelope").await;
    rig.inject(&stream, &first).await;
    say(&stream, "last").await;

    let all = deliveries(&stream).await;
    let mut reader = stream.read(Interval::ALL).await.unwrap();
    assert!(reader.lend().is_none());
    let (mut told, mut lent) = (Vec::new(), 0);
    while let Some(delivery) = reader.next().await.unwrap() {
        told.push(delivery);
        while let Some(record) = reader.lend() {
            let copy = record.to_delivery();
            assert_eq!(copy.payload.as_deref(), Some(record.payload()));
            assert!(!format!("{record:?}").contains("0/1"));
            told.push(copy);
            lent += 1;
        }
    }
    assert_eq!(told, all);
    assert!(lent >= 3 * 99, "{lent}");
    let states: Vec<_> = all[300..].iter().map(|of| of.state).collect();
    assert_eq!(states, [State::Rejected, State::Replay, State::Opened]);
}

#[tokio::test]
async fn many_tasks_publish_on_one_stream_in_one_order() {
    let rig = Rig::new();
    let stream = kitchen(&rig.home("alice").await).await;
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..40 {
        let stream = stream.clone();
        tasks.spawn(async move { say(&stream, &i.to_string()).await });
    }
    while tasks.join_next().await.is_some() {}
    let headers = rig.headers(&stream).await;
    let numbers: Vec<_> = headers.iter().map(|of| of.seq).collect();
    assert_eq!(numbers, (0..40).collect::<Vec<_>>());
    assert!(headers.is_sorted_by_key(|of| of.position));
    assert!(
        deliveries(&stream)
            .await
            .iter()
            .all(|of| of.state == State::Opened)
    );
}

#[tokio::test]
async fn messages_of_several_topics_that_are_published_at_once_come_once_each_on_its_own() {
    let rig = Rig::new();
    let stream = kitchen(&rig.home("alice").await).await;
    let topics: Vec<DataTopic> = ["plant/1", "plant/2"].map(|of| of.parse().unwrap()).into();
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..120 {
        let (stream, topic) = (stream.clone(), topics.get(i % 3).cloned());
        tasks.spawn(async move {
            let text = i.to_string();
            let done = match topic {
                Some(topic) => stream.publish_on(&topic, text.as_bytes()).await,
                None => stream.publish(text.as_bytes()).await,
            };
            let done = done.unwrap();
            (done.records, done.envelopes)
        });
    }
    while let Some(done) = tasks.join_next().await {
        assert_eq!(done.unwrap(), (1, 1));
    }
    let all = deliveries(&stream).await;
    let came: BTreeSet<_> = all.iter().map(|of| (line(of), of.topic.clone())).collect();
    let sent = (0..120).map(|i| (i.to_string(), topics.get(i % 3).cloned()));
    assert_eq!((came, all.len()), (sent.collect(), 120));
}

#[tokio::test]
async fn of_messages_that_are_published_at_once_each_hears_what_became_of_itself() {
    let rig = Rig::new();
    let stream = kitchen(&rig.home("alice").await).await;
    say(&stream, "before").await;
    let joined = join(&rig.home("bob").await, &stream).await;
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..20 {
        let stream = joined.clone();
        tasks.spawn(async move { stream.publish(i.to_string().as_bytes()).await });
    }
    while let Some(done) = tasks.join_next().await {
        assert!(matches!(done.unwrap(), Err(Error::NotAllowed(_))));
    }
    assert_eq!(history(&stream).await, ["before"]);
}

#[tokio::test]
async fn an_abandoned_publish_arrives_and_leaves_no_gap() {
    let rig = Rig::new();
    let stream = kitchen(&rig.home("alice").await).await;
    for text in ["one", "two", "three"] {
        let abandoned = timeout(Duration::ZERO, stream.publish(text.as_bytes()));
        assert!(abandoned.await.is_err());
    }
    say(&stream, "four").await;
    assert_eq!(history(&stream).await, ["one", "two", "three", "four"]);
}

#[tokio::test]
async fn an_abandoned_send_took_nothing_and_a_dropped_publisher_publishes_what_it_took() {
    let rig = Rig::new();
    let stream = kitchen(&rig.home("alice").await).await;
    let mut publisher = stream.publisher().await.unwrap();
    let (megabyte, mut taken) = (vec![1; 1 << 20], 0);
    for _ in 0..64 {
        let sent = timeout(Duration::ZERO, publisher.send(&megabyte)).await;
        taken += usize::from(sent.is_ok());
    }
    assert!((3..64).contains(&taken), "{taken}");
    publisher.flush().await.unwrap();
    publisher.send(b"last").await.unwrap();
    drop(publisher);
    let mut live = stream.subscribe(Some(Position::START)).await.unwrap();
    for _ in 0..taken {
        assert_eq!(
            live.next().await.unwrap().payload.as_deref(),
            Some(&*megabyte)
        );
    }
    assert_eq!(next(&mut live, 1).await, ["last"]);
}

#[tokio::test]
async fn a_publisher_whose_bus_fails_says_so_at_its_end() {
    let rig = Rig::new();
    drop(kitchen(&rig.home("alice").await).await);
    let is_down = Arc::new(AtomicBool::new(false));
    let down = is_down.clone();
    let ground = Meddler::ground(move |ask, topic| {
        match down.load(Ordering::SeqCst) && ask == Ask::Append && topic.ends_with("/data") {
            true => Manner::Fail,
            false => Manner::Honest,
        }
    });
    let stream = rig
        .on("alice", ground)
        .await
        .stream(&name("kitchen"))
        .await
        .unwrap();
    let mut publisher = stream.publisher().await.unwrap();
    publisher.send(b"one").await.unwrap();
    publisher.flush().await.unwrap();
    let soon = timeout(Duration::from_millis(50), publisher.ended());
    assert!(soon.await.is_err());
    is_down.store(true, Ordering::SeqCst);
    publisher.send(b"two").await.unwrap();
    publisher.ended().await;
    assert!(matches!(
        publisher.flush().await,
        Err(Error::PublisherEnded)
    ));
    assert!(matches!(
        publisher.send(b"three").await,
        Err(Error::PublisherEnded)
    ));
    assert_eq!(publisher.stored(), 1);
    assert!(matches!(publisher.finish().await, Err(Error::Bus(_))));

    let mut backfill = stream.backfill().await.unwrap();
    for i in 0..2_047 {
        backfill.send(Position(i), b"old").await.unwrap();
    }
    let failed = backfill.send(Position(2_047), b"old").await;
    assert!(matches!(failed, Err(Error::Bus(_))));
    let ended = backfill.send(Position(2_048), b"old").await;
    assert!(matches!(ended, Err(Error::PublisherEnded)));
    assert!(matches!(
        backfill.finish().await,
        Err(Error::PublisherEnded)
    ));
    assert!(matches!(stream.publish(b"four").await, Err(Error::Bus(_))));
    is_down.store(false, Ordering::SeqCst);
    say(&stream, "five").await;
    // What was sealed when the bus failed leaves before the next.
    assert_eq!(history(&stream).await, ["one", "two", "five"]);
}

/// A kitchen of alice's whose data topic takes appends in the manner that is set.
async fn kitchen_on_a_whim(rig: &Rig) -> (Stream, Arc<Mutex<Manner>>) {
    drop(kitchen(&rig.home("alice").await).await);
    let whim = Arc::new(Mutex::new(Manner::Honest));
    let manner = whim.clone();
    let ground =
        Meddler::ground(
            move |ask, topic| match ask == Ask::Append && topic.ends_with("/data") {
                true => *manner.lock().unwrap(),
                false => Manner::Honest,
            },
        );
    (open(&rig.on("alice", ground).await).await, whim)
}

#[tokio::test]
async fn what_the_bus_refuses_for_good_fails_alone_and_is_told_as_a_gap() {
    let rig = Rig::small();
    let (stream, whim) = kitchen_on_a_whim(&rig).await;
    say(&stream, "before").await;
    *whim.lock().unwrap() = Manner::Shrunk(1_000);
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..20 {
        let stream = stream.clone();
        let payload = match i {
            7 => vec![b'7'; 2_000],
            _ => i.to_string().into_bytes(),
        };
        tasks.spawn(async move { (i, stream.publish(&payload).await) });
    }
    while let Some(done) = tasks.join_next().await {
        let (i, done) = done.unwrap();
        match i {
            7 => assert!(matches!(
                done,
                Err(Error::Bus(BusError::TooLarge { limit: 1_000, .. }))
            )),
            _ => assert_eq!(done.unwrap().envelopes, 1),
        }
    }
    say(&stream, "behind").await;
    let mut lines = history(&stream).await;
    assert_eq!(lines.remove(lines.len() - 2), "behind");
    let came: BTreeSet<_> = lines.iter().map(String::as_str).collect();
    let numbers: Vec<_> = (0..20).map(|i| i.to_string()).collect();
    let others = numbers.iter().map(String::as_str).filter(|of| *of != "7");
    assert_eq!(came, others.chain(["before", "Gap(1)"]).collect());
    // Nothing came twice, and the number of what was left out was not used again.
    assert_eq!(lines.len(), 21);
    let numbers: Vec<_> = rig.headers(&stream).await.iter().map(|of| of.seq).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b));
    assert_eq!(numbers.last(), Some(&21));
}

#[tokio::test]
async fn what_failed_while_the_bus_was_full_and_is_refused_later_holds_nothing_up() {
    let rig = Rig::small();
    let (stream, whim) = kitchen_on_a_whim(&rig).await;
    let long = vec![b'x'; 2_000];
    for (payload, later, text) in [
        (&b"one"[..], Manner::Honest, "two"),
        (&long, Manner::Shrunk(1_000), "four"),
    ] {
        *whim.lock().unwrap() = Manner::Full;
        let failed = stream.publish(payload).await;
        assert!(matches!(failed, Err(Error::Bus(BusError::Full { .. }))));
        *whim.lock().unwrap() = later;
        say(&stream, text).await;
    }
    // What was sealed when the bus was full leaves, but what it does not take any more.
    let lines = ["one", "two", "four", "Gap(1)"];
    assert_eq!(history(&stream).await, lines);
}

#[tokio::test]
async fn what_the_bus_loses_is_told_as_a_gap() {
    let rig = Rig::new();
    drop(kitchen(&rig.home("alice").await).await);
    let mut appends = 0;
    let ground = Meddler::ground(move |ask, topic| {
        let is_data = ask == Ask::Append && topic.ends_with("/data");
        appends += usize::from(is_data);
        match is_data && appends == 2 {
            true => Manner::Lose,
            false => Manner::Honest,
        }
    });
    let stream = rig
        .on("alice", ground)
        .await
        .stream(&name("kitchen"))
        .await
        .unwrap();
    for text in ["one", "two", "three"] {
        say(&stream, text).await;
    }
    assert_eq!(history(&stream).await, ["one", "three", "Gap(1)"]);
}

#[tokio::test]
async fn a_session_is_replaced_when_its_time_is_over_and_readers_follow() {
    let (rig, time) = (Rig::new(), Time::new());
    let (alice, bob) = (
        rig.home_by("alice", &time).await,
        rig.home_by("bob", &time).await,
    );
    let stream = kitchen(&alice).await;
    let joined = join(&bob, &stream).await;
    stream.grant(all_to(bob.user())).await.unwrap();
    stream.set_rekey_every(60_000).await.unwrap();
    for (ms, text) in [
        (0, "one"),
        (59_999, "two"),
        (1, "three"),
        (59_999, "four"),
        (1, "five"),
    ] {
        time.pass(ms);
        say(&stream, text).await;
    }
    let sessions: Vec<_> = rig
        .headers(&stream)
        .await
        .iter()
        .map(|of| of.session)
        .collect();
    assert_eq!(sessions[0], sessions[1]);
    assert_eq!(sessions[2], sessions[3]);
    assert_eq!(sessions.iter().collect::<BTreeSet<_>>().len(), 3);
    assert_eq!(
        history(&joined).await,
        ["one", "two", "three", "four", "five"]
    );
}

/// Fault 21: positions do not follow a clock that goes back.
#[tokio::test]
async fn a_clock_set_back_a_little_is_outlived_and_one_set_back_far_is_refused() {
    let (rig, time) = (Rig::new(), Time::new());
    let alice = rig.home_by("alice", &time).await;
    let stream = kitchen(&alice).await;
    let first = say(&stream, "one").await;
    time.go_back(10 * 60_000);
    assert_eq!(say(&stream, "two").await, first);
    drop((stream, alice));
    time.go_back(1);
    let alice = rig.on("alice", time.ground()).await;
    let stream = alice.stream(&name("kitchen")).await.unwrap();
    let refused = stream.publish(b"three").await;
    assert!(matches!(
        refused,
        Err(Error::ClockBehind { behind_ms: 600_001 })
    ));
    assert!(alice.doctor().await.unwrap().iter().any(|of| of.is_problem));
    assert_eq!(history(&stream).await, ["one", "two"]);
}

/// Fault 11: keys that were received open, and never seal.
#[tokio::test]
async fn a_device_seals_with_sessions_that_it_drew_and_with_no_other() {
    let rig = Rig::new();
    let (alice, bob) = (rig.home("alice").await, rig.home("bob").await);
    let stream = kitchen(&alice).await;
    let joined = join(&bob, &stream).await;
    say(&stream, "one").await;
    let both = Roles::READER.with(Roles::PUBLISHER);
    stream
        .grant(to(bob.user(), both, Interval::ALL))
        .await
        .unwrap();
    assert_eq!(history(&joined).await, ["one"]);
    say(&joined, "two").await;
    say(&stream, "three").await;
    say(&joined, "four").await;
    assert_eq!(history(&stream).await, ["one", "two", "three", "four"]);
    let of: Vec<_> = rig
        .headers(&stream)
        .await
        .iter()
        .map(|of| (of.device, of.session))
        .collect();
    assert_eq!((of[0], of[1]), (of[2], of[3]));
    assert_ne!(of[0].1, of[1].1);
    assert_eq!((of[0].0, of[1].0), (alice.device(), bob.device()));
}

#[tokio::test]
async fn backfills_take_ascending_times_before_their_start() {
    let rig = Rig::new();
    let stream = kitchen(&rig.home("alice").await).await;
    let before = say(&stream, "live").await;
    let mut backfill = stream.backfill().await.unwrap();
    backfill.send(Position(20), b"b").await.unwrap();
    for time in [Position(19), before.after(60_000)] {
        assert!(matches!(
            backfill.send(time, b"x").await,
            Err(Error::BackfillTime)
        ));
    }
    backfill.send(Position(20), b"c").await.unwrap();
    assert_eq!(backfill.finish().await.unwrap().records, 2);
    assert!(say(&stream, "live too").await >= before);
    assert_eq!(history(&stream).await, ["live", "b", "c", "live too"]);
}

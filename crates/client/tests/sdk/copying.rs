//! Carrying streams to another bus, by their tickets.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sealcast::{
    Alarm, Archived, BusCopy, BusError, BusUrl, ControlTopic, Error, Home, Standing, Stream,
    StreamCopy,
};
use sealcast_bus::{Bus, FileBus, Offset, Topic};
use sealcast_protocol::StreamTopics;
use tokio::time::timeout;

use crate::rig::*;

/// Where nothing is said of servers.
const NOWHERE: &str = "no-such-home";

/// A bus in a folder of the rig, set up.
async fn bus_in(rig: &Rig, folder: &str) -> BusUrl {
    let url = BusUrl::file(&rig.path(folder)).unwrap();
    sealcast::setup_bus(&url, Path::new(NOWHERE)).await.unwrap();
    url
}

/// Every item of a topic of the bus in a folder.
async fn items_in(folder: &Path, topic: &str) -> Vec<Vec<u8>> {
    let (bus, topic) = (
        FileBus::open(folder).await.unwrap(),
        Topic::new(topic).unwrap(),
    );
    let (mut all, mut at) = (Vec::new(), Offset(0));
    loop {
        let items = bus.read(&topic, at, 1 << 20).await.unwrap();
        let Some(last) = items.last() else {
            return all;
        };
        at = Offset(last.offset.0 + 1);
        all.extend(items.into_iter().map(|item| item.payload));
    }
}

/// Copies until nothing is left.
async fn carry(copy: &mut StreamCopy) -> Result<Archived, Error> {
    let mut sum = Archived::default();
    while copy.look().await? > 0 {
        while let Some(step) = copy.next().await? {
            sum.items += step.items;
            sum.differed |= step.differed;
        }
    }
    Ok(sum)
}

async fn carry_all(rig: &Rig, stream: &Stream, to: &BusUrl) -> Result<Archived, Error> {
    let copy = BusCopy::open(&rig.bus_url(), to, Path::new(NOWHERE)).await?;
    carry(&mut copy.stream(stream.ticket()).await?).await
}

fn topics(stream: &Stream, homes: &[&Home]) -> Vec<String> {
    let of = StreamTopics(stream.id());
    let own = homes
        .iter()
        .flat_map(|home| [of.access(&home.device()), home.user().devices_topic()]);
    own.chain([of.keys(), of.data()]).collect()
}

/// Every topic of the stream lies on the other bus as it lies on the first.
async fn assert_same(rig: &Rig, to: &str, stream: &Stream, homes: &[&Home]) {
    for topic in topics(stream, homes) {
        let there = items_in(&rig.path(to), &topic).await;
        assert_eq!(there, rig.items(&topic).await, "{topic}");
    }
}

#[tokio::test]
async fn a_copy_has_every_topic_item_for_item_and_a_second_one_adds_nothing() {
    let rig = Rig::small();
    let [alice, bob] = rig.homes(["alice", "bob"]).await;
    let (stream, _) = kitchen_with(&alice, &bob).await;
    say(&stream, "one").await;
    let to = bus_in(&rig, "to").await;
    let sum = carry_all(&rig, &stream, &to).await.unwrap();
    // Two cards, two entries, a record, a bundle and an envelope.
    assert_eq!((sum.items, sum.differed), (7, false));
    assert_same(&rig, "to", &stream, &[&alice, &bob]).await;
    assert_eq!(carry_all(&rig, &stream, &to).await.unwrap().items, 0);
    say(&stream, "two").await;
    assert_eq!(carry_all(&rig, &stream, &to).await.unwrap().items, 1);
    assert_same(&rig, "to", &stream, &[&alice, &bob]).await;
}

#[tokio::test]
async fn readers_go_on_there_with_the_keys_that_they_have_and_the_owner_grants_there() {
    let rig = Rig::small();
    let [alice, bob, carol] = rig.homes(["alice", "bob", "carol"]).await;
    let (stream, joined) = kitchen_with(&alice, &bob).await;
    say(&stream, "one").await;
    assert_eq!(history(&joined).await, ["one"]);
    let to = bus_in(&rig, "to").await;
    let copy = BusCopy::open(&rig.bus_url(), &to, Path::new(NOWHERE))
        .await
        .unwrap();
    carry(&mut copy.stream(stream.ticket()).await.unwrap())
        .await
        .unwrap();
    let moved = alice.switch_stream(&name("kitchen"), &copy).await.unwrap();
    assert_eq!(moved.ticket().bus(), to.to_string());
    std::fs::remove_dir_all(rig.path("bus")).unwrap();
    let read_on = bob.join(moved.ticket(), None).await.unwrap();
    let joined = carol.join(moved.ticket(), None).await.unwrap();
    say(&moved, "two").await;
    moved.grant(all_to(carol.user())).await.unwrap();
    assert_eq!(history(&read_on).await, ["one", "two"]);
    assert_eq!(history(&joined).await, ["one", "two"]);
    for of in [&moved, &read_on, &joined] {
        assert_eq!(of.alarms(), []);
    }
    // It is that of the home from now on, also for new streams.
    alice.switch_bus(&to).await.unwrap();
    drop((moved, stream, alice));
    let alice = rig.again("alice").await;
    assert_eq!((alice.bus(), &alice.streams().unwrap()[0].bus), (&to, &to));
}

#[tokio::test]
async fn what_others_publish_on_the_first_bus_after_the_switch_is_carried_after_them() {
    let rig = Rig::small();
    let [alice, bob] = rig.homes(["alice", "bob"]).await;
    let (stream, late) = kitchen_with(&alice, &bob).await;
    let publish = from_now(bob.user(), sealcast::Roles::PUBLISHER);
    stream.grant(publish).await.unwrap();
    say(&stream, "one").await;
    let to = bus_in(&rig, "to").await;
    let copy = BusCopy::open(&rig.bus_url(), &to, Path::new(NOWHERE))
        .await
        .unwrap();
    carry(&mut copy.stream(stream.ticket()).await.unwrap())
        .await
        .unwrap();
    let moved = alice.switch_stream(&name("kitchen"), &copy).await.unwrap();
    say(&moved, "two").await;
    say(&late, "from the old bus").await;
    let sum = carry(&mut copy.stream(moved.ticket()).await.unwrap()).await;
    assert!(sum.unwrap().differed);
    let mut lines = history(&moved).await;
    lines.sort();
    assert_eq!(lines, ["from the old bus", "one", "two"]);
    let again = carry(&mut copy.stream(moved.ticket()).await.unwrap()).await;
    assert_eq!(again.unwrap().items, 0);
}

/// Carries the stream to a bus in the folder `to`, and has its owner switch.
async fn moved(rig: &Rig, home: &Home, stream: &Stream) -> Stream {
    let to = bus_in(rig, "to").await;
    let copy = BusCopy::open(&rig.bus_url(), &to, Path::new(NOWHERE))
        .await
        .unwrap();
    carry(&mut copy.stream(stream.ticket()).await.unwrap())
        .await
        .unwrap();
    home.switch_stream(&name("kitchen"), &copy).await.unwrap()
}

/// Offsets are a bus's own: where the first was trimmed, everything lies elsewhere on the second.
#[tokio::test]
async fn what_was_trimmed_before_it_was_carried_alarms_nobody_and_what_is_lost_behind_it_does() {
    let rig = Rig::small();
    let [alice, bob] = rig.homes(["alice", "bob"]).await;
    let (stream, joined) = kitchen_with(&alice, &bob).await;
    let mut live = joined.subscribe(None).await.unwrap();
    for text in texts("old", 4) {
        stream.rekey().await.unwrap();
        say(&stream, &text).await;
    }
    assert_eq!(next(&mut live, 4).await, texts("old", 4));
    live.finish().await.unwrap();
    let of = StreamTopics(stream.id());
    for (topic, before) in [(of.keys(), 3), (of.data(), 4)] {
        let topic = Topic::new(&topic).unwrap();
        rig.bus().await.trim(&topic, Offset(before)).await.unwrap();
    }
    let there = moved(&rig, &alice, &stream).await;
    let joined = bob.join(there.ticket(), None).await.unwrap();
    say(&there, "new").await;
    let mut live = joined.subscribe(None).await.unwrap();
    assert_eq!((there.alarms(), joined.alarms()), (vec![], vec![]));
    say(&there, "newer").await;
    assert_eq!(next(&mut live, 1).await, ["newer"]);
    live.finish().await.unwrap();
    drop((stream, there, joined, alice, bob));
    copy_folder(&rig.path("to"), &rig.path("to copy"));
    for of in ["alice", "bob"] {
        let stream = open(&rig.again(of).await).await;
        drop(stream.subscribe(None).await.unwrap());
        stream.sync().await.unwrap();
        assert_eq!(stream.alarms(), [], "{of}");
        let lines = history(&stream).await;
        assert!(
            lines.ends_with(&["newer".into(), "Gap(0)".into()]),
            "{lines:?}"
        );
    }

    // Once it was read there, the second bus is held to what it showed.
    let stream = open(&rig.again("alice").await).await;
    stream.rekey().await.unwrap();
    say(&stream, "lost").await;
    let joined = open(&rig.again("bob").await).await;
    let mut live = joined.subscribe(None).await.unwrap();
    say(&stream, "lost, too").await;
    assert_eq!(next(&mut live, 1).await, ["lost, too"]);
    live.finish().await.unwrap();
    drop((stream, joined));
    std::fs::remove_dir_all(rig.path("to")).unwrap();
    copy_folder(&rig.path("to copy"), &rig.path("to"));
    for of in ["bob", "alice"] {
        let stream = open(&rig.again(of).await).await;
        let alarms = stream.alarms();
        assert!(
            alarms.contains(&Alarm::WentBack(ControlTopic::Keys)),
            "{of}: {alarms:?}"
        );
        drop(stream.subscribe(None).await.unwrap());
        let is_told = stream.alarms().contains(&Alarm::LostMessages);
        assert_eq!(is_told, of == "bob", "{of}");
    }
}

/// What a home has seen of the log on one bus must be on the next, wherever it lies there.
#[tokio::test]
async fn a_bus_that_lacks_what_another_showed_is_told_of_and_given_it() {
    let rig = Rig::small();
    let [alice, bob, carol] = rig.homes(["alice", "bob", "carol"]).await;
    let (stream, joined) = kitchen_with(&alice, &bob).await;
    for _ in 0..3 {
        stream.rekey().await.unwrap();
    }
    let keys = Topic::new(&StreamTopics(stream.id()).keys()).unwrap();
    rig.bus().await.trim(&keys, Offset(2)).await.unwrap();
    let to = bus_in(&rig, "to").await;
    carry_all(&rig, &stream, &to).await.unwrap();
    drop(join(&carol, &stream).await);
    // It is on the first bus alone.
    stream.grant(all_to(carol.user())).await.unwrap();
    joined.sync().await.unwrap();
    assert_eq!((stream.alarms(), joined.alarms()), (vec![], vec![]));
    let copy = BusCopy::open(&rig.bus_url(), &to, Path::new(NOWHERE))
        .await
        .unwrap();
    let there = alice.switch_stream(&name("kitchen"), &copy).await.unwrap();
    let chain = Alarm::WentBack(ControlTopic::Access(alice.user(), alice.device()));
    let lacks = [chain, Alarm::WentBack(ControlTopic::Keys)];
    let alarms = there.alarms();
    assert!(lacks.iter().all(|of| alarms.contains(of)), "{alarms:?}");
    let joined = bob.join(there.ticket(), None).await.unwrap();
    assert_eq!(joined.who().await.unwrap().len(), 3);
    drop((stream, there, joined, alice, bob));
    for of in ["alice", "bob"] {
        let stream = open(&rig.again(of).await).await;
        stream.sync().await.unwrap();
        assert_eq!(stream.alarms(), [], "{of} is told once");
    }
}

/// A process goes on where it is until it is started anew.
#[tokio::test]
async fn where_a_process_stands_on_the_first_bus_is_not_noted_of_the_second() {
    let rig = Rig::small();
    let [alice, bob] = rig.homes(["alice", "bob"]).await;
    let (stream, joined) = kitchen_with(&alice, &bob).await;
    say(&stream, "one").await;
    let mut live = joined.subscribe(None).await.unwrap();
    let there = moved(&rig, &alice, &stream).await;
    drop(bob.join(there.ticket(), None).await.unwrap());
    for text in texts("late", 3) {
        stream.rekey().await.unwrap();
        say(&stream, &text).await;
    }
    assert_eq!(next(&mut live, 3).await, texts("late", 3));
    live.finish().await.unwrap();
    joined.sync().await.unwrap();
    drop((stream, joined, there, alice, bob));
    let stream = open(&rig.again("bob").await).await;
    drop(stream.subscribe(None).await.unwrap());
    assert_eq!(stream.alarms(), []);
    assert_eq!(history(&stream).await, ["one"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_ends_with_a_source_that_grows_and_the_next_one_has_the_rest() {
    let rig = Rig::small();
    let alice = rig.home("alice").await;
    let stream = kitchen(&alice).await;
    say(&stream, "first").await;
    let to = bus_in(&rig, "to").await;
    let count = Arc::new(AtomicU64::new(0));
    let grows = tokio::spawn({
        let (stream, count) = (stream.clone(), count.clone());
        async move {
            for text in texts("n", 60) {
                say(&stream, &text).await;
                count.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let copy = BusCopy::open(&rig.bus_url(), &to, Path::new(NOWHERE))
        .await
        .unwrap();
    let mut copy = copy.stream(stream.ticket()).await.unwrap();
    // A look fixes how far it goes: what comes later does not keep it from ending.
    let rounds = async {
        while count.load(Ordering::SeqCst) < 60 {
            copy.look().await.unwrap();
            while copy.next().await.unwrap().is_some() {}
        }
    };
    timeout(Duration::from_secs(120), rounds).await.unwrap();
    grows.await.unwrap();
    carry(&mut copy).await.unwrap();
    assert_same(&rig, "to", &stream, &[&alice]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_copies_at_once_come_to_one() {
    let rig = Rig::small();
    let alice = rig.home("alice").await;
    let stream = kitchen(&alice).await;
    // Many batches, so that each comes before the other now and then.
    let large = vec![7; 300_000];
    for _ in 0..40 {
        rig.inject(&stream, &large).await;
    }
    say(&stream, "last").await;
    let to = bus_in(&rig, "to").await;
    let copies = [0, 1].map(|_| {
        let (from, to, ticket) = (rig.bus_url(), to.clone(), stream.ticket().clone());
        tokio::spawn(async move {
            let copy = BusCopy::open(&from, &to, Path::new(NOWHERE)).await.unwrap();
            carry(&mut copy.stream(&ticket).await.unwrap()).await
        })
    });
    let mut items = 0;
    for copy in copies {
        items += copy.await.unwrap().unwrap().items;
    }
    assert_same(&rig, "to", &stream, &[&alice]).await;
    // A card, the first entry, a record and 41 items of data.
    assert_eq!(items, 44);
}

#[tokio::test]
async fn a_copy_that_was_full_goes_on_where_it_stood() {
    let rig = Rig::small();
    let alice = rig.home("alice").await;
    let stream = kitchen(&alice).await;
    say(&stream, "one").await;
    say(&stream, "two").await;
    let to = bus_in(&rig, "to").await;
    let full = "CREATE TRIGGER full BEFORE INSERT ON item WHEN length(NEW.payload) < 400 \
                BEGIN SELECT RAISE(ABORT, 'no room'); END";
    let database = rusqlite::Connection::open(rig.path("to/bus.db")).unwrap();
    database.execute_batch(full).unwrap();
    let failed = carry_all(&rig, &stream, &to).await;
    assert!(matches!(failed, Err(Error::Bus(_))), "{failed:?}");
    database.execute_batch("DROP TRIGGER full").unwrap();
    carry_all(&rig, &stream, &to).await.unwrap();
    assert_same(&rig, "to", &stream, &[&alice]).await;
}

#[tokio::test]
async fn a_topic_that_was_trimmed_to_its_end_is_no_reason_to_go_on_for_ever() {
    let rig = Rig::small();
    let alice = rig.home("alice").await;
    let stream = kitchen(&alice).await;
    say(&stream, "gone").await;
    let data = Topic::new(&StreamTopics(stream.id()).data()).unwrap();
    rig.bus().await.trim(&data, Offset(1)).await.unwrap();
    let to = bus_in(&rig, "to").await;
    assert_eq!(carry_all(&rig, &stream, &to).await.unwrap().items, 3);
    say(&stream, "left").await;
    assert_eq!(carry_all(&rig, &stream, &to).await.unwrap().items, 1);
}

#[tokio::test]
async fn nothing_is_made_where_a_bus_or_a_stream_is_missing() {
    let rig = Rig::small();
    let alice = rig.home("alice").await;
    let stream = kitchen(&alice).await;
    let missing = BusUrl::file(&rig.path("missing")).unwrap();
    let open = async |from: &BusUrl, to: &BusUrl| {
        BusCopy::open(from, to, Path::new(NOWHERE))
            .await
            .map(|_| ())
    };
    for (from, to) in [(&missing, &rig.bus_url()), (&rig.bus_url(), &missing)] {
        let refused = open(from, to).await;
        assert!(matches!(refused, Err(Error::NoBus(_))), "{refused:?}");
    }
    assert!(!rig.path("missing").exists());
    std::fs::write(rig.path("file"), "x").unwrap();
    let file = BusUrl::file(&rig.path("file")).unwrap();
    let refused = open(&rig.bus_url(), &file).await;
    assert!(
        matches!(refused, Err(Error::BusUnusable { .. })),
        "{refused:?}"
    );
    std::os::unix::fs::symlink(rig.path("bus"), rig.path("link")).unwrap();
    let link = BusUrl::file(&rig.path("link")).unwrap();
    let refused = open(&rig.bus_url(), &link).await;
    assert!(matches!(refused, Err(Error::OneBus(_))), "{refused:?}");
    let to = bus_in(&rig, "to").await;
    let copy = BusCopy::open(&to, &rig.bus_url(), Path::new(NOWHERE))
        .await
        .unwrap();
    let refused = copy.stream(stream.ticket()).await.map(|_| ());
    assert!(
        matches!(refused, Err(Error::StreamElsewhere(_))),
        "{refused:?}"
    );
    let copy = BusCopy::open(&rig.bus_url(), &to, Path::new(NOWHERE))
        .await
        .unwrap();
    let refused = alice
        .switch_stream(&name("kitchen"), &copy)
        .await
        .map(|_| ());
    assert!(
        matches!(refused, Err(Error::StreamElsewhere(_))),
        "{refused:?}"
    );
    assert_eq!(alice.streams().unwrap()[0].bus, rig.bus_url());
}

#[tokio::test]
async fn a_check_makes_nothing_and_a_setup_leaves_what_is_there() {
    let rig = Rig::small();
    let url = BusUrl::file(&rig.path("srv")).unwrap();
    assert_eq!(
        sealcast::check_bus(&url, Path::new(NOWHERE))
            .await
            .unwrap()
            .standing,
        Standing::Missing
    );
    assert!(!rig.path("srv").exists());
    assert_eq!(
        sealcast::setup_bus(&url, Path::new(NOWHERE))
            .await
            .unwrap()
            .made
            .len(),
        2
    );
    assert_eq!(
        sealcast::setup_bus(&url, Path::new(NOWHERE))
            .await
            .unwrap()
            .left
            .len(),
        1
    );
    assert_eq!(
        sealcast::check_bus(&url, Path::new(NOWHERE))
            .await
            .unwrap()
            .standing,
        Standing::Ready
    );
    let bus = BusUrl::parse("mqtt://127.0.0.1:1/plant").unwrap();
    let refused = sealcast::check_bus(&bus, Path::new(NOWHERE))
        .await
        .map(|_| ());
    assert!(matches!(
        refused,
        Err(Error::Bus(BusError::Unreachable { .. }))
    ));
}

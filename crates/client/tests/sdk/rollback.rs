//! A bus that goes back on what it showed: the one of last night was put in its place.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sealcast::{
    Alarm, ControlTopic, Error, GrantOptions, Position, Roles, Sharing, Stream, StreamOptions,
};
use sealcast_bus::{Bus as _, Topic};
use sealcast_protocol::{CARD_LIFETIME_MS, StreamTopics};
use tokio::time::timeout;

use crate::rig::*;

fn copy_bus(rig: &Rig) {
    copy_folder(&rig.path("bus"), &rig.path("bus copy"));
}

fn restore_bus(rig: &Rig) {
    std::fs::remove_dir_all(rig.path("bus")).unwrap();
    copy_folder(&rig.path("bus copy"), &rig.path("bus"));
}

/// Has the bus lose its last messages of a stream, under whoever uses it.
fn lose_last(rig: &Rig, count: i64, stream: &Stream) {
    let bus = rusqlite::Connection::open(rig.path("bus/bus.db")).unwrap();
    let data = StreamTopics(stream.id()).data();
    let found = "SELECT id, next_offset FROM topic WHERE name = ?1";
    let (id, next) = bus
        .query_row(found, [data], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
        })
        .unwrap();
    let end = next - count;
    let lose = "DELETE FROM item WHERE key >= ?1 AND key < ?2";
    let lost = bus.execute(lose, [(id << 40) + end, (id << 40) + next]);
    assert_eq!(i64::try_from(lost.unwrap()), Ok(count));
    bus.execute("UPDATE topic SET next_offset = ?1 WHERE id = ?2", [end, id])
        .unwrap();
}

fn opened(lines: &[String]) -> Vec<&str> {
    let notes = ["Gap", "Branch"];
    let lines = lines.iter().map(String::as_str);
    lines
        .filter(|line| !notes.iter().any(|note| line.starts_with(note)))
        .collect()
}

/// For what must come.
const PATIENCE: Duration = Duration::from_secs(240);

/// Waits when a minute has passed at once.
async fn after_a_minute<T>(of: impl Future<Output = T>) -> T {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(60)).await;
    tokio::time::resume();
    of.await
}

fn count_gaps(lines: &[String]) -> usize {
    lines.iter().filter(|line| line.starts_with("Gap")).count()
}

#[tokio::test]
async fn the_owner_puts_back_what_it_wrote_since_and_goes_on() {
    let rig = Rig::small();
    let [alice, bob, carol] = rig.homes(["alice", "bob", "carol"]).await;
    let stream = kitchen(&alice).await;
    drop((join(&bob, &stream).await, join(&carol, &stream).await));
    stream.grant(all_to(bob.user())).await.unwrap();
    say(&stream, "kept").await;
    let (bob_id, carol_id) = (bob.user(), carol.user());
    drop((stream, alice, bob, carol));
    copy_bus(&rig);
    let stream = open(&rig.again("alice").await).await;
    stream.grant(all_to(carol_id)).await.unwrap();
    say(&stream, "lost").await;
    drop(stream);
    restore_bus(&rig);

    let stream = open(&rig.again("alice").await).await;
    assert!(matches!(stream.alarms()[..], [Alarm::WentBack(_), ..]));
    assert_eq!(stream.who().await.unwrap().len(), 3);
    say(&stream, "after").await;
    stream.revoke_user(bob_id).await.unwrap();
    // Carol never saw the bus as it was; she reads by the grant and the keys that were put back.
    for of in ["carol", "alice"] {
        let lines = history(&open(&rig.again(of).await).await).await;
        assert_eq!(opened(&lines), ["kept", "after"], "{of}");
        assert_eq!(count_gaps(&lines), 1, "{of}: {lines:?}");
    }
    // Told once, and then in order.
    let stream = open(&rig.again("alice").await).await;
    stream.sync().await.unwrap();
    assert_eq!(stream.alarms(), []);
}

#[tokio::test]
async fn a_bus_that_grew_past_where_it_was_read_is_noticed_all_the_same() {
    let rig = Rig::small();
    let [alice, bob] = rig.homes(["alice", "bob"]).await;
    let (stream, _) = kitchen_with(&alice, &bob).await;
    say(&stream, "kept").await;
    drop((stream, alice, bob));
    copy_bus(&rig);
    open(&rig.again("alice").await).await.rekey().await.unwrap();
    let joined = open(&rig.again("bob").await).await;
    assert_eq!(history(&joined).await, ["kept"]);
    let read = rig.keys_end(&joined).await;
    drop(joined);
    restore_bus(&rig);

    let stream = open(&rig.again("alice").await).await;
    for _ in 0..3 {
        stream.rekey().await.unwrap();
    }
    say(&stream, "after").await;
    assert!(rig.keys_end(&stream).await > read);
    drop(stream);
    let joined = open(&rig.again("bob").await).await;
    assert_eq!(joined.alarms(), [Alarm::WentBack(ControlTopic::Keys)]);
    assert_eq!(history(&joined).await, ["kept", "after"]);
    let joined = open(&rig.again("bob").await).await;
    assert_eq!(joined.alarms(), [], "it is told once");
}

/// Whoever learns that somebody may publish once more reads the keys from their start. What an
/// earlier run was shown of them must still be there.
#[tokio::test]
async fn lost_keys_are_noticed_where_the_topic_is_read_from_its_start() {
    let rig = Rig::small();
    let [alice, bob, carol, dave] = rig.homes(["alice", "bob", "carol", "dave"]).await;
    let (stream, _) = kitchen_with(&alice, &carol).await;
    let publish = GrantOptions {
        roles: Roles::PUBLISHER,
        ..all_to(carol.user())
    };
    let admin = GrantOptions {
        roles: Roles::ADMIN,
        ..all_to(dave.user())
    };
    stream.grant(admin).await.unwrap();
    stream.grant(publish.clone()).await.unwrap();
    stream.revoke_user(carol.user()).await.unwrap();
    say(&stream, "kept").await;
    let joined = [join(&bob, &stream).await, join(&dave, &stream).await];
    let bob_id = bob.user();
    drop((stream, joined, alice, bob, carol, dave));
    copy_bus(&rig);
    let stream = open(&rig.again("alice").await).await;
    stream.grant(all_to(bob_id)).await.unwrap();
    drop(stream);
    restore_bus(&rig);

    let admins = open(&rig.again("dave").await).await;
    admins.grant(publish).await.unwrap();
    drop(admins);
    let stream = open(&rig.again("alice").await).await;
    let lost = Alarm::WentBack(ControlTopic::Keys);
    assert!(stream.alarms().contains(&lost));
    say(&stream, "after").await;
    let lines = history(&open(&rig.again("bob").await).await).await;
    assert_eq!(opened(&lines), ["kept", "after"]);
}

/// Fault 20: what was read live stays known when the bus forgets it, and what the bus still shows
/// is no news.
#[tokio::test]
async fn live_reading_goes_on_where_the_bus_lost_messages() {
    for regrown in [0, 1, 9] {
        let rig = Rig::small();
        let [alice, bob] = rig.homes(["alice", "bob"]).await;
        let (stream, joined) = kitchen_with(&alice, &bob).await;
        say(&stream, "kept").await;
        drop((stream, alice, joined, bob));
        copy_bus(&rig);
        let stream = open(&rig.again("alice").await).await;
        let joined = open(&rig.again("bob").await).await;
        let mut live = joined.subscribe(None).await.unwrap();
        for text in texts("lost", 5) {
            say(&stream, &text).await;
        }
        assert_eq!(next(&mut live, 5).await, texts("lost", 5));
        let copy = rig.data(&stream).await[1].clone();
        live.finish().await.unwrap();
        drop((stream, joined));
        restore_bus(&rig);

        let stream = open(&rig.again("alice").await).await;
        for text in texts("unseen", regrown) {
            say(&stream, &text).await;
        }
        let joined = open(&rig.again("bob").await).await;
        let mut live = joined.subscribe(None).await.unwrap();
        assert!(joined.alarms().contains(&Alarm::LostMessages), "{regrown}");
        rig.inject(&stream, &copy).await;
        say(&stream, "after").await;
        let told = next(&mut live, 2).await;
        assert_eq!(told, ["Replay", "after"], "{regrown}");
        live.finish().await.unwrap();
        let joined = open(&rig.again("bob").await).await;
        drop(joined.subscribe(None).await.unwrap());
        assert_eq!(joined.alarms(), [], "it is told once");
    }
}

/// It does not wait until the bus has grown to where it was.
#[tokio::test]
async fn who_follows_hears_what_comes_after_the_bus_lost_messages() {
    for from in [None, Some(Position::START)] {
        for lost in 1..5 {
            let rig = Rig::small();
            let [alice, bob] = rig.homes(["alice", "bob"]).await;
            let (stream, joined) = kitchen_with(&alice, &bob).await;
            say(&stream, "kept").await;
            let mut live = joined.subscribe(from).await.unwrap();
            if from.is_some() {
                assert_eq!(next(&mut live, 1).await, ["kept"]);
            }
            for text in texts("m", 5) {
                say(&stream, &text).await;
            }
            assert_eq!(next(&mut live, 5).await, texts("m", 5));
            lose_last(&rig, lost, &stream);
            for text in texts("after", 3) {
                say(&stream, &text).await;
            }
            let all = async {
                let mut heard = Vec::new();
                while opened(&heard).len() < 3 {
                    heard.extend(next(&mut live, 1).await);
                }
                heard
            };
            let heard = after_a_minute(timeout(PATIENCE, all)).await;
            let mut heard =
                heard.unwrap_or_else(|_| panic!("three messages come: {from:?} {lost}"));
            heard.retain(|line| line != "Gap(1)" && line != "Gap(2)");
            heard.sort();
            assert_eq!(heard, texts("after", 3), "{from:?} {lost}");
            assert!(joined.alarms().contains(&Alarm::LostMessages), "{lost}");
            // From then on as before, and told once.
            say(&stream, "more").await;
            assert_eq!(next(&mut live, 1).await, ["more"]);
            say(&stream, "last").await;
            assert_eq!(after_a_minute(next(&mut live, 1)).await, ["last"]);
            assert_eq!(joined.alarms(), []);
        }
    }
}

/// Whoever is not online reads by what the owner puts back: its own card, its grant and its keys.
#[tokio::test]
async fn whoever_was_let_in_since_can_still_read() {
    for sharing in [Sharing::Active, Sharing::OnRequest] {
        let rig = Rig::small();
        let [alice, bob] = rig.homes(["alice", "bob"]).await;
        let options = StreamOptions {
            sharing,
            ..StreamOptions::default()
        };
        let stream = alice
            .create_stream(&name("kitchen"), options)
            .await
            .unwrap();
        say(&stream, "kept").await;
        let bob_id = bob.user();
        drop((stream, alice));
        copy_bus(&rig);
        let stream = open(&rig.again("alice").await).await;
        drop((join(&bob, &stream).await, bob));
        stream.sync().await.unwrap();
        stream.grant(all_to(bob_id)).await.unwrap();
        drop(stream);
        restore_bus(&rig);

        let stream = open(&rig.again("alice").await).await;
        stream.sync().await.unwrap();
        assert_eq!(rig.items(&bob_id.devices_topic()).await.len(), 1);
        drop(stream);
        assert_eq!(
            history(&open(&rig.again("bob").await).await).await,
            ["kept"],
            "{sharing:?}"
        );
    }
}

/// Of several whose keys the bus lost none is forgotten where it takes nothing for a while.
#[tokio::test]
async fn keys_that_were_lost_are_owed_to_everybody_until_the_bus_takes_them() {
    let rig = Rig::small();
    let [alice, bob, carol] = rig.homes(["alice", "bob", "carol"]).await;
    let options = StreamOptions {
        sharing: Sharing::OnRequest,
        ..StreamOptions::default()
    };
    let stream = alice
        .create_stream(&name("kitchen"), options)
        .await
        .unwrap();
    say(&stream, "kept").await;
    let joined = [join(&bob, &stream).await, join(&carol, &stream).await];
    stream.sync().await.unwrap();
    let users = [bob.user(), carol.user()];
    drop((stream, alice));
    copy_bus(&rig);
    for user in users {
        let stream = open(&rig.again("alice").await).await;
        stream.grant(all_to(user)).await.unwrap();
    }
    drop((joined, bob, carol));
    restore_bus(&rig);

    let is_full = Arc::new(AtomicBool::new(true));
    let full = is_full.clone();
    let ground = Meddler::ground(move |ask, topic| {
        let is_kept = ask == Ask::Append && topic.ends_with("/keys");
        match is_kept && full.load(Ordering::SeqCst) {
            true => Manner::Fail,
            false => Manner::Honest,
        }
    });
    let alice = rig.on("alice", ground).await;
    let stream = open(&alice).await;
    assert!(matches!(stream.sync().await, Err(Error::Bus(_))));
    is_full.store(false, Ordering::SeqCst);
    stream.sync().await.unwrap();
    drop(stream);
    for of in ["bob", "carol"] {
        assert_eq!(
            history(&open(&rig.again(of).await).await).await,
            ["kept"],
            "{of}"
        );
    }
}

#[tokio::test]
async fn a_session_whose_record_the_bus_lost_is_replaced() {
    let rig = Rig::small();
    let [alice, bob] = rig.homes(["alice", "bob"]).await;
    let (stream, joined) = kitchen_with(&alice, &bob).await;
    drop((stream, alice, joined, bob));
    copy_bus(&rig);
    let stream = open(&rig.again("alice").await).await;
    say(&stream, "lost").await;
    let lost = rig.headers(&stream).await;
    drop(stream);
    restore_bus(&rig);

    let stream = open(&rig.again("alice").await).await;
    say(&stream, "kept").await;
    assert!(matches!(stream.alarms()[..], [Alarm::WentBack(_)]));
    assert_ne!(rig.headers(&stream).await[0].session, lost[0].session);
    let lines = history(&open(&rig.again("bob").await).await).await;
    assert_eq!(opened(&lines), ["kept"]);
    assert_eq!(count_gaps(&lines), 1);
}

/// A publisher's entry builds on the owner's; the publisher puts those back when it writes.
#[tokio::test]
async fn a_publisher_puts_back_what_its_entry_builds_on() {
    let rig = Rig::small();
    let [alice, bob, carol] = rig.homes(["alice", "bob", "carol"]).await;
    let stream = kitchen(&alice).await;
    drop((join(&bob, &stream).await, join(&carol, &stream).await));
    let (bob_id, carol_id) = (bob.user(), carol.user());
    drop((alice, bob, carol));
    copy_bus(&rig);
    let both = Roles::READER.with(Roles::PUBLISHER);
    let grant = GrantOptions {
        roles: both,
        ..all_to(bob_id)
    };
    stream.grant(grant).await.unwrap();
    let joined = open(&rig.again("bob").await).await;
    say(&joined, "lost").await;
    drop((stream, joined));
    restore_bus(&rig);

    let joined = open(&rig.again("bob").await).await;
    joined.grant(all_to(carol_id)).await.unwrap();
    say(&joined, "after").await;
    let lines = history(&open(&rig.again("carol").await).await).await;
    assert_eq!(opened(&lines), ["after"]);
}

#[tokio::test]
async fn nothing_is_written_after_entries_that_the_bus_will_not_take_back() {
    let rig = Rig::small();
    let [alice, bob] = rig.homes(["alice", "bob"]).await;
    let stream = kitchen(&alice).await;
    drop(join(&bob, &stream).await);
    let bob_id = bob.user();
    drop((alice, bob));
    copy_bus(&rig);
    stream.grant(all_to(bob_id)).await.unwrap();
    drop(stream);
    restore_bus(&rig);

    for manner in [Manner::Lose, Manner::Fail] {
        let ground = Meddler::ground(move |ask, _| match ask {
            Ask::Append => manner,
            Ask::Read | Ask::End => Manner::Honest,
        });
        let alice = rig.on("alice", ground).await;
        let stream = open(&alice).await;
        assert_eq!(history(&stream).await, [""; 0], "reading goes on");
        let refused = stream.revoke_user(bob_id).await;
        let is_right = match manner == Manner::Lose {
            true => matches!(refused, Err(Error::RolledBack(_))),
            false => matches!(refused, Err(Error::Bus(_))),
        };
        assert!(is_right, "{refused:?}");
    }
    // What failed is made up for once the bus takes it.
    let stream = open(&rig.again("alice").await).await;
    stream.revoke_user(bob_id).await.unwrap();
}

#[tokio::test]
async fn what_a_bus_did_not_take_back_is_put_back_by_the_next_reading() {
    let rig = Rig::small();
    let [alice, bob] = rig.homes(["alice", "bob"]).await;
    let stream = kitchen(&alice).await;
    let device = alice.device();
    drop(alice);
    copy_bus(&rig);
    let (list, chain) = (
        bob.user().devices_topic(),
        StreamTopics(stream.id()).access(&device),
    );
    drop(join(&bob, &stream).await);
    stream.grant(all_to(bob.user())).await.unwrap();
    drop(stream);
    restore_bus(&rig);

    let ground = Meddler::ground(|ask, _| match ask {
        Ask::Append => Manner::Fail,
        Ask::Read | Ask::End => Manner::Honest,
    });
    let alice = rig.on("alice", ground).await;
    drop(open(&alice).await);
    assert_eq!(rig.items(&list).await.len(), 0);
    drop(open(&rig.again("alice").await).await);
    assert_eq!(rig.items(&list).await.len(), 1);
    assert_eq!(rig.items(&chain).await.len(), 2);
}

#[tokio::test]
async fn an_entry_that_the_bus_took_and_lost_before_it_was_read_back_is_sent_again() {
    let rig = Rig::small();
    let [alice, bob] = rig.homes(["alice", "bob"]).await;
    let stream = kitchen(&alice).await;
    drop(join(&bob, &stream).await);
    let bob_id = bob.user();
    drop((stream, alice));
    let ground = Meddler::ground(|ask, _| match ask {
        Ask::Append => Manner::Lose,
        Ask::Read | Ask::End => Manner::Honest,
    });
    let alice = rig.on("alice", ground).await;
    let stream = open(&alice).await;
    let lost = stream.grant(all_to(bob_id)).await;
    assert!(matches!(lost, Err(Error::RolledBack(_))), "{lost:?}");
    drop((stream, alice));

    let stream = open(&rig.again("alice").await).await;
    assert_eq!(stream.who().await.unwrap().len(), 2);
    stream.revoke_user(bob_id).await.unwrap();
}

/// The next one builds on what came behind it, which the bus shows.
#[tokio::test]
async fn an_entry_that_was_put_back_and_lost_again_is_put_back_before_the_next() {
    let rig = Rig::small();
    let [alice, bob, carol] = rig.homes(["alice", "bob", "carol"]).await;
    let stream = kitchen(&alice).await;
    drop((join(&bob, &stream).await, join(&carol, &stream).await));
    let (bob_id, carol_id) = (bob.user(), carol.user());
    let chain = StreamTopics(stream.id()).access(&alice.device());
    drop(alice);
    copy_bus(&rig);
    stream.grant(all_to(bob_id)).await.unwrap();
    stream.grant(all_to(carol_id)).await.unwrap();
    drop((stream, bob, carol));
    let whole = rig.items(&chain).await;
    restore_bus(&rig);
    let (bus, topic) = (rig.bus().await, Topic::new(&chain).unwrap());
    bus.append(&topic, vec![whole[2].clone()]).await.unwrap();
    drop(bus);
    let ground = Meddler::ground(|ask, _| match ask {
        Ask::Append => Manner::Lose,
        Ask::Read | Ask::End => Manner::Honest,
    });
    drop(open(&rig.on("alice", ground).await).await);
    assert_eq!(rig.items(&chain).await.len(), 2);

    let stream = open(&rig.again("alice").await).await;
    stream.revoke_user(carol_id).await.unwrap();
    say(&stream, "for bob").await;
    assert!(rig.items(&chain).await.contains(&whole[1]));
    let lines = history(&open(&rig.again("bob").await).await).await;
    assert_eq!(opened(&lines), ["for bob"]);
}

/// An entry that lies ahead of the one before it counts for nobody, so it is put back as well.
#[tokio::test]
async fn a_device_list_is_put_back_in_its_order() {
    let (rig, time) = (Rig::small(), Time::new());
    let [alice, bob] = rig.homes_by(["alice", "bob"], &time).await;
    let stream = kitchen(&alice).await;
    drop(alice);
    copy_bus(&rig);
    drop(join(&bob, &stream).await);
    stream.grant(all_to(bob.user())).await.unwrap();
    let list = bob.user().devices_topic();
    drop((stream, bob));
    time.pass(CARD_LIFETIME_MS - 86_400_000);
    for of in ["bob", "alice"] {
        drop(open(&rig.on(of, time.ground()).await).await);
    }
    let whole = rig.items(&list).await;
    assert_eq!(whole.len(), 2, "a card and its renewal");
    restore_bus(&rig);
    let (bus, topic) = (rig.bus().await, Topic::new(&list).unwrap());
    bus.append(&topic, vec![whole[1].clone()]).await.unwrap();
    drop(open(&rig.on("alice", time.ground()).await).await);
    let is_in_order = rig.items(&list).await[1..] == whole;
    assert!(is_in_order, "the renewal is not behind its card");
}

/// Looking costs one call for each topic, and another when a stream is opened.
#[tokio::test]
async fn a_reading_that_finds_nothing_new_asks_for_the_ends_alone() {
    let rig = Rig::small();
    let [alice, bob] = rig.homes(["alice", "bob"]).await;
    let (stream, _) = kitchen_with(&alice, &bob).await;
    say(&stream, "one").await;
    let id = stream.id();
    drop((stream, alice));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let note = asked.clone();
    let ground = Meddler::ground(move |ask, topic| {
        note.lock().unwrap().push((ask, topic.to_owned()));
        Manner::Honest
    });
    let data = StreamTopics(id).data();
    let counted = |wanted: Ask| {
        let asked = asked.lock().unwrap();
        let of = asked
            .iter()
            .filter(|(ask, topic)| *ask == wanted && *topic != data);
        of.count()
    };
    let alice = rig.on("alice", ground).await;
    let stream = open(&alice).await;
    // Two lists, two chains (bob wrote none), the keys, and the fallback key of this device.
    assert_eq!((counted(Ask::End), counted(Ask::Read)), (6, 5));
    asked.lock().unwrap().clear();
    stream.sync().await.unwrap();
    assert_eq!((counted(Ask::End), counted(Ask::Read)), (5, 0));
    assert_eq!(counted(Ask::Append), 0);
}

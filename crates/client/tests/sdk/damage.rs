//! Pages of the files below a home that are not what was written: an error that says so, never a
//! wrong answer, and what can be read is read.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use sealcast::{Alarm, BusError, Error, Ground, Home, Interval, Position, Roles, Stream};
use sealcast_bus::Offset;

use crate::rig::*;

const PAGE: usize = 4096;
/// The last but one makes a page of records lack one, or name one that it does not have.
const DAMAGES: [fn(&mut [u8]); 5] = [
    |page| page.fill(0),
    |page| page.fill(0xa5),
    |page| page[3] ^= 0x10,
    |page| page[4] ^= 1,
    |page| {
        let middle = page.len() / 2;
        page[middle] ^= 0xff;
    },
];

/// What a person sees of a home: its streams, contacts, and the whole history.
async fn look(path: &Path) -> Result<Vec<String>, Error> {
    let home = Home::open(path, None).await?;
    let mut seen: Vec<_> = home
        .contacts()?
        .into_iter()
        .map(|(name, user)| format!("{name} {user}"))
        .collect();
    for of in home.streams()? {
        let stream = home.stream(&of.name).await?;
        let grants = stream.who().await?;
        seen.push(format!("{} {} {}", of.name, of.id, grants.len()));
        let mut reader = stream.read(Interval::ALL).await?;
        while let Some(delivery) = reader.next().await? {
            seen.push(line(&delivery));
        }
    }
    Ok(seen)
}

/// Alice publishes in five sessions, and bob holds the keys.
async fn filled(rig: &Rig) {
    let [alice, bob] = rig.homes(["alice", "bob"]).await;
    let stream = kitchen(&alice).await;
    let joined = join(&bob, &stream).await;
    alice.add_contact(&name("bob"), bob.user()).unwrap();
    bob.add_contact(&name("alice"), alice.user()).unwrap();
    stream
        .grant(from_now(bob.user(), Roles::READER))
        .await
        .unwrap();
    for i in 0..4 {
        say(&stream, &format!("message {i}")).await;
        stream.rekey().await.unwrap();
    }
    joined.sync().await.unwrap();
}

/// All transactions in the one file: opening and closing by other means empties the log.
fn settle(path: &Path) {
    let database = rusqlite::Connection::open(path).unwrap();
    let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
    database.query_row(sql, [], |_| Ok(())).unwrap();
}

#[tokio::test]
async fn a_damaged_page_of_a_home_is_an_error_or_without_effect() {
    let rig = Rig::small();
    filled(&rig).await;
    let expected = look(&rig.path("bob")).await.unwrap();
    assert_eq!(expected.len(), 2 + 4);
    let store = rig.path("bob").join("store.db");
    settle(&store);
    let (whole, mut told, mut codes) = (std::fs::read(&store).unwrap(), 0, BTreeSet::new());
    for page in 0..whole.len() / PAGE {
        for damage in DAMAGES {
            let mut broken = whole.clone();
            damage(&mut broken[page * PAGE..][..PAGE]);
            told += usize::from(is_told(&rig, &broken, None, &expected, &mut codes).await);
        }
    }
    assert!(
        told > whole.len() / PAGE,
        "{told} of {} pages",
        whole.len() / PAGE
    );
    assert_eq!(codes, BTreeSet::from(["store.failed"]));
}

#[tokio::test]
async fn a_damaged_log_of_a_home_loses_last_transactions_or_is_an_error() {
    let rig = Rig::small();
    filled(&rig).await;
    let bob = rig.again("bob").await;
    // What was not checkpointed: a contact, which nothing else brings back.
    bob.add_contact(&name("carol"), rig.home("carol").await.user())
        .unwrap();
    let store = rig.path("bob").join("store.db");
    let whole = std::fs::read(&store).unwrap();
    let log = std::fs::read(rig.path("bob").join("store.db-wal")).unwrap();
    let intact = place(&rig, &whole, Some(&log));
    let expected = look(&intact).await.unwrap();
    let mut codes = BTreeSet::new();
    for at in (0..log.len()).step_by(log.len() / 40 + 1) {
        let mut broken = log.clone();
        broken[at] ^= 0xff;
        let path = place(&rig, &whole, Some(&broken));
        match look(&path).await {
            Ok(seen) => {
                let lacks = expected.iter().filter(|of| !seen.contains(of));
                assert!(
                    lacks.count() <= 1 && seen.len() >= expected.len() - 1,
                    "{at}: {seen:?}"
                );
            }
            Err(error) => drop(codes.insert(error.code())),
        }
    }
    assert!(
        codes.iter().all(|code| *code == "store.failed"),
        "{codes:?}"
    );
}

/// Puts a copy of bob's home with this store in a place of its own.
fn place(rig: &Rig, store: &[u8], log: Option<&[u8]>) -> std::path::PathBuf {
    let path = rig.path("damaged");
    let _was_there = std::fs::remove_dir_all(&path).is_ok();
    std::fs::create_dir(&path).unwrap();
    std::fs::copy(rig.path("bob").join("store.key"), path.join("store.key")).unwrap();
    std::fs::write(path.join("store.db"), store).unwrap();
    if let Some(log) = log {
        std::fs::write(path.join("store.db-wal"), log).unwrap();
    }
    path
}

async fn is_told(
    rig: &Rig,
    store: &[u8],
    log: Option<&[u8]>,
    expected: &[String],
    codes: &mut BTreeSet<&'static str>,
) -> bool {
    match look(&place(rig, store, log)).await {
        Ok(seen) => assert_eq!(seen, expected),
        Err(error) => {
            codes.insert(error.code());
            return true;
        }
    }
    false
}

/// Reads all that can be read; how often the bus was said to be damaged.
async fn read_past(stream: &Stream) -> (Vec<String>, usize) {
    let (mut seen, mut damaged) = (Vec::new(), 0);
    let mut reader = stream.read(Interval::ALL).await.unwrap();
    loop {
        match reader.next().await {
            Ok(Some(delivery)) => seen.push(line(&delivery)),
            Ok(None) => return (seen, damaged),
            Err(Error::Bus(BusError::Damaged { .. })) => damaged += 1,
            Err(error) => panic!("{error:?}"),
        }
        assert!(damaged < 100, "it ends");
    }
}

/// One stream with many messages, and one whose pages are its own.
async fn two_streams(rig: &Rig) {
    let alice = rig.home("alice").await;
    let stream = kitchen(&alice).await;
    for text in texts("message ", 150) {
        say(&stream, &text).await;
    }
    let options = sealcast::StreamOptions::default();
    let other = alice.create_stream(&name("cellar"), options).await;
    drop(other.unwrap());
}

/// Fault 17: a stretch of messages that cannot be read keeps nobody from those behind it.
#[tokio::test]
async fn what_lies_behind_a_damaged_page_of_a_bus_is_read() {
    let rig = Rig::small();
    two_streams(&rig).await;
    let file = rig.path("bus").join("bus.db");
    settle(&file);
    let whole = std::fs::read(&file).unwrap();
    let (mut partly, mut behind, mut refused, mut others) = (0, 0, 0, 0);
    for page in 0..whole.len() / PAGE {
        let mut broken = whole.clone();
        broken[page * PAGE..][..PAGE].fill(0);
        std::fs::remove_dir_all(rig.path("bus")).unwrap();
        std::fs::create_dir(rig.path("bus")).unwrap();
        std::fs::write(&file, broken).unwrap();
        let alice = rig.again("alice").await;
        let (stream, other) = (
            alice.stream(&name("kitchen")).await,
            alice.stream(&name("cellar")).await,
        );
        let stream = match stream {
            Ok(stream) => stream,
            Err(Error::Bus(BusError::Damaged { .. })) => {
                refused += 1;
                continue;
            }
            Err(error) => panic!("page {page}: {error:?}"),
        };
        let (seen, damaged) = read_past(&stream).await;
        let (gaps, opened): (Vec<_>, Vec<_>) = seen.iter().partition(|of| of.starts_with("Gap"));
        let all = texts("message ", 150);
        assert!(
            opened.iter().all(|of| all.contains(of)),
            "page {page}: {opened:?}"
        );
        let is_whole = opened.len() == all.len();
        assert_eq!(
            is_whole,
            damaged == 0,
            "page {page}: {} of {}",
            opened.len(),
            all.len()
        );
        if !is_whole {
            partly += usize::from(!opened.is_empty());
            let at_the_end = opened.last().is_none_or(|last| Some(*last) != all.last());
            behind += usize::from(!at_the_end);
            assert!(!gaps.is_empty() || at_the_end, "page {page}");
            match other {
                Ok(other) => assert_eq!(history(&other).await, [""; 0]),
                Err(Error::Bus(BusError::Damaged { .. })) => others += 1,
                Err(error) => panic!("page {page}: {error:?}"),
            }
        }
    }
    assert!(
        partly > 5 && refused > 0,
        "{partly} partly, {refused} not at all"
    );
    assert!(behind > partly / 2, "{behind} of {partly} go on behind");
    assert!(
        others < partly / 2,
        "{others}: the pages of a topic are its own"
    );
}

/// Where reading catches up with a topic that has grown since it began.
#[tokio::test]
async fn what_came_while_reading_caught_up_is_passed_where_it_is_damaged_and_nothing_is_read_twice()
{
    let rig = Rig::small();
    let [alice, bob] = rig.homes(["alice", "bob"]).await;
    let (stream, _) = kitchen_with(&alice, &bob).await;
    say(&stream, "0").await;
    let ground = Meddler::ground(
        |ask, topic| match ask == Ask::Read && topic.ends_with("/data") {
            true => Manner::Damaged(Offset(3)),
            false => Manner::Honest,
        },
    );
    let joined = open(&rig.on("bob", ground).await).await;
    let mut live = joined.subscribe(Some(Position::START)).await.unwrap();
    for text in texts("", 6).into_iter().skip(1) {
        say(&stream, &text).await;
    }
    assert_eq!(next(&mut live, 3).await, texts("", 3));
    let fault = live.next().await;
    assert!(matches!(fault, Err(Error::Bus(_))), "{fault:?}");
    assert_eq!(next(&mut live, 3).await, ["Gap(1)", "4", "5"]);
}

/// Neither live reading nor a revocation depends on messages that the bus cannot show any more, nor
/// does what a restored home learns of its own.
#[tokio::test]
async fn a_damaged_message_keeps_nobody_from_following_revoking_and_looking_back() {
    let (rig, time) = (Rig::small(), Time::new());
    let [alice, bob] = rig.homes_by(["alice", "bob"], &time).await;
    let stream = kitchen(&alice).await;
    let bobs = join(&bob, &stream).await;
    let both = Roles::READER.with(Roles::PUBLISHER);
    stream
        .grant(to(bob.user(), both, Interval::ALL))
        .await
        .unwrap();
    drop((stream, alice));
    copy_folder(&rig.path("alice"), &rig.path("older"));
    let stream = open(&rig.on("alice", time.ground()).await).await;
    for text in texts("", 3) {
        say(&bobs, &text).await;
    }
    say(&stream, "3").await;
    time.pass(60_000);
    let newest = say(&stream, "4").await;
    drop(stream);
    time.go_back(50_000);
    let manner = Arc::new(Mutex::new(Manner::Damaged(Offset(1))));
    let now = manner.clone();
    let ground = || {
        let now = now.clone();
        let bus =
            Meddler::ground(
                move |ask, topic| match ask == Ask::Read && topic.ends_with("/data") {
                    true => *now.lock().unwrap(),
                    false => Manner::Honest,
                },
            );
        Ground {
            bus: bus.bus,
            ..time.ground()
        }
    };
    for at in [1, 4] {
        *manner.lock().unwrap() = Manner::Damaged(Offset(at));
        let joined = open(&rig.on("bob", ground()).await).await;
        let mut live = joined.subscribe(None).await.unwrap();
        say(&bobs, "live").await;
        assert_eq!(next(&mut live, 1).await, ["live"], "{at}");
        live.finish().await.unwrap();
    }
    *manner.lock().unwrap() = Manner::Damaged(Offset(1));
    let stream = open(&rig.on("older", ground()).await).await;
    assert_eq!(stream.alarms(), [Alarm::HomeWentBack]);
    assert!(say(&stream, "after").await >= newest);
    stream.revoke_user(bob.user()).await.unwrap();
    assert_eq!(stream.who().await.unwrap().len(), 2);
}

/// Fault 17: nor does it keep those who follow from what comes.
#[tokio::test]
async fn who_follows_is_told_once_of_what_a_bus_cannot_show_and_goes_on_behind_it() {
    let rig = Rig::small();
    let [alice, bob] = rig.homes(["alice", "bob"]).await;
    let (stream, joined) = kitchen_with(&alice, &bob).await;
    let mut live = joined.subscribe(None).await.unwrap();
    say(&stream, "0").await;
    assert_eq!(next(&mut live, 1).await, ["0"]);
    for text in texts("", 4).into_iter().skip(1) {
        say(&stream, &text).await;
    }
    let lost = rig.data(&stream).await.remove(2);
    let database = rusqlite::Connection::open(rig.path("bus").join("bus.db")).unwrap();
    let sql = "DELETE FROM item WHERE payload = ?1";
    assert_eq!(database.execute(sql, [lost]).unwrap(), 1);
    assert_eq!(next(&mut live, 1).await, ["1"]);
    let fault = live.next().await;
    let is_damaged = matches!(fault, Err(Error::Bus(BusError::Damaged { .. })));
    assert!(is_damaged, "{fault:?}");
    assert_eq!(live.damages_passed(), 1);
    assert_eq!(next(&mut live, 2).await, ["Gap(1)", "3"]);
    say(&stream, "4").await;
    assert_eq!(next(&mut live, 1).await, ["4"]);
    live.finish().await.unwrap();
}

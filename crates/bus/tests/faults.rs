//! What a file bus says when its place is missing, foreign, damaged or full.
#![cfg(test)]

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use sealcast_bus::{Bus, BusError, FileBus, Item, Limits, Offset, Topic};

const PAGE: usize = 4096;

#[tokio::test]
async fn a_missing_folder_is_created_with_everything_above_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b/c");
    let bus = FileBus::open(&path).await.unwrap();
    append(&bus, "t", 1).await.unwrap();
    assert!(path.join("bus.db").is_file());
}

#[tokio::test]
async fn a_place_that_cannot_be_a_folder_is_unreachable() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "in the way").unwrap();
    for place in [file.join("bus"), file.clone()] {
        let error = FileBus::open(&place).await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, BusError::Unreachable { .. }), "{error:?}");
        assert!(text.contains(place.to_str().unwrap()), "no path: {text}");
        assert!(error.source().is_some(), "no cause");
    }
}

#[tokio::test]
async fn a_folder_in_place_of_the_database_is_unreachable() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("bus.db")).unwrap();
    let error = FileBus::open(folder.path()).await.unwrap_err();
    assert!(matches!(error, BusError::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_database_of_another_program_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let database = Connection::open(folder.path().join("bus.db")).unwrap();
    database.execute_batch("CREATE TABLE theirs (a)").unwrap();
    let error = FileBus::open(folder.path()).await.unwrap_err();
    assert!(matches!(error, BusError::Damaged { .. }), "{error:?}");
    let tables: i64 = database
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .unwrap();
    assert_eq!(tables, 1);
}

#[tokio::test]
async fn a_bus_of_format_1_reads_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/format-1.db");
    fs::copy(fixture, folder.path().join("bus.db")).unwrap();
    let bus = FileBus::open(folder.path()).await.unwrap();
    let payloads =
        |items: Vec<Item>| -> Vec<Vec<u8>> { items.into_iter().map(|item| item.payload).collect() };
    let first = read(&bus, "t", 0).await.unwrap();
    assert_eq!(payloads(first), [&b"a"[..], b"bc"]);
    let second = read(&bus, "s/1f00/data", 0).await.unwrap();
    assert_eq!(payloads(second), [vec![], vec![0xff; 5000]]);
    assert_eq!(append(&bus, "t", 1).await.unwrap(), Offset(2));
    bus.trim(&topic("t"), Offset(1)).await.unwrap();
    assert_eq!(read(&bus, "t", 0).await.unwrap()[0].offset, Offset(1));
    assert_eq!(heard_again(&bus).await, b"again");
}

/// Sends something, and returns what is heard of it.
async fn heard_again(bus: &FileBus) -> Vec<u8> {
    let mut listener = bus.listen(vec![topic("ask")]).await.unwrap();
    bus.send(&topic("ask"), b"again".to_vec()).await.unwrap();
    listener.next().await.unwrap().1
}

#[tokio::test]
async fn a_bus_of_format_2_reads_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/format-2.db");
    fs::copy(fixture, folder.path().join("bus.db")).unwrap();
    let bus = FileBus::open(folder.path()).await.unwrap();
    // The first was trimmed.
    let items = read(&bus, "d/00/inbox", 0).await.unwrap();
    let items: Vec<_> = items
        .into_iter()
        .map(|item| (item.offset.0, item.payload))
        .collect();
    assert_eq!(items, [(1, b"bc".to_vec()), (2, vec![])]);
    assert_eq!(append(&bus, "d/00/inbox", 1).await.unwrap(), Offset(3));
    // The one that was sent, `who?` on `ask`, is not heard any more.
    assert_eq!(heard_again(&bus).await, b"again");
}

#[tokio::test]
async fn a_newer_format_is_refused_and_named() {
    let folder = tempfile::tempdir().unwrap();
    drop(FileBus::open(folder.path()).await.unwrap());
    let database = Connection::open(folder.path().join("bus.db")).unwrap();
    database.pragma_update(None, "user_version", 9).unwrap();
    let error = FileBus::open(folder.path()).await.unwrap_err();
    let newer = matches!(
        error,
        BusError::TooNew {
            found: 9,
            known: 2,
            ..
        }
    );
    assert!(newer, "{error:?}");
}

#[tokio::test]
async fn a_file_of_garbage_is_damaged() {
    for garbage in [
        vec![7; 100],
        vec![7; PAGE],
        vec![0; PAGE],
        vec![0xff; 3 * PAGE],
    ] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("bus.db"), garbage).unwrap();
        let error = FileBus::open(folder.path()).await.unwrap_err();
        assert!(matches!(error, BusError::Damaged { .. }), "{error:?}");
        assert!(error.source().is_some(), "no cause");
    }
}

#[tokio::test]
async fn a_damaged_page_is_reported_and_never_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let whole = filled(folder.path()).await;
    let mut damaged = 0;
    for page in 0..whole.len() / PAGE {
        for fill in [0x00, 0x5a, 0xff] {
            let mut broken = whole.clone();
            broken[page * PAGE..][..PAGE].fill(fill);
            damaged += usize::from(is_reported(&broken).await);
        }
    }
    assert!(damaged > whole.len() / PAGE, "only {damaged} were noticed");
}

/// Whatever a page becomes, each item comes back as it was, or an error does; items of topics whose
/// pages are whole come back.
#[tokio::test]
async fn damage_to_a_page_loses_what_lies_on_it_and_nothing_reads_as_something_else() {
    let folder = tempfile::tempdir().unwrap();
    let whole = numbered_bus(folder.path(), true).await;
    let (mut lost, mut found) = (BTreeSet::new(), 0);
    for page in 0..whole.len() / PAGE {
        for damage in DAMAGES {
            let mut broken = whole.clone();
            damage(&mut broken[page * PAGE..][..PAGE]);
            let left = check_items(&broken, None, &format!("page {page}")).await;
            lost.insert(3 * ITEMS - left);
            found += left;
        }
    }
    assert!(lost.contains(&0) && lost.contains(&(3 * ITEMS)), "{lost:?}");
    assert!(
        lost.iter().any(|lost| (1..ITEMS).contains(lost)),
        "{lost:?}"
    );
    assert!(found > 0);
}

/// The log that SQLite keeps beside the database holds the newest transactions. Damage there may cost
/// the last of them, each whole.
#[tokio::test]
async fn damage_to_the_log_loses_last_appends_whole() {
    let folder = tempfile::tempdir().unwrap();
    let whole = numbered_bus(folder.path(), false).await;
    let log = fs::read(folder.path().join("bus.db-wal")).unwrap();
    let mut lost = BTreeSet::new();
    for at in (0..log.len()).step_by(log.len() / 150) {
        let mut broken = log.clone();
        broken[at] ^= 0xff;
        let left = check_items(&whole, Some(&broken), &format!("log byte {at}")).await;
        lost.insert(3 * ITEMS - left);
    }
    assert!(lost.len() > 3, "{lost:?}");
}

const ITEMS: usize = 60;
const DAMAGES: [fn(&mut [u8]); 5] = [
    |page| page.fill(0),
    |page| page.fill(0xa5),
    |page| page[0] ^= 0x08,
    |page| page[PAGE / 2] ^= 0xff,
    |page| page.rotate_left(100),
];

/// What the item of a number holds.
fn numbered(name: &str, number: usize) -> Vec<u8> {
    let head = format!("{name} {number} ").into_bytes();
    let filler = vec![number as u8; 150 + 40 * (number % 5)];
    [head, filler].concat()
}

/// Three topics with numbered items. Returns the database; without the log where `is_one_file`.
async fn numbered_bus(folder: &Path, is_one_file: bool) -> Vec<u8> {
    let bus = FileBus::open(folder).await.unwrap();
    for number in 0..ITEMS {
        for name in ["a", "b", "c"] {
            let payload = numbered(name, number);
            bus.append(&topic(name), vec![payload]).await.unwrap();
        }
    }
    let path = folder.join("bus.db");
    if is_one_file {
        let database = Connection::open(&path).unwrap();
        let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
        database.query_row(sql, [], |_| Ok(())).unwrap();
    }
    fs::read(path).unwrap()
}

/// Reads all items of a bus, each by its offset where reading on fails. Counts those that came.
async fn check_items(database: &[u8], log: Option<&[u8]>, what: &str) -> usize {
    let folder = scratch();
    fs::write(folder.path().join("bus.db"), database).unwrap();
    if let Some(log) = log {
        fs::write(folder.path().join("bus.db-wal"), log).unwrap();
    }
    let bus = match FileBus::open(folder.path()).await {
        Ok(bus) => bus,
        Err(error) => {
            assert!(is_damaged(&error), "{what}");
            return 0;
        }
    };
    let mut left = 0;
    for name in ["a", "b", "c"] {
        let mut at = 0;
        while at < ITEMS {
            let from = at;
            at += 1;
            let items = match bus
                .read(&topic(name), Offset(from as u64), usize::MAX)
                .await
            {
                Ok(items) => items,
                Err(error) => {
                    assert!(is_damaged(&error), "{what}");
                    continue;
                }
            };
            for (number, item) in (from..).zip(items) {
                let expected = numbered(name, number);
                assert_eq!(item.offset, Offset(number as u64), "{what}");
                // A byte altered in a payload is for its reader to notice.
                left += usize::from(item.payload == expected);
                at = number + 1;
            }
        }
    }
    left
}

fn scratch() -> tempfile::TempDir {
    let memory = tempfile::tempdir_in("/dev/shm");
    memory.unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

#[tokio::test]
async fn a_database_that_was_cut_short_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let whole = filled(folder.path()).await;
    for pages in [1, 2, whole.len() / PAGE / 2] {
        assert!(is_reported(&whole[..pages * PAGE]).await, "{pages} pages");
    }
}

#[tokio::test]
async fn a_missing_item_is_damage_and_not_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let bus = FileBus::open(folder.path()).await.unwrap();
    append(&bus, "t", 5).await.unwrap();
    let database = Connection::open(folder.path().join("bus.db")).unwrap();
    let key = (1_i64 << 40) | 3;
    database
        .execute("DELETE FROM item WHERE key = ?1", [key])
        .unwrap();
    let offsets = |items: Vec<Item>| -> Vec<u64> { items.iter().map(|of| of.offset.0).collect() };
    assert_eq!(offsets(read(&bus, "t", 0).await.unwrap()), [0, 1, 2]);
    let error = read(&bus, "t", 3).await.unwrap_err();
    assert!(matches!(error, BusError::Damaged { .. }), "{error:?}");
    assert_eq!(offsets(read(&bus, "t", 4).await.unwrap()), [4]);
    // What is missing at the low end was trimmed, and at the high end was not.
    let trim = "DELETE FROM item WHERE key & 255 < 3";
    database.execute(trim, []).unwrap();
    assert_eq!(offsets(read(&bus, "t", 0).await.unwrap()), [4]);
    append(&bus, "t", 2).await.unwrap();
    let cut = "DELETE FROM item WHERE key & 255 > 4";
    database.execute(cut, []).unwrap();
    assert_eq!(offsets(read(&bus, "t", 0).await.unwrap()), [4]);
    let error = read(&bus, "t", 5).await.unwrap_err();
    assert!(matches!(error, BusError::Damaged { .. }), "{error:?}");
}

#[tokio::test]
async fn a_tail_gives_the_items_of_others_between_errors_about_one_that_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let bus = FileBus::open(folder.path()).await.unwrap();
    for name in ["a", "b", "c"] {
        append(&bus, name, 1).await.unwrap();
    }
    let database = Connection::open(folder.path().join("bus.db")).unwrap();
    database
        .execute_batch("UPDATE topic SET next_offset = 2 WHERE name = 'b'")
        .unwrap();
    let from = ["a", "b", "c"].map(|name| (topic(name), Offset(0)));
    let mut tail = bus.tail(from.to_vec());
    let mut told = Vec::new();
    for round in 0..12 {
        told.push(match tail.next().await {
            Ok((of, items)) => format!("{of}{}", items[0].offset),
            Err(error) => {
                assert!(is_damaged(&error), "{error:?}");
                "damaged".to_owned()
            }
        });
        if round % 4 == 3 {
            append(&bus, "a", 1).await.unwrap();
            append(&bus, "c", 1).await.unwrap();
        }
    }
    let all = "a0 b0 c0 damaged c1 a1 damaged damaged c2 a2 damaged damaged";
    assert_eq!(told.join(" "), all);
}

#[tokio::test]
async fn a_bus_that_others_keep_locked_is_busy_and_then_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let bus = FileBus::open(folder.path()).await.unwrap();
    append(&bus, "t", 1).await.unwrap();
    let other = Connection::open(folder.path().join("bus.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    // Each on a handle of its own: one handle writes one thing after the other.
    let again = FileBus::open(folder.path()).await.unwrap();
    let third = FileBus::open(folder.path()).await.unwrap();
    let mut listener = bus.listen(vec![topic("ask")]).await.unwrap();
    let (ask, inbox) = (topic("ask"), topic("t"));
    let errors = tokio::join!(
        async { append(&bus, "t", 1).await.unwrap_err() },
        async { again.send(&ask, b"unheard".to_vec()).await.unwrap_err() },
        async { third.trim(&inbox, Offset(1)).await.unwrap_err() },
    );
    for error in <[BusError; 3]>::from(errors) {
        assert!(matches!(error, BusError::Busy { .. }), "{error:?}");
    }
    assert_eq!(read(&bus, "t", 0).await.unwrap().len(), 1);
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(append(&bus, "t", 1).await.unwrap(), Offset(1));
    again.send(&ask, b"heard".to_vec()).await.unwrap();
    assert_eq!(listener.next().await.unwrap().1, b"heard");
    third.trim(&inbox, Offset(1)).await.unwrap();
    assert_eq!(read(&bus, "t", 0).await.unwrap().len(), 1);
}

#[cfg(unix)]
#[tokio::test]
async fn a_bus_that_was_removed_or_replaced_while_open_takes_nothing_more() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bus");
    let bus = FileBus::open(&path).await.unwrap();
    append(&bus, "t", 1).await.unwrap();
    let mut tail = bus.tail(vec![(topic("t"), Offset(1))]);
    let mut listener = bus.listen(vec![topic("t")]).await.unwrap();
    fs::remove_dir_all(&path).unwrap();
    for replaced in [false, true] {
        if replaced {
            FileBus::open(&path).await.unwrap();
        }
        for error in [
            append(&bus, "t", 1).await.unwrap_err(),
            read(&bus, "t", 0).await.unwrap_err(),
            tail.next().await.unwrap_err(),
            bus.trim(&topic("t"), Offset(1)).await.unwrap_err(),
            bus.send(&topic("t"), vec![1]).await.unwrap_err(),
            bus.listen(vec![topic("t")]).await.unwrap_err(),
            listener.next().await.unwrap_err(),
        ] {
            assert!(matches!(error, BusError::Unreachable { .. }), "{error:?}");
        }
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_tail_that_waits_notices_that_the_bus_was_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bus");
    let bus = FileBus::open(&path).await.unwrap();
    let mut tail = bus.tail(vec![(topic("t"), Offset(0))]);
    let mut next = tail.next();
    let early = tokio::time::timeout(Duration::from_millis(200), &mut next).await;
    assert!(early.is_err(), "an empty bus brought something");
    fs::remove_dir_all(&path).unwrap();
    let told = tokio::time::timeout(Duration::from_secs(60), next).await;
    let error = told.expect("was not told").unwrap_err();
    assert!(matches!(error, BusError::Unreachable { .. }), "{error:?}");
}

/// Makes a bus of several pages in `folder` and returns its database as one file.
async fn filled(folder: &Path) -> Vec<u8> {
    let bus = FileBus::open(folder).await.unwrap();
    for name in ["a", "b", "c"] {
        for _ in 0..20 {
            append(&bus, name, 5).await.unwrap();
        }
        bus.append(&topic(name), vec![vec![1; 3 * PAGE]])
            .await
            .unwrap();
        for size in [10, PAGE, 3 * PAGE] {
            bus.send(&topic(name), vec![2; size]).await.unwrap();
        }
    }
    let path = folder.join("bus.db");
    let database = Connection::open(&path).unwrap();
    database.execute("UPDATE sent SET time = 0", []).unwrap();
    database
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
            assert_eq!(row.get(0), Ok(0), "the log was busy");
            Ok(())
        })
        .unwrap();
    fs::read(path).unwrap()
}

/// Uses a bus with this database in every way; whether the damage was met.
async fn is_reported(database: &[u8]) -> bool {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("bus.db"), database).unwrap();
    let bus = match FileBus::open(folder.path()).await {
        Ok(bus) => bus,
        Err(error) => return is_damaged(&error),
    };
    let mut reported = false;
    for name in ["a", "b", "c"] {
        for outcome in [
            read_to_end(&bus, name).await,
            bus.end(&topic(name)).await.map(drop),
            append(&bus, name, 5).await.map(drop),
            send_and_hear(&bus, name).await,
            bus.trim(&topic(name), Offset(u64::MAX)).await,
        ] {
            reported |= outcome.is_err_and(|error| is_damaged(&error));
        }
    }
    reported
}

/// What is sent removes what was sent long before.
async fn send_and_hear(bus: &FileBus, name: &str) -> Result<(), BusError> {
    let mut listener = bus.listen(vec![topic(name)]).await?;
    bus.send(&topic(name), vec![3; 10]).await?;
    let (_, heard) = listener.next().await?;
    assert_eq!(heard, [3; 10]);
    Ok(())
}

fn is_damaged(error: &BusError) -> bool {
    assert!(matches!(error, BusError::Damaged { .. }), "{error:?}");
    true
}

async fn append(bus: &FileBus, name: &str, items: usize) -> Result<Offset, BusError> {
    bus.append(&topic(name), vec![vec![9; 300]; items]).await
}

async fn read(bus: &FileBus, name: &str, from: u64) -> Result<Vec<Item>, BusError> {
    bus.read(&topic(name), Offset(from), usize::MAX).await
}

async fn read_to_end(bus: &FileBus, name: &str) -> Result<(), BusError> {
    let mut at = 0;
    while let Some(last) = read(bus, name, at).await?.last() {
        at = last.offset.0 + 1;
    }
    Ok(())
}

fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

/// A small disk of its own, where the machine lets us have one; the appender's unit tests fill a
/// database everywhere else.
#[cfg(target_os = "linux")]
mod small_disk {
    use super::*;
    use std::process::Command;

    struct Disk(PathBuf);

    impl Disk {
        fn mount(at: &Path) -> Option<Self> {
            let mut mount = Command::new("mount");
            mount.args(["-t", "tmpfs", "-o", "size=2m", "none"]).arg(at);
            let mounted = mount.output().is_ok_and(|output| output.status.success());
            mounted.then(|| Self(at.to_owned()))
        }
    }

    impl Drop for Disk {
        fn drop(&mut self) {
            Command::new("umount").arg("-l").arg(&self.0).status().ok();
        }
    }

    #[tokio::test]
    async fn a_full_disk_is_told_and_the_bus_goes_on_when_there_is_room() {
        let folder = tempfile::tempdir().unwrap();
        let Some(disk) = Disk::mount(folder.path()) else {
            return;
        };
        let path = disk.0.join("bus");
        let bus = FileBus::open(&path).await.unwrap();
        append(&bus, "t", 3).await.unwrap();
        let ballast = disk.0.join("ballast");
        fs::write(&ballast, vec![0; 1 << 20]).unwrap();

        let mut written = 3;
        let error = loop {
            match bus.append(&topic("t"), vec![vec![1; 50_000]; 2]).await {
                Ok(_) => written += 2,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, BusError::Full { .. }), "{error:?}");
        assert_eq!(bus.end(&topic("t")).await.unwrap(), Offset(written));
        assert_eq!(read(&bus, "t", 0).await.unwrap().len() as u64, written);

        fs::remove_file(&ballast).unwrap();
        let first = append(&bus, "t", 1).await.unwrap();
        assert_eq!(first, Offset(written));
        assert_eq!(read(&bus, "t", 0).await.unwrap().len() as u64, written + 1);
    }

    #[tokio::test]
    async fn what_a_full_disk_keeps_from_being_sent_or_trimmed_is_told_and_goes_on_later() {
        let folder = tempfile::tempdir().unwrap();
        let Some(disk) = Disk::mount(folder.path()) else {
            return;
        };
        let bus = FileBus::open(disk.0.join("bus")).await.unwrap();
        let ask = topic("ask");
        let mut listener = bus.listen(vec![ask.clone()]).await.unwrap();
        append(&bus, "t", 3).await.unwrap();
        let ballast = disk.0.join("ballast");
        assert!(fs::write(&ballast, vec![0; 4 << 20]).is_err());
        let mut sent = 0;
        let error = loop {
            match bus.send(&ask, vec![4; Limits::SENT_MAX]).await {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, BusError::Full { .. }), "{error:?}");
        let error = bus.trim(&topic("t"), Offset(2)).await.unwrap_err();
        assert!(matches!(error, BusError::Full { .. }), "{error:?}");
        assert_eq!(read(&bus, "t", 0).await.unwrap().len(), 3);

        fs::remove_file(&ballast).unwrap();
        bus.trim(&topic("t"), Offset(2)).await.unwrap();
        assert_eq!(read(&bus, "t", 0).await.unwrap().len(), 1);
        bus.send(&ask, vec![5]).await.unwrap();
        for _ in 0..sent {
            assert_eq!(listener.next().await.unwrap().1.len(), Limits::SENT_MAX);
        }
        assert_eq!(listener.next().await.unwrap().1, [5]);
    }

    #[tokio::test]
    async fn a_disk_without_room_for_a_bus_is_full() {
        let folder = tempfile::tempdir().unwrap();
        let Some(disk) = Disk::mount(folder.path()) else {
            return;
        };
        let room = fs::write(disk.0.join("ballast"), vec![0; 4 << 20]);
        assert!(room.is_err(), "the disk is not small");
        let error = FileBus::open(disk.0.join("bus")).await.unwrap_err();
        assert!(matches!(error, BusError::Full { .. }), "{error:?}");
    }
}

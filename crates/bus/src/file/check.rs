//! What a folder offers as a bus, without making one.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rusqlite::Connection;

use super::fault::Fault;
use super::schema::Format;
use super::{BATCH_MAX, FileBus, PAYLOAD_MAX, place, scan, schema};
use crate::{Aspect, BusError, BusReport, BusSetup, Standing, Topic};

/// Below so much free room, in bytes, a bus is nearly full.
const ROOM_MIN: u64 = 1 << 30;

impl FileBus {
    /// Says what a folder offers as a bus; makes nothing.
    ///
    /// # Errors
    ///
    /// [`BusError::Unreachable`] when the folder may not be looked into, [`BusError::TooNew`] when a
    /// newer version of this program wrote the bus there, [`BusError::Busy`] when others keep it
    /// locked for 10 s.
    pub async fn check(folder: impl AsRef<Path>) -> Result<BusReport, BusError> {
        let folder = folder.as_ref().to_owned();
        scan::run_blocking(move || check(&folder)).await
    }

    /// Makes what is missing of a folder and the bus in it, and leaves alone what is there.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub async fn setup(folder: impl AsRef<Path>) -> Result<BusSetup, BusError> {
        let folder = folder.as_ref().to_owned();
        let (has_folder, found) = (folder.is_dir(), Self::check(&folder).await?);
        let shown = folder.display();
        let database = folder.join(schema::FILE_NAME);
        if found.standing == Standing::Ready {
            return Ok(BusSetup::left(format!("the bus {}", database.display())));
        }
        // Whatever keeps a folder from being a bus keeps it from being opened.
        drop(Self::open(&folder).await?);
        let mut setup = BusSetup::made(format!("the bus {}", database.display()));
        let words = format!("the folder {shown}");
        match has_folder {
            true => setup.left.push(words),
            false => setup.made.insert(0, words),
        }
        Ok(setup)
    }
}

fn check(folder: &Path) -> Result<BusReport, BusError> {
    let absolute = std::path::absolute(folder);
    let folder = absolute.as_deref().unwrap_or(folder);
    let path = folder.join(schema::FILE_NAME);
    let looked = look(folder, &path);
    let mut report = looked.map_err(|fault| place::tell(&path, fault, Format::BUS))?;
    report.state(
        Aspect::Server,
        format!("none: SQLite {} in this program", rusqlite::version()),
    );
    report.state(Aspect::Cluster, "one machine, whose disk has the only copy");
    report.state(Aspect::Tls, "not needed: nothing leaves this machine");
    report.state(Aspect::History, "all of it");
    report.state(Aspect::Retention, "nothing is removed by itself");
    report.state(
        Aspect::Limits,
        format!(
            "{} a payload, {} an append",
            BusReport::size(PAYLOAD_MAX as u64),
            BusReport::size(BATCH_MAX as u64)
        ),
    );
    describe_disk(&mut report, folder, &path);
    Ok(report)
}

fn look(folder: &Path, path: &Path) -> Result<BusReport, Fault> {
    match std::fs::metadata(folder) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Ok(unusable("there is a file, and not a folder")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(BusReport::new(Standing::Missing));
        }
        Err(error) => return Err(error.into()),
    }
    match std::fs::metadata(path) {
        Ok(found) if found.len() > 0 => {}
        Ok(_) => return Ok(BusReport::new(Standing::Missing)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(BusReport::new(Standing::Missing));
        }
        Err(error) => return Err(error.into()),
    }
    let opened = schema::look(path);
    match opened.and_then(|found| found.map(examine).transpose()) {
        Ok(Some(report)) => Ok(report),
        Ok(None) => Ok(BusReport::new(Standing::Missing)),
        Err(fault) if fault.kind() == super::fault::Kind::Damaged => {
            Ok(unusable(format!("what lies there is not a bus: {fault}")))
        }
        Err(fault) => Err(fault),
    }
}

fn unusable(why: impl Into<String>) -> BusReport {
    BusReport::new(Standing::Unusable(why.into()))
}

/// What is to be said of a database that is that of a bus.
fn examine((connection, format): (Connection, u32)) -> Result<BusReport, Fault> {
    let mut report = BusReport::new(Standing::Ready);
    let start = Instant::now();
    let topic = Topic::new("check").map_err(|_| Fault::OutOfRange)?;
    scan::end(&connection, &topic)?;
    report.round_trip = Some(start.elapsed());
    let journal: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    report.state(
        Aspect::Durability,
        match journal.as_str() {
            "wal" => "an append is on the disk before it is acknowledged (write-ahead log)",
            _ => "unknown: there is no write-ahead log",
        },
    );
    if format < Format::BUS.version() {
        let newest = Format::BUS.version();
        let says = format!("it has format {format}; whoever uses it next makes it format {newest}");
        report.warn(says, [""; 0]);
    }
    if connection.is_readonly("main")? {
        let says = "this user may read it and not write to it: nothing can be published or granted";
        report.warn(says, [""; 0]);
    }
    Ok(report)
}

/// Says what is known of the file system that the folder lies on, or will.
fn describe_disk(report: &mut BusReport, folder: &Path, path: &Path) {
    if report.stated(Aspect::Durability).is_none() {
        let says = "an append is on the disk before it is acknowledged, once there is a bus";
        report.state(Aspect::Durability, says);
    }
    let taken: u64 = ["", "-wal", "-shm"]
        .iter()
        .filter_map(|end| {
            let mut name = path.as_os_str().to_owned();
            name.push(end);
            std::fs::metadata(PathBuf::from(name)).ok()
        })
        .map(|of| of.len())
        .sum();
    let taken = BusReport::size(taken);
    let there = folder.ancestors().find(|of| of.is_dir());
    let free = there.and_then(free_room);
    report.state(
        Aspect::Room,
        match free {
            Some(free) => format!("{} free on the disk, {taken} taken", BusReport::size(free)),
            None => format!("{taken} taken; how much is free is not known"),
        },
    );
    if free.is_some_and(|free| free < ROOM_MIN) {
        let says = "the disk is nearly full; a bus that is full takes nothing more";
        report.warn(says, [""; 0]);
    }
    if let Some(kind) = there.and_then(network) {
        let says = format!("the folder is on a network file system ({kind}), which loses items");
        report.warn(says, [""; 0]);
    }
}

#[cfg(unix)]
fn free_room(folder: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(folder).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

#[cfg(not(unix))]
fn free_room(_folder: &Path) -> Option<u64> {
    None
}

/// What a network file system is called, where the folder is on one.
#[cfg(target_os = "linux")]
fn network(folder: &Path) -> Option<&'static str> {
    let found = rustix::fs::statfs(folder).ok()?;
    match found.f_type as u32 {
        0x6969 => Some("NFS"),
        0xff53_4d42 | 0xfe53_4d42 | 0x517b => Some("SMB"),
        0x0102_1997 => Some("9P"),
        0x00c3_6400 => Some("Ceph"),
        _ => None,
    }
}

#[cfg(not(target_os = "linux"))]
fn network(_folder: &Path) -> Option<&'static str> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_is_looked_at_and_nothing_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let standing = async |name: &str| FileBus::check(at(name)).await.unwrap().standing;
        assert_eq!(standing("missing/bus").await, Standing::Missing);
        assert!(!at("missing").exists());
        std::fs::create_dir(at("empty")).unwrap();
        assert_eq!(standing("empty").await, Standing::Missing);
        assert!(!at("empty/bus.db").exists());
        std::fs::write(at("file"), "x").unwrap();
        assert!(matches!(standing("file").await, Standing::Unusable(_)));
        std::fs::create_dir(at("other")).unwrap();
        std::fs::write(
            at("other/bus.db"),
            "something else, and longer than a header",
        )
        .unwrap();
        assert!(matches!(standing("other").await, Standing::Unusable(_)));
        let foreign = Connection::open(at("empty/bus.db")).unwrap();
        foreign.execute_batch("CREATE TABLE t (a)").unwrap();
        drop(foreign);
        assert!(matches!(standing("empty").await, Standing::Unusable(_)));
        assert!(FileBus::setup(at("empty")).await.is_err());
    }

    #[tokio::test]
    async fn a_bus_is_set_up_once_and_says_everything() {
        let folder = tempfile::tempdir().unwrap();
        let bus = folder.path().join("srv/bus");
        let setup = FileBus::setup(&bus).await.unwrap();
        assert_eq!((setup.made.len(), setup.left.len()), (2, 0), "{setup:?}");
        let again = FileBus::setup(&bus).await.unwrap();
        assert_eq!((again.made.len(), again.left.len()), (0, 1), "{again:?}");
        let report = FileBus::check(&bus).await.unwrap();
        assert_eq!(report.standing, Standing::Ready);
        assert_eq!(
            (report.unstated(), report.round_trip.is_some()),
            (vec![], true)
        );
        let durability = report.stated(Aspect::Durability).unwrap();
        assert!(durability.contains("write-ahead log"), "{durability}");
    }

    #[tokio::test]
    async fn an_older_format_stays_and_a_newer_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(schema::FILE_NAME);
        let old = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/format-1.db");
        std::fs::copy(old, &path).unwrap();
        let report = FileBus::check(folder.path()).await.unwrap();
        assert_eq!(report.standing, Standing::Ready);
        assert!(report.warnings()[0].says.contains("format 1"));
        let connection = Connection::open(&path).unwrap();
        let version = connection.pragma_query_value(None, "user_version", |row| row.get(0));
        assert_eq!(version, Ok(1));
        connection.pragma_update(None, "user_version", 99).unwrap();
        let refused = FileBus::check(folder.path()).await;
        assert!(matches!(refused, Err(BusError::TooNew { found: 99, .. })));
    }
}

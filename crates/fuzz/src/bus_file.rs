//! The database of a `file:` bus, to which others wrote what they liked.
//!
//! It tells damage, or gives items in order and without a hole between them.

use std::fs;
use std::path::Path;

use arbitrary::{Result, Unstructured};
use rusqlite::Connection;
use rusqlite::types::Value;
use sealcast_bus::{Bus, BusError, FileBus, Item, Offset, Topic};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

const NAMES: [&str; 3] = ["s/1f00/data", "s/1f00/keys", "s/1f00/ask"];
const CHANGES_MAX: usize = 8;
const READ_BYTES: usize = 64;

pub(crate) fn bus_file(bytes: &[u8]) {
    let mut choices = Unstructured::new(bytes);
    let (Ok(runtime), Some(folder)) = (runtime(), folder()) else {
        return;
    };
    if runtime.block_on(begin(folder.path())).is_err() {
        return;
    }
    // What is left when the choices run out is read all the same.
    let _done = change(&mut choices, folder.path());
    let told = runtime.block_on(read(folder.path()));
    if let Err(error) = told {
        let is_told = matches!(error, BusError::Damaged { .. } | BusError::TooNew { .. });
        assert!(is_told || is_full(&error), "{error}");
    }
}

fn is_full(error: &BusError) -> bool {
    matches!(error, BusError::Full { .. } | BusError::Unreachable { .. })
}

fn runtime() -> std::io::Result<Runtime> {
    Builder::new_current_thread().enable_time().build()
}

fn folder() -> Option<TempDir> {
    let memory = Path::new("/dev/shm");
    let folder = match fs::exists(memory) {
        Ok(true) => TempDir::new_in(memory),
        Ok(false) | Err(_) => TempDir::new(),
    };
    folder.ok()
}

async fn begin(folder: &Path) -> std::result::Result<(), BusError> {
    let bus = FileBus::open(folder).await?;
    for name in NAMES {
        if let Ok(topic) = Topic::new(name) {
            bus.append(
                &topic,
                vec![b"one".to_vec(), b"two".to_vec(), b"three".to_vec()],
            )
            .await?;
            bus.send(&topic, b"who?".to_vec()).await?;
        }
    }
    Ok(())
}

/// Changes rows; what SQLite does not let in stays out.
fn change(choices: &mut Unstructured<'_>, folder: &Path) -> Result<()> {
    let Ok(database) = Connection::open(folder.join("bus.db")) else {
        return Ok(());
    };
    for _ in 0..choices.int_in_range(0..=CHANGES_MAX)? {
        let sql = choices.choose(&[
            "UPDATE topic SET next_offset = ?1 WHERE id = ?2",
            "UPDATE topic SET id = ?1 WHERE id = ?2",
            "UPDATE topic SET name = ?1 WHERE id = ?2",
            "INSERT INTO item (key, payload) VALUES (?2 * 1099511627776 + ?1, x'07')",
            "UPDATE item SET key = ?1 WHERE key = ?2 * 1099511627776",
            "UPDATE item SET payload = ?1 WHERE key = ?2 * 1099511627776 + 1",
            "DELETE FROM item WHERE key >= ?2 * 1099511627776 + ?1",
            "UPDATE sent SET id = ?1 WHERE id = ?2",
            "UPDATE sent SET time = ?1 WHERE id = ?2",
            "UPDATE sent SET topic = ?1 WHERE id = ?2",
            "DELETE FROM sent WHERE id = ?2 OR id = ?1",
            "PRAGMA user_version = 3",
        ])?;
        let id: i64 = choices.int_in_range(1..=3)?;
        let value = value(choices)?;
        let _refused = match sql.contains("?1") {
            true => database.execute(sql, (value, id)),
            false => database.execute(sql, ()),
        };
    }
    Ok(())
}

fn value(choices: &mut Unstructured<'_>) -> Result<Value> {
    Ok(match choices.int_in_range(0..=5)? {
        0 => Value::Integer(choices.int_in_range(-2..=6)?),
        1 => Value::Integer(choices.arbitrary()?),
        2 => Value::Integer(i64::MAX),
        3 => Value::Text(NAMES[choices.choose_index(NAMES.len())?].to_owned()),
        4 => Value::Text(String::new()),
        _ => Value::Blob(vec![7; choices.int_in_range(0..=100)?]),
    })
}

async fn read(folder: &Path) -> std::result::Result<(), BusError> {
    let bus = FileBus::open(folder).await?;
    for name in NAMES {
        let Ok(topic) = Topic::new(name) else {
            continue;
        };
        let mut from = Offset(0);
        for _ in 0..8 {
            let items = bus.read(&topic, from, READ_BYTES).await?;
            in_order(from, &items);
            let Some(last) = items.last() else {
                break;
            };
            from = Offset(last.offset.0 + 1);
        }
        let end = bus.end(&topic).await?;
        let at = bus.append(&topic, vec![b"four".to_vec()]).await?;
        assert_eq!(at, end, "it goes on where it ended");
        let items = bus.read(&topic, at, READ_BYTES).await?;
        let is_back = items.first().is_some_and(|item| item.payload == b"four");
        assert!(is_back, "what was appended is there");
        bus.send(&topic, b"again?".to_vec()).await?;
        bus.trim(&topic, at).await?;
    }
    Ok(())
}

fn in_order(from: Offset, items: &[Item]) {
    assert!(items.first().is_none_or(|item| item.offset >= from));
    let are_dense = items
        .windows(2)
        .all(|pair| pair[0].offset.0 + 1 == pair[1].offset.0);
    assert!(are_dense, "nothing is passed over in silence");
}

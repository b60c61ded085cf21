//! What was sent on ephemeral topics and may still be heard; `spec/bus-file.md`, section 6.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::Connection;

use super::fault::Fault;
use crate::{Limits, Topic};

/// Rows that are left, of all topics together.
const KEPT_MAX: i64 = 1_024;
/// How long a row is left, unless there are too many.
const KEPT_FOR: Duration = Duration::from_secs(60);
const _: () = assert!(KEPT_MAX as usize > Limits::SENT_WAITING_MIN);

/// Where something was sent, and what.
pub(super) type Heard = (Topic, Vec<u8>);

/// The id of the newest row; 0 before the first.
pub(super) fn newest(connection: &Connection) -> Result<i64, Fault> {
    let mut statement = connection.prepare_cached("SELECT coalesce(max(id), 0) FROM sent")?;
    Ok(statement.query_row([], |row| row.get(0))?)
}

/// Removes the rows that are too many or too old, and adds one.
pub(super) fn insert(connection: &Connection, topic: &Topic, payload: &[u8]) -> Result<(), Fault> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    insert_at(connection, now.unwrap_or_default(), topic, payload)
}

/// `now` is the time since the Unix epoch.
fn insert_at(
    connection: &Connection,
    now: Duration,
    topic: &Topic,
    payload: &[u8],
) -> Result<(), Fault> {
    let newest = newest(connection)?;
    let id = newest.checked_add(1).ok_or(Fault::Exhausted)?;
    let too_many = id.saturating_sub(KEPT_MAX - 1);
    let ms = |time: Duration| i64::try_from(time.as_millis()).map_err(|_| Fault::OutOfRange);
    let old = ms(now.saturating_sub(KEPT_FOR))?;
    // The newest always stays, so that ids only ever grow. Room is made before it is used: a bus that
    // is full goes on carrying what is sent.
    connection
        .prepare_cached(
            "DELETE FROM sent WHERE id < max(?1, coalesce( \
             (SELECT id FROM sent WHERE time > ?2 ORDER BY id LIMIT 1), ?3))",
        )?
        .execute((too_many, old, newest))?;
    connection
        .prepare_cached("INSERT INTO sent (id, time, topic, payload) VALUES (?1, ?2, ?3, ?4)")?
        .execute((id, ms(now)?, topic.as_ref(), payload))?;
    Ok(())
}

/// Looks at the rows after one, in order, until the payloads found have `bytes_max` bytes. Returns
/// the id of the last, and what was sent on `topics`, which are sorted.
pub(super) fn after(
    connection: &Connection,
    mut id: i64,
    topics: &[Topic],
    bytes_max: usize,
) -> Result<(i64, Vec<Heard>), Fault> {
    let mut statement = connection
        .prepare_cached("SELECT id, topic, payload FROM sent WHERE id > ?1 ORDER BY id")?;
    let mut rows = statement.query([id])?;
    let (mut found, mut bytes) = (Vec::new(), 0);
    while bytes < bytes_max
        && let Some(row) = rows.next()?
    {
        id = row.get(0)?;
        let name = row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?;
        if let Ok(index) = topics.binary_search_by(|topic| topic.as_ref().cmp(name)) {
            let payload: Vec<u8> = row.get(2)?;
            bytes += payload.len();
            found.push((topics[index].clone(), payload));
        }
    }
    Ok((id, found))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::fault::Kind;
    use crate::file::schema;

    const START: Duration = Duration::from_secs(1_700_000_000);

    fn database(folder: &tempfile::TempDir) -> Connection {
        schema::create(&folder.path().join(schema::FILE_NAME), schema::Format::BUS).unwrap()
    }

    fn topic() -> Topic {
        Topic::new("s/1f00/ask").unwrap()
    }

    fn send(connection: &Connection, now: Duration) {
        insert_at(connection, now, &topic(), b"who?").unwrap();
    }

    fn ids(connection: &Connection) -> Vec<i64> {
        let mut statement = connection.prepare("SELECT id FROM sent").unwrap();
        let ids = statement.query_map([], |row| row.get(0)).unwrap();
        ids.collect::<Result<_, _>>().unwrap()
    }

    /// Fault 14.
    #[test]
    fn what_was_sent_goes_once_more_than_enough_was_sent_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut connection = database(&folder);
        let change = connection.transaction().unwrap();
        for _ in 0..3 * KEPT_MAX {
            send(&change, START);
            assert!(ids(&change).len() as i64 <= KEPT_MAX);
        }
        let kept: Vec<i64> = (2 * KEPT_MAX + 1..=3 * KEPT_MAX).collect();
        assert_eq!(ids(&change), kept);
    }

    /// Fault 14.
    #[test]
    fn what_was_sent_goes_with_the_first_that_is_sent_a_minute_later() {
        let folder = tempfile::tempdir().unwrap();
        let connection = database(&folder);
        let at = |ms| START + Duration::from_millis(ms);
        for ms in [0, 10, 20] {
            send(&connection, at(ms));
        }
        send(&connection, at(60_009));
        assert_eq!(ids(&connection), [2, 3, 4]);
        send(&connection, at(60_020));
        assert_eq!(ids(&connection), [4, 5]);
        // All are old now; the newest keeps its id from being used again.
        send(&connection, at(1_000_000));
        assert_eq!(ids(&connection), [5, 6]);
    }

    #[test]
    fn a_bus_that_may_not_grow_sends_again_once_what_it_keeps_is_old() {
        let folder = tempfile::tempdir().unwrap();
        let connection = database(&folder);
        connection
            .pragma_update_and_check(None, "max_page_count", 40, |_| Ok(()))
            .unwrap();
        let send = |now| insert_at(&connection, now, &topic(), &[1; 20_000]);
        let fault = loop {
            if let Err(fault) = send(START) {
                break fault;
            }
        };
        assert_eq!(fault.kind(), Kind::Full);
        send(START + KEPT_FOR).unwrap();
    }

    #[test]
    fn a_clock_set_back_keeps_nobody_from_sending_and_nothing_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let mut connection = database(&folder);
        let change = connection.transaction().unwrap();
        send(&change, START);
        for _ in 0..KEPT_MAX {
            send(&change, Duration::ZERO);
        }
        assert_eq!(ids(&change).first(), Some(&2));
        assert_eq!(ids(&change).len() as i64, KEPT_MAX);
    }

    #[test]
    fn ids_that_are_used_up_end_in_full_and_never_in_a_panic() {
        let folder = tempfile::tempdir().unwrap();
        let connection = database(&folder);
        for (last, is_full) in [(i64::MIN, false), (i64::MAX - 1, false), (i64::MAX, true)] {
            connection.execute("DELETE FROM sent", []).unwrap();
            let row = "INSERT INTO sent (id, time, topic, payload) VALUES (?1, 0, 't', x'')";
            connection.execute(row, [last]).unwrap();
            let outcome = insert_at(&connection, START, &topic(), b"who?");
            let kind = outcome.map_err(|fault| fault.kind());
            assert_eq!(kind.is_err(), is_full, "{last}: {kind:?}");
        }
    }
}

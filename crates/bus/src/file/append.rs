//! The one thread of a handle that writes.

use std::sync::Arc;

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::fault::{Fault, Kind};
use super::place::Place;
use super::scan;
use super::schema;
use super::watch::Watch;
use crate::{BusError, Offset, Topic};

/// Bytes of waiting appends that share one transaction.
const GROUP_BYTES_MAX: usize = 4 << 20;

/// A batch to append, and where to tell the outcome.
#[derive(Debug)]
pub(super) struct Append {
    pub(super) topic: Topic,
    /// Where the topic must end, if anywhere; nothing is appended otherwise.
    pub(super) at: Option<Offset>,
    pub(super) payloads: Vec<Vec<u8>>,
    /// `None` where the topic ended elsewhere.
    pub(super) done: oneshot::Sender<Result<Option<Offset>, BusError>>,
}

impl Append {
    fn bytes(&self) -> usize {
        self.payloads.iter().map(Vec::len).sum()
    }
}

/// Writes what is appended through one handle, in the order it was handed over.
#[derive(Debug)]
pub(super) struct Appender {
    place: Arc<Place>,
    /// `None` after a fault that may have left it unusable.
    connection: Option<Connection>,
    watch: Arc<Watch>,
}

impl Appender {
    pub(super) fn new(place: Arc<Place>, connection: Connection, watch: Arc<Watch>) -> Self {
        Self {
            place,
            connection: Some(connection),
            watch,
        }
    }

    /// Appends until every handle is gone.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Append>) {
        while let Some(first) = queue.blocking_recv() {
            let group = gather(first, &mut queue);
            self.append_group(group);
        }
    }

    fn append_group(&mut self, group: Vec<Append>) {
        match self.write(&group) {
            Ok(offsets) => {
                for (append, offset) in group.into_iter().zip(offsets) {
                    append.done.send(Ok(offset)).ok();
                }
            }
            // One of them may be what does not fit.
            Err(fault) if fault.kind() == Kind::Full && group.len() > 1 => {
                for append in group {
                    self.append_group(vec![append]);
                }
            }
            Err(fault) => {
                let fault = Arc::new(fault);
                for append in group {
                    let error = self.place.tell(Arc::clone(&fault));
                    append.done.send(Err(error)).ok();
                }
            }
        }
    }

    fn write(&mut self, group: &[Append]) -> Result<Vec<Option<Offset>>, Fault> {
        self.place.check()?;
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.place.connect()?,
        };
        let written = write(&mut connection, group);
        let usable = match &written {
            Ok(_) => true,
            Err(fault) => matches!(fault.kind(), Kind::Full | Kind::Busy),
        };
        if usable {
            self.connection = Some(connection);
        }
        if written.is_ok() {
            self.watch.tell();
        }
        written
    }
}

/// Takes what is already waiting, up to a bound.
fn gather(first: Append, queue: &mut mpsc::Receiver<Append>) -> Vec<Append> {
    let mut bytes = first.bytes();
    let mut group = vec![first];
    while bytes < GROUP_BYTES_MAX {
        let Ok(append) = queue.try_recv() else { break };
        bytes += append.bytes();
        group.push(append);
    }
    group
}

fn write(connection: &mut Connection, group: &[Append]) -> Result<Vec<Option<Offset>>, Fault> {
    let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut offsets = Vec::with_capacity(group.len());
    for append in group {
        let is_moved = match append.at {
            Some(at) => scan::end(&change, &append.topic)? != at,
            None => false,
        };
        offsets.push(match is_moved {
            true => None,
            false => Some(insert(&change, &append.topic, &append.payloads)?),
        });
    }
    change.commit()?;
    Ok(offsets)
}

fn insert(change: &Connection, topic: &Topic, payloads: &[Vec<u8>]) -> Result<Offset, Fault> {
    let count = i64::try_from(payloads.len()).map_err(|_| Fault::Exhausted)?;
    let (topic, end): (i64, i64) = change
        .prepare_cached(
            "INSERT INTO topic (name, next_offset) VALUES (?1, ?2) \
             ON CONFLICT (name) DO UPDATE SET next_offset = next_offset + ?2 \
             RETURNING id, next_offset",
        )?
        .query_row((topic.as_ref(), count), |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    let first = u64::try_from(end - count).map_err(|_| Fault::OutOfRange)?;
    let mut statement = change.prepare_cached("INSERT INTO item (key, payload) VALUES (?1, ?2)")?;
    for (offset, payload) in (first..).zip(payloads) {
        let key = schema::item_key(topic, offset).ok_or(Fault::Exhausted)?;
        statement.execute((key, payload))?;
    }
    Ok(Offset(first))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn batch(count: usize) -> Append {
        Append {
            topic: Topic::new("t").unwrap(),
            at: None,
            payloads: vec![vec![1; 10_000]; count],
            done: oneshot::channel().0,
        }
    }

    fn pages_max(connection: &Connection, count: u32) {
        connection
            .pragma_update_and_check(None, "max_page_count", count, |_| Ok(()))
            .unwrap();
    }

    fn database(folder: &Path) -> Connection {
        schema::create(&folder.join(schema::FILE_NAME)).unwrap()
    }

    #[test]
    fn a_database_that_may_not_grow_is_full_and_goes_on_when_it_may() {
        let folder = tempfile::tempdir().unwrap();
        let mut connection = database(folder.path());
        pages_max(&connection, 20);
        let offset = |at| Some(Offset(at));
        assert_eq!(write(&mut connection, &[batch(2)]).unwrap(), [offset(0)]);
        let fault = write(&mut connection, &[batch(1), batch(9)]).unwrap_err();
        assert_eq!(fault.kind(), Kind::Full);
        pages_max(&connection, 1_000);
        assert_eq!(
            write(&mut connection, &[batch(1), batch(9)]).unwrap(),
            [offset(2), offset(3)]
        );
    }

    #[test]
    fn in_a_group_that_does_not_fit_the_batches_that_do_are_appended() {
        let folder = tempfile::tempdir().unwrap();
        let (place, connection) = Place::open(folder.path()).unwrap();
        pages_max(&connection, 20);
        let place = Arc::new(place);
        let watch = Arc::new(Watch::new(Arc::clone(&place)));
        let mut appender = Appender::new(place, connection, watch);
        let (group, mut outcomes): (Vec<_>, Vec<_>) = [1, 9, 1]
            .map(|count| {
                let (done, outcome) = oneshot::channel();
                (
                    Append {
                        done,
                        ..batch(count)
                    },
                    outcome,
                )
            })
            .into_iter()
            .unzip();
        appender.append_group(group);
        let told: Vec<String> = outcomes
            .iter_mut()
            .map(|outcome| match outcome.try_recv().unwrap() {
                Ok(offset) => offset.unwrap().to_string(),
                Err(BusError::Full { .. }) => "full".into(),
                Err(error) => panic!("{error:?}"),
            })
            .collect();
        assert_eq!(told, ["0", "full", "1"]);
    }

    #[test]
    fn offsets_that_are_used_up_end_in_full_and_change_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut connection = database(folder.path());
        write(&mut connection, &[batch(1)]).unwrap();
        let set_next = "UPDATE topic SET next_offset = (1 << 40) - 1";
        connection.execute_batch(set_next).unwrap();
        let fault = write(&mut connection, &[batch(2)]).unwrap_err();
        assert_eq!(fault.kind(), Kind::Full);
        let last = Offset(schema::OFFSET_MAX);
        assert_eq!(write(&mut connection, &[batch(1)]).unwrap(), [Some(last)]);
    }
}

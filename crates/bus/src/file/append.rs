//! The one thread of a handle that writes.

use std::sync::Arc;

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::fault::{Fault, Kind};
use super::place::Place;
use super::schema;
use super::watch::Watch;
use crate::{BusError, Offset, Topic};

/// Bytes of waiting appends that share one transaction.
const GROUP_BYTES_MAX: usize = 4 << 20;

/// A batch to append, and where to tell the outcome.
#[derive(Debug)]
pub(super) struct Append {
    pub(super) topic: Topic,
    pub(super) payloads: Vec<Vec<u8>>,
    pub(super) done: oneshot::Sender<Result<Offset, BusError>>,
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

    fn write(&mut self, group: &[Append]) -> Result<Vec<Offset>, Fault> {
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

fn write(connection: &mut Connection, group: &[Append]) -> Result<Vec<Offset>, Fault> {
    if connection.is_readonly("main")? {
        return Err(Fault::ReadOnly);
    }
    let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut offsets = Vec::with_capacity(group.len());
    for append in group {
        offsets.push(insert(&change, &append.topic, &append.payloads)?);
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

//! The one thread of a handle that writes.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::fault::{Fault, Kind};
use super::known::Known;
use super::mirror::{self, Arrival, ArrivalId, ArrivalPart, Besides};
use super::pack;
use super::place::Place;
use super::scan;
use super::schema;
use super::sent;
use super::watch::Watch;
use crate::{BusError, Offset, Topic};

/// Bytes of waiting changes that share one transaction.
const GROUP_BYTES_MAX: usize = 4 << 20;

/// What to write to one topic, and where to tell the outcome.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) topic: Topic,
    pub(super) action: Action,
    /// Where what was appended lies, or what arrived: the first item of each.
    pub(super) done: oneshot::Sender<Result<Vec<Offset>, BusError>>,
}

#[derive(Debug)]
pub(super) enum Action {
    Append {
        /// Where the topic must end, if anywhere; nothing is appended otherwise.
        at: Option<Offset>,
        payloads: Vec<Vec<u8>>,
    },
    /// Removes what lies before.
    Trim(Offset),
    /// Sends to those who listen.
    Send(Vec<u8>),
    /// Appends what arrived in a mirror, but what is there.
    TakeIn(Arc<[Arrival]>),
    KeepPart(ArrivalPart),
    DropParts(ArrivalId),
    Disown(ArrivalId),
}

impl Change {
    fn bytes(&self) -> usize {
        match &self.action {
            Action::Append { payloads, .. } => payloads.iter().map(Vec::len).sum(),
            Action::Trim(_) => 0,
            Action::Send(payload) => payload.len(),
            Action::TakeIn(arrivals) => {
                let payloads = arrivals.iter().flat_map(|of| &of.payloads);
                payloads.map(Bytes::len).sum()
            }
            Action::KeepPart(part) => part.bytes.len(),
            Action::DropParts(_) | Action::Disown(_) => 0,
        }
    }
}

/// Makes the changes of one handle, in the order they were handed over.
#[derive(Debug)]
pub(super) struct Writer {
    place: Arc<Place>,
    /// `None` after a fault that may have left it unusable.
    connection: Option<Connection>,
    /// Of a mirror.
    besides: Option<Besides>,
    watch: Arc<Watch>,
}

impl Writer {
    pub(super) fn new(
        place: Arc<Place>,
        connection: Connection,
        besides: Option<Besides>,
        watch: Arc<Watch>,
    ) -> Self {
        Self {
            place,
            connection: Some(connection),
            besides,
            watch,
        }
    }

    /// Writes until every handle is gone.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Vec<Change>>) {
        while let Some(first) = queue.blocking_recv() {
            let group = gather(first, &mut queue);
            self.write_group(group);
        }
    }

    fn write_group(&mut self, group: Vec<Change>) {
        match self.write(&group) {
            Ok(made) => {
                for (change, made) in group.into_iter().zip(made) {
                    change.done.send(Ok(made)).ok();
                }
            }
            // One of them may be what does not fit.
            Err(fault) if fault.kind() == Kind::Full && group.len() > 1 => {
                for change in group {
                    self.write_group(vec![change]);
                }
            }
            Err(fault) => {
                let fault = Arc::new(fault);
                for change in group {
                    let error = self.place.tell(Arc::clone(&fault));
                    change.done.send(Err(error)).ok();
                }
            }
        }
    }

    fn write(&mut self, group: &[Change]) -> Result<Vec<Vec<Offset>>, Fault> {
        self.place.check()?;
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.place.connect()?,
        };
        let written = write(&mut connection, self.besides.as_mut(), group);
        let usable = match &written {
            Ok(_) => true,
            Err(fault) => matches!(fault.kind(), Kind::Full | Kind::Busy),
        };
        if usable {
            self.connection = Some(connection);
        }
        match (&written, &mut self.besides) {
            (Ok(_), _) => self.watch.tell(),
            // What it says was taken in was not.
            (Err(_), Some(besides)) => besides.known = Known::default(),
            (Err(_), None) => {}
        }
        written
    }
}

/// Takes what is already waiting, up to a bound.
fn gather(first: Vec<Change>, queue: &mut mpsc::Receiver<Vec<Change>>) -> Vec<Change> {
    let bytes_of = |of: &[Change]| of.iter().map(Change::bytes).sum::<usize>();
    let mut bytes = bytes_of(&first);
    let mut group = first;
    while bytes < GROUP_BYTES_MAX {
        let Ok(changes) = queue.try_recv() else {
            break;
        };
        bytes += bytes_of(&changes);
        group.extend(changes);
    }
    group
}

fn write(
    connection: &mut Connection,
    mut besides: Option<&mut Besides>,
    group: &[Change],
) -> Result<Vec<Vec<Offset>>, Fault> {
    // What is only sent is not worth waiting for the disk.
    let lasts = |change: &Change| !matches!(change.action, Action::Send(_));
    schema::set_synced(connection, group.iter().any(lasts))?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut made = Vec::with_capacity(group.len());
    let mut emptied = BTreeSet::new();
    for change in group {
        made.push(make(
            &transaction,
            besides.as_deref_mut(),
            change,
            &mut emptied,
        )?);
    }
    if let Some(besides) = &mut besides {
        besides.far.sync()?;
    }
    transaction.commit()?;
    if let Some(besides) = &besides
        && !emptied.is_empty()
    {
        // Those that stay are removed when the mirror is opened.
        let _are_gone = besides.far.drop_unused(connection, emptied).is_ok();
    }
    Ok(made)
}

/// `emptied`: the files in which something lay that is trimmed.
fn make(
    connection: &Connection,
    besides: Option<&mut Besides>,
    change: &Change,
    emptied: &mut BTreeSet<i64>,
) -> Result<Vec<Offset>, Fault> {
    let none = |()| Vec::new();
    match (&change.action, besides) {
        (Action::Append { at, payloads }, _) => {
            if let Some(at) = *at
                && scan::end(connection, &change.topic)? != at
            {
                return Ok(Vec::new());
            }
            Ok(Vec::from([insert(connection, &change.topic, payloads)?]))
        }
        (Action::Trim(before), besides) => {
            let is_mirror = besides.is_some();
            trim(connection, is_mirror, &change.topic, *before, emptied).map(none)
        }
        (Action::Send(payload), _) => sent::insert(connection, &change.topic, payload).map(none),
        (Action::TakeIn(arrivals), Some(besides)) => mirror::take_in(connection, besides, arrivals),
        (Action::KeepPart(part), Some(besides)) => {
            mirror::keep_part(connection, &mut besides.known, part).map(none)
        }
        (Action::DropParts(id), Some(_)) => {
            mirror::drop_parts(connection, &change.topic, id).map(none)
        }
        (Action::Disown(id), Some(besides)) => {
            mirror::disown(connection, &mut besides.known, &change.topic, id).map(none)
        }
        (
            Action::TakeIn(_) | Action::KeepPart(_) | Action::DropParts(_) | Action::Disown(_),
            None,
        ) => Err(Fault::Foreign),
    }
}

/// Inserts payloads at the end of a topic; returns where the first lies.
fn insert(connection: &Connection, topic: &Topic, payloads: &[Vec<u8>]) -> Result<Offset, Fault> {
    let count = i64::try_from(payloads.len()).map_err(|_| Fault::Exhausted)?;
    let (topic, end): (i64, i64) = connection
        .prepare_cached(
            "INSERT INTO topic (name, next_offset) VALUES (?1, ?2) \
             ON CONFLICT (name) DO UPDATE SET next_offset = next_offset + ?2 \
             RETURNING id, next_offset",
        )?
        .query_row((topic.as_ref(), count), |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    let first = u64::try_from(end - count).map_err(|_| Fault::OutOfRange)?;
    for (offset, payload) in (first..).zip(payloads) {
        let key = schema::item_key(topic, offset).ok_or(Fault::Exhausted)?;
        insert_item(connection, key, payload)?;
    }
    Ok(Offset(first))
}

pub(super) fn insert_item(connection: &Connection, key: i64, payload: &[u8]) -> Result<(), Fault> {
    connection
        .prepare_cached("INSERT INTO item (key, payload) VALUES (?1, ?2)")?
        .execute((key, payload))?;
    Ok(())
}

fn trim(
    connection: &Connection,
    is_mirror: bool,
    topic: &Topic,
    before: Offset,
    emptied: &mut BTreeSet<i64>,
) -> Result<(), Fault> {
    let Some((topic, end)) = scan::topic_row(connection, topic)? else {
        return Ok(());
    };
    let first = schema::item_key(topic, 0).ok_or(Fault::OutOfRange)?;
    let count = i64::try_from(before.min(end).0).map_err(|_| Fault::OutOfRange)?;
    connection
        .prepare_cached("DELETE FROM item WHERE key >= ?1 AND key < ?1 + ?2")?
        .execute((first, count))?;
    if is_mirror {
        pack::trim(connection, first, first.saturating_add(count))?;
        let trimmed = "DELETE FROM far WHERE key >= ?1 AND key < ?1 + ?2 RETURNING file";
        let mut trimmed = connection.prepare_cached(trimmed)?;
        for file in trimmed.query_map((first, count), |row| row.get(0))? {
            emptied.insert(file?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::file::schema::Format;

    fn change(action: Action) -> Change {
        Change {
            topic: Topic::new("t").unwrap(),
            action,
            done: oneshot::channel().0,
        }
    }

    fn batch(count: usize) -> Change {
        change(Action::Append {
            at: None,
            payloads: vec![vec![1; 10_000]; count],
        })
    }

    fn pages_max(connection: &Connection, count: u32) {
        connection
            .pragma_update_and_check(None, "max_page_count", count, |_| Ok(()))
            .unwrap();
    }

    fn database(folder: &Path) -> Connection {
        schema::create(&folder.join(schema::FILE_NAME), Format::BUS).unwrap()
    }

    #[test]
    fn a_database_that_may_not_grow_is_full_and_goes_on_when_it_may() {
        let folder = tempfile::tempdir().unwrap();
        let mut connection = database(folder.path());
        pages_max(&connection, 20);
        let offset = |at| vec![Offset(at)];
        assert_eq!(
            write(&mut connection, None, &[batch(2)]).unwrap(),
            [offset(0)]
        );
        let fault = write(&mut connection, None, &[batch(1), batch(9)]).unwrap_err();
        assert_eq!(fault.kind(), Kind::Full);
        pages_max(&connection, 1_000);
        assert_eq!(
            write(&mut connection, None, &[batch(1), batch(9)]).unwrap(),
            [offset(2), offset(3)]
        );
    }

    #[test]
    fn in_a_group_that_does_not_fit_the_batches_that_do_are_appended() {
        let folder = tempfile::tempdir().unwrap();
        let (place, connection) = Place::open(folder.path(), Format::BUS).unwrap();
        pages_max(&connection, 20);
        let place = Arc::new(place);
        let watch = Arc::new(Watch::new(Arc::clone(&place)));
        let mut writer = Writer::new(place, connection, None, watch);
        let (group, mut outcomes): (Vec<_>, Vec<_>) = [1, 9, 1]
            .map(|count| {
                let (done, outcome) = oneshot::channel();
                (
                    Change {
                        done,
                        ..batch(count)
                    },
                    outcome,
                )
            })
            .into_iter()
            .unzip();
        writer.write_group(group);
        let told: Vec<String> = outcomes
            .iter_mut()
            .map(|outcome| match outcome.try_recv().unwrap() {
                Ok(made) => made[0].to_string(),
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
        write(&mut connection, None, &[batch(1)]).unwrap();
        let set_next = "UPDATE topic SET next_offset = (1 << 40) - 1";
        connection.execute_batch(set_next).unwrap();
        let fault = write(&mut connection, None, &[batch(2)]).unwrap_err();
        assert_eq!(fault.kind(), Kind::Full);
        let last = Offset(schema::OFFSET_MAX);
        assert_eq!(
            write(&mut connection, None, &[batch(1)]).unwrap(),
            [vec![last]]
        );
    }

    #[test]
    fn a_database_that_may_not_grow_has_room_again_once_it_was_trimmed() {
        let folder = tempfile::tempdir().unwrap();
        let mut connection = database(folder.path());
        pages_max(&connection, 20);
        write(&mut connection, None, &[batch(4)]).unwrap();
        let fault = write(&mut connection, None, &[batch(4)]).unwrap_err();
        assert_eq!(fault.kind(), Kind::Full);
        let trim = change(Action::Trim(Offset(4)));
        let offsets = write(&mut connection, None, &[trim, batch(4)]).unwrap();
        assert_eq!(offsets, [vec![], vec![Offset(4)]]);
    }

    #[test]
    fn trimming_far_beyond_the_end_takes_nothing_of_another_topic() {
        let folder = tempfile::tempdir().unwrap();
        let mut connection = database(folder.path());
        let next_topic = || Change {
            topic: Topic::new("u").unwrap(),
            ..batch(2)
        };
        write(&mut connection, None, &[batch(2), next_topic()]).unwrap();
        write(
            &mut connection,
            None,
            &[change(Action::Trim(Offset(u64::MAX)))],
        )
        .unwrap();
        let left: Vec<i64> = connection
            .prepare("SELECT key FROM item")
            .unwrap()
            .query_map([], |row| row.get(0))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(left, [2 << 40, (2 << 40) + 1]);
        assert_eq!(
            write(&mut connection, None, &[batch(1)]).unwrap(),
            [vec![Offset(2)]]
        );
    }
}

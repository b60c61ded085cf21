//! What is asked about logs: spec/bus-postgres.md, sections 3 to 5.

use std::pin::pin;
use std::time::Duration;

use sealcast_bus::{Item, Offset, Topic};
use tokio::time::timeout;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, ToSql};

use crate::desks::{Ask, Call, in_time};
use crate::fault::Fault;
use crate::hidden::Hidden;
use crate::session::Session;
use crate::sql;

/// Bytes that one read returns, at most, unless one item alone has more.
const READ_BYTES_MAX: usize = 8 << 20;

/// How long a read waits for standbys, and then for the server to leave that: less than for an answer, so that its caller hears
/// what it waits for.
const STANDBY_TIMEOUT: Duration = Duration::from_secs(5);
const LEAVE_TIMEOUT: Duration = Duration::from_millis(1_500);

/// Appends payloads, where the topic ends at `at` if that is given; the first offset, or nothing where
/// it ends elsewhere.
#[derive(Debug)]
pub(crate) struct Append<'a> {
    pub(crate) topic: &'a Topic,
    pub(crate) at: Option<Offset>,
    pub(crate) payloads: &'a [&'a [u8]],
    pub(crate) channel: &'a str,
    /// The append of the same writer without which this one is not made.
    pub(crate) behind: Option<i64>,
}

impl Ask for Append<'_> {
    type Answer = Option<Offset>;

    async fn ask(&self, session: &Session, call: Call) -> Result<Option<Offset>, Fault> {
        let first = match self.append(session, call).await {
            Err(fault) if fault.is_against(sql::ONCE) => {
                let made = self.find_made(session, call).await?;
                Some(made.ok_or(Fault::Altered("what a writer wrote last"))?)
            }
            Err(fault) if fault.is_duplicate() => {
                self.clear(session).await?;
                self.append(session, call).await?
            }
            Ok(None) if call.is_open => self.find_made(session, call).await?,
            appended => appended?,
        };
        let Some(first) = first else { return Ok(None) };
        Ok(Some(Offset(offset(first)?)))
    }

    fn says_what_was_done(&self) -> bool {
        true
    }

    fn size(&self) -> usize {
        self.payloads.iter().map(|of| of.len()).sum()
    }
}

impl Append<'_> {
    async fn append(&self, session: &Session, call: Call) -> Result<Option<i64>, Fault> {
        // No topic ends beyond the numbers that there are.
        let at = match self.at.map(|at| i64::try_from(at.0)) {
            Some(Err(_)) => return Ok(None),
            Some(Ok(at)) => Some(at),
            None => None,
        };
        let count = i64::try_from(self.payloads.len());
        let count = count.map_err(|_| Fault::Odd("more payloads than there are offsets"))?;
        let (topic, writer) = (self.topic.as_ref(), &call.writer[..]);
        let payloads = Hidden(self.payloads);
        let parameters: [&(dyn ToSql + Sync); 7] = [
            &topic,
            &at,
            &payloads,
            &count,
            &writer,
            &call.serial,
            &self.behind,
        ];
        let (client, statements) = session.parts();
        let appending = client.query_opt(&statements.append, &parameters);
        let appending = session.ask_and_tell(appending, self.channel, topic);
        let row = appending.await?;
        row.map(|row| column(&row, 0)).transpose()
    }

    /// Where it went, if it was made before.
    async fn find_made(&self, session: &Session, call: Call) -> Result<Option<i64>, Fault> {
        let (client, statements) = session.parts();
        let row = client
            .query_opt(
                &statements.written,
                &[&&call.writer[..], &call.serial, &call.last],
            )
            .await?;
        row.map(|row| column(&row, 0)).transpose()
    }

    async fn clear(&self, session: &Session) -> Result<(), Fault> {
        let (client, statements) = session.parts();
        client
            .execute(&statements.clear, &[&self.topic.as_ref()])
            .await?;
        Ok(())
    }
}

/// Reads items.
#[derive(Debug)]
pub(crate) struct Read<'a> {
    pub(crate) topic: &'a Topic,
    pub(crate) from: Offset,
    pub(crate) bytes_max: usize,
}

impl Ask for Read<'_> {
    type Answer = Vec<Item>;

    async fn ask(&self, session: &Session, _: Call) -> Result<Vec<Item>, Fault> {
        let bytes_max = self.bytes_max.min(READ_BYTES_MAX) as i64;
        let from = clamped(self.from);
        let (client, statements) = session.parts();
        let parameters: [&(dyn ToSql + Sync); 3] = [&self.topic.as_ref(), &from, &bytes_max];
        let rows = client.query(&statements.read, &parameters).await?;
        let Some(first) = rows.first() else {
            return Ok(Vec::new());
        };
        let (trimmed, ends) = (column::<i64>(first, 0)?, column::<i64>(first, 1)?);
        let (from, end) = (offset(from.max(trimmed))?, offset(ends)?);
        if from >= end {
            return Ok(Vec::new());
        }
        let mut items = Vec::new();
        for (expected, row) in (from..end).zip(&rows) {
            if column::<Option<i64>>(row, 2)? != i64::try_from(expected).ok() {
                break;
            }
            items.push(Item {
                offset: Offset(expected),
                payload: column(row, 3)?,
            });
        }
        if items.is_empty() {
            return Err(Fault::Missing { expected: from });
        }
        if column::<bool>(first, 4)? {
            wait_for_standbys(session).await?;
        }
        Ok(items)
    }

    fn size(&self) -> usize {
        self.bytes_max.min(READ_BYTES_MAX)
    }
}

/// Waits until a standby has what was read. A server that ends, or is told to wait no longer, shows what it has alone, and
/// whoever takes over may put something else in its place.
async fn wait_for_standbys(session: &Session) -> Result<(), Fault> {
    let (client, statements) = session.parts();
    let warnings = session.line.warnings();
    let mut waiting = pin!(client.execute(&statements.replicated, &[]));
    let Ok(waited) = timeout(STANDBY_TIMEOUT, waiting.as_mut()).await else {
        // It takes a connection of the server as long as it waits.
        in_time(LEAVE_TIMEOUT, session.line.cancel()).await?;
        in_time(LEAVE_TIMEOUT, async { Ok(waiting.await?) }).await?;
        return Err(Fault::NoStandby);
    };
    waited?;
    match session.line.warnings() == warnings {
        true => Ok(()),
        false => Err(Fault::Warned),
    }
}

/// Says where topics end; those that nobody wrote to are left out. One whose end cannot be leaves the
/// others as they are.
#[derive(Debug)]
pub(crate) struct Ends<'a> {
    pub(crate) topics: &'a [Topic],
}

impl Ask for Ends<'_> {
    type Answer = Vec<(Topic, Result<Offset, Fault>)>;

    async fn ask(&self, session: &Session, _: Call) -> Result<Self::Answer, Fault> {
        let names: Vec<&str> = self.topics.iter().map(AsRef::as_ref).collect();
        let (client, statements) = session.parts();
        let rows = client.query(&statements.ends, &[&names]).await?;
        let ends = rows.iter().map(|row| {
            let topic = Topic::new(column(row, 0)?).map_err(|_| Fault::Altered("a name"))?;
            let end = offset(column(row, 1)?);
            Ok((topic, end.map(Offset)))
        });
        ends.collect()
    }
}

/// Removes the items of a topic before an offset.
#[derive(Debug)]
pub(crate) struct Trim<'a> {
    pub(crate) topic: &'a Topic,
    pub(crate) before: Offset,
}

impl Ask for Trim<'_> {
    type Answer = ();

    async fn ask(&self, session: &Session, _: Call) -> Result<(), Fault> {
        let (client, statements) = session.parts();
        let before = clamped(self.before);
        client
            .execute(&statements.trim, &[&self.topic.as_ref(), &before])
            .await?;
        Ok(())
    }
}

/// Offsets in a database go up to half of those that there are.
fn clamped(offset: Offset) -> i64 {
    i64::try_from(offset.0).unwrap_or(i64::MAX)
}

fn offset(stored: i64) -> Result<u64, Fault> {
    u64::try_from(stored).map_err(|_| Fault::Altered("an offset"))
}

/// A column that must be of the type that the schema gave it.
pub(crate) fn column<'a, T: FromSql<'a>>(row: &'a Row, index: usize) -> Result<T, Fault> {
    row.try_get(index)
        .map_err(|_| Fault::Altered("a column of the schema"))
}

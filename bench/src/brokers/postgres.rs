//! PostgreSQL by the driver alone.

use std::pin::Pin;
use std::sync::Arc;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, RowStream, Statement};

use super::Place;

/// Statements that are on their way at once: the server makes one after the other durable.
const STATEMENTS_MAX: usize = 3;

/// Stores the messages of a batch as the rows of one statement, which is a transaction.
pub(crate) struct Publisher {
    client: Arc<Client>,
    insert: Statement,
    tell: Statement,
    waiting: JoinSet<Result<u64, tokio_postgres::Error>>,
    /// The connection, as long as this is there.
    _connection: Connection,
}

/// Moves bytes, and wakes whoever waits for news.
struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Publisher {
    pub(crate) async fn open(place: &Place) -> anyhow::Result<Self> {
        let (client, connection, _) = connect(place).await?;
        let insert = format!(
            "INSERT INTO {} (payload) SELECT unnest($1::bytea[])",
            place.name
        );
        let tell = format!(
            "SELECT set_config('synchronous_commit', 'off', true), pg_notify('{}', '')",
            place.name
        );
        Ok(Self {
            insert: client.prepare(&insert).await?,
            tell: client.prepare(&tell).await?,
            client: Arc::new(client),
            waiting: JoinSet::new(),
            _connection: connection,
        })
    }

    pub(crate) async fn send(&mut self, batch: Vec<Vec<u8>>) -> anyhow::Result<()> {
        while self.waiting.len() >= STATEMENTS_MAX {
            self.one_less().await?;
        }
        let (client, insert, tell) = (self.client.clone(), self.insert.clone(), self.tell.clone());
        let messages = super::packed(&batch, 0);
        self.waiting.spawn(async move {
            let inserted = client.execute(&insert, &[&messages]).await?;
            client.execute(&tell, &[]).await?;
            Ok(inserted)
        });
        Ok(())
    }

    pub(crate) async fn finish(mut self) -> anyhow::Result<()> {
        while !self.waiting.is_empty() {
            self.one_less().await?;
        }
        Ok(())
    }

    async fn one_less(&mut self) -> anyhow::Result<()> {
        if let Some(done) = self.waiting.join_next().await {
            done??;
        }
        Ok(())
    }
}

/// Takes all rows in order, from the first on.
pub(crate) struct Reader {
    client: Client,
    select: Statement,
    news: Arc<Notify>,
    rows: Option<Pin<Box<RowStream>>>,
    last: i64,
    _connection: Connection,
}

impl Reader {
    pub(crate) async fn open(place: &Place) -> anyhow::Result<Self> {
        let (client, connection, news) = connect(place).await?;
        client
            .batch_execute(&format!("LISTEN {}", place.name))
            .await?;
        let select = format!(
            "SELECT id, payload FROM {} WHERE id > $1 ORDER BY id",
            place.name
        );
        Ok(Self {
            select: client.prepare(&select).await?,
            client,
            news,
            rows: None,
            last: 0,
            _connection: connection,
        })
    }

    pub(crate) async fn next(&mut self) -> anyhow::Result<Vec<u8>> {
        loop {
            let Some(rows) = &mut self.rows else {
                let rows = self.client.query_raw(&self.select, [&self.last]).await?;
                self.rows = Some(Box::pin(rows));
                continue;
            };
            if let Some(row) = rows.next().await {
                let row = row?;
                self.last = row.get(0);
                return Ok(row.get(1));
            }
            self.rows = None;
            // What was told meanwhile is looked for at once.
            self.news.notified().await;
        }
    }
}

async fn connect(place: &Place) -> anyhow::Result<(Client, Connection, Arc<Notify>)> {
    let config: Config = place.url.parse().context("a URL of PostgreSQL")?;
    let (client, mut connection) = config.connect(NoTls).await?;
    let news = Arc::new(Notify::new());
    let told = news.clone();
    let driving = tokio::spawn(async move {
        let mut said =
            futures_util::stream::poll_fn(move |context| connection.poll_message(context));
        while let Some(Ok(message)) = said.next().await {
            if matches!(message, AsyncMessage::Notification(_)) {
                told.notify_one();
            }
        }
    });
    let create = format!(
        "CREATE TABLE IF NOT EXISTS {} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, \
         payload bytea NOT NULL)",
        place.name
    );
    let external = format!(
        "ALTER TABLE {} ALTER COLUMN payload SET STORAGE EXTERNAL",
        place.name
    );
    client.batch_execute(&create).await?;
    client.batch_execute(&external).await?;
    Ok((client, Connection(driving), news))
}

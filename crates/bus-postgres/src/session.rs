//! One connection to the server, and what is asked over it.

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::sleep;
use tokio_postgres::error::{DbError, Severity};
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Connection, Notification, Socket, Statement};

use crate::desks::{ANSWER_TIMEOUT, in_time};
use crate::fault::Fault;
use crate::pooler;
use crate::settings::{Between, Settings};
use crate::sql;
use crate::tls::{Secured, Tls};

/// How long a connection that is given up may take to say so.
const GRACE: Duration = Duration::from_secs(1);

/// A connection that the statements of a bus are made over.
pub(crate) struct Session {
    pub(crate) line: Line,
    pub(crate) statements: Statements,
}

/// A connection, which ends with this.
pub(crate) struct Line {
    pub(crate) client: Client,
    /// How another connection is made secure, over which the server is told to leave something.
    tls: Tls,
    /// Counts what the server warned of.
    warnings: Arc<AtomicU64>,
    _ends: oneshot::Sender<()>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

/// Prepared once a connection.
pub(crate) struct Statements {
    pub(crate) append: Statement,
    pub(crate) written: Statement,
    pub(crate) clear: Statement,
    pub(crate) read: Statement,
    pub(crate) replicated: Statement,
    pub(crate) ends: Statement,
    pub(crate) trim: Statement,
    pub(crate) grown: Statement,
    pub(crate) tell: Statement,
    pub(crate) send: Statement,
    pub(crate) store: Statement,
}

impl Line {
    /// Connects; `hear` is given what the server tells by itself.
    pub(crate) async fn open(
        settings: &Settings,
        hear: impl FnMut(Notification) + Send + 'static,
    ) -> Result<Self, Fault> {
        let line = Self::dial(settings, hear).await?;
        if !settings.set_up(&line.client, Between::Nobody).await? {
            let other = Self::dial(settings, |_| ()).await?;
            in_time(ANSWER_TIMEOUT, pooler::check(&line.client, &other.client)).await?;
            settings.set_up(&line.client, Between::Pooler).await?;
        }
        Ok(line)
    }

    /// Connects, and sets nothing.
    async fn dial(
        settings: &Settings,
        hear: impl FnMut(Notification) + Send + 'static,
    ) -> Result<Self, Fault> {
        // Large, and under way for a moment only.
        let (client, connection) = Box::pin(settings.connect()).await?;
        let (ends, ended) = oneshot::channel();
        let warnings = Arc::default();
        tokio::spawn(drive(connection, ended, hear, Arc::clone(&warnings)));
        Ok(Self {
            client,
            tls: settings.tls(),
            warnings,
            _ends: ends,
        })
    }

    /// Has the server leave what it does for this connection.
    pub(crate) async fn cancel(&self) -> Result<(), Fault> {
        let token = self.client.cancel_token();
        Ok(token.cancel_query(self.tls.clone()).await?)
    }

    /// How often the server warned of something. What it warns of comes before the answer.
    pub(crate) fn warnings(&self) -> u64 {
        self.warnings.load(Ordering::Relaxed)
    }
}

impl Session {
    pub(crate) async fn open(settings: &Settings) -> Result<Self, Fault> {
        Self::over(Line::open(settings, |_| ()).await?, settings.schema()).await
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.line.client.is_closed()
    }

    /// The tables must be there.
    pub(crate) async fn over(line: Line, schema: &str) -> Result<Self, Fault> {
        let preparing = Box::pin(Statements::prepare(&line.client, schema));
        let statements = in_time(ANSWER_TIMEOUT, preparing).await?;
        Ok(Self { line, statements })
    }
}

impl Session {
    /// What asks, and what is asked.
    pub(crate) fn parts(&self) -> (&Client, &Statements) {
        (&self.line.client, &self.statements)
    }

    /// Asks, and says on a channel that a topic has grown. This goes with the question, so that it has left
    /// when the answer comes, and nobody waits for what becomes of it.
    pub(crate) async fn ask_and_tell<T>(
        &self,
        asking: impl Future<Output = T>,
        channel: &str,
        topic: &str,
    ) -> T {
        let (client, statements) = self.parts();
        let parameters: [&(dyn ToSql + Sync); 2] = [&channel, &topic];
        let mut asking = pin!(asking);
        let mut telling = pin!(client.execute(&statements.grown, &parameters));
        // The library hands both to the connection when they are first polled.
        let early = poll_fn(|cx| {
            let early = asking.as_mut().poll(cx);
            let _is_told = telling.as_mut().poll(cx).is_ready();
            Poll::Ready(early)
        });
        match early.await {
            Poll::Ready(answer) => answer,
            Poll::Pending => asking.await,
        }
    }
}

impl Statements {
    async fn prepare(client: &Client, schema: &str) -> Result<Self, Fault> {
        let prepare = async |statement| client.prepare(&sql::of(schema, statement)).await;
        let (append, written, clear, read, replicated, ends, trim, grown, tell, send, store) = tokio::try_join!(
            prepare(sql::APPEND),
            prepare(sql::WRITTEN),
            prepare(sql::CLEAR),
            prepare(sql::READ),
            prepare(sql::REPLICATED),
            prepare(sql::ENDS),
            prepare(sql::TRIM),
            prepare(sql::GROWN),
            prepare(sql::TELL),
            prepare(sql::SEND),
            prepare(sql::STORE),
        )?;
        Ok(Self {
            append,
            written,
            clear,
            read,
            replicated,
            ends,
            trim,
            grown,
            tell,
            send,
            store,
        })
    }
}

/// Moves bytes until the connection breaks, or is no longer wanted. What the server remarks is counted where
/// it is a warning, and not logged.
async fn drive(
    mut connection: Connection<Socket, Secured>,
    ended: oneshot::Receiver<()>,
    mut hear: impl FnMut(Notification),
    warnings: Arc<AtomicU64>,
) {
    let moving = async {
        while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notice(remark) = &message
                && is_warning(remark)
            {
                warnings.fetch_add(1, Ordering::Relaxed);
            } else if let AsyncMessage::Notification(notification) = message {
                hear(notification);
            }
        }
    };
    let given_up = async {
        let _is_dropped = ended.await.is_err();
        sleep(GRACE).await;
    };
    tokio::select! {
        () = moving => {}
        () = given_up => {}
    }
}

/// Whether the server warns of what it does itself, and not a function in the database of anything.
fn is_warning(remark: &DbError) -> bool {
    remark.parsed_severity() == Some(Severity::Warning) && remark.where_().is_none()
}

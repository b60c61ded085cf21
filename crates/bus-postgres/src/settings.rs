//! How a handle comes to its server.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sealcast_bus::{Credentials, ServerAddress, ServerOptions};
use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Config, Connection, Socket};

use crate::desks::{ANSWER_TIMEOUT, in_time};
use crate::fault::Fault;
use crate::tls::{Secured, Tls};

/// Names that are longer would be cut by the server.
const NAME_LEN_MAX: usize = 63;
/// How long one address of a server is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a connection is tried when nothing comes over it.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// And how often again, and how many times, before it is given up. `SET_UP` has the server do the same.
const KEEPALIVE_AGAIN: Duration = Duration::from_secs(10);
const KEEPALIVES: u32 = 3;
/// How long what was sent may go without a sign that it arrived.
const ARRIVES: Duration = Duration::from_secs(60);

/// What each connection begins with. A server knows it then; a pooler does not hand it on.
const BEGINS: &str = "-c sealcast.begins=here";
/// What a pooler says that takes nothing that it does not know.
const NOT_TAKEN: &str = "08P01";

/// Set for each connection, whatever the server does by itself, where it is known to be one with the server
/// or `$1` says that it is as good. What waits longer for a lock of somebody else gives up, before its
/// answer is given up here.
const SET_UP: &str = "
SELECT set_config('search_path', 'pg_catalog', false),
    set_config('default_transaction_isolation', 'read committed', false),
    set_config('lock_timeout', '8s', false),
    set_config('jit', 'off', false),
    set_config('client_min_messages', 'warning', false),
    set_config('tcp_keepalives_idle', '30', false),
    set_config('tcp_keepalives_interval', '10', false),
    set_config('tcp_keepalives_count', '3', false),
    set_config('tcp_user_timeout', '60s', false),
    CASE WHEN current_setting('synchronous_commit') <> 'remote_apply'
        THEN set_config('synchronous_commit', 'on', false) END
WHERE $1 OR current_setting('sealcast.begins', true) = 'here'";

/// Who is between us and the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Between {
    /// Nobody, or who knows nothing of what is said.
    Nobody,
    /// A pooler that keeps sessions.
    Pooler,
}

/// Which server, which schema, and who we are to it.
pub(crate) struct Settings {
    /// One for each server, at least one.
    servers: Vec<Config>,
    /// Which of them was used last.
    last: AtomicUsize,
    tls: Tls,
    schema: String,
    place: String,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Settings").field(&self.place).finish()
    }
}

impl Settings {
    pub(crate) fn new(address: &ServerAddress, options: &ServerOptions) -> Result<Self, Fault> {
        if address.name().len() > NAME_LEN_MAX {
            return Err(Fault::LongName);
        }
        let mut config = Config::new();
        match &options.credentials {
            Credentials::None => {}
            Credentials::Password { user, password } => {
                config.user(user).password(password);
            }
            Credentials::File(_) | Credentials::Token(_) => return Err(Fault::Credentials),
        }
        let is_secure = options.require_tls || options.certificates.is_some() || address.is_tls();
        let tls = match is_secure {
            true => Tls::new(options.certificates.as_deref())?,
            false => Tls::none(),
        };
        config
            .dbname(address.space().unwrap_or_default())
            .application_name("sealcast")
            .connect_timeout(CONNECT_TIMEOUT)
            .keepalives_idle(KEEPALIVE)
            .keepalives_interval(KEEPALIVE_AGAIN)
            .keepalives_retries(KEEPALIVES)
            .tcp_user_timeout(ARRIVES)
            // Of several servers it is the one that others follow.
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .ssl_mode(match is_secure {
                true => SslMode::Require,
                false => SslMode::Disable,
            });
        let servers = address.servers().iter().map(|server| {
            let (host, port) = server.rsplit_once(':').unwrap_or((server, ""));
            let mut config = config.clone();
            config.host(host.trim_matches(['[', ']']));
            config.port(port.parse().unwrap_or_default());
            config
        });
        Ok(Self {
            servers: servers.collect(),
            last: AtomicUsize::new(0),
            tls,
            schema: address.name().to_owned(),
            place: address.to_string(),
        })
    }

    /// What the bus is called in errors.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// The schema, which is the name of the channel, too.
    pub(crate) fn schema(&self) -> &str {
        &self.schema
    }

    /// How connections are made secure.
    pub(crate) fn tls(&self) -> Tls {
        self.tls.clone()
    }

    /// The first of the servers that answers and can be written to, beginning with the one that did last.
    pub(crate) async fn connect(&self) -> Result<(Client, Connection<Socket, Secured>), Fault> {
        let (count, last) = (self.servers.len(), self.last.load(Ordering::Relaxed));
        let mut fault = Fault::Odd("there is no server");
        for index in (0..count).map(|step| (last + step) % count) {
            let connecting = connect_to(&self.servers[index], &self.tls);
            match in_time(ANSWER_TIMEOUT, connecting).await {
                Ok(connected) => {
                    self.last.store(index, Ordering::Relaxed);
                    return Ok(connected);
                }
                Err(failed) => fault = failed,
            }
        }
        Err(fault)
    }

    /// Makes a new connection one of a bus; it must be driven meanwhile. Returns whether it did: nothing
    /// is set where somebody is between who is not known to be there.
    pub(crate) async fn set_up(&self, client: &Client, between: Between) -> Result<bool, Fault> {
        in_time(ANSWER_TIMEOUT, async {
            let is_known = between == Between::Pooler;
            let rows = client
                .query_typed(SET_UP, &[(&is_known, Type::BOOL)])
                .await?;
            Ok(!rows.is_empty())
        })
        .await
    }
}

/// Connects, and says to the server what it is to begin with, unless somebody between takes offence.
async fn connect_to(
    server: &Config,
    tls: &Tls,
) -> Result<(Client, Connection<Socket, Secured>), Fault> {
    let mut begins = server.clone();
    begins.options(BEGINS);
    match begins.connect(tls.clone()).await.map_err(Fault::from) {
        Err(fault) if fault.is_said(&[NOT_TAKEN]) => Ok(server.connect(tls.clone()).await?),
        connected => connected,
    }
}

/// An identifier of SQL. Names of buses have no character that would need more.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_ends_where_it_should() {
        assert_eq!(quoted("Plant-7_x"), "\"Plant-7_x\"");
        assert_eq!(quoted("a\"; DROP"), "\"a\"\"; DROP\"");
    }
}

//! Whether whoever stands between us and the server keeps sessions: spec/bus-postgres.md, section 1.

use tokio_postgres::Client;

use crate::fault::Fault;

const WHO: &str = "SELECT pg_backend_pid()";

/// Fails unless a connection has a session of its own on the server, of which another one, new as well,
/// takes nothing while it does something.
pub(crate) async fn check(client: &Client, other: &Client) -> Result<(), Fault> {
    // The second time one that takes turns has another, if there are two.
    let own = [who(client).await?, who(client).await?];
    let begun = other.batch_execute("BEGIN").await;
    if let Err(fault) = begun.map_err(Fault::from) {
        // One that keeps nothing at all takes no transaction.
        let is_refused = matches!(fault, Fault::Refused(_));
        return Err(if is_refused { Fault::Pooled } else { fault });
    }
    let others = who(other).await?;
    // That one has its session for itself until it ends.
    let is_own = own == [own[0]; 2] && others != own[0] && who(client).await? == own[0];
    other.batch_execute("ROLLBACK").await?;
    match is_own {
        true => Ok(()),
        false => Err(Fault::Pooled),
    }
}

/// Which session of the server answers.
async fn who(client: &Client) -> Result<i32, Fault> {
    let row = client.query_typed_one(WHO, &[]).await?;
    Ok(row.try_get(0)?)
}

//! The schema of a bus: spec/bus-postgres.md, section 2.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::fault::Fault;
use crate::settings::quoted;
use crate::sql;

/// The newest format that this program knows, and writes.
pub(crate) const FORMAT: u32 = 1;
/// What the schema of a bus says that it is.
const WHAT: &str = "sealcast bus";
const TABLES: &str = include_str!("schema.sql");

/// Whether the schema is there, whether it has the table that says what it is, and whether this user may
/// look into it.
const LOOK: &str = "
SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1),
    EXISTS (SELECT FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
        WHERE nspname = $1 AND relname = 'bus' AND relkind = 'r'),
    EXISTS (SELECT FROM pg_namespace
        WHERE nspname = $1 AND has_schema_privilege(oid, 'USAGE'))";
const FORMATS: &str = "SELECT what, format FROM BUS.bus";
/// Writers that were not heard of for so long do not try again.
const FORGET: &str = "DELETE FROM BUS.writers WHERE used < now() - interval '7 days'";

/// Finds the schema, or creates it; one that is there is left as it is. Returns whether it was created.
pub(crate) async fn find_or_create(client: &Client, name: &str) -> Result<bool, Fault> {
    let is_created = !is_there(client, name).await? && create(client, name).await?;
    if !is_created && !is_there(client, name).await? {
        return Err(Fault::ForeignSchema);
    }
    let forgotten = client.execute_typed(&sql::of(name, FORGET), &[]).await;
    // It may be a user who only reads, and tables that are not as they should be are told of later.
    let _may_stay = forgotten.is_err();
    Ok(is_created)
}

/// Whether the schema is there, which must be that of a bus.
pub(crate) async fn is_there(client: &Client, name: &str) -> Result<bool, Fault> {
    let seen = client.query_typed_one(LOOK, &[(&name, Type::TEXT)]).await?;
    if !seen.try_get::<_, bool>(0)? {
        return Ok(false);
    }
    if !seen.try_get::<_, bool>(1)? {
        return Err(Fault::ForeignSchema);
    }
    if !seen.try_get::<_, bool>(2)? {
        return Err(Fault::Forbidden);
    }
    let rows = client.query_typed(&sql::of(name, FORMATS), &[]).await;
    let rows = rows.map_err(|error| match Fault::from(error) {
        fault if fault.is_of_another_shape() => Fault::ForeignSchema,
        fault => fault,
    })?;
    let [row] = &rows[..] else {
        return Err(Fault::ForeignSchema);
    };
    let (what, format) = (row.try_get::<_, &str>(0), row.try_get::<_, i32>(1));
    match (what, format.map(u32::try_from)) {
        (Ok(WHAT), Ok(Ok(FORMAT))) => Ok(true),
        (Ok(WHAT), Ok(Ok(format))) if format > FORMAT => Err(Fault::TooNew(format)),
        _ => Err(Fault::ForeignSchema),
    }
}

/// Creates the schema and all that is in it, or nothing; not if somebody else does so meanwhile.
async fn create(client: &Client, name: &str) -> Result<bool, Fault> {
    // All of it is one transaction, for which alone the path is set.
    let schema = quoted(name);
    let path = format!("SELECT set_config('search_path', '{schema}', true)");
    let script = format!("CREATE SCHEMA {schema};\n{path};\n{TABLES}");
    match client.batch_execute(&script).await.map_err(Fault::from) {
        Err(fault) if fault.is_duplicate() => Ok(false),
        created => created.map(|()| true),
    }
}

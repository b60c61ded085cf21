//! What a database offers as a bus, without making one; and making one.

use std::time::Instant;

use sealcast_bus::{Aspect, BusError, BusReport, BusSetup, ServerAddress, ServerOptions, Standing};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use crate::PAYLOAD_MAX;
use crate::desks::{ANSWER_TIMEOUT, in_time};
use crate::fault::Fault;
use crate::log::column;
use crate::schema;
use crate::session::Line;
use crate::settings::Settings;
use crate::sql;

/// How the server is set up and who else uses it.
const SERVER: &str = "
SELECT current_setting('server_version'),
    current_setting('fsync') = 'on',
    current_setting('full_page_writes') = 'on',
    current_setting('synchronous_standby_names'),
    (SELECT count(*) FROM pg_stat_replication),
    (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
    current_setting('max_connections'),
    (SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl),
    has_database_privilege(current_database(), 'CREATE'),
    (SELECT extract(epoch FROM now() - min(begun))::bigint FROM (
        SELECT xact_start AS begun FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()
        UNION ALL SELECT prepared FROM pg_prepared_xacts WHERE database = current_database()
    ) AS others)";
/// Seconds after which a transaction of somebody else is worth a warning.
const LONG: i64 = 300;
/// Whether the tables may be used as a bus uses them, and how much room they take.
const TABLES: &str = "
SELECT coalesce(bool_and(has_schema_privilege(nspname, 'USAGE')
        AND has_table_privilege(pg_class.oid, 'SELECT')
        AND (relname = 'bus' OR has_table_privilege(pg_class.oid, 'INSERT'))
        AND (relname = 'bus' OR has_table_privilege(pg_class.oid, 'UPDATE'))
        AND (relname = 'bus' OR has_table_privilege(pg_class.oid, 'DELETE'))), false),
    coalesce(sum(pg_total_relation_size(pg_class.oid)), 0)::bigint
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE nspname = $1 AND relkind = 'r'";
/// What is asked of a bus most often.
const END: &str = "SELECT ends FROM BUS.topics WHERE name = 'check'";

pub(crate) async fn check(
    address: &ServerAddress,
    options: &ServerOptions,
) -> Result<BusReport, BusError> {
    let looked = look(address, options).await;
    looked.map_err(|fault| fault.at(&address.to_string()))
}

pub(crate) async fn setup(
    address: &ServerAddress,
    options: &ServerOptions,
) -> Result<BusSetup, BusError> {
    let made = find_or_make(address, options).await;
    made.map_err(|fault| fault.at(&address.to_string()))
}

async fn find_or_make(address: &ServerAddress, options: &ServerOptions) -> Result<BusSetup, Fault> {
    let settings = Settings::new(address, options)?;
    let line = Line::open(&settings, |_| ()).await?;
    let name = settings.schema();
    let making = schema::find_or_create(&line.client, name);
    let is_made = in_time(ANSWER_TIMEOUT, making).await?;
    let database = address.space().unwrap_or_default();
    let what = format!("the schema `{name}` in the database `{database}`");
    Ok(match is_made {
        true => BusSetup::made(what),
        false => BusSetup::left(what),
    })
}

async fn look(address: &ServerAddress, options: &ServerOptions) -> Result<BusReport, Fault> {
    let settings = Settings::new(address, options)?;
    let line = Line::open(&settings, |_| ()).await?;
    in_time(ANSWER_TIMEOUT, report(&line.client, settings.schema())).await
}

async fn report(client: &Client, name: &str) -> Result<BusReport, Fault> {
    let start = Instant::now();
    let server = client.query_typed_one(SERVER, &[]).await?;
    let answered_in = start.elapsed();
    let (standing, taken) = standing(client, name, column(&server, 8)?).await?;
    let mut report = BusReport::new(standing);
    report.round_trip = Some(answered_in);
    if report.standing == Standing::Ready {
        let start = Instant::now();
        client.query_typed(&sql::of(name, END), &[]).await?;
        report.round_trip = Some(start.elapsed());
    }
    report.state(Aspect::History, "all of it");
    report.state(Aspect::Retention, "nothing is removed by itself");
    let taken = BusReport::size(taken.unsigned_abs());
    let room = format!("{taken} taken; no limit for the schema, and the disk cannot be seen");
    report.state(Aspect::Room, room);
    state_server(&mut report, &server)?;
    warn_of_transactions(&mut report, column(&server, 9)?);
    state_tls(&mut report, column(&server, 7)?);
    state_standbys(&mut report, column(&server, 3)?, column(&server, 4)?);
    state_durability(&mut report, column(&server, 1)?, column(&server, 2)?);
    Ok(report)
}

/// Whether there is a bus that this user may use, and how many bytes it takes.
async fn standing(client: &Client, name: &str, may_create: bool) -> Result<(Standing, i64), Fault> {
    match schema::is_there(client, name).await {
        Ok(false) if may_create => return Ok((Standing::Missing, 0)),
        Ok(false) => {
            let says = "the user may not create a schema in the database";
            return Ok((Standing::Unusable(says.into()), 0));
        }
        Err(fault @ (Fault::ForeignSchema | Fault::Forbidden)) => {
            return Ok((Standing::Unusable(fault.to_string()), 0));
        }
        Ok(true) => {}
        Err(fault) => return Err(fault),
    }
    let parameters: [(&(dyn ToSql + Sync), Type); 1] = [(&name, Type::TEXT)];
    let tables = client.query_typed_one(TABLES, &parameters).await?;
    let standing = match column(&tables, 0)? {
        true => Standing::Ready,
        false => Standing::Unusable("the user may not write to its tables".into()),
    };
    Ok((standing, column(&tables, 1)?))
}

fn state_server(report: &mut BusReport, server: &Row) -> Result<(), Fault> {
    let version: &str = column(server, 0)?;
    let (used, most): (i64, &str) = (column(server, 5)?, column(server, 6)?);
    let longest: Option<i64> = column(server, 9)?;
    report.state(Aspect::Server, format!("PostgreSQL {version}"));
    let limit = BusReport::size(PAYLOAD_MAX as u64);
    let mut limits =
        format!("{limit} a payload and an append; {used} of {most} connections in use");
    if let Some(seconds) = longest {
        limits.push_str(&format!("; a transaction is open for {seconds} s"));
    }
    report.state(Aspect::Limits, limits);
    Ok(())
}

/// Nobody who reads waits for them. But the row of a topic is replaced by each append, and a transaction
/// that may still want to see how it was keeps all that were replaced since.
fn warn_of_transactions(report: &mut BusReport, longest: Option<i64>) {
    let Some(minutes) = longest.filter(|of| *of >= LONG).map(|of| of / 60) else {
        return;
    };
    report.warn(
        format!(
            "a transaction is open for {minutes} minutes: no reader waits for it, but what appends replace \
             stays until it ends, and they become slower"
        ),
        [
            "SELECT pid, usename, application_name, state, xact_start FROM pg_stat_activity ORDER BY xact_start LIMIT 5;",
            "SELECT pg_terminate_backend(PID);",
        ],
    );
}

fn state_tls(report: &mut BusReport, version: Option<&str>) {
    match version {
        Some(version) => report.state(Aspect::Tls, format!("on, {version}")),
        None => {
            report.state(Aspect::Tls, "off");
            report.warn(
                "whoever is on the way may ask for the password, and sees who publishes when and how much",
                ["SEALCAST_BUS_TLS=require"],
            );
        }
    }
}

fn state_standbys(report: &mut BusReport, awaited: &str, count: i64) {
    let says = match (count, awaited.is_empty()) {
        (0, true) => "one server".to_owned(),
        (count, true) => format!("a primary with standbys, {count} now; none is waited for"),
        (count, false) => format!("a primary with standbys, {count} now; waits for `{awaited}`"),
    };
    report.state(Aspect::Cluster, says);
    if count > 0 && awaited.is_empty() {
        report.warn(
            "a standby that takes over may lack what was acknowledged last",
            [
                "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (*)';",
                "SELECT pg_reload_conf();",
            ],
        );
    }
}

fn state_durability(report: &mut BusReport, syncs: bool, writes_pages: bool) {
    let says = match syncs {
        true => "an append is on the disk before it is acknowledged",
        false => "survives a killed server, and no loss of power",
    };
    report.state(Aspect::Durability, says);
    for (is_on, name) in [(syncs, "fsync"), (writes_pages, "full_page_writes")] {
        if !is_on {
            let set = format!("ALTER SYSTEM SET {name} = on;");
            report.warn(
                format!("`{name}` is off: a loss of power may destroy the database"),
                [set.as_str(), "SELECT pg_reload_conf();"],
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_warned_of_once_it_is_long() {
        for (longest, says) in [(None, ""), (Some(LONG - 1), ""), (Some(LONG), "5 minutes")] {
            let mut report = BusReport::new(Standing::Ready);
            warn_of_transactions(&mut report, longest);
            let said = report.warnings().first().map_or("", |of| of.says.as_str());
            let is_said = said.contains(says) && said.is_empty() == says.is_empty();
            assert!(is_said, "{longest:?}: {said}");
        }
    }
}

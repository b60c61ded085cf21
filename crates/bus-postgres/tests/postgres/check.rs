//! What a database is said to offer as a bus, and what is made there.

use sealcast_brokers::postgres::Server;
use sealcast_bus::{Aspect, BusError, BusReport, Credentials, ServerOptions, Standing};
use sealcast_bus_postgres::PostgresBus;

use crate::rig::{QUICK, address, open, shared};

async fn report(url: &str) -> BusReport {
    let report = PostgresBus::check(&address(url), &ServerOptions::default()).await;
    report.unwrap()
}

fn warnings(report: &BusReport) -> String {
    let all = report.warnings().iter();
    all.map(|of| format!("{}: {}\n", of.says, of.remedy.join(" ")))
        .collect()
}

fn unusable(standing: Standing) -> String {
    match standing {
        Standing::Unusable(why) => why,
        Standing::Ready | Standing::Missing => panic!("{standing:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_is_made_once_and_a_check_makes_none() {
    let server = Server::start();
    let (url, options) = (server.url("x"), ServerOptions::default());
    for _ in 0..2 {
        let report = report(&url).await;
        assert_eq!(report.standing, Standing::Missing);
        assert!(report.round_trip.is_some());
    }
    let words = "the schema `x` in the database `postgres`".to_owned();
    let setup = PostgresBus::setup(&address(&url), &options).await.unwrap();
    assert_eq!((setup.made, setup.left), (vec![words.clone()], vec![]));
    let setup = PostgresBus::setup(&address(&url), &options).await.unwrap();
    assert_eq!((setup.made, setup.left), (vec![], vec![words]));
    let _held = server.hold("BEGIN; SELECT FROM x.topics");
    let report = report(&url).await;
    assert_eq!(report.standing, Standing::Ready);
    assert_eq!(report.unstated(), []);
    assert!(report.round_trip.is_some());
    for (aspect, says) in [
        (Aspect::Server, "PostgreSQL 1"),
        (Aspect::Cluster, "one server"),
        (Aspect::Tls, "off"),
        (Aspect::Limits, "32 MiB a payload"),
        (Aspect::Limits, "a transaction is open for"),
        (Aspect::Room, "KiB taken"),
        (Aspect::Durability, "on the disk before"),
    ] {
        let stated = report.stated(aspect).unwrap();
        assert!(stated.contains(says), "{stated}");
    }
    let all = warnings(&report);
    assert!(
        all.contains("SEALCAST_BUS_TLS=require") && !all.contains("fsync"),
        "{all}"
    );
}

/// What is in a schema, how it is made, and who may do what with it.
fn seen(server: &Server, schema: &str) -> String {
    server.sql(&format!(
        "SELECT concat_ws(' ', relname, relkind, relowner, relacl, reloptions) FROM pg_class
            WHERE relnamespace = '{schema}'::regnamespace
         UNION ALL SELECT concat_ws(' ', nspowner, nspacl) FROM pg_namespace WHERE nspname = '{schema}'
         UNION ALL SELECT concat_ws(' ', relname, attname, atttypid::regtype) FROM pg_class
            JOIN pg_attribute ON attrelid = pg_class.oid
            WHERE relnamespace = '{schema}'::regnamespace AND attnum > 0
         UNION ALL SELECT schema_to_xml('{schema}', true, false, '')::text
         ORDER BY 1"
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_there_stays_as_it_is_whosever_it_is() {
    let (server, options) = (shared(), ServerOptions::default());
    server.sql(
        "CREATE SCHEMA inn; CREATE TABLE inn.topics (name text, beds integer);
         CREATE TABLE inn.bus (what text, stops integer);
         INSERT INTO inn.topics VALUES ('blue', 2); INSERT INTO inn.bus VALUES ('number 7', 12)",
    );
    let before = seen(&server, "inn");
    assert!(before.contains("number 7"), "{before}");
    let refused = PostgresBus::setup(&address(&server.url("inn")), &options).await;
    let is_refused = matches!(refused, Err(BusError::Unreachable { .. }));
    assert!(is_refused, "{refused:?}");
    assert_eq!(seen(&server, "inn"), before);

    // One of ours, with what an administrator has done to it.
    let url = address(&server.url("altered"));
    PostgresBus::setup(&url, &options).await.unwrap();
    server.sql(
        "ALTER TABLE altered.items ADD COLUMN noted text; GRANT USAGE ON SCHEMA altered TO PUBLIC;
         ALTER TABLE altered.topics SET (fillfactor = 70); CREATE TABLE altered.notes (said text);
         INSERT INTO altered.notes VALUES ('moved in May'); GRANT SELECT ON altered.items TO PUBLIC",
    );
    let before = seen(&server, "altered");
    for sign in ["moved in May", "fillfactor=70", "noted"] {
        assert!(before.contains(sign), "{sign}: {before}");
    }
    let setup = PostgresBus::setup(&url, &options).await.unwrap();
    assert_eq!((setup.made.len(), setup.left.len()), (0, 1));
    assert_eq!(seen(&server, "altered"), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_may_lose_is_warned_of() {
    let server = Server::start_with(&format!("{QUICK}\nfull_page_writes = off"));
    let report = report(&server.url("x")).await;
    let durability = report.stated(Aspect::Durability).unwrap();
    assert!(durability.contains("no loss of power"), "{durability}");
    let all = warnings(&report);
    for word in ["ALTER SYSTEM SET fsync = on;", "`full_page_writes` is off"] {
        assert!(all.contains(word), "{word}: {all}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_bus_for_this_user_is_said_to_be_none() {
    let server = shared();
    server.sql("CREATE SCHEMA shops; CREATE ROLE nobody LOGIN PASSWORD 'x'");
    let why = unusable(report(&server.url("shops")).await.standing);
    assert!(why.contains("not that of a bus"), "{why}");
    drop(open(&server, "somebodys").await);
    let mut options = ServerOptions::default();
    options.credentials = Credentials::Password {
        user: "nobody".into(),
        password: "x".into(),
    };
    for (name, allow, says) in [
        ("nobodys", "SELECT 1", "may not create"),
        ("somebodys", "SELECT 1", "may not use it"),
        (
            "somebodys",
            "GRANT USAGE ON SCHEMA somebodys TO nobody",
            "permission denied",
        ),
        (
            "somebodys",
            "GRANT SELECT ON ALL TABLES IN SCHEMA somebodys TO nobody",
            "may not write",
        ),
    ] {
        server.sql(allow);
        let checked = PostgresBus::check(&address(&server.url(name)), &options).await;
        let why = match checked {
            Ok(report) => unusable(report.standing),
            Err(error) => format!("{error:?}"),
        };
        assert!(why.contains(says), "{why}");
    }
    let missing = address(&server.url("x").replace("/postgres/", "/nothing/"));
    let error = PostgresBus::check(&missing, &options).await.unwrap_err();
    assert!(matches!(error, BusError::Unreachable { .. }), "{error:?}");
}

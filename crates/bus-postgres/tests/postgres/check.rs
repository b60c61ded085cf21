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

//! A PostgreSQL bus talks to the server that it is told of, and tells nobody else who it is.

use std::path::{Path, PathBuf};

use sealcast_brokers::postgres::Server;
use sealcast_bus::{Bus, BusError, Credentials, Offset, ServerOptions};
use sealcast_bus_postgres::PostgresBus;

use crate::rig::{QUICK, address, shared, topic};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/postgres/fixtures")
        .join(name)
}

async fn open(
    server: &Server,
    set: impl FnOnce(&mut ServerOptions),
) -> Result<PostgresBus, BusError> {
    let mut options = ServerOptions::default();
    set(&mut options);
    PostgresBus::open(&address(&server.url("x")), &options).await
}

async fn assert_refused(server: &Server, set: impl FnOnce(&mut ServerOptions)) {
    let error = open(server, set).await.unwrap_err();
    assert!(matches!(error, BusError::Unreachable { .. }), "{error:?}");
    assert!(!format!("{error:?}").contains("wrong-one"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_who_has_the_password_is_let_in_and_may_create_a_bus() {
    let mut server = Server::start_with(QUICK);
    server.sql(
        "CREATE ROLE kim LOGIN PASSWORD 'hush'; GRANT CREATE ON DATABASE postgres TO kim;
         CREATE ROLE lee LOGIN PASSWORD 'hush'",
    );
    server.write("pg_hba.conf", "host all all 127.0.0.1/32 scram-sha-256\n");
    server.stop();
    server.restart();
    let password = |user: &str, password: &str| Credentials::Password {
        user: user.into(),
        password: password.into(),
    };
    // The second may not make a schema, and not use that of the first.
    assert_refused(&server, |options| {
        options.credentials = password("lee", "hush")
    })
    .await;
    let bus = open(&server, |options| {
        options.credentials = password("kim", "hush")
    })
    .await
    .unwrap();
    assert!(!format!("{bus:?}").contains("hush"));
    assert_refused(&server, |options| {
        options.credentials = password("lee", "hush")
    })
    .await;
    assert_refused(&server, |_| {}).await;
    assert_refused(&server, |options| {
        options.credentials = password("kim", "wrong-one");
    })
    .await;
    assert_refused(&server, |options| {
        options.credentials = Credentials::Token("wrong-one".into());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_believed_by_its_certificate() {
    let mut server = Server::start_with(QUICK);
    for name in ["server.pem", "server.key"] {
        let text = std::fs::read_to_string(fixture(name)).unwrap();
        server.write(name, &text);
    }
    server.write(
        "postgresql.auto.conf",
        "ssl = on\nssl_cert_file = 'server.pem'\nssl_key_file = 'server.key'\n",
    );
    server.write("pg_hba.conf", "hostssl all all 127.0.0.1/32 trust\n");
    server.stop();
    server.restart();
    let bus = open(&server, |options| {
        options.certificates = Some(fixture("ca.pem"));
    })
    .await
    .unwrap();
    let log = topic("a");
    let first = bus.append(&log, vec![b"one".to_vec()]).await.unwrap();
    assert_eq!(first, Offset(0));
    let mut listener = bus.listen(vec![log.clone()]).await.unwrap();
    bus.send(&log, vec![7; 60_000]).await.unwrap();
    assert_eq!(listener.next().await.unwrap().1, vec![7; 60_000]);
    for name in ["other-ca.pem", "none.pem", "server.key"] {
        assert_refused(&server, |options| {
            options.certificates = Some(fixture(name));
        })
        .await;
    }
    // Without TLS it is the server that refuses, and the system knows none of its kind.
    assert_refused(&server, |_| {}).await;
    assert_refused(&server, |options| options.require_tls = true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_said_to_a_server_that_has_no_certificate_where_one_is_asked_for() {
    let server = shared();
    assert_refused(&server, |options| {
        options.certificates = Some(fixture("ca.pem"));
    })
    .await;
    assert_refused(&server, |options| options.require_tls = true).await;
}

//! A NATS bus talks to the server that it is told of, and tells nobody else who it is.

use std::path::{Path, PathBuf};

use sealcast_brokers::nats::Server;
use sealcast_bus::{Bus, BusError, Credentials, Offset, ServerOptions, Topic};
use sealcast_bus_nats::NatsBus;

use crate::rig::address;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/nats/fixtures")
        .join(name)
}

async fn open(server: &Server, set: impl FnOnce(&mut ServerOptions)) -> Result<NatsBus, BusError> {
    let mut options = ServerOptions::default();
    set(&mut options);
    NatsBus::open(&address(&server.url("x")), &options).await
}

async fn assert_refused(server: &Server, set: impl FnOnce(&mut ServerOptions)) {
    let error = open(server, set).await.unwrap_err();
    assert!(matches!(error, BusError::Unreachable { .. }), "{error:?}");
    assert!(!format!("{error:?}").contains("wrong-one"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_who_has_the_password_is_let_in() {
    let server = Server::start_with("authorization { user: kim, password: hush }");
    let password = |password: &str| Credentials::Password {
        user: "kim".into(),
        password: password.into(),
    };
    open(&server, |options| options.credentials = password("hush"))
        .await
        .unwrap();
    assert_refused(&server, |_| {}).await;
    assert_refused(&server, |options| {
        options.credentials = password("wrong-one")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_believed_by_its_certificate() {
    let (certificate, key) = (fixture("server.pem"), fixture("server.key"));
    let server = Server::start_with(&format!(
        "tls {{ cert_file: {certificate:?}, key_file: {key:?} }}"
    ));
    let bus = open(&server, |options| {
        options.certificates = Some(fixture("ca.pem"))
    })
    .await
    .unwrap();
    let first = bus
        .append(&Topic::new("a").unwrap(), vec![b"one".to_vec()])
        .await
        .unwrap();
    assert_eq!(first, Offset(0));
    assert_refused(&server, |options| {
        options.certificates = Some(fixture("other-ca.pem"))
    })
    .await;
    assert_refused(&server, |options| {
        options.certificates = Some(fixture("none.pem"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_said_to_a_server_that_has_no_certificate_where_one_is_asked_for() {
    let server = Server::start();
    assert_refused(&server, |options| {
        options.certificates = Some(fixture("ca.pem"))
    })
    .await;
    assert_refused(&server, |options| options.require_tls = true).await;
}

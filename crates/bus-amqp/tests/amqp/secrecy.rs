//! A bus on RabbitMQ talks to the server that it is told of, and tells nobody else who it is.

use std::path::{Path, PathBuf};

use sealcast_brokers::free_port;
use sealcast_brokers::rabbitmq::Server;
use sealcast_bus::{Bus, BusError, Credentials, Offset, ServerOptions};
use sealcast_bus_amqp::AmqpBus;

use crate::rig::{address, topic};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/amqp/fixtures")
        .join(name)
}

async fn open(url: &str, set: impl FnOnce(&mut ServerOptions)) -> Result<AmqpBus, BusError> {
    let mut options = ServerOptions::default();
    options.credentials = password("hush");
    set(&mut options);
    AmqpBus::open(&address(url), &options).await
}

fn password(password: &str) -> Credentials {
    Credentials::Password {
        user: "kim".into(),
        password: password.into(),
    }
}

async fn assert_refused(url: &str, set: impl FnOnce(&mut ServerOptions)) {
    let error = open(url, set).await.unwrap_err();
    assert!(matches!(error, BusError::Unreachable { .. }), "{error:?}");
    assert!(!format!("{error:?}").contains("wrong-one"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_believed_by_its_certificate_and_a_user_by_the_password() {
    let (certificate, key) = (fixture("server.pem"), fixture("server.key"));
    let port = free_port();
    let server = Server::start_with(&format!(
        "listeners.ssl.1 = 127.0.0.1:{port}\n\
         ssl_options.certfile = {}\nssl_options.keyfile = {}\n\
         default_user = kim\ndefault_pass = hush\n\
         default_permissions.configure = ^x[.]\ndefault_permissions.read = ^(x|amq)[.]\n\
         default_permissions.write = ^(x|amq)[.]\n",
        certificate.display(),
        key.display(),
    ));
    let (plain, tls) = (server.url("x"), format!("amqps://127.0.0.1:{port}/x"));
    let believes = |options: &mut ServerOptions| options.certificates = Some(fixture("ca.pem"));

    let bus = open(&tls, believes).await.unwrap();
    let (log, ask) = (topic("a"), topic("ask"));
    let first = bus.append(&log, vec![b"one".to_vec()]).await.unwrap();
    assert_eq!(first, Offset(0));
    let mut listener = bus.listen(vec![ask.clone()]).await.unwrap();
    bus.send(&ask, b"two".to_vec()).await.unwrap();
    assert_eq!(listener.next().await.unwrap().1, b"two");
    let same = open(&plain, |_| {}).await.unwrap();
    assert_eq!(same.end(&log).await.unwrap(), Offset(1));

    // Certificates that do not vouch for it, that are not there, and those of the system.
    for file in ["other-ca.pem", "none.pem"] {
        assert_refused(&tls, |of| of.certificates = Some(fixture(file))).await;
    }
    assert_refused(&tls, |_| {}).await;
    // Where TLS is asked for, nothing is said without.
    assert_refused(&plain, believes).await;
    assert_refused(&plain, |options| options.require_tls = true).await;
    // Credentials that are wrong, that are those of nobody, and that RabbitMQ does not know.
    assert_refused(&plain, |of| of.credentials = password("wrong-one")).await;
    assert_refused(&plain, |options| options.credentials = Credentials::None).await;
    assert_refused(&plain, |of| {
        of.credentials = Credentials::Token("wrong-one".into());
    })
    .await;
    // Names that are not the user's.
    assert_refused(&server.url("y"), |_| {}).await;
    // A virtual host that is not there.
    let elsewhere = plain.replace("/x", "/nowhere/x");
    assert_refused(&elsewhere, |_| {}).await;
}

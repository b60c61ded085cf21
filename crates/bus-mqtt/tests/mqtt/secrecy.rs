//! An MQTT bus talks to the broker that it is told of, and tells nobody else who it is.

use std::path::{Path, PathBuf};
use std::process::Command;

use sealcast_brokers::mosquitto::Server;
use sealcast_bus::{BusError, Credentials, Offset, ServerOptions};
use sealcast_bus_mqtt::MqttBus;

use crate::rig::{address, put, topic};

/// Certificates for 127.0.0.1, and of those who vouch for them or do not.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../bus-nats/tests/nats/fixtures")
        .join(name)
}

async fn open(url: &str, set: impl FnOnce(&mut ServerOptions)) -> Result<MqttBus, BusError> {
    let folder = tempfile::tempdir().unwrap();
    let mut options = ServerOptions::default();
    set(&mut options);
    MqttBus::open(&address(url), &options, folder.keep()).await
}

async fn assert_refused(url: &str, says: &str, set: impl FnOnce(&mut ServerOptions)) {
    let error = open(url, set).await.unwrap_err();
    let told = format!("{error:?}");
    let BusError::Unreachable { cause, .. } = error else {
        panic!("{told}");
    };
    assert!(cause.to_string().contains(says), "{told}");
    assert!(!told.contains("wrong-one"), "{told}");
}

fn password(password: &str) -> Credentials {
    Credentials::Password {
        user: "kim".into(),
        password: password.into(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_who_has_the_password_is_let_in() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users");
    let made = Command::new("mosquitto_passwd")
        .args(["-b", "-c"])
        .arg(&file)
        .args(["kim", "hush"])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let users = file.display();
    let server = Server::start_with(&format!("allow_anonymous false\npassword_file {users}"));
    let url = server.url("x");
    let bus = open(&url, |options| options.credentials = password("hush"));
    let first = put(&bus.await.unwrap(), &topic("a"), "one").await;
    assert_eq!(first, Offset(0));
    assert_refused(&url, "this user may not", |_| {}).await;
    let wrong = |options: &mut ServerOptions| options.credentials = password("wrong-one");
    assert_refused(&url, "does not let us in", wrong).await;
    let token = |options: &mut ServerOptions| options.credentials = Credentials::Token("t".into());
    assert_refused(&url, "users with passwords", token).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_is_believed_by_its_certificate() {
    let (certificate, key) = (fixture("server.pem"), fixture("server.key"));
    let server = Server::start_with(&format!(
        "allow_anonymous true\ncertfile {}\nkeyfile {}",
        certificate.display(),
        key.display()
    ));
    let plain = server.url("x");
    let secured = plain.replace("mqtt://", "mqtts://");
    for url in [&plain, &secured] {
        let with = |name: &str| {
            let path = fixture(name);
            move |options: &mut ServerOptions| options.certificates = Some(path)
        };
        let bus = open(url, with("ca.pem")).await.unwrap();
        put(&bus, &topic("a"), "one").await;
        assert_refused(url, "no answer", with("other-ca.pem")).await;
        assert_refused(url, "cannot use the certificates", with("none.pem")).await;
    }
    // The system vouches for no such broker.
    assert_refused(&secured, "no answer", |_| {}).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_said_to_a_broker_without_a_certificate_where_one_is_asked_for() {
    let server = Server::start();
    let plain = server.url("x");
    let secured = plain.replace("mqtt://", "mqtts://");
    assert_refused(&secured, "", |_| {}).await;
    assert_refused(&plain, "", |options| options.require_tls = true).await;
}

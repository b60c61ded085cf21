//! Servers that let in who has the password, and are believed by certificates of one's own: what a home knows of them it
//! goes by wherever a bus is named, and hands on to nobody.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sealcast_brokers::{free_port, mosquitto, nats, postgres, rabbitmq};

use crate::rig::{Person, Rig};

const PASSWORD: &str = "hush-hush-hush";

/// Certificates for 127.0.0.1, and of those who vouch for them or do not.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../bus-nats/tests/nats/fixtures")
        .join(name)
}

/// Has a home know this of the servers of a bus.
fn know(person: &Person, url: &str, password: &str, ca: Option<&str>) {
    let ca = ca.map(|name| format!("ca = {:?}\n", fixture(name)));
    let text = format!(
        "[\"{url}\"]\nuser = \"kim\"\npassword = \"{password}\"\n{}",
        ca.unwrap_or_default()
    );
    fs::write(person.home().join("servers.toml"), text).unwrap();
}

/// Makes a bus, publishes and reads there as two people do, and fails as whoever knows too little.
fn goes_by_what_homes_know(url: &str) {
    let rig = Rig::small();
    let [alice, bob] = ["alice", "bob"].map(|name| {
        let person = rig.person(name);
        know(&person, url, PASSWORD, Some("ca.pem"));
        person
    });
    alice.done(&["bus", "setup", url]);
    let checked = alice.done(&["bus", "check", url]);
    let says_tls = |line: &str| line.starts_with("tls ") && line.contains(" on");
    assert!(checked.lines().any(says_tls), "{checked}");
    let ticket = alice.done(&["stream", "create", "s", "--bus", url]);
    bob.done(&["join", &ticket]);
    alice.done(&["grant", "s", &bob.id(), "--from", "start"]);
    alice.done(&["pub", "s", "-m", "one"]);
    assert_eq!(bob.opened(&["read", "s"]), ["one"]);
    // To another bus and back.
    bob.done(&["bus", "setup", "file:back"]);
    bob.done(&["bus", "copy", url, "file:back", "s"]);

    let written = URL_SAFE_NO_PAD
        .decode(ticket.split_once(':').unwrap().1)
        .unwrap();
    let has = |text: &str| written.windows(text.len()).any(|of| of == text.as_bytes());
    let (_, place) = url.split_once("://").unwrap();
    assert!(has(place), "it is where the ticket is looked through");
    assert!(!has(PASSWORD) && !has("kim") && !has("ca.pem"));

    for (password, ca) in [
        ("wrong-one", Some("ca.pem")),
        (PASSWORD, Some("other-ca.pem")),
        (PASSWORD, None),
    ] {
        know(&bob, url, password, ca);
        let back = ["bus", "copy", "file:back", url, &ticket];
        let check = ["bus", "check", url];
        for command in [&["read", "s"][..], &["pub", "s", "-m", "no"], &check, &back] {
            let said = bob.refused(5, command);
            assert!(!said.contains(password), "{command:?}: {said}");
        }
    }
}

/// What each server is told of its certificate.
fn certified(config: &str) -> String {
    let fixture = |name| fixture(name).display().to_string();
    let config = config.replace("CERTIFICATE", &fixture("server.pem"));
    config.replace("KEY", &fixture("server.key"))
}

#[test]
fn on_nats() {
    let tls = "tls { cert_file: \"CERTIFICATE\", key_file: \"KEY\" }";
    let users = format!("authorization {{ user: kim, password: \"{PASSWORD}\" }}");
    let server = nats::Server::start_with(&format!("{}\n{users}", certified(tls)));
    goes_by_what_homes_know(&server.url("x"));
}

#[test]
fn on_mqtt() {
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users");
    let mut making = Command::new("mosquitto_passwd");
    let making = making
        .args(["-b", "-c"])
        .arg(&users)
        .args(["kim", PASSWORD]);
    assert!(making.status().unwrap().success());
    let config = certified("certfile CERTIFICATE\nkeyfile KEY\nallow_anonymous false");
    let users = format!("password_file {}", users.display());
    // The certificate goes with the listener, which comes before.
    let server = mosquitto::Server::start_with(&format!("{config}\n{users}"));
    goes_by_what_homes_know(&server.url("x").replace("mqtt://", "mqtts://"));
}

#[test]
fn on_amqp() {
    let port = free_port();
    let config = certified(
        "ssl_options.certfile = CERTIFICATE\nssl_options.keyfile = KEY\ndefault_user = kim",
    );
    let _server = rabbitmq::Server::start_with(&format!(
        "{config}\ndefault_pass = {PASSWORD}\nlisteners.ssl.1 = 127.0.0.1:{port}"
    ));
    goes_by_what_homes_know(&format!("amqps://127.0.0.1:{port}/x"));
}

#[test]
fn on_postgres() {
    let mut server = postgres::Server::start_with("fsync = off");
    server.sql(&format!(
        "CREATE ROLE kim LOGIN PASSWORD '{PASSWORD}'; GRANT CREATE ON DATABASE postgres TO kim"
    ));
    for name in ["server.pem", "server.key"] {
        server.write(name, &fs::read_to_string(fixture(name)).unwrap());
    }
    server.write(
        "postgresql.auto.conf",
        "ssl = on\nssl_cert_file = 'server.pem'\nssl_key_file = 'server.key'\n",
    );
    server.write(
        "pg_hba.conf",
        "hostssl all all 127.0.0.1/32 scram-sha-256\n",
    );
    server.stop();
    server.restart();
    goes_by_what_homes_know(&server.url("x"));
}

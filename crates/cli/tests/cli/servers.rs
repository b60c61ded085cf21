//! Servers that let in who has the password, and are believed by certificates of one's own: what a home knows of them it
//! goes by wherever a bus is named, and hands on to nobody.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sealcast_brokers::{free_port, mosquitto, nats, postgres, rabbitmq};

use crate::rig::{Person, Ran, Rig};

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
    let follow = ["sub", "s", "--from", "start", "--count", "1"];
    assert_eq!(bob.done(&follow), "one");
    carries_new_streams(&rig, url, &bob);
    // To another bus and back.
    bob.done(&["bus", "setup", "file:back"]);
    bob.done(&["bus", "copy", url, "file:back", "s"]);

    let (_, place) = url.split_once("://").unwrap();
    for ticket in [&ticket, &alice.done(&["ticket", "s", "--bus", url])] {
        assert!(has(ticket, place), "where a ticket is looked through");
        for secret in [PASSWORD, "kim", "ca.pem"] {
            assert!(!has(ticket, secret), "{secret}");
        }
    }
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

/// Where a home was made for the bus, new streams are there, and a ticket may name it once more.
fn carries_new_streams(rig: &Rig, url: &str, reader: &Person) {
    let carol = rig.stranger("carol");
    carol.done(&["init", "--name", "carol", "--bus", url, "--no-passphrase"]);
    know(&carol, url, PASSWORD, Some("ca.pem"));
    carol.done(&["stream", "create", "t"]);
    let (_, streams) = carol.json(&["stream", "list"]);
    let (_, place) = url.split_once("://").unwrap();
    let bus = streams[0]["bus"].as_str().unwrap();
    assert!(bus.ends_with(place), "{bus}");
    reader.done(&["join", &carol.done(&["ticket", "t", "--bus", url])]);
    carol.done(&["grant", "t", &reader.id(), "--from", "start"]);
    carol.done(&["pub", "t", "-m", "two"]);
    assert_eq!(reader.opened(&["read", "t"]), ["two"]);
}

/// Whether a ticket has a text in it.
fn has(ticket: &str, text: &str) -> bool {
    let (_, written) = ticket.split_once(':').unwrap();
    let written = URL_SAFE_NO_PAD.decode(written).unwrap();
    written.windows(text.len()).any(|of| of == text.as_bytes())
}

/// What each server is told of its certificate.
fn certified(config: &str) -> String {
    let fixture = |name| fixture(name).display().to_string();
    let config = config.replace("CERTIFICATE", &fixture("server.pem"));
    config.replace("KEY", &fixture("server.key"))
}

/// It lets Kim in alone, and speaks TLS alone.
fn guarded_nats() -> nats::Server {
    let tls = "tls { cert_file: \"CERTIFICATE\", key_file: \"KEY\" }";
    let users = format!("authorization {{ user: kim, password: \"{PASSWORD}\" }}");
    nats::Server::start_with(&format!("{}\n{users}", certified(tls)))
}

#[test]
fn on_nats() {
    let server = guarded_nats();
    goes_by_what_homes_know(&server.url("x"));
}

/// What the environment says of servers.
fn environment(servers: &str, password: &str, ca: Option<&str>) -> [(&'static str, String); 4] {
    // An empty one counts as none.
    let ca = ca.map(|name| fixture(name).display().to_string());
    [
        ("SEALCAST_BUS_SERVERS", servers.to_owned()),
        ("SEALCAST_BUS_USER", "kim".to_owned()),
        ("SEALCAST_BUS_PASSWORD", password.to_owned()),
        ("SEALCAST_BUS_CA", ca.unwrap_or_default()),
    ]
}

#[test]
fn a_device_is_added_by_what_its_environment_says_of_the_server() {
    let (rig, server) = (Rig::small(), guarded_nats());
    let url = server.url("x");
    let said = environment("127.0.0.1", PASSWORD, Some("ca.pem"));
    let [alice, phone] = ["alice", "phone"].map(|name| rig.stranger(name).with_environment(&said));
    alice.done(&["init", "--bus", &url, "--no-passphrase"]);
    alice.done(&["stream", "create", "s"]);
    alice.done(&["pub", "s", "-m", "one"]);

    let join = ["device", "join", "--no-passphrase", "--bus", &url];
    let mut joining = phone.start(&join);
    let mut stdout = BufReader::new(joining.stdout.take().unwrap());
    let mut code = String::new();
    stdout.read_line(&mut code).unwrap();
    joining.stdout = Some(stdout.into_inner());
    let add = ["device", "add", "--name", "phone", "--yes"];
    alice.done_with(&add, code.trim().as_bytes());
    let joined = Ran::of(joining.wait_with_output().unwrap());
    assert_eq!(joined.expect(0, &join), alice.id());
    assert_eq!(phone.opened(&["read", "s"]), ["one"]);

    // A ticket may name any server, and a later variable stands for the earlier.
    for said in [
        environment("elsewhere.example", PASSWORD, Some("ca.pem")),
        environment("127.0.0.1", "wrong-one", Some("ca.pem")),
        environment("127.0.0.1", PASSWORD, Some("other-ca.pem")),
        environment("127.0.0.1", PASSWORD, None),
    ] {
        let other = phone.clone().with_environment(&said);
        for command in [&["read", "s"][..], &["pub", "s", "-m", "no"]] {
            let said = other.refused(5, command);
            assert!(!said.contains(PASSWORD), "{command:?}: {said}");
        }
    }
    assert_eq!(phone.opened(&["read", "s"]), ["one"]);
}

#[test]
fn nothing_is_said_without_tls_where_the_environment_requires_it() {
    let (rig, server) = (Rig::small(), nats::Server::start());
    let url = server.url("x");
    let kim = rig.stranger("kim");
    kim.done(&["init", "--bus", &url, "--no-passphrase"]);
    kim.done(&["stream", "create", "s"]);
    kim.done(&["pub", "s", "-m", "one"]);
    let required = [("SEALCAST_BUS_TLS", "require".to_owned())];
    let wary = kim.clone().with_environment(&required);
    let wrong = [("SEALCAST_BUS_TLS", "perhaps".to_owned())];
    let wrong = kim.clone().with_environment(&wrong);
    for command in [&["read", "s"][..], &["pub", "s", "-m", "no"]] {
        wary.refused(5, command);
        let ran = wrong.run(command);
        assert!(ran.code != 0 && ran.stderr.contains("SEALCAST_BUS_"));
    }
    assert_eq!(kim.done(&["read", "s"]), "one");
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

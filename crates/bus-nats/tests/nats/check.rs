//! What a server is said to offer as a bus, and what is made there.

use std::process::Command;
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType};
use sealcast_brokers::nats::Server;
use sealcast_brokers::{Process, free_port};
use sealcast_bus::{Aspect, BusError, BusReport, Credentials, ServerOptions, Standing};
use sealcast_bus_nats::NatsBus;

use crate::rig::address;

async fn report(url: &str) -> BusReport {
    let report = NatsBus::check(&address(url), &ServerOptions::default()).await;
    report.unwrap()
}

/// A stream as somebody else makes it for a bus.
async fn make(server: &Server, name: &str, change: impl FnOnce(&mut Config)) {
    let client = async_nats::connect(server.url("")).await.unwrap();
    let mut config = Config {
        name: name.to_owned(),
        subjects: ["log", "part"].map(|of| format!("{name}.{of}.>")).to_vec(),
        ..Config::default()
    };
    change(&mut config);
    jetstream::new(client).create_stream(config).await.unwrap();
}

/// How a stream stands on the server.
async fn config_of(server: &Server, name: &str) -> Config {
    let client = async_nats::connect(server.url("")).await.unwrap();
    let stream = jetstream::new(client).get_stream(name).await.unwrap();
    stream.cached_info().config.clone()
}

fn warnings(report: &BusReport) -> String {
    let all = report.warnings().iter();
    all.map(|of| format!("{}: {}\n", of.says, of.remedy.join("; ")))
        .collect()
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
    let setup = NatsBus::setup(&address(&url), &options).await.unwrap();
    let words = "the stream `x`, on 1 server";
    assert_eq!((setup.made, setup.left), (vec![words.to_owned()], vec![]));
    let setup = NatsBus::setup(&address(&url), &options).await.unwrap();
    assert_eq!((setup.made, setup.left), (vec![], vec![words.to_owned()]));
    let report = report(&url).await;
    assert_eq!(report.standing, Standing::Ready);
    assert_eq!(report.unstated(), []);
    let retention = report.stated(Aspect::Retention);
    assert_eq!(retention, Some("nothing is removed by itself"));
    let room = report.stated(Aspect::Room).unwrap();
    assert!(room.contains("no limit for the account"), "{room}");
    let all = warnings(&report);
    for word in ["loss of power", "replicas = 3", "sees the password"] {
        assert!(all.contains(word), "{word}: {all}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stream_removes_or_cannot_do_is_warned_of_and_stays() {
    let server = Server::start();
    make(&server, "old", |config| {
        config.max_age = Duration::from_secs(3600);
        config.max_messages_per_subject = 7;
        config.max_bytes = 1 << 20;
        config.discard = DiscardPolicy::Old;
        config.deny_purge = true;
    })
    .await;
    let all = warnings(&report(&server.url("old")).await);
    for word in [
        "older than 3600s",
        "nats stream edit old --max-age=0",
        "more than 7 appends a log",
        "--max-msgs-per-subject=-1",
        "more than 1048576 bytes",
        "--max-bytes=-1",
        "keeps its room",
    ] {
        assert!(all.contains(word), "{word}: {all}");
    }
    make(&server, "new", |config| {
        config.max_bytes = 1 << 20;
        config.discard = DiscardPolicy::New;
        config.storage = StorageType::Memory;
    })
    .await;
    let report = report(&server.url("new")).await;
    let retention = report.stated(Aspect::Retention).unwrap();
    assert!(retention.contains("full at 1048576 bytes"), "{retention}");
    let all = warnings(&report);
    assert!(!all.contains("takes that for damage"), "{all}");
    assert!(all.contains("gone when the server ends"), "{all}");
    for name in ["old", "new"] {
        let before = config_of(&server, name).await;
        let setup = NatsBus::setup(&address(&server.url(name)), &ServerOptions::default()).await;
        let setup = setup.unwrap();
        assert_eq!((setup.made.len(), setup.left.len()), (0, 1));
        assert_eq!(config_of(&server, name).await, before);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_a_bus_is_said_to_be_none() {
    let server = Server::start();
    make(&server, "x", |config| {
        config.subjects = vec!["orders.>".into()]
    })
    .await;
    let before = config_of(&server, "x").await;
    let foreign = report(&server.url("x")).await.standing;
    assert!(matches!(&foreign, Standing::Unusable(why) if why.contains("not that of a bus")));
    let options = ServerOptions::default();
    let refused = NatsBus::setup(&address(&server.url("x")), &options).await;
    assert!(matches!(refused, Err(BusError::Unreachable { .. })));
    assert_eq!(config_of(&server, "x").await, before);

    let port = free_port();
    let mut command = Command::new("nats-server");
    command.args(["-a", "127.0.0.1", "-p", &port.to_string()]);
    let mut plain = Process::start(command, "nats-server", &server.folder().join("plain.log"));
    plain.wait_until(|| std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    let report = report(&format!("nats://127.0.0.1:{port}/x")).await;
    let says = &report.standing;
    assert!(
        matches!(says, Standing::Unusable(why) if why.contains("JetStream")),
        "{says:?}"
    );
    assert!(warnings(&report).contains("jetstream { store_dir"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_told_as_opening_tells_it() {
    let server = Server::start_with("authorization { user: kim, password: hush }");
    let mut options = ServerOptions::default();
    options.credentials = Credentials::Password {
        user: "kim".into(),
        password: "wrong-one".into(),
    };
    let refused = NatsBus::check(&address(&server.url("x")), &options).await;
    let refused = refused.unwrap_err();
    assert!(
        matches!(refused, BusError::Unreachable { .. }),
        "{refused:?}"
    );
    assert!(!format!("{refused:?}").contains("wrong-one"));
}

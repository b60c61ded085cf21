//! What a server is said to offer as a bus, and what is made there.

use lapin::options::{ExchangeDeclareOptions, ExchangeDeleteOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties, ExchangeKind};
use sealcast_brokers::Proxy;
use sealcast_brokers::rabbitmq::Server;
use sealcast_bus::{Aspect, BusError, BusReport, Credentials, ServerOptions, Standing};
use sealcast_bus_amqp::AmqpBus;

use crate::rig::{address, open, shared};

async fn report(url: &str) -> BusReport {
    let report = AmqpBus::check(&address(url), &ServerOptions::default()).await;
    report.unwrap()
}

fn warnings(report: &BusReport) -> String {
    let all = report.warnings().iter();
    all.map(|of| format!("{}: {}\n", of.says, of.remedy.join("; ")))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_is_made_once_and_a_check_makes_none() {
    let server = shared();
    let (url, options) = (server.url("made"), ServerOptions::default());
    for _ in 0..2 {
        let report = report(&url).await;
        assert_eq!(report.standing, Standing::Missing);
        assert!(report.round_trip.is_some());
    }
    let words = "the exchange `made.now`".to_owned();
    let setup = AmqpBus::setup(&address(&url), &options).await.unwrap();
    assert_eq!((setup.made, setup.left), (vec![words.clone()], vec![]));
    let setup = AmqpBus::setup(&address(&url), &options).await.unwrap();
    assert_eq!((setup.made, setup.left), (vec![], vec![words]));
    let report = report(&url).await;
    assert_eq!(report.standing, Standing::Ready);
    assert_eq!(report.unstated(), []);
    assert!(report.round_trip.is_some());
    for (aspect, says) in [
        (Aspect::Server, "RabbitMQ"),
        (Aspect::Cluster, "one server is named"),
        (Aspect::Tls, "off"),
        (Aspect::History, "all of it"),
        (Aspect::Retention, "unless a policy"),
        (Aspect::Limits, "a payload"),
        (Aspect::Durability, "survives a killed server"),
    ] {
        let stated = report.stated(aspect).unwrap();
        assert!(stated.contains(says), "{stated}");
    }
    let all = warnings(&report);
    for word in [
        "does not sync",
        "join_cluster",
        "sees the password",
        "listeners.ssl",
    ] {
        assert!(all.contains(word), "{word}: {all}");
    }
    // A check makes no log either.
    let queues = server.control(&["list_queues", "-q", "name"]);
    assert!(!queues.contains("made."), "{queues}");
}

/// Its name is that of the exchange of a bus.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchange_of_somebody_else_is_said_to_be_no_bus_and_stays_as_it_is() {
    let server = shared();
    let at = format!("amqp://guest:guest@127.0.0.1:{}/%2f", server.port());
    let connecting = Connection::connect(&at, ConnectionProperties::default());
    let connection = connecting.await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let kinds = [
        (ExchangeKind::Fanout, true, "fanout"),
        (ExchangeKind::Topic, true, "topic"),
        (ExchangeKind::Direct, false, "direct"),
    ];
    for (kind, durable, named) in kinds {
        let options = ExchangeDeclareOptions {
            durable,
            ..ExchangeDeclareOptions::default()
        };
        let arguments = FieldTable::default();
        let made = channel.exchange_declare("theirs.now".into(), kind, options, arguments);
        made.await.unwrap();
        let url = server.url("theirs");
        let standing = report(&url).await.standing;
        let is_told =
            matches!(&standing, Standing::Unusable(why) if why.contains("not that of a bus"));
        assert!(is_told, "{named}: {standing:?}");
        let refused = AmqpBus::setup(&address(&url), &ServerOptions::default()).await;
        let is_told = matches!(refused, Err(BusError::Unreachable { .. }));
        assert!(is_told, "{named}: {refused:?}");
        let left = server.control(&["list_exchanges", "-q", "name", "type", "durable"]);
        let expected = format!("theirs.now\t{named}\t{durable}");
        assert!(left.lines().any(|line| line == expected), "{left}");
        let gone = channel.exchange_delete("theirs.now".into(), ExchangeDeleteOptions::default());
        gone.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_bus_for_this_user_is_said_to_be_none() {
    let server = shared();
    drop(open(&server, "somebodys").await);
    server.control(&["add_user", "reader", "hush"]);
    server.control(&["set_permissions", "reader", "^$", ".*", "^$"]);
    let mut options = ServerOptions::default();
    options.credentials = Credentials::Password {
        user: "reader".into(),
        password: "hush".into(),
    };
    let at = address(&server.url("somebodys"));
    let report = AmqpBus::check(&at, &options).await.unwrap();
    let is_told = matches!(&report.standing, Standing::Unusable(why) if why.contains("may not"));
    assert!(is_told, "{report:?}");
}

/// Servers of one cluster have the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_are_named_together_are_looked_at_one_by_one() {
    let (server, other) = (shared(), Server::start());
    drop(open(&server, "together").await);
    let again = Proxy::before(server.port()).await;
    let named = async |second: u16| {
        let first = server.port();
        report(&format!(
            "amqp://127.0.0.1:{first},127.0.0.1:{second}/together"
        ))
        .await
    };
    let one = named(again.port()).await;
    let stated = one.stated(Aspect::Cluster).unwrap();
    assert!(stated.starts_with("2 of 2 servers"), "{stated}");
    assert!(!warnings(&one).contains("cluster_status"), "{one:?}");
    let two = named(other.port()).await;
    let says = format!("127.0.0.1:{} has not what", other.port());
    assert!(warnings(&two).contains(&says), "{two:?}");
    again.cut();
    let gone = named(again.port()).await;
    let stated = gone.stated(Aspect::Cluster).unwrap();
    assert!(stated.starts_with("1 of 2 servers"), "{stated}");
    let says = format!("nobody lets us in at 127.0.0.1:{}", again.port());
    assert!(warnings(&gone).contains(&says), "{gone:?}");
}

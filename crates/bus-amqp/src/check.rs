//! What a server offers as a bus, without making one; and making one.

use std::sync::Arc;
use std::time::Instant;

use sealcast_bus::{
    Aspect, BusError, BusReport, BusSetup, ServerAddress, ServerOptions, Standing, Topic,
};

use crate::PAYLOAD_MAX;
use crate::fault::Fault;
use crate::log::Logs;
use crate::server::Server;

pub(crate) async fn check(
    address: &ServerAddress,
    options: &ServerOptions,
) -> Result<BusReport, BusError> {
    let server = Server::reach(address, options).await?;
    let looked = look(&server, address).await;
    looked.map_err(|fault| server.fault(fault))
}

pub(crate) async fn setup(
    address: &ServerAddress,
    options: &ServerOptions,
) -> Result<BusSetup, BusError> {
    let server = Server::reach(address, options).await?;
    let what = format!("the exchange `{}`", server.names.exchange());
    match server.find_or_make().await {
        Ok(true) => Ok(BusSetup::made(what)),
        Ok(false) => Ok(BusSetup::left(what)),
        Err(fault) => Err(server.fault(fault)),
    }
}

async fn look(server: &Arc<Server>, address: &ServerAddress) -> Result<BusReport, Fault> {
    let start = Instant::now();
    let standing = match server.is_there().await? {
        true => Standing::Ready,
        false => Standing::Missing,
    };
    let mut report = BusReport::new(standing);
    report.round_trip = Some(start.elapsed());
    if report.standing == Standing::Ready {
        let topic = Topic::new("check").map_err(|_| Fault::Odd("a topic has an odd name"))?;
        let (logs, start) = (Logs::new(Arc::clone(server)), Instant::now());
        let ended = logs.end(&topic).await;
        report.round_trip = ended.is_ok().then(|| start.elapsed());
    }
    state_all(&mut report, address);
    Ok(report)
}

/// What RabbitMQ says of itself to those who publish and read is little.
fn state_all(report: &mut BusReport, address: &ServerAddress) {
    let payload = BusReport::size(PAYLOAD_MAX as u64);
    for (aspect, says) in [
        (
            Aspect::Server,
            "RabbitMQ; which version cannot be seen from here".to_owned(),
        ),
        (Aspect::Cluster, "cannot be seen from here".to_owned()),
        (Aspect::History, "all of it".to_owned()),
        (
            Aspect::Retention,
            "nothing is removed by itself, unless a policy of the server says so; what is trimmed \
             keeps its room"
                .to_owned(),
        ),
        (Aspect::Limits, format!("{payload} a payload and an append")),
        (Aspect::Room, "cannot be seen from here".to_owned()),
        (
            Aspect::Durability,
            "survives a killed server; whether a loss of power cannot be seen from here".to_owned(),
        ),
    ] {
        report.state(aspect, says);
    }
    report.warn(
        "a loss of power takes what came last, unless there are three servers: RabbitMQ does not sync \
         streams",
        ["rabbitmqctl join_cluster rabbit@other"],
    );
    match address.is_tls() {
        true => report.state(Aspect::Tls, "on"),
        false => {
            report.state(Aspect::Tls, "off");
            report.warn(
                "whoever is on the way sees the password, and who publishes when and how much",
                [
                    "listeners.ssl.default = 5671",
                    "ssl_options.certfile = server.pem",
                    "ssl_options.keyfile = server.key",
                ],
            );
        }
    }
}

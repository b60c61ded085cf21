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

/// What is typed on a server that is to be of the cluster of another.
const JOIN: &str = "rabbitmqctl join_cluster rabbit@other";

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
    let found_or_made = async {
        let is_made = server.find_or_make().await?;
        server.check_exchange().await?;
        Ok(is_made)
    };
    match found_or_made.await {
        Ok(true) => Ok(BusSetup::made(what)),
        Ok(false) => Ok(BusSetup::left(what)),
        Err(fault) => Err(server.fault(fault)),
    }
}

async fn look(server: &Arc<Server>, address: &ServerAddress) -> Result<BusReport, Fault> {
    let start = Instant::now();
    let standing = standing(server).await?;
    let mut report = BusReport::new(standing);
    report.round_trip = Some(start.elapsed());
    if report.standing == Standing::Ready {
        let topic = Topic::new("check").map_err(|_| Fault::Odd("a topic has an odd name"))?;
        let (logs, start) = (Logs::new(Arc::clone(server)), Instant::now());
        let ended = logs.end(&topic).await;
        report.round_trip = ended.is_ok().then(|| start.elapsed());
    }
    state_all(&mut report, address);
    state_cluster(&mut report, server, address).await;
    Ok(report)
}

/// Whether there is a bus that this user may use.
async fn standing(server: &Arc<Server>) -> Result<Standing, Fault> {
    if !server.is_there().await? {
        return Ok(Standing::Missing);
    }
    match server.check_exchange().await {
        Ok(()) => Ok(Standing::Ready),
        Err(fault @ Fault::Foreign(_)) => Ok(Standing::Unusable(fault.to_string())),
        Err(Fault::Refused(_)) => {
            let prefix = &server.names.exchange();
            let says = format!("the user may not make what is named as `{prefix}` is");
            Ok(Standing::Unusable(says))
        }
        Err(fault) => Err(fault),
    }
}

/// Which of the servers that the URL names are there, and whether each has what the others have, as those of a cluster do.
async fn state_cluster(report: &mut BusReport, server: &Arc<Server>, address: &ServerAddress) {
    let named = address.servers();
    if let [_] = named {
        let says = "one server is named; whether it is one of several cannot be seen from here";
        return report.state(Aspect::Cluster, says);
    }
    let (mut with, mut without, mut gone) = (Vec::new(), Vec::new(), Vec::new());
    for (index, name) in named.iter().enumerate() {
        match server.is_there_at(index).await {
            Some(Ok(true)) => with.push(name.as_str()),
            Some(Ok(false)) => without.push(name.as_str()),
            Some(Err(_)) | None => gone.push(name.as_str()),
        }
    }
    let (all, there) = (named.len(), with.len() + without.len());
    let says = format!("{there} of {all} servers that are named let us in");
    report.state(Aspect::Cluster, says);
    if !gone.is_empty() {
        let says = format!("nobody lets us in at {}", gone.join(", "));
        report.warn(says, ["rabbitmqctl cluster_status"]);
    }
    if !with.is_empty() && !without.is_empty() {
        let (with, without) = (with.join(", "), without.join(", "));
        let says =
            format!("{without} has not what {with} has: they are no cluster, and not one bus");
        report.warn(says, ["rabbitmqctl cluster_status", JOIN]);
    }
}

/// What RabbitMQ says of itself to those who publish and read is little.
fn state_all(report: &mut BusReport, address: &ServerAddress) {
    let payload = BusReport::size(PAYLOAD_MAX as u64);
    for (aspect, says) in [
        (
            Aspect::Server,
            "RabbitMQ; which version cannot be seen from here".to_owned(),
        ),
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
        [JOIN],
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

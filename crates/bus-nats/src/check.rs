//! What a server offers as a bus, without making one; and making one.

use std::time::{Duration, Instant};

use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, StorageType};
use async_nats::jetstream::{self, ErrorCode};
use async_nats::{Client, ServerInfo};
use bytes::Bytes;
use sealcast_bus::{
    Aspect, BusError, BusReport, BusSetup, ServerAddress, ServerOptions, Standing, Topic,
};

use crate::PAYLOAD_MAX;
use crate::connect::{self, MESSAGE_MIN};
use crate::fault::Fault;
use crate::log::Logs;
use crate::subject::Subjects;

/// Where the server is asked what an account may do. Its answer lacks, before 2.10, what the client library
/// expects of it.
const ACCOUNT_INFO: &str = "$JS.API.INFO";
/// On how many servers of a cluster a stream is kept where nobody said.
const REPLICAS: usize = 3;
/// Where a cluster has fewer servers than a stream is to be kept on.
const TOO_FEW_SERVERS: [ErrorCode; 2] = [
    ErrorCode::CLUSTER_NO_PEERS,
    ErrorCode::INSUFFICIENT_RESOURCES,
];

pub(crate) async fn check(
    address: &ServerAddress,
    options: &ServerOptions,
) -> Result<BusReport, BusError> {
    let looked = look(address, options).await;
    looked.map_err(|fault| fault.at(&address.to_string()))
}

pub(crate) async fn setup(
    address: &ServerAddress,
    options: &ServerOptions,
) -> Result<BusSetup, BusError> {
    let made = find_or_make(address, options).await;
    made.map_err(|fault| fault.at(&address.to_string()))
}

async fn look(address: &ServerAddress, options: &ServerOptions) -> Result<BusReport, Fault> {
    let (client, misses) = connect::connect(address, options).await?;
    let context = jetstream::new(client.clone());
    let subjects = Subjects::new(address.name());
    let start = Instant::now();
    let found = connect::find(&context, &subjects).await;
    let answered_in = start.elapsed();
    let info = match found {
        Ok(found) => found,
        Err(Fault::NoJetStream) => return Ok(without_jetstream(&client)),
        Err(fault) => return Err(fault),
    };
    let standing = standing(&client, info.as_ref(), &subjects);
    let mut report = BusReport::new(standing);
    report.round_trip = Some(answered_in);
    state_server(&mut report, &client);
    state_account(&mut report, &client, info.as_ref()).await;
    if let Some(info) = &info {
        state_stream(&mut report, info, &client.server_info());
    }
    if report.standing == Standing::Ready {
        let server =
            connect::server(client, context, subjects, address.to_string(), misses).await?;
        let topic = Topic::new("check").map_err(|_| Fault::Odd("a topic has an odd name"))?;
        let (logs, start) = (Logs::new(server), Instant::now());
        let ended = logs.end(&topic).await;
        report.round_trip = ended.is_ok().then(|| start.elapsed());
    }
    Ok(report)
}

fn standing(client: &Client, info: Option<&Info>, subjects: &Subjects) -> Standing {
    if let Err(fault) = connect::check_messages(client) {
        return Standing::Unusable(fault.to_string());
    }
    match info.map(|info| (connect::check(info, subjects), info.config.sealed)) {
        None => Standing::Missing,
        Some((Err(fault), _)) => Standing::Unusable(fault.to_string()),
        Some((Ok(()), true)) => Standing::Unusable("its stream is sealed: nothing is added".into()),
        Some((Ok(()), false)) => Standing::Ready,
    }
}

fn without_jetstream(client: &Client) -> BusReport {
    let mut report = BusReport::new(Standing::Unusable(Fault::NoJetStream.to_string()));
    state_server(&mut report, client);
    report.state(Aspect::History, "none: the server stores nothing");
    report.warn(
        "without JetStream there is nothing to read later, and no keys can lie ready",
        ["jetstream { store_dir: /var/lib/nats }"],
    );
    report
}

fn state_server(report: &mut BusReport, client: &Client) {
    let info = client.server_info();
    let (version, name) = (&info.version, &info.server_name);
    report.state(Aspect::Server, format!("nats-server {version}, `{name}`"));
    let cluster = match &info.cluster {
        Some(cluster) => format!("of the cluster `{cluster}`"),
        None => "one server".to_owned(),
    };
    report.state(Aspect::Cluster, cluster);
    report.state(
        Aspect::Limits,
        format!(
            "{} a payload and an append; the server takes {} a message",
            BusReport::size(PAYLOAD_MAX as u64),
            BusReport::size(client.max_payload() as u64)
        ),
    );
    match info.tls_required {
        true => report.state(Aspect::Tls, "on"),
        false => {
            report.state(Aspect::Tls, "off");
            report.warn(
                "whoever is on the way sees the password, and who publishes when and how much",
                ["tls { cert_file: server.pem, key_file: server.key }"],
            );
        }
    }
}

async fn state_account(report: &mut BusReport, client: &Client, info: Option<&Info>) {
    let answer = client.request(ACCOUNT_INFO, Bytes::new()).await;
    let answer = answer.map(|answer| answer.payload).unwrap_or_default();
    let text = String::from_utf8_lossy(&answer);
    let taken = BusReport::size(info.map_or(0, |info| info.state.bytes));
    let mut says = format!("{taken} taken");
    match (number(&text, "max_storage"), number(&text, "storage")) {
        (Some(limit), Some(all)) if limit >= 0 => {
            let [limit, all] = [limit, all].map(|of| BusReport::size(of.unsigned_abs()));
            says.push_str(&format!("; the account takes {all} of {limit}"));
        }
        (Some(_), _) => says.push_str("; no limit for the account, and the disk cannot be seen"),
        (None, _) => says.push_str("; what the account may take is not known"),
    }
    report.state(Aspect::Room, says);
}

/// The first number that an object of JSON has under a key, however deep.
fn number(json: &str, key: &str) -> Option<i64> {
    let (_, behind) = json.split_once(&format!("\"{key}\":"))?;
    let end = behind.find([',', '}'])?;
    behind.get(..end)?.trim().parse().ok()
}

/// States what follows from how the stream was made.
fn state_stream(report: &mut BusReport, info: &Info, server: &ServerInfo) {
    report.state(Aspect::History, "all of it");
    state_cluster(report, info, server);
    state_retention(report, &info.config);
    state_durability(report, &info.config, server);
    let (name, config) = (&info.config.name, &info.config);
    if usize::try_from(config.max_message_size).is_ok_and(|max| max < MESSAGE_MIN) {
        report.warn(
            "its stream takes short messages only: longer appends fail",
            [format!("nats stream edit {name} --max-msg-size=-1")],
        );
    }
    if config.deny_purge || config.deny_delete {
        let says = "what is trimmed keeps its room: the stream does not let go of messages";
        report.warn(says, [""; 0]);
    }
}

fn state_cluster(report: &mut BusReport, info: &Info, server: &ServerInfo) {
    let replicas = info.config.num_replicas;
    let cluster = match (&server.cluster, &info.cluster) {
        (Some(name), Some(of)) => {
            let leader = of.leader.as_deref().unwrap_or("none now");
            format!("`{name}`; kept on {replicas} of its servers, leader `{leader}`")
        }
        _ => format!("one server; kept on {replicas}"),
    };
    report.state(Aspect::Cluster, cluster);
    let all = info.cluster.iter().flat_map(|of| &of.replicas);
    for peer in all.filter(|peer| peer.offline || !peer.current) {
        let says = format!("the server `{}` is away or behind", peer.name);
        report.warn(says, [""; 0]);
    }
}

/// What the stream removes by itself readers take for damage.
fn state_retention(report: &mut BusReport, config: &Config) {
    let name = &config.name;
    let drops_old = config.discard == DiscardPolicy::Old;
    let mut removed = Vec::new();
    let mut bound = Vec::new();
    if config.max_age > Duration::ZERO {
        removed.push((format!("older than {:?}", config.max_age), "--max-age=0"));
    }
    if config.max_messages_per_subject > 0 {
        let says = format!(
            "more than {} appends a log",
            config.max_messages_per_subject
        );
        removed.push((says, "--max-msgs-per-subject=-1"));
    }
    for (limit, what, edit) in [
        (config.max_bytes, "bytes", "--max-bytes=-1"),
        (config.max_messages, "messages", "--max-msgs=-1"),
    ] {
        let Some(limit) = u64::try_from(limit).ok().filter(|limit| *limit > 0) else {
            continue;
        };
        match drops_old {
            true => removed.push((format!("more than {limit} {what}"), edit)),
            false => bound.push(format!("full at {limit} {what}")),
        }
    }
    let mut says = vec![match removed.is_empty() {
        true => "nothing is removed by itself".to_owned(),
        false => "the stream removes what is old".to_owned(),
    }];
    says.extend(bound);
    report.state(Aspect::Retention, says.join("; "));
    for (what, edit) in removed {
        report.warn(
            format!("the stream removes what is {what}, and readers take that for damage"),
            [format!("nats stream edit {name} {edit}")],
        );
    }
}

fn state_durability(report: &mut BusReport, config: &Config, server: &ServerInfo) {
    if config.storage == StorageType::Memory {
        report.state(Aspect::Durability, "none: it is kept in memory");
        report.warn("all of it is gone when the server ends", [""; 0]);
        return;
    }
    if config.num_replicas >= REPLICAS {
        report.state(
            Aspect::Durability,
            "an append is on most of its servers before it is acknowledged",
        );
        return;
    }
    report.state(
        Aspect::Durability,
        "survives a killed server; whether a loss of power cannot be seen from here",
    );
    let mut remedy = Vec::from([
        "jetstream { store_dir: /var/lib/nats, sync_interval: always }",
        "replicas = 3 (servers.toml), then sealcast bus setup",
    ]);
    let says = match syncs_always(&server.version) {
        true => {
            "a loss of power takes what came last, unless the server syncs always, or there are three"
        }
        false => {
            remedy.remove(0);
            "a loss of power takes what came last: servers before 2.10 sync every two minutes"
        }
    };
    report.warn(says, remedy);
}

/// Whether servers of this version can be told to sync before they acknowledge.
fn syncs_always(version: &str) -> bool {
    let mut parts = version.split('.').map(str::parse::<u32>);
    let (major, minor) = (parts.next(), parts.next());
    match (major, minor) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= (2, 10),
        _ => false,
    }
}

async fn find_or_make(address: &ServerAddress, options: &ServerOptions) -> Result<BusSetup, Fault> {
    let (client, _) = connect::connect(address, options).await?;
    connect::check_messages(&client)?;
    let context = jetstream::new(client.clone());
    let subjects = Subjects::new(address.name());
    let said = |info: &Info| {
        let replicas = info.config.num_replicas;
        let servers = if replicas == 1 { "server" } else { "servers" };
        format!(
            "the stream `{}`, on {replicas} {servers}",
            subjects.stream()
        )
    };
    if let Some(found) = connect::find(&context, &subjects).await? {
        connect::check(&found, &subjects)?;
        return Ok(BusSetup::left(said(&found)));
    }
    let is_cluster = client.server_info().cluster.is_some();
    let replicas = match options.replicas {
        None if is_cluster => REPLICAS,
        replicas => replicas.unwrap_or(1),
    };
    match connect::create(&context, &subjects, replicas).await {
        Ok(created) => Ok(BusSetup::made(said(&created))),
        Err(Fault::Refused(error)) if TOO_FEW_SERVERS.contains(&error.error_code()) => {
            Err(Fault::TooFewServers { replicas })
        }
        Err(fault) => Err(fault),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_by_its_key() {
        let json = r#"{"storage":7,"limits":{"max_storage":-1,"last":9}}"#;
        for (key, found) in [("storage", 7), ("max_storage", -1), ("last", 9)] {
            assert_eq!(number(json, key), Some(found));
        }
        assert_eq!(number(json, "none"), None);
    }

    #[test]
    fn servers_from_2_10_on_can_be_told_to_sync() {
        for (version, can) in [
            ("2.9.10", false),
            ("2.10.0", true),
            ("3.0.1", true),
            ("?", false),
        ] {
            assert_eq!(syncs_always(version), can, "{version}");
        }
    }
}

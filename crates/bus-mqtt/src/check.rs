//! What a broker offers as a bus, as far as it says so itself.

use std::time::Instant;

use sealcast_bus::{
    Aspect, BusError, BusReport, BusSetup, ServerAddress, ServerOptions, Standing, UsersTopics,
};
use tokio::io::AsyncWriteExt as _;

use crate::PAYLOAD_MAX;
use crate::dial::{Connection, Dial, Incoming};
use crate::fault::Fault;
use crate::packet::{Packet, Version, put_goodbye, put_ping};

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
    match check(address, options).await?.standing {
        Standing::Unusable(why) => Err(BusError::Unreachable {
            place: address.to_string(),
            cause: why.into(),
        }),
        Standing::Ready | Standing::Missing => Ok(BusSetup::left(
            "the broker, on which nothing has to be made",
        )),
    }
}

async fn look(address: &ServerAddress, options: &ServerOptions) -> Result<BusReport, Fault> {
    let dial = Dial::new(address, options)?;
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(Fault::no_answer)?;
    let client = format!("sc{:016x}", u64::from_be_bytes(bytes));
    let mut connection = match dial.connect(&client, 0).await {
        Ok(connection) => connection,
        Err(lacking @ Fault::Lacks(_)) => {
            let mut report = BusReport::new(Standing::Unusable(lacking.to_string()));
            state_history(&mut report);
            state_users(&mut report, address.users_topics());
            return Ok(report);
        }
        Err(fault) => return Err(fault),
    };
    // A bus is there as soon as somebody publishes: nothing has to be made.
    let mut report = BusReport::new(Standing::Ready);
    let start = Instant::now();
    answer(&mut connection).await?;
    report.round_trip = Some(start.elapsed());
    state_broker(&mut report, &connection, &dial);
    state_history(&mut report);
    state_users(&mut report, address.users_topics());
    Ok(report)
}

/// Waits for the answer to a ping, and says goodbye.
async fn answer(connection: &mut Connection) -> Result<(), Fault> {
    let mut out = bytes::BytesMut::new();
    put_ping(&mut out);
    let writer = &mut connection.writer;
    writer.write_all(&out).await.map_err(Fault::no_answer)?;
    writer.flush().await.map_err(Fault::no_answer)?;
    while !matches!(
        connection.reader.next().await?,
        Incoming::Packet(Packet::Pong)
    ) {}
    out.clear();
    put_goodbye(&mut out);
    writer.write_all(&out).await.map_err(Fault::no_answer)?;
    writer.flush().await.map_err(Fault::no_answer)
}

fn state_broker(report: &mut BusReport, connection: &Connection, dial: &Dial) {
    let version = match connection.version {
        Version::Three => "3.1.1",
        Version::Five => "5",
    };
    report.state(Aspect::Server, format!("a broker of MQTT {version}"));
    report.state(Aspect::Cluster, "a broker does not say");
    let mut limits = format!(
        "{} a payload and an append",
        BusReport::size(PAYLOAD_MAX as u64)
    );
    match connection.welcome.packet_max {
        u32::MAX => limits.push_str("; the broker states none for a message"),
        max => {
            let max = BusReport::size(u64::from(max));
            limits.push_str(&format!("; the broker takes {max} a message"));
        }
    }
    report.state(Aspect::Limits, limits);
    match dial.is_tls() {
        true => report.state(Aspect::Tls, "on"),
        false => {
            report.state(Aspect::Tls, "off");
            report.warn(
                "whoever is on the way sees the password, and who publishes when and how much",
                ["certfile server.pem", "keyfile server.key"],
            );
        }
    }
}

fn state_history(report: &mut BusReport) {
    report.state(
        Aspect::History,
        "lists, logs and keys are retained; messages only in the mirrors of homes that followed",
    );
    report.state(
        Aspect::Retention,
        "what waits for a home that is away, as long as the broker keeps it: a week is asked for",
    );
    report.state(Aspect::Room, "a broker does not say");
    report.state(
        Aspect::Durability,
        "the broker acknowledges what it may lose when it is killed; the mirror has it on the disk",
    );
    report.warn(
        "by default mosquitto drops what waits for a client beyond 1,000 messages, and keeps nothing on the disk",
        ["max_queued_messages 0", "persistence true"],
    );
}

/// What it means that messages travel on topics that the broker's users have for them.
fn state_users(report: &mut BusReport, users: Option<&UsersTopics>) {
    let Some(users) = users else { return };
    let filter = users.filter();
    let retained = match users.retained() {
        Some(retained) => {
            format!("the last message of each topic of {retained} is retained, too; ")
        }
        None => String::new(),
    };
    let history = format!(
        "lists, logs and keys are retained; {retained}other messages only in the mirrors of homes that followed"
    );
    report.state(Aspect::History, history);
    report.warn(
        format!(
            "messages of the stream travel on {filter}, where everybody sees the topics; what others publish \
             there is told as rejected, and a home that may not read all of it misses messages"
        ),
        [format!("topic readwrite {filter}")],
    );
}

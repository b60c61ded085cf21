//! One round: clients that publish at a steady rate, and one that receives.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::brokers::mqtt::{self, PUBLISHED, Reader, Reading, Writing};
use crate::latency::PATIENCE;

/// Clients that publish.
pub(super) const CLIENTS: u32 = 1_000;
/// Messages a second, of all together.
pub(super) const RATE: u32 = 10_000;
/// Bytes of a message.
pub(super) const LEN: usize = 256;
/// Messages of one client that are on their way, at most.
const WAITING_MAX: usize = 20;
/// Clients that connect at a time: more than a broker's backlog would wait for a second.
const CONNECTING_MAX: usize = 64;
/// Room of a client for what it sends and hears.
const ROOM: usize = 2 << 10;
/// From the last client's connecting to the first message.
const SETTLE: Duration = Duration::from_millis(500);

/// What arrived in a round.
pub(super) struct Heard {
    /// Messages a second that had arrived when it ended.
    pub(super) rate: f64,
    /// Of all that arrived, in milliseconds.
    pub(super) latencies: Vec<f64>,
}

impl fmt::Display for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rate, latencies } = self;
        write!(f, "{rate:.0} a second, {} in all", latencies.len())
    }
}

/// Runs one at an address.
pub(super) async fn run(address: &str, lasting: Duration) -> anyhow::Result<Heard> {
    let mut reader = Reader::subscribe(address, "crowd/#").await?;
    let clients = connect_all(address).await?;
    let begun = Instant::now() + SETTLE;
    let mut publishing = JoinSet::new();
    for (number, client) in (0..).zip(clients) {
        publishing.spawn(publish(number, client, begun, lasting));
    }
    let (mut sent, mut latencies, mut in_time) = (None, Vec::new(), 0_usize);
    let mut total = 0;
    while sent != Some(latencies.len()) {
        tokio::select! {
            message = timeout(lasting + PATIENCE, reader.next()) => {
                let message = message.context("a message was lost")??;
                let due = message.first_chunk().context("a strange message came")?;
                let due = begun + Duration::from_nanos(u64::from_le_bytes(*due));
                latencies.push(due.elapsed().as_secs_f64() * 1_000.0);
                in_time += usize::from(begun.elapsed() <= lasting);
            }
            ended = publishing.join_next(), if sent.is_none() => match ended {
                Some(count) => total += count??,
                None => sent = Some(total),
            }
        }
    }
    Ok(Heard {
        rate: in_time as f64 / lasting.as_secs_f64(),
        latencies,
    })
}

async fn connect_all(address: &str) -> anyhow::Result<Vec<(Reading, Writing)>> {
    let room = Arc::new(Semaphore::new(CONNECTING_MAX));
    let mut connecting = JoinSet::new();
    for number in 0..CLIENTS {
        let (room, address) = (room.clone(), address.to_owned());
        connecting.spawn(async move {
            let _turn = room.acquire().await?;
            mqtt::connect(&address, &format!("client-{number}"), ROOM).await
        });
    }
    let mut clients = Vec::new();
    while let Some(client) = connecting.join_next().await {
        clients.push(client??);
    }
    Ok(clients)
}

/// Publishes what is due until the round ends, and returns how much that was when all is acknowledged.
async fn publish(
    number: u32,
    (reading, mut writing): (Reading, Writing),
    begun: Instant,
    lasting: Duration,
) -> anyhow::Result<usize> {
    let room = Arc::new(Semaphore::new(WAITING_MAX));
    let hearing = tokio::spawn(hear(reading, room.clone()));
    let topic = format!("crowd/{number}");
    let mut message = [b'x'; LEN];
    let mut sent = 0;
    loop {
        let due = Duration::from_secs(1) * (sent as u32 * CLIENTS + number) / RATE;
        sleep_until(begun + due).await;
        let take = timeout(PATIENCE, room.acquire()).await;
        take.context("a message is not acknowledged")??.forget();
        if due >= lasting || begun.elapsed() >= lasting {
            break;
        }
        let nanos = u64::try_from(due.as_nanos())?;
        message[..8].copy_from_slice(&nanos.to_le_bytes());
        let id = (sent % usize::from(u16::MAX)) as u16 + 1;
        mqtt::publish(&mut writing, &topic, id, &message).await?;
        writing.flush().await?;
        sent += 1;
    }
    let all = room.acquire_many(WAITING_MAX as u32 - 1);
    timeout(PATIENCE, all)
        .await
        .context("not acknowledged")??
        .forget();
    hearing.abort();
    Ok(sent)
}

/// Gives room for what is acknowledged.
async fn hear(mut reading: Reading, room: Arc<Semaphore>) -> anyhow::Result<Infallible> {
    loop {
        let (kind, _) = mqtt::packet(&mut reading).await?;
        ensure!(kind == PUBLISHED, "packet {kind} came");
        room.add_permits(1);
    }
}

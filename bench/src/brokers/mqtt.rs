//! MQTT 3.1.1 with QoS 1 over a plain socket: as little as a client can do.

use std::sync::Arc;

use anyhow::{bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader, BufWriter};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use super::Place;

const CONNECT: u8 = 0x10;
const WELCOME: u8 = 0x20;
/// With QoS 1.
const PUBLISH: u8 = 0x32;
pub(crate) const PUBLISHED: u8 = 0x40;
const SUBSCRIBE: u8 = 0x82;
const SUBSCRIBED: u8 = 0x90;
const GONE: u8 = 0xe0;
/// A session that ends with its connection, and one that the broker keeps.
const FRESH: u8 = 2;
const KEPT: u8 = 0;
/// Bytes that are gathered before they are written.
const ROOM: usize = 64 << 10;

pub(crate) type Reading = BufReader<OwnedReadHalf>;
pub(crate) type Writing = BufWriter<OwnedWriteHalf>;

/// Publishes messages, with several on their way.
pub(crate) struct Publisher {
    writing: Writing,
    topic: String,
    number: u16,
    waiting_max: usize,
    room: Arc<Semaphore>,
    /// Takes in what is acknowledged.
    hearing: JoinHandle<anyhow::Result<()>>,
}

impl Publisher {
    /// With so many messages on their way at once.
    pub(super) async fn open(place: &Place, waiting_max: usize) -> anyhow::Result<Self> {
        let (mut reading, writing) = connect(&place.url, "clear-publisher", ROOM).await?;
        let room = Arc::new(Semaphore::new(waiting_max));
        let acknowledged = room.clone();
        let hearing = tokio::spawn(async move {
            loop {
                let (kind, _) = packet(&mut reading).await?;
                ensure!(kind == PUBLISHED, "packet {kind} came");
                acknowledged.add_permits(1);
            }
        });
        Ok(Self {
            writing,
            topic: place.name.clone(),
            number: 0,
            waiting_max,
            room,
            hearing,
        })
    }

    pub(crate) async fn send(&mut self, batch: Vec<Vec<u8>>) -> anyhow::Result<()> {
        for message in super::packed(&batch, 0) {
            self.take_room().await?.forget();
            self.number = self.number.checked_add(1).unwrap_or(1);
            publish(&mut self.writing, &self.topic, self.number, &message).await?;
        }
        Ok(self.writing.flush().await?)
    }

    pub(crate) async fn finish(mut self) -> anyhow::Result<()> {
        for _ in 0..self.waiting_max {
            self.take_room().await?.forget();
        }
        start(&mut self.writing, GONE, 0).await?;
        self.writing.flush().await?;
        self.hearing.abort();
        Ok(())
    }

    async fn take_room(&mut self) -> anyhow::Result<OwnedSemaphorePermit> {
        if let Ok(permit) = self.room.clone().try_acquire_owned() {
            return Ok(permit);
        }
        self.writing.flush().await?;
        tokio::select! {
            permit = self.room.clone().acquire_owned() => Ok(permit?),
            ended = &mut self.hearing => {
                ended??;
                bail!("the broker has gone");
            }
        }
    }
}

/// Takes all messages that come.
pub(crate) struct Reader {
    reading: Reading,
    writing: Writing,
}

impl Reader {
    /// Follows a place in a session that the broker keeps, with what comes while nobody is connected.
    pub(super) async fn open(place: &Place) -> anyhow::Result<Self> {
        let (reading, writing, is_kept) = dial(&place.url, &place.name, KEPT, ROOM).await?;
        match is_kept {
            true => Ok(Self { reading, writing }),
            false => Self::subscribed(reading, writing, &place.name).await,
        }
    }

    /// Follows a topic filter at an address.
    pub(crate) async fn subscribe(address: &str, filter: &str) -> anyhow::Result<Self> {
        let (reading, writing) = connect(address, "clear-reader", ROOM).await?;
        Self::subscribed(reading, writing, filter).await
    }

    async fn subscribed(
        mut reading: Reading,
        mut writing: Writing,
        filter: &str,
    ) -> anyhow::Result<Self> {
        let filter = filter.as_bytes();
        start(&mut writing, SUBSCRIBE, 2 + 2 + filter.len() + 1).await?;
        writing.write_all(&[0, 1]).await?;
        text(&mut writing, filter).await?;
        writing.write_all(&[1]).await?;
        writing.flush().await?;
        let (kind, _) = packet(&mut reading).await?;
        ensure!(kind == SUBSCRIBED, "packet {kind} came");
        Ok(Self { reading, writing })
    }

    pub(crate) async fn next(&mut self) -> anyhow::Result<Vec<u8>> {
        let (kind, mut bytes) = packet(&mut self.reading).await?;
        ensure!(kind & 0xf0 == PUBLISH & 0xf0, "packet {kind} came");
        let length = bytes.first_chunk().map_or(0, |of| u16::from_be_bytes(*of));
        let number = 2 + usize::from(length);
        ensure!(bytes.len() >= number + 2, "a packet is cut short");
        start(&mut self.writing, PUBLISHED, 2).await?;
        self.writing.write_all(&bytes[number..number + 2]).await?;
        if self.reading.buffer().is_empty() {
            self.writing.flush().await?;
        }
        Ok(bytes.split_off(number + 2))
    }
}

/// Connects, with so much room for what comes and for what goes, for a session that ends with the connection.
pub(crate) async fn connect(
    address: &str,
    client: &str,
    room: usize,
) -> anyhow::Result<(Reading, Writing)> {
    let (reading, writing, _) = dial(address, client, FRESH, room).await?;
    Ok((reading, writing))
}

/// Connects for a session of a kind, and says whether the broker has kept it.
async fn dial(
    address: &str,
    client: &str,
    session: u8,
    room: usize,
) -> anyhow::Result<(Reading, Writing, bool)> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (reading, writing) = stream.into_split();
    let (mut reading, mut writing) = (
        BufReader::with_capacity(room, reading),
        BufWriter::with_capacity(room, writing),
    );
    start(&mut writing, CONNECT, 10 + 2 + client.len()).await?;
    text(&mut writing, b"MQTT").await?;
    // Version 4, no keep-alive.
    writing.write_all(&[4, session, 0, 0]).await?;
    text(&mut writing, client.as_bytes()).await?;
    writing.flush().await?;
    let (kind, welcome) = packet(&mut reading).await?;
    let is_kept = welcome == [1, 0];
    ensure!(
        kind == WELCOME && (is_kept || welcome == [0, 0]),
        "not let in"
    );
    Ok((reading, writing, is_kept))
}

/// Writes a message, without flushing.
pub(crate) async fn publish(
    writing: &mut Writing,
    topic: &str,
    number: u16,
    message: &[u8],
) -> anyhow::Result<()> {
    let head = 2 + topic.len() + 2;
    start(writing, PUBLISH, head + message.len()).await?;
    text(writing, topic.as_bytes()).await?;
    writing.write_all(&number.to_be_bytes()).await?;
    Ok(writing.write_all(message).await?)
}

async fn text(writing: &mut Writing, text: &[u8]) -> anyhow::Result<()> {
    writing
        .write_all(&u16::try_from(text.len())?.to_be_bytes())
        .await?;
    Ok(writing.write_all(text).await?)
}

/// Begins a packet with so many bytes behind its head.
async fn start(writing: &mut Writing, kind: u8, length: usize) -> anyhow::Result<()> {
    let mut head = vec![kind];
    let mut left = length;
    loop {
        let (low, high) = ((left % 128) as u8, left / 128);
        left = high;
        match left {
            0 => head.push(low),
            _ => head.push(low | 0x80),
        }
        if left == 0 {
            return Ok(writing.write_all(&head).await?);
        }
    }
}

/// The next packet: its first byte, and what follows its head.
pub(crate) async fn packet(reading: &mut Reading) -> anyhow::Result<(u8, Vec<u8>)> {
    let kind = reading.read_u8().await?;
    let (mut length, mut shift) = (0, 0);
    loop {
        let byte = reading.read_u8().await?;
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
        ensure!(shift < 28, "a length without end");
    }
    let mut bytes = vec![0; length];
    reading.read_exact(&mut bytes).await?;
    Ok((kind, bytes))
}

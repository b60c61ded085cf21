//! One client of the broker: a task that keeps a connection, makes it anew when it breaks, and sends
//! again what was not acknowledged.

mod groups;
mod ids;
mod runner;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::dial::{Connection, Dial, Incoming, PacketReader, Pulse};
use crate::fault::Fault;
use crate::packet::{Filter, Packet, Publish, overhead};
use runner::{Ends, Runner};

/// How long a call goes on while nobody answers.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Between two attempts to connect, at first and at last.
const RECONNECT: Duration = Duration::from_millis(50);
const RECONNECT_MAX: Duration = Duration::from_secs(5);
/// A connection that was there for so long was no attempt.
const LASTING: Duration = Duration::from_secs(2);
/// How often the broker is asked whether it is there, and how long it may be silent.
const PING: Duration = Duration::from_secs(5);
const SILENCE_MAX: Duration = Duration::from_secs(12);
/// How long the connection may take no bytes.
const WRITE_TIMEOUT: Duration = Duration::from_secs(15);
/// Messages that are on their way to the broker, and the bytes of them beyond which no more set out.
const FLIGHT_MAX: usize = 512;
const FLIGHT_BYTES_MAX: usize = 4 << 20;
/// Commands and packets that wait; whoever has more of them waits, too.
const COMMANDS_WAITING_MAX: usize = 256;
const PACKETS_WAITING_MAX: usize = 256;
/// Bytes of messages that wait to set out, and of those that came and are not dealt with; beyond that
/// whoever has more waits, and the connection is not read.
const OUT_BYTES_MAX: usize = 8 << 20;
const IN_BYTES_MAX: usize = 16 << 20;
/// What a message takes besides its payload, about.
pub(crate) const MESSAGE_COST: usize = 512;
/// Commands and packets that are dealt with before what they led to is written.
const BURST: usize = 128;
/// Filters in one packet.
const FILTERS_MAX: usize = 64;
/// Messages that set out together at most, and the bytes of them beyond which no more do.
const GROUP_MAX: usize = 256;
const GROUP_BYTES_MAX: usize = 1 << 20;

/// How a client looks to the broker.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) id: String,
    /// How many seconds its session lasts without a connection; without any, its subscriptions are
    /// made again with each.
    pub(crate) kept_for: u32,
}

/// Something that happened on a connection.
#[derive(Debug)]
pub(crate) enum Event {
    /// There is a new one, and the broker has kept the session or not.
    Up { has_session: bool },
    /// A message came. Where the session lasts it has to be [acknowledged](Link::acknowledge).
    Message {
        publish: Publish,
        receipt: Receipt,
        held: Held,
    },
}

/// Room in memory that a message takes until this is dropped.
#[derive(Debug)]
pub(crate) struct Held(#[expect(dead_code, reason = "the room is given back with it")] Permit);

#[cfg(test)]
impl Held {
    pub(crate) const NONE: Self = Self(None);
}

type Permit = Option<OwnedSemaphorePermit>;

/// Waits for room; there is always some for one message alone.
async fn hold(room: &Arc<Semaphore>, bytes: usize) -> Held {
    let count = u32::try_from(bytes).unwrap_or(u32::MAX);
    Held(Arc::clone(room).acquire_many_owned(count).await.ok())
}

/// By what a message is acknowledged: its number, and the count of connections when it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Receipt {
    connection: u64,
    id: u16,
}

impl Receipt {
    /// Of a message that wants no acknowledgement. Connections are counted from 1 on.
    pub(crate) const NONE: Self = Self {
        connection: 0,
        id: 0,
    };

    /// Whether the broker sent the message without waiting for an acknowledgement, as no bus asks it to.
    pub(crate) fn is_none(self) -> bool {
        self == Self::NONE
    }
}

/// What the broker takes, while there is a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    /// The most bytes of a packet.
    pub(crate) packet_max: usize,
    /// Whether it brings no client what that publishes, where it is asked for that.
    pub(crate) has_of_others: bool,
}

enum Command {
    Publish(Vec<Publish>, Done, Held),
    Subscribe(Vec<Filter>, Subscribed),
    Unsubscribe(Vec<String>),
}

/// Told which filters the broker refused.
type Subscribed = oneshot::Sender<Vec<String>>;

/// Told by the broker's code for what became of it.
type Done = oneshot::Sender<Result<u8, Fault>>;

/// A client of the broker, as its users see it. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Link {
    commands: mpsc::Sender<Command>,
    room: Arc<Semaphore>,
    /// There are never more of these than messages that came.
    receipts: mpsc::UnboundedSender<Receipt>,
    taken: watch::Receiver<Option<Taken>>,
    task: JoinHandle<()>,
}

impl Link {
    /// Connects, and keeps being connected. `on_event` is told in order, and must not take long.
    pub(crate) async fn open(
        dial: Dial,
        client: Client,
        on_event: impl FnMut(Event) + Send + 'static,
    ) -> Result<Self, Fault> {
        let connection = dial.connect(&client.id, client.kept_for).await?;
        Ok(Self::with(Some(connection), dial, client, on_event))
    }

    /// As [`open`](Self::open), also where the broker does not let it in yet.
    pub(crate) fn begin(
        dial: Dial,
        client: Client,
        on_event: impl FnMut(Event) + Send + 'static,
    ) -> Self {
        Self::with(None, dial, client, on_event)
    }

    fn with(
        first: Option<Connection>,
        dial: Dial,
        client: Client,
        on_event: impl FnMut(Event) + Send + 'static,
    ) -> Self {
        let (commands, waiting) = mpsc::channel(COMMANDS_WAITING_MAX);
        let (receipts, dealt_with) = mpsc::unbounded_channel();
        let (taken_tx, taken) = watch::channel(None);
        let ends = Ends {
            commands: waiting,
            receipts: dealt_with,
            taken: taken_tx,
        };
        let runner = Runner::new(dial, client, ends, Box::new(on_event));
        let task = tokio::spawn(runner.run(first));
        Self {
            commands,
            room: Arc::new(Semaphore::new(OUT_BYTES_MAX)),
            receipts,
            taken,
            task,
        }
    }

    /// Publishes, and returns the broker's code when it has taken the message.
    pub(crate) async fn publish(&self, publish: Publish) -> Result<u8, Fault> {
        let publishing = async { self.set_out(publish).await?.landed().await };
        let published = timeout(PATIENCE, publishing).await;
        published.map_err(|_| Fault::Late).flatten()
    }

    /// Publishes messages in their order, and returns when the broker has taken all of them.
    pub(crate) async fn publish_all(&self, all: Vec<Publish>) -> Result<(), Fault> {
        let publishing = async { landed(self.set_out_all(all).await?).await };
        let published = timeout(PATIENCE, publishing).await;
        published.map_err(|_| Fault::Late).flatten()
    }

    /// Publishes messages in their order, behind what was published before.
    pub(crate) async fn set_out_all(&self, all: Vec<Publish>) -> Result<Vec<Flying>, Fault> {
        let mut flying = Vec::new();
        for group in grouped(all) {
            flying.push(self.set_out_together(group).await?);
        }
        Ok(flying)
    }

    /// Publishes behind what was published before, and returns what tells when the broker has taken
    /// the message.
    pub(crate) async fn set_out(&self, publish: Publish) -> Result<Flying, Fault> {
        self.set_out_together(Vec::from([publish])).await
    }

    async fn set_out_together(&self, group: Vec<Publish>) -> Result<Flying, Fault> {
        let (done, outcome) = oneshot::channel();
        let bytes = group.iter().map(|of| of.payload.len() + MESSAGE_COST);
        let held = hold(&self.room, bytes.sum()).await;
        let command = Command::Publish(group, done, held);
        let sent = self.commands.send(command).await;
        sent.map_err(|_| Fault::Closed)?;
        Ok(Flying(outcome))
    }

    /// As [`subscribe`](Self::subscribe), to nothing less than all of it.
    pub(crate) async fn subscribe_to_all(&self, filters: Vec<String>) -> Result<(), Fault> {
        let filters: Vec<_> = filters.into_iter().map(Filter::from).collect();
        match self.subscribe(&filters).await?.is_empty() {
            true => Ok(()),
            false => Err(Fault::MAY_NOT),
        }
    }

    /// Subscribes, and returns when the broker has done so, with what it refused; what is retained comes,
    /// also where the subscription is not new. Where the session does not last, it is done again with
    /// each new connection.
    pub(crate) async fn subscribe(&self, filters: &[Filter]) -> Result<Vec<String>, Fault> {
        let subscribing = async {
            let mut refused = Vec::new();
            for some in filters.chunks(FILTERS_MAX) {
                loop {
                    let (done, outcome) = oneshot::channel();
                    let command = Command::Subscribe(some.to_vec(), done);
                    let sent = self.commands.send(command).await;
                    sent.map_err(|_| Fault::Closed)?;
                    // Without an answer the connection broke.
                    if let Ok(some) = outcome.await {
                        refused.extend(some);
                        break;
                    }
                }
            }
            Ok(refused)
        };
        let subscribed = timeout(PATIENCE, subscribing).await;
        subscribed.map_err(|_| Fault::Late).flatten()
    }

    /// Unsubscribes; nobody waits for it.
    pub(crate) fn unsubscribe(&self, filters: Vec<String>) {
        // Where too much waits, what comes is passed over by whoever hears it.
        let _is_sent = self.commands.try_send(Command::Unsubscribe(filters));
    }

    /// Says that a message was dealt with.
    pub(crate) fn acknowledge(&self, receipt: Receipt) {
        let _is_sent = self.receipts.send(receipt).is_ok();
    }

    /// Whether the broker brings no client what that publishes, where it is asked for that; as far as it is known.
    pub(crate) fn has_of_others(&self) -> bool {
        self.taken.borrow().is_some_and(|taken| taken.has_of_others)
    }

    /// The most bytes of the payload of a message on a topic.
    pub(crate) async fn payload_max(&self, topic: &str) -> Result<usize, Fault> {
        let known = *self.taken.borrow();
        let taken = match known {
            Some(taken) => taken,
            None => self.taken_at_last().await?,
        };
        Ok(taken.packet_max.saturating_sub(overhead(topic)))
    }

    async fn taken_at_last(&self) -> Result<Taken, Fault> {
        let mut taken = self.taken.clone();
        let known = timeout(PATIENCE, taken.wait_for(Option::is_some)).await;
        let known = known.map_err(|_| Fault::Late)?;
        let known = known.map_err(|_| Fault::Closed)?;
        known.ok_or(Fault::Late)
    }
}

/// Returns when the broker has taken all.
pub(crate) async fn landed(all: Vec<Flying>) -> Result<(), Fault> {
    for flying in all {
        flying.landed().await?;
    }
    Ok(())
}

/// Messages on their way to the broker. Where this is dropped, they are not sent again.
#[derive(Debug)]
pub(crate) struct Flying(oneshot::Receiver<Result<u8, Fault>>);

impl Flying {
    /// The broker's code for the last of them when it has taken all.
    pub(crate) async fn landed(self) -> Result<u8, Fault> {
        self.0.await.map_err(|_| Fault::Closed)?
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Ends with what it reads for.
struct Reading(JoinHandle<()>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.abort();
    }
}

type Came = (Incoming, Held);

async fn read_all(mut reader: PacketReader, packets: mpsc::Sender<Result<Came, Fault>>) {
    let room = Arc::new(Semaphore::new(IN_BYTES_MAX));
    loop {
        let came = match reader.next().await {
            Ok(incoming) => {
                let held = hold_message(&incoming, &room, &reader.pulse).await;
                Ok((incoming, held))
            }
            Err(fault) => Err(fault),
        };
        let is_over = came.is_err();
        if packets.send(came).await.is_err() || is_over {
            return;
        }
    }
}

/// Waits until there is room for a message. The broker is not silent meanwhile: it is not listened to.
async fn hold_message(incoming: &Incoming, room: &Arc<Semaphore>, pulse: &Pulse) -> Held {
    let Incoming::Packet(Packet::Publish(publish, _)) = incoming else {
        return Held(None);
    };
    let bytes = publish.payload.len() + publish.topic.len() + MESSAGE_COST;
    loop {
        if let Ok(held) = timeout(PING, hold(room, bytes)).await {
            pulse.beat();
            return held;
        }
        pulse.beat();
    }
}

/// Writes all; fails when no bytes are taken for too long, however long all of them take.
async fn write_out(
    writer: &mut (impl AsyncWrite + Unpin),
    out: &mut BytesMut,
    pulse: &Pulse,
) -> Result<(), Fault> {
    let mut is_first = true;
    while !out.is_empty() {
        let written = timeout(WRITE_TIMEOUT, writer.write(out)).await;
        match written
            .map_err(|_| Fault::Late)?
            .map_err(Fault::no_answer)?
        {
            0 => return Err(Fault::Closed),
            count => out.advance(count),
        }
        // What had to be waited for, somebody has taken.
        if !std::mem::replace(&mut is_first, false) {
            pulse.beat();
        }
    }
    let flushed = timeout(WRITE_TIMEOUT, writer.flush()).await;
    flushed.map_err(|_| Fault::Late)?.map_err(Fault::no_answer)
}

/// A number that nobody guesses.
pub(crate) fn draw() -> Result<u64, Fault> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(Fault::no_answer)?;
    Ok(u64::from_be_bytes(bytes))
}

/// A message that has to be taken note of but holds nothing.
pub(crate) fn empty(topic: String, is_retained: bool) -> Publish {
    Publish {
        topic,
        payload: Bytes::new(),
        is_retained,
    }
}

/// Messages as they set out together, in their order.
fn grouped(all: Vec<Publish>) -> Vec<Vec<Publish>> {
    let mut groups: Vec<Vec<Publish>> = Vec::new();
    let mut bytes = 0;
    for publish in all {
        let is_full = |of: &Vec<Publish>| of.len() >= GROUP_MAX || bytes >= GROUP_BYTES_MAX;
        if groups.last().is_none_or(is_full) {
            groups.push(Vec::new());
            bytes = 0;
        }
        bytes += publish.payload.len();
        if let Some(group) = groups.last_mut() {
            group.push(publish);
        }
    }
    groups
}

#[cfg(test)]
mod tests;

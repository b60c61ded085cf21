//! One client of the broker: a task that keeps a connection, makes it anew when it breaks, and sends
//! again what was not acknowledged.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use sealcast_bus::jittered;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::dial::{Connection, Dial, Incoming, PacketReader, Pulse, TAKEN_MIN};
use crate::fault::Fault;
use crate::packet::{
    Packet, Publish, REFUSED, Version, Welcome, overhead, put_goodbye, put_ping, put_publish,
    put_publish_done, put_subscribe, put_unsubscribe,
};

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
const MESSAGE_COST: usize = 512;
/// Commands and packets that are dealt with before what they led to is written.
const BURST: usize = 128;
/// Filters in one packet.
const FILTERS_MAX: usize = 64;

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
    let count = u32::try_from(bytes + MESSAGE_COST).unwrap_or(u32::MAX);
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
}

enum Command {
    Publish(Publish, Done, Held),
    Subscribe(Vec<String>, Subscribed),
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
        let (commands, waiting) = mpsc::channel(COMMANDS_WAITING_MAX);
        let (receipts, dealt_with) = mpsc::unbounded_channel();
        let (taken_tx, taken) = watch::channel(None);
        let runner = Runner {
            dial,
            client,
            commands: waiting,
            receipts: dealt_with,
            taken: taken_tx,
            on_event: Box::new(on_event),
            connections: 0,
            next_id: 1,
            flight: VecDeque::new(),
            flight_bytes: 0,
            asked: BTreeMap::new(),
            filters: BTreeSet::new(),
        };
        let task = tokio::spawn(runner.run(connection));
        Ok(Self {
            commands,
            room: Arc::new(Semaphore::new(OUT_BYTES_MAX)),
            receipts,
            taken,
            task,
        })
    }

    /// Publishes, and returns the broker's code when it has taken the message.
    pub(crate) async fn publish(&self, publish: Publish) -> Result<u8, Fault> {
        let publishing = async { self.set_out(publish).await?.landed().await };
        let published = timeout(PATIENCE, publishing).await;
        published.map_err(|_| Fault::Late).flatten()
    }

    /// Publishes behind what was published before, and returns what tells when the broker has taken
    /// the message.
    pub(crate) async fn set_out(&self, publish: Publish) -> Result<Flying, Fault> {
        let (done, outcome) = oneshot::channel();
        let held = hold(&self.room, publish.payload.len()).await;
        let command = Command::Publish(publish, done, held);
        let sent = self.commands.send(command).await;
        sent.map_err(|_| Fault::Closed)?;
        Ok(Flying(outcome))
    }

    /// As [`subscribe`](Self::subscribe), to nothing less than all of it.
    pub(crate) async fn subscribe_to_all(&self, filters: Vec<String>) -> Result<(), Fault> {
        match self.subscribe(filters).await?.is_empty() {
            true => Ok(()),
            false => Err(Fault::MAY_NOT),
        }
    }

    /// Subscribes, and returns when the broker has done so, with what it refused; what is retained comes,
    /// also where the subscription is not new. Where the session does not last, it is done again with
    /// each new connection.
    pub(crate) async fn subscribe(&self, filters: Vec<String>) -> Result<Vec<String>, Fault> {
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

    /// The most bytes of the payload of a message on a topic.
    pub(crate) async fn payload_max(&self, topic: &str) -> Result<usize, Fault> {
        let mut taken = self.taken.clone();
        let known = timeout(PATIENCE, taken.wait_for(Option::is_some)).await;
        let known = known.map_err(|_| Fault::Late)?;
        let known = known.map_err(|_| Fault::Closed)?;
        let packet_max = known.as_ref().map_or(0, |taken| taken.packet_max);
        Ok(packet_max.saturating_sub(overhead(topic)))
    }
}

/// A message on its way to the broker. Where this is dropped, it is not sent again.
#[derive(Debug)]
pub(crate) struct Flying(oneshot::Receiver<Result<u8, Fault>>);

impl Flying {
    /// The broker's code when it has taken it.
    pub(crate) async fn landed(self) -> Result<u8, Fault> {
        self.0.await.map_err(|_| Fault::Closed)?
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A message that is on its way, or is to be again.
struct Flight {
    id: u16,
    publish: Publish,
    done: Done,
    /// The connection over which it was sent last.
    connection: u64,
}

struct Runner {
    dial: Dial,
    client: Client,
    commands: mpsc::Receiver<Command>,
    /// Apart, since they have their turn also while no more messages may set out.
    receipts: mpsc::UnboundedReceiver<Receipt>,
    taken: watch::Sender<Option<Taken>>,
    on_event: Box<dyn FnMut(Event) + Send>,
    /// How many connections there were.
    connections: u64,
    next_id: u16,
    flight: VecDeque<Flight>,
    flight_bytes: usize,
    /// Who waits for subscriptions, and to what.
    asked: BTreeMap<u16, (Vec<String>, Subscribed)>,
    /// What is subscribed to with each connection.
    filters: BTreeSet<String>,
}

impl Runner {
    async fn run(mut self, mut connection: Connection) {
        let mut pause = RECONNECT;
        loop {
            let begun = Instant::now();
            let _fault = self.serve(connection).await;
            // One that was closed at once may be closed again: another has the same client id.
            pause = match begun.elapsed() < LASTING {
                true => RECONNECT_MAX.min(pause * 2),
                false => RECONNECT,
            };
            self.asked.clear();
            // Nobody waits for these any more.
            self.flight.retain(|of| !of.done.is_closed());
            connection = loop {
                sleep(jittered(pause)).await;
                let dialled = self.dial.connect(&self.client.id, self.client.kept_for);
                if let Ok(connection) = dialled.await {
                    break connection;
                }
                pause = RECONNECT_MAX.min(pause * 2);
            };
        }
    }

    /// Uses a connection until it breaks.
    async fn serve(&mut self, connection: Connection) -> Result<(), Fault> {
        let Connection {
            version,
            welcome,
            reader,
            mut writer,
        } = connection;
        let pulse = Arc::clone(&reader.pulse);
        let (packets_tx, mut packets) = mpsc::channel(PACKETS_WAITING_MAX);
        // Reads on while the other side is slow to take what is written.
        let _reading = Reading(tokio::spawn(read_all(reader, packets_tx)));
        let mut out = BytesMut::new();
        self.begin(version, welcome, &mut out);
        let flight_max = FLIGHT_MAX.min(usize::from(welcome.receive_max));
        let mut ping_at = Instant::now() + PING;
        loop {
            write_out(&mut writer, &mut out, &pulse).await?;
            let has_room = self.flight.len() < flight_max && self.flight_bytes < FLIGHT_BYTES_MAX;
            tokio::select! {
                packet = packets.recv() => {
                    self.take(packet.unwrap_or(Err(Fault::Closed))?, &mut out)?;
                    for _ in 0..BURST {
                        let Ok(packet) = packets.try_recv() else { break };
                        self.take(packet?, &mut out)?;
                    }
                }
                Some(receipt) = self.receipts.recv() => {
                    self.acknowledge(receipt, &mut out);
                    while let Ok(receipt) = self.receipts.try_recv() {
                        self.acknowledge(receipt, &mut out);
                    }
                }
                command = self.commands.recv(), if has_room => {
                    let Some(command) = command else {
                        put_goodbye(&mut out);
                        return writer.write_all(&out).await.map_err(Fault::no_answer);
                    };
                    self.obey(version, command, &mut out);
                    for _ in 0..BURST {
                        if self.flight.len() >= flight_max || out.len() >= FLIGHT_BYTES_MAX {
                            break;
                        }
                        let Ok(command) = self.commands.try_recv() else { break };
                        self.obey(version, command, &mut out);
                    }
                }
                () = sleep_until(ping_at) => {
                    if pulse.silence() > SILENCE_MAX {
                        return Err(Fault::Late);
                    }
                    put_ping(&mut out);
                    ping_at = Instant::now() + PING;
                }
            }
        }
    }

    /// Subscribes, and sends again what was not acknowledged.
    fn begin(&mut self, version: Version, welcome: Welcome, out: &mut BytesMut) {
        self.connections += 1;
        let packet_max = match version {
            Version::Three => TAKEN_MIN,
            Version::Five => welcome.packet_max,
        };
        let packet_max = usize::try_from(packet_max).unwrap_or(usize::MAX);
        self.taken.send_replace(Some(Taken { packet_max }));
        let filters: Vec<_> = self.filters.iter().cloned().collect();
        for some in filters.chunks(FILTERS_MAX) {
            let id = self.draw_id();
            put_subscribe(version, id, some, out);
        }
        for of in &mut self.flight {
            // To a broker that does not know the session, it is another message.
            let is_again = welcome.has_session && of.connection > 0;
            put_publish(version, (of.id, is_again), &of.publish, out);
            of.connection = self.connections;
        }
        self.flight_bytes = self.flight.iter().map(|of| of.publish.payload.len()).sum();
        let has_session = welcome.has_session;
        (self.on_event)(Event::Up { has_session });
    }

    fn obey(&mut self, version: Version, command: Command, out: &mut BytesMut) {
        match command {
            Command::Publish(publish, done, _held) => {
                if done.is_closed() {
                    return;
                }
                let id = self.draw_id();
                put_publish(version, (id, false), &publish, out);
                self.flight_bytes += publish.payload.len();
                self.flight.push_back(Flight {
                    id,
                    publish,
                    done,
                    connection: self.connections,
                });
            }
            Command::Subscribe(filters, done) => {
                let id = self.draw_id();
                put_subscribe(version, id, &filters, out);
                if self.client.kept_for == 0 {
                    self.filters.extend(filters.iter().cloned());
                }
                self.asked.insert(id, (filters, done));
            }
            Command::Unsubscribe(filters) => {
                let id = self.draw_id();
                put_unsubscribe(version, id, &filters, out);
                self.filters.retain(|filter| !filters.contains(filter));
            }
        }
    }

    fn acknowledge(&self, receipt: Receipt, out: &mut BytesMut) {
        // The broker sends what another connection brought over this one, too.
        if receipt.connection == self.connections {
            put_publish_done(receipt.id, out);
        }
    }

    fn take(&mut self, (incoming, held): Came, out: &mut BytesMut) -> Result<(), Fault> {
        match incoming {
            Incoming::Packet(Packet::Publish(publish, Some(id))) => {
                let connection = self.connections;
                if self.client.kept_for == 0 {
                    put_publish_done(id, out);
                }
                let receipt = Receipt { connection, id };
                (self.on_event)(Event::Message {
                    publish,
                    receipt,
                    held,
                });
            }
            Incoming::Packet(Packet::Publish(publish, None)) => {
                (self.on_event)(Event::Message {
                    publish,
                    receipt: Receipt::NONE,
                    held,
                });
            }
            Incoming::Oversized(None) => {}
            Incoming::Oversized(Some(id)) => put_publish_done(id, out),
            Incoming::Packet(Packet::PublishDone { id, code }) => self.land(id, code),
            Incoming::Packet(Packet::SubscribeDone { id, codes }) => {
                if let Some((mut filters, done)) = self.asked.remove(&id) {
                    let mut codes = codes.iter();
                    filters.retain(|_| codes.next().is_none_or(|code| *code >= REFUSED));
                    // Whoever asked may have left.
                    let _is_told = done.send(filters).is_ok();
                }
            }
            Incoming::Packet(Packet::Goodbye(code)) => return Err(Fault::Goodbye(code)),
            Incoming::Packet(
                Packet::Pong | Packet::UnsubscribeDone | Packet::Welcome(_) | Packet::Turned(_),
            ) => {}
        }
        Ok(())
    }

    /// A message has arrived.
    fn land(&mut self, id: u16, code: u8) {
        let Some(index) = self.flight.iter().position(|of| of.id == id) else {
            return;
        };
        if let Some(landed) = self.flight.remove(index) {
            self.flight_bytes -= landed.publish.payload.len();
            let outcome = match code < REFUSED {
                true => Ok(code),
                false => Err(Fault::Refused(code)),
            };
            // Whoever asked may have left.
            let _is_told = landed.done.send(outcome).is_ok();
        }
    }

    fn draw_id(&mut self) -> u16 {
        loop {
            let id = self.next_id;
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
            let is_used = self.flight.iter().any(|of| of.id == id) || self.asked.contains_key(&id);
            if !is_used {
                return id;
            }
        }
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
    let bytes = publish.payload.len() + publish.topic.len();
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

#[cfg(test)]
mod tests;

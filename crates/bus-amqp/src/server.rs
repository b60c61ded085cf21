//! The requests that are made of the server.
//!
//! A handle has two connections: a server that lacks memory or room takes nothing more from one that
//! publishes, and what lies there is to be readable all the same. A third is for what may end it.

mod exchange;

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, Consumer, PublisherConfirm};
use sealcast_bus::{Attempts, BusError, ServerAddress, ServerOptions, Topic};
use tokio::sync::Mutex;
use tokio::time::timeout;

use self::exchange::declare_exchange;
use crate::connect::Target;
use crate::fault::Fault;
use crate::message::{Record, encode_sent};
use crate::name::{Names, key};

/// How long one request waits for its answer.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an opening waits until the server says that it is there.
const SCOUT_TIMEOUT: Duration = Duration::from_secs(3);
/// Messages that one queue may deliver before they are taken.
pub(crate) const CREDIT: u16 = 16;
/// Bytes of a frame that is read, as servers have them: a message that fits into one is not put together
/// from several. Of one that is published, and of an opening.
pub(crate) const FRAME_MAX: u32 = 128 << 10;
const FRAME_PUBLISHED_MAX: u32 = 32 << 10;
const FRAME_SCOUTING_MAX: u32 = 8 << 10;
/// Messages that are on their way to the server at once.
const UNCONFIRMED_MAX: usize = 64;
/// Channels of one connection that may end with an answer before another connection is made.
const ENDED_MAX: usize = 1_000;
/// The exchange that every server has: a message goes to the queue that its key names.
const TO_QUEUE: &str = "";

/// One server, or cluster, as one handle sees it.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) names: Names,
    target: Target,
    place: String,
    /// The server to begin with when connecting.
    turn: AtomicUsize,
    hearing: Mutex<Option<Arc<Hearing>>>,
    speaking: Mutex<Option<Arc<Speaking>>>,
    /// For queues that may be about to be created.
    scouting: Mutex<Option<Arc<Speaking>>>,
}

/// A channel that messages are delivered on.
#[derive(Clone, Debug)]
pub(crate) struct Desk {
    pub(crate) channel: Channel,
    /// Messages that one queue may deliver before they are taken.
    pub(crate) credit: u16,
    /// Deliveries that were begun. Held by whoever begins one.
    begun: Arc<SyncMutex<u64>>,
    /// Set when no answer came on the connection.
    is_given_up: Arc<AtomicBool>,
}

/// The connection that reads.
#[derive(Debug)]
pub(crate) struct Hearing {
    connection: Connection,
    pub(crate) desk: Desk,
    /// For questions whose answer may be the end of the channel.
    asking: Mutex<Option<Channel>>,
    /// For single messages.
    looking: Mutex<Option<Desk>>,
    /// Channels that ended with an answer. A number of a channel is not used twice, and there are few.
    ended: AtomicUsize,
}

/// The connection that publishes.
#[derive(Debug)]
pub(crate) struct Speaking {
    connection: Connection,
    channel: Channel,
    has_exchange: AtomicBool,
    /// How often the server took something from it. Who waits behind others waits for as long as this grows.
    progress: AtomicU64,
}

/// Messages of which it is not known yet whether they are stored.
#[derive(Debug)]
pub(crate) struct OnTheWay {
    confirms: VecDeque<PublisherConfirm>,
    /// Whether they may not be for nobody.
    must_arrive: bool,
}

impl OnTheWay {
    /// None so far, and all are to lie in a queue.
    pub(crate) fn to_a_queue() -> Self {
        Self {
            confirms: VecDeque::new(),
            must_arrive: true,
        }
    }
}

/// Waits for an answer, and no longer than one takes.
async fn answered<T>(asking: impl Future<Output = lapin::Result<T>>) -> Result<T, Fault> {
    match timeout(ANSWER_TIMEOUT, asking).await {
        Ok(answer) => Ok(answer?),
        Err(late) => Err(Fault::late(late)),
    }
}

impl Server {
    /// Connects, and makes the exchange if it is not there.
    pub(crate) async fn open(
        address: &ServerAddress,
        options: &ServerOptions,
    ) -> Result<Arc<Self>, BusError> {
        let server = Self::reach(address, options).await?;
        let found = server.find_or_make().await;
        found.map_err(|fault| server.fault(fault))?;
        Ok(server)
    }

    /// Connects, so that whoever is wrong about the server learns it at once.
    pub(crate) async fn reach(
        address: &ServerAddress,
        options: &ServerOptions,
    ) -> Result<Arc<Self>, BusError> {
        let place = address.to_string();
        let opened = async {
            let server = Self {
                names: Names::new(address.name()),
                target: Target::new(address, options)?,
                place: place.clone(),
                turn: AtomicUsize::new(0),
                hearing: Mutex::new(None),
                speaking: Mutex::new(None),
                scouting: Mutex::new(None),
            };
            server.hearing().await?;
            Ok(Arc::new(server))
        };
        opened.await.map_err(|fault: Fault| fault.at(&place))
    }

    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    pub(crate) fn fault(&self, fault: Fault) -> BusError {
        fault.at(&self.place)
    }

    async fn connect(&self, frame_max: u32) -> Result<Connection, Fault> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        self.target.connect(turn, frame_max).await
    }

    /// The connection that reads, made anew where it broke.
    pub(crate) async fn hearing(&self) -> Result<Arc<Hearing>, Fault> {
        let mut slot = self.hearing.lock().await;
        if let Some(hearing) = slot.as_ref().filter(|of| of.is_up()) {
            return Ok(Arc::clone(hearing));
        }
        *slot = None;
        let connection = self.connect(FRAME_MAX).await?;
        let desk = Desk::open(&connection, CREDIT, Arc::default()).await?;
        let hearing = Arc::new(Hearing {
            connection,
            desk,
            asking: Mutex::new(None),
            looking: Mutex::new(None),
            ended: AtomicUsize::new(0),
        });
        *slot = Some(Arc::clone(&hearing));
        Ok(hearing)
    }

    pub(crate) async fn speaking(&self) -> Result<Arc<Speaking>, Fault> {
        self.speaking_on(&self.speaking, FRAME_PUBLISHED_MAX).await
    }

    async fn speaking_on(
        &self,
        slot: &Mutex<Option<Arc<Speaking>>>,
        frame_max: u32,
    ) -> Result<Arc<Speaking>, Fault> {
        let mut slot = slot.lock().await;
        if let Some(speaking) = slot.as_ref().filter(|of| of.is_up()) {
            return Ok(Arc::clone(speaking));
        }
        *slot = None;
        let connection = self.connect(frame_max).await?;
        let channel = answered(connection.create_channel()).await?;
        answered(channel.confirm_select(ConfirmSelectOptions::default())).await?;
        let speaking = Arc::new(Speaking {
            connection,
            channel,
            has_exchange: AtomicBool::new(false),
            progress: AtomicU64::new(0),
        });
        *slot = Some(Arc::clone(&speaking));
        Ok(speaking)
    }

    /// Puts messages into the queue of a log, in this order; each lies there once this has returned.
    pub(crate) async fn publish(&self, queue: &str, messages: &[Bytes]) -> Result<(), Fault> {
        let speaking = self.speaking().await?;
        let published = speaking.publish(TO_QUEUE, queue, messages, true).await;
        judge(&self.speaking, &speaking, published).await
    }

    /// Has messages set out for the queue of a log, in this order and behind all that did before on the same connection.
    pub(crate) async fn hand_over(
        &self,
        speaking: &Arc<Speaking>,
        queue: &str,
        messages: &[Bytes],
        on_the_way: &mut OnTheWay,
    ) -> Result<(), Fault> {
        let handed = speaking.hand_over(TO_QUEUE, queue, messages, on_the_way);
        judge(&self.speaking, speaking, handed.await).await
    }

    /// Waits until messages that set out are stored.
    pub(crate) async fn arrived(
        &self,
        speaking: &Arc<Speaking>,
        messages: OnTheWay,
    ) -> Result<(), Fault> {
        let arrived = speaking.arrived(messages).await;
        judge(&self.speaking, speaking, arrived).await
    }

    /// Puts an opening into a queue, and so learns that it is whole. A server that is about to create
    /// one ends connections that use it, or never tells them of what comes: so this has its own.
    pub(crate) async fn scout(&self, queue: &str, topic: &Topic) -> Result<(), Fault> {
        let scouting = self.speaking_on(&self.scouting, FRAME_SCOUTING_MAX).await?;
        let opening = [Bytes::from(Record::Opening.encode(topic))];
        let published = scouting.publish(TO_QUEUE, queue, &opening, true);
        let published = timeout(SCOUT_TIMEOUT, published).await;
        let published = published.unwrap_or_else(|late| Err(Fault::late(late)));
        judge(&self.scouting, &scouting, published).await
    }

    /// Fails where nothing would be taken, so that nothing is sent that may be stored later.
    pub(crate) async fn check_room(&self) -> Result<(), Fault> {
        match self.speaking().await?.connection.status().blocked() {
            true => Err(Fault::Blocked),
            false => Ok(()),
        }
    }

    /// Sends to whoever listens, once.
    pub(crate) async fn send(&self, topic: &Topic, payload: &[u8]) -> Result<(), Fault> {
        let bytes = Bytes::from(encode_sent(topic, payload));
        let exchange = self.names.exchange();
        let mut attempts = Attempts::new();
        let speaking = loop {
            match self.speaking_to_all(&exchange).await {
                Ok(speaking) => break speaking,
                Err(fault) => attempts.after(fault).await?,
            }
        };
        let published = speaking
            .publish(&exchange, &key(topic), &[bytes], false)
            .await;
        judge(&self.speaking, &speaking, published).await
    }

    async fn speaking_to_all(&self, exchange: &str) -> Result<Arc<Speaking>, Fault> {
        let speaking = self.speaking().await?;
        if speaking.connection.status().blocked() {
            return Err(Fault::Blocked);
        }
        if !speaking.has_exchange.load(Ordering::Relaxed) {
            let declared = declare_exchange(&speaking.channel, exchange).await;
            judge(&self.speaking, &speaking, declared).await?;
            speaking.has_exchange.store(true, Ordering::Relaxed);
        }
        Ok(speaking)
    }
}

/// Says what became of a request on a connection that publishes, which is given up if it is not known.
async fn judge<T>(
    slot: &Mutex<Option<Arc<Speaking>>>,
    speaking: &Arc<Speaking>,
    result: Result<T, Fault>,
) -> Result<T, Fault> {
    match result {
        Err(_) if speaking.connection.status().blocked() => Err(Fault::Blocked),
        Err(fault) => {
            let mut slot = slot.lock().await;
            slot.take_if(|of| Arc::ptr_eq(of, speaking));
            Err(fault)
        }
        done => done,
    }
}

impl Desk {
    async fn open(
        connection: &Connection,
        credit: u16,
        is_given_up: Arc<AtomicBool>,
    ) -> Result<Self, Fault> {
        let channel = answered(connection.create_channel()).await?;
        let desk = Self {
            channel,
            credit,
            begun: Arc::default(),
            is_given_up,
        };
        desk.round_trip().await?;
        Ok(desk)
    }

    pub(crate) fn is_up(&self) -> bool {
        self.channel.status().connected() && !self.is_given_up.load(Ordering::Relaxed)
    }

    /// Has a queue delivered. The server is not asked to confirm that: it may deliver before it does, and
    /// what comes then is lost.
    pub(crate) fn consume(&self, queue: &str, arguments: FieldTable) -> Result<Consumer, Fault> {
        let options = BasicConsumeOptions {
            nowait: true,
            ..BasicConsumeOptions::default()
        };
        // The library takes any that begins for the one that has begun: so they begin one by one.
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        *begun += 1;
        let tag = begun.to_string();
        let consuming = self
            .channel
            .basic_consume(queue.into(), tag.into(), options, arguments);
        let says = "what does not wait for the server waits";
        Ok(consuming.now_or_never().ok_or(Fault::Odd(says))??)
    }

    /// Returns when the server has done all that it was told before, and what it delivered meanwhile
    /// is here.
    pub(crate) async fn round_trip(&self) -> Result<(), Fault> {
        let options = BasicQosOptions::default();
        let asked = self.channel.basic_qos(self.credit, options);
        self.waited(asked).await?;
        Ok(())
    }

    /// Waits for what must come, and gives the connection up if it does not.
    pub(crate) async fn waited<T, E: Into<Fault>>(
        &self,
        coming: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Fault> {
        match timeout(ANSWER_TIMEOUT, coming).await {
            Ok(came) => came.map_err(Into::into),
            Err(late) => {
                self.give_up();
                Err(Fault::late(late))
            }
        }
    }

    /// Lets the next request make another connection.
    fn give_up(&self) {
        self.is_given_up.store(true, Ordering::Relaxed);
    }
}

impl Hearing {
    pub(crate) fn is_up(&self) -> bool {
        self.connection.status().connected() && self.desk.is_up()
    }

    /// A channel on which one message is looked at, and no more is delivered.
    pub(crate) async fn desk_to_look(&self) -> Result<Desk, Fault> {
        let mut slot = self.looking.lock().await;
        if let Some(desk) = slot.as_ref().filter(|of| of.is_up()) {
            return Ok(desk.clone());
        }
        let desk = self.desk_of(1).await?;
        *slot = Some(desk.clone());
        Ok(desk)
    }

    /// A channel of its own for somebody who follows many queues.
    pub(crate) async fn desk_of(&self, credit: u16) -> Result<Desk, Fault> {
        let is_given_up = Arc::clone(&self.desk.is_given_up);
        Desk::open(&self.connection, credit, is_given_up).await
    }

    /// How many messages a queue has, if it is there. Of what came in the last seconds the server may not
    /// know yet.
    pub(crate) async fn messages(&self, queue: &str) -> Result<Option<u32>, Fault> {
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let mut slot = self.asking.lock().await;
        let channel = self.asking_on(&mut slot).await?;
        let asked = channel.queue_declare(queue.into(), options, FieldTable::default());
        let found = self.judge(self.desk.waited(asked).await)?;
        Ok(found.map(|queue| queue.message_count()))
    }

    /// What was asked for, if it is there. If not, the channel ended with the answer.
    fn judge<T>(&self, asked: Result<T, Fault>) -> Result<Option<T>, Fault> {
        if asked.is_err() && self.ended.fetch_add(1, Ordering::Relaxed) >= ENDED_MAX {
            self.desk.give_up();
        }
        match asked {
            Ok(found) => Ok(Some(found)),
            Err(Fault::Absent(_)) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Creates the queue of a log.
    pub(crate) async fn declare(&self, queue: &str) -> Result<(), Fault> {
        let options = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let mut arguments = FieldTable::default();
        arguments.insert(
            "x-queue-type".into(),
            lapin::types::AMQPValue::LongString("stream".into()),
        );
        let mut slot = self.asking.lock().await;
        let channel = self.asking_on(&mut slot).await?;
        let asked = channel.queue_declare(queue.into(), options, arguments);
        self.desk.waited(asked).await?;
        Ok(())
    }

    /// A channel for one listener, with the exchange.
    pub(crate) async fn ear(&self, exchange: &str) -> Result<Channel, Fault> {
        let channel = self.desk.waited(self.connection.create_channel()).await?;
        declare_exchange(&channel, exchange).await?;
        Ok(channel)
    }

    async fn asking_on(&self, slot: &mut Option<Channel>) -> Result<Channel, Fault> {
        if let Some(channel) = slot.as_ref().filter(|of| of.status().connected()) {
            return Ok(channel.clone());
        }
        let channel = self.desk.waited(self.connection.create_channel()).await?;
        *slot = Some(channel.clone());
        Ok(channel)
    }
}

impl Speaking {
    fn is_up(&self) -> bool {
        self.connection.status().connected() && self.channel.status().connected()
    }

    /// Whether something would be taken.
    pub(crate) fn is_free(&self) -> bool {
        self.is_up() && !self.connection.status().blocked()
    }

    async fn publish(
        &self,
        exchange: &str,
        key: &str,
        messages: &[Bytes],
        must_arrive: bool,
    ) -> Result<(), Fault> {
        let mut on_the_way = OnTheWay {
            confirms: VecDeque::new(),
            must_arrive,
        };
        let handed = self.hand_over(exchange, key, messages, &mut on_the_way);
        handed.await?;
        self.arrived(on_the_way).await
    }

    async fn hand_over(
        &self,
        exchange: &str,
        key: &str,
        messages: &[Bytes],
        on_the_way: &mut OnTheWay,
    ) -> Result<(), Fault> {
        let OnTheWay {
            confirms,
            must_arrive,
        } = on_the_way;
        if self.connection.status().blocked() {
            return Err(Fault::Blocked);
        }
        for message in messages {
            if confirms.len() >= UNCONFIRMED_MAX
                && let Some(oldest) = confirms.pop_front()
            {
                self.confirmed(oldest, *must_arrive).await?;
            }
            let options = BasicPublishOptions {
                mandatory: *must_arrive,
                ..BasicPublishOptions::default()
            };
            let properties = BasicProperties::default().with_delivery_mode(2);
            let published = self.channel.basic_publish(
                exchange.into(),
                key.into(),
                options,
                message,
                properties,
            );
            confirms.push_back(self.in_its_time(published).await?);
        }
        Ok(())
    }

    async fn arrived(&self, messages: OnTheWay) -> Result<(), Fault> {
        for confirm in messages.confirms {
            self.confirmed(confirm, messages.must_arrive).await?;
        }
        Ok(())
    }

    /// Waits until a message is stored.
    async fn confirmed(&self, confirm: PublisherConfirm, must_arrive: bool) -> Result<(), Fault> {
        match self.in_its_time(confirm).await? {
            Confirmation::Ack(None) => Ok(()),
            Confirmation::Ack(Some(_)) if !must_arrive => Ok(()),
            Confirmation::Ack(Some(_)) => Err(Fault::no_answer("the queue is gone")),
            Confirmation::Nack(_) | Confirmation::NotRequested => {
                Err(Fault::no_answer("the server did not store it"))
            }
        }
    }

    /// Waits for as long as one answer takes, and behind what set out before as long as that comes on.
    async fn in_its_time<T>(
        &self,
        coming: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, Fault> {
        let mut coming = pin!(coming);
        loop {
            let before = self.progress.load(Ordering::Relaxed);
            match timeout(ANSWER_TIMEOUT, &mut coming).await {
                Ok(came) => {
                    self.progress.fetch_add(1, Ordering::Relaxed);
                    return Ok(came?);
                }
                Err(_) if self.progress.load(Ordering::Relaxed) != before => {}
                Err(late) => return Err(Fault::late(late)),
            }
        }
    }
}

use std::collections::{BTreeSet, VecDeque};
use std::future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::Consumer;
use lapin::options::{BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use sealcast_bus::{Attempts, BusError, BusFuture, Limits, Listener, Topic, jittered};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::fault::Fault;
use crate::message::decode_sent;
use crate::name::key;
use crate::server::Server;

/// Payloads that wait for a listener that is late, here and on the server; of more, the oldest are
/// dropped.
const WAITING_MAX: usize = 4 * Limits::SENT_WAITING_MIN;
/// Between two attempts to listen anew, when those of one call have failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Listens to ephemeral topics: a queue of its own takes what the exchange hands on.
#[derive(Debug)]
pub(crate) struct AmqpListener {
    heard: Arc<Heard>,
    task: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Heard {
    topics: BTreeSet<Topic>,
    waiting: Mutex<VecDeque<(Topic, Vec<u8>)>>,
    more: Notify,
}

impl AmqpListener {
    pub(crate) async fn start(server: Arc<Server>, topics: Vec<Topic>) -> Result<Self, Fault> {
        let heard = Arc::new(Heard {
            topics: topics.into_iter().collect(),
            waiting: Mutex::default(),
            more: Notify::new(),
        });
        let task = match heard.topics.is_empty() {
            true => None,
            false => {
                let consumer = open_patiently(&server, &heard.topics).await?;
                Some(tokio::spawn(keep(server, Arc::clone(&heard), consumer)))
            }
        };
        Ok(Self { heard, task })
    }

    async fn hear(&mut self) -> (Topic, Vec<u8>) {
        loop {
            if let Some(heard) = self.heard.waiting().pop_front() {
                return heard;
            }
            if self.task.is_none() {
                return future::pending().await;
            }
            self.heard.more.notified().await;
        }
    }
}

impl Drop for AmqpListener {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Heard {
    fn waiting(&self) -> MutexGuard<'_, VecDeque<(Topic, Vec<u8>)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what a bus sent on one of the topics, and nothing else.
    fn keep(&self, bytes: &[u8]) {
        let Ok((topic, payload)) = decode_sent(bytes) else {
            return;
        };
        let topic = Topic::new(topic).ok();
        let topic = topic.and_then(|topic| self.topics.get(&topic));
        let (Some(topic), true) = (topic, payload.len() <= Limits::SENT_MAX) else {
            return;
        };
        let mut waiting = self.waiting();
        if waiting.len() >= WAITING_MAX {
            waiting.pop_front();
        }
        waiting.push_back((topic.clone(), payload.to_vec()));
        drop(waiting);
        self.more.notify_one();
    }
}

/// Takes what comes as it comes, and listens anew when the connection breaks.
async fn keep(server: Arc<Server>, heard: Arc<Heard>, mut consumer: Consumer) {
    loop {
        while let Some(Ok(delivery)) = consumer.next().await {
            heard.keep(&delivery.data);
        }
        consumer = loop {
            match open_patiently(&server, &heard.topics).await {
                Ok(consumer) => break consumer,
                Err(_) => sleep(jittered(PAUSE)).await,
            }
        };
    }
}

async fn open_patiently(server: &Server, topics: &BTreeSet<Topic>) -> Result<Consumer, Fault> {
    let mut attempts = Attempts::new();
    loop {
        match open(server, topics).await {
            Ok(consumer) => return Ok(consumer),
            Err(fault) => attempts.after(fault).await?,
        }
    }
}

async fn open(server: &Server, topics: &BTreeSet<Topic>) -> Result<Consumer, Fault> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|_| Fault::Odd("no randomness"))?;
    let queue = server.names.ear(u128::from_be_bytes(id));
    let exchange = server.names.exchange();
    let hearing = server.hearing().await?;
    let channel = hearing.ear(&exchange).await?;
    let options = QueueDeclareOptions {
        exclusive: true,
        auto_delete: true,
        ..QueueDeclareOptions::default()
    };
    let mut arguments = FieldTable::default();
    let most = AMQPValue::LongInt(i32::try_from(WAITING_MAX).unwrap_or(i32::MAX));
    arguments.insert("x-max-length".into(), most);
    let declared = channel.queue_declare(queue.as_str().into(), options, arguments);
    hearing.desk.waited(declared).await?;
    let keys: BTreeSet<String> = topics.iter().map(key).collect();
    for key in keys {
        let bound = channel.queue_bind(
            queue.as_str().into(),
            exchange.as_str().into(),
            key.into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        hearing.desk.waited(bound).await?;
    }
    let options = BasicConsumeOptions {
        no_ack: true,
        exclusive: true,
        ..BasicConsumeOptions::default()
    };
    let consumed = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default());
    hearing.desk.waited(consumed).await
}

impl Listener for AmqpListener {
    fn next(&mut self) -> BusFuture<'_, (Topic, Vec<u8>)> {
        Box::pin(async move { Ok::<_, BusError>(self.hear().await) })
    }
}

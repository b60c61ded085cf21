//! The requests that are made of the server. Each is made again for a while where nobody answers.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{
    DeleteMessageErrorKind, PurgeErrorKind, RawMessageBuilder, RawMessageErrorKind, Stream,
};
use async_nats::{Client, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use sealcast_bus::{Attempts, BusError};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::fault::Fault;
use crate::subject::Subjects;

/// How long one request waits for its answer.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an append that is done waits until those who follow are told.
const HINT_TIMEOUT: Duration = Duration::from_secs(1);
/// Messages that are asked for ahead of being read, about, and the most bytes of them. More are asked for
/// when half are left: what is being read then must leave enough to be on its way, and so must parts of appends that are not
/// done, which come before what names them.
const AHEAD_MAX: usize = 256;
const AHEAD_BYTES_MAX: usize = 6 << 20;
/// How long the server waits for messages to come before it is asked for them again.
const COMING_EXPIRES: Duration = Duration::from_secs(30);
/// How long to wait for one that is known to lie there, before it is asked for by itself.
const COMING_PATIENCE: Duration = Duration::from_secs(1);

/// What lies at a sequence number of the stream.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) seq: u64,
    pub(crate) bytes: Bytes,
}

/// What came of publishing where the subject's last message had to be a certain one.
#[derive(Debug)]
pub(crate) enum Published {
    /// It lies there now.
    At(u64),
    /// Another message is the last. Where an earlier attempt was not answered, this may be the
    /// message itself.
    LastIsAnother { may_be_own: bool },
}

/// One server, or cluster, as one handle sees it.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) client: Client,
    pub(crate) subjects: Subjects,
    context: Context,
    stream: Stream<()>,
    place: String,
    /// Counts how often something may have been missed: new connections, and hints that were lost.
    misses: watch::Receiver<u64>,
}

impl Server {
    pub(crate) fn new(
        client: Client,
        context: Context,
        stream: Stream<()>,
        subjects: Subjects,
        place: String,
        misses: watch::Receiver<u64>,
    ) -> Arc<Self> {
        Arc::new(Self {
            client,
            subjects,
            context,
            stream,
            place,
            misses,
        })
    }

    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    pub(crate) fn fault(&self, fault: Fault) -> BusError {
        fault.at(&self.place)
    }

    /// Tells when something may have been missed.
    pub(crate) fn misses(&self) -> watch::Receiver<u64> {
        self.misses.clone()
    }

    /// The most bytes of one message.
    pub(crate) fn message_max(&self) -> usize {
        self.client.max_payload()
    }

    /// The last message of a subject.
    pub(crate) async fn last(&self, subject: &str) -> Result<Option<Stored>, Fault> {
        let ask = || self.stream.raw_message_builder().last_by_subject(subject);
        self.get(ask).await
    }

    /// The first message of a subject at a sequence number or behind it.
    pub(crate) async fn next(&self, subject: &str, seq: u64) -> Result<Option<Stored>, Fault> {
        let ask = || {
            let builder = self.stream.raw_message_builder().sequence(seq.max(1));
            builder.next_by_subject(subject)
        };
        self.get(ask).await
    }

    /// The message at a sequence number, if it is one of a subject.
    pub(crate) async fn at(&self, subject: &str, seq: u64) -> Result<Option<Stored>, Fault> {
        let found = self.next(subject, seq).await?;
        Ok(found.filter(|found| found.seq == seq))
    }

    async fn get(&self, ask: impl Fn() -> RawMessageBuilder) -> Result<Option<Stored>, Fault> {
        let mut attempts = Attempts::new();
        loop {
            let error = match ask().send().await {
                Ok(found) => {
                    return Ok(Some(Stored {
                        seq: found.sequence,
                        bytes: found.payload,
                    }));
                }
                Err(error) => error,
            };
            let fault = match error.kind() {
                RawMessageErrorKind::NoMessageFound => return Ok(None),
                RawMessageErrorKind::JetStream(said) => Fault::said(said),
                RawMessageErrorKind::InvalidSubject | RawMessageErrorKind::Other => {
                    Fault::no_answer(error)
                }
            };
            attempts.after(fault).await?;
        }
    }

    /// Publishes on a subject whose last message is at `last`, once at most.
    pub(crate) async fn publish_behind(
        &self,
        subject: &str,
        last: u64,
        bytes: Bytes,
    ) -> Result<Published, Fault> {
        let build = || {
            let message = PublishMessage::build().payload(bytes.clone());
            message.expected_last_subject_sequence(last)
        };
        let mut attempts = Attempts::new();
        let mut may_be_own = false;
        loop {
            let error = match self.publish_once(subject, build()).await {
                Ok(seq) => return Ok(Published::At(seq)),
                Err(error) => error,
            };
            if error.kind() == PublishErrorKind::WrongLastSequence {
                return Ok(Published::LastIsAnother { may_be_own });
            }
            // Nobody is there to take it, or it was refused: then it is not stored.
            let is_there_none = error.kind() == PublishErrorKind::StreamNotFound;
            let fault = publish_fault(error);
            // A refusal says nothing of the attempts before it.
            if let Fault::Refused(error) = fault {
                return Err(match may_be_own {
                    true => Fault::no_answer(error),
                    false => Fault::Refused(error),
                });
            }
            may_be_own |= fault.leaves_open() && !is_there_none;
            attempts.after(fault).await?;
        }
    }

    /// Publishes a message that may lie there twice; the server takes an `id` once, if it can.
    pub(crate) async fn publish(
        &self,
        subject: &str,
        id: &str,
        bytes: Bytes,
    ) -> Result<u64, Fault> {
        let mut attempts = Attempts::new();
        loop {
            let message = PublishMessage::build().payload(bytes.clone());
            match self.publish_once(subject, message.message_id(id)).await {
                Ok(seq) => return Ok(seq),
                Err(error) => attempts.after(publish_fault(error)).await?,
            }
        }
    }

    async fn publish_once(
        &self,
        subject: &str,
        message: PublishMessage,
    ) -> Result<u64, PublishError> {
        let mut misses = self.misses();
        misses.mark_unchanged();
        let subject = subject.to_owned();
        let ack = self.context.send_publish(subject, message).await?;
        tokio::select! {
            ack = ack.into_future() => Ok(ack?.sequence),
            // What was on its way when the connection broke will not be answered.
            () = missed(&mut misses) => Err(PublishError::new(PublishErrorKind::TimedOut)),
        }
    }

    /// Removes what lies on a subject before a sequence number.
    pub(crate) async fn purge(&self, subject: &str, before: u64) -> Result<(), Fault> {
        // A server takes 1 for no bound at all, and there is nothing before it.
        if before <= 1 {
            return Ok(());
        }
        let mut attempts = Attempts::new();
        loop {
            let purge = self.stream.purge().filter(subject).sequence(before);
            let Err(error) = purge.await else {
                return Ok(());
            };
            let fault = match error.kind() {
                PurgeErrorKind::JetStream(said) => Fault::said(said),
                PurgeErrorKind::Request | PurgeErrorKind::TimedOut => Fault::no_answer(error),
            };
            attempts.after(fault).await?;
        }
    }

    /// Removes a message, if it is there.
    pub(crate) async fn delete(&self, seq: u64) -> Result<(), Fault> {
        let mut attempts = Attempts::new();
        loop {
            let Err(error) = self.stream.delete_message(seq).await else {
                return Ok(());
            };
            match error.kind() {
                // It is gone already; or it stays, and takes room and no more.
                DeleteMessageErrorKind::JetStream(_) => return Ok(()),
                DeleteMessageErrorKind::Request | DeleteMessageErrorKind::TimedOut => {
                    attempts.after(Fault::no_answer(error)).await?;
                }
            }
        }
    }

    /// The last sequence number of the stream.
    pub(crate) async fn last_sequence(&self) -> Option<u64> {
        let info = self.stream.get_info().await.ok()?;
        Some(info.state.last_sequence)
    }

    /// Messages of a subject from a sequence number on, which come without being asked for one by
    /// one.
    pub(crate) async fn coming(&self, subject: &str, seq: u64) -> Option<Coming> {
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence {
                start_sequence: seq.max(1),
            },
            ack_policy: AckPolicy::None,
            filter_subject: subject.to_owned(),
            inactive_threshold: 2 * COMING_EXPIRES,
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        let consumer = self.stream.create_consumer(config).await.ok()?;
        let name = consumer.cached_info().name.clone();
        // What is on its way may not be less than one message.
        let bytes_max = AHEAD_BYTES_MAX.max(2 * self.message_max());
        let messages = consumer
            .stream()
            .max_messages_per_batch(AHEAD_MAX)
            .max_bytes_per_batch(bytes_max)
            .expires(COMING_EXPIRES)
            .messages();
        let messages = messages.await.ok()?;
        let stream = self.stream.clone();
        Some(Coming {
            messages,
            name,
            stream,
        })
    }
}

/// Messages that come by themselves, until this is dropped.
pub(crate) struct Coming {
    messages: pull::Stream,
    name: String,
    stream: Stream<()>,
}

impl Coming {
    /// The next one. Nothing, where none comes in time or more will not come.
    pub(crate) async fn next(&mut self) -> Option<Stored> {
        let next = timeout(COMING_PATIENCE, self.messages.next()).await;
        let message = next.ok()??.ok()?;
        let seq = message.info().ok()?.stream_sequence;
        let bytes = message.message.payload;
        Some(Stored { seq, bytes })
    }
}

impl fmt::Debug for Coming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coming").finish_non_exhaustive()
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        // One that stays is removed by the server when nobody asks it for messages any more.
        if let Ok(runtime) = Handle::try_current() {
            let (stream, name) = (self.stream.clone(), std::mem::take(&mut self.name));
            runtime.spawn(async move { stream.delete_consumer(&name).await });
        }
    }
}

/// Core NATS.
impl Server {
    /// Sends to whoever listens, and returns once the server has it.
    pub(crate) async fn send(&self, subject: String, bytes: Bytes) -> Result<(), Fault> {
        let sent = self.client.publish(subject, bytes).await;
        sent.map_err(Fault::no_answer)?;
        self.round_trip().await
    }

    /// Says that a log has grown, if it can be said.
    pub(crate) async fn hint(&self, subject: String, end: u64) {
        let bytes = Bytes::copy_from_slice(&end.to_be_bytes());
        let _is_sent = self.client.publish(subject, bytes).await.is_ok();
    }

    /// Returns when what was said has left, so that the program may end, unless the connection has just broken.
    pub(crate) async fn let_leave(&self) {
        let _has_left = timeout(HINT_TIMEOUT, self.client.flush()).await.is_ok();
    }

    pub(crate) async fn subscribe(&self, subject: String) -> Result<Subscriber, Fault> {
        let subscribed = self.client.subscribe(subject).await;
        subscribed.map_err(Fault::no_answer)
    }

    /// Returns when the server has done all that it was sent before.
    pub(crate) async fn round_trip(&self) -> Result<(), Fault> {
        let inbox = self.client.new_inbox();
        let mut echo = self.subscribe(inbox.clone()).await?;
        let sent = self.client.publish(inbox, Bytes::new()).await;
        sent.map_err(Fault::no_answer)?;
        match timeout(ANSWER_TIMEOUT, echo.next()).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(Fault::Odd("the connection is closed")),
            Err(late) => Err(Fault::no_answer(late)),
        }
    }
}

async fn missed(misses: &mut watch::Receiver<u64>) {
    if misses.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn publish_fault(error: PublishError) -> Fault {
    let said = error.source().and_then(|source| source.downcast_ref());
    match said.cloned() {
        Some(said) => Fault::said(said),
        None => Fault::no_answer(error),
    }
}

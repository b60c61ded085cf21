//! NATS JetStream by its own client alone.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use async_nats::jetstream::context::PublishAckFuture;
use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType};
use async_nats::jetstream::{self, Context};
use futures_util::StreamExt as _;

use super::{Place, WAITING_MAX};
use crate::clear::FRAME_BYTES;

/// What NATS adds to a message, and some room.
const ENVELOPE_BYTES: usize = 1 << 10;

/// Stores frames, each in a message or as many as the server takes, with several on their way.
pub(crate) struct Publisher {
    context: Context,
    subject: String,
    message_max: usize,
    waiting: VecDeque<(usize, PublishAckFuture)>,
    /// Bytes that are on their way.
    bytes: usize,
}

impl Publisher {
    pub(crate) async fn open(place: &Place, is_packed: bool) -> anyhow::Result<Self> {
        let client = async_nats::connect(&place.url).await?;
        let message_max = match is_packed {
            true => client.max_payload() - ENVELOPE_BYTES,
            false => 0,
        };
        let context = jetstream::new(client);
        context.get_or_create_stream(config(place)).await?;
        Ok(Self {
            context,
            subject: subject(place),
            message_max,
            waiting: VecDeque::new(),
            bytes: 0,
        })
    }

    pub(crate) async fn send(&mut self, batch: Vec<Vec<u8>>) -> anyhow::Result<()> {
        for message in super::packed(&batch, self.message_max) {
            // The client lets but so many wait that nobody asks for.
            while self.bytes >= WAITING_MAX * FRAME_BYTES || self.waiting.len() >= WAITING_MAX {
                self.one_less().await?;
            }
            let size = message.len();
            let published = self
                .context
                .publish(self.subject.clone(), message.into())
                .await?;
            self.waiting.push_back((size, published));
            self.bytes += size;
        }
        Ok(())
    }

    pub(crate) async fn finish(mut self) -> anyhow::Result<()> {
        while !self.waiting.is_empty() {
            self.one_less().await?;
        }
        Ok(())
    }

    async fn one_less(&mut self) -> anyhow::Result<()> {
        if let Some((size, oldest)) = self.waiting.pop_front() {
            oldest.await?;
            self.bytes -= size;
        }
        Ok(())
    }
}

/// Takes all messages in order, from the first on.
pub(crate) struct Reader {
    messages: pull::Ordered,
}

impl Reader {
    pub(crate) async fn open(place: &Place) -> anyhow::Result<Self> {
        let context = jetstream::new(async_nats::connect(&place.url).await?);
        let stream = context.get_or_create_stream(config(place)).await?;
        let config = OrderedConfig {
            deliver_policy: DeliverPolicy::All,
            // With a bound on bytes, too, it was seen to wait for ever.
            max_batch: 64,
            max_expires: Duration::from_secs(30),
            ..OrderedConfig::default()
        };
        let consumer = stream.create_consumer(config).await?;
        let messages = consumer.messages().await?;
        Ok(Self { messages })
    }

    pub(crate) async fn next(&mut self) -> anyhow::Result<Vec<u8>> {
        let message = self.messages.next().await.context("the messages end")??;
        Ok(message.message.payload.to_vec())
    }
}

fn subject(place: &Place) -> String {
    format!("{}.data", place.name)
}

fn config(place: &Place) -> Config {
    Config {
        name: place.name.clone(),
        subjects: vec![subject(place)],
        storage: StorageType::File,
        discard: DiscardPolicy::New,
        ..Config::default()
    }
}

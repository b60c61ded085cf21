//! RabbitMQ by a client of AMQP alone: a stream queue with confirms.

use std::collections::VecDeque;

use anyhow::{Context as _, ensure};
use futures_util::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, Consumer, PublisherConfirm,
};

use super::{Place, WAITING_MAX};

/// Messages that the server delivers ahead of their acknowledgements.
const CREDIT: u16 = 256;
/// As AMQP numbers what survives a restart.
const PERSISTENT: u8 = 2;

/// Stores messages, with several on their way.
pub(crate) struct Publisher {
    channel: Channel,
    queue: String,
    waiting: VecDeque<PublisherConfirm>,
    _connection: Connection,
}

impl Publisher {
    pub(crate) async fn open(place: &Place) -> anyhow::Result<Self> {
        let (connection, channel) = connect(place).await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        Ok(Self {
            channel,
            queue: place.name.clone(),
            waiting: VecDeque::new(),
            _connection: connection,
        })
    }

    pub(crate) async fn send(&mut self, batch: Vec<Vec<u8>>) -> anyhow::Result<()> {
        for message in super::packed(&batch, 0) {
            while self.waiting.len() >= WAITING_MAX {
                self.one_less().await?;
            }
            let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
            let options = BasicPublishOptions::default();
            let published = self.channel.basic_publish(
                "".into(),
                self.queue.as_str().into(),
                options,
                &message,
                properties,
            );
            self.waiting.push_back(published.await?);
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
        if let Some(oldest) = self.waiting.pop_front() {
            ensure!(oldest.await?.is_ack(), "a message was not taken");
        }
        Ok(())
    }
}

/// Takes all messages in order, from the first on.
pub(crate) struct Reader {
    consumer: Consumer,
    _channel: Channel,
    _connection: Connection,
}

impl Reader {
    pub(crate) async fn open(place: &Place) -> anyhow::Result<Self> {
        let (connection, channel) = connect(place).await?;
        channel
            .basic_qos(CREDIT, BasicQosOptions::default())
            .await?;
        let mut from = FieldTable::default();
        from.insert(
            "x-stream-offset".into(),
            AMQPValue::LongString("first".into()),
        );
        let options = BasicConsumeOptions::default();
        let consumer = channel
            .basic_consume(place.name.as_str().into(), "".into(), options, from)
            .await?;
        Ok(Self {
            consumer,
            _channel: channel,
            _connection: connection,
        })
    }

    pub(crate) async fn next(&mut self) -> anyhow::Result<Vec<u8>> {
        let delivery = self.consumer.next().await.context("the messages end")??;
        delivery.ack(BasicAckOptions::default()).await?;
        Ok(delivery.data)
    }
}

async fn connect(place: &Place) -> anyhow::Result<(Connection, Channel)> {
    let connection = Connection::connect(&place.url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let mut arguments = FieldTable::default();
    arguments.insert(
        "x-queue-type".into(),
        AMQPValue::LongString("stream".into()),
    );
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare(place.name.as_str().into(), options, arguments)
        .await?;
    Ok((connection, channel))
}

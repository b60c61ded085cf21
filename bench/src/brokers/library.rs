//! MQTT 5 with QoS 1 by a library, as it comes but for how many messages it lets be on their way.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v5::Packet;
use rumqttc::{
    AsyncClient, BrokerSessionResumePolicy, Event, EventLoop, MqttOptions, PublishOptions,
};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::Place;

/// How long the broker keeps the session of who has gone, in seconds.
const KEPT_S: u32 = 3_600;

/// Publishes messages, with several on their way.
pub(crate) struct Publisher {
    client: AsyncClient,
    topic: String,
    sent: u32,
    /// One for each that is acknowledged.
    acknowledged: Arc<Semaphore>,
    /// Has the library do its work.
    working: JoinHandle<anyhow::Result<()>>,
}

impl Publisher {
    /// With so many messages on their way at once.
    pub(super) fn open(place: &Place, waiting_max: usize) -> anyhow::Result<Self> {
        let (client, mut events) = start(options(place, "library-publisher")?, waiting_max)?;
        let acknowledged = Arc::new(Semaphore::new(0));
        let heard = acknowledged.clone();
        let working = tokio::spawn(async move {
            loop {
                if let Event::Incoming(Packet::PubAck(_)) = events.poll().await? {
                    heard.add_permits(1);
                }
            }
        });
        Ok(Self {
            client,
            topic: place.name.clone(),
            sent: 0,
            acknowledged,
            working,
        })
    }

    pub(crate) async fn send(&mut self, batch: Vec<Vec<u8>>) -> anyhow::Result<()> {
        for message in super::packed(&batch, 0) {
            let options = PublishOptions::new(QoS::AtLeastOnce);
            let published = self.client.publish(&self.topic, message, options);
            published.await.context("the broker has gone")?;
            self.sent += 1;
        }
        Ok(())
    }

    pub(crate) async fn finish(mut self) -> anyhow::Result<()> {
        tokio::select! {
            all = self.acknowledged.acquire_many(self.sent) => all?.forget(),
            ended = &mut self.working => {
                ended??;
                bail!("the broker has gone");
            }
        }
        self.working.abort();
        Ok(())
    }
}

/// Takes all messages that come.
pub(crate) struct Reader {
    events: EventLoop,
    /// Kept, since the library ends without it.
    _client: AsyncClient,
}

impl Reader {
    /// Follows a place in a session that the broker keeps, with what comes while nobody is connected.
    pub(super) async fn open(place: &Place) -> anyhow::Result<Self> {
        let mut options = options(place, &place.name)?;
        options.set_clean_start(false);
        options.set_broker_session_resume_policy(BrokerSessionResumePolicy::AllowBrokerOnly);
        options.set_session_expiry_interval(Some(KEPT_S));
        let (client, mut events) = start(options, 64)?;
        let is_kept = loop {
            if let Event::Incoming(Packet::ConnAck(welcome)) = events.poll().await? {
                break welcome.session_present;
            }
        };
        if !is_kept {
            client.subscribe(&place.name, QoS::AtLeastOnce).await?;
            while !matches!(events.poll().await?, Event::Incoming(Packet::SubAck(_))) {}
        }
        Ok(Self {
            events,
            _client: client,
        })
    }

    pub(crate) async fn next(&mut self) -> anyhow::Result<Vec<u8>> {
        loop {
            if let Event::Incoming(Packet::Publish(message)) = self.events.poll().await? {
                return Ok(message.payload.into());
            }
        }
    }
}

fn options(place: &Place, client: &str) -> anyhow::Result<MqttOptions> {
    let (host, port) = place.url.split_once(':').context("no port")?;
    Ok(MqttOptions::new(client, (host, port.parse::<u16>()?)))
}

fn start(mut options: MqttOptions, waiting_max: usize) -> anyhow::Result<(AsyncClient, EventLoop)> {
    options.set_outgoing_inflight_upper_limit(u16::try_from(waiting_max)?);
    Ok(AsyncClient::builder(options).capacity(waiting_max).build())
}

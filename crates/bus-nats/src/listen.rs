use std::collections::VecDeque;
use std::future;
use std::sync::Arc;

use sealcast_bus::{BusError, BusFuture, Limits, Listener, Topic};

use crate::ears::Ears;
use crate::server::Server;

/// Payloads that wait for a listener that is late; of more, the oldest are dropped.
const WAITING_MAX: usize = 4 * Limits::SENT_WAITING_MIN;

type Waiting = VecDeque<(usize, Vec<u8>)>;

/// Listens to ephemeral topics.
#[derive(Debug)]
pub(crate) struct NatsListener {
    /// Sorted, each once.
    topics: Vec<Topic>,
    ears: Ears<Waiting>,
}

impl NatsListener {
    pub(crate) async fn start(
        server: Arc<Server>,
        mut topics: Vec<Topic>,
    ) -> Result<Self, BusError> {
        topics.sort();
        topics.dedup();
        let subject = |topic: &Topic| server.subjects.now(topic);
        let ears = Ears::open(
            &server,
            &topics,
            subject,
            |waiting: &mut Waiting, index, message| {
                if waiting.len() >= WAITING_MAX {
                    waiting.pop_front();
                }
                // Whatever is longer was not sent by a bus.
                if message.payload.len() <= Limits::SENT_MAX {
                    waiting.push_back((index, message.payload.to_vec()));
                }
            },
        );
        let ears = ears.await.map_err(|fault| server.fault(fault))?;
        Ok(Self { topics, ears })
    }

    async fn hear(&mut self) -> Result<(Topic, Vec<u8>), BusError> {
        loop {
            let heard = self.ears.kept().pop_front();
            if let Some((index, payload)) = heard
                && let Some(topic) = self.topics.get(index)
            {
                return Ok((topic.clone(), payload));
            }
            if self.topics.is_empty() {
                return future::pending().await;
            }
            self.ears.more().await;
        }
    }
}

impl Listener for NatsListener {
    fn next(&mut self) -> BusFuture<'_, (Topic, Vec<u8>)> {
        Box::pin(self.hear())
    }
}

//! What comes on topics that the broker's users have for messages: spec/bus-mqtt.md, section 11.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use sealcast_bus::Arrival;

use super::{FeedFault, Feeder};
use crate::link::{Event, Receipt};
use crate::users::{data_logs, id_of};

/// Messages that wait and that the broker does not want acknowledged; of more, the newest are lost.
const UNASKED_MAX: usize = 1_024;

/// Counts messages that wait and that the broker does not want acknowledged, so that it would send any
/// number of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Unasked(Arc<AtomicUsize>);

impl Unasked {
    /// Whether there is room for what happened to wait.
    pub(super) fn admits(&self, event: &Event) -> bool {
        if !is_unasked(event) {
            return true;
        }
        let is_room = self.0.fetch_add(1, Ordering::Relaxed) < UNASKED_MAX;
        if !is_room {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
        is_room
    }

    /// Notes that it waits no more.
    pub(super) fn handled(&self, event: &Event) {
        if is_unasked(event) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn is_unasked(event: &Event) -> bool {
    matches!(event, Event::Message { receipt, .. } if receipt.is_none())
}

impl Feeder {
    /// Takes an item into the data of all streams that are followed.
    pub(super) async fn users_item(
        &mut self,
        item: Vec<u8>,
        receipt: Receipt,
    ) -> Result<(), FeedFault> {
        let mut logs: Vec<_> = data_logs(&self.followed).collect();
        let Some(last) = logs.pop() else {
            self.link.acknowledge(receipt);
            return Ok(());
        };
        let (id, bytes) = (id_of(&item), item.len());
        let item = Bytes::from(item);
        let arrival = |topic| Arrival {
            topic,
            id,
            stamp: 0,
            payloads: vec![item.clone()],
            is_own: false,
            parts: 0,
        };
        for log in logs {
            let arrival = arrival(log);
            self.arrive(arrival, (bytes, false), Vec::new()).await?;
        }
        self.arrive(arrival(last), (bytes, false), vec![receipt])
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Held;
    use crate::packet::Publish;

    #[test]
    fn what_the_broker_does_not_wait_for_does_not_pile_up() {
        let message = Event::Message {
            publish: Publish {
                topic: "plant".into(),
                payload: b"x".to_vec().into(),
                is_retained: false,
            },
            receipt: Receipt::NONE,
            held: Held::NONE,
        };
        let unasked = Unasked::default();
        for _ in 0..UNASKED_MAX {
            assert!(unasked.admits(&message));
        }
        assert!(!unasked.admits(&message));
        assert!(unasked.admits(&Event::Up { has_session: true }));
        unasked.handled(&Event::Up { has_session: true });
        unasked.handled(&message);
        assert!(unasked.admits(&message) && !unasked.admits(&message));
    }
}

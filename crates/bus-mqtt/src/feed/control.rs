//! Control logs come over a session of their own, too, so that whoever has to know how one of them ends need not
//! wait for the data that the broker has kept for the home: spec/bus-mqtt.md, section 5.

use std::sync::Arc;

use sealcast_bus::{Arrival, Topic};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::survey::Trace;
use super::unwhole::{Piece, Put, Unwhole, joined};
use super::{
    ASK_AGAIN, BATCH, FENCES_MAX, FeedFault, Feeder, HELD_BYTES_MAX, KEPT_FOR, MIRROR_PAUSE,
};
use crate::dial::Dial;
use crate::link::{Client, Event, Link};
use crate::message::{
    Append, CONTROL, MessageId, PartOf, has_live, is_control, put_sent, take_sent,
};
use crate::packet::{Filter, Publish};

/// What comes on control logs, once more: the connection that feeds brings it behind all else. So nothing is lost
/// with this one, and what comes over it is acknowledged at once.
pub(super) struct Control {
    link: Arc<Link>,
    /// Of its last question to itself.
    number: u64,
    /// Whether that has come back, so that the mirror has what the broker had before, once it has what is held.
    is_level: bool,
    held: Vec<Arrival>,
    held_bytes: usize,
    /// Parts that wait for others, and whether some were dropped, being too many.
    parts: Unwhole,
    is_flooded: bool,
    /// Who waits to be told that the mirror has all.
    fences: Vec<MessageId>,
    /// Subscribes, and puts the question.
    asking: JoinSet<()>,
}

impl Control {
    /// Begins to connect. As long as the broker does not let it in, all is as without it.
    pub(super) fn open(dial: Dial, home: &str) -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (events_tx, events) = mpsc::unbounded_channel();
        let client = Client {
            id: format!("sc{home}l"),
            kept_for: KEPT_FOR,
        };
        // What waits here is bounded by the room that each message holds.
        let on_event = move |event| {
            let is_of_a_bus = match &event {
                Event::Up { .. } => true,
                Event::Message { receipt, .. } => !receipt.is_none(),
            };
            drop(is_of_a_bus.then(|| events_tx.send(event)));
        };
        let control = Self {
            link: Arc::new(Link::begin(dial, client, on_event)),
            number: 0,
            is_level: false,
            held: Vec::new(),
            held_bytes: 0,
            parts: Unwhole::default(),
            is_flooded: false,
            fences: Vec::new(),
            asking: JoinSet::new(),
        };
        (control, events)
    }

    /// Holds what a message has, where that is whole.
    fn hold(&mut self, publish: Publish, (topic, id, part): (Topic, MessageId, Option<PartOf>)) {
        let bytes = publish.payload.len();
        let whole = match part {
            None => Append::decode(&publish.payload)
                .ok()
                .map(|append| (append.arrival(topic, id, 0), bytes)),
            Some(part) => self.joined(Piece {
                topic,
                id,
                part,
                publish,
                receipts: Vec::new(),
                is_past: false,
            }),
        };
        if let Some((arrival, bytes)) = whole {
            self.held.push(arrival);
            self.held_bytes += bytes;
        }
    }

    fn joined(&mut self, piece: Piece) -> Option<(Arrival, usize)> {
        match self.parts.put(piece, Instant::now()) {
            Put::Whole(pieces) => return joined(pieces),
            Put::Waits | Put::Instead(_) => {}
        }
        if self.parts.bytes() >= HELD_BYTES_MAX {
            self.parts = Unwhole::default();
            (self.is_flooded, self.is_level) = (true, false);
        }
        None
    }
}

impl Feeder {
    /// Deals with what has come on control logs, and takes it in.
    pub(super) async fn handle_control(
        &mut self,
        first: Event,
        events: &mut mpsc::UnboundedReceiver<Event>,
    ) -> Result<(), FeedFault> {
        self.control_event(first).await?;
        for _ in 0..BATCH {
            let Ok(event) = events.try_recv() else { break };
            self.control_event(event).await?;
        }
        match self.control.is_level {
            true => self.release_control().await,
            false => Ok(()),
        }
    }

    async fn control_event(&mut self, event: Event) -> Result<(), FeedFault> {
        match event {
            Event::Up { .. } => {
                self.control.is_flooded = false;
                self.ask_control();
                Ok(())
            }
            Event::Message {
                publish,
                receipt,
                held,
            } => {
                drop(held);
                self.control_message(publish).await?;
                self.control.link.acknowledge(receipt);
                Ok(())
            }
        }
    }

    async fn control_message(&mut self, publish: Publish) -> Result<(), FeedFault> {
        if publish.topic == self.names.fence() {
            return match take_sent(&publish.payload) {
                Some((id, CONTROL)) => self.control_fence(id).await,
                Some(_) | None => Ok(()),
            };
        }
        let found = self.names.parse_log(&publish.topic);
        // Who cleared what is dealt with where it comes among all else.
        if let Some(found) = found.filter(|(topic, ..)| is_control(topic))
            && !publish.payload.is_empty()
        {
            self.control.hold(publish, found);
            if self.control.held_bytes >= HELD_BYTES_MAX {
                return self.release_control().await;
            }
        }
        Ok(())
    }

    /// Subscribes to the control logs of all that is followed, and says so when the mirror has all of them. What is
    /// retained comes, too: the broker may have dropped what was to wait, and the mirror been put back.
    pub(super) fn ask_control(&mut self) {
        let control = &mut self.control;
        control.is_level = false;
        control.number += 1;
        let names = &self.names;
        let logs = self.followed.iter().flat_map(|of| names.control(of));
        let filters = logs.chain([names.fence()]).map(Filter::from);
        let filters: Vec<_> = filters.collect();
        let id = MessageId {
            writer: self.writer,
            number: control.number,
        };
        let question = Publish {
            topic: names.fence(),
            payload: put_sent(id, CONTROL),
            is_retained: false,
        };
        let link = Arc::clone(&control.link);
        control.asking = JoinSet::new();
        control.asking.spawn(async move {
            loop {
                match link.subscribe(&filters).await {
                    Ok(refused) if refused.is_empty() => break,
                    // Whoever asks is answered behind all else.
                    Ok(_) => return,
                    Err(_) => sleep(ASK_AGAIN).await,
                }
            }
            loop {
                // A broker may drop it, having too much on its way to us.
                let _asked = link.publish(question.clone()).await;
                sleep(ASK_AGAIN).await;
            }
        });
    }

    async fn control_fence(&mut self, id: MessageId) -> Result<(), FeedFault> {
        let control = &mut self.control;
        if id.writer != self.writer {
            if control.fences.len() < FENCES_MAX {
                control.fences.push(id);
            }
        } else if id.number == control.number && !control.is_level {
            control.asking.abort_all();
            control.is_level = !control.is_flooded;
            if control.is_level {
                let whole = self.followed.iter().filter(|scope| !has_live(scope));
                self.answered.extend(whole.cloned());
            }
        }
        match control.is_level {
            true => self.release_control().await,
            false => Ok(()),
        }
    }

    /// Takes in what is held, in the order in which its writers placed it, and says so to whoever waits for that.
    async fn release_control(&mut self) -> Result<(), FeedFault> {
        let control = &mut self.control;
        control.held_bytes = 0;
        let mut held = std::mem::take(&mut control.held);
        held.sort_by(|a, b| (&a.topic, a.stamp, a.id).cmp(&(&b.topic, b.stamp, b.id)));
        if !held.is_empty() {
            let traces = held.iter().map(Trace::of).collect();
            let offsets = self.home.take_in(held, MIRROR_PAUSE).await?;
            self.clear_trimmed(traces, offsets).await?;
        }
        if !self.control.is_level {
            return Ok(());
        }
        for id in std::mem::take(&mut self.control.fences) {
            let answer = Publish {
                topic: self.names.fenced(id.writer),
                payload: put_sent(id, b""),
                is_retained: false,
            };
            let link = Arc::clone(&self.control.link);
            // Whoever gets no answer asks again.
            self.tasks
                .spawn(async move { drop(link.publish(answer).await) });
        }
        Ok(())
    }
}

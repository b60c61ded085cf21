//! Control logs come over a session of their own, too, so that whoever has to know how one of them ends need not
//! wait for the data that the broker has kept for the home: spec/bus-mqtt.md, section 5.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::holding::Holding;
use super::survey::Trace;
use super::{ASK_AGAIN, BATCH, FENCES_MAX, FeedFault, Feeder, KEPT_FOR, MIRROR_PAUSE};
use crate::dial::Dial;
use crate::link::{Client, Event, Link};
use crate::message::{CONTROL, MessageId, has_live, is_control, put_sent, take_sent};
use crate::packet::{Filter, Publish};

/// What comes on control logs, once more: the connection that feeds brings it behind all else. So nothing is lost
/// with this one, and what comes over it is acknowledged at once.
pub(super) struct Control {
    link: Arc<Link>,
    /// Of its last question to itself.
    number: u64,
    /// Whether that has come back, so that the mirror has what the broker had before, once it has what is held.
    is_level: bool,
    holding: Holding,
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
            holding: Holding::default(),
            fences: Vec::new(),
            asking: JoinSet::new(),
        };
        (control, events)
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
                self.control.holding.is_lacking = false;
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
            let control = &mut self.control;
            control.holding.hold(publish, found);
            // The connection that feeds brings it, too.
            control.is_level &= !control.holding.is_lacking;
            if control.holding.is_full() {
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
            control.is_level = !control.holding.is_lacking;
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
        control.holding.sort();
        let mut held = control.holding.take();
        held.retain(|arrival| self.home.admits(arrival));
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

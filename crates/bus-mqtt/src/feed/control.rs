//! Control logs come over a session of their own, too, so that whoever has to know how one of them ends need not
//! wait for the data that the broker has kept for the home: spec/bus-mqtt.md, section 5.

use std::collections::BTreeSet;
use std::sync::Arc;

use sealcast_bus::{BusError, Topic};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::holding::Holding;
use super::survey::Trace;
use super::{ASK_AGAIN, BATCH, FENCES_MAX, FeedFault, Feeder, KEPT_FOR, MIRROR_PAUSE};
use crate::dial::Dial;
use crate::home::Home;
use crate::link::{Client, Event, Link, Receipt};
use crate::message::{CONTROL, MessageId, PartOf, has_live, is_control, put_sent, take_sent};
use crate::packet::{Filter, Publish};

/// What comes on control logs, once more: the connection that feeds brings it behind all else.
pub(super) struct Control {
    link: Arc<Link>,
    /// Whether the broker has let it in.
    is_up: bool,
    /// Scopes that this connection was not seen to have all of.
    new: BTreeSet<String>,
    /// Of its last question to itself.
    number: u64,
    /// Whether that has come back over this connection.
    is_back: bool,
    /// The last one that has come back over the connection that feeds.
    first: Option<u64>,
    /// Whether that is waited for, too: this session may not bring again what it has brought.
    needs_first: bool,
    /// Whether the mirror has what the broker had when that was asked, once it has what is held.
    is_level: bool,
    /// What the home has noted of that.
    is_noted: bool,
    holding: Holding,
    /// Of what is in the mirror, or held, but not acknowledged.
    receipts: Vec<Receipt>,
    /// Who waits to be told that the mirror has all.
    fences: Vec<MessageId>,
    /// Subscribes, and puts the question.
    asking: JoinSet<()>,
}

impl Control {
    /// Begins to connect. As long as the broker does not let it in, all is as without it.
    pub(super) async fn open(
        dial: Dial,
        home: &Home,
    ) -> Result<(Self, mpsc::UnboundedReceiver<Event>), BusError> {
        let (events_tx, events) = mpsc::unbounded_channel();
        let client = Client {
            id: format!("sc{}l", home.name),
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
        let is_noted = home.is_control_level().await?;
        let control = Self {
            link: Arc::new(Link::begin(dial, client, on_event)),
            is_up: false,
            new: BTreeSet::new(),
            number: 0,
            is_back: false,
            first: None,
            needs_first: !is_noted,
            is_level: false,
            is_noted,
            holding: Holding::default(),
            receipts: Vec::new(),
            fences: Vec::new(),
            asking: JoinSet::new(),
        };
        Ok((control, events))
    }

    /// Whether it waits for a question of its own to come over the connection that feeds.
    fn awaits_first(&self, id: MessageId) -> bool {
        let is_it = id.number == self.number && self.first != Some(id.number);
        is_it && self.needs_first && !self.is_level
    }

    /// Whether what comes is held until all of it is there.
    fn is_holding(&self) -> bool {
        !self.is_level && !self.holding.is_lacking
    }

    fn hold(&mut self, publish: Publish, found: (Topic, MessageId, Option<PartOf>)) {
        let was_holding = self.is_holding();
        self.holding.hold(publish, found);
        if self.holding.is_lacking {
            // The other connection brings it, too.
            self.is_level = false;
            self.needs_first = true;
        }
        if was_holding && (self.holding.is_full() || !self.is_holding()) {
            self.holding.sort();
        }
    }

    /// What the home is to note: whether the next process has all that this session will not bring again.
    fn is_whole(&self) -> bool {
        !self.needs_first && !self.holding.has_unretained()
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
        self.settle_control().await
    }

    async fn control_event(&mut self, event: Event) -> Result<(), FeedFault> {
        match event {
            Event::Up { has_session } => {
                let control = &mut self.control;
                control.is_up = true;
                control.holding.is_lacking = false;
                control.needs_first |= !has_session;
                control.new.clear();
                self.ask_control(self.followed.clone());
                Ok(())
            }
            Event::Message {
                publish,
                receipt,
                held,
            } => {
                drop(held);
                self.control.receipts.push(receipt);
                self.control_message(publish).await
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
            if self.control.holding.is_full() {
                return self.release_control().await;
            }
        }
        Ok(())
    }

    /// Subscribes to the control logs of scopes, and says so when the mirror has all of them. What is retained comes,
    /// too: the broker may have dropped what was to wait, and the mirror been put back.
    pub(super) fn ask_control(&mut self, scopes: BTreeSet<String>) {
        let control = &mut self.control;
        // The first connection begins with all of them.
        if !control.is_up {
            return;
        }
        control.new.extend(scopes);
        control.is_level = false;
        control.is_back = false;
        control.number += 1;
        let names = &self.names;
        let logs = control.new.iter().flat_map(|of| names.control(of));
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
        if id.writer == self.writer {
            control.is_back |= id.number == control.number;
            return self.level_control().await;
        }
        if control.fences.len() < FENCES_MAX {
            control.fences.push(id);
        }
        Ok(())
    }

    /// The question of the other connection has come over the one that feeds, behind what that had before.
    pub(super) async fn first_has(&mut self, id: MessageId) -> Result<(), FeedFault> {
        if !self.control.awaits_first(id) {
            return Ok(());
        }
        self.catch_up().await?;
        self.control.first = Some(id.number);
        self.level_control().await
    }

    /// Looks whether all that was asked for has come back.
    pub(super) async fn level_control(&mut self) -> Result<(), FeedFault> {
        let control = &mut self.control;
        if !control.is_holding() {
            // It is not to be known before there is another connection.
            if control.is_back {
                control.asking.abort_all();
            }
            return Ok(());
        }
        // A survey holds what came before the question.
        let has_first = control.first == Some(control.number) && self.survey.is_none();
        let has_all = control.is_back && (has_first || !control.needs_first);
        if !has_all {
            return Ok(());
        }
        control.asking.abort_all();
        control.new.clear();
        control.holding.sort();
        control.is_level = true;
        control.needs_first = false;
        let whole = self.followed.iter().filter(|scope| !has_live(scope));
        self.answered.extend(whole.cloned());
        self.settle_control().await
    }

    /// Takes in what is held no longer, acknowledges what came, and says to whoever waits that it is in the mirror.
    async fn settle_control(&mut self) -> Result<(), FeedFault> {
        if !self.control.is_holding() {
            self.release_control().await?;
        }
        let control = &mut self.control;
        if control.is_noted != control.is_whole() {
            control.is_noted = control.is_whole();
            self.home.set_control_level(control.is_noted).await?;
        }
        for receipt in control.receipts.drain(..) {
            control.link.acknowledge(receipt);
        }
        if !control.is_level {
            return Ok(());
        }
        for id in std::mem::take(&mut control.fences) {
            let answer = Publish {
                topic: self.names.fenced(id.writer),
                payload: put_sent(id, b""),
                is_retained: false,
            };
            let link = Arc::clone(&control.link);
            // Whoever gets no answer asks again.
            self.tasks
                .spawn(async move { drop(link.publish(answer).await) });
        }
        Ok(())
    }

    /// Takes in what is whole.
    async fn release_control(&mut self) -> Result<(), FeedFault> {
        let mut whole = self.control.holding.take();
        whole.retain(|arrival| self.home.admits(arrival));
        if whole.is_empty() {
            return Ok(());
        }
        let traces = whole.iter().map(Trace::of).collect();
        let offsets = self.home.take_in(whole, MIRROR_PAUSE).await?;
        self.clear_trimmed(traces, offsets).await
    }
}

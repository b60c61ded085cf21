//! What a broker sends at once is opened at once, before each message is dealt with in its turn.

use std::sync::Arc;

use sealcast::{Arrival, DataTopic, Name};

use crate::down::Down;
use crate::json::Field;
use crate::packet::{PUBLISH, Publish, Side};
use crate::rules::{Down as Act, Rules};
use crate::ruling::InForce;
use crate::sealing::{Closed, Opened, open_all};
use crate::wire::Incoming;

/// What a message was opened to before its turn, and by which rules.
pub(crate) struct Ahead {
    pub(crate) by: Arc<InForce>,
    pub(crate) opened: Opened,
}

impl Down {
    /// Opens the first messages of those that have come, as far as they are of one stream and none of them decides
    /// whether the next is opened. Each is handed out in its turn.
    pub(crate) async fn open_ahead(&mut self) {
        // What is on its way to the client may have others wait.
        if self.numbers.has_own() || !self.is_welcome || !self.ahead.is_empty() {
            return;
        }
        let now = self.ruling.now();
        let mut of_stream = None;
        let messages = self.stalled.iter().map_while(|incoming| {
            let (stream, message) = self.to_open(&now.rules, incoming)?;
            (*of_stream.get_or_insert(stream) == stream).then_some(message)
        });
        let messages: Vec<_> = messages.collect();
        let Some(stream) = of_stream.filter(|_| messages.len() > 1) else {
            return;
        };
        let opening = self.opening.entry(stream.clone());
        let opening = opening.or_insert_with(|| now.sealing.opening(stream));
        let opened = open_all(&mut **opening, &messages).await.into_iter();
        let by = || Arc::clone(&now);
        let ahead = opened.map(|opened| Ahead { by: by(), opened });
        self.ahead = ahead.map(Some).collect();
    }

    /// Opens a message when it is its turn.
    pub(crate) async fn open_now(
        &mut self,
        now: &InForce,
        (stream, fields): (&Name, &[Field]),
        publish: &Publish<'_>,
        topic: DataTopic,
    ) -> Opened {
        let comes_again = self.numbers.comes_again(publish, topic.as_str());
        let is_known = comes_again || self.is_copy(publish, topic.as_str());
        let arrival = match publish.is_retained() || is_known {
            true => Arrival::Kept,
            false => Arrival::Live,
        };
        let payload = publish.payload;
        let message = Closed {
            fields,
            topic,
            payload,
            arrival,
        };
        self.open(now, stream, message).await
    }

    /// Whether a message went on before, and comes for another of the client's subscriptions.
    fn is_copy(&self, publish: &Publish<'_>, topic: &str) -> bool {
        let copies = self.told.subscriptions.copies(topic);
        copies > 1 && (1..copies).contains(&self.copies.of(&self.mark(publish, topic)))
    }

    /// Whether the client has a message already, and not for another of its subscriptions.
    pub(crate) fn was_had(&self, publish: &Publish<'_>, topic: &str) -> bool {
        let session = self.told.session().map(|of| &**of);
        self.numbers.was_had(session, publish, topic) && !self.is_copy(publish, topic)
    }

    /// A message goes on, and may come for another of the client's subscriptions.
    pub(crate) fn note_copy(&mut self, publish: &Publish<'_>, topic: &str) {
        if self.told.subscriptions.copies(topic) > 1 {
            let mark = self.mark(publish, topic);
            self.copies.note(mark);
        }
    }

    /// A message that is opened whatever comes before it, and the stream that it is of.
    fn to_open<'a>(
        &self,
        rules: &'a Rules,
        incoming: &'a Incoming,
    ) -> Option<(&'a Name, Closed<'a>)> {
        let Incoming::Packet(packet) = incoming else {
            return None;
        };
        packet.head.check(self.flow.version, Side::Broker).ok()?;
        if packet.head.kind() != PUBLISH {
            return None;
        }
        let publish = Publish::parse(self.flow.version, packet.head.first, packet.body());
        // What it is, or whether it came before, is said by others.
        let publish = publish
            .ok()
            .filter(|of| !of.comes_again() && !of.topic.is_empty())?;
        let Act::Open(stream, fields, _) = rules.down(publish.topic) else {
            return None;
        };
        let may_come_again = self.told.subscriptions.copies(publish.topic) > 1;
        let is_known =
            self.is_there(&publish, publish.topic) || self.was_had(&publish, publish.topic);
        if publish.payload.is_empty() || may_come_again || is_known {
            return None;
        }
        let message = Closed {
            fields,
            topic: publish.topic.parse().ok()?,
            payload: publish.payload,
            arrival: match publish.is_retained() {
                true => Arrival::Kept,
                false => Arrival::Live,
            },
        };
        Some((stream, message))
    }
}

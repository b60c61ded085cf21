//! Messages by themselves: one task seals what waits, and has it leave together.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use sealcast_protocol::Position;
use tokio::sync::oneshot;

use super::{Batch, Done, Left, SealedMessage, Sealer};
use crate::core::Core;
use crate::error::Error;
use crate::outbox::Errand;
use crate::singles::{Fate, Message, Serving, Single, Way};

/// How long messages wait for others while something is on its way to the bus.
const MOMENT: Duration = Duration::from_millis(2);

impl Sealer {
    /// Lets messages be sealed with those that others bring at the same time, and waits for what becomes of them.
    pub(super) async fn serve<T>(
        &self,
        messages: Vec<Arc<Message>>,
        way: fn(oneshot::Sender<Fate<T>>) -> Way,
    ) -> Result<T, Error> {
        let (tell, fate) = oneshot::channel();
        if let Some(serving) = self.singles.put(messages, way(tell)) {
            tokio::spawn(self.clone().serve_all(serving));
        }
        let ended = Error::Internal("a task ended early");
        fate.await.unwrap_or(Err(ended))
    }

    /// Seals what waits, until nothing does. While something is on its way to the bus, it waits a moment for more.
    async fn serve_all(self, mut serving: Serving) {
        loop {
            if serving.is_awaited() {
                tokio::select! {
                    () = serving.many() => {}
                    () = self.outbox.idle() => {}
                    () = tokio::time::sleep(MOMENT) => {}
                }
            }
            let _turn = self.turn.lock().await;
            let taken = serving.take();
            if taken.is_empty() {
                return;
            }
            self.seal_singles(taken, &serving).await;
        }
    }

    /// Seals messages at once. Where that fails, each is tried by itself, unless the bus is away: then it is for
    /// all of them, and for whoever has come meanwhile.
    async fn seal_singles(&self, all: Vec<Single>, serving: &Serving) {
        let mut left = VecDeque::from([all]);
        while let Some(singles) = left.pop_front() {
            let error = match self.try_singles(&singles).await {
                Ok(sealed) => {
                    self.see_off(singles, sealed);
                    continue;
                }
                Err(error) => error,
            };
            if error.is_bus_away() {
                let all = singles.into_iter().chain(left.drain(..).flatten());
                for single in all.chain(serving.take_all()) {
                    if let Some(away) = error.of_bus_away() {
                        single.way.refuse(away);
                    }
                }
                return;
            }
            let mut singles = singles.into_iter();
            match (singles.next(), singles.len()) {
                (Some(single), 0) => single.way.refuse(error),
                (first, _) => {
                    left.extend(first.into_iter().chain(singles).map(|of| Vec::from([of])))
                }
            }
        }
    }

    async fn try_singles(&self, singles: &[Single]) -> Result<Done, Error> {
        if singles.iter().any(|of| !of.way.is_carrier()) {
            self.make_room().await?;
        }
        let messages = singles.iter().flat_map(|of| of.messages.iter().cloned());
        self.seal_whole(&Arc::new(Batch::Singles(messages.collect())))
            .await
    }

    /// Has sealed messages go where they are to. Whoever does not listen any more is ended: what it was to carry is
    /// lost, what goes to the bus is not.
    fn see_off(&self, singles: Vec<Single>, sealed: Done) {
        let mut items = sealed.envelopes.into_iter();
        let (mut for_bus, mut waiting) = (Vec::new(), Vec::new());
        let mut is_carried = false;
        for Single { messages, way } in singles {
            let own = items.by_ref().take(messages.len());
            match way {
                Way::Bus(tell) => {
                    for_bus.extend(own);
                    waiting.push(tell);
                }
                Way::Carrier(tell) => {
                    let own = messages.iter().zip(own);
                    let own = own
                        .map(|(message, item)| SealedMessage::of(message, item, sealed.position));
                    is_carried |= tell.send(Ok(own.collect())).is_ok();
                }
            }
        }
        if is_carried {
            self.share_soon();
        }
        if !waiting.is_empty() {
            let errand = self.outbox.put(for_bus.into_iter());
            tokio::spawn(leave_each(
                self.core.clone(),
                (errand, sealed.position),
                waiting,
            ));
        }
    }
}

/// Has messages leave, an envelope each, and tells each one's writer what became of it.
async fn leave_each(
    core: Arc<Core>,
    (errand, position): (Errand, Position),
    waiting: Vec<oneshot::Sender<Fate<Left>>>,
) {
    // Whoever waits learns that this ended early, and the envelopes leave with what comes next.
    let Ok(data) = core.data_topic() else { return };
    let sent = errand.send_each(&core.bus, &data).await;
    let _is_shared = core.share_owed().await.is_ok();
    let left = Left {
        position,
        envelopes: 1,
        session: None,
    };
    for (tell, sent) in waiting.into_iter().zip(sent) {
        // Whoever published it may have stopped waiting.
        let _is_heard = tell.send(sent.map(|()| left).map_err(Error::from)).is_ok();
    }
}

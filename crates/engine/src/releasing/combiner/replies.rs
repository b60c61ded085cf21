//! What nodes say.

use alloc::vec::Vec;

use sealcast_crypto::NodeIndex;
use sealcast_protocol::{
    KeyNode, NodeAnswer, NodeRefusal, NodeReplyTo, Position, Signable, Unverified, Verified,
};

use super::super::flight::Said;
use super::{Combiner, CombinerEvent, CombinerOutput, LIE};
use crate::view::{Released, StreamView};

impl Combiner {
    pub(super) fn take_inbox_item(&mut self, now: Position, view: &StreamView, bytes: &[u8]) {
        if self.flights.is_empty() {
            return;
        }
        if let Ok(answer) = Unverified::<NodeAnswer>::decode(bytes) {
            self.take_answer(now, view, answer);
        } else if let Ok(refusal) = Unverified::<NodeRefusal>::decode(bytes) {
            self.take_refusal(view, refusal);
        }
    }

    /// The flight that a reply is to, if it is by a node that was asked there and has not spoken; its
    /// signature is checked.
    fn believed<T: Signable>(
        &self,
        view: &StreamView,
        to: &NodeReplyTo,
        item: Unverified<T>,
    ) -> Option<(u64, Verified<T>)> {
        let (id, flight) = self
            .flights
            .iter()
            .find(|(_, of)| of.rounds.contains_key(&to.request))?;
        let asked = flight.rounds.get(&to.request)?.asked.as_ref()?;
        let index = NodeIndex::new(to.index)?;
        let is_its = flight.deal.1.index_of(&to.node) == Some(index);
        let is_silent = flight.said.get(&index) == Some(&Said::Nothing);
        let (user, device) = (&to.node.user, &to.node.device);
        if !to.answers(asked) || !is_its || !is_silent || view.is_card_revoked(user, device) {
            return None;
        }
        let key = view.sign_key(user, device)?;
        Some((*id, item.verify(&key).ok()?))
    }

    fn take_answer(&mut self, now: Position, view: &StreamView, answer: Unverified<NodeAnswer>) {
        let to = answer.claims().to;
        let Some((id, answer)) = self.believed(view, &to, answer) else {
            return;
        };
        let (Some(flight), Some(index)) = (self.flights.get_mut(&id), NodeIndex::new(to.index))
        else {
            return;
        };
        let round = flight.rounds.get(&to.request);
        let opened = round.and_then(|round| {
            let asked = round.asked.as_ref()?;
            answer.body().open(asked, &round.key).ok()
        });
        let is_good = match &opened {
            Some(opened) => flight.take(index, opened.expose()),
            None => flight.take(index, &[]),
        };
        match is_good {
            true => {
                self.failures.remove(&to.node);
                self.open(now, id);
            }
            false => self.name_liar(to.node),
        }
    }

    fn name_liar(&mut self, node: KeyNode) {
        self.note_failure(node, LIE);
        self.tell(CombinerEvent::Liar(node));
    }

    fn take_refusal(&mut self, view: &StreamView, refusal: Unverified<NodeRefusal>) {
        let to = refusal.claims().to;
        let Some((id, refusal)) = self.believed(view, &to, refusal) else {
            return;
        };
        let (reason, wait_ms) = (refusal.body().reason, refusal.body().wait_ms);
        let index = NodeIndex::new(to.index);
        if let Some((flight, index)) = self.flights.get_mut(&id).zip(index) {
            flight.refuse(self.steady.clock(), index, reason, wait_ms);
        }
        self.tell(CombinerEvent::Refused(to.node, reason));
    }

    /// Opens the records if enough nodes have answered.
    fn open(&mut self, now: Position, id: u64) {
        let Some(flight) = self.flights.get_mut(&id) else {
            return;
        };
        let Some((keys, liars)) = flight.open() else {
            return;
        };
        // Each is given as soon as it opens: another one that is false does not hold it up.
        let segments = flight.segments.iter().copied();
        let opened = segments.zip(keys).filter_map(|(of, key)| Some((of, key?)));
        let keys: Vec<_> = opened.filter(|(of, _)| flight.opened.insert(*of)).collect();
        let (dealer, session, segments) = (flight.deal.1.dealer, flight.session, keys.len());
        let is_over = flight.is_whole() || flight.next_nodes().is_empty();
        if segments > 0 {
            self.outputs.push_back(CombinerOutput::Take(Released {
                dealer,
                session,
                keys,
            }));
            self.tell(CombinerEvent::Released { session, segments });
        }
        if is_over {
            self.end(now, id);
        }
        for liar in liars {
            self.name_liar(liar);
        }
    }
}

//! What a reader leaves for later, and takes up again, `spec/reading.md`, section "Parking".

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use sealcast_protocol::{DataItem, EnvelopeHash, UserId};

use super::{Event, Order, Reader, Refusal, accept, tell_gone};
use crate::candidates::Outcome;
use crate::parking::{Cause, Parked, Unopened};
use crate::view::StreamView;

/// What became of a parked envelope that was judged once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reopened {
    /// It waits no more.
    Done,
    /// No key that is here opens it.
    NoKey,
    /// Its sender, its session or the right to it is not known.
    NotYet,
}

impl Reader {
    /// Hands out from now on, with what it says of them, the envelopes that may open later, to be
    /// [settled](Self::settle) before its events are taken. `waiting` are those that wait already.
    pub fn park(&mut self, waiting: BTreeMap<EnvelopeHash, u64>) {
        self.parks = true;
        self.parked = waiting;
    }

    /// Whether there are envelopes to settle.
    pub fn has_unopened(&self) -> bool {
        self.events.has_unopened()
    }

    /// The envelopes that did not open and may later, in order.
    pub fn unopened(&self) -> impl Iterator<Item = &Unopened> {
        self.events.unopened()
    }

    /// Says what became of each of the [`unopened`](Self::unopened), in their order.
    pub fn settle(&mut self, parked: impl IntoIterator<Item = Parked>) {
        self.events.settle(parked);
    }

    /// Tells what a [`Parking`](crate::Parking) has to tell.
    pub fn tell(&mut self, events: impl IntoIterator<Item = Event>) {
        events.into_iter().for_each(|event| self.events.push(event));
    }

    /// Judges a parked envelope once more, all but its order, which was judged when it came. Where
    /// it still waits, nothing is told.
    pub fn reopen(&mut self, view: &StreamView, number: u64, bytes: &[u8]) -> Reopened {
        let Ok(envelope) = DataItem::parse(bytes) else {
            return Reopened::NotYet;
        };
        let reopened = self.judge_again(view, envelope);
        if reopened == Reopened::Done {
            self.events.push_done(number);
        }
        reopened
    }

    fn judge_again(&mut self, view: &StreamView, envelope: DataItem<'_>) -> Reopened {
        let (stream, header) = (view.stream(), *envelope.header());
        let topic = envelope.topic();
        let reject = |user, refusal| Event::Rejected {
            header: Some(header),
            user,
            refusal,
            givers: Vec::new(),
            parked: Parked::Waited,
        };
        let accepted = match accept(view, &stream, envelope, &self.allowed, &mut self.verifier) {
            Ok(accepted) => accepted,
            Err((_, Refusal::UnknownSender | Refusal::UnknownSession | Refusal::NotEntitled)) => {
                return Reopened::NotYet;
            }
            Err((user, refusal)) => {
                self.events.push(reject(user, refusal));
                return Reopened::Done;
            }
        };
        let user = accepted.user;
        match self.keys.open(view, &accepted.envelope) {
            Outcome::NoKey => return Reopened::NoKey,
            Outcome::NotAuthentic(givers) if !givers.is_empty() => return Reopened::NoKey,
            Outcome::NotAuthentic(_) => {
                self.events.push(reject(Some(user), Refusal::NotAuthentic));
            }
            Outcome::Opened(plaintext, liars) => {
                self.tell_liars(header.session, liars);
                self.deliver((header, topic), user, plaintext, Parked::Waited);
            }
        }
        Reopened::Done
    }

    /// What an envelope that is refused may wait for, if anything.
    pub(super) fn waits_for(
        &self,
        view: &StreamView,
        user: &UserId,
        refusal: Refusal,
    ) -> Option<Cause> {
        match refusal {
            Refusal::UnknownSession if self.parks => Some(Cause::Session),
            Refusal::NotEntitled if self.parks && view.is_announcer(user) => Some(Cause::Right),
            Refusal::UnknownSession
            | Refusal::NotEntitled
            | Refusal::Malformed
            | Refusal::UnknownSender
            | Refusal::BadSignature
            | Refusal::WrongSession
            | Refusal::AfterRevocation
            | Refusal::NotAuthentic => None,
        }
    }

    /// The hash of an envelope that its sender signed, whatever else holds it up.
    pub(super) fn signed(
        &mut self,
        view: &StreamView,
        user: &UserId,
        envelope: &DataItem<'_>,
    ) -> Option<EnvelopeHash> {
        let (stream, device) = (view.stream(), envelope.header().device);
        let bound = envelope.bind(&stream);
        let hash = bound.hash();
        let key = view.sign_key(user, &device)?;
        let verified = bound.verify_by(&mut self.verifier, &key);
        verified.is_ok().then_some(hash)
    }

    /// Hands out an envelope whose session or whose sender's right is not known, where its signature
    /// holds. Its order counts from now on: it is here, and no gap.
    pub(super) fn refuse_for_now(
        &mut self,
        view: &StreamView,
        user: UserId,
        envelope: &DataItem<'_>,
        (cause, refusal): (Cause, Refusal),
        bytes: &[u8],
    ) {
        let header = *envelope.header();
        let Some(hash) = self.signed(view, &user, envelope) else {
            return self.reject(Some(header), Some(user), refusal, Vec::new());
        };
        let floor = self.tracker(&header.device).floor();
        let at = match cause {
            // Nothing of a session that is not known was ever delivered, however old it says it is.
            Cause::Session => header.position.max(floor),
            Cause::Grant | Cause::Key | Cause::OtherKey | Cause::Right => header.position,
        };
        let gone = match self.note(user, &header, hash, at) {
            Order::Fresh(gone) => {
                self.leave(Unopened {
                    header,
                    user,
                    hash,
                    cause,
                    givers: Vec::new(),
                    bytes: bytes.to_vec(),
                });
                gone
            }
            Order::Old(gone) => gone,
        };
        tell_gone(&mut self.events, view, gone);
    }
}

//! What a carrier brings, one envelope at a time, `spec/reading.md`, section "Carried".

use alloc::vec::Vec;

use sealcast_protocol::{DataItem, DataTopic, UserId};

use super::{Accepted, Event, Reader, Refusal, accept, lacking};
use crate::candidates::Outcome;
use crate::parking::{Cause, Parked, Unopened};
use crate::sightings::{Sighted, Sighting, Sightings};
use crate::track::Notice;
use crate::view::StreamView;

/// How an envelope came that a carrier brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It was published, and comes once.
    Live,
    /// The carrier keeps it and hands it out whenever somebody asks, as an MQTT broker does with what is
    /// retained: it may be old, and come again.
    Kept,
    /// It came live, was judged, and has waited since with whoever brings it now: it comes once, whatever its age.
    Waited,
}

/// What came of an envelope that a carrier brought; what is told of it are the reader's events.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Carried {
    /// What is to be noted once its events were handed out. Until then the same envelope may come again.
    pub sighting: Option<Sighting>,
    /// Whether the same bytes may fare better later.
    pub prospect: Prospect,
}

/// Whether an envelope that did not open may open later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prospect {
    /// It opened, or it never will.
    Settled,
    /// Only if the bus has something by now that the view does not know. Anybody may have written it.
    Unread,
    /// When what it lacks comes. Its sender signed it.
    Waits,
}

impl Reader {
    /// Judges an envelope that a carrier brought, on the topic that it came on. What is told are events.
    ///
    /// Of what is not kept, `seen` says what came before. The reader's mode and trackers have no part in it,
    /// and what is missing is no gap: a carrier shows a part of a stream, in any order.
    pub fn judge_carried(
        &mut self,
        view: &StreamView,
        seen: &Sightings,
        (topic, bytes): (Option<&DataTopic>, &[u8]),
        arrival: Arrival,
    ) -> Carried {
        let Ok(envelope) = DataItem::of(topic, bytes) else {
            self.reject(None, None, Refusal::Malformed, Vec::new());
            return settled(None);
        };
        let stream = view.stream();
        let accepted = match accept(view, &stream, envelope, &self.allowed, &mut self.verifier) {
            Ok(accepted) => accepted,
            Err((user, refusal)) => {
                self.reject(Some(*envelope.header()), user, refusal, Vec::new());
                let prospect = self.prospect_of(view, user, &envelope, refusal);
                return Carried {
                    sighting: None,
                    prospect,
                };
            }
        };
        let (header, hash) = (*accepted.envelope.header(), accepted.envelope.hash());
        let sighting = Sighting::new(&header, hash, accepted.at);
        let sighted = match arrival {
            Arrival::Live => seen.judge(&sighting),
            Arrival::Kept => Sighted::New,
            Arrival::Waited => seen.judge_waited(&sighting),
        };
        let notice = match sighted {
            Sighted::New => None,
            Sighted::Again => Some(Notice::Replay),
            Sighted::Twin | Sighted::Apart => Some(Notice::Fork),
        };
        if let Some(notice) = notice {
            let user = accepted.user;
            self.events.push(Event::Noticed {
                header,
                user,
                notice,
            });
        }
        match sighted {
            Sighted::Again | Sighted::Twin => settled(None),
            Sighted::New | Sighted::Apart => {
                let sighting = Some(sighting).filter(|_| arrival != Arrival::Kept);
                self.open_carried(view, &accepted, sighting)
            }
        }
    }

    /// What is not opened is not noted, so that it opens when its key has come.
    fn open_carried(
        &mut self,
        view: &StreamView,
        accepted: &Accepted<'_>,
        sighting: Option<Sighting>,
    ) -> Carried {
        let (user, envelope) = (accepted.user, &accepted.envelope);
        let header = *envelope.header();
        let (cause, givers) = match self.keys.open(view, envelope) {
            Outcome::Opened(plaintext, liars) => {
                self.tell_liars(header.session, liars);
                let topic = accepted.topic.clone();
                self.deliver((header, topic), user, plaintext, Parked::No);
                return settled(sighting);
            }
            Outcome::NotAuthentic(givers) if givers.is_empty() => {
                self.reject(Some(header), Some(user), Refusal::NotAuthentic, givers);
                return settled(None);
            }
            // Another cover may fit.
            Outcome::NotAuthentic(givers) => (Cause::OtherKey, givers),
            Outcome::NoKey => (lacking(view, &user, header.position), Vec::new()),
        };
        let mut unopened = Unopened {
            header,
            user,
            hash: envelope.hash(),
            cause,
            givers,
            bytes: Vec::new(),
        };
        self.events.push(unopened.event(Parked::No));
        Carried {
            sighting: None,
            prospect: Prospect::Waits,
        }
    }

    fn prospect_of(
        &mut self,
        view: &StreamView,
        user: Option<UserId>,
        envelope: &DataItem<'_>,
        refusal: Refusal,
    ) -> Prospect {
        match (refusal, user) {
            // Its signature was looked at before.
            (Refusal::UnknownSession, _) => Prospect::Waits,
            (Refusal::NotEntitled, Some(user)) if view.is_announcer(&user) => {
                match self.signed(view, &user, envelope) {
                    Some(_) => Prospect::Waits,
                    None => Prospect::Settled,
                }
            }
            (Refusal::UnknownSender | Refusal::NotEntitled | Refusal::AfterRevocation, _) => {
                Prospect::Unread
            }
            (
                Refusal::Malformed
                | Refusal::BadSignature
                | Refusal::WrongSession
                | Refusal::NotAuthentic,
                _,
            ) => Prospect::Settled,
        }
    }
}

fn settled(sighting: Option<Sighting>) -> Carried {
    Carried {
        sighting,
        prospect: Prospect::Settled,
    }
}

//! Publisher and reader machines: state in, decisions out.
//!
//! Nothing here owns a socket, clock, disk or random source. A driver feeds a [`StreamView`] with
//! what the bus carries, seals with a [`Publisher`] inside one store transaction, and opens with a
//! [`Reader`]. Whatever must be durable comes out as a [`Put`], and the driver makes it durable
//! before it acts on anything that came out later.
#![no_std]
extern crate alloc;

mod asking;
mod author;
mod candidates;
mod dealing;
mod events;
mod export;
mod fallback;
mod identity;
mod lane;
mod lineage;
mod newcomer;
mod newest;
mod parking;
mod persist;
mod publish;
mod read;
mod releasing;
mod share;
mod sightings;
mod track;
mod view;

pub use asking::{
    AskBody, Asker, AskerEvent, AskerInput, AskerLimits, AskerOutput, Decision, End, LEASE_MS,
    OneUse, Outcome, Pace, Question, Responder, ResponderInput, ResponderLimits, ResponderOutput,
};
pub use author::{AuthorError, author, genesis};
pub use dealing::{Covered, Dealt, DealtLane, segments_around};
pub use events::{Events, OpenedRecord};
pub use export::{exported, has_other_keyholder};
pub use fallback::Fallbacks;
pub use identity::Identity;
pub use lane::{CLOCK_BEHIND_MS_MAX, ClockBehind, Lane};
pub use lineage::{Allowed, Lineage, Tips};
pub use newcomer::{Newcomer, consented_card};
pub use parking::{Cause, Change, Missing, Parked, Parking, ParkingLimits, Unopened};
pub use persist::{Put, Space, persisted};
pub use publish::{CoveredPast, NewSession, NotSealed, Publisher, Sealed};
pub use read::{Arrival, Carried, Event, Mode, Prospect, Reader, Refusal, Reopened};
pub use releasing::{
    Combiner, CombinerEvent, CombinerInput, CombinerLimits, CombinerOutput, Releaser,
    ReleaserInput, ReleaserLimits, ReleaserOutput, Unreleased, answer_request,
};
pub use share::{Handout, HandoutKey, SharedWith, is_delivered, plan_handouts, wrap_handout};
pub use sightings::{Sighting, Sightings};
pub use track::{Notice, Tracker};
pub use view::{
    Alarm, Answer, ControlTopic, FalseRecords, KnownDeal, KnownUser, Output, ReadBy, Released,
    StreamView, imported,
};

//! A join storm: very many devices ask at once for the keys of a year, and few answer.
//!
//! ```text
//!   a year of messages ──► readers are let in ──► all ask within a second ──► all have the year
//!     one lane,               ten devices            a few answer, on a bus      who sent and
//!     twelve sessions         a user                 that loses and repeats      heard how much?
//! ```
//!
//! Time is virtual, and nobody is busy: how long something takes follows from the delays of the bus
//! and from what the machines wait for.

use std::ops::Range;

use crate::violation::Violation;

mod bus;
mod member;
mod past;
mod traffic;

use bus::{Bus, Happening, Side};
use member::{Around, Member};
pub use traffic::{Amount, Kind, Traffic};

/// All ask within this time.
const WITHIN_MS: u64 = 1_000;
/// Time for those who will hand on to get the keys themselves.
const BEFORE_MS: u64 = 120_000;
/// How long a storm may last.
const LASTS_MS: u64 = 600_000;

/// How much more than its share a storm may come to before it is more than linear: what is lost and
/// what comes twice is never the same.
const SLACK_PERCENT: u64 = 5;

/// Which storm.
#[derive(Clone, Copy, Debug)]
pub struct Storm {
    /// What everything random follows from.
    pub seed: u64,
    /// How many devices ask.
    pub devices: usize,
}

/// What a storm came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StormReport {
    /// Devices that asked, and that opened all of the year.
    pub askers: usize,
    /// Devices that answered if they could.
    pub responders: usize,
    /// What the former sent and heard.
    pub asking: Traffic,
    /// What the latter sent and heard.
    pub answering: Traffic,
    /// Signatures of requests that were checked, by all who answer.
    pub checked: u64,
    /// The most bundles that one asker got.
    pub bundles_max: u64,
    /// Requests that waited for their check, and that were open, at one responder at most.
    pub queue_max: (usize, usize),
    /// How long each asker waited, in milliseconds, ascending.
    pub waits_ms: Vec<u64>,
}

/// A line of the report: what it says, and how to find it.
pub type StormAmount = (&'static str, fn(&StormReport) -> Amount);

impl StormReport {
    /// What was sent and heard, each kind and all together.
    pub const AMOUNTS: [StormAmount; 9] = [
        ("requests", |of| of.asking.sent(Kind::Request)),
        ("receipts", |of| of.asking.sent(Kind::Receipt)),
        ("askers sent", |of| of.asking.sent_in_all()),
        ("askers heard", |of| of.asking.heard),
        ("claims", |of| of.answering.sent(Kind::Claim)),
        ("refusals", |of| of.answering.sent(Kind::Refusal)),
        ("bundles", |of| of.answering.sent(Kind::Bundle)),
        ("responders sent", |of| of.answering.sent_in_all()),
        ("responders heard", |of| of.answering.heard),
    ];

    /// What grew faster than the devices that asked, in comparison with a smaller storm.
    pub fn outgrows(&self, smaller: &Self) -> Option<&'static str> {
        let (devices, fewer) = (self.askers as u64, smaller.askers as u64);
        let outgrows = |more: u64, less: u64| {
            let linear = less * devices / fewer.max(1);
            more > linear + linear * SLACK_PERCENT / 100
        };
        let outgrown = Self::AMOUNTS.into_iter().find(|(_, of)| {
            let (more, less) = (of(self), of(smaller));
            outgrows(more.items, less.items) || outgrows(more.bytes, less.bytes)
        });
        outgrown.map(|(name, _)| name)
    }

    /// How long it took until all but so many of a thousand had the year.
    pub fn wait_ms(&self, but_per_mille: usize) -> u64 {
        let late = self.waits_ms.len() * but_per_mille / 1_000;
        let at = self.waits_ms.len().saturating_sub(1 + late);
        self.waits_ms.get(at).copied().unwrap_or_default()
    }
}

/// Lets a storm come and go.
///
/// # Errors
///
/// Fails where a device does not open all of the year, or is refused what is its due.
pub fn storm(storm: &Storm) -> Result<StormReport, Violation> {
    let (past, cast) = past::set_up(storm.seed, storm.devices)?;
    let bus = Bus::new(storm.seed, past.now);
    let mut field = Field {
        members: Vec::new(),
        around: Around { past, bus },
        queue_max: (0, 0),
    };
    for known in cast.keyholders.into_iter().chain(cast.co_readers) {
        field.admit(Side::Answers, known);
    }
    // Those who hand on got the keys before, in the same way.
    for at in 0..field.members.len() {
        field.begin(at, BEFORE_MS / 2);
    }
    field.run(BEFORE_MS)?;
    let responders = field.members.len();
    field.judge(0..responders)?;
    field.around.bus.count_anew();
    for known in cast.askers {
        field.admit(Side::Asks, known);
    }
    for at in responders..field.members.len() {
        field.begin(at, WITHIN_MS);
    }
    field.run(LASTS_MS)?;
    field.judge(responders..field.members.len())?;
    Ok(field.report(responders))
}

/// Everybody, and what is between them.
struct Field {
    members: Vec<Member>,
    around: Around,
    queue_max: (usize, usize),
}

impl Field {
    fn admit(&mut self, side: Side, known: past::Known) {
        let at = self.members.len();
        let member = Member::new(at, side, known);
        self.around.bus.owners.insert(member.device(), at);
        if side == Side::Answers {
            self.around.bus.listeners.push(at);
        }
        self.members.push(member);
    }

    /// Lets a member look for messages at some time within so many milliseconds.
    fn begin(&mut self, at: usize, within_ms: u64) {
        let bus = &mut self.around.bus;
        let when = bus.within(within_ms);
        bus.plan(when, at, Happening::Begin);
    }

    /// Lets happen what happens in so many milliseconds.
    fn run(&mut self, ms: u64) -> Result<(), Violation> {
        let end = self.around.bus.now.after(ms);
        while let Some((at, what)) = self.around.bus.next(end) {
            let Some(member) = self.members.get_mut(at) else {
                continue;
            };
            member.meet(&mut self.around, what)?;
            let (unchecked, open) = member.queue();
            let (unchecked_max, open_max) = self.queue_max;
            self.queue_max = (unchecked.max(unchecked_max), open.max(open_max));
        }
        self.around.bus.now = end;
        Ok(())
    }

    /// All have all of the year.
    fn judge(&self, who: Range<usize>) -> Result<(), Violation> {
        for (device, member) in who.clone().zip(self.members.get(who).unwrap_or_default()) {
            if member.waited_ms().is_none() {
                let why = "of the year, which it asked for".into();
                return Err(Violation::StaysSealed {
                    device,
                    message: 0,
                    why,
                });
            }
        }
        Ok(())
    }

    fn report(self, responders: usize) -> StormReport {
        let askers = self.members.get(responders..).unwrap_or_default();
        let mut waits: Vec<_> = askers.iter().filter_map(Member::waited_ms).collect();
        waits.sort_unstable();
        let bus = self.around.bus;
        let bundles = askers.iter().map(|of| bus.bundles_of(&of.device()));
        StormReport {
            askers: askers.len(),
            responders,
            bundles_max: bundles.max().unwrap_or_default(),
            checked: self.members.iter().map(Member::checked).sum(),
            queue_max: self.queue_max,
            waits_ms: waits,
            asking: bus.askers,
            answering: bus.responders,
        }
    }
}

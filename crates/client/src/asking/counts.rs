//! What asking for keys came to.

use std::collections::BTreeMap;
use std::ops::Add;
use std::sync::Mutex;

use sealcast_engine::{AskerEvent, CombinerEvent, End, Unreleased};
use sealcast_protocol::StreamId;

use super::AskingEvent;
use crate::core::lock;
use crate::key_nodes::RefusalCounts;

/// What asking for keys came to, since the home was opened in this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AskingCounts {
    /// Of key nodes, which come first where a stream has them.
    pub nodes: NodesAsked,
    /// Of all other devices.
    pub others: OthersAsked,
}

/// What asking key nodes came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodesAsked {
    /// Requests, each to some of the nodes.
    pub requests: u64,
    /// Segments that were released.
    pub segments: u64,
    /// Refusals, by the reason.
    pub refused: RefusalCounts,
    /// Nodes that said nothing in time.
    pub silent: u64,
    /// What nodes said and is false.
    pub lies: u64,
    /// How often too few nodes released.
    pub too_few: u64,
    /// How often enough nodes did, and what the publisher published is false.
    pub false_records: u64,
}

/// What asking others came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OthersAsked {
    /// Requests.
    pub requests: u64,
    /// Of these, those of which keys came that work.
    pub opened: u64,
    /// Those that were refused.
    pub refused: u64,
    /// Those of which no key came in time.
    pub timed_out: u64,
    /// Answers that do not open, or are false.
    pub lies: u64,
}

/// Who was asked.
const NODES: &str = "key-nodes";
const OTHERS: &str = "others";

impl AskingCounts {
    /// How many requests there were, by who was asked.
    pub fn requests(&self) -> [(&'static str, u64); 2] {
        [(NODES, self.nodes.requests), (OTHERS, self.others.requests)]
    }

    /// What came that was no key, by who was asked and why.
    pub fn failures(&self) -> Vec<(&'static str, &'static str, u64)> {
        let Self { nodes, others } = self;
        let refused = nodes.refused.by_reason().into_iter();
        let refused = refused.map(|(reason, count)| (NODES, reason.name(), count));
        let rest = [
            (NODES, "silent", nodes.silent),
            (NODES, "false", nodes.lies),
            (NODES, "too-few", nodes.too_few),
            (NODES, "false-record", nodes.false_records),
            (OTHERS, "refused", others.refused),
            (OTHERS, "timed-out", others.timed_out),
            (OTHERS, "false", others.lies),
        ];
        refused.chain(rest).collect()
    }

    fn note(&mut self, event: &AskingEvent) {
        match event {
            AskingEvent::Nodes(event) => self.nodes.note(event),
            AskingEvent::Asker(event) => self.others.note(event),
            AskingEvent::Left(_) => (),
        }
    }
}

impl NodesAsked {
    fn note(&mut self, event: &CombinerEvent) {
        match event {
            CombinerEvent::Asked { .. } => self.requests += 1,
            CombinerEvent::Released { segments, .. } => self.segments += *segments as u64,
            CombinerEvent::Refused(_, reason) => self.refused.note(*reason),
            CombinerEvent::Silent(_) => self.silent += 1,
            CombinerEvent::Liar(_) => self.lies += 1,
            CombinerEvent::Failed { why, .. } => match why {
                Unreleased::TooFew { .. } => self.too_few += 1,
                Unreleased::FalseRecord => self.false_records += 1,
            },
            CombinerEvent::Awaited(_) | _ => (),
        }
    }
}

impl OthersAsked {
    fn note(&mut self, event: &AskerEvent) {
        match event {
            AskerEvent::Asked { .. } => self.requests += 1,
            AskerEvent::BadAnswer { .. } => self.lies += 1,
            AskerEvent::Ended { end, .. } => match end {
                End::Opened | End::Partly => self.opened += 1,
                End::TimedOut => self.timed_out += 1,
                End::Refused(_) => self.refused += 1,
            },
            AskerEvent::Settled { .. } | _ => (),
        }
    }
}

impl Add for AskingCounts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let (nodes, others) = (self.nodes, self.others);
        let (more, more_others) = (other.nodes, other.others);
        Self {
            nodes: NodesAsked {
                requests: nodes.requests + more.requests,
                segments: nodes.segments + more.segments,
                refused: nodes.refused + more.refused,
                silent: nodes.silent + more.silent,
                lies: nodes.lies + more.lies,
                too_few: nodes.too_few + more.too_few,
                false_records: nodes.false_records + more.false_records,
            },
            others: OthersAsked {
                requests: others.requests + more_others.requests,
                opened: others.opened + more_others.opened,
                refused: others.refused + more_others.refused,
                timed_out: others.timed_out + more_others.timed_out,
                lies: others.lies + more_others.lies,
            },
        }
    }
}

/// What asking came to in each stream of a home.
#[derive(Debug, Default)]
pub(crate) struct Counted(Mutex<BTreeMap<StreamId, AskingCounts>>);

impl Counted {
    pub(super) fn note(&self, stream: StreamId, event: &AskingEvent) {
        lock(&self.0).entry(stream).or_default().note(event);
    }

    pub(crate) fn of(&self, stream: &StreamId) -> AskingCounts {
        lock(&self.0).get(stream).copied().unwrap_or_default()
    }

    pub(crate) fn all(&self) -> AskingCounts {
        let all = lock(&self.0);
        all.values()
            .fold(AskingCounts::default(), |sum, of| sum + *of)
    }
}

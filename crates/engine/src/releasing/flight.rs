//! Segments of one session that are being asked for, with the answers that have come.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use sealcast_crypto::{NodeIndex, NodeKey, Quorum, SEALED_SEGMENT_LEN, SegmentLabel, UnwrapKey};
use sealcast_protocol::{
    DealId, Interval, KeyNode, KeyNodes, NodeRefusalReason, NodeRequest, Position, RequestId,
    Segment, SessionId, StreamId, Verified, Want, merged,
};

use super::combiner::Unreleased;
use crate::view::KnownDeal;

/// One request to some of the nodes. Its key opens their answers, and no others.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) key: UnwrapKey,
    /// Once it is signed.
    pub(super) asked: Option<Verified<NodeRequest>>,
}

/// What a node has said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Nothing,
    Answer,
    Refusal(NodeRefusalReason),
    /// Something that is false.
    Lie,
}

#[derive(Debug)]
pub(super) struct Flight {
    pub(super) session: SessionId,
    pub(super) deal: (DealId, KnownDeal),
    pub(super) segments: Vec<Segment>,
    sealed: Vec<[u8; SEALED_SEGMENT_LEN]>,
    quorum: Quorum,
    /// The nodes that hold shares, those that are to be asked first at the front.
    nodes: Vec<(NodeIndex, KeyNode)>,
    pub(super) said: BTreeMap<NodeIndex, Said>,
    pub(super) rounds: BTreeMap<RequestId, Round>,
    /// What is waited for.
    pub(super) missing: BTreeSet<Want>,
    /// The segments whose records have opened.
    pub(super) opened: BTreeSet<Segment>,
    /// When nobody waits any more, and when more nodes are asked.
    pub(super) until: Position,
    pub(super) more_at: Position,
    pub(super) wait_ms: u32,
    /// How far a node's clock is behind that said that something of it has not ended.
    pub(super) lag_ms: u64,
    /// Whether the condition of those in force can end.
    pub(super) can_end: bool,
}

impl Flight {
    pub(super) fn new(
        (stream, session): (StreamId, SessionId),
        deal: (DealId, KnownDeal),
        set: &KeyNodes,
        records: Vec<(Segment, [u8; SEALED_SEGMENT_LEN])>,
        until: Position,
    ) -> Self {
        let (segments, sealed): (Vec<Segment>, Vec<_>) = records.into_iter().unzip();
        let lane = deal.1.dealer.lane;
        let label = |of: &Segment| of.label(&stream, &lane, &session);
        let labels: Vec<SegmentLabel> = segments.iter().filter_map(label).collect();
        Self {
            session,
            quorum: Quorum::new(deal.1.dealing.clone(), labels),
            nodes: deal.1.still_in(set).collect(),
            deal,
            segments,
            sealed,
            said: BTreeMap::new(),
            rounds: BTreeMap::new(),
            missing: BTreeSet::new(),
            opened: BTreeSet::new(),
            until,
            more_at: Position::START,
            wait_ms: 0,
            lag_ms: 0,
            can_end: set.condition.can_end(),
        }
    }

    /// Has those asked first that served best so far, beginning somewhere among equals.
    pub(super) fn order_by(&mut self, turn: u8, rank: impl Fn(&KeyNode) -> u32) {
        let start = usize::from(turn) % self.nodes.len().max(1);
        self.nodes.rotate_left(start);
        self.nodes.sort_by_key(|(_, node)| rank(node));
    }

    /// How many more answers are needed than have come.
    fn lacking(&self) -> usize {
        let answers = self.said.values().filter(|said| **said == Said::Answer);
        let needed = self.deal.1.dealing.threshold();
        needed.saturating_sub(answers.count())
    }

    /// The nodes to ask next: as many as lack, and one where enough have answered in vain.
    pub(super) fn next_nodes(&self) -> Vec<(NodeIndex, KeyNode)> {
        let unasked = self.nodes.iter();
        let unasked = unasked.filter(|(index, _)| !self.said.contains_key(index));
        unasked.take(self.lacking().max(1)).copied().collect()
    }

    /// Whether nobody is left to ask and nobody to wait for.
    pub(super) fn is_exhausted(&self) -> bool {
        let is_waiting = self.said.values().any(|said| *said == Said::Nothing);
        !is_waiting && self.next_nodes().is_empty()
    }

    /// Whether more nodes are to be asked at once: those who were asked and may still answer do not
    /// suffice.
    pub(super) fn needs_more(&self) -> bool {
        let pending = self.said.values().filter(|said| **said == Said::Nothing);
        pending.count() < self.lacking().max(1) && !self.next_nodes().is_empty()
    }

    /// Takes what a node released; false where it is a lie.
    pub(super) fn take(&mut self, node: NodeIndex, answer: &[u8]) -> bool {
        let is_good = self.quorum.take(node, answer).is_ok();
        let said = match is_good {
            true => Said::Answer,
            false => Said::Lie,
        };
        self.said.insert(node, said);
        is_good
    }

    /// Opens the records, if enough nodes have answered. Names who sent what was false.
    pub(super) fn open(&mut self) -> Option<(Vec<Option<NodeKey>>, Vec<KeyNode>)> {
        let opened = self.quorum.open(&self.sealed).ok()?;
        let mut liars = Vec::new();
        for liar in opened.liars {
            if self.said.insert(liar, Said::Lie) != Some(Said::Lie) {
                liars.extend(self.node(liar));
            }
        }
        Some((opened.keys, liars))
    }

    fn node(&self, index: NodeIndex) -> Option<KeyNode> {
        let found = self.nodes.iter().find(|(of, _)| *of == index);
        found.map(|(_, node)| *node)
    }

    /// Whether some of its segments reach an interval.
    pub(super) fn reaches(&self, interval: &Interval) -> bool {
        let mut of = self.segments.iter();
        of.any(|segment| segment.interval().intersect(interval).is_some())
    }

    /// Whether all records have opened.
    pub(super) fn is_whole(&self) -> bool {
        self.opened.len() == self.segments.len()
    }

    /// What is waited for: what does not lie in what was opened, and what does.
    pub(super) fn split_missing(&self) -> (Vec<Want>, Vec<Want>) {
        let opened = merged(self.opened.iter().map(|of| of.interval()).collect());
        let is_left = |of: &Want| !opened.iter().any(|open| open.covers(&of.interval));
        self.missing.iter().copied().partition(is_left)
    }

    /// Takes a node's refusal, which came when the clock said this.
    pub(super) fn refuse(
        &mut self,
        clock: Position,
        node: NodeIndex,
        reason: NodeRefusalReason,
        wait_ms: u32,
    ) {
        self.said.insert(node, Said::Refusal(reason));
        self.wait_ms = self.wait_ms.max(wait_ms);
        let end = self.segments.iter().map(|of| of.interval().until.0).max();
        if let Some(end) = end.filter(|_| reason == NodeRefusalReason::NotEnded) {
            let of_node = end.saturating_sub(u64::from(wait_ms));
            self.lag_ms = self.lag_ms.max(clock.0.saturating_sub(of_node));
        }
    }

    /// Whether a node said that something of it has not ended.
    pub(super) fn is_unended(&self) -> bool {
        let unended = Said::Refusal(NodeRefusalReason::NotEnded);
        self.said.values().any(|said| *said == unended)
    }

    /// Whether some node may say something else later, with rights and condition as they are: it said nothing, had
    /// not read the log, or was asked for too much.
    pub(super) fn may_pass(&self) -> bool {
        let mut said = self.said.values();
        said.any(|said| match said {
            Said::Nothing => true,
            Said::Refusal(reason) => matches!(
                reason,
                NodeRefusalReason::Throttled | NodeRefusalReason::LogBehind
            ),
            Said::Answer | Said::Lie => false,
        })
    }

    /// Why nothing came of it.
    pub(super) fn reason(&self) -> Unreleased {
        let refused = self.said.values().filter_map(|said| match said {
            Said::Refusal(reason) => Some(*reason),
            Said::Nothing | Said::Answer | Said::Lie => None,
        });
        let answered = self.said.values().filter(|said| **said == Said::Answer);
        match self.lacking() {
            0 => Unreleased::FalseRecord,
            _ => Unreleased::TooFew {
                answered: answered.count(),
                needed: self.deal.1.dealing.threshold(),
                refused: refused.collect(),
            },
        }
    }
}

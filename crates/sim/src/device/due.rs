//! What a key node releases and refuses, compared with what is due by all that the bus shows it.

use sealcast_engine::ControlTopic;
use sealcast_protocol::{
    AuditEntry, AuditEvent, KeyNodes, NodeRefusalReason, NodeRequest, Unverified, UserId,
};

use super::{Acting, Nature};
use crate::approvals::{Reading, holds};
use crate::around::Stop;
use crate::ground::Entries;
use crate::released::may_read_all;
use crate::violation::Violation;

/// What the bus shows a node of the access log, or showed it.
#[derive(Debug)]
struct Shown {
    all: Entries,
    /// Those of which it shows the whole past.
    linked: Entries,
}

impl Acting<'_> {
    pub(super) fn wrongly(&self, what: &'static str) -> Stop {
        let node = self.device.at;
        Violation::Released { node, what }.into()
    }

    /// What a node releases is due to whoever asks by all that the bus shows the node, now, and by the
    /// node's own clock; and the node has noted it for good.
    pub(super) fn invariant_released_by_right(&mut self, asked: &NodeRequest) -> Result<(), Stop> {
        let shown = self.shown_entries()?;
        let (ground, owner) = (&self.around.ground, &self.around.owner);
        let of = self.reading(&shown).in_force().map(|(_, set)| set);
        let Some(set) = of.filter(|set| set.nodes.contains(&self.as_node())) else {
            return Err(self.wrongly("though it is no key node any more"));
        };
        if !self.is_met(&shown, set, &asked.user) {
            return Err(self.wrongly("before its time, or without the approvals that it needs"));
        }
        let mut heads = asked.heads.iter().map(|head| ground.number_of(head));
        if !heads.all(|head| head.is_some_and(|number| shown.linked.contains(number))) {
            return Err(self.wrongly("without knowing what the asker knew"));
        }
        let deal = self.run.view.deal(&asked.deal);
        if deal.is_none_or(|of| of.dealing.threshold() < usize::from(set.threshold)) {
            return Err(self.wrongly("by a deal for which fewer are needed"));
        }
        let who = (asked.user, asked.device);
        let mut all = asked.segments.iter().map(|of| of.interval());
        if !all.all(|of| may_read_all(ground, owner, who, &asked.lane, &of, &shown.all)) {
            return Err(self.wrongly("what nothing entitles the asker to"));
        }
        if !self.is_noted(asked)? {
            return Err(self.wrongly("before it was noted"));
        }
        if set.condition.approvers().next().is_some() {
            self.around.count_asking("released by approvals");
        }
        Ok(())
    }

    /// A node that does not lie refuses nobody for its condition for whom it holds.
    pub(super) fn invariant_refused_for_a_reason(
        &mut self,
        entry: &AuditEntry,
    ) -> Result<(), Stop> {
        let AuditEvent::Refused(asked, NodeRefusalReason::Condition) = &entry.event else {
            return Ok(());
        };
        let shown = self.shown_entries()?;
        let set = self.reading(&shown).in_force().map(|(_, set)| set);
        match set.is_some_and(|set| self.is_met(&shown, set, &asked.user)) {
            true if self.device.node == Some(Nature::Honest) => {
                let (node, asker) = (self.device.at, asked.device);
                Err(Violation::Refused { node, asker }.into())
            }
            true | false => Ok(()),
        }
    }

    /// Whether the condition of a set holds now for who asks: nobody approves of whom the bus shows an entry
    /// without one that this follows.
    fn is_met(&self, shown: &Shown, set: &KeyNodes, asker: &UserId) -> bool {
        let now = self.now();
        let approves = |by: &UserId| {
            let mut entries = self.around.ground.entries.iter().enumerate();
            let has_gap = entries.any(|(number, of)| {
                of.user == *by && shown.all.contains(number) && !shown.linked.contains(number)
            });
            !has_gap && self.reading(shown).approves(by, asker, now)
        };
        holds(&set.condition, (now, now), approves)
    }

    fn reading<'a>(&'a self, shown: &'a Shown) -> Reading<'a> {
        Reading {
            ground: &self.around.ground,
            owner: &self.around.owner,
            known: &shown.linked,
        }
    }

    fn is_noted(&self, asked: &NodeRequest) -> Result<bool, Stop> {
        let audit = self.device.home.audit()?;
        Ok(audit.iter().any(|wire| {
            let entry = Unverified::<AuditEntry>::decode(wire).ok();
            let of = entry.and_then(|of| of.claims().event.request().cloned());
            of.is_some_and(|of| (of.device, of.request) == (asked.device, asked.request))
        }))
    }

    /// The entries that the bus shows this device, or showed it.
    fn shown_entries(&mut self) -> Result<Shown, Stop> {
        let mut all = self.around.ground.known_to(&self.run.view);
        for of in self.run.view.wanted() {
            if !matches!(of, ControlTopic::Access(..)) {
                continue;
            }
            let name = of.name(self.around.stream);
            let items = self.around.read(self.device.at, &name, 0, usize::MAX)?;
            for (number, written) in self.around.ground.entries.iter().enumerate() {
                if items.iter().any(|item| *item.bytes == *written.wire) {
                    all.insert(number);
                }
            }
        }
        let linked = self.around.ground.linked(&all);
        Ok(Shown { all, linked })
    }
}

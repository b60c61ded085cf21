//! Removals of publishers: what came too late for one stays out, whatever came after it.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use sealcast_protocol::{
    DeviceId, EnvelopeHash, GrantState, Header, LogBody, LogHash, Revoke, Roles, SessionRecord,
    Standing, Targets, UserId,
};

use super::StreamView;

/// What one removal says of one device.
#[derive(Debug)]
pub(super) struct Cut {
    removal: LogHash,
    /// The publishing grants that it took.
    taken: BTreeSet<LogHash>,
    tips: Vec<EnvelopeHash>,
}

impl StreamView {
    pub(super) fn find_cuts(&self) -> BTreeMap<DeviceId, Vec<Cut>> {
        let removals: BTreeSet<_> = self.state.removals(&self.state.owner()).collect();
        let mut cuts = BTreeMap::<DeviceId, Vec<Cut>>::new();
        for entry in self.log.entries() {
            let removal = LogHash::from(entry.digest());
            let LogBody::Revoke(revoke) = &entry.body().body else {
                continue;
            };
            if !removals.contains(&removal) {
                continue;
            }
            for last in &revoke.last {
                if let Some(user) = self.user_of(&last.device) {
                    let taken = self.taken(removal, revoke, (&user, &last.device));
                    let tips = last.tips.clone();
                    cuts.entry(last.device).or_default().push(Cut {
                        removal,
                        taken,
                        tips,
                    });
                }
            }
        }
        cuts
    }

    /// The publishing grants of a device that a removal took: those that do not follow it.
    fn taken(
        &self,
        removal: LogHash,
        revoke: &Revoke,
        (user, device): (&UserId, &DeviceId),
    ) -> BTreeSet<LogHash> {
        let is_target = |id: &LogHash| match &revoke.targets {
            Targets::Users(users) => users.contains(user),
            Targets::Grants(ids) => ids.contains(id),
            Targets::Devices(of) => of.iter().any(|of| (&of.user, &of.device) == (user, device)),
        };
        let ids = self.publishing(user, device).map(|of| of.id);
        ids.filter(|id| is_target(id) && !self.log.reaches(&[*id], &removal))
            .collect()
    }

    fn publishing(&self, user: &UserId, device: &DeviceId) -> impl Iterator<Item = &GrantState> {
        self.state.grants().iter().filter(move |of| {
            let (grant, roles) = (&of.grant, of.grant.roles);
            grant.user == *user
                && (roles.contains(Roles::PUBLISHER) || roles.contains(Roles::ADMIN))
                && (grant.devices.is_empty() || grant.devices.contains(device))
        })
    }

    /// The grants by which a device might publish once; `None` where it is the owner's, or may now.
    pub(crate) fn lost_publishing(&self, user: &UserId, device: &DeviceId) -> Option<Vec<LogHash>> {
        let counts = |of: &GrantState| {
            of.standing == Standing::Counts
                && !of.devices_lost.contains(device)
                && !self.state.is_out(user, device)
        };
        if *user == self.state.owner() || self.publishing(user, device).any(counts) {
            return None;
        }
        let lost = self.publishing(user, device);
        let lost = lost.filter(|of| of.standing != Standing::Void);
        Some(lost.map(|of| of.id).collect())
    }

    /// Whether a removal stands between an envelope and a tip: the tip was sealed in knowledge of
    /// it, and the envelope is not before its tips nor sealed by a right that it left.
    pub(crate) fn is_cut_off(
        &self,
        header: &Header,
        record: Option<&SessionRecord>,
        tip: Option<&SessionRecord>,
        is_up_to: impl Fn(&[EnvelopeHash]) -> bool,
    ) -> bool {
        let Some(user) = self.user_of(&header.device) else {
            return true;
        };
        let is_left = |cut: &Cut, of: &GrantState| {
            of.grant.interval.contains(header.position)
                && !cut.taken.contains(&of.id)
                && record.is_some_and(|record| self.log.reaches(&record.heads, &of.id))
        };
        let mut cuts = self.cuts.get(&header.device).into_iter().flatten();
        cuts.any(|cut| {
            tip.is_none_or(|tip| self.log.reaches(&tip.heads, &cut.removal))
                && !is_up_to(&cut.tips)
                && !self
                    .publishing(&user, &header.device)
                    .any(|of| is_left(cut, of))
        })
    }
}

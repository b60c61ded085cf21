//! Which key nodes are in force and who approves that they release, said as plainly as possible: by the rules of
//! `spec/access-log.md`, one after the other and each time anew, without anything of how the engine computes it.
//!
//! Where this is asked, the owner makes admins and nobody removes them, no device is out, and publishers write nothing.

use sealcast_protocol::{
    Approval, Condition, Demand, Grant, KeyNodes, LogBody, Position, Roles, Targets, UserId,
};

use crate::ground::{Entries, Ground, Written};

/// A set of entries that has the past of each, as somebody reads it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading<'a> {
    pub(crate) ground: &'a Ground,
    pub(crate) owner: &'a UserId,
    pub(crate) known: &'a Entries,
}

/// By what an entry was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Power {
    Owner,
    Admin,
    Approver,
}

impl<'a> Reading<'a> {
    /// The key nodes in force, and the number of the entry that names them.
    pub(crate) fn in_force(self) -> Option<(usize, &'a KeyNodes)> {
        match self.newest_sets().as_slice() {
            [(number, set)] if self.counts(*number) && set.threshold > 0 => Some((*number, *set)),
            _ => None,
        }
    }

    /// The sets of key nodes that are meant and that no other one follows.
    pub(crate) fn newest_sets(self) -> Vec<(usize, &'a KeyNodes)> {
        let meant: Vec<_> = self.sets().filter(|(at, _)| self.is_meant(*at)).collect();
        let is_followed = |at: usize| meant.iter().any(|(by, _)| self.is_before(at, *by));
        let newest = meant.iter().filter(|(at, _)| !is_followed(*at));
        newest.copied().collect()
    }

    /// Whether a user approves of another at a time.
    pub(crate) fn approves(self, by: &UserId, of: &UserId, now: Position) -> bool {
        let entries = self.entries().filter_map(|(at, entry)| {
            let approval = approval(entry).filter(|said| entry.user == *by && said.user == *of)?;
            self.power(at).map(|_| (at, approval))
        });
        let said: Vec<_> = entries.collect();
        let is_followed = |at: usize| said.iter().any(|(later, _)| self.is_before(at, *later));
        let mut newest = said.iter().filter(|(at, _)| !is_followed(*at));
        !said.is_empty() && newest.all(|(at, said)| self.counts(*at) && now < said.until)
    }

    fn entries(self) -> impl Iterator<Item = (usize, &'a Written)> {
        let all = self.ground.entries.iter().enumerate();
        all.filter(move |(at, _)| self.known.contains(*at))
    }

    fn sets(self) -> impl Iterator<Item = (usize, &'a KeyNodes)> {
        self.entries()
            .filter_map(|(at, of)| Some((at, of.body.key_nodes()?)))
    }

    fn removals(self) -> impl Iterator<Item = (usize, &'a Targets)> {
        let removals = self.entries().filter_map(|(at, of)| match &of.body {
            LogBody::Revoke(revoke) => Some((at, &revoke.targets)),
            LogBody::Genesis(_)
            | LogBody::Grant(_)
            | LogBody::Settings(_)
            | LogBody::KeyNodes(_)
            | LogBody::Close
            | LogBody::Approve(_) => None,
        });
        removals.filter(move |(at, _)| self.power(*at).is_some())
    }

    fn entry(self, at: usize) -> Option<&'a Written> {
        self.ground.entries.get(at)
    }

    /// Whether whoever wrote one entry knew of another.
    fn is_before(self, earlier: usize, later: usize) -> bool {
        self.entry(later)
            .is_some_and(|of| of.past.contains(earlier))
    }

    /// Section 4: by what an author wrote, as far as it knew then.
    fn power(self, at: usize) -> Option<Power> {
        let entry = self.entry(at)?;
        let before = Self {
            known: &entry.past,
            ..self
        };
        let ruler = match entry.user == *self.owner {
            true => Some(Power::Owner),
            false => before.admin_grant(&entry.user).map(|_| Power::Admin),
        };
        match &entry.body {
            LogBody::Approve(_) => {
                let mut asked = before.sets().filter(|(at, _)| self.power(*at).is_some());
                asked
                    .any(|(_, set)| asks(set, &entry.user))
                    .then_some(Power::Approver)
            }
            LogBody::Grant(grant) if grant.roles.contains(Roles::ADMIN) => {
                ruler.filter(|of| *of == Power::Owner)
            }
            LogBody::Genesis(_)
            | LogBody::Grant(_)
            | LogBody::Revoke(_)
            | LogBody::Settings(_)
            | LogBody::KeyNodes(_)
            | LogBody::Close => ruler,
        }
    }

    /// By which grant a user is an admin, which only the owner makes and nobody takes.
    fn admin_grant(self, user: &UserId) -> Option<usize> {
        let mut grants = self.entries().filter(|(_, of)| of.user == *self.owner);
        let is_one = |grant: &Grant| grant.user == *user && grant.roles.contains(Roles::ADMIN);
        grants
            .find(|(_, of)| grant(of).is_some_and(is_one))
            .map(|(at, _)| at)
    }

    /// Section 6, for sets of key nodes and approvals.
    fn counts(self, at: usize) -> bool {
        let Some(entry) = self.entry(at) else {
            return false;
        };
        let stands = self.power(at).is_some() && !self.is_forked(entry);
        stands
            && approval(entry)
                .is_none_or(|of| self.is_asked_throughout(at) && !self.is_taken(at, of))
    }

    /// Whether a set of key nodes counts, or would but for forks.
    fn is_meant(self, at: usize) -> bool {
        self.power(at).is_some()
    }

    /// Whether a device wrote two entries in one place, at an entry of it or before.
    fn is_forked(self, entry: &Written) -> bool {
        let of_device = |of: &Written| (of.user, of.device) == (entry.user, entry.device);
        let own: Vec<_> = self.entries().filter(|(_, of)| of_device(of)).collect();
        let early = own.iter().filter(|(_, of)| of.seq <= entry.seq);
        early
            .clone()
            .any(|(at, one)| own.iter().any(|(by, two)| at != by && one.seq == two.seq))
    }

    /// Whether the author of an approval was asked for it by a set that counts, and is by each that is meant and that
    /// none of those followed.
    fn is_asked_throughout(self, at: usize) -> bool {
        let Some(author) = self.entry(at).map(|of| of.user) else {
            return false;
        };
        let known = self.sets().map(|(set, _)| set);
        let known = known.filter(|set| self.is_before(*set, at) && self.counts(*set));
        let known: Vec<_> = known.collect();
        let is_over = |set: usize| known.iter().any(|by| self.is_before(set, *by));
        let mut meant = self.sets().filter(|(set, _)| self.is_meant(*set));
        !known.is_empty() && meant.all(|(at, set)| asks(set, &author) || is_over(at))
    }

    /// Section 5: whether a removal takes an approval.
    fn is_taken(self, at: usize, approval: &Approval) -> bool {
        let Some(author) = self.entry(at).map(|of| of.user) else {
            return false;
        };
        self.removals().any(|(removal, targets)| {
            let is_known = self.is_before(removal, at);
            match targets {
                Targets::Users(users) => {
                    let names =
                        |user: &UserId| users.contains(user) && !self.is_spared(removal, user);
                    (names(&approval.user) && !is_known)
                        || (names(&author) && !self.is_asked_behind(removal, at, &author))
                }
                Targets::Grants(ids) => {
                    let is_it = |of: &Written| {
                        ids.contains(&of.hash)
                            && grant(of).is_some_and(|of| of.user == approval.user)
                    };
                    !is_known
                        && !self.is_spared(removal, &approval.user)
                        && self.entries().any(|(_, of)| is_it(of))
                }
                Targets::Devices(_) => false,
            }
        })
    }

    /// Whether a removal takes nothing from a user: an admin's from who rules.
    fn is_spared(self, removal: usize, user: &UserId) -> bool {
        self.entry(removal).is_none_or(|of| {
            let before = Self {
                known: &of.past,
                ..self
            };
            let rules = *user == *self.owner || before.admin_grant(user).is_some();
            rules && of.user != *self.owner
        })
    }

    /// Whether the author of an approval knew of a set that asked for it, by who knew of a removal.
    fn is_asked_behind(self, removal: usize, at: usize, author: &UserId) -> bool {
        let mut sets = self.sets().filter(|(set, _)| self.counts(*set));
        sets.any(|(set, of)| {
            asks(of, author) && self.is_before(set, at) && self.is_before(removal, set)
        })
    }
}

/// Whether a condition holds from one time to another.
pub(crate) fn holds(
    condition: &Condition,
    (from, to): (Position, Position),
    approves: impl Fn(&UserId) -> bool,
) -> bool {
    let is_met = |demand: &Demand| match demand {
        Demand::After(time) => from >= *time,
        Demand::Before(time) => to < *time,
        Demand::Approved(of) => {
            let mut count = 0;
            for user in &of.of {
                count += u8::from(approves(user));
            }
            count >= of.needed
        }
    };
    let Condition(alternatives) = condition;
    alternatives.is_empty() || alternatives.iter().any(|all| all.iter().all(is_met))
}

fn asks(set: &KeyNodes, user: &UserId) -> bool {
    let Condition(alternatives) = &set.condition;
    alternatives.iter().flatten().any(|demand| match demand {
        Demand::Approved(of) => of.of.contains(user),
        Demand::After(_) | Demand::Before(_) => false,
    })
}

fn approval(entry: &Written) -> Option<&Approval> {
    match &entry.body {
        LogBody::Approve(approval) => Some(approval),
        LogBody::Genesis(_)
        | LogBody::Grant(_)
        | LogBody::Revoke(_)
        | LogBody::Settings(_)
        | LogBody::KeyNodes(_)
        | LogBody::Close => None,
    }
}

fn grant(entry: &Written) -> Option<&Grant> {
    match &entry.body {
        LogBody::Grant(grant) => Some(grant),
        LogBody::Genesis(_)
        | LogBody::Revoke(_)
        | LogBody::Settings(_)
        | LogBody::KeyNodes(_)
        | LogBody::Close
        | LogBody::Approve(_) => None,
    }
}

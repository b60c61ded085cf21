//! Which entries of the access log count, `spec/access-log.md` sections 4 to 6.
//!
//! Whether an entry is authorised follows from its past alone; that is judged once, when it is
//! linked. Whether an authorised entry counts is asked of a set, through a [`View`]: of the past of
//! a later entry, or of all that is known.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::rc::Rc;
use alloc::vec::Vec;

use crate::ids::{DeviceId, Interval, UserId};
use crate::v1::log_approvals::Approval;
use crate::v1::log_clock::Clock;
use crate::v1::log_entry::{DeviceTarget, Grant, LogBody, LogEntry, Revoke, Roles, Targets};
use crate::v1::log_graph::{AccessLog, Node};

/// What an author might do when it wrote an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Power {
    /// A user whom a condition names says whether key nodes may release to somebody.
    Approver,
    /// A named user takes out devices of its own.
    Own,
    /// A publisher decides about readers of its own lane.
    Publisher,
    /// All but what is the owner's.
    Admin,
    /// Everything.
    Owner,
}

/// What an entry's past says of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Verdict {
    /// By what right it was written; `None` when it was not authorised.
    pub(super) power: Option<Power>,
    /// Grants that the right rests on, each sufficient; none where the owner wrote.
    pub(super) supports: Vec<usize>,
    /// Admins, where a revoke must spare them.
    pub(super) spared: BTreeSet<UserId>,
    /// Devices that a revoke takes out by their own user's word.
    pub(super) proven: BTreeSet<(UserId, DeviceId)>,
}

/// What a revoke takes from one grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// All of it.
    Whole,
    /// Its use by some devices.
    Devices(BTreeSet<DeviceId>),
}

impl Taken {
    /// Whether the grant is of no use any more to a device, or to all devices where none is named.
    fn hits(&self, device: Option<&DeviceId>) -> bool {
        match self {
            Self::Whole => true,
            Self::Devices(devices) => device.is_some_and(|device| devices.contains(device)),
        }
    }
}

impl AccessLog {
    /// Judges an entry whose whole past is linked.
    pub(super) fn judge(&self, entry: &LogEntry, past: &Clock) -> Verdict {
        let mut view = View::new(self, past);
        let held = view.standing(entry);
        let held = held.filter(|(power, _)| is_allowed(*power, entry, self.owner));
        let other = || match view.is_approver(entry) {
            true => Some((Power::Approver, Vec::new())),
            false => Some((Power::Own, view.own_removal(entry)?)),
        };
        let Some((power, supports)) = held.or_else(other) else {
            return Verdict::default();
        };
        let mut verdict = Verdict {
            power: Some(power),
            supports,
            ..Verdict::default()
        };
        if let LogBody::Revoke(revoke) = &entry.body {
            let targets = device_targets(revoke);
            if power == Power::Admin || (power == Power::Owner && !targets.is_empty()) {
                let admins = self.rights.admins.iter().copied();
                verdict.spared = admins.filter(|user| view.is_admin(user)).collect();
            }
            let may_prove = |of: &&DeviceTarget| power == Power::Owner || of.user == entry.user;
            let proven = targets.iter().filter(may_prove);
            let proven = proven.filter(|of| power == Power::Own || of.is_proven());
            verdict.proven = proven.map(|of| (of.user, of.device)).collect();
        }
        verdict
    }

    pub(super) fn grant(&self, i: usize) -> Option<&Grant> {
        match &self.node(i).entry.body().body {
            LogBody::Grant(grant) => Some(grant),
            LogBody::Genesis(_)
            | LogBody::Revoke(_)
            | LogBody::Settings(_)
            | LogBody::KeyNodes(_)
            | LogBody::Close
            | LogBody::Approve(_) => None,
        }
    }

    pub(super) fn revoke(&self, i: usize) -> Option<&Revoke> {
        match &self.node(i).entry.body().body {
            LogBody::Revoke(revoke) => Some(revoke),
            LogBody::Genesis(_)
            | LogBody::Grant(_)
            | LogBody::Settings(_)
            | LogBody::KeyNodes(_)
            | LogBody::Close
            | LogBody::Approve(_) => None,
        }
    }

    /// What the revoke of an owner or admin takes from a grant, were it not held back. Devices that
    /// their user proves to be out are not among it: they are out whatever is granted.
    fn take(&self, r: usize, g: usize) -> Option<Taken> {
        let verdict = &self.node(r).verdict;
        let (grant, revoke) = (self.grant(g)?, self.revoke(r)?);
        let is_shielded =
            grant.roles.contains(Roles::ADMIN) || verdict.spared.contains(&grant.user);
        match &revoke.targets {
            Targets::Grants(grants) => {
                let is_hit = grants.binary_search(&self.node(g).hash).is_ok();
                (is_hit && may_take(verdict, is_shielded)).then_some(Taken::Whole)
            }
            Targets::Users(users) => {
                let is_hit = users.binary_search(&grant.user).is_ok() && !self.is_before(r, g);
                (is_hit && may_take(verdict, is_shielded)).then_some(Taken::Whole)
            }
            Targets::Devices(targets) => {
                if is_shielded || self.is_before(r, g) {
                    return None;
                }
                let targets = targets.iter().filter(|of| of.user == grant.user);
                let devices: BTreeSet<_> = targets.map(|of| of.device).collect();
                (!devices.is_empty()).then_some(Taken::Devices(devices))
            }
        }
    }

    /// What the revoke of an owner or admin takes of approvals, were it not held back: all by the device, or
    /// all of the user, that did not follow it.
    fn names_for_approvals(&self, r: usize, of: Subject) -> bool {
        let verdict = &self.node(r).verdict;
        let is_shielded = |user: &UserId| *user == self.owner || verdict.spared.contains(user);
        match (self.revoke(r).map(|revoke| &revoke.targets), of) {
            (Some(Targets::Users(users)), Subject::Author(user, _) | Subject::Reader(user)) => {
                users.binary_search(&user).is_ok() && may_take(verdict, is_shielded(&user))
            }
            (Some(Targets::Devices(targets)), Subject::Author(user, device)) => {
                !is_shielded(&user)
                    && targets
                        .iter()
                        .any(|of| (of.user, of.device) == (user, device))
            }
            (Some(Targets::Grants(_)), Subject::Reader(user)) => {
                let mut given = self.rights.grants_to.get(&user).into_iter().flatten();
                given.any(|&g| self.take(r, g) == Some(Taken::Whole))
            }
            (Some(Targets::Grants(_)), Subject::Author(..))
            | (Some(Targets::Devices(_)), Subject::Reader(_))
            | (None, _) => false,
        }
    }
}

/// On whose account an approval is taken.
#[derive(Clone, Copy, Debug)]
enum Subject {
    /// Who gave it, with this device.
    Author(UserId, DeviceId),
    /// Whom it is for.
    Reader(UserId),
}

/// Who may do what in a set of entries that holds the past of each.
pub(super) struct View<'a> {
    log: &'a AccessLog,
    set: &'a Clock,
    counting: BTreeMap<usize, bool>,
    held_back: BTreeMap<usize, bool>,
    /// Whether forks take nothing.
    passes_forks: bool,
    /// The entries about key nodes that count, once they are asked for.
    sets: Option<Rc<[usize]>>,
    /// Those and the ones that would count but for forks.
    meant: Option<Rc<[usize]>>,
    /// The revokes that may take approvals of a user from whoever gave them.
    of_readers: BTreeMap<UserId, Rc<[usize]>>,
}

impl<'a> View<'a> {
    pub(super) fn new(log: &'a AccessLog, set: &'a Clock) -> Self {
        Self {
            log,
            set,
            counting: BTreeMap::new(),
            held_back: BTreeMap::new(),
            passes_forks: false,
            sets: None,
            meant: None,
            of_readers: BTreeMap::new(),
        }
    }

    fn is_forked(&self, i: usize) -> bool {
        !self.passes_forks && self.log.is_forked(i, self.set)
    }

    /// Whether an authorised entry counts; a grant that counts may still be revoked.
    pub(super) fn counts(&mut self, i: usize) -> bool {
        if let Some(&known) = self.counting.get(&i) {
            return known;
        }
        let node = self.log.node(i);
        let counts = node.verdict.power.is_some()
            && match node.entry.body().body {
                LogBody::Genesis(_) | LogBody::Revoke(_) | LogBody::Close => true,
                LogBody::Grant(_) | LogBody::Settings(_) | LogBody::KeyNodes(_) => {
                    !self.is_forked(i) && self.is_supported(node, i)
                }
                LogBody::Approve(approval) => {
                    !self.is_forked(i)
                        && self.is_asked_throughout(i)
                        && !self.is_approval_taken(i, &approval)
                }
            };
        self.counting.insert(i, counts);
        counts
    }

    /// Whether a removal takes only what it had seen: its author was itself removed, by one that
    /// did not know of it.
    pub(super) fn is_held_back(&mut self, r: usize) -> bool {
        if let Some(&known) = self.held_back.get(&r) {
            return known;
        }
        let author = self.log.node(r).entry.body();
        let supports = &self.log.node(r).verdict.supports;
        let device = (author.user, author.device);
        let is_out = self.outs_of(device).any(|by| !self.log.is_before(r, by));
        let is_taken = |&g: &usize| {
            self.revokes_naming(g).any(|by| {
                self.log.is_before(g, by)
                    && !self.log.is_before(r, by)
                    && self
                        .log
                        .take(by, g)
                        .is_some_and(|taken| taken.hits(Some(&author.device)))
            })
        };
        let held_back = is_out || (!supports.is_empty() && supports.iter().all(is_taken));
        self.held_back.insert(r, held_back);
        held_back
    }

    /// Revokes that take something from a grant, with what they take.
    pub(super) fn takers(&mut self, g: usize) -> Vec<(usize, Taken)> {
        let revokes: Vec<_> = self.revokes_naming(g).collect();
        let mut takers = Vec::new();
        for r in revokes {
            if let Some(taken) = self.log.take(r, g)
                && (self.log.is_before(g, r) || !self.is_held_back(r))
            {
                takers.push((r, taken));
            }
        }
        takers
    }

    /// Revokes that carry the proof of a device's user that the device is out.
    pub(super) fn outs_of(
        &self,
        device: (UserId, DeviceId),
    ) -> impl Iterator<Item = usize> + use<'a> {
        let outs = self.log.rights.outs.get(&device);
        self.in_set(outs)
    }

    /// By what right an author writes, and the grants that it rests on.
    fn standing(&mut self, entry: &LogEntry) -> Option<(Power, Vec<usize>)> {
        if matches!(entry.body, LogBody::Genesis(_)) {
            return Some((Power::Owner, Vec::new()));
        }
        if self.outs_of((entry.user, entry.device)).next().is_some() {
            return None;
        }
        if entry.user == self.log.owner {
            return Some((Power::Owner, Vec::new()));
        }
        let admin = self.held(&entry.user, Some(&entry.device), Roles::ADMIN);
        if !admin.is_empty() {
            return Some((Power::Admin, admin));
        }
        let publisher = self.held(&entry.user, Some(&entry.device), Roles::PUBLISHER);
        (!publisher.is_empty()).then_some((Power::Publisher, publisher))
    }

    /// What an own removal rests on, if the entry is one: the rights to publish that the user was
    /// given, taken back or not.
    fn own_removal(&mut self, entry: &LogEntry) -> Option<Vec<usize>> {
        let LogBody::Revoke(revoke) = &entry.body else {
            return None;
        };
        let targets = device_targets(revoke);
        let rights = &self.log.rights;
        let given = self.in_set(rights.grants_to.get(&entry.user));
        let mut named = given.chain(self.in_set(rights.key_nodes.get(&entry.user)));
        let is_named = entry.user == self.log.owner || named.next().is_some();
        let is_own = !targets.is_empty() && targets.iter().all(|of| of.user == entry.user);
        if !is_named || !is_own || !targets.iter().all(DeviceTarget::is_proven) {
            return None;
        }
        let ranks = self.ranks_of(&entry.user);
        Some(ranks.filter(|&g| self.counts(g)).collect())
    }

    /// Whether an author is one whose approval key nodes ask for, and this is one.
    fn is_approver(&self, entry: &LogEntry) -> bool {
        let named = self.log.rights.approvers.get(&entry.user);
        matches!(entry.body, LogBody::Approve(_))
            && self.in_set(named).next().is_some()
            && self.outs_of((entry.user, entry.device)).next().is_none()
    }

    /// Entries about key nodes that count.
    fn key_node_sets(&mut self) -> Rc<[usize]> {
        if let Some(sets) = &self.sets {
            return sets.clone();
        }
        let all: Vec<_> = self.in_set(Some(&self.log.rights.key_node_sets)).collect();
        let sets: Rc<[usize]> = all.into_iter().filter(|&k| self.counts(k)).collect();
        self.sets = Some(sets.clone());
        sets
    }

    /// Entries about key nodes that count, or would if no device had written two entries in one place.
    pub(super) fn sets_meant(&mut self) -> Rc<[usize]> {
        if let Some(meant) = &self.meant {
            return meant.clone();
        }
        let mut view = View {
            passes_forks: true,
            ..View::new(self.log, self.set)
        };
        let meant = view.key_node_sets();
        self.meant = Some(meant.clone());
        meant
    }

    /// Whether the author of an approval was asked for it when it was given, and by whatever was said of key
    /// nodes since, or beside, were it taken by a fork or not.
    fn is_asked_throughout(&mut self, i: usize) -> bool {
        let (log, sets, meant) = (self.log, self.key_node_sets(), self.sets_meant());
        let asking = log.rights.approvers.get(&log.node(i).entry.body().user);
        let is_asked_by = |k: &usize| asking.is_some_and(|of| of.binary_search(k).is_ok());
        let mut known = sets.iter().copied().filter(|&k| log.is_before(k, i));
        let is_over = |k| known.clone().any(|by| log.is_before(k, by));
        meant.iter().all(|&k| is_asked_by(&k) || is_over(k)) && known.next().is_some()
    }

    /// Whether the author of an approval, or its device, was removed and not asked anew since, or whom it is
    /// for was, or lost a grant, by one that it did not know of.
    fn is_approval_taken(&mut self, i: usize, approval: &Approval) -> bool {
        let (log, author) = (self.log, self.log.node(i).entry.body());
        if self.outs_of((author.user, author.device)).next().is_some() {
            return true;
        }
        let by_user = log.rights.revokes.by_user.get(&author.user);
        let mut by_user = by_user.into_iter().flatten().copied();
        let (of_author, of_reader) = (
            Subject::Author(author.user, author.device),
            Subject::Reader(approval.user),
        );
        by_user.any(|r| self.takes_approval(r, i, of_author))
            || self
                .revokes_of_reader(&approval.user)
                .iter()
                .any(|&r| self.takes_approval(r, i, of_reader))
    }

    /// The revokes that concern whom an approval is for.
    fn revokes_of_reader(&mut self, user: &UserId) -> Rc<[usize]> {
        if let Some(known) = self.of_readers.get(user) {
            return known.clone();
        }
        let (log, named) = (self.log, &self.log.rights.revokes);
        let given = log.rights.grants_to.get(user).into_iter().flatten();
        let by_grant = given.filter_map(|&g| named.by_grant.get(&log.node(g).hash));
        let by_user = named.by_user.get(user).into_iter();
        let revokes: BTreeSet<_> = by_user.chain(by_grant).flatten().copied().collect();
        let revokes: Rc<[usize]> = revokes.into_iter().collect();
        self.of_readers.insert(*user, revokes.clone());
        revokes
    }

    fn takes_approval(&mut self, r: usize, i: usize, of: Subject) -> bool {
        let log = self.log;
        let is_heard = log.is_in(r, self.set)
            && log.names_for_approvals(r, of)
            && (log.is_before(i, r) || !self.is_held_back(r));
        is_heard
            && match of {
                Subject::Reader(_) => !log.is_before(r, i),
                Subject::Author(user, _) => !self.is_asked_since(r, i, &user),
            }
    }

    /// Whether somebody who knew of a removal of its author asked for an approval before it was given.
    fn is_asked_since(&mut self, r: usize, i: usize, author: &UserId) -> bool {
        let (log, sets) = (self.log, self.key_node_sets());
        let asking = log.rights.approvers.get(author);
        let mut asking = asking.into_iter().flatten().filter(|k| sets.contains(k));
        asking.any(|&k| log.is_before(r, k) && log.is_before(k, i))
    }

    fn is_admin(&mut self, user: &UserId) -> bool {
        !self.held(user, None, Roles::ADMIN).is_empty()
    }

    /// Grants of a role above the reader's that count and were not taken, on one device or on any.
    fn held(&mut self, user: &UserId, device: Option<&DeviceId>, role: Roles) -> Vec<usize> {
        let given = self.ranks_of(user).filter(|&g| {
            self.log.grant(g).is_some_and(|grant| {
                grant.roles.contains(role) && device.is_none_or(|device| is_for(grant, device))
            })
        });
        let held = given.filter(|&g| {
            self.counts(g) && !self.takers(g).iter().any(|(_, taken)| taken.hits(device))
        });
        held.collect()
    }

    fn is_supported(&mut self, node: &Node, i: usize) -> bool {
        let author = node.entry.body();
        let device = (author.user, author.device);
        let mut outs = self.outs_of(device);
        if !outs.all(|r| self.log.is_before(i, r)) {
            return false;
        }
        node.verdict.power == Some(Power::Owner)
            || node.verdict.supports.iter().any(|&g| {
                self.counts(g)
                    && self.takers(g).iter().all(|(r, taken)| {
                        !taken.hits(Some(&author.device)) || self.log.is_before(i, *r)
                    })
            })
    }

    fn ranks_of(&self, user: &UserId) -> impl Iterator<Item = usize> + use<'a> {
        self.in_set(self.log.rights.ranks_of.get(user))
    }

    fn revokes_naming(&self, g: usize) -> impl Iterator<Item = usize> + use<'a> {
        let named = &self.log.rights.revokes;
        let user = self.log.grant(g).map(|grant| grant.user);
        let by_user = user.and_then(|user| named.by_user.get(&user));
        let by_grant = named.by_grant.get(&self.log.node(g).hash);
        self.in_set(by_user).chain(self.in_set(by_grant))
    }

    pub(super) fn in_set(
        &self,
        nodes: Option<&'a Vec<usize>>,
    ) -> impl Iterator<Item = usize> + use<'a> {
        let (log, set) = (self.log, self.set);
        let nodes = nodes.into_iter().flatten().copied();
        nodes.filter(move |&i| log.is_in(i, set))
    }
}

/// Whether an author with this power may write this body.
fn is_allowed(power: Power, entry: &LogEntry, owner: UserId) -> bool {
    match &entry.body {
        LogBody::Genesis(_) => power == Power::Owner,
        // Not by any power over others.
        LogBody::Approve(_) => false,
        LogBody::Settings(_) | LogBody::KeyNodes(_) | LogBody::Close => power >= Power::Admin,
        LogBody::Revoke(revoke) => {
            power >= Power::Admin
                || (power == Power::Publisher && device_targets(revoke).is_empty())
        }
        LogBody::Grant(grant) => {
            let is_admin = grant.roles.contains(Roles::ADMIN);
            let is_limited = grant.interval != Interval::ALL || !grant.lanes.is_empty();
            let is_own_reader = grant.roles == Roles::READER && grant.lanes == [entry.user];
            grant.user != owner
                && !(is_admin && is_limited)
                && match power {
                    Power::Owner => true,
                    Power::Admin => !is_admin,
                    Power::Publisher => is_own_reader,
                    Power::Own | Power::Approver => false,
                }
        }
    }
}

fn may_take(verdict: &Verdict, is_shielded: bool) -> bool {
    verdict.power == Some(Power::Owner) || !is_shielded
}

fn device_targets(revoke: &Revoke) -> &[DeviceTarget] {
    match &revoke.targets {
        Targets::Devices(targets) => targets,
        Targets::Grants(_) | Targets::Users(_) => &[],
    }
}

pub(super) fn is_for(grant: &Grant, device: &DeviceId) -> bool {
    grant.devices.is_empty() || grant.devices.contains(device)
}

pub(super) fn publishes(grant: &Grant) -> bool {
    grant.roles.contains(Roles::PUBLISHER) || grant.roles.contains(Roles::ADMIN)
}

pub(super) fn reads(grant: &Grant, lane: &UserId) -> bool {
    grant.roles.contains(Roles::READER) && (grant.lanes.is_empty() || grant.lanes.contains(lane))
}

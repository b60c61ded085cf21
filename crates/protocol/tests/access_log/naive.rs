//! The rules of `spec/access-log.md`, word for word: sets of hashes, no clocks, nothing shared with
//! the crate but the entries themselves.
#![cfg(test)]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use sealcast_protocol::{
    Demand, DeviceId, EnvelopeHash, Grant, Interval, LogBody, LogEntry, LogHash, PublishRight,
    Revoke, Roles, Targets, UserId, Verified,
};

use crate::world::{NO_ENTRY, up_to_hashes};

pub(crate) type Set = BTreeSet<LogHash>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Power {
    Approver,
    Own,
    Publisher,
    Admin,
    Owner,
}

/// What a revoke takes from a grant: some devices, or all.
type Taken = Option<BTreeSet<DeviceId>>;

pub(crate) type Tips = BTreeMap<DeviceId, BTreeSet<EnvelopeHash>>;

#[derive(Debug)]
pub(crate) struct Naive {
    owner: UserId,
    entries: BTreeMap<LogHash, LogEntry>,
    past: BTreeMap<LogHash, Set>,
    depth: BTreeMap<LogHash, u32>,
    authority: RefCell<BTreeMap<LogHash, Option<(Power, Set)>>>,
}

impl Naive {
    pub(crate) fn new(owner: UserId, known: &[Verified<LogEntry>]) -> Self {
        let mut naive = Self {
            owner,
            entries: BTreeMap::new(),
            past: BTreeMap::new(),
            depth: BTreeMap::new(),
            authority: RefCell::default(),
        };
        for _ in known {
            for entry in known {
                let (hash, entry) = (LogHash::from(entry.digest()), entry.body());
                let named = refs(entry);
                if named.iter().all(|hash| naive.entries.contains_key(hash)) {
                    let mut past = named.clone();
                    past.extend(named.iter().flat_map(|hash| naive.past[hash].clone()));
                    let depth = named.iter().map(|hash| naive.depth[hash] + 1).max();
                    naive.depth.insert(hash, depth.unwrap_or(0));
                    naive.entries.insert(hash, entry.clone());
                    naive.past.insert(hash, past);
                }
            }
        }
        naive
    }

    pub(crate) fn all(&self) -> Set {
        self.entries.keys().copied().collect()
    }

    pub(crate) fn grants(&self) -> impl Iterator<Item = (LogHash, &Grant)> {
        let authorised = self
            .entries
            .keys()
            .filter(|hash| self.power(hash).is_some());
        authorised.filter_map(|hash| Some((*hash, self.grant(hash)?)))
    }

    fn grant(&self, hash: &LogHash) -> Option<&Grant> {
        match &self.entries[hash].body {
            LogBody::Grant(grant) => Some(grant),
            LogBody::Genesis(_)
            | LogBody::Revoke(_)
            | LogBody::Settings(_)
            | LogBody::KeyNodes(_)
            | LogBody::Close
            | LogBody::Approve(_) => None,
        }
    }

    fn revoke(&self, hash: &LogHash) -> Option<&Revoke> {
        match &self.entries[hash].body {
            LogBody::Revoke(revoke) => Some(revoke),
            LogBody::Genesis(_)
            | LogBody::Grant(_)
            | LogBody::Settings(_)
            | LogBody::KeyNodes(_)
            | LogBody::Close
            | LogBody::Approve(_) => None,
        }
    }

    fn reaches(&self, later: &LogHash, earlier: &LogHash) -> bool {
        self.past[later].contains(earlier)
    }

    fn author(&self, hash: &LogHash) -> (UserId, DeviceId) {
        (self.entries[hash].user, self.entries[hash].device)
    }

    fn is_well_formed(&self, hash: &LogHash) -> bool {
        let entry = &self.entries[hash];
        match self.entries.get(&entry.prev) {
            None => entry.seq == 0,
            Some(prev) => {
                (prev.user, prev.device, prev.seq + 1) == (entry.user, entry.device, entry.seq)
            }
        }
    }

    // Section 4: authority.

    pub(crate) fn power(&self, hash: &LogHash) -> Option<Power> {
        self.authority(hash).map(|(power, _)| power)
    }

    fn supports(&self, hash: &LogHash) -> Set {
        self.authority(hash)
            .map(|(_, supports)| supports)
            .unwrap_or_default()
    }

    fn authority(&self, hash: &LogHash) -> Option<(Power, Set)> {
        if let Some(known) = self.authority.borrow().get(hash) {
            return known.clone();
        }
        let found = self.find_authority(hash);
        self.authority.borrow_mut().insert(*hash, found.clone());
        found
    }

    fn find_authority(&self, hash: &LogHash) -> Option<(Power, Set)> {
        let (entry, past) = (&self.entries[hash], &self.past[hash]);
        if !self.is_well_formed(hash) {
            return None;
        }
        let held = self.held(entry, past);
        if let Some((power, _)) = &held
            && self.is_allowed(*power, entry)
        {
            return held;
        }
        if matches!(entry.body, LogBody::Approve(_)) {
            let is_out = !self.outs(past, (entry.user, entry.device)).is_empty();
            let mut known = past.iter().filter(|hash| self.power(hash).is_some());
            let is_named = known.any(|hash| self.asks_for(hash, &entry.user));
            return (is_named && !is_out).then(|| (Power::Approver, Set::new()));
        }
        let LogBody::Revoke(Revoke {
            targets: Targets::Devices(targets),
            ..
        }) = &entry.body
        else {
            return None;
        };
        let mut known = past.iter().filter(|hash| self.power(hash).is_some());
        let named = entry.user == self.owner
            || !self.grants_in(past, &entry.user).is_empty()
            || known
                .any(|hash| self.is_node(hash, &entry.user) || self.asks_for(hash, &entry.user));
        let own = targets
            .iter()
            .all(|of| of.user == entry.user && of.is_proven());
        let publishing = self.grants_in(past, &entry.user).into_iter().filter(|g| {
            let roles = self.grant(g).unwrap().roles;
            self.counts(g, past)
                && (roles.contains(Roles::PUBLISHER) || roles.contains(Roles::ADMIN))
        });
        (named && own).then(|| (Power::Own, publishing.collect()))
    }

    fn held(&self, entry: &LogEntry, past: &Set) -> Option<(Power, Set)> {
        let device = (entry.user, entry.device);
        if matches!(entry.body, LogBody::Genesis(_)) {
            return Some((Power::Owner, Set::new()));
        }
        if !self.outs(past, device).is_empty() {
            return None;
        }
        if entry.user == self.owner {
            return Some((Power::Owner, Set::new()));
        }
        [
            (Power::Admin, Roles::ADMIN),
            (Power::Publisher, Roles::PUBLISHER),
        ]
        .map(|(power, role)| {
            (
                power,
                self.giving(past, &entry.user, Some(entry.device), role),
            )
        })
        .into_iter()
        .find(|(_, supports)| !supports.is_empty())
    }

    fn is_allowed(&self, power: Power, entry: &LogEntry) -> bool {
        match &entry.body {
            LogBody::Genesis(_) => true,
            LogBody::Approve(_) => false,
            LogBody::Settings(_) | LogBody::KeyNodes(_) | LogBody::Close => power >= Power::Admin,
            LogBody::Revoke(revoke) => match revoke.targets {
                Targets::Devices(_) => power >= Power::Admin,
                Targets::Grants(_) | Targets::Users(_) => true,
            },
            LogBody::Grant(grant) if grant.user == self.owner => false,
            LogBody::Grant(grant) if grant.roles.contains(Roles::ADMIN) => {
                let whole = grant.interval == Interval::ALL && grant.lanes.is_empty();
                power == Power::Owner && whole
            }
            LogBody::Grant(grant) => {
                let own = grant.roles == Roles::READER && grant.lanes == [entry.user];
                power >= Power::Admin || own
            }
        }
    }

    fn grants_in(&self, set: &Set, user: &UserId) -> Set {
        let to_user = |hash: &&LogHash| {
            self.grant(hash).is_some_and(|grant| grant.user == *user) && self.power(hash).is_some()
        };
        set.iter().filter(to_user).copied().collect()
    }

    fn giving(&self, set: &Set, user: &UserId, device: Option<DeviceId>, role: Roles) -> Set {
        let mut giving = self.grants_in(set, user);
        giving.retain(|g| {
            let grant = self.grant(g).unwrap();
            let listed =
                |device: DeviceId| grant.devices.is_empty() || grant.devices.contains(&device);
            grant.roles.contains(role)
                && device.is_none_or(listed)
                && self.counts(g, set)
                && !self
                    .takers(g, set)
                    .values()
                    .any(|taken| hits(taken, device))
        });
        giving
    }

    // Section 5: removals.

    /// Counting proofs that a device is out.
    pub(crate) fn outs(&self, set: &Set, device: (UserId, DeviceId)) -> Set {
        let takes_out = |hash: &&LogHash| {
            let Some(Targets::Devices(targets)) = self.revoke(hash).map(|of| &of.targets) else {
                return false;
            };
            let power = self.power(hash);
            let entitled = power == Some(Power::Owner) || self.author(hash).0 == device.0;
            power.is_some()
                && entitled
                && targets
                    .iter()
                    .any(|of| (of.user, of.device) == device && of.is_proven())
        };
        set.iter().filter(takes_out).copied().collect()
    }

    pub(crate) fn is_held_back(&self, r: &LogHash, set: &Set) -> bool {
        let author = self.author(r);
        let by_device = self.outs(set, author).iter().any(|by| !self.reaches(by, r));
        let supports = self.supports(r);
        let by_grant = |g: &LogHash| {
            set.iter().any(|by| {
                self.reaches(by, g)
                    && !self.reaches(by, r)
                    && self
                        .take(by, g)
                        .is_some_and(|taken| hits(&taken, Some(author.1)))
            })
        };
        by_device || (!supports.is_empty() && supports.iter().all(by_grant))
    }

    pub(crate) fn takers(&self, g: &LogHash, set: &Set) -> BTreeMap<LogHash, Taken> {
        let taking = set.iter().filter_map(|r| Some((*r, self.take(r, g)?)));
        taking
            .filter(|(r, _)| self.reaches(r, g) || !self.is_held_back(r, set))
            .collect()
    }

    /// Publishers' lanes that are taken out of a grant.
    pub(crate) fn lanes_lost(&self, g: &LogHash, set: &Set) -> BTreeSet<UserId> {
        let grant = self.grant(g).unwrap();
        let taking = set.iter().filter(|r| {
            let Some(revoke) = self.revoke(r) else {
                return false;
            };
            let lane = self.author(r).0;
            self.power(r) == Some(Power::Publisher)
                && self.names(revoke, r, g)
                && reads(grant, &lane)
                && (self.reaches(r, g) || !self.is_held_back(r, set))
        });
        taking.map(|r| self.author(r).0).collect()
    }

    fn names(&self, revoke: &Revoke, r: &LogHash, g: &LogHash) -> bool {
        let user = self.grant(g).unwrap().user;
        match &revoke.targets {
            Targets::Grants(grants) => grants.contains(g),
            Targets::Users(users) => users.contains(&user) && !self.reaches(g, r),
            Targets::Devices(targets) => {
                targets.iter().any(|of| of.user == user) && !self.reaches(g, r)
            }
        }
    }

    fn take(&self, r: &LogHash, g: &LogHash) -> Option<Taken> {
        let (revoke, power, grant) = (self.revoke(r)?, self.power(r)?, self.grant(g)?);
        if power < Power::Admin || !self.names(revoke, r, g) {
            return None;
        }
        let shielded = grant.roles.contains(Roles::ADMIN)
            || !self
                .giving(&self.past[r], &grant.user, None, Roles::ADMIN)
                .is_empty();
        match &revoke.targets {
            Targets::Devices(targets) => {
                let devices = targets.iter().filter(|of| of.user == grant.user);
                let devices = devices.map(|of| of.device).collect();
                (!shielded).then_some(Some(devices))
            }
            Targets::Grants(_) | Targets::Users(_) => {
                (power == Power::Owner || !shielded).then_some(None)
            }
        }
    }

    // Section 6: what counts.

    pub(crate) fn counts(&self, hash: &LogHash, set: &Set) -> bool {
        self.counts_with(hash, set, true)
    }

    fn counts_with(&self, hash: &LogHash, set: &Set, forks_take: bool) -> bool {
        let Some(power) = self.power(hash) else {
            return false;
        };
        match self.entries[hash].body {
            LogBody::Genesis(_) | LogBody::Revoke(_) | LogBody::Close => return true,
            LogBody::Approve(approval) => return self.is_upheld(hash, approval.user, set),
            LogBody::Grant(_) | LogBody::Settings(_) | LogBody::KeyNodes(_) => (),
        }
        let author = self.author(hash);
        let reached = |r: &LogHash| self.reaches(r, hash);
        !(forks_take && self.is_forked(hash, set))
            && self.outs(set, author).iter().all(reached)
            && (power == Power::Owner
                || self.supports(hash).iter().any(|g| {
                    let takers = self.takers(g, set);
                    let mut hitting = takers.iter().filter(|(_, t)| hits(t, Some(author.1)));
                    self.counts_with(g, set, forks_take) && hitting.all(|(r, _)| reached(r))
                }))
    }

    fn is_node(&self, hash: &LogHash, user: &UserId) -> bool {
        match &self.entries[hash].body {
            LogBody::KeyNodes(nodes) => nodes.nodes.iter().any(|node| node.user == *user),
            LogBody::Genesis(_)
            | LogBody::Grant(_)
            | LogBody::Revoke(_)
            | LogBody::Settings(_)
            | LogBody::Close
            | LogBody::Approve(_) => false,
        }
    }

    fn asks_for(&self, hash: &LogHash, user: &UserId) -> bool {
        let LogBody::KeyNodes(nodes) = &self.entries[hash].body else {
            return false;
        };
        let mut demands = nodes.condition.0.iter().flatten();
        demands.any(|demand| match demand {
            Demand::Approved(approvers) => approvers.of.contains(user),
            Demand::After(_) | Demand::Before(_) => false,
        })
    }

    /// Whether nothing takes an approval.
    fn is_upheld(&self, hash: &LogHash, of: UserId, set: &Set) -> bool {
        let author = self.author(hash);
        let takes = |r: &LogHash| {
            let (Some(revoke), Some(power)) = (self.revoke(r), self.power(r)) else {
                return false;
            };
            let is_admin = |user| {
                let held = self.giving(&self.past[r], user, None, Roles::ADMIN);
                *user == self.owner || !held.is_empty()
            };
            let takes = |user| power == Power::Owner || !is_admin(user);
            let names_author = match &revoke.targets {
                Targets::Grants(_) => false,
                Targets::Users(users) => users.contains(&author.0) && takes(&author.0),
                Targets::Devices(devices) => {
                    let mut named = devices.iter().map(|of| (of.user, of.device));
                    named.any(|device| device == author) && !is_admin(&author.0)
                }
            };
            let is_his = |g: &&LogHash| {
                let grant = self.entries.get(*g).and_then(|_| self.grant(g));
                grant.is_some_and(|grant| grant.user == of) && self.power(g).is_some()
            };
            let names_other = match &revoke.targets {
                Targets::Users(users) => users.contains(&of) && takes(&of),
                Targets::Grants(grants) => {
                    let mut his = grants.iter().filter(is_his);
                    his.any(|g| self.take(r, g) == Some(None))
                }
                Targets::Devices(_) => false,
            };
            let mut since = self.past[hash].iter().filter(|k| self.reaches(k, r));
            let is_asked_since = since
                .any(|k| set.contains(k) && self.asks_for(k, &author.0) && self.counts(k, set));
            power >= Power::Admin
                && ((names_author && !is_asked_since) || (names_other && !self.reaches(hash, r)))
                && (self.reaches(r, hash) || !self.is_held_back(r, set))
        };
        let mut known = self.meant(set);
        known.retain(|k| self.counts(k, set) && self.reaches(hash, k));
        let meant = self.meant(set);
        let newest = meant
            .iter()
            .filter(|k| !known.iter().any(|by| self.reaches(by, k)));
        let is_asked = !known.is_empty() && newest.clone().all(|k| self.asks_for(k, &author.0));
        is_asked
            && !self.is_forked(hash, set)
            && self.outs(set, author).is_empty()
            && !set.iter().any(takes)
    }

    /// The entries about key nodes that count, or would but for forks.
    fn meant(&self, set: &Set) -> Set {
        let names = |k: &&LogHash| matches!(self.entries[*k].body, LogBody::KeyNodes(_));
        let named = set.iter().filter(names).copied();
        named.filter(|k| self.counts_with(k, set, false)).collect()
    }

    fn is_forked(&self, hash: &LogHash, set: &Set) -> bool {
        let (author, seq) = (self.author(hash), self.entries[hash].seq);
        let chain = set.iter().filter(|h| self.author(h) == author);
        let seqs: Vec<u32> = chain
            .map(|h| self.entries[h].seq)
            .filter(|s| *s <= seq)
            .collect();
        seqs.len() > seqs.iter().collect::<BTreeSet<_>>().len()
    }

    // Section 7: the state.

    pub(crate) fn mark(&self) -> u64 {
        let all = self.all();
        let counting = self.entries.iter().filter(|(hash, entry)| {
            let removes = matches!(entry.body, LogBody::Revoke(_) | LogBody::Close);
            self.power(hash) >= Some(Power::Admin)
                && self.counts(hash, &all)
                && !(removes && self.is_held_back(hash, &all))
                && (entry.user == self.owner || self.is_admin(&entry.user, &all))
        });
        counting
            .map(|(_, entry)| entry.time.0)
            .max()
            .unwrap_or_default()
    }

    fn is_admin(&self, user: &UserId, set: &Set) -> bool {
        !self.giving(set, user, None, Roles::ADMIN).is_empty()
    }

    pub(crate) fn is_closed(&self) -> bool {
        let all = self.all();
        self.entries.iter().any(|(hash, entry)| {
            entry.body == LogBody::Close
                && self.power(hash).is_some()
                && !self.is_held_back(hash, &all)
        })
    }

    pub(crate) fn rekey_every_ms(&self) -> u64 {
        let all = self.all();
        let of = |hash: &LogHash| match self.entries[hash].body {
            LogBody::Settings(settings) if self.counts(hash, &all) => Some(settings.rekey_every_ms),
            LogBody::Settings(_)
            | LogBody::KeyNodes(_)
            | LogBody::Genesis(_)
            | LogBody::Grant(_)
            | LogBody::Revoke(_)
            | LogBody::Close
            | LogBody::Approve(_) => None,
        };
        let counting: Set = all
            .iter()
            .filter(|hash| of(hash).is_some())
            .copied()
            .collect();
        let newest = counting
            .iter()
            .filter(|a| !counting.iter().any(|b| self.reaches(b, a)));
        let strictest = newest.filter_map(of).min_by_key(|ms| ms.wrapping_sub(1));
        strictest.unwrap_or(0)
    }

    /// The entry that names the key nodes.
    pub(crate) fn key_nodes(&self) -> Option<LogHash> {
        let all = self.all();
        let meant = self.meant(&all);
        let is_newest = |a: &&LogHash| !meant.iter().any(|b| self.reaches(b, a));
        let newest: Vec<&LogHash> = meant.iter().filter(is_newest).collect();
        let [one] = newest[..] else {
            return None;
        };
        if !self.counts(one, &all) {
            return None;
        }
        let LogBody::KeyNodes(nodes) = &self.entries[one].body else {
            return None;
        };
        (!nodes.nodes.is_empty()).then_some(*one)
    }

    /// Up to when one user approves of another.
    pub(crate) fn approval(&self, by: &UserId, of: &UserId) -> Option<u64> {
        let all = self.all();
        let until = |hash: &LogHash| match self.entries[hash].body {
            LogBody::Approve(approval) if approval.user == *of && self.author(hash).0 == *by => {
                let mut outs = self.outs(&all, self.author(hash)).into_iter();
                let is_passed_over = outs.any(|r| !self.reaches(&r, hash));
                let power = self.power(hash).filter(|_| !is_passed_over);
                power.map(|_| approval.until.0)
            }
            LogBody::Approve(_)
            | LogBody::KeyNodes(_)
            | LogBody::Settings(_)
            | LogBody::Genesis(_)
            | LogBody::Grant(_)
            | LogBody::Revoke(_)
            | LogBody::Close => None,
        };
        let said: Set = all
            .iter()
            .filter(|hash| until(hash).is_some())
            .copied()
            .collect();
        let mut newest = said
            .iter()
            .filter(|a| !said.iter().any(|b| self.reaches(b, a)));
        let sound = newest.clone().all(|hash| self.counts(hash, &all));
        let least = newest.by_ref().filter_map(until).min();
        least.filter(|until| sound && *until > 0)
    }

    pub(crate) fn removals(&self, lane: &UserId) -> Set {
        let all = self.all();
        let first = |of: &mut dyn Iterator<Item = LogHash>| {
            of.min_by_key(|r| (self.is_held_back(r, &all), self.depth[r], *r))
        };
        let mut removals = Set::new();
        for (g, _) in self.grants().filter(|(g, _)| self.counts(g, &all)) {
            let takers = self.takers(&g, &all);
            let whole = takers.iter().filter(|(_, taken)| taken.is_none());
            if let Some(whole) = first(&mut whole.map(|(r, _)| *r)) {
                removals.insert(whole);
                continue;
            }
            let devices: BTreeSet<_> = takers.values().flatten().flatten().collect();
            for device in devices {
                let taking = takers
                    .iter()
                    .filter(|(_, taken)| hits(taken, Some(*device)));
                removals.extend(first(&mut taking.map(|(r, _)| *r)));
            }
        }
        for device in self.devices_out() {
            let usable = self.usable(device, &all).next().is_some();
            if device.0 == self.owner || usable {
                removals.extend(first(&mut self.outs(&all, device).into_iter()));
            }
        }
        removals.extend(all.iter().filter(|r| {
            let is_lane = self.power(r) == Some(Power::Publisher) && self.author(r).0 == *lane;
            is_lane && self.revoke(r).is_some()
        }));
        removals
    }

    fn devices_out(&self) -> BTreeSet<(UserId, DeviceId)> {
        let revokes = self.entries.keys().filter_map(|hash| self.revoke(hash));
        let targets = revokes.flat_map(|revoke| match &revoke.targets {
            Targets::Devices(targets) => &targets[..],
            Targets::Grants(_) | Targets::Users(_) => &[],
        });
        let all = self.all();
        let devices = targets.map(|of| (of.user, of.device));
        devices
            .filter(|device| !self.outs(&all, *device).is_empty())
            .collect()
    }

    /// Grants that a device could use, were it not out.
    fn usable(&self, device: (UserId, DeviceId), all: &Set) -> impl Iterator<Item = LogHash> {
        let usable = self.grants().filter(move |(g, grant)| {
            grant.user == device.0
                && (grant.devices.is_empty() || grant.devices.contains(&device.1))
                && self.counts(g, all)
                && !self
                    .takers(g, all)
                    .values()
                    .any(|taken| hits(taken, Some(device.1)))
        });
        usable.map(|(g, _)| g)
    }

    pub(crate) fn roles(&self, device: (UserId, DeviceId)) -> Roles {
        let everything = Roles::ADMIN.with(Roles::PUBLISHER).with(Roles::READER);
        let all = self.all();
        if !self.outs(&all, device).is_empty() {
            return Roles::NONE;
        }
        if device.0 == self.owner {
            return everything;
        }
        let usable = self.usable(device, &all);
        let roles = usable.fold(Roles::NONE, |roles, g| {
            roles.with(self.grant(&g).unwrap().roles)
        });
        match roles.contains(Roles::ADMIN) {
            true => everything,
            false => roles,
        }
    }

    /// Whether a device may read a position of a lane.
    pub(crate) fn may_read(
        &self,
        device: (UserId, DeviceId),
        lane: &UserId,
        position: sealcast_protocol::Position,
    ) -> bool {
        let all = self.all();
        let roles = self.roles(device);
        let holds =
            roles.contains(Roles::ADMIN) || (roles.contains(Roles::PUBLISHER) && device.0 == *lane);
        let opens = |g: LogHash| {
            let grant = self.grant(&g).unwrap();
            reads(grant, lane)
                && grant.interval.contains(position)
                && !self.lanes_lost(&g, &all).contains(lane)
        };
        holds || (self.outs(&all, device).is_empty() && self.usable(device, &all).any(opens))
    }

    pub(crate) fn publish_right(
        &self,
        device: (UserId, DeviceId),
        position: sealcast_protocol::Position,
        record: &Set,
    ) -> PublishRight {
        let all = self.all();
        let outs = self.outs(&all, device);
        if device.0 == self.owner {
            return match outs.is_empty() {
                true => PublishRight::Held,
                false => up_to_hashes(self.tips(&outs, &device.1)),
            };
        }
        let usable: Set = match outs.is_empty() {
            true => self.usable(device, &all).collect(),
            false => Set::new(),
        };
        let covering = self.grants().filter(|(g, grant)| {
            (grant.roles.contains(Roles::PUBLISHER) || grant.roles.contains(Roles::ADMIN))
                && grant.user == device.0
                && (grant.devices.is_empty() || grant.devices.contains(&device.1))
                && grant.interval.contains(position)
                && self.counts(g, &all)
        });
        let (held, lost): (Vec<_>, Vec<_>) =
            covering.map(|(g, _)| g).partition(|g| usable.contains(g));
        let reached = held.iter().any(|g| record.contains(g));
        if reached || (lost.is_empty() && !held.is_empty()) {
            return PublishRight::Held;
        }
        let tips = lost.iter().flat_map(|g| {
            let mut takers: Set = self.takers(g, &all).into_keys().collect();
            takers.extend(&outs);
            self.tips(&takers, &device.1)
        });
        up_to_hashes(tips.collect())
    }

    /// The tips of all devices, by whatever right they published.
    pub(crate) fn revoked_tips(&self, devices: &[(UserId, DeviceId)]) -> Tips {
        let all = self.all();
        let mut tips = Tips::new();
        for device in devices {
            let outs = self.outs(&all, *device);
            let mut rights = vec![Set::new()];
            if device.0 != self.owner {
                let publishing = self.grants().filter(|(g, grant)| {
                    grant.user == device.0
                        && (grant.roles.contains(Roles::PUBLISHER)
                            || grant.roles.contains(Roles::ADMIN))
                        && self.counts(g, &all)
                });
                rights = publishing
                    .map(|(g, _)| self.takers(&g, &all).into_keys().collect())
                    .collect();
            }
            for mut takers in rights {
                takers.extend(&outs);
                let told = self.tips(&takers, &device.1);
                tips.entry(device.1).or_default().extend(told);
            }
        }
        tips.retain(|_, tips| !tips.is_empty());
        tips
    }

    fn tips(&self, takers: &Set, device: &DeviceId) -> BTreeSet<EnvelopeHash> {
        let all = self.all();
        let firm: Set = takers
            .iter()
            .filter(|r| !self.is_held_back(r, &all))
            .copied()
            .collect();
        let heard = if firm.is_empty() { takers } else { &firm };
        let last = heard
            .iter()
            .filter_map(|r| self.revoke(r))
            .flat_map(|revoke| &revoke.last);
        let of_device = last.filter(|of| of.device == *device);
        of_device.flat_map(|of| of.tips.iter().copied()).collect()
    }
}

fn refs(entry: &LogEntry) -> Set {
    let named = entry.heads.iter().chain([&entry.prev]);
    named.filter(|hash| **hash != NO_ENTRY).copied().collect()
}

/// Whether a device, or with none named every device, loses the grant.
fn hits(taken: &Taken, device: Option<DeviceId>) -> bool {
    match taken {
        None => true,
        Some(devices) => device.is_some_and(|device| devices.contains(&device)),
    }
}

fn reads(grant: &Grant, lane: &UserId) -> bool {
    grant.roles.contains(Roles::READER) && (grant.lanes.is_empty() || grant.lanes.contains(lane))
}

//! Who may do what in a stream, by all that is known of its access log.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::ids::{DeviceId, EnvelopeHash, Interval, LogHash, Position, UserId};
use crate::v1::log_approvals::Approvals;
use crate::v1::log_clock::{Clock, Place};
use crate::v1::log_entry::{Genesis, Grant, LogBody, Roles, Settings, Sharing};
use crate::v1::log_graph::AccessLog;
use crate::v1::log_key_nodes::{KeyNodeSets, KeyNodes};
use crate::v1::log_rules::{Power, Taken, View, is_for, publishes, reads};

/// Who may do what, computed from an [`AccessLog`]; compute it anew after insertions. Two logs of
/// the same entries have equal states, in whatever order the entries came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogState {
    owner: UserId,
    genesis: Option<Genesis>,
    settings: Settings,
    pub(super) key_nodes: KeyNodeSets,
    pub(super) approvals: Approvals,
    is_closed: bool,
    grants: Vec<GrantState>,
    /// Indexes into `grants`.
    grants_to: BTreeMap<UserId, Vec<usize>>,
    /// Devices that are out by their own user's word.
    outs: BTreeMap<(UserId, DeviceId), Tips>,
    removals: BTreeSet<Removal>,
    mark: Position,
}

/// One authorised grant and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantState {
    /// Its id: the hash of its entry.
    pub id: LogHash,
    /// What it gave.
    pub grant: Grant,
    /// Who gave it.
    pub author: UserId,
    /// When, by the author's clock.
    pub time: Position,
    /// Whether it counts.
    pub standing: Standing,
    /// Lanes that their publishers took out of it.
    pub lanes_lost: BTreeSet<UserId>,
    /// Devices that owner or admins took out of it; see [`LogState::is_out`] for those that their
    /// own user took out.
    pub devices_lost: BTreeSet<DeviceId>,
    tips: Tips,
}

/// Whether a grant counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It counts.
    Counts,
    /// It was taken back by this entry.
    Revoked(LogHash),
    /// What it rested on does not count any more, or its author's device forked.
    Void,
}

/// Whether an envelope may be delivered, by its sender's rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishRight {
    /// It may.
    Held,
    /// It may if it is one of these envelopes, ascending, or comes before one of them in the
    /// sender's chain.
    UpTo(Vec<EnvelopeHash>),
    /// It may not.
    Missing,
}

/// How far the envelopes of devices count that can no longer publish.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Tips {
    /// Whether a removal that is not held back says so; then those that are have no say.
    is_firm: bool,
    by_device: BTreeMap<DeviceId, BTreeSet<EnvelopeHash>>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Removal {
    hash: LogHash,
    /// The one lane it concerns; `None` for all.
    lane: Option<UserId>,
}

/// Which of several removals a state names: best one that is not held back, then the earliest.
type Rank = (bool, u32, LogHash);

impl AccessLog {
    /// Computes who may do what.
    pub fn state(&self) -> LogState {
        let mut view = View::new(self, self.all());
        let mut state = LogState {
            owner: self.owner,
            genesis: None,
            settings: self.settings_in(&mut view),
            key_nodes: self.key_nodes_in(&mut view),
            approvals: self.approvals_in(&mut view),
            is_closed: false,
            grants: Vec::with_capacity(self.rights.grants.len()),
            grants_to: BTreeMap::new(),
            outs: BTreeMap::new(),
            removals: BTreeSet::new(),
            mark: Position::START,
        };
        self.add_grants(&mut state, &mut view);
        self.add_outs(&mut state, &mut view);
        for (i, node) in self.nodes() {
            let (entry, power) = (node.entry.body(), node.verdict.power);
            // Approvals have been judged, the last of each.
            if matches!(entry.body, LogBody::Approve(_)) || !view.counts(i) {
                continue;
            }
            let is_removal = matches!(entry.body, LogBody::Revoke(_) | LogBody::Close);
            let is_held_back = is_removal && view.is_held_back(i);
            if power >= Some(Power::Admin) && !is_held_back && state.decides(&entry.user) {
                state.mark = state.mark.max(entry.time);
            }
            match &entry.body {
                LogBody::Genesis(genesis) => state.genesis = Some(*genesis),
                LogBody::Close => state.is_closed |= !is_held_back,
                LogBody::Revoke(_) if power == Some(Power::Publisher) => {
                    let lane = Some(entry.user);
                    state.removals.insert(Removal {
                        hash: node.hash,
                        lane,
                    });
                }
                LogBody::Revoke(_)
                | LogBody::Grant(_)
                | LogBody::Settings(_)
                | LogBody::KeyNodes(_)
                | LogBody::Approve(_) => (),
            }
        }
        let can_be_named = self.nameable();
        state.removals.retain(|removal| can_be_named(&removal.hash));
        state
    }

    fn add_grants(&self, state: &mut LogState, view: &mut View<'_>) {
        let mut sorted = self.rights.grants.clone();
        sorted.sort_unstable_by_key(|&g| (self.node(g).depth, self.node(g).hash));
        let mut cuts = BTreeMap::new();
        for g in sorted {
            let Some(grant) = self.grant(g) else {
                continue;
            };
            let of_user = cuts
                .entry(grant.user)
                .or_insert_with(|| self.lane_cuts(&grant.user, view));
            let mut lanes_lost: BTreeSet<_> = of_user
                .iter()
                .filter(|(lane, cut)| reads(grant, lane) && cut.hits(self, g))
                .map(|(lane, _)| *lane)
                .collect();
            lanes_lost.extend(self.lanes_taken_by_id(g, grant, view));
            let grants_to = state.grants_to.entry(grant.user).or_default();
            grants_to.push(state.grants.len());
            let (standing, devices_lost, tips) = self.standing(g, grant, state, view);
            state.grants.push(GrantState {
                id: self.node(g).hash,
                grant: grant.clone(),
                author: self.node(g).entry.body().user,
                time: self.node(g).entry.body().time,
                standing,
                lanes_lost,
                devices_lost,
                tips,
            });
        }
    }

    fn standing(
        &self,
        g: usize,
        grant: &Grant,
        state: &mut LogState,
        view: &mut View<'_>,
    ) -> (Standing, BTreeSet<DeviceId>, Tips) {
        let (mut tips, mut whole) = (Tips::default(), None::<Rank>);
        let mut devices: BTreeMap<DeviceId, Rank> = BTreeMap::new();
        for (r, taken) in view.takers(g) {
            let rank = self.rank(r, view);
            if publishes(grant) {
                self.add_tips(&mut tips, r, rank);
            }
            match taken {
                Taken::Whole => whole = Some(whole.map_or(rank, |best| best.min(rank))),
                Taken::Devices(taken) => {
                    for device in taken {
                        let best = devices.entry(device).or_insert(rank);
                        *best = rank.min(*best);
                    }
                }
            }
        }
        let standing = match (view.counts(g), whole) {
            (false, _) => Standing::Void,
            (true, None) => Standing::Counts,
            (true, Some((_, _, hash))) => Standing::Revoked(hash),
        };
        let by_all = match standing {
            Standing::Counts => devices.values().map(|rank| rank.2).collect(),
            Standing::Revoked(hash) => Vec::from([hash]),
            Standing::Void => Vec::new(),
        };
        let removals = by_all.into_iter().map(|hash| Removal { hash, lane: None });
        state.removals.extend(removals);
        (standing, devices.into_keys().collect(), tips)
    }

    fn add_outs(&self, state: &mut LogState, view: &mut View<'_>) {
        for (&(user, device), revokes) in &self.rights.outs {
            let (mut tips, mut best) = (Tips::default(), None::<Rank>);
            for &r in revokes {
                let rank = self.rank(r, view);
                self.add_tips(&mut tips, r, rank);
                best = Some(best.map_or(rank, |best| best.min(rank)));
            }
            let had_use = user == self.owner || state.standing_for(&user, &device).next().is_some();
            if let Some((_, _, hash)) = best.filter(|_| had_use) {
                state.removals.insert(Removal { hash, lane: None });
            }
            state.outs.insert((user, device), tips);
        }
    }

    fn rank(&self, r: usize, view: &mut View<'_>) -> Rank {
        (view.is_held_back(r), self.node(r).depth, self.node(r).hash)
    }

    fn add_tips(&self, tips: &mut Tips, r: usize, (is_held_back, _, _): Rank) {
        let last = self.revoke(r).map_or(&[][..], |revoke| &revoke.last);
        let by_device = last
            .iter()
            .map(|of| (of.device, of.tips.iter().copied().collect()));
        tips.add(Tips {
            is_firm: !is_held_back,
            by_device: by_device.collect(),
        });
    }

    /// What publishers took of the reading of a user, each of its own lane.
    fn lane_cuts(&self, user: &UserId, view: &mut View<'_>) -> BTreeMap<UserId, LaneCut> {
        let mut cuts: BTreeMap<UserId, LaneCut> = BTreeMap::new();
        let revokes = view.in_set(self.rights.lane_revokes.by_user.get(user));
        for r in revokes {
            let node = self.node(r);
            let cut = cuts.entry(node.entry.body().user).or_default();
            if view.is_held_back(r) {
                cut.seen.merge(&node.past);
            } else {
                let last = cut.last.entry(node.place.branch).or_default();
                *last = node.place.index.max(*last);
            }
        }
        cuts
    }

    /// Lanes whose publishers took this one grant out, by its id.
    fn lanes_taken_by_id(&self, g: usize, grant: &Grant, view: &mut View<'_>) -> BTreeSet<UserId> {
        let revokes = view.in_set(self.rights.lane_revokes.by_grant.get(&self.node(g).hash));
        let taking = revokes.filter(|&r| self.is_before(g, r) || !view.is_held_back(r));
        let lanes = taking.map(|r| self.node(r).entry.body().user);
        lanes.filter(|lane| reads(grant, lane)).collect()
    }

    /// The settings that no other settings follow; where several stand side by side, the strictest.
    fn settings_in(&self, view: &mut View<'_>) -> Settings {
        let mut counting = Vec::new();
        let mut older = Clock::default();
        for (i, node) in self.nodes() {
            if let LogBody::Settings(settings) = node.entry.body().body
                && view.counts(i)
            {
                older.merge(&node.past);
                counting.push((node.place, settings));
            }
        }
        let strictness = |settings: &Settings| match settings.rekey_every_ms {
            0 => u64::MAX,
            every => every,
        };
        let newest = counting.iter().filter(|(place, _)| !older.contains(*place));
        newest
            .map(|(_, settings)| *settings)
            .min_by_key(strictness)
            .unwrap_or(Settings { rekey_every_ms: 0 })
    }
}

/// What the revokes of one publisher that name a user take from the user's grants.
#[derive(Debug, Default)]
struct LaneCut {
    /// Of each branch, the last revoke that is not held back: it takes what does not follow it.
    last: BTreeMap<u32, u32>,
    /// The past of those that are held back: they take only what lies in it.
    seen: Clock,
}

impl LaneCut {
    fn hits(&self, log: &AccessLog, g: usize) -> bool {
        let past = &log.node(g).past;
        let mut last = self.last.iter();
        log.is_in(g, &self.seen)
            || last.any(|(&branch, &index)| !past.contains(Place { branch, index }))
    }
}

impl Tips {
    fn add(&mut self, other: Self) {
        if self.is_firm && !other.is_firm {
            return;
        }
        if other.is_firm && !self.is_firm {
            *self = Self {
                is_firm: true,
                by_device: BTreeMap::new(),
            };
        }
        for (device, tips) in other.by_device {
            self.by_device.entry(device).or_default().extend(tips);
        }
    }

    fn of(&self, device: &DeviceId) -> impl Iterator<Item = &EnvelopeHash> {
        self.by_device.get(device).into_iter().flatten()
    }
}

/// What two kinds of removal list for a device; where only one has a say, what that one lists.
fn firmest<'a>(
    of_grant: &'a Tips,
    of_device: Option<&'a Tips>,
    device: &DeviceId,
) -> impl Iterator<Item = &'a EnvelopeHash> {
    let is_firm = of_grant.is_firm || of_device.is_some_and(|tips| tips.is_firm);
    let said = [Some(of_grant), of_device].into_iter().flatten();
    let said = said.filter(move |tips| tips.is_firm == is_firm);
    said.flat_map(move |tips| tips.of(device))
}

fn up_to(tips: BTreeSet<EnvelopeHash>) -> PublishRight {
    match tips.is_empty() {
        true => PublishRight::Missing,
        false => PublishRight::UpTo(tips.into_iter().collect()),
    }
}

impl LogState {
    /// The owner.
    pub fn owner(&self) -> UserId {
        self.owner
    }

    /// When keys are handed out; as in `manual` until the first entry is known.
    pub fn sharing(&self) -> Sharing {
        self.genesis
            .map_or(Sharing::Manual, |genesis| genesis.sharing)
    }

    /// Whether the stream's roots lie open.
    pub fn is_public(&self) -> bool {
        self.genesis.is_some_and(|genesis| genesis.public)
    }

    /// Whether the first entry of the stream is known.
    pub fn has_begun(&self) -> bool {
        self.genesis.is_some()
    }

    /// Whether the stream has ended.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// What may change.
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// The key nodes, and the entry that names them.
    pub fn key_nodes(&self) -> Option<(LogHash, &KeyNodes)> {
        let entry = self.key_nodes.in_force?;
        Some((entry, self.key_nodes.named.get(&entry)?))
    }

    /// Every authorised grant, each after those in its past.
    pub fn grants(&self) -> &[GrantState] {
        &self.grants
    }

    /// The latest time of a counting entry of the owner or of someone who is an admin now. Nobody
    /// seals below it.
    /// Removals that are held back have no say.
    pub fn mark(&self) -> Position {
        self.mark
    }

    /// Whether a user is the owner or an admin now, on whichever device.
    fn decides(&self, user: &UserId) -> bool {
        let mut held = self.grants_to(user);
        *user == self.owner
            || held
                .any(|of| of.standing == Standing::Counts && of.grant.roles.contains(Roles::ADMIN))
    }

    /// Removals that the record of a session of this lane must have in its past: for each right
    /// that was taken from a grant that counted, one removal that took it. [`AccessLog::heads`]
    /// reach them all.
    pub fn removals(&self, lane: &UserId) -> impl Iterator<Item = LogHash> {
        let removals = self.removals.iter();
        let concerned = removals.filter(move |r| r.lane.is_none_or(|of| of == *lane));
        concerned.map(|removal| removal.hash)
    }

    /// Whether a device is out of the stream by its own user's word, whatever is granted.
    pub fn is_out(&self, user: &UserId, device: &DeviceId) -> bool {
        self.outs.contains_key(&(*user, *device))
    }

    /// The roles that a user holds on a device, whatever the interval. Owner and admins have all.
    pub fn roles(&self, user: &UserId, device: &DeviceId) -> Roles {
        const ALL: Roles = Roles::ADMIN.with(Roles::PUBLISHER).with(Roles::READER);
        if *user == self.owner {
            return match self.is_out(user, device) {
                true => Roles::NONE,
                false => ALL,
            };
        }
        let held = self.standing_for(user, device);
        let roles = held.fold(Roles::NONE, |roles, of| roles.with(of.grant.roles));
        match roles.contains(Roles::ADMIN) {
            true => ALL,
            false => roles,
        }
    }

    /// The intervals of a lane that a user may read on a device, merged, ascending.
    pub fn readable(&self, user: &UserId, device: &DeviceId, lane: &UserId) -> Vec<Interval> {
        if self.is_keyholder(user, device, lane) {
            return Vec::from([Interval::ALL]);
        }
        self.reading(user, device, lane, |_| true)
    }

    /// The intervals of a lane of which a user on a device may hand its covers on to others whom the
    /// log entitles, merged, ascending.
    pub fn resharable(&self, user: &UserId, device: &DeviceId, lane: &UserId) -> Vec<Interval> {
        self.reading(user, device, lane, |grant| grant.reshare)
    }

    fn reading(
        &self,
        user: &UserId,
        device: &DeviceId,
        lane: &UserId,
        is_meant: impl Fn(&Grant) -> bool,
    ) -> Vec<Interval> {
        let held = self.standing_for(user, device);
        let open = held.filter(|of| reads(&of.grant, lane) && !of.lanes_lost.contains(lane));
        let open = open.filter(|of| is_meant(&of.grant));
        merged(open.map(|of| of.grant.interval).collect())
    }

    /// Whether a user on a device may hold the roots of a lane: owner, admin, or its publisher.
    pub fn is_keyholder(&self, user: &UserId, device: &DeviceId, lane: &UserId) -> bool {
        let roles = self.roles(user, device);
        roles.contains(Roles::ADMIN) || (user == lane && roles.contains(Roles::PUBLISHER))
    }

    /// Users who may hold the roots of a lane on some device.
    pub fn keyholders(&self, lane: &UserId) -> BTreeSet<UserId> {
        let standing = self
            .grants
            .iter()
            .filter(|of| of.standing == Standing::Counts);
        let holders = standing.filter(|of| {
            let roles = of.grant.roles;
            roles.contains(Roles::ADMIN)
                || (of.grant.user == *lane && roles.contains(Roles::PUBLISHER))
        });
        holders
            .map(|of| of.grant.user)
            .chain([self.owner])
            .collect()
    }

    /// Whether a user on a device may seal at a position now.
    pub fn may_publish(&self, user: &UserId, device: &DeviceId, position: Position) -> bool {
        let by_grant = |of: &GrantState| {
            of.grant.roles.contains(Roles::PUBLISHER) && of.grant.interval.contains(position)
        };
        !self.is_closed
            && (self.roles(user, device).contains(Roles::ADMIN)
                || self.standing_for(user, device).any(by_grant))
    }

    /// By what right an envelope of a device, sealed at a position, may be delivered. `reaches`
    /// tells whether the record of the envelope's session has an entry in its past.
    pub fn publish_right(
        &self,
        user: &UserId,
        device: &DeviceId,
        position: Position,
        reaches: impl Fn(&LogHash) -> bool,
    ) -> PublishRight {
        let out = self.outs.get(&(*user, *device));
        if *user == self.owner {
            return match out {
                None => PublishRight::Held,
                Some(tips) => up_to(tips.of(device).copied().collect()),
            };
        }
        let publishing = self.grants_to(user).filter(|of| {
            publishes(&of.grant)
                && is_for(&of.grant, device)
                && of.grant.interval.contains(position)
                && of.standing != Standing::Void
        });
        let (lost, held): (Vec<_>, Vec<_>) = publishing.partition(|of| {
            out.is_some() || of.standing != Standing::Counts || of.devices_lost.contains(device)
        });
        let has_newer = held.iter().any(|of| reaches(&of.id));
        if has_newer || (lost.is_empty() && !held.is_empty()) {
            return PublishRight::Held;
        }
        let tips = lost.iter().flat_map(|of| firmest(&of.tips, out, device));
        up_to(tips.copied().collect())
    }

    /// For each device that can no longer publish by some right it had: the envelopes up to which
    /// it counts. All that [`PublishRight::UpTo`] may name is among them.
    pub fn revoked_tips(&self) -> BTreeMap<DeviceId, Vec<EnvelopeHash>> {
        let mut tips = BTreeMap::<DeviceId, BTreeSet<EnvelopeHash>>::new();
        let first = DeviceId([0; 16]);
        let outs_of = |user: UserId| {
            let outs = self.outs.range((user, first)..);
            outs.take_while(move |((of, _), _)| *of == user)
        };
        for ((_, device), out) in outs_of(self.owner) {
            tips.entry(*device).or_default().extend(out.of(device));
        }
        let publishing = self.grants.iter().filter(|of| publishes(&of.grant));
        for of in publishing.filter(|of| of.standing != Standing::Void) {
            let user = of.grant.user;
            let out = outs_of(user).map(|((_, device), _)| device);
            for device in of.tips.by_device.keys().chain(out) {
                let said = firmest(&of.tips, self.outs.get(&(user, *device)), device);
                tips.entry(*device).or_default().extend(said);
            }
        }
        let tips = tips.into_iter().filter(|(_, tips)| !tips.is_empty());
        tips.map(|(device, tips)| (device, tips.into_iter().collect()))
            .collect()
    }

    fn grants_to(&self, user: &UserId) -> impl Iterator<Item = &GrantState> {
        let indexes = self.grants_to.get(user).into_iter().flatten();
        indexes.filter_map(|&i| self.grants.get(i))
    }

    fn standing_for(&self, user: &UserId, device: &DeviceId) -> impl Iterator<Item = &GrantState> {
        let is_out = self.is_out(user, device);
        self.grants_to(user).filter(move |of| {
            !is_out
                && of.standing == Standing::Counts
                && is_for(&of.grant, device)
                && !of.devices_lost.contains(device)
        })
    }
}

/// Joins intervals that touch or overlap.
pub fn merged(mut intervals: Vec<Interval>) -> Vec<Interval> {
    intervals.sort_unstable();
    let mut joined: Vec<Interval> = Vec::with_capacity(intervals.len());
    for next in intervals {
        match joined.last_mut() {
            Some(last) if next.from <= last.until => last.until = last.until.max(next.until),
            _ => joined.push(next),
        }
    }
    joined
}

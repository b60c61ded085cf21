//! The access log as a graph: who came after whom, in whatever order entries arrive.
//!
//! ```text
//! Verified<LogEntry> ── insert ──► waiting ── its past is here ──► linked
//! ```

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::cmp::Reverse;

use crate::ids::{DeviceId, LogHash, StreamId, UserId};
use crate::signed::Verified;
use crate::v1::log_clock::{Clock, Place};
use crate::v1::log_entry::{LIST_MAX, LogBody, LogEntry, NO_ENTRY, Roles, Targets};
use crate::v1::log_rules::{Power, Verdict, publishes};

/// The entries of one stream that are known, and what follows from them.
///
/// Feed it every entry of the stream's users, in any order; entries whose past is not known yet
/// wait inside. What it says is a pure function of the set of entries.
#[derive(Clone, Debug)]
pub struct AccessLog {
    pub(super) stream: StreamId,
    pub(super) owner: UserId,
    nodes: Vec<Node>,
    index: BTreeMap<LogHash, usize>,
    pub(super) rights: Rights,
    chains: BTreeMap<(UserId, DeviceId), Chain>,
    branch_lens: Vec<u32>,
    all: Clock,
    tips: BTreeSet<usize>,
    waiting: BTreeMap<LogHash, Waiting>,
    /// What waits for an entry that is not linked.
    awaited: BTreeMap<LogHash, Vec<LogHash>>,
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) entry: Verified<LogEntry>,
    pub(super) hash: LogHash,
    /// Entries on the longest way back to the first one.
    pub(super) depth: u32,
    pub(super) verdict: Verdict,
    pub(super) past: Clock,
    pub(super) place: Place,
    is_well_formed: bool,
}

/// The authorised grants and revokes, by what they name.
#[derive(Clone, Debug, Default)]
pub(super) struct Rights {
    pub(super) grants: Vec<usize>,
    pub(super) grants_to: BTreeMap<UserId, Vec<usize>>,
    /// Those that make admins and publishers.
    pub(super) ranks_of: BTreeMap<UserId, Vec<usize>>,
    pub(super) admins: BTreeSet<UserId>,
    /// Revokes of owner and admins.
    pub(super) revokes: Named,
    /// Revokes of publishers, each about its own lane.
    pub(super) lane_revokes: Named,
    /// Entries that name users as key nodes, or in their condition.
    pub(super) key_nodes: BTreeMap<UserId, Vec<usize>>,
    /// All of these entries.
    pub(super) key_node_sets: Vec<usize>,
    /// Those that ask for a user's approval.
    pub(super) approvers: BTreeMap<UserId, Vec<usize>>,
    /// Revokes that carry the proof of a device's user that the device is out.
    pub(super) outs: BTreeMap<(UserId, DeviceId), Vec<usize>>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Named {
    pub(super) by_user: BTreeMap<UserId, Vec<usize>>,
    pub(super) by_grant: BTreeMap<LogHash, Vec<usize>>,
}

#[derive(Clone, Debug, Default)]
struct Chain {
    seats: BTreeMap<u32, Vec<usize>>,
    /// Seats with several entries.
    forks: BTreeMap<u32, Vec<usize>>,
}

#[derive(Clone, Debug)]
struct Waiting {
    entry: Verified<LogEntry>,
    lacks: usize,
}

impl AccessLog {
    /// An empty log of the stream that `owner` started.
    pub fn new(stream: StreamId, owner: UserId) -> Self {
        Self {
            stream,
            owner,
            nodes: Vec::new(),
            index: BTreeMap::new(),
            rights: Rights::default(),
            chains: BTreeMap::new(),
            branch_lens: Vec::new(),
            all: Clock::default(),
            tips: BTreeSet::new(),
            waiting: BTreeMap::new(),
            awaited: BTreeMap::new(),
        }
    }

    /// Takes in one entry. It must have been verified with the signing key that the list of the
    /// entry's user has for the entry's device; nothing here looks at keys again.
    pub fn insert(&mut self, entry: Verified<LogEntry>) -> Inserted {
        let hash = LogHash::from(entry.digest());
        if self.index.contains_key(&hash) || self.waiting.contains_key(&hash) {
            return Inserted::Known;
        }
        if !self.is_of_this_stream(hash, entry.body()) {
            return Inserted::Foreign;
        }
        let lacking: Vec<_> = refs(entry.body())
            .filter(|named| !self.index.contains_key(named))
            .collect();
        if lacking.is_empty() {
            self.link_with_followers(hash, entry);
            return Inserted::Linked;
        }
        for named in &lacking {
            self.awaited.entry(*named).or_default().push(hash);
        }
        let lacks = lacking.len();
        self.waiting.insert(hash, Waiting { entry, lacks });
        Inserted::Waiting
    }

    /// Whether an entry is known together with its whole past.
    pub fn contains(&self, hash: &LogHash) -> bool {
        self.index.contains_key(hash)
    }

    /// The stream.
    pub fn stream(&self) -> StreamId {
        self.stream
    }

    /// The owner.
    pub fn owner(&self) -> UserId {
        self.owner
    }

    /// Every linked entry, each after its past.
    pub fn entries(&self) -> impl Iterator<Item = &Verified<LogEntry>> {
        self.nodes.iter().map(|node| &node.entry)
    }

    /// Entries that others name and that did not come: a bus may be hiding them.
    pub fn missing(&self) -> BTreeSet<LogHash> {
        let awaited = self.awaited.keys().copied();
        awaited
            .filter(|hash| !self.waiting.contains_key(hash))
            .collect()
    }

    /// Authors of entries that wait for their past.
    pub fn waiting_authors(&self) -> BTreeSet<UserId> {
        let waiting = self.waiting.values();
        waiting.map(|waiting| waiting.entry.body().user).collect()
    }

    /// Users whose device lists and chains a reader of this log must follow: the owner and
    /// everyone whom an authorised grant or an authorised entry about key nodes names.
    pub fn named_users(&self) -> BTreeSet<UserId> {
        let named = self.rights.grants_to.keys().copied();
        let nodes = self.rights.key_nodes.keys().copied();
        named.chain(nodes).chain([self.owner]).collect()
    }

    /// Whether nothing that others may do can rest on what a user writes: it was never named for more than to read.
    pub fn is_reader_alone(&self, user: &UserId) -> bool {
        let Rights {
            ranks_of,
            key_nodes,
            ..
        } = &self.rights;
        *user != self.owner && !ranks_of.contains_key(user) && !key_nodes.contains_key(user)
    }

    /// Where a device's next entry goes: its `seq` and `prev`. After a fork, behind the longest
    /// branch.
    pub fn next_seat(&self, user: &UserId, device: &DeviceId) -> (u32, LogHash) {
        let chain = self.chains.get(&(*user, *device));
        let mut seats = chain.into_iter().flat_map(|chain| chain.seats.iter().rev());
        let last = seats.find_map(|(seq, nodes)| {
            let sound = nodes.iter().map(|&i| self.node(i));
            let sound = sound.filter(|node| node.is_well_formed);
            Some((seq.checked_add(1)?, sound.map(|node| node.hash).min()?))
        });
        last.unwrap_or((0, NO_ENTRY))
    }

    /// What an entry or a session record written now names as its `heads`: the authorised entries
    /// that no other authorised entry follows, ascending, without `prev`. Of more than [`LIST_MAX`]
    /// each user's first ones, so that nobody who forks often pushes out what others wrote.
    pub fn heads(&self, prev: &LogHash) -> Vec<LogHash> {
        let tips = self.tips.iter().map(|&i| self.node(i));
        let mut tips: Vec<_> = tips.filter(|node| node.hash != *prev).collect();
        if tips.len() > LIST_MAX {
            tips.sort_unstable_by_key(|node| (!node.is_revoke(), node.hash));
            let mut of_user = BTreeMap::<UserId, usize>::new();
            let ranked = tips.into_iter().map(|node| {
                let nth = of_user.entry(node.entry.body().user).or_default();
                *nth += 1;
                (*nth, Reverse(node.verdict.power), node)
            });
            let mut ranked: Vec<_> = ranked.collect();
            ranked.sort_by_key(|(nth, power, node)| (*nth, *power, node.hash));
            ranked.truncate(LIST_MAX);
            tips = ranked.into_iter().map(|(_, _, node)| node).collect();
        }
        let mut heads: Vec<_> = tips.into_iter().map(|node| node.hash).collect();
        heads.sort_unstable();
        heads
    }

    /// Whether what is written now can have an entry in its past; not all, where branches are very
    /// many.
    pub(super) fn nameable(&self) -> impl Fn(&LogHash) -> bool {
        let mut named = Clock::default();
        for head in self.heads(&NO_ENTRY) {
            if let Some(&head) = self.index.get(&head) {
                named.merge(&self.node(head).past);
                named.include(self.node(head).place);
            }
        }
        move |hash| self.index.get(hash).is_some_and(|&i| self.is_in(i, &named))
    }

    /// Whether an entry is among `heads` or in their past.
    pub fn reaches(&self, heads: &[LogHash], hash: &LogHash) -> bool {
        let Some(&target) = self.index.get(hash) else {
            return false;
        };
        let mut heads = heads.iter().filter_map(|head| self.index.get(head));
        heads.any(|&head| head == target || self.is_before(target, head))
    }

    /// Devices that wrote two entries with one `seq`.
    pub fn forked_devices(&self) -> BTreeSet<(UserId, DeviceId)> {
        let forked = self
            .chains
            .iter()
            .filter(|(_, chain)| !chain.forks.is_empty());
        forked.map(|(author, _)| *author).collect()
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = (usize, &Node)> {
        self.nodes.iter().enumerate()
    }

    /// A linked entry; nodes are never taken out, so what once was an index stays one.
    pub(super) fn node(&self, i: usize) -> &Node {
        &self.nodes[i]
    }

    /// Everything that is linked.
    pub(super) fn all(&self) -> &Clock {
        &self.all
    }

    /// Whether `earlier` is in the past of `later`.
    pub(super) fn is_before(&self, earlier: usize, later: usize) -> bool {
        self.is_in(earlier, &self.node(later).past)
    }

    pub(super) fn is_in(&self, i: usize, set: &Clock) -> bool {
        set.contains(self.node(i).place)
    }

    /// Whether a set has two entries with one `seq` of the author's device, at or before this one.
    pub(super) fn is_forked(&self, i: usize, set: &Clock) -> bool {
        let entry = self.node(i).entry.body();
        let chain = self.chains.get(&(entry.user, entry.device));
        let mut forks = chain
            .into_iter()
            .flat_map(|chain| chain.forks.range(..=entry.seq));
        forks.any(|(_, twins)| {
            twins
                .iter()
                .filter(|&&twin| self.is_in(twin, set))
                .nth(1)
                .is_some()
        })
    }

    fn is_of_this_stream(&self, hash: LogHash, entry: &LogEntry) -> bool {
        match &entry.body {
            LogBody::Genesis(genesis) => hash.0 == self.stream.0 && genesis.owner == self.owner,
            LogBody::Grant(_)
            | LogBody::Revoke(_)
            | LogBody::Settings(_)
            | LogBody::KeyNodes(_)
            | LogBody::Close
            | LogBody::Approve(_) => entry.stream == self.stream,
        }
    }

    fn link_with_followers(&mut self, hash: LogHash, entry: Verified<LogEntry>) {
        let mut ready = Vec::from([(hash, entry)]);
        while let Some((hash, entry)) = ready.pop() {
            self.link(hash, entry);
            for follower in self.awaited.remove(&hash).unwrap_or_default() {
                if let Some(waiting) = self.waiting.get_mut(&follower) {
                    waiting.lacks = waiting.lacks.saturating_sub(1);
                }
                if self
                    .waiting
                    .get(&follower)
                    .is_some_and(|waiting| waiting.lacks == 0)
                    && let Some(waiting) = self.waiting.remove(&follower)
                {
                    ready.push((follower, waiting.entry));
                }
            }
        }
    }

    fn link(&mut self, hash: LogHash, entry: Verified<LogEntry>) {
        let i = self.nodes.len();
        let body = entry.body();
        let (mut past, mut depth) = (Clock::default(), 0);
        for before in refs(body).filter_map(|named| self.index.get(&named)) {
            let before = self.node(*before);
            past.merge(&before.past);
            past.include(before.place);
            depth = before.depth.saturating_add(1).max(depth);
        }
        let prev = self.index.get(&body.prev).copied();
        let is_well_formed = self.is_well_formed(body, prev);
        let place = self.next_place(prev.filter(|_| is_well_formed));
        let verdict = match is_well_formed {
            true => self.judge(body, &past),
            false => Verdict::default(),
        };
        self.take_seat(i, body);
        self.all.include(place);
        self.index.insert(hash, i);
        self.nodes.push(Node {
            entry,
            hash,
            depth,
            verdict,
            past,
            place,
            is_well_formed,
        });
        self.note(i);
    }

    fn is_well_formed(&self, entry: &LogEntry, prev: Option<usize>) -> bool {
        match prev.map(|i| self.node(i).entry.body()) {
            None => entry.seq == 0,
            Some(before) => {
                (before.user, before.device) == (entry.user, entry.device)
                    && before.seq.checked_add(1) == Some(entry.seq)
            }
        }
    }

    /// An entry behind the last of a branch goes on with it; any other starts one.
    fn next_place(&mut self, prev: Option<usize>) -> Place {
        if let Some(prev) = prev.map(|i| self.node(i).place)
            && let Some(len) = self.branch_lens.get_mut(prev.branch as usize)
            && *len == prev.index + 1
        {
            *len += 1;
            let index = prev.index + 1;
            return Place { index, ..prev };
        }
        self.branch_lens.push(1);
        let branch = u32::try_from(self.branch_lens.len() - 1).unwrap_or(u32::MAX);
        Place { branch, index: 0 }
    }

    fn take_seat(&mut self, i: usize, entry: &LogEntry) {
        let chain = self.chains.entry((entry.user, entry.device)).or_default();
        let seat = chain.seats.entry(entry.seq).or_default();
        seat.push(i);
        match chain.forks.get_mut(&entry.seq) {
            Some(twins) => twins.push(i),
            None if seat.len() > 1 => {
                chain.forks.insert(entry.seq, seat.clone());
            }
            None => (),
        }
    }

    /// Enters an authorised entry where the rules look for it.
    fn note(&mut self, i: usize) {
        let Self { nodes, rights, .. } = self;
        let Some(node) = nodes.get(i) else {
            return;
        };
        let Some(power) = node.verdict.power else {
            return;
        };
        match &node.entry.body().body {
            LogBody::Grant(grant) => {
                rights.grants.push(i);
                rights.grants_to.entry(grant.user).or_default().push(i);
                if publishes(grant) {
                    rights.ranks_of.entry(grant.user).or_default().push(i);
                }
                if grant.roles.contains(Roles::ADMIN) {
                    rights.admins.insert(grant.user);
                }
            }
            LogBody::Revoke(revoke) => {
                for out in &node.verdict.proven {
                    rights.outs.entry(*out).or_default().push(i);
                }
                match power {
                    Power::Owner | Power::Admin => rights.revokes.note(i, &revoke.targets),
                    Power::Publisher => rights.lane_revokes.note(i, &revoke.targets),
                    Power::Own | Power::Approver => (),
                }
            }
            LogBody::KeyNodes(named) => {
                rights.key_node_sets.push(i);
                let approvers: BTreeSet<_> = named.condition.approvers().collect();
                let nodes = named.nodes.iter().map(|node| node.user);
                let users: BTreeSet<_> = nodes.chain(approvers.iter().copied()).collect();
                for user in users {
                    rights.key_nodes.entry(user).or_default().push(i);
                }
                for user in approvers {
                    rights.approvers.entry(user).or_default().push(i);
                }
            }
            LogBody::Genesis(_) | LogBody::Settings(_) | LogBody::Close | LogBody::Approve(_) => {}
        }
        let past = &node.past;
        self.tips
            .retain(|&tip| nodes.get(tip).is_some_and(|tip| !past.contains(tip.place)));
        self.tips.insert(i);
    }
}

impl Node {
    fn is_revoke(&self) -> bool {
        matches!(self.entry.body().body, LogBody::Revoke(_))
    }
}

impl Named {
    fn note(&mut self, revoke: usize, targets: &Targets) {
        match targets {
            Targets::Grants(grants) => {
                for grant in grants {
                    self.by_grant.entry(*grant).or_default().push(revoke);
                }
            }
            Targets::Users(users) => {
                for user in users {
                    self.by_user.entry(*user).or_default().push(revoke);
                }
            }
            Targets::Devices(targets) => {
                let users: BTreeSet<_> = targets.iter().map(|target| target.user).collect();
                for user in users {
                    self.by_user.entry(user).or_default().push(revoke);
                }
            }
        }
    }
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It and its whole past are known now, perhaps with others that waited for it.
    Linked,
    /// It waits for entries that it names.
    Waiting,
    /// It was known.
    Known,
    /// It is of another stream.
    Foreign,
}

fn refs(entry: &LogEntry) -> impl Iterator<Item = LogHash> {
    let prev = (entry.prev != NO_ENTRY).then_some(entry.prev);
    prev.into_iter().chain(entry.heads.iter().copied())
}

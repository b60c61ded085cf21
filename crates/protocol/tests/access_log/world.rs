//! People, their devices, and the log that they write.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use sealcast_crypto::SigningKey;
use sealcast_protocol::{
    AccessLog, Approval, Approvers, CardRevocation, Condition, Demand, DeviceId, DeviceTarget,
    DeviceTips, EnvelopeHash, Genesis, Grant, GrantState, Interval, KeyNode, KeyNodes, LaneMode,
    ListBody, ListEntry, LogBody, LogEntry, LogHash, LogState, Position, PublishRight, Revoke,
    Roles, Settings, Sharing, Standing, StreamId, Targets, UserId, Verified, sign,
};

pub(crate) const NO_ENTRY: LogHash = LogHash([0; 32]);
pub(crate) const NO_STREAM: StreamId = StreamId([0; 32]);
pub(crate) const EVERYTHING: Roles = Roles::ADMIN.with(Roles::PUBLISHER).with(Roles::READER);

/// One device of one person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct At(pub(crate) char, pub(crate) u8);

/// The owner's phone and laptop; then the phones of the others.
pub(crate) const OWNER: At = At('o', 1);
pub(crate) const OWNER_LAPTOP: At = At('o', 2);
pub(crate) const ANN: At = At('a', 1);
pub(crate) const ANN_LAPTOP: At = At('a', 2);
pub(crate) const BEN: At = At('b', 1);
pub(crate) const PAM: At = At('p', 1);
pub(crate) const PAM_LAPTOP: At = At('p', 2);
pub(crate) const RON: At = At('r', 1);
pub(crate) const SUE: At = At('s', 1);

impl At {
    pub(crate) fn user(self) -> UserId {
        UserId(*root(self.0).verifying_key().as_bytes())
    }

    /// The same number gives the same device id to all people: ids may collide, and must not matter.
    pub(crate) fn device(self) -> DeviceId {
        DeviceId([self.1; 16])
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let written = self
            .written
            .iter()
            .map(|entry| (LogHash::from(entry.digest()), entry.body()));
        f.debug_map().entries(written).finish()
    }
}

fn root(person: char) -> SigningKey {
    SigningKey::from_seed(&[person as u8; 32])
}

/// The root's word that a device is out.
pub(crate) fn proof(of: At) -> Vec<u8> {
    proof_signed_by(of.0, of)
}

pub(crate) fn proof_signed_by(signer: char, of: At) -> Vec<u8> {
    let entry = ListEntry {
        version: 1,
        user: of.user(),
        seq: 1,
        prev: LogHash([1; 32]),
        time: Position(1),
        body: ListBody::Revoke(CardRevocation {
            device: of.device(),
            time: Position(1),
        }),
    };
    sign(&root(signer), entry).unwrap().wire().to_vec()
}

/// All that was written, and by whom.
pub(crate) struct World {
    pub(crate) genesis: LogHash,
    pub(crate) log: AccessLog,
    pub(crate) written: Vec<Verified<LogEntry>>,
    newest: BTreeMap<At, (u32, LogHash)>,
    time: u64,
}

impl World {
    /// A stream of the owner's.
    pub(crate) fn new() -> Self {
        Self::of_nonce(0)
    }

    pub(crate) fn of_nonce(nonce: u8) -> Self {
        let genesis = Genesis {
            nonce: [nonce; 16],
            owner: OWNER.user(),
            lane_mode: LaneMode::Own,
            sharing: Sharing::Active,
            public: false,
        };
        let entry = LogEntry {
            stream: NO_STREAM,
            ..entry(OWNER, NO_STREAM, LogBody::Genesis(genesis))
        };
        let first = sign(&root('o'), entry).unwrap();
        let hash = LogHash::from(first.digest());
        let mut world = Self {
            genesis: hash,
            log: AccessLog::new(StreamId(hash.0), OWNER.user()),
            written: Vec::new(),
            newest: BTreeMap::from([(OWNER, (0, hash))]),
            time: 1_000,
        };
        world.log.insert(first.clone());
        world.written.push(first);
        world
    }

    pub(crate) fn stream(&self) -> StreamId {
        self.log.stream()
    }

    /// Writes an entry whose author has seen everything.
    pub(crate) fn says(&mut self, author: At, body: LogBody) -> LogHash {
        let (_, prev) = self.newest.get(&author).copied().unwrap_or((0, NO_ENTRY));
        let heads = self.log.heads(&prev);
        self.says_having_seen(author, &heads, body)
    }

    /// Writes an entry whose author has seen its own chain and `seen`.
    pub(crate) fn says_having_seen(
        &mut self,
        author: At,
        seen: &[LogHash],
        body: LogBody,
    ) -> LogHash {
        let newest = self.newest.get(&author).copied();
        let (seq, prev) = newest.map_or((0, NO_ENTRY), |(seq, hash)| (seq + 1, hash));
        self.time += 1;
        let heads: BTreeSet<_> = seen.iter().copied().filter(|head| *head != prev).collect();
        let entry = LogEntry {
            seq,
            prev,
            heads: heads.into_iter().collect(),
            time: Position(self.time),
            ..entry(author, self.stream(), body)
        };
        self.writes(author, entry)
    }

    /// Writes an entry as it is.
    pub(crate) fn writes(&mut self, author: At, entry: LogEntry) -> LogHash {
        let seq = entry.seq;
        let signed = signed(author, entry);
        let hash = LogHash::from(signed.digest());
        self.newest.insert(author, (seq, hash));
        self.log.insert(signed.clone());
        self.written.push(signed);
        hash
    }

    /// Writes beside an entry of the author's, in its place.
    pub(crate) fn forks(
        &mut self,
        author: At,
        twin: LogHash,
        seen: &[LogHash],
        body: LogBody,
    ) -> LogHash {
        let is_it = |entry: &&Verified<LogEntry>| LogHash::from(entry.digest()) == twin;
        let twin = self.written.iter().find(is_it).unwrap().body().clone();
        self.time += 1;
        let heads: BTreeSet<_> = seen.iter().copied().collect();
        let entry = LogEntry {
            heads: heads.into_iter().collect(),
            time: Position(self.time),
            body,
            ..twin
        };
        self.writes(author, entry)
    }

    /// Lets a device go on behind an earlier entry of its own, as after a restored backup.
    pub(crate) fn goes_back_to(&mut self, author: At, hash: LogHash) {
        let is_it = |entry: &&Verified<LogEntry>| LogHash::from(entry.digest()) == hash;
        let entry = self.written.iter().find(is_it).unwrap();
        self.newest.insert(author, (entry.body().seq, hash));
    }

    /// Sets the clock that the next entry is written by.
    pub(crate) fn set_time(&mut self, time: u64) {
        self.time = time;
    }

    pub(crate) fn state(&self) -> LogState {
        self.log.state()
    }

    pub(crate) fn roles(&self, of: At) -> Roles {
        self.state().roles(&of.user(), &of.device())
    }

    pub(crate) fn grant(&self, id: LogHash) -> Option<GrantState> {
        let state = self.state();
        state.grants().iter().find(|of| of.id == id).cloned()
    }

    pub(crate) fn standing(&self, id: LogHash) -> Option<Standing> {
        self.grant(id).map(|of| of.standing)
    }

    pub(crate) fn reads(&self, reader: At, lane: At) -> bool {
        let state = self.state();
        let open = state.readable(&reader.user(), &reader.device(), &lane.user());
        !open.is_empty()
    }

    /// The right of an envelope sealed at a position in a session whose record names `heads`.
    pub(crate) fn right(&self, of: At, position: u64, heads: &[LogHash]) -> PublishRight {
        self.state()
            .publish_right(&of.user(), &of.device(), Position(position), |hash| {
                self.log.reaches(heads, hash)
            })
    }
}

pub(crate) fn signed(author: At, entry: LogEntry) -> Verified<LogEntry> {
    sign(&root(author.0), entry).unwrap()
}

fn entry(author: At, stream: StreamId, body: LogBody) -> LogEntry {
    LogEntry {
        version: 1,
        stream,
        user: author.user(),
        device: author.device(),
        seq: 0,
        prev: NO_ENTRY,
        heads: Vec::new(),
        time: Position(1_000),
        body,
    }
}

pub(crate) fn grant(to: At, roles: Roles) -> Grant {
    Grant {
        user: to.user(),
        devices: Vec::new(),
        roles,
        lanes: Vec::new(),
        interval: Interval::ALL,
        reshare: false,
    }
}

pub(crate) fn admin(to: At) -> LogBody {
    LogBody::Grant(grant(to, Roles::ADMIN))
}

pub(crate) fn publisher(to: At) -> LogBody {
    LogBody::Grant(grant(to, Roles::PUBLISHER))
}

pub(crate) fn reader(to: At) -> LogBody {
    LogBody::Grant(grant(to, Roles::READER))
}

pub(crate) fn reader_of(to: At, lane: At) -> LogBody {
    LogBody::Grant(Grant {
        lanes: vec![lane.user()],
        ..grant(to, Roles::READER)
    })
}

pub(crate) fn removal(targets: Targets) -> LogBody {
    removal_with_tips(targets, &[])
}

pub(crate) fn removal_with_tips(targets: Targets, last: &[(At, u8)]) -> LogBody {
    let mut by_device: BTreeMap<DeviceId, BTreeSet<EnvelopeHash>> = BTreeMap::new();
    for (of, tip) in last {
        by_device
            .entry(of.device())
            .or_default()
            .insert(envelope(*tip));
    }
    let last = by_device.into_iter().map(|(device, tips)| DeviceTips {
        device,
        tips: tips.into_iter().collect(),
    });
    LogBody::Revoke(Revoke {
        targets,
        last: last.collect(),
    })
}

pub(crate) fn users(of: &[At]) -> Targets {
    let users: BTreeSet<_> = of.iter().map(|at| at.user()).collect();
    Targets::Users(users.into_iter().collect())
}

pub(crate) fn grants(ids: &[LogHash]) -> Targets {
    let ids: BTreeSet<_> = ids.iter().copied().collect();
    Targets::Grants(ids.into_iter().collect())
}

/// Devices, with the proof that their users' roots give.
pub(crate) fn proven(of: &[At]) -> Targets {
    devices(of, proof)
}

pub(crate) fn unproven(of: &[At]) -> Targets {
    devices(of, |_| Vec::new())
}

pub(crate) fn devices(of: &[At], proof: impl Fn(At) -> Vec<u8>) -> Targets {
    let targets: BTreeSet<_> = of
        .iter()
        .map(|at| DeviceTarget {
            user: at.user(),
            device: at.device(),
            proof: proof(*at),
        })
        .collect();
    Targets::Devices(targets.into_iter().collect())
}

pub(crate) fn rekey_every(ms: u64) -> LogBody {
    LogBody::Settings(Settings { rekey_every_ms: ms })
}

/// As many of these as are needed; none at all where there are none.
pub(crate) fn key_nodes(of: &[At], threshold: u8) -> LogBody {
    let nodes: BTreeSet<_> = of
        .iter()
        .map(|at| KeyNode {
            user: at.user(),
            device: at.device(),
        })
        .collect();
    LogBody::KeyNodes(KeyNodes {
        threshold: if of.is_empty() { 0 } else { threshold },
        nodes: nodes.into_iter().collect(),
        condition: Condition::default(),
        generation: 0,
    })
}

/// One key node, which asks for the approval of any of these.
pub(crate) fn asking_for(of: &[At]) -> LogBody {
    let LogBody::KeyNodes(nodes) = key_nodes(&of[..1], 1) else {
        unreachable!()
    };
    let of: BTreeSet<_> = of.iter().map(|at| at.user()).collect();
    let approvers = Approvers {
        needed: 1,
        of: of.into_iter().collect(),
    };
    LogBody::KeyNodes(KeyNodes {
        condition: Condition(vec![vec![Demand::Approved(approvers)]]),
        ..nodes
    })
}

pub(crate) fn approve(of: At, until: u8) -> LogBody {
    LogBody::Approve(Approval {
        user: of.user(),
        until: Position(u64::from(until)),
    })
}

pub(crate) fn envelope(tip: u8) -> EnvelopeHash {
    EnvelopeHash([tip; 16])
}

pub(crate) fn up_to(tips: &[u8]) -> PublishRight {
    up_to_hashes(tips.iter().map(|tip| envelope(*tip)).collect())
}

pub(crate) fn up_to_hashes(tips: BTreeSet<EnvelopeHash>) -> PublishRight {
    match tips.is_empty() {
        true => PublishRight::Missing,
        false => PublishRight::UpTo(tips.into_iter().collect()),
    }
}

//! The access log: whatever was written by whom, every order of arrival comes to one state, and what
//! it says keeps to the rules of `spec/access-log.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use arbitrary::{Result, Unstructured};
use sealcast_crypto::SigningKey;
use sealcast_protocol::{
    AccessLog, Approval, Approvers, CardRevocation, Condition, Demand, DeviceId, DeviceTarget,
    DeviceTips, EnvelopeHash, Genesis, Grant, GrantState, Interval, KeyNode, KeyNodes, LaneMode,
    ListBody, ListEntry, LogBody, LogEntry, LogHash, LogState, Position, PublishRight, Revoke,
    Roles, Settings, Sharing, Signable, Standing, StreamId, Targets, UserId, Verified, sign,
};

const ENTRIES_MAX: usize = 24;
const DEVICES: u8 = 2;
const NO_ENTRY: LogHash = LogHash([0; 32]);
const NO_STREAM: StreamId = StreamId([0; 32]);

/// Whoever writes. The owner is the first; nobody grants anything to the last.
const PEOPLE: [u8; 6] = [1, 2, 3, 4, 5, 6];
const OWNER: u8 = 1;
const STRANGER: u8 = 6;

/// The root keys of all people, which their devices sign with here.
fn roots() -> &'static BTreeMap<u8, (SigningKey, UserId)> {
    static ROOTS: OnceLock<BTreeMap<u8, (SigningKey, UserId)>> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let key = |person: &u8| {
            let key = SigningKey::from_seed(&[*person; 32]);
            let user = UserId(*key.verifying_key().as_bytes());
            (*person, (key, user))
        };
        PEOPLE.iter().map(key).collect()
    })
}

fn user(person: u8) -> UserId {
    roots().get(&person).map_or(UserId([0; 32]), |of| of.1)
}

fn signed<T: Signable>(person: u8, body: T) -> Option<Verified<T>> {
    let (key, _) = roots().get(&person)?;
    sign(key, body).ok()
}

/// Ids of devices may collide, and must not matter.
fn device(number: u8) -> DeviceId {
    DeviceId([number; 16])
}

/// All that was written.
struct Written {
    stream: StreamId,
    entries: Vec<Verified<LogEntry>>,
    hashes: Vec<LogHash>,
    /// The newest entry of each device.
    newest: BTreeMap<(u8, u8), (u32, LogHash)>,
}

/// Writes entries as the input says, and compares what several orders of them come to.
pub(crate) fn orders(bytes: &[u8]) {
    let mut choices = Unstructured::new(bytes);
    let Some(mut written) = Written::begin() else {
        return;
    };
    // What is left when the choices run out is judged all the same.
    let _done = written.go_on(&mut choices);
    let entries: Vec<&Verified<LogEntry>> = written.entries.iter().collect();
    let (log, state) = replayed(&written, &entries);
    for order in [1, 2, bytes.len() as u64 | 1 << 20] {
        let (_, other) = replayed(&written, &shuffled(&entries, order));
        assert_eq!(other, state, "the order matters");
    }
    let kept: u64 = choices.arbitrary().unwrap_or(0x5555);
    let part = entries.iter().enumerate();
    let part = part.filter(|(at, _)| kept >> (at % 64) & 1 == 0);
    let part: Vec<_> = part.map(|(_, entry)| *entry).collect();
    let (_, of_part) = replayed(&written, &part);
    let (_, other) = replayed(&written, &shuffled(&part, 7));
    assert_eq!(other, of_part, "the order of a part matters");
    by_the_rules(&written, &log, &state);
}

fn replayed(written: &Written, entries: &[&Verified<LogEntry>]) -> (AccessLog, LogState) {
    let mut log = AccessLog::new(written.stream, user(OWNER));
    for entry in entries {
        log.insert((*entry).clone());
    }
    let state = log.state();
    for entry in entries.iter().rev().take(3) {
        log.insert((*entry).clone());
    }
    assert_eq!(log.state(), state, "what is known changes nothing");
    (log, state)
}

fn shuffled<T: Copy>(of: &[T], order: u64) -> Vec<T> {
    let (mut random, mut all) = (order, of.to_vec());
    for at in (1..all.len()).rev() {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        all.swap(at, (random >> 33) as usize % (at + 1));
    }
    all
}

impl Written {
    fn begin() -> Option<Self> {
        let genesis = LogBody::Genesis(Genesis {
            nonce: [0; 16],
            owner: user(OWNER),
            lane_mode: LaneMode::Own,
            sharing: Sharing::Active,
            public: false,
        });
        let entry = LogEntry {
            version: 1,
            stream: NO_STREAM,
            user: user(OWNER),
            device: device(1),
            seq: 0,
            prev: NO_ENTRY,
            heads: Vec::new(),
            time: Position(1),
            body: genesis,
        };
        let first = signed(OWNER, entry)?;
        let hash = LogHash::from(first.digest());
        Some(Self {
            stream: StreamId(hash.0),
            entries: vec![first],
            hashes: vec![hash],
            newest: BTreeMap::from([((OWNER, 1), (0, hash))]),
        })
    }

    fn go_on(&mut self, choices: &mut Unstructured<'_>) -> Result<()> {
        while self.entries.len() < ENTRIES_MAX && !choices.is_empty() {
            let author = (
                *choices.choose(&PEOPLE)?,
                choices.int_in_range(1..=DEVICES)?,
            );
            let body = self.body(choices, author)?;
            let (seq, prev) = match self.newest.get(&author) {
                Some((seq, hash)) => (seq + 1, *hash),
                None => (0, NO_ENTRY),
            };
            // Now and then a device goes on behind an older entry, as a restored copy does.
            let goes_back = choices.ratio(1, 16)? && seq > 1;
            let entry = LogEntry {
                version: 1,
                stream: self.stream,
                user: user(author.0),
                device: device(author.1),
                seq: if goes_back { seq - 1 } else { seq },
                prev,
                heads: self.heads(choices, prev)?,
                time: Position(choices.int_in_range(1..=1_000)?),
                body,
            };
            let Some(entry) = signed(author.0, entry) else {
                continue;
            };
            let hash = LogHash::from(entry.digest());
            self.newest.insert(author, (entry.body().seq, hash));
            self.hashes.push(hash);
            self.entries.push(entry);
        }
        Ok(())
    }

    /// Everything, or some of it, and now and then something that never comes.
    fn heads(&self, choices: &mut Unstructured<'_>, prev: LogHash) -> Result<Vec<LogHash>> {
        let mut heads = BTreeSet::new();
        match choices.int_in_range(0..=7)? {
            0..=2 => heads.extend(self.hashes.iter().rev().take(4)),
            3 => heads.extend(
                [self.hashes.first(), Some(&LogHash([0xee; 32]))]
                    .into_iter()
                    .flatten(),
            ),
            _ => {
                for _ in 0..2 {
                    heads.insert(*choices.choose(&self.hashes)?);
                }
            }
        }
        heads.remove(&prev);
        Ok(heads.into_iter().collect())
    }

    fn body(&self, choices: &mut Unstructured<'_>, author: (u8, u8)) -> Result<LogBody> {
        Ok(match choices.int_in_range(0..=11)? {
            0..=4 => LogBody::Grant(self.grant(choices, author)?),
            5..=7 => LogBody::Revoke(self.revoke(choices)?),
            8 => LogBody::Settings(Settings {
                rekey_every_ms: choices.int_in_range(0..=3)?,
            }),
            9 => LogBody::KeyNodes(self.key_nodes(choices)?),
            10 => LogBody::Approve(Approval {
                user: user(choices.int_in_range(0..=2)?),
                until: Position(choices.int_in_range(0..=2)?),
            }),
            _ => LogBody::Close,
        })
    }

    fn key_nodes(&self, choices: &mut Unstructured<'_>) -> Result<KeyNodes> {
        let count = choices.int_in_range(0..=2)?;
        let nodes = (0..count).map(|person| KeyNode {
            user: user(person),
            device: device(0),
        });
        let mut nodes: Vec<KeyNode> = nodes.collect();
        nodes.sort_unstable();
        let condition = match count > 0 && choices.arbitrary()? {
            false => Condition::default(),
            true => Condition(vec![vec![Demand::Approved(Approvers {
                needed: 1,
                of: vec![user(choices.int_in_range(0..=2)?)],
            })]]),
        };
        Ok(KeyNodes {
            threshold: count.min(1),
            nodes,
            condition,
            generation: 0,
        })
    }

    /// To anybody but the stranger.
    fn person(&self, choices: &mut Unstructured<'_>) -> Result<u8> {
        choices.int_in_range(OWNER..=STRANGER - 1)
    }

    fn grant(&self, choices: &mut Unstructured<'_>, author: (u8, u8)) -> Result<Grant> {
        let from = choices.int_in_range(0..=8)?;
        let lanes = match choices.int_in_range(0..=3)? {
            0 | 1 => Vec::new(),
            2 => vec![user(author.0)],
            _ => vec![user(self.person(choices)?)],
        };
        let devices = match choices.ratio(1, 4)? {
            true => vec![device(choices.int_in_range(1..=DEVICES)?)],
            false => Vec::new(),
        };
        Ok(Grant {
            user: user(self.person(choices)?),
            devices,
            roles: Roles(choices.int_in_range(1..=7)?),
            lanes,
            interval: match choices.arbitrary()? {
                true => Interval::ALL,
                false => Interval {
                    from: Position(from),
                    until: Position(from + 4),
                },
            },
            reshare: choices.arbitrary()?,
        })
    }

    fn revoke(&self, choices: &mut Unstructured<'_>) -> Result<Revoke> {
        let (one, two) = (self.person(choices)?, self.person(choices)?);
        let number = choices.int_in_range(1..=DEVICES)?;
        let targets = match choices.int_in_range(0..=3)? {
            0 => Targets::Users(vec![user(one)]),
            1 => {
                let both = BTreeSet::from([one, two].map(user));
                Targets::Users(both.into_iter().collect())
            }
            2 => Targets::Grants(vec![*choices.choose(&self.hashes)?]),
            _ => Targets::Devices(vec![DeviceTarget {
                user: user(one),
                device: device(number),
                proof: self.proof(choices, one, number)?,
            }]),
        };
        let tip = EnvelopeHash([choices.int_in_range(1..=4)?; 16]);
        let last = DeviceTips {
            device: device(number),
            tips: vec![tip],
        };
        Ok(Revoke {
            targets,
            last: vec![last],
        })
    }

    /// The word of the device's own root, of somebody else's, or none.
    fn proof(&self, choices: &mut Unstructured<'_>, of: u8, number: u8) -> Result<Vec<u8>> {
        let signer = match choices.int_in_range(0..=3)? {
            0 => return Ok(Vec::new()),
            1 => self.person(choices)?,
            _ => of,
        };
        let entry = ListEntry {
            version: 1,
            user: user(of),
            seq: 1,
            prev: LogHash([1; 32]),
            time: Position(1),
            body: ListBody::Revoke(CardRevocation {
                device: device(number),
                time: Position(1),
            }),
        };
        let signed = signed(signer, entry);
        Ok(signed.map_or(Vec::new(), |of| of.wire().to_vec()))
    }
}

/// What must hold of any state.
fn by_the_rules(written: &Written, log: &AccessLog, state: &LogState) {
    let owner = user(OWNER);
    for number in 1..=DEVICES {
        let (device, stranger) = (device(number), user(STRANGER));
        assert!(
            state.roles(&owner, &device).contains(Roles::ADMIN) || says_itself_out(written, number),
            "nothing removes the owner"
        );
        assert_eq!(state.roles(&stranger, &device), Roles::NONE);
        assert!(!state.may_publish(&stranger, &device, Position(5)));
        let right = state.publish_right(&stranger, &device, Position(5), |_| true);
        assert_eq!(right, PublishRight::Missing);
        for lane in PEOPLE.map(user) {
            assert!(state.readable(&stranger, &device, &lane).is_empty());
            assert!(!state.is_keyholder(&stranger, &device, &lane));
        }
    }
    for of in state.grants() {
        grant_by_the_rules(log, state, of);
    }
    approvals_by_the_rules(state);
    let newest = written.entries.iter().map(|of| of.body().time).max();
    assert!(Some(state.mark()) <= newest);
    assert!(!state.is_closed() || !state.may_publish(&owner, &device(1), Position(5)));
    let lanes = PEOPLE.map(user);
    for removal in lanes.iter().flat_map(|lane| state.removals(lane)) {
        assert!(log.contains(&removal));
        assert!(
            log.reaches(&log.heads(&NO_ENTRY), &removal),
            "a record can name it"
        );
    }
    for tips in state.revoked_tips().values() {
        assert!(!tips.is_empty() && tips.is_sorted());
    }
}

/// Nobody approves whom the newest sets of key nodes do not all ask, nor of itself, nor without an end that is to come.
fn approvals_by_the_rules(state: &LogState) {
    let newest = state.newest_key_nodes().iter();
    let sets: Vec<_> = newest.filter_map(|of| state.key_nodes_of(of)).collect();
    for of in PEOPLE.map(user) {
        for (by, until) in state.approvals(&of) {
            assert!(by != of && until > Position::START);
            let is_asked = |set: &&KeyNodes| set.condition.approvers().any(|one| one == by);
            assert!(!sets.is_empty() && sets.iter().all(is_asked));
            assert!(state.approves(&by, &of, Position::START));
            assert!(!state.approves(&by, &of, until));
            assert!(state.approving_devices(&by, &of).next().is_some());
        }
    }
    assert!(state.key_nodes().is_none() || state.unsettled_key_nodes().is_empty());
}

/// Only its own word, with the root's proof, takes a device of the owner out.
fn says_itself_out(written: &Written, number: u8) -> bool {
    written.entries.iter().any(|entry| {
        let LogBody::Revoke(revoke) = &entry.body().body else {
            return false;
        };
        let Targets::Devices(targets) = &revoke.targets else {
            return false;
        };
        let is_it = |of: &DeviceTarget| of.user == user(OWNER) && of.device == device(number);
        entry.body().user == user(OWNER) && targets.iter().any(|of| is_it(of) && of.is_proven())
    })
}

fn grant_by_the_rules(log: &AccessLog, state: &LogState, of: &GrantState) {
    let owner = user(OWNER);
    assert!(log.contains(&of.id));
    let had = |role: Roles| {
        let mut grants = state.grants().iter();
        of.author == owner
            || grants.any(|by| by.grant.user == of.author && by.grant.roles.contains(role))
    };
    if of.grant.roles.contains(Roles::ADMIN) {
        assert_eq!(of.author, owner, "only the owner makes admins");
    }
    if !had(Roles::ADMIN) {
        assert!(had(Roles::PUBLISHER), "its author was a publisher at least");
        assert_eq!(of.grant.roles, Roles::READER, "a publisher makes readers");
        assert_eq!(of.grant.lanes, [of.author], "of its own lane");
    }
    if let Standing::Revoked(by) = of.standing {
        assert!(log.contains(&by));
    }
    let covered = |lane: &UserId, device: &DeviceId| {
        let open = state.readable(&of.grant.user, device, lane);
        open.iter().any(|open| open.covers(&of.grant.interval))
    };
    if of.standing == Standing::Counts && of.grant.roles.contains(Roles::READER) {
        for number in 1..=DEVICES {
            let device = device(number);
            let is_for = of.grant.devices.is_empty() || of.grant.devices.contains(&device);
            let is_taken =
                of.devices_lost.contains(&device) || state.is_out(&of.grant.user, &device);
            for lane in &of.grant.lanes {
                let is_lost = of.lanes_lost.contains(lane);
                assert!(
                    !is_for || is_taken || is_lost || covered(lane, &device),
                    "{of:?}"
                );
            }
        }
    }
}

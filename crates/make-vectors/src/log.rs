//! Entries of the access log, one by one.

use sealcast_crypto::digest;
use sealcast_protocol::{
    Approval, Approvers, CardRevocation, Condition, Demand, DeviceId, DeviceTarget, DeviceTips,
    EnvelopeHash, Genesis, Grant, Interval, KeyNode, KeyNodes, LaneMode, ListBody, ListEntry,
    LogBody, LogEntry, LogHash, Position, Revoke, Roles, Settings, Sharing, Signable, StreamId,
    Targets, UserId, encode,
};

use super::case::{Case, hex};
use super::cast::{NOW, SEEN, STREAM, anna, ben};
use super::raw;

const LABEL: &str = LogEntry::LABEL;

pub(super) fn cases() -> Vec<Case> {
    [good(), encodings(), choices(), ranges()].concat()
}

fn genesis() -> LogEntry {
    let anna = anna();
    let genesis = Genesis {
        nonce: [0x5a; 16],
        owner: anna.user,
        lane_mode: LaneMode::Own,
        sharing: Sharing::Active,
        public: false,
    };
    LogEntry {
        version: 1,
        stream: StreamId([0; 32]),
        user: anna.user,
        device: anna.device.id,
        seq: 0,
        prev: LogHash([0; 32]),
        heads: Vec::new(),
        time: NOW,
        body: LogBody::Genesis(genesis),
    }
}

/// Anna's second entry.
fn second(body: LogBody) -> LogEntry {
    LogEntry {
        stream: STREAM,
        seq: 1,
        prev: SEEN,
        body,
        ..genesis()
    }
}

fn reader() -> Grant {
    Grant {
        user: ben().user,
        devices: Vec::new(),
        roles: Roles::READER,
        lanes: Vec::new(),
        interval: Interval {
            from: NOW,
            until: Position::END,
        },
        reshare: false,
    }
}

fn grant() -> LogEntry {
    second(LogBody::Grant(reader()))
}

fn revoke(targets: Targets, last: Vec<DeviceTips>) -> LogEntry {
    second(LogBody::Revoke(Revoke { targets, last }))
}

/// Ben's device, with the word of Ben's root key that it is out.
fn target() -> DeviceTarget {
    let ben = ben();
    let entry = ListEntry {
        version: 1,
        user: ben.user,
        seq: 1,
        prev: LogHash([6; 32]),
        time: NOW,
        body: ListBody::Revoke(CardRevocation {
            device: ben.device.id,
            time: NOW,
        }),
    };
    let proof = raw::signed(&ben.root, ListEntry::LABEL, &encode(&entry));
    DeviceTarget {
        user: ben.user,
        device: ben.device.id,
        proof,
    }
}

fn tips(device: u8, tips: &[u8]) -> DeviceTips {
    DeviceTips {
        device: DeviceId([device; 16]),
        tips: tips.iter().map(|tip| EnvelopeHash([*tip; 16])).collect(),
    }
}

fn users(seeds: &[u8]) -> Vec<UserId> {
    seeds.iter().map(|seed| UserId([*seed; 32])).collect()
}

const AFTER: Demand = Demand::After(NOW);
const BEFORE: Demand = Demand::Before(Position(NOW.0 + 604_800_000));

fn key_nodes(threshold: u8, seeds: &[u8]) -> KeyNodes {
    let node = |seed: &u8| KeyNode {
        user: UserId([*seed; 32]),
        device: DeviceId([*seed; 16]),
    };
    KeyNodes {
        threshold,
        nodes: seeds.iter().map(node).collect(),
        condition: Condition::default(),
        generation: 0,
    }
}

fn conditioned(alternatives: &[&[Demand]]) -> KeyNodes {
    let condition = alternatives.iter().map(|all| all.to_vec()).collect();
    KeyNodes {
        condition: Condition(condition),
        ..key_nodes(1, &[1])
    }
}

fn approved(needed: u8, seeds: &[u8]) -> Demand {
    Demand::Approved(Approvers {
        needed,
        of: users(seeds),
    })
}

fn approve(seed: u8, until: Position) -> LogEntry {
    let user = UserId([seed; 32]);
    second(LogBody::Approve(Approval { user, until }))
}

fn demand(demand: &Demand) -> String {
    match demand {
        Demand::After(time) => format!("after {}", time.0),
        Demand::Before(time) => format!("before {}", time.0),
        Demand::Approved(approvers) => {
            let of = approvers.of.iter().map(|of| format!(" {}", hex(&of.0)));
            let of: String = of.collect();
            format!("approved by {} of{of}", approvers.needed)
        }
    }
}

fn hashes(seeds: &[u8]) -> Vec<LogHash> {
    seeds.iter().map(|seed| LogHash([*seed; 32])).collect()
}

fn given(name: &str, about: &str, wire: &[u8]) -> Case {
    Case::new("access-log", name, about)
        .hex(
            "public-key",
            anna().device.signing.verifying_key().as_bytes(),
        )
        .hex("wire", wire)
}

fn signed(body: &[u8]) -> Vec<u8> {
    raw::signed(&anna().device.signing, LABEL, body)
}

fn good() -> Vec<Case> {
    let with_genesis = |change: &dyn Fn(&mut Genesis)| {
        let mut entry = genesis();
        if let LogBody::Genesis(genesis) = &mut entry.body {
            change(genesis);
        }
        entry
    };
    let full = Grant {
        devices: vec![DeviceId([1; 16]), DeviceId([2; 16])],
        roles: Roles::READER.with(Roles::PUBLISHER),
        lanes: users(&[3, 4]),
        interval: Interval {
            from: Position(0),
            until: NOW,
        },
        reshare: true,
        ..reader()
    };
    let joining = LogEntry {
        seq: 0,
        prev: LogHash([0; 32]),
        heads: vec![SEEN],
        ..grant()
    };
    let tipped = vec![tips(1, &[]), tips(2, &[7, 8])];
    let board: &[&[Demand]] = &[&[AFTER, approved(2, &[1, 2, 3])], &[approved(1, &[4])]];
    let week: &[&[Demand]] = &[
        &[AFTER, BEFORE],
        &[Demand::After(Position(1_821_536_000_000))],
    ];
    #[rustfmt::skip]
    let rows = [
        ("genesis", "the first entry of a stream", genesis()),
        ("genesis-on-request", "keys are handed out when asked for", with_genesis(&|genesis| genesis.sharing = Sharing::OnRequest)),
        ("genesis-manual", "keys travel as files", with_genesis(&|genesis| genesis.sharing = Sharing::Manual)),
        ("genesis-public", "the roots lie open", with_genesis(&|genesis| genesis.public = true)),
        ("grant", "a reader from now on", grant()),
        ("grant-with-everything", "devices, lanes, both ends, two roles", second(LogBody::Grant(full))),
        ("grant-admin", "an admin", second(LogBody::Grant(Grant { roles: Roles::ADMIN, ..reader() }))),
        ("first-of-a-device", "the first entry of another chain names what it has seen", joining),
        ("with-heads", "two heads besides its own chain's", LogEntry { heads: hashes(&[1, 2]), ..grant() }),
        ("revoke-grants", "two grants", revoke(Targets::Grants(hashes(&[1, 2])), Vec::new())),
        ("revoke-users", "a user, with the tips of two devices", revoke(Targets::Users(users(&[3])), tipped)),
        ("revoke-devices", "a device, with its root key's word", revoke(Targets::Devices(vec![target()]), Vec::new())),
        ("settings", "a new session every day", second(LogBody::Settings(Settings { rekey_every_ms: 86_400_000 }))),
        ("key-nodes", "two of three", second(LogBody::KeyNodes(key_nodes(2, &[1, 2, 3])))),
        ("key-nodes-with-a-condition", "in a week of one year, or after the next", second(LogBody::KeyNodes(conditioned(week)))),
        ("key-nodes-with-approvals", "two of three approve from a time on, or one other", second(LogBody::KeyNodes(conditioned(board)))),
        ("approve", "key nodes may release to a user", approve(3, Position::END)),
        ("approve-until", "up to a time", approve(3, NOW)),
        ("approve-no-more", "what was approved is taken back", approve(3, Position::START)),
        ("key-nodes-of-another-generation", "publishers are to draw new secrets", second(LogBody::KeyNodes(KeyNodes { generation: u32::MAX, ..key_nodes(2, &[1, 2, 3]) }))),
        ("no-key-nodes", "none any more", second(LogBody::KeyNodes(key_nodes(0, &[])))),
        ("close", "the end of the stream", second(LogBody::Close)),
    ];
    rows.map(|(name, about, entry)| read(name, about, &entry))
        .to_vec()
}

/// A good entry, with what it says.
fn read(name: &str, about: &str, entry: &LogEntry) -> Case {
    let body = encode(entry);
    let case = given(name, about, &signed(&body))
        .hex("signing-seed", anna().device.signing.expose_seed())
        .ok()
        .hex("digest", digest(LABEL, &[&body]).as_bytes())
        .with("stream", entry.stream)
        .hex("user", entry.user.0)
        .with("device", entry.device)
        .with("seq", entry.seq)
        .with("prev", entry.prev)
        .each(&entry.heads, |case, head| case.with("head", head))
        .with("time", entry.time.0);
    match &entry.body {
        LogBody::Genesis(genesis) => case
            .with("says", "genesis")
            .hex("nonce", genesis.nonce)
            .hex("owner", genesis.owner.0)
            .with("sharing", genesis.sharing as u8)
            .with("public", genesis.public),
        LogBody::Grant(grant) => case
            .with("says", "grant")
            .hex("to", grant.user.0)
            .each(&grant.devices, |case, device| {
                case.with("to-device", device)
            })
            .with("roles", grant.roles.0)
            .each(&grant.lanes, |case, lane| case.hex("lane", lane.0))
            .with("from", grant.interval.from.0)
            .with("until", grant.interval.until.0)
            .with("reshare", grant.reshare),
        LogBody::Revoke(revoke) => {
            targets(case.with("says", "revoke"), &revoke.targets).each(&revoke.last, |case, of| {
                let tips: Vec<String> = of.tips.iter().map(ToString::to_string).collect();
                case.with(
                    "last",
                    format!("{} {}", of.device, tips.join(" ")).trim_end(),
                )
            })
        }
        LogBody::Settings(settings) => case
            .with("says", "settings")
            .with("rekey-every-ms", settings.rekey_every_ms),
        LogBody::KeyNodes(nodes) => case
            .with("says", "key nodes")
            .with("threshold", nodes.threshold)
            .with("generation", nodes.generation)
            .each(&nodes.nodes, |case, node| {
                case.hex("node", node.user.0)
                    .with("node-device", node.device)
            })
            .each(&nodes.condition.0, |case, all| {
                let all: Vec<String> = all.iter().map(demand).collect();
                case.with("if", all.join(" and "))
            }),
        LogBody::Close => case.with("says", "close"),
        LogBody::Approve(approval) => case
            .with("says", "approve")
            .hex("to", approval.user.0)
            .with("until", approval.until.0),
    }
}

fn targets(case: Case, targets: &Targets) -> Case {
    match targets {
        Targets::Grants(grants) => case.each(grants, |case, grant| case.with("grant", grant)),
        Targets::Users(users) => case.each(users, |case, user| case.hex("out", user.0)),
        Targets::Devices(devices) => case.each(devices, |case, target| {
            let proven = if target.is_proven() {
                "proven"
            } else {
                "unproven"
            };
            case.with("out-device", format!("{} {proven}", target.device))
        }),
    }
}

fn encodings() -> Vec<Case> {
    let (key, other) = (anna().device.signing, ben().device.signing);
    raw::faults(
        &key,
        &other,
        LABEL,
        "sealcast.v1 device list entry",
        &encode(&grant()),
    )
    .into_iter()
    .map(|fault| given(fault.name, fault.about, &fault.wire).fails(fault.failure))
    .collect()
}

/// Choices that nobody has, one byte of a good body altered each.
fn choices() -> Vec<Case> {
    let altered = |entry: &LogEntry, from_end: usize, to: u8| {
        let mut body = encode(entry);
        let at = body.len() - from_end;
        body[at] = to;
        signed(&body)
    };
    let (genesis, grant) = (genesis(), grant());
    let later = second(LogBody::KeyNodes(conditioned(&[&[AFTER]])));
    let close = second(LogBody::Close);
    #[rustfmt::skip]
    let rows = [
        ("demand-tag-3", "a demand that there is not", altered(&later, 12, 3)),
        ("tag-7", "a kind of entry that there is not", altered(&close, 2, 7)),
        ("close-with-a-field", "the end of the stream has no fields", signed(&[&encode(&close)[..encode(&close).len() - 1], &[0x81, 0]].concat())),
        ("lane-mode-1", "a lane mode that there is not", altered(&genesis, 3, 1)),
        ("sharing-3", "a way of sharing that there is not", altered(&genesis, 2, 3)),
        ("public-as-number", "a number where a truth value belongs", altered(&genesis, 1, 0)),
        ("reshare-null", "null where a truth value belongs", altered(&grant, 1, 0xf6)),
    ];
    rows.map(|(name, about, wire)| given(name, about, &wire).fails("malformed"))
        .to_vec()
}

fn with_grant(change: impl Fn(&mut Grant)) -> LogEntry {
    let mut grant = reader();
    change(&mut grant);
    second(LogBody::Grant(grant))
}

fn ranges() -> Vec<Case> {
    let (none, first) = (LogHash([0; 32]), genesis());
    let interval = |from, until| Interval {
        from: Position(from),
        until: Position(until),
    };
    let many: Vec<u8> = (1..=33).collect();
    let nine = Condition((0..9).map(|at| vec![Demand::After(Position(at))]).collect());
    let target_twice = Targets::Devices(vec![target(), target()]);
    #[rustfmt::skip]
    let rows = [
        ("heads-unsorted", "the heads are not ascending", LogEntry { heads: hashes(&[2, 1]), ..grant() }),
        ("head-twice", "a head stands twice", LogEntry { heads: hashes(&[1, 1]), ..grant() }),
        ("prev-among-heads", "the entry before is named as a head too", LogEntry { heads: vec![SEEN], ..grant() }),
        ("time-out-of-range", "the time is 2^48", LogEntry { time: Position::END, ..grant() }),
        ("first-with-prev", "seq 0 and an entry before", LogEntry { seq: 0, ..grant() }),
        ("second-without-prev", "seq 1 and no entry before", LogEntry { prev: none, ..grant() }),
        ("first-without-heads", "a chain that begins having seen nothing", LogEntry { seq: 0, prev: none, ..grant() }),
        ("without-stream", "no stream, and not its first entry", LogEntry { stream: StreamId([0; 32]), ..grant() }),
        ("genesis-in-a-stream", "a first entry that names a stream", LogEntry { stream: STREAM, ..first.clone() }),
        ("genesis-with-heads", "a first entry that has seen others", LogEntry { heads: vec![SEEN], ..first.clone() }),
        ("genesis-later", "a first entry at seq 1", LogEntry { seq: 1, prev: SEEN, ..first.clone() }),
        ("genesis-of-another-owner", "the author is not the owner", LogEntry { user: ben().user, ..first }),
        ("no-role", "roles 0", with_grant(|grant| grant.roles = Roles::NONE)),
        ("role-8", "a role that there is not", with_grant(|grant| grant.roles = Roles(9))),
        ("no-position", "the interval is empty", with_grant(|grant| grant.interval = interval(5, 5))),
        ("backwards", "the interval ends before it begins", with_grant(|grant| grant.interval = interval(6, 5))),
        ("beyond-the-end", "the interval ends at 2^48 + 1", with_grant(|grant| grant.interval = interval(5, Position::END.0 + 1))),
        ("devices-unsorted", "the devices are not ascending", with_grant(|grant| grant.devices = vec![DeviceId([2; 16]), DeviceId([1; 16])])),
        ("lane-twice", "a lane stands twice", with_grant(|grant| grant.lanes = users(&[3, 3]))),
        ("revoke-nothing", "no grant is named", revoke(Targets::Grants(Vec::new()), Vec::new())),
        ("revoke-no-user", "no user is named", revoke(Targets::Users(Vec::new()), Vec::new())),
        ("revoke-unsorted", "the users are not ascending", revoke(Targets::Users(users(&[4, 3])), Vec::new())),
        ("revoke-device-twice", "a device stands twice", revoke(target_twice, Vec::new())),
        ("last-unsorted", "the devices of `last` are not ascending", revoke(Targets::Users(users(&[3])), vec![tips(2, &[]), tips(1, &[])])),
        ("key-nodes-unsorted", "the nodes are not ascending", second(LogBody::KeyNodes(key_nodes(1, &[2, 1])))),
        ("key-node-twice", "a user stands twice", second(LogBody::KeyNodes(key_nodes(1, &[1, 1])))),
        ("key-nodes-too-few", "three needed of two", second(LogBody::KeyNodes(key_nodes(3, &[1, 2])))),
        ("key-nodes-none-needed", "none needed of two", second(LogBody::KeyNodes(key_nodes(0, &[1, 2])))),
        ("key-nodes-too-many", "33 nodes", second(LogBody::KeyNodes(key_nodes(1, &many)))),
        ("condition-without-nodes", "a condition on nothing", second(LogBody::KeyNodes(KeyNodes { threshold: 0, nodes: Vec::new(), ..conditioned(&[&[AFTER]]) }))),
        ("condition-without-a-demand", "an alternative that demands nothing", second(LogBody::KeyNodes(conditioned(&[&[]])))),
        ("condition-unsorted", "the alternatives are not ascending", second(LogBody::KeyNodes(conditioned(&[&[BEFORE], &[AFTER]])))),
        ("demands-unsorted", "the demands are not ascending", second(LogBody::KeyNodes(conditioned(&[&[BEFORE, AFTER]])))),
        ("demand-beyond-the-end", "a time of 2^48", second(LogBody::KeyNodes(conditioned(&[&[Demand::After(Position::END)]])))),
        ("approvers-too-few", "three approvals of two users", second(LogBody::KeyNodes(conditioned(&[&[approved(3, &[1, 2])]])))),
        ("approvals-none-needed", "no approval of two users", second(LogBody::KeyNodes(conditioned(&[&[approved(0, &[1, 2])]])))),
        ("approvers-unsorted", "who approves is not ascending", second(LogBody::KeyNodes(conditioned(&[&[approved(1, &[2, 1])]])))),
        ("approvers-too-many", "one of 33 users", second(LogBody::KeyNodes(conditioned(&[&[approved(1, &many)]])))),
        ("approve-oneself", "the author approves of itself", second(LogBody::Approve(Approval { user: anna().user, until: NOW }))),
        ("approve-beyond-the-end", "up to 2^48 + 1", approve(3, Position(Position::END.0 + 1))),
        ("condition-too-long", "nine alternatives", second(LogBody::KeyNodes(KeyNodes { condition: nine, ..key_nodes(1, &[1]) }))),
        ("tips-unsorted", "the tips are not ascending", revoke(Targets::Users(users(&[3])), vec![tips(1, &[8, 7])])),
    ];
    rows.map(|(name, about, entry)| {
        given(name, about, &signed(&encode(&entry))).fails("out of range")
    })
    .to_vec()
}

//! What sets of access-log entries add up to (`spec/access-log.md`).

use std::collections::BTreeMap;

use sealcast_crypto::digest;
use sealcast_protocol::{
    Approval, Approvers, Condition, Demand, DeviceId, Genesis, Grant, Interval, KeyNode, KeyNodes,
    LaneMode, LogBody, LogEntry, LogHash, Position, Revoke, Roles, Sharing, Signable, StreamId,
    Targets, UserId, encode,
};

use super::case::{Case, hex};
use super::cast::{Person, person};
use super::raw;

const NONE: LogHash = LogHash([0; 32]);
const START: u64 = 1_000;

pub(super) fn cases() -> Vec<Case> {
    [
        plain(),
        removed(),
        mutual(),
        lanes(),
        odd(),
        key_nodes(),
        approvals(),
        vec![example()],
    ]
    .concat()
}

/// Who writes, by the seed of the root key.
const OWNER: u8 = 0x11;
const ANN: u8 = 0x15;
const BEN: u8 = 0x19;
const PAM: u8 = 0x1d;
const RON: u8 = 0x21;

/// What becomes of a grant.
#[derive(Clone, Copy)]
enum Fate {
    Stands,
    TakenBy(LogHash),
    Void,
}

/// A log being written, one millisecond for each entry.
struct Story {
    stream: StreamId,
    entries: Vec<String>,
    newest: BTreeMap<u8, (u32, LogHash)>,
    time: u64,
}

impl Story {
    /// With the first entry. Its hash is the stream's id.
    fn new() -> (Self, LogHash) {
        let mut story = Self {
            stream: StreamId([0; 32]),
            entries: Vec::new(),
            newest: BTreeMap::new(),
            time: START,
        };
        let genesis = Genesis {
            nonce: [0; 16],
            owner: id(OWNER),
            lane_mode: LaneMode::Own,
            sharing: Sharing::Active,
            public: false,
        };
        let first = story.says(OWNER, &[], LogBody::Genesis(genesis));
        story.stream = StreamId(first.0);
        (story, first)
    }

    /// Writes behind the author's newest entry.
    fn says(&mut self, author: u8, seen: &[LogHash], body: LogBody) -> LogHash {
        let newest = self.newest.get(&author).copied();
        let (seq, prev) = newest.map_or((0, NONE), |(seq, hash)| (seq + 1, hash));
        self.says_at(author, (seq, prev), seen, body)
    }

    /// Writes in any place of the author's chain.
    fn says_at(
        &mut self,
        author: u8,
        place: (u32, LogHash),
        seen: &[LogHash],
        body: LogBody,
    ) -> LogHash {
        let Person { user, device, .. } = person(author);
        let (seq, prev) = place;
        let mut heads: Vec<LogHash> = seen.iter().copied().filter(|head| *head != prev).collect();
        heads.sort();
        let (stream, time) = (self.stream, Position(self.time));
        let entry = LogEntry {
            version: 1,
            stream,
            user,
            device: device.id,
            seq,
            prev,
            heads,
            time,
            body,
        };
        let body = encode(&entry);
        let wire = raw::signed(&device.signing, LogEntry::LABEL, &body);
        let key = device.signing.verifying_key();
        self.entries
            .push(format!("{} {}", hex(key.as_bytes()), hex(&wire)));
        let hash = LogHash::from(digest(LogEntry::LABEL, &[&body]));
        self.newest.insert(author, (seq, hash));
        self.time += 1;
        hash
    }

    /// Ends the story: what becomes of each authorised grant, and the mark.
    fn ends(&self, name: &str, about: &str, mut grants: Vec<(LogHash, Fate)>, mark: u64) -> Case {
        grants.sort_by_key(|(id, _)| *id);
        Case::new("log-state", name, about)
            .with("stream", self.stream)
            .hex("owner", id(OWNER).0)
            .each(&self.entries, |case, entry| case.with("entry", entry))
            .ok()
            .each(grants, |case, (id, fate)| {
                let fate = match fate {
                    Fate::Stands => "stands".to_owned(),
                    Fate::TakenBy(revoke) => format!("taken {revoke}"),
                    Fate::Void => "void".to_owned(),
                };
                case.with("grant", format!("{id} {fate}"))
            })
            .with("mark", START + mark)
    }
}

fn id(author: u8) -> UserId {
    person(author).user
}

fn grant(to: u8, roles: Roles) -> LogBody {
    on_lanes(to, roles, &[])
}

fn on_lanes(to: u8, roles: Roles, lanes: &[u8]) -> LogBody {
    LogBody::Grant(Grant {
        user: id(to),
        devices: Vec::new(),
        roles,
        lanes: lanes.iter().map(|lane| id(*lane)).collect(),
        interval: Interval::ALL,
        reshare: false,
    })
}

fn revoke(users: &[u8]) -> LogBody {
    let mut users: Vec<UserId> = users.iter().map(|user| id(*user)).collect();
    users.sort();
    LogBody::Revoke(Revoke {
        targets: Targets::Users(users),
        last: Vec::new(),
    })
}

fn revoke_grants(grants: &[LogHash]) -> LogBody {
    LogBody::Revoke(Revoke {
        targets: Targets::Grants(grants.to_vec()),
        last: Vec::new(),
    })
}

fn plain() -> Vec<Case> {
    let (mut story, _) = Story::new();
    let first = story.says(OWNER, &[], grant(RON, Roles::READER));
    let granted = story.ends("granted", "a reader", vec![(first, Fate::Stands)], 1);
    let out = story.says(OWNER, &[], revoke(&[RON]));
    let taken = (first, Fate::TakenBy(out));
    let revoked = story.ends("revoked", "a reader, removed", vec![taken], 2);
    let again = story.says(OWNER, &[], grant(RON, Roles::READER));
    let grants = vec![taken, (again, Fate::Stands)];
    let granted_again = story.ends(
        "granted-again",
        "a grant that has seen the removal",
        grants.clone(),
        3,
    );
    story.says(OWNER, &[], LogBody::Close);
    let closed = story.ends(
        "closed",
        "the end of the stream moves the mark too",
        grants,
        4,
    );
    vec![granted, revoked, granted_again, closed]
}

/// What a removed admin wrote.
fn removed() -> Vec<Case> {
    let (mut story, _) = Story::new();
    let admin = story.says(OWNER, &[], grant(ANN, Roles::ADMIN));
    let early = story.says(ANN, &[admin], grant(RON, Roles::READER));
    let stands = vec![(admin, Fate::Stands), (early, Fate::Stands)];
    let by_admin = story.ends(
        "granted-by-an-admin",
        "an admin lets a reader in",
        stands,
        2,
    );
    let out = story.says(OWNER, &[early], revoke(&[ANN]));
    let late = story.says(ANN, &[], grant(PAM, Roles::READER));
    let taken = (admin, Fate::TakenBy(out));
    let grants = vec![taken, (early, Fate::Stands), (late, Fate::Void)];
    let about = "what the removal reaches stands, what it does not reach is void";
    let after = story.ends("removed-admin", about, grants, 3);

    let (mut story, _) = Story::new();
    let admin = story.says(OWNER, &[], grant(ANN, Roles::ADMIN));
    let out = story.says(OWNER, &[], revoke(&[RON]));
    let unaware = story.says(ANN, &[admin], grant(RON, Roles::READER));
    let grants = vec![(admin, Fate::Stands), (unaware, Fate::TakenBy(out))];
    let about = "a grant to a removed user by someone who has not seen the removal";
    let behind = story.ends("grant-beside-a-removal", about, grants, 3);
    let aware = story.says(ANN, &[out], grant(RON, Roles::READER));
    let grants = vec![
        (admin, Fate::Stands),
        (unaware, Fate::TakenBy(out)),
        (aware, Fate::Stands),
    ];
    let seen = story.ends(
        "grant-behind-a-removal",
        "the same admin once more, having seen it",
        grants,
        4,
    );
    vec![by_admin, after, behind, seen]
}

/// Admins who remove others, and one another.
fn mutual() -> Vec<Case> {
    let (mut story, _) = Story::new();
    let ann = story.says(OWNER, &[], grant(ANN, Roles::ADMIN));
    let ben = story.says(OWNER, &[], grant(BEN, Roles::ADMIN));
    let ron = story.says(OWNER, &[], grant(RON, Roles::READER));
    let out = story.says(ANN, &[ron], revoke(&[RON, BEN]));
    story.says(BEN, &[ron], revoke(&[ANN]));
    let grants = vec![
        (ann, Fate::Stands),
        (ben, Fate::Stands),
        (ron, Fate::TakenBy(out)),
    ];
    let about = "admins take nothing from admins; a reader whom one of them removes is out";
    let both = story.ends("admins-against-each-other", about, grants, 5);

    let (mut story, first) = Story::new();
    let ann = story.says(OWNER, &[], grant(ANN, Roles::ADMIN));
    story.says(ANN, &[ann], revoke(&[OWNER]));
    let ben = story.says(OWNER, &[], grant(BEN, Roles::READER));
    let grants = vec![(ann, Fate::Stands), (ben, Fate::Stands)];
    let owner = story.ends("nothing-removes-the-owner", "an admin tries", grants, 3);

    story.says(ANN, &[first], grant(PAM, Roles::ADMIN));
    let grants = vec![(ann, Fate::Stands), (ben, Fate::Stands)];
    let about = "only the owner makes admins; the entry is not authorised";
    let made = story.ends("an-admin-makes-an-admin", about, grants, 3);
    vec![both, owner, made]
}

/// What publishers may write.
fn lanes() -> Vec<Case> {
    let (mut story, _) = Story::new();
    let pam = story.says(OWNER, &[], grant(PAM, Roles::PUBLISHER));
    let own = story.says(PAM, &[pam], on_lanes(RON, Roles::READER, &[PAM]));
    let stands = [(pam, Fate::Stands), (own, Fate::Stands)];
    let about = "a publisher lets a reader into its own lane, which does not move the mark";
    let lane = story.ends("publisher-grants-its-lane", about, stands.to_vec(), 1);
    story.says(PAM, &[], on_lanes(RON, Roles::READER, &[ANN]));
    let other = story.ends(
        "publisher-grants-another-lane",
        "the entry is not authorised",
        stands.to_vec(),
        1,
    );
    story.says(PAM, &[], grant(RON, Roles::READER));
    let all = story.ends(
        "publisher-grants-all-lanes",
        "nor is this one",
        stands.to_vec(),
        1,
    );
    story.says(PAM, &[], on_lanes(RON, Roles::PUBLISHER, &[PAM]));
    let role = story.ends(
        "publisher-grants-its-role",
        "nor this one",
        stands.to_vec(),
        1,
    );
    vec![lane, other, all, role]
}

/// Forks, strangers, and entries that wait.
fn odd() -> Vec<Case> {
    let (mut story, _) = Story::new();
    let ann = story.says(OWNER, &[], grant(ANN, Roles::ADMIN));
    let good = story.says(ANN, &[ann], grant(RON, Roles::READER));
    let twin = story.says(ANN, &[], grant(PAM, Roles::READER));
    let other = story.says_at(ANN, (1, good), &[], grant(BEN, Roles::READER));
    let later = story.says(ANN, &[], grant(BEN, Roles::PUBLISHER));
    let grants = vec![
        (ann, Fate::Stands),
        (good, Fate::Stands),
        (twin, Fate::Void),
        (other, Fate::Void),
        (later, Fate::Void),
    ];
    let about = "two entries with one seq: neither counts, nor does what comes later";
    let fork = story.ends("fork", about, grants, 2);

    let (mut story, first) = Story::new();
    story.says(BEN, &[first], grant(BEN, Roles::ADMIN));
    story.says(BEN, &[], revoke(&[OWNER]));
    let stranger = story.ends("stranger", "someone whom no grant names", Vec::new(), 0);

    let (mut story, _) = Story::new();
    let ron = story.says(OWNER, &[], grant(RON, Roles::READER));
    let hidden = LogHash([9; 32]);
    story.says(OWNER, &[hidden], revoke(&[RON]));
    let about = "a removal that names an entry which did not come has no effect yet";
    let waiting = story.ends("waiting", about, vec![(ron, Fate::Stands)], 1);
    let waiting = waiting.with("missing", hidden);
    vec![fork, stranger, waiting]
}

fn key_nodes() -> Vec<Case> {
    let named = |seeds: &[u8]| {
        let node = |seed: &u8| KeyNode {
            user: UserId([*seed; 32]),
            device: DeviceId([*seed; 16]),
        };
        LogBody::KeyNodes(KeyNodes {
            threshold: seeds.len().min(1) as u8,
            nodes: seeds.iter().map(node).collect(),
            condition: Condition::default(),
            generation: 0,
        })
    };
    let (mut story, _) = Story::new();
    let ann = story.says(OWNER, &[], grant(ANN, Roles::ADMIN));
    let pam = story.says(OWNER, &[], grant(PAM, Roles::PUBLISHER));
    let first = story.says(OWNER, &[], named(&[1, 2]));
    let grants = vec![(ann, Fate::Stands), (pam, Fate::Stands)];
    story.says(PAM, &[pam], named(&[3]));
    let about = "a publisher may not name key nodes";
    let by_publisher = story.ends("key-nodes", about, grants.clone(), 3);
    let by_publisher = by_publisher.with("key-nodes", first);
    let beside = story.says(ANN, &[ann], named(&[4]));
    let about = "two admins name key nodes without knowing of each other: none are in force";
    let concurrent = story.ends("key-nodes-side-by-side", about, grants.clone(), 5);
    let both = story.says(OWNER, &[beside], named(&[5]));
    let about = "somebody who knows of both settles it";
    let settled = story.ends("key-nodes-settled", about, grants.clone(), 6);
    let settled = settled.with("key-nodes", both);
    story.says(OWNER, &[], named(&[]));
    let about = "there are none any more";
    let none = story.ends("key-nodes-ended", about, grants.clone(), 7);
    let (mut story, _) = Story::new();
    let ann = story.says(OWNER, &[], grant(ANN, Roles::ADMIN));
    let first = story.says(OWNER, &[], named(&[1]));
    let removal = story.says(OWNER, &[], revoke(&[ANN]));
    story.says(ANN, &[first], named(&[4]));
    let about = "a removed admin names key nodes in an entry that the removal does not reach";
    let removed = story.ends(
        "key-nodes-of-a-removed-admin",
        about,
        vec![(ann, Fate::TakenBy(removal))],
        3,
    );
    let removed = removed.with("key-nodes", first);
    [
        vec![by_publisher, concurrent, settled, none, removed],
        forked_key_nodes(&named),
    ]
    .concat()
}

/// A removed admin writes beside an entry that stands, in its place.
fn forked_key_nodes(named: &dyn Fn(&[u8]) -> LogBody) -> Vec<Case> {
    let (mut story, _) = Story::new();
    let ann = story.says(OWNER, &[], grant(ANN, Roles::ADMIN));
    let first = story.says(OWNER, &[], named(&[1]));
    let second = story.says(ANN, &[first], named(&[2]));
    let removal = story.says(OWNER, &[second], revoke(&[ANN]));
    let grants = vec![(ann, Fate::TakenBy(removal))];
    story.says_at(ANN, (0, NONE), &[first], grant(RON, Roles::READER));
    let grants = |twin| [grants.clone(), vec![(twin, Fate::Void)]].concat();
    let twin = *story.newest.get(&ANN).map_or(&NONE, |(_, twin)| twin);
    let about =
        "a fork takes the newest entry about key nodes: those before are not in force again";
    let forked = story.ends("key-nodes-forked", about, grants(twin), 4);
    let anew = story.says(OWNER, &[], named(&[1]));
    let about = "to name key nodes again settles it";
    let settled = story.ends("key-nodes-forked-and-settled", about, grants(twin), 6);
    vec![forked, settled.with("key-nodes", anew)]
}

/// One node is named, which asks for so much.
fn named_with(condition: Condition) -> LogBody {
    LogBody::KeyNodes(KeyNodes {
        threshold: 1,
        nodes: Vec::from([KeyNode {
            user: UserId([1; 32]),
            device: DeviceId([1; 16]),
        }]),
        condition,
        generation: 0,
    })
}

/// Ann and Ben are asked for their approval; Ron reads.
fn approvals() -> Vec<Case> {
    let both = [ANN, BEN].map(|seed| person(seed).user);
    let mut of = both.to_vec();
    of.sort();
    let approved = Demand::Approved(Approvers { needed: 1, of });
    let named = named_with(Condition(vec![vec![approved]]));
    let ron = person(RON).user;
    let approve = |until| LogBody::Approve(Approval { user: ron, until });
    let says = |by: u8, until: Position| {
        format!("{} {} {}", hex(&person(by).user.0), hex(&ron.0), until.0)
    };
    let begin = || {
        let (mut story, _) = Story::new();
        let reads = story.says(OWNER, &[], grant(RON, Roles::READER));
        let first = story.says(OWNER, &[], named.clone());
        (story, reads, first)
    };

    let (mut story, reads, first) = begin();
    story.says(ANN, &[first], approve(Position::END));
    story.says(BEN, &[first], approve(Position(2_000)));
    story.says(PAM, &[first], approve(Position::END));
    let about = "those whom a condition names approve, and nobody else";
    let stands = vec![(reads, Fate::Stands)];
    let both_say = story.ends("approved", about, stands.clone(), 2);
    let mut lines = [says(ANN, Position::END), says(BEN, Position(2_000))];
    lines.sort();
    let both_say = both_say.with("key-nodes", first);
    let both_say = both_say.each(lines, |case, line| case.with("approves", line));
    story.says(ANN, &[], approve(Position::START));
    let about = "what was approved is taken back by who did";
    let taken_back = story.ends("approved-no-more", about, stands, 2);
    let taken_back = taken_back.with("key-nodes", first);
    let taken_back = taken_back.with("approves", says(BEN, Position(2_000)));

    let (mut story, reads, first) = begin();
    let said = story.says(ANN, &[first], approve(Position::END));
    let removal = story.says(OWNER, &[said], revoke(&[RON]));
    let about = "a removal takes what was approved of the user before";
    let taken = vec![(reads, Fate::TakenBy(removal))];
    let removed = story.ends("approved-before-a-removal", about, taken.clone(), 4);
    let removed = removed.with("key-nodes", first);
    story.says(ANN, &[removal], approve(Position::END));
    let about = "what is approved in knowledge of the removal counts";
    let again = story.ends("approved-after-a-removal", about, taken, 4);
    let again = again.with("key-nodes", first);
    let again = again.with("approves", says(ANN, Position::END));
    let mut cases = vec![both_say, taken_back, removed, again];

    let (mut story, reads, first) = begin();
    let said = story.says(ANN, &[first], approve(Position::END));
    let removal = story.says(OWNER, &[said], revoke_grants(&[reads]));
    let about = "who loses a grant needs approval anew";
    let taken = vec![(reads, Fate::TakenBy(removal))];
    let lost = story.ends("approved-before-a-grant-is-lost", about, taken, 4);
    cases.push(lost.with("key-nodes", first));

    let (mut story, reads, first) = begin();
    let said = story.says(ANN, &[first], approve(Position::END));
    story.says(OWNER, &[said], named_with(Condition::default()));
    let anew = story.says(OWNER, &[], named);
    let about = "what was approved is over once a condition does not name its author";
    let stands = vec![(reads, Fate::Stands)];
    let over = story.ends("approved-before-it-was-asked-for-anew", about, stands, 5);
    cases.push(over.with("key-nodes", anew));
    cases
}

/// The example of the page.
fn example() -> Case {
    let (mut story, _) = Story::new();
    let g1 = story.says(OWNER, &[], grant(ANN, Roles::ADMIN));
    let g2 = story.says(OWNER, &[], grant(BEN, Roles::ADMIN));
    let g3 = story.says(OWNER, &[], grant(RON, Roles::READER));
    let r1 = story.says(OWNER, &[], revoke(&[ANN]));
    let g4 = story.says(ANN, &[g3], grant(PAM, Roles::PUBLISHER));
    let r2 = story.says(ANN, &[], revoke(&[RON, BEN]));
    let g5 = story.says(BEN, &[g3], grant(RON, Roles::READER));
    let grants = vec![
        (g1, Fate::TakenBy(r1)),
        (g2, Fate::Stands),
        (g3, Fate::TakenBy(r2)),
        (g4, Fate::Void),
        (g5, Fate::Stands),
    ];
    story.ends("example", "the example of the page", grants, 7)
}

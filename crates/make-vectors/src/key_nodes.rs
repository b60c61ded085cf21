//! Segments, dealings, shares, answers and what comes of them (`spec/key-nodes.md`).

use anyhow::Context as _;
use sealcast_crypto::{
    Dealing, LaneSecret, NodeId, NodeIndex, NodeKey, NodeShare, SEALED_SEGMENT_LEN, SegmentLabel,
    segments,
};

use super::case::{Case, hex};
use super::cast::Given;

const LANE_SECRET: [u8; 64] = [7; 64];
const COEFFICIENTS: [u8; 64 * 31] = [8; 64 * 31];
const DRAWN: [u8; 32] = [1; 32];
const NODE_KEY: [u8; 32] = [5; 32];
const NODES: [NodeId; 2] = [at(32, 7), at(28, 0xfff_ffff)];
/// The order of the group, and the field element 1, which is negative.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];
const NEGATIVE: [u8; 32] = super::points::number(1);
const ZERO: [u8; 32] = [0; 32];

const fn at(depth: u8, index: u64) -> NodeId {
    NodeId { depth, index }
}

pub(super) fn cases() -> anyhow::Result<Vec<Case>> {
    let dealt = Dealt::new()?;
    Ok([
        intervals(),
        sealed(&dealt)?,
        dealings(&dealt)?,
        dealt.shares(),
        dealt.answers(),
        dealt.quorums(),
        dealt.false_answers(),
    ]
    .concat())
}

fn intervals() -> Vec<Case> {
    let (minute, now) = (1 << 16, 1_790_000_000_123);
    #[rustfmt::skip]
    let rows = [
        ("shortest", "the smallest segment", 3 * minute, 4 * minute),
        ("one-short", "a position short of the smallest", 3 * minute, 4 * minute - 1),
        ("a-straddler", "as long as two, and one lies in it", 3 * minute + 1, 5 * minute + 1),
        ("largest", "the largest segment", 1 << 32, 1 << 33),
        ("two-largest", "twice that is not one", 1 << 33, 1 << 34),
        ("day", "a day", now, now + 86_400_000),
        ("year", "a year", now, now + 365 * 86_400_000),
    ];
    rows.map(|(name, about, from, until)| {
        let found = segments(from, until);
        let first = found.first().map_or(until, |node| node.from());
        let last = found.last().map_or(until, |node| node.until());
        let left = [(from, first), (last, until)];
        let left = left.into_iter().filter(|(from, until)| from < until);
        Case::new("segments", name, about)
            .with("from", from)
            .with("until", until)
            .ok()
            .each(found, |case, node| {
                case.with("node", format!("{} {}", node.depth, node.index))
            })
            .each(left, |case, (from, until)| {
                case.with("left", format!("{from} {until}"))
            })
    })
    .to_vec()
}

/// The parts of segments that are all of one session.
fn of_session(case: Case) -> Case {
    case.hex("stream", [1; 32])
        .hex("lane", [2; 32])
        .hex("session", [3; 16])
}

fn sealed(dealt: &Dealt) -> anyhow::Result<Vec<Case>> {
    let case = |name: &str, about: &str, secret: [u8; 64], node: NodeId| {
        of_session(Case::new("segment", name, about).hex("lane-secret", secret))
            .with("node", format!("{} {}", node.depth, node.index))
    };
    let good = (NODES.iter().zip(["example", "last-of-its-height"])).zip(&dealt.records);
    let good = good.flat_map(|((node, name), record)| {
        let make = case(name, "sealed by the lane's user", LANE_SECRET, *node);
        let opens = case(
            &format!("{name}-opens"),
            "opened with the lane secret",
            LANE_SECRET,
            *node,
        );
        [
            make.hex("node-key", NODE_KEY).ok().hex("sealed", record),
            opens.hex("sealed", record).ok().hex("node-key", NODE_KEY),
        ]
    });
    let record = dealt.records.first().context("there are records")?;
    let changed = |at: usize| {
        let mut changed = *record;
        changed[at] ^= 1;
        changed
    };
    let with = |at: usize, bytes: [u8; 32]| {
        let mut secret = LANE_SECRET;
        secret[at..at + 32].copy_from_slice(&bytes);
        secret
    };
    let own = NODES[0];
    #[rustfmt::skip]
    let rows = [
        ("altered-commitment", "a byte of the commitment differs", LANE_SECRET, own, changed(23), "not authentic"),
        ("altered-ciphertext", "a byte of the ciphertext differs", LANE_SECRET, own, changed(24), "not authentic"),
        ("altered-tag", "a byte of the tag differs", LANE_SECRET, own, changed(71), "not authentic"),
        ("another-scalar", "another lane's secret", with(0, [6; 32]), own, *record, "not authentic"),
        ("another-pepper", "another lane's pepper", with(32, [6; 32]), own, *record, "not authentic"),
        ("another-index", "the segment behind", LANE_SECRET, at(32, 8), *record, "not authentic"),
        ("another-depth", "a segment of the same index elsewhere", LANE_SECRET, at(28, 7), *record, "not authentic"),
        ("no-such-height", "15 levels above the leaves", LANE_SECRET, at(33, 7), *record, "no segment"),
        ("below-the-leaves", "a depth of 49", LANE_SECRET, at(49, 7), *record, "no segment"),
        ("behind-the-end", "an index that the depth does not have", LANE_SECRET, at(32, 1 << 32), *record, "no segment"),
        ("secret-zero", "a scalar of zero", with(0, ZERO), own, *record, "identity"),
        ("secret-not-reduced", "a scalar that is the order", with(0, ORDER), own, *record, "not canonical"),
    ];
    let refused = rows.map(|(name, about, secret, node, record, failure)| {
        case(name, about, secret, node)
            .hex("sealed", record)
            .fails(failure)
    });
    Ok(good.chain(refused).collect())
}

fn dealings(dealt: &Dealt) -> anyhow::Result<Vec<Case>> {
    let secret = LaneSecret::from_bytes(&LANE_SECRET)?;
    let case = |name: &str, about: &str, threshold: u8, nodes: u8| {
        let drawn = 64 * usize::from(threshold.saturating_sub(1)).min(31);
        Case::new("dealing", name, about)
            .hex("lane-secret", dealt.secret.expose())
            .hex("drawn", &COEFFICIENTS[..drawn])
            .with("threshold", threshold)
            .with("nodes", nodes)
    };
    let mut cases = Vec::new();
    #[rustfmt::skip]
    let rows = [
        ("two-of-three", "the example of the page", 2, 3),
        ("one-of-two", "each has the secret", 1, 2),
        ("most", "32 of 32", 32, 32),
    ];
    for (name, about, threshold, nodes) in rows {
        let drawn = 64 * usize::from(threshold - 1);
        let (dealing, shares) =
            secret.deal(&mut Given(&COEFFICIENTS[..drawn]), threshold, nodes)?;
        let case = dealing_lines(case(name, about, threshold, nodes).ok(), &dealing);
        cases.push(case.each(shares, |case, share| case.hex("share", share.expose())));
    }
    #[rustfmt::skip]
    let rows = [
        ("none-needed", "a threshold of zero", 0, 3),
        ("more-needed-than-there-are", "four of three", 4, 3),
        ("too-many", "33 nodes", 2, 33),
    ];
    cases.extend(rows.map(|(name, about, threshold, nodes)| {
        case(name, about, threshold, nodes).fails("threshold")
    }));
    Ok(cases)
}

fn dealing_lines(case: Case, dealing: &Dealing) -> Case {
    commitments(case, dealing).hex("pepper-commitment", dealing.pepper().0)
}

fn commitments(case: Case, dealing: &Dealing) -> Case {
    case.each(dealing.commitments(), |case, point| {
        case.hex("commitment", point)
    })
}

/// The example of the page.
struct Dealt {
    secret: LaneSecret,
    dealing: Dealing,
    shares: Vec<NodeShare>,
    segments: Vec<SegmentLabel>,
    records: Vec<[u8; SEALED_SEGMENT_LEN]>,
}

impl Dealt {
    fn new() -> anyhow::Result<Self> {
        let secret = LaneSecret::from_bytes(&LANE_SECRET)?;
        let (dealing, shares) = secret.deal(&mut Given(&COEFFICIENTS[..64]), 2, 3)?;
        let label = |node| SegmentLabel::new(&[1; 32], &[2; 32], &[3; 16], node);
        let segments: Option<Vec<SegmentLabel>> = NODES.into_iter().map(label).collect();
        let segments = segments.context("both are segments")?;
        let key = NodeKey::init_with(|bytes| *bytes = NODE_KEY);
        let seal = |segment| secret.segment_key(segment).seal(&key);
        let records = segments.iter().map(seal).collect();
        Ok(Self {
            secret,
            dealing,
            shares,
            segments,
            records,
        })
    }

    /// What a node answers, as often as it is asked.
    fn answer(&self, node: NodeIndex) -> Vec<u8> {
        let share = self.shares.iter().find(|share| share.index() == node);
        let answer = share.map(|share| share.answer(&mut Given(&DRAWN), &self.segments));
        answer.map_or(Vec::new(), |answer| answer.expose().to_vec())
    }

    fn share_case(&self, name: &str, about: &str, index: u8, share: &[u8]) -> Case {
        dealing_lines(Case::new("share", name, about), &self.dealing)
            .with("index", index)
            .hex("share", share)
    }

    fn shares(&self) -> Vec<Case> {
        let share = *self.shares[1].expose();
        let with = |at: usize, bytes: &[u8]| {
            let mut changed = share;
            changed[at..at + bytes.len()].copy_from_slice(bytes);
            changed
        };
        #[rustfmt::skip]
        let rows = [
            ("another-nodes", "the share of the second node, given to the third", 3, share, "another dealing"),
            ("altered", "a byte of the scalar differs", 2, with(0, &[share[0] ^ 1]), "another dealing"),
            ("another-pepper", "a byte of the pepper differs", 2, with(32, &[share[32] ^ 1]), "another pepper"),
            ("zero", "a scalar of zero", 2, with(0, &ZERO), "identity"),
            ("not-reduced", "a scalar that is the order", 2, with(0, &ORDER), "not canonical"),
            ("node-zero", "no node has the index 0", 0, share, "no node"),
            ("node-thirty-three", "no node has the index 33", 33, share, "no node"),
        ];
        let refused = rows.map(|(name, about, index, share, failure)| {
            self.share_case(name, about, index, &share).fails(failure)
        });
        let good = self.share_case("good", "the second of three", 2, &share);
        let odd = |name, about, commitment: [u8; 32], failure| {
            Case::new("share", name, about)
                .hex("commitment", self.dealing.commitments()[0])
                .hex("commitment", commitment)
                .hex("pepper-commitment", self.dealing.pepper().0)
                .with("index", 2)
                .hex("share", share)
                .fails(failure)
        };
        let commitments = [
            odd(
                "commitment-of-the-identity",
                "nothing is committed to",
                ZERO,
                "identity",
            ),
            odd(
                "commitment-not-canonical",
                "a negative field element",
                NEGATIVE,
                "not canonical",
            ),
            odd(
                "commitment-too-large",
                "a field element above the prime",
                [0xff; 32],
                "not canonical",
            ),
        ];
        let none = Case::new("share", "no-commitment", "a dealing without a commitment")
            .hex("pepper-commitment", self.dealing.pepper().0)
            .with("index", 2)
            .hex("share", share)
            .fails("threshold");
        (std::iter::once(good.ok()).chain(refused))
            .chain(commitments)
            .chain([none])
            .collect()
    }

    fn segment_lines(&self, case: Case) -> Case {
        of_session(case).each(NODES, |case, node| {
            case.with("node", format!("{} {}", node.depth, node.index))
        })
    }

    fn answers(&self) -> Vec<Case> {
        let nodes = self.shares.iter().zip(["first", "second", "third"]);
        let case = nodes.map(|(share, name)| {
            let case = Case::new("node-answer", name, "for two segments")
                .with("index", share.index().get())
                .hex("share", share.expose())
                .hex("drawn", DRAWN);
            let case = self.segment_lines(case).ok();
            case.hex("answer", self.answer(share.index()))
        });
        case.collect()
    }

    /// Answers and records, in their order.
    fn quorum(&self, name: &str, about: &str, answers: &[(u8, Vec<u8>)]) -> Case {
        let case = commitments(Case::new("quorum", name, about), &self.dealing);
        let case = self.segment_lines(case);
        let case = case.each(answers, |case, (node, answer)| {
            case.with("answer", format!("{node} {}", hex(answer)))
        });
        case.each(&self.records, |case, record| case.hex("record", record))
    }

    fn good(&self) -> [Vec<u8>; 3] {
        [1, 2, 3].map(|node| NodeIndex::new(node).map_or(Vec::new(), |node| self.answer(node)))
    }

    fn quorums(&self) -> Vec<Case> {
        let [first, second, third] = self.good();
        let mut peppered = first.clone();
        peppered[96] ^= 1;
        let all = [(3, third.clone()), (1, first.clone()), (2, second.clone())];
        let both = |case: Case| {
            case.ok()
                .each([NODE_KEY; 2], |case, key| case.hex("node-key", key))
        };
        let of = |name, about, answers: &[(u8, Vec<u8>)]| both(self.quorum(name, about, answers));
        let mut altered = self.records.clone();
        altered[0][0] ^= 1;
        let false_record = Self {
            secret: self.secret.duplicate(),
            dealing: self.dealing.clone(),
            shares: Vec::new(),
            segments: self.segments.clone(),
            records: altered,
        };
        let pair = [(1, first.clone()), (2, second.clone())];
        vec![
            of("first-and-second", "two of three", &pair),
            of(
                "second-and-third",
                "two others",
                &[(2, second.clone()), (3, third.clone())],
            ),
            of("all", "more than are needed, in any order", &all),
            of(
                "a-false-pepper",
                "the first node sends a false pepper for the second segment",
                &[(1, peppered), (2, second)],
            )
            .with("liar", 1),
            false_record
                .quorum(
                    "a-false-record",
                    "a byte of the first record differs; nobody lies",
                    &pair,
                )
                .fails("not authentic"),
        ]
    }

    fn false_answers(&self) -> Vec<Case> {
        let [first, second, _] = self.good();
        let with = |at: usize, bytes: &[u8]| {
            let mut changed = second.clone();
            changed[at..at + bytes.len()].copy_from_slice(bytes);
            changed
        };
        let mut swapped = with(0, &second[64..96]);
        swapped[64..96].copy_from_slice(&second[..32]);
        #[rustfmt::skip]
        let rows = [
            ("too-few", "one of two that are needed", vec![], "too few"),
            ("answered-twice", "one node counts once", vec![(1, first.clone())], "answered already"),
            ("of-another-node", "the first node's answer in the second's name", vec![(2, first.clone())], "not proved"),
            ("too-short", "a byte is missing", vec![(2, second[..191].to_vec())], "answer length"),
            ("an-element-changed-places", "both elements, each in the other's place", vec![(2, swapped)], "not proved"),
            ("altered-challenge", "a byte of the challenge differs", vec![(2, with(128, &[second[128] ^ 1]))], "not proved"),
            ("altered-response", "a byte of the response differs", vec![(2, with(160, &[second[160] ^ 1]))], "not proved"),
            ("an-identity", "an element that is the identity", vec![(2, with(64, &ZERO))], "identity"),
            ("an-element-not-canonical", "an element that is a negative field element", vec![(2, with(0, &NEGATIVE))], "not canonical"),
            ("response-not-reduced", "a response that is the order", vec![(2, with(160, &ORDER))], "not canonical"),
        ];
        let cases = rows.into_iter().map(|(name, about, then, failure)| {
            let answers = [vec![(1, first.clone())], then].concat();
            self.quorum(name, about, &answers).fails(failure)
        });
        cases.collect()
    }
}

//! Enough key nodes open a segment, fewer open nothing, and whoever lies is named.
#![cfg(test)]

#[path = "key_nodes/by_hand.rs"]
mod by_hand;

use std::convert::Infallible;

use curve25519_dalek::scalar::Scalar;
use rand_core::{TryCryptoRng, TryRng};
use sealcast_crypto::{
    AnswerError, DealError, Dealing, DealingError, LaneSecret, NODES_MAX, NodeId, NodeIndex,
    NodeKey, NodeShare, Opened, Quorum, SEALED_SEGMENT_LEN, SEGMENT_HEIGHTS, SecretBytes,
    SegmentLabel, ShareError, TooFewAnswers, answer_len, segments,
};

const NODE: NodeId = NodeId {
    depth: 32,
    index: 7,
};

#[test]
fn any_two_of_three_nodes_open_a_segment() {
    let lane = Lane::dealt(2, 3);
    for pair in [[1, 2], [1, 3], [2, 3], [3, 1]] {
        let opened = lane.opened_by(&pair);
        assert_eq!(exposed(&opened), [Some([5; 32]), Some([5; 32])]);
        assert_eq!(opened.liars, []);
    }
}

#[test]
fn so_do_three_of_five_and_all_of_the_most_that_there_may_be() {
    for (threshold, nodes) in [(1, 1), (1, 3), (3, 5), (NODES_MAX, NODES_MAX)] {
        let lane = Lane::dealt(threshold, nodes);
        let last: Vec<u8> = (nodes - threshold + 1..=nodes).collect();
        assert_eq!(exposed(&lane.opened_by(&last))[0], Some([5; 32]));
    }
}

#[test]
fn fewer_than_are_needed_open_nothing() {
    let lane = Lane::dealt(3, 5);
    let mut quorum = lane.quorum();
    for node in [1, 4] {
        assert!(!quorum.is_enough());
        assert!(matches!(quorum.open(&lane.records), Err(TooFewAnswers)));
        quorum
            .take(index(node), lane.answer(node).expose())
            .unwrap();
    }
    assert!(matches!(quorum.open(&lane.records), Err(TooFewAnswers)));

    // Nor do they when they are put together as if they were enough.
    let mut fewer = lane.dealing.commitments();
    fewer.pop();
    let fewer = Dealing::from_commitments(&fewer, lane.dealing.pepper()).unwrap();
    let mut quorum = Quorum::new(fewer, lane.segments.clone());
    let taken = quorum.take(index(1), lane.answer(1).expose());
    assert_eq!(taken, Err(AnswerError::Proof));
}

/// One share fewer than are needed goes with every secret: for each there is a polynomial through
/// both.
#[test]
fn one_share_too_few_goes_with_every_secret() {
    let lane = Lane::dealt(3, 5);
    let held = [2_u8, 5].map(|node| {
        (
            Scalar::from(node),
            value(&lane.shares[usize::from(node) - 1]),
        )
    });
    let own = Scalar::from_canonical_bytes(lane.secret.expose()[..32].try_into().unwrap()).unwrap();
    for secret in [
        own,
        Scalar::ONE,
        Scalar::from(u64::MAX),
        -Scalar::from(77_u8),
    ] {
        let points = [(Scalar::ZERO, secret), held[0], held[1]];
        for (at, value) in points {
            assert_eq!(through(&points, at), value);
        }
        // It is the dealer's own for the dealer's secret alone: nothing but the other shares tells.
        let third = value(&lane.shares[0]);
        assert_eq!(through(&points, Scalar::ONE) == third, secret == own);
    }
}

#[test]
fn a_share_of_another_node_or_dealing_is_refused() {
    let (lane, other) = (Lane::dealt(2, 3), Lane::dealt_anew(2, 3, 9));
    let second = |of: &Lane| NodeShare::from_bytes(index(2), of.shares[1].expose()).unwrap();
    assert_eq!(second(&lane).check(&lane.dealing), Ok(()));
    assert_eq!(
        second(&other).check(&lane.dealing),
        Err(ShareError::OtherDealing)
    );
    let moved = NodeShare::from_bytes(index(3), lane.shares[1].expose()).unwrap();
    assert_eq!(moved.check(&lane.dealing), Err(ShareError::OtherDealing));

    let mut bytes = *lane.shares[1].expose();
    bytes[32] ^= 1;
    let peppered = NodeShare::from_bytes(index(2), &bytes).unwrap();
    assert_eq!(peppered.check(&lane.dealing), Err(ShareError::OtherPepper));
}

/// A node that was replaced, with one that was dealt to later.
#[test]
fn shares_of_two_dealings_open_nothing_together() {
    let (old, new) = (Lane::dealt(2, 3), Lane::dealt_anew(2, 3, 9));
    assert_eq!(old.secret.expose(), new.secret.expose());
    assert_eq!(old.dealing.commitments()[0], old.secret.public());
    assert_eq!(new.dealing.commitments()[0], old.secret.public());
    let mut quorum = new.quorum();
    let taken = quorum.take(index(1), old.answer(1).expose());
    assert_eq!(taken, Err(AnswerError::Proof));
    quorum.take(index(2), new.answer(2).expose()).unwrap();
    assert!(!quorum.is_enough());

    // Nor when nobody looks at proofs: both shares lie on no line through the secret.
    let points = [
        (Scalar::ONE, value(&old.shares[0])),
        (Scalar::from(2_u8), value(&new.shares[1])),
    ];
    let secret: [u8; 32] = new.secret.expose()[..32].try_into().unwrap();
    assert_ne!(through(&points, Scalar::ZERO).to_bytes(), secret);

    // What was sealed before opens by new shares.
    let opened = new.opened(&[1, 3], &old.records);
    assert_eq!(exposed(&opened)[0], Some([5; 32]));
}

#[test]
fn an_answer_that_is_altered_anywhere_is_refused_and_changes_nothing() {
    let lane = Lane::dealt(2, 3);
    let mut quorum = lane.quorum();
    let good = lane.answer(1);
    let peppers = [32..64, 96..128];
    for at in (0..good.len()).filter(|at| !peppers.iter().any(|own| own.contains(at))) {
        let mut altered = good.expose().to_vec();
        altered[at] ^= 1;
        let taken = quorum.take(index(1), &altered);
        let expected = [Err(AnswerError::NotCanonical), Err(AnswerError::Proof)];
        assert!(expected.contains(&taken), "{at}: {taken:?}");
    }
    assert_eq!(quorum.take(index(1), good.expose()), Ok(()));
    assert_eq!(
        quorum.take(index(1), good.expose()),
        Err(AnswerError::Repeated)
    );
    assert!(!quorum.is_enough());
}

#[test]
fn an_answer_of_another_node_segment_or_length_is_refused() {
    let lane = Lane::dealt(2, 3);
    let mut quorum = lane.quorum();
    let taken = quorum.take(index(2), lane.answer(1).expose());
    assert_eq!(taken, Err(AnswerError::Proof));
    let mut turned = lane.segments.clone();
    turned.reverse();
    let answer = lane.shares[0].answer(&mut Fixed(1), &turned);
    assert_eq!(
        quorum.take(index(1), answer.expose()),
        Err(AnswerError::Proof)
    );
    let answer = lane.shares[0].answer(&mut Fixed(1), &turned[..1]);
    assert_eq!(answer.len(), answer_len(1));
    assert_eq!(
        quorum.take(index(1), answer.expose()),
        Err(AnswerError::Length)
    );
    assert_eq!(quorum.take(index(1), &[]), Err(AnswerError::Length));
}

/// Two elements that are wrong in ways that cancel out: each has a weight that hangs on both.
#[test]
fn errors_that_cancel_out_are_noticed() {
    let lane = Lane::dealt(2, 3);
    let answer = lane.answer(1);
    let mut swapped = answer.expose().to_vec();
    swapped[..32].copy_from_slice(&answer.expose()[64..96]);
    swapped[64..96].copy_from_slice(&answer.expose()[..32]);
    let taken = lane.quorum().take(index(1), &swapped);
    assert_eq!(taken, Err(AnswerError::Proof));
}

#[test]
fn whoever_sends_a_false_pepper_is_named_and_the_segment_opens() {
    let lane = Lane::dealt(2, 3);
    for liar in 1..=3 {
        let mut quorum = lane.quorum();
        for node in 1..=3 {
            let mut answer = lane.answer(node).expose().to_vec();
            answer[96] ^= u8::from(node == liar);
            quorum.take(index(node), &answer).unwrap();
        }
        let opened = quorum.open(&lane.records).unwrap();
        assert_eq!(exposed(&opened), [Some([5; 32]), Some([5; 32])]);
        assert_eq!(opened.liars, [index(liar)]);
    }
}

#[test]
fn a_false_record_opens_nothing_and_names_nobody() {
    let lane = Lane::dealt(2, 3);
    for at in [0, 23, 24, 55, 56, 71] {
        let mut records = lane.records;
        records[0][at] ^= 1;
        let opened = lane.opened(&[1, 2], &records);
        assert_eq!(exposed(&opened), [None, Some([5; 32])]);
        assert_eq!(opened.liars, []);
    }
}

#[test]
fn a_record_opens_as_that_of_its_own_segment_alone() {
    let lane = Lane::dealt(2, 3);
    let [first, second] = lane.records;
    let opened = lane.opened(&[1, 2], &[second, first]);
    assert_eq!(exposed(&opened), [None, None]);
    let label = |stream, lane, session, node| {
        SegmentLabel::new(&[stream; 32], &[lane; 32], &[session; 16], node).unwrap()
    };
    let others = [
        label(9, 2, 3, NODE),
        label(1, 9, 3, NODE),
        label(1, 2, 9, NODE),
        label(1, 2, 3, NodeId { index: 8, ..NODE }),
        label(1, 2, 3, NodeId { depth: 28, ..NODE }),
    ];
    for other in others {
        assert!(lane.secret.segment_key(&other).open(&first).is_err());
    }
    let own = lane.secret.segment_key(&label(1, 2, 3, NODE));
    assert_eq!(own.open(&first).unwrap().expose(), &[5; 32]);
}

#[test]
fn no_element_or_number_of_another_encoding_is_taken() {
    let lane = Lane::dealt(2, 3);
    let good = lane.answer(1);
    let minus_one = (Scalar::ZERO - Scalar::ONE).to_bytes();
    let mut order = minus_one;
    order[0] += 1;
    let rows = [
        (0, [0; 32], AnswerError::Identity),
        (0, [0xff; 32], AnswerError::NotCanonical),
        (0, odd(), AnswerError::NotCanonical),
        (128, order, AnswerError::NotCanonical),
        (160, [0xff; 32], AnswerError::NotCanonical),
        (160, minus_one, AnswerError::Proof),
    ];
    for (at, bytes, expected) in rows {
        let mut altered = good.expose().to_vec();
        altered[at..at + 32].copy_from_slice(&bytes);
        let taken = lane.quorum().take(index(1), &altered);
        assert_eq!(taken, Err(expected), "{at}");
    }
    let of = |bytes: [u8; 32]| {
        let pepper = lane.dealing.pepper();
        Dealing::from_commitments(&[lane.dealing.commitments()[0], bytes], pepper)
    };
    assert_eq!(of([0; 32]), Err(DealingError::Identity));
    assert_eq!(of([0xff; 32]), Err(DealingError::NotCanonical));
    assert_eq!(of(odd()), Err(DealingError::NotCanonical));
    let with = |scalar: [u8; 32]| [scalar, [7; 32]].concat().try_into().unwrap();
    let secret = |scalar| LaneSecret::from_bytes(&with(scalar)).map(|_| ());
    assert_eq!(secret([0; 32]), Err(DealingError::Identity));
    assert_eq!(secret(order), Err(DealingError::NotCanonical));
    assert_eq!(secret(minus_one), Ok(()));
    let share = |scalar| NodeShare::from_bytes(index(1), &with(scalar)).map(|_| ());
    assert_eq!(share([0; 32]), Err(ShareError::Zero));
    assert_eq!(share(order), Err(ShareError::NotCanonical));
    assert_eq!(share(minus_one), Ok(()));
}

#[test]
fn a_dealing_has_one_to_thirty_two_nodes_and_needs_no_more_than_there_are() {
    let lane = Lane::dealt(2, 3);
    let dealt = |threshold, nodes| {
        lane.secret
            .deal(&mut Fixed(1), threshold, nodes)
            .map(|_| ())
    };
    for (threshold, nodes) in [(0, 0), (0, 3), (4, 3), (1, 33), (33, 33), (255, 255)] {
        assert_eq!(dealt(threshold, nodes), Err(DealError::Threshold));
    }
    let of = |count| {
        let commitments = vec![lane.dealing.commitments()[0]; count];
        Dealing::from_commitments(&commitments, lane.dealing.pepper()).map(|_| ())
    };
    assert_eq!(of(0), Err(DealingError::Threshold));
    assert_eq!(of(33), Err(DealingError::Threshold));
    assert_eq!(of(32), Ok(()));
    assert_eq!([0, 33, 255].map(NodeIndex::new), [None; 3]);
    assert_eq!(NodeIndex::new(32).map(NodeIndex::get), Some(32));
}

#[test]
fn randomness_that_is_none_deals_nothing() {
    assert_eq!(
        LaneSecret::generate(&mut Zeros).map(|_| ()),
        Err(DealError::Randomness)
    );
    let secret = LaneSecret::generate(&mut Fixed(1)).unwrap();
    let dealt = secret.deal(&mut Zeros, 2, 3).map(|_| ());
    assert_eq!(dealt, Err(DealError::Randomness));
}

/// A node that is copied, or restored, draws the same again. From two proofs with one nonce its
/// share could be computed.
#[test]
fn the_same_randomness_makes_another_nonce_for_another_answer() {
    let lane = Lane::dealt(2, 3);
    let nonces = lane.segments.iter().map(|segment| {
        let answer = lane.shares[0].answer(&mut Fixed(1), std::slice::from_ref(segment));
        let (_, proof) = answer.expose().split_last_chunk::<64>().unwrap();
        let [challenge, response] = [0, 32].map(|at| {
            let bytes = proof[at..at + 32].try_into().unwrap();
            Scalar::from_canonical_bytes(bytes).unwrap()
        });
        response + challenge * value(&lane.shares[0])
    });
    let nonces: Vec<Scalar> = nonces.collect();
    assert_ne!(nonces[0], nonces[1]);
    assert_eq!(
        lane.answer(1).expose(),
        lane.shares[0]
            .answer(&mut Fixed(1), &lane.segments)
            .expose()
    );
    let drawn = lane.shares[0].answer(&mut Fixed(2), &lane.segments);
    assert_ne!(lane.answer(1).expose(), drawn.expose());
}

#[test]
fn segments_lie_at_nine_heights_inside_the_tree() {
    let of = |depth, index| {
        SegmentLabel::new(&[1; 32], &[2; 32], &[3; 16], NodeId { depth, index }).is_some()
    };
    for depth in 0..=u8::MAX {
        let height = 48_u8.checked_sub(depth);
        let is_one = height.is_some_and(|height| SEGMENT_HEIGHTS.contains(&height));
        assert_eq!(of(depth, 0), is_one, "{depth}");
        if is_one {
            assert!(of(depth, (1 << depth) - 1) && !of(depth, 1 << depth));
        }
    }
}

#[test]
fn the_segments_of_an_interval_are_the_largest_inside_it_without_gaps() {
    let minute = 1 << 16;
    let day = 86_400_000;
    let from = 1_790_000_000_123;
    for length in [
        0,
        1,
        minute - 1,
        minute,
        3 * minute,
        day,
        40 * day,
        366 * day,
    ] {
        let found = segments(from, from + length);
        let mut at = from.next_multiple_of(minute);
        for node in &found {
            assert_eq!(node.from(), at);
            assert!(SegmentLabel::new(&[0; 32], &[0; 32], &[0; 16], *node).is_some());
            let larger = SEGMENT_HEIGHTS
                .iter()
                .filter(|height| **height > 48 - node.depth);
            for height in larger {
                let (first, size) = (at >> height << height, 1 << height);
                assert!(first != at || first + size > from + length, "{node:?}");
            }
            at = node.until();
        }
        assert!(found.is_empty() || (at <= from + length && from + length < at + minute));
        assert!(!found.is_empty() || length < 2 * minute);
    }
    assert_eq!(segments(5, 5), []);
    assert_eq!(segments(0, u64::MAX).len(), 1 << 16);
    assert_eq!(segments(u64::MAX, u64::MAX), []);
}

/// Which segments a year has is the same for two years that begin a largest segment apart, and does
/// not hang on where in the smallest one a year begins or ends, but for how many of these lie in it.
/// So these are all years that there are.
#[test]
fn a_year_has_30_segments_on_average_and_never_more_than_43() {
    let (smallest, largest) = (1 << 16, 1 << 32);
    for days in [365, 366] {
        let year = days * 86_400_000_u64;
        let whole = year / smallest;
        let (mut most, mut all) = (0, 0);
        for from in (0..largest).step_by(1 << 16) {
            for count in [whole - 1, whole] {
                let found = segments(from, from + count * smallest).len();
                most = most.max(found);
                all += found;
            }
        }
        let average = all / (2 * (largest / smallest) as usize);
        assert_eq!((most, average), (43, 30));
    }
}

/// Three of each size but the largest at either end, with as many of the largest between as leave room
/// for that.
#[test]
fn no_interval_of_up_to_a_year_has_more_than_53_segments() {
    let (smallest, largest, year) = (1 << 16, 1_u64 << 32, 366 * 86_400_000_u64);
    let (from, until) = (smallest, 7 * largest - smallest);
    assert!(until - from < year && until - from + largest > year);
    assert_eq!(segments(from, until).len(), 3 * 8 + 5 + 3 * 8);
}

#[test]
fn debug_prints_no_secret() {
    let lane = Lane::dealt(2, 3);
    let key = lane.secret.segment_key(&lane.segments[0]);
    assert_eq!(format!("{:?}", lane.secret), "LaneSecret(..)");
    assert_eq!(format!("{:?}", lane.shares[0]), "NodeShare(..)");
    assert_eq!(format!("{key:?}"), "SegmentKey(..)");
    assert_eq!(format!("{:?}", lane.dealing), "Dealing(2 needed)");
    assert_eq!(
        format!("{:?}", lane.dealing.pepper()),
        "PepperCommitment(..)"
    );
    assert_eq!(format!("{:?}", lane.quorum()), "Quorum(0 of 2 needed)");
}

/// A lane with two segments, and nodes that it was dealt to.
struct Lane {
    secret: LaneSecret,
    dealing: Dealing,
    shares: Vec<NodeShare>,
    segments: Vec<SegmentLabel>,
    records: [[u8; SEALED_SEGMENT_LEN]; 2],
}

impl Lane {
    fn dealt(threshold: u8, nodes: u8) -> Self {
        Self::dealt_anew(threshold, nodes, 8)
    }

    fn dealt_anew(threshold: u8, nodes: u8, drawn: u8) -> Self {
        let secret = LaneSecret::generate(&mut Fixed(7)).unwrap();
        let (dealing, shares) = secret.deal(&mut Fixed(drawn), threshold, nodes).unwrap();
        let label = |index| {
            let node = NodeId { index, ..NODE };
            SegmentLabel::new(&[1; 32], &[2; 32], &[3; 16], node).unwrap()
        };
        let segments = vec![label(7), label(8)];
        let key = NodeKey::init_with(|bytes| bytes.fill(5));
        let records = [0, 1].map(|at| secret.segment_key(&segments[at]).seal(&key));
        for share in &shares {
            share.check(&dealing).unwrap();
        }
        Self {
            secret,
            dealing,
            shares,
            segments,
            records,
        }
    }

    fn quorum(&self) -> Quorum {
        Quorum::new(self.dealing.clone(), self.segments.clone())
    }

    fn answer(&self, node: u8) -> SecretBytes {
        self.shares[usize::from(node) - 1].answer(&mut Fixed(1), &self.segments)
    }

    fn opened_by(&self, nodes: &[u8]) -> Opened {
        self.opened(nodes, &self.records)
    }

    fn opened(&self, nodes: &[u8], records: &[[u8; SEALED_SEGMENT_LEN]]) -> Opened {
        let mut quorum = self.quorum();
        for node in nodes {
            quorum
                .take(index(*node), self.answer(*node).expose())
                .unwrap();
        }
        quorum.open(records).unwrap()
    }
}

fn exposed(opened: &Opened) -> Vec<Option<[u8; 32]>> {
    let keys = opened.keys.iter();
    keys.map(|key| key.as_ref().map(|key| *key.expose()))
        .collect()
}

fn index(node: u8) -> NodeIndex {
    NodeIndex::new(node).unwrap()
}

/// The scalar of a share.
fn value(share: &NodeShare) -> Scalar {
    Scalar::from_canonical_bytes(share.expose()[..32].try_into().unwrap()).unwrap()
}

/// The polynomial through some points, at another place.
fn through(points: &[(Scalar, Scalar)], at: Scalar) -> Scalar {
    let term = |(own, value): &(Scalar, Scalar)| {
        let others = points.iter().filter(|(other, _)| other != own);
        let factor = |(other, _): &(Scalar, Scalar)| (at - other) * (own - other).invert();
        value * others.map(factor).product::<Scalar>()
    };
    points.iter().map(term).sum()
}

/// The encoding of a negative field element, which names nothing.
fn odd() -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[0] = 1;
    bytes
}

/// Randomness that comes again.
struct Fixed(u8);

impl TryRng for Fixed {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.0.into())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0.into())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        bytes.fill(self.0);
        Ok(())
    }
}

impl TryCryptoRng for Fixed {}

/// A broken generator.
struct Zeros;

impl TryRng for Zeros {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(0)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(0)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        bytes.fill(0);
        Ok(())
    }
}

impl TryCryptoRng for Zeros {}

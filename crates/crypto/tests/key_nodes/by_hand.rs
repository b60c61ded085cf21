//! Answers that somebody puts together with arithmetic of its own, past every count and proof: too few open nothing,
//! whatever stands in for those that lack.

use aes_gcm_siv::aead::AeadInOut as _;
use aes_gcm_siv::{Aes256GcmSiv, KeyInit as _};
use curve25519_dalek::ristretto::{CompressedRistretto, RistrettoPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::Identity as _;
use sealcast_crypto::{AnswerError, TooFewAnswers, delimited};

use super::{Lane, NODE, index, through, value};

/// How many are needed, and of how many.
const LANES: [(u8, u8); 3] = [(2, 3), (3, 5), (4, 5)];

/// Whether a record's commitment fits, and what is decrypted of it.
type Came = (bool, Option<[u8; 32]>);

const OPEN: Came = (true, Some([5; 32]));
const SHUT: Came = (false, None);

/// The number of a node, and what it makes of a segment's element.
type Point = (Scalar, RistrettoPoint);

/// So that what opens nothing below opens nothing for want of an answer.
#[test]
fn as_many_answers_as_are_needed_open_a_record_whichever_they_are() {
    for (threshold, nodes) in LANES {
        let lane = Lane::dealt(threshold, nodes);
        for set in sets(nodes, threshold.into()) {
            let had = points(&lane, &set);
            assert_eq!(opened(&lane, &had), OPEN, "{set:?}");
        }
    }
}

/// Somebody has one answer fewer than are needed, every record and all that is public.
#[test]
fn one_answer_too_few_opens_nothing_whatever_stands_in_for_the_one_that_lacks() {
    for (threshold, nodes) in LANES {
        let lane = Lane::dealt(threshold, nodes);
        for set in sets(nodes, usize::from(threshold) - 1) {
            let had = points(&lane, &set);
            // As if they were enough.
            assert_eq!(opened(&lane, &had), SHUT, "{set:?}");
            for lacking in (1..=nodes).filter(|node| !set.contains(node)) {
                let with = |element| {
                    let one_more = (Scalar::from(lacking), element);
                    opened(&lane, &[&had[..], &[one_more]].concat())
                };
                for (n, guess) in guesses(&lane, &had, lacking).into_iter().enumerate() {
                    assert_eq!(with(guess), SHUT, "{set:?}, {lacking}, guess {n}");
                }
                assert_eq!(with(point(&lane, lacking, 0).1), OPEN, "{set:?}, {lacking}");
            }
        }
    }
}

/// One node of five was replaced, of which three are needed, and joins those that were not.
#[test]
fn the_share_of_a_node_that_was_replaced_opens_nothing_with_two_new_ones_of_five() {
    let (old, new) = (Lane::dealt(3, 5), Lane::dealt_anew(3, 5, 9));
    assert_eq!(old.records, new.records);
    for set in sets(5, 3) {
        for replaced in &set {
            let mut quorum = new.quorum();
            let taken = quorum.take(index(*replaced), old.answer(*replaced).expose());
            assert_eq!(taken, Err(AnswerError::Proof));
            for node in set.iter().filter(|node| *node != replaced) {
                let answer = new.answer(*node);
                quorum.take(index(*node), answer.expose()).unwrap();
            }
            assert!(matches!(quorum.open(&new.records), Err(TooFewAnswers)));
            // With the new share in its place they are enough.
            let answer = new.answer(*replaced);
            quorum.take(index(*replaced), answer.expose()).unwrap();
            assert!(quorum.open(&new.records).unwrap().keys[0].is_some());
        }
    }
}

/// Nor do two old ones with one that is new, and nobody looks at proofs.
#[test]
fn no_mix_of_three_shares_of_two_dealings_has_the_secret_or_opens_a_record() {
    let (old, new) = (Lane::dealt(3, 5), Lane::dealt_anew(3, 5, 9));
    let secret: [u8; 32] = new.secret.expose()[..32].try_into().unwrap();
    for set in sets(5, 3) {
        // Which of the three are old: none and all go together.
        for bits in 0..8_u8 {
            let of = |n: usize| match (bits >> n) & 1 {
                0 => &new,
                _ => &old,
            };
            let numbered = set.iter().enumerate();
            let had = numbered.clone().map(|(n, node)| point(of(n), *node, 0));
            let shares = numbered.map(|(n, node)| {
                let share = &of(n).shares[usize::from(*node) - 1];
                (Scalar::from(*node), value(share))
            });
            let (had, shares): (Vec<_>, Vec<_>) = (had.collect(), shares.collect());
            let goes_together = bits == 0 || bits == 7;
            let expected = if goes_together { OPEN } else { SHUT };
            assert_eq!(opened(&new, &had), expected, "{set:?}, {bits:03b}");
            let found = through(&shares, Scalar::ZERO).to_bytes();
            assert_eq!(found == secret, goes_together, "{set:?}, {bits:03b}");
        }
    }
}

/// What somebody may put in the place of the answer that it lacks.
fn guesses(lane: &Lane, had: &[Point], lacking: u8) -> Vec<RistrettoPoint> {
    let commitments = lane.dealing.commitments();
    let commitments: Vec<_> = commitments.iter().map(|of| element(of)).collect();
    // What the share that lacks is to the generator: everybody computes it.
    let number = Scalar::from(lacking);
    let highest_first = commitments.iter().rev();
    let public = highest_first.fold(RistrettoPoint::identity(), |sum, of| sum * number + of);
    // The element that stands for the segment.
    let hashed = value(&lane.shares[0]).invert() * point(lane, 1, 0).1;
    let generator = RistrettoPoint::mul_base(&Scalar::ONE);
    let mut guesses = vec![RistrettoPoint::identity(), generator, hashed, public];
    guesses.extend(commitments);
    // The answers that there are once more, under another number.
    guesses.extend(had.iter().map(|(_, of)| *of));
    guesses.extend(had.iter().map(|(_, of)| -of));
    guesses.push(had.iter().map(|(_, of)| of).sum());
    // What the node itself answers for another segment, and by another dealing of the secret.
    guesses.push(point(lane, lacking, 1).1);
    let (threshold, nodes) = (lane.dealing.threshold(), lane.shares.len());
    let [threshold, nodes] = [threshold, nodes].map(|of| u8::try_from(of).unwrap());
    let other = Lane::dealt_anew(threshold, nodes, 9);
    guesses.push(point(&other, lacking, 0).1);
    guesses
}

/// The sets of so many of the nodes from 1 on.
fn sets(nodes: u8, count: usize) -> Vec<Vec<u8>> {
    let of_bits = |bits: u32| {
        let is_in = |node: &u8| (bits >> (node - 1)) & 1 == 1;
        (1..=nodes).filter(is_in).collect::<Vec<u8>>()
    };
    let all = (0..1_u32 << nodes).map(of_bits);
    all.filter(|of| of.len() == count).collect()
}

fn element(bytes: &[u8]) -> RistrettoPoint {
    let encoded = CompressedRistretto(bytes.try_into().unwrap());
    encoded.decompress().unwrap()
}

/// What a node answers for the first segment, or the second.
fn point(lane: &Lane, node: u8, segment: usize) -> Point {
    let answer = lane.answer(node);
    let at = 64 * segment;
    (Scalar::from(node), element(&answer.expose()[at..at + 32]))
}

fn points(lane: &Lane, nodes: &[u8]) -> Vec<Point> {
    nodes.iter().map(|node| point(lane, *node, 0)).collect()
}

/// The value at zero of the polynomial in the exponent that goes through some points.
fn at_zero(points: &[Point]) -> RistrettoPoint {
    let term = |(own, value): &Point| {
        let others = points.iter().map(|(other, _)| other);
        let others = others.filter(|other| *other != own);
        let factor: Scalar = others.map(|other| other * (other - own).invert()).product();
        factor * value
    };
    points.iter().map(term).sum()
}

/// What somebody opens of the first record who takes these for answers of enough nodes, by what
/// `spec/key-nodes.md` says under "Records". The pepper of a segment stands in every answer.
fn opened(lane: &Lane, had: &[Point]) -> Came {
    let answer = lane.answer(1);
    let pepper: &[u8; 32] = answer.expose()[32..64].try_into().unwrap();
    let (depth, place) = ([NODE.depth], NODE.index.to_be_bytes());
    let parts: [&[u8]; 5] = [&[1; 32], &[2; 32], &[3; 16], &depth, &place];
    let evaluated = at_zero(had).compress().to_bytes();
    let segment = delimited("sealcast.v1 key segment", &parts);
    let hashed = delimited("sealcast.v1 key segment key", &[&evaluated, &segment]);
    let mut output = blake3::Hasher::new_keyed(pepper)
        .update(&hashed)
        .finalize_xof();
    let (mut key, mut commitment) = ([0; 32], [0; 24]);
    output.fill(&mut key);
    output.fill(&mut commitment);
    let (key, nonce): (&[u8; 32], [u8; 12]) = (&key, [0; 12]);
    let associated = delimited("sealcast.v1 key segment sealed", &parts);
    let (committed, rest) = lane.records[0].split_at(24);
    let (ciphertext, tag) = rest.split_last_chunk::<16>().unwrap();
    let mut node: [u8; 32] = ciphertext.try_into().unwrap();
    let cipher = Aes256GcmSiv::new(key.into());
    let buffer = node.as_mut_slice().into();
    let decrypted = cipher.decrypt_inout_detached(&nonce.into(), &associated, buffer, tag.into());
    let decrypted = decrypted.is_ok().then_some(node);
    (committed == commitment, decrypted)
}

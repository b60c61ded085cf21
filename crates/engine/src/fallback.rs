//! The fallback keys of one device: replaced weekly, kept for two weeks, `spec/devices.md`.

use alloc::vec::Vec;

use minicbor::{CborLen, Decode, Encode};
use rand_core::CryptoRng;
use sealcast_crypto::{SecretBytes, UnwrapKey};
use sealcast_protocol::{
    DecodeError, FALLBACK_PERIODS, FallbackKey, Position, Verified, decode, encode,
};
use zeroize::Zeroize;

use crate::identity::Identity;

/// Unwraps what was sealed to the device's fallback keys of this week and the last.
#[derive(Debug, Default)]
pub struct Fallbacks {
    /// By period, ascending.
    keys: Vec<(u32, UnwrapKey)>,
}

#[derive(Encode, Decode, CborLen, Zeroize)]
#[zeroize(drop)]
#[cbor(array)]
struct Stored {
    #[n(0)]
    period: u32,
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    seed: [u8; 32],
}

const STORED_LEN_MAX: usize = 256;

impl Fallbacks {
    /// Draws the key of the period that `now` falls into, if there is none, and drops those that have
    /// served. Returns whether anything changed, which must be kept.
    ///
    /// The key of the next period is kept: the clock may have gone back a little. One of a later
    /// period is of a clock that was wrong, and must not wait until that time comes.
    pub fn rotate(&mut self, rng: &mut (impl CryptoRng + ?Sized), now: Position) -> bool {
        let (period, count) = (FallbackKey::period_at(now), self.keys.len());
        self.keys
            .retain(|(of, _)| of.abs_diff(period) < FALLBACK_PERIODS);
        let has_changed = self.keys.len() < count;
        if self.key(period).is_some() {
            return has_changed;
        }
        self.keys.push((period, UnwrapKey::generate(rng)));
        self.keys.sort_unstable_by_key(|(of, _)| *of);
        true
    }

    /// The key of a period, while it is kept.
    pub fn key(&self, period: u32) -> Option<&UnwrapKey> {
        let found = self.keys.iter().find(|(of, _)| *of == period);
        found.map(|(_, key)| key)
    }

    /// Names the key of the period that `now` falls into, for others to wrap to; `None` before it was
    /// drawn.
    ///
    /// # Errors
    ///
    /// Never fails for keys that are some.
    pub fn announcement(
        &self,
        identity: &Identity,
        now: Position,
    ) -> Result<Option<Verified<FallbackKey>>, DecodeError> {
        let period = FallbackKey::period_at(now);
        let named = self.key(period).map(|key| {
            let (user, signing) = (identity.user(), identity.signing());
            FallbackKey::sign(&user, signing, &key.wrap_key(), period)
        });
        named.transpose()
    }

    /// Makes a second copy, for a holder that must outlive this one.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        let keys = self.keys.iter().map(|(of, key)| (*of, key.duplicate()));
        Self {
            keys: keys.collect(),
        }
    }

    /// The form in which a store keeps them, encrypted.
    pub fn to_bytes(&self) -> SecretBytes {
        let stored = self.keys.iter().map(|(period, key)| Stored {
            period: *period,
            seed: *key.expose_seed(),
        });
        SecretBytes::from(encode(&stored.collect::<Vec<_>>()))
    }

    /// Reads what [`to_bytes`](Self::to_bytes) made; `None` when it is not that.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let stored: Vec<Stored> = decode(bytes, STORED_LEN_MAX).ok()?;
        let keys = stored
            .iter()
            .map(|of| (of.period, UnwrapKey::from_seed(&of.seed)));
        Some(Self {
            keys: keys.collect(),
        })
    }
}

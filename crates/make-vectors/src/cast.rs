//! Who the cases are about: the people and keys of the examples in `spec/`.

use std::convert::Infallible;

use rand_core::{TryCryptoRng, TryRng};
use sealcast_crypto::{SessionRoot, SigningKey, UnwrapKey};
use sealcast_protocol::{CARD_LIFETIME_MS, Card, DeviceId, LogHash, Position, StreamId, UserId};

pub(super) const STREAM: StreamId = StreamId([0x51; 32]);
pub(super) const NOW: Position = Position(1_790_000_000_000);
/// An entry of an access log that somebody has seen.
pub(super) const SEEN: LogHash = LogHash([0x51; 32]);

/// A user with one device.
pub(super) struct Person {
    pub(super) root: SigningKey,
    pub(super) user: UserId,
    pub(super) device: Device,
}

pub(super) struct Device {
    pub(super) signing: SigningKey,
    pub(super) unwrap: UnwrapKey,
    pub(super) fallback: UnwrapKey,
    pub(super) id: DeviceId,
}

/// Who acts.
pub(super) fn anna() -> Person {
    person(0x11)
}

/// Who stands by.
pub(super) fn ben() -> Person {
    person(0x19)
}

/// The user whose root key has this seed, 32 times over, and whose device has the next ones.
pub(super) fn person(seed: u8) -> Person {
    let root = SigningKey::from_seed(&[seed; 32]);
    let user = UserId(*root.verifying_key().as_bytes());
    let device = device(&user, seed);
    Person { root, user, device }
}

/// A device of a user, by the first of its three seeds less 0x11.
pub(super) fn device(user: &UserId, seed: u8) -> Device {
    let signing = SigningKey::from_seed(&[seed + 0x11; 32]);
    Device {
        id: DeviceId::derive(user, signing.verifying_key().as_bytes()),
        signing,
        unwrap: UnwrapKey::from_seed(&[seed + 0x22; 32]),
        fallback: UnwrapKey::from_seed(&[seed + 0x33; 32]),
    }
}

impl Device {
    /// Its card.
    pub(super) fn card(&self, user: &UserId) -> Card {
        let expires = NOW.after(CARD_LIFETIME_MS);
        Card::new(user, &self.signing, &self.unwrap.wrap_key(), expires)
    }
}

/// A root of this byte, 32 times over.
pub(super) fn session_root(byte: u8) -> SessionRoot {
    SessionRoot::init_with(|bytes| bytes.fill(byte))
}

/// Randomness that is written down: these bytes, once.
pub(super) struct Given<'a>(pub(super) &'a [u8]);

impl TryRng for Given<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        let (taken, rest) = self.0.split_at(bytes.len());
        bytes.copy_from_slice(taken);
        self.0 = rest;
        Ok(())
    }
}

impl TryCryptoRng for Given<'_> {}

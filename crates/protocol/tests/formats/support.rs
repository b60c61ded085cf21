//! What the tests of several formats need: repeatable randomness, people, altered bytes.

use std::convert::Infallible;

use rand_core::{TryCryptoRng, TryRng};
use sealcast_crypto::{SigningKey, UnwrapKey, digest};
use sealcast_protocol::{
    Card, CardList, DeviceId, ListBody, ListEntry, Position, StreamId, UserId, Verified,
};

pub(crate) const STREAM: StreamId = StreamId([0x51; 32]);
pub(crate) const NOW: Position = Position(1_790_000_000_000);
pub(crate) const NEXT_YEAR: Position = Position(1_821_536_000_000);

/// Randomness that repeats: digests of a counter.
pub(crate) struct Seeded(pub(crate) u64);

impl TryRng for Seeded {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_le_bytes(self.take()))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_le_bytes(self.take()))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(32) {
            let block: [u8; 32] = self.take();
            chunk.copy_from_slice(&block[..chunk.len()]);
        }
        Ok(())
    }
}

impl TryCryptoRng for Seeded {}

impl Seeded {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        self.0 += 1;
        let block = digest("sealcast test rng", &[&self.0.to_le_bytes()]);
        *block.as_bytes().first_chunk().unwrap()
    }
}

/// Randomness that is one byte over and over, as the examples of `spec/key-nodes.md` draw.
pub(crate) struct Constant(pub(crate) u8);

impl TryRng for Constant {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_le_bytes([self.0; 4]))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_le_bytes([self.0; 8]))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        bytes.fill(self.0);
        Ok(())
    }
}

impl TryCryptoRng for Constant {}

/// A user with one device.
pub(crate) struct Person {
    pub(crate) root: SigningKey,
    pub(crate) user: UserId,
    pub(crate) phone: Device,
}

pub(crate) struct Device {
    pub(crate) signing: SigningKey,
    pub(crate) unwrap: UnwrapKey,
    pub(crate) fallback: UnwrapKey,
    pub(crate) id: DeviceId,
}

impl Person {
    pub(crate) fn new(seed: u8) -> Self {
        let root = SigningKey::from_seed(&[seed; 32]);
        let user = UserId(*root.verifying_key().as_bytes());
        let phone = Device::new(&user, seed.wrapping_add(100));
        Self { root, user, phone }
    }

    pub(crate) fn add(&self, list: &mut CardList, device: &Device) -> Verified<ListEntry> {
        let card = Box::new(device.card(&self.user, NEXT_YEAR));
        list.append(&self.root, NOW, ListBody::Card(card)).unwrap()
    }
}

impl Device {
    pub(crate) fn new(user: &UserId, seed: u8) -> Self {
        let signing = SigningKey::from_seed(&[seed; 32]);
        Self {
            id: DeviceId::derive(user, signing.verifying_key().as_bytes()),
            signing,
            unwrap: UnwrapKey::from_seed(&[seed.wrapping_add(1); 32]),
            fallback: UnwrapKey::from_seed(&[seed.wrapping_add(2); 32]),
        }
    }

    pub(crate) fn card(&self, user: &UserId, expires: Position) -> Card {
        Card::new(user, &self.signing, &self.unwrap.wrap_key(), expires)
    }
}

/// Every way to flip one bit of each byte, a different bit from byte to byte.
pub(crate) fn flips(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    (0..bytes.len()).map(|at| {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 1 << (at % 8);
        flipped
    })
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

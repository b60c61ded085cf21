use std::convert::Infallible;

use rand_core::{TryCryptoRng, TryRng};
use sealcast_crypto::digest;

const LABEL: &str = "sealcast.v1 simulated randomness";

/// Randomness of keys that repeats.
#[derive(Debug)]
pub(crate) struct Seeded {
    seed: u64,
    count: u64,
    ready: [u8; 32],
    used: usize,
}

impl Seeded {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            count: 0,
            ready: [0; 32],
            used: 32,
        }
    }

    fn refill(&mut self) {
        let (seed, count) = (self.seed.to_be_bytes(), self.count.to_be_bytes());
        self.ready = *digest(LABEL, &[&seed, &count]).as_bytes();
        self.count += 1;
        self.used = 0;
    }
}

impl TryRng for Seeded {
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
        for byte in bytes {
            if self.used == self.ready.len() {
                self.refill();
            }
            *byte = self.ready.get(self.used).copied().unwrap_or_default();
            self.used += 1;
        }
        Ok(())
    }
}

impl TryCryptoRng for Seeded {}

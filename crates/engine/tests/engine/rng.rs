//! Randomness of tests.

use std::collections::VecDeque;
use std::convert::Infallible;

use rand_core::{TryCryptoRng, TryRng};
use sealcast_crypto::digest;

/// Randomness that repeats.
pub(crate) struct Seeded {
    seed: u64,
    count: u64,
    ready: VecDeque<u8>,
}

impl Seeded {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            count: 0,
            ready: VecDeque::new(),
        }
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.try_next_u64().unwrap_or_default() % end
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let at = self.below(from.len() as u64) as usize;
        &from[at]
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
            if self.ready.is_empty() {
                self.count += 1;
                let (seed, count) = (self.seed.to_be_bytes(), self.count.to_be_bytes());
                let block = digest("sealcast.v1 test randomness", &[&seed, &count]);
                self.ready.extend(block.as_bytes());
            }
            *byte = self.ready.pop_front().unwrap_or_default();
        }
        Ok(())
    }
}

impl TryCryptoRng for Seeded {}

//! Randomness that is the same every time.

use std::convert::Infallible;

use rand_core::{TryCryptoRng, TryRng};
use sealcast_crypto::digest;

pub(crate) struct Seeded {
    seed: u64,
    count: u64,
}

impl Seeded {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, count: 0 }
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
        for piece in bytes.chunks_mut(32) {
            self.count += 1;
            let numbers = [self.seed.to_be_bytes(), self.count.to_be_bytes()];
            let block = digest("sealcast.v1 fuzz randomness", &[numbers.as_flattened()]);
            let drawn = block.as_bytes().iter();
            piece
                .iter_mut()
                .zip(drawn)
                .for_each(|(to, from)| *to = *from);
        }
        Ok(())
    }
}

impl TryCryptoRng for Seeded {}

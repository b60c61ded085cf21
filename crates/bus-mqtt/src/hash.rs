//! Hashes that tell bytes apart which nobody made alike: spec/bus-mqtt.md, sections 8 and 11.

const START: u64 = 0xcbf2_9ce4_8422_2325;
/// The factors of the two hashes.
const FACTORS: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9];

/// The first hash of bytes.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    words(bytes).fold(START, |hash, word| step(hash, word, FACTORS[0]))
}

/// Both hashes of the number of bytes and the bytes.
pub(crate) fn hash_pair(bytes: &[u8]) -> [u64; 2] {
    let length = std::iter::once(bytes.len() as u64);
    let all = length.chain(words(bytes));
    all.fold([START; 2], |[one, other], word| {
        [step(one, word, FACTORS[0]), step(other, word, FACTORS[1])]
    })
}

/// Eight bytes each, the last with zeros behind them.
fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    let (eights, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let last = (!rest.is_empty()).then_some(last);
    eights.iter().copied().chain(last).map(u64::from_be_bytes)
}

fn step(hash: u64, word: u64, factor: u64) -> u64 {
    (hash ^ word).wrapping_mul(factor).rotate_left(29)
}

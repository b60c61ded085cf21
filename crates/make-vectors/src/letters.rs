//! bech32m and base64url, written so that they can be written wrongly too.

/// What makes a checksum one of bech32m (BIP 350).
pub(super) const BECH32M: u32 = 0x2bc8_30a3;
/// What makes it one of bech32 (BIP 173).
pub(super) const BECH32: u32 = 1;

const BECH32_LETTERS: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
const BASE64URL_LETTERS: &[u8; 64] =
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Letters of five bits each, with prefix and checksum.
pub(super) fn bech32(prefix: &str, groups: &[u8], constant: u32) -> String {
    let expanded = prefix.bytes().map(|c| c >> 5);
    let expanded = expanded.chain([0]).chain(prefix.bytes().map(|c| c & 31));
    let sum = expanded
        .chain(groups.iter().copied())
        .chain([0; 6])
        .fold(1, step)
        ^ constant;
    let check = (0..6).map(|at| (sum >> (25 - 5 * at)) as u8 & 31);
    let letters = groups.iter().copied().chain(check);
    let letters = letters.map(|group| char::from(BECH32_LETTERS[usize::from(group)]));
    format!("{prefix}1{}", letters.collect::<String>())
}

fn step(sum: u32, value: u8) -> u32 {
    const TAPS: [u32; 5] = [
        0x3b6a_57b2,
        0x2650_8e6d,
        0x1ea1_19fa,
        0x3d42_33dd,
        0x2a14_62b3,
    ];
    let top = sum >> 25;
    let next = (sum & 0x01ff_ffff) << 5 ^ u32::from(value);
    let taken = TAPS.iter().enumerate().filter(|(at, _)| top >> at & 1 == 1);
    taken.fold(next, |sum, (_, tap)| sum ^ tap)
}

/// Splits bytes into groups of `bits` bits, the last one filled up with zeros.
pub(super) fn groups(bytes: &[u8], bits: usize) -> Vec<u8> {
    let bit = |at: usize| bytes.get(at / 8).map_or(0, |byte| byte >> (7 - at % 8) & 1);
    let starts = (0..bytes.len() * 8).step_by(bits);
    starts
        .map(|start| (start..start + bits).fold(0, |group, at| group << 1 | bit(at)))
        .collect()
}

/// Without padding (RFC 4648, section 5).
pub(super) fn base64url(bytes: &[u8]) -> String {
    let letter = |group: u8| char::from(BASE64URL_LETTERS[usize::from(group)]);
    groups(bytes, 6).into_iter().map(letter).collect()
}

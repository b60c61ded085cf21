//! Durations and sizes, as people write them in config files.

use std::time::Duration;

const DURATIONS: [(&str, u64); 6] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 604_800_000),
];
const SIZES: [(&str, u64); 4] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

/// Reads `30s`, `12h`, `250ms`.
///
/// # Errors
///
/// Fails, and says what a duration is, when it is none.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let ms = number_of(text, &DURATIONS);
    ms.map(Duration::from_millis)
        .ok_or_else(|| "a duration is a whole number and ms, s, m, h, d or w: \"30s\"".to_owned())
}

/// Reads `256 MiB`.
///
/// # Errors
///
/// Fails, and says what a size is, when it is none.
pub fn parse_size(text: &str) -> Result<u64, String> {
    number_of(text, &SIZES)
        .ok_or_else(|| "a size is a whole number and B, KiB, MiB or GiB: \"256 MiB\"".to_owned())
}

fn number_of(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(end);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_have_a_number_and_a_unit() {
        assert_eq!(parse_duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration("250 ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("30d"), Ok(Duration::from_secs(30 * 86_400)));
        assert_eq!(parse_size("256 MiB"), Ok(256 << 20));
        assert_eq!(parse_size("0B"), Ok(0));
        for odd in [
            "",
            "30",
            "s",
            "-1s",
            "1.5s",
            "1 x",
            "99999999999999999999s",
            "18446744073709551615w",
        ] {
            assert!(parse_duration(odd).is_err(), "{odd}");
            assert!(parse_size(odd).is_err(), "{odd}");
        }
    }
}

//! A year of measurements that never were, the same on every run but for their dates.

use std::fmt::Write as _;

use sealcast::Position;

use crate::time::rfc3339;

/// Between two measurements.
pub(super) const STEP_MS: u64 = 10 * 60 * 1000;
/// In a day.
pub(super) const PER_DAY: usize = 144;
/// In a year of 365 days.
pub(super) const PER_YEAR: usize = 365 * PER_DAY;

const DAY_MS: u64 = PER_DAY as u64 * STEP_MS;
const SEED: u64 = 0x5ea1_ca57;

/// One measurement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Measurement {
    /// When it would have been taken.
    pub(super) time: Position,
    /// What it says.
    pub(super) text: String,
}

/// A year of measurements, one each ten minutes, that ends with yesterday.
pub(super) fn year(now: Position) -> Vec<Measurement> {
    let today = now.0 - now.0 % DAY_MS;
    let first = today.saturating_sub(365 * DAY_MS);
    let mut noise = Noise(SEED);
    let mut drift: i64 = 0;
    (0..PER_YEAR)
        .map(|at| {
            drift = (drift + noise.within(3)).clamp(-40, 40);
            let season = wave(at, PER_YEAR, 120);
            let hour = wave(at, PER_DAY, 35);
            let tenths = 610 + season + hour + drift;
            let pressure = 150 + tenths / 30 + noise.within(2);
            Measurement {
                time: Position(first + at as u64 * STEP_MS),
                text: format!(
                    "synthetic #{at:05} boiler {}.{} C, {}.{:02} bar",
                    tenths / 10,
                    tenths % 10,
                    pressure / 100,
                    pressure % 100
                ),
            }
        })
        .collect()
}

/// Measurements as `sealcast pub -l --backfill` takes them.
pub(super) fn lines(measurements: &[Measurement]) -> String {
    let mut text = String::new();
    for one in measurements {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}\t{}", rfc3339(one.time), one.text);
    }
    text
}

/// A triangle that swings by `height` to either side once in `period`.
fn wave(at: usize, period: usize, height: i64) -> i64 {
    let phase = (at % period) as i64;
    let half = (period / 2) as i64;
    height - 2 * height * (phase - half).abs() / half
}

/// Numbers that look random and are the same for the same seed (SplitMix64).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From `-most` to `most`.
    fn within(&mut self, most: u64) -> i64 {
        (self.next() % (2 * most + 1)) as i64 - most as i64
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const NOON: Position = Position(1_772_366_400_000);

    #[test]
    fn a_year_has_a_measurement_each_ten_minutes_and_ends_with_yesterday() {
        let year = year(NOON);
        assert_eq!(year.len(), 52_560);
        assert_eq!(rfc3339(year[0].time), "2025-03-01T00:00:00.000Z");
        assert_eq!(rfc3339(year[52_559].time), "2026-02-28T23:50:00.000Z");
        assert!(
            year.windows(2)
                .all(|two| two[1].time.0 - two[0].time.0 == STEP_MS)
        );
    }

    #[test]
    fn every_measurement_is_labelled_synthetic_and_no_two_are_alike() {
        let year = year(NOON);
        assert!(year.iter().all(|one| one.text.starts_with("synthetic #")));
        let texts: BTreeSet<_> = year.iter().map(|one| &one.text).collect();
        assert_eq!(texts.len(), year.len());
    }

    #[test]
    fn the_same_year_comes_again_and_stays_believable() {
        let one = year(NOON);
        assert_eq!(one, year(NOON));
        let warm = |text: &str| -> f64 {
            let value = text.split(' ').nth(3).unwrap();
            value.parse().unwrap()
        };
        assert!(
            one.iter()
                .all(|one| (40.0..80.0).contains(&warm(&one.text)))
        );
    }
}

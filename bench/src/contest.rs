//! Ways of doing one job, measured against each other in interleaved rounds.

use std::fmt;
use std::time::Duration;

use crate::scale::Scale;

type Job<'a> = Box<dyn FnMut(usize) -> anyhow::Result<Duration> + 'a>;

/// Contestants, the first of which is the baseline of the others.
#[derive(Default)]
pub(crate) struct Contest<'a> {
    entries: Vec<(String, Job<'a>)>,
}

/// What one contestant took: nanoseconds for each time the job was done, by round.
#[derive(Clone)]
pub(crate) struct Outcome {
    pub(crate) name: String,
    pub(crate) nanos: Vec<f64>,
}

/// The median of all rounds, and what a tenth of them is below and above.
#[derive(Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
}

impl<'a> Contest<'a> {
    /// Adds a contestant: `job(n)` does the job `n` times and says how much CPU time that took,
    /// preparations left out.
    pub(crate) fn enter(
        mut self,
        name: impl Into<String>,
        job: impl FnMut(usize) -> anyhow::Result<Duration> + 'a,
    ) -> Self {
        self.entries.push((name.into(), Box::new(job)));
        self
    }

    /// Runs all rounds. Every round has every contestant in it, each time another one first.
    pub(crate) fn run(mut self, scale: Scale) -> anyhow::Result<Vec<Outcome>> {
        let mut counts = Vec::new();
        for (_, job) in &mut self.entries {
            counts.push(calibrate(job, scale)?);
        }
        let mut outcomes: Vec<_> = self
            .entries
            .iter()
            .map(|(name, _)| Outcome::of(name))
            .collect();
        for round in 0..scale.rounds {
            for turn in 0..counts.len() {
                let at = (round + turn) % counts.len();
                let ((_, job), outcome) = (&mut self.entries[at], &mut outcomes[at]);
                outcome.nanos.push(nanos(job(counts[at])?, counts[at]));
            }
        }
        Ok(outcomes)
    }
}

/// How often the job must be done to fill a round. Warms up on the way.
fn calibrate(job: &mut Job<'_>, scale: Scale) -> anyhow::Result<usize> {
    let mut count = 1;
    while job(count)? < scale.round_time {
        count *= 2;
    }
    Ok(count)
}

fn nanos(spent: Duration, count: usize) -> f64 {
    spent.as_nanos() as f64 / count as f64
}

impl Outcome {
    pub(crate) fn of(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            nanos: Vec::new(),
        }
    }

    /// The same for a part of the job, of which the job has `parts`.
    pub(crate) fn per(&self, parts: usize) -> Self {
        let nanos = self.nanos.iter().map(|nanos| nanos / parts as f64);
        Self {
            name: self.name.clone(),
            nanos: nanos.collect(),
        }
    }

    pub(crate) fn spread(&self) -> Spread {
        Spread::of(self.nanos.clone())
    }

    /// How often the job is done in the time that `baseline` does it once, compared round by round.
    pub(crate) fn against(&self, baseline: &Self) -> Spread {
        let pairs = baseline.nanos.iter().zip(&self.nanos);
        Spread::of(pairs.map(|(baseline, own)| baseline / own).collect())
    }
}

impl Spread {
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        let last = values.len().saturating_sub(1);
        let at = |tenths: usize| {
            values
                .get((last * tenths + 5) / 10)
                .copied()
                .unwrap_or(f64::NAN)
        };
        Self {
            low: at(1),
            median: at(5),
            high: at(9),
        }
    }

    /// With another unit.
    pub(crate) fn over(self, unit: f64) -> Self {
        Self {
            low: self.low / unit,
            median: self.median / unit,
            high: self.high / unit,
        }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = match self.median {
            ..10.0 => 2,
            10.0..100.0 => 1,
            _ => 0,
        };
        let Self { low, median, high } = self;
        write!(f, "{median:.digits$} ({low:.digits$}–{high:.digits$})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(nanos: &[f64]) -> Outcome {
        Outcome {
            nanos: nanos.to_vec(),
            ..Outcome::of("job")
        }
    }

    #[test]
    fn a_spread_is_the_median_between_the_first_and_the_last_tenth() {
        let spread = Spread::of((0..=10).rev().map(f64::from).collect());
        assert_eq!((spread.low, spread.median, spread.high), (1.0, 5.0, 9.0));
        assert_eq!(spread.to_string(), "5.00 (1.00–9.00)");
    }

    #[test]
    fn a_ratio_above_one_is_faster_than_the_baseline_of_the_same_round() {
        let (baseline, job) = (outcome(&[20.0, 40.0]), outcome(&[10.0, 20.0]));
        assert_eq!(job.against(&baseline).median, 2.0);
        assert_eq!(job.per(10).nanos, [1.0, 2.0]);
    }

    #[test]
    fn every_round_measures_every_contestant() {
        let calls = std::cell::Cell::new(0);
        let contest = Contest::default()
            .enter("one", |count| Ok(Scale::WHOLE.round_time * count as u32))
            .enter("two", |_| {
                calls.set(calls.get() + 1);
                Ok(Scale::WHOLE.round_time)
            });
        let outcomes = contest.run(Scale::WHOLE).unwrap();
        assert_eq!(calls.get(), Scale::WHOLE.rounds + 1);
        assert_eq!(
            outcomes[0].nanos,
            vec![Scale::WHOLE.round_time.as_nanos() as f64; Scale::WHOLE.rounds]
        );
    }
}

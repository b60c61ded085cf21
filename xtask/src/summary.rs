//! Sums the results that programs of tests print, a line each.

use std::fmt;
use std::ops::AddAssign;

/// How many tests passed and failed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Summary {
    passed: u64,
    failed: u64,
}

impl Summary {
    /// Adds one line of output; lines that are not results count nothing.
    pub(crate) fn add(&mut self, line: &str) {
        let Some(counts) = line.strip_prefix("test result: ") else {
            return;
        };
        let counts = counts.split_once(". ").map_or("", |(_, counts)| counts);
        for count in counts.split("; ") {
            match count.split_once(' ') {
                Some((number, "passed")) => self.passed += number.parse().unwrap_or(0),
                Some((number, "failed")) => self.failed += number.parse().unwrap_or(0),
                _ => {}
            }
        }
    }

    /// The same, once the program that printed it has ended. One that would not build or died
    /// without a result counts as one failure.
    pub(crate) fn ended(mut self, succeeded: bool) -> Self {
        if self.failed == 0 && !succeeded {
            self.failed = 1;
        }
        self
    }

    /// The same; no tests at all count as one failure.
    pub(crate) fn or_none(mut self) -> Self {
        if self == Self::default() {
            self.failed = 1;
        }
        self
    }

    /// Whether all is well.
    pub(crate) fn all_passed(self) -> bool {
        self.failed == 0
    }
}

impl AddAssign for Summary {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(outputs: &[(&str, bool)]) -> String {
        let mut sum = Summary::default();
        for (output, succeeded) in outputs {
            let mut summary = Summary::default();
            output.lines().for_each(|line| summary.add(line));
            sum += summary.ended(*succeeded);
        }
        sum.or_none().to_string()
    }

    const OK: &str = "running 3 tests\ntest a ... ok\n\
        test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
    const FAILED: &str = "test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 9 filtered \
        out; finished in 1.00s\n";

    #[test]
    fn results_are_summed_over_binaries() {
        assert_eq!(sum(&[(OK, true), (OK, true)]), "6 passed, 0 failed");
        assert_eq!(sum(&[(OK, true), (FAILED, false)]), "7 passed, 2 failed");
    }

    #[test]
    fn a_binary_that_died_counts_as_a_failure() {
        assert_eq!(sum(&[(OK, false), ("", true)]), "3 passed, 1 failed");
    }

    #[test]
    fn no_tests_at_all_is_a_failure() {
        assert_eq!(sum(&[("", true)]), "0 passed, 1 failed");
    }
}

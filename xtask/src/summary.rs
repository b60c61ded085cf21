//! Sums the results that cargo prints, one line per test binary.

use std::fmt;

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

    /// The sum, once cargo has ended. A binary that would not build or died without a result
    /// counts as one failure, and so does a run of no tests at all.
    pub(crate) fn close(mut self, succeeded: bool) -> Self {
        if self.failed == 0 && (!succeeded || self.passed == 0) {
            self.failed = 1;
        }
        self
    }

    /// Whether all is well.
    pub(crate) fn all_passed(self) -> bool {
        self.failed == 0
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

    fn sum(output: &str, succeeded: bool) -> String {
        let mut summary = Summary::default();
        output.lines().for_each(|line| summary.add(line));
        summary.close(succeeded).to_string()
    }

    const OK: &str = "running 3 tests\ntest a ... ok\n\
        test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
    const FAILED: &str = "test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 9 filtered \
        out; finished in 1.00s\n";

    #[test]
    fn results_are_summed_over_binaries() {
        assert_eq!(sum(&format!("{OK}{OK}"), true), "6 passed, 0 failed");
        assert_eq!(sum(&format!("{OK}{FAILED}"), false), "7 passed, 2 failed");
    }

    #[test]
    fn a_binary_that_died_counts_as_a_failure() {
        assert_eq!(sum(OK, false), "3 passed, 1 failed");
    }

    #[test]
    fn no_tests_at_all_is_a_failure() {
        assert_eq!(sum("", true), "0 passed, 1 failed");
    }
}

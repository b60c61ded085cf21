//! What a check reports.

use std::fmt;

/// One broken rule: where, and what to do about it.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Finding {
    place: String,
    says: String,
}

impl Finding {
    /// About a file or a package.
    pub(crate) fn new(place: impl Into<String>, says: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            says: says.into(),
        }
    }

    /// About one line of a file, counted from 1.
    pub(crate) fn at(path: &str, line: usize, says: impl Into<String>) -> Self {
        Self::new(format!("{path}:{line}"), says)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.says)
    }
}

/// Everything found, one per line, so that tests can compare it with what they planted.
#[cfg(test)]
pub(crate) fn lines(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(Finding::to_string).collect()
}

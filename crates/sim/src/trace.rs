//! What happened in a run, a line each.

use std::fmt;

use sealcast_crypto::{Digest, digest};

const LABEL: &str = "sealcast.v1 simulated run";

/// Everything that happened, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    lines: Vec<String>,
}

impl Trace {
    /// Notes what happened at a moment of the run.
    pub(crate) fn note(&mut self, step: usize, now: u64, what: fmt::Arguments<'_>) {
        self.lines.push(format!("{step:>4} {now:>9} {what}"));
    }

    /// A line each: the step, the milliseconds since the start, who, and what.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// The same for the same lines, and for no others.
    pub fn digest(&self) -> Digest {
        let parts: Vec<_> = self.lines.iter().map(String::as_bytes).collect();
        digest(LABEL, &parts)
    }
}

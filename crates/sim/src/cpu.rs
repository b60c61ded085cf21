//! CPU time, where the system says it.

use std::fs;

/// Ticks a second, as Linux counts for programs.
const TICKS: f64 = 100.0;

/// CPU seconds that this process used so far; `None` where the system does not say.
pub(crate) fn seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program stands in brackets and may hold anything.
    let after_name = stat.rsplit_once(')')?.1;
    let mut fields = after_name.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS)
}

//! Cases in the program, and one number to say how they came out.

use std::collections::BTreeSet;
use std::process::ExitCode;

use sealcast_vectors::{areas, check};

/// Each with its area, in the order of their names.
const CASES: &[(&str, &str)] = &include!(concat!(env!("OUT_DIR"), "/cases.rs"));

/// The area that is left out: it needs the store, and with it SQLite.
const LEFT_OUT: &str = "key-file";

/// 0, or the place of the first area that has a case that comes out otherwise than it says, or none,
/// counted from 1.
pub(crate) fn try_all() -> ExitCode {
    let all: BTreeSet<&str> = CASES.iter().map(|(area, _)| *area).collect();
    let is_fine = |area: &str| {
        let mut cases = CASES.iter().filter(|(of, _)| *of == area);
        area == LEFT_OUT || cases.all(|(_, text)| check(area, text).is_ok())
    };
    let has_cases = areas().all(|area| all.contains(area));
    let failed = all.iter().position(|area| !is_fine(area));
    match failed {
        None if has_cases => ExitCode::SUCCESS,
        failed => ExitCode::from(failed.map_or(u8::MAX, |at| at as u8 + 1)),
    }
}

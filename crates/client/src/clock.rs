//! The system's clock and randomness, drawn here and handed down.

use std::time::{SystemTime, UNIX_EPOCH};

use getrandom::SysRng;
use rand_core::UnwrapErr;
use sealcast_protocol::Position;

/// Now, in Unix milliseconds; the start of time where the clock is before 1970.
pub(crate) fn now() -> Position {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Position::START.after(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The system's randomness. Where the system has none, nothing may go on.
pub(crate) fn rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

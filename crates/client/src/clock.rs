//! Time and randomness, drawn here and handed down.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use getrandom::SysRng;
use rand_core::UnwrapErr;
use sealcast_protocol::Position;

/// Says what time it is.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Position + Send + Sync>);

impl Clock {
    /// The clock of the system. Before 1970 it stands at the start of time.
    pub fn system() -> Self {
        Self(Arc::new(system_now))
    }

    /// A clock of the caller's.
    pub fn new(now: impl Fn() -> Position + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// Now, in Unix milliseconds.
    pub fn now(&self) -> Position {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

fn system_now() -> Position {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Position::START.after(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The system's randomness. Where the system has none, nothing may go on.
pub(crate) fn rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

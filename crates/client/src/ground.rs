//! What a home stands on: a clock, its store, and its buses.

use std::fmt;
use std::sync::Arc;

use sealcast_bus::Bus;
use sealcast_store::Store;

use crate::clock::Clock;

type Wrap<T> = Arc<dyn Fn(Arc<T>) -> Arc<T> + Send + Sync>;

/// What a home stands on. For tests that set the clock, or make a store or a bus fail; a clock that
/// goes back, or a store that forgets, weakens every promise.
#[derive(Clone)]
pub struct Ground {
    /// The clock.
    pub clock: Clock,
    /// Puts something between the home and its store.
    pub store: Wrap<dyn Store>,
    /// Puts something between the home and a bus that it opens.
    pub bus: Wrap<dyn Bus>,
}

impl Default for Ground {
    fn default() -> Self {
        Self {
            clock: Clock::system(),
            store: Arc::new(|store| store),
            bus: Arc::new(|bus| bus),
        }
    }
}

impl fmt::Debug for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ground")
    }
}

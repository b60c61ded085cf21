//! What programs that keep running tell whoever watches them: metrics in the text format of Prometheus, and whether
//! all is well, on a port of loopback.
//!
//! It knows nothing of what is measured, and of nobody's keys.

mod answers;
mod host;
mod loopback;
mod metrics;

pub use answers::{health, metrics};
pub use host::is_address;
pub use loopback::{Connection, Loopback, Place, Places, REST, loopback_address};
pub use metrics::{Metric, head, line, one};

//! What programs that keep running log, to standard error.

use std::io;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Logs from a level on, as lines of text or of JSON.
pub(crate) fn start(level: LevelFilter, is_json: bool) {
    let log = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_max_level(level)
        .with_ansi(false)
        .with_target(false)
        .log_internal_errors(false);
    // Libraries would name topics and addresses.
    let own = Targets::new().with_target("sealcast", level);
    // There is no other: this is the only place that sets one.
    let _is_set = match is_json {
        false => log.finish().with(own).try_init().is_ok(),
        true => {
            let log = log.json().flatten_event(true);
            log.finish().with(own).try_init().is_ok()
        }
    };
}

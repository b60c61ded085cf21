//! Counters and gauges in the text format of Prometheus.
//!
//! A label names a stream by its number in this run or by the beginning of its id, and nothing else:
//! no name, no user, no key, no payload.

use std::fmt::Write as _;

use sealcast::StreamId;

use crate::api::problems;
use crate::hub::{ArchiveStanding, Hub, Known, Standing, now};

/// What is measured: its name, `counter` or `gauge`, and what it is.
#[derive(Clone, Copy)]
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) help: &'static str,
}

const fn metric(name: &'static str, kind: &'static str, help: &'static str) -> Metric {
    Metric { name, kind, help }
}

const INFO: Metric = metric(
    "sealcast_agent_info",
    "gauge",
    "1, with the agent's version.",
);
const STARTED: Metric = metric(
    "sealcast_agent_start_time_seconds",
    "gauge",
    "When the agent began, in seconds since 1970.",
);
const HEALTHY: Metric = metric(
    "sealcast_agent_healthy",
    "gauge",
    "1 while `/healthz` says ok, else 0.",
);
const STREAMS: Metric = metric("sealcast_agent_streams", "gauge", "Streams of the home.");

/// What is measured of each stream.
type OfStream = (Metric, fn(&Known) -> u64);

const OF_STREAMS: &[OfStream] = &[
    (
        metric(
            "sealcast_stream_up",
            "gauge",
            "1 while the stream is attended to, else 0.",
        ),
        |of| u64::from(matches!(of.standing, Standing::Attended)),
    ),
    (
        metric(
            "sealcast_stream_faults_total",
            "counter",
            "How often the stream could not be attended to, its bus or the store failing.",
        ),
        |of| of.counts.faults,
    ),
    (
        metric(
            "sealcast_stream_alarms_total",
            "counter",
            "How often the bus showed what honest devices and buses do not do.",
        ),
        |of| of.counts.alarms,
    ),
    (
        metric(
            "sealcast_bundles_handed_out_total",
            "counter",
            "Bundles of keys handed out.",
        ),
        |of| of.counts.bundles,
    ),
    (
        metric(
            "sealcast_bundles_handed_out_bytes_total",
            "counter",
            "Bytes of the bundles of keys handed out.",
        ),
        |of| of.counts.bundle_bytes,
    ),
    (
        metric(
            "sealcast_key_requests_total",
            "counter",
            "Requests for keys to which this device had something to say.",
        ),
        |of| of.answered().requests,
    ),
    (
        metric(
            "sealcast_key_request_faults_total",
            "counter",
            "How often answering failed, its bus or the store failing.",
        ),
        |of| of.answered().faults,
    ),
    (
        metric(
            "sealcast_decision_grants_total",
            "counter",
            "Grants that decisions wrote.",
        ),
        |of| of.answered().grants + of.counts.approved,
    ),
    (
        metric(
            "sealcast_subscribers",
            "gauge",
            "Those who follow the stream through the agent.",
        ),
        |of| of.counts.subscribers,
    ),
];

const ANSWERS: Metric = metric(
    "sealcast_key_answers_total",
    "counter",
    "Answers to requests for keys, by what they were.",
);

/// The kinds of answers, and how many there were.
fn answers(of: &Known) -> [(&'static str, u64); 4] {
    let answered = of.answered();
    [
        ("bundle", answered.bundles),
        ("not-entitled", answered.not_entitled),
        ("unknown-session", answered.unknown_session),
        ("pending-approval", answered.pending_approval),
    ]
}

const PENDING: Metric = metric(
    "sealcast_requests_pending",
    "gauge",
    "Requests for keys that wait for a person's decision.",
);

const DELIVERIES: Metric = metric(
    "sealcast_deliveries_total",
    "counter",
    "Deliveries to those who follow the stream through the agent, by what became of them.",
);

/// What is measured of each stream that is archived.
const OF_ARCHIVES: &[OfStream] = &[
    (
        metric(
            "sealcast_archive_up",
            "gauge",
            "1 while the stream is archived, else 0.",
        ),
        |of| u64::from(matches!(of.archive, Some(ArchiveStanding::Copying))),
    ),
    (
        metric(
            "sealcast_archive_items_total",
            "counter",
            "Items copied to the archive.",
        ),
        |of| of.counts.archived,
    ),
    (
        metric(
            "sealcast_archive_bytes_total",
            "counter",
            "Bytes of the items copied to the archive.",
        ),
        |of| of.counts.archived_bytes,
    ),
    (
        metric(
            "sealcast_archive_faults_total",
            "counter",
            "How often the stream could not be archived.",
        ),
        |of| of.counts.archive_faults,
    ),
];

/// All that is measured now.
pub(crate) fn text(hub: &Hub) -> String {
    let mut text = String::new();
    let is_healthy = u64::from(problems(hub).is_empty());
    let known = hub.known();
    one(
        &mut text,
        INFO,
        &[("version", env!("CARGO_PKG_VERSION"))],
        1,
    );
    one(&mut text, STARTED, &[], hub.started.0 / 1_000);
    one(&mut text, HEALTHY, &[], is_healthy);
    one(&mut text, STREAMS, &[], known.len() as u64);
    let pending = hub.questions.waiting(now()).len() as u64;
    one(&mut text, PENDING, &[], pending);
    for (metric, value) in OF_STREAMS {
        head(&mut text, *metric);
        for (id, of) in known.iter() {
            let (number, id) = labels(id, of);
            line(
                &mut text,
                *metric,
                &[("stream", &number), ("id", &id)],
                value(of),
            );
        }
    }
    head(&mut text, ANSWERS);
    for (id, of) in known.iter() {
        let (number, id) = labels(id, of);
        for (answer, count) in answers(of) {
            let labels = [("stream", &*number), ("id", &*id), ("answer", answer)];
            line(&mut text, ANSWERS, &labels, count);
        }
    }
    head(&mut text, DELIVERIES);
    for (id, of) in known.iter() {
        let (number, id) = labels(id, of);
        for (state, count) in &of.counts.deliveries {
            let labels = [("stream", &*number), ("id", &*id), ("state", state)];
            line(&mut text, DELIVERIES, &labels, *count);
        }
    }
    let archived = || known.iter().filter(|(_, of)| of.archive.is_some());
    for (metric, value) in OF_ARCHIVES {
        if archived().next().is_some() {
            head(&mut text, *metric);
        }
        for (id, of) in archived() {
            let (number, id) = labels(id, of);
            line(
                &mut text,
                *metric,
                &[("stream", &number), ("id", &id)],
                value(of),
            );
        }
    }
    text
}

fn labels(id: &StreamId, of: &Known) -> (String, String) {
    let mut id = id.to_string();
    id.truncate(8);
    (of.number.to_string(), id)
}

fn one(text: &mut String, metric: Metric, labels: &[(&str, &str)], value: u64) {
    head(text, metric);
    line(text, metric, labels, value);
}

// Writing to a string does not fail.
fn head(text: &mut String, of: Metric) {
    let _ = writeln!(
        text,
        "# HELP {} {}\n# TYPE {} {}",
        of.name, of.help, of.name, of.kind
    );
}

fn line(text: &mut String, of: Metric, labels: &[(&str, &str)], value: u64) {
    let labels: Vec<_> = labels
        .iter()
        .map(|(name, value)| format!("{name}=\"{value}\""))
        .collect();
    let labels = match labels.is_empty() {
        true => String::new(),
        false => format!("{{{}}}", labels.join(",")),
    };
    let _ = writeln!(text, "{}{labels} {value}", of.name);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_names_every_metric_with_its_words() {
        let page = include_str!("../../../docs/reference/agent.md");
        let single = [
            INFO, STARTED, HEALTHY, STREAMS, PENDING, ANSWERS, DELIVERIES,
        ];
        let of_each = OF_STREAMS.iter().chain(OF_ARCHIVES).map(|of| of.0);
        let mut count = 0;
        for of in single.into_iter().chain(of_each) {
            let row = format!("| `{}` | {} | {} |", of.name, of.kind, of.help);
            assert!(page.lines().any(|line| line == row), "{row}");
            let is_named_well = of.name.starts_with("sealcast_")
                && of.name.ends_with("_total") == (of.kind == "counter");
            assert!(is_named_well, "{}", of.name);
            count += 1;
        }
        let rows = page.lines().filter(|line| line.starts_with("| `sealcast_"));
        assert_eq!(rows.count(), count);
    }
}

//! Counters and gauges in the text format of Prometheus.
//!
//! A label names a stream by its number in this run or by the beginning of its id, and nothing else:
//! no name, no user, no key, no payload.

use std::collections::BTreeMap;

use sealcast::StreamId;
use sealcast_serving::{Metric, head, line, one};

use crate::api::problems;
use crate::hub::{ArchiveStanding, Hub, Known, Standing, now};

const INFO: Metric = Metric::gauge("sealcast_agent_info", "1, with the agent's version.");
const STARTED: Metric = Metric::gauge(
    "sealcast_agent_start_time_seconds",
    "When the agent began, in seconds since 1970.",
);
const HEALTHY: Metric = Metric::gauge(
    "sealcast_agent_healthy",
    "1 while `/healthz` says ok, else 0.",
);
const STREAMS: Metric = Metric::gauge("sealcast_agent_streams", "Streams of the home.");

/// What is measured of each stream.
type OfStream = (Metric, fn(&Known) -> u64);

const OF_STREAMS: &[OfStream] = &[
    (
        Metric::gauge(
            "sealcast_stream_up",
            "1 while the stream is attended to, else 0.",
        ),
        |of| u64::from(matches!(of.standing, Standing::Attended)),
    ),
    (
        Metric::counter(
            "sealcast_stream_faults_total",
            "How often the stream could not be attended to, its bus or the store failing.",
        ),
        |of| of.counts.faults,
    ),
    (
        Metric::counter(
            "sealcast_stream_alarms_total",
            "How often the bus showed what honest devices and buses do not do.",
        ),
        |of| of.counts.alarms,
    ),
    (
        Metric::counter(
            "sealcast_bundles_handed_out_total",
            "Bundles of keys handed out.",
        ),
        |of| of.counts.bundles,
    ),
    (
        Metric::counter(
            "sealcast_bundles_handed_out_bytes_total",
            "Bytes of the bundles of keys handed out.",
        ),
        |of| of.counts.bundle_bytes,
    ),
    (
        Metric::counter(
            "sealcast_key_requests_total",
            "Requests for keys to which this device had something to say.",
        ),
        |of| of.answered().requests,
    ),
    (
        Metric::counter(
            "sealcast_key_request_faults_total",
            "How often answering failed, its bus or the store failing.",
        ),
        |of| of.answered().faults,
    ),
    (
        Metric::counter(
            "sealcast_decision_grants_total",
            "Grants that decisions wrote.",
        ),
        |of| of.answered().grants + of.counts.approved,
    ),
    (
        Metric::gauge(
            "sealcast_subscribers",
            "Those who follow the stream through the agent.",
        ),
        |of| of.counts.subscribers,
    ),
];

const ANSWERS: Metric = Metric::counter(
    "sealcast_key_answers_total",
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

const ASKED: Metric = Metric::counter(
    "sealcast_keys_asked_for_total",
    "Requests for keys that this device sent, by who was asked: `key-nodes`, which come first, or `others`.",
);
const ASKED_SEGMENTS: Metric = Metric::counter(
    "sealcast_keys_segments_total",
    "Segments that key nodes released to this device.",
);
const ASKED_OPENED: Metric = Metric::counter(
    "sealcast_keys_given_total",
    "Requests to others of which keys came that work.",
);
const ASKED_FAILURES: Metric = Metric::counter(
    "sealcast_keys_not_given_total",
    "What came of requests and was no key, by who was asked and why.",
);

const PENDING: Metric = Metric::gauge(
    "sealcast_requests_pending",
    "Requests for keys that wait for a person's decision.",
);

const DELIVERIES: Metric = Metric::counter(
    "sealcast_deliveries_total",
    "Deliveries to those who follow the stream through the agent, by what became of them.",
);

/// What is measured of each stream that is archived.
const OF_ARCHIVES: &[OfStream] = &[
    (
        Metric::gauge(
            "sealcast_archive_up",
            "1 while the stream is archived, else 0.",
        ),
        |of| u64::from(matches!(of.archive, Some(ArchiveStanding::Copying))),
    ),
    (
        Metric::counter(
            "sealcast_archive_items_total",
            "Items copied to the archive.",
        ),
        |of| of.counts.archived,
    ),
    (
        Metric::counter(
            "sealcast_archive_bytes_total",
            "Bytes of the items copied to the archive.",
        ),
        |of| of.counts.archived_bytes,
    ),
    (
        Metric::counter(
            "sealcast_archive_faults_total",
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
    asked_for(&mut text, hub, &known);
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

/// What asking for keys came to, of key nodes and of others.
fn asked_for(text: &mut String, hub: &Hub, known: &BTreeMap<StreamId, Known>) {
    let all: Vec<_> = known
        .iter()
        .map(|(id, of)| (labels(id, of), hub.home.asked_in(id)))
        .collect();
    head(text, ASKED);
    for ((number, id), asked) in &all {
        for (of, count) in asked.requests() {
            line(
                text,
                ASKED,
                &[("stream", number), ("id", id), ("of", of)],
                count,
            );
        }
    }
    head(text, ASKED_SEGMENTS);
    for ((number, id), asked) in &all {
        let labels = [("stream", &**number), ("id", &**id)];
        line(text, ASKED_SEGMENTS, &labels, asked.nodes.segments);
    }
    head(text, ASKED_OPENED);
    for ((number, id), asked) in &all {
        let labels = [("stream", &**number), ("id", &**id)];
        line(text, ASKED_OPENED, &labels, asked.others.opened);
    }
    head(text, ASKED_FAILURES);
    for ((number, id), asked) in &all {
        for (of, why, count) in asked.failures() {
            let labels = [
                ("stream", &**number),
                ("id", &**id),
                ("of", of),
                ("why", why),
            ];
            line(text, ASKED_FAILURES, &labels, count);
        }
    }
}

fn labels(id: &StreamId, of: &Known) -> (String, String) {
    let mut id = id.to_string();
    id.truncate(8);
    (of.number.to_string(), id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_names_every_metric_with_its_words() {
        let page = include_str!("../../../docs/reference/agent.md");
        let single = [
            INFO,
            STARTED,
            HEALTHY,
            STREAMS,
            PENDING,
            ANSWERS,
            DELIVERIES,
            ASKED,
            ASKED_SEGMENTS,
            ASKED_OPENED,
            ASKED_FAILURES,
        ];
        let of_each = OF_STREAMS.iter().chain(OF_ARCHIVES).map(|of| of.0);
        let mut count = 0;
        for of in single.into_iter().chain(of_each) {
            assert!(page.lines().any(|line| line == of.row()), "{}", of.row());
            assert!(of.is_named_well(), "{}", of.name);
            count += 1;
        }
        let rows = page.lines().filter(|line| line.starts_with("| `sealcast_"));
        assert_eq!(rows.count(), count);
    }
}

//! What is told to whoever watches the proxy: metrics and health, on loopback.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use sealcast::AskingCounts;
use sealcast_serving::{Metric, head, health, is_address, line, metrics, one};

use crate::counts::{Counts, Exception};
use crate::listeners::Hall;
use crate::upstream::Fault;

const INFO: Metric = Metric::gauge("sealcast_proxy_info", "1, with the proxy's version.");
const STARTED: Metric = Metric::gauge(
    "sealcast_proxy_start_time_seconds",
    "When the proxy began, in seconds since 1970.",
);
const HEALTHY: Metric = Metric::gauge(
    "sealcast_proxy_healthy",
    "1 while `/healthz` says ok, else 0.",
);
const CONNECTIONS: Metric =
    Metric::gauge("sealcast_proxy_connections", "Clients that are connected.");
const CONNECTED: Metric = Metric::counter(
    "sealcast_proxy_connections_total",
    "Clients that have connected, those included that said nothing.",
);
const TURNED_AWAY: Metric = Metric::counter(
    "sealcast_proxy_turned_away_total",
    "Clients that were disconnected at once, for want of room.",
);
const MESSAGES: Metric = Metric::counter(
    "sealcast_proxy_messages_total",
    "Messages that went on, by what was done with them: `sealed`, `opened` or `passed`.",
);
const EXCEPTIONS: Metric = Metric::counter(
    "sealcast_proxy_exceptions_total",
    "Messages that were `refused`, `dropped`, `forwarded` unopened or `parked` for want of a key, by the reason.",
);
const PARKED: Metric = Metric::gauge(
    "sealcast_proxy_parked",
    "Messages that wait for keys, known when the first client has connected.",
);
const PARKED_BYTES: Metric = Metric::gauge("sealcast_proxy_parked_bytes", "Bytes of them.");
const BYTES: Metric = Metric::counter(
    "sealcast_proxy_bytes_total",
    "Bytes of packets `received` and `sent`, by whether clients or the broker are on the other side.",
);
const BROKER: Metric = Metric::gauge(
    "sealcast_proxy_broker_up",
    "1 while the broker can be connected to, else 0.",
);
const BROKER_FAULTS: Metric = Metric::counter(
    "sealcast_proxy_broker_faults_total",
    "How often the broker could not be connected to.",
);
const ASKED: Metric = Metric::counter(
    "sealcast_proxy_keys_asked_for_total",
    "Requests for keys that the proxy sent, by who was asked: `key-nodes`, which come first, or `others`.",
);
const ASKED_SEGMENTS: Metric = Metric::counter(
    "sealcast_proxy_keys_segments_total",
    "Segments that key nodes released to the proxy.",
);
const ASKED_OPENED: Metric = Metric::counter(
    "sealcast_proxy_keys_given_total",
    "Requests to others of which keys came that work.",
);
const ASKED_FAILURES: Metric = Metric::counter(
    "sealcast_proxy_keys_not_given_total",
    "What came of requests and was no key, by who was asked and why.",
);
const STREAM: Metric = Metric::gauge(
    "sealcast_proxy_stream_up",
    "0 while messages of the stream cannot be sealed or opened, its bus or the store failing, else 1.",
);
const STREAM_FAULTS: Metric = Metric::counter(
    "sealcast_proxy_stream_faults_total",
    "How often a message could not be sealed or opened, the bus of the stream or the store failing.",
);

/// What can be asked.
pub(crate) fn router(hall: &Arc<Hall>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/metrics", get(measured))
        .with_state(Arc::clone(hall))
        .layer(from_fn(by_address))
}

/// Answers those who call the proxy by its address, or by none: a page may come from a name that leads here.
async fn by_address(request: Request, next: Next) -> Response {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match hosts.all(|host| host.to_str().is_ok_and(is_address)) {
        true => next.run(request).await,
        false => StatusCode::MISDIRECTED_REQUEST.into_response(),
    }
}

async fn healthz(State(hall): State<Arc<Hall>>) -> Response {
    let broker = hall.shared.upstream.look().await;
    health(&problems(&hall, broker))
}

async fn measured(State(hall): State<Arc<Hall>>) -> Response {
    let broker = hall.shared.upstream.look().await;
    metrics(text(&hall, broker))
}

/// What is not well.
fn problems(hall: &Hall, broker: Result<(), Fault>) -> Vec<String> {
    let mut problems = Vec::new();
    if let Err(Fault(why)) = broker {
        problems.push(format!("the broker cannot be reached: {why}"));
    }
    for of in hall.standing.all() {
        if let Some(code) = of.fault() {
            problems.push(format!("stream {}: {code}", of.number));
        }
    }
    problems
}

/// All that is measured now.
fn text(hall: &Hall, broker: Result<(), Fault>) -> String {
    let mut text = String::new();
    let (shared, counts) = (&hall.shared, &hall.shared.counts);
    one(
        &mut text,
        INFO,
        &[("version", env!("CARGO_PKG_VERSION"))],
        1,
    );
    one(&mut text, STARTED, &[], hall.started);
    let is_healthy = problems(hall, broker).is_empty();
    one(&mut text, HEALTHY, &[], is_healthy.into());
    one(&mut text, CONNECTIONS, &[], hall.places.taken_now() as u64);
    one(&mut text, CONNECTED, &[], hall.connected());
    one(&mut text, TURNED_AWAY, &[], hall.places.turned_away());
    of_messages(&mut text, counts);
    let (parked, bytes) = shared.room.taken();
    one(&mut text, PARKED, &[], parked);
    one(&mut text, PARKED_BYTES, &[], bytes);
    head(&mut text, BYTES);
    for (side, traffic) in [
        ("clients", &hall.traffic),
        ("broker", &shared.upstream.traffic),
    ] {
        for (direction, count) in [("received", traffic.received()), ("sent", traffic.sent())] {
            line(
                &mut text,
                BYTES,
                &[("side", side), ("direction", direction)],
                count,
            );
        }
    }
    one(&mut text, BROKER, &[], broker.is_ok().into());
    one(&mut text, BROKER_FAULTS, &[], shared.upstream.faults());
    asked_for(&mut text, &shared.ruling.now().sealing.asked());
    let streams = hall.standing.all();
    for (metric, value) in [
        (
            STREAM,
            (|of| u64::from(of.fault().is_none())) as fn(&crate::standing::Of) -> u64,
        ),
        (STREAM_FAULTS, |of| of.faults),
    ] {
        head(&mut text, metric);
        for of in &streams {
            line(
                &mut text,
                metric,
                &[("stream", &of.number.to_string())],
                value(of),
            );
        }
    }
    text
}

/// What asking for keys came to, of key nodes and of others.
fn asked_for(text: &mut String, asked: &AskingCounts) {
    head(text, ASKED);
    for (of, count) in asked.requests() {
        line(text, ASKED, &[("of", of)], count);
    }
    one(text, ASKED_SEGMENTS, &[], asked.nodes.segments);
    one(text, ASKED_OPENED, &[], asked.others.opened);
    head(text, ASKED_FAILURES);
    for (of, why, count) in asked.failures() {
        line(text, ASKED_FAILURES, &[("of", of), ("why", why)], count);
    }
}

/// What was done with messages.
fn of_messages(text: &mut String, counts: &Counts) {
    head(text, MESSAGES);
    for (fate, count) in [
        ("sealed", counts.sealed()),
        ("opened", counts.opened()),
        ("passed", counts.passed()),
    ] {
        line(text, MESSAGES, &[("fate", fate)], count);
    }
    head(text, EXCEPTIONS);
    for (exception, reason, count) in counts.exceptions() {
        let fate = match exception {
            Exception::Refused => "refused",
            Exception::Dropped => "dropped",
            Exception::Forwarded => "forwarded",
            Exception::Parked => "parked",
        };
        line(
            text,
            EXCEPTIONS,
            &[("fate", fate), ("reason", reason)],
            count,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_names_every_metric_with_its_words() {
        let page = include_str!("../../../docs/reference/proxy.md");
        let all = [
            INFO,
            STARTED,
            HEALTHY,
            CONNECTIONS,
            CONNECTED,
            TURNED_AWAY,
            MESSAGES,
            EXCEPTIONS,
            PARKED,
            PARKED_BYTES,
            BYTES,
            BROKER,
            BROKER_FAULTS,
            STREAM,
            STREAM_FAULTS,
            ASKED,
            ASKED_SEGMENTS,
            ASKED_OPENED,
            ASKED_FAILURES,
        ];
        for of in &all {
            assert!(page.lines().any(|line| line == of.row()), "{}", of.row());
            assert!(of.is_named_well(), "{}", of.name);
        }
        let rows = page.lines().filter(|line| line.starts_with("| `sealcast_"));
        assert_eq!(rows.count(), all.len());
    }
}

//! The local API: every route, what it answers, and `openapi.json` which says the same.
//!
//! Whatever changes something is a POST. On the Unix socket all of it is offered, on loopback only what [`Route::is_public`] marks. No
//! answer holds key material; `/streams/{name}/messages` alone holds what was published.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};
use sealcast::{BusError, Position};
use serde::{Deserialize, Serialize};

use crate::hub::{ArchiveStanding as HubArchive, Hub, Known, Standing as HubStanding, now};
use crate::line::rfc3339;
use crate::subscribers::{self, Confirmations, Wanted};
use crate::{host, metrics, requests};

/// The number of this API. It grows when an older command line would misread an answer.
pub const API: u32 = 1;

const DESCRIPTION: &str = include_str!("../openapi.json");

/// One path of the API.
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "the description is made by a test")
)]
pub(crate) struct Route {
    pub(crate) path: &'static str,
    /// `get` or `post`.
    pub(crate) method: &'static str,
    pub(crate) summary: &'static str,
    /// The type of what is answered, and the schema of it where it is JSON.
    pub(crate) answer: (&'static str, Option<&'static str>),
    pub(crate) is_public: bool,
    pub(crate) handler: fn() -> MethodRouter<Arc<Hub>>,
}

const JSON: &str = "application/json";
const LINES: &str = "application/jsonl";
const TEXT: &str = "text/plain";

pub(crate) const ROUTES: &[Route] = &[
    Route {
        path: "/home",
        method: "get",
        summary: "Whose home this is, and its contacts.",
        answer: (JSON, Some("HomeInfo")),
        is_public: false,
        handler: || get(home),
    },
    Route {
        path: "/status",
        method: "get",
        summary: "How the agent is, and each of its streams.",
        answer: (JSON, Some("Status")),
        is_public: false,
        handler: || get(status),
    },
    Route {
        path: "/streams/{name}/messages",
        method: "get",
        summary: "Follows a stream: a line of JSON for each delivery, as `sub --json` prints it; before them how many \
                  messages are `waiting` for keys; `alarm` and \
                  `hint` for what honest devices and buses do not do; `end` in the last line says why.",
        answer: (LINES, Some("DeliveryLine")),
        is_public: false,
        handler: || get(messages),
    },
    Route {
        path: "/streams/{name}/messages",
        method: "post",
        summary: "The same for whoever says what it has taken. The body is a byte for each delivery that had `waited`, sent \
                  when the subscriber is done with its line. The next line comes then, and what is \
                  not confirmed is delivered again to the next subscriber. The `content-length` may be as \
                  large as one likes; closing the connection ends the body.",
        answer: (LINES, Some("DeliveryLine")),
        is_public: false,
        handler: || post(confirmed_messages),
    },
    Route {
        path: "/requests",
        method: "get",
        summary: "The requests for keys that wait for a person's decision.",
        answer: (JSON, Some("Requests")),
        is_public: false,
        handler: || get(requests::list),
    },
    Route {
        path: "/requests/{id}/approve",
        method: "post",
        summary: "Writes the grants that a request asks for.",
        answer: (JSON, Some("Approved")),
        is_public: false,
        handler: || post(requests::approve),
    },
    Route {
        path: "/requests/{id}/deny",
        method: "post",
        summary: "Refuses a request, and the same again for a time.",
        answer: (JSON, Some("PendingRequest")),
        is_public: false,
        handler: || post(requests::deny),
    },
    Route {
        path: "/healthz",
        method: "get",
        summary: "`ok`, or 503 and what is wrong, a line each.",
        answer: (TEXT, None),
        is_public: true,
        handler: || get(healthz),
    },
    Route {
        path: "/metrics",
        method: "get",
        summary: "Counters and gauges in the text format of Prometheus.",
        answer: (TEXT, None),
        is_public: true,
        handler: || get(metrics),
    },
    Route {
        path: "/openapi.json",
        method: "get",
        summary: "This description.",
        answer: (JSON, None),
        is_public: false,
        handler: || get(|| async { ([(header::CONTENT_TYPE, JSON)], DESCRIPTION) }),
    },
];

/// The whole API, or what is for everybody on this machine.
pub(crate) fn router(hub: &Arc<Hub>, is_for_all: bool) -> Router {
    let routes = ROUTES.iter().filter(|of| of.is_public || !is_for_all);
    let router = routes.fold(Router::new(), |router, of| {
        router.route(of.path, (of.handler)())
    });
    let router = router
        .fallback(|| async {
            Fault::new("api.unknown", "there is no such path").answer(StatusCode::NOT_FOUND)
        })
        .layer(middleware::map_response(in_json))
        .with_state(hub.clone());
    match is_for_all {
        true => router.layer(middleware::from_fn(host::by_address)),
        false => router,
    }
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Fault {
    /// A stable name.
    pub code: String,
    /// What went wrong, with its causes.
    pub message: String,
}

impl Fault {
    pub(crate) fn new(code: &str, message: &str) -> Self {
        Self {
            code: code.to_owned(),
            message: message.to_owned(),
        }
    }

    /// The agent ends.
    pub(crate) fn stopping() -> Self {
        Self::new("agent.stopping", "the agent was told to stop")
    }

    pub(crate) fn of(error: &sealcast::Error) -> Self {
        let mut message = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(of) = cause {
            let text = of.to_string();
            if !message.ends_with(&text) {
                message = format!("{message}: {text}");
            }
            cause = of.source();
        }
        Self {
            code: error.code().to_owned(),
            message,
        }
    }

    pub(crate) fn answer(self, status: StatusCode) -> Response {
        (status, Json(self)).into_response()
    }
}

/// Whose home an agent serves.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct HomeInfo {
    /// The number of the API.
    pub api: u32,
    /// The version of the agent.
    pub version: String,
    /// The user.
    pub user: String,
    /// The device.
    pub device: String,
    /// The names that the home has for others.
    pub contacts: Vec<Contact>,
}

/// A name that a home has for somebody.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Contact {
    /// The name.
    pub name: String,
    /// The user's id.
    pub user: String,
}

/// How an agent is.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Status {
    /// The number of the API.
    pub api: u32,
    /// The version of the agent.
    pub version: String,
    /// Its process.
    pub process: u32,
    /// When it began.
    pub since: String,
    /// The user whose home it serves.
    pub user: String,
    /// The device.
    pub device: String,
    /// Where it answers `/metrics` and `/healthz`; `null` for nowhere.
    pub listen: Option<String>,
    /// Where it archives to; `null` for nowhere.
    pub archive: Option<String>,
    /// What is wrong; nothing where all is well.
    pub problems: Vec<String>,
    /// Requests for keys that wait for a person's decision.
    pub pending_requests: usize,
    /// Its buses.
    pub buses: Vec<BusStatus>,
    /// Its streams, by name.
    pub streams: Vec<StreamStatus>,
}

/// How a bus is.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BusStatus {
    /// The bus.
    pub bus: String,
    /// How many streams are on it.
    pub streams: usize,
    /// Why it cannot be used; `null` where it can, as far as is known.
    pub fault: Option<Fault>,
}

/// How a stream is.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StreamStatus {
    /// Its number in this run, by which logs and metrics name it.
    pub number: u32,
    /// Its name in this home.
    pub name: String,
    /// Its id.
    pub stream: String,
    /// Its bus.
    pub bus: String,
    /// How it stands.
    pub standing: Standing,
    /// Since when it stands so.
    pub since: String,
    /// Why it cannot be attended to, where it cannot.
    pub fault: Option<Fault>,
    /// Bundles of keys handed out since the agent began.
    pub bundles: u64,
    /// Those who follow it through the agent.
    pub subscribers: u64,
    /// Deliveries to them since the agent began.
    pub deliveries: u64,
    /// Alarms since the agent began.
    pub alarms: u64,
    /// The latest of these.
    pub latest_alarms: Vec<String>,
    /// How it is archived; `null` where it is not.
    pub archive: Option<ArchiveStatus>,
}

/// How a stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Standing {
    /// It was not opened yet.
    Opening,
    /// Its access log and keys are followed.
    Attended,
    /// It cannot be attended to; this is tried again and again.
    Failing,
}

/// How a stream is archived.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ArchiveStatus {
    /// Items copied since the agent began.
    pub items: u64,
    /// Why nothing is copied, where that is so.
    pub fault: Option<Fault>,
}

/// What is wrong, a line each, without names and addresses: anybody on this machine may see it.
pub(crate) fn problems(hub: &Hub) -> Vec<String> {
    let store = hub.store_fault().map(|of| format!("store: {}", of.code));
    let mut problems: Vec<String> = store.into_iter().collect();
    for of in hub.known().values() {
        if let HubStanding::Failing(fault) = &of.standing {
            problems.push(format!("stream {}: {}", of.number, fault.code));
        }
        if let Some(HubArchive::Failing(fault)) = &of.archive {
            problems.push(format!("archive of stream {}: {}", of.number, fault.code));
        }
    }
    problems
}

impl StreamStatus {
    fn of(id: &str, of: &Known) -> Self {
        let (standing, fault) = match &of.standing {
            HubStanding::Opening => (Standing::Opening, None),
            HubStanding::Attended => (Standing::Attended, None),
            HubStanding::Failing(fault) => (Standing::Failing, Some(fault.clone())),
        };
        let archive = of.archive.as_ref().map(|archive| ArchiveStatus {
            items: of.counts.archived,
            fault: match archive {
                HubArchive::Failing(fault) => Some(fault.clone()),
                HubArchive::Opening | HubArchive::Copying => None,
            },
        });
        Self {
            number: of.number,
            name: of.name.to_string(),
            stream: id.to_owned(),
            bus: of.bus.to_string(),
            standing,
            since: rfc3339(of.since),
            fault,
            bundles: of.counts.bundles,
            subscribers: of.counts.subscribers,
            deliveries: of.counts.deliveries.values().sum(),
            alarms: of.counts.alarms,
            latest_alarms: of.alarms.iter().map(ToString::to_string).collect(),
            archive,
        }
    }
}

/// What is refused before a handler sees it, such as a query that cannot be read, is refused like the rest.
async fn in_json(answer: Response) -> Response {
    let kind = answer.headers().get(header::CONTENT_TYPE);
    let is_ours = kind.is_some_and(|kind| kind.as_bytes().starts_with(JSON.as_bytes()));
    let fault = match answer.status() {
        StatusCode::METHOD_NOT_ALLOWED => Fault::new("api.method", "this path has no such method"),
        StatusCode::BAD_REQUEST => Fault::new("api.request", "path or query cannot be read"),
        _ => return answer,
    };
    match is_ours {
        true => answer,
        false => fault.answer(answer.status()),
    }
}

async fn status(State(hub): State<Arc<Hub>>) -> Json<Status> {
    let (home, config) = (&hub.home, &hub.config.agent);
    let problems = problems(&hub);
    let known = hub.known();
    let streams = known
        .iter()
        .map(|(id, of)| StreamStatus::of(&id.to_string(), of));
    let mut streams: Vec<_> = streams.collect();
    drop(known);
    streams.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Json(Status {
        api: API,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        process: std::process::id(),
        since: rfc3339(hub.started),
        user: home.user().to_string(),
        device: home.device().to_string(),
        listen: hub.listen.get().map(ToString::to_string),
        archive: config.archive.as_ref().map(ToString::to_string),
        problems,
        pending_requests: hub.questions.waiting(now()).len(),
        buses: buses(&streams),
        streams,
    })
}

/// The buses of the streams, each with what a stream on it met.
fn buses(streams: &[StreamStatus]) -> Vec<BusStatus> {
    let mut buses: Vec<BusStatus> = Vec::new();
    for of in streams {
        let fault = of
            .fault
            .clone()
            .filter(|fault| fault.code.starts_with("bus."));
        match buses.iter_mut().find(|bus| bus.bus == of.bus) {
            Some(bus) => {
                bus.streams += 1;
                bus.fault = bus.fault.take().or(fault);
            }
            None => buses.push(BusStatus {
                bus: of.bus.clone(),
                streams: 1,
                fault,
            }),
        }
    }
    buses
}

async fn home(State(hub): State<Arc<Hub>>) -> Response {
    let home = hub.home.clone();
    let contacts = match tokio::task::spawn_blocking(move || home.contacts()).await {
        Ok(Ok(contacts)) => contacts,
        Ok(Err(error)) => return refuse(&error),
        Err(_) => return refuse(&sealcast::Error::Internal("a worker thread ended early")),
    };
    let contacts = contacts.into_iter().map(|(name, user)| Contact {
        name: name.to_string(),
        user: user.to_string(),
    });
    Json(HomeInfo {
        api: API,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        user: hub.home.user().to_string(),
        device: hub.home.device().to_string(),
        contacts: contacts.collect(),
    })
    .into_response()
}

/// Where a subscriber begins.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct MessagesQuery {
    /// The position to begin with, in milliseconds since 1970; what comes from now on if not given.
    pub(crate) from: Option<u64>,
    /// After how many messages, opened or not, to end; never if not given.
    pub(crate) count: Option<u64>,
}

async fn messages(
    State(hub): State<Arc<Hub>>,
    Path(name): Path<String>,
    Query(query): Query<MessagesQuery>,
) -> Response {
    deliver(&hub, &name, &query, None).await
}

async fn confirmed_messages(
    State(hub): State<Arc<Hub>>,
    Path(name): Path<String>,
    Query(query): Query<MessagesQuery>,
    body: Body,
) -> Response {
    deliver(&hub, &name, &query, Some(Confirmations::of(body))).await
}

async fn deliver(
    hub: &Arc<Hub>,
    name: &str,
    query: &MessagesQuery,
    confirmations: Option<Confirmations>,
) -> Response {
    let begun = async {
        let stream = hub.stream(name).await?;
        let wanted = Wanted {
            from: query.from.map(Position),
            count: query.count,
            confirmations,
        };
        subscribers::follow(hub, &stream, wanted).await
    };
    match begun.await {
        Ok(lines) => ([(header::CONTENT_TYPE, LINES)], Body::from_stream(lines)).into_response(),
        Err(error) => refuse(&error),
    }
}

pub(crate) fn refuse(error: &sealcast::Error) -> Response {
    use sealcast::Error;
    let is_busy = matches!(error, Error::Bus(BusError::Busy { .. }));
    let status = match error.code() {
        "stream.unknown" => StatusCode::NOT_FOUND,
        "access.not-allowed" | "access.forked" | "stream.closed" => StatusCode::FORBIDDEN,
        "bus.failed" if is_busy => StatusCode::SERVICE_UNAVAILABLE,
        "bus.failed" => StatusCode::BAD_GATEWAY,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Fault::of(error).answer(status)
}

async fn healthz(State(hub): State<Arc<Hub>>) -> Response {
    sealcast_serving::health(&problems(&hub))
}

async fn metrics(State(hub): State<Arc<Hub>>) -> Response {
    sealcast_serving::metrics(metrics::text(&hub))
}

#[cfg(test)]
#[path = "describe.rs"]
mod describe;

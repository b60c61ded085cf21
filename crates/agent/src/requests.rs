//! The part of the local API by which a person decides on requests for keys.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use sealcast::{Error, Position, UserId};
use serde::{Deserialize, Serialize};

use crate::api::{Fault, refuse};
use crate::hub::{Hub, now};
use crate::line::rfc3339;
use crate::questions::Waiting;

/// The requests that wait, and who decides.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Requests {
    /// The policy of the config file; only with `ask` requests wait.
    pub policy: String,
    /// The oldest first.
    pub requests: Vec<PendingRequest>,
}

/// A request for keys that no grant covers.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct PendingRequest {
    /// By which it is approved or denied.
    pub id: String,
    /// The stream's name in this home.
    pub stream: String,
    /// Who asks: a signature says so.
    pub user: String,
    /// The user's name in this home; `null` where there is none.
    pub name: Option<String>,
    /// The user's device that asked first.
    pub device: String,
    /// What the access log has of the user: `stranger`, `granted` (something else) or `revoked`.
    pub standing: String,
    /// What a yes grants.
    pub wants: Vec<Wanted>,
    /// Since when it waits.
    pub asked: String,
    /// When it is over without an answer.
    pub expires: String,
}

/// One interval of what was published by some.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Wanted {
    /// From when on.
    pub from: String,
    /// Until when; `null` for no end.
    pub until: Option<String>,
    /// Whose messages.
    pub publishers: Vec<String>,
}

/// What a yes came to.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Approved {
    /// What was asked for.
    pub request: PendingRequest,
    /// Grants that were written; none where the access log allowed it by then.
    pub grants: usize,
}

impl PendingRequest {
    fn of(waiting: &Waiting, names: &BTreeMap<UserId, String>) -> Self {
        let question = &waiting.question;
        let mut wants: Vec<Wanted> = Vec::new();
        let mut last = None;
        for (interval, lane) in waiting.wanted() {
            match wants.last_mut().filter(|_| last == Some(interval)) {
                Some(of) => of.publishers.push(lane.to_string()),
                None => wants.push(Wanted {
                    from: rfc3339(interval.from),
                    until: (interval.until != Position::END).then(|| rfc3339(interval.until)),
                    publishers: Vec::from([lane.to_string()]),
                }),
            }
            last = Some(interval);
        }
        Self {
            id: format!("{:08x}", waiting.id),
            stream: question.name.to_string(),
            user: question.user.to_string(),
            name: names.get(&question.user).cloned(),
            device: question.device.to_string(),
            standing: question.standing.word().to_owned(),
            wants,
            asked: rfc3339(waiting.asked),
            expires: rfc3339(waiting.until),
        }
    }
}

pub(crate) async fn list(State(hub): State<Arc<Hub>>) -> Response {
    let names = match names(&hub).await {
        Ok(names) => names,
        Err(error) => return refuse(&error),
    };
    let waiting = hub.questions.waiting(now());
    let requests = waiting.iter().map(|of| PendingRequest::of(of, &names));
    Json(Requests {
        policy: hub.config.decisions.name().to_owned(),
        requests: requests.collect(),
    })
    .into_response()
}

pub(crate) async fn approve(State(hub): State<Arc<Hub>>, Path(id): Path<String>) -> Response {
    let Some(waiting) = parse(&id).and_then(|id| hub.questions.take(now(), id)) else {
        return unknown();
    };
    // Whoever asked for it may go; what was begun is done.
    let done = tokio::spawn(async move {
        let granted = grant(&hub, &waiting).await;
        if granted.is_err() {
            hub.questions.put_back(now(), waiting);
        }
        granted
    });
    match done.await {
        Ok(Ok(approved)) => Json(approved).into_response(),
        Ok(Err(error)) => refuse(&error),
        Err(_) => refuse(&Error::Internal("a yes ended early")),
    }
}

async fn grant(hub: &Hub, waiting: &Waiting) -> Result<Approved, Error> {
    let names = names(hub).await?;
    let id = &waiting.question.stream;
    let stream = hub.stream_of(id).await?;
    let grants = stream.approve(&waiting.question).await?;
    hub.approved(id, grants as u64);
    tracing::info!(stream = hub.number(id), grants, "request approved");
    Ok(Approved {
        request: PendingRequest::of(waiting, &names),
        grants,
    })
}

pub(crate) async fn deny(State(hub): State<Arc<Hub>>, Path(id): Path<String>) -> Response {
    let names = match names(&hub).await {
        Ok(names) => names,
        Err(error) => return refuse(&error),
    };
    let Some(denied) = parse(&id).and_then(|id| hub.questions.deny(now(), id)) else {
        return unknown();
    };
    let number = hub.number(&denied.question.stream);
    tracing::info!(stream = number, "request denied");
    Json(PendingRequest::of(&denied, &names)).into_response()
}

fn parse(id: &str) -> Option<u32> {
    let is_id = id.len() == 8 && id.bytes().all(|c| c.is_ascii_hexdigit());
    u32::from_str_radix(id, 16).ok().filter(|_| is_id)
}

fn unknown() -> Response {
    Fault::new("request.unknown", "no such request waits").answer(StatusCode::NOT_FOUND)
}

/// What the home calls people.
async fn names(hub: &Hub) -> Result<BTreeMap<UserId, String>, Error> {
    let home = hub.home.clone();
    let contacts = tokio::task::spawn_blocking(move || home.contacts()).await;
    let contacts = contacts.unwrap_or(Err(Error::Internal("a worker thread ended early")))?;
    let names = contacts.into_iter();
    Ok(names.map(|(name, user)| (user, name.to_string())).collect())
}

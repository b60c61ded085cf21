//! Attending to every stream of the home.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use sealcast::{AnswerOptions, Error, StreamId, StreamInfo};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

use crate::api::Fault;
use crate::archive;
use crate::backoff::{Backoff, jitter};
use crate::hub::Hub;

/// How often the home is asked for streams that were joined meanwhile.
const SCAN_EVERY: Duration = Duration::from_secs(1);
/// Streams that are opened at once.
const OPENING_MAX: usize = 8;

/// Attends to the streams of the home until the agent stops.
pub(crate) async fn supervise(hub: Arc<Hub>) {
    let mut tasks = JoinSet::new();
    let mut running: BTreeMap<StreamId, AbortHandle> = BTreeMap::new();
    let opening = Arc::new(Semaphore::new(OPENING_MAX));
    loop {
        for of in scan(&hub).await {
            let id = of.id;
            tracing::info!(stream = hub.number(&id), "stream taken up");
            let task = tasks.spawn(attend(hub.clone(), of, opening.clone()));
            if let Some(old) = running.insert(id, task) {
                old.abort();
            }
        }
        tokio::select! {
            () = hub.stopping() => break,
            () = hub.rescan.notified() => {}
            () = sleep(SCAN_EVERY) => {}
        }
    }
    tasks.shutdown().await;
}

/// The streams that nobody attends to yet.
async fn scan(hub: &Arc<Hub>) -> Vec<StreamInfo> {
    let home = hub.home.clone();
    let found = tokio::task::spawn_blocking(move || home.streams()).await;
    let found = found.unwrap_or(Err(Error::Internal("a worker thread ended early")));
    let had_fault = hub.store_fault().is_some();
    match found {
        Ok(streams) => {
            if had_fault {
                tracing::info!("store can be read again");
            }
            hub.set_store_fault(None);
            hub.learn(streams)
        }
        Err(error) => {
            if !had_fault {
                tracing::warn!(code = error.code(), "store cannot be read");
            }
            hub.set_store_fault(Some(Fault::of(&error)));
            Vec::new()
        }
    }
}

/// Attends to one stream, and begins again whenever that fails.
async fn attend(hub: Arc<Hub>, of: StreamInfo, opening: Arc<Semaphore>) {
    let mut backoff = Backoff::default();
    let number = hub.number(&of.id);
    loop {
        let Err(error) = attend_once(&hub, &of, &opening, &mut backoff).await;
        let wait = backoff.wait(jitter());
        let (code, wait_ms) = (error.code(), wait.as_millis());
        if hub.failed(&of.id, Fault::of(&error)) {
            tracing::warn!(stream = number, code, "stream cannot be attended to");
        }
        let says = Fault::of(&error).message;
        tracing::debug!(stream = number, code, says, wait_ms, "trying again later");
        sleep(wait).await;
    }
}

/// How requests for keys are answered.
fn answers(hub: &Hub) -> AnswerOptions {
    AnswerOptions {
        policy: hub.policy.clone(),
        max_key_requests_per_second: hub.config.asking.max_key_requests_per_second,
    }
}

async fn attend_once(
    hub: &Arc<Hub>,
    of: &StreamInfo,
    opening: &Semaphore,
    backoff: &mut Backoff,
) -> Result<Infallible, Error> {
    // It is never closed.
    let permit = opening.acquire().await;
    let name = hub.known().get(&of.id).map(|of| of.name.clone());
    let stream = hub.home.stream(name.as_ref().unwrap_or(&of.name)).await?;
    drop(permit);
    hub.opened(&of.id, &stream);
    // It answers for as long as this is here.
    let _answers = match hub.config.answers {
        true => Some(hub.answers(&of.id, stream.answer(answers(hub)).await?)),
        false => None,
    };
    let mut attendant = stream.attend();
    let number = hub.number(&of.id);
    let attending = async {
        loop {
            let attended = attendant.next().await?;
            backoff.reset();
            if hub.attended(&of.id, &attended) {
                tracing::info!(stream = number, "stream attended to");
            }
            if attended.bundles > 0 {
                let (bundles, bytes) = (attended.bundles, attended.bundle_bytes);
                tracing::info!(stream = number, bundles, bytes, "keys handed out");
            }
            let alarms = stream.alarms();
            if !alarms.is_empty() {
                tracing::warn!(stream = number, alarms = alarms.len(), "alarms");
            }
            hub.alarmed(&of.id, alarms);
        }
    };
    tokio::select! {
        failed = attending => failed,
        never = archive::copy(hub, &of.id, &stream) => match never {},
    }
}

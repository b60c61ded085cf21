//! Copying streams to the archive.

use std::convert::Infallible;
use std::future;
use std::sync::Arc;

use sealcast::{BusUrl, Error, Stream, StreamId};
use tokio::time::sleep;

use crate::api::Fault;
use crate::backoff::{Backoff, jitter};
use crate::hub::{ArchiveStanding, Hub};

/// Copies a stream to the archive, if there is one, and begins again whenever that fails.
pub(crate) async fn copy(hub: &Arc<Hub>, id: &StreamId, stream: &Stream) -> Infallible {
    let Some(url) = &hub.config.agent.archive else {
        return future::pending().await;
    };
    let mut backoff = Backoff::default();
    let number = hub.number(id);
    loop {
        let Err(error) = copy_once(hub, id, stream, url, &mut backoff).await;
        let wait = backoff.wait(jitter());
        let (code, wait_ms) = (error.code(), wait.as_millis());
        let fault = Fault::of(&error);
        tracing::debug!(
            stream = number,
            code,
            says = fault.message,
            wait_ms,
            "archiving later"
        );
        if hub.set_archive(id, ArchiveStanding::Failing(fault)) {
            tracing::warn!(stream = number, code, "stream cannot be archived");
        }
        sleep(wait).await;
    }
}

async fn copy_once(
    hub: &Arc<Hub>,
    id: &StreamId,
    stream: &Stream,
    url: &BusUrl,
    backoff: &mut Backoff,
) -> Result<Infallible, Error> {
    let mut archive = stream.archive_to(url).await?;
    let number = hub.number(id);
    if hub.set_archive(id, ArchiveStanding::Copying) {
        tracing::info!(stream = number, "archiving");
    }
    loop {
        let archived = archive.next().await?;
        backoff.reset();
        hub.archived(id, &archived);
        let (items, bytes) = (archived.items, archived.bytes);
        tracing::debug!(stream = number, items, bytes, "archived");
        if archived.differed {
            tracing::warn!(
                stream = number,
                items,
                "archive and bus differed; what the archive lacked is there now"
            );
        }
    }
}

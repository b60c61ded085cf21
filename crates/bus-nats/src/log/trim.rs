//! Trimming: first it is written down, then the room is freed.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use sealcast_bus::{BusError, Offset, Topic};

use super::Logs;
use crate::fault::Fault;

/// Parts that are on their way out at once.
const FREED_AT_ONCE: usize = 16;

impl Logs {
    pub(crate) async fn trim(&self, topic: &Topic, before: Offset) -> Result<(), BusError> {
        let (head, _) = self.head(topic).await?;
        if before.0.min(head.end) <= head.left {
            return Ok(());
        }
        let freed = self.trim_to(topic, before.0).await;
        freed.map_err(|fault| self.server.fault(fault))
    }

    async fn trim_to(&self, topic: &Topic, before: u64) -> Result<(), Fault> {
        let head = self.put_trim(topic, before).await?;
        let subject = self.server.subjects.log(topic);
        let trimmed = self.trimmed(topic, &subject, &head).await?;
        // First the parts: afterwards nothing says any more where they are.
        let parts = self.server.subjects.part(topic);
        let freed = stream::iter(trimmed.parts).map(|part| self.free(&parts, part));
        freed
            .buffer_unordered(FREED_AT_ONCE)
            .try_collect::<()>()
            .await?;
        self.server.purge(&subject, trimmed.until).await
    }

    async fn free(&self, parts: &str, part: u64) -> Result<(), Fault> {
        // Whoever named it may have named what is somebody else's.
        if self.server.at(parts, part).await?.is_some() {
            self.server.delete(part).await?;
        }
        Ok(())
    }
}

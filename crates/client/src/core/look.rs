//! Several topics are looked at at once: a server that is far away is waited for once.

use std::sync::Arc;

use sealcast_bus::{Bus, Item, Offset, Topic};
use sealcast_engine::ControlTopic;
use tokio::task::JoinSet;

use super::{Core, READ_BYTES, Reading};
use crate::error::Error;
use crate::home::topic;
use crate::place::Place;
use crate::vault::topic_id;

/// Topics that are looked at at once.
pub(super) const AT_ONCE: usize = 8;

/// What the bus shows of a topic that is not as it was.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) on_bus: Topic,
    pub(super) id: [u8; 32],
    /// How far it was read.
    pub(super) place: Place,
    /// Where it ends.
    pub(super) end: Offset,
    /// What lies there from the last item on that was read; nothing where it ends before that.
    pub(super) items: Vec<Item>,
}

impl Core {
    /// Whether nothing panicked while it changed the view, which may be half of what it was to be then.
    pub(crate) fn is_view_sound(&self) -> bool {
        !self.view.is_poisoned()
    }

    /// Looks at topics; says in their order what is to be read, and nothing of those that are as they were.
    pub(super) async fn look_at(
        &self,
        topics: &[ControlTopic],
        reading: &Reading,
    ) -> Result<Vec<Option<Look>>, Error> {
        let mut looking = JoinSet::new();
        for (index, of) in topics.iter().enumerate() {
            let name = of.name(self.id());
            let (on_bus, id) = (topic(&name)?, topic_id(&name));
            let place = reading.places.of(&id);
            let is_checked = place.last().is_none() || reading.places.is_checked(&id, self.now());
            let is_known = is_checked && reading.places.shown(&id).is_none();
            let bus = Arc::clone(&self.bus);
            looking.spawn(async move { (index, look(&*bus, (on_bus, id), place, is_known).await) });
        }
        let mut looks: Vec<_> = topics.iter().map(|_| None).collect();
        while let Some(looked) = looking.join_next().await {
            let (index, look) = looked.map_err(|_| Error::Internal("a task ended early"))?;
            looks[index] = look?;
        }
        Ok(looks)
    }
}

async fn look(
    bus: &dyn Bus,
    (on_bus, id): (Topic, [u8; 32]),
    place: Place,
    is_known: bool,
) -> Result<Option<Look>, Error> {
    let end = bus.end(&on_bus).await?;
    if end == place.at && is_known {
        return Ok(None);
    }
    let from = place.last().unwrap_or(place.at);
    let items = match end < place.at {
        true => Vec::new(),
        false => bus.read(&on_bus, from, READ_BYTES).await?,
    };
    Ok(Some(Look {
        on_bus,
        id,
        place,
        end,
        items,
    }))
}

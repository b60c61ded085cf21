//! Topics of which the bus shows less than this home knows.

use std::collections::{BTreeMap, BTreeSet};

use sealcast_bus::Offset;
use sealcast_engine::{Alarm, ControlTopic};

use super::{Core, Reading};
use crate::error::Error;
use crate::home::topic;
use crate::vault::topic_id;

/// Device lists and chains of the access log of which the bus lost something, by the digests of their
/// names, until it shows all of it again.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    /// With the end up to which each was compared.
    topics: BTreeMap<[u8; 32], Option<Offset>>,
    /// What is in the store.
    kept: BTreeSet<[u8; 32]>,
}

impl Lost {
    pub(crate) fn new(kept: BTreeSet<[u8; 32]>) -> Self {
        Self {
            topics: kept.iter().map(|of| (*of, None)).collect(),
            kept,
        }
    }

    pub(crate) fn note(&mut self, topic: [u8; 32]) {
        self.topics.insert(topic, None);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// What the store has to be told: which there are now, and which no more.
    pub(super) fn due(&self) -> Vec<([u8; 32], bool)> {
        let new = self.topics.keys().filter(|of| !self.kept.contains(*of));
        let over = self.kept.iter().filter(|of| !self.topics.contains_key(*of));
        let new = new.map(|of| (*of, true));
        new.chain(over.map(|of| (*of, false))).collect()
    }

    pub(super) fn keep(&mut self, told: &[([u8; 32], bool)]) {
        for (topic, is_lost) in told {
            match is_lost {
                true => self.kept.insert(*topic),
                false => self.kept.remove(topic),
            };
        }
    }
}

impl Core {
    /// Whether the bus shows all of access log and device lists that this home knows, as it was
    /// before this home put anything back.
    pub(crate) async fn shows_all(&self) -> bool {
        self.reading.lock().await.lost.is_empty()
    }

    /// Looks what the bus shows by now of what it had lost. Comes before anything is put back: who
    /// puts it back and finds it there has learned nothing about the bus.
    pub(super) async fn compare_lost(&self, reading: &mut Reading) -> Result<(), Error> {
        if reading.lost.is_empty() {
            return Ok(());
        }
        let wanted = self.view().wanted();
        for of in wanted {
            let name = of.name(self.id());
            let id = topic_id(&name);
            let Some(compared) = reading.lost.topics.get(&id).copied() else {
                continue;
            };
            let end = self.bus.end(&topic(&name)?).await?;
            if compared == Some(end) {
                continue;
            }
            if self.lost_of(&of).await?.is_empty() {
                reading.lost.topics.remove(&id);
                continue;
            }
            reading.lost.topics.insert(id, Some(end));
            // It may have been lost again since it was put back.
            reading.gone_back.insert(of);
            // Once a run, as it was told once when it was noticed.
            self.tell(compared.is_none().then_some(Alarm::WentBack(of)));
        }
        Ok(())
    }

    /// Whether a topic is one by which rights are judged, and of which all that was seen is kept.
    pub(super) fn is_kept_whole(of: &ControlTopic) -> bool {
        match of {
            ControlTopic::Devices(_) | ControlTopic::Access(..) => true,
            ControlTopic::Keys => false,
        }
    }
}

//! Publishing again what this home wrote and the broker has lost.

use std::collections::{BTreeMap, BTreeSet};

use sealcast_bus::{Bus as _, BusError, Offset, Origin, Topic};

use crate::append::messages;
use crate::fault::Fault;
use crate::home::Home;
use crate::link::Link;
use crate::message::{Append, MessageId, Names, PartOf, is_live, topics_start};
use crate::past;

/// Arrivals that are looked up at once.
const ORIGINS: u32 = 256;
/// How old messages of data topics may be that are published again.
const AGAIN_WITHIN_MS: u64 = 10 * 60 * 1_000;

/// What the broker has shown to have retained.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    whole: BTreeSet<(Topic, MessageId)>,
    parts: BTreeMap<(Topic, MessageId), BTreeSet<u32>>,
}

impl Shown {
    pub(crate) fn note(&mut self, topic: &Topic, id: MessageId, part: Option<PartOf>) {
        let name = (topic.clone(), id);
        if let Some(part) = part {
            let parts = self.parts.entry(name.clone()).or_default();
            parts.insert(part.number);
            if parts.len() < part.count as usize {
                return;
            }
            self.parts.remove(&name);
        }
        self.whole.insert(name);
    }
}

/// Publishes what the broker has not shown of what this home wrote to logs that are retained, and again
/// what it wrote lately to others.
pub(crate) async fn put_back(
    home: &Home,
    names: &Names,
    link: &Link,
    scopes: &BTreeSet<String>,
    shown: &Shown,
) -> Result<(), PutBackFault> {
    for scope in scopes {
        for topic in home.mirror.topics(topics_start(scope)).await? {
            if crate::message::scope(&topic) == *scope {
                put_back_topic(home, names, link, &topic, shown).await?;
            }
        }
    }
    Ok(())
}

/// Why not all could be put back. The next survey finds out what is still missing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PutBackFault {
    #[error(transparent)]
    Broker(#[from] Fault),
    #[error(transparent)]
    Mirror(#[from] BusError),
}

async fn put_back_topic(
    home: &Home,
    names: &Names,
    link: &Link,
    topic: &Topic,
    shown: &Shown,
) -> Result<(), PutBackFault> {
    let is_live = is_live(topic);
    let since = past::now_ms().saturating_sub(AGAIN_WITHIN_MS);
    let mut at = Offset(0);
    if is_live {
        let end = home.mirror.bus().end(topic).await?;
        at = Offset(end.0.saturating_sub(past::PAGE));
    }
    loop {
        let origins = home.mirror.origins(topic, at, ORIGINS).await?;
        let Some(last) = origins.last() else {
            return Ok(());
        };
        at = last.behind;
        for origin in origins {
            let name = (topic.clone(), MessageId::from(origin.id));
            let is_due = match is_live {
                true => origin.time_ms >= since,
                false => !shown.whole.contains(&name),
            };
            if !origin.is_own || !is_due {
                continue;
            }
            let Some(append) = append_at(home, topic, &origin).await? else {
                continue;
            };
            let all = messages(names, link, (topic, name.1), append.encode(), 0).await?;
            for publish in all {
                link.publish(publish).await?;
            }
        }
    }
}

/// What an arrival held; nothing where some of it was trimmed.
pub(crate) async fn append_at(
    home: &Home,
    topic: &Topic,
    origin: &Origin,
) -> Result<Option<Append>, BusError> {
    let mut at = origin.first;
    let mut payloads = Vec::new();
    while at < origin.behind {
        let items = home.mirror.bus().read(topic, at, 1 << 20).await?;
        let items = items.into_iter().take_while(|of| of.offset < origin.behind);
        for item in items {
            if item.offset != at {
                return Ok(None);
            }
            at = Offset(at.0.saturating_add(1));
            payloads.push(item.payload);
        }
        if payloads.is_empty() {
            return Ok(None);
        }
    }
    let stamp = origin.stamp;
    Ok(Some(Append { stamp, payloads }))
}

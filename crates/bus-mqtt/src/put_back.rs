//! Publishing again what this home wrote and the broker has lost.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, RandomState};

use sealcast_bus::{Bus as _, BusError, Offset, Origin, Topic};

use crate::append::messages;
use crate::fault::Fault;
use crate::home::Home;
use crate::link::Link;
use crate::message::{Append, Names, is_live, topics_start};
use crate::packet::Publish;
use crate::past;

/// Arrivals that are looked up at once.
const ORIGINS: u32 = 256;
/// How old messages of data topics may be that are published again.
const AGAIN_WITHIN_MS: u64 = 10 * 60 * 1_000;

/// What the broker has shown to have retained: by topic of the broker, a digest of what lies there.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    digests: BTreeMap<String, u64>,
    /// Drawn anew each time, so that nobody finds what has the digest of something else.
    state: RandomState,
}

impl Shown {
    pub(crate) fn note(&mut self, publish: &Publish) {
        let digest = self.state.hash_one(&publish.payload);
        self.digests.insert(publish.topic.clone(), digest);
    }

    fn has(&self, publish: &Publish) -> bool {
        let digest = self.digests.get(&publish.topic);
        digest.is_some_and(|digest| *digest == self.state.hash_one(&publish.payload))
    }
}

/// The connections over which it is published: what is retained not over the one that feeds, to which a broker may
/// not show what came over it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Links<'a> {
    pub(crate) feeding: &'a Link,
    pub(crate) line: &'a Link,
}

/// Publishes what the broker has not shown of what this home wrote to logs that are retained, and again
/// what it wrote lately to others; `since`: not before that, in milliseconds since the Unix epoch.
pub(crate) async fn put_back(
    home: &Home,
    (names, links): (&Names, Links<'_>),
    scopes: &BTreeSet<String>,
    shown: &Shown,
    since: u64,
) -> Result<(), PutBackFault> {
    let since = since.max(past::now_ms().saturating_sub(AGAIN_WITHIN_MS));
    for scope in scopes {
        for topic in home.mirror.topics(topics_start(scope)).await? {
            if crate::message::scope(&topic) == *scope {
                put_back_topic(home, (names, links), &topic, shown, since).await?;
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
    (names, links): (&Names, Links<'_>),
    topic: &Topic,
    shown: &Shown,
    since: u64,
) -> Result<(), PutBackFault> {
    let is_live = is_live(topic);
    let link = match is_live {
        true => links.feeding,
        false => links.line,
    };
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
            if !origin.is_own || is_live && origin.time_ms < since {
                continue;
            }
            let Some(append) = append_at(home, topic, &origin).await? else {
                continue;
            };
            let of = (topic, origin.id.into());
            let all = messages(names, link, of, &append, 0).await?;
            for publish in all.into_iter().filter(|of| is_live || !shown.has(of)) {
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
        let from = at;
        let items = home.mirror.bus().read(topic, at, 1 << 20).await?;
        let items = items.into_iter().take_while(|of| of.offset < origin.behind);
        for item in items {
            if item.offset != at {
                return Ok(None);
            }
            at = Offset(at.0.saturating_add(1));
            payloads.push(item.payload.into());
        }
        // Somebody may trim it meanwhile.
        if at == from {
            return Ok(None);
        }
    }
    let stamp = origin.stamp;
    Ok(Some(Append { stamp, payloads }))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sealcast_bus::Arrival;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn what_is_trimmed_while_it_is_read_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path()).await.unwrap();
        let topic = Topic::new("s/1f/keys").unwrap();
        let arrival = Arrival {
            topic: topic.clone(),
            id: [7; 16],
            stamp: 0,
            payloads: vec![b"a".to_vec().into(), b"b".to_vec().into()],
            is_own: true,
            parts: 0,
        };
        home.mirror.take_in(vec![arrival]).await.unwrap();
        let whole = home.mirror.origins(&topic, Offset(0), 1).await.unwrap()[0];
        // Of which the last is gone by then.
        let longer = Origin {
            behind: Offset(3),
            ..whole
        };
        for (origin, is_there) in [(whole, true), (longer, false)] {
            let looking = append_at(&home, &topic, &origin);
            let found = timeout(Duration::from_secs(60), looking).await;
            let found = found.expect("it ends").unwrap();
            assert_eq!(found.is_some(), is_there);
        }
    }
}

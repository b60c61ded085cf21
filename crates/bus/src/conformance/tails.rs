use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{
    Failure, Outcome, Rig, ensure, followed, in_time, joined, numbered, same, same_payloads, take,
    topic,
};
use crate::{Bus, Offset, Tail, Topic};

/// Appends that are under way at once where there are many: more than an adapter begins with at once.
const AT_ONCE: usize = 250;

/// What a tail brought, by topic.
#[derive(Default)]
struct Seen(BTreeMap<Topic, (Offset, Vec<Vec<u8>>)>);

impl Seen {
    fn starting_at(positions: &[(Topic, Offset)]) -> Self {
        let start = |(topic, from): &(Topic, Offset)| (topic.clone(), (*from, Vec::new()));
        Self(positions.iter().map(start).collect())
    }

    fn count(&self) -> usize {
        self.0.values().map(|(_, payloads)| payloads.len()).sum()
    }

    /// Waits for one batch and checks that it goes on where the last one ended.
    async fn add_next(&mut self, tail: &mut dyn Tail) -> Outcome<Topic> {
        let batch = in_time(tail.next(), || format!("{} items", self.count())).await?;
        self.add(batch)
    }

    fn add(&mut self, (topic, items): (Topic, Vec<crate::Item>)) -> Outcome<Topic> {
        ensure(!items.is_empty(), || "an empty batch".into())?;
        let Some((next, payloads)) = self.0.get_mut(&topic) else {
            return Err(Failure(format!("a topic that is not followed: {topic}")));
        };
        *next = take(*next, items, payloads)?;
        Ok(topic)
    }

    fn payloads(&self, topic: &Topic) -> &[Vec<u8>] {
        self.0.get(topic).map_or(&[], |(_, payloads)| payloads)
    }
}

/// Follows one topic until `count` items came.
async fn follow(tail: &mut dyn Tail, seen: &mut Seen, count: usize) -> Outcome {
    while seen.count() < count {
        seen.add_next(tail).await?;
    }
    same("items", &seen.count(), &count)
}

pub(super) async fn before_append(rig: &Rig) -> Outcome {
    let topic = topic("a")?;
    let positions = vec![(topic.clone(), Offset(0))];
    let mut seen = Seen::starting_at(&positions);
    let mut tail = rig.bus.tail(positions);
    let (near, far) = (Arc::clone(&rig.bus), Arc::clone(&rig.other));
    let writing = topic.clone();
    let writing = async move {
        for number in 0..50 {
            let bus = if number % 2 == 0 { &near } else { &far };
            bus.append(&writing, numbered("item", number..number + 1))
                .await?;
        }
        Ok(())
    };
    followed(writing, follow(&mut *tail, &mut seen, 50)).await?;
    same_payloads("payloads", seen.payloads(&topic), &numbered("item", 0..50))?;
    // Whatever came twice would come before this one.
    rig.other.append(&topic, numbered("item", 50..51)).await?;
    follow(&mut *tail, &mut seen, 51).await?;
    same(
        "last",
        &seen.payloads(&topic).last(),
        &numbered("item", 50..51).first(),
    )
}

pub(super) async fn after_append(rig: &Rig) -> Outcome {
    let topic = topic("a")?;
    rig.bus.append(&topic, numbered("item", 0..3_000)).await?;
    for from in [0, 1_234, 2_999] {
        let positions = vec![(topic.clone(), Offset(from))];
        let mut seen = Seen::starting_at(&positions);
        let mut tail = rig.other.tail(positions);
        follow(&mut *tail, &mut seen, 3_000 - from as usize).await?;
        same_payloads(
            "payloads",
            seen.payloads(&topic),
            &numbered("item", from..3_000),
        )?;
    }
    // From beyond the end: what lies before is not brought.
    let positions = vec![(topic.clone(), Offset(3_002))];
    let mut seen = Seen::starting_at(&positions);
    let mut tail = rig.bus.tail(positions);
    rig.other
        .append(&topic, numbered("item", 3_000..3_005))
        .await?;
    follow(&mut *tail, &mut seen, 3).await?;
    same_payloads(
        "payloads",
        seen.payloads(&topic),
        &numbered("item", 3_002..3_005),
    )
}

pub(super) async fn several_topics(rig: &Rig) -> Outcome {
    let (a, b, other) = (topic("a")?, topic("b/c")?, topic("other")?);
    rig.bus.append(&a, numbered("a", 0..10)).await?;
    let positions = vec![(a.clone(), Offset(5)), (b.clone(), Offset(0))];
    let mut seen = Seen::starting_at(&positions);
    let mut tail = rig.bus.tail(positions);
    follow(&mut *tail, &mut seen, 5).await?;
    rig.bus.append(&other, numbered("other", 0..10)).await?;
    rig.other.append(&b, numbered("b", 0..7)).await?;
    rig.bus.append(&a, numbered("a", 10..12)).await?;
    follow(&mut *tail, &mut seen, 14).await?;
    same_payloads("of a", seen.payloads(&a), &numbered("a", 5..12))?;
    same_payloads("of b", seen.payloads(&b), &numbered("b", 0..7))
}

pub(super) async fn named_twice(rig: &Rig) -> Outcome {
    let topic = topic("a")?;
    rig.bus.append(&topic, numbered("item", 0..10)).await?;
    let lower = [(topic.clone(), Offset(3))];
    let mut seen = Seen::starting_at(&lower);
    let twice = [8, 3, 5].map(|from| (topic.clone(), Offset(from)));
    let mut tail = rig.bus.tail(twice.to_vec());
    follow(&mut *tail, &mut seen, 7).await?;
    rig.bus.append(&topic, numbered("item", 10..11)).await?;
    follow(&mut *tail, &mut seen, 8).await?;
    same_payloads("payloads", seen.payloads(&topic), &numbered("item", 3..11))
}

/// A topic that grows as fast as it is read must not hide the others.
pub(super) async fn in_turns(rig: &Rig) -> Outcome {
    let (busy, quiet) = (topic("a/busy")?, topic("b/quiet")?);
    let mut tail = rig
        .bus
        .tail(vec![(busy.clone(), Offset(0)), (quiet.clone(), Offset(0))]);
    rig.bus.append(&busy, numbered("busy", 0..10)).await?;
    rig.bus.append(&quiet, numbered("quiet", 0..1)).await?;
    for number in 0..20 {
        let (topic, _) = in_time(tail.next(), || format!("{number} batches")).await?;
        if topic == quiet {
            return Ok(());
        }
        rig.bus
            .append(&busy, numbered("busy", 10 + number..11 + number))
            .await?;
    }
    Err(Failure("a busy topic hid another for 20 batches".into()))
}

/// Futures dropped at any point lose nothing and repeat nothing.
pub(super) async fn cancelled(rig: &Rig) -> Outcome {
    const ITEMS: u64 = 200;
    let topic = topic("a")?;
    let positions = vec![(topic.clone(), Offset(0))];
    let mut seen = Seen::starting_at(&positions);
    let mut tail = rig.bus.tail(positions);
    for number in 0..ITEMS {
        rig.other
            .append(&topic, numbered("item", number..number + 1))
            .await?;
        let patience = Duration::from_micros(number * 17 % 1_500);
        if let Ok(batch) = tokio::time::timeout(patience, tail.next()).await {
            seen.add(batch?)?;
        }
    }
    // Makes a gap of what was lost.
    rig.other
        .append(&topic, numbered("item", ITEMS..ITEMS + 1))
        .await?;
    follow(&mut *tail, &mut seen, ITEMS as usize + 1).await?;
    let expected = numbered("item", 0..ITEMS + 1);
    same_payloads("payloads", seen.payloads(&topic), &expected)
}

pub(super) async fn thousand_topics(rig: &Rig) -> Outcome {
    let topics: Vec<Topic> = (0..1_000)
        .map(|number| topic(&format!("many/{number}")))
        .collect::<Outcome<_>>()?;
    let positions: Vec<_> = topics
        .iter()
        .cloned()
        .map(|topic| (topic, Offset(0)))
        .collect();
    let mut seen = Seen::starting_at(&positions);
    let mut tail = rig.other.tail(positions);
    let writing = append_to_each(Arc::clone(&rig.bus), topics.clone());
    followed(writing, follow(&mut *tail, &mut seen, 2_000)).await?;
    for topic in &topics {
        let expected = numbered(topic.as_ref(), 0..2);
        same_payloads("payloads", seen.payloads(topic), &expected)?;
    }
    Ok(())
}

async fn append_to_each(bus: Arc<dyn Bus>, topics: Vec<Topic>) -> Outcome {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut writers = JoinSet::new();
    for topic in topics {
        let (bus, turns) = (Arc::clone(&bus), Arc::clone(&turns));
        writers.spawn(async move {
            let _turn = turns.acquire().await;
            Ok(bus.append(&topic, numbered(topic.as_ref(), 0..2)).await?)
        });
    }
    joined(&mut writers, |first| same("offset", &first, &Offset(0))).await
}

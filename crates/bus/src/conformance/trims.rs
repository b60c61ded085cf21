use super::{Outcome, Rig, ensure, in_time, numbered, read_all, same, same_payloads, topic};
use crate::{Bus, Item, Offset, Topic};

async fn shows(bus: &dyn Bus, topic: &Topic, from: u64, until: u64) -> Outcome {
    let first = bus.read(topic, Offset(0), 1).await?;
    let first = first.first().map(|item| item.offset.0);
    same(
        "first that is left",
        &first,
        &(from < until).then_some(from),
    )?;
    same_payloads(
        "what is left",
        &read_all(bus, topic, from).await?,
        &numbered("item", from..until),
    )?;
    same("end", &bus.end(topic).await?, &Offset(until))
}

pub(super) async fn trimmed(rig: &Rig) -> Outcome {
    let topic = topic("a")?;
    rig.bus.append(&topic, numbered("item", 0..10)).await?;
    for (before, first) in [(0, 0), (1, 1), (4, 4), (4, 4), (2, 4), (0, 4), (9, 9)] {
        rig.other.trim(&topic, Offset(before)).await?;
        shows(&*rig.other, &topic, first, 10).await?;
        shows(&*rig.bus, &topic, first, 10).await?;
    }
    let inside = rig.bus.read(&topic, Offset(3), 1).await?;
    let inside: Vec<Offset> = inside.iter().map(|item| item.offset).collect();
    same("from an item that is gone", &inside, &vec![Offset(9)])?;
    let first = rig.bus.append(&topic, numbered("item", 10..12)).await?;
    same("next offset", &first, &Offset(10))?;
    shows(&*rig.other, &topic, 9, 12).await
}

/// No offset is used again, also when nothing is left to remember it by.
pub(super) async fn trimmed_whole(rig: &Rig) -> Outcome {
    let topic = topic("a")?;
    let mut end = 0;
    for beyond in [0, 1, 1 << 50, u64::MAX] {
        let batch = numbered("item", end..end + 3);
        same(
            "at the end",
            &rig.bus.append_at(&topic, Offset(end), batch).await?,
            &true,
        )?;
        shows(&*rig.other, &topic, end, end + 3).await?;
        end += 3;
        let before = Offset(end.saturating_add(beyond));
        rig.bus.trim(&topic, before).await?;
        shows(&*rig.other, &topic, end, end).await?;
    }
    Ok(())
}

pub(super) async fn trims_apart(rig: &Rig) -> Outcome {
    let trimmed = topic("a")?;
    rig.bus.trim(&trimmed, Offset(5)).await?;
    shows(&*rig.bus, &trimmed, 0, 0).await?;
    let names = ["A", "a/b", "ab", "a-", "0", "b"];
    for name in names {
        rig.bus
            .append(&topic(name)?, numbered("item", 0..3))
            .await?;
        rig.bus.append(&trimmed, numbered("item", 0..1)).await?;
    }
    rig.bus.trim(&trimmed, Offset(u64::MAX)).await?;
    for name in names {
        shows(&*rig.other, &topic(name)?, 0, 3).await?;
    }
    Ok(())
}

/// A tail that begins after a trim begins with what is left; one that began before it goes on there,
/// behind what it may have had already.
pub(super) async fn under_a_tail(rig: &Rig) -> Outcome {
    let topic = topic("a")?;
    let mut early = rig.other.tail(vec![(topic.clone(), Offset(0))]);
    let (mut end, mut next) = (0, 0);
    for (count, trimmed) in [(6, 3), (6, 6), (6, 0), (6, 5)] {
        let before = end + trimmed;
        rig.bus
            .append(&topic, numbered("item", end..end + count))
            .await?;
        rig.bus.trim(&topic, Offset(before)).await?;
        end += count + 1;
        let last = numbered("item", end - 1..end);
        rig.bus.append(&topic, last).await?;
        while next < end {
            let (_, items) = in_time(early.next(), || format!("{next} items")).await?;
            for Item { offset, payload } in items {
                ensure(
                    offset.0 == next || (next..=before).contains(&offset.0),
                    || format!("{offset} came after {next}, trimmed before {before}"),
                )?;
                next = offset.0 + 1;
                same_payloads("item", &[payload], &numbered("item", offset.0..next))?;
            }
        }
        let mut late = rig.other.tail(vec![(topic.clone(), Offset(0))]);
        let (_, items) = in_time(late.next(), || "nothing".into()).await?;
        let first = items.first().map(|item| item.offset);
        same("first of a new tail", &first, &Some(Offset(before)))?;
    }
    Ok(())
}

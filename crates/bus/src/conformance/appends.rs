use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::{
    Failure, Outcome, Rig, ensure, joined, numbered, read_all, same, same_payloads, topic,
};
use crate::{Bus, BusError, Offset, Topic};

pub(super) async fn unknown_topic(rig: &Rig) -> Outcome {
    let topic = topic("never/written")?;
    same("end", &rig.bus.end(&topic).await?, &Offset(0))?;
    for from in [0, 1, 1 << 50, u64::MAX] {
        let items = rig.bus.read(&topic, Offset(from), 1 << 20).await?;
        same("items", &items, &vec![])?;
    }
    Ok(())
}

pub(super) async fn order_and_offsets(rig: &Rig) -> Outcome {
    let topic = topic("a")?;
    let mut written = 0;
    for count in [1, 3, 1, 500, 2] {
        let batch = numbered("item", written..written + count);
        let first = rig.bus.append(&topic, batch).await?;
        same("offset of the first", &first, &Offset(written))?;
        written += count;
        same("end", &rig.bus.end(&topic).await?, &Offset(written))?;
    }
    let found = read_all(&*rig.bus, &topic, 0).await?;
    same_payloads("payloads", &found, &numbered("item", 0..written))?;
    let found = read_all(&*rig.bus, &topic, 400).await?;
    same_payloads("from the middle", &found, &numbered("item", 400..written))
}

pub(super) async fn append_of_nothing(rig: &Rig) -> Outcome {
    let topic = topic("a")?;
    same(
        "on an empty topic",
        &rig.bus.append(&topic, vec![]).await?,
        &Offset(0),
    )?;
    rig.bus.append(&topic, numbered("item", 0..3)).await?;
    same("offset", &rig.bus.append(&topic, vec![]).await?, &Offset(3))?;
    same("end", &rig.bus.end(&topic).await?, &Offset(3))
}

pub(super) async fn any_bytes(rig: &Rig) -> Outcome {
    let topic = topic("a")?;
    let payloads: Vec<Vec<u8>> = vec![
        vec![],
        (0..=u8::MAX).collect(),
        vec![0; 70_000],
        vec![],
        b"\0\r\n\"'\\ \xff\xfe".to_vec(),
        vec![],
    ];
    rig.bus.append(&topic, payloads.clone()).await?;
    same_payloads(
        "payloads",
        &read_all(&*rig.bus, &topic, 0).await?,
        &payloads,
    )
}

pub(super) async fn payload_limit(rig: &Rig) -> Outcome {
    let topic = topic("a")?;
    let limit = rig.bus.limits().payload_max;
    let mut payload: Vec<u8> = (0..=250).cycle().take(limit).collect();
    rig.bus.append(&topic, vec![payload.clone()]).await?;
    let items = rig.bus.read(&topic, Offset(0), 1).await?;
    let came_back = matches!(items.as_slice(), [item] if item.payload == payload);
    ensure(came_back, || {
        "a payload at the limit did not come back".into()
    })?;
    payload.push(0);
    too_large(
        rig.bus.append(&topic, vec![payload]).await,
        limit + 1,
        limit,
    )?;
    same("end", &rig.bus.end(&topic).await?, &Offset(1))
}

pub(super) async fn batch_limit(rig: &Rig) -> Outcome {
    let topic = topic("a")?;
    let limits = rig.bus.limits();
    let whole = limits.batch_max / limits.payload_max;
    let mut batch = vec![vec![1; limits.payload_max]; whole];
    batch.push(vec![2; limits.batch_max % limits.payload_max]);
    rig.bus.append(&topic, batch.clone()).await?;
    let end = Offset(batch.len() as u64);
    same("end", &rig.bus.end(&topic).await?, &end)?;
    batch.push(vec![3]);
    let (size, limit) = (limits.batch_max + 1, limits.batch_max);
    too_large(rig.bus.append(&topic, batch).await, size, limit)?;
    same("end", &rig.bus.end(&topic).await?, &end)
}

fn too_large(outcome: Result<Offset, BusError>, size: usize, limit: usize) -> Outcome {
    match outcome {
        Err(BusError::TooLarge { size: s, limit: l }) => {
            same("size and limit of the error", &(s, l), &(size, limit))
        }
        other => Err(Failure(format!("expected TooLarge, found {other:?}"))),
    }
}

pub(super) async fn all_or_nothing(rig: &Rig) -> Outcome {
    let topic = topic("a")?;
    rig.bus.append(&topic, numbered("item", 0..2)).await?;
    let too_much = rig.bus.limits().payload_max + 1_000;
    let batch = vec![vec![1], vec![2; too_much], vec![3]];
    let refused = rig.bus.append(&topic, batch).await;
    ensure(matches!(refused, Err(BusError::TooLarge { .. })), || {
        format!("expected TooLarge, found {refused:?}")
    })?;
    same("end", &rig.bus.end(&topic).await?, &Offset(2))?;
    let first = rig.bus.append(&topic, numbered("item", 2..3)).await?;
    same("next offset", &first, &Offset(2))?;
    same_payloads(
        "payloads",
        &read_all(&*rig.bus, &topic, 0).await?,
        &numbered("item", 0..3),
    )
}

pub(super) async fn topics_apart(rig: &Rig) -> Outcome {
    let longest = "x".repeat(Topic::BYTES_MAX);
    let names = [
        "a", "A", "a/b", "a.b", "a_b", "a-b", "a~b", "ab", "a/b/c", ".", "..", "~", "-", "_", "0",
        "00", &longest,
    ];
    for (count, name) in (1..).zip(names) {
        let first = rig
            .bus
            .append(&topic(name)?, numbered(name, 0..count))
            .await?;
        same(name, &first, &Offset(0))?;
    }
    for (count, name) in (1..).zip(names) {
        let topic = topic(name)?;
        same(name, &rig.bus.end(&topic).await?, &Offset(count))?;
        same_payloads(
            name,
            &read_all(&*rig.bus, &topic, 0).await?,
            &numbered(name, 0..count),
        )?;
    }
    Ok(())
}

pub(super) async fn read_bounds(rig: &Rig) -> Outcome {
    let topic = topic("a")?;
    let payloads: Vec<Vec<u8>> = (0..10).map(|number| vec![number; 100]).collect();
    rig.bus.append(&topic, payloads).await?;
    for (from, bytes_max, most) in [
        (0, 0, 1),
        (0, 1, 1),
        (0, 100, 1),
        (0, 199, 1),
        (0, 200, 2),
        (3, 350, 3),
        (0, usize::MAX, 10),
        (8, 1_000, 2),
    ] {
        let items = rig.bus.read(&topic, Offset(from), bytes_max).await?;
        let right = (1..=most).contains(&items.len());
        ensure(right, || {
            format!("from {from}, {bytes_max} bytes: {} items", items.len())
        })?;
        let first = items.first().map(|item| item.offset);
        same("first offset", &first, &Some(Offset(from)))?;
    }
    for from in [10, 11, 1 << 50, u64::MAX] {
        let items = rig.bus.read(&topic, Offset(from), 1_000).await?;
        same("beyond the end", &items, &vec![])?;
    }
    Ok(())
}

pub(super) async fn two_handles(rig: &Rig) -> Outcome {
    let topic = topic("a")?;
    for number in 0..20 {
        let (writer, reader) = match number % 2 {
            0 => (&rig.bus, &rig.other),
            _ => (&rig.other, &rig.bus),
        };
        let first = writer
            .append(&topic, numbered("item", number..number + 1))
            .await?;
        same("offset", &first, &Offset(number))?;
        same("end", &reader.end(&topic).await?, &Offset(number + 1))?;
        let found = read_all(&**reader, &topic, 0).await?;
        same_payloads("payloads", &found, &numbered("item", 0..number + 1))?;
    }
    Ok(())
}

pub(super) async fn at_the_end(rig: &Rig) -> Outcome {
    let topic = topic("a")?;
    let at = async |end, number| {
        let payloads = numbered("item", number..number + 1);
        rig.bus.append_at(&topic, Offset(end), payloads).await
    };
    same("below nothing", &at(1, 9).await?, &false)?;
    same("on an empty topic", &at(0, 0).await?, &true)?;
    rig.other.append(&topic, numbered("item", 1..3)).await?;
    for elsewhere in [0, 1, 2, 4, 1 << 50] {
        same("elsewhere", &at(elsewhere, 9).await?, &false)?;
    }
    same("at the end", &at(3, 3).await?, &true)?;
    let too_much = vec![vec![0; rig.bus.limits().payload_max + 1]];
    let refused = rig.bus.append_at(&topic, Offset(4), too_much).await;
    ensure(matches!(refused, Err(BusError::TooLarge { .. })), || {
        format!("expected TooLarge, found {refused:?}")
    })?;
    same_payloads(
        "payloads",
        &read_all(&*rig.other, &topic, 0).await?,
        &numbered("item", 0..4),
    )
}

/// Each writer appends batches of 1 to 5 and remembers where they went.
pub(super) async fn concurrent_appends(rig: &Rig) -> Outcome {
    const WRITERS: u64 = 6;
    const BATCHES: u64 = 30;
    let topic = topic("a")?;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let bus = Arc::clone(if writer % 2 == 0 {
            &rig.bus
        } else {
            &rig.other
        });
        writers.spawn(append_batches(bus, topic.clone(), writer, BATCHES));
    }
    let mut expected = BTreeMap::new();
    joined(&mut writers, |batches| {
        let offsets: Vec<u64> = batches.iter().map(|(first, _)| *first).collect();
        ensure(offsets.is_sorted(), || {
            "a writer's appends changed order".into()
        })?;
        for (first, payloads) in batches {
            let placed = (first..).zip(payloads);
            let before = expected.len() + placed.size_hint().0;
            expected.extend(placed);
            same(
                "items with an offset of their own",
                &expected.len(),
                &before,
            )?;
        }
        Ok(())
    })
    .await?;
    let found: BTreeMap<u64, Vec<u8>> = (0..).zip(read_all(&*rig.bus, &topic, 0).await?).collect();
    same("items", &found, &expected)
}

type Placed = (u64, Vec<Vec<u8>>);

async fn append_batches(
    bus: Arc<dyn Bus>,
    topic: Topic,
    writer: u64,
    batches: u64,
) -> Outcome<Vec<Placed>> {
    let mut placed = Vec::new();
    for batch in 0..batches {
        let payloads = numbered(&format!("writer {writer} batch {batch}"), 0..1 + batch % 5);
        let first = bus.append(&topic, payloads.clone()).await?;
        placed.push((first.0, payloads));
    }
    Ok(placed)
}

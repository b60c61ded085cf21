//! Reading past what a damaged bus cannot show.

use sealcast_bus::{Bus, BusError, Item, Offset, Topic};

use crate::core::READ_BYTES;
use crate::error::Error;

/// Items behind one that cannot be read that are looked at one by one.
const LOOKED_AT_EACH: u64 = 64;

/// The next items that can be read before an end, whatever is damaged in front of them; none at the
/// end.
pub(crate) async fn read_past(
    bus: &dyn Bus,
    topic: &Topic,
    mut from: Offset,
    end: Offset,
) -> Result<Vec<Item>, Error> {
    while from < end {
        match bus.read(topic, from, READ_BYTES).await {
            Err(BusError::Damaged { .. }) => from = behind_damage(bus, topic, from, end).await?,
            read => return Ok(read?),
        }
    }
    Ok(Vec::new())
}

/// The next item that can be read behind one that cannot, or the end. Looks at each of the first few,
/// and then in steps that double, so that a large stretch costs few reads.
pub(crate) async fn behind_damage(
    bus: &dyn Bus,
    topic: &Topic,
    first: Offset,
    end: Offset,
) -> Result<Offset, Error> {
    let (mut bad, mut step) = (first.0, 1);
    let mut good = loop {
        let next = bad.saturating_add(step).min(end.0);
        if next >= end.0 || is_readable(bus, topic, next).await? {
            break next;
        }
        step = match next - first.0 < LOOKED_AT_EACH {
            true => 1,
            false => step.saturating_mul(2),
        };
        bad = next;
    };
    while good.saturating_sub(bad) > 1 {
        let middle = bad + (good - bad) / 2;
        match is_readable(bus, topic, middle).await? {
            true => good = middle,
            false => bad = middle,
        }
    }
    Ok(Offset(good))
}

async fn is_readable(bus: &dyn Bus, topic: &Topic, at: u64) -> Result<bool, Error> {
    match bus.read(topic, Offset(at), 1).await {
        Ok(_) => Ok(true),
        Err(BusError::Damaged { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

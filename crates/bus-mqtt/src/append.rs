//! Appending to a log and trimming it, on the broker and in the mirror.

use std::sync::Arc;

use bytes::Bytes;
use sealcast_bus::{Arrival, Bus as _, BusError, Offset, Topic, Turn};

use crate::fault::Fault;
use crate::home::Home;
use crate::line::Line;
use crate::link::{Link, empty};
use crate::message::{Append, MessageId, Names, PACKED_MAX, PART_MAX, PartOf, is_live};
use crate::packet::Publish;
use crate::sending::{self, Leaving};
use crate::users;

/// Arrivals that are looked up at once.
const ORIGINS: u32 = 256;

/// Has the broker take an append, and then puts it in the mirror, unless it has come back by then. With a turn, the
/// next one leaves when the broker has this one, and is put in the mirror behind it.
pub(crate) async fn append(
    home: &Arc<Home>,
    line: &Arc<Line>,
    topic: Topic,
    payloads: Vec<Bytes>,
    turn: Option<Turn>,
) -> Result<Offset, BusError> {
    let packed = Append::packed_len(&payloads);
    if packed > PACKED_MAX {
        return Err(BusError::TooLarge {
            size: packed,
            limit: PACKED_MAX,
        });
    }
    if turn.as_ref().is_some_and(Turn::has_failed) {
        return Err(BusError::OutOfTurn);
    }
    if is_live(&topic) && users::has_any(&line.names, &payloads) {
        return users::append(home, line, topic, payloads, turn).await;
    }
    let stamp = match is_live(&topic) {
        true => 0,
        false => home.mirror.next_stamp(&topic).await?,
    };
    let append = Append { stamp, payloads };
    let id = line.next_id();
    let all = messages(&line.names, &line.link, (&topic, id), &append, 0).await;
    let all = all.map_err(|fault| line.fault(fault))?;
    let is_live = is_live(&topic);
    let arrival = Arrival {
        topic,
        id: id.into(),
        stamp,
        payloads: append.payloads,
        is_own: true,
        parts: parts_of(all.len()),
    };
    let leaving = Leaving {
        all,
        arrivals: Arc::new([arrival]),
        turn,
    };
    match is_live {
        true => sending::leave(home, line, leaving).await,
        false => store(home, line, leaving).await,
    }
}

/// Has the broker retain what belongs to a log that it keeps, and then puts it in the mirror.
async fn store(home: &Home, line: &Line, leaving: Leaving) -> Result<Offset, BusError> {
    let Leaving {
        all,
        arrivals,
        mut turn,
    } = leaving;
    if let Some(turn) = &mut turn {
        turn.come().await?;
    }
    let published = line.link.publish_all(all).await;
    published.map_err(|fault| line.fault(fault))?;
    let offsets = match home.mirror.take_in(arrivals).await {
        // The broker has it, so that it may come all the same.
        Err(BusError::Full { .. } | BusError::Busy { .. }) => return Err(line.fault(Fault::Late)),
        taken_in => taken_in?,
    };
    if let Some(turn) = turn {
        turn.stored();
    }
    Ok(offsets.first().copied().unwrap_or_default())
}

/// In how many parts something travels that takes so many messages.
pub(crate) fn parts_of(messages: usize) -> u32 {
    match messages {
        0 | 1 => 0,
        parts => u32::try_from(parts).unwrap_or(u32::MAX),
    }
}

/// The messages that an append travels in: one, or parts where the broker takes no more at once.
/// Before each, so many bytes are to have room.
pub(crate) async fn messages(
    names: &Names,
    link: &Link,
    (topic, id): (&Topic, MessageId),
    append: &Append,
    before: usize,
) -> Result<Vec<Publish>, Fault> {
    let is_retained = !is_live(topic);
    let longest = names.part(
        topic,
        id,
        PartOf {
            number: u32::MAX,
            count: u32::MAX,
        },
    );
    let room = link.payload_max(&longest).await?.min(PART_MAX);
    let pieces = append.encode(room.saturating_sub(before));
    let count = u32::try_from(pieces.len()).unwrap_or(u32::MAX);
    let message = |(number, payload)| Publish {
        topic: match count {
            1 => names.log(topic, id),
            _ => names.part(topic, id, PartOf { number, count }),
        },
        payload,
        is_retained,
    };
    Ok((0..).zip(pieces).map(message).collect())
}

/// Clears what the broker has retained of items that are to go, and then removes them from the mirror.
pub(crate) async fn trim(
    home: &Home,
    line: &Line,
    topic: Topic,
    before: Offset,
) -> Result<(), BusError> {
    let mirror = home.mirror.bus();
    if !is_live(&topic) {
        let mut at = home.first_of(&topic).await?;
        'topic: loop {
            let origins = home.mirror.origins(&topic, at, ORIGINS).await?;
            for origin in &origins {
                if origin.behind > before {
                    break 'topic;
                }
                at = origin.behind;
                let names = line.names.all(&topic, origin.id.into(), origin.parts);
                let empty = names.map(|name| empty(name, true)).collect();
                let cleared = line.link.publish_all(empty).await;
                cleared.map_err(|fault| line.fault(fault))?;
            }
            if origins.is_empty() {
                break;
            }
        }
    }
    mirror.trim(&topic, before).await
}

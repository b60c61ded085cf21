use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{
    Failure, Outcome, Rig, ensure, followed, in_time, joined, numbered, read_all, same,
    same_payloads, take, topic,
};
use crate::{Bus, BusError, Limits, Listener, Offset, Topic};

async fn send_all(bus: &dyn Bus, topic: &Topic, payloads: &[Vec<u8>]) -> Outcome {
    for payload in payloads {
        bus.send(topic, payload.clone()).await?;
    }
    Ok(())
}

/// Checks that what is heard next are `payloads`, on `topic`.
async fn hears(listener: &mut dyn Listener, topic: &Topic, payloads: &[Vec<u8>]) -> Outcome {
    let mut heard = Vec::new();
    for _ in payloads {
        let (on, payload) = next(listener, heard.len()).await?;
        heard.push(payload);
        same_payloads("heard", &heard, payloads.get(..heard.len()).unwrap_or(&[]))?;
        same("topic", &on, topic)?;
    }
    Ok(())
}

async fn next(listener: &mut dyn Listener, heard: usize) -> Outcome<(Topic, Vec<u8>)> {
    in_time(listener.next(), || format!("{heard} payloads")).await
}

/// Whoever listens hears, on both handles, byte for byte.
pub(super) async fn heard(rig: &Rig) -> Outcome {
    let topic = topic("a/b")?;
    let mut near = rig.bus.listen(vec![topic.clone()]).await?;
    let mut far = rig.other.listen(vec![topic.clone()]).await?;
    let payloads = [
        vec![],
        (0..=u8::MAX).collect(),
        vec![0; Limits::SENT_MAX],
        b"\0\r\n\"'\\ \xff\xfe".to_vec(),
        vec![],
    ];
    send_all(&*rig.bus, &topic, &payloads).await?;
    hears(&mut *near, &topic, &payloads).await?;
    hears(&mut *far, &topic, &payloads).await?;
    // Whatever came twice would come before this one.
    let last = numbered("last", 0..1);
    send_all(&*rig.other, &topic, &last).await?;
    hears(&mut *near, &topic, &last).await?;
    hears(&mut *far, &topic, &last).await
}

/// What was sent before is not heard, whoever heard it then.
pub(super) async fn without_history(rig: &Rig) -> Outcome {
    let topic = topic("a")?;
    send_all(&*rig.bus, &topic, &numbered("unheard", 0..20)).await?;
    for round in 0..5 {
        let mut listener = rig.other.listen(vec![topic.clone()]).await?;
        let payloads = numbered("round", round..round + 1);
        send_all(&*rig.bus, &topic, &payloads).await?;
        hears(&mut *listener, &topic, &payloads).await?;
        send_all(&*rig.bus, &topic, &numbered("unheard", 0..20)).await?;
    }
    Ok(())
}

/// A log and an ephemeral topic of one name are two.
pub(super) async fn kinds_apart(rig: &Rig) -> Outcome {
    let topic = topic("a")?;
    let mut tail = rig.bus.tail(vec![(topic.clone(), Offset(0))]);
    let mut listener = rig.bus.listen(vec![topic.clone()]).await?;
    send_all(&*rig.bus, &topic, &numbered("sent", 0..3)).await?;
    same("end", &rig.other.end(&topic).await?, &Offset(0))?;
    rig.other.append(&topic, numbered("item", 0..3)).await?;
    send_all(&*rig.bus, &topic, &numbered("sent", 3..4)).await?;
    hears(&mut *listener, &topic, &numbered("sent", 0..4)).await?;
    let (mut next, mut payloads) = (Offset(0), Vec::new());
    while next < Offset(3) {
        let (_, items) = in_time(tail.next(), || format!("{next} items")).await?;
        next = take(next, items, &mut payloads)?;
    }
    same_payloads("of the tail", &payloads, &numbered("item", 0..3))?;
    rig.bus.trim(&topic, Offset(3)).await?;
    send_all(&*rig.bus, &topic, &numbered("sent", 4..5)).await?;
    hears(&mut *listener, &topic, &numbered("sent", 4..5)).await?;
    same_payloads("log", &read_all(&*rig.bus, &topic, 3).await?, &[])
}

/// Only what was listened to is heard, and once, however often a topic is named.
pub(super) async fn several_topics(rig: &Rig) -> Outcome {
    let last = topic("last")?;
    let names = ["a", "A", "a/b", "ab", ".", "a/b/c", "a"];
    for listened in [&["a"][..], &["a/b", "A", "a/b"], &["ab", "a/b/c", "."]] {
        let topics = listened.iter().copied().map(topic);
        let mut topics: Vec<Topic> = topics.collect::<Outcome<_>>()?;
        topics.push(last.clone());
        let mut listener = rig.other.listen(topics).await?;
        let mut expected = Vec::new();
        for name in names {
            let payload = name.as_bytes().to_vec();
            rig.bus.send(&topic(name)?, payload.clone()).await?;
            if listened.contains(&name) {
                expected.push((topic(name)?, payload));
            }
        }
        let mut heard = Vec::new();
        for number in 0..expected.len() {
            heard.push(next(&mut *listener, number).await?);
        }
        // There is no order between topics.
        heard.sort();
        expected.sort();
        same("heard", &heard, &expected)?;
        send_all(&*rig.bus, &last, &numbered("last", 0..1)).await?;
        hears(&mut *listener, &last, &numbered("last", 0..1)).await?;
    }
    Ok(())
}

/// Each sender is heard in its order, by everyone, and each payload once.
pub(super) async fn order_of_senders(rig: &Rig) -> Outcome {
    const SENDERS: u64 = 4;
    const EACH: u64 = 40;
    let topic = topic("a")?;
    let mut listeners = Vec::new();
    for bus in [&rig.bus, &rig.other, &rig.other] {
        listeners.push(bus.listen(vec![topic.clone()]).await?);
    }
    let (near, far) = (Arc::clone(&rig.bus), Arc::clone(&rig.other));
    let sending = async move {
        let mut senders = JoinSet::new();
        for sender in 0..SENDERS {
            let bus = Arc::clone(if sender % 2 == 0 { &near } else { &far });
            let payloads = numbered(&format!("{sender}:"), 0..EACH);
            let topic = topic.clone();
            senders.spawn(async move { send_all(&*bus, &topic, &payloads).await });
        }
        joined(&mut senders, Ok).await
    };
    followed(sending, async {
        for listener in &mut listeners {
            hears_each(&mut **listener, SENDERS, EACH).await?;
        }
        Ok(())
    })
    .await
}

/// Checks that so many from each of some senders are heard, those of each in their order.
async fn hears_each(listener: &mut dyn Listener, senders: u64, each: u64) -> Outcome {
    let mut heard: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
    for number in 0..senders * each {
        let (_, payload) = next(listener, number as usize).await?;
        let sender = payload.split(|byte| *byte == b':').next().unwrap_or(&[]);
        heard.entry(sender.to_vec()).or_default().push(payload);
    }
    for sender in 0..senders {
        let of = heard.remove(sender.to_string().as_bytes());
        let expected = numbered(&format!("{sender}:"), 0..each);
        same_payloads("of a sender", &of.unwrap_or_default(), &expected)?;
    }
    Ok(())
}

/// As many payloads as any bus keeps wait for a listener that is late.
pub(super) async fn late(rig: &Rig) -> Outcome {
    let topic = topic("a")?;
    let mut listener = rig.other.listen(vec![topic.clone()]).await?;
    let payloads = numbered("sent", 0..Limits::SENT_WAITING_MIN as u64);
    send_all(&*rig.bus, &topic, &payloads).await?;
    hears(&mut *listener, &topic, &payloads).await
}

/// Futures dropped at any point lose nothing and repeat nothing.
pub(super) async fn cancelled(rig: &Rig) -> Outcome {
    const SENT: u64 = 200;
    let topic = topic("a")?;
    let mut listener = rig.bus.listen(vec![topic.clone()]).await?;
    let mut heard = Vec::new();
    for number in 0..SENT {
        send_all(&*rig.other, &topic, &numbered("sent", number..number + 1)).await?;
        let patience = Duration::from_micros(number * 17 % 1_500);
        if let Ok(one) = timeout(patience, listener.next()).await {
            heard.push(one?.1);
        }
    }
    // Comes after all the others.
    rig.other.send(&topic, b"last".to_vec()).await?;
    let mut one = next(&mut *listener, heard.len()).await?.1;
    while one != b"last" {
        heard.push(one);
        one = next(&mut *listener, heard.len()).await?.1;
    }
    same_payloads("heard", &heard, &numbered("sent", 0..SENT))
}

/// One loop waits for logs and ephemeral topics at once, and neither hides the other.
pub(super) async fn beside_a_tail(rig: &Rig) -> Outcome {
    const EACH: u64 = 60;
    let (log, ask) = (topic("a/log")?, topic("a/ask")?);
    let mut tail = rig.bus.tail(vec![(log.clone(), Offset(0))]);
    let mut listener = rig.bus.listen(vec![ask.clone()]).await?;
    let other = Arc::clone(&rig.other);
    let writing = async move {
        for number in 0..EACH {
            other
                .append(&log, numbered("item", number..number + 1))
                .await?;
            send_all(&*other, &ask, &numbered("sent", number..number + 1)).await?;
        }
        Ok(())
    };
    let (mut next, mut items, mut heard) = (Offset(0), Vec::new(), Vec::new());
    followed(writing, async {
        while next < Offset(EACH) || heard.len() < EACH as usize {
            let coming = async {
                tokio::select! {
                    batch = tail.next() => Ok((batch?.1, None)),
                    one = listener.next() => Ok((vec![], Some(one?.1))),
                }
            };
            let has_come = || format!("{} items and {} payloads", items.len(), heard.len());
            let (batch, one) = in_time(coming, has_come).await?;
            next = take(next, batch, &mut items)?;
            heard.extend(one);
        }
        Ok(())
    })
    .await?;
    same_payloads("items", &items, &numbered("item", 0..EACH))?;
    same_payloads("heard", &heard, &numbered("sent", 0..EACH))
}

/// Nobody needs to listen, and who no longer does is in nobody's way.
pub(super) async fn nobody(rig: &Rig) -> Outcome {
    let topic = topic("never/heard")?;
    send_all(&*rig.bus, &topic, &numbered("sent", 0..3)).await?;
    let mut left = rig.bus.listen(vec![topic.clone()]).await?;
    let next = timeout(Duration::from_millis(1), left.next()).await;
    ensure(next.is_err(), || format!("heard {next:?}"))?;
    drop(left);
    let many = 2 * Limits::SENT_WAITING_MIN as u64;
    let unheard = rig.other.listen(vec![topic.clone()]).await?;
    send_all(&*rig.bus, &topic, &numbered("sent", 0..many)).await?;
    drop(unheard);
    let nothing = rig.bus.listen(vec![]).await;
    ensure(nothing.is_ok(), || format!("no topics: {nothing:?}"))
}

pub(super) async fn sent_limit(rig: &Rig) -> Outcome {
    let topic = topic("a")?;
    let mut listener = rig.other.listen(vec![topic.clone()]).await?;
    let (size, limit) = (Limits::SENT_MAX + 1, Limits::SENT_MAX);
    match rig.bus.send(&topic, vec![1; size]).await {
        Err(BusError::TooLarge { size: s, limit: l }) => {
            same("size and limit of the error", &(s, l), &(size, limit))?;
        }
        other => return Err(Failure(format!("expected TooLarge, found {other:?}"))),
    }
    let payloads = [vec![2; limit]];
    send_all(&*rig.bus, &topic, &payloads).await?;
    hears(&mut *listener, &topic, &payloads).await
}

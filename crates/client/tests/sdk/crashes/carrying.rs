//! A home that dies while it seals what it carries itself.

use sealcast::DataTopic;
use sealcast_protocol::EnvelopeView;

use super::*;
use crate::carried::{Brought, in_the_end};

type HandedOut = Vec<Brought>;

async fn seal_until_death(rig: &Rig, life: &Life, out: &mut HandedOut) -> Result<(), Error> {
    let path = rig.path("alice");
    let alice = Home::danger_open_on(&path, None, life.ground()).await?;
    let stream = alice.stream(&name("kitchen")).await?;
    seal_some(&stream, out).await?;
    stream.rekey().await?;
    seal_some(&stream, out).await
}

/// One, then several on two topics.
async fn seal_some(stream: &Stream, out: &mut HandedOut) -> Result<(), Error> {
    let topics = ["plant/1", "plant/2"].map(|of| Some(of.parse::<DataTopic>().unwrap()));
    let [one, two] = &topics;
    let sealed = stream.seal(one.as_ref(), b"single").await?;
    out.push((one.clone(), sealed.envelope));
    let all = [one, one, two, &None];
    let several = all.map(|of| (of.as_ref(), &b"several"[..]));
    let sealed = stream.seal_all(&several).await?;
    let envelopes = sealed.into_iter().map(|of| of.envelope);
    out.extend(all.into_iter().cloned().zip(envelopes));
    Ok(())
}

/// Returns whether the step was reached.
async fn seals_and_dies_at(last: usize) -> bool {
    let rig = Rig::small();
    let [alice, bob] = rig.homes(["alice", "bob"]).await;
    let (stream, joined) = kitchen_with(&alice, &bob).await;
    drop((stream, alice));
    let life = Life {
        steps: Arc::default(),
        last,
        does_last: last.is_multiple_of(2),
        goes_on: false,
        sent: Arc::default(),
    };
    let mut out = Vec::new();
    let died = seal_until_death(&rig, &life, &mut out).await.is_err();
    let is_reached = life.steps.load(Ordering::SeqCst) > last;
    let stream = open(&rig.again("alice").await).await;
    seal_some(&stream, &mut out).await.unwrap();

    let mut sent = Sent::default();
    out.iter().for_each(|(_, of)| sent.add("carried", of));
    assert!(sent.reused().is_empty(), "{last}: {:?}", sent.reused());
    assert_eq!(sent.count(), out.len(), "{last}");
    let parsed = out
        .iter()
        .map(|(_, of)| *EnvelopeView::parse(of).unwrap().header());
    let headers: Vec<_> = parsed.collect();
    assert!(headers.is_sorted_by_key(|of| of.position), "{last}");
    let numbers: BTreeSet<_> = headers.iter().map(|of| (of.instance, of.seq)).collect();
    assert_eq!(numbers.len(), out.len(), "{last}");
    // Whatever was handed out has its session on the bus, and nothing of it is a fork.
    let mut opener = joined.opener().await.unwrap();
    for brought in &out {
        let told = in_the_end(&mut opener, brought).await;
        assert!(
            told == ["single"] || told == ["several"],
            "{last}: {told:?}"
        );
    }
    is_reached && died
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_that_dies_while_it_seals_for_a_carrier_uses_no_key_and_no_position_again() {
    let mut last = 0;
    while seals_and_dies_at(last).await {
        last += 1;
    }
    assert!(last > 20, "{last}");
}

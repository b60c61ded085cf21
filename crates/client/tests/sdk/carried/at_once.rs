//! Envelopes that come at once are opened at once, and as if one after another.

use super::*;

/// Each of some envelopes, handed in together until all are told.
async fn all_at_once(opener: &mut Opener, all: &[(Brought, Arrival)]) -> Vec<Carried> {
    let of = |((topic, envelope), arrival): &'_ (Brought, Arrival)| {
        (topic.clone(), envelope.clone(), *arrival)
    };
    let all: Vec<_> = all.iter().map(of).collect();
    let all: Vec<_> = all
        .iter()
        .map(|(topic, envelope, arrival)| (topic.as_ref(), &envelope[..], *arrival))
        .collect();
    let mut told = Vec::new();
    while told.len() < all.len() {
        let some = opener.open_some(&all[told.len()..]).await.unwrap();
        assert!(!some.is_empty(), "one at least is told");
        told.extend(some);
    }
    told
}

/// What is good, comes again, is kept, lacks a key, or is none.
async fn mixed(stream: &Stream, strange: Brought) -> Vec<(Brought, Arrival)> {
    let mut all = Vec::new();
    for (i, text) in texts("m", 200).iter().enumerate() {
        let topic = (i % 3 > 0).then(|| plant(i % 5));
        let brought = seal(stream, topic.as_ref(), text).await;
        let arrival = match i % 7 {
            6 => Arrival::Kept,
            _ => Arrival::Live,
        };
        all.push((brought.clone(), arrival));
        let odd = match i % 11 {
            // It came just before, or a while ago.
            2 => brought,
            5 => all[i / 2].0.clone(),
            7 => (topic, b"21.5 C".to_vec()),
            9 => strange.clone(),
            _ => continue,
        };
        all.push((odd, Arrival::Live));
    }
    all
}

#[tokio::test]
async fn what_comes_at_once_is_told_as_if_one_after_another() {
    let rig = Rig::small();
    let (_, stream, bob, joined) = pair(&rig).await;
    let mallory = rig.home("mallory").await;
    let (hers, options) = (name("hers"), StreamOptions::default());
    let hers = mallory.create_stream(&hers, options).await.unwrap();
    let strange = seal(&hers, None, "strange").await;
    let mut all = mixed(&stream, strange).await;
    stream.revoke_user(bob.user()).await.unwrap();
    let sealed = seal(&stream, None, "after").await;
    all.insert(3, (sealed, Arrival::Live));
    let mut one_by_one = joined.opener().await.unwrap();
    let mut expected = Vec::new();
    for (brought, arrival) in &all {
        expected.push(open(&mut one_by_one, brought, *arrival).await);
    }
    let mut opener = joined.opener().await.unwrap();
    let told = all_at_once(&mut opener, &all).await;
    for (number, (told, expected)) in told.iter().zip(&expected).enumerate() {
        assert_eq!(lines_of(told), lines_of(expected), "{number}");
        assert_eq!(told.may_open_later, expected.may_open_later, "{number}");
    }
    assert!(opener.open_some(&[]).await.unwrap().is_empty());
}

/// Whoever stops waiting has been told nothing, and nothing is a replay for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_that_are_given_up_midway_open_when_they_are_handed_in_again() {
    let rig = Rig::small();
    let (_, stream, _, joined) = pair(&rig).await;
    let mut opener = joined.opener().await.unwrap();
    let first = seal(&stream, None, "first").await;
    // All is known then that they take.
    assert_eq!(in_the_end(&mut opener, &first).await, ["first"]);
    let sent = texts("m", 30);
    let all: Vec<_> = sent.iter().map(|text| (None, text.as_bytes())).collect();
    let (mut opened, mut given_up) = (Vec::new(), 0);
    let sealed = stream.seal_all(&all).await.unwrap();
    for some in sealed.chunks(3) {
        let of = some
            .iter()
            .map(|of| (None, &of.envelope[..], Arrival::Live));
        let of: Vec<_> = of.collect();
        let mut told = Vec::new();
        while told.len() < of.len() {
            let opening = opener.open_some(&of[told.len()..]);
            match polled(given_up % 4, opening).await {
                Some(some) => told.extend(some.unwrap()),
                None => given_up += 1,
            }
        }
        opened.extend(told.iter().flat_map(lines_of));
    }
    assert_eq!(opened, sent);
    assert!(given_up > 0);
}

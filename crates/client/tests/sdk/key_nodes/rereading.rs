//! Reading the keys again where more may be read now, also where that is held up.

use std::sync::{Arc, Mutex};

use sealcast::{Interval, Position, RequestOptions, Roles, Stream};
use sealcast_bus::Offset;
use sealcast_protocol::StreamTopics;

use super::{Net, WAIT, until};
use crate::rig::*;

/// Topics that are looked at together.
const AT_ONCE: usize = 8;

/// What Bob's bus is asked for, and what it does not show him.
#[derive(Clone, Default)]
struct Bus {
    asked: Arc<Mutex<Vec<String>>>,
    failing: Arc<Mutex<Option<String>>>,
    hidden: Arc<Mutex<Option<(String, Offset)>>>,
}

impl Bus {
    fn ground(&self) -> sealcast::Ground {
        let bus = self.clone();
        Meddler::ground(move |ask, topic| {
            if ask == Ask::End && (topic.contains("/access/") || topic.ends_with("/devices")) {
                bus.asked.lock().unwrap().push(topic.to_owned());
            }
            let is_failing = bus.failing.lock().unwrap().as_deref() == Some(topic);
            match &*bus.hidden.lock().unwrap() {
                _ if is_failing => Manner::Fail,
                Some((hidden, from)) if hidden == topic => Manner::Hide(*from),
                Some(_) | None => Manner::Honest,
            }
        })
    }

    /// A topic that is looked at later than another, and not together with it.
    async fn later(&self, stream: &Stream, than: &str) -> Option<String> {
        self.asked.lock().unwrap().clear();
        stream.sync().await.unwrap();
        let asked = self.asked.lock().unwrap();
        let at = asked.iter().position(|of| of == than).unwrap();
        asked.get((at / AT_ONCE + 1) * AT_ONCE).cloned()
    }

    fn fail(&self, topic: Option<String>) {
        *self.failing.lock().unwrap() = topic;
    }
}

/// A grant may be taken in while something behind it is not to be had. When that is kept, so is that the keys are to be
/// read again for it.
#[tokio::test]
async fn who_may_read_more_opens_it_whatever_failed_meanwhile_and_whenever_the_program_ends() {
    let net = Net::new(1).await;
    net.set(1, &[0]).await.unwrap();
    let at = say(&net.stream, "one").await;
    let bus = Bus::default();
    drop(net.rig.home("bob").await);
    let bob = net.rig.on("bob", bus.ground()).await;
    let joined = join(&bob, &net.stream).await;
    let tomorrow = between(at.after(86_400_000), Position::END);
    let reads = to(bob.user(), Roles::READER, tomorrow);
    net.stream.grant(reads).await.unwrap();
    joined.sync().await.unwrap();
    let owner = net.rig.again("alice").await;
    let chain = StreamTopics(net.stream.id()).access(&owner.device());
    let mut others = 0..64;
    let later = loop {
        let number = others.next().expect("many are looked at in one row");
        let home = net.rig.home(&format!("other{number}")).await;
        join(&home, &net.stream).await;
        net.stream
            .grant(from_now(home.user(), Roles::READER))
            .await
            .unwrap();
        joined.sync().await.unwrap();
        if let Some(later) = bus.later(&joined, &chain).await {
            break later;
        }
    };
    net.stream.grant(all_to(bob.user())).await.unwrap();
    bus.fail(Some(later));
    assert!(joined.sync().await.is_err());
    bus.fail(None);
    joined.sync().await.unwrap();
    drop((joined, bob));

    let bob = net.rig.again("bob").await;
    let joined = open(&bob).await;
    let _running = net.run(&[0]).await;
    let options = RequestOptions {
        interval: Interval::ALL,
        wait: WAIT,
    };
    joined.unlock(options).await.unwrap();
    assert_eq!(history(&joined).await, ["one"]);
}

/// What was asked for before may come, and be kept, after the keys could not be read again.
#[tokio::test]
async fn keys_that_could_not_be_read_again_are_when_the_program_begins_anew() {
    let net = Net::new(1).await;
    net.set(1, &[0]).await.unwrap();
    let now = say(&net.stream, "now").await;
    let day = 86_400_000;
    let mut past = net.stream.backfill().await.unwrap();
    past.send(Position(now.0 - 30 * day), b"then")
        .await
        .unwrap();
    past.finish().await.unwrap();
    let bus = Bus::default();
    drop(net.rig.home("bob").await);
    let bob = net.rig.on("bob", bus.ground()).await;
    let joined = join(&bob, &net.stream).await;
    let since = between(Position(now.0 - day), Position::END);
    let reads = to(bob.user(), Roles::READER, since);
    net.stream.grant(reads).await.unwrap();
    let options = RequestOptions {
        interval: Interval::ALL,
        wait: WAIT,
    };
    let asking = tokio::spawn({
        let joined = joined.clone();
        async move { joined.unlock(options).await.is_ok() }
    });
    let inbox = net.nodes[0].0.device().inbox_topic();
    until(async || !net.rig.items(&inbox).await.is_empty()).await;
    net.stream.grant(all_to(bob.user())).await.unwrap();
    bus.fail(Some(StreamTopics(net.stream.id()).keys()));
    assert!(joined.sync().await.is_err());
    let _running = net.run(&[0]).await;
    until(async || bob.asked().nodes.segments == 1).await;
    asking.abort();
    drop((joined, bob));

    let bob = net.rig.again("bob").await;
    let joined = open(&bob).await;
    joined.unlock(options).await.unwrap();
    let mut lines = history(&joined).await;
    lines.sort();
    assert_eq!(lines, ["now", "then"]);
}

/// Of two processes of a home one knows of a grant, and the other reads the keys without.
#[tokio::test]
async fn keys_that_another_process_read_by_less_are_read_again() {
    let net = Net::new(1).await;
    net.set(1, &[0]).await.unwrap();
    let bus = Bus::default();
    drop(net.rig.home("bob").await);
    let (knowing, late) = (
        net.rig.again("bob").await,
        net.rig.on("bob", bus.ground()).await,
    );
    let joined = join(&knowing, &net.stream).await;
    let at = say(&net.stream, "one").await;
    let tomorrow = between(at.after(86_400_000), Position::END);
    let reads = to(knowing.user(), Roles::READER, tomorrow);
    net.stream.grant(reads).await.unwrap();
    joined.sync().await.unwrap();
    let joined_late = open(&late).await;
    let owner = net.rig.again("alice").await;
    let chain = StreamTopics(net.stream.id()).access(&owner.device());
    let end = net.rig.items(&chain).await.len() as u64;
    *bus.hidden.lock().unwrap() = Some((chain, Offset(end)));
    net.stream.grant(all_to(knowing.user())).await.unwrap();
    joined.sync().await.unwrap();
    // Its records are passed over where the grant is not known.
    net.stream.rekey().await.unwrap();
    say(&net.stream, "two").await;
    joined_late.sync().await.unwrap();
    drop((joined, joined_late, knowing, late));

    let bob = net.rig.again("bob").await;
    let joined = open(&bob).await;
    let _running = net.run(&[0]).await;
    let options = RequestOptions {
        interval: Interval::ALL,
        wait: WAIT,
    };
    joined.unlock(options).await.unwrap();
    assert_eq!(history(&joined).await, ["one", "two"]);
}

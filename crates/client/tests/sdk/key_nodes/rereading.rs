//! Reading the keys again where more may be read now, also where that is held up.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use sealcast::{Home, Interval, Position, RequestOptions, Roles, Stream};
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
    hidden: Arc<Mutex<BTreeMap<String, Offset>>>,
}

impl Bus {
    fn ground(&self) -> sealcast::Ground {
        let bus = self.clone();
        Meddler::ground(move |ask, topic| {
            if ask == Ask::End && (topic.contains("/access/") || topic.ends_with("/devices")) {
                bus.asked.lock().unwrap().push(topic.to_owned());
            }
            let is_failing = bus.failing.lock().unwrap().as_deref() == Some(topic);
            match bus.hidden.lock().unwrap().get(topic) {
                _ if is_failing => Manner::Fail,
                Some(from) => Manner::Hide(*from),
                None => Manner::Honest,
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

    /// Shows nothing of a chain from now on, whose name is given back.
    async fn hide_chain(&self, net: &Net, of: &Home) -> String {
        let chain = StreamTopics(net.stream.id()).access(&of.device());
        let end = net.rig.items(&chain).await.len() as u64;
        self.hidden
            .lock()
            .unwrap()
            .insert(chain.clone(), Offset(end));
        chain
    }

    fn show(&self, chain: &str) {
        self.hidden.lock().unwrap().remove(chain);
    }
}

/// An administrator, and a reader who is made a publisher.
struct Others {
    admin: (Home, Stream),
    late: (Home, Stream),
}

impl Others {
    async fn of(net: &Net) -> Self {
        let join_as = async |who: &str, roles| {
            let home = net.rig.home(who).await;
            let stream = join(&home, &net.stream).await;
            let granted = net
                .stream
                .grant(to(home.user(), roles, Interval::ALL))
                .await;
            granted.unwrap();
            (home, stream)
        };
        Self {
            admin: join_as("carol", Roles::ADMIN).await,
            late: join_as("dave", Roles::READER).await,
        }
    }

    /// Puts a record on the bus that cannot be judged where the administrator's chain is not shown.
    async fn publish(&self) {
        let publishes = from_now(self.late.0.user(), Roles::PUBLISHER);
        self.admin.1.grant(publishes).await.unwrap();
        say(&self.late.1, "unheard").await;
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
    unread_when_the_program_ends(false).await;
}

/// What waits for an entry that the bus does not show holds back how far the keys count as read.
#[tokio::test]
async fn keys_that_could_not_be_read_again_are_also_where_one_of_them_waits() {
    unread_when_the_program_ends(true).await;
}

async fn unread_when_the_program_ends(one_waits: bool) {
    let net = Net::new(1).await;
    net.set(1, &[0]).await.unwrap();
    let now = say(&net.stream, "now").await;
    let day = 86_400_000;
    let mut past = net.stream.backfill().await.unwrap();
    past.send(Position(now.0 - 30 * day), b"then")
        .await
        .unwrap();
    past.finish().await.unwrap();
    let others = Others::of(&net).await;
    let owner = net.rig.again("alice").await;
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
    let grants = bus.hide_chain(&net, &owner).await;
    net.stream.grant(all_to(bob.user())).await.unwrap();
    if one_waits {
        bus.hide_chain(&net, &others.admin.0).await;
        others.publish().await;
    }
    joined.sync().await.unwrap();
    bus.show(&grants);
    bus.fail(Some(StreamTopics(net.stream.id()).keys()));
    assert!(joined.sync().await.is_err());
    let _running = net.run(&[0]).await;
    until(async || bob.asked().nodes.segments == 1).await;
    asking.abort();
    drop((joined, bob));

    bus.fail(None);
    let bob = net.rig.on("bob", bus.ground()).await;
    let joined = open(&bob).await;
    joined.unlock(options).await.unwrap();
    let mut lines = history(&joined).await;
    // What is not known to be published with a right.
    lines.retain(|line| !line.starts_with("Rejected"));
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
    bus.hide_chain(&net, &owner).await;
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

//! What key nodes release where their condition can end.

use std::time::Duration;

use sealcast::{
    Approvers, Condition, Demand, Home, Interval, NamingOptions, NodeStanding, NodesSaid, Position,
    Releasing, RequestOptions, Sharing, Stream, StreamOptions, Subscription,
};

use crate::rig::*;

const WAIT: Duration = Duration::from_secs(60);
/// After so long a segment has ended in which something was just published, whatever the clocks say.
const ENDED_MS: u64 = (2 << 16) + 10_000;

/// A stream whose one key node asks for something, in which nobody hands out keys otherwise, and a reader.
struct Net {
    time: Time,
    rig: Rig,
    stream: Stream,
    joined: Stream,
    bob: Home,
    ann: Stream,
    _homes: Vec<Home>,
    _running: Releasing,
}

impl Net {
    async fn new(condition: impl FnOnce(&Home, &Time) -> Demand) -> Self {
        let (rig, time) = (Rig::small(), Time::new());
        let names = ["alice", "ann", "bob", "node"];
        let [alice, ann, bob, node] = rig.homes_by(names, &time).await;
        let options = StreamOptions {
            sharing: Sharing::Manual,
            ..StreamOptions::default()
        };
        let stream = alice.create_stream(&name("kitchen"), options).await;
        let stream = stream.unwrap();
        let nodes = join(&node, &stream).await;
        let joined = join(&bob, &stream).await;
        let asked = join(&ann, &stream).await;
        stream.grant(all_to(bob.user())).await.unwrap();
        let named = [(node.user(), None)];
        let options = NamingOptions::default();
        stream.set_key_nodes(1, &named, options).await.unwrap();
        let condition = Condition(vec![vec![condition(&ann, &time)]]);
        stream.set_condition(condition).await.unwrap();
        let running = nodes.release().await.unwrap();
        Self {
            time,
            rig,
            stream,
            joined,
            bob,
            ann: asked,
            _homes: vec![alice, ann, node],
            _running: running,
        }
    }

    async fn approve(&self, until: Position) {
        let bob = self.bob.user();
        self.ann.approve_release(bob, until).await.unwrap();
    }

    async fn unlock(&self) -> NodesSaid {
        let options = RequestOptions {
            interval: Interval::ALL,
            wait: WAIT,
        };
        self.joined.unlock(options).await.unwrap()
    }

    async fn opened(&self) -> Vec<String> {
        let mut lines = history(&self.joined).await;
        lines.retain(|line| !line.starts_with("Sealed") && !line.starts_with("Gap"));
        lines
    }
}

fn by_ann(ann: &Home, _: &Time) -> Demand {
    Demand::Approved(Approvers {
        needed: 1,
        of: vec![ann.user()],
    })
}

#[tokio::test]
async fn what_is_published_after_an_approval_ended_opens_by_no_key_node() {
    for withdraws in [true, false] {
        let net = Net::new(by_ann).await;
        net.approve(Position::END).await;
        say(&net.stream, "one").await;
        // Not yet; and it is said when.
        let said = net.unlock().await;
        let at = said.released_from.unwrap();
        assert!(net.time.now() < at && at < net.time.now().after(ENDED_MS));
        assert!(net.opened().await.is_empty());
        net.time.pass(ENDED_MS);
        net.unlock().await;
        assert_eq!(net.opened().await, ["one"]);
        let until = match withdraws {
            true => Position::START,
            false => net.time.now(),
        };
        net.approve(until).await;
        say(&net.stream, "two").await;
        net.time.pass(ENDED_MS);
        assert!(!net.unlock().await.refused.is_empty());
        assert_eq!(net.opened().await, ["one"]);
    }
}

#[tokio::test]
async fn what_is_published_after_the_time_until_which_they_release_opens_by_none() {
    let net = Net::new(|_, time| Demand::Before(time.now().after(2 * ENDED_MS))).await;
    say(&net.stream, "one").await;
    net.time.pass(ENDED_MS);
    net.unlock().await;
    assert_eq!(net.opened().await, ["one"]);
    net.time.pass(ENDED_MS);
    say(&net.stream, "two").await;
    net.time.pass(ENDED_MS);
    net.unlock().await;
    assert_eq!(net.opened().await, ["one"]);
}

/// Nobody else is there, so key nodes are asked when it has ended.
#[tokio::test]
async fn who_follows_is_served_when_the_segment_has_ended() {
    let net = Net::new(by_ann).await;
    net.approve(Position::END).await;
    let mut follows = net.joined.subscribe(None).await.unwrap();
    for number in 0..3 {
        let text = number.to_string();
        say(&net.stream, &text).await;
        net.time.pass(ENDED_MS);
        // What comes next has the time looked at.
        say(&net.stream, "wakes").await;
        until_opened(&mut follows, &text).await;
        net.time.pass(ENDED_MS);
        say(&net.stream, "wakes again").await;
        until_opened(&mut follows, "wakes").await;
    }
}

/// Takes what comes until something opens, which is to be this.
async fn until_opened(follows: &mut Subscription, text: &str) {
    loop {
        let line = next(follows, 1).await.remove(0);
        match line.starts_with("Waits") || line.starts_with("Sealed") {
            true => (),
            false if line == "wakes again" => (),
            false => return assert_eq!(line, text),
        }
    }
}

/// Whether nodes answer is found out with what has ended.
#[tokio::test]
async fn a_node_is_asked_for_what_has_ended_to_see_whether_it_answers() {
    let net = Net::new(by_ann).await;
    net.approve(Position::END).await;
    let info = net.joined.key_nodes(WAIT).await.unwrap().unwrap();
    assert_eq!(info.nodes[0].standing, NodeStanding::Unasked);
    say(&net.stream, "one").await;
    let info = net.joined.key_nodes(WAIT).await.unwrap().unwrap();
    assert_eq!(info.nodes[0].standing, NodeStanding::Answers);
    drop(net.rig);
}

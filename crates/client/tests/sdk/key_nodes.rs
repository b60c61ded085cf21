//! Key nodes, by those who publish for them and those who ask them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sealcast::{
    Alarm, AnswerOptions, AskingOptions, Bound, ControlTopic, Error, GrantOptions, Home, Interval,
    NamingOptions, OthersAsked, Position, Releasing, RequestEnd, RequestOptions, Roles, Sharing,
    Stream, StreamOptions, UserId,
};
use sealcast_bus::{Bus as _, Topic};
use sealcast_protocol::{
    Condition, Deal, Demand, LogHash, SegmentRecords, StreamTopics, Unverified,
};

use crate::rig::*;

mod pacing;
mod rereading;

const WAIT: Duration = Duration::from_secs(60);
const PLAIN: NamingOptions = NamingOptions {
    new_secrets: false,
    closes_lanes: false,
};

/// A stream in which nobody hands out keys, and key nodes of it.
struct Net {
    rig: Rig,
    stream: Stream,
    nodes: Vec<(Home, Stream)>,
}

impl Net {
    async fn new(count: usize) -> Self {
        Self::sharing(Sharing::Manual, count).await
    }

    async fn sharing(sharing: Sharing, count: usize) -> Self {
        let rig = Rig::small();
        let [alice] = rig.homes(["alice"]).await;
        let options = StreamOptions {
            sharing,
            ..StreamOptions::default()
        };
        let stream = alice.create_stream(&name("kitchen"), options).await;
        let mut net = Self {
            rig,
            stream: stream.unwrap(),
            nodes: Vec::new(),
        };
        for number in 0..count {
            net.add_node(&format!("node{number}")).await;
        }
        net
    }

    async fn add_node(&mut self, name: &str) {
        let home = self.rig.home(name).await;
        let stream = join(&home, &self.stream).await;
        self.nodes.push((home, stream));
    }

    fn ids(&self, of: &[usize]) -> Vec<(UserId, Option<sealcast::DeviceId>)> {
        let ids = of.iter().map(|at| (self.nodes[*at].0.user(), None));
        ids.collect()
    }

    async fn set(&self, threshold: u8, of: &[usize]) -> Result<LogHash, Error> {
        let ids = self.ids(of);
        self.stream.set_key_nodes(threshold, &ids, PLAIN).await
    }

    async fn run(&self, of: &[usize]) -> Vec<Releasing> {
        let mut running = Vec::new();
        for at in of {
            running.push(self.nodes[*at].1.release().await.unwrap());
        }
        running
    }

    async fn keys(&self) -> Vec<Vec<u8>> {
        self.rig.items(&StreamTopics(self.stream.id()).keys()).await
    }

    /// What a new reader opens with the nodes' help.
    async fn read_by(&self, reader: &str) -> Vec<String> {
        let home = self.rig.home(reader).await;
        let stream = join(&home, &self.stream).await;
        self.stream.grant(all_to(home.user())).await.unwrap();
        let options = RequestOptions {
            interval: Interval::ALL,
            wait: WAIT,
        };
        stream.unlock(options).await.unwrap();
        let mut lines = history(&stream).await;
        lines.retain(|line| !line.starts_with("Sealed") && !line.starts_with("Gap"));
        lines
    }
}

async fn until(is_so: impl AsyncFn() -> bool) {
    let looking = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(WAIT, looking).await.unwrap();
}

fn are<T: sealcast_protocol::Signable>(items: &[Vec<u8>]) -> usize {
    let decoded = items.iter().map(|item| Unverified::<T>::decode(item));
    decoded.filter(Result::is_ok).count()
}

/// Has the bus lose the last items of its topic of keys, under whoever uses it.
fn lose_keys(net: &Net, count: i64) {
    let bus = rusqlite::Connection::open(net.rig.path("bus/bus.db")).unwrap();
    let topic = StreamTopics(net.stream.id()).keys();
    let found = "SELECT id, next_offset FROM topic WHERE name = ?1";
    let row = bus.query_row(found, [topic], |row| Ok((row.get(0)?, row.get(1)?)));
    let (id, next): (i64, i64) = row.unwrap();
    let lose = "DELETE FROM item WHERE key >= ?1 AND key < ?2";
    let lost = bus.execute(lose, [(id << 40) + next - count, (id << 40) + next]);
    assert_eq!(i64::try_from(lost.unwrap()), Ok(count));
    let end = "UPDATE topic SET next_offset = ?1 WHERE id = ?2";
    bus.execute(end, [next - count, id]).unwrap();
}

#[tokio::test]
async fn deals_and_records_that_a_bus_lost_are_put_back_as_they_were() {
    let net = Net::new(1).await;
    net.set(1, &[0]).await.unwrap();
    say(&net.stream, "one").await;
    net.stream.sync().await.unwrap();
    let before = net.keys().await;
    assert_eq!(
        (are::<Deal>(&before), are::<SegmentRecords>(&before)),
        (1, 1)
    );
    lose_keys(&net, 2);
    net.stream.sync().await.unwrap();
    let alarms = net.stream.alarms();
    assert!(alarms.contains(&Alarm::WentBack(ControlTopic::Keys)));
    let mut after = net.keys().await;
    assert_eq!(after.len(), before.len());
    let mut before = before;
    before.sort();
    after.sort();
    assert_eq!(after, before);
    let _running = net.run(&[0]).await;
    assert_eq!(net.read_by("bob").await, ["one"]);
}

#[tokio::test]
async fn what_there_are_records_of_is_told_alike_by_who_holds_keys_and_by_a_node() {
    let net = Net::new(1).await;
    say(&net.stream, "before").await;
    net.stream.rekey().await.unwrap();
    net.set(1, &[0]).await.unwrap();
    let at = say(&net.stream, "one").await;
    let items = net.keys().await;
    let decoded = items
        .iter()
        .map(|item| Unverified::<SegmentRecords>::decode(item));
    let sealed: Vec<_> = decoded.flatten().map(|of| of.claims().clone()).collect();
    let records: usize = sealed.iter().map(|of| of.records.len()).sum();
    // What comes twice counts once, and what nobody of the stream signed not at all.
    let is_sealed = |item: &&Vec<u8>| Unverified::<SegmentRecords>::decode(item).is_ok();
    let twice = items.iter().find(is_sealed).unwrap().clone();
    let mut altered = twice.clone();
    *altered.last_mut().unwrap() ^= 1;
    let keys = Topic::new(&StreamTopics(net.stream.id()).keys()).unwrap();
    let bus = net.rig.bus().await;
    bus.append(&keys, vec![twice, altered]).await.unwrap();
    for stream in [&net.stream, &net.nodes[0].1] {
        let found = stream.segment_records().await.unwrap();
        let [(lane, found)] = found.into_iter().collect::<Vec<_>>().try_into().unwrap();
        assert_eq!(lane, sealed[0].dealer.lane);
        assert_eq!((found.sessions, found.covered), (2, 1));
        assert_eq!(found.records, records as u64);
        let span = found.span.unwrap();
        // Publishers write them a quarter of an hour ahead.
        assert!(span.contains(at) && span.until.0 - span.from.0 <= 1 << 21);
    }
}

#[tokio::test]
async fn a_publisher_goes_on_with_the_records_of_another_session_when_the_bus_lost_some() {
    let net = Net::new(1).await;
    net.set(1, &[0]).await.unwrap();
    say(&net.stream, "one").await;
    net.stream.sync().await.unwrap();
    lose_keys(&net, 2);
    say(&net.stream, "two").await;
    let _running = net.run(&[0]).await;
    assert_eq!(net.read_by("bob").await, ["one", "two"]);
    assert_eq!(are::<Deal>(&net.keys().await), 1);
}

/// Two who rule name key nodes, neither knowing of the other.
#[tokio::test]
async fn sets_that_stand_side_by_side_are_told_of_until_somebody_names_one() {
    let net = Net::new(2).await;
    let bob = net.rig.home("bob").await;
    let joined = join(&bob, &net.stream).await;
    let admin = GrantOptions {
        user: bob.user(),
        roles: Roles::ADMIN,
        from: Bound::At(Position::START),
        until: Bound::At(Position::END),
        reshare: false,
    };
    net.stream.grant(admin).await.unwrap();
    joined.sync().await.unwrap();
    let chain = StreamTopics(net.stream.id()).access(&bob.device());
    net.set(1, &[0]).await.unwrap();
    let later = Condition(vec![vec![Demand::After(Position(1))]]);
    let ours = net.stream.set_condition(later.clone()).await.unwrap();
    // Bob's bus does not show it to him yet.
    hide_chain_while(&net, async {
        let ids = net.ids(&[1]);
        joined.set_key_nodes(1, &ids, PLAIN).await.unwrap();
    })
    .await;
    assert_eq!(net.rig.items(&chain).await.len(), 1);
    for stream in [&net.stream, &joined] {
        stream.sync().await.unwrap();
        assert!(stream.alarms().contains(&Alarm::KeyNodesBeside(2)));
        let beside = stream.key_nodes_beside();
        assert!(beside.iter().any(|(entry, _)| *entry == ours));
        assert_eq!(beside.len(), 2);
        assert_eq!(stream.key_nodes(WAIT).await.unwrap(), None);
    }
    let alice = net.rig.again("alice").await;
    let findings = alice.doctor().await.unwrap();
    let is_told = |of: &sealcast::Finding| of.is_problem && of.text.contains("2 sets of key nodes");
    assert!(findings.iter().any(is_told), "{findings:?}");

    net.set(1, &[0]).await.unwrap();
    assert_eq!(net.stream.key_nodes_beside(), []);
    // What one of them asked for is asked for.
    let named = net.stream.key_nodes(Duration::ZERO).await.unwrap();
    assert_eq!(named.unwrap().condition, later);
    say(&net.stream, "one").await;
    let _running = net.run(&[0]).await;
    assert_eq!(net.read_by("carol").await, ["one"]);
}

/// What was said by one who was removed is void where the removal did not know of it, and that is told.
#[tokio::test]
async fn what_a_removed_admin_said_of_key_nodes_is_void_and_it_is_told() {
    let net = Net::new(2).await;
    let bob = net.rig.home("bob").await;
    let joined = join(&bob, &net.stream).await;
    let admin = GrantOptions {
        user: bob.user(),
        roles: Roles::ADMIN,
        from: Bound::At(Position::START),
        until: Bound::At(Position::END),
        reshare: false,
    };
    net.stream.grant(admin).await.unwrap();
    joined.sync().await.unwrap();
    net.set(1, &[0]).await.unwrap();
    joined.sync().await.unwrap();
    net.stream.revoke_user(bob.user()).await.unwrap();
    // Bob's bus does not show it to him yet.
    let mut named = None;
    hide_chain_while(&net, async {
        let ids = net.ids(&[0, 1]);
        named = joined.set_key_nodes(2, &ids, PLAIN).await.ok();
    })
    .await;
    net.stream.sync().await.unwrap();
    let told = net.stream.alarms();
    assert!(told.contains(&Alarm::KeyNodesVoid(1)), "{told:?}");
    assert_eq!(net.stream.key_nodes_void(), Vec::from_iter(named));
    let now = net.stream.key_nodes(Duration::ZERO).await.unwrap();
    assert_eq!(now.unwrap().threshold, 1);
    net.set(1, &[1]).await.unwrap();
    assert_eq!(net.stream.key_nodes_void(), []);
}

/// From its first moment on, so nothing is released without it.
#[tokio::test]
async fn key_nodes_are_named_together_with_their_condition() {
    let net = Net::new(1).await;
    let ids = net.ids(&[0]);
    let entry = net.stream.set_key_nodes_on(1, &ids, never(), PLAIN);
    let entry = entry.await.unwrap();
    assert_eq!(net.stream.release_condition(), Some((entry, never())));
    // It stays where none is given.
    net.set(1, &[0]).await.unwrap();
    assert_eq!(net.stream.release_condition().unwrap().1, never());
}

/// Where nobody else answers, it is over when they have spoken.
#[tokio::test]
async fn who_asks_in_a_stream_that_is_shared_by_hand_asks_key_nodes() {
    let net = Net::new(1).await;
    net.set(1, &[0]).await.unwrap();
    say(&net.stream, "one").await;
    let _running = net.run(&[0]).await;
    let bob = net.rig.home("bob").await;
    let joined = join(&bob, &net.stream).await;
    net.stream.grant(all_to(bob.user())).await.unwrap();
    let options = RequestOptions {
        interval: Interval::ALL,
        wait: Duration::MAX,
    };
    let requested = joined.request(options).await.unwrap();
    assert_eq!(requested.end, RequestEnd::Opened);
    net.stream.set_condition(never()).await.unwrap();
    say(&net.stream, "two").await;
    let carol = net.rig.home("carol").await;
    let joined = join(&carol, &net.stream).await;
    net.stream.grant(all_to(carol.user())).await.unwrap();
    let requested = joined.request(options).await.unwrap();
    assert_eq!(requested.end, RequestEnd::TimedOut);
    assert_eq!(requested.nodes.refused.len(), 1);
}

fn never() -> Condition {
    let later = Position(Position::END.0 - 1);
    Condition(vec![vec![Demand::After(later)]])
}

/// Takes the owner's last entry off the bus while something is done.
async fn hide_chain_while(net: &Net, does: impl Future<Output = ()>) {
    let bus = rusqlite::Connection::open(net.rig.path("bus/bus.db")).unwrap();
    let owner = net.rig.again("alice").await;
    let topic = StreamTopics(net.stream.id()).access(&owner.device());
    let found = "SELECT id, next_offset FROM topic WHERE name = ?1";
    let row = bus.query_row(found, [topic], |row| Ok((row.get(0)?, row.get(1)?)));
    let (id, next): (i64, i64) = row.unwrap();
    let last = (id << 40) + next - 1;
    let item = "SELECT payload FROM item WHERE key = ?1";
    let item: Vec<u8> = bus.query_row(item, [last], |row| row.get(0)).unwrap();
    bus.execute("DELETE FROM item WHERE key = ?1", [last])
        .unwrap();
    let end = "UPDATE topic SET next_offset = ?1 WHERE id = ?2";
    bus.execute(end, [next - 1, id]).unwrap();
    does.await;
    let back = "INSERT INTO item (key, payload) VALUES (?1, ?2)";
    bus.execute(back, rusqlite::params![last, item]).unwrap();
    bus.execute(end, [next, id]).unwrap();
}

#[tokio::test]
async fn lanes_that_would_close_are_named_before_and_open_when_their_publishers_come_by() {
    let mut net = Net::new(2).await;
    let pam = net.rig.home("pam").await;
    let joined = join(&pam, &net.stream).await;
    let publishes = from_now(pam.user(), Roles::PUBLISHER);
    net.stream.grant(publishes).await.unwrap();
    net.set(2, &[0, 1]).await.unwrap();
    say(&joined, "one").await;
    joined.sync().await.unwrap();
    drop(joined);
    net.add_node("node2").await;
    let (old, new) = (net.nodes[0].0.user(), net.nodes[2].0.user());
    let refused = net.stream.replace_key_node(old, (new, None), PLAIN).await;
    assert!(matches!(&refused, Err(Error::LanesClose(lanes)) if *lanes == [pam.user()]));
    let anyway = NamingOptions {
        closes_lanes: true,
        ..PLAIN
    };
    let replaced = net.stream.replace_key_node(old, (new, None), anyway).await;
    replaced.unwrap();
    let _running = net.run(&[1, 2]).await;
    assert!(net.read_by("bob").await.is_empty());
    open(&pam).await.sync().await.unwrap();
    assert_eq!(net.read_by("carol").await, ["one"]);
}

/// The records of a session reach weeks ahead, and whoever holds enough of the old secret opens by them what comes.
#[tokio::test]
async fn with_a_secret_drawn_anew_a_publisher_begins_another_session() {
    let net = Net::new(3).await;
    let sessions = async || -> Vec<_> {
        let headers = net.rig.headers(&net.stream).await;
        headers.iter().map(|of| of.session).collect()
    };
    net.set(1, &[0, 1]).await.unwrap();
    say(&net.stream, "one").await;
    net.set(1, &[0, 1, 2]).await.unwrap();
    say(&net.stream, "two").await;
    let before = sessions().await;
    assert_eq!(before[0], before[1], "nobody lost a share of its secret");
    net.set(2, &[1, 2]).await.unwrap();
    say(&net.stream, "three").await;
    let after = sessions().await;
    assert!(!before.contains(after.last().unwrap()));
    let _running = net.run(&[1, 2]).await;
    assert_eq!(net.read_by("bob").await, ["one", "two", "three"]);
}

#[tokio::test]
async fn older_data_opens_by_key_nodes_also_where_they_change_amid_it() {
    let mut net = Net::new(2).await;
    net.set(1, &[0, 1]).await.unwrap();
    let now = say(&net.stream, "now").await;
    let day = 86_400_000;
    let at = |days: u64| Position(now.0 - days * day);
    let mut past = net.stream.backfill().await.unwrap();
    for (days, text) in [(30, "a"), (20, "b")] {
        past.send(at(days), text.as_bytes()).await.unwrap();
    }
    // As many as make a batch.
    for _ in 0..2_046 {
        past.send(at(20), b"-").await.unwrap();
    }
    assert!(past.stored() > 0);
    net.add_node("node2").await;
    net.set(2, &[1, 2]).await.unwrap();
    past.send(at(10), b"c").await.unwrap();
    past.finish().await.unwrap();
    let sessions: std::collections::BTreeSet<_> = net
        .rig
        .headers(&net.stream)
        .await
        .iter()
        .map(|of| of.session)
        .collect();
    assert_eq!(sessions.len(), 3);
    let _running = net.run(&[1, 2]).await;
    let mut read = net.read_by("bob").await;
    read.retain(|line| line != "-");
    read.sort();
    assert_eq!(read, ["a", "b", "c", "now"]);
}

/// What others would give at once is not asked of them while key nodes do.
#[tokio::test]
async fn key_nodes_are_asked_first_and_others_for_what_they_do_not_give() {
    let net = Net::sharing(Sharing::OnRequest, 2).await;
    net.set(2, &[0, 1]).await.unwrap();
    let running = net.run(&[0, 1]).await;
    let answering = net.stream.answer(AnswerOptions::default()).await.unwrap();
    let bob = net.rig.home("bob").await;
    let joined = join(&bob, &net.stream).await;
    net.stream.grant(all_to(bob.user())).await.unwrap();
    say(&net.stream, "one").await;
    let mut following = joined.subscribe(Some(Position::START)).await.unwrap();
    assert!(next(&mut following, 2).await.contains(&"one".to_owned()));
    let asked = bob.asked_in(&joined.id());
    assert_eq!((asked.nodes.requests, asked.nodes.segments), (1, 1));
    assert_eq!(asked.others, OthersAsked::default());
    assert_eq!(bob.asked(), asked);

    drop(running);
    // Another session, of which nobody released anything.
    net.stream.rekey().await.unwrap();
    bob.set_asking(AskingOptions {
        key_request_timeout: Duration::from_secs(2),
        ..AskingOptions::default()
    });
    drop(following);
    let mut following = joined.subscribe(Some(Position::START)).await.unwrap();
    say(&net.stream, "two").await;
    while next(&mut following, 1).await != ["two"] {}
    // What it came to is counted a moment after it opened.
    until(async || bob.asked_in(&joined.id()).others.opened > 0).await;
    let asked = bob.asked_in(&joined.id());
    assert_eq!((asked.nodes.segments, asked.others.opened), (1, 1));
    assert_eq!((asked.nodes.silent, asked.nodes.too_few), (2, 1));
    drop(answering);
}

/// A segment that reaches beyond a grant is released to nobody.
#[tokio::test]
async fn the_ends_of_an_interval_that_no_whole_segment_covers_are_asked_of_others() {
    let net = Net::sharing(Sharing::OnRequest, 1).await;
    net.set(1, &[0]).await.unwrap();
    let now = say(&net.stream, "now").await;
    let minute = 1 << 16;
    let start = Position((now.0 - 86_400_000) & !(minute - 1));
    let bob = net.rig.home("bob").await;
    let joined = join(&bob, &net.stream).await;
    let interval = between(start.after(500), start.after(2 * minute + 2_000));
    let granted = to(bob.user(), Roles::READER, interval);
    net.stream.grant(granted).await.unwrap();
    let mut past = net.stream.backfill().await.unwrap();
    for (ms, text) in [
        (0, "before"),
        (1_000, "beginning"),
        (minute + 1_000, "middle"),
        (2 * minute + 1_000, "end"),
        (2 * minute + 3_000, "after"),
    ] {
        past.send(start.after(ms), text.as_bytes()).await.unwrap();
    }
    past.finish().await.unwrap();
    let _running = net.run(&[0]).await;
    let opened = |lines: Vec<String>| -> Vec<String> {
        let is_opened = |line: &String| !line.starts_with("Sealed") && !line.starts_with("Gap");
        lines.into_iter().filter(is_opened).collect()
    };
    let options = RequestOptions {
        interval: Interval::ALL,
        wait: WAIT,
    };
    joined.unlock(options).await.unwrap();
    let asked = bob.asked();
    assert_eq!((asked.nodes.segments, asked.others.requests), (1, 0));
    assert_eq!(opened(history(&joined).await), ["middle"]);
    let _answering = net.stream.answer(AnswerOptions::default()).await.unwrap();
    joined.request(options).await.unwrap();
    let all = ["beginning", "middle", "end"];
    assert_eq!(opened(history(&joined).await), all);
    let asked = bob.asked();
    assert_eq!((asked.nodes.segments, asked.others.opened), (1, 1));
}

/// Somebody sets a condition while another names nodes, whatever the latter asks its bus for just then.
#[tokio::test]
async fn who_names_key_nodes_never_undoes_what_came_between() {
    const ASKED_AT_MOST: u64 = 24;
    let net = Net::new(1).await;
    net.set(1, &[0]).await.unwrap();
    let (at, asked) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (waits_at, count) = (at.clone(), asked.clone());
    let ground = Meddler::ground(move |_, _| {
        let at = waits_at.load(Ordering::SeqCst);
        match at > 0 && count.fetch_add(1, Ordering::SeqCst) + 1 >= at {
            true => Manner::Mute,
            false => Manner::Honest,
        }
    });
    let slow = open(&net.rig.on("alice", ground).await).await;
    let mut refused = 0;
    for nth in 1..=ASKED_AT_MOST {
        asked.store(0, Ordering::SeqCst);
        at.store(nth, Ordering::SeqCst);
        let later = Condition(vec![vec![Demand::After(Position(nth))]]);
        let nodes = net.ids(&[0]);
        let is_done = AtomicBool::new(false);
        let naming = async {
            let named = slow.set_key_nodes(1, &nodes, PLAIN).await;
            is_done.store(true, Ordering::SeqCst);
            named
        };
        let meanwhile = async {
            while asked.load(Ordering::SeqCst) < nth && !is_done.load(Ordering::SeqCst) {
                tokio::task::yield_now().await;
            }
            // What the other one has signed by now may come first.
            while net.stream.set_condition(later.clone()).await.is_err() {}
            at.store(0, Ordering::SeqCst);
        };
        let (named, ()) = tokio::join!(naming, meanwhile);
        refused += u64::from(matches!(named, Err(Error::KeyNodes(_))));
        net.stream.sync().await.unwrap();
        let (_, condition) = net.stream.release_condition().unwrap();
        assert_eq!(condition, later, "{nth}: {named:?}");
    }
    assert!(refused > 0);
}

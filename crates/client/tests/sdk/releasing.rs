//! Key nodes: a bus that goes back under them, inboxes that take nothing, and what they keep.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sealcast::{
    Alarm, Approvers, AuditedEvent, Clock, Condition, ControlTopic, Demand, Error, Ground, Home,
    NamingOptions, NodeRefusalReason, NodeStanding, Position, Sharing, Stream, StreamOptions,
};
use sealcast_bus::{Bus as _, Topic};
use sealcast_crypto::SigningKey;
use sealcast_protocol::{NodeRequest, Unverified, sign};

use crate::rig::*;

const LONG: Duration = Duration::from_secs(60);

/// A stream whose keys one key node releases and nobody else gives, with a reader of all.
async fn released_by(owner: &Home, node: &Home, readers: &[&Home]) -> Stream {
    let options = StreamOptions {
        sharing: Sharing::Manual,
        ..StreamOptions::default()
    };
    let stream = owner.create_stream(&name("kitchen"), options).await;
    let stream = stream.unwrap();
    join(node, &stream).await;
    for reader in readers {
        join(reader, &stream).await;
        stream.grant(all_to(reader.user())).await.unwrap();
    }
    let nodes = [(node.user(), None)];
    let options = NamingOptions::default();
    stream.set_key_nodes(1, &nodes, options).await.unwrap();
    say(&stream, "one").await;
    stream
}

/// What the one node says to a device that may read all.
async fn says(stream: &Stream) -> NodeStanding {
    says_within(stream, LONG).await
}

async fn says_within(stream: &Stream, wait: Duration) -> NodeStanding {
    let nodes = stream.key_nodes(wait).await.unwrap().unwrap();
    nodes.nodes[0].standing
}

fn refused(reason: NodeRefusalReason) -> NodeStanding {
    NodeStanding::Refuses(reason)
}

/// Has the bus lose a grant that the node saw.
async fn lose_a_grant(rig: &Rig, owner: Home, node: Home, stream: Stream) {
    let id = owner.user();
    drop((stream, owner));
    copy_folder(&rig.path("bus"), &rig.path("bus copy"));
    let carol = rig.home("carol").await;
    let stream = open(&rig.again("alice").await).await;
    stream.grant(all_to(carol.user())).await.unwrap();
    let seen = open(&node).await;
    assert_eq!(seen.who().await.unwrap().len(), 3, "{id}");
    drop((stream, seen, node));
    std::fs::remove_dir_all(rig.path("bus")).unwrap();
    copy_folder(&rig.path("bus copy"), &rig.path("bus"));
}

/// A bus that takes replies of a key node, and nothing else.
fn takes_replies_alone() -> Ground {
    Meddler::ground(|ask, topic| match ask {
        Ask::Append if !topic.ends_with("/inbox") => Manner::Fail,
        Ask::Append | Ask::Read | Ask::End => Manner::Honest,
    })
}

#[tokio::test]
async fn a_node_releases_nothing_while_the_bus_shows_less_of_the_log_than_it_did() {
    let rig = Rig::small();
    let [alice, bob, node] = rig.homes(["alice", "bob", "node"]).await;
    let owner = alice.user();
    let stream = released_by(&alice, &node, &[&bob]).await;
    drop(bob);
    lose_a_grant(&rig, alice, node, stream).await;

    let joined = open(&rig.again("bob").await).await;
    // It is known over restarts, of whatever runs by this home.
    for _ in 0..2 {
        let node = rig.on("node", takes_replies_alone()).await;
        let stream = open(&node).await;
        let is_told =
            |of: &Alarm| matches!(of, Alarm::WentBack(ControlTopic::Access(of, _)) if *of == owner);
        assert!(stream.alarms().iter().any(is_told));
        assert!(!stream.own_key_node().await.unwrap().is_shown_all);
        let releasing = stream.release().await.unwrap();
        let behind = refused(NodeRefusalReason::LogBehind);
        assert_eq!(says(&joined).await, behind);
        assert_eq!(releasing.counts().refused.log_behind, 1);
        assert!(releasing.is_bus_short());
    }
    let node = rig.on("node", takes_replies_alone()).await;
    let stream = open(&node).await;
    let releasing = stream.release().await.unwrap();
    // The owner puts it back.
    drop(open(&rig.again("alice").await).await);
    assert_eq!(says(&joined).await, NodeStanding::Answers);
    assert!(!releasing.is_bus_short());
    drop((releasing, stream, node));
    let stream = open(&rig.again("node").await).await;
    assert_eq!(stream.alarms(), []);
}

#[tokio::test]
async fn a_node_puts_back_what_the_bus_lost_of_the_log() {
    let rig = Rig::small();
    let [alice, bob, node] = rig.homes(["alice", "bob", "node"]).await;
    let stream = released_by(&alice, &node, &[&bob]).await;
    drop(bob);
    lose_a_grant(&rig, alice, node, stream).await;
    let joined = open(&rig.again("bob").await).await;
    let node = rig.again("node").await;
    let stream = open(&node).await;
    let _releasing = stream.release().await.unwrap();
    assert_eq!(says(&joined).await, NodeStanding::Answers);
    // Whoever never saw it has it from there.
    let dave = rig.home("dave").await;
    let joined = join(&dave, &stream).await;
    assert_eq!(joined.who().await.unwrap().len(), 3);
}

/// Takes all that a topic holds, where a stranger may write something since.
async fn empty(rig: &Rig, topic: &str, then: &[u8]) {
    let (bus, topic) = (rig.bus().await, Topic::new(topic).unwrap());
    let end = bus.end(&topic).await.unwrap();
    bus.trim(&topic, end).await.unwrap();
    if !then.is_empty() {
        bus.append(&topic, vec![then.to_vec()]).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_lost_again_before_anybody_looked_is_put_back_again() {
    let rig = Rig::small();
    let [alice, node] = rig.homes(["alice", "node"]).await;
    let stream = released_by(&alice, &node, &[]).await;
    drop(open(&node).await);
    let of = [
        ControlTopic::Access(alice.user(), alice.device()),
        ControlTopic::Devices(alice.user()),
    ];
    let topics = of.map(|of| of.name(stream.id()));
    drop((stream, alice, node));
    for topic in topics {
        empty(&rig, &topic, b"").await;
        let node = rig.again("node").await;
        let seen = open(&node).await;
        assert!(!rig.items(&topic).await.is_empty());
        empty(&rig, &topic, b"?").await;
        let mut is_shown = Vec::new();
        for _ in 0..3 {
            seen.sync().await.unwrap();
            is_shown.push(seen.own_key_node().await.unwrap().is_shown_all);
        }
        assert_eq!(is_shown.last(), Some(&true), "{topic}: {is_shown:?}");
    }
}

/// What lies behind a fork of a list nobody takes, and it is not put there again and again.
#[tokio::test]
async fn a_list_that_forked_is_not_put_back() {
    const TEN_MONTHS_MS: u64 = 310 * 24 * 3600 * 1000;
    let (rig, time) = (Rig::small(), Time::new());
    let [alice, node] = rig.homes_by(["alice", "node"], &time).await;
    let stream = released_by(&alice, &node, &[]).await;
    let list = alice.user().devices_topic();
    drop((open(&node).await, stream, alice));
    copy_folder(&rig.path("bus"), &rig.path("bus copy"));
    copy_folder(&rig.path("alice"), &rig.path("clone"));
    let renew = async |of: &str, cards: usize| {
        time.pass(TEN_MONTHS_MS);
        drop(open(&rig.on(of, time.ground()).await).await);
        assert_eq!(rig.items(&list).await.len(), cards);
    };
    renew("alice", 2).await;
    renew("alice", 3).await;
    open(&node).await.sync().await.unwrap();
    drop(node);
    std::fs::remove_dir_all(rig.path("bus")).unwrap();
    copy_folder(&rig.path("bus copy"), &rig.path("bus"));
    renew("clone", 2).await;
    let seen = open(&rig.on("node", time.ground()).await).await;
    for _ in 0..3 {
        seen.sync().await.unwrap();
    }
    assert_eq!(rig.items(&list).await.len(), 2);
    let is_told = |of: &Alarm| matches!(of, Alarm::ListForked(_));
    assert!(seen.alarms().iter().any(is_told));
    assert!(seen.own_key_node().await.unwrap().is_shown_all);
}

#[tokio::test]
async fn an_inbox_that_takes_nothing_holds_up_its_own_replies_alone() {
    for manner in [Manner::Fail, Manner::Hang] {
        let rig = Rig::small();
        let [alice, bob, carol] = rig.homes(["alice", "bob", "carol"]).await;
        drop(rig.home("node").await);
        let (blocked, is_open) = (bob.device().inbox_topic(), Arc::new(AtomicBool::new(false)));
        let opens = is_open.clone();
        let ground = Meddler::ground(move |ask, topic| {
            let is_shut = ask == Ask::Append && topic == blocked && !opens.load(Ordering::SeqCst);
            if is_shut { manner } else { Manner::Honest }
        });
        let node = rig.on("node", ground).await;
        let stream = released_by(&alice, &node, &[&bob, &carol]).await;
        let node = open(&node).await;
        let releasing = node.release().await.unwrap();
        let (bob, carol) = (open(&bob).await, open(&carol).await);
        let wait = Duration::from_millis(500);
        assert_eq!(says_within(&bob, wait).await, NodeStanding::Silent);
        assert_eq!(says(&carol).await, NodeStanding::Answers);
        if manner == Manner::Fail {
            is_open.store(true, Ordering::SeqCst);
            assert_eq!(says(&bob).await, NodeStanding::Answers);
        }
        drop((releasing, stream));
    }
}

#[tokio::test]
async fn the_audit_is_gone_through_piece_by_piece_and_begun_anew_from_its_end() {
    let rig = Rig::small();
    let [alice, bob, node] = rig.homes(["alice", "bob", "node"]).await;
    released_by(&alice, &node, &[&bob]).await;
    let stream = open(&node).await;
    for _ in 0..512 {
        drop(stream.release().await.unwrap());
    }
    let releasing = stream.release().await.unwrap();
    assert_eq!(says(&open(&bob).await).await, NodeStanding::Answers);
    drop(releasing);
    let mut audit = stream.audit().await.unwrap();
    assert_eq!(audit.len(), 514);
    let (mut pieces, mut seq, mut released) = (0, 0, 0);
    loop {
        let lines = audit.next().await.unwrap();
        if lines.is_empty() {
            break;
        }
        pieces += 1;
        for line in lines {
            assert_eq!(line.seq, seq);
            seq += 1;
            released += usize::from(matches!(line.event, AuditedEvent::Asked(_)));
        }
    }
    assert_eq!((pieces, seq, released), (2, 514, 1));
}

/// Puts a request in a user's name into a node's inbox, made from one that it has, and not signed by that user.
async fn ask_in_the_name_of(rig: &Rig, asker: &Home, node: &Home) {
    let inbox = node.device().inbox_topic();
    let items = rig.items(&inbox).await;
    let mut requests = items.iter().map(|item| Unverified::decode(item));
    let request: Unverified<NodeRequest> = requests.find_map(Result::ok).unwrap();
    let forged = NodeRequest {
        user: asker.user(),
        device: asker.device(),
        ..request.claims().clone()
    };
    let forged = sign(&SigningKey::from_seed(&[7; 32]), forged).unwrap();
    let (bus, inbox) = (rig.bus().await, Topic::new(&inbox).unwrap());
    let items = vec![forged.wire().to_vec()];
    bus.append(&inbox, items).await.unwrap();
}

#[tokio::test]
async fn of_whom_the_access_log_does_not_name_no_list_is_read() {
    let rig = Rig::small();
    let [alice, bob, carol] = rig.homes(["alice", "bob", "carol"]).await;
    drop(rig.home("node").await);
    let (list, is_read) = (
        carol.user().devices_topic(),
        Arc::new(AtomicBool::new(false)),
    );
    let reads = is_read.clone();
    let ground = Meddler::ground(move |_, topic| {
        reads.fetch_or(topic == list, Ordering::SeqCst);
        Manner::Honest
    });
    let node = rig.on("node", ground).await;
    let stream = released_by(&alice, &node, &[&bob]).await;
    let seen = open(&node).await;
    let releasing = seen.release().await.unwrap();
    let joined = open(&bob).await;
    assert_eq!(says(&joined).await, NodeStanding::Answers);
    ask_in_the_name_of(&rig, &carol, &node).await;
    assert_eq!(says(&joined).await, NodeStanding::Answers);
    assert_eq!(releasing.counts().released, 2);
    assert!(!is_read.load(Ordering::SeqCst));
    drop(stream);
}

/// Whatever it is that panics: the machine's thread lives on anyhow. The last is its own task, the others those that it
/// waits for.
#[tokio::test]
async fn a_node_goes_on_after_one_of_its_tasks_panicked() {
    let asks = [
        (Ask::End, "/devices"),
        (Ask::Append, "/inbox"),
        (Ask::End, "/inbox"),
    ];
    for (ask, of) in asks {
        let rig = Rig::small();
        let [alice, bob] = rig.homes(["alice", "bob"]).await;
        drop(rig.home("node").await);
        let is_due = Arc::new(AtomicBool::new(false));
        let due = is_due.clone();
        let ground = Meddler::ground(move |asked, topic| {
            let is_it = asked == ask && topic.ends_with(of);
            assert!(!(is_it && due.swap(false, Ordering::SeqCst)), "as told");
            Manner::Honest
        });
        let node = rig.on("node", ground).await;
        let stream = released_by(&alice, &node, &[&bob]).await;
        let seen = open(&node).await;
        let releasing = seen.release().await.unwrap();
        // It has not looked after its inbox yet: it does when this waits.
        is_due.store(true, Ordering::SeqCst);
        let joined = open(&bob).await;
        let wait = Duration::from_secs(1);
        let answers = async { while says_within(&joined, wait).await != NodeStanding::Answers {} };
        tokio::time::timeout(LONG, answers).await.unwrap();
        assert!(!is_due.load(Ordering::SeqCst) && !releasing.has_ended());
        drop(stream);
    }
}

/// What a store lost it tells when it is opened; one that is open has no reason to look again.
#[tokio::test]
async fn an_audit_that_lost_its_end_under_a_running_node_is_not_begun_anew() {
    let rig = Rig::small();
    let [alice, node] = rig.homes(["alice", "node"]).await;
    let stream = released_by(&alice, &node, &[]).await;
    let seen = open(&node).await;
    drop(seen.release().await.unwrap());
    assert_eq!(seen.audit().await.unwrap().len(), 1);
    let store = rusqlite::Connection::open(rig.path("node/store.db")).unwrap();
    let lost = store.execute("DELETE FROM records WHERE space = 27", []);
    assert_eq!(lost.unwrap(), 1);
    for refused in [seen.audit().await.err(), seen.release().await.err()] {
        assert!(matches!(refused, Some(Error::Audit(_))), "{refused:?}");
    }
    drop(stream);
}

/// Somebody takes back what it approved, and the bus is put back to what it showed before.
#[tokio::test]
async fn a_node_releases_nothing_while_the_bus_shows_less_of_an_approver_than_it_did() {
    let rig = Rig::small();
    let [alice, bob, node] = rig.homes(["alice", "bob", "node"]).await;
    let ann = rig.home("ann").await;
    let stream = released_by(&alice, &node, &[&bob]).await;
    let approved = Demand::Approved(Approvers {
        needed: 1,
        of: vec![ann.user()],
    });
    let condition = Condition(vec![vec![approved]]);
    stream.set_condition(condition).await.unwrap();
    let approver = join(&ann, &stream).await;
    let bob_is = bob.user();
    approver
        .approve_release(bob_is, Position::END)
        .await
        .unwrap();
    drop((bob, stream, approver, ann, alice));
    copy_folder(&rig.path("bus"), &rig.path("bus copy"));
    let approver = open(&rig.again("ann").await).await;
    approver
        .approve_release(bob_is, Position::START)
        .await
        .unwrap();
    let seen = open(&node).await;
    assert_eq!(seen.release_approvals(&bob_is), []);
    drop((approver, seen, node));
    std::fs::remove_dir_all(rig.path("bus")).unwrap();
    copy_folder(&rig.path("bus copy"), &rig.path("bus"));

    let joined = open(&rig.again("bob").await).await;
    assert_eq!(joined.release_approvals(&bob_is).len(), 1);
    let node = rig.on("node", takes_replies_alone()).await;
    let seen = open(&node).await;
    let releasing = seen.release().await.unwrap();
    assert_eq!(says(&joined).await, refused(NodeRefusalReason::LogBehind));
    assert!(releasing.is_bus_short());
    // Ann puts it back.
    drop(open(&rig.again("ann").await).await);
    assert_eq!(says(&joined).await, refused(NodeRefusalReason::Condition));
}

/// What was left half changed may lack a removal.
#[tokio::test]
async fn a_node_ends_where_something_panicked_that_had_what_is_known_in_its_hands() {
    let rig = Rig::small();
    let [alice, bob] = rig.homes(["alice", "bob"]).await;
    drop(rig.home("node").await);
    let is_due = Arc::new(AtomicBool::new(false));
    let (due, here) = (is_due.clone(), std::thread::current().id());
    // The machine is told the time on another thread, which holds the view meanwhile.
    let clock = Clock::new(move || {
        let is_machine = std::thread::current().id() != here;
        assert!(
            !(is_machine && due.swap(false, Ordering::SeqCst)),
            "as told"
        );
        Clock::system().now()
    });
    let ground = Ground {
        clock,
        ..Ground::default()
    };
    let node = rig.on("node", ground).await;
    let stream = released_by(&alice, &node, &[&bob]).await;
    let seen = open(&node).await;
    let releasing = seen.release().await.unwrap();
    let joined = open(&bob).await;
    is_due.store(true, Ordering::SeqCst);
    while !releasing.has_ended() {
        let said = says_within(&joined, Duration::from_secs(1)).await;
        assert_ne!(said, NodeStanding::Answers);
    }
    assert!(!is_due.load(Ordering::SeqCst));
    drop(stream);
}

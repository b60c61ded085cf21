//! The `ask` topic loses what it likes: little is sent again, and nothing given twice.

use sealcast_engine::{LEASE_MS, SharedWith};
use sealcast_protocol::AskItem;

use crate::asking::rig::Net;
use crate::rig::{NOON, OWNER, since};

/// What was lost on the `ask` topic lies in the asker's inbox.
#[test]
fn a_receipt_that_a_keyholder_missed_keeps_it_from_giving_again() {
    let mut net = Net::new(14);
    let reader = net.reader(since(NOON));
    let holders = [OWNER, net.admin(), net.admin()];
    net.answers(OWNER);
    for holder in holders {
        net.nodes[holder].misses = |item| matches!(item, AskItem::Receipt(_));
    }
    net.world.publish(OWNER, "one").unwrap();
    net.learn();
    net.read(reader);
    net.run(5_000);
    assert_eq!(net.opened(reader), ["one"]);
    let open = |net: &Net| holders.map(|of| net.nodes[of].responder.open_requests());
    assert_eq!(open(&net).iter().sum::<usize>(), 2, "but the giver's");
    net.run(1_000);
    assert_eq!(open(&net), [0, 0, 0]);
    assert_eq!((net.sent.claims, net.sent.bundles), (1, 1));
}

#[test]
fn a_co_reader_who_missed_all_that_others_said_looks_before_it_gives() {
    for is_given in [true, false] {
        let mut net = Net::new(15);
        let (reader, resharer) = (net.reader(since(NOON)), net.resharer(since(NOON)));
        net.world.publish(OWNER, "one").unwrap();
        net.world
            .share(OWNER, SharedWith::User(net.world.id(resharer)));
        net.learn();
        net.nodes[OWNER].answers = is_given;
        net.answers(resharer);
        net.nodes[resharer].misses = |item| !matches!(item, AskItem::Solicitation(_));
        net.read(reader);
        net.run(5_000);
        assert_eq!(net.opened(reader), ["one"]);
        let givers: Vec<_> = net.given.iter().map(|of| of.0).collect();
        assert_eq!(givers, [if is_given { OWNER } else { resharer }]);
    }
}

#[test]
fn a_request_that_was_lost_is_sent_once_more() {
    let mut net = Net::new(16);
    let reader = net.reader(since(NOON));
    net.answers(OWNER);
    net.world.publish(OWNER, "one").unwrap();
    net.learn();
    net.loses = 1;
    net.read(reader);
    net.run(250 + LEASE_MS - 1);
    assert_eq!(net.sent.solicitations, 1);
    net.run(1_000);
    assert_eq!(net.opened(reader), ["one"]);
    assert_eq!(net.asked[0], net.asked[1]);
    // Once, whoever does not hear it; and not at all where somebody has answered.
    net.world.rekey(OWNER);
    net.world.publish(OWNER, "two").unwrap();
    net.learn();
    net.loses = 2;
    net.read(reader);
    net.run(30_000);
    assert_eq!((net.sent.solicitations, net.sent.bundles), (4, 1));
    net.run(60_000);
    assert_eq!(net.opened(reader), ["one", "two"]);
    assert_eq!((net.sent.solicitations, net.sent.bundles), (5, 2));
}

//! Which secret what is sealed opens by, when key nodes go, more are needed, or there are none any more.

use std::collections::BTreeSet;

use sealcast_crypto::{NodeShare, Quorum};
use sealcast_engine::{DealtLane, KnownDeal};
use sealcast_protocol::{
    CardRevocation, Condition, Deal, Interval, ListBody, Position, Roles, SegmentRecords,
    SessionId, Unverified,
};

use super::rig::{Asking, Net};
use crate::rig::{OWNER, since};

/// A share of a deal, as the node was given it.
struct Held(KnownDeal, NodeShare);

impl Net {
    /// All shares that a node holds.
    fn shares_of(&self, at: usize) -> Vec<Held> {
        let view = &self.world.peers[self.nodes[at].peer].view;
        let deals = view.deals().filter_map(|(id, deal)| {
            let share = view.share(id)?;
            let copy = NodeShare::from_bytes(share.index(), share.expose()).unwrap();
            Some(Held(deal.clone(), copy))
        });
        deals.collect()
    }

    /// The sessions of which somebody opens a record who has these shares, and asks nobody.
    fn sessions_opened_with(&mut self, shares: &[Held]) -> BTreeSet<SessionId> {
        let mut opened = BTreeSet::new();
        for item in self.world.keys() {
            let Ok(records) = Unverified::<SegmentRecords>::decode(item) else {
                continue;
            };
            let records = records.claims();
            for Held(deal, _) in shares {
                for record in &records.records {
                    let labels = vec![records.label(record).unwrap()];
                    let mut quorum = Quorum::new(deal.dealing.clone(), labels.clone());
                    for Held(_, share) in shares.iter().filter(|of| of.0 == *deal) {
                        let answer = share.answer(&mut crate::rng::Seeded::new(1), &labels);
                        quorum.take(share.index(), answer.expose()).unwrap();
                    }
                    let keys = quorum.open(&[record.sealed]);
                    if keys.is_ok_and(|of| of.keys[0].is_some()) {
                        opened.insert(records.session);
                    }
                }
            }
        }
        opened
    }

    fn deals(&self) -> usize {
        let is_deal = |item: &&Vec<u8>| Unverified::<Deal>::decode(item).is_ok();
        self.world.keys().iter().filter(is_deal).count()
    }

    fn publish_one(&mut self, text: &str) -> SessionId {
        let header = self.world.publish(OWNER, text).unwrap();
        self.world.tick(60_000);
        self.sync_nodes();
        header.session
    }

    fn sync_nodes(&mut self) {
        for at in 0..self.nodes.len() {
            self.world.sync(self.nodes[at].peer);
        }
    }

    /// One whose device list is not on the bus yet: it, and where it belongs.
    fn add_node_without_card(&mut self) -> (String, Vec<Vec<u8>>) {
        let peer = self.add_node();
        let list = self.world.id(peer).devices_topic();
        let card = self.world.bus.remove(&list).unwrap();
        (list, card)
    }

    /// Which of the nodes a user is.
    fn at(&self, peer: usize) -> usize {
        self.nodes.iter().position(|of| of.peer == peer).unwrap()
    }

    fn replace(&mut self, old: usize) -> usize {
        let new = self.add_node();
        let out: Vec<usize> = self.gone.iter().copied().chain([old]).collect();
        self.gone = out;
        let stay = 0..self.nodes.len();
        let stay: Vec<_> = stay
            .filter(|at| !self.gone.contains(&self.nodes[*at].peer))
            .collect();
        self.name_some(2, Condition::default(), &stay);
        new
    }
}

/// Both were members of a set of which two are needed, one after the other.
#[test]
fn nodes_that_were_replaced_open_nothing_that_is_sealed_later() {
    let mut net = Net::new(2, 3);
    let before = net.publish_one("before");
    let peers: Vec<_> = net.nodes.iter().map(|of| of.peer).collect();
    net.replace(peers[0]);
    let between = net.publish_one("between");
    net.replace(peers[1]);
    let after = net.publish_one("after");
    assert!(before != between && between != after);

    let gone: Vec<_> = [peers[0], peers[1]]
        .into_iter()
        .flat_map(|peer| net.shares_of(net.at(peer)))
        .collect();
    assert_eq!(net.sessions_opened_with(&gone), BTreeSet::from([before]));
    // With one that is in force they are two for what was sealed while it was one of theirs.
    let stays = net.at(peers[2]);
    let gone = net.shares_of(net.at(peers[0]));
    let with_one: Vec<_> = gone.into_iter().chain(net.shares_of(stays)).collect();
    assert_eq!(
        net.sessions_opened_with(&with_one),
        BTreeSet::from([before])
    );
}

#[test]
fn what_was_sealed_for_nodes_that_are_gone_opens_by_those_in_force() {
    let mut net = Net::new(2, 3);
    net.publish_one("before");
    let peers: Vec<_> = net.nodes.iter().map(|of| of.peer).collect();
    net.replace(peers[0]);
    net.publish_one("between");
    net.replace(peers[1]);
    net.publish_one("after");
    for peer in [peers[0], peers[1]] {
        let at = net.at(peer);
        net.nodes[at].is_up = false;
    }
    let reader = net.reader_of_all();
    net.unlock(reader);
    assert_eq!(net.world.opened(reader), ["before", "between", "after"]);
}

#[test]
fn as_few_as_were_needed_once_open_nothing_that_is_sealed_after_more_are() {
    let mut net = Net::new(1, 3);
    let before = net.publish_one("before");
    net.name(2, Condition::default());
    let after = net.publish_one("after");
    assert_ne!(before, after);
    for at in 0..3 {
        let held = net.shares_of(at);
        assert_eq!(net.sessions_opened_with(&held), BTreeSet::from([before]));
    }
    let reader = net.reader_of_all();
    net.unlock(reader);
    assert_eq!(net.world.opened(reader), ["before", "after"]);
}

/// The nodes have shares of the first deal, too, in which all of them are needed.
#[test]
fn when_fewer_are_needed_as_few_open_what_was_sealed_before() {
    for silent in 0..3 {
        let mut net = Net::new(3, 3);
        net.publish_one("before");
        for threshold in [2, 1] {
            net.name(threshold, Condition::default());
            net.world.deal(OWNER);
            let reader = net.reader_of_all();
            net.nodes[silent].is_up = threshold == 1;
            net.nodes[(silent + 1) % 3].is_up = threshold == 2;
            net.nodes[(silent + 2) % 3].is_up = threshold == 2;
            net.unlock(reader);
            assert_eq!(net.world.opened(reader), ["before"]);
        }
    }
}

#[test]
fn a_deal_for_fewer_than_are_needed_now_is_not_asked_for_and_not_answered() {
    let mut net = Net::new(1, 3);
    net.publish(&["one"]);
    let reader = net.reader_of_all();
    let mut asking = Asking::new(&mut net, reader);
    let asked = asking.sent[0].clone();
    asking.step(&mut net);
    net.name(2, Condition::default());
    let other = net.reader_of_all();
    let asking = Asking::new(&mut net, other);
    assert_eq!(asking.told, "left to others\n");

    let again = net.resigned(reader, &asked, |of| {
        of.request.0[0] ^= 1;
        of.nodes = vec![1, 2, 3];
        of.time = net.world.now;
        of.expires = net.world.now.after(30_000);
    });
    for at in 0..3 {
        net.put_in_inbox(net.nodes[at].peer, again.wire());
    }
    net.run_nodes();
    for at in 0..3 {
        let last = format!("{:?}", net.nodes[at].audit.last().unwrap().event);
        assert!(last.ends_with("UnknownDeal)"), "{last}");
    }
}

#[test]
fn a_secret_that_is_said_to_be_known_seals_nothing_more() {
    let mut net = Net::new(2, 3);
    let before = net.publish_one("before");
    net.name_with(2, Condition::default(), &[0, 1, 2], 1);
    let after = net.publish_one("after");
    assert_ne!(before, after);
    let secrets: BTreeSet<_> = net.shares_of(0).iter().map(|of| of.0.secret()).collect();
    assert_eq!(secrets.len(), 2);
    let reader = net.reader_of_all();
    net.unlock(reader);
    assert_eq!(net.world.opened(reader), ["before", "after"]);
}

#[test]
fn a_publisher_that_was_put_back_to_an_older_state_sees_on_the_bus_whom_it_dealt_to() {
    let mut net = Net::new(2, 3);
    let before = net.publish_one("before");
    let old = net.world.peers[OWNER].dealt.as_ref().unwrap().to_bytes();
    let new = net.add_node();
    net.name(2, Condition::default());
    net.world.deal(OWNER);
    net.gone.push(new);
    let stay: Vec<_> = (0..4).filter(|at| net.nodes[*at].peer != new).collect();
    net.name_some(2, Condition::default(), &stay);
    net.sync_nodes();
    net.world.peers[OWNER].dealt = DealtLane::from_bytes(old.expose());
    let after = net.publish_one("after");
    assert_ne!(before, after);
    let held = net.shares_of(net.at(new));
    let one = net.shares_of(stay[0]);
    let both: Vec<_> = held.into_iter().chain(one).collect();
    assert_eq!(net.sessions_opened_with(&both), BTreeSet::from([before]));
}

/// A segment that was sealed for them reaches weeks ahead.
#[test]
fn nodes_open_nothing_of_what_is_sealed_when_there_are_none_any_more() {
    let mut net = Net::new(1, 1);
    let before = net.publish_one("before");
    net.name_some(0, Condition::default(), &[]);
    let after = net.publish_one("after");
    assert_ne!(before, after);
    let held = net.shares_of(0);
    assert_eq!(net.sessions_opened_with(&held), BTreeSet::from([before]));
}

#[test]
fn a_node_whose_card_is_revoked_is_dealt_nothing_and_the_others_go_on() {
    let mut net = Net::new(2, 3);
    let before = net.publish_one("before");
    let out = net.nodes[1].peer;
    let revoked = ListBody::Revoke(CardRevocation {
        device: net.world.device(out),
        time: net.world.now,
    });
    net.world.list(out, revoked);
    net.world.sync(OWNER);
    // It is looked at as often as there are records to make.
    net.world.tick(1 << 20);
    let after = net.publish_one("after");
    assert_ne!(before, after);
    let (one, two) = (net.shares_of(0), net.shares_of(1));
    assert_eq!(two.len(), 1);
    let both: Vec<_> = one.into_iter().chain(two).collect();
    assert_eq!(net.sessions_opened_with(&both), BTreeSet::from([before]));
    net.nodes[1].is_up = false;
    let reader = net.reader_of_all();
    net.unlock(reader);
    assert_eq!(net.world.opened(reader), ["before", "after"]);
}

/// Its card is known to nobody before it is on the bus.
#[test]
fn one_node_without_a_card_does_not_keep_the_others_from_being_dealt_to() {
    let mut net = Net::new(1, 2);
    let (late, card) = net.add_node_without_card();
    net.name(2, Condition::default());
    net.publish(&["one"]);
    assert_eq!(net.deals(), 1);
    let reader = net.reader_of_all();
    net.unlock(reader);
    assert_eq!(net.world.opened(reader), ["one"]);

    net.world.bus.insert(late, card);
    for _ in 0..2 {
        net.world.deal(OWNER);
        assert_eq!(net.deals(), 2);
    }
    net.sync_nodes();
    for at in 0..3 {
        let held = net.shares_of(at);
        assert!(held.iter().any(|of| of.0.holders.len() == 3));
    }
    for silent in 0..3 {
        let phone = net.world.device_of(reader);
        net.nodes[silent].is_up = false;
        net.unlock(phone);
        net.nodes[silent].is_up = true;
        assert_eq!(net.world.opened(phone), ["one"]);
    }
}

#[test]
fn fewer_cards_than_are_needed_are_no_deal() {
    let mut net = Net::new(1, 1);
    net.add_node_without_card();
    net.name(2, Condition::default());
    net.publish(&["one"]);
    assert_eq!(net.deals(), 0);
}

#[test]
fn a_condition_is_no_reason_to_deal_again() {
    let mut net = Net::new(2, 3);
    let first = net.publish_one("before there is one");
    let mut before = None;
    for minutes in 1..=100 {
        let later = net.world.now.after(minutes * 60_000);
        let demand = sealcast_protocol::Demand::Before(later);
        net.name(2, Condition(vec![vec![demand]]));
        net.world.deal(OWNER);
        // That of another session is the first alone.
        let now = net.publish_one("text");
        assert_ne!(now, first);
        assert_eq!(*before.get_or_insert(now), now);
    }
    assert_eq!(net.deals(), 1);
}

#[test]
fn nodes_may_change_more_often_than_a_device_has_room_for_deals() {
    let mut net = Net::new(1, 2);
    net.publish(&["one"]);
    for turn in 0..1_100 {
        net.name_some(1, Condition::default(), &[turn % 2]);
        net.world.deal(OWNER);
    }
    let set = net.name_some(1, Condition::default(), &[0, 1]);
    net.world.deal(OWNER);
    let reader = net.reader_of_all();
    net.unlock(reader);
    assert_eq!(net.world.opened(reader), ["one"]);
    // Older ones may do, and the newest is there.
    let view = &net.world.peers[reader].view;
    assert!(view.deals().any(|(_, deal)| deal.set == set));
}

/// What was dealt to nodes that are all gone opens again when its publisher comes by.
#[test]
fn a_publisher_who_was_away_while_nodes_changed_comes_back() {
    let mut net = Net::new(2, 3);
    let pam = net.world.user();
    net.world
        .write_grant(OWNER, pam, Roles::PUBLISHER, Interval::ALL)
        .unwrap();
    net.world.publish(pam, "one").unwrap();
    let peers: Vec<_> = net.nodes.iter().map(|of| of.peer).collect();
    for old in &peers {
        net.replace(*old);
        let at = net.at(*old);
        net.nodes[at].is_up = false;
    }
    let reader = net.reader(since(Position::START));
    net.unlock(reader);
    assert!(net.world.opened(reader).is_empty());
    net.world.deal(pam);
    net.world.sync(reader);
    net.world.tick(120_000);
    net.unlock(reader);
    assert_eq!(net.world.opened(reader), ["one"]);
    // And goes on, with a secret that those who are gone never saw.
    net.world.publish(pam, "two").unwrap();
    net.sync_nodes();
    let gone: Vec<_> = peers
        .iter()
        .flat_map(|peer| net.shares_of(net.at(*peer)))
        .collect();
    assert_eq!(net.sessions_opened_with(&gone).len(), 1);
}

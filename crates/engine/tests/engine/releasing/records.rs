//! Which segment records a device holds.

use sealcast_crypto::SEALED_SEGMENT_LEN;
use sealcast_engine::Alarm;
use sealcast_protocol::{
    Condition, Grant, Interval, KeyNodes, LogBody, Position, Roles, Segment, SegmentRecord,
    SegmentRecords, SessionId, Unverified, sign,
};

use super::rig::Net;
use crate::rig::{NOON, OWNER, between, since};

/// Seals records of so many quarters of an hour, one behind the other.
fn cover(net: &mut Net, quarters: u64) -> SessionId {
    net.publish(&["one"]);
    let session = net.world.peers[OWNER].lane.session;
    for number in 1..quarters {
        net.world.cover(OWNER, session, NOON.after(number << 20));
    }
    session
}

#[test]
fn of_segments_that_lie_in_each_other_the_largest_is_held() {
    let mut net = Net::new(1, 1);
    let (all, some) = (
        net.reader_of_all(),
        net.reader(between(Position::START, NOON.after(40 << 20))),
    );
    let session = cover(&mut net, 100);
    let held = |net: &mut Net, peer: usize| {
        net.world.sync(peer);
        net.world.peers[peer].view.segment_records(&session)
    };
    let node = net.nodes[0].peer;
    for _ in 0..2 {
        assert_eq!(held(&mut net, all), 1);
        assert!((2..60).contains(&held(&mut net, some)));
        // A node opens none, and this one may read nothing.
        assert_eq!(held(&mut net, node), 0);
        for peer in [all, some, node] {
            net.world.restart(peer);
        }
    }
    assert!(net.world.keys().len() > 100);
    for reader in [all, some] {
        net.unlock(reader);
        assert_eq!(net.world.opened(reader), ["one"]);
    }
}

#[test]
fn what_was_passed_over_is_read_again_when_the_log_gives_more() {
    for restarts in [false, true] {
        let mut net = Net::new(1, 1);
        net.publish(&["one"]);
        let reader = net.world.user();
        net.world.sync(reader);
        for interval in [between(Position::START, NOON), since(NOON), Interval::ALL] {
            if restarts {
                net.world.restart(reader);
            }
            net.world.tick(1);
            net.world
                .write_grant(OWNER, reader, Roles::READER, interval)
                .unwrap();
            net.world.sync(reader);
        }
        net.unlock(reader);
        assert_eq!(net.world.opened(reader), ["one"]);
    }
}

/// While a fork has taken the key nodes there is nothing to be asked for, and what is passed over then is missed later,
/// whatever the log gave before that.
#[test]
fn what_was_passed_over_while_no_nodes_were_in_force_is_read_again_when_some_are() {
    for (restarts_before, restarts_behind) in [(false, false), (false, true), (true, true)] {
        let mut net = Net::new(1, 1);
        let admin = net.world.user();
        net.world
            .write_grant(OWNER, admin, Roles::ADMIN, Interval::ALL)
            .unwrap();
        let reader = net.reader_of_all();
        net.world.sync(reader);
        net.world.revoke_user(OWNER, reader).unwrap();
        net.publish(&["one"]);
        let set = KeyNodes {
            threshold: 1,
            nodes: vec![net.key_node(0)],
            condition: Condition::default(),
            generation: 0,
        };
        net.world.write(admin, LogBody::KeyNodes(set)).unwrap();
        net.fork(admin);
        net.world.sync(reader);
        assert!(net.world.peers[reader].view.state().key_nodes().is_none());
        if restarts_before {
            net.world.restart(reader);
        }
        net.world.tick(1);
        net.world
            .write_grant(OWNER, reader, Roles::READER, Interval::ALL)
            .unwrap();
        net.world.sync(reader);
        if restarts_behind {
            net.world.restart(reader);
        }
        net.name(1, Condition::default());
        net.unlock(reader);
        assert_eq!(net.world.opened(reader), ["one"]);
    }
}

#[test]
fn where_the_log_gives_less_than_before_smaller_ones_are_held() {
    let mut net = Net::new(1, 1);
    let reader = net.reader_of_all();
    let session = cover(&mut net, 10);
    net.world.sync(reader);
    assert_eq!(net.world.peers[reader].view.segment_records(&session), 1);
    net.world.revoke_user(OWNER, reader).unwrap();
    net.world.tick(1);
    let some = between(Position::START, NOON.after(4 << 20));
    net.world
        .write_grant(OWNER, reader, Roles::READER, some)
        .unwrap();
    net.world.sync(reader);
    assert!(net.world.peers[reader].view.segment_records(&session) > 1);
    net.unlock(reader);
    assert_eq!(net.world.opened(reader), ["one"]);
}

impl Net {
    /// Has a publisher write so many thousand records of segments of its newest session that lie nowhere near
    /// what it sealed, and open nothing.
    pub(super) fn flood(&mut self, publisher: usize, thousands: u64) -> SessionId {
        let device = self.world.device(publisher);
        let items = self.world.keys().iter().rev();
        let made = items.filter_map(|item| Unverified::<SegmentRecords>::decode(item).ok());
        let mut made = made.map(|of| of.claims().clone());
        let mut body = made.find(|of| of.dealer.device == device).unwrap();
        for number in 0..thousands {
            let segments = (0..1_024).map(|at| Segment {
                depth: 32,
                index: number * 1_024 + at,
            });
            let sealed = [0; SEALED_SEGMENT_LEN];
            body.records = segments
                .map(|segment| SegmentRecord { segment, sealed })
                .collect();
            let identity = &self.world.peers[publisher].identity;
            let wire = sign(identity.signing(), body.clone()).unwrap();
            let wire = wire.wire().to_vec();
            self.world.put_key_item(&wire);
        }
        body.session
    }
}

#[test]
fn what_there_is_no_room_for_is_told_once() {
    let mut net = Net::new(1, 1);
    let reader = net.reader_of_all();
    net.publish(&["one"]);
    let session = net.flood(OWNER, 257);
    net.world.sync(reader);
    let told = &net.world.peers[reader].alarms;
    assert_eq!(told.as_slice(), [Alarm::RecordsFull]);
    assert_eq!(
        net.world.peers[reader].view.segment_records(&session),
        1 << 18
    );
}

/// Whoever fills the room leaves the others theirs, whoever came first.
#[test]
fn what_one_publisher_fills_is_no_other_ones_room() {
    let mut net = Net::new(1, 1);
    let reader = net.reader_of_all();
    let pam = net.world.user();
    net.world
        .write_grant(OWNER, pam, Roles::PUBLISHER, Interval::ALL)
        .unwrap();
    net.world.publish(pam, "hers").unwrap();
    let session = net.flood(pam, 257);
    net.publish(&["one"]);
    net.world.sync(reader);
    let told = &net.world.peers[reader].alarms;
    assert_eq!(told.as_slice(), [Alarm::RecordsFull]);
    let held = net.world.peers[reader].view.segment_records(&session);
    assert!((1 << 18) - 60 < held && held < 1 << 18);
    net.unlock(reader);
    assert!(net.world.opened(reader).contains(&"one".to_owned()));
}

/// A publisher may write as many grants of its own lane as it likes.
#[test]
fn who_changes_what_may_be_read_without_end_has_no_more_read_than_once_a_minute() {
    let mut net = Net::new(1, 1);
    let pam = net.world.user();
    net.world
        .write_grant(OWNER, pam, Roles::PUBLISHER, Interval::ALL)
        .unwrap();
    net.world.publish(pam, "one").unwrap();
    let reader = net.world.user();
    net.world.sync(reader);
    let grant = |net: &mut Net, number: u64| {
        let grant = Grant {
            user: net.world.id(reader),
            devices: Vec::new(),
            roles: Roles::READER,
            lanes: vec![net.world.id(pam)],
            interval: since(Position(NOON.0 - ((number + 2) << 16))),
            reshare: false,
        };
        net.world.write(pam, LogBody::Grant(grant)).unwrap();
        net.world.sync(reader);
        net.world.peers[reader].rereads
    };
    assert_eq!(grant(&mut net, 0), 1);
    net.unlock(reader);
    assert_eq!(net.world.opened(reader), ["one"]);
    for number in 1..100 {
        grant(&mut net, number);
    }
    assert_eq!(net.world.peers[reader].rereads, 64);
    assert!(net.world.peers[reader].view.owes_reread());
    net.world.tick(60_000);
    net.world.sync(reader);
    assert_eq!(net.world.peers[reader].rereads, 65);
    assert!(!net.world.peers[reader].view.owes_reread());
    // What another one grants is read at once all the same.
    grant(&mut net, 100);
    net.publish(&["two"]);
    let both = since(Position::START);
    net.world
        .write_grant(OWNER, reader, Roles::READER, both)
        .unwrap();
    net.world.sync(reader);
    net.unlock(reader);
    assert_eq!(net.world.opened(reader), ["one", "two"]);
}

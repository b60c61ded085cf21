//! Which segment records a device holds.

use sealcast_crypto::SEALED_SEGMENT_LEN;
use sealcast_engine::Alarm;
use sealcast_protocol::{
    Interval, Position, Roles, Segment, SegmentRecord, SegmentRecords, SessionId, Unverified, sign,
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

#[test]
fn what_there_is_no_room_for_is_told_once() {
    let mut net = Net::new(1, 1);
    let reader = net.reader_of_all();
    net.publish(&["one"]);
    let items = net.world.keys().iter();
    let made = items.filter_map(|item| Unverified::<SegmentRecords>::decode(item).ok());
    let mut body = made.map(|of| of.claims().clone()).next().unwrap();
    for number in 0..=256 {
        let segments = (0..1_024).map(|at| Segment {
            depth: 32,
            index: number * 1_024 + at,
        });
        let sealed = [0; SEALED_SEGMENT_LEN];
        body.records = segments
            .map(|segment| SegmentRecord { segment, sealed })
            .collect();
        let identity = &net.world.peers[OWNER].identity;
        let wire = sign(identity.signing(), body.clone()).unwrap();
        let wire = wire.wire().to_vec();
        net.world.put_key_item(&wire);
    }
    net.world.sync(reader);
    let told = &net.world.peers[reader].alarms;
    assert_eq!(told.as_slice(), [Alarm::RecordsFull]);
    let session = body.session;
    assert_eq!(
        net.world.peers[reader].view.segment_records(&session),
        1 << 18
    );
}

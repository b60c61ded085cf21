//! Which segment records a device holds.

use sealcast_protocol::{Interval, Position, Roles, SessionId};

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

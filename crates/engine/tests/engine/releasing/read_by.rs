//! Another run, or another process of the home, may have read the keys by other knowledge.

use sealcast_engine::{ControlTopic, ReadBy};
use sealcast_protocol::{Grant, Interval, LogBody, Roles};

use super::rig::Net;
use crate::rig::{OWNER, World, read_on, since};

fn read_by(net: &Net, peer: usize) -> ReadBy {
    net.world.peers[peer].view.read_by()
}

/// Whether the keys are read again from their start in a run that begins after they were read by that.
fn rereads(net: &mut Net, peer: usize, by: Option<ReadBy>) -> bool {
    let by = by.map(|by| ReadBy::from_bytes(&by.to_bytes()).unwrap());
    net.world.restart(peer);
    let view = &mut net.world.peers[peer].view;
    view.restore_read_by(by.as_ref());
    view.needs_reread(net.world.now)
}

#[test]
fn keys_are_read_again_where_what_they_were_read_by_is_not_known_or_changed() {
    let mut net = Net::new(1, 1);
    let (reader, pam) = (net.world.user(), net.world.user());
    // What was given by who could do it again is read once, and not each time.
    for _ in 0..2 {
        net.world
            .write_grant(OWNER, pam, Roles::PUBLISHER, Interval::ALL)
            .unwrap();
        net.world.sync(reader);
        net.world.revoke_user(OWNER, pam).unwrap();
    }
    net.world
        .write_grant(OWNER, pam, Roles::PUBLISHER, Interval::ALL)
        .unwrap();
    net.world.sync(reader);
    let before = read_by(&net, reader);
    assert!(!rereads(&mut net, reader, Some(before)));
    assert!(rereads(&mut net, reader, None));
    let now = net.world.now;
    net.world
        .write_grant(OWNER, reader, Roles::READER, since(now))
        .unwrap();
    net.world.sync(reader);
    let granted = read_by(&net, reader);
    assert!(rereads(&mut net, reader, Some(before)));
    assert!(!rereads(&mut net, reader, Some(granted)));
    net.world.device_of(pam);
    net.world.sync(reader);
    let with_device = read_by(&net, reader);
    assert!(rereads(&mut net, reader, Some(granted)));
    assert!(!rereads(&mut net, reader, Some(with_device)));
    assert_eq!(ReadBy::from_bytes(&with_device.to_bytes()[1..]), None);
}

/// A publisher's grant may be read later than what it published by that.
#[test]
fn a_deal_that_came_before_its_dealers_grant_is_read_again() {
    for is_named in [false, true] {
        let mut net = Net::new(1, 1);
        let (reader, pam) = (net.reader_of_all(), net.world.user());
        if is_named {
            let reads = Grant {
                user: net.world.id(pam),
                devices: Vec::new(),
                roles: Roles::READER,
                lanes: Vec::new(),
                interval: Interval::ALL,
                reshare: true,
            };
            net.world.write(OWNER, LogBody::Grant(reads)).unwrap();
        }
        let node = net.nodes[0].peer;
        for peer in [reader, node] {
            net.world.sync(peer);
        }
        net.world
            .write_grant(OWNER, pam, Roles::PUBLISHER, Interval::ALL)
            .unwrap();
        net.world.publish(pam, "one").unwrap();
        for peer in [reader, node] {
            let peer = &mut net.world.peers[peer];
            read_on(&net.world.bus, net.world.stream, peer, &ControlTopic::Keys);
            peer.view.settle();
        }
        net.unlock(reader);
        assert_eq!(net.world.opened(reader), ["one"], "{is_named}");
    }
}

/// A device list may be read before the entry by which its user publishes, and the record of one of its devices before both.
#[test]
fn what_was_passed_over_as_a_strangers_is_read_again_once_its_user_may_give() {
    let mut world = World::new(7);
    let (reader, pam) = (world.user(), world.user());
    world
        .grant(OWNER, reader, Roles::READER, Interval::ALL)
        .unwrap();
    world.sync(reader);
    world
        .grant(OWNER, pam, Roles::PUBLISHER, Interval::ALL)
        .unwrap();
    world.publish(pam, "one").unwrap();
    let pams = ControlTopic::Devices(world.id(pam));
    let peer = &mut world.peers[reader];
    read_on(&world.bus, world.stream, peer, &ControlTopic::Keys);
    peer.view.settle();
    let by = peer.view.read_by();
    world.restart(reader);
    let peer = &mut world.peers[reader];
    peer.view.restore_read_by(Some(&by));
    read_on(&world.bus, world.stream, peer, &pams);
    peer.view.settle();
    assert!(!peer.view.needs_reread(world.now));
    world.sync(reader);
    assert_eq!(world.opened(reader), ["one"]);
}

//! What lies in a stream's control topics and was written by none of those whose topics they are.

use sealcast_crypto::SigningKey;
use sealcast_engine::{Alarm, ControlTopic};
use sealcast_protocol::{Bundle, ListEntry, LogEntry, Roles, Signable, Unverified, sign};

use crate::rig::{OWNER, World};

fn topics(world: &World) -> [ControlTopic; 3] {
    let (user, device) = (world.id(OWNER), world.device(OWNER));
    let devices = ControlTopic::Devices(user);
    [
        devices,
        ControlTopic::Access(user, device),
        ControlTopic::Keys,
    ]
}

/// The last object of its kind in a topic of the owner's, altered and signed anew.
fn altered<T: Signable + Clone>(
    world: &World,
    of: &ControlTopic,
    key: &SigningKey,
    alter: impl Fn(&mut T),
) -> Vec<u8> {
    let items = world.bus[&of.name(world.stream)].iter();
    let decoded = items.flat_map(|item| Unverified::<T>::decode(item));
    let mut body = decoded.last().unwrap().claims().clone();
    alter(&mut body);
    sign(key, body).unwrap().wire().to_vec()
}

/// What newer programs may write, of this shape or another.
fn newer(world: &World) -> Vec<(ControlTopic, Vec<u8>)> {
    let topics = topics(world);
    let of_shape = topics.map(|topic| {
        let mut item = world.bus[&topic.name(world.stream)][0].clone();
        // `[body, signature]`, and the body a string of bytes with an array, the first of which is the version.
        let body = if item[1] == 0x58 { 3 } else { 4 };
        assert_eq!(item[body + 1], 1);
        item[body + 1] = 2;
        (topic, item)
    });
    // `[[2, "more"], signature]`, and as much as no object has.
    let short = [
        &[0x82, 0x47, 0x82, 0x02, 0x64][..],
        b"more",
        &[0x58, 0x40],
        &[7; 64],
    ]
    .concat();
    let len = 1 << 20;
    let head = [0x82, 0x5a, 0x00, 0x10, 0x00, 0x00, 0x82, 0x02];
    let long = [&head[..], &vec![0x58; len - 2], &[0x58, 0x40], &[7; 64]].concat();
    let others = topics.into_iter();
    let others = others.flat_map(|of| [(of, short.clone()), (of, long.clone())]);
    of_shape.into_iter().chain(others).collect()
}

/// What another device signed in the owner's name.
fn in_its_name(world: &World, other: usize) -> [Vec<u8>; 3] {
    let [devices, access, keys] = topics(world);
    let identity = &world.peers[other].identity;
    let (root, key) = (identity.root().unwrap(), identity.signing());
    [
        altered::<ListEntry>(world, &devices, root, |of| of.time = of.time.after(1)),
        altered::<LogEntry>(world, &access, key, |of| of.time = of.time.after(1)),
        altered::<Bundle>(world, &keys, key, |_| ()),
    ]
}

#[test]
fn what_others_put_into_control_topics_is_told_once_of_each_and_changes_nothing() {
    let mut world = World::new(98);
    let (reader, mallory) = (world.user(), world.user());
    let all = sealcast_protocol::Interval::ALL;
    world.grant(OWNER, reader, Roles::READER, all).unwrap();
    world.grant(OWNER, mallory, Roles::READER, all).unwrap();
    world.publish(OWNER, "one").unwrap();
    let topics = topics(&world);
    for (topic, item) in newer(&world) {
        world.put(&topic.name(world.stream), &item);
    }
    assert_eq!(world.opened(reader), ["one"]);
    assert_eq!(world.peers[reader].alarms, []);
    // A bus may show one entry in the place of another.
    let own = topics[1].name(world.stream);
    let others = ControlTopic::Access(world.id(mallory), world.device(mallory));
    let misplaced = world.bus[&own][0].clone();
    let signed = in_its_name(&world, mallory);
    let identity = &world.peers[OWNER].identity;
    let elsewhere = altered::<Bundle>(&world, &topics[2], identity.signing(), |of| {
        of.context.stream.0[0] ^= 1;
    });
    let told = |topic: &ControlTopic| Alarm::Forged(*topic);
    for (topic, items) in [
        (&topics[0], [b"garbage".to_vec(), signed[0].clone()]),
        (&topics[1], [b"".to_vec(), signed[1].clone()]),
        (&topics[2], [vec![0xff; 300], signed[2].clone()]),
        (&topics[2], [elsewhere.clone(), elsewhere]),
        (&others, [misplaced.clone(), misplaced]),
    ] {
        for item in items {
            world.restart(reader);
            world.peers[reader].alarms.clear();
            for _ in 0..2 {
                world.put(&topic.name(world.stream), &item);
                world.sync(reader);
            }
            assert_eq!(world.peers[reader].alarms, [told(topic)], "{item:?}");
        }
    }
    assert_eq!(world.opened(reader), ["one"]);
}

//! Device lists that a bus alters, and checkpoints; what the devices of one user give each other.

use sealcast_engine::{Alarm, ControlTopic, SharedWith, plan_handouts};
use sealcast_protocol::{
    CardList, CardRevocation, DeviceId, Interval, ListBody, ListEntry, Position, Roles, sign,
};

use crate::handouts::false_cover;
use crate::rig::{NOON, OWNER, World, between, since};

/// A reader of everything, who holds covers and not the root.
fn granted(world: &mut World) -> usize {
    let reader = world.user();
    let most = since(Position(1));
    world.grant(OWNER, reader, Roles::READER, most).unwrap();
    reader
}

#[test]
fn a_device_gives_the_others_of_its_user_what_it_holds_and_no_keyholder_need_be_there() {
    let mut world = World::new(91);
    let reader = granted(&mut world);
    world.publish(OWNER, "one").unwrap();
    assert_eq!(world.opened(reader), ["one"]);
    let phone = world.device_of(reader);
    world.share(reader, SharedWith::Everyone);
    assert_eq!(world.opened(phone), ["one"]);
    let plan = |world: &World, of: usize| {
        plan_handouts(&world.peers[of].view, world.now, SharedWith::Everyone).len()
    };
    world.sync(reader);
    assert_eq!((plan(&world, reader), plan(&world, phone)), (0, 0));
    // A keyholder does not take their word for it.
    world.sync(OWNER);
    assert_eq!(plan(&world, OWNER), 1);
    world.restart(phone);
    assert_eq!(world.opened(phone), ["one"]);
}

/// fault 12: nor does a new device get more than its user was granted.
#[test]
fn a_device_gives_the_others_nothing_that_the_log_does_not_entitle_them_to() {
    let mut world = World::new(92);
    let reader = world.user();
    for at in 0..4 {
        world.publish(OWNER, &at.to_string()).unwrap();
        world.tick(10);
    }
    let two = between(NOON.after(10), NOON.after(30));
    world.grant(OWNER, reader, Roles::READER, two).unwrap();
    assert_eq!(world.opened(reader), ["1", "2"]);
    let phone = world.device_of(reader);
    world.revoke_user(OWNER, reader).unwrap();
    world.share(reader, SharedWith::Everyone);
    assert_eq!(world.opened(phone), [""; 0]);
    let one = between(NOON.after(10), NOON.after(20));
    world
        .write_grant(OWNER, reader, Roles::READER, one)
        .unwrap();
    world.share(reader, SharedWith::Everyone);
    assert_eq!(world.opened(phone), ["1"]);
}

/// A device is believed by the others of its own user only, and not once it is revoked.
#[test]
fn what_a_revoked_device_or_a_stranger_gives_is_not_taken() {
    let mut world = World::new(93);
    let (reader, other) = (granted(&mut world), granted(&mut world));
    let session = world.publish(OWNER, "one").unwrap().session;
    world.sync(reader);
    let (phone, lost) = (world.device_of(reader), world.device_of(reader));
    for giver in [other, lost] {
        let given = false_cover(&mut world, giver, phone, session, since(NOON));
        world.put_key_item(&given);
    }
    world.out(lost);
    let told = "sealed, key not here\n";
    assert_eq!(world.transcript(phone), told);
    let tablet = world.device_of(reader);
    let given = false_cover(&mut world, tablet, phone, session, since(NOON));
    world.put_key_item(&given);
    assert_ne!(world.transcript(phone), told);
}

/// A reader could else force new sessions upon a publisher, by giving keys to its own lost device.
#[test]
fn what_others_give_their_own_revoked_devices_starts_no_session() {
    let mut world = World::new(94);
    let reader = granted(&mut world);
    let lost = world.device_of(reader);
    world.out(lost);
    let first = world.publish(OWNER, "a").unwrap().session;
    let given = false_cover(&mut world, reader, lost, first, since(NOON));
    world.put_key_item(&given);
    assert_eq!(world.publish(OWNER, "b").unwrap().session, first);
}

fn revocation(device: DeviceId) -> ListBody {
    ListBody::Revoke(CardRevocation { device, time: NOON })
}

/// Takes the last entry of a list off the bus.
fn take_last(world: &mut World, peer: usize) -> Vec<u8> {
    let topic = world.id(peer).devices_topic();
    world.bus.get_mut(&topic).unwrap().pop().unwrap()
}

#[test]
fn entries_that_found_no_room_to_wait_are_not_taken_for_read() {
    let mut world = World::new(97);
    let reader = granted(&mut world);
    world.sync(OWNER);
    let user = world.id(reader);
    let mut list = world.peers[OWNER].view.list(&user).unwrap().clone();
    let identity = &world.peers[reader].identity;
    let entries = (0..80).map(|_| {
        let entry = list.append(identity.root().unwrap(), NOON, identity.card(NOON));
        entry.unwrap().wire().to_vec()
    });
    let entries: Vec<_> = entries.collect();
    let (first, rest) = entries.split_first().unwrap();
    for entry in rest.iter().chain([first]) {
        world.put(&user.devices_topic(), entry);
    }
    world.sync(OWNER);
    let view = &mut world.peers[OWNER].view;
    assert!(view.list(&user).unwrap().next_seq() < list.next_seq());
    assert!(view.hidden_lists().contains(&user));
    for entry in rest {
        view.handle(&ControlTopic::Devices(user), entry);
    }
    assert_eq!(view.list(&user).unwrap().next_seq(), list.next_seq());
    assert!(view.hidden_lists().is_empty());
}

#[test]
fn an_entry_that_the_bus_hides_is_missed_until_it_comes() {
    let mut world = World::new(95);
    let reader = granted(&mut world);
    world.sync(OWNER);
    let (one, two) = (world.device_of(reader), world.device_of(reader));
    let topic = world.id(reader).devices_topic();
    let (second, first) = (take_last(&mut world, reader), take_last(&mut world, reader));
    world.put(&topic, &second);
    world.sync(OWNER);
    let user = world.id(reader);
    assert_eq!(world.peers[OWNER].alarms, [Alarm::ListHidden(user)]);
    assert!(world.peers[OWNER].view.hidden_lists().contains(&user));
    world.put(&topic, &first);
    world.sync(OWNER);
    assert_eq!(world.peers[OWNER].alarms, [Alarm::ListHidden(user)]);
    let view = &world.peers[OWNER].view;
    assert!(view.hidden_lists().is_empty());
    let live: Vec<_> = view
        .live_devices(&user, world.now)
        .map(|of| *of.0)
        .collect();
    assert!(live.contains(&world.device(one)) && live.contains(&world.device(two)));
}

/// fault 13: an injected list is told, and changes nothing.
#[test]
fn entries_that_the_user_did_not_sign_are_told_and_change_nothing() {
    let mut world = World::new(96);
    let (reader, mallory) = (granted(&mut world), world.user());
    world.sync(OWNER);
    let user = world.id(reader);
    let topic = user.devices_topic();
    let card = world.peers[mallory].identity.card(world.now);
    let entry = ListEntry {
        version: 1,
        user,
        seq: 1,
        prev: world.peers[OWNER].view.list(&user).unwrap().head(),
        time: NOON,
        body: card,
    };
    let root = world.peers[mallory].identity.root().unwrap();
    let forged = sign(root, entry).unwrap().wire().to_vec();
    world.put(&topic, &forged);
    let foreign = world.bus[&world.id(mallory).devices_topic()][0].clone();
    world.put(&topic, &foreign);
    let before = world.peers[OWNER].view.list(&user).unwrap().pin();
    world.sync(OWNER);
    let told = [Alarm::Forged(ControlTopic::Devices(user))];
    assert_eq!(world.peers[OWNER].alarms, told);
    assert_eq!(world.peers[OWNER].view.list(&user).unwrap().pin(), before);
}

#[test]
fn an_entry_that_its_user_signed_and_that_does_not_fit_is_told() {
    let mut world = World::new(97);
    let reader = granted(&mut world);
    world.sync(OWNER);
    let user = world.id(reader);
    let list = world.peers[OWNER].view.list(&user).unwrap();
    let entry = ListEntry {
        version: 1,
        user,
        seq: 1,
        prev: list.head(),
        time: NOON,
        body: revocation(DeviceId([9; 16])),
    };
    let root = world.peers[reader].identity.root().unwrap();
    let odd = sign(root, entry).unwrap().wire().to_vec();
    world.put(&user.devices_topic(), &odd);
    world.sync(OWNER);
    assert_eq!(world.peers[OWNER].alarms, [Alarm::ListUnsound(user)]);
}

#[test]
fn a_checkpoint_alone_says_all_that_is_to_be_known_of_a_list() {
    let mut world = World::new(98);
    let reader = granted(&mut world);
    let (phone, lost) = (world.device_of(reader), world.device_of(reader));
    world.out(lost);
    world.publish(OWNER, "one").unwrap();
    let checkpoint = {
        let user = world.id(reader);
        world.sync(OWNER);
        world.peers[OWNER].view.list(&user).unwrap().checkpoint()
    };
    let user = world.id(reader);
    let topic = user.devices_topic();
    let before = world.bus[&topic].len();
    world.list(reader, checkpoint);
    world.sync(OWNER);
    assert_eq!(world.peers[OWNER].alarms, []);
    // What it replaces is not shown any more. Empty items stand for it here, which are told.
    let items = world.bus.get_mut(&topic).unwrap();
    items[..before].fill(Vec::new());
    let late = world.user();
    world
        .grant(OWNER, late, Roles::READER, Interval::ALL)
        .unwrap();
    world.sync(late);
    let shown = |world: &World, by: usize| {
        let list: &CardList = world.peers[by].view.list(&user).unwrap();
        format!("{:?} {:?}", list.pin(), list.devices().collect::<Vec<_>>())
    };
    assert_eq!(shown(&world, late), shown(&world, OWNER));
    let live = |world: &World| {
        let view = &world.peers[late].view;
        let live: Vec<_> = view
            .live_devices(&user, world.now)
            .map(|of| *of.0)
            .collect();
        (live.len(), live.contains(&world.device(phone)))
    };
    assert_eq!(live(&world), (2, true));
    assert_eq!(
        world.peers[late].view.user_of(&world.device(lost)),
        Some(user)
    );
    world.restart(late);
    world.sync(late);
    assert_eq!(live(&world), (2, true));
    let told = [Alarm::Forged(ControlTopic::Devices(user))];
    assert_eq!(world.peers[late].alarms, told);
    assert_eq!(world.opened(phone), ["one"]);
}

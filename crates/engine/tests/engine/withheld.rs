//! What a bus withholds for a while, and shows later.

use sealcast_engine::{
    AuthorError, ControlTopic, Handout, HandoutKey, SharedWith, plan_handouts, wrap_handout,
};
use sealcast_protocol::{CoverSpec, Interval, LogBody, Roles, Settings, StreamTopics};

use crate::rig::{NOON, OWNER, World, read_on, since};

/// A keyholder from whom a removal is withheld does not give the one removed the keys of what was
/// sealed in knowledge of it.
#[test]
fn a_session_waits_until_all_is_known_that_was_known_when_it_was_drawn() {
    let mut world = World::new(301);
    let (admin, reader) = (world.user(), world.user());
    world
        .grant(OWNER, admin, Roles::ADMIN, Interval::ALL)
        .unwrap();
    world
        .grant(OWNER, reader, Roles::READER, since(NOON))
        .unwrap();
    world.publish(OWNER, "one").unwrap();
    world.sync(admin);
    world.revoke_user(OWNER, reader).unwrap();
    world.publish(OWNER, "two").unwrap();
    // The admin reads the keys and not what they rest on.
    let stream = world.stream;
    let bus = world.bus.clone();
    read_on(&bus, stream, &mut world.peers[admin], &ControlTopic::Keys);
    let view = &mut world.peers[admin].view;
    view.settle();
    assert_eq!(view.records().count(), 2);
    let plan = plan_handouts(view, NOON, SharedWith::Everyone);
    assert_eq!(plan, [], "{plan:?}");
    let session = view.records().find(|of| {
        let knows = |head| view.log().contains(head);
        !of.heads.iter().all(knows)
    });
    let interval = since(NOON);
    let covers = vec![CoverSpec {
        session: session.unwrap().session,
        interval,
    }];
    let (lane, user, device) = (world.id(OWNER), world.id(reader), world.device(reader));
    let handout = Handout {
        lane,
        user,
        device,
        covers,
        to: HandoutKey::LongLived,
    };
    let of = &world.peers[admin];
    let wrapped = wrap_handout(&of.view, &of.identity, &mut world.rng, &handout).unwrap();
    assert!(wrapped.is_none(), "{wrapped:?}");
    world.share(admin, SharedWith::Everyone);
    assert_eq!(world.opened(reader), ["one"]);
    assert_eq!(world.opened(admin), ["one", "two"]);
}

/// What others count as given is not passed over for good.
#[test]
fn what_a_keyholder_gave_is_read_again_when_it_is_one_again() {
    for is_restarted in [false, true] {
        let mut world = World::new(302);
        let (publisher, admin) = (world.user(), world.user());
        world
            .grant(OWNER, publisher, Roles::PUBLISHER, Interval::ALL)
            .unwrap();
        world.publish(publisher, "one").unwrap();
        world.sync(admin);
        world
            .write_grant(OWNER, admin, Roles::ADMIN, Interval::ALL)
            .unwrap();
        world.share(publisher, SharedWith::Everyone);
        world.revoke_user(OWNER, publisher).unwrap();
        // The owner cannot give it meanwhile: it is down.
        world.sync(admin);
        if is_restarted {
            world.restart(admin);
        }
        world
            .write_grant(OWNER, publisher, Roles::PUBLISHER, Interval::ALL)
            .unwrap();
        world.share(OWNER, SharedWith::Everyone);
        world.share(publisher, SharedWith::Everyone);
        assert_eq!(world.opened(admin), ["one"], "restarted: {is_restarted}");
    }
}

#[test]
fn an_entry_is_refused_while_the_first_one_is_not_shown() {
    let mut world = World::new(303);
    let chain = StreamTopics(world.stream).access(&world.device(OWNER));
    world.bus.remove(&chain);
    let late = world.user();
    let settings = LogBody::Settings(Settings { rekey_every_ms: 1 });
    let written = world.write(late, settings);
    assert_eq!(written, Err(AuthorError::NotAllowed));
}

/// So that a device notices when its own card is lost, whether or not anybody named its user yet.
#[test]
fn ones_own_device_list_is_followed_before_the_log_names_one() {
    let mut world = World::new(304);
    let user = world.user();
    world.sync(user);
    let own = ControlTopic::Devices(world.id(user));
    let count = |world: &World| {
        let wanted = world.peers[user].view.wanted();
        wanted.iter().filter(|of| **of == own).count()
    };
    assert_eq!(count(&world), 1);
    world
        .grant(OWNER, user, Roles::READER, Interval::ALL)
        .unwrap();
    world.sync(user);
    assert_eq!(count(&world), 1);
}

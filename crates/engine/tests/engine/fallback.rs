//! Fallback keys of a device.

use sealcast_engine::Fallbacks;
use sealcast_protocol::{
    BundleContext, CoverSpec, FALLBACK_PERIOD_MS, FallbackKey, Interval, KeyUse, LogHash, Position,
    SessionId, UserId, seal_bundle, sign, wrap_key_hash,
};

use crate::rig::{NOON, OWNER, World, since};
use crate::rng::Seeded;

fn week(n: u64) -> Position {
    NOON.after(n * FALLBACK_PERIOD_MS)
}

fn kept(of: &Fallbacks) -> Vec<u32> {
    let first = FallbackKey::period_at(NOON);
    (first..first + 20)
        .filter(|period| of.key(*period).is_some())
        .map(|period| period - first)
        .collect()
}

#[test]
fn a_key_is_drawn_each_week_and_gone_after_two() {
    let mut rng = Seeded::new(1);
    let mut fallbacks = Fallbacks::default();
    assert!(fallbacks.rotate(&mut rng, week(0)));
    assert!(!fallbacks.rotate(&mut rng, week(0)));
    assert_eq!(kept(&fallbacks), [0]);
    assert!(fallbacks.rotate(&mut rng, week(1)));
    assert_eq!(kept(&fallbacks), [0, 1]);
    assert!(fallbacks.rotate(&mut rng, week(2)));
    assert_eq!(kept(&fallbacks), [1, 2]);
    assert!(fallbacks.rotate(&mut rng, week(9)));
    assert_eq!(kept(&fallbacks), [9]);
}

#[test]
fn a_clock_that_is_set_back_a_little_draws_no_key_anew() {
    let mut rng = Seeded::new(1);
    let mut fallbacks = Fallbacks::default();
    fallbacks.rotate(&mut rng, week(2));
    fallbacks.rotate(&mut rng, week(3));
    assert!(!fallbacks.rotate(&mut rng, week(2)));
    assert!(!fallbacks.rotate(&mut rng, week(3)));
    assert_eq!(kept(&fallbacks), [2, 3]);
}

/// A key that was drawn years too early would be the last one for years, and lie there as long.
#[test]
fn a_clock_that_was_far_ahead_leaves_no_key_behind() {
    let mut world = World::new(91);
    let mut fallbacks = Fallbacks::default();
    fallbacks.rotate(&mut world.rng, week(0));
    assert!(fallbacks.rotate(&mut world.rng, week(15)));
    assert_eq!(kept(&fallbacks), [15]);
    assert!(fallbacks.rotate(&mut world.rng, week(0)));
    assert_eq!(kept(&fallbacks), [0]);
    let identity = &world.peers[OWNER].identity;
    let named = fallbacks.announcement(identity, week(0)).unwrap().unwrap();
    assert_eq!(named.body().period, FallbackKey::period_at(week(0)));
    assert!(fallbacks.rotate(&mut world.rng, week(1)));
    assert_eq!(kept(&fallbacks), [0, 1]);
}

#[test]
fn what_a_store_kept_reads_back_and_nothing_else_does() {
    let mut rng = Seeded::new(1);
    let mut fallbacks = Fallbacks::default();
    fallbacks.rotate(&mut rng, week(0));
    fallbacks.rotate(&mut rng, week(1));
    let read = Fallbacks::from_bytes(fallbacks.to_bytes().expose()).unwrap();
    assert_eq!(kept(&read), [0, 1]);
    let period = FallbackKey::period_at(week(1));
    let hash = |of: &Fallbacks| of.key(period).map(|key| wrap_key_hash(&key.wrap_key()));
    assert_eq!(hash(&read), hash(&fallbacks));
    assert!(Fallbacks::from_bytes(b"anything").is_none());
}

/// What is wrapped to a fallback key opens while the key is kept, and never after.
#[test]
fn a_bundle_to_a_fallback_key_opens_for_two_weeks() {
    for (weeks, opens) in [(0, true), (1, true), (2, false)] {
        let mut world = World::new(90);
        let reader = world.user();
        let mut fallbacks = Fallbacks::default();
        fallbacks.rotate(&mut world.rng, week(0));
        let bundle = to_fallback(&mut world, reader, &fallbacks);
        world.put_key_item(&bundle);
        for n in 1..=weeks {
            fallbacks.rotate(&mut world.rng, week(n));
        }
        world.peers[reader].view.set_fallbacks(fallbacks);
        let opened = world.opened(reader);
        assert_eq!(opened == ["one"], opens, "{weeks}: {opened:?}");
        assert_eq!(world.peers[reader].alarms, []);
    }
}

/// A message, and its keys for a reader who was given none, wrapped to the reader's fallback key.
fn to_fallback(world: &mut World, reader: usize, fallbacks: &Fallbacks) -> Vec<u8> {
    let session = world.publish(OWNER, "one").unwrap().session;
    world.sync(OWNER);
    let identity = &world.peers[reader].identity;
    let named = fallbacks.announcement(identity, NOON).unwrap().unwrap();
    let key = identity.signing().verifying_key();
    let read = FallbackKey::newest(&identity.user(), &key, [named.wire()], NOON);
    let (period, wrap_key) = read.unwrap();
    let owner = &world.peers[OWNER];
    let interval = since(Position(1));
    let root = owner.view.root(&session).unwrap();
    let cover = sealcast_crypto::Cover::from_root(root, interval.from.0, interval.until.0);
    let context = context(
        world,
        reader,
        session,
        interval,
        period,
        wrap_key_hash(&wrap_key),
    );
    let bundle = seal_bundle(&mut Seeded::new(5), context, &[&cover], &wrap_key).unwrap();
    let signed = sign(world.peers[OWNER].identity.signing(), bundle).unwrap();
    signed.wire().to_vec()
}

fn context(
    world: &World,
    reader: usize,
    session: SessionId,
    interval: Interval,
    period: u32,
    wrap_key_hash: [u8; 32],
) -> BundleContext {
    let lane: UserId = world.id(OWNER);
    BundleContext {
        stream: world.stream,
        lane,
        giver_user: lane,
        giver_device: world.device(OWNER),
        user: world.id(reader),
        device: world.device(reader),
        key: KeyUse::Fallback { period },
        wrap_key_hash,
        heads: world.peers[OWNER].view.log().heads(&LogHash([0; 32])),
        request: [0; 16],
        covers: vec![CoverSpec { session, interval }],
    }
}

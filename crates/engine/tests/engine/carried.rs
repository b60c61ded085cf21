//! Envelopes that a carrier brings: once each, in any order, and kept ones apart.

use sealcast_engine::{Arrival, Carried, Mode, Prospect, Reader, Sealed, SharedWith, Sightings};
use sealcast_protocol::{Draft, Interval, Position, Roles, SessionKind};

use crate::rig::{NOON, OWNER, World, lines};

/// One reader's opener, by what a peer knows.
struct Opener {
    peer: usize,
    reader: Reader,
    seen: Sightings,
}

impl Opener {
    fn new(peer: usize) -> Self {
        Self::since(peer, Position::START)
    }

    fn since(peer: usize, from: Position) -> Self {
        Self {
            peer,
            reader: Reader::new(Mode::Live),
            seen: Sightings::since(from),
        }
    }

    fn judge(&mut self, world: &World, envelope: &[u8], arrival: Arrival) -> (Carried, String) {
        let view = &world.peers[self.peer].view;
        let of = (None, envelope);
        let carried = self.reader.judge_carried(view, &self.seen, of, arrival);
        let told = std::iter::from_fn(|| self.reader.poll_event()).collect();
        (carried, lines(told))
    }

    fn open(&mut self, world: &World, envelope: &[u8], arrival: Arrival) -> (Prospect, String) {
        let (carried, told) = self.judge(world, envelope, arrival);
        carried.sighting.iter().for_each(|of| self.seen.note(of));
        (carried.prospect, told)
    }

    fn live(&mut self, world: &World, envelope: &[u8]) -> String {
        self.open(world, envelope, Arrival::Live).1
    }

    fn kept(&mut self, world: &World, envelope: &[u8]) -> String {
        self.open(world, envelope, Arrival::Kept).1
    }
}

/// Seals without going on, as a copy of a running process does.
fn twin(world: &mut World, text: &str) -> Vec<u8> {
    sealed_apart(world, text).envelopes[0].bytes.clone()
}

fn sealed_apart(world: &mut World, text: &str) -> Sealed {
    let (now, of) = (world.now, &mut world.peers[OWNER]);
    let drafts = [Draft::Single(text.as_bytes())];
    let mut lane = of.lane;
    of.publisher
        .seal(now, &mut lane, &of.view, &drafts)
        .unwrap()
}

#[test]
fn what_comes_in_another_order_opens_once_and_nothing_is_a_gap() {
    let mut world = World::new(90);
    let items = world.sealed(OWNER, &["a", "b", "c", "d"]);
    let mut opener = Opener::new(OWNER);
    let told: String = [3, 1, 2, 0, 3, 0]
        .map(|at: usize| opener.live(&world, &items[at]))
        .concat();
    assert_eq!(told, "d\nb\nc\na\nReplay\nReplay\n");
}

/// fault 20
#[test]
fn what_is_kept_opens_each_time_and_leaves_what_is_live_alone() {
    let mut world = World::new(91);
    let items = world.sealed(OWNER, &["a", "b"]);
    let mut opener = Opener::new(OWNER);
    assert_eq!(opener.kept(&world, &items[0]), "a\n");
    assert_eq!(opener.kept(&world, &items[0]), "a\n");
    assert_eq!(opener.live(&world, &items[0]), "a\n");
    assert_eq!(opener.kept(&world, &items[0]), "a\n");
    assert_eq!(opener.live(&world, &items[0]), "Replay\n");
    assert_eq!(opener.live(&world, &items[1]), "b\n");
}

#[test]
fn what_was_judged_and_not_handed_out_opens_again() {
    let mut world = World::new(92);
    let items = world.sealed(OWNER, &["a"]);
    let mut opener = Opener::new(OWNER);
    for _ in 0..2 {
        let (carried, told) = opener.judge(&world, &items[0], Arrival::Live);
        assert_eq!(told, "a\n");
        assert!(carried.sighting.is_some());
    }
    assert_eq!(opener.live(&world, &items[0]), "a\n");
    assert_eq!(opener.live(&world, &items[0]), "Replay\n");
}

#[test]
fn two_envelopes_with_one_number_are_a_fork_and_so_is_what_follows_a_twin() {
    let mut world = World::new(93);
    let first = world.sealed(OWNER, &["a"]).remove(0);
    let other = twin(&mut world, "b, elsewhere");
    let items = world.sealed(OWNER, &["b", "c"]);
    let mut opener = Opener::new(OWNER);
    let told: String = [&first, &items[0], &other, &items[1]]
        .map(|item| opener.live(&world, item))
        .concat();
    assert_eq!(told, "a\nb\nFork\nc\n");
    let mut opener = Opener::new(OWNER);
    let told: String = [&other, &items[1], &items[0]]
        .map(|item| opener.live(&world, item))
        .concat();
    assert_eq!(told, "b, elsewhere\nFork\nc\nFork\n");
}

/// What is judged before what came with it is noted.
#[test]
fn of_what_is_judged_at_once_each_is_new_unless_one_before_it_says_otherwise() {
    let mut world = World::new(98);
    let first = world.sealed(OWNER, &["a"]).remove(0);
    let other = twin(&mut world, "b, elsewhere");
    let items = world.sealed(OWNER, &["b", "c"]);
    let at_once = |all: &[&Vec<u8>]| {
        let mut opener = Opener::new(OWNER);
        let judged: Vec<_> = all
            .iter()
            .map(|item| opener.judge(&world, item, Arrival::Live).0)
            .collect();
        let sightings = judged.into_iter().filter_map(|of| of.sighting);
        let told = sightings.map(|of| {
            let is_new = opener.seen.is_new(&of);
            opener.seen.note(&of);
            is_new
        });
        told.collect::<Vec<_>>()
    };
    assert_eq!(at_once(&[&first, &items[0], &items[1]]), [true; 3]);
    assert_eq!(at_once(&[&items[1], &first, &items[0]]), [true; 3]);
    assert_eq!(at_once(&[&first, &items[0], &first]), [true, true, false]);
    assert_eq!(at_once(&[&items[0], &other]), [true, false], "a twin");
    assert_eq!(at_once(&[&other, &items[1]]), [true, false], "its follower");
}

/// It was judged when it came, and its age is nobody's doing but the key's.
#[test]
fn what_has_waited_opens_once_whatever_its_age() {
    let mut world = World::new(99);
    let items = world.sealed(OWNER, &["a", "b"]);
    let mut opener = Opener::since(OWNER, NOON.after(3_600_000));
    assert_eq!(opener.live(&world, &items[0]), "Replay\n");
    let mut waited = |item: &Vec<u8>| opener.open(&world, item, Arrival::Waited).1;
    assert_eq!(waited(&items[0]), "a\n");
    assert_eq!(waited(&items[0]), "Replay\n");
    assert_eq!(waited(&items[1]), "b\n");
    assert_eq!(opener.live(&world, &items[1]), "Replay\n");
}

#[test]
fn what_lacks_a_key_opens_when_it_has_come_and_is_no_replay() {
    let mut world = World::new(94);
    let items = world.sealed(OWNER, &["a", "b"]);
    let bob = world.user();
    world.sync(bob);
    let mut opener = Opener::new(bob);
    let nobody = (Prospect::Unread, "rejected: UnknownSender\n".to_owned());
    let first = opener.open(&world, &items[0], Arrival::Live);
    // A stranger's view is that of the log, which names the owner.
    assert_ne!(first, nobody);
    let waits = |told: &str| (Prospect::Waits, told.to_owned());
    for _ in 0..3 {
        let told = opener.open(&world, &items[0], Arrival::Live);
        assert_eq!(told, waits("sealed\n"));
    }
    let reader = Roles::READER;
    world
        .write_grant(OWNER, bob, reader, Interval::ALL)
        .unwrap();
    world.sync(bob);
    let told = opener.open(&world, &items[0], Arrival::Live);
    assert_eq!(told, waits("sealed, key not here\n"));
    world.share(OWNER, SharedWith::Everyone);
    world.sync(bob);
    assert_eq!(opener.live(&world, &items[0]), "a\n");
    assert_eq!(opener.live(&world, &items[0]), "Replay\n");
    assert_eq!(opener.live(&world, &items[1]), "b\n");
}

#[test]
fn what_the_bus_may_explain_is_told_apart_from_what_waits_and_what_never_opens() {
    let mut world = World::new(95);
    let items = world.sealed(OWNER, &["a"]);
    let bob = world.user();
    let mut opener = Opener::new(bob);
    let told = opener.open(&world, &items[0], Arrival::Live);
    assert_eq!(told, (Prospect::Unread, "rejected: UnknownSender\n".into()));

    // The record of the session is not read yet, and one who may not publish has sealed.
    world.sync(bob);
    let roles = Roles::PUBLISHER;
    world.grant(OWNER, bob, roles, Interval::ALL).unwrap();
    world.sync(bob);
    let new = world.draw(bob, world.now, SessionKind::Live);
    let lane = &mut world.peers[bob].lane;
    (lane.session, lane.is_announced) = (new.session, true);
    let his = world.seal(bob, "b").unwrap().envelopes[0].bytes.clone();
    let mut opener = Opener::new(OWNER);
    let told = opener.open(&world, &his, Arrival::Live);
    assert_eq!(told, (Prospect::Waits, "rejected: UnknownSession\n".into()));

    let mut bent = his.clone();
    *bent.last_mut().unwrap() ^= 1;
    let told = opener.open(&world, &bent, Arrival::Live);
    let forged = (Prospect::Settled, "rejected: BadSignature\n".into());
    assert_eq!(told, forged);
    let told = opener.open(&world, b"21.5 C", Arrival::Live);
    assert_eq!(told, (Prospect::Settled, "rejected: Malformed\n".into()));

    world.put_key_item(new.record.wire());
    world.publish(bob, "c").unwrap();
    let his = world.seal(bob, "d").unwrap().envelopes[0].bytes.clone();
    world.revoke_user(OWNER, bob).unwrap();
    let told = opener.open(&world, &his, Arrival::Kept);
    let late = (Prospect::Unread, "rejected: AfterRevocation\n".into());
    assert_eq!(told, late);
}

#[test]
fn whose_right_is_over_may_have_it_again_if_the_signature_holds() {
    let mut world = World::new(96);
    let bob = world.user();
    let until = NOON.after(1_000);
    let while_it_lasts = crate::rig::between(NOON, until);
    let roles = Roles::PUBLISHER;
    world.grant(OWNER, bob, roles, while_it_lasts).unwrap();
    world.sync(bob);
    let early = world.sealed(bob, &["a"]).remove(0);
    world.sync(OWNER);
    let mut opener = Opener::new(OWNER);
    assert_eq!(opener.live(&world, &early), "a\n");

    // His own log says more than the owner has seen.
    world.tick(2_000);
    world.write_grant(OWNER, bob, roles, Interval::ALL).unwrap();
    let late = world.sealed(bob, &["b"]).remove(0);
    world.restart(OWNER);
    let mut behind = World::new(96);
    let bob_there = behind.user();
    behind
        .grant(OWNER, bob_there, roles, while_it_lasts)
        .unwrap();
    behind.sync(OWNER);
    let mut opener = Opener::new(OWNER);
    let told = opener.open(&behind, &late, Arrival::Live);
    assert_eq!(told, (Prospect::Waits, "rejected: NotEntitled\n".into()));
    let mut bent = late.clone();
    *bent.last_mut().unwrap() ^= 1;
    let told = opener.open(&behind, &bent, Arrival::Live);
    assert_eq!(told, (Prospect::Settled, "rejected: NotEntitled\n".into()));
}

#[test]
fn what_was_sealed_before_an_opener_takes_anything_is_a_replay_unless_it_is_kept() {
    let mut world = World::new(97);
    let old = world.sealed(OWNER, &["old"]).remove(0);
    world.tick(10);
    let new = world.sealed(OWNER, &["new"]).remove(0);
    let mut opener = Opener::since(OWNER, world.now);
    assert_eq!(opener.live(&world, &old), "Replay\n");
    assert_eq!(opener.live(&world, &new), "new\n");
    assert_eq!(opener.live(&world, &old), "Replay\n");
    assert_eq!(opener.kept(&world, &old), "old\n");
}

//! Chains, forks, hidden entries: where an entry may stand.

use sealcast_protocol::{
    AccessLog, Inserted, LIST_MAX, LogBody, LogEntry, LogHash, Position, Roles, Standing, StreamId,
    Unverified,
};

use crate::world::*;

fn hash_of(world: &World, i: usize) -> LogHash {
    LogHash::from(world.written[i].digest())
}

#[test]
fn a_fork_kills_both_twins_and_all_that_the_device_wrote_later() {
    let mut world = World::new();
    world.says(OWNER, admin(ANN));
    let before = world.says(ANN, reader(PAM));
    let twin = world.says(ANN, reader(RON));
    world.goes_back_to(ANN, before);
    let other = world.says_having_seen(ANN, &[], reader(SUE));
    let later = world.says(ANN, publisher(BEN));
    assert_eq!(world.standing(before), Some(Standing::Counts));
    for id in [twin, other, later] {
        assert_eq!(world.standing(id), Some(Standing::Void));
    }
    assert_eq!(
        world.log.forked_devices(),
        [(ANN.user(), ANN.device())].into()
    );
    assert_eq!(world.roles(ANN_LAPTOP), EVERYTHING);
    let by_laptop = world.says(ANN_LAPTOP, reader(RON));
    assert_eq!(world.standing(by_laptop), Some(Standing::Counts));
}

#[test]
fn removals_count_behind_a_fork() {
    let mut world = World::new();
    world.says(OWNER, admin(ANN));
    world.says(OWNER, reader(RON));
    let before = world.says(ANN, reader(PAM));
    world.says(ANN, reader(SUE));
    world.goes_back_to(ANN, before);
    world.says_having_seen(ANN, &[], removal(users(&[RON])));
    assert_eq!(world.roles(RON), Roles::NONE);
    world.says(ANN, removal(users(&[PAM])));
    assert_eq!(world.roles(PAM), Roles::NONE);
    world.says(ANN, LogBody::Close);
    assert!(world.state().is_closed());
}

#[test]
fn a_restored_owner_home_that_grants_again_forks_and_is_told() {
    let mut world = World::new();
    let genesis = world.genesis;
    let lost = world.says(OWNER, reader(RON));
    world.goes_back_to(OWNER, genesis);
    let again = world.says_having_seen(OWNER, &[], reader(SUE));
    assert_eq!(world.standing(lost), Some(Standing::Void));
    assert_eq!(world.standing(again), Some(Standing::Void));
    assert_eq!(
        world.log.forked_devices(),
        [(OWNER.user(), OWNER.device())].into()
    );
    assert_eq!(world.roles(OWNER), EVERYTHING);
    assert!(world.state().has_begun());
}

#[test]
fn a_restored_owner_home_that_reads_its_chain_first_goes_on_as_ever() {
    let mut world = World::new();
    let written = world.says(OWNER, reader(RON));
    let mut restored = AccessLog::new(world.stream(), OWNER.user());
    for entry in world.written.clone() {
        restored.insert(entry);
    }
    assert_eq!(
        restored.next_seat(&OWNER.user(), &OWNER.device()),
        (2, written)
    );
    let again = world.says(OWNER, reader(SUE));
    assert_eq!(world.standing(written), Some(Standing::Counts));
    assert_eq!(world.standing(again), Some(Standing::Counts));
    assert!(world.log.forked_devices().is_empty());
}

#[test]
fn a_hidden_entry_is_missed_and_what_follows_it_waits() {
    let mut world = World::new();
    let hidden = world.says(OWNER, admin(ANN));
    let waiting = world.says(ANN, reader(RON));
    let mut log = AccessLog::new(world.stream(), OWNER.user());
    assert_eq!(log.insert(world.written[0].clone()), Inserted::Linked);
    assert_eq!(log.insert(world.written[2].clone()), Inserted::Waiting);
    assert_eq!(log.insert(world.written[2].clone()), Inserted::Known);
    assert_eq!(log.missing(), [hidden].into());
    assert_eq!(log.waiting_authors(), [ANN.user()].into());
    assert!(!log.contains(&waiting));
    assert_eq!(log.insert(world.written[1].clone()), Inserted::Linked);
    assert!(log.missing().is_empty() && log.contains(&waiting));
    assert_eq!(log.state(), world.state());
}

#[test]
fn an_entry_known_twice_counts_once() {
    let mut world = World::new();
    world.says(OWNER, reader(RON));
    let before = world.state();
    for entry in world.written.clone() {
        assert_eq!(world.log.insert(entry), Inserted::Known);
    }
    assert_eq!(world.state(), before);
    assert!(world.log.forked_devices().is_empty());
}

#[test]
fn an_entry_in_a_place_that_is_not_its_own_counts_for_nothing() {
    let mut world = World::new();
    world.says(OWNER, admin(ANN));
    world.says(ANN, reader(PAM));
    let good = world.written.last().unwrap().body().clone();
    let head = world.log.heads(&NO_ENTRY);
    let prev = hash_of(&world, 2);
    let jump = LogEntry {
        seq: 7,
        prev,
        heads: Vec::new(),
        body: reader(RON),
        ..good.clone()
    };
    let of_anothers_chain = LogEntry {
        device: ANN_LAPTOP.device(),
        ..LogEntry {
            seq: 1,
            ..jump.clone()
        }
    };
    let of_anothers_user = LogEntry {
        user: OWNER.user(),
        ..LogEntry {
            seq: 1,
            ..jump.clone()
        }
    };
    for entry in [jump, of_anothers_chain, of_anothers_user] {
        let author = At('a', 3);
        let id = world.writes(author, entry);
        assert!(world.log.contains(&id));
        assert_eq!(world.standing(id), None);
    }
    assert_eq!(world.log.heads(&NO_ENTRY), head);
    assert_eq!(world.roles(RON), Roles::NONE);
}

#[test]
fn a_place_that_no_entry_can_have_is_refused_as_bytes() {
    let mut world = World::new();
    world.says(OWNER, reader(RON));
    let key = sealcast_crypto::SigningKey::from_seed(&[b'o'; 32]);
    let good = world.written[1].body().clone();
    type Change = (&'static str, fn(&mut LogEntry));
    let changed: [Change; 8] = [
        ("version", |entry| entry.version = 2),
        ("no stream", |entry| entry.stream = StreamId([0; 32])),
        ("start with prev", |entry| entry.seq = 0),
        ("going on without prev", |entry| entry.prev = NO_ENTRY),
        ("start without heads", |entry| {
            (entry.seq, entry.prev) = (0, NO_ENTRY)
        }),
        ("prev among heads", |entry| entry.heads = vec![entry.prev]),
        ("heads descending", |entry| {
            entry.heads = vec![LogHash([9; 32]), LogHash([8; 32])]
        }),
        ("time", |entry| entry.time = Position::END),
    ];
    for (what, change) in changed {
        let mut entry = good.clone();
        change(&mut entry);
        assert!(sealcast_protocol::sign(&key, entry).is_err(), "{what}");
    }
    let wire = sealcast_protocol::sign(&key, good).unwrap();
    assert!(Unverified::<LogEntry>::decode(wire.wire()).is_ok());
}

#[test]
fn a_false_first_entry_is_foreign() {
    let (one, other) = (World::new(), World::of_nonce(1));
    let mut log = AccessLog::new(one.stream(), OWNER.user());
    assert_eq!(log.insert(other.written[0].clone()), Inserted::Foreign);
    let mut of_another = AccessLog::new(one.stream(), ANN.user());
    assert_eq!(of_another.insert(one.written[0].clone()), Inserted::Foreign);
    assert!(!log.state().has_begun());
}

#[test]
fn heads_name_what_nothing_follows_and_leave_out_what_is_not_authorised() {
    let mut world = World::new();
    let first = world.says(OWNER, admin(ANN));
    let second = world.says_having_seen(OWNER, &[], reader(RON));
    let other = world.says_having_seen(ANN, &[first], reader(SUE));
    let mut both = vec![second, other];
    both.sort_unstable();
    assert_eq!(world.log.heads(&NO_ENTRY), both);
    assert_eq!(world.log.heads(&other), [second]);
    world.says(SUE, reader(SUE));
    assert_eq!(world.log.heads(&NO_ENTRY), both);
    assert!(world.log.reaches(&both, &first) && world.log.reaches(&both, &second));
    assert!(!world.log.reaches(&[other], &second));
}

/// An entry at the start of a chain.
fn start(world: &World, author: At, time: usize, body: LogBody) -> LogEntry {
    LogEntry {
        version: 1,
        stream: world.stream(),
        user: author.user(),
        device: author.device(),
        seq: 0,
        prev: NO_ENTRY,
        heads: vec![LogHash::from(world.written[2].digest())],
        time: Position(time as u64),
        body,
    }
}

#[test]
fn a_flood_of_branches_pushes_nobody_elses_entry_out_of_the_heads() {
    let mut world = World::new();
    world.says(OWNER, publisher(PAM));
    world.says(OWNER, reader(RON));
    for i in 0..LIST_MAX + LIST_MAX / 4 {
        let flood = start(&world, PAM, i, removal(users(&[RON])));
        world.writes(PAM, flood);
    }
    let last_by_hash = (0..).find_map(|i| {
        let entry = start(&world, RON, i, removal(proven(&[RON])));
        let hash = LogHash::from(signed(RON, entry.clone()).digest());
        (hash.0[0] == 0xff).then_some(entry)
    });
    let by_ron = world.writes(RON, last_by_hash.unwrap());
    let heads = world.log.heads(&NO_ENTRY);
    assert_eq!(heads.len(), LIST_MAX);
    assert!(heads.contains(&by_ron));
}

#[test]
fn a_flood_of_removals_never_asks_for_more_than_heads_can_name() {
    let mut world = World::new();
    world.says(OWNER, publisher(PAM));
    world.says(OWNER, reader(RON));
    for i in 0..LIST_MAX + 9 {
        let flood = start(&world, PAM, i, removal(users(&[RON])));
        world.writes(PAM, flood);
    }
    let heads = world.log.heads(&NO_ENTRY);
    let (state, lane) = (world.state(), PAM.user());
    let mut removals = state.removals(&lane);
    assert!(removals.all(|removal| world.log.reaches(&heads, &removal)));
}

//! Random histories: every order gives one state, and it is the one that the rules, read literally,
//! give.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::Index;
use sealcast_protocol::{
    AccessLog, Grant, Interval, LogBody, LogEntry, LogHash, LogState, Position, Roles, Standing,
    Verified,
};

use crate::naive::{Naive, Set};
use crate::world::*;

const PEOPLE: [At; 9] = [
    OWNER,
    OWNER_LAPTOP,
    ANN,
    ANN_LAPTOP,
    BEN,
    PAM,
    PAM_LAPTOP,
    RON,
    SUE,
];

/// One thing that one device does, told by numbers so that it shrinks well.
#[derive(Clone, Debug)]
struct Step {
    author: Index,
    what: u8,
    whom: [Index; 2],
    seen: Seen,
    goes_back: bool,
    time: u16,
    tip: u8,
}

#[derive(Clone, Debug)]
enum Seen {
    Everything,
    Nothing,
    These([Index; 2]),
}

fn step() -> impl Strategy<Value = Step> {
    let seen = prop_oneof![
        4 => Just(Seen::Everything),
        1 => Just(Seen::Nothing),
        4 => any::<[Index; 2]>().prop_map(Seen::These),
    ];
    let numbers = (
        any::<Index>(),
        0..38_u8,
        any::<[Index; 2]>(),
        any::<u16>(),
        0..6_u8,
    );
    (numbers, seen, prop::bool::weighted(0.07)).prop_map(
        |((author, what, whom, time, tip), seen, goes_back)| Step {
            author,
            what,
            whom,
            seen,
            goes_back,
            time,
            tip,
        },
    )
}

fn history() -> impl Strategy<Value = World> {
    prop::collection::vec(step(), 5..40).prop_map(|steps| {
        let mut world = World::new();
        world.says(OWNER, admin(ANN));
        world.says(OWNER, admin(BEN));
        world.says(ANN, publisher(PAM));
        world.says(OWNER, asking_for(&[ANN, PAM, RON]));
        for step in &steps {
            take_step(&mut world, step, *step.author.get(&PEOPLE));
        }
        world
    })
}

fn take_step(world: &mut World, step: &Step, author: At) {
    let known: Vec<_> = world
        .written
        .iter()
        .map(|e| LogHash::from(e.digest()))
        .collect();
    let own = world.written.iter().filter(|entry| {
        let entry = entry.body();
        (entry.user, entry.device) == (author.user(), author.device())
    });
    let own: Vec<_> = own.map(|entry| LogHash::from(entry.digest())).collect();
    if step.goes_back && !own.is_empty() {
        world.goes_back_to(author, *step.whom[1].get(&own));
    }
    world.set_time(u64::from(step.time));
    let body = body(world, step, author);
    match &step.seen {
        Seen::Everything => world.says(author, body),
        Seen::Nothing => world.says_having_seen(author, &[known[0]], body),
        Seen::These(these) => {
            let these = these.map(|index| *index.get(&known));
            world.says_having_seen(author, &these, body)
        }
    };
}

fn body(world: &World, step: &Step, author: At) -> LogBody {
    let [one, two] = step.whom.map(|index| *index.get(&PEOPLE));
    let limited = |roles| {
        LogBody::Grant(Grant {
            devices: vec![one.device()],
            interval: Interval {
                from: Position(u64::from(step.tip)),
                until: Position(4 + u64::from(step.tip)),
            },
            ..grant(one, roles)
        })
    };
    let ids: Vec<_> = world
        .written
        .iter()
        .filter(|entry| matches!(entry.body().body, LogBody::Grant(_)))
        .map(|entry| LogHash::from(entry.digest()))
        .collect();
    let id = |index: usize| *step.whom[index].get(&ids);
    let last = [(one, step.tip), (two, step.tip + 1)];
    let own = At(author.0, one.1);
    match step.what {
        0..=2 => admin(one),
        3..=6 => publisher(one),
        7 | 8 => reader(one),
        9..=11 => reader_of(one, author),
        12 => reader_of(one, two),
        13 => limited(Roles::PUBLISHER),
        14 => limited(Roles::READER.with(Roles::PUBLISHER)),
        15..=18 => removal_with_tips(users(&[one]), &last),
        19 => removal_with_tips(users(&[one, two]), &last),
        20..=22 => removal_with_tips(grants(&[id(0), id(1)]), &last),
        23 | 24 => removal_with_tips(unproven(&[one]), &last),
        25 => removal_with_tips(proven(&[one, two]), &last),
        26..=28 => removal_with_tips(proven(&[own]), &[(own, step.tip)]),
        29 | 30 => rekey_every(u64::from(step.tip)),
        33 => asking_for(&[ANN, PAM, one]),
        34..=36 => {
            // Nobody can of himself.
            let others = [one, two, RON, SUE].into_iter();
            let mut others = others.filter(|of| of.0 != author.0);
            approve(others.next().unwrap(), step.tip)
        }
        31 | 32 => key_nodes(&[OWNER, ANN, BEN][..usize::from(step.tip % 4)], 1),
        _ => LogBody::Close,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn every_order_gives_the_state_that_the_rules_give(
        world in history(),
        orders in prop::collection::vec(any::<u64>(), 4),
    ) {
        let state = world.state();
        for order in orders {
            prop_assert_eq!(&replay(&world, &shuffled(&world.written, order)), &state);
        }
        let naive = Naive::new(OWNER.user(), &world.written);
        compare(&world, &state, &naive);
    }

    #[test]
    fn entries_of_a_stranger_change_no_state(
        world in history(),
        steps in prop::collection::vec(step(), 1..8),
        order in any::<u64>(),
    ) {
        const STRANGER: At = At('x', 1);
        let state = world.state();
        let mut crowded = world;
        for step in &steps {
            take_step(&mut crowded, step, STRANGER);
        }
        prop_assert_eq!(&crowded.state(), &state);
        prop_assert_eq!(&replay(&crowded, &shuffled(&crowded.written, order)), &state);
    }

    #[test]
    fn nothing_that_others_write_removes_the_owner(
        world in history(),
        steps in prop::collection::vec(step(), 1..30),
    ) {
        let mut crowded = world;
        let owner_may = [OWNER, OWNER_LAPTOP].map(|of| crowded.roles(of));
        for step in &steps {
            let author = *step.author.get(&PEOPLE[2..]);
            take_step(&mut crowded, step, author);
        }
        prop_assert_eq!([OWNER, OWNER_LAPTOP].map(|of| crowded.roles(of)), owner_may);
    }

    #[test]
    fn a_part_of_a_history_gives_the_state_of_that_part(
        world in history(),
        kept in any::<u64>(),
        order in any::<u64>(),
    ) {
        let numbered = world.written.iter().enumerate();
        let part: Vec<_> = numbered
            .filter(|(i, _)| kept >> (i % 64) & 1 == 0)
            .map(|(_, entry)| entry.clone())
            .collect();
        let state = replay(&world, &part);
        prop_assert_eq!(&replay(&world, &shuffled(&part, order)), &state);
        if state.has_begun() {
            let naive = Naive::new(OWNER.user(), &part);
            compare(&world, &state, &naive);
        }
    }
}

/// Asserts that a dozen orders of what was written give one state.
pub(crate) fn all_orders_agree(world: &World) {
    for order in 0..12 {
        let replayed = replay(world, &shuffled(&world.written, order));
        assert_eq!(replayed, world.state());
    }
}

fn replay(world: &World, entries: &[Verified<LogEntry>]) -> LogState {
    let mut log = AccessLog::new(world.stream(), OWNER.user());
    for entry in entries {
        log.insert(entry.clone());
    }
    for entry in entries.iter().rev().take(3) {
        log.insert(entry.clone());
    }
    log.state()
}

fn shuffled(entries: &[Verified<LogEntry>], order: u64) -> Vec<Verified<LogEntry>> {
    let mut random = order | 1;
    let mut entries = entries.to_vec();
    for i in (1..entries.len()).rev() {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        entries.swap(i, usize::try_from(random >> 33).unwrap() % (i + 1));
    }
    entries
}

/// Asserts that the state says what the rules, read literally, say.
fn compare(world: &World, state: &LogState, naive: &Naive) {
    let all = naive.all();
    let listed: Vec<_> = state.grants().iter().map(|of| of.id).collect();
    let expected: Set = naive.grants().map(|(g, _)| g).collect();
    assert_eq!(listed.iter().copied().collect::<Set>(), expected);
    for of in state.grants() {
        let takers = naive.takers(&of.id, &all);
        let is_whole = takers.values().any(Option::is_none);
        let standing = match (naive.counts(&of.id, &all), of.standing) {
            (false, standing) => standing == Standing::Void,
            (true, Standing::Counts) => !is_whole,
            (true, Standing::Revoked(by)) => takers.get(&by) == Some(&None),
            (true, Standing::Void) => false,
        };
        assert!(standing, "{of:?}: {takers:?}");
        assert_eq!(of.lanes_lost, naive.lanes_lost(&of.id, &all));
        let devices: BTreeSet<_> = takers.values().flatten().flatten().copied().collect();
        assert_eq!(of.devices_lost, devices);
    }
    assert_eq!(state.mark().0, naive.mark());
    assert_eq!(state.is_closed(), naive.is_closed());
    assert_eq!(state.settings().rekey_every_ms, naive.rekey_every_ms());
    let nodes = state.key_nodes().map(|(entry, _)| entry);
    assert_eq!(nodes, naive.key_nodes());
    for of in PEOPLE {
        let said: BTreeMap<_, _> = state.approvals(&of.user()).collect();
        for by in PEOPLE {
            let until = said.get(&by.user()).map(|until| until.0);
            assert_eq!(
                until,
                naive.approval(&by.user(), &of.user()),
                "{by:?} of {of:?}"
            );
        }
    }
    let devices = PEOPLE.iter().flat_map(|of| [At(of.0, 1), At(of.0, 2)]);
    let devices: Vec<_> = devices.map(|of| (of.user(), of.device())).collect();
    let tips: Vec<_> = state.revoked_tips().into_iter().collect();
    let expected = naive.revoked_tips(&devices).into_iter();
    let expected: Vec<_> = expected
        .map(|(device, tips)| (device, tips.into_iter().collect::<Vec<_>>()))
        .collect();
    assert_eq!(tips, expected);
    let records: Vec<(Set, &[LogHash])> = vec![(Set::new(), &[]), (all.clone(), &listed)];
    for of in PEOPLE {
        let device = (of.user(), of.device());
        assert_eq!(
            state.roles(&device.0, &device.1),
            naive.roles(device),
            "{of:?}"
        );
        let removals: Vec<_> = state.removals(&device.0).collect();
        let expected: Vec<_> = naive.removals(&device.0).into_iter().collect();
        assert_eq!(removals, expected, "{of:?}");
        for position in [0, 3, 6, 1 << 40].map(Position) {
            for (record, heads) in &records {
                let reaches = |hash: &LogHash| world.log.reaches(heads, hash);
                let right = state.publish_right(&device.0, &device.1, position, reaches);
                let expected = naive.publish_right(device, position, record);
                assert_eq!(right, expected, "{of:?} at {position:?}");
            }
            for lane in [OWNER, ANN, PAM, SUE].map(At::user) {
                let open = state.readable(&device.0, &device.1, &lane);
                let reads = open.iter().any(|interval| interval.contains(position));
                assert_eq!(reads, naive.may_read(device, &lane, position), "{of:?}");
            }
        }
    }
}

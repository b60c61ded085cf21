//! Who may give what to whom.

use sealcast_protocol::{
    Approvers, Condition, Demand, Grant, Interval, KeyNodes, LogBody, Position, Roles, Standing,
    Targets,
};

use crate::orders::all_orders_agree;
use crate::world::*;

const PUBLISHES_AND_READS: Roles = Roles::READER.with(Roles::PUBLISHER);

#[test]
fn the_owner_makes_admins_admins_make_publishers_and_publishers_let_readers_in() {
    let mut world = World::new();
    world.says(OWNER, admin(ANN));
    world.says(ANN, publisher(PAM));
    world.says(PAM, reader_of(RON, PAM));
    assert_eq!(world.roles(ANN), EVERYTHING);
    assert_eq!(world.roles(PAM), Roles::PUBLISHER);
    assert_eq!(world.roles(RON), Roles::READER);
    assert!(world.reads(RON, PAM) && !world.reads(RON, ANN));
}

#[test]
fn a_publisher_gives_nothing_but_reading_its_own_lane() {
    let mut world = World::new();
    world.says(OWNER, publisher(PAM));
    let lanes = |of: &[At]| {
        let mut lanes: Vec<_> = of.iter().map(|at| at.user()).collect();
        lanes.sort_unstable();
        LogBody::Grant(Grant {
            lanes,
            ..grant(RON, Roles::READER)
        })
    };
    let both = LogBody::Grant(Grant {
        lanes: vec![PAM.user()],
        ..grant(RON, PUBLISHES_AND_READS)
    });
    let bodies = [
        reader(RON),
        lanes(&[ANN]),
        lanes(&[PAM, ANN]),
        publisher(RON),
        admin(RON),
        both,
        rekey_every(1),
        LogBody::Close,
    ];
    let before = world.state();
    for body in bodies {
        world.says(PAM, body);
        assert_eq!(world.state(), before);
    }
}

#[test]
fn a_reader_gives_and_takes_nothing() {
    let mut world = World::new();
    let given = world.says(OWNER, reader(RON));
    world.says(OWNER, reader(SUE));
    let before = world.state();
    let bodies = [
        reader_of(SUE, RON),
        reader(SUE),
        publisher(RON),
        removal(users(&[SUE])),
        removal(grants(&[given])),
        removal(unproven(&[SUE])),
        LogBody::Close,
    ];
    for body in bodies {
        world.says(RON, body);
        assert_eq!(world.state(), before);
    }
}

#[test]
fn an_admin_makes_no_admin() {
    let mut world = World::new();
    world.says(OWNER, admin(ANN));
    let before = world.state();
    for roles in [Roles::ADMIN, EVERYTHING] {
        world.says(ANN, LogBody::Grant(grant(BEN, roles)));
        assert_eq!(world.state(), before);
    }
}

#[test]
fn admin_has_no_end_and_no_lanes_and_the_owner_needs_no_grant() {
    let mut world = World::new();
    let before = world.state();
    let interval = Interval {
        from: Position::START,
        until: Position(9),
    };
    let limited = Grant {
        interval,
        ..grant(ANN, Roles::ADMIN)
    };
    let of_lane = Grant {
        lanes: vec![ANN.user()],
        ..grant(ANN, Roles::ADMIN)
    };
    for grant in [limited, of_lane, grant(OWNER, Roles::READER)] {
        world.says(OWNER, LogBody::Grant(grant));
        assert_eq!(world.state(), before);
    }
}

#[test]
fn an_entry_by_a_stranger_changes_nothing_and_nobody_needs_to_follow_it() {
    let mut world = World::new();
    world.says(OWNER, publisher(PAM));
    let (before, heads) = (world.state(), world.log.heads(&NO_ENTRY));
    let named = world.log.named_users();
    let bodies = [
        publisher(SUE),
        reader_of(SUE, SUE),
        removal(users(&[PAM])),
        removal(proven(&[SUE])),
        LogBody::Close,
    ];
    for body in bodies {
        world.says(SUE, body);
    }
    assert_eq!(world.state(), before);
    assert_eq!(world.log.heads(&NO_ENTRY), heads);
    assert_eq!(world.log.named_users(), named);
}

#[test]
fn a_grant_that_names_devices_gives_its_right_to_these_alone() {
    let mut world = World::new();
    let on_laptop = |to: At, roles| {
        LogBody::Grant(Grant {
            devices: vec![PAM_LAPTOP.device()],
            ..grant(to, roles)
        })
    };
    world.says(OWNER, on_laptop(PAM, PUBLISHES_AND_READS));
    assert_eq!(world.roles(PAM_LAPTOP), PUBLISHES_AND_READS);
    assert_eq!(world.roles(PAM), Roles::NONE);
    assert!(world.reads(PAM_LAPTOP, BEN) && !world.reads(PAM, BEN));
    let by_phone = world.says(PAM, reader_of(RON, PAM));
    let by_laptop = world.says(PAM_LAPTOP, reader_of(RON, PAM));
    assert_eq!(world.standing(by_phone), None);
    assert_eq!(world.standing(by_laptop), Some(Standing::Counts));
}

#[test]
fn what_was_not_seen_gives_no_right_to_write() {
    let mut world = World::new();
    let genesis = world.genesis;
    let made = world.says(OWNER, admin(ANN));
    let blind = world.says_having_seen(ANN, &[genesis], reader(RON));
    let seeing = world.says_having_seen(ANN, &[made], reader(RON));
    assert_eq!(world.standing(blind), None);
    assert_eq!(world.standing(seeing), Some(Standing::Counts));
}

#[test]
fn time_decides_nothing() {
    let mut world = World::new();
    let made = world.says(OWNER, admin(ANN));
    world.says(OWNER, removal(users(&[ANN])));
    let head = world.log.heads(&NO_ENTRY);
    let mut late = world.written.last().unwrap().body().clone();
    late.user = ANN.user();
    (late.seq, late.prev, late.heads, late.time) = (0, NO_ENTRY, head, Position(1));
    late.body = reader(RON);
    let late = world.writes(ANN, late);
    assert_eq!(world.standing(late), None);
    assert!(matches!(world.standing(made), Some(Standing::Revoked(_))));
}

#[test]
fn readable_intervals_of_several_grants_are_joined() {
    let mut world = World::new();
    let span = |from, until| Interval {
        from: Position(from),
        until: Position(until),
    };
    for interval in [span(30, 40), span(10, 20), span(20, 25), span(35, 50)] {
        let grant = Grant {
            interval,
            ..grant(RON, Roles::READER)
        };
        world.says(OWNER, LogBody::Grant(grant));
    }
    let open = world
        .state()
        .readable(&RON.user(), &RON.device(), &PAM.user());
    assert_eq!(open, [span(10, 25), span(30, 50)]);
}

#[test]
fn owner_admins_and_the_publisher_of_a_lane_hold_its_roots() {
    let mut world = World::new();
    world.says(OWNER, admin(ANN));
    world.says(OWNER, publisher(PAM));
    world.says(OWNER, reader(RON));
    let state = world.state();
    let holds = |of: At, lane: At| state.is_keyholder(&of.user(), &of.device(), &lane.user());
    assert!(holds(OWNER, PAM) && holds(ANN, PAM) && holds(PAM, PAM));
    assert!(!holds(PAM, ANN) && !holds(RON, PAM) && !holds(SUE, PAM));
    let holders = state.keyholders(&PAM.user());
    assert_eq!(holders, [OWNER, ANN, PAM].map(At::user).into());
}

#[test]
fn the_newest_settings_hold_and_of_concurrent_ones_the_strictest() {
    let mut world = World::new();
    let made = world.says(OWNER, admin(ANN));
    world.says(OWNER, rekey_every(500));
    assert_eq!(world.state().settings().rekey_every_ms, 500);
    world.says_having_seen(ANN, &[made], rekey_every(0));
    assert_eq!(world.state().settings().rekey_every_ms, 500);
    world.says(ANN, rekey_every(9_000));
    assert_eq!(world.state().settings().rekey_every_ms, 9_000);
}

#[test]
fn the_newest_key_nodes_are_in_force_and_of_concurrent_ones_none() {
    let mut world = World::new();
    let made = world.says(OWNER, admin(ANN));
    let named = |world: &World| world.state().key_nodes().map(|(entry, _)| entry);
    assert_eq!(named(&world), None);
    let first = world.says(OWNER, key_nodes(&[PAM, RON, SUE], 2));
    assert_eq!(named(&world), Some(first));
    world.says_having_seen(ANN, &[made], key_nodes(&[BEN], 1));
    assert_eq!(named(&world), None);
    let both = world.says(ANN, key_nodes(&[PAM, RON], 2));
    assert_eq!(named(&world), Some(both));
    let state = world.state();
    let (_, nodes) = state.key_nodes().unwrap();
    assert_eq!((nodes.threshold, nodes.nodes.len()), (2, 2));
    world.says(OWNER, key_nodes(&[], 0));
    assert_eq!(named(&world), None);
}

#[test]
fn whoever_is_a_key_node_takes_out_devices_of_its_own() {
    let mut world = World::new();
    let is_out = |world: &World| world.state().is_out(&PAM.user(), &PAM_LAPTOP.device());
    world.says(PAM, removal(proven(&[PAM_LAPTOP])));
    assert!(!is_out(&world));
    world.says(OWNER, key_nodes(&[PAM], 1));
    world.says(PAM, removal(proven(&[PAM_LAPTOP])));
    assert!(is_out(&world));
}

#[test]
fn neither_publishers_nor_removed_admins_name_key_nodes() {
    let mut world = World::new();
    world.says(OWNER, publisher(PAM));
    let made = world.says(OWNER, admin(ANN));
    let first = world.says(OWNER, key_nodes(&[RON], 1));
    world.says(PAM, key_nodes(&[PAM], 1));
    let named = |world: &World| world.state().key_nodes().map(|(entry, _)| entry);
    assert_eq!(named(&world), Some(first));
    let removed = world.says(OWNER, removal(users(&[ANN])));
    world.says_having_seen(ANN, &[made, first], key_nodes(&[BEN], 1));
    assert_eq!(named(&world), Some(first));
    assert_ne!(removed, first);
}

#[test]
fn a_condition_holds_when_all_demands_of_one_alternative_do() {
    let (after, before) = (
        |time| Demand::After(Position(time)),
        |time| Demand::Before(Position(time)),
    );
    let holds = |of: &[&[Demand]], now: &[u64]| {
        let condition = Condition(of.iter().map(|all| all.to_vec()).collect());
        let holds = now
            .iter()
            .map(|now| condition.holds(Position(*now), |of| *of != RON.user()));
        holds.collect::<Vec<bool>>()
    };
    assert_eq!(holds(&[], &[0, 1]), [true, true]);
    assert_eq!(holds(&[&[after(5)]], &[4, 5, 6]), [false, true, true]);
    assert_eq!(holds(&[&[before(5)]], &[4, 5, 6]), [true, false, false]);
    let between: &[Demand] = &[after(5), before(7)];
    assert_eq!(holds(&[between], &[4, 5, 6, 7]), [false, true, true, false]);
    let outside: &[&[Demand]] = &[&[after(7)], &[before(5)]];
    assert_eq!(holds(outside, &[4, 5, 6, 7]), [true, false, false, true]);
    let approved = |needed, of: &[At]| {
        let of = of.iter().map(|at| at.user()).collect();
        Demand::Approved(Approvers { needed, of })
    };
    let late: &[Demand] = &[after(5), approved(2, &[ANN, BEN, RON])];
    assert_eq!(holds(&[late], &[4, 5]), [false, true]);
    let too_few: &[Demand] = &[approved(2, &[ANN, RON])];
    assert_eq!(holds(&[too_few], &[4]), [false]);
    assert_eq!(holds(&[too_few, &[after(5)]], &[4, 5]), [false, true]);
}

#[test]
fn a_closed_stream_lets_nobody_seal() {
    let mut world = World::new();
    world.says(OWNER, publisher(PAM));
    let may = |world: &World, of: At| {
        let state = world.state();
        state.may_publish(&of.user(), &of.device(), Position(7))
    };
    assert!(may(&world, PAM) && may(&world, OWNER));
    world.says(OWNER, LogBody::Close);
    assert!(world.state().is_closed());
    assert!(!may(&world, PAM) && !may(&world, OWNER));
}

#[test]
fn the_mark_follows_owner_and_admins_and_no_publisher() {
    let mut world = World::new();
    world.says(OWNER, publisher(PAM));
    let by_owner = world.state().mark();
    let mut ahead = world.written.last().unwrap().body().clone();
    ahead.user = PAM.user();
    (ahead.seq, ahead.prev, ahead.time) = (0, NO_ENTRY, Position(1 << 40));
    (ahead.heads, ahead.body) = (world.log.heads(&NO_ENTRY), reader_of(RON, PAM));
    let ahead = world.writes(PAM, ahead);
    assert_eq!(world.standing(ahead), Some(Standing::Counts));
    assert_eq!(world.state().mark(), by_owner);
    world.says(OWNER, admin(ANN));
    world.says(ANN, reader(RON));
    assert!(world.state().mark() > by_owner);
}

#[test]
fn the_far_future_of_an_admin_ends_with_the_admin() {
    let mut world = World::new();
    world.says(OWNER, admin(ANN));
    let before = world.state().mark();
    let mut far = world.written.last().unwrap().body().clone();
    far.user = ANN.user();
    (far.seq, far.prev, far.time) = (0, NO_ENTRY, Position(1 << 40));
    (far.heads, far.body) = (world.log.heads(&NO_ENTRY), reader(RON));
    world.writes(ANN, far);
    assert_eq!(world.state().mark(), Position(1 << 40));
    world.says(OWNER, removal(Targets::Users(vec![ANN.user()])));
    assert!(world.state().mark() > before && world.state().mark() < Position(1 << 40));
}

#[test]
fn a_fork_of_whoever_named_key_nodes_does_not_bring_back_those_before() {
    let mut world = World::new();
    let made = world.says(OWNER, admin(ANN));
    let first = world.says(OWNER, key_nodes(&[PAM, RON], 2));
    let taken = world.says(ANN, asking_for(&[BEN]));
    let named = |world: &World| {
        all_orders_agree(world);
        world.state().key_nodes().map(|(entry, _)| entry)
    };
    let unsettled = |world: &World| world.state().unsettled_key_nodes().to_vec();
    world.says(OWNER, removal(users(&[ANN])));
    assert_eq!((named(&world), unsettled(&world)), (Some(taken), vec![]));
    // Whatever the device writes in that place now.
    world.forks(ANN, taken, &[made], key_nodes(&[SUE], 1));
    assert_eq!((named(&world), unsettled(&world)), (None, vec![taken]));
    world.says_having_seen(ANN, &[first], key_nodes(&[SUE], 1));
    assert_eq!((named(&world), unsettled(&world)), (None, vec![taken]));
    let settled = world.says(OWNER, key_nodes(&[PAM, RON], 1));
    assert_eq!((named(&world), unsettled(&world)), (Some(settled), vec![]));
    world.forks(ANN, taken, &[first], key_nodes(&[BEN], 1));
    assert_eq!(named(&world), Some(settled));
}

#[test]
fn a_fork_of_whoever_made_the_admin_does_not_bring_back_key_nodes_before() {
    let mut world = World::new();
    let made = world.says(OWNER, admin(ANN));
    world.says_having_seen(OWNER_LAPTOP, &[made], key_nodes(&[PAM, RON], 2));
    let taken = world.says(ANN, asking_for(&[BEN]));
    world.says_having_seen(OWNER_LAPTOP, &[taken], removal(proven(&[OWNER])));
    assert_eq!(
        world.state().key_nodes().map(|(entry, _)| entry),
        Some(taken)
    );
    world.forks(OWNER, made, &[], rekey_every(1));
    all_orders_agree(&world);
    assert_eq!(world.state().key_nodes(), None);
    assert_eq!(world.state().unsettled_key_nodes(), [taken]);
}

#[test]
fn a_new_generation_is_one_that_nobody_named() {
    let of = |generation| {
        let LogBody::KeyNodes(nodes) = key_nodes(&[PAM], 1) else {
            panic!("these are key nodes");
        };
        LogBody::KeyNodes(KeyNodes {
            generation,
            ..nodes
        })
    };
    let mut world = World::new();
    let made = world.says(OWNER, admin(ANN));
    world.says(OWNER, of(0));
    world.says(OWNER, removal(users(&[ANN])));
    world.says_having_seen(ANN, &[made], of(6));
    world.says(OWNER, of(5));
    assert_eq!(world.state().new_generation(), 7);
    world.says(OWNER, of(u32::MAX));
    assert_eq!(world.state().new_generation(), 1);
}

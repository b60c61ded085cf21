//! Who approves that key nodes release.

use std::slice;

use sealcast_protocol::{Approvers, Condition, Demand, LogBody, Position};

use crate::orders::all_orders_agree;
use crate::world::*;

const NO_END: u64 = Position::END.0;

/// Ann and Ben are asked for their approval; Ron reads.
fn begin() -> World {
    let mut world = World::new();
    world.says(OWNER, reader(RON));
    world.says(OWNER, asking_for(&[ANN, BEN]));
    world
}

/// Up to when each of them approves of Ron.
fn said(world: &World) -> [Option<u64>; 2] {
    all_orders_agree(world);
    let state = world.state();
    [ANN, BEN].map(|by| {
        let mut said = state.approvals(&RON.user());
        let until = said
            .find(|(of, _)| *of == by.user())
            .map(|(_, until)| until.0);
        let approves = state.approves(&by.user(), &RON.user(), Position(4));
        assert_eq!(approves, until.is_some_and(|until| until > 4));
        until
    })
}

#[test]
fn those_whom_a_condition_names_approve_of_others_until_they_take_it_back() {
    let mut world = begin();
    assert_eq!(said(&world), [None, None]);
    world.says(ANN, approve(RON, 5));
    world.says(PAM, approve(RON, 5));
    world.says(OWNER, approve(RON, 5));
    assert_eq!(said(&world), [Some(5), None]);
    world.says(BEN, approve(RON, 3));
    assert_eq!(said(&world), [Some(5), Some(3)]);
    let user = RON.user();
    let until = Position::END;
    world.says(
        BEN,
        LogBody::Approve(sealcast_protocol::Approval { user, until }),
    );
    assert_eq!(said(&world), [Some(5), Some(NO_END)]);
    world.says(ANN_LAPTOP, approve(RON, 0));
    assert_eq!(said(&world), [None, Some(NO_END)]);
    // Of nobody else.
    assert_eq!(world.state().approvals(&SUE.user()).count(), 0);
}

#[test]
fn of_two_devices_that_know_nothing_of_each_other_the_stricter_is_heard() {
    let mut world = begin();
    let first = world.says(ANN, approve(RON, 5));
    world.says_having_seen(ANN_LAPTOP, &[first], approve(RON, 3));
    world.says_having_seen(ANN, &[first], approve(RON, 0));
    assert_eq!(said(&world), [None, None]);
}

#[test]
fn the_removal_of_whom_it_is_for_takes_what_was_approved_without_knowledge_of_it() {
    let mut world = begin();
    world.says(ANN, approve(RON, 5));
    world.says(BEN, approve(RON, 5));
    world.says(OWNER, removal(users(&[RON])));
    assert_eq!(said(&world), [None, None]);
    world.says(ANN, approve(RON, 4));
    assert_eq!(said(&world), [Some(4), None]);
}

#[test]
fn who_was_removed_approves_nothing_until_somebody_who_knows_of_it_asks_for_that_anew() {
    for of in [users(&[ANN]), unproven(&[ANN])] {
        let mut world = begin();
        world.says(ANN, approve(RON, 5));
        world.says(BEN, approve(RON, 5));
        let asked = world.says(OWNER, asking_for(&[ANN, BEN]));
        let removed = world.says(OWNER, removal(of));
        assert_eq!(said(&world), [None, Some(5)]);
        world.says(ANN, approve(RON, 4));
        assert_eq!(said(&world), [None, Some(5)]);
        // By one who does not know of the removal, it is as if it had been before.
        world.says_having_seen(OWNER_LAPTOP, &[asked], asking_for(&[ANN, BEN]));
        world.says(ANN, approve(RON, 3));
        assert_eq!(said(&world), [None, Some(5)]);
        world.says_having_seen(OWNER_LAPTOP, &[removed], asking_for(&[ANN, BEN]));
        assert_eq!(said(&world), [None, Some(5)]);
        world.says(ANN, approve(RON, 2));
        assert_eq!(said(&world), [Some(2), Some(5)]);
    }
}

#[test]
fn what_was_approved_is_over_with_the_first_condition_that_does_not_name_its_author() {
    let mut world = begin();
    let first = world.says(ANN, approve(RON, 5));
    world.says(BEN, approve(RON, 5));
    world.says(OWNER, asking_for(&[BEN]));
    assert_eq!(said(&world), [None, Some(5)]);
    // Nor is heard later what is said meanwhile, or as if it had been said before.
    world.says(ANN, approve(RON, 4));
    world.says_having_seen(ANN_LAPTOP, &[first], approve(RON, 4));
    world.says(OWNER, asking_for(&[ANN, BEN]));
    assert_eq!(said(&world), [None, Some(5)]);
    world.says(ANN, approve(RON, 3));
    assert_eq!(said(&world), [Some(3), Some(5)]);
    world.says(OWNER, key_nodes(&[BEN], 1));
    world.says(OWNER, asking_for(&[ANN, BEN]));
    assert_eq!(said(&world), [None, None]);
}

#[test]
fn a_condition_beside_that_does_not_name_its_author_is_as_one_that_came_later() {
    let mut world = begin();
    world.says(ANN, approve(RON, 5));
    let beside = world.says(OWNER, asking_for(&[ANN, BEN]));
    world.says_having_seen(OWNER_LAPTOP, &[world.genesis], asking_for(&[BEN]));
    assert_eq!(said(&world), [None, None]);
    world.says(OWNER, asking_for(&[ANN, BEN]));
    world.says_having_seen(ANN_LAPTOP, &[beside], approve(RON, 4));
    assert_eq!(said(&world), [None, None]);
    world.says(ANN, approve(RON, 3));
    assert_eq!(said(&world), [Some(3), None]);
}

#[test]
fn a_condition_that_does_not_count_asks_for_nothing_and_ends_nothing() {
    let mut world = begin();
    let asked = world.says(OWNER, admin(PAM));
    let removed = world.says(OWNER, removal(users(&[ANN])));
    world.says(ANN, approve(RON, 5));
    world.says(BEN, approve(RON, 5));
    let out = world.says_having_seen(OWNER, &[removed], removal(users(&[PAM])));
    // As if it had been before she was removed.
    let void = world.says_having_seen(PAM, &[asked, removed], asking_for(&[ANN]));
    world.says_having_seen(ANN, &[void, out], approve(RON, 4));
    assert_eq!(said(&world), [None, Some(5)]);
}

#[test]
fn who_loses_a_grant_needs_approval_anew() {
    let mut world = begin();
    world.says(OWNER, publisher(PAM));
    let of_lane = world.says(PAM, reader_of(RON, PAM));
    let second = world.says(OWNER, reader(RON));
    let of_ann = world.says(OWNER, reader(ANN));
    let of_sue = world.says(OWNER, reader(SUE));
    world.says(ANN, approve(RON, 5));
    world.says(BEN, approve(RON, 5));
    world.says(OWNER, removal(grants(&[of_ann, of_sue])));
    // What a publisher takes is of its own lane.
    world.says(PAM, removal(grants(&[of_lane])));
    assert_eq!(said(&world), [Some(5), Some(5)]);
    let removed = world.says(OWNER, removal(grants(&[second])));
    assert_eq!(said(&world), [None, None]);
    world.says_having_seen(ANN, &[removed], approve(RON, 4));
    assert_eq!(said(&world), [Some(4), None]);
}

#[test]
fn an_admin_who_is_asked_is_removed_by_the_owner_alone() {
    for (by, said_by_ben) in [(ANN, Some(5)), (OWNER, None)] {
        let mut world = begin();
        world.says(OWNER, admin(ANN));
        world.says(OWNER, admin(BEN));
        world.says(by, removal(users(&[BEN])));
        world.says(BEN, approve(RON, 5));
        assert_eq!(said(&world), [None, said_by_ben]);
    }
}

#[test]
fn a_device_that_is_out_approves_nothing_and_what_it_took_back_stays_taken() {
    let mut world = begin();
    world.says(ANN, approve(RON, 5));
    world.says(ANN_LAPTOP, approve(RON, 0));
    // No grant names her.
    world.says(ANN, removal(proven(&[ANN_LAPTOP])));
    assert!(world.state().is_out(&ANN.user(), &ANN_LAPTOP.device()));
    assert_eq!(said(&world), [None, None]);
    world.says(ANN, approve(RON, 4));
    assert_eq!(said(&world), [Some(4), None]);
    world.says(OWNER, removal(proven(&[ANN])));
    assert_eq!(said(&world), [None, None]);
}

#[test]
fn two_approvals_at_one_place_of_a_chain_are_none() {
    let mut world = begin();
    let before = world.says(ANN, approve(SUE, 5));
    world.says(ANN, approve(RON, 5));
    world.goes_back_to(ANN, before);
    world.says_having_seen(ANN, &[], approve(RON, 4));
    assert_eq!(said(&world), [None, None]);
}

#[test]
fn an_admin_takes_no_approval_of_the_owner() {
    let mut world = World::new();
    world.says(OWNER, admin(BEN));
    world.says(OWNER, asking_for(&[OWNER]));
    world.says(OWNER, approve(RON, 5));
    world.says(BEN, removal(users(&[OWNER])));
    assert!(
        world
            .state()
            .approves(&OWNER.user(), &RON.user(), Position(4))
    );
    world.says(BEN, removal(users(&[RON])));
    assert!(
        !world
            .state()
            .approves(&OWNER.user(), &RON.user(), Position(4))
    );
    all_orders_agree(&world);
}

#[test]
fn two_conditions_together_hold_where_both_do() {
    let of = |spans: &[&[Demand]]| Condition(spans.iter().map(|all| all.to_vec()).collect());
    let [after, before] = [Demand::After(Position(1)), Demand::Before(Position(5))];
    let approved = Demand::Approved(Approvers {
        needed: 1,
        of: vec![ANN.user()],
    });
    let times = of(&[slice::from_ref(&after), slice::from_ref(&before)]);
    let people = of(&[slice::from_ref(&approved)]);
    let both = of(&[
        &[after.clone(), approved.clone()],
        &[before.clone(), approved],
    ]);
    assert_eq!(times.and(&people), Some(both.clone()));
    assert_eq!(people.and(&times), Some(both));
    assert_eq!(times.and(&Condition::default()), Some(times.clone()));
    assert_eq!(Condition::default().and(&times), Some(times.clone()));
    let many = (0..3).map(|n| vec![Demand::After(Position(n + 2))]);
    assert_eq!(
        times.and(&Condition(many.collect())).map(|of| of.0.len()),
        Some(6)
    );
    let many = (0..8).map(|n| vec![Demand::After(Position(n + 2))]);
    assert_eq!(times.and(&Condition(many.collect())), None);
}

#[test]
fn what_a_condition_lacks_is_what_can_still_come_about() {
    let users = [ANN, BEN, SUE].map(At::user);
    let mut of = users.to_vec();
    of.sort();
    let two = Demand::Approved(Approvers { needed: 2, of });
    let alternatives = vec![
        vec![Demand::After(Position(5)), two.clone()],
        vec![Demand::After(Position(9)), Demand::Before(Position(20))],
        vec![Demand::Before(Position(3))],
    ];
    let condition = Condition(alternatives);
    let lacks = |now, by: &[At]| {
        let by: Vec<_> = by.iter().map(|at| at.user()).collect();
        condition.lacks(Position(now), |user| by.contains(user))
    };
    assert_eq!(lacks(2, &[]), [[]; 0]);
    let later = vec![Demand::After(Position(9))];
    assert_eq!(
        lacks(3, &[]),
        [vec![Demand::After(Position(5)), two], later.clone()]
    );
    let mut of = vec![BEN.user(), SUE.user()];
    of.sort();
    let one = Demand::Approved(Approvers { needed: 1, of });
    assert_eq!(lacks(5, &[ANN]), [vec![one], later.clone()]);
    assert_eq!(
        lacks(3, &[ANN, BEN]),
        [vec![Demand::After(Position(5))], later]
    );
    assert_eq!(lacks(5, &[ANN, BEN]), [[]; 0]);
    let over = Condition(vec![vec![Demand::Before(Position(3))]]);
    assert_eq!(over.lacks(Position(3), |_| true), [[]; 0]);
}

#[test]
fn what_a_stolen_device_says_once_it_is_out_takes_back_nothing() {
    let mut world = begin();
    let asked = world.says(OWNER, asking_for(&[ANN, BEN]));
    world.says(ANN, approve(RON, 5));
    let out = world.says(ANN, removal(proven(&[ANN_LAPTOP])));
    world.says_having_seen(ANN_LAPTOP, &[asked], approve(RON, 0));
    world.says_having_seen(ANN_LAPTOP, &[asked], approve(RON, 9));
    assert_eq!(said(&world), [Some(5), None]);
    // Nor does it say more than the user.
    world.says_having_seen(ANN, &[out], approve(RON, 0));
    assert_eq!(said(&world), [None, None]);
}

#[test]
fn what_a_device_took_back_before_it_was_out_stays_so() {
    let mut world = begin();
    let first = world.says(ANN, approve(RON, 5));
    world.says_having_seen(ANN_LAPTOP, &[first], approve(RON, 0));
    world.says(OWNER, removal(proven(&[ANN_LAPTOP])));
    assert_eq!(said(&world), [None, None]);
    world.says(ANN, approve(RON, 4));
    assert_eq!(said(&world), [Some(4), None]);
}

#[test]
fn a_condition_that_a_fork_took_ends_what_it_does_not_ask_for() {
    let mut world = begin();
    let made = world.says(OWNER, admin(PAM));
    world.says(ANN, approve(RON, 5));
    world.says(BEN, approve(RON, 5));
    let taken = world.says(PAM, asking_for(&[BEN]));
    world.says(OWNER, removal(users(&[PAM])));
    assert_eq!(said(&world), [None, Some(5)]);
    world.forks(PAM, taken, &[made], rekey_every(1));
    assert_eq!(said(&world), [None, Some(5)]);
    assert_eq!(world.state().key_nodes(), None);
    world.says(OWNER, asking_for(&[ANN, BEN]));
    assert_eq!(said(&world), [None, Some(5)]);
}

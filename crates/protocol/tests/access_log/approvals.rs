//! Who approves that key nodes release.

use sealcast_protocol::{LogBody, Position};

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

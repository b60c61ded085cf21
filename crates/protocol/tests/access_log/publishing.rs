//! By what right an envelope is delivered.

use sealcast_protocol::{Grant, Interval, LogBody, LogHash, Position, PublishRight, Roles};

use crate::world::*;

const NOWHERE: &[LogHash] = &[];

#[test]
fn who_holds_the_right_needs_no_tip_and_a_stranger_has_none() {
    let mut world = World::new();
    world.says(OWNER, admin(ANN));
    world.says(OWNER, publisher(PAM));
    world.says(OWNER, reader(RON));
    for of in [OWNER, OWNER_LAPTOP, ANN, PAM] {
        assert_eq!(world.right(of, 7, NOWHERE), PublishRight::Held);
    }
    for of in [RON, SUE] {
        assert_eq!(world.right(of, 7, NOWHERE), PublishRight::Missing);
    }
}

#[test]
fn a_right_with_an_end_covers_the_positions_up_to_it() {
    let mut world = World::new();
    let interval = Interval {
        from: Position(10),
        until: Position(20),
    };
    let limited = LogBody::Grant(Grant {
        interval,
        ..grant(PAM, Roles::PUBLISHER)
    });
    let given = world.says(OWNER, limited);
    assert_eq!(world.right(PAM, 10, NOWHERE), PublishRight::Held);
    assert_eq!(world.right(PAM, 20, NOWHERE), PublishRight::Missing);
    let taken = removal_with_tips(grants(&[given]), &[(PAM, 5)]);
    world.says(OWNER, taken);
    assert_eq!(world.right(PAM, 10, NOWHERE), up_to(&[5]));
    assert_eq!(world.right(PAM, 20, NOWHERE), PublishRight::Missing);
}

#[test]
fn a_revoked_publishers_envelopes_count_up_to_the_listed_tips() {
    let mut world = World::new();
    world.says(OWNER, publisher(PAM));
    let taken = removal_with_tips(users(&[PAM]), &[(PAM, 5), (PAM, 6), (PAM_LAPTOP, 8)]);
    world.says(OWNER, taken);
    assert_eq!(world.right(PAM, 7, NOWHERE), up_to(&[5, 6]));
    assert_eq!(world.right(PAM_LAPTOP, 7, NOWHERE), up_to(&[8]));
    assert_eq!(world.right(At('p', 3), 7, NOWHERE), PublishRight::Missing);
}

#[test]
fn after_a_new_grant_the_sessions_that_reach_it_count_and_older_ones_up_to_the_tips() {
    let mut world = World::new();
    let old = world.says(OWNER, publisher(PAM));
    world.says(OWNER, removal_with_tips(users(&[PAM]), &[(PAM, 5)]));
    let new = world.says(OWNER, publisher(PAM));
    assert_eq!(world.right(PAM, 7, &[new]), PublishRight::Held);
    assert_eq!(world.right(PAM, 7, &[old]), up_to(&[5]));
    assert_eq!(world.right(PAM, 7, NOWHERE), up_to(&[5]));
}

#[test]
fn with_one_of_two_grants_revoked_a_session_must_reach_the_other() {
    let mut world = World::new();
    let kept = world.says(OWNER, publisher(PAM));
    let taken = world.says(OWNER, publisher(PAM));
    assert_eq!(world.right(PAM, 7, NOWHERE), PublishRight::Held);
    world.says(OWNER, removal(grants(&[taken])));
    assert_eq!(world.right(PAM, 7, NOWHERE), PublishRight::Missing);
    assert_eq!(world.right(PAM, 7, &[kept]), PublishRight::Held);
}

#[test]
fn a_void_grant_gives_no_right_to_publish() {
    let mut world = World::new();
    let made = world.says(OWNER, admin(ANN));
    world.says(ANN, publisher(PAM));
    assert_eq!(world.right(PAM, 7, NOWHERE), PublishRight::Held);
    world.says_having_seen(
        OWNER,
        &[made],
        removal_with_tips(users(&[ANN]), &[(PAM, 3)]),
    );
    assert_eq!(world.right(PAM, 7, NOWHERE), PublishRight::Missing);
}

#[test]
fn a_device_that_is_out_publishes_up_to_its_tips_and_the_others_go_on() {
    let mut world = World::new();
    world.says(OWNER, publisher(PAM));
    world.says(OWNER, admin(ANN));
    for (author, target) in [(PAM_LAPTOP, PAM), (OWNER, OWNER_LAPTOP), (ANN_LAPTOP, ANN)] {
        let head = world.log.heads(&NO_ENTRY);
        world.says(author, removal_with_tips(proven(&[target]), &[(target, 4)]));
        assert_eq!(world.right(target, 7, &head), up_to(&[4]));
        assert_eq!(world.right(author, 7, NOWHERE), PublishRight::Held);
    }
}

#[test]
fn an_unproven_removal_of_a_publishers_device_lists_tips_too() {
    let mut world = World::new();
    world.says(OWNER, publisher(PAM));
    world.says(OWNER, removal_with_tips(unproven(&[PAM]), &[(PAM, 4)]));
    assert_eq!(world.right(PAM, 7, NOWHERE), up_to(&[4]));
    assert_eq!(world.right(PAM_LAPTOP, 7, NOWHERE), PublishRight::Held);
}

#[test]
fn a_thief_cannot_move_the_tips_of_the_device_it_holds() {
    let mut world = World::new();
    let given = world.says(OWNER, publisher(PAM));
    world.says(PAM_LAPTOP, removal_with_tips(proven(&[PAM]), &[(PAM, 4)]));
    let further = removal_with_tips(proven(&[PAM]), &[(PAM, 9)]);
    world.says_having_seen(PAM, &[given], further.clone());
    assert_eq!(world.right(PAM, 7, NOWHERE), up_to(&[4]));
    world.says(PAM, further);
    assert_eq!(world.right(PAM, 7, NOWHERE), up_to(&[4]));
    let told = world.state().revoked_tips();
    assert_eq!(told, [(PAM.device(), vec![envelope(4)])].into());
}

#[test]
fn a_removed_publisher_cannot_move_its_tips_by_taking_out_its_own_device() {
    let mut world = World::new();
    let given = world.says(OWNER, publisher(PAM));
    world.says(OWNER, removal_with_tips(users(&[PAM]), &[(PAM, 4)]));
    let further = removal_with_tips(proven(&[PAM]), &[(PAM, 9)]);
    world.says_having_seen(PAM_LAPTOP, &[given], further.clone());
    assert_eq!(world.right(PAM, 7, NOWHERE), up_to(&[4]));
    world.says(PAM_LAPTOP, further);
    assert_eq!(world.right(PAM, 7, NOWHERE), up_to(&[4]));
}

#[test]
fn a_removed_admin_cannot_move_the_tips_of_a_removed_publisher() {
    let mut world = World::new();
    world.says(OWNER, publisher(PAM));
    let made = world.says(OWNER, admin(ANN));
    world.says(OWNER, removal_with_tips(users(&[PAM]), &[(PAM, 4)]));
    world.says(OWNER, removal(users(&[ANN])));
    let further = removal_with_tips(users(&[PAM]), &[(PAM, 9)]);
    world.says_having_seen(ANN, &[made], further);
    assert_eq!(world.right(PAM, 7, NOWHERE), up_to(&[4]));
}

#[test]
fn concurrent_removals_of_a_publisher_join_their_tips() {
    let mut world = World::new();
    world.says(OWNER, publisher(PAM));
    let made = world.says(OWNER, admin(ANN));
    world.says_having_seen(OWNER, &[], removal_with_tips(users(&[PAM]), &[(PAM, 4)]));
    world.says_having_seen(ANN, &[made], removal_with_tips(users(&[PAM]), &[(PAM, 3)]));
    assert_eq!(world.right(PAM, 7, NOWHERE), up_to(&[3, 4]));
}

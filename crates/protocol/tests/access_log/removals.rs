//! Who takes what from whom, and what becomes of what they wrote.

use sealcast_protocol::{Grant, LogBody, LogHash, Position, Roles, Standing};

use crate::world::*;

fn is_revoked(world: &World, id: LogHash) -> bool {
    matches!(world.standing(id), Some(Standing::Revoked(_)))
}

#[test]
fn an_admin_takes_nothing_from_the_owner_nor_from_an_admin() {
    let mut world = World::new();
    let ann = world.says(OWNER, admin(ANN));
    let ben = world.says(OWNER, admin(BEN));
    let reading = world.says(OWNER, reader(BEN));
    world.says(ANN, removal(users(&[OWNER, BEN, ANN])));
    world.says(ANN, removal(grants(&[ann, ben, reading])));
    world.says(ANN, removal(unproven(&[OWNER, BEN, ANN])));
    world.says(ANN, removal(proven(&[OWNER, BEN])));
    assert_eq!(world.roles(OWNER), EVERYTHING);
    assert_eq!(world.roles(BEN), EVERYTHING);
    assert_eq!(world.roles(ANN), EVERYTHING);
    for id in [ann, ben, reading] {
        assert_eq!(world.standing(id), Some(Standing::Counts));
    }
}

/// fault 22
#[test]
fn two_admins_who_remove_each_other_both_stay_and_all_devices_agree() {
    let mut world = World::new();
    world.says(OWNER, admin(ANN));
    let both = world.says(OWNER, admin(BEN));
    world.says_having_seen(ANN, &[both], removal(users(&[BEN])));
    world.says_having_seen(BEN, &[both], removal(users(&[ANN])));
    assert_eq!(world.roles(ANN), EVERYTHING);
    assert_eq!(world.roles(BEN), EVERYTHING);
    crate::orders::all_orders_agree(&world);
}

/// fault 22
#[test]
fn two_removals_of_each_other_by_one_owners_devices_leave_one_state() {
    let mut world = World::new();
    let ann = world.says(OWNER, admin(ANN));
    world.says_having_seen(OWNER, &[ann], removal(proven(&[OWNER_LAPTOP])));
    world.says_having_seen(OWNER_LAPTOP, &[ann], removal(proven(&[OWNER])));
    assert_eq!(world.roles(OWNER), Roles::NONE);
    assert_eq!(world.roles(OWNER_LAPTOP), Roles::NONE);
    assert_eq!(world.roles(ANN), EVERYTHING);
    crate::orders::all_orders_agree(&world);
}

#[test]
fn grants_of_a_removed_admin_count_only_where_the_revoke_reaches_them() {
    let mut world = World::new();
    let made = world.says(OWNER, admin(ANN));
    let seen = world.says(ANN, publisher(PAM));
    let unseen = world.says(ANN, reader(RON));
    world.says_having_seen(OWNER, &[made, seen], removal(users(&[ANN])));
    assert_eq!(world.roles(ANN), Roles::NONE);
    assert_eq!(world.standing(seen), Some(Standing::Counts));
    assert_eq!(world.standing(unseen), Some(Standing::Void));
    assert_eq!(world.roles(PAM), Roles::PUBLISHER);
    assert_eq!(world.roles(RON), Roles::NONE);
}

#[test]
fn what_rests_on_a_void_grant_is_void_too() {
    let mut world = World::new();
    let made = world.says(OWNER, admin(ANN));
    let publishing = world.says(ANN, publisher(PAM));
    let reading = world.says(PAM, reader_of(RON, PAM));
    world.says_having_seen(OWNER, &[made], removal(users(&[ANN])));
    assert_eq!(world.standing(publishing), Some(Standing::Void));
    assert_eq!(world.standing(reading), Some(Standing::Void));
}

/// fault 23
#[test]
fn a_removed_admins_backdated_grant_does_not_count() {
    let mut world = World::new();
    let made = world.says(OWNER, admin(ANN));
    world.says(OWNER, removal(users(&[ANN])));
    let backdated = world.says_having_seen(ANN, &[made], publisher(PAM));
    let late = world.says(ANN, publisher(PAM));
    assert_eq!(world.standing(backdated), Some(Standing::Void));
    assert_eq!(world.standing(late), None);
    assert_eq!(world.roles(PAM), Roles::NONE);
}

/// fault 23
#[test]
fn a_removed_admins_backdated_settings_closing_and_time_do_not_count() {
    let mut world = World::new();
    let made = world.says(OWNER, admin(ANN));
    world.says(OWNER, removal(users(&[ANN])));
    let before = world.state();
    world.says_having_seen(ANN, &[made], rekey_every(1));
    world.says_having_seen(ANN, &[made], LogBody::Close);
    let mut ahead = world.written.last().unwrap().body().clone();
    (ahead.seq, ahead.prev) = world.log.next_seat(&ANN.user(), &ANN.device());
    ahead.time = Position(1 << 40);
    ahead.body = removal(users(&[RON]));
    world.writes(ANN, ahead);
    assert_eq!(world.state(), before);
}

#[test]
fn a_removed_admins_late_revoke_takes_only_what_it_had_seen() {
    let mut world = World::new();
    world.says(OWNER, admin(ANN));
    let old = world.says(OWNER, reader(RON));
    world.says(OWNER, removal(users(&[ANN])));
    let new = world.says(OWNER, reader(RON));
    let other = world.says(OWNER, reader(PAM));
    world.says_having_seen(ANN, &[old], removal(users(&[RON, PAM])));
    assert!(is_revoked(&world, old));
    assert_eq!(world.standing(new), Some(Standing::Counts));
    assert_eq!(world.standing(other), Some(Standing::Counts));
}

#[test]
fn a_revoke_that_its_authors_remover_had_seen_takes_everything_it_names() {
    let mut world = World::new();
    let made = world.says(OWNER, admin(ANN));
    let revoke = world.says_having_seen(ANN, &[made], removal(users(&[RON])));
    let concurrent = world.says_having_seen(OWNER, &[made], reader(RON));
    world.says_having_seen(OWNER, &[revoke, concurrent], removal(users(&[ANN])));
    assert!(is_revoked(&world, concurrent));
}

/// Were it held back, two removals could each depend on whether the other is.
#[test]
fn only_a_remover_that_had_seen_the_authors_grant_holds_a_revoke_back() {
    let mut world = World::new();
    let genesis = world.genesis;
    let made = world.says(OWNER, admin(ANN));
    world.says_having_seen(ANN, &[made], removal(users(&[RON])));
    let concurrent = world.says_having_seen(OWNER, &[], reader(RON));
    world.says_having_seen(OWNER_LAPTOP, &[genesis], removal(users(&[ANN])));
    assert!(is_revoked(&world, made));
    assert!(is_revoked(&world, concurrent));
}

#[test]
fn a_grant_that_does_not_know_of_the_users_revoke_is_void_and_one_that_does_counts() {
    let mut world = World::new();
    world.says(OWNER, admin(ANN));
    let both = world.says(OWNER, admin(BEN));
    world.says_having_seen(ANN, &[both], removal(users(&[RON])));
    let concurrent = world.says_having_seen(BEN, &[both], reader(RON));
    assert!(is_revoked(&world, concurrent));
    assert_eq!(world.roles(RON), Roles::NONE);
    let again = world.says(BEN, reader(RON));
    assert_eq!(world.standing(again), Some(Standing::Counts));
    assert_eq!(world.roles(RON), Roles::READER);
}

#[test]
fn a_revoked_grant_leaves_the_users_other_grants() {
    let mut world = World::new();
    let publishing = world.says(OWNER, publisher(PAM));
    world.says(OWNER, reader(PAM));
    world.says(OWNER, removal(grants(&[publishing])));
    assert_eq!(world.roles(PAM), Roles::READER);
}

#[test]
fn an_entry_that_rests_on_several_grants_counts_while_one_of_them_does() {
    let mut world = World::new();
    let first = world.says(OWNER, publisher(PAM));
    let second = world.says(OWNER, publisher(PAM));
    let reading = world.says(PAM, reader_of(RON, PAM));
    world.says_having_seen(OWNER, &[second], removal(grants(&[first])));
    assert_eq!(world.standing(reading), Some(Standing::Counts));
    world.says_having_seen(OWNER, &[second], removal(grants(&[second])));
    assert_eq!(world.standing(reading), Some(Standing::Void));
}

#[test]
fn an_owners_revoke_takes_an_admins_right_and_only_the_owner_gives_it_back() {
    let mut world = World::new();
    world.says(OWNER, admin(ANN));
    world.says(OWNER, admin(BEN));
    world.says(OWNER, removal(users(&[ANN])));
    assert_eq!(world.roles(ANN), Roles::NONE);
    world.says(BEN, admin(ANN));
    assert_eq!(world.roles(ANN), Roles::NONE);
    world.says(OWNER, admin(ANN));
    assert_eq!(world.roles(ANN), EVERYTHING);
}

#[test]
fn a_user_made_admin_meanwhile_keeps_that_and_loses_the_rest() {
    let mut world = World::new();
    let made = world.says(OWNER, admin(ANN));
    let reading = world.says(OWNER, reader(BEN));
    let raised = world.says(OWNER, admin(BEN));
    world.says_having_seen(ANN, &[made, reading], removal(users(&[BEN])));
    assert_eq!(world.standing(raised), Some(Standing::Counts));
    assert!(is_revoked(&world, reading));
}

#[test]
fn a_publishers_revoke_takes_the_reading_of_its_own_lane_alone() {
    let mut world = World::new();
    world.says(OWNER, publisher(PAM));
    world.says(OWNER, publisher(BEN));
    let both = Roles::READER.with(Roles::PUBLISHER);
    let given = world.says(OWNER, LogBody::Grant(grant(RON, both)));
    world.says(PAM, removal(users(&[RON, BEN])));
    assert!(!world.reads(RON, PAM) && world.reads(RON, BEN));
    assert_eq!(world.roles(RON), both);
    assert_eq!(world.roles(BEN), Roles::PUBLISHER);
    let lost = world.grant(given).unwrap().lanes_lost;
    assert_eq!(lost, [PAM.user()].into());
    let again = world.says(PAM, reader_of(RON, PAM));
    assert_eq!(world.standing(again), Some(Standing::Counts));
    assert!(world.reads(RON, PAM));
    world.says(PAM, removal(grants(&[again])));
    assert!(!world.reads(RON, PAM) && world.reads(RON, BEN));
}

#[test]
fn a_publishers_revoke_concerns_sessions_of_its_own_lane_alone() {
    let mut world = World::new();
    world.says(OWNER, publisher(PAM));
    world.says(OWNER, reader(RON));
    let of_lane = world.says(PAM, removal(users(&[RON])));
    let of_all = world.says(OWNER, removal(users(&[RON])));
    let state = world.state();
    let concerning = |lane: At| state.removals(&lane.user()).collect::<Vec<_>>();
    let mut both = vec![of_lane, of_all];
    both.sort_unstable();
    assert_eq!(concerning(PAM), both);
    assert_eq!(concerning(BEN), [of_all]);
}

#[test]
fn a_removed_publishers_late_revoke_takes_no_reader_it_had_not_seen() {
    let mut world = World::new();
    let made = world.says(OWNER, publisher(PAM));
    world.says(OWNER, removal(users(&[PAM])));
    let late = world.says(OWNER, reader(RON));
    world.says_having_seen(PAM, &[made], removal(users(&[RON])));
    assert!(world.grant(late).unwrap().lanes_lost.is_empty());
}

#[test]
fn a_removal_that_takes_nothing_asks_nobody_for_a_new_session() {
    let mut world = World::new();
    let reading = world.says(OWNER, reader(RON));
    let first = world.says(OWNER, removal(users(&[RON])));
    world.says_having_seen(RON, &[reading], removal(proven(&[RON])));
    world.says(OWNER, removal(users(&[SUE])));
    let state = world.state();
    let concerning: Vec<_> = state.removals(&PAM.user()).collect();
    assert_eq!(concerning, [first]);
}

/// fault 1, for the log: an id of one stream means nothing in another.
#[test]
fn an_entry_or_grant_of_one_stream_means_nothing_in_another() {
    let (mut one, mut two) = (World::new(), World::of_nonce(9));
    let there = one.says(OWNER, reader(RON));
    let here = two.says(OWNER, reader(RON));
    let foreign = one.written.last().unwrap().clone();
    let before = two.state();
    assert_eq!(
        two.log.insert(foreign),
        sealcast_protocol::Inserted::Foreign
    );
    assert_eq!(two.state(), before);
    two.says(OWNER, removal(grants(&[there])));
    assert_eq!(two.standing(here), Some(Standing::Counts));
    assert_eq!(two.standing(there), None);
    assert!(!two.log.reaches(&two.log.heads(&NO_ENTRY), &there));
}

#[test]
fn a_revoke_of_one_users_grants_leaves_all_others() {
    let mut world = World::new();
    let ron = world.says(OWNER, reader(RON));
    let limited = LogBody::Grant(Grant {
        devices: vec![SUE.device()],
        ..grant(SUE, Roles::READER)
    });
    let sue = world.says(OWNER, limited);
    world.says(OWNER, removal(users(&[RON])));
    assert!(is_revoked(&world, ron));
    assert_eq!(world.standing(sue), Some(Standing::Counts));
}

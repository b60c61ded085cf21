//! Taking out devices: by proof of their own user, and without.

use sealcast_protocol::{Grant, LogBody, Roles, Standing};

use crate::world::*;

fn out(world: &World, of: At) -> bool {
    world.state().is_out(&of.user(), &of.device())
}

#[test]
fn an_owners_device_goes_out_by_the_owners_own_proof() {
    let mut world = World::new();
    let by_laptop = world.says(OWNER_LAPTOP, reader(RON));
    world.says(OWNER, removal(proven(&[OWNER_LAPTOP])));
    assert!(out(&world, OWNER_LAPTOP) && !out(&world, OWNER));
    assert_eq!(world.roles(OWNER_LAPTOP), Roles::NONE);
    assert_eq!(world.roles(OWNER), EVERYTHING);
    assert_eq!(world.standing(by_laptop), Some(Standing::Counts));
    let after = world.says(OWNER_LAPTOP, reader(RON));
    assert_eq!(world.standing(after), None);
}

#[test]
fn what_a_lost_device_wrote_counts_only_where_its_removal_reaches_it() {
    let mut world = World::new();
    let seen = world.says(OWNER_LAPTOP, reader(RON));
    world.says(OWNER, removal(proven(&[OWNER_LAPTOP])));
    let unseen = world.says_having_seen(OWNER_LAPTOP, &[seen], reader(SUE));
    assert_eq!(world.standing(seen), Some(Standing::Counts));
    assert_eq!(world.standing(unseen), Some(Standing::Void));
}

#[test]
fn a_lost_owner_devices_late_revoke_takes_only_what_it_had_seen() {
    let mut world = World::new();
    let old = world.says(OWNER, reader(RON));
    world.says(OWNER, removal(proven(&[OWNER_LAPTOP])));
    let new = world.says(OWNER, reader(RON));
    world.says_having_seen(OWNER_LAPTOP, &[old], removal(users(&[RON])));
    assert!(matches!(world.standing(old), Some(Standing::Revoked(_))));
    assert_eq!(world.standing(new), Some(Standing::Counts));
}

#[test]
fn a_false_proof_takes_out_no_device_of_owner_or_admin() {
    let mut world = World::new();
    world.says(OWNER, admin(ANN));
    let before = world.state();
    let forged = |of: At| proof_signed_by('b', of);
    let of_another = |_: At| proof(RON);
    let cut = |of: At| proof(of)[1..].to_vec();
    world.says(OWNER, removal(unproven(&[OWNER_LAPTOP, ANN])));
    world.says(OWNER, removal(devices(&[OWNER_LAPTOP, ANN], forged)));
    world.says(ANN, removal(devices(&[ANN_LAPTOP], of_another)));
    world.says(ANN_LAPTOP, removal(devices(&[ANN], cut)));
    let state = world.state();
    assert_eq!(state.grants(), before.grants());
    for of in [OWNER_LAPTOP, ANN, ANN_LAPTOP] {
        assert_eq!(world.roles(of), EVERYTHING);
    }
}

/// The proof is public once the root has signed it. Carried by another, with old heads, it would
/// undo all that the device ever granted.
#[test]
fn nobody_but_its_user_and_the_owner_can_use_the_proof_against_a_device() {
    let mut world = World::new();
    let made = world.says(OWNER, admin(ANN));
    world.says(OWNER, publisher(PAM));
    let by_ann = world.says(ANN, reader(RON));
    let by_laptop = world.says(OWNER_LAPTOP, reader(RON));
    let before = world.state();
    world.says(OWNER, admin(BEN));
    world.says_having_seen(PAM, &[made], removal(proven(&[OWNER_LAPTOP])));
    world.says_having_seen(RON, &[made], removal(proven(&[OWNER_LAPTOP, ANN])));
    world.says(BEN, removal(proven(&[OWNER_LAPTOP, ANN, ANN_LAPTOP])));
    assert!(!out(&world, OWNER_LAPTOP) && !out(&world, ANN));
    for id in [by_ann, by_laptop] {
        assert_eq!(world.standing(id), Some(Standing::Counts));
    }
    assert_eq!(before.grants().len() + 1, world.state().grants().len());
}

#[test]
fn any_named_user_takes_out_devices_of_its_own() {
    let mut world = World::new();
    world.says(OWNER, reader(RON));
    world.says(RON, removal(proven(&[RON])));
    assert!(out(&world, RON));
    assert_eq!(world.roles(RON), Roles::NONE);
    world.says(SUE, removal(proven(&[SUE])));
    assert!(!out(&world, SUE));
}

#[test]
fn a_device_that_is_out_by_proof_stays_out_whatever_is_granted() {
    let mut world = World::new();
    world.says(OWNER, admin(ANN));
    world.says(ANN, removal(proven(&[ANN_LAPTOP])));
    world.says(OWNER, removal(users(&[ANN])));
    world.says(OWNER, admin(ANN));
    assert_eq!(world.roles(ANN), EVERYTHING);
    assert_eq!(world.roles(ANN_LAPTOP), Roles::NONE);
    let by_thief = world.says(ANN_LAPTOP, reader(SUE));
    assert_eq!(world.standing(by_thief), None);
}

#[test]
fn an_admin_takes_a_plain_users_device_out_until_a_later_grant() {
    let mut world = World::new();
    world.says(OWNER, admin(ANN));
    world.says(OWNER, publisher(PAM));
    let of_laptop = LogBody::Grant(Grant {
        devices: vec![PAM_LAPTOP.device()],
        ..grant(PAM, Roles::READER)
    });
    world.says(OWNER, of_laptop);
    world.says(ANN, removal(unproven(&[PAM_LAPTOP])));
    assert_eq!(world.roles(PAM), Roles::PUBLISHER);
    assert_eq!(world.roles(PAM_LAPTOP), Roles::NONE);
    world.says(ANN, publisher(PAM));
    assert_eq!(world.roles(PAM_LAPTOP), Roles::PUBLISHER);
}

#[test]
fn a_publisher_takes_no_devices_of_others() {
    let mut world = World::new();
    world.says(OWNER, publisher(PAM));
    world.says(OWNER, reader(RON));
    let before = world.state();
    world.says(PAM, removal(unproven(&[RON])));
    world.says(PAM, removal(proven(&[RON])));
    world.says(PAM, removal(proven(&[RON, PAM_LAPTOP])));
    assert_eq!(world.state(), before);
    world.says(PAM, removal(proven(&[PAM_LAPTOP])));
    assert!(out(&world, PAM_LAPTOP) && !out(&world, PAM));
}

#[test]
fn equal_device_ids_of_different_users_have_nothing_to_do_with_each_other() {
    let mut world = World::new();
    assert_eq!(PAM.device(), RON.device());
    world.says(OWNER, publisher(PAM));
    world.says(OWNER, publisher(RON));
    let by_pam = world.says(PAM, reader_of(SUE, PAM));
    let by_ron = world.says(RON, reader_of(SUE, RON));
    world.says(RON, removal(proven(&[RON])));
    assert_eq!(world.roles(RON), Roles::NONE);
    assert_eq!(world.roles(PAM), Roles::PUBLISHER);
    world.goes_back_to(RON, by_ron);
    world.says(RON, reader_of(BEN, RON));
    assert_eq!(
        world.log.forked_devices(),
        [(RON.user(), RON.device())].into()
    );
    assert_eq!(world.standing(by_pam), Some(Standing::Counts));
}

#[test]
fn an_owners_device_that_never_wrote_goes_out_too() {
    let mut world = World::new();
    world.says(OWNER, removal(proven(&[OWNER_LAPTOP])));
    assert_eq!(world.roles(OWNER_LAPTOP), Roles::NONE);
}

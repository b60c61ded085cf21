//! The worked example of `spec/access-log.md` is what the code makes.

use sealcast_protocol::{Standing, encode};

use crate::world::*;

const PAGE: &str = include_str!("../../../../spec/access-log.md");

#[test]
fn the_bytes_of_the_example_are_true() {
    let world = World::new();
    let body = encode(world.written[0].body());
    let body: String = body.iter().map(|byte| format!("{byte:02x}")).collect();
    let shown: String = PAGE.split_whitespace().collect();
    assert!(shown.contains(&format!("body={body}stream=")), "{body}");
    assert!(
        shown.contains(&format!("stream={}", world.stream())),
        "{}",
        world.stream()
    );
}

#[test]
fn the_table_of_the_example_is_true() {
    let mut world = World::new();
    let ann = world.says(OWNER, admin(ANN));
    let ben = world.says(OWNER, admin(BEN));
    let ron = world.says(OWNER, reader(RON));
    let by_owner = world.says_having_seen(OWNER, &[], removal(users(&[ANN])));
    let pam = world.says_having_seen(ANN, &[ron], publisher(PAM));
    let by_ann = world.says_having_seen(ANN, &[], removal(users(&[RON, BEN])));
    let again = world.says_having_seen(BEN, &[ron], reader(RON));
    for (id, standing) in [
        (ann, Standing::Revoked(by_owner)),
        (ben, Standing::Counts),
        (ron, Standing::Revoked(by_ann)),
        (pam, Standing::Void),
        (again, Standing::Counts),
    ] {
        assert_eq!(world.standing(id), Some(standing));
    }
}

#[test]
fn had_the_removal_seen_the_admins_entries_they_would_count_in_full() {
    let mut world = World::new();
    world.says(OWNER, admin(ANN));
    world.says(OWNER, admin(BEN));
    let ron = world.says(OWNER, reader(RON));
    let pam = world.says_having_seen(ANN, &[ron], publisher(PAM));
    let by_ann = world.says_having_seen(ANN, &[], removal(users(&[RON, BEN])));
    let again = world.says_having_seen(BEN, &[ron], reader(RON));
    world.says_having_seen(OWNER, &[by_ann], removal(users(&[ANN])));
    assert_eq!(world.standing(pam), Some(Standing::Counts));
    assert_eq!(world.standing(again), Some(Standing::Revoked(by_ann)));
}

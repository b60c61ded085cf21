//! The demo holds what it claims.

use std::fs;

use crate::rig::Rig;

#[test]
fn every_claim_of_the_demo_holds_and_nothing_is_left_behind() {
    let rig = Rig::new();
    let temporary = rig.path().join("tmp");
    fs::create_dir(&temporary).unwrap();
    let kim = rig.stranger("kim");
    let output = kim
        .command(&["demo"])
        .env("TMPDIR", &temporary)
        .output()
        .unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{told}\n{said}");
    assert!(told.matches("holds: ").count() >= 6, "{told}");
    assert!(!told.contains("DOES NOT HOLD"), "{told}");
    assert!(told.contains("synthetic"), "{told}");
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0);
    assert!(
        !kim.home().exists(),
        "the demo leaves the user's own home alone"
    );
}

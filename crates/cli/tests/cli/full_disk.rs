//! A disk without room: an error that says so, and a home that works when there is room again.
#![cfg(target_os = "linux")]

use std::process::Command;

use crate::rig::Rig;

/// Fills a small file system of its own in a mount namespace, publishes, makes room, publishes.
const SCRIPT: &str = r#"
set -u
program=$1; mount=$2
mount -t tmpfs -o size=8m tmpfs "$mount" || exit 99
cd "$mount"
export SEALCAST_HOME=$mount/$3
"$program" init --no-passphrase --bus "file:$4" >out 2>&1 || exit 90
"$program" stream create s >out 2>&1 || exit 91
"$program" pub s -m before >out 2>&1 || exit 92
head -c 20000000 /dev/zero >"$mount/filler" 2>/dev/null
"$program" pub s <"$mount/../payload" >&2
refused=$?
rm "$mount/filler"
"$program" pub s -m after >&2 || exit 93
"$program" read s || exit 94
exit $((refused + 100))
"#;

/// Runs the script; exit code, what was read, what was said.
fn on_a_full_disk(home: &str, bus: &str) -> (i32, String, String) {
    let rig = Rig::new();
    let mount = rig.path().join("disk");
    std::fs::create_dir(&mount).unwrap();
    rig.file("payload", &vec![b'x'; 1 << 20]);
    let output = Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c", SCRIPT, "sh"])
        .arg(env!("CARGO_BIN_EXE_sealcast"))
        .arg(&mount)
        .args([home, bus])
        .env_remove("SEALCAST_PASSPHRASE_FILE")
        .output()
        .expect("`unshare` of util-linux is there");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let code = output.status.code().unwrap_or(-1);
    assert_ne!(
        code, 99,
        "no small file system could be mounted, so nothing was tested: {said}"
    );
    (
        code,
        String::from_utf8_lossy(&output.stdout).into_owned(),
        said,
    )
}

#[test]
fn a_bus_without_room_is_told_and_works_when_there_is_room() {
    let (code, read, said) = on_a_full_disk("../home", "bus");
    assert_eq!(code, 105, "{said}");
    assert!(said.contains("full") || said.contains("room"), "{said}");
    assert_eq!(read, "before\nafter\n");
}

#[test]
fn a_store_without_room_is_told_and_works_when_there_is_room() {
    let (code, read, said) = on_a_full_disk("home", "../bus");
    assert_eq!(code, 106, "{said}");
    assert!(said.contains("full") || said.contains("room"), "{said}");
    assert_eq!(read, "before\nafter\n");
}

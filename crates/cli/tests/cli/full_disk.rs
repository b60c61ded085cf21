//! A disk without room: an error that says so, and a home that works when there is room again.
#![cfg(target_os = "linux")]

use std::process::Command;

use crate::rig::{KEY, Rig};

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

/// Fills a small file system, and backs up into it: beside what is there, and in its place.
const BACKUP_SCRIPT: &str = r#"
set -u
program=$1; mount=$2; key=$3
export SEALCAST_HOME=$mount/../home
"$program" init --no-passphrase --bus "file:$mount/../bus" >/dev/null 2>&1 || exit 90
mount -t tmpfs -o size=64k tmpfs "$mount" || exit 99
cd "$mount"
"$program" backup old.age --recipient "$key" >/dev/null 2>&1 || exit 91
cp old.age ../kept.age
head -c 200000 /dev/zero >filler 2>/dev/null
"$program" backup new.age --recipient "$key" >&2; new=$?
"$program" backup old.age --overwrite --recipient "$key" >&2; old=$?
cmp old.age ../kept.age >&2 || exit 92
ls
exit $((new * 10 + old))
"#;

#[test]
fn a_backup_without_room_is_told_and_leaves_the_older_one_and_nothing_else() {
    let rig = Rig::new();
    let mount = rig.path().join("disk");
    std::fs::create_dir(&mount).unwrap();
    let output = Command::new("unshare")
        .args([
            "--mount",
            "--map-root-user",
            "sh",
            "-c",
            BACKUP_SCRIPT,
            "sh",
        ])
        .arg(env!("CARGO_BIN_EXE_sealcast"))
        .arg(&mount)
        .arg(KEY.0)
        .env_remove("SEALCAST_PASSPHRASE_FILE")
        .output()
        .expect("`unshare` of util-linux is there");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(11), "{said}");
    assert_eq!(said.matches("make room on that disk").count(), 2, "{said}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "filler\nold.age\n");
}

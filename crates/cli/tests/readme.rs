//! The README's commands work when they are copied.
#![cfg(test)]

use std::path::Path;
use std::process::Command;

#[test]
fn the_readme_commands_end_in_a_late_reader_opening_an_old_message() {
    let readme = include_str!("../../../README.md");
    let (_, behind) = readme
        .split_once("```sh\n")
        .expect("README has a block to copy");
    let (block, _) = behind.split_once("```").expect("the block ends");
    let home = tempfile::tempdir().expect("a folder");
    let folder = Path::new(env!("CARGO_BIN_EXE_sealcast"))
        .parent()
        .expect("a folder");
    let path = format!(
        "{}:{}",
        folder.display(),
        std::env::var("PATH").expect("a PATH")
    );
    let output = Command::new("bash")
        .args(["-eu", "-c", block])
        .env("PATH", path)
        .env("HOME", home.path())
        .env("TMPDIR", home.path())
        .output()
        .expect("bash runs");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{out}\n{err}");
    let codes = out.lines().filter(|line| *line == "exit code 3").count();
    assert_eq!(codes, 2, "{out}\n{err}");
    let opened = out.lines().filter(|line| *line == "20.9 C").count();
    assert_eq!(opened, 2, "{out}\n{err}");
    assert!(!out.lines().any(|line| line == "21.5 C"), "{out}\n{err}");
}

//! What cargo builds for the tests, and where it lies.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use serde_json::Value;

/// A program that cargo built.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Built {
    pub(super) program: PathBuf,
    /// The folder of its package, where cargo would start it.
    pub(super) folder: PathBuf,
    pub(super) name: String,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Test,
    Example,
    Other,
}

impl Built {
    /// What a line of cargo's messages says to be built, if it is a program.
    fn parse(line: &[u8]) -> Option<Self> {
        let message: Value = serde_json::from_slice(line).ok()?;
        let program = message["executable"].as_str()?;
        let manifest = Path::new(message["manifest_path"].as_str()?);
        let target = &message["target"];
        let is_example = target["kind"][0] == "example";
        Some(Self {
            program: program.into(),
            folder: manifest.parent()?.to_owned(),
            name: target["name"].as_str()?.to_owned(),
            kind: match message["profile"]["test"].as_bool()? {
                true => Kind::Test,
                false if is_example => Kind::Example,
                false => Kind::Other,
            },
        })
    }
}

/// Builds all tests and examples, in one resolution of features so that nothing is built twice.
pub(super) fn build(root: &Path) -> anyhow::Result<Vec<Built>> {
    let mut cargo = crate::cargo(root);
    cargo.args(["test", "--workspace", "--all-features", "--no-run"]);
    cargo.arg("--message-format=json-render-diagnostics");
    let mut child = cargo.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().context("cargo has no output")?;
    let mut built = Vec::new();
    for line in BufReader::new(output).split(b'\n') {
        built.extend(Built::parse(&line?));
    }
    ensure!(child.wait()?.success(), "the tests do not build");
    Ok(built)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: &str, is_test: bool) -> String {
        format!(
            r#"{{"reason":"compiler-artifact","manifest_path":"/r/crates/a/Cargo.toml",
            "target":{{"kind":["{kind}"],"name":"b"}},"profile":{{"test":{is_test}}},
            "executable":"/r/target/debug/deps/b-1"}}"#
        )
    }

    #[test]
    fn programs_are_told_apart() {
        for (kind, is_test, expected) in [
            ("lib", true, Kind::Test),
            ("test", true, Kind::Test),
            ("example", false, Kind::Example),
            ("bin", false, Kind::Other),
        ] {
            let built = Built::parse(message(kind, is_test).as_bytes()).unwrap();
            assert_eq!(built.kind, expected);
            assert_eq!(built.folder, Path::new("/r/crates/a"));
            assert_eq!(built.name, "b");
        }
    }

    #[test]
    fn what_is_no_program_is_left_out() {
        let library = message("lib", false).replace("\"/r/target/debug/deps/b-1\"", "null");
        for line in [&library, "{}", "", r#"{"reason":"build-finished"}"#] {
            assert_eq!(Built::parse(line.as_bytes()), None);
        }
    }
}

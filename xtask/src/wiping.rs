//! What dependencies can wipe, they do.
//!
//! Wiping is a feature of many crates, off unless someone turns it on, and lost unseen when a
//! default changes. Looked at is what the program itself is built with: in the whole workspace,
//! benchmarks and tests would turn on more.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::finding::Finding;

/// The feature's name wherever there is one.
const FEATURE: &str = "zeroize";

/// What secrets go through: these must be there, under these names, for the check to mean anything.
const EXPECTED: &[&str] = &[
    "argon2",
    "blake3",
    "ml-kem",
    "sha2",
    "x-wing",
    "x25519-dalek",
];

/// What may be left off, since no secret goes through it.
const PUBLIC: &[(&str, &str)] = &[(
    "ed25519",
    "signatures; its key pairs are of PKCS #8, which is off",
)];

/// Crates through which others print. There are none but `log`, which the child of
/// `crates/client/tests/memory` collects at its finest level, and `tracing`, which the agent prints
/// through and `crates/cli/tests/cli/agent/secrets.rs` reads at its finest level; whoever brings one
/// in lets such a test collect that too, and takes it out here.
const LOGGING: &[&str] = &["defmt", "slog"];

/// Features of each package that the program is built with, by name and version.
type Built = BTreeMap<(String, String), BTreeSet<String>>;

/// Asks cargo what the program is built with on any platform.
pub(crate) fn built(root: &Path) -> anyhow::Result<String> {
    let mut cargo = crate::cargo(root);
    cargo.args(["tree", "-p", "sealcast-cli", "--edges", "normal"]);
    cargo.args(["--target", "all", "--prefix", "none", "--format", "{p}|{f}"]);
    let output = cargo.output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`cargo tree` failed: {}", said.trim_end());
    }
    String::from_utf8(output.stdout).context("reading what `cargo tree` printed")
}

/// Compares what packages offer with what is built, as `cargo tree` prints it.
pub(crate) fn check(metadata: &Value, tree: &str) -> Vec<Finding> {
    let built = parse(tree);
    let mut findings = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let field = |name: &str| package[name].as_str().unwrap_or_default().to_owned();
        let (name, version) = (field("name"), field("version"));
        let features = built.get(&(name.clone(), version));
        let is_public = PUBLIC.iter().any(|(of, _)| *of == name);
        let offers = package["features"].get(FEATURE).is_some() && !is_public;
        if features.is_some_and(|features| offers && !features.contains(FEATURE)) {
            let says = format!("turn its feature `{FEATURE}` on in the root's Cargo.toml");
            findings.push(Finding::new(&*name, says));
        }
    }
    let has = |name: &str| built.keys().any(|(of, _)| of == name);
    for name in EXPECTED.iter().filter(|name| !has(name)) {
        findings.push(Finding::new(*name, "gone; see xtask/src/wiping.rs"));
    }
    for name in LOGGING.iter().filter(|name| has(name)) {
        let says = "prints; see xtask/src/wiping.rs";
        findings.push(Finding::new(*name, says));
    }
    findings
}

/// Reads lines of `name v1.2.3 (more)|feature,feature`.
fn parse(tree: &str) -> Built {
    let mut built = Built::new();
    for line in tree.lines() {
        let Some((package, features)) = line.split_once('|') else {
            continue;
        };
        let mut words = package.split(' ');
        let (Some(name), Some(version)) = (words.next(), words.next()) else {
            continue;
        };
        let key = (name.to_owned(), version.trim_start_matches('v').to_owned());
        let features = features.split(' ').next().unwrap_or_default().split(',');
        let entry = built.entry(key).or_default();
        entry.extend(features.map(str::to_owned));
    }
    built
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::finding::lines;

    fn says(tree: &str) -> Vec<String> {
        let package = |name: &str, features: Value| json!({ "name": name, "version": "1.0.0", "features": features });
        let mut packages: Vec<_> = EXPECTED
            .iter()
            .map(|name| package(name, json!({})))
            .collect();
        packages.push(package("cipher", json!({ "zeroize": [] })));
        packages.push(package("unused", json!({ "zeroize": [] })));
        packages.push(package("plain", json!({ "std": [] })));
        let expected: String = EXPECTED
            .iter()
            .map(|name| format!("{name} v1.0.0|\n"))
            .collect();
        lines(&check(
            &json!({ "packages": packages }),
            &format!("{expected}{tree}"),
        ))
    }

    #[test]
    fn a_package_that_could_wipe_and_does_not_is_reported() {
        let expected = ["cipher: turn its feature `zeroize` on in the root's Cargo.toml"];
        assert_eq!(says("cipher v1.0.0|alloc,std\n"), expected);
        assert_eq!(says("cipher v1.0.0|\ncipher v1.0.0| (*)\n"), expected);
        assert_eq!(
            says("cipher v1.0.0|alloc,zeroize (*)\nplain v1.0.0|\n"),
            [""; 0]
        );
    }

    #[test]
    fn what_is_not_built_need_not_wipe() {
        assert_eq!(says("cipher v2.0.0|\n"), [""; 0]);
    }

    #[test]
    fn an_expected_package_that_is_gone_is_reported() {
        let said = lines(&check(&json!({ "packages": [] }), ""));
        assert_eq!(said.len(), EXPECTED.len());
    }

    #[test]
    fn a_package_that_prints_is_reported() {
        assert_eq!(says("defmt v0.1.0|std\n").len(), 1);
    }
}

//! `cargo xtask tidy`: the rules that no other tool checks.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::finding::Finding;
use crate::tree::Tree;
use crate::{arrows, faults, lengths, licences, links, manifests, plant, sources, wiping, words};

/// Runs every check, prints every finding, and fails if there is one.
pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let tree = Tree::read(root)?;
    let metadata = metadata(root)?;
    let mut findings: Vec<Finding> = [
        arrows::check(&metadata),
        licences::check(&metadata, &tree),
        manifests::check(&tree),
        lengths::check(&tree),
        words::check(&tree),
        links::check(&tree),
        sources::check(&tree),
        faults::check(&tree),
        plant::check(&tree),
        wiping::check(&metadata, &wiping::built(root)?),
    ]
    .concat();
    findings.sort();
    for finding in &findings {
        eprintln!("{finding}");
    }
    match findings.len() {
        0 => {
            println!("tidy: {} files are in order", tree.files().count());
            Ok(())
        }
        count => bail!("tidy: {count} to mend"),
    }
}

/// Records that `spec/` was reread after the last change of the sources it specifies, and brings
/// its column of tests and the page of planted faults up to date.
pub(crate) fn bless(root: &Path) -> anyhow::Result<()> {
    let tree = Tree::read(root)?;
    fs::write(root.join(sources::RECORD), sources::record(&tree))?;
    fs::write(root.join(faults::PAGE), faults::rewritten(&tree))?;
    fs::write(root.join(plant::PAGE), plant::rewritten(&tree))?;
    Ok(())
}

/// What cargo knows of the workspace and of everything below it, on all platforms.
fn metadata(root: &Path) -> anyhow::Result<Value> {
    let mut cargo = crate::cargo(root);
    let output = cargo
        .args(["metadata", "--all-features", "--format-version=1"])
        .output()?;
    if !output.status.success() {
        bail!(
            "`cargo metadata` failed: {}",
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    serde_json::from_slice(&output.stdout).context("reading what `cargo metadata` printed")
}

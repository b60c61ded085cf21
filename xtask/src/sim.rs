//! `cargo xtask sim`, `cargo xtask replay` and `cargo xtask storm`: the simulator, built to be fast.

use std::path::Path;

use anyhow::{Context as _, ensure};

/// Runs seeds, as many as asked for, without key nodes and with them.
pub(crate) fn run(root: &Path, words: &[&str]) -> anyhow::Result<()> {
    start(root, "run", words)?;
    start(root, "nodes", words)
}

/// Shows what happened in one.
pub(crate) fn replay(root: &Path, words: &[&str]) -> anyhow::Result<()> {
    start(root, "replay", words)
}

/// Lets very many devices ask at once.
pub(crate) fn storm(root: &Path, words: &[&str]) -> anyhow::Result<()> {
    start(root, "storm", words)
}

fn start(root: &Path, command: &str, words: &[&str]) -> anyhow::Result<()> {
    let mut cargo = crate::cargo(root);
    cargo.args([
        "run",
        "-q",
        "--release",
        "-p",
        "sealcast-sim",
        "--",
        command,
    ]);
    let status = cargo.args(words).status().context("cargo")?;
    ensure!(status.success(), "the simulator says no");
    Ok(())
}

//! `cargo xtask hooks`: lets git run `hooks/pre-commit` in this clone.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};

/// Points this clone's hooks at the folder `hooks/`.
pub(crate) fn install(root: &Path) -> anyhow::Result<()> {
    let mut git = Command::new("git");
    git.current_dir(root)
        .args(["config", "core.hooksPath", "hooks"]);
    ensure!(
        git.status().context("starting git")?.success(),
        "git kept its hooks as they are"
    );
    println!("each commit now runs fmt and tidy; `git commit --no-verify` skips them once");
    Ok(())
}

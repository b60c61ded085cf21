//! The crates that have no machine below them, on machines that are not this one; and the vectors
//! in another language.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::tools::BROWSERS;
use super::{cargo, must};
use crate::summary::Summary;

/// The engine stands on protocol and crypto, so all three build.
pub(super) fn build_for_browsers(root: &Path) -> anyhow::Result<Option<Summary>> {
    cargo(
        root,
        &["build", "-p", "sealcast-engine", "--target", BROWSERS],
    )
}

/// `.cargo/config.toml` says how Node.js runs it.
pub(super) fn vectors_in_webassembly(root: &Path) -> anyhow::Result<Option<Summary>> {
    let program = ["run", "-p", "sealcast-vectors", "--target", BROWSERS];
    cargo(root, &[&program[..], &["--", "vectors"]].concat())
}

/// A reader that was written from the specification alone.
pub(super) fn vectors_in_python(root: &Path) -> anyhow::Result<Option<Summary>> {
    let mut python = Command::new(python_with_libraries(root)?);
    python.current_dir(root).arg("vectors/check.py");
    must(python)
}

/// The interpreter of an environment that has what `vectors/requirements.txt` names, made unless it
/// is there already.
pub(super) fn python_with_libraries(root: &Path) -> anyhow::Result<PathBuf> {
    let wanted = fs::read_to_string(root.join("vectors/requirements.txt"))?;
    let home = root.join("target/python");
    let python = home.join("bin/python");
    let installed = home.join("requirements.txt");
    if fs::read_to_string(&installed).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv", "--clear"]).arg(&home);
    must(venv)?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--requirement"]);
    pip.arg(root.join("vectors/requirements.txt"));
    must(pip)?;
    fs::write(&installed, &wanted)?;
    Ok(python)
}

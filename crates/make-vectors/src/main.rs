//! `cargo xtask vectors`: what another implementation can be tried with, made from fixed seeds.
//!
//! `vectors/README.md` says how the files read. What is expected is written down here and not
//! computed; `crates/vectors` reads the files back without any of this.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command prints"
)]

mod asking;
mod bundles;
mod case;
mod cast;
mod devices;
mod envelopes;
mod exports;
mod homes;
mod items;
mod key_nodes;
mod keys;
mod letters;
mod log;
mod log_states;
mod names;
mod nodes;
mod pairing;
mod points;
mod raw;
mod sessions;
mod stores;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use case::Case;

/// The repository's top folder.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
/// Below the top folder.
const FOLDER: &str = "vectors";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        [] => write(Path::new(ROOT)),
        ["--check"] => check(Path::new(ROOT)),
        _ => Err(anyhow::anyhow!("it knows `--check` and nothing else")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Writes every file anew, and removes those that no generator makes any more.
fn write(root: &Path) -> anyhow::Result<()> {
    let folder = root.join(FOLDER);
    let made = made()?;
    for path in committed(&folder)?.keys() {
        if !made.contains_key(path) {
            fs::remove_file(folder.join(path))?;
        }
    }
    for (path, text) in &made {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().context("a case lies in an area")?)?;
        fs::write(path, text)?;
    }
    println!("vectors: {} cases written", made.len());
    Ok(())
}

/// Makes every case and compares it with its file, byte for byte.
fn check(root: &Path) -> anyhow::Result<()> {
    let (made, committed) = (made()?, committed(&root.join(FOLDER))?);
    let paths = made.keys().chain(committed.keys());
    let mut differing: Vec<&PathBuf> = paths
        .filter(|path| made.get(*path) != committed.get(*path))
        .collect();
    differing.sort();
    differing.dedup();
    for path in &differing {
        eprintln!("{FOLDER}/{}: not what its generator makes", path.display());
    }
    match differing.len() {
        0 => {
            println!("vectors: {} cases are as they are made", made.len());
            Ok(())
        }
        count => bail!("vectors: {count} differ; run `cargo xtask vectors` and read what changed"),
    }
}

/// Every case, by path below the folder.
fn made() -> anyhow::Result<BTreeMap<PathBuf, String>> {
    let cases: Vec<Case> = [
        keys::cases()?,
        key_nodes::cases()?,
        points::cases(),
        envelopes::cases()?,
        items::cases(),
        names::cases(),
        devices::cases()?,
        pairing::cases()?,
        log::cases(),
        log_states::cases(),
        sessions::cases()?,
        bundles::cases()?,
        asking::cases(),
        nodes::cases()?,
        exports::cases()?,
        homes::cases(),
        stores::cases(),
    ]
    .concat();
    let mut made = BTreeMap::new();
    for case in cases {
        let (path, text) = case.finish()?;
        ensure!(
            made.insert(path.clone(), text).is_none(),
            "two cases are called {}",
            path.display()
        );
    }
    Ok(made)
}

/// Every case that lies in the folder, by path below it.
fn committed(folder: &Path) -> anyhow::Result<BTreeMap<PathBuf, String>> {
    let mut found = BTreeMap::new();
    for area in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let area = area?.path();
        if !area.is_dir() {
            continue;
        }
        for file in fs::read_dir(&area)? {
            let path = file?.path();
            let below = path.strip_prefix(folder)?.to_path_buf();
            found.insert(below, fs::read_to_string(&path)?);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_vectors_are_what_the_generators_make() {
        check(Path::new(ROOT)).unwrap();
    }

    #[test]
    fn an_altered_a_missing_and_a_stray_file_are_noticed() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join(FOLDER)).unwrap();
        assert!(check(home.path()).is_err());
        write(home.path()).unwrap();
        check(home.path()).unwrap();

        let file = home.path().join("vectors/digest/two-parts.txt");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replace("expect: ok", "expect: OK")).unwrap();
        assert!(check(home.path()).is_err());
        fs::remove_file(&file).unwrap();
        assert!(check(home.path()).is_err());
        fs::write(&file, text).unwrap();
        fs::write(home.path().join("vectors/digest/stray.txt"), "").unwrap();
        assert!(check(home.path()).is_err());
        write(home.path()).unwrap();
        check(home.path()).unwrap();
    }
}

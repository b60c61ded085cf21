//! `cargo xtask fuzz`: runs libFuzzer on the targets of `crates/fuzz`, with the compiler that builds
//! everything else.
//!
//! What a run finds that is new goes to `fuzz/target/corpus/`, from where the next goes on. What breaks
//! a target is copied to `fuzz/corpus/`, which the tests replay.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};

/// How long each target runs, where nothing else is said.
const SECONDS: u64 = 60;
/// How long one input may take, and how much memory a target may have.
const INPUT_SECONDS_MAX: u32 = 10;
const MEMORY_MB_MAX: u32 = 2_048;
/// Longest input.
const LEN_MAX: u32 = 8_192;
/// What `--keep` takes into `fuzz/corpus/` of one target, at most.
const KEPT_FILES_MAX: usize = 24;
const KEPT_BYTES_MAX: u64 = 8_192;
/// As `cargo install` has it.
const CARGO_FUZZ: [&str; 3] = ["cargo-fuzz", "--version", "0.13.2"];

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
enum Job {
    /// Write what fuzzing starts from.
    Seeds,
    /// Take some of what was found into the corpus.
    Keep(Vec<String>),
    /// Fuzz for so many seconds each.
    Run(Vec<String>, u64),
}

impl Job {
    fn parse(words: &[&str], all: &[String]) -> anyhow::Result<Self> {
        let (mut targets, mut seconds, mut keeps) = (Vec::new(), SECONDS, false);
        let mut words = words.iter().copied();
        while let Some(word) = words.next() {
            match word {
                "--seeds" => return Ok(Self::Seeds),
                "--keep" => keeps = true,
                "--seconds" => {
                    let number = words.next().and_then(|word| word.parse().ok());
                    seconds = number.context("`--seconds` needs a number")?;
                }
                name if all.iter().any(|own| own == name) => targets.push(name.to_owned()),
                other => bail!("no such target: {other}; there are:\n{}", all.join("\n")),
            }
        }
        if targets.is_empty() {
            targets = all.to_vec();
        }
        Ok(match keeps {
            true => Self::Keep(targets),
            false => Self::Run(targets, seconds),
        })
    }
}

/// Fuzzes, or does what goes with it.
pub(crate) fn run(root: &Path, words: &[&str]) -> anyhow::Result<()> {
    let manifest = fs::read_to_string(root.join("fuzz/Cargo.toml")).context("fuzz/Cargo.toml")?;
    match Job::parse(words, &targets(&manifest))? {
        Job::Seeds => write_seeds(root),
        Job::Keep(targets) => targets.iter().try_for_each(|target| keep(root, target)),
        Job::Run(targets, seconds) => {
            prepare(root)?;
            let broken = targets.iter().filter_map(|target| {
                let outcome = fuzz(root, target, seconds);
                outcome.transpose()
            });
            let broken = broken.collect::<anyhow::Result<Vec<_>>>()?;
            broken.iter().for_each(|says| println!("\n{says}"));
            ensure!(broken.is_empty(), "targets that broke: {}", broken.len());
            Ok(())
        }
    }
}

/// The programs that a manifest names.
fn targets(manifest: &str) -> Vec<String> {
    let programs = manifest.split("[[bin]]\nname = \"").skip(1);
    let names = programs.filter_map(|of| of.split_once('"'));
    names.map(|(name, _)| name.to_owned()).collect()
}

fn write_seeds(root: &Path) -> anyhow::Result<()> {
    let mut cargo = crate::cargo(root);
    cargo.args(["run", "-q", "-p", "sealcast-fuzz", "--example"]);
    let status = cargo.arg("write_seeds").status().context("cargo")?;
    ensure!(status.success(), "no seeds were written");
    Ok(())
}

/// Installs cargo-fuzz where it is missing.
fn prepare(root: &Path) -> anyhow::Result<()> {
    let mut version = crate::cargo(root);
    version.args(["fuzz", "--version"]);
    version.stdout(Stdio::null()).stderr(Stdio::null());
    if version.status().is_ok_and(|status| status.success()) {
        return Ok(());
    }
    let mut install = crate::cargo(root);
    install.args(["install", "--locked"]).args(CARGO_FUZZ);
    let status = install.status().context("cargo install")?;
    ensure!(status.success(), "cargo-fuzz cannot be installed");
    Ok(())
}

/// Where a target's inputs lie: those that came up here, and those that are kept for good.
fn folders(root: &Path, target: &str) -> anyhow::Result<(PathBuf, PathBuf)> {
    let found = root.join("fuzz/target/corpus").join(target);
    let kept = root.join("fuzz/corpus").join(target);
    for folder in [&found, &kept] {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    Ok((found, kept))
}

/// cargo-fuzz, for one target. No address sanitizer: it needs an unstable compiler, and there is no
/// unsafe code for it to watch.
fn cargo_fuzz(root: &Path, target: &str) -> Command {
    let mut cargo = crate::cargo(root);
    cargo.args(["fuzz", "run", "--fuzz-dir", "fuzz", "-s", "none", target]);
    cargo
}

/// Fuzzes one target. What to say where it broke.
fn fuzz(root: &Path, target: &str, seconds: u64) -> anyhow::Result<Option<String>> {
    let (found, kept) = folders(root, target)?;
    let artifacts = root.join("fuzz/target/artifacts").join(target);
    fs::create_dir_all(&artifacts)?;
    let before = files(&artifacts)?;
    println!("\n== {target}, {seconds} s ==");
    let mut cargo = cargo_fuzz(root, target);
    cargo.args([&found, &kept]).arg("--");
    cargo.args([
        format!("-max_total_time={seconds}"),
        format!("-timeout={INPUT_SECONDS_MAX}"),
        format!("-rss_limit_mb={MEMORY_MB_MAX}"),
        format!("-max_len={LEN_MAX}"),
        format!("-artifact_prefix={}/", artifacts.display()),
        "-print_final_stats=1".to_owned(),
    ]);
    let status = cargo.status().context("cargo fuzz")?;
    if status.success() {
        return Ok(None);
    }
    let new = files(&artifacts)?;
    let new = new.iter().find(|path| !before.contains(path));
    let new = new.with_context(|| format!("{target} cannot be run"))?;
    let name = new.file_name().unwrap_or_default();
    let copy = kept.join(name);
    fs::copy(new, &copy).with_context(|| copy.display().to_string())?;
    let path = copy.strip_prefix(root).unwrap_or(&copy).display();
    Ok(Some(format!(
        "{target} breaks on {path}, which the tests replay from now on:\n  \
         cargo test -p sealcast-fuzz --test corpus\n  \
         cargo fuzz run -s none {target} {path}\n  \
         cargo fuzz tmin -s none {target} {path}    # a shorter one"
    )))
}

fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        files.push(entry?.path());
    }
    Ok(files)
}

/// Takes some of what reaches code that the corpus does not into the corpus.
fn keep(root: &Path, target: &str) -> anyhow::Result<()> {
    let (found, kept) = folders(root, target)?;
    let merged = root.join("fuzz/target/merged").join(target);
    if merged.exists() {
        fs::remove_dir_all(&merged)?;
    }
    fs::create_dir_all(&merged)?;
    for path in files(&kept)? {
        fs::copy(&path, merged.join(path.file_name().unwrap_or_default()))?;
    }
    let mut cargo = cargo_fuzz(root, target);
    cargo.args([&merged, &found]).args(["--", "-merge=1"]);
    let status = cargo.status().context("cargo fuzz")?;
    ensure!(status.success(), "{target} cannot be merged");
    let mut new = Vec::new();
    for path in files(&merged)? {
        let name = path.file_name().unwrap_or_default().to_owned();
        if !kept.join(&name).exists() {
            new.push((fs::metadata(&path)?.len(), name));
        }
    }
    new.sort();
    for (_, name) in thinned(&new) {
        fs::copy(merged.join(name), kept.join(name))?;
    }
    Ok(())
}

/// Short ones and long ones, as many as there is room for.
fn thinned<T>(sorted: &[(u64, T)]) -> Vec<&(u64, T)> {
    let fits = |step: &usize| {
        let picked = sorted.iter().step_by(*step);
        let bytes: u64 = picked.clone().map(|(len, _)| len).sum();
        picked.count() <= KEPT_FILES_MAX && bytes <= KEPT_BYTES_MAX
    };
    let step = (1..=sorted.len()).find(fits);
    let picked = step.map(|step| sorted.iter().step_by(step).collect());
    picked.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<String> {
        targets(
            "[workspace]\n\n[[bin]]\nname = \"frame\"\npath = \"a\"\n\n[[bin]]\nname = \"ids\"\n",
        )
    }

    #[test]
    fn all_targets_run_for_a_minute_where_nothing_is_said() {
        assert_eq!(all(), ["frame", "ids"]);
        let job = Job::parse(&[], &all()).unwrap();
        assert_eq!(job, Job::Run(all(), 60));
    }

    #[test]
    fn targets_and_seconds_are_read_in_any_order() {
        let words = ["--seconds", "5", "ids"];
        let wanted = Job::Run(vec!["ids".to_owned()], 5);
        assert_eq!(Job::parse(&words, &all()).unwrap(), wanted);
        let kept = Job::parse(&["ids", "--keep"], &all()).unwrap();
        assert_eq!(kept, Job::Keep(vec!["ids".to_owned()]));
        assert_eq!(Job::parse(&["--seeds"], &all()).unwrap(), Job::Seeds);
    }

    #[test]
    fn of_many_inputs_short_and_long_ones_are_kept() {
        let all: Vec<_> = (1..=100).map(|len| (len, ())).collect();
        let kept = thinned(&all);
        assert_eq!((kept.len(), kept[0].0, kept[19].0), (20, 1, 96));
        let long: Vec<_> = (1..=4).map(|number| (5_000, number)).collect();
        assert_eq!(thinned(&long), [&(5_000, 1)]);
        assert!(thinned(&[(10_000, ())]).is_empty());
    }

    #[test]
    fn what_is_no_target_is_refused_with_those_that_are() {
        let error = Job::parse(&["frames"], &all()).unwrap_err().to_string();
        assert_eq!(error, "no such target: frames; there are:\nframe\nids");
        assert!(Job::parse(&["--seconds", "x"], &all()).is_err());
    }
}
